//! A user address space.

use super::super::{AddressSpace, Frame, Prot};
use super::tables::{UserTables, WINDOWS};
use super::{Shared, arch};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use core::any::Any;
use pagetables::{Flush, Retired, Rights, UserRange};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A table, and the generation that says whether TLBs may be behind it.
pub(super) struct Space {
    /// Unique for the life of the machine; never 0.
    pub(super) id: u64,
    /// Physical address of the root.
    pub(super) root: u64,
    /// Bumped after each edit that TLBs must notice.
    pub(super) generation: AtomicU64,
    /// The generation that no worker's TLB is behind, as far as is known.
    synced: AtomicU64,
    /// `None` only during drop.
    tables: Lock<Option<UserTables>>,
    shared: Arc<Shared>,
}

fn rights(prot: Prot) -> Rights {
    Rights::from_bits_truncate(prot.bits())
}

fn prot(attrs: pagetables::Attrs) -> Prot {
    Prot::from_bits_truncate(Rights::from(attrs).bits())
}

fn user_range(va: u64, len: u64) -> Result<UserRange> {
    UserRange::new(&WINDOWS, va, len).map_err(|_| Errno::ENOMEM)
}

impl Space {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self> {
        let tables =
            arch::user_tables(&shared.kernel.lower, shared.pool.clone()).map_err(|_| Errno::ENOMEM)?;
        Ok(Space {
            id: shared.next_space.fetch_add(1, Ordering::Relaxed),
            root: tables.root(),
            generation: AtomicU64::new(1),
            synced: AtomicU64::new(0),
            tables: Lock::new(Rank::PlatformTables, Some(tables)),
            shared: shared.clone(),
        })
    }

    /// What a program reads from the CPU's ID registers.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn id_registers(&self) -> &arch::IdRegisters {
        &self.shared.machine.features().id
    }

    fn with<T>(&self, f: impl FnOnce(&mut UserTables) -> T) -> T {
        let mut tables = self.tables.lock();
        match tables.as_mut() {
            Some(tables) => f(tables),
            None => unreachable!("a space is used after its drop began"),
        }
    }

    /// Makes every vCPU notice an edit: at once here if this vCPU has the table loaded and it is one page, else at
    /// its next entry into user code.
    fn flush(&self, flush: Flush) {
        if flush.is_empty() {
            return arch::publish();
        }
        if arch::flush_everywhere(flush.start(), flush.pages()) {
            return flush.ignore();
        }
        let before = self.generation.fetch_add(1, Ordering::SeqCst);
        arch::flush_pages(self, flush.start(), flush.pages(), before);
        flush.ignore();
    }
}

impl AddressSpace for Space {
    fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<()> {
        let range = user_range(va, frames.len() as u64 * pagetables::PAGE_SIZE)?;
        let flush = match frames {
            [frame] => self.with(|t| t.map_page(range, frame.0, rights(prot))),
            _ => self.with(|t| t.map(range, frames.iter().map(|f| f.0), rights(prot))),
        };
        self.flush(flush.map_err(|_| Errno::ENOMEM)?);
        Ok(())
    }

    fn unmap(&self, va: u64, len: u64, gone: &mut dyn FnMut(u64, Frame)) {
        for range in WINDOWS.pieces(va, len) {
            // Splitting a large page is all that can fail, and only 4 KiB pages are mapped here.
            if let Ok(flush) = self.with(|t| t.unmap(range, |m| gone(m.va, Frame(m.phys)))) {
                self.flush(flush);
            }
        }
    }

    fn protect(&self, va: u64, len: u64, prot: Prot) {
        for range in WINDOWS.pieces(va, len) {
            if let Ok(flush) = self.with(|t| t.protect(range, rights(prot))) {
                self.flush(flush);
            }
        }
    }

    fn lookup(&self, va: u64) -> Option<(Frame, Prot)> {
        let mapping = self.with(|t| t.lookup(va))?;
        let offset = (va - mapping.va) & !(pagetables::PAGE_SIZE - 1);
        Some((Frame(mapping.phys + offset), prot(mapping.attrs)))
    }

    fn for_each(&self, va: u64, len: u64, each: &mut dyn FnMut(u64, Frame, Prot)) {
        for range in WINDOWS.pieces(va, len) {
            self.with(|t| t.for_each(range, |m| each(m.va, Frame(m.phys), prot(m.attrs))));
        }
    }

    fn reach(&self, va: u64, len: u64, pages: u64) -> u64 {
        let reached = WINDOWS.pieces(va, len).find_map(|range| self.with(|t| t.reach(range, pages)));
        reached.unwrap_or(va.saturating_add(len))
    }

    fn sync(&self) {
        let retired: Option<Retired> = self.with(|t| {
            let retired = t.take_retired();
            (!retired.is_empty()).then_some(retired)
        });
        if retired.is_some() && !arch::BROADCASTS {
            // A CPU caches pointers to table pages too, even of empty ones. (A broadcast drops those with the pages.)
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        let generation = self.generation.load(Ordering::SeqCst);
        if self.synced.load(Ordering::SeqCst) < generation {
            self.wait_for_workers();
            self.synced.fetch_max(generation, Ordering::SeqCst);
        }
        if let Some(retired) = retired {
            retired.free(&self.shared.pool);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Space {
    /// Returns when no other worker is in user code of this space that it entered before the call.
    fn wait_for_workers(&self) {
        let me = super::vcpu::worker_id();
        for (id, worker) in self.shared.workers.iter().enumerate() {
            let entries = worker.entries.load(Ordering::SeqCst);
            if Some(id) == me || entries & 1 == 0 || worker.loading.load(Ordering::SeqCst) != self.id {
                continue;
            }
            self.shared.kick(id);
            let mut spins = 0u32;
            while worker.entries.load(Ordering::Acquire) == entries {
                spins += 1;
                if spins > 1000 {
                    crate::hostsys::process::yield_now();
                }
                core::hint::spin_loop();
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Some(tables) = self.tables.get_mut().take() else { return };
        if self.shared.is_loaded(self.id) {
            // Some vCPU's root register still names this table, in the guest or kept while its worker is native.
            self.shared.graveyard.lock().push((self.id, tables));
            self.shared.buried.fetch_add(1, Ordering::Relaxed);
        }
    }
}
