//! An inference request over HTTP: JSON, with tensors' elements in it, as binary data behind it, or in shared memory.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::apart::{Apart, take_apart};
use super::{elements, not_numbers, numbers};
use crate::base::{Datatype, Tensor, shape_of};
use crate::doors::http::problem::Problem;
use crate::doors::shared_memory::{InRegion, Place};
use crate::flows::inference::{NamedTensor, TensorMetadata, Wanted};

const TENSORS_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 8;

#[derive(Deserialize)]
struct RawRequest<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<RawTensor<'a>>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
    #[serde(default)]
    parameters: RequestParameters,
}

#[derive(Deserialize)]
struct RawTensor<'a> {
    name: String,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct RequestParameters {
    /// All outputs as binary data, unless an output says otherwise.
    #[serde(default)]
    binary_data_output: bool,
    /// Microseconds that the caller waits.
    timeout: Option<u64>,
    /// 1 is computed first, 9 last.
    #[serde(default)]
    priority: u64,
    /// Tell what each step of a pipeline did.
    #[serde(default)]
    forebay_steps: bool,
    /// Requests that belong together go to the same version; 0 and an empty one are none.
    sequence_id: Option<SequenceId>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `sequence_id` to be a whole number or a text")]
enum SequenceId {
    Number(u64),
    Text(String),
}

impl SequenceId {
    fn key(self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number).filter(|&number| number > 0).map(|number| number.to_string()),
            Self::Text(text) => Some(text).filter(|text| !text.is_empty()),
        }
    }
}

#[derive(Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<u64>,
    shared_memory_region: Option<String>,
    shared_memory_offset: Option<u64>,
    shared_memory_byte_size: Option<u64>,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<usize>,
    shared_memory_region: Option<String>,
    shared_memory_offset: Option<u64>,
    shared_memory_byte_size: Option<u64>,
}

/// How outputs are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// For outputs that say nothing themselves.
    binary: bool,
    /// For those that do, by their place among the wanted ones.
    each: Vec<Option<bool>>,
    /// Regions that outputs go into, the same way.
    places: Vec<Option<Place>>,
    /// With what each step of a pipeline did.
    pub(super) tells_steps: bool,
}

impl Form {
    /// Whether the output at this place is binary data.
    pub(super) fn is_binary(&self, at: usize) -> bool {
        self.place(at).is_none() && self.each.get(at).copied().flatten().unwrap_or(self.binary)
    }

    /// The region that the output at this place goes into, if it does.
    pub(super) fn place(&self, at: usize) -> Option<&Place> {
        self.places.get(at)?.as_ref()
    }
}

/// One inference request, its tensors ready for the engine.
#[derive(Debug)]
pub(super) struct InferRequest {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<NamedTensor>,
    /// Further ones, which are still to be read.
    pub(super) in_regions: Vec<InRegion>,
    /// None: all of them.
    pub(super) outputs: Vec<Wanted>,
    pub(super) form: Form,
    pub(super) timeout: Option<Duration>,
    pub(super) priority: u64,
    pub(super) sequence: Option<String>,
}

