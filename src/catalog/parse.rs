//! Reading `manifest.toml`: every mistake has its line and column.

use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Table};

use super::golden::Golden;
use super::manifest::{About, FileEntry, Labels, Manifest, Normalisation, NormaliseMethod, Port, Thresholds, Training};
use super::serving::Serving;

const MAX_PORTS: usize = 64;
const MAX_DIMS: usize = 8;
const MAX_FILES: usize = 16;
/// Elements of the fixed dimensions together: 64 MiB of 32-bit floats.
const MAX_ELEMENTS: i64 = 1 << 24;

/// Where a manifest is wrong. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ManifestError {
    /// Line of the first wrong character.
    pub line: usize,
    /// Column of it, in characters.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    model: Spanned<About>,
    #[serde(default)]
    input: Vec<Spanned<Port>>,
    #[serde(default)]
    output: Vec<Spanned<Port>>,
    training: Option<Spanned<Training>>,
    normalise: Option<Spanned<Normalisation>>,
    thresholds: Option<Spanned<Thresholds>>,
    serving: Option<Spanned<Serving>>,
    #[serde(default)]
    provenance: Table,
    #[serde(default)]
    quality: Table,
    #[serde(default)]
    golden: Vec<Spanned<Golden>>,
    #[serde(default)]
    file: Vec<Spanned<FileEntry>>,
    predict: Option<Table>,
}

type Wrong = (Range<usize>, String);

impl Manifest {
    /// Reads and checks a manifest. Every error names its line and column.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let at = |(span, message): Wrong| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            ManifestError { line, column, message }
        };
        let raw: Raw = toml::from_str(text)
            .map_err(|error| at((error.span().unwrap_or(0..0), error.message().trim().to_owned())))?;
        checked(raw).map_err(at)
    }
}

fn checked(raw: Raw) -> Result<Manifest, Wrong> {
    let whole = raw.model.span();
    let model = raw.model.into_inner();
    let wrong = |message: String| Err((whole.clone(), message));
    if model.version == 0 {
        return wrong("version counts from 1".to_owned());
    }
    if model.license.trim().is_empty() {
        return wrong("license must not be empty: write an SPDX expression such as `MIT`".to_owned());
    }
    if !plain_file_name(&model.file) {
        return wrong(format!(
            "file {:?} must be the plain name of a file beside the manifest, without slashes",
            model.file
        ));
    }
    let inputs = ports("input", raw.input, &whole)?;
    let outputs = ports("output", raw.output, &whole)?;
    let training = raw.training.map(checked_training).transpose()?;
    let normalise = raw.normalise.map(checked_normalisation).transpose()?;
    let thresholds = raw.thresholds.map(checked_thresholds).transpose()?;
    let serving = raw.serving.map(checked_serving).transpose()?.unwrap_or_default();
    let golden =
        raw.golden.into_iter().map(|golden| checked_golden(golden, &inputs, &outputs)).collect::<Result<_, _>>()?;
    let files = files(raw.file, &model.file)?;
    for port in inputs.iter().chain(&outputs) {
        if let Some(Labels::File(name)) = &port.labels
            && !files.iter().any(|file| file.name == *name)
        {
            return wrong(format!(
                "{} has its labels in {name:?}: list that file in [[file]] with its sha256",
                port.name
            ));
        }
    }
    let (provenance, quality, predict) = (raw.provenance, raw.quality, raw.predict);
    Ok(Manifest {
        model,
        inputs,
        outputs,
        training,
        normalise,
        thresholds,
        serving,
        provenance,
        quality,
        golden,
        files,
        predict,
    })
}

fn files(given: Vec<Spanned<FileEntry>>, model_file: &str) -> Result<Vec<FileEntry>, Wrong> {
    let mut files: Vec<FileEntry> = Vec::new();
    for file in given {
        let (span, file) = (file.span(), file.into_inner());
        let name = &file.name;
        let message = if !plain_file_name(name) {
            format!("{name:?} must be the plain name of a file beside the manifest, without slashes")
        } else if name == model_file || files.iter().any(|other| other.name == *name) {
            format!("file {name} stands twice")
        } else if files.len() == MAX_FILES {
            format!("a model has at most {MAX_FILES} other files")
        } else {
            files.push(file);
            continue;
        };
        return Err((span, message));
    }
    Ok(files)
}

