//! Lists of models, and the answer to a count of tokens.

use super::Dialect;
use super::write::Object;

/// A model as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelEntry<'a> {
    /// The name to ask for.
    pub id: &'a str,
    /// Since when it is there, in seconds since 1970; 0 if nobody knows.
    pub created_unix_s: u64,
    /// Who serves it.
    pub owned_by: &'a str,
}

/// The body of `GET /v1/models` for a caller of `dialect`: Anthropic's shape for Anthropic, OpenAI's otherwise.
pub fn model_list(dialect: Dialect, models: &[ModelEntry<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + models.len() * 96);
    let mut body = Object::new(&mut out);
    if dialect != Dialect::Anthropic {
        body.text("object", "list");
    }
    {
        let mut data = body.array("data");
        for model in models {
            write_model(dialect, model, data.object());
        }
    }
    if dialect == Dialect::Anthropic {
        for (key, model) in [("first_id", models.first()), ("last_id", models.last())] {
            match model {
                Some(model) => body.text(key, model.id),
                None => body.null(key),
            }
        }
        body.flag("has_more", false);
    }
    drop(body);
    out
}

/// The body of `GET /v1/models/{id}`.
pub fn model_entry(dialect: Dialect, model: &ModelEntry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write_model(dialect, model, Object::new(&mut out));
    out
}

fn write_model(dialect: Dialect, model: &ModelEntry<'_>, mut to: Object<'_>) {
    if dialect == Dialect::Anthropic {
        to.text("type", "model");
        to.text("id", model.id);
        to.text("display_name", model.id);
        to.text("created_at", &rfc3339(model.created_unix_s));
        to.text("lifecycle", "active");
        return;
    }
    to.text("id", model.id);
    to.text("object", "model");
    to.number("created", model.created_unix_s);
    to.text("owned_by", model.owned_by);
    // Mistral's clients ask here, too, and take no model without these.
    to.text("type", "base");
    drop(to.object("capabilities"));
}

/// The answer of `POST /v1/messages/count_tokens`.
pub fn token_count(tokens: u64) -> Vec<u8> {
    format!("{{\"input_tokens\":{tokens}}}").into_bytes()
}

/// Seconds since 1970 as `2026-11-21T19:45:00Z`. The day follows from counting years of 400 years' cycles that begin in
/// March (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
pub(crate) fn rfc3339(unix_s: u64) -> String {
    let unix_s = unix_s.min(253_402_300_799);
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_the_shape_of_their_dialect() {
        let models = [ModelEntry { id: "qwen", created_unix_s: 1_795_290_300, owned_by: "forebay" }];
        assert_eq!(
            String::from_utf8(model_list(Dialect::Chat, &models)).unwrap(),
            r#"{"object":"list","data":[{"id":"qwen","object":"model","created":1795290300,"owned_by":"forebay","type":"base","capabilities":{}}]}"#
        );
        assert_eq!(
            String::from_utf8(model_list(Dialect::Anthropic, &models)).unwrap(),
            r#"{"data":[{"type":"model","id":"qwen","display_name":"qwen","created_at":"2026-11-21T19:45:00Z","lifecycle":"active"}],"first_id":"qwen","last_id":"qwen","has_more":false}"#
        );
        assert!(String::from_utf8(model_list(Dialect::Anthropic, &[])).unwrap().contains(r#""first_id":null"#));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
