//! Address spaces: what the kernel wants mapped, and what the stub process has.
//!
//! The table the kernel edits ([`Runs`]) is not mirrored eagerly: the stub gets a run when the program first touches
//! it (a fault that the table permits is answered here, without `mm`), or when `mm` has just resolved a fault in it.
//! Whole runs are mapped at a time, so that consecutive frames cost one host call however many they are. What is
//! taken away or lowered is queued and takes effect in [`Space::flush_and_hand_over`]: at the next switch into this space, and
//! in `sync`, after which no thread of the stub, whatever it does, reaches the old frames.
//!
//! Some pages are mirrored as copies in which system calls are jumps: see `patches`.
//!
//! The mirror is a cache. When the host refuses a mapping (its limit of mappings per process), everything is unmapped
//! and comes back as it is touched.

use super::layout::{FD_FRAMES, ORDERS, SLOT_COUNT, STUB_BASE, STUB_END, TEXT, slot_address};
use super::outside::Outside;
use super::patches::{self, Patches};
use super::process::{Nursery, Process, Thread};
use super::runs::{Run, Runs, coalesce};
use crate::abi::{Errno, Result};
use crate::platform::systrap::layout::Order;
use crate::platform::{Access, AddressSpace, Areas, Frame, Prot};
use crate::sync::{Lock, Rank};
use core::sync::atomic::AtomicBool;
use ring0::layout::{FRAMES_BASE, FRAMES_END};
use std::sync::{Arc, OnceLock, Weak};

const PAGE: u64 = 4096;
/// Runs up to this long are populated when they are mapped: cheaper than a fault per page.
const POPULATE: u64 = 16 * PAGE;

/// A queued change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Unmap(u64, u64),
    Protect(u64, u64, Prot),
    Map(Run),
}

#[derive(Default)]
pub(super) struct Tables {
    /// What the kernel wants.
    pub(super) wanted: Runs,
    /// What the stub has once `pending` is done.
    pub(super) mirror: Runs,
    pub(super) pending: Vec<Change>,
    /// Some of `pending` takes something away.
    pub(super) lowering: bool,
    pub(super) patches: Patches,
    outside: Outside,
}

/// One address space.
pub(super) struct Space {
    pub(super) process: Arc<Process>,
    pub(super) tables: Lock<Tables>,
    /// Calls have been rewritten.
    pub(super) rewritten: AtomicBool,
    /// Who knows what pages are.
    areas: OnceLock<Weak<dyn Areas>>,
}

impl Space {
    pub(super) fn new(nursery: &Arc<Nursery>) -> Result<Self> {
        let (process, thread) = nursery.spawn()?;
        process.park(thread);
        Ok(Space {
            process,
            tables: Lock::new(Rank::PlatformTables, Tables::default()),
            rewritten: AtomicBool::new(false),
            areas: OnceLock::new(),
        })
    }

    /// Whether the page before `end` is private code. The tables are not locked: who answers has locks of its own that
    /// come first.
    pub(super) fn is_private_code(&self, end: u64) -> bool {
        match self.areas.get() {
            Some(areas) => areas.upgrade().is_some_and(|areas| areas.is_private_code(end - 1)),
            None => true,
        }
    }

    pub(super) fn thread(&self) -> Result<Thread> {
        self.process.thread()
    }

    /// Makes the stub have what `access` to `addr` needs, if the table permits it. False: it does not.
    pub(super) fn provide(&self, addr: u64, access: Access) -> bool {
        let mut tables = self.tables.lock();
        let need = match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        };
        tables.wanted.get(addr).is_some_and(|run| run.prot.contains(need)) && {
            tables.pull(addr);
            true
        }
    }

    /// Maps what is wanted at `addr`, without being asked to by a fault.
    pub(super) fn hint(&self, addr: u64) {
        self.tables.lock().pull(addr);
    }

    /// Carries out what is queued. True: the thread in `slot` gets the turn when it is done. False: it still has to be
    /// given it.
    pub(super) fn flush_and_hand_over(&self, slot: u32) -> bool {
        let mut tables = self.tables.lock();
        if tables.pending.is_empty() {
            self.recover(&mut tables, self.process.settle());
            return false;
        }
        let orders = tables.take_orders();
        match self.process.order_and_hand_over(&orders, slot) {
            Ok(handed_over) => handed_over,
            Err(errno) => {
                self.recover(&mut tables, Err(errno));
                false
            }
        }
    }

    /// Starts over with nothing after an order has failed: whatever was to be taken away is gone too, and the rest comes
    /// back as it is touched.
    pub(super) fn recover(&self, tables: &mut Tables, outcome: Result<()>) {
        if outcome != Err(Errno::EIO) {
            return;
        }
        tables.mirror.clear();
        tables.outside.unmap(0, u64::MAX);
        tables.pending.clear();
        tables.patches.reset();
        if self.process.order(&unmap_all()).is_err() {
            crate::hostsys::stub::kill(self.process.pid);
        }
    }
}

