//! Rows and the sets of received numbers, in one transaction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{try_join, try_join3};
use tokio_postgres::Transaction;

use crate::base::{Epoch, Name};
use crate::inbox::apply::Applied;
use crate::inbox::batch::{IncomingBatch, VerifiedBatch};
use crate::inbox::metrics::Metrics;
use crate::inbox::ranges::Ranges;

use super::config::WarehouseConfig;
use super::connection::{Pool, Prepared, TlsFiles, WarehouseError, failed};
use super::schema;

/// One batch and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The customer or site.
    pub tenant: &'a Name,
    /// The sender.
    pub gateway: &'a Name,
    /// What it sent.
    pub batch: &'a VerifiedBatch,
}

/// A message that cannot be read, for a person to look at.
#[derive(Debug, Clone)]
pub struct Reject {
    /// When it came, milliseconds since 1970.
    pub wall_ms: i64,
    /// Where it was published.
    pub topic: String,
    /// Why it is not believed.
    pub reason: String,
    /// Its bytes.
    pub size_bytes: usize,
    /// What is kept of it.
    pub payload: Vec<u8>,
    /// How many such messages are kept; the oldest goes first.
    pub most: u32,
}

/// The inbox in PostgreSQL.
pub struct Warehouse {
    pub(super) pool: Pool,
    metrics: Metrics,
}

/// (tenant, gateway, epoch, class, stream)
type Key<'a> = (&'a str, &'a str, Epoch, &'a str, &'a str);

/// What is known and to be written of one series.
struct Series {
    no: i64,
    before: Ranges,
    received: Ranges,
    declared: Ranges,
    highest: u64,
    duplicates: u64,
}

impl Warehouse {
    /// Checks the settings; connects and makes the tables when first used.
    pub fn new(config: WarehouseConfig, tls: Option<TlsFiles>) -> Result<Self, WarehouseError> {
        Ok(Self { pool: Pool::new(config, tls)?, metrics: Metrics::default() })
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stores what is new in the batches, in one transaction, and says what became of each. An error means that
    /// nothing of it counts, also when the fate of the COMMIT is unknown: send all of it again.
    pub async fn keep(&self, batches: &[Incoming<'_>], rejects: &[Reject]) -> Result<Vec<Applied>, WarehouseError> {
        let mut lease = self.pool.lease().await?;
        let limit_ms = self.pool.config().transaction_timeout_ms;
        let connection = &mut lease.connection;
        let kept = async {
            let prepared = &connection.prepared;
            let tx = connection.client.transaction().await.map_err(failed("begin"))?;
            let applied = apply(&tx, prepared, batches, self.pool.config().max_series).await?;
            for reject in rejects {
                put_aside(&tx, reject).await?;
            }
            tx.commit().await.map_err(failed("commit"))?;
            Ok(applied)
        };
        // A half-open line answers nothing, whatever the server's own limit is.
        let kept = tokio::time::timeout(Duration::from_millis(limit_ms), kept).await;
        let applied = kept.unwrap_or(Err(WarehouseError::Late { what: "keep a batch", limit_ms }))?;
        self.pool.give_back(lease);
        for applied in &applied {
            match applied {
                Applied::Stored { new_rows, duplicates, newly_lost } => {
                    self.metrics.rows.inc_by(*new_rows);
                    self.metrics.duplicates.inc_by(*duplicates);
                    self.metrics.declared_lost.inc_by(*newly_lost);
                }
                Applied::TooManySeries => drop(self.metrics.refused.inc()),
            }
        }
        Ok(applied)
    }
}

fn key<'a>(incoming: &Incoming<'a>) -> Key<'a> {
    let batch = &incoming.batch.0;
    (incoming.tenant.as_str(), incoming.gateway.as_str(), batch.epoch, &batch.class, batch.stream.as_str())
}

