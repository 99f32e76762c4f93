//! Tensors in JSON as the Open Inference Protocol writes them: flat or nested, row-major.
//!
//! Numbers that would silently become others are refused: fractions and values beyond a type's range. A float is
//! rounded to the nearest of its type.

use axum::http::StatusCode;
use half::f16;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::base::{self, Datatype, Tensor};
use crate::flows::inference::NamedTensor;

const TENSORS_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 8;
/// Whole numbers below are exact in a 64-bit float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

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
    let datatype = Datatype::named(&datatype).ok_or_else(|| {
        let known = Datatype::ALL.map(Datatype::as_str).join(", ");
        bad(format!("input {name:?}: no datatype {datatype:?}")).hint(format!("there are {known}"))
    })?;
    if shape.len() > DIMENSIONS_MAX {
        return Err(bad(format!("input {name:?}: over {DIMENSIONS_MAX} dimensions")));
    }
    let tensor = read_data(datatype, &shape, &data).map_err(|what| bad(format!("input {name:?}: {what}")))?;
    Ok(NamedTensor { name, tensor })
}

/// One element of JSON as one of a tensor; the error says what it is not.
trait Element: base::Element {
    fn read(value: &Value) -> Option<Self>;
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Element for $type {
            fn read(value: &Value) -> Option<Self> {
                let whole = value.as_i64().and_then(|number| number.try_into().ok());
                // 1e3 and 5.0 are whole numbers, too.
                whole.or_else(|| value.as_u64()?.try_into().ok()).or_else(|| {
                    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < EXACT_MAX)?;
                    (number as i64).try_into().ok()
                })
            }
        }
    )*};
}

whole!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Element for bool {
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Element for f64 {
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Element for f32 {
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
    }
}

impl Element for f16 {
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().map(f16::from_f64).filter(|number| number.is_finite())
    }
}

/// The elements of `data`, row-major. Nested data must follow the shape level by level; flat data is checked by its length
/// later.
fn elements<'a>(data: &'a Value, shape: &[usize]) -> Result<Vec<&'a Value>, String> {
    fn nested<'a>(data: &'a Value, shape: &[usize], into: &mut Vec<&'a Value>) -> Result<(), String> {
        match (data, shape.split_first()) {
            (Value::Array(_), None) => Err("data is nested deeper than its shape".into()),
            (Value::Array(items), Some((&dim, inner))) if items.len() == dim => {
                items.iter().try_for_each(|item| nested(item, inner, into))
            }
            (Value::Array(items), Some((dim, _))) => {
                Err(format!("a level of data has {} items where the shape says {dim}", items.len()))
            }
            (value, None) => {
                into.push(value);
                Ok(())
            }
            _ => Err("data is not an array of the tensor's shape".into()),
        }
    }
    let Value::Array(items) = data else { return Err("data is not an array of the tensor's shape".into()) };
    if items.iter().any(Value::is_array) {
        let mut into = Vec::new();
        nested(data, shape, &mut into)?;
        Ok(into)
    } else {
        Ok(items.iter().collect())
    }
}

fn read_elements<T: Element>(shape: &[usize], elements: &[&Value]) -> Result<Tensor, String> {
    let read = |value: &&Value| T::read(value).ok_or_else(|| format!("{value} is no {}", T::DATATYPE));
    let elements = elements.iter().map(read).collect::<Result<Vec<T>, _>>()?;
    Tensor::new(shape, elements).map_err(|error| error.to_string())
}

fn read_data(datatype: Datatype, shape: &[usize], data: &Value) -> Result<Tensor, String> {
    let elements = elements(data, shape)?;
    match datatype {
        Datatype::Bool => read_elements::<bool>(shape, &elements),
        Datatype::Uint8 => read_elements::<u8>(shape, &elements),
        Datatype::Uint16 => read_elements::<u16>(shape, &elements),
        Datatype::Uint32 => read_elements::<u32>(shape, &elements),
        Datatype::Uint64 => read_elements::<u64>(shape, &elements),
        Datatype::Int8 => read_elements::<i8>(shape, &elements),
        Datatype::Int16 => read_elements::<i16>(shape, &elements),
        Datatype::Int32 => read_elements::<i32>(shape, &elements),
        Datatype::Int64 => read_elements::<i64>(shape, &elements),
        Datatype::Fp16 => read_elements::<f16>(shape, &elements),
        Datatype::Fp32 => read_elements::<f32>(shape, &elements),
        Datatype::Fp64 => read_elements::<f64>(shape, &elements),
        Datatype::Bytes => {
            let text = |value: &&Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text"));
            let texts = elements.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            Tensor::of_texts(shape, texts).map_err(|error| error.to_string())
        }
    }
}

