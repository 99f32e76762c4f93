//! What is computed along one axis: softmax and its kin, running sums, reversed sequences.

use super::{numbers, of};
use crate::base::Tensor;
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::cast::wholes;
use crate::engine::classical::operators::{Operator, axis_of, one};
use crate::engine::classical::shaping::pick;

/// What becomes of a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row {
    Softmax,
    LogSoftmax,
    Hardmax,
}

impl Row {
    fn apply(self, row: &mut [f64]) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self {
            Self::Softmax => {
                row.iter_mut().for_each(|x| *x = (*x - largest).exp());
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            Self::LogSoftmax => {
                let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
                row.iter_mut().for_each(|x| *x = *x - largest - sum.ln());
            }
            Self::Hardmax => {
                let first = row.iter().position(|&x| x == largest);
                row.iter_mut().enumerate().for_each(|(at, x)| *x = f64::from(u8::from(Some(at) == first)));
            }
        }
    }
}

/// Every row along `axis`, or, in flat form, everything from `axis` on as one row.
pub(super) fn along(x: &Tensor, axis: i64, is_flat: bool, row: Row) -> Result<Tensor, String> {
    let rank = x.shape().len();
    let axis = if is_flat && axis == rank as i64 { rank } else { axis_of(axis, rank)? };
    let (outer, rest) = x.shape().split_at(axis);
    let (dim, inner) = match rest {
        rest if is_flat => (rest.iter().product(), 1),
        [] => (1, 1),
        [dim, inner @ ..] => (*dim, inner.iter().product::<usize>()),
    };
    let mut data = numbers(x)?;
    let mut line = vec![0.0; dim];
    for start in 0..outer.iter().product() {
        for column in 0..inner {
            let at = |k: usize| (start * dim + k) * inner + column;
            line.iter_mut().enumerate().for_each(|(k, element)| *element = data[at(k)]);
            row.apply(&mut line);
            line.iter().enumerate().for_each(|(k, element)| data[at(k)] = *element);
        }
    }
    of(x.datatype(), x.shape(), data)
}

fn rows(attributes: &Attributes<'_>, row: Row) -> Result<Operator, String> {
    // Before 13, everything from the axis on is one row.
    let is_flat = attributes.opset < 13;
    let axis = attributes.whole("axis", if is_flat { 1 } else { -1 })?;
    Ok(Box::new(move |inputs| one(along(inputs.at(0)?, axis, is_flat, row)?)))
}

pub(super) fn log_softmax(attributes: &Attributes<'_>) -> Result<Operator, String> {
    rows(attributes, Row::LogSoftmax)
}

pub(super) fn hardmax(attributes: &Attributes<'_>) -> Result<Operator, String> {
    rows(attributes, Row::Hardmax)
}

pub(super) fn cum_sum(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_exclusive = attributes.whole("exclusive", 0)? != 0;
    let is_reverse = attributes.whole("reverse", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axis = inputs.wholes(1)?.and_then(|list| list.first().copied()).unwrap_or(0);
        let axis = axis_of(axis, x.shape().len())?;
        let mut data = numbers(x)?;
        let outer: usize = x.shape()[..axis].iter().product();
        let dim = x.shape().get(axis).copied().unwrap_or(1);
        let inner: usize = x.shape().iter().skip(axis + 1).product();
        for start in 0..outer {
            for column in 0..inner {
                let mut sum = 0.0;
                for k in 0..dim {
                    let k = if is_reverse { dim - 1 - k } else { k };
                    let element = &mut data[(start * dim + k) * inner + column];
                    let before = sum;
                    sum += *element;
                    *element = if is_exclusive { before } else { sum };
                }
            }
        }
        one(of(x.datatype(), x.shape(), data)?)
    }))
}

pub(super) fn reverse_sequence(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (batch_axis, time_axis) = (attributes.whole("batch_axis", 1)?, attributes.whole("time_axis", 0)?);
    Ok(Box::new(move |inputs| {
        let (x, lengths) = (inputs.at(0)?, wholes(inputs.at(1)?)?);
        let rank = x.shape().len();
        let (batch, time) = (axis_of(batch_axis, rank)?, axis_of(time_axis, rank)?);
        if rank < 2 || batch + time != 1 {
            return Err(format!("axes {batch_axis} and {time_axis} of a tensor with {rank} dimensions"));
        }
        let (batches, times) = (x.shape()[batch], x.shape()[time]);
        if lengths.len() != batches {
            return Err(format!("{} lengths for a batch of {batches}", lengths.len()));
        }
        let within = |length: &i64| usize::try_from(*length).ok().filter(|&length| length <= times);
        let lengths: Option<Vec<usize>> = lengths.iter().map(within).collect();
        let lengths = lengths.ok_or_else(|| format!("a length is not within 0 and {times}"))?;
        let inner: usize = x.shape()[2..].iter().product();
        let places = (0..x.elements()).map(|at| {
            let (outer, column) = (at / inner, at % inner);
            let (row, line) = (outer / x.shape()[1], outer % x.shape()[1]);
            let (b, t) = if batch == 0 { (row, line) } else { (line, row) };
            let t = if t < lengths[b] { lengths[b] - 1 - t } else { t };
            let (row, line) = if batch == 0 { (b, t) } else { (t, b) };
            (row * x.shape()[1] + line) * inner + column
        });
        one(pick(&[x], x.shape(), places)?)
    }))
}
