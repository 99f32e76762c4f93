//! A block: neighbouring readings of one stream that are no longer new, as one compressed value in the order in which
//! blocks were made.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::Reading;
use super::checksum::corrupt;
use super::columns::{self, MAX_READINGS};
use crate::base::row_checksum;
use crate::store::{Error, Tx};

/// Nothing is unpacked beyond this, whatever a row says.
pub(super) const MAX_RAW_BYTES: usize = 4 << 20;
/// Fast, and within a few per cent of the better levels on columns.
const LEVEL: i32 = 3;
/// The other columns of a block and its place in the index, with the part of a page that stays empty.
const FIXED_BYTES: u64 = 128;

/// A block as its table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    stream_no: i64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    /// Earliest and latest source time.
    min_ms: i64,
    max_ms: i64,
    raw_bytes: u64,
    checksum: u32,
    body: Vec<u8>,
}

impl Block {
    /// Packs readings that are in order. `None` if they are no block: none, too many or too large, or there is no memory
    /// for it. What comes out of it again was compared with what went in.
    pub(super) fn of(stream_no: i64, readings: &[Reading]) -> Option<Self> {
        let (first, last) = (readings.first()?.seq, readings.last()?.seq);
        let raw = columns::encode(readings);
        if readings.len() > MAX_READINGS || raw.len() > MAX_RAW_BYTES {
            return None;
        }
        let times = readings.iter().map(|reading| reading.time_ms);
        let mut block = Self {
            stream_no,
            first,
            last,
            count: readings.len() as u64,
            min_ms: times.clone().min()?,
            max_ms: times.max()?,
            raw_bytes: raw.len() as u64,
            checksum: 0,
            body: zstd::bulk::compress(&raw, LEVEL).ok()?,
        };
        block.checksum = block.sum();
        // The arrivals are deleted for it: a block that says less than they did is none.
        let is_whole = block.unpack().is_some_and(|unpacked| columns::encode(&unpacked) == raw);
        is_whole.then_some(block)
    }

    fn sum(&self) -> u32 {
        let columns = [
            self.stream_no,
            self.first.cast_signed(),
            self.last.cast_signed(),
            self.count.cast_signed(),
            self.min_ms,
            self.max_ms,
            self.raw_bytes.cast_signed(),
        ]
        .map(i64::to_le_bytes);
        row_checksum(&[columns.as_flattened(), &self.body])
    }

    /// The readings. `None` if anything about the block is not as it was packed.
    pub(super) fn unpack(&self) -> Option<Vec<Reading>> {
        let raw_bytes = usize::try_from(self.raw_bytes).ok().filter(|bytes| *bytes <= MAX_RAW_BYTES)?;
        if self.checksum != self.sum() {
            return None;
        }
        let raw = zstd::bulk::decompress(&self.body, raw_bytes).ok()?;
        columns::decode(&raw, MAX_READINGS).filter(|readings| readings.len() as u64 == self.count)
    }

    /// Bytes of the file that it takes.
    pub(super) fn bytes(&self) -> u64 {
        FIXED_BYTES + (self.body.len() + self.body.len() / 8) as u64
    }

    /// Adds it behind all others, or before them.
    pub(super) fn insert(&self, tx: &Tx<'_>, is_oldest: bool) -> Result<(), Error> {
        let no: Option<i64> =
            if is_oldest { tx.query_row("SELECT min(no) - 1 FROM history_block", [], |row| row.get(0))? } else { None };
        tx.execute(
            "INSERT INTO history_block (no, stream_no, first, last, count, min_ms, max_ms, bytes, raw_bytes, crc, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            rusqlite::params![
                no,
                self.stream_no,
                self.first.cast_signed(),
                self.last.cast_signed(),
                self.count.cast_signed(),
                self.min_ms,
                self.max_ms,
                self.bytes().cast_signed(),
                self.raw_bytes.cast_signed(),
                self.checksum,
                self.body,
            ],
        )?;
        Ok(())
    }
}

/// What is known of a block without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) no: i64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
}

const HEAD: &str = "SELECT no, last, count, bytes, min_ms, max_ms FROM history_block";

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        no: row.get(0)?,
        last: row.get::<_, i64>(1)?.cast_unsigned(),
        count: row.get::<_, i64>(2)?.cast_unsigned(),
        bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        min_ms: row.get(4)?,
        max_ms: row.get(5)?,
    })
}

