//! What a link is, whoever is on the other side.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::base::Clock;

use super::metrics::Metrics;

/// Messages from the cloud that may wait to be looked at.
pub(super) const HEARD_MESSAGES: usize = 256;
/// Longest message from the cloud.
pub(super) const HEARD_BYTES: usize = 4096;
/// Most topics whose refusals are remembered for [`LinkState::Degraded`].
const MAX_COMPLAINTS: usize = 64;

/// One message to the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// MQTT topic, without wildcards.
    pub topic: String,
    /// What is carried.
    pub payload: Bytes,
}

/// A message from the cloud. Short ones only: whoever needs more says where it can be fetched.
#[derive(Debug, Clone)]
pub struct CloudMessage {
    /// Where it was published.
    pub topic: String,
    /// What it carries.
    pub payload: Bytes,
    /// What an answer under MQTT 5 names its question by.
    pub correlation: Option<Bytes>,
    /// Somebody keeps the message until he is told that it is done, and brings it again otherwise.
    pub done: Option<Done>,
}

/// Tells whoever keeps a message of the cloud that it need not come again.
#[derive(Debug, Clone)]
pub struct Done {
    tell: mpsc::Sender<String>,
    name: String,
}

impl Done {
    /// `name` goes into `tell` once the message is done.
    #[cfg(feature = "nats")]
    pub(super) fn new(tell: mpsc::Sender<String>, name: String) -> Self {
        Self { tell, name }
    }

    /// The message is done. Over a connection that is gone it comes again all the same.
    pub fn tell(self) {
        let _ = self.tell.try_send(self.name);
    }
}

/// What a link listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ears {
    /// Topics that are listened to on every connection. The far side's rules have to allow it.
    pub filters: Vec<String>,
    /// Where a receiver's answer to every message is expected. Under MQTT 5 it is asked for as the message's Response Topic,
    /// with the SHA-256 of the payload as Correlation Data, so that a receiver that knows nothing of us can confirm a message
    /// with these two. Over NATS a header says that an answer is wanted.
    pub response_topic: Option<String>,
    /// Where this side answers the cloud. That nobody listens there is no complaint: whoever asked has gone.
    pub answers: Option<String>,
}

/// The sender's own number for a message that waits for its answer.
pub type Ticket = u64;

/// What the far side said to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken. The sender may forget the message.
    Acknowledged,
    /// The broker took it and threw it away, because nobody subscribes (MQTT 5 reason 0x10). Keep it.
    NoSubscriber,
    /// The broker refused this message; the link goes on. Keep it.
    Refused {
        /// The broker's word.
        reason: String,
    },
    /// Larger than what the far side takes; it was not sent.
    TooLarge {
        /// Payload bytes that would fit on this topic.
        max_payload_bytes: usize,
    },
}

/// The link is gone. Every message without an answer has to be sent again on the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Lost {
    /// Readable alone: it names the far side.
    pub reason: String,
}

/// How the link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Connected, and the last answer on every topic was an acknowledgement.
    Up,
    /// The same, and its bytes cost money. Only a [`LinkJudge`](super::LinkJudge) says it.
    Metered,
    /// Connected, but some messages are not taken.
    Degraded {
        /// What the far side says, for one of the topics.
        reason: String,
    },
    /// Not connected.
    Down {
        /// Since when, milliseconds since 1970.
        since_ms: i64,
        /// Why the last attempt or connection ended.
        reason: String,
    },
}

/// A link that takes messages and answers each.
pub trait Uplink: Send {
    /// Messages that may wait for their answers at once. At least 1.
    fn window(&self) -> usize;

    /// Payload bytes that one message to `topic` may carry, as far as is known now.
    fn max_payload_bytes(&self, topic: &str) -> usize;

