//! Convolutions over any number of dimensions, and their transposes.

use crate::base::{Datatype, Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Inputs, Operator, one, room_for};

use super::window::{Window, next};
use super::{numbers, of};

fn group_of(attributes: &Attributes<'_>) -> Result<usize, String> {
    let group = attributes.whole("group", 1)?;
    usize::try_from(group).ok().filter(|group| (1..1 << 24).contains(group)).ok_or_else(|| format!("group is {group}"))
}

/// Elements without their zero point: one for all, or one for each of the first dimension.
fn shifted(x: &Tensor, zero: Option<&Tensor>) -> Result<Vec<f64>, String> {
    let mut data = numbers(x)?;
    let zeros = zero.map(numbers).transpose()?.unwrap_or_default();
    let rows = x.shape().first().copied().unwrap_or(1);
    match zeros.len() {
        0 => {}
        1 => data.iter_mut().for_each(|x| *x -= zeros[0]),
        count if count == rows && !data.is_empty() => {
            let width = data.len() / rows;
            data.iter_mut().enumerate().for_each(|(at, x)| *x -= zeros[at / width]);
        }
        count => return Err(format!("{count} zero points for {:?}", x.shape())),
    }
    Ok(data)
}

/// `x` (batch, channel, ...) with weights `w` (output, channel of the group, ...).
fn convolved(
    window: &Window,
    groups: usize,
    (x, x_zero): (&Tensor, Option<&Tensor>),
    (w, w_zero): (&Tensor, Option<&Tensor>),
    bias: Option<&Tensor>,
) -> Result<(Shape, Vec<f64>), String> {
    let ([batch, channels, inner @ ..], [out, each, kernel @ ..]) = (x.shape(), w.shape()) else {
        return Err(format!("an input of {:?} and weights of {:?}", x.shape(), w.shape()));
    };
    let (batch, channels, out, each) = (*batch, *channels, *out, *each);
    if inner.is_empty() || each.checked_mul(groups) != Some(channels) || out % groups != 0 {
        return Err(format!("{channels} channels in {groups} groups and weights of {:?}", w.shape()));
    }
    let placed = window.over(inner, &window.kernel(kernel)?)?;
    let bias = bias.map(numbers).transpose()?;
    if bias.as_ref().is_some_and(|bias| bias.len() != out) {
        return Err(format!("a bias for each of {out} outputs is expected"));
    }
    let (taps, windows) = (kernel.iter().product::<usize>(), placed.output.iter().product::<usize>());
    let (width, of_group) = (inner.iter().product::<usize>(), out / groups);
    let mut shape = Shape::from_slice(&[batch, out]);
    shape.extend(placed.output.iter().copied());
    let mut data = Vec::with_capacity(room_for(&shape)?);
    let (elements, weights) = (shifted(x, x_zero)?, shifted(w, w_zero)?);
    // Every window's elements in a row, so that an output is a product of two rows.
    let mut rows = vec![0.0; room_for(&[windows, each, taps])?];
    for b in 0..batch {
        for group in 0..groups {
            rows.fill(0.0);
            for channel in 0..each {
                let plane = &elements[(b * channels + group * each + channel) * width..][..width];
                placed.each(|window, tap, at| {
                    if let Some(at) = at {
                        rows[(window * each + channel) * taps + tap] = plane[at];
                    }
                });
            }
            for o in group * of_group..(group + 1) * of_group {
                let kernel = &weights[o * each * taps..(o + 1) * each * taps];
                let start = bias.as_ref().map_or(0.0, |bias| bias[o]);
                for row in 0..windows {
                    let row = &rows[row * each * taps..(row + 1) * each * taps];
                    data.push(start + row.iter().zip(kernel).map(|(a, b)| a * b).sum::<f64>());
                }
            }
        }
    }
    Ok((shape, data))
}

pub(super) fn conv(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (window, groups) = (Window::of(attributes)?, group_of(attributes)?);
    Ok(Box::new(move |inputs: Inputs<'_>| {
        let (x, w) = (inputs.at(0)?, inputs.at(1)?);
        let (shape, data) = convolved(&window, groups, (x, None), (w, None), inputs.maybe(2))?;
        one(of(x.datatype(), &shape, data)?)
    }))
}

pub(super) fn conv_integer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (window, groups) = (Window::of(attributes)?, group_of(attributes)?);
    Ok(Box::new(move |inputs: Inputs<'_>| {
        let (x, w) = ((inputs.at(0)?, inputs.maybe(2)), (inputs.at(1)?, inputs.maybe(3)));
        let (shape, data) = convolved(&window, groups, x, w, None)?;
        one(of(Datatype::Int32, &shape, data)?)
    }))
}

