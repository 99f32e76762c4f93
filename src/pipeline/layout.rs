//! Elements put together anew, whatever their type: what a step gives is a sequence of runs of elements of what it reads.

use std::ops::Range;

use bytes::BytesMut;

use super::config::Limits;
use super::port::place;
use crate::base::Tensor;

/// A tensor of `shape` whose elements are the `runs`: of which source, from where to where. All sources have one element
/// type. A single run of a type of a fixed size is no copy.
pub(super) fn assemble(
    sources: &[&Tensor],
    shape: &[usize],
    runs: impl IntoIterator<Item = (usize, Range<usize>)>,
    limits: &Limits,
) -> Result<Tensor, String> {
    let datatype = sources.first().ok_or("nothing to put together")?.datatype();
    if let Some(other) = sources.iter().find(|source| source.datatype() != datatype) {
        return Err(format!("tensors of one type are expected, given {datatype} and {}", other.datatype()));
    }
    let failed = |error: crate::base::TensorError| error.to_string();
    let Some(size) = datatype.size_bytes() else {
        let texts: Vec<Vec<&[u8]>> =
            sources.iter().map(|source| source.texts().into_iter().flatten().collect()).collect();
        let taken: Vec<&[u8]> =
            runs.into_iter().flat_map(|(source, range)| texts[source][range].iter().copied()).collect();
        limits.holds_bytes(taken.iter().map(|text| text.len() + 4).sum())?;
        return Tensor::of_texts(shape, taken).map_err(failed);
    };
    limits.holds(datatype, shape)?;
    let mut runs = runs.into_iter().peekable();
    let first = runs.next();
    if let (Some((source, range)), None) = (&first, runs.peek()) {
        let bytes = sources[*source].bytes().slice(range.start * size..range.end * size);
        return Tensor::from_bytes(datatype, shape, bytes).map_err(failed);
    }
    let mut bytes = BytesMut::with_capacity(shape.iter().product::<usize>() * size);
    for (source, range) in first.into_iter().chain(runs) {
        bytes.extend_from_slice(&sources[source].bytes()[range.start * size..range.end * size]);
    }
    Tensor::from_bytes(datatype, shape, bytes.freeze()).map_err(failed)
}

/// Elements before, at and behind a dimension.
pub(super) fn around(shape: &[usize], at: usize) -> (usize, usize, usize) {
    (shape[..at].iter().product(), shape[at], shape[at + 1..].iter().product())
}

/// A place along a dimension of `length` that may be counted from the end, held inside of it.
pub(super) fn bound(given: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if given < 0 { given.saturating_add(length) } else { given };
    usize::try_from(at.clamp(0, length)).unwrap_or(0)
}

/// `from` up to `to` of a dimension, as Python slices.
pub(super) fn slice(tensor: &Tensor, axis: i64, from: i64, to: Option<i64>, limits: &Limits) -> Result<Tensor, String> {
    let at = place(axis, tensor.shape().len())?;
    let (before, length, behind) = around(tensor.shape(), at);
    let (from, to) = (bound(from, length), to.map_or(length, |to| bound(to, length)));
    let kept = to.saturating_sub(from);
    let mut shape = tensor.shape().to_vec();
    shape[at] = kept;
    let run = |row: usize| {
        let start = (row * length + from) * behind;
        (0, start..start + kept * behind)
    };
    assemble(&[tensor], &shape, (0..before).map(run), limits)
}

