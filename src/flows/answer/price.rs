//! What a candidate may cost before it is asked, and what it did cost.

use crate::dialect::{Operation, Served, Usage};
use crate::ledger;
use crate::price::{self, Cost, LocalUse, Tier};
use crate::quota::Amounts;

use super::asking::Asking;
use super::story::{Answer, Stop};

/// The usage as the price tables count it; none if a whole is unknown.
fn counted(usage: &Usage) -> Option<price::Usage> {
    // A part that nobody told of is billed with its whole.
    let told = |tokens: Option<u64>| tokens.unwrap_or(0);
    let hour = told(usage.cache_write_hour_tokens);
    Some(price::Usage {
        input: usage.input_tokens?,
        cache_read: told(usage.cache_read_tokens),
        cache_write: told(usage.cache_write_tokens).saturating_sub(hour),
        cache_write_hour: hour,
        input_audio: told(usage.input_audio_tokens),
        input_image: told(usage.input_image_tokens),
        output: usage.output_tokens?,
        reasoning: told(usage.reasoning_tokens),
        output_audio: told(usage.output_audio_tokens),
        output_image: told(usage.output_image_tokens),
    })
}

/// What a request is billed in that asks for this tier, as long as no answer says otherwise; none: nobody knows. One that
/// costs more is believed, and one that costs less is not.
pub(super) fn tier_of(asked: Option<&str>) -> Option<Tier> {
    let tier = Tier::of_service(asked.unwrap_or(""))?;
    Some(if tier == Tier::Priority { tier } else { Tier::Standard })
}

/// What an answer is billed in: the tier that it names, or else the one of its request.
fn billed(asked: Option<Tier>, usage: &Usage) -> Option<Tier> {
    match usage.served {
        None => asked,
        Some(Served::Standard) => Some(Tier::Standard),
        Some(Served::Batch) => Some(Tier::Batch),
        Some(Served::Flex) => Some(Tier::Flex),
        Some(Served::Priority) => Some(Tier::Priority),
        Some(Served::Other) => None,
    }
}

impl Answer {
    /// What `usage` costs at `stop`, in pico-USD; none: unknown.
    pub(super) fn cost(&self, stop: &Stop, model: &str, usage: &Usage, tier: Option<Tier>) -> Option<u64> {
        self.exact_cost(stop, model, usage, tier).map(|cost| cost.pico_usd)
    }

    /// Likewise, and whether it is an upper bound.
    fn exact_cost(&self, stop: &Stop, model: &str, usage: &Usage, tier: Option<Tier>) -> Option<Cost> {
        let provider = stop.provider()?;
        let names = [provider.name().as_str(), provider.kind().as_str()];
        let price = self.parts.prices.find_any(&names, model)?;
        price.cost(&counted(usage)?, billed(tier, usage)?)
    }

    /// What an answer of the target at `place` cost, in pico-USD. To be asked once an answer: it is counted by what is known.
    pub(super) fn cost_of(
        &self,
        place: usize,
        model: &str,
        usage: &Usage,
        tier: Option<Tier>,
        used: Option<LocalUse>,
    ) -> Option<u64> {
        let stop = &self.stops[place];
        let cost = match stop.provider() {
            Some(_) => self.exact_cost(stop, model, usage, tier),
            None => used
                .and_then(|used| self.parts.local_prices.cost(&used).pico_usd)
                .map(|pico_usd| Cost { pico_usd, at_most: false }),
        };
        self.parts.price_metrics.answered(cost);
        cost.map(|cost| cost.pico_usd)
    }

    /// What an answer of the target at `place` took of this box; none: it was made elsewhere.
    pub(super) fn here(&self, place: usize, used: Option<LocalUse>) -> Option<ledger::Here> {
        let is_here = self.stops[place].provider().is_none();
        is_here.then(|| ledger::Here {
            cpu_us: used.map(|used| used.cpu_us),
            energy_uwh: used.and_then(|used| self.parts.local_prices.cost(&used).energy_uwh),
        })
    }

    /// What a request takes at most at `stop`, as far as that is known beforehand. A model of this box takes no money
    /// until it is known what it used.
    pub(super) fn amounts(&self, stop: &Stop, model: &str, asking: &Asking<'_>) -> Amounts {
        if asking.operation() == Operation::CountTokens {
            return Amounts::FREE;
        }
        let tokens = asking.input_tokens.saturating_add(asking.output_tokens);
        let money = match stop.provider() {
            None => Some(0),
            Some(_) => self.cost(stop, model, &asking.most(), asking.tier()),
        };
        Amounts { tokens: Some(tokens), money }
    }

    /// What the prompt alone would cost at `stop`: for an attempt that may be billed and gave no answer. Of a model of this
    /// box nobody knows how far it came.
    pub(super) fn prompt_cost(&self, stop: &Stop, model: &str, input_tokens: u64, tier: Option<Tier>) -> Option<u64> {
        let usage = Usage { input_tokens: Some(input_tokens), output_tokens: Some(0), ..Usage::default() };
        self.cost(stop, model, &usage, tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dearer_tier_is_believed_a_cheaper_one_is_not_and_an_unknown_one_has_no_price() {
        for (asked, tier) in [
            (None, Some(Tier::Standard)),
            (Some("auto"), Some(Tier::Standard)),
            (Some("flex"), Some(Tier::Standard)),
            (Some("priority"), Some(Tier::Priority)),
            (Some("gold"), None),
        ] {
            assert_eq!(tier_of(asked), tier, "{asked:?}");
        }
    }

    #[test]
    fn the_tier_that_an_answer_names_holds_whatever_was_asked_for() {
        let served = |served| Usage { served: Some(served), ..Usage::default() };
        assert_eq!(billed(Some(Tier::Standard), &Usage::default()), Some(Tier::Standard));
        assert_eq!(billed(Some(Tier::Standard), &served(Served::Flex)), Some(Tier::Flex));
        assert_eq!(billed(None, &served(Served::Batch)), Some(Tier::Batch));
        assert_eq!(billed(Some(Tier::Priority), &served(Served::Standard)), Some(Tier::Standard), "it was not granted");
        assert_eq!(billed(Some(Tier::Standard), &served(Served::Other)), None, "its price is not known");
    }

    #[test]
    fn every_kind_of_token_reaches_its_price() {
        let usage = Usage {
            input_tokens: Some(100),
            output_tokens: Some(50),
            cache_read_tokens: Some(1),
            cache_write_tokens: Some(10),
            cache_write_hour_tokens: Some(7),
            input_audio_tokens: Some(4),
            input_image_tokens: Some(5),
            reasoning_tokens: Some(6),
            output_audio_tokens: Some(8),
            output_image_tokens: Some(9),
            served: None,
            estimated: false,
        };
        let expected = price::Usage {
            input: 100,
            cache_read: 1,
            cache_write: 3,
            cache_write_hour: 7,
            input_audio: 4,
            input_image: 5,
            output: 50,
            reasoning: 6,
            output_audio: 8,
            output_image: 9,
        };
        assert_eq!(counted(&usage), Some(expected));
        assert_eq!(counted(&Usage { output_tokens: None, ..usage }), None, "a whole is unknown");
    }
}
