//! What was proved so far, in a file, so that a proof that was stopped can go on.
//!
//! Crash states and kills are independent samples: those of several runs of one program on one disk add up.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::explore::Explored;
use super::kill::Killed;
use super::place::Place;
use crate::base::replace_file;

/// Sums over all runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Which program on which disk. Anything else begins anew.
    about: String,
    /// Commits that wait for the disk.
    pub full: Explored,
    /// The negative control NORMAL.
    pub normal: Explored,
    /// The negative control OFF.
    pub off: Explored,
    /// Kills.
    pub killed: Killed,
}

/// The totals and where they are kept, if anywhere.
#[derive(Debug, Default)]
pub struct Account {
    file: Option<PathBuf>,
    /// The sums.
    pub totals: Totals,
}

impl Account {
    /// Reads what earlier runs of `program` proved at `place`. Without a file nothing is kept.
    pub fn open(file: Option<&Path>, program: &Path, place: &Place) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let bytes = fs::read(program).with_context(|| format!("failed to read {}", program.display()))?;
        let about = format!(
            "{} on {} {} at {}",
            hex::encode(Sha256::digest(bytes)),
            place.file_system,
            place.source,
            place.mounted_at.display()
        );
        let earlier = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice::<Totals>(&bytes).ok().filter(|totals| totals.about == about),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", file.display())),
        };
        let totals = earlier.unwrap_or_else(|| Totals { about, ..Totals::default() });
        Ok(Self { file: Some(file.to_owned()), totals })
    }

    /// Keeps the totals.
    pub fn save(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        replace_file(file, &serde_json::to_vec_pretty(&self.totals)?)
            .with_context(|| format!("failed to write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::prove::Breach;

    #[test]
    fn totals_are_found_again_by_the_same_program_on_the_same_disk_only() {
        let folder = tempfile::tempdir().unwrap();
        let (file, program) = (folder.path().join("account"), folder.path().join("program"));
        fs::File::create(&program).unwrap();
        let place = Place { file_system: "ext4".into(), ..Place::default() };
        let mut account = Account::open(Some(&file), &program, &place).unwrap();
        let found = Explored { states: 7, breaches: [(Breach::Lost, 2)].into(), ..Explored::default() };
        account.totals.full.add(&found);
        account.totals.full.add(&found);
        account.save().unwrap();
        let again = Account::open(Some(&file), &program, &place).unwrap();
        assert_eq!((again.totals.full.states, again.totals.full.breaches[&Breach::Lost]), (14, 4));
        let elsewhere = Place { file_system: "xfs".into(), ..place };
        assert_eq!(Account::open(Some(&file), &program, &elsewhere).unwrap().totals.full.states, 0);
        assert_eq!(Account::open(None, &program, &elsewhere).unwrap().totals.full.states, 0);
    }
}
