//! A message may be one zstd frame (RFC 8878) around the CBOR of a batch. The first byte tells them apart: a batch begins
//! with a map header, a frame with 28 b5 2f fd. Reading is bounded before anything is unpacked.

use bytes::Bytes;

/// First bytes of every zstd frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Fast, and within a few percent of the slower levels on batches of this size.
const LEVEL: i32 = 3;
/// Shorter messages do not become smaller.
const WORTHWHILE_BYTES: usize = 128;
/// So much is unpacked from any frame, whatever its ratio.
const HARMLESS_BYTES: usize = 1 << 20;

/// What a receiver unpacks at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes after unpacking.
    pub plain_bytes: usize,
    /// Bytes after unpacking for each byte before; below 1 MiB any ratio is taken.
    pub ratio: usize,
}

impl FrameLimits {
    fn most_bytes(&self, packed_bytes: usize) -> usize {
        packed_bytes.saturating_mul(self.ratio).max(HARMLESS_BYTES).min(self.plain_bytes)
    }
}

impl Default for FrameLimits {
    fn default() -> Self {
        // Repeated readings compress 30 to 60 times; a bomb a thousand times and more.
        Self { plain_bytes: 16 << 20, ratio: 250 }
    }
}

/// Why a frame is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame does not say how large its content is, or something follows it.
    #[error("failed to unpack the message: not exactly one zstd frame that states its content size")]
    Shape,
    /// The content would be too large.
    #[error(
        "failed to unpack the message: {plain_bytes} bytes out of {packed_bytes} are more than the {most_bytes} allowed"
    )]
    Bomb {
        /// What the frame says its content has.
        plain_bytes: u64,
        /// Size of the frame.
        packed_bytes: usize,
        /// What is taken from a frame of that size.
        most_bytes: usize,
    },
    /// Damaged, or not what it says.
    #[error("failed to unpack the message: {0}")]
    Content(String),
}

/// The message as it travels: packed if that is smaller and every receiver with our limits takes it.
pub(super) fn pack(plain: Vec<u8>) -> Vec<u8> {
    if plain.len() < WORTHWHILE_BYTES {
        return plain;
    }
    match zstd::bulk::compress(&plain, LEVEL) {
        Ok(packed) if packed.len() < plain.len() && plain.len() <= FrameLimits::default().most_bytes(packed.len()) => {
            packed
        }
        _ => plain,
    }
}

/// True if the message is a frame.
pub(super) fn is_packed(message: &[u8]) -> bool {
    message.starts_with(&MAGIC)
}

/// The content of a frame. Memory is taken for what the frame states, after that was found to be within the limits.
pub(super) fn unpack(packed: &[u8], limits: &FrameLimits) -> Result<Bytes, FrameError> {
    let stated = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().ok_or(FrameError::Shape)?;
    if zstd::zstd_safe::find_frame_compressed_size(packed) != Ok(packed.len()) {
        return Err(FrameError::Shape);
    }
    let most_bytes = limits.most_bytes(packed.len());
    let plain_bytes = usize::try_from(stated).ok().filter(|bytes| *bytes <= most_bytes);
    let Some(plain_bytes) = plain_bytes else {
        return Err(FrameError::Bomb { plain_bytes: stated, packed_bytes: packed.len(), most_bytes });
    };
    match zstd::bulk::decompress(packed, plain_bytes) {
        Ok(plain) if plain.len() == plain_bytes => Ok(plain.into()),
        Ok(_) => Err(FrameError::Shape),
        Err(error) => Err(FrameError::Content(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_is_refused_by_what_it_states_before_memory_is_taken() {
        let packed = zstd::bulk::compress(&vec![0; 8 << 20], 19).unwrap();
        assert!(packed.len() < 2000, "{}", packed.len());
        let error = unpack(&packed, &FrameLimits::default()).unwrap_err();
        assert!(matches!(error, FrameError::Bomb { plain_bytes, .. } if plain_bytes == 8 << 20), "{error}");
        let limits = FrameLimits { plain_bytes: 1000, ratio: usize::MAX };
        let packed = pack(vec![7; 1001]);
        assert!(matches!(unpack(&packed, &limits), Err(FrameError::Bomb { plain_bytes: 1001, most_bytes: 1000, .. })));
    }

    #[test]
    fn what_a_receiver_would_take_for_a_bomb_travels_plain() {
        let zeros = vec![0; 8 << 20];
        assert_eq!(pack(zeros.clone()).len(), zeros.len());
        let zeros = vec![0; 1 << 20];
        let packed = pack(zeros.clone());
        assert!(packed.len() < 1000, "{}", packed.len());
        assert_eq!(unpack(&packed, &FrameLimits::default()).unwrap(), zeros);
    }

    #[test]
    fn a_frame_that_hides_its_size_or_has_company_is_refused() {
        let plain = vec![7; 1000];
        let hidden = {
            // The streaming interface does not know the size in advance.
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).unwrap();
            std::io::Write::write_all(&mut encoder, &plain).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(unpack(&hidden, &FrameLimits::default()), Err(FrameError::Shape));
        let two = [pack(plain.clone()), pack(plain.clone())].concat();
        assert_eq!(unpack(&two, &FrameLimits::default()), Err(FrameError::Shape));
        let packed = pack(plain);
        assert_eq!(unpack(&packed[..packed.len() - 1], &FrameLimits::default()), Err(FrameError::Shape));
    }

    #[test]
    fn a_frame_that_states_less_than_it_holds_is_refused() {
        let mut packed = pack(vec![7; 300]);
        // A single segment with a content size of two bytes, 256 less than the content.
        assert_eq!((packed[4] >> 5, packed[5]), (0b011, 44));
        packed[5] = 43;
        assert!(matches!(unpack(&packed, &FrameLimits::default()), Err(FrameError::Content(_) | FrameError::Shape)));
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_and_never_grows(
            plain in proptest::collection::vec(prop_oneof![3 => Just(7_u8), 1 => any::<u8>()], 0..3000)
        ) {
            let packed = pack(plain.clone());
            prop_assert!(packed.len() <= plain.len());
            if packed.len() < plain.len() {
                prop_assert_eq!(&unpack(&packed, &FrameLimits::default()).unwrap()[..], &plain[..]);
            }
        }

        #[test]
        fn random_frames_are_refused_without_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let message = [&MAGIC[..], &tail].concat();
            if let Ok(plain) = unpack(&message, &FrameLimits::default()) {
                prop_assert!(plain.len() <= HARMLESS_BYTES.max(message.len() * 250));
            }
        }
    }
}
