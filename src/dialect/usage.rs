//! What an answer used, in one way of counting for all dialects.

use super::count::TextCount;

/// Tokens of one request. Unknown is `None`, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt, those read from and written to a cache of the provider among them.
    pub input_tokens: Option<u64>,
    /// All tokens of the answer, those of its reasoning among them.
    pub output_tokens: Option<u64>,
    /// Tokens of the prompt that the provider had in its cache.
    pub cache_read_tokens: Option<u64>,
    /// Tokens of the prompt that the provider put into its cache.
    pub cache_write_tokens: Option<u64>,
    /// Tokens of the answer that were spent on reasoning.
    pub reasoning_tokens: Option<u64>,
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
        let take = |old: &mut Option<u64>, new: Option<u64>| *old = new.or(*old);
        take(&mut self.input_tokens, newer.input_tokens);
        take(&mut self.output_tokens, newer.output_tokens);
        take(&mut self.cache_read_tokens, newer.cache_read_tokens);
        take(&mut self.cache_write_tokens, newer.cache_write_tokens);
        take(&mut self.reasoning_tokens, newer.reasoning_tokens);
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
    use super::*;

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
    fn zeros_beside_a_text_are_no_count() {
        let mut meter = Meter::new(100);
        meter.said("words");
        meter.told(&Usage { input_tokens: Some(0), output_tokens: Some(0), ..Usage::default() });
        assert_eq!(meter.usage().input_tokens, Some(100));
        assert_eq!(meter.usage().output_tokens, Some(2));
        assert!(meter.usage().estimated);
    }
}
