//! The finished table: small in memory, found by the usual names.

use smallvec::SmallVec;

use super::build::Source;
use super::cost::{self, Cost, Tier, Usage};
use super::names::{is_date, provider_name, without_path, without_release, without_variant};
use super::rate::{Item, Rate};

/// All prices. Names lie in one text and rates in one list, equal ones once; a model is a row of 12 bytes.
#[derive(Debug, Default)]
pub struct Prices {
    names: Box<str>,
    rows: Box<[Row]>,
    rates: Box<[Rate]>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name_at: u32,
    pub(super) rates_at: u32,
    pub(super) name_len: u16,
    pub(super) rates_len: u8,
    pub(super) source: Source,
}

/// How a model's name led to its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The table has the name.
    Exact,
    /// It has the name without its path, region, tag or tuning.
    Variant,
    /// It has the name without the release, or with the newest one: the price is the model's as it is listed, which an
    /// older release may not have had.
    Release,
}

/// The price of one model.
#[derive(Debug, Clone, Copy)]
pub struct Price<'a> {
    name: &'a str,
    rates: &'a [Rate],
    source: Source,
    matched: Match,
}

/// A key to look for, on the stack for names of ordinary length.
type Key = SmallVec<[u8; 128]>;

impl Prices {
    /// `rows` in the order of their names.
    pub(super) fn new(names: String, rows: Vec<Row>, rates: Vec<Rate>) -> Self {
        Self { names: names.into(), rows: rows.into(), rates: rates.into() }
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes that the table holds.
    pub fn size_bytes(&self) -> usize {
        self.names.len() + size_of_val(&*self.rows) + size_of_val(&*self.rates)
    }

    /// Each model's price, by `provider/model`.
    pub fn iter(&self) -> impl Iterator<Item = Price<'_>> {
        (0..self.rows.len()).map(|at| self.price(at, Match::Exact))
    }

    /// The price of `model` at `provider`: by the name as it is, else without what is around it (`models/…`, an ARN, a
    /// region, `:latest`), else without its release, else with the newest release that the table has. Small and capital
    /// letters are the same.
    pub fn find(&self, provider: &str, model: &str) -> Option<Price<'_>> {
        if self.rows.is_empty() || model.is_empty() || model.len() > 1024 {
            return None;
        }
        let provider = provider_name(provider);
        let exact = |model: &str| self.exact(&key(&provider, model));
        if let Some(at) = exact(model) {
            return Some(self.price(at, Match::Exact));
        }
        let bare = without_path(&provider, model);
        let variant = without_variant(&provider, bare);
        for form in [bare, variant] {
            if let Some(at) = exact(form) {
                return Some(self.price(at, Match::Variant));
            }
        }
        let at = without_release(variant).and_then(exact).or_else(|| self.newest(&key(&provider, variant)))?;
        Some(self.price(at, Match::Release))
    }

    /// The first price that one of `providers` has for `model`, such as a provider's own name and then its kind.
    pub fn find_any(&self, providers: &[&str], model: &str) -> Option<Price<'_>> {
        providers.iter().find_map(|provider| self.find(provider, model))
    }

    fn exact(&self, key: &Key) -> Option<usize> {
        self.rows.binary_search_by(|row| self.name(row).as_bytes().cmp(key)).ok()
    }

    /// The row of `key` with the latest date behind it.
    fn newest(&self, key: &Key) -> Option<usize> {
        let dated = |separator: u8| {
            let mut prefix = key.clone();
            prefix.extend_from_slice(&[separator, b'2', b'0']);
            let from = self.rows.partition_point(|row| self.name(row).as_bytes() < prefix.as_slice());
            let named = self.rows[from..].iter().take_while(move |row| self.name(row).as_bytes().starts_with(&prefix));
            let at = key.len() + 1;
            named.enumerate().filter(move |(_, row)| is_date(&self.name(row)[at..])).last().map(|(n, _)| from + n)
        };
        dated(b'-').or_else(|| dated(b'@'))
    }

    fn name(&self, row: &Row) -> &str {
        let at = row.name_at as usize;
        &self.names[at..at + usize::from(row.name_len)]
    }

    fn price(&self, at: usize, matched: Match) -> Price<'_> {
        let row = &self.rows[at];
        let rates_at = row.rates_at as usize;
        let rates = &self.rates[rates_at..rates_at + usize::from(row.rates_len)];
        Price { name: self.name(row), rates, source: row.source, matched }
    }
}