async fn apply(
    tx: &Transaction<'_>,
    prepared: &Prepared,
    batches: &[Incoming<'_>],
    max_series: u64,
) -> Result<Vec<Applied>, WarehouseError> {
    // Sorted: every collector takes the locks in this order.
    let mut wanted: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
    for (at, incoming) in batches.iter().enumerate() {
        wanted.entry(key(incoming)).or_default().push(at);
    }
    let numbers = series_numbers(tx, prepared, &wanted, max_series).await?;
    let known: Vec<i64> = numbers.iter().flatten().copied().collect();
    tx.query(&prepared.lock, &[&known]).await.map_err(failed("lock the series"))?;

    let mut state = read(tx, prepared, batches, &wanted, &numbers).await?;
    let mut outcome = vec![Applied::TooManySeries; batches.len()];
    let (mut rows, mut gaps) = (RowColumns::default(), GapColumns::default());
    for ((_, members), no) in wanted.iter().zip(&numbers) {
        let Some(series) = no.and_then(|no| state.get_mut(&no)) else { continue };
        for at in members {
            outcome[*at] = series.take(&batches[*at].batch.0, &mut rows, &mut gaps);
        }
    }
    write(tx, prepared, &state, &rows, &gaps).await?;
    Ok(outcome)
}

impl Series {
    /// Settles what of `batch` is new, and remembers what has to be written for it.
    fn take<'a>(&mut self, batch: &'a IncomingBatch, rows: &mut RowColumns<'a>, gaps: &mut GapColumns<'a>) -> Applied {
        let mut new_rows = 0;
        for row in batch.rows.iter().filter(|row| !self.received.contains(row.seq.0)).collect::<Vec<_>>() {
            self.received.insert(row.seq.0, row.seq.0);
            rows.no.push(self.no);
            rows.seq.push(row.seq.0.cast_signed());
            rows.wall_ms.push(row.wall_ms);
            rows.boot_ms.push(row.boot_ms.cast_signed());
            rows.clock_state.push(row.clock_state);
            rows.body.push(&row.body);
            new_rows += 1;
        }
        let mut newly_lost = 0;
        for gap in &batch.gaps {
            for (from, to) in self.declared.absent(gap.first.0, gap.last.0) {
                newly_lost += self.received.absent(from, to).iter().map(|(a, b)| b - a + 1).sum::<u64>();
            }
            self.declared.insert(gap.first.0, gap.last.0);
            gaps.no.push(self.no);
            gaps.first.push(gap.first.0.cast_signed());
            gaps.last.push(gap.last.0.cast_signed());
            gaps.count.push(i64::try_from(gap.count).unwrap_or(i64::MAX));
            gaps.reason.push(text(&gap.reason));
            gaps.wall_ms.push(gap.wall_ms);
        }
        let duplicates = batch.rows.len() as u64 - new_rows;
        self.duplicates += duplicates;
        self.highest = self.highest.max(batch.complete_to());
        Applied::Stored { new_rows, duplicates, newly_lost }
    }
}

/// The number of each wanted series, made if it does not exist and there is room.
async fn series_numbers(
    tx: &Transaction<'_>,
    prepared: &Prepared,
    wanted: &BTreeMap<Key<'_>, Vec<usize>>,
    max_series: u64,
) -> Result<Vec<Option<i64>>, WarehouseError> {
    let failed = failed("find the series");
    let columns = KeyColumns::of(wanted.keys());
    let mut numbers = vec![None; wanted.len()];
    find(tx, prepared, &columns, &mut numbers).await?;
    let missing = numbers.iter().filter(|no| no.is_none()).count() as u64;
    if missing == 0 {
        return Ok(numbers);
    }
    let count: i64 = tx.query_one(&prepared.count, &[]).await.map_err(&failed)?.get(0);
    let room = max_series.saturating_sub(count.cast_unsigned());
    let absent = wanted.keys().zip(&numbers).filter(|(_, no)| no.is_none()).map(|(key, _)| key);
    let new = KeyColumns::of(absent.take(usize::try_from(room).unwrap_or(usize::MAX)));
    tx.execute(&prepared.create, &[&new.tenant, &new.gateway, &new.epoch, &new.class, &new.stream])
        .await
        .map_err(&failed)?;
    find(tx, prepared, &columns, &mut numbers).await?;
    Ok(numbers)
}

