//! A dense array with a shape, as it crosses from features to engines.

/// Row-major 32-bit floats. Every dimension is at least 1 and the product equals the length.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Why a shape and its data do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's product and the number of elements differ, or the product overflows.
    #[error("shape {shape:?} does not hold {elements} elements")]
    Elements {
        /// The shape as given.
        shape: Vec<usize>,
        /// How many values there were.
        elements: usize,
    },
}

impl Tensor {
    /// Takes `data` as `shape`, row-major.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Result<Self, TensorError> {
        let product = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        if product == Some(data.len()) && !data.is_empty() {
            Ok(Self { shape, data })
        } else {
            Err(TensorError::Elements { elements: data.len(), shape })
        }
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Shape and elements.
    pub fn into_parts(self) -> (Vec<usize>, Vec<f32>) {
        (self.shape, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_hold_its_data_without_overflow() {
        assert!(Tensor::new(vec![2, 3], vec![0.0; 6]).is_ok());
        assert!(Tensor::new(vec![2, 3], vec![0.0; 5]).is_err());
        assert!(Tensor::new(vec![usize::MAX, 2], vec![0.0; 2]).is_err());
        assert!(Tensor::new(vec![0], vec![]).is_err());
    }
}
