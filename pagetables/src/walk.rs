//! Reading: lookup and enumeration.

use crate::edit::{mapping, pieces, used};
use crate::node::{Node, TableAlloc, read};
use crate::tree::{Mapping, ROOT_LEVEL, Tree, index, shift};
use crate::{Format, PageSize};

impl<F: Format, A: TableAlloc> Tree<F, A> {
    /// The leaf that translates `va`. Does not follow frozen entries.
    #[inline]
    pub(crate) fn lookup(&self, va: u64) -> Option<Mapping> {
        let mut node = self.root();
        let mut level = ROOT_LEVEL;
        loop {
            let entry = read(node.slot(index(va, level)));
            if entry == 0 || entry & F::FROZEN != 0 {
                return None;
            }
            if F::is_leaf(entry, level) {
                return Some(mapping::<F>(va & !((1 << shift(level)) - 1), entry, level));
            }
            node = self.table(entry);
            level -= 1;
        }
    }

    /// Calls `each` for the leaves that translate some of [first, last], in ascending order; a leaf that sticks
    /// out of the range is reported whole. Does not follow frozen entries.
    pub(crate) fn for_each(&self, first: u64, last: u64, each: &mut impl FnMut(Mapping)) {
        self.visit(self.root(), ROOT_LEVEL, (first, last), each);
    }

    /// The address at which [first, last] has had `pages` pages of room in tables that exist, if it has more.
    pub(crate) fn reach(&self, first: u64, last: u64, pages: u64) -> Option<u64> {
        let mut left = pages.max(1);
        self.reach_below(self.root(), ROOT_LEVEL, (first, last), &mut left)
    }

    fn reach_below(
        &self,
        node: Node<'_>,
        level: u32,
        (first, last): (u64, u64),
        left: &mut u64,
    ) -> Option<u64> {
        for (va, piece_last) in pieces(first, last, level) {
            let entry = read(node.slot(index(va, level)));
            if entry == 0 || entry & F::FROZEN != 0 {
                continue;
            }
            if level > 1 && !F::is_leaf(entry, level) {
                let reached = self.reach_below(self.table(entry), level - 1, (va, piece_last), left);
                if reached.is_some() {
                    return reached;
                }
                continue;
            }
            if *left == 0 {
                return Some(va);
            }
            let pages =
                if F::is_leaf(entry, level) { 1 } else { (piece_last - va) / PageSize::Size4K.bytes() + 1 };
            *left = left.saturating_sub(pages);
        }
        None
    }

    fn visit(&self, node: Node<'_>, level: u32, (first, last): (u64, u64), each: &mut impl FnMut(Mapping)) {
        if level == 0 {
            for page in used(node, first, last) {
                let entry = read(node.slot(page));
                if entry & F::FROZEN == 0 {
                    each(mapping::<F>(page << shift(0), entry, 0));
                }
            }
            return;
        }
        for (va, piece_last) in pieces(first, last, level) {
            let entry = read(node.slot(index(va, level)));
            if entry == 0 || entry & F::FROZEN != 0 {
                continue;
            }
            if F::is_leaf(entry, level) {
                let start = va & !(PageSize::of_level(level).bytes() - 1);
                each(mapping::<F>(start, entry, level));
            } else {
                self.visit(self.table(entry), level - 1, (va, piece_last), each);
            }
        }
    }
}
