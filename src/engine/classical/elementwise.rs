//! Operators on elements, with ONNX's (numpy's) broadcasting.

use smallvec::SmallVec;

use super::attributes::Attributes;
use super::operators::{Inputs, Operator, Outputs, by_number, made, one, room_for, tensor, wrong_type};
use super::transform::logistic;
use crate::base::{Datatype, Element, Shape, Tensor};

/// The shape that both broadcast to.
pub(super) fn common_shape(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], at: usize| (at + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    let common = (0..rank).map(|at| match (dim(a, at), dim(b, at)) {
        (1, other) | (other, 1) => Ok(other),
        (a, b) if a == b => Ok(a),
        _ => Err(format!("shapes {a:?} and {b:?} do not go together")),
    });
    let common = common.collect::<Result<Shape, _>>()?;
    room_for(&common)?;
    Ok(common)
}

/// Steps through `shape` for each dimension of `common`; 0 where it repeats.
fn strides(shape: &[usize], common: &[usize]) -> SmallVec<[usize; 4]> {
    let mut strides: SmallVec<[usize; 4]> = SmallVec::from_elem(0, common.len());
    let mut step = 1;
    for (stride, &dim) in strides.iter_mut().rev().zip(shape.iter().rev()) {
        *stride = if dim == 1 { 0 } else { step };
        step *= dim;
    }
    strides
}

/// Calls `each` with the positions in `a` and `b` of every element of `common`, in order.
fn walk(a: &[usize], b: &[usize], common: &[usize], mut each: impl FnMut(usize, usize)) {
    let (steps_a, steps_b) = (strides(a, common), strides(b, common));
    if common.contains(&0) {
        return;
    }
    let Some((&inner, outer)) = common.split_last() else { return each(0, 0) };
    let (last_a, last_b) = (steps_a[outer.len()], steps_b[outer.len()]);
    let mut at: SmallVec<[usize; 4]> = SmallVec::from_elem(0, outer.len());
    let (mut from_a, mut from_b) = (0, 0);
    loop {
        for k in 0..inner {
            each(from_a + k * last_a, from_b + k * last_b);
        }
        let mut axis = outer.len();
        loop {
            let Some(next) = axis.checked_sub(1) else { return };
            axis = next;
            at[axis] += 1;
            from_a += steps_a[axis];
            from_b += steps_b[axis];
            if at[axis] < outer[axis] {
                break;
            }
            at[axis] = 0;
            from_a -= steps_a[axis] * outer[axis];
            from_b -= steps_b[axis] * outer[axis];
        }
    }
}

/// Where each element of `common` stands in a tensor of `shape`.
pub(super) fn spread(shape: &[usize], common: &[usize]) -> Vec<usize> {
    let mut places = Vec::with_capacity(common.iter().product());
    walk(shape, shape, common, |at, _| places.push(at));
    places
}

fn slices<'a, T: Element>(a: &'a Tensor, b: &'a Tensor) -> Result<(&'a [T], &'a [T]), String> {
    let both = a.as_slice::<T>().zip(b.as_slice::<T>());
    both.ok_or_else(|| format!("{} and {} do not go together", a.datatype(), b.datatype()))
}

fn pairs<T: Element, R: Element>(a: &Tensor, b: &Tensor, compute: impl Fn(T, T) -> R) -> Result<Tensor, String> {
    let (left, right) = slices::<T>(a, b)?;
    if a.shape() == b.shape() {
        let data = left.iter().zip(right).map(|(&a, &b)| compute(a, b)).collect();
        return tensor(a.shape(), data);
    }
    let common = common_shape(a.shape(), b.shape())?;
    let data = match (left, right) {
        (left, &[right]) if left.len() == common.iter().product::<usize>() => {
            left.iter().map(|&left| compute(left, right)).collect()
        }
        _ => {
            let mut data = Vec::with_capacity(common.iter().product());
            walk(a.shape(), b.shape(), &common, |at, bt| data.push(compute(left[at], right[bt])));
            data
        }
    };
    tensor(&common, data)
}

