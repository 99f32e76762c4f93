//! Thirty-two small whole numbers at a time, by the instructions that this processor has: AVX-512, AVX2 or NEON, else plain loops.
//!
//! Each function is one instruction or a few; the crate `pulp` gives them a safe face, whose proof that the processor has them is
//! the value that they are called on. NEON is the baseline's: nothing asks for `dotprod`.

/// Thirty-two steps of a vector, where a processor loads them at once.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Steps(pub(super) [i16; 32]);

pub(super) trait Lanes: Copy {
    /// Numbers of a byte each, which have a sign where they are multiplied.
    type Bytes: Copy;
    /// 32-bit floats, whose sum counts.
    type Floats: Copy;

    /// Says that what lies there is wanted soon; any address will do.
    fn soon(self, _from: *const u8) {}

    fn bytes(self, from: &[u8; 32]) -> Self::Bytes;

    /// The lower halves of sixteen bytes, then the upper ones.
    fn fours(self, from: &[u8; 16]) -> Self::Bytes;

    /// 0 where a bit is set and 240 where it is not, which is what takes 16 off when the four bits beside it are put in.
    fn unset(self, bits: [u8; 4]) -> Self::Bytes;

    /// Each byte moved down by `shift`, and of that what `mask` has; it has no more than there were above.
    fn down(self, of: Self::Bytes, shift: i32, mask: u8) -> Self::Bytes;

    /// Each byte moved up by `shift`, and of that what `mask` has; it has no more than there were below.
    fn up(self, of: Self::Bytes, shift: i32, mask: u8) -> Self::Bytes;

    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    fn minus(self, from: Self::Bytes, less: u8) -> Self::Bytes;

    fn nothing(self) -> Self::Floats;

    /// Adds weights times steps, times `by`.
    fn add(self, to: Self::Floats, weights: Self::Bytes, steps: &Steps, by: f32) -> Self::Floats;

    /// The same with a number for each sixteen.
    fn add_halves(self, to: Self::Floats, weights: Self::Bytes, steps: &Steps, by: [f32; 2]) -> Self::Floats;

    fn total(self, of: Self::Floats) -> f32;
}

/// Loops, of which the compiler makes what it can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain;

impl Lanes for Plain {
    type Bytes = [u8; 32];
    type Floats = [f32; 32];

    #[inline(always)]
    fn bytes(self, from: &[u8; 32]) -> [u8; 32] {
        *from
    }

    #[inline(always)]
    fn fours(self, from: &[u8; 16]) -> [u8; 32] {
        let mut out = [0; 32];
        for at in 0..16 {
            (out[at], out[16 + at]) = (from[at] & 15, from[at] >> 4);
        }
        out
    }

    #[inline(always)]
    fn unset(self, bits: [u8; 4]) -> [u8; 32] {
        let mut out = [0; 32];
        for (at, out) in out.iter_mut().enumerate() {
            *out = if bits[at / 8] >> (at % 8) & 1 == 0 { 240 } else { 0 };
        }
        out
    }

    #[inline(always)]
    fn down(self, mut of: [u8; 32], shift: i32, mask: u8) -> [u8; 32] {
        for byte in &mut of {
            *byte = (*byte >> shift) & mask;
        }
        of
    }

    #[inline(always)]
    fn up(self, mut of: [u8; 32], shift: i32, mask: u8) -> [u8; 32] {
        for byte in &mut of {
            *byte = (*byte << shift) & mask;
        }
        of
    }

    #[inline(always)]
    fn or(self, mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        for (a, b) in a.iter_mut().zip(b) {
            *a |= b;
        }
        a
    }

    #[inline(always)]
    fn minus(self, mut from: [u8; 32], less: u8) -> [u8; 32] {
        for byte in &mut from {
            *byte = byte.wrapping_sub(less);
        }
        from
    }

    #[inline(always)]
    fn nothing(self) -> [f32; 32] {
        [0.0; 32]
    }

