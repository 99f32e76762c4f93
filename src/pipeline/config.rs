//! A pipeline's file as it is written, before anything in it is believed.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::error::Error;
use crate::base::Datatype;

/// Largest file of a pipeline.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Steps of one pipeline: each is a label of metrics.
pub(super) const STEPS_MAX: usize = 64;
/// Tensors that go into one step.
pub(super) const INPUTS_MAX: usize = 64;
const LIMIT_MAX: usize = 1 << 31;

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest tensor that comes in or that a step makes, in bytes.
    pub tensor_bytes_max: usize,
    /// All tensors of one request together, those of models included, in bytes.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tensor_bytes_max: 64 * 1024 * 1024, request_bytes_max: 256 * 1024 * 1024 }
    }
}

impl Limits {
    /// An error if a tensor of this shape would be larger than the bound.
    pub(super) fn holds(&self, datatype: Datatype, shape: &[usize]) -> Result<(), String> {
        let bytes = shape.iter().try_fold(datatype.size_bytes().unwrap_or(4), |bytes, &dim| bytes.checked_mul(dim));
        match bytes {
            Some(bytes) if bytes <= self.tensor_bytes_max => Ok(()),
            _ => {
                let bytes =
                    bytes.map_or_else(|| "more than memory can be".to_owned(), |bytes| format!("{bytes} bytes"));
                let most = self.tensor_bytes_max;
                Err(format!(
                    "it would make {datatype} {shape:?} of {bytes}, the most is {most} (limits.tensor_bytes_max)"
                ))
            }
        }
    }

    /// The same for texts.
    pub(super) fn holds_bytes(&self, bytes: usize) -> Result<(), String> {
        let most = self.tensor_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        Err(format!("it would make BYTES of {bytes} bytes, the most is {most} (limits.tensor_bytes_max)"))
    }

    fn check(&self) -> Result<(), Error> {
        let sound = |bytes: usize| (1..=LIMIT_MAX).contains(&bytes);
        if sound(self.tensor_bytes_max) && sound(self.request_bytes_max) {
            return Ok(());
        }
        Err(Error::Graph(format!("limits: each is 1 to {LIMIT_MAX} bytes")))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    step: Vec<Table>,
    #[serde(default)]
    output: BTreeMap<String, Spanned<String>>,
}

/// The file's tables.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) limits: Limits,
    pub(super) steps: Vec<DeclaredStep>,
    /// Where each output of the pipeline comes from.
    pub(super) outputs: BTreeMap<String, String>,
}

/// `[[step]]`.
#[derive(Debug)]
pub(super) struct DeclaredStep {
    pub(super) name: String,
    pub(super) inputs: Inputs,
    /// Keys that say what it does.
    pub(super) rest: Table,
}

/// `input`: what a step reads.
#[derive(Debug)]
pub(super) enum Inputs {
    None,
    /// A text.
    One(String),
    /// A list.
    Many(Vec<String>),
    /// A table: the step's own names on the left.
    Named(BTreeMap<String, String>),
}

/// Reads the file.
pub(super) fn read(text: &str) -> Result<Declared, Error> {
    if text.len() > FILE_BYTES_MAX {
        let problem = format!("a pipeline's file has at most {FILE_BYTES_MAX} bytes, this one has {}", text.len());
        return Err(Error::Graph(problem));
    }
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        Error::Form {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
            message: error.message().trim().to_owned(),
        }
    })?;
    raw.limits.check()?;
    match raw.step.len() {
        0 => return Err(Error::Graph("a pipeline needs at least one [[step]]".to_owned())),
        steps if steps > STEPS_MAX => {
            return Err(Error::Graph(format!("a pipeline has at most {STEPS_MAX} steps, this one has {steps}")));
        }
        _ => {}
    }
    let steps = raw.step.into_iter().enumerate().map(|(at, table)| step(at + 1, table)).collect::<Result<_, _>>()?;
    let outputs = raw.output.into_iter().map(|(name, from)| (name, from.into_inner())).collect();
    Ok(Declared { limits: raw.limits, steps, outputs })
}

fn step(number: usize, mut table: Table) -> Result<DeclaredStep, Error> {
    let name = match table.remove("name") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(Error::Graph(format!("step {number}: its name is a text, given {other}"))),
        None => return Err(Error::Graph(format!("step {number} needs a `name`"))),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let problem = "a step's name has 1 to 64 letters, digits, `_` and `-`; a point leads to its outputs";
        return Err(Error::step(&name, problem));
    }
    let inputs = match table.remove("input") {
        None => Inputs::None,
        Some(Value::String(from)) => Inputs::One(from),
        Some(Value::Array(list)) => {
            let from = |value: Value| match value {
                Value::String(from) => Ok(from),
                other => Err(Error::step(&name, format!("`input` is a list of names, given {other}"))),
            };
            Inputs::Many(list.into_iter().map(from).collect::<Result<_, _>>()?)
        }
        Some(Value::Table(table)) => Inputs::Named(names(&name, "input", table)?),
        Some(other) => {
            return Err(Error::step(&name, format!("`input` is a name, a list or a table of names, given {other}")));
        }
    };
    Ok(DeclaredStep { name, inputs, rest: table })
}

/// A table of names.
pub(super) fn names(step: &str, key: &str, table: Table) -> Result<BTreeMap<String, String>, Error> {
    let from = |(port, value): (String, Value)| match value {
        Value::String(from) => Ok((port, from)),
        other => Err(Error::step(step, format!("`{key}.{port}` is a name, given {other}"))),
    };
    table.into_iter().map(from).collect()
}
