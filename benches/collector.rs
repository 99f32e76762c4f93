//! Rows per second out of a full JetStream stream into PostgreSQL and SQLite, beside bare loops that write the same rows
//! into the same server.
//!
//! `cargo bench --bench collector`: needs nats-server and PostgreSQL from Debian, starts its own on loopback.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]
#![allow(clippy::print_stderr, dead_code, reason = "the tests' servers")]

#[path = "../tests/suite/gateway.rs"]
mod gateway;
#[path = "../tests/suite/nats_server.rs"]
mod nats_server;
#[path = "../tests/suite/postgres.rs"]
mod postgres;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use forebay::base::{Clock, Epoch, ManualClock, Name, Seq, SystemClock};
use forebay::flows::{
    Batch, COLLECT_SCHEMA, CollectConfig, CollectStream, InboxSink, Rejects, Row, Sink, StreamBatch, WarehouseSink,
};
use forebay::inbox::{self, Inbox, Warehouse, WarehouseConfig};
use forebay::store::{self, Store};
use forebay::uplink::{StreamReceiver, StreamReceiverConfig};
use futures_util::SinkExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use crate::nats_server::NatsServer;
use crate::postgres::Postgres;

/// What the messages are like.
#[derive(Clone, Copy)]
struct Shape {
    gateways: usize,
    batches: usize,
    rows: usize,
    row_bytes: usize,
}

impl Shape {
    fn total(self) -> usize {
        self.gateways * self.batches * self.rows
    }

    /// Rows of one transaction of the bare loops: what the collector has in one.
    fn transaction(self) -> usize {
        64 * self.rows
    }
}

/// A backlog of readings.
const BACKLOG: Shape = Shape { gateways: 50, batches: 40, rows: 200, row_bytes: 200 };
/// What a fleet sends all day: one summary a message, hardly two of one stream.
const SUMMARIES: Shape = Shape { gateways: 5_000, batches: 4, rows: 1, row_bytes: 600 };

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    sizes().await;
    compare("readings of a backlog", BACKLOG).await;
    compare("summaries of a fleet", SUMMARIES).await;
}

async fn compare(what: &str, shape: Shape) {
    let Shape { gateways, rows, row_bytes, .. } = shape;
    println!("{what}: {} rows of {row_bytes} bytes, {rows} a message, {gateways} gateways", shape.total());
    println!("{:<52} {:>9} {:>11} {:>14} {:>7}", "", "rows/s", "own us/row", "server us/row", "ratio");
    let postgres = Postgres::start();
    let bare = bare_copy(&postgres, shape).await;
    row("bare COPY, same key and partitions", shape, &bare, &bare);
    row("bare INSERT FROM unnest", shape, &bare_insert(&postgres, shape).await, &bare);
    for (collectors, commits) in [(1, 1), (1, 2), (2, 1)] {
        let nats = full_stream(shape).await;
        let spent = into_postgres(&nats, &postgres, shape, collectors, commits).await;
        row(&format!("PostgreSQL: {collectors} collector(s), {commits} transaction(s) at once"), shape, &spent, &bare);
    }
    println!("  bytes in PostgreSQL for a row, with its index: {:.0}", size_of_rows(&postgres, shape).await);
    let nats = full_stream(shape).await;
    row("SQLite: 1 collector", shape, &into_sqlite(&nats, shape).await, &bare);
    let again = bare_copy(&postgres, shape).await;
    row("bare COPY again", shape, &again, &bare);
    println!();
}

async fn size_of_rows(server: &Postgres, shape: Shape) -> f64 {
    let sql = "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
               WHERE inhparent = 'forebay_row'::regclass";
    let bytes: i64 = server.client().await.query_one(sql, &[]).await.unwrap().get(0);
    bytes as f64 / shape.total() as f64
}

