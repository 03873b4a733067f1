//! A root, its allocator, and the steps that every operation is made of.
//!
//! `Tree` is the trusted half of the crate: it maps anything anywhere. [`crate::KernelTables`] and
//! [`crate::PageTables`] are the two ways to use it.

use crate::node::{Node, TableAlloc, read, write};
use crate::{Attrs, Format};
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

/// Level of the root.
pub(crate) const ROOT_LEVEL: u32 = 3;

/// Why an operation stopped. What it did up to there stays done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The allocator has no more table pages.
    OutOfTables,
    /// An entry in the way is shared with other tables.
    Frozen,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::OutOfTables => "out of page-table pages",
            Error::Frozen => "the entry is shared",
        })
    }
}

impl core::error::Error for Error {}

/// A present leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address that it translates.
    pub va: u64,
    /// What that translates to.
    pub phys: u64,
    /// What it allows.
    pub attrs: Attrs,
    /// How much it translates.
    pub size: crate::PageSize,
}

/// Index into the table at `level`, not yet reduced modulo 512.
#[inline]
pub(crate) const fn index(va: u64, level: u32) -> u64 {
    va >> shift(level)
}

/// Log2 of what one entry at `level` covers.
#[inline]
pub(crate) const fn shift(level: u32) -> u32 {
    12 + 9 * level
}

/// Last address that the entry for `va` at `level` covers.
#[inline]
pub(crate) const fn entry_last(va: u64, level: u32) -> u64 {
    va | ((1 << shift(level)) - 1)
}

/// How many entries are in use in the table that `entry` points to.
#[inline]
pub(crate) fn count<F: Format>(entry: u64) -> u64 {
    entry >> F::COUNT_SHIFT & 0x3ff
}

/// `by` (two's complement) more entries are in use in the table below `owner`. The root has no owner.
#[inline]
pub(crate) fn add_count<F: Format>(owner: Option<&AtomicU64>, by: u64) {
    if let Some(slot) = owner {
        write(slot, read(slot).wrapping_add(by << F::COUNT_SHIFT));
    }
}

#[inline]
pub(crate) fn is_own_table<F: Format>(entry: u64) -> bool {
    entry & F::OWN_MASK == F::OWN_TABLE
}

pub(crate) struct Tree<F: Format, A: TableAlloc> {
    pub(crate) root: u64,
    pub(crate) alloc: A,
    /// Unlinked tables that hardware may still walk, linked through their first word. Table addresses have
    /// bit 0 clear, so a CPU that reads the link takes it for an absent entry.
    retired: AtomicU64,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, A: TableAlloc> Tree<F, A> {
    pub(crate) fn new(alloc: A) -> Result<Self, Error> {
        let root = alloc.alloc().ok_or(Error::OutOfTables)?;
        Ok(Tree::from_root(root, alloc))
    }

    pub(crate) fn from_root(root: u64, alloc: A) -> Self {
        Tree { root, alloc, retired: AtomicU64::new(0), format: PhantomData }
    }

    #[inline]
    pub(crate) fn root(&self) -> Node<'_> {
        Node::at(&self.alloc, self.root)
    }

    /// The table that a table entry points to.
    #[inline]
    pub(crate) fn table(&self, entry: u64) -> Node<'_> {
        Node::at(&self.alloc, entry & F::ADDRESS)
    }

    /// The table below `slot`, an entry at `level`, made if there is none, split off if there is a large page.
    /// `owner` is the entry that points to the table in which `slot` is.
    #[inline]
    pub(crate) fn descend(
        &self,
        slot: &AtomicU64,
        owner: Option<&AtomicU64>,
        va: u64,
        level: u32,
    ) -> Result<Node<'_>, Error> {
        let entry = read(slot);
        if is_own_table::<F>(entry) {
            return Ok(self.table(entry));
        }
        self.make_table(slot, owner, va, level)
    }

    #[cold]
    #[inline(never)]
    fn make_table(
        &self,
        slot: &AtomicU64,
        owner: Option<&AtomicU64>,
        va: u64,
        level: u32,
    ) -> Result<Node<'_>, Error> {
        let entry = read(slot);
        if entry & F::FROZEN != 0 {
            return Err(Error::Frozen);
        }
        if entry != 0 {
            return self.split(slot, va, level);
        }
        let table = self.alloc.alloc().ok_or(Error::OutOfTables)?;
        add_count::<F>(owner, 1);
        Ok(self.link(slot, table, 0))
    }

    /// Replaces the large page in `slot` by a table of 512 smaller ones that say the same.
    pub(crate) fn split(&self, slot: &AtomicU64, va: u64, level: u32) -> Result<Node<'_>, Error> {
        let entry = read(slot);
        let table = self.alloc.alloc().ok_or(Error::OutOfTables)?;
        let node = Node::at(&self.alloc, table);
        let bits = F::leaf(F::attrs(entry), level - 1);
        let phys = entry & F::ADDRESS;
        for i in 0..512 {
            write(node.slot(i), bits | (phys + (i << shift(level - 1))));
        }
        if F::BREAK_BEFORE_MAKE {
            write(slot, 0);
            let bytes = 1 << shift(level);
            // Whoever splits adds the page to the flush token too.
            let _done = self.alloc.invalidate(va & !(bytes - 1), bytes);
        }
        Ok(self.link(slot, table, 512))
    }

    fn link(&self, slot: &AtomicU64, table: u64, in_use: u64) -> Node<'_> {
        write(slot, table | F::TABLE | in_use << F::COUNT_SHIFT);
        Node::at(&self.alloc, table)
    }

    /// Unlinks the table below `slot`, all of whose entries are zero.
    pub(crate) fn retire(&self, slot: &AtomicU64) {
        let table = read(slot) & F::ADDRESS;
        write(slot, 0);
        write(Node::at(&self.alloc, table).slot(0), self.retired.load(Ordering::Relaxed));
        self.retired.store(table, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn take_retired(&self) -> Retired {
        Retired { head: self.retired.swap(0, Ordering::Relaxed) }
    }

    /// Frees the tables below `node` that are the tree's own. At most `in_use` of its entries are not zero.
    fn free_below(&self, node: Node<'_>, level: u32, mut in_use: u64) {
        let mut i = 0;
        while in_use > 0 {
            i = node.next_used(i, 512);
            if i == 512 {
                break;
            }
            let entry = read(node.slot(i));
            if is_own_table::<F>(entry) {
                let below = count::<F>(entry);
                if level > 1 {
                    self.free_below(self.table(entry), level - 1, below);
                }
                self.alloc.free(entry & F::ADDRESS, below == 0);
            }
            (i, in_use) = (i + 1, in_use - 1);
        }
    }
}

impl<F: Format, A: TableAlloc> Drop for Tree<F, A> {
    /// Frees everything: whoever drops a table has made sure that no CPU uses it.
    fn drop(&mut self) {
        self.take_retired().free(&self.alloc);
        self.free_below(self.root(), ROOT_LEVEL, 512);
        self.alloc.free(self.root, false);
    }
}

/// Table pages that have been unlinked but that hardware may still be walking.
#[must_use = "free these tables after the flush"]
#[derive(Debug)]
pub struct Retired {
    head: u64,
}

impl Retired {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.head == 0
    }

    /// Gives the pages back to the allocator they came from. Call it after the flush that followed their
    /// unlinking has been acknowledged by every CPU that used the table.
    pub fn free<A: TableAlloc>(self, alloc: &A) {
        let mut table = self.head;
        while table != 0 {
            let link = Node::at(alloc, table).slot(0);
            let next = read(link);
            write(link, 0);
            alloc.free(table, true);
            table = next;
        }
    }
}
