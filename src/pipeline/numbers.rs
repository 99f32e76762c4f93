//! Steps on numbers: scores of several models into one, scores into classes and decisions, types into others.
//!
//! Computed in 64 bits and given in the type that came. Formulas are those of scipy (`softmax`, `expit`) and numpy (`mean`,
//! `average`, `argmax`).

use std::collections::BTreeMap;

use super::config::Limits;
use super::layout::around;
use super::port::place;
use crate::base::{Datatype, Tensor};

/// Whether elements of this type are floats.
pub(super) fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64)
}

fn floats(tensor: &Tensor) -> Result<Vec<f64>, String> {
    match tensor.to_numbers() {
        Some(numbers) if is_float(tensor.datatype()) => Ok(numbers),
        _ => Err(format!("FP16, FP32 or FP64 are expected, given {}; `cast` comes before", tensor.datatype())),
    }
}

fn like(tensor: &Tensor, numbers: &[f64]) -> Result<Tensor, String> {
    Tensor::of_numbers(tensor.datatype(), tensor.shape(), numbers)
        .ok_or_else(|| format!("the numbers do not fit {}", tensor.datatype()))
}

/// Each element by itself. 32-bit floats, which most are, without a second copy.
fn map(tensor: &Tensor, limits: &Limits, f: impl Fn(usize, f64) -> f64) -> Result<Tensor, String> {
    limits.holds(tensor.datatype(), tensor.shape())?;
    if let Some(numbers) = tensor.as_slice::<f32>() {
        let mapped = numbers.iter().enumerate().map(|(at, &x)| f(at, f64::from(x)) as f32).collect();
        return Tensor::new(tensor.shape(), mapped).map_err(|error| error.to_string());
    }
    let mut numbers = floats(tensor)?;
    numbers.iter_mut().enumerate().for_each(|(at, x)| *x = f(at, *x));
    like(tensor, &numbers)
}

/// 1 / (1 + exp(-x)).
pub(super) fn sigmoid(tensor: &Tensor, limits: &Limits) -> Result<Tensor, String> {
    map(tensor, limits, |_, x| 1.0 / (1.0 + (-x).exp()))
}

/// (x / divide - mean) / std, one number for all or one for each place along `axis`.
pub(super) fn normalise(
    tensor: &Tensor,
    axis: i64,
    divide: f64,
    [mean, std]: [&[f64]; 2],
    limits: &Limits,
) -> Result<Tensor, String> {
    let at = place(axis, tensor.shape().len())?;
    let (_, length, behind) = around(tensor.shape(), at);
    if let Some(given) = [mean, std].into_iter().find(|given| given.len() > 1 && given.len() != length) {
        return Err(format!(
            "{length} numbers are expected for axis {at} of {:?}, given {}",
            tensor.shape(),
            given.len()
        ));
    }
    let of = |given: &[f64], place: usize, usual: f64| match given {
        [] => usual,
        [one] => *one,
        many => many[place],
    };
    map(tensor, limits, |element, x| {
        let place = (element / behind.max(1)) % length.max(1);
        (x / divide - of(mean, place, 0.0)) / of(std, place, 1.0)
    })
}

/// exp(x) / sum of exp along an axis; the largest is taken off first, so that nothing overflows.
pub(super) fn softmax(tensor: &Tensor, axis: i64, limits: &Limits) -> Result<Tensor, String> {
    limits.holds(tensor.datatype(), tensor.shape())?;
    let at = place(axis, tensor.shape().len())?;
    let mut numbers = floats(tensor)?;
    along(tensor.shape(), at, |places| {
        let most = places.clone().map(|at| numbers[at]).fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for at in places.clone() {
            numbers[at] = (numbers[at] - most).exp();
            sum += numbers[at];
        }
        places.for_each(|at| numbers[at] /= sum);
    });
    like(tensor, &numbers)
}

/// The place of the largest along an axis, the first of equal ones; nan is the smallest.
pub(super) fn argmax(tensor: &Tensor, axis: i64, limits: &Limits) -> Result<Tensor, String> {
    let at = place(axis, tensor.shape().len())?;
    let mut shape = tensor.shape().to_vec();
    if shape.remove(at) == 0 {
        return Err(format!("shape {:?} has nothing along axis {at}", tensor.shape()));
    }
    limits.holds(Datatype::Int64, &shape)?;
    let numbers = tensor.to_numbers().ok_or_else(|| format!("numbers are expected, given {}", tensor.datatype()))?;
    let mut largest = Vec::with_capacity(shape.iter().product());
    along(tensor.shape(), at, |places| {
        let rank = |x: f64| if x.is_nan() { f64::NEG_INFINITY } else { x };
        let better = |(best, most): (i64, f64), (index, place): (usize, usize)| {
            let x = rank(numbers[place]);
            if x > most { (index as i64, x) } else { (best, most) }
        };
        largest.push(places.enumerate().fold((0, f64::NEG_INFINITY), better).0);
    });
    Tensor::new(shape, largest).map_err(|error| error.to_string())
}

