//! What arrived, what was declared lost and what is missing: the same report as over the SQLite file.

use futures_util::{StreamExt as _, pin_mut};
use tokio_postgres::Row;

use crate::base::{Epoch, Name, Seq};
use crate::inbox::ranges::Ranges;
use crate::inbox::report::{Report, SeriesReport};

use super::apply::Warehouse;
use super::connection::{WarehouseError, failed};
use super::schema;

impl Warehouse {
    /// Every series of one tenant. Reads ranges, not rows; lists at most `max_ranges` missing ones of each series.
    pub async fn report(&self, tenant: &Name, max_ranges: usize) -> Result<Report, WarehouseError> {
        let lease = self.pool.lease().await?;
        let failed = failed("read the report");
        let mut series = Vec::new();
        {
            let rows = lease.connection.client.query_raw(schema::REPORT, [tenant.as_str()]).await.map_err(&failed)?;
            pin_mut!(rows);
            while let Some(row) = rows.next().await {
                series.push(of(&row.map_err(&failed)?, max_ranges)?);
            }
        }
        self.pool.give_back(lease);
        Ok(Report { series })
    }
}

fn of(row: &Row, max_ranges: usize) -> Result<SeriesReport, WarehouseError> {
    let name = |at: usize| {
        Name::new(row.get(at)).map_err(|error| WarehouseError::Row { table: "forebay_series", what: error.to_string() })
    };
    let (received, lost) = (ranges(row, 6), ranges(row, 8));
    let mut known = received.clone();
    for (first, last) in lost.pairs() {
        known.insert(*first, *last);
    }
    let highest = row.get::<_, i64>(4).cast_unsigned();
    let missing = known.absent(1, highest);
    Ok(SeriesReport {
        gateway: name(0)?,
        epoch: Epoch(row.get::<_, i64>(1).cast_unsigned()),
        class: row.get(2),
        stream: name(3)?,
        highest: Seq(highest),
        received: received.len(),
        declared_lost: known.len() - received.len(),
        readings_lost: row.get::<_, i64>(10).cast_unsigned(),
        missing: missing.iter().map(|(first, last)| last - first + 1).sum(),
        missing_ranges: missing.iter().take(max_ranges).map(|(first, last)| (Seq(*first), Seq(*last))).collect(),
        duplicates: row.get::<_, i64>(5).cast_unsigned(),
    })
}

/// Two columns of equal length, or nothing.
fn ranges(row: &Row, at: usize) -> Ranges {
    let column = |at| row.get::<_, Option<Vec<i64>>>(at).unwrap_or_default();
    let mut ranges = Ranges::default();
    for (first, last) in column(at).into_iter().zip(column(at + 1)) {
        ranges.insert(first.cast_unsigned(), last.cast_unsigned());
    }
    ranges
}
