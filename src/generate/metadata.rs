//! The metadata of a GGUF file, where vocabulary and template stand; its tensors are not looked at.
//!
//! Format: `docs/gguf.md` of the ggml project, versions 2 and 3. Texts and lists are borrowed from the file, so that nothing is
//! allocated by what a count claims.

use std::collections::BTreeMap;

use super::error::Error;

const VALUES_MAX: u64 = 65_536;
const KEY_BYTES_MAX: usize = 1024;
const TEXT: u32 = 8;
const LIST: u32 = 9;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Whole(i128),
    Float(f64),
    Truth(bool),
    /// Perhaps no UTF-8: tokens can be parts of characters.
    Text(&'a [u8]),
    List(List<'a>),
}

/// Elements of one type, walked through once already: reading them again cannot fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct List<'a> {
    of: u32,
    count: u64,
    bytes: &'a [u8],
}

pub(super) struct Metadata<'a>(BTreeMap<&'a str, Value<'a>>);

struct Reader<'a> {
    rest: &'a [u8],
    file_bytes: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: u64) -> Result<&'a [u8], String> {
        let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= self.rest.len());
        let bytes = bytes.ok_or_else(|| format!("the file ends at byte {}", self.file_bytes))?;
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let bytes = self.u64()?;
        self.take(bytes)
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Truth(self.array::<1>()?[0] != 0),
            TEXT => Value::Text(self.text()?),
            LIST => Value::List(self.list()?),
            10 => Value::Whole(self.u64()?.into()),
            11 => Value::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of type {other}")),
        })
    }

    fn list(&mut self) -> Result<List<'a>, String> {
        let (of, count) = (self.u32()?, self.u64()?);
        let before = self.rest;
        let size: u64 = match of {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            TEXT => {
                // Every text takes eight bytes at least, so the file's end bounds the walk.
                for _ in 0..count {
                    self.text()?;
                }
                let bytes = &before[..before.len() - self.rest.len()];
                return Ok(List { of, count, bytes });
            }
            other => return Err(format!("a list of type {other}")),
        };
        let bytes = count.checked_mul(size).ok_or_else(|| format!("a list of {count}"))?;
        Ok(List { of, count, bytes: self.take(bytes)? })
    }
}

impl<'a> Metadata<'a> {
    /// Reads it; the error says what is wrong, and with which key.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, Error> {
        Self::walk(file).map_err(|what| Error::File(format!("no GGUF file that can be used: {what}")))
    }

    fn walk(file: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { rest: file, file_bytes: file.len() };
        let (magic, version) = (reader.array::<4>()?, reader.u32()?);
        if magic != *b"GGUF" || !(2..=3).contains(&version) {
            return Err(format!("it begins with {magic:02x?} {version}, expected GGUF and 2 or 3"));
        }
        let (_tensors, values) = (reader.u64()?, reader.u64()?);
        if values > VALUES_MAX {
            return Err(format!("it says to have {values} values, {VALUES_MAX} are the most"));
        }
        let mut found = BTreeMap::new();
        for _ in 0..values {
            let key = reader.text()?;
            let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= KEY_BYTES_MAX);
            let key = key.ok_or_else(|| format!("a key that is no text of at most {KEY_BYTES_MAX} bytes"))?;
            let kind = reader.u32()?;
            let value = reader.value(kind).map_err(|what| format!("{key}: {what}"))?;
            if found.insert(key, value).is_some() {
                return Err(format!("{key} stands twice"));
            }
        }
        Ok(Self(found))
    }

    /// A text, if there is one.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.0.get(key) {
            Some(Value::Text(text)) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// A whole number, if there is one.
    pub(super) fn whole(&self, key: &str) -> Option<i128> {
        match self.0.get(key) {
            Some(Value::Whole(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        match self.0.get(key) {
            Some(Value::Truth(truth)) => Some(*truth),
            _ => None,
        }
    }

    /// A token's number.
    pub(super) fn token(&self, key: &str) -> Option<u32> {
        match self.0.get(key) {
            Some(Value::Whole(number)) => u32::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let list = self.list(key, |of| of == TEXT)?;
        let mut rest = list.bytes;
        Some((0..list.count).map_while(move |_| {
            let (length, behind) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (text, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(text)
        }))
    }

    /// A list of 32-bit whole numbers.
    pub(super) fn wholes(&self, key: &str) -> Option<impl Iterator<Item = i32> + use<'a>> {
        let list = self.list(key, |of| of == 4 || of == 5)?;
        Some(list.bytes.as_chunks::<4>().0.iter().map(|four| i32::from_le_bytes(*four)))
    }

    /// A list of 32-bit floats.
    pub(super) fn floats(&self, key: &str) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let list = self.list(key, |of| of == 6)?;
        Some(list.bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)))
    }

    fn list(&self, key: &str, takes: impl Fn(u32) -> bool) -> Option<List<'a>> {
        match self.0.get(key) {
            Some(Value::List(list)) if takes(list.of) => Some(*list),
            _ => None,
        }
    }
}

