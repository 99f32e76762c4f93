//! From pieces of bytes to text that can be sent: whole characters only, and nothing that may yet become a stop.

use super::error::Error;

/// Stops of one request.
const STOPS_MAX: usize = 16;
/// Of one of them.
const STOP_BYTES_MAX: usize = 1024;

/// Bytes become characters; what begins one waits for the rest of it.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// At most three bytes.
    begun: Vec<u8>,
}

impl Utf8 {
    /// Adds to `out` what is whole. What can be no character any more becomes U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.begun.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return out.push_str(text);
        }
        self.begun.extend_from_slice(bytes);
        let mut rest = self.begun.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (sound, behind) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(sound).expect("it was found valid up to here"));
                    rest = behind;
                    let Some(bad) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bad..];
                }
            }
        }
        let left = rest.len();
        self.begun.drain(..self.begun.len() - left);
    }

    /// Nothing more comes: what waits will be no character.
    pub(super) fn finish(&mut self, out: &mut String) {
        if !self.begun.is_empty() {
            self.begun.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Holds back what may become a stop, and ends the text where one is.
#[derive(Debug)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// # Errors
    /// More than 16 stops, an empty one, or one over 1,024 bytes.
    pub(super) fn new(stops: &[String]) -> Result<Self, Error> {
        if stops.len() > STOPS_MAX {
            return Err(Error::request("stop", format!("at most {STOPS_MAX} texts"), format!("{}", stops.len())));
        }
        if let Some(stop) = stops.iter().find(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
            let given = format!("one of {} bytes", stop.len());
            return Err(Error::request("stop", format!("texts of 1 to {STOP_BYTES_MAX} bytes"), given));
        }
        Ok(Self { stops: stops.to_vec(), held: String::new() })
    }

    /// Adds `text`; gives what can go out in `out`, and the stop that was found, whose text and what follows it are gone.
    pub(super) fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        // The one that is whole first, so that it does not matter in which parts the text came.
        let place = |(at, stop): (usize, &String)| self.held.find(stop).map(|place| (place + stop.len(), place, at));
        if let Some((_, place, at)) = self.stops.iter().enumerate().filter_map(place).min() {
            out.push_str(&self.held[..place]);
            self.held.clear();
            return Some(at);
        }
        let keeps = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        out.push_str(&self.held[..self.held.len() - keeps]);
        self.held.drain(..self.held.len() - keeps);
        None
    }

    /// No more comes, so what was held back is no stop.
    pub(super) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// How many of the last bytes of `text` are the first of `mark`, but not all of it.
pub(super) fn overlap(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|&bytes| mark.is_char_boundary(bytes) && text.ends_with(&mark[..bytes])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_in_parts_comes_out_whole_and_rubbish_is_replaced_as_everywhere() {
        let given = ["é☃🦀 ok".as_bytes(), b"\xff\xf0\x9f", b"x\xe2\x98", b"\xf0\x9f\xa6"].concat();
        for size in 1..6 {
            let (mut utf8, mut out) = (Utf8::default(), String::new());
            for bytes in given.chunks(size) {
                utf8.push(bytes, &mut out);
                assert!(utf8.begun.len() < 4);
            }
            utf8.finish(&mut out);
            assert_eq!(out, String::from_utf8_lossy(&given), "{size}");
        }
    }

    #[test]
    fn stops_out_of_bounds_are_refused() {
        let wrong = |stops: &[String]| Stops::new(stops).unwrap_err().to_string();
        assert_eq!(wrong(&vec!["x".to_owned(); 17]), "stop: expected at most 16 texts, given 17");
        assert!(wrong(&[String::new()]).contains("texts of 1 to 1024 bytes, given one of 0 bytes"));
        assert!(wrong(&["x".repeat(1025)]).contains("given one of 1025 bytes"));
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_it_ends_before_the_stop_that_is_whole_first(
            text in "[ab☃]{0,30}",
            stops in proptest::collection::vec("[ab☃]{1,4}", 0..4),
            cuts in proptest::collection::vec(1_usize..4, 1..30),
        ) {
            let place = |stop: &String| text.find(stop.as_str()).map(|place| (place + stop.len(), place));
            let expected = stops.iter().filter_map(place).min().map(|(_, place)| place);
            let (mut holder, mut out, mut stopped) = (Stops::new(&stops).unwrap(), String::new(), false);
            let characters: Vec<char> = text.chars().collect();
            let mut rest = characters.as_slice();
            for cut in cuts.iter().cycle() {
                let (now, behind) = rest.split_at((*cut).min(rest.len()));
                rest = behind;
                stopped = holder.push(&now.iter().collect::<String>(), &mut out).is_some();
                // What has gone out is never taken back.
                prop_assert!(text[..expected.unwrap_or(text.len())].starts_with(&out));
                if stopped || rest.is_empty() {
                    break;
                }
            }
            if !stopped {
                holder.finish(&mut out);
            }
            prop_assert_eq!(stopped, expected.is_some());
            prop_assert_eq!(out.as_str(), &text[..expected.unwrap_or(text.len())]);
        }
    }
}
