//! Dimensions that the model file calls by one name: they have one size in a request.
//!
//! An engine that holds the file to its word would fail halfway through, as if the model were broken; one that does not would
//! stretch the smaller tensor and answer something. Either way it is the caller's mistake, and is told before anything runs.

use super::error::Error;
use super::onnx::{Dimension, Outline};
use super::spec::{NamedTensor, TensorSpec};

/// A dimension with a name, and the places that have it: which input, and which of its dimensions. Two at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tie {
    name: String,
    places: Vec<(usize, usize)>,
}

impl Outline {
    /// What the file says of `inputs`, which are in the order of the declaration.
    pub(super) fn ties(&self, inputs: &[TensorSpec]) -> Vec<Tie> {
        let mut ties: Vec<Tie> = Vec::new();
        for (input, spec) in inputs.iter().enumerate() {
            let port = self.inputs.iter().find(|port| *port.name == *spec.name);
            for (axis, dimension) in port.and_then(|port| port.dimensions.as_ref()).into_iter().flatten().enumerate() {
                let Dimension::Named(name) = dimension else { continue };
                match ties.iter_mut().find(|tie| tie.name == *name) {
                    Some(tie) => tie.places.push((input, axis)),
                    None => ties.push(Tie { name: name.clone(), places: vec![(input, axis)] }),
                }
            }
        }
        ties.retain(|tie| tie.places.len() > 1);
        ties
    }

    /// The inputs whose first dimension is free and has no name.
    #[cfg(any(test, feature = "tract"))]
    pub(super) fn nameless_batches(&self, inputs: &[TensorSpec]) -> Vec<usize> {
        let named = |spec: &TensorSpec| {
            let port = self.inputs.iter().find(|port| *port.name == *spec.name);
            matches!(port.and_then(|port| port.dimensions.as_ref()?.first()), Some(Dimension::Named(_)))
        };
        let free = inputs.iter().enumerate().filter(|(_, spec)| spec.shape.first() == Some(&-1) && !named(spec));
        free.map(|(at, _)| at).collect()
    }
}

/// Refuses `inputs`, which are arranged, if a name has two sizes in them.
pub(super) fn check_ties(ties: &[Tie], inputs: &[NamedTensor]) -> Result<(), Error> {
    ties.iter().try_for_each(|Tie { name, places }| same(&format!("dimension {name}"), places, inputs))
}

/// Refuses `inputs` if the dimensions at `places`, which are `what`, are not all of one size.
pub(super) fn same(what: &str, places: &[(usize, usize)], inputs: &[NamedTensor]) -> Result<(), Error> {
    let size = |&(input, axis): &(usize, usize)| inputs.get(input).and_then(|input| input.tensor.shape().get(axis));
    let Some((first, others)) = places.split_first() else { return Ok(()) };
    let Some(odd) = others.iter().find(|place| size(place) != size(first)) else { return Ok(()) };
    let (Some(expected), Some(given)) = (size(first), size(odd)) else { return Ok(()) };
    let (one, other) = (&inputs[first.0], &inputs[odd.0]);
    Err(Error::Unfit {
        what: format!(
            "input {} has shape {:?} and input {} has shape {:?}: {what} is one size in both, expected {expected} as in {}, \
             given {given}",
            other.name,
            other.tensor.shape(),
            one.name,
            one.tensor.shape(),
            one.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Datatype, Tensor};
    use crate::engine::onnx::fixture::{model, node, value};

    fn outline() -> (Outline, [TensorSpec; 2]) {
        // The fixture calls every free dimension `batch`.
        let ports = vec![value("a", Datatype::Fp32, &[-1, 2]), value("b", Datatype::Fp32, &[3, -1])];
        let file = model(vec![node("Add", &["a", "b"], &["y"], &[])], ports, vec![value("y", Datatype::Fp32, &[-1])]);
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        (Outline::of(&file).unwrap(), [spec("b", &[3, -1]), spec("a", &[-1, 2])])
    }

    fn tensor(name: &str, shape: &[usize]) -> NamedTensor {
        NamedTensor::new(name, Tensor::new(shape, vec![0.0_f32; shape.iter().product()]).unwrap())
    }

    #[test]
    fn a_name_with_two_sizes_is_refused_with_both_inputs_their_shapes_and_the_sizes() {
        let (outline, specs) = outline();
        let ties = outline.ties(&specs);
        assert_eq!(ties, [Tie { name: "batch".to_owned(), places: vec![(0, 1), (1, 0)] }]);
        assert_eq!(check_ties(&ties, &[tensor("b", &[3, 4]), tensor("a", &[4, 2])]), Ok(()));
        let error = check_ties(&ties, &[tensor("b", &[3, 4]), tensor("a", &[5, 2])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input a has shape [5, 2] and input b has shape [3, 4]: dimension batch is one size in both, expected 4 as in b, \
             given 5"
        );
    }

    /// Such a file's batches are one symbol to tract, whatever the file means.
    #[cfg(feature = "tract")]
    #[test]
    fn first_dimensions_without_a_name_that_differ_are_the_callers_mistake_and_not_the_engines() {
        use crate::base::{ManualClock, Name};
        use crate::engine::onnx::fixture::{Message, plain_node};
        use crate::engine::{Config, LoadSpec, Pool, Tract};
        use std::sync::Arc;

        let nameless = |name: &str| {
            let shape = Message::default().message(1, Message::default()).message(1, Message::default().whole(1, 2));
            let tensor = Message::default().whole(1, 1).message(2, shape);
            Message::default().text(1, name).message(2, Message::default().message(1, tensor))
        };
        let nodes = vec![plain_node("Add", &["a", "b"], &["y"], &[])];
        let file = model(nodes, vec![nameless("a"), nameless("b")], vec![nameless("y")]);
        let port = |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
        let spec = LoadSpec {
            inputs: vec![port("a"), port("b")],
            outputs: vec![port("y")],
            ..LoadSpec::new(Name::new("sum").unwrap(), 1, "onnx", file)
        };
        let config = Config { threads: 1, ..Config::default() };
        let pool = Pool::start(&config, vec![Arc::new(Tract)], Arc::new(ManualClock::at(0))).unwrap();
        let handle = pool.load(&spec).unwrap();
        let ask = |a: [usize; 2], b: [usize; 2]| handle.infer_blocking(vec![tensor("a", &a), tensor("b", &b)], None);
        assert_eq!(ask([3, 2], [3, 2]).unwrap().tensors[0].tensor.shape(), [3, 2]);
        for (a, b, says) in [
            (
                [1, 2],
                [3, 2],
                "input b has shape [3, 2] and input a has shape [1, 2]: the first dimension is one size in both",
            ),
            ([0, 2], [0, 2], "input a has shape [0, 2]: tract computes no empty tensors"),
        ] {
            let error = ask(a, b).unwrap_err();
            assert!(matches!(&error, Error::Unfit { what } if what.starts_with(says)), "{error}");
        }
    }

    #[test]
    fn a_first_dimension_with_a_name_is_no_nameless_batch() {
        let (outline, specs) = outline();
        assert!(outline.nameless_batches(&specs).is_empty());
        let nobody = Outline { inputs: Vec::new(), ..outline };
        assert_eq!(nobody.nameless_batches(&specs), [1]);
    }
}