async fn find(
    tx: &Transaction<'_>,
    prepared: &Prepared,
    keys: &KeyColumns<'_>,
    numbers: &mut [Option<i64>],
) -> Result<(), WarehouseError> {
    let found = tx
        .query(&prepared.find, &[&keys.tenant, &keys.gateway, &keys.epoch, &keys.class, &keys.stream])
        .await
        .map_err(failed("find the series"))?;
    for row in found {
        let at = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        if let Some(number) = numbers.get_mut(at) {
            *number = Some(row.get(1));
        }
    }
    Ok(())
}

/// What the tables know of the series, as far as the batches touch it.
async fn read(
    tx: &Transaction<'_>,
    prepared: &Prepared,
    batches: &[Incoming<'_>],
    wanted: &BTreeMap<Key<'_>, Vec<usize>>,
    numbers: &[Option<i64>],
) -> Result<BTreeMap<i64, Series>, WarehouseError> {
    let (mut nos, mut firsts, mut upto) = (Vec::new(), Vec::new(), Vec::new());
    let (mut gap_nos, mut gap_firsts, mut gap_lasts) = (Vec::new(), Vec::new(), Vec::new());
    let mut state = BTreeMap::new();
    for (members, no) in wanted.values().zip(numbers) {
        let Some(no) = *no else { continue };
        let mut span: Option<(u64, u64)> = None;
        let mut with_gaps = false;
        for batch in members.iter().map(|at| &batches[*at].batch.0) {
            let (first, last) = span.unwrap_or((batch.first.0, batch.last.0));
            span = Some((first.min(batch.first.0), last.max(batch.last.0)));
            with_gaps |= !batch.gaps.is_empty();
        }
        let Some((first, last)) = span else { continue };
        let (first, last) = (first.cast_signed(), last.cast_signed());
        nos.push(no);
        firsts.push(first);
        upto.push(last.saturating_add(1));
        if with_gaps {
            gap_nos.push(no);
            gap_firsts.push(first);
            gap_lasts.push(last);
        }
        let (before, received, declared) = <(Ranges, Ranges, Ranges)>::default();
        state.insert(no, Series { no, before, received, declared, highest: 0, duplicates: 0 });
    }
    let failed = failed("read what was received");
    let no_gaps = gap_nos.is_empty();
    let ranges = tx.query(&prepared.ranges, &[&nos, &firsts, &upto]).await.map_err(&failed)?;
    for row in ranges {
        if let Some(series) = state.get_mut(&row.get(0)) {
            series.before.insert(row.get::<_, i64>(1).cast_unsigned(), row.get::<_, i64>(2).cast_unsigned());
        }
    }
    for series in state.values_mut() {
        series.received = series.before.clone();
    }
    if !no_gaps {
        let declared = tx.query(&prepared.declared, &[&gap_nos, &gap_firsts, &gap_lasts]).await.map_err(&failed)?;
        for row in declared {
            if let Some(series) = state.get_mut(&row.get(0)) {
                series.declared.insert(row.get::<_, i64>(1).cast_unsigned(), row.get::<_, i64>(2).cast_unsigned());
            }
        }
    }
    Ok(state)
}

/// Everything at once: the statements do not depend on each other, so the line carries them together.
async fn write(
    tx: &Transaction<'_>,
    prepared: &Prepared,
    state: &BTreeMap<i64, Series>,
    rows: &RowColumns<'_>,
    gaps: &GapColumns<'_>,
) -> Result<(), WarehouseError> {
    let failed = failed("write rows");
    let (mut gone_no, mut gone_first) = (Vec::new(), Vec::new());
    let (mut put_no, mut put_first, mut put_last) = (Vec::new(), Vec::new(), Vec::new());
    let (mut nos, mut highest, mut duplicates) = (Vec::new(), Vec::new(), Vec::new());
    for series in state.values() {
        let (before, after) = (series.before.pairs(), series.received.pairs());
        for (first, _) in before.iter().filter(|old| !after.iter().any(|new| new.0 == old.0)) {
            gone_no.push(series.no);
            gone_first.push(first.cast_signed());
        }
        for (first, last) in after.iter().filter(|new| !before.contains(new)) {
            put_no.push(series.no);
            put_first.push(first.cast_signed());
            put_last.push(last.cast_signed());
        }
        nos.push(series.no);
        highest.push(series.highest.cast_signed());
        duplicates.push(series.duplicates.cast_signed());
    }
    let insert = async {
        if rows.no.is_empty() {
            return Ok(0);
        }
        let columns: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&rows.no, &rows.seq, &rows.wall_ms, &rows.boot_ms, &rows.clock_state, &rows.body];
        tx.execute(&prepared.insert_rows, &columns).await
    };
    let ranges = async {
        // The old one may begin where a new one does, so the order matters.
        if !gone_no.is_empty() {
            tx.execute(&prepared.delete_ranges, &[&gone_no, &gone_first]).await?;
        }
        if put_no.is_empty() {
            return Ok(0);
        }
        tx.execute(&prepared.put_ranges, &[&put_no, &put_first, &put_last]).await
    };
    let declare = async {
        if gaps.no.is_empty() {
            return Ok(0);
        }
        let columns: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&gaps.no, &gaps.first, &gaps.last, &gaps.count, &gaps.reason, &gaps.wall_ms];
        tx.execute(&prepared.declare, &columns).await
    };
    let update = async { tx.execute(&prepared.update_series, &[&nos, &highest, &duplicates]).await };
    try_join(try_join3(insert, ranges, declare), update).await.map_err(&failed)?;
    Ok(())
}

