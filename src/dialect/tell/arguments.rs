//! Arguments of a call, kept until they are whole: for dialects that have them as an object.

use crate::dialect::json::Members;
use crate::dialect::{Dialect, Error};

/// The call that began last.
#[derive(Debug)]
pub(super) struct Kept {
    /// The dialect of the model, for what is wrong.
    from: Dialect,
    max_bytes: usize,
    kept_bytes: usize,
    /// Id, name and signature, between their quotes, and the arguments so far.
    call: Option<Call>,
}

/// A whole call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) signature: Option<String>,
    /// Escaped while it is not whole, a JSON object after.
    pub(super) arguments: String,
}

impl Kept {
    pub(super) fn new(from: Dialect, max_bytes: usize) -> Self {
        Self { from, max_bytes, kept_bytes: 0, call: None }
    }

    /// A call begins; the one before it is whole.
    pub(super) fn begin(&mut self, id: &str, name: &str, signature: Option<&str>) -> Result<Option<Call>, Error> {
        let before = self.take()?;
        let call = Call {
            id: id.to_owned(),
            name: name.to_owned(),
            signature: signature.map(str::to_owned),
            arguments: String::new(),
        };
        self.call = Some(call);
        Ok(before)
    }

    pub(super) fn push(&mut self, inner: &str) -> Result<(), Error> {
        self.kept_bytes += inner.len();
        if self.kept_bytes > self.max_bytes {
            return Err(Error::TooLong { what: "call of a tool", max_bytes: self.max_bytes });
        }
        if let Some(call) = &mut self.call {
            call.arguments.push_str(inner);
        }
        Ok(())
    }

    /// The call that is whole now, if one began.
    pub(super) fn take(&mut self) -> Result<Option<Call>, Error> {
        let Some(mut call) = self.call.take() else { return Ok(None) };
        let wrong = || Error::Malformed { dialect: self.from, what: "arguments of a call" };
        // Escapes may be cut between pieces, so they are only undone now.
        let text: String = serde_json::from_str(&format!("\"{}\"", call.arguments)).map_err(|_| wrong())?;
        call.arguments = if text.trim().is_empty() {
            "{}".to_owned()
        } else {
            Members::parse(text.as_bytes()).map_err(|_| wrong())?;
            text
        };
        Ok(Some(call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_together_across_cut_escapes() {
        let mut kept = Kept::new(Dialect::Chat, 1_000);
        kept.begin("c", "f", None).unwrap();
        for piece in [r#"{\"a\":\"\ud83d"#, r#"\ude00\\n"#, r#"\"}"#] {
            kept.push(piece).unwrap();
        }
        assert_eq!(kept.take().unwrap().unwrap().arguments, "{\"a\":\"😀\\n\"}");
        kept.begin("c", "f", None).unwrap();
        assert_eq!(kept.take().unwrap().unwrap().arguments, "{}");
        assert!(kept.take().unwrap().is_none());
    }

    #[test]
    fn arguments_that_are_no_object_or_too_long_are_refused() {
        let mut kept = Kept::new(Dialect::Chat, 10);
        kept.begin("c", "f", None).unwrap();
        kept.push("[1]").unwrap();
        assert_eq!(kept.take().unwrap_err(), Error::Malformed { dialect: Dialect::Chat, what: "arguments of a call" });
        kept.begin("c", "f", None).unwrap();
        kept.push("1234567").unwrap();
        assert!(matches!(kept.push("8"), Err(Error::TooLong { max_bytes: 10, .. })));
    }
}
