//! The table of host descriptors: every one that this process holds, and beside it what it is and how it could be opened
//! again.
//!
//! Only `hostsys` makes descriptors, and what makes one returns a [`HostFd`], so that none is outside the table. Its place
//! in the table is its number: whoever opens everything again, under the old numbers, need not touch who holds them.
//! Descriptors of others are in it too ([`HostFd::lent`]): the caller's standard streams, KVM's, which a crate owns.
//!
//! The table says what the *process* has open, which is made anew with the process; hence a static. It has no lock. A
//! number that is not open is nobody's; the host gives it to one thread, which writes the slot and then counts its first
//! use. Who finds a count that is not 0 can add to it, and while there is a use the slot does not change.

mod what;

pub use what::{Origin, What};

use super::syscall;
use crate::abi::{Errno, Result};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// Descriptors of a chunk of the table. Chunks are made when needed, and stay.
const CHUNK: usize = 128;
/// The table's end: higher numbers are refused, as if the host had no more.
const MOST: usize = 1 << 20;

static CHUNKS: [AtomicPtr<[Slot; CHUNK]>; MOST / CHUNK] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MOST / CHUNK];

/// What the table has of a number.
struct Slot {
    fd: i32,
    /// How many [`HostFd`]s name it; 0 while it is not open, [`CLAIMED`] while it is being written.
    uses: AtomicU32,
    entry: UnsafeCell<Option<Entry>>,
}

/// Of a slot's count: somebody writes it.
const CLAIMED: u32 = u32::MAX;

struct Entry {
    what: What,
    /// It is closed with its last use; others are somebody else's to close.
    owned: bool,
}

// SAFETY: an entry is written by the one thread that has claimed the slot and by the one that has given up its last use, and
// read by those that have a use; the count orders these.
unsafe impl Sync for Slot {}

/// A use of a host descriptor: a value. The last one closes it.
pub struct HostFd(&'static Slot);

/// What a listing says of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub fd: i32,
    /// How many use it.
    pub uses: u32,
    /// What it is, and how it could be opened again.
    pub what: String,
}

/// Everything that is in the table now.
pub fn list() -> Vec<Listed> {
    let chunks = CHUNKS.iter().map(|chunk| chunk.load(Ordering::Acquire)).filter(|chunk| !chunk.is_null());
    // SAFETY: chunks are never freed.
    let slots = chunks.flat_map(|chunk| unsafe { &*chunk });
    let used = slots.filter(|slot| slot.use_again()).map(HostFd);
    // One use is ours.
    used.map(|fd| Listed { fd: fd.raw(), uses: fd.uses() - 1, what: fd.what().to_string() }).collect()
}

fn slot(fd: i32) -> Option<&'static Slot> {
    let number = usize::try_from(fd).ok()?;
    let place = CHUNKS.get(number / CHUNK)?;
    let mut chunk = place.load(Ordering::Acquire);
    if chunk.is_null() {
        chunk = new_chunk(place, number / CHUNK * CHUNK);
    }
    // SAFETY: chunks are never freed.
    unsafe { &*chunk }.get(number % CHUNK)
}

#[cold]
fn new_chunk(place: &AtomicPtr<[Slot; CHUNK]>, first: usize) -> *mut [Slot; CHUNK] {
    let slot = |at| Slot { fd: (first + at) as i32, uses: AtomicU32::new(0), entry: UnsafeCell::new(None) };
    let made = Box::into_raw(Box::new(core::array::from_fn(slot)));
    match place.compare_exchange(core::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => {
            // SAFETY: made just now, and nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
            other
        }
    }
}

impl Slot {
    /// Adds a use to those that there are. False where there is none.
    fn use_again(&self) -> bool {
        let more = |uses| (uses != 0 && uses < CLAIMED - 1).then(|| uses + 1);
        self.uses.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    /// Makes the first use. False where somebody has it.
    fn begin(&self, entry: impl FnOnce() -> Entry) -> bool {
        if self.uses.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        // SAFETY: claimed: nobody else looks at the entry.
        unsafe { *self.entry.get() = Some(entry()) };
        self.uses.store(1, Ordering::Release);
        true
    }
}

impl HostFd {
    /// Takes ownership of `fd`, which is open and nobody else's.
    ///
    /// # Errors
    /// EMFILE, and it is closed, where the table ends.
    pub(in crate::hostsys) fn new(fd: u64, what: What) -> Result<HostFd> {
        let fd = fd as i32;
        let begun = slot(fd).filter(|slot| slot.begin(|| Entry { what, owned: true }));
        match begun {
            Some(slot) => Ok(HostFd(slot)),
            None => {
                debug_assert!(fd as usize >= MOST, "descriptor {fd} was closed and not given up");
                close(fd);
                Err(Errno::EMFILE)
            }
        }
    }

