//! Members of a request that want something kept between requests, or done, by the provider itself.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::{Dialect, Error};

/// Refuses what only the servers of responses can do.
pub(crate) fn refuse_state(members: &Members<'_>, to: Dialect) -> Result<(), Error> {
    let refused = |field: &str, why| Err(Error::Unsupported { field: field.to_owned(), to, why });
    for field in ["previous_response_id", "conversation", "prompt"] {
        if members.get(field).is_some() {
            return refused(field, "it keeps nothing between requests; send the whole conversation as `input`");
        }
    }
    if members.get("background").and_then(json::flag) == Some(true) {
        return refused("background", "it answers at once or not at all");
    }
    if members.get("top_logprobs").and_then(json::whole).is_some_and(|most| most > 0) {
        return refused("top_logprobs", "probabilities are not translated");
    }
    Ok(())
}

/// The effort of `reasoning`.
pub(crate) fn effort<'a>(members: &Members<'a>) -> Option<std::borrow::Cow<'a, str>> {
    Members::lenient(members.get("reasoning")?).text("effort")
}

/// The format of `text`, unless it is plain.
pub(crate) fn format<'a>(members: &Members<'a>) -> Option<Members<'a>> {
    let text = Members::lenient(members.get("text")?);
    let format = Members::lenient(text.get("format")?);
    (format.text("type").as_deref() != Some("text")).then_some(format)
}

/// The function that a tool is.
pub(crate) fn function<'a>(tool: Raw<'a>, field: &str, to: Dialect) -> Result<Members<'a>, Error> {
    let tool = Members::of(tool, field)?;
    match tool.text("type").as_deref() {
        Some("function") if tool.get("name").is_some() => Ok(tool),
        Some("function") => Err(Error::field(format!("{field}.name"), "must be there")),
        Some(_) => Err(Error::Unsupported {
            field: field.to_owned(),
            to,
            why: "only OpenAI's own servers have this tool; offer a function",
        }),
        None => Err(Error::field(format!("{field}.type"), "must be there")),
    }
}
