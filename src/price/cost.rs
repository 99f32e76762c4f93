//! What was used, and what that costs at a model's rates.

use super::rate::{Item, Rate};

/// Tokens of one answer. Every part is of the whole that it belongs to, as OpenAI counts them; Anthropic's
/// `input_tokens` leaves out what came from the cache and went into it, so add those up for `input`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the whole prompt.
    pub input: u64,
    /// Of those: read from the provider's cache.
    pub cache_read: u64,
    /// Of those: written into it, other than for one hour.
    pub cache_write: u64,
    /// Of those: written into it for one hour.
    pub cache_write_hour: u64,
    /// Of those: sound.
    pub input_audio: u64,
    /// Of those: pictures.
    pub input_image: u64,
    /// Tokens of the whole answer.
    pub output: u64,
    /// Of those: reasoning.
    pub reasoning: u64,
    /// Of those: sound.
    pub output_audio: u64,
    /// Of those: pictures.
    pub output_image: u64,
}

/// The tier of service that a request was served in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What is served when nothing was asked for.
    #[default]
    Standard,
    /// The provider's batch API.
    Batch,
    /// `service_tier: "flex"`.
    Flex,
    /// `service_tier: "priority"`.
    Priority,
}

impl Tier {
    /// The tier that `service_tier` of an answer names. Unknown names are `None`: their price is not known.
    pub fn of_service(name: &str) -> Option<Self> {
        Some(match name {
            "" | "auto" | "default" | "standard" | "standard_only" | "on_demand" => Self::Standard,
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            _ => return None,
        })
    }
}

/// What an answer costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// 10^-12 US dollars.
    pub pico_usd: u64,
    /// It may be less: a batch or flex tier whose discount the table does not have was charged as the standard tier.
    pub at_most: bool,
}

/// Each part of a usage with its own rate, and the item whose rate it is charged at where the table has none for it:
/// tables name only what is billed apart.
fn parts(usage: &Usage) -> [(Item, Item, u64); 10] {
    let input_apart =
        [usage.cache_read, usage.cache_write, usage.cache_write_hour, usage.input_audio, usage.input_image];
    let output_apart = [usage.reasoning, usage.output_audio, usage.output_image];
    // A part over its whole is a provider's miscount: the parts are charged, and the rest is nothing.
    let rest = |whole: u64, apart: &[u64]| apart.iter().fold(whole, |rest, &part| rest.saturating_sub(part));
    [
        (Item::Input, Item::Input, rest(usage.input, &input_apart)),
        (Item::CacheRead, Item::Input, usage.cache_read),
        (Item::CacheWrite, Item::Input, usage.cache_write),
        (Item::CacheWriteHour, Item::CacheWrite, usage.cache_write_hour),
        (Item::InputAudio, Item::Input, usage.input_audio),
        (Item::InputImage, Item::Input, usage.input_image),
        (Item::Output, Item::Output, rest(usage.output, &output_apart)),
        (Item::Reasoning, Item::Output, usage.reasoning),
        (Item::OutputAudio, Item::Output, usage.output_audio),
        (Item::OutputImage, Item::Output, usage.output_image),
    ]
}

/// The rate of `item` in `tier` for a prompt of `prompt` tokens: of those that hold, the one for the longest prompts.
fn rate(rates: &[Rate], item: Item, tier: Tier, prompt: u64) -> Option<u64> {
    let holds = |rate: &&Rate| {
        rate.item == item && rate.tier == tier && (rate.above_tokens == 0 || prompt > u64::from(rate.above_tokens))
    };
    rates.iter().filter(holds).max_by_key(|rate| rate.above_tokens).map(|rate| rate.pico_usd)
}

/// The rate of `item`, or of what it is charged as.
fn charged(rates: &[Rate], (item, or): (Item, Item), tier: Tier, prompt: u64) -> Option<u64> {
    let written = || rate(rates, Item::Input, tier, prompt).filter(|_| or == Item::CacheWrite);
    rate(rates, item, tier, prompt).or_else(|| rate(rates, or, tier, prompt)).or_else(written)
}

