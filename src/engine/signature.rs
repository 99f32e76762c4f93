//! What a model takes and gives by its own files, whatever their format.

use super::onnx::{Outline, Signature};
use super::spec::LoadSpec;

/// Files that engines read beside a model of this format. The model's digest covers none of them: each needs its own.
pub fn files_beside(format: &str) -> &'static [&'static str] {
    match format {
        "safetensors" => &["config.json", "pooling.json", "modules.json"],
        _ => &[],
    }
}

/// Inputs and outputs of the model in `spec`, whose own are not looked at. The error says why its files do not tell.
pub fn signature(spec: &LoadSpec) -> Result<Signature, String> {
    match spec.format.as_str() {
        "onnx" => Outline::of(&spec.bytes).map_err(|error| error.to_string())?.signature(),
        #[cfg(feature = "transformer")]
        "safetensors" | "gguf" => super::transformer::signature(spec),
        #[cfg(not(feature = "transformer"))]
        "safetensors" | "gguf" => {
            Err(format!("this build reads no format {}; build with --features transformer", spec.format))
        }
        other => Err(format!("format {other} says nothing of them")),
    }
}
