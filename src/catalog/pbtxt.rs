//! The text form of protobuf messages, as far as configurations are written in it: fields, messages within, lists, texts, numbers,
//! words and comments. What a field means is left to whoever reads it.
//!
//! Limits: 16 messages within each other, 4,096 fields; the file's size is the caller's.

const DEPTH_MAX: usize = 16;
const FIELDS_MAX: usize = 4096;

/// A field with its place in the text. A list is as many fields of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) at: Place,
    pub(super) value: Value,
}

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// As it is written, sign included.
    Number(String),
    /// `true`, or a name of an enumeration.
    Word(String),
    Message(Vec<Field>),
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wrong {
    pub(super) at: Place,
    pub(super) what: String,
}

impl Field {
    pub(super) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { at: self.at, what: format!("{}: {}", self.name, what.into()) }
    }

    fn expected(&self, what: &str) -> Wrong {
        let given = match &self.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Number(word) | Value::Word(word) => word.clone(),
            Value::Message(_) => "a message".to_owned(),
        };
        self.wrong(format!("expected {what}, given {given}"))
    }

    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a text in quotes")),
        }
    }

    pub(super) fn word(&self) -> Result<&str, Wrong> {
        match &self.value {
            Value::Word(word) => Ok(word),
            _ => Err(self.expected("a word")),
        }
    }

    pub(super) fn message(&self) -> Result<&[Field], Wrong> {
        match &self.value {
            Value::Message(fields) => Ok(fields),
            _ => Err(self.expected("a message in braces")),
        }
    }

    /// A whole number, also below 0.
    pub(super) fn whole(&self) -> Result<i64, Wrong> {
        let number = match &self.value {
            Value::Number(number) => number.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.expected("a whole number"))
    }

    /// A whole number from 0.
    pub(super) fn count(&self) -> Result<u32, Wrong> {
        u32::try_from(self.whole()?).map_err(|_| self.expected("a whole number from 0 to 4294967295"))
    }
}

