//! The inbox in a real PostgreSQL: one effect whoever brings a batch, however often, and at the same time as whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use forebay::base::{Clock, ManualClock, Stamp};
use forebay::flows::{Arrival, Batch, Effect, InboxSink, Rejects, Row, Sink, WarehouseSink};
use forebay::inbox::{self, TlsFiles, Warehouse, WarehouseConfig};
use forebay::uplink::{TlsConfig, client_tls};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::fleet::{Collector, clock, name};
use crate::link_mqtt::Authority;
use crate::postgres::Postgres;

fn stamp() -> Stamp {
    ManualClock::at(1_700_000_000_000).stamp()
}

fn sink(config: WarehouseConfig) -> (Arc<Warehouse>, WarehouseSink) {
    let warehouse = Arc::new(Warehouse::new(config, None).unwrap());
    let sink = WarehouseSink::new(Arc::clone(&warehouse), inbox::Config::default(), clock(), Rejects::default());
    (warehouse, sink)
}

/// A batch of some rows of [first, last] and the gaps that its ledger declares.
fn batch(gateway: &str, stream: &str, first: u64, last: u64, rows: &BTreeSet<u64>, gaps: &[(u64, u64)]) -> Arrival {
    use forebay::base::{Epoch, Seq};
    use forebay::flows::Gap;
    let row = |seq: &u64| Row {
        seq: Seq(*seq),
        stamp: stamp(),
        offset_ms: None,
        body: Bytes::from(format!("{gateway}/{stream}/{seq}")),
    };
    let gap = |(first, last): &(u64, u64)| Gap {
        first: Seq(*first),
        last: Seq(*last),
        count: last - first + 1,
        reason: "expired".to_owned(),
        wall_ms: 5,
    };
    let batch = Batch {
        gateway: name(gateway),
        epoch: Epoch(7),
        stream: name(stream),
        class: name("raw"),
        first: Seq(first),
        last: Seq(last),
        rows: rows.range(first..=last).map(row).collect(),
        gaps: gaps.iter().map(gap).collect(),
        ahead: None,
    };
    let topic = format!("fleet/v1/acme/{gateway}/raw/{stream}");
    Arrival::read(topic, Bytes::from(batch.encode()), &inbox::Config::default())
}

