//! Elements as elements of another type.

use std::borrow::Cow;

use half::f16;

use super::attributes::Attributes;
use super::operators::{Operator, one, tensor, wrong_type};
use crate::base::{Datatype, Element, Tensor};
use crate::engine::onnx::elem_datatype;

/// Every element by `as`; for texts, what they say.
macro_rules! each_as {
    ($tensor:expr, $to:ty) => {{
        let tensor: &Tensor = $tensor;
        macro_rules! from {
            ($from:ty, $convert:expr) => {
                tensor.as_slice::<$from>().unwrap_or_default().iter().map(|&element| $convert(element)).collect()
            };
        }
        let list: Vec<$to> = match tensor.datatype() {
            Datatype::Bool => from!(bool, |element| u8::from(element) as $to),
            Datatype::Uint8 => from!(u8, |element| element as $to),
            Datatype::Uint16 => from!(u16, |element| element as $to),
            Datatype::Uint32 => from!(u32, |element| element as $to),
            Datatype::Uint64 => from!(u64, |element| element as $to),
            Datatype::Int8 => from!(i8, |element| element as $to),
            Datatype::Int16 => from!(i16, |element| element as $to),
            Datatype::Int32 => from!(i32, |element| element as $to),
            Datatype::Int64 => from!(i64, |element| element as $to),
            Datatype::Fp16 => from!(f16, |element| f32::from(element) as $to),
            Datatype::Fp32 => from!(f32, |element| element as $to),
            Datatype::Fp64 => from!(f64, |element| element as $to),
            Datatype::Bytes => tensor.texts().into_iter().flatten().map(parse::<$to>).collect::<Result<_, _>>()?,
        };
        list
    }};
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(text);
    text.trim().parse().map_err(|_| format!("{text:?} is no number"))
}

/// Whole numbers, converted if they are others.
pub(super) fn wholes(tensor: &Tensor) -> Result<Cow<'_, [i64]>, String> {
    if let Some(same) = tensor.as_slice::<i64>() {
        return Ok(Cow::Borrowed(same));
    }
    Ok(Cow::Owned(each_as!(tensor, i64)))
}

/// 32-bit floats, converted if they are other numbers. Texts are refused.
pub(super) fn floats(tensor: &Tensor) -> Result<Cow<'_, [f32]>, String> {
    if let Some(same) = tensor.as_slice::<f32>() {
        return Ok(Cow::Borrowed(same));
    }
    if tensor.datatype() == Datatype::Bytes {
        return Err(wrong_type(tensor));
    }
    Ok(Cow::Owned(each_as!(tensor, f32)))
}

pub(super) fn cast(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let elem_type = attributes.whole("to", 0)?;
    let to = elem_datatype(elem_type).ok_or_else(|| format!("casts to the unknown element type {elem_type}"))?;
    Ok(Box::new(move |inputs| one(cast_to(inputs.at(0)?, to)?)))
}

/// The same tensor of another type.
pub(super) fn cast_to(from: &Tensor, to: Datatype) -> Result<Tensor, String> {
    fn held<T: Element>(from: &Tensor, data: Vec<T>) -> Result<Tensor, String> {
        tensor(from.shape(), data)
    }
    if from.datatype() == to {
        return Ok(from.clone());
    }
    match to {
        Datatype::Bool => held(from, each_as!(from, f64).into_iter().map(|number| number != 0.0).collect::<Vec<_>>()),
        Datatype::Uint8 => held(from, each_as!(from, u8)),
        Datatype::Uint16 => held(from, each_as!(from, u16)),
        Datatype::Uint32 => held(from, each_as!(from, u32)),
        Datatype::Uint64 => held(from, each_as!(from, u64)),
        Datatype::Int8 => held(from, each_as!(from, i8)),
        Datatype::Int16 => held(from, each_as!(from, i16)),
        Datatype::Int32 => held(from, each_as!(from, i32)),
        Datatype::Int64 => held(from, each_as!(from, i64)),
        Datatype::Fp16 => held(from, each_as!(from, f32).into_iter().map(f16::from_f32).collect::<Vec<_>>()),
        Datatype::Fp32 => held(from, each_as!(from, f32)),
        Datatype::Fp64 => held(from, each_as!(from, f64)),
        Datatype::Bytes => match from.datatype() {
            // A float's digits are each engine's own: better none than others than in training.
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 => Err("casts floats to texts".to_owned()),
            Datatype::Uint64 => texts(from, &each_as!(from, u64)),
            _ => texts(from, &each_as!(from, i64)),
        },
    }
}

fn texts<T: ToString>(from: &Tensor, numbers: &[T]) -> Result<Tensor, String> {
    let texts = numbers.iter().map(ToString::to_string);
    Tensor::of_texts(from.shape(), texts).map_err(|error| error.to_string())
}
