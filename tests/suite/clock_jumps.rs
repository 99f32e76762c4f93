//! Somebody sets the clock, or it was wrong from the start: order, numbers and identity do not care, and what rows believed
//! is put right once the clock is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use forebay::base::{BootId, Clock, ClockState, Name};
use forebay::outbox::{self, Batch, BatchLimits, Class, Envelope, Outbox, StreamKey};
use forebay::store::{self, Store, Tx};

/// When the first boot really began.
const TRUE_START_MS: i64 = 1_700_000_000_000;
const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// A machine whose wall clock is `error_ms` off.
#[derive(Debug)]
struct Machine {
    error_ms: AtomicI64,
    true_ms: AtomicI64,
    boot_ms: AtomicU64,
    boot: AtomicU8,
    state: AtomicU8,
}

impl Machine {
    fn wrong_by(error_ms: i64) -> Arc<Self> {
        let (boot_ms, boot, state) = (AtomicU64::new(5000), AtomicU8::new(1), AtomicU8::new(0));
        let true_ms = AtomicI64::new(TRUE_START_MS + 5000);
        Arc::new(Self { error_ms: AtomicI64::new(error_ms), true_ms, boot_ms, boot, state })
    }

    fn pass(&self, ms: u32) {
        self.true_ms.fetch_add(ms.into(), SeqCst);
        self.boot_ms.fetch_add(ms.into(), SeqCst);
    }

    fn set(&self, error_ms: i64, state: ClockState) {
        self.error_ms.store(error_ms, SeqCst);
        self.state.store(
            [ClockState::Unsynced, ClockState::Rtc, ClockState::Ntp].iter().position(|s| *s == state).unwrap() as u8,
            SeqCst,
        );
    }

    /// Off for an hour.
    fn reboot(&self, error_ms: i64) {
        self.true_ms.fetch_add(3_600_000, SeqCst);
        self.boot_ms.store(3000, SeqCst);
        self.boot.fetch_add(1, SeqCst);
        self.set(error_ms, ClockState::Unsynced);
    }
}

impl Clock for Machine {
    fn wall_ms(&self) -> i64 {
        self.true_ms.load(SeqCst) + self.error_ms.load(SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.boot_ms.load(SeqCst))
    }

    fn boot(&self) -> BootId {
        BootId([self.boot.load(SeqCst); 16])
    }

    fn state(&self) -> ClockState {
        [ClockState::Unsynced, ClockState::Rtc, ClockState::Ntp][usize::from(self.state.load(SeqCst))]
    }
}

struct Bench {
    store: Store,
    outbox: Outbox,
    machine: Arc<Machine>,
    opened: store::Opened,
}

fn open(folder: &Path, machine: &Arc<Machine>) -> Bench {
    let config = store::Config::at(folder);
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<Machine>::clone(machine)).unwrap();
    let outbox =
        Outbox::open(&outbox::Config::default(), &store, opened.epoch, Arc::<Machine>::clone(machine)).unwrap();
    Bench { store, outbox, machine: Arc::clone(machine), opened }
}

impl Bench {
    /// Rows that say when they really were made, in both streams by turns.
    async fn append(&self, rows: u64) {
        for n in 0..rows {
            self.machine.pass(1500);
            let class = if n % 2 == 0 { Class::Raw } else { Class::Verdict };
            let stream = self.outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap();
            let body = self.machine.true_ms.load(SeqCst).to_le_bytes().to_vec();
            let (outbox, envelope) = (self.outbox.clone(), Envelope { body, stamp: self.machine.stamp() });
            let work = move |tx: &Tx<'_>| outbox.append(tx, &stream, &envelope);
            self.store.writer().commit(10, work).await.unwrap();
        }
    }

    async fn drain(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        // Few rows at a time, so that the order across streams shows.
        while let Some(batch) = self.outbox.next_batch(&BatchLimits { rows: 1, bytes: 1 << 20 }, &[]).await.unwrap() {
            let (outbox, id) = (self.outbox.clone(), batch.id);
            self.store.writer().commit(10, move |tx| outbox.delete(tx, &id)).await.unwrap();
            batches.push(batch);
        }
        batches
    }

    fn close(self) {
        self.outbox.close().unwrap();
        self.store.close();
    }
}

#[tokio::test]
async fn order_numbers_and_epoch_outlive_every_jump_and_times_are_put_right() {
    for jump_ms in [-TRUE_START_MS, -10 * YEAR_MS, 3_600_000, 10 * YEAR_MS] {
        let folder = tempfile::tempdir().unwrap();
        // Wrong at start, wrong in another way while running, right in the end.
        let machine = Machine::wrong_by(jump_ms);
        let bench = open(folder.path(), &machine);
        let epoch = bench.opened.epoch;
        bench.append(6).await;
        machine.set(-jump_ms / 3, ClockState::Rtc);
        bench.append(6).await;
        bench.close();
        let bench = open(folder.path(), &machine);
        bench.append(6).await;
        machine.set(0, ClockState::Ntp);
        bench.append(6).await;
        bench.close();
        // The next boot has a wrong clock again, and it stays wrong.
        machine.reboot(jump_ms);
        let bench = open(folder.path(), &machine);
        assert_eq!((bench.opened.epoch, bench.opened.boot_no), (epoch, 2), "a clock is no reason for a new epoch");
        bench.append(6).await;

        let batches = bench.drain().await;
        let mut made = Vec::new();
        let mut next = [1, 1];
        for batch in &batches {
            assert_eq!(batch.epoch, epoch);
            let next = &mut next[usize::from(batch.stream.class == Class::Raw)];
            for row in &batch.rows {
                assert_eq!((row.seq.0, batch.gaps.len()), (*next, 0), "{jump_ms}");
                *next += 1;
                let true_ms = i64::from_le_bytes(row.body[..].try_into().unwrap());
                made.push(true_ms);
                let corrected_ms = match (row.stamp.state, row.offset_ms) {
                    (ClockState::Ntp, _) => row.stamp.wall_ms,
                    (_, Some(offset_ms)) => row.stamp.wall_ms + offset_ms,
                    // The last boot: nobody ever knew.
                    (_, None) => {
                        assert_eq!(row.stamp.boot, BootId([2; 16]), "{jump_ms}");
                        continue;
                    }
                };
                assert!((corrected_ms - true_ms).abs() <= 1000, "{jump_ms}: {corrected_ms} is not {true_ms}");
            }
        }
        assert_eq!(next, [16, 16], "every row, once");
        assert!(made.is_sorted(), "{jump_ms}: the oldest first, whatever its clock said");
        bench.close();
    }
}
