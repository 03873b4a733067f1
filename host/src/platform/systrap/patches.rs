//! System call instructions rewritten into jumps, so that a call needs no trap.
//!
//! A trap costs the host a signal frame, all FP registers in and out, and two entries; a call that has been rewritten
//! goes to the stub directly, which saves the general registers and gives its worker the turn. An instruction is rewritten
//! once it has trapped [`HOT`] times, so that short programs pay nothing.
//!
//! **Nothing but the stub's mapping changes.** The kernel's table and the page frame stay as they are: the stub gets a
//! *copy* of the page in which the instruction is a jump, mapped in place of it, for as long as the kernel's table has that
//! very frame there, executable and not writable. Whatever the kernel maps, unmaps or protects there brings the page
//! itself back. So copies by fork, reads by the kernel and files never see a jump, and a new program starts without any.
//! Only private pages are rewritten (others may change under us, as those of just-in-time compilers do); the program
//! can read the jump, and that is all it can tell.
//!
//! **Cells.** Jumps go to cells in the stub's region: a few bytes that name the number and the place to return to. They
//! are never reused while the process lives, so a thread inside one is safe from everything. Where the region is too far
//! away, the jump goes through the cells' *alias* in low memory, which is there only while the program has nothing
//! there: if it maps something, all such jumps go first.
//!
//! **Finding the slot.** A rewritten call has no stack yet; it finds its slot by the GS base, which programs leave at 0
//! and which is lent for that while it is 0 for the kernel. With anything else there, the call goes back to the
//! `syscall` instruction, which is still where it was, and traps as ever.
//!
//! **What a program can do.** It can jump into a cell or the stub with registers and GS base of its choice and write to
//! its slots: then its registers are what it says, as they are anyway. There is no new call that the filter lets through.

use super::arch::{self, Site};
use super::layout::{ALIAS, ALIAS_LEN, CELL_LEN, CELL_PAGES, CELLS, CODE_OFFSET, FD_SLOTS, Order, TEXT};
use super::process::Process;
use super::runs::Run;
use super::shared;
use super::space::{Change, Space, Tables};
use crate::arch::UserRegs;
use crate::platform::{Prot, Trap};
use core::sync::atomic::Ordering;
use ring0::layout::FRAMES_END;
use std::collections::{BTreeMap, BTreeSet};

/// Traps at an instruction before it is rewritten.
pub(super) const HOT: u32 = 32;
const PAGE: u64 = 4096;
const CELLS_PER_PAGE: u64 = PAGE / CELL_LEN;
/// Rewritings per process, counting again those that were undone.
const MOST: u32 = 1024;
/// Calls that need everything the handler saves, so that they had better trap.
const WHOLE: [libc::c_long; 6] = [
    libc::SYS_rt_sigreturn,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
];

/// Addresses in the stub, as offsets until [`CallCode::absolute`].
#[derive(Clone, Copy)]
pub(super) struct CallCode {
    /// Where cells jump to.
    pub(super) entry: u64,
    /// Behind the instruction that gives the kernel the turn.
    pub(super) given: u64,
    /// Behind the one that only makes a frame. The last of this code.
    pub(super) after_frame: u64,
}

impl CallCode {
    fn absolute(self) -> Self {
        CallCode { entry: TEXT + self.entry, given: TEXT + self.given, after_frame: TEXT + self.after_frame }
    }

    /// The end of what a rewritten call executes.
    pub(super) fn end(&self) -> u64 {
        self.after_frame + 1
    }
}

/// The stub's code for rewritten calls, if this processor has them.
pub(super) fn call_code() -> Option<CallCode> {
    arch::call_code().map(CallCode::absolute)
}

/// How a thread came to stop with a frame.
pub(super) struct Stop<'a> {
    pub(super) code: &'a CallCode,
    /// It had been let go on behind a rewritten call, with these registers.
    pub(super) from_call: bool,
    pub(super) given: &'a UserRegs,
}

/// What a cell does before it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Before {
    /// It sets the number.
    Number(u32),
    /// It loads the last argument from the stack, as libc's syscall(3) does; the number is set.
    Argument,
}

/// What a cell stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) before: Before,
    /// Behind the system call instruction.
    pub(super) ret: u64,
}

