//! A real gateway process for a test: its own folder, its own ports, killed when dropped.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

/// Pauses of 10 ms between two looks, at most so many: 60 s.
const LOOKS: usize = 6000;
const PAUSE: Duration = Duration::from_millis(10);

/// One stream of plain readings, each `{"n":1,"value":1}`; the id tells a repeat.
pub(crate) const PRESS: &str = r#"
[[stream]]
name = "press"
topic = "plant/press"
[stream.signal.decoder]
id = "n"
[stream.signal.intake]
duplicate_key = "id"
remember = 4096
"#;

/// Behind a stream's settings: the cloud gets each reading with its verdict, beside summaries.
pub(crate) const VERDICTS: &str = "[stream.cloud]\nverdicts = true\n";

/// The machine's stream with the bundled model. A score may take its time: a busy machine must not change results.
#[cfg(feature = "tract")]
pub(crate) const MACHINE: &str = r#"
[[stream]]
name = "machine"
topic = "plant/machine/temperature"
[stream.signal]
fields = [{ name = "temperature", path = "value", unit = "°F", min = -40.0, max = 250.0 }]
[stream.signal.decoder]
time = "time"
time_format = "%Y-%m-%d %H:%M:%S"
id = "n"
[stream.signal.intake]
duplicate_key = "id"
[stream.signal.window]
size = 144
step = 1
[stream.model]
name = "machine-temperature"
timeout_ms = 30000
[stream.summary]
readings = 12
"#;

/// What differs from the usual configuration.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Lines of `[store]`.
    pub(crate) store: &'a str,
    /// Lines of `[access]` and its identities; programs on this machine are let in if empty.
    pub(crate) access: &'a str,
    /// The models' folder; the repository's if absent.
    pub(crate) models: Option<&'a Path>,
    /// Everything else.
    pub(crate) more: &'a str,
}

pub(crate) struct Gateway {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) mqtt: SocketAddr,
    pub(crate) http: SocketAddr,
    child: Child,
}

/// A free loopback port that the kernel gives to no client: below its range, so that a gateway finds it free again after
/// a restart. None comes twice in a run: whoever got one may not listen yet, or not just now.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static NEXT: LazyLock<AtomicUsize> =
        LazyLock::new(|| AtomicUsize::new(StdRng::from_os_rng().random_range(0..PORTS.len())));
    loop {
        let at = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len();
        let port = PORTS.start + at as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command of ours to its end: exit code, standard output, standard error.
pub(crate) fn forebay_says(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(forebay().args(arguments).output().unwrap())
}

pub(crate) fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// `{"n":1,"value":1}`: the value is the identity, because readings are asked for by value.
pub(crate) fn press_reading(n: u64) -> String {
    format!(r#"{{"n":{n},"value":{n}}}"#)
}

/// Several of them in one payload.
pub(crate) fn press_readings(numbers: impl IntoIterator<Item = u64>) -> String {
    let all: Vec<_> = numbers.into_iter().map(press_reading).collect();
    format!("[{}]", all.join(","))
}

/// Looks again until `done` gives something.
pub(crate) fn poll<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(done) = done() {
            return done;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("it never happened: {what}");
}

/// Writes the usual configuration into `folder`.
pub(crate) fn write_config(folder: &Path, mqtt: SocketAddr, http: SocketAddr, setup: &Setup<'_>) -> PathBuf {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let models = setup.models.unwrap_or(&bundled).display();
    let access = if setup.access.is_empty() { "allow_anonymous_loopback = true" } else { setup.access };
    let mut text = String::new();
    writeln!(text, "[gateway]\nname = \"test-box\"").unwrap();
    writeln!(text, "[store]\nstate_dir = \"{}\"\n{}", folder.join("state").display(), setup.store).unwrap();
    writeln!(text, "[catalog]\nfolder = \"{models}\"\n[access]\n{access}").unwrap();
    // How warm or full the machine is that tests run on must not change what they see.
    let no_back_off = "memory_reduced_percent = 0\nmemory_minimal_percent = 0\n\
                       temperature_reduced_c = 0\ntemperature_minimal_c = 0\n\
                       battery_reduced_percent = 0\nbattery_minimal_percent = 0";
    writeln!(text, "[engine.back_off]\n{no_back_off}").unwrap();
    writeln!(text, "[http]\naddress = \"{http}\"\n[[mqtt.listener]]\naddress = \"{mqtt}\"\n{}", setup.more).unwrap();
    let path = folder.join("forebay.toml");
    std::fs::write(&path, text).unwrap();
    path
}

impl Gateway {
    /// Starts a gateway with the usual sections and `more`, and waits until it is ready.
    pub(crate) fn start(more: &str) -> Self {
        Self::with(&Setup { more, ..Setup::default() })
    }

    pub(crate) fn with(setup: &Setup<'_>) -> Self {
        Self::with_by(setup, &mut forebay())
    }

    /// By a prepared command.
    pub(crate) fn with_by(setup: &Setup<'_>, command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mqtt, http) = (loopback(free_port()), loopback(free_port()));
        write_config(folder.path(), mqtt, http, setup);
        let child = run(folder.path(), command);
        let mut gateway = Self { folder, mqtt, http, child };
        gateway.wait_ready();
        gateway
    }

    /// Writes its configuration anew; a restart takes it up.
    pub(crate) fn reconfigure(&self, setup: &Setup<'_>) {
        write_config(self.folder.path(), self.mqtt, self.http, setup);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as the power going would be for this process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same folder.
    pub(crate) fn restart(&mut self) {
        self.restart_by(&mut forebay());
    }

    /// Starts again by a prepared command.
    pub(crate) fn restart_by(&mut self, command: &mut Command) {
        self.child = run(self.folder.path(), command);
        self.wait_ready();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        self.child.wait().unwrap().code()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A read-only look into its database.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let path = self.folder.path().join("state/forebay.db");
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// GET, JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = http(self.http, "GET", path, "", "").unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// GET with its status, whatever it is.
    pub(crate) fn ask(&self, path: &str) -> (u16, Value) {
        let (status, body) = http(self.http, "GET", path, "", "").unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = http(self.http, "POST", path, "", body).unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Asks again until `done` says yes.
    pub(crate) fn wait_for(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..LOOKS {
            last = self.get(path);
            if done(&last) {
                return last;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("GET {path} never said it; last answer: {last}");
    }

    /// Every reading of a stream, in order.
    pub(crate) fn readings(&self, stream: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/streams/{stream}/readings?after_seq={after}&limit=5000");
            let mut answer = self.get(&path);
            let Value::Array(page) = answer["readings"].take() else { panic!("{answer}") };
            let Some(last) = page.last() else { return all };
            after = last["seq"].as_u64().unwrap();
            all.extend(page);
        }
    }

    /// The first values of a stream's readings as whole numbers, in order.
    pub(crate) fn numbers(&self, stream: &str) -> Vec<u64> {
        self.readings(stream).iter().map(|reading| reading["values"][0].as_f64().unwrap() as u64).collect()
    }

    fn wait_ready(&mut self) {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended ({status}):\n{}", self.log());
            }
            if matches!(http(self.http, "GET", "/readyz", "", ""), Ok((200, _))) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("the gateway was never ready");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
    }
}

fn run(folder: &Path, command: &mut Command) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    command
        .arg("run")
        .arg("--config")
        .arg(folder.join("forebay.toml"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// One exchange over a fresh connection, with further header lines.
pub(crate) fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}
