//! Rows of the first dimension: marked, taken out, put back into their places.

use super::config::Limits;
use super::layout::{assemble, concat};
use crate::base::Tensor;

/// Which rows `mask` marks, a BOOL `[rows]`, or `[rows, 1]` as some models give it.
pub fn marked(mask: &Tensor) -> Result<Vec<usize>, String> {
    let (Some(marks), [_] | [_, 1]) = (mask.as_slice::<bool>(), mask.shape()) else {
        return Err(format!("a mask is BOOL [rows], given {} {:?}", mask.datatype(), mask.shape()));
    };
    Ok(marks.iter().enumerate().filter(|(_, mark)| **mark).map(|(row, _)| row).collect())
}

/// The rows `rows` of a tensor, in that order. All of them in theirs, and a single run of them, cost no copy.
pub fn pick(tensor: &Tensor, rows: &[usize], limits: &Limits) -> Result<Tensor, String> {
    let Some((&there, inner)) = tensor.shape().split_first() else {
        return Err("a tensor without dimensions has no rows".to_owned());
    };
    if let Some(row) = rows.iter().find(|row| **row >= there) {
        return Err(format!("row {row} is wanted, the tensor has {there}"));
    }
    let width: usize = inner.iter().product();
    let shape = [&[rows.len()], inner].concat();
    let runs = runs(rows).into_iter().map(|(from, to)| (0, from * width..to * width));
    assemble(&[tensor], &shape, runs, limits)
}

/// `tensor` with the rows `rows` replaced by those of `new`, one for each.
pub fn put(tensor: &Tensor, rows: &[usize], new: &Tensor, limits: &Limits) -> Result<Tensor, String> {
    let (Some((&there, inner)), Some((&fresh, other))) = (tensor.shape().split_first(), new.shape().split_first())
    else {
        return Err("a tensor without dimensions has no rows".to_owned());
    };
    if fresh != rows.len() || inner != other || rows.iter().any(|&row| row >= there) {
        return Err(format!("{} rows are to be put into {:?}, given {:?}", rows.len(), tensor.shape(), new.shape()));
    }
    if rows.len() == there {
        // All of them, in their order: nothing of the old ones is left.
        return Ok(new.clone());
    }
    let width: usize = inner.iter().product();
    let mut from = vec![None; there];
    rows.iter().enumerate().for_each(|(at, &row)| from[row] = Some(at));
    let run = |(row, from): (usize, Option<usize>)| match from {
        Some(at) => (1, at * width..(at + 1) * width),
        None => (0, row * width..(row + 1) * width),
    };
    assemble(&[tensor, new], tensor.shape(), from.into_iter().enumerate().map(run), limits)
}

/// Rows of several tensors one behind the other.
pub fn join(tensors: &[&Tensor], limits: &Limits) -> Result<Tensor, String> {
    match tensors {
        [only] => Ok((*only).clone()),
        _ => concat(tensors, 0, limits),
    }
}

/// Rows that follow each other, as ranges.
fn runs(rows: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &row in rows {
        match runs.last_mut() {
            Some((_, to)) if *to == row => *to += 1,
            _ => runs.push((row, row + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[f32]) -> Tensor {
        Tensor::new([values.len(), 1], values.to_vec()).unwrap()
    }

    #[test]
    fn marked_rows_go_and_come_back_into_their_places() {
        let limits = Limits::default();
        let (x, mask) = (column(&[1.0, 2.0, 3.0, 4.0]), Tensor::new([4], vec![false, true, false, true]).unwrap());
        let rows = marked(&mask).unwrap();
        assert_eq!(rows, [1, 3]);
        let taken = pick(&x, &rows, &limits).unwrap();
        assert_eq!(taken, column(&[2.0, 4.0]));
        let back = put(&x, &rows, &column(&[20.0, 40.0]), &limits).unwrap();
        assert_eq!(back, column(&[1.0, 20.0, 3.0, 40.0]));
        assert_eq!(put(&x, &[], &column(&[]), &limits).unwrap(), x);
        assert!(put(&x, &rows, &column(&[1.0]), &limits).unwrap_err().contains("2 rows are to be put into [4, 1]"));
        let texts = Tensor::of_texts([2], ["a", "b"]).unwrap();
        let new = Tensor::of_texts([1], ["other"]).unwrap();
        let back = put(&texts, &[0], &new, &limits).unwrap();
        assert_eq!(back.texts().unwrap().collect::<Vec<_>>(), [&b"other"[..], b"b"]);
    }

    #[test]
    fn rows_in_a_run_are_no_copy_and_wrong_ones_are_named() {
        let (limits, x) = (Limits::default(), column(&[1.0, 2.0, 3.0]));
        assert_eq!(pick(&x, &[0, 1, 2], &limits).unwrap().bytes().as_ptr(), x.bytes().as_ptr());
        assert_eq!(pick(&x, &[], &limits).unwrap().shape(), [0, 1]);
        assert_eq!(pick(&x, &[7], &limits).unwrap_err(), "row 7 is wanted, the tensor has 3");
        assert!(marked(&x).unwrap_err().contains("a mask is BOOL [rows], given FP32 [3, 1]"));
    }
}
