//! Settings and counters of the sync flow.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use crate::base::Name;
use crate::outbox::Class;
use crate::uplink::LinkLimits;

/// Smallest burst that is assumed where none is set: a small batch.
const BURST_BYTES: u64 = 16 * 1024;
/// A paced batch is not larger than what this many seconds earn, so that fresh rows do not wait long behind it.
const BATCH_SECONDS: u64 = 5;
/// Below this, what stands around the rows costs more than the rows.
const PACED_BATCH_BYTES: u64 = 4 * 1024;

/// Whose word lets a row leave the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcknowledgedBy {
    /// The receiver's, after its commit (`forebay collect`, or whoever answers as `docs/batch.cddl` says). A broker
    /// that forgets what it took costs nothing.
    #[default]
    Receiver,
    /// The broker's PUBACK or the stream's PubAck: for rules, bridges and other consumers that answer nothing. What the broker forgets is gone.
    Broker,
}

/// How batches are made, how fast they leave and how failures are waited out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// First level of every topic: the customer or site.
    pub tenant: Name,
    /// Rows of one batch at most.
    pub batch_rows: usize,
    /// Payload bytes of one batch at most; one larger row still travels alone.
    pub batch_bytes: usize,
    /// How long rows may wait for company. Alarms never wait.
    pub linger_ms: u64,
    /// First wait after a loss of the link or a refusal; the next ones double, with jitter.
    pub retry_first_ms: u64,
    /// Longest such wait.
    pub retry_most_ms: u64,
    /// At the end: how long to wait for the answers to what was sent.
    pub drain_ms: u64,
    /// Whose word lets a row leave the queue.
    pub acknowledged_by: AcknowledgedBy,
    /// Batches that the broker took and no receiver has confirmed yet, at once. They are kept in memory.
    pub unconfirmed_batches: usize,
    /// Their bytes; one larger batch still travels alone.
    pub unconfirmed_bytes: usize,
    /// A batch without a receipt for this long is sent again; the next waits double. While no receipt comes at all,
    /// only the oldest batch is.
    pub receipt_timeout_ms: u64,
    /// Longest such wait.
    pub receipt_most_ms: u64,
    /// Requests of the cloud that are looked at in a minute; 0 takes none.
    pub requests_per_minute: u32,
    /// Questions of the cloud about leases that are looked at in a minute; saved up for one minute. 0 takes none.
    pub leases_per_minute: u32,
    /// Most bytes a second, payload and topic of every message, repeated ones included; what TCP and TLS add (5 to
    /// 10 %) is not counted. Absent: no limit.
    pub bytes_per_s: Option<u64>,
    /// Bytes that may leave at once after a pause. Absent: what a second earns, at least 16 KiB.
    pub burst_bytes: Option<u64>,
    /// Most bytes in any 24 hours, counted like `bytes_per_s`. Absent: no limit.
    pub bytes_per_day: Option<u64>,
    /// Alarms may overdraw both budgets by so much; everything else waits until it is paid.
    pub alarm_debt_bytes: u64,
    /// While a backlog drains, fresh rows get at least this share of the bytes: 0 (strictly the oldest first) to 99.
    pub live_share_percent: u8,
    /// After an outage all but alarms wait for a random time of at most this percentage of its length.
    pub spread_percent: u32,
    /// Longest such wait.
    pub spread_most_ms: u64,
    /// Whether the link's bytes cost money: true, false, or "auto" (true while the default route leaves over a cellular
    /// modem or PPP). On a metered link only `metered_classes` leave; the rest stays in the queue.
    pub metered: Metered,
    /// What leaves over a metered link: "alarm", "verdict", "summary", "raw".
    pub metered_classes: Classes,
    /// Messages travel as one zstd frame where that is smaller.
    pub compress: bool,
    /// When the link is called up, degraded or down.
    pub link: LinkLimits,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            tenant: Name::new("default").expect("letters only"),
            batch_rows: 512,
            batch_bytes: 64 * 1024,
            linger_ms: 200,
            retry_first_ms: 500,
            retry_most_ms: 60_000,
            drain_ms: 2_000,
            acknowledged_by: AcknowledgedBy::Receiver,
            unconfirmed_batches: 64,
            unconfirmed_bytes: 1024 * 1024,
            receipt_timeout_ms: 10_000,
            receipt_most_ms: 600_000,
            requests_per_minute: 6,
            leases_per_minute: 240,
            bytes_per_s: None,
            burst_bytes: None,
            bytes_per_day: None,
            alarm_debt_bytes: 64 * 1024,
            live_share_percent: 50,
            spread_percent: 10,
            spread_most_ms: 300_000,
            metered: Metered::No,
            metered_classes: Classes(vec![Class::Alarm, Class::Summary]),
            compress: true,
            link: LinkLimits::default(),
        }
    }
}

