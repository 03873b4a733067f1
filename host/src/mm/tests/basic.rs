//! One behaviour per test.

use crate::abi::Errno;
use crate::mm::testing::{FakePlatform, WINDOWS, alone};
use crate::mm::{
    Advice, FaultSignal, IoDst, IoSrc, Iovec, Layout, Locking, MapFlags, MapRequest, Mm, PAGE_SIZE, VmFlags,
    frames,
};
use crate::platform::{Access, Platform, Prot};
use ring0::layout;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const BASE: u64 = 0x7f00_0000_0000;
const LOCKING: Locking = Locking { on_fault: false, unlimited: false };

fn space() -> Arc<Mm> {
    let mm = Mm::new(&FakePlatform::create(true)).unwrap();
    let layout = Layout { mmap_base: BASE, brk_start: 0x60_0000, ..Layout::default() };
    mm.set_layout(layout);
    mm
}

fn fixed(addr: u64, len: u64, prot: Prot) -> MapRequest {
    MapRequest { addr, flags: MapFlags::FIXED, ..MapRequest::anonymous(len, prot) }
}

#[test]
fn maps_top_down_and_reuses_holes() {
    let mm = space();
    let a = mm.mmap(MapRequest::anonymous(0x3000, RW)).unwrap();
    assert_eq!(a, BASE - 0x3000);
    let b = mm.mmap(MapRequest::anonymous(0x1000, RW)).unwrap();
    assert_eq!(b, a - 0x1000);
    mm.munmap(a + 0x1000, 0x1000).unwrap();
    assert_eq!(mm.mmap(MapRequest::anonymous(0x2000, RW)), Ok(b - 0x2000));
    assert_eq!(mm.mmap(MapRequest::anonymous(0x1000, RW)), Ok(a + 0x1000));
    assert_eq!(mm.maps().len(), 1, "equal neighbours are one area");
}

#[test]
fn windows_cannot_be_made_accessible() {
    let mm = space();
    for (start, end) in WINDOWS {
        // Spanning, inside, at either edge.
        for (addr, len) in [
            (start - PAGE_SIZE, end - start + 2 * PAGE_SIZE),
            (start, PAGE_SIZE),
            (end - PAGE_SIZE, 2 * PAGE_SIZE),
        ] {
            assert_eq!(mm.mmap(fixed(addr, len, RW)), Err(Errno::ENOMEM));
            assert_eq!(mm.mmap(fixed(addr, len, Prot::empty())), Ok(addr));
            assert_eq!(mm.mprotect(addr, len, Prot::READ), Err(Errno::ENOMEM));
            assert_eq!(mm.read_val::<u8>(start), Err(Errno::EFAULT));
            assert_eq!(mm.write_val(end - 1, &0u8), Err(Errno::EFAULT));
            let child = mm.fork().unwrap();
            assert_eq!(child.read_val::<u8>(start), Err(Errno::EFAULT));
            assert_eq!(mm.madvise(addr, len, Advice::DontNeed { locked: false }), Ok(()));
            assert_eq!(mm.munmap(addr, len), Ok(()));
            // A hint there is as one where something is already: it may become accessible later. (No larger than memory is.)
            let len = len.min(3 * PAGE_SIZE);
            for prot in [RW, Prot::empty()] {
                let at = mm.mmap(MapRequest { addr, ..MapRequest::anonymous(len, prot) }).unwrap();
                assert!(at + len <= start || end <= at, "{at:#x}");
                mm.munmap(at, len).unwrap();
            }
        }
        // What grows does not grow into them either.
        mm.mmap(fixed(end, PAGE_SIZE, RW)).unwrap();
        assert_eq!(mm.mremap(end, PAGE_SIZE, PAGE_SIZE, 3, start), Err(Errno::ENOMEM));
        mm.munmap(end, PAGE_SIZE).unwrap();
        let stack = MapRequest { vm: VmFlags::GROWS_DOWN, ..fixed(end, PAGE_SIZE, RW) };
        mm.mmap(stack).unwrap();
        assert_eq!(mm.handle_fault(end - 8, Access::Write), Err(FaultSignal::UNMAPPED));
        mm.munmap(end, PAGE_SIZE).unwrap();
        mm.mmap(fixed(start - PAGE_SIZE, PAGE_SIZE, RW)).unwrap();
        assert_eq!(mm.mremap(start - PAGE_SIZE, PAGE_SIZE, 2 * PAGE_SIZE, 0, 0), Err(Errno::ENOMEM));
        mm.munmap(start - PAGE_SIZE, PAGE_SIZE).unwrap();
    }
    // Without a wish they are avoided, and the heap stops before them.
    let layout =
        Layout { mmap_base: layout::ARENA_END + 0x1000, brk_start: 0x6fff_f000, ..Layout::default() };
    mm.set_layout(layout);
    let at = mm.mmap(MapRequest::anonymous(0x2000, RW)).unwrap();
    assert!(at + 0x2000 <= layout::ARENA_BASE);
    assert_eq!(mm.brk(0x7000_0000), 0x7000_0000);
    assert_eq!(mm.brk(0x7000_1000), 0x7000_0000);
}

