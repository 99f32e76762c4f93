//! The GGUF format: metadata and tensors of a file, believed only after every bound was checked.
//!
//! Format: `docs/gguf.md` of the ggml project (MIT). Nothing is allocated by what a count claims: lists stay where they are in
//! the file, and are walked through once.

use std::collections::BTreeMap;
use std::ops::Range;

use super::blocks::Blocks;

const METADATA_MAX: u64 = 65_536;
const TENSORS_MAX: u64 = 65_536;
/// Of a name.
const NAME_BYTES_MAX: u64 = 1024;
/// Of any other text: templates of chats are long.
const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Dimensions of a tensor.
const RANK_MAX: u32 = 4;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(i128),
    Float(f64),
    Truth(bool),
    Text(String),
    /// How many; their bytes are left where they are.
    List(u64),
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) blocks: Blocks,
    /// Outermost first, as everywhere else; the file has it the other way round.
    pub(super) shape: Vec<usize>,
    /// In the file.
    pub(super) range: Range<usize>,
}

/// What a file says of itself, checked against the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gguf {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Entry>,
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: u64) -> Result<&'a [u8], String> {
        let rest = &self.file[self.at..];
        let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= rest.len());
        let bytes = bytes.ok_or_else(|| format!("the file ends at byte {}", self.file.len()))?;
        self.at += bytes;
        Ok(&rest[..bytes])
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

    fn text(&mut self, most: u64) -> Result<String, String> {
        let bytes = self.u64()?;
        if bytes > most {
            return Err(format!("a text of {bytes} bytes at byte {}, {most} are the most", self.at));
        }
        // Tokens may be parts of characters.
        Ok(String::from_utf8_lossy(self.take(bytes)?).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Truth(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text(TEXT_BYTES_MAX)?),
            9 => {
                let (of, count) = (self.u32()?, self.u64()?);
                self.skip(of, count)?;
                Value::List(count)
            }
            10 => Value::Whole(self.u64()?.into()),
            11 => Value::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of type {other} at byte {}", self.at)),
        })
    }

    /// Passes over a list. Every element takes a byte at least, so the file's end bounds the walk.
    fn skip(&mut self, of: u32, count: u64) -> Result<(), String> {
        let size = match of {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..count {
                    let bytes = self.u64()?;
                    self.take(bytes)?;
                }
                return Ok(());
            }
            other => return Err(format!("a list of type {other} at byte {}", self.at)),
        };
        let bytes = count.checked_mul(size).ok_or_else(|| format!("a list of {count} at byte {}", self.at))?;
        self.take(bytes).map(drop)
    }
}

