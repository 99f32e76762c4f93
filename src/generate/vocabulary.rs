//! The tokens of a model, as its file lists them: their bytes, what kind they are, and which one a text is.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::Error;
use super::metadata::Metadata;

const TOKENS_MAX: usize = 1 << 20;
/// Control and added tokens; the largest vocabularies have some thousands.
const SPECIAL_MAX: usize = 16_384;
/// Of the name of one.
const SPECIAL_BYTES_MAX: usize = 256;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Steers the model, and stands for no text: the end of a turn, say.
    Control,
    /// A text that is always this one token.
    Added,
    Unused,
    /// One byte, where no other token has it.
    Byte,
}

/// How the file writes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Every byte as a printable character, as GPT-2 had it.
    Bytes,
    /// Texts in which a low line stands for a space, as SentencePiece has it.
    LowLines,
}

/// SentencePiece's space.
pub(super) const LOW_LINE: &str = "\u{2581}";

/// Compact: one block of bytes, and numbers into it.
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// Normal tokens in the order of their bytes.
    sorted: Vec<u32>,
    /// Control and added tokens.
    special: Special,
    /// Added ones alone.
    added: Special,
}

/// Finds the first of some tokens in a text, the longest of those that begin there; in one pass, whatever the text is.
struct Special {
    tokens: Vec<u32>,
    finder: AhoCorasick,
}

impl Special {
    fn of(tokens: Vec<(u32, &[u8])>) -> Result<Self, Error> {
        if tokens.len() > SPECIAL_MAX || tokens.iter().any(|(_, name)| name.len() > SPECIAL_BYTES_MAX) {
            let most = format!("{SPECIAL_MAX} of at most {SPECIAL_BYTES_MAX} bytes");
            return Err(Error::File(format!("it has more special tokens than {most}, or longer ones")));
        }
        let finder =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(tokens.iter().map(|(_, name)| name));
        let finder = finder.map_err(|error| Error::File(format!("its special tokens: {error}")))?;
        Ok(Self { tokens: tokens.into_iter().map(|(token, _)| token).collect(), finder })
    }

    fn first(&self, text: &str) -> Option<(usize, u32)> {
        let found = self.finder.find(text)?;
        Some((found.start(), self.tokens[found.pattern().as_usize()]))
    }
}

impl Vocabulary {
    pub(super) fn of(metadata: &Metadata<'_>, writing: Writing) -> Result<Self, Error> {
        let file = |what: String| Error::File(what);
        let texts = metadata.texts("tokenizer.ggml.tokens");
        let texts = texts.ok_or_else(|| file("tokenizer.ggml.tokens: expected a list of texts, given none".into()))?;
        let mut kinds = metadata.wholes("tokenizer.ggml.token_type");
        let mut words = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            kinds: Vec::new(),
            sorted: Vec::new(),
            special: Special::of(Vec::new())?,
            added: Special::of(Vec::new())?,
        };
        for text in texts {
            let kind = kinds.as_mut().map_or(Some(1), Iterator::next);
            let kind = match kind {
                Some(1) => Kind::Normal,
                Some(2) => Kind::Unknown,
                Some(3) => Kind::Control,
                Some(4) => Kind::Added,
                Some(5) => Kind::Unused,
                Some(6) => Kind::Byte,
                other => {
                    let at = words.len();
                    return Err(file(format!("tokenizer.ggml.token_type of token {at} is {other:?}, expected 1 to 6")));
                }
            };
            words.push(text, kind, writing)?;
        }
        if words.ends.is_empty() {
            return Err(file("tokenizer.ggml.tokens: expected at least one, given none".to_owned()));
        }
        if kinds.is_some_and(|mut kinds| kinds.next().is_some()) {
            return Err(file(format!("tokenizer.ggml.token_type: expected {} of them, given more", words.len())));
        }
        words.index()?;
        Ok(words)
    }

    fn push(&mut self, text: &[u8], kind: Kind, writing: Writing) -> Result<(), Error> {
        match (kind, writing) {
            (Kind::Normal | Kind::Unused, Writing::Bytes) => match std::str::from_utf8(text).ok().and_then(unprinted) {
                Some(bytes) => self.bytes.extend(bytes),
                None => self.bytes.extend_from_slice(text),
            },
            (Kind::Normal | Kind::Unused, Writing::LowLines) => {
                self.bytes.extend(String::from_utf8_lossy(text).replace(LOW_LINE, " ").bytes());
            }
            (Kind::Byte, _) => {
                let text = std::str::from_utf8(text).unwrap_or_default();
                let byte = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
                let byte = byte.and_then(|byte| u8::from_str_radix(byte, 16).ok());
                let at = self.len();
                let wrong =
                    || Error::File(format!("token {at} is of the kind that is a byte, and not <0x00> to <0xFF>"));
                self.bytes.push(byte.ok_or_else(wrong)?);
            }
            (Kind::Unknown | Kind::Control | Kind::Added, _) => self.bytes.extend_from_slice(text),
        }
        let end = u32::try_from(self.bytes.len()).ok().filter(|_| self.ends.len() < TOKENS_MAX);
        let end = end.ok_or_else(|| Error::File(format!("it has over {TOKENS_MAX} tokens, or 4 GiB of them")))?;
        self.ends.push(end);
        self.kinds.push(kind);
        Ok(())
    }

    fn index(&mut self) -> Result<(), Error> {
        let of = |wanted: &[Kind]| -> Vec<u32> {
            let all = (0..).zip(&self.kinds);
            all.filter(|(_, kind)| wanted.contains(kind)).map(|(token, _)| token).collect()
        };
        let mut sorted = of(&[Kind::Normal]);
        sorted.sort_by(|&a, &b| self.bytes(a).cmp(self.bytes(b)).then(a.cmp(&b)));
        let special = |wanted: &[Kind]| {
            let named = of(wanted).into_iter().map(|token| (token, self.bytes(token)));
            Special::of(named.filter(|(_, name)| !name.is_empty()).collect())
        };
        let (special, added) = (special(&[Kind::Control, Kind::Added])?, special(&[Kind::Added])?);
        (self.sorted, self.special, self.added) = (sorted, special, added);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes that a token stands for; of a control token its name. Empty for one that there is not.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// None for a token that there is not.
    pub(super) fn kind(&self, token: u32) -> Option<Kind> {
        self.kinds.get(token as usize).copied()
    }

    /// The normal token with these bytes.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        let at = self.sorted.partition_point(|&token| self.bytes(token) < bytes);
        self.sorted.get(at).copied().filter(|&token| self.bytes(token) == bytes)
    }

    /// The control or added token of that name.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        self.special.tokens.iter().copied().find(|&token| self.bytes(token) == name.as_bytes())
    }

    /// The first special token in `text`, the longest of those that begin there: where it is, and which. Control tokens are looked
    /// for only if `controls` says so.
    pub(super) fn first_special(&self, text: &str, controls: bool) -> Option<(usize, u32)> {
        if controls { self.special.first(text) } else { self.added.first(text) }
    }

    /// One for each byte that has a token of its own.
    pub(super) fn byte_tokens(&self) -> Box<[Option<u32>; 256]> {
        let mut found = Box::new([None; 256]);
        for (token, kind) in (0..).zip(&self.kinds) {
            if *kind == Kind::Byte {
                found[usize::from(self.bytes(token)[0])].get_or_insert(token);
            }
        }
        found
    }
}

