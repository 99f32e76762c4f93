//! Both ends of the link for tests: a gateway's queue and a collector's inbox, each on a file of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::base::{Clock, Epoch, Name, SystemClock};
use forebay::flows::{
    AcknowledgedBy, Address, COLLECT_SCHEMA, Collect, CollectConfig, CollectMetrics, InboxSink, Rejects, SYNC_SCHEMA,
    Sync, SyncConfig, SyncMetrics,
};
use forebay::inbox::{self, Inbox, Report};
use forebay::outbox::{self, Class, Envelope, Outbox, StreamHandle, StreamKey};
use forebay::store::{self, Store};
use forebay::uplink::{Config, Ears, MqttUplink, Receiver, ReceiverConfig, Uplink};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Turns a test that would wait for ever into one that fails and says for what.
const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn open(folder: &Path, schemas: &[store::Schema]) -> (Store, Epoch) {
    let config = store::Config { state_dir: folder.to_owned(), ride_ms: 10, ..store::Config::default() };
    let (store, opened) = Store::open(&config, schemas, clock()).unwrap();
    (store, opened.epoch)
}

/// A gateway's queue.
pub(crate) struct Gateway {
    pub(crate) name: Name,
    pub(crate) store: Store,
    pub(crate) outbox: Outbox,
}

impl Gateway {
    pub(crate) fn open(folder: &Path, gateway: &str) -> Self {
        let (store, epoch) = open(folder, &[outbox::SCHEMA, SYNC_SCHEMA]);
        let config = outbox::Config { reserve_rows: 64, ..outbox::Config::default() };
        let outbox = Outbox::open(&config, &store, epoch, clock()).unwrap();
        Self { name: name(gateway), store, outbox }
    }

    pub(crate) fn stream(&self, class: Class, stream: &str) -> StreamHandle {
        self.outbox.stream(StreamKey::new(name(stream), class)).unwrap()
    }

    /// Appends one row a body, in one transaction.
    pub(crate) async fn append(&self, stream: StreamHandle, bodies: impl IntoIterator<Item = Vec<u8>>) {
        let stamp = clock().stamp();
        let envelopes: Vec<_> = bodies.into_iter().map(|body| Envelope { body, stamp }).collect();
        let outbox = self.outbox.clone();
        let append = move |tx: &store::Tx<'_>| {
            for envelope in &envelopes {
                outbox.append(tx, &stream, envelope)?;
            }
            Ok(())
        };
        self.store.writer().commit(0, append).await.unwrap();
    }

    pub(crate) fn rows(&self) -> u64 {
        self.outbox.depth().iter().map(|(_, rows)| rows).sum()
    }

    /// Runs the sync flow over `uplink`.
    pub(crate) fn sync<U: Uplink + 'static>(&self, uplink: U, config: SyncConfig) -> Running<SyncMetrics> {
        let rng = StdRng::seed_from_u64(1);
        let (outbox, writer) = (self.outbox.clone(), self.store.writer());
        Running::start(Sync::new(outbox, writer, uplink, self.name.clone(), clock(), config, rng))
    }

    pub(crate) fn sync_to(&self, port: u16, config: SyncConfig) -> Running<SyncMetrics> {
        Running::start(self.flow_to(port, config))
    }

    /// The flow over MQTT, not running yet.
    pub(crate) fn flow_to(&self, port: u16, config: SyncConfig) -> Sync<MqttUplink, StdRng> {
        let client_id = format!("forebay-{}", self.name);
        let uplink = MqttUplink::new(impatient(port), &client_id, clock()).unwrap();
        let receipts = Address::receipts(&config.tenant, &self.name);
        let ears = Ears { filters: vec![receipts.clone()], response_topic: Some(receipts), answers: None };
        let (outbox, writer, rng) = (self.outbox.clone(), self.store.writer(), StdRng::seed_from_u64(1));
        Sync::new(outbox, writer, uplink.listening(ears), self.name.clone(), clock(), config, rng)
    }

    /// Waits until the cloud has acknowledged everything and the rows are deleted.
    pub(crate) async fn drained(&self) {
        let drained = async {
            while self.rows() > 0 {
                self.store.reader().read(|_| Ok(())).await.unwrap();
            }
        };
        let stalled = tokio::time::timeout(WATCHDOG, drained).await.is_err();
        assert!(!stalled, "the queue does not drain: {:?}", self.outbox.depth());
    }
}

