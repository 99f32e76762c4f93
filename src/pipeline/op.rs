//! A step without a model: what it takes, what it gives, whether its settings can work, and the work itself.

use serde::Deserialize;
use toml::{Table, Value};

use super::boxes::{Suppress, suppress};
use super::config::Limits;
use super::layout;
use super::numbers;
use super::picture::{Crop, Layout, SIDE_MAX, crop, resize};
use super::port::{Guess, place};
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

    /// Holds the settings against what is known of the inputs, and says what is known of the outputs.
    pub(super) fn settle(&self, inputs: &[Guess]) -> Result<Vec<Guess>, String> {
        let first = inputs.first().cloned().unwrap_or_default();
        let rows = || first.shape.as_ref().and_then(|shape| shape.first().copied()).unwrap_or(-1);
        let finite = |numbers: &[f64]| numbers.iter().all(|x| x.is_finite());
        let one = |guess: Guess| Ok(vec![guess]);
        match self {
            Self::Softmax { axis } => {
                floats(&first)?;
                along(*axis, &first)?;
                one(first)
            }
            Self::Sigmoid {} => floats(&first).and_then(|()| one(first)),
            Self::Normalise { axis, divide, mean, std } => {
                floats(&first)?;
                along(*axis, &first)?;
                if !finite(mean)
                    || !divide.is_finite()
                    || *divide == 0.0
                    || !std.iter().all(|x| x.is_finite() && *x > 0.0)
                {
                    return Err(format!(
                        "finite numbers, divide not 0 and std over 0 are expected, given {divide}, {mean:?}, {std:?}"
                    ));
                }
                one(first)
            }
            Self::Argmax { axis } => {
                no_texts(&first)?;
                let shape = first.shape.as_ref().map(|shape| -> Result<Vec<i64>, String> {
                    let mut shape = shape.clone();
                    shape.remove(place(*axis, shape.len())?);
                    Ok(shape)
                });
                one(Guess { datatype: Some(Datatype::Int64), shape: shape.transpose()? })
            }
            Self::Threshold { at } => {
                no_texts(&first)?;
                if !at.is_finite() {
                    return Err(format!("a number is expected in `at`, given {at}"));
                }
                one(Guess { datatype: Some(Datatype::Bool), ..first })
            }
            Self::Cast { datatype } => {
                no_texts(&first)?;
                if *datatype == Datatype::Bytes {
                    return Err("numbers do not become BYTES".to_owned());
                }
                one(Guess { datatype: Some(*datatype), ..first })
            }
            Self::Reshape { shape } => {
                if shape.is_empty() || shape.len() > 8 || shape.iter().any(|&dim| dim < -1) {
                    return Err(format!(
                        "1 to 8 dimensions of at least 0, or -1 for one that takes what is left, given {shape:?}"
                    ));
                }
                if shape.iter().filter(|&&dim| dim == -1).count() > 1 {
                    return Err(format!("only one dimension takes what is left, given {shape:?}"));
                }
                let dim = |(at, &dim): (usize, &i64)| match (dim, &first.shape) {
                    (0, Some(given)) => given
                        .get(at)
                        .copied()
                        .ok_or_else(|| format!("dimension {at} is to stay, the tensor has {}", given.len())),
                    (0, None) => Ok(-1),
                    (dim, _) => Ok(dim),
                };
                let shape = shape.iter().enumerate().map(dim).collect::<Result<Vec<_>, _>>()?;
                one(Guess { shape: Some(shape), ..first })
            }
            Self::Transpose { order } => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if order.is_empty() || sorted.iter().enumerate().any(|(at, &dim)| at != dim) {
                    return Err(format!("order names each dimension from 0 once, given {order:?}"));
                }
                if let Some(rank) = first.rank().filter(|&rank| rank != order.len()) {
                    return Err(format!("order names {} dimensions, the tensor has {rank}", order.len()));
                }
                let shape = first.shape.as_ref().map(|shape| order.iter().map(|&dim| shape[dim]).collect());
                one(Guess { shape, ..first })
            }
            Self::Slice { axis, from, to } => {
                along(*axis, &first)?;
                let mut guess = first;
                if let Some(shape) = guess.shape.as_mut() {
                    let at = place(*axis, shape.len())?;
                    shape[at] = match usize::try_from(shape[at]) {
                        Ok(length) => {
                            let to = to.map_or(length, |to| layout::bound(to, length));
                            to.saturating_sub(layout::bound(*from, length)) as i64
                        }
                        Err(_) => -1,
                    };
                }
                one(guess)
            }
            Self::Concat { axis } => {
                along(*axis, &first)?;
                let mut guess = alike(inputs)?;
                if let Some(shape) = guess.shape.as_mut() {
                    let at = place(*axis, shape.len())?;
                    let dims = inputs
                        .iter()
                        .map(|input| input.shape.as_ref().map_or(-1, |shape| shape.get(at).copied().unwrap_or(-1)));
                    shape[at] = dims.reduce(|a, b| if a < 0 || b < 0 { -1 } else { a.saturating_add(b) }).unwrap_or(-1);
                    for (dim, known) in shape.iter().enumerate().filter(|(dim, _)| *dim != at) {
                        let other = inputs.iter().filter_map(|input| input.shape.as_ref()).find(|other| {
                            other.get(dim).is_some_and(|&given| given != -1 && *known != -1 && given != *known)
                        });
                        if let Some(other) = other {
                            return Err(format!(
                                "shapes that differ in axis {at} only are expected, given {:?} and {other:?}",
                                first.shape.unwrap_or_default()
                            ));
                        }
                    }
                }
                one(guess)
            }
            Self::Stack { axis } => {
                let mut guess = same(inputs)?;
                if let Some(shape) = guess.shape.as_mut() {
                    shape.insert(place(*axis, shape.len() + 1)?, inputs.len() as i64);
                }
                one(guess)
            }
            Self::Mean { weights } => {
                floats(&first)?;
                let sound = weights.iter().all(|x| x.is_finite() && *x >= 0.0);
                let some = weights.is_empty() || weights.iter().sum::<f64>() > 0.0;
                if !sound || !some || !(weights.is_empty() || weights.len() == inputs.len()) {
                    return Err(format!(
                        "{} weights of at least 0, not all of them 0, are expected, given {weights:?}",
                        inputs.len()
                    ));
                }
                one(same(inputs)?)
            }
            Self::Vote {} => {
                let guess = same(inputs)?;
                match guess.datatype {
                    Some(datatype) if numbers::is_float(datatype) => Err(format!(
                        "whole numbers, BOOL or BYTES are expected, given {datatype}; `argmax` comes before"
                    )),
                    _ => one(guess),
                }
            }
            Self::Filter {} => {
                mask(&inputs[1])?;
                one(first.with_free_rows())
            }
            Self::Unsure { .. } => {
                no_texts(&first)?;
                self.limit()?;
                if first.rank() == Some(0) {
                    return Err("rows of probabilities are expected, given a single number".to_owned());
                }
                one(Guess::of(Datatype::Bool, [rows()]))
            }
            Self::Crop(config) => {
                sides(config)?;
                if !(config.margin.is_finite() && config.margin >= 0.0 && config.fill.is_finite()) {
                    return Err(format!(
                        "margin of at least 0 and a number in fill are expected, given {} and {}",
                        config.margin, config.fill
                    ));
                }
                picture(&first)?;
                no_texts(&inputs[1])?;
                let boxes = Guess { datatype: None, shape: Some(vec![-1, 4]) };
                if !inputs[1].agrees(&boxes) {
                    return Err(format!("boxes of [-1, 4] are expected, given {}", inputs[1]));
                }
                let parts = inputs[1].shape.as_ref().map_or(-1, |shape| shape[0]);
                one(Guess { shape: resized(config, &first, Some(parts)), ..first })
            }
            Self::Resize(config) => {
                sides(config)?;
                picture(&first)?;
                one(Guess { shape: resized(config, &first, None), ..first })
            }
            Self::Suppress(config) => {
                config.check()?;
                let boxes = &inputs[0];
                let shaped = boxes.shape.as_ref().is_none_or(|shape| {
                    matches!(shape.len(), 2 | 3) && shape.last().is_some_and(|&four| four == -1 || four == 4)
                });
                if !shaped {
                    return Err(format!("boxes of [-1, 4] or [-1, -1, 4] are expected, given {boxes}"));
                }
                no_texts(boxes)?;
                no_texts(&inputs[1])?;
                let images = boxes.shape.as_ref().map_or(-1, |shape| if shape.len() == 2 { 1 } else { shape[0] });
                Ok(vec![
                    Guess::of(Datatype::Fp32, [-1, 4]),
                    Guess::of(Datatype::Fp32, [-1]),
                    Guess::of(Datatype::Int64, [-1]),
                    Guess::of(Datatype::Int64, [images]),
                ])
            }
            Self::Regions(config) => {
                config.check()?;
                picture(&first)?;
                let images = first.shape.as_ref().map_or(-1, |shape| if shape.len() == 4 { shape[0] } else { 1 });
                Ok(vec![Guess::of(Datatype::Fp32, [-1, 4]), Guess::of(Datatype::Int64, [images])])
            }
        }
    }

    /// The number that `unsure` measures against.
    fn limit(&self) -> Result<(Measure, f64), String> {
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

fn floats(guess: &Guess) -> Result<(), String> {
    match guess.datatype {
        Some(datatype) if !numbers::is_float(datatype) => {
            Err(format!("FP16, FP32 or FP64 are expected, given {datatype}; `cast` comes before"))
        }
        _ => Ok(()),
    }
}

fn no_texts(guess: &Guess) -> Result<(), String> {
    if guess.datatype == Some(Datatype::Bytes) { Err("numbers are expected, given BYTES".to_owned()) } else { Ok(()) }
}

pub(super) fn mask(guess: &Guess) -> Result<(), String> {
    let flat = Guess::of(Datatype::Bool, [-1]);
    if guess.agrees(&flat) || guess.agrees(&Guess::of(Datatype::Bool, [-1, 1])) {
        return Ok(());
    }
    Err(format!("a mask is BOOL [-1], given {guess}"))
}

fn along(axis: i64, guess: &Guess) -> Result<(), String> {
    guess.rank().map_or(Ok(()), |rank| place(axis, rank).map(drop))
}

/// What all of them can be, in one type and number of dimensions.
fn alike(inputs: &[Guess]) -> Result<Guess, String> {
    let mut known = Guess::default();
    for input in inputs {
        let types = known.datatype.zip(input.datatype).is_none_or(|(a, b)| a == b);
        let ranks = known.rank().zip(input.rank()).is_none_or(|(a, b)| a == b);
        if !types || !ranks {
            return Err(format!(
                "tensors of one type and number of dimensions are expected, given {known} and {input}"
            ));
        }
        known.datatype = known.datatype.or(input.datatype);
        known.shape = match (known.shape.take(), &input.shape) {
            (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(&a, &b)| if a == -1 { b } else { a }).collect()),
            (a, b) => a.or_else(|| b.clone()),
        };
    }
    Ok(known)
}

