//! Server-sent events: taken apart in whatever pieces they arrive, and written.
//!
//! After the WHATWG's HTML standard, section "server-sent events": lines end with LF, CRLF or CR, an empty line ends an event,
//! `data` lines are joined with LF, a byte order mark at the start is skipped, a line that begins with a colon is a comment.

use std::borrow::Cow;

use super::Error;
use super::frame::Frame;

/// The reading side. Holds the bytes of one unfinished event, at most `max_bytes` and the chunk that came last.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    /// Where the next event begins.
    at: usize,
    /// Where the line begins that has not ended yet.
    line: usize,
    /// Up to where that line is known not to end.
    looked: usize,
    begun: bool,
    max_bytes: usize,
}

impl Reader {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, line: 0, looked: 0, begun: false, max_bytes }
    }

    /// Takes a chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.line -= self.at;
            self.looked -= self.at;
            self.at = 0;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole event or comment, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        if !self.begun {
            const MARK: &[u8] = b"\xef\xbb\xbf";
            if self.bytes.len() < MARK.len() && MARK.starts_with(&self.bytes) {
                return Ok(None);
            }
            if self.bytes.starts_with(MARK) {
                self.bytes.drain(..MARK.len());
            }
            self.begun = true;
        }
        while let Some((end, next)) = line_end(&self.bytes, self.looked) {
            let empty = end == self.line;
            self.line = next;
            self.looked = next;
            if empty {
                let from = self.at;
                self.at = next;
                return Ok(Some(parse(&self.bytes[from..next])));
            }
        }
        // A CR at the very end is looked at again when it is known what follows.
        self.looked = self.bytes.len() - usize::from(self.bytes.len() > self.line && self.bytes.ends_with(b"\r"));
        if self.bytes.len() - self.at > self.max_bytes {
            return Err(Error::TooLong { what: "frame of a stream", max_bytes: self.max_bytes });
        }
        Ok(None)
    }

    /// Whether something is left that is no whole event.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.bytes[self.at..].iter().any(|byte| !byte.is_ascii_whitespace())
    }
}

/// Where the first line end after `from` is, and where the next line begins. A CR at the end of the bytes may be half a CRLF.
fn line_end(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let end = from + memchr::memchr2(b'\n', b'\r', &bytes[from..])?;
    match (bytes[end], bytes.get(end + 1)) {
        (b'\n', _) => Some((end, end + 1)),
        (_, Some(b'\n')) => Some((end, end + 2)),
        (_, Some(_)) => Some((end, end + 1)),
        (_, None) => None,
    }
}

fn parse(raw: &[u8]) -> Frame<'_> {
    let mut frame = Frame { event: b"", data: None, raw };
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &raw[at..]) {
        let end = at + found;
        let line = &raw[at..end];
        at = if raw[end] == b'\r' && raw.get(end + 1) == Some(&b'\n') { end + 2 } else { end + 1 };
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &b""[..]),
        };
        match name {
            b"event" => frame.event = value,
            b"data" => match &mut frame.data {
                None => frame.data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    frame
}

/// Writes an event: `write` puts its JSON to the bytes. An empty `event` names none.
pub(crate) fn event(out: &mut Vec<u8>, event: &str, write: impl FnOnce(&mut Vec<u8>)) {
    if !event.is_empty() {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    let from = out.len();
    write(out);
    one_line(&mut out[from..]);
    out.extend_from_slice(b"\n\n");
}

/// In JSON a line break can only stand between values, where a space is as good; here it would end the line.
fn one_line(json: &mut [u8]) {
    if memchr::memchr2(b'\n', b'\r', json).is_some() {
        for byte in json.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<(String, Option<String>)> {
        let mut reader = Reader::new(1 << 16);
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.push(chunk).unwrap();
            while let Some(frame) = reader.next().unwrap() {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.push((text(frame.event), frame.data.as_deref().map(text)));
            }
        }
        seen
    }

    fn named(event: &str, data: &str) -> (String, Option<String>) {
        (event.to_owned(), Some(data.to_owned()))
    }

    #[test]
    fn events_come_out_of_all_three_ends_of_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["event: a", "data: 1", "data:2", "", "data: x", "", "data: y", "", ": and so on", ""].join(end);
            let seen = read(&[text.as_bytes()]);
            assert_eq!(seen[..2], [named("a", "1\n2"), named("", "x")], "{end:?}");
        }
    }

    #[test]
    fn a_mark_at_the_start_and_comments_do_no_harm() {
        let seen = read(&[b"\xef\xbb", b"\xbfdata: 1\n\n: ping\n\ndata: 2\n\n"]);
        assert_eq!(seen, [named("", "1"), (String::new(), None), named("", "2")]);
    }

    #[test]
    fn a_frame_without_end_is_refused_at_the_bound() {
        let mut reader = Reader::new(64);
        let mut refused = false;
        for _ in 0..100 {
            reader.push(b"data: 0123456789\n").unwrap();
            match reader.next() {
                Ok(frame) => assert!(frame.is_none()),
                Err(error) => {
                    assert_eq!(error, Error::TooLong { what: "frame of a stream", max_bytes: 64 });
                    refused = true;
                    break;
                }
            }
        }
        assert!(refused);
    }

    #[test]
    fn line_breaks_between_values_do_not_end_the_event() {
        let mut out = Vec::new();
        event(&mut out, "x", |out| out.extend_from_slice(b"{\n \"a\":\r\n1}"));
        assert_eq!(out, b"event: x\ndata: {  \"a\":  1}\n\n");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(cuts in proptest::collection::vec(0_usize..200, 0..12)) {
            let whole = b"event: a\r\ndata: {\"x\":\r\ndata: 1}\r\n\r\n: c\n\ndata: \xc3\xa9\n\ndata\n\nid: 7\ndata:  two\n\n";
            let expected = read(&[&whole[..]]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&whole[from..cut]);
                from = cut;
            }
            chunks.push(&whole[from..]);
            prop_assert_eq!(read(&chunks), expected);
        }

        #[test]
        fn no_bytes_break_the_reader(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut reader = Reader::new(100);
            for chunk in &chunks {
                reader.push(chunk).unwrap();
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }
}
