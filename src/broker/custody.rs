//! Rows that must be on disk before a message is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::hub::Hub;
use super::losses;
use super::message::Message;
use super::outgoing::{Delivery, Slot};
use super::rows::{self, QueueRow};
use super::session::Session;
use crate::base::Receipt;
use crate::store::{CommitError, Error, Tx};

/// One queued message of one persistent session.
#[derive(Debug)]
pub(super) struct KeepRow {
    pub(super) session: Arc<Session>,
    pub(super) row: i64,
    pub(super) slot: Slot,
    pub(super) place: u64,
    pub(super) delivery: Delivery,
}

/// Everything of one message that goes into one transaction. If it never gets there, the queue entries made
/// for it are taken back.
pub(super) struct Keep {
    pub(super) hub: Arc<Hub>,
    pub(super) message: Arc<Message>,
    pub(super) rows: Vec<KeepRow>,
    /// Clients that will not get it, because their sessions were full.
    pub(super) lost: Vec<Arc<str>>,
    /// The retained row of the message's topic.
    pub(super) retained: bool,
    /// Session row and packet id of a QoS 2 publish.
    pub(super) incoming: Option<(i64, u16)>,
    finished: AtomicBool,
}

impl Keep {
    pub(super) fn new(hub: &Arc<Hub>, message: &Arc<Message>, rows: Vec<KeepRow>) -> Self {
        let finished = AtomicBool::new(false);
        let (hub, message, lost) = (hub.clone(), message.clone(), Vec::new());
        Self { hub, message, rows, lost, retained: false, incoming: None, finished }
    }

    pub(super) fn bytes(&self) -> usize {
        let copies = self.rows.len() + usize::from(self.retained);
        64 + 32 * self.lost.len() + copies * (self.message.size_bytes() + 64)
    }

    pub(super) fn write(&self, tx: &Tx) -> Result<(), Error> {
        let clock = &*self.hub.clock;
        for KeepRow { session, row, slot, place, delivery } in &self.rows {
            // A session that ended meanwhile has no rows any more and must not get one.
            if !session.state().ended {
                let packet_id = slot.packet_id;
                rows::insert_queued(tx, clock, &QueueRow { place: *place, session: *row, packet_id, delivery })?;
            }
        }
        if !self.lost.is_empty() {
            losses::enter(tx, &self.lost, clock.wall_ms())?;
        }
        if self.retained {
            let current = self.hub.retained.current(&self.message.topic);
            rows::put_retained(tx, clock, &self.message.topic, current.as_deref())?;
        }
        if let Some((session, packet_id)) = self.incoming {
            rows::hold_incoming(tx, session, packet_id)?;
        }
        Ok(())
    }

    /// The transaction ended: deliveries may go out, or are taken back.
    pub(super) fn finish(&self, kept: bool) {
        if self.finished.swap(true, Ordering::AcqRel) {
            return;
        }
        for KeepRow { session, slot, place, delivery, .. } in &self.rows {
            let mut state = session.state();
            state.queue.committed(*slot, *place, delivery.message.size_bytes(), kept);
            state.account(true, &self.hub.persistent_bytes);
            if let Some(signal) = state.raise() {
                signal.wake();
            }
        }
    }

    /// Hands the rows to the writer; the receipt is answered by the commit. If the writer is full, the
    /// future waits for room.
    pub(super) fn submit(self, receipt: Receipt) -> Option<super::Waiting> {
        let keep = Arc::new(self);
        let (bytes, writer) = (keep.bytes(), keep.hub.writer.clone());
        let written = keep.clone();
        let work = move |tx: &Tx| written.write(tx);
        let done = move |result: Result<(), CommitError>| {
            keep.finish(result.is_ok());
            receipt.answer(result.map_err(Into::into));
        };
        match writer.try_submit(bytes, work, done) {
            Ok(()) => None,
            Err(full) => Some(Box::pin(async move {
                // A closed store drops both, and with them refuses the message.
                let _ = writer.submit(bytes, full.work, full.done).await;
            })),
        }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.finish(false);
    }
}
