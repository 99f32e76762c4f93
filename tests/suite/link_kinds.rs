//! What every kind of link promises, asked of each: a real mosquitto, a real nats-server, and lines that fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay::flows::{Address, CollectConfig, CollectMetrics, CollectStream, InboxSink, Rejects, StreamBatch};
use forebay::outbox::Class;
use forebay::uplink::{
    Answer, AnyUplink, Config, Ears, LinkState, Message, Receiver, ReceiverConfig, StreamReceiver,
    StreamReceiverConfig, StreamSettings, Uplink,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;

use crate::chaos::{Chaos, Fault};
use crate::fleet::{self, Collector, Gateway, Running, brisk, clock};
use crate::mosquitto::Mosquitto;
use crate::nats_server::{self, NatsServer};

const TOPIC: &str = "fleet/v1/acme/press.7/verdict/temperature";

/// A server at the far side.
trait Far: Sized {
    /// One that takes payloads up to some thousand bytes, if `narrow`.
    fn start(narrow: bool) -> Self;

    fn port(&self) -> u16;

    /// Settings of an impatient link to a port of this kind.
    fn link(port: u16) -> Config;

    /// From now on somebody takes what is published.
    async fn listen(&self) -> Listener;

    /// Receives into a SQLite inbox, over a port.
    fn collect(collector: &Collector, port: u16) -> Running<CollectMetrics>;
}

/// Whoever listens, kept alive.
enum Listener {
    Subscriber { _receiver: Box<Receiver> },
    Stream,
}

struct Mqtt(Mosquitto);
struct Nats(NatsServer);

impl Far for Mqtt {
    fn start(narrow: bool) -> Self {
        Self(Mosquitto::start(if narrow { "max_packet_size 5000" } else { "" }))
    }

    fn port(&self) -> u16 {
        self.0.port()
    }

    fn link(port: u16) -> Config {
        Config { connect_timeout_ms: 1_000, ..fleet::impatient(port) }
    }

    async fn listen(&self) -> Listener {
        let mut receiver =
            Receiver::new(Self::link(self.port()), ReceiverConfig::default(), "collect", clock()).unwrap();
        receiver.connect().await.unwrap();
        Listener::Subscriber { _receiver: Box::new(receiver) }
    }

    fn collect(collector: &Collector, port: u16) -> Running<CollectMetrics> {
        collector.collect_from(port)
    }
}

impl Far for Nats {
    fn start(narrow: bool) -> Self {
        let more = if narrow { "max_payload: 5000" } else { "" };
        Self(NatsServer::with(nats_server::Setup { more, ..nats_server::Setup::default() }))
    }

    fn port(&self) -> u16 {
        self.0.port()
    }

    fn link(port: u16) -> Config {
        let mut link = nats_server::impatient(port);
        // A stream that does not exist is the message's answer here, not the connection's.
        link.nats.as_mut().unwrap().check_stream = false;
        link
    }

    async fn listen(&self) -> Listener {
        self.0.stream().await;
        Listener::Stream
    }

    fn collect(collector: &Collector, port: u16) -> Running<CollectMetrics> {
        collect_stream(collector, port)
    }
}

/// A collector of a stream that gets back soon what it did not acknowledge.
pub(crate) fn stream_receiver(link: Config) -> StreamReceiver {
    let wanted = StreamReceiverConfig {
        ack_wait_ms: 300,
        batch_messages: 16,
        create_stream: Some(StreamSettings::default()),
        ..StreamReceiverConfig::default()
    };
    StreamReceiver::new(link, wanted, "collect", clock()).unwrap()
}

pub(crate) fn quick() -> CollectConfig {
    CollectConfig { retry_first_ms: 5, retry_most_ms: 20, ..CollectConfig::default() }
}

pub(crate) fn collect_stream(collector: &Collector, port: u16) -> Running<CollectMetrics> {
    collect_stream_over(collector, nats_server::impatient(port))
}

pub(crate) fn collect_stream_over(collector: &Collector, link: Config) -> Running<CollectMetrics> {
    let sink = InboxSink::new(collector.store.writer(), collector.inbox.clone(), clock(), Rejects::default());
    let batch = StreamBatch { messages: 8, ..StreamBatch::default() };
    let receiver = stream_receiver(link);
    let collect = CollectStream::new(receiver, Arc::new(sink), batch, quick(), StdRng::seed_from_u64(2));
    let metrics = collect.metrics().clone();
    Running::of(metrics, |stop| collect.run(stop))
}

fn uplink(config: Config) -> AnyUplink {
    AnyUplink::new(config, "forebay-press-7", clock()).unwrap()
}

fn message(payload: impl Into<Bytes>) -> Message {
    Message { topic: TOPIC.to_owned(), payload: payload.into() }
}

/// Sends one message and waits for its answer.
async fn send(uplink: &mut AnyUplink, payload: impl Into<Bytes>) -> Answer {
    uplink.connect().await.unwrap();
    uplink.submit(1, message(payload)).unwrap();
    let (ticket, answer) = uplink.answer().await.unwrap();
    assert_eq!(ticket, 1);
    answer
}

async fn a_window_of_messages_is_answered_one_by_one<F: Far>() {
    let far = F::start(false);
    let _listener = far.listen().await;
    let mut uplink = uplink(F::link(far.port()));
    uplink.connect().await.unwrap();
    let window = uplink.window() as u64;
    for round in 0..50 {
        for ticket in 0..window {
            uplink.submit(ticket, message(format!("{round}.{ticket}"))).unwrap();
        }
        let mut answered = Vec::new();
        for _ in 0..window {
            let (ticket, answer) = uplink.answer().await.unwrap();
            assert_eq!(answer, Answer::Acknowledged);
            answered.push(ticket);
        }
        answered.sort_unstable();
        assert_eq!(answered, (0..window).collect::<Vec<_>>());
    }
    assert_eq!(*uplink.state().borrow(), LinkState::Up);
    uplink.close().await;
    assert!(matches!(&*uplink.state().borrow(), LinkState::Down { .. }));
}

async fn more_than_the_window_at_once_is_a_lost_link<F: Far>() {
    let far = F::start(false);
    let _listener = far.listen().await;
    let mut uplink = uplink(F::link(far.port()));
    uplink.connect().await.unwrap();
    let window = uplink.window() as u64;
    (0..window).for_each(|ticket| uplink.submit(ticket, message("x")).unwrap());
    uplink.submit(window, message("x")).unwrap_err();
    uplink.answer().await.unwrap_err();
    assert_eq!(send(&mut uplink, "y").await, Answer::Acknowledged);
}

async fn a_message_for_nobody_is_not_acknowledged_and_the_state_says_so<F: Far>() {
    let far = F::start(false);
    let mut uplink = uplink(F::link(far.port()));
    assert_eq!(send(&mut uplink, "x").await, Answer::NoSubscriber);
    let state = uplink.state();
    let degraded = matches!(&*state.borrow(), LinkState::Degraded { reason } if reason.contains(TOPIC));
    assert!(degraded, "{:?}", *state.borrow());
    let _listener = far.listen().await;
    assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
    assert_eq!(*state.borrow(), LinkState::Up);
    assert_eq!(uplink.metrics().connections.get(), 1);
}

async fn a_message_over_the_servers_limit_is_answered_without_losing_the_link<F: Far>() {
    let far = F::start(true);
    let _listener = far.listen().await;
    let mut uplink = uplink(F::link(far.port()));
    let Answer::TooLarge { max_payload_bytes } = send(&mut uplink, vec![0; 5000]).await else {
        panic!("a message over the limit must be answered so")
    };
    assert_eq!(send(&mut uplink, vec![0; max_payload_bytes]).await, Answer::Acknowledged, "just fits");
    assert_eq!(uplink.metrics().connections.get(), 1);
}

async fn a_half_open_line_is_noticed_by_a_waiting_message<F: Far>() {
    let far = F::start(false);
    let chaos = Chaos::before(far.port()).await;
    chaos.plan([Fault::HoldAfter(1000)]);
    let _listener = far.listen().await;
    let mut uplink = uplink(F::link(chaos.port()));
    uplink.connect().await.unwrap();
    // More than socket buffers take, so that the write itself stands still.
    for ticket in 0..4 {
        uplink.submit(ticket, message(vec![u8::try_from(ticket).unwrap(); 120_000])).unwrap();
    }
    let lost = uplink.answer().await.unwrap_err();
    assert!(lost.reason.contains("acknowledged nothing for"), "{lost}");
    assert!(matches!(&*uplink.state().borrow(), LinkState::Down { .. }));
    assert_eq!(send(&mut uplink, "again").await, Answer::Acknowledged);
}

async fn a_server_that_accepts_and_says_nothing_is_given_up<F: Far>() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { connect_timeout_ms: 200, ..F::link(listener.local_addr().unwrap().port()) };
    let lost = uplink(config).connect().await.unwrap_err();
    assert!(lost.reason.contains("gave no answer"), "{lost}");
}

