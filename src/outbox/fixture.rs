//! An outbox on a real file, for this room's tests.

use std::sync::Arc;

use super::{Batch, BatchLimits, Class, Config, Envelope, Outbox, SCHEMA, StreamHandle, StreamKey};
use crate::base::{Clock as _, ManualClock, Name};
use crate::store::{self, Store, Tx};

pub(super) const LIMITS: BatchLimits = BatchLimits { rows: 100, bytes: 1 << 20 };

pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) outbox: Outbox,
    pub(super) clock: Arc<ManualClock>,
}

pub(super) fn open(folder: &tempfile::TempDir) -> Bench {
    open_with(folder, &Config::default())
}

pub(super) fn open_with(folder: &tempfile::TempDir, config: &Config) -> Bench {
    open_at(folder, config, std::time::Duration::from_secs(1))
}

pub(super) fn open_at(folder: &tempfile::TempDir, config: &Config, since_boot: std::time::Duration) -> Bench {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    clock.advance(since_boot);
    let limits = store::Config::at(folder.path());
    let (store, opened) = Store::open(&limits, &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
    let outbox = Outbox::open(config, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
    Bench { store, outbox, clock }
}

pub(super) fn key(name: &str, class: Class) -> StreamKey {
    StreamKey::new(Name::new(name).unwrap(), class)
}

impl Bench {
    pub(super) fn stream(&self, name: &str, class: Class) -> StreamHandle {
        self.outbox.stream(key(name, class)).unwrap()
    }

    pub(super) async fn append(&self, stream: StreamHandle, bodies: &[&str]) {
        let (outbox, stamp) = (self.outbox.clone(), self.clock.stamp());
        let bodies: Vec<Vec<u8>> = bodies.iter().map(|body| body.as_bytes().to_vec()).collect();
        let work = move |tx: &Tx<'_>| {
            bodies.into_iter().try_for_each(|body| outbox.append(tx, &stream, &Envelope { body, stamp }).map(drop))
        };
        self.store.writer().commit(100, work).await.unwrap();
    }

    pub(super) async fn next(&self) -> Option<Batch> {
        self.outbox.next_batch(&LIMITS, &[]).await.unwrap()
    }

    pub(super) async fn delete(&self, batch: &Batch) {
        let (outbox, id) = (self.outbox.clone(), batch.id);
        self.store.writer().commit(0, move |tx| outbox.delete(tx, &id)).await.unwrap();
    }
}

pub(super) fn bodies(batch: &Batch) -> Vec<&str> {
    batch.rows.iter().map(|row| std::str::from_utf8(&row.body).unwrap()).collect()
}

/// First, last, count and reason of each ledger entry that travels with the batch.
pub(super) fn gaps(batch: &Batch) -> Vec<(u64, u64, u64, &'static str)> {
    batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason.as_str())).collect()
}
