//! What kind of disk a folder is on, in words.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where a folder lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// File system, such as `ext4`; empty if unknown.
    pub file_system: String,
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    /// What is mounted.
    pub source: String,
    /// Mount options that matter for durability.
    pub options: String,
    /// A disk that turns; `None` if there is no disk or nobody knows.
    pub rotational: Option<bool>,
    /// The drive keeps writes in a cache of its own until it is told to flush.
    pub write_back: Option<bool>,
}

impl Place {
    /// Looks at the folder's mount and device.
    pub fn of(folder: &Path) -> Self {
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut place = mounts
            .lines()
            .filter_map(read_mount)
            .filter(|place| folder.starts_with(&place.mounted_at))
            // The longest mount point holds the folder; of two mounted over each other, the later.
            .max_by_key(|place| place.mounted_at.as_os_str().len())
            .unwrap_or_default();
        let device = fs::metadata(&folder).map_or(0, |metadata| metadata.dev());
        let block = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)));
        // A partition's queue is its disk's.
        for queue in [block.join("queue"), block.join("../queue")] {
            let read = |name| fs::read_to_string(queue.join(name)).ok();
            place.rotational = place.rotational.or(read("rotational").map(|text| text.trim() == "1"));
            place.write_back = place.write_back.or(read("write_cache").map(|text| text.trim() == "write back"));
        }
        place
    }

    /// Everything written here is gone when the power is.
    pub fn is_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs" | "rootfs" | "devtmpfs")
    }

    /// The disk of a virtual machine, as far as its name tells.
    pub fn is_virtual(&self) -> bool {
        ["/dev/vd", "/dev/xvd"].iter().any(|name| self.source.starts_with(name))
    }

    /// What this kind of place means for the promise; `None` if nothing special.
    pub fn warning(&self) -> Option<&'static str> {
        Some(match self.file_system.as_str() {
            "tmpfs" | "ramfs" | "rootfs" | "devtmpfs" => "this is memory: nothing here survives a power cut",
            "overlay" | "aufs" => {
                "this is a container's own layer: it survives a power cut and a restart, not the removal of the \
                 container; mount a volume for the state folder"
            }
            "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" | "glusterfs" => {
                "this is another machine's disk: a sync is what that machine says it is, and SQLite's log needs shared \
                 memory, which does not work between machines; use a local disk"
            }
            system if system.starts_with("fuse") => {
                "this file system is a program of its own: a sync is what that program makes of it"
            }
            "vfat" | "exfat" | "msdos" => {
                "this file system has no journal: a power cut may damage folders and other files; use ext4, xfs or f2fs"
            }
            _ if self.has("nobarrier") || self.has("barrier=0") => {
                "mounted without barriers: the drive's cache is not flushed, and a power cut may lose or damage anything"
            }
            "ext4" if self.has("data=writeback") => {
                "data=writeback: after a power cut, files may hold old rubbish where their length grew; the log's \
                 checksums see that"
            }
            _ => return None,
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }

    /// One word for the device.
    pub fn device(&self) -> &'static str {
        match self.rotational {
            _ if self.is_memory() => "memory",
            _ if self.is_virtual() => "a virtual disk",
            Some(true) => "a disk that turns",
            Some(false) => "flash",
            None => "unknown",
        }
    }
}

/// One line of `/proc/self/mountinfo`, see proc(5).
fn read_mount(line: &str) -> Option<Place> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(4);
    let mounted_at = front.next()?.replace("\\040", " ");
    let mut options = front.next()?.to_owned();
    let mut back = back.split(' ');
    let (file_system, source) = (back.next()?.to_owned(), back.next()?.to_owned());
    if let Some(more) = back.next() {
        options.push(',');
        options.push_str(more);
    }
    Some(Place { file_system, mounted_at: mounted_at.into(), source, options, ..Place::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_and_memory_is_called_memory() {
        let line = "31 22 0:27 / /dev/shm\\040x rw,nosuid shared:4 - tmpfs tmpfs rw,size=64k";
        let place = read_mount(line).unwrap();
        assert_eq!((place.file_system.as_str(), place.mounted_at.as_path()), ("tmpfs", Path::new("/dev/shm x")));
        assert!(place.warning().unwrap().contains("nothing here survives a power cut"));
        let line = "25 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw,nobarrier";
        assert!(read_mount(line).unwrap().warning().unwrap().contains("without barriers"));
        let line = "25 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw";
        assert_eq!(read_mount(line).unwrap().warning(), None);
    }
}
