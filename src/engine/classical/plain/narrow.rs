//! Types that few operators compute in themselves: they are widened before and, where the result is of the same type, narrowed
//! behind.

use smallvec::SmallVec;

use crate::base::{Datatype, Tensor};
use crate::engine::classical::cast::cast_to;
use crate::engine::classical::operators::{Inputs, Operator};

/// What an operator does with 8-bit, 16-bit and unsigned whole numbers and with half floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::classical) enum Narrow {
    /// It knows them.
    Known,
    /// Its results are of its inputs' type.
    Back,
    /// Its results have a type of their own, such as places or truths.
    Stay,
}

fn wide(datatype: Datatype) -> Option<Datatype> {
    match datatype {
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => Some(Datatype::Int64),
        Datatype::Int8 | Datatype::Int16 => Some(Datatype::Int64),
        Datatype::Fp16 => Some(Datatype::Fp32),
        _ => None,
    }
}

fn widened(x: &Tensor) -> Result<Tensor, String> {
    let Some(to) = wide(x.datatype()) else { return Ok(x.clone()) };
    if x.as_slice::<u64>().is_some_and(|elements| elements.iter().any(|&element| element > i64::MAX as u64)) {
        return Err("a whole number over 2^63 - 1 is not computed here".to_owned());
    }
    cast_to(x, to)
}

/// `operator` for every type of number.
pub(in crate::engine::classical) fn with(narrow: Narrow, operator: Operator) -> Operator {
    if narrow == Narrow::Known {
        return operator;
    }
    Box::new(move |inputs| {
        let types = || inputs.0.iter().flatten().map(|tensor| tensor.datatype());
        let Some(own) = types().find(|&datatype| wide(datatype).is_some()) else { return operator(inputs) };
        let wider = |input: &Option<&Tensor>| input.map(widened).transpose();
        let tensors = inputs.0.iter().map(wider).collect::<Result<SmallVec<[Option<Tensor>; 4]>, String>>()?;
        let given: SmallVec<[Option<&Tensor>; 4]> = tensors.iter().map(Option::as_ref).collect();
        let mut outputs = operator(Inputs(&given))?;
        if narrow == Narrow::Back {
            for output in outputs.iter_mut().filter(|output| Some(output.datatype()) == wide(own)) {
                *output = cast_to(output, own)?;
            }
        }
        Ok(outputs)
    })
}
