//! Elements brought to mean and spread: of a channel, an image, a group, a row, or a neighbourhood.

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Inputs, Operator, Outputs, axis_of, one};

use super::{numbers, of};

fn channels_of(x: &Tensor) -> Result<(usize, usize, usize), String> {
    match x.shape() {
        [batch] => Ok((*batch, 1, 1)),
        [batch, channels, inner @ ..] => Ok((*batch, *channels, inner.iter().product())),
        [] => Err("its input has no dimension".to_owned()),
    }
}

/// The numbers of an input with one for each channel.
fn per_channel(inputs: Inputs<'_>, at: usize, channels: usize) -> Result<Vec<f64>, String> {
    let list = numbers(inputs.at(at)?)?;
    if list.len() == channels {
        Ok(list)
    } else {
        Err(format!("input {at} has {} numbers for {channels} channels", list.len()))
    }
}

fn mean_and_variance(row: &[f64]) -> (f64, f64) {
    let count = row.len().max(1) as f64;
    let mean = row.iter().sum::<f64>() / count;
    (mean, row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count)
}

pub(super) fn batch(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let epsilon = f64::from(attributes.float("epsilon", 1e-5)?);
    if attributes.whole("training_mode", 0)? != 0 {
        return Err("training_mode is not computed here".to_owned());
    }
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, channels, width) = channels_of(x)?;
        let list = |at| per_channel(inputs, at, channels);
        let (scale, bias, mean, variance) = (list(1)?, list(2)?, list(3)?, list(4)?);
        let mut data = numbers(x)?;
        for (at, x) in data.iter_mut().enumerate() {
            let c = at / width % channels;
            *x = (*x - mean[c]) / (variance[c] + epsilon).sqrt() * scale[c] + bias[c];
        }
        one(of(x.datatype(), x.shape(), data)?)
    }))
}

/// Each of the groups of an image's channels for itself.
fn grouped(inputs: Inputs<'_>, groups: Option<usize>, epsilon: f64, is_per_group: bool) -> Result<Outputs, String> {
    let x = inputs.at(0)?;
    let (_, channels, width) = channels_of(x)?;
    let groups = groups.unwrap_or(channels);
    if groups == 0 || channels % groups != 0 {
        return Err(format!("{channels} channels in {groups} groups"));
    }
    let count = if is_per_group { groups } else { channels };
    let (scale, bias) = (per_channel(inputs, 1, count)?, per_channel(inputs, 2, count)?);
    let size = channels / groups * width;
    let mut data = numbers(x)?;
    if size > 0 {
        for (number, row) in data.chunks_exact_mut(size).enumerate() {
            let (mean, variance) = mean_and_variance(row);
            for (at, x) in row.iter_mut().enumerate() {
                let group = number % groups;
                let c = if is_per_group { group } else { group * (channels / groups) + at / width };
                *x = (*x - mean) / (variance + epsilon).sqrt() * scale[c] + bias[c];
            }
        }
    }
    one(of(x.datatype(), x.shape(), data)?)
}

pub(super) fn instance(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let epsilon = f64::from(attributes.float("epsilon", 1e-5)?);
    Ok(Box::new(move |inputs| grouped(inputs, None, epsilon, false)))
}

pub(super) fn group(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let epsilon = f64::from(attributes.float("epsilon", 1e-5)?);
    let groups =
        usize::try_from(attributes.whole("num_groups", 0)?).map_err(|_| "num_groups is negative".to_owned())?;
    // Until 20, scale and bias were a group's.
    let is_per_group = attributes.opset < 21;
    Ok(Box::new(move |inputs| grouped(inputs, Some(groups), epsilon, is_per_group)))
}

pub(super) fn layer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let epsilon = f64::from(attributes.float("epsilon", 1e-5)?);
    let axis = attributes.whole("axis", -1)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axis = axis_of(axis, x.shape().len())?;
        let (outer, inner) = x.shape().split_at(axis);
        let size: usize = inner.iter().product();
        let list = |at: usize| {
            let Some(given) = inputs.maybe(at) else { return Ok(None) };
            let common = crate::engine::classical::elementwise::common_shape(inner, given.shape())?;
            if common.as_slice() != inner {
                return Err(format!("input {at} of {:?} for rows of {inner:?}", given.shape()));
            }
            let places = crate::engine::classical::elementwise::spread(given.shape(), inner);
            let given = numbers(given)?;
            Ok(Some(places.into_iter().map(|place| given[place]).collect::<Vec<f64>>()))
        };
        let (scale, bias) = (list(1)?, list(2)?);
        let mut data = numbers(x)?;
        let (mut means, mut spreads) = (Vec::new(), Vec::new());
        for row in data.chunks_exact_mut(size.max(1)) {
            let (mean, variance) = mean_and_variance(row);
            let spread = 1.0 / (variance + epsilon).sqrt();
            for (at, x) in row.iter_mut().enumerate() {
                let scaled = (*x - mean) * spread * scale.as_ref().map_or(1.0, |scale| scale[at]);
                *x = scaled + bias.as_ref().map_or(0.0, |bias| bias[at]);
            }
            means.push(mean);
            spreads.push(spread);
        }
        let shape: Shape = outer.iter().copied().chain(inner.iter().map(|_| 1)).collect();
        let datatype = crate::base::Datatype::Fp32;
        Ok(Outputs::from_iter([
            of(x.datatype(), x.shape(), data)?,
            of(datatype, &shape, means)?,
            of(datatype, &shape, spreads)?,
        ]))
    }))
}

/// By the squares of the channels beside.
pub(super) fn local_response(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (alpha, beta) = (attributes.float("alpha", 1e-4)?, attributes.float("beta", 0.75)?);
    let bias = f64::from(attributes.float("bias", 1.0)?);
    let size = usize::try_from(attributes.whole("size", 1)?).ok().filter(|&size| size > 0);
    let size = size.ok_or_else(|| "size is not over 0".to_owned())?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, channels, width) = channels_of(x)?;
        let elements = numbers(x)?;
        let each = |(at, &x): (usize, &f64)| {
            let (image, channel, column) = (at / width / channels, at / width % channels, at % width);
            let from = channel.saturating_sub((size - 1) / 2);
            let to = channel.saturating_add(size / 2).min(channels - 1);
            let square = |c: usize| elements[(image * channels + c) * width + column].powi(2);
            let sum: f64 = (from..=to).map(square).sum();
            x / (bias + f64::from(alpha) / size as f64 * sum).powf(f64::from(beta))
        };
        one(of(x.datatype(), x.shape(), elements.iter().enumerate().map(each).collect())?)
    }))
}

pub(super) fn dropout(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        if inputs
            .maybe(2)
            .and_then(|training| training.as_slice::<bool>())
            .is_some_and(|training| training.contains(&true))
        {
            return Err("training is not computed here".to_owned());
        }
        let mask = crate::engine::classical::operators::tensor(x.shape(), vec![true; x.elements()])?;
        Ok(Outputs::from_iter([x.clone(), mask]))
    }))
}
