//! Quantised weights: blocks of whole numbers with their scales, and the floats that they stand for.
//!
//! Layouts: `ggml-quants` of the ggml project (MIT), as its Python package `gguf` describes them, too.

/// How a tensor's elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the format's own names")]
pub(super) enum Blocks {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Block by block. No function that takes a function: that would be one of its own, compiled for the narrowest registers.
macro_rules! each {
    ($bytes:ident, $out:ident, $elements:expr, $size:expr, $expand:ident) => {{
        let (blocks, outs) = ($bytes.as_chunks::<{ $size }>().0, $out.as_chunks_mut::<{ $elements }>().0);
        for (block, out) in blocks.iter().zip(outs) {
            $expand(block, out);
        }
    }};
}

/// Elements of a block of the `_K` formats.
pub(super) const WIDE: usize = 256;

impl Blocks {
    /// By the number that a file has for it.
    pub(super) fn of(number: u32) -> Result<Self, String> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            other => {
                return Err(format!(
                    "its elements are of type {other}, expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K"
                ));
            }
        })
    }

    /// Elements and bytes of a block.
    pub(super) fn size(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (WIDE, 84),
            Self::Q3_K => (WIDE, 110),
            Self::Q4_K => (WIDE, 144),
            Self::Q5_K => (WIDE, 176),
            Self::Q6_K => (WIDE, 210),
        }
    }

    /// The floats of whole blocks.
    #[inline(always)]
    pub(super) fn expand(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each!(bytes, out, 1, 4, one_f32),
            Self::F16 => each!(bytes, out, 1, 2, one_f16),
            Self::BF16 => each!(bytes, out, 1, 2, one_bf16),
            Self::Q4_0 => each!(bytes, out, 32, 18, q4_0),
            Self::Q4_1 => each!(bytes, out, 32, 20, q4_1),
            Self::Q5_0 => each!(bytes, out, 32, 22, q5_0),
            Self::Q5_1 => each!(bytes, out, 32, 24, q5_1),
            Self::Q8_0 => each!(bytes, out, 32, 34, q8_0),
            Self::Q2_K => each!(bytes, out, WIDE, 84, q2_k),
            Self::Q3_K => each!(bytes, out, WIDE, 110, q3_k),
            Self::Q4_K => each!(bytes, out, WIDE, 144, q4_k),
            Self::Q5_K => each!(bytes, out, WIDE, 176, q5_k),
            Self::Q6_K => each!(bytes, out, WIDE, 210, q6_k),
        }
    }
}

#[inline(always)]
fn one_f32(block: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*block);
}

#[inline(always)]
fn one_f16(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half(block, 0);
}

#[inline(always)]
fn one_bf16(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16);
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    fours(scale, -8.0 * scale, &block[2..], out);
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    fours(half(block, 0), half(block, 2), &block[4..], out);
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    fives(scale, -16.0 * scale, &block[2..], out);
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    fives(half(block, 0), half(block, 2), &block[4..], out);
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for at in 0..32 {
        out[at] = scale * f32::from(block[2 + at].cast_signed());
    }
}

/// Of the halves that have all their digits.
const SMALLEST: f32 = 1.0 / 16_384.0;

/// A half as a whole float, here and not behind a call: there is one for every few numbers.
#[inline(always)]
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    let half = i16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let bits = (i32::from(half) << 13).cast_unsigned() & 0x8fff_e000;
    match bits & 0x0f80_0000 {
        // Of the smallest ones the processor would make much ado, were they multiplied into their place.
        0 => (f32::from_bits((bits & 0x7fff_ffff) + (113 << 23)) - SMALLEST).copysign(f32::from_bits(bits)),
        0x0f80_0000 => f32::from_bits(bits | 0x7f80_0000),
        _ => f32::from_bits(bits + (112 << 23)),
    }
}

/// Sixteen bytes: the lower halves are the first elements, the upper ones the second.
#[inline(always)]
fn fours(scale: f32, more: f32, bytes: &[u8], out: &mut [f32; 32]) {
    let (first, second) = out.split_at_mut(16);
    for ((first, second), &byte) in first.iter_mut().zip(second).zip(bytes) {
        *first = scale * f32::from(byte & 15) + more;
        *second = scale * f32::from(byte >> 4) + more;
    }
}

/// The same behind four bytes with the fifth bits.
#[inline(always)]
fn fives(scale: f32, more: f32, bytes: &[u8], out: &mut [f32; 32]) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (first, second) = out.split_at_mut(16);
    let bytes: &[u8; 16] = bytes[4..20].try_into().expect("a block has them");
    for at in 0..16 {
        let byte = u32::from(bytes[at]);
        let (low, upper) = ((byte & 15) | (high >> at << 4 & 16), byte >> 4 | (high >> (at + 12) & 16));
        // Small numbers, which are the same with a sign; with one they are converted eight at a time.
        first[at] = scale * low.cast_signed() as f32 + more;
        second[at] = scale * upper.cast_signed() as f32 + more;
    }
}

/// Scales and minima of eight times 32 elements, six bits each, packed into twelve bytes.
#[inline(always)]
pub(super) fn scales_and_leasts(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    // Four bytes in each word; the upper two bits of the first eight bytes belong to the last four of either.
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let (first, second, third) = (word(0), word(4), word(8));
    let six = |low: u32, upper: u32| {
        let last = (low & 0x0f0f_0f0f) | ((upper >> 2) & 0x3030_3030);
        u64::from(upper & 0x3f3f_3f3f) | u64::from(last) << 32
    };
    (six(third, first).to_le_bytes(), six(third >> 4, second).to_le_bytes())
}