fn write_data(tensor: &Tensor) -> Value {
    macro_rules! list {
        ($type:ty) => {
            json!(tensor.as_slice::<$type>().unwrap_or_default())
        };
    }
    match tensor.datatype() {
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
        Datatype::Fp16 | Datatype::Fp64 => json!(tensor.to_numbers()),
        // JSON has texts only: what is not UTF-8 loses its odd bytes.
        Datatype::Bytes => {
            tensor.texts().into_iter().flatten().map(|text| json!(String::from_utf8_lossy(text))).collect()
        }
    }
}

/// Outputs as JSON, flat.
pub(super) fn write_outputs(outputs: &[NamedTensor], asked: &[String]) -> Result<Vec<Value>, Problem> {
    let write = |output: &NamedTensor| {
        // JSON has no NaN: it becomes null, which a client notices.
        let tensor = &output.tensor;
        json!({
            "name": output.name,
            "datatype": tensor.datatype().as_str(),
            "shape": tensor.shape(),
            "data": write_data(tensor),
        })
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

    fn parse(shape: &str, datatype: &str, data: &str) -> Result<Tensor, String> {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data},"parameters":{{}}}}]}}"#
        );
        let mut request = InferRequest::parse(body.as_bytes()).map_err(|problem| problem.message)?;
        Ok(request.inputs.remove(0).tensor)
    }

    #[test]
    fn flat_and_nested_data_are_the_same_tensor() {
        let flat = parse("[2,2]", "FP32", "[1,2.5,3,4]").unwrap();
        assert_eq!(flat.as_slice::<f32>().unwrap(), [1.0, 2.5, 3.0, 4.0]);
        assert_eq!(flat, parse("[2,2]", "FP32", "[[1,2.5],[3,4]]").unwrap());
        assert_eq!(parse("[1,1,2]", "BOOL", "[[[true,false]]]").unwrap().as_slice::<bool>().unwrap(), [true, false]);
        assert_eq!(parse("[0,3]", "FP32", "[]").unwrap().elements(), 0);
    }

    #[test]
    fn every_datatype_is_read_and_written_as_it_is() {
        for (datatype, data) in [
            ("BOOL", "[true,false]"),
            ("INT8", "[-128,127]"),
            ("INT16", "[-32768,32767]"),
            ("INT32", "[-2147483648,2147483647]"),
            ("INT64", "[-9223372036854775808,9223372036854775807]"),
            ("UINT8", "[0,255]"),
            ("UINT16", "[0,65535]"),
            ("UINT32", "[0,4294967295]"),
            ("UINT64", "[0,18446744073709551615]"),
            ("FP16", "[0.5,-65504.0]"),
            ("FP32", "[0.5,-1.25]"),
            ("FP64", "[0.1,-1e300]"),
            ("BYTES", "[\"low\",\"h\u{f6}ch\"]"),
        ] {
            let tensor = parse("[2]", datatype, data).unwrap();
            assert_eq!(tensor.datatype().as_str(), datatype);
            assert_eq!(write_data(&tensor), serde_json::from_str::<Value>(data).unwrap(), "{datatype}");
        }
    }

    #[test]
    fn numbers_that_would_become_others_are_refused() {
        for (datatype, data) in [
            ("INT64", "[9223372036854775808]"),
            ("INT8", "[128]"),
            ("UINT8", "[-1]"),
            ("INT32", "[1.5]"),
            ("FP32", "[1e39]"),
            ("FP16", "[65536]"),
            ("FP32", "[null]"),
            ("FP32", "[\"1\"]"),
            ("BOOL", "[1]"),
            ("BYTES", "[1]"),
            ("FP8", "[1]"),
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
            ("[1]", "1"),
            ("[1,1,1,1,1,1,1,1,1]", "[1]"),
            ("[18446744073709551615,2]", "[1,2]"),
        ] {
            assert!(parse(shape, "FP32", data).is_err(), "{shape} {data}");
        }
    }

    #[test]
    fn asked_outputs_come_in_the_order_asked_and_unknown_ones_are_an_error() {
        let output = |name: &str| NamedTensor { name: name.into(), tensor: Tensor::new([1], vec![0.5_f32]).unwrap() };
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
