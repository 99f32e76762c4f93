//! The model that is measured: of the catalog, of a folder, or a bare file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::app::cli::BenchArgs;
use crate::app::commands::inspect;
use crate::app::commands::model::{missing, version_at};
use crate::base::Name;
use crate::catalog::{self, Catalog, Model};
use crate::engine::{self, LoadSpec, Outline};
use crate::flows::{graph_of, load_spec};

/// How files end that are a model.
const MODEL_FILES: [&str; 3] = ["onnx", "safetensors", "gguf"];

/// What is measured.
pub(super) struct Subject {
    /// The model.
    pub(super) spec: LoadSpec,
    /// What its file says, where it is ONNX.
    pub(super) outline: Option<Outline>,
    /// Its manifest, where it has one.
    pub(super) manifest: Option<PathBuf>,
}

impl Subject {
    /// A name goes to the catalog, unless it is only a path.
    pub(super) fn find(args: &BenchArgs, config: Option<&catalog::Config>) -> Result<Self> {
        let folder = args.models.as_deref().or(config.map(|config| config.folder.as_path()));
        let folder = folder.unwrap_or(Path::new("models"));
        let (name, version) = match args.model.split_once('/').map(|(name, version)| (name, version.parse::<u32>())) {
            Some((name, Ok(version))) if args.version.is_none_or(|wanted| wanted == version) => (name, Some(version)),
            _ => (args.model.as_str(), args.version),
        };
        let scanned = catalog::Config { folder: folder.to_owned(), ..config.cloned().unwrap_or_default() };
        let catalog = if Name::new(name).is_ok() { Catalog::scan_model(&scanned, name) } else { Catalog::default() };
        let path = Path::new(&args.model);
        match catalog.model(name, version) {
            Some(model) => Self::of_model(model),
            None if path.is_dir() => Self::of_folder(path, args.version),
            None if path.is_file() => Self::of_file(path),
            None => Err(anyhow!(missing(&Catalog::scan(&scanned), folder, name, version))),
        }
    }

    fn of_model(model: &Model) -> Result<Self> {
        if let Some(graph) = graph_of(model) {
            let graph = graph.map_err(anyhow::Error::msg)?;
            let members: Vec<_> = graph.members().map(|(_, member)| member.title()).collect();
            let about = &model.manifest.model;
            bail!(
                "{}/{} is a pipeline, which engines do not see; measure its models: {}",
                about.name,
                about.version,
                members.join(", ")
            );
        }
        let spec = load_spec(model)?;
        let outline = if spec.format == "onnx" { Outline::of(&spec.bytes).ok() } else { None };
        Ok(Self { spec, outline, manifest: Some(model.folder.join("manifest.toml")) })
    }

    /// A version's folder, a model's with versions in it, or one with a model file alone.
    fn of_folder(folder: &Path, version: Option<u32>) -> Result<Self> {
        if folder.join("manifest.toml").is_file() {
            let model = version_at(folder)?;
            return Self::of_model(&model);
        }
        let entries = std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
        let paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        let number = |path: &PathBuf| {
            let number = path.file_name()?.to_str()?.parse::<u32>().ok()?;
            path.join("manifest.toml").is_file().then_some(number)
        };
        let versions: Vec<u32> = paths.iter().filter_map(number).collect();
        let wanted = version.filter(|version| versions.contains(version)).or(versions.iter().copied().max());
        if let Some(wanted) = wanted {
            if let Some(absent) = version.filter(|&version| version != wanted) {
                bail!("{} has no version {absent}", folder.display());
            }
            let model = version_at(&folder.join(wanted.to_string()))?;
            return Self::of_model(&model);
        }
        let is_model = |path: &&PathBuf| {
            path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| MODEL_FILES.contains(&ending))
        };
        let files: Vec<_> = paths.iter().filter(is_model).collect();
        match files.as_slice() {
            [only] => Self::of_file(only),
            [] => bail!(
                "{} holds neither manifest.toml, nor versions, nor a model file (.onnx, .safetensors, .gguf)",
                folder.display()
            ),
            several => bail!("{} holds {} model files: name one of them", folder.display(), several.len()),
        }
    }

    /// A file without a manifest says its own inputs and outputs.
    fn of_file(file: &Path) -> Result<Self> {
        let failed = || format!("failed to read {}", file.display());
        let bytes = std::fs::read(file).with_context(failed)?;
        if let Some(format) = inspect::format_of(file, &bytes) {
            let mut spec = inspect::spec_of(file, bytes, format)?;
            let signature =
                engine::signature(&spec).map_err(|reason| anyhow!("failed to read {}: {reason}", file.display()))?;
            (spec.inputs, spec.outputs) = (signature.inputs, signature.outputs);
            return Ok(Self { spec, outline: None, manifest: None });
        }
        let outline = Outline::of(&bytes).with_context(failed)?;
        let signature = outline
            .signature()
            .map_err(|reason| anyhow!("failed to read {}: {reason} in a manifest.toml beside it", file.display()))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let name = Name::new(&stem).or_else(|_| Name::new("model")).context("failed to name the model")?;
        let mut outputs = signature.outputs;
        // What exporters say of an output's dimensions is often wrong; how many there are is not.
        outputs.iter_mut().for_each(|output| output.shape.fill(-1));
        let spec = LoadSpec {
            name,
            version: 1,
            format: "onnx".to_owned(),
            engine: None,
            bytes: Arc::from(bytes),
            inputs: signature.inputs,
            outputs,
            samples: Vec::new(),
            files: Default::default(),
            allow_non_finite: false,
        };
        Ok(Self { spec, outline: Some(outline), manifest: None })
    }
}