/// Calls `row` with the places of the elements along `at`, for each place of the other dimensions in order.
fn along(shape: &[usize], at: usize, mut row: impl FnMut(std::iter::StepBy<std::ops::Range<usize>>)) {
    let (before, length, behind) = around(shape, at);
    for outer in 0..before {
        for inner in 0..behind {
            let first = outer * length * behind + inner;
            row((first..first + length * behind).step_by(behind));
        }
    }
}

/// Whether each number is at least `at`. nan is not.
pub(super) fn threshold(tensor: &Tensor, at: f64, limits: &Limits) -> Result<Tensor, String> {
    limits.holds(Datatype::Bool, tensor.shape())?;
    let numbers = tensor.to_numbers().ok_or_else(|| format!("numbers are expected, given {}", tensor.datatype()))?;
    Tensor::new(tensor.shape(), numbers.into_iter().map(|x| x >= at).collect()).map_err(|error| error.to_string())
}

/// The weighted mean of tensors of one shape.
pub(super) fn mean(tensors: &[&Tensor], weights: &[f64], limits: &Limits) -> Result<Tensor, String> {
    let first = alike(tensors)?;
    limits.holds(first.datatype(), first.shape())?;
    let weight = |at: usize| if weights.is_empty() { 1.0 } else { weights[at] };
    let whole: f64 = (0..tensors.len()).map(weight).sum();
    let mut sums = vec![0.0; first.elements()];
    for (at, tensor) in tensors.iter().enumerate() {
        let weight = weight(at) / whole;
        sums.iter_mut().zip(floats(tensor)?).for_each(|(sum, x)| *sum += weight * x);
    }
    like(first, &sums)
}

/// For each element the value that most tensors have there; of equally many the one that stands first.
pub(super) fn vote(tensors: &[&Tensor], limits: &Limits) -> Result<Tensor, String> {
    let first = alike(tensors)?;
    if is_float(first.datatype()) {
        return Err(format!(
            "whole numbers, BOOL or BYTES are expected, given {}; `argmax` comes before",
            first.datatype()
        ));
    }
    let texts: Option<Vec<Vec<&[u8]>>> = tensors.iter().map(|tensor| Some(tensor.texts()?.collect())).collect();
    let size = first.datatype().size_bytes().unwrap_or(1);
    let value = |source: usize, at: usize| match &texts {
        Some(texts) => texts[source][at],
        None => &tensors[source].bytes()[at * size..(at + 1) * size],
    };
    let winner = |at: usize| {
        let mut votes: BTreeMap<&[u8], usize> = BTreeMap::new();
        (0..tensors.len()).for_each(|source| *votes.entry(value(source, at)).or_default() += 1);
        // The first of the largest: `max_by_key` would take the last.
        (1..tensors.len()).fold(
            0,
            |best, source| {
                if votes[value(source, at)] > votes[value(best, at)] { source } else { best }
            },
        )
    };
    let runs = (0..first.elements()).map(|at| (winner(at), at..at + 1));
    super::layout::assemble(tensors, first.shape(), runs, limits)
}

fn alike<'a>(tensors: &[&'a Tensor]) -> Result<&'a Tensor, String> {
    let first = tensors.first().ok_or("no tensors")?;
    match tensors.iter().find(|tensor| tensor.shape() != first.shape() || tensor.datatype() != first.datatype()) {
        None => Ok(first),
        Some(other) => Err(format!(
            "tensors of one type and shape are expected, given {} {:?} and {} {:?}",
            first.datatype(),
            first.shape(),
            other.datatype(),
            other.shape()
        )),
    }
}

