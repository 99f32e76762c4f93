//! A request's settings as the terms of an answer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::failure::cannot;
use crate::dialect::{ChatRequest, CompletionRequest, LocalChoice, LocalPrompt, LocalSettings};
use crate::flows::answer::{LocalFailure, words};
use crate::generate::{Format, Language, Prompt, Sampling, Terms};
use crate::route::Fault;

/// The prompt and the terms of a body of chat.
pub(super) fn chat(
    language: &Language,
    body: &[u8],
    seed: u64,
    now_unix_s: i64,
) -> Result<(Prompt, Terms), LocalFailure> {
    let request = ChatRequest::read(body).map_err(|error| LocalFailure::of_request(&error))?;
    let format = match (request.response_format.as_deref(), request.schema) {
        (None, _) => Format::Text,
        (Some("json_object"), _) => Format::JsonObject,
        (Some("json_schema"), Some(schema)) => Format::Schema(schema.get().to_owned()),
        (Some("json_schema"), None) => {
            let reason = "response_format.json_schema.schema: expected a schema, given none".to_owned();
            return Err(LocalFailure { fault: Fault::BadRequest, reason });
        }
        (Some(other), _) => {
            return Err(cannot(&format!("Models of this box cannot promise the response format {other}.")));
        }
    };
    if matches!(request.tool_choice, LocalChoice::Other(_)) {
        let may = "say auto, none, required, or name the functions of which one must be called";
        return Err(cannot(&format!("Models of this box cannot promise this tool_choice: {may}.")));
    }
    let tools = request.tools.filter(|_| !matches!(request.tool_choice, LocalChoice::None));
    let chat = words(&request, tools, now_unix_s);
    let format = match (&request.tool_choice, chat.tools) {
        // The call is the whole answer, so no other form is asked of it.
        (LocalChoice::Must(names), tools) => {
            let names = names.iter().map(|name| name.clone().into_owned()).collect();
            Format::Call { tools: tools.unwrap_or("[]").to_owned(), names }
        }
        (_, Some(tools)) if chat.has_tools() => or_call(format, tools),
        _ => format,
    };
    let prompt = language.chat(&chat).map_err(|error| LocalFailure::of_generation(&error))?;
    let logprobs = request.logprobs.then_some(request.top_logprobs);
    let terms = Terms { format, ..terms(&request.settings, logprobs, seed)? };
    Ok((prompt, terms))
}

/// Tools that may be called are another form that an answer may have.
fn or_call(format: Format, tools: &str) -> Format {
    let tools = tools.to_owned();
    match format {
        Format::JsonObject => Format::SchemaOrCall { schema: None, tools },
        Format::Schema(schema) => Format::SchemaOrCall { schema: Some(schema), tools },
        other => other,
    }
}

/// The same of a body of completions.
pub(super) fn completion(language: &Language, body: &[u8], seed: u64) -> Result<(Prompt, Terms), LocalFailure> {
    let request = CompletionRequest::read(body).map_err(|error| LocalFailure::of_request(&error))?;
    if request.echo || request.suffix.is_some() {
        return Err(cannot("Models of this box neither echo a prompt nor write towards a suffix."));
    }
    let terms = terms(&request.settings, request.logprobs, seed)?;
    let prompt = match request.prompt {
        LocalPrompt::Text(text) => language.text(&text),
        LocalPrompt::Tokens(tokens) => language.tokens(tokens).map_err(|error| LocalFailure::of_generation(&error))?,
    };
    Ok((prompt, terms))
}

fn terms(settings: &LocalSettings<'_>, logprobs: Option<u64>, seed: u64) -> Result<Terms, LocalFailure> {
    if settings.answers != 1 {
        return Err(cannot("Models of this box give one answer: n must be 1."));
    }
    let usual = Sampling::default();
    #[allow(clippy::cast_possible_truncation, reason = "settings between -100 and 100")]
    let single = |value: Option<f64>, usual: f32| value.map_or(usual, |value| value as f32);
    let sampling = Sampling {
        temperature: single(settings.temperature, usual.temperature),
        top_k: settings.top_k.map_or(usual.top_k, |most| u32::try_from(most).unwrap_or(u32::MAX)),
        // Nothing of the probability is the best token alone.
        top_p: single(settings.top_p, usual.top_p).max(f32::MIN_POSITIVE),
        min_p: single(settings.min_p, usual.min_p),
        repetition_penalty: single(settings.repetition_penalty, usual.repetition_penalty),
        frequency_penalty: single(settings.frequency_penalty, usual.frequency_penalty),
        presence_penalty: single(settings.presence_penalty, usual.presence_penalty),
        logit_bias: settings.logit_bias.map_or(Ok(Vec::new()), biases)?,
        seed: settings.seed.unwrap_or(seed),
        logprobs: logprobs.map(|most| u8::try_from(most).unwrap_or(u8::MAX)),
    };
    Ok(Terms {
        sampling,
        tokens_max: settings.output_tokens_max.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        stops: settings.stop.iter().map(|stop| stop.clone().into_owned()).collect(),
        format: Format::Text,
    })
}

fn biases(raw: &RawValue) -> Result<Vec<(u32, f32)>, LocalFailure> {
    let wrong = || LocalFailure {
        fault: Fault::BadRequest,
        reason: "logit_bias: expected an object of tokens' numbers and biases".to_owned(),
    };
    let read: Option<BTreeMap<String, f32>> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let bias = |(token, bias): (String, f32)| Ok((token.parse().map_err(|_| wrong())?, bias));
    read.unwrap_or_default().into_iter().map(bias).collect()
}
