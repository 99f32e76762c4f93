//! Keeps a model's host alive: starts it, watches it, ends it when it must, starts it again.
//!
//! One thread a model. The host dies with that thread, so it lives as long as the model is loaded.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use super::config::{Config, Device};
use super::library;
use super::link::{Fault, Link};
use super::metrics::{Cause, Metrics};
use super::process::{Isolation, Process};
use super::wire::{Load, Ready};
use crate::base::{Backoff, Clock, Digest};
use crate::engine::golden;
use crate::engine::spec::{NamedTensor, Sample, TensorSpec, arrange};

/// Requests that a host may refuse one after the other before it is started anew: a driver can be broken without ending.
const REFUSALS_MAX: u32 = 3;

/// What a delegate's host is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It loads the model.
    Starting,
    /// It answers.
    Serving,
    /// It is gone and will be started again.
    Down,
}

impl Phase {
    /// For people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Down => "down",
        }
    }
}

/// How a model's host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The configuration's name for the device.
    pub device: String,
    /// What it is doing.
    pub phase: Phase,
    /// The process.
    pub pid: Option<u32>,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it was last ended or started again.
    pub reason: Option<String>,
    /// Memory of its own in bytes, when it was last looked at.
    pub memory_bytes: u64,
    /// Above this it is started anew, in bytes.
    pub memory_limit_bytes: u64,
    /// Whether the kernel holds it to a hard limit, too.
    pub memory_limited_by_kernel: bool,
    /// What keeps it off the network.
    pub isolation: Isolation,
    /// ONNX Runtime's version, and the device in its driver's words.
    pub runtime: String,
    /// Who computes how many of the model's operators.
    pub placement: String,
}

/// What a keeper needs to know.
pub(super) struct Task {
    pub(super) config: Arc<Config>,
    pub(super) device: Device,
    pub(super) work_folder: std::path::PathBuf,
    /// Unique in the work folder.
    pub(super) number: u64,
    /// `name/version`.
    pub(super) model: String,
    pub(super) load: Load,
    pub(super) file: File,
    /// Of the file.
    pub(super) digest: Digest,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) samples: Vec<Sample>,
    pub(super) timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
}

struct Inner {
    state: State,
    /// Why the host has to go, by who saw it.
    fault: Option<(Cause, String)>,
    /// In a row.
    refusals: u32,
    /// A host that is loading, for whoever cannot wait until it has.
    loading: Option<Pid>,
    stop: bool,
}

struct Shared {
    task: Task,
    /// Held while a request is computed: one at a time.
    link: Mutex<Option<Link>>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// A model in a host that somebody keeps. Dropping it ends the host.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the first host and waits until the model is loaded. If it cannot be, there is no second try.
    pub(super) fn start(task: Task) -> Result<Self, String> {
        let state = State {
            device: task.device.name.to_string(),
            phase: Phase::Starting,
            pid: None,
            restarts: 0,
            reason: None,
            memory_bytes: 0,
            memory_limit_bytes: task.device.memory_limit_bytes,
            memory_limited_by_kernel: false,
            isolation: Isolation { namespace: false, filter: false },
            runtime: String::new(),
            placement: String::new(),
        };
        let inner = Inner { state, fault: None, refusals: 0, loading: None, stop: false };
        let (link, changed) = (Mutex::new(None), Condvar::new());
        let shared = Arc::new(Shared { task, link, inner: Mutex::new(inner), changed });
        let (told, first) = mpsc::sync_channel(1);
        let keep = {
            let shared = Arc::clone(&shared);
            move || shared.keep(&told)
        };
        let thread = thread::Builder::new().name("delegate".to_owned()).spawn(keep);
        let thread = thread.map_err(|error| format!("failed to start a thread: {error}"))?;
        let keeper = Self { shared, thread: Some(thread) };
        first.recv().unwrap_or_else(|_| Err("the thread that starts its host ended".to_owned()))?;
        Ok(keeper)
    }

    pub(super) fn state(&self) -> State {
        self.shared.inner().state.clone()
    }

