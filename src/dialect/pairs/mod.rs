//! One folder a pair, named after the caller's dialect and then the model's.

mod anthropic_over_chat;
mod anthropic_over_responses;
mod between;
mod chat_over_anthropic;
mod chat_over_responses;
mod complete;
mod embed;
mod remarks;
mod responses_over_anthropic;
mod responses_over_chat;

pub use between::operation_there;
pub use complete::text_request;
pub(crate) use remarks::{INVALID_ARGUMENTS, anthropic_id, data_url, is_web, output_tokens_member, reasons};

use super::pair::Pair;
use super::{Dialect, Operation};

/// The pair, if somebody translates between the two.
pub(crate) fn of(operation: Operation, from: Dialect, to: Dialect) -> Option<&'static dyn Pair> {
    if let Some(pair) = between::of(operation, from, to).or_else(|| embed::of(operation, from, to)) {
        return Some(pair);
    }
    if let Some(pair) = complete::of(operation, from, to) {
        return Some(pair);
    }
    if operation != Operation::Chat {
        return None;
    }
    match (from, to) {
        (Dialect::Chat, Dialect::Anthropic) => Some(&chat_over_anthropic::ChatOverAnthropic),
        (Dialect::Anthropic, Dialect::Chat) => Some(&anthropic_over_chat::AnthropicOverChat),
        (Dialect::Anthropic, Dialect::Responses) => Some(&anthropic_over_responses::AnthropicOverResponses),
        (Dialect::Chat, Dialect::Responses) => Some(&chat_over_responses::ChatOverResponses),
        (Dialect::Responses, Dialect::Anthropic) => Some(&responses_over_anthropic::ResponsesOverAnthropic),
        (Dialect::Responses, Dialect::Chat) => Some(&responses_over_chat::ResponsesOverChat),
        _ => None,
    }
}
