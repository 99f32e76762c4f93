//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding>), borrowed from the file.

use super::Error;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Reader<'a>),
    Fixed32([u8; 4]),
}

/// The fields of a message, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Of `bytes`' first one in the file.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Text; what is not UTF-8 is an error.
    pub(super) fn text(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes).map_err(|_| self.torn("text that is not UTF-8"))
    }

    /// The number and value of the next field; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Error> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.fixed()?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).ok().filter(|&length| length <= self.bytes.len());
                let length = length.ok_or_else(|| self.torn("a field longer than the rest"))?;
                let inner = Reader { bytes: &self.bytes[..length], at: self.at };
                self.advance(length);
                Field::Bytes(inner)
            }
            5 => Field::Fixed32(self.fixed()?),
            _ => return Err(self.torn("an unknown kind of field")),
        };
        if tag >> 3 == 0 {
            return Err(self.torn("a field without a number"));
        }
        Ok(Some((tag >> 3, field)))
    }

    /// Whole numbers packed one after the other.
    pub(super) fn varints(mut self, each: &mut impl FnMut(u64)) -> Result<(), Error> {
        while !self.bytes.is_empty() {
            each(self.varint()?);
        }
        Ok(())
    }

    pub(super) fn torn(&self, what: &'static str) -> Error {
        Error::Torn { what, at: self.at }
    }

    fn advance(&mut self, by: usize) {
        self.bytes = &self.bytes[by..];
        self.at += by;
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for (at, &byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.advance(at + 1);
                return Ok(value);
            }
        }
        Err(self.torn("a number without an end"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (&fixed, _) = self.bytes.split_first_chunk().ok_or_else(|| self.torn("a number without an end"))?;
        self.advance(N);
        Ok(fixed)
    }
}

impl<'a> Field<'a> {
    /// A message, text or packed numbers.
    pub(super) fn message(self, within: &Reader<'a>) -> Result<Reader<'a>, Error> {
        match self {
            Self::Bytes(reader) => Ok(reader),
            _ => Err(within.torn("a number where a message belongs")),
        }
    }

    pub(super) fn whole(self, within: &Reader<'a>) -> Result<i64, Error> {
        match self {
            Self::Varint(value) => Ok(value.cast_signed()),
            _ => Err(within.torn("a message where a whole number belongs")),
        }
    }

    /// Numbers of a repeated field, packed or single.
    pub(super) fn wholes(self, within: &Reader<'a>, into: &mut Vec<i64>) -> Result<(), Error> {
        match self {
            Self::Varint(value) => {
                into.push(value.cast_signed());
                Ok(())
            }
            Self::Bytes(packed) => packed.varints(&mut |value| into.push(value.cast_signed())),
            _ => Err(within.torn("a fraction where a whole number belongs")),
        }
    }

    pub(super) fn float(self, within: &Reader<'a>) -> Result<f32, Error> {
        match self {
            Self::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(within.torn("no 32-bit float where one belongs")),
        }
    }

    /// 32-bit floats of a repeated field, packed or single.
    pub(super) fn floats(self, within: &Reader<'a>, into: &mut Vec<f32>) -> Result<(), Error> {
        match self {
            Self::Fixed32(bytes) => into.push(f32::from_le_bytes(bytes)),
            Self::Bytes(packed) if packed.bytes.len() % 4 == 0 => {
                let (chunks, _) = packed.bytes.as_chunks::<4>();
                into.extend(chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
            _ => return Err(within.torn("no 32-bit floats where they belong")),
        }
        Ok(())
    }

    /// 64-bit floats of a repeated field, packed or single.
    pub(super) fn doubles(self, within: &Reader<'a>, into: &mut Vec<f64>) -> Result<(), Error> {
        match self {
            Self::Fixed64(bytes) => into.push(f64::from_le_bytes(bytes)),
            Self::Bytes(packed) if packed.bytes.len() % 8 == 0 => {
                let (chunks, _) = packed.bytes.as_chunks::<8>();
                into.extend(chunks.iter().map(|&bytes| f64::from_le_bytes(bytes)));
            }
            _ => return Err(within.torn("no 64-bit floats where they belong")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_is_read_and_every_prefix_is_torn_or_shorter() {
        let bytes = [0x08, 0x96, 0x01, 0x15, 0, 0, 0x80, 0x3f, 0x1a, 2, b'h', b'i', 0x21, 0, 0, 0, 0, 0, 0, 0, 0x40];
        let fields = |bytes: &[u8]| -> Result<Vec<u64>, Error> {
            let mut reader = Reader::new(bytes);
            let mut numbers = Vec::new();
            while let Some((number, field)) = reader.next()? {
                match number {
                    1 => assert_eq!(field.whole(&reader)?, 150),
                    2 => assert_eq!(field.float(&reader)?, 1.0),
                    3 => assert_eq!(field.message(&reader)?.text()?, "hi"),
                    _ => assert_eq!(field, Field::Fixed64(2.0_f64.to_le_bytes())),
                }
                numbers.push(number);
            }
            Ok(numbers)
        };
        assert_eq!(fields(&bytes).unwrap(), [1, 2, 3, 4]);
        for length in 0..bytes.len() {
            assert!(fields(&bytes[..length]).map_or(true, |found| found.len() < 4), "{length}");
        }
    }

    #[test]
    fn lengths_and_numbers_that_lead_out_are_refused_with_their_place() {
        let mut long = Reader::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(long.next(), Err(Error::Torn { what: "a field longer than the rest", at: 6 }));
        assert!(Reader::new(&[0x80; 11]).next().is_err());
        assert!(Reader::new(&[0x0b]).next().is_err());
        assert!(Reader::new(&[0x02, 0]).next().is_err());
        assert!(Reader::new(&[0x1a, 1, 0xff]).next().unwrap().unwrap().1.message(&long).unwrap().text().is_err());
    }
}
