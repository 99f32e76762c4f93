//! Events of OpenAI's responses.

use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, responses};

use super::body::pass_renamed;

/// Passes events on and reads the usage.
pub(super) struct Pass {
    model_shown: Option<String>,
    finish: Option<Finish>,
    sequence: u64,
}

impl Pass {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { model_shown: asked.model_shown.clone(), finish: None, sequence: 0 }
    }
}

impl Translate for Pass {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else {
            frame.keep_alive(out);
            return Ok(Step::More);
        };
        if data.starts_with(b"[DONE]") {
            // Some servers end these streams as they end those of chat.
            return Ok(if self.finish.is_some() { Step::Done } else { Step::More });
        }
        let malformed = Error::Malformed { dialect: Dialect::Responses, what: "event of the stream" };
        let event: responses::Event<'_> = json::object(data).ok_or(malformed.clone())?;
        self.sequence += 1;
        let kind = event.kind.as_ref();
        if matches!(kind, "error" | "response.failed") {
            let members = Members::parse(data).map_err(|_| malformed)?;
            return Ok(Step::Failed(responses::failure_of(&members)));
        }
        if kind.ends_with(".delta")
            && let Some(text) = event.delta.and_then(json::inner)
        {
            meter.said(text);
        }
        let mut model = None;
        let mut ends = false;
        if let Some(response) = event.response.map(Members::lenient) {
            model = response.get("model");
            if let Some(usage) = responses::usage_in(&response) {
                meter.told(&usage);
            }
            ends = matches!(kind, "response.completed" | "response.incomplete");
            if ends {
                self.finish = responses::finish_of(&response).or(Some(Finish::Other));
            }
        }
        pass_renamed(frame.raw, model, self.model_shown.as_deref(), out);
        Ok(if ends { Step::Done } else { Step::More })
    }

    fn close(&mut self, _: &mut Vec<u8>, _: &mut Meter) -> bool {
        self.finish.is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        responses::error_event(failure, self.sequence, out);
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
