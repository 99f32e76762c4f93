//! The system calls that have no safe wrapper: memory shared with another process, and what a host gives up.
//!
//! The only file of this folder with `unsafe` in it. The memory is written and copied by address and never borrowed on the gateway's side,
//! because the other process may change it at any time; the gateway's file is sealed against shrinking, so an address
//! within the mapping stays valid whatever the other side does.

#![allow(unsafe_code, reason = "calls without a safe wrapper; each says why it is sound")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A file in memory whose size is fixed for ever, to be passed to the other process.
pub(super) fn sealed_memory(bytes: usize) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("forebay-tensors", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes as u64)?;
    // Who holds it can then neither shrink it under the other's feet nor make it grow.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Memory that two processes share.
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value and has no thread of its own; `write` and `copy_out` only copy bytes.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of `file`, at least one, for reading and writing.
    pub(super) fn shared(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        if bytes == 0 || rustix::fs::fstat(&file)?.st_size < i64::try_from(bytes).unwrap_or(i64::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the memory is smaller than was said"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing in this process refers to it yet.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped nothing"))?;
        Ok(Self { start, bytes })
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `source` to `offset`. False, and nothing is written, where it would not fit.
    pub(super) fn write(&self, offset: usize, source: &[u8]) -> bool {
        if !self.holds(offset, source.len()) {
            return false;
        }
        // SAFETY: the range lies within the mapping, which cannot shrink; `source` is memory of this process alone, so
        // the two do not overlap; bytes that the other process writes meanwhile change what it reads, not ours.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), self.start.as_ptr().add(offset), source.len()) };
        true
    }

    /// A copy of `bytes` from `offset` on, which the other process can no longer change. None where they are not all there.
    pub(super) fn copy_out(&self, offset: usize, bytes: usize) -> Option<Vec<u8>> {
        if !self.holds(offset, bytes) {
            return None;
        }
        let mut copy = Vec::with_capacity(bytes);
        // SAFETY: the range lies within the mapping; the vector has room for `bytes` and all of them are written before
        // its length says so. Every value of a byte is a byte, whatever the other process writes meanwhile.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), copy.as_mut_ptr(), bytes);
            copy.set_len(bytes);
        }
        Some(copy)
    }

    fn holds(&self, offset: usize, bytes: usize) -> bool {
        offset.checked_add(bytes).is_some_and(|end| end <= self.bytes)
    }

    /// `bytes` from `offset` on, without a copy. Only for a host, to whom the gateway's word is good: nobody writes the inputs while they
    /// are computed with. None where they are not all there.
    #[cfg(feature = "delegate-host")]
    pub(super) fn view(&self, offset: usize, bytes: usize) -> Option<&[u8]> {
        // SAFETY: the range lies within the mapping, which lives as long as the borrow; the gateway writes inputs only
        // between two requests, and this process writes outputs behind them.
        self.holds(offset, bytes).then(|| unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), bytes) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `shared`, nothing borrows it any more, and it is unmapped once.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// How many operators of a session's model each provider took. Empty where the runtime does not say.
