//! The calls of a stream: which item is which call, and whether its arguments have come.

use crate::dialect::Error;
use crate::dialect::json::{self, Members};

use super::Event;

/// The most calls in one answer. A server that makes up items could otherwise fill the memory.
const CALLS_MAX: usize = 1_024;

#[derive(Debug)]
struct Call {
    output_index: u64,
    has_arguments: bool,
}

/// The calls so far, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

impl Calls {
    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// An item was added: if it is a call, its number, id and name, escaped.
    pub(crate) fn begin(&mut self, event: &Event<'_>) -> Result<Option<(u64, String, String)>, Error> {
        let item = event.item.map(Members::lenient).unwrap_or_default();
        if item.text("type").as_deref() != Some("function_call") {
            return Ok(None);
        }
        if self.0.len() >= CALLS_MAX {
            return Err(Error::TooLong { what: "list of calls", max_bytes: CALLS_MAX });
        }
        let inner = |name| item.get(name).and_then(json::inner).unwrap_or_default().to_owned();
        self.0.push(Call { output_index: event.output_index, has_arguments: false });
        Ok(Some((self.0.len() as u64 - 1, inner("call_id"), inner("name"))))
    }

    /// Arguments came: the number of their call.
    pub(crate) fn grow(&mut self, event: &Event<'_>) -> Option<u64> {
        let at = self.0.iter().rposition(|call| call.output_index == event.output_index)?;
        self.0[at].has_arguments = true;
        Some(at as u64)
    }

    /// An item is finished: its arguments, escaped, if it is a call of which none came before.
    pub(crate) fn end(&mut self, event: &Event<'_>) -> Option<(u64, String)> {
        let at = self.0.iter().rposition(|call| call.output_index == event.output_index)?;
        if std::mem::replace(&mut self.0[at].has_arguments, true) {
            return None;
        }
        let item = event.item.map(Members::lenient).unwrap_or_default();
        let arguments = item.get("arguments").and_then(json::inner).filter(|inner| !inner.is_empty()).unwrap_or("{}");
        Some((at as u64, arguments.to_owned()))
    }
}
