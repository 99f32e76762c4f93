//! Both ends of the custody under the model, and the line between them: what they keep and how they are killed.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::base::{BootId, Clock, ClockState, Digest};
use forebay::flows::{
    AcknowledgedBy, Address, Arrival, Batch, COLLECT_SCHEMA, Effect, InboxSink, Limits, Receipt, Rejects, SYNC_SCHEMA,
    Sink, Span, Sync, SyncConfig, Verdict,
};
use forebay::inbox::{self, Inbox};
use forebay::outbox::{self, Class, Outbox, StreamHandle, StreamKey};
use forebay::store::{self, Store};
use forebay::uplink::{Answer, CloudMessage, LinkState, Lost, Message, Ticket, Uplink};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::fleet::{brisk, name};

pub(super) const CLASSES: [Class; 3] = [Class::Alarm, Class::Verdict, Class::Raw];

/// What becomes of one message that the gateway hands over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Taken,
    /// Taken, and the line breaks before the answer.
    TakenUnanswered,
    LostWithTheLine,
    NobodySubscribes,
    Refused,
}

/// Real time since boot; a wall clock that somebody sets.
#[derive(Debug)]
pub(super) struct JumpingClock {
    pub(super) started: Instant,
    pub(super) offset_ms: AtomicI64,
}

impl Clock for JumpingClock {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + self.offset_ms.load(Ordering::Relaxed) + self.since_boot().as_millis() as i64
    }

    fn since_boot(&self) -> Duration {
        self.started.elapsed()
    }

    fn boot(&self) -> BootId {
        BootId([3; 16])
    }

    fn state(&self) -> ClockState {
        ClockState::Ntp
    }
}

/// The broker and the line to it.
#[derive(Default)]
pub(super) struct Broker {
    pub(super) faults: VecDeque<Fault>,
    /// What it holds for the receiver.
    pub(super) held: Vec<Message>,
    pub(super) answers: VecDeque<(Ticket, Answer)>,
    pub(super) broken: bool,
    /// To the gateway that is connected.
    pub(super) to_gateway: Option<mpsc::Sender<CloudMessage>>,
}

pub(super) type Shared = Arc<(Mutex<Broker>, Notify)>;

/// The gateway's end of the line.
pub(super) struct Cable {
    pub(super) broker: Shared,
    pub(super) heard: Option<mpsc::Receiver<CloudMessage>>,
    pub(super) state: watch::Sender<LinkState>,
    /// Since `connect`, as long as nobody was told of a loss.
    connected: bool,
}

impl Cable {
    pub(super) fn new(broker: &Shared) -> Self {
        let (tell, heard) = mpsc::channel(256);
        let mut held = broker.0.lock().unwrap();
        (held.to_gateway, held.broken) = (Some(tell), false);
        held.answers.clear();
        drop(held);
        Self { broker: broker.clone(), heard: Some(heard), state: watch::Sender::new(LinkState::Up), connected: false }
    }
}

impl Uplink for Cable {
    fn window(&self) -> usize {
        3
    }

    fn max_payload_bytes(&self, _topic: &str) -> usize {
        100_000
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        // What was asked over a link that stands is answered, also where the queue failed meanwhile.
        if std::mem::replace(&mut self.connected, true) {
            return Ok(());
        }
        let mut broker = self.broker.0.lock().unwrap();
        broker.broken = false;
        broker.answers.clear();
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        let mut broker = self.broker.0.lock().unwrap();
        let fault =
            if broker.broken { Fault::LostWithTheLine } else { broker.faults.pop_front().unwrap_or(Fault::Taken) };
        match fault {
            Fault::Taken => {
                broker.held.push(message);
                broker.answers.push_back((ticket, Answer::Acknowledged));
            }
            Fault::TakenUnanswered => {
                broker.held.push(message);
                broker.broken = true;
            }
            Fault::LostWithTheLine => broker.broken = true,
            Fault::NobodySubscribes => broker.answers.push_back((ticket, Answer::NoSubscriber)),
            Fault::Refused => broker.answers.push_back((ticket, Answer::Refused { reason: "quota".to_owned() })),
        }
        self.broker.1.notify_one();
        Ok(())
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        loop {
            {
                let mut broker = self.broker.0.lock().unwrap();
                if let Some(answer) = broker.answers.pop_front() {
                    return Ok(answer);
                }
                if broker.broken {
                    self.connected = false;
                    return Err(Lost { reason: "the line broke".to_owned() });
                }
            }
            self.broker.1.notified().await;
        }
    }

