//! Where a setting stands in the file, by its dotted path.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The bytes of `path` (such as `stream[0].signal.window.size`) in `text`, or of its nearest parent that is there.
pub(crate) fn place(text: &str, path: &str) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let mut best = None;
    let mut here: Option<&DeValue<'_>> = None;
    for part in path.split('.') {
        let (key, index) = match part.split_once('[') {
            Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let table = match here {
            None => table.get_ref(),
            Some(DeValue::Table(table)) => table,
            Some(_) => break,
        };
        let Some((name, value)) = table.get_key_value(key) else { break };
        best = Some(name.span());
        let mut value = value;
        if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
            let Some(item) = items.get(index) else { break };
            best = Some(item.span());
            value = item;
        }
        if !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
            best = Some(value.span());
        }
        here = Some(value.get_ref());
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_by_its_path_and_an_absent_one_by_its_parent() {
        let text = "[a]\nb = 1\n[[stream]]\nname = \"x\"\n[[stream]]\nname = \"yy\"\n[stream.window]\nsize = 12\n";
        let at = |path: &str| place(text, path).map(|span| &text[span]);
        assert_eq!(at("a.b"), Some("1"));
        assert_eq!(at("stream[1].name"), Some("\"yy\""));
        assert_eq!(at("stream[1].window.size"), Some("12"));
        assert_eq!(at("stream[1].window.step"), Some("window"));
        assert_eq!(at("nothing.here"), None);
    }
}
