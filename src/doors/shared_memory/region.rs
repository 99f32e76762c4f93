//! The regions that callers have registered.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::Config;
use super::error::RegionError;
use crate::access::{How, Principal};

/// Where the system keeps them.
const FOLDER: &str = "/dev/shm";
/// Bytes of a key: what a file's name may have.
const KEY_MAX_BYTES: usize = 255;
/// Bytes of a region's name.
const NAME_MAX_BYTES: usize = 255;

/// Whose a region is. A caller without a name is nobody who is called like it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doors) struct Owner {
    anonymous: bool,
    name: String,
}

impl Owner {
    pub(in crate::doors) fn of(who: &Principal) -> Self {
        Self { anonymous: who.how() == How::Loopback, name: who.name().to_owned() }
    }
}

/// A region as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors) struct RegionView {
    pub(in crate::doors) name: String,
    pub(in crate::doors) key: String,
    pub(in crate::doors) offset: u64,
    pub(in crate::doors) bytes: u64,
}

/// A part of an open file.
#[derive(Debug)]
pub(super) struct Region {
    name: String,
    file: File,
    /// False: its permissions let us only read.
    writable: bool,
    /// As it was given.
    key: String,
    offset: u64,
    bytes: u64,
    /// Of the whole file, when it was registered.
    file_bytes: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Regions {
    config: Option<Config>,
    folder: PathBuf,
    held: Mutex<BTreeMap<(Owner, String), Arc<Region>>>,
}

impl Regions {
    /// None so far; without a configuration there will be none.
    pub fn new(config: Option<Config>) -> Self {
        Self::in_folder(config, Path::new(FOLDER))
    }

    fn in_folder(config: Option<Config>, folder: &Path) -> Self {
        Self { config, folder: folder.to_owned(), held: Mutex::default() }
    }

    /// Whether anything can be registered.
    pub(in crate::doors) fn are_on(&self) -> bool {
        self.config.is_some()
    }

    /// The bounds, if there is anything to bound.
    pub(super) fn config(&self) -> Result<&Config, RegionError> {
        self.config.as_ref().ok_or(RegionError::Off)
    }

    /// Opens the file `key` for `owner`, who is at `peer`, perhaps behind a proxy there, and calls `bytes` of it from
    /// `offset` on `name`.
    pub(in crate::doors) fn register(
        &self,
        owner: &Owner,
        peer: SocketAddr,
        forwarded: bool,
        asked: RegionView,
    ) -> Result<(), RegionError> {
        let config = self.config()?;
        if forwarded || !peer.ip().to_canonical().is_loopback() {
            let from =
                if forwarded { "for whoever is behind a proxy".to_owned() } else { format!("for {}", peer.ip()) };
            return Err(RegionError::Forbidden(format!(
                "regions are for programs on this machine that call it by its loopback address, not {from}"
            )));
        }
        let region = self.open(config, asked)?;
        let mut held = self.held();
        let place = (owner.clone(), region.name.clone());
        if held.contains_key(&place) {
            let taken = format!("region {:?} is already in the list; unregister it first", region.name);
            return Err(RegionError::Wrong(taken));
        }
        if held.len() >= config.regions_max {
            let full = format!("{} regions are registered, the most (`regions_max` in [shared_memory])", held.len());
            return Err(RegionError::Full(full));
        }
        let taken = held.values().map(|region| region.file_bytes).sum::<u64>();
        if taken.saturating_add(region.file_bytes) > config.bytes_max {
            return Err(RegionError::Full(format!(
                "the file of region {:?} has {} bytes, those of other regions {taken}; together they may have {} (`bytes_max` in [shared_memory])",
                region.name, region.file_bytes, config.bytes_max
            )));
        }
        held.insert(place, Arc::new(region));
        Ok(())
    }

