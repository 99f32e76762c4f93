//! What the cloud asks of a gateway: read, held to a rate, done by the story that it names, answered. Everything that is
//! asked stands in the log with what became of it.
//!
//! Whoever asks gives the request a name. The same name is fulfilled once, so a question without an answer is asked
//! again. `docs/batch.cddl` describes both messages, as JSON and as CBOR; the answer speaks as the question did.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::form::Form;
use super::lease::{id_of, is_lease};
use super::rate::{Pass, Rate};
use super::raw::{Enqueued, Raw, RawError, Wanted};
use crate::base::{Clock, Name};
use crate::uplink::{CloudMessage, Message};

/// The format's version.
const VERSION: u32 = 1;
/// Readings on each side of an alarm where the request does not say how many.
const MARGIN: u64 = 144;
/// Longest reason in an answer.
const MAX_REASON_BYTES: usize = 512;

/// One request of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudRequest {
    /// The format's version, 1.
    pub v: u32,
    /// Its name: 1 to 64 visible ASCII characters. The same name on the same stream is the same request.
    pub id: String,
    /// What is asked for.
    pub what: Ask,
    /// Of which stream.
    pub stream: Name,
    /// Start, ms since 1970, source time; with `to_ms` and without `alarm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// End, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<i64>,
    /// The alarm's number on its box, as its record says; without times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<i64>,
    /// Readings before the one that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Readings from the one that raised it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Readings as they came, as rows of class `raw`.
    RawWindow,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The rows are in the durable queue, on their way.
    Queued,
    /// They were on their way before: the request came again.
    Repeated,
    /// Not now; the same request may be fulfilled later.
    Later,
    /// Not as it stands.
    Refused,
}

/// The gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudAnswer {
    /// The format's version, 1.
    pub v: u32,
    /// The request's name; empty if it could not be read.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Readings on their way.
    #[serde(default)]
    pub readings: u64,
    /// Rows of class `raw` that hold them.
    #[serde(default)]
    pub rows: u32,
    /// First reading's number in its stream.
    #[serde(default)]
    pub first: u64,
    /// Last reading's number.
    #[serde(default)]
    pub last: u64,
    /// True if the box has not, or no longer, everything that was asked for, or if it was too much for one request.
    #[serde(default)]
    pub truncated: bool,
}

impl CloudAnswer {
    fn without(id: &str, outcome: Outcome, reason: impl Into<String>) -> Self {
        let mut reason: String = reason.into();
        reason.truncate(
            (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0),
        );
        let (id, reason) = (id.to_owned(), Some(reason));
        Self { v: VERSION, id, outcome, reason, readings: 0, rows: 0, first: 0, last: 0, truncated: false }
    }

    fn of(enqueued: Enqueued) -> Self {
        let Enqueued { request: id, first_seq: first, last_seq: last, readings, rows, truncated, repeated, .. } =
            enqueued;
        let outcome = if repeated { Outcome::Repeated } else { Outcome::Queued };
        Self { v: VERSION, id, outcome, reason: None, readings, rows, first, last, truncated }
    }

    /// Reads an answer in JSON.
    pub fn from_json(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

impl CloudRequest {
    /// As the gateway takes it.
    pub fn to_json(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("numbers and texts"))
    }

    fn wanted(&self) -> Result<Wanted, &'static str> {
        match *self {
            Self { v, .. } if v != VERSION => Err("this gateway reads requests of version 1"),
            Self { from_ms: Some(from_ms), to_ms: Some(to_ms), alarm: None, before: None, after: None, .. } => {
                if from_ms <= to_ms {
                    Ok(Wanted::Between { from_ms, to_ms })
                } else {
                    Err("from_ms lies after to_ms")
                }
            }
            Self { alarm: Some(alarm), before, after, from_ms: None, to_ms: None, .. } => {
                Ok(Wanted::Around { alarm, before: before.unwrap_or(MARGIN), after: after.unwrap_or(MARGIN) })
            }
            _ => Err("ask for from_ms and to_ms, or for an alarm with before and after"),
        }
    }
}

