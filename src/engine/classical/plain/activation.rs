//! Functions of one element: activations with their parameters, trigonometry, rounding.

use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::elementwise::{common_shape, spread};
use crate::engine::classical::operators::{Operator, made, one, wrong_type};

use super::{numbers, of};
use crate::base::Datatype;

fn each(function: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Result<Operator, String> {
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let data = numbers(x)?.into_iter().map(&function).collect();
        one(of(x.datatype(), x.shape(), data)?)
    }))
}

macro_rules! functions {
    ($($name:ident: $function:expr),* $(,)?) => {$(
        pub(super) fn $name(_: &Attributes<'_>) -> Result<Operator, String> {
            each($function)
        }
    )*};
}

functions! {
    acos: f64::acos,
    acosh: f64::acosh,
    asin: f64::asin,
    asinh: f64::asinh,
    atan: f64::atan,
    atanh: f64::atanh,
    cos: f64::cos,
    cosh: f64::cosh,
    erf: erf_of,
    hard_swish: |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
    mish: |x: f64| x * softplus_of(x).tanh(),
    round: f64::round_ties_even,
    sin: f64::sin,
    sinh: f64::sinh,
    softplus: softplus_of,
    softsign: |x: f64| x / (1.0 + x.abs()),
    tan: f64::tan,
}

fn softplus_of(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// By its series near zero and its continued fraction outside (Abramowitz and Stegun 7.1.6 and 7.1.14), to 1e-14.
pub(super) fn erf_of(x: f64) -> f64 {
    let a = x.abs();
    let value = if a.is_nan() {
        a
    } else if a > 6.0 {
        1.0
    } else if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        sum * 2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp()
    } else {
        let tail = (1..=60).rev().fold(a, |below, k| a + f64::from(k) / 2.0 / below);
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

/// An attribute's number, or what the specification has without it.
fn number(attributes: &Attributes<'_>, name: &str, default: f32) -> Result<f64, String> {
    attributes.float(name, default).map(f64::from)
}

pub(super) fn celu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let alpha = number(attributes, "alpha", 1.0)?;
    each(move |x| x.max(0.0) + (alpha * (x / alpha).exp_m1()).min(0.0))
}

pub(super) fn elu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let alpha = number(attributes, "alpha", 1.0)?;
    each(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
}

pub(super) fn gelu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    match attributes.text("approximate", "none")? {
        "none" => each(|x| 0.5 * x * (1.0 + erf_of(x * std::f64::consts::FRAC_1_SQRT_2))),
        "tanh" => each(|x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())),
        other => Err(format!("approximate {other:?} is none of ONNX's")),
    }
}

pub(super) fn hard_sigmoid(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (alpha, beta) = (number(attributes, "alpha", 0.2)?, number(attributes, "beta", 0.5)?);
    each(move |x| (alpha * x + beta).clamp(0.0, 1.0))
}

pub(super) fn leaky_relu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let alpha = number(attributes, "alpha", 0.01)?;
    each(move |x| if x < 0.0 { alpha * x } else { x })
}

pub(super) fn selu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (alpha, gamma) = (number(attributes, "alpha", 1.673_263_2)?, number(attributes, "gamma", 1.050_701)?);
    each(move |x| gamma * if x > 0.0 { x } else { alpha * x.exp_m1() })
}

pub(super) fn shrink(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (bias, lambda) = (number(attributes, "bias", 0.0)?, number(attributes, "lambd", 0.5)?);
    each(move |x| {
        if x < -lambda {
            x + bias
        } else if x > lambda {
            x - bias
        } else {
            0.0
        }
    })
}

pub(super) fn thresholded_relu(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let alpha = number(attributes, "alpha", 1.0)?;
    each(move |x| if x > alpha { x } else { 0.0 })
}

/// The slope broadcasts to the input, not the other way round.
pub(super) fn p_relu(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (x, slope) = (inputs.at(0)?, inputs.at(1)?);
        if common_shape(x.shape(), slope.shape())?.as_slice() != x.shape() {
            return Err(format!("a slope of {:?} for {:?}", slope.shape(), x.shape()));
        }
        let (elements, slopes) = (numbers(x)?, numbers(slope)?);
        let places = spread(slope.shape(), x.shape());
        let data = elements.iter().zip(places).map(|(&x, at)| if x < 0.0 { slopes[at] * x } else { x }).collect();
        one(of(x.datatype(), x.shape(), data)?)
    }))
}

pub(super) fn is_inf(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (low, high) = (attributes.whole("detect_negative", 1)? != 0, attributes.whole("detect_positive", 1)? != 0);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let found = |x: f64| x.is_infinite() && if x > 0.0 { high } else { low };
        made(x.shape(), numbers(x)?.into_iter().map(found).collect())
    }))
}

