//! A tensor's elements in JSON: flat or nested, row-major, read straight into the tensor's memory.
//!
//! What would silently become another value is refused: a whole number out of its type's range, a fraction where whole
//! numbers stand, a float beyond the type's range.

use std::fmt;
use std::marker::PhantomData;

use half::f16;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::base::{Datatype, Element, Tensor};

/// Reads `data` as `shape` of `datatype`.
pub(super) fn read(datatype: Datatype, shape: &[usize], data: &RawValue) -> Result<Tensor, String> {
    match datatype {
        Datatype::Bool => numbers::<bool>(shape, data),
        Datatype::Uint8 => numbers::<u8>(shape, data),
        Datatype::Uint16 => numbers::<u16>(shape, data),
        Datatype::Uint32 => numbers::<u32>(shape, data),
        Datatype::Uint64 => numbers::<u64>(shape, data),
        Datatype::Int8 => numbers::<i8>(shape, data),
        Datatype::Int16 => numbers::<i16>(shape, data),
        Datatype::Int32 => numbers::<i32>(shape, data),
        Datatype::Int64 => numbers::<i64>(shape, data),
        Datatype::Fp16 => numbers::<f16>(shape, data),
        Datatype::Fp32 => numbers::<f32>(shape, data),
        Datatype::Fp64 => numbers::<f64>(shape, data),
        Datatype::Bytes => {
            let texts = elements::<String>(shape, data)?;
            Tensor::of_texts(shape, texts).map_err(|error| error.to_string())
        }
    }
}

fn numbers<T: Element + Scalar>(shape: &[usize], data: &RawValue) -> Result<Tensor, String> {
    Tensor::new(shape, elements::<T>(shape, data)?).map_err(|error| error.to_string())
}

fn elements<T: Scalar>(shape: &[usize], data: &RawValue) -> Result<Vec<T>, String> {
    let text = data.get();
    let mut inner = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let nested = inner.next() == Some(b'[') && inner.next() == Some(b'[');
    let count = shape.iter().product::<usize>();
    let flat = [count];
    let dims = if nested { shape } else { &flat };
    // Two characters an element at least, so a shape cannot make us reserve more than was sent.
    let mut read = Vec::with_capacity(count.min(text.len() / 2 + 1));
    let mut json = serde_json::Deserializer::from_str(text);
    Level { dims, nested, read: &mut read }.deserialize(&mut json).map_err(|error| says(&error))?;
    Ok(read)
}

/// Without the place: it counts from the beginning of the data, which nobody can see.
fn says(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// One level of brackets.
struct Level<'a, T> {
    dims: &'a [usize],
    nested: bool,
    read: &'a mut Vec<T>,
}

impl<'de, T: Scalar> DeserializeSeed<'de> for Level<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Scalar> Visitor<'de> for Level<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.nested { "arrays nested as the shape says" } else { "an array of the elements" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { dims, nested, read } = self;
        let Some((&expected, inner)) = dims.split_first() else {
            return Err(A::Error::custom("data is nested deeper than its shape"));
        };
        let mut count = 0_usize;
        loop {
            let more = if inner.is_empty() {
                let at = read.len();
                match items.next_element_seed(One::<T>(at, PhantomData))? {
                    Some(element) => {
                        // One more than fits is enough to know.
                        if count < expected {
                            read.push(element);
                        }
                        true
                    }
                    None => false,
                }
            } else {
                items.next_element_seed(Level { dims: inner, nested, read: &mut *read })?.is_some()
            };
            if !more {
                break;
            }
            count += 1;
            if count > expected && inner.is_empty() && nested {
                break;
            }
        }
        if count == expected {
            return Ok(());
        }
        Err(A::Error::custom(if nested {
            format!("a level of data has {count} items where the shape says {expected}")
        } else {
            format!("data has {count} elements where the shape says {expected}")
        }))
    }
}

/// One element, and its place for messages.
struct One<T>(usize, PhantomData<T>);

impl<'de, T: Scalar> DeserializeSeed<'de> for One<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        // The type says what is to come, so that a number is not looked at twice.
        T::ask(deserializer, self)
    }
}

