//! Chat templates of models on servers that take texts only, out of their files.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::flows::answer::Scripts;
use crate::generate::Script;
use crate::provider;

/// The largest such files (of vocabularies of 256,000 with a table of every added token) have some MB.
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

/// The template of a `tokenizer_config.json`, or of the `chat_template.jinja` beside it; the error names the file.
pub(super) fn one(path: &Path) -> Result<Script, String> {
    let unopened = |path: &Path, error: &std::io::Error| format!("failed to open {}: {error}", path.display());
    let of = |path: &Path, problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let config = bytes(path).map_err(|error| unopened(path, &error))?;
    let beside = path.with_file_name("chat_template.jinja");
    let template = match bytes(&beside) {
        Ok(template) => Some(String::from_utf8(template).map_err(|error| of(&beside, &error))?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(unopened(&beside, &error)),
    };
    Script::read(&config, template.as_deref()).map_err(|error| of(path, &error))
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has over {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
