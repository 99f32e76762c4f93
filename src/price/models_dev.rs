//! models.dev's `api.json`: an object of providers, each with `models`, each with `cost` in US dollars for a million
//! tokens (its `packages/core/src/schema.ts` of July 2026).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use super::build::{Builder, Read, Source, TEXT_MAX_BYTES, members, per_million};
use super::config::Rates;
use super::cost::Tier;
use super::rate::Rate;

const NAME: &str = "models.dev";
/// What `context_over_200k` is asked above.
const OVER_200K: u32 = 200_000;

#[derive(Deserialize)]
struct Provider<'a> {
    #[serde(borrow)]
    models: &'a RawValue,
}

#[derive(Deserialize)]
struct Model {
    cost: Option<Costs>,
}

/// Unknown members are new kinds of prices: they are ignored, unlike in one's own configuration.
#[derive(Deserialize)]
struct Cost {
    input: Option<f64>,
    output: Option<f64>,
    reasoning: Option<f64>,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
    input_audio: Option<f64>,
    output_audio: Option<f64>,
}

#[derive(Deserialize)]
struct Costs {
    #[serde(flatten)]
    plain: Cost,
    context_over_200k: Option<Cost>,
    #[serde(default)]
    tiers: Vec<Longer>,
}

#[derive(Deserialize)]
struct Longer {
    tier: Size,
    #[serde(flatten)]
    cost: Cost,
}

#[derive(Deserialize)]
struct Size {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    size: u32,
}

pub(super) fn read(builder: &mut Builder, text: &[u8]) -> Result<Read, Error> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::TooLarge { source_name: NAME, bytes: text.len(), max: TEXT_MAX_BYTES });
    }
    let mut read = Read::default();
    let each = |provider: Cow<'_, str>, row: &RawValue| {
        let models = serde_json::from_str::<Provider<'_>>(row.get()).map(|provider| provider.models.get().as_bytes());
        let each_model = |model: Cow<'_, str>, row: &RawValue| match prices(row) {
            Some(rates) => builder.take(Source::ModelsDev, (&provider, &model), rates, &mut read),
            None => read.wrong += 1,
        };
        let done = models.and_then(|models| members(models, each_model));
        if done.is_err() {
            read.wrong += 1;
        }
    };
    members(text, each).map_err(|source| Error::Form { source_name: NAME, source })?;
    Ok(read)
}

/// The rates of a model; none if one of its prices cannot be a price.
fn prices(row: &RawValue) -> Option<Vec<Rate>> {
    let mut rates = Vec::new();
    let Some(costs) = serde_json::from_str::<Model>(row.get()).ok()?.cost else { return Some(rates) };
    let mut add = |cost: Cost, above| per_million(&cost.into(), Tier::Standard, above, &mut rates).ok();
    add(costs.plain, 0)?;
    // The member for 200,000 is made from the tiers, whatever their size is: who has tiers needs only them.
    if let Some(cost) = costs.context_over_200k.filter(|_| costs.tiers.is_empty()) {
        add(cost, OVER_200K)?;
    }
    for longer in costs.tiers {
        if longer.tier.kind.as_deref().is_none_or(|kind| kind == "context") {
            add(longer.cost, longer.tier.size)?;
        }
    }
    Some(rates)
}

impl From<Cost> for Rates {
    fn from(cost: Cost) -> Self {
        Self {
            input: cost.input,
            output: cost.output,
            cache_read: cost.cache_read,
            cache_write: cost.cache_write,
            reasoning: cost.reasoning,
            input_audio: cost.input_audio,
            output_audio: cost.output_audio,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Config, Prices, Usage};

    const TABLE: &[u8] = include_bytes!("../../tests/fixtures/prices/models_dev.json");

    fn table() -> (Prices, Read) {
        let mut builder = Builder::new(&Config::default()).unwrap();
        let read = builder.add_models_dev(TABLE).unwrap();
        (builder.build().0, read)
    }

    #[test]
    fn every_kind_of_row_is_taken_or_counted() {
        let (prices, read) = table();
        assert_eq!(read, Read { taken: 4, not_by_token: 1, zero: 1, wrong: 3, ..Read::default() });
        assert_eq!(prices.len(), 4);
    }

    #[test]
    fn prices_are_of_a_million_tokens_and_change_with_the_length_of_the_prompt() {
        let (prices, _) = table();
        let cost = |provider: &str, model: &str, usage: Usage| {
            prices.find(provider, model).unwrap().cost(&usage, Tier::Standard).unwrap().pico_usd
        };
        let usage = |input| Usage { input, cache_read: 10, output: 1, reasoning: 1, ..Usage::default() };
        let tiers = |input| cost("openai", "chat-tiers", usage(input));
        assert_eq!(tiers(272_000), 271_990 * 2_500_000 + 10 * 250_000 + 15_000_000);
        assert_eq!(tiers(272_001), 271_991 * 5_000_000 + 10 * 500_000 + 22_500_000, "not at 200,000");
        let legacy = |input| cost("gemini", "legacy", usage(input));
        assert_eq!(
            legacy(200_001),
            199_991 * 2_500_000 + 10 * 310_000 + 15_000_000,
            "what is not named keeps its price"
        );
        assert_eq!(cost("bedrock", "eu.written", Usage { input: 2, cache_write: 1, ..Usage::default() }), 6_750_000);
    }

    #[test]
    fn a_text_that_is_not_the_table_is_refused() {
        let read = |text: &[u8]| Builder::new(&Config::default()).unwrap().add_models_dev(text);
        for text in [&b""[..], b"[]", b"7", b"{\"openai\"", b"{\"openai\":{\"models\":{"] {
            assert!(matches!(read(text), Err(Error::Form { .. })));
        }
        assert_eq!(read(br#"{"p":{},"q":{"models":[]},"r":3}"#).unwrap(), Read { wrong: 3, ..Read::default() });
        for cut in 1..TABLE.len() - 2 {
            assert!(read(&TABLE[..cut]).is_err(), "{cut}");
        }
    }
}
