//! What a transaction brought, gathered until its end, and which of the two tables takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Reading;
use super::arrival::{self, Fill, Table};
use super::block;
use super::limits::Limits;
use super::metrics::Metrics;
use crate::store::{Error, Tx};

/// Rows of a table that takes what comes: a question about one stream looks at each of them.
const MOST_ROWS: u64 = 8192;
/// A table moves when it has as many readings as fill a block for each of its streams, and of so many at least.
const LEAST_STREAMS: u64 = 4;

/// The table whose readings are on their way into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    pub(super) table: Table,
    /// Differs between any two tables that were frozen in this process, also if they are the same one.
    pub(super) generation: u64,
    pub(super) bytes: u64,
    pub(super) readings: u64,
}

#[derive(Debug)]
struct Place {
    active: Table,
    next_no: i64,
    fill: Fill,
    frozen: Option<Frozen>,
    /// The active table has rows of an earlier life, which nobody counted.
    inherited: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The transaction that the readings are of; 0 for none.
    transaction: u64,
    readings: Vec<(i64, Reading)>,
    place: Option<Place>,
    generation: u64,
    /// Of all blocks, once they were counted.
    block_bytes: Option<u64>,
}

/// Shared by the writing side and whoever moves readings into blocks.
#[derive(Debug)]
pub(super) struct Incoming {
    state: Mutex<State>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    /// Told when a table is frozen.
    pub(super) froze: Notify,
}

