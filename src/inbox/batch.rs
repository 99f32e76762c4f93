//! A batch as it came off the link, and the proof that it is whole.

use super::config::Config;
use super::error::Error;
use crate::base::{Digest, Epoch, Name, Seq};

/// One row of a batch, as its sender stamped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingRow {
    /// Its number.
    pub seq: Seq,
    /// Milliseconds since 1970, as the gateway believed.
    pub wall_ms: i64,
    /// Milliseconds since the gateway's boot.
    pub boot_ms: u64,
    /// How far the gateway trusted its clock: the word of `base::ClockState`.
    pub clock_state: &'static str,
    /// Opaque.
    pub body: Vec<u8>,
}

/// Numbers that the sender will never send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingGap {
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
    /// Acknowledged readings lost with them.
    pub count: u64,
    /// The sender's word for why.
    pub reason: String,
    /// When the sender noticed, milliseconds since 1970.
    pub wall_ms: i64,
}

/// A batch off the link, not believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingBatch {
    /// Which life of the sender's queue file.
    pub epoch: Epoch,
    /// The stream's class.
    pub class: String,
    /// The stream's name.
    pub stream: Name,
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
    /// Strictly ascending numbers inside [first, last].
    pub rows: Vec<IncomingRow>,
    /// Ascending, inside [first, last].
    pub gaps: Vec<IncomingGap>,
    /// Numbers from this one on, below `first`, may still come: the batch overtook them.
    pub ahead: Option<Seq>,
    /// SHA-256 of the encoded rows, as the sender states it.
    pub digest: Digest,
}

/// A batch whose rows are the ones that were digested and whose numbers make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBatch(pub(super) IncomingBatch);

impl VerifiedBatch {
    /// What is believed.
    pub fn batch(&self) -> &IncomingBatch {
        &self.0
    }
}

impl IncomingBatch {
    /// The sender has sent or declared everything up to here; what is absent up to here is missing.
    pub(super) fn complete_to(&self) -> u64 {
        self.ahead.map_or(self.last.0, |ahead| ahead.0.saturating_sub(1))
    }

    /// Believes the batch if `encoded_rows` (the bytes that `rows` were decoded from) have the stated digest and every
    /// number lies where it may. A part of a range may be absent: it counts as missing until it comes.
    pub fn verify(self, encoded_rows: &[u8], config: &Config) -> Result<VerifiedBatch, Error> {
        let (first, last) = (self.first.0, self.last.0);
        let malformed = |what: String| Err(Error::Malformed { first, last, what });
        let actual = Digest::of(encoded_rows);
        if actual != self.digest {
            return Err(Error::Digest { first, last, stated: self.digest, actual });
        }
        if first == 0 || last < first || i64::try_from(last).is_err() {
            return malformed("numbers run from 1 upwards".into());
        }
        if self.rows.len() > config.max_batch_rows || self.gaps.len() > config.max_batch_gaps {
            return malformed(format!("{} rows and {} gaps are too many", self.rows.len(), self.gaps.len()));
        }
        let mut before = first - 1;
        for row in &self.rows {
            if row.seq.0 <= before || row.seq.0 > last {
                return malformed(format!("row {} is out of place", row.seq));
            }
            before = row.seq.0;
        }
        let mut before = first - 1;
        for gap in &self.gaps {
            if gap.first.0 <= before || gap.last < gap.first || gap.last.0 > last {
                return malformed(format!("gap {}-{} is out of place", gap.first, gap.last));
            }
            before = gap.last.0;
        }
        Ok(VerifiedBatch(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, last: u64, rows: &[u64], gaps: &[(u64, u64)]) -> IncomingBatch {
        let row =
            |seq: &u64| IncomingRow { seq: Seq(*seq), wall_ms: 0, boot_ms: 0, clock_state: "ntp", body: Vec::new() };
        let gap = |(first, last): &(u64, u64)| IncomingGap {
            first: Seq(*first),
            last: Seq(*last),
            count: 0,
            reason: "restart".into(),
            wall_ms: 0,
        };
        IncomingBatch {
            epoch: Epoch(1),
            class: "raw".into(),
            stream: Name::new("press").unwrap(),
            first: Seq(first),
            last: Seq(last),
            rows: rows.iter().map(row).collect(),
            gaps: gaps.iter().map(gap).collect(),
            ahead: None,
            digest: Digest::of(b"rows"),
        }
    }

    #[test]
    fn only_the_digested_bytes_are_believed() {
        let config = Config::default();
        batch(1, 2, &[1, 2], &[]).verify(b"rows", &config).unwrap();
        let error = batch(1, 2, &[1, 2], &[]).verify(b"r0ws", &config).unwrap_err();
        assert!(error.to_string().starts_with("failed to verify batch 1-2: digest of the rows is "), "{error}");
    }

    #[test]
    fn a_batch_that_contradicts_itself_is_refused() {
        let config = Config { max_batch_rows: 3, ..Config::default() };
        let wrong = [
            batch(0, 2, &[], &[]),
            batch(3, 2, &[], &[]),
            batch(1, u64::MAX, &[], &[]),
            batch(1, 3, &[1, 1], &[]),
            batch(1, 3, &[2, 1], &[]),
            batch(2, 3, &[1], &[]),
            batch(1, 3, &[4], &[]),
            batch(1, 3, &[], &[(2, 1)]),
            batch(1, 3, &[], &[(1, 4)]),
            batch(1, 3, &[], &[(1, 2), (2, 3)]),
            batch(1, 9, &[1, 2, 3, 4], &[]),
        ];
        for batch in wrong {
            let shown = format!("{batch:?}");
            batch.verify(b"rows", &config).expect_err(&shown);
        }
    }
}