    /// Computes one request, or says why not.
    pub(super) fn infer(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Refusal> {
        let mut link = self.shared.link.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = link.as_mut() else {
            let inner = self.shared.inner();
            let reason = inner.state.reason.clone().unwrap_or_default();
            return Err(Refusal::Down(format!("its host is {}: {reason}", inner.state.phase.as_str())));
        };
        let fault = match open.infer(inputs) {
            Ok(outputs) => {
                let mut inner = self.shared.inner();
                inner.refusals = 0;
                return Ok(outputs);
            }
            Err(fault) => fault,
        };
        let mut inner = self.shared.inner();
        inner.refusals += u32::from(matches!(fault, Fault::Refused(_)));
        if fault.is_fatal() || inner.refusals >= REFUSALS_MAX {
            *link = None;
            let cause = match &fault {
                Fault::Ended => Cause::Ended,
                Fault::Hung { .. } => Cause::Hung,
                Fault::Lied(_) => Cause::Lied,
                Fault::Refused(_) | Fault::TooLarge { .. } => Cause::Refusals,
            };
            inner.fault.get_or_insert((cause, fault.to_string()));
            inner.state.phase = Phase::Down;
            inner.state.reason = Some(fault.to_string());
            self.shared.changed.notify_all();
        }
        Err(match fault {
            Fault::Refused(_) | Fault::TooLarge { .. } => Refusal::Request(fault.to_string()),
            fault => Refusal::Down(fault.to_string()),
        })
    }
}

/// Why a request was not computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The host is not there, or was lost on the way.
    Down(String),
    /// The host is there and cannot compute this one.
    Request(String),
}

