//! Products of matrices, and what stands between them in a transformer: 32-bit floats, on the thread that asks.
//!
//! The products are those of the crate `gemm`, everything else is loops that the compiler makes vectors of, for the widest
//! registers that this processor has (crate `pulp`), found out at run time: one file runs everywhere.

use pulp::{Arch, Simd, WithSimd};

/// A piece of work that is compiled once for every width of registers. A closure would be, too, but is a function of its own
/// then, which is compiled for the narrowest.
macro_rules! widest {
    ($name:ident { $($field:ident: $type:ty),+ } -> $out:ty $body:block) => {
        struct $name<'a> { $($field: $type),+ }

        impl<'a> WithSimd for $name<'a> {
            type Output = $out;

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> $out {
                let Self { $($field),+ } = self;
                $body
            }
        }
    };
}
pub(super) use widest;

/// Does it in the widest registers that there are.
pub(super) fn widely<W: WithSimd>(work: W) -> W::Output {
    Arch::new().dispatch(work)
}

/// A matrix in an array: how many rows and columns, and how far they lie apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Layout {
    /// One row behind the other.
    pub(super) fn packed(rows: usize, columns: usize) -> Self {
        Self::strided(rows, columns, columns)
    }

    /// Rows that lie `row_stride` apart.
    pub(super) fn strided(rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { rows, columns, row_stride, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        let Self { rows, columns, row_stride, column_stride } = self;
        Self { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    /// Elements up to the last one.
    fn reach(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// `into` becomes `left` times `right`, added to what is there if `adds`. Panics where the sizes do not go together: they
/// are the network's, which was checked when it was loaded.
pub(super) fn multiply(left: (&[f32], Layout), right: (&[f32], Layout), into: (&mut [f32], Layout), adds: bool) {
    let ((a, left), (b, right), (c, to)) = (left, right, into);
    assert!(left.columns == right.rows && to.rows == left.rows && to.columns == right.columns, "sizes of a product");
    assert!(left.reach() <= a.len() && right.reach() <= b.len() && to.reach() <= c.len(), "a matrix outside its array");
    assert!(to.column_stride == 1 && to.row_stride >= to.columns, "elements of a product share a place");
    let stride = |stride: usize| isize::try_from(stride).expect("an array's places are below isize::MAX");
    #[allow(unsafe_code, reason = "the crate's face are pointers and strides")]
    // SAFETY: every element that a layout reaches lies in its array (asserted), those of the product are distinct and
    // borrowed mutably, and every element of the product is initialised.
    unsafe {
        gemm::gemm(
            to.rows,
            to.columns,
            left.columns,
            c.as_mut_ptr(),
            stride(to.column_stride),
            stride(to.row_stride),
            adds,
            a.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            b.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            if adds { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            // The pool's threads are the budget: one request, one thread.
            gemm::Parallelism::None,
        );
    }
}

const LANES: usize = 16;

/// Elements in pairs, multiplied and added up.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    widely(Dot { a, b })
}

widest!(Dot { a: &'a [f32], b: &'a [f32] } -> f32 { dot_here(a, b) });

#[inline(always)]
pub(super) fn dot_here(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 2 * LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<{ 2 * LANES }>(), b.as_chunks::<{ 2 * LANES }>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..2 * LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut sum = total(lanes);
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += a * b;
    }
    sum
}

/// A tree of sums, as vectors add up.
#[inline(always)]
fn total<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Of the values less `by`, or of their squares.
#[inline(always)]
fn sum_of(values: &[f32], by: f32, squares: bool) -> f32 {
    let each = |value: f32| {
        let value = value - by;
        if squares { value * value } else { value }
    };
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            lanes[lane] += each(values[lane]);
        }
    }
    let mut sum = total(lanes);
    for &value in rest {
        sum += each(value);
    }
    sum
}

#[inline(always)]
fn largest_of(values: &[f32]) -> f32 {
    let mut lanes = [f32::MIN; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            lanes[lane] = if values[lane] > lanes[lane] { values[lane] } else { lanes[lane] };
        }
    }
    let mut largest = f32::MIN;
    for &value in lanes.iter().chain(rest) {
        largest = if value > largest { value } else { largest };
    }
    largest
}

