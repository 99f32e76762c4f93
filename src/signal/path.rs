//! Paths into structured payloads, and the tree that finds all of a stream's paths in one pass.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::error::Error;

/// Deepest path. Payloads may be deeper; nothing is looked for below this.
const MAX_SEGMENTS: usize = 16;
/// Longest path in bytes.
const MAX_PATH_BYTES: usize = 512;

/// A way into a JSON or CBOR value: `data.temp` or the JSON pointer (RFC 6901) `/data/temp`. A segment of digits is an
/// array index or a key of that text; in CBOR it is an integer key too. The empty path is the sample itself. In CSV a
/// path is a column number from 0 or, with a header, a column's name; in SenML it is a record's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    pub(super) key: String,
    pub(super) number: Option<i64>,
}

impl Segment {
    fn new(key: String) -> Self {
        let number = key.parse().ok();
        Self { key, number }
    }

    pub(super) fn is_index(&self, index: usize) -> bool {
        self.number.is_some_and(|number| usize::try_from(number) == Ok(index))
    }
}

impl Path {
    /// Parses either spelling.
    ///
    /// # Errors
    /// Over 512 bytes or 16 segments; an empty segment in the dotted spelling.
    pub fn new(text: &str) -> Result<Self, Error> {
        let fail = |problem: &str| Err(Error::setting("path", format!("{problem} in {}", super::error::quoted(text))));
        if text.len() > MAX_PATH_BYTES {
            return fail("over 512 bytes");
        }
        let segments: Vec<Segment> = if text.is_empty() {
            Vec::new()
        } else if let Some(pointer) = text.strip_prefix('/') {
            pointer.split('/').map(|part| Segment::new(part.replace("~1", "/").replace("~0", "~"))).collect()
        } else {
            text.split('.').map(|part| Segment::new(part.to_owned())).collect()
        };
        if segments.len() > MAX_SEGMENTS {
            return fail("over 16 segments");
        }
        if !text.starts_with('/') && segments.iter().any(|segment| segment.key.is_empty()) {
            return fail("an empty segment");
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The path as a column number.
    pub(super) fn column(&self) -> Option<usize> {
        self.text.parse().ok()
    }
}

impl TryFrom<String> for Path {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(&text)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.text
    }
}

/// What a value in the payload is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Field(usize),
    Time,
    Id,
}

/// All wanted paths as a tree: a node has slots (a leaf) or children, never both.
#[derive(Debug, Clone, Default)]
pub(super) struct Want {
    pub(super) slots: SmallVec<[Slot; 1]>,
    pub(super) children: Vec<(Segment, Want)>,
}

impl Want {
    /// Adds one path.
    ///
    /// # Errors
    /// The path leads through, or ends above, another one: a value cannot be a number and an object.
    pub(super) fn add(&mut self, path: &Path, slot: Slot) -> Result<(), Error> {
        let conflict = || Error::setting("path", format!("`{}` and another path lie inside each other", path.text));
        let mut node = self;
        for segment in path.segments() {
            if !node.slots.is_empty() {
                return Err(conflict());
            }
            let at = node.children.iter().position(|(known, _)| known == segment);
            let at = at.unwrap_or_else(|| {
                node.children.push((segment.clone(), Want::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        if !node.children.is_empty() {
            return Err(conflict());
        }
        node.slots.push(slot);
        Ok(())
    }

    pub(super) fn by_key(&self, key: &str) -> Option<&Want> {
        self.children.iter().find(|(segment, _)| segment.key == key).map(|(_, want)| want)
    }

    pub(super) fn by_number(&self, number: i64) -> Option<&Want> {
        self.children.iter().find(|(segment, _)| segment.number == Some(number)).map(|(_, want)| want)
    }

    pub(super) fn by_index(&self, index: usize) -> Option<&Want> {
        self.children.iter().find(|(segment, _)| segment.is_index(index)).map(|(_, want)| want)
    }

    /// Any slot at or below this node, to name in an error.
    pub(super) fn any_slot(&self) -> Option<Slot> {
        self.slots.first().copied().or_else(|| self.children.iter().find_map(|(_, want)| want.any_slot()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        Path::new(text).unwrap().segments().iter().map(|segment| segment.key.clone()).collect()
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(keys("data.temp"), ["data", "temp"]);
        assert_eq!(keys("/a~1b/0/~0"), ["a/b", "0", "~"]);
        assert!(keys("").is_empty());
        assert_eq!(Path::new("/a/0").unwrap().segments()[1].number, Some(0));
    }

    #[test]
    fn a_path_without_end_is_refused() {
        assert!(Path::new(&"a.".repeat(20)).is_err());
        assert!(Path::new(&"/a".repeat(17)).is_err());
        assert!(Path::new(&"a".repeat(513)).is_err());
        assert!(Path::new("a..b").is_err());
    }

    #[test]
    fn a_path_inside_another_is_refused() {
        for (first, second) in [("a", "a.b"), ("a.b", "a"), ("", "a"), ("a", "")] {
            let mut want = Want::default();
            want.add(&Path::new(first).unwrap(), Slot::Field(0)).unwrap();
            assert!(want.add(&Path::new(second).unwrap(), Slot::Time).is_err(), "{first} and {second}");
        }
    }
}
