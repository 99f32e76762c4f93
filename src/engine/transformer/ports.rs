//! What a network takes and gives, and whether a manifest's words agree with it.

use std::sync::Arc;

use crate::base::{Datatype, Tensor};
use crate::engine::error::Error;
use crate::engine::spec::{LoadSpec, NamedTensor, TensorSpec};

/// An input or output that a network has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) spec: TensorSpec,
    /// Stands in a signature that the manifest leaves to the file; an input that does not is optional.
    pub(super) usual: bool,
}

impl Offer {
    pub(super) fn new(name: &str, datatype: Datatype, shape: &[i64], usual: bool) -> Self {
        Self { spec: TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }, usual }
    }
}

/// Inputs and outputs of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) inputs: Vec<Offer>,
    pub(super) outputs: Vec<Offer>,
}

impl Offers {
    /// The places of the declared outputs among those that there are, if all that is declared can be had. Whole numbers may be
    /// declared with 32 bits instead of 64.
    pub(super) fn agree(&self, spec: &LoadSpec) -> Result<Vec<usize>, Error> {
        for declared in &spec.inputs {
            find(spec, "input", declared, &self.inputs)?;
        }
        if !spec.inputs.iter().any(|declared| declared.name == self.inputs[0].spec.name) {
            let given = spec.inputs.iter().map(|input| input.name.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::Declared {
                model: spec.title(),
                what: "inputs".to_owned(),
                expected: format!("{} among them", self.inputs[0].spec.name),
                given,
            });
        }
        spec.outputs.iter().map(|declared| find(spec, "output", declared, &self.outputs)).collect()
    }
}

fn find(spec: &LoadSpec, kind: &str, declared: &TensorSpec, offers: &[Offer]) -> Result<usize, Error> {
    let differs =
        |what: String, expected: String, given: String| Error::Declared { model: spec.title(), what, expected, given };
    let Some(at) = offers.iter().position(|offer| offer.spec.name == declared.name) else {
        let names = offers.iter().map(|offer| offer.spec.name.to_string()).collect::<Vec<_>>().join(", ");
        return Err(differs(format!("{kind}s"), format!("some of {names}"), declared.name.to_string()));
    };
    let offer = &offers[at].spec;
    let narrow = kind == "input" && offer.datatype == Datatype::Int64 && declared.datatype == Datatype::Int32;
    if offer.datatype != declared.datatype && !narrow {
        let what = format!("datatype of {kind} {}", declared.name);
        return Err(differs(what, offer.datatype.to_string(), declared.datatype.to_string()));
    }
    let fits = |(&offered, &declared): (&i64, &i64)| offered == -1 || declared == -1 || offered == declared;
    if offer.shape.len() != declared.shape.len() || !offer.shape.iter().zip(&declared.shape).all(fits) {
        let what = format!("shape of {kind} {}", declared.name);
        return Err(differs(what, format!("{:?} (-1 is any size)", offer.shape), format!("{:?}", declared.shape)));
    }
    Ok(at)
}

/// Whole numbers of an input, each below `most`; the error names it, its place and `most`. None if there is no such input.
pub(super) fn indices(inputs: &[NamedTensor], name: &str, most: usize) -> Result<Option<Vec<usize>>, String> {
    let Some(input) = inputs.iter().find(|input| *input.name == *name) else { return Ok(None) };
    let index = |(at, number): (usize, i64)| {
        let index = usize::try_from(number).ok().filter(|&index| index < most);
        index.ok_or_else(|| format!("{name} has {number} at element {at}, expected 0 to {}", most.saturating_sub(1)))
    };
    wholes(&input.tensor).enumerate().map(index).collect::<Result<_, _>>().map(Some)
}

fn wholes(tensor: &Tensor) -> impl Iterator<Item = i64> {
    let long = tensor.as_slice::<i64>().unwrap_or_default().iter().copied();
    long.chain(tensor.as_slice::<i32>().unwrap_or_default().iter().copied().map(i64::from))
}

/// An output.
pub(super) fn named(name: &Arc<str>, shape: &[usize], values: Vec<f32>) -> Result<NamedTensor, String> {
    let tensor = Tensor::new(shape, values).map_err(|error| format!("{name}: {error}"))?;
    Ok(NamedTensor::new(Arc::clone(name), tensor))
}
