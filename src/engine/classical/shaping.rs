//! Operators that move elements and compute none.

use super::attributes::Attributes;
use super::elementwise::{common_shape, spread};
use super::operators::{Operator, axis_of, is_text, made, one, room_for, tensor};
use crate::base::{Datatype, Element, Shape, Tensor, shape_of};

/// The elements at `places` of several tensors of one type, counted through them one after the other. The places are in
/// range.
pub(super) fn pick(from: &[&Tensor], shape: &[usize], places: impl Iterator<Item = usize>) -> Result<Tensor, String> {
    fn typed<T: Element>(
        from: &[&Tensor],
        shape: &[usize],
        places: impl Iterator<Item = usize>,
    ) -> Result<Tensor, String> {
        let slices: Vec<&[T]> = from.iter().map(|tensor| tensor.as_slice::<T>().unwrap_or_default()).collect();
        let find = |mut place: usize| {
            for slice in &slices {
                match slice.get(place) {
                    Some(&element) => return element,
                    None => place -= slice.len(),
                }
            }
            unreachable!("places are in range")
        };
        tensor(shape, places.map(find).collect())
    }
    room_for(shape)?;
    match from.first().map_or(Datatype::Fp32, |tensor| tensor.datatype()) {
        Datatype::Bool => typed::<bool>(from, shape, places),
        Datatype::Uint8 => typed::<u8>(from, shape, places),
        Datatype::Uint16 => typed::<u16>(from, shape, places),
        Datatype::Uint32 => typed::<u32>(from, shape, places),
        Datatype::Uint64 => typed::<u64>(from, shape, places),
        Datatype::Int8 => typed::<i8>(from, shape, places),
        Datatype::Int16 => typed::<i16>(from, shape, places),
        Datatype::Int32 => typed::<i32>(from, shape, places),
        Datatype::Int64 => typed::<i64>(from, shape, places),
        Datatype::Fp16 => typed::<half::f16>(from, shape, places),
        Datatype::Fp32 => typed::<f32>(from, shape, places),
        Datatype::Fp64 => typed::<f64>(from, shape, places),
        Datatype::Bytes => {
            let texts: Vec<&[u8]> = from.iter().filter_map(|tensor| tensor.texts()).flatten().collect();
            Tensor::of_texts(shape, places.map(|place| texts[place])).map_err(|error| error.to_string())
        }
    }
}

fn reshaped(tensor: &Tensor, shape: &[usize]) -> Result<Tensor, String> {
    tensor.clone().reshaped(shape).map_err(|error| error.to_string())
}

pub(super) fn identity(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| one(inputs.at(0)?.clone())))
}

/// The map of a row's probabilities is left out: the tensor of all rows is what clients of the protocol can take.
pub(super) fn zip_map(attributes: &Attributes<'_>) -> Result<Operator, String> {
    identity(attributes)
}

pub(super) fn constant(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let value = if let Some(value) = attributes.tensor("value")? {
        value
    } else if attributes.has("value_float") {
        tensor(&[], vec![attributes.float("value_float", 0.0)?])?
    } else if attributes.has("value_int") {
        tensor(&[], vec![attributes.whole("value_int", 0)?])?
    } else if attributes.has("value_floats") {
        let list = attributes.floats("value_floats")?;
        tensor(&[list.len()], list)?
    } else if attributes.has("value_ints") {
        let list = attributes.wholes("value_ints")?;
        tensor(&[list.len()], list)?
    } else if attributes.has("value_strings") {
        let list = attributes.texts("value_strings")?;
        Tensor::of_texts([list.len()], list).map_err(|error| error.to_string())?
    } else {
        return Err("a constant without a value that can be computed".to_owned());
    };
    Ok(Box::new(move |_| one(value.clone())))
}

pub(super) fn shape(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (start, end) = (attributes.whole("start", 0)?, attributes.whole("end", i64::MAX)?);
    Ok(Box::new(move |inputs| {
        let shape = inputs.at(0)?.shape();
        let rank = shape.len() as i64;
        let within = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
        let (start, end) = (within(start), within(end));
        let dims: Vec<i64> = shape[start..end.max(start)].iter().map(|&dim| dim as i64).collect();
        made(&[dims.len()], dims)
    }))
}

pub(super) fn constant_of_shape(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let value = match attributes.tensor("value")? {
        Some(value) if value.elements() == 1 => value,
        Some(_) => return Err("its value is not a single element".to_owned()),
        None => tensor(&[1], vec![0.0_f32])?,
    };
    Ok(Box::new(move |inputs| {
        let dims = inputs.wholes(0)?.unwrap_or_default();
        let shape = shape_of(&dims).map_err(|error| error.to_string())?;
        let elements = room_for(&shape)?;
        one(pick(&[&value], &shape, std::iter::repeat_n(0, elements))?)
    }))
}

