//! Budgets over a restart: written behind, in batches, and read at the start.
//!
//! What a crash may lose is what was reserved and settled since the newest commit: at most `flush_ms` of it, and of one
//! budget at most a 128th of its limit, plus what comes while one commit is under way. What is reserved is written with
//! what is spent; after a crash it counts as spent, since the request may have been answered. An orderly stop that ends
//! with [`Quota::flush`] loses nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::budget::Purse;
use super::config::Limit;
use super::counter::{Body, Counter, Ends, Kept};
use super::reserve::{Inner, Quota};
use super::rows::{self, Row};
use super::state::State;
use super::unit::{Now, Span, Unit};
use crate::store::{Error, Tx, Writer};

/// Names written in one commit.
const BATCH: usize = 256;
/// Bytes of a row, about, for the writer's bound.
const ROW_BYTES: usize = 120;

/// What a start found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Budgets that go on where they stood.
    pub budgets: usize,
    /// Of these, budgets of which requests were under way when the gateway died; they are charged as reserved.
    pub charged: usize,
    /// Rows whose checksum was wrong; they are removed.
    pub bad_rows: u64,
}

/// Budgets of a file that was set aside.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    rows: Vec<Row>,
}

/// Reads the budgets of a wreck; rows with a wrong checksum are left out.
pub fn remembered(wreck: &rusqlite::Connection) -> Result<Remembered, Error> {
    Ok(Remembered { rows: rows::read_wreck(wreck)? })
}

impl Quota {
    /// Takes up what the file says was spent; once, before the first request. A file that says nothing takes over what a
    /// wreck `before` it had.
    pub fn resume(&self, tx: &Tx<'_>, before: Option<&Remembered>, now: Now) -> Result<Resumed, Error> {
        let (mut found, bad_rows) = rows::read_and_clean(tx)?;
        if let (true, Some(before)) = (found.is_empty(), before) {
            before.rows.iter().try_for_each(|row| row.put(tx))?;
            found.clone_from(&before.rows);
        }
        if bad_rows > 0 {
            self.inner.metrics.bad_rows.inc_by(bad_rows);
            tracing::error!(
                rows = bad_rows,
                "rows of budgets had a wrong checksum; what they spoke of counts as unspent"
            );
        }
        let mut resumed = Resumed { bad_rows, ..Resumed::default() };
        for budget in found.chunk_by(Row::is_same_budget) {
            if self.inner.resume(budget, now) {
                resumed.budgets += 1;
                resumed.charged += usize::from(budget.iter().any(|row| row.held > 0));
            }
        }
        self.inner.limits_something(&self.inner.lock());
        Ok(resumed)
    }

    /// Writes what waits to be written. Returns the number of names. After an error it waits again.
    pub async fn flush(&self, writer: &Writer) -> Result<usize, Error> {
        let mut written = 0;
        let mut rounds = self.inner.lock().dirty.len() / BATCH + 1;
        loop {
            let turn = Arc::clone(&self.inner.writing).lock_owned().await;
            let Some(batch) = Batch::take(&self.inner, turn) else { return Ok(written) };
            let names = batch.ids.len();
            let bytes = (batch.rows.len() + batch.turned.len() + batch.gone.len()) * ROW_BYTES;
            if let Err(error) = writer.commit(bytes, move |tx| batch.write(tx)).await {
                self.inner.metrics.flush_failures.inc();
                return Err(error);
            }
            written += names;
            rounds -= 1;
            if rounds == 0 {
                return Ok(written);
            }
        }
    }

    /// Writes what waits, for ever: to be run beside the gateway, dropped at the end, and followed by one
    /// [`flush`](Self::flush). Sleeps while nothing changes.
    pub async fn keep(&self, writer: &Writer) {
        loop {
            self.inner.dirty.notified().await;
            let wait = Duration::from_millis(self.inner.flush_ms.load(Ordering::Relaxed));
            let _ = tokio::time::timeout(wait, self.inner.urgent.notified()).await;
            if let Err(error) = self.flush(writer).await {
                if matches!(error, Error::Closed(_)) {
                    return;
                }
                tracing::warn!(%error, "budgets could not be written; they hold in memory and are written again");
                tokio::time::sleep(wait).await;
            }
            self.inner.again();
        }
    }
}

