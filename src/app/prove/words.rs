//! What the writer under proof says while it works, and what it therefore owes.

use std::collections::BTreeMap;
use std::fmt;

/// One word. A number is issued inside the transaction and kept after its commit; it is released before its deletion
/// is submitted, which may be before it is said to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A life of the file began with this epoch.
    Began {
        /// The epoch.
        epoch: u64,
    },
    /// A number was issued, in a transaction that may still fail.
    Issued {
        /// Lane, from 0.
        lane: usize,
        /// Number.
        seq: u64,
    },
    /// The row was acknowledged: it is on the disk.
    Kept {
        /// Lane.
        lane: usize,
        /// Number.
        seq: u64,
        /// Which row of the load it is.
        row: u64,
    },
    /// The far side has these numbers: from now on they may vanish.
    Released {
        /// Lane.
        lane: usize,
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
    },
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { epoch } => write!(f, "began {epoch}"),
            Self::Issued { lane, seq } => write!(f, "issued {lane} {seq}"),
            Self::Kept { lane, seq, row } => write!(f, "kept {lane} {seq} {row}"),
            Self::Released { lane, first, last } => write!(f, "released {lane} {first} {last}"),
        }
    }
}

impl Word {
    /// The word on this line; `None` if it is none or the line was cut.
    pub fn read(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let what = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        let lane = |number: u64| usize::try_from(number).ok();
        match what {
            "began" => Some(Self::Began { epoch: number()? }),
            "issued" => Some(Self::Issued { lane: lane(number()?)?, seq: number()? }),
            "kept" => Some(Self::Kept { lane: lane(number()?)?, seq: number()?, row: number()? }),
            "released" => Some(Self::Released { lane: lane(number()?)?, first: number()?, last: number()? }),
            _ => None,
        }
    }
}

/// What one lane owes.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// Highest number that anybody has seen.
    pub issued: u64,
    /// Acknowledged rows by number, with which row of the load it is.
    pub kept: BTreeMap<u64, u64>,
    /// Every number up to here was released.
    pub released: u64,
}

/// Every obligation of a writer at some moment.
#[derive(Debug, Clone, Default)]
pub struct Debt {
    /// The life of the file.
    pub epoch: u64,
    /// By lane.
    pub lanes: BTreeMap<usize, Lane>,
    /// Rows acknowledged so far, released or not.
    pub acknowledged: u64,
}

impl Debt {
    /// Takes note of a word.
    pub fn hear(&mut self, word: Word) {
        match word {
            Word::Began { epoch } => self.epoch = epoch,
            Word::Issued { lane, seq } => {
                let lane = self.lanes.entry(lane).or_default();
                lane.issued = lane.issued.max(seq);
            }
            Word::Kept { lane, seq, row } => {
                self.acknowledged += 1;
                let lane = self.lanes.entry(lane).or_default();
                // A row may be read, sent and released between its commit and its acknowledgement.
                if seq > lane.released {
                    lane.kept.insert(seq, row);
                }
            }
            Word::Released { lane, last, .. } => {
                let lane = self.lanes.entry(lane).or_default();
                lane.released = lane.released.max(last);
                lane.kept = lane.kept.split_off(&(last + 1));
            }
        }
    }

    /// Acknowledged rows that must be there.
    pub fn owed(&self) -> usize {
        self.lanes.values().map(|lane| lane.kept.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_as_they_are_written_and_a_cut_line_is_none() {
        let words = [
            Word::Began { epoch: 7 },
            Word::Issued { lane: 0, seq: 12 },
            Word::Kept { lane: 2, seq: 12, row: 90 },
            Word::Released { lane: 1, first: 3, last: 9 },
        ];
        for word in words {
            assert_eq!(Word::read(&word.to_string()), Some(word));
        }
        assert_eq!(Word::read("kept 2 12"), None);
        assert_eq!(Word::read("rele"), None);
    }

    #[test]
    fn what_was_released_is_owed_no_more() {
        let mut debt = Debt::default();
        for seq in 1..=5 {
            debt.hear(Word::Kept { lane: 0, seq, row: seq });
        }
        debt.hear(Word::Released { lane: 0, first: 1, last: 3 });
        assert_eq!((debt.owed(), debt.acknowledged), (2, 5));
        debt.hear(Word::Kept { lane: 0, seq: 3, row: 3 });
        assert_eq!(debt.owed(), 2, "kept is said after released when the far side is quick");
    }
}
