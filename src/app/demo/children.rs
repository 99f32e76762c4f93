//! The processes of the demonstration: each is this same binary, and none outlives it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

use super::probe;

/// How long a process may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// One process of this binary, with its log in a file.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `forebay ARGUMENTS`; what it logs goes to the end of `log`.
    pub(crate) fn start(name: &'static str, binary: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let child = spawn(binary, &arguments, log).with_context(|| format!("failed to start the {name}"))?;
        Ok(Self { name, binary: binary.to_owned(), arguments, log: log.to_owned(), child })
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("failed to kill the {}", self.name))
    }

    /// Starts it again with the same arguments.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.binary, &self.arguments, &self.log)
            .with_context(|| format!("failed to start the {} again", self.name))?;
        Ok(())
    }

    /// Waits until `/readyz` on `address` says yes.
    pub(crate) async fn ready(&mut self, address: SocketAddr) -> Result<()> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the {} ended ({status}); its log ends with:\n{}", self.name, self.log_tail());
                }
                if let Ok((200, _)) = probe::get(address, "/readyz").await {
                    return Ok(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the {} was not ready within {} s", self.name, START_LIMIT.as_secs()),
        }
    }

    /// Fails if the process has ended.
    pub(crate) fn running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the {} ended ({status}); its log ends with:\n{}", self.name, self.log_tail()),
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

fn spawn(binary: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open {}", log.display()))?;
    Command::new(binary)
        .args(arguments)
        // A pipe that nobody writes: an empty root has no /dev/null.
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to run {}", binary.display()))
}

/// This binary. In a root without /proc its own name as it was called.
pub(crate) fn own_binary() -> Result<PathBuf> {
    std::env::current_exe().or_else(|_| {
        let name = std::env::args_os().next().context("this process has no name")?;
        std::path::absolute(name).context("failed to find this binary")
    })
}
