//! A block: consecutive rows that waited long, as one compressed value.
//!
//! The raw form is a CBOR array of eight columns: version (1), wall_ms, boot_ms, boot_no, clock_state, checksums,
//! body lengths, bodies. The first four columns of numbers hold the first row's value and then differences; checksums
//! are 4 bytes each, little-endian, as the single rows had them; bodies follow each other. zstd makes the stored form of
//! it. A number is its place: row `i` of a block is number `base + i`.

use std::cell::RefCell;

use ciborium::value::Value;
use zstd::bulk::Compressor;

use super::queue::Stored;
use crate::base::row_checksum;

/// Most rows of a block.
pub(super) const MAX_ROWS: usize = 256;
/// Most bytes of bodies in a block.
pub(super) const MAX_BODY_BYTES: usize = 256 << 10;
/// Nothing is unpacked beyond this, whatever a row says: bodies, and at most 64 bytes of columns a row.
const MAX_RAW_BYTES: usize = MAX_BODY_BYTES + 64 * MAX_ROWS + 64;
const VERSION: u8 = 1;
/// On blocks of this size the better levels take longer and, of readings, leave no less.
const LEVEL: i32 = 1;

thread_local! {
    /// One a thread that packs: making one costs as much as compressing a block with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Compressor::new(LEVEL).ok();
        }
        kept.as_mut()?.compress(raw).ok()
    })
}

/// A row in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockRow {
    pub(super) stored: Stored,
    /// Of the row, as it was appended.
    pub(super) checksum: u32,
    pub(super) body: Vec<u8>,
}

impl BlockRow {
    /// True if the row is as it was appended.
    pub(super) fn is_intact(&self) -> bool {
        self.stored.checksum(&self.body) == self.checksum && self.stored.state().is_some()
    }
}

/// A block as its table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) stream_no: i64,
    /// Number of the first row that was packed.
    pub(super) base: u64,
    /// Rows that were packed.
    pub(super) count: u64,
    pub(super) raw_bytes: u64,
    pub(super) checksum: u32,
    pub(super) body: Vec<u8>,
}

impl Packed {
    /// Packs rows with consecutive numbers; at least one. `None` if they are no block: too many, too large, or zstd has
    /// no memory for it.
    pub(super) fn of(rows: &[BlockRow]) -> Option<Self> {
        let first = rows.first()?;
        let bodies: usize = rows.iter().map(|row| row.body.len()).sum();
        if rows.len() > MAX_ROWS || bodies > MAX_BODY_BYTES {
            return None;
        }
        let column = |value: fn(&Stored) -> i64| {
            let mut before = 0;
            let differences = rows.iter().map(|row| {
                let now = value(&row.stored);
                Value::from(now.wrapping_sub(std::mem::replace(&mut before, now)))
            });
            Value::Array(differences.collect())
        };
        let columns = Value::Array(vec![
            Value::from(VERSION),
            column(|row| row.wall_ms),
            column(|row| row.boot_ms),
            column(|row| row.boot_no),
            column(|row| row.clock_state),
            Value::Bytes(rows.iter().flat_map(|row| row.checksum.to_le_bytes()).collect()),
            Value::Array(rows.iter().map(|row| Value::from(row.body.len() as u64)).collect()),
            Value::Bytes(rows.iter().map(|row| row.body.as_slice()).collect::<Vec<_>>().concat()),
        ]);
        let mut raw = Vec::with_capacity(bodies + 32 * rows.len());
        ciborium::into_writer(&columns, &mut raw).ok()?;
        let body = compress(&raw)?;
        let mut packed = Self {
            stream_no: first.stored.stream_no,
            base: first.stored.seq.cast_unsigned(),
            count: rows.len() as u64,
            raw_bytes: raw.len() as u64,
            checksum: 0,
            body,
        };
        packed.checksum = packed.sum();
        Some(packed)
    }

    fn sum(&self) -> u32 {
        let columns = [self.stream_no, self.base.cast_signed(), self.count.cast_signed(), self.raw_bytes.cast_signed()]
            .map(i64::to_le_bytes);
        row_checksum(&[columns.as_flattened(), &self.body])
    }

