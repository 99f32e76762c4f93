//! A prediction as JSON.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::doors::http::oip::header_text;
use crate::flows::pipeline_tally::StepReport;
use crate::flows::predict::{Lap, Predicted, Prediction};

#[derive(serde::Serialize)]
struct Body<'a> {
    model_name: &'a str,
    model_version: String,
    engine: &'a str,
    /// Why it was not computed by whom it should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    predictions: Vec<One<'a>>,
    timing: Timing<'a>,
}

#[derive(serde::Serialize)]
struct Timing<'a> {
    total_us: u64,
    waited_us: u64,
    steps: &'a [Lap],
    /// What each step of a pipeline did.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pipeline: &'a [StepReport],
}

/// One instance's outputs by name.
struct One<'a>(&'a Prediction);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(first) = self.0.first {
            map.serialize_entry("instance", &self.0.instance)?;
            map.serialize_entry("first_reading", &first)?;
        }
        for (name, answer) in &self.0.answers {
            map.serialize_entry(name, answer)?;
        }
        map.end()
    }
}

pub(super) fn answer(predicted: &Predicted) -> Response {
    let mut response = Json(Body {
        model_name: &predicted.model,
        model_version: predicted.version.to_string(),
        engine: &predicted.engine,
        fallback: predicted.fallback.as_deref(),
        predictions: predicted.predictions.iter().map(One).collect(),
        timing: Timing {
            total_us: predicted.total_us,
            waited_us: predicted.waited_us,
            steps: &predicted.laps,
            pipeline: &predicted.pipeline,
        },
    })
    .into_response();
    if let Some(fallback) = predicted.fallback.as_deref().and_then(header_text) {
        response.headers_mut().insert("x-forebay-fallback", fallback);
    }
    response
}
