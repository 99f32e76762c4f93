//! Arrays of numbers in JSON, read fast: most requests are nothing else.
//!
//! Reads what is plainly right, to the same bits as [`elements`](super::elements) does, and gives up on everything else:
//! whoever asked then reads it the slow way, which also says what is wrong.

use half::f16;

use super::digits::{DIGITS_MAX, Decimal, TENS, fraction, leading_digits, significant};
use crate::base::{Datatype, Element, Tensor};

/// Reads `data`, flat or nested, as `shape` of `datatype`.
pub(super) fn read(datatype: Datatype, shape: &[usize], data: &[u8]) -> Option<Tensor> {
    match datatype {
        Datatype::Uint8 => tensor::<u8>(shape, data),
        Datatype::Uint16 => tensor::<u16>(shape, data),
        Datatype::Uint32 => tensor::<u32>(shape, data),
        Datatype::Uint64 => tensor::<u64>(shape, data),
        Datatype::Int8 => tensor::<i8>(shape, data),
        Datatype::Int16 => tensor::<i16>(shape, data),
        Datatype::Int32 => tensor::<i32>(shape, data),
        Datatype::Int64 => tensor::<i64>(shape, data),
        Datatype::Fp16 => tensor::<f16>(shape, data),
        Datatype::Fp32 => tensor::<f32>(shape, data),
        Datatype::Fp64 => tensor::<f64>(shape, data),
        Datatype::Bool | Datatype::Bytes => None,
    }
}

fn tensor<T: Element + Number>(shape: &[usize], data: &[u8]) -> Option<Tensor> {
    let mut cursor = Cursor { bytes: data, at: 0 };
    let count = shape.iter().product::<usize>();
    let flat = [count];
    // Two characters an element at least, so a shape cannot make us reserve more than was sent.
    let mut read = Vec::with_capacity(count.min(data.len() / 2 + 1));
    cursor.level::<T>(if cursor.is_nested() { shape } else { &flat }, &mut read)?;
    cursor.skip_blanks();
    if cursor.at < data.len() {
        return None;
    }
    Tensor::new(shape, read).ok()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// This character, blanks before it aside.
    fn take(&mut self, wanted: u8) -> Option<()> {
        self.skip_blanks();
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn is_nested(&self) -> bool {
        let mut inner = self.bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
        inner.next() == Some(&b'[') && inner.next() == Some(&b'[')
    }

    /// One level of brackets. No deeper than a shape may be, so it cannot run out of stack.
    fn level<T: Number>(&mut self, dims: &[usize], read: &mut Vec<T>) -> Option<()> {
        let (&count, inner) = dims.split_first()?;
        self.take(b'[')?;
        for item in 0..count {
            if item > 0 {
                self.take(b',')?;
            }
            if inner.is_empty() {
                self.skip_blanks();
                if let Some((number, bytes)) = self.bytes.get(self.at..).and_then(T::plain) {
                    self.at += bytes;
                    read.push(number);
                    continue;
                }
                read.push(T::of(&self.decimal()?)?);
            } else {
                self.level(inner, read)?;
            }
        }
        self.take(b']')
    }

    #[inline]
    fn decimal(&mut self) -> Option<Decimal<'a>> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let (mut mantissa, first) = (0, self.at);
        match self.bytes.get(first..first + 2) {
            // What most numbers of models begin with.
            Some(&[digit @ b'0'..=b'9', b'.']) => {
                mantissa = u64::from(digit - b'0');
                self.at += 1;
            }
            _ => self.digits(&mut mantissa),
        }
        let whole_digits = self.at - first;
        let has_leading_zero = whole_digits > 1 && self.bytes[first] == b'0';
        if whole_digits == 0 || has_leading_zero {
            return None;
        }
        let (mut exponent, mut digits, mut is_whole) = (0, whole_digits, true);
        if self.peek() == Some(b'.') {
            self.at += 1;
            let point = self.at;
            self.digits(&mut mantissa);
            let after = self.at - point;
            if after == 0 {
                return None;
            }
            (exponent, is_whole) = (-i32::try_from(after).ok()?, false);
            digits = whole_digits + after;
            // Zeros in front are no digits of the mantissa.
            if digits > DIGITS_MAX && self.bytes[first] == b'0' {
                digits = significant(&self.bytes[point..self.at]);
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            let below = match self.peek()? {
                sign @ (b'+' | b'-') => {
                    self.at += 1;
                    sign == b'-'
                }
                _ => false,
            };
            let (mut power, from) = (0, self.at);
            self.digits(&mut power);
            // Four digits are more than any float has.
            if self.at == from || self.at - from > 4 {
                return None;
            }
            let power = i32::try_from(power).ok()?;
            (exponent, is_whole) = (if below { exponent - power } else { exponent + power }, false);
        }
        Some(Decimal {
            negative,
            mantissa,
            exponent,
            is_whole,
            is_exact: digits <= DIGITS_MAX,
            text: &self.bytes[start..self.at],
        })
    }

    /// As many digits as there are, behind those that `value` has; what does not fit is lost, which their number tells.
    #[inline]
    fn digits(&mut self, value: &mut u64) {
        while let Some(eight) = self.bytes.get(self.at..self.at + 8).and_then(|eight| <[u8; 8]>::try_from(eight).ok()) {
            let (read, count) = leading_digits(u64::from_le_bytes(eight));
            // Apart, so that a processor that expects eight goes on before it has counted.
            if count == 8 {
                *value = value.wrapping_mul(100_000_000).wrapping_add(read);
                self.at += 8;
                continue;
            }
            *value = value.wrapping_mul(TENS[count]).wrapping_add(read);
            self.at += count;
            return;
        }
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
    }
}

/// What an array may be of.
trait Number: Sized {
    fn of(decimal: &Decimal<'_>) -> Option<Self>;

    /// The number at the beginning of `text` and how many characters it has, if it is of the kind that most are.
    #[inline]
    fn plain(_text: &[u8]) -> Option<(Self, usize)> {
        None
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn of(decimal: &Decimal<'_>) -> Option<Self> {
                Self::try_from(decimal.whole()?).ok()
            }
        }
    )*};
}

