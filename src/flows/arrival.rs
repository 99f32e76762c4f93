//! One message from the fleet: read, believed or not, and ready for whoever keeps it.

use bytes::Bytes;

use crate::base::ClockState;
use crate::inbox::{self, IncomingBatch, IncomingGap, IncomingRow, VerifiedBatch};

use super::address::Address;
use super::batch::{Batch, Decoded, Gap, Limits, Row};

/// What a message turned out to be.
#[derive(Debug, Clone)]
pub enum Arrival {
    /// A batch whose rows are the digested ones and which speaks for the gateway of its topic.
    Batch {
        /// Whose it is.
        address: Address,
        /// What it holds.
        batch: VerifiedBatch,
        /// The message as it came.
        payload: Bytes,
    },
    /// Something that nobody will ever read: put aside, so that the far side need not bring it again.
    Unreadable {
        /// Where it was published.
        topic: String,
        /// Why it is not believed.
        reason: String,
        /// What it carries.
        payload: Bytes,
    },
}

impl Arrival {
    /// Reads a message within the inbox's limits.
    pub fn read(topic: String, payload: Bytes, config: &inbox::Config) -> Self {
        match verified(&topic, &payload, config) {
            Ok((address, batch)) => Self::Batch { address, batch, payload },
            Err(reason) => {
                tracing::warn!(topic, reason, "put a message aside");
                Self::Unreadable { topic, reason, payload }
            }
        }
    }

    /// Bytes of the message.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Batch { payload, .. } | Self::Unreadable { payload, .. } => payload.len(),
        }
    }
}

fn verified(topic: &str, payload: &Bytes, config: &inbox::Config) -> Result<(Address, VerifiedBatch), String> {
    let address = Address::parse(topic).ok_or("the topic is not fleet/v1/TENANT/GATEWAY/CLASS/STREAM")?;
    let limits = Limits { rows: config.max_batch_rows, gaps: config.max_batch_gaps, ..Limits::default() };
    let decoded = Batch::decode(payload, &limits).map_err(|error| error.to_string())?;
    // The broker's rules say who may publish where; a batch must not speak for another gateway than its topic does.
    if !address.is_of(&decoded.batch) {
        return Err("the batch is of another gateway or stream than its topic".to_owned());
    }
    let Decoded { batch, digest, row_bytes } = decoded;
    let Batch { gateway: _, epoch, stream, class, first, last, rows, gaps, ahead } = batch;
    let (class, rows) = (class.to_string(), rows.into_iter().map(incoming_row).collect());
    let gaps = gaps.into_iter().map(incoming_gap).collect();
    let incoming = IncomingBatch { epoch, class, stream, first, last, rows, gaps, ahead, digest };
    let verified = incoming.verify(&row_bytes, config).map_err(|error| error.to_string())?;
    Ok((address, verified))
}

fn incoming_row(row: Row) -> IncomingRow {
    // A synchronised clock was right when the row was made; any other is put right once that boot's clock is known.
    let offset_ms = row.offset_ms.filter(|_| row.stamp.state != ClockState::Ntp);
    IncomingRow {
        seq: row.seq,
        wall_ms: row.stamp.wall_ms.saturating_add(offset_ms.unwrap_or(0)),
        boot_ms: row.stamp.boot_ms,
        clock_state: if offset_ms.is_some() { "corrected" } else { row.stamp.state.as_str() },
        body: row.body.into(),
    }
}

fn incoming_gap(gap: Gap) -> IncomingGap {
    IncomingGap { first: gap.first, last: gap.last, count: gap.count, reason: gap.reason, wall_ms: gap.wall_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BootId, Seq, Stamp};

    #[test]
    fn a_row_is_stored_with_the_time_that_it_really_had() {
        let stored = |state, offset_ms| {
            let stamp = Stamp { wall_ms: 1000, boot_ms: 10, boot: BootId([1; 16]), state };
            let row = incoming_row(Row { seq: Seq(1), stamp, offset_ms, body: Bytes::new() });
            (row.wall_ms, row.clock_state)
        };
        assert_eq!(stored(ClockState::Unsynced, None), (1000, "unsynced"));
        assert_eq!(stored(ClockState::Unsynced, Some(500)), (1500, "corrected"));
        assert_eq!(stored(ClockState::Rtc, Some(-500)), (500, "corrected"));
        assert_eq!(stored(ClockState::Ntp, Some(500)), (1000, "ntp"), "its boot began wrong, it did not");
    }
}