    fn open(&self, config: &Config, asked: RegionView) -> Result<Region, RegionError> {
        let RegionView { name, key, offset, bytes } = asked;
        let wrong = |what: String| RegionError::Wrong(format!("failed to register region {name:?}: {what}"));
        let forbidden = |what: String| RegionError::Forbidden(format!("failed to register region {name:?}: {what}"));
        if name.is_empty() || name.len() > NAME_MAX_BYTES {
            return Err(wrong(format!("a name has 1 to {NAME_MAX_BYTES} bytes, this one {}", name.len())));
        }
        let file = file_name(&key).map_err(|what| wrong(format!("key {key:?} {what}")))?;
        if !file.starts_with(&config.prefix) {
            return Err(forbidden(format!(
                "key {key:?} does not begin with {:?}, which `prefix` in [shared_memory] asks for",
                config.prefix
            )));
        }
        let end = offset.checked_add(bytes).filter(|_| bytes > 0);
        let end = end.ok_or_else(|| wrong(format!("offset {offset} and byte_size {bytes} are no part of a file")))?;
        let (opened, writable) = open_file(&self.folder.join(file)).map_err(|error| {
            let what = format!("key {key:?} cannot be opened: {error}");
            if error.kind() == io::ErrorKind::PermissionDenied { forbidden(what) } else { wrong(what) }
        })?;
        let about = opened.metadata().map_err(|error| wrong(format!("key {key:?} cannot be read: {error}")))?;
        if !about.is_file() {
            return Err(forbidden(format!("key {key:?} is not a file")));
        }
        let ours = rustix::process::geteuid().as_raw();
        if about.uid() != ours && !config.owners.contains(&about.uid()) {
            return Err(forbidden(format!(
                "key {key:?} belongs to user {}; the gateway's is {ours}, and `owners` in [shared_memory] lists others",
                about.uid()
            )));
        }
        if end > about.len() {
            return Err(wrong(format!("key {key:?} has {} bytes, the region would end at {end}", about.len())));
        }
        Ok(Region { name, file: opened, writable, key, offset, bytes, file_bytes: about.len() })
    }

    /// What `owner` has registered: one of them, or all by name.
    pub(in crate::doors) fn status(&self, owner: &Owner, name: Option<&str>) -> Result<Vec<RegionView>, RegionError> {
        let view = |region: &Arc<Region>| RegionView {
            name: region.name.clone(),
            key: region.key.clone(),
            offset: region.offset,
            bytes: region.bytes,
        };
        if let Some(name) = name {
            return Ok(vec![view(&self.find(owner, name)?)]);
        }
        let held = self.held();
        Ok(held.iter().filter(|((of, _), _)| of == owner).map(|(_, region)| view(region)).collect())
    }

    /// Lets go of one region of `owner`, or of all. One that is not there is gone already. A request that has it finishes.
    pub(in crate::doors) fn unregister(&self, owner: &Owner, name: Option<&str>) {
        let mut held = self.held();
        held.retain(|(of, called), _| of != owner || name.is_some_and(|name| name != called));
    }

    pub(super) fn find(&self, owner: &Owner, name: &str) -> Result<Arc<Region>, RegionError> {
        self.config()?;
        let found = self.held().get(&(owner.clone(), name.to_owned())).map(Arc::clone);
        // In Triton's words, which its clients' programs look for.
        found.ok_or_else(|| RegionError::Unknown(format!("Unable to find system shared memory region: {name:?}")))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(Owner, String), Arc<Region>>> {
        // Nothing below panics halfway through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    /// Where in the file `bytes` from `offset` of the region are.
    pub(super) fn place(&self, offset: u64, bytes: u64) -> Result<u64, RegionError> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        // A region's end is in a file, so neither sum is over.
        if inside {
            return Ok(self.offset + offset);
        }
        Err(RegionError::Wrong(format!(
            "region {:?} has {} bytes, asked for {bytes} from {offset} on",
            self.name, self.bytes
        )))
    }

    /// A copy of what stands there now.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, RegionError> {
        let at = self.place(offset, bytes)?;
        self.check_length(at + bytes)?;
        let bytes = usize::try_from(bytes).map_err(|_| self.changed("no memory has room for it"))?;
        let mut copy = vec![0; bytes];
        // What was cut off meanwhile is an error here, and would be a signal if the file were mapped.
        self.file.read_exact_at(&mut copy, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed("it became shorter while it was read"),
            _ => self.changed(&error.to_string()),
        })?;
        Ok(copy)
    }

