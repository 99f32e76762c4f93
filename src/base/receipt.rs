//! Who still has to keep a message before its sender may be told that it is kept.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a message was not kept. The doors turn it into an MQTT reason code or an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A holder went away without an answer: a bug or a shutdown. Nothing may be acknowledged.
    Dropped,
    /// The disk refused or its state is unknown.
    Disk,
    /// A bound was reached and the policy says no.
    Full,
    /// The payload cannot be read as what its topic promises.
    Payload,
}

/// What became of a message.
pub type Outcome = Result<(), Refusal>;

type Callback = Box<dyn FnOnce(Outcome) + Send>;

struct Shared {
    refusal: AtomicU8,
    // Never locked: the last share owns it. The mutex makes the box shareable between threads.
    callback: Mutex<Option<Callback>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let outcome = match self.refusal.load(Ordering::Acquire) {
            0 => Ok(()),
            1 => Err(Refusal::Disk),
            2 => Err(Refusal::Full),
            3 => Err(Refusal::Payload),
            _ => Err(Refusal::Dropped),
        };
        let callback = self.callback.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(callback) = callback {
            callback(outcome);
        }
    }
}

/// One holder's share of a message. When every share has answered, the callback runs once, on the thread
/// of the last answer. A share that is dropped without an answer refuses: silence is never an acknowledgement.
pub struct Receipt {
    shared: Option<Arc<Shared>>,
}

impl Receipt {
    /// The first share. `callback` must not block.
    pub fn new(callback: impl FnOnce(Outcome) + Send + 'static) -> Self {
        let shared = Shared { refusal: AtomicU8::new(0), callback: Mutex::new(Some(Box::new(callback))) };
        Self { shared: Some(Arc::new(shared)) }
    }

    /// A receipt that nobody waits for (QoS 0).
    pub fn unwatched() -> Self {
        Self { shared: None }
    }

    /// True if somebody waits for the answer.
    pub fn is_watched(&self) -> bool {
        self.shared.is_some()
    }

    /// One more holder, who must answer too.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { shared: self.shared.clone() }
    }

    /// This holder keeps the message.
    pub fn kept(mut self) {
        self.shared = None;
    }

    /// This holder does not keep it.
    pub fn refuse(mut self, refusal: Refusal) {
        if let Some(shared) = self.shared.take() {
            shared.refusal.fetch_max(rank(refusal), Ordering::AcqRel);
        }
    }

    /// [`kept`](Self::kept) or [`refuse`](Self::refuse).
    pub fn answer(self, outcome: Outcome) {
        match outcome {
            Ok(()) => self.kept(),
            Err(refusal) => self.refuse(refusal),
        }
    }
}

fn rank(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Disk => 1,
        Refusal::Full => 2,
        Refusal::Payload => 3,
        Refusal::Dropped => 4,
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.refusal.fetch_max(rank(Refusal::Dropped), Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("watched", &self.is_watched()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn watched() -> (Receipt, mpsc::Receiver<Outcome>) {
        let (tell, told) = mpsc::channel();
        (Receipt::new(move |outcome| tell.send(outcome).unwrap()), told)
    }

    #[test]
    fn the_sender_hears_only_after_every_holder_answered() {
        let (first, told) = watched();
        let second = first.share();
        first.kept();
        assert!(told.try_recv().is_err());
        second.kept();
        assert_eq!(told.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn one_refusal_refuses_the_whole() {
        let (first, told) = watched();
        let second = first.share();
        first.refuse(Refusal::Full);
        second.kept();
        assert_eq!(told.try_recv(), Ok(Err(Refusal::Full)));
    }

    #[test]
    fn silence_is_a_refusal() {
        let (receipt, told) = watched();
        drop(receipt);
        assert_eq!(told.try_recv(), Ok(Err(Refusal::Dropped)));
    }
}