impl Drop for Keeper {
    fn drop(&mut self) {
        {
            let mut inner = self.shared.inner();
            inner.stop = true;
            if let Some(pid) = inner.loading.take() {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, told: &mpsc::SyncSender<Result<(), String>>) {
        let Task { config, clock, model, device, metrics, .. } = &self.task;
        let (first, most) =
            (Duration::from_millis(config.restart_first_ms), Duration::from_millis(config.restart_most_ms));
        let mut backoff = Backoff::new(first, most);
        // Hosts of one box: nobody else's restarts coincide with these.
        let mut rng = StdRng::seed_from_u64(self.task.number);
        for start in 0_u64.. {
            let began = clock.since_boot();
            let ended = match self.run(start) {
                Ok(process) => {
                    drop(told.try_send(Ok(())));
                    let why = self.watch(process);
                    metrics.up(model, false);
                    why
                }
                Err(reason) if start == 0 => {
                    drop(told.try_send(Err(reason)));
                    return;
                }
                Err(reason) => Some((Cause::Start, format!("its host does not start: {reason}"))),
            };
            let Some((cause, reason)) = ended else { return };
            if self.inner().stop {
                return;
            }
            tracing::error!(model.name = model, device = %device.name, cause = cause.as_str(), reason, "a delegate's host is gone");
            metrics.restarted(model, cause);
            if clock.since_boot().saturating_sub(began) > most {
                backoff.reset();
            }
            let mut inner = self.inner();
            inner.state.reason = Some(reason);
            (inner.state.phase, inner.state.pid, inner.state.memory_bytes) = (Phase::Down, None, 0);
            let wait = backoff.next_wait(&mut rng);
            let stopped = self.changed.wait_timeout_while(inner, wait, |inner| !inner.stop);
            let (mut inner, _) = stopped.unwrap_or_else(PoisonError::into_inner);
            if inner.stop {
                return;
            }
            inner.state.restarts += 1;
            inner.state.phase = Phase::Starting;
        }
    }

    /// Starts a host, has it load the model and, after the first time, show again that it computes what it must.
    fn run(&self, start: u64) -> Result<Process, String> {
        let Task { config, device, work_folder, number, model, load, file, digest, outputs, timeout, .. } = &self.task;
        library::check(&config.library, config.library_sha256)?;
        if start > 0 && self.file_digest().map_err(|error| format!("failed to read the model: {error}"))? != *digest {
            return Err("somebody wrote to the model's file since it was loaded; load the model again".to_owned());
        }
        let home = format!("host-{}-{number}-{start}", std::process::id());
        let (process, socket) = Process::start(config, work_folder, &home, model)?;
        let timeouts = (Duration::from_millis(config.load_timeout_ms), *timeout);
        {
            let mut inner = self.inner();
            if inner.stop {
                return Err("it is not needed any more".to_owned());
            }
            inner.loading = i32::try_from(process.pid()).ok().and_then(Pid::from_raw);
        }
        let opened = Link::open(socket, load, file, outputs.clone(), timeouts, config.shared_bytes_max);
        // Before anybody waits for its end: afterwards the number could be another's.
        self.inner().loading = None;
        let (mut link, ready) = match opened {
            Ok(opened) => opened,
            Err(Fault::Ended) => return Err(format!("it ended while loading, with {}", process.end())),
            Err(fault) => return Err(fault.to_string()),
        };
        let isolation = Isolation::of(process.pid());
        if !isolation.holds() && !config.allow_network {
            return Err("nothing keeps it off the network here; delegate.allow_network = true lets it run".to_owned());
        }
        if start > 0 {
            self.samples(&mut link)?;
        }
        let Ready { runtime, device: words, placement, limited, .. } = ready;
        let placement = placement.iter().map(|(who, nodes)| format!("{who} {nodes}")).collect::<Vec<_>>().join(", ");
        let pid = process.pid();
        {
            let mut inner = self.inner();
            (inner.fault, inner.refusals) = (None, 0);
            let state = &mut inner.state;
            (state.phase, state.pid, state.isolation) = (Phase::Serving, Some(pid), isolation);
            state.memory_limited_by_kernel = limited;
            state.runtime = format!("ONNX Runtime {runtime} on {words}");
            state.placement.clone_from(&placement);
        }
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        self.task.metrics.up(model, true);
        tracing::info!(
            model.name = model, device = %device.name, pid, runtime, on = words, placement,
            isolation = isolation.as_str(), start, "a delegate's host serves"
        );
        if !isolation.holds() {
            tracing::warn!(model.name = model, "nothing keeps this delegate's host off the network");
        }
        Ok(process)
    }

    /// Of the model's file as it is now: an earlier host had it open, under the same user.
    fn file_digest(&self) -> std::io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut piece = vec![0; 256 * 1024];
        let mut at = 0;
        loop {
            match self.task.file.read_at(&mut piece, at)? {
                0 => return Ok(Digest::from(<[u8; 32]>::from(hasher.finalize()))),
                read => {
                    hasher.update(&piece[..read]);
                    at += read as u64;
                }
            }
        }
    }

    /// What a driver computed right before it crashed it may compute wrong afterwards.
    fn samples(&self, link: &mut Link) -> Result<(), String> {
        let Task { device, model, inputs, samples, .. } = &self.task;
        for (at, sample) in samples.iter().enumerate() {
            let inputs = arrange(inputs, sample.inputs.clone(), usize::MAX).map_err(|error| error.to_string())?;
            let outputs = link.infer(&inputs).map_err(|fault| fault.to_string())?;
            golden::compare(model, device.provider.engine(), sample, at + 1, &outputs)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Watches a host until it has to go or nobody needs it any more, and ends it. Says why it went; None if nobody needs it.
    fn watch(&self, mut process: Process) -> Option<(Cause, String)> {
        let Task { config, device, model, metrics, .. } = &self.task;
        let pause = Duration::from_millis(config.watch_ms);
        let mut inner = self.inner();
        loop {
            if inner.stop {
                drop(inner);
                return None;
            }
            if let Some((cause, reason)) = inner.fault.take() {
                drop(inner);
                let reason = match cause {
                    Cause::Ended => format!("{reason}, with {}", process.end()),
                    _ => reason,
                };
                return Some((cause, reason));
            }
            drop(inner);
            if process.has_ended() {
                self.take_link();
                return Some((Cause::Ended, format!("its host ended, with {}", process.end())));
            }
            let memory = process.memory_bytes().unwrap_or(0);
            metrics.memory(model, memory);
            let (limit, hard) = (device.memory_limit_bytes, device.hard_limit_bytes());
            if memory > limit {
                if memory > hard {
                    process.kill();
                }
                // Waits for the request that is being computed.
                self.take_link();
                let reason =
                    format!("its host had {memory} bytes of memory, the limit is {limit} (memory_limit_bytes)");
                return Some((Cause::Memory, reason));
            }
            inner = self.inner();
            inner.state.memory_bytes = memory;
            let woken = self.changed.wait_timeout_while(inner, pause, |inner| !inner.stop && inner.fault.is_none());
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_link(&self) {
        // Said before, so that whoever finds no link finds the phase that goes with it.
        self.inner().state.phase = Phase::Down;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