#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; WIDE]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (scale, least) = (half(block, 80), half(block, 82));
    for (at, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Two halves of 128, each with four planes of bits over 32 bytes.
        let (shift, from) = (2 * (at / 2 % 4), at / 8 * 32 + at % 2 * 16);
        let (by, less) = (scale * f32::from(scales[at] & 15), least * f32::from(scales[at] >> 4));
        for (out, &q) in out.iter_mut().zip(&quants[from..from + 16]) {
            *out = by * f32::from((q >> shift) & 3) - less;
        }
    }
}

#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; WIDE]) {
    let (high, quants, scales, scale) = (&block[..32], &block[32..96], &block[96..108], half(block, 108));
    for (at, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (plane, from, bits) = (at / 2, at / 8 * 32 + at % 2 * 16, at % 2 * 16);
        let low = if at < 8 { scales[at] & 15 } else { scales[at - 8] >> 4 };
        let upper = (scales[8 + at % 4] >> (2 * (at / 4))) & 3;
        let by = scale * (f32::from(low | (upper << 4)) - 32.0);
        for ((out, &q), &bit) in out.iter_mut().zip(&quants[from..from + 16]).zip(&high[bits..bits + 16]) {
            let third = (bit >> plane) & 1;
            *out = by * (f32::from((q >> (2 * (plane % 4))) & 3) - 4.0 * f32::from(1 - third));
        }
    }
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; WIDE]) {
    let (scale, least, quants) = (half(block, 0), half(block, 2), &block[16..]);
    let (scales, leasts) = scales_and_leasts(block[4..16].try_into().expect("twelve bytes are twelve"));
    for (at, (out, quants)) in out.as_chunks_mut::<64>().0.iter_mut().zip(quants.as_chunks::<32>().0).enumerate() {
        let [by0, by1] = [scales[2 * at], scales[2 * at + 1]].map(|six| scale * f32::from(six));
        let [less0, less1] = [leasts[2 * at], leasts[2 * at + 1]].map(|six| least * f32::from(six));
        let (first, second) = out.split_at_mut(32);
        for ((first, second), &q) in first.iter_mut().zip(second).zip(quants) {
            *first = by0 * f32::from(q & 15) - less0;
            *second = by1 * f32::from(q >> 4) - less1;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; WIDE]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let (scales, leasts) = scales_and_leasts(block[4..16].try_into().expect("twelve bytes are twelve"));
    let (high, quants) = (&block[16..48], &block[48..]);
    for (at, (out, quants)) in out.as_chunks_mut::<64>().0.iter_mut().zip(quants.as_chunks::<32>().0).enumerate() {
        let [by0, by1] = [scales[2 * at], scales[2 * at + 1]].map(|six| scale * f32::from(six));
        let [less0, less1] = [leasts[2 * at], leasts[2 * at + 1]].map(|six| least * f32::from(six));
        let (first, second) = out.split_at_mut(32);
        for (((first, second), &q), &high) in first.iter_mut().zip(second).zip(quants).zip(high) {
            let fifth = high >> (2 * at);
            *first = by0 * f32::from((q & 15) + (fifth & 1) * 16) - less0;
            *second = by1 * f32::from((q >> 4) + (fifth & 2) * 8) - less1;
        }
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; WIDE]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (at, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // Two halves of 128, each of four parts of 32.
        let (side, part) = (at / 4, at % 4);
        let low = &low[side * 64 + part % 2 * 32..][..32];
        let high = &high[side * 32..][..32];
        let by = [0, 1].map(|half| scale * f32::from(scales[2 * at + half].cast_signed()));
        for (l, (out, (&low, &high))) in out.iter_mut().zip(low.iter().zip(high)).enumerate() {
            let four = if part < 2 { low & 15 } else { low >> 4 };
            let six = four | (((high >> (2 * part)) & 3) << 4);
            *out = by[l / 16] * (f32::from(six) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/fixtures/transformer.py` asked the ggml project's Python package.
    #[test]
    fn every_format_stands_for_the_numbers_that_its_makers_say() {
        let cases = include_str!("../../../../tests/fixtures/transformer/blocks.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
        let bytes = |case: &serde_json::Value, key: &str| hex::decode(case[key].as_str().unwrap()).unwrap();
        for case in &cases {
            let blocks = Blocks::of(u32::try_from(case["kind"].as_u64().unwrap()).unwrap()).unwrap();
            let (packed, expected) = (bytes(case, "hex"), bytes(case, "values_hex"));
            let expected: Vec<f32> = expected.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let (elements, size) = blocks.size();
            assert_eq!(packed.len() / size * elements, expected.len(), "{blocks:?}");
            let mut given = vec![f32::NAN; expected.len()];
            blocks.expand(&packed, &mut given);
            for (at, (given, expected)) in given.iter().zip(&expected).enumerate() {
                let close = (given - expected).abs() <= 1e-6 * expected.abs().max(1.0);
                assert!(close || given.to_bits() == expected.to_bits(), "{blocks:?} {at}: {given}, {expected}");
            }
        }
        assert_eq!(cases.len(), 12, "and 32-bit floats, which are themselves");
        assert!(Blocks::of(16).unwrap_err().contains("type 16"));
    }

    #[test]
    fn every_half_becomes_the_float_that_it_is() {
        for bits in 0..=u16::MAX {
            let (given, expected) = (half(&bits.to_le_bytes(), 0), half::f16::from_bits(bits).to_f32());
            assert!(given.to_bits() == expected.to_bits() || given.is_nan() && expected.is_nan(), "{bits:x}: {given}");
        }
    }
}