/// Overlapping, repeated, shuffled batches over a few series; numbers 40-59 are lost, 90-99 are nowhere.
fn story(rng: &mut StdRng) -> Vec<Arrival> {
    let present: BTreeSet<u64> = (1..=200).filter(|seq| !(40..60).contains(seq) && !(90..100).contains(seq)).collect();
    let mut arrivals = Vec::new();
    for gateway in ["press-7", "press.8"] {
        for stream in ["a", "b"] {
            for first in (1..=200).step_by(10) {
                let last = (first + rng.random_range(9..25)).min(200);
                let gaps: &[_] = if first <= 40 && last >= 59 { &[(40, 59)] } else { &[] };
                arrivals.push(batch(gateway, stream, first, last, &present, gaps));
                if rng.random_bool(0.3) {
                    arrivals.push(batch(gateway, stream, first, last, &present, &[]));
                }
            }
            arrivals.push(batch(gateway, stream, 30, 70, &present, &[(40, 59)]));
        }
    }
    arrivals.shuffle(rng);
    arrivals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effect_is_exactly_once_when_collectors_get_overlapping_batches_at_the_same_time() {
    let server = Postgres::start();
    let mut rng = StdRng::seed_from_u64(1);
    let arrivals = story(&mut rng);
    // Three processes of two connections each, all with all of it, in different orders and transactions.
    let sinks: Vec<_> = (0..3).map(|_| sink(server.config())).collect();
    let mut tasks = Vec::new();
    for (at, (_, sink)) in sinks.iter().enumerate() {
        for part in 0..2 {
            let mut arrivals = arrivals.clone();
            arrivals.shuffle(&mut StdRng::seed_from_u64(at as u64 * 2 + part));
            let packs: Vec<Vec<Arrival>> = arrivals.chunks(7).map(<[_]>::to_vec).collect();
            let kept: Vec<_> = packs.into_iter().map(|pack| sink.keep(pack)).collect();
            tasks.push(tokio::spawn(async move {
                let mut new = 0;
                for kept in kept {
                    for effect in kept.await.unwrap() {
                        let Effect::Stored { rows, .. } = effect else { panic!("{effect:?}") };
                        new += rows;
                    }
                }
                new
            }));
        }
    }
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 4 * 170, "each row was new for exactly one of them");
    let bodies = server.bodies().await;
    assert_eq!(bodies.len(), 4 * 170);
    let different: BTreeSet<_> = bodies.iter().map(|row| &row.3).collect();
    assert_eq!(different.len(), bodies.len());
    let report = sinks[0].0.report(&name("acme"), 10).await.unwrap();
    assert_eq!(report.series.len(), 4);
    for series in &report.series {
        assert_eq!((series.received, series.declared_lost, series.missing), (170, 20, 10), "{series:?}");
        assert_eq!((series.missing_ranges[0].0.0, series.missing_ranges[0].1.0), (90, 99));
        assert_eq!((series.highest.0, series.readings_lost), (200, 20));
    }
    let ranges: i64 =
        server.client().await.query_one("SELECT count(*) FROM forebay_received", &[]).await.unwrap().get(0);
    assert_eq!(ranges, 4 * 3, "three ranges for each series, however they came");
    assert!(sinks[0].0.report(&name("other"), 10).await.unwrap().series.is_empty(), "of another tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_say_the_same_about_the_same_batches() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::open(folder.path());
    let small = InboxSink::new(collector.store.writer(), collector.inbox.clone(), clock(), Rejects::default());
    let (warehouse, large) = sink(server.config());
    let mut rng = StdRng::seed_from_u64(2);
    let mut arrivals = story(&mut rng);
    arrivals
        .insert(3, Arrival::read("fleet/v1/x".to_owned(), Bytes::from_static(b"\0\xff"), &inbox::Config::default()));
    for pack in arrivals.chunks(5) {
        let (small, large) = (small.keep(pack.to_vec()).await.unwrap(), large.keep(pack.to_vec()).await.unwrap());
        assert_eq!(small.len(), large.len());
        // Within one transaction PostgreSQL goes through the batches series by series.
        let sum = |effects: &[Effect]| {
            effects.iter().fold((0, 0, 0), |sum, effect| match effect {
                Effect::Stored { rows, duplicates } => (sum.0 + rows, sum.1 + duplicates, sum.2),
                Effect::Rejected | Effect::Refused => (sum.0, sum.1, sum.2 + 1),
            })
        };
        assert_eq!(sum(&small), sum(&large));
    }
    assert_eq!(collector.report().await, warehouse.report(&name("acme"), 100).await.unwrap());
    let bodies: Vec<_> = server.bodies().await;
    assert_eq!(collector.bodies().await, bodies);
    let rejected =
        server.client().await.query_one("SELECT topic, size_bytes FROM forebay_rejected", &[]).await.unwrap();
    assert_eq!((rejected.get::<_, &str>(0), rejected.get::<_, i64>(1)), ("fleet/v1/x", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_loses_nothing_that_was_kept_and_is_found_again() {
    let mut server = Postgres::start();
    let (warehouse, sink) = sink(server.config());
    let present: BTreeSet<u64> = (1..=100).collect();
    let pack = |first| vec![batch("press-7", "a", first, first + 9, &present, &[])];
    for round in 0..5 {
        assert_eq!(sink.keep(pack(round * 20 + 1)).await.unwrap(), [Effect::Stored { rows: 10, duplicates: 0 }]);
        server.kill();
        let lost = sink.keep(pack(round * 20 + 11)).await.unwrap_err();
        assert!(lost.starts_with("failed to "), "{lost}");
        server.restart();
        // The idle connection of before is known to be gone, or is found out once.
        let mut again = sink.keep(pack(round * 20 + 11)).await;
        for _ in 0..3 {
            if again.is_err() {
                again = sink.keep(pack(round * 20 + 11)).await;
            }
        }
        again.unwrap();
    }
    let report = warehouse.report(&name("acme"), 10).await.unwrap();
    assert_eq!((report.received(), report.missing()), (100, 0));
    assert_eq!(server.bodies().await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_beyond_the_limit_is_refused_and_the_others_go_on() {
    let server = Postgres::start();
    let (_, sink) = sink(WarehouseConfig { max_series: 2, ..server.config() });
    let present: BTreeSet<u64> = (1..=10).collect();
    let pack = |streams: &[&str]| streams.iter().map(|stream| batch("g", stream, 1, 10, &present, &[])).collect();
    let stored = Effect::Stored { rows: 10, duplicates: 0 };
    let again = Effect::Stored { rows: 0, duplicates: 10 };
    assert_eq!(sink.keep(pack(&["a", "b", "c"])).await.unwrap(), [stored, stored, Effect::Refused]);
    assert_eq!(sink.keep(pack(&["c", "a"])).await.unwrap(), [Effect::Refused, again]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_refuses_for_ever_is_put_aside_and_holds_nothing_up() {
    let server = Postgres::start();
    let (_, sink) = sink(server.config());
    sink.keep(Vec::new()).await.unwrap();
    let client = server.client().await;
    client.batch_execute("ALTER TABLE forebay_row ADD CHECK (seq <> 13)").await.unwrap();
    let present: BTreeSet<u64> = (1..=30).collect();
    let odd = "the ledger's word\0 with a NUL";
    let pack = [batch("g", "a", 1, 10, &present, &[]), batch("g", "a", 11, 20, &present, &[]), extreme(odd)];
    let stored = |rows| Effect::Stored { rows, duplicates: 0 };
    assert_eq!(sink.keep(pack.to_vec()).await.unwrap(), [stored(10), Effect::Rejected, stored(0)]);
    let aside = client.query_one("SELECT topic, reason, size_bytes FROM forebay_rejected", &[]).await.unwrap();
    assert_eq!(aside.get::<_, &str>(0), "fleet/v1/acme/g/raw/a");
    assert!(aside.get::<_, &str>(1).contains("check constraint"), "{}", aside.get::<_, &str>(1));
    assert!(aside.get::<_, i64>(2) > 100);
    let kept = client.query_one("SELECT first, last, count, reason FROM forebay_lost", &[]).await.unwrap();
    assert_eq!((kept.get::<_, i64>(1), kept.get::<_, i64>(2)), (i64::MAX, i64::MAX));
}

/// Numbers at the end of their range.
fn extreme(reason: &str) -> Arrival {
    use forebay::base::{Epoch, Seq};
    use forebay::flows::Gap;
    let last = Seq(i64::MAX.cast_unsigned());
    let gap = Gap { first: Seq(5), last, count: u64::MAX, reason: reason.to_owned(), wall_ms: i64::MIN };
    let (gateway, stream, class) = (name("g"), name("z"), name("raw"));
    let batch = Batch {
        gateway,
        epoch: Epoch(u64::MAX),
        stream,
        class,
        first: Seq(5),
        last,
        rows: vec![],
        gaps: vec![gap],
        ahead: None,
    };
    let payload = Bytes::from(batch.encode());
    Arrival::read("fleet/v1/acme/g/raw/z".to_owned(), payload, &inbox::Config::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_newer_tables_are_said_in_plain_words() {
    let server = Postgres::with("", "scram-sha-256");
    let secret = server.folder().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let config = WarehouseConfig { password_file: Some(secret.clone()), ..server.config() };
    let (_, mistaken) = sink(config.clone());
    let said = mistaken.keep(Vec::new()).await.unwrap_err();
    assert!(said.contains("password authentication failed"), "{said}");
    std::fs::write(&secret, "open sesame\n").unwrap();
    mistaken.keep(Vec::new()).await.unwrap();
    server.client().await.execute("INSERT INTO forebay_schema VALUES (99)", &[]).await.unwrap();
    let said = sink(config).1.keep(Vec::new()).await.unwrap_err();
    assert!(said.contains("they are at step 99"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate_carries_rows_and_strangers_are_turned_away() {
    let authority = Authority::new();
    authority.sign("server", &["db.example", "127.0.0.1"]);
    authority.sign("forebay", &["collector.example"]);
    let settings = "ssl=on\nssl_cert_file={folder}/server.pem\nssl_key_file={folder}/server.key\nssl_ca_file={folder}/ca.pem\n\
                    hba_file={folder}/hba.conf";
    let server = Postgres::with_files(settings, "trust", |folder| {
        for file in ["server.pem", "server.key", "ca.pem"] {
            std::fs::copy(authority.path(file), folder.join(file)).unwrap();
        }
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join("server.key"), owner_only).unwrap();
        std::fs::write(folder.join("hba.conf"), "hostssl all all 127.0.0.1/32 cert\n").unwrap();
    });
    let connect = |files: TlsConfig| {
        let files: TlsFiles = Arc::new(move || client_tls(&files, &clock()).map_err(|error| error.to_string()));
        Warehouse::new(server.config(), Some(files)).unwrap()
    };
    // The certificate's common name is the role's.
    let ours = connect(authority.client("forebay"));
    ours.keep(&[], &[]).await.unwrap();
    let plain = Warehouse::new(server.config(), None).unwrap();
    let said = plain.keep(&[], &[]).await.unwrap_err().to_string();
    assert!(said.contains("no pg_hba.conf entry"), "{said}");
    let without = TlsConfig { certificate_file: None, key_file: None, ..authority.client("forebay") };
    connect(without).keep(&[], &[]).await.unwrap_err();
    let stranger = Authority::new();
    let mistrusting = TlsConfig { ca_file: stranger.path("ca.pem"), ..authority.client("forebay") };
    let said = connect(mistrusting).keep(&[], &[]).await.unwrap_err().to_string();
    assert!(said.contains("certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_once_however_many_collectors_start_together() {
    let server = Postgres::start();
    let present: BTreeSet<u64> = (1..=10).collect();
    let sinks: Vec<_> = (0..4).map(|_| sink(server.config()).1).collect();
    let kept = sinks.iter().map(|sink| tokio::spawn(sink.keep(vec![batch("g", "a", 1, 10, &present, &[])])));
    for kept in kept.collect::<Vec<_>>() {
        kept.await.unwrap().unwrap();
    }
    assert_eq!(server.bodies().await.len(), 10);
}
