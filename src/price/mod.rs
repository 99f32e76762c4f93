//! What an answer costs: price tables as data, and the arithmetic over them.
//!
//! A [`Prices`] is built once from the operator's own prices, LiteLLM's `model_prices_and_context_window.json` and
//! models.dev's `api.json`, in that order: who names a model first says all of its price. [`Prices::find`] knows the usual
//! forms of a model's name; [`Price::cost`] makes pico-USD of a [`Usage`]. What a model on this box uses is told by
//! [`LocalPrices`]: CPU seconds and energy.
//!
//! Money is a `u64` of pico-USD (10^-12): tokens times micro-USD per million tokens, so nothing is rounded after the
//! table was read. What is not known is `None` and never 0: a model that no table has, a tier of service without a
//! price, a table's row of zeros (they stand for "not known" as often as for "free", see [`Config::zero_is_free`]).
//!
//! Never here: files, the network, currencies other than the US dollar, who pays. Searches, images by the piece and audio
//! by the minute are not in a cost: tables do not agree on them, and a row that has no other price is left out.
//!
//! Limits: 32 MiB of a table's text, 32,768 models, names of 256 bytes, 64 rates a model, 1.09 USD a token. A row over a
//! limit is left out and counted in [`Read`]; a text over its limit is refused. 3,400 models take under 0.5 MB.

mod build;
mod config;
mod cost;
mod find;
mod litellm;
mod local;
mod metrics;
mod models_dev;
mod names;
mod rate;

pub use build::{Builder, Read, Source};
pub use config::{Config, LocalConfig, LongContext, ModelPrice, Rates};
pub use cost::{Cost, Tier, Usage};
pub use find::{Match, Price, Prices};
pub use local::{LocalCost, LocalPrices, LocalUse};
pub use metrics::Metrics;
pub use names::provider_name;

/// Why prices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table's text is over the limit.
    #[error("read prices of {source_name}: {bytes} bytes, at most {max} are read")]
    TooLarge {
        /// Whose table.
        source_name: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A table's text is not JSON of its form.
    #[error("read prices of {source_name}: {source}")]
    Form {
        /// Whose table.
        source_name: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Something in `[prices]` cannot be a price.
    #[error("read `{path}`: {why}")]
    Setting {
        /// The setting.
        path: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}