    /// The rows. `None` if anything about the block is not as it was packed; each row still has a checksum of its own.
    pub(super) fn unpack(&self) -> Option<Vec<BlockRow>> {
        let (count, raw_bytes) = (usize::try_from(self.count).ok()?, usize::try_from(self.raw_bytes).ok()?);
        if self.checksum != self.sum() || count > MAX_ROWS || raw_bytes > MAX_RAW_BYTES {
            return None;
        }
        let raw = zstd::bulk::decompress(&self.body, raw_bytes).ok()?;
        let columns: Value = ciborium::from_reader(raw.as_slice()).ok()?;
        let columns: [Value; 8] = columns.into_array().ok()?.try_into().ok()?;
        let [version, walls, boot_times, boots, states, checksums, lengths, bodies] = columns;
        if version != Value::from(VERSION) {
            return None;
        }
        let [walls, boot_times, boots, states] =
            [walls, boot_times, boots, states].map(|column| numbers(column, count, true));
        let (walls, boot_times, boots, states) = (walls?, boot_times?, boots?, states?);
        let (checksums, lengths) = (checksums.into_bytes().ok()?, numbers(lengths, count, false)?);
        let (checksums, []) = checksums.as_chunks::<4>() else { return None };
        let bodies = bodies.into_bytes().ok()?;
        let mut rest = bodies.as_slice();
        let mut rows = Vec::with_capacity(count);
        for at in 0..count {
            let (body, behind) = rest.split_at_checked(usize::try_from(lengths[at]).ok()?)?;
            rest = behind;
            let stored = Stored {
                stream_no: self.stream_no,
                seq: self.base.checked_add(at as u64)?.cast_signed(),
                wall_ms: walls[at],
                boot_ms: boot_times[at],
                boot_no: boots[at],
                clock_state: states[at],
            };
            rows.push(BlockRow { stored, checksum: u32::from_le_bytes(*checksums.get(at)?), body: body.to_vec() });
        }
        rest.is_empty().then_some(rows)
    }
}

fn numbers(column: Value, count: usize, differences: bool) -> Option<Vec<i64>> {
    let values = column.into_array().ok()?;
    let mut now = 0_i64;
    let numbers: Option<Vec<i64>> = values
        .into_iter()
        .map(|value| {
            let number = i64::try_from(i128::from(value.as_integer()?)).ok()?;
            now = if differences { now.wrapping_add(number) } else { number };
            Some(now)
        })
        .collect();
    numbers.filter(|numbers| numbers.len() == count)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    pub(in crate::outbox) fn row(seq: i64, body: &[u8]) -> BlockRow {
        let stored = Stored {
            stream_no: 3,
            seq,
            wall_ms: 1_763_690_000_000 + 100 * seq,
            boot_ms: 5_000 + 100 * seq,
            boot_no: 2,
            clock_state: 2,
        };
        BlockRow { checksum: stored.checksum(body), stored, body: body.to_vec() }
    }

    fn any_row() -> impl Strategy<Value = BlockRow> {
        (any::<[i64; 4]>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |([wall_ms, boot_ms, boot_no, clock_state], checksum, body)| BlockRow {
                stored: Stored { stream_no: 9, seq: 0, wall_ms, boot_ms, boot_no, clock_state },
                checksum,
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(mut rows in proptest::collection::vec(any_row(), 1..30), base in 1_i64..1 << 60) {
            for (seq, row) in (base..).zip(&mut rows) {
                row.stored.seq = seq;
            }
            prop_assert_eq!(Packed::of(&rows).unwrap().unpack().unwrap(), rows);
        }
    }

    #[test]
    fn no_flipped_bit_of_a_block_goes_unseen() {
        let rows: Vec<_> = (1..=20).map(|seq| row(seq, format!("reading {seq} of the press").as_bytes())).collect();
        let packed = Packed::of(&rows).unwrap();
        for bit in 0..packed.body.len() * 8 {
            let mut spoiled = packed.clone();
            spoiled.body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(spoiled.unpack(), None, "bit {bit}");
        }
        for bit in 0..64 {
            let one = 1_u64 << bit;
            for spoil in [
                &|block: &mut Packed| block.base ^= one,
                &|block: &mut Packed| block.count ^= one,
                &|block: &mut Packed| block.raw_bytes ^= one,
                &|block: &mut Packed| block.stream_no ^= one.cast_signed(),
            ] as [&dyn Fn(&mut Packed); 4]
            {
                let mut spoiled = packed.clone();
                spoil(&mut spoiled);
                assert_eq!(spoiled.unpack(), None, "bit {bit} of a column");
            }
        }
    }

    #[test]
    fn a_block_that_claims_to_be_huge_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let mut packed = Packed { stream_no: 1, base: 1, count: 1, raw_bytes: 64 << 20, checksum: 0, body: bomb };
        packed.checksum = packed.sum();
        assert_eq!(packed.unpack(), None);
        packed.raw_bytes = 1000;
        packed.checksum = packed.sum();
        assert_eq!(packed.unpack(), None, "more comes out than was said");
    }

    #[test]
    fn a_block_of_verdicts_is_a_fifth_of_its_rows() {
        let rows: Vec<_> = (0..256)
            .map(|n| {
                let wave = 50.0 + 20.0 * (n as f64 / 40.0).sin() + (n * 7919 % 100) as f64 / 100.0;
                row(
                    n + 1,
                    format!(
                        r#"{{"t":{},"n":{n},"v0":{wave:.4},"s":0.1,"state":"normal"}}"#,
                        1_763_690_000_000_i64 + n * 100
                    )
                    .as_bytes(),
                )
            })
            .collect();
        let bodies: usize = rows.iter().map(|row| row.body.len()).sum();
        let packed = Packed::of(&rows).unwrap();
        assert!(packed.body.len() * 5 < bodies * 2, "{bodies} bytes became {}", packed.body.len());
    }
}
