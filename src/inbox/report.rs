//! What arrived, what was declared lost and what is missing.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::apply::Inbox;
use super::ranges::Ranges;
use crate::base::{Epoch, Name, Seq};
use crate::store::Error;

/// One series: received, declared lost, missing and still to come add up to `highest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesReport {
    /// The sender.
    pub gateway: Name,
    /// Which life of its queue file.
    pub epoch: Epoch,
    /// The stream's class.
    pub class: String,
    /// The stream's name.
    pub stream: Name,
    /// Highest number that any batch named.
    pub highest: Seq,
    /// Rows received, each counted once.
    pub received: u64,
    /// Numbers that the sender declared lost and that did not arrive.
    pub declared_lost: u64,
    /// How many of those stood for acknowledged readings, as the sender counts them; the others were nobody's.
    pub readings_lost: u64,
    /// Numbers that the sender declared lost and that arrived all the same: they are counted as received.
    pub arrived_anyway: u64,
    /// What was declared lost, one entry a reason, in the order of the words.
    pub reasons: Vec<ReasonReport>,
    /// The first entries of the sender's ledger that still stand, up to the configured number.
    pub losses: Vec<Loss>,
    /// Numbers that nobody accounts for.
    pub missing: u64,
    /// The first of those ranges, up to the configured number.
    pub missing_ranges: Vec<(Seq, Seq)>,
    /// Numbers that newer rows overtook and that the sender still has, as far as it said.
    pub to_come: u64,
    /// Rows that came again and had no effect.
    pub duplicates: u64,
}

/// One entry of the sender's ledger, as far as its numbers did not arrive and no entry before it speaks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// First number, as declared.
    pub first: Seq,
    /// Last number, as declared.
    pub last: Seq,
    /// Numbers of it that are lost.
    pub numbers: u64,
    /// How many of those stood for acknowledged readings.
    pub readings: u64,
    /// The sender's word for why.
    pub reason: String,
    /// When the sender noticed, milliseconds since 1970.
    pub wall_ms: i64,
}

/// Everything that was lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonReport {
    /// The sender's word.
    pub reason: String,
    /// Entries of the ledger.
    pub entries: u64,
    /// Numbers that are lost.
    pub numbers: u64,
    /// How many of those stood for acknowledged readings.
    pub readings: u64,
    /// When the sender noticed the first of it, milliseconds since 1970.
    pub first_ms: i64,
    /// And the last.
    pub last_ms: i64,
}

/// Whose series it is and what is counted while it arrives.
#[derive(Debug)]
pub(super) struct About {
    pub(super) gateway: Name,
    pub(super) epoch: Epoch,
    pub(super) class: String,
    pub(super) stream: Name,
    pub(super) highest: Seq,
    pub(super) duplicates: u64,
}

/// Holds what arrived against what was declared lost. Wherever the receiver's state lives, the sum is made here.
pub(super) struct Settlement {
    about: About,
    received: Ranges,
    /// Received, or declared lost by an entry that was looked at.
    known: Ranges,
    declared: Ranges,
    reasons: BTreeMap<String, ReasonReport>,
    losses: Vec<Loss>,
    most: usize,
}

impl Settlement {
    /// Lists at most `most` losses and `most` missing ranges.
    pub(super) fn new(about: About, received: Ranges, most: usize) -> Self {
        let (known, declared) = (received.clone(), Ranges::default());
        Self { about, received, known, declared, reasons: BTreeMap::new(), losses: Vec::new(), most }
    }

    /// One entry of the ledger. Entries may repeat, grow and overlap; they come in the order of their first number, and
    /// the longest of those that begin together comes first. Each number is counted for one entry.
    pub(super) fn declare(&mut self, (first, last): (u64, u64), count: u64, reason: &str, wall_ms: i64) {
        let numbers: u64 = self.known.absent(first, last).iter().map(|(a, b)| b - a + 1).sum();
        self.declared.insert(first, last);
        self.known.insert(first, last);
        if numbers == 0 {
            return;
        }
        // Which of an entry's numbers were readings it does not say: what is left of it may all have been.
        let readings = count.min(numbers);
        let entry = self.reasons.entry(reason.to_owned()).or_insert_with(|| ReasonReport {
            reason: reason.to_owned(),
            entries: 0,
            numbers: 0,
            readings: 0,
            first_ms: wall_ms,
            last_ms: wall_ms,
        });
        entry.entries += 1;
        entry.numbers += numbers;
        entry.readings += readings;
        (entry.first_ms, entry.last_ms) = (entry.first_ms.min(wall_ms), entry.last_ms.max(wall_ms));
        if self.losses.len() < self.most {
            let (first, last, reason) = (Seq(first), Seq(last), reason.to_owned());
            self.losses.push(Loss { first, last, numbers, readings, reason, wall_ms });
        }
    }

