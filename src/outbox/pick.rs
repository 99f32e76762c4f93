//! Choosing and reading the next batch, and entering what cannot be read into the ledger.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension, types::ValueRef};

use super::batch::{Batch, BatchId, BatchLimits, Gap, GapReason, Row};
use super::error::Error;
use super::packs::{self, Found};
use super::queue::{Outbox, Stored};
use super::rows::{acked_holds, gap_holds, stream_holds};
use super::size::{integer, remove};
use super::stream::{Class, StreamHandle, StreamKey};
use crate::base::{BootId, ClockState, Seq, Stamp};
use crate::store::{self, BOOT_HOLDS};

/// Set right and read again at most this often in one call.
const TRIES: usize = 8;
/// Ranges set right at a time.
const MAX_BAD: usize = 10_000;

/// A part of a stream with something to send.
pub(super) struct Candidate {
    pub(super) stream: StreamHandle,
    pub(super) key: StreamKey,
    /// First number that is neither settled nor in flight.
    pub(super) from: u64,
    /// Last committed number of the part: what follows is in flight, or not there.
    pub(super) last: u64,
}

/// What was read of one stream.
struct Reading {
    first: u64,
    /// The last number covered; `first - 1` if there is nothing but acknowledged numbers.
    last: u64,
    rows: Vec<Row>,
    gaps: Vec<Gap>,
    /// Numbers that should be rows and are not, or not intact.
    bad: Vec<(u64, u64)>,
}

impl Outbox {
    /// The next rows to send, or None. Alarms first, then the stream whose first waiting row is the oldest; one stream
    /// a batch. What is in flight already is passed over. Rows stay until [`delete`](Self::delete).
    pub async fn next_batch(&self, limits: &BatchLimits, in_flight: &[BatchId]) -> Result<Option<Batch>, Error> {
        self.pick(limits, || self.candidates(in_flight), |_, candidate| Ok(candidate)).await
    }

    /// The first of `candidates` that has anything, by urgency, of the part of it that `narrow` leaves.
    pub(super) async fn pick(
        &self,
        limits: &BatchLimits,
        candidates: impl Fn() -> Vec<Candidate>,
        narrow: impl Fn(&Connection, Candidate) -> Result<Candidate, store::Error> + Copy + Send + 'static,
    ) -> Result<Option<Batch>, Error> {
        let mut unreadable = None;
        for _ in 0..TRIES {
            let candidates = candidates();
            if candidates.is_empty() {
                return Ok(None);
            }
            let limits = *limits;
            let read = move |connection: &Connection| {
                for candidate in by_urgency(connection, candidates)? {
                    let Some(candidate) = unsettled(connection, candidate)? else { continue };
                    let candidate = narrow(connection, candidate)?;
                    let reading = read_stream(connection, &candidate, limits)?;
                    if reading.last >= reading.first || !reading.bad.is_empty() {
                        return Ok(Some((candidate, reading)));
                    }
                }
                Ok(None)
            };
            let Some((Candidate { stream, key, .. }, reading)) = self.reader.read(read).await? else {
                return Ok(None);
            };
            if reading.bad.is_empty() {
                let (first, last) = (Seq(reading.first), Seq(reading.last));
                let id = BatchId { stream, first, last };
                let Reading { rows, gaps, .. } = reading;
                let epoch = key.epoch.unwrap_or(self.epoch);
                return Ok(Some(Batch { id, stream: key, epoch, first, last, rows, gaps }));
            }
            self.enter_corrupt(stream, &key, reading.bad).await?;
            unreadable = Some(key);
        }
        let error = Error::Unreadable { key: unreadable.expect("the loop ran and went on only past a bad row") };
        self.reader.distrust(&error.to_string());
        Err(error)
    }

