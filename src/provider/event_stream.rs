//! SageMaker's streams, taken out of their wrapping: what the container wrote, in the order in which it wrote it.
//!
//! The wrapping is `application/vnd.amazon.eventstream`: total length, length of the headers, CRC-32 of these eight
//! bytes, headers, payload, CRC-32 of everything before it, numbers big-endian. A `PayloadPart` carries the
//! container's bytes as they are; exceptions end the stream.

use bytes::{Buf as _, Bytes, BytesMut};

/// AWS's own limit of a message is 16 MiB; containers send a few bytes at a time.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// What a message was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The container's bytes.
    Payload(Bytes),
    /// It ended with this exception.
    Exception(String),
}

/// Messages out of pieces of any size. Keeps at most one message and one piece.
#[derive(Debug, Default)]
pub(super) struct Unwrapper {
    buffer: BytesMut,
}

impl Unwrapper {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// Whether a message has begun that has not ended.
    pub(super) fn is_within(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole message; the error says why there can be none.
    pub(super) fn next(&mut self) -> Result<Option<Part>, String> {
        let Some(prelude) = self.buffer.first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
        let word = |at: usize| u32::from_be_bytes([prelude[at], prelude[at + 1], prelude[at + 2], prelude[at + 3]]);
        if crc32fast::hash(&prelude[..8]) != word(8) {
            return Err("a message of its event stream has a wrong checksum".to_owned());
        }
        let (total, headers) = (word(0) as usize, word(4) as usize);
        if total > MESSAGE_BYTES_MAX || total < PRELUDE_BYTES + headers + CHECKSUM_BYTES {
            return Err(format!("a message of its event stream says that it has {total} bytes"));
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(total).freeze();
        let (body, checksum) = message.split_at(total - CHECKSUM_BYTES);
        if crc32fast::hash(body).to_be_bytes() != *checksum {
            return Err("a message of its event stream has a wrong checksum".to_owned());
        }
        message.truncate(total - CHECKSUM_BYTES);
        message.advance(PRELUDE_BYTES);
        let headers = message.split_to(headers);
        let named = |name| header(&headers, name);
        Ok(Some(match named(":message-type").as_deref() {
            Some("exception" | "error") => {
                let name = named(":exception-type").or_else(|| named(":error-code"));
                Part::Exception(name.unwrap_or_else(|| "an exception without a name".to_owned()))
            }
            _ => Part::Payload(message),
        }))
    }
}

/// The text of a header (type 7); others are passed over by their lengths.
fn header(mut rest: &[u8], wanted: &str) -> Option<String> {
    while let Some((&length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(usize::from(length))?;
        let (&kind, after) = after.split_first()?;
        let (value, after) = match kind {
            0 | 1 => after.split_at_checked(0)?,
            2 => after.split_at_checked(1)?,
            3 => after.split_at_checked(2)?,
            4 => after.split_at_checked(4)?,
            5 | 8 => after.split_at_checked(8)?,
            9 => after.split_at_checked(16)?,
            6 | 7 => {
                let (length, after) = after.split_first_chunk::<2>()?;
                after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?
            }
            _ => return None,
        };
        if kind == 7 && name == wanted.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut written = Vec::new();
        for (name, value) in headers {
            written.push(u8::try_from(name.len()).unwrap());
            written.extend(name.as_bytes());
            written.push(7);
            written.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            written.extend(value.as_bytes());
        }
        let total = u32::try_from(PRELUDE_BYTES + written.len() + payload.len() + CHECKSUM_BYTES).unwrap();
        let mut out = total.to_be_bytes().to_vec();
        out.extend(u32::try_from(written.len()).unwrap().to_be_bytes());
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out.extend(written);
        out.extend(payload);
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }

    fn part(payload: &[u8]) -> Vec<u8> {
        message(&[(":event-type", "PayloadPart"), (":message-type", "event")], payload)
    }

    #[test]
    fn an_exception_ends_the_stream_with_its_name() {
        let mut unwrapper = Unwrapper::default();
        unwrapper.push(&part(b"data: 1\n\n"));
        unwrapper.push(&message(&[(":message-type", "exception"), (":exception-type", "ModelStreamError")], b"{}"));
        assert_eq!(unwrapper.next(), Ok(Some(Part::Payload(Bytes::from_static(b"data: 1\n\n")))));
        assert_eq!(unwrapper.next(), Ok(Some(Part::Exception("ModelStreamError".to_owned()))));
        assert_eq!(unwrapper.next(), Ok(None));
        assert!(!unwrapper.is_within());
    }

    #[test]
    fn a_flipped_bit_and_a_length_beyond_the_bound_are_refused() {
        let whole = part(b"hello");
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            let mut unwrapper = Unwrapper::default();
            unwrapper.push(&bad);
            assert!(unwrapper.next().is_err(), "byte {at}");
        }
        let mut huge = (64u32 << 20).to_be_bytes().to_vec();
        huge.extend(0u32.to_be_bytes());
        huge.extend(crc32fast::hash(&huge).to_be_bytes());
        let mut unwrapper = Unwrapper::default();
        unwrapper.push(&huge);
        assert!(unwrapper.next().is_err());
    }

    proptest! {
        #[test]
        fn payloads_come_out_as_they_went_in_however_the_pieces_fall(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            piece in 1usize..50,
        ) {
            let wire: Vec<u8> = payloads.iter().flat_map(|payload| part(payload)).collect();
            let (mut unwrapper, mut out) = (Unwrapper::default(), Vec::new());
            for piece in wire.chunks(piece) {
                unwrapper.push(piece);
                while let Some(part) = unwrapper.next().unwrap() {
                    match part {
                        Part::Payload(bytes) => out.push(bytes.to_vec()),
                        Part::Exception(name) => panic!("{name}"),
                    }
                }
            }
            prop_assert!(!unwrapper.is_within());
            prop_assert_eq!(out, payloads);
        }

        #[test]
        fn garbage_is_an_error_or_not_enough(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            header(&garbage, ":message-type");
            let mut unwrapper = Unwrapper::default();
            unwrapper.push(&garbage);
            while let Ok(Some(_)) = unwrapper.next() {}
        }
    }
}
