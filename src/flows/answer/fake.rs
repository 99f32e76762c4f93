//! A model of this box that says what it was told to, for tests.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::local::{Local, LocalAsk, LocalAsking, LocalBody, LocalFailure, LocalModel};
use crate::dialect::Operation;
use crate::price::LocalUse;

/// Has one model and always gives the same answer, or always fails.
#[derive(Debug)]
pub struct FakeLocal {
    model: String,
    answer: Result<Vec<Bytes>, LocalFailure>,
    used: Option<LocalUse>,
    asked: Mutex<Vec<Bytes>>,
}

impl FakeLocal {
    /// Answers with these pieces: of a body or of a stream, as it is going to be asked.
    pub fn new(model: &str, pieces: impl IntoIterator<Item = Bytes>, used: Option<LocalUse>) -> Self {
        Self { model: model.to_owned(), answer: Ok(pieces.into_iter().collect()), used, asked: Mutex::default() }
    }

    /// Fails.
    pub fn failing(model: &str, failure: LocalFailure) -> Self {
        Self { model: model.to_owned(), answer: Err(failure), used: None, asked: Mutex::default() }
    }

    /// The bodies that it was asked so far.
    pub fn asked(&self) -> Vec<Bytes> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Pieces(VecDeque<Bytes>, Option<LocalUse>);

impl LocalBody for Pieces {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, LocalFailure>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn used(&self) -> Option<LocalUse> {
        self.1
    }
}

impl Local for FakeLocal {
    fn models(&self) -> Vec<LocalModel> {
        vec![LocalModel {
            name: self.model.clone(),
            created_unix_s: 0,
            size_bytes: 0,
            digest: String::new(),
            family: String::new(),
            parameter_size: String::new(),
            quantization: String::new(),
        }]
    }

    fn has(&self, model: &str, _: Operation) -> bool {
        model == self.model
    }

    fn ask<'a>(&'a self, ask: LocalAsk<'a>) -> LocalAsking<'a> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(ask.asked.request);
        let answer = self.answer.clone();
        Box::pin(async move {
            let pieces = answer?;
            Ok(Box::new(Pieces(pieces.into(), self.used)) as Box<dyn LocalBody>)
        })
    }
}
