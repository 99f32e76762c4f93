//! A body to instances, by its content type and by what the model takes.

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::multipart;
use crate::doors::http::problem::Problem;
use crate::flows::predict::{Content, Kind, Source, Words};

/// How a body is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The one source itself.
    Plain,
    Json,
    /// With its boundary.
    Multipart(String),
}

type Instances = Vec<Vec<Content>>;

const JSON: &str = "application/json";
const MULTIPART: &str = "multipart/form-data";

/// Types under which a source's bytes may come as they are.
fn plain_types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Image => &["image/jpeg", "image/png", "image/jpg", "application/octet-stream"],
        Kind::Audio => &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "application/octet-stream"],
        Kind::Text => &["text/plain"],
        Kind::Record | Kind::Series => &[],
    }
}

impl Form {
    /// By the content type, or 415 with those that the model takes.
    pub(super) fn of(headers: &HeaderMap, sources: &[Source]) -> Result<Self, Problem> {
        let whole = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
        let only = if let [only] = sources { Some(only.kind) } else { None };
        let plain = only.map_or(&[][..], plain_types);
        let Some(whole) = whole else {
            return Ok(if plain.is_empty() { Self::Json } else { Self::Plain });
        };
        let kind = whole.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if kind == JSON {
            return Ok(Self::Json);
        }
        if kind == MULTIPART {
            return multipart::boundary(whole).map(Self::Multipart).ok_or_else(|| {
                Problem::new(StatusCode::BAD_REQUEST, "bad_request", "multipart/form-data without a boundary")
                    .hint("with curl: -F image=@FILE, and no content-type of your own")
            });
        }
        if plain.contains(&kind.as_str()) {
            return Ok(Self::Plain);
        }
        let takes: Vec<&str> = plain.iter().copied().chain([JSON, MULTIPART]).collect();
        let names: Vec<String> = sources.iter().map(|source| format!("{} ({})", source.name, source.kind)).collect();
        let message = format!("{kind:?} is not what the model takes: {}", names.join(", "));
        let hint = format!("send {}; with curl: -H 'content-type: {}'", takes.join(", "), takes[0]);
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message).hint(hint))
    }

    /// What the body holds: at least one instance, at most `most`.
    pub(super) fn instances(&self, body: &Bytes, sources: &[Source], most: usize) -> Result<Instances, Problem> {
        let instances = match self {
            Self::Plain => vec![vec![file(body.clone(), &sources[0])?]],
            Self::Json => json(body, sources, most)?,
            Self::Multipart(boundary) => parts(body, boundary, sources, most)?,
        };
        match instances.len() {
            0 => Err(wrong("the body has no instance in it")),
            count if count > most => Err(too_many(count, most)),
            _ => Ok(instances),
        }
    }
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "content", message)
        .hint("[predict] in the model's manifest says what it takes; docs/predict.md shows the forms")
}

fn too_many(count: usize, most: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("the request has {count} instances, the most is {most}"),
    )
    .hint("send them in parts; `instances_max` in [predict] is the bound")
}

/// Bytes of a source as they are.
fn file(bytes: Bytes, source: &Source) -> Result<Content, Problem> {
    match source.kind {
        Kind::Image | Kind::Audio => Ok(Content::File(bytes)),
        Kind::Text => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => Ok(Content::Words(Words { text, pair: None })),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                Err(wrong(format!("{}: expected UTF-8, given another byte at {at}", source.name)))
            }
        },
        Kind::Record | Kind::Series => read_json(&bytes, &source.name).map(Content::Json),
    }
}

fn read_json(bytes: &[u8], what: &str) -> Result<Value, Problem> {
    serde_json::from_slice(bytes).map_err(|error| wrong(format!("{what}: expected JSON, given {error}")))
}

