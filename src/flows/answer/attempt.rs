//! One candidate, asked once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::asking::Asking;
use super::fell::Fell;
use super::language::{self, Language};
use super::local::LocalAsk;
use super::scripted::{self, Scripted};
use super::source::Source;
use super::story::{Answer, Stop};
use crate::dialect::{self, Asked, Dialect, Failure, OipModel, Operation, Outgoing, Step, Stream, Target};
use crate::generate::Script;
use crate::price::LocalUse;
use crate::provider::{self, Ask, Kind, Model, Provider};
use crate::route::{Fault, Leave, Plan};

/// A candidate with the request as it wants it.
pub(super) struct Ready<'s> {
    /// Its place in the route.
    pub(super) candidate: usize,
    /// Its target's place.
    pub(super) place: usize,
    pub(super) stop: &'s Stop,
    /// The model's name there.
    pub(super) model: String,
    /// None: it is on this box.
    language: Option<Language>,
    body: Bytes,
    /// What makes the text that its server is asked with, where it takes no conversation.
    turns: Option<Turns>,
    /// What could not be said and only advises.
    pub(super) left_out: Vec<String>,
    asked: Asked,
    first_byte_timeout: Option<Duration>,
}

/// A model's template, and the model's name in the route.
struct Turns {
    script: Arc<Script>,
    named: String,
}

/// Leave to ask a target. Dropped without an outcome, it says nothing about the target.
pub(super) struct Lease {
    story: Arc<Answer>,
    place: usize,
    leave: Option<Leave>,
}

/// The beginning of an answer, or all of it.
#[allow(clippy::large_enum_variant, reason = "one a request, and taken apart where it arrives")]
pub(super) enum Begun {
    Whole { answer: dialect::Answer, used: Option<LocalUse> },
    Stream(Box<Flowing>),
}

/// A stream that has begun.
pub(super) struct Flowing {
    pub(super) source: Source,
    pub(super) spoken: Dialect,
    pub(super) translate: Stream,
    /// What goes out first.
    pub(super) out: Vec<u8>,
    pub(super) end: Option<Ended>,
}

/// How a stream ended, as far as it has.
pub(super) enum Ended {
    Whole,
    /// The caller was told in its own dialect.
    Broken(Failure),
}

