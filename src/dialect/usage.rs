//! What an answer used, in one way of counting for all dialects.

use super::count::TextCount;
use super::json::{self, Raw};

/// The tier that an answer says it was served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// What is served when nothing else was asked for, or nothing else was to be had.
    Standard,
    /// As a batch.
    Batch,
    /// Later, for less.
    Flex,
    /// Sooner, for more.
    Priority,
    /// In one that is not known here.
    Other,
}

impl Served {
    /// The tier of that name; none if the name says no more than that the provider chose.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "auto" => return None,
            "default" | "standard" | "on_demand" | "ON_DEMAND" => Self::Standard,
            "batch" => Self::Batch,
            "flex" | "ON_DEMAND_FLEX" => Self::Flex,
            "priority" | "ON_DEMAND_PRIORITY" => Self::Priority,
            _ => Self::Other,
        })
    }

    /// The tier in a member of an answer.
    pub(crate) fn read(raw: Option<Raw<'_>>) -> Option<Self> {
        Self::named(&json::text(raw?)?)
    }
}

/// Tokens of one request. Unknown is `None`, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt, those read from and written to a cache of the provider among them.
    pub input_tokens: Option<u64>,
    /// All tokens of the answer, those of its reasoning among them.
    pub output_tokens: Option<u64>,
    /// Tokens of the prompt that the provider had in its cache.
    pub cache_read_tokens: Option<u64>,
    /// Tokens of the prompt that the provider put into its cache, for however long.
    pub cache_write_tokens: Option<u64>,
    /// Of these, those that it keeps for an hour rather than for minutes.
    pub cache_write_hour_tokens: Option<u64>,
    /// Tokens of the prompt that are sound and did not come from the cache.
    pub input_audio_tokens: Option<u64>,
    /// Tokens of the prompt that are pictures and did not come from the cache.
    pub input_image_tokens: Option<u64>,
    /// Tokens of the answer that were spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Tokens of the answer that are sound.
    pub output_audio_tokens: Option<u64>,
    /// Tokens of the answer that are pictures.
    pub output_image_tokens: Option<u64>,
    /// The tier that it was served in.
    pub served: Option<Served>,
    /// Whether at least one number was counted here because the provider told none.
    pub estimated: bool,
}

impl Usage {
    /// Input and output together, as far as they are known.
    pub fn total_tokens(&self) -> Option<u64> {
        Some(self.input_tokens?.saturating_add(self.output_tokens?))
    }

    /// Takes every number that `newer` knows: providers tell usage in parts and later parts hold.
    pub fn update(&mut self, newer: &Self) {
        fn take<T: Copy>(old: &mut Option<T>, new: Option<T>) {
            *old = new.or(*old);
        }
        take(&mut self.input_tokens, newer.input_tokens);
        take(&mut self.output_tokens, newer.output_tokens);
        take(&mut self.cache_read_tokens, newer.cache_read_tokens);
        take(&mut self.cache_write_tokens, newer.cache_write_tokens);
        take(&mut self.cache_write_hour_tokens, newer.cache_write_hour_tokens);
        take(&mut self.input_audio_tokens, newer.input_audio_tokens);
        take(&mut self.input_image_tokens, newer.input_image_tokens);
        take(&mut self.reasoning_tokens, newer.reasoning_tokens);
        take(&mut self.output_audio_tokens, newer.output_audio_tokens);
        take(&mut self.output_image_tokens, newer.output_image_tokens);
        take(&mut self.served, newer.served);
    }
}

/// Counts along while an answer passes, so that usage is known also when the provider tells none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter {
    told: Usage,
    said: TextCount,
    input_tokens_estimated: u64,
}

impl Meter {
    pub(crate) fn new(input_tokens_estimated: u64) -> Self {
        Self { input_tokens_estimated, ..Self::default() }
    }

    /// Text of the answer: words, reasoning, arguments of tools.
    pub(crate) fn said(&mut self, text: &str) {
        self.said.add(text);
    }

    /// Whether any text came yet.
    pub(crate) fn has_text(&self) -> bool {
        !self.said.is_empty()
    }

    /// Usage as the provider tells it.
    pub(crate) fn told(&mut self, usage: &Usage) {
        self.told.update(usage);
    }

