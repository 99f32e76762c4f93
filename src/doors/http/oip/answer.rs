//! An inference answer over HTTP: JSON, and binary data behind it where the caller wants them; compressed where that pays.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::BINARY;
use super::elements::Elements;
use super::request::Form;
use super::sending::Sending;
use crate::doors::http::encoding::{self, Encoding};
use crate::doors::shared_memory::Place;
use crate::flows::inference::{Inferred, NamedTensor};
use crate::flows::pipeline_tally::StepReport;

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Told<'a>>,
    outputs: Vec<Output<'a>>,
}

/// What is to be told beside the outputs.
#[derive(Serialize)]
struct Told<'a> {
    /// With the next: it was not computed by whom it should have been, another version or another engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    forebay_engine: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forebay_fallback: Option<&'a str>,
    /// What each step of a pipeline did, where the caller wants to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    forebay_steps: Option<&'a [StepReport]>,
}

impl<'a> Told<'a> {
    fn of(inferred: &'a Inferred, form: &Form) -> Option<Self> {
        let forebay_fallback = inferred.fallback.as_deref();
        let forebay_engine = forebay_fallback.map(|_| inferred.engine.as_str());
        let forebay_steps = Some(inferred.steps.as_slice()).filter(|steps| form.tells_steps && !steps.is_empty());
        let told = forebay_fallback.is_some() || forebay_steps.is_some();
        told.then_some(Self { forebay_engine, forebay_fallback, forebay_steps })
    }
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parameters<'a> {
    Behind { binary_data_size: usize },
    InRegion { shared_memory_region: &'a str, shared_memory_offset: u64, shared_memory_byte_size: usize },
}

/// What the caller gets, in `encoding` where one is given. Outputs that go into regions are there already. `sending` hears
/// when it is gone.
pub(super) async fn answer(
    inferred: &Inferred,
    id: Option<&str>,
    form: &Form,
    encoding: Option<(Encoding, usize)>,
    sending: Option<Sending>,
) -> Response {
    let (mut headers, mut body) = plain(inferred, id, form);
    if let Some((encoding, _)) = encoding.filter(|&(_, least)| body.len() >= least) {
        match encoding::fold(encoding, body).await {
            Ok(folded) => {
                body = folded;
                encoding::say(encoding, &mut headers);
            }
            Err(error) => {
                tracing::error!(%error, "an answer could not be compressed");
                return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    }
    let body = Bytes::from(body);
    let body = match sending {
        Some(sending) => sending.carry(body),
        None => body,
    };
    (headers, body).into_response()
}

fn plain(inferred: &Inferred, id: Option<&str>, form: &Form) -> (HeaderMap, Vec<u8>) {
    let outputs = inferred.outputs.iter().enumerate();
    let outputs = outputs.map(|(at, output)| describe(output, form.is_binary(at), form.place(at)));
    let answer = Answer {
        model_name: &inferred.model,
        model_version: inferred.version.to_string(),
        id,
        parameters: Told::of(inferred, form),
        outputs: outputs.collect(),
    };
    let mut body = serde_json::to_vec(&answer).expect("texts and numbers are always JSON");
    let mut headers = HeaderMap::new();
    let tensors = inferred.outputs.iter().enumerate();
    let binary: Vec<&Bytes> =
        tensors.filter(|&(at, _)| form.is_binary(at)).map(|(_, output)| output.tensor.bytes()).collect();
    if binary.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(BINARY, HeaderValue::from(body.len()));
        body.reserve(binary.iter().map(|bytes| bytes.len()).sum());
        binary.iter().for_each(|bytes| body.extend_from_slice(bytes));
    }
    if let Ok(engine) = HeaderValue::from_str(&inferred.engine) {
        headers.insert("x-forebay-engine", engine);
    }
    if let Some(fallback) = inferred.fallback.as_deref().and_then(header_text) {
        headers.insert("x-forebay-fallback", fallback);
    }
    headers.insert("x-forebay-duration-us", HeaderValue::from(inferred.duration_us));
    (headers, body)
}

/// Longest text that goes into a header; the body has all of it.
const HEADER_BYTES: usize = 512;

/// A text as a header can have it.
pub(in crate::doors::http) fn header_text(text: &str) -> Option<HeaderValue> {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    HeaderValue::from_str(&text.chars().take(HEADER_BYTES).map(plain).collect::<String>()).ok()
}

fn describe<'a>(output: &'a NamedTensor, binary: bool, place: Option<&'a Place>) -> Output<'a> {
    let tensor = &output.tensor;
    let bytes = tensor.bytes().len();
    let parameters = match place {
        None => binary.then_some(Parameters::Behind { binary_data_size: bytes }),
        Some(place) => Some(Parameters::InRegion {
            shared_memory_region: &place.region,
            shared_memory_offset: place.offset,
            shared_memory_byte_size: bytes,
        }),
    };
    Output {
        name: &output.name,
        datatype: tensor.datatype().as_str(),
        shape: tensor.shape(),
        parameters,
        data: (!binary && place.is_none()).then_some(Elements(tensor)),
    }
}
