//! `[[golden]]`: inputs with the outputs that the model gave where it was made.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::values::{NOT_FINITE, Number, Values};

/// Differences up to this pass where the manifest names no tolerance.
const TOLERANCE: f64 = 1e-4;

/// One sample: what goes in, what must come out, and how far off it may be.
///
/// In TOML, `input` is a list (a model with one input) or a table of lists by input name. An output is a key with its
/// name, or stands in the table `output`. Lists are row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Values by input name.
    pub inputs: BTreeMap<String, Values>,
    /// Values by output name.
    pub outputs: BTreeMap<String, Values>,
    /// Largest absolute difference of any value.
    pub tolerance: f64,
}

/// The key that a bare list of inputs has until the manifest's only input is known; no input can have it.
pub(super) const ONLY_INPUT: &str = "";

enum Given {
    List(Values),
    Table(BTreeMap<String, Values>),
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrTable;
        impl<'de> Visitor<'de> for ListOrTable {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or a table of lists by name")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Given, E> {
                Values::one(value).map(Given::List).ok_or_else(|| E::custom(NOT_FINITE))
            }

            #[allow(clippy::cast_precision_loss, reason = "models compute in 32 bits")]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Given, E> {
                self.visit_f64(value as f64)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Given, A::Error> {
                Values::from_seq(seq).map(Given::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                let mut table = BTreeMap::new();
                while let Some((name, values)) = map.next_entry()? {
                    table.insert(name, values);
                }
                Ok(Given::Table(table))
            }
        }
        deserializer.deserialize_any(ListOrTable)
    }
}

impl<'de> Deserialize<'de> for Golden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sample;
        impl<'de> Visitor<'de> for Sample {
            type Value = Golden;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `input`, the outputs by name, and `tolerance`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Golden, A::Error> {
                let mut golden = Golden { inputs: BTreeMap::new(), outputs: BTreeMap::new(), tolerance: TOLERANCE };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "input" => match map.next_value()? {
                            Given::List(values) => drop(golden.inputs.insert(ONLY_INPUT.to_owned(), values)),
                            Given::Table(table) => golden.inputs = table,
                        },
                        "output" => golden.outputs.extend(map.next_value::<BTreeMap<String, Values>>()?),
                        "tolerance" => golden.tolerance = map.next_value::<Number>()?.0,
                        _ => drop(golden.outputs.insert(key, map.next_value()?)),
                    }
                }
                Ok(golden)
            }
        }
        deserializer.deserialize_map(Sample)
    }
}
