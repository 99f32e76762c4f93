//! The elements of a `TensorProto`.

use bytes::Bytes;
use half::f16;

use super::outline::elem_datatype;
use super::wire::{Field, Reader};
use super::{Error, TensorData};
use crate::base::{Datatype, Tensor, TensorError, shape_of};

const RAW: u64 = 9;

/// The tensor that `data` declares. The elements must be there: a shape alone reserves nothing.
pub(in crate::engine) fn decode(data: &TensorData<'_>) -> Result<Tensor, Error> {
    let broken = |what: String| Error::Tensor { tensor: data.name.to_owned(), what };
    let datatype = elem_datatype(data.elem_type)
        .ok_or_else(|| broken(format!("its element type {} is none that can be computed", data.elem_type)))?;
    let shape = shape_of(&data.dims).map_err(|error| broken(error.to_string()))?;
    let held = |made: Result<Tensor, TensorError>| made.map_err(|error| broken(error.to_string()));
    let mut reader = data.fields;
    let mut raw = None;
    let (mut wholes, mut floats, mut doubles, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while let Some((number, field)) = reader.next()? {
        match number {
            RAW => raw = Some(field.message(&reader)?.bytes()),
            4 => field.floats(&reader, &mut floats)?,
            5 | 7 | 11 => field.wholes(&reader, &mut wholes)?,
            6 => texts.push(text(field, &reader)?),
            10 => field.doubles(&reader, &mut doubles)?,
            _ => {}
        }
    }
    if let Some(raw) = raw.filter(|_| datatype != Datatype::Bytes) {
        return held(Tensor::from_bytes(datatype, shape, Bytes::copy_from_slice(raw)));
    }
    macro_rules! cast {
        ($type:ty) => {
            held(Tensor::new(shape, wholes.into_iter().map(|whole| whole as $type).collect::<Vec<_>>()))
        };
    }
    match datatype {
        Datatype::Bytes => held(Tensor::of_texts(shape, texts)),
        Datatype::Fp32 => held(Tensor::new(shape, floats)),
        Datatype::Fp64 => held(Tensor::new(shape, doubles)),
        Datatype::Bool => held(Tensor::new(shape, wholes.into_iter().map(|whole| whole != 0).collect::<Vec<_>>())),
        // Half floats stand as their bits among the whole numbers.
        Datatype::Fp16 => {
            held(Tensor::new(shape, wholes.into_iter().map(|bits| f16::from_bits(bits as u16)).collect::<Vec<_>>()))
        }
        Datatype::Uint8 => cast!(u8),
        Datatype::Uint16 => cast!(u16),
        Datatype::Uint32 => cast!(u32),
        Datatype::Uint64 => held(Tensor::new(shape, wholes.into_iter().map(i64::cast_unsigned).collect::<Vec<_>>())),
        Datatype::Int8 => cast!(i8),
        Datatype::Int16 => cast!(i16),
        Datatype::Int32 => cast!(i32),
        Datatype::Int64 => held(Tensor::new(shape, wholes)),
    }
}

fn text<'a>(field: Field<'a>, within: &Reader<'a>) -> Result<&'a [u8], Error> {
    Ok(field.message(within)?.bytes())
}
