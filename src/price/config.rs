//! `[prices]`: which tables are read, and the operator's own prices.

use std::path::PathBuf;

use serde::Deserialize;

use super::rate::Item;

/// `[prices]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// LiteLLM's `model_prices_and_context_window.json`, as downloaded.
    pub litellm_file: Option<PathBuf>,
    /// models.dev's `api.json`, as downloaded. It is asked after LiteLLM's.
    pub models_dev_file: Option<PathBuf>,
    /// Whether a model whose prices are all 0 in such a table is free. Off: its price is unknown, since tables write 0 for
    /// what they do not know and for what a subscription pays.
    pub zero_is_free: bool,
    /// `[[prices.model]]`: prices of one's own, before all tables.
    pub model: Vec<ModelPrice>,
    /// `[prices.local]`: what models on this box cost.
    pub local: LocalConfig,
}

/// `[[prices.model]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// The `name` or the `kind` of a `[[provider]]`.
    pub provider: String,
    /// The model's name there.
    pub model: String,
    /// `provider/model` whose whole price it has, for deployments and aliases.
    #[serde(default)]
    pub like: Option<String>,
    /// US dollars for a million tokens.
    #[serde(default)]
    pub usd_per_million_tokens: Option<Rates>,
    /// The same in the provider's batch API.
    #[serde(default)]
    pub batch_usd_per_million_tokens: Option<Rates>,
    /// The same in the tier `flex`.
    #[serde(default)]
    pub flex_usd_per_million_tokens: Option<Rates>,
    /// The same in the tier `priority`.
    #[serde(default)]
    pub priority_usd_per_million_tokens: Option<Rates>,
    /// US dollars for each request, beside its tokens.
    #[serde(default)]
    pub usd_per_request: Option<f64>,
    /// Other prices for long prompts.
    #[serde(default)]
    pub long_context: Vec<LongContext>,
}

impl ModelPrice {
    pub(super) fn prices_anything(&self) -> bool {
        self.usd_per_million_tokens.is_some()
            || self.batch_usd_per_million_tokens.is_some()
            || self.flex_usd_per_million_tokens.is_some()
            || self.priority_usd_per_million_tokens.is_some()
            || self.usd_per_request.is_some()
            || !self.long_context.is_empty()
    }
}

/// `[[prices.model.long_context]]`: the whole request has these prices if its prompt is longer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongContext {
    /// Prompts of more tokens than this.
    pub above_tokens: u32,
    /// US dollars for a million tokens. What is not named keeps the price for shorter prompts.
    pub usd_per_million_tokens: Rates,
}

/// US dollars for a million tokens of each kind. What is not named is billed as the kind it belongs to: cached, written,
/// sound and pictures as `input`, reasoning, sound and pictures of the answer as `output`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// The prompt.
    pub input: Option<f64>,
    /// The answer.
    pub output: Option<f64>,
    /// Tokens of the prompt read from the provider's cache.
    pub cache_read: Option<f64>,
    /// Tokens of the prompt written into it.
    pub cache_write: Option<f64>,
    /// The same, kept for one hour.
    pub cache_write_hour: Option<f64>,
    /// Tokens of the answer that are reasoning.
    pub reasoning: Option<f64>,
    /// Sound in the prompt.
    pub input_audio: Option<f64>,
    /// Sound in the answer.
    pub output_audio: Option<f64>,
    /// Pictures in the prompt.
    pub input_image: Option<f64>,
    /// Pictures in the answer.
    pub output_image: Option<f64>,
}

impl Rates {
    pub(super) fn named(&self) -> [(Item, &'static str, Option<f64>); 10] {
        [
            (Item::Input, "input", self.input),
            (Item::Output, "output", self.output),
            (Item::CacheRead, "cache_read", self.cache_read),
            (Item::CacheWrite, "cache_write", self.cache_write),
            (Item::CacheWriteHour, "cache_write_hour", self.cache_write_hour),
            (Item::Reasoning, "reasoning", self.reasoning),
            (Item::InputAudio, "input_audio", self.input_audio),
            (Item::OutputAudio, "output_audio", self.output_audio),
            (Item::InputImage, "input_image", self.input_image),
            (Item::OutputImage, "output_image", self.output_image),
        ]
    }
}

/// `[prices.local]`. Without any of them a local model's cost is unknown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// US dollars for an hour of one busy core: what the box costs, spread over the hours it is expected to compute.
    pub usd_per_cpu_hour: Option<f64>,
    /// US dollars for a kilowatt-hour.
    pub usd_per_kwh: Option<f64>,
    /// Watts that one busy core draws above an idle one. Energy is counted with it where nobody measures.
    pub watts_per_core: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_with_a_wrong_name_is_found_at_its_line() {
        let text = "[[model]]\nprovider = \"p\"\nmodel = \"m\"\nusd_per_million_tokens = { inputs = 1.0 }\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("inputs"), "{error}");
        assert!(toml::from_str::<Config>("[local]\nusd_per_hour = 1.0").is_err());
    }
}
