//! OpenAI's responses.

use super::Teller;
use crate::dialect::responses::Response;
use crate::dialect::talk::SIGNATURE_MARK;
use crate::dialect::{Asked, Error, Failure, Finish, Usage};

/// Why a response is not whole.
fn incomplete(finish: Finish) -> Option<&'static str> {
    match finish {
        Finish::Length => Some("max_output_tokens"),
        Finish::Filtered => Some("content_filter"),
        Finish::Stop | Finish::ToolCalls | Finish::Other => None,
    }
}

/// Events, or one body.
pub(super) struct Responses {
    response: Response,
    streams: bool,
}

impl Responses {
    pub(super) fn new(asked: &Asked, streams: bool) -> Self {
        let response = if streams { Response::streamed(asked) } else { Response::at_once(asked) };
        Self { response, streams }
    }
}

impl Teller for Responses {
    fn model(&mut self, name: &str) {
        self.response.name(Some(name));
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.response.text(out, inner)
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.response.reasoning(out, inner)
    }

    fn signature(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.response.encrypted(out, inner)
    }

    fn redacted(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.response.reasoning_ends(out);
        self.response.encrypted(out, inner)?;
        self.response.reasoning_ends(out);
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        // Gemini's signature goes with the reasoning before the call, from where it is taken back.
        if let Some(signature) = signature {
            self.response.encrypted(out, &format!("{SIGNATURE_MARK}{signature}"))?;
        }
        self.response.call(out, id, name).map(|_| ())
    }

    fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.response.arguments(out, inner)
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let why = incomplete(finish);
        self.response.end(out, why, usage);
        if !self.streams {
            out.extend(self.response.whole(why, usage));
        }
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.response.fail(out, failure);
    }
}
