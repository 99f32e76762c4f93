//! What was set of models while the gateway runs, kept in one small file that is replaced whole: a power cut leaves the old or
//! the new one.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::open_regular;
use crate::base::{FileError, Name, replace_file};

const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// By model.
pub(super) type Table<T> = BTreeMap<Name, T>;

/// A table in a file.
#[derive(Debug)]
pub(super) struct Kept<T> {
    file: PathBuf,
    /// What the table is of: the name of the file and its one key.
    word: &'static str,
    table: Mutex<Table<T>>,
}

impl<T: Clone + Serialize + DeserializeOwned> Kept<T> {
    /// Reads `word`.json in the state folder. A file that cannot be read, or that has what `check` refuses, is a problem to be
    /// told, and what it had is gone. Reads the disk: not for an async thread.
    pub(super) fn open(
        state_dir: &Path,
        word: &'static str,
        check: impl Fn(&Name, &T) -> Result<(), String>,
    ) -> (Self, Option<String>) {
        let file = state_dir.join(format!("{word}.json"));
        let read = read(&file, word).and_then(|table| {
            table.iter().try_for_each(|(model, set)| check(model, set))?;
            Ok(table)
        });
        let (table, problem) = match read {
            Ok(table) => (table, None),
            Err(problem) => (Table::new(), Some(format!("{}: {problem}; set the {word} again", file.display()))),
        };
        (Self { file, word, table: Mutex::new(table) }, problem)
    }

    /// The table as it is now. Whoever has it holds up those who change it.
    pub(super) fn table(&self) -> MutexGuard<'_, Table<T>> {
        // A change is put in place whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table, on the disk first; an error leaves both as they were. Writes the disk: not for an async thread.
    pub(super) fn change<E: From<FileError>>(
        &self,
        change: impl FnOnce(&mut Table<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut table = self.table();
        let mut changed = table.clone();
        change(&mut changed)?;
        let text = serde_json::to_vec_pretty(&BTreeMap::from([(self.word, &changed)]));
        replace_file(&self.file, &text.expect("names and finite numbers are JSON"))?;
        *table = changed;
        Ok(())
    }
}

fn read<T: DeserializeOwned>(file: &Path, word: &str) -> Result<Table<T>, String> {
    if !file.exists() {
        return Ok(Table::new());
    }
    let (opened, _) = open_regular(file, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let read = serde_json::from_reader(BufReader::new(opened));
    let mut kept: BTreeMap<String, Table<T>> = read.map_err(|error| format!("failed to read: {error}"))?;
    match (kept.remove(word), kept.first_key_value()) {
        (Some(table), None) => Ok(table),
        (_, Some((other, _))) => Err(format!("failed to read: unknown field `{other}`, expected `{word}`")),
        (None, None) => Err(format!("failed to read: missing field `{word}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> (Kept<u32>, Option<String>) {
        Kept::open(folder, "numbers", |model, number| match number {
            0 => Err(format!("{model} is 0")),
            _ => Ok(()),
        })
    }

    #[test]
    fn a_change_that_fails_changes_nothing_here_and_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let press = Name::new("press").unwrap();
        let (kept, problem) = open(folder.path());
        assert_eq!(problem, None);
        kept.change::<FileError>(|table| {
            table.insert(press.clone(), 3);
            Ok(())
        })
        .unwrap();
        let refused: Result<(), Box<dyn std::error::Error>> = kept.change(|table| {
            table.clear();
            Err("not this".into())
        });
        assert!(refused.is_err());
        assert_eq!(kept.table().get(&press), Some(&3));
        let text = std::fs::read_to_string(folder.path().join("numbers.json")).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            serde_json::json!({"numbers": {"press": 3}})
        );
        assert_eq!(open(folder.path()).0.table().get(&press), Some(&3));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        for (torn, says) in [
            ("{", "failed to read: EOF"),
            ("{}", "missing field `numbers`"),
            (r#"{"numbers": {}, "other": {}}"#, "unknown field `other`, expected `numbers`"),
            (r#"{"numbers": {"press": 0}}"#, "press is 0"),
            (r#"{"numbers": {"../x": 1}}"#, "failed to read: "),
        ] {
            replace_file(&folder.path().join("numbers.json"), torn.as_bytes()).unwrap();
            let (kept, problem) = open(folder.path());
            let problem = problem.unwrap();
            assert!(problem.contains(says) && problem.ends_with("; set the numbers again"), "{problem}");
            assert!(kept.table().is_empty());
        }
    }
}
