//! Rows of quantised weights times one vector, in whole numbers: weights are multiplied as they lie in the file, and never
//! become floats.
//!
//! The vector becomes whole numbers of 16 bits, 32 of them with one scale: 65,535 steps, where others take 255. A step is then so
//! small that a product is that of floats to a few parts in a hundred thousand of what was added up, on every processor alike.

use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

use super::blocks::{Blocks, half, scales_and_leasts};
use super::lanes::{Lanes, Plain, Steps};
use crate::engine::transformer::math::{widely, widest};

/// Numbers with one scale, as in the smallest blocks.
const TOGETHER: usize = 32;

/// Bytes that weights are asked for before they are needed: memory's prefetching stops at every page's end, and weights are read
/// once a token.
const AHEAD: usize = 2048;

/// A vector as whole numbers.
#[derive(Debug)]
pub(super) struct Vector {
    steps: Vec<Steps>,
    /// How much a step is, each 32 numbers.
    sizes: Vec<f32>,
    /// Of each 16 numbers as they were given, for formats whose numbers begin elsewhere than at zero.
    sums: Vec<[f32; 2]>,
}

impl Vector {
    /// Of floats, as many as a multiple of 32. Where one is no number, or infinite, no product will be a number.
    pub(super) fn of(values: &[f32]) -> Self {
        let count = values.len() / TOGETHER;
        let mut vector =
            Self { steps: vec![Steps([0; 32]); count], sizes: vec![0.0; count], sums: vec![[0.0; 2]; count] };
        let Self { steps, sizes, sums } = &mut vector;
        widely(Round { values, steps, sizes, sums });
        vector
    }
}

widest!(Round { values: &'a [f32], steps: &'a mut [Steps], sizes: &'a mut [f32], sums: &'a mut [[f32; 2]] } -> () {
    // Adding it rounds to a whole number, which is then in the lowest bits.
    const WHOLE: f32 = 12_582_912.0;
    let values = values.as_chunks::<TOGETHER>().0.iter();
    for (((values, steps), size), sums) in values.zip(steps).zip(sizes).zip(sums) {
        let mut largest = [0.0_f32; 16];
        for at in 0..16 {
            let (a, b) = (values[at].abs(), values[16 + at].abs());
            largest[at] = if a > b { a } else { b };
        }
        let largest = largest.iter().fold(0.0, |most: f32, &value| if value > most { value } else { most });
        let per = if largest > f32::MIN_POSITIVE { 32_767.0 / largest } else { 0.0 };
        for at in 0..16 {
            steps.0[at] = (values[at] * per + WHOLE).to_bits() as i16;
            steps.0[16 + at] = (values[16 + at] * per + WHOLE).to_bits() as i16;
        }
        *sums = [values[..16].iter().sum(), values[16..].iter().sum()];
        *size = if (sums[0] + sums[1]).is_finite() { largest / 32_767.0 } else { f32::NAN };
    }
});

/// Whether rows of this format are multiplied here.
pub(super) fn takes(blocks: Blocks) -> bool {
    !matches!(blocks, Blocks::F32 | Blocks::F16 | Blocks::BF16)
}

/// Each row of `bytes` times `vector`, into `out`.
pub(super) fn multiply_rows(blocks: Blocks, bytes: &[u8], vector: &Vector, out: &mut [f32]) {
    debug_assert!(takes(blocks) && bytes.len().is_multiple_of(out.len()));
    match Arch::new() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(lanes) => lanes.vectorize(Rows { lanes, blocks, bytes, vector, out }),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(lanes) => lanes.vectorize(Rows { lanes, blocks, bytes, vector, out }),
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(lanes) => lanes.vectorize(Rows { lanes, blocks, bytes, vector, out }),
        _ => widely(Rows { lanes: Plain, blocks, bytes, vector, out }),
    }
}

struct Rows<'a, L> {
    lanes: L,
    blocks: Blocks,
    bytes: &'a [u8],
    vector: &'a Vector,
    out: &'a mut [f32],
}

/// The part of the vector that stands against a block: N times 32 numbers.
#[derive(Clone, Copy)]
struct Against<'a, const N: usize> {
    steps: &'a [Steps; N],
    sizes: &'a [f32; N],
    sums: &'a [[f32; 2]; N],
}

