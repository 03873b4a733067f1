//! An application's page table.

use crate::node::TableAlloc;
use crate::tree::{Error, Mapping, Retired, Tree};
use crate::{Flush, Format, PageSize, Rights, UserRange};

/// The page table of one user address space: user pages in the lower half, beside the frozen entries of the
/// [`Template`](crate::Template) it was made from.
pub struct PageTables<F: Format, A: TableAlloc> {
    tree: Tree<F, A>,
}

impl<F: Format, A: TableAlloc> PageTables<F, A> {
    /// A table with nothing in it.
    ///
    /// # Errors
    /// [`Error::OutOfTables`].
    pub fn new(alloc: A) -> Result<Self, Error> {
        Tree::new(alloc).map(|tree| PageTables { tree })
    }

    pub(crate) fn from_tree(tree: Tree<F, A>) -> Self {
        PageTables { tree }
    }

    /// Physical address of the root, for CR3 or TTBR0_EL1.
    #[inline]
    pub fn root(&self) -> u64 {
        self.tree.root
    }

    /// Where its table pages come from.
    #[inline]
    pub fn alloc(&self) -> &A {
        &self.tree.alloc
    }

    /// Maps the 4 KiB page at `va`: [`map`](Self::map) for one page, the path of a page fault.
    ///
    /// # Errors
    /// See [`map`](Self::map).
    #[inline]
    pub fn map_page(&mut self, page: UserRange, frame: u64, rights: Rights) -> Result<Flush, Error> {
        if rights.is_empty() {
            return self.unmap(page, |_| ());
        }
        self.tree.map_page(page.start(), frame, rights.attrs())
    }

    /// Maps 4 KiB pages from the start of `range` on, replacing what is there. Maps as many as `frames` gives, at
    /// most the range. Empty `rights` unmap.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] (some pages may have been mapped).
    #[inline]
    pub fn map<I>(&mut self, range: UserRange, frames: I, rights: Rights) -> Result<Flush, Error>
    where
        I: IntoIterator<Item = u64>,
        I::IntoIter: ExactSizeIterator,
    {
        if rights.is_empty() {
            return self.unmap(range, |_| ());
        }
        let frames = frames.into_iter().take(range.pages() as usize);
        self.tree.map_pages(range.start(), frames, rights.attrs())
    }

    /// Maps the range to contiguous memory with the largest pages, up to `size`, that alignment allows.
    ///
    /// # Errors
    /// [`Error::OutOfTables`].
    pub fn map_run(
        &mut self,
        range: UserRange,
        phys: u64,
        rights: Rights,
        size: PageSize,
    ) -> Result<Flush, Error> {
        if rights.is_empty() {
            return self.unmap(range, |_| ());
        }
        self.tree.map_run(range.start(), range.last(), phys, rights.attrs(), size)
    }

    /// Removes what is mapped in the range and calls `gone` for each leaf. The frames may be reused after the
    /// flush. Tables that became empty are retired: see [`take_retired`](Self::take_retired).
    ///
    /// # Errors
    /// [`Error::OutOfTables`] when a large page must be split; the part below it has been unmapped.
    #[inline]
    pub fn unmap(&mut self, range: UserRange, mut gone: impl FnMut(Mapping)) -> Result<Flush, Error> {
        self.tree.unmap(range.start(), range.last(), &mut gone)
    }

    /// Changes the rights of what is mapped in the range; holes stay holes. Empty `rights` unmap.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] when a large page must be split.
    #[inline]
    pub fn protect(&mut self, range: UserRange, rights: Rights) -> Result<Flush, Error> {
        if rights.is_empty() {
            return self.unmap(range, |_| ());
        }
        self.tree.protect(range.start(), range.last(), rights.attrs())
    }

    /// The user page at `va`, if any. Never one of the template's.
    #[inline]
    pub fn lookup(&self, va: u64) -> Option<Mapping> {
        if va >= F::LOWER_END { None } else { self.tree.lookup(va) }
    }

    /// Calls `each` for the user pages in the range, ascending. A large page that sticks out is reported whole.
    #[inline]
    pub fn for_each(&self, range: UserRange, mut each: impl FnMut(Mapping)) {
        self.tree.for_each(range.start(), range.last(), &mut each);
    }

    /// Where a part of the range ends that begins at its start and has at most about `pages` pages of room in tables that
    /// exist, and one table at least; `None` if the whole range has no more.
    pub fn reach(&self, range: UserRange, pages: u64) -> Option<u64> {
        self.tree.reach(range.start(), range.last(), pages)
    }

    /// Takes the table pages that edits have unlinked so far. Take them before the flush begins, and free them
    /// when every CPU has acknowledged it. What nobody takes is freed when the table is dropped.
    #[inline]
    pub fn take_retired(&mut self) -> Retired {
        self.tree.take_retired()
    }
}
