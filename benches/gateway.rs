//! The whole gateway as a process: readings a second through model and disk, memory, and how soon it is ready again
//! with a long queue. `cargo bench --bench gateway`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, reason = "a benchmark")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Readings that are queued; each leaves a row, every 12th a summary.
const READINGS: usize = 100_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let [mqtt, http] = [free(), free()];
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let config = folder.path().join("forebay.toml");
    let stream = if cfg!(feature = "tract") { "\n[stream.model]\nname = \"machine-temperature\"" } else { "" };
    let text = format!(
        r#"
[gateway]
name = "bench"
[store]
state_dir = "{}"
[catalog]
folder = "{}"
[access]
allow_anonymous_loopback = true
[[mqtt.listener]]
address = "{mqtt}"
[http]
address = "{http}"
[[stream]]
name = "machine"
topic = "plant/machine/temperature"
[stream.signal.decoder]
time = "time"
time_format = "%Y-%m-%d %H:%M:%S"
id = "n"
[stream.signal.intake]
duplicate_key = "id"
[stream.signal.window]
size = 144
step = 1
[stream.summary]
readings = 12
[stream.cloud]
verdicts = true
{stream}
"#,
        folder.path().join("state").display(),
        models.display()
    );
    std::fs::write(&config, text).unwrap();
    let recording = folder.path().join("recording.csv");
    let real = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/machine_temperature_system_failure.csv"),
    )
    .unwrap();
    let lines = real.lines().skip(1).cycle().take(READINGS).collect::<Vec<_>>().join("\n");
    std::fs::write(&recording, lines).unwrap();

    let mut gateway = start(&config);
    let empty_ms = ready_after(http, Instant::now());
    println!("ready with an empty queue      {empty_ms:>8.0} ms");
    println!("memory, idle                   {:>8.1} MB", rss_mb(&gateway));
    let began = (Instant::now(), cpu_s(&gateway));
    let replay = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["replay", "--broker", &mqtt.to_string(), "--window", "1000"])
        .arg(&recording)
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let (wall, cpu) = (began.0.elapsed().as_secs_f64(), cpu_s(&gateway) - began.1);
    println!(
        "readings through model to disk {:>8.0} a second, {:.0} us CPU each",
        READINGS as f64 / wall,
        cpu / READINGS as f64 * 1e6
    );
    println!("memory, after {READINGS} readings {:>6.1} MB", rss_mb(&gateway));
    gateway.kill().unwrap();
    gateway.wait().unwrap();

    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let mut gateway = start(&config);
        times.push(ready_after(http, began));
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
    times.sort_by(f64::total_cmp);
    println!(
        "ready after SIGKILL with {READINGS} readings queued: {:.0} ms (median of 5, worst {:.0})",
        times[2], times[4]
    );
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["run", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Milliseconds from `began` until `/readyz` answers 200.
fn ready_after(http: SocketAddr, began: Instant) -> f64 {
    while began.elapsed() < Duration::from_secs(60) {
        if let Ok(mut stream) = TcpStream::connect(http) {
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            if stream.write_all(request.as_bytes()).is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                return began.elapsed().as_secs_f64() * 1000.0;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the gateway was never ready");
}

fn rss_mb(process: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// User and system time so far, in seconds, of the process and its threads.
fn cpu_s(process: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // SC_CLK_TCK is 100 on every Linux that we run on.
    ticks / 100.0
}
