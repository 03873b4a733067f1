//! A counting allocator, a seeded generator, and walkers written from the manuals rather than from the crate.

use pagetables::{Aarch64, Attrs, Format, PageSize, TableAlloc, X86_64};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

type Page = Box<PageWords>;

#[repr(align(4096))]
pub(crate) struct PageWords([AtomicU64; 512]);

/// Physical address of a page = its host address.
#[derive(Default)]
pub(crate) struct Pool {
    live: RefCell<BTreeMap<u64, Page>>,
    /// How many more pages may be allocated.
    pub(crate) budget: Cell<Option<usize>>,
    /// (start, bytes) of each `invalidate`.
    pub(crate) invalidated: RefCell<Vec<(u64, u64)>>,
}

impl Pool {
    pub(crate) fn live(&self) -> usize {
        self.live.borrow().len()
    }

    pub(crate) fn word(&self, table: u64, index: u64) -> u64 {
        self.live.borrow()[&table].0[index as usize].load(Ordering::Relaxed)
    }
}

// SAFETY: pages are boxed, 4 KiB-aligned, unique, and live until `free` removes them.
unsafe impl TableAlloc for &Pool {
    fn alloc(&self) -> Option<u64> {
        if let Some(left) = self.budget.get() {
            self.budget.set(Some(left.checked_sub(1)?));
        }
        let page: Page = Box::new(PageWords([const { AtomicU64::new(0) }; 512]));
        let address = (&raw const *page) as u64;
        assert_eq!(address >> 48, 0);
        self.live.borrow_mut().insert(address, page);
        Some(address)
    }

    fn free(&self, table: u64, zeroed: bool) {
        let page = self.live.borrow_mut().remove(&table).expect("freed twice or never allocated");
        assert!(!zeroed || page.0.iter().all(|word| word.load(Ordering::Relaxed) == 0), "not zeroed");
    }

    fn pointer(&self, table: u64) -> *const AtomicU64 {
        assert!(self.live.borrow().contains_key(&table), "access to a freed table");
        table as *const AtomicU64
    }

    fn invalidate(&self, start: u64, bytes: u64) -> bool {
        self.invalidated.borrow_mut().push((start, bytes));
        true
    }
}

/// What one entry says, by the manual.
pub(crate) enum Meaning {
    Absent,
    Table(u64),
    Leaf(u64, Attrs),
}

/// A format as the manual describes it.
pub(crate) trait Manual: Format {
    fn read(entry: u64, level: u32) -> Meaning;
    /// The in-use count kept in a table entry.
    fn count(entry: u64) -> u64;
}

fn bit(entry: u64, n: u32) -> bool {
    entry >> n & 1 != 0
}

fn attrs(list: [(bool, Attrs); 6]) -> Attrs {
    list.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect()
}

impl Manual for X86_64 {
    fn read(e: u64, level: u32) -> Meaning {
        if !bit(e, 0) {
            assert_eq!(e, 0, "an absent entry is all zero");
            return Meaning::Absent;
        }
        assert!(bit(e, 5), "accessed is preset");
        let address = e & ((1 << 52) - 1) & !0xfff;
        if level > 0 && !bit(e, 7) {
            assert!(bit(e, 1) && bit(e, 2) && !bit(e, 63), "rights are the leaf's business");
            return Meaning::Table(address);
        }
        assert!(level < 3 && bit(e, 6));
        let address = address & !((1 << (12 + 9 * level)) - 1);
        Meaning::Leaf(
            address,
            attrs([
                (true, Attrs::READ),
                (bit(e, 1), Attrs::WRITE),
                (bit(e, 2), Attrs::USER),
                (bit(e, 8), Attrs::GLOBAL),
                (!bit(e, 63), Attrs::EXECUTE),
                (bit(e, 4), Attrs::DEVICE),
            ]),
        )
    }

    fn count(entry: u64) -> u64 {
        entry >> 52 & 0x3ff
    }
}

impl Manual for Aarch64 {
    fn read(e: u64, level: u32) -> Meaning {
        if !bit(e, 0) {
            assert_eq!(e, 0, "an absent entry is all zero");
            return Meaning::Absent;
        }
        let address = e & 0x0000_ffff_ffff_f000;
        if level > 0 && bit(e, 1) {
            assert_eq!(e >> 59, 0, "hierarchical controls are off");
            return Meaning::Table(address);
        }
        assert!(level < 3 && bit(e, 1) == (level == 0));
        assert!(bit(e, 10) && e >> 8 & 3 == 3, "accessed, inner shareable");
        let user = bit(e, 6);
        assert!(if user { bit(e, 53) } else { bit(e, 54) }, "the other level never executes");
        Meaning::Leaf(
            address,
            attrs([
                (true, Attrs::READ),
                (!bit(e, 7), Attrs::WRITE),
                (user, Attrs::USER),
                (!bit(e, 11), Attrs::GLOBAL),
                (!bit(e, if user { 54 } else { 53 }), Attrs::EXECUTE),
                (e >> 2 & 7 == 1, Attrs::DEVICE),
            ]),
        )
    }

    fn count(entry: u64) -> u64 {
        entry >> 2 & 0x3ff
    }
}

/// All leaves as (va, phys, attrs, size) in order, frozen ones included; checks the in-use counts on the way.
pub(crate) fn leaves<F: Manual>(pool: &Pool, root: u64) -> Vec<(u64, u64, Attrs, PageSize)> {
    let mut found = Vec::new();
    walk::<F>(pool, root, 3, 0, &mut found);
    found
}

fn walk<F: Manual>(
    pool: &Pool,
    table: u64,
    level: u32,
    base: u64,
    found: &mut Vec<(u64, u64, Attrs, PageSize)>,
) -> u64 {
    let mut in_use = 0;
    for i in 0..512 {
        let mut va = base | i << (12 + 9 * level);
        if level == 3 && va >= F::LOWER_END {
            va |= F::UPPER_START;
        }
        let entry = pool.word(table, i);
        match F::read(entry, level) {
            Meaning::Absent => continue,
            Meaning::Table(next) => {
                let used = walk::<F>(pool, next, level - 1, va, found);
                assert_eq!(used, F::count(entry), "in-use count at {va:#x}, level {level}");
                assert_ne!(used, 0, "empty table at {va:#x}, level {level}");
            }
            Meaning::Leaf(phys, attrs) => {
                let size = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G][level as usize];
                found.push((va, phys, attrs, size));
            }
        }
        in_use += 1;
    }
    in_use
}
