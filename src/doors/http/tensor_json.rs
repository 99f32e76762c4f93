//! Tensors in JSON as the Open Inference Protocol writes them: flat or nested, row-major.
//!
//! The engines compute in 32-bit floats. Numbers that would silently become others are refused: integers that a
//! 32-bit float cannot hold, and values beyond its range. A 64-bit float is rounded, as every engine would.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::base::Tensor;
use crate::flows::inference::NamedTensor;

const TENSORS_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 8;
/// Whole numbers up to here are exact in a 32-bit float.
const EXACT_MAX: f64 = 16_777_216.0;

#[derive(Deserialize)]
struct RawRequest {
    id: Option<String>,
    inputs: Vec<RawTensor>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Value,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
}

/// One inference request, its tensors ready for the engine.
#[derive(Debug)]
pub(super) struct InferRequest {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<NamedTensor>,
    /// Outputs asked for by name, in that order; all of them when empty.
    pub(super) outputs: Vec<String>,
}

impl InferRequest {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let raw: RawRequest = serde_json::from_slice(body)
            .map_err(|error| bad(format!("not an inference request: {error}")).hint("see GET /v2/models/{model}"))?;
        if raw.inputs.is_empty() || raw.inputs.len() > TENSORS_MAX || raw.outputs.len() > TENSORS_MAX {
            return Err(bad(format!("1 to {TENSORS_MAX} inputs and at most {TENSORS_MAX} outputs, please")));
        }
        let inputs = raw.inputs.into_iter().map(read_tensor).collect::<Result<_, _>>()?;
        Ok(Self { id: raw.id, inputs, outputs: raw.outputs.into_iter().map(|output| output.name).collect() })
    }
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn read_tensor(raw: RawTensor) -> Result<NamedTensor, Problem> {
    let RawTensor { name, shape, datatype, data } = raw;
    let kind = Kind::of(&datatype).ok_or_else(|| {
        bad(format!("input {name:?}: datatype {datatype:?} cannot be read here"))
            .hint("use FP32, FP64, BOOL, or INT8 to INT64 and UINT8 to UINT64")
    })?;
    if shape.len() > DIMENSIONS_MAX {
        return Err(bad(format!("input {name:?}: over {DIMENSIONS_MAX} dimensions")));
    }
    let mut values = Vec::new();
    let nested = matches!(&data, Value::Array(items) if items.iter().any(Value::is_array));
    flatten(&data, if nested { &shape } else { &[] }, nested, kind, &mut values)
        .map_err(|what| bad(format!("input {name:?}: {what}")))?;
    let tensor = Tensor::new(shape, values).map_err(|error| bad(format!("input {name:?}: {error}")))?;
    Ok(NamedTensor { name, tensor })
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Float,
    Integer { min: f64, max: f64 },
    Bool,
}

impl Kind {
    fn of(datatype: &str) -> Option<Self> {
        Some(match datatype {
            "FP32" | "FP64" => Self::Float,
            "BOOL" => Self::Bool,
            "INT8" => Self::Integer { min: f64::from(i8::MIN), max: f64::from(i8::MAX) },
            "INT16" => Self::Integer { min: f64::from(i16::MIN), max: f64::from(i16::MAX) },
            "INT32" | "INT64" => Self::Integer { min: -EXACT_MAX, max: EXACT_MAX },
            "UINT8" => Self::Integer { min: 0.0, max: f64::from(u8::MAX) },
            "UINT16" => Self::Integer { min: 0.0, max: f64::from(u16::MAX) },
            "UINT32" | "UINT64" => Self::Integer { min: 0.0, max: EXACT_MAX },
            _ => return None,
        })
    }

    fn read(self, value: &Value) -> Result<f32, String> {
        match (self, value) {
            (Self::Bool, Value::Bool(truth)) => Ok(f32::from(u8::from(*truth))),
            (Self::Float, Value::Number(number)) => match number.as_f64().map(|number| number as f32) {
                Some(number) if number.is_finite() => Ok(number),
                _ => Err(format!("{number} does not fit a 32-bit float")),
            },
            (Self::Integer { min, max }, Value::Number(number)) => match number.as_f64() {
                Some(whole) if whole.fract() == 0.0 && (min..=max).contains(&whole) => Ok(whole as f32),
                _ => Err(format!("{number} is not a whole number from {min} to {max}")),
            },
            (kind, other) => Err(format!("{other} is not a value of kind {kind:?}")),
        }
    }
}

