//! Long work goes a step at a time: the lock is free in between, and nothing is lost.

use crate::abi::{Errno, Result};
use crate::mm::testing::FakePlatform;
use crate::mm::usage::FileUsers;
use crate::mm::{
    Advice, Layout, Locking, MAX_AREAS, MapFlags, MapRequest, Mappable, Mm, PAGE_SIZE, SharedMemory, VmFlags,
};
use crate::platform::{Platform, Prot};
use crate::sync::Pause;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const RW: Prot = Prot::READ.union(Prot::WRITE);
/// More than four steps' worth.
const PAGES: u64 = 10_000;
const LEN: u64 = PAGES * PAGE_SIZE;
/// Pages of the sparse half lie as far apart as this.
const APART: u64 = 16 << 20;

/// Counts, and looks into the space as others do meanwhile.
struct Counter {
    mm: Weak<Mm>,
    asked: AtomicU64,
    gone_on: AtomicU64,
}

impl Counter {
    fn look(&self, count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(mm) = self.mm.upgrade() {
            let _hangs_if_it_is_locked = mm.total();
        }
    }
}

impl Pause for Counter {
    fn pause(&self) -> Result<()> {
        self.look(&self.asked);
        Ok(())
    }
    fn give_way(&self) {
        self.look(&self.gone_on);
    }
    fn step_aside(&self) {
        panic!("nobody else is there to wait for");
    }
}

fn space(cheap: bool) -> (Arc<Mm>, Arc<Counter>) {
    let platform: Arc<dyn Platform> = FakePlatform::create(cheap);
    let mm = Mm::new(&platform).unwrap();
    mm.set_layout(Layout { mmap_base: 0x7f00_0000_0000, brk_start: 0x60_0000, ..Layout::default() });
    let counter =
        Arc::new(Counter { mm: Arc::downgrade(&mm), asked: AtomicU64::new(0), gone_on: AtomicU64::new(0) });
    mm.pause_by(counter.clone());
    (mm, counter)
}

/// Memory whose pages hold their numbers, one every `apart` bytes.
fn filled(mm: &Mm, apart: u64) -> u64 {
    let request = MapRequest { vm: VmFlags::NO_RESERVE, ..MapRequest::anonymous(PAGES * apart, RW) };
    let at = mm.mmap(request).unwrap();
    (0..PAGES).for_each(|page| mm.write_val(at + page * apart, &page).unwrap());
    at
}

fn check(mm: &Mm, at: u64, apart: u64) {
    for page in 0..PAGES {
        assert_eq!(mm.read_val::<u64>(at + page * apart), Ok(page));
    }
}

/// What `work` asks, at least once per 2,048 pages, and not for every page of address space.
fn pauses<T>(counter: &Counter, work: impl FnOnce() -> T) -> T {
    let before = counter.asked.load(Ordering::Relaxed);
    let result = work();
    let asked = counter.asked.load(Ordering::Relaxed) - before;
    assert!((4..200).contains(&asked), "it has asked {asked} times");
    result
}

#[test]
fn long_edits_go_a_step_at_a_time() {
    for (cheap, apart) in [(true, PAGE_SIZE), (false, PAGE_SIZE), (true, APART), (false, APART)] {
        let (mm, counter) = space(cheap);
        let len = PAGES * apart;
        let at = filled(&mm, apart);
        let areas = mm.maps().len();
        let protect = |at, prot| pauses(&counter, || mm.mprotect(at, len, prot).unwrap());
        protect(at, Prot::empty());
        protect(at, RW);
        check(&mm, at, apart);
        protect(at, Prot::READ);
        protect(at, RW);
        assert_eq!(mm.maps().len(), areas, "what was split for a while is one again");

        let child = pauses(&counter, || mm.fork().unwrap());
        check(&child, at, apart);
        mm.write_val(at, &7u64).unwrap();
        assert_eq!(child.read_val(at), Ok(0u64), "a child's memory is its own");
        mm.write_val(at, &0u64).unwrap();
        drop(child);

        let (total, resident) = (mm.total(), mm.resident());
        let to = mm.mmap(MapRequest::anonymous(len, Prot::empty())).unwrap();
        pauses(&counter, || assert_eq!(mm.mremap(at, len, len, 3, to), Ok(to)));
        assert_eq!((mm.total(), mm.resident()), (total, resident));
        check(&mm, to, apart);

        pauses(&counter, || mm.madvise(to, len, Advice::DontNeed { locked: false }).unwrap());
        assert_eq!((mm.resident(), mm.read_val(to)), (0, Ok(0u64)));
        (0..PAGES).for_each(|page| mm.write_val(to + page * apart, &page).unwrap());
        let over = MapRequest { flags: MapFlags::FIXED, addr: to, ..MapRequest::anonymous(len, Prot::READ) };
        pauses(&counter, || assert_eq!(mm.mmap(over), Ok(to)));
        assert_eq!((mm.resident(), mm.read_val(to)), (0, Ok(0u64)));

        let at = filled(&mm, apart);
        pauses(&counter, || mm.munmap(at, len).unwrap());
        assert_eq!(mm.resident(), 0);
        // What nothing is in takes no time.
        let before = counter.asked.load(Ordering::Relaxed);
        mm.munmap(0x1000_0000, 100 << 40).unwrap();
        assert!(counter.asked.load(Ordering::Relaxed) - before < 4);
    }
}

