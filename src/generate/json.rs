//! Which bytes may come next if the text is to be a JSON object (RFC 8259), or any value.
//!
//! A machine that reads byte by byte; what stands open is a bit each, so that a state is copied to try a token on it. Stricter than the
//! grammar where readers are: strings are UTF-8, and halves of surrogate pairs come in pairs. Objects and lists lie at most 64 deep, and at
//! most 32 bytes of white space stand in a row: a model may otherwise write spaces until its tokens are spent. Numbers have at most 40
//! bytes and two digits of an exponent, so that each is one that 64 bits can hold.

const DEPTH_MAX: u8 = 64;
const SPACES_MAX: u8 = 32;
const NUMBER_BYTES_MAX: u8 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the object.
    Start,
    /// Behind `{`: a name or the end.
    FirstName,
    /// Behind a comma in an object.
    Name,
    /// Behind a name.
    Colon,
    Value,
    /// Behind `[`: a value or the end.
    FirstItem,
    /// Behind a value: a comma or an end.
    Behind,
    Text(Text),
    Number(Number),
    /// What is left of `true`, `false` or `null`.
    Word(&'static [u8]),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Escaped,
    /// Digits of `\u` that are missing, and the number so far; whether it must be a second half.
    Hex {
        missing: u8,
        number: u16,
        second: bool,
    },
    /// A first half was read: `\` must follow, and `u` behind it.
    Half,
    HalfEscaped,
    /// Bytes of a character that are missing, and the bounds of the next one.
    Wide {
        missing: u8,
        least: u8,
        most: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigit,
    ExponentDigits,
}

/// How far a text is on its way to a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Json {
    state: State,
    /// True for objects, the innermost lowest.
    open: u64,
    depth: u8,
    is_name: bool,
    /// Bytes of white space, or of a number, in a row.
    run: u8,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { state: State::Start, open: 0, depth: 0, is_name: false, run: 0 }
    }

    /// The same of any value. One that is no object or list has no end of its own.
    pub(super) fn of_any_value() -> Self {
        Self { state: State::Value, ..Self::new() }
    }

    /// Whether the object is whole.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on; None if these bytes may not stand here.
    pub(super) fn read(mut self, bytes: &[u8]) -> Option<Self> {
        for &byte in bytes {
            self.step(byte)?;
        }
        Some(self)
    }

    fn step(&mut self, byte: u8) -> Option<()> {
        let in_text = matches!(self.state, State::Text(_));
        if !in_text && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return self.space();
        }
        let run = if matches!(self.state, State::Number(_)) { self.run } else { 0 };
        self.run = 0;
        self.state = match self.state {
            State::Start if byte == b'{' => self.enter(true)?,
            State::FirstName if byte == b'}' => self.leave(true)?,
            State::FirstName | State::Name if byte == b'"' => self.text(true),
            State::Colon if byte == b':' => State::Value,
            State::FirstItem if byte == b']' => self.leave(false)?,
            State::FirstItem | State::Value => self.value(byte)?,
            State::Behind => self.behind(byte)?,
            State::Text(text) => self.in_text(text, byte)?,
            State::Number(number) => match number.next(byte) {
                // What cannot end yet needs room for its end.
                Some(number) if run + if number.may_end() { 0 } else { 3 } < NUMBER_BYTES_MAX => {
                    self.run = run + 1;
                    State::Number(number)
                }
                Some(_) => return None,
                None if number.may_end() => self.behind(byte)?,
                None => return None,
            },
            State::Word(left) => match left.split_first() {
                Some((&expected, [])) if byte == expected => State::Behind,
                Some((&expected, rest)) if byte == expected => State::Word(rest),
                _ => return None,
            },
            State::Start | State::FirstName | State::Name | State::Colon | State::Done => return None,
        };
        Some(())
    }

    fn space(&mut self) -> Option<()> {
        match self.state {
            State::Number(number) if number.may_end() => (self.state, self.run) = (State::Behind, 0),
            State::Number(_) | State::Word(_) | State::Done => return None,
            _ => {}
        }
        self.run += 1;
        (self.run <= SPACES_MAX).then_some(())
    }

    fn enter(&mut self, is_object: bool) -> Option<State> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        self.open = self.open << 1 | u64::from(is_object);
        Some(if is_object { State::FirstName } else { State::FirstItem })
    }

    fn leave(&mut self, is_object: bool) -> Option<State> {
        if (self.open & 1 == 1) != is_object {
            return None;
        }
        self.open >>= 1;
        self.depth -= 1;
        Some(if self.depth == 0 { State::Done } else { State::Behind })
    }

    fn text(&mut self, is_name: bool) -> State {
        self.is_name = is_name;
        State::Text(Text::Plain)
    }

    fn value(&mut self, byte: u8) -> Option<State> {
        Some(match byte {
            b'{' => self.enter(true)?,
            b'[' => self.enter(false)?,
            b'"' => self.text(false),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Whole),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            _ => return None,
        })
    }

    fn behind(&mut self, byte: u8) -> Option<State> {
        if self.depth == 0 {
            return None;
        }
        match byte {
            b',' if self.open & 1 == 1 => Some(State::Name),
            b',' => Some(State::Value),
            b'}' => self.leave(true),
            b']' => self.leave(false),
            _ => None,
        }
    }

    fn in_text(&self, text: Text, byte: u8) -> Option<State> {
        let wide = |missing, least, most| Text::Wide { missing, least, most };
        Some(State::Text(match text {
            Text::Plain => match byte {
                b'"' => return Some(if self.is_name { State::Colon } else { State::Behind }),
                b'\\' => Text::Escaped,
                b' '..=0x7f => Text::Plain,
                // Table 3-7 of the Unicode standard.
                0xc2..=0xdf => wide(1, 0x80, 0xbf),
                0xe0 => wide(2, 0xa0, 0xbf),
                0xed => wide(2, 0x80, 0x9f),
                0xe1..=0xef => wide(2, 0x80, 0xbf),
                0xf0 => wide(3, 0x90, 0xbf),
                0xf1..=0xf3 => wide(3, 0x80, 0xbf),
                0xf4 => wide(3, 0x80, 0x8f),
                _ => return None,
            },
            Text::Wide { missing, least, most } if (least..=most).contains(&byte) => match missing {
                1 => Text::Plain,
                missing => wide(missing - 1, 0x80, 0xbf),
            },
            Text::Escaped => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Text::Plain,
                b'u' => Text::Hex { missing: 4, number: 0, second: false },
                _ => return None,
            },
            Text::Half if byte == b'\\' => Text::HalfEscaped,
            Text::HalfEscaped if byte == b'u' => Text::Hex { missing: 4, number: 0, second: true },
            Text::Hex { missing, number, second } => {
                let digit = char::from(byte).to_digit(16)?;
                Self::hex(missing - 1, number << 4 | digit as u16, second)?
            }
            Text::Wide { .. } | Text::Half | Text::HalfEscaped => return None,
        }))
    }

    /// Behind a digit of `\u`. Refused as soon as no digit that may follow makes it right: a token must not lead into a corner.
    fn hex(missing: u8, number: u16, second: bool) -> Option<Text> {
        let read = 4 - missing;
        let is_second = match read {
            1 => number == 0xd,
            2 => (0xdc..=0xdf).contains(&number),
            _ => (0xdc..=0xdf).contains(&(number >> (4 * (read - 2)))),
        };
        let is_first = read >= 2 && (0xd8..=0xdb).contains(&(number >> (4 * (read - 2))));
        if second && !is_second || !second && read >= 2 && is_second {
            return None;
        }
        Some(match missing {
            0 if is_first => Text::Half,
            0 => Text::Plain,
            missing => Text::Hex { missing, number, second },
        })
    }
}

