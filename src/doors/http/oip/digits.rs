//! A number as JSON writes it, digit by digit: eight at a time, because how many digits a number has is what a processor
//! guesses wrong.

/// A number as it is written: `mantissa * 10^exponent`.
pub(super) struct Decimal<'a> {
    pub(super) negative: bool,
    pub(super) mantissa: u64,
    pub(super) exponent: i32,
    /// Without a point and an exponent.
    pub(super) is_whole: bool,
    /// The mantissa has all of its digits.
    pub(super) is_exact: bool,
    pub(super) text: &'a [u8],
}

/// So many digits always fit into 64 bits.
pub(super) const DIGITS_MAX: usize = 19;

/// Powers of ten by their number of zeros.
pub(super) const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// How many digits there are behind the zeros in front.
#[inline]
pub(super) fn significant(digits: &[u8]) -> usize {
    digits.len() - digits.iter().take_while(|&&digit| digit == b'0').count()
}

/// The digits at the beginning of eight characters, the first in the lowest byte: their value and their number.
#[inline]
pub(super) fn leading_digits(text: u64) -> (u64, usize) {
    let eight = Eight::of(text);
    let count = eight.count();
    // Zeros come before the first digit: eight of them where there is none, which a shift by 64 would not make.
    (value(eight.digits.checked_shl(64 - 8 * count as u32).unwrap_or(0)), count)
}

/// Eight characters, the first in the lowest byte.
#[derive(Clone, Copy)]
struct Eight {
    /// Less the character 0.
    digits: u64,
    /// The highest bit of the first byte that is no digit; above it, anything.
    others: u64,
}

impl Eight {
    #[inline]
    fn of(text: u64) -> Self {
        let digits = text.wrapping_sub(0x3030_3030_3030_3030);
        // 10 and more reach the highest bit with 0x76 added, or have it. What is borrowed or carried spoils only what is behind
        // the first that is no digit.
        let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
        Self { digits, others }
    }

    /// How many digits are at the beginning.
    #[inline]
    fn count(self) -> usize {
        self.others.trailing_zeros() as usize / 8
    }

    /// The digits at the beginning, and zeros for those that are missing behind them.
    #[inline]
    fn filled(self) -> u64 {
        let first_other = self.others & self.others.wrapping_neg();
        value(self.digits & (first_other >> 7).wrapping_sub(1))
    }
}

/// The number that eight digits are.
#[inline]
fn value(digits: u64) -> u64 {
    // Neighbours become pairs, pairs fours, fours the eight: each time the sum of one and a power of ten times the one before.
    let pairs = (digits.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(1 + (10_000 << 32)) >> 32
}

/// The most characters that [`fraction`] looks at.
const WINDOW: usize = 32;

/// A sign or none, a digit, a point and more digits, without an exponent, as models' numbers are written.
pub(super) struct Fraction {
    pub(super) negative: bool,
    /// Its size in units of 10^-16; what is smaller than one is left out.
    pub(super) units: i64,
    /// Nothing was left out.
    pub(super) is_whole: bool,
    pub(super) characters: usize,
}

/// What is at the beginning of `text`, if it is so.
#[inline]
pub(super) fn fraction(text: &[u8]) -> Option<Fraction> {
    let window = text.first_chunk::<WINDOW>()?;
    let negative = window[0] == b'-';
    let first = usize::from(negative);
    let digit = window[first].wrapping_sub(b'0');
    if digit > 9 || window[first + 1] != b'.' {
        return None;
    }
    let eight = |at: usize| window[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let (one, two) = (Eight::of(eight(first + 2)), Eight::of(eight(first + 10)));
    let (mut units, mut count) = ((u64::from(digit) * 100_000_000 + one.filled()) * 100_000_000, one.count());
    if one.others == 0 {
        units += two.filled();
        count += two.count();
        if two.others == 0 {
            count += Eight::of(eight(first + 18)).count();
        }
    }
    let end = first + 2 + count;
    if count == 0 || count == 24 || matches!(window[end], b'e' | b'E') {
        return None;
    }
    Some(Fraction { negative, units: units as i64, is_whole: count <= 16, characters: end })
}

/// Powers of ten that a 64-bit float has exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// 10^-22 to 10^22.
const FACTORS: [f64; 45] = [
    1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6,
    1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

impl Decimal<'_> {
    /// The nearest 64-bit float or one of its next neighbours, if that is one operation.
    #[inline]
    fn close(&self) -> Option<f64> {
        let power = POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?).filter(|_| self.is_exact)?;
        let mantissa = self.mantissa as f64;
        Some(if self.exponent < 0 { mantissa / power } else { mantissa * power })
    }

    /// One of the four 64-bit floats around it, fast: the power of ten is a factor, which is rounded below 1.
    #[inline]
    pub(super) fn near(&self) -> Option<f64> {
        let at = usize::try_from(self.exponent + 22).ok()?;
        FACTORS.get(at).filter(|_| self.is_exact).map(|factor| self.mantissa as f64 * factor)
    }

    /// The nearest 64-bit float.
    #[inline]
    pub(super) fn nearest(&self) -> Option<f64> {
        // Both sides of one operation are exact, so its result is rounded once (Clinger, 1990).
        let exact = if self.mantissa <= 1 << 53 { self.close() } else { None };
        match exact {
            Some(size) => Some(if self.negative { -size } else { size }),
            None => std::str::from_utf8(self.text).ok()?.parse().ok(),
        }
    }

    #[inline]
    pub(super) fn whole(&self) -> Option<i64> {
        // -0 is a float.
        if !self.is_whole || self.text.len() > 18 || (self.negative && self.mantissa == 0) {
            return None;
        }
        let size = i64::try_from(self.mantissa).ok()?;
        Some(if self.negative { -size } else { size })
    }
}