/// What `usage` costs at `rates`; none if a part of it has no rate.
pub(super) fn cost(rates: &[Rate], usage: &Usage, tier: Tier) -> Option<Cost> {
    let mut pico_usd = u128::from(rate(rates, Item::Request, Tier::Standard, 0).unwrap_or(0));
    let mut at_most = false;
    for (item, or, tokens) in parts(usage).into_iter().filter(|&(_, _, tokens)| tokens > 0) {
        let of = |tier| charged(rates, (item, or), tier, usage.input);
        let each = match (of(tier), tier) {
            (Some(each), _) => each,
            // Both are discounts, so the standard rate is never too little.
            (None, Tier::Batch | Tier::Flex) => {
                at_most = true;
                of(Tier::Standard)?
            }
            (None, Tier::Standard | Tier::Priority) => return None,
        };
        pico_usd = pico_usd.saturating_add(u128::from(each) * u128::from(tokens));
    }
    Some(Cost { pico_usd: u64::try_from(pico_usd).unwrap_or(u64::MAX), at_most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(of: &[(Item, Tier, u32, u64)]) -> Vec<Rate> {
        of.iter().map(|&(item, tier, above_tokens, pico_usd)| Rate { item, tier, above_tokens, pico_usd }).collect()
    }

    fn sonnet() -> Vec<Rate> {
        rates(&[
            (Item::Input, Tier::Standard, 0, 3_000_000),
            (Item::Output, Tier::Standard, 0, 15_000_000),
            (Item::CacheRead, Tier::Standard, 0, 300_000),
            (Item::CacheWrite, Tier::Standard, 0, 3_750_000),
            (Item::CacheWriteHour, Tier::Standard, 0, 6_000_000),
            (Item::Input, Tier::Batch, 0, 1_500_000),
            (Item::Output, Tier::Batch, 0, 7_500_000),
            (Item::Input, Tier::Standard, 200_000, 6_000_000),
            (Item::Output, Tier::Standard, 200_000, 22_500_000),
        ])
    }

    fn exact(rates: &[Rate], usage: &Usage) -> u64 {
        let cost = cost(rates, usage, Tier::Standard).unwrap();
        assert!(!cost.at_most);
        cost.pico_usd
    }

    #[test]
    fn cached_and_written_tokens_are_charged_once_and_at_their_own_rate() {
        let usage = Usage {
            input: 10_000,
            cache_read: 6_000,
            cache_write: 2_000,
            cache_write_hour: 1_000,
            output: 500,
            ..Usage::default()
        };
        let expected = 1_000 * 3_000_000 + 6_000 * 300_000 + 2_000 * 3_750_000 + 1_000 * 6_000_000 + 500 * 15_000_000;
        assert_eq!(exact(&sonnet(), &usage), expected);
    }

    #[test]
    fn a_long_prompt_is_charged_whole_at_the_rate_for_long_prompts() {
        let at = |input| exact(&sonnet(), &Usage { input, output: 10, ..Usage::default() });
        assert_eq!(at(200_000), 200_000 * 3_000_000 + 10 * 15_000_000, "at the mark, not above it");
        assert_eq!(at(200_001), 200_001 * 6_000_000 + 10 * 22_500_000);
    }

    #[test]
    fn what_is_not_billed_apart_is_billed_as_its_whole() {
        let plain = rates(&[(Item::Input, Tier::Standard, 0, 100), (Item::Output, Tier::Standard, 0, 400)]);
        let usage = Usage {
            input: 100,
            cache_read: 20,
            cache_write_hour: 10,
            input_audio: 5,
            output: 50,
            reasoning: 30,
            ..Usage::default()
        };
        assert_eq!(exact(&plain, &usage), 100 * 100 + 50 * 400);
        let hour = rates(&[(Item::Input, Tier::Standard, 0, 100), (Item::CacheWrite, Tier::Standard, 0, 125)]);
        assert_eq!(exact(&hour, &Usage { input: 10, cache_write_hour: 10, ..Usage::default() }), 1_250);
    }

    #[test]
    fn an_unknown_rate_makes_the_cost_unknown_and_an_unused_one_does_not() {
        let embedding = rates(&[(Item::Input, Tier::Standard, 0, 20_000)]);
        assert_eq!(exact(&embedding, &Usage { input: 7, ..Usage::default() }), 140_000);
        assert_eq!(cost(&embedding, &Usage { input: 7, output: 1, ..Usage::default() }, Tier::Standard), None);
        assert_eq!(exact(&embedding, &Usage::default()), 0, "nothing used costs nothing");
    }

    #[test]
    fn a_discount_that_is_not_known_is_an_upper_bound_and_a_surcharge_is_unknown() {
        let usage = Usage { input: 1_000, cache_read: 400, output: 10, ..Usage::default() };
        let batch = cost(&sonnet(), &usage, Tier::Batch).unwrap();
        assert_eq!(batch, Cost { pico_usd: 1_000 * 1_500_000 + 10 * 7_500_000, at_most: false });
        let flex = cost(&sonnet(), &usage, Tier::Flex).unwrap();
        assert_eq!(flex, Cost { pico_usd: 600 * 3_000_000 + 400 * 300_000 + 10 * 15_000_000, at_most: true });
        assert_eq!(cost(&sonnet(), &usage, Tier::Priority), None);
        assert_eq!(Tier::of_service("scale"), None);
        assert_eq!(Tier::of_service("default"), Some(Tier::Standard));
    }

    #[test]
    fn a_request_may_have_a_price_of_its_own() {
        let each = rates(&[(Item::Input, Tier::Standard, 0, 1), (Item::Request, Tier::Standard, 0, 5_000_000_000)]);
        assert_eq!(exact(&each, &Usage { input: 3, ..Usage::default() }), 5_000_000_003);
    }

    #[test]
    fn impossible_counts_neither_panic_nor_wrap() {
        let all = Usage {
            input: u64::MAX,
            cache_read: u64::MAX,
            cache_write: u64::MAX,
            cache_write_hour: u64::MAX,
            input_audio: u64::MAX,
            input_image: u64::MAX,
            output: u64::MAX,
            reasoning: u64::MAX,
            output_audio: u64::MAX,
            output_image: u64::MAX,
        };
        assert_eq!(exact(&sonnet(), &all), u64::MAX);
        let parts_over_whole = Usage { input: 1, cache_read: 10, ..Usage::default() };
        assert_eq!(exact(&sonnet(), &parts_over_whole), 10 * 300_000);
    }

    proptest::proptest! {
        #[test]
        fn more_tokens_never_cost_less(input in 0_u64..1_000_000, more in 0_u64..1_000_000, output in 0_u64..100_000) {
            let of = |input| exact(&sonnet(), &Usage { input, output, ..Usage::default() });
            proptest::prop_assert!(of(input) <= of(input + more));
        }
    }
}
