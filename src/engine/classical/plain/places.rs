//! Elements by their places: gathered, scattered, the largest, those that are not zero.

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::cast::{cast_to, wholes};
use crate::engine::classical::operators::{Operator, Outputs, axis_of, made, one, room_for, tensor};
use crate::engine::classical::shaping::pick;
use crate::engine::onnx::elem_datatype;

use super::window::next;
use super::{numbers, of};

/// A place in a tensor of `shape` by an index of each of its first dimensions, in slices of what is behind.
fn place_of(index: &[i64], shape: &[usize]) -> Result<usize, String> {
    index.iter().zip(shape).try_fold(0_usize, |place, (&index, &dim)| {
        let at = if index < 0 { index.saturating_add(dim as i64) } else { index };
        let at = usize::try_from(at).ok().filter(|&at| at < dim);
        Ok(place * dim + at.ok_or_else(|| format!("index {index} of {dim}"))?)
    })
}

pub(super) fn gather_nd(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let batches = attributes.whole("batch_dims", 0)?;
    Ok(Box::new(move |inputs| {
        let (x, indices) = (inputs.at(0)?, inputs.at(1)?);
        let wrong = || format!("indices of {:?} into {:?} with {batches} batch dimensions", indices.shape(), x.shape());
        let batches = usize::try_from(batches).map_err(|_| wrong())?;
        let &[ref outer @ .., depth] = indices.shape() else { return Err(wrong()) };
        let end = batches.checked_add(depth).filter(|&end| end <= x.shape().len() && batches <= outer.len());
        let end = end.filter(|_| depth > 0 && x.shape()[..batches] == outer[..batches]).ok_or_else(wrong)?;
        let width: usize = x.shape()[end..].iter().product();
        let slices: usize = x.shape()[batches..end].iter().product();
        let each = outer[batches..].iter().product::<usize>().max(1);
        let shape: Shape = outer.iter().chain(&x.shape()[end..]).copied().collect();
        room_for(&shape)?;
        let mut starts = Vec::with_capacity(indices.elements() / depth);
        for (at, index) in wholes(indices)?.chunks_exact(depth).enumerate() {
            starts.push((at / each * slices + place_of(index, &x.shape()[batches..end])?) * width);
        }
        one(pick(&[x], &shape, starts.into_iter().flat_map(|start| start..start + width))?)
    }))
}

/// Which element goes where; of several for one place the last, or all of them together.
fn scattered(x: &Tensor, updates: &Tensor, places: &[usize], way: &str) -> Result<Tensor, String> {
    if x.datatype() != updates.datatype() {
        return Err(format!("{} into {}", updates.datatype(), x.datatype()));
    }
    if way == "none" {
        let mut from: Vec<usize> = (0..x.elements()).collect();
        places.iter().enumerate().for_each(|(at, &place)| from[place] = x.elements() + at);
        return pick(&[x, updates], x.shape(), from.into_iter());
    }
    let combine: fn(f64, f64) -> f64 = match way {
        "add" => |a, b| a + b,
        "mul" => |a, b| a * b,
        "max" => f64::max,
        "min" => f64::min,
        other => return Err(format!("reduction {other:?} is none of ONNX's")),
    };
    let (mut data, updates) = (numbers(x)?, numbers(updates)?);
    places.iter().zip(updates).for_each(|(&place, update)| data[place] = combine(data[place], update));
    of(x.datatype(), x.shape(), data)
}

pub(super) fn scatter_nd(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let way = attributes.text("reduction", "none")?.to_owned();
    Ok(Box::new(move |inputs| {
        let (x, indices, updates) = (inputs.at(0)?, inputs.at(1)?, inputs.at(2)?);
        let wrong = || format!("updates of {:?} at {:?} in {:?}", updates.shape(), indices.shape(), x.shape());
        let &[ref outer @ .., depth] = indices.shape() else { return Err(wrong()) };
        if depth == 0 || depth > x.shape().len() {
            return Err(wrong());
        }
        let expected: Shape = outer.iter().chain(&x.shape()[depth..]).copied().collect();
        if updates.shape() != &*expected {
            return Err(wrong());
        }
        let width: usize = x.shape()[depth..].iter().product();
        let mut places = Vec::with_capacity(updates.elements());
        for index in wholes(indices)?.chunks_exact(depth) {
            let start = place_of(index, &x.shape()[..depth])? * width;
            places.extend(start..start + width);
        }
        one(scattered(x, updates, &places, &way)?)
    }))
}

pub(super) fn scatter_elements(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", 0)?;
    let way = attributes.text("reduction", "none")?.to_owned();
    Ok(Box::new(move |inputs| {
        let (x, indices, updates) = (inputs.at(0)?, inputs.at(1)?, inputs.at(2)?);
        let axis = axis_of(axis, x.shape().len())?;
        let within = |(at, (a, b)): (usize, (&usize, &usize))| at == axis || b <= a;
        if indices.shape() != updates.shape()
            || indices.shape().len() != x.shape().len()
            || !x.shape().iter().zip(indices.shape()).enumerate().all(within)
        {
            return Err(format!("updates of {:?} at {:?} in {:?}", updates.shape(), indices.shape(), x.shape()));
        }
        let mut place = vec![0_usize; x.shape().len()];
        let mut places = Vec::with_capacity(indices.elements());
        for &index in wholes(indices)?.iter() {
            let own = place.iter().enumerate().map(|(at, &k)| if at == axis { index } else { k as i64 });
            places.push(place_of(&own.collect::<Vec<_>>(), x.shape())?);
            next(&mut place, indices.shape());
        }
        one(scattered(x, updates, &places, &way)?)
    }))
}

