//! Random operations against a `BTreeMap` of 4 KiB pages, comparing everything mapped after each, in both formats.
#![expect(unsafe_code, reason = "implements the unsafe allocator trait")]

mod common;

use common::{Manual, Pool, leaves};
use pagetables::{
    Aarch64, Attrs, Error, KernelTables, PageSize, PageTables, Rights, Template, UserRange, VirtRange,
    Windows, X86_64,
};
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;
const IMAGE: (u64, u64) = (0x7000_0000, 0x8000_0000);
const ARENA: (u64, u64) = (320 * GIB, 480 * GIB);
const WINDOWS: Windows = Windows::new([IMAGE, ARENA], 1 << 47);

type Pages = BTreeMap<u64, (u64, Rights)>;

/// Places where something can go wrong: table borders, window borders, the ends of the lower half.
const PLACES: [u64; 10] = [
    0x1000,
    0x3f_f000,
    0x4000_0000,
    IMAGE.0 - 0x20_0000,
    IMAGE.1,
    ARENA.0 - GIB,
    ARENA.1,
    512 * GIB - 0x4000,
    0x7f12_3456_7000,
    (1 << 47) - 3 * 0x20_0000,
];

fn template<F: Manual>(pool: &Pool) -> Template<F, &Pool> {
    let range = |(start, end): (u64, u64)| VirtRange::new::<F>(start, end - start).expect("aligned");
    let mut tables = KernelTables::<F, _>::new(pool).expect("memory");
    let kernel = Attrs::READ | Attrs::GLOBAL;
    for (at, attrs) in [(0, kernel | Attrs::EXECUTE), (5, kernel), (9, kernel | Attrs::WRITE)] {
        let start = IMAGE.0 + at * 0x1000;
        tables.map(range((start, start + 0x4000)), start, attrs, PageSize::Size4K).expect("memory").ignore();
    }
    tables.map(range(ARENA), ARENA.0, kernel | Attrs::WRITE, PageSize::Size1G).expect("memory").ignore();
    tables.freeze(&[range(IMAGE), range(ARENA)]).expect("aligned")
}

fn random_range(random: &mut Random) -> UserRange {
    loop {
        let place = PLACES[random.below(PLACES.len() as u64) as usize];
        let pages = [1, 1, 2, 7, 512, 513, 1500][random.below(7) as usize];
        let start = place.wrapping_add(random.below(3) * 0x20_0000).wrapping_add(random.below(6) * 0x1000);
        // Refused when it touches a window or ends too high: that is UserRange's own test.
        if let Ok(range) = UserRange::new(&WINDOWS, start, (1 + random.below(pages)) * 0x1000) {
            return range;
        }
    }
}

fn random_rights(random: &mut Random) -> Rights {
    Rights::from_bits_truncate(random.below(8) as u8)
}

/// Rights as the tables show them: anything implies read.
fn shown(rights: Rights) -> Rights {
    if rights.is_empty() { rights } else { rights | Rights::READ }
}

fn pages_of(range: UserRange) -> impl Iterator<Item = u64> {
    (range.start()..range.end()).step_by(4096)
}

