//! A private nats-server: own port, own folder, ready when it says so, gone with the value.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forebay::base::Name;
use forebay::uplink::{Config, Kind, NatsConfig};

use crate::gateway::free_port;

pub(crate) struct NatsServer {
    child: Option<Child>,
    port: u16,
    leaf_port: u16,
    folder: tempfile::TempDir,
    settings: String,
}

/// What differs from a plain server with JetStream.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Further lines of the configuration.
    pub(crate) more: &'a str,
    /// Its JetStream's domain.
    pub(crate) domain: Option<&'a str>,
    /// Port of the hub that it is a leaf of.
    pub(crate) leaf_of: Option<u16>,
    /// Without a JetStream of its own.
    pub(crate) plain: bool,
}

impl NatsServer {
    /// A server of its own, with JetStream.
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain = setup.domain.map(|domain| format!("domain: {domain}")).unwrap_or_default();
        let leaf = setup.leaf_of.map(|port| {
            format!("leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}], reconnect: 1 }}")
        });
        loop {
            let (port, leaf_port) = (free_port(), free_port());
            let leafnodes =
                leaf.clone().unwrap_or_else(|| format!("leafnodes {{ listen: \"127.0.0.1:{leaf_port}\" }}"));
            let place = folder.path().join("js");
            let jetstream =
                format!("jetstream {{ store_dir: \"{}\", max_mem: 64M, max_file: 2G, {domain} }}", place.display());
            let settings = format!(
                "listen: \"127.0.0.1:{port}\"\nserver_name: \"s{port}\"\n{}\n{leafnodes}\n{}\n",
                if setup.plain { "" } else { &jetstream },
                setup.more
            );
            if let Some(child) = spawn(folder.path(), &settings) {
                return Self { child: Some(child), port, leaf_port, folder, settings };
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where leaf nodes connect.
    pub(crate) fn leaf_port(&self) -> u16 {
        self.leaf_port
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The same port and folder again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = loop {
            if let Some(child) = spawn(self.folder.path(), &self.settings) {
                break Some(child);
            }
        };
    }

    /// Settings of a link to it that gives up soon.
    pub(crate) fn link(&self) -> Config {
        impatient(self.port)
    }

    /// Makes the fleet's stream as the collector would.
    pub(crate) async fn stream(&self) {
        fleet_stream(self.port, None, r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"workqueue","discard":"new","storage":"file","num_replicas":1}"#).await;
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn impatient(port: u16) -> Config {
    Config {
        kind: Kind::Nats,
        port,
        answer_timeout_ms: 400,
        connect_timeout_ms: 1_000,
        keep_alive_s: 5,
        nats: Some(NatsConfig::default()),
        ..Config::default()
    }
}

pub(crate) fn in_domain(domain: &str, link: Config) -> Config {
    let nats = NatsConfig { domain: Some(Name::new(domain).unwrap()), ..NatsConfig::default() };
    Config { nats: Some(nats), ..link }
}

/// Asks the API until the stream exists: a JetStream needs a moment after its start.
pub(crate) async fn fleet_stream(port: u16, domain: Option<&str>, config: &str) {
    let client = async_nats::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let api = domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
    for _ in 0..100 {
        let made = client.request(format!("{api}.STREAM.CREATE.FLEET"), config.to_owned().into()).await;
        match made {
            Ok(answer) if !String::from_utf8_lossy(&answer.payload).contains("\"error\"") => return,
            Ok(answer) => eprintln!("{}", String::from_utf8_lossy(&answer.payload)),
            Err(error) => eprintln!("{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the stream cannot be made");
}

fn binary() -> PathBuf {
    ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("nats-server is not installed: apt install nats-server")
}

/// `None` if it ended instead of running (a port was taken).
fn spawn(folder: &Path, settings: &str) -> Option<Child> {
    let config = folder.join("nats.conf");
    std::fs::write(&config, settings).unwrap();
    let mut child =
        Command::new(binary()).arg("-c").arg(&config).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("Server is ready"));
    if !running {
        let _ = child.wait();
        return None;
    }
    // Nobody reads its log further, and a full pipe would stop it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(child)
}