/// The rewritten calls of one space.
#[derive(Default)]
pub(super) struct Patches {
    cells: Vec<Cell>,
    known: BTreeMap<Cell, u64>,
    /// Pages of cells, and the orders that map those which are not mapped yet.
    pages: Vec<u32>,
    unmapped: Vec<Order>,
    /// Pages whose copies are mapped, and the copies.
    copies: BTreeMap<u64, u32>,
    /// Jumps that are not at their sites, and the sites.
    pads: BTreeMap<u64, u64>,
    /// Pages with jumps through the alias.
    through_alias: BTreeSet<u64>,
    /// Pages of cells that the alias has.
    aliased: u64,
    done: u32,
    /// Something went wrong: no more.
    off: bool,
}

impl Patches {
    /// The cell in which `addr` lies, and how far behind its start.
    pub(super) fn cell_at(&self, addr: u64) -> Option<(Cell, u64)> {
        let offset = addr.checked_sub(CELLS)?;
        let cell = self.cells.get(usize::try_from(offset / CELL_LEN).ok()?)?;
        Some((*cell, offset % CELL_LEN))
    }

    /// The site whose jump lies at `addr`, elsewhere.
    pub(super) fn site_of_pad(&self, addr: u64) -> Option<u64> {
        self.pads.get(&addr).copied()
    }

    /// Whether the stub has a copy of the page at `page`.
    pub(super) fn has_copy(&self, page: u64) -> bool {
        self.copies.contains_key(&page)
    }

    /// Forgets copies in `[start, end)`, which are about to be mapped over or unmapped.
    pub(super) fn forget(&mut self, start: u64, end: u64) {
        if self.copies.is_empty() || start >= end {
            return;
        }
        let pages: Vec<u64> = self.copies.range(start..end).map(|(page, _)| *page).collect();
        for page in pages {
            self.copies.remove(&page);
            self.through_alias.remove(&page);
            self.pads.retain(|pad, _| pad & !(PAGE - 1) != page);
        }
    }

    /// Everything has been unmapped but the cells.
    pub(super) fn reset(&mut self) {
        self.forget(0, u64::MAX);
        self.aliased = 0;
    }

    /// The cell for a call, made if necessary; its address.
    fn cell(&mut self, process: &Process, entry: u64, cell: Cell) -> Option<u64> {
        if let Some(at) = self.known.get(&cell) {
            return Some(*at);
        }
        let index = self.cells.len() as u64;
        let (page, offset) = (index / CELLS_PER_PAGE, index % CELLS_PER_PAGE * CELL_LEN);
        if page == CELL_PAGES {
            return None;
        }
        if page == self.pages.len() as u64 {
            let code = process.holdings.add_code().ok()?;
            process.nursery.slots.copy_in(code_offset(code), &[0; PAGE as usize]);
            self.unmapped.push(map_code(CELLS + page * PAGE, code, Prot::READ | Prot::EXEC));
            self.pages.push(code);
        }
        let at = CELLS + index * CELL_LEN;
        let code = *self.pages.get(page as usize)?;
        process.nursery.slots.copy_in(code_offset(code) + offset, &arch::cell(at, entry, cell));
        self.cells.push(cell);
        self.known.insert(cell, at);
        Some(at)
    }
}

/// Offset of a code page in the slot file.
fn code_offset(page: u32) -> u64 {
    CODE_OFFSET + u64::from(page) * PAGE
}

/// A code page as runs name it: no frame has such an address.
fn code_frame(page: u32) -> u64 {
    FRAMES_END + u64::from(page) * PAGE
}

fn map_code(va: u64, page: u32, prot: Prot) -> Order {
    order_code(Run { start: va, end: va + PAGE, frame: code_frame(page), prot })
}

/// The order that maps a run of code pages.
pub(super) fn order_code(run: Run) -> Order {
    let bit = |have: Prot, bit: i32| if run.prot.contains(have) { bit as u64 } else { 0 };
    let prot = bit(Prot::READ, libc::PROT_READ) | bit(Prot::EXEC, libc::PROT_EXEC);
    let flags = (libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE) as u64;
    let offset = CODE_OFFSET + (run.frame - FRAMES_END);
    Order::new(libc::SYS_mmap, [run.start, run.end - run.start, prot, flags, FD_SLOTS, offset])
}

impl Tables {
    /// Before something changes in `[start, end)`: if the alias has pages there, it gives way as a whole.
    pub(super) fn clear_alias(&mut self, start: u64, end: u64) {
        if self.patches.aliased == 0 || end <= ALIAS || start >= ALIAS + ALIAS_LEN {
            return;
        }
        // First: what brings the pages back asks here, too.
        self.patches.aliased = 0;
        let pages: Vec<u64> = self.patches.through_alias.iter().copied().collect();
        for page in pages {
            self.restore(page, page + PAGE);
        }
        self.lowering = true;
        self.pending.push(Change::Unmap(ALIAS, ALIAS + ALIAS_LEN));
    }

