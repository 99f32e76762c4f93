//! Operators that choose, repeat or fill, and compute none of the elements.

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::cast::{cast_to, wholes};
use crate::engine::classical::operators::{Operator, Outputs, axis_of, made, one, room_for, tensor, wrong_type};
use crate::engine::classical::shaping::{pick, pick_columns};

use super::window::next;
use super::{numbers, of};

pub(super) fn cast_like(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| one(cast_to(inputs.at(0)?, inputs.at(1)?.datatype())?)))
}

pub(super) fn size(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| made(&[], vec![inputs.at(0)?.elements() as i64])))
}

pub(super) fn range(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let start = inputs.at(0)?;
        let single = |at: usize| match numbers(inputs.at(at)?)?.as_slice() {
            &[number] => Ok(number),
            list => Err(format!("input {at} has {} numbers, expected one", list.len())),
        };
        let (from, limit, delta) = (single(0)?, single(1)?, single(2)?);
        let count = ((limit - from) / delta).ceil();
        if !count.is_finite() {
            return Err(format!("a range from {from} to {limit} in steps of {delta}"));
        }
        let count = room_for(&[count.max(0.0) as usize])?;
        one(of(start.datatype(), &[count], (0..count).map(|k| from + k as f64 * delta).collect())?)
    }))
}

/// Elements of one side of a diagonal; the others are zero.
pub(super) fn trilu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_upper = attributes.whole("upper", 1)? != 0;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let k = inputs.wholes(1)?.and_then(|list| list.first().copied()).unwrap_or(0);
        let &[.., rows, columns] = x.shape() else { return Err("no matrix".to_owned()) };
        let zero = zero_of(x)?;
        let places = (0..x.elements()).map(|at| {
            let (row, column) = ((at / columns % rows) as i64, (at % columns) as i64);
            let side = column.saturating_sub(row);
            if if is_upper { side >= k } else { side <= k } { at } else { x.elements() }
        });
        one(pick(&[x, &zero], x.shape(), places)?)
    }))
}

/// One element that stands for nothing.
fn zero_of(x: &Tensor) -> Result<Tensor, String> {
    if x.texts().is_some() {
        return Tensor::of_texts([1], [""]).map_err(|error| error.to_string());
    }
    cast_to(&tensor(&[1], vec![0_i64])?, x.datatype())
}

pub(super) fn compress(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.has("axis").then(|| attributes.whole("axis", 0)).transpose()?;
    Ok(Box::new(move |inputs| {
        let (x, kept) = (inputs.at(0)?, inputs.at(1)?);
        let kept = kept.as_slice::<bool>().ok_or_else(|| wrong_type(kept))?;
        let flat;
        let (x, axis) = match axis {
            Some(axis) => (x, axis_of(axis, x.shape().len())?),
            None => {
                flat = x.clone().reshaped([x.elements()]).map_err(|error| error.to_string())?;
                (&flat, 0)
            }
        };
        let (outer, rest) = x.shape().split_at(axis);
        let (&dim, inner) = rest.split_first().ok_or_else(|| "its input has no dimension".to_owned())?;
        let chosen: Vec<usize> = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(at, _)| at).collect();
        if chosen.last().is_some_and(|&last| last >= dim) {
            return Err(format!("a condition of {} elements for {dim}", kept.len()));
        }
        let mut shape = Shape::from_slice(x.shape());
        shape[axis] = chosen.len();
        one(pick_columns(x, &shape, outer.iter().product(), dim, inner.iter().product(), &chosen)?)
    }))
}

pub(super) fn gather_elements(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 0)?;
    Ok(Box::new(move |inputs| {
        let (x, indices) = (inputs.at(0)?, inputs.at(1)?);
        let axis = axis_of(axis, x.shape().len())?;
        let others = |(at, (a, b)): (usize, (&usize, &usize))| at == axis || b <= a;
        if x.shape().len() != indices.shape().len() || !x.shape().iter().zip(indices.shape()).enumerate().all(others) {
            return Err(format!("indices of {:?} into {:?}", indices.shape(), x.shape()));
        }
        let dim = x.shape()[axis];
        let mut place = vec![0; x.shape().len()];
        let mut places = Vec::with_capacity(indices.elements());
        for &index in wholes(indices)?.iter() {
            let from = if index < 0 { index.saturating_add(dim as i64) } else { index };
            let from = usize::try_from(from).ok().filter(|&from| from < dim);
            let from = from.ok_or_else(|| format!("index {index} of {dim}"))?;
            let own = place.iter().enumerate().map(|(at, &k)| if at == axis { from } else { k });
            places.push(own.zip(x.shape()).fold(0, |at, (k, &dim)| at * dim + k));
            next(&mut place, indices.shape());
        }
        one(pick(&[x], indices.shape(), places.into_iter())?)
    }))
}

