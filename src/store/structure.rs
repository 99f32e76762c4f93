//! Whether the pages of a table hang together.
//!
//! A checksum says that a row is as it was written. It cannot say that a row is there: one flipped bit in a page's count
//! of cells, or in a pointer to one, hides rows that SQLite then does not miss. Following the tree finds that out, because
//! every byte of a page must belong to a cell or be known as free.

use rusqlite::{Connection, ffi};

use super::error::Error;

/// Follows the tree of `table` and of its indexes to the last page, which takes as long as reading them.
pub(super) fn follow(connection: &Connection, table: &'static str) -> Result<(), Error> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check('{table}')"))?;
    let mut said = statement.query([])?;
    while let Some(row) = said.next()? {
        let what: String = row.get(0)?;
        // A value of a wrong type is one row's damage, and that row's checksum tells.
        if what == "ok" || what.contains(" value in ") {
            continue;
        }
        return Err(match code_of(&what) {
            Some(code) if !matches!(code & 0xff, ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB) => {
                rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(what)).into()
            }
            _ => Error::Structure { table, what },
        });
    }
    Ok(())
}

/// The check goes on over a page that the disk does not give, and says so as a finding: "... error code=10".
fn code_of(what: &str) -> Option<i32> {
    let (_, code) = what.split_once("error code")?;
    code.trim_start_matches([' ', '=']).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::store::connection::open_reader;
    use crate::store::{Config, Schema, Store};
    use std::sync::Arc;

    const SCHEMA: Schema = Schema {
        room: "test",
        steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB NOT NULL)"],
        read_at_start: &[],
    };
    const ROWS: i64 = 60;
    /// A page's head and the pointers to its cells.
    const STRUCTURE: usize = 60;

    fn rows_found(connection: &Connection) -> Result<Vec<i64>, Error> {
        let mut statement = connection.prepare("SELECT no FROM item ORDER BY no")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    #[test]
    fn no_flipped_bit_of_a_page_s_structure_hides_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path());
        let (store, _) = Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap();
        let fill = |tx: &crate::store::Tx<'_>| {
            let mut insert = tx.prepare_cached("INSERT INTO item VALUES (?1, ?2)")?;
            for no in 1..=ROWS {
                insert.execute((no, no.to_le_bytes().repeat(20)))?;
            }
            // A free block among the cells, as rows leave it.
            tx.execute("DELETE FROM item WHERE no = 7", [])?;
            Ok(())
        };
        store.writer().commit_blocking(fill).unwrap();
        store.close();
        let bytes = std::fs::read(config.database()).unwrap();
        let all: Vec<i64> = (1..=ROWS).filter(|no| *no != 7).collect();
        let (mut harmless, mut seen, mut hidden) = (0, 0, 0);
        for page in (1..bytes.len() / 4096).filter(|page| matches!(bytes[page * 4096], 5 | 13)) {
            for bit in 0..STRUCTURE * 8 {
                let mut spoiled = bytes.clone();
                spoiled[page * 4096 + bit / 8] ^= 1 << (bit % 8);
                std::fs::write(config.database(), spoiled).unwrap();
                let connection = open_reader(&config.disk, &config.database()).unwrap();
                let found = rows_found(&connection);
                let is_whole = found.as_ref().is_ok_and(|found| *found == all);
                hidden += usize::from(found.is_ok() && !is_whole);
                match follow(&connection, "item") {
                    Ok(()) => {
                        assert!(is_whole, "bit {bit} of page {page}: {found:?} and nothing noticed");
                        harmless += 1;
                    }
                    Err(error) => {
                        assert!(error.is_corruption(), "{error}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(hidden > 100, "{hidden} flips hid rows: without those this shows nothing");
        assert!(seen > hidden && harmless > 0, "{seen} seen, {harmless} harmless");
    }
}
