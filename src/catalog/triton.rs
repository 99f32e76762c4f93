//! `config.pbtxt`, Triton's configuration of a model, which lies in the model's folder beside its versions: what of it has a
//! meaning here.
//!
//! It says how the model is served where neither the gateway's configuration nor the manifest does, and what it says of the
//! model itself must be so. What has no meaning here is left out with a note; what would change the answers and cannot be had is
//! refused with its place.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Port};
use super::model::{Error, open_regular, resolve};
use super::pbtxt::{Field, Wrong, parse};
use super::serving::{BatchWhen, Serving, Versions};
use crate::base::{Datatype, Name};

pub(super) const FILE: &str = "config.pbtxt";
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Rows that a configuration may let a request have.
const ROWS_MAX: u32 = 1 << 20;
/// Most rows that are computed together, whatever one request may have.
const BATCH_ROWS_MAX: u32 = 1024;
/// Fields of Triton's without a meaning here.
const WITHOUT_MEANING: [&str; 12] = [
    "batch_input",
    "batch_output",
    "cc_model_filenames",
    "metric_tags",
    "model_metrics",
    "model_operations",
    "model_repository_agents",
    "model_transaction_policy",
    "optimization",
    "response_cache",
    "runtime",
    "scheduling",
];

/// What a `config.pbtxt` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Triton {
    path: PathBuf,
    /// How the model is served.
    pub serving: Serving,
    /// Which of its versions are.
    pub versions: Option<Versions>,
    /// Rows that one request may have; 0 is any number.
    pub request_rows_max: u32,
    /// What has no meaning here, each with its place.
    pub notes: Vec<String>,
    rows_line: usize,
    file: Option<(String, usize)>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    line: usize,
    name: String,
    datatype: Option<Datatype>,
    dims: Option<Vec<i64>>,
    has_labels: bool,
}

/// Reads the file of a model's folder, if there is one. The error says what is wrong, and where in the text.
pub(super) fn read(root: &Path, folder: &Path, model: &Name) -> Result<Option<Triton>, Failure> {
    let path = folder.join(FILE);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let text = read_text(root, &path).map_err(Failure::File)?;
    Triton::parse(&text, path, model).map(Some).map_err(Failure::Text)
}

/// Why a file is of no use.
#[derive(Debug)]
pub(super) enum Failure {
    File(Error),
    Text(Wrong),
}

fn read_text(root: &Path, path: &Path) -> Result<String, Error> {
    let (file, _) = open_regular(&resolve(root, path)?, FILE_BYTES_MAX)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text)
}

impl Triton {
    fn parse(text: &str, path: PathBuf, model: &Name) -> Result<Self, Wrong> {
        let mut read = Self { path, ..Self::default() };
        let mut sizes = Vec::new();
        let mut warm_up = None;
        for field in &parse(text)? {
            read.take(field, model, &mut sizes, &mut warm_up)?;
        }
        let rows = Some(read.request_rows_max).filter(|&rows| rows > 0);
        let serving = &mut read.serving;
        serving.batch_rows_max = sizes.into_iter().max().or(serving.batch_rows_max);
        serving.batch_rows_max = serving.batch_rows_max.or(rows.map(|rows| rows.min(BATCH_ROWS_MAX)));
        serving.warm_up_runs = serving.warm_up_runs.or(warm_up);
        // Where they stand is lost by now; their names are not.
        serving.check().map_err(|what| Wrong { at: super::pbtxt::Place { line: 1, column: 1 }, what })?;
        Ok(read)
    }