impl<'de, T: Scalar> Visitor<'de> for One<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at element {}", T::WORD, self.0)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<T, E> {
        T::of_bool(value).ok_or_else(|| refused(&self, value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        T::of_whole(i128::from(value)).ok_or_else(|| refused(&self, value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        T::of_whole(i128::from(value)).ok_or_else(|| refused(&self, value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<T, E> {
        T::of_float(value).ok_or_else(|| refused(&self, value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<T, E> {
        T::of_text(value).ok_or_else(|| refused(&self, format_args!("{value:?}")))
    }
}

fn refused<T: Scalar, E: serde::de::Error>(one: &One<T>, given: impl fmt::Display) -> E {
    E::custom(format_args!("element {} is {given}, which is not {}", one.0, T::WORD))
}

/// What can stand at one place of `data`.
trait Scalar: Sized {
    /// In messages: "a whole number from 0 to 255".
    const WORD: &'static str;

    fn ask<'de, D: Deserializer<'de>>(deserializer: D, one: One<Self>) -> Result<Self, D::Error>;

    fn of_bool(_: bool) -> Option<Self> {
        None
    }

    fn of_whole(_: i128) -> Option<Self> {
        None
    }

    fn of_float(_: f64) -> Option<Self> {
        None
    }

    fn of_text(_: &str) -> Option<Self> {
        None
    }
}

macro_rules! whole {
    ($($type:ty: $ask:ident, $word:literal;)*) => {$(
        impl Scalar for $type {
            const WORD: &'static str = $word;

            fn ask<'de, D: Deserializer<'de>>(deserializer: D, one: One<Self>) -> Result<Self, D::Error> {
                deserializer.$ask(one)
            }

            fn of_whole(value: i128) -> Option<Self> {
                Self::try_from(value).ok()
            }
        }
    )*};
}

whole! {
    u8: deserialize_u64, "a whole number from 0 to 255";
    u16: deserialize_u64, "a whole number from 0 to 65535";
    u32: deserialize_u64, "a whole number from 0 to 4294967295";
    u64: deserialize_u64, "a whole number from 0 to 18446744073709551615";
    i8: deserialize_i64, "a whole number from -128 to 127";
    i16: deserialize_i64, "a whole number from -32768 to 32767";
    i32: deserialize_i64, "a whole number from -2147483648 to 2147483647";
    i64: deserialize_i64, "a whole number of 64 bits";
}

macro_rules! float {
    ($($type:ty: $from:expr, $word:literal;)*) => {$(
        impl Scalar for $type {
            const WORD: &'static str = $word;

            fn ask<'de, D: Deserializer<'de>>(deserializer: D, one: One<Self>) -> Result<Self, D::Error> {
                deserializer.deserialize_f64(one)
            }

            fn of_whole(value: i128) -> Option<Self> {
                Self::of_float(value as f64)
            }

            fn of_float(value: f64) -> Option<Self> {
                let convert: fn(f64) -> $type = $from;
                let converted = convert(value);
                converted.is_finite().then_some(converted)
            }
        }
    )*};
}

float! {
    f16: f16::from_f64, "a number that a 16-bit float holds";
    f32: |value| value as f32, "a number that a 32-bit float holds";
    f64: |value| value, "a number";
}

impl Scalar for bool {
    const WORD: &'static str = "true or false";

    fn ask<'de, D: Deserializer<'de>>(deserializer: D, one: One<Self>) -> Result<Self, D::Error> {
        deserializer.deserialize_bool(one)
    }

    fn of_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for String {
    const WORD: &'static str = "a text";

    fn ask<'de, D: Deserializer<'de>>(deserializer: D, one: One<Self>) -> Result<Self, D::Error> {
        deserializer.deserialize_str(one)
    }

    fn of_text(value: &str) -> Option<Self> {
        Some(value.to_owned())
    }
}

/// Writes a tensor's elements flat. JSON has no NaN: it becomes null, which a client notices. A text that is not UTF-8
/// loses its odd bytes; as binary data it keeps them.
pub(super) struct Elements<'a>(pub(super) &'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        macro_rules! list {
            ($type:ty) => {
                serializer.collect_seq(self.0.as_slice::<$type>().unwrap_or_default())
            };
        }
        match self.0.datatype() {
            Datatype::Bool => list!(bool),
            Datatype::Uint8 => list!(u8),
            Datatype::Uint16 => list!(u16),
            Datatype::Uint32 => list!(u32),
            Datatype::Uint64 => list!(u64),
            Datatype::Int8 => list!(i8),
            Datatype::Int16 => list!(i16),
            Datatype::Int32 => list!(i32),
            Datatype::Int64 => list!(i64),
            Datatype::Fp32 => list!(f32),
            Datatype::Fp64 => list!(f64),
            Datatype::Fp16 => {
                let halves = self.0.as_slice::<f16>().unwrap_or_default();
                serializer.collect_seq(halves.iter().map(|half| half.to_f32()))
            }
            Datatype::Bytes => {
                serializer.collect_seq(self.0.texts().into_iter().flatten().map(String::from_utf8_lossy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(datatype: Datatype, shape: &[usize], data: &str) -> Result<Tensor, String> {
        read(datatype, shape, &RawValue::from_string(data.to_owned()).unwrap())
    }

    #[test]
    fn flat_and_nested_data_are_the_same_tensor() {
        let flat = parse(Datatype::Fp32, &[2, 2], "[1, 2.5, 3, 4]").unwrap();
        assert_eq!(flat.as_slice::<f32>().unwrap(), [1.0, 2.5, 3.0, 4.0]);
        assert_eq!(flat, parse(Datatype::Fp32, &[2, 2], " [ [1,2.5],[3,4] ]").unwrap());
        let deep = parse(Datatype::Bool, &[1, 1, 2], "[[[true,false]]]").unwrap();
        assert_eq!(deep.as_slice::<bool>().unwrap(), [true, false]);
        assert_eq!(parse(Datatype::Fp32, &[0, 3], "[]").unwrap().elements(), 0);
        assert_eq!(parse(Datatype::Fp32, &[2, 0], "[[],[]]").unwrap().elements(), 0);
    }

    #[test]
    fn every_datatype_is_read_and_written_as_it_is() {
        for (datatype, data) in [
            (Datatype::Bool, "[true,false]"),
            (Datatype::Int8, "[-128,127]"),
            (Datatype::Int16, "[-32768,32767]"),
            (Datatype::Int32, "[-2147483648,2147483647]"),
            (Datatype::Int64, "[-9223372036854775808,9223372036854775807]"),
            (Datatype::Uint8, "[0,255]"),
            (Datatype::Uint16, "[0,65535]"),
            (Datatype::Uint32, "[0,4294967295]"),
            (Datatype::Uint64, "[0,18446744073709551615]"),
            (Datatype::Fp16, "[0.5,-65504.0]"),
            (Datatype::Fp32, "[0.5,-1.25]"),
            (Datatype::Fp64, "[0.1,-1e+300]"),
            (Datatype::Bytes, "[\"low\",\"h\u{f6}ch \\\"quoted\\\"\"]"),
        ] {
            let tensor = parse(datatype, &[2], data).unwrap();
            assert_eq!(tensor.datatype(), datatype);
            assert_eq!(serde_json::to_string(&Elements(&tensor)).unwrap(), data, "{datatype}");
        }
    }

    #[test]
    fn a_value_that_would_become_another_is_named_with_its_place() {
        for (datatype, data, says) in [
            (
                Datatype::Int64,
                "[0,9223372036854775808]",
                "element 1 is 9223372036854775808, which is not a whole number of 64 bits",
            ),
            (Datatype::Int8, "[128]", "element 0 is 128, which is not a whole number from -128 to 127"),
            (Datatype::Uint8, "[-1]", "element 0 is -1, which is not a whole number from 0 to 255"),
            (Datatype::Int32, "[1.5]", "element 0 is 1.5, which is not a whole number from -2147483648 to 2147483647"),
            (Datatype::Fp32, "[1e39]", "which is not a number that a 32-bit float holds"),
            (Datatype::Fp16, "[65536]", "element 0 is 65536, which is not a number that a 16-bit float holds"),
            (Datatype::Fp32, "[null]", "invalid type: null, expected a number that a 32-bit float holds at element 0"),
            (
                Datatype::Fp32,
                "[\"1\"]",
                "invalid type: string \"1\", expected a number that a 32-bit float holds at element 0",
            ),
            (Datatype::Bool, "[1]", "expected true or false at element 0"),
            (Datatype::Bytes, "[1]", "expected a text at element 0"),
        ] {
            let error = parse(datatype, &[data.matches(',').count() + 1], data).unwrap_err();
            assert!(error.contains(says), "{datatype} {data}: {error}");
        }
    }

    #[test]
    fn data_that_is_not_of_its_shape_is_refused() {
        for (shape, data) in [
            (&[2, 2][..], "[1,2,3]"),
            (&[2, 2], "[1,2,3,4,5]"),
            (&[2, 2], "[[1,2],[3]]"),
            (&[2, 2], "[[1,2],[3,4],[5,6]]"),
            (&[2, 2], "[[1,2],[3,4,5]]"),
            (&[2, 2], "[[1,2],[3,[4]]]"),
            (&[2, 2], "[[1,2],3]"),
            (&[4], "[[1,2],[3,4]]"),
            (&[1], "1"),
            (&[1], "{}"),
            (&[2], "[1,[2]]"),
        ] {
            assert!(parse(Datatype::Fp32, shape, data).is_err(), "{shape:?} {data}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(Datatype::Fp32, &[1; 8], &deep).is_err());
    }
}
