//! The program's allocator: mimalloc, but for what this box could never hold.
//!
//! mimalloc reserves any size, and the kernel ends the program, or another one, while it is filled: a model of a few hundred
//! bytes that declares a tensor of terabytes would stop the line. Kernels refuse such a request to other allocators, and so
//! does this one; whoever loads a model takes it for an error.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// musl's own allocator costs half as much CPU again per request.
#[derive(Debug)]
pub struct Allocator;

/// A request for more bytes fails.
static LARGEST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// From now on no single request may be for more than this machine's memory.
#[allow(unsafe_code, reason = "sysconf has no safe wrapper in the tree")]
pub(crate) fn refuse_the_impossible() {
    // SAFETY: takes a number, gives one, touches no memory of ours.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // Where the kernel does not say, things are as they were.
    if let Some(bytes) = usize::try_from(pages).ok().and_then(|pages| pages.checked_mul(rustix::param::page_size())) {
        LARGEST.store(bytes.max(1), Ordering::Relaxed);
    }
}

fn is_impossible(bytes: usize) -> bool {
    bytes > LARGEST.load(Ordering::Relaxed)
}

#[allow(unsafe_code, reason = "the trait of allocators is unsafe")]
// SAFETY: everything is mimalloc's, which keeps the trait's promises; a null pointer says that there is no memory.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same promises to us.
        if is_impossible(layout.size()) { null_mut() } else { unsafe { MiMalloc.alloc(layout) } }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        if is_impossible(layout.size()) { null_mut() } else { unsafe { MiMalloc.alloc_zeroed(layout) } }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: every pointer that we gave out is mimalloc's.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above; where null is returned the old block stays as it is.
        if is_impossible(bytes) { null_mut() } else { unsafe { MiMalloc.realloc(pointer, layout, bytes) } }
    }
}
