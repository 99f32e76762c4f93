//! Google's interactions: events, or one body.

use super::Teller;
use super::arguments::{Call, Kept};
use crate::dialect::interactions::{DONE, claudes, error, error_event, head, redacted, why_stopped, write_usage};
use crate::dialect::json::Members;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage, sse};

/// Whether the caller wants no summaries of thoughts: it gets their signatures all the same.
fn hides_thoughts(asked: &Asked) -> bool {
    let request = Members::parse(&asked.request).unwrap_or_default();
    let config = request.get("generation_config").map(Members::lenient).unwrap_or_default();
    config.text("thinking_summaries").as_deref() == Some("none")
}

fn too_long(max_bytes: usize) -> Error {
    Error::TooLong { what: "signature of a thought", max_bytes }
}

/// The step that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    Thought,
    Call,
}

/// Events. Each step is announced, grows and ends before the next one begins.
pub(super) struct Stream {
    asked: Asked,
    /// The dialect of the model, for what is wrong.
    from: Dialect,
    model: Option<String>,
    hides_thoughts: bool,
    begun: bool,
    open: Open,
    /// Number of the open step, or of the next.
    index: u64,
    /// Of the open thought, escaped: told in one piece, since nobody says how two would be put together.
    signature: String,
    /// Whether the open call has arguments.
    has_arguments: bool,
}

impl Stream {
    pub(super) fn new(asked: &Asked, from: Dialect) -> Self {
        Self {
            asked: asked.clone(),
            from,
            model: None,
            hides_thoughts: hides_thoughts(asked),
            begun: false,
            open: Open::None,
            index: 0,
            signature: String::new(),
            has_arguments: false,
        }
    }

    fn event(out: &mut Vec<u8>, kind: &str, write: impl FnOnce(&mut Object<'_>)) {
        sse::event(out, kind, |out| {
            let mut event = Object::new(out);
            write(&mut event);
            event.text("event_type", kind);
        });
    }

    fn head(&self, event: &mut Object<'_>, status: &str, end: impl FnOnce(&mut Object<'_>)) {
        let mut interaction = event.object("interaction");
        head(&mut interaction, &self.asked, self.asked.model(self.model.as_deref()), status);
        end(&mut interaction);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            Self::event(out, "interaction.created", |event| self.head(event, "in_progress", |_| {}));
        }
    }

    fn start(&mut self, out: &mut Vec<u8>, open: Open, write: impl FnOnce(&mut Object<'_>)) {
        self.begin(out);
        self.stop(out);
        self.open = open;
        Self::event(out, "step.start", |event| {
            event.number("index", self.index);
            write(&mut event.object("step"));
        });
    }

    fn delta(&self, out: &mut Vec<u8>, kind: &str, write: impl FnOnce(&mut Object<'_>)) {
        Self::event(out, "step.delta", |event| {
            event.number("index", self.index);
            let mut delta = event.object("delta");
            delta.text("type", kind);
            write(&mut delta);
        });
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        if self.open == Open::None {
            return;
        }
        if !self.signature.is_empty() {
            self.delta(out, "thought_signature", |delta| delta.escaped("signature", &self.signature));
            self.signature.clear();
        }
        if self.open == Open::Call && !std::mem::take(&mut self.has_arguments) {
            // Clients parse the arguments of every call, so none at all are an empty object.
            self.delta(out, "arguments_delta", |delta| delta.text("arguments", "{}"));
        }
        Self::event(out, "step.stop", |event| event.number("index", self.index));
        self.open = Open::None;
        self.index += 1;
    }

    /// Opens a thought that has no signature yet.
    fn think(&mut self, out: &mut Vec<u8>) {
        if self.open != Open::Thought || !self.signature.is_empty() {
            self.start(out, Open::Thought, |step| step.text("type", "thought"));
        }
    }
}

impl Teller for Stream {
    fn model(&mut self, name: &str) {
        self.model.get_or_insert_with(|| name.to_owned());
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if self.open != Open::Text {
            self.start(out, Open::Text, |step| step.text("type", "model_output"));
        }
        self.delta(out, "text", |delta| delta.escaped("text", inner));
        Ok(())
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.think(out);
        if !self.hides_thoughts {
            self.delta(out, "thought_summary", |delta| {
                let mut content = delta.object("content");
                content.text("type", "text");
                content.escaped("text", inner);
            });
        }
        Ok(())
    }

    fn signature(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if self.open != Open::Thought {
            self.think(out);
        }
        if self.signature.len() + inner.len() > self.asked.limits.kept_max_bytes {
            return Err(too_long(self.asked.limits.kept_max_bytes));
        }
        if self.signature.is_empty() {
            self.signature = claudes("");
        }
        self.signature.push_str(inner);
        Ok(())
    }

    fn redacted(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.stop(out);
        self.think(out);
        self.signature = redacted(inner);
        self.stop(out);
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        // Google has the signature of a call at the thought before it.
        if let Some(signature) = signature {
            self.think(out);
            signature.clone_into(&mut self.signature);
        }
        self.start(out, Open::Call, |step| {
            step.text("type", "function_call");
            step.escaped("id", id);
            step.escaped("name", name);
            drop(step.object("arguments"));
        });
        Ok(())
    }

    fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if self.open != Open::Call {
            return Err(Error::Malformed { dialect: self.from, what: "order of the calls" });
        }
        self.has_arguments = true;
        self.delta(out, "arguments_delta", |delta| delta.escaped("arguments", inner));
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        self.begin(out);
        self.stop(out);
        let (status, wrong) = why_stopped(finish);
        Self::event(out, "interaction.completed", |event| {
            self.head(event, status, |interaction| write_end(interaction, wrong, usage));
        });
        out.extend_from_slice(DONE);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        error_event(failure, out);
    }
}

