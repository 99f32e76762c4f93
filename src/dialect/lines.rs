//! JSON by lines, as Ollama streams it: taken apart in whatever pieces it arrives.

use std::borrow::Cow;

use super::Error;
use super::frame::Frame;

/// The reading side. Holds the bytes of one unfinished line, at most `max_bytes` and the chunk that came last.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    /// Up to where it is known not to end.
    looked: usize,
    max_bytes: usize,
}

impl Reader {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, looked: 0, max_bytes }
    }

    /// Takes a chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.at);
        self.looked -= self.at;
        self.at = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The next whole line that is not empty, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        while let Some(found) = memchr::memchr(b'\n', &self.bytes[self.looked..]) {
            let (from, end) = (self.at, self.looked + found);
            self.at = end + 1;
            self.looked = self.at;
            if !self.bytes[from..end].trim_ascii().is_empty() {
                let raw = &self.bytes[from..=end];
                return Ok(Some(Frame { event: b"", data: Some(Cow::Borrowed(raw.trim_ascii())), raw }));
            }
        }
        self.looked = self.bytes.len();
        if self.bytes.len() - self.at > self.max_bytes {
            return Err(Error::TooLong { what: "line of a stream", max_bytes: self.max_bytes });
        }
        Ok(None)
    }

    /// Whether something is left that is no whole line.
    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.bytes[self.at..].trim_ascii().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut Reader, chunks: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(frame) = reader.next().unwrap() {
                seen.push(String::from_utf8(frame.data.unwrap().into_owned()).unwrap());
            }
        }
        seen
    }

    #[test]
    fn empty_lines_and_either_end_do_no_harm() {
        let mut reader = Reader::new(64);
        assert_eq!(read(&mut reader, &[b"{\"a\":1}\r\n\n  \n{\"b\"", b":2}\n{\"c\""]), ["{\"a\":1}", "{\"b\":2}"]);
        assert!(reader.is_mid_frame());
        assert_eq!(read(&mut reader, &[b":3}\n \n"]), ["{\"c\":3}"]);
        assert!(!reader.is_mid_frame());
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_bound() {
        let mut reader = Reader::new(64);
        for _ in 0..8 {
            reader.push(b"12345678");
            assert!(reader.next().unwrap().is_none());
        }
        reader.push(b"1");
        assert_eq!(reader.next().unwrap_err(), Error::TooLong { what: "line of a stream", max_bytes: 64 });
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(cuts in proptest::collection::vec(0_usize..40, 0..8)) {
            let whole = b"{\"a\":1}\n{\"b\":\"\xc3\xa9\"}\r\n\n{\"c\":[]}\n";
            let expected = read(&mut Reader::new(64), &[&whole[..]]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            cuts.push(whole.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|&cut| &whole[std::mem::replace(&mut from, cut)..cut]).collect();
            prop_assert_eq!(read(&mut Reader::new(64), &chunks), expected);
        }
    }
}