    async fn close(&mut self) {
        self.connected = false;
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn cloud_messages(&mut self) -> Option<mpsc::Receiver<CloudMessage>> {
        self.heard.take()
    }
}

/// What a SIGKILL leaves: the file and its log as they are now, without the index in memory.
pub(super) fn copy_as_a_kill_leaves_it(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

pub(super) struct Gateway {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) outbox: Outbox,
    pub(super) streams: Vec<StreamHandle>,
    pub(super) by: AcknowledgedBy,
    pub(super) stop: CancellationToken,
    pub(super) sync: tokio::task::JoinHandle<()>,
}

impl Gateway {
    pub(super) fn open(
        folder: tempfile::TempDir,
        clock: &Arc<JumpingClock>,
        broker: &Shared,
        by: AcknowledgedBy,
    ) -> Self {
        let config = store::Config { state_dir: folder.path().to_owned(), ride_ms: 2, ..store::Config::default() };
        let dynamic = || Arc::<JumpingClock>::clone(clock) as Arc<dyn Clock>;
        let (store, opened) = Store::open(&config, &[outbox::SCHEMA, SYNC_SCHEMA], dynamic()).unwrap();
        let config = outbox::Config { reserve_rows: 4, ..outbox::Config::default() };
        let outbox = Outbox::open(&config, &store, opened.epoch, dynamic()).unwrap();
        let stream = |class| outbox.stream(StreamKey::new(name("press"), class)).unwrap();
        let streams = CLASSES.into_iter().map(stream).collect();
        let config = SyncConfig {
            batch_rows: 3,
            linger_ms: 1,
            retry_first_ms: 1,
            retry_most_ms: 4,
            drain_ms: 5,
            receipt_timeout_ms: 15,
            receipt_most_ms: 60,
            unconfirmed_batches: 6,
            acknowledged_by: by,
            ..brisk()
        };
        let rng = StdRng::seed_from_u64(1);
        let (queue, writer) = (outbox.clone(), store.writer());
        let sync = Sync::new(queue, writer, Cable::new(broker), name("press-7"), dynamic(), config, rng);
        let stop = CancellationToken::new();
        Self { folder, store, outbox, streams, by, stop: stop.clone(), sync: tokio::spawn(sync.run(stop)) }
    }

    pub(super) async fn restart(self, clock: &Arc<JumpingClock>, broker: &Shared) -> Self {
        let Self { folder, store, outbox, by, stop, sync, .. } = self;
        stop.cancel();
        sync.await.unwrap();
        tokio::task::spawn_blocking(move || {
            outbox.close().unwrap();
            store.close();
        })
        .await
        .unwrap();
        Self::open(folder, clock, broker, by)
    }

    pub(super) async fn kill(self, clock: &Arc<JumpingClock>, broker: &Shared) -> Self {
        let by = self.by;
        Self::open(self.killed().await, clock, broker, by)
    }

    /// Killed; the next start finds its file corrupt, begins a new one, and brings the old one's rows back under their
    /// epoch, where the numbers are those of the new rows once more.
    pub(super) async fn set_aside(self, clock: &Arc<JumpingClock>, broker: &Shared) -> Self {
        let by = self.by;
        let folder = self.killed().await;
        std::fs::write(folder.path().join("forebay.db.corrupt"), b"").unwrap();
        let fresh = Self::open(folder, clock, broker, by);
        for wreck in fresh.store.wrecks() {
            if fresh.outbox.salvage(&wreck).await.unwrap().is_whole {
                wreck.remove();
            }
        }
        fresh
    }

    async fn killed(self) -> tempfile::TempDir {
        self.sync.abort();
        let _ = self.sync.await;
        let copy = copy_as_a_kill_leaves_it(self.folder.path());
        drop(self.outbox);
        self.store.close();
        copy
    }

    /// Rows waiting of each class.
    pub(super) fn depth(&self, class: Class) -> usize {
        let depth = self.outbox.depth().into_iter().filter(|(key, _)| key.class == class);
        depth.map(|(_, rows)| usize::try_from(rows).unwrap()).sum()
    }
}

pub(super) struct Receiver {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) sink: InboxSink,
}

impl Receiver {
    pub(super) fn open(folder: tempfile::TempDir, clock: &Arc<JumpingClock>) -> Self {
        let config = store::Config { state_dir: folder.path().to_owned(), ..store::Config::default() };
        let dynamic = || Arc::<JumpingClock>::clone(clock) as Arc<dyn Clock>;
        let (store, _) = Store::open(&config, &[inbox::SCHEMA, COLLECT_SCHEMA], dynamic()).unwrap();
        let inbox = Inbox::new(inbox::Config::default());
        let sink = InboxSink::new(store.writer(), inbox, dynamic(), Rejects::default());
        Self { folder, store, sink }
    }

    pub(super) fn killed(self, clock: &Arc<JumpingClock>) -> Self {
        let copy = copy_as_a_kill_leaves_it(self.folder.path());
        self.store.close();
        Self::open(copy, clock)
    }

    pub(super) async fn keep(&self, message: &Message) {
        let arrival = Arrival::read(message.topic.clone(), message.payload.clone(), self.sink.limits());
        let effects = self.sink.keep(vec![arrival]).await.unwrap();
        assert!(matches!(effects[..], [Effect::Stored { .. }]), "{effects:?}");
    }

    pub(super) async fn report(&self) -> inbox::Report {
        let inbox = Inbox::new(inbox::Config::default());
        self.store.reader().read(move |connection| inbox.report(connection)).await.unwrap()
    }

    /// Every body, by class.
    pub(super) async fn bodies(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let read = |connection: &rusqlite::Connection| {
            let mut bodies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
            let mut statement = connection
                .prepare("SELECT class, body FROM inbox_row JOIN inbox_series USING (series_no) ORDER BY seq")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                bodies.entry(row.get(0)?).or_default().push(row.get(1)?);
            }
            Ok(bodies)
        };
        self.store.reader().read(read).await.unwrap()
    }
}

pub(super) fn receipt(message: &Message) -> CloudMessage {
    let batch = Batch::decode(&message.payload, &Limits::default()).unwrap().batch;
    let receipt = Receipt { digest: Digest::of(&message.payload), verdict: Verdict::Kept(Span::of(&batch)) };
    cloud(receipt.encode())
}

pub(super) fn cloud(payload: Vec<u8>) -> CloudMessage {
    let topic = Address::receipts(&name("acme"), &name("press-7"));
    CloudMessage { topic, payload: Bytes::from(payload), correlation: None, done: None }
}