/// The fields of a message in text form.
pub(super) fn parse(text: &str) -> Result<Vec<Field>, Wrong> {
    let mut reader = Reader { rest: text.chars().peekable(), at: Place { line: 1, column: 1 }, fields: 0 };
    reader.message(None, 0)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    at: Place,
    fields: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { at: self.at, what: what.into() }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.at = Place { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(next)
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.next();
                }
            } else if next.is_ascii_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.next();
        }
        is_there
    }

    fn while_any(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some(next) = self.peek().filter(|&next| wanted(next)) {
            word.push(next);
            self.next();
        }
        word
    }

    fn expected(&mut self, what: &str) -> Wrong {
        let given = self.peek().map_or_else(|| "the end of the file".to_owned(), |next| format!("{next:?}"));
        self.wrong(format!("expected {what}, given {given}"))
    }

    /// Fields up to `end`, which is taken, or up to the end of the text.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Vec<Field>, Wrong> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(format!("over {DEPTH_MAX} messages within each other")));
        }
        let mut fields = Vec::new();
        loop {
            self.skip();
            match self.peek() {
                None if end.is_none() => return Ok(fields),
                next if next.is_some() && next == end => {
                    self.next();
                    return Ok(fields);
                }
                Some(',' | ';') => drop(self.next()),
                _ => self.field(&mut fields, depth)?,
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<(), Wrong> {
        let at = self.at;
        let name = self.while_any(|next| next.is_ascii_alphanumeric() || next == '_');
        if name.is_empty() {
            return Err(self.expected("a field's name"));
        }
        self.skip();
        let has_colon = self.takes(':');
        self.skip();
        if !self.takes('[') {
            return self.value(fields, name, at, has_colon, depth);
        }
        self.skip();
        if self.takes(']') {
            return Ok(());
        }
        loop {
            self.skip();
            let at = self.at;
            self.value(fields, name.clone(), at, has_colon, depth)?;
            self.skip();
            if self.takes(']') {
                return Ok(());
            }
            if !self.takes(',') {
                return Err(self.expected("a comma or the list's end"));
            }
        }
    }

    fn value(
        &mut self,
        fields: &mut Vec<Field>,
        name: String,
        at: Place,
        has_colon: bool,
        depth: usize,
    ) -> Result<(), Wrong> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(self.wrong(format!("over {FIELDS_MAX} fields")));
        }
        let value = match self.peek() {
            Some(open @ ('{' | '<')) => {
                self.next();
                Value::Message(self.message(Some(if open == '{' { '}' } else { '>' }), depth + 1)?)
            }
            _ if !has_colon => return Err(self.expected(&format!("a colon or a message behind {name}"))),
            Some('"' | '\'') => Value::Text(self.text()?),
            Some(next) if next.is_ascii_digit() || matches!(next, '-' | '+' | '.') => {
                Value::Number(self.while_any(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '+' | '.')))
            }
            Some(next) if next.is_ascii_alphabetic() || next == '_' => {
                Value::Word(self.while_any(|next| next.is_ascii_alphanumeric() || next == '_'))
            }
            _ => return Err(self.expected(&format!("a value of {name}"))),
        };
        fields.push(Field { name, at, value });
        Ok(())
    }

    /// One text, or several behind each other, which are one.
    fn text(&mut self) -> Result<String, Wrong> {
        let at = self.at;
        let mut bytes = Vec::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            self.next();
            loop {
                match self.next() {
                    Some(next) if next == quote => break,
                    None | Some('\n') => return Err(Wrong { at, what: "a text has no end in its line".to_owned() }),
                    Some('\\') => self.escaped(&mut bytes)?,
                    Some(next) => bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            self.skip();
        }
        String::from_utf8(bytes).map_err(|_| Wrong { at, what: "a text is not UTF-8".to_owned() })
    }

    fn escaped(&mut self, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
        let at = self.at;
        let odd = || Wrong { at, what: "a backslash stands before nothing that it could mean".to_owned() };
        match self.next().ok_or_else(odd)? {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            plain @ ('"' | '\'' | '\\' | '?') => bytes.push(plain as u8),
            'x' => bytes.push(self.digits(16, 2).and_then(|(value, _)| u8::try_from(value).ok()).ok_or_else(odd)?),
            first @ '0'..='7' => {
                let more = self.digits(8, 2);
                let digits = more.map_or(0, |(_, count)| count);
                let first = (first as u32 - '0' as u32) << (3 * digits);
                bytes.push(u8::try_from(first + more.map_or(0, |(value, _)| value)).map_err(|_| odd())?);
            }
            _ => return Err(odd()),
        }
        Ok(())
    }

    /// Up to `most` digits. None if there is none.
    fn digits(&mut self, radix: u32, most: u32) -> Option<(u32, u32)> {
        let (mut value, mut count) = (0, 0);
        while count < most
            && let Some(digit) = self.peek().and_then(|next| next.to_digit(radix))
        {
            self.next();
            (value, count) = (value * radix + digit, count + 1);
        }
        (count > 0).then_some((value, count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOUND: &str = r#"
        # as Triton's examples write it
        name: "simple"  platform: 'onnx' "runtime_onnx";
        max_batch_size : 8,
        input [ { name: "a" data_type: TYPE_FP32 dims: [ -1, 16 ] }, < name: "b" dims: 3 dims: 0x4 > ]
        instance_group { count: 2 kind: KIND_CPU }
        version_policy: { specific: { versions: [ 1, 3 ] } }
        parameters { key: "x" value: { string_value: "tab\t, \x41, \101, é" } }
        empty: []
    "#;

    fn told(fields: &[Field]) -> String {
        let one = |field: &Field| {
            let value = match &field.value {
                Value::Text(text) => format!("{text:?}"),
                Value::Number(word) | Value::Word(word) => word.clone(),
                Value::Message(fields) => format!("{{{}}}", told(fields)),
            };
            format!("{}={value}", field.name)
        };
        fields.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn messages_lists_texts_and_comments_are_read() {
        let fields = parse(SOUND).unwrap();
        assert_eq!(
            told(&fields),
            "name=\"simple\" platform=\"onnxruntime_onnx\" max_batch_size=8 \
             input={name=\"a\" data_type=TYPE_FP32 dims=-1 dims=16} input={name=\"b\" dims=3 dims=0x4} \
             instance_group={count=2 kind=KIND_CPU} version_policy={specific={versions=1 versions=3}} \
             parameters={key=\"x\" value={string_value=\"tab\\t, A, A, é\"}}"
        );
        assert_eq!(fields[2].at, Place { line: 4, column: 9 });
        assert_eq!(fields[3].message().unwrap()[2].whole(), Ok(-1));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        for (text, line, column, says) in [
            ("name \"x\"", 1, 6, "expected a colon or a message behind name, given '\"'"),
            ("a: 1\nb: {", 2, 5, "expected a field's name, given the end of the file"),
            ("a: [1 2]", 1, 7, "expected a comma or the list's end, given '2'"),
            ("a: \"x\n\"", 1, 4, "a text has no end in its line"),
            ("a: \"\\q\"", 1, 6, "a backslash"),
            ("a: \"\\xff\"", 1, 4, "a text is not UTF-8"),
            ("\n }", 2, 2, "expected a field's name, given '}'"),
            ("a: é", 1, 4, "expected a value of a, given 'é'"),
            ("[a]: 1", 1, 1, "expected a field's name"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert_eq!((wrong.at.line, wrong.at.column), (line, column), "{text}: {}", wrong.what);
            assert!(wrong.what.contains(says), "{text}: {}", wrong.what);
        }
        assert!(parse(&"a{".repeat(100_000)).unwrap_err().what.contains("over 16 messages"));
        assert!(parse(&"a:1 ".repeat(5000)).unwrap_err().what.contains("over 4096 fields"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_never_panics(text in "\\PC*") {
            drop(parse(&text));
        }

        #[test]
        fn a_sound_text_with_anything_in_its_middle_is_read_or_refused(
            at in 0..SOUND.len(), gone in 0..20_usize, new in "[a-z0-9{}<>\\[\\]:,;#\"'\\\\ \n-]{0,8}",
        ) {
            let near = |at: usize| (0..=at.min(SOUND.len())).rev().find(|&at| SOUND.is_char_boundary(at)).unwrap();
            let (from, to) = (near(at), near(at + gone).max(near(at)));
            drop(parse(&format!("{}{new}{}", &SOUND[..from], &SOUND[to..])));
        }
    }
}
