//! Whether a loaded model gives what its author saw: the samples that come with it, computed by the engine that loaded it.

use super::error::Error;
use super::handle::Loaded;
use super::spec::{NamedTensor, Sample, arrange};
use crate::base::{Datatype, Tensor};

/// Computes sample `number` (from 1) and compares. The error says where the first difference is, and how large the
/// largest is.
pub(super) fn check(model: &Loaded, sample: &Sample, number: usize, tensor_bytes_max: usize) -> Result<(), Error> {
    let inputs = arrange(&model.inputs, sample.inputs.clone(), tensor_bytes_max)?;
    compare(&model.title, model.engine, sample, number, &model.run(&inputs)?)
}

impl Sample {
    /// Whether `outputs`, which `engine` made of the inputs of sample `number` (from 1), are those of the sample.
    pub fn agrees(
        &self,
        model: &str,
        engine: &'static str,
        number: usize,
        outputs: &[NamedTensor],
    ) -> Result<(), Error> {
        compare(model, engine, self, number, outputs)
    }
}

/// Compares what `engine` computed of the sample's inputs.
pub(super) fn compare(
    model: &str,
    engine: &'static str,
    sample: &Sample,
    number: usize,
    outputs: &[NamedTensor],
) -> Result<(), Error> {
    let differs = |output: &str, what: String| Error::Sample {
        model: model.to_owned(),
        engine,
        sample: number,
        output: output.to_owned(),
        what,
    };
    for NamedTensor { name, tensor: expected } in &sample.outputs {
        let Some(given) = outputs.iter().find(|output| output.name == *name) else {
            return Err(differs(name, "it is no output that is computed".to_owned()));
        };
        if let Some(what) = difference(expected, &given.tensor, sample) {
            return Err(differs(name, what));
        }
    }
    Ok(())
}

/// None if `given` is `expected` within the sample's tolerances.
fn difference(expected: &Tensor, given: &Tensor, sample: &Sample) -> Option<String> {
    let shown = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
    if expected.datatype() != given.datatype() || expected.shape() != given.shape() {
        return Some(format!("expected {}, given {}", shown(expected), shown(given)));
    }
    if let Some((left, right)) = expected.texts().zip(given.texts()) {
        let (at, (left, right)) = left.zip(right).enumerate().find(|(_, (left, right))| left != right)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
        return Some(format!("element {at}: expected {:?}, given {:?}", text(left), text(right)));
    }
    // Whole numbers beyond 2^53 are compared as they are.
    if expected.bytes() == given.bytes() {
        return None;
    }
    let (left, right) = (expected.to_numbers()?, given.to_numbers()?);
    let (tolerance, relative) = (f64::from(sample.tolerance), f64::from(sample.relative_tolerance));
    let close = |expected: f64, given: f64| {
        // Infinities are only themselves, and nan is nan; any other nan is a difference.
        expected == given
            || (expected.is_nan() && given.is_nan())
            || (expected.is_finite() && (given - expected).abs() <= tolerance + relative * expected.abs())
    };
    let mut first = None;
    let (mut count, mut largest) = (0_usize, 0.0_f64);
    for (at, (&expected, &given)) in left.iter().zip(&right).enumerate() {
        if !close(expected, given) {
            first.get_or_insert((at, expected, given));
            count += 1;
            let by = (given - expected).abs();
            largest = if by.is_nan() { f64::NAN } else { largest.max(by) };
        }
    }
    let exact = || {
        // Equal as 64-bit floats and different as they are: only whole numbers of 64 bits can be.
        let whole = matches!(expected.datatype(), Datatype::Int64 | Datatype::Uint64);
        whole.then(|| "whole numbers beyond 2^53 differ".to_owned())
    };
    let Some((at, expected, given)) = first else { return exact().filter(|_| tolerance == 0.0 && relative == 0.0) };
    // As the 32-bit numbers that they mostly are, short.
    let relative = if relative > 0.0 { format!(" + {} of the expected", relative as f32) } else { String::new() };
    Some(format!(
        "element {at}: expected {expected}, given {given} (tolerance {}{relative}); {count} of {} differ, by at most \
         {largest}",
        tolerance as f32,
        left.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tolerance: f32, relative_tolerance: f32) -> Sample {
        Sample { inputs: Vec::new(), outputs: Vec::new(), tolerance, relative_tolerance }
    }

    fn floats(values: &[f32]) -> Tensor {
        Tensor::new([values.len()], values.to_vec()).unwrap()
    }

    #[test]
    fn a_difference_says_where_what_and_how_much() {
        let (expected, given) = (floats(&[1.0, 2.0, 4.0]), floats(&[1.0, 2.5, 3.0]));
        let what = difference(&expected, &given, &sample(0.25, 0.0)).unwrap();
        assert_eq!(what, "element 1: expected 2, given 2.5 (tolerance 0.25); 2 of 3 differ, by at most 1");
        assert_eq!(difference(&expected, &given, &sample(0.0, 0.25)), None);
        assert_eq!(difference(&expected, &given, &sample(1.0, 0.0)), None);
        let row = given.reshaped([1, 3]).unwrap();
        let shape = difference(&expected, &row, &sample(9.0, 0.0)).unwrap();
        assert_eq!(shape, "expected FP32 [3], given FP32 [1, 3]");
    }

    #[test]
    fn nan_and_infinity_are_only_themselves_whatever_the_tolerance() {
        let wide = sample(f32::MAX, 1.0);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(difference(&floats(&[odd]), &floats(&[odd]), &wide), None);
            assert!(difference(&floats(&[odd]), &floats(&[1.0]), &wide).is_some());
            assert!(difference(&floats(&[1.0]), &floats(&[odd]), &wide).is_some());
        }
    }

    #[test]
    fn texts_and_large_whole_numbers_are_exact() {
        let texts = |texts: [&str; 2]| Tensor::of_texts([2], texts).unwrap();
        let what = difference(&texts(["low", "high"]), &texts(["low", "mid"]), &sample(9.0, 9.0)).unwrap();
        assert_eq!(what, "element 1: expected \"high\", given \"mid\"");
        let whole = |number: i64| Tensor::new([1], vec![number]).unwrap();
        assert!(difference(&whole(1 << 53), &whole((1 << 53) + 1), &sample(0.0, 0.0)).is_some());
        assert_eq!(difference(&whole(1 << 53), &whole((1 << 53) + 1), &sample(1.0, 0.0)), None);
    }
}
