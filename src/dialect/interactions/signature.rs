//! Signatures of thoughts. Google's are what they are; those of others are marked, so that none comes back to whom it does
//! not belong.
//!
//! In this API a signature is base64, and clients may take it for bytes. So the marks are base64 themselves, of whole
//! groups of four, and without `/`, which some writers of JSON escape.

/// Before a signature of Claude's.
const CLAUDE: &str = "claude++";
/// Before a thought that only Claude's provider can read.
const REDACTED: &str = "redacted+claude+";

/// Whose signature came back. All are between their quotes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Signed<'a> {
    /// Google's, as it is.
    Google(&'a str),
    /// Claude's, without its mark.
    Claude(&'a str),
    /// What a thought was that nobody else can read.
    Redacted(&'a str),
}

/// Reads a signature, as it stands between its quotes. An empty one is none.
pub(crate) fn read(inner: &str) -> Option<Signed<'_>> {
    let signed = inner.strip_prefix(REDACTED).map(Signed::Redacted);
    let signed = signed.or_else(|| inner.strip_prefix(CLAUDE).map(Signed::Claude));
    (!inner.is_empty()).then(|| signed.unwrap_or(Signed::Google(inner)))
}

/// Claude's signature as a caller gets it.
pub(crate) fn claudes(inner: &str) -> String {
    format!("{CLAUDE}{inner}")
}

/// A thought that only Claude's provider can read, as a caller gets it.
pub(crate) fn redacted(inner: &str) -> String {
    format!("{REDACTED}{inner}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_comes_back_to_whom_it_belongs() {
        assert_eq!(read("EpoG+/="), Some(Signed::Google("EpoG+/=")));
        assert_eq!(read(&claudes("Sig=")), Some(Signed::Claude("Sig=")));
        assert_eq!(read(&redacted("Zzz=")), Some(Signed::Redacted("Zzz=")));
        assert_eq!(read(""), None);
    }

    #[test]
    fn marks_are_base64_of_whole_groups() {
        for mark in [CLAUDE, REDACTED] {
            assert!(mark.len() % 4 == 0 && mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+'));
        }
    }
}
