//! Putting a price table together from several sources.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::config::{Config, ModelPrice, Rates};
use super::cost::Tier;
use super::find::{Prices, Row};
use super::names::provider_name;
use super::rate::{Item, PER_MILLION, PER_ONE, Rate, pico_usd};
use super::{Error, litellm, models_dev};

/// Most bytes of a table's text. LiteLLM's has 3 MB, models.dev's 4.
pub(super) const TEXT_MAX_BYTES: usize = 32 << 20;
const MODELS_MAX: usize = 32_768;
const NAME_MAX_BYTES: usize = 256;
const RATES_MAX: usize = 64;

/// Where a price is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// `[[prices.model]]`.
    Own,
    /// LiteLLM's `model_prices_and_context_window.json`.
    LiteLlm,
    /// models.dev's `api.json`.
    ModelsDev,
}

impl Source {
    /// Its name, for labels and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::LiteLlm => "litellm",
            Self::ModelsDev => "models.dev",
        }
    }
}

/// What became of the rows of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Taken.
    pub taken: usize,
    /// Left out: an earlier source has the model.
    pub known_before: usize,
    /// Left out: it has no price by the token.
    pub not_by_token: usize,
    /// Left out: all of its prices are 0, which says "not known" as often as "free".
    pub zero: usize,
    /// Left out: something in it has another form, or cannot be a price.
    pub wrong: usize,
    /// Left out: a limit of this room.
    pub over_limit: usize,
}

/// Collects prices; the first source that has a model says all of its price.
#[derive(Debug)]
pub struct Builder {
    models: BTreeMap<String, Collected>,
    /// Names that stand for another model's price, by key.
    like: Vec<(String, String)>,
    zero_is_free: bool,
}

#[derive(Debug)]
struct Collected {
    source: Source,
    rates: Vec<Rate>,
}

