//! Memory: where the linker script and the loader put the image, and a pool of pages behind it.
//!
//! Everything that is not in the image comes from the pool: page tables, the per-CPU block, stacks, the programs' memory.
//! So the image needs to know nothing about the machine's memory but that it was loaded into some.

use core::sync::atomic::{AtomicU64, Ordering};
use pagetables::{Attrs, Error, Format, KernelTables, PAGE_SIZE, PageSize, TableAlloc, VirtRange, Windows};

/// What programs leave out: the first 4 GiB, where RAM and devices of every board here are mapped to themselves, and the
/// last page of the lower half (a `syscall` there would return to an address that is none).
pub(crate) const fn windows<F: Format>() -> Windows {
    Windows::new([(0, 4 << 30), (4 << 30, 4 << 30)], F::LOWER_END - PAGE_SIZE)
}

// linker/bringup-*.ld defines these.
unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __pool_start: u8;
    static __pool_end: u8;
}

/// Maps the image and the pool to themselves, with the rights that each part needs and `extra`.
///
/// # Errors
/// When the pool is exhausted.
pub(crate) fn map_image<F: Format>(
    tables: &mut KernelTables<F, &'static Pages>,
    extra: Attrs,
) -> Result<(), Error> {
    let data_start = &raw const __rodata_end as u64;
    let parts = [
        (&raw const __text_start as u64, &raw const __text_end as u64, Attrs::EXECUTE),
        (&raw const __text_end as u64, data_start, Attrs::READ),
        (data_start, &raw const __pool_end as u64, Attrs::WRITE),
    ];
    for (start, end, rights) in parts {
        map(tables, start, start, end - start, rights | extra)?;
    }
    Ok(())
}

/// Maps `bytes` at `va` to `phys`, in tables that are not in use yet.
///
/// # Errors
/// When the pool is exhausted.
pub(crate) fn map<F: Format>(
    tables: &mut KernelTables<F, &'static Pages>,
    va: u64,
    phys: u64,
    bytes: u64,
    attrs: Attrs,
) -> Result<(), Error> {
    let range = VirtRange::new::<F>(va, bytes).map_err(|_| Error::Frozen)?;
    // Nothing walks the tables yet.
    tables.map(range, phys, attrs | Attrs::READ, PageSize::Size4K)?.ignore();
    Ok(())
}

/// Pages of a kernel stack.
const STACK_PAGES: u64 = 8;

/// A kernel stack with an unmapped page below it; returns its end.
///
/// # Errors
/// When the pool is exhausted.
pub(crate) fn new_stack<F: Format>(tables: &mut KernelTables<F, &'static Pages>) -> Result<u64, Error> {
    let guard = PAGES.take(1 + STACK_PAGES)?;
    let range = VirtRange::new::<F>(guard, PAGE_SIZE).map_err(|_| Error::Frozen)?;
    // Nothing walks the tables yet.
    tables.unmap(range)?.ignore();
    Ok(guard + (1 + STACK_PAGES) * PAGE_SIZE)
}

/// An address below 4 GiB that nothing is mapped at.
pub(crate) const NOWHERE: u64 = 0xdead_0000;

/// Faults.
pub(crate) fn read_nowhere() {
    // SAFETY: an address outside image, pool and devices: the read has no effect but the fault, which does not return.
    unsafe { (NOWHERE as *const u8).read_volatile() };
}

/// First address of the image and one past the last of its pool.
#[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "only its loader needs to know"))]
pub(crate) fn bounds() -> (u64, u64) {
    (&raw const __text_start as u64, &raw const __pool_end as u64)
}

/// The pool. One CPU uses it and no interrupt does, so plain loads and stores suffice; the atomics are for the type, and
/// must stay so: before the MMU is on memory is Device memory, where the exclusive accesses of a read-modify-write need not
/// work (ARM DDI 0487, "Synchronization and semaphores").
pub(crate) struct Pages {
    used: AtomicU64,
    /// Pages that came back: each holds the address of the next.
    free: AtomicU64,
}

/// The machine's.
pub(crate) static PAGES: Pages = Pages { used: AtomicU64::new(0), free: AtomicU64::new(0) };

impl Pages {
    /// Takes `count` zeroed pages in a row.
    ///
    /// # Errors
    /// When the pool is exhausted.
    pub(crate) fn take(&self, count: u64) -> Result<u64, Error> {
        let page = &raw const __pool_start as u64 + self.used.load(Ordering::Relaxed);
        let bytes = count * PAGE_SIZE;
        if page + bytes > &raw const __pool_end as u64 {
            return Err(Error::OutOfTables);
        }
        self.used.store(self.used.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        zero(page, bytes);
        Ok(page)
    }

    /// Copies `bytes` to the start of a page of the pool.
    pub(crate) fn fill(&self, page: u64, bytes: &[u8]) {
        let to = self.bytes(page);
        for (to, from) in to.iter().zip(bytes) {
            to.set(*from);
        }
    }

    /// The bytes of a page of the pool. Programs may be able to write it too, but not while kernel code runs.
    pub(crate) fn bytes(&self, page: u64) -> &[core::cell::Cell<u8>] {
        assert!(page.is_multiple_of(PAGE_SIZE) && in_pool(page), "not a page of the pool");
        // SAFETY: the pool is mapped to itself, for nothing but pages that are handled as plain bytes; cells allow others
        // to the same page.
        unsafe { core::slice::from_raw_parts(page as *const core::cell::Cell<u8>, PAGE_SIZE as usize) }
    }

    /// The first word of a page on the free list, or on its way to or from it.
    fn link(&self, page: u64) -> &AtomicU64 {
        // SAFETY: such a page was taken from the pool, and nobody else uses it.
        unsafe { &*(page as *const AtomicU64) }
    }
}

fn in_pool(page: u64) -> bool {
    (&raw const __pool_start as u64..&raw const __pool_end as u64).contains(&page)
}

fn zero(page: u64, bytes: u64) {
    // SAFETY: the caller has just taken the pages; nobody else refers to them.
    unsafe { core::ptr::write_bytes(page as *mut u8, 0, bytes as usize) };
}

// SAFETY: pages are aligned and distinct until freed, below 4 GiB, and mapped to themselves.
unsafe impl TableAlloc for &'static Pages {
    fn alloc(&self) -> Option<u64> {
        let page = self.free.load(Ordering::Relaxed);
        if page == 0 {
            return self.take(1).ok();
        }
        self.free.store(self.link(page).load(Ordering::Relaxed), Ordering::Relaxed);
        zero(page, PAGE_SIZE);
        Some(page)
    }

    fn free(&self, table: u64, _zeroed: bool) {
        self.link(table).store(self.free.load(Ordering::Relaxed), Ordering::Relaxed);
        self.free.store(table, Ordering::Relaxed);
    }

    fn pointer(&self, table: u64) -> *const AtomicU64 {
        table as *const AtomicU64
    }

    /// Only called when a large page is split: kernel tables are complete before they are loaded, and programs have
    /// 4 KiB pages only.
    fn invalidate(&self, _start: u64, _bytes: u64) -> bool {
        false
    }
}
