//! An output of the model to what an answer says: a chain of steps over its numbers, and what they become at the end.

use serde::Deserialize;

use super::answer::{Answer, Class};
use super::boxes::{Boxes, BoxesConfig};
use super::config::OutputConfig;
use super::error::Error;
use super::geometry::Geometry;
use super::mask::{MaskConfig, Masking};
use super::port::Port;
use crate::base::Tensor;

/// A tensor with its name.
#[derive(Debug, Clone)]
pub struct Named {
    /// The model's name for it.
    pub name: String,
    /// Shape and elements.
    pub tensor: Tensor,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum StepConfig {
    /// exp(x) / sum of exp over the classes.
    Softmax {},
    /// 1 / (1 + exp(-x)).
    Sigmoid {},
    /// The `k` largest, and only those of at least `at_least`.
    TopK { k: usize, at_least: Option<f64> },
    /// The largest; the first of equal ones.
    Argmax {},
    /// Whether the number is at least `at`.
    Threshold { at: f64 },
    /// x * scale + offset, in a unit.
    Quantity { unit: Option<String>, scale: Option<f64>, offset: Option<f64> },
    /// The tensor holds labels, or their numbers.
    Label {},
    /// Objects in a picture.
    Boxes(Box<BoxesConfig>),
    /// A class for every pixel.
    Mask(MaskConfig),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    Softmax,
    Sigmoid,
}

#[derive(Debug)]
enum End {
    Values,
    TopK { k: usize, at_least: Option<f64> },
    Argmax,
    Threshold { at: f64 },
    Quantity { scale: f64, offset: f64 },
    Label,
    Boxes(Box<Boxes>),
    Mask(Masking),
}

/// One output of the answer.
#[derive(Debug)]
pub(super) struct Readout {
    pub(super) name: String,
    pub(super) tensor: String,
    maps: Vec<Map>,
    end: End,
    labels: Vec<String>,
    unit: Option<String>,
}

impl Readout {
    /// Numbers as they are.
    pub(super) fn plain(port: &Port) -> Self {
        Self {
            name: port.name.clone(),
            tensor: port.name.clone(),
            maps: Vec::new(),
            end: End::Values,
            labels: port.labels.clone(),
            unit: port.unit.clone(),
        }
    }