/// Appends row-major. Nested data must follow the shape level by level; flat data is checked by its length later.
fn flatten(data: &Value, shape: &[usize], nested: bool, kind: Kind, into: &mut Vec<f32>) -> Result<(), String> {
    match (data, nested) {
        (Value::Array(items), true) => {
            let Some((&dim, inner)) = shape.split_first() else {
                return Err("data is nested deeper than its shape".into());
            };
            if items.len() != dim {
                return Err(format!("a level of data has {} items where the shape says {dim}", items.len()));
            }
            items.iter().try_for_each(|item| flatten(item, inner, true, kind, into))
        }
        (Value::Array(items), false) => items.iter().try_for_each(|item| {
            into.push(kind.read(item)?);
            Ok(())
        }),
        (value, true) if shape.is_empty() => {
            into.push(kind.read(value)?);
            Ok(())
        }
        _ => Err("data is not an array of the tensor's shape".into()),
    }
}

/// Outputs as JSON, flat.
pub(super) fn write_outputs(outputs: &[NamedTensor], asked: &[String]) -> Result<Vec<Value>, Problem> {
    let write = |output: &NamedTensor| {
        // JSON has no NaN: it becomes null, which a client notices.
        json!({ "name": output.name, "datatype": "FP32", "shape": output.tensor.shape(), "data": output.tensor.data() })
    };
    if asked.is_empty() {
        return Ok(outputs.iter().map(write).collect());
    }
    let find = |name: &String| {
        let found = outputs.iter().find(|output| output.name == *name);
        found.map(write).ok_or_else(|| bad(format!("the model has no output {name:?}")))
    };
    asked.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(shape: &str, datatype: &str, data: &str) -> Result<Vec<f32>, String> {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data},"parameters":{{}}}}]}}"#
        );
        let request = InferRequest::parse(body.as_bytes()).map_err(|problem| problem.message)?;
        Ok(request.inputs[0].tensor.data().to_vec())
    }

    #[test]
    fn flat_and_nested_data_are_the_same_tensor() {
        let flat = parse("[2,2]", "FP32", "[1,2.5,3,4]").unwrap();
        assert_eq!(flat, [1.0, 2.5, 3.0, 4.0]);
        assert_eq!(flat, parse("[2,2]", "FP64", "[[1,2.5],[3,4]]").unwrap());
        assert_eq!(parse("[1,1,2]", "BOOL", "[[[true,false]]]").unwrap(), [1.0, 0.0]);
        assert_eq!(parse("[3]", "INT64", "[-1,0,16777216]").unwrap(), [-1.0, 0.0, 16_777_216.0]);
    }

    #[test]
    fn numbers_that_would_become_others_are_refused() {
        for (datatype, data) in [
            ("INT64", "[16777217]"),
            ("INT8", "[128]"),
            ("UINT8", "[-1]"),
            ("INT32", "[1.5]"),
            ("FP64", "[1e39]"),
            ("FP32", "[null]"),
            ("FP32", "[\"1\"]"),
            ("BOOL", "[1]"),
            ("BYTES", "[\"a\"]"),
        ] {
            assert!(parse("[1]", datatype, data).is_err(), "{datatype} {data}");
        }
    }

    #[test]
    fn data_must_have_the_shape_it_names() {
        for (shape, data) in [
            ("[2,2]", "[1,2,3]"),
            ("[2,2]", "[[1,2],[3]]"),
            ("[2,2]", "[[1,2],[3,[4]]]"),
            ("[4]", "[[1,2],[3,4]]"),
            ("[2,2]", "[[1,2],3]"),
            ("[0]", "[]"),
            ("[1]", "1"),
            ("[1,1,1,1,1,1,1,1,1]", "[1]"),
            ("[18446744073709551615,2]", "[1,2]"),
        ] {
            assert!(parse(shape, "FP32", data).is_err(), "{shape} {data}");
        }
    }

    #[test]
    fn asked_outputs_come_in_the_order_asked_and_unknown_ones_are_an_error() {
        let output = |name: &str| NamedTensor { name: name.into(), tensor: Tensor::new(vec![1], vec![0.5]).unwrap() };
        let outputs = [output("a"), output("b")];
        let names = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
            write_outputs(&outputs, &asked).map(|found| found.iter().map(|o| o["name"].clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        assert!(names(&["c"]).is_err());
    }
}