    /// Every part of every stream that is neither settled nor in flight.
    pub(super) fn candidates(&self, in_flight: &[BatchId]) -> Vec<Candidate> {
        let streams = self.state.lock();
        let mut found = Vec::new();
        for (at, stream) in streams.all.iter().enumerate().filter(|(_, stream)| stream.last > stream.settled) {
            let mut flying: Vec<_> = in_flight.iter().filter(|batch| batch.stream.at == at).collect();
            flying.sort_unstable_by_key(|batch| batch.first);
            let mut from = stream.settled + 1;
            let mut part = |from: u64, last: u64| {
                let handle = StreamHandle { at, no: stream.no };
                found.push(Candidate { stream: handle, key: stream.key.clone(), from, last });
            };
            for batch in flying {
                if from < batch.first.0 {
                    part(from, (batch.first.0 - 1).min(stream.last));
                }
                from = from.max(batch.last.0 + 1);
                if from > stream.last {
                    break;
                }
            }
            if from <= stream.last {
                part(from, stream.last);
            }
        }
        found
    }

    async fn enter_corrupt(&self, stream: StreamHandle, key: &StreamKey, bad: Vec<(u64, u64)>) -> Result<(), Error> {
        tracing::error!(stream = %key, ranges = bad.len(), "rows are corrupt; they go to the loss ledger");
        let (state, wall_ms) = (std::sync::Arc::clone(&self.state), self.clock.wall_ms());
        let work = move |tx: &store::Tx<'_>| {
            let mut streams = state.stage(tx, stream.at);
            let stream = &mut streams.all[stream.at];
            for (first, last) in bad {
                let count = last - first + 1;
                stream.staged.vanished += count - remove(tx, stream, first, last)?.rows;
                stream.lose(tx, (first, last), count, GapReason::Corrupt, wall_ms)?;
            }
            Ok(())
        };
        Ok(self.writer.commit_from_reserve(work).await?)
    }
}

/// What of a part is not settled in this snapshot, which may be newer than what memory knew: a deletion that has filled
/// a hole takes the acknowledged ranges above it away, and without them its numbers would look like vanished rows.
fn unsettled(connection: &Connection, mut candidate: Candidate) -> Result<Option<Candidate>, store::Error> {
    let settled: i64 = connection
        .prepare_cached(concat!("SELECT settled FROM outbox_stream WHERE stream_no = ?1 AND ", stream_holds!()))?
        .query_row([candidate.stream.no], |row| row.get(0))
        .optional()?
        .ok_or_else(|| store::Error::Row { table: "outbox_stream", what: "a wrong checksum".to_owned() })?;
    candidate.from = candidate.from.max(settled.cast_unsigned() + 1);
    Ok((candidate.from <= candidate.last).then_some(candidate))
}

/// Alarms before the rest; within both, the one whose first row is oldest. The order of rows in time is (boot, time
/// since boot): it does not change when somebody sets the clock.
fn by_urgency(connection: &Connection, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, store::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT boot_no, boot_ms, seq FROM outbox_row
         WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq LIMIT 1",
    )?;
    let mut heads = connection.prepare_cached(&packs::heads_sql())?;
    let mut aged = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let part = (candidate.stream.no, candidate.from.cast_signed(), candidate.last.cast_signed());
        let single = statement.query_row(part, |row| {
            Ok((row.get::<_, i64>(2)?.cast_unsigned(), (integer(row.get_ref(0)?), integer(row.get_ref(1)?))))
        });
        let block = packs::heads(&mut heads, candidate.stream.no, candidate.from, 1)?.first().copied();
        let block = block.filter(|block| block.first <= candidate.last);
        let block = block.map(|block| (block.first, (Some(block.age.0), Some(block.age.1))));
        // A stream with ledger entries only goes first in its class: losses are declared before anything else.
        let age = single.optional()?.into_iter().chain(block).min_by_key(|(first, _)| *first);
        let age = age.map_or((None, None), |(_, age)| age);
        aged.push(((candidate.key.class != Class::Alarm, age), candidate));
    }
    aged.sort_by_key(|(age, _)| *age);
    Ok(aged.into_iter().map(|(_, candidate)| candidate).collect())
}

fn ranges(
    connection: &Connection,
    sql: &str,
    candidate: &Candidate,
    most: usize,
) -> Result<VecDeque<Gap>, store::Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((
        candidate.stream.no,
        candidate.from.cast_signed(),
        candidate.last.cast_signed(),
        i64::try_from(most).unwrap_or(i64::MAX),
    ))?;
    let mut found = VecDeque::new();
    while let Some(row) = rows.next()? {
        found.push_back(gap_of(row, candidate)?);
    }
    Ok(found)
}