/// e to the power of `x`, within two units in the last place; what is too small for a float becomes 1e-38. Range reduction by
/// Cody and Waite, polynomial of Cephes' `expf`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which is then in the lowest bits.
    const WHOLE: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let y = p * r * r + r + 1.0;
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// How a layer bends its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// By the error function.
    Gelu,
    /// By the hyperbolic tangent, which comes close to it.
    GeluTanh,
    Relu,
    Tanh,
}

/// x times the part of the normal distribution below x: Abramowitz and Stegun 7.1.26, wrong by at most 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let mut p = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    let tail = 0.5 * p * t * exp(-0.5 * x * x);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near zero the difference of two large terms would be all rounding.
    let (square, small) = (x * x, x.abs() < 0.1);
    let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if small { near } else { far }
}

impl Activation {
    /// Bends every value.
    pub(super) fn apply(self, values: &mut [f32]) {
        widely(Bend { activation: self, values });
    }
}

widest!(Bend { activation: Activation, values: &'a mut [f32] } -> () {
    match activation {
        Activation::Gelu => for x in values { *x = gelu(*x) },
        Activation::GeluTanh => {
            for x in values {
                *x = 0.5 * *x * (1.0 + tanh(0.797_884_6 * (*x + 0.044_715 * *x * *x * *x)));
            }
        }
        Activation::Relu => for x in values { *x = if *x < 0.0 { 0.0 } else { *x } },
        Activation::Tanh => for x in values { *x = tanh(*x) },
    }
});

/// `gate`, bent by x / (1 + e^-x), times `up`, in the place of `gate`.
pub(super) fn gated(gate: &mut [f32], up: &[f32]) {
    widely(Gated { gate, up });
}

widest!(Gated { gate: &'a mut [f32], up: &'a [f32] } -> () {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
});

/// Each row becomes numbers that add up to 1: `scale` times the scores and their `bias` first.
pub(super) fn softmax(scores: &mut [f32], columns: usize, scale: f32, bias: Option<&[f32]>) {
    widely(Softmax { scores, columns, scale, bias });
}

widest!(Softmax { scores: &'a mut [f32], columns: usize, scale: f32, bias: Option<&'a [f32]> } -> () {
    for row in scores.chunks_exact_mut(columns) {
        match bias {
            Some(bias) => for (score, bias) in row.iter_mut().zip(bias) { *score = *score * scale + bias },
            None => for score in row.iter_mut() { *score *= scale },
        }
        let largest = largest_of(row);
        for score in row.iter_mut() {
            *score = exp(*score - largest);
        }
        let part = 1.0 / sum_of(row, 0.0, false);
        for score in row.iter_mut() {
            *score *= part;
        }
    }
});

/// Each row gets the mean 0 and the variance 1, then `gain` and `bias`, element by element.
pub(super) fn layer_norm(values: &mut [f32], gain: &[f32], bias: &[f32], epsilon: f32) {
    widely(LayerNorm { values, gain, bias, epsilon });
}

widest!(LayerNorm { values: &'a mut [f32], gain: &'a [f32], bias: &'a [f32], epsilon: f32 } -> () {
    let columns = gain.len();
    for row in values.chunks_exact_mut(columns) {
        let mean = sum_of(row, 0.0, false) / columns as f32;
        let variance = sum_of(row, mean, true) / columns as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((value, gain), bias) in row.iter_mut().zip(gain).zip(bias) {
            *value = (*value - mean) * scale * gain + bias;
        }
    }
});

/// Each row divided by the root of the mean of its squares, times `gain`, into `out`.
pub(super) fn rms_norm(values: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    widely(RmsNorm { values, gain, epsilon, out });
}

widest!(RmsNorm { values: &'a [f32], gain: &'a [f32], epsilon: f32, out: &'a mut [f32] } -> () {
    let columns = gain.len();
    for (row, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let scale = 1.0 / (sum_of(row, 0.0, true) / columns as f32 + epsilon).sqrt();
        for ((out, value), gain) in out.iter_mut().zip(row).zip(gain) {
            *out = value * scale * gain;
        }
    }
});

/// `more` added to `values`, element by element.
pub(super) fn add(values: &mut [f32], more: &[f32]) {
    widely(Add { values, more });
}

