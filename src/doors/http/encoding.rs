//! Compressed bodies, both ways: gzip and deflate.
//!
//! What comes out of a compressed body is counted while it comes out, so a body that claims little and unfolds into much
//! costs no more than one that was sent as it is.

use std::io::{self, Read, Write as _};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::problem::Problem;

/// Bytes that are read at once while a body is taken apart.
const STEP_BYTES: usize = 32 * 1024;
/// More bytes than so many are not compressed on a thread that serves others meanwhile.
const INLINE_MAX_BYTES: usize = 16 * 1024;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    /// Deflate in zlib's frame, which is what HTTP means by the word.
    Deflate,
}

impl Encoding {
    const ALL: [Self; 2] = [Self::Gzip, Self::Deflate];

    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        let alias = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|encoding| encoding.as_str().eq_ignore_ascii_case(alias))
    }
}

/// How a request's body is written; None if as it is.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Problem> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = value.to_str().unwrap_or("?");
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let encoding = Encoding::named(name);
            if encoding.is_none() || found.is_some() {
                let message = format!("content-encoding {text:?} is not taken");
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message)
                    .hint("send gzip, deflate, or the body as it is"));
            }
            found = encoding;
        }
    }
    Ok(found)
}

/// How a caller wants the answer; None if as it is. The one with the larger weight, gzip among equals.
pub(super) fn of_answer(headers: &HeaderMap) -> Option<Encoding> {
    let mut weights = [None; Encoding::ALL.len()];
    let mut any = None;
    let words = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for word in words.flat_map(|text| text.split(',')) {
        let (name, parameters) = word.split_once(';').unwrap_or((word, ""));
        let weight = match parameters.trim().strip_prefix("q=") {
            Some(text) => text.trim().parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0),
            None => 1.0,
        };
        if name.trim() == "*" {
            any = Some(weight);
        } else if let Some(encoding) = Encoding::named(name) {
            weights[encoding as usize] = Some(weight);
        }
    }
    let weight = |encoding: &Encoding| weights[*encoding as usize].or(any).unwrap_or(0.0);
    // The last of equals is taken.
    let wanted = Encoding::ALL.into_iter().rev().max_by(|a, b| weight(a).total_cmp(&weight(b)))?;
    (weight(&wanted) > 0.0).then_some(wanted)
}

/// The first `head_bytes` of what `body` unfolds into, and the rest in memory of its own; at most `max_bytes` together.
pub(super) fn unfold(
    encoding: Encoding,
    body: &[u8],
    max_bytes: usize,
    head_bytes: usize,
) -> Result<(Bytes, Bytes), Problem> {
    let bad = |what: &str| {
        Problem::new(StatusCode::BAD_REQUEST, "body", format!("the {} body {what}", encoding.as_str()))
            .hint("`content-encoding` says how it is written")
    };
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("is cut off"),
        _ => bad(&format!("cannot be read: {error}")),
    };
    let (mut head, mut rest) = (BytesMut::new(), BytesMut::new());
    let mut part = vec![0; STEP_BYTES];
    let mut take = |from: &mut dyn Read| -> Result<(), Problem> {
        loop {
            let count = from.read(&mut part).map_err(unreadable)?;
            if count == 0 {
                return Ok(());
            }
            if head.len() + rest.len() + count > max_bytes {
                let message = format!("the {} body unfolds into over {max_bytes} bytes", encoding.as_str());
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
                    .hint("send it in parts; `body_max_bytes` in [http] bounds a body as it is when it is unfolded"));
            }
            let (first, second) = part[..count].split_at(count.min(head_bytes - head.len()));
            head.extend_from_slice(first);
            rest.extend_from_slice(second);
        }
    };
    let left: &[u8] = match encoding {
        Encoding::Gzip => {
            let mut decoder = GzDecoder::new(body);
            take(&mut decoder)?;
            decoder.into_inner()
        }
        Encoding::Deflate => {
            let mut decoder = ZlibDecoder::new(body);
            take(&mut decoder)?;
            decoder.into_inner()
        }
    };
    if !left.is_empty() {
        return Err(bad(&format!("has {} bytes behind its end", left.len())));
    }
    Ok((head.freeze(), rest.freeze()))
}

