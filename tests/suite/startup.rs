//! A start reads the same few pages whatever waits in the queues: counted in bytes asked of the disk, not in time.

use std::path::Path;
use std::sync::Arc;

use forebay::base::{ManualClock, Name};
use forebay::broker::{self, Broker, Hello, Leaving, Options, Qos, Subscribe};
use forebay::history::{self, Reading, StreamNo};
use forebay::outbox::{self, Class, Outbox, StreamKey};
use forebay::store::{self, Disk, Schema, Store, Tx, Watch};

const SCHEMAS: [Schema; 3] = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA];

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_700_000_000_000))
}

async fn start(folder: &Path, watch: &Arc<Watch>) -> (Store, Outbox, Broker) {
    let disk = Disk::watched(watch).unwrap();
    let config = store::Config { disk, max_bytes: 4 << 30, ..store::Config::at(folder) };
    let (store, opened) = Store::open(&config, &SCHEMAS, clock()).unwrap();
    let outbox = Outbox::open(&outbox::Config::default(), &store, opened.epoch, clock()).unwrap();
    let broker = Broker::open(broker::Config::default(), &store, clock()).await.unwrap();
    (store, outbox, broker)
}

/// A stream with `rows` waiting, and a session with as many queued messages.
async fn fill(folder: &Path, rows: i64) {
    let (store, outbox, broker) = start(folder, &Arc::new(Watch::default())).await;
    outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
    let hello = Hello {
        client: "keeper".into(),
        owner: "tester".into(),
        clean_start: false,
        expiry_s: u32::MAX,
        will: None,
        receive_maximum: 10,
    };
    let mut link = broker.connect(hello).await.unwrap().link;
    let options = Options::at(Qos::AtLeastOnce);
    link.subscribe(vec![Subscribe { filter: "t".into(), options }]).await.unwrap();
    link.leave(Leaving::Normal, None);
    drop(broker);
    outbox.close().unwrap();
    let insert = move |tx: &Tx<'_>| {
        let (no,): (i64,) = tx.query_row("SELECT stream_no FROM outbox_stream", [], |row| Ok((row.get(0)?,)))?;
        let (session,): (i64,) = tx.query_row("SELECT no FROM broker_session", [], |row| Ok((row.get(0)?,)))?;
        let numbers = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)";
        tx.execute(
            &format!("{numbers} INSERT INTO outbox_row SELECT ?2, n, 0, n, 1, 2, 0, zeroblob(60) FROM number"),
            (rows, no),
        )?;
        tx.execute(
            "UPDATE outbox_stream SET reserved = ?1, counted = ?1, bytes = 114 * ?1,
             crc = row_crc('outbox_stream', stream_no, class, name, ?1, settled, 114 * ?1, ?1, flat_until, flat_bytes,
             epoch, salvage) WHERE stream_no = ?2",
            (rows, no),
        )?;
        tx.execute(
            &format!(
                "{numbers} INSERT INTO broker_queue (place, session, packet_id, qos, retain, topic, payload, crc, boot_no)
                 SELECT (?2 << 32) + n, ?2, n % 65535 + 1, 1, 0, 't', zeroblob(20), 0, 1 FROM number"
            ),
            (rows, session),
        )
    };
    store.writer().commit_blocking(insert).unwrap();
    store.close();
}

#[tokio::test]
async fn a_start_reads_as_much_with_three_hundred_thousand_rows_as_with_a_thousand() {
    let mut read = Vec::new();
    for rows in [1000, 30_000, 300_000] {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), rows).await;
        let watch = Arc::new(Watch::default());
        let (store, outbox, broker) = start(folder.path(), &watch).await;
        read.push(watch.read_bytes());
        assert_eq!(outbox.depth()[0].1, rows.cast_unsigned());
        drop((outbox, broker));
        store.close();
    }
    eprintln!("a start reads {read:?} bytes");
    // A tree of more rows is two levels deeper; each look-up goes down once.
    assert!(read[2] - read[0] < 40 * 4096 && read[2] < 1 << 20, "{read:?} bytes");
}

/// A new reader asks for what `count` of 50 streams need to go on; bytes asked of the disk for that.
async fn read_for(folder: &Path, count: usize) -> u64 {
    let watch = Arc::new(Watch::default());
    let config = store::Config { disk: Disk::watched(&watch).unwrap(), ..store::Config::at(folder) };
    let (store, _) = Store::open(&config, &[history::SCHEMA], clock()).unwrap();
    let before = watch.read_bytes();
    let reader = store.reader();
    let given = reader.read(move |conn| {
        let mut streams = conn.prepare("SELECT no FROM history_stream ORDER BY no")?;
        let numbers: Vec<i64> = streams.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let since = |no: i64| history::Since { stream: StreamNo(no), first: 390, before: 390, count: 8 };
        history::since(conn, &numbers.into_iter().take(count).map(since).collect::<Vec<_>>())
    });
    let given = given.await.unwrap();
    assert!(given.len() == count && given.iter().all(|readings| readings.len() == 19), "382 to 400 of each");
    let read = watch.read_bytes() - before;
    store.close();
    read
}

#[tokio::test]
async fn fifty_streams_are_found_again_in_one_pass_over_what_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&store::Config::at(folder.path()), &[history::SCHEMA], clock()).unwrap();
    let history = history::History::new(history::Config::default()).in_file_of(store.insert_bytes());
    for value in 0..400_u32 {
        let history = history.clone();
        let arrive = move |tx: &Tx<'_>| {
            (0..50).try_for_each(|stream| {
                let stream = history.stream(tx, &format!("s{stream}"))?;
                let (values, time_ms) = (vec![f64::from(value)], i64::from(value));
                let reading =
                    Reading { seq: 0, time_ms, id: None, values, score: None, expected: None, state: 0, extra: None };
                history.append(tx, stream, &reading).map(drop)
            })
        };
        store.writer().commit(1, arrive).await.unwrap();
    }
    let close = history.clone();
    store.writer().commit_blocking(move |tx| close.close(tx)).unwrap();
    store.close();
    let (one, all) = (read_for(folder.path(), 1).await, read_for(folder.path(), 50).await);
    eprintln!("one stream: {one} bytes, fifty: {all} bytes");
    assert!(one > 1 << 16 && all < 2 * one, "one stream: {one} bytes, fifty: {all} bytes");
}