fn json(body: &[u8], sources: &[Source], most: usize) -> Result<Instances, Problem> {
    let mut whole = read_json(body, "the body")?;
    // A single key, so that a record may have a field of that name.
    let listed = match &mut whole {
        Value::Object(fields) if fields.len() == 1 => match fields.get_mut("instances") {
            Some(Value::Array(list)) => Some(std::mem::take(list)),
            _ => None,
        },
        _ => None,
    };
    let given = listed.unwrap_or_else(|| vec![whole]);
    if given.len() > most {
        return Err(too_many(given.len(), most));
    }
    let several = given.len() > 1;
    let instance = |(at, mut value): (usize, Value)| {
        let place = |source: &Source| if several { format!("{} {at}", source.name) } else { source.name.clone() };
        if let [only] = sources {
            // `{"image": ...}` is the same as what stands in it.
            let named = match &mut value {
                Value::Object(fields) if !is_json(only.kind) && fields.len() == 1 => {
                    fields.get_mut(&only.name).map(Value::take)
                }
                _ => None,
            };
            let inner = match named {
                // A text's own key is `text`, too.
                Some(named @ (Value::String(_) | Value::Object(_))) => named,
                Some(other) => return Err(wrong(format!("{}: expected a {}, given {other}", place(only), only.kind))),
                None => value,
            };
            return Ok(vec![item(inner, only, &place(only))?]);
        }
        let Value::Object(mut fields) = value else {
            let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
            return Err(wrong(format!("instance {at}: expected an object with {}", names.join(", "))));
        };
        let contents = sources.iter().map(|source| match fields.remove(&source.name) {
            Some(value) => item(value, source, &place(source)),
            None => Err(wrong(format!("instance {at}: expected {:?} (a {}), given nothing", source.name, source.kind))),
        });
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        match fields.keys().next() {
            None => Ok(contents),
            Some(odd) => {
                let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
                Err(wrong(format!("instance {at}: expected {}, given {odd:?}", names.join(", "))))
            }
        }
    };
    given.into_iter().enumerate().map(instance).collect()
}

fn is_json(kind: Kind) -> bool {
    matches!(kind, Kind::Record | Kind::Series)
}

/// One source within JSON.
fn item(value: Value, source: &Source, place: &str) -> Result<Content, Problem> {
    match (source.kind, value) {
        (Kind::Record | Kind::Series, value) => Ok(Content::Json(value)),
        (Kind::Text, Value::String(text)) => Ok(Content::Words(Words { text, pair: None })),
        (Kind::Text, Value::Object(mut fields)) => {
            let mut take = |key: &str| match fields.remove(key) {
                Some(Value::String(text)) => Ok(Some(text)),
                None => Ok(None),
                Some(_) => Err(wrong(format!("{place}: expected a text in {key:?}"))),
            };
            let (text, pair) = (take("text")?, take("pair")?);
            match (text, fields.keys().next()) {
                (Some(text), None) => Ok(Content::Words(Words { text, pair })),
                (None, _) => Err(wrong(format!("{place}: expected a text, or an object with \"text\" and \"pair\""))),
                (_, Some(odd)) => Err(wrong(format!("{place}: expected \"text\" and \"pair\", given {odd:?}"))),
            }
        }
        (Kind::Image | Kind::Audio, Value::String(text)) => decoded(&text, place),
        (Kind::Image | Kind::Audio, Value::Object(fields)) => match (fields.get("b64"), fields.len()) {
            (Some(Value::String(text)), 1) => decoded(text, place),
            _ => Err(wrong(format!("{place}: expected {{\"b64\": \"...\"}} with the file in base64"))),
        },
        (kind, _) => Err(wrong(format!(
            "{place}: expected a {kind}, as a text{}",
            if kind == Kind::Text { "" } else { " in base64" }
        ))),
    }
}

fn decoded(text: &str, place: &str) -> Result<Content, Problem> {
    // A browser's data URL has its type in front.
    let text = match text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((_, rest)) => rest,
        None => text,
    };
    let bytes = STANDARD.decode(text).map_err(|error| wrong(format!("{place}: expected base64, given {error}")))?;
    Ok(Content::File(bytes.into()))
}