impl Incoming {
    pub(super) fn new(limits: Limits) -> Self {
        Self { state: Mutex::default(), limits, metrics: Metrics::default(), froze: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reading goes with this transaction.
    pub(super) fn take(self: &Arc<Self>, tx: &Tx<'_>, stream_no: i64, reading: Reading) {
        let mut state = self.lock();
        if state.transaction != tx.number() {
            state.transaction = tx.number();
            state.readings.clear();
            let (at_end, after) = (Arc::clone(self), Arc::clone(self));
            tx.before_commit(move |tx| at_end.write(tx));
            tx.after(move |_| after.lock().transaction = 0);
        }
        state.readings.push((stream_no, reading));
    }

    fn write(self: &Arc<Self>, tx: &Tx<'_>) -> Result<(), Error> {
        let mut state = self.lock();
        let readings = std::mem::take(&mut state.readings);
        self.begin(tx, &mut state)?;
        let state = &mut *state;
        let place = state.place.as_mut().expect("begun just above");
        if place.fill.bytes >= 2 * self.limits.arrival_bytes()
            && let Some(frozen) = place.frozen
        {
            // Nobody moves what arrives, or not fast enough: the older half makes room.
            self.give_up(tx, frozen)?;
        }
        if self.is_full(place) {
            self.freeze(tx, place, &mut state.generation);
        }
        place.fill.readings += readings.len() as u64;
        place.fill.streams.extend(readings.iter().map(|(stream_no, _)| *stream_no));
        let bytes = arrival::insert(tx, place.active, place.next_no, readings)?;
        place.next_no += 1;
        place.fill.rows += 1;
        place.fill.bytes += bytes as u64;
        let total = state.total();
        self.metrics.bytes.set(total.cast_signed());
        Ok(())
    }

    /// Takes up where the tables stand. Reads two rows.
    pub(super) fn take_up(self: &Arc<Self>, tx: &Tx<'_>) -> Result<(), Error> {
        self.begin(tx, &mut self.lock())
    }

    fn begin(self: &Arc<Self>, tx: &Tx<'_>, state: &mut State) -> Result<(), Error> {
        if state.place.is_some() {
            return Ok(());
        }
        let newest = [newest(tx, Table::A)?, newest(tx, Table::B)?];
        let active = arrival::active(newest);
        let next_no = newest.into_iter().flatten().max().unwrap_or(0) + 1;
        let has_rows = |table| newest[usize::from(table == Table::B)].is_some();
        let mut place = Place { active, next_no, fill: Fill::default(), frozen: None, inherited: has_rows(active) };
        if has_rows(active.other()) {
            state.generation += 1;
            place.frozen = Some(Frozen { table: active.other(), generation: state.generation, bytes: 0, readings: 0 });
        } else if place.inherited {
            self.freeze(tx, &mut place, &mut state.generation);
        }
        state.place = Some(place);
        Ok(())
    }

    fn is_full(&self, place: &Place) -> bool {
        let Fill { readings, rows, bytes, streams } = &place.fill;
        let enough = self.limits.block_readings() as u64 * (streams.len() as u64).max(LEAST_STREAMS);
        let is_full = *readings >= enough || *rows >= MOST_ROWS || *bytes >= self.limits.arrival_bytes();
        place.frozen.is_none() && (is_full || place.inherited)
    }

    /// The other table takes what comes from now on. If the transaction fails, the other table has no row yet, and
    /// that is as well.
    fn freeze(self: &Arc<Self>, tx: &Tx<'_>, place: &mut Place, generation: &mut u64) {
        *generation += 1;
        let fill = std::mem::take(&mut place.fill);
        place.frozen =
            Some(Frozen { table: place.active, generation: *generation, bytes: fill.bytes, readings: fill.readings });
        place.active = place.active.other();
        place.inherited = false;
        let me = Arc::clone(self);
        tx.after(move |_| me.froze.notify_one());
    }

    /// What waits to be moved.
    pub(super) fn frozen(&self) -> Option<Frozen> {
        self.lock().place.as_ref().and_then(|place| place.frozen)
    }

    /// The frozen table was counted.
    pub(super) fn counted(&self, generation: u64, readings: u64, bytes: u64) {
        let mut state = self.lock();
        let frozen = state.place.as_mut().and_then(|place| place.frozen.as_mut());
        if let Some(frozen) = frozen.filter(|frozen| frozen.generation == generation) {
            (frozen.readings, frozen.bytes) = (readings, bytes);
        }
    }

    /// Everything in it is in blocks: empties it, unless somebody did.
    pub(super) fn clear(self: &Arc<Self>, tx: &Tx<'_>, frozen: Frozen) -> Result<(), Error> {
        if self.frozen().is_none_or(|now| now.generation != frozen.generation) {
            return Ok(());
        }
        frozen.table.clear(tx)?;
        let me = Arc::clone(self);
        tx.after(move |committed| {
            let mut state = me.lock();
            if committed && let Some(place) = &mut state.place {
                place.frozen = None;
            }
            me.metrics.bytes.set(state.total().cast_signed());
        });
        Ok(())
    }

    /// Empties the frozen table although its readings are nowhere else. Callers may hold the lock.
    pub(super) fn give_up(self: &Arc<Self>, tx: &Tx<'_>, frozen: Frozen) -> Result<(), Error> {
        frozen.table.clear(tx)?;
        let me = Arc::clone(self);
        tx.after(move |committed| {
            let mut state = me.lock();
            if committed && let Some(place) = &mut state.place {
                place.frozen = None;
                me.metrics.yielded.inc_by(frozen.readings);
            }
        });
        Ok(())
    }

    pub(super) fn count_blocks(&self, bytes: u64) {
        self.lock().block_bytes = Some(bytes);
    }

    /// True if all blocks are gone.
    pub(super) fn has_only_arrivals(&self) -> bool {
        self.lock().block_bytes == Some(0)
    }

    /// True if there is anything that may leave.
    pub(super) fn can_give(&self) -> bool {
        !self.has_only_arrivals() || self.frozen().is_some()
    }

    /// Bytes of blocks and arrivals.
    pub(super) fn total(&self) -> u64 {
        self.lock().total()
    }

    /// Bytes that are more than history may have in a file with so many in use.
    pub(super) fn excess(&self, used_bytes: u64) -> u64 {
        let total = self.total();
        total.saturating_sub(self.limits.now(used_bytes, total))
    }

    /// At the end of a transaction that added `added` bytes of blocks and took `removed` away: the oldest blocks leave until
    /// history has no more than it may have.
    pub(super) fn settle(self: &Arc<Self>, tx: &Tx<'_>, added: u64, removed: u64, most: usize) -> Result<(), Error> {
        let (before, total) = {
            let state = self.lock();
            (state.block_bytes, (state.total() + added).saturating_sub(removed))
        };
        let Some(before) = before else { return Ok(()) };
        let excess = total.saturating_sub(self.limits.now(tx.used_bytes()?, total));
        let mut gone = block::Gone::default();
        // What has just arrived stays: a stream that starts again sums its open window from there.
        if excess > 0 {
            gone = block::remove_oldest(tx, excess, most)?;
            let is_bare = (before + added).saturating_sub(removed) <= gone.bytes;
            if gone.bytes < excess
                && is_bare
                && let Some(frozen) = self.frozen()
            {
                self.give_up(tx, frozen)?;
            }
        }
        let me = Arc::clone(self);
        tx.after(move |committed| {
            if committed {
                let mut state = me.lock();
                state.block_bytes = Some((before + added).saturating_sub(removed + gone.bytes));
                me.metrics.yielded.inc_by(gone.readings);
                me.metrics.bytes.set(state.total().cast_signed());
            }
        });
        Ok(())
    }
}

impl State {
    fn total(&self) -> u64 {
        let arrivals =
            self.place.as_ref().map_or(0, |place| place.fill.bytes + place.frozen.map_or(0, |frozen| frozen.bytes));
        self.block_bytes.unwrap_or(0) + arrivals
    }
}

fn newest(tx: &Tx<'_>, table: Table) -> Result<Option<i64>, Error> {
    tx.query_row(&table.newest_sql(), [], |row| row.get(0))
}
