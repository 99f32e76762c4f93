//! From a recording of calls to the disk images that a power cut could leave.
//!
//! A file has the content of its last good sync, and what was written since is pending: any part of it may have reached
//! the disk, in any order, down to sectors. Names are pending until their folder is synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use crate::store::Event;

/// What a device writes whole.
const SECTOR_BYTES: usize = 512;

/// Files by name.
pub type Image = BTreeMap<Arc<str>, Vec<u8>>;

/// What became of what had not been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of it reached the disk.
    Nothing,
    /// Everything did.
    Everything,
    /// The first calls did, in each file.
    Prefix,
    /// The first calls did, and some sectors of the next.
    Torn,
    /// Some calls did, and others not.
    Subset,
    /// Some sectors of each call did.
    Sectors,
    /// Every file has its new length, some calls reached the disk, and where they did not there are zeros.
    Lengths,
    /// The same, with old rubbish instead of zeros.
    Rubbish,
}

impl Cut {
    /// Those in which chance has a part.
    pub const BY_CHANCE: [Self; 6] =
        [Self::Prefix, Self::Torn, Self::Subset, Self::Sectors, Self::Lengths, Self::Rubbish];
}

/// What a failed sync did to what was pending. It can never become durable by a later sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailedSync {
    /// None of it is on the disk.
    Lost,
    /// All of it is.
    Kept,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Length(usize),
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

/// The disk while a recording is played.
#[derive(Debug)]
pub struct Player {
    files: Vec<File>,
    /// What the program sees.
    names: BTreeMap<Arc<str>, usize>,
    /// What survives for certain.
    synced_names: BTreeMap<Arc<str>, usize>,
    pending_names: Vec<(Arc<str>, Option<usize>)>,
    after_failed_sync: AfterFailedSync,
}

impl Player {
    /// An empty folder.
    pub fn new(after_failed_sync: AfterFailedSync) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            pending_names: Vec::new(),
            after_failed_sync,
        }
    }

    /// One call further.
    pub fn play(&mut self, event: &Event) {
        match event {
            Event::Created { file } => {
                self.files.push(File::default());
                self.rename(file, Some(self.files.len() - 1));
            }
            Event::Written { file, offset, bytes } => {
                let offset = usize::try_from(*offset).expect("a file in memory");
                self.change(file, Change::Write { offset, bytes: Arc::clone(bytes) });
            }
            Event::Truncated { file, size } => {
                self.change(file, Change::Length(usize::try_from(*size).expect("a file in memory")));
            }
            Event::Synced { file, folder } => {
                if let Some(file) = self.file(file) {
                    let pending = std::mem::take(&mut file.pending);
                    pending.iter().for_each(|change| change.apply(&mut file.synced));
                }
                if *folder {
                    self.sync_names();
                }
            }
            Event::SyncFailed { file } => {
                let kept = self.after_failed_sync == AfterFailedSync::Kept;
                if let Some(file) = self.file(file) {
                    let pending = std::mem::take(&mut file.pending);
                    if kept {
                        pending.iter().for_each(|change| change.apply(&mut file.synced));
                    }
                }
            }
            Event::Deleted { file, folder } => {
                self.rename(file, None);
                if *folder {
                    self.sync_names();
                }
            }
            Event::Replaced { file, bytes } => {
                self.files.push(File { synced: bytes.to_vec(), pending: Vec::new() });
                self.rename(file, Some(self.files.len() - 1));
                self.sync_names();
            }
            Event::Mark(_) => {}
        }
    }

    fn file(&mut self, name: &Arc<str>) -> Option<&mut File> {
        self.names.get(name).map(|at| &mut self.files[*at])
    }

    fn change(&mut self, name: &Arc<str>, change: Change) {
        if let Some(file) = self.file(name) {
            file.pending.push(change);
        }
    }

    fn rename(&mut self, name: &Arc<str>, to: Option<usize>) {
        match to {
            Some(at) => self.names.insert(Arc::clone(name), at),
            None => self.names.remove(name),
        };
        self.pending_names.push((Arc::clone(name), to));
    }

    fn sync_names(&mut self) {
        self.synced_names.clone_from(&self.names);
        self.pending_names.clear();
    }

    /// True if a cut now could leave more than one image.
    pub fn is_anything_pending(&self) -> bool {
        !self.pending_names.is_empty() || self.files.iter().any(|file| !file.pending.is_empty())
    }

    /// The disk after a cut at this moment.
    pub fn image(&self, cut: Cut, chance: &mut StdRng) -> Image {
        let mut names = self.synced_names.clone();
        let survive = match cut {
            Cut::Nothing => 0,
            Cut::Everything => self.pending_names.len(),
            _ => chance.random_range(0..=self.pending_names.len()),
        };
        for (name, to) in &self.pending_names[..survive] {
            match to {
                Some(at) => names.insert(Arc::clone(name), *at),
                None => names.remove(name),
            };
        }
        names.into_iter().map(|(name, at)| (name, self.files[at].after(cut, chance))).collect()
    }
}