/// What the flow counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct RequestMetrics {
    /// Requests that came.
    pub asked: Counter,
    /// Requests whose rows are on their way, repeated ones included.
    pub fulfilled: Counter,
    /// Requests that were refused or put off.
    pub refused: Counter,
    /// Requests beyond the rate that were not even answered.
    pub dropped: Counter,
}

impl RequestMetrics {
    /// Puts the counters into `registry`, as `requests_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("requests");
        registry.register("asked", "Requests of the cloud", self.asked.clone());
        registry.register("fulfilled", "Requests whose rows are on their way", self.fulfilled.clone());
        registry.register("refused", "Requests refused or put off", self.refused.clone());
        registry.register("dropped", "Requests beyond the rate, unanswered", self.dropped.clone());
    }
}

/// Answers the cloud.
pub struct Requests {
    raw: Arc<Raw>,
    asked: mpsc::Receiver<CloudMessage>,
    say: mpsc::Sender<Message>,
    /// Where answers go.
    topic: String,
    clock: Arc<dyn Clock>,
    rate: Rate,
    metrics: RequestMetrics,
}

impl Requests {
    /// Over the two ends that [`Sync::requests`](super::Sync::requests) gives; answers go to `topic`.
    pub fn new(
        raw: Arc<Raw>,
        (asked, say): (mpsc::Receiver<CloudMessage>, mpsc::Sender<Message>),
        topic: String,
        per_minute: u32,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let rate = Rate::new(per_minute, clock.since_boot());
        Self { raw, asked, say, topic, clock, rate, metrics: RequestMetrics::default() }
    }

    /// The counters.
    pub fn metrics(&self) -> &RequestMetrics {
        &self.metrics
    }

