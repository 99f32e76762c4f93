//! One flipped bit in any page of the file: the process starts, a wrong row is never served, and if the file cannot be
//! used on, the next start begins a new epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, Epoch, ManualClock, Name};
use forebay::outbox::{self, BatchLimits, Class, Envelope, GapReason, Outbox, StreamKey};
use forebay::store::{self, Store, Tx};
use rand::{Rng, SeedableRng};

const ROWS: u64 = 60;

fn open(folder: &Path) -> (Store, Option<Outbox>, Epoch, bool) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let config = store::Config::at(folder);
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock))
        .unwrap_or_else(|error| panic!("the store must open: {error:?}"));
    let pack = outbox::PackConfig { block_rows: 16, ..outbox::PackConfig::default() };
    let config = outbox::Config { pack, ..outbox::Config::default() };
    let outbox = Outbox::open(&config, &store, opened.epoch, clock);
    if let Err(error) = &outbox {
        assert!(error.is_corruption(), "{error:?}");
    }
    let outbox = outbox.ok();
    (store, outbox, opened.epoch, opened.quarantined.is_some())
}

fn body(class: Class, seq: u64) -> Vec<u8> {
    format!("{} {seq} ", class.as_str()).repeat(20).into_bytes()
}

async fn fill(folder: &Path) {
    let (store, outbox, _, _) = open(folder);
    let outbox = outbox.unwrap();
    let stamp = ManualClock::at(1_700_000_000_000).stamp();
    for class in [Class::Alarm, Class::Raw] {
        let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap();
        // Half of the rows in blocks, because they come together, and the rest single.
        for numbers in std::iter::once(1..=ROWS / 2).chain((ROWS / 2 + 1..=ROWS).map(|seq| seq..=seq)) {
            let outbox = outbox.clone();
            let work = move |tx: &Tx<'_>| {
                numbers.into_iter().try_for_each(|seq| {
                    let envelope = Envelope { body: body(class, seq), stamp };
                    outbox.append(tx, &stream, &envelope).map(|given| assert_eq!(given.0, seq))
                })
            };
            store.writer().commit(1, work).await.unwrap();
        }
    }
    outbox.close().unwrap();
    store.close();
}

/// Everything the queue serves, checked. False if the file cannot be used on.
async fn drain(store: &Store, outbox: &Outbox, what: &str) -> bool {
    let mut accounted: BTreeMap<Class, u64> = BTreeMap::new();
    for _ in 0..2 * ROWS {
        let batch = match outbox.next_batch(&BatchLimits { rows: 10, bytes: 1 << 20 }, &[]).await {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                for (class, numbers) in accounted {
                    assert!(numbers >= ROWS, "{what}: {} has numbers that nobody accounts for", class.as_str());
                }
                return true;
            }
            Err(error) => {
                assert!(error.is_corruption(), "{what}: {error:?}");
                return false;
            }
        };
        for row in &batch.rows {
            assert_eq!(row.body, body(batch.stream.class, row.seq.0), "{what}: a wrong row was served");
        }
        for gap in &batch.gaps {
            assert!(gap.reason != GapReason::Rollback, "{what}: nothing failed");
        }
        accounted.insert(batch.stream.class, batch.last.0);
        let outbox = outbox.clone();
        if store.writer().commit(1, move |tx| outbox.delete(tx, &batch.id)).await.is_err() {
            return false;
        }
    }
    panic!("{what}: the queue never ends");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_never_served_and_never_stops_the_process() {
    let original = tempfile::tempdir().unwrap();
    fill(original.path()).await;
    let bytes = std::fs::read(original.path().join("forebay.db")).unwrap();
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let (mut used_on, mut began_anew) = (0, 0);
    for page in 0..bytes.len() / 4096 {
        // A page's first bytes hold its structure, where a flip hurts most.
        for reach in [12, 12, 4096] {
            let folder = tempfile::tempdir().unwrap();
            let (at, bit) = (page * 4096 + rng.random_range(0..reach), rng.random_range(0..8));
            let what = format!("bit {bit} of byte {at}");
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1 << bit;
            std::fs::write(folder.path().join("forebay.db"), spoiled).unwrap();
            std::fs::copy(original.path().join("epoch"), folder.path().join("epoch")).unwrap();
            let (store, outbox, epoch, quarantined) = open(folder.path());
            let usable = match &outbox {
                Some(outbox) => drain(&store, outbox, &what).await,
                None => false,
            };
            drop(outbox);
            store.close();
            if usable && !quarantined {
                used_on += 1;
                continue;
            }
            began_anew += 1;
            let (store, outbox, next, _) = open(folder.path());
            assert!(quarantined || next > epoch, "{what}: a file that cannot be used on must be set aside");
            let outbox = outbox.unwrap_or_else(|| panic!("{what}: the second start must work"));
            assert!(drain(&store, &outbox, &what).await, "{what}: after the second start");
        }
    }
    assert!(used_on > 20 && began_anew > 5, "{used_on} used on, {began_anew} began anew: the flips hit nothing");
}
