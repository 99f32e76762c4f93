//! Programs that answer: the gateway, and the others where they are installed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::CPU;
use crate::case::Case;
use crate::wire::{Grpc, Http, post};

/// What one turn of a case measured.
pub(crate) struct Turn {
    pub(crate) latency_us: Vec<f64>,
    /// Of the server's processes, for each request.
    pub(crate) cpu_us: f64,
    /// That of the gateway's threads that compute models.
    pub(crate) infer_us: f64,
}

/// A server in a process group of its own, which ends with this.
pub(crate) struct Server {
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.process);
        // BentoML's workers leave the group.
        let family = descendants(self.process.id());
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        for pid in family.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

/// Processes that a process has started, and those that they have.
fn descendants(root: u32) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Behind the name, which may have anything in it: state, parent.
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let pairs: Vec<(u32, u32)> = numbers.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let (mut family, mut at) = (vec![root], 0);
    while let Some(&elder) = family.get(at) {
        family.extend(pairs.iter().filter(|(_, parent)| *parent == elder).map(|(pid, _)| *pid));
        at += 1;
    }
    family.split_off(1)
}

impl Server {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let process =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0).spawn().unwrap();
        Self { process }
    }

    pub(crate) fn group(&self) -> u32 {
        self.process.id()
    }

    fn is_up(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The gateway over the models of the folder; with a delegate host that gives each of them to ONNX Runtime, where there is one.
pub(crate) fn gateway(
    program: &Path,
    models: &Path,
    work: &Path,
    name: &str,
    delegate: &str,
) -> (Server, SocketAddr, SocketAddr) {
    let [mqtt, http, grpc] = [free(), free(), free()];
    let state = work.join(name);
    let text = format!(
        "[gateway]\nname = \"bench\"\n[store]\nstate_dir = {state:?}\n[catalog]\nfolder = {models:?}\n\
         [access]\nallow_anonymous_loopback = true\n[engine]\nthreads = 1\n\
         [[mqtt.listener]]\naddress = \"{mqtt}\"\n\
         [http]\naddress = \"{http}\"\nbody_max_bytes = 67108864\nrequest_timeout_ms = 60000\n\
         [grpc]\naddress = \"{grpc}\"\nmessage_max_bytes = 67108864\ncall_timeout_ms = 60000\n{delegate}"
    );
    let config = work.join(format!("{name}.toml"));
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    let server = Server::start(command.args(["run", "--config"]).arg(&config), &work.join(format!("{name}.log")));
    (server, http, grpc)
}

/// The configuration of a delegate host, if this build has one and the library is there.
pub(crate) fn delegate(python: &str) -> Option<String> {
    let program = option_env!("CARGO_BIN_EXE_forebay-delegate")?;
    let find = "import importlib.util as u, pathlib as p; \
                print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi/libonnxruntime.so.1.28.0')";
    let said = Command::new(python).args(["-c", find]).output().ok()?;
    let library = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim());
    library.exists().then(|| {
        format!(
            "[delegate]\nprogram = {program:?}\nlibrary = {library:?}\n\
             [[delegate.device]]\nname = \"cpu\"\nprovider = \"cpu\"\nmemory_limit_bytes = 4000000000\n\
             [[delegate.model]]\nname = \"*\"\ndevices = [\"cpu\"]\nrequire_golden = false\n"
        )
    })
}

/// The Python of a peer's own environment, if it is installed.
pub(crate) fn python_of(peer: &str) -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var("FOREBAY_PEERS").ok()?).join(peer).join("bin/python");
    python.exists().then_some(python)
}

/// A peer that answers on `address` once it is up.
pub(crate) fn peer(python: &Path, script: &str, folder: &Path, rest: &[String]) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/serving").join(script);
    let log = folder.join(script.file_stem().unwrap()).with_extension("log");
    Server::start(Command::new(python).arg(&script).arg(folder).args(rest), &log)
}

/// Waits until a path answers 200. False if the program ended before, or took too long.
pub(crate) fn is_ready(server: &mut Server, address: SocketAddr, path: &str) -> bool {
    let began = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    while server.is_up() && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
        if TcpStream::connect(address).is_ok() {
            let asked = std::panic::catch_unwind(|| Http::connect(address).ask(request.as_bytes()).0);
            if asked.is_ok_and(|status| status == 200) {
                return true;
            }
        }
    }
    false
}

/// How a server is asked.
pub(crate) enum Way {
    /// Open Inference Protocol.
    Json(Http, SocketAddr),
    Binary(Http, SocketAddr),
    Grpc(Box<Grpc>),
    /// BentoML's service.
    Bento(Http, SocketAddr),
    /// A Python process, by its standard input.
    Told(ChildStdin, BufReader<ChildStdout>, Child),
}

pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) way: Way,
    /// The processes whose CPU time counts.
    pub(crate) group: u32,
}