/// The stream's blocks that end after `after`, in order.
pub(super) fn heads(connection: &Connection, stream_no: i64, after: u64) -> Result<Vec<Head>, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 AND last > ?2 ORDER BY last");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map((stream_no, as_column(after)), head)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The end of the stream's newest block that is not needed to keep `count` readings; 0 if all are.
pub(super) fn needless(connection: &Connection, stream_no: i64, count: u64) -> Result<u64, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 ORDER BY last DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut kept = 0;
    for head in statement.query_map([stream_no], head)? {
        let head = head?;
        if kept >= count {
            return Ok(head.last);
        }
        kept += head.count;
    }
    Ok(0)
}

/// The stream's newest block.
pub(super) fn newest(connection: &Connection, stream_no: i64) -> Result<Option<Head>, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 ORDER BY last DESC LIMIT 1");
    Ok(connection.prepare_cached(&sql)?.query_row([stream_no], head).optional()?)
}

/// The stream's newest block that ends before `end`.
pub(super) fn before(connection: &Connection, stream_no: i64, end: u64) -> Result<Option<Head>, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 AND last < ?2 ORDER BY last DESC LIMIT 1");
    Ok(connection.prepare_cached(&sql)?.query_row((stream_no, as_column(end)), head).optional()?)
}

/// The stream's block that number `seq` would be in: the first that does not end before it.
pub(super) fn around(connection: &Connection, stream_no: i64, seq: u64) -> Result<Option<Head>, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 AND last >= ?2 ORDER BY last LIMIT 1");
    Ok(connection.prepare_cached(&sql)?.query_row((stream_no, as_column(seq)), head).optional()?)
}

/// A number as the table has it; no reading has one that is larger.
pub(super) fn as_column(seq: u64) -> i64 {
    seq.min(i64::MAX.cast_unsigned()).cast_signed()
}

/// The number of the last reading of the stream that is in a block; 0 for none.
pub(super) fn packed_until(connection: &Connection, stream_no: i64) -> Result<u64, Error> {
    Ok(newest(connection, stream_no)?.map_or(0, |head| head.last))
}

/// The readings of a block. None, with a word about it, if the disk has changed it.
pub(super) fn readings(connection: &Connection, no: i64) -> Result<Vec<Reading>, Error> {
    let sql =
        "SELECT stream_no, first, last, count, min_ms, max_ms, raw_bytes, crc, body FROM history_block WHERE no = ?1";
    let block = connection.prepare_cached(sql)?.query_row([no], |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Block {
            stream_no: row.get(0)?,
            first: number(1)?,
            last: number(2)?,
            count: number(3)?,
            min_ms: row.get(4)?,
            max_ms: row.get(5)?,
            raw_bytes: number(6)?,
            checksum: row.get(7)?,
            body: row.get(8)?,
        })
    });
    let unpacked = match block {
        Ok(block) => block.unpack(),
        // A column of another type than it was written with is damage like any other.
        Err(
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..),
        ) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(unpacked.unwrap_or_else(|| {
        corrupt();
        Vec::new()
    }))
}

/// Blocks and their bytes that left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) readings: u64,
    pub(super) bytes: u64,
}

/// Deletes one block.
pub(super) fn remove(tx: &Tx<'_>, no: i64) -> Result<Gone, Error> {
    remove_where(tx, "no = ?1 AND ?2 IS NULL", (no, None))
}

/// Deletes the stream's blocks that hold nothing after `last`, and what an older release's table has up to there.
pub(super) fn remove_until(tx: &Tx<'_>, stream_no: i64, last: u64) -> Result<Gone, Error> {
    let range = (stream_no, Some(last.cast_signed()));
    tx.execute("DELETE FROM history_reading WHERE stream_no = ?1 AND seq <= ?2", range)?;
    remove_where(tx, "stream_no = ?1 AND last <= ?2", range)
}