    /// Brings the program's own pages back where the stub has copies.
    pub(super) fn restore(&mut self, start: u64, end: u64) {
        let pages: Vec<u64> = self.patches.copies.range(start..end).map(|(page, _)| *page).collect();
        for page in pages {
            match self.wanted.get(page) {
                Some(run) => self.map(run.clip(page, page + PAGE)),
                None => self.withdraw(page, page + PAGE),
            }
        }
    }

    /// The orders that make a copy of the page at `ret` in which that call is a jump, and the copy before it.
    fn rewrite(
        &mut self,
        process: &Process,
        entry: u64,
        ret: u64,
        number: u32,
    ) -> Option<(Vec<Order>, Option<u32>)> {
        let page = (ret - 1) & !(PAGE - 1);
        let run = self.wanted.get(page)?;
        if self.patches.off || self.patches.done == MOST || run.prot != Prot::READ | Prot::EXEC {
            return None;
        }
        let mut bytes = [0; PAGE as usize];
        shared::frame_bytes(run.frame_at(page), &mut bytes);
        let site: Site = arch::find(&bytes, (ret - page) as usize, number)?;
        let old = self.patches.copies.get(&page).copied();
        match old {
            Some(copy) => process.nursery.slots.copy_out(code_offset(copy), &mut bytes),
            // It has to be there as it is: else it may be on its way out.
            None if self.mirror.get(page).is_none_or(|have| have.frame_at(page) != run.frame_at(page)) => {
                return None;
            }
            None => (),
        }
        let at = self.patches.cell(process, entry, Cell { before: site.before(), ret })?;
        let vacant = self.wanted.overlapping(ALIAS, ALIAS + ALIAS_LEN).next().is_none();
        let through = arch::divert(&mut bytes, &site, page, at, vacant.then_some(ALIAS + (at - CELLS)))?;
        let copy = process.holdings.add_code().ok()?;
        // From here on nothing fails.
        let mut orders = self.take_orders();
        orders.append(&mut self.patches.unmapped);
        if through {
            self.patches.through_alias.insert(page);
            for index in self.patches.aliased..self.patches.pages.len() as u64 {
                let code = self.patches.pages[index as usize];
                orders.push(map_code(ALIAS + index * PAGE, code, Prot::READ));
            }
            self.patches.aliased = self.patches.pages.len() as u64;
        }
        process.nursery.slots.copy_in(code_offset(copy), &bytes);
        let copied = Run { start: page, end: page + PAGE, frame: code_frame(copy), prot: run.prot };
        orders.push(order_code(copied));
        self.mirror.insert(copied);
        self.patches.copies.insert(page, copy);
        if let Some((jump, start)) = site.pad() {
            self.patches.pads.insert(page + jump as u64, page + start as u64);
        }
        self.patches.done += 1;
        Some((orders, old))
    }
}

impl Space {
    /// Rewrites the system call instruction before `ret`, which has `number`, if it can be. True: done.
    pub(super) fn rewrite(&self, ret: u64, number: u64) -> bool {
        let Some(code) = call_code() else { return false };
        let whole = WHOLE.iter().any(|whole| *whole as u64 == number);
        let (Ok(number), false, true) = (u32::try_from(number), whole, self.is_private_code(ret)) else {
            return false;
        };
        let outcome = {
            let mut tables = self.tables.lock();
            let Some((orders, old)) = tables.rewrite(&self.process, code.entry, ret, number) else {
                return false;
            };
            let outcome = self.process.order(&orders);
            match (outcome, old) {
                (Ok(()), Some(old)) => self.process.holdings.drop_code(old),
                (Ok(()), None) => (),
                (Err(_), _) => tables.patches.off = true,
            }
            self.recover(&mut tables, outcome);
            outcome
        };
        self.rewritten.store(true, Ordering::Relaxed);
        // The area may have become another in between; whatever happens to it now undoes this.
        if !self.is_private_code(ret) {
            let page = (ret - 1) & !(PAGE - 1);
            self.tables.lock().restore(page, page + PAGE);
            return false;
        }
        outcome.is_ok()
    }

    /// What a stop that made a frame means, in terms of the program as it knows itself.
    pub(super) fn after(&self, trap: Trap, regs: &mut UserRegs, stop: &Stop<'_>) -> Trap {
        arch::after(trap, regs, stop, &self.tables.lock().patches)
    }
}
