//! The data types of MQTT on the wire: integers, strings, binary data, variable byte integers.

use bytes::BufMut;

use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketId, PacketKind};

/// The largest remaining length that four bytes can say.
pub(super) const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// Reads fields from the body of one packet. It can not leave that body.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    packet: PacketKind,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(packet: PacketKind, bytes: &'a [u8]) -> Self {
        Self { packet, bytes }
    }

    pub(super) fn packet(&self) -> PacketKind {
        self.packet
    }

    pub(super) fn fault(&self, fault: Fault) -> DecodeError {
        DecodeError { packet: self.packet, fault }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.bytes.split_at_checked(len) else {
            return Err(self.fault(Fault::Truncated));
        };
        self.bytes = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.fault(Fault::Truncated));
        };
        self.bytes = tail;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let id = self.u16()?;
        PacketId::new(id).ok_or(self.fault(Fault::PacketIdZero))
    }

    /// A variable byte integer inside a packet: MQTT 5.0 only, so the fewest bytes are required.
    #[inline]
    pub(super) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        match variable_byte_integer(self.bytes) {
            Ok(Some(integer)) if integer.overlong => Err(self.fault(Fault::OverlongVariableByteInteger)),
            Ok(Some(integer)) => {
                self.bytes = &self.bytes[integer.len..];
                Ok(integer.value)
            }
            Ok(None) => Err(self.fault(Fault::Truncated)),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string, well-formed and without U+0000 `[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`.
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.string_with_nulls()?;
        if text.as_bytes().contains(&0) {
            return Err(self.fault(Fault::Utf8));
        }
        Ok(text)
    }

    /// A name that will be seen in logs: a string without control characters.
    pub(super) fn name(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.string()?;
        if name.contains(char::is_control) {
            return Err(self.fault(Fault::ControlCharacter));
        }
        Ok(name)
    }

    /// A UTF-8 string whose caller looks for U+0000 itself (topics, which are scanned anyway).
    #[inline]
    pub(super) fn string_with_nulls(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        std::str::from_utf8(bytes).map_err(|_| self.fault(Fault::Utf8))
    }

    /// The packet must end here.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.fault(Fault::TrailingBytes(self.bytes.len()))) }
    }
}

/// A decoded variable byte integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VariableByteInteger {
    pub(super) value: u32,
    /// Bytes that it took.
    pub(super) len: usize,
    /// Whether fewer bytes could have said the same.
    pub(super) overlong: bool,
}

/// Reads a variable byte integer from the front of `bytes`; `None` if it does not end there yet.
#[inline]
pub(super) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<VariableByteInteger>, Fault> {
    let mut value = 0u32;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(VariableByteInteger { value, len: at + 1, overlong: at > 0 && *byte == 0 }));
        }
    }
    if bytes.len() >= 4 { Err(Fault::VariableByteInteger) } else { Ok(None) }
}

/// How many bytes `value` takes as a variable byte integer.
#[inline]
pub(super) fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes `value` (at most [`MAX_REMAINING_LENGTH`]) into `out` and returns the bytes used.
#[inline]
pub(super) fn write_variable_byte_integer(out: &mut [u8; 4], mut value: usize) -> usize {
    let mut at = 0;
    loop {
        out[at] = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 || at == 3 {
            return at + 1;
        }
        out[at] |= 0x80;
        at += 1;
    }
}

/// Where an encoder puts bytes. A packet is written twice: into a [`Counter`] for its length, then into the buffer.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

/// Counts bytes only.
#[derive(Debug, Default)]
pub(super) struct Counter(pub(super) usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Appends to a write buffer.
pub(super) struct Appender<'a, B>(pub(super) &'a mut B);

impl<B: BufMut> Sink for Appender<'_, B> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }
}

pub(super) fn put_binary(sink: &mut dyn Sink, bytes: &[u8]) -> Result<(), EncodeError> {
    let len = field_len(bytes)?;
    sink.put(&len.to_be_bytes());
    sink.put(bytes);
    Ok(())
}

pub(super) fn put_variable_byte_integer(sink: &mut dyn Sink, value: usize) {
    let mut bytes = [0; 4];
    let len = write_variable_byte_integer(&mut bytes, value);
    sink.put(&bytes[..len]);
}

/// The length prefix of a string or binary field.
pub(super) fn field_len(bytes: &[u8]) -> Result<u16, EncodeError> {
    u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_of_the_specification() {
        for (value, bytes) in [
            (0usize, &[0x00u8][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let read = variable_byte_integer(bytes).unwrap().unwrap();
            assert_eq!((read.value as usize, read.len, read.overlong), (value, bytes.len(), false));
            let mut out = [0; 4];
            let len = write_variable_byte_integer(&mut out, value);
            assert_eq!(&out[..len], bytes);
            assert_eq!(variable_byte_integer_len(value), bytes.len());
            assert_eq!(variable_byte_integer(&bytes[..bytes.len() - 1]), Ok(None));
        }
        assert_eq!(variable_byte_integer(&[0x80, 0x80, 0x80, 0x80]), Err(Fault::VariableByteInteger));
        assert!(variable_byte_integer(&[0x80, 0x00]).unwrap().unwrap().overlong);
    }

    #[test]
    fn strings_refuse_surrogates_overlong_forms_and_null() {
        for bad in [&[0xED, 0xA0, 0x80][..], &[0xC0, 0x80], &[0xFF], &[0x00], &[0xF4, 0x90, 0x80, 0x80]] {
            let mut body = vec![0, u8::try_from(bad.len()).unwrap()];
            body.extend(bad);
            let fault = Reader::new(PacketKind::Publish, &body).string().unwrap_err().fault;
            assert_eq!(fault, Fault::Utf8);
        }
        // A byte order mark is text and stays [MQTT-1.5.4-3].
        let text = Reader::new(PacketKind::Publish, &[0, 3, 0xEF, 0xBB, 0xBF]).string().unwrap();
        assert_eq!(text, "\u{FEFF}");
    }
}