pub(super) fn split(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 0)?;
    let fixed = attributes.wholes("split")?;
    let parts = attributes.node.outputs.len().max(1);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axis = axis_of(axis, x.shape().len())?;
        let dim = *x.shape().get(axis).ok_or_else(|| "its input has no dimension".to_owned())?;
        let sizes = match inputs.wholes(1)?.unwrap_or_else(|| fixed.clone()) {
            given if given.is_empty() => {
                let size = dim.div_ceil(parts);
                (0..parts).map(|at| size.min(dim.saturating_sub(at * size))).collect()
            }
            given => given.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect::<Vec<_>>(),
        };
        if sizes.len() != parts || sizes.iter().copied().try_fold(0, usize::checked_add) != Some(dim) {
            return Err(format!("{dim} elements in {parts} parts of {sizes:?}"));
        }
        let (outer, inner) = (x.shape()[..axis].iter().product(), x.shape()[axis + 1..].iter().product());
        let mut outputs = Outputs::new();
        let mut start = 0;
        for size in sizes {
            let mut shape = Shape::from_slice(x.shape());
            shape[axis] = size;
            let chosen: Vec<usize> = (start..start + size).collect();
            outputs.push(pick_columns(x, &shape, outer, dim, inner, &chosen)?);
            start += size;
        }
        Ok(outputs)
    }))
}

/// Where a padded dimension's element comes from; None for the filling.
fn source(at: i64, dim: i64, mode: &str) -> Option<i64> {
    if (0..dim).contains(&at) {
        return Some(at);
    }
    match mode {
        "edge" if dim > 0 => Some(at.clamp(0, dim - 1)),
        "wrap" if dim > 0 => Some(at.rem_euclid(dim)),
        "reflect" if dim > 1 => {
            let around = at.rem_euclid(2 * (dim - 1));
            Some(if around < dim { around } else { 2 * (dim - 1) - around })
        }
        "reflect" if dim == 1 => Some(0),
        _ => None,
    }
}

pub(super) fn pad(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let mode = attributes.text("mode", "constant")?.to_owned();
    if !["constant", "edge", "reflect", "wrap"].contains(&mode.as_str()) {
        return Err(format!("mode {mode:?} is none of ONNX's"));
    }
    let fixed = attributes.wholes("pads")?;
    let value = attributes.float("value", 0.0)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let rank = x.shape().len();
        let given = inputs.wholes(1)?.unwrap_or_else(|| fixed.clone());
        let axes = match inputs.wholes(3)? {
            None => (0..rank).collect(),
            Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        };
        if given.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} dimensions", given.len(), axes.len()));
        }
        let mut pads = vec![(0, 0); rank];
        for (at, &axis) in axes.iter().enumerate() {
            pads[axis] = (given[at], given[at + axes.len()]);
        }
        let size = |(&dim, &(before, behind)): (&usize, &(i64, i64))| {
            let size = (dim as i64).checked_add(before)?.checked_add(behind)?;
            usize::try_from(size).ok()
        };
        let shape = x.shape().iter().zip(&pads).map(size).collect::<Option<Shape>>();
        let shape = shape.ok_or_else(|| format!("pads {pads:?} of {:?}", x.shape()))?;
        let filling = match inputs.maybe(2) {
            Some(filling) if filling.elements() == 1 => {
                filling.clone().reshaped([1]).map_err(|error| error.to_string())?
            }
            Some(filling) if filling.elements() > 1 => return Err("a filling of several elements".to_owned()),
            _ if value != 0.0 => cast_to(&tensor(&[1], vec![value])?, x.datatype())?,
            _ => zero_of(x)?,
        };
        if filling.datatype() != x.datatype() {
            return Err(format!("{} filled with {}", x.datatype(), filling.datatype()));
        }
        let mut places = Vec::with_capacity(room_for(&shape)?);
        let mut place = vec![0; rank];
        while !shape.contains(&0) {
            let mut at = Some(0);
            for ((&k, &(before, _)), &dim) in place.iter().zip(&pads).zip(x.shape()) {
                let from = source(k as i64 - before, dim as i64, &mode);
                at = at.zip(from).map(|(at, from)| at * dim + from as usize);
            }
            places.push(at.unwrap_or(x.elements()));
            if !next(&mut place, &shape) {
                break;
            }
        }
        one(pick(&[x, &filling], &shape, places.into_iter())?)
    }))
}

pub(super) fn tile(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let repeats = inputs.wholes(1)?.unwrap_or_default();
        if repeats.len() != x.shape().len() {
            return Err(format!("{} repeats for {} dimensions", repeats.len(), x.shape().len()));
        }
        let size = |(&dim, &count): (&usize, &i64)| usize::try_from(count).ok()?.checked_mul(dim);
        let shape = x.shape().iter().zip(&repeats).map(size).collect::<Option<Shape>>();
        let shape = shape.ok_or_else(|| format!("repeats {repeats:?} of {:?}", x.shape()))?;
        let mut places = Vec::with_capacity(room_for(&shape)?);
        let mut place = vec![0; shape.len()];
        while !shape.contains(&0) {
            places.push(place.iter().zip(x.shape()).fold(0, |at, (&k, &dim)| at * dim + k % dim));
            if !next(&mut place, &shape) {
                break;
            }
        }
        one(pick(&[x], &shape, places.into_iter())?)
    }))
}
