//! The broker beside mosquitto: CPU per message, durable acknowledgements, idle connections, a flood.
//!
//! `cargo bench --no-default-features --bench broker [-- filter]`. Both servers run as processes of their own, on private
//! ports, in turns, under the same load from this process. Times on a busy machine mean little; CPU per message and
//! ratios do. Without mosquitto in the PATH only our figures are printed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::access::{self, Access};
use forebay::base::SystemClock;
use forebay::broker::{self, Broker};
use forebay::doors::mqtt::codec::{
    Connect, Disconnect, Packet, ProtocolVersion, QoS, ReasonCode, Subscribe, SubscribeProperties, SubscriptionRequest,
};
use forebay::doors::mqtt::{self, Door};
use forebay::store::{self, Store};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD_BYTES: usize = 32;
const TOPIC: &str = "plant/press-7/temperature";
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    raise_file_limit();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address, folder] => serve(address.parse().unwrap(), Path::new(folder)),
        ref filters => {
            let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
            let benches: [(&str, fn()); 5] = [
                ("qos0", || messages(0, 1_000_000)),
                ("qos1", || messages(1, 400_000)),
                ("durable", durable),
                ("idle", idle),
                ("flood", flood),
            ];
            benches.iter().filter(|(name, _)| wanted(name)).for_each(|(_, bench)| bench());
        }
    }
}

fn raise_file_limit() {
    let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
    // SAFETY: the struct outlives the call. A refusal shows later as a failed connect.
    #[allow(unsafe_code)]
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Our side: broker, store and door as the gateway builds them, with two worker threads.
fn serve(address: SocketAddr, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(SystemClock::new());
        let store_config = store::Config { state_dir: folder.to_owned(), ..store::Config::default() };
        let (store, _) = Store::open(&store_config, &[broker::SCHEMA], clock.clone()).unwrap();
        let broker = Broker::open(broker::Config::default(), &store, clock.clone()).await.unwrap();
        let access = access::Config { allow_anonymous_loopback: true, ..access::Config::default() };
        let access = Arc::new(Access::new(&access).unwrap());
        let mut config = mqtt::Config::default();
        config.listener[0].address = address;
        let door = Door::bind(config, broker.clone(), access, clock).await.unwrap();
        let stop = CancellationToken::new();
        tokio::join!(broker.run(stop.clone()), door.serve(stop));
        drop(store);
    });
}

struct Server {
    child: Child,
    address: SocketAddr,
    name: &'static str,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn ours() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("serve").arg(address.to_string()).arg(folder.path());
        // Without it mimalloc commits whole arenas ahead of use: 40 MiB of resident memory that nobody asked for.
        command.env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        Self::start("forebay", command, address, folder)
    }

    /// With `lossless`, the only setting of mosquitto that loses nothing after PUBACK.
    fn mosquitto(lossless: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 100000\nlog_type error\nuser root\n"
        );
        if lossless {
            let path = folder.path().display();
            config += &format!(
                "persistence true\npersistence_location {path}/\nautosave_on_changes true\nautosave_interval 1\n"
            );
        }
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let binary =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|path| Path::new(path).exists())?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(path);
        Some(Self::start("mosquitto", command, SocketAddr::from(([127, 0, 0, 1], port)), folder))
    }

    fn start(name: &'static str, mut command: Command, address: SocketAddr, folder: tempfile::TempDir) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address, name, _folder: folder }
    }

    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn packet(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(ProtocolVersion::V311, &mut bytes).unwrap();
    bytes
}

fn connect_as(address: SocketAddr, client: &str, clean: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut connect = Connect::new(ProtocolVersion::V311, client);
    connect.clean_start = clean;
    stream.write_all(&packet(&Packet::Connect(connect.into()))).unwrap();
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).unwrap();
    assert_eq!(ack[3], 0, "refused");
    stream
}

fn subscribe(stream: &mut TcpStream, qos: QoS) {
    let subscribe = Subscribe {
        packet_id: 1.try_into().unwrap(),
        properties: SubscribeProperties::default(),
        subscriptions: vec![SubscriptionRequest::new(TOPIC, qos)],
    };
    stream.write_all(&packet(&Packet::Subscribe(subscribe))).unwrap();
    let mut ack = [0; 5];
    stream.read_exact(&mut ack).unwrap();
}

/// One PUBLISH; with a packet id it is QoS 1.
fn publish(packet_id: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![if packet_id.is_some() { 0x32 } else { 0x30 }];
    bytes.push(u8::try_from(2 + TOPIC.len() + PAYLOAD_BYTES + if packet_id.is_some() { 2 } else { 0 }).unwrap());
    bytes.extend(u16::try_from(TOPIC.len()).unwrap().to_be_bytes());
    bytes.extend(TOPIC.as_bytes());
    bytes.extend(packet_id.into_iter().flat_map(u16::to_be_bytes));
    bytes.resize(bytes.len() + PAYLOAD_BYTES, b'7');
    bytes
}