async fn nobody_there_is_said_in_plain_words<F: Far>() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let lost = uplink(F::link(free)).connect().await.unwrap_err();
    assert!(lost.reason.starts_with(&format!("127.0.0.1:{free} cannot be reached: ")), "{lost}");
}

async fn after_a_cut_the_next_connection_is_a_fresh_one<F: Far>() {
    let far = F::start(false);
    let chaos = Chaos::before(far.port()).await;
    let _listener = far.listen().await;
    let mut uplink = uplink(F::link(chaos.port()));
    assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
    for round in 1..4_u8 {
        chaos.cut();
        let lost = uplink.answer().await.unwrap_err();
        assert!(lost.reason.starts_with("127.0.0.1:"), "{lost}");
        uplink.submit(9, message("nobody is there to take it")).unwrap_err();
        assert_eq!(send(&mut uplink, vec![round]).await, Answer::Acknowledged);
    }
    assert_eq!(chaos.connections(), 4, "one for each connect, none by itself");
}

async fn every_row_arrives_once_whatever_the_lines_do_and_whoever_is_killed<F: Far>() {
    let mut connections = 0;
    for seed in 0..3 {
        connections += one_bad_day::<F>(seed).await;
    }
    assert!(connections > 30, "the lines were too good to prove anything: {connections} connections");
}

