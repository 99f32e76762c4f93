//! `forebay model inspect model.safetensors` and `model.gguf`: the manifest that such a file needs, with what lies beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::say;
use crate::base::{Digest, Name};
use crate::engine::{self, LoadSpec, TensorSpec};

/// Where sentence-transformers writes how words become a sentence.
const APART: &str = "1_Pooling/config.json";

/// The format of a file that is no ONNX.
pub(super) fn format_of(file: &Path, bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"GGUF") {
        return Some("gguf");
    }
    file.extension().is_some_and(|extension| extension == "safetensors").then_some("safetensors")
}

/// The model of a file without a manifest, with what lies beside it; inputs and outputs are for the engine to say. Pooling lies
/// in a folder of its own where sentence-transformers wrote it; here it stands beside the model.
pub(super) fn spec_of(file: &Path, bytes: Vec<u8>, format: &'static str) -> Result<LoadSpec> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut files = BTreeMap::new();
    for &name in engine::files_beside(format) {
        let mut place = folder.join(name);
        if name == "pooling.json" && !place.exists() {
            place = folder.join(APART);
        }
        if place.exists() {
            let bytes = std::fs::read(&place).with_context(|| format!("failed to read {}", place.display()))?;
            files.insert(name.to_owned(), Arc::<[u8]>::from(bytes));
        }
    }
    Ok(LoadSpec {
        name: Name::new("model").context("failed to name the model")?,
        version: 1,
        format: format.to_owned(),
        engine: None,
        bytes: Arc::from(bytes),
        files,
        inputs: Vec::new(),
        outputs: Vec::new(),
        samples: Vec::new(),
        allow_non_finite: false,
    })
}

/// Prints it.
pub(super) fn print(file: &Path, bytes: Vec<u8>, format: &'static str) -> Result<ExitCode> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let digest = Digest::of(&bytes);
    let spec = spec_of(file, bytes, format)?;
    if spec.files.contains_key("pooling.json") && !folder.join("pooling.json").exists() {
        say(format_args!("# copy {APART} to pooling.json beside the model"));
    }
    let mut is_taken = false;
    for engine in engine::built_in().iter().filter(|engine| engine.reads(format)) {
        match engine.suits(&spec) {
            Ok(_) => say(format_args!("# {} takes it", engine.name())),
            Err(reason) => say(format_args!("# {} does not take it: {reason}", engine.name())),
        }
        is_taken |= engine.suits(&spec).is_ok();
    }
    let plain = file.file_name().unwrap_or_default().to_string_lossy();
    say("[model]\nname = \"NAME\"\nversion = 1");
    say(format_args!("file = {plain:?}\nsha256 = \"{digest}\"\nformat = \"{format}\"\nlicense = \"\""));
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).ok().map(|bytes| Digest::of(&bytes));
    let digests = spec.files.iter().map(|(name, bytes)| (name.as_str(), Digest::of(bytes)));
    for (name, digest) in digests.chain(tokenizer.iter().map(|digest| ("tokenizer.json", *digest))) {
        say(format_args!("\n[[file]]\nname = {name:?}\nsha256 = \"{digest}\""));
    }
    let signature = match engine::signature(&spec) {
        Ok(signature) => signature,
        Err(reason) => {
            say(format_args!("# it does not say what it takes and gives: {reason}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let port = |kind: &str, port: &TensorSpec| {
        say(format_args!(
            "\n[[{kind}]]\nname = {:?}\ndatatype = \"{}\"\nshape = {:?}",
            port.name, port.datatype, port.shape
        ));
    };
    signature.inputs.iter().for_each(|input| port("input", input));
    for output in &signature.outputs {
        port("output", output);
        if let Some(labels) =
            labels(&spec).filter(|labels| output.shape.last() == i64::try_from(labels.len()).ok().as_ref())
        {
            say(format_args!("labels = {labels:?}"));
        }
    }
    if tokenizer.is_some() && format == "safetensors" {
        say("\n[[predict.input]]\nkind = \"text\"\ntokenizer = \"tokenizer.json\"");
    }
    Ok(if is_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of the classes, where `config.json` has them all.
fn labels(spec: &LoadSpec) -> Option<Vec<String>> {
    let config: serde_json::Value = serde_json::from_slice(spec.files.get("config.json")?).ok()?;
    let named = config["id2label"].as_object()?;
    (0..named.len()).map(|at| Some(named.get(&at.to_string())?.as_str()?.to_owned())).collect()
}