/// Files for tests.
#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn bytes_of(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text].concat()
    }

    pub(in crate::generate) fn text(text: &str) -> (u32, Vec<u8>) {
        (8, bytes_of(text.as_bytes()))
    }

    pub(in crate::generate) fn whole(number: u32) -> (u32, Vec<u8>) {
        (4, number.to_le_bytes().to_vec())
    }

    pub(in crate::generate) fn truth(truth: bool) -> (u32, Vec<u8>) {
        (7, vec![u8::from(truth)])
    }

    pub(in crate::generate) fn texts<T: AsRef<[u8]>>(texts: &[T]) -> (u32, Vec<u8>) {
        let mut list = [&8_u32.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes()].concat();
        texts.iter().for_each(|text| list.extend(bytes_of(text.as_ref())));
        (9, list)
    }

    pub(in crate::generate) fn wholes(numbers: &[i32]) -> (u32, Vec<u8>) {
        let mut list = [&5_u32.to_le_bytes()[..], &(numbers.len() as u64).to_le_bytes()].concat();
        numbers.iter().for_each(|number| list.extend(number.to_le_bytes()));
        (9, list)
    }

    pub(in crate::generate) fn floats(numbers: &[f32]) -> (u32, Vec<u8>) {
        let mut list = [&6_u32.to_le_bytes()[..], &(numbers.len() as u64).to_le_bytes()].concat();
        numbers.iter().for_each(|number| list.extend(number.to_le_bytes()));
        (9, list)
    }

    pub(in crate::generate) fn written(metadata: &[(&str, (u32, Vec<u8>))]) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend((metadata.len() as u64).to_le_bytes());
        for (key, (kind, value)) in metadata {
            file.extend(bytes_of(key.as_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(value);
        }
        file
    }

    #[test]
    fn values_are_found_by_key_and_type() {
        let file = written(&[
            ("a", text("word")),
            ("b", truth(true)),
            ("c", whole(7)),
            ("d", texts(&[&b"x"[..], b"\xff\x00", b""])),
            ("e", wholes(&[1, -2])),
            ("f", floats(&[0.5])),
        ]);
        let metadata = Metadata::read(&file).unwrap();
        assert_eq!((metadata.text("a"), metadata.truth("b"), metadata.token("c")), (Some("word"), Some(true), Some(7)));
        assert_eq!(metadata.texts("d").unwrap().collect::<Vec<_>>(), [&b"x"[..], b"\xff\x00", b""]);
        assert_eq!(metadata.wholes("e").unwrap().collect::<Vec<_>>(), [1, -2]);
        assert_eq!(metadata.floats("f").unwrap().collect::<Vec<_>>(), [0.5]);
        assert!(metadata.text("c").is_none() && metadata.texts("e").is_none() && metadata.wholes("f").is_none());
    }

    #[test]
    fn no_cut_of_a_file_and_no_claim_is_believed() {
        let file = written(&[("a", texts(&["one", "two"])), ("b", floats(&[1.0, 2.0])), ("c", text("end"))]);
        for length in 0..file.len() {
            assert!(Metadata::read(&file[..length]).is_err(), "{length} bytes");
        }
        let list = |of: u32, count: u64| written(&[("k", (9, [&of.to_le_bytes()[..], &count.to_le_bytes()].concat()))]);
        for (file, says) in [
            (b"GGML\x03\0\0\0".to_vec(), "expected GGUF"),
            (b"GGUF\x04\0\0\0".to_vec(), "expected GGUF and 2 or 3"),
            (list(8, u64::MAX), "k: the file ends"),
            (list(6, u64::MAX), "k: a list of 18446744073709551615"),
            (list(0, 1 << 50), "k: the file ends"),
            (list(9, 1), "k: a list of type 9"),
            (written(&[("k", (13, vec![]))]), "k: a value of type 13"),
            (written(&[("k", text("")), ("k", text(""))]), "k stands twice"),
            (written(&[("k", (8, u64::MAX.to_le_bytes().to_vec()))]), "k: the file ends"),
        ] {
            let error = Metadata::read(&file).err().unwrap().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