impl InferRequest {
    /// Reads the JSON, and the binary data that came behind it.
    pub(super) fn parse(json: &[u8], binary: Bytes) -> Result<Self, Problem> {
        // What the fast way does not read may be wrong, or only unusual: the other way knows.
        if let Some(apart) = take_apart(json)
            && let Ok(raw) = serde_json::from_slice(&apart.rest)
            && let Ok(request) = Self::of(raw, binary.clone(), Some(&apart))
        {
            return Ok(request);
        }
        let raw: RawRequest<'_> = serde_json::from_slice(json).map_err(|error| {
            let told = not_numbers::find(json).unwrap_or_else(|| format!("not an inference request: {error}"));
            bad(told).hint("see GET /v2/models/{model}")
        })?;
        Self::of(raw, binary, None)
    }

    /// With `apart`, each `data` is the number of one of its arrays.
    fn of(raw: RawRequest<'_>, mut binary: Bytes, apart: Option<&Apart<'_>>) -> Result<Self, Problem> {
        if raw.inputs.is_empty() || raw.inputs.len() > TENSORS_MAX || raw.outputs.len() > TENSORS_MAX {
            return Err(bad(format!("1 to {TENSORS_MAX} inputs and at most {TENSORS_MAX} outputs, please")));
        }
        let (mut inputs, mut in_regions) = (Vec::with_capacity(raw.inputs.len()), Vec::new());
        if let Some(apart) = apart
            && raw.inputs.iter().filter(|input| input.data.is_some()).count() != apart.arrays.len()
        {
            // Nobody would look at the others.
            return Err(bad("an array where none belongs"));
        }
        for input in raw.inputs {
            match read_tensor(input, &mut binary, apart)? {
                Read::Here(tensor) => inputs.push(tensor),
                Read::InRegion(input) => in_regions.push(input),
            }
        }
        if !binary.is_empty() {
            return Err(bad(format!("{} bytes of binary data belong to no input", binary.len()))
                .hint("`binary_data_size` of the inputs must add up to what follows the JSON"));
        }
        let form = Form {
            binary: raw.parameters.binary_data_output,
            each: raw.outputs.iter().map(|output| output.parameters.binary_data).collect(),
            places: raw.outputs.iter().map(place_of).collect::<Result<_, _>>()?,
            tells_steps: raw.parameters.forebay_steps,
        };
        let outputs = raw.outputs.into_iter().map(wanted).collect();
        let timeout = raw.parameters.timeout.filter(|&micros| micros > 0).map(Duration::from_micros);
        let sequence = raw.parameters.sequence_id.and_then(SequenceId::key);
        let priority = raw.parameters.priority;
        Ok(Self { id: raw.id, inputs, in_regions, outputs, form, timeout, priority, sequence })
    }

    /// A body that is nothing but the one input's elements, as the header's value 0 announces: the shape is the model's,
    /// with a batch of one.
    pub(super) fn raw(body: Bytes, inputs: &[TensorMetadata]) -> Result<Self, Problem> {
        let [input] = inputs else {
            return Err(bad(format!("a raw body is one input's elements, this model has {} inputs", inputs.len()))
                .hint("send the inference request as JSON with binary data behind it"));
        };
        let tensor = raw_tensor(input, body).map_err(|what| bad(format!("input {:?}: {what}", input.name)))?;
        let inputs = vec![NamedTensor { name: input.name.clone(), tensor }];
        let form = Form { binary: true, ..Form::default() };
        let (in_regions, outputs) = (Vec::new(), Vec::new());
        Ok(Self { id: None, inputs, in_regions, outputs, form, timeout: None, priority: 0, sequence: None })
    }
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn wanted(output: RawOutput) -> Wanted {
    let classes = output.parameters.classification.filter(|&classes| classes > 0);
    Wanted { name: output.name, classes }
}

/// A region with its bytes; without an offset, from its beginning.
fn place(region: Option<String>, offset: Option<u64>, bytes: Option<u64>) -> Result<Option<Place>, String> {
    match (region, bytes) {
        (Some(region), Some(bytes)) => Ok(Some(Place { region, offset: offset.unwrap_or(0), bytes })),
        (Some(region), None) => Err(format!("it lies in region {region:?} without `shared_memory_byte_size`")),
        (None, _) => Ok(None),
    }
}

fn place_of(output: &RawOutput) -> Result<Option<Place>, Problem> {
    let wrong = |what: &str| bad(format!("output {:?}: {what}", output.name));
    let OutputParameters { shared_memory_region, shared_memory_offset, shared_memory_byte_size, .. } =
        &output.parameters;
    let place = place(shared_memory_region.clone(), *shared_memory_offset, *shared_memory_byte_size);
    let place = place.map_err(|what| wrong(&what))?;
    if place.is_some() && output.parameters.classification.is_some_and(|classes| classes > 0) {
        return Err(wrong("it cannot have both `shared_memory_region` and `classification`"));
    }
    if place.is_some() && output.parameters.binary_data == Some(true) {
        return Err(wrong("it cannot have both `shared_memory_region` and `binary_data`"));
    }
    Ok(place)
}

