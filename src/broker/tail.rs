//! The end of a persistent session's queue that is on the disk only.
//!
//! Rows of a session are in the order of their places. Rows whose commit is still under way are known by place, because
//! commits need not end in that order: a page never reaches past the first of them.
//!
//! How many rows an earlier process left is not counted at start, which would take as long as there are rows. The packet
//! ids of the first and the last say how many there can be; reading them puts the figure right.

use std::collections::BTreeSet;

use super::outgoing::{PACKET_IDS, Restored};

/// Rows of one page.
pub(super) const PAGE_ROWS: usize = 256;
/// Bytes of one page, or one row.
pub(super) const PAGE_BYTES: usize = 256 << 10;

/// What a start learns about a session's rows without reading them: the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtStart {
    pub(super) first_packet_id: u16,
    pub(super) last_packet_id: u16,
    pub(super) first_place: u64,
    pub(super) last_place: u64,
    /// Size of the last row, which stands for all until they are read.
    pub(super) row_bytes: usize,
}

impl AtStart {
    /// Most rows that there can be.
    pub(super) fn span(&self) -> u64 {
        let (first, last) = (u64::from(self.first_packet_id.max(1)), u64::from(self.last_packet_id.max(1)));
        (last + PACKET_IDS - first) % PACKET_IDS + 1
    }
}

/// Rows to read: places above `after` and not above `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageOf {
    pub(super) after: u64,
    pub(super) until: u64,
}

/// What was read, in order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) rows: Vec<Restored>,
    /// Place and size of rows whose checksum was wrong.
    pub(super) skipped: Vec<(u64, usize)>,
    /// There is no further row up to `until`.
    pub(super) is_last: bool,
}

/// The rows behind what is in memory.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Rows of this process.
    exact: usize,
    /// Rows of an earlier process, at most.
    guessed: usize,
    /// What the queue's bytes count for those.
    guessed_bytes: usize,
    /// The last row of an earlier process: whatever was sent of them is repeated.
    repeated_until: u64,
    first_number: u64,
    /// Rows above this place are not in memory.
    after: u64,
    /// Places whose commit is under way.
    pending: BTreeSet<u64>,
    is_loading: bool,
}

impl Tail {
    /// Behind a queue whose next number would be `next`.
    pub(super) fn at_start(rows: &AtStart, next: u64) -> Self {
        let guessed = usize::try_from(rows.span()).unwrap_or(usize::MAX);
        Self {
            guessed,
            guessed_bytes: guessed.saturating_mul(rows.row_bytes),
            repeated_until: rows.last_place,
            first_number: next
                + (u64::from(rows.first_packet_id.max(1)) - 1 + PACKET_IDS - next % PACKET_IDS) % PACKET_IDS,
            after: rows.first_place - 1,
            ..Self::default()
        }
    }

    pub(super) fn messages(&self) -> usize {
        self.exact + self.guessed
    }

    pub(super) fn guessed_bytes(&self) -> usize {
        self.guessed_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages() == 0 && !self.is_loading
    }

    pub(super) fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// True if an earlier process may have sent the row.
    pub(super) fn is_repeated(&self, place: u64) -> bool {
        place <= self.repeated_until
    }

    /// No row of the tail has a lower number.
    pub(super) fn first_number(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first_number)
    }

    /// A new row, whose commit is under way.
    pub(super) fn push(&mut self, number: u64, place: u64) {
        if self.is_empty() {
            (self.first_number, self.after) = (number, place - 1);
        }
        self.exact += 1;
        self.pending.insert(place);
    }

    /// The last row in memory goes back to the disk, where it is.
    pub(super) fn push_front(&mut self, number: u64, place: u64) {
        self.exact += 1;
        (self.first_number, self.after) = (number, place - 1);
    }

    /// A commit ended. True if the row is one of the tail.
    pub(super) fn committed(&mut self, place: u64, kept: bool) -> bool {
        let is_here = self.pending.remove(&place);
        if is_here && !kept {
            self.exact -= 1;
        }
        is_here
    }

    /// The next page, if there is a committed row and nobody reads already.
    pub(super) fn begin_page(&mut self) -> Option<PageOf> {
        let until = self.pending.first().map_or(i64::MAX.cast_unsigned(), |place| place - 1);
        if self.is_loading || self.messages() <= self.pending.len() || until <= self.after {
            return None;
        }
        self.is_loading = true;
        Some(PageOf { after: self.after, until })
    }

    pub(super) fn give_up_page(&mut self) {
        self.is_loading = false;
    }

    /// The rows of `page` are in memory, or dropped. Rows that follow have at least number `next`. Returns by how much
    /// the queue's bytes change.
    pub(super) fn end_page(&mut self, of: &PageOf, page: &Page, next: u64) -> isize {
        self.is_loading = false;
        let mut change = 0;
        let good = page.rows.iter().map(|row| (row.place, row.delivery.message.size_bytes(), true));
        for (place, size, is_good) in good.chain(page.skipped.iter().map(|&(place, size)| (place, size, false))) {
            self.after = self.after.max(place);
            let size = size.cast_signed();
            if self.is_repeated(place) {
                let guess = self.guessed_bytes.cast_signed().min(size);
                self.guessed_bytes -= guess.cast_unsigned();
                // As long as there may be one more it is worth a look.
                self.guessed = (self.guessed.saturating_sub(1)).max(1);
                change -= guess;
                change += if is_good { size } else { 0 };
            } else {
                self.exact = self.exact.saturating_sub(1);
                change -= if is_good { 0 } else { size };
            }
        }
        if self.after >= self.repeated_until || page.is_last && of.until >= self.repeated_until {
            change -= std::mem::take(&mut self.guessed_bytes).cast_signed();
            self.guessed = 0;
        }
        self.first_number = next;
        change
    }
}