pub(super) fn reshape(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let allow_zero = attributes.whole("allowzero", 0)? != 0;
    let fixed = attributes.wholes("shape")?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let wanted = inputs.wholes(1)?.unwrap_or_else(|| fixed.clone());
        let mut shape = Shape::new();
        let mut open = None;
        for (at, &dim) in wanted.iter().enumerate() {
            shape.push(match dim {
                -1 if open.is_none() => {
                    open = Some(at);
                    1
                }
                0 if !allow_zero => *x.shape().get(at).ok_or_else(|| format!("its input has no dimension {at}"))?,
                dim => usize::try_from(dim).map_err(|_| format!("shape {wanted:?}"))?,
            });
        }
        if let Some(at) = open {
            let known = room_for(&shape)?;
            shape[at] = x.elements().checked_div(known).unwrap_or(0);
        }
        one(reshaped(x, &shape)?)
    }))
}

pub(super) fn flatten(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 1)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let rank = x.shape().len();
        // The axis may stand behind the last dimension.
        let axis = if axis == rank as i64 { rank } else { axis_of(axis, rank)? };
        let (outer, inner) = x.shape().split_at(axis);
        one(reshaped(x, &[outer.iter().product(), inner.iter().product()])?)
    }))
}

pub(super) fn squeeze(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let fixed = attributes.has("axes").then(|| attributes.wholes("axes")).transpose()?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axes = inputs.wholes(1)?.or_else(|| fixed.clone());
        let dims = x.shape().iter().enumerate();
        let shape: Shape = match axes {
            None => dims.filter(|(_, dim)| **dim != 1).map(|(_, &dim)| dim).collect(),
            Some(axes) => {
                let axes = axes.iter().map(|&axis| axis_of(axis, x.shape().len())).collect::<Result<Vec<_>, _>>()?;
                dims.filter(|(at, _)| !axes.contains(at)).map(|(_, &dim)| dim).collect()
            }
        };
        one(reshaped(x, &shape)?)
    }))
}

pub(super) fn unsqueeze(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let fixed = attributes.wholes("axes")?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axes = inputs.wholes(1)?.unwrap_or_else(|| fixed.clone());
        let rank = x.shape().len() + axes.len();
        let axes = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?;
        let mut dims = x.shape().iter();
        let shape: Shape =
            (0..rank).map(|at| if axes.contains(&at) { 1 } else { dims.next().copied().unwrap_or(1) }).collect();
        one(reshaped(x, &shape)?)
    }))
}

pub(super) fn transpose(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let order = attributes.wholes("perm")?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let rank = x.shape().len();
        let order: Vec<usize> = if order.is_empty() {
            (0..rank).rev().collect()
        } else {
            order.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?
        };
        if order.len() != rank || (0..rank).any(|axis| !order.contains(&axis)) {
            return Err(format!("perm {order:?} for {rank} dimensions"));
        }
        let mut steps = vec![1; rank];
        for at in (1..rank).rev() {
            steps[at - 1] = steps[at] * x.shape()[at];
        }
        let shape: Shape = order.iter().map(|&axis| x.shape()[axis]).collect();
        let place = |mut at: usize| {
            let mut place = 0;
            for (&dim, &axis) in shape.iter().zip(&order).rev() {
                place += at % dim * steps[axis];
                at /= dim;
            }
            place
        };
        one(pick(&[x], &shape, (0..x.elements()).map(place))?)
    }))
}

pub(super) fn concat(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 1)?;
    Ok(Box::new(move |inputs| {
        let parts = (0..inputs.0.len()).map(|at| inputs.at(at)).collect::<Result<Vec<_>, _>>()?;
        one(join(&parts, axis)?)
    }))
}

/// Tensors of one type side by side.
pub(super) fn join(parts: &[&Tensor], axis: i64) -> Result<Tensor, String> {
    let first = parts.first().ok_or_else(|| "it has no input".to_owned())?;
    let axis = axis_of(axis, first.shape().len())?;
    let mut shape = Shape::from_slice(first.shape());
    shape[axis] = 0;
    for part in parts {
        let fits = part.shape().len() == shape.len()
            && part.shape().iter().zip(first.shape()).enumerate().all(|(at, (a, b))| at == axis || a == b);
        if !fits || part.datatype() != first.datatype() {
            return Err(format!("{part:.0?} beside {first:.0?}"));
        }
        shape[axis] += part.shape()[axis];
    }
    room_for(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    if is_text(first) {
        let mut texts: Vec<_> = parts.iter().map(|part| part.texts().into_iter().flatten()).collect();
        let mut all = Vec::new();
        for _ in 0..outer {
            for (part, texts) in parts.iter().zip(&mut texts) {
                all.extend(texts.take(part.shape()[axis] * inner));
            }
        }
        return Tensor::of_texts(&shape, all).map_err(|error| error.to_string());
    }
    let size = first.datatype().size_bytes().unwrap_or(1);
    let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size);
    for row in 0..outer {
        for part in parts {
            let width = part.shape()[axis] * inner * size;
            bytes.extend_from_slice(&part.bytes()[row * width..(row + 1) * width]);
        }
    }
    Tensor::from_bytes(first.datatype(), &shape, bytes.into()).map_err(|error| error.to_string())
}

