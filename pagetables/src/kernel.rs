//! Tables for the kernel's own mappings.

use crate::node::TableAlloc;
use crate::tree::{Error, Mapping, Tree};
use crate::{Attrs, Flush, Format, PAGE_SIZE, PageSize, Template, VirtRange};

/// A table that may hold anything anywhere: supervisor pages, global pages, devices, either half.
///
/// It becomes the shared part of application tables by [`freeze`](Self::freeze), or serves as a root itself (TTBR1,
/// the kernel's own TTBR0, bare metal).
pub struct KernelTables<F: Format, A: TableAlloc> {
    tree: Tree<F, A>,
}

impl<F: Format, A: TableAlloc> KernelTables<F, A> {
    /// A table with nothing in it.
    ///
    /// # Errors
    /// [`Error::OutOfTables`].
    pub fn new(alloc: A) -> Result<Self, Error> {
        Tree::new(alloc).map(|tree| KernelTables { tree })
    }

    /// Physical address of the root, for CR3 or TTBRn_EL1.
    pub fn root(&self) -> u64 {
        self.tree.root
    }

    /// Maps the range to contiguous memory with the largest pages, up to `size`, that alignment allows, replacing
    /// what is there. Attributes that allow nothing unmap.
    ///
    /// # Errors
    /// [`Error::OutOfTables`].
    pub fn map(&mut self, range: VirtRange, phys: u64, attrs: Attrs, size: PageSize) -> Result<Flush, Error> {
        if !attrs.is_accessible() {
            return self.unmap(range);
        }
        if size == PageSize::Size4K {
            let pages = ((range.last() - range.start()) / PAGE_SIZE + 1) as usize;
            let frames = (0..pages).map(|page| phys.wrapping_add(page as u64 * PAGE_SIZE));
            return self.tree.map_pages(range.start(), frames, attrs);
        }
        self.tree.map_run(range.start(), range.last(), phys, attrs, size)
    }

    /// Removes what is mapped in the range.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] when a large page must be split.
    pub fn unmap(&mut self, range: VirtRange) -> Result<Flush, Error> {
        self.tree.unmap(range.start(), range.last(), &mut |_| ())
    }

    /// Changes what the pages mapped in the range allow.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] when a large page must be split.
    pub fn protect(&mut self, range: VirtRange, attrs: Attrs) -> Result<Flush, Error> {
        if !attrs.is_accessible() {
            return self.unmap(range);
        }
        self.tree.protect(range.start(), range.last(), attrs)
    }

    /// The leaf that translates `va`.
    pub fn lookup(&self, va: u64) -> Option<Mapping> {
        self.tree.lookup(va)
    }

    /// Calls `each` for the leaves in the range, ascending.
    pub fn for_each(&self, range: VirtRange, mut each: impl FnMut(Mapping)) {
        self.tree.for_each(range.start(), range.last(), &mut each);
    }

    /// Ends building: the `shared` ranges become part of every table that the template makes.
    ///
    /// # Errors
    /// [`Error::Frozen`] if something is mapped outside the ranges, a range ends in the middle of a large page, or
    /// the ranges need more than a handful of upper tables of their own.
    pub fn freeze(self, shared: &[VirtRange]) -> Result<Template<F, A>, Error> {
        Template::new(self.tree, shared)
    }
}
