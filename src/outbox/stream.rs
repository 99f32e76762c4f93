//! What a stream is called and how urgent it is.

use std::fmt;

use crate::base::{Epoch, Name};

/// How urgent a stream is, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Sent before everything else.
    Alarm,
    /// What a model said.
    Verdict,
    /// A window of readings.
    Summary,
    /// Readings as they came.
    Raw,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 4] = [Self::Alarm, Self::Verdict, Self::Summary, Self::Raw];

    /// The word used in topics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Verdict => "verdict",
            Self::Summary => "summary",
            Self::Raw => "raw",
        }
    }

    /// The class of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// Names a stream of the outbox. Each has its own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The stream's name.
    pub name: Name,
    /// Its urgency; the same name in two classes is two streams.
    pub class: Class,
    /// The epoch whose rows these are, if it is not this file's: they were salvaged from one that was set aside.
    pub epoch: Option<Epoch>,
}

/// Stands between name and epoch in the table; no name holds it.
const EPOCH_MARK: char = '@';

impl StreamKey {
    /// A stream of this file's own epoch.
    pub fn new(name: Name, class: Class) -> Self {
        Self { name, class, epoch: None }
    }

    /// The name as the table has it: one name for each epoch.
    pub(super) fn stored_name(&self) -> String {
        match self.epoch {
            None => self.name.to_string(),
            Some(epoch) => format!("{}{EPOCH_MARK}{epoch}", self.name),
        }
    }

    /// The key of a row of the table; None if nobody here wrote it.
    pub(super) fn from_stored(class: &str, name: &str) -> Option<Self> {
        let class = Class::from_word(class)?;
        let (name, epoch) = match name.split_once(EPOCH_MARK) {
            None => (name, None),
            Some((name, epoch)) => (name, Some(Epoch(epoch.parse().ok()?))),
        };
        Some(Self { name: Name::new(name).ok()?, class, epoch })
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.class.as_str(), self.name)?;
        self.epoch.map_or(Ok(()), |epoch| write!(f, " of epoch {epoch}"))
    }
}

/// A registered stream. A cheap copy; belongs to the outbox that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Default))]
pub struct StreamHandle {
    /// Index in the outbox's memory.
    pub(super) at: usize,
    /// Row of `outbox_stream`.
    pub(super) no: i64,
}
