//! Which rows a model is unsure of: the condition of a cascade.

use serde::Deserialize;

use super::config::Limits;
use crate::base::{Datatype, Tensor};

/// What is measured of a row of probabilities p.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// max p.
    Confidence,
    /// The largest p less the second largest; of a single p, |2p - 1|.
    Margin,
    /// -sum p ln p, in nats.
    Entropy,
}

impl Measure {
    /// Whether a large value speaks for doubt.
    pub(super) fn grows_with_doubt(self) -> bool {
        self == Self::Entropy
    }

    fn of(self, row: &[f64]) -> f64 {
        let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &p in row {
            // nan is nothing that anybody could be sure of.
            if p.is_nan() {
                return f64::NAN;
            }
            if p > first {
                (first, second) = (p, first);
            } else if p > second {
                second = p;
            }
        }
        match (self, row) {
            (Self::Confidence, [p]) => p.max(1.0 - p),
            (Self::Confidence, _) => first,
            (Self::Margin, [p]) => (2.0 * p - 1.0).abs(),
            (Self::Margin, _) => first - second,
            (Self::Entropy, [p]) => entropy(*p) + entropy(1.0 - p),
            (Self::Entropy, _) => row.iter().copied().map(entropy).sum(),
        }
    }
}

fn entropy(p: f64) -> f64 {
    if p > 0.0 { -p * p.ln() } else { 0.0 }
}

/// For each row whether it is measured as unsure: below `limit`, or above it where the measure grows with doubt. A row is
/// everything behind the first dimension; a tensor of one dimension has a probability of "yes" in each row.
pub(super) fn unsure(tensor: &Tensor, measure: Measure, limit: f64, limits: &Limits) -> Result<Tensor, String> {
    let &[rows, ref inner @ ..] = tensor.shape() else {
        return Err("a tensor without dimensions has no rows".to_owned());
    };
    limits.holds(Datatype::Bool, &[rows])?;
    let width: usize = inner.iter().product();
    let numbers =
        tensor.to_numbers().ok_or_else(|| format!("probabilities are expected, given {}", tensor.datatype()))?;
    if width == 0 {
        return Err(format!("probabilities are expected, given rows of nothing: {:?}", tensor.shape()));
    }
    let doubted = |row: &[f64]| {
        let measured = measure.of(row);
        measured.is_nan() || if measure.grows_with_doubt() { measured > limit } else { measured < limit }
    };
    Tensor::new([rows], numbers.chunks_exact(width).map(doubted).collect()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(shape: &[usize], values: &[f32], measure: Measure, limit: f64) -> Vec<bool> {
        let tensor = Tensor::new(shape, values.to_vec()).unwrap();
        unsure(&tensor, measure, limit, &Limits::default()).unwrap().as_slice::<bool>().unwrap().to_vec()
    }

    #[test]
    fn each_measure_finds_the_rows_without_a_clear_winner() {
        let rows = [0.9, 0.05, 0.05, 0.5, 0.45, 0.05, 0.6, 0.2, 0.2];
        assert_eq!(marks(&[3, 3], &rows, Measure::Confidence, 0.6), [false, true, false]);
        assert_eq!(marks(&[3, 3], &rows, Measure::Margin, 0.3), [false, true, false]);
        // ln 3 is the most that three classes have; the rows have 0.394, 0.856 and 0.950.
        assert_eq!(marks(&[3, 3], &rows, Measure::Entropy, 0.9), [false, false, true]);
    }

    #[test]
    fn a_single_probability_is_one_of_two_classes_and_nan_is_doubt() {
        assert_eq!(marks(&[3], &[0.1, 0.55, f32::NAN], Measure::Confidence, 0.8), [false, true, true]);
        assert_eq!(marks(&[3, 1], &[0.1, 0.55, f32::NAN], Measure::Margin, 0.5), [false, true, true]);
        assert_eq!(marks(&[3], &[0.1, 0.55, f32::NAN], Measure::Entropy, 0.5), [false, true, true]);
        let none = Tensor::new([2, 0], Vec::<f32>::new()).unwrap();
        assert!(unsure(&none, Measure::Margin, 0.5, &Limits::default()).is_err());
        assert_eq!(marks(&[0, 3], &[], Measure::Margin, 0.5), Vec::<bool>::new());
    }
}