/// Row by row and block by block: a block's products are added to `sums`, and what its numbers are too large by to `less`. No
/// function that takes a function: that would be one of its own, compiled for the narrowest registers.
macro_rules! each {
    ($self:ident, $size:expr, $parts:expr, $of_less:expr, $block:ident) => {{
        let Rows { lanes, bytes, vector, out, .. } = $self;
        let steps = vector.steps.as_chunks::<{ $parts }>().0;
        let sizes = vector.sizes.as_chunks::<{ $parts }>().0;
        let given = vector.sums.as_chunks::<{ $parts }>().0;
        for (row, out) in bytes.chunks_exact(steps.len() * $size).zip(out) {
            let (mut sums, mut less) = (lanes.nothing(), [0.0_f32; $of_less]);
            let blocks = row.as_chunks::<{ $size }>().0.iter();
            for (((block, steps), sizes), given) in blocks.zip(steps).zip(sizes).zip(given) {
                for line in (0..$size).step_by(64) {
                    lanes.soon(block.as_ptr().wrapping_add(AHEAD + line));
                }
                sums = $block(lanes, block, Against { steps, sizes, sums: given }, sums, &mut less);
            }
            *out = lanes.total(sums) - less.iter().sum::<f32>();
        }
    }};
}

impl<L: Lanes> NullaryFnOnce for Rows<'_, L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.blocks {
            Blocks::Q4_0 => each!(self, 18, 1, 1, q4_0),
            Blocks::Q4_1 => each!(self, 20, 1, 1, q4_1),
            Blocks::Q5_0 => each!(self, 22, 1, 1, q5_0),
            Blocks::Q5_1 => each!(self, 24, 1, 1, q5_1),
            Blocks::Q8_0 => each!(self, 34, 1, 1, q8_0),
            Blocks::Q2_K => each!(self, 84, 8, 16, q2_k),
            Blocks::Q3_K => each!(self, 110, 8, 1, q3_k),
            Blocks::Q4_K => each!(self, 144, 8, 8, q4_k),
            Blocks::Q5_K => each!(self, 176, 8, 8, q5_k),
            Blocks::Q6_K => each!(self, 210, 8, 1, q6_k),
            Blocks::F32 | Blocks::F16 | Blocks::BF16 => {}
        }
    }
}

/// Some bytes of a block, whose number the compiler knows.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..at + N].try_into().expect("N bytes are N")
}

/// Four bits of sixteen bytes, and before them four bytes with the fifth: less by 16.
#[inline(always)]
fn fives<L: Lanes>(lanes: L, block: &[u8], at: usize) -> L::Bytes {
    lanes.or(lanes.fours(part(block, at + 4)), lanes.unset(*part(block, at)))
}

/// Numbers that begin elsewhere than at zero: at what, times the sum of what they are multiplied with.
#[inline(always)]
fn begin(at: f32, against: &Against<'_, 1>) -> f32 {
    -at * (against.sums[0][0] + against.sums[0][1])
}

#[inline(always)]
fn q4_0<L: Lanes>(lanes: L, block: &[u8; 18], v: Against<'_, 1>, sums: L::Floats, _: &mut [f32; 1]) -> L::Floats {
    let weights = lanes.minus(lanes.fours(part(block, 2)), 8);
    lanes.add(sums, weights, &v.steps[0], half(block, 0) * v.sizes[0])
}

#[inline(always)]
fn q4_1<L: Lanes>(lanes: L, block: &[u8; 20], v: Against<'_, 1>, sums: L::Floats, less: &mut [f32; 1]) -> L::Floats {
    less[0] += begin(half(block, 2), &v);
    lanes.add(sums, lanes.fours(part(block, 4)), &v.steps[0], half(block, 0) * v.sizes[0])
}

#[inline(always)]
fn q5_0<L: Lanes>(lanes: L, block: &[u8; 22], v: Against<'_, 1>, sums: L::Floats, _: &mut [f32; 1]) -> L::Floats {
    lanes.add(sums, fives(lanes, block, 2), &v.steps[0], half(block, 0) * v.sizes[0])
}

#[inline(always)]
fn q5_1<L: Lanes>(lanes: L, block: &[u8; 24], v: Against<'_, 1>, sums: L::Floats, less: &mut [f32; 1]) -> L::Floats {
    let scale = half(block, 0);
    less[0] += begin(half(block, 2) + 16.0 * scale, &v);
    lanes.add(sums, fives(lanes, block, 4), &v.steps[0], scale * v.sizes[0])
}

#[inline(always)]
fn q8_0<L: Lanes>(lanes: L, block: &[u8; 34], v: Against<'_, 1>, sums: L::Floats, _: &mut [f32; 1]) -> L::Floats {
    lanes.add(sums, lanes.bytes(part(block, 2)), &v.steps[0], half(block, 0) * v.sizes[0])
}