impl Answer {
    /// Makes the request ready for a candidate of the plan.
    pub(super) fn ready<'s>(
        &'s self,
        plan: &Plan<'s>,
        at: usize,
        asking: &Asking<'_>,
    ) -> Result<Ready<'s>, (String, Fell)> {
        let candidate = &plan.route().candidates()[at];
        let stop = &self.stops[candidate.place()];
        let named = plan.model_of(candidate);
        let unfit = |message: String| (stop.called(&named), Fell { outcome: "unfit", ..Fell::unfit(message) });
        let mut turns = None;
        let (language, model) = match stop.provider() {
            None => {
                let local = self.parts.local.as_ref().filter(|local| local.has(&named, asking.operation()));
                local.ok_or_else(|| unfit(format!("The model `{named}` is not loaded on this box.")))?;
                (None, named.clone().into_owned())
            }
            Some(provider) => {
                let model = provider.model(&named).map(str::to_owned);
                let model = model.ok_or_else(|| unfit(format!("The provider does not have the model `{named}`.")))?;
                let (from, what) = (asking.request.dialect, asking.operation());
                let known = stop.script(&named);
                let language = language::of(provider, &model, from, what, asking.request.batch, known.is_some());
                let language = language.ok_or_else(|| unfit(language::missing(provider, &named, from, what)))?;
                let known = known.filter(|_| language.takes_text_for_turns()).cloned();
                turns = known.map(|script| Turns { script, named: named.clone().into_owned() });
                (Some(language), model)
            }
        };
        let tensors = tensors(stop, &named);
        let to = self.target(stop, tensors, language, &model);
        let made = dialect::request(asking.request.body, &asking.facts, &to);
        let unsupported = |error: dialect::Error| {
            self.parts.dialect_metrics.error(asking.request.dialect, &error);
            (stop.called(&named), Fell { outcome: "unsupported", ..Fell::of_dialect(&error) })
        };
        let Outgoing { body, mut left_out } = made.map_err(unsupported)?;
        if turns.is_some() {
            // What is wrong with it and what cannot be said do not depend on the text.
            left_out.extend(dialect::text_request(&body, "", &to).map_err(unsupported)?.left_out);
        }
        self.parts.dialect_metrics.left_out(asking.request.dialect, &left_out);
        let oip_output = tensors.and_then(|tensors| tensors.output.clone());
        let asked = Asked { oip_output, ..asking.asked(self, &model) };
        let first_byte_timeout = candidate.first_byte_timeout();
        let place = candidate.place();
        Ok(Ready { candidate: at, place, stop, model, language, body, turns, left_out, asked, first_byte_timeout })
    }

    fn target<'t>(
        &self,
        stop: &Stop,
        tensors: Option<&'t provider::OipModel>,
        language: Option<Language>,
        model: &'t str,
    ) -> Target<'t> {
        Target {
            oip: tensors.map_or(OipModel::DEFAULT, oip),
            output_tokens_default: self.parts.config.output_tokens_assumed,
            // Mistral tells the usage unasked, and refuses members that it does not know.
            asks_usage: stop.provider().is_none_or(|provider| provider.kind() != Kind::Mistral),
            ..Target::new(language.map_or(Dialect::Chat, |language| language.dialect), model)
        }
    }

    /// Leave to ask, or the reason why not, in a word.
    pub(super) fn lease(self: &Arc<Self>, place: usize) -> Result<Lease, &'static str> {
        let begun = self.stops[place].vitals().begin(self.now());
        let leave = begun.map_err(|held| crate::route::Reason::Held(held).as_str())?;
        Ok(Lease { story: Arc::clone(self), place, leave: Some(leave) })
    }

    /// Asks, until the answer is there or its stream has begun.
    pub(super) async fn attempt(&self, asking: &Asking<'_>, ready: &Ready<'_>) -> Result<Begun, Fell> {
        let began = self.now();
        let mut source = self.open(asking, ready).await?;
        let spoken = ready.language.map_or(Dialect::Chat, |language| language.dialect);
        if !asking.stream {
            let head = self.now();
            ready.stop.vitals().began(head.saturating_sub(began), head);
            let body = source.collect(spoken).await?;
            let mut answer =
                dialect::answer(&body, spoken, &ready.asked).map_err(|error| self.senseless(asking, &error))?;
            answer.usage.estimated |= source.estimates();
            return Ok(Begun::Whole { answer, used: source.used() });
        }
        let translate = Stream::new(spoken, &ready.asked).map_err(|error| self.senseless(asking, &error))?;
        let mut flowing = Box::new(Flowing { source, spoken, translate, out: Vec::new(), end: None });
        let beginning = self.begin(asking, &mut flowing);
        match ready.first_byte_timeout {
            Some(limit) => tokio::time::timeout(limit, beginning).await.map_err(|_| Fell::too_slow())??,
            None => beginning.await?,
        }
        let head = self.now();
        ready.stop.vitals().began(head.saturating_sub(began), head);
        Ok(Begun::Stream(flowing))
    }

    async fn open(&self, asking: &Asking<'_>, ready: &Ready<'_>) -> Result<Source, Fell> {
        if let (Some(provider), Some(Language { dialect, call })) = (ready.stop.provider(), ready.language) {
            let ask = Ask {
                call,
                model: &ready.model,
                stream: asking.stream,
                headers: if dialect == asking.request.dialect { &asking.forwarded[..] } else { &[] },
                body: ready.body.clone(),
                first_byte_timeout: ready.first_byte_timeout,
            };
            if let Some(turns) = &ready.turns {
                return self.open_scripted(turns, provider, Ask { headers: &[], ..ask }, ready).await;
            }
            let reply = provider.send(ask).await.map_err(|failure| Fell::of_provider(&failure, dialect))?;
            return Ok(Source::Remote(Box::new(reply.body)));
        }
        let local = self.parts.local.as_ref().expect("it was there when the request was made ready for it");
        let operation = match asking.operation() {
            Operation::Completions if asking.request.dialect != Dialect::Chat => Operation::Chat,
            operation => operation,
        };
        let asked = Asked {
            dialect: Dialect::Chat,
            operation,
            request: ready.body.clone(),
            model_shown: Some(ready.model.clone()),
            include_usage: true,
            ..ready.asked.clone()
        };
        let who = asking.request.who;
        let partition = format!("{} {}", who.tenant(), who.name());
        let ask = LocalAsk { model: &ready.model, partition: &partition, stream: asking.stream, asked };
        let asking = local.ask(ask);
        let opened = match ready.first_byte_timeout {
            Some(limit) => tokio::time::timeout(limit, asking).await.map_err(|_| Fell::too_slow())?,
            None => asking.await,
        };
        Ok(Source::Local(opened.map_err(|failure| Fell::of_local(&failure))?))
    }

    /// Asks a server that takes texts, with what the template makes of the messages.
    async fn open_scripted(
        &self,
        turns: &Turns,
        provider: &dyn Provider,
        ask: Ask<'_>,
        ready: &Ready<'_>,
    ) -> Result<Source, Fell> {
        let (script, chat) = (Arc::clone(&turns.script), ready.body.clone());
        let now_unix_s = self.parts.clock.wall_ms() / 1000;
        // A long conversation takes a template many steps.
        let made = tokio::task::spawn_blocking(move || scripted::prompt(&script, &chat, now_unix_s)).await;
        let made = made.map_err(|_| Fell::unfit("The model's chat template broke down."))?;
        let (prompt, reader) = made.map_err(|failure| Fell::of_local(&failure))?;
        let to = self.target(ready.stop, tensors(ready.stop, &turns.named), ready.language, &ready.model);
        let of_dialect = |error: dialect::Error| Fell::of_dialect(&error);
        let body = dialect::text_request(&ready.body, &prompt, &to).map_err(of_dialect)?.body;
        let stream = ask.stream;
        let reply = provider.send(Ask { body, ..ask }).await;
        let reply = reply.map_err(|failure| Fell::of_provider(&failure, Dialect::Oip))?;
        let asked = Asked {
            dialect: Dialect::Chat,
            operation: Operation::Chat,
            request: ready.body.clone(),
            model_shown: Some(ready.model.clone()),
            include_usage: true,
            ..ready.asked.clone()
        };
        let scripted = Scripted::new(reply.body, reader, asked, stream).map_err(of_dialect)?;
        Ok(Source::Scripted(Box::new(scripted)))
    }

    /// Reads until something goes out to the caller: until then somebody else could be asked.
    async fn begin(&self, asking: &Asking<'_>, flowing: &mut Flowing) -> Result<(), Fell> {
        let Flowing { source, spoken, translate, out, end } = flowing;
        loop {
            match source.next(*spoken).await {
                Some(Ok(bytes)) => match translate.push(&bytes, out) {
                    // A comment keeps a connection alive and is no beginning; the door makes its own.
                    Ok(Step::More) if says_nothing(out) => out.clear(),
                    Ok(Step::More) => return Ok(()),
                    Ok(Step::Done) => {
                        *end = Some(Ended::Whole);
                        return Ok(());
                    }
                    Ok(Step::Failed(failure)) if says_nothing(out) => return Err(Fell::of_stream(failure)),
                    Ok(Step::Failed(failure)) => {
                        translate.fail(&failure, out);
                        *end = Some(Ended::Broken(failure));
                        return Ok(());
                    }
                    Err(error) => return Err(self.senseless(asking, &error)),
                },
                Some(Err(fell)) => return Err(fell),
                None => {
                    translate.close(out).map_err(|_| Fell::silent())?;
                    *end = Some(Ended::Whole);
                    return Ok(());
                }
            }
        }
    }

    /// An answer that cannot be translated.
    fn senseless(&self, asking: &Asking<'_>, error: &dialect::Error) -> Fell {
        self.parts.dialect_metrics.error(asking.request.dialect, error);
        let fell = Fell::of_dialect(error);
        Fell { fault: Fault::Malformed, outcome: Fault::Malformed.as_str(), may_cost: true, ..fell }
    }
}