    pub(super) fn build(
        config: OutputConfig,
        ports: &[Port],
        has_picture: bool,
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, Error> {
        let port = super::plan::pick(ports, config.tensor.as_deref(), "output", "[[predict.output]]")?;
        let mut readout = Self { name: config.name.unwrap_or_else(|| port.name.clone()), ..Self::plain(port) };
        let count = config.steps.len();
        for (at, step) in config.steps.into_iter().enumerate() {
            let title = format!("[[predict.output]] {}: {}", readout.name, name(&step));
            let wrong = |expected: &str, given: String| Err(Error::step(&title, &port.name, expected, given));
            let texts = port.datatype == crate::base::Datatype::Bytes;
            if texts && !matches!(step, StepConfig::Label {}) {
                return wrong("a tensor of numbers", port.datatype.to_string());
            }
            let end = match step {
                StepConfig::Softmax {} => {
                    readout.maps.push(Map::Softmax);
                    continue;
                }
                StepConfig::Sigmoid {} => {
                    readout.maps.push(Map::Sigmoid);
                    continue;
                }
                _ if at + 1 < count => {
                    return wrong("it as the last step: nothing can follow it", format!("{} after it", count - at - 1));
                }
                StepConfig::Label {} | StepConfig::Boxes(_) | StepConfig::Mask(_) if !readout.maps.is_empty() => {
                    return wrong("no softmax or sigmoid before it", "one".to_owned());
                }
                StepConfig::TopK { k: 0, .. } => return wrong("k of at least 1", "0".to_owned()),
                StepConfig::TopK { k, at_least } => End::TopK { k, at_least },
                StepConfig::Argmax {} => End::Argmax,
                StepConfig::Threshold { at } if !at.is_finite() => return wrong("a number", at.to_string()),
                StepConfig::Threshold { at } => {
                    if port.row_elements().is_some_and(|elements| elements != 1) {
                        return wrong("a tensor of one number for each item", format!("{:?}", port.shape));
                    }
                    if !readout.labels.is_empty() && readout.labels.len() != 2 {
                        return wrong("two labels, for below and above", format!("{}", readout.labels.len()));
                    }
                    End::Threshold { at }
                }
                StepConfig::Quantity { unit, scale, offset } => {
                    readout.unit = unit.or(readout.unit);
                    let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
                    if !(scale.is_finite() && offset.is_finite()) {
                        return wrong("finite numbers", format!("{scale} and {offset}"));
                    }
                    End::Quantity { scale, offset }
                }
                StepConfig::Label {} => {
                    let whole = port.datatype.size_bytes().is_some() && !is_float(port);
                    if !texts && !whole {
                        return wrong("a tensor of texts or whole numbers", port.datatype.to_string());
                    }
                    End::Label
                }
                StepConfig::Boxes(config) => {
                    if !has_picture {
                        return wrong("a picture among the inputs", "none".to_owned());
                    }
                    End::Boxes(Box::new(Boxes::build(*config, port, ports, &title, file)?))
                }
                StepConfig::Mask(config) => {
                    if !has_picture {
                        return wrong("a picture among the inputs", "none".to_owned());
                    }
                    End::Mask(Masking::build(&config, port, &title)?)
                }
            };
            if matches!(end, End::TopK { .. } | End::Argmax) {
                let wide = port.inner().iter().filter(|&&dim| dim != 1).count();
                if wide > 1 {
                    return wrong("a tensor with one row of classes for each item", format!("{:?}", port.shape));
                }
                if let Some(classes) = port.row_elements()
                    && !readout.labels.is_empty()
                    && readout.labels.len() != classes
                {
                    return wrong(&format!("{classes} labels"), readout.labels.len().to_string());
                }
            }
            readout.end = end;
        }
        Ok(readout)
    }

    /// What the output of one item says.
    pub(super) fn read(&self, outputs: &[Named], picture: Option<&Geometry>) -> Result<Answer, Error> {
        let find = |name: &str| {
            outputs.iter().find(|output| output.name == name).map(|output| &output.tensor).ok_or_else(|| {
                Error::Output {
                    tensor: name.to_owned(),
                    step: self.step(),
                    detail: "the model did not give it".to_owned(),
                }
            })
        };
        let tensor = find(&self.tensor)?;
        let failed = |detail: String| Error::Output { tensor: self.tensor.clone(), step: self.step(), detail };
        match &self.end {
            End::Label => return self.labelled(tensor).ok_or_else(|| failed("it holds no labels".to_owned())),
            End::Values if tensor.texts().is_some() => {
                return self.labelled(tensor).ok_or_else(|| failed("it holds no texts".to_owned()));
            }
            End::Boxes(boxes) => {
                let picture = picture.ok_or_else(|| failed("there is no picture".to_owned()))?;
                return boxes.read(&find, picture, &self.labels).map_err(failed);
            }
            End::Mask(mask) => {
                let picture = picture.ok_or_else(|| failed("there is no picture".to_owned()))?;
                return mask.read(tensor, picture, &self.labels).map_err(failed);
            }
            _ => {}
        }
        let mut numbers = tensor.to_numbers().ok_or_else(|| failed("it holds no numbers".to_owned()))?;
        for map in &self.maps {
            match map {
                Map::Sigmoid => numbers.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
                Map::Softmax => {
                    let width = row_width(tensor.shape());
                    numbers.chunks_mut(width.max(1)).for_each(softmax);
                }
            }
        }
        let one = || match numbers.as_slice() {
            [one] => Ok(*one),
            many => Err(failed(format!("it has {} numbers, expected one", many.len()))),
        };
        let class = |index: usize| Class { label: self.labels.get(index).cloned(), index, score: numbers[index] };
        Ok(match self.end {
            End::TopK { k, at_least } => {
                let kept =
                    largest(&numbers, k).into_iter().filter(|&at| at_least.is_none_or(|least| numbers[at] >= least));
                Answer::Classes { classes: kept.map(class).collect() }
            }
            End::Argmax => match largest(&numbers, 1).first() {
                Some(&index) => Answer::Class(class(index)),
                None => return Err(failed("it has no classes".to_owned())),
            },
            End::Threshold { at } => {
                let score = one()?;
                let above = score >= at;
                Answer::Decision { score, threshold: at, above, label: self.labels.get(usize::from(above)).cloned() }
            }
            End::Quantity { scale, offset } => {
                numbers.iter_mut().for_each(|x| *x = *x * scale + offset);
                self.quantity(numbers, tensor)
            }
            _ => self.values(numbers, tensor),
        })
    }

    fn quantity(&self, numbers: Vec<f64>, tensor: &Tensor) -> Answer {
        match numbers.as_slice() {
            [value] => Answer::Quantity { value: *value, unit: self.unit.clone() },
            _ => self.values(numbers, tensor),
        }
    }

    fn values(&self, values: Vec<f64>, tensor: &Tensor) -> Answer {
        let shape = match tensor.shape() {
            [1, inner @ ..] if !inner.is_empty() => inner.to_vec(),
            whole => whole.to_vec(),
        };
        Answer::Quantities { values, shape, unit: self.unit.clone() }
    }

    fn labelled(&self, tensor: &Tensor) -> Option<Answer> {
        let label = |number: f64| {
            let name = (number >= 0.0).then(|| self.labels.get(number as usize).cloned()).flatten();
            name.unwrap_or_else(|| number.to_string())
        };
        let mut labels: Vec<String> = match tensor.texts() {
            Some(texts) => texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
            None => tensor.to_numbers()?.into_iter().map(label).collect(),
        };
        Some(if labels.len() == 1 { Answer::Label { label: labels.remove(0) } } else { Answer::Labels { labels } })
    }

    /// The other tensors that it reads.
    pub(super) fn also_reads(&self) -> Vec<&str> {
        match &self.end {
            End::Boxes(boxes) => boxes.tensors(),
            _ => Vec::new(),
        }
    }

    pub(super) fn step(&self) -> &'static str {
        match self.end {
            End::Values => "values",
            End::TopK { .. } => "top_k",
            End::Argmax => "argmax",
            End::Threshold { .. } => "threshold",
            End::Quantity { .. } => "quantity",
            End::Label => "label",
            End::Boxes(_) => "boxes",
            End::Mask(_) => "mask",
        }
    }
}

fn name(step: &StepConfig) -> &'static str {
    match step {
        StepConfig::Softmax {} => "softmax",
        StepConfig::Sigmoid {} => "sigmoid",
        StepConfig::TopK { .. } => "top_k",
        StepConfig::Argmax {} => "argmax",
        StepConfig::Threshold { .. } => "threshold",
        StepConfig::Quantity { .. } => "quantity",
        StepConfig::Label {} => "label",
        StepConfig::Boxes(_) => "boxes",
        StepConfig::Mask(_) => "mask",
    }
}

