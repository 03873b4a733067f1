//! Page-table pages, and the table types of this platform.

use super::arch;
use crate::arena::ledger;
use crate::sync::{Lock, Rank};
use pagetables::{TableAlloc, Windows};
use ring0::layout::{ARENA_BASE, ARENA_END, IMAGE_BASE, IMAGE_END, TABLES_BASE, TABLES_END};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Table pages are counted in blocks of this, bytes. They are not given back to the host.
const BLOCK: u64 = 64 * pagetables::PAGE_SIZE;

/// Image and arena, which every table has.
pub(super) const RESERVED: [(u64, u64); 2] = [(IMAGE_BASE, IMAGE_END), (ARENA_BASE, ARENA_END)];
/// What user ranges leave out.
pub(super) const WINDOWS: Windows = Windows::new(RESERVED, super::TASK_SIZE);

/// The shared part of every table.
pub(super) type Template = pagetables::Template<arch::Format, Pool>;
/// An application's table.
pub(super) type UserTables = pagetables::PageTables<arch::Format, Pool>;
/// The kernel's table while it is built.
pub(super) type KernelTables = pagetables::KernelTables<arch::Format, Pool>;

/// Hands out pages of the arena's table region; physical address = pointer there.
#[derive(Clone)]
pub(super) struct Pool(Arc<Lock<Pages>>);

struct Pages {
    /// Zeroed pages.
    clean: Vec<u64>,
    /// Pages to be zeroed, or overwritten entirely.
    dirty: Vec<u64>,
    /// First page never handed out; host memory there reads as zero.
    next: u64,
}

impl Pool {
    pub(super) fn new() -> Self {
        Pool(Arc::new(Lock::new(
            Rank::TablePages,
            Pages { clean: Vec::new(), dirty: Vec::new(), next: TABLES_BASE },
        )))
    }
}

impl Pages {
    fn fresh(&mut self) -> Option<u64> {
        let page = self.next;
        if page >= TABLES_END || page.is_multiple_of(BLOCK) && !ledger::try_charge(BLOCK) {
            return None;
        }
        self.next += pagetables::PAGE_SIZE;
        Some(page)
    }
}

// SAFETY: pages come from the table region, each in one list or in use; the arena is mapped at its own address and
// guest-physical = virtual.
unsafe impl TableAlloc for Pool {
    fn alloc(&self) -> Option<u64> {
        let mut pages = self.0.lock();
        if let Some(page) = pages.clean.pop() {
            return Some(page);
        }
        if let Some(page) = pages.dirty.pop() {
            // SAFETY: a free page of the region is ours alone.
            unsafe { core::ptr::write_bytes(page as *mut u8, 0, 4096) };
            return Some(page);
        }
        pages.fresh()
    }

    fn alloc_dirty(&self) -> Option<u64> {
        let mut pages = self.0.lock();
        pages.dirty.pop().or_else(|| pages.clean.pop()).or_else(|| pages.fresh())
    }

    fn free(&self, table: u64, zeroed: bool) {
        let mut pages = self.0.lock();
        if zeroed { pages.clean.push(table) } else { pages.dirty.push(table) }
    }

    fn pointer(&self, table: u64) -> *const AtomicU64 {
        table as *const AtomicU64
    }

    fn invalidate(&self, start: u64, bytes: u64) -> bool {
        arch::invalidate(start, bytes)
    }
}