    /// What the provider told; what it did not tell is estimated. Zeros beside a text are no count: some servers send
    /// them in streams because a client wants the member to be there.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.told;
        if usage.output_tokens.is_none_or(|tokens| tokens == 0 && !self.said.is_empty()) {
            usage.output_tokens = Some(self.said.tokens());
            usage.estimated = true;
        }
        if usage.input_tokens.is_none_or(|tokens| tokens == 0 && self.input_tokens_estimated > 0) {
            usage.input_tokens = Some(self.input_tokens_estimated);
            usage.estimated = true;
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::trial::{answered, full_answer, full_stream, streamed};

    /// A whole answer of a dialect with more in its usage, and what else its end says.
    fn with(dialect: Dialect, usage: &Value, more: &Value) -> Value {
        let mut answer = full_answer(dialect);
        answer["usage"].as_object_mut().unwrap().extend(usage.as_object().unwrap().clone());
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answer
    }

    #[test]
    fn what_the_provider_told_holds() {
        let mut meter = Meter::new(100);
        meter.said("some words");
        meter.told(&Usage { input_tokens: Some(12), output_tokens: Some(1), ..Usage::default() });
        meter.told(&Usage { output_tokens: Some(7), reasoning_tokens: Some(3), ..Usage::default() });
        let usage = meter.usage();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.reasoning_tokens), (Some(12), Some(7), Some(3)));
        assert!(!usage.estimated);
        assert_eq!(usage.total_tokens(), Some(19));
    }

    #[test]
    fn what_nobody_told_is_estimated_and_marked() {
        let mut meter = Meter::new(100);
        meter.said("some words that broke off");
        let usage = meter.usage();
        assert_eq!(usage.input_tokens, Some(100));
        assert!(usage.output_tokens.unwrap() > 3);
        assert!(usage.estimated);
    }

    #[test]
    fn what_is_written_for_an_hour_is_told_apart_wherever_it_goes() {
        let told = json!({"cache_creation_input_tokens": 30, "service_tier": "batch",
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
        let body = with(Dialect::Anthropic, &told, &json!({}));
        for caller in [Dialect::Anthropic, Dialect::Chat, Dialect::Responses, Dialect::Gemini] {
            let usage = answered(caller, Dialect::Anthropic, &body).unwrap().1.usage;
            assert_eq!((usage.input_tokens, usage.cache_write_tokens), (Some(45), Some(30)), "{caller:?}");
            assert_eq!((usage.cache_write_hour_tokens, usage.served), (Some(20), Some(Served::Batch)), "{caller:?}");
        }
        let mut events = full_stream(Dialect::Anthropic);
        events[0]["message"]["usage"].as_object_mut().unwrap().extend(told.as_object().unwrap().clone());
        for caller in [Dialect::Anthropic, Dialect::Chat, Dialect::Responses] {
            let usage = streamed(caller, Dialect::Anthropic, &events).usage;
            assert_eq!((usage.cache_write_hour_tokens, usage.served), (Some(20), Some(Served::Batch)), "{caller:?}");
        }
        let bedrock = json!({"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn", "serviceTier": {"type": "flex"}, "usage": {"inputTokens": 5, "outputTokens": 1,
            "cacheWriteInputTokens": 30, "cacheDetails": [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}]}});
        let (body, answer) = answered(Dialect::Anthropic, Dialect::Bedrock, &bedrock).unwrap();
        assert_eq!((answer.usage.cache_write_hour_tokens, answer.usage.served), (Some(20), Some(Served::Flex)));
        let lasting = json!({"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10});
        assert_eq!(body["usage"]["cache_creation"], lasting);
    }

    #[test]
    fn sound_and_pictures_are_told_apart_wherever_they_go() {
        let all = |usage: &Usage| {
            let Usage { input_audio_tokens, input_image_tokens, output_audio_tokens, output_image_tokens, .. } = *usage;
            [input_audio_tokens, input_image_tokens, output_audio_tokens, output_image_tokens]
        };
        let told = json!({"prompt_tokens_details": {"audio_tokens": 4, "image_tokens": 3},
            "completion_tokens_details": {"audio_tokens": 2, "image_tokens": 1}});
        let body = with(Dialect::Chat, &told, &json!({"service_tier": "priority"}));
        let (_, passed) = answered(Dialect::Chat, Dialect::Chat, &body).unwrap();
        assert_eq!(all(&passed.usage), [Some(4), Some(3), Some(2), Some(1)]);
        assert_eq!(passed.usage.served, Some(Served::Priority));
        let (google, answer) = answered(Dialect::Gemini, Dialect::Chat, &body).unwrap();
        assert_eq!((all(&answer.usage), answer.usage.served), (all(&passed.usage), passed.usage.served));
        let modalities = |sound: u64, pictures: u64| json!([{"modality": "AUDIO", "tokenCount": sound}, {"modality": "IMAGE", "tokenCount": pictures}]);
        assert_eq!(google["usageMetadata"]["promptTokensDetails"], modalities(4, 3));
        assert_eq!(google["usageMetadata"]["candidatesTokensDetails"], modalities(2, 1));
        let (interaction, _) = answered(Dialect::Interactions, Dialect::Chat, &body).unwrap();
        let heard = json!([{"modality": "audio", "tokens": 4}, {"modality": "image", "tokens": 3}]);
        assert_eq!(interaction["usage"]["input_tokens_by_modality"], heard);

        let gemini = json!({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 5, "cachedContentTokenCount": 6,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}, {"modality": "AUDIO", "tokenCount": 9},
                    {"modality": "IMAGE", "tokenCount": 3}],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}], "trafficType": "ON_DEMAND_FLEX"}});
        for caller in [Dialect::Gemini, Dialect::Chat] {
            let (body, answer) = answered(caller, Dialect::Gemini, &gemini).unwrap();
            assert_eq!(all(&answer.usage), [Some(3), Some(3), None, Some(5)], "what came from the cache is no sound");
            assert_eq!(answer.usage.served, Some(Served::Flex));
            if caller == Dialect::Chat {
                let usage = &body["usage"];
                assert_eq!(usage["prompt_tokens_details"]["audio_tokens"], 3);
                assert_eq!(usage["prompt_tokens_details"]["image_tokens"], 3);
                assert_eq!(usage["completion_tokens_details"]["image_tokens"], 5);
            }
        }
    }

    #[test]
    fn what_nobody_told_is_left_out_or_null_and_a_number_only_where_clients_want_one() {
        let message = json!({"role": "assistant", "content": "Hi"});
        let plain = json!({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}});
        let usage = |caller| answered(caller, Dialect::Chat, &plain).unwrap().0["usage"].clone();
        let anthropic = usage(Dialect::Anthropic);
        assert_eq!((&anthropic["input_tokens"], &anthropic["output_tokens"]), (&json!(9), &json!(2)));
        for name in
            ["cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens_details", "cache_creation"]
        {
            assert!(
                anthropic.as_object().unwrap().contains_key(name) && anthropic[name].is_null(),
                "{name}: {anthropic}"
            );
        }
        // OpenAI's clients of responses take nothing but numbers here.
        let responses = usage(Dialect::Responses);
        assert_eq!(responses["input_tokens_details"], json!({"cached_tokens": 0, "cache_write_tokens": 0}));
        assert_eq!(responses["output_tokens_details"], json!({"reasoning_tokens": 0}));
        let bedrock = json!({"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn", "usage": {"inputTokens": 9, "outputTokens": 2}});
        let (body, _) = answered(Dialect::Chat, Dialect::Bedrock, &bedrock).unwrap();
        assert_eq!(body["usage"], json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}));
        let known = json!({"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn", "usage": {"inputTokens": 9, "outputTokens": 2, "cacheReadInputTokens": 0}});
        let (body, _) = answered(Dialect::Chat, Dialect::Bedrock, &known).unwrap();
        assert_eq!(body["usage"]["prompt_tokens_details"], json!({"cached_tokens": 0}), "a 0 that was told is one");
    }

    #[test]
    fn a_tier_that_says_nothing_is_none() {
        for name in ["", "auto"] {
            assert_eq!(Served::named(name), None);
        }
        assert_eq!((Served::named("on_demand"), Served::named("gold")), (Some(Served::Standard), Some(Served::Other)));
    }

    #[test]
    fn zeros_beside_a_text_are_no_count() {
        let mut meter = Meter::new(100);
        meter.said("words");
        meter.told(&Usage { input_tokens: Some(0), output_tokens: Some(0), ..Usage::default() });
        assert_eq!(meter.usage().input_tokens, Some(100));
        assert_eq!(meter.usage().output_tokens, Some(2));
        assert!(meter.usage().estimated);
    }
}
