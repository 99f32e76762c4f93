//! Whether two versions give the same.

use crate::base::Tensor;
use crate::engine::NamedTensor;

/// How an answer compares with another one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// The largest absolute difference of a number in both.
    pub(super) largest: f64,
    /// The first difference that is one: which output, where, what was expected and what came.
    pub(super) differs: Option<String>,
}

/// How `given` compares with `expected`, output by output. Numbers may differ by `tolerance` and by the part `relative` of
/// the expected one; nan is nan, and whatever `given` has beyond is no difference.
pub(super) fn compare(expected: &[NamedTensor], given: &[NamedTensor], tolerance: f64, relative: f64) -> Comparison {
    let mut all = Comparison { largest: 0.0, differs: None };
    for NamedTensor { name, tensor } in expected {
        let (largest, differs) = match given.iter().find(|output| output.name == *name) {
            None => (0.0, Some("it is no output of this version".to_owned())),
            Some(output) => difference(tensor, &output.tensor, tolerance, relative),
        };
        all.largest = all.largest.max(largest);
        all.differs = all.differs.or(differs.map(|what| format!("output {name}: {what}")));
    }
    all
}

fn difference(expected: &Tensor, given: &Tensor, tolerance: f64, relative: f64) -> (f64, Option<String>) {
    let shown = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
    if expected.datatype() != given.datatype() || expected.shape() != given.shape() {
        return (0.0, Some(format!("expected {}, given {}", shown(expected), shown(given))));
    }
    // Whole numbers beyond 2^53 are compared as they are.
    if expected.bytes() == given.bytes() {
        return (0.0, None);
    }
    if let Some((left, right)) = expected.texts().zip(given.texts()) {
        let differs = left.zip(right).enumerate().find(|(_, (left, right))| left != right);
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
        let what = |(at, (left, right)): (usize, (&[u8], &[u8]))| {
            format!("element {at}: expected {:?}, given {:?}", text(left), text(right))
        };
        return (0.0, differs.map(what));
    }
    let (left, right) = (expected.to_numbers().unwrap_or_default(), given.to_numbers().unwrap_or_default());
    let (mut largest, mut first) = (0.0_f64, None);
    for (at, (expected, given)) in left.into_iter().zip(right).enumerate() {
        let apart = (expected - given).abs();
        if apart.is_finite() {
            largest = largest.max(apart);
        }
        let same = expected == given
            || (expected.is_nan() && given.is_nan())
            || apart <= tolerance + relative * expected.abs().min(f64::MAX);
        if !same && first.is_none() {
            first = Some(format!("element {at}: expected {expected}, given {given}"));
        }
    }
    (largest, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(name: &str, tensor: Tensor) -> Vec<NamedTensor> {
        vec![NamedTensor::new(name, tensor)]
    }

    fn numbers(values: &[f64]) -> Vec<NamedTensor> {
        outputs("y", Tensor::new([values.len()], values.to_vec()).unwrap())
    }

    #[test]
    fn numbers_are_the_same_within_the_tolerances() {
        let same = compare(&numbers(&[1.0, -200.0]), &numbers(&[1.5, -201.5]), 0.5, 0.01);
        assert_eq!(same, Comparison { largest: 1.5, differs: None });
        let other = compare(&numbers(&[1.0, -200.0]), &numbers(&[1.0, -203.0]), 0.5, 0.01);
        let says = "output y: element 1: expected -200, given -203";
        assert_eq!(other, Comparison { largest: 3.0, differs: Some(says.to_owned()) });
    }

    #[test]
    fn nan_is_nan_and_infinity_only_itself() {
        let odd = numbers(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(compare(&odd, &odd.clone(), 0.0, 0.0).differs, None);
        for other in [[0.0, f64::INFINITY], [f64::NAN, 1e300], [f64::NAN, f64::NEG_INFINITY]] {
            let given = numbers(&[other[0], other[1], f64::NEG_INFINITY]);
            let comparison = compare(&odd, &given, 1.0, 1.0);
            assert!(comparison.differs.is_some() && comparison.largest == 0.0, "{comparison:?}");
        }
    }

    #[test]
    fn types_shapes_texts_and_outputs_that_are_missing_are_differences() {
        let texts = |texts: [&str; 2]| outputs("y", Tensor::of_texts([2], texts).unwrap());
        let single = outputs("y", Tensor::new([2], vec![1.0_f32, 2.0]).unwrap());
        let column = outputs("y", Tensor::new([2, 1], vec![1.0_f64, 2.0]).unwrap());
        for (expected, given, says) in [
            (texts(["ok", "low"]), texts(["ok", "high"]), "element 1: expected \"low\", given \"high\""),
            (numbers(&[1.0, 2.0]), single, "expected FP64 [2], given FP32 [2]"),
            (numbers(&[1.0, 2.0]), column, "expected FP64 [2], given FP64 [2, 1]"),
            (
                numbers(&[1.0]),
                outputs("z", Tensor::new([1], vec![1.0_f64]).unwrap()),
                "it is no output of this version",
            ),
        ] {
            let differs = compare(&expected, &given, 1e9, 1e9).differs.unwrap();
            assert!(differs.contains(says), "{differs}");
        }
        assert_eq!(compare(&texts(["a", "b"]), &texts(["a", "b"]), 0.0, 0.0).differs, None);
        assert_eq!(compare(&[], &numbers(&[1.0]), 0.0, 0.0).differs, None, "more outputs are no difference");
    }
}