/// Parts by the sources' names; several of a name are several instances.
fn parts(body: &Bytes, boundary: &str, sources: &[Source], most: usize) -> Result<Instances, Problem> {
    let found = multipart::parts(body, boundary, most.saturating_mul(sources.len()))
        .map_err(|message| Problem::new(StatusCode::BAD_REQUEST, "bad_request", message))?;
    let names = || sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut by_source: Vec<Vec<Bytes>> = vec![Vec::new(); sources.len()];
    for part in found {
        match sources.iter().position(|source| source.name == part.name) {
            Some(at) => by_source[at].push(part.bytes),
            None => return Err(wrong(format!("expected parts named {}, given {:?}", names(), part.name))),
        }
    }
    let count = by_source[0].len();
    if let Some(at) = by_source.iter().position(|parts| parts.len() != count || parts.is_empty()) {
        let given = by_source[at].len();
        return Err(wrong(format!(
            "expected as many parts of {} each, given {given} of {}",
            names(),
            sources[at].name
        )));
    }
    let instance =
        |at: usize| sources.iter().zip(&by_source).map(|(source, parts)| file(parts[at].clone(), source)).collect();
    (0..count).map(instance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: Kind) -> Source {
        Source { name: kind.to_string(), kind }
    }

    fn headers(kind: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        headers
    }

    fn read(kind: &str, body: &str, sources: &[Source]) -> Result<Instances, String> {
        let form =
            Form::of(&headers(kind), sources).map_err(|problem| format!("{}; {}", problem.message, problem.hint))?;
        form.instances(&Bytes::copy_from_slice(body.as_bytes()), sources, 3).map_err(|problem| problem.message)
    }

    #[test]
    fn a_source_comes_as_it_is_or_in_json_or_in_parts() {
        let picture = Content::File(Bytes::from_static(b"abc"));
        let image = [source(Kind::Image)];
        let parts = "--x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\nabc\r\n--x--";
        for (kind, body) in [
            ("image/png", "abc"),
            ("", "abc"),
            ("application/json", r#"{"b64":"YWJj"}"#),
            ("application/json; charset=utf-8", r#"{"image":{"b64":"YWJj"}}"#),
            ("application/json", r#"{"instances":["data:image/png;base64,YWJj"]}"#),
            ("Multipart/Form-Data; boundary=x", parts),
        ] {
            assert_eq!(read(kind, body, &image).unwrap(), [[picture.clone()]], "{kind} {body}");
        }
        let words = |text: &str, pair: Option<&str>| {
            Content::Words(Words { text: text.to_owned(), pair: pair.map(str::to_owned) })
        };
        let text = [source(Kind::Text)];
        assert_eq!(read("text/plain; charset=utf-8", "h\u{f6}ch", &text).unwrap(), [[words("h\u{f6}ch", None)]]);
        assert_eq!(
            read("application/json", r#"{"instances":["a",{"text":"b","pair":"c"}]}"#, &text).unwrap(),
            [[words("a", None)], [words("b", Some("c"))]]
        );
        let record = [source(Kind::Record)];
        let json = |text: &str| Content::Json(serde_json::from_str(text).unwrap());
        assert_eq!(read("application/json", r#"{"a":1}"#, &record).unwrap(), [[json(r#"{"a":1}"#)]]);
        assert_eq!(read("", r#"{"instances":[[1],[2]]}"#, &record).unwrap(), [[json("[1]")], [json("[2]")]]);
        let both = [source(Kind::Record), source(Kind::Image)];
        let two = read("application/json", r#"{"record":{"a":1},"image":"YWJj"}"#, &both).unwrap();
        assert_eq!(two, [[json(r#"{"a":1}"#), picture]]);
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let image = [source(Kind::Image)];
        let both = [source(Kind::Record), source(Kind::Image)];
        for (kind, body, sources, says) in [
            ("audio/wav", "", &image[..], "send image/jpeg, image/png"),
            ("application/x-www-form-urlencoded", "", &image, "curl: -H 'content-type: image/jpeg'"),
            ("image/png", "", &both, "send application/json, multipart/form-data"),
            ("application/json", "{", &image, "the body: expected JSON"),
            ("application/json", r#"{"b64":"***"}"#, &image, "image: expected base64"),
            ("application/json", r#"{"c64":"YWJj"}"#, &image, "expected {\"b64\": \"...\"}"),
            ("application/json", "7", &image, "image: expected a image, as a text in base64"),
            ("application/json", r#"{"instances":[1,2,3,4]}"#, &image, "4 instances, the most is 3"),
            ("application/json", r#"{"instances":[]}"#, &image, "no instance"),
            ("application/json", r#"{"record":{}}"#, &both, "instance 0: expected \"image\" (a image), given nothing"),
            ("application/json", r#"{"record":{},"image":"YWJj","x":1}"#, &both, "given \"x\""),
            ("application/json", "[]", &both, "expected an object with record, image"),
            ("multipart/form-data", "", &image, "without a boundary"),
            (
                "multipart/form-data; boundary=x",
                "--x\r\ncontent-disposition: form-data; name=\"i\"\r\n\r\n1\r\n--x--",
                &image,
                "parts named image, given \"i\"",
            ),
            ("multipart/form-data; boundary=x", "--x--", &image, "given 0 of image"),
            ("text/plain", "a", &[source(Kind::Record)], "send application/json"),
        ] {
            let error = read(kind, body, sources).unwrap_err();
            assert!(error.contains(says), "{kind} {body}: {error}");
        }
        let text = Form::Plain.instances(&Bytes::from_static(b"ok\xff"), &[source(Kind::Text)], 1).unwrap_err();
        assert!(text.message.contains("expected UTF-8, given another byte at 2"));
    }
}
