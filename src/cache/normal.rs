//! The normal form of a JSON text: the order of members and the space between tokens make no difference, and everything
//! else does. Numbers stay as they are written, because `1.0` and `1` may not be the same to whoever answers.
//!
//! No tree is built. Values are written to one buffer as they are read; an object's members are put in order when it
//! ends. A nested object longer than a digest is then replaced by its digest, so that no byte is moved more than
//! twice however deep the text is.

use sha2::{Digest as _, Sha256};

/// Deepest nesting.
const MAX_DEPTH: usize = 128;
/// From this length on a nested object is replaced by its digest.
const MAX_INNER_BYTES: usize = 64;
/// Stands before a digest; no JSON text holds it.
const DIGEST_MARK: u8 = 1;

/// Why a text has no normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Abnormal {
    /// It is not JSON in UTF-8, or its outermost value is no object.
    #[error("it is not a JSON object")]
    Json,
    /// Two members of one object have the same name: which of them counts is up to whoever reads it.
    #[error("an object has two members of one name")]
    Doubled,
    /// Over 128 levels.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// One member of the object that is being read.
struct Member {
    /// Where its name begins in the buffer, and where it ends.
    name: (usize, usize),
    /// Where its value ends.
    end: usize,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    spare: Vec<u8>,
    members: Vec<Member>,
    /// Names of the outermost object that make no difference.
    left_out: &'a [String],
}

