//! `manifest.toml`: what a model takes, gives, was trained on, and may be believed for.

use serde::{Deserialize, Deserializer, de};
use toml::Table;

use super::golden::Golden;
use super::serving::Serving;
use super::values::Values;
use crate::base::{Datatype, Digest, Name};

/// A manifest that has been read and agrees with itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// `[model]`.
    pub model: About,
    /// `[[input]]`; none where the model file is to say it.
    pub inputs: Vec<Port>,
    /// `[[output]]`; none where the model file is to say it.
    pub outputs: Vec<Port>,
    /// `[training]`: statistics of the readings it was trained on.
    pub training: Option<Training>,
    /// `[normalise]`: what a reading goes through before the model sees it.
    pub normalise: Option<Normalisation>,
    /// `[thresholds]`: when a score becomes an alert, unless the configuration says otherwise.
    pub thresholds: Option<Thresholds>,
    /// `[serving]`: when it is loaded, how much it needs, whether its requests are computed together.
    pub serving: Serving,
    /// `[provenance]`: where data and weights come from, in the author's own keys.
    pub provenance: Table,
    /// `[quality]`: what was measured, in the author's own keys.
    pub quality: Table,
    /// `[[golden]]`: samples that an engine must reproduce before the model serves.
    pub golden: Vec<Golden>,
    /// `[[file]]`: what else belongs to the model, such as a tokenizer or a list of labels.
    pub files: Vec<FileEntry>,
    /// `[predict]`: how a picture, a text or a record becomes the inputs, and the outputs an answer. The room that does it
    /// reads it.
    pub predict: Option<Table>,
}

/// `[[file]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// A plain name in the manifest's folder.
    pub name: String,
    /// SHA-256 of its bytes in hex.
    #[serde(deserialize_with = "digest")]
    pub sha256: Digest,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The same as the folder's name.
    pub name: Name,
    /// From 1, the same as the version folder's name.
    pub version: u32,
    /// What it does, such as `anomaly-score`.
    #[serde(default)]
    pub task: String,
    /// The model file, a plain name in the manifest's folder.
    pub file: String,
    /// SHA-256 of that file in hex.
    #[serde(deserialize_with = "digest")]
    pub sha256: Digest,
    /// `onnx`, or another word that an engine knows.
    pub format: String,
    /// The engine that must serve it, by its name; without it the model's operators choose.
    #[serde(default)]
    pub engine: Option<String>,
    /// An SPDX expression.
    pub license: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
}

/// `[[input]]` and `[[output]]`: a named tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The name in the model file.
    pub name: String,
    /// Element type in the words of the Open Inference Protocol.
    pub datatype: Datatype,
    /// Dimensions, outermost first; -1 is free.
    pub shape: Vec<i64>,
    /// Unit of the elements.
    #[serde(default)]
    pub unit: Option<String>,
    /// What its elements are called, in their order: the classes of a classifier.
    #[serde(default)]
    pub labels: Option<Labels>,
}

/// `labels`: a list, or the name of a `[[file]]` with one on each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// In the manifest itself.
    Listed(Vec<String>),
    /// In that file.
    File(String),
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrFile;
        impl<'de> de::Visitor<'de> for ListOrFile {
            type Value = Labels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of labels, or the name of a [[file]] with one on each line")
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<Labels, E> {
                Ok(Labels::File(file.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Labels, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = seq.next_element()? {
                    labels.push(label);
                }
                Ok(Labels::Listed(labels))
            }
        }
        deserializer.deserialize_any(ListOrFile)
    }
}

/// `[training]`: one number a feature, or one for a single series.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "statistics are named by their names")]
pub struct Training {
    pub mean: Values,
    pub std: Values,
    pub min: Option<Values>,
    pub max: Option<Values>,
    /// How many readings.
    pub count: u64,
    /// Time of the first reading, as its source writes it.
    #[serde(default)]
    pub first: String,
    /// Time of the last one.
    #[serde(default)]
    pub last: String,
}

/// `[normalise]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// The formula.
    pub method: NormaliseMethod,
    /// For `zscore`, in the reading's unit; one number, or one a feature.
    pub mean: Option<Values>,
    /// For `zscore`, in the reading's unit.
    pub std: Option<Values>,
    /// For `minmax`, in the reading's unit.
    pub min: Option<Values>,
    /// For `minmax`, in the reading's unit.
    pub max: Option<Values>,
}

/// How a reading `x` is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormaliseMethod {
    /// `x` itself.
    None,
    /// `(x - mean) / std`.
    Zscore,
    /// `(x - min) / (max - min)`.
    Minmax,
}

/// `[thresholds]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// A score of at least this speaks for an alert.
    pub raise: f64,
    /// A score below this speaks against it; at most `raise`.
    pub clear: f64,
    /// So many scores in a row raise it, at least 1.
    #[serde(default = "once")]
    pub raise_after: u32,
    /// So many scores in a row clear it, at least 1.
    #[serde(default = "once")]
    pub clear_after: u32,
}

fn once() -> u32 {
    1
}

pub(super) fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom("a SHA-256 is 64 hex digits: `sha256sum FILE` prints it"))
}

impl Port {
    /// The shape in which `elements` values fill this port: a single free dimension takes what is left, several are 1.
    /// None if they do not fit.
    pub fn sample_shape(&self, elements: usize) -> Option<Vec<usize>> {
        let fixed = self.shape.iter().filter_map(|&dim| usize::try_from(dim).ok());
        let fixed = fixed.fold(1_usize, usize::saturating_mul);
        let free = self.shape.iter().filter(|&&dim| dim == -1).count();
        let rest = if free == 1 { elements / fixed } else { 1 };
        let shape = self.shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(rest)).collect();
        (rest > 0 && fixed.checked_mul(rest) == Some(elements)).then_some(shape)
    }
}