/// The part of a ledger entry that lies in `candidate`: what lies outside is told already, or on its way.
pub(super) fn gap_of(row: &rusqlite::Row<'_>, candidate: &Candidate) -> Result<Gap, store::Error> {
    let reason: String = row.get(3)?;
    let first = row.get::<_, i64>(0)?.cast_unsigned().max(candidate.from);
    let last = row.get::<_, i64>(1)?.cast_unsigned().min(candidate.last);
    Ok(Gap {
        first: Seq(first),
        last: Seq(last),
        count: row.get::<_, i64>(2)?.cast_unsigned().min((last + 1).saturating_sub(first)),
        reason: GapReason::from_word(&reason).ok_or(store::Error::Row { table: "outbox_gap", what: reason })?,
        wall_ms: row.get(4)?,
    })
}

/// Walks the numbers from `candidate.from` on: every one must be an intact row, in the ledger or acknowledged.
fn read_stream(connection: &Connection, candidate: &Candidate, limits: BatchLimits) -> Result<Reading, store::Error> {
    let most = limits.rows.max(1);
    let mut gaps = ranges(
        connection,
        concat!(
            "SELECT first, last, count, reason, wall_ms FROM outbox_gap
             WHERE stream_no = ?1 AND last >= ?2 AND first <= ?3 AND ",
            gap_holds!(),
            " ORDER BY first LIMIT ?4"
        ),
        candidate,
        most + 1,
    )?;
    let mut acked = ranges(
        connection,
        concat!(
            "SELECT first, last, 0, 'restart', 0 FROM outbox_acked
             WHERE stream_no = ?1 AND last >= ?2 AND first <= ?3 AND ",
            acked_holds!(),
            " ORDER BY first LIMIT ?4"
        ),
        candidate,
        most + 1,
    )?;
    let mut boots = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body FROM outbox_row
         WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows =
        statement.query((candidate.stream.no, candidate.from.cast_signed(), candidate.last.cast_signed()))?;
    let mut reading = Reading {
        first: candidate.from,
        last: candidate.from - 1,
        rows: Vec::new(),
        gaps: Vec::new(),
        bad: Vec::new(),
    };
    let mut blocks = packs::Reading::new(connection, candidate.stream.no);
    let mut bytes = 0;
    let mut row = rows.next()?;
    while reading.last < candidate.last {
        let expected = reading.last + 1;
        let is_empty = reading.rows.is_empty() && reading.gaps.is_empty();
        if let Some(range) = acked.pop_front_if(|range| range.first.0 <= expected) {
            if !is_empty {
                break;
            }
            // Acknowledged early: the batch begins after it.
            reading.last = range.last.0.max(reading.last);
            reading.first = reading.last + 1;
            continue;
        }
        if let Some(gap) = gaps.pop_front_if(|gap| gap.first.0 <= expected) {
            if reading.gaps.len() >= most {
                break;
            }
            reading.last = gap.last.0.max(reading.last);
            reading.gaps.push(gap);
            continue;
        }
        let found = match row {
            Some(row) => Some((row.get::<_, i64>(0)?.cast_unsigned(), row)),
            None => None,
        };
        match found {
            // A row below what is covered already: a ledger entry speaks for it. It goes with the deletion.
            Some((seq, _)) if seq < expected => row = rows.next()?,
            Some((seq, values)) if seq == expected => {
                let Some((stored, body)) = intact(candidate.stream.no, values)? else {
                    reading.bad.push((seq, seq));
                    reading.last = seq;
                    row = rows.next()?;
                    continue;
                };
                if reading.rows.len() >= most || (bytes + body.len() > limits.bytes && !reading.rows.is_empty()) {
                    break;
                }
                bytes += body.len();
                reading.rows.push(to_row(connection, &mut boots, &stored, body)?);
                reading.last = seq;
                row = rows.next()?;
            }
            other => {
                let next_row = other.map_or(u64::MAX, |(seq, _)| seq);
                let next_block = match blocks.at(expected)? {
                    Found::Row(row) => {
                        if reading.rows.len() >= most
                            || (bytes + row.body.len() > limits.bytes && !reading.rows.is_empty())
                        {
                            break;
                        }
                        bytes += row.body.len();
                        reading.rows.push(to_row(connection, &mut boots, &row.stored, row.body.clone())?);
                        reading.last = expected;
                        continue;
                    }
                    Found::Bad { until } => until + 1,
                    Found::Nothing { next } => next,
                };
                // Nothing stands for these numbers, or nothing intact: rows vanished.
                let next_gap = gaps.front().map_or(u64::MAX, |gap| gap.first.0);
                let next_acked = acked.front().map_or(u64::MAX, |range| range.first.0);
                let until = next_row.min(next_gap).min(next_acked).min(next_block).min(candidate.last + 1) - 1;
                reading.bad.push((expected, until));
                reading.last = until;
            }
        }
        if reading.bad.len() >= MAX_BAD {
            break;
        }
    }
    Ok(reading)
}

