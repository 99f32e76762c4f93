//! Labels and categories: from one set of names into another, or into columns.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::operators::{Operator, made, one, room_for, tensor, wrong_type};
use super::shaping::pick;
use crate::base::{Datatype, Shape, Tensor};

/// A label as a key: texts by their bytes, numbers by their bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Text(Box<[u8]>),
    Whole(i64),
    /// Bits of a 64-bit float; every nan is one, and so is every zero.
    Float(u64),
}

impl Key {
    fn float(number: f64) -> Self {
        if number.is_nan() { Self::Float(f64::NAN.to_bits()) } else { Self::Float((number + 0.0).to_bits()) }
    }
}

/// Every element as a key.
fn keys(tensor: &Tensor) -> Result<Vec<Key>, String> {
    Ok(match tensor.datatype() {
        Datatype::Bytes => tensor.texts().into_iter().flatten().map(|text| Key::Text(text.into())).collect(),
        Datatype::Fp32 | Datatype::Fp64 => {
            tensor.to_numbers().unwrap_or_default().into_iter().map(Key::float).collect()
        }
        Datatype::Int64 | Datatype::Int32 | Datatype::Int16 => {
            super::cast::wholes(tensor)?.iter().map(|&whole| Key::Whole(whole)).collect()
        }
        _ => return Err(wrong_type(tensor)),
    })
}

fn texts(list: &[&[u8]]) -> Result<Tensor, String> {
    Tensor::of_texts([list.len()], list).map_err(|error| error.to_string())
}

/// A dictionary as an operator: the value of each element's key, or the last of `values` for a key that is not there.
fn dictionary(from: &Tensor, values: Tensor, with_nan: bool) -> Result<Operator, String> {
    if values.elements() != from.elements() + 1 {
        return Err(format!("{} keys and {} values", from.elements(), values.elements().saturating_sub(1)));
    }
    let datatype = from.datatype();
    // Of a key that is there twice, the first counts.
    let known = keys(from)?.into_iter().enumerate().rev().filter(|(_, key)| with_nan || *key != Key::float(f64::NAN));
    let places: HashMap<Key, usize> = known.map(|(at, key)| (key, at)).collect();
    let default = from.elements();
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        if x.datatype() != datatype {
            return Err(format!("its keys are {datatype}, its input is {}", x.datatype()));
        }
        let found = keys(x)?.into_iter().map(|key| places.get(&key).copied().unwrap_or(default));
        one(pick(&[&values], x.shape(), found)?)
    }))
}

fn with_default(values: &Tensor, default: &Tensor) -> Result<Tensor, String> {
    if values.datatype() != default.datatype() {
        return Err(format!("values of {} with a default of {}", values.datatype(), default.datatype()));
    }
    let count = values.elements();
    pick(&[values, default], &[count + 1], 0..=count)
}

pub(super) fn label_encoder(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let list = |name: &str| -> Result<Option<Tensor>, String> {
        if let Some(tensor) = attributes.tensor(&format!("{name}_tensor"))? {
            return Ok(Some(tensor));
        }
        let (strings, int64s, floats) = (format!("{name}_strings"), format!("{name}_int64s"), format!("{name}_floats"));
        Ok(if attributes.has(&strings) {
            Some(texts(&attributes.texts(&strings)?)?)
        } else if attributes.has(&int64s) {
            let wholes = attributes.wholes(&int64s)?;
            Some(tensor(&[wholes.len()], wholes)?)
        } else if attributes.has(&floats) {
            let floats = attributes.floats(&floats)?;
            Some(tensor(&[floats.len()], floats)?)
        } else {
            None
        })
    };
    let (default_text, default_whole) =
        (attributes.text("default_string", "_Unused")?, attributes.whole("default_int64", -1)?);
    if attributes.has("classes_strings") {
        return either_way(&attributes.texts("classes_strings")?, None, default_text, default_whole);
    }
    let (Some(from), Some(to)) = (list("keys")?, list("values")?) else {
        return Err("keys or values are missing".to_owned());
    };
    let default = match (attributes.tensor("default_tensor")?, to.datatype()) {
        (Some(default), _) => default,
        (None, Datatype::Bytes) => texts(&[default_text.as_bytes()])?,
        (None, Datatype::Fp32) => tensor(&[1], vec![attributes.float("default_float", -0.0)?])?,
        (None, Datatype::Fp64) => tensor(&[1], vec![f64::from(attributes.float("default_float", -0.0)?)])?,
        (None, Datatype::Int64) => tensor(&[1], vec![default_whole])?,
        (None, Datatype::Int16) => tensor(&[1], vec![-1_i16])?,
        (None, Datatype::Int32) => tensor(&[1], vec![-1_i32])?,
        _ => return Err(wrong_type(&to)),
    };
    // Before version 4, nan is equal to nothing here as elsewhere: such a key is never found.
    let with_nan = attributes.opset >= 4;
    dictionary(&from, with_default(&to, &default)?, with_nan)
}

/// Texts into whole numbers or back, by what comes in.
fn either_way(
    names: &[&[u8]],
    numbers: Option<Vec<i64>>,
    default_text: &str,
    default_whole: i64,
) -> Result<Operator, String> {
    let numbers = numbers.unwrap_or_else(|| (0..names.len() as i64).collect());
    if numbers.len() != names.len() {
        return Err(format!("{} texts and {} numbers", names.len(), numbers.len()));
    }
    let (of_text, of_number) = (texts(names)?, tensor(&[numbers.len()], numbers)?);
    let into_numbers = dictionary(&of_text, with_default(&of_number, &tensor(&[1], vec![default_whole])?)?, true)?;
    let into_texts = dictionary(&of_number, with_default(&of_text, &texts(&[default_text.as_bytes()])?)?, true)?;
    Ok(Box::new(
        move |inputs| {
            if inputs.at(0)?.datatype() == Datatype::Bytes { into_numbers(inputs) } else { into_texts(inputs) }
        },
    ))
}

pub(super) fn category_mapper(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (names, numbers) = (attributes.texts("cats_strings")?, attributes.wholes("cats_int64s")?);
    let default_text = attributes.text("default_string", "_Unused")?;
    either_way(&names, Some(numbers), default_text, attributes.whole("default_int64", -1)?)
}

pub(super) fn one_hot_encoder(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (names, numbers) = (attributes.texts("cats_strings")?, attributes.wholes("cats_int64s")?);
    let allow_unknown = attributes.whole("zeros", 1)? != 0;
    let has_names = !names.is_empty();
    let categories = if has_names { texts(&names)? } else { tensor(&[numbers.len()], numbers)? };
    let columns = categories.elements();
    let places: HashMap<Key, usize> = keys(&categories)?.into_iter().enumerate().map(|(at, key)| (key, at)).collect();
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        if (x.datatype() == Datatype::Bytes) != has_names {
            return Err(format!("its input is {}, its categories are not", x.datatype()));
        }
        // A category that came as a float is the whole number before its point.
        let given =
            if has_names { keys(x)? } else { super::cast::wholes(x)?.iter().map(|&whole| Key::Whole(whole)).collect() };
        let mut shape = Shape::from_slice(x.shape());
        shape.push(columns);
        let mut data = vec![0.0_f32; room_for(&shape)?];
        for (row, key) in given.iter().enumerate() {
            match places.get(key) {
                Some(&column) => data[row * columns + column] = 1.0,
                None if allow_unknown => {}
                None => return Err(format!("element {row} is of no known category")),
            }
        }
        made(&shape, data)
    }))
}
