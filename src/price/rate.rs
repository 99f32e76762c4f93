//! One rate: what it is for, in which tier of service, from which length of prompt on.

use super::cost::Tier;

/// Highest rate: 2^40 pico-USD, 1.09 USD a token. More is a table with another unit.
const RATE_MAX_PICO_USD: u64 = 1 << 40;

/// What a rate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    /// A token of the prompt.
    Input,
    /// A token of the prompt that came from the provider's cache.
    CacheRead,
    /// A token of the prompt that was written into the provider's cache, for five minutes where there are two kinds.
    CacheWrite,
    /// The same for one hour.
    CacheWriteHour,
    /// A token of the answer.
    Output,
    /// A token of the answer that nobody sees.
    Reasoning,
    /// A token of sound in the prompt.
    InputAudio,
    /// A token of sound in the answer.
    OutputAudio,
    /// A token of a picture in the prompt.
    InputImage,
    /// A token of a picture in the answer.
    OutputImage,
    /// The request itself.
    Request,
}

/// A rate, in 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rate {
    pub(super) item: Item,
    pub(super) tier: Tier,
    /// It holds for prompts of more tokens than this: 0 for all.
    pub(super) above_tokens: u32,
    /// Pico-USD a token, which is micro-USD per million tokens; or a request.
    pub(super) pico_usd: u64,
}

/// `usd` times `scale` as whole pico-USD. None if it is no price: not a number, below 0, over the limit, or over 0 and
/// too small to be told from 0. Tables hold binary fractions (`1.5000099e-07`), so it is the nearest whole number.
pub(super) fn pico_usd(usd: f64, scale: f64) -> Option<u64> {
    let pico = (usd * scale).round();
    #[allow(clippy::cast_precision_loss, reason = "2^40 is exact")]
    let fits = (0.0..=RATE_MAX_PICO_USD as f64).contains(&pico) && (pico > 0.0 || usd == 0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not below 0, at most 2^40")]
    fits.then_some(pico as u64)
}

/// Pico-USD in one USD: what a price of one token or one request is multiplied by.
pub(super) const PER_ONE: f64 = 1e12;
/// The same for a price of a million tokens.
pub(super) const PER_MILLION: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_prices_become_the_whole_number_they_mean() {
        assert_eq!(pico_usd(1.25e-6, PER_ONE), Some(1_250_000));
        assert_eq!(pico_usd(2.125e-06, PER_ONE), Some(2_125_000));
        assert_eq!(pico_usd(0.000_000_02, PER_ONE), Some(20_000));
        assert_eq!(pico_usd(9.499_999_999_999_999e-7, PER_ONE), Some(950_000), "a table's arithmetic is not its price");
        assert_eq!(pico_usd(3.75, PER_MILLION), Some(3_750_000));
        assert_eq!(pico_usd(0.0, PER_ONE), Some(0));
    }

    #[test]
    fn what_is_no_price_is_none_and_never_zero() {
        for usd in [-1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-13, 1.2, 1e300] {
            assert_eq!(pico_usd(usd, PER_ONE), None, "{usd}");
        }
        assert_eq!(size_of::<Rate>(), 16);
    }
}
