//! Publishers over plain sockets, each with a bounded number of messages unacknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay::doors::mqtt::codec::{
    Connect, Disconnect, Packet, ProtocolVersion, QoS, ReasonCode, Subscribe, SubscribeProperties, SubscriptionRequest,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What one run of publishers saw.
pub(crate) struct Seen {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// Milliseconds from the write to the acknowledgement, sorted.
    pub(crate) times: Vec<f64>,
}

impl Seen {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

/// When publishers stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Messages(u64),
}

pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) publishers: usize,
    /// Unacknowledged messages a publisher may have.
    pub(crate) window: usize,
    /// A pause between two messages of one publisher.
    pub(crate) pause: Duration,
    pub(crate) until: Until,
    /// Streams that the publishers share out among themselves: `plant/0` and on.
    pub(crate) topics: usize,
    pub(crate) payload_bytes: usize,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, publishers: usize, until: Until) -> Self {
        Self { address, publishers, window: 1, pause: Duration::ZERO, until, topics: 1, payload_bytes: 60 }
    }

    pub(crate) fn run(&self) -> Seen {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            let mut ready = Vec::new();
            for at in 0..self.publishers {
                ready.push(connect(self.address, &format!("from-{at}"), true).await);
            }
            let began = Instant::now();
            for (at, stream) in ready.into_iter().enumerate() {
                let until = match self.until {
                    Until::Elapsed(span) => Until::Elapsed(span),
                    Until::Messages(all) => Until::Messages(all / self.publishers as u64),
                };
                let topic = format!("plant/{}", at % self.topics);
                tasks.spawn(publish(stream, topic, self.payload_bytes, self.window, self.pause, until, at as u64));
            }
            let mut times: Vec<f64> = tasks.join_all().await.concat();
            let seconds = began.elapsed().as_secs_f64();
            times.sort_by(f64::total_cmp);
            Seen { messages: times.len() as u64, seconds, times }
        })
    }
}

async fn publish(
    stream: TcpStream,
    topic: String,
    payload_bytes: usize,
    window: usize,
    pause: Duration,
    until: Until,
    seed: u64,
) -> Vec<f64> {
    let (mut from, mut to) = stream.into_split();
    let began = Instant::now();
    let (mut times, mut flying, mut sent, mut odd) = (Vec::new(), VecDeque::new(), 0_u64, 0);
    let mut buffer = vec![0; 4096];
    loop {
        let more = match until {
            Until::Elapsed(span) => began.elapsed() < span,
            Until::Messages(count) => sent < count,
        };
        if !more && flying.is_empty() {
            return times;
        }
        let mut out = Vec::new();
        while more && flying.len() < window {
            let number = seed * 10_000_000 + sent;
            out.extend(frame(&topic, u16::try_from(sent % 60_000 + 1).unwrap(), &payload(number, payload_bytes)));
            sent += 1;
            flying.push_back(Instant::now());
            if matches!(until, Until::Messages(count) if sent == count) {
                break;
            }
        }
        if !out.is_empty() {
            to.write_all(&out).await.unwrap();
        }
        let read = from.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        odd += read;
        for _ in 0..odd / 4 {
            times.push(flying.pop_front().unwrap().elapsed().as_secs_f64() * 1000.0);
        }
        odd %= 4;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// A reading as JSON of exactly `bytes`, with as many values as fit and a remark for the rest.
pub(crate) fn payload(number: u64, bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut text = format!(r#"{{"t":{},"n":{}"#, 1_700_000_000_000_u64 + number * 100, 10_000_000 + number);
    for field in 0..values(bytes) {
        // Four decimals of a slow wave with some noise: what a sensor says.
        let noise = (number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(field as u64) >> 33) % 100;
        let value = 50.0 + 20.0 * (number as f64 / 500.0 + field as f64).sin() + noise as f64 / 100.0;
        write!(text, r#","v{field}":{value:.4}"#).unwrap();
    }
    write!(text, r#","u":"{:->1$}"}}"#, "", bytes.saturating_sub(text.len() + 8)).unwrap();
    text
}

/// Fields in a payload of about so many bytes.
pub(crate) fn values(bytes: usize) -> usize {
    (bytes.saturating_sub(42) / 14).clamp(1, 64)
}

fn frame(topic: &str, packet_id: u16, payload: &str) -> Vec<u8> {
    let mut length = 2 + topic.len() + 2 + payload.len();
    let mut bytes = vec![0x32];
    while length >= 128 {
        bytes.push(u8::try_from(length % 128 + 128).unwrap());
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend(packet_id.to_be_bytes());
    bytes.extend(payload.as_bytes());
    bytes
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(ProtocolVersion::V311, &mut bytes).unwrap();
    bytes
}

async fn connect(address: SocketAddr, client: &str, clean: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut connect = Connect::new(ProtocolVersion::V311, client);
    connect.clean_start = clean;
    stream.write_all(&encoded(&Packet::Connect(connect.into()))).await.unwrap();
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).await.unwrap();
    assert_eq!(ack[3], 0, "refused");
    stream
}

/// A persistent subscriber of everything that goes away: what a broker without streams keeps messages for.
pub(crate) fn absent_subscriber(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = connect(address, "absent", false).await;
        let subscribe = Subscribe {
            packet_id: 1.try_into().unwrap(),
            properties: SubscribeProperties::default(),
            subscriptions: vec![SubscriptionRequest::new("plant/#", QoS::AtLeastOnce)],
        };
        stream.write_all(&encoded(&Packet::Subscribe(subscribe))).await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(&encoded(&Packet::Disconnect(Disconnect::new(ReasonCode::Success).into()))).await.unwrap();
    });
}