fn step<F: Manual>(tables: &mut PageTables<F, &Pool>, model: &mut Pages, random: &mut Random) {
    let range = random_range(random);
    let rights = random_rights(random);
    let frame = random.below(1 << 20) << 12;
    let before: Vec<_> =
        model.range(range.start()..range.end()).map(|(&va, &(phys, rights))| (va, phys, rights)).collect();
    let done = match random.below(8) {
        0..3 => {
            let frames: Vec<u64> = (0..range.pages()).map(|i| frame + i * 8192).collect();
            for (va, &phys) in pages_of(range).zip(&frames) {
                model.insert(va, (phys, shown(rights)));
            }
            tables.map(range, frames, rights)
        }
        3 => {
            model.insert(range.start(), (frame, shown(rights)));
            let page = UserRange::new(&WINDOWS, range.start(), 4096).expect("within the range");
            tables.map_page(page, frame, rights)
        }
        4 => {
            // Congruent to the address, so that large pages are possible.
            let phys = (frame & !0x1f_ffff) + (range.start() & 0x1f_ffff);
            for va in pages_of(range) {
                model.insert(va, (phys + (va - range.start()), shown(rights)));
            }
            tables.map_run(range, phys, rights, PageSize::Size1G)
        }
        5 | 6 => {
            let mut gone = Vec::new();
            let flush = tables.unmap(range, |m| {
                gone.extend(
                    (0..m.size.bytes()).step_by(4096).map(|at| (m.va + at, m.phys + at, m.attrs.into())),
                )
            });
            model.retain(|va, _| !pages_of(range).any(|page| page == *va));
            assert_eq!(gone, before);
            flush
        }
        _ => {
            model
                .iter_mut()
                .filter(|(va, _)| (range.start()..range.end()).contains(va))
                .for_each(|(_, page)| page.1 = shown(rights));
            tables.protect(range, rights)
        }
    };
    model.retain(|_, (_, rights)| !rights.is_empty());
    let flush = done.expect("memory");
    // Whatever lost something must be covered by the flush, or was flushed by break-before-make.
    for (va, phys, rights) in before {
        let lost = model.get(&va).is_none_or(|&(now, may)| now != phys || !may.contains(rights));
        let broken = || {
            tables
                .alloc()
                .invalidated
                .borrow()
                .iter()
                .any(|&(start, bytes)| (start..start + bytes).contains(&va))
        };
        assert!(!lost || (flush.start()..flush.end()).contains(&va) || broken(), "{va:#x} not flushed");
    }
    flush.ignore();
    tables.alloc().invalidated.borrow_mut().clear();
}

fn compare<F: Manual>(pool: &Pool, tables: &PageTables<F, &Pool>, model: &Pages, shared: &[(u64, u64)]) {
    let mut seen = Vec::new();
    let mut kernel = Vec::new();
    for (va, phys, attrs, size) in leaves::<F>(pool, tables.root()) {
        if attrs.contains(Attrs::USER) {
            assert!(!attrs.intersects(Attrs::GLOBAL | Attrs::DEVICE));
            assert!(!WINDOWS.overlap(va, va + size.bytes()));
            seen.extend((0..size.bytes()).step_by(4096).map(|at| (va + at, (phys + at, attrs.into()))));
        } else {
            assert!(WINDOWS.overlap(va, va + size.bytes()), "supervisor page at {va:#x}");
            kernel.push((va, phys));
        }
    }
    assert!(seen.iter().eq(model.iter().map(|(&va, &page)| (va, page)).collect::<Vec<_>>().iter()));
    assert_eq!(kernel, shared);
}

/// Goes through a range in parts of at most about so many pages: the parts make up the range, and hold what is in it.
fn reach<F: Manual>(tables: &PageTables<F, &Pool>, random: &mut Random) {
    let whole = random_range(random);
    let pages = [1, 2, 600, 2048][random.below(4) as usize];
    let (mut at, mut found, mut all) = (whole.start(), 0, 0);
    tables.for_each(whole, |_| all += 1);
    while at < whole.end() {
        let rest = UserRange::new(&WINDOWS, at, whole.end() - at).expect("within the range");
        let end = tables.reach(rest, pages).unwrap_or(whole.end());
        assert!(at < end && end <= whole.end(), "{at:#x} to {end:#x}");
        let part = UserRange::new(&WINDOWS, at, end - at).expect("within the range");
        let mut count = 0;
        tables.for_each(part, |m| count += u64::from(m.va >= at));
        assert!(count < pages + 512, "{count} where {pages} were wanted");
        (at, found) = (end, found + count);
    }
    assert!(found == all || found + 1 == all, "a large page that begins before the range aside");
}

