//! `[answer]`: what holds for every question to a model.

use serde::Deserialize;

/// At what a question is counted: `level` of a limit is one of these.
pub const LEVELS: [&str; 5] = ["key", "user", "team", "tenant", "model"];

/// `[answer]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Tokens of an answer that are reserved where the request names no limit, and sent as the limit where a model's
    /// dialect wants one (Anthropic). What an answer takes beyond is counted as it is.
    pub output_tokens_assumed: u64,
    /// Longest time for an answer, attempts and waits included, where its route says none, in milliseconds.
    pub timeout_ms: u64,
    /// Most bytes of one frame of a stream; a longer one ends the stream with an error.
    pub frame_max_bytes: usize,
    /// Most bytes of text and arguments that are kept of one stream for a dialect that repeats them at the end
    /// (responses); a longer stream ends with an error.
    pub kept_max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { output_tokens_assumed: 4096, timeout_ms: 600_000, frame_max_bytes: 8 << 20, kept_max_bytes: 16 << 20 }
    }
}

impl Config {
    /// Finds settings that cannot work; the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("output_tokens_assumed", self.output_tokens_assumed, 1, 10_000_000),
            ("timeout_ms", self.timeout_ms, 100, 86_400_000),
            ("frame_max_bytes", self.frame_max_bytes as u64, 64 << 10, 256 << 20),
            ("kept_max_bytes", self.kept_max_bytes as u64, 64 << 10, 256 << 20),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err((key, format!("is {value}; use {least} to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_usable_and_nonsense_is_named() {
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        assert_eq!(read("").check(), Ok(()));
        assert_eq!(read("timeout_ms = 0").check().unwrap_err().0, "timeout_ms");
        assert!(toml::from_str::<Config>("timeout = 5").is_err());
    }
}