/// Deletes the oldest blocks, of whatever stream, until at least `need` bytes are free or `most` blocks are gone.
pub(super) fn remove_oldest(tx: &Tx<'_>, need: u64, most: usize) -> Result<Gone, Error> {
    let mut last = None;
    let mut bytes = 0;
    {
        let mut statement = tx.prepare_cached("SELECT no, bytes FROM history_block ORDER BY no LIMIT ?1")?;
        let mut rows = statement.query([most as i64])?;
        while bytes < need
            && let Some(row) = rows.next()?
        {
            last = Some(row.get(0)?);
            bytes += row.get::<_, i64>(1)?.cast_unsigned();
        }
    }
    last.map_or(Ok(Gone::default()), |last| forget_where(tx, "no <= ?1 AND ?2 IS NULL", (last, None)))
}

/// Deletes blocks whose readings are no longer kept. What an older release's table still has of before them goes too, or a
/// stream would have a hole.
fn forget_where(tx: &Tx<'_>, which: &str, range: (i64, Option<i64>)) -> Result<Gone, Error> {
    let older = format!(
        "DELETE FROM history_reading AS old WHERE EXISTS (
             SELECT 1 FROM history_block WHERE {which} AND stream_no = old.stream_no AND last > old.seq)"
    );
    tx.execute(&older, range)?;
    remove_where(tx, which, range)
}

fn remove_where(tx: &Tx<'_>, which: &str, range: (i64, Option<i64>)) -> Result<Gone, Error> {
    let sum = format!("SELECT coalesce(sum(count), 0), coalesce(sum(bytes), 0) FROM history_block WHERE {which}");
    let gone = tx.query_row(&sum, range, |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Gone { readings: number(0)?, bytes: number(1)? })
    })?;
    if gone.bytes > 0 {
        tx.execute(&format!("DELETE FROM history_block WHERE {which}"), range)?;
    }
    Ok(gone)
}

/// Bytes of all blocks.
pub(super) fn all_bytes(connection: &Connection) -> Result<u64, Error> {
    let sql = "SELECT coalesce(sum(bytes), 0) FROM history_block";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seq: u64) -> Reading {
        Reading {
            seq,
            time_ms: 1_700_000_000_000 + 10 * seq.cast_signed(),
            id: None,
            values: vec![seq as f64 / 8.0],
            score: Some(0.5),
            expected: None,
            state: 2,
            extra: None,
        }
    }

    #[test]
    fn no_flipped_bit_of_a_block_goes_unseen() {
        let readings: Vec<_> = (1..=50).map(reading).collect();
        let block = Block::of(3, &readings).unwrap();
        assert_eq!(block.unpack().unwrap(), readings);
        for bit in 0..block.body.len() * 8 {
            let mut spoiled = block.clone();
            spoiled.body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(spoiled.unpack(), None, "bit {bit}");
        }
        for bit in 0..64 {
            let one = 1_u64 << bit;
            for spoil in [
                &|block: &mut Block| block.stream_no ^= one.cast_signed(),
                &|block: &mut Block| block.first ^= one,
                &|block: &mut Block| block.last ^= one,
                &|block: &mut Block| block.count ^= one,
                &|block: &mut Block| block.min_ms ^= one.cast_signed(),
                &|block: &mut Block| block.max_ms ^= one.cast_signed(),
                &|block: &mut Block| block.raw_bytes ^= one,
            ] as [&dyn Fn(&mut Block); 7]
            {
                let mut spoiled = block.clone();
                spoil(&mut spoiled);
                assert_eq!(spoiled.unpack(), None, "bit {bit} of a column");
            }
        }
    }

    #[test]
    fn a_block_that_claims_to_be_huge_is_not_unpacked() {
        let mut block = Block::of(1, &[reading(1)]).unwrap();
        block.body = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        for raw_bytes in [64 << 20, 1000] {
            block.raw_bytes = raw_bytes;
            block.checksum = block.sum();
            assert_eq!(block.unpack(), None);
        }
    }

    #[test]
    fn readings_of_a_sensor_take_a_few_bytes_each() {
        let readings: Vec<_> = (1..=1024)
            .map(|n| {
                let noise = (n * 7919 % 100) as f64 / 100.0;
                let value = ((50.0 + 20.0 * (n as f64 / 40.0).sin() + noise) * 1e4).round() / 1e4;
                Reading { values: vec![value], score: None, ..reading(n) }
            })
            .collect();
        let block = Block::of(1, &readings).unwrap();
        assert!(block.body.len() < 4 * 1024, "{} bytes", block.body.len());
    }
}