whole!(u8, u16, u32, u64, i8, i16, i32, i64);

/// Whether all 64-bit floats up to the one `off` neighbours away are the same as 32-bit ones: unless halfway between two of
/// those is among them.
#[inline]
fn rounds_alike(near: f64, off: u64) -> bool {
    /// The bits of a 64-bit float that a 32-bit one has no room for, and the middle of what they can be.
    const LOST: u64 = (1 << 29) - 1;
    const HALFWAY: u64 = 1 << 28;
    (near.to_bits() & LOST).abs_diff(HALFWAY) > off
}

impl Number for f32 {
    #[inline]
    fn plain(text: &[u8]) -> Option<(Self, usize)> {
        /// What is left out of so many units and more, and three roundings, are less than [`OFF`] neighbours.
        const LEAST: i64 = 1_000_000_000_000;
        const OFF: u64 = 10_000;
        let fraction = fraction(text)?;
        let near = fraction.units as f64 * 1e-16;
        if (fraction.is_whole || fraction.units >= LEAST) && rounds_alike(near, OFF) {
            let near = near as Self;
            return Some((if fraction.negative { -near } else { near }, fraction.characters));
        }
        None
    }

    #[inline]
    fn of(decimal: &Decimal<'_>) -> Option<Self> {
        if decimal.mantissa > 0
            && let Some(near) = decimal.near()
            && (f64::from(Self::MIN_POSITIVE)..1e38).contains(&near)
            // Three roundings put it at most three neighbours off.
            && rounds_alike(near, 4)
        {
            return Some(if decimal.negative { -near as Self } else { near as Self });
        }
        Some(decimal.nearest()? as Self).filter(|number| number.is_finite())
    }
}

impl Number for f64 {
    fn of(decimal: &Decimal<'_>) -> Option<Self> {
        decimal.nearest().filter(|number| number.is_finite())
    }
}

impl Number for f16 {
    fn of(decimal: &Decimal<'_>) -> Option<Self> {
        Some(Self::from_f64(decimal.nearest()?)).filter(|number| number.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::http::oip::elements;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn slow(datatype: Datatype, shape: &[usize], data: &str) -> Option<Tensor> {
        elements::read(datatype, shape, &RawValue::from_string(data.to_owned()).ok()?).ok()
    }

    /// Read to the same bytes as the slow way does, or not at all; the same with enough behind it for numbers to be read in one
    /// go, and without.
    fn check(datatype: Datatype, shape: &[usize], data: &str) -> bool {
        let fast = read(datatype, shape, data.as_bytes());
        if let Some(fast) = &fast {
            let slow = slow(datatype, shape, data);
            assert_eq!(Some(fast.bytes()), slow.as_ref().map(Tensor::bytes), "{datatype} {data}");
        }
        let long = read(datatype, shape, format!("{data}{}", " ".repeat(32)).as_bytes());
        assert_eq!(long.as_ref().map(Tensor::bytes), fast.as_ref().map(Tensor::bytes), "{datatype} {data} and blanks");
        fast.is_some()
    }

    #[test]
    fn numbers_at_the_edges_are_the_same_bits_as_the_slow_way_reads() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "1",
            "-1",
            "0.1",
            "1e22",
            "1e23",
            "1e-22",
            "1.5E+3",
            "3.4028235e38",
            "1.1754944e-38",
            "1e-45",
            "9007199254740993",
            "18446744073709551615",
            "123456789012345678901234567890",
            "0.30471707344055176",
            "16777217",
            "16777217.0000000000000000000000001",
            "0.000000000000000000000000012345678901234567",
            "0.00000000000000000000000001",
            "100000000000000000000000000000000000000",
            "65504",
            "65519.99",
            "12345678",
            "123456789",
            "1234567.8",
            "0.12345678",
            "0.123456789012345678901234567890",
            "0.1234567890123456789012345",
            "-0.000",
            "0.0000000000000000000000",
            "0.00000000000000001",
            "0.00099999999999999999",
            "0.0000001234567890123",
            "9.9999999999999999999",
            "-7.5",
            "7.5e-3",
            "0.5000000298023223876953125",
            "0.50000002980232238",
        ] {
            for datatype in Datatype::ALL {
                check(datatype, &[1], &format!("[{text}]"));
            }
            assert!(check(Datatype::Fp64, &[1], &format!("[{text}]")), "{text}");
        }
        assert!(!check(Datatype::Fp32, &[1], "[1e39]") && !check(Datatype::Fp64, &[1], "[1e400]"));
        assert!(!check(Datatype::Uint8, &[1], "[256]") && !check(Datatype::Int64, &[1], "[1.0]"));
    }

