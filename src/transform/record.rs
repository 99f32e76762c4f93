//! A JSON record to one row of a tensor: fields in order, scaled, one-hot, with what stands for a missing value.

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;

use super::error::Error;
use super::port::{Port, fill};
use crate::base::{Datatype, Tensor};

const FIELDS_MAX: usize = 4096;

/// `kind = "record"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordConfig {
    pub(super) name: Option<String>,
    pub(super) tensor: Option<String>,
    /// In the tensor's order.
    pub(super) fields: Vec<FieldConfig>,
}

/// One field. A name alone is a number as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct FieldConfig(Field);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    /// (x - mean) / std
    mean: Option<f64>,
    std: Option<f64>,
    /// (x - min) / (max - min)
    min: Option<f64>,
    max: Option<f64>,
    /// A column for each of these texts, 1 where it is the value.
    one_hot: Option<Vec<String>>,
    /// The value's place in this list.
    index_of: Option<Vec<String>>,
    /// What a text that is not in the list becomes: an error if left out, else all zeros (`one_hot`) or this number.
    unknown: Option<f64>,
    /// The number or text in place of one that is null or not there; without it that is an error.
    missing: Option<Missing>,
    /// The field is a list of so many numbers.
    length: Option<usize>,
    /// For people.
    #[serde(default)]
    unit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Missing {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for FieldConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(name) => Ok(Self(Field { name, ..Field::default() })),
            other => other
                .try_into()
                .map(Self)
                .map_err(|error: toml::de::Error| de::Error::custom(format!("field: {}", error.message().trim()))),
        }
    }
}

/// Makes rows.
#[derive(Debug)]
pub(super) struct Record {
    fields: Vec<Column>,
    port: Port,
}

#[derive(Debug)]
struct Column {
    name: String,
    width: usize,
    form: Form,
    missing: Option<Missing>,
    unit: Option<String>,
}

#[derive(Debug)]
enum Form {
    /// (x - shift) / scale
    Number {
        shift: f64,
        scale: f64,
    },
    OneHot {
        words: Vec<String>,
        or_zeros: bool,
    },
    Index {
        words: Vec<String>,
        unknown: Option<f64>,
    },
    Text,
}

