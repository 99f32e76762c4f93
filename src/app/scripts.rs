//! Chat templates of models on servers that take texts only, out of their files.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::flows::answer::Scripts;
use crate::generate::{Script, ScriptFiles};
use crate::provider;

/// The largest vocabularies (of 260,000 tokens) have some 35 MB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// All that are configured. Reads files.
pub(super) fn read(providers: &[provider::Config]) -> anyhow::Result<Scripts> {
    let mut scripts = Scripts::new();
    for provider in providers {
        for model in &provider.models {
            let Some(path) = model.oip().and_then(|oip| oip.tokenizer_config.as_deref()) else { continue };
            let script = one(path).map_err(anyhow::Error::msg);
            let script = script.with_context(|| {
                format!("failed to use oip.tokenizer_config of provider {}, model {}", provider.name, model.name())
            })?;
            scripts.entry(provider.name.clone()).or_default().insert(model.name().to_owned(), Arc::new(script));
        }
    }
    Ok(scripts)
}

/// The template of a `tokenizer_config.json` and what lies beside it: `tokenizer.json`, `chat_template.jinja`. The error
/// names the file.
pub(super) fn one(path: &Path) -> Result<Script, String> {
    let unopened = |path: &Path, error: &std::io::Error| format!("failed to open {}: {error}", path.display());
    let beside = |name: &str| {
        let path = path.with_file_name(name);
        match bytes(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unopened(&path, &error)),
        }
    };
    let tokenizer_config = bytes(path).map_err(|error| unopened(path, &error))?;
    let (tokenizer, template) = (beside("tokenizer.json")?, beside("chat_template.jinja")?);
    let template = template.as_deref().map(std::str::from_utf8).transpose();
    let template = template.map_err(|error| format!("chat_template.jinja beside {}: {error}", path.display()))?;
    let files = ScriptFiles { tokenizer_config: &tokenizer_config, tokenizer: tokenizer.as_deref(), template };
    Script::read(files).map_err(|error| format!("{}: {error}", path.display()))
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has over {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