/// The same, and of one shape.
fn same(inputs: &[Guess]) -> Result<Guess, String> {
    let known = alike(inputs)?;
    match inputs.iter().find(|input| !input.agrees(&known)) {
        None => Ok(known),
        Some(other) => Err(format!("tensors of one shape are expected, given {known} and {other}")),
    }
}

fn picture(guess: &Guess) -> Result<(), String> {
    let typed = guess.datatype.is_none_or(|datatype| matches!(datatype, Datatype::Uint8 | Datatype::Fp32));
    let shaped = guess.rank().is_none_or(|rank| (2..=4).contains(&rank));
    if typed && shaped {
        Ok(())
    } else {
        Err(format!("an image of UINT8 or FP32 with 2 to 4 dimensions is expected, given {guess}"))
    }
}

fn sides(config: &Crop) -> Result<(), String> {
    let sound = |side: usize| (1..=SIDE_MAX).contains(&side);
    if sound(config.width) && sound(config.height) {
        return Ok(());
    }
    Err(format!("width and height of 1 to {SIDE_MAX} are expected, given {} and {}", config.width, config.height))
}

/// The shape of `parts` images, or of as many as there are.
fn resized(config: &Crop, image: &Guess, parts: Option<i64>) -> Option<Vec<i64>> {
    let shape = image.shape.as_ref()?;
    let (height, width) = (config.height as i64, config.width as i64);
    let batch = parts.or((shape.len() == 4).then(|| shape[0]));
    let channels = match (shape.len(), config.layout) {
        (2, _) => None,
        (rank, Layout::Nchw) => shape.get(rank.checked_sub(3)?).copied(),
        (_, Layout::Nhwc) => shape.last().copied(),
    };
    let item = match (channels, config.layout) {
        (None, _) => vec![height, width],
        (Some(channels), Layout::Nchw) => vec![channels, height, width],
        (Some(channels), Layout::Nhwc) => vec![height, width, channels],
    };
    Some(batch.into_iter().chain(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(text: &str) -> Result<Op, String> {
        Op::parse(toml::from_str(text).unwrap())
    }

    fn settle(text: &str, inputs: &[Guess]) -> Result<String, String> {
        let guesses = op(text)?.settle(inputs)?;
        Ok(guesses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn what_a_step_gives_is_known_before_there_is_a_tensor() {
        let rows = || Guess::of(Datatype::Fp32, [-1, 10]);
        let image = || Guess::of(Datatype::Uint8, [1, 3, 480, 640]);
        let boxes = || Guess::of(Datatype::Fp32, [-1, 4]);
        for (text, inputs, gives) in [
            ("step = 'argmax'", vec![rows()], "INT64 [-1]"),
            ("step = 'mean'", vec![rows(), Guess::default()], "FP32 [-1, 10]"),
            ("step = 'stack'\naxis = 1", vec![rows(), rows()], "FP32 [-1, 2, 10]"),
            ("step = 'concat'\naxis = 1", vec![rows(), rows()], "FP32 [-1, 20]"),
            ("step = 'slice'\naxis = -1\nfrom = 2\nto = -1", vec![rows()], "FP32 [-1, 7]"),
            ("step = 'reshape'\nshape = [0, 1, -1]", vec![rows()], "FP32 [-1, 1, -1]"),
            ("step = 'unsure'\nmeasure = 'margin'\nbelow = 0.2", vec![rows()], "BOOL [-1]"),
            ("step = 'crop'\nwidth = 8\nheight = 9", vec![image(), boxes()], "UINT8 [-1, 3, 9, 8]"),
            ("step = 'resize'\nwidth = 8\nheight = 9", vec![image()], "UINT8 [1, 3, 9, 8]"),
            ("step = 'regions'\nat_least = 0.5", vec![Guess::default()], "FP32 [-1, 4]; INT64 [-1]"),
            ("step = 'filter'", vec![rows(), Guess::default()], "FP32 [-1, 10]"),
            ("step = 'threshold'\nat = 0.5", vec![Guess::default()], "BOOL of any shape"),
        ] {
            assert_eq!(settle(text, &inputs).unwrap_or_else(|error| panic!("{text}: {error}")), gives, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_said_before_there_is_a_tensor() {
        let rows = || Guess::of(Datatype::Fp32, [-1, 10]);
        let texts = || Guess::of(Datatype::Bytes, [-1]);
        for (text, inputs, says) in [
            ("step = 'argmin'", vec![rows()], "unknown variant `argmin`"),
            ("step = 'softmax'\naxes = 1", vec![rows()], "unknown field `axes`"),
            ("step = 'softmax'\naxis = 3", vec![rows()], "axis is 3, the tensor has 2 dimensions"),
            ("step = 'softmax'", vec![texts()], "given BYTES; `cast` comes before"),
            ("step = 'argmax'", vec![texts()], "given BYTES"),
            ("step = 'mean'\nweights = [1]", vec![rows(), rows()], "2 weights"),
            ("step = 'mean'\nweights = [0, 0]", vec![rows(), rows()], "not all of them 0"),
            ("step = 'mean'", vec![rows(), Guess::of(Datatype::Fp32, [-1, 9])], "FP32 [-1, 10] and FP32 [-1, 9]"),
            ("step = 'vote'", vec![rows(), rows()], "`argmax` comes before"),
            ("step = 'concat'", vec![rows(), Guess::of(Datatype::Fp32, [-1, 9])], "differ in axis 0 only"),
            ("step = 'reshape'\nshape = [-1, -1]", vec![rows()], "only one dimension"),
            ("step = 'transpose'\norder = [0, 0]", vec![rows()], "each dimension from 0 once"),
            ("step = 'transpose'\norder = [0, 1, 2]", vec![rows()], "names 3 dimensions, the tensor has 2"),
            ("step = 'unsure'\nmeasure = 'entropy'\nbelow = 1", vec![rows()], "`above`"),
            ("step = 'unsure'\nmeasure = 'luck'\nbelow = 1", vec![rows()], "unknown variant `luck`"),
            ("step = 'crop'\nwidth = 0\nheight = 8", vec![rows(), rows()], "1 to 16384"),
            (
                "step = 'crop'\nwidth = 8\nheight = 8",
                vec![rows(), rows()],
                "boxes of [-1, 4] are expected, given FP32 [-1, 10]",
            ),
            ("step = 'resize'\nwidth = 8\nheight = 8\nmargin = 1", vec![rows()], "unknown field `margin`"),
            ("step = 'cast'\ndatatype = 'BYTES'", vec![rows()], "do not become BYTES"),
            ("step = 'filter'", vec![rows(), rows()], "a mask is BOOL [-1], given FP32 [-1, 10]"),
            ("step = 'normalise'\nstd = [0]", vec![rows()], "std over 0"),
            ("step = 'suppress'\nat_least = 2", vec![rows(), rows()], "0 to 1"),
        ] {
            let error = settle(text, &inputs).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
