//! `forebay model list` and `forebay model show NAME`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{note, say};
use crate::catalog::{Catalog, Config, Model, Port};

fn scan(folder: &Path) -> Catalog {
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

/// Everything a manifest says.
pub(crate) fn show(folder: &Path, name: &str, version: Option<u32>) -> Result<ExitCode> {
    let catalog = scan(folder);
    let Some(model) = catalog.model(name, version) else {
        for problem in catalog.problems() {
            note(problem);
        }
        let known: Vec<_> = catalog.models().map(|model| model.manifest.model.name.as_str()).collect();
        let near = crate::app::config::nearest(name, known.iter().copied());
        let wanted = version.map_or_else(|| format!("`{name}`"), |version| format!("`{name}` version {version}"));
        let hint = near.filter(|near| *near != name).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        note(format_args!("no model {wanted} in {}{hint}", folder.display()));
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

fn describe(port: &Port) -> String {
    let unit = port.unit.as_ref().map_or(String::new(), |unit| format!(" in {unit}"));
    format!("{} {} {:?}{unit}", port.name, port.datatype, port.shape)
}
