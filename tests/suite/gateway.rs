//! A real gateway process for a test: its own folder, free ports, killed when dropped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Loopback ports handed out to a test. They are free when asked for; the kernel does not hand out an ephemeral
/// port again soon.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command of ours to its end.
pub fn forebay_output(arguments: &[&str]) -> Output {
    forebay().args(arguments).output().unwrap()
}

pub struct Gateway {
    pub folder: tempfile::TempDir,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    child: Child,
}

/// The machine's stream with the bundled model, as the demonstration has it.
pub const MACHINE: &str = r#"
[[stream]]
name = "machine"
topic = "plant/machine/temperature"
[stream.signal]
fields = [{ name = "temperature", path = "value", unit = "degF", min = -40.0, max = 250.0 }]
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
[stream.summary]
readings = 12
"#;

impl Gateway {
    /// Starts a gateway with the usual sections and `more`, and waits until it is ready.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mqtt, http) = (free_port(), free_port());
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let config = format!(
            r#"
            [gateway]
            name = "test-box"
            state_dir = "{}"
            models_dir = "{}"
            [access]
            allow_anonymous_loopback = true
            [[mqtt.listener]]
            address = "127.0.0.1:{mqtt}"
            [http]
            address = "127.0.0.1:{http}"
            {more}
            "#,
            folder.path().join("state").display(),
            models.display(),
        );
        std::fs::write(folder.path().join("forebay.toml"), config).unwrap();
        let child = spawn(folder.path());
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut gateway = Self { folder, mqtt: address(mqtt), http: address(http), child };
        gateway.wait_ready();
        gateway
    }

    /// SIGKILL, as the power going would be for this process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same folder.
    pub fn restart(&mut self) {
        self.child = spawn(self.folder.path());
        self.wait_ready();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code()
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("state/forebay.db")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// GET, JSON.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = http(self.http, "GET", path, "").unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        http(self.http, "POST", path, body).unwrap()
    }

    /// Asks again until `done` says yes.
    pub fn wait_for(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..3000 {
            let answer = self.get(path);
            if done(&answer) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("GET {path} never said it; last answer: {}\nlog:\n{}", self.get(path), self.log());
    }

    fn wait_ready(&mut self) {
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended ({status}):\n{}", self.log());
            }
            if matches!(http(self.http, "GET", "/readyz", ""), Ok((200, _))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the gateway was never ready:\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- gateway log\n{}", self.log());
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    forebay()
        .arg("run")
        .arg("--config")
        .arg(folder.join("forebay.toml"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// One exchange over a fresh connection.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}