/// 1,800 rows, both ends killed and reopened twice, both lines cut, held, reset, late and swallowing answers.
/// Gives the number of connections that it took.
async fn one_bad_day<F: Far>(seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let far = F::start(false);
    let (up, down) = (Chaos::before(far.port()).await, Chaos::before(far.port()).await);
    let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The server has to know who receives before anything is sent.
    drop(far.listen().await);
    let mut collector = Collector::open(receiver.path());
    let mut collect = F::collect(&collector, far.port());

    up.plan((0..20).map(|_| Fault::any(&mut rng, 20_000)).collect::<Vec<_>>());
    down.plan((0..20).map(|_| Fault::any_loud(&mut rng, 300)).collect::<Vec<_>>());
    let mut sent: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for life in 0..3_u8 {
        let gateway = Gateway::open(sender.path(), "press.7");
        let receipts = Address::receipts(&brisk().tenant, &gateway.name);
        let ears = Ears { filters: vec![receipts.clone()], response_topic: Some(receipts), answers: None };
        let sync = gateway.sync(uplink(F::link(up.port())).listening(ears), brisk());
        let streams = [Class::Alarm, Class::Raw].map(|class| (class, gateway.stream(class, "temperature")));
        for part in 0..10_u8 {
            for (class, stream) in streams {
                let rows: Vec<_> =
                    (0..30_u8).map(|row| [vec![life, part, row], vec![7; rng.random_range(0..200)]].concat()).collect();
                sent.entry(class.as_str().to_owned()).or_default().extend(rows.clone());
                gateway.append(stream, rows).await;
            }
        }
        collect.kill().await;
        collector.store.close();
        collector = Collector::open(receiver.path());
        collect = F::collect(&collector, down.port());
        if life < 2 {
            // Neither the flow nor the queue gets to say goodbye: reserved numbers are burned.
            let some = collector.report().await.received() + u64::from(life) * 100;
            collector.received(some.min(600 * (u64::from(life) + 1))).await;
            sync.kill().await;
            gateway.store.close();
        } else {
            gateway.drained().await;
            let report = collector.received(1800).await;
            assert_eq!((report.received(), report.missing()), (1800, 0), "seed {seed}: {report:?}");
            assert!(report.series.iter().all(|series| series.readings_lost == 0), "seed {seed}: {report:?}");
            sync.stop().await;
        }
    }
    let mut arrived: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (_, class, _, body) in collector.bodies().await {
        arrived.entry(class).or_default().push(body);
    }
    assert!(arrived == sent, "seed {seed}: the same rows in the same order, each once");
    collect.stop().await;
    up.connections() + down.connections()
}

macro_rules! every_kind {
    ($($promise:ident),+ $(,)?) => {
        mod mqtt {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise::<super::Mqtt>().await;
            })+
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise::<super::Nats>().await;
            })+
        }
    };
}

every_kind!(
    a_window_of_messages_is_answered_one_by_one,
    more_than_the_window_at_once_is_a_lost_link,
    a_message_for_nobody_is_not_acknowledged_and_the_state_says_so,
    a_message_over_the_servers_limit_is_answered_without_losing_the_link,
    a_half_open_line_is_noticed_by_a_waiting_message,
    a_server_that_accepts_and_says_nothing_is_given_up,
    nobody_there_is_said_in_plain_words,
    after_a_cut_the_next_connection_is_a_fresh_one,
    every_row_arrives_once_whatever_the_lines_do_and_whoever_is_killed,
);
