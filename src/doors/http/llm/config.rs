//! `[http.llm]`: bounds of questions to language models.

use serde::Deserialize;

/// `[http.llm]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body in bytes; more is 413. Pictures and documents travel in it.
    pub body_max_bytes: usize,
    /// A body that is not there by then is 408, in milliseconds.
    pub body_timeout_ms: u64,
    /// Questions and streams at once; more are 503 (529 for Anthropic's clients) with `retry-after`.
    pub requests_max: usize,
    /// A stream that is silent for so long carries a comment, in milliseconds: proxies and clients then see that it lives.
    /// It comes after one to two of these times.
    pub ping_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { body_max_bytes: 32 << 20, body_timeout_ms: 60_000, requests_max: 1024, ping_ms: 10_000 }
    }
}

impl Config {
    /// Finds settings that cannot work; the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("body_max_bytes", self.body_max_bytes as u64, 1024, 1 << 30),
            ("body_timeout_ms", self.body_timeout_ms, 100, 3_600_000),
            ("requests_max", self.requests_max as u64, 1, 1_000_000),
            ("ping_ms", self.ping_ms, 100, 3_600_000),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err((key, format!("is {value}; use {least} to {most}")));
            }
        }
        Ok(())
    }
}
