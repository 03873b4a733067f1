//! Mapped areas of an address space: an interval map that splits and merges.
//!
//! Pure bookkeeping: no page tables, no frames. Areas never overlap, are never empty, and neighbours that could be
//! one area are one.

use super::mappable::Mappable;
use crate::abi::{Errno, Result};
use crate::platform::Prot;
use std::collections::BTreeMap;
use std::sync::Arc;

bitflags::bitflags! {
    /// Properties of an area beside its protection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmFlags: u16 {
        /// Writes go to the object, not to a private copy.
        const SHARED = 1;
        /// Grows towards lower addresses when touched just below.
        const GROWS_DOWN = 2;
        /// Not counted against overcommit.
        const NO_RESERVE = 4;
        /// mlock: counted against RLIMIT_MEMLOCK, populated at once.
        const LOCKED = 8;
        /// Not inherited by fork.
        const DONT_FORK = 0x10;
        /// Inherited by fork as zeroes.
        const WIPE_ON_FORK = 0x20;
        /// Left out of core dumps.
        const DONT_DUMP = 0x40;
        /// Can never become writable: a shared mapping of a file that was not opened for writing, the vDSO's data.
        const NEVER_WRITE = 0x80;
        /// mseal: neither mapping nor protection changes any more.
        const SEALED = 0x100;
    }
}

/// What an area's pages are made of.
#[derive(Clone)]
pub enum Backing {
    /// Zeroes until written.
    Anon,
    /// Pages of an object, the area's first byte being at `offset` (page aligned).
    Object {
        /// The object.
        object: Arc<dyn Mappable>,
        /// Where the area starts in it.
        offset: u64,
    },
}

impl Backing {
    /// The same object, further on.
    fn advanced(&self, by: u64) -> Backing {
        match self {
            Backing::Anon => Backing::Anon,
            Backing::Object { object, offset } => {
                Backing::Object { object: object.clone(), offset: offset.wrapping_add(by) }
            }
        }
    }

    /// Whether `next`, `len` bytes behind, continues this.
    fn continued_by(&self, len: u64, next: &Backing) -> bool {
        match (self, next) {
            (Backing::Anon, Backing::Anon) => true,
            (Backing::Object { object: a, offset }, Backing::Object { object: b, offset: next }) => {
                a.identity() == b.identity() && offset.wrapping_add(len) == *next && !a.is_segment()
            }
            _ => false,
        }
    }
}

/// One mapped area.
#[derive(Clone)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// What the program asked for (`PROT_WRITE` alone stays so here; the hardware gets READ too).
    pub prot: Prot,
    /// Other properties.
    pub flags: VmFlags,
    /// Where its pages come from.
    pub backing: Backing,
}

impl Vma {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never: areas are not empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether writes go to private copies.
    pub fn is_private(&self) -> bool {
        !self.flags.contains(VmFlags::SHARED)
    }

    /// Offset in the object of an address inside.
    pub fn object_offset(&self, addr: u64) -> u64 {
        match &self.backing {
            Backing::Anon => 0,
            Backing::Object { offset, .. } => offset + (addr - self.start),
        }
    }

    fn opened(&self, pid: i32) {
        if let Backing::Object { object, .. } = &self.backing {
            object.area_opened(pid);
        }
    }

    fn closed(&self, pid: i32) {
        if let Backing::Object { object, .. } = &self.backing {
            object.area_closed(pid);
        }
    }

    fn merges_with(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.flags == next.flags
            && self.backing.continued_by(self.len(), &next.backing)
    }
}

/// The areas of one address space. Objects hear of each that comes and goes.
#[derive(Default)]
pub struct VmaMap {
    /// By start address.
    areas: BTreeMap<u64, Vma>,
    /// The process whose they are, for [`Mappable::area_opened`].
    pub(super) owner: i32,
}

