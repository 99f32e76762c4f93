//! Gemini's answers and the frames of its streams, which have the same form.

use super::{Ids, Told};
use crate::dialect::frame::Frame;
use crate::dialect::gemini::{finish_of, usage_of};
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pair::Step;
use crate::dialect::talk::escape;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

pub(super) struct Listener {
    ids: Ids,
    finish: Option<Finish>,
}

impl Listener {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { ids: Ids::new(asked), finish: None }
    }

    fn hear(&mut self, data: &[u8], to: &mut Told<'_>) -> Result<Step, Error> {
        let malformed = |what| Error::Malformed { dialect: Dialect::Gemini, what };
        let frame = Members::parse(data).map_err(|_| malformed("answer"))?;
        if frame.get("error").is_some() {
            return Ok(Step::Failed(Failure::read(Dialect::Gemini, 200, data)));
        }
        if let Some(model) = frame.text("modelVersion") {
            to.teller.model(&model);
        }
        if let Some(usage) = frame.get("usageMetadata") {
            to.meter.told(&usage_of(usage));
        }
        // A prompt that was blocked has no candidates.
        if frame.get("promptFeedback").is_some_and(|raw| Members::lenient(raw).get("blockReason").is_some()) {
            self.finish = Some(Finish::Filtered);
        }
        let candidates = frame.get("candidates").map(json::lenient_elements).unwrap_or_default();
        let Some(candidate) = candidates.first().map(|raw| Members::lenient(raw)) else { return Ok(Step::More) };
        let content = candidate.get("content").map(Members::lenient).unwrap_or_default();
        for part in content.get("parts").map(json::lenient_elements).unwrap_or_default() {
            self.part(part, to)?;
        }
        if let Some(reason) = candidate.text("finishReason") {
            self.finish = Some(match finish_of(&reason) {
                Finish::Stop if self.ids.any() => Finish::ToolCalls,
                finish => finish,
            });
        }
        Ok(Step::More)
    }

    fn part(&mut self, raw: Raw<'_>, to: &mut Told<'_>) -> Result<(), Error> {
        let part = Members::lenient(raw);
        let signature = part.get("thoughtSignature").and_then(json::inner);
        if let Some(text) = part.get("text").and_then(json::inner) {
            if part.get("thought").and_then(json::flag) == Some(true) {
                to.thought(text)?;
            } else {
                to.text(text)?;
            }
        } else if let Some(call) = part.get("functionCall") {
            let call = Members::lenient(call);
            let malformed = Error::Malformed { dialect: Dialect::Gemini, what: "call of a tool" };
            let name = call.get("name").and_then(json::inner).ok_or(malformed)?;
            let made = self.ids.next();
            let id = call.get("id").and_then(json::inner).filter(|id| !id.is_empty()).unwrap_or(&made);
            to.call(id, name, signature)?;
            to.arguments(&call.get("args").map_or_else(|| "{}".to_owned(), |args| escape(args.get())))?;
        } else if let Some(code) = part.get("executableCode").map(Members::lenient) {
            if let Some(code) = code.get("code").and_then(json::inner) {
                to.text(&format!("\\n```\\n{code}\\n```\\n"))?;
            }
        } else if let Some(output) = part.get("codeExecutionResult").map(Members::lenient)
            && let Some(output) = output.get("output").and_then(json::inner)
        {
            to.text(output)?;
        }
        Ok(())
    }
}

impl super::Listener for Listener {
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error> {
        match frame.data.as_deref() {
            Some(data) if !data.is_empty() => self.hear(data, to),
            _ => Ok(Step::More),
        }
    }

    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error> {
        self.hear(body, to)?;
        let missing = Error::Malformed { dialect: Dialect::Gemini, what: "candidates" };
        to.end(self.finish.ok_or(missing)?)
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
