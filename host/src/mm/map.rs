//! mmap and munmap: where areas go and what they cost.

use super::layout::{MIN_ADDRESS, STACK_GUARD};
use super::steps::{SHORT, Turn};
use super::vma::{Backing, VmFlags, Vma};
use super::{Deferred, Mappable, Mm, PAGE_SIZE, SharedMemory, State, frames, page_down, page_up};
use crate::abi::{Errno, Result};
use crate::platform::{Access, Prot};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most areas of one space (vm.max_map_count).
pub const MAX_AREAS: usize = 65530;
/// Where MAP_32BIT looks.
const LOW_AREA: (u64, u64) = (0x4000_0000, 0x8000_0000);

bitflags::bitflags! {
    /// How to map, beside what the area keeps ([`VmFlags`]).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MapFlags: u8 {
        /// Exactly there, replacing what is there.
        const FIXED = 1;
        /// Exactly there, or EEXIST.
        const FIXED_NOREPLACE = 2;
        /// Fault everything in at once.
        const POPULATE = 4;
        /// Within the low 2 GiB (MAP_32BIT).
        const LOW = 8;
    }
}

/// A wish for a mapping, as mmap(2) decodes it.
pub struct MapRequest {
    /// A hint, or the place for the fixed kinds.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// Kind of placement.
    pub flags: MapFlags,
    /// Properties that the area keeps.
    pub vm: VmFlags,
    /// The object and offset; `None` for anonymous memory.
    pub object: Option<(Arc<dyn Mappable>, u64)>,
}

impl MapRequest {
    /// Anonymous private memory wherever there is room.
    pub fn anonymous(len: u64, prot: Prot) -> Self {
        MapRequest { addr: 0, len, prot, flags: MapFlags::empty(), vm: VmFlags::empty(), object: None }
    }
}

/// All gaps between `addr` and the mmap base are smaller than `len`: where to begin looking.
#[derive(Clone, Default)]
pub(super) struct HoleHint {
    addr: u64,
    len: u64,
}

/// Whether a range may be taken out of what can be the middle of an area.
pub(super) fn has_room_for_hole(state: &State, start: u64, end: u64) -> Result<()> {
    let count = state.vmas.len() + state.vmas.would_split(start, end);
    if count > MAX_AREAS { Err(Errno::ENOMEM) } else { Ok(()) }
}

