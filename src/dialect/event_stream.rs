//! AWS's event stream encoding (`application/vnd.amazon.eventstream`): taken apart in whatever pieces it arrives.
//!
//! A message is its length, the length of its headers and a CRC-32 of these eight bytes, the headers, the payload, and a
//! CRC-32 of everything before it; numbers are big-endian. A header is a name with one byte of length, a byte for the type
//! and a value whose size follows from the type (Smithy's "Amazon event stream" specification).

use std::borrow::Cow;

use super::frame::Frame;
use super::{Dialect, Error};

const PRELUDE_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

/// The reading side. Holds the bytes of one unfinished message, at most `max_bytes` and the chunk that came last.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    /// Where the next message begins.
    at: usize,
    max_bytes: usize,
}

/// The headers that say what a message is.
#[derive(Debug, Default)]
struct Headers<'a> {
    event: &'a [u8],
    exception: &'a [u8],
    error_code: &'a [u8],
    error_message: &'a [u8],
}

impl Reader {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, max_bytes }
    }

    /// Takes a chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The next whole message, if there is one. Its name is the type of the event or of the exception, or the code of an
    /// error; what an error says is its data.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        let rest = &self.bytes[self.at..];
        if rest.len() < PRELUDE_BYTES {
            return Ok(None);
        }
        let (total, headers) = (number(&rest[0..4]) as usize, number(&rest[4..8]) as usize);
        if number(&rest[8..12]) != crc32fast::hash(&rest[..8]) || total < PRELUDE_BYTES + headers + CRC_BYTES {
            return Err(malformed("length of a message"));
        }
        if total > self.max_bytes {
            return Err(Error::TooLong { what: "message of a stream", max_bytes: self.max_bytes });
        }
        if rest.len() < total {
            return Ok(None);
        }
        let from = self.at;
        self.at += total;
        let raw = &self.bytes[from..from + total];
        let (body, crc) = raw.split_at(total - CRC_BYTES);
        if number(crc) != crc32fast::hash(body) {
            return Err(malformed("checksum of a message"));
        }
        let (headers, payload) = body[PRELUDE_BYTES..].split_at(headers);
        let said = read(headers).ok_or_else(|| malformed("headers of a message"))?;
        let (event, data) = match said {
            Headers { error_code, error_message, .. } if !error_code.is_empty() => (error_code, error_message),
            Headers { exception, .. } if !exception.is_empty() => (exception, payload),
            Headers { event, .. } => (event, payload),
        };
        Ok(Some(Frame { event, data: Some(Cow::Borrowed(data)), raw }))
    }

    /// Whether something is left that is no whole message.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.at < self.bytes.len()
    }
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { dialect: Dialect::Bedrock, what }
}

/// Four bytes, the largest first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| (number << 8) | u32::from(byte))
}

fn read(mut headers: &[u8]) -> Option<Headers<'_>> {
    let mut said = Headers::default();
    while !headers.is_empty() {
        let (name, rest) = headers[1..].split_at_checked(usize::from(headers[0]))?;
        let (&kind, rest) = rest.split_first()?;
        let (size, rest) = match kind {
            // true, false
            0 | 1 => (0, rest),
            // byte, short, integer, long and timestamp, UUID
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            5 | 8 => (8, rest),
            9 => (16, rest),
            // bytes and text, with their length
            6 | 7 => {
                let (size, rest) = rest.split_at_checked(2)?;
                (number(size) as usize, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(size)?;
        match name {
            b":event-type" => said.event = value,
            b":exception-type" => said.exception = value,
            b":error-code" => said.error_code = value,
            b":error-message" => said.error_message = value,
            _ => {}
        }
        headers = rest;
    }
    Some(said)
}

/// A message as AWS writes it.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    for (name, value) in headers {
        written.push(u8::try_from(name.len()).expect("names of ours are short"));
        written.extend_from_slice(name.as_bytes());
        written.push(7);
        written.extend_from_slice(
            &u16::try_from(value.len()).expect("headers and messages of ours are short").to_be_bytes(),
        );
        written.extend_from_slice(value.as_bytes());
    }
    let total = PRELUDE_BYTES + written.len() + payload.len() + CRC_BYTES;
    let mut message = u32::try_from(total).expect("headers and messages of ours are short").to_be_bytes().to_vec();
    message.extend_from_slice(
        &u32::try_from(written.len()).expect("headers and messages of ours are short").to_be_bytes(),
    );
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(&written);
    message.extend_from_slice(payload);
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message
}

/// Appends an exception with a payload of JSON.
pub(crate) fn exception(name: &str, payload: &[u8], out: &mut Vec<u8>) {
    let headers = [(":exception-type", name), (":content-type", "application/json"), (":message-type", "exception")];
    out.extend(message(&headers, payload));
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event as Bedrock writes it.
    pub(crate) fn event(name: &str, payload: &str) -> Vec<u8> {
        let headers = [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
        message(&headers, payload.as_bytes())
    }

    fn all(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, Error> {
        let mut reader = Reader::new(1 << 12);
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(frame) = reader.next()? {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                seen.push((text(frame.event), text(&frame.data.unwrap())));
            }
        }
        Ok(seen)
    }

    #[test]
    fn a_message_of_aws_s_own_test_is_read() {
        // "payload_one_str_header" of the test vectors of AWS's SDKs: one header `content-type`, a payload of JSON.
        let hex = "0000003d00000020 07fd8396 0c636f6e74656e742d74797065 07 0010 6170706c69636174696f6e2f6a736f6e \
                   7b27666f6f273a27626172277d 8d9c08b1";
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        assert_eq!(all(&[&bytes]).unwrap(), [(String::new(), "{'foo':'bar'}".to_owned())]);
        let mut wrong = bytes.clone();
        wrong[50] ^= 1;
        assert_eq!(all(&[&wrong]).unwrap_err(), malformed("checksum of a message"));
        let mut wrong = bytes;
        wrong[3] ^= 1;
        assert_eq!(all(&[&wrong]).unwrap_err(), malformed("length of a message"));
    }

    #[test]
    fn events_exceptions_and_errors_have_their_names() {
        let mut bytes = event("messageStop", "{}");
        bytes.extend(message(
            &[(":message-type", "exception"), (":exception-type", "throttlingException")],
            br#"{"message":"slow down"}"#,
        ));
        bytes.extend(message(
            &[(":message-type", "error"), (":error-code", "InternalError"), (":error-message", "it broke")],
            b"",
        ));
        let names: Vec<_> = all(&[&bytes]).unwrap();
        let expected = [
            ("messageStop", "{}"),
            ("throttlingException", r#"{"message":"slow down"}"#),
            ("InternalError", "it broke"),
        ];
        assert_eq!(names, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn a_message_over_the_bound_is_refused_before_it_is_kept() {
        let long = message(&[], &[0; 5_000]);
        assert!(matches!(all(&[&long[..12]]), Err(Error::TooLong { max_bytes: 4_096, .. })));
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(size in 1_usize..40) {
            let mut whole = event("contentBlockDelta", r#"{"delta":{"text":"Gruess"},"contentBlockIndex":0}"#);
            whole.extend(event("messageStop", r#"{"stopReason":"end_turn"}"#));
            let chunks: Vec<&[u8]> = whole.chunks(size).collect();
            prop_assert_eq!(all(&chunks).unwrap(), all(&[&whole]).unwrap());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), headers in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = all(&[&bytes]);
            let _ = read(&headers);
        }
    }
}