pub(super) fn expand(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let wanted = shape_of(&inputs.wholes(1)?.unwrap_or_default()).map_err(|error| error.to_string())?;
        let shape = common_shape(x.shape(), &wanted)?;
        one(pick(&[x], &shape, spread(x.shape(), &shape).into_iter())?)
    }))
}

pub(super) fn gather(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 0)?;
    Ok(Box::new(move |inputs| {
        let (x, indices) = (inputs.at(0)?, inputs.at(1)?);
        let axis = axis_of(axis, x.shape().len())?;
        let dim = *x.shape().get(axis).ok_or_else(|| "its input has no dimension".to_owned())?;
        let wanted = super::cast::wholes(indices)?;
        let chosen = wanted.iter().map(|&index| index_of(index, dim)).collect::<Result<Vec<_>, _>>()?;
        let (outer, inner) = (&x.shape()[..axis], &x.shape()[axis + 1..]);
        let shape: Shape = outer.iter().chain(indices.shape()).chain(inner).copied().collect();
        one(pick_columns(x, &shape, outer.iter().product(), dim, inner.iter().product(), &chosen)?)
    }))
}

/// `chosen` of `dim` columns of `width` elements each, for every one of `rows`.
pub(super) fn pick_columns(
    x: &Tensor,
    shape: &[usize],
    rows: usize,
    dim: usize,
    width: usize,
    chosen: &[usize],
) -> Result<Tensor, String> {
    let columns = (0..rows).flat_map(|row| chosen.iter().map(move |&column| (row * dim + column) * width));
    pick(&[x], shape, columns.flat_map(|start| start..start + width))
}

fn index_of(index: i64, dim: usize) -> Result<usize, String> {
    let at = if index < 0 { index.saturating_add(dim as i64) } else { index };
    let at = usize::try_from(at).ok().filter(|&at| at < dim);
    at.ok_or_else(|| format!("index {index} of {dim}"))
}

pub(super) fn array_feature_extractor(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (x, wanted) = (inputs.at(0)?, inputs.wholes(1)?.unwrap_or_default());
        let (&dim, outer) = x.shape().split_last().ok_or_else(|| "its input has no dimension".to_owned())?;
        let chosen = wanted.iter().map(|&index| index_of(index, dim)).collect::<Result<Vec<_>, _>>()?;
        let mut shape = Shape::from_slice(outer);
        if outer.is_empty() {
            shape.push(1);
        }
        shape.push(chosen.len());
        one(pick_columns(x, &shape, outer.iter().product(), dim, 1, &chosen)?)
    }))
}

pub(super) fn slice(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let fixed = [attributes.wholes("starts")?, attributes.wholes("ends")?, attributes.wholes("axes")?];
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let list = |at: usize| Ok::<_, String>(inputs.wholes(at)?.or_else(|| fixed.get(at - 1).cloned()));
        let (starts, ends) = (list(1)?.unwrap_or_default(), list(2)?.unwrap_or_default());
        let all = || (0..starts.len() as i64).collect();
        let axes = list(3)?.filter(|axes| !axes.is_empty()).unwrap_or_else(all);
        let steps = inputs.wholes(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err("starts, ends, axes and steps have different lengths".to_owned());
        }
        let mut chosen: Vec<Vec<usize>> = x.shape().iter().map(|&dim| (0..dim).collect()).collect();
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = axis_of(axis, x.shape().len())?;
            let dim = x.shape()[axis] as i64;
            let within =
                |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(dim) } else { at }).clamp(low, high);
            let mut picked = Vec::new();
            if step > 0 {
                let (mut at, end) = (within(start, 0, dim), within(end, 0, dim));
                while at < end {
                    picked.push(at as usize);
                    at = at.saturating_add(step);
                }
            } else if step < 0 {
                let (mut at, end) = (within(start, -1, dim - 1), within(end, -1, dim - 1));
                while at > end {
                    picked.push(at as usize);
                    at = at.saturating_add(step);
                }
            } else {
                return Err("a step of 0".to_owned());
            }
            chosen[axis] = picked;
        }
        let shape: Shape = chosen.iter().map(Vec::len).collect();
        let mut places = vec![0_usize];
        for (&dim, picked) in x.shape().iter().zip(&chosen) {
            places = places.iter().flat_map(|&place| picked.iter().map(move |&at| place * dim + at)).collect();
        }
        one(pick(&[x], &shape, places.into_iter())?)
    }))
}
