//! In which language a candidate is asked: the caller's own where it is spoken well, else the one that loses least.

use crate::dialect::{Dialect, Operation, can_translate, operation_there};
use crate::provider::{self, Call, Kind, Provider, Wire};

/// What is spoken with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Language {
    /// As the dialect room calls it.
    pub(super) dialect: Dialect,
    /// As the provider room calls it.
    pub(super) call: Call,
}

impl Language {
    /// Whether a chat is asked as the text that its template makes of it.
    pub(super) fn takes_text_for_turns(self) -> bool {
        self.dialect == Dialect::Chat && self.call.wire == Wire::Oip
    }
}

/// The language for asking `model` of `provider`; none if it cannot be asked for this. `has_script`: the model's template is
/// here, so that its server can be asked for the text that follows a chat.
pub(super) fn of(
    provider: &dyn Provider,
    model: &str,
    from: Dialect,
    what: Operation,
    batch: bool,
    has_script: bool,
) -> Option<Language> {
    let kind = provider.kind();
    let of_dialect = |to: Dialect| {
        let call = call(from, to, what, batch)?;
        let spoken = speaks(kind, call.wire, model) && provider.takes(call) && can_translate(what, from, to);
        spoken.then_some(Language { dialect: to, call })
    };
    // What these three take of OpenAI's dialect is a part of what they can do, or for a few models only.
    let own_first = !matches!(kind, Kind::Bedrock | Kind::Gemini | Kind::Vertex);
    let own = own_first.then(|| of_dialect(from)).flatten();
    if own.is_none()
        && kind == Kind::Oip
        && has_script
        && is_turn(what, from)
        && can_translate(what, from, Dialect::Chat)
    {
        let call = Call::new(Wire::Oip, provider::Operation::Completions);
        return provider.takes(call).then_some(Language { dialect: Dialect::Chat, call });
    }
    own.or_else(|| kind.wires().iter().flat_map(|wire| dialects(*wire)).find_map(|dialect| of_dialect(*dialect)))
}

/// Why there is none, for the caller.
pub(super) fn missing(provider: &dyn Provider, model: &str, from: Dialect, what: Operation) -> String {
    if provider.kind() == Kind::Oip && is_turn(what, from) {
        return format!(
            "The model `{model}` takes a text and no conversation, and the template that makes one of the other is not \
             here: the operator can name it (oip.tokenizer_config). Or ask OpenAI's /v1/completions with the whole prompt."
        );
    }
    format!("The model `{model}` cannot be asked for {what} in the dialect {from}.")
}

/// Whether a template makes the prompt of it.
fn is_turn(what: Operation, from: Dialect) -> bool {
    operation_there(what, from, Dialect::Oip) == Operation::Chat
}

fn dialects(wire: Wire) -> &'static [Dialect] {
    match wire {
        Wire::Openai => &[Dialect::Chat, Dialect::Responses],
        Wire::Anthropic => &[Dialect::Anthropic],
        Wire::Gemini => &[Dialect::Gemini],
        Wire::Ollama => &[Dialect::Ollama],
        Wire::Converse => &[Dialect::Bedrock],
        Wire::Oip => &[Dialect::Oip],
    }
}

/// Vertex AI has a language for each maker; the names tell them apart (`google/gemini-2.5-pro` is the one for OpenAI's).
fn speaks(kind: Kind, wire: Wire, model: &str) -> bool {
    kind != Kind::Vertex
        || wire
            == if model.starts_with("claude") {
                Wire::Anthropic
            } else if model.contains('/') {
                Wire::Openai
            } else {
                Wire::Gemini
            }
}

