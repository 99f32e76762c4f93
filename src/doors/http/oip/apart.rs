//! The arrays of a request taken out of its JSON, so that the many numbers in them are looked at once and the few words
//! around them are read with care.

use memchr::{memchr, memchr3};

/// A request without its arrays.
#[derive(Debug, PartialEq)]
pub(super) struct Apart<'a> {
    /// The JSON, in which the number of an array stands at its place.
    pub(super) rest: Vec<u8>,
    /// What stood behind `"data":`, with its brackets.
    pub(super) arrays: Vec<&'a [u8]>,
}

/// Takes `json` apart. None for what is written in an unusual way: whoever asked then reads it as a whole. The arrays are
/// not read, and whether the rest is JSON is not known.
pub(super) fn take_apart(json: &[u8]) -> Option<Apart<'_>> {
    let mut apart = Apart { rest: Vec::new(), arrays: Vec::new() };
    // Everything before this is in `rest`, or one of the arrays; everything before `at` has been looked at.
    let (mut kept, mut at) = (0, 0);
    while let Some(quote) = memchr(b'"', &json[at..]) {
        let start = at + quote + 1;
        let end = start + memchr(b'"', &json[start..])?;
        at = end + 1;
        if &json[start..end] != b"data" {
            continue;
        }
        let colon = skip_blanks(json, at);
        if json.get(colon) != Some(&b':') {
            continue;
        }
        let array = skip_blanks(json, colon + 1);
        let bytes = array_bytes(&json[array..])?;
        apart.rest.extend_from_slice(&json[kept..array]);
        apart.rest.extend_from_slice(apart.arrays.len().to_string().as_bytes());
        apart.arrays.push(&json[array..array + bytes]);
        (kept, at) = (array + bytes, array + bytes);
    }
    apart.rest.extend_from_slice(&json[kept..]);
    // A backslash writes quotes and keys in other ways than were looked for.
    (!apart.arrays.is_empty() && memchr(b'\\', &apart.rest).is_none()).then_some(apart)
}

fn skip_blanks(json: &[u8], from: usize) -> usize {
    let blanks = json[from..].iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
    from + blanks.count()
}

/// How long the array is at the beginning of `json`. None if something else is there, and if there are texts in it.
fn array_bytes(json: &[u8]) -> Option<usize> {
    if json.first() != Some(&b'[') {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        at += memchr3(b'[', b']', b'"', &json[at..])?;
        match json[at] {
            b'[' => depth += 1,
            b']' if depth == 1 => return Some(at + 1),
            b']' => depth -= 1,
            _ => return None,
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(json: &str) -> Option<(String, Vec<&str>)> {
        let Apart { rest, arrays } = take_apart(json.as_bytes())?;
        let arrays = arrays.into_iter().map(|array| std::str::from_utf8(array).unwrap());
        Some((String::from_utf8(rest).unwrap(), arrays.collect()))
    }

    #[test]
    fn arrays_behind_the_key_data_are_taken_out_and_numbered() {
        let json = r#"{"inputs":[{"name":"data","data":[[1,2],[3]]},{ "data" : [] , "shape":[0]}]}"#;
        let (words, arrays) = rest(json).unwrap();
        assert_eq!(words, r#"{"inputs":[{"name":"data","data":0},{ "data" : 1 , "shape":[0]}]}"#);
        assert_eq!(arrays, ["[[1,2],[3]]", "[]"]);
    }

    #[test]
    fn what_is_unusual_is_left_alone() {
        for json in [
            "",
            "\"",
            "{}",
            r#"{"data":5}"#,
            r#"{"data":"[1]"}"#,
            r#"{"data":["1"]}"#,
            r#"{"data":[1"#,
            r#"{"data":"#,
            r#"{"data":]"#,
            r#"{"name":"a\"b","data":[1]}"#,
            r#"{"d\u0061ta":[1],"data":[1]}"#,
        ] {
            assert_eq!(rest(json), None, "{json}");
        }
    }
}
