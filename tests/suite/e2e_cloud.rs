//! From a gateway through a bad line to the cloud: our own broker plays the cloud, `forebay collect` receives, and every
//! acknowledged reading is there once.

use crate::chaos::{Chaos, Fault};
use crate::collecting::{Collecting, publish, received, report, until_sent};
use crate::gateway::{Gateway, PRESS, Setup, VERDICTS, forebay_says, poll};

/// Gateways of the tests send rows soon and try again soon.
fn link(port: u16) -> String {
    format!(
        "[cloud]\nport = {port}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reading_reaches_the_cloud_once_over_a_cut_line_and_kills_on_both_sides() {
    let cloud = Gateway::start("");
    let line = Chaos::before(cloud.mqtt.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("collected");
    let mut collecting = Collecting::start(cloud.mqtt, &state);
    // The first connection swallows answers, so that batches come twice.
    line.plan([Fault::SwallowAnswers { after: 6_000, more: 8_000 }]);
    let config = format!("{}{PRESS}{VERDICTS}[stream.summary]\nreadings = 10\n", link(line.port()));
    let mut gateway = Gateway::start(&config);
    publish(&gateway, 1..601);
    until_sent(&gateway);

    line.shut();
    gateway.wait_for("/api/v1/link", |link| link["state"] == "down" && link["reason"].is_string());
    publish(&gateway, 601..901);
    collecting.kill();
    gateway.kill();
    gateway.restart();
    publish(&gateway, 901..1201);
    let queue = gateway.get("/api/v1/queue");
    assert!(queue["rows"].as_u64().unwrap() >= 600, "{queue}");
    // Back, but not well at once: silent, then reset.
    line.plan([Fault::HalfOpen, Fault::CutAfter { bytes: 5_000, reset: true }]);
    line.open();
    collecting.restart();
    until_sent(&gateway);

    // Killed while rows are on their way.
    publish(&gateway, 1201..1501);
    gateway.kill();
    gateway.restart();
    until_sent(&gateway);
    // What the cloud's broker has acknowledged, the receiver commits.
    let accounts = poll("the receiver has everything", || {
        let (code, stdout) = report(&state);
        (stdout.contains(" 1500 received of ") && code == Some(0)).then_some(stdout)
    });
    let (code, stdout, stderr) = collecting.stop();
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(accounts.lines().last().unwrap().ends_with(": every number is accounted for"), "{accounts}");
    let series = || accounts.lines().filter(|line| line.starts_with("test-box epoch "));
    for wanted in [" verdict/press: 1500 received of ", " summary/press: 150 received of "] {
        assert!(accounts.contains(wanted), "{accounts}");
    }
    // Kills burn numbers, and burnt numbers are no readings.
    assert!(series().count() > 0, "{accounts}");
    assert!(series().all(|line| line.contains(" numbers declared lost (0 readings), ")), "{accounts}");
    assert!(accounts.contains("  restart: ") && accounts.contains(" numbers, nobody's ("), "{accounts}");
    assert!(!accounts.contains("MISSING"), "{accounts}");
    assert!(series().any(|line| !line.ends_with(" 0 repeated")), "nothing came twice: {accounts}");
    let numbers = received(&state);
    assert!(numbers == (1..1501).collect::<Vec<_>>(), "each once and in order: {} rows", numbers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_receiver_nothing_leaves_the_queue_and_the_link_says_why() {
    let cloud = Gateway::start("");
    let gateway = Gateway::start(&format!("{}{PRESS}{VERDICTS}", link(cloud.mqtt.port())));
    publish(&gateway, 1..41);
    let link = gateway.wait_for("/api/v1/link", |link| link["state"] == "degraded");
    assert!(link["reason"].as_str().unwrap().contains("subscribe"), "{link}");
    assert_eq!(gateway.get("/api/v1/queue")["rows"], 40);
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::start(cloud.mqtt, folder.path());
    until_sent(&gateway);
    let link = gateway.wait_for("/api/v1/link", |link| link["state"] == "up");
    assert_eq!(link["rows"], 40);
    poll("the receiver has them", || {
        (folder.path().join("forebay.db").exists() && received(folder.path()).len() == 40).then_some(())
    });
    drop(collecting);
}

#[test]
fn a_report_says_what_is_missing_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = forebay_says(&["collect", "--report", "--state", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("nothing was collected in"), "{stderr}");

    let cloud = Gateway::start("");
    let collecting = Collecting::start(cloud.mqtt, folder.path());
    let gateway =
        Gateway::with(&Setup { more: &format!("{}{PRESS}{VERDICTS}", link(cloud.mqtt.port())), ..Setup::default() });
    publish(&gateway, 1..21);
    until_sent(&gateway);
    poll("the receiver has them", || {
        (folder.path().join("forebay.db").exists() && received(folder.path()).len() == 20).then_some(())
    });
    assert_eq!(collecting.stop().0, Some(0));
    // As if the receiver had lost five rows.
    let database = rusqlite::Connection::open(folder.path().join("forebay.db")).unwrap();
    database.execute("DELETE FROM inbox_received", []).unwrap();
    let add = "INSERT INTO inbox_received SELECT series_no, 6, 20 FROM inbox_series WHERE class = 'verdict'";
    assert_eq!(database.execute(add, []).unwrap(), 1);
    drop(database);
    let (code, stdout, _) = forebay_says(&["collect", "--report", "--state", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("MISSING 5"), "{stdout}");
    assert!(stdout.contains("\n  MISSING, and nobody says why: 1-5\n"), "{stdout}");
    assert!(stdout.contains(": 5 NUMBERS ARE UNACCOUNTED FOR\n"), "{stdout}");
    let json = ["collect", "--report", "--json", "--state", folder.path().to_str().unwrap()];
    let (code, stdout, _) = forebay_says(&json);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["accounted"], &json["missing"]), (Some(1), &false.into(), &5.into()));
    // Declared lost by the sender, it is a loss with a reason and no longer a hole.
    let database = rusqlite::Connection::open(folder.path().join("forebay.db")).unwrap();
    let declare =
        "INSERT INTO inbox_lost SELECT series_no, 1, 5, 5, 'evicted', 0 FROM inbox_series WHERE class = 'verdict'";
    assert_eq!(database.execute(declare, []).unwrap(), 1);
    drop(database);
    let (code, stdout, _) = forebay_says(&["collect", "--report", "--state", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(
        stdout.contains("\n  evicted: 5 readings lost (1970-01-01T00:00:00Z): the oldest of their class"),
        "{stdout}"
    );
}