widest!(Add { values: &'a mut [f32], more: &'a [f32] } -> () {
    for (value, more) in values.iter_mut().zip(more) {
        *value += more;
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function by its series, in 64 bits.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn over(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=10_000_i16).map(move |step| from + (to - from) * f32::from(step) / 10_000.0)
    }

    #[test]
    fn functions_are_those_of_the_books() {
        for x in over(-87.0, 88.0) {
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) - right).abs() <= 3e-7 * right, "exp({x}) = {}", exp(x));
        }
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37);
        for x in over(-5.0, 5.0) {
            let wide = f64::from(x);
            let near = |name: &str, given: f32, right: f64| {
                assert!(
                    (f64::from(given) - right).abs() < 5e-7 * right.abs().max(1.0),
                    "{name}({x}) = {given}, {right}"
                );
            };
            near("gelu", gelu(x), 0.5 * wide * (1.0 + erf(wide * std::f64::consts::FRAC_1_SQRT_2)));
            near("tanh", tanh(x), wide.tanh());
        }
        let mut values = [-30.0, -1.0, 0.0, 1.0, 30.0];
        Activation::Gelu.apply(&mut values);
        assert!(values[0].abs() < 1e-30 && values[2] == 0.0 && (values[4] - 30.0).abs() < 1e-5, "{values:?}");
        let mut values = [-1.0, 0.0, 2.0];
        Activation::Relu.apply(&mut values);
        assert_eq!(values, [0.0, 0.0, 2.0]);
    }

    #[test]
    fn a_product_of_strided_and_turned_matrices_is_the_sum_of_products() {
        let a: Vec<f32> = (0..7 * 9).map(|at| (at % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..6 * 5).map(|at| (at % 7) as f32 - 3.0).collect();
        // Rows of five out of nine, times six rows of five, turned; into columns 1 to 6 of eight.
        let (left, right) = (Layout::strided(7, 5, 9), Layout::packed(6, 5).transposed());
        for adds in [false, true] {
            let mut c = vec![1.0; 7 * 8];
            multiply((&a, left), (&b, right), (&mut c[1..], Layout::strided(7, 6, 8)), adds);
            for row in 0..7 {
                for column in 0..6 {
                    let sum: f32 = (0..5).map(|at| a[row * 9 + at] * b[column * 5 + at]).sum();
                    assert_eq!(c[row * 8 + 1 + column], sum + if adds { 1.0 } else { 0.0 }, "{row} {column}");
                }
                assert_eq!((c[row * 8], c[row * 8 + 7]), (1.0, 1.0), "what lies between is left alone");
            }
        }
        assert_eq!(dot(&a, &a), a.iter().map(|a| a * a).sum::<f32>());
    }

    #[test]
    fn rows_of_scores_add_up_to_one_and_what_is_masked_gets_none() {
        let mut scores = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 900.0];
        softmax(&mut scores, 4, 1.0, Some(&[0.0, 0.0, 0.0, f32::MIN]));
        let e = std::f32::consts::E;
        let parts = 1.0 + e + e * e;
        assert!((scores[0] - 1.0 / parts).abs() < 1e-6 && (scores[2] - e * e / parts).abs() < 1e-6, "{scores:?}");
        assert!(scores[3] < 1e-37 && scores[7] < 1e-37 && (scores[4] - 1.0 / 3.0).abs() < 1e-6, "{scores:?}");
        let mut all_masked = [5.0, 7.0];
        softmax(&mut all_masked, 2, 1.0, Some(&[f32::MIN, f32::MIN]));
        assert_eq!(all_masked, [0.5, 0.5]);
    }

    #[test]
    fn norms_are_their_formulas() {
        let mut values = [1.0, 2.0, 3.0, 6.0];
        layer_norm(&mut values, &[2.0; 4], &[1.0; 4], 0.0);
        let deviation = 3.5_f32.sqrt();
        for (value, from) in values.iter().zip([1.0, 2.0, 3.0, 6.0]) {
            assert!((value - ((from - 3.0) / deviation * 2.0 + 1.0)).abs() < 1e-6);
        }
        let mut out = [0.0; 2];
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        assert!((out[0] - 3.0 / 12.5_f32.sqrt()).abs() < 1e-6 && (out[1] - 8.0 / 12.5_f32.sqrt()).abs() < 1e-6);
        let mut gate = [0.0, 1.0];
        gated(&mut gate, &[5.0, 2.0]);
        assert!(gate[0] == 0.0 && (gate[1] - 2.0 / (1.0 + (-1.0_f32).exp())).abs() < 1e-6);
    }
}
