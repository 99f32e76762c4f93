//! Whole numbers that stand for fractions: `x = (q - zero point) * scale`.

use crate::base::{Datatype, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, Outputs, axis_of, one, tensor, wrong_type};

use super::{numbers, of};

/// The least and the largest number of a type.
fn limits(datatype: Datatype) -> Result<(f64, f64), String> {
    Ok(match datatype {
        Datatype::Uint8 => (0.0, 255.0),
        Datatype::Int8 => (-128.0, 127.0),
        Datatype::Uint16 => (0.0, 65_535.0),
        Datatype::Int16 => (-32_768.0, 32_767.0),
        Datatype::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        other => return Err(format!("{other} is no type for quantised numbers")),
    })
}

/// Where the scale of each element of `x` stands: one for all, one along an axis, or one for a block of it.
fn places(x: &Tensor, scale: &Tensor, axis: i64, block: i64) -> Result<Vec<usize>, String> {
    if scale.elements() == 1 && scale.shape().len() <= 1 {
        return Ok(vec![0; x.elements()]);
    }
    let axis = axis_of(axis, x.shape().len())?;
    let dim = x.shape()[axis];
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let wrong = || format!("a scale of {:?} for {:?} along {axis} in blocks of {block}", scale.shape(), x.shape());
    if block == 0 {
        return match scale.shape() {
            &[count] if count == dim => Ok((0..x.elements()).map(|at| at / inner % dim).collect()),
            _ => Err(wrong()),
        };
    }
    let block = usize::try_from(block).map_err(|_| wrong())?;
    let blocks = dim.div_ceil(block);
    let mut expected = x.shape().to_vec();
    expected[axis] = blocks;
    if scale.shape() != expected {
        return Err(wrong());
    }
    let place = |at: usize| (at / inner / dim * blocks + at / inner % dim / block) * inner + at % inner;
    Ok((0..x.elements()).map(place).collect())
}

/// Numbers of a zero point, none where it is left out.
fn zeros(zero: Option<&Tensor>, scale: &Tensor) -> Result<Vec<f64>, String> {
    let Some(zero) = zero else { return Ok(vec![0.0; scale.elements()]) };
    if zero.elements() != scale.elements() {
        return Err(format!("zero points of {:?} for scales of {:?}", zero.shape(), scale.shape()));
    }
    numbers(zero)
}

pub(super) fn quantize(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (axis, block) = (attributes.whole("axis", 1)?, attributes.whole("block_size", 0)?);
    let wanted = attributes.whole("output_dtype", 0)?;
    let wanted = crate::engine::onnx::elem_datatype(wanted);
    Ok(Box::new(move |inputs| {
        let (x, scale, zero) = (inputs.at(0)?, inputs.at(1)?, inputs.maybe(2));
        let datatype = zero.map(Tensor::datatype).or(wanted).unwrap_or(Datatype::Uint8);
        let (least, most) = limits(datatype)?;
        let (scales, zeros) = (numbers(scale)?, zeros(zero, scale)?);
        let places = places(x, scale, axis, block)?;
        // Ties fall as in the type of the numbers themselves.
        let is_double = x.datatype() == Datatype::Fp64;
        let quotient = |x: f64, scale: f64| if is_double { x / scale } else { f64::from(x as f32 / scale as f32) };
        let quantized =
            |(x, at): (f64, usize)| (quotient(x, scales[at]).round_ties_even() + zeros[at]).clamp(least, most);
        one(of(datatype, x.shape(), numbers(x)?.into_iter().zip(places).map(quantized).collect())?)
    }))
}

pub(super) fn dequantize(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (axis, block) = (attributes.whole("axis", 1)?, attributes.whole("block_size", 0)?);
    Ok(Box::new(move |inputs| {
        let (x, scale) = (inputs.at(0)?, inputs.at(1)?);
        let (scales, zeros) = (numbers(scale)?, zeros(inputs.maybe(2), scale)?);
        let places = places(x, scale, axis, block)?;
        let data = numbers(x)?.into_iter().zip(places).map(|(x, at)| (x - zeros[at]) * scales[at]).collect();
        one(of(scale.datatype(), x.shape(), data)?)
    }))
}