fn run<F: Manual>(seed: u64) {
    let pool = Pool::default();
    let template = template::<F>(&pool);
    let base = pool.live();
    let shared: Vec<_> = leaves::<F>(&pool, template.root()).into_iter().map(|l| (l.0, l.1)).collect();
    {
        let mut tables = template.instantiate(&pool).expect("memory");
        let skeleton = pool.live() - base;
        assert_eq!(skeleton, 3, "root, third and second level");
        let mut model = Pages::new();
        let mut random = Random(seed);
        for i in 0..120 {
            step(&mut tables, &mut model, &mut random);
            if random.below(4) == 0 {
                tables.take_retired().free(&&pool);
            }
            reach(&tables, &mut random);
            if i % 3 == 0 {
                compare(&pool, &tables, &model, &shared);
            }
        }
        compare(&pool, &tables, &model, &shared);
        for (&va, &(phys, rights)) in model.iter().step_by(37) {
            let found = tables.lookup(va + 0x123).expect("mapped");
            assert_eq!((found.phys + (va - found.va), Rights::from(found.attrs)), (phys, rights));
        }
        for va in [IMAGE.0, ARENA.0, ARENA.0 + 5 * GIB, 1 << 47, !0xfff] {
            assert_eq!(tables.lookup(va), None, "{va:#x}");
        }
        for part in WINDOWS.pieces(0, u64::MAX) {
            tables.unmap(part, |_| ()).expect("nothing to split").ignore();
        }
        tables.take_retired().free(&&pool);
        assert_eq!(pool.live(), base + skeleton, "empty tables are freed");
    }
    assert_eq!(pool.live(), base, "everything is freed on drop");
    let after: Vec<_> = leaves::<F>(&pool, template.root()).into_iter().map(|l| (l.0, l.1)).collect();
    assert_eq!(after, shared);
    template.dispose();
    assert_eq!(pool.live(), 0);
}

#[test]
fn random_operations_x86_64() {
    (1..12).for_each(|seed| run::<X86_64>(seed * 0x9e37_79b9));
}

#[test]
fn random_operations_aarch64() {
    (1..12).for_each(|seed| run::<Aarch64>(seed * 0x9e37_79b9));
}

/// Running out of table pages at any point leaks none and leaves a table that works.
fn starve<F: Manual>() {
    for budget in 0..12 {
        let pool = Pool::default();
        let template = template::<F>(&pool);
        let base = pool.live();
        pool.budget.set(Some(budget));
        if let Ok(mut tables) = template.instantiate(&pool) {
            let range = UserRange::new(&WINDOWS, 512 * GIB - 0x2000, 0x4000).expect("free");
            let result = tables.map(range, [0x1000, 0x2000, 0x3000, 0x4000], Rights::READ);
            assert!(result.is_ok() || result == Err(Error::OutOfTables));
            pool.budget.set(None);
            tables.map(range, [0x1000, 0x2000, 0x3000, 0x4000], Rights::READ).expect("memory").ignore();
            assert_eq!(
                leaves::<F>(&pool, tables.root()).iter().filter(|l| l.2.contains(Attrs::USER)).count(),
                4
            );
        }
        assert_eq!(pool.live(), base);
        pool.budget.set(None);
        template.dispose();
    }
}

#[test]
fn out_of_tables() {
    starve::<X86_64>();
    starve::<Aarch64>();
}

/// Two tables of one template do not see each other's pages.
#[test]
fn tables_are_separate() {
    let pool = Pool::default();
    let template = template::<X86_64>(&pool);
    let mut one = template.instantiate(&pool).expect("memory");
    let two = template.instantiate(&pool).expect("memory");
    let page = UserRange::new(&WINDOWS, IMAGE.0 - 4096, 4096).expect("free");
    one.map_page(page, 0x5000, Rights::WRITE).expect("memory").ignore();
    assert!(one.lookup(page.start()).is_some());
    assert!(two.lookup(page.start()).is_none());
}

/// xorshift64*: enough randomness for operation sequences, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
