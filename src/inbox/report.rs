//! What arrived, what was declared lost and what is missing.

use rusqlite::Connection;

use super::apply::Inbox;
use super::ranges::Ranges;
use crate::base::{Epoch, Name, Seq};
use crate::store::Error;

/// One series: received, declared lost and missing add up to `highest`.
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
    /// Acknowledged readings lost, as the sender counts them.
    pub readings_lost: u64,
    /// Numbers that nobody accounts for.
    pub missing: u64,
    /// The first of those ranges, up to the configured number.
    pub missing_ranges: Vec<(Seq, Seq)>,
    /// Rows that came again and had no effect.
    pub duplicates: u64,
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
            let lost = ranges(connection, "SELECT first, last FROM inbox_lost WHERE series_no = ?1", no)?;
            let mut known = received.clone();
            for (first, last) in lost.pairs() {
                known.insert(*first, *last);
            }
            let readings_lost: i64 = connection
                .prepare_cached("SELECT coalesce(sum(count), 0) FROM inbox_lost WHERE series_no = ?1")?
                .query_row([no], |row| row.get(0))?;
            let missing = known.absent(1, highest);
            let shown = missing.iter().take(self.config.max_reported_ranges);
            series.push(SeriesReport {
                gateway: name(1)?,
                epoch: Epoch(row.get::<_, i64>(2)?.cast_unsigned()),
                class: row.get(3)?,
                stream: name(4)?,
                highest: Seq(highest),
                received: received.len(),
                declared_lost: known.len() - received.len(),
                readings_lost: readings_lost.cast_unsigned(),
                missing: missing.iter().map(|(first, last)| last - first + 1).sum(),
                missing_ranges: shown.map(|(first, last)| (Seq(*first), Seq(*last))).collect(),
                duplicates: row.get::<_, i64>(6)?.cast_unsigned(),
            });
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