impl Builder {
    /// The operator's own prices.
    ///
    /// # Errors
    /// [`Error::Setting`] for one that cannot be a price, or is given twice.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut builder = Self { models: BTreeMap::new(), like: Vec::new(), zero_is_free: config.zero_is_free };
        for (at, model) in config.model.iter().enumerate() {
            builder.own(model).map_err(|why| Error::Setting {
                path: format!("prices.model[{at}] ({}/{})", model.provider, model.model),
                why,
            })?;
        }
        Ok(builder)
    }

    /// Adds LiteLLM's table (the form of 1.108; fields that it got since are ignored).
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Form`]; what is wrong in one row is counted and leaves out that row.
    pub fn add_litellm(&mut self, text: &[u8]) -> Result<Read, Error> {
        litellm::read(self, text)
    }

    /// Adds models.dev's table (`api.json` as of July 2026).
    ///
    /// # Errors
    /// As [`Builder::add_litellm`].
    pub fn add_models_dev(&mut self, text: &[u8]) -> Result<Read, Error> {
        models_dev::read(self, text)
    }

    /// The table, and a sentence for each `like` that names a model without a price.
    pub fn build(mut self) -> (Prices, Vec<String>) {
        let mut remarks = Vec::new();
        for (key, like) in std::mem::take(&mut self.like) {
            // Against what was read so far, with all the forms of names that requests get.
            let found = like.split_once('/').and_then(|(provider, model)| {
                let prices = self.prices();
                prices.find(provider, model).map(|price| price.rates().to_vec())
            });
            match found {
                Some(rates) => {
                    self.models.insert(key, Collected { source: Source::Own, rates });
                }
                None => remarks.push(format!(
                    "prices.model {key} is priced like {like}, which no table has: its costs are unknown until one does"
                )),
            }
        }
        (self.prices(), remarks)
    }

    fn prices(&self) -> Prices {
        let mut names = String::new();
        let mut rates: Vec<Rate> = Vec::new();
        let mut places: BTreeMap<&[Rate], u32> = BTreeMap::new();
        let mut rows = Vec::with_capacity(self.models.len());
        for (key, model) in &self.models {
            let place = |at: usize| u32::try_from(at).expect("32,768 models of 64 rates and 512 bytes are below 2^32");
            let rates_at = *places.entry(&model.rates).or_insert_with(|| {
                rates.extend_from_slice(&model.rates);
                place(rates.len() - model.rates.len())
            });
            rows.push(Row {
                name_at: place(names.len()),
                rates_at,
                name_len: u16::try_from(key.len()).expect("two names of 256 bytes at most"),
                rates_len: u8::try_from(model.rates.len()).expect("64 at most"),
                source: model.source,
            });
            names.push_str(key);
        }
        Prices::new(names, rows, rates)
    }

    /// Takes a row of `source`, or counts why not.
    pub(super) fn take(&mut self, source: Source, (provider, model): (&str, &str), rates: Vec<Rate>, read: &mut Read) {
        let key = key(provider, model);
        if rates.is_empty() {
            read.not_by_token += 1;
        } else if !self.zero_is_free && rates.iter().all(|rate| rate.pico_usd == 0) {
            read.zero += 1;
        } else if rates.len() > RATES_MAX
            || !name_fits(provider)
            || !name_fits(model)
            || self.models.len() >= MODELS_MAX
        {
            read.over_limit += 1;
        } else {
            match self.models.entry(key) {
                Entry::Occupied(had) if had.get().source != source => read.known_before += 1,
                // Twice in one table: under another spelling of the provider's name. Both have the same price.
                Entry::Occupied(_) => read.taken += 1,
                Entry::Vacant(free) => {
                    let rates = sorted(rates);
                    free.insert(Collected { source, rates });
                    read.taken += 1;
                }
            }
        }
    }

    fn own(&mut self, model: &ModelPrice) -> Result<(), String> {
        if !name_fits(&model.provider) || !name_fits(&model.model) {
            return Err(format!("`provider` and `model` are names of 1 to {NAME_MAX_BYTES} bytes"));
        }
        let key = key(&model.provider, &model.model);
        if self.models.contains_key(&key) || self.like.iter().any(|(had, _)| *had == key) {
            return Err("the model has a price above already".to_owned());
        }
        if self.models.len() + self.like.len() >= MODELS_MAX {
            return Err(format!("at most {MODELS_MAX} models have a price"));
        }
        if let Some(like) = &model.like {
            if model.prices_anything() {
                return Err("`like` takes the whole price of another model: give no price beside it".to_owned());
            }
            if !like.contains('/') {
                return Err(format!("`like` names a provider and a model, as in \"openai/gpt-4o\", not {like:?}"));
            }
            self.like.push((key, like.clone()));
            return Ok(());
        }
        let rates = sorted(own_rates(model)?);
        if rates.is_empty() {
            return Err("give `usd_per_million_tokens`, such as { input = 2.5, output = 10.0 }, or `like`".to_owned());
        }
        if rates.len() > RATES_MAX {
            return Err(format!("a model has at most {RATES_MAX} rates, not {}", rates.len()));
        }
        self.models.insert(key, Collected { source: Source::Own, rates });
        Ok(())
    }
}

/// The rates of `[[prices.model]]`.
fn own_rates(model: &ModelPrice) -> Result<Vec<Rate>, String> {
    let mut all = Vec::new();
    let tiers = [
        (Tier::Standard, &model.usd_per_million_tokens),
        (Tier::Batch, &model.batch_usd_per_million_tokens),
        (Tier::Flex, &model.flex_usd_per_million_tokens),
        (Tier::Priority, &model.priority_usd_per_million_tokens),
    ];
    for (tier, rates) in tiers.iter().filter_map(|(tier, rates)| rates.as_ref().map(|rates| (*tier, rates))) {
        per_million(rates, tier, 0, &mut all)?;
    }
    for long in &model.long_context {
        if long.above_tokens == 0 {
            return Err("`long_context.above_tokens` is over 0".to_owned());
        }
        per_million(&long.usd_per_million_tokens, Tier::Standard, long.above_tokens, &mut all)?;
    }
    if let Some(usd) = model.usd_per_request {
        let pico_usd = pico_usd(usd, PER_ONE).ok_or_else(|| no_price("usd_per_request", usd))?;
        all.push(Rate { item: Item::Request, tier: Tier::Standard, above_tokens: 0, pico_usd });
    }
    Ok(all)
}

/// `rates` of a million tokens, put at the end of `all`.
pub(super) fn per_million(rates: &Rates, tier: Tier, above_tokens: u32, all: &mut Vec<Rate>) -> Result<(), String> {
    for (item, name, usd) in rates.named() {
        let Some(usd) = usd else { continue };
        let pico_usd = pico_usd(usd, PER_MILLION).ok_or_else(|| no_price(name, usd))?;
        all.push(Rate { item, tier, above_tokens, pico_usd });
    }
    Ok(())
}

fn no_price(name: &str, usd: f64) -> String {
    format!("`{name}` = {usd} is no price: it is 0, or from 0.000001 to 1,000,000 USD a million tokens")
}

fn name_fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES
}

/// One order for all, and one rate for each purpose: the last one said.
fn sorted(mut rates: Vec<Rate>) -> Vec<Rate> {
    rates.reverse();
    rates.sort_by_key(|rate| (rate.item, rate.tier, rate.above_tokens));
    rates.dedup_by_key(|rate| (rate.item, rate.tier, rate.above_tokens));
    rates
}

/// What a model is found by.
pub(super) fn key(provider: &str, model: &str) -> String {
    let mut key = provider_name(provider).into_owned();
    key.push('/');
    key.push_str(model);
    key.make_ascii_lowercase();
    key
}

/// Calls `each` with the members of the JSON object `text`, in their order, without keeping them.
pub(super) fn members<'a>(
    text: &'a [u8],
    each: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), serde_json::Error> {
    struct Members<F>(F);
    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Members<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((Key(key), value)) = map.next_entry()? {
                (self.0)(key, value);
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.deserialize_map(Members(each))?;
    deserializer.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::Usage;

    fn builder(toml: &str) -> Result<Builder, Error> {
        Builder::new(&toml::from_str(toml).unwrap())
    }

    #[test]
    fn own_prices_win_and_the_first_table_wins_over_the_second() {
        let own = "[[model]]\nprovider = \"openai\"\nmodel = \"GPT-4o\"\nusd_per_million_tokens = { input = 1.0, output = 2.0 }\n";
        let mut builder = builder(own).unwrap();
        let litellm =
            br#"{"gpt-4o":{"litellm_provider":"openai","input_cost_per_token":2.5e-06,"output_cost_per_token":1e-05},
            "gpt-4.1":{"litellm_provider":"openai","input_cost_per_token":2e-06,"output_cost_per_token":8e-06}}"#;
        let read = builder.add_litellm(litellm).unwrap();
        assert_eq!((read.taken, read.known_before), (1, 1));
        let models_dev = br#"{"openai":{"models":{"gpt-4.1":{"cost":{"input":9,"output":9}},"o3":{"cost":{"input":2,"output":8}}}}}"#;
        let read = builder.add_models_dev(models_dev).unwrap();
        assert_eq!((read.taken, read.known_before), (1, 1));
        let (prices, remarks) = builder.build();
        assert!(remarks.is_empty());
        let one = |model| {
            let price = prices.find("openai", model).unwrap();
            let cost = price.cost(&Usage { input: 1, ..Usage::default() }, Tier::Standard).unwrap();
            (price.source(), cost.pico_usd)
        };
        assert_eq!(one("gpt-4o"), (Source::Own, 1_000_000));
        assert_eq!(one("gpt-4.1"), (Source::LiteLlm, 2_000_000));
        assert_eq!(one("o3"), (Source::ModelsDev, 2_000_000));
        assert_eq!(prices.len(), 3);
    }

    #[test]
    fn a_deployment_is_priced_like_the_model_it_serves() {
        let own = "[[model]]\nprovider = \"azure-eu\"\nmodel = \"our-chat\"\nlike = \"azure/gpt-4o\"\n\
                   [[model]]\nprovider = \"azure-eu\"\nmodel = \"other\"\nlike = \"azure/nobody-has-it\"\n";
        let mut builder = builder(own).unwrap();
        let table = br#"{"azure/gpt-4o":{"litellm_provider":"azure","input_cost_per_token":2.5e-06,"output_cost_per_token":1e-05}}"#;
        builder.add_litellm(table).unwrap();
        let (prices, remarks) = builder.build();
        let price = prices.find("azure-eu", "our-chat").unwrap();
        assert_eq!(price.source(), Source::Own);
        assert_eq!(price.input_micro_usd_per_million(), Some(2_500_000));
        assert!(prices.find("azure-eu", "other").is_none(), "unknown, not zero");
        assert!(remarks[0].contains("azure-eu/other") && remarks[0].contains("azure/nobody-has-it"), "{remarks:?}");
    }

    #[test]
    fn a_price_that_cannot_be_one_is_refused_with_its_place() {
        let wrong = [
            ("usd_per_million_tokens = { input = -1.0 }", "`input` = -1"),
            ("usd_per_million_tokens = { output = nan }", "`output`"),
            ("usd_per_million_tokens = { output = 2e6 }", "1,000,000 USD"),
            ("usd_per_million_tokens = { }", "give `usd_per_million_tokens`"),
            ("usd_per_request = 5.0", "usd_per_request"),
            ("like = \"gpt-4o\"", "provider and a model"),
            ("like = \"a/b\"\nusd_per_request = 0.1", "no price beside it"),
            ("long_context = [{ above_tokens = 0, usd_per_million_tokens = { input = 1.0 } }]", "over 0"),
        ];
        for (line, why) in wrong {
            let text = format!("[[model]]\nprovider = \"p\"\nmodel = \"m\"\n{line}\n");
            let error = builder(&text).unwrap_err().to_string();
            assert!(error.contains("prices.model[0] (p/m)") && error.contains(why), "{error}");
        }
        let one = "[[model]]\nprovider = \"p\"\nmodel = \"m\"\nusd_per_request = 0.1\n";
        assert!(builder(&one.repeat(2)).unwrap_err().to_string().contains("above already"));
        assert!(builder("[[model]]\nprovider = \"\"\nmodel = \"m\"\nusd_per_request = 0.1\n").is_err());
    }

    #[test]
    fn zeros_are_unknown_unless_the_operator_says_they_are_free() {
        let table =
            br#"{"ollama/llama3":{"litellm_provider":"ollama","input_cost_per_token":0.0,"output_cost_per_token":0}}"#;
        let mut unknown = builder("").unwrap();
        assert_eq!(unknown.add_litellm(table).unwrap(), Read { zero: 1, ..Read::default() });
        assert!(unknown.build().0.find("ollama", "llama3").is_none());
        let mut free = builder("zero_is_free = true").unwrap();
        free.add_litellm(table).unwrap();
        let prices = free.build().0;
        let cost =
            prices.find("ollama", "llama3").unwrap().cost(&Usage { input: 9, ..Usage::default() }, Tier::Standard);
        assert_eq!(cost.unwrap().pico_usd, 0);
        let own = "[[model]]\nprovider = \"x\"\nmodel = \"m\"\nusd_per_million_tokens = { input = 0, output = 0 }\n";
        assert!(builder(own).unwrap().build().0.find("x", "m").is_some(), "an operator's own 0 is a price");
    }

    #[test]
    fn models_over_the_limit_are_counted_and_left_out() {
        let mut text = String::from("{");
        for at in 0..=MODELS_MAX {
            text.push_str(&format!(r#""m{at}":{{"litellm_provider":"p","input_cost_per_token":1e-06}},"#));
        }
        let name = "n".repeat(NAME_MAX_BYTES + 1);
        text.push_str(&format!(r#""{name}":{{"litellm_provider":"p","input_cost_per_token":1e-06}}}}"#));
        let mut builder = builder("").unwrap();
        let read = builder.add_litellm(text.as_bytes()).unwrap();
        assert_eq!((read.taken, read.over_limit), (MODELS_MAX, 2));
    }
}
