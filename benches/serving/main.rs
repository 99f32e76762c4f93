//! What a request costs above the engine's own time, and how long it takes beside other servers and beside no server.
//!
//! `FOREBAY_PYTHON=... FOREBAY_PEERS=... cargo bench --bench serving [-- MODEL...]`: five models, batches of 1 and 8; with
//! `--features delegate-host` also through ONNX Runtime in the delegate host. Peers that are not installed are said and left
//! out. Everybody takes turns, ROUNDS (5) of SLICE_MS (200), and medians of the rounds are printed.
//! FOREBAY_BEFORE is another build of the gateway to compare with. CPU time is what the
//! kernel counted for the server's threads, so that a busy machine changes it little; the times to an answer it does.
//! `pipelines` and `batches` among the arguments are parts that are left out otherwise only where models are named: what a
//! pipeline's steps add, and several callers at the same time.
//! With ONE_CORE=1 everybody shares one core: where cores are virtual, waking a sleeping one costs more than a request.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

mod case;
mod servers;
mod together;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use case::Case;
use servers::{Contender, Server, Turn, Way, delegate, free, gateway, is_ready, peer, python_of, session};
use wire::{Grpc, Http};

/// As in the gateway, for the engine that runs in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time from the kernel's own account, in microseconds.
pub(crate) struct Cpu;
pub(crate) const CPU: Cpu = Cpu;

impl Cpu {
    /// Of this thread.
    pub(crate) fn thread(&self) -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1000.0
    }

    /// Of every thread of the processes of a group.
    pub(crate) fn group(&self, group: u32) -> f64 {
        self.threads_named(group, "")
    }

    /// Of those whose name begins so.
    pub(crate) fn threads_named(&self, group: u32, prefix: &str) -> f64 {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let processes = processes.filter(|entry| entry.file_name().to_str().is_some_and(is_number));
        let of_group = |stat: &str| {
            // Behind the name, which may have anything in it: state, parent, group.
            let group_of = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2)?.parse::<u32>().ok());
            group_of == Some(group)
        };
        let mut sum = 0.0;
        for process in processes {
            if !std::fs::read_to_string(process.path().join("stat")).is_ok_and(|stat| of_group(&stat)) {
                continue;
            }
            for thread in std::fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
                let named = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
                let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                if named.starts_with(prefix) {
                    sum += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0;
                }
            }
        }
        sum
    }
}

/// What was measured of one contender with one case.
#[derive(Default)]
struct Measured {
    cpu_us: Vec<f64>,
    infer_us: Vec<f64>,
    p50_us: Vec<f64>,
    all_us: Vec<f64>,
}

impl Measured {
    fn add(&mut self, turn: Turn) {
        self.cpu_us.push(turn.cpu_us);
        self.infer_us.push(turn.infer_us);
        self.p50_us.push(median(turn.latency_us.clone()));
        self.all_us.extend(turn.latency_us);
    }