/// The remainder with the divisor's sign, or, as C has it, with the dividend's.
pub(super) fn modulo(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_c = attributes.whole("fmod", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let (a, b) = (inputs.at(0)?, inputs.at(1)?);
        let common = common_shape(a.shape(), b.shape())?;
        let places = || spread(a.shape(), &common).into_iter().zip(spread(b.shape(), &common));
        if a.datatype() != b.datatype() {
            return Err(format!("{} and {} do not go together", a.datatype(), b.datatype()));
        }
        match a.as_slice::<i64>().zip(b.as_slice::<i64>()) {
            Some((left, right)) => {
                if right.contains(&0) {
                    return Err("the remainder of a division by zero".to_owned());
                }
                let remainder = |a: i64, b: i64| {
                    let rest = a.wrapping_rem(b);
                    if is_c || rest == 0 || (rest < 0) == (b < 0) { rest } else { rest + b }
                };
                made(&common, places().map(|(at, bt)| remainder(left[at], right[bt])).collect())
            }
            None => {
                let (left, right) = (numbers(a)?, numbers(b)?);
                let remainder = |a: f64, b: f64| {
                    let rest = a % b;
                    if is_c || rest == 0.0 || (rest < 0.0) == (b < 0.0) { rest } else { rest + b }
                };
                let is_whole = !matches!(a.datatype(), Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64);
                if is_whole && right.contains(&0.0) {
                    return Err("the remainder of a division by zero".to_owned());
                }
                one(of(a.datatype(), &common, places().map(|(at, bt)| remainder(left[at], right[bt])).collect())?)
            }
        }
    }))
}

/// Whole numbers bit by bit.
fn bits(combine: fn(i64, i64) -> i64) -> Result<Operator, String> {
    Ok(Box::new(move |inputs| {
        let (a, b) = (inputs.at(0)?, inputs.at(1)?);
        let common = common_shape(a.shape(), b.shape())?;
        let wholes = crate::engine::classical::cast::wholes;
        if a.datatype() != b.datatype() || matches!(a.datatype(), Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes) {
            return Err(wrong_type(a));
        }
        let (left, right) = (wholes(a)?, wholes(b)?);
        let places = spread(a.shape(), &common).into_iter().zip(spread(b.shape(), &common));
        let data: Vec<i64> = places.map(|(at, bt)| combine(left[at], right[bt])).collect();
        let whole = crate::engine::classical::operators::tensor(&common, data)?;
        one(crate::engine::classical::cast::cast_to(&whole, a.datatype())?)
    }))
}

pub(super) fn bit_and(_: &Attributes<'_>) -> Result<Operator, String> {
    bits(|a, b| a & b)
}

pub(super) fn bit_or(_: &Attributes<'_>) -> Result<Operator, String> {
    bits(|a, b| a | b)
}

pub(super) fn bit_xor(_: &Attributes<'_>) -> Result<Operator, String> {
    bits(|a, b| a ^ b)
}

fn by(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Of unsigned numbers; what is shifted out is gone.
pub(super) fn bit_shift(attributes: &Attributes<'_>) -> Result<Operator, String> {
    match attributes.text("direction", "")? {
        "LEFT" => bits(|a, b| a.cast_unsigned().checked_shl(by(b)).unwrap_or(0).cast_signed()),
        "RIGHT" => bits(|a, b| a.cast_unsigned().checked_shr(by(b)).unwrap_or(0).cast_signed()),
        other => Err(format!("direction {other:?} is none of ONNX's")),
    }
}

pub(super) fn bit_not(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let whole = crate::engine::classical::cast::wholes(x)?.iter().map(|&whole| !whole).collect::<Vec<i64>>();
        let whole = crate::engine::classical::operators::tensor(x.shape(), whole)?;
        one(crate::engine::classical::cast::cast_to(&whole, x.datatype())?)
    }))
}

#[cfg(test)]
mod tests {
    use super::erf_of;

    #[test]
    fn the_error_function_agrees_with_its_tables() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.4, 0.999_311_486_103_354_9),
            (2.6, 0.999_763_965_583_470_7),
            (4.0, 0.999_999_984_582_742_1),
            (f64::INFINITY, 1.0),
        ] {
            assert!((erf_of(x) - expected).abs() < 1e-13, "{x}: {}", erf_of(x));
            assert_eq!(erf_of(-x), -erf_of(x));
        }
        assert!(erf_of(f64::NAN).is_nan());
    }
}
