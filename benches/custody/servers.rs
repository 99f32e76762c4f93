//! The servers under test, each a process of its own with a folder that goes with it.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::load::values;

pub(crate) struct Server {
    title: String,
    pub(crate) child: Child,
    /// Where messages go in.
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- {}, ended: {:?}; its log\n{log}", self.title, self.child.try_wait());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn first_of(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

/// What of the gateway's configuration a bench chooses.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) streams: usize,
    pub(crate) payload_bytes: usize,
    /// Lines of each stream, before its tables.
    pub(crate) stream: &'static str,
    /// Tables after the streams: the cloud, the store.
    pub(crate) more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self { streams: 1, payload_bytes: 60, stream: "", more: String::new() }
    }
}

impl Server {
    pub(crate) fn gateway(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [mqtt, http] = [loopback(free_port()), loopback(free_port())];
        let mut text = format!(
            "[gateway]\nname = \"bench\"\n[store]\nstate_dir = \"{}\"\n[access]\nallow_anonymous_loopback = true\n\
             [[mqtt.listener]]\naddress = \"{mqtt}\"\n[http]\naddress = \"{http}\"\n",
            folder.path().join("state").display()
        );
        let fields: Vec<String> =
            (0..values(setup.payload_bytes)).map(|field| format!("{{ name = \"v{field}\" }}")).collect();
        for at in 0..setup.streams {
            write!(
                text,
                "[[stream]]\nname = \"s{at}\"\ntopic = \"plant/{at}\"\n{}\n[stream.signal]\nfields = [{}]\n\
                 [stream.signal.decoder]\ntime = \"t\"\ntime_format = \"unix_ms\"\n",
                setup.stream,
                fields.join(", ")
            )
            .unwrap();
        }
        text += &setup.more;
        let config = folder.path().join("forebay.toml");
        std::fs::write(&config, text).unwrap();
        std::fs::write(folder.path().join("http"), http.to_string()).unwrap();
        // Another release's program, to compare with.
        let program = std::env::var_os("FOREBAY_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_forebay").into());
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&config);
        Self::start(command, mqtt, folder)
    }

    /// `on_changes` is the setting that loses nothing after PUBACK: it writes its whole file after each message.
    pub(crate) fn mosquitto(on_changes: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = loopback(free_port());
        let mut config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_type error\n\
             user root\npersistence true\npersistence_location {}/\n",
            address.port(),
            folder.path().display()
        );
        if on_changes {
            config += "autosave_on_changes true\nautosave_interval 1\n";
        }
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(first_of(&["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"])?);
        command.arg("-c").arg(path);
        Some(Self::start(command, address, folder))
    }

    /// Takes messages over RELP, whose answer follows the message's place in the queue, into a queue on disk that is
    /// synced after every message.
    pub(crate) fn rsyslog() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (address, nowhere) = (loopback(free_port()), free_port());
        let path = folder.path().display();
        let config = format!(
            "global(workDirectory=\"{path}\" maxMessageSize=\"8k\")\nmodule(load=\"imrelp\")\n\
             main_queue(queue.type=\"Direct\")\n\
             input(type=\"imrelp\" address=\"127.0.0.1\" port=\"{}\" ruleset=\"keep\")\n\
             ruleset(name=\"keep\" queue.type=\"Disk\" queue.filename=\"keep\" queue.syncqueuefiles=\"on\"\n\
               queue.checkpointinterval=\"1\" queue.maxdiskspace=\"4g\" queue.maxfilesize=\"16m\") {{\n\
               action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{nowhere}\" protocol=\"tcp\" action.resumeRetryCount=\"-1\")\n}}\n",
            address.port()
        );
        let file = folder.path().join("rsyslog.conf");
        std::fs::write(&file, config).unwrap();
        first_of(&["/usr/lib/x86_64-linux-gnu/rsyslog/imrelp.so", "/usr/lib/aarch64-linux-gnu/rsyslog/imrelp.so"])?;
        let mut command = Command::new(first_of(&["/usr/sbin/rsyslogd"])?);
        command.arg("-n").arg("-i").arg(folder.path().join("pid")).arg("-f").arg(file);
        Some(Self::start(command, address, folder))
    }

    fn start(mut command: Command, address: SocketAddr, folder: tempfile::TempDir) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Self { title: format!("{command:?}"), child, address, folder };
        for _ in 0..1000 {
            // Who answers may be somebody else, to whom the port was given meanwhile: then ours has ended.
            if TcpStream::connect(address).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
                assert!(server.child.try_wait().unwrap().is_none(), "the server on {address} is not ours");
                return server;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no server on {address}");
    }

    pub(crate) fn cpu_s(&self) -> f64 {
        cpu_s(&self.child)
    }

    /// Bytes that the process has made the kernel write to the disk: pages dirtied, counted again after each write-back.
    pub(crate) fn written_bytes(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Ends the server in good order, so that its log is copied back, and says what it wrote in all.
    pub(crate) fn finish(mut self) -> u64 {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        // An ended process keeps its accounts until it is waited for.
        let stat = format!("/proc/{}/stat", self.child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(5));
        }
        let written = self.written_bytes();
        self.child.wait().unwrap();
        written
    }

    /// The value of a metric of the gateway.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let http = std::fs::read_to_string(self.folder.path().join("http")).unwrap();
        let mut stream = TcpStream::connect(&http).unwrap();
        stream
            .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} in the answer:\n{answer}"));
        line.split_whitespace().last().unwrap().parse().unwrap()
    }
}

/// User and system time so far of a process, in seconds.
pub(crate) fn cpu_s(process: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // SC_CLK_TCK is 100 on every Linux that we run on.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