async fn put_aside(tx: &Transaction<'_>, reject: &Reject) -> Result<(), WarehouseError> {
    let failed = failed("put a message aside");
    let size_bytes = i64::try_from(reject.size_bytes).unwrap_or(i64::MAX);
    let (topic, reason) = (text(&reject.topic), text(&reject.reason));
    tx.execute(schema::REJECT, &[&reject.wall_ms, &topic, &reason, &size_bytes, &reject.payload])
        .await
        .map_err(&failed)?;
    tx.execute(schema::FORGET_REJECTED, &[&i64::from(reject.most)]).await.map_err(&failed)?;
    Ok(())
}

/// PostgreSQL's text takes no NUL.
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[derive(Default)]
struct RowColumns<'a> {
    no: Vec<i64>,
    seq: Vec<i64>,
    wall_ms: Vec<i64>,
    boot_ms: Vec<i64>,
    clock_state: Vec<&'static str>,
    body: Vec<&'a [u8]>,
}

#[derive(Default)]
struct GapColumns<'a> {
    no: Vec<i64>,
    first: Vec<i64>,
    last: Vec<i64>,
    count: Vec<i64>,
    reason: Vec<Cow<'a, str>>,
    wall_ms: Vec<i64>,
}

struct KeyColumns<'a> {
    tenant: Vec<&'a str>,
    gateway: Vec<&'a str>,
    epoch: Vec<i64>,
    class: Vec<&'a str>,
    stream: Vec<&'a str>,
}

impl<'a> KeyColumns<'a> {
    fn of<'k>(keys: impl Iterator<Item = &'k Key<'a>>) -> Self
    where
        'a: 'k,
    {
        let (tenant, gateway, epoch, class, stream) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let mut columns = Self { tenant, gateway, epoch, class, stream };
        for (tenant, gateway, epoch, class, stream) in keys {
            columns.tenant.push(*tenant);
            columns.gateway.push(*gateway);
            columns.epoch.push(epoch.0.cast_signed());
            columns.class.push(*class);
            columns.stream.push(*stream);
        }
        columns
    }
}
