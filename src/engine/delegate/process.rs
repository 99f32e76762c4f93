//! A host as a process: started with nothing of ours but one socket, watched from outside, ended whole.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::config::Config;
use super::socket::Socket;

/// Bytes of a line on a host's standard error that are kept.
const LINE_BYTES_MAX: u64 = 1024;
/// Lines of one host that go into the log.
const LINES_LOGGED: usize = 50;
/// How long what a dead host said last is waited for.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);
/// Lines that are remembered for the reason why it ended.
const LINES_REMEMBERED: usize = 3;

/// What keeps a host off the network, as the kernel shows it to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// A network namespace that is not ours.
    pub namespace: bool,
    /// A filter on its system calls.
    pub filter: bool,
}

impl Isolation {
    /// Whether anything does.
    pub fn holds(self) -> bool {
        self.namespace || self.filter
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match (self.namespace, self.filter) {
            (true, true) => "no network: a namespace of its own, and its calls are filtered",
            (true, false) => "no network: a namespace of its own",
            (false, true) => "no network: its calls are filtered",
            (false, false) => "nothing keeps it off the network",
        }
    }

    /// Of a process that has given up what it gives up.
    pub(super) fn of(pid: u32) -> Self {
        let space = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
        let (ours, its) = (space("self"), space(&pid.to_string()));
        // A container filters everybody's calls: only a filter more than we have is the host's own.
        let filters = |of: &str| {
            let status = std::fs::read_to_string(format!("/proc/{of}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?.trim().parse::<u32>().ok()
        };
        let filter = filters(&pid.to_string()) > filters("self");
        Self { namespace: ours.is_some() && its.is_some() && ours != its, filter }
    }
}

/// A running host.
pub(super) struct Process {
    child: Child,
    home: PathBuf,
    last_words: Arc<Mutex<Vec<String>>>,
    /// Ends with the thread that hears its standard error.
    listener: Option<mpsc::Receiver<()>>,
}

impl Process {
    /// Starts a host for `model`. It dies with the thread that calls this.
    pub(super) fn start(
        config: &Config,
        work_folder: &Path,
        home: &str,
        model: &str,
    ) -> Result<(Self, Socket), String> {
        let failed =
            |what: &str, path: &Path, error: &io::Error| format!("failed to {what} {}: {error}", path.display());
        let home = work_folder.join(home);
        std::fs::create_dir_all(&home).map_err(|error| failed("make", &home, &error))?;
        let (ours, its) = Socket::pair().map_err(|error| format!("failed to make a socket: {error}"))?;
        let mut command = Command::new(&config.program);
        command
            .arg("serve")
            .arg(std::process::id().to_string())
            .env_clear()
            .env("HOME", &home)
            .env("TMPDIR", &home)
            // Official builds from 1.29 on would report to their maker.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .current_dir(&home)
            .stdin(Stdio::from(its.into_fd()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What it starts ends with it, and a Ctrl-C at the terminal is not for it.
            .process_group(0);
        if let Ok(folders) = std::env::join_paths(&config.library_folders)
            && !folders.is_empty()
        {
            command.env("LD_LIBRARY_PATH", folders);
        }
        let child = command.spawn().map_err(|error| {
            drop(std::fs::remove_dir_all(&home));
            failed("start", &config.program, &error)
        })?;
        // The gateway's copy of the host's end must go, or its death would not show.
        drop(command);
        let mut process = Self { child, home, last_words: Arc::default(), listener: None };
        if let Some(stderr) = process.child.stderr.take() {
            let (last_words, model) = (Arc::clone(&process.last_words), model.to_owned());
            let (heard, listener) = mpsc::sync_channel(1);
            let listen = move || {
                listen(stderr, &last_words, &model);
                drop(heard);
            };
            if thread::Builder::new().name("delegate-words".to_owned()).spawn(listen).is_ok() {
                process.listener = Some(listener);
            }
        }
        Ok((process, ours))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Memory of its own in bytes: neither libraries nor what it shares.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).ok()?;
        let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
    }

    /// Ends it and all that it started, takes its home away, and says how it ended.
    pub(super) fn end(mut self) -> String {
        // It may have ended by itself, or be about to, and say so better than our signal would.
        let before = self.child.try_wait().ok().flatten();
        self.kill();
        let Some(status) = before.or_else(|| self.child.wait().ok()) else { return String::new() };
        if before.is_none() && status.signal() == Some(libc::SIGKILL) {
            return how(status);
        }
        if let Some(listener) = self.listener.take() {
            // Its group is gone, so its standard error ends, unless something left the group and holds it.
            let _ = listener.recv_timeout(LAST_WORDS_WAIT);
        }
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner).join(" / ");
        if words.is_empty() { how(status) } else { format!("{}; its last words: {words}", how(status)) }
    }

    /// Now, whatever it does.
    pub(super) fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        drop(self.child.kill());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.home));
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let name = match signal {
                libc::SIGABRT => " (aborted)",
                libc::SIGBUS => " (bus error)",
                libc::SIGFPE => " (arithmetic)",
                libc::SIGILL => " (illegal instruction)",
                libc::SIGKILL => " (killed)",
                libc::SIGSEGV => " (segmentation fault)",
                libc::SIGSYS => " (a forbidden system call)",
                _ => "",
            };
            format!("signal {signal}{name}")
        }
        (None, None) => "an unknown way".to_owned(),
    }
}

