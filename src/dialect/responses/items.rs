//! The output of a whole response, item by item.

use std::borrow::Cow;

use crate::dialect::json::{self, Members, Raw};

/// An item as others can say it. Texts are escaped.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// What the model says.
    Text(String),
    /// What it will not say.
    Refusal(String),
    /// What it thought, and what its provider wants back.
    Reasoning(String, Option<&'a str>),
    /// A call: id, name and arguments.
    Call(&'a str, &'a str, &'a str),
    /// What tools of the provider did.
    Other,
}

/// The items of `output`. Parts of a message come one by one.
pub(crate) fn items<'a>(output: Raw<'a>) -> Vec<Item<'a>> {
    let mut found = Vec::new();
    for item in json::lenient_elements(output) {
        let item = Members::lenient(item);
        let inner = |name| item.get(name).and_then(json::inner).unwrap_or_default();
        match item.text("type").as_deref() {
            Some("message") => {
                for part in item.get("content").map(json::lenient_elements).unwrap_or_default() {
                    let part = Members::lenient(part);
                    let inner = |name| part.get(name).and_then(json::inner).unwrap_or_default().to_owned();
                    found.push(match part.text("type").as_deref() {
                        Some("output_text") => Item::Text(inner("text")),
                        Some("refusal") => Item::Refusal(inner("refusal")),
                        _ => Item::Other,
                    });
                }
            }
            Some("function_call") => {
                found.push(Item::Call(inner("call_id"), inner("name"), inner("arguments")));
            }
            Some("reasoning") => {
                let encrypted = item.get("encrypted_content").and_then(json::inner).filter(|inner| !inner.is_empty());
                found.push(Item::Reasoning(thought(&item), encrypted));
            }
            _ => found.push(Item::Other),
        }
    }
    found
}

/// The text of an item of reasoning: its summary, or what open models tell themselves.
fn thought(item: &Members<'_>) -> String {
    let mut all = String::new();
    for name in ["summary", "content"] {
        for part in item.get(name).map(json::lenient_elements).unwrap_or_default() {
            if !all.is_empty() {
                all.push_str("\\n\\n");
            }
            all.push_str(Members::lenient(part).get("text").and_then(json::inner).unwrap_or_default());
        }
        if !all.is_empty() {
            break;
        }
    }
    all
}

/// How a response ended: its status, and why it is not whole.
pub(crate) fn ending<'a>(response: &Members<'a>) -> (Cow<'a, str>, Option<Cow<'a, str>>) {
    let status = response.text("status").unwrap_or(Cow::Borrowed("completed"));
    let details = response.get("incomplete_details").map(Members::lenient).unwrap_or_default();
    (status, details.text("reason"))
}
