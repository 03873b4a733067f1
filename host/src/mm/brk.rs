//! brk.

use super::map::account;
use super::vma::{Backing, VmFlags, Vma};
use super::{Mm, page_up};
use crate::abi::Errno;
use crate::platform::Prot;
use std::sync::atomic::Ordering;

impl Mm {
    /// Moves the program break to `wanted` if that is possible, and returns where it is then.
    pub fn brk(&self, wanted: u64) -> u64 {
        let mut locked = None;
        if let Some(shrunk) = self.shrink_break(wanted) {
            return shrunk;
        }
        let result = self.edit_areas(|state, _| {
            let current = state.brk;
            let (start, limit) = (state.layout.brk_start, self.limits.data.load(Ordering::Relaxed));
            let (Some(old_end), Some(new_end)) = (page_up(current), page_up(wanted)) else {
                return Ok(current);
            };
            let program = state.layout.data.1 - state.layout.data.0;
            if wanted < start
                || !self.in_bounds(wanted, 0)
                || (wanted - start).saturating_add(program) > limit
            {
                return Ok(current);
            }
            if new_end < old_end {
                // Somebody else has raised it meanwhile.
                return Ok(current);
            }
            if new_end > old_end {
                let flags = if state.lock_future { VmFlags::LOCKED } else { VmFlags::empty() };
                let prot = Prot::READ | Prot::WRITE;
                let vma = Vma { start: old_end, end: new_end, prot, flags, backing: Backing::Anon };
                // Not against another area: one page stays free between (a growing stack keeps its own distance).
                let next = state.vmas.find_from(old_end);
                if next.is_some_and(|next| next.start < new_end + super::PAGE_SIZE)
                    || self.reserved_in(old_end, new_end).is_some()
                    || self.check_limits(state, &vma, 0).is_err()
                    || self.check_locked(state, &vma).is_err()
                {
                    return Ok(current);
                }
                account(state, &vma, true);
                if vma.flags.contains(VmFlags::LOCKED) {
                    locked = Some((old_end, new_end));
                }
                state.vmas.insert(vma);
            }
            state.brk = wanted;
            Ok::<u64, Errno>(wanted)
        });
        if let Some((start, end)) = locked {
            self.populate(start, end, Prot::READ | Prot::WRITE);
        }
        result.unwrap_or(0)
    }

    /// Lowers the break, if that is what is wanted and can be, and returns where it is then.
    fn shrink_break(&self, wanted: u64) -> Option<u64> {
        let (new_end, old_end) = {
            let state = self.state.lock();
            (page_up(wanted)?, page_up(state.brk).filter(|_| wanted >= state.layout.brk_start)?)
        };
        if new_end >= old_end {
            return None;
        }
        let mut current = 0;
        let allowed = |state: &mut super::State| {
            current = state.brk;
            if page_up(current) != Some(old_end) {
                return Err(Errno::EAGAIN);
            }
            state.vmas.changeable(new_end, old_end)?;
            state.brk = wanted;
            Ok(())
        };
        match self.remove_in_steps(new_end, old_end, allowed) {
            Ok(()) => Some(wanted),
            Err(_) => Some(current),
        }
    }
}
