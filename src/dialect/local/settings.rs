//! What every request to a model in this process can say of the choice of its words.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::dialect::Error;
use crate::dialect::json::{self, Members, Sort, sort};

/// The most stop sequences in one request.
const STOPS_MAX: usize = 16;

/// Members that chat and completions share, checked against their ranges.
#[derive(Debug, Clone, Default)]
pub struct LocalSettings<'a> {
    /// The most tokens of the answer.
    pub output_tokens_max: Option<u64>,
    /// From 0 to 2.
    pub temperature: Option<f64>,
    /// Above 0, at most 1.
    pub top_p: Option<f64>,
    /// From 0 to 1; llama.cpp's and vLLM's name.
    pub min_p: Option<f64>,
    /// The most candidates for a token; 0 for all.
    pub top_k: Option<u64>,
    /// From -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// From -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Above 0; 1 is none.
    pub repetition_penalty: Option<f64>,
    /// Start of the random numbers.
    pub seed: Option<u64>,
    /// Texts that end the answer, at most 16.
    pub stop: Vec<Cow<'a, str>>,
    /// Token to bias, an object.
    pub logit_bias: Option<&'a RawValue>,
    /// How many answers.
    pub answers: u64,
}

impl<'a> LocalSettings<'a> {
    pub(super) fn read(members: &Members<'a>) -> Result<Self, Error> {
        let number = |name: &'static str, from: f64, to: f64, expected: &'static str| match members.get(name) {
            None => Ok(None),
            Some(raw) => match raw.get().parse::<f64>() {
                Ok(value) if value >= from && value <= to => Ok(Some(value)),
                _ => Err(Error::field(name, expected)),
            },
        };
        let most = [whole(members, "max_tokens")?, whole(members, "max_completion_tokens")?];
        Ok(Self {
            output_tokens_max: most.into_iter().flatten().min(),
            temperature: number("temperature", 0.0, 2.0, "must be a number from 0 to 2")?,
            top_p: number("top_p", 0.0, 1.0, "must be a number from 0 to 1")?,
            min_p: number("min_p", 0.0, 1.0, "must be a number from 0 to 1")?,
            top_k: whole(members, "top_k")?,
            frequency_penalty: number("frequency_penalty", -2.0, 2.0, "must be a number from -2 to 2")?,
            presence_penalty: number("presence_penalty", -2.0, 2.0, "must be a number from -2 to 2")?,
            repetition_penalty: number("repetition_penalty", 0.01, 10.0, "must be a number from 0.01 to 10")?,
            seed: whole(members, "seed")?,
            stop: stops(members)?,
            logit_bias: members.get("logit_bias"),
            answers: whole(members, "n")?.unwrap_or(1),
        })
    }
}

pub(super) fn whole(members: &Members<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    match members.get(name) {
        None => Ok(None),
        Some(raw) => match json::whole(raw) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::field(name, "must be a whole number that is not negative")),
        },
    }
}

fn stops<'a>(members: &Members<'a>) -> Result<Vec<Cow<'a, str>>, Error> {
    let wrong = || Error::field("stop", "must be a text or a list of at most 16 texts");
    let Some(raw) = members.get("stop") else { return Ok(Vec::new()) };
    let all = match sort(raw) {
        Sort::Text => vec![raw],
        Sort::Array => json::elements(raw, "stop")?,
        _ => return Err(wrong()),
    };
    if all.len() > STOPS_MAX {
        return Err(wrong());
    }
    all.into_iter().map(|text| json::text(text).ok_or_else(wrong)).collect()
}