/// What a gateway with default settings sends for 4 x 2,048 noisy readings, each an own message with its subject.
async fn sizes() {
    use std::collections::BTreeMap;
    let nats = NatsServer::start();
    nats.stream().await;
    let gateway = gateway::Gateway::start(&format!(
        "[cloud]\nkind = \"nats\"\nport = {}\n[sync]\ntenant = \"acme\"\nacknowledged_by = \"broker\"\n{}",
        nats.port(),
        gateway::PRESS
    ));
    let (mut noise, mut json_bytes) = (1_u64, 0);
    for first in (0..8192).step_by(64) {
        let mut pack = Vec::new();
        for n in first..first + 64 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pack.push(format!(r#"{{"n":{n},"value":{:.3}}}"#, 70.0 + (noise >> 40) as f64 / 1e6));
        }
        json_bytes += pack.iter().map(String::len).sum::<usize>();
        let (status, answer) = gateway.post("/api/v1/streams/press/readings", &format!("[{}]", pack.join(",")));
        assert_eq!(status, 202, "{answer}");
    }
    gateway.wait_for("/api/v1/queue", |queue| queue["rows"] == 0);
    let client = async_nats::connect(format!("127.0.0.1:{}", nats.port())).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("FLEET").await.unwrap();
    let mut classes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for number in 1..=stream.cached_info().state.messages {
        let message = stream.get_raw_message(number).await.unwrap();
        let class = message.subject.split('.').nth(4).unwrap().to_owned();
        let sum = classes.entry(class).or_default();
        *sum = (sum.0 + 1, sum.1 + message.payload.len());
    }
    println!(
        "8192 readings, {json_bytes} bytes of JSON; stored by nats-server: {:?}",
        stream.cached_info().state.bytes
    );
    for (class, (messages, bytes)) in classes {
        println!("  {class}: {messages} messages, {bytes} bytes");
    }
    println!();
}

struct Spent {
    took: Duration,
    own: Duration,
    server: Duration,
}

fn row(what: &str, shape: Shape, spent: &Spent, bare: &Spent) {
    let total = shape.total() as f64;
    let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / total;
    println!(
        "{what:<52} {:>9.0} {:>11.2} {:>14.2} {:>7.2}",
        total / spent.took.as_secs_f64(),
        micros(spent.own),
        micros(spent.server),
        bare.took.as_secs_f64() / spent.took.as_secs_f64(),
    );
}

/// Runs `work` between two looks at the clocks.
async fn spend(server: Option<&Postgres>, work: impl Future<Output = ()>) -> Spent {
    let (began, own) = (Instant::now(), cpu_of(std::process::id()));
    let before = server.map(|server| cpu_of_children(server.pid())).unwrap_or_default();
    work.await;
    let took = began.elapsed();
    let after = server.map(|server| cpu_of_children(server.pid())).unwrap_or_default();
    Spent { took, own: cpu_of(std::process::id()) - own, server: after.saturating_sub(before) }
}

/// User and system time of a process, of all its threads.
fn cpu_of(pid: u32) -> Duration {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Of the processes that a process started and that still run, and of those that have ended.
fn cpu_of_children(parent: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ended: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let running = children.split_whitespace().map(|pid| cpu_of(pid.parse().unwrap())).sum::<Duration>();
    running + cpu_of(parent) + Duration::from_millis(ended * 10)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A server whose stream holds every batch of every gateway, those of different gateways between each other.
async fn full_stream(shape: Shape) -> NatsServer {
    let Shape { gateways, batches, rows: count, row_bytes } = shape;
    let server = NatsServer::start();
    server.stream().await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port())).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stamp = ManualClock::at(1_700_000_000_000).stamp();
    for number in 0..batches {
        let mut answers = VecDeque::new();
        for gateway in 0..gateways {
            let first = (number * count + 1) as u64;
            let rows = (first..first + count as u64).map(|seq| Row {
                seq: Seq(seq),
                stamp,
                offset_ms: None,
                body: Bytes::from(vec![b'x'; row_bytes]),
            });
            let batch = Batch {
                gateway: name(&format!("press-{gateway}")),
                epoch: Epoch(1),
                stream: name("temperature"),
                class: name("raw"),
                first: Seq(first),
                last: Seq(first + count as u64 - 1),
                rows: rows.collect(),
                gaps: Vec::new(),
                ahead: None,
            };
            let subject = format!("fleet.v1.acme.press-{gateway}.raw.temperature");
            answers.push_back(context.publish(subject, batch.encode().into()).await.unwrap());
            if answers.len() >= 128
                && let Some(oldest) = answers.pop_front()
            {
                oldest.await.unwrap();
            }
        }
        for answer in answers {
            answer.await.unwrap();
        }
    }
    server
}

async fn collect(nats: &NatsServer, shape: Shape, sinks: Vec<Arc<dyn Sink>>, commits: usize) {
    let stop = CancellationToken::new();
    let (mut tasks, mut metrics) = (tokio::task::JoinSet::new(), Vec::new());
    for (seed, sink) in (0..).zip(sinks) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let receiver = StreamReceiver::new(nats.link(), StreamReceiverConfig::default(), "bench", clock).unwrap();
        let batch = StreamBatch { commits, ..StreamBatch::default() };
        let flow = CollectStream::new(receiver, sink, batch, CollectConfig::default(), StdRng::seed_from_u64(seed));
        metrics.push(flow.metrics().clone());
        tasks.spawn(flow.run(stop.clone()));
    }
    while metrics.iter().map(|metrics| metrics.rows.get()).sum::<u64>() < shape.total() as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn into_postgres(nats: &NatsServer, server: &Postgres, shape: Shape, collectors: usize, commits: usize) -> Spent {
    let client = server.client().await;
    client
        .batch_execute(
            "DROP TABLE IF EXISTS forebay_schema, forebay_series, forebay_received, forebay_lost, forebay_row, \
             forebay_rejected; CHECKPOINT",
        )
        .await
        .unwrap();
    let config = WarehouseConfig { connections: commits, partitions: 16, ..server.config() };
    let sink = || -> Arc<dyn Sink> {
        let warehouse = Arc::new(Warehouse::new(config.clone(), None).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Arc::new(WarehouseSink::new(warehouse, inbox::Config::default(), clock, Rejects::default()))
    };
    let sinks: Vec<_> = (0..collectors).map(|_| sink()).collect();
    // The tables are made and the connection is there before the clock runs.
    sinks[0].keep(Vec::new()).await.unwrap();
    let spent = spend(Some(server), collect(nats, shape, sinks, commits)).await;
    let rows: i64 = client.query_one("SELECT count(*) FROM forebay_row", &[]).await.unwrap().get(0);
    assert_eq!(rows, shape.total() as i64);
    spent
}

async fn into_sqlite(nats: &NatsServer, shape: Shape) -> Spent {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = store::Config::at(folder.path());
    let (store, _) = Store::open(&config, &[inbox::SCHEMA, COLLECT_SCHEMA], Arc::clone(&clock)).unwrap();
    let inbox = Inbox::new(inbox::Config::default());
    let sink: Arc<dyn Sink> = Arc::new(InboxSink::new(store.writer(), inbox, clock, Rejects::default()));
    spend(None, collect(nats, shape, vec![sink], 2)).await
}

async fn bare_table(server: &Postgres) -> tokio_postgres::Client {
    let client = server.client().await;
    let mut text = "DROP TABLE IF EXISTS bare; CREATE TABLE bare (series_no bigint NOT NULL, seq bigint NOT NULL, \
        wall_ms bigint NOT NULL, boot_ms bigint NOT NULL, clock_state text NOT NULL, body bytea NOT NULL, \
        PRIMARY KEY (series_no, seq)) PARTITION BY HASH (series_no);"
        .to_owned();
    for part in 0..16 {
        text += &format!("CREATE TABLE bare_{part} PARTITION OF bare FOR VALUES WITH (MODULUS 16, REMAINDER {part});");
    }
    client.batch_execute(&(text + "CHECKPOINT")).await.unwrap();
    client
}

/// The rows in the order in which the collector gets them: (series, first number).
fn messages(shape: Shape) -> Vec<(i64, i64)> {
    let of = |number: usize| (0..shape.gateways).map(move |gateway| (gateway as i64, (number * shape.rows + 1) as i64));
    (0..shape.batches).flat_map(of).collect()
}

async fn bare_copy(server: &Postgres, shape: Shape) -> Spent {
    let client = bare_table(server).await;
    let messages = messages(shape);
    let work = async {
        for part in messages.chunks(shape.transaction() / shape.rows) {
            let mut bytes = BytesMut::new();
            bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
            bytes.put_i32(0);
            bytes.put_i32(0);
            for (series, first) in part {
                for seq in *first..first + shape.rows as i64 {
                    bytes.put_i16(6);
                    for number in [*series, seq, 1_700_000_000_000, 5] {
                        bytes.put_i32(8);
                        bytes.put_i64(number);
                    }
                    bytes.put_i32(3);
                    bytes.put_slice(b"ntp");
                    bytes.put_i32(shape.row_bytes as i32);
                    bytes.put_bytes(b'x', shape.row_bytes);
                }
            }
            bytes.put_i16(-1);
            let sink = client.copy_in("COPY bare FROM STDIN BINARY").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.as_mut().send(bytes.freeze()).await.unwrap();
            sink.as_mut().finish().await.unwrap();
        }
    };
    spend(Some(server), work).await
}

async fn bare_insert(server: &Postgres, shape: Shape) -> Spent {
    let client = bare_table(server).await;
    let sql = "INSERT INTO bare SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], \
               $5::text[], $6::bytea[])";
    let statement = client.prepare(sql).await.unwrap();
    let messages = messages(shape);
    let body = vec![b'x'; shape.row_bytes];
    let work = async {
        for part in messages.chunks(shape.transaction() / shape.rows) {
            let each = || {
                part.iter().flat_map(|(series, first)| (*first..first + shape.rows as i64).map(|seq| (*series, seq)))
            };
            let series: Vec<i64> = each().map(|(series, _)| series).collect();
            let seqs: Vec<i64> = each().map(|(_, seq)| seq).collect();
            let (walls, boots) = (vec![1_700_000_000_000_i64; series.len()], vec![5_i64; series.len()]);
            let (states, bodies) = (vec!["ntp"; series.len()], vec![&body[..]; series.len()]);
            client.execute(&statement, &[&series, &seqs, &walls, &boots, &states, &bodies]).await.unwrap();
        }
    };
    spend(Some(server), work).await
}