    fn take(
        &mut self,
        field: &Field,
        model: &Name,
        sizes: &mut Vec<u32>,
        warm_up: &mut Option<u32>,
    ) -> Result<(), Wrong> {
        match field.name.as_str() {
            "name" => match field.text()? {
                name if name.is_empty() || name == model.as_str() => {}
                name => return Err(field.wrong(format!("it is {name:?}, expected the folder's, {:?}", model.as_str()))),
            },
            "platform" | "backend" => match field.text()? {
                "" | "onnxruntime" | "onnxruntime_onnx" => {}
                other => return Err(field.wrong(format!("{other:?} is not served here, expected \"onnxruntime\""))),
            },
            "default_model_filename" => self.file = Some((field.text()?.to_owned(), field.at.line)),
            "max_batch_size" => {
                let rows = field.count()?;
                if rows > ROWS_MAX {
                    return Err(field.wrong(format!("it is {rows}, the most is {ROWS_MAX}")));
                }
                (self.request_rows_max, self.rows_line) = (rows, field.at.line);
            }
            "input" => self.inputs.push(Self::tensor(field, &mut self.notes, &self.path)?),
            "output" => self.outputs.push(Self::tensor(field, &mut self.notes, &self.path)?),
            "dynamic_batching" => {
                self.serving.batching = Some(BatchWhen::On);
                for inner in field.message()? {
                    match inner.name.as_str() {
                        "preferred_batch_size" => sizes.push(inner.count()?),
                        "max_queue_delay_microseconds" => self.serving.batch_delay_us = Some(inner.count()?.into()),
                        _ => self.note(inner),
                    }
                }
            }
            "instance_group" => {
                for inner in field.message()? {
                    match inner.name.as_str() {
                        "count" => {
                            let all = self.serving.concurrency_max.unwrap_or(0).saturating_add(inner.count()?);
                            self.serving.concurrency_max = Some(all);
                        }
                        "kind" if matches!(inner.word()?, "KIND_CPU" | "KIND_AUTO") => {}
                        "name" => drop(inner.text()?),
                        // Devices are the configuration's: `[delegate]`.
                        _ => self.note(inner),
                    }
                }
            }
            "version_policy" => self.versions = Some(policy(field)?),
            "model_warmup" => {
                // The rows are the first golden sample's, or made up.
                let mut runs = 1;
                for inner in field.message()?.iter().filter(|inner| inner.name == "count") {
                    runs = inner.count()?.max(1);
                }
                *warm_up = Some(warm_up.unwrap_or(0).saturating_add(runs));
            }
            "parameters" => self.parameter(field)?,
            "sequence_batching" | "ensemble_scheduling" => {
                return Err(field.wrong("it cannot be had here; docs/pipelines.md has graphs of models"));
            }
            name if WITHOUT_MEANING.contains(&name) => self.note(field),
            _ => return Err(field.wrong("there is no such field in a model's configuration")),
        }
        Ok(())
    }

    fn note(&mut self, field: &Field) {
        note(&mut self.notes, &self.path, field, "it has no meaning here");
    }

    fn tensor(field: &Field, notes: &mut Vec<String>, path: &Path) -> Result<Tensor, Wrong> {
        let mut tensor =
            Tensor { line: field.at.line, name: String::new(), datatype: None, dims: None, has_labels: false };
        for inner in field.message()? {
            match inner.name.as_str() {
                "name" => inner.text()?.clone_into(&mut tensor.name),
                "data_type" => {
                    let word = inner.word()?;
                    let datatype = match word {
                        "TYPE_STRING" => Some(Datatype::Bytes),
                        _ => word.strip_prefix("TYPE_").and_then(Datatype::named),
                    };
                    tensor.datatype = Some(datatype.ok_or_else(|| inner.wrong(format!("no type {word}")))?);
                }
                "dims" => tensor.dims.get_or_insert_default().push(inner.whole()?),
                "label_filename" => {
                    tensor.has_labels = !inner.text()?.is_empty();
                }
                "reshape" => return Err(inner.wrong("it cannot be had here: send the shape that the model takes")),
                "format" | "is_shape_tensor" | "allow_ragged_batch" | "optional" | "is_non_linear_format_io" => {
                    note(notes, path, inner, "it has no meaning here");
                }
                _ => return Err(inner.wrong("there is no such field of a tensor")),
            }
        }
        if tensor.name.is_empty() {
            return Err(field.wrong("it has no name"));
        }
        Ok(tensor)
    }

