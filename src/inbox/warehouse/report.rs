//! What arrived, what was declared lost and what is missing: the same report as over the SQLite file.

use futures_util::{StreamExt as _, pin_mut};
use tokio_postgres::Row;

use crate::base::{Epoch, Name, Seq};
use crate::inbox::ranges::Ranges;
use crate::inbox::report::{About, Report, SeriesReport, Settlement};

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
    let about = About {
        gateway: name(0)?,
        epoch: Epoch(row.get::<_, i64>(1).cast_unsigned()),
        class: row.get(2),
        stream: name(3)?,
        highest: Seq(row.get::<_, i64>(4).cast_unsigned()),
        duplicates: row.get::<_, i64>(5).cast_unsigned(),
    };
    let mut settlement = Settlement::new(about, ranges(row, 6), max_ranges);
    let numbers = |at| row.get::<_, Option<Vec<i64>>>(at).unwrap_or_default().into_iter();
    let reasons = row.get::<_, Option<Vec<String>>>(11).unwrap_or_default();
    let entries = numbers(8).zip(numbers(9)).zip(numbers(10)).zip(reasons).zip(numbers(12));
    for ((((first, last), count), reason), wall_ms) in entries {
        let range = (first.cast_unsigned(), last.cast_unsigned());
        settlement.declare(range, count.cast_unsigned(), &reason, wall_ms);
    }
    Ok(settlement.finish())
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
