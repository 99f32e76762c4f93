//! The `safetensors` format: which tensors a file has and where, believed only after every bound was checked.
//!
//! Eight bytes with the header's length, the header in JSON, the data. Format: the `safetensors` project's README
//! (Apache-2.0). The header is judged before anything is allocated by what it claims.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Largest header. A model of a thousand layers has one of half a megabyte.
const HEADER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Tensors in a file.
const TENSORS_MAX: usize = 100_000;
/// Dimensions of a tensor.
const RANK_MAX: usize = 8;

/// What a tensor's elements are. Only the first three are weights that are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_uppercase())
    }
}

/// One tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// In the file.
    pub(super) range: Range<usize>,
}

/// What a file's header says, checked against the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Every entry but the author's notes; a name that stands twice is an error.
struct RawHeader(BTreeMap<String, RawEntry>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if tensors.len() == TENSORS_MAX {
                        return Err(de::Error::custom(format!("over {TENSORS_MAX} tensors")));
                    }
                    let entry =
                        map.next_value().map_err(|error| de::Error::custom(format!("tensor {name}: {error}")))?;
                    if tensors.insert(name.clone(), entry).is_some() {
                        return Err(de::Error::custom(format!("tensor {name} stands twice")));
                    }
                }
                Ok(RawHeader(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Header {
    /// Reads and checks it. The error says what is wrong with which tensor.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let torn = |what: String| format!("the file is no safetensors file: {what}");
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(torn(format!("it has {} bytes, the header's length takes 8", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        let fits = usize::try_from(length).ok().filter(|&length| length <= HEADER_BYTES_MAX && length <= rest.len());
        let Some(length) = fits else {
            let most = rest.len().min(HEADER_BYTES_MAX);
            return Err(torn(format!("its header says to have {length} bytes, {most} are the most")));
        };
        let (header, data) = rest.split_at(length);
        let RawHeader(raw) =
            serde_json::from_slice(header).map_err(|error| torn(format!("failed to read its header: {error}")))?;
        let begin = file.len() - data.len();
        let mut tensors = BTreeMap::new();
        for (name, entry) in raw {
            let checked = check(&entry, data.len()).map_err(|what| torn(format!("tensor {name}: {what}")))?;
            let range = begin + checked.start..begin + checked.end;
            tensors.insert(name, Entry { dtype: entry.dtype, shape: entry.shape, range });
        }
        let mut by_place: Vec<(&String, &Entry)> = tensors.iter().collect();
        by_place.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
        let mut end = begin;
        for (name, entry) in by_place {
            if entry.range.start != end {
                let what = if entry.range.start < end { "overlaps the one before" } else { "leaves a gap" };
                return Err(torn(format!("tensor {name}: its data {what} at byte {}", end.max(entry.range.start))));
            }
            end = entry.range.end;
        }
        if end != file.len() {
            return Err(torn(format!("{} bytes behind its tensors belong to none", file.len() - end)));
        }
        Ok(Self { tensors })
    }
}

/// Where a tensor's bytes lie in the data.
fn check(entry: &RawEntry, data_bytes: usize) -> Result<Range<usize>, String> {
    if entry.shape.len() > RANK_MAX {
        return Err(format!("it has {} dimensions, {RANK_MAX} are the most", entry.shape.len()));
    }
    let bytes = entry.shape.iter().try_fold(entry.dtype.size_bytes(), |bytes, &dim| bytes.checked_mul(dim));
    let Some(bytes) = bytes else { return Err(format!("its shape {:?} is larger than memory can be", entry.shape)) };
    let [start, end] = entry.data_offsets;
    if start > end || end > data_bytes {
        return Err(format!("its data is said to lie at {start} to {end} of {data_bytes} bytes"));
    }
    if end - start != bytes {
        return Err(format!("{} of {:?} has {bytes} bytes, its data {}", entry.dtype, entry.shape, end - start));
    }
    Ok(start..end)
}

/// A file with these tensors, for tests.
#[cfg(test)]
pub(super) fn written(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
        data.extend_from_slice(bytes);
    }
    assembled(&serde_json::Value::Object(header).to_string(), &data)
}

#[cfg(test)]
fn assembled(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_found_where_the_header_says() {
        let file = written(&[("b", "F16", &[2], vec![1; 4]), ("a", "F32", &[1, 2], vec![2; 8])]);
        let header = Header::read(&file).unwrap();
        let a = &header.tensors["a"];
        assert_eq!((a.dtype, a.shape.as_slice(), &file[a.range.clone()]), (Dtype::F32, &[1, 2][..], &[2; 8][..]));
        let noted = assembled(r#"{"__metadata__": {"format": "pt"}}"#, &[]);
        assert!(Header::read(&noted).unwrap().tensors.is_empty());
    }

    #[test]
    fn a_hostile_header_is_refused_with_what_is_wrong() {
        let one = |entry: &str, data: usize| {
            Header::read(&assembled(&format!(r#"{{"w": {entry}}}"#), &vec![0; data])).unwrap_err()
        };
        let huge = format!(r#"{{"dtype": "F32", "shape": [{0}, {0}], "data_offsets": [0, 8]}}"#, usize::MAX / 2);
        for (error, says) in [
            (Header::read(b"").unwrap_err(), "it has 0 bytes"),
            (Header::read(&u64::MAX.to_le_bytes()).unwrap_err(), "bytes, 0 are the most"),
            (Header::read(&assembled("{", &[])).unwrap_err(), "failed to read its header"),
            (Header::read(&assembled(&"[".repeat(100_000), &[])).unwrap_err(), "failed to read its header"),
            (one(&huge, 8), "larger than memory can be"),
            (one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}"#, 8), "at 0 to 16 of 8 bytes"),
            (one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}"#, 8), "at 8 to 0 of 8 bytes"),
            (one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}"#, 4), "has 8 bytes, its data 4"),
            (one(r#"{"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}"#, 8), "tensor w: "),
            (one(r#"{"dtype": "Q4", "shape": [2], "data_offsets": [0, 8]}"#, 8), "unknown variant `Q4`"),
            (one(r#"{"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}"#, 2), "leaves a gap"),
            (one(r#"{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#, 2), "1 bytes behind its tensors"),
            (one(r#"{"dtype": "U8", "shape": [1,1,1,1,1,1,1,1,1], "data_offsets": [0, 1]}"#, 1), "9 dimensions"),
        ] {
            assert!(error.contains(says), "{error}: {says}");
        }
        let entry = |from: usize| format!(r#"{{"dtype": "U8", "shape": [2], "data_offsets": [{from}, {}]}}"#, from + 2);
        let overlap = assembled(&format!(r#"{{"a": {}, "b": {}}}"#, entry(0), entry(1)), &[0; 3]);
        assert!(Header::read(&overlap).unwrap_err().contains("tensor b: its data overlaps the one before"));
        let twice = assembled(&format!(r#"{{"a": {0}, "a": {0}}}"#, entry(0)), &[0; 2]);
        assert!(Header::read(&twice).unwrap_err().contains("stands twice"));
    }

    #[test]
    fn no_cut_of_a_file_is_believed() {
        let file = written(&[("b", "F16", &[2], vec![1; 4]), ("a", "F32", &[1, 2], vec![2; 8])]);
        for length in 0..file.len() {
            assert!(Header::read(&file[..length]).is_err(), "{length} bytes");
        }
    }
}