    fn parameter(&mut self, field: &Field) -> Result<(), Wrong> {
        let (mut key, mut text) = ("", None);
        for inner in field.message()? {
            match inner.name.as_str() {
                "key" => key = inner.text()?,
                "value" => {
                    for value in inner.message()?.iter().filter(|value| value.name == "string_value") {
                        text = Some(value.text()?);
                    }
                }
                _ => return Err(inner.wrong("there is no such field of a parameter")),
            }
        }
        let odd = |what: &str| field.wrong(format!("{key} is {:?}, expected {what}", text.unwrap_or_default()));
        let number = || text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| odd("a whole number from 0"));
        let small = || number().and_then(|number| u32::try_from(number).map_err(|_| odd("a smaller number")));
        let serving = &mut self.serving;
        match key {
            "batching" => {
                serving.batching = Some(match text {
                    Some("auto") => BatchWhen::Auto,
                    Some("on") => BatchWhen::On,
                    Some("off") => BatchWhen::Off,
                    _ => return Err(odd("auto, on or off")),
                });
            }
            "batch_rows_max" => serving.batch_rows_max = Some(small()?),
            "batch_delay_us" => serving.batch_delay_us = Some(number()?),
            "concurrency_max" => serving.concurrency_max = Some(small()?),
            "idle_unload_s" => serving.idle_unload_s = Some(number()?),
            "memory_bytes" => serving.memory_bytes = Some(number()?),
            "warm_up_runs" => serving.warm_up_runs = Some(small()?),
            _ => note(&mut self.notes, &self.path, field, &format!("{key:?} has no meaning here")),
        }
        Ok(())
    }

    /// Whether what it says of the model itself is so. The manifest has all inputs and outputs.
    pub fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let wrong = |line: usize, what: String| Err(format!("{}:{line}: {what}", self.path.display()));
        let about = &manifest.model;
        if let Some((file, line)) = self.file.as_ref().filter(|(file, _)| *file != about.file) {
            return wrong(*line, format!("default_model_filename: it is {:?} and not {file:?}", about.file));
        }
        let batched = self.request_rows_max > 0;
        for (kind, given, ports) in
            [("input", &self.inputs, &manifest.inputs), ("output", &self.outputs, &manifest.outputs)]
        {
            if let Some(port) = ports.iter().find(|port| batched && port.shape.first() != Some(&-1)) {
                let what = format!(
                    "max_batch_size: {kind} {} has shape {:?}, which does not begin with a batch",
                    port.name, port.shape
                );
                return wrong(self.rows_line, what);
            }
            for tensor in given {
                let Some(port) = ports.iter().find(|port| port.name == tensor.name) else {
                    let names = ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
                    return wrong(
                        tensor.line,
                        format!("{kind}: the model has no {kind} {}; it has {names}", tensor.name),
                    );
                };
                if let Err(what) = tensor.agrees(port, batched) {
                    return wrong(tensor.line, format!("{kind} {}: {what}", tensor.name));
                }
            }
            let missing = ports.iter().find(|port| !given.iter().any(|tensor| tensor.name == port.name));
            if let (Some(first), Some(port), "input") = (given.first(), missing, kind) {
                return wrong(first.line, format!("input: the model also has input {}", port.name));
            }
        }
        Ok(())
    }
}

impl Tensor {
    fn agrees(&self, port: &Port, batched: bool) -> Result<(), String> {
        if let Some(given) = self.datatype.filter(|&given| given != port.datatype) {
            return Err(format!("data_type: the model's is {}, given {given}", port.datatype));
        }
        let is = if batched { port.shape.get(1..).unwrap_or_default() } else { &port.shape[..] };
        // Fixed where the model is free: whoever keeps to it is answered.
        let fits = |given: &[i64]| {
            given.len() == is.len() && given.iter().zip(is).all(|(&given, &is)| given == is || (is == -1 && given > 0))
        };
        if let Some(given) = self.dims.as_ref().filter(|given| !fits(given)) {
            let batch = if batched { ", without the batch that max_batch_size stands for" } else { "" };
            return Err(format!("dims: the model's are {is:?}{batch}, given {given:?}"));
        }
        if self.has_labels && port.labels.is_none() {
            return Err("label_filename: no digest covers that file; list it in [[file]] of the manifest and name it in `labels` \
                        of the output"
                .to_owned());
        }
        Ok(())
    }
}

