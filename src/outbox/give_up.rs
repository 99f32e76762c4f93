//! Rows that can never be sent.

use std::sync::Arc;

use super::batch::GapReason;
use super::error::Error;
use super::evict;
use super::queue::Outbox;
use super::stream::StreamHandle;
use crate::base::Seq;
use crate::store::Tx;

impl Outbox {
    /// Replaces one row by a ledger entry, for a reason that only the sender knows. Returns after the commit.
    /// A row that is gone already changes nothing.
    pub async fn give_up(&self, stream: StreamHandle, seq: Seq, reason: GapReason) -> Result<(), Error> {
        let (state, wall_ms) = (Arc::clone(&self.state), self.clock.wall_ms());
        let work = move |tx: &Tx<'_>| {
            let mut streams = state.stage(tx, stream.at);
            evict::give_up(tx, &mut streams.all[stream.at], (seq.0, seq.0), reason, wall_ms)?;
            Ok(())
        };
        Ok(self.writer.commit_from_reserve(work).await?)
    }
}