/// Unmaps everything but the stub itself.
fn unmap_all() -> [Order; 2] {
    let slots_end = slot_address(SLOT_COUNT);
    debug_assert!(TEXT < ORDERS && ORDERS < slots_end);
    [order(&Change::Unmap(0, TEXT)), order(&Change::Unmap(slots_end, super::arch::task_size()))]
}

fn host_prot(prot: Prot) -> u64 {
    let bit = |have: Prot, bit: i32| if prot.contains(have) { bit as u64 } else { 0 };
    bit(Prot::READ, libc::PROT_READ) | bit(Prot::WRITE, libc::PROT_WRITE) | bit(Prot::EXEC, libc::PROT_EXEC)
}

fn order(change: &Change) -> Order {
    match *change {
        Change::Unmap(start, end) => Order::new(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0]),
        Change::Protect(start, end, prot) => {
            Order::new(libc::SYS_mprotect, [start, end - start, host_prot(prot), 0, 0, 0])
        }
        Change::Map(run) if run.frame >= FRAMES_END => patches::order_code(run),
        Change::Map(run) => {
            let len = run.end - run.start;
            let populate = if len <= POPULATE { libc::MAP_POPULATE } else { 0 };
            let flags = (libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE | populate) as u64;
            Order::new(
                libc::SYS_mmap,
                [run.start, len, host_prot(run.prot), flags, FD_FRAMES, run.frame - FRAMES_BASE],
            )
        }
    }
}

impl Tables {
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        self.lowering = false;
        self.pending.drain(..).map(|change| order(&change)).collect()
    }

    /// Queues the mapping of what is wanted around `addr` and not mirrored.
    fn pull(&mut self, addr: u64) {
        let Some(run) = self.wanted.get(addr) else { return };
        let page = addr & !(PAGE - 1);
        if let Some(have) = self.mirror.get(addr) {
            let same = have.frame_at(page) == run.frame_at(page) && have.prot == run.prot;
            if same || self.patches.has_copy(page) {
                // It is there: somebody else brought it in meanwhile.
                return;
            }
            let (start, end) = (have.start.max(run.start), have.end.min(run.end));
            let piece = run.clip(start, end);
            if have.frame_at(start) == piece.frame {
                self.mirror.protect(start, end, run.prot);
                self.pending.push(Change::Protect(start, end, run.prot));
            } else {
                self.map(piece);
            }
            return;
        }
        let start = self.mirror.end_below(page).unwrap_or(0).max(run.start);
        let end = self.mirror.start_above(page).unwrap_or(u64::MAX).min(run.end);
        self.map(run.clip(start, end));
    }

    pub(super) fn map(&mut self, run: Run) {
        self.patches.forget(run.start, run.end);
        // A queued unmapping that this mapping covers is made by it.
        self.pending.retain(
            |change| !matches!(change, Change::Unmap(start, end) if run.start <= *start && *end <= run.end),
        );
        self.mirror.insert(run);
        self.outside.map(&run);
        self.pending.push(Change::Map(run));
    }

    /// Brings what the stub has of a run's pages up to date. Pages it does not have wait for their first touch.
    fn replace(&mut self, run: Run) {
        let mut stale: Option<(u64, u64)> = None;
        for have in self.mirror.overlapping(run.start, run.end) {
            // The same frames with fewer rights than wanted are raised by the fault that needs it.
            if have.frame != run.frame_at(have.start) || !run.prot.contains(have.prot) {
                stale = Some(stale.map_or((have.start, have.end), |(first, _)| (first, have.end)));
            }
        }
        if let Some((start, end)) = stale {
            // Mapped over at once (the usual case is a page just copied on write, about to be used).
            self.map(run.clip(start, end));
            self.lowering = true;
        }
    }

    /// Takes `[start, end)` away from the stub.
    pub(super) fn withdraw(&mut self, start: u64, end: u64) {
        self.clear_alias(start, end);
        self.patches.forget(start, end);
        let mut had: Option<(u64, u64)> = None;
        self.mirror.remove(start, end, |piece| {
            had = Some(had.map_or((piece.start, piece.end), |(first, _)| (first, piece.end)));
        });
        // One call from the first to the last page it had: nothing in between is wanted.
        // What it once had around these is gone already.
        self.outside.unmap(start, end);
        let Some((start, end)) = had else { return };
        self.lowering = true;
        if let Some(Change::Unmap(last_start, last_end)) = self.pending.last_mut()
            && (*last_end == start || *last_start == end)
        {
            *last_start = start.min(*last_start);
            *last_end = end.max(*last_end);
            return;
        }
        self.pending.push(Change::Unmap(start, end));
    }

    /// Lowers (or raises) rights of what the stub has in `[start, end)`.
    fn protect(&mut self, start: u64, end: u64, prot: Prot) {
        if prot != Prot::READ | Prot::EXEC {
            self.restore(start, end);
        }
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for piece in self.mirror.overlapping(start, end).filter(|piece| piece.prot != prot) {
            match pieces.last_mut() {
                Some(last) if last.1 == piece.start => last.1 = piece.end,
                _ => pieces.push((piece.start, piece.end)),
            }
        }
        for (start, end) in pieces {
            self.mirror.protect(start, end, prot);
            self.pending.push(Change::Protect(start, end, prot));
            self.lowering = true;
        }
    }
}