/// Whether bytes cost money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "MeteredWord")]
pub enum Metered {
    /// They do.
    Yes,
    /// They do not.
    No,
    /// Whoever looks at the machine's routes says so.
    Auto,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MeteredWord {
    Flag(bool),
    Word(String),
}

impl TryFrom<MeteredWord> for Metered {
    type Error = String;

    fn try_from(word: MeteredWord) -> Result<Self, String> {
        match word {
            MeteredWord::Flag(true) => Ok(Self::Yes),
            MeteredWord::Flag(false) => Ok(Self::No),
            MeteredWord::Word(word) if word == "auto" => Ok(Self::Auto),
            MeteredWord::Word(word) => Err(format!("{word:?} is neither true, false nor \"auto\"")),
        }
    }
}

/// Some classes of streams.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Classes(pub Vec<Class>);

impl TryFrom<Vec<String>> for Classes {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let class = |word: &String| {
            Class::from_word(word).ok_or_else(|| format!("{word:?} is none of alarm, verdict, summary, raw"))
        };
        words.iter().map(class).collect::<Result<_, _>>().map(Self)
    }
}

impl SyncConfig {
    /// Finds what cannot work: the setting's name below `[sync]`, and what would be right.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        let wrong = |key: &str, problem| Err((key.to_owned(), problem));
        if self.batch_rows == 0 || self.batch_bytes == 0 {
            return wrong(if self.batch_rows == 0 { "batch_rows" } else { "batch_bytes" }, "must not be 0");
        }
        if self.bytes_per_s == Some(0) {
            return wrong("bytes_per_s", "must not be 0; leave it out for no limit");
        }
        if self.burst_bytes.is_some_and(|bytes| bytes < 1024) {
            return wrong("burst_bytes", "must be 1024 or more: a batch has to fit");
        }
        if self.burst_bytes.is_some() && self.bytes_per_s.is_none() {
            return wrong("burst_bytes", "means nothing without bytes_per_s");
        }
        if self.bytes_per_day.is_some_and(|bytes| bytes < 16 * 1024) {
            return wrong("bytes_per_day", "must be 16384 or more; leave it out for no limit");
        }
        if self.live_share_percent > 99 {
            return wrong("live_share_percent", "must be 0 to 99: a backlog has to leave, too");
        }
        if self.spread_percent > 100 {
            return wrong("spread_percent", "must be 0 to 100");
        }
        if !self.metered_classes.0.contains(&Class::Alarm) {
            return wrong("metered_classes", "must hold \"alarm\": alarms always leave");
        }
        self.link.check().or_else(|(key, problem)| wrong(&format!("link.{key}"), problem))
    }

    /// Bytes that may leave at once.
    pub(super) fn burst(&self) -> u64 {
        self.burst_bytes.unwrap_or_else(|| self.bytes_per_s.unwrap_or(0).max(BURST_BYTES))
    }

    /// The largest message that is made of several rows.
    pub(super) fn message_bytes(&self) -> u64 {
        match self.bytes_per_s {
            None => u64::MAX,
            Some(rate) => rate.saturating_mul(BATCH_SECONDS).max(PACED_BATCH_BYTES).min(self.burst()),
        }
    }
}

