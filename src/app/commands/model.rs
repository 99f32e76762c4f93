//! `forebay model list`, `forebay model show NAME` and `forebay model inspect FILE`

use std::path::Path;
use std::process::ExitCode;

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};

use super::{inspect, note, say};
use crate::base::{Digest, Name, SystemClock};
use crate::catalog::{Catalog, Config, Model, Port};
use crate::engine::{self, Fit, LoadSpec, Outline, Pool};
use crate::flows::{graph_of, load_spec, plan_of};
use crate::pipeline::{Graph, Source, Step, Work};

pub(super) fn scan(folder: &Path) -> Catalog {
    Catalog::scan(&Config { folder: folder.to_owned(), ..Config::default() })
}

/// One line a model, then what is broken.
pub(crate) fn list(folder: &Path) -> Result<ExitCode> {
    let catalog = scan(folder);
    let rows: Vec<[String; 6]> = catalog.models().map(|model| row(model)).collect();
    if rows.is_empty() {
        note(format_args!("no models in {}; expected <name>/<version>/manifest.toml there", folder.display()));
    } else {
        let head = ["NAME", "VERSION", "FORMAT", "BYTES", "LICENCE", "TASK"].map(str::to_owned);
        for line in table(&head, &rows) {
            say(line);
        }
    }
    for problem in catalog.problems() {
        note(problem);
    }
    Ok(if catalog.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(model: &Model) -> [String; 6] {
    let about = &model.manifest.model;
    [
        about.name.to_string(),
        about.version.to_string(),
        about.format.clone(),
        model.size_bytes.to_string(),
        about.license.clone(),
        about.task.clone(),
    ]
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().chain([head]).map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    [head].into_iter().chain(rows).map(line).collect()
}

/// That there is no such model, and which one may have been meant; what is broken is told first.
pub(super) fn missing(catalog: &Catalog, folder: &Path, name: &str, version: Option<u32>) -> String {
    for problem in catalog.problems() {
        note(problem);
    }
    let known: Vec<_> = catalog.models().map(|model| model.manifest.model.name.as_str()).collect();
    let near = crate::app::config::nearest(name, known.iter().copied());
    let wanted = version.map_or_else(|| format!("`{name}`"), |version| format!("`{name}` version {version}"));
    let hint = near.filter(|near| *near != name).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("no model {wanted} in {}{hint}", folder.display())
}

/// The model in a folder MODELS/NAME/VERSION.
pub(super) fn version_at(folder: &Path) -> Result<Arc<Model>> {
    let real = folder.canonicalize().with_context(|| format!("failed to open {}", folder.display()))?;
    let mut above = real.ancestors().skip(1);
    let (Some(name), Some(root)) = (above.next().and_then(Path::file_name), above.next()) else {
        bail!("{} is no version folder: expected MODELS/NAME/VERSION", folder.display());
    };
    let config = Config { folder: root.to_owned(), ..Config::default() };
    let catalog = Catalog::scan_model(&config, &name.to_string_lossy());
    let found = catalog.models().find(|model| model.folder == real);
    found.cloned().ok_or_else(|| {
        let problems: Vec<_> = catalog.problems().iter().map(ToString::to_string).collect();
        anyhow!("{} holds no usable model; {}", folder.display(), problems.join("; "))
    })
}

/// Everything a manifest says.
pub(crate) fn show(folder: &Path, name: &str, version: Option<u32>) -> Result<ExitCode> {
    let catalog = scan(folder);
    let Some(model) = catalog.model(name, version) else {
        note(missing(&catalog, folder, name, version));
        return Ok(ExitCode::FAILURE);
    };
    let manifest = &model.manifest;
    let about = &manifest.model;
    say(format_args!("{} version {}", about.name, about.version));
    if !about.description.is_empty() {
        say(about.description.trim());
    }
    say("");
    say(format_args!("task       {}", about.task));
    say(format_args!(
        "file       {} ({} bytes, {})",
        model.folder.join(&about.file).display(),
        model.size_bytes,
        about.format
    ));
    say(format_args!("sha256     {}", about.sha256));
    say(format_args!("licence    {}", about.license));
    for port in &manifest.inputs {
        say(format_args!("input      {}", describe(port)));
    }
    for port in &manifest.outputs {
        say(format_args!("output     {}", describe(port)));
    }
    match graph_of(model) {
        None => {}
        Some(Ok(graph)) => graph.steps.iter().for_each(|step| say(format_args!("step       {}", told(&graph, step)))),
        Some(Err(reason)) => say(format_args!("steps      {reason}")),
    }
    match plan_of(model) {
        Ok(None) => {}
        Ok(Some(plan)) => {
            let takes = plan.sources().iter().map(|source| match source.kind.as_str() {
                kind if kind == source.name => kind.to_owned(),
                kind => format!("{} ({kind})", source.name),
            });
            say(format_args!("predict    takes {}", takes.collect::<Vec<_>>().join(" and ")));
        }
        Err(error) => say(format_args!("predict    {error}")),
    }
    if let Some(training) = &manifest.training {
        say(format_args!("trained    on {} values, {} to {}", training.count, training.first, training.last));
    }
    if let Some(thresholds) = &manifest.thresholds {
        say(format_args!(
            "thresholds raise at {} for {} readings, clear below {} for {}",
            thresholds.raise, thresholds.raise_after, thresholds.clear, thresholds.clear_after
        ));
    }
    for (title, facts) in [("provenance", &manifest.provenance), ("quality", &manifest.quality)] {
        if !facts.is_empty() {
            say(format_args!("\n{title}"));
            for (key, value) in facts {
                say(format_args!("  {key} = {value}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the engines of this build make of a model file, or of a version folder with its manifest and golden samples.
pub(crate) fn inspect(path: &Path) -> Result<ExitCode> {
    if path.is_dir() { inspect_version(path) } else { inspect_file(path) }
}

/// Loads a version with every engine for itself, so that each says what it makes of the file and of the samples.
fn inspect_version(folder: &Path) -> Result<ExitCode> {
    let model = &*version_at(folder)?;
    if let Some(graph) = graph_of(model) {
        let graph = graph.map_err(anyhow::Error::msg)?;
        say(format_args!("{}/{} (pipeline)", model.manifest.model.name, model.manifest.model.version));
        graph.steps.iter().for_each(|step| say(told(&graph, step)));
        return Ok(ExitCode::SUCCESS);
    }
    let spec = load_spec(model)?;
    say(format_args!(
        "{} ({}, {} bytes, {} golden samples)",
        spec.title(),
        spec.format,
        spec.bytes.len(),
        spec.samples.len()
    ));
    for (kind, ports) in [("input", &spec.inputs), ("output", &spec.outputs)] {
        for port in ports {
            say(format_args!("{kind:<10} {} {} {:?}", port.name, port.datatype, port.shape));
        }
    }
    let mut engines: Vec<_> = engine::built_in()
        .into_iter()
        .filter(|engine| engine.reads(&spec.format))
        .map(|engine| {
            let chosen = match &spec.engine {
                Some(wanted) if *wanted != engine.name() => Err(format!("the manifest wants {wanted}")),
                Some(_) => Ok(Fit::Best),
                None => engine.suits(&spec),
            };
            (chosen, engine)
        })
        .collect();
    // As they would be asked.
    engines.sort_by_key(|(chosen, _)| chosen.as_ref().map_or((true, None), |fit| (false, Some(*fit))));
    let mut serves = None;
    for (chosen, engine) in engines {
        let name = engine.name();
        let config = engine::Config { threads: 1, ..engine::Config::default() };
        let alone = Pool::start(&config, vec![engine], Arc::new(SystemClock::new()))?;
        let loaded = alone.load(&LoadSpec { engine: Some(name.to_owned()), ..spec.clone() });
        let verdict = match (&chosen, &loaded, &serves) {
            (Ok(_), Ok(_), None) => {
                serves = Some(name);
                "serves it".to_owned()
            }
            (Ok(_), Ok(_), Some(_)) => "would serve it next".to_owned(),
            (Ok(_), Err(error), _) => error.to_string(),
            (Err(reason), Ok(_), _) => format!("is not chosen, although it could: {reason}"),
            (Err(reason), Err(_), _) => format!("is not chosen: {reason}"),
        };
        say(format_args!("{name:<10} {verdict}"));
    }
    Ok(if serves.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The signature and operators of a file, and what each engine of this build says to it, as a manifest to begin with.
fn inspect_file(file: &Path) -> Result<ExitCode> {
    let bytes = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    if let Some(format) = inspect::format_of(file, &bytes) {
        return inspect::print(file, bytes, format);
    }
    let outline = Outline::of(&bytes).with_context(|| format!("failed to read {}", file.display()))?;
    let (digest, plain) = (Digest::of(&bytes), file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let versions = outline.opsets.iter().map(|(domain, version)| match domain.as_str() {
        "" => format!("ai.onnx {version}"),
        domain => format!("{domain} {version}"),
    });
    let made_by = if outline.producer.is_empty() { "an unnamed program" } else { &outline.producer };
    say(format_args!("# made by {made_by}; operator sets: {}", versions.collect::<Vec<_>>().join(", ")));
    let operators = outline.operators.iter().map(|(title, count)| format!("{count} {title}"));
    say(format_args!("# operators: {}", operators.collect::<Vec<_>>().join(", ")));
    let spec = LoadSpec {
        name: Name::new("model").context("failed to name the model")?,
        version: 1,
        format: "onnx".to_owned(),
        engine: None,
        bytes: Arc::from(bytes),
        inputs: Vec::new(),
        outputs: Vec::new(),
        samples: Vec::new(),
        allow_non_finite: false,
        files: Default::default(),
    };
    let mut is_taken = false;
    for engine in engine::built_in().iter().filter(|engine| engine.reads(&spec.format)) {
        match engine.suits(&spec) {
            Ok(Fit::Best) => say(format_args!("# {} takes it", engine.name())),
            Ok(Fit::Able) => say(format_args!("# {} takes it where no other does", engine.name())),
            Err(reason) => say(format_args!("# {} does not take it: {reason}", engine.name())),
        }
        is_taken |= engine.suits(&spec).is_ok();
    }
    say("[model]\nname = \"NAME\"\nversion = 1");
    say(format_args!("file = {plain:?}\nsha256 = \"{digest}\"\nformat = \"onnx\"\nlicense = \"\""));
    for (kind, ports) in [("input", &outline.inputs), ("output", &outline.outputs)] {
        for port in ports {
            let datatype = if port.is_map { Some("FP32") } else { port.datatype.map(crate::base::Datatype::as_str) };
            // A map's tensor has a row a row, a column a class.
            let shape = if port.is_map { Some(vec![-1, -1]) } else { port.shape() };
            say(format_args!("\n[[{kind}]]\nname = {:?}\ndatatype = {:?}", port.name, datatype.unwrap_or("")));
            say(format_args!("shape = {:?}", shape.unwrap_or_default()));
        }
    }
    Ok(if is_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `NAME: what it does, of what`.
fn told(graph: &Graph, step: &Step) -> String {
    let source = |source: &Source| match source {
        Source::Input(at) => graph.inputs[*at].name.clone(),
        Source::Step(at, None) => graph.steps[*at].name.clone(),
        Source::Step(at, Some(output)) => format!("{}.{output}", graph.steps[*at].name),
    };
    let does = match &step.work {
        Work::Model(member) => format!("model {}", member.title()),
        Work::Op(op) => op.word().to_owned(),
    };
    let rows = step.member().and_then(|member| member.rows.as_ref());
    let rows = rows.map_or_else(String::new, |rows| format!(", only rows of {}", source(rows)));
    format!("{}: {does} of {}{rows}", step.name, step.inputs.iter().map(source).collect::<Vec<_>>().join(", "))
}

fn describe(port: &Port) -> String {
    let unit = port.unit.as_ref().map_or(String::new(), |unit| format!(" in {unit}"));
    format!("{} {} {:?}{unit}", port.name, port.datatype, port.shape)
}