/// Elements in another type: floats lose their fraction where whole numbers are wanted, everything but 0 is true. A number
/// that the type does not hold is an error.
pub(super) fn cast(tensor: &Tensor, to: Datatype, limits: &Limits) -> Result<Tensor, String> {
    if tensor.datatype() == to {
        return Ok(tensor.clone());
    }
    limits.holds(to, tensor.shape())?;
    let mut numbers =
        tensor.to_numbers().ok_or_else(|| format!("numbers are expected, given {}", tensor.datatype()))?;
    match to {
        Datatype::Bool => numbers.iter_mut().for_each(|x| *x = f64::from(u8::from(*x != 0.0))),
        _ if is_float(to) => {}
        _ => numbers.iter_mut().for_each(|x| *x = x.trunc()),
    }
    if let Some(cast) = Tensor::of_numbers(to, tensor.shape(), &numbers) {
        return Ok(cast);
    }
    let lost = numbers.iter().position(|&x| Tensor::of_numbers(to, [1], &[x]).is_none()).unwrap_or(0);
    Err(format!("element {lost} is {}, which {to} does not hold", numbers.get(lost).copied().unwrap_or(f64::NAN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::new([1, values.len()], values.to_vec()).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_numbers().unwrap()
    }

    #[test]
    fn averages_are_numpys_and_weights_need_not_add_up() {
        let limits = Limits::default();
        let (a, b) = (row(&[0.2, 0.8]), row(&[0.6, 0.4]));
        let plain = numbers(&mean(&[&a, &b], &[], &limits).unwrap());
        let weighted = numbers(&mean(&[&a, &b], &[3.0, 1.0], &limits).unwrap());
        // numpy.average([.2, .6]), numpy.average([.2, .6], weights=[3, 1])
        for (given, expected) in plain.iter().zip([0.4, 0.6]).chain(weighted.iter().zip([0.3, 0.7])) {
            assert!((given - expected).abs() < 1e-7, "{given} {expected}");
        }
        assert!(mean(&[&a, &row(&[1.0])], &[], &limits).unwrap_err().contains("FP32 [1, 2] and FP32 [1, 1]"));
    }

    #[test]
    fn softmax_sums_to_one_along_any_axis_and_does_not_overflow() {
        let x = Tensor::new([2, 2], vec![1000.0_f32, 1.0, 1000.0, 1.0]).unwrap();
        let columns = softmax(&x, 0, &Limits::default()).unwrap();
        assert_eq!(numbers(&columns), [0.5, 0.5, 0.5, 0.5]);
        let rows = softmax(&x, -1, &Limits::default()).unwrap();
        assert_eq!(numbers(&rows), [1.0, 0.0, 1.0, 0.0]);
        let half = cast(&x, Datatype::Fp16, &Limits::default()).unwrap();
        assert_eq!(softmax(&half, 0, &Limits::default()).unwrap().datatype(), Datatype::Fp16);
        assert!(softmax(&x, 2, &Limits::default()).unwrap_err().contains("axis is 2, the tensor has 2"));
    }

    #[test]
    fn the_largest_is_the_first_of_equal_ones_and_never_nan() {
        let x = Tensor::new([2, 3], vec![f32::NAN, 1.0, 1.0, 5.0, 5.0, 4.0]).unwrap();
        let largest = argmax(&x, -1, &Limits::default()).unwrap();
        assert_eq!((largest.shape(), numbers(&largest)), (&[2][..], vec![1.0, 0.0]));
        assert_eq!(numbers(&argmax(&x, 0, &Limits::default()).unwrap()), [1.0, 1.0, 1.0]);
        let none = Tensor::new([2, 0], Vec::<f32>::new()).unwrap();
        assert!(argmax(&none, 1, &Limits::default()).is_err());
        assert_eq!(argmax(&none, 0, &Limits::default()).unwrap().shape(), [0]);
    }

    #[test]
    fn the_majority_wins_and_of_equal_ones_the_first() {
        let limits = Limits::default();
        let labels = |values: &[i64]| Tensor::new([values.len()], values.to_vec()).unwrap();
        let won = vote(&[&labels(&[3, 7, 1]), &labels(&[3, 8, 2]), &labels(&[4, 8, 3])], &limits).unwrap();
        assert_eq!(numbers(&won), [3.0, 8.0, 1.0]);
        let texts = |text: &str| Tensor::of_texts([1], [text]).unwrap();
        let won = vote(&[&texts("cat"), &texts("dog"), &texts("dog")], &limits).unwrap();
        assert_eq!(won.texts().unwrap().collect::<Vec<_>>(), [b"dog"]);
        assert!(vote(&[&row(&[0.1])], &limits).unwrap_err().contains("`argmax` comes before"));
    }

    #[test]
    fn a_number_that_a_type_does_not_hold_is_named() {
        let limits = Limits::default();
        let x = row(&[1.9, -1.9, 300.0]);
        assert_eq!(numbers(&cast(&x, Datatype::Int16, &limits).unwrap()), [1.0, -1.0, 300.0]);
        assert_eq!(cast(&x, Datatype::Int8, &limits).unwrap_err(), "element 2 is 300, which INT8 does not hold");
        assert!(cast(&row(&[f32::NAN]), Datatype::Int64, &limits).unwrap_err().contains("element 0 is NaN"));
        assert_eq!(numbers(&cast(&row(&[0.0, 0.5]), Datatype::Bool, &limits).unwrap()), [0.0, 1.0]);
        let texts = Tensor::of_texts([1], ["1"]).unwrap();
        assert!(cast(&texts, Datatype::Fp32, &limits).unwrap_err().contains("given BYTES"));
    }

    #[test]
    fn channels_are_normalised_each_by_its_own_numbers() {
        let x = Tensor::new([1, 2, 1, 2], vec![10.0_f32, 20.0, 30.0, 40.0]).unwrap();
        let scaled = normalise(&x, 1, 10.0, [&[1.0, 3.0], &[1.0, 0.5]], &Limits::default()).unwrap();
        assert_eq!(numbers(&scaled), [0.0, 1.0, 0.0, 2.0]);
        let error = normalise(&x, 1, 1.0, [&[1.0, 2.0, 3.0], &[]], &Limits::default()).unwrap_err();
        assert_eq!(error, "2 numbers are expected for axis 1 of [1, 2, 1, 2], given 3");
    }
}