trait Number: Element {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Option<Self>;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    fn less(self, other: Self) -> bool;
    fn absolute(self) -> Self;
    fn negated(self) -> Self;
    fn sign(self) -> Self;
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn add(self, other: Self) -> Self { self + other }
            fn sub(self, other: Self) -> Self { self - other }
            fn mul(self, other: Self) -> Self { self * other }
            fn div(self, other: Self) -> Option<Self> { Some(self / other) }
            // nan on either side is nan, as numpy and the reference have it.
            fn larger(self, other: Self) -> Self {
                if self.is_nan() || other.is_nan() { Self::NAN } else { self.max(other) }
            }
            fn smaller(self, other: Self) -> Self {
                if self.is_nan() || other.is_nan() { Self::NAN } else { self.min(other) }
            }
            fn less(self, other: Self) -> bool { self < other }
            fn absolute(self) -> Self { self.abs() }
            fn negated(self) -> Self { -self }
            fn sign(self) -> Self { if self > 0.0 { 1.0 } else if self < 0.0 { -1.0 } else { self } }
        }
    )*};
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Option<Self> { self.checked_div(other) }
            fn larger(self, other: Self) -> Self { self.max(other) }
            fn smaller(self, other: Self) -> Self { self.min(other) }
            fn less(self, other: Self) -> bool { self < other }
            fn absolute(self) -> Self { self.wrapping_abs() }
            fn negated(self) -> Self { self.wrapping_neg() }
            fn sign(self) -> Self { self.signum() }
        }
    )*};
}

floats!(f32, f64);
integers!(i32, i64);

/// An operator of two or, for the variadic ones, more tensors of numbers.
fn arithmetic(fold: fn(&Tensor, &Tensor) -> Result<Tensor, String>) -> Result<Operator, String> {
    Ok(Box::new(move |inputs: Inputs<'_>| {
        let mut result = inputs.at(0)?.clone();
        for at in 1..inputs.0.len() {
            result = fold(&result, inputs.at(at)?)?;
        }
        one(result)
    }))
}

macro_rules! binary {
    ($name:ident, $method:ident) => {
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            fn typed<T: Number>(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
                pairs::<T, T>(a, b, T::$method)
            }
            arithmetic(|a, b| by_number!(a.datatype(), typed(a, b), Err(wrong_type(a))))
        }
    };
}

binary!(add, add);
binary!(sub, sub);
binary!(mul, mul);
binary!(max, larger);
binary!(min, smaller);
binary!(sum, add);

pub(super) fn div(_: &Attributes<'_>) -> Result<Operator, String> {
    fn typed<T: Number>(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
        let divisible = slices::<T>(a, b)?.1.iter().all(|divisor| divisor.div(*divisor).is_some());
        if !divisible {
            return Err("divides a whole number by zero".to_owned());
        }
        // The smallest whole number by -1 is the only quotient left without a value.
        pairs::<T, T>(a, b, |a, b| a.div(b).unwrap_or(a))
    }
    arithmetic(|a, b| by_number!(a.datatype(), typed(a, b), Err(wrong_type(a))))
}

pub(super) fn mean(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let mut total = inputs.at(0)?.clone();
        for at in 1..inputs.0.len() {
            total = pairs::<f32, f32>(&total, inputs.at(at)?, |a, b| a + b)?;
        }
        let count = inputs.0.len() as f32;
        made(total.shape(), super::cast::floats(&total)?.iter().map(|total| total / count).collect())
    }))
}