impl File {
    fn after(&self, cut: Cut, chance: &mut StdRng) -> Vec<u8> {
        let mut content = self.synced.clone();
        let pending = &self.pending;
        let some = chance.random_range(0..=pending.len());
        match cut {
            Cut::Nothing => {}
            Cut::Everything => pending.iter().for_each(|change| change.apply(&mut content)),
            Cut::Prefix => pending[..some].iter().for_each(|change| change.apply(&mut content)),
            Cut::Torn => {
                pending[..some].iter().for_each(|change| change.apply(&mut content));
                if let Some(torn) = pending.get(some) {
                    torn.apply_sectors(&mut content, chance, 0.5);
                }
            }
            Cut::Subset => {
                let share = chance.random_range(0.05..0.95);
                for change in pending {
                    if chance.random_bool(share) {
                        change.apply(&mut content);
                    }
                }
            }
            Cut::Sectors => {
                let share = chance.random_range(0.05..0.95);
                pending.iter().for_each(|change| change.apply_sectors(&mut content, chance, share));
            }
            Cut::Lengths | Cut::Rubbish => {
                let old = content.len();
                let new = pending.iter().fold(old, |length, change| match change {
                    Change::Write { offset, bytes } => length.max(offset + bytes.len()),
                    Change::Length(new) => *new,
                });
                content.resize(new, 0);
                if cut == Cut::Rubbish && new > old {
                    chance.fill(&mut content[old..]);
                }
                let share = chance.random_range(0.05..0.95);
                for change in pending {
                    if matches!(change, Change::Write { offset, bytes } if offset + bytes.len() <= new)
                        && chance.random_bool(share)
                    {
                        change.apply(&mut content);
                    }
                }
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Each sector that the call touched, with probability `share`.
    fn apply_sectors(&self, content: &mut Vec<u8>, chance: &mut StdRng, share: f64) {
        let Self::Write { offset, bytes } = self else {
            if chance.random_bool(share) {
                self.apply(content);
            }
            return;
        };
        let mut from = 0;
        while from < bytes.len() {
            let to = (from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES).min(bytes.len());
            if chance.random_bool(share) {
                Self::Write { offset: offset + from, bytes: bytes[from..to].into() }.apply(content);
            }
            from = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn name() -> Arc<str> {
        "a".into()
    }

    fn written(offset: u64, byte: u8, length: usize) -> Event {
        Event::Written { file: name(), offset, bytes: vec![byte; length].into() }
    }

    fn played(events: &[Event], after: AfterFailedSync) -> Player {
        let mut player = Player::new(after);
        events.iter().for_each(|event| player.play(event));
        player
    }

    fn content(player: &Player, cut: Cut) -> Option<Vec<u8>> {
        player.image(cut, &mut StdRng::seed_from_u64(1)).remove(&name())
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_missing_with_all_its_synced_content() {
        let events = [Event::Created { file: name() }, written(0, 1, 4), Event::Synced { file: name(), folder: false }];
        let player = played(&events, AfterFailedSync::Lost);
        assert_eq!(content(&player, Cut::Nothing), None);
        assert_eq!(content(&player, Cut::Everything), Some(vec![1; 4]));
    }

    #[test]
    fn what_was_synced_survives_every_cut_and_sectors_tear() {
        let mut events = vec![Event::Created { file: name() }, written(0, 1, 4096)];
        events.push(Event::Synced { file: name(), folder: true });
        let player = played(&events, AfterFailedSync::Lost);
        for cut in Cut::BY_CHANCE {
            assert_eq!(content(&player, cut), Some(vec![1; 4096]), "{cut:?}");
        }
        events.push(written(0, 2, 4096));
        let player = played(&events, AfterFailedSync::Lost);
        let torn = content(&player, Cut::Sectors).unwrap();
        assert!(torn.chunks(SECTOR_BYTES).all(|sector| sector == [1; 512] || sector == [2; 512]));
        assert!(torn.contains(&1) && torn.contains(&2));
    }

    #[test]
    fn a_sync_after_a_failed_one_brings_nothing_back() {
        let events = [
            Event::Created { file: name() },
            Event::Synced { file: name(), folder: true },
            written(0, 1, 4),
            Event::SyncFailed { file: name() },
            written(4, 2, 4),
            Event::Synced { file: name(), folder: false },
        ];
        let lost = played(&events, AfterFailedSync::Lost);
        assert_eq!(content(&lost, Cut::Nothing), Some(vec![0, 0, 0, 0, 2, 2, 2, 2]));
        let kept = played(&events, AfterFailedSync::Kept);
        assert_eq!(content(&kept, Cut::Nothing), Some(vec![1, 1, 1, 1, 2, 2, 2, 2]));
    }
}
