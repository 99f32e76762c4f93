//! `forebay collect` as a process for a test, and what the receiver holds.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use forebay::flows::record::VerdictRecord;

use crate::gateway::{Gateway, forebay, forebay_says, press_readings, said};

pub(crate) struct Collecting {
    child: Child,
    arguments: Vec<String>,
}

impl Collecting {
    pub(crate) fn start(broker: SocketAddr, state: &Path) -> Self {
        let arguments = ["collect", "--broker", &broker.to_string(), "--tenant", "plant", "--state"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(state.display().to_string());
        Self { child: spawn(&arguments), arguments }
    }

    /// From a stream, which it makes if it is not there. What it does not keep within a second goes to others.
    #[cfg(feature = "nats")]
    pub(crate) fn of_stream(server: SocketAddr, state: &Path, more: &[&str]) -> Self {
        let (server, state) = (server.to_string(), state.display().to_string());
        let mut arguments = vec!["collect", "--nats", &server, "--tenant", "plant", "--state", &state];
        arguments.extend(["--create-stream", "--nats-ack-wait", "1"]);
        arguments.extend(more);
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        Self { child: spawn(&arguments), arguments }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.arguments);
    }

    /// Starts again as another process, from another broker or the same.
    pub(crate) fn restart_from(&mut self, broker: SocketAddr) {
        self.arguments[2] = broker.to_string();
        self.restart();
    }

    /// SIGTERM: exit code, standard output, standard error.
    pub(crate) fn stop(mut self) -> (Option<i32>, String, String) {
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
pub(crate) fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for first in numbers.clone().step_by(20) {
        let pack = press_readings(first..(first + 20).min(numbers.end));
        let (status, answer) = gateway.post("/api/v1/streams/press/readings", &pack);
        assert_eq!(status, 202, "{answer}");
    }
}

pub(crate) fn until_sent(gateway: &Gateway) {
    gateway.wait_for("/api/v1/queue", |queue| queue["rows"] == 0);
}

/// What the receiver holds, by content.
pub(crate) fn received(state: &Path) -> Vec<u64> {
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

/// `forebay collect --report`: exit code, standard output.
pub(crate) fn report(state: &Path) -> (Option<i32>, String) {
    let (code, stdout, stderr) = forebay_says(&["collect", "--report", "--state", state.to_str().unwrap()]);
    assert!(stderr.is_empty(), "{stderr}");
    (code, stdout)
}
