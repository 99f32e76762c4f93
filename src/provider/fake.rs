//! Providers for tests: one that says what it was told to, and one that always fails.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;

use super::ask::{Ask, Asking, Provider, Reply};
use super::body::ReplyBody;
use super::config::Model;
use super::error::{Class, Failure};
use super::kind::{Call, Kind};
use crate::base::Name;

/// What a [`Fake`] does with a request.
#[derive(Debug, Clone)]
pub enum Scripted {
    /// Answers with these pieces.
    Answer(Vec<Bytes>),
    /// Answers with these pieces and then breaks.
    Half(Vec<Bytes>, Class),
    /// Does not answer.
    Fail(Failure),
}

/// What a [`Fake`] was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What for.
    pub call: Call,
    /// Of which model.
    pub model: String,
    /// Whether in pieces.
    pub stream: bool,
    /// The body.
    pub body: Bytes,
}

/// Says what it was told to, in order; the last of it for ever.
#[derive(Debug)]
pub struct Fake {
    name: Name,
    kind: Kind,
    script: Mutex<VecDeque<Scripted>>,
    asked: Mutex<Vec<Asked>>,
}

impl Fake {
    /// With a script; an empty one fails.
    pub fn new(name: Name, kind: Kind, script: impl IntoIterator<Item = Scripted>) -> Self {
        Self { name, kind, script: Mutex::new(script.into_iter().collect()), asked: Mutex::default() }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn next(&self) -> Scripted {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let first = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        first.unwrap_or_else(|| Scripted::Fail(Failure::unsent(&self.name, Class::Unavailable, "it has no script")))
    }
}

impl Provider for Fake {
    fn name(&self) -> &Name {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        Some(asked)
    }

    fn models(&self) -> &[Model] {
        &[]
    }

    fn send<'a>(&'a self, ask: Ask<'a>) -> Asking<'a, Reply> {
        let asked = Asked { call: ask.call, model: ask.model.to_owned(), stream: ask.stream, body: ask.body };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let frames = match self.next() {
            Scripted::Answer(pieces) => pieces.into_iter().map(Ok).collect(),
            Scripted::Half(pieces, class) => {
                let broken = Failure::sent(&self.name, class, "the script ends it here");
                pieces.into_iter().map(Ok).chain([Err(broken)]).collect()
            }
            Scripted::Fail(failure) => return Box::pin(async { Err(failure) }),
        };
        let body = ReplyBody::of_frames(self.name.clone(), frames);
        Box::pin(async { Ok(Reply { status: 200, headers: HeaderMap::new(), body }) })
    }

    fn probe(&self) -> Asking<'_, Duration> {
        Box::pin(async { Ok(Duration::ZERO) })
    }
}

/// Always fails, in one way.
#[derive(Debug)]
pub struct Failing {
    name: Name,
    kind: Kind,
    class: Class,
    retry_after: Option<Duration>,
}

impl Failing {
    /// In the way of `class`.
    pub fn new(name: Name, kind: Kind, class: Class) -> Self {
        Self { name, kind, class, retry_after: None }
    }

    /// And wants to be left alone for so long.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    fn failure(&self) -> Failure {
        let failure = Failure::unsent(&self.name, self.class, "it always fails");
        Failure { retry_after: self.retry_after, ..failure }
    }
}

impl Provider for Failing {
    fn name(&self) -> &Name {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        Some(asked)
    }

    fn models(&self) -> &[Model] {
        &[]
    }

    fn send<'a>(&'a self, _ask: Ask<'a>) -> Asking<'a, Reply> {
        Box::pin(async { Err(self.failure()) })
    }

    fn probe(&self) -> Asking<'_, Duration> {
        Box::pin(async { Err(self.failure()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{Operation, Wire};

    fn ask<'a>() -> Ask<'a> {
        Ask {
            call: Call::new(Wire::Openai, Operation::Chat),
            model: "m",
            stream: true,
            headers: &[],
            body: Bytes::from_static(b"{}"),
            first_byte_timeout: None,
        }
    }

    #[tokio::test]
    async fn a_fake_follows_its_script_and_remembers_what_it_was_asked() {
        let piece = || Bytes::from_static(b"data: 1\n\n");
        let script = [Scripted::Half(vec![piece()], Class::Unavailable), Scripted::Answer(vec![piece(), piece()])];
        let fake = Fake::new(Name::new("f").unwrap(), Kind::Openai, script);
        let mut body = fake.send(ask()).await.unwrap().body;
        assert_eq!(body.next().await.unwrap().unwrap(), piece());
        assert_eq!(body.next().await.unwrap().unwrap_err().class, Class::Unavailable);
        assert!(body.next().await.is_none(), "after an error there is nothing more");
        for _ in 0..2 {
            let whole = fake.send(ask()).await.unwrap().body.collect().await.unwrap();
            assert_eq!(whole, "data: 1\n\ndata: 1\n\n");
        }
        assert_eq!(fake.asked().len(), 3);
    }

    #[tokio::test]
    async fn a_failing_one_always_fails() {
        let failing =
            Failing::new(Name::new("f").unwrap(), Kind::Openai, Class::RateLimited).retry_after(Duration::from_secs(2));
        let failure = failing.send(ask()).await.unwrap_err();
        assert_eq!((failure.class, failure.retry_after), (Class::RateLimited, Some(Duration::from_secs(2))));
        assert_eq!(failure.to_string(), "failed to ask provider f: it always fails");
    }
}