    #[inline(always)]
    fn add(self, to: [f32; 32], weights: [u8; 32], steps: &Steps, by: f32) -> [f32; 32] {
        self.add_halves(to, weights, steps, [by, by])
    }

    #[inline(always)]
    fn add_halves(self, mut to: [f32; 32], weights: [u8; 32], steps: &Steps, by: [f32; 2]) -> [f32; 32] {
        for at in 0..32 {
            let product = i32::from(weights[at].cast_signed()) * i32::from(steps.0[at]);
            to[at] += product as f32 * by[at / 16];
        }
        to
    }

    #[inline(always)]
    fn total(self, of: [f32; 32]) -> f32 {
        of.iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m256i, __m512, __m512i, _MM_HINT_T0};

    use pulp::cast;
    use pulp::x86::{V3, V4};

    use super::{Lanes, Steps};

    /// Which bit of which of four bytes.
    const BITS: [u8; 32] = [
        1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64,
        128,
    ];
    const BYTES: [u8; 32] =
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3];

    /// What AVX2 does for both.
    macro_rules! bytes {
        () => {
            type Bytes = __m256i;

            #[inline(always)]
            fn soon(self, from: *const u8) {
                self.sse._mm_prefetch::<_MM_HINT_T0>(from.cast());
            }

            #[inline(always)]
            fn bytes(self, from: &[u8; 32]) -> __m256i {
                cast(*from)
            }

            #[inline(always)]
            fn fours(self, from: &[u8; 16]) -> __m256i {
                let twice = self.avx2._mm256_broadcastsi128_si256(cast(*from));
                let down = self.avx2._mm256_srlv_epi32(twice, cast([0, 0, 0, 0, 4, 4, 4, 4_u32]));
                self.avx2._mm256_and_si256(down, self.avx._mm256_set1_epi8(15))
            }

            #[inline(always)]
            fn unset(self, bits: [u8; 4]) -> __m256i {
                let all = self.avx._mm256_set1_epi32(i32::from_le_bytes(bits));
                let each = self.avx2._mm256_shuffle_epi8(all, cast(BYTES));
                let set = self.avx2._mm256_cmpeq_epi8(self.avx2._mm256_and_si256(each, cast(BITS)), cast(BITS));
                self.avx2._mm256_andnot_si256(set, self.avx._mm256_set1_epi8(240_u8.cast_signed()))
            }

            // There are no shifts of bytes; what comes from the byte beside it is masked off.
            #[inline(always)]
            fn down(self, of: __m256i, shift: i32, mask: u8) -> __m256i {
                let down = self.avx2._mm256_srl_epi16(of, self.sse2._mm_cvtsi32_si128(shift));
                self.avx2._mm256_and_si256(down, self.avx._mm256_set1_epi8(mask.cast_signed()))
            }

            #[inline(always)]
            fn up(self, of: __m256i, shift: i32, mask: u8) -> __m256i {
                let up = self.avx2._mm256_sll_epi16(of, self.sse2._mm_cvtsi32_si128(shift));
                self.avx2._mm256_and_si256(up, self.avx._mm256_set1_epi8(mask.cast_signed()))
            }

            #[inline(always)]
            fn or(self, a: __m256i, b: __m256i) -> __m256i {
                self.avx2._mm256_or_si256(a, b)
            }

            #[inline(always)]
            fn minus(self, from: __m256i, less: u8) -> __m256i {
                self.avx2._mm256_sub_epi8(from, self.avx._mm256_set1_epi8(less.cast_signed()))
            }
        };
    }

    /// Neighbours' products of each sixteen.
    #[inline(always)]
    fn products(lanes: V3, weights: __m256i, steps: &Steps) -> [__m256i; 2] {
        let avx2 = lanes.avx2;
        let [first, second]: [__m256i; 2] = cast(steps.0);
        let low = avx2._mm256_cvtepi8_epi16(avx2._mm256_extracti128_si256::<0>(weights));
        let high = avx2._mm256_cvtepi8_epi16(avx2._mm256_extracti128_si256::<1>(weights));
        [avx2._mm256_madd_epi16(low, first), avx2._mm256_madd_epi16(high, second)]
    }

    impl Lanes for V3 {
        type Floats = __m256;

        bytes!();

        #[inline(always)]
        fn nothing(self) -> __m256 {
            self.avx._mm256_set1_ps(0.0)
        }

        #[inline(always)]
        fn add(self, to: __m256, weights: __m256i, steps: &Steps, by: f32) -> __m256 {
            let [first, second] = products(self, weights, steps);
            let wholes = self.avx._mm256_cvtepi32_ps(self.avx2._mm256_add_epi32(first, second));
            self.fma._mm256_fmadd_ps(wholes, self.avx._mm256_set1_ps(by), to)
        }

        #[inline(always)]
        fn add_halves(self, to: __m256, weights: __m256i, steps: &Steps, by: [f32; 2]) -> __m256 {
            let [first, second] = products(self, weights, steps);
            let to = self.fma._mm256_fmadd_ps(self.avx._mm256_cvtepi32_ps(first), self.avx._mm256_set1_ps(by[0]), to);
            self.fma._mm256_fmadd_ps(self.avx._mm256_cvtepi32_ps(second), self.avx._mm256_set1_ps(by[1]), to)
        }

        #[inline(always)]
        fn total(self, of: __m256) -> f32 {
            let [a, b, c, d, e, f, g, h]: [f32; 8] = cast(of);
            ((a + e) + (b + f)) + ((c + g) + (d + h))
        }
    }

    impl Lanes for V4 {
        type Floats = __m512;

        bytes!();

        #[inline(always)]
        fn nothing(self) -> __m512 {
            self.avx512f._mm512_set1_ps(0.0)
        }

        #[inline(always)]
        fn add(self, to: __m512, weights: __m256i, steps: &Steps, by: f32) -> __m512 {
            let wholes: __m512i = self.avx512bw._mm512_cvtepi8_epi16(weights);
            let wholes = self.avx512bw._mm512_madd_epi16(wholes, cast(steps.0));
            self.avx512f._mm512_fmadd_ps(self.avx512f._mm512_cvtepi32_ps(wholes), self.avx512f._mm512_set1_ps(by), to)
        }

        #[inline(always)]
        fn add_halves(self, to: __m512, weights: __m256i, steps: &Steps, by: [f32; 2]) -> __m512 {
            let wholes: __m512i = self.avx512bw._mm512_cvtepi8_epi16(weights);
            let wholes = self.avx512bw._mm512_madd_epi16(wholes, cast(steps.0));
            let by = self
                .avx512dq
                ._mm512_insertf32x8::<1>(self.avx512f._mm512_set1_ps(by[0]), self.avx._mm256_set1_ps(by[1]));
            self.avx512f._mm512_fmadd_ps(self.avx512f._mm512_cvtepi32_ps(wholes), by, to)
        }

        #[inline(always)]
        fn total(self, of: __m512) -> f32 {
            let [a, b]: [__m256; 2] = cast(of);
            Lanes::total(*self, self.avx._mm256_add_ps(a, b))
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::{float32x4_t, int16x8_t, int32x4_t, uint8x16_t};

    use pulp::aarch64::Neon;
    use pulp::cast;

    use super::{Lanes, Steps};

    #[inline(always)]
    fn products(lanes: Neon, weights: uint8x16_t, [first, second]: [int16x8_t; 2]) -> int32x4_t {
        let neon = lanes.neon;
        let weights = cast(weights);
        let (low, high) = (neon.vmovl_s8(neon.vget_low_s8(weights)), neon.vmovl_high_s8(weights));
        let sums = neon.vmull_s16(neon.vget_low_s16(low), neon.vget_low_s16(first));
        let sums = neon.vmlal_high_s16(sums, low, first);
        let sums = neon.vmlal_s16(sums, neon.vget_low_s16(high), neon.vget_low_s16(second));
        neon.vmlal_high_s16(sums, high, second)
    }

    impl Lanes for Neon {
        type Bytes = [uint8x16_t; 2];
        type Floats = float32x4_t;

        #[inline(always)]
        fn bytes(self, from: &[u8; 32]) -> [uint8x16_t; 2] {
            cast(*from)
        }

        #[inline(always)]
        fn fours(self, from: &[u8; 16]) -> [uint8x16_t; 2] {
            let (both, neon) = (cast(*from), self.neon);
            [neon.vandq_u8(both, neon.vdupq_n_u8(15)), neon.vshlq_u8(both, neon.vdupq_n_s8(-4))]
        }

        #[inline(always)]
        fn unset(self, [a, b, c, d]: [u8; 4]) -> [uint8x16_t; 2] {
            let neon = self.neon;
            let bits = cast([1_u8, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
            let first = neon.vandq_u8(neon.vcombine_u8(neon.vdup_n_u8(a), neon.vdup_n_u8(b)), bits);
            let second = neon.vandq_u8(neon.vcombine_u8(neon.vdup_n_u8(c), neon.vdup_n_u8(d)), bits);
            let (none, taken) = (neon.vdupq_n_u8(0), neon.vdupq_n_u8(240));
            [neon.vandq_u8(neon.vceqq_u8(first, none), taken), neon.vandq_u8(neon.vceqq_u8(second, none), taken)]
        }

        #[inline(always)]
        fn down(self, of: [uint8x16_t; 2], shift: i32, mask: u8) -> [uint8x16_t; 2] {
            self.up(of, -shift, mask)
        }

        #[inline(always)]
        fn up(self, [a, b]: [uint8x16_t; 2], shift: i32, mask: u8) -> [uint8x16_t; 2] {
            let (neon, mask) = (self.neon, self.neon.vdupq_n_u8(mask));
            let by = neon.vdupq_n_s8(shift as i8);
            [neon.vandq_u8(neon.vshlq_u8(a, by), mask), neon.vandq_u8(neon.vshlq_u8(b, by), mask)]
        }

        #[inline(always)]
        fn or(self, a: [uint8x16_t; 2], b: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
            [self.neon.vorrq_u8(a[0], b[0]), self.neon.vorrq_u8(a[1], b[1])]
        }

        #[inline(always)]
        fn minus(self, from: [uint8x16_t; 2], less: u8) -> [uint8x16_t; 2] {
            let less = self.neon.vdupq_n_u8(less);
            [self.neon.vsubq_u8(from[0], less), self.neon.vsubq_u8(from[1], less)]
        }

        #[inline(always)]
        fn nothing(self) -> float32x4_t {
            self.neon.vdupq_n_f32(0.0)
        }

        #[inline(always)]
        fn add(self, to: float32x4_t, weights: [uint8x16_t; 2], steps: &Steps, by: f32) -> float32x4_t {
            let [a, b, c, d]: [int16x8_t; 4] = cast(steps.0);
            let first = products(self, weights[0], [a, b]);
            let both = self.neon.vaddq_s32(first, products(self, weights[1], [c, d]));
            self.neon.vfmaq_n_f32(to, self.neon.vcvtq_f32_s32(both), by)
        }

        #[inline(always)]
        fn add_halves(self, to: float32x4_t, weights: [uint8x16_t; 2], steps: &Steps, by: [f32; 2]) -> float32x4_t {
            let [a, b, c, d]: [int16x8_t; 4] = cast(steps.0);
            let first = self.neon.vcvtq_f32_s32(products(self, weights[0], [a, b]));
            let second = self.neon.vcvtq_f32_s32(products(self, weights[1], [c, d]));
            self.neon.vfmaq_n_f32(self.neon.vfmaq_n_f32(to, first, by[0]), second, by[1])
        }

        #[inline(always)]
        fn total(self, of: float32x4_t) -> f32 {
            self.neon.vaddvq_f32(of)
        }
    }
}
