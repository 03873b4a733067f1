//! mremap.

use super::layout::MIN_ADDRESS;
use super::map::{MAX_AREAS, account, has_room_for_hole};
use super::steps::{SHORT, Turn};
use super::vma::{Backing, VmFlags, Vma};
use super::{Deferred, Mm, PAGE_SIZE, State, page_up};
use crate::abi::{Errno, Result};
use crate::platform::{Frame, Prot};

const MAY_MOVE: u64 = 1;
const FIXED: u64 = 2;
const DONT_UNMAP: u64 = 4;

/// The rest of a move that takes several steps.
struct Move {
    /// Where the pages are.
    from: (u64, u64),
    /// The area that they come to, not counted yet.
    moved: Vma,
    /// The old area stays.
    keeps: bool,
}

/// Pages moved per `map` call.
const BATCH: usize = 64;

impl Mm {
    /// Resizes or moves a mapping and returns where it is then.
    ///
    /// # Errors
    /// As mremap(2).
    pub fn mremap(&self, addr: u64, old_len: u64, new_len: u64, flags: u64, new_addr: u64) -> Result<u64> {
        if flags & !(MAY_MOVE | FIXED | DONT_UNMAP) != 0
            || (flags & (FIXED | DONT_UNMAP) != 0 && flags & MAY_MOVE == 0)
            || !addr.is_multiple_of(PAGE_SIZE)
        {
            return Err(Errno::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).ok_or(Errno::EINVAL)?;
        if new_len == 0
            || new_len > self.caps.task_size
            || (flags & DONT_UNMAP != 0 && old_len != new_len)
            || !self.in_bounds(addr, old_len)
        {
            return Err(Errno::EINVAL);
        }
        if old_len.max(new_len) > SHORT
            && let Some(result) = self.remap_much((addr, old_len), new_len, flags, new_addr)
        {
            return result;
        }
        let mut populate = None;
        let result = self.edit_areas(|state, deferred| {
            let vma = state.vmas.find(addr).ok_or(Errno::EFAULT)?;
            state.vmas.changeable(addr, addr.saturating_add(old_len.max(1)))?;
            let locked = vma.flags.contains(VmFlags::LOCKED);
            let prot = vma.prot;
            if flags & DONT_UNMAP != 0 && !(vma.is_private() && matches!(vma.backing, Backing::Anon)) {
                return Err(Errno::EINVAL);
            }
            let (at, rest) = self.remap(state, deferred, (addr, old_len), new_len, flags, new_addr)?;
            if locked && new_len > old_len {
                populate = Some((at + old_len, at + new_len, prot));
            }
            Ok((at, rest))
        });
        let result =
            result.and_then(|(at, rest)| rest.map_or(Ok(()), |rest| self.finish_move(rest)).map(|()| at));
        if let Some((start, end, prot)) = populate {
            self.populate(start, end, prot);
        }
        result
    }

    fn remap(
        &self,
        state: &mut State,
        deferred: &mut Deferred,
        (addr, mut old_len): (u64, u64),
        new_len: u64,
        flags: u64,
        new_addr: u64,
    ) -> Result<(u64, Option<Move>)> {
        if flags & FIXED != 0 {
            self.fixed_target(state, (addr, old_len), new_len, new_addr)?;
            self.remove_range(state, new_addr, new_addr + new_len, deferred);
            if old_len > new_len {
                self.remove_range(state, addr + new_len, addr + old_len, deferred);
                old_len = new_len;
            }
            return self.move_area(state, deferred, (addr, old_len), (new_addr, new_len), flags);
        }
        if old_len >= new_len && flags & DONT_UNMAP == 0 {
            if old_len > new_len {
                has_room_for_hole(state, addr + new_len, addr + old_len)?;
                self.remove_range(state, addr + new_len, addr + old_len, deferred);
            }
            return Ok((addr, None));
        }
        let vma = self.check_resize(state, addr, old_len, new_len)?;
        if flags & DONT_UNMAP == 0 && old_len != 0 && addr + old_len == vma.end {
            let end = addr + new_len;
            let free = state.vmas.find_from(vma.end).is_none_or(|next| next.start >= end);
            if free && self.in_bounds(addr, new_len) && self.reserved_in(vma.end, end).is_none() {
                let grown = Vma { start: vma.end, end, ..vma.clone() };
                account(state, &grown, true);
                state.vmas.grow_up(vma.start, end);
                return Ok((addr, None));
            }
        }
        if flags & MAY_MOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        let base = state.layout.mmap_base.min(self.caps.task_size);
        let hint = (new_addr != 0 && flags & DONT_UNMAP != 0).then_some(new_addr).filter(|&at| {
            at.is_multiple_of(PAGE_SIZE)
                && at >= MIN_ADDRESS
                && self.in_bounds(at, new_len)
                && state.vmas.overlapping(at, at + new_len).next().is_none()
                && self.reserved_in(at, at + new_len).is_none()
        });
        let target = hint
            .or_else(|| self.find_gap(state, new_len, MIN_ADDRESS, base))
            .or_else(|| self.find_gap(state, new_len, MIN_ADDRESS, self.caps.task_size))
            .ok_or(Errno::ENOMEM)?;
        self.move_area(state, deferred, (addr, old_len), (target, new_len), flags)
    }

    /// [`mremap`](Self::mremap) as far as much may have to be taken away or moved. What it says, or `None`: nothing is left to
    /// do here but what is quickly done.
    fn remap_much(
        &self,
        (addr, old_len): (u64, u64),
        new_len: u64,
        flags: u64,
        new_addr: u64,
    ) -> Option<Result<u64>> {
        if flags & FIXED != 0 {
            // As `remap` asks before it takes away what is at the new place.
            let allowed = self.fixed_target(&self.state.lock(), (addr, old_len), new_len, new_addr);
            if let Err(errno) = allowed.and_then(|()| self.thin(new_addr, new_addr + new_len)) {
                return Some(Err(errno));
            }
        }
        if old_len > new_len {
            let tail = |state: &mut State| {
                state.vmas.find(addr).ok_or(Errno::EFAULT)?;
                state.vmas.changeable(addr, addr + old_len)?;
                has_room_for_hole(state, addr + new_len, addr + old_len)
            };
            if flags & FIXED == 0 {
                return Some(self.remove_in_steps(addr + new_len, addr + old_len, tail).map(|()| addr));
            }
            if let Err(errno) = self.thin(addr + new_len, addr + old_len) {
                return Some(Err(errno));
            }
        }
        None
    }

    /// Whether an area may be moved to a place that the program has chosen.
    fn fixed_target(
        &self,
        state: &State,
        (addr, old_len): (u64, u64),
        new_len: u64,
        new_addr: u64,
    ) -> Result<()> {
        if !new_addr.is_multiple_of(PAGE_SIZE)
            || !self.in_bounds(new_addr, new_len)
            || (new_addr < addr + old_len && addr < new_addr + new_len)
        {
            return Err(Errno::EINVAL);
        }
        if new_addr < MIN_ADDRESS {
            return Err(Errno::EPERM);
        }
        // What makes room for it can cut areas at both places before it is moved (mm/mremap.c, mremap_to).
        if state.vmas.len() + 6 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        self.check_resize(state, addr, old_len, new_len)?;
        if self.reserved_in(new_addr, new_addr + new_len).is_some() {
            return Err(Errno::ENOMEM);
        }
        state.vmas.changeable(addr, addr + old_len)?;
        state.vmas.changeable(new_addr, new_addr + new_len)
    }

    /// The area to resize, if the limits allow the new size.
    fn check_resize(&self, state: &State, addr: u64, old_len: u64, new_len: u64) -> Result<Vma> {
        let vma = state.vmas.find(addr).ok_or(Errno::EFAULT)?;
        if old_len == 0 && vma.is_private() {
            return Err(Errno::EINVAL);
        }
        if old_len > vma.end - addr {
            return Err(Errno::EFAULT);
        }
        if let Backing::Object { .. } = vma.backing {
            vma.object_offset(addr).checked_add(new_len).ok_or(Errno::EINVAL)?;
        }
        if new_len > old_len {
            let grown = Vma { start: 0, end: new_len - old_len, ..vma.clone() };
            self.check_limits(state, &grown, 0)?;
            self.check_locked(state, &grown)?;
        }
        Ok(vma.clone())
    }

    /// Moves an area's piece with its pages to a free range.
    fn move_area(
        &self,
        state: &mut State,
        deferred: &mut Deferred,
        (from, old_len): (u64, u64),
        (to, new_len): (u64, u64),
        flags: u64,
    ) -> Result<(u64, Option<Move>)> {
        if state.vmas.len() + 3 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let vma = state.vmas.find(from).ok_or(Errno::EFAULT)?;
        let moved = Vma { start: to, end: to + new_len, backing: continued(vma, from), ..vma.clone() };
        if !moved.prot.is_empty() && self.reserved_in(to, to + new_len).is_some() {
            return Err(Errno::ENOMEM);
        }
        if old_len > SHORT {
            // Nobody else changes areas until all of it has arrived.
            state.turn = Turn::Edit;
            state.vmas.insert(moved.clone());
            return Ok((
                to,
                Some(Move { from: (from, from + old_len), moved, keeps: flags & DONT_UNMAP != 0 }),
            ));
        }
        let pages = self.take_pages(state, from, from + old_len, deferred);
        if flags & DONT_UNMAP == 0 && old_len != 0 {
            self.remove_range(state, from, from + old_len, deferred);
        }
        account(state, &moved, true);
        state.vmas.insert(moved);
        self.put_pages(state, &pages, from, to);
        Ok((to, None))
    }

    /// Moves the pages of a long area, for which there is one at the new place, too, and takes out the old one.
    fn finish_move(&self, Move { from: (start, end), moved, keeps }: Move) -> Result<()> {
        let _turn = self.take_over_turn();
        let mut at = start;
        while at < end {
            let mut deferred = Deferred::default();
            let mut state = self.state.lock();
            let to = self.step_end(&state, at, end);
            let pages = self.take_pages(&mut state, at, to, &mut deferred);
            let target = moved.start + (at - start);
            // A program may have looked there already.
            self.drop_pages(&mut state, target, target + (to - at), &mut deferred);
            self.put_pages(&mut state, &pages, start, moved.start);
            drop(state);
            self.finish(deferred);
            at = to;
            self.pause()?;
        }
        self.edit(|state, deferred| {
            if !keeps {
                self.remove_range(state, start, end, deferred);
            }
            account(state, &moved, true);
            Ok(())
        })
    }

    /// Takes the pages of a range out of tables and stash, references included.
    fn take_pages(
        &self,
        state: &mut State,
        start: u64,
        end: u64,
        deferred: &mut Deferred,
    ) -> Vec<(u64, Frame, Prot)> {
        let mut pages = Vec::new();
        for (start, end) in self.user_pieces(start, end) {
            self.space.for_each(start, end - start, &mut |va, frame, prot| pages.push((va, frame, prot)));
            self.space.unmap(start, end - start, &mut |_, _| {});
        }
        deferred.sync |= !pages.is_empty();
        while let Some((&va, &frame)) = state.stash.range(start..end).next() {
            state.stash.remove(&va);
            pages.push((va, frame, Prot::empty()));
        }
        pages
    }

    /// Puts pages taken from `from` on at `to` on. What the tables have no room for waits in the stash.
    fn put_pages(&self, state: &mut State, pages: &[(u64, Frame, Prot)], from: u64, to: u64) {
        let mut rest = pages;
        while let Some(&(va, _, prot)) = rest.first() {
            let mut run = [Frame(0); BATCH];
            let mut len = 0;
            for (slot, page) in run.iter_mut().zip(rest) {
                if page.0 != va + len as u64 * PAGE_SIZE || page.2 != prot {
                    break;
                }
                *slot = page.1;
                len += 1;
            }
            let target = va - from + to;
            if prot.is_empty() || self.space.map(target, &run[..len], prot).is_err() {
                for (i, frame) in run[..len].iter().enumerate() {
                    state.stash.insert(target + i as u64 * PAGE_SIZE, *frame);
                }
            }
            rest = &rest[len..];
        }
    }
}

/// The backing of an area from `addr` on.
fn continued(vma: &Vma, addr: u64) -> Backing {
    match &vma.backing {
        Backing::Anon => Backing::Anon,
        Backing::Object { object, .. } => {
            Backing::Object { object: object.clone(), offset: vma.object_offset(addr) }
        }
    }
}