/// How a transposed convolution's output lies: its dimensions, and what is cut in front of each.
fn transposed_over(
    attributes: &Transposed,
    inner: &[usize],
    kernel: &[usize],
) -> Result<(Vec<usize>, Vec<usize>), String> {
    let (mut sizes, mut cut) = (Vec::new(), Vec::new());
    for (at, (&dim, &taps)) in inner.iter().zip(kernel).enumerate() {
        let one_of = |list: &[usize], default: usize| list.get(at).copied().unwrap_or(default);
        let (stride, dilation) = (one_of(&attributes.strides, 1), one_of(&attributes.dilations, 1));
        let extra = one_of(&attributes.extra, 0);
        let full = dim.saturating_sub(1) * stride + (taps - 1) * dilation + 1 + extra;
        let wanted = match attributes.output.get(at) {
            Some(&wanted) => Some(wanted),
            None => attributes.auto.map(|_| dim * stride),
        };
        let (front, size) = match wanted {
            Some(wanted) => {
                let all = full.saturating_sub(wanted);
                (if attributes.auto == Some(true) { all / 2 } else { all - all / 2 }, wanted)
            }
            None => {
                let pad = |at: usize| attributes.pads.get(at).copied().unwrap_or(0);
                let size = full.checked_sub(pad(at) + pad(at + inner.len()));
                (pad(at), size.ok_or_else(|| format!("pads larger than the output's {full}"))?)
            }
        };
        sizes.push(size);
        cut.push(front);
    }
    room_for(&sizes)?;
    Ok((sizes, cut))
}

struct Transposed {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    extra: Vec<usize>,
    output: Vec<usize>,
    /// Whether `SAME_UPPER`, or `SAME_LOWER`.
    auto: Option<bool>,
}

pub(super) fn conv_transpose(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let list = |name: &str| -> Result<Vec<usize>, String> {
        let list = attributes.wholes(name)?;
        let size = |&size: &i64| usize::try_from(size).ok().filter(|&size| size < 1 << 24);
        list.iter().map(size).collect::<Option<_>>().ok_or_else(|| format!("attribute {name} is {list:?}"))
    };
    let groups = group_of(attributes)?;
    let transposed = Transposed {
        strides: list("strides")?,
        dilations: list("dilations")?,
        pads: list("pads")?,
        extra: list("output_padding")?,
        output: list("output_shape")?,
        auto: match attributes.text("auto_pad", "NOTSET")? {
            "SAME_UPPER" => Some(true),
            "SAME_LOWER" => Some(false),
            _ => None,
        },
    };
    Ok(Box::new(move |inputs: Inputs<'_>| {
        let (x, w) = (inputs.at(0)?, inputs.at(1)?);
        let ([batch, channels, inner @ ..], [rows, each, kernel @ ..]) = (x.shape(), w.shape()) else {
            return Err(format!("an input of {:?} and weights of {:?}", x.shape(), w.shape()));
        };
        let (batch, channels, each) = (*batch, *channels, *each);
        if inner.len() != kernel.len()
            || inner.is_empty()
            || *rows != channels
            || channels % groups != 0
            || kernel.contains(&0)
        {
            return Err(format!("{channels} channels in {groups} groups and weights of {:?}", w.shape()));
        }
        let (sizes, cut) = transposed_over(&transposed, inner, kernel)?;
        let out = each.checked_mul(groups).ok_or_else(|| "too many groups".to_owned())?;
        let mut shape = Shape::from_slice(&[batch, out]);
        shape.extend(sizes.iter().copied());
        let width = sizes.iter().product::<usize>();
        let mut data = vec![0.0; room_for(&shape)?];
        if let Some(bias) = inputs.maybe(2).map(numbers).transpose()? {
            if bias.len() != out {
                return Err(format!("a bias for each of {out} outputs is expected"));
            }
            data.iter_mut().enumerate().for_each(|(at, y)| *y = bias[at / width % out]);
        }
        let (elements, weights) = (numbers(x)?, numbers(w)?);
        let (places, taps) = (inner.iter().product::<usize>(), kernel.iter().product::<usize>());
        let step = |list: &[usize], at: usize| list.get(at).copied().unwrap_or(1);
        let mut place = vec![0; inner.len()];
        for from in 0..places {
            let mut tap = vec![0; inner.len()];
            for number in 0..taps {
                let mut to = Some(0);
                for at in 0..inner.len() {
                    let far = place[at] * step(&transposed.strides, at) + tap[at] * step(&transposed.dilations, at);
                    let near = far.checked_sub(cut[at]).filter(|&near| near < sizes[at]);
                    to = to.zip(near).map(|(to, near)| to * sizes[at] + near);
                }
                next(&mut tap, kernel);
                let Some(to) = to else { continue };
                for b in 0..batch {
                    for channel in 0..channels {
                        let x = elements[(b * channels + channel) * places + from];
                        let group = channel / (channels / groups);
                        for o in 0..each {
                            data[(b * out + group * each + o) * width + to] +=
                                x * weights[(channel * each + o) * taps + number];
                        }
                    }
                }
            }
            next(&mut place, inner);
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}