fn note(notes: &mut Vec<String>, path: &Path, field: &Field, what: &str) {
    notes.push(format!("{}:{}: {}: {what}", path.display(), field.at.line, field.name));
}

fn policy(field: &Field) -> Result<Versions, Wrong> {
    let [one] = field.message()? else { return Err(field.wrong("expected one of all, latest, specific")) };
    let inside = one.message()?;
    let only = |name: &str| match inside.iter().find(|inner| inner.name != name) {
        Some(other) => Err(other.wrong(format!("there is no such field of {}", one.name))),
        None => Ok(inside),
    };
    match one.name.as_str() {
        "all" => only("").map(|_| Versions::All),
        "latest" => match only("num_versions")?.last().map(Field::count).transpose()?.unwrap_or(1) {
            0 => Err(one.wrong("num_versions counts versions: at least 1")),
            count => Ok(Versions::Latest(count as usize)),
        },
        "specific" => {
            let listed = only("versions")?.iter().map(Field::count).collect::<Result<Vec<_>, _>>()?;
            if listed.is_empty() || listed.contains(&0) {
                return Err(one.wrong("a list of versions needs at least one; they count from 1"));
            }
            Ok(Versions::Listed(listed))
        }
        _ => Err(one.wrong("it is none of all, latest, specific")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] } ]
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 300 preserve_ordering: true }
instance_group [ { count: 2 kind: KIND_CPU } ]
version_policy: { latest: { num_versions: 2 } }
model_warmup [ { name: "zeros" batch_size: 1 count: 3 } ]
parameters { key: "idle_unload_s" value { string_value: "60" } }
parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp" } }
optimization { graph: { level: 1 } }
"#;

    fn read(text: &str) -> Result<Triton, Wrong> {
        Triton::parse(text, PathBuf::from("simple/config.pbtxt"), &Name::new("simple").unwrap())
    }

    fn manifest() -> Manifest {
        let port =
            |kind: &str, name: &str| format!("[[{kind}]]\nname = \"{name}\"\ndatatype = \"INT32\"\nshape = [-1, 16]\n");
        let text = format!(
            "[model]\nname = \"simple\"\nversion = 1\nfile = \"model.onnx\"\nsha256 = \"{}\"\nformat = \"onnx\"\nlicense = \"MIT\"\n{}",
            "0".repeat(64),
            [port("input", "INPUT0"), port("input", "INPUT1"), port("output", "OUTPUT0"), port("output", "OUTPUT1")]
                .concat()
        );
        Manifest::parse(&text).unwrap()
    }

    #[test]
    fn what_has_a_meaning_here_becomes_settings_and_the_rest_a_note_with_its_line() {
        let read = read(SOUND).unwrap();
        let expected = Serving {
            batching: Some(BatchWhen::On),
            batch_rows_max: Some(4),
            batch_delay_us: Some(300),
            concurrency_max: Some(2),
            warm_up_runs: Some(3),
            idle_unload_s: Some(60),
            ..Serving::default()
        };
        assert_eq!(read.serving, expected);
        assert_eq!((read.request_rows_max, &read.versions), (8, &Some(Versions::Latest(2))));
        assert_eq!(
            read.notes,
            [
                "simple/config.pbtxt:7: preserve_ordering: it has no meaning here",
                "simple/config.pbtxt:12: parameters: \"EXECUTION_ENV_PATH\" has no meaning here",
                "simple/config.pbtxt:13: optimization: it has no meaning here",
            ]
        );
        assert_eq!(read.check(&manifest()), Ok(()));
        assert_eq!(read_empty(), Triton { path: "simple/config.pbtxt".into(), ..Triton::default() });
    }

    fn read_empty() -> Triton {
        read("# nothing\n").unwrap()
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_place() {
        for (text, line, says) in [
            ("\nname: \"other\"", 2, "name: it is \"other\", expected the folder's, \"simple\""),
            ("platform: \"tensorflow_savedmodel\"", 1, "platform: \"tensorflow_savedmodel\" is not served here"),
            ("backend: \"python\"", 1, "backend: \"python\" is not served here"),
            ("max_batch_size: -1", 1, "max_batch_size: expected a whole number from 0 to 4294967295, given -1"),
            ("max_batch_size: 9999999", 1, "the most is 1048576"),
            ("max_batch_size: \"8\"", 1, "expected a whole number, given \"8\""),
            ("sequence_batching { }", 1, "sequence_batching: it cannot be had here"),
            ("ensemble_scheduling { }", 1, "docs/pipelines.md"),
            ("max_bach_size: 8", 1, "max_bach_size: there is no such field"),
            ("input { name: \"a\"\n reshape { shape: [ ] } }", 2, "reshape: it cannot be had here"),
            ("input { name: \"a\" data_type: TYPE_BF16 }", 1, "data_type: no type TYPE_BF16"),
            ("input { dims: 1 }", 1, "input: it has no name"),
            ("version_policy { newest { } }", 1, "newest: it is none of all, latest, specific"),
            ("version_policy { specific { } }", 1, "needs at least one"),
            ("parameters { key: \"batching\" value { string_value: \"yes\" } }", 1, "expected auto, on or off"),
            ("dynamic_batching { max_queue_delay_microseconds: 9000000 }", 1, "batch_delay_us is 9000000"),
            ("name: ", 1, "expected a value of name"),
        ] {
            let wrong = read(text).unwrap_err();
            assert_eq!(wrong.at.line, line, "{text}: {}", wrong.what);
            assert!(wrong.what.contains(says), "{text}: {}", wrong.what);
        }
    }

    #[test]
    fn what_it_says_of_the_model_must_be_so_and_the_line_is_named_where_it_is_not() {
        for (from, to, says) in [
            (
                "dims: [ 16 ] }, {",
                "dims: [ 17 ] }, {",
                ":5: input INPUT0: dims: the model's are [16], without the batch",
            ),
            (
                "\"INPUT1\" data_type: TYPE_INT32",
                "\"INPUT1\" data_type: TYPE_FP32",
                ":5: input INPUT1: data_type: the model's is INT32, given FP32",
            ),
            ("\"OUTPUT0\"", "\"OUTPUT7\"", ":6: output: the model has no output OUTPUT7; it has OUTPUT0, OUTPUT1"),
            (
                ", { name: \"INPUT1\" data_type: TYPE_INT32 dims: [ 16 ] }",
                "",
                ":5: input: the model also has input INPUT1",
            ),
            ("max_batch_size: 8", "max_batch_size: 0", ":5: input INPUT0: dims: the model's are [-1, 16], given [16]"),
            (
                "dims: [ 16 ] } ]\ndyn",
                "dims: [ 16 ] label_filename: \"l.txt\" } ]\ndyn",
                ":6: output OUTPUT0: label_filename: no digest",
            ),
            (
                "name: \"simple\"",
                "default_model_filename: \"m.onnx\"",
                ":2: default_model_filename: it is \"model.onnx\"",
            ),
        ] {
            assert!(SOUND.contains(from), "{from}");
            let error = read(&SOUND.replacen(from, to, 1)).unwrap().check(&manifest()).unwrap_err();
            assert!(error.starts_with("simple/config.pbtxt:") && error.contains(says), "{from}: {error}");
        }
        let mut fixed = manifest();
        fixed.inputs[0].shape = vec![1, 16];
        let error = read("max_batch_size: 4").unwrap().check(&fixed).unwrap_err();
        assert!(error.contains(":1: max_batch_size: input INPUT0 has shape [1, 16]"), "{error}");
    }
}