/// How a request of `from` is asked in `to`.
fn call(from: Dialect, to: Dialect, what: Operation, batch: bool) -> Option<Call> {
    use provider::Operation as Asks;
    Some(match (to, operation_there(what, from, to)) {
        (Dialect::Chat, Operation::Chat) => Call::new(Wire::Openai, Asks::Chat),
        (Dialect::Chat, Operation::Completions) => Call::new(Wire::Openai, Asks::Completions),
        (Dialect::Chat, Operation::Embeddings) => Call::new(Wire::Openai, Asks::Embeddings),
        (Dialect::Chat, Operation::Moderations) => Call::new(Wire::Openai, Asks::Moderations),
        (Dialect::Responses, Operation::Chat) => Call::new(Wire::Openai, Asks::Responses),
        (Dialect::Anthropic, Operation::Chat) => Call::new(Wire::Anthropic, Asks::Chat),
        (Dialect::Anthropic, Operation::CountTokens) => Call::new(Wire::Anthropic, Asks::CountTokens),
        (Dialect::Gemini, Operation::Chat) => Call::new(Wire::Gemini, Asks::Chat),
        (Dialect::Gemini, Operation::CountTokens) => Call::new(Wire::Gemini, Asks::CountTokens),
        (Dialect::Gemini, Operation::Embeddings) if from != to || batch => {
            Call::new(Wire::Gemini, Asks::EmbeddingsBatch)
        }
        (Dialect::Gemini, Operation::Embeddings) => Call::new(Wire::Gemini, Asks::Embeddings),
        (Dialect::Ollama, Operation::Chat) => Call::new(Wire::Ollama, Asks::Chat),
        (Dialect::Ollama, Operation::Completions) => Call::new(Wire::Ollama, Asks::Completions),
        (Dialect::Ollama, Operation::Embeddings) => Call::new(Wire::Ollama, Asks::Embeddings),
        (Dialect::Bedrock, Operation::Chat) => Call::new(Wire::Converse, Asks::Chat),
        (Dialect::Oip, Operation::Completions) => Call::new(Wire::Oip, Asks::Completions),
        (Dialect::Oip, Operation::Embeddings) => Call::new(Wire::Oip, Asks::Infer),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Name;
    use crate::provider::{Fake, Operation as Asks};

    fn spoken(kind: Kind, model: &str, from: Dialect, what: Operation) -> Option<(Dialect, Wire, Asks)> {
        let provider = Fake::new(Name::new("p").unwrap(), kind, []);
        let language = of(&provider, model, from, what, false, false)?;
        Some((language.dialect, language.call.wire, language.call.operation))
    }

    #[test]
    fn bytes_pass_through_where_the_callers_own_dialect_is_spoken() {
        for (kind, from) in [
            (Kind::Openai, Dialect::Chat),
            (Kind::Openai, Dialect::Responses),
            (Kind::Vllm, Dialect::Anthropic),
            (Kind::Ollama, Dialect::Chat),
            (Kind::Ollama, Dialect::Ollama),
            (Kind::Gemini, Dialect::Gemini),
            (Kind::Anthropic, Dialect::Anthropic),
        ] {
            assert_eq!(spoken(kind, "m", from, Operation::Chat).unwrap().0, from, "{kind}");
        }
    }

    #[test]
    fn others_are_asked_in_the_language_that_loses_least() {
        let chat =
            |kind, model, from| spoken(kind, model, from, Operation::Chat).map(|(dialect, wire, _)| (dialect, wire));
        assert_eq!(chat(Kind::Anthropic, "m", Dialect::Chat), Some((Dialect::Anthropic, Wire::Anthropic)));
        assert_eq!(chat(Kind::Bedrock, "m", Dialect::Chat), Some((Dialect::Bedrock, Wire::Converse)));
        assert_eq!(chat(Kind::Gemini, "m", Dialect::Chat), Some((Dialect::Gemini, Wire::Gemini)));
        assert_eq!(chat(Kind::Vertex, "claude-sonnet-4-5", Dialect::Chat), Some((Dialect::Anthropic, Wire::Anthropic)));
        assert_eq!(chat(Kind::Vertex, "meta/llama", Dialect::Anthropic), Some((Dialect::Chat, Wire::Openai)));
        assert_eq!(chat(Kind::Mistral, "m", Dialect::Responses), Some((Dialect::Chat, Wire::Openai)));
        assert_eq!(chat(Kind::Gemini, "m", Dialect::Interactions), Some((Dialect::Gemini, Wire::Gemini)));
        assert_eq!(chat(Kind::Openai, "m", Dialect::Interactions), Some((Dialect::Chat, Wire::Openai)));
        assert_eq!(chat(Kind::Oip, "m", Dialect::Chat), None);
    }

    #[test]
    fn a_server_of_tensors_is_asked_for_vectors_and_for_text_and_for_no_conversation() {
        let asked = |from, what| spoken(Kind::Oip, "m", from, what).map(|(_, wire, operation)| (wire, operation));
        for from in [Dialect::Chat, Dialect::Gemini, Dialect::Ollama] {
            assert_eq!(asked(from, Operation::Embeddings), Some((Wire::Oip, Asks::Infer)), "{from}");
        }
        assert_eq!(asked(Dialect::Chat, Operation::Completions), Some((Wire::Oip, Asks::Completions)));
        let oip = Fake::new(Name::new("p").unwrap(), Kind::Oip, []);
        // Ollama's generate goes through the model's template as well.
        for (from, what) in [(Dialect::Anthropic, Operation::Chat), (Dialect::Ollama, Operation::Completions)] {
            assert_eq!(asked(from, what), None, "{from}");
            assert!(missing(&oip, "m", from, what).contains("template"), "{from}");
        }
        assert!(!missing(&oip, "m", Dialect::Chat, Operation::Moderations).contains("template"));
    }

    #[test]
    fn what_only_one_language_can_say_is_asked_in_it_or_not_at_all() {
        assert_eq!(spoken(Kind::Anthropic, "m", Dialect::Chat, Operation::Embeddings), None);
        assert_eq!(spoken(Kind::Openai, "m", Dialect::Anthropic, Operation::CountTokens), None);
        assert_eq!(
            spoken(Kind::Gemini, "m", Dialect::Chat, Operation::Embeddings),
            Some((Dialect::Gemini, Wire::Gemini, Asks::EmbeddingsBatch))
        );
        assert_eq!(
            spoken(Kind::Openai, "m", Dialect::Ollama, Operation::Completions),
            Some((Dialect::Chat, Wire::Openai, Asks::Chat))
        );
    }
}
