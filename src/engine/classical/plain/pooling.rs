//! One element of every window, or of all elements of a channel.

use super::window::Window;
use super::{numbers, of};
use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, Outputs, one, room_for, tensor};

/// Batch and channel as one, and the inner dimensions.
fn planes(x: &Tensor) -> Result<(usize, &[usize]), String> {
    match x.shape() {
        [batch, channels, inner @ ..] if !inner.is_empty() => Ok((batch * channels, inner)),
        shape => Err(format!("an input of shape {shape:?}, expected batch, channels and more")),
    }
}

fn shape_with(x: &Tensor, inner: &[usize]) -> Result<Shape, String> {
    let mut shape = Shape::from_slice(&x.shape()[..2]);
    shape.extend(inner.iter().copied());
    room_for(&shape)?;
    Ok(shape)
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Average { with_padding: bool },
    Norm(f64),
}

fn pool(attributes: &Attributes<'_>, way: Way) -> Result<Operator, String> {
    let window = Window::of(attributes)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (planes, inner) = planes(x)?;
        let placed = window.over(inner, &window.kernel(&[])?)?;
        let (elements, width) = (numbers(x)?, inner.iter().product::<usize>());
        let shape = shape_with(x, &placed.output)?;
        let windows: usize = placed.output.iter().product();
        let mut data = Vec::with_capacity(planes * windows);
        for plane in 0..planes {
            let plane = &elements[plane * width..(plane + 1) * width];
            let mut sums = vec![(0.0_f64, 0_usize); windows];
            placed.each(|number, _, at| {
                let (sum, count) = &mut sums[number];
                match (at, way) {
                    (Some(at), Way::Average { .. }) => (*sum, *count) = (*sum + plane[at], *count + 1),
                    (None, Way::Average { with_padding }) => *count += usize::from(with_padding),
                    (Some(at), Way::Norm(p)) => *sum += plane[at].abs().powf(p),
                    (None, Way::Norm(_)) => {}
                }
            });
            data.extend(sums.into_iter().map(|(sum, count)| match way {
                Way::Average { .. } => sum / count as f64,
                Way::Norm(p) => sum.powf(1.0 / p),
            }));
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

pub(super) fn average(attributes: &Attributes<'_>) -> Result<Operator, String> {
    pool(attributes, Way::Average { with_padding: attributes.whole("count_include_pad", 0)? != 0 })
}

pub(super) fn norm(attributes: &Attributes<'_>) -> Result<Operator, String> {
    pool(attributes, Way::Norm(attributes.whole("p", 2)? as f64))
}

pub(super) fn max(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let window = Window::of(attributes)?;
    let by_column = attributes.whole("storage_order", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (planes, inner) = planes(x)?;
        let placed = window.over(inner, &window.kernel(&[])?)?;
        let (elements, width) = (numbers(x)?, inner.iter().product::<usize>());
        let shape = shape_with(x, &placed.output)?;
        let windows: usize = placed.output.iter().product();
        let (mut data, mut places) = (Vec::with_capacity(planes * windows), Vec::with_capacity(planes * windows));
        for number in 0..planes {
            let plane = &elements[number * width..(number + 1) * width];
            let mut best: Vec<Option<usize>> = vec![None; windows];
            placed.each(|window, _, at| {
                if let Some(at) = at
                    && best[window].is_none_or(|best| plane[at] > plane[best])
                {
                    best[window] = Some(at);
                }
            });
            for best in best {
                let at = best.ok_or_else(|| "a window of nothing but padding".to_owned())?;
                data.push(plane[at]);
                places.push((number * width + if by_column { by_columns(at, inner) } else { at }) as i64);
            }
        }
        Ok(Outputs::from_iter([of(x.datatype(), &shape, data)?, tensor(&shape, places)?]))
    }))
}

/// A place counted with the first of the last two dimensions running.
fn by_columns(at: usize, inner: &[usize]) -> usize {
    let [.., rows, columns] = *inner else { return at };
    let (plane, at) = (at / (rows * columns), at % (rows * columns));
    plane * rows * columns + at % columns * rows + at / columns
}

