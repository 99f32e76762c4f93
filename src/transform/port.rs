//! A model's tensor as the steps see it, and numbers that fill it.

use std::borrow::Cow;

use super::error::Error;
use crate::base::{Datatype, Tensor};

/// An input or output of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first; -1 is free. The first is the batch where there are more.
    pub shape: Vec<i64>,
    /// What its elements are called.
    pub labels: Vec<String>,
    /// Unit of its elements.
    pub unit: Option<String>,
}

impl Port {
    /// Elements of one item, if all dimensions but the batch are fixed.
    pub(super) fn row_elements(&self) -> Option<usize> {
        self.inner().iter().try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
    }

    /// The dimensions of one item. A tensor of one dimension is one item, or a number for each.
    pub(super) fn inner(&self) -> &[i64] {
        match self.shape.as_slice() {
            [-1] => &[],
            [only] => std::slice::from_ref(only),
            [_, inner @ ..] => inner,
            [] => &[],
        }
    }

    /// Whether several items can be computed at once.
    pub(super) fn has_free_batch(&self) -> bool {
        self.shape.first() == Some(&-1)
    }

    /// The shape in which `elements` are one item. None if they do not fill it.
    pub(super) fn row_shape(&self, elements: usize) -> Option<Vec<usize>> {
        let mut dims: Vec<Option<usize>> = self.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        if self.has_free_batch() && dims.len() > 1 {
            dims[0] = Some(1);
        }
        let fixed = dims.iter().flatten().product::<usize>().max(1);
        // One free dimension takes what is left, further ones are 1.
        if let Some(free) = dims.iter_mut().rev().find(|dim| dim.is_none()) {
            *free = Some(elements / fixed);
        }
        let shape: Vec<usize> = dims.into_iter().map(|dim| dim.unwrap_or(1)).collect();
        (shape.iter().product::<usize>() == elements).then_some(shape)
    }

    /// Whether a tensor of this shape may stand here.
    pub(super) fn admits(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(&dim, &given)| dim == -1 || usize::try_from(dim) == Ok(given))
    }
}

/// Numbers as one item of this tensor.
pub(super) fn fill(port: &Port, numbers: &[f64], what: &str) -> Result<Tensor, Error> {
    let shape = port.row_shape(numbers.len()).ok_or_else(|| {
        Error::content(what, format!("values that fill {:?}", port.shape), format!("{} values", numbers.len()))
    })?;
    Tensor::of_numbers(port.datatype, shape, numbers).ok_or_else(|| {
        let odd = numbers.iter().find(|&&number| Tensor::of_numbers(port.datatype, [1], &[number]).is_none());
        let given = odd.map_or_else(|| "others".to_owned(), ToString::to_string);
        Error::content(what, format!("values of {} for tensor {:?}", port.datatype, port.name), given)
    })
}

/// Every number as a 32-bit float, without a copy where they are. None for texts.
pub(super) fn floats(tensor: &Tensor) -> Option<Cow<'_, [f32]>> {
    if let Some(numbers) = tensor.as_slice::<f32>() {
        return Some(Cow::Borrowed(numbers));
    }
    Some(Cow::Owned(tensor.to_numbers()?.into_iter().map(|number| number as f32).collect()))
}
