//! How readings leave the broker for the flows, without a TCP hop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::message::Qos;
use crate::base::{Receipt, Refusal};
use crate::store::{self, Tx};

type Work = Box<dyn FnOnce(&Tx) -> Result<(), store::Error> + Send>;

/// Rows of the broker that must commit together with the reading, or not at all: for QoS 2 the packet id that
/// keeps a repeated PUBLISH from being taken twice.
pub struct Within {
    work: Option<Work>,
    share: Option<Receipt>,
}

impl Within {
    pub(super) fn new(share: Receipt, work: Work) -> Self {
        Self { work: Some(work), share: Some(share) }
    }

    /// Writes the rows. The transaction must be the one whose commit the tap's receipt stands for.
    pub fn run(mut self, tx: &Tx) -> Result<(), store::Error> {
        let result = self.work.take().map_or(Ok(()), |work| work(tx));
        if let (Ok(()), Some(share)) = (&result, self.share.take()) {
            share.kept();
        }
        result
    }
}

impl Within {
    /// The rows are not written: the message was not taken, for this reason.
    pub fn refuse(mut self, refusal: Refusal) {
        if let Some(share) = self.share.take() {
            share.refuse(refusal);
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            share.refuse(Refusal::Dropped);
        }
    }
}

impl std::fmt::Debug for Within {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Within").field("run", &self.work.is_none()).finish()
    }
}

/// A message on its way into a flow.
#[derive(Debug)]
pub struct TapMessage {
    /// Where it was published.
    pub topic: Arc<str>,
    /// The body.
    pub payload: Bytes,
    /// As published.
    pub qos: Qos,
    /// Answer it `kept()` after the commit. Unwatched for QoS 0.
    pub receipt: Receipt,
    /// Who published it.
    pub client: Arc<str>,
    /// The publisher's protocol has no word for "full": where others are refused, it is kept waiting.
    pub waits: bool,
    /// For QoS 2: rows to write in the same transaction, before `receipt` is answered. A tap that drops this
    /// without running it refuses the message.
    pub within: Option<Within>,
}

/// What a tap did with a message.
#[derive(Debug)]
pub enum TapResult {
    /// It has it and will answer the receipt.
    Taken,
    /// No room now: the message comes back. QoS 0 is then dropped and counted; for QoS 1 and 2 the publisher's
    /// connection waits for [`Tap::room`].
    Busy(TapMessage),
}

/// Who takes readings out of the broker: implemented by the flows.
pub trait Tap: Send + Sync {
    /// True if a stream is bound to this topic. Asked once per topic and connection until
    /// [`Broker::routes_changed`](super::Broker::routes_changed).
    fn wants(&self, topic: &str) -> bool;
    /// Takes a message without blocking.
    fn take(&self, message: TapMessage) -> TapResult;
    /// Resolves when `take` may succeed again.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
