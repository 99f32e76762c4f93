//! What leaves the queue together, and the ledger entries that travel with it.

use super::stream::{StreamHandle, StreamKey};
use crate::base::{Epoch, Seq, Stamp};

/// How much one batch may hold. At least one row always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most rows; also most ledger entries.
    pub rows: usize,
    /// Most bytes of bodies.
    pub bytes: usize,
}

/// Names a batch until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// The stream.
    pub stream: StreamHandle,
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
}

/// Consecutive numbers of one stream: each from `first` to `last` is a row or in a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// For the deletion after the acknowledgement.
    pub id: BatchId,
    /// The stream's name and class.
    pub stream: StreamKey,
    /// The life of the queue file that the rows are of: this one, or the one that they were salvaged from.
    pub epoch: Epoch,
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
    /// In ascending order.
    pub rows: Vec<Row>,
    /// In ascending order. Empty in normal life.
    pub gaps: Vec<Gap>,
}

/// One envelope as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub seq: Seq,
    /// When it was made.
    pub stamp: Stamp,
    /// What to add to `stamp.wall_ms` if its clock was not synchronised: known once the clock was good in that boot.
    pub offset_ms: Option<i64>,
    /// Opaque.
    pub body: Vec<u8>,
}

/// Why numbers carry no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Reserved by a process that ended without giving them back. Nothing acknowledged is missing.
    Restart,
    /// Issued in a commit that failed. Nothing acknowledged is missing.
    Rollback,
    /// The row was there and its checksum was wrong, or it vanished: acknowledged data is lost.
    Corrupt,
    /// The far side takes no message that large: acknowledged data is lost on the way.
    Unsendable,
    /// Not found in a file that was set aside: acknowledged data is lost, at most `count` rows of it.
    Quarantined,
    /// The oldest rows of a class went because its share was used up: acknowledged data is lost.
    Evicted,
    /// A new row was not kept because the share of its class was used up: acknowledged data is lost.
    RefusedNewest,
    /// The row waited longer than its class allows: acknowledged data is lost.
    Expired,
    /// The oldest rows of a class became a summary because its share was used up: their details are lost.
    Summarised,
}

impl GapReason {
    const ALL: [Self; 9] = [
        Self::Restart,
        Self::Rollback,
        Self::Corrupt,
        Self::Unsendable,
        Self::Quarantined,
        Self::Evicted,
        Self::RefusedNewest,
        Self::Expired,
        Self::Summarised,
    ];

    /// The word used in the ledger, on the wire and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Rollback => "rollback",
            Self::Corrupt => "corrupt",
            Self::Unsendable => "unsendable",
            Self::Quarantined => "quarantined",
            Self::Evicted => "evicted",
            Self::RefusedNewest => "refused_newest",
            Self::Expired => "expired",
            Self::Summarised => "summarised",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// A ledger entry: numbers that will never be rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
    /// Acknowledged rows lost; 0 if the numbers were never anybody's.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
    /// When it was noticed, milliseconds since 1970.
    pub wall_ms: i64,
}
