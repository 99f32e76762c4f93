//! What a request says of the choice of tokens.

use super::error::Error;

/// The most alternatives that are told beside a token.
const ALTERNATIVES_MAX: u8 = 20;
const BIASES_MAX: usize = 1024;
/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the best token always; 1 takes the model at its word. 0 to 2.
    pub temperature: f32,
    /// The best so many; 0 is all.
    pub top_k: u32,
    /// Over 0 to 1.
    pub top_p: f32,
    /// 0 to 1.
    pub min_p: f32,
    /// Scores of tokens that stand in the prompt or the answer are divided by it (multiplied below 0). Over 0 to 2; 1 is none.
    pub repetition_penalty: f32,
    /// Taken from a token's score for each time that it stands in the answer. -2 to 2.
    pub frequency_penalty: f32,
    /// Taken once from the score of a token that stands in the answer. -2 to 2.
    pub presence_penalty: f32,
    /// Added to the scores of single tokens, -100 to 100; -100 forbids one. At most 1,024.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, prompt and settings give the same answer on the same build.
    pub seed: u64,
    /// Tell each token's probability, and so many alternatives', at most 20.
    pub logprobs: Option<u8>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl Sampling {
    /// # Errors
    /// [`Error::Request`] names the setting that is out of bounds.
    pub(super) fn check(&self, vocabulary: usize) -> Result<(), Error> {
        let within = |field: &str, value: f32, least: f32, most: f32, words: &str| {
            let fits = value.is_finite() && least <= value && value <= most;
            if fits { Ok(()) } else { Err(Error::request(field, words, value.to_string())) }
        };
        within("temperature", self.temperature, 0.0, 2.0, "0 to 2")?;
        within("top_p", self.top_p, f32::MIN_POSITIVE, 1.0, "over 0 to 1")?;
        within("min_p", self.min_p, 0.0, 1.0, "0 to 1")?;
        within("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE, 2.0, "over 0 to 2")?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0, "-2 to 2")?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0, "-2 to 2")?;
        if let Some(given) = self.logprobs.filter(|&given| given > ALTERNATIVES_MAX) {
            return Err(Error::request("top_logprobs", format!("0 to {ALTERNATIVES_MAX}"), given.to_string()));
        }
        if self.logit_bias.len() > BIASES_MAX {
            let given = self.logit_bias.len().to_string();
            return Err(Error::request("logit_bias", format!("at most {BIASES_MAX} tokens"), given));
        }
        for &(token, bias) in &self.logit_bias {
            within("logit_bias", bias, -100.0, 100.0, "-100 to 100")?;
            if token as usize >= vocabulary {
                let expected = format!("tokens of 0 to {}", vocabulary.saturating_sub(1));
                return Err(Error::request("logit_bias", expected, token.to_string()));
            }
        }
        Ok(())
    }
}