/// Reads whole frames of one length; `each` sees every one.
fn read_frames(stream: &mut TcpStream, frame_bytes: usize, count: usize, mut each: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 256 * 1024];
    let (mut held, mut seen) = (0, 0);
    while seen < count {
        let read = stream.read(&mut buffer[held..]).unwrap();
        assert!(read > 0, "closed after {seen} of {count}");
        held += read;
        let whole = held / frame_bytes;
        for frame in buffer[..whole * frame_bytes].chunks_exact(frame_bytes) {
            each(frame);
        }
        seen += whole;
        buffer.copy_within(whole * frame_bytes..held, 0);
        held -= whole * frame_bytes;
    }
}

fn qos0_load(server: &Server, count: usize) -> usize {
    let mut to = connect_as(server.address, "to", true);
    subscribe(&mut to, QoS::AtMostOnce);
    let mut from = connect_as(server.address, "from", true);
    let frame = publish(None);
    let bytes = frame.len();
    let reader = std::thread::spawn(move || {
        to.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
        while total < count * bytes {
            match to.read(&mut buffer) {
                Ok(read) if read > 0 => total += read,
                _ => break,
            }
        }
        total / bytes
    });
    let chunk = frame.repeat(500);
    for _ in 0..count / 500 {
        from.write_all(&chunk).unwrap();
    }
    reader.join().unwrap()
}

/// QoS 1 in and out with a window, every packet acknowledged.
fn qos1_load(server: &Server, count: usize) {
    const WINDOW: usize = 64;
    let mut to = connect_as(server.address, "to", true);
    subscribe(&mut to, QoS::AtLeastOnce);
    let mut from = connect_as(server.address, "from", true);
    let frame_bytes = publish(Some(1)).len();
    let id_at = 4 + TOPIC.len();
    let reader = std::thread::spawn(move || {
        let mut acks = to.try_clone().unwrap();
        let mut pending = Vec::new();
        let mut seen = 0;
        read_frames(&mut to, frame_bytes, count, |frame| {
            pending.extend([0x40, 2, frame[id_at], frame[id_at + 1]]);
            seen += 1;
            if seen % 32 == 0 || seen == count {
                acks.write_all(&pending).unwrap();
                pending.clear();
            }
        });
    });
    publish_windowed(&mut from, count, WINDOW);
    reader.join().unwrap();
}

fn publish_windowed(from: &mut TcpStream, count: usize, window: usize) {
    let (mut sent, mut acked) = (0, 0);
    let mut out = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut odd = 0;
    while acked < count {
        out.clear();
        while sent < count && sent - acked < window {
            out.extend(publish(Some(u16::try_from(sent % 60_000 + 1).unwrap())));
            sent += 1;
        }
        from.write_all(&out).unwrap();
        let read = from.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after {acked} of {count}");
        odd += read;
        acked += odd / 4;
        odd %= 4;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `measure` on both servers in turns and prints medians and their ratio.
fn compare(what: &str, unit: &str, lossless: bool, measure: impl Fn(&Server) -> f64) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(&Server::ours()));
        theirs.extend(Server::mosquitto(lossless).map(|server| measure(&server)));
    }
    let ours = median(ours);
    if theirs.is_empty() {
        println!("{what}: forebay {ours:.2} {unit} (no mosquitto here)");
        return;
    }
    let theirs = median(theirs);
    println!("{what}: forebay {ours:.2}, mosquitto {theirs:.2} {unit}, ratio {:.2}", ours / theirs);
}

fn messages(qos: u8, count: usize) {
    compare(&format!("QoS {qos} to one subscriber, {count} messages"), "us CPU/message", false, |server| {
        let before = server.cpu();
        if qos == 0 {
            let delivered = qos0_load(server, count);
            if delivered != count {
                println!("  {}: {delivered} of {count} delivered", server.name);
            }
        } else {
            qos1_load(server, count);
        }
        (server.cpu() - before).as_secs_f64() * 1e6 / count as f64
    });
}

/// QoS 1 for a persistent subscriber that is away: every PUBACK stands for a message on disk.
fn durable() {
    compare("durable QoS 1, subscriber away", "PUBACK/s", true, |server| {
        let mut to = connect_as(server.address, "to", false);
        subscribe(&mut to, QoS::AtLeastOnce);
        to.write_all(&packet(&Packet::Disconnect(Disconnect::new(ReasonCode::Success).into()))).unwrap();
        drop(to);
        let mut from = connect_as(server.address, "from", true);
        let count = if server.name == "mosquitto" { 300 } else { 9_000 };
        let begun = Instant::now();
        publish_windowed(&mut from, count, 512);
        count as f64 / begun.elapsed().as_secs_f64()
    });
}

fn idle() {
    const CONNECTIONS: usize = 5_000;
    compare("5,000 idle connections", "KiB each", false, |server| {
        let first = connect_as(server.address, "first", true);
        let before = server.memory_kib("VmRSS");
        let held: Vec<TcpStream> =
            (0..CONNECTIONS).map(|i| connect_as(server.address, &format!("idle-{i}"), true)).collect();
        let after = server.memory_kib("VmRSS");
        drop((first, held));
        (after - before) as f64 / CONNECTIONS as f64
    });
}

fn flood() {
    const MESSAGES: usize = 2_000_000;
    compare("2M QoS 0 flood, peak RSS", "MiB", false, |server| {
        let delivered = qos0_load(server, MESSAGES);
        println!("  {}: {:.1} % delivered", server.name, delivered as f64 * 100.0 / MESSAGES as f64);
        server.memory_kib("VmHWM") as f64 / 1024.0
    });
}
