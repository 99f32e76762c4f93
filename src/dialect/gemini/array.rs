//! A stream as Google gives it to whoever does not ask for `alt=sse`: one JSON array that grows.

use crate::dialect::{Error, sse};

/// Makes an array of a stream's events, in whatever pieces they come. An element leaves as soon as its event is whole,
/// behind what Google puts between two of them.
#[derive(Debug)]
pub struct GeminiArray {
    events: sse::Reader,
    has_begun: bool,
}

impl GeminiArray {
    /// An array of events with at most so many bytes each.
    pub fn new(event_max_bytes: usize) -> Self {
        Self { events: sse::Reader::new(event_max_bytes), has_begun: false }
    }

    /// Takes more of the stream, and appends what it is in the array. A comment becomes white space, which keeps a
    /// connection alive as well.
    ///
    /// # Errors
    /// An event is longer than its bound.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.events.push(bytes)?;
        while let Some(event) = self.events.next()? {
            match event.data {
                Some(data) => {
                    let before: &[u8] = if self.has_begun { b",\r\n" } else { b"[" };
                    out.extend_from_slice(before);
                    out.extend_from_slice(&data);
                    self.has_begun = true;
                }
                None => out.push(b'\n'),
            }
        }
        Ok(())
    }

    /// Appends the end of the array.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        let end: &[u8] = if self.has_begun { b"]" } else { b"[]" };
        out.extend_from_slice(end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn array(chunks: &[&[u8]]) -> String {
        let (mut array, mut out) = (GeminiArray::new(64), Vec::new());
        chunks.iter().for_each(|chunk| array.push(chunk, &mut out).unwrap());
        array.close(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_become_elements_as_google_parts_them() {
        let stream: &[u8] = b"data: {\"a\":1}\n\n: ping\n\ndata: {\"b\":\"x\"}\n\n";
        assert_eq!(array(&[stream]), "[{\"a\":1}\n,\r\n{\"b\":\"x\"}]");
        assert_eq!(array(&[]), "[]");
        assert_eq!(array(&[b": ping\n\n"]), "\n[]");
    }

    #[test]
    fn an_event_without_end_is_refused_at_the_bound() {
        let mut array = GeminiArray::new(64);
        let long = [b"data: ", &[b'x'; 64][..]].concat();
        assert!(matches!(array.push(&long, &mut Vec::new()), Err(Error::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn it_is_the_same_array_in_whatever_pieces_the_events_come(cuts in proptest::collection::vec(0_usize..70, 0..8)) {
            let whole = "data: {\"a\":\"é\"}\r\n\r\n: ping\n\ndata: {\"b\":[1,\ndata: 2]}\n\ndata: {}\n\n".as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            cuts.push(whole.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|&cut| &whole[std::mem::replace(&mut from, cut)..cut]).collect();
            let told: Value = serde_json::from_str(&array(&chunks)).unwrap();
            prop_assert_eq!(told, json!([{"a": "é"}, {"b": [1, 2]}, {}]));
        }
    }
}