/// The row, if its checksum holds and every column is of its type.
pub(super) fn intact(stream_no: i64, row: &rusqlite::Row<'_>) -> Result<Option<(Stored, Vec<u8>)>, store::Error> {
    let mut numbers = [0_i64; 6];
    for (at, number) in numbers.iter_mut().enumerate() {
        match integer(row.get_ref(at)?) {
            Some(value) => *number = value,
            None => return Ok(None),
        }
    }
    let [seq, wall_ms, boot_ms, boot_no, clock_state, checksum] = numbers;
    let ValueRef::Blob(body) = row.get_ref(6)? else { return Ok(None) };
    let stored = Stored { stream_no, seq, wall_ms, boot_ms, boot_no, clock_state };
    let holds = i64::from(stored.checksum(body)) == checksum && stored.state().is_some();
    Ok(holds.then(|| (stored, body.to_vec())))
}

/// A boot as rows refer to it.
#[derive(Debug, Clone, Copy)]
struct Boot {
    no: i64,
    id: BootId,
    /// What to add to the wall clock that the boot began with.
    offset_ms: Option<i64>,
    /// That wall clock, less the time since boot.
    start_ms: i64,
}

/// Rows whose clock stood this far from what the boot began with have an offset of their own, in steps of this.
const STEP_MS: i64 = 1000;

impl Boot {
    fn read(connection: &Connection, no: i64) -> Result<Self, store::Error> {
        let sql = format!(
            "SELECT boot_id, offset_ms, first_wall_ms - first_boot_ms FROM boot WHERE boot_no = ?1 AND {BOOT_HOLDS}"
        );
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self { no, id: BootId(row.get(0)?), offset_ms: row.get(1)?, start_ms: row.get(2)? })
        };
        let unknown = Self { no, id: BootId([0; 16]), offset_ms: None, start_ms: 0 };
        Ok(connection.prepare_cached(&sql)?.query_row([no], read).optional()?.unwrap_or(unknown))
    }

    /// The offset of a row: somebody may have set the clock in between, and the time since boot does not mind.
    fn offset_ms(&self, stored: &Stored) -> Option<i64> {
        let offset_ms = self.offset_ms?;
        if stored.state() == Some(ClockState::Ntp) {
            return Some(offset_ms);
        }
        let moved_ms = stored.wall_ms.saturating_sub(stored.boot_ms).saturating_sub(self.start_ms);
        Some(offset_ms.saturating_sub(moved_ms.saturating_add(moved_ms.signum() * STEP_MS / 2) / STEP_MS * STEP_MS))
    }
}

fn to_row(connection: &Connection, boots: &mut Vec<Boot>, stored: &Stored, body: Vec<u8>) -> Result<Row, store::Error> {
    let known = boots.iter().find(|boot| boot.no == stored.boot_no).copied();
    let boot = match known {
        Some(boot) => boot,
        None => {
            let boot = Boot::read(connection, stored.boot_no)?;
            boots.push(boot);
            boot
        }
    };
    let stamp = Stamp {
        wall_ms: stored.wall_ms,
        boot_ms: stored.boot_ms.cast_unsigned(),
        boot: boot.id,
        state: stored.state().expect("checked with the checksum"),
    };
    Ok(Row { seq: Seq(stored.seq.cast_unsigned()), stamp, offset_ms: boot.offset_ms(stored), body })
}