/// A link that gives up soon.
pub(crate) fn impatient(port: u16) -> Config {
    Config { port, answer_timeout_ms: 200, connect_timeout_ms: 400, ..Config::default() }
}

/// Small batches and short waits.
pub(crate) fn brisk() -> SyncConfig {
    SyncConfig {
        tenant: name("acme"),
        batch_rows: 50,
        batch_bytes: 4000,
        linger_ms: 5,
        retry_first_ms: 5,
        retry_most_ms: 20,
        drain_ms: 1000,
        receipt_timeout_ms: 200,
        receipt_most_ms: 2000,
        ..SyncConfig::default()
    }
}

/// The broker's word is enough.
pub(crate) fn trusting() -> SyncConfig {
    SyncConfig { acknowledged_by: AcknowledgedBy::Broker, ..brisk() }
}

/// A flow that runs until stopped or killed.
pub(crate) struct Running<M> {
    pub(crate) metrics: M,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running<SyncMetrics> {
    pub(crate) fn start<U: Uplink + 'static>(sync: Sync<U, StdRng>) -> Self {
        let stop = CancellationToken::new();
        Self { metrics: sync.metrics().clone(), stop: stop.clone(), task: tokio::spawn(sync.run(stop)) }
    }
}

impl<M> Running<M> {
    /// Runs `flow` until its token is cancelled.
    #[cfg(feature = "nats")]
    pub(crate) fn of<F: Future<Output = ()> + Send + 'static>(
        metrics: M,
        flow: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let stop = CancellationToken::new();
        Self { metrics, stop: stop.clone(), task: tokio::spawn(flow(stop)) }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it at whatever await it is.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }
}

/// A collector's inbox.
pub(crate) struct Collector {
    pub(crate) store: Store,
    pub(crate) inbox: Inbox,
}

impl Collector {
    pub(crate) fn open(folder: &Path) -> Self {
        let (store, _) = open(folder, &[inbox::SCHEMA, COLLECT_SCHEMA]);
        Self { store, inbox: Inbox::new(inbox::Config::default()) }
    }

    pub(crate) fn collect_from(&self, port: u16) -> Running<CollectMetrics> {
        let config = CollectConfig { retry_first_ms: 5, retry_most_ms: 20, ..CollectConfig::default() };
        let receiver = Receiver::new(impatient(port), ReceiverConfig::default(), "collect", clock()).unwrap();
        let rng = StdRng::seed_from_u64(2);
        let sink = InboxSink::new(self.store.writer(), self.inbox.clone(), clock(), Rejects::default());
        let collect = Collect::new(receiver, Arc::new(sink), config, rng);
        let (metrics, stop) = (collect.metrics().clone(), CancellationToken::new());
        Running { metrics, stop: stop.clone(), task: tokio::spawn(collect.run(stop)) }
    }

    pub(crate) async fn report(&self) -> Report {
        let inbox = self.inbox.clone();
        self.store.reader().read(move |connection| inbox.report(connection)).await.unwrap()
    }

    /// Waits until so many different rows are there.
    pub(crate) async fn received(&self, rows: u64) -> Report {
        let received = async {
            loop {
                let report = self.report().await;
                if report.received() >= rows {
                    return report;
                }
            }
        };
        match tokio::time::timeout(WATCHDOG, received).await {
            Ok(report) => report,
            Err(_) => panic!("{rows} rows do not arrive: {:?}", self.report().await),
        }
    }

    /// Every row's (gateway, class, stream, body).
    pub(crate) async fn bodies(&self) -> Vec<(String, String, String, Vec<u8>)> {
        let read = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare(
                "SELECT gateway, class, stream, body FROM inbox_row JOIN inbox_series USING (series_no)
                 ORDER BY gateway, epoch, class, stream, seq",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        };
        self.store.reader().read(read).await.unwrap()
    }
}
