//! What streams need to go on after a restart, for many of them at once.
//!
//! A row of arrived readings holds those of all streams that came together. Asked for stream by stream, a start with a
//! thousand streams would read the same tables some thousand times.

use std::collections::{HashMap, VecDeque};

use rusqlite::Connection;

use super::arrival::{self, Order, Table};
use super::block::packed_until;
use super::walk::packed_backward;
use super::{Reading, StreamNo};
use crate::store::Error;

/// The readings that one stream needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The stream.
    pub stream: StreamNo,
    /// All from this number on,
    pub first: u64,
    /// and those before this number,
    pub before: u64,
    /// so many of them, the newest, as far as there are as many.
    pub count: usize,
}

struct Found {
    since: Since,
    packed: u64,
    readings: VecDeque<Reading>,
    /// Of them, those before `since.before`.
    earlier: usize,
}

impl Found {
    fn is_enough(&self, oldest: u64) -> bool {
        oldest <= self.since.first && self.earlier >= self.since.count
    }

    fn is_earlier(&self, reading: &Reading) -> usize {
        usize::from(reading.seq < self.since.before)
    }

    fn push(&mut self, reading: Reading) {
        self.earlier += self.is_earlier(&reading);
        self.readings.push_back(reading);
        while let Some(oldest) = self.readings.front() {
            let is_earlier = self.is_earlier(oldest);
            if oldest.seq >= self.since.first || self.earlier - is_earlier < self.since.count {
                break;
            }
            self.earlier -= is_earlier;
            self.readings.pop_front();
        }
    }
}

/// The readings of each, in order, in the order of `wanted`, which names a stream once. All of them are in memory
/// together: ask for some streams at a time.
pub fn since(connection: &Connection, wanted: &[Since]) -> Result<Vec<Vec<Reading>>, Error> {
    let mut found = Vec::with_capacity(wanted.len());
    for &since in wanted {
        let packed = packed_until(connection, since.stream.0)?;
        found.push(Found { since, packed, readings: VecDeque::new(), earlier: 0 });
    }
    let places: HashMap<i64, usize> = wanted.iter().enumerate().map(|(at, since)| (since.stream.0, at)).collect();
    let active = arrival::active([Table::A.newest(connection)?, Table::B.newest(connection)?]);
    for table in [active.other(), active] {
        arrival::each(connection, table, Order::OldestFirst, &|no| places.contains_key(&no), &mut |no, readings| {
            let stream = &mut found[places[&no]];
            // What a block has already counts there.
            let packed = stream.packed;
            readings.into_iter().filter(|reading| reading.seq > packed).for_each(|reading| stream.push(reading));
            Ok(true)
        })?;
    }
    for stream in &mut found {
        if stream.is_enough(stream.readings.front().map_or(u64::MAX, |oldest| oldest.seq)) {
            continue;
        }
        packed_backward(connection, stream.since.stream, u64::MAX, &mut |reading| {
            if stream.is_enough(reading.seq.saturating_add(1)) {
                return false;
            }
            stream.earlier += stream.is_earlier(&reading);
            stream.readings.push_front(reading);
            true
        })?;
    }
    Ok(found.into_iter().map(|stream| stream.readings.into()).collect())
}