/// In turn for each number in the brackets: a loop's counter is no constant, and shifts by constants are cheaper.
macro_rules! unrolled {
    ($at:ident in [$($number:literal),+] $body:block) => {
        $({
            #[allow(non_upper_case_globals, reason = "it stands for a counter")]
            const $at: usize = $number;
            $body
        })+
    };
}

#[inline(always)]
fn q2_k<L: Lanes>(lanes: L, block: &[u8; 84], v: Against<'_, 8>, sums: L::Floats, less: &mut [f32; 16]) -> L::Floats {
    let (scale, least, mut sums) = (half(block, 80), half(block, 82), sums);
    let mut by = [[0.0; 2]; 8];
    for at in 0..16 {
        by[at / 2][at % 2] = scale * f32::from(block[at] & 15) * v.sizes[at / 2];
        less[at] += least * f32::from(block[at] >> 4) * v.sums[at / 2][at % 2];
    }
    // Two halves of 128, each with four planes of bits over 32 bytes.
    unrolled!(at in [0, 1, 2, 3, 4, 5, 6, 7] {
        let quants = lanes.bytes(part(block, 16 + at / 4 * 32));
        let weights = lanes.down(quants, (2 * (at % 4)) as i32, 3);
        sums = lanes.add_halves(sums, weights, &v.steps[at], by[at]);
    });
    sums
}

#[inline(always)]
fn q3_k<L: Lanes>(lanes: L, block: &[u8; 110], v: Against<'_, 8>, sums: L::Floats, _: &mut [f32; 1]) -> L::Floats {
    let (scales, scale, mut sums) = (part::<12>(block, 96), half(block, 108), sums);
    let mut by = [[0.0; 2]; 8];
    for at in 0..16 {
        let low = if at < 8 { scales[at] & 15 } else { scales[at - 8] >> 4 };
        let upper = (scales[8 + at % 4] >> (2 * (at / 4))) & 3;
        by[at / 2][at % 2] = scale * (f32::from(low | (upper << 4)) - 32.0) * v.sizes[at / 2];
    }
    let thirds = lanes.bytes(part(block, 0));
    unrolled!(at in [0, 1, 2, 3, 4, 5, 6, 7] {
        let low = lanes.down(lanes.bytes(part(block, 32 + at / 4 * 32)), (2 * (at % 4)) as i32, 3);
        let third = if at < 2 { lanes.up(thirds, 2 - at as i32, 4) } else { lanes.down(thirds, at as i32 - 2, 4) };
        sums = lanes.add_halves(sums, lanes.minus(lanes.or(low, third), 4), &v.steps[at], by[at]);
    });
    sums
}

/// What stands before each 32 weights of Q4_K and Q5_K, times how much a step of the vector is; what they begin at goes to `less`.
#[inline(always)]
fn scales(block: &[u8], v: &Against<'_, 8>, less: &mut [f32; 8]) -> [f32; 8] {
    let (scale, least) = (half(block, 0), half(block, 2));
    let (scales, leasts) = scales_and_leasts(part(block, 4));
    let mut by = [0.0; 8];
    for at in 0..8 {
        by[at] = scale * f32::from(scales[at]) * v.sizes[at];
        less[at] += least * f32::from(leasts[at]) * (v.sums[at][0] + v.sums[at][1]);
    }
    by
}

#[inline(always)]
fn q4_k<L: Lanes>(lanes: L, block: &[u8; 144], v: Against<'_, 8>, sums: L::Floats, less: &mut [f32; 8]) -> L::Floats {
    let (by, mut sums) = (scales(block, &v, less), sums);
    for at in 0..4 {
        let quants = lanes.bytes(part(block, 16 + 32 * at));
        sums = lanes.add(sums, lanes.down(quants, 0, 15), &v.steps[2 * at], by[2 * at]);
        sums = lanes.add(sums, lanes.down(quants, 4, 15), &v.steps[2 * at + 1], by[2 * at + 1]);
    }
    sums
}

#[inline(always)]
fn q5_k<L: Lanes>(lanes: L, block: &[u8; 176], v: Against<'_, 8>, sums: L::Floats, less: &mut [f32; 8]) -> L::Floats {
    let (by, mut sums) = (scales(block, &v, less), sums);
    let fifths = lanes.bytes(part(block, 16));
    unrolled!(at in [0, 1, 2, 3, 4, 5, 6, 7] {
        let low = lanes.down(lanes.bytes(part(block, 48 + at / 2 * 32)), (at % 2 * 4) as i32, 15);
        let fifth = if at < 4 { lanes.up(fifths, 4 - at as i32, 16) } else { lanes.down(fifths, at as i32 - 4, 16) };
        sums = lanes.add(sums, lanes.or(low, fifth), &v.steps[at], by[at]);
    });
    sums
}