    fn p99_us(&self) -> f64 {
        let mut all = self.all_us.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() * 99 / 100).copied().unwrap_or(f64::NAN)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn setting(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn main() {
    if setting("ONE_CORE", 0) > 0 {
        let mut first = rustix::thread::CpuSet::new();
        first.set(0);
        // Programs that are started from here inherit it.
        rustix::thread::sched_setaffinity(None, &first).unwrap();
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let made = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("FOREBAY_SERVING_MODELS");
    let folder = kept.as_ref().map_or_else(|| made.path().to_owned(), Into::into);
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !folder.join("cases.json").exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/serving/models.py");
        assert!(Command::new(&python).arg(script).arg(&folder).status().unwrap().success());
    }
    let (parts, wanted): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|word| matches!(word.as_str(), "pipelines" | "batches"));
    let has_part = |part: &str| parts.iter().any(|wanted| wanted == part) || (parts.is_empty() && wanted.is_empty());
    let cases = case::cases(&folder, &wanted);
    let (rounds, seconds) = (setting("ROUNDS", 5), f64::from(setting("SLICE_MS", 200)) / 1000.0);
    if parts.is_empty() {
        alone_and_beside(&cases, &folder, made.path(), &python, rounds, seconds);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_forebay"));
    if has_part("pipelines") {
        let cases: Vec<Case> = cases.iter().filter(|case| case.numbers < 10_000).cloned().collect();
        together::pipelines(program, &folder, made.path(), &cases, rounds, seconds);
    }
    if has_part("batches") {
        let cases: Vec<Case> = cases.into_iter().filter(|case| case.model != "mobilenet").collect();
        together::batches(program, &folder, made.path(), &cases, rounds, seconds.max(1.0));
    }
}

/// One caller at a time, beside the other servers.
fn alone_and_beside(cases: &[Case], folder: &Path, work: &Path, python: &str, rounds: u32, seconds: f64) {
    let (servers, mut contenders) = contenders(folder, work, python);
    for case in cases {
        contenders.iter_mut().for_each(|contender| contender.check(case));
    }
    let mut engine: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut measured: BTreeMap<(String, usize), Measured> = BTreeMap::new();
    for _ in 0..rounds {
        for case in cases {
            engine.entry(case.title()).or_default().push(case.alone(seconds));
            for (at, contender) in contenders.iter_mut().enumerate() {
                if let Some(turn) = contender.turn(case, seconds) {
                    measured.entry((case.title(), at)).or_default().add(turn);
                }
            }
        }
    }
    drop(servers);
    costs(cases, &engine, &contenders, &measured);
    times(cases, &contenders, &measured);
}

/// Every contender that can be had here.
fn contenders(folder: &Path, work: &Path, python: &str) -> (Vec<Server>, Vec<Contender>) {
    let (mut servers, mut contenders) = (Vec::new(), Vec::new());
    let mut ours = |program: &Path, name: &str, config: &str, prefix: &str| {
        let (mut server, http, grpc) = gateway(program, &folder.join("models"), work, name, config);
        assert!(
            is_ready(&mut server, http, "/readyz"),
            "it did not start: {}",
            std::fs::read_to_string(work.join(format!("{name}.log"))).unwrap()
        );
        let group = server.group();
        let ways = [
            ("JSON", Way::Json(Http::connect(http), http)),
            ("binary", Way::Binary(Http::connect(http), http)),
            ("gRPC", Way::Grpc(Box::new(Grpc::connect(grpc, "/inference.GRPCInferenceService/ModelInfer")))),
        ];
        contenders.extend(ways.into_iter().map(|(name, way)| Contender {
            name: format!("{prefix}{name}"),
            way,
            group,
        }));
        servers.push(server);
    };
    let program = Path::new(env!("CARGO_BIN_EXE_forebay"));
    ours(program, "gateway", "", "");
    if let Some(before) = std::env::var_os("FOREBAY_BEFORE") {
        ours(Path::new(&before), "before", "", "before ");
    }
    match delegate(python) {
        Some(config) => ours(program, "host", &config, "host "),
        None => println!("left out: the delegate host, which is built with --features delegate-host"),
    }
    for (name, script, ready, workers) in [
        ("mlserver", "mlserver_onnx.py", "/v2/health/ready", Some("1")),
        ("bentoml", "bentoml_onnx.py", "/readyz", None),
    ] {
        let Some(python) = python_of(name) else {
            println!("left out: {name}, of which FOREBAY_PEERS has no {name}/bin/python (tests/tools.sh bench)");
            continue;
        };
        let address = free();
        let rest: Vec<String> = [address.port().to_string()].into_iter().chain(workers.map(str::to_owned)).collect();
        let mut server = peer(&python, script, folder, &rest);
        if !is_ready(&mut server, address, ready) {
            println!(
                "left out: {name}, which did not start; see {}",
                folder.join(script).with_extension("log").display()
            );
            continue;
        }
        let (group, http) = (server.group(), Http::connect(address));
        let way = if name == "mlserver" { Way::Json(http, address) } else { Way::Bento(http, address) };
        contenders.push(Contender { name: name.to_owned(), way, group });
        servers.push(server);
    }
    for (runtime, python) in [("onnxruntime", Some(python.into())), ("openvino", python_of("openvino"))] {
        match python.and_then(|python| session(&python, runtime, folder)) {
            Some(contender) => contenders.push(contender),
            None => println!("left out: {runtime}, which is not installed (tests/tools.sh bench)"),
        }
    }
    (servers, contenders)
}

type All = BTreeMap<(String, usize), Measured>;

/// CPU time of the gateway for a request, and how much of it is not the engine's.
fn costs(cases: &[Case], engine: &BTreeMap<String, Vec<f64>>, contenders: &[Contender], measured: &All) {
    println!("\nCPU of the gateway for a request in us, and above the engine's own");
    println!("\n| model, batch | engine | numbers | alone | JSON | above | binary | above | gRPC | above |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for case in cases {
        let alone = median(engine[&case.title()].clone());
        print!("| {} | {} | {} | {alone:.1} |", case.title(), case.engine, case.numbers);
        for (at, _) in contenders.iter().enumerate().take(3) {
            let Some(found) = measured.get(&(case.title(), at)) else { continue };
            let all = median(found.cpu_us.clone());
            // The difference of two long times is their noise: there it is the time of the threads that compute none.
            let above = if alone < 1000.0 { all - alone } else { all - median(found.infer_us.clone()) };
            print!(" {all:.1} | {above:.1} |");
        }
        println!();
    }
}

/// Until the answer is there: half of them, and 99 of 100.
fn times(cases: &[Case], contenders: &[Contender], measured: &All) {
    println!(
        "\nuntil the answer is there in us: half of the requests (99 of 100), and the CPU of all the server's processes"
    );
    println!("\n| model, batch |{}", contenders.iter().map(|c| format!(" {} |", c.name)).collect::<String>());
    println!("|---|{}", "---|".repeat(contenders.len()));
    for case in cases {
        print!("| {} |", case.title());
        for at in 0..contenders.len() {
            match measured.get(&(case.title(), at)) {
                Some(found) => {
                    let (p50, cpu) = (median(found.p50_us.clone()), median(found.cpu_us.clone()));
                    // Of workers outside the server's group nothing was counted.
                    let cpu = if cpu > 0.0 { format!("{cpu:.0}") } else { "?".to_owned() };
                    print!(" {p50:.0} ({:.0}), {cpu} |", found.p99_us());
                }
                None => print!(" - |"),
            }
        }
        println!();
    }
    let Some(mlserver) = contenders.iter().position(|contender| contender.name == "mlserver") else { return };
    println!("\nMLServer's half of the requests, in times of ours over JSON");
    for case in cases {
        let p50 = |at: usize| Some(median(measured.get(&(case.title(), at))?.p50_us.clone()));
        let (Some(ours), Some(theirs)) = (p50(0), p50(mlserver)) else { continue };
        println!("{:<16} {:>6.1}", case.title(), theirs / ours);
    }
}