/// The digest of `text`'s normal form, without the members of the outermost object that `left_out` names.
pub(super) fn digest(text: &[u8], left_out: &[String]) -> Result<[u8; 32], Abnormal> {
    std::str::from_utf8(text).map_err(|_| Abnormal::Json)?;
    let out = Vec::with_capacity(text.len());
    let mut reader = Reader { text, at: 0, out, spare: Vec::new(), members: Vec::new(), left_out };
    reader.skip_space();
    if reader.peek() != Some(b'{') {
        return Err(Abnormal::Json);
    }
    reader.object(0)?;
    reader.skip_space();
    if reader.at != text.len() {
        return Err(Abnormal::Json);
    }
    Ok(Sha256::digest(&reader.out).into())
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Abnormal> {
        if self.peek() != Some(byte) {
            return Err(Abnormal::Json);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), Abnormal> {
        if depth > MAX_DEPTH {
            return Err(Abnormal::Depth);
        }
        match self.peek().ok_or(Abnormal::Json)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Abnormal> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Abnormal::Json);
        }
        self.at += word.len();
        self.out.extend_from_slice(word);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Abnormal> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == from { Err(Abnormal::Json) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Abnormal> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.out.extend_from_slice(&self.text[from..self.at]);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Abnormal> {
        self.expect(b'[')?;
        self.out.push(b'[');
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.out.push(b']');
            return Ok(());
        }
        loop {
            self.skip_space();
            self.value(depth + 1)?;
            self.skip_space();
            let byte = self.peek().ok_or(Abnormal::Json)?;
            self.at += 1;
            self.out.push(byte);
            match byte {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(Abnormal::Json),
            }
        }
    }

    /// A string as it is, or decoded and written anew if it has escapes.
    fn string(&mut self) -> Result<(), Abnormal> {
        self.expect(b'"')?;
        self.out.push(b'"');
        loop {
            let rest = &self.text[self.at..];
            let end = memchr::memchr2(b'"', b'\\', rest).ok_or(Abnormal::Json)?;
            // Without a way out of the loop the compiler looks at many bytes at a time.
            if rest[..end].iter().fold(false, |is_control, &byte| is_control | (byte < 0x20)) {
                return Err(Abnormal::Json);
            }
            self.out.extend_from_slice(&rest[..end]);
            self.at += end + 1;
            if rest[end] == b'"' {
                break;
            }
            self.escape()?;
        }
        self.out.push(b'"');
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Abnormal> {
        let byte = self.peek().ok_or(Abnormal::Json)?;
        self.at += 1;
        let decoded = match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(Abnormal::Json),
        };
        match decoded {
            '"' | '\\' => self.out.extend([b'\\', decoded as u8]),
            // No control character stands in a string as it is, so this cannot be taken for another.
            control if control < ' ' => self.out.extend([b'\\', control as u8]),
            other => self.out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        Ok(())
    }

    fn unicode(&mut self) -> Result<char, Abnormal> {
        let high = self.hex4()?;
        let code = match high {
            0xD800..=0xDBFF => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                match self.hex4()? {
                    low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    _ => return Err(Abnormal::Json),
                }
            }
            other => other,
        };
        // Half a pair is no character: what it becomes is up to whoever reads it.
        char::from_u32(code).ok_or(Abnormal::Json)
    }

    fn hex4(&mut self) -> Result<u32, Abnormal> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Abnormal::Json)?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn object(&mut self, depth: usize) -> Result<(), Abnormal> {
        self.expect(b'{')?;
        let (begin, first) = (self.out.len(), self.members.len());
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.skip_space();
                let from = self.out.len();
                self.string()?;
                let name = (from, self.out.len());
                self.skip_space();
                self.expect(b':')?;
                self.skip_space();
                self.out.push(b':');
                self.value(depth + 1)?;
                self.member(depth, name);
                self.skip_space();
                let byte = self.peek().ok_or(Abnormal::Json)?;
                self.at += 1;
                match byte {
                    b',' => {}
                    b'}' => break,
                    _ => return Err(Abnormal::Json),
                }
            }
        }
        self.in_order(begin, first)?;
        if depth > 0 && self.out.len() - begin > MAX_INNER_BYTES {
            let digest: [u8; 32] = Sha256::digest(&self.out[begin..]).into();
            self.out.truncate(begin);
            self.out.push(DIGEST_MARK);
            self.out.extend_from_slice(&digest);
        }
        Ok(())
    }

    /// Takes note of the member whose name and value were just written, or takes them back.
    fn member(&mut self, depth: usize, name: (usize, usize)) {
        let quoted = &self.out[name.0 + 1..name.1 - 1];
        if depth == 0 && self.left_out.iter().any(|left_out| left_out.as_bytes() == quoted) {
            self.out.truncate(name.0);
        } else {
            self.members.push(Member { name, end: self.out.len() });
        }
    }

    /// Puts the members from `first` on, which are all of the buffer from `begin` on, in the order of their names.
    fn in_order(&mut self, begin: usize, first: usize) -> Result<(), Abnormal> {
        let out = &self.out;
        let name = |member: &Member| &out[member.name.0..member.name.1];
        let members = &mut self.members[first..];
        members.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        if members.windows(2).any(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Abnormal::Doubled);
        }
        self.spare.clear();
        for (at, member) in members.iter().enumerate() {
            self.spare.push(if at == 0 { b'{' } else { b',' });
            self.spare.extend_from_slice(&out[member.name.0..member.end]);
        }
        if members.is_empty() {
            self.spare.push(b'{');
        }
        self.spare.push(b'}');
        self.out.truncate(begin);
        self.out.extend_from_slice(&self.spare);
        self.members.truncate(first);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn of(text: &str) -> [u8; 32] {
        digest(text.as_bytes(), &[]).unwrap()
    }

    fn refused(text: &str) -> Abnormal {
        digest(text.as_bytes(), &[]).unwrap_err()
    }

    #[test]
    fn order_of_members_space_and_escapes_make_no_difference() {
        let one = r#"{"model":"gpt","messages":[{"role":"user","content":"a\nb / ü 😀"}],"n":1}"#;
        let other = "\n{ \"n\" : 1,\t\"messages\": [ {\"content\":\"a\\u000ab \\/ \\u00FC \\ud83d\\ude00\", \"role\":\"user\"} ], \
                     \"mod\\u0065l\": \"gpt\" }\r\n";
        assert_eq!(of(one), of(other));
        assert_eq!(of("{}"), of(" { } "));
        assert_eq!(of(r#"{"a":[]}"#), of(r#"{"a":[ ]}"#));
    }

    #[test]
    fn everything_else_makes_a_difference() {
        let texts = [
            r#"{}"#,
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e0}"#,
            r#"{"a":-1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[[1]]}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":null}"#,
            r#"{"a":true}"#,
            r#"{"a":false}"#,
            r#"{"a":""}"#,
            r#"{"b":1}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":"n"}"#,
            r#"{"a":"\n"}"#,
            r#"{"a":"\\n"}"#,
            r#"{"a":"x","b":"y"}"#,
            r#"{"a":"x\",\"b\":\"y"}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"a":{"b":1,"c":2}}"#,
        ];
        let digests: std::collections::HashSet<_> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(digests.len(), texts.len());
    }

    #[test]
    fn only_what_the_policy_leaves_out_is_left_out_and_only_outside() {
        let left_out = ["user".to_owned(), "metadata".to_owned()];
        let of = |text: &str| digest(text.as_bytes(), &left_out).unwrap();
        assert_eq!(of(r#"{"a":1,"user":"x"}"#), of(r#"{"metadata":{"a":[1,{"b":2}]},"a":1}"#));
        assert_eq!(of(r#"{"us\u0065r":"x"}"#), of("{}"));
        assert_ne!(of(r#"{"a":{"user":"x"}}"#), of(r#"{"a":{"user":"y"}}"#));
        assert_ne!(of(r#"{"user ":1}"#), of("{}"));
    }

    #[test]
    fn what_is_ambiguous_or_no_json_has_no_normal_form() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{}{}",
            "{} x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":nul}",
            "{\"a\":truex}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\ud800\\u0041\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"",
            "{\"a",
            "{a:1}",
            "{'a':1}",
            "\u{feff}{}",
            "{\"a\":NaN}",
            "{\"a\":\"\\",
        ] {
            assert_eq!(refused(text), Abnormal::Json, "{text:?}");
        }
        assert_eq!(digest(b"{\"a\":\"\xff\"}", &[]), Err(Abnormal::Json));
        assert_eq!(refused(r#"{"a":1,"\u0061":2}"#), Abnormal::Doubled);
        assert_eq!(refused(r#"{"b":{"a":1,"a":1}}"#), Abnormal::Doubled);
    }

    #[test]
    fn deep_texts_are_refused_before_the_stack_ends() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(refused(&nested(1_000_000)), Abnormal::Depth);
        assert_eq!(refused(&format!("{{\"a\":{}", "{\"a\":".repeat(1_000_000))), Abnormal::Depth);
        assert!(digest(nested(100).as_bytes(), &[]).is_ok());
    }

    #[test]
    fn a_long_inner_object_is_as_distinct_as_a_short_one() {
        let long = |last: &str| format!(r#"{{"a":{{"b":"{}{last}","c":1}},"d":2}}"#, "x".repeat(500));
        assert_eq!(of(&long("y")), of(&format!(r#"{{"d":2,"a":{{"c":1,"b":"{}y"}}}}"#, "x".repeat(500))));
        assert_ne!(of(&long("y")), of(&long("z")));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-zü\\\\\"\n\u{1}/]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-e\"\\\\]{0,3}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Written with the members backwards and with space everywhere.
    fn backwards(value: &Value, text: &mut String) {
        match value {
            Value::Array(values) => {
                text.push_str("[ ");
                for (at, value) in values.iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { " ,\n" });
                    backwards(value, text);
                }
                text.push(']');
            }
            Value::Object(members) => {
                text.push_str("{\t");
                for (at, (name, value)) in members.iter().rev().enumerate() {
                    text.push_str(if at == 0 { "" } else { " , " });
                    text.push_str(&format!("{} : ", Value::from(name.as_str())));
                    backwards(value, text);
                }
                text.push_str(" }");
            }
            leaf => text.push_str(&leaf.to_string()),
        }
    }

    proptest! {
        #[test]
        fn two_texts_have_one_form_if_and_only_if_they_say_the_same(one in json(), other in json()) {
            let (one, other) = (serde_json::json!({"v": one}), serde_json::json!({"v": other}));
            let mut text = String::new();
            backwards(&one, &mut text);
            prop_assert_eq!(of(&one.to_string()), of(&text));
            prop_assert_eq!(of(&one.to_string()) == of(&other.to_string()), one == other);
        }

        #[test]
        fn whatever_has_a_normal_form_is_json(text in "[{}\\[\\]\",:0-9a-e\\\\ u.-]{0,40}") {
            if digest(text.as_bytes(), &[]).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = digest(&bytes, &[]);
        }
    }
}