fn write_end(interaction: &mut Object<'_>, wrong: Option<[&str; 2]>, usage: &Usage) {
    if let Some([code, message]) = wrong {
        let mut errors = interaction.array("errors");
        let mut error = errors.object();
        error.text("code", code);
        error.text("message", message);
    }
    write_usage(interaction.object("usage"), usage);
}

enum Step {
    Text(String),
    Thought { text: String, signature: String },
    Call(Call),
}

/// One body.
pub(super) struct Whole {
    asked: Asked,
    model: Option<String>,
    hides_thoughts: bool,
    kept: Kept,
    steps: Vec<Step>,
}

impl Whole {
    pub(super) fn new(asked: &Asked, from: Dialect) -> Self {
        let kept = Kept::new(from, asked.limits.kept_max_bytes);
        Self { asked: asked.clone(), model: None, hides_thoughts: hides_thoughts(asked), kept, steps: Vec::new() }
    }

    /// What else is said comes after the call that was open.
    fn end_call(&mut self) -> Result<(), Error> {
        let call = self.kept.take()?;
        self.steps.extend(call.map(Step::Call));
        Ok(())
    }

    /// The thought that more is said of: the last step, unless it is signed and `fresh` wants one that is not.
    fn thinking(&mut self, fresh: bool) -> (&mut String, &mut String) {
        let goes_on = match self.steps.last() {
            Some(Step::Thought { signature, .. }) => !fresh || signature.is_empty(),
            _ => false,
        };
        if !goes_on {
            self.steps.push(Step::Thought { text: String::new(), signature: String::new() });
        }
        match self.steps.last_mut() {
            Some(Step::Thought { text, signature }) => (text, signature),
            _ => unreachable!("one was pushed"),
        }
    }
}

impl Teller for Whole {
    fn model(&mut self, name: &str) {
        self.model.get_or_insert_with(|| name.to_owned());
    }

    fn text(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.end_call()?;
        match self.steps.last_mut() {
            Some(Step::Text(text)) => text.push_str(inner),
            _ => self.steps.push(Step::Text(inner.to_owned())),
        }
        Ok(())
    }

    fn thought(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.end_call()?;
        let hidden = self.hides_thoughts;
        self.thinking(true).0.push_str(if hidden { "" } else { inner });
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.end_call()?;
        let (_, signature) = self.thinking(false);
        if signature.is_empty() {
            *signature = claudes("");
        }
        signature.push_str(inner);
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.end_call()?;
        self.steps.push(Step::Thought { text: String::new(), signature: redacted(inner) });
        Ok(())
    }

    fn call(&mut self, _: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        self.end_call()?;
        if let Some(signature) = signature {
            signature.clone_into(self.thinking(true).1);
        }
        self.kept.begin(id, name, None)?;
        Ok(())
    }

    fn arguments(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.kept.push(inner)
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        self.end_call()?;
        let (status, wrong) = why_stopped(finish);
        let mut body = Object::new(out);
        head(&mut body, &self.asked, self.asked.model(self.model.as_deref()), status);
        {
            let mut steps = body.array("steps");
            for step in &self.steps {
                write_step(step, &mut steps.object());
            }
        }
        write_end(&mut body, wrong, usage);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        error(failure, out);
    }
}

fn write_step(step: &Step, to: &mut Object<'_>) {
    let say = |to: &mut Object<'_>, list: &str, text: &str| {
        let mut list = to.array(list);
        let mut one = list.object();
        one.text("type", "text");
        one.escaped("text", text);
    };
    match step {
        Step::Text(text) => {
            to.text("type", "model_output");
            say(to, "content", text);
        }
        Step::Thought { text, signature } => {
            to.text("type", "thought");
            if !signature.is_empty() {
                to.escaped("signature", signature);
            }
            if !text.is_empty() {
                say(to, "summary", text);
            }
        }
        Step::Call(call) => {
            to.text("type", "function_call");
            to.escaped("id", &call.id);
            to.escaped("name", &call.name);
            to.json("arguments", &call.arguments);
        }
    }
}
