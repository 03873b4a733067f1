//! madvise, mlock, mincore, msync.

use super::map::MAX_AREAS;
use super::steps::Turn;
use super::vma::{Backing, VmFlags, Vma};
use super::{Deferred, Mm, PAGE_SIZE, State, frames, page_up};
use crate::abi::{Errno, Result};
use crate::platform::{Access, Prot};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How much of each area WILLNEED loads: it is advice, and as Linux we take it as far as it is sure to be good.
const READ_AHEAD: u64 = 16 << 20;

/// What madvise(2) asks for, as far as it makes a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Advice that changes nothing (NORMAL, RANDOM, SEQUENTIAL, HUGEPAGE, COLD, ...), but checks the range.
    Nothing,
    /// WILLNEED: load pages.
    WillNeed,
    /// DONTNEED: private pages read as zero (or as the file) again. DONTNEED_LOCKED does it to locked pages, too.
    DontNeed {
        /// Of locked memory.
        locked: bool,
    },
    /// FREE: as DONTNEED, but of memory without a file only. It may free at once, and does.
    Free,
    /// REMOVE: punch a hole in the shared object.
    Remove,
    /// POPULATE_READ / POPULATE_WRITE.
    Populate(Access),
    /// Sets flags of the areas (DONTFORK, DONTDUMP, WIPEONFORK).
    Set(VmFlags),
    /// Clears them (DOFORK, DODUMP, KEEPONFORK).
    Clear(VmFlags),
}

impl Advice {
    /// Whether what pages held is lost by it, here or in a child.
    fn discards(self) -> bool {
        match self {
            Advice::DontNeed { .. } | Advice::Free => true,
            Advice::Set(flags) => flags.intersects(VmFlags::DONT_FORK | VmFlags::WIPE_ON_FORK),
            _ => false,
        }
    }
}

/// How memory is locked.
#[derive(Clone, Copy, Debug)]
pub struct Locking {
    /// Pages come by themselves, later.
    pub on_fault: bool,
    /// RLIMIT_MEMLOCK does not count (CAP_IPC_LOCK).
    pub unlimited: bool,
}