pub(super) fn pow(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (base, exponent) = (inputs.at(0)?, inputs.at(1)?);
        let exponent = match (base.datatype(), exponent.datatype()) {
            (a, b) if a == b => exponent.clone(),
            (Datatype::Fp32, _) => tensor(exponent.shape(), super::cast::floats(exponent)?.into_owned())?,
            (Datatype::Fp64, _) => {
                tensor(exponent.shape(), exponent.to_numbers().ok_or_else(|| wrong_type(exponent))?)?
            }
            _ => return Err(format!("{} to the power of {}", base.datatype(), exponent.datatype())),
        };
        match base.datatype() {
            Datatype::Fp32 => one(pairs::<f32, f32>(base, &exponent, f32::powf)?),
            Datatype::Fp64 => one(pairs::<f64, f64>(base, &exponent, f64::powf)?),
            Datatype::Int64 => one(pairs::<i64, i64>(base, &exponent, |a, b| (a as f64).powf(b as f64) as i64)?),
            _ => Err(wrong_type(base)),
        }
    }))
}

macro_rules! comparison {
    ($name:ident, $compare:expr) => {
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            fn typed<T: Number>(a: &Tensor, b: &Tensor) -> Result<Outputs, String> {
                let compare: fn(T, T) -> bool = $compare;
                one(pairs::<T, bool>(a, b, compare)?)
            }
            Ok(Box::new(|inputs| {
                let (a, b) = (inputs.at(0)?, inputs.at(1)?);
                by_number!(a.datatype(), typed(a, b), Err(wrong_type(a)))
            }))
        }
    };
}

comparison!(less, |a, b| a.less(b));
comparison!(greater, |a, b| b.less(a));
comparison!(less_or_equal, |a, b| a.less(b) || a == b);
comparison!(greater_or_equal, |a, b| b.less(a) || a == b);

pub(super) fn equal(_: &Attributes<'_>) -> Result<Operator, String> {
    fn typed<T: Number>(a: &Tensor, b: &Tensor) -> Result<Outputs, String> {
        one(pairs::<T, bool>(a, b, |a, b| a == b)?)
    }
    Ok(Box::new(|inputs| {
        let (a, b) = (inputs.at(0)?, inputs.at(1)?);
        match (a.datatype(), a.texts().zip(b.texts())) {
            (Datatype::Bool, _) => one(pairs::<bool, bool>(a, b, |a, b| a == b)?),
            (_, Some((left, right))) => {
                let (left, right): (Vec<_>, Vec<_>) = (left.collect(), right.collect());
                let common = common_shape(a.shape(), b.shape())?;
                let mut data = Vec::with_capacity(common.iter().product());
                walk(a.shape(), b.shape(), &common, |at, bt| data.push(left[at] == right[bt]));
                made(&common, data)
            }
            (datatype, None) => by_number!(datatype, typed(a, b), Err(wrong_type(a))),
        }
    }))
}

macro_rules! logic {
    ($name:ident, $compute:expr) => {
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            Ok(Box::new(|inputs| one(pairs::<bool, bool>(inputs.at(0)?, inputs.at(1)?, $compute)?)))
        }
    };
}

logic!(and, |a, b| a && b);
logic!(or, |a, b| a || b);
logic!(xor, |a, b| a != b);

pub(super) fn not(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let elements = x.as_slice::<bool>().ok_or_else(|| wrong_type(x))?;
        made(x.shape(), elements.iter().map(|&truth| !truth).collect())
    }))
}

/// `Where`.
pub(super) fn choose(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (which, a, b) = (inputs.at(0)?, inputs.at(1)?, inputs.at(2)?);
        let chosen = which.as_slice::<bool>().ok_or_else(|| wrong_type(which))?;
        if a.datatype() != b.datatype() {
            return Err(format!("{} and {} do not go together", a.datatype(), b.datatype()));
        }
        let common = common_shape(&common_shape(which.shape(), a.shape())?, b.shape())?;
        let (of_which, of_a, of_b) =
            (spread(which.shape(), &common), spread(a.shape(), &common), spread(b.shape(), &common));
        let from_b = a.elements();
        let places = of_which.iter().zip(of_a.iter().zip(&of_b));
        let places = places.map(|(&at, (&a, &b))| if chosen[at] { a } else { from_b + b });
        one(super::shaping::pick(&[a, b], &common, places)?)
    }))
}

