//! The shared part of application tables.
//!
//! Freezing marks the largest entries that lie within the shared ranges: for an image at [0x7000_0000, 0x7800_0000)
//! the 2 MiB entries of one second-level table, for an arena of gigabytes the 1 GiB entries of one third-level
//! table, for the upper half 256 entries of the root. What is below marked entries exists once. The few nodes above
//! them (the *skeleton*) are copied for each application table, by whole pages.

use crate::edit::pieces;
use crate::node::{Node, TableAlloc, read, write};
use crate::tree::{Error, ROOT_LEVEL, Tree, index, is_own_table, shift};
use crate::{Format, PageTables, VirtRange};
use core::mem::ManuallyDrop;

/// How many nodes a skeleton can have; ours has three or four.
const MAX_SKELETON: usize = 8;

/// A node that every application table has a copy of.
#[derive(Clone, Copy, Default)]
struct Bone {
    table: u64,
    /// Which bone holds the entry that points here, and at which index. The root is bone 0.
    parent: usize,
    index: u64,
}

/// A frozen table. It is itself a complete root: the kernel's.
///
/// It must outlive the tables made from it, whose hardware walks lead through it: dropping it leaks its table pages
/// for that reason.
pub struct Template<F: Format, A: TableAlloc> {
    tree: ManuallyDrop<Tree<F, A>>,
    skeleton: [Bone; MAX_SKELETON],
    bones: usize,
}

impl<F: Format, A: TableAlloc> Template<F, A> {
    pub(crate) fn new(tree: Tree<F, A>, shared: &[VirtRange]) -> Result<Self, Error> {
        let root = Bone { table: tree.root, parent: 0, index: 0 };
        let skeleton = [Bone::default(); MAX_SKELETON];
        let mut this = Template { tree: ManuallyDrop::new(tree), skeleton, bones: 0 };
        let mark =
            |range: &VirtRange| mark(&this.tree, this.tree.root(), ROOT_LEVEL, (range.start(), range.last()));
        match shared.iter().try_for_each(mark).and_then(|()| this.collect(root, ROOT_LEVEL)) {
            Ok(()) => Ok(this),
            Err(error) => {
                this.dispose();
                Err(error)
            }
        }
    }

    /// Physical address of the template's own root.
    pub fn root(&self) -> u64 {
        self.tree.root
    }

    /// A new application table: the shared entries and nothing else.
    ///
    /// # Errors
    /// [`Error::OutOfTables`].
    pub fn instantiate<B: TableAlloc>(&self, alloc: B) -> Result<PageTables<F, B>, Error> {
        let mut copies = [0; MAX_SKELETON];
        for (i, bone) in self.skeleton.iter().enumerate().take(self.bones) {
            let Some(table) = alloc.alloc_dirty() else {
                copies.iter().take(i).for_each(|&copy| alloc.free(copy, false));
                return Err(Error::OutOfTables);
            };
            let node = Node::at(&alloc, table);
            node.copy_from(Node::at(&self.tree.alloc, bone.table));
            copies[i] = table;
            if i > 0 {
                let slot = Node::at(&alloc, copies[bone.parent]).slot(bone.index);
                write(slot, read(slot) & !F::ADDRESS | table);
            }
        }
        Ok(PageTables::from_tree(Tree::from_root(copies[0], alloc)))
    }

    /// Frees the template's table pages. No table made from it exists any more.
    pub fn dispose(self) {
        unmark(&self.tree, self.tree.root(), ROOT_LEVEL);
        drop(ManuallyDrop::into_inner(self.tree));
    }

    /// Records the nodes above the marked entries.
    fn collect(&mut self, bone: Bone, level: u32) -> Result<(), Error> {
        let at = self.bones;
        *self.skeleton.get_mut(at).ok_or(Error::Frozen)? = bone;
        self.bones += 1;
        for i in 0..512 {
            let entry = read(Node::at(&self.tree.alloc, bone.table).slot(i));
            if entry == 0 || entry & F::FROZEN != 0 {
                continue;
            }
            if F::is_leaf(entry, level) {
                return Err(Error::Frozen);
            }
            self.collect(Bone { table: entry & F::ADDRESS, parent: at, index: i }, level - 1)?;
        }
        Ok(())
    }
}

/// Marks the largest entries within the range. Empty entries stay empty, and are the user's.
fn mark<F: Format, A: TableAlloc>(
    tree: &Tree<F, A>,
    node: Node<'_>,
    level: u32,
    (first, last): (u64, u64),
) -> Result<(), Error> {
    for (va, piece_last) in pieces(first, last, level) {
        let slot = node.slot(index(va, level));
        let entry = read(slot);
        if entry == 0 || entry & F::FROZEN != 0 {
            continue;
        }
        if piece_last - va == (1 << shift(level)) - 1 {
            write(slot, entry | F::FROZEN);
        } else if F::is_leaf(entry, level) {
            return Err(Error::Frozen);
        } else {
            mark(tree, tree.table(entry), level - 1, (va, piece_last))?;
        }
    }
    Ok(())
}

fn unmark<F: Format, A: TableAlloc>(tree: &Tree<F, A>, node: Node<'_>, level: u32) {
    for i in 0..512 {
        let slot = node.slot(i);
        let entry = read(slot);
        if entry & F::FROZEN != 0 {
            write(slot, entry & !F::FROZEN);
        } else if level > 0 && is_own_table::<F>(entry) {
            unmark(tree, tree.table(entry), level - 1);
        }
    }
}