    /// Answers one request after the other until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => return,
                message = self.asked.recv() => message,
            };
            let Some(CloudMessage { payload, done, .. }) = message else { return };
            self.metrics.asked.inc();
            let form = Form::of(&payload);
            let Some(answer) = self.answer(form, &payload).await else {
                self.metrics.dropped.inc();
                continue;
            };
            match answer.outcome {
                Outcome::Queued | Outcome::Repeated => self.metrics.fulfilled.inc(),
                Outcome::Later | Outcome::Refused => self.metrics.refused.inc(),
            };
            // Whoever keeps it brings it again later.
            if let Some(done) = done.filter(|_| answer.outcome != Outcome::Later) {
                done.tell();
            }
            let message = Message { topic: self.topic.clone(), payload: Bytes::from(form.write(&answer)) };
            if self.say.try_send(message).is_err() {
                tracing::warn!(request.id = answer.id, "the answer to the cloud found no room; it asks again");
            }
        }
    }

    async fn answer(&mut self, form: Form, payload: &[u8]) -> Option<CloudAnswer> {
        let request = form.read::<CloudRequest>(payload);
        // A name that is none is not repeated, neither in the log nor in the answer.
        let id = request.as_ref().ok().map(|request| request.id.as_str()).filter(|id| Raw::is_name(id)).unwrap_or("");
        match self.rate.pass(self.clock.since_boot()) {
            Pass::Yes => {}
            Pass::No => {
                tracing::warn!(request.id = id, "the cloud asks too often");
                let reason = format!("at most {} requests a minute; ask again later", self.rate.per_minute);
                return Some(CloudAnswer::without(id, Outcome::Later, reason));
            }
            Pass::Silence => return None,
        }
        let request = match &request {
            Ok(request) => request,
            Err(_) if is_lease(payload) => {
                tracing::warn!(
                    "the cloud lends a part of a budget, and no questions to language models are answered here"
                );
                let reason = "this gateway answers no questions to language models, so nothing can be lent to it";
                return Some(CloudAnswer::without(&id_of(payload), Outcome::Refused, reason));
            }
            Err(reason) => {
                tracing::warn!(reason, "a request of the cloud cannot be read");
                return Some(CloudAnswer::without("", Outcome::Refused, format!("it cannot be read: {reason}")));
            }
        };
        let stream = request.stream.as_str();
        let outcome = match request.wanted() {
            Ok(wanted) => match self.raw.enqueue(stream, &request.id, wanted).await {
                Ok(enqueued) => Ok(enqueued),
                Err(error @ (RawError::Full | RawError::Store(_) | RawError::Outbox(_))) => {
                    Err((Outcome::Later, error.to_string()))
                }
                Err(error) => Err((Outcome::Refused, error.to_string())),
            },
            Err(reason) => Err((Outcome::Refused, reason.to_owned())),
        };
        Some(match outcome {
            Ok(enqueued) => {
                let answer = CloudAnswer::of(enqueued);
                tracing::info!(
                    request.id = id,
                    stream,
                    readings = answer.readings,
                    rows = answer.rows,
                    truncated = answer.truncated,
                    repeated = answer.outcome == Outcome::Repeated,
                    "the cloud asked for raw readings: on their way"
                );
                answer
            }
            Err((outcome, reason)) => {
                tracing::warn!(request.id = id, stream, reason, "the cloud asked for raw readings: refused");
                CloudAnswer::without(id, outcome, reason)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CloudRequest {
        CloudRequest {
            v: 1,
            id: "shift-7".to_owned(),
            what: Ask::RawWindow,
            stream: Name::new("press").unwrap(),
            from_ms: None,
            to_ms: None,
            alarm: Some(7),
            before: None,
            after: Some(10),
        }
    }

    #[test]
    fn a_request_reads_the_same_from_json_and_from_cbor_and_the_answer_speaks_as_it_did() {
        let json = r#"{"v":1,"id":"shift-7","what":"raw_window","stream":"press","alarm":7,"after":10}"#.as_bytes();
        let mut cbor = Vec::new();
        ciborium::into_writer(&request(), &mut cbor).unwrap();
        for payload in [json, &cbor] {
            assert_eq!(Form::of(payload).read::<CloudRequest>(payload).unwrap(), request());
        }
        assert_eq!((Form::of(json), Form::of(&cbor)), (Form::Json, Form::Cbor));
        assert_eq!(request().wanted(), Ok(Wanted::Around { alarm: 7, before: MARGIN, after: 10 }));
        let answer = CloudAnswer::without("shift-7", Outcome::Refused, "é".repeat(400));
        assert_eq!(answer.reason.as_ref().unwrap().len(), MAX_REASON_BYTES);
        assert_eq!(CloudAnswer::from_json(&Form::Json.write(&answer)), Some(answer.clone()));
        assert_eq!(ciborium::from_reader::<CloudAnswer, _>(Form::Cbor.write(&answer).as_slice()).unwrap(), answer);
    }

    #[test]
    fn what_is_unclear_or_unknown_is_refused_with_what_would_be_right() {
        let unclear = [
            CloudRequest { v: 2, ..request() },
            CloudRequest { alarm: None, ..request() },
            CloudRequest { from_ms: Some(1), to_ms: Some(2), ..request() },
            CloudRequest { from_ms: Some(2), to_ms: Some(1), alarm: None, after: None, ..request() },
        ];
        for request in unclear {
            request.wanted().unwrap_err();
        }
        for payload in [
            r#"{"v":1,"id":"a","what":"shell","stream":"press"}"#,
            r#"{"v":1,"id":"a","what":"raw_window","stream":"../press"}"#,
            r#"{"v":1,"id":"a","what":"raw_window","stream":"press","command":"rm"}"#,
            "{",
            "",
        ] {
            Form::of(payload.as_bytes()).read::<CloudRequest>(payload.as_bytes()).unwrap_err();
        }
    }
}
