//! How fast a queue drains once the link is back, into a collector behind a broker on this machine.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{Load, Until};
use crate::servers::{Server, Setup, cpu_s, free_port};

const ROWS: u64 = 100_000;

pub(crate) fn run() {
    println!("\n## Draining {ROWS} rows after an outage, through mosquitto into `forebay collect`\n");
    let port = free_port();
    let setup = Setup {
        stream: "[stream.cloud]\nverdicts = true",
        more: format!("[cloud]\nhost = \"127.0.0.1\"\nport = {port}\n"),
        ..Setup::default()
    };
    let gateway = Server::gateway(&setup);
    Load { window: 64, ..Load::new(gateway.address, 8, Until::Messages(ROWS)) }.run();
    let waiting = gateway.metric("forebay_outbox_rows");
    assert!(waiting >= ROWS as f64, "{waiting} rows wait");

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mosquitto.conf");
    std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\nuser root\n"))
        .unwrap();
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut broker = quiet(Command::new("/usr/sbin/mosquitto").arg("-c").arg(&config));
    let mut collect = quiet(
        Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["collect", "--broker", &format!("127.0.0.1:{port}"), "--state"])
            .arg(folder.path().join("collected")),
    );
    let (cpu, collecting) = (gateway.cpu_s(), cpu_s(&collect));
    // Deletions ride later: a row has arrived when the collector has said so.
    let arrived = || gateway.metric("forebay_sync_rows_total");
    while arrived() == 0.0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (began, first) = (Instant::now(), arrived());
    while arrived() < waiting {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (took, rows) = (began.elapsed().as_secs_f64(), waiting);
    println!("| rows/s | us CPU a row, gateway | us CPU a row, collector |\n|---|---|---|");
    println!(
        "| {:.0} | {:.1} | {:.1} |",
        (rows - first) / took,
        (gateway.cpu_s() - cpu) / rows * 1e6,
        (cpu_s(&collect) - collecting) / rows * 1e6
    );
    for child in [&mut collect, &mut broker] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
