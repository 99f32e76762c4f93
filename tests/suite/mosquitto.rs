//! A private mosquitto: own port, own folder, ready when it says so, gone with the value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::gateway::free_port;

pub(crate) struct Mosquitto {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    settings: String,
}

impl Mosquitto {
    /// Starts with anonymous access, persistence and unlimited queues, and `settings` added.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings)
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, settings: &str) -> Self {
        // Somebody may take the port between the look and the start.
        loop {
            // Outside the range of outgoing connections, so that nobody has it when the broker comes back.
            let port = free_port();
            if let Some(child) = spawn(folder.path(), port, settings) {
                return Self { child, port, folder, settings: settings.to_owned() };
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// SIGTERM (which saves the sessions), then the same port and folder again.
    pub(crate) fn restart(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.start_again();
    }

    /// SIGKILL, then the same port and folder again.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.start_again();
    }

    fn start_again(&mut self) {
        self.child.wait().unwrap();
        self.child = loop {
            if let Some(child) = spawn(self.folder.path(), self.port, &self.settings) {
                break child;
            }
        };
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("mosquitto is not installed: apt install mosquitto")
}

/// `None` if it ended instead of running (the port was taken).
fn spawn(folder: &Path, port: u16, settings: &str) -> Option<Child> {
    // With `max_queued_messages 0` (no limit) 2.0.11 ends a connection instead of refusing one message.
    let config = folder.join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         max_queued_messages 1000000\nmax_inflight_messages 0\nset_tcp_nodelay true\n{settings}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(binary())
        .arg("-c")
        .arg(&config)
        .arg("-v")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with(" running"));
    if !running {
        let _ = child.wait();
        return None;
    }
    // Nobody reads its log further, and a full pipe would stop it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(child)
}
