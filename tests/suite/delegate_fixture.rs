//! Delegates for tests: hosts that misbehave, models loaded into them, and an engine that stands in.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::base::{Clock, Digest, SystemClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::delegate::{self, State, delegates};
use forebay::engine::{self, Engine, Error, Handle, LoadSpec, NamedTensor, Outputs, Pool, Session, TensorSpec};
use forebay::flows::load_spec;
use serde_json::{Value, json};

use crate::gateway::poll;

/// The tests' Python.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("FOREBAY_PYTHON").unwrap_or_else(|| "/usr/bin/python3".into()).into()
}

/// A model of the tests' own.
pub(crate) fn spec(model: &str) -> LoadSpec {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let catalog = Catalog::scan(&catalog::Config { folder, ..Default::default() });
    load_spec(catalog.model(model, None).unwrap()).unwrap()
}

/// `[delegate]` with one device for every model; `more` comes before the tables.
pub(crate) fn settings(program: &Path, library: &Path, more: &str) -> String {
    format!(
        "program = {program:?}\nlibrary = {library:?}\nrestart_first_ms = 1\nrestart_most_ms = 20\nwatch_ms = 5\n{more}\n"
    )
}

/// The device that [`settings`] leaves out.
pub(crate) const DEVICE: &str = r#"
[[device]]
name = "cpu"
provider = "cpu"
[[model]]
name = "*"
devices = ["cpu"]
"#;

/// A host in Python that does what `mode` says, with settings that let it run.
pub(crate) struct Hostile {
    pub(crate) folder: tempfile::TempDir,
}

impl Hostile {
    pub(crate) fn new(mode: &Value) -> Self {
        let hostile = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(hostile.library(), "not loaded by anybody").unwrap();
        hostile.becomes(mode);
        hostile
    }

    /// What later starts do.
    pub(crate) fn becomes(&self, mode: &Value) {
        let mut mode = mode.clone();
        mode["starts"] = json!(self.folder.path().join("starts"));
        // A program that is running cannot be written, but another can take its name.
        let beside = self.folder.path().join("host.new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o755).open(&beside).unwrap();
        let python = python();
        writeln!(file, "#!{} -ISB\nMODE = {{}}", python.display()).unwrap();
        writeln!(file, "MODE = __import__(\"json\").loads(r'''{mode}''')").unwrap();
        file.write_all(include_bytes!("hostile_host.py")).unwrap();
        drop(file);
        std::fs::rename(beside, self.program()).unwrap();
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("library.so")
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("starts")).map_or(0, |file| file.len())
    }

    pub(crate) fn settings(&self, more: &str) -> String {
        let digest = Digest::of(b"not loaded by anybody");
        let more = format!("library_sha256 = \"{digest}\"\nallow_network = true\n{more}");
        settings(&self.program(), &self.library(), &more)
    }
}

/// A pool whose first engine is a delegate.
pub(crate) struct Plant {
    pub(crate) pool: Pool,
    pub(crate) folder: tempfile::TempDir,
}

impl Plant {
    /// `settings` are `[delegate]`'s.
    pub(crate) fn new(settings: &str, others: Vec<Arc<dyn Engine>>) -> Self {
        let config: delegate::Config = toml::from_str(settings).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let work_folder = folder.path().join("delegate");
        let mut engines = delegates(config, &work_folder, &clock, &delegate::Metrics::default()).unwrap();
        engines.extend(others);
        let pool = Pool::start(&engine::Config { threads: 2, ..Default::default() }, engines, clock).unwrap();
        Self { pool, folder }
    }

    /// A host that does what `mode` says, and an engine that stands in.
    pub(crate) fn hostile(mode: &Value, more: &str) -> (Self, Hostile) {
        let hostile = Hostile::new(mode);
        let settings = hostile.settings(&format!("{more}\n{DEVICE}"));
        (Self::new(&settings, vec![Arc::new(Adder)]), hostile)
    }

    pub(crate) fn load(&self, model: &str) -> Result<Handle, Error> {
        self.pool.load(&spec(model))
    }
}

/// What both the hosts and [`Adder`] compute for `rows` rows that begin with `first`.
pub(crate) fn ask(handle: &Handle, first: i32, rows: usize) -> Result<Outputs, Error> {
    let count = i32::try_from(rows * 16).unwrap();
    let tensor = |name: &str, first: i32| {
        NamedTensor::new(name, Tensor::new([rows, 16], (first..first + count).collect()).unwrap())
    };
    let outputs = handle.infer_blocking(vec![tensor("INPUT0", first), tensor("INPUT1", 1)], None)?;
    let right = |at: usize, each: &dyn Fn(i32) -> i32| {
        let given = outputs.tensors[at].tensor.as_slice::<i32>().unwrap();
        given.len() == rows * 16 && given.iter().zip(0..).all(|(&given, element)| given == each(element))
    };
    assert!(right(0, &|element| first + 1 + 2 * element) && right(1, &|_| first - 1), "{outputs:?}");
    Ok(outputs)
}

/// Waits until the host answers after `restarts` of them.
pub(crate) fn wait_for_restart(handle: &Handle, restarts: u64) -> State {
    poll("a host that was started again", || {
        let state = handle.delegate().unwrap();
        (state.restarts >= restarts && state.phase == delegate::Phase::Serving).then_some(state)
    })
}

/// Whether there is such a process.
pub(crate) fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends a signal.
#[cfg(any(feature = "delegate-host", feature = "tract"))]
pub(crate) fn signal(name: &str, pid: u32) {
    assert!(
        std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success()
    );
}

/// Computes the model `simple` in this program.
pub(crate) struct Adder;

struct Sums(Vec<TensorSpec>);

impl Engine for Adder {
    fn name(&self) -> &'static str {
        "adder"
    }

    fn reads(&self, format: &str) -> bool {
        format == "onnx"
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(Sums(spec.outputs.clone())))
    }
}

impl Session for Sums {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        let side = |at: usize| inputs[at].tensor.as_slice::<i32>().unwrap();
        let shape = inputs[0].tensor.shape();
        let tensor = |at: usize, each: fn((&i32, &i32)) -> i32| {
            let elements = side(0).iter().zip(side(1)).map(each).collect();
            NamedTensor::new(Arc::clone(&self.0[at].name), Tensor::new(shape, elements).unwrap())
        };
        Ok(vec![tensor(0, |(a, b)| a + b), tensor(1, |(a, b)| a - b)])
    }
}
