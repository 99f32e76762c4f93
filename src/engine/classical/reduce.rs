//! Many elements become one: along axes, or the place of the largest.

use super::attributes::Attributes;
use super::cast::cast_to;
use super::operators::{Operator, Outputs, axis_of, by_number, made, one, wrong_type};
use super::transform;
use crate::base::{Datatype, Element, Shape, Tensor};

/// A way to reduce: what each element counts as, how two are combined, and what is made of the result.
#[derive(Debug, Clone, Copy)]
enum Way {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquare,
    L1,
    L2,
    LogSum,
    LogSumExp,
}

/// Where an element of `shape` goes when `axes` are reduced: the reduced shape and the place of each element.
fn places(shape: &[usize], axes: &[usize]) -> (Shape, Vec<usize>) {
    let reduced: Shape = shape.iter().enumerate().map(|(at, &dim)| if axes.contains(&at) { 1 } else { dim }).collect();
    let mut places = vec![0_usize];
    for (at, (&dim, &kept)) in shape.iter().zip(&reduced).enumerate() {
        let step = usize::from(!axes.contains(&at));
        places = places.iter().flat_map(|&place| (0..dim).map(move |k| place * kept + k * step)).collect();
    }
    (reduced, places)
}

trait Reducible: Element {
    fn to(self) -> f64;
    fn of(number: f64) -> Self;
}

macro_rules! reducible {
    ($($type:ty),*) => {$(
        impl Reducible for $type {
            fn to(self) -> f64 { self as f64 }
            fn of(number: f64) -> Self { number as Self }
        }
    )*};
}

reducible!(f32, f64, i32, i64);

/// Whole numbers beyond 2^53 are not sums that a model makes.
fn reduce<T: Reducible>(x: &Tensor, axes: &[usize], way: Way) -> Result<(Shape, Vec<T>), String> {
    let elements = x.as_slice::<T>().unwrap_or_default();
    let (shape, places) = places(x.shape(), axes);
    let count: usize = shape.iter().product();
    let each = elements.len().checked_div(count).unwrap_or(0);
    if each == 0 && count > 0 && matches!(way, Way::Mean) {
        return Err(format!("nothing to reduce in shape {:?}", x.shape()));
    }
    let start = match way {
        Way::Max | Way::LogSumExp => f64::NEG_INFINITY,
        Way::Min => f64::INFINITY,
        Way::Prod => 1.0,
        _ => 0.0,
    };
    let mut totals = vec![start; count];
    for (&element, &place) in elements.iter().zip(&places) {
        let (total, x) = (&mut totals[place], element.to());
        *total = match way {
            Way::Sum | Way::Mean | Way::LogSum => *total + x,
            Way::Prod => *total * x,
            Way::SumSquare | Way::L2 => *total + x * x,
            Way::L1 => *total + x.abs(),
            Way::Max | Way::LogSumExp if x.is_nan() || x > *total => x,
            Way::Min if x.is_nan() || x < *total => x,
            Way::Max | Way::LogSumExp | Way::Min => *total,
        };
    }
    match way {
        Way::Mean => totals.iter_mut().for_each(|total| *total /= each as f64),
        Way::L2 => totals.iter_mut().for_each(|total| *total = total.sqrt()),
        Way::LogSum => totals.iter_mut().for_each(|total| *total = total.ln()),
        Way::LogSumExp => {
            let mut sums = vec![0.0; count];
            for (&element, &place) in elements.iter().zip(&places) {
                let largest = if totals[place].is_finite() { totals[place] } else { 0.0 };
                sums[place] += (element.to() - largest).exp();
            }
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total = sum.ln() + if total.is_finite() { *total } else { 0.0 };
            }
        }
        _ => {}
    }
    Ok((shape, totals.into_iter().map(T::of).collect()))
}

fn reduction(attributes: &Attributes<'_>, way: Way) -> Result<Operator, String> {
    fn typed<T: Reducible>(x: &Tensor, axes: &[usize], way: Way, keep: bool) -> Result<Outputs, String> {
        let (shape, data) = reduce::<T>(x, axes, way)?;
        let kept = shape.iter().enumerate().filter(|(at, _)| keep || !axes.contains(at)).map(|(_, &dim)| dim);
        made(&kept.collect::<Shape>(), data)
    }
    let fixed = attributes.wholes("axes")?;
    let keep = attributes.whole("keepdims", 1)? != 0;
    let none_is_none = attributes.whole("noop_with_empty_axes", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axes = inputs.wholes(1)?.unwrap_or_else(|| fixed.clone());
        let rank = x.shape().len();
        let axes = match axes.as_slice() {
            [] if none_is_none => Vec::new(),
            [] => (0..rank).collect(),
            axes => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?,
        };
        // A truth is the larger of the two.
        if x.datatype() == Datatype::Bool && matches!(way, Way::Max | Way::Min) {
            let outputs = typed::<i32>(&cast_to(x, Datatype::Int32)?, &axes, way, keep)?;
            return one(cast_to(&outputs[0], Datatype::Bool)?);
        }
        by_number!(x.datatype(), typed(x, &axes, way, keep), Err(wrong_type(x)))
    }))
}

