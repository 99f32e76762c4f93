//! What a thousand reloads leave in memory: every model of `models/` and of the tests is taken away and loaded again, asked
//! in between, and the process's own resident bytes are read before and after (pages of the program's file come and go).
//!
//! `cargo bench --bench reloads`; RELOADS is another count than 1,000. Fails if memory grew by over 2 %.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs, reason = "a bench")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::base::{Clock, SystemClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Pool, built_in};
use forebay::flows::inference::{Inference, NamedTensor, Question};
use forebay::flows::models::Models;
use forebay::flows::repository::Repository;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reloads before the first reading: the allocator and the engines have then what they keep.
const SETTLING: usize = 100;

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let reloads: usize = std::env::var("RELOADS").map_or(1000, |count| count.parse().unwrap());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["models", "tests/fixtures/models"] {
        let config = catalog::Config { folder: root.join(folder), ..catalog::Config::default() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let pool = Arc::new(Pool::start(&engine::Config::default(), built_in(), Arc::clone(&clock)).unwrap());
        let state = tempfile::tempdir().unwrap();
        let found = Catalog::scan(&config);
        let names: Vec<String> = {
            let mut names: Vec<_> = found.models().map(|model| model.manifest.model.name.to_string()).collect();
            names.dedup();
            names
        };
        let models = Arc::new(Models::load(&found, &config, state.path(), &pool, Arc::clone(&clock)));
        let repository = Repository::new(Arc::clone(&models), config);
        let inference = Inference::new(Arc::clone(&models), clock);
        let mut before = (0, 0);
        let began = Instant::now();
        for round in 0..SETTLING + reloads {
            if round == SETTLING {
                before = (resident_kb(), threads());
            }
            let name = &names[round % names.len()];
            repository.unload(name).await.unwrap();
            repository.load(name).await.unwrap();
            ask(&inference, name).await;
        }
        let after = (resident_kb(), threads());
        #[allow(clippy::cast_precision_loss, reason = "percent")]
        let grown = (after.0 as f64 / before.0 as f64 - 1.0) * 100.0;
        println!(
            "{folder}: {} models, {reloads} reloads: {} kB before, {} kB after ({grown:+.2} %), threads {} and {}, {:.1} ms each",
            names.len(),
            before.0,
            after.0,
            before.1,
            after.1,
            began.elapsed().as_secs_f64() * 1e3 / (SETTLING + reloads) as f64,
        );
        assert!(grown <= 2.0, "memory grew by {grown:.2} %");
    }
}

/// One row of nothing but ones.
async fn ask(inference: &Inference, model: &str) {
    let about = inference.metadata(model, None).unwrap();
    let input = |input: &forebay::flows::inference::TensorMetadata| {
        let shape: Vec<usize> = input.shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(1)).collect();
        let numbers = vec![1.0; shape.iter().product()];
        let tensor = Tensor::of_numbers(input.datatype, shape, &numbers).unwrap();
        NamedTensor { name: input.name.clone(), tensor }
    };
    let question = Question {
        model: model.to_owned(),
        version: None,
        inputs: about.inputs.iter().map(input).collect(),
        outputs: Vec::new(),
        deadline: Duration::from_secs(60),
        priority: 0,
    };
    inference.infer(question).await.unwrap();
}
