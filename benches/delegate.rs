//! What a delegate's process costs: requests through it beside a hand-written loop over ONNX Runtime in this process, on the same
//! files and inputs, one thread, in turn.
//!
//! `FOREBAY_PYTHON=... cargo bench --features delegate-host --bench delegate`; benches/delegate.py makes the models.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use forebay::base::{Clock, Datatype, Name, SystemClock, Tensor};
use forebay::engine::delegate::{self, delegates};
use forebay::engine::{LoadSpec, NamedTensor, Outline, Port, Session, TensorSpec};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 40;

fn spec(name: &str, bytes: Vec<u8>) -> LoadSpec {
    let outline = Outline::of(&bytes).unwrap();
    let port = |port: &Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype.unwrap_or(Datatype::Fp32),
        shape: port.shape().unwrap_or_default(),
    };
    LoadSpec {
        inputs: outline.inputs.iter().map(port).collect(),
        outputs: outline.outputs.iter().map(port).collect(),
        ..LoadSpec::new(Name::new(&name.replace([' ', ','], "-")).unwrap(), 1, "onnx", bytes)
    }
}

/// CPU time of all threads of a process, in microseconds.
fn cpu_us(pid: &str) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
    tasks.flatten().map(of).filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1000.0
}

struct Taken {
    wall_us: Vec<f64>,
    cpu_us: f64,
    requests: usize,
}

impl Taken {
    fn new() -> Self {
        Self { wall_us: Vec::new(), cpu_us: 0.0, requests: 0 }
    }

    fn round(&mut self, requests: usize, pids: &[&str], mut request: impl FnMut()) {
        let before: f64 = pids.iter().map(|pid| cpu_us(pid)).sum();
        for _ in 0..requests {
            let start = Instant::now();
            request();
            self.wall_us.push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
        self.cpu_us += pids.iter().map(|pid| cpu_us(pid)).sum::<f64>() - before;
        self.requests += requests;
    }

    fn median_us(&mut self) -> f64 {
        self.wall_us.sort_by(f64::total_cmp);
        self.wall_us[self.wall_us.len() / 2]
    }
}

fn library() -> PathBuf {
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let find = "import importlib.util as u, pathlib as p; \
                print(p.Path(u.find_spec('onnxruntime').origin).parent / 'capi/libonnxruntime.so.1.28.0')";
    let said = Command::new(python).args(["-c", find]).output().unwrap();
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
}

fn main() {
    if std::env::var_os("ORT_DISABLE_TELEMETRY").is_none() {
        let again = Command::new(std::env::current_exe().unwrap()).env("ORT_DISABLE_TELEMETRY", "1").exec();
        panic!("{again}");
    }
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/delegate.py");
    assert!(Command::new(python).arg(script).arg(folder.path()).status().unwrap().success());
    let library = library();
    let text = format!(
        "program = {:?}\nlibrary = {library:?}\n[[device]]\nname = \"cpu\"\nprovider = \"cpu\"\nmemory_limit_bytes = 4000000000\n\
         [[model]]\nname = \"*\"\ndevices = [\"cpu\"]\nrequire_golden = false\n",
        env!("CARGO_BIN_EXE_forebay-delegate")
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config: delegate::Config = toml::from_str(&text).unwrap();
    let work_folder = folder.path().join("delegate");
    let engines = delegates(config, &work_folder, &clock, &delegate::Metrics::default()).unwrap();
    let environment = ort::init_from(&library).unwrap().with_telemetry(false).build().unwrap();

    println!("a request through the host beside a loop in this process, medians; CPU is both processes'");
    println!(
        "{:<24} {:>10} {:>10} {:>8} {:>7} {:>10} {:>10} {:>8}",
        "model", "loop us", "host us", "hop us", "more", "loop CPU", "host CPU", "hop CPU"
    );
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "onnx"));
    files.sort_by_key(|file| std::fs::metadata(file).unwrap().len());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let spec = spec(name, std::fs::read(&file).unwrap());
        let shape: Vec<usize> = spec.inputs[0].shape.iter().map(|&dim| usize::try_from(dim).unwrap()).collect();
        let count = shape.iter().product::<usize>();
        let data: Vec<f32> = (0..count).map(|at| (at % 97) as f32 / 97.0).collect();
        let through: Box<dyn Session> = engines[0].load(&spec).unwrap();
        let pid = through.delegate().unwrap().pid.unwrap().to_string();
        let builder = ort::session::Session::builder(&environment).unwrap();
        let cpu = environment.devices().find(|device| device.ep().is_ok_and(|ep| ep == "CPUExecutionProvider"));
        let builder = builder.with_intra_threads(1).unwrap().with_intra_op_spinning(false).unwrap();
        let mut here = builder.with_devices(cpu, None).unwrap().commit_from_file(&file).unwrap();
        let inputs = vec![NamedTensor::new("x", Tensor::new(&shape, data.clone()).unwrap())];

        let expected = through.run(&inputs).unwrap()[0].tensor.clone();
        let mut by_hand = || {
            let tensor = ort::value::TensorRef::from_array_view((shape.clone(), &data[..])).unwrap();
            let outputs = here.run(vec![("x", tensor)]).unwrap();
            let (_, elements) = outputs[0].try_extract_tensor::<f32>().unwrap();
            elements.to_vec()
        };
        assert_eq!(by_hand(), expected.as_slice::<f32>().unwrap(), "{name}: both compute the same");
        let start = Instant::now();
        (0..10).for_each(|_| drop(by_hand()));
        let each_us = start.elapsed().as_micros() as f64 / 10.0;
        let requests = ((20_000.0 / each_us) as usize).clamp(5, 500);
        let (mut own, mut host) = (Taken::new(), Taken::new());
        for _ in 0..ROUNDS {
            own.round(requests, &["self"], || drop(std::hint::black_box(by_hand())));
            host.round(requests, &["self", &pid], || drop(std::hint::black_box(through.run(&inputs).unwrap())));
        }
        let (own_us, host_us) = (own.median_us(), host.median_us());
        let (own_cpu, host_cpu) = (own.cpu_us / own.requests as f64, host.cpu_us / host.requests as f64);
        println!(
            "{name:<24} {own_us:>10.1} {host_us:>10.1} {:>8.1} {:>6.1}% {own_cpu:>10.1} {host_cpu:>10.1} {:>8.1}",
            host_us - own_us,
            (host_us / own_us - 1.0) * 100.0,
            host_cpu - own_cpu
        );
    }
}
