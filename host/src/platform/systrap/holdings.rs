//! Indices of order pages, slots and code pages: which process has which.

use super::layout::{CODE_PAGES, PROCESS_COUNT, SLOT_COUNT};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::sync::Arc;

/// Indices that can be had, handed back and had again.
struct Pool {
    free: Vec<u32>,
    next: u32,
    end: u32,
}

impl Pool {
    fn take(&mut self) -> Result<u32> {
        if let Some(index) = self.free.pop() {
            return Ok(index);
        }
        if self.next == self.end {
            return Err(Errno::EAGAIN);
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// What has not been taken.
pub(super) struct Pools {
    slots: Pool,
    pages: Pool,
    code: Pool,
}

impl Pools {
    pub(super) fn new() -> Arc<Lock<Self>> {
        // Index 0 of both is the zygote's.
        Arc::new(Lock::new(
            Rank::StubPools,
            Pools {
                slots: Pool { free: Vec::new(), next: 1, end: SLOT_COUNT },
                pages: Pool { free: Vec::new(), next: 1, end: PROCESS_COUNT },
                code: Pool { free: Vec::new(), next: 0, end: CODE_PAGES },
            },
        ))
    }
}

/// A process's order page, all slots ever mapped in it, and its code pages. Given back, once, when the process has been reaped and
/// nobody uses it any more: reaped, its entry is gone; unused, the `Process`.
pub(super) struct Holdings {
    pools: Arc<Lock<Pools>>,
    pub(super) page: u32,
    pub(super) slots: Lock<Vec<u32>>,
    code: Lock<Vec<u32>>,
}

impl Holdings {
    /// A page and a first slot.
    pub(super) fn take(pools: &Arc<Lock<Pools>>) -> Result<(Arc<Self>, u32)> {
        let page = pools.lock().pages.take()?;
        let holdings = Holdings {
            pools: pools.clone(),
            page,
            slots: Lock::new(Rank::StubSlots, Vec::new()),
            code: Lock::new(Rank::StubCode, Vec::new()),
        };
        let slot = holdings.add_slot()?;
        Ok((Arc::new(holdings), slot))
    }

    pub(super) fn add_slot(&self) -> Result<u32> {
        let slot = self.pools.lock().slots.take()?;
        self.slots.lock().push(slot);
        Ok(slot)
    }

    /// A page for code.
    pub(super) fn add_code(&self) -> Result<u32> {
        let page = self.pools.lock().code.take()?;
        self.code.lock().push(page);
        Ok(page)
    }

    /// Gives a page for code back that is mapped nowhere any more.
    pub(super) fn drop_code(&self, page: u32) {
        let mut code = self.code.lock();
        if let Some(at) = code.iter().position(|have| *have == page) {
            code.swap_remove(at);
            drop(code);
            self.pools.lock().code.free.push(page);
        }
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        let mut pools = self.pools.lock();
        pools.pages.free.push(self.page);
        pools.slots.free.append(self.slots.get_mut());
        pools.code.free.append(self.code.get_mut());
    }
}