/// An input, or where it is.
enum Read {
    Here(NamedTensor),
    InRegion(InRegion),
}

fn read_tensor(raw: RawTensor<'_>, binary: &mut Bytes, apart: Option<&Apart<'_>>) -> Result<Read, Problem> {
    let RawTensor { name, shape, datatype, data, parameters } = raw;
    let wrong = |what: String| bad(format!("input {name:?}: {what}"));
    let datatype = Datatype::named(&datatype).ok_or_else(|| {
        let words = Datatype::ALL.map(Datatype::as_str).join(", ");
        wrong(format!("no datatype {datatype:?}")).hint(format!("it is one of {words}"))
    })?;
    if shape.len() > DIMENSIONS_MAX {
        return Err(wrong(format!("over {DIMENSIONS_MAX} dimensions")));
    }
    let shape = shape_of(&shape).map_err(|error| wrong(error.to_string()))?;
    let InputParameters { binary_data_size, shared_memory_region, shared_memory_offset, shared_memory_byte_size } =
        parameters;
    if let Some(place) = place(shared_memory_region, shared_memory_offset, shared_memory_byte_size).map_err(wrong)? {
        if data.is_some() || binary_data_size.is_some() {
            return Err(wrong("it lies in a region and is in the request as well".to_owned()));
        }
        return Ok(Read::InRegion(InRegion { name, datatype, shape, place }));
    }
    let tensor = match (binary_data_size, data) {
        (Some(_), Some(_)) => return Err(wrong("it has both `data` and `binary_data_size`".to_owned())),
        (None, None) => {
            return Err(wrong("it has no `data`".to_owned()).hint("or say `binary_data_size` in its parameters"));
        }
        (Some(size), None) => match usize::try_from(size).ok().filter(|&size| size <= binary.len()) {
            None => {
                let left = binary.len();
                return Err(wrong(format!("binary_data_size is {size}, the body has {left} bytes left for it")));
            }
            Some(size) => Tensor::from_bytes(datatype, shape, binary.split_to(size)).map_err(|error| error.to_string()),
        },
        (None, Some(data)) => match apart {
            None => elements::read(datatype, &shape, data),
            Some(apart) => {
                let array = data.get().parse::<usize>().ok().and_then(|at| apart.arrays.get(at));
                array
                    .and_then(|array| numbers::read(datatype, &shape, array))
                    .ok_or_else(|| "it is not plainly an array of numbers".to_owned())
            }
        },
    };
    let tensor = tensor.map_err(wrong)?;
    Ok(Read::Here(NamedTensor { name, tensor }))
}

