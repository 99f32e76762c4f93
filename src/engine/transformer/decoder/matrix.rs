//! A matrix of quantised weights, left in the file's bytes. For a text rows become floats, a few at a time; for one token they
//! are multiplied as they lie there.

use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, WithSimd};

use super::blocks::Blocks;
use super::gguf::Gguf;
use super::whole::{self, Vector};
use crate::engine::transformer::math::{Layout, dot_here, multiply, widely, widest};

/// From so many rows of inputs on it pays to make floats of the weights.
const TOGETHER: usize = 4;
/// Rows of weights that are floats at the same time.
const PANEL: usize = 64;

pub(super) struct Matrix {
    file: Arc<[u8]>,
    range: Range<usize>,
    blocks: Blocks,
    /// Numbers that come out.
    pub(super) rows: usize,
    /// Numbers that go in.
    pub(super) columns: usize,
}

impl Matrix {
    /// A tensor of the file, with the shape that the network has.
    pub(super) fn load(file: &Arc<[u8]>, gguf: &Gguf, name: &str, rows: usize, columns: usize) -> Result<Self, String> {
        let entry = gguf.tensors.get(name);
        let shape = entry.map(|entry| entry.shape.as_slice());
        let entry = entry.filter(|entry| entry.shape == [rows, columns]).ok_or_else(|| {
            let given = shape.map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}"));
            format!("tensor {name}: expected [{rows}, {columns}] by the metadata, given {given}")
        })?;
        Ok(Self { file: Arc::clone(file), range: entry.range.clone(), blocks: entry.blocks, rows, columns })
    }

    fn bytes(&self, rows: Range<usize>) -> &[u8] {
        let (elements, bytes) = self.blocks.size();
        let of_row = self.columns / elements * bytes;
        &self.file[self.range.start + rows.start * of_row..self.range.start + rows.end * of_row]
    }

    /// One row as floats, into `out`.
    pub(super) fn row(&self, at: usize, out: &mut [f32]) {
        widely(Expand { blocks: self.blocks, bytes: self.bytes(at..at + 1), out });
    }

    /// W x for each row of `inputs`.
    pub(super) fn apply(&self, inputs: &[f32]) -> Vec<f32> {
        let count = inputs.len() / self.columns;
        let mut out = vec![0.0; count * self.rows];
        if count < TOGETHER && whole::takes(self.blocks) {
            for (input, out) in inputs.chunks_exact(self.columns).zip(out.chunks_exact_mut(self.rows)) {
                whole::multiply_rows(self.blocks, self.bytes(0..self.rows), &Vector::of(input), out);
            }
        } else if count < TOGETHER {
            self.by_row(inputs, &mut out);
        } else {
            self.by_panel(inputs, count, &mut out);
        }
        out
    }

    /// Weights that are floats of some kind already.
    fn by_row(&self, inputs: &[f32], out: &mut [f32]) {
        let mut weights = vec![0.0; self.columns];
        let bytes = self.bytes(0..self.rows);
        widely(ByRow { blocks: self.blocks, bytes, rows: self.rows, weights: &mut weights, inputs, out });
    }

    fn by_panel(&self, inputs: &[f32], count: usize, out: &mut [f32]) {
        let mut weights = vec![0.0; PANEL * self.columns];
        for begin in (0..self.rows).step_by(PANEL) {
            let rows = PANEL.min(self.rows - begin);
            let (bytes, weights) = (self.bytes(begin..begin + rows), &mut weights[..rows * self.columns]);
            widely(Expand { blocks: self.blocks, bytes, out: &mut *weights });
            multiply(
                (inputs, Layout::packed(count, self.columns)),
                (weights, Layout::packed(rows, self.columns).transposed()),
                (&mut out[begin..], Layout::strided(count, rows, self.rows)),
                false,
            );
        }
    }
}

widest!(Expand { blocks: Blocks, bytes: &'a [u8], out: &'a mut [f32] } -> () { blocks.expand(bytes, out) });

widest!(ByRow {
    blocks: Blocks, bytes: &'a [u8], rows: usize, weights: &'a mut [f32], inputs: &'a [f32], out: &'a mut [f32]
} -> () {
    let columns = weights.len();
    for (row, bytes) in bytes.chunks_exact(bytes.len() / rows).enumerate() {
        blocks.expand(bytes, weights);
        for (input, out) in inputs.chunks_exact(columns).zip(out.chunks_exact_mut(rows)) {
            out[row] = dot_here(weights, input);
        }
    }
});

/// A tensor of one dimension as floats.
pub(super) fn vector(file: &[u8], gguf: &Gguf, name: &str, length: usize) -> Result<Vec<f32>, String> {
    let entry = gguf.tensors.get(name).filter(|entry| entry.shape == [length]);
    let Some(entry) = entry else {
        let given = gguf.tensors.get(name).map_or_else(|| "none".to_owned(), |entry| format!("{:?}", entry.shape));
        return Err(format!("tensor {name}: expected [{length}] by the metadata, given {given}"));
    };
    let mut out = vec![0.0; length];
    widely(Expand { blocks: entry.blocks, bytes: &file[entry.range.clone()], out: &mut out });
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::transformer::decoder::gguf::tests::written;

    #[test]
    fn a_product_is_the_same_row_by_row_and_in_panels() {
        let (rows, columns) = (PANEL + 6, 64);
        let bytes: Vec<u8> = (0..rows * columns / 32)
            .flat_map(|block| {
                let scale = half::f16::from_f32(0.01 * (1 + block % 5) as f32).to_le_bytes();
                scale.into_iter().chain((0..32).map(move |at| (block * 7 + at * 13) as u8))
            })
            .collect();
        let file: Arc<[u8]> = written(&[], &[("w", 8, &[rows, columns], bytes)]).into();
        let gguf = Gguf::read(&file).unwrap();
        let matrix = Matrix::load(&file, &gguf, "w", rows, columns).unwrap();
        let inputs: Vec<f32> = (0..5 * columns).map(|at| (at % 17) as f32 - 8.0).collect();
        let together = matrix.apply(&inputs);
        let mut row = vec![0.0; columns];
        for (count, input) in inputs.chunks_exact(columns).enumerate() {
            let alone = matrix.apply(input);
            for at in 0..rows {
                matrix.row(at, &mut row);
                let sum: f64 = row.iter().zip(input).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                // Half a step of 8 / 32,767, times 64 weights of at most 6.4.
                assert!((f64::from(alone[at]) - sum).abs() < 1e-2, "{at}: {} {sum}", alone[at]);
                assert!((f64::from(together[count * rows + at]) - sum).abs() < 1e-3);
            }
        }
        let error = Matrix::load(&file, &gguf, "w", columns, rows).err().unwrap();
        assert_eq!(error, "tensor w: expected [64, 70] by the metadata, given [70, 64]");
        assert!(Matrix::load(&file, &gguf, "v", 1, 1).err().unwrap().contains("given none"));
    }
}
