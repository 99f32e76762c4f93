//! Frequencies: the discrete Fourier transform, windows, and the mel scale.

use std::f64::consts::PI;

use crate::base::{Datatype, Shape};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, axis_of, one, room_for};
use crate::engine::onnx::elem_datatype;

use super::{numbers, of};

/// Most steps of a transform: a length is squared.
const STEPS_MAX: usize = 1 << 30;

pub(super) fn dft(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_inverse = attributes.whole("inverse", 0)? != 0;
    let is_half = attributes.whole("onesided", 0)? != 0;
    let own_axis = if attributes.opset < 20 { Some(attributes.whole("axis", 1)?) } else { None };
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let rank = x.shape().len();
        let axis = match own_axis {
            Some(axis) => axis,
            None => inputs.wholes(2)?.and_then(|list| list.first().copied()).unwrap_or(-2),
        };
        let axis = axis_of(axis, rank)?;
        let &[ref outer @ .., parts] = x.shape() else { return Err("its input has no dimension".to_owned()) };
        if !(1..=2).contains(&parts) || axis + 1 >= rank {
            return Err(format!("an input of {:?} along {axis}; the last dimension is 1 or 2", x.shape()));
        }
        let dim = outer[axis];
        let length = match inputs.wholes(1)?.and_then(|list| list.first().copied()) {
            None => dim,
            Some(length) => usize::try_from(length).map_err(|_| format!("a length of {length}"))?,
        };
        let bins = if is_half { length / 2 + 1 } else { length };
        let inner: usize = outer[axis + 1..].iter().product();
        let rows: usize = outer[..axis].iter().product();
        let mut shape = Shape::from_slice(outer);
        shape[axis] = bins;
        shape.push(2);
        let mut data = vec![0.0; room_for(&shape)?];
        let steps = rows.checked_mul(inner).and_then(|lines| lines.checked_mul(bins)?.checked_mul(length));
        if length == 0 || steps.is_none_or(|steps| steps > STEPS_MAX) {
            return Err(format!("a transform of length {length} over {:?}", x.shape()));
        }
        let elements = numbers(x)?;
        let sign = if is_inverse { 1.0 } else { -1.0 };
        let turns: Vec<(f64, f64)> =
            (0..length).map(|k| (sign * 2.0 * PI * k as f64 / length as f64).sin_cos()).collect();
        let factor = if is_inverse { 1.0 / length as f64 } else { 1.0 };
        for row in 0..rows {
            for column in 0..inner {
                for bin in 0..bins {
                    let (mut real, mut imaginary) = (0.0, 0.0);
                    for k in 0..dim.min(length) {
                        let at = ((row * dim + k) * inner + column) * parts;
                        let (a, b) = (elements[at], if parts == 2 { elements[at + 1] } else { 0.0 });
                        let (sin, cos) = turns[bin * k % length];
                        real += a * cos - b * sin;
                        imaginary += a * sin + b * cos;
                    }
                    let at = ((row * bins + bin) * inner + column) * 2;
                    (data[at], data[at + 1]) = (real * factor, imaginary * factor);
                }
            }
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

/// A window by its cosine terms.
fn window(attributes: &Attributes<'_>, terms: &'static [f64]) -> Result<Operator, String> {
    let is_periodic = attributes.whole("periodic", 1)? != 0;
    let datatype = elem_datatype(attributes.whole("output_datatype", 1)?).unwrap_or(Datatype::Fp32);
    Ok(Box::new(move |inputs| {
        let length = inputs.wholes(0)?.and_then(|list| list.first().copied()).unwrap_or(0);
        let length = room_for(&[usize::try_from(length).map_err(|_| format!("a window of {length}"))?])?;
        let period = if is_periodic { length } else { length.saturating_sub(1) } as f64;
        let at = |k: usize| {
            let term = |(n, factor): (usize, &f64)| factor * (2.0 * PI * n as f64 * k as f64 / period).cos();
            terms.iter().enumerate().map(term).sum()
        };
        one(of(datatype, &[length], (0..length).map(at).collect())?)
    }))
}

pub(super) fn blackman(attributes: &Attributes<'_>) -> Result<Operator, String> {
    window(attributes, &[0.42, -0.5, 0.08])
}

pub(super) fn hamming(attributes: &Attributes<'_>) -> Result<Operator, String> {
    window(attributes, &[25.0 / 46.0, -21.0 / 46.0])
}

pub(super) fn hann(attributes: &Attributes<'_>) -> Result<Operator, String> {
    window(attributes, &[0.5, -0.5])
}

/// Triangles of the mel scale over the bins of a transform.
pub(super) fn mel_weights(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let datatype = elem_datatype(attributes.whole("output_datatype", 1)?).unwrap_or(Datatype::Fp32);
    Ok(Box::new(move |inputs| {
        let single = |at: usize| match numbers(inputs.at(at)?)?.as_slice() {
            &[number] if number.is_finite() => Ok(number),
            list => Err(format!("input {at} is {list:?}, expected one number")),
        };
        let (bands, length, rate) = (single(0)? as usize, single(1)? as usize, single(2)?);
        let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
        let (low, high) = (mel(single(3)?), mel(single(4)?));
        let bins = length / 2 + 1;
        let mut data = vec![0.0; room_for(&[bins, bands])?];
        // By the number of edges, as the specification's reference has it.
        let step = (high - low) / (bands as f64 + 2.0);
        let bin = |at: usize| {
            let hertz = 700.0 * (10_f64.powf((at as f64 * step + low) / 2595.0) - 1.0);
            (((length as f64 + 1.0) * hertz / rate).floor().max(0.0) as usize).min(bins)
        };
        for band in 0..bands {
            let (from, middle, to) = (bin(band), bin(band + 1), bin(band + 2));
            if from == middle {
                if let Some(weight) = data.get_mut(middle * bands + band) {
                    *weight = 1.0;
                }
            } else {
                for k in from..=middle.min(bins - 1) {
                    data[k * bands + band] = (k - from) as f64 / (middle - from) as f64;
                }
            }
            for k in middle..to {
                data[k * bands + band] = (to - k) as f64 / (to - middle) as f64;
            }
        }
        one(of(datatype, &[bins, bands], data)?)
    }))
}
