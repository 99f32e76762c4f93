//! A step without a model: what it takes, what it gives, whether its settings can work, and the work itself.

use serde::Deserialize;
use toml::{Table, Value};

use super::boxes::{Suppress, suppress};
use super::config::Limits;
use super::layout;
use super::numbers;
use super::picture::{Crop, crop, resize};
use super::regions::{Regions, regions};
use super::rows::{marked, pick};
use super::unsure::{Measure, unsure};
use crate::base::{Datatype, Tensor};

/// What a step does, by its word in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "docs/pipelines.md describes each with its keys")]
pub enum Op {
    Softmax {
        #[serde(default = "last")]
        axis: i64,
    },
    Sigmoid {},
    Normalise {
        #[serde(default = "second")]
        axis: i64,
        #[serde(default = "unit")]
        divide: f64,
        #[serde(default)]
        mean: Vec<f64>,
        #[serde(default)]
        std: Vec<f64>,
    },
    Argmax {
        #[serde(default = "last")]
        axis: i64,
    },
    Threshold {
        at: f64,
    },
    Cast {
        datatype: Datatype,
    },
    Reshape {
        shape: Vec<i64>,
    },
    Transpose {
        order: Vec<usize>,
    },
    Slice {
        #[serde(default)]
        axis: i64,
        #[serde(default)]
        from: i64,
        to: Option<i64>,
    },
    Concat {
        #[serde(default)]
        axis: i64,
    },
    Stack {
        #[serde(default)]
        axis: i64,
    },
    Mean {
        #[serde(default)]
        weights: Vec<f64>,
    },
    Vote {},
    /// The rows of `values` that `mask` marks.
    Filter {},
    Unsure {
        measure: Measure,
        /// For `confidence` and `margin`.
        below: Option<f64>,
        /// For `entropy`.
        above: Option<f64>,
    },
    Crop(Crop),
    Resize(Crop),
    Suppress(Suppress),
    Regions(Regions),
}

fn last() -> i64 {
    -1
}

fn second() -> i64 {
    1
}

fn unit() -> f64 {
    1.0
}

/// Which tensors a step reads.
pub(super) enum Takes {
    One,
    Many,
    /// By these names; those behind may be left out.
    Named(&'static [&'static str], &'static [&'static str]),
}

/// Elements up to which a step is done where it is called: some tens of microseconds.
const LIGHT_ELEMENTS: usize = 16_384;

const RESIZE_KEYS: &[&str] = &["step", "width", "height", "layout", "filter"];

impl Op {
    /// Reads the keys of a step.
    pub(super) fn parse(table: Table) -> Result<Self, String> {
        let word = table.get("step").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Keys of a crop that say nothing to a resize.
        if word == "resize"
            && let Some(key) = table.keys().find(|key| !RESIZE_KEYS.contains(&key.as_str()))
        {
            return Err(format!("unknown field `{key}`, expected one of {}", RESIZE_KEYS[1..].join(", ")));
        }
        Value::Table(table).try_into().map_err(|error: toml::de::Error| error.message().trim().to_owned())
    }

