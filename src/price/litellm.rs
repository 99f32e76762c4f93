//! LiteLLM's `model_prices_and_context_window.json`: an object of model names, each with `litellm_provider` and prices of
//! one token in US dollars. The names of its fields are made of a base, a mark for longer prompts and a tier, such as
//! `cache_read_input_token_cost_above_200k_tokens_priority` (its schema of 2026).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use super::build::{Builder, Read, Source, TEXT_MAX_BYTES, members};
use super::cost::Tier;
use super::names::provider_name;
use super::rate::{Item, PER_ONE, Rate, pico_usd};

const NAME: &str = "LiteLLM";
/// Members that are not models.
const NOT_MODELS: [&str; 2] = ["sample_spec", "fallback_generalizations"];
/// Bases of the fields that are prices of a token, or of a request.
const BASES: [(&str, Item); 12] = [
    ("input_cost_per_token", Item::Input),
    ("output_cost_per_token", Item::Output),
    ("cache_read_input_token_cost", Item::CacheRead),
    ("cache_creation_input_token_cost_above_1hr", Item::CacheWriteHour),
    ("cache_creation_input_token_cost", Item::CacheWrite),
    ("output_cost_per_reasoning_token", Item::Reasoning),
    ("input_cost_per_audio_token", Item::InputAudio),
    ("output_cost_per_audio_token", Item::OutputAudio),
    ("input_cost_per_image_token", Item::InputImage),
    ("output_cost_per_image_token", Item::OutputImage),
    ("input_cost_per_request", Item::Request),
    // DeepSeek's older name of the price of cached tokens.
    ("input_cost_per_token_cache_hit", Item::CacheRead),
];

/// One element of `tiered_pricing`: prices for prompts whose tokens lie within `range`.
#[derive(Deserialize)]
struct Span {
    range: Option<[f64; 2]>,
    input_cost_per_token: Option<f64>,
    output_cost_per_token: Option<f64>,
    output_cost_per_reasoning_token: Option<f64>,
    cache_read_input_token_cost: Option<f64>,
    cache_creation_input_token_cost: Option<f64>,
}

pub(super) fn read(builder: &mut Builder, text: &[u8]) -> Result<Read, Error> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::TooLarge { source_name: NAME, bytes: text.len(), max: TEXT_MAX_BYTES });
    }
    let mut read = Read::default();
    let each = |model: std::borrow::Cow<'_, str>, row: &RawValue| {
        if NOT_MODELS.contains(&&*model) {
            return;
        }
        let Some((provider, rates)) = prices(row) else {
            read.wrong += 1;
            return;
        };
        // `azure/gpt-4o` of `azure`, `vertex_ai/claude-…` of `vertex_ai-anthropic_models`; `openai/…` of `groq` stays.
        let name = match model.split_once('/') {
            Some((first, rest)) if provider_name(first) == provider_name(&provider) => rest,
            _ => &model,
        };
        builder.take(Source::LiteLlm, (&provider, name), rates, &mut read);
    };
    members(text, each).map_err(|source| Error::Form { source_name: NAME, source })?;
    Ok(read)
}

/// The provider and the rates of a row. None if the row is not of its form, or one of its prices cannot be a price: the
/// others would be a bill with a part missing.
fn prices(row: &RawValue) -> Option<(String, Vec<Rate>)> {
    let mut provider = None;
    let mut rates = Vec::new();
    let mut is_text = true;
    let mut sound = true;
    members(row.get().as_bytes(), |field, value| match &*field {
        "litellm_provider" => provider = serde_json::from_str::<String>(value.get()).ok(),
        "mode" => is_text = !matches!(value.get(), "\"embedding\"" | "\"moderation\"" | "\"rerank\""),
        "tiered_pricing" => sound &= spans(value, &mut rates).is_some(),
        _ => {
            if let Some((item, tier, above_tokens)) = purpose(&field)
                && value.get() != "null"
            {
                match serde_json::from_str(value.get()).ok().and_then(|usd| pico_usd(usd, PER_ONE)) {
                    Some(pico_usd) => rates.push(Rate { item, tier, above_tokens, pico_usd }),
                    None => sound = false,
                }
            }
        }
    })
    .ok()?;
    // An answer for 0 beside a prompt that costs something is a price by the picture, the second or the page, which is
    // not here; but what embeds has no answer.
    let costs = |item| rates.iter().any(|rate: &Rate| rate.item == item && rate.pico_usd > 0);
    if is_text && costs(Item::Input) && !costs(Item::Output) {
        rates.retain(|rate| rate.item != Item::Output);
    }
    Some((provider.filter(|_| sound)?, rates))
}

