//! Where a text is cut before its bytes are merged: no token reaches over such a cut.
//!
//! The expressions are those of the models' `tokenizer.json`, known in GGUF by a name (`tokenizer.ggml.pre`). They are written for a
//! machine with look-ahead, which theirs needs in one place only: white space gives its last character to the word behind it.
//! That is done here by hand, so that a machine without backtracking serves, whose time no text can blow up.

use regex::Regex;

use super::error::Error;

/// Which models' cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Gpt2,
    /// Digits one by one before everything else, then as GPT-2.
    Digits,
    Llama3,
    Qwen2,
    Tekken,
}

const STYLES: [(&str, Style); 19] = [
    ("gpt-2", Style::Gpt2),
    ("gpt2", Style::Gpt2),
    ("phi-2", Style::Gpt2),
    ("olmo", Style::Gpt2),
    ("mpt", Style::Gpt2),
    ("smollm", Style::Digits),
    ("starcoder", Style::Digits),
    ("refact", Style::Digits),
    ("command-r", Style::Digits),
    ("codeshell", Style::Digits),
    ("llama-bpe", Style::Llama3),
    ("llama3", Style::Llama3),
    ("llama-v3", Style::Llama3),
    ("falcon3", Style::Llama3),
    ("dbrx", Style::Llama3),
    ("qwen2", Style::Qwen2),
    ("deepseek-r1-qwen", Style::Qwen2),
    ("stablelm2", Style::Qwen2),
    ("tekken", Style::Tekken),
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

/// Cuts texts.
pub(super) struct Split {
    style: Style,
    expression: Regex,
}

impl Split {
    /// By the file's name for it.
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        let Some((_, style)) = STYLES.iter().find(|(known, _)| *known == name) else {
            let known = STYLES.map(|(name, _)| name).join(", ");
            return Err(Error::File(format!("tokenizer.ggml.pre is {name:?}, expected one of {known}")));
        };
        let expression = match style {
            Style::Gpt2 | Style::Digits => GPT2,
            Style::Llama3 => LLAMA3,
            Style::Qwen2 => QWEN2,
            Style::Tekken => TEKKEN,
        };
        let expression = Regex::new(expression).expect("it was compiled in every test");
        Ok(Self { style: *style, expression })
    }

    /// Whether a whole word that is a token stays one, whatever its parts would merge to.
    pub(super) fn keeps_words(&self) -> bool {
        matches!(self.style, Style::Llama3 | Style::Tekken)
    }

    /// Whether such models begin with a token of their own where the file does not say.
    pub(super) fn begins(&self) -> bool {
        self.style == Style::Llama3
    }

    /// Gives every part of `text` in order; together they are the text.
    pub(super) fn each<'t>(&self, text: &'t str, mut give: impl FnMut(&'t str)) {
        if self.style != Style::Digits {
            return self.parts(text, &mut give);
        }
        let mut rest = text;
        while let Some(at) = rest.find(char::is_numeric) {
            let (before, behind) = rest.split_at(at);
            self.parts(before, &mut give);
            let digit = behind.chars().next().map_or(0, char::len_utf8);
            give(&behind[..digit]);
            rest = &behind[digit..];
        }
        self.parts(rest, &mut give);
    }

    fn parts<'t>(&self, text: &'t str, give: &mut impl FnMut(&'t str)) {
        let mut at = 0;
        while let Some(found) = self.expression.find_at(text, at) {
            // Every character is in one of the alternatives, so nothing lies between two parts.
            let mut end = found.end();
            let part = &text[at..end];
            let ends_line = self.style != Style::Gpt2 && self.style != Style::Digits && part.ends_with(['\r', '\n']);
            if end < text.len() && !ends_line && part.chars().all(char::is_whitespace) {
                let last = part.chars().next_back().map_or(0, char::len_utf8);
                if last < part.len() {
                    end -= last;
                }
            }
            give(&text[at..end]);
            at = end;
        }
        if at < text.len() {
            give(&text[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    fn parts<'t>(style: &str, text: &'t str) -> Vec<&'t str> {
        let mut parts = Vec::new();
        Split::named(style).unwrap().each(text, |part| parts.push(part));
        parts
    }

    #[test]
    fn white_space_gives_its_last_character_to_the_word_behind_it() {
        assert_eq!(parts("qwen2", "a  b   "), ["a", " ", " b", "   "]);
        assert_eq!(parts("qwen2", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(parts("gpt-2", "a \n\n  b"), ["a", " \n\n ", " b"]);
        assert_eq!(parts("gpt-2", "a\nb"), ["a", "\n", "b"]);
        assert_eq!(parts("qwen2", "x\t\tif"), ["x", "\t", "\tif"]);
    }

    #[test]
    fn digits_come_alone_or_in_threes_as_the_model_was_taught() {
        assert_eq!(parts("qwen2", "12345"), ["1", "2", "3", "4", "5"]);
        assert_eq!(parts("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(parts("gpt-2", "a 12345"), ["a", " 12345"]);
        assert_eq!(parts("smollm", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(parts("tekken", "camelCase/\n"), ["camel", "Case", "/\n"]);
    }

    #[test]
    fn an_unknown_style_is_refused_with_those_that_are_known() {
        let error = Split::named("chameleon").err().unwrap().to_string();
        assert!(error.contains("\"chameleon\", expected one of gpt-2") && error.contains("qwen2"), "{error}");
    }

    proptest! {
        #[test]
        fn the_parts_of_any_text_are_the_text(text in "[ \\n\\ta-zA-Z0-9'é☃٣ा\u{10ffff}!/]{0,60}") {
            static ALL: LazyLock<Vec<Split>> =
                LazyLock::new(|| STYLES.iter().map(|(name, _)| Split::named(name).unwrap()).collect());
            for split in ALL.iter() {
                let mut parts = Vec::new();
                split.each(&text, |part| parts.push(part));
                prop_assert!(parts.iter().all(|part| !part.is_empty()));
                prop_assert_eq!(parts.concat(), text.as_str());
            }
        }
    }
}