fn global(attributes: &Attributes<'_>, fold: fn(&[f64], f64) -> f64) -> Result<Operator, String> {
    let p = attributes.whole("p", 2)? as f64;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, inner) = planes(x)?;
        let width: usize = inner.iter().product();
        if width == 0 {
            return Err("nothing to pool".to_owned());
        }
        let data = numbers(x)?.chunks_exact(width).map(|plane| fold(plane, p)).collect();
        one(of(x.datatype(), &shape_with(x, &vec![1; inner.len()])?, data)?)
    }))
}

pub(super) fn global_average(attributes: &Attributes<'_>) -> Result<Operator, String> {
    global(attributes, |plane, _| plane.iter().sum::<f64>() / plane.len() as f64)
}

pub(super) fn global_max(attributes: &Attributes<'_>) -> Result<Operator, String> {
    global(attributes, |plane, _| plane.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

pub(super) fn global_norm(attributes: &Attributes<'_>) -> Result<Operator, String> {
    global(attributes, |plane, p| plane.iter().map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p))
}

/// Puts elements back where a `MaxPool` found them.
pub(super) fn max_unpool(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let list = |name: &str| -> Result<Vec<usize>, String> {
        let list = attributes.wholes(name)?;
        list.iter().map(|&size| usize::try_from(size).map_err(|_| format!("attribute {name} is {list:?}"))).collect()
    };
    let (kernel, strides, pads) = (list("kernel_shape")?, list("strides")?, list("pads")?);
    Ok(Box::new(move |inputs| {
        let (x, places) = (inputs.at(0)?, inputs.wholes(1)?.unwrap_or_default());
        let (_, inner) = planes(x)?;
        let (rank, mut sizes) = (inner.len(), Vec::new());
        if kernel.len() != rank
            || !(strides.is_empty() || strides.len() == rank)
            || !(pads.is_empty() || pads.len() == 2 * rank)
        {
            return Err(format!("a kernel of {kernel:?} over {rank} dimensions"));
        }
        for (at, &dim) in inner.iter().enumerate() {
            let stride = strides.get(at).copied().unwrap_or(1);
            let pad = pads.get(at).copied().unwrap_or(0).saturating_add(pads.get(at + rank).copied().unwrap_or(0));
            let size = dim
                .saturating_sub(1)
                .checked_mul(stride)
                .and_then(|size| size.checked_add(kernel[at])?.checked_sub(pad));
            sizes.push(size.ok_or_else(|| "pads larger than the output".to_owned())?);
        }
        let shape = shape_with(x, &sizes)?;
        let mut data = vec![0.0; room_for(&shape)?];
        for (&place, element) in places.iter().zip(numbers(x)?) {
            let room = data.len();
            let place = usize::try_from(place).ok().and_then(|place| data.get_mut(place));
            *place.ok_or_else(|| format!("a place behind the output's {room} elements"))? = element;
        }
        let Some(wanted) = inputs.wholes(2)? else { return one(of(x.datatype(), &shape, data)?) };
        // A larger output has what is there in its first corner.
        let wanted = crate::base::shape_of(&wanted).map_err(|error| error.to_string())?;
        if wanted.len() != shape.len() || wanted.iter().zip(&shape).any(|(wanted, own)| wanted < own) {
            return Err(format!("output_shape {wanted:?} of what is {shape:?}"));
        }
        let mut larger = vec![0.0; room_for(&wanted)?];
        for (at, element) in data.into_iter().enumerate() {
            let (mut rest, mut place, mut step) = (at, 0, 1);
            for (&own, &wanted) in shape.iter().zip(&wanted).rev() {
                place += rest % own * step;
                rest /= own;
                step *= wanted;
            }
            larger[place] = element;
        }
        one(of(x.datatype(), &wanted, larger)?)
    }))
}
