//! Memory that attackers touch, and that they share.

use std::sync::atomic::{AtomicU64, Ordering};

/// Writes to a page of memory that was mapped for that.
pub(crate) fn touch(at: u64) {
    // SAFETY: a test program; what is not mapped there ends it.
    unsafe { std::ptr::write_volatile(at as *mut u8, 1) };
}

/// Reads a byte of memory that was mapped for that.
pub(crate) fn look(at: u64) {
    // SAFETY: as above.
    std::hint::black_box(unsafe { std::ptr::read_volatile(at as *const u8) });
}

/// A word that this process and those it forks share; `at` keeps where it is.
pub(crate) fn shared_word(at: &AtomicU64) -> &'static AtomicU64 {
    if at.load(Ordering::Relaxed) == 0 {
        let (rw, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let made = sys!(libc::SYS_mmap, 0, 4096, rw, shared, -1, 0);
        assert!(made > 0, "no shared memory: {made}");
        at.store(made as u64, Ordering::Relaxed);
    }
    // SAFETY: a page that was mapped above and is never unmapped, and zero is a value.
    unsafe { &*(at.load(Ordering::Relaxed) as *const AtomicU64) }
}