fn is_float(port: &Port) -> bool {
    use crate::base::Datatype::{Fp16, Fp32, Fp64};
    matches!(port.datatype, Fp16 | Fp32 | Fp64)
}

/// Classes lie in the last dimension, or in the only one that is not 1: some networks end in `[1, 1000, 1, 1]`.
fn row_width(shape: &[usize]) -> usize {
    let wide = shape.iter().filter(|&&dim| dim != 1).count();
    if wide <= 1 { shape.iter().product() } else { shape.last().copied().unwrap_or(1) }
}

/// As `scipy.special.softmax`: the largest is taken off first, so that nothing overflows.
fn softmax(row: &mut [f64]) {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Places of the `k` largest, largest first; equal ones in their order, nan last.
pub(super) fn largest(numbers: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    let rank = |at: usize| if numbers[at].is_nan() { f64::NEG_INFINITY } else { numbers[at] };
    order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
    order.truncate(k);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;

    fn port(datatype: Datatype, shape: &[i64], labels: &[&str]) -> Port {
        let labels = labels.iter().map(ToString::to_string).collect();
        Port { name: "y".to_owned(), datatype, shape: shape.to_vec(), labels, unit: Some("mm".to_owned()) }
    }

    fn build(steps: &str, port: &Port) -> Result<Readout, String> {
        let config: OutputConfig = toml::from_str(&format!("steps = {steps}")).map_err(|error| error.to_string())?;
        Readout::build(config, std::slice::from_ref(port), false, &|_| unreachable!())
            .map_err(|error| error.to_string())
    }

    fn read(steps: &str, port: &Port, tensor: Tensor) -> serde_json::Value {
        let readout = build(steps, port).unwrap();
        let answer = readout.read(&[Named { name: "y".to_owned(), tensor }], None).unwrap();
        serde_json::to_value(answer).unwrap()
    }

    #[test]
    fn classes_come_with_labels_largest_first() {
        let classes = port(Datatype::Fp32, &[-1, 3], &["ok", "worn", "broken"]);
        let logits = || Tensor::new([1, 3], vec![1.0_f32, 3.0, 2.0]).unwrap();
        let top = read(r#"["softmax", { step = "top_k", k = 2 }]"#, &classes, logits());
        // scipy.special.softmax([1, 3, 2])
        let expected = [0.665_240_955_774_821_9, 0.244_728_471_054_797_64];
        for (class, (label, score)) in
            top["classes"].as_array().unwrap().iter().zip(["worn", "broken"].iter().zip(expected))
        {
            assert_eq!(class["label"], *label);
            assert!((class["score"].as_f64().unwrap() - score).abs() < 1e-15);
        }
        assert_eq!(top["classes"].as_array().unwrap().len(), 2);
        assert_eq!(read(r#"["argmax"]"#, &classes, logits())["label"], "worn");
        let sure = read(r#"["sigmoid", { step = "top_k", k = 3, at_least = 0.9 }]"#, &classes, logits());
        assert_eq!(sure["classes"].as_array().unwrap().len(), 1);
        let odd = port(Datatype::Fp32, &[1, 3, 1, 1], &[]);
        let tensor = Tensor::new([1, 3, 1, 1], vec![1000.0_f32, 1000.0, 0.0]).unwrap();
        let half = read(r#"["softmax", "argmax"]"#, &odd, tensor);
        assert_eq!((half["index"].as_u64(), half["score"].as_f64()), (Some(0), Some(0.5)));
        assert!(half.get("label").is_none());
    }

    #[test]
    fn numbers_become_decisions_quantities_and_labels() {
        let one = port(Datatype::Fp32, &[-1, 1], &["good", "bad"]);
        let number = |x: f32| Tensor::new([1, 1], vec![x]).unwrap();
        let judged = read(r#"["sigmoid", { step = "threshold", at = 0.5 }]"#, &one, number(0.0));
        assert_eq!((judged["above"].as_bool(), judged["label"].as_str()), (Some(true), Some("bad")));
        let value = read(r#"[{ step = "quantity", scale = 10, offset = 1 }]"#, &one, number(2.5));
        assert_eq!(value, serde_json::json!({"value": 26.0, "unit": "mm"}));
        let many = port(Datatype::Fp32, &[-1, 2], &[]);
        let pair = Tensor::new([1, 2], vec![1.0_f32, 2.0]).unwrap();
        let plain = read("[]", &many, pair);
        assert_eq!(plain, serde_json::json!({"values": [1.0, 2.0], "shape": [2], "unit": "mm"}));
        let number = port(Datatype::Int64, &[-1], &["zero", "one"]);
        assert_eq!(read(r#"["label"]"#, &number, Tensor::new([1], vec![1_i64]).unwrap())["label"], "one");
        assert_eq!(read(r#"["label"]"#, &number, Tensor::new([1], vec![7_i64]).unwrap())["label"], "7");
        let text = port(Datatype::Bytes, &[-1], &[]);
        assert_eq!(read(r#"["label"]"#, &text, Tensor::of_texts([1], ["ok"]).unwrap())["label"], "ok");
    }

    #[test]
    fn steps_that_do_not_fit_are_named_when_the_model_is_loaded() {
        let classes = port(Datatype::Fp32, &[-1, 3], &["a", "b"]);
        for (steps, says) in [
            (r#"["argmax"]"#, "failed to use [[predict.output]] y: argmax of \"y\": expected 3 labels, given 2"),
            (r#"["argmax", "softmax"]"#, "it as the last step: nothing can follow it, given 1 after it"),
            (r#"[{ step = "top_k", k = 0 }]"#, "k of at least 1"),
            (r#"[{ step = "threshold", at = 0.5 }]"#, "a tensor of one number for each item, given [-1, 3]"),
            (r#"["label"]"#, "a tensor of texts or whole numbers, given FP32"),
            (r#"["sofmax"]"#, "step 1: unknown variant `sofmax`"),
            (r#"["softmax", { step = "top_k", n = 3 }]"#, "step 2: unknown field `n`"),
            (r#"[{ step = "softmax", axis = 3 }]"#, "unknown field `axis`"),
        ] {
            let error = build(steps, &classes).unwrap_err();
            assert!(error.contains(says), "{steps}: {error}");
        }
        let texts = port(Datatype::Bytes, &[-1, 3], &[]);
        assert!(build(r#"["softmax"]"#, &texts).unwrap_err().contains("a tensor of numbers, given BYTES"));
        let grid = port(Datatype::Fp32, &[-1, 3, 4], &[]);
        assert!(build(r#"["argmax"]"#, &grid).unwrap_err().contains("one row of classes for each item"));
    }
}