/// A model's tensors, by the model's name in routes.
fn tensors<'s>(stop: &'s Stop, named: &str) -> Option<&'s provider::OipModel> {
    stop.provider()?.models().iter().find(|model| model.name() == named).and_then(Model::oip)
}

/// A model's tensors, as the translation wants to know them.
fn oip(model: &provider::OipModel) -> OipModel<'_> {
    OipModel {
        input: &model.input,
        output: model.output.as_deref(),
        column: model.input_shape.len() > 1,
        shorten: model.shorten,
        stop: &model.stop,
        parameters: Some(&model.parameters),
    }
}

/// Whether these frames are comments only.
fn says_nothing(out: &[u8]) -> bool {
    out.split(|byte| *byte == b'\n').all(|line| matches!(line, [] | [b'\r'] | [b':', ..]))
}

impl Lease {
    /// The target's place.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// It answered whole.
    pub(super) fn settle(mut self) {
        if let Some(leave) = self.leave.take() {
            let now = self.story.now();
            let mut chance = self.story.chance();
            let change = self.story.stops[self.place].vitals().settle(&leave, now, &mut *chance);
            drop(chance);
            self.tell(change.is_some());
        }
    }

    /// It did not.
    pub(super) fn fail(mut self, fault: Fault, took: Duration) {
        if let Some(leave) = self.leave.take() {
            let now = self.story.now();
            let mut chance = self.story.chance();
            let change = self.story.stops[self.place].vitals().fail(&leave, fault, took, now, &mut *chance);
            drop(chance);
            self.tell(change.is_some());
        }
    }

    fn tell(&self, has_changed: bool) {
        if has_changed {
            let target = &self.story.parts.routes.targets()[self.place];
            let breaker = self.story.stops[self.place].vitals().breaker(self.story.now());
            tracing::info!(%target, ?breaker, "a breaker changed");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            self.story.stops[self.place].vitals().forget(&leave);
        }
    }
}
