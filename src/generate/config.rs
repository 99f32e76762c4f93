//! `[generate]`: bounds of local language models.

use serde::Deserialize;

/// `[generate]`. Each bound is one model's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Answers that are made at the same time. One more is told `busy`.
    pub sequences_max: usize,
    /// Tokens of prompt and answer together. The model's own bound holds as well, and the memory of keys and values.
    pub context_tokens_max: usize,
    /// Tokens of an answer whose request names no number.
    pub answer_tokens: usize,
    /// Tokens of an answer at most, whatever its request names.
    pub answer_tokens_max: usize,
    /// Bytes of the keys and values of all sequences, of those that are being made and those that are kept. What is kept
    /// gives way to what is needed.
    pub cache_bytes_max: u64,
    /// Sequences that are kept when their answer is there, so that the next request that begins alike need not be read from its
    /// beginning. 0 keeps none.
    pub kept_max: usize,
    /// Tokens of a prompt that are read in one step, between which an answer can be called off and others get their turn.
    pub step_tokens: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sequences_max: 2,
            context_tokens_max: 8192,
            answer_tokens: 1024,
            answer_tokens_max: 4096,
            cache_bytes_max: 256 * 1024 * 1024,
            kept_max: 4,
            step_tokens: 64,
        }
    }
}

impl Config {
    /// Whether it can be used; else the key and what is wrong with it.
    ///
    /// # Errors
    /// A bound of 0, or an answer that is usually longer than it may be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let counts = [
            ("sequences_max", self.sequences_max),
            ("context_tokens_max", self.context_tokens_max),
            ("answer_tokens", self.answer_tokens),
            ("answer_tokens_max", self.answer_tokens_max),
            ("step_tokens", self.step_tokens),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err((key, "is 0, expected at least 1".to_owned()));
        }
        let (usual, most) = (self.answer_tokens, self.answer_tokens_max);
        if usual > most {
            return Err(("answer_tokens", format!("is {usual}, expected at most answer_tokens_max, {most}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let check = |text: &str| toml::from_str::<Config>(text).unwrap().check();
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("sequences_max = 0"), Err(("sequences_max", "is 0, expected at least 1".to_owned())));
        let (key, problem) = check("answer_tokens = 9\nanswer_tokens_max = 8").unwrap_err();
        assert_eq!((key, problem.as_str()), ("answer_tokens", "is 9, expected at most answer_tokens_max, 8"));
        assert!(toml::from_str::<Config>("sequence_max = 1").unwrap_err().to_string().contains("sequences_max"));
    }
}
