//! What a core dump takes of an address space: which areas there are, and the bytes of those pages that are there.
//!
//! Nothing is made for a dump that was not there: pages of memory that nobody has written are left out, as holes. Pages of
//! files are read as the program would have read them.

use super::usage::{Kind, kind_of};
use super::vma::{Backing, Vma};
use super::{Mappable, Mm, PAGE_SIZE, State, frames};
use crate::abi::Result;
use core::sync::atomic::Ordering;

/// Pages of shared memory that are asked for under the lock.
const WINDOW: usize = 256;

/// An area as a core dump sees it.
pub struct DumpArea {
    /// The area.
    pub vma: Vma,
    /// Whether there are pages in it that are the program's own (Linux's `anon_vma`).
    pub written: bool,
}

impl Mm {
    /// Which kinds of memory a core dump takes (`/proc/PID/coredump_filter`), as `MMF_DUMP_*` bits.
    pub fn dump_filter(&self) -> u32 {
        self.dump_filter.load(Ordering::Relaxed)
    }

    /// Says which.
    pub fn set_dump_filter(&self, kinds: u32) {
        self.dump_filter.store(kinds, Ordering::Relaxed);
    }

    /// The areas. Others go first in between.
    pub fn dump_areas(&self) -> Vec<DumpArea> {
        let mut areas: Vec<DumpArea> = Vec::new();
        self.each_step(&mut |state, vma, start, end| {
            let mut written = false;
            if vma.is_private() {
                self.each_resident_of(state, vma, (start, end), &mut |vma, va, frame, _| {
                    written = written || kind_of(vma, va, frame).0 == Kind::Anon;
                });
            }
            match areas.last_mut() {
                // The rest of one that took several steps.
                Some(last) if last.vma.start == vma.start => {
                    last.vma = vma.clone();
                    last.written |= written;
                }
                _ => areas.push(DumpArea { vma: vma.clone(), written }),
            }
        });
        areas
    }

    /// Calls `each` with the address and the bytes of every page of the first `len` bytes of an area that has something to
    /// say, ascending. Gives way in between; to be called without a lock.
    ///
    /// # Errors
    /// What `each` returns; EINTR when the program is to end.
    pub fn dump_pages(
        &self,
        area: &Vma,
        len: u64,
        each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        let mut page = |va: u64| {
            if self.peek(va, &mut bytes).is_ok_and(|got| got == bytes.len()) {
                each(va, &bytes)?;
            }
            self.pause()
        };
        let end = area.start + len.min(area.len());
        let file = match &area.backing {
            Backing::Object { object, .. } if !object.is_memory() => Some(object),
            _ => None,
        };
        if let Some(file) = file {
            // Beyond its last page there is nothing.
            let left = file.size().saturating_sub(area.object_offset(area.start));
            let end = end.min(area.start.saturating_add(left.next_multiple_of(PAGE_SIZE)));
            return (area.start..end).step_by(PAGE_SIZE as usize).try_for_each(page);
        }
        let mut at = area.start;
        while at < end {
            let (there, next) = self.pages_there(at, end);
            there.into_iter().try_for_each(&mut page)?;
            self.pause()?;
            at = next;
        }
        Ok(())
    }

    /// The pages that there are from `at` on, and how far that goes.
    fn pages_there(&self, at: u64, end: u64) -> (Vec<u64>, u64) {
        let state = self.state.lock();
        let Some(vma) = state.vmas.find_from(at).filter(|vma| vma.start < end) else {
            return (Vec::new(), end);
        };
        let from = at.max(vma.start);
        let to = self.step_end(&state, from, end.min(vma.end));
        let mut there = Vec::new();
        let to = match &vma.backing {
            Backing::Anon => to,
            Backing::Object { object, .. } => {
                let to = to.min(from + WINDOW as u64 * PAGE_SIZE);
                object_pages(&**object, vma, (from, to), &mut there);
                to
            }
        };
        self.add_resident(&state, vma, (from, to), &mut there);
        (there, to)
    }

    fn add_resident(&self, state: &State, vma: &Vma, range: (u64, u64), there: &mut Vec<u64>) {
        self.each_resident_of(state, vma, range, &mut |_, va, _, _| there.push(va));
        there.sort_unstable();
        there.dedup();
    }
}

/// The addresses of a range for which an object has pages at hand; at most [`WINDOW`] of them.
fn object_pages(object: &dyn Mappable, vma: &Vma, (from, to): (u64, u64), there: &mut Vec<u64>) {
    let mut pages = [None; WINDOW];
    let count = ((to - from) / PAGE_SIZE) as usize;
    object.ready(vma.object_offset(from) / PAGE_SIZE, &mut pages[..count]);
    for (index, page) in pages.into_iter().enumerate() {
        if let Some(frame) = page {
            frames::put_ref(frame);
            there.push(from + index as u64 * PAGE_SIZE);
        }
    }
}
