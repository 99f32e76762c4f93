//! Features to the tensor that a model was trained on.

use super::error::Error;
use crate::base::Tensor;

/// How a model's input was scaled in training. Statistics are one number for all features or one each.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Normalise {
    /// Features as they are.
    #[default]
    None,
    /// (x - mean) / std
    Zscore {
        /// Mean in training.
        mean: Vec<f64>,
        /// Standard deviation in training.
        std: Vec<f64>,
    },
    /// (x - min) / (max - min), not clipped: what lies outside of training stays outside of 0 to 1.
    MinMax {
        /// Smallest value in training.
        min: Vec<f64>,
        /// Largest value in training.
        max: Vec<f64>,
    },
}

/// Applies a [`Normalise`]. Every form is x * scale + shift.
#[derive(Debug, Clone, PartialEq)]
pub struct Normaliser {
    scale: Vec<f64>,
    shift: Vec<f64>,
    shape: Vec<usize>,
}

impl Normaliser {
    /// `shape` is the tensor's, its product the number of features; statistics hold 1 or that many numbers.
    ///
    /// # Errors
    /// [`Error::Setting`] for a spread of 0 or statistics that are not finite; [`Error::Statistics`] where lengths differ.
    pub fn new(normalise: &Normalise, shape: Vec<usize>) -> Result<Self, Error> {
        let (offset, spread) = match normalise {
            Normalise::None => (vec![0.0], vec![1.0]),
            Normalise::Zscore { mean, std } => (mean.clone(), std.clone()),
            Normalise::MinMax { min, max } => (min.clone(), max.iter().zip(min).map(|(max, min)| max - min).collect()),
        };
        let features = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).unwrap_or(usize::MAX);
        for statistics in [offset.len(), spread.len()] {
            if statistics != 1 && statistics != features {
                return Err(Error::Statistics { features, statistics });
            }
        }
        if offset.len() != spread.len() || matches!(normalise, Normalise::MinMax { min, max } if min.len() != max.len())
        {
            return Err(Error::setting("normalise", "its two lists have different lengths"));
        }
        if let Some(at) = spread.iter().position(|spread| !(spread.is_finite() && *spread > 0.0)) {
            let problem = format!("entry {at} has a spread of {}: nothing can be scaled by it", spread[at]);
            return Err(Error::setting("normalise", problem));
        }
        if let Some(at) = offset.iter().position(|offset| !offset.is_finite()) {
            return Err(Error::setting("normalise", format!("entry {at} is not finite")));
        }
        let scale: Vec<f64> = spread.iter().map(|spread| 1.0 / spread).collect();
        let shift = offset.iter().zip(&scale).map(|(offset, scale)| -offset * scale).collect();
        Ok(Self { scale, shift, shape })
    }

    /// Scales in place and takes the vector as the tensor's data. NaN stays NaN.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features do not fill the shape.
    pub fn apply(&self, mut features: Vec<f32>) -> Result<Tensor, Error> {
        if let ([scale], [shift]) = (self.scale.as_slice(), self.shift.as_slice()) {
            for value in &mut features {
                *value = (f64::from(*value) * scale + shift) as f32;
            }
        } else {
            if features.len() != self.scale.len() {
                return Err(Error::Statistics { features: features.len(), statistics: self.scale.len() });
            }
            for ((value, scale), shift) in features.iter_mut().zip(&self.scale).zip(&self.shift) {
                *value = (f64::from(*value) * scale + shift) as f32;
            }
        }
        Ok(Tensor::new(&self.shape, features)?)
    }

    /// A normalised value of feature `at` back in the feature's own unit, for pages and alerts.
    pub fn restore(&self, at: usize, value: f64) -> f64 {
        let at = if self.scale.len() == 1 { 0 } else { at };
        (value - self.shift[at]) / self.scale[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zscore_and_minmax_scale_as_in_training() {
        let zscore = Normalise::Zscore { mean: vec![88.421889], std: vec![9.364233] };
        let normaliser = Normaliser::new(&zscore, vec![1, 2]).unwrap();
        let tensor = normaliser.apply(vec![88.421_89, 97.786_12]).unwrap();
        assert_eq!(tensor.shape(), [1, 2]);
        let data = tensor.as_slice::<f32>().unwrap();
        assert!(data[0].abs() < 1e-6 && (data[1] - 1.0).abs() < 1e-6);
        assert!((normaliser.restore(1, 1.0) - 97.786122).abs() < 1e-9);
        let minmax = Normalise::MinMax { min: vec![0.0, -10.0], max: vec![1.0, 10.0] };
        let tensor = Normaliser::new(&minmax, vec![2]).unwrap().apply(vec![2.0, 0.0]).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [2.0, 0.5]);
        let none = Normaliser::new(&Normalise::None, vec![3]).unwrap();
        assert_eq!(none.apply(vec![1.5, f32::NAN, 2.0]).unwrap().to_numbers().unwrap()[2], 2.0);
    }

    #[test]
    fn statistics_that_cannot_scale_are_refused() {
        let zscore = |mean: &[f64], std: &[f64]| Normalise::Zscore { mean: mean.to_vec(), std: std.to_vec() };
        for wrong in [
            zscore(&[0.0], &[0.0]),
            zscore(&[0.0], &[f64::NAN]),
            zscore(&[f64::INFINITY], &[1.0]),
            zscore(&[0.0, 0.0], &[1.0]),
            zscore(&[0.0; 3], &[1.0; 3]),
            zscore(&[], &[]),
            Normalise::MinMax { min: vec![1.0], max: vec![1.0] },
            Normalise::MinMax { min: vec![0.0, 0.0], max: vec![1.0] },
        ] {
            assert!(Normaliser::new(&wrong, vec![2]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn features_that_do_not_fill_the_shape_are_refused() {
        let normaliser = Normaliser::new(&Normalise::None, vec![1, 3]).unwrap();
        assert!(matches!(normaliser.apply(vec![0.0; 2]), Err(Error::Shape(_))));
        let each = Normalise::Zscore { mean: vec![0.0; 3], std: vec![1.0; 3] };
        assert!(Normaliser::new(&each, vec![3]).unwrap().apply(vec![0.0; 4]).is_err());
    }
}
