//! `usage` and `stop_reason`. Anthropic counts what was read from and written to its cache beside `input_tokens`.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::Object;
use crate::dialect::{Finish, Served, Usage};

/// The numbers as Anthropic tells them, in parts: later parts hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    fresh: Option<u64>,
    output: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    hour: Option<u64>,
    served: Option<Served>,
    thinking: Option<u64>,
}

impl Counts {
    /// Takes a `usage`.
    pub(crate) fn take(&mut self, raw: Raw<'_>) {
        let members = Members::lenient(raw);
        let number = |name, old: Option<u64>| members.get(name).and_then(json::whole).or(old);
        self.fresh = number("input_tokens", self.fresh);
        self.output = number("output_tokens", self.output);
        self.read = number("cache_read_input_tokens", self.read);
        self.written = number("cache_creation_input_tokens", self.written);
        let lasting = members.get("cache_creation").map(Members::lenient).unwrap_or_default();
        self.hour = lasting.get("ephemeral_1h_input_tokens").and_then(json::whole).or(self.hour);
        self.served = Served::read(members.get("service_tier")).or(self.served);
        let details = members.get("output_tokens_details").map(Members::lenient).unwrap_or_default();
        self.thinking = details.get("thinking_tokens").and_then(json::whole).or(self.thinking);
    }

    /// The same in our way of counting.
    pub(crate) fn usage(&self) -> Usage {
        let cached = self.read.unwrap_or(0).saturating_add(self.written.unwrap_or(0));
        Usage {
            input_tokens: self.fresh.map(|fresh| fresh.saturating_add(cached)),
            output_tokens: self.output,
            cache_read_tokens: self.read,
            cache_write_tokens: self.written,
            cache_write_hour_tokens: self.hour,
            reasoning_tokens: self.thinking,
            served: self.served,
            ..Usage::default()
        }
    }
}

/// Writes `usage` of a message; every member of it is required by strict clients, most of them may be `null`.
pub(crate) fn write_usage(mut to: Object<'_>, usage: &Usage) {
    write_counts(&mut to, usage);
    match (usage.cache_write_hour_tokens, usage.cache_write_tokens) {
        (Some(hour), Some(written)) => {
            let mut lasting = to.object("cache_creation");
            lasting.number("ephemeral_1h_input_tokens", hour);
            lasting.number("ephemeral_5m_input_tokens", written.saturating_sub(hour));
        }
        _ => to.null("cache_creation"),
    }
    to.null("inference_geo");
    to.null("service_tier");
}

/// Writes `usage` of `message_delta`, which has fewer members.
pub(crate) fn write_counts(to: &mut Object<'_>, usage: &Usage) {
    let cached = usage.cache_read_tokens.unwrap_or(0).saturating_add(usage.cache_write_tokens.unwrap_or(0));
    to.number("input_tokens", usage.input_tokens.unwrap_or(0).saturating_sub(cached));
    for (name, tokens) in [
        ("cache_creation_input_tokens", usage.cache_write_tokens),
        ("cache_read_input_tokens", usage.cache_read_tokens),
    ] {
        match tokens {
            Some(tokens) => to.number(name, tokens),
            None => to.null(name),
        }
    }
    to.number("output_tokens", usage.output_tokens.unwrap_or(0));
    match usage.reasoning_tokens {
        Some(reasoning) => to.object("output_tokens_details").number("thinking_tokens", reasoning),
        None => to.null("output_tokens_details"),
    }
    to.null("server_tool_use");
}

/// What a `stop_reason` stands for.
pub(crate) fn finish_of(reason: &str) -> Finish {
    match reason {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Filtered,
        _ => Finish::Other,
    }
}