    /// Takes ownership of a descriptor that somebody has given: at start, or in a message.
    ///
    /// # Errors
    /// EMFILE, and it is closed, where the table ends.
    pub fn given(fd: OwnedFd, by: &'static str) -> Result<HostFd> {
        HostFd::new(fd.into_raw_fd() as u64, What::Given(by))
    }

    /// Takes ownership of the descriptor that the caller has made and named by number.
    ///
    /// # Errors
    /// EMFILE where the table ends.
    pub fn inherited(fd: i32, by: &'static str) -> Result<HostFd> {
        HostFd::new(fd as u64, What::Given(by))
    }

    /// Lists a descriptor that somebody else closes, not before the last use is given up.
    ///
    /// # Errors
    /// EMFILE where the table ends.
    pub fn lent(fd: i32, what: What) -> Result<HostFd> {
        let slot = slot(fd).ok_or(Errno::EMFILE)?;
        let mut what = Some(what);
        let entry = || Entry { what: what.take().unwrap_or(What::Given("")), owned: false };
        if slot.use_again() || slot.begin(entry) { Ok(HostFd(slot)) } else { Err(Errno::EMFILE) }
    }

    /// The number.
    #[inline]
    pub fn raw(&self) -> i32 {
        self.0.fd
    }

    /// The descriptor as std's type, for what takes no other.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: it stays open as long as there is a use.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }

    /// What it is.
    pub fn what(&self) -> &What {
        // SAFETY: while there is a use, the entry does not change.
        match unsafe { &*self.0.entry.get() } {
            Some(entry) => &entry.what,
            None => &What::Given(""),
        }
    }

    fn uses(&self) -> u32 {
        self.0.uses.load(Ordering::Relaxed)
    }

    /// Takes it out of the table: it is somebody else's from then on, who closes it.
    ///
    /// # Errors
    /// EBUSY where there are other uses.
    pub fn hand_over(self) -> Result<OwnedFd> {
        let this = ManuallyDrop::new(self);
        if this.0.uses.compare_exchange(1, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            drop(ManuallyDrop::into_inner(this));
            return Err(Errno::EBUSY);
        }
        // SAFETY: claimed.
        unsafe { *this.0.entry.get() = None };
        this.0.uses.store(0, Ordering::Release);
        // SAFETY: it is open, and the table has forgotten it.
        Ok(unsafe { OwnedFd::from_raw_fd(this.0.fd) })
    }
}

impl Clone for HostFd {
    fn clone(&self) -> Self {
        // As many as could overflow do not fit into memory.
        self.0.uses.fetch_add(1, Ordering::Relaxed);
        HostFd(self.0)
    }
}

impl Drop for HostFd {
    fn drop(&mut self) {
        let slot = self.0;
        // The last use claims the slot, or nobody would know who is to write it.
        let fewer = |uses| Some(if uses == 1 { CLAIMED } else { uses - 1 });
        if slot.uses.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fewer) != Ok(1) {
            return;
        }
        // SAFETY: claimed.
        let entry = unsafe { (*slot.entry.get()).take() };
        // Before it is closed: then it is another thread's at once.
        slot.uses.store(0, Ordering::Release);
        if entry.is_some_and(|entry| entry.owned) {
            close(slot.fd);
        }
    }
}

fn close(fd: i32) {
    // SAFETY: the descriptor was ours, and nobody uses it after this.
    let _ = unsafe { syscall(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]) };
}

impl PartialEq for HostFd {
    fn eq(&self, other: &HostFd) -> bool {
        self.0.fd == other.0.fd
    }
}

impl Eq for HostFd {}

impl fmt::Debug for HostFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.fd, self.what())
    }
}

#[cfg(test)]
mod tests;
