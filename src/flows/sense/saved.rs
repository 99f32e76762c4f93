//! A stream's memory as its row in history.

use super::judge::Memory;
use crate::flows::record;

/// A stream's memory as its row holds it: the position it was taken at, eight bytes that once said where the open summary
/// began, and the memory itself.
pub(super) struct Saved {
    pub memory: Memory,
}

impl Saved {
    const HEAD: usize = 16;

    /// As a row.
    pub(super) fn write(seq: u64, memory: &[u8]) -> Vec<u8> {
        [&seq.to_le_bytes(), &[0; 8], memory].concat()
    }

    fn parts(row: &[u8]) -> Option<(u64, &[u8])> {
        let (head, memory) = row.split_at_checked(Self::HEAD)?;
        Some((u64::from_le_bytes(*head.first_chunk()?), memory))
    }

    pub(super) fn seq(row: &[u8]) -> u64 {
        Self::parts(row)
            .filter(|(_, memory)| record::decode::<Memory>("memory", memory).is_ok())
            .map_or(0, |(seq, _)| seq)
    }

    pub(super) fn parse(row: &[u8]) -> Option<Self> {
        let (_, memory) = Self::parts(row)?;
        Some(Self { memory: record::decode("memory", memory).ok()? })
    }
}