/// Passes a host's standard error on, within bounds. A vendor's library writes what it likes.
fn listen(stderr: impl io::Read, last_words: &Mutex<Vec<String>>, model: &str) {
    let mut reader = BufReader::new(stderr);
    let mut logged = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        match logged {
            ..LINES_LOGGED => tracing::warn!(model.name = model, line = text, "a delegate's host says"),
            LINES_LOGGED => tracing::warn!(model.name = model, "a delegate's host says more than is logged"),
            _ => {}
        }
        logged += 1;
        let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LINES_REMEMBERED {
            words.remove(0);
        }
        words.push(text.to_owned());
    }
}

/// A model's bytes in a file without a name, open for reading only: every start of a host takes them from there, and the
/// kernel need not keep them in memory meanwhile.
pub(super) fn model_file(work_folder: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    std::fs::create_dir_all(work_folder)?;
    let path = work_folder.join(name);
    let write = || {
        File::options().write(true).create_new(true).mode(0o400).open(&path)?.write_all(bytes)?;
        File::open(&path)
    };
    let file = write();
    let removed = std::fs::remove_file(&path);
    let file = file?;
    removed.map(|()| file)
}

/// Takes away what a gateway that was killed left behind.
pub(super) fn clear(work_folder: &Path) {
    let Ok(entries) = std::fs::read_dir(work_folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("host-") {
            drop(std::fs::remove_dir_all(entry.path()));
        } else if name.starts_with("model-") {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, script: &str) -> Config {
        let path = folder.join("host.sh");
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(&path).unwrap();
        file.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        Config { program: path, ..Config::default() }
    }

    fn wait(process: &mut Process) {
        drop(process.child.wait());
    }

    #[test]
    fn a_host_has_a_home_of_its_own_and_nothing_of_our_environment() {
        let folder = tempfile::tempdir().unwrap();
        let config = program(folder.path(), r#"/usr/bin/env >&2; echo "in $(pwd)" >&2; ls /proc/self/fd | wc -l >&2"#);
        let (mut process, _socket) = Process::start(&config, folder.path(), "host-1", "press/1").unwrap();
        wait(&mut process);
        let _ = process.listener.take().unwrap().recv();
        let words = process.last_words.lock().unwrap().clone();
        assert!(words.iter().any(|word| word.ends_with("/host-1")), "{words:?}");
        let home = process.home.clone();
        assert!(home.is_dir());
        assert_eq!(process.end(), format!("exit code 0; its last words: {}", words.join(" / ")));
        assert!(!home.exists());
    }

    #[test]
    fn how_a_host_ended_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let config = program(folder.path(), "echo 'driver fault 17' >&2; kill -SEGV $$");
        let (mut process, _socket) = Process::start(&config, folder.path(), "host-2", "press/1").unwrap();
        wait(&mut process);
        assert_eq!(process.end(), "signal 11 (segmentation fault); its last words: driver fault 17");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { program: "/nowhere/forebay-delegate".into(), ..Config::default() };
        let error = Process::start(&config, folder.path(), "host-3", "press/1").err().unwrap();
        assert!(error.starts_with("failed to start /nowhere/forebay-delegate: "), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_model_file_has_no_name_and_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = model_file(folder.path(), "model-1", b"weights").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(file.write_all(b"other").is_err());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"weights");
    }

    #[test]
    fn what_a_killed_gateway_left_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("host-7")).unwrap();
        std::fs::create_dir(folder.path().join("cache")).unwrap();
        File::create(folder.path().join("model-7")).unwrap();
        clear(folder.path());
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["cache"]);
    }
}
