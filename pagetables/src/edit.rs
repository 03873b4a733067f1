//! Map, unmap, protect: recursion over the levels, with a short path for small pages.
//!
//! Ranges are given by first and last address, because one past the last does not exist for the upper half.

use crate::node::{Node, TableAlloc, read, write};
use crate::tree::{
    Error, Mapping, ROOT_LEVEL, Tree, add_count, count, entry_last, index, is_own_table, shift,
};
use crate::{Attrs, Flush, Format, PAGE_SIZE, PageSize};
use core::sync::atomic::AtomicU64;

impl<F: Format, A: TableAlloc> Tree<F, A> {
    /// The table of 4 KiB pages for `va`, and the entry that points to it.
    #[inline]
    fn leaf_table(&self, va: u64) -> Result<(&AtomicU64, Node<'_>), Error> {
        let third = self.root().slot(index(va, 3));
        let second = self.descend(third, None, va, 3)?.slot(index(va, 2));
        let first = self.descend(second, Some(third), va, 2)?.slot(index(va, 1));
        let table = self.descend(first, Some(second), va, 1)?;
        Ok((first, table))
    }

    /// Maps one 4 KiB page. `attrs` allows something.
    #[inline]
    pub(crate) fn map_page(&self, va: u64, phys: u64, attrs: Attrs) -> Result<Flush, Error> {
        let (owner, table) = self.leaf_table(va)?;
        let slot = table.slot(index(va, 0));
        let entry = F::leaf(attrs, 0) | phys;
        let mut flush = Flush::NONE;
        if read(slot) == 0 {
            write(slot, entry);
            add_count::<F>(Some(owner), 1);
        } else {
            self.replace(slot, va, entry, &mut flush);
        }
        Ok(flush)
    }

    /// Maps 4 KiB pages from `va` on, as many as `frames` gives: one walk per table.
    #[inline]
    pub(crate) fn map_pages(
        &self,
        mut va: u64,
        mut frames: impl ExactSizeIterator<Item = u64>,
        attrs: Attrs,
    ) -> Result<Flush, Error> {
        let bits = F::leaf(attrs, 0);
        let mut flush = Flush::NONE;
        while frames.len() > 0 {
            let (owner, table) = self.leaf_table(va)?;
            let mut fresh = 0;
            let room = 512 - (index(va, 0) & 511) as usize;
            for phys in frames.by_ref().take(room) {
                let slot = table.slot(index(va, 0));
                if read(slot) == 0 {
                    write(slot, bits | phys);
                    fresh += 1;
                } else {
                    self.replace(slot, va, bits | phys, &mut flush);
                }
                va = va.wrapping_add(PAGE_SIZE);
            }
            add_count::<F>(Some(owner), fresh);
        }
        Ok(flush)
    }

    /// Maps a contiguous run with the largest pages, up to `size`, that alignment allows.
    pub(crate) fn map_run(
        &self,
        first: u64,
        last: u64,
        phys: u64,
        attrs: Attrs,
        size: PageSize,
    ) -> Result<Flush, Error> {
        let mut flush = Flush::NONE;
        let run = Run { offset: phys.wrapping_sub(first), attrs, size };
        self.fill(self.root(), None, ROOT_LEVEL, (first, last), &run, &mut flush)?;
        Ok(flush)
    }

    fn fill(
        &self,
        node: Node<'_>,
        owner: Option<&AtomicU64>,
        level: u32,
        (first, last): (u64, u64),
        run: &Run,
        flush: &mut Flush,
    ) -> Result<(), Error> {
        for (va, piece_last) in pieces(first, last, level) {
            let slot = node.slot(index(va, level));
            let phys = va.wrapping_add(run.offset);
            let bytes = 1u64 << shift(level);
            let whole = (va | phys) & (bytes - 1) == 0 && piece_last - va == bytes - 1;
            if level > run.size.level() || !whole {
                let table = self.descend(slot, owner, va, level)?;
                self.fill(table, Some(slot), level - 1, (va, piece_last), run, flush)?;
                continue;
            }
            if is_own_table::<F>(read(slot)) && level > 0 {
                if !self.clear_below(slot, level, (va, piece_last), &mut |_| (), flush)? {
                    return Err(Error::Frozen);
                }
                add_count::<F>(owner, !0);
                if F::BREAK_BEFORE_MAKE {
                    // The flush token covers it already.
                    let _done = self.alloc.invalidate(va, bytes);
                }
            }
            let entry = F::leaf(run.attrs, level) | phys;
            match read(slot) {
                0 => {
                    write(slot, entry);
                    add_count::<F>(owner, 1);
                }
                old if old & F::FROZEN != 0 => return Err(Error::Frozen),
                _ => self.replace_at(slot, va, level, entry, flush),
            }
        }
        Ok(())
    }