impl Number {
    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigit | Self::ExponentDigits)
    }

    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign, b'0'..=b'9') => Self::ExponentDigit,
            (Self::ExponentDigit, b'0'..=b'9') => Self::ExponentDigits,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn ends(text: &[u8]) -> bool {
        Json::new().read(text).is_some_and(|json| json.is_done())
    }

    #[test]
    fn objects_are_read_to_their_end_and_nothing_else_is_one() {
        for text in [
            r#"{}"#,
            r#" { "a" : [ 1 , -0.5e+3 , true , false , null , "x" , {} , [] ] } "#.trim_end(),
            r#"{"\u00e9\n\"\\": "\ud83e\udd80 é☃🦀", "b": {"c": [[[]]]}}"#,
            r#"{"n": [0, -1, 10.25, 1E5, 2e-7]}"#,
        ] {
            assert!(ends(text.as_bytes()), "{text}");
            for cut in 0..text.len() {
                let part = Json::new().read(&text.as_bytes()[..cut]);
                assert!(part.is_some_and(|json| !json.is_done()), "{text} {cut}");
            }
        }
        for text in [
            r#"[]"#,
            r#""a""#,
            r#"1"#,
            r#"{,}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":+1}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\ud83e"}"#,
            r#"{"a":"\ude00"}"#,
            r#"{"a":[}"#,
            r#"{"a":1]"#,
            r#"{} "#,
            r#"{"a":"\ud83e\u0041"}"#,
            r#"{a:1}"#,
            r#"{"a" "b"}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            "{\"a\":\"\n\"}",
        ] {
            assert!(!ends(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn depth_white_space_and_numbers_have_bounds() {
        let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(ends(deep(64).as_bytes()) && !ends(deep(65).as_bytes()));
        let wide = |spaces: usize| format!("{{{}}}", " ".repeat(spaces));
        assert!(ends(wide(32).as_bytes()) && !ends(wide(33).as_bytes()));
        let long = |digits: usize| format!("{{\"a\":-{}}}", "9".repeat(digits));
        assert!(ends(long(40).as_bytes()) && !ends(long(41).as_bytes()));
        assert!(ends(b"{\"a\":1e99}") && !ends(b"{\"a\":1e100}"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1e60_f64..1e60).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_as_an_object_may_be_written(value in proptest::collection::btree_map(".*", json(), 0..4)) {
            let value = Value::Object(value.into_iter().collect());
            prop_assert!(ends(value.to_string().as_bytes()));
            prop_assert!(ends(serde_json::to_string_pretty(&value).unwrap().as_bytes()));
        }

        #[test]
        fn there_is_always_a_way_on(choices in proptest::collection::vec(any::<u8>(), 400)) {
            let mut json = Json::new();
            for choice in choices {
                if json.is_done() {
                    break;
                }
                let next: Vec<Json> = (0..=255).filter_map(|byte| json.read(&[byte])).collect();
                prop_assert!(!next.is_empty(), "{json:?}");
                json = next[usize::from(choice) % next.len()];
            }
        }

        #[test]
        fn what_is_read_to_its_end_is_json_for_others_too(bytes in proptest::collection::vec(
            proptest::sample::select(b"{}[]\",:0123eE.+-truefalsn\\uDdCc8 \xc3\xa9\xed\xa0\xf0\x9f".to_vec()), 0..24)) {
            let text = [b"{\"a\":", bytes.as_slice(), b"}"].concat();
            if ends(&text) {
                prop_assert!(serde_json::from_slice::<Value>(&text).is_ok_and(|value| value.is_object()), "{:?}", text);
            }
        }
    }
}
