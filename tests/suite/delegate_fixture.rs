//! Delegates for tests: where their programs are, and models loaded into them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::base::{Clock, Name, SystemClock};
use forebay::catalog::{self, Catalog};
use forebay::engine::delegate::{self, delegates};
use forebay::engine::{self, Engine, Error, Handle, LoadSpec, Pool};
use forebay::flows::load_spec;

/// The tests' Python.
#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
pub(crate) fn python() -> PathBuf {
    std::env::var_os("FOREBAY_PYTHON").unwrap_or_else(|| "python3".into()).into()
}

/// A model of the tests' own.
pub(crate) fn spec(model: &str) -> LoadSpec {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let catalog = Catalog::scan(&catalog::Config { folder, ..Default::default() });
    load_spec(catalog.model(model, None).unwrap()).unwrap()
}

/// A pool whose first engine is a delegate, before the engines of this build.
pub(crate) struct Plant {
    pub(crate) pool: Pool,
    pub(crate) folder: tempfile::TempDir,
}

/// `[delegate]` with one device for every model, and what else `more` says.
pub(crate) fn config(program: &Path, library: &Path, more: &str) -> delegate::Config {
    let text = format!(
        "program = {program:?}\nlibrary = {library:?}\nrestart_first_ms = 1\nrestart_most_ms = 20\nwatch_ms = 5\n{more}"
    );
    toml::from_str(&text).unwrap()
}

impl Plant {
    pub(crate) fn new(config: delegate::Config) -> Self {
        Self::with(config, engine::built_in())
    }

    pub(crate) fn with(config: delegate::Config, others: Vec<Arc<dyn Engine>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let work_folder = folder.path().join("delegate");
        let mut engines = delegates(config, work_folder, &clock, &delegate::Metrics::default()).unwrap();
        engines.extend(others);
        let pool = Pool::start(&engine::Config { threads: 2, ..Default::default() }, engines, clock).unwrap();
        Self { pool, folder }
    }

    pub(crate) fn load(&self, model: &str) -> Result<Handle, Error> {
        self.pool.load(&spec(model))
    }
}

/// A model's name for rules.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