pub(super) fn dynamic_quantize(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let elements = numbers(x)?;
        // Zero itself must be a number that stands for zero.
        let least = elements.iter().copied().fold(0.0, f64::min);
        let most = elements.iter().copied().fold(0.0, f64::max);
        let scale = (((most - least) / 255.0) as f32).max(f32::MIN_POSITIVE);
        let zero = (-least / f64::from(scale)).round_ties_even().clamp(0.0, 255.0);
        let quantized = |x: f64| (f64::from(x as f32 / scale).round_ties_even() + zero).clamp(0.0, 255.0);
        let data = elements.iter().map(|&x| quantized(x)).collect();
        Ok(Outputs::from_iter([
            of(Datatype::Uint8, x.shape(), data)?,
            tensor(&[], vec![scale])?,
            of(Datatype::Uint8, &[], vec![zero])?,
        ]))
    }))
}

/// Elements of a matrix as the numbers that they stand for, without the scale: by row, by column, or by one zero point.
fn without_zero(x: &Tensor, zero: Option<&Tensor>, is_left: bool) -> Result<Tensor, String> {
    let mut data = numbers(x)?;
    if let Some(zero) = zero {
        let &[.., rows, columns] = x.shape() else { return Err(wrong_type(x)) };
        let zeros = numbers(zero)?;
        let at = |at: usize| if is_left { at / columns % rows } else { at % columns };
        match zeros.len() {
            1 => data.iter_mut().for_each(|x| *x -= zeros[0]),
            count if count == if is_left { rows } else { columns } => {
                data.iter_mut().enumerate().for_each(|(place, x)| *x -= zeros[at(place)]);
            }
            count => return Err(format!("{count} zero points for {rows} rows and {columns} columns")),
        }
    }
    tensor(x.shape(), data)
}

pub(super) fn mat_mul_integer(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let a = without_zero(inputs.at(0)?, inputs.maybe(2), true)?;
        let b = without_zero(inputs.at(1)?, inputs.maybe(3), false)?;
        let mut product = crate::engine::classical::matrix::product::<f64>(&a, &b)?;
        one(crate::engine::classical::cast::cast_to(&product.swap_remove(0), Datatype::Int32)?)
    }))
}

pub(super) fn q_linear_mat_mul(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let single = |at: usize| match numbers(inputs.at(at)?)?.as_slice() {
            &[number] => Ok(number),
            list => Err(format!("input {at} has {} numbers; only one is computed here", list.len())),
        };
        let a = without_zero(inputs.at(0)?, inputs.maybe(2), true)?;
        let b = without_zero(inputs.at(3)?, inputs.maybe(5), false)?;
        let mut product = crate::engine::classical::matrix::product::<f64>(&a, &b)?;
        let product = product.swap_remove(0);
        let zero = inputs.at(7)?;
        let (least, most) = limits(zero.datatype())?;
        let (left, out, offset) = (single(1)?, single(6)?, single(7)?);
        // Of the right matrix: one for all, or one for each of its columns.
        let (scales, columns) = (numbers(inputs.at(4)?)?, b.shape().last().copied().unwrap_or(1));
        if scales.len() != 1 && scales.len() != columns {
            return Err(format!("{} scales for {columns} columns", scales.len()));
        }
        let products = numbers(&product)?.into_iter().enumerate();
        let data = products.map(|(at, x)| {
            let scale = left * scales[at % columns % scales.len()] / out;
            ((x * scale).round_ties_even() + offset).clamp(least, most)
        });
        one(of(zero.datatype(), product.shape(), data.collect())?)
    }))
}