/// What the flow counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SyncMetrics {
    /// Batches acknowledged.
    pub batches: Counter,
    /// Rows acknowledged.
    pub rows: Counter,
    /// Bytes of the batches handed to the link, before compression.
    pub bytes: Counter,
    /// Bytes handed to the link: topics and payloads as they travel.
    pub sent_bytes: Counter,
    /// Batches that held rows sent before.
    pub resent: Counter,
    /// Batches of fresh rows that overtook a backlog.
    pub overtaking: Counter,
    /// Losses of the link, refused batches and failed reads of the queue.
    pub failures: Counter,
    /// Rows that are too large for the far side and were declared lost.
    pub unsendable: Counter,
    /// Batches that wait for their acknowledgement.
    pub in_flight: Gauge,
    /// Receipts that confirmed a batch.
    pub receipts: Counter,
    /// Receipts for nothing that was sent on this connection, or for other bytes: they change nothing.
    pub strange_receipts: Counter,
    /// Batches that were ready and waited for bytes a second, bytes a day or the end of an outage's spread.
    pub paced: Counter,
    /// What the day's budget has left; -1 without one.
    pub day_left_bytes: Gauge,
    /// 3 up, 2 metered, 1 degraded, 0 down, with hysteresis.
    pub link: Gauge,
    /// Smoothed time from handing over a batch to its answer.
    pub answer_ms: Gauge,
}

impl SyncMetrics {
    /// Puts the counters into `registry`, as `sync_*` and `link_*`.
    pub fn register(&self, registry: &mut Registry) {
        let link = registry.sub_registry_with_prefix("link");
        link.register("state", "3 up, 2 metered, 1 degraded, 0 down, with hysteresis", self.link.clone());
        link.register("answer_ms", "Smoothed time from a batch to its answer", self.answer_ms.clone());
        let registry = registry.sub_registry_with_prefix("sync");
        registry.register("batches", "Batches acknowledged by the cloud", self.batches.clone());
        registry.register("rows", "Rows acknowledged by the cloud", self.rows.clone());
        registry.register("bytes", "Bytes of batches handed to the link, before compression", self.bytes.clone());
        registry.register("sent_bytes", "Bytes handed to the link, as they travel", self.sent_bytes.clone());
        registry.register("resent_batches", "Batches that held rows sent before", self.resent.clone());
        registry.register("overtaking_batches", "Batches of fresh rows ahead of a backlog", self.overtaking.clone());
        registry.register("failures", "Losses of the link, refusals, failed reads", self.failures.clone());
        registry.register("unsendable_rows", "Rows too large for the cloud, declared lost", self.unsendable.clone());
        registry.register("in_flight_batches", "Batches that wait for their acknowledgement", self.in_flight.clone());
        registry.register("receipts", "Batches that a receiver confirmed", self.receipts.clone());
        registry.register("strange_receipts", "Receipts for nothing that was sent", self.strange_receipts.clone());
        registry.register("paced_batches", "Batches that waited for a budget", self.paced.clone());
        registry.register(
            "day_left_bytes",
            "What the day's budget has left; -1 without one",
            self.day_left_bytes.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> SyncConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nonsense_is_named_with_what_would_be_right() {
        SyncConfig::default().check().unwrap();
        for (text, key) in [
            ("bytes_per_s = 0", "bytes_per_s"),
            ("burst_bytes = 10000", "burst_bytes"),
            ("bytes_per_s = 10\nburst_bytes = 10", "burst_bytes"),
            ("bytes_per_day = 0", "bytes_per_day"),
            ("live_share_percent = 101", "live_share_percent"),
            ("spread_percent = 101", "spread_percent"),
            ("metered_classes = [\"summary\"]", "metered_classes"),
            ("batch_rows = 0", "batch_rows"),
            ("[link]\nslow_enter_ms = 10\nslow_exit_ms = 20", "link.slow_exit_ms"),
            ("[link]\nflap_losses = 1", "link.flap_losses"),
        ] {
            assert_eq!(config(text).check().unwrap_err().0, key, "{text}");
        }
    }

    #[test]
    fn metered_is_a_flag_or_the_word_auto() {
        assert_eq!(config("metered = true").metered, Metered::Yes);
        assert_eq!(config("metered = \"auto\"").metered, Metered::Auto);
        let error = toml::from_str::<SyncConfig>("metered = \"yes\"").unwrap_err().to_string();
        assert!(error.contains("neither true, false nor"), "{error}");
        let error = toml::from_str::<SyncConfig>("metered_classes = [\"alarms\"]").unwrap_err().to_string();
        assert!(error.contains("\"alarms\" is none of"), "{error}");
    }
}
