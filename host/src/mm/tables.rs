//! The platform's tables as this module edits and reads them, with a memory of what was found there last.
//!
//! Programs pass the same few buffers again and again, and finding a page in the tables costs as much as the rest of a
//! small copy. So the last lookups are kept, one for each value of the page number's low bits, with the rights found.
//!
//! # Why that is right
//! Everything here happens under `Mm::state`, kernel copies included: a remembered page is used only until the lock is
//! released, and whoever changes the tables in whatever way holds the lock and forgets everything first. No worker can thus
//! use a page after it was taken out (and its frame possibly given to somebody else), nor write to one that fork or
//! mprotect has made read-only. Words are atomics for the sake of the type only; the lock orders them.

use super::{PAGE_SIZE, frames};
use crate::abi::Result;
use crate::platform::{AddressSpace, Frame, Prot};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How many lookups are remembered. A power of two.
const RECENT: usize = 8;
const OFFSET: u64 = PAGE_SIZE - 1;

/// A page that was looked up.
#[derive(Default)]
struct Recent {
    /// Its address, with its rights in the low bits; 0 for none (every page that is mapped is readable).
    page: AtomicU64,
    /// Its frame.
    frame: AtomicU64,
}

/// Tables of one address space. See the module's documentation for what "locked" means: `Mm::state` is held.
pub(super) struct Tables {
    space: Arc<dyn AddressSpace>,
    recent: [Recent; RECENT],
    /// Whether anything is remembered.
    any: AtomicBool,
    /// Pages mapped, without those that are the frame of zeroes.
    pages: AtomicU64,
    /// More than so many are told of, once.
    alarm_at: AtomicU64,
    /// Who is told, with the lock held.
    alarm: OnceLock<Alarm>,
}

/// Told that there are more pages than was said.
pub type Alarm = Arc<dyn Fn() + Send + Sync>;

impl Tables {
    /// Those of `space`.
    pub(super) fn new(space: Arc<dyn AddressSpace>) -> Self {
        Tables {
            space,
            recent: Default::default(),
            any: AtomicBool::new(false),
            pages: AtomicU64::new(0),
            alarm_at: AtomicU64::new(u64::MAX),
            alarm: OnceLock::new(),
        }
    }