/// What the price in `field` is for; none for any other field.
fn purpose(field: &str) -> Option<(Item, Tier, u32)> {
    BASES.iter().find_map(|&(base, item)| {
        let rest = field.strip_prefix(base)?;
        let (above_tokens, rest) = match rest.strip_prefix("_above_") {
            Some(rest) => {
                let (thousands, rest) = rest.split_once("k_tokens")?;
                (thousands.parse::<u32>().ok().filter(|n| *n > 0)?.checked_mul(1_000)?, rest)
            }
            None => (0, rest),
        };
        let tier = match rest {
            "" => Tier::Standard,
            "_batches" => Tier::Batch,
            "_flex" => Tier::Flex,
            "_priority" => Tier::Priority,
            _ => return None,
        };
        Some((item, tier, above_tokens))
    })
}

/// The rates of `tiered_pricing`. The whole request has the price of the span that its prompt falls into, as the
/// providers that bill this way say.
fn spans(value: &RawValue, rates: &mut Vec<Rate>) -> Option<()> {
    for span in serde_json::from_str::<Vec<Span>>(value.get()).ok()? {
        // By the number of results: a search, which is not billed by tokens.
        let Some([from, _]) = span.range else { continue };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 2^32")]
        let above_tokens = (0.0..4e9).contains(&from).then_some(from as u32)?;
        for (item, usd) in [
            (Item::Input, span.input_cost_per_token),
            (Item::Output, span.output_cost_per_token),
            (Item::Reasoning, span.output_cost_per_reasoning_token),
            (Item::CacheRead, span.cache_read_input_token_cost),
            (Item::CacheWrite, span.cache_creation_input_token_cost),
        ] {
            if let Some(usd) = usd {
                let pico_usd = pico_usd(usd, PER_ONE)?;
                rates.push(Rate { item, tier: Tier::Standard, above_tokens, pico_usd });
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Config, Prices, Usage};

    /// Rows in the table's form, one of each kind that it has.
    const TABLE: &[u8] = include_bytes!("../../tests/fixtures/prices/litellm.json");

    fn table() -> (Prices, Read) {
        let mut builder = Builder::new(&Config::default()).unwrap();
        let read = builder.add_litellm(TABLE).unwrap();
        (builder.build().0, read)
    }

    fn cost(prices: &Prices, provider: &str, model: &str, usage: &Usage, tier: Tier) -> Option<u64> {
        prices.find(provider, model)?.cost(usage, tier).map(|cost| cost.pico_usd)
    }

    #[test]
    fn every_kind_of_row_is_taken_or_counted() {
        let (prices, read) = table();
        let expected = Read { taken: 9, not_by_token: 2, zero: 1, wrong: 3, ..Read::default() };
        assert_eq!(read, expected);
        assert_eq!(prices.len(), 9);
        assert!(prices.find("openai", "sample_spec").is_none());
    }

    #[test]
    fn cached_written_batch_priority_and_long_prompts_have_their_prices() {
        let (prices, _) = table();
        let usage = Usage { input: 1_000, cache_read: 600, output: 100, ..Usage::default() };
        let of = |tier| cost(&prices, "openai", "chat-large", &usage, tier);
        assert_eq!(of(Tier::Standard), Some(400 * 2_500_000 + 600 * 1_250_000 + 100 * 10_000_000));
        assert_eq!(of(Tier::Priority), Some(400 * 4_250_000 + 600 * 2_125_000 + 100 * 17_000_000));
        // The table has no batch price of cached tokens: they are charged as the batch's prompt.
        assert_eq!(of(Tier::Batch), Some(1_000 * 1_250_000 + 100 * 5_000_000));

        let written = Usage { input: 300, cache_write: 100, cache_write_hour: 100, ..Usage::default() };
        let sonnet = |usage: &Usage| cost(&prices, "anthropic", "prose-medium", usage, Tier::Standard);
        assert_eq!(sonnet(&written), Some(100 * 3_000_000 + 100 * 3_750_000 + 100 * 6_000_000));
        let long = Usage { input: 200_001, output: 1, cache_read: 1, ..Usage::default() };
        assert_eq!(sonnet(&long), Some(200_000 * 6_000_000 + 600_000 + 22_500_000));
    }

    #[test]
    fn a_span_of_prompt_lengths_prices_the_whole_request() {
        let (prices, _) = table();
        let of = |input| {
            cost(&prices, "dashscope", "spans", &Usage { input, output: 1, ..Usage::default() }, Tier::Standard)
        };
        assert_eq!(of(256_000), Some(256_000 * 50_000 + 400_000));
        assert_eq!(of(256_001), Some(256_001 * 250_000 + 2_000_000));
    }

    #[test]
    fn reasoning_and_sound_are_billed_apart_where_the_table_says_so() {
        let (prices, _) = table();
        let usage = Usage { input: 10, input_audio: 4, output: 30, reasoning: 20, ..Usage::default() };
        let gemini = cost(&prices, "gemini", "models/bright-flash", &usage, Tier::Standard);
        assert_eq!(gemini, Some(6 * 300_000 + 4 * 1_000_000 + 10 * 2_500_000 + 20 * 3_500_000));
    }

    #[test]
    fn what_has_no_answer_has_no_price_for_one() {
        let (prices, _) = table();
        let embed = Usage { input: 100, ..Usage::default() };
        assert_eq!(cost(&prices, "openai", "embed-small", &embed, Tier::Standard), Some(100 * 20_000));
        let picture = Usage { input: 100, output: 1_000, ..Usage::default() };
        assert_eq!(
            cost(&prices, "openai", "painter", &picture, Tier::Standard),
            None,
            "by the picture, not known here"
        );
        assert_eq!(cost(&prices, "openai", "painter", &embed, Tier::Standard), Some(100 * 5_000_000));
    }

    #[test]
    fn fields_are_known_by_their_whole_name() {
        assert_eq!(purpose("input_cost_per_token"), Some((Item::Input, Tier::Standard, 0)));
        assert_eq!(
            purpose("cache_creation_input_token_cost_above_1hr_above_200k_tokens"),
            Some((Item::CacheWriteHour, Tier::Standard, 200_000))
        );
        assert_eq!(
            purpose("cache_read_input_token_cost_above_272k_tokens_priority"),
            Some((Item::CacheRead, Tier::Priority, 272_000))
        );
        assert_eq!(purpose("input_cost_per_token_cache_hit"), Some((Item::CacheRead, Tier::Standard, 0)));
        for other in [
            "input_cost_per_token_balanced",
            "input_cost_per_token_above_k_tokens",
            "input_cost_per_token_above_0k_tokens",
            "input_cost_per_token_above_99999999999k_tokens",
            "input_cost_per_token_above_4294968k_tokens",
            "input_cost_per_tokens",
            "output_cost_per_image",
            "output_cost_per_second_1080p",
            "max_tokens",
            "",
        ] {
            assert_eq!(purpose(other), None, "{other}");
        }
    }

    #[test]
    fn a_text_that_is_not_the_table_is_refused_and_says_where() {
        let read = |text: &[u8]| Builder::new(&Config::default()).unwrap().add_litellm(text);
        for text in [&b""[..], b"[]", b"null", b"{", b"{\"a\":", b"{\"a\":1}{", b"\xff\xfe"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("LiteLLM") && (error.contains("line 1") || error.contains("line 0")), "{error}");
        }
        for cut in 1..TABLE.len() - 2 {
            assert!(read(&TABLE[..cut]).is_err(), "{cut}");
        }
        assert!(matches!(read(&vec![b' '; TEXT_MAX_BYTES + 1]), Err(Error::TooLarge { .. })));
        let nested = format!("{{\"m\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(nested.as_bytes()).unwrap(), Read { wrong: 1, ..Read::default() });
        let rows = br#"{"a":1,"b":null,"c":[],"d":{"litellm_provider":7,"input_cost_per_token":1},"e":{"input_cost_per_token":1e-6}}"#;
        assert_eq!(read(rows).unwrap(), Read { wrong: 5, ..Read::default() });
    }
}