    /// The word in the file.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Softmax { .. } => "softmax",
            Self::Sigmoid {} => "sigmoid",
            Self::Normalise { .. } => "normalise",
            Self::Argmax { .. } => "argmax",
            Self::Threshold { .. } => "threshold",
            Self::Cast { .. } => "cast",
            Self::Reshape { .. } => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Slice { .. } => "slice",
            Self::Concat { .. } => "concat",
            Self::Stack { .. } => "stack",
            Self::Mean { .. } => "mean",
            Self::Vote {} => "vote",
            Self::Filter {} => "filter",
            Self::Unsure { .. } => "unsure",
            Self::Crop(_) => "crop",
            Self::Resize(_) => "resize",
            Self::Suppress(_) => "suppress",
            Self::Regions(_) => "regions",
        }
    }

    pub(super) fn takes(&self) -> Takes {
        match self {
            Self::Concat { .. } | Self::Stack { .. } | Self::Mean { .. } | Self::Vote {} => Takes::Many,
            Self::Filter {} => Takes::Named(&["values", "mask"], &[]),
            Self::Crop(_) => Takes::Named(&["image", "boxes"], &["counts"]),
            Self::Suppress(_) => Takes::Named(&["boxes", "scores"], &[]),
            _ => Takes::One,
        }
    }

    /// The names of what it gives; one that gives a single tensor is named by its step alone.
    pub fn gives(&self) -> &'static [&'static str] {
        match self {
            Self::Suppress(_) => &["boxes", "scores", "classes", "counts"],
            Self::Regions(_) => &["boxes", "counts"],
            _ => &["value"],
        }
    }

    /// Whether it takes long enough to be done on a thread for work.
    pub fn is_heavy(&self, inputs: &[Tensor]) -> bool {
        let reads = matches!(self, Self::Crop(_) | Self::Resize(_) | Self::Suppress(_) | Self::Regions(_));
        reads || inputs.iter().map(Tensor::elements).sum::<usize>() > LIGHT_ELEMENTS
    }

    /// The number that `unsure` measures against.
    pub(super) fn limit(&self) -> Result<(Measure, f64), String> {
        let Self::Unsure { measure, below, above } = self else { return Err("it measures nothing".to_owned()) };
        let (limit, key) = if measure.grows_with_doubt() { (above, "above") } else { (below, "below") };
        let other = if measure.grows_with_doubt() { below } else { above };
        match (limit, other) {
            (Some(limit), None) if limit.is_finite() => Ok((*measure, *limit)),
            _ => Err(format!(
                "a number in `{key}` and nothing else is expected for this measure, given below = {below:?}, above = {above:?}"
            )),
        }
    }

    /// Does it. `is_over` says whether anybody still waits.
    pub fn run(&self, inputs: &[Tensor], limits: &Limits, is_over: &dyn Fn() -> bool) -> Result<Vec<Tensor>, String> {
        let all: Vec<&Tensor> = inputs.iter().collect();
        let first = *all.first().ok_or("it has no input")?;
        let second = || all.get(1).copied().ok_or_else(|| "it has one input only".to_owned());
        let one = match self {
            Self::Softmax { axis } => numbers::softmax(first, *axis, limits),
            Self::Sigmoid {} => numbers::sigmoid(first, limits),
            Self::Normalise { axis, divide, mean, std } => {
                numbers::normalise(first, *axis, *divide, [mean, std], limits)
            }
            Self::Argmax { axis } => numbers::argmax(first, *axis, limits),
            Self::Threshold { at } => numbers::threshold(first, *at, limits),
            Self::Cast { datatype } => numbers::cast(first, *datatype, limits),
            Self::Reshape { shape } => layout::reshape(first, shape),
            Self::Transpose { order } => layout::transpose(first, order, limits),
            Self::Slice { axis, from, to } => layout::slice(first, *axis, *from, *to, limits),
            Self::Concat { axis } => layout::concat(&all, *axis, limits),
            Self::Stack { axis } => layout::stack(&all, *axis, limits),
            Self::Mean { weights } => numbers::mean(&all, weights, limits),
            Self::Vote {} => numbers::vote(&all, limits),
            Self::Filter {} => {
                let mask = second()?;
                if mask.shape().first() != first.shape().first() {
                    return Err(format!(
                        "a mask of {:?} is expected for {:?}",
                        &first.shape()[..1.min(first.shape().len())],
                        mask.shape()
                    ));
                }
                pick(first, &marked(mask)?, limits)
            }
            Self::Unsure { .. } => {
                let (measure, limit) = self.limit()?;
                unsure(first, measure, limit, limits)
            }
            Self::Crop(config) => crop(first, second()?, all.get(2).copied(), config, limits, is_over),
            Self::Resize(config) => resize(first, config, limits, is_over),
            Self::Suppress(config) => return suppress(first, second()?, config, limits, is_over),
            Self::Regions(config) => return regions(first, config, limits, is_over),
        };
        Ok(vec![one?])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::port::Guess;

    fn tensor() -> impl Strategy<Value = Tensor> {
        let shape = prop::collection::vec(0_usize..4, 0..5);
        (shape, 0..4_u8).prop_map(|(shape, kind)| {
            let elements: usize = shape.iter().product();
            let number = |at: usize| (at as f32 * 0.7).sin();
            match kind {
                0 => Tensor::new(&shape, (0..elements).map(number).collect()).unwrap(),
                1 => Tensor::new(&shape, (0..elements).map(|at| at as i64 - 3).collect()).unwrap(),
                2 => Tensor::new(&shape, (0..elements).map(|at| at % 3 == 0).collect()).unwrap(),
                _ => Tensor::of_texts(&shape, (0..elements).map(|at| "x".repeat(at))).unwrap(),
            }
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        let axis = prop_oneof![-5_i64..5, Just(i64::MIN), Just(i64::MAX)];
        let dims = prop::collection::vec(prop_oneof![-2_i64..5, Just(i64::MAX)], 0..5);
        (0..20_u8, axis.clone(), axis.clone(), prop::option::of(axis), dims).prop_map(|(kind, axis, from, to, dims)| {
            let crop = || format!("width = {}\nheight = 2\nfilter = 'linear'", from.clamp(0, 9));
            match kind {
                0 => Op::Softmax { axis },
                1 => Op::Sigmoid {},
                2 => Op::Normalise { axis, divide: 2.0, mean: vec![0.5; dims.len()], std: Vec::new() },
                3 => Op::Argmax { axis },
                4 => Op::Threshold { at: 0.5 },
                5 => Op::Cast { datatype: Datatype::ALL[usize::try_from(from.clamp(0, 12)).unwrap()] },
                6 | 7 => Op::Reshape { shape: dims },
                8 => Op::Transpose { order: dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect() },
                9 | 10 => Op::Slice { axis, from, to },
                11 => Op::Concat { axis },
                12 => Op::Stack { axis },
                13 => Op::Mean { weights: Vec::new() },
                14 => Op::Vote {},
                15 => Op::Filter {},
                16 => Op::Unsure { measure: Measure::Margin, below: Some(0.5), above: None },
                17 => Op::Crop(toml::from_str(&crop()).unwrap()),
                18 => Op::Resize(toml::from_str(&crop()).unwrap()),
                _ => Op::Suppress(toml::from_str("at_least = 0.2").unwrap()),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 20_000, ..ProptestConfig::default() })]

        /// Whatever comes: no panic, and what was said of it before is what comes out.
        #[test]
        fn what_is_known_before_is_what_comes(op in op(), first in tensor(), second in tensor(), same in any::<bool>()) {
            let second = if same { first.clone() } else { second };
            let inputs = match op.takes() {
                Takes::One => vec![first],
                _ => vec![first, second],
            };
            let shape = |tensor: &Tensor| tensor.shape().iter().map(|&dim| dim as i64).collect::<Vec<_>>();
            let guesses: Vec<Guess> = inputs.iter().map(|input| Guess::of(input.datatype(), shape(input))).collect();
            // A pipeline with settings that cannot work whatever comes is not loaded.
            prop_assume!(op.settle(&vec![Guess::default(); inputs.len()]).is_ok());
            let limits = Limits { tensor_bytes_max: 1 << 16, ..Limits::default() };
            if let (Ok(before), Ok(after)) = (op.settle(&guesses), op.run(&inputs, &limits, &|| false)) {
                prop_assert_eq!(before.len(), op.gives().len());
                for (before, after) in before.iter().zip(&after) {
                    let after = Guess::of(after.datatype(), shape(after));
                    prop_assert!(before.agrees(&after), "{}: {before} before, {after} after", op.word());
                }
            }
        }
    }
}