/// One behind the other along a dimension that they have.
pub(super) fn concat(tensors: &[&Tensor], axis: i64, limits: &Limits) -> Result<Tensor, String> {
    let first = tensors.first().ok_or("nothing to put together")?;
    let at = place(axis, first.shape().len())?;
    let mut shape = first.shape().to_vec();
    for tensor in &tensors[1..] {
        let given = tensor.shape();
        let alike = given.len() == shape.len() && (0..shape.len()).all(|dim| dim == at || given[dim] == shape[dim]);
        if !alike {
            return Err(format!(
                "shapes that differ in axis {at} only are expected, given {:?} and {given:?}",
                first.shape()
            ));
        }
    }
    shape[at] = tensors.iter().fold(0_usize, |sum, tensor| sum.saturating_add(tensor.shape()[at]));
    let (before, ..) = around(first.shape(), at);
    let runs = (0..before).flat_map(|row| {
        tensors.iter().enumerate().map(move |(source, tensor)| {
            let (_, length, behind) = around(tensor.shape(), at);
            (source, row * length * behind..(row + 1) * length * behind)
        })
    });
    assemble(tensors, &shape, runs, limits)
}

/// One behind the other along a new dimension.
pub(super) fn stack(tensors: &[&Tensor], axis: i64, limits: &Limits) -> Result<Tensor, String> {
    let first = tensors.first().ok_or("nothing to put together")?;
    let at = place(axis, first.shape().len() + 1)?;
    if let Some(other) = tensors.iter().find(|tensor| tensor.shape() != first.shape()) {
        return Err(format!("tensors of one shape are expected, given {:?} and {:?}", first.shape(), other.shape()));
    }
    let (before, behind): (usize, usize) = (first.shape()[..at].iter().product(), first.shape()[at..].iter().product());
    let mut shape = first.shape().to_vec();
    shape.insert(at, tensors.len());
    let runs =
        (0..before).flat_map(|row| (0..tensors.len()).map(move |source| (source, row * behind..(row + 1) * behind)));
    assemble(tensors, &shape, runs, limits)
}

/// Dimensions in another order: the first of the result is dimension `order[0]`.
pub(super) fn transpose(tensor: &Tensor, order: &[usize], limits: &Limits) -> Result<Tensor, String> {
    let shape = tensor.shape();
    if order.len() != shape.len() {
        return Err(format!("order names {} dimensions, the tensor has {}", order.len(), shape.len()));
    }
    let mut strides = vec![1_usize; shape.len()];
    for at in (0..shape.len().saturating_sub(1)).rev() {
        strides[at] = strides[at + 1] * shape[at + 1];
    }
    let turned: Vec<usize> = order.iter().map(|&dim| shape[dim]).collect();
    let elements = tensor.elements();
    let mut index = vec![0_usize; shape.len()];
    let runs = (0..elements).map(|_| {
        let from: usize = index.iter().zip(order).map(|(&at, &dim)| at * strides[dim]).sum();
        for at in (0..index.len()).rev() {
            index[at] += 1;
            if index[at] < turned[at] {
                break;
            }
            index[at] = 0;
        }
        (0, from..from + 1)
    });
    assemble(&[tensor], &turned, runs, limits)
}