    /// Overwrites a present 4 KiB leaf.
    #[cold]
    fn replace(&self, slot: &AtomicU64, va: u64, entry: u64, flush: &mut Flush) {
        self.replace_at(slot, va, 0, entry, flush);
    }

    fn replace_at(&self, slot: &AtomicU64, va: u64, level: u32, entry: u64, flush: &mut Flush) {
        let old = read(slot);
        let bytes = 1 << shift(level);
        let moved = (old ^ entry) & F::ADDRESS != 0;
        if moved && F::BREAK_BEFORE_MAKE {
            write(slot, 0);
            if !self.alloc.invalidate(va, bytes) {
                flush.add(va, bytes);
            }
        } else if moved || !F::attrs(entry).contains(F::attrs(old)) {
            flush.add(va, bytes);
        }
        write(slot, entry);
    }

    /// Removes what is mapped, telling `gone`.
    pub(crate) fn unmap(
        &self,
        first: u64,
        last: u64,
        gone: &mut impl FnMut(Mapping),
    ) -> Result<Flush, Error> {
        let mut flush = Flush::NONE;
        // The root is never unlinked, so its entries need no counting.
        let mut in_use = u64::MAX;
        self.clear(self.root(), ROOT_LEVEL, &mut in_use, (first, last), gone, &mut flush)?;
        Ok(flush)
    }

    /// Clears entries of `node`, counting `in_use` down to what is left there.
    fn clear(
        &self,
        node: Node<'_>,
        level: u32,
        in_use: &mut u64,
        (first, last): (u64, u64),
        gone: &mut impl FnMut(Mapping),
        flush: &mut Flush,
    ) -> Result<(), Error> {
        if level == 0 {
            clear_pages::<F>(node, in_use, (first, last), gone, flush);
            return Ok(());
        }
        for (va, piece_last) in pieces(first, last, level) {
            let slot = node.slot(index(va, level));
            let entry = read(slot);
            if entry == 0 || entry & F::FROZEN != 0 {
                continue;
            }
            let bytes = 1u64 << shift(level);
            if F::is_leaf(entry, level) {
                if piece_last - va == bytes - 1 {
                    write(slot, 0);
                    flush.add(va, bytes);
                    *in_use -= 1;
                    gone(mapping::<F>(va, entry, level));
                    if *in_use == 0 {
                        break;
                    }
                    continue;
                }
                self.split(slot, va, level)?;
                flush.add(va & !(bytes - 1), bytes);
            }
            let emptied = self.clear_below(slot, level, (va, piece_last), gone, flush)?;
            *in_use -= u64::from(emptied);
        }
        Ok(())
    }

    /// Clears entries of the table below `slot`; unlinks the table and says so when nothing is left in it.
    fn clear_below(
        &self,
        slot: &AtomicU64,
        level: u32,
        range: (u64, u64),
        gone: &mut impl FnMut(Mapping),
        flush: &mut Flush,
    ) -> Result<bool, Error> {
        let entry = read(slot);
        let before = count::<F>(entry);
        let mut in_use = before;
        let result = if before > 0 {
            self.clear(self.table(entry), level - 1, &mut in_use, range, gone, flush)
        } else {
            Ok(())
        };
        if in_use == 0 {
            self.retire(slot);
            return result.map(|()| true);
        }
        add_count::<F>(Some(slot), in_use.wrapping_sub(before));
        result.map(|()| false)
    }

    /// Gives the present leaves other attributes, keeping what they translate to. `attrs` allows something.
    pub(crate) fn protect(&self, first: u64, last: u64, attrs: Attrs) -> Result<Flush, Error> {
        let mut flush = Flush::NONE;
        self.update(self.root(), ROOT_LEVEL, (first, last), attrs, &mut flush)?;
        Ok(flush)
    }

