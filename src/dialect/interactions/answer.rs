//! What every interaction begins and ends with: its head, its status, its usage.

use crate::dialect::listing::rfc3339;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Finish, Usage, gemini};

/// What ends a stream that is whole.
pub(crate) const DONE: &[u8] = b"event: done\ndata: [DONE]\n\n";

/// Writes what an interaction is, whatever it says. There is no clock here, so it was last changed when it began.
pub(crate) fn head(to: &mut Object<'_>, asked: &Asked, model: &str, status: &str) {
    let time = rfc3339(asked.created_unix_s);
    to.text("id", &format!("v1_{}", asked.id));
    to.text("object", "interaction");
    to.text("model", model);
    to.text("status", status);
    to.text("created", &time);
    to.text("updated", &time);
}

/// The status for why a model stopped, and what went wrong if something did.
pub(crate) fn why_stopped(finish: Finish) -> (&'static str, Option<[&'static str; 2]>) {
    match finish {
        Finish::Stop | Finish::Other => ("completed", None),
        Finish::ToolCalls => ("requires_action", None),
        Finish::Length => ("incomplete", None),
        Finish::Filtered => (
            "failed",
            Some(["content_filtered", "A filter of the model's provider, or the model itself, refused to answer."]),
        ),
    }
}

/// Writes `usage`. Google counts thoughts beside the output.
pub(crate) fn write_usage(mut to: Object<'_>, usage: &Usage) {
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    to.number("total_input_tokens", input);
    if let Some(read) = usage.cache_read_tokens {
        to.number("total_cached_tokens", read);
    }
    to.number("total_output_tokens", output.saturating_sub(usage.reasoning_tokens.unwrap_or(0)));
    if let Some(thought) = usage.reasoning_tokens {
        to.number("total_thought_tokens", thought);
    }
    to.number("total_tokens", input.saturating_add(output));
    let told = |sound, pictures| [("audio", sound), ("image", pictures)];
    let (input, output) = (
        told(usage.input_audio_tokens, usage.input_image_tokens),
        told(usage.output_audio_tokens, usage.output_image_tokens),
    );
    gemini::write_details(&mut to, "input_tokens_by_modality", "tokens", input);
    gemini::write_details(&mut to, "output_tokens_by_modality", "tokens", output);
}