impl Record {
    pub(super) fn build(config: RecordConfig, port: Port) -> Result<Self, Error> {
        let wrong = |field: &str, expected: &str, given: String| {
            Err(Error::step(format!("[[predict.input]] record: field {field:?}"), &port.name, expected, given))
        };
        if config.fields.is_empty() || config.fields.len() > FIELDS_MAX {
            return wrong("", &format!("1 to {FIELDS_MAX} fields"), config.fields.len().to_string());
        }
        let texts = port.datatype == Datatype::Bytes;
        let mut fields: Vec<Column> = Vec::new();
        for FieldConfig(field) in config.fields {
            let name = field.name.clone();
            if fields.iter().any(|other| other.name == name) {
                return wrong(&name, "each field once", "it twice".to_owned());
            }
            match column(field, texts) {
                Ok(column) => fields.push(column),
                Err((expected, given)) => return wrong(&name, expected, given),
            }
        }
        let width: usize = fields.iter().map(|field| field.width).sum();
        match port.row_elements() {
            Some(elements) if elements != width => {
                let expected = format!("fields that fill a row of {:?}, which is {elements} elements", port.shape);
                Err(Error::step("[[predict.input]] record: fields", &port.name, expected, format!("{width}")))
            }
            _ if port.row_shape(width).is_none() => {
                let expected = format!("fields that fill a row of {:?}", port.shape);
                Err(Error::step("[[predict.input]] record: fields", &port.name, expected, format!("{width}")))
            }
            _ => Ok(Self { fields, port }),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// A row of the tensor, with a batch of one.
    pub(super) fn row(&self, record: &Value, at: &str) -> Result<Tensor, Error> {
        let lookup = |place: usize, name: &str| match record {
            Value::Object(fields) => Ok(fields.get(name)),
            Value::Array(values) if values.len() == self.fields.len() => Ok(values.get(place)),
            Value::Array(values) => Err(Error::content(
                at,
                format!("{} values in the order {}", self.fields.len(), self.names().collect::<Vec<_>>().join(", ")),
                format!("{} values", values.len()),
            )),
            other => Err(Error::content(at, "an object with the fields, or a list of their values", brief(other))),
        };
        let mut numbers = Vec::new();
        let mut texts = Vec::new();
        for (place, field) in self.fields.iter().enumerate() {
            let given = lookup(place, &field.name)?.unwrap_or(&Value::Null);
            field.put(given, &format!("{at}, field {:?}", field.name), &mut numbers, &mut texts)?;
        }
        if self.port.datatype == Datatype::Bytes {
            let shape = self.port.row_shape(texts.len()).unwrap_or_else(|| vec![1, texts.len()]);
            return Tensor::of_texts(shape, texts).map_err(|error| Error::content(at, "texts", error.to_string()));
        }
        fill(&self.port, &numbers, at)
    }
}

type Fault = (&'static str, String);

fn column(field: Field, texts: bool) -> Result<Column, Fault> {
    let Field { name, mean, std, min, max, one_hot, index_of, unknown, missing, length, unit } = field;
    if name.is_empty() {
        return Err(("a name", "none".to_owned()));
    }
    let scaled = mean.is_some() || std.is_some() || min.is_some() || max.is_some();
    let words = |words: &Vec<String>| {
        let double = (1..words.len()).any(|at| words[..at].contains(&words[at]));
        if words.is_empty() || double { Err(("a list of different texts", format!("{words:?}"))) } else { Ok(()) }
    };
    let (form, width) = match (one_hot, index_of) {
        _ if texts && (scaled || length.is_some()) => {
            return Err(("a text as it is for a tensor of BYTES", "scaling or a length".to_owned()));
        }
        (None, None) if texts => (Form::Text, 1),
        _ if texts => return Err(("a text as it is for a tensor of BYTES", "one_hot or index_of".to_owned())),
        (Some(_), Some(_)) => return Err(("one_hot or index_of", "both".to_owned())),
        (Some(_), None) | (None, Some(_)) if scaled || length.is_some() => {
            return Err(("a text without scaling and length", "both".to_owned()));
        }
        (Some(list), None) => {
            words(&list)?;
            if unknown.is_some_and(|unknown| unknown != 0.0) {
                return Err(("unknown = 0 with one_hot: all its columns are 0", format!("{unknown:?}")));
            }
            let width = list.len();
            (Form::OneHot { words: list, or_zeros: unknown.is_some() }, width)
        }
        (None, Some(list)) => {
            words(&list)?;
            (Form::Index { words: list, unknown }, 1)
        }
        (None, None) => {
            let (shift, scale) = match (mean, std, min, max) {
                (None, None, None, None) => (0.0, 1.0),
                (Some(mean), Some(std), None, None) => (mean, std),
                (None, None, Some(min), Some(max)) => (min, max - min),
                _ => return Err(("mean and std, or min and max, or neither", "another choice of them".to_owned())),
            };
            if !(shift.is_finite() && scale.is_finite() && scale > 0.0) {
                return Err(("a spread (std, or max - min) above 0", scale.to_string()));
            }
            if unknown.is_some() {
                return Err(("unknown only with one_hot or index_of", "it with a number".to_owned()));
            }
            let width = length.unwrap_or(1);
            if width == 0 || width > FIELDS_MAX {
                return Err(("a length of 1 to 4096", width.to_string()));
            }
            (Form::Number { shift, scale }, width)
        }
    };
    let fits = match (&missing, &form) {
        (Some(Missing::Text(_)), Form::Number { .. }) => Err(("a number for `missing`", "a text".to_owned())),
        (Some(Missing::Number(_)), Form::Number { .. }) | (None, _) | (Some(Missing::Text(_)), _) => Ok(()),
        (Some(Missing::Number(_)), _) => Err(("a text for `missing`", "a number".to_owned())),
    };
    fits.map(|()| Column { name, width, form, missing, unit })
}

impl Column {
    fn put(&self, given: &Value, at: &str, numbers: &mut Vec<f64>, texts: &mut Vec<String>) -> Result<(), Error> {
        let filled;
        let given = match (given, &self.missing) {
            (Value::Null, Some(Missing::Number(number))) => {
                numbers.extend(std::iter::repeat_n(self.scaled(*number), self.width));
                return Ok(());
            }
            (Value::Null, Some(Missing::Text(text))) => {
                filled = Value::String(text.clone());
                &filled
            }
            _ => given,
        };
        let wrong = |expected: String| Err(Error::content(at, expected, brief(given)));
        let in_unit = self.unit.as_ref().map(|unit| format!(" in {unit}")).unwrap_or_default();
        match &self.form {
            Form::Number { .. } if self.width == 1 => match number(given) {
                Some(value) => numbers.push(self.scaled(value)),
                None => return wrong(format!("a number{in_unit}")),
            },
            Form::Number { .. } => {
                let list = given.as_array().filter(|list| list.len() == self.width);
                let list = list.and_then(|list| list.iter().map(number).collect::<Option<Vec<_>>>());
                match list {
                    Some(list) => numbers.extend(list.into_iter().map(|value| self.scaled(value))),
                    None => return wrong(format!("a list of {} numbers{in_unit}", self.width)),
                }
            }
            Form::OneHot { words, or_zeros } => match text(given) {
                Some(word) if *or_zeros || words.contains(&word) => {
                    numbers.extend(words.iter().map(|known| f64::from(u8::from(*known == word))));
                }
                _ => return wrong(format!("one of {}", words.join(", "))),
            },
            Form::Index { words, unknown } => match text(given) {
                Some(word) => match words.iter().position(|known| *known == word) {
                    Some(place) => numbers.push(place as f64),
                    None => match unknown {
                        Some(unknown) => numbers.push(*unknown),
                        None => return wrong(format!("one of {}", words.join(", "))),
                    },
                },
                None => return wrong(format!("one of {}", words.join(", "))),
            },
            Form::Text => match text(given) {
                Some(word) => texts.push(word),
                None => return wrong("a text".to_owned()),
            },
        }
        Ok(())
    }

    fn scaled(&self, value: f64) -> f64 {
        match self.form {
            Form::Number { shift, scale } => (value - shift) / scale,
            _ => value,
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        other => other.as_f64(),
    }
}

/// Categories are often written as numbers.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A value as a message shows it.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        Value::String(text) if text.chars().count() > 32 => format!("a text of {} bytes", text.len()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(datatype: Datatype, shape: &[i64]) -> Port {
        Port { name: "features".to_owned(), datatype, shape: shape.to_vec(), labels: Vec::new(), unit: None }
    }

    fn build(fields: &str, port: Port) -> Result<Record, String> {
        let config: RecordConfig = toml::from_str(&format!("fields = {fields}")).map_err(|error| error.to_string())?;
        Record::build(config, port).map_err(|error| error.to_string())
    }

    const FIELDS: &str = r#"["rpm", { name = "load", mean = 50, std = 10, missing = 50 },
        { name = "tool", one_hot = ["drill", "mill"], unknown = 0 }, { name = "shift", index_of = ["early", "late"] },
        { name = "axes", length = 2, min = -1, max = 1 }]"#;

    #[test]
    fn fields_become_columns_in_the_manifests_order() {
        let record = build(FIELDS, port(Datatype::Fp32, &[-1, 7])).unwrap();
        let row = |value: Value| record.row(&value, "record").map(|row| row.to_numbers().unwrap());
        let whole = json!({"shift": "late", "tool": "mill", "rpm": 900, "load": 70, "axes": [0, 1]});
        assert_eq!(row(whole).unwrap(), [900.0, 2.0, 0.0, 1.0, 1.0, 0.5, 1.0]);
        let sparse = json!([true, null, "saw", "early", [-1, -1]]);
        assert_eq!(row(sparse).unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(record.row(&json!([1, 1, "saw", "late", [0, 0]]), "").unwrap().shape(), [1, 7]);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_would_be_right() {
        let record = build(FIELDS, port(Datatype::Fp32, &[-1, 7])).unwrap();
        for (given, says) in [
            (json!({"load": 1}), "instance 1, field \"rpm\": expected a number, given nothing"),
            (json!({"rpm": "fast"}), "field \"rpm\": expected a number, given \"fast\""),
            (json!({"rpm": 1, "tool": "mill", "shift": "noon"}), "field \"shift\": expected one of early, late"),
            (json!({"rpm": 1, "tool": ["mill"]}), "field \"tool\": expected one of drill, mill, given a list of 1"),
            (
                json!({"rpm": 1, "tool": "", "shift": "late", "axes": [1]}),
                "field \"axes\": expected a list of 2 numbers",
            ),
            (json!([1, 2]), "expected 5 values in the order rpm, load, tool, shift, axes, given 2 values"),
            (json!("1,2"), "expected an object with the fields"),
        ] {
            let error = record.row(&given, "instance 1").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let whole = build(r#"["n"]"#, port(Datatype::Int64, &[-1, 1])).unwrap();
        let error = whole.row(&json!({"n": 1.5}), "instance 1").unwrap_err().to_string();
        assert!(error.contains("INT64") && error.contains("1.5"), "{error}");
    }

    #[test]
    fn texts_fill_a_tensor_of_texts() {
        let record = build(r#"["tool", { name = "grade", missing = "B" }]"#, port(Datatype::Bytes, &[-1, 2])).unwrap();
        let row = record.row(&json!({"tool": "mill"}), "record").unwrap();
        assert_eq!(row.texts().unwrap().collect::<Vec<_>>(), [&b"mill"[..], b"B"]);
    }

    #[test]
    fn fields_that_cannot_be_are_refused_when_the_model_is_loaded() {
        for (fields, says) in [
            ("[]", "1 to 4096 fields"),
            (r#"["a", "a"]"#, "each field once"),
            (r#"["a", "b", "c"]"#, "a row of [-1, 2], which is 2 elements, given 3"),
            (r#"["a", { name = "b", std = 1 }]"#, "mean and std, or min and max"),
            (r#"["a", { name = "b", mean = 1, std = 0 }]"#, "a spread (std, or max - min) above 0, given 0"),
            (r#"["a", { name = "b", one_hot = ["x", "x"] }]"#, "a list of different texts"),
            (r#"["a", { name = "b", onehot = ["x"] }]"#, "unknown field `onehot`"),
            (r#"["a", { name = "b", missing = "x" }]"#, "a number for `missing`"),
            (r#"["a", { name = "b", unknown = 1 }]"#, "unknown only with"),
        ] {
            let error = build(fields, port(Datatype::Fp32, &[-1, 2])).unwrap_err();
            assert!(error.contains(says), "{fields}: {error}");
        }
    }
}