pub(super) fn non_zero(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let found: Vec<usize> = numbers(x)?.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(at, _)| at).collect();
        let mut data = Vec::with_capacity(room_for(&[x.shape().len(), found.len()])?);
        for axis in 0..x.shape().len() {
            let step: usize = x.shape()[axis + 1..].iter().product();
            data.extend(found.iter().map(|at| (at / step % x.shape()[axis]) as i64));
        }
        made(&[x.shape().len(), found.len()], data)
    }))
}

pub(super) fn one_hot(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", -1)?;
    Ok(Box::new(move |inputs| {
        let (indices, values) = (inputs.at(0)?, inputs.at(2)?);
        let depth = inputs.wholes(1)?.and_then(|list| list.first().copied()).unwrap_or(0);
        let depth = usize::try_from(depth).map_err(|_| format!("a depth of {depth}"))?;
        if values.elements() != 2 {
            return Err(format!("{} values, expected off and on", values.elements()));
        }
        let axis = axis_of(axis, indices.shape().len() + 1)?;
        let mut shape = Shape::from_slice(indices.shape());
        shape.insert(axis, depth);
        room_for(&shape)?;
        let inner: usize = indices.shape()[axis..].iter().product();
        let hot = wholes(indices)?;
        let places = (0..room_for(&shape)?).map(|at| {
            let (outer, k, column) = (at / inner / depth, at / inner % depth, at % inner);
            let index = hot[outer * inner + column];
            let index = if index < 0 { index.saturating_add(depth as i64) } else { index };
            usize::from(usize::try_from(index) == Ok(k))
        });
        one(pick(&[values], &shape, places)?)
    }))
}

pub(super) fn top_k(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axis = attributes.whole("axis", -1)?;
    let is_largest = attributes.whole("largest", 1)? != 0;
    let fixed = attributes.whole("k", 0)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axis = axis_of(axis, x.shape().len())?;
        let (outer, rest) = x.shape().split_at(axis);
        let (&dim, inner) = rest.split_first().ok_or_else(|| "its input has no dimension".to_owned())?;
        let k = inputs.wholes(1)?.and_then(|list| list.first().copied()).unwrap_or(fixed);
        let k = usize::try_from(k).ok().filter(|&k| k <= dim).ok_or_else(|| format!("the first {k} of {dim}"))?;
        let elements = numbers(x)?;
        let (outer, inner) = (outer.iter().product::<usize>(), inner.iter().product::<usize>());
        let mut shape = Shape::from_slice(x.shape());
        shape[axis] = k;
        let mut chosen = vec![0_usize; room_for(&shape)?];
        for row in 0..outer {
            for column in 0..inner {
                let at = |place: usize| elements[(row * dim + place) * inner + column];
                let mut order: Vec<usize> = (0..dim).collect();
                // Stable: of equals the first.
                order.sort_by(|&a, &b| if is_largest { at(b).total_cmp(&at(a)) } else { at(a).total_cmp(&at(b)) });
                order.iter().take(k).enumerate().for_each(|(n, &place)| chosen[(row * k + n) * inner + column] = place);
            }
        }
        let places = chosen.iter().enumerate().map(|(at, place)| (at / inner / k * dim + place) * inner + at % inner);
        let indices = chosen.iter().map(|&place| place as i64).collect();
        Ok(Outputs::from_iter([pick(&[x], &shape, places)?, tensor(&shape, indices)?]))
    }))
}

pub(super) fn eye_like(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let k = attributes.whole("k", 0)?;
    let datatype = elem_datatype(attributes.whole("dtype", 0)?);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let &[rows, columns] = x.shape() else { return Err("no matrix".to_owned()) };
        let on = |at: usize| i64::from((at % columns) as i64 == k.saturating_add((at / columns) as i64));
        let data: Vec<i64> = (0..rows * columns).map(on).collect();
        one(cast_to(&tensor(x.shape(), data)?, datatype.unwrap_or(x.datatype()))?)
    }))
}

/// Blocks of an image into channels, or channels into blocks.
fn blocks(attributes: &Attributes<'_>, is_deeper: bool) -> Result<Operator, String> {
    let size = attributes.whole("blocksize", 1)?;
    let size = usize::try_from(size).ok().filter(|size| (1..1 << 16).contains(size));
    let size = size.ok_or_else(|| "blocksize is out of range".to_owned())?;
    let is_crd = attributes.text("mode", "DCR")? == "CRD";
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let &[batch, channels, height, width] = x.shape() else { return Err(format!("an image of {:?}", x.shape())) };
        let wrong = || format!("blocks of {size} in {:?}", x.shape());
        let shape = if is_deeper {
            if height % size != 0 || width % size != 0 {
                return Err(wrong());
            }
            [batch, channels * size * size, height / size, width / size]
        } else {
            if channels % (size * size) != 0 {
                return Err(wrong());
            }
            [batch, channels / (size * size), height * size, width * size]
        };
        let [_, deep, rows, columns] = shape;
        let places = (0..room_for(&shape)?).map(|at| {
            let (column, row, c, b) =
                (at % columns, at / columns % rows, at / columns / rows % deep, at / columns / rows / deep);
            let (c, row, column) = if is_deeper {
                let (block, c) = (c / channels, c % channels);
                (c, row * size + block / size, column * size + block % size)
            } else {
                let block = row % size * size + column % size;
                let c = if is_crd { c * size * size + block } else { block * deep + c };
                (c, row / size, column / size)
            };
            ((b * channels + c) * height + row) * width + column
        });
        one(pick(&[x], &shape, places)?)
    }))
}

pub(super) fn depth_to_space(attributes: &Attributes<'_>) -> Result<Operator, String> {
    blocks(attributes, false)
}

pub(super) fn space_to_depth(attributes: &Attributes<'_>) -> Result<Operator, String> {
    blocks(attributes, true)
}