impl Mm {
    /// Acts on advice about a range.
    ///
    /// # Errors
    /// As madvise(2).
    pub fn madvise(&self, addr: u64, len: u64, advice: Advice) -> Result<()> {
        let (start, end) = self.page_range(addr, len, Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        match advice {
            Advice::Populate(access) => return self.populate_strict(start, end, access),
            Advice::Remove => return self.remove_pages(start, end),
            _ => {}
        }
        if matches!(advice, Advice::DontNeed { .. } | Advice::Free) {
            return self.discard(start, end, advice);
        }
        let mut load = Vec::new();
        let hole = self.edit_areas(|state, _| {
            if advice.discards() {
                may_discard(state, start, end)?;
            }
            let hole = !state.vmas.covers(start, end);
            match advice {
                Advice::Set(flags) => {
                    let anon = |vma: &Vma| vma.is_private() && matches!(vma.backing, Backing::Anon);
                    if flags.contains(VmFlags::WIPE_ON_FORK) && !state.vmas.overlapping(start, end).all(anon)
                    {
                        return Err(Errno::EINVAL);
                    }
                    // madvise(2): EAGAIN where a resource of the kernel's is out.
                    room_for_cuts(state, start, end, |vma| !vma.flags.contains(flags))
                        .map_err(|_| Errno::EAGAIN)?;
                    state.vmas.update(start, end, |vma| vma.flags |= flags);
                }
                Advice::Clear(flags) => {
                    room_for_cuts(state, start, end, |vma| vma.flags.intersects(flags))
                        .map_err(|_| Errno::EAGAIN)?;
                    state.vmas.update(start, end, |vma| vma.flags -= flags);
                }
                Advice::WillNeed => {
                    load.extend(state.vmas.overlapping(start, end).map(|vma| {
                        (
                            vma.start.max(start),
                            vma.end.min(end),
                            vma.prot,
                            matches!(vma.backing, Backing::Anon),
                        )
                    }));
                }
                _ => {}
            }
            Ok(hole)
        })?;
        for (start, end, prot, anon) in load {
            if !anon {
                self.populate(start, end.min(start.saturating_add(READ_AHEAD)), prot - Prot::WRITE);
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Drops the pages of a range; the areas stay.
    fn discard(&self, start: u64, end: u64, advice: Advice) -> Result<()> {
        let mut hole = false;
        let allowed = |state: &mut State| {
            may_discard(state, start, end)?;
            let refused = |vma: &Vma| match advice {
                Advice::DontNeed { locked: true } => false,
                Advice::Free if !vma.is_private() || !matches!(vma.backing, Backing::Anon) => true,
                _ => vma.flags.contains(VmFlags::LOCKED),
            };
            if state.vmas.overlapping(start, end).any(refused) {
                return Err(Errno::EINVAL);
            }
            hole = !state.vmas.covers(start, end);
            Ok(())
        };
        self.in_steps((start, end), Turn::Edit, allowed, |state, deferred, at, to| {
            self.drop_pages(state, at, to, deferred);
            Ok(())
        })?;
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Takes pages of the range out of the stash.
    pub(super) fn drop_stashed(&self, state: &mut State, start: u64, end: u64, deferred: &mut Deferred) {
        self.note_peak(state);
        while let Some((&va, &frame)) = state.stash.range(start..end).next() {
            state.stash.remove(&va);
            deferred.frames.push(frame);
        }
    }

    fn remove_pages(&self, start: u64, end: u64) -> Result<()> {
        let mut holes = Vec::new();
        self.edit_areas(|state, _| {
            may_discard(state, start, end)?;
            for vma in state.vmas.overlapping(start, end) {
                let Backing::Object { object, .. } = &vma.backing else { return Err(Errno::EINVAL) };
                if vma.is_private() || vma.flags.contains(VmFlags::LOCKED) {
                    return Err(Errno::EINVAL);
                }
                if !vma.prot.contains(Prot::WRITE) {
                    return Err(Errno::EACCES);
                }
                let (from, to) = (vma.start.max(start), vma.end.min(end));
                holes.push((Arc::clone(object), vma.object_offset(from), from, to));
            }
            if state.vmas.covers(start, end) { Ok(()) } else { Err(Errno::ENOMEM) }
        })?;
        holes.iter().try_for_each(|&(_, _, from, to)| self.thin(from, to))?;
        holes.into_iter().try_for_each(|(object, offset, from, to)| object.punch_hole(offset, to - from))
    }

    fn populate_strict(&self, start: u64, end: u64, access: Access) -> Result<()> {
        let mut at = start;
        while at < end {
            let allowed = {
                let state = self.state.lock();
                let vma = state.vmas.find(at).ok_or(Errno::ENOMEM)?;
                if access == Access::Write { vma.prot.contains(Prot::WRITE) } else { !vma.prot.is_empty() }
            };
            if !allowed {
                return Err(Errno::EINVAL);
            }
            self.fault_in(at, access)?;
            self.pause()?;
            at += PAGE_SIZE;
        }
        Ok(())
    }

    /// mlock and (without `how`) munlock: marks the range; locking populates it.
    ///
    /// # Errors
    /// As mlock(2).
    pub fn mlock(&self, addr: u64, len: u64, how: Option<Locking>) -> Result<()> {
        let lock = how.is_some();
        let start = super::page_down(addr);
        let end = addr.checked_add(len).and_then(page_up).ok_or(Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        if !self.in_bounds(start, end - start) {
            return Err(Errno::ENOMEM);
        }
        let mut areas = Vec::new();
        self.edit_areas(|state, _| {
            let changes = |vma: &Vma| vma.flags.contains(VmFlags::LOCKED) != lock;
            let fresh: u64 = state
                .vmas
                .overlapping(start, end)
                .filter(|vma| changes(vma))
                .map(|vma| vma.end.min(end) - vma.start.max(start))
                .sum();
            if let Some(how) = how {
                let limit = self.limits.memlock.load(Ordering::Relaxed);
                if !how.unlimited && state.locked + fresh > limit {
                    return Err(if limit == 0 { Errno::EPERM } else { Errno::ENOMEM });
                }
                room_for_cuts(state, start, end, changes)?;
                state.locked += fresh;
                areas.extend(
                    state
                        .vmas
                        .overlapping(start, end)
                        .map(|vma| (vma.start.max(start), vma.end.min(end), vma.prot)),
                );
            } else {
                room_for_cuts(state, start, end, changes)?;
                state.locked -= fresh.min(state.locked);
            }
            state.vmas.update(start, end, |vma| vma.flags.set(VmFlags::LOCKED, lock));
            if state.vmas.covers(start, end) { Ok(()) } else { Err(Errno::ENOMEM) }
        })?;
        if how.is_some_and(|how| !how.on_fault) {
            areas.into_iter().for_each(|(start, end, prot)| self.populate(start, end, prot));
        }
        Ok(())
    }

    /// Whether `len` more bytes may be mapped, locked as `asked` for or by mlockall(MCL_FUTURE).
    ///
    /// # Errors
    /// EPERM without leave to lock anything, EAGAIN above the limit.
    pub fn may_map_locked(&self, len: u64, asked: bool) -> Result<()> {
        let limit = self.limits.memlock.load(Ordering::Relaxed);
        let state = self.state.lock();
        if asked && limit == 0 {
            return Err(Errno::EPERM);
        }
        let counts = asked || state.lock_future;
        if counts && state.locked.saturating_add(len) > limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// mlockall and (without `how`) munlockall.
    ///
    /// # Errors
    /// ENOMEM above the limit, EPERM where it is 0.
    pub fn mlock_all(&self, current: bool, future: bool, how: Option<Locking>) -> Result<()> {
        let lock = how.is_some();
        let limit = match how {
            Some(how) if !how.unlimited => self.limits.memlock.load(Ordering::Relaxed),
            _ => u64::MAX,
        };
        let ranges: Vec<(u64, u64, Prot)> = {
            let mut state = self.state.lock();
            if limit == 0 {
                return Err(Errno::EPERM);
            }
            if current && state.total > limit {
                return Err(Errno::ENOMEM);
            }
            state.lock_future = lock && future;
            if lock && !current {
                return Ok(());
            }
            state.locked = if lock { state.total } else { 0 };
            state.vmas.update(0, u64::MAX, |vma| vma.flags.set(VmFlags::LOCKED, lock));
            state.vmas.iter().map(|vma| (vma.start, vma.end, vma.prot)).collect()
        };
        if how.is_some_and(|how| !how.on_fault) {
            ranges.into_iter().for_each(|(start, end, prot)| self.populate(start, end, prot));
        }
        Ok(())
    }

    /// For each page of the range whether it is in memory, as mincore(2) says it.
    ///
    /// # Errors
    /// As mincore(2).
    pub fn mincore(&self, addr: u64, len: u64) -> Result<Vec<u8>> {
        let (start, end) = self.page_range(addr, len, Errno::ENOMEM)?;
        let state = self.state.lock();
        if !state.vmas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        let mut pages = vec![0u8; ((end - start) / PAGE_SIZE) as usize];
        for vma in state.vmas.overlapping(start, end) {
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            if let Backing::Object { object, .. } = &vma.backing {
                let mut one = [None];
                for va in (from..to).step_by(PAGE_SIZE as usize) {
                    object.ready(vma.object_offset(va) / PAGE_SIZE, &mut one);
                    if let Some(frame) = one[0].take() {
                        frames::put_ref(frame);
                        pages[((va - start) / PAGE_SIZE) as usize] = 1;
                    }
                }
            }
            for (from, to) in self.user_pieces(from, to) {
                self.space.for_each(from, to - from, &mut |va, _, _| {
                    pages[((va - start) / PAGE_SIZE) as usize] = 1;
                });
            }
        }
        for (&va, _) in state.stash.range(start..end) {
            pages[((va - start) / PAGE_SIZE) as usize] = 1;
        }
        Ok(pages)
    }

    /// mseal: nothing can be mapped over the range, unmapped, moved or protected otherwise from here on.
    ///
    /// # Errors
    /// EINVAL for a bad range; ENOMEM for holes, and where there would be too many areas.
    pub fn seal(&self, addr: u64, len: u64) -> Result<()> {
        let (start, end) = self.page_range(addr, len, Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        self.edit_areas(|state, _| {
            if !state.vmas.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            room_for_cuts(state, start, end, |vma| !vma.flags.contains(VmFlags::SEALED))?;
            state.vmas.update(start, end, |vma| vma.flags |= VmFlags::SEALED);
            Ok(())
        })
    }

    /// msync: `write` (MS_SYNC) writes modified pages of shared mappings back.
    ///
    /// # Errors
    /// EBUSY to invalidate (MS_INVALIDATE) locked pages; ENOMEM for holes.
    pub fn msync(&self, addr: u64, len: u64, write: bool, invalidate: bool) -> Result<()> {
        let (start, end) = self.page_range(addr, len, Errno::ENOMEM)?;
        let mut objects = Vec::new();
        let hole = {
            let state = self.state.lock();
            for vma in state.vmas.overlapping(start, end) {
                if invalidate && vma.flags.contains(VmFlags::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                if let Backing::Object { object, .. } = &vma.backing
                    && !vma.is_private()
                {
                    let (from, to) = (vma.start.max(start), vma.end.min(end));
                    objects.push((object.clone(), vma.object_offset(from), to - from));
                }
            }
            !state.vmas.covers(start, end)
        };
        if write {
            objects.into_iter().try_for_each(|(object, offset, len)| object.sync(offset, len))?;
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// An aligned start and a length, as a range of whole pages.
    fn page_range(&self, addr: u64, len: u64, too_long: Errno) -> Result<(u64, u64)> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).ok_or(too_long)?;
        if end > self.caps.task_size {
            return Err(Errno::ENOMEM);
        }
        Ok((addr, end))
    }
}

/// Whether the areas of a range may be changed, if `changes` says which will be: at its ends one can become two.
fn room_for_cuts(state: &State, start: u64, end: u64, changes: impl Fn(&Vma) -> bool) -> Result<()> {
    let cuts = state.vmas.would_cut(start, end, changes);
    if cuts != 0 && state.vmas.len() + cuts > MAX_AREAS { Err(Errno::ENOMEM) } else { Ok(()) }
}

/// Whether the contents of a range may be thrown away: of sealed private memory only what the program could overwrite.
fn may_discard(state: &State, start: u64, end: u64) -> Result<()> {
    let kept = |vma: &Vma| {
        vma.flags.contains(VmFlags::SEALED) && vma.is_private() && !vma.prot.contains(Prot::WRITE)
    };
    if state.vmas.overlapping(start, end).any(kept) { Err(Errno::EPERM) } else { Ok(()) }
}