impl VmaMap {
    /// Number of areas.
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// All areas, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas.values()
    }

    /// The area that holds `addr`.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.areas.range(..=addr).next_back().map(|(_, vma)| vma).filter(|vma| addr < vma.end)
    }

    /// The first area that ends above `addr`.
    pub fn find_from(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.areas.range(addr..).next().map(|(_, vma)| vma))
    }

    /// The area after the next `count` that start at `addr` or above.
    pub(super) fn nth_from(&self, addr: u64, count: usize) -> Option<&Vma> {
        self.areas.range(addr..).nth(count).map(|(_, vma)| vma)
    }

    /// The last area that starts below `addr`.
    pub fn last_below(&self, addr: u64) -> Option<&Vma> {
        self.areas.range(..addr).next_back().map(|(_, vma)| vma)
    }

    /// Areas that overlap the range, ascending, whole.
    pub fn overlapping(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        let first = self.find(start).map_or(start, |vma| vma.start);
        self.areas.range(first..end.max(first)).map(|(_, vma)| vma)
    }

    /// Bytes of the range that are in some area.
    pub(super) fn covered(&self, start: u64, end: u64) -> u64 {
        self.overlapping(start, end).map(|vma| vma.end.min(end) - vma.start.max(start)).sum()
    }

    /// Whether every byte of the range is in some area.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }

    /// Whether all of the range may be changed.
    ///
    /// # Errors
    /// EPERM if some of it is sealed.
    pub fn changeable(&self, start: u64, end: u64) -> Result<()> {
        let sealed = self.overlapping(start, end).any(|vma| vma.flags.contains(VmFlags::SEALED));
        if sealed { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Adds an area where nothing is, merging it with its neighbours. Returns the bounds of what it became.
    ///
    /// # Panics
    /// If it is empty or overlaps.
    pub fn insert(&mut self, mut vma: Vma) -> (u64, u64) {
        assert!(vma.start < vma.end, "empty area");
        if let Some(next) = self.areas.range(vma.start..).next().map(|(_, next)| next) {
            assert!(next.start >= vma.end, "overlapping area");
            if vma.merges_with(next) {
                let (start, end) = (next.start, next.end);
                self.areas.remove(&start);
                vma.end = end;
            }
        }
        if let Some((_, previous)) = self.areas.range_mut(..vma.start).next_back() {
            assert!(previous.end <= vma.start, "overlapping area");
            if previous.merges_with(&vma) {
                previous.end = vma.end;
                return (previous.start, previous.end);
            }
        }
        let bounds = (vma.start, vma.end);
        vma.opened(self.owner);
        self.areas.insert(vma.start, vma);
        bounds
    }

    /// Removes the range, splitting areas at its ends; what was there, whole inside the range, goes to `removed`.
    pub fn remove(&mut self, start: u64, end: u64, removed: &mut Vec<Vma>) {
        self.split_at(start);
        self.split_at(end);
        while let Some((&at, _)) = self.areas.range(start..end.max(start)).next() {
            if let Some(vma) = self.areas.remove(&at) {
                vma.closed(self.owner);
                removed.push(vma);
            }
        }
    }

    /// Changes the areas in the range, which are split at its ends and merged again afterwards.
    pub fn update(&mut self, start: u64, end: u64, mut change: impl FnMut(&mut Vma)) {
        self.split_at(start);
        self.split_at(end);
        for (_, vma) in self.areas.range_mut(start..end.max(start)) {
            change(vma);
        }
        self.merge(start, end);
    }

    /// Lowers the start of the area at `start` (a growing stack). The room must be free.
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        if let Some(mut vma) = self.areas.remove(&start) {
            let grown = vma.start - new_start;
            if let Backing::Object { offset, .. } = &mut vma.backing {
                *offset = offset.wrapping_sub(grown);
            }
            vma.start = new_start;
            self.areas.insert(new_start, vma);
        }
    }

    /// Raises the end of the area at `start`. The room must be free.
    pub fn grow_up(&mut self, start: u64, new_end: u64) {
        if let Some(vma) = self.areas.get_mut(&start) {
            vma.end = new_end;
            self.merge(start, new_end);
        }
    }

    /// How many areas an operation that cuts at both ends could add.
    pub fn would_split(&self, start: u64, end: u64) -> usize {
        self.would_cut(start, end, |_| true)
    }

    /// How many areas [`update`](Self::update) adds at most where it changes only what `changes` says.
    pub fn would_cut(&self, start: u64, end: u64, changes: impl Fn(&Vma) -> bool) -> usize {
        let cuts = |at: u64| usize::from(self.find(at).is_some_and(|vma| vma.start < at && changes(vma)));
        cuts(start) + cuts(end)
    }

    fn split_at(&mut self, at: u64) {
        let Some((_, vma)) = self.areas.range_mut(..at).next_back() else { return };
        if at < vma.end {
            let mut upper = vma.clone();
            upper.start = at;
            upper.backing = vma.backing.advanced(at - vma.start);
            vma.end = at;
            upper.opened(self.owner);
            self.areas.insert(at, upper);
        }
    }

    fn merge(&mut self, start: u64, end: u64) {
        let mut at = self.last_below(start).map_or(start, |vma| vma.start);
        loop {
            let mut pair = self.areas.range(at..);
            let Some((_, left)) = pair.next() else { return };
            let Some((&next, right)) = pair.next() else { return };
            if left.start > end {
                return;
            }
            if left.merges_with(right) {
                let (left, end) = (left.start, right.end);
                self.areas.remove(&next);
                if let Some(left) = self.areas.get_mut(&left) {
                    left.end = end;
                }
                at = left;
            } else {
                at = next;
            }
        }
    }
}

impl Drop for VmaMap {
    fn drop(&mut self) {
        for vma in self.areas.values() {
            vma.closed(self.owner);
        }
    }
}