#[inline(always)]
fn q6_k<L: Lanes>(lanes: L, block: &[u8; 210], v: Against<'_, 8>, sums: L::Floats, _: &mut [f32; 1]) -> L::Floats {
    let (scale, mut sums) = (half(block, 208), sums);
    let mut by = [[0.0; 2]; 8];
    for at in 0..16 {
        by[at / 2][at % 2] = scale * f32::from(block[192 + at].cast_signed()) * v.sizes[at / 2];
    }
    // Two halves of 128, each of four parts of 32: four bits in 64 bytes, the two above them in 32.
    unrolled!(at in [0, 1, 2, 3, 4, 5, 6, 7] {
        let low = lanes.bytes(part(block, at / 4 * 64 + at % 2 * 32));
        let low = lanes.down(low, (at % 4 / 2 * 4) as i32, 15);
        let high = lanes.bytes(part(block, 128 + at / 4 * 32));
        let shift = 4 - 2 * (at % 4) as i32;
        let high = if shift < 0 { lanes.down(high, -shift, 48) } else { lanes.up(high, shift, 48) };
        sums = lanes.add_halves(sums, lanes.minus(lanes.or(low, high), 32), &v.steps[at], by[at]);
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector as activations are: some large, most small, signs of both kinds.
    fn inputs(count: usize) -> Vec<f32> {
        let mut state = 11_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        (0..count).map(|at| next() * if at % 61 == 7 { 40.0 } else { 1.0 }).collect()
    }

    fn with<L: Lanes>(lanes: L, blocks: Blocks, bytes: &[u8], vector: &Vector, rows: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows];
        Rows { lanes, blocks, bytes, vector, out: &mut out }.call();
        out
    }

    /// The blocks are those that the ggml project's own package read (`tests/fixtures/transformer.py`).
    #[test]
    fn every_format_gives_the_products_of_the_numbers_it_stands_for_on_this_processor_and_in_plain_loops() {
        let cases = include_str!("../../../../tests/fixtures/transformer/blocks.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
        let mut seen = 0;
        for case in &cases {
            let blocks = Blocks::of(u32::try_from(case["kind"].as_u64().unwrap()).unwrap()).unwrap();
            if !takes(blocks) {
                continue;
            }
            seen += 1;
            // Three rows of twice the three blocks, which begin at another one each.
            let block = hex::decode(case["hex"].as_str().unwrap()).unwrap();
            let size = block.len() / 3;
            let bytes: Vec<u8> =
                (0..18).flat_map(|at| block[(at + at / 6) % 3 * size..][..size].iter().copied()).collect();
            let columns = 6 * blocks.size().0;
            let mut weights = vec![0.0; 3 * columns];
            blocks.expand(&bytes, &mut weights);
            let inputs = inputs(columns);
            let vector = Vector::of(&inputs);
            let mut here = vec![f32::NAN; 3];
            multiply_rows(blocks, &bytes, &vector, &mut here);
            for given in [here, with(Plain, blocks, &bytes, &vector, 3)] {
                for (given, weights) in given.iter().zip(weights.chunks_exact(columns)) {
                    let each = weights.iter().zip(&inputs).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let (sum, size) = each.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    // Of the largest of 32 numbers, which is forty times the others here, half a step is a part in 65,534.
                    assert!((f64::from(*given) - sum).abs() < 5e-5 * size, "{blocks:?}: {given}, {sum} of {size}");
                }
            }
        }
        assert_eq!(seen, 10);
    }

    #[test]
    fn a_vector_is_rounded_to_a_part_in_sixty_five_thousand_of_its_largest_and_what_is_no_number_stays_none() {
        let given = inputs(64);
        let vector = Vector::of(&given);
        for (at, value) in given.iter().enumerate() {
            let step = vector.steps[at / 32].0[at % 32];
            assert!((f32::from(step) * vector.sizes[at / 32] - value).abs() <= 0.51 * vector.sizes[at / 32]);
        }
        let scale = half::f16::from_f32(0.5).to_le_bytes();
        let row: Vec<u8> = scale.into_iter().chain([3; 32]).collect();
        let product = |values: [f32; 32]| {
            let mut out = [0.0];
            multiply_rows(Blocks::Q8_0, &row, &Vector::of(&values), &mut out);
            out[0]
        };
        assert_eq!((product([0.0; 32]), product([1e-42; 32])), (0.0, 0.0));
        assert_eq!((product([1.0; 32]), product([-2.0; 32])), (48.0, -96.0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 32];
            values[9] = bad;
            assert!(product(values).is_nan(), "{bad}");
        }
    }
}
