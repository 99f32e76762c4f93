//! From a gateway through a bad line to the cloud: our own broker plays the cloud, `forebay collect` receives, and every
//! acknowledged reading is there once.

use std::path::Path;
use std::process::{Child, Stdio};

use forebay::flows::record::VerdictRecord;

use crate::chaos::{Chaos, Fault};
use crate::gateway::{Gateway, PRESS, Setup, VERDICTS, forebay, forebay_says, poll, press_readings, said};

/// Gateways of the tests send rows soon and try again soon.
fn link(port: u16) -> String {
    format!(
        "[cloud]\nport = {port}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n"
    )
}

struct Collecting {
    child: Child,
    arguments: Vec<String>,
}

impl Collecting {
    fn start(cloud: &Gateway, state: &Path) -> Self {
        let arguments =
            ["collect", "--broker", &cloud.mqtt.to_string(), "--tenant", "plant", "--state"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(state.display().to_string());
        Self { child: spawn(&arguments), arguments }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.arguments);
    }

    /// SIGTERM: exit code, standard output, standard error.
    fn stop(mut self) -> (Option<i32>, String, String) {
        std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let placeholder = forebay().arg("--version").stdout(Stdio::null()).spawn().unwrap();
        said(std::mem::replace(&mut self.child, placeholder).wait_with_output().unwrap())
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String]) -> Child {
    forebay().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Publishes numbers in packs over HTTP; each must be acknowledged.
fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for first in numbers.clone().step_by(20) {
        let pack = press_readings(first..(first + 20).min(numbers.end));
        let (status, answer) = gateway.post("/api/v1/streams/press/readings", &pack);
        assert_eq!(status, 202, "{answer}");
    }
}

fn until_sent(gateway: &Gateway) {
    gateway.wait_for("/api/v1/queue", |queue| queue["rows"] == 0);
}

/// What the receiver holds, by content.
fn received(state: &Path) -> Vec<u64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(state.join("forebay.db"), flags).unwrap();
    let mut rows = database
        .prepare("SELECT body FROM inbox_row JOIN inbox_series USING (series_no) WHERE class = 'verdict' ORDER BY seq")
        .unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let number = |body: Vec<u8>| -> u64 {
        let verdict: VerdictRecord = ciborium::from_reader(body.as_slice()).unwrap();
        verdict.id.unwrap().trim_start_matches('"').trim_end_matches('"').parse().unwrap()
    };
    bodies.map(|body| number(body.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reading_reaches_the_cloud_once_over_a_cut_line_and_kills_on_both_sides() {
    let cloud = Gateway::start("");
    let line = Chaos::before(cloud.mqtt.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("collected");
    let mut collecting = Collecting::start(&cloud, &state);
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
    let report = poll("the receiver has everything", || {
        let (code, stdout, stderr) = forebay_says(&["collect", "--report", "--state", state.to_str().unwrap()]);
        assert!(stderr.is_empty(), "{stderr}");
        (stdout.contains(" 1500 received of ") && code == Some(0)).then_some(stdout)
    });
    let (code, stdout, stderr) = collecting.stop();
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(report.lines().count() > 0 && report.lines().all(|line| line.starts_with("test-box epoch ")), "{report}");
    for series in [" verdict/press: 1500 received of ", " summary/press: 150 received of "] {
        assert!(report.contains(series), "{report}");
    }
    // Kills burn numbers, and burnt numbers are no readings.
    assert!(report.lines().all(|line| line.contains(" numbers declared lost (0 readings), ")), "{report}");
    assert!(!report.contains("MISSING"), "{report}");
    assert!(report.lines().any(|line| !line.ends_with(" 0 repeated")), "nothing came twice: {report}");
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
    let collecting = Collecting::start(&cloud, folder.path());
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
    let collecting = Collecting::start(&cloud, folder.path());
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
}
