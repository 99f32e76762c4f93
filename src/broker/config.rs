//! Every bound of the broker, with its unit.

use serde::Deserialize;

/// What happens to a QoS 1 or 2 message for a persistent session that has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtSessionBound {
    /// The session does not get it, which the ledger of absent clients says before the publisher is acknowledged.
    /// An absent client stops nobody.
    #[default]
    DropNewest,
    /// The publisher is refused: MQTT 5 reason 0x97, MQTT 3.1.1 is disconnected. Nothing is lost, and an absent client
    /// can stop everybody who publishes to its topics.
    Refuse,
}

/// Section `[broker]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sessions, connected or waiting for their client. Further new clients are refused (0x97).
    pub sessions: usize,
    /// Longest time a session outlives its connection; a client that asks for more gets this.
    pub session_expiry_max_s: u32,
    /// Filters of one session.
    pub subscriptions_per_session: usize,
    /// Messages that may wait for one session. At the bound QoS 0 is dropped and counted, a connected clean
    /// session is disconnected (0x97), and for a persistent one `at_session_bound` decides. At most 60,000.
    pub queue_messages: usize,
    /// The same bound in bytes of topic and payload.
    pub queue_bytes: usize,
    /// Bytes that may wait for all persistent sessions together.
    pub persistent_queue_bytes: usize,
    /// What happens at those three bounds to a message for a persistent session.
    pub at_session_bound: AtSessionBound,
    /// QoS 1 and 2 messages in flight towards one client, whatever its Receive Maximum.
    pub inflight_messages: u16,
    /// Receive Maximum towards publishers: QoS 1 and 2 messages a client may have unanswered.
    pub receive_maximum: u16,
    /// How long a publisher may be kept waiting for a subscriber whose queue is half full.
    pub pressure_ms: u64,
    /// How long a subscriber that did not catch up in `pressure_ms` is not waited for again.
    pub pressure_pause_ms: u64,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of all retained topics and payloads.
    pub retained_bytes: usize,
    /// Levels of a topic or filter.
    pub topic_levels: usize,
    /// Bytes of a topic or filter.
    pub topic_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sessions: 20_000,
            session_expiry_max_s: 7 * 24 * 3600,
            subscriptions_per_session: 1_000,
            queue_messages: 10_000,
            queue_bytes: 2 * 1024 * 1024,
            persistent_queue_bytes: 64 * 1024 * 1024,
            at_session_bound: AtSessionBound::DropNewest,
            inflight_messages: 512,
            receive_maximum: 1_024,
            pressure_ms: 250,
            pressure_pause_ms: 5_000,
            retained_messages: 20_000,
            retained_bytes: 32 * 1024 * 1024,
            topic_levels: 64,
            topic_bytes: 4 * 1024,
        }
    }
}