#[test]
fn so_do_long_lists_of_areas() {
    let (mm, counter) = space(true);
    let at = mm.mmap(MapRequest::anonymous(LEN, RW)).unwrap();
    for page in (0..PAGES).step_by(2) {
        mm.mprotect(at + page * PAGE_SIZE, PAGE_SIZE, Prot::READ).unwrap();
    }
    assert_eq!(mm.maps().len() as u64, PAGES);
    pauses(&counter, || mm.mprotect(at, LEN, Prot::READ).unwrap());
    assert_eq!(mm.maps().len(), 1);
    for page in (0..PAGES).step_by(2) {
        mm.mprotect(at + page * PAGE_SIZE, PAGE_SIZE, RW).unwrap();
    }
    pauses(&counter, || mm.munmap(at, LEN).unwrap());
    assert!(mm.maps().is_empty());
}

#[test]
fn steps_need_no_area_more_than_the_whole_does() {
    let (mm, _) = space(true);
    let at = filled(&mm, PAGE_SIZE);
    let rest = (MAX_AREAS - 1) as u64;
    let others = mm.mmap(MapRequest::anonymous(rest * PAGE_SIZE, RW)).unwrap();
    for page in (0..rest).step_by(2) {
        mm.mprotect(others + page * PAGE_SIZE, PAGE_SIZE, Prot::EXEC).unwrap();
    }
    let full = mm.maps().len();
    assert!(full >= MAX_AREAS - 1, "{full} areas");
    // What would make two more of one does not.
    let (piece, lock) = (at + PAGE_SIZE, Locking { on_fault: true, unlimited: true });
    let kept = VmFlags::DONT_FORK;
    assert_eq!(mm.madvise(piece, PAGE_SIZE, Advice::Set(kept)), Err(Errno::EAGAIN));
    assert_eq!(mm.mlock(piece, PAGE_SIZE, Some(lock)), Err(Errno::ENOMEM));
    assert_eq!(mm.mlock(piece, PAGE_SIZE, None), Ok(()), "it is not locked");
    mm.madvise(at, LEN, Advice::Set(kept)).unwrap();
    mm.madvise(piece, PAGE_SIZE, Advice::Set(kept)).unwrap();
    assert_eq!(mm.madvise(piece, PAGE_SIZE, Advice::Clear(kept)), Err(Errno::EAGAIN));
    mm.madvise(at, LEN, Advice::Clear(kept)).unwrap();
    assert_eq!(mm.mremap(piece, 2 * PAGE_SIZE, PAGE_SIZE, 0, 0), Err(Errno::ENOMEM));
    assert_eq!(mm.mremap(piece, LEN / 2, PAGE_SIZE, 0, 0), Err(Errno::ENOMEM));
    assert_eq!(mm.mremap(others, PAGE_SIZE, PAGE_SIZE, 3, piece), Err(Errno::ENOMEM));
    assert_eq!(mm.maps().len(), full);
    mm.mprotect(at, LEN, Prot::READ).unwrap();
    mm.munmap(at, LEN).unwrap();
}

#[test]
fn who_leaves_last_gives_way_too() {
    let (mm, counter) = space(true);
    filled(&mm, PAGE_SIZE);
    filled(&mm, APART);
    mm.enter();
    mm.enter();
    mm.leave();
    assert_eq!((mm.resident(), counter.gone_on.load(Ordering::Relaxed)), (2 * LEN, 0));
    mm.leave();
    assert!(mm.resident() < LEN / 2, "the rest is quickly dropped");
    assert!(counter.gone_on.load(Ordering::Relaxed) >= 4);
    assert_eq!(counter.asked.load(Ordering::Relaxed), 0, "what has to be done does not end for KILL");
}

#[test]
fn looking_and_forgetting_go_a_step_at_a_time() {
    for cheap in [true, false] {
        let (mm, counter) = space(cheap);
        let memory = Arc::new(SharedMemory::new(LEN, b"memory"));
        let object = Some((memory.clone() as Arc<dyn Mappable>, 0));
        let request = MapRequest { object, vm: VmFlags::SHARED, ..MapRequest::anonymous(LEN, RW) };
        let at = mm.mmap(request).unwrap();
        let own = filled(&mm, PAGE_SIZE);
        (0..PAGES).for_each(|page| mm.write_val(at + page * PAGE_SIZE, &page).unwrap());
        let steps = |work: &dyn Fn()| {
            let before = counter.gone_on.load(Ordering::Relaxed);
            work();
            let gone_on = counter.gone_on.load(Ordering::Relaxed) - before;
            assert!((4..200).contains(&gone_on), "others have gone first {gone_on} times");
        };
        steps(&|| {
            let areas = mm.resident_areas(&FileUsers::default());
            let found: Vec<_> = areas.iter().map(|(vma, sum)| (vma.start, sum.anon, sum.shmem)).collect();
            let mut expected = [(at, 0, LEN), (own, LEN, 0)];
            expected.sort_unstable();
            assert_eq!(found, expected);
        });
        steps(&|| assert_eq!(mm.resident_by_kind().total(), 2 * LEN));
        steps(&|| memory.punch_hole(0, LEN).unwrap());
        assert_eq!((mm.resident_by_kind().total(), mm.read_val(at + PAGE_SIZE)), (LEN, Ok(0u64)));
        check(&mm, own, PAGE_SIZE);
    }
}
