//! One message to the cloud: consecutive rows of one stream, what is declared lost, and a digest. Defined here once,
//! for the sending and the receiving side; `docs/batch.cddl` says the same for other people's receivers. It may travel
//! inside a zstd frame (`frame`).

use bytes::Bytes;

use crate::base::{BootId, ClockState, Digest, Epoch, Name, NameError, Seq, Stamp};

use super::cbor::{CborError, Decoder, Encoder};
use super::frame::{self, FrameError, FrameLimits};

/// The format's version, the first thing in every batch.
const VERSION: u64 = 1;
/// Pairs of the outer map, without the one that only a batch has which overtakes others.
const PAIRS: usize = 11;
/// Longest text in which a loss gives its reason.
const MAX_REASON_BYTES: usize = 64;

/// Rows of one stream in the order of their `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which gateway recorded the rows.
    pub gateway: Name,
    /// The life of its queue file.
    pub epoch: Epoch,
    /// The stream within the gateway.
    pub stream: Name,
    /// `alarm`, `verdict`, `summary` or `raw`: a part of the stream's identity.
    pub class: Name,
    /// No row of this batch lies before it.
    pub first: Seq,
    /// No row of this batch lies after it.
    pub last: Seq,
    /// Ascending by `seq`, all within `first..=last`.
    pub rows: Vec<Row>,
    /// Entries of the loss ledger: ascending, disjoint, all within `first..=last`.
    pub gaps: Vec<Gap>,
    /// Numbers from this one on, below `first`, may still be in the sender's queue: this batch overtakes them.
    pub ahead: Option<Seq>,
}

/// A batch that was read, and the proof that it is what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What was sent.
    pub batch: Batch,
    /// SHA-256 of `row_bytes`, verified.
    pub digest: Digest,
    /// The rows as they came.
    pub row_bytes: Bytes,
}

/// One row of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Position in the stream.
    pub seq: Seq,
    /// When the row was made.
    pub stamp: Stamp,
    /// What to add to `stamp.wall_ms`, which the clock of that boot had wrong: known once it was set in that boot.
    pub offset_ms: Option<i64>,
    /// What the stream's owner wrote; opaque here.
    pub body: Bytes,
}

/// Rows that will never come, declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First `seq` that is gone.
    pub first: Seq,
    /// Last `seq` that is gone.
    pub last: Seq,
    /// Why, in a word, such as `restart` or `corrupt`.
    pub reason: String,
    /// Readings lost: 0 where only numbers were skipped.
    pub count: u64,
    /// When the loss was written down, milliseconds since 1970, UTC.
    pub wall_ms: i64,
}