    pub(super) fn finish(self) -> SeriesReport {
        let About { gateway, epoch, class, stream, highest: complete_to, duplicates } = self.about;
        let missing = self.known.absent(1, complete_to.0);
        // Beyond what the sender calls complete, what is absent was overtaken.
        let highest = Seq(self.known.pairs().last().map_or(0, |pair| pair.1).max(complete_to.0));
        let to_come = self.known.absent(complete_to.0 + 1, highest.0);
        let declared_lost = self.known.len() - self.received.len();
        SeriesReport {
            gateway,
            epoch,
            class,
            stream,
            highest,
            received: self.received.len(),
            declared_lost,
            readings_lost: self.reasons.values().map(|entry| entry.readings).sum(),
            arrived_anyway: self.declared.len() - declared_lost,
            reasons: self.reasons.into_values().collect(),
            losses: self.losses,
            missing: missing.iter().map(|(first, last)| last - first + 1).sum(),
            missing_ranges: missing.iter().take(self.most).map(|(first, last)| (Seq(*first), Seq(*last))).collect(),
            to_come: to_come.iter().map(|(first, last)| last - first + 1).sum(),
            duplicates,
        }
    }
}

/// Every series of a receiver, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One entry per (gateway, epoch, class, stream).
    pub series: Vec<SeriesReport>,
}

impl Report {
    /// Rows received in all.
    pub fn received(&self) -> u64 {
        self.series.iter().map(|series| series.received).sum()
    }

    /// Numbers that nobody accounts for, in all.
    pub fn missing(&self) -> u64 {
        self.series.iter().map(|series| series.missing).sum()
    }

    /// Acknowledged readings that were declared lost, in all.
    pub fn readings_lost(&self) -> u64 {
        self.series.iter().map(|series| series.readings_lost).sum()
    }

    /// Numbers declared lost that were nobody's, in all.
    pub fn skipped(&self) -> u64 {
        self.series.iter().map(|series| series.declared_lost - series.readings_lost).sum()
    }

    /// Repeated rows in all.
    pub fn duplicates(&self) -> u64 {
        self.series.iter().map(|series| series.duplicates).sum()
    }
}

impl Inbox {
    /// The bodies of a gateway's rows of one stream, over all its epochs, in order. All of them in memory: for
    /// inspection, not for a warehouse.
    pub fn bodies(
        &self,
        connection: &Connection,
        gateway: &str,
        class: &str,
        stream: &str,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut statement = connection.prepare_cached(
            "SELECT r.body FROM inbox_row r JOIN inbox_series s ON s.series_no = r.series_no
             WHERE s.gateway = ?1 AND s.class = ?2 AND s.stream = ?3 ORDER BY s.epoch, r.seq",
        )?;
        let bodies = statement.query_map([gateway, class, stream], |row| row.get(0))?;
        Ok(bodies.collect::<Result<_, _>>()?)
    }

    /// Reads ranges, not rows. Run it in a `store::Reader`, for one snapshot.
    pub fn report(&self, connection: &Connection) -> Result<Report, Error> {
        let mut statement = connection.prepare_cached(
            "SELECT series_no, gateway, epoch, class, stream, highest, duplicates FROM inbox_series
             ORDER BY gateway, epoch, class, stream",
        )?;
        let mut rows = statement.query([])?;
        let mut series = Vec::new();
        while let Some(row) = rows.next()? {
            let name = |at: usize| -> Result<Name, Error> {
                let text: String = row.get(at)?;
                Name::new(&text).map_err(|error| Error::Row { table: "inbox_series", what: error.to_string() })
            };
            let no: i64 = row.get(0)?;
            let highest = row.get::<_, i64>(5)?.cast_unsigned();
            let received = ranges(connection, "SELECT first, last FROM inbox_received WHERE series_no = ?1", no)?;
            let about = About {
                gateway: name(1)?,
                epoch: Epoch(row.get::<_, i64>(2)?.cast_unsigned()),
                class: row.get(3)?,
                stream: name(4)?,
                highest: Seq(highest),
                duplicates: row.get::<_, i64>(6)?.cast_unsigned(),
            };
            let mut settlement = Settlement::new(about, received, self.config.max_reported_ranges);
            let mut lost = connection.prepare_cached(
                "SELECT first, last, count, reason, wall_ms FROM inbox_lost WHERE series_no = ?1 ORDER BY first, last DESC",
            )?;
            let mut entries = lost.query([no])?;
            while let Some(entry) = entries.next()? {
                let number = |at| Ok::<_, Error>(entry.get::<_, i64>(at)?.cast_unsigned());
                let reason: String = entry.get(3)?;
                settlement.declare((number(0)?, number(1)?), number(2)?, &reason, entry.get(4)?);
            }
            series.push(settlement.finish());
        }
        Ok(Report { series })
    }
}