fn plain_file_name(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0'])
}

fn ports(what: &str, given: Vec<Spanned<Port>>, whole: &Range<usize>) -> Result<Vec<Port>, Wrong> {
    if given.len() > MAX_PORTS {
        let message = format!("a model has at most {MAX_PORTS} [[{what}]] tables, this one has {}", given.len());
        return Err((whole.clone(), message));
    }
    let mut ports: Vec<Port> = Vec::new();
    for port in given {
        let (span, port) = (port.span(), port.into_inner());
        let name = &port.name;
        let fixed = port.shape.iter().filter(|&&dim| dim > 0).try_fold(1_i64, |product, &dim| product.checked_mul(dim));
        let message = if name.is_empty() {
            format!("{what} needs a name")
        } else if ports.iter().any(|other| other.name == *name) {
            format!("{what} {name} stands twice")
        } else if port.shape.is_empty() || port.shape.len() > MAX_DIMS {
            format!("{what} {name} needs 1 to {MAX_DIMS} dimensions, it has {}", port.shape.len())
        } else if let Some(dim) = port.shape.iter().find(|&&dim| dim < -1 || dim == 0) {
            format!("{what} {name} has the dimension {dim}: each is at least 1, or -1 for any size")
        } else if fixed.is_none_or(|elements| elements > MAX_ELEMENTS) {
            format!("{what} {name} of shape {:?} is over {MAX_ELEMENTS} elements", port.shape)
        } else {
            ports.push(port);
            continue;
        };
        return Err((span, message));
    }
    Ok(ports)
}

fn checked_training(given: Spanned<Training>) -> Result<Training, Wrong> {
    let (span, training) = (given.span(), given.into_inner());
    let features = training.mean.as_slice().len();
    let others = [Some(&training.std), training.min.as_ref(), training.max.as_ref()];
    if others.into_iter().flatten().any(|values| values.as_slice().len() != features) {
        return Err((span, format!("mean has {features} numbers: std, min and max need as many")));
    }
    Ok(training)
}

fn checked_normalisation(given: Spanned<Normalisation>) -> Result<Normalisation, Wrong> {
    let (span, normalise) = (given.span(), given.into_inner());
    let (low, high, names) = match normalise.method {
        NormaliseMethod::None => return Ok(normalise),
        NormaliseMethod::Zscore => (&normalise.mean, &normalise.std, "mean and std"),
        NormaliseMethod::Minmax => (&normalise.min, &normalise.max, "min and max"),
    };
    let (Some(low), Some(high)) = (low, high) else {
        return Err((span, format!("this method needs {names}")));
    };
    let (low, high) = (low.as_slice(), high.as_slice());
    if low.len() != high.len() {
        return Err((span, format!("{names} need as many numbers, they have {} and {}", low.len(), high.len())));
    }
    let divisible = match normalise.method {
        NormaliseMethod::Minmax => low.iter().zip(high).all(|(low, high)| high > low),
        _ => high.iter().all(|&std| std > 0.0),
    };
    if !divisible {
        return Err((span, "a reading would be divided by zero: std must be over 0, and max over min".to_owned()));
    }
    Ok(normalise)
}

fn checked_thresholds(given: Spanned<Thresholds>) -> Result<Thresholds, Wrong> {
    let (span, thresholds) = (given.span(), given.into_inner());
    let Thresholds { raise, clear, raise_after, clear_after } = thresholds;
    if !raise.is_finite() || !clear.is_finite() || clear > raise {
        return Err((span, format!("clear ({clear}) must be at most raise ({raise}), both finite")));
    }
    if raise_after == 0 || clear_after == 0 {
        return Err((span, "raise_after and clear_after count scores: at least 1".to_owned()));
    }
    Ok(thresholds)
}

fn checked_serving(given: Spanned<Serving>) -> Result<Serving, Wrong> {
    let (span, serving) = (given.span(), given.into_inner());
    serving.check().map_err(|problem| (span, problem))?;
    Ok(serving)
}