impl Gguf {
    /// Reads and checks it. The error says what is wrong, and where.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        Self::walk(file).map_err(|what| format!("the file is no GGUF file that can be used: {what}"))
    }

    fn walk(file: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { file, at: 0 };
        let (magic, version) = (reader.array::<4>()?, reader.u32()?);
        if magic != *b"GGUF" {
            return Err(format!("it begins with {magic:02x?}, expected GGUF"));
        }
        if !(2..=3).contains(&version) {
            return Err(format!("its version is {version}, expected 2 or 3"));
        }
        let (tensors, values) = (reader.u64()?, reader.u64()?);
        if tensors > TENSORS_MAX || values > METADATA_MAX {
            let most = format!("{TENSORS_MAX} and {METADATA_MAX} are the most");
            return Err(format!("it says to have {tensors} tensors and {values} values, {most}"));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..values {
            let key = reader.text(NAME_BYTES_MAX)?;
            let kind = reader.u32()?;
            let value = reader.value(kind).map_err(|what| format!("{key}: {what}"))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("{key} stands twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Whole(bytes @ 8..=65_536)) if bytes.count_ones() == 1 => *bytes as u64,
            Some(other) => {
                return Err(format!("general.alignment is {other:?}, expected a power of two of 8 to 65536"));
            }
        };
        let mut raw = BTreeMap::new();
        for _ in 0..tensors {
            let name = reader.text(NAME_BYTES_MAX)?;
            let entry = reader.tensor(alignment).map_err(|what| format!("tensor {name}: {what}"))?;
            if raw.insert(name.clone(), entry).is_some() {
                return Err(format!("tensor {name} stands twice"));
            }
        }
        let begin = (reader.at as u64).next_multiple_of(alignment);
        let mut found = BTreeMap::new();
        for (name, (blocks, shape, offset)) in raw {
            let place = place(blocks, &shape, begin, offset, file.len());
            let range = place.map_err(|what| format!("tensor {name}: {what}"))?;
            found.insert(name, Entry { blocks, shape, range });
        }
        let mut by_place: Vec<(&String, &Range<usize>)> = found.iter().map(|(name, of)| (name, &of.range)).collect();
        by_place.sort_by_key(|(_, range)| (range.start, range.end));
        if let Some(pair) = by_place.windows(2).find(|pair| pair[1].1.start < pair[0].1.end) {
            return Err(format!("tensor {}: its data overlaps that of {}", pair[1].0, pair[0].0));
        }
        Ok(Self { metadata, tensors: found })
    }
}

impl Reader<'_> {
    fn tensor(&mut self, alignment: u64) -> Result<(Blocks, Vec<usize>, u64), String> {
        let rank = self.u32()?;
        if rank == 0 || rank > RANK_MAX {
            return Err(format!("it has {rank} dimensions, expected 1 to {RANK_MAX}"));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            let dim = self.u64()?;
            shape.push(usize::try_from(dim).map_err(|_| format!("it has a dimension of {dim}"))?);
        }
        shape.reverse();
        let blocks = Blocks::of(self.u32()?)?;
        let offset = self.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(format!("its data is said to lie at {offset}, expected a multiple of {alignment}"));
        }
        Ok((blocks, shape, offset))
    }
}

fn place(blocks: Blocks, shape: &[usize], begin: u64, offset: u64, file_bytes: usize) -> Result<Range<usize>, String> {
    let (elements, bytes) = blocks.size();
    let columns = shape.last().copied().unwrap_or_default();
    if columns == 0 || !columns.is_multiple_of(elements) {
        return Err(format!("its rows have {columns} elements, {blocks:?} takes a multiple of {elements}"));
    }
    let rows = shape.iter().rev().skip(1).try_fold(1_usize, |rows, &dim| rows.checked_mul(dim));
    let needs = rows.and_then(|rows| rows.checked_mul(columns / elements)?.checked_mul(bytes));
    let needs = needs.ok_or_else(|| format!("its shape {shape:?} is larger than memory can be"))?;
    let start = begin.checked_add(offset).and_then(|start| usize::try_from(start).ok());
    let end = start.and_then(|start| start.checked_add(needs)).filter(|&end| end <= file_bytes);
    match (start, end) {
        (Some(start), Some(end)) => Ok(start..end),
        _ => Err(format!("{blocks:?} of {shape:?} has {needs} bytes at {offset}, the file has {file_bytes} in all")),
    }
}