#[test]
fn addresses_out_of_bounds_are_faults() {
    let mm = space();
    for addr in [0, 8, 0x7fff_ffff_f000, 0x8000_0000_0000, u64::MAX - 3, !0 << 47, layout::FRAMES_BASE] {
        assert!(mm.read_val::<u64>(addr).is_err());
        assert!(mm.write_val(addr, &1u32).is_err());
        assert!(mm.read_cstr(addr, 100).is_err());
        assert!(mm.load_u32(addr & !3).is_err());
        assert_eq!(mm.handle_fault(addr, Access::Execute), Err(FaultSignal::UNMAPPED));
    }
    assert_eq!(mm.read_some(u64::MAX, &mut [0; 2]), Err(Errno::EFAULT));
    assert_eq!(mm.munmap(0x7fff_ffff_f000, PAGE_SIZE), Err(Errno::EINVAL));
    assert_eq!(mm.mmap(fixed(0x7fff_ffff_f000, PAGE_SIZE, RW)), Err(Errno::ENOMEM));
    assert_eq!(mm.mmap(MapRequest::anonymous(0, RW)), Err(Errno::EINVAL));
    assert_eq!(mm.mmap(MapRequest::anonymous(u64::MAX, RW)), Err(Errno::ENOMEM));
    assert_eq!(mm.mmap(fixed(0x1000, PAGE_SIZE, RW)), Err(Errno::EPERM));
    assert_eq!(mm.mmap(fixed(0x10_0001, PAGE_SIZE, RW)), Err(Errno::EINVAL));
}

#[test]
fn noreplace_says_what_is_there() {
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(0x2000, RW)).unwrap();
    let request = || MapRequest { flags: MapFlags::FIXED_NOREPLACE, ..fixed(at + 0x1000, 0x2000, RW) };
    assert_eq!(mm.mmap(request()), Err(Errno::EEXIST));
    mm.munmap(at + 0x1000, 0x1000).unwrap();
    assert_eq!(mm.mmap(request()), Ok(at + 0x1000));
}

#[test]
fn stacks_grow_within_their_limit_and_keep_their_distance() {
    let mm = space();
    mm.limits().stack.store(64 * PAGE_SIZE, Ordering::Relaxed);
    let top = BASE;
    mm.mmap(MapRequest { vm: VmFlags::GROWS_DOWN, ..fixed(top - PAGE_SIZE, PAGE_SIZE, RW) }).unwrap();
    assert_eq!(mm.write_val(top - 40 * PAGE_SIZE, &7u64), Ok(()));
    assert_eq!(mm.write_val(top - 65 * PAGE_SIZE, &7u64), Err(Errno::EFAULT));
    assert_eq!(mm.write_val(top - 64 * PAGE_SIZE, &7u64), Ok(()));
    assert_eq!(mm.total(), 64 * PAGE_SIZE);
    mm.limits().stack.store(u64::MAX, Ordering::Relaxed);
    mm.mmap(fixed(top - 400 * PAGE_SIZE, PAGE_SIZE, RW)).unwrap();
    assert_eq!(mm.write_val(top - 143 * PAGE_SIZE, &7u64), Ok(()));
    assert_eq!(mm.write_val(top - 144 * PAGE_SIZE, &7u64), Err(Errno::EFAULT), "the guard gap is 256 pages");
}

