//! A private PostgreSQL: own port, own folder, killed and removed with the value.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forebay::inbox::WarehouseConfig;
use tokio_postgres::{Client, NoTls};

use crate::gateway::{free_port, poll};

pub(crate) struct Postgres {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
    settings: String,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self::with("", "trust")
    }

    /// With further settings, one a line, and the way in which clients prove themselves.
    pub(crate) fn with(settings: &str, authentication: &str) -> Self {
        Self::with_files(settings, authentication, |_| ())
    }

    /// With files of its own beside the data; `{folder}` in the settings is where they are.
    pub(crate) fn with_files(settings: &str, authentication: &str, files: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let data = folder.path().join("data");
        std::fs::write(folder.path().join("password"), "open sesame\n").unwrap();
        give_to_the_server(folder.path());
        let made = server_user(&program("initdb"))
            .args(["--username=forebay", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--auth={authentication}"))
            .arg("--pwfile")
            .arg(folder.path().join("password"))
            .arg("-D")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings = settings.replace("{folder}", &folder.path().display().to_string());
        let mut server = Self { child: None, port: 0, folder, settings };
        // Somebody may take the port between the look and the start.
        while server.child.is_none() {
            server.port = free_port();
            server.child = server.spawn();
        }
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Of the server's first process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGQUIT: every connection ends at once and nothing is saved, as after a crash.
    pub(crate) fn kill(&mut self) {
        let pid = self.pid().to_string();
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-QUIT", &pid]).status();
            child.wait().unwrap();
        }
    }

    /// The same port and folder again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        while self.child.is_none() {
            self.child = self.spawn();
        }
    }

    pub(crate) fn config(&self) -> WarehouseConfig {
        WarehouseConfig {
            port: self.port,
            database: "postgres".to_owned(),
            connections: 2,
            connect_timeout_ms: 5_000,
            partitions: 4,
            ..WarehouseConfig::default()
        }
    }

    /// A look of one's own into it.
    pub(crate) async fn client(&self) -> Client {
        let options = format!("host=127.0.0.1 port={} user=forebay password='open sesame' dbname=postgres", self.port);
        let (client, connection) = tokio_postgres::connect(&options, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Every row's (gateway, class, stream, body) in order.
    pub(crate) async fn bodies(&self) -> Vec<(String, String, String, Vec<u8>)> {
        let sql = "SELECT gateway, class, stream, body FROM forebay_row JOIN forebay_series USING (series_no)
                   ORDER BY gateway, epoch, class, stream, seq";
        let rows = self.client().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    fn spawn(&self) -> Option<Child> {
        let data = self.folder.path().join("data");
        // A lock file of a killed server whose number somebody else has by now would stop it.
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
        let mut command = server_user(&program("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1"])
            .arg("-c")
            .arg(format!("port={}", self.port));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder.path().display()));
        for setting in self.settings.lines().filter(|line| !line.is_empty()) {
            command.arg("-c").arg(setting);
        }
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let ready = poll("PostgreSQL is ready or has ended", || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let asked = Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            asked.success().then_some(true)
        });
        if ready {
            return Some(child);
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(log.contains("could not bind") || log.contains("in use"), "{log}");
        None
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The newest version that Debian installed.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is not installed: apt install postgresql")
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is not installed: apt install postgresql")
}

fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}

/// PostgreSQL refuses to run as root.
fn server_user(program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // Its own process is the server, so that signals reach it, and it ends with the test.
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"]).arg(program);
    command.current_dir("/");
    command
}

pub(crate) fn give_to_the_server(folder: &Path) {
    if root() {
        assert!(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(folder).status().unwrap().success());
    }
}
