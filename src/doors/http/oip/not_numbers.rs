//! Words such as `NaN` where a request's JSON should have a number, which JSON has no number for: which tensor has them. Python's
//! `json` writes them unless it is told not to.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What is wrong with a request that is no JSON, if it is that. Takes a copy: for requests that are refused anyway.
pub(super) fn find(json: &[u8]) -> Option<String> {
    let (sound, words) = without_words(json);
    let first = words.first()?;
    let request: Request<'_> = serde_json::from_slice(&sound).ok()?;
    let told = request.inputs.iter().find_map(|input| {
        let data = input.data?.get();
        // It lies in `sound`, whose bytes are where those of `json` are.
        let from = (data.as_ptr() as usize).checked_sub(sound.as_ptr() as usize)?;
        let (start, end) = *words.iter().find(|(start, _)| (from..from + data.len()).contains(start))?;
        // Elements are apart by one comma each, however they are nested.
        let element = json[from..start].iter().filter(|&&byte| byte == b',').count();
        Some((input.name.as_ref(), element, String::from_utf8_lossy(&json[start..end]).into_owned()))
    });
    let text = String::from_utf8_lossy(&json[first.0..first.1]);
    Some(match told {
        Some((name, element, word)) => {
            format!("input {name:?}: element {element} is {word}, which is no number in JSON; expected a finite number")
        }
        None => format!("not an inference request: {text} at byte {} is no number in JSON", first.0),
    })
}

/// The same bytes with 0 in the place of each such word, and where these are, from and up to.
fn without_words(json: &[u8]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut sound, mut words) = (json.to_vec(), Vec::new());
    let (mut at, mut in_text) = (0, false);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'-' | b'a'..=b'z' | b'A'..=b'Z' if !in_text => {
                let letters = at + usize::from(byte == b'-');
                let end = letters + json[letters..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                let word = &json[letters..end];
                if [&b"nan"[..], b"inf", b"infinity"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
                    sound[at..end].fill(b' ');
                    sound[at] = b'0';
                    words.push((at, end));
                }
                at = end.max(at + 1);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    (sound, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tensor_the_element_and_the_word_are_named() {
        let request = |b: &str| {
            format!(
                r#"{{"id":"NaN","inputs":[{{"name":"a","data":[1,2]}},{{"name":"b\"NaN","shape":[2,2],"data":{b}}}]}}"#
            )
        };
        for (data, says) in [
            (
                "[[0,1],[2,NaN]]",
                "input \"b\\\"NaN\": element 3 is NaN, which is no number in JSON; expected a finite number",
            ),
            ("[1,-Infinity,NaN]", "element 1 is -Infinity"),
            ("[nan]", "element 0 is nan"),
        ] {
            let told = find(request(data).as_bytes()).unwrap();
            assert!(told.contains(says), "{told}");
        }
        assert_eq!(find(request("[1,2]").as_bytes()), None);
        assert_eq!(find(request("[nand]").as_bytes()), None);
        let told = find(br#"{"inputs":[],"timeout":NaN}"#).unwrap();
        assert_eq!(told, "not an inference request: NaN at byte 23 is no number in JSON");
    }

    #[test]
    fn what_is_wrong_otherwise_is_left_to_others() {
        for text in
            ["", "NaN", "[NaN", "{\"inputs\":[{\"name\":\"a\",\"data\":[NaN]", "-", "\"\\", "{\"inputs\":7,\"x\":NaN}"]
        {
            assert_eq!(find(text.as_bytes()), None, "{text}");
        }
    }
}