/// The same elements in another shape: one dimension of -1 takes what is left, 0 keeps the one that is there.
pub(super) fn reshape(tensor: &Tensor, wanted: &[i64]) -> Result<Tensor, String> {
    let given = tensor.shape();
    let wrong = || format!("shape {wanted:?} does not hold the {} elements of {given:?}", tensor.elements());
    let kept = |(at, &dim): (usize, &i64)| match dim {
        0 => given.get(at).copied().map(Some).ok_or_else(wrong),
        -1 => Ok(None),
        _ => usize::try_from(dim).map(Some).map_err(|_| wrong()),
    };
    let dims = wanted.iter().enumerate().map(kept).collect::<Result<Vec<_>, _>>()?;
    let fixed = dims.iter().flatten().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).ok_or_else(wrong)?;
    let rest = tensor.elements().checked_div(fixed).unwrap_or(0);
    let shape: Vec<usize> = dims.into_iter().map(|dim| dim.unwrap_or(rest)).collect();
    tensor.clone().reshaped(shape).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor::new(shape, (0..shape.iter().product::<usize>()).map(|at| at as f32).collect()).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_numbers().unwrap()
    }

    #[test]
    fn slices_concatenations_and_stacks_are_those_of_numpy() {
        let (limits, x) = (Limits::default(), tensor(&[2, 3]));
        let columns = slice(&x, -1, 1, None, &limits).unwrap();
        assert_eq!((columns.shape(), numbers(&columns)), (&[2, 2][..], vec![1.0, 2.0, 4.0, 5.0]));
        assert_eq!(numbers(&slice(&x, 1, -1, None, &limits).unwrap()), [2.0, 5.0]);
        assert_eq!(slice(&x, 0, 5, None, &limits).unwrap().shape(), [0, 3]);
        let wide = concat(&[&x, &columns], 1, &limits).unwrap();
        assert_eq!((wide.shape(), numbers(&wide)[..5].to_vec()), (&[2, 5][..], vec![0.0, 1.0, 2.0, 1.0, 2.0]));
        assert!(concat(&[&x, &columns], 0, &limits).unwrap_err().contains("given [2, 3] and [2, 2]"));
        let stacked = stack(&[&x, &x], -1, &limits).unwrap();
        assert_eq!((stacked.shape(), numbers(&stacked)[..4].to_vec()), (&[2, 3, 2][..], vec![0.0, 0.0, 1.0, 1.0]));
    }

    #[test]
    fn rows_of_the_first_dimension_are_sliced_without_a_copy_and_texts_as_well() {
        let (limits, x) = (Limits::default(), tensor(&[3, 2]));
        let last = slice(&x, 0, 2, None, &limits).unwrap();
        assert_eq!(last.bytes().as_ptr(), x.bytes()[16..].as_ptr());
        let texts = Tensor::of_texts([3, 1], ["a", "bc", ""]).unwrap();
        let middle = slice(&texts, 0, 1, Some(2), &limits).unwrap();
        assert_eq!(middle.texts().unwrap().collect::<Vec<_>>(), [b"bc"]);
        let turned = transpose(&texts, &[1, 0], &limits).unwrap();
        assert_eq!((turned.shape(), turned.texts().unwrap().count()), (&[1, 3][..], 3));
    }

    #[test]
    fn dimensions_are_turned_as_numpy_turns_them() {
        let turned = transpose(&tensor(&[2, 3, 2]), &[2, 0, 1], &Limits::default()).unwrap();
        assert_eq!(turned.shape(), [2, 2, 3]);
        assert_eq!(numbers(&turned), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
        assert_eq!(transpose(&tensor(&[0, 3]), &[1, 0], &Limits::default()).unwrap().shape(), [3, 0]);
    }

    #[test]
    fn a_reshape_shares_its_bytes_and_says_what_does_not_fit() {
        let x = tensor(&[2, 1, 3]);
        let flat = reshape(&x, &[0, -1]).unwrap();
        assert_eq!((flat.shape(), flat.bytes().as_ptr()), (&[2, 3][..], x.bytes().as_ptr()));
        assert_eq!(reshape(&tensor(&[0, 1, 3]), &[-1, 3]).unwrap().shape(), [0, 3]);
        assert!(reshape(&x, &[4, -1]).unwrap_err().contains("does not hold the 6 elements of [2, 1, 3]"));
        assert!(reshape(&x, &[i64::MAX, i64::MAX]).is_err());
        assert!(reshape(&x, &[1, 1, 6, 0]).is_err());
    }

    #[test]
    fn what_would_be_larger_than_the_bound_is_not_made() {
        let limits = Limits { tensor_bytes_max: 40, ..Limits::default() };
        let x = tensor(&[2, 3]);
        let error = concat(&[&x, &x], 0, &limits).unwrap_err();
        assert_eq!(error, "it would make FP32 [4, 3] of 48 bytes, the most is 40 (limits.tensor_bytes_max)");
        let texts = Tensor::of_texts([1], ["x".repeat(30)]).unwrap();
        assert!(concat(&[&texts, &texts], 0, &limits).unwrap_err().contains("68 bytes"));
        assert!(limits.holds(Datatype::Fp64, &[usize::MAX, 2]).is_err());
    }
}