fn raw_tensor(input: &TensorMetadata, body: Bytes) -> Result<Tensor, String> {
    let free = input.shape.iter().enumerate().filter(|&(_, &dim)| dim < 0).map(|(at, _)| at).collect::<Vec<_>>();
    // A free first dimension is the batch; any other would have to be guessed.
    if free.iter().any(|&at| at > 0) {
        return Err(format!("its shape {:?} has sizes that a raw body does not tell", input.shape));
    }
    let shape: Vec<i64> = input.shape.iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
    let shape = shape_of(&shape).map_err(|error| error.to_string())?;
    if input.datatype == Datatype::Bytes {
        return Tensor::of_texts(shape, [body]).map_err(|error| error.to_string());
    }
    Tensor::from_bytes(input.datatype, shape, body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, binary: &'static [u8]) -> Result<InferRequest, String> {
        InferRequest::parse(json.as_bytes(), Bytes::from_static(binary)).map_err(|problem| problem.message)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_numbers().unwrap()
    }

    #[test]
    fn binary_data_follow_the_json_in_the_inputs_order() {
        let json = r#"{"id":"7","inputs":[
            {"name":"a","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},
            {"name":"b","shape":[1],"datatype":"FP32","data":[0.5]},
            {"name":"c","shape":[1,2],"datatype":"BYTES","parameters":{"binary_data_size":9}}],
            "outputs":[{"name":"y","parameters":{"binary_data":false,"classification":3}},{"name":"z"}],
            "parameters":{"binary_data_output":true,"timeout":1500,"priority":3}}"#;
        let request = parse(json, b"\x01\x00\xff\xff\x01\x00\x00\x00x\x00\x00\x00\x00").unwrap();
        assert_eq!(numbers(&request.inputs[0].tensor), [1.0, -1.0]);
        assert_eq!(numbers(&request.inputs[1].tensor), [0.5]);
        assert_eq!(request.inputs[2].tensor.texts().unwrap().collect::<Vec<_>>(), [&b"x"[..], b""]);
        assert_eq!(request.outputs[0], Wanted { name: "y".to_owned(), classes: Some(3) });
        assert_eq!(
            (request.form.is_binary(0), request.form.is_binary(1), request.form.is_binary(2)),
            (false, true, true)
        );
        assert_eq!((request.timeout, request.priority), (Some(Duration::from_micros(1500)), 3));
        assert_eq!(request.id.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_wrong_names_the_input_and_both_figures() {
        let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#);
        for (rest, binary, says) in [
            (r#""shape":[2],"datatype":"FP8","data":[1,2]"#, "", "input \"x\": no datatype \"FP8\""),
            (r#""shape":[2],"datatype":"FP32""#, "", "input \"x\": it has no `data`"),
            (r#""shape":[-1],"datatype":"FP32","data":[1]"#, "", "input \"x\": shape [-1] has a negative dimension"),
            (r#""shape":[9223372036854775807,9],"datatype":"FP32","data":[1]"#, "", "is larger than memory can be"),
            (r#""shape":[1,1,1,1,1,1,1,1,1],"datatype":"FP32","data":[1]"#, "", "input \"x\": over 8 dimensions"),
            (
                r#""shape":[1],"datatype":"INT16","parameters":{"binary_data_size":4}"#,
                "ab",
                "input \"x\": binary_data_size is 4, the body has 2 bytes left for it",
            ),
            (
                r#""shape":[2],"datatype":"INT16","parameters":{"binary_data_size":2}"#,
                "ab",
                "input \"x\": shape [2] of INT16 has 4 bytes, given 2",
            ),
            (
                r#""shape":[1],"datatype":"INT16","parameters":{"binary_data_size":2}"#,
                "abc",
                "1 bytes of binary data belong to no input",
            ),
            (
                r#""shape":[1],"datatype":"INT16","data":[1],"parameters":{"binary_data_size":2}"#,
                "ab",
                "it has both `data` and `binary_data_size`",
            ),
            (
                r#""shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}"#,
                "",
                "input \"x\": it lies in region \"r\" without `shared_memory_byte_size`",
            ),
            (
                r#""shape":[1],"datatype":"FP32","data":[1],"parameters":{"shared_memory_region":"r","shared_memory_byte_size":4}"#,
                "",
                "input \"x\": it lies in a region and is in the request as well",
            ),
            (
                r#""shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":-4}"#,
                "",
                "invalid value: integer `-4`",
            ),
            (r#""shape":[1],"datatype":"FP32","data":[1]}],"inputs":[{"name":"x""#, "", "duplicate field `inputs`"),
        ] {
            let error = parse(&input(rest), binary.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{rest}: {error}");
        }
        assert!(parse(r#"{"inputs":[]}"#, b"").is_err());
    }

    #[test]
    fn both_ways_of_reading_json_read_the_same_and_what_is_odd_is_read_by_one() {
        let request = |data: &str| format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32",{data},"shape":[2]}}]}}"#);
        let of = |json: &str| {
            let apart = take_apart(json.as_bytes());
            let fast = apart.as_ref().and_then(|apart| {
                InferRequest::of(serde_json::from_slice(&apart.rest).ok()?, Bytes::new(), Some(apart)).ok()
            });
            (fast.is_some(), parse(json, b"").map(|request| numbers(&request.inputs[0].tensor)).ok())
        };
        let both = Some(vec![0.5, -2.0]);
        let escaped = "\"d\\u0061ta\":[0.5,-2]";
        assert_eq!(of(&request(escaped)), (false, both.clone()));
        assert_eq!(of(&request(r#""parameters":{"data":[1]},"data":[0.5,-2]"#)), (false, both));
        for wrong in [
            r#""data":[0.5,-2"#,
            r#""data":[0.5]"#,
            r#""data":[0.5,-2],"data":[0.5,-2]"#,
            r#""data":[0.5,,-2]"#,
            r#""data":[0.5,-2]]"#,
            r#""data":0,"parameters":{"data":[0.5,-2]}"#,
        ] {
            assert_eq!(of(&request(wrong)), (false, None), "{wrong}");
        }
    }

    #[test]
    fn tensors_in_regions_are_found_by_name_and_outputs_go_there_alone() {
        let request = |parameters: &str| {
            let json = format!(
                r#"{{"inputs":[
                {{"name":"a","shape":[2],"datatype":"INT16","data":[1,2]}},
                {{"name":"b","shape":[2],"datatype":"FP32","parameters":{{"shared_memory_region":"r","shared_memory_byte_size":8,"shared_memory_offset":16}}}}],
                "outputs":[{{"name":"y","parameters":{{"shared_memory_region":"s","shared_memory_byte_size":8{parameters}}}}},{{"name":"z"}}],
                "parameters":{{"binary_data_output":true}}}}"#
            );
            parse(&json, b"")
        };
        let asked = request("").unwrap();
        assert_eq!((asked.inputs.len(), asked.in_regions.len()), (1, 1));
        assert_eq!(asked.in_regions[0].place, Place { region: "r".to_owned(), offset: 16, bytes: 8 });
        assert_eq!(asked.form.place(0), Some(&Place { region: "s".to_owned(), offset: 0, bytes: 8 }));
        assert!(!asked.form.is_binary(0) && asked.form.is_binary(1) && asked.form.place(1).is_none());
        assert!(
            request(r#","classification":2"#).unwrap_err().contains("both `shared_memory_region` and `classification`")
        );
        assert!(request(r#","binary_data":true"#).unwrap_err().contains("and `binary_data`"));
        assert!(request(r#","binary_data":false,"classification":0"#).is_ok());
    }

    #[test]
    fn a_raw_body_is_the_one_inputs_elements_with_a_batch_of_one() {
        let port = |datatype, shape: &[i64]| TensorMetadata { name: "x".to_owned(), datatype, shape: shape.to_vec() };
        let raw = |ports: &[TensorMetadata], body: &'static [u8]| {
            InferRequest::raw(Bytes::from_static(body), ports).map_err(|problem| problem.message)
        };
        let request = raw(&[port(Datatype::Uint8, &[-1, 3])], b"abc").unwrap();
        assert_eq!(request.inputs[0].tensor.shape(), [1, 3]);
        assert!(request.form.is_binary(0));
        let text = raw(&[port(Datatype::Bytes, &[1])], b"abc").unwrap();
        assert_eq!(text.inputs[0].tensor.texts().unwrap().collect::<Vec<_>>(), [b"abc"]);
        assert!(raw(&[port(Datatype::Uint8, &[-1, 4])], b"abc").unwrap_err().contains("has 4 bytes, given 3"));
        assert!(raw(&[port(Datatype::Uint8, &[3, -1])], b"abc").unwrap_err().contains("does not tell"));
        assert!(raw(&[port(Datatype::Uint8, &[3]), port(Datatype::Uint8, &[3])], b"abc").is_err());
    }

    #[test]
    fn a_sequence_is_a_number_or_a_text_and_0_is_none() {
        let sequence = |id: &str| {
            let json = format!(
                r#"{{"inputs":[{{"name":"a","shape":[1],"datatype":"FP32","data":[1]}}],"parameters":{{"sequence_id":{id}}}}}"#
            );
            parse(&json, b"").map(|request| request.sequence)
        };
        assert_eq!(sequence("7"), Ok(Some("7".to_owned())));
        assert_eq!(sequence("\"seven\""), Ok(Some("seven".to_owned())));
        assert_eq!((sequence("0"), sequence("\"\""), sequence("null")), (Ok(None), Ok(None), Ok(None)));
        for wrong in ["-1", "1.5", "[]", "true"] {
            assert!(sequence(wrong).unwrap_err().contains("sequence_id"), "{wrong}");
        }
    }
}
