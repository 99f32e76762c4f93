//! Whether a step's settings can work with what is known of its inputs, and what is known of its outputs then.

use super::layout;
use super::numbers;
use super::op::Op;
use super::picture::{Crop, Layout, SIDE_MAX};
use super::port::{Guess, place};
use crate::base::Datatype;

impl Op {
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
