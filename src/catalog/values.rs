//! One number or a list of them, as manifests write statistics and samples.

use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// Most numbers in one list; the manifest's size bounds it anyway.
const MAX: usize = 1 << 20;

/// At least one finite number; `3.5` and `[3.5]` are the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Vec<f64>);

impl Values {
    /// The numbers, at least one.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    pub(super) fn one(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self(vec![value]))
    }

    pub(super) fn from_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut values = Vec::new();
        while let Some(Number(value)) = seq.next_element()? {
            if values.len() == MAX {
                return Err(serde::de::Error::custom(format!("a list has at most {MAX} numbers")));
            }
            values.push(value);
        }
        Self::of(values).map_err(serde::de::Error::custom)
    }

    /// Finite numbers as a list of a manifest.
    pub(super) fn of(values: Vec<f64>) -> Result<Self, String> {
        match values.len() {
            0 => Err("a list needs at least one number".to_owned()),
            1..=MAX => Ok(Self(values)),
            _ => Err(format!("a list has at most {MAX} numbers")),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of numbers")
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Values, E> {
                Values::one(value).ok_or_else(|| E::custom(NOT_FINITE))
            }

            #[allow(clippy::cast_precision_loss, reason = "a statistic over 2^53 has lost its units already")]
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Values, E> {
                self.visit_f64(value as f64)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Values, A::Error> {
                Values::from_seq(seq)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

pub(super) const NOT_FINITE: &str = "nan and inf are not numbers that a model can be measured by";

/// A finite number, written with or without a point.
pub(super) struct Number(pub(super) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if value.is_finite() { Ok(Self(value)) } else { Err(serde::de::Error::custom(NOT_FINITE)) }
    }
}
