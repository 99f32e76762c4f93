//! What a host gives up before any code of a vendor runs in it.

use std::os::unix::process::parent_id;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::engine::delegate::system::give_up as calls;

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// Something keeps the process off the network.
    pub(super) off_the_network: bool,
}

/// Gives up files, rights, network and core dumps, and dies with `parent` from now on.
pub(super) fn give_up(parent: u32) -> Result<Given, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("failed to {what}: {error}");
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| failed("be told of the gateway's death", &error))?;
    if parent_id() != parent {
        return Err(format!("its gateway {parent} is gone"));
    }
    calls::files().map_err(|error| failed("close inherited files", &error))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // The gateway does without huge pages and its children inherit that; weights are read faster with them.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    // Containers and hardened units refuse the one or the other; the gateway looks for itself what holds.
    let namespace = calls::network_namespace().is_ok();
    let no_rights = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let _ = rustix::thread::set_capabilities(None, no_rights);
    // Whoever changes its rights is hidden from its own user: the gateway must be able to look.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let filter = calls::network_calls(std::process::id()).is_ok();
    Ok(Given { off_the_network: namespace || filter })
}

/// Has the kernel refuse more than `bytes` of memory of its own. Whether it will.
pub(super) fn limit_memory(bytes: u64) -> bool {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    bytes > 0 && rustix::process::setrlimit(Resource::Data, limit).is_ok()
}

#[cfg(test)]
mod tests {
    use crate::engine::delegate::system::give_up;

    /// Runs a filter as the kernel does, for a call's number and first argument.
    fn allows(filter: &[libc::sock_filter], number: i64, first: u32) -> bool {
        let arch = if cfg!(target_arch = "x86_64") { 0xC000_003E_u32 } else { 0xC000_00B7 };
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = filter[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match step.k {
                        0 => u32::try_from(number).unwrap(),
                        4 => arch,
                        16 => first,
                        offset => panic!("nothing at {offset}"),
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if accumulator >= step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_RET | libc::BPF_K => return step.k == libc::SECCOMP_RET_ALLOW,
                code => panic!("no such step: {code}"),
            }
        }
    }

    #[test]
    fn the_filter_lets_through_what_a_library_needs_and_no_network() {
        let filter = give_up::filter(77);
        let call = |number, first| allows(&filter, number, first);
        assert!(call(libc::SYS_read, 0) && call(libc::SYS_mmap, 0) && call(libc::SYS_clone, 0));
        assert!(call(libc::SYS_socket, libc::AF_UNIX as u32));
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK] {
            assert!(!call(libc::SYS_socket, family as u32), "{family}");
        }
        assert!(call(libc::SYS_kill, 77) && call(libc::SYS_tgkill, 77));
        assert!(!call(libc::SYS_kill, 1) && !call(libc::SYS_tgkill, 78) && !call(libc::SYS_kill, u32::MAX));
        assert!(
            !call(libc::SYS_ptrace, 0) && !call(libc::SYS_io_uring_setup, 0) && !call(libc::SYS_process_vm_readv, 0)
        );
        if cfg!(target_arch = "x86_64") {
            assert!(!call(0x4000_0000 | libc::SYS_read, 0), "the 32-bit way of calling");
        }
    }
}