/// `body` in `encoding`.
pub(super) async fn fold(encoding: Encoding, body: Vec<u8>) -> io::Result<Vec<u8>> {
    if body.len() <= INLINE_MAX_BYTES {
        return fold_now(encoding, &body);
    }
    let folding = tokio::task::spawn_blocking(move || fold_now(encoding, &body)).await;
    folding.map_err(|_| io::Error::other("the gateway is stopping"))?
}

/// Little effort: these are numbers, of which more effort makes hardly less.
fn fold_now(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
    let into = Vec::with_capacity(body.len() / 2);
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(into, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(into, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

/// Says in an answer how its body is written.
pub(super) fn say(encoding: Encoding, headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: &str) -> Result<Option<Encoding>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        of_request(&headers).map_err(|problem| problem.status.as_u16())
    }

    fn answer(value: &str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        of_answer(&headers)
    }

    #[test]
    fn one_encoding_that_is_known_is_taken_and_nothing_else() {
        assert_eq!(request("gzip"), Ok(Some(Encoding::Gzip)));
        assert_eq!(request("X-GZIP"), Ok(Some(Encoding::Gzip)));
        assert_eq!(request("identity, deflate"), Ok(Some(Encoding::Deflate)));
        assert_eq!(request("identity"), Ok(None));
        for wrong in ["br", "gzip, gzip", "gzip, br", "zstd"] {
            assert_eq!(request(wrong), Err(415), "{wrong}");
        }
        assert_eq!(of_request(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn an_answer_is_written_as_the_caller_likes_it_best() {
        for (accepts, encoding) in [
            ("gzip", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("deflate, gzip", Some(Encoding::Gzip)),
            ("gzip;q=0.5, deflate", Some(Encoding::Deflate)),
            ("gzip;q=0, deflate;q=0", None),
            ("*", Some(Encoding::Gzip)),
            ("gzip;q=0, *;q=0.1", Some(Encoding::Deflate)),
            ("gzip;q=nonsense", None),
            ("br, identity", None),
            ("", None),
        ] {
            assert_eq!(answer(accepts), encoding, "{accepts}");
        }
        assert_eq!(of_answer(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_body_comes_back_in_two_parts_and_its_bound_is_on_what_it_unfolds_into() {
        let plain: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for encoding in Encoding::ALL {
            let folded = fold(encoding, plain.clone()).await.unwrap();
            assert!(folded.len() < plain.len() / 4);
            let (head, rest) = unfold(encoding, &folded, plain.len(), 70_001).unwrap();
            assert_eq!((&head[..], &rest[..]), plain.split_at(70_001));
            let (whole, none) = unfold(encoding, &folded, plain.len(), usize::MAX).unwrap();
            assert!(whole == plain && none.is_empty());
            let large = unfold(encoding, &folded, plain.len() - 1, 10).unwrap_err();
            assert_eq!((large.status.as_u16(), large.code), (413, "too_large"));
            assert!(large.message.contains("over 199999 bytes") && large.hint.contains("body_max_bytes"), "{large:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_damaged_followed_by_more_or_something_else_is_refused() {
        for encoding in Encoding::ALL {
            let folded = fold(encoding, b"a text that is a text that is a text".to_vec()).await.unwrap();
            let says = |body: &[u8]| {
                let problem = unfold(encoding, body, 1 << 20, usize::MAX).unwrap_err();
                assert_eq!(problem.status.as_u16(), 400);
                problem.message
            };
            for cut in 0..folded.len() {
                assert!(says(&folded[..cut]).contains("is cut off"), "{cut}");
            }
            assert!(says(&[&folded[..], b"xy"].concat()).contains("has 2 bytes behind its end"));
            let mut flipped = folded.clone();
            *flipped.last_mut().unwrap() ^= 1;
            assert!(says(&flipped).contains("cannot be read"));
            assert!(says(b"{\"inputs\": []}").contains("cannot be read"));
        }
    }
}