    #[test]
    fn arrays_are_read_flat_and_nested_and_nothing_that_is_odd() {
        for (shape, data) in [
            (&[2, 2][..], "[1,2.5,3,4]"),
            (&[2, 2], " [ [1 , 2.5],\n[3,4]\t] "),
            (&[0, 3], "[]"),
            (&[2, 0], "[[],[]]"),
            (&[1, 1, 2], "[[[1,-2]]]"),
        ] {
            assert!(check(Datatype::Fp32, shape, data), "{data}");
        }
        for data in [
            "[1,2,3]",
            "[1,2,3,4,5]",
            "[[1,2],[3]]",
            "[[1,2],[3,4],[5,6]]",
            "[[1,2],3]",
            "[1,,2,3]",
            "[1,2,3,4,]",
            "[1,2,3,4",
            "[1,2,3,4]]",
            "[01,2,3,4]",
            "[.5,2,3,4]",
            "[1.,2,3,4]",
            "[+1,2,3,4]",
            "[1e,2,3,4]",
            "[--1,2,3,4]",
            "[1,2,3,null]",
            "[1,2,3,NaN]",
            "[1,2,3,\"4\"]",
            "[1 2,3,4]",
            "",
            "[",
            "4",
            "{}",
            "[1,2,3,4] 5",
            "[1,2,3,0x4]",
            "[1,2,3,1e00001]",
        ] {
            assert!(!check(Datatype::Fp32, &[2, 2], data), "{data}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(Datatype::Fp32, &[1; 8], deep.as_bytes()).is_none());
        assert!(read(Datatype::Fp32, &[usize::MAX / 16], b"[1]").is_none());
    }

    proptest! {
        #[test]
        fn whatever_a_program_writes_is_read_to_the_same_bits(
            floats in proptest::collection::vec(any::<f32>().prop_filter("finite", |float| float.is_finite()), 1..20),
            doubles in proptest::collection::vec(any::<f64>().prop_filter("finite", |double| double.is_finite()), 1..20),
            wholes in proptest::collection::vec(any::<i64>(), 1..20),
        ) {
            let wide: Vec<f64> = floats.iter().copied().map(f64::from).collect();
            prop_assert!(check(Datatype::Fp32, &[floats.len()], &serde_json::to_string(&floats).unwrap()));
            prop_assert!(check(Datatype::Fp32, &[wide.len()], &serde_json::to_string(&wide).unwrap()));
            prop_assert!(check(Datatype::Fp64, &[doubles.len()], &serde_json::to_string(&doubles).unwrap()));
            for datatype in Datatype::ALL {
                check(datatype, &[wholes.len()], &serde_json::to_string(&wholes).unwrap());
                check(datatype, &[doubles.len()], &serde_json::to_string(&doubles).unwrap());
            }
        }

        #[test]
        fn whatever_a_person_writes_is_read_to_the_same_bits(text in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?") {
            for datatype in Datatype::ALL {
                check(datatype, &[1], &format!("[{text}]"));
            }
        }

        #[test]
        fn a_number_near_halfway_between_two_floats_is_rounded_as_the_slow_way_does(bits in 0x0080_0000_u32..0x7f00_0000, off in -3_i64..=3) {
            let (low, high) = (f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
            let middle = f64::midpoint(low, high);
            let near = f64::from_bits(middle.to_bits().wrapping_add_signed(off));
            for text in [format!("[{near:e}]"), format!("[{near}]")] {
                prop_assert!(check(Datatype::Fp32, &[1], &text));
            }
        }

        #[test]
        fn so_is_one_near_halfway_that_has_a_digit_before_its_point(bits in 0x3300_0000_u32..0x4120_0000, off in -3_i64..=3, digits in 14_usize..24) {
            let middle = f64::midpoint(f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
            let near = f64::from_bits(middle.to_bits().wrapping_add_signed(off));
            for text in [format!("[{near}]"), format!("[-{near:.digits$}]")] {
                prop_assert!(check(Datatype::Fp32, &[1], &text));
            }
        }
    }
}