    fn update(
        &self,
        node: Node<'_>,
        level: u32,
        (first, last): (u64, u64),
        attrs: Attrs,
        flush: &mut Flush,
    ) -> Result<(), Error> {
        let bits = F::leaf(attrs, level);
        if level == 0 {
            update_pages::<F>(node, (first, last), (attrs, bits), flush);
            return Ok(());
        }
        for (va, piece_last) in pieces(first, last, level) {
            let slot = node.slot(index(va, level));
            let entry = read(slot);
            if entry == 0 || entry & F::FROZEN != 0 {
                continue;
            }
            let bytes = 1u64 << shift(level);
            if F::is_leaf(entry, level) {
                if piece_last - va == bytes - 1 {
                    if !attrs.contains(F::attrs(entry)) {
                        flush.add(va, bytes);
                    }
                    write(slot, entry & F::ADDRESS | bits);
                    continue;
                }
                if entry & F::ADDRESS | bits == entry {
                    continue;
                }
                self.split(slot, va, level)?;
                flush.add(va & !(bytes - 1), bytes);
            }
            self.update(self.table(read(slot)), level - 1, (va, piece_last), attrs, flush)?;
        }
        Ok(())
    }
}

/// The innermost loop of `clear`: whole pages in one table.
#[inline]
fn clear_pages<F: Format>(
    table: Node<'_>,
    in_use: &mut u64,
    (first, last): (u64, u64),
    gone: &mut impl FnMut(Mapping),
    flush: &mut Flush,
) {
    let mut touched = (u64::MAX, 0);
    for page in used(table, first, last) {
        let slot = table.slot(page);
        let entry = read(slot);
        if entry & F::FROZEN != 0 {
            continue;
        }
        write(slot, 0);
        touched = (touched.0.min(page), page);
        gone(mapping::<F>(page << shift(0), entry, 0));
        *in_use -= 1;
        if *in_use == 0 {
            break;
        }
    }
    add_pages(flush, touched);
}

/// The innermost loop of `update`.
#[inline]
fn update_pages<F: Format>(
    table: Node<'_>,
    (first, last): (u64, u64),
    (attrs, bits): (Attrs, u64),
    flush: &mut Flush,
) {
    let mut touched = (u64::MAX, 0);
    for page in used(table, first, last) {
        let slot = table.slot(page);
        let entry = read(slot);
        if entry & F::FROZEN != 0 {
            continue;
        }
        let new = entry & F::ADDRESS | bits;
        if new != entry {
            if !attrs.contains(F::attrs(entry)) {
                touched = (touched.0.min(page), page);
            }
            write(slot, new);
        }
    }
    add_pages(flush, touched);
}

/// Page numbers from `first` to `last`, all of one table, whose entries are not zero.
#[inline]
pub(crate) fn used(table: Node<'_>, first: u64, last: u64) -> impl Iterator<Item = u64> {
    let (mut page, end) = (index(first, 0), index(last, 0) + 1);
    let base = page & !511;
    core::iter::from_fn(move || {
        let found = base + table.next_used(page - base, end - base);
        page = found + 1;
        (found < end).then_some(found)
    })
}

fn add_pages(flush: &mut Flush, (first, last): (u64, u64)) {
    if first <= last {
        flush.add(first << shift(0), (last - first + 1) << shift(0));
    }
}

/// What `map_run` maps.
struct Run {
    /// Physical minus virtual address.
    offset: u64,
    attrs: Attrs,
    size: PageSize,
}

pub(crate) fn mapping<F: Format>(va: u64, entry: u64, level: u32) -> Mapping {
    let attrs = F::attrs(entry);
    Mapping { va, phys: entry & F::ADDRESS, attrs, size: PageSize::of_level(level) }
}

/// Cuts [first, last] where entries of `level` end: (first, last) of each piece.
#[inline]
pub(crate) fn pieces(first: u64, last: u64, level: u32) -> impl Iterator<Item = (u64, u64)> {
    let mut next = Some(first);
    core::iter::from_fn(move || {
        let va = next?;
        let piece_last = entry_last(va, level).min(last);
        next = if piece_last == last { None } else { Some(piece_last + 1) };
        Some((va, piece_last))
    })
}