/// The bytes that GPT-2's printable characters stand for; None where one is none of them.
///
/// Its table: what can be printed in Latin-1 stands for itself, and the others, in their order, are the characters from 256 on.
pub(super) fn unprinted(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

fn is_printed(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

fn byte_of(character: char) -> Option<u8> {
    let number = u32::from(character);
    match u8::try_from(number) {
        Ok(byte) => is_printed(byte).then_some(byte),
        // 33 before the letters, 34 behind them, and the soft hyphen.
        Err(_) => match number - 256 {
            at @ 0..=32 => Some(at as u8),
            at @ 33..=66 => Some((at - 33) as u8 + 0x7f),
            67 => Some(0xad),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::metadata::tests::{texts, wholes, written};

    fn vocabulary(tokens: &[&str], kinds: &[i32], writing: Writing) -> Result<Vocabulary, Error> {
        let file = written(&[("tokenizer.ggml.tokens", texts(tokens)), ("tokenizer.ggml.token_type", wholes(kinds))]);
        Vocabulary::of(&Metadata::read(&file).unwrap(), writing)
    }

    #[test]
    fn each_byte_has_one_printable_character_and_no_other_has_one() {
        let mut bytes: Vec<u8> = (0..400).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(unprinted("Ġhi").unwrap(), b" hi");
        assert_eq!(unprinted("Ċĉ").unwrap(), b"\n\t");
        assert_eq!(unprinted("ÃŃ").unwrap(), "í".as_bytes());
        assert_eq!(unprinted("日"), None);
    }

    #[test]
    fn tokens_are_found_by_their_bytes_and_the_longest_special_one_wins() {
        let tokens = ["Ġa", "a", "<|im", "<|im_start|>", "<tool>", "a"];
        let words = vocabulary(&tokens, &[1, 1, 3, 3, 4, 5], Writing::Bytes).unwrap();
        assert_eq!((words.find(b" a"), words.find(b"a"), words.find(b"b")), (Some(0), Some(1), None));
        assert_eq!(words.first_special("x <|im_start|>", true), Some((2, 3)));
        assert_eq!(words.first_special("x <|im_<tool>", true), Some((2, 2)));
        assert_eq!(words.first_special("x <|im_<tool>", false), Some((7, 4)));
        assert_eq!(words.first_special("x <|im_start|>", false), None);
        assert_eq!((words.named("<tool>"), words.named("a")), (Some(4), None));
        assert_eq!((words.bytes(9), words.kind(9)), (&b""[..], None));
    }

    #[test]
    fn sentencepiece_has_spaces_as_low_lines_and_bytes_of_their_own() {
        let words = vocabulary(&["▁a", "<0x0A>", "</s>"], &[1, 6, 3], Writing::LowLines).unwrap();
        assert_eq!((words.bytes(0), words.bytes(1), words.bytes(2)), (&b" a"[..], &b"\n"[..], &b"</s>"[..]));
        assert_eq!(words.byte_tokens()[10], Some(1));
    }

    #[test]
    fn lists_that_do_not_belong_together_are_refused() {
        for (tokens, kinds, says) in [
            (&["a"][..], &[1, 1][..], "token_type: expected 1 of them, given more"),
            (&["a", "b"], &[1], "token_type of token 1 is None"),
            (&["a"], &[7], "is Some(7), expected 1 to 6"),
            (&["0A"], &[6], "not <0x00> to <0xFF>"),
            (&[&"x".repeat(257)], &[3], "more special tokens than 16384 of at most 256 bytes, or longer ones"),
            (&vec!["x"; 16_385], &[4; 16_385], "more special tokens than 16384"),
            (&[], &[], "expected at least one"),
        ] {
            let error = vocabulary(tokens, kinds, Writing::LowLines).err().unwrap().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
