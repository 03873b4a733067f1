//! mprotect.

use super::map::{MAX_AREAS, account, is_data};
use super::steps::Turn;
use super::vma::{VmFlags, Vma};
use super::{Deferred, Mm, PAGE_SIZE, State, frames, hardware, page_up, raw};
use crate::abi::{Errno, Result};
use crate::platform::Prot;
use std::sync::atomic::Ordering;

impl Mm {
    /// Changes the protection of a range.
    ///
    /// # Errors
    /// As mprotect(2): what lies before the first hole or refusal is changed all the same.
    pub fn mprotect(&self, addr: u64, len: u64, prot: Prot) -> Result<()> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        if !self.in_bounds(addr, len) {
            return Err(Errno::ENOMEM);
        }
        let end = addr + len;
        // Up to where it has been asked whether areas may be changed: each is asked for as a whole.
        let mut asked = addr;
        self.in_steps(
            (addr, end),
            Turn::Edit,
            |_| Ok(()),
            |state, deferred, at, to| self.protect_range(state, (at, to, end), &mut asked, prot, deferred),
        )
    }

    /// Extends the range down to the start of the growing area it begins in (PROT_GROWSDOWN), then as
    /// [`Self::mprotect`].
    ///
    /// # Errors
    /// EINVAL if the area does not grow down; else as mprotect(2).
    pub fn mprotect_growing(&self, addr: u64, len: u64, prot: Prot) -> Result<()> {
        let start = {
            let state = self.state.lock();
            let vma = state.vmas.find(addr).ok_or(Errno::ENOMEM)?;
            if !vma.flags.contains(VmFlags::GROWS_DOWN) {
                return Err(Errno::EINVAL);
            }
            vma.start
        };
        self.mprotect(start, len.saturating_add(addr - start), prot)
    }

    fn protect_range(
        &self,
        state: &mut State,
        (mut at, to, end): (u64, u64, u64),
        asked: &mut u64,
        prot: Prot,
        deferred: &mut Deferred,
    ) -> Result<()> {
        while at < to {
            let Some(vma) = state.vmas.find(at) else { return Err(Errno::ENOMEM) };
            let (whole_end, piece_end) = (vma.end.min(end), vma.end.min(to));
            if vma.flags.contains(VmFlags::SEALED) {
                return Err(Errno::EPERM);
            }
            let old = Vma { start: at, end: piece_end, ..vma.clone() };
            let new = Vma { prot, ..old.clone() };
            if old.prot != prot {
                if prot.contains(Prot::WRITE) && new.flags.contains(VmFlags::NEVER_WRITE) {
                    return Err(Errno::EACCES);
                }
                if !prot.is_empty() && self.reserved_in(at, piece_end).is_some() {
                    return Err(Errno::ENOMEM);
                }
                if at >= *asked {
                    let added = if is_data(&new) && !is_data(&old) { whole_end - at } else { 0 };
                    if state.vmas.len() + state.vmas.would_split(at, whole_end) > MAX_AREAS
                        || added != 0 && state.data + added > self.limits.data.load(Ordering::Relaxed)
                    {
                        return Err(Errno::ENOMEM);
                    }
                    *asked = whole_end;
                }
                account(state, &old, false);
                account(state, &new, true);
                state.vmas.update(at, piece_end, |vma| vma.prot = prot);
                self.protect_pages(state, &old, prot, deferred);
            }
            at = piece_end;
        }
        Ok(())
    }

    /// Brings the tables in line for a piece of one area.
    fn protect_pages(&self, state: &mut State, old: &Vma, prot: Prot, deferred: &mut Deferred) {
        let (start, len) = (old.start, old.len());
        if old.prot.is_empty() {
            // Pages come back from the stash or the object when they are touched.
            return;
        }
        if prot.is_empty() {
            return self.hide(state, old, deferred);
        }
        let (before, after) = (hardware(old.prot), hardware(prot));
        if before == after {
            return;
        }
        deferred.sync |= !after.contains(before);
        if after.contains(Prot::EXEC) && !before.contains(Prot::EXEC) {
            self.space.for_each(start, len, &mut |_, frame, _| raw::sync_code(frame.0));
        }
        if !after.contains(Prot::WRITE) {
            self.space.protect(start, len, after);
            return;
        }
        // Only pages that this space owns alone may be writable, and shared ones only once their object said so.
        let gains = !before.contains(Prot::WRITE) && old.is_private();
        let mut runs: Vec<(u64, u64, Prot)> = Vec::new();
        self.space.for_each(start, len, &mut |va, frame, now| {
            let writable = now.contains(Prot::WRITE) || (gains && frames::is_sole(frame));
            let want = if writable { after } else { after - Prot::WRITE };
            match runs.last_mut() {
                Some((_, end, prot)) if *end == va && *prot == want => *end += PAGE_SIZE,
                _ => runs.push((va, va + PAGE_SIZE, want)),
            }
        });
        for (start, end, prot) in runs {
            self.space.protect(start, end - start, prot);
        }
    }

    /// Takes the pages of an area that becomes PROT_NONE out of the tables; those that hold a program's own data
    /// go to the stash.
    fn hide(&self, state: &mut State, vma: &Vma, deferred: &mut Deferred) {
        let keep = vma.is_private();
        self.note_peak(state);
        let (stash, dropped) = (&mut state.stash, &mut deferred.frames);
        self.space.unmap(vma.start, vma.len(), &mut |va, frame| {
            if keep && !frames::is_host_file(frame) && !frames::is_zero(frame) {
                stash.insert(va, frame);
            } else {
                dropped.push(frame);
            }
        });
        deferred.sync = true;
    }
}