fn ranges(connection: &Connection, sql: &str, no: i64) -> Result<Ranges, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([no])?;
    let mut ranges = Ranges::default();
    while let Some(row) = rows.next()? {
        ranges.insert(row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers 1 to 20, of which these arrived.
    fn settlement(received: &[(u64, u64)]) -> Settlement {
        let about = About {
            gateway: Name::new("press-7").unwrap(),
            epoch: Epoch(1),
            class: "raw".into(),
            stream: Name::new("temperature").unwrap(),
            highest: Seq(20),
            duplicates: 0,
        };
        Settlement::new(about, Ranges::from_sorted(received.to_vec()), 2)
    }

    fn sum(report: &SeriesReport) -> u64 {
        report.received + report.declared_lost + report.missing + report.to_come
    }

    #[test]
    fn readings_that_are_lost_and_numbers_that_were_nobodys_are_kept_apart() {
        let mut settlement = settlement(&[(1, 5), (16, 20)]);
        settlement.declare((6, 9), 4, "evicted", 50);
        settlement.declare((10, 12), 0, "restart", 70);
        settlement.declare((13, 13), 1, "evicted", 90);
        let report = settlement.finish();
        assert_eq!((report.declared_lost, report.readings_lost, report.missing, sum(&report)), (8, 5, 2, 20));
        assert_eq!(report.missing_ranges, [(Seq(14), Seq(15))]);
        let reasons: Vec<_> =
            report.reasons.iter().map(|r| (r.reason.as_str(), r.entries, r.numbers, r.readings)).collect();
        assert_eq!(reasons, [("evicted", 2, 5, 5), ("restart", 1, 3, 0)]);
        assert_eq!((report.reasons[0].first_ms, report.reasons[0].last_ms), (50, 90));
        assert_eq!(report.losses.len(), 2, "listed up to the limit, counted in full");
    }

    #[test]
    fn what_newer_rows_overtook_is_still_to_come_and_not_missing() {
        let mut settlement = settlement(&[(1, 18), (30, 40)]);
        settlement.declare((38, 42), 2, "evicted", 50);
        let report = settlement.finish();
        assert_eq!((report.missing, report.to_come, report.highest, sum(&report)), (2, 9, Seq(42), 42));
    }

    #[test]
    fn an_entry_that_grew_or_overlaps_another_counts_each_number_once() {
        let mut settlement = settlement(&[(1, 2)]);
        settlement.declare((3, 12), 10, "evicted", 60);
        settlement.declare((3, 8), 6, "evicted", 50);
        settlement.declare((10, 20), 11, "expired", 70);
        let report = settlement.finish();
        assert_eq!((report.declared_lost, report.readings_lost, report.missing, sum(&report)), (18, 18, 0, 20));
        let counted: Vec<_> = report.losses.iter().map(|loss| (loss.reason.as_str(), loss.readings)).collect();
        assert_eq!(counted, [("evicted", 10), ("expired", 8)]);
    }

    #[test]
    fn what_was_declared_lost_and_arrived_all_the_same_is_received() {
        let mut settlement = settlement(&[(1, 8), (13, 20)]);
        settlement.declare((5, 12), 8, "evicted", 50);
        let report = settlement.finish();
        assert_eq!((report.received, report.declared_lost, report.readings_lost), (16, 4, 4));
        assert_eq!((report.arrived_anyway, report.missing, sum(&report)), (4, 0, 20));
    }
}