/// A Python process without a server.
pub(crate) fn session(python: &Path, runtime: &str, folder: &Path) -> Option<Contender> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/serving/session.py");
    let mut command = Command::new(python);
    command.arg(script).arg(runtime).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().ok()?;
    let (told, mut answers) = (process.stdin.take()?, BufReader::new(process.stdout.take()?));
    let mut line = String::new();
    answers.read_line(&mut line).ok()?;
    let version = serde_json::from_str::<Value>(&line).ok()?["version"].as_str()?.to_owned();
    let group = process.id();
    Some(Contender { name: format!("{runtime} {version}"), way: Way::Told(told, answers, process), group })
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Way::Told(_, _, process) = &mut self.way {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Contender {
    /// One turn of about `seconds`, at least three requests. None if it does not compute this model.
    pub(crate) fn turn(&mut self, case: &Case, seconds: f64) -> Option<Turn> {
        self.renew();
        let path = format!("/v2/models/{}/infer", case.model);
        match &mut self.way {
            Way::Json(http, address) => {
                let request = post(*address, &path, None, &case.json);
                Some(timed(self.group, seconds, || assert_eq!(http.ask(&request).0, 200)))
            }
            Way::Binary(http, address) => {
                let request = post(*address, &path, Some(case.binary.0), &case.binary.1);
                Some(timed(self.group, seconds, || assert_eq!(http.ask(&request).0, 200)))
            }
            Way::Bento(http, address) => {
                let request = post(*address, "/infer", None, &case.bento);
                Some(timed(self.group, seconds, || assert_eq!(http.ask(&request).0, 200)))
            }
            Way::Grpc(grpc) => Some(timed(self.group, seconds, || assert!(!grpc.ask(&case.message).is_empty()))),
            Way::Told(told, answers, _) => {
                let asked = json!({ "model": case.model, "batch": case.batch, "seconds": seconds });
                writeln!(told, "{asked}").unwrap();
                let mut line = String::new();
                answers.read_line(&mut line).unwrap();
                let said: Value = serde_json::from_str(&line).unwrap();
                let latency_us: Vec<f64> = serde_json::from_value(said["latency_us"].clone()).ok()?;
                let cpu_us = said["cpu_us"].as_f64()? / latency_us.len() as f64;
                Some(Turn { latency_us, cpu_us, infer_us: 0.0 })
            }
        }
    }

    /// Opens its connection again: some servers close one that was idle for the others' turns.
    fn renew(&mut self) {
        if let Way::Json(http, address) | Way::Binary(http, address) | Way::Bento(http, address) = &mut self.way {
            *http = Http::connect(*address);
        }
    }

    /// Holds an answer against what the engine in this process says.
    pub(crate) fn check(&mut self, case: &Case) {
        self.renew();
        let path = format!("/v2/models/{}/infer", case.model);
        let expected = case.expected.last().unwrap().tensor.clone();
        let close = |given: &[f64]| {
            let expected = expected.to_numbers().unwrap();
            assert_eq!(given.len(), expected.len(), "{} of {}", self.name, case.title());
            for (given, expected) in given.iter().zip(&expected) {
                let fits = (given - expected).abs() <= 1e-3 * expected.abs().max(1.0);
                assert!(fits, "{} of {}: {given}, expected {expected}", self.name, case.title());
            }
        };
        match &mut self.way {
            Way::Json(http, address) => {
                let (status, body) = http.ask(&post(*address, &path, None, &case.json));
                assert_eq!(status, 200, "{}: {}", case.title(), String::from_utf8_lossy(body));
                let said: Value = serde_json::from_slice(body).unwrap();
                let data = &said["outputs"].as_array().unwrap().last().unwrap()["data"];
                close(&serde_json::from_value::<Vec<f64>>(data.clone()).unwrap());
            }
            Way::Binary(http, address) => {
                let (status, body) = http.ask(&post(*address, &path, Some(case.binary.0), &case.binary.1));
                assert_eq!(status, 200, "{}: {}", case.title(), String::from_utf8_lossy(body));
                close(&numbers(&body[body.len() - expected.bytes().len()..]));
            }
            Way::Grpc(grpc) => {
                let body = grpc.ask(&case.message);
                // The bytes of the last output stand at the end.
                close(&numbers(&body[body.len().saturating_sub(expected.bytes().len())..]));
            }
            Way::Bento(http, address) => {
                let (status, body) = http.ask(&post(*address, "/infer", None, &case.bento));
                assert_eq!(status, 200, "{}: {}", case.title(), String::from_utf8_lossy(body));
            }
            Way::Told(..) => {}
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()).into()).collect()
}

fn timed(group: u32, seconds: f64, mut request: impl FnMut()) -> Turn {
    let mut latency_us = Vec::new();
    let (before, infer_before) = (CPU.group(group), CPU.threads_named(group, "infer-"));
    let began = Instant::now();
    while latency_us.len() < 3 || began.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        request();
        latency_us.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    let each = |used: f64| used / latency_us.len() as f64;
    let (cpu_us, infer_us) = (CPU.group(group) - before, CPU.threads_named(group, "infer-") - infer_before);
    Turn { cpu_us: each(cpu_us), infer_us: each(infer_us), latency_us }
}