macro_rules! reductions {
    ($($name:ident => $way:ident),*) => {$(
        pub(super) fn $name(attributes: &Attributes<'_>) -> Result<Operator, String> {
            reduction(attributes, Way::$way)
        }
    )*};
}

reductions! {
    sum => Sum, mean => Mean, max => Max, min => Min, prod => Prod, sum_square => SumSquare, l1 => L1, l2 => L2,
    log_sum => LogSum, log_sum_exp => LogSumExp
}

/// Rows of an axis: how many lie before it, how long it is, how many elements lie behind.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let dim = shape.get(axis).copied().unwrap_or(1);
    (shape.iter().take(axis).product(), dim, shape.iter().skip(axis + 1).product())
}

fn place_of(attributes: &Attributes<'_>, is_max: bool) -> Result<Operator, String> {
    fn typed<T: Reducible>(x: &Tensor, axis: usize, better: impl Fn(f64, f64) -> bool) -> Result<Vec<i64>, String> {
        let elements = x.as_slice::<T>().unwrap_or_default();
        let (outer, dim, inner) = around(x.shape(), axis);
        if dim == 0 {
            return Err("nothing to choose from".to_owned());
        }
        let mut places = Vec::with_capacity(outer * inner);
        for row in 0..outer {
            for column in 0..inner {
                let at = |k: usize| elements[(row * dim + k) * inner + column].to();
                let mut best = 0;
                for k in 1..dim {
                    if better(at(k), at(best)) {
                        best = k;
                    }
                }
                places.push(best as i64);
            }
        }
        Ok(places)
    }
    let axis = attributes.whole("axis", 0)?;
    let keep = attributes.whole("keepdims", 1)? != 0;
    let last = attributes.whole("select_last_index", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let axis = axis_of(axis, x.shape().len())?;
        let better = |new: f64, old: f64| if is_max { new > old } else { new < old } || (last && new == old);
        let places = by_number!(x.datatype(), typed(x, axis, better), Err(wrong_type(x)))?;
        let mut shape = Shape::from_slice(x.shape());
        if keep {
            shape[axis] = 1;
        } else {
            shape.remove(axis);
        }
        made(&shape, places)
    }))
}

pub(super) fn arg_max(attributes: &Attributes<'_>) -> Result<Operator, String> {
    place_of(attributes, true)
}

pub(super) fn arg_min(attributes: &Attributes<'_>) -> Result<Operator, String> {
    place_of(attributes, false)
}

/// Calls `each` with every row along `axis`.
fn along(x: &Tensor, axis: i64, each: impl Fn(&mut [f32])) -> Result<Outputs, String> {
    let elements = x.as_slice::<f32>().ok_or_else(|| wrong_type(x))?;
    let (outer, dim, inner) = around(x.shape(), axis_of(axis, x.shape().len())?);
    let mut data = elements.to_vec();
    let mut row = vec![0.0; dim];
    for start in 0..outer {
        for column in 0..inner {
            let at = |k: usize| (start * dim + k) * inner + column;
            row.iter_mut().enumerate().for_each(|(k, element)| *element = data[at(k)]);
            each(&mut row);
            row.iter().enumerate().for_each(|(k, element)| data[at(k)] = *element);
        }
    }
    made(x.shape(), data)
}

pub(super) fn softmax(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (axis, is_old) = (attributes.whole("axis", if attributes.opset < 13 { 1 } else { -1 })?, attributes.opset < 13);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        // Before 13, everything from the axis on is one row.
        let is_flat = is_old && x.shape().len() != axis_of(axis, x.shape().len())? + 1;
        if is_flat || x.datatype() != Datatype::Fp32 {
            return one(super::plain::softmax_along(x, axis, is_flat)?);
        }
        along(x, axis, transform::softmax)
    }))
}

pub(super) fn lp_normalization(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (axis, p) = (attributes.whole("axis", -1)?, attributes.whole("p", 2)?);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        if x.datatype() != Datatype::Fp32 {
            return Err(wrong_type(x));
        }
        along(x, axis, |row| {
            let norm = match p {
                1 => row.iter().map(|x| x.abs()).sum::<f32>(),
                _ => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
            };
            if norm != 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        })
    }))
}