fn checked_golden(given: Spanned<Golden>, inputs: &[Port], outputs: &[Port]) -> Result<Golden, Wrong> {
    let (span, golden) = (given.span(), given.into_inner());
    let wrong = |message: String| (span.clone(), message);
    if golden.outputs.is_empty() {
        return Err(wrong("golden sample names no output, so it would prove nothing".to_owned()));
    }
    if golden.tolerance < 0.0 || golden.relative_tolerance < 0.0 {
        return Err(wrong("a tolerance must not be negative".to_owned()));
    }
    if let Some(file) = golden.files().find(|file| !plain_file_name(&file.file)) {
        return Err(wrong(format!("golden file {:?} must be the plain name of a file beside the manifest", file.file)));
    }
    if inputs.is_empty() || outputs.is_empty() {
        // The model file says what they are; the sample is checked against that when it is loaded.
        return Ok(golden);
    }
    golden.fitted(inputs, outputs).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::GoldenValue;

    const GOOD: &str = r#"
[model]
name = "press"
version = 2
file = "model.onnx"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
format = "onnx"
license = "MIT"

[[input]]
name = "window"
datatype = "FP32"
shape = [-1, 3]
unit = "degC"

[[output]]
name = "score"
datatype = "FP32"
shape = [-1, 1]

[training]
mean = 88
std = 9.3
count = 10

[normalise]
method = "zscore"
mean = 88
std = 9.3

[thresholds]
raise = 1.5
clear = 1.0

[provenance]
data = "somewhere"

[quality]
windows_caught = 4
times = ["a", "b"]

[[golden]]
input = [1, 2.5, 3]
score = 0.5

[[file]]
name = "labels.txt"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"#;

    fn numbers(value: &GoldenValue) -> &[f64] {
        let GoldenValue::Numbers(values) = value else { panic!("{value:?}") };
        values.as_slice()
    }

    fn refused(from: &str, to: &str) -> ManifestError {
        assert!(GOOD.contains(from), "{from} is not in the sample");
        Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err()
    }

    #[test]
    fn a_manifest_reads_as_its_author_wrote_it() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.model.name.as_str(), "press");
        assert_eq!(manifest.inputs[0].unit.as_deref(), Some("degC"));
        assert_eq!(manifest.training.unwrap().mean.as_slice(), [88.0]);
        assert_eq!(manifest.thresholds.unwrap().raise_after, 1);
        assert_eq!(manifest.quality["windows_caught"].as_integer(), Some(4));
        let golden = &manifest.golden[0];
        assert_eq!(numbers(&golden.inputs["window"]), [1.0, 2.5, 3.0]);
        assert_eq!(numbers(&golden.outputs["score"]), [0.5]);
    }

    #[test]
    fn golden_values_may_stand_in_tables_by_name() {
        let tables = "input = { window = [1, 2, 3, 4, 5, 6] }\noutput = { score = [0.5, 0.6] }";
        let manifest = Manifest::parse(&GOOD.replace("input = [1, 2.5, 3]\nscore = 0.5", tables)).unwrap();
        assert_eq!(numbers(&manifest.golden[0].outputs["score"]), [0.5, 0.6]);
        assert_eq!(manifest.inputs[0].sample_shape(6), Some(vec![2, 3]));
    }

    #[test]
    fn golden_tensors_may_lie_in_files_beside_the_manifest_and_not_elsewhere() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let files = |file: &str| {
            let given = format!(
                "input = {{ window = {{ file = {file:?}, sha256 = \"{digest}\" }} }}\nscore = {{ file = \"y.npy\", sha256 = \"{digest}\" }}"
            );
            Manifest::parse(&GOOD.replace("input = [1, 2.5, 3]\nscore = 0.5", &given))
        };
        let golden = files("x.npy").unwrap().golden.remove(0);
        assert_eq!(golden.files().map(|file| file.file.as_str()).collect::<Vec<_>>(), ["x.npy", "y.npy"]);
        assert!(files("../x.npy").unwrap_err().message.contains("plain name"));
        let only = GOOD.replace("[1, 2.5, 3]", &format!("{{ sha256 = \"{digest}\", file = \"x.npy\" }}"));
        assert_eq!(Manifest::parse(&only).unwrap().golden[0].files().count(), 1);
    }

    #[test]
    fn inputs_and_outputs_may_be_left_to_the_model_file() {
        let (head, rest) = GOOD.split_once("[[input]]").unwrap();
        let bare = format!("{head}[training]{}", rest.split_once("[training]").unwrap().1);
        let manifest = Manifest::parse(&bare).unwrap();
        assert!(manifest.inputs.is_empty() && manifest.outputs.is_empty());
        let port = |name: &str, shape: &[i64]| Port {
            name: name.to_owned(),
            datatype: crate::base::Datatype::Fp32,
            shape: shape.to_vec(),
            unit: None,
            labels: None,
        };
        let golden = || manifest.golden[0].clone();
        let fitted = golden().fitted(&[port("w", &[-1, 3])], &[port("score", &[-1, 1])]).unwrap();
        assert_eq!(numbers(&fitted.inputs["w"]), [1.0, 2.5, 3.0]);
        let short = golden().fitted(&[port("w", &[-1, 4])], &[port("score", &[-1, 1])]).unwrap_err();
        assert!(short.contains("do not fill the shape [-1, 4]"), "{short}");
    }

    #[test]
    fn every_mistake_has_its_line_and_says_what_is_wrong() {
        for (from, to, line, message) in [
            ("version = 2", "version = \"two\"", 4, "expected u32"),
            ("version = 2", "version = 2\nversoin = 3", 5, "unknown field `versoin`"),
            ("sha256 = \"e3b0", "sha256 = \"XYZ", 6, "64 hex digits"),
            ("file = \"model.onnx\"", "file = \"../../etc/passwd\"", 2, "plain name"),
            ("license = \"MIT\"", "license = \"\"", 2, "license must not be empty"),
            ("name = \"press\"", "name = \"a/b\"", 3, "a name has only letters"),
            ("datatype = \"FP32\"", "datatype = \"float\"", 12, "unknown variant `float`"),
            ("shape = [-1, 3]", "shape = [-1, 0]", 10, "dimension 0"),
            ("shape = [-1, 3]", "shape = [4000000000, 4000000000, 4000000000]", 10, "over 16777216 elements"),
            ("shape = [-1, 3]", "shape = []", 10, "1 to 8 dimensions"),
            ("std = 9.3\n\n[thr", "std = 0\n\n[thr", 26, "divided by zero"),
            ("clear = 1.0", "clear = 2.0", 31, "at most raise"),
            ("input = [1, 2.5, 3]", "input = [1, 2.5]", 42, "do not fill the shape"),
            ("input = [1, 2.5, 3]", "input = [1, nan, 3]", 43, "nan"),
            ("input = [1, 2.5, 3]", "input = [1, \"low\"]", 43, "numbers or texts, not both"),
            ("input = [1, 2.5, 3]", "input = [\"a\", \"b\", \"c\"]", 42, "has texts, expected FP32"),
            ("input = [1, 2.5, 3]", "input = { file = \"x.npy\" }", 43, "missing field `sha256`"),
            ("score = 0.5", "score = 0.5\nrelative_tolerance = -1", 42, "must not be negative"),
            ("score = 0.5", "scroe = 0.5", 42, "scroe, which is no output"),
            ("score = 0.5", "", 42, "names no output"),
            ("[provenance]", "[serving]\nbatching = \"sometimes\"\n[provenance]", 36, "unknown variant `sometimes`"),
            ("[provenance]", "[serving]\nbatch_rows_max = 0\n[provenance]", 35, "at least 1"),
            ("[provenance]", "[serving]\nidle_unload = 3\n[provenance]", 36, "unknown field `idle_unload`"),
            ("[provenance]", "[provenance", 35, ""),
            ("name = \"labels.txt\"", "name = \"../labels.txt\"", 46, "plain name"),
            ("name = \"labels.txt\"", "name = \"model.onnx\"", 46, "stands twice"),
            ("unit = \"degC\"", "labels = \"names.txt\"", 2, "list that file in [[file]]"),
            ("unit = \"degC\"", "labels = 7", 14, "a list of labels"),
        ] {
            let error = refused(from, to);
            assert_eq!((error.line, error.message.contains(message)), (line, true), "{to}: {error}");
        }
    }
}