impl Inner {
    /// Wakes the writing task if something still waits, and counts what nobody had the time to count.
    fn again(&self) {
        let mut state = self.lock();
        let waits = !state.dirty.is_empty() || !state.gone.is_empty();
        self.metrics.forgotten.inc_by(std::mem::take(&mut state.forgotten));
        self.metrics.subjects.set(i64::try_from(state.live()).unwrap_or(i64::MAX));
        drop(state);
        if waits {
            self.dirty.notify_one();
        }
    }

    /// One budget's rows, oldest first. False if nothing limits it any more.
    fn resume(&self, budget: &[Row], now: Now) -> bool {
        let mut state = self.lock();
        let newest = budget.last().expect("a chunk has a row");
        let Row { level, name, unit, span, .. } = newest;
        let is_limit = |limit: &Limit| (limit.unit, limit.span) == (*unit, *span);
        let granted = newest.amount.zip(newest.ends_ms).filter(|_| *span == Span::Lease);
        if granted.is_none() && !state.limits_of(level, name).iter().any(is_limit) {
            return false;
        }
        let id = state.account_or_new(level, name, now);
        let (turn, generation) = (state.turn, state.generation);
        let shares = state.warn_percent.clone();
        let account = state.held(id);
        let at = match account.counters.iter().position(|counter| is_limit(&counter.limit)) {
            Some(at) => at,
            None => {
                let limit = Limit { unit: *unit, span: *span, amount: 0 };
                account.counters.push(Counter::new(limit, generation, now, turn));
                account.counters.len() - 1
            }
        };
        let counter = &mut account.counters[at];
        let Body::Kept(kept) = &mut counter.body else { return false };
        // Days that have not come yet were written under a clock that was ahead; what they say was spent before now.
        let today = turn.period(*span).unwrap_or(newest.period);
        let earlier = budget.iter().rev().find(|row| row.period < today);
        let used =
            budget.iter().filter(|row| row.period >= today).fold(0_u64, |sum, row| sum.saturating_add(row.used()));
        kept.budget.current = Purse::resumed(today, turn.number, used, told(newest));
        // No reservation is of it, so it needs a turn of its own.
        kept.budget.previous = earlier.map(|row| Box::new(Purse::resumed(row.period, 0, row.used(), told(row))));
        kept.budget.has_turned = budget.len() > 2 || newest.period > today;
        kept.written = used;
        if let Some((amount, ends_ms)) = granted {
            kept.ends = Some(Ends::at(ends_ms, now));
            counter.limit.amount = amount;
        }
        counter.hush(&shares);
        state.mark_dirty(id);
        true
    }
}

/// A budget whose rows of other periods than these go.
struct Turned {
    level: Box<str>,
    name: Arc<str>,
    unit: Unit,
    span: Span,
    current: i64,
    previous: Option<i64>,
}