#[cfg(feature = "delegate-host")]
pub(super) fn placement(session: &ort::session::Session) -> std::collections::BTreeMap<String, usize> {
    use ort::AsPointer as _;

    let api = ort::api();
    let mut placement = std::collections::BTreeMap::new();
    let session = session.inner();
    let (mut parts, mut count) = (ptr::null(), 0);
    // SAFETY: the session lives through the call; the list that comes back belongs to it.
    let listed = unsafe {
        ort::Error::<()>::result_from_status((api.Session_GetEpGraphAssignmentInfo)(
            session.ptr(),
            &mut parts,
            &mut count,
        ))
    };
    if listed.is_err() || parts.is_null() {
        return placement;
    }
    // SAFETY: the runtime said that so many pointers lie there, and they live as long as the session.
    for &part in unsafe { std::slice::from_raw_parts(parts, count) } {
        let (mut name, mut nodes, mut many) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `part` is one of the session's; a name is a text that ends with a zero and lives as long.
        let name = unsafe {
            let told = ort::Error::<()>::result_from_status((api.EpAssignedSubgraph_GetEpName)(part, &mut name));
            if told.is_err() || name.is_null() {
                continue;
            }
            std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        // SAFETY: `part` is one of the session's; only the number of nodes is used.
        let told = unsafe {
            ort::Error::<()>::result_from_status((api.EpAssignedSubgraph_GetNodes)(part, &mut nodes, &mut many))
        };
        if told.is_ok() {
            *placement.entry(name).or_default() += many;
        }
    }
    placement
}

/// What a host gives up before it loads a vendor's code.
#[cfg(feature = "delegate-host")]
pub(super) mod give_up {
    use std::io;
    use std::mem::offset_of;

    use libc::{seccomp_data, sock_filter, sock_fprog};
    use rustix::thread::UnshareFlags;

    /// Closes every file but the standard ones.
    pub(in crate::engine::delegate) fn files() -> io::Result<()> {
        // SAFETY: plain numbers. Called before anything in this process has opened a file of its own.
        let failed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A user and a network namespace of its own: no interface but a loopback that is down, and no rights over what is outside.
    pub(in crate::engine::delegate) fn network_namespace() -> io::Result<()> {
        // SAFETY: no file table or memory is unshared, so no handle of Rust's loses its meaning.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)? };
        Ok(())
    }

    const ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
    const NUMBER: u32 = offset_of!(seccomp_data, nr) as u32;
    const ARCHITECTURE: u32 = offset_of!(seccomp_data, arch) as u32;
    const FIRST: u32 = offset_of!(seccomp_data, args) as u32;

    const fn load(offset: u32) -> sock_filter {
        sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
    }

    const fn equals(value: u32, then: u8, otherwise: u8) -> sock_filter {
        sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: then, jf: otherwise, k: value }
    }

    const fn give(action: u32) -> sock_filter {
        sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
    }

    /// Calls that are refused: sockets but those within this machine, rings that open sockets past this filter, other processes'
    /// memory and files, signals to other processes.
    pub(in crate::engine::delegate) fn filter(own_pid: u32) -> Vec<sock_filter> {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        let mut filter = vec![
            load(ARCHITECTURE),
            equals(ARCH, 1, 0),
            give(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
            // A socket of another family than AF_UNIX.
            equals(number(libc::SYS_socket), 0, 4),
            load(FIRST),
            equals(libc::AF_UNIX as u32, 1, 0),
            give(refused),
            give(libc::SECCOMP_RET_ALLOW),
        ];
        // A signal to another process; to itself it is how a program aborts.
        for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
            filter.extend([
                equals(number(call), 0, 4),
                load(FIRST),
                equals(own_pid, 1, 0),
                give(refused),
                give(libc::SECCOMP_RET_ALLOW),
            ]);
        }
        let never = [
            libc::SYS_io_uring_setup,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_tkill,
            libc::SYS_bpf,
            libc::SYS_unshare,
            libc::SYS_setns,
        ];
        for call in never {
            filter.extend([equals(number(call), 0, 1), give(refused)]);
        }
        if cfg!(target_arch = "x86_64") {
            // The 32-bit way of calling has numbers of its own, from this bit on.
            let at_least = sock_filter {
                code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
                jt: 0,
                jf: 1,
                k: 0x4000_0000,
            };
            filter.extend([at_least, give(refused)]);
        }
        filter.push(give(libc::SECCOMP_RET_ALLOW));
        filter
    }

    /// Puts the filter in force for this thread and all that it starts. For ever.
    pub(in crate::engine::delegate) fn network_calls(own_pid: u32) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        let mut filter = filter(own_pid);
        let program =
            sock_fprog { len: u16::try_from(filter.len()).map_err(io::Error::other)?, filter: filter.as_mut_ptr() };
        // SAFETY: the program points at the filter, which lives until the call returns; the kernel copies it.
        let failed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_neither_written_nor_read() {
        let file = sealed_memory(4096).unwrap();
        let memory = Mapping::shared(&file, 4096).unwrap();
        assert!(memory.write(4092, &[1, 2, 3, 4]));
        assert!(!memory.write(4093, &[1, 2, 3, 4]));
        assert!(!memory.write(usize::MAX, &[1]));
        assert_eq!(memory.copy_out(4092, 4), Some(vec![1, 2, 3, 4]));
        assert_eq!(memory.copy_out(4096, 0), Some(Vec::new()));
        assert_eq!(memory.copy_out(4093, 4), None);
        assert_eq!(memory.copy_out(1, usize::MAX), None);
    }

    #[test]
    fn two_mappings_of_one_file_see_the_same_bytes() {
        let file = sealed_memory(64).unwrap();
        let (here, there) = (Mapping::shared(&file, 64).unwrap(), Mapping::shared(&file, 64).unwrap());
        assert!(here.write(8, b"tensor"));
        assert_eq!(there.copy_out(8, 6).unwrap(), b"tensor");
    }

    #[test]
    fn nobody_can_shrink_it_and_a_lie_about_its_size_is_refused() {
        let file = sealed_memory(4096).unwrap();
        assert!(rustix::fs::ftruncate(&file, 0).is_err());
        assert!(rustix::fs::ftruncate(&file, 1 << 20).is_err());
        assert!(Mapping::shared(&file, 4097).is_err());
        assert!(Mapping::shared(&file, 0).is_err());
    }
}