impl Mm {
    /// Maps memory and returns where.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn mmap(&self, request: MapRequest) -> Result<u64> {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(request.len).ok_or(Errno::ENOMEM)?;
        if len > self.caps.task_size {
            return Err(Errno::ENOMEM);
        }
        if let Some((_, offset)) = &request.object {
            if offset % PAGE_SIZE != 0 {
                return Err(Errno::EINVAL);
            }
            offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        }
        if request.flags.contains(MapFlags::FIXED) && len > SHORT {
            self.thin_for(&request, len)?;
        }
        let populate = request.flags.contains(MapFlags::POPULATE) || request.vm.contains(VmFlags::LOCKED);
        let prot = request.prot;
        let (start, locked) = self.edit_areas(|state, deferred| {
            let start = self.place(state, &request, len)?;
            let locked = self.map_at(state, deferred, request, start, len)?;
            Ok((start, locked))
        })?;
        if populate || locked {
            self.populate(start, start + len, prot);
        }
        Ok(start)
    }

    /// Before much is replaced by a mapping: what can refuse it is asked, and pages go that nobody will see again.
    fn thin_for(&self, request: &MapRequest, len: u64) -> Result<()> {
        let end = {
            let state = &mut *self.state.lock();
            let (start, end) = (self.place(state, request, len)?, request.addr + len);
            let vma = Vma { start, end, prot: request.prot, flags: request.vm, backing: Backing::Anon };
            self.check_limits(state, &vma, state.vmas.covered(start, end))?;
            state.vmas.changeable(start, end)?;
            end
        };
        self.thin(request.addr, end)
    }

    /// Chooses the address.
    fn place(&self, state: &mut State, request: &MapRequest, len: u64) -> Result<u64> {
        if request.flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            let start = request.addr;
            if !start.is_multiple_of(PAGE_SIZE) {
                return Err(Errno::EINVAL);
            }
            if !self.in_bounds(start, len) {
                return Err(Errno::ENOMEM);
            }
            if start < MIN_ADDRESS {
                return Err(Errno::EPERM);
            }
            if request.flags.contains(MapFlags::FIXED_NOREPLACE)
                && state.vmas.overlapping(start, start + len).next().is_some()
            {
                return Err(Errno::EEXIST);
            }
            // Reservations are bookkeeping, and sanitizers make them over everything that they do not use.
            if !request.prot.is_empty() && self.reserved_in(start, start + len).is_some() {
                return Err(Errno::ENOMEM);
            }
            return Ok(start);
        }
        if page_down(request.addr) != 0 {
            let hint = page_down(request.addr).max(MIN_ADDRESS);
            let free = |state: &State| {
                let next = state.vmas.find_from(hint);
                next.is_none_or(|next| hint + len <= lowest(next))
                    // Even if it is not accessible now: who takes a hint's answer means to use it.
                    && self.reserved_in(hint, hint + len).is_none()
            };
            if self.in_bounds(hint, len)
                && free(state)
                && (!request.flags.contains(MapFlags::LOW) || hint + len <= LOW_AREA.1)
            {
                return Ok(hint);
            }
        }
        if request.flags.contains(MapFlags::LOW) {
            return self.find_gap(state, len, LOW_AREA.0, LOW_AREA.1).ok_or(Errno::ENOMEM);
        }
        let base = state.layout.mmap_base.min(self.caps.task_size);
        let top = if len >= state.hole.len { state.hole.addr.min(base) } else { base };
        if let Some(start) = self.find_gap(state, len, MIN_ADDRESS, if top == 0 { base } else { top }) {
            state.hole = HoleHint { addr: start, len };
            return Ok(start);
        }
        // As Linux: when there is no room below the base, anywhere.
        self.find_gap(state, len, MIN_ADDRESS, self.caps.task_size).ok_or(Errno::ENOMEM)
    }

    /// The highest free range of `len` bytes within `low..high`, outside the kernel's windows.
    pub(super) fn find_gap(&self, state: &State, len: u64, low: u64, high: u64) -> Option<u64> {
        let mut top = high;
        loop {
            let start = top.checked_sub(len).filter(|&start| start >= low)?;
            if let Some(below) = state.vmas.last_below(top)
                && below.end > start
            {
                top = lowest(below);
            } else if let Some(window) = self.reserved_in(start, top) {
                top = window.0;
            } else {
                return Some(start);
            }
        }
    }

    /// Makes the area at `start`; true if it must be populated because it is locked.
    fn map_at(
        &self,
        state: &mut State,
        deferred: &mut Deferred,
        request: MapRequest,
        start: u64,
        len: u64,
    ) -> Result<bool> {
        let end = start + len;
        if state.vmas.len() + 1 + state.vmas.would_split(start, end) > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let mut flags = request.vm;
        if state.lock_future {
            flags |= VmFlags::LOCKED;
        }
        let backing = match request.object {
            Some((object, offset)) => Backing::Object { object, offset },
            None if flags.contains(VmFlags::SHARED) => {
                let object = Arc::new(SharedMemory::new(len, b"/dev/zero (deleted)"));
                Backing::Object { object, offset: 0 }
            }
            None => Backing::Anon,
        };
        let vma = Vma { start, end, prot: request.prot, flags, backing };
        let replaced = state.vmas.covered(start, end);
        self.check_limits(state, &vma, replaced)?;
        if replaced != 0 {
            state.vmas.changeable(start, end)?;
            self.remove_range(state, start, end, deferred);
        }
        if let Backing::Object { object, .. } = &vma.backing {
            object.mapped(&self.this);
        }
        account(state, &vma, true);
        let locked = vma.flags.contains(VmFlags::LOCKED);
        state.vmas.insert(vma);
        Ok(locked)
    }

    /// Where an area of `len` bytes would go that may be accessible.
    pub(crate) fn free_range(&self, len: u64) -> Option<u64> {
        let state = self.state.lock();
        self.find_gap(&state, len, MIN_ADDRESS, state.layout.mmap_base.min(self.caps.task_size))
    }

    /// Whether the limits allow an area beside what is there, `replaced` bytes of which go.
    pub(super) fn check_limits(&self, state: &State, vma: &Vma, replaced: u64) -> Result<()> {
        let len = vma.len();
        let total = (state.total - replaced.min(state.total)).saturating_add(len);
        if total > self.limits.address_space.load(Ordering::Relaxed) {
            return Err(Errno::ENOMEM);
        }
        if is_data(vma) {
            if state.data.saturating_add(len) > self.limits.data.load(Ordering::Relaxed) {
                return Err(Errno::ENOMEM);
            }
            // Linux's heuristic overcommit refuses what could never be had.
            if !vma.flags.contains(VmFlags::NO_RESERVE) && len > frames::limit_bytes() {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// Whether RLIMIT_MEMLOCK allows an area to grow to that. (What is mapped anew the caller has looked at.)
    pub(super) fn check_locked(&self, state: &State, vma: &Vma) -> Result<()> {
        let limit = self.limits.memlock.load(Ordering::Relaxed);
        let locked = vma.flags.contains(VmFlags::LOCKED);
        if locked && state.locked.saturating_add(vma.len()) > limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// Unmaps the range.
    ///
    /// # Errors
    /// As munmap(2).
    pub fn munmap(&self, addr: u64, len: u64) -> Result<()> {
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        if !addr.is_multiple_of(PAGE_SIZE) || len == 0 || !self.in_bounds(addr, len) {
            return Err(Errno::EINVAL);
        }
        let allowed = |state: &mut State| {
            has_room_for_hole(state, addr, addr + len)?;
            state.vmas.changeable(addr, addr + len)
        };
        self.remove_in_steps(addr, addr + len, allowed)
    }

    /// Unmaps what is left of the attachment of a System V segment at `addr`: the first piece found, and those of the
    /// same segment behind it.
    ///
    /// # Errors
    /// EINVAL if there is none.
    pub fn detach(&self, addr: u64) -> Result<()> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        self.edit_areas(|state, deferred| {
            let mut pieces: Vec<(u64, u64)> = Vec::new();
            let mut segment = None;
            let mut at = addr;
            while let Some(vma) = state.vmas.find_from(at) {
                at = vma.end;
                if segment.is_some_and(|(_, end)| vma.end > end) {
                    break;
                }
                let Backing::Object { object, offset } = &vma.backing else { continue };
                let attached = object.is_segment() && vma.start.wrapping_sub(addr) == *offset;
                let identity = object.identity();
                if attached && segment.is_none_or(|(first, _)| first == identity) {
                    let end = addr.saturating_add(page_up(object.size()).ok_or(Errno::EINVAL)?);
                    segment.get_or_insert((identity, end));
                    pieces.push((vma.start, vma.end));
                }
            }
            for &(start, end) in &pieces {
                state.vmas.changeable(start, end)?;
            }
            for &(start, end) in &pieces {
                self.remove_range(state, start, end, deferred);
            }
            if pieces.is_empty() { Err(Errno::EINVAL) } else { Ok(()) }
        })
    }

    /// Takes areas and pages of the range out, if `allowed` says so.
    pub(super) fn remove_in_steps(
        &self,
        start: u64,
        end: u64,
        allowed: impl FnOnce(&mut State) -> Result<()>,
    ) -> Result<()> {
        self.in_steps((start, end), Turn::Edit, allowed, |state, deferred, at, to| {
            self.remove_range(state, at, to, deferred);
            Ok(())
        })
    }

    /// Takes areas and pages of the range out.
    pub(super) fn remove_range(&self, state: &mut State, start: u64, end: u64, deferred: &mut Deferred) {
        let before = deferred.areas.len();
        state.vmas.remove(start, end, &mut deferred.areas);
        let areas = std::mem::take(&mut deferred.areas);
        for vma in &areas[before..] {
            account(state, vma, false);
            if vma.prot.is_empty() {
                // Nothing in the tables, and reservations can be huge: only the stash may know its pages.
                self.drop_stashed(state, vma.start, vma.end, deferred);
            } else {
                deferred.frames.reserve((vma.len() / PAGE_SIZE).min(512) as usize);
                self.unmap_pages(state, vma.start, vma.end, deferred);
            }
        }
        deferred.areas = areas;
        if end > state.hole.addr {
            // The only gap that grew ends at the next area.
            let next = state.vmas.find_from(end).map_or(state.layout.mmap_base, |vma| vma.start);
            state.hole.addr = next.max(state.hole.addr);
        }
    }

    /// Faults in every page of the range, as far as that works and the program wants it.
    pub(super) fn populate(&self, start: u64, end: u64, prot: Prot) {
        if prot.is_empty() {
            return;
        }
        let access = if prot.contains(Prot::WRITE) { Access::Write } else { Access::Read };
        let mut at = start;
        while at < end && self.pause().is_ok() && self.fault_in(at, access).is_ok() {
            at += PAGE_SIZE;
        }
    }

    /// Makes a page present with the rights for `access`, unless it is so already.
    pub(super) fn fault_in(&self, page: u64, access: Access) -> Result<()> {
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        let present = {
            let _state = self.state.lock();
            self.is_user_page(page) && self.space.lookup(page).is_some_and(|(_, prot)| prot.contains(need))
        };
        if present { Ok(()) } else { self.handle_fault(page, access).map_err(|_| Errno::EFAULT) }
    }
}

/// Whether an area counts as data (RLIMIT_DATA): private, writable, not a stack.
pub(super) fn is_data(vma: &Vma) -> bool {
    vma.is_private() && vma.prot.contains(Prot::WRITE) && !vma.flags.contains(VmFlags::GROWS_DOWN)
}

/// Adds an area to the totals, or takes it off.
pub(super) fn account(state: &mut State, vma: &Vma, add: bool) {
    let len = vma.len();
    if !add {
        state.peak_total = state.peak_total.max(state.total);
    }
    let apply = |total: &mut u64| *total = if add { *total + len } else { total.saturating_sub(len) };
    apply(&mut state.total);
    if is_data(vma) {
        apply(&mut state.data);
    }
    if vma.flags.contains(VmFlags::LOCKED) {
        apply(&mut state.locked);
    }
}

/// The lowest address that others keep away from.
fn lowest(vma: &Vma) -> u64 {
    if vma.flags.contains(VmFlags::GROWS_DOWN) { vma.start.saturating_sub(STACK_GUARD) } else { vma.start }
}
