//! Meanings as vectors: made by somebody else, judged here.

use std::pin::Pin;

/// Most numbers of a vector.
const MAX_NUMBERS: usize = 8192;

/// Turns texts into vectors. Texts that mean the same get vectors of nearly the same direction.
pub trait Embed: Send + Sync {
    /// The model and its version. Vectors under different names are never compared.
    fn name(&self) -> &str;

    /// The vector of `text`.
    fn embed<'a>(&'a self, text: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>>;
}

/// The vector could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to embed a text: {0}")]
pub struct EmbedError(pub String);

/// The vector of length one in the same direction; none for one that has no direction.
pub(super) fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    if vector.is_empty() || vector.len() > MAX_NUMBERS {
        return None;
    }
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return None;
    }
    vector.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_without_direction_is_none() {
        for bad in [vec![], vec![0.0; 3], vec![1.0, f32::NAN], vec![f32::INFINITY, 0.0], vec![1.0; 8193]] {
            assert_eq!(unit(bad), None);
        }
        assert_eq!(unit(vec![3.0, -4.0]), Some(vec![0.6, -0.8]));
        let huge = unit(vec![f32::MAX, f32::MAX]).unwrap();
        assert!((huge[0] - 0.5_f32.sqrt()).abs() < 1e-6);
        let tiny = unit(vec![f32::MIN_POSITIVE, 0.0]).unwrap();
        assert_eq!(tiny, [1.0, 0.0]);
    }
}