/// An operator of one tensor of floats.
fn unary(single: fn(f32) -> f32, double: fn(f64) -> f64) -> Result<Operator, String> {
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        match x.datatype() {
            Datatype::Fp64 => {
                let elements = x.as_slice::<f64>().unwrap_or_default();
                made(x.shape(), elements.iter().map(|&x| double(x)).collect())
            }
            Datatype::Fp32 => {
                let elements = x.as_slice::<f32>().unwrap_or_default();
                made(x.shape(), elements.iter().map(|&x| single(x)).collect())
            }
            _ => Err(wrong_type(x)),
        }
    }))
}

macro_rules! unary {
    ($name:ident, $single:expr, $double:expr) => {
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            unary($single, $double)
        }
    };
}

unary!(exp, f32::exp, f64::exp);
unary!(log, f32::ln, f64::ln);
unary!(sqrt, f32::sqrt, f64::sqrt);
unary!(reciprocal, f32::recip, f64::recip);
unary!(tanh, f32::tanh, f64::tanh);
unary!(floor, f32::floor, f64::floor);
unary!(ceil, f32::ceil, f64::ceil);
unary!(sigmoid, logistic, |x| 1.0 / (1.0 + (-x).exp()));
unary!(relu, |x| if x < 0.0 { 0.0 } else { x }, |x| if x < 0.0 { 0.0 } else { x });

macro_rules! unary_number {
    ($name:ident, $method:ident) => {
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            fn typed<T: Number>(x: &Tensor) -> Result<Outputs, String> {
                let elements = x.as_slice::<T>().unwrap_or_default();
                made(x.shape(), elements.iter().map(|&x| x.$method()).collect())
            }
            Ok(Box::new(|inputs| {
                let x = inputs.at(0)?;
                by_number!(x.datatype(), typed(x), Err(wrong_type(x)))
            }))
        }
    };
}

unary_number!(abs, absolute);
unary_number!(neg, negated);
unary_number!(sign, sign);

pub(super) fn is_nan(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let numbers = x.to_numbers().ok_or_else(|| wrong_type(x))?;
        made(x.shape(), numbers.iter().map(|x| x.is_nan()).collect())
    }))
}

pub(super) fn clip(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (least, most) = (attributes.float("min", f32::MIN)?, attributes.float("max", f32::MAX)?);
    Ok(Box::new(move |inputs| {
        let bound = |at: usize, otherwise: f64| {
            let given = inputs.maybe(at).and_then(Tensor::to_numbers);
            given.and_then(|list| list.first().copied()).unwrap_or(otherwise)
        };
        let x = inputs.at(0)?;
        let (least, most) = (bound(1, f64::from(least)), bound(2, f64::from(most)));
        match x.datatype() {
            Datatype::Fp32 => {
                let elements = x.as_slice::<f32>().unwrap_or_default();
                // nan stays nan.
                let clip = |&x: &f32| {
                    if x < least as f32 {
                        least as f32
                    } else if x > most as f32 {
                        most as f32
                    } else {
                        x
                    }
                };
                made(x.shape(), elements.iter().map(clip).collect())
            }
            Datatype::Fp64 => {
                let elements = x.as_slice::<f64>().unwrap_or_default();
                let clip = |&x: &f64| {
                    if x < least {
                        least
                    } else if x > most {
                        most
                    } else {
                        x
                    }
                };
                made(x.shape(), elements.iter().map(clip).collect())
            }
            Datatype::Int64 | Datatype::Int32 => {
                let elements = super::cast::wholes(x)?;
                let whole = |at: usize| Ok::<_, String>(inputs.wholes(at)?.and_then(|list| list.first().copied()));
                let (least, most) = (whole(1)?.unwrap_or(i64::MIN), whole(2)?.unwrap_or(i64::MAX));
                // Numpy's order: where the bounds cross, the upper one is it.
                let data: Vec<i64> = elements.iter().map(|&x| x.max(least).min(most)).collect();
                one(super::cast::cast_to(&tensor(x.shape(), data)?, x.datatype())?)
            }
            _ => Err(wrong_type(x)),
        }
    }))
}
