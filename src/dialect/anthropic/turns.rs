//! Writes `messages`: Anthropic wants the turns to alternate, and all results of tools in the turn after their calls.

/// The list of messages, each with a list of blocks. Blocks of the same role in a row become one message.
#[derive(Debug)]
pub(crate) struct Turns {
    out: Vec<u8>,
    role: Option<&'static str>,
}

impl Turns {
    /// Begins the list.
    pub(crate) fn new() -> Self {
        Self { out: vec![b'['], role: None }
    }

    /// Begins a block of `role`, which is `user` or `assistant`; its value is written to the bytes by the caller.
    pub(crate) fn block(&mut self, role: &'static str) -> &mut Vec<u8> {
        if self.role == Some(role) {
            self.out.push(b',');
        } else {
            if self.role.is_some() {
                self.out.extend_from_slice(b"]},");
            }
            self.out.extend_from_slice(b"{\"role\":\"");
            self.out.extend_from_slice(role.as_bytes());
            self.out.extend_from_slice(b"\",\"content\":[");
            self.role = Some(role);
        }
        &mut self.out
    }

    /// The finished list.
    pub(crate) fn end(mut self) -> String {
        if self.role.is_some() {
            self.out.extend_from_slice(b"]}");
        }
        self.out.push(b']');
        String::from_utf8(self.out).expect("JSON is written from text only")
    }
}
