//! `[[golden]]`: inputs with the outputs that the model gave where it was made.
//!
//! Numbers and texts may stand in the manifest; larger tensors lie beside the model as files of numpy, each with its digest.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::manifest::Port;
use super::values::{NOT_FINITE, Number, Values};
use crate::base::{Datatype, Digest};

/// Differences up to this pass where the manifest names no tolerance.
const TOLERANCE: f64 = 1e-4;

/// One sample: what goes in, what must come out, and how far off it may be.
///
/// In TOML, `input` is a value (a model with one input) or a table of values by input name. An output is a key with its
/// name, or stands in the table `output`.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Values by input name.
    pub inputs: BTreeMap<String, GoldenValue>,
    /// Values by output name.
    pub outputs: BTreeMap<String, GoldenValue>,
    /// Largest absolute difference of any value.
    pub tolerance: f64,
    /// What may be added to it, as a part of the expected value's size.
    pub relative_tolerance: f64,
}

/// A tensor of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum GoldenValue {
    /// Row-major.
    Numbers(Values),
    /// For `BYTES`, row-major.
    Texts(Vec<String>),
    /// Beside the model.
    File(GoldenFile),
}

/// A tensor that `numpy.save` wrote.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenFile {
    /// A plain name in the manifest's folder.
    pub file: String,
    /// SHA-256 of that file in hex.
    #[serde(deserialize_with = "super::manifest::digest")]
    pub sha256: Digest,
}

/// The key that a bare list of inputs has until the manifest's only input is known; no input can have it.
const ONLY_INPUT: &str = "";

impl Golden {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &GoldenFile> {
        self.inputs.values().chain(self.outputs.values()).filter_map(|value| match value {
            GoldenValue::File(file) => Some(file),
            _ => None,
        })
    }

    /// The sample for a model with these inputs and outputs: every input there, nothing unknown, every value of a size
    /// that fits. What lies in files is not looked at.
    pub fn fitted(mut self, inputs: &[Port], outputs: &[Port]) -> Result<Self, String> {
        if let Some(value) = self.inputs.remove(ONLY_INPUT) {
            let [only] = inputs else {
                let first = inputs.first().map_or("NAME", |input| &input.name);
                let count = inputs.len();
                return Err(format!("this model has {count} inputs: write `input = {{ {first} = [...], ... }}`"));
            };
            self.inputs.insert(only.name.clone(), value);
        }
        if let Some(port) = inputs.iter().find(|port| !self.inputs.contains_key(&port.name)) {
            return Err(format!("golden sample has no values for input {}", port.name));
        }
        for (what, given, ports) in [("input", &self.inputs, inputs), ("output", &self.outputs, outputs)] {
            for (name, value) in given {
                let Some(port) = ports.iter().find(|port| port.name == *name) else {
                    let known: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
                    return Err(format!("golden sample has {name}, which is no {what}: there is {}", known.join(", ")));
                };
                value.fits(port)?;
            }
        }
        Ok(self)
    }
}

impl GoldenValue {
    fn fits(&self, port: &Port) -> Result<(), String> {
        let (count, is_text) = match self {
            Self::Numbers(values) => (values.as_slice().len(), false),
            Self::Texts(texts) => (texts.len(), true),
            Self::File(_) => return Ok(()),
        };
        let Port { name, shape, datatype, .. } = port;
        if is_text != (*datatype == Datatype::Bytes) {
            let given = if is_text { "texts" } else { "numbers" };
            return Err(format!("golden {name} has {given}, expected {datatype}"));
        }
        match port.sample_shape(count) {
            Some(_) => Ok(()),
            None => Err(format!("golden {name} has {count} values, which do not fill the shape {shape:?}")),
        }
    }
}

/// One element of a list.
enum Item {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Item, E> {
                if value.is_finite() { Ok(Item::Number(value)) } else { Err(E::custom(NOT_FINITE)) }
            }

            #[allow(clippy::cast_precision_loss, reason = "models compute in 32 bits")]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Item, E> {
                Ok(Item::Number(value as f64))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Item, E> {
                Ok(Item::Number(f64::from(u8::from(value))))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Item, E> {
                Ok(Item::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// One value, or a table of values by name.
enum Given {
    One(GoldenValue),
    Table(BTreeMap<String, GoldenValue>),
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueOrTable;
        impl<'de> Visitor<'de> for ValueOrTable {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers or texts, a table with file and sha256, or a table of these by name")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Given, E> {
                let one = Values::one(value).ok_or_else(|| E::custom(NOT_FINITE))?;
                Ok(Given::One(GoldenValue::Numbers(one)))
            }

            #[allow(clippy::cast_precision_loss, reason = "models compute in 32 bits")]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Given, E> {
                self.visit_f64(value as f64)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Given, E> {
                self.visit_f64(f64::from(u8::from(value)))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Given, E> {
                Ok(Given::One(GoldenValue::Texts(vec![value.to_owned()])))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
                let (mut numbers, mut texts) = (Vec::new(), Vec::new());
                while let Some(item) = seq.next_element()? {
                    match item {
                        Item::Number(number) => numbers.push(number),
                        Item::Text(text) => texts.push(text),
                    }
                }
                match (numbers.is_empty(), texts.is_empty()) {
                    (_, true) => Values::of(numbers).map(|values| Given::One(GoldenValue::Numbers(values))),
                    (true, false) => Ok(Given::One(GoldenValue::Texts(texts))),
                    (false, false) => Err("a list has numbers or texts, not both".to_owned()),
                }
                .map_err(Error::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                let mut table = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    // A table that begins with a file's name or digest is that file: no tensor may be called so here.
                    if table.is_empty() && (name == "file" || name == "sha256") {
                        let rest = FileFrom { first: Some(name), map };
                        let file = Deserialize::deserialize(MapAccessDeserializer::new(rest))?;
                        return Ok(Given::One(GoldenValue::File(file)));
                    }
                    table.insert(name, map.next_value()?);
                }
                Ok(Given::Table(table))
            }
        }
        deserializer.deserialize_any(ValueOrTable)
    }
}

/// The rest of a table whose first key has been read.
struct FileFrom<A> {
    first: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for FileFrom<A> {
    type Error = A::Error;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(serde::de::value::StringDeserializer::new(first)).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<'de> Deserialize<'de> for GoldenValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Given::deserialize(deserializer)? {
            Given::One(value) => Ok(value),
            Given::Table(_) => {
                Err(Error::custom("a tensor is a number, a text, a list of them, or a table with file and sha256"))
            }
        }
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
                let (inputs, outputs) = (BTreeMap::new(), BTreeMap::new());
                let mut golden = Golden { inputs, outputs, tolerance: TOLERANCE, relative_tolerance: 0.0 };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "input" => match map.next_value()? {
                            Given::One(value) => drop(golden.inputs.insert(ONLY_INPUT.to_owned(), value)),
                            Given::Table(table) => golden.inputs = table,
                        },
                        "output" => golden.outputs.extend(map.next_value::<BTreeMap<String, GoldenValue>>()?),
                        "tolerance" => golden.tolerance = map.next_value::<Number>()?.0,
                        "relative_tolerance" => golden.relative_tolerance = map.next_value::<Number>()?.0,
                        _ => drop(golden.outputs.insert(key, map.next_value()?)),
                    }
                }
                Ok(golden)
            }
        }
        deserializer.deserialize_map(Sample)
    }
}
