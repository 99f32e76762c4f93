//! Every row of the gateway's file says what it was: a table without a checksum is an exception, with its reason here.

use std::sync::Arc;

use forebay::base::ManualClock;
use forebay::store::{self, Store};
use forebay::{broker, flows, history, outbox};

/// Tables whose rows are covered otherwise.
const OTHERWISE: [(&str, &str); 5] = [
    ("outbox_row", "checksum: as the row was sent, and as blocks and the salvage know it"),
    ("outbox_block", "checksum: over the block, and over each row in it"),
    (
        "outbox_pack",
        "a range of a block: every row in it has its own, and numbers that no range names are declared lost",
    ),
    ("history_arrival_a", "each reading in it has its own"),
    ("history_arrival_b", "each reading in it has its own"),
];

#[tokio::test]
async fn every_table_of_the_gateway_has_a_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA, flows::SYNC_SCHEMA];
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let (store, _) = Store::open(&store::Config::at(folder.path()), &schemas, clock).unwrap();
    let read = |connection: &rusqlite::Connection| {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND NOT EXISTS
                   (SELECT 1 FROM pragma_table_info(sqlite_schema.name) AS columns WHERE columns.name = 'crc')";
        let mut statement = connection.prepare(sql)?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        Ok(names.collect::<Result<Vec<_>, _>>()?)
    };
    let mut without = store.reader().read(read).await.unwrap();
    without.sort();
    let known: Vec<String> = {
        let mut names = OTHERWISE.map(|(name, _)| name.to_owned());
        names.sort();
        names.to_vec()
    };
    assert_eq!(without, known);
}