#[test]
fn limits_are_errors() {
    let mm = space();
    mm.limits().address_space.store(0x10000, Ordering::Relaxed);
    assert!(mm.mmap(MapRequest::anonymous(0x10000, RW)).is_ok());
    assert_eq!(mm.mmap(MapRequest::anonymous(0x1000, RW)), Err(Errno::ENOMEM));
    assert_eq!(mm.brk(0x60_1000), 0x60_0000);
    let mm = space();
    mm.limits().data.store(0x4000, Ordering::Relaxed);
    assert_eq!(mm.mmap(MapRequest::anonymous(0x5000, RW)), Err(Errno::ENOMEM));
    let at = mm.mmap(MapRequest::anonymous(0x5000, Prot::READ)).unwrap();
    assert_eq!(mm.mprotect(at, 0x5000, RW), Err(Errno::ENOMEM));
    let mm = space();
    mm.limits().memlock.store(0x2000, Ordering::Relaxed);
    assert_eq!(mm.may_map_locked(0x3000, true), Err(Errno::EAGAIN));
    assert_eq!((mm.may_map_locked(0x2000, true), mm.may_map_locked(0x3000, false)), (Ok(()), Ok(())));
    let at = mm.mmap(MapRequest::anonymous(0x3000, RW)).unwrap();
    assert_eq!(mm.mlock(at, 0x3000, Some(LOCKING)), Err(Errno::ENOMEM));
    assert_eq!(mm.mlock(at, 0x2000, Some(LOCKING)), Ok(()));
    assert_eq!((mm.locked(), mm.resident()), (0x2000, 0x2000));
    assert_eq!(mm.madvise(at, 0x1000, Advice::DontNeed { locked: false }), Err(Errno::EINVAL));
    mm.munmap(at, 0x3000).unwrap();
    assert_eq!(mm.locked(), 0);
}

#[test]
fn memory_full_is_an_error_for_the_program() {
    if !alone("mm::tests::basic::memory_full_is_an_error_for_the_program") {
        return;
    }
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(0x10_0000, RW)).unwrap();
    let limit = frames::limit_bytes();
    frames::set_limit_bytes(frames::used_bytes() + 4 * PAGE_SIZE);
    let mut page = 0;
    while mm.write_val(at + page * PAGE_SIZE, &1u8).is_ok() {
        page += 1;
    }
    let full = mm.handle_fault(at + page * PAGE_SIZE, Access::Write);
    let refused = mm.mmap(MapRequest::anonymous(1 << 40, RW));
    let freed = mm.madvise(at, PAGE_SIZE, Advice::DontNeed { locked: false });
    let again = mm.write_val(at + page * PAGE_SIZE, &1u8);
    frames::set_limit_bytes(limit);
    assert_eq!(page, 4);
    assert_eq!(full, Err(FaultSignal::OUT_OF_MEMORY));
    assert_eq!(refused, Err(Errno::ENOMEM), "overcommit has a bound");
    assert_eq!((freed, again), (Ok(()), Ok(())), "a freed frame can be had again");
}

#[test]
fn running_out_of_tables_loses_nothing() {
    if !alone("mm::tests::basic::running_out_of_tables_loses_nothing") {
        return;
    }
    frames::put_ref(frames::zero().unwrap());
    let before = frames::used_bytes();
    for budget in 0..60 {
        let platform: Arc<dyn Platform> = Arc::new(FakePlatform::with_budget(true, budget));
        let mm = Mm::new(&platform).unwrap();
        mm.set_layout(Layout { mmap_base: BASE, ..Layout::default() });
        let at = mm.mmap(MapRequest::anonymous(40 * PAGE_SIZE, RW)).unwrap();
        let _ = mm.write(at, &[7; 40 * 4096]);
        let child = mm.fork();
        let _ = mm.mremap(at, 40 * PAGE_SIZE, 50 * PAGE_SIZE, 1, 0);
        let _ = mm.mprotect(at, 3 * PAGE_SIZE, Prot::empty());
        let _ = mm.mprotect(at, 3 * PAGE_SIZE, RW);
        let _ = mm.write(at, &[8; 3 * 4096]);
        drop((child, mm));
        assert_eq!(frames::used_bytes(), before, "with {budget} maps");
    }
}

#[test]
fn break_moves_as_on_linux() {
    let mm = space();
    assert_eq!(mm.brk(0), 0x60_0000);
    assert_eq!(mm.brk(0x60_1234), 0x60_1234);
    mm.write_val(0x60_1230, &5u32).unwrap();
    assert_eq!(mm.write_val(0x60_2000, &5u32), Err(Errno::EFAULT));
    assert_eq!(mm.brk(0x60_0800), 0x60_0800);
    assert_eq!(mm.brk(0x60_1234), 0x60_1234);
    assert_eq!(mm.read_val(0x60_1230), Ok(0u32), "given back and taken again: zero");
    mm.mmap(fixed(0x60_4000, PAGE_SIZE, RW)).unwrap();
    assert_eq!(mm.brk(0x60_3000), 0x60_3000);
    assert_eq!(mm.brk(0x60_4000), 0x60_3000, "one page stays free below another area");
    assert_eq!(mm.brk(0x5f_0000), 0x60_3000);
}

