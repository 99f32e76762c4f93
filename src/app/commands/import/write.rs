//! What was read, as a part of a configuration file.

use std::fmt::Write as _;

use super::deployment::Provider;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Name, what it is, and the file with its key.
    pub(super) providers: Vec<(String, Provider, Option<String>)>,
    pub(super) routes: Vec<Route>,
    pub(super) prices: Vec<Price>,
    pub(super) breaker_failures: Option<u32>,
    pub(super) breaker_open_ms: Option<u64>,
    pub(super) budget_usd: Option<f64>,
    /// Monthly instead of daily.
    pub(super) budget_monthly: Option<bool>,
}

/// A `[[route]]`.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) models: Vec<String>,
    pub(super) strategy: Option<&'static str>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) attempts_max: Option<u32>,
    pub(super) same_candidate_max: Option<u32>,
    pub(super) after_content_refused: bool,
    pub(super) candidates: Vec<Candidate>,
    /// Some did not fit.
    pub(super) too_many: bool,
}

/// A `[[route.candidate]]`.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) tier: u32,
    pub(super) weight: Option<u32>,
    pub(super) reach: Option<&'static str>,
    pub(super) context_tokens: Option<u64>,
    pub(super) lacks: Vec<&'static str>,
    pub(super) requests_max: Option<u64>,
    pub(super) first_byte_timeout_ms: Option<u64>,
    pub(super) tags: Vec<String>,
}

/// A `[[prices.model]]`.
#[derive(Debug)]
pub(super) struct Price {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) like: Option<String>,
    pub(super) rates: Vec<(&'static str, f64)>,
}

/// Lines of TOML.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn table(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{name}");
    }

    fn text(&mut self, key: &str, text: &str) {
        let _ = writeln!(self.0, "{key} = {}", quoted(text));
    }

    fn some_text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn some_number(&mut self, key: &str, number: Option<u64>) {
        if let Some(number) = number {
            let _ = writeln!(self.0, "{key} = {number}");
        }
    }

    fn list<T: AsRef<str>>(&mut self, key: &str, texts: &[T]) {
        let texts: Vec<_> = texts.iter().map(|text| quoted(text.as_ref())).collect();
        let _ = writeln!(self.0, "{key} = [{}]", texts.join(", "));
    }
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A price for a million tokens without the noise of its multiplication, never in the form `1e-7`.
fn decimal(price: f64) -> String {
    let text = format!("{price:.9}");
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

impl File {
    /// As TOML, the remarks first.
    pub(super) fn to_toml(&self, remarks: &[String]) -> String {
        let mut lines = Lines::default();
        for remark in remarks {
            // A line break in a comment would end it.
            let _ = writeln!(lines.0, "# {}", remark.replace(char::is_control, " "));
        }
        for (name, provider, key_file) in &self.providers {
            lines.table("[[provider]]");
            lines.text("name", name);
            lines.text("kind", provider.kind);
            lines.some_text("base_url", provider.base_url.as_deref());
            lines.some_text("key_file", key_file.as_deref());
            lines.some_text("region", provider.region.as_deref());
            lines.some_text("project", provider.project.as_deref());
            lines.some_text("location", provider.location.as_deref());
            lines.some_text("api_version", provider.api_version.as_deref());
            if !provider.headers.is_empty() {
                let headers: Vec<_> = provider
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
                    .collect();
                let _ = writeln!(lines.0, "headers = {{ {} }}", headers.join(", "));
            }
        }
        if self.breaker_failures.is_some() || self.breaker_open_ms.is_some() {
            lines.table("[routing.breaker]");
            lines.some_number("failures", self.breaker_failures.map(u64::from));
            lines.some_number("open_ms", self.breaker_open_ms);
            lines.some_number("open_most_ms", self.breaker_open_ms.map(|open| open.max(120_000)));
        }
        self.routes.iter().for_each(|route| route.write(&mut lines));
        for price in &self.prices {
            lines.table("[[prices.model]]");
            lines.text("provider", &price.provider);
            lines.text("model", &price.model);
            lines.some_text("like", price.like.as_deref());
            if !price.rates.is_empty() {
                let rates: Vec<_> =
                    price.rates.iter().map(|(name, price)| format!("{name} = {}", decimal(*price))).collect();
                let _ = writeln!(lines.0, "usd_per_million_tokens = {{ {} }}", rates.join(", "));
            }
        }
        if let (Some(dollars), Some(monthly)) = (self.budget_usd, self.budget_monthly) {
            lines.table("[[quota.limit]]");
            lines.text("level", "tenant");
            lines.text("name", "default");
            let _ = writeln!(lines.0, "{} = \"{dollars:.6}\"", if monthly { "usd_per_month" } else { "usd_per_day" });
        }
        lines.0
    }
}

impl Route {
    fn write(&self, lines: &mut Lines) {
        lines.table("[[route]]");
        lines.text("name", &self.name);
        lines.list("models", &self.models);
        lines.some_text("strategy", self.strategy);
        lines.some_number("timeout_ms", self.timeout_ms);
        lines.some_number("retries.attempts_max", self.attempts_max.map(u64::from));
        lines.some_number("retries.same_candidate_max", self.same_candidate_max.map(u64::from));
        if self.after_content_refused {
            let _ = writeln!(lines.0, "retries.after_content_refused = true");
        }
        for candidate in &self.candidates {
            lines.table("[[route.candidate]]");
            lines.text("provider", &candidate.provider);
            lines.text("model", &candidate.model);
            lines.some_number("tier", Some(u64::from(candidate.tier)).filter(|tier| *tier > 0));
            lines.some_number("weight", candidate.weight.map(u64::from));
            lines.some_text("reach", candidate.reach);
            lines.some_number("context_tokens", candidate.context_tokens);
            if !candidate.lacks.is_empty() {
                lines.list("lacks", &candidate.lacks);
            }
            lines.some_number("requests_max", candidate.requests_max);
            lines.some_number("first_byte_timeout_ms", candidate.first_byte_timeout_ms);
            if !candidate.tags.is_empty() {
                lines.list("when.tags", &candidate.tags);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_has_it_is_read_back_as_it_was() {
        for text in ["", "a\"b\\c", "line\nbreak\u{7f}\u{0}\u{85}", "ä€😀", "''' \"\"\""] {
            let table: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).unwrap();
            assert_eq!(table["a"].as_str(), Some(text));
        }
    }

    #[test]
    fn prices_are_written_as_people_write_them() {
        for (price, text) in [(2.5e-6 * 1e6, "2.5"), (0.0, "0.0"), (1.5e-7 * 1e6, "0.15"), (1e-9 * 1e6, "0.001")] {
            assert_eq!(decimal(price), text);
        }
    }
}
