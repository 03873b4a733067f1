//! The arena: one window of address space at a fixed place that holds everything the kernel owns.
//!
//! Its parts are laid out in [`ring0::layout`]. The whole window is reserved by one lazily made mapping
//! (`MAP_NORESERVE`: it costs address space, not memory), because libc's allocator is ours and is called before
//! `main`. Inside the VM the window is mapped at the same addresses, supervisor only.
//!
//! | module | part |
//! |---|---|
//! | `heap`, `granules` | Rust's global allocator and libc's `malloc` family, and where they get memory |
//! | [`ledger`] | how much of the host's memory all of it is, and may be |
//! | [`stack`] | kernel stacks with guard pages, pooled |
//! | [`thread`] | host threads whose stack and TLS lie in the arena, so that they work inside the guest |
//! | [`region`] | who backs which part: frames by anonymous memory or a memfd, file chunks by `mmap` |

mod granules;
mod heap;
pub mod ledger;
pub mod region;
pub mod stack;
pub mod thread;

pub use heap::{is_free as heap_is_free, trim, trim_if_worth};

use crate::hostsys::{mem, process};
use core::sync::atomic::{AtomicU32, Ordering};
use ring0::layout::{ARENA_BASE, ARENA_END};

const UNMAPPED: u32 = 0;
const MAPPING: u32 = 1;
const MAPPED: u32 = 2;

/// Whether the window is mapped yet. Process-wide by nature: there is one window per process.
static STATE: AtomicU32 = AtomicU32::new(UNMAPPED);

/// Maps the window if that has not happened. Ends the process with a clear message if it cannot be had: nothing,
/// not even an error value, can exist without a heap.
#[inline]
pub fn ensure() {
    if STATE.load(Ordering::Acquire) != MAPPED {
        map_window();
    }
}

#[cold]
fn map_window() {
    if STATE.compare_exchange(UNMAPPED, MAPPING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // Only another thread can be here; the first allocation happens before there is one, so this is brief.
        while STATE.load(Ordering::Acquire) != MAPPED {
            core::hint::spin_loop();
        }
        return;
    }
    // SAFETY: nothing else of this process is mapped there (MAP_FIXED_NOREPLACE inside checks it).
    if let Err(errno) = unsafe { mem::map_anonymous_fixed(ARENA_BASE, ARENA_END - ARENA_BASE) } {
        process::die(&[
            "pillbox: cannot reserve 112 GiB of address space at 0x6000000000 (errno ",
            process::decimal(errno.0 as u64, &mut [0; 20]),
            "); check `ulimit -v` and vm.overcommit_memory (2 refuses it)\n",
        ]);
    }
    // A fork() of this process must not copy or write-protect the kernel's memory; and most of the window is touched
    // sparsely, where huge pages would only waste memory.
    // SAFETY: advice on our own window.
    unsafe {
        let _ = mem::advise(ARENA_BASE, ARENA_END - ARENA_BASE, libc::MADV_DONTFORK);
        let _ = mem::advise(ARENA_BASE, ARENA_END - ARENA_BASE, libc::MADV_NOHUGEPAGE);
    }
    STATE.store(MAPPED, Ordering::Release);
}