/// What one commit writes. Dropped before its commit returned from the disk, its names wait again.
struct Batch {
    inner: Arc<Inner>,
    ids: Vec<u32>,
    rows: Vec<Row>,
    turned: Vec<Turned>,
    gone: Vec<(Box<str>, Arc<str>)>,
    is_on_disk: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Batch {
    fn take(inner: &Arc<Inner>, turn: OwnedMutexGuard<()>) -> Option<Self> {
        let mut state = inner.lock();
        let (most, most_gone) = (state.dirty.len().min(BATCH), state.gone.len().min(BATCH));
        let ids: Vec<_> = state.dirty.drain(..most).collect();
        let gone: Vec<_> = state.gone.drain(..most_gone).collect();
        if ids.is_empty() && gone.is_empty() {
            return None;
        }
        let (mut rows, mut turned) = (Vec::new(), Vec::new());
        let State { accounts, levels, .. } = &mut *state;
        for &id in &ids {
            let Some(account) = accounts.get_mut(id as usize).and_then(Option::as_mut) else { continue };
            let level = &levels[account.level as usize].name;
            account.is_dirty = false;
            for counter in &mut account.counters {
                let limit = counter.limit;
                let Body::Kept(kept) = &mut counter.body else { continue };
                if std::mem::take(&mut kept.budget.has_turned) {
                    turned.push(Turned {
                        level: level.clone(),
                        name: Arc::clone(&account.name),
                        unit: limit.unit,
                        span: limit.span,
                        current: kept.budget.current.period,
                        previous: kept.budget.previous.as_ref().map(|purse| purse.period),
                    });
                }
                rows.extend(news(kept, limit, level, &account.name));
            }
        }
        drop(state);
        Some(Self { inner: Arc::clone(inner), ids, rows, turned, gone, is_on_disk: false, _turn: turn })
    }

    fn write(mut self, tx: &Tx<'_>) -> Result<(), Error> {
        for (level, name) in &self.gone {
            rows::forget(tx, level, name)?;
        }
        for Turned { level, name, unit, span, current, previous } in &self.turned {
            rows::keep_only(tx, (level, name, *unit, *span), *current, *previous)?;
        }
        self.rows.iter().try_for_each(|row| row.put(tx))?;
        tx.after(move |is_on_disk| {
            self.is_on_disk = is_on_disk;
            if is_on_disk {
                self.inner.metrics.rows.inc_by(self.rows.len() as u64);
            }
        });
        Ok(())
    }
}

/// The last word on a lease, as its row has it: an end that has passed whatever the clock says, and in the place of what was
/// granted what was told as used. Rows of earlier releases still say there what was granted.
fn told(row: &Row) -> Option<u64> {
    let is_told = row.span == Span::Lease && row.ends_ms == Some(Ends::PASSED.wall_ms);
    row.amount.filter(|_| is_told).map(|amount| amount.min(row.used()))
}

/// The rows of a budget that have changed; from here on they count as written.
fn news(kept: &mut Kept, limit: Limit, level: &str, name: &Arc<str>) -> Vec<Row> {
    kept.written = kept.budget.current.used();
    let is_lease = limit.span == Span::Lease;
    let ends = kept.ends.filter(|_| is_lease);
    let purses =
        [Some((&mut kept.budget.current, ends)), kept.budget.previous.as_deref_mut().map(|purse| (purse, None))];
    // Where no lease has come yet there is nothing to say.
    let is_news = |(purse, _): &(&mut Purse, Option<Ends>)| !purse.is_written && (!is_lease || purse.period > 0);
    let row = |(purse, ends): (&mut Purse, Option<Ends>)| {
        purse.is_written = true;
        let (ends, amount) = match purse.told {
            Some(told) => (Some(Ends::PASSED), told),
            None => (ends, limit.amount),
        };
        Row {
            level: level.into(),
            name: Arc::clone(name),
            unit: limit.unit,
            span: limit.span,
            period: purse.period,
            spent: purse.spent,
            held: purse.held,
            amount: ends.map(|_| amount),
            ends_ms: ends.map(|ends| ends.wall_ms),
        }
    };
    purses.into_iter().flatten().filter(is_news).map(row).collect()
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.is_on_disk {
            return;
        }
        let mut state = self.inner.lock();
        for &id in &self.ids {
            let Some(account) = state.accounts.get_mut(id as usize).and_then(Option::as_mut) else { continue };
            for counter in &mut account.counters {
                if let Body::Kept(kept) = &mut counter.body {
                    kept.budget.current.is_written = false;
                    kept.budget.has_turned = true;
                    if let Some(previous) = &mut kept.budget.previous {
                        previous.is_written = false;
                    }
                }
            }
            state.mark_dirty(id);
        }
        state.gone.append(&mut self.gone);
        drop(state);
        self.inner.dirty.notify_one();
    }
}