    /// The space, for running in it.
    pub(super) fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    fn forget(&self) {
        if self.any.load(Ordering::Relaxed) {
            self.any.store(false, Ordering::Relaxed);
            for recent in &self.recent {
                recent.page.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Locked: how many pages are in memory by these tables.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Locked: has `alarm`, the same whoever says it, called when there are more than `at` pages.
    pub(super) fn watch(&self, at: u64, alarm: &Alarm) {
        let _known = self.alarm.set(alarm.clone());
        self.alarm_at.store(at, Ordering::Relaxed);
    }

    /// Locked: sets how many pages are mapped, more than before.
    fn grown(&self, pages: u64) {
        self.pages.store(pages, Ordering::Relaxed);
        if pages > self.alarm_at.load(Ordering::Relaxed) {
            self.call();
        }
    }

    #[cold]
    fn call(&self) {
        self.alarm_at.store(u64::MAX, Ordering::Relaxed);
        if let Some(alarm) = self.alarm.get() {
            alarm();
        }
    }

    /// Locked: see [`AddressSpace::map`]. Nothing is mapped there, or the frame of zeroes.
    pub(super) fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<()> {
        self.forget();
        self.space.map(va, frames, prot)?;
        let zeroes = frames.iter().filter(|&&frame| frames::is_zero(frame)).count();
        self.grown(self.pages() + (frames.len() - zeroes) as u64);
        Ok(())
    }

    /// Locked: puts frames, whose references go to the tables (or are dropped, on failure), in the place of others, whose
    /// references come back.
    pub(super) fn replace(&self, va: u64, old: &[Frame], new: &[Frame], prot: Prot) -> Result<()> {
        self.forget();
        self.space.map(va, new, prot).inspect_err(|_| frames::put_many(new))?;
        let count = |frames: &[Frame]| frames.iter().filter(|&&frame| !frames::is_zero(frame)).count() as u64;
        self.grown(self.pages() + count(new) - count(old));
        Ok(())
    }

    /// Locked: see [`AddressSpace::unmap`].
    pub(super) fn unmap(&self, va: u64, len: u64, gone: &mut dyn FnMut(u64, Frame)) {
        self.forget();
        let mut count = 0;
        self.space.unmap(va, len, &mut |va, frame| {
            count += u64::from(!frames::is_zero(frame));
            gone(va, frame);
        });
        self.pages.store(self.pages() - count, Ordering::Relaxed);
    }

    /// Locked: see [`AddressSpace::protect`].
    pub(super) fn protect(&self, va: u64, len: u64, prot: Prot) {
        self.forget();
        self.space.protect(va, len, prot);
    }

    /// See [`AddressSpace::lookup`].
    pub(super) fn lookup(&self, va: u64) -> Option<(Frame, Prot)> {
        self.space.lookup(va)
    }

    /// See [`AddressSpace::for_each`].
    pub(super) fn for_each(&self, va: u64, len: u64, each: &mut dyn FnMut(u64, Frame, Prot)) {
        self.space.for_each(va, len, each);
    }

    /// See [`AddressSpace::sync`].
    pub(super) fn sync(&self) {
        self.space.sync();
    }

    /// Locked: the arena address of a user address whose page is remembered with these rights.
    #[inline(always)]
    pub(super) fn recent(&self, addr: u64, need: Prot) -> Option<u64> {
        let recent = &self.recent[(addr / PAGE_SIZE) as usize % RECENT];
        let wanted = u64::from(need.bits());
        let found = recent.page.load(Ordering::Relaxed) & (!OFFSET | wanted) == addr & !OFFSET | wanted;
        found.then(|| recent.frame.load(Ordering::Relaxed) + (addr & OFFSET))
    }

    /// Locked: the arena address of a user address, if its page is there with these rights. Remembers the page, so it
    /// has to be one of the program's.
    #[inline(never)]
    pub(super) fn resident(&self, addr: u64, need: Prot) -> Option<u64> {
        let page = addr & !OFFSET;
        let (frame, prot) = self.space.lookup(page)?;
        let recent = &self.recent[(addr / PAGE_SIZE) as usize % RECENT];
        recent.page.store(page | u64::from(prot.bits()), Ordering::Relaxed);
        recent.frame.store(frame.0, Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
        prot.contains(need).then_some(frame.0 + (addr & OFFSET))
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_SIZE, Prot, RECENT, Tables};
    use crate::mm::frames::Page;
    use crate::mm::testing::FakePlatform;

    const AT: u64 = 0x10_0000;

    /// What the tables say; asked twice where the first answer is remembered.
    fn ask(tables: &Tables, addr: u64, need: Prot) -> Option<u64> {
        let first = tables.recent(addr, need).or_else(|| tables.resident(addr, need));
        if first.is_some() {
            assert_eq!(tables.recent(addr, need), first);
        }
        first
    }

    #[test]
    fn edits_are_noticed() {
        let tables = Tables::new(FakePlatform::create(true).new_space().unwrap());
        let rw = Prot::READ | Prot::WRITE;
        let (one, two) = (Page::new().unwrap(), Page::new().unwrap());
        assert_eq!(ask(&tables, AT, Prot::READ), None);
        for page in [&one, &two] {
            tables.map(AT, &[page.frame()], rw).unwrap();
            assert_eq!(ask(&tables, AT + 5, Prot::WRITE), Some(page.frame().0 + 5));
            // One that shares its place.
            assert_eq!(ask(&tables, AT + RECENT as u64 * PAGE_SIZE, Prot::READ), None);
            assert_eq!(ask(&tables, AT, rw), Some(page.frame().0));
        }
        tables.protect(AT, PAGE_SIZE, Prot::READ);
        assert_eq!(ask(&tables, AT, Prot::WRITE), None);
        assert_eq!(ask(&tables, AT, Prot::READ), Some(two.frame().0));
        assert_eq!(ask(&tables, AT, rw), None);
        tables.unmap(AT, PAGE_SIZE, &mut |_, _| {});
        assert_eq!(ask(&tables, AT, Prot::READ), None);
    }
}
