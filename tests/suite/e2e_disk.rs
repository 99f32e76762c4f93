//! A disk that takes nothing acknowledges nothing, says so, and gives back everything that was acknowledged before.

use std::os::unix::process::CommandExt as _;

use forebay::doors::mqtt::codec::{Connect, Delivery, Packet, Publish, QoS, ReasonCode};

use crate::gateway::{Gateway, PRESS, Setup, forebay, poll, press_reading, press_readings};
use crate::log_file;
use crate::mqtt_fixture::{Client, V5, V311, id};

/// A database of about a megabyte.
const SMALL: &str =
    "max_bytes = 2097152\nreserve_bytes = 262144\nrestart_bytes = 524288\ncheckpoint_bytes = 131072\nprobe_ms = 20";
/// Readings in one payload.
const PACK: u64 = 500;

async fn connected(gateway: &Gateway, version: forebay::doors::mqtt::codec::ProtocolVersion, name: &str) -> Client {
    let mut client = Client::tcp(gateway.mqtt, version).await;
    assert_eq!(client.connect(Connect::new(version, name)).await.reason, ReasonCode::Success);
    client
}

/// Publishes and gives the reason of the PUBACK; `None` if the connection ended without one.
async fn publish(client: &mut Client, payload: String) -> Option<ReasonCode> {
    client.publish(Publish::new("plant/press", Delivery::AtLeastOnce(id(1)), payload)).await;
    match client.next().await {
        Some(Packet::PubAck(ack)) => Some(ack.reason),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

fn assert_not_ready(gateway: &Gateway, word: &str) {
    let (status, health) = gateway.ask("/readyz");
    assert_eq!((status, &health["ready"]), (503, &serde_json::Value::Bool(false)), "{health}");
    let problem = health["problems"][0].as_str().unwrap();
    assert!(problem.contains("nothing is acknowledged") && problem.contains(word), "{problem}");
    assert_eq!(gateway.ask("/healthz").0, 200, "the process itself is fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_acknowledges_nothing_and_a_larger_limit_finds_everything_that_was() {
    // What fills the file is kept for somebody who is away: history alone gives way.
    let more = format!(
        "[broker]\nqueue_messages = 100000\nqueue_bytes = 100000000\npersistent_queue_bytes = 100000000\n{PRESS}"
    );
    let mut gateway = Gateway::with(&Setup { store: SMALL, more: &more, ..Setup::default() });
    let mut absent = Client::tcp(gateway.mqtt, V5).await;
    let mut connect = Connect::new(V5, "absent");
    connect.clean_start = false;
    connect.properties.session_expiry_interval_secs = Some(3600);
    absent.connect(connect).await;
    absent.subscribe("plant/press", QoS::AtLeastOnce).await;
    drop(absent);
    let mut client = connected(&gateway, V5, "sensor").await;
    let mut pack = 0;
    let readings_of = |pack: u64| press_readings(pack * PACK + 1..=(pack + 1) * PACK);
    // At the edge one more may fit after a refusal, and history gives way for a while: full is when none of the three is
    // taken and the gateway says so.
    let mut tries = 0;
    let refused = loop {
        tries += 1;
        assert!(pack < 200 && tries < 2000, "the limit of 2 MiB does not hold");
        let next = readings_of(pack);
        let reason = publish(&mut client, next.clone()).await.unwrap();
        if !reason.is_error() {
            pack += 1;
            continue;
        }
        assert_eq!(reason, ReasonCode::QuotaExceeded);
        let (status, answer) = gateway.post("/api/v1/streams/press/readings", &next);
        if status == 202 {
            pack += 1;
            continue;
        }
        assert!([503, 507].contains(&status), "{status} {answer}");
        assert!(answer["error"]["hint"].is_string(), "{answer}");
        // MQTT 3.1.1 has no word for it: no PUBACK, and the connection ends.
        let mut old = connected(&gateway, V311, "old-sensor").await;
        match publish(&mut old, next.clone()).await {
            Some(reason) if !reason.is_error() => pack += 1,
            _ if gateway.ask("/readyz").0 == 503 => {
                assert_not_ready(&gateway, "no space");
                break next;
            }
            _ => {}
        }
    };
    assert!(pack > 0, "nothing fitted at all");

    // The newest of exactly what was acknowledged. While the file is full history may give way altogether.
    let holds = |gateway: &Gateway, last: u64| {
        let numbers = gateway.numbers("press");
        let holds = numbers.last() == Some(&last) && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        if !holds {
            eprintln!("of {last}: {numbers:?}\n{}", gateway.log());
        }
        holds
    };
    let gave_way = |gateway: &Gateway| gateway.numbers("press").is_empty();
    assert!(holds(&gateway, pack * PACK) || gave_way(&gateway), "while full");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    gateway.restart();
    assert!(holds(&gateway, pack * PACK) || gave_way(&gateway), "opened full");
    gateway.stop();
    gateway.reconfigure(&Setup { more: &more, ..Setup::default() });
    gateway.restart();
    assert!(holds(&gateway, pack * PACK) || gave_way(&gateway), "with room again");
    // The refused readings were never taken, so their repeat is no duplicate.
    let mut client = connected(&gateway, V5, "sensor").await;
    assert_eq!(publish(&mut client, refused).await, Some(ReasonCode::Success));
    assert!(holds(&gateway, (pack + 1) * PACK));
}

/// A command whose process lives on when a file may not grow: the write fails, as on a full disk.
#[allow(unsafe_code, reason = "between fork and exec, and a signal's disposition is the kernel's")]
fn forebay_that_survives_the_limit() -> std::process::Command {
    let mut command = forebay();
    // SAFETY: `signal` is async-signal-safe and touches nothing of this process.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    command
}

/// Files of the gateway may not grow beyond `bytes` from now on.
#[allow(unsafe_code, reason = "the limit is the kernel's")]
fn limit_files(gateway: &Gateway, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: plain values; the struct outlives the call and no old limit is asked for.
    let done = unsafe {
        libc::prlimit(gateway.pid().cast_signed(), libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_sent_again_after_a_refused_commit_is_new_and_the_gateway_recovers_by_itself() {
    let mut gateway = Gateway::with(&Setup { store: "probe_ms = 20", more: PRESS, ..Setup::default() });
    gateway.stop();
    gateway.restart_by(&mut forebay_that_survives_the_limit());
    let mut client = connected(&gateway, V5, "sensor").await;
    for n in 1..=20 {
        assert_eq!(publish(&mut client, press_reading(n)).await, Some(ReasonCode::Success));
    }
    let log = log_file::used(&gateway.folder.path().join("state/forebay.db-wal")).len() as u64;
    limit_files(&gateway, log);
    let mut refused = Vec::new();
    for n in 21..=40 {
        let reason = publish(&mut client, press_reading(n)).await.unwrap();
        if reason.is_error() {
            refused.push(n);
        }
    }
    assert!(!refused.is_empty(), "the disk took everything");
    assert_not_ready(&gateway, "disk");
    // The same reading while it still does not work: refused again, not a duplicate.
    assert!(publish(&mut client, press_reading(refused[0])).await.unwrap().is_error());

    limit_files(&gateway, libc::RLIM_INFINITY);
    poll("the gateway is ready again by itself", || (gateway.ask("/readyz").0 == 200).then_some(()));
    for n in &refused {
        assert_eq!(publish(&mut client, press_reading(*n)).await, Some(ReasonCode::Success));
    }
    let mut found = gateway.numbers("press");
    found.sort_unstable();
    assert_eq!(found, (1..=40).collect::<Vec<_>>(), "every acknowledged reading, once");
    gateway.kill();
    gateway.restart();
    let mut found = gateway.numbers("press");
    found.sort_unstable();
    assert_eq!(found, (1..=40).collect::<Vec<_>>());
}
