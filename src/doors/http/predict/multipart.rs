//! `multipart/form-data` (RFC 7578) of a body that is whole in memory: parts by their names.

use bytes::Bytes;

const BOUNDARY_MAX_BYTES: usize = 70;
const HEAD_MAX_BYTES: usize = 4096;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Of its `content-disposition`.
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    (!boundary.is_empty() && boundary.len() <= BOUNDARY_MAX_BYTES).then_some(boundary)
}

/// `key=value` or `key="value"` behind a semicolon.
fn parameter(header: &str, key: &str) -> Option<String> {
    let mut rest = header;
    loop {
        // What stands in quotes may hold a semicolon.
        let semicolon = rest.char_indices().scan(false, |quoted, (at, c)| {
            *quoted ^= c == '"';
            Some((at, c, *quoted))
        });
        let at = semicolon.filter(|&(_, c, quoted)| c == ';' && !quoted).map(|(at, ..)| at).next()?;
        rest = rest[at + 1..].trim_start();
        let Some((name, value)) = rest.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case(key) {
            let value = value.trim_start();
            return Some(match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or("").to_owned(),
                None => value.split(';').next().unwrap_or("").trim().to_owned(),
            });
        }
    }
}

/// All parts, at most `most`. Their bytes are the body's.
pub(super) fn parts(body: &Bytes, boundary: &str, most: usize) -> Result<Vec<Part>, String> {
    let line = format!("--{boundary}");
    // The first line has no line break in front.
    let mut at = match body.strip_prefix(line.as_bytes()) {
        Some(_) => line.len(),
        None => {
            find(body, format!("\r\n{line}").as_bytes(), 0).ok_or("the body has no line with its boundary")?
                + line.len()
                + 2
        }
    };
    let next = format!("\r\n{line}");
    let mut found = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        if !rest.starts_with(b"\r\n") {
            return Err("a boundary is not followed by a line break".to_owned());
        }
        if found.len() == most {
            return Err(format!("over {most} parts"));
        }
        let head_end = if rest.starts_with(b"\r\n\r\n") {
            at
        } else {
            find(body, b"\r\n\r\n", at).ok_or("a part without an end to its head")?
        };
        if head_end - at > HEAD_MAX_BYTES {
            return Err(format!("a part's head is over {HEAD_MAX_BYTES} bytes"));
        }
        let head = String::from_utf8_lossy(&body[at..head_end]);
        let disposition = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let name = disposition.and_then(|value| parameter(value, "name")).ok_or("a part without a name")?;
        let start = head_end + 4;
        let end = find(body, next.as_bytes(), start.min(body.len())).ok_or("the last part has no end")?;
        found.push(Part { name, bytes: body.slice(start..end) });
        at = end + next.len();
    }
}

fn find(body: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    // The first byte is rare in what is sent here, and finding it is fast.
    while let Some(step) = body.get(at..)?.iter().position(|byte| *byte == wanted[0]) {
        at += step;
        if body[at..].starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let parts = parts(&Bytes::copy_from_slice(body.as_bytes()), "B", 2)?;
        Ok(parts.into_iter().map(|part| (part.name, part.bytes.to_vec())).collect())
    }

    #[test]
    fn parts_come_by_name_with_their_bytes_as_they_are() {
        let body = "preamble\r\n--B\r\nContent-Type: image/png\r\nContent-Disposition: form-data; filename=\"a;b.png\"; name=\"image\"\r\n\r\nx\r\n-y\r\n--B\r\ncontent-disposition: form-data; name=note\r\n\r\n\r\n--B--\r\nafter";
        let found = read(body).unwrap();
        assert_eq!(found, [("image".to_owned(), b"x\r\n-y".to_vec()), ("note".to_owned(), Vec::new())]);
        assert_eq!(boundary("multipart/form-data; charset=utf-8; boundary=\"a b\""), Some("a b".to_owned()));
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(boundary("multipart/form-data"), None);
    }

    #[test]
    fn torn_and_hostile_bodies_are_refused() {
        let whole = "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--";
        assert!(read(whole).is_ok());
        for length in 0..whole.len() - 2 {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        let part = "\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B";
        assert!(read(&format!("--B{part}{part}{part}--")).unwrap_err().contains("over 2 parts"));
        assert!(read("--B\r\n\r\n1\r\n--B--").unwrap_err().contains("without a name"));
        let long = format!("--B\r\nx: {}\r\n\r\n1\r\n--B--", "y".repeat(5000));
        assert!(read(&long).unwrap_err().contains("over 4096 bytes"));
    }
}