#[test]
fn remap_errors_are_linux_errors() {
    let mm = space();
    mm.mmap(fixed(BASE, PAGE_SIZE, Prot::empty())).unwrap();
    let at = mm.mmap(MapRequest::anonymous(0x4000, RW)).unwrap();
    let errors = [
        ((at + 1, 0x1000, 0x1000, 0, 0), Errno::EINVAL),
        ((at, 0x1000, 0, 0, 0), Errno::EINVAL),
        ((at, 0x1000, 0x1000, 8, 0), Errno::EINVAL),
        ((at, 0x1000, 0x1000, 2, 0x10_0000), Errno::EINVAL),
        ((at, 0x4000, 0x4000, 3, at + 0x1000), Errno::EINVAL),
        ((at, 0, 0x1000, 1, 0), Errno::EINVAL),
        ((at - 0x10_0000, 0x1000, 0x2000, 1, 0), Errno::EFAULT),
        ((at, 0x5000, 0x6000, 1, 0), Errno::EFAULT),
        ((at, 0x4000, 0x8000, 0, 0), Errno::ENOMEM),
        ((at, 0x1000, 0x2000, 5, 0), Errno::EINVAL),
        ((at, 0x4000, 0xffff_ffff_ffff_f000, 0, 0), Errno::EINVAL),
        ((at, 0x4000, 0xffff_ffff_ffff_f000, 1, 0), Errno::EINVAL),
    ];
    for ((addr, old, new, flags, target), errno) in errors {
        assert_eq!(
            mm.mremap(addr, old, new, flags, target),
            Err(errno),
            "{addr:#x} {old:#x} {new:#x} {flags}"
        );
    }
    mm.write_val(at + 0x3ff8, &9u64).unwrap();
    assert_eq!(mm.mremap(at, 0x4000, 0x2000, 0, 0), Ok(at));
    assert_eq!(mm.mremap(at, 0x2000, 0x3000, 0, 0), Ok(at), "grows where there is room");
    assert_eq!(mm.read_val(at + 0x2ff8), Ok(0u64));
    mm.write_val(at, &5u64).unwrap();
    let moved = mm.mremap(at, 0x3000, 0x10000, 1, 0).unwrap();
    assert_ne!(moved, at);
    assert_eq!((mm.read_val(moved), mm.read_val::<u64>(at)), (Ok(5u64), Err(Errno::EFAULT)));
    let twin = mm.mremap(moved, 0x10000, 0x10000, 5, 0).unwrap();
    assert_eq!((mm.read_val(twin), mm.read_val(moved)), (Ok(5u64), Ok(0u64)), "DONTUNMAP leaves zeroes");
}

#[test]
fn partial_copies_count_what_was_moved() {
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(0x2000, RW)).unwrap();
    mm.munmap(at + 0x1000, 0x1000).unwrap();
    let mut buffer = [1; 100];
    assert_eq!(mm.read_some(at + 0x1000 - 60, &mut buffer), Ok(60));
    assert_eq!(mm.read(at + 0x1000 - 60, &mut buffer), Err(Errno::EFAULT));
    let iovecs = [
        Iovec { base: at + 10, len: 3 },
        Iovec { base: 0, len: 0 },
        Iovec { base: at + 0x1000 - 2, len: 10 },
        Iovec { base: at, len: 5 },
    ];
    let mut dst = IoDst::user_iovecs(&mm, &iovecs);
    assert_eq!(dst.remaining(), 18);
    assert_eq!(dst.write_bytes(b"abcdefgh"), Ok(5));
    assert_eq!(dst.write_bytes(b"x"), Err(Errno::EFAULT));
    let mut src = IoSrc::user(&mm, at + 10, 3);
    assert_eq!(src.read_bytes(&mut buffer), Ok(3));
    assert_eq!(&buffer[..3], b"abc");
    assert_eq!(src.remaining(), 0);
    assert_eq!(mm.read_cstr(at + 0x1000 - 2, 100), Err(Errno::EFAULT));
    mm.write(at + 0x1000 - 2, b"z\0").unwrap();
    assert_eq!(mm.read_cstr(at + 0x1000 - 2, 100), Ok(b"z".to_vec()));
    assert_eq!(mm.read_cstr(at + 10, 3), Err(Errno::ENAMETOOLONG));
}

