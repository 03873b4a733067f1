//! One table page as an array of atomic words: the crate's only unsafe code.
//!
//! # Why the references are valid
//! 1. [`TableAlloc`]'s contract: what `alloc` gave is a page that nobody else uses until `free`, and `pointer` leads to it.
//! 2. Table addresses reach [`Node::at`] from three places only, all in this crate: a root or retired list held by a
//!    `Tree`, the address just allocated, and an entry that `Format::OWN_MASK` says is an owned table. Such
//!    entries are written by `Tree::link` alone.
//! 3. A page is freed only after the entry that named it is gone (`Tree::retire`, or the tree's own drop).

use core::sync::atomic::{AtomicU64, Ordering};

/// Where table pages come from.
///
/// # Safety
/// `alloc` and `alloc_dirty` give a 4 KiB-aligned physical address of a 4 KiB page that nobody else uses until it is
/// passed to `free`; its bits above 47 are clear. `pointer` gives the address at which this code can read and write
/// that page, until then.
pub unsafe trait TableAlloc {
    /// A zeroed table page, or `None` when there are no more.
    fn alloc(&self) -> Option<u64>;

    /// A table page that the caller overwrites entirely.
    fn alloc_dirty(&self) -> Option<u64> {
        self.alloc()
    }

    /// Takes a table page back. `zeroed` says that all its words are zero.
    fn free(&self, table: u64, zeroed: bool);

    /// Where the page at this physical address can be accessed.
    fn pointer(&self, table: u64) -> *const AtomicU64;

    /// Returns true when no CPU can use an old translation of the `bytes` bytes at `start`; called in the middle of an
    /// edit, between break and make, for formats that need that (see `Format::BREAK_BEFORE_MAKE`), when a live entry gets
    /// another address or size. False says that it could not be done here, and that no CPU uses the table now: the
    /// bytes become part of the edit's [`Flush`](crate::Flush).
    fn invalidate(&self, start: u64, bytes: u64) -> bool;
}

/// A table page.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a>(&'a [AtomicU64; 512]);

impl<'a> Node<'a> {
    /// The node at `table`, which must be a live table of `alloc` (see the module's list).
    #[inline]
    pub(crate) fn at<A: TableAlloc>(alloc: &'a A, table: u64) -> Node<'a> {
        // SAFETY: by facts 1 to 3 of the module's list the page is live, aligned and ours, and AtomicU64 allows
        // hardware and other readers beside us.
        Node(unsafe { &*alloc.pointer(table).cast::<[AtomicU64; 512]>() })
    }

    /// The entry for index `index`, modulo 512.
    #[inline]
    pub(crate) fn slot(self, index: u64) -> &'a AtomicU64 {
        &self.0[index as usize & 511]
    }

    /// Index of the first entry from `from` on that is not zero, `end` if there is none below that. Eight at a time, which lie
    /// in one cache line: most tables are nearly empty.
    #[inline]
    pub(crate) fn next_used(self, mut from: u64, end: u64) -> u64 {
        while from < end {
            let line = &self.0.as_chunks::<8>().0[(from as usize & 511) / 8];
            if from.is_multiple_of(8) && line.iter().fold(0, |all, slot| all | read(slot)) == 0 {
                from += 8;
            } else if read(self.slot(from)) == 0 {
                from += 1;
            } else {
                return from;
            }
        }
        end
    }

    /// Copies all entries of `from` into this page, which no hardware walks yet.
    pub(crate) fn copy_from(self, from: Node<'_>) {
        // SAFETY: both are whole pages (fact 1), they differ since `self` was just allocated, nobody else uses
        // `self`, and `from` belongs to a frozen template, which nobody writes.
        unsafe {
            core::ptr::copy_nonoverlapping(
                core::ptr::from_ref(from.0).cast::<u64>(),
                core::ptr::from_ref(self.0).cast::<u64>().cast_mut(),
                512,
            );
        }
    }
}

/// Reads an entry.
#[inline]
pub(crate) fn read(slot: &AtomicU64) -> u64 {
    slot.load(Ordering::Relaxed)
}

/// Writes an entry; what was written before (a new table's contents) is visible first.
#[inline]
pub(crate) fn write(slot: &AtomicU64, entry: u64) {
    slot.store(entry, Ordering::Release);
}
