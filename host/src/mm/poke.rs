//! Access past the rights that the program itself has: what a debugger does (ptrace(2), /proc/PID/mem).
//!
//! What is private may be changed although it is read-only, in a copy of the program's own; so breakpoints get into code,
//! and neither the file nor another process has them. Shared memory may be changed by those only who could map it so,
//! which is known of mappings that are writable.

use super::steps::Turn;
use super::{Backing, Mm, PAGE_SIZE, VmFlags, frames, page_down, raw};
use crate::abi::{Errno, Result};
use crate::platform::{Access, Prot};

impl Mm {
    /// Copies from the program as far as there is something, readable or not.
    ///
    /// # Errors
    /// EFAULT if there is not even a first byte.
    pub fn peek(&self, addr: u64, to: &mut [u8]) -> Result<usize> {
        in_pages(addr, to.len(), |at, done, len| {
            let to = &mut to[done..done + len];
            self.read_some(at, to).is_ok_and(|got| got == len) || self.peek_hidden(at, to)
        })
    }

    /// Copies to the program as far as there is something, writable or private.
    ///
    /// # Errors
    /// EFAULT if there is not even a first byte.
    pub fn poke(&self, addr: u64, from: &[u8]) -> Result<usize> {
        in_pages(addr, from.len(), |at, done, len| {
            let from = &from[done..done + len];
            if self.is_plain_data(at) {
                self.write_some(at, from).is_ok_and(|put| put == len)
            } else {
                self.poke_page(at, from) || self.poke_hidden(at, from)
            }
        })
    }

    /// What is in a page that the program may not read.
    fn peek_hidden(&self, addr: u64, to: &mut [u8]) -> bool {
        let (page, state) = (page_down(addr), self.state.lock());
        let Some(vma) = state.vmas.find(page).filter(|vma| vma.prot.is_empty() && vma.is_private()) else {
            return false;
        };
        match state.stash.get(&page) {
            Some(frame) => raw::read(frame.0 + (addr - page), to).is_ok(),
            None if matches!(vma.backing, Backing::Anon) && !vma.flags.contains(VmFlags::SEALED) => {
                to.fill(0);
                self.is_user_page(page)
            }
            None => false,
        }
    }

    /// Changes what is in a page that the program may not read.
    fn poke_hidden(&self, addr: u64, from: &[u8]) -> bool {
        let (page, mut state) = (page_down(addr), self.state.lock());
        if state.turn == Turn::Fork {
            state = self.await_turn(state, |turn| turn != Turn::Fork);
        }
        let Some(vma) = state.vmas.find(page).filter(|vma| vma.prot.is_empty() && vma.is_private()) else {
            return false;
        };
        let old = state.stash.get(&page).copied();
        let empty = old.is_none() && matches!(vma.backing, Backing::Anon);
        if !self.is_user_page(page) || old.is_none() && !empty {
            return false;
        }
        let Ok(new) = frames::alloc() else { return false };
        if old.is_some_and(|old| raw::copy_page(new.0, old.0).is_err()) {
            frames::put_ref(new);
            return false;
        }
        raw::write(new.0 + (addr - page), from);
        // Nobody runs with what is in the stash.
        if let Some(old) = state.stash.insert(page, new) {
            frames::put_ref(old);
        }
        true
    }

    /// Whether the program's own stores do all that is needed there.
    fn is_plain_data(&self, addr: u64) -> bool {
        let state = self.state.lock();
        state.vmas.find(addr).is_some_and(|vma| {
            vma.prot.contains(Prot::WRITE) && !(vma.prot.contains(Prot::EXEC) && vma.is_private())
        })
    }

    /// Changes a page that is private, in a frame of this space's own. It is mapped anew, so that every copy that was made
    /// of it for execution goes.
    fn poke_page(&self, addr: u64, from: &[u8]) -> bool {
        let page = page_down(addr);
        if !self.is_user_page(page) {
            return false;
        }
        loop {
            if self.handle_fault(page, Access::Read).is_err() {
                return false;
            }
            let replaced = {
                let mut state = self.state.lock();
                if state.turn == Turn::Fork {
                    state = self.await_turn(state, |turn| turn != Turn::Fork);
                }
                let Some(vma) = state.vmas.find(page).filter(|vma| vma.is_private()) else { return false };
                let executable = vma.prot.contains(Prot::EXEC);
                let Some((old, prot)) = self.space.lookup(page) else { continue };
                let own = !frames::is_zero(old) && !frames::is_host_file(old) && frames::is_sole(old);
                let new = if own {
                    frames::get_ref(old);
                    old
                } else {
                    let Ok(new) = frames::alloc_dirty() else { return false };
                    if raw::copy_page(new.0, old.0).is_err() {
                        frames::put_ref(new);
                        return false;
                    }
                    new
                };
                raw::write(new.0 + (addr - page), from);
                if executable {
                    raw::sync_code(new.0);
                }
                if self.space.replace(page, &[old], &[new], prot).is_err() {
                    return false;
                }
                old
            };
            self.space.sync();
            frames::put_ref(replaced);
            return true;
        }
    }
}

/// Calls `step(address, bytes done, length)` for each page's part of a range, until it says false.
fn in_pages(addr: u64, len: usize, mut step: impl FnMut(u64, usize, usize) -> bool) -> Result<usize> {
    let mut done = 0;
    while done < len {
        let at = addr.wrapping_add(done as u64);
        let part = (len - done).min((PAGE_SIZE - at % PAGE_SIZE) as usize);
        if !step(at, done, part) {
            break;
        }
        done += part;
    }
    if done == 0 && len != 0 { Err(Errno::EFAULT) } else { Ok(done) }
}