#[test]
fn pins_hold_frames_across_unmapping() {
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(0x3000, RW)).unwrap();
    mm.write(at, b"before").unwrap();
    let mut src = IoSrc::user(&mm, at, 0x2800);
    let pinned = src.pin(0x2000).unwrap();
    assert_eq!(pinned.len(), 0x2000);
    mm.munmap(at, 0x3000).unwrap();
    let other = mm.mmap(MapRequest::anonymous(0x3000, RW)).unwrap();
    mm.write(other, &[0xee; 0x3000]).unwrap();
    let page = frames::Page::from_frame(crate::platform::Frame(pinned.pieces()[0].0));
    let mut bytes = [0; 6];
    page.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"before");
    page.into_frame();
    drop(pinned);
    let mut none = IoDst::user(&mm, 0x1000, 10);
    assert!(none.pin(10).is_err());
}

#[test]
fn atomics_see_and_change_words() {
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(0x1000, RW)).unwrap();
    assert_eq!(mm.load_u32(at), Ok(0));
    assert_eq!(mm.with_words(|words| words.load(at)), Ok(0));
    assert_eq!(mm.cmpxchg_u32(at, 1, 2), Ok(0));
    assert_eq!(mm.cmpxchg_u32(at, 0, 2), Ok(0));
    assert_eq!(mm.with_words(|words| words.update(at, |value| value + 5)), Ok(2));
    assert_eq!(mm.load_u32(at), Ok(7));
    assert_eq!(mm.load_u32(at + 1), Err(Errno::EINVAL));
    mm.mprotect(at, 0x1000, Prot::READ).unwrap();
    assert_eq!(mm.cmpxchg_u32(at, 0, 2), Err(Errno::EFAULT));
}

#[test]
fn shared_words_have_one_futex_key() {
    let mm = space();
    let shared = MapRequest { vm: VmFlags::SHARED, ..MapRequest::anonymous(0x2000, RW) };
    let at = mm.mmap(shared).unwrap();
    let own = mm.mmap(MapRequest::anonymous(0x1000, RW)).unwrap();
    let child = mm.fork().unwrap();
    assert_eq!(mm.futex_key(at + 0x1004, true), child.futex_key(at + 0x1004, true));
    assert_ne!(mm.futex_key(at + 0x1004, true), mm.futex_key(at + 0x1000, true));
    assert_ne!(mm.futex_key(at, false), child.futex_key(at, false));
    assert_ne!(mm.futex_key(own, true), child.futex_key(own, true));
    assert_eq!(mm.futex_key(own + 2, true), Err(Errno::EINVAL));
    assert_eq!(mm.futex_key(0x5000, true), Err(Errno::EFAULT));
}

#[test]
fn sequential_faults_map_ahead_and_stop_at_what_is_there() {
    let mm = space();
    let at = mm.mmap(MapRequest::anonymous(64 * PAGE_SIZE, RW)).unwrap();
    mm.write_val(at + 20 * PAGE_SIZE, &9u8).unwrap();
    let mut faults = 0;
    for page in 0..64 {
        if mm.space().lookup(at + page * PAGE_SIZE).is_none() {
            faults += 1;
            mm.handle_fault(at + page * PAGE_SIZE, Access::Write).unwrap();
        }
    }
    assert!(faults < 16, "{faults} faults");
    assert_eq!(mm.read_val(at + 20 * PAGE_SIZE), Ok(9u8));
    assert_eq!(mm.resident(), 64 * PAGE_SIZE);
}

#[test]
fn a_hole_in_shared_memory_is_one_for_all() {
    let mm = space();
    let shared = MapRequest { vm: VmFlags::SHARED, ..MapRequest::anonymous(0x4000, RW) };
    let at = mm.mmap(shared).unwrap();
    mm.write(at, &[5; 0x4000]).unwrap();
    let child = mm.fork().unwrap();
    assert_eq!(child.read_val(at + 0x1000), Ok(5u8));
    child.mprotect(at + 0x2000, 0x1000, Prot::empty()).unwrap();
    mm.madvise(at + 0x1000, 0x2000, Advice::Remove).unwrap();
    child.mprotect(at + 0x2000, 0x1000, Prot::READ).unwrap();
    for mm in [&mm, &child] {
        let seen: Vec<_> = (0..4).map(|page| mm.read_val::<u8>(at + page * PAGE_SIZE).unwrap()).collect();
        assert_eq!(seen, [5, 0, 0, 5]);
    }
    child.write_val(at + 0x1000, &7u8).unwrap();
    assert_eq!(mm.read_val(at + 0x1000), Ok(7u8));
}