/// Whether a range is one that user code may have.
fn allowed(va: u64, len: u64) -> bool {
    let Some(end) = va.checked_add(len) else { return false };
    va.is_multiple_of(PAGE)
        && len.is_multiple_of(PAGE)
        && end <= super::arch::task_size()
        && (end <= STUB_BASE || va >= STUB_END)
}

impl AddressSpace for Space {
    fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<()> {
        let len = (frames.len() as u64).checked_mul(PAGE).ok_or(Errno::ENOMEM)?;
        let ours =
            |frame: &Frame| frame.0 >= FRAMES_BASE && frame.0 < FRAMES_END && frame.0.is_multiple_of(PAGE);
        if !allowed(va, len) || !frames.iter().all(ours) {
            return Err(Errno::EINVAL);
        }
        let mut tables = self.tables.lock();
        tables.clear_alias(va, va + len);
        coalesce(va, frames, prot, PAGE, |run| {
            tables.wanted.insert(run);
            tables.replace(run);
        });
        Ok(())
    }

    fn unmap(&self, va: u64, len: u64, gone: &mut dyn FnMut(u64, Frame)) {
        if !allowed(va, len) {
            return;
        }
        let mut tables = self.tables.lock();
        let mut pieces = Vec::new();
        tables.wanted.remove(va, va + len, |piece| pieces.push(piece));
        tables.withdraw(va, va + len);
        drop(tables);
        for piece in pieces {
            for page in (piece.start..piece.end).step_by(PAGE as usize) {
                gone(page, Frame(piece.frame_at(page)));
            }
        }
    }

    fn protect(&self, va: u64, len: u64, prot: Prot) {
        if !allowed(va, len) {
            return;
        }
        let mut tables = self.tables.lock();
        if prot.is_empty() {
            tables.wanted.remove(va, va + len, |_| ());
            tables.withdraw(va, va + len);
        } else {
            tables.wanted.protect(va, va + len, prot);
            tables.protect(va, va + len, prot);
        }
    }

    fn lookup(&self, va: u64) -> Option<(Frame, Prot)> {
        let page = va & !(PAGE - 1);
        self.tables.lock().wanted.get(page).map(|run| (Frame(run.frame_at(page)), run.prot))
    }

    fn for_each(&self, va: u64, len: u64, each: &mut dyn FnMut(u64, Frame, Prot)) {
        let end = va.saturating_add(len);
        // A copy: `each` may come back to this space.
        let pieces: Vec<Run> = self.tables.lock().wanted.overlapping(va, end).collect();
        for piece in pieces {
            for page in (piece.start..piece.end).step_by(PAGE as usize) {
                each(page, Frame(piece.frame_at(page)), piece.prot);
            }
        }
    }

    fn reach(&self, va: u64, len: u64, pages: u64) -> u64 {
        let end = va.saturating_add(len);
        let mut left = pages * PAGE;
        for run in self.tables.lock().wanted.overlapping(va, end) {
            match left.checked_sub(run.end - run.start) {
                Some(rest) => left = rest,
                None => return (run.start + left).max(va + PAGE),
            }
        }
        end
    }

    fn sync(&self) {
        let mut tables = self.tables.lock();
        let outcome = if tables.lowering {
            let orders = tables.take_orders();
            self.process.order(&orders)
        } else {
            self.process.settle()
        };
        self.recover(&mut tables, outcome);
    }

    fn set_areas(&self, areas: Weak<dyn Areas>) {
        // A space is one owner's.
        let _second = self.areas.set(areas);
    }

    fn is_lost(&self) -> bool {
        self.process.is_dead()
    }

    fn overhead(&self) -> u64 {
        self.tables.lock().outside.bytes()
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