/// Files for tests.
#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A metadatum as its type and bytes.
    pub(in crate::engine::transformer) fn whole(number: u32) -> (u32, Vec<u8>) {
        (4, number.to_le_bytes().to_vec())
    }

    pub(in crate::engine::transformer) fn float(number: f32) -> (u32, Vec<u8>) {
        (6, number.to_le_bytes().to_vec())
    }

    pub(in crate::engine::transformer) fn text(text: &str) -> (u32, Vec<u8>) {
        (8, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat())
    }

    /// Shapes are outermost first.
    pub(in crate::engine::transformer) fn written(
        metadata: &[(&str, (u32, Vec<u8>))],
        tensors: &[(&str, u32, &[usize], Vec<u8>)],
    ) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((tensors.len() as u64).to_le_bytes());
        file.extend((metadata.len() as u64).to_le_bytes());
        for (key, (kind, value)) in metadata {
            file.extend(text(key).1);
            file.extend(kind.to_le_bytes());
            file.extend(value);
        }
        let mut offset = 0_usize;
        for (name, kind, shape, bytes) in tensors {
            file.extend(text(name).1);
            file.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&dim| file.extend((dim as u64).to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(32);
        }
        for (_, _, _, bytes) in tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(bytes);
        }
        file
    }

    fn small() -> Vec<u8> {
        let list = [&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &text("a").1, &text("b").1].concat();
        let metadata = [("x.count", whole(3)), ("x.tokens", (9, list)), ("x.name", text("n")), ("x.base", float(0.5))];
        written(&metadata, &[("w", 0, &[2, 3], vec![1; 24]), ("v", 8, &[1, 32], vec![2; 34])])
    }

    #[test]
    fn metadata_and_tensors_are_found() {
        let (file, found) = (small(), Gguf::read(&small()).unwrap());
        assert_eq!(found.metadata["x.count"], Value::Whole(3));
        assert_eq!(found.metadata["x.tokens"], Value::List(2));
        assert_eq!(found.metadata["x.name"], Value::Text("n".to_owned()));
        assert_eq!(found.metadata["x.base"], Value::Float(0.5));
        let (w, v) = (&found.tensors["w"], &found.tensors["v"]);
        assert_eq!((w.shape.as_slice(), &file[w.range.clone()]), (&[2, 3][..], &[1; 24][..]));
        assert_eq!((v.blocks, &file[v.range.clone()]), (Blocks::Q8_0, &[2; 34][..]));
    }

    #[test]
    fn no_cut_of_a_file_is_believed() {
        let file = small();
        for length in 0..file.len() {
            assert!(Gguf::read(&file[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn hostile_files_are_refused_with_what_is_wrong() {
        let head = |tensors: u64, values: u64| {
            [&b"GGUF"[..], &3_u32.to_le_bytes(), &tensors.to_le_bytes(), &values.to_le_bytes()].concat()
        };
        let value = |kind: u32, bytes: &[u8]| [&head(0, 1)[..], &text("k").1, &kind.to_le_bytes(), bytes].concat();
        let list = |of: u32, count: u64| value(9, &[&of.to_le_bytes()[..], &count.to_le_bytes()].concat());
        let tensor = |kind: u32, shape: &[usize], bytes: usize| written(&[], &[("w", kind, shape, vec![0; bytes])]);
        let aligned = |bytes: u32| written(&[("general.alignment", whole(bytes))], &[]);
        let mut overlap = written(&[], &[("a", 0, &[8], vec![0; 32]), ("b", 0, &[8], vec![0; 32])]);
        let offset = overlap.windows(8).rposition(|bytes| bytes == 32_u64.to_le_bytes()).unwrap();
        overlap[offset] = 0;
        for (file, says) in [
            (b"GGML\x03\0\0\0".to_vec(), "expected GGUF"),
            (b"GGUF\x09\0\0\0".to_vec(), "its version is 9"),
            (head(u64::MAX, 0), "it says to have 18446744073709551615 tensors"),
            (head(0, u64::MAX), "and 18446744073709551615 values"),
            ([&head(0, 1)[..], &u64::MAX.to_le_bytes()].concat(), "a text of 18446744073709551615 bytes"),
            (value(8, &u64::MAX.to_le_bytes()), "k: a text of 18446744073709551615 bytes"),
            (value(13, &[]), "k: a value of type 13"),
            (list(8, u64::MAX), "k: the file ends"),
            (list(4, u64::MAX), "k: a list of 18446744073709551615"),
            (list(0, 1 << 40), "k: the file ends"),
            (list(9, 1), "k: a list of type 9"),
            (aligned(0), "general.alignment is Whole(0)"),
            (aligned(48), "general.alignment is Whole(48)"),
            (tensor(99, &[32], 0), "tensor w: "),
            (tensor(8, &[33], 0), "its rows have 33 elements, Q8_0 takes a multiple of 32"),
            (tensor(0, &[usize::MAX / 2, 64], 0), "larger than memory can be"),
            (tensor(0, &[8], 16), "has 32 bytes at 0, the file has"),
            (tensor(0, &[1, 1, 1, 1, 1], 4), "it has 5 dimensions"),
            (overlap, "tensor b: its data overlaps that of a"),
        ] {
            let error = Gguf::read(&file).unwrap_err();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
