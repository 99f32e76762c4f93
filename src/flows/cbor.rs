//! The little CBOR that a batch needs (RFC 8949): definite lengths and shortest integers only, written and read
//! without a document tree, so that what a stranger sends is bounded by the bytes that came.

/// Why bytes are not the CBOR that was expected, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The bytes end inside an item.
    #[error("the bytes end early")]
    Short,
    /// Another kind of item, an indefinite length, or an integer in a longer form than it needs.
    #[error("expected {wanted} at byte {at}")]
    Unexpected {
        /// What should be here.
        wanted: &'static str,
        /// Offset in the item that was being read.
        at: usize,
    },
    /// Bytes after the item.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
/// The simple value null, head and all.
const NULL: u8 = 0xf6;

/// Appends CBOR items to a buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes) }
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        match value {
            0..=23 => self.out.push(major | value.to_le_bytes()[0]),
            24..=0xff => self.out.extend([major | 24, value.to_le_bytes()[0]]),
            0x100..=0xffff => {
                self.out.push(major | 25);
                self.out.extend(&value.to_be_bytes()[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend(&value.to_be_bytes()[4..]);
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend(&value.to_be_bytes());
            }
        }
    }

    pub(super) fn uint(&mut self, value: u64) {
        self.head(UINT, value);
    }

    pub(super) fn int(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.head(UINT, value),
            // -1 - n is n with every bit flipped, which cannot overflow.
            Err(_) => self.head(NEGATIVE, (!value).cast_unsigned()),
        }
    }

    pub(super) fn int_or_null(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.int(value),
            None => self.out.push(NULL),
        }
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    pub(super) fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    pub(super) fn map(&mut self, pairs: usize) {
        self.head(MAP, pairs as u64);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Reads CBOR items from a slice, in order.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CborError> {
        let end = self.at.checked_add(count).ok_or(CborError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(CborError::Short)?;
        self.at = end;
        Ok(taken)
    }

    /// Major type and value of the next head, which must be in its shortest form.
    fn head(&mut self, wanted: &'static str) -> Result<(u8, u64), CborError> {
        let at = self.at;
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let (width, least) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(CborError::Unexpected { wanted, at }),
        };
        let value = self.take(width)?.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte));
        if value < least { Err(CborError::Unexpected { wanted, at }) } else { Ok((major, value)) }
    }

    fn value(&mut self, major: u8, wanted: &'static str) -> Result<u64, CborError> {
        let at = self.at;
        match self.head(wanted)? {
            (found, value) if found == major => Ok(value),
            _ => Err(CborError::Unexpected { wanted, at }),
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64, CborError> {
        self.value(UINT, "an unsigned integer")
    }

    pub(super) fn int(&mut self) -> Result<i64, CborError> {
        let wanted = "a 64-bit integer";
        let at = self.at;
        let (major, value) = self.head(wanted)?;
        match (major, i64::try_from(value)) {
            (UINT, Ok(value)) => Ok(value),
            (NEGATIVE, Ok(value)) => Ok(!value),
            _ => Err(CborError::Unexpected { wanted, at }),
        }
    }

    pub(super) fn int_or_null(&mut self) -> Result<Option<i64>, CborError> {
        if self.bytes.get(self.at) == Some(&NULL) {
            self.at += 1;
            return Ok(None);
        }
        self.int().map(Some)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.value(BYTES, "a byte string")?;
        self.take(usize::try_from(length).map_err(|_| CborError::Short)?)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CborError> {
        let wanted = "a UTF-8 text";
        let at = self.at;
        let length = self.value(TEXT, wanted)?;
        let bytes = self.take(usize::try_from(length).map_err(|_| CborError::Short)?)?;
        std::str::from_utf8(bytes).map_err(|_| CborError::Unexpected { wanted, at })
    }

    /// Number of items that follow. Every item takes at least one byte, so a count beyond the bytes left is refused
    /// before anybody reserves memory for it.
    pub(super) fn array(&mut self) -> Result<usize, CborError> {
        let count = usize::try_from(self.value(ARRAY, "an array")?).map_err(|_| CborError::Short)?;
        if count > self.bytes.len() - self.at { Err(CborError::Short) } else { Ok(count) }
    }

    /// An array of exactly `items`.
    pub(super) fn array_of(&mut self, items: usize, wanted: &'static str) -> Result<(), CborError> {
        let at = self.at;
        if self.array()? == items { Ok(()) } else { Err(CborError::Unexpected { wanted, at }) }
    }

    /// Number of pairs that follow, bounded as items are.
    pub(super) fn map(&mut self) -> Result<usize, CborError> {
        let pairs = usize::try_from(self.value(MAP, "a map")?).map_err(|_| CborError::Short)?;
        if pairs > (self.bytes.len() - self.at) / 2 { Err(CborError::Short) } else { Ok(pairs) }
    }

    /// The key `name`, here and nowhere else.
    pub(super) fn key(&mut self, name: &'static str) -> Result<(), CborError> {
        let at = self.at;
        if self.text()? == name { Ok(()) } else { Err(CborError::Unexpected { wanted: name, at }) }
    }

    /// Nothing may follow.
    pub(super) fn finish(self) -> Result<(), CborError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(CborError::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_the_standard_shows_them() {
        // RFC 8949, appendix A.
        let cases: [(i64, &str); 10] = [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (-1, "20"),
            (-100, "3863"),
            (-1000, "3903e7"),
        ];
        for (value, written) in cases {
            let mut encoder = Encoder::default();
            encoder.int(value);
            let bytes = encoder.finish();
            assert_eq!(hex::encode(&bytes), written);
            assert_eq!(Decoder::new(&bytes).int(), Ok(value));
        }
        for edge in [i64::MIN, i64::MAX] {
            let mut encoder = Encoder::default();
            encoder.int(edge);
            assert_eq!(Decoder::new(&encoder.finish()).int(), Ok(edge));
        }
    }

    #[test]
    fn longer_forms_and_indefinite_lengths_are_refused() {
        for bytes in ["1817", "190017", "1a00000017", "1b0000000000000017", "1c", "1f"] {
            assert!(Decoder::new(&hex::decode(bytes).unwrap()).uint().is_err(), "{bytes}");
        }
        assert!(Decoder::new(&hex::decode("5f4101ff").unwrap()).bytes().is_err());
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_memory_is_taken() {
        for bytes in ["9bffffffffffffffff", "9a7fffffff", "5bffffffffffffffff01"] {
            let bytes = hex::decode(bytes).unwrap();
            assert!(Decoder::new(&bytes).array().err().or(Decoder::new(&bytes).bytes().err()).is_some());
        }
    }
}
