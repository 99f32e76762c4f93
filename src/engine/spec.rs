//! What is loaded, in this room's own words, and whether a request fits it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::Error;
use crate::base::{Datatype, Name, Tensor};

/// A tensor with the name that the model knows it by. Cheap to name: the name is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The input's or output's name.
    pub name: Arc<str>,
    /// Shape and elements.
    pub tensor: Tensor,
}

impl NamedTensor {
    /// Names `tensor`.
    pub fn new(name: impl Into<Arc<str>>, tensor: Tensor) -> Self {
        Self { name: name.into(), tensor }
    }
}

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the model file.
    pub name: Arc<str>,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first; -1 is free.
    pub shape: Vec<i64>,
}

/// Inputs, and the outputs that must come out of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Every input.
    pub inputs: Vec<NamedTensor>,
    /// Some of the outputs.
    pub outputs: Vec<NamedTensor>,
    /// Largest absolute difference of any element.
    pub tolerance: f32,
    /// What may be added to it, as a part of the expected element's size.
    pub relative_tolerance: f32,
}

/// A model to load.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// Its name, for messages.
    pub name: Name,
    /// Its version, for messages.
    pub version: u32,
    /// `onnx`, `safetensors`, `gguf`, or another word that an engine reads.
    pub format: String,
    /// The engine that must take it; None lets the model's operators choose.
    pub engine: Option<String>,
    /// The model file's bytes, whose digest somebody has checked.
    pub bytes: Arc<[u8]>,
    /// Files beside it by their names, those of [`files_beside`](super::files_beside) that there are.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Every input that the model has, but those that it can do without.
    pub inputs: Vec<TensorSpec>,
    /// The outputs to compute, all or some of the model's.
    pub outputs: Vec<TensorSpec>,
    /// What an engine must reproduce before the model serves.
    pub samples: Vec<Sample>,
    /// Lets nan and infinity in and out: masks of transformers need it, scores must not have it.
    pub allow_non_finite: bool,
}

impl LoadSpec {
    /// A model of which nothing is declared yet: no inputs, outputs, samples and files beside it, and any engine.
    pub fn new(name: Name, version: u32, format: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name,
            version,
            format: format.to_owned(),
            engine: None,
            bytes: bytes.into(),
            files: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            samples: Vec::new(),
            allow_non_finite: false,
        }
    }

    /// `name/version`, as messages say it.
    pub fn title(&self) -> String {
        format!("{}/{}", self.name, self.version)
    }
}

impl TensorSpec {
    /// Whether a tensor of shape `given` may stand here.
    pub fn admits(&self, given: &[usize]) -> bool {
        self.shape.len() == given.len()
            && self.shape.iter().zip(given).all(|(&dim, &given)| dim == -1 || i64::try_from(given) == Ok(dim))
    }

    /// Bytes of the fixed dimensions, an empty one counted as one: it hides no others. None if they overflow or a dimension
    /// is no dimension.
    pub(super) fn least_bytes(&self) -> Option<usize> {
        let dims = self.shape.iter().map(|&dim| if dim == -1 { Some(1) } else { usize::try_from(dim).ok() });
        dims.chain([Some(self.datatype.size_bytes().unwrap_or(4))])
            .try_fold(1_usize, |bytes, dim| bytes.checked_mul(dim?.max(1)))
    }
}

/// Puts `given` into the order of `specs`; every name exactly once and every shape as declared.
pub(super) fn arrange(
    specs: &[TensorSpec],
    mut given: Vec<NamedTensor>,
    tensor_bytes_max: usize,
) -> Result<Vec<NamedTensor>, Error> {
    let names = || specs.iter().map(|spec| spec.name.to_string()).collect::<Vec<_>>().join(", ");
    for (at, spec) in specs.iter().enumerate() {
        let Some(found) = given.iter().skip(at).position(|tensor| tensor.name == spec.name) else {
            return Err(Error::MissingInput { input: spec.name.to_string(), expected: names() });
        };
        given.swap(at, at + found);
        let tensor = &given[at].tensor;
        if !spec.admits(tensor.shape()) {
            return Err(Error::Shape {
                name: spec.name.to_string(),
                expected: spec.shape.clone(),
                given: tensor.shape().to_vec(),
            });
        }
        if tensor.datatype() != spec.datatype {
            let (expected, given) = (spec.datatype, tensor.datatype());
            return Err(Error::Datatype { name: spec.name.to_string(), expected, given });
        }
        let bytes = tensor.bytes().len();
        if bytes > tensor_bytes_max {
            return Err(Error::TooLarge { name: spec.name.to_string(), bytes, most: tensor_bytes_max });
        }
    }
    match given.get(specs.len()) {
        None => Ok(given),
        Some(extra) => Err(Error::UnknownInput { input: extra.name.to_string(), expected: names() }),
    }
}

/// Refuses nan and infinity.
pub(super) fn all_finite(tensors: &[NamedTensor]) -> Result<(), Error> {
    for NamedTensor { name, tensor } in tensors {
        if let Some((at, value)) = tensor.first_not_finite() {
            return Err(Error::NotFinite { name: name.to_string(), value: value.to_string(), at });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() }
    }

    fn tensor(name: &str, shape: &[usize]) -> NamedTensor {
        NamedTensor::new(name, Tensor::new(shape, vec![0.0_f32; shape.iter().product()]).unwrap())
    }

    #[test]
    fn inputs_may_come_in_any_order_and_leave_in_the_models() {
        let specs = [spec("a", &[-1, 2]), spec("b", &[3])];
        let arranged = arrange(&specs, vec![tensor("b", &[3]), tensor("a", &[5, 2])], 1000).unwrap();
        assert_eq!([&*arranged[0].name, &*arranged[1].name], ["a", "b"]);
    }

    #[test]
    fn what_does_not_fit_is_answered_with_expected_and_given() {
        let specs = [spec("window", &[-1, 144])];
        let wrong = |given| arrange(&specs, given, 1000).unwrap_err().to_string();
        assert_eq!(
            wrong(vec![tensor("window", &[1, 143])]),
            "input window has shape [1, 143], expected [-1, 144] (-1 is any size)"
        );
        assert!(wrong(vec![tensor("windwo", &[1, 144])]).contains("no input window; expected window"));
        let whole = NamedTensor::new("window", Tensor::new([1, 144], vec![1_i64; 144]).unwrap());
        assert_eq!(wrong(vec![whole]), "input window is INT64, expected FP32");
        let twice = vec![tensor("window", &[1, 144]), tensor("window", &[1, 144])];
        assert!(wrong(twice).contains("unknown or repeated input window"));
        assert!(wrong(vec![tensor("window", &[2, 144])]).contains("has 1152 bytes, the most is 1000"));
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_named() {
        let nan = NamedTensor::new("x", Tensor::new([3], vec![1.0, f32::NAN, f32::INFINITY]).unwrap());
        assert_eq!(
            all_finite(&[nan]).unwrap_err().to_string(),
            "x has NaN at element 1: only finite numbers are taken"
        );
    }

    #[test]
    fn a_declared_size_cannot_overflow() {
        assert_eq!(spec("x", &[-1, 3]).least_bytes(), Some(12));
        assert_eq!(spec("x", &[i64::MAX, 3]).least_bytes(), None);
        assert_eq!(spec("x", &[-2]).least_bytes(), None);
        assert_eq!(spec("x", &[0, i64::MAX, 3]).least_bytes(), None);
        assert_eq!(spec("x", &[0, 3]).least_bytes(), Some(12));
    }
}
