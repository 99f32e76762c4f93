//! One question, read: its facts, what is made of its headers, and how much it may take.

use std::borrow::Cow;

use hyper::header::{HeaderName, HeaderValue};
use rand::RngCore;

use super::opening;
use super::price::tier_of;
use super::request::{Request, TASK};
use super::story::Answer;
use crate::base::Digest;
use crate::dialect::{self, Asked, Dialect, Facts, Limits, Operation, Usage};
use crate::price::Tier;
use crate::route::{self, Link, Need, Needs, Reach, Route, Sticky};

/// What every step wants to know of a question.
pub(super) struct Asking<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) facts: Facts<'a>,
    /// The model as the caller named it.
    pub(super) model: Cow<'a, str>,
    pub(super) stream: bool,
    /// Of the prompt, by estimate.
    pub(super) input_tokens: u64,
    /// Of the answers at most, said or assumed.
    pub(super) output_tokens: u64,
    /// Headers for a provider of the same dialect.
    pub(super) forwarded: Vec<(HeaderName, HeaderValue)>,
    id: String,
}

impl<'a> Asking<'a> {
    pub(super) fn read(story: &Answer, request: &'a Request<'a>) -> Result<Self, dialect::Error> {
        let mut facts = Facts::read(request.dialect, request.operation, request.body)?;
        // What the path says holds for the request that goes out, too.
        facts.stream = request.stream.unwrap_or(facts.stream);
        let model = match (request.model, &facts.model) {
            (Some(model), _) => Cow::Borrowed(model),
            (None, Some(model)) => model.clone(),
            (None, None) => return Err(dialect::Error::Missing { field: "model" }),
        };
        let talks = matches!(request.operation, Operation::Chat | Operation::Completions);
        let assumed = || facts.output_tokens_max.unwrap_or(story.parts.config.output_tokens_assumed);
        let output_tokens = if talks { assumed().saturating_mul(facts.answers) } else { 0 };
        let id = {
            let mut chance = story.chance();
            let mut random = [0; 12];
            chance.fill_bytes(&mut random);
            hex::encode(random)
        };
        Ok(Self {
            model,
            stream: talks && facts.stream,
            input_tokens: facts.input_tokens_estimated(),
            output_tokens,
            forwarded: request.forwarded(),
            id,
            facts,
            request,
        })
    }

    pub(super) fn operation(&self) -> Operation {
        self.request.operation
    }

    /// What it is billed in; none: nobody knows.
    pub(super) fn tier(&self) -> Option<Tier> {
        tier_of(self.facts.service_tier.as_deref())
    }

    /// The most that it may use.
    pub(super) fn most(&self) -> Usage {
        let (input, output) = (Some(self.input_tokens), Some(self.output_tokens));
        Usage { input_tokens: input, output_tokens: output, ..Usage::default() }
    }

    /// What answers are written with. A name is shown only where it is not what was asked for.
    pub(super) fn asked(&self, story: &Answer, upstream: &str) -> Asked {
        let config = &story.parts.config;
        let created_unix_s = u64::try_from(story.parts.clock.wall_ms() / 1000).unwrap_or(0);
        let asked = Asked::new(&self.facts, self.request.body.clone(), self.id.clone(), created_unix_s);
        let limits = Limits { frame_max_bytes: config.frame_max_bytes, kept_max_bytes: config.kept_max_bytes };
        Asked { model_shown: (upstream != self.model).then(|| self.model.clone().into_owned()), limits, ..asked }
    }

    /// What routing wants to know.
    pub(super) fn for_routing<'b>(
        &'b self,
        tags: &'b [&'b str],
        reach: Reach,
        link: Link,
        chance: u64,
    ) -> route::Ask<'b> {
        let facts = &self.facts;
        let needs = Needs::NONE
            .and(Need::Tools, facts.tools > 0 || facts.tool_results > 0)
            .and(Need::Images, facts.images > 0)
            .and(Need::Audio, facts.audio > 0 || facts.speaks)
            .and(Need::Documents, facts.files > 0)
            .and(Need::StructuredOutput, facts.structured)
            .and(Need::Reasoning, facts.reasoning)
            .and(Need::Logprobs, facts.logprobs);
        route::Ask {
            tenant: self.request.who.tenant(),
            tags,
            task: self.request.header(TASK),
            text: facts.last_text.as_deref().unwrap_or(""),
            prompt_tokens: Some(self.input_tokens),
            output_tokens: facts.output_tokens_max,
            needs,
            stream: self.stream,
            reach,
            link,
            ..route::Ask::new(&self.model, word(self.request.dialect, self.request.operation), chance)
        }
    }

    /// What holds it to the same candidate as others, as its route wants it.
    pub(super) fn sticky(&self, route: &Route) -> Option<Digest> {
        let said = || self.request.header(route.sticky_key()).map(|key| Digest::of(key.as_bytes()));
        let who = self.request.who;
        let named = |name: Option<&str>| name.map(|name| Digest::of(name.as_bytes()));
        match route.sticky() {
            Sticky::Never => None,
            Sticky::Request => said(),
            Sticky::User => said().or_else(|| named(who.user().or(self.facts.user.as_deref()))),
            Sticky::Caller => said().or_else(|| named(Some(who.name()))),
            Sticky::Conversation => said().or_else(|| opening::of(self.request.body)),
        }
    }
}

/// What routes call an operation.
fn word(dialect: Dialect, operation: Operation) -> &'static str {
    match (dialect, operation) {
        (Dialect::Responses, _) => "response",
        // Counting is for the chat that follows.
        (_, Operation::Chat | Operation::CountTokens) => "chat",
        (_, Operation::Completions) => "completion",
        (_, Operation::Embeddings) => "embedding",
        (_, Operation::Moderations) => "moderation",
    }
}