/// What a receiver takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of one batch.
    pub rows: usize,
    /// Ledger entries of one batch.
    pub gaps: usize,
    /// Boots that the rows of one batch come from.
    pub boots: usize,
    /// What is unpacked.
    pub frame: FrameLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 65_536, gaps: 4096, boots: 256, frame: FrameLimits::default() }
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not the CBOR that `docs/batch.cddl` describes.
    #[error("failed to read the batch: {0}")]
    Cbor(#[from] CborError),
    /// A version that this binary does not know.
    #[error("failed to read the batch: it has version {0}, this binary reads version {VERSION}")]
    Version(u64),
    /// A name that cannot be one.
    #[error("failed to read the batch: {0}")]
    Name(#[from] NameError),
    /// The rows are not those that were digested.
    #[error("failed to read the batch: its digest does not match its rows")]
    Digest,
    /// Numbers that contradict each other.
    #[error("failed to read the batch: {0}")]
    Shape(&'static str),
    /// A frame that is none, or holds too much.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Bytes that one row takes beside its body, at most.
pub const ROW_OVERHEAD_BYTES: usize = 1 + 9 + 9 + 9 + 3 + 1 + 5;
/// Bytes that a batch takes beside its rows and gaps, at most for one boot (names at their longest).
pub const BATCH_OVERHEAD_BYTES: usize = 400;

impl Batch {
    /// Writes a batch, deterministically (RFC 8949, 4.2.1): the same rows always give the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut boots: Vec<(BootId, Option<i64>)> = Vec::new();
        let bodies: usize = self.rows.iter().map(|row| row.body.len() + ROW_OVERHEAD_BYTES).sum();
        let mut rows = Encoder::with_capacity(bodies + 9);
        rows.array(self.rows.len());
        for row in &self.rows {
            // Rows of one boot stand together, so the search ends at the first look from the back.
            let boot = (row.stamp.boot, row.offset_ms);
            let boot = boots.iter().rposition(|&known| known == boot).unwrap_or_else(|| {
                boots.push(boot);
                boots.len() - 1
            });
            rows.array(6);
            rows.uint(row.seq.0);
            rows.int(row.stamp.wall_ms);
            rows.uint(row.stamp.boot_ms);
            rows.uint(boot as u64);
            rows.uint(match row.stamp.state {
                ClockState::Unsynced => 0,
                ClockState::Rtc => 1,
                ClockState::Ntp => 2,
            });
            rows.bytes(&row.body);
        }
        let rows = rows.finish();

        let mut out = Encoder::with_capacity(rows.len() + BATCH_OVERHEAD_BYTES + self.gaps.len() * 64);
        out.map(PAIRS + usize::from(self.ahead.is_some()));
        out.text("v");
        out.uint(VERSION);
        out.text("gaps");
        out.array(self.gaps.len());
        for gap in &self.gaps {
            out.array(5);
            out.uint(gap.first.0);
            out.uint(gap.last.0);
            out.text(&gap.reason);
            out.uint(gap.count);
            out.int(gap.wall_ms);
        }
        out.text("last");
        out.uint(self.last.0);
        out.text("rows");
        out.bytes(&rows);
        if let Some(ahead) = self.ahead {
            out.text("ahead");
            out.uint(ahead.0);
        }
        out.text("boots");
        out.array(boots.len());
        for (boot, offset_ms) in &boots {
            out.array(2);
            out.bytes(&boot.0);
            out.int_or_null(*offset_ms);
        }
        out.text("class");
        out.text(self.class.as_str());
        out.text("epoch");
        out.uint(self.epoch.0);
        out.text("first");
        out.uint(self.first.0);
        out.text("digest");
        out.bytes(Digest::of(&rows).as_bytes());
        out.text("stream");
        out.text(self.stream.as_str());
        out.text("gateway");
        out.text(self.gateway.as_str());
        out.finish()
    }

    /// Reads a batch, plain or in a zstd frame, and verifies its digest. Bodies share the message's memory, or the frame's
    /// content. Anything but what [`encode`](Self::encode) writes is refused, so that a batch has one form only and its
    /// digest means something.
    pub fn decode(message: &Bytes, limits: &Limits) -> Result<Decoded, BatchError> {
        let unpacked = if frame::is_packed(message) { Some(frame::unpack(message, &limits.frame)?) } else { None };
        let bytes = unpacked.as_ref().unwrap_or(message);
        let mut cbor = Decoder::new(bytes);
        let overtakes = match cbor.map()? {
            PAIRS => false,
            pairs if pairs == PAIRS + 1 => true,
            _ => return Err(BatchError::Shape("a batch is a map of 11 or 12 pairs")),
        };
        cbor.key("v")?;
        match cbor.uint()? {
            VERSION => {}
            other => return Err(BatchError::Version(other)),
        }
        cbor.key("gaps")?;
        let gaps = read_gaps(&mut cbor, limits)?;
        cbor.key("last")?;
        let last = Seq(cbor.uint()?);
        cbor.key("rows")?;
        let row_bytes = cbor.bytes()?;
        let mut ahead = None;
        if overtakes {
            cbor.key("ahead")?;
            ahead = Some(Seq(cbor.uint()?));
        }
        cbor.key("boots")?;
        let boots = read_boots(&mut cbor, limits)?;
        cbor.key("class")?;
        let class = Name::new(cbor.text()?)?;
        cbor.key("epoch")?;
        let epoch = Epoch(cbor.uint()?);
        cbor.key("first")?;
        let first = Seq(cbor.uint()?);
        cbor.key("digest")?;
        let digest = <[u8; 32]>::try_from(cbor.bytes()?).map_err(|_| BatchError::Shape("a digest has 32 bytes"))?;
        let digest = Digest::from(digest);
        cbor.key("stream")?;
        let stream = Name::new(cbor.text()?)?;
        cbor.key("gateway")?;
        let gateway = Name::new(cbor.text()?)?;
        cbor.finish()?;

        if first.0 == 0 || first > last {
            return Err(BatchError::Shape("first is 0 or beyond last"));
        }
        if ahead.is_some_and(|ahead| ahead.0 == 0 || ahead >= first) {
            return Err(BatchError::Shape("ahead is 0 or not below first"));
        }
        if Digest::of(row_bytes) != digest {
            return Err(BatchError::Digest);
        }
        let row_bytes = bytes.slice_ref(row_bytes);
        let rows = read_rows(&row_bytes, &boots, limits)?;
        let ascending = rows.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        let within = rows.iter().all(|row| (first..=last).contains(&row.seq));
        if !ascending || !within {
            return Err(BatchError::Shape("a row is out of order or outside first..last"));
        }
        let ascending = gaps.windows(2).all(|pair| pair[0].last < pair[1].first);
        let within = gaps.iter().all(|gap| first <= gap.first && gap.last <= last);
        if !ascending || !within {
            return Err(BatchError::Shape("a gap is out of order or outside first..last"));
        }
        let batch = Self { gateway, epoch, stream, class, first, last, rows, gaps, ahead };
        Ok(Decoded { batch, digest, row_bytes })
    }
}

fn read_gaps(cbor: &mut Decoder<'_>, limits: &Limits) -> Result<Vec<Gap>, BatchError> {
    let count = cbor.array()?;
    if count > limits.gaps {
        return Err(BatchError::Shape("too many gaps"));
    }
    let mut gaps = Vec::with_capacity(count);
    for _ in 0..count {
        cbor.array_of(5, "a gap of 5 items")?;
        let (first, last) = (Seq(cbor.uint()?), Seq(cbor.uint()?));
        let reason = cbor.text()?.to_owned();
        let (count, wall_ms) = (cbor.uint()?, cbor.int()?);
        if first.0 == 0 || first > last || reason.is_empty() || reason.len() > MAX_REASON_BYTES {
            return Err(BatchError::Shape("a gap is empty, begins at 0 or has a reason that is none"));
        }
        gaps.push(Gap { first, last, reason, count, wall_ms });
    }
    Ok(gaps)
}

fn read_boots(cbor: &mut Decoder<'_>, limits: &Limits) -> Result<Vec<(BootId, Option<i64>)>, BatchError> {
    let count = cbor.array()?;
    if count > limits.boots {
        return Err(BatchError::Shape("too many boots"));
    }
    let mut boots = Vec::with_capacity(count);
    for _ in 0..count {
        cbor.array_of(2, "a boot of 2 items")?;
        let id = <[u8; 16]>::try_from(cbor.bytes()?).map_err(|_| BatchError::Shape("a boot id has 16 bytes"))?;
        boots.push((BootId(id), cbor.int_or_null()?));
    }
    Ok(boots)
}

fn read_rows(bytes: &Bytes, boots: &[(BootId, Option<i64>)], limits: &Limits) -> Result<Vec<Row>, BatchError> {
    let mut cbor = Decoder::new(bytes);
    let count = cbor.array()?;
    if count > limits.rows {
        return Err(BatchError::Shape("too many rows"));
    }
    let mut rows = Vec::with_capacity(count);
    let mut boots_used = 0;
    for _ in 0..count {
        cbor.array_of(6, "a row of 6 items")?;
        let seq = Seq(cbor.uint()?);
        let (wall_ms, boot_ms) = (cbor.int()?, cbor.uint()?);
        let at = usize::try_from(cbor.uint()?).unwrap_or(usize::MAX);
        // In the order of first use: one form only.
        if at > boots_used {
            return Err(BatchError::Shape("boots are not in the order of their use"));
        }
        boots_used = boots_used.max(at + 1);
        let (boot, offset_ms) = *boots.get(at).ok_or(BatchError::Shape("a row names a boot that is not listed"))?;
        let state = match cbor.uint()? {
            0 => ClockState::Unsynced,
            1 => ClockState::Rtc,
            2 => ClockState::Ntp,
            _ => return Err(BatchError::Shape("a clock state is 0, 1 or 2")),
        };
        let body = bytes.slice_ref(cbor.bytes()?);
        rows.push(Row { seq, stamp: Stamp { wall_ms, boot_ms, boot, state }, offset_ms, body });
    }
    cbor.finish()?;
    if boots_used == boots.len() { Ok(rows) } else { Err(BatchError::Shape("a boot is listed that no row names")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,63}".prop_map(|text| Name::new(&text).unwrap())
    }

    fn row() -> impl Strategy<Value = (Stamp, Option<i64>, Vec<u8>)> {
        let state = prop_oneof![Just(ClockState::Unsynced), Just(ClockState::Rtc), Just(ClockState::Ntp)];
        let stamp = (any::<i64>(), any::<u64>(), 0_u8..3, state).prop_map(|(wall_ms, boot_ms, boot, state)| Stamp {
            wall_ms,
            boot_ms,
            boot: BootId([boot; 16]),
            state,
        });
        (stamp, proptest::option::of(-5_i64..5), proptest::collection::vec(any::<u8>(), 0..300))
    }

    /// A row, or the gap instead of it.
    type Step = (u64, u64, Option<(String, u64, i64)>, (Stamp, Option<i64>, Vec<u8>));

    fn step() -> impl Strategy<Value = Step> {
        let gap = ("[a-z_]{1,64}", any::<u64>(), any::<i64>());
        (0_u64..3, 0_u64..1000, proptest::option::weighted(0.1, gap), row())
    }

    fn batch() -> impl Strategy<Value = Batch> {
        let steps = proptest::collection::vec(step(), 1..40);
        (name(), any::<u64>(), name(), name(), 1..=u64::MAX / 2, steps).prop_map(
            |(gateway, epoch, stream, class, first, steps)| {
                let (mut rows, mut gaps, mut next) = (Vec::new(), Vec::new(), first);
                for (skip, width, gap, (stamp, offset_ms, body)) in steps {
                    let seq = Seq(next + skip);
                    let last = match gap {
                        Some((reason, count, wall_ms)) => {
                            let last = Seq(seq.0 + width);
                            gaps.push(Gap { first: seq, last, reason, count, wall_ms });
                            last
                        }
                        None => {
                            rows.push(Row { seq, stamp, offset_ms, body: body.into() });
                            seq
                        }
                    };
                    next = last.0 + 1;
                }
                let last = Seq(next - 1);
                let ahead = (first % 3 == 2).then_some(Seq(first / 2));
                Batch { gateway, epoch: Epoch(epoch), stream, class, first: Seq(first), last, rows, gaps, ahead }
            },
        )
    }

    fn sample() -> Batch {
        let stamp = Stamp { wall_ms: 1_700_000_000_000, boot_ms: 9_000, boot: BootId([1; 16]), state: ClockState::Ntp };
        Batch {
            gateway: Name::new("press-7").unwrap(),
            epoch: Epoch(1),
            stream: Name::new("temperature").unwrap(),
            class: Name::new("verdict").unwrap(),
            first: Seq(4),
            last: Seq(11),
            rows: vec![
                Row { seq: Seq(10), stamp, offset_ms: None, body: Bytes::from_static(b"ten") },
                Row { seq: Seq(11), stamp, offset_ms: None, body: Bytes::from_static(b"eleven") },
            ],
            gaps: vec![Gap { first: Seq(4), last: Seq(9), reason: "restart".into(), count: 0, wall_ms: 5 }],
            ahead: None,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(batch in batch()) {
            let bytes = Bytes::from(batch.encode());
            let read = Batch::decode(&bytes, &Limits::default()).unwrap().batch;
            prop_assert_eq!(&read, &batch);
            prop_assert_eq!(read.encode(), bytes.clone(), "one form only");
            let packed = Bytes::from(frame::pack(bytes.to_vec()));
            prop_assert_eq!(Batch::decode(&packed, &Limits::default()).unwrap().batch, batch);
        }

        #[test]
        fn random_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Batch::decode(&bytes.into(), &Limits::default()).is_err());
        }

        #[test]
        fn a_flipped_bit_never_passes_for_other_rows(batch in batch(), at in any::<proptest::sample::Index>(), bit in 0..8) {
            let mut bytes = batch.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(Decoded { batch: read, .. }) = Batch::decode(&bytes.into(), &Limits::default()) {
                prop_assert_eq!(read.rows.iter().map(|row| (row.seq, &row.body)).collect::<Vec<_>>(),
                    batch.rows.iter().map(|row| (row.seq, &row.body)).collect::<Vec<_>>());
            }
        }

        #[test]
        fn overheads_are_never_exceeded(batch in batch()) {
            let bodies: usize = batch.rows.iter().map(|row| row.body.len() + ROW_OVERHEAD_BYTES).sum();
            let gaps = batch.gaps.len() * (1 + 9 + 9 + 2 + MAX_REASON_BYTES + 9 + 9);
            let boots = 40 * (1 + 17 + 9);
            prop_assert!(batch.encode().len() <= bodies + gaps + boots + BATCH_OVERHEAD_BYTES);
        }
    }

    #[test]
    fn a_batch_is_deterministic_cbor_with_its_version_first() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..4], &[0xab, 0x61, b'v', 1], "a map of 11, \"v\", 1");
        let value: ciborium::Value = ciborium::from_reader(bytes.as_slice()).unwrap();
        let keys: Vec<_> = value.as_map().unwrap().iter().map(|(key, _)| key.as_text().unwrap()).collect();
        let mut sorted = keys.clone();
        sorted.sort_by_key(|key| (key.len(), *key));
        assert_eq!(keys, sorted);
    }

    #[test]
    fn a_newer_version_is_named_in_the_error() {
        let mut bytes = sample().encode();
        bytes[3] = 2;
        let error = Batch::decode(&bytes.into(), &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "failed to read the batch: it has version 2, this binary reads version 1");
    }

    #[test]
    fn swapped_rows_and_what_lies_outside_the_range_are_refused() {
        let mut swapped = sample();
        swapped.rows.swap(0, 1);
        let mut outside = sample();
        outside.last = Seq(10);
        let mut gap_outside = sample();
        gap_outside.first = Seq(5);
        for batch in [swapped, outside, gap_outside] {
            assert!(matches!(Batch::decode(&batch.encode().into(), &Limits::default()), Err(BatchError::Shape(_))));
        }
    }

    #[test]
    fn more_rows_than_the_receiver_takes_are_refused() {
        let limits = Limits { rows: 1, ..Limits::default() };
        assert_eq!(Batch::decode(&sample().encode().into(), &limits), Err(BatchError::Shape("too many rows")));
    }
}
