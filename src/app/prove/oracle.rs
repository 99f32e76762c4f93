//! Opens what a cut left, with the gateway's own opening code, and compares it with what was owed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::load::{Life, Say, body_of, row_of};
use super::words::{Debt, Word};
use crate::base::Clock;
use crate::history;
use crate::outbox::{BatchLimits, GapReason};
use crate::store;

/// Rows of history that are compared with the queue.
const HISTORY: usize = 20_000;
/// What is written after reopening, to see its number.
const PROBE: u64 = u64::MAX >> 2;

/// A sentence of the promise that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Breach {
    /// The file could not be opened at all.
    DoesNotOpen,
    /// The file was damaged: set aside, or SQLite's own check fails.
    Corrupt,
    /// An acknowledged row is not there.
    Lost,
    /// A row's content is not what was submitted.
    Altered,
    /// A number below the highest is neither row nor in the ledger nor released.
    Unaccounted,
    /// A number was issued a second time.
    IssuedTwice,
    /// Half of a transaction is there: a row of the queue without its reading, or the other way round.
    Halved,
}

impl Breach {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DoesNotOpen => "does not open",
            Self::Corrupt => "corrupt",
            Self::Lost => "acknowledged row lost",
            Self::Altered => "row altered",
            Self::Unaccounted => "number unaccounted for",
            Self::IssuedTwice => "number issued twice",
            Self::Halved => "half a transaction",
        }
    }
}

/// One breach with its particulars.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// Which sentence.
    pub breach: Breach,
    /// Where.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.breach.as_str(), self.what)
    }
}

/// What an inspection saw.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Empty if every sentence holds.
    pub findings: Vec<Finding>,
    /// Rows that were read and compared.
    pub rows: u64,
    /// The debt after the inspection's own writes.
    pub words: Vec<Word>,
}

impl Inspection {
    fn find(&mut self, breach: Breach, what: impl fmt::Display) {
        self.findings.push(Finding { breach, what: what.to_string() });
    }
}

/// Opens the file of `config` and compares it with `debt`. Writes one row into each lane to see its number.
pub async fn inspect(config: &store::Config, clock: Arc<dyn Clock>, debt: &Debt) -> Inspection {
    let mut seen = Inspection::default();
    let (life, opened) = match Life::open(config, clock) {
        Ok(open) => open,
        Err(error) => {
            seen.find(Breach::DoesNotOpen, format_args!("{error:#}"));
            return seen;
        }
    };
    if let Some(aside) = &opened.quarantined {
        seen.find(Breach::Corrupt, format_args!("set aside as {}", aside.display()));
    }
    let life = Arc::new(life);
    let same_epoch = debt.epoch == 0 || opened.epoch.0 == debt.epoch;
    if !same_epoch && opened.epoch.0 < debt.epoch {
        seen.find(Breach::IssuedTwice, format_args!("epoch {} after {}", opened.epoch.0, debt.epoch));
    }
    seen.words.push(Word::Began { epoch: opened.epoch.0 });
    if let Err(error) = look(&life, debt, &mut seen, same_epoch).await {
        seen.find(Breach::Corrupt, format_args!("{error:#}"));
    }
    if let Some(life) = Arc::into_inner(life)
        && let Err(error) = life.close()
    {
        seen.find(Breach::DoesNotOpen, format_args!("close: {error:#}"));
    }
    seen
}

async fn look(life: &Arc<Life>, debt: &Debt, seen: &mut Inspection, same_epoch: bool) -> Result<()> {
    let quick_check =
        |connection: &rusqlite::Connection| Ok(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?);
    let said: String = life.store.reader().read(quick_check).await?;
    if said != "ok" {
        seen.find(Breach::Corrupt, said.lines().next().unwrap_or("no answer"));
        return Ok(());
    }
    let queue = walk(life, debt, seen, same_epoch).await?;
    for (lane, rows) in &queue {
        let stream = life.history_of(*lane);
        let tail = life.store.reader().read(move |connection| history::tail(connection, stream, HISTORY)).await?;
        let readings: BTreeSet<u64> = tail.iter().filter_map(|reading| reading.id.as_ref()?.parse().ok()).collect();
        if let Some(row) = rows.iter().find(|row| !readings.contains(row)) {
            seen.find(Breach::Halved, format_args!("lane {lane}: row {row} is queued and not in history"));
        }
    }
    probe(life, debt, seen, same_epoch).await
}

/// Reads the whole queue without deleting. Returns each lane's rows.
async fn walk(life: &Life, debt: &Debt, seen: &mut Inspection, same_epoch: bool) -> Result<BTreeMap<usize, Vec<u64>>> {
    let limits = BatchLimits { rows: 100_000, bytes: 256 << 20 };
    let mut passed = Vec::new();
    let mut queue: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut firsts: BTreeMap<usize, u64> = BTreeMap::new();
    let mut found: BTreeMap<usize, BTreeMap<u64, u64>> = BTreeMap::new();
    while let Some(batch) = life.outbox.next_batch(&limits, &passed).await? {
        passed.push(batch.id);
        let Some(lane) = life.lane_of(batch.id.stream) else { continue };
        firsts.entry(lane).or_insert(batch.first.0);
        for row in &batch.rows {
            seen.rows += 1;
            match row_of(&row.body).filter(|number| body_of(*number) == row.body) {
                Some(number) => {
                    queue.entry(lane).or_default().push(number);
                    found.entry(lane).or_default().insert(row.seq.0, number);
                }
                None => seen.find(Breach::Altered, format_args!("lane {lane}, number {}", row.seq.0)),
            }
        }
        for gap in batch.gaps.iter().filter(|gap| gap.reason == GapReason::Corrupt) {
            seen.find(Breach::Altered, format_args!("lane {lane}: {} to {} are corrupt", gap.first.0, gap.last.0));
        }
    }
    for (lane, owed) in &debt.lanes {
        let there = found.remove(lane).unwrap_or_default();
        let lost: Vec<_> = owed.kept.iter().filter(|(seq, row)| !same_epoch || there.get(seq) != Some(row)).collect();
        if let (Some((seq, row)), Some((last, _))) = (lost.first(), lost.last()) {
            let what = format_args!(
                "lane {lane}: {} acknowledged rows, numbers {seq} (row {row}) to {last}, are not there",
                lost.len()
            );
            seen.find(Breach::Lost, what);
        }
        // Batches follow each other without a break, so only what lies before the first one needs a look.
        if let Some(first) = firsts.get(lane).filter(|first| same_epoch && **first > owed.released + 1) {
            let what = format_args!("lane {lane}: the queue begins at {first}, released is up to {}", owed.released);
            seen.find(Breach::Unaccounted, what);
        }
    }
    Ok(queue)
}

/// One more row in every lane: its number must be new.
async fn probe(life: &Arc<Life>, debt: &Debt, seen: &mut Inspection, same_epoch: bool) -> Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let words = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&words);
    let say: Say = Arc::new(move |word| heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(word));
    let mut probed = BTreeSet::new();
    while probed.len() < life.lanes() {
        let row = PROBE + NUMBER.fetch_add(1, Ordering::Relaxed);
        if probed.insert(Life::lane_of_row(row)) {
            life.put(row, &say).await?;
        }
    }
    let words = std::mem::take(&mut *words.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    for word in &words {
        if let Word::Issued { lane, seq } = word
            && same_epoch
            && debt.lanes.get(lane).is_some_and(|owed| *seq <= owed.issued)
        {
            seen.find(Breach::IssuedTwice, format_args!("lane {lane}: number {seq}"));
        }
    }
    seen.words.extend(words);
    Ok(())
}