    /// Opens the link if it is not open.
    fn connect(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Hands over one message; messages leave in this order. With [`window`](Self::window) messages unanswered, or
    /// without a connection, the link counts as lost.
    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost>;

    /// The next answer, in whatever order the far side gives them. Cancel-safe. Waits forever when nothing is
    /// unanswered and the link stays up. After an error the link is closed.
    fn answer(&mut self) -> impl Future<Output = Result<(Ticket, Answer), Lost>> + Send;

    /// Ends the connection in good order, if there is one.
    fn close(&mut self) -> impl Future<Output = ()> + Send;

    /// How the link is; changes wake the receivers.
    fn state(&self) -> watch::Receiver<LinkState>;

    /// What the cloud says to this gateway, over every connection to come. Given once; `None` from a link that hears
    /// nothing. Bounded: what comes while it is full is dropped and counted.
    fn cloud_messages(&mut self) -> Option<mpsc::Receiver<CloudMessage>> {
        None
    }

    /// Lets [`LinkState::Degraded`] say what the sender knows about the link, until it is taken back with `None`.
    fn complain(&mut self, about: &'static str, complaint: Option<String>) {
        let _ = (about, complaint);
    }
}

/// Keeps the [`LinkState`] from connections, losses and answers.
#[derive(Debug)]
pub(super) struct StateKeeper {
    state: watch::Sender<LinkState>,
    clock: Arc<dyn Clock>,
    complaints: BTreeMap<String, String>,
    connected: bool,
    metrics: Metrics,
}

impl StateKeeper {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let down = LinkState::Down { since_ms: clock.wall_ms(), reason: "not connected yet".to_owned() };
        Self { state: watch::Sender::new(down), clock, complaints: BTreeMap::new(), connected: false, metrics }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.show();
    }

    /// Remembers since when the link is down; a failed attempt changes the reason only.
    pub(super) fn lost(&mut self, reason: &str) {
        self.connected = false;
        self.metrics.state.set(0);
        let now_ms = self.clock.wall_ms();
        self.state.send_if_modified(|state| {
            let since_ms = if let LinkState::Down { since_ms, .. } = state { *since_ms } else { now_ms };
            let down = LinkState::Down { since_ms, reason: reason.to_owned() };
            let changed = *state != down;
            *state = down;
            changed
        });
    }

    pub(super) fn answered(&mut self, topic: &str, answer: &Answer) {
        let complaint = match answer {
            Answer::Acknowledged => {
                if self.complaints.remove(topic).is_some() {
                    self.show();
                }
                return;
            }
            Answer::NoSubscriber => {
                format!("nobody subscribes to {topic}: the broker throws it away, so it stays in the queue")
            }
            Answer::Refused { reason } => format!("the broker refuses {topic}: {reason}"),
            Answer::TooLarge { .. } => return,
        };
        if self.complaints.len() < MAX_COMPLAINTS || self.complaints.contains_key(topic) {
            self.complaints.insert(topic.to_owned(), complaint);
        }
        self.show();
    }

    /// What somebody above knows; `None` takes it back.
    pub(super) fn complain(&mut self, about: &'static str, complaint: Option<String>) {
        let changed = match complaint {
            Some(complaint) => self.complaints.insert(about.to_owned(), complaint.clone()) != Some(complaint),
            None => self.complaints.remove(about).is_some(),
        };
        if changed {
            self.show();
        }
    }

    fn show(&self) {
        if !self.connected {
            return;
        }
        let state = match self.complaints.values().next() {
            None => LinkState::Up,
            Some(reason) => LinkState::Degraded { reason: reason.clone() },
        };
        self.metrics.state.set(if state == LinkState::Up { 2 } else { 1 });
        self.state.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use std::time::Duration;

    #[test]
    fn the_state_says_since_when_it_is_down_and_what_is_refused() {
        let clock = Arc::new(ManualClock::at(1_000));
        let mut keeper = StateKeeper::new(clock.clone(), Metrics::default());
        let state = keeper.subscribe();
        keeper.connected();
        assert_eq!(*state.borrow(), LinkState::Up);
        keeper.answered("a", &Answer::NoSubscriber);
        keeper.answered("b", &Answer::Acknowledged);
        assert!(
            matches!(&*state.borrow(), LinkState::Degraded { reason } if reason.contains("nobody subscribes to a"))
        );
        clock.advance(Duration::from_secs(1));
        keeper.lost("cut");
        clock.advance(Duration::from_secs(5));
        keeper.lost("still cut");
        assert_eq!(*state.borrow(), LinkState::Down { since_ms: 2_000, reason: "still cut".to_owned() });
        keeper.connected();
        keeper.answered("a", &Answer::Acknowledged);
        assert_eq!(*state.borrow(), LinkState::Up);
    }
}