    /// Whether `bytes` can be written there.
    pub(super) fn takes(&self, offset: u64, bytes: u64) -> Result<(), RegionError> {
        let end = self.place(offset, bytes)? + bytes;
        if !self.writable {
            let only = format!("region {:?}: the file's permissions let the gateway only read it", self.name);
            return Err(RegionError::Forbidden(only));
        }
        self.check_length(end)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RegionError> {
        self.takes(offset, bytes.len() as u64)?;
        let at = self.place(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, at).map_err(|error| self.changed(&error.to_string()))
    }

    /// A write behind the end would make the file longer, which only its maker may.
    fn check_length(&self, end: u64) -> Result<(), RegionError> {
        let length = self.file.metadata().map_err(|error| self.changed(&error.to_string()))?.len();
        if end <= length {
            return Ok(());
        }
        Err(self.changed(&format!("its file has {length} bytes now, {} when it was registered", self.file_bytes)))
    }

    fn changed(&self, what: &str) -> RegionError {
        RegionError::Changed(format!("region {:?}: {what}", self.name))
    }
}

/// The one name that a key may be: `/name` or `name`, as `shm_open` takes it.
fn file_name(key: &str) -> Result<&str, &'static str> {
    let name = key.strip_prefix('/').unwrap_or(key);
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("is a folder"),
        _ if name.contains(['/', '\0']) => Err("is a path; it is one name, perhaps with a slash before it"),
        _ if name.len() > KEY_MAX_BYTES => Err("is longer than a file's name may be"),
        _ => Ok(name),
    }
}

