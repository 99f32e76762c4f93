//! `[predict]` as the manifest writes it, and the bounds that the configuration sets.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use toml::{Table, Value};

use super::audio::AudioConfig;
use super::error::Error;
use super::image::ImageConfig;
use super::output::StepConfig;
use super::record::RecordConfig;
use super::series::SeriesConfig;
use super::text::TextConfig;

/// Bounds on what one request may make the box do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests that are decoded and encoded at the same time; 0 takes one less than there are cores, at least one.
    pub threads: usize,
    /// Largest picture, width times height. Decoded it takes three bytes a pixel, up to ten while it is being decoded.
    pub image_pixels_max: u64,
    /// Longest sound in seconds.
    pub audio_seconds_max: u32,
    /// Instances in one request, and windows of a series.
    pub instances_max: usize,
    /// Bytes of all tensors that one request becomes: small files may be large pictures.
    pub tensor_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: 0,
            image_pixels_max: 25_000_000,
            audio_seconds_max: 60,
            instances_max: 256,
            tensor_bytes_max: 128 << 20,
        }
    }
}

/// `[predict]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) input: Vec<InputConfig>,
    #[serde(default)]
    pub(super) output: Vec<OutputConfig>,
}

impl Config {
    pub(super) fn parse(table: &Table) -> Result<Self, Error> {
        Value::Table(table.clone())
            .try_into()
            .map_err(|error: toml::de::Error| Error::Config(error.message().trim().replace('\n', " ")))
    }
}

/// `[[predict.input]]`: one thing that a caller sends, or a part of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum InputConfig {
    Record(RecordConfig),
    Series(SeriesConfig),
    Image(ImageConfig),
    Audio(AudioConfig),
    Text(TextConfig),
}

/// `[[predict.output]]`: one thing in the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputConfig {
    /// Its key in the answer; the tensor's name if left out.
    pub(super) name: Option<String>,
    /// The model's output; its only one if left out.
    pub(super) tensor: Option<String>,
    /// In order; none gives the numbers as they are.
    #[serde(default, deserialize_with = "steps")]
    pub(super) steps: Vec<StepConfig>,
}

/// A list of steps. One without settings may be written as its name alone.
pub(super) fn steps<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let given = Vec::<Value>::deserialize(deserializer)?;
    let step = |(at, value): (usize, Value)| {
        let value = match value {
            Value::String(name) => Value::Table(Table::from_iter([("step".to_owned(), Value::String(name))])),
            other => other,
        };
        value.try_into().map_err(|error: toml::de::Error| {
            D::Error::custom(format!("step {}: {}", at + 1, error.message().trim().replace('\n', " ")))
        })
    };
    given.into_iter().enumerate().map(step).collect()
}