fn key(provider: &str, model: &str) -> Key {
    let mut key = Key::new();
    key.extend_from_slice(provider.as_bytes());
    key.push(b'/');
    key.extend_from_slice(model.as_bytes());
    key.make_ascii_lowercase();
    key
}

impl<'a> Price<'a> {
    /// What `usage` costs in `tier`; none if a part of it has no price.
    pub fn cost(&self, usage: &Usage, tier: Tier) -> Option<Cost> {
        cost::cost(self.rates, usage, tier)
    }

    /// `provider/model` as the table has it.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Which table it is from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// How the name led here.
    pub fn matched(&self) -> Match {
        self.matched
    }

    /// Micro-USD for a million tokens of a short prompt, which is pico-USD a token.
    pub fn input_micro_usd_per_million(&self) -> Option<u64> {
        self.plain(Item::Input)
    }

    /// The same for tokens of the answer.
    pub fn output_micro_usd_per_million(&self) -> Option<u64> {
        self.plain(Item::Output)
    }

    pub(super) fn rates(&self) -> &'a [Rate] {
        self.rates
    }

    fn plain(&self, item: Item) -> Option<u64> {
        let plain = |rate: &&Rate| rate.item == item && rate.tier == Tier::Standard && rate.above_tokens == 0;
        self.rates.iter().find(plain).map(|rate| rate.pico_usd)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::price::{Builder, Config};

    fn prices(of: &[(&str, &str)]) -> Prices {
        let mut text = String::new();
        for (at, (provider, model)) in of.iter().enumerate() {
            write!(
                text,
                "[[model]]\nprovider = \"{provider}\"\nmodel = \"{model}\"\n\
                 usd_per_million_tokens = {{ input = {}.0, output = 1.0 }}\n",
                at + 1
            )
            .unwrap();
        }
        Builder::new(&toml::from_str::<Config>(&text).unwrap()).unwrap().build().0
    }

    fn found<'a>(prices: &'a Prices, provider: &str, model: &str) -> Option<(&'a str, Match)> {
        prices.find(provider, model).map(|price| (price.name(), price.matched()))
    }

    #[test]
    fn the_usual_forms_of_a_name_lead_to_its_price() {
        let table = prices(&[
            ("openai", "gpt-4o"),
            ("openai", "gpt-4o-mini"),
            ("openai", "gpt-4o-2024-05-13"),
            ("anthropic", "claude-sonnet-4-5-20250929"),
            ("anthropic", "claude-sonnet-4-5-20260101"),
            ("vertex_ai-anthropic_models", "claude-opus-4@20250514"),
            ("gemini", "gemini-2.5-pro"),
            ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0"),
            ("bedrock", "us.amazon.nova-lite-v1:0"),
            ("bedrock", "amazon.nova-lite-v1:0"),
            ("ollama", "llama3.1"),
            ("groq", "openai/gpt-oss-120b"),
        ]);
        for (provider, model, expected) in [
            ("openai", "gpt-4o", Some(("openai/gpt-4o", Match::Exact))),
            ("OpenAI", "GPT-4o", Some(("openai/gpt-4o", Match::Exact))),
            ("openai", "openai/gpt-4o-mini", Some(("openai/gpt-4o-mini", Match::Variant))),
            ("openai", "gpt-4o-2024-05-13", Some(("openai/gpt-4o-2024-05-13", Match::Exact))),
            ("openai", "gpt-4o-2024-11-20", Some(("openai/gpt-4o", Match::Release))),
            ("anthropic", "claude-sonnet-4-5", Some(("anthropic/claude-sonnet-4-5-20260101", Match::Release))),
            ("google-vertex", "claude-opus-4", Some(("vertex/claude-opus-4@20250514", Match::Release))),
            ("google", "models/gemini-2.5-pro", Some(("gemini/gemini-2.5-pro", Match::Variant))),
            ("gemini", "gemini-2.5-pro-latest", Some(("gemini/gemini-2.5-pro", Match::Release))),
            (
                "bedrock",
                "eu.anthropic.claude-3-haiku-20240307-v1:0",
                Some(("bedrock/anthropic.claude-3-haiku-20240307-v1:0", Match::Variant)),
            ),
            ("bedrock", "us.amazon.nova-lite-v1:0", Some(("bedrock/us.amazon.nova-lite-v1:0", Match::Exact))),
            ("ollama", "llama3.1:latest", Some(("ollama/llama3.1", Match::Variant))),
            ("groq", "openai/gpt-oss-120b", Some(("groq/openai/gpt-oss-120b", Match::Exact))),
            ("openai", "gpt-4", None),
            ("openai", "gpt-4o-audio", None),
            ("azure", "gpt-4o", None),
            ("openai", "", None),
            ("", "gpt-4o", None),
            ("openai", "/", None),
            ("openai", "openai/", None),
        ] {
            assert_eq!(found(&table, provider, model), expected, "{provider}/{model}");
        }
        assert!(table.find("openai", &"x".repeat(5_000)).is_none());
        assert_eq!(table.find_any(&["azure-eu", "openai"], "gpt-4o").unwrap().name(), "openai/gpt-4o");
        assert!(Prices::default().find("openai", "gpt-4o").is_none());
    }

    #[test]
    fn three_thousand_models_take_less_than_half_a_megabyte() {
        let mut text = String::from("{");
        for at in 0..3_000 {
            let input = f64::from(at) * 1e-8;
            write!(
                text,
                r#"{}"fireworks_ai/accounts/fireworks/models/some-model-{at}":{{"litellm_provider":"fireworks_ai",
                "input_cost_per_token":{input:e},"output_cost_per_token":1e-05,"cache_read_input_token_cost":1e-07,
                "input_cost_per_token_batches":5e-07,"output_cost_per_token_batches":5e-06}}"#,
                if at == 0 { "" } else { "," }
            )
            .unwrap();
        }
        text.push('}');
        let mut builder = Builder::new(&Config::default()).unwrap();
        assert_eq!(builder.add_litellm(text.as_bytes()).unwrap().taken, 3_000);
        let prices = builder.build().0;
        assert!(prices.size_bytes() < 500_000, "{}", prices.size_bytes());
        assert_eq!(prices.iter().count(), 3_000);
    }

    #[test]
    fn equal_prices_are_kept_once() {
        let one = prices(&[("a", "m")]);
        let text = "[[model]]\nprovider = \"a\"\nmodel = \"m\"\nusd_per_million_tokens = { input = 1.0, output = 1.0 }\n\
                    [[model]]\nprovider = \"b\"\nmodel = \"m\"\nusd_per_million_tokens = { output = 1.0, input = 1.0 }\n";
        let two = Builder::new(&toml::from_str(text).unwrap()).unwrap().build().0;
        assert_eq!(two.rates.len(), one.rates.len());
        assert_eq!(two.len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_found_or_not_without_a_panic(provider in ".{0,20}", model in ".{0,40}") {
            let table = prices(&[("openai", "gpt-4o"), ("bedrock", "amazon.nova-lite-v1:0")]);
            for kind in [provider.as_str(), "openai", "bedrock", "vertex", "gemini"] {
                let _ = table.find(kind, &model);
            }
        }
    }
}