/// For reading and writing, or for reading alone where that is all we may. A link is not followed, and something that
/// answers slowly, such as a pipe, is not waited for.
fn open_file(path: &Path) -> io::Result<(File, bool)> {
    let open = |write| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
    };
    match open(true) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(false).map(|file| (file, false)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const HERE: &str = "127.0.0.1:5000";

    fn owner(name: &str) -> Owner {
        Owner { anonymous: false, name: name.to_owned() }
    }

    fn asked(name: &str, key: &str, offset: u64, bytes: u64) -> RegionView {
        RegionView { name: name.to_owned(), key: key.to_owned(), offset, bytes }
    }

    /// A folder with a file of eight bytes in it.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), "forebay-a", b"01234567");
        folder
    }

    fn fill(folder: &Path, name: &str, bytes: &[u8]) {
        crate::base::replace_file(&folder.join(name), bytes).unwrap();
    }

    fn regions(folder: &Path, config: Config) -> Regions {
        Regions::in_folder(Some(config), folder)
    }

    fn register(regions: &Regions, who: &str, asked: RegionView) -> Result<(), String> {
        regions.register(&owner(who), HERE.parse().unwrap(), false, asked).map_err(|error| error.to_string())
    }

    #[test]
    fn a_region_is_its_owners_alone() {
        let folder = folder();
        let regions = regions(folder.path(), Config::default());
        register(&regions, "a", asked("r", "/forebay-a", 2, 4)).unwrap();
        register(&regions, "b", asked("r", "forebay-a", 0, 8)).unwrap();
        assert_eq!(regions.find(&owner("a"), "r").unwrap().read(1, 2).unwrap(), b"34");
        assert_eq!(regions.status(&owner("a"), None).unwrap(), [asked("r", "/forebay-a", 2, 4)]);
        assert!(matches!(regions.find(&owner("c"), "r"), Err(RegionError::Unknown(_))));
        let nameless = Owner { anonymous: true, name: "a".to_owned() };
        assert!(regions.status(&nameless, None).unwrap().is_empty());
        regions.unregister(&owner("a"), None);
        assert!(regions.status(&owner("a"), None).unwrap().is_empty());
        assert_eq!(regions.status(&owner("b"), Some("r")).unwrap().len(), 1);
        regions.unregister(&owner("b"), Some("other"));
        assert_eq!(regions.status(&owner("b"), None).unwrap().len(), 1);
    }

    #[test]
    fn a_key_is_one_name_that_may_be_used_and_no_way_out_of_the_folder() {
        let folder = folder();
        let outside = tempfile::tempdir().unwrap();
        fill(outside.path(), "forebay-secret", b"01234567");
        symlink(outside.path().join("forebay-secret"), folder.path().join("forebay-link")).unwrap();
        std::fs::create_dir(folder.path().join("forebay-folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("forebay-pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let regions = regions(folder.path(), Config::default());
        for (key, says) in [
            ("", "is empty"),
            ("/", "is empty"),
            ("..", "is a folder"),
            ("/..", "is a folder"),
            ("../forebay-a", "is a path"),
            ("//forebay-a", "is a path"),
            ("forebay-folder/../forebay-a", "is a path"),
            ("forebay-a\0", "is a path"),
            ("other", "does not begin with \"forebay-\""),
            ("forebay-absent", "cannot be opened"),
            ("forebay-link", "cannot be opened"),
            ("forebay-folder", "cannot be opened"),
            ("forebay-pipe", "is not a file"),
        ] {
            let error = register(&regions, "a", asked("r", key, 0, 1)).unwrap_err();
            assert!(error.contains(says), "{key:?}: {error}");
        }
        assert!(register(&regions, "a", asked("r", &"forebay-".repeat(40), 0, 1)).unwrap_err().contains("longer"));
    }

    #[test]
    fn offsets_and_sizes_that_overflow_or_lead_out_are_refused() {
        let folder = folder();
        let regions = regions(folder.path(), Config::default());
        for (offset, bytes, says) in [
            (0, 0, "are no part"),
            (0, 9, "has 8 bytes, the region would end at 9"),
            (8, 1, "would end at 9"),
            (u64::MAX, 1, "are no part"),
            (1, u64::MAX, "are no part"),
            (u64::MAX - 1, 1, "would end at"),
        ] {
            let error = register(&regions, "a", asked("r", "forebay-a", offset, bytes)).unwrap_err();
            assert!(error.contains(says), "{offset} {bytes}: {error}");
        }
        register(&regions, "a", asked("r", "forebay-a", 4, 4)).unwrap();
        let region = regions.find(&owner("a"), "r").unwrap();
        for (offset, bytes) in [(0, 5), (4, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(matches!(region.read(offset, bytes), Err(RegionError::Wrong(_))), "{offset} {bytes}");
        }
        assert!(matches!(region.write(2, b"abc"), Err(RegionError::Wrong(_))));
        region.write(2, b"ab").unwrap();
        assert_eq!(region.read(0, 4).unwrap(), b"45ab");
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error_and_is_not_made_longer() {
        let folder = folder();
        let regions = regions(folder.path(), Config::default());
        register(&regions, "a", asked("r", "forebay-a", 0, 8)).unwrap();
        let region = regions.find(&owner("a"), "r").unwrap();
        let file = OpenOptions::new().write(true).open(folder.path().join("forebay-a")).unwrap();
        file.set_len(3).unwrap();
        let error = region.read(0, 8).unwrap_err().to_string();
        assert!(error.contains("has 3 bytes now, 8 when it was registered"), "{error}");
        assert!(matches!(region.write(0, b"abcd"), Err(RegionError::Changed(_))));
        assert_eq!(file.metadata().unwrap().len(), 3);
        assert_eq!(region.read(0, 3).unwrap(), b"012");
    }

    #[test]
    fn bounds_are_said_with_figures_and_other_machines_are_refused() {
        let folder = folder();
        fill(folder.path(), "forebay-b", &[0; 64]);
        let config = Config { regions_max: 2, bytes_max: 64, ..Config::default() };
        let regions = regions(folder.path(), config);
        register(&regions, "a", asked("r", "forebay-a", 0, 8)).unwrap();
        let twice = register(&regions, "a", asked("r", "forebay-a", 0, 8)).unwrap_err();
        assert!(twice.contains("unregister it first"), "{twice}");
        let large = register(&regions, "a", asked("s", "forebay-b", 0, 1)).unwrap_err();
        assert!(large.contains("has 64 bytes, those of other regions 8; together they may have 64"), "{large}");
        register(&regions, "b", asked("r", "forebay-a", 0, 8)).unwrap();
        let full = register(&regions, "b", asked("s", "forebay-a", 0, 8)).unwrap_err();
        assert!(full.contains("2 regions are registered"), "{full}");
        let region = || asked("t", "forebay-a", 0, 1);
        for (peer, forwarded) in [("192.0.2.1:9", false), (HERE, true)] {
            let elsewhere = regions.register(&owner("a"), peer.parse().unwrap(), forwarded, region());
            assert!(matches!(elsewhere, Err(RegionError::Forbidden(_))), "{peer}");
        }
        let off = Regions::in_folder(None, folder.path());
        assert_eq!(off.register(&owner("a"), HERE.parse().unwrap(), false, region()), Err(RegionError::Off));
        assert!(off.status(&owner("a"), None).unwrap().is_empty());
    }
}
