//! What is in memory, whose, and how much it has been at most.

use crate::mm::testing::FakePlatform;
use crate::mm::usage::{FileUsers, Resident};
use crate::mm::{Advice, Layout, MapFlags, MapRequest, Mm, PAGE_SIZE, VmFlags};
use crate::platform::{Access, Prot};
use std::sync::Arc;

const RW: Prot = Prot::READ.union(Prot::WRITE);

fn space(cheap: bool) -> Arc<Mm> {
    let mm = Mm::new(&FakePlatform::create(cheap)).unwrap();
    mm.set_layout(Layout { mmap_base: 0x7f00_0000_0000, brk_start: 0x60_0000, ..Layout::default() });
    mm
}

/// An area of so many pages, every one written.
fn written(mm: &Mm, pages: u64, vm: VmFlags) -> u64 {
    let at = mm.mmap(MapRequest { vm, ..MapRequest::anonymous(pages * PAGE_SIZE, RW) }).unwrap();
    (0..pages).for_each(|page| mm.write_val(at + page * PAGE_SIZE, &1u8).unwrap());
    at
}

fn pages(bytes: u64) -> u64 {
    assert_eq!(bytes % PAGE_SIZE, 0);
    bytes / PAGE_SIZE
}

fn at(mm: &Mm, addr: u64) -> Resident {
    let areas = mm.resident_areas(&FileUsers::default());
    areas.into_iter().find(|(vma, _)| (vma.start..vma.end).contains(&addr)).unwrap().1
}

#[test]
fn own_pages_are_anonymous_dirty_and_shared_after_fork() {
    for cheap in [true, false] {
        let mm = space(cheap);
        let own = written(&mm, 8, VmFlags::empty());
        let now = at(&mm, own);
        assert_eq!((pages(now.anon), pages(now.private_dirty), pages(now.share())), (8, 8, 8));
        assert_eq!((now.file, now.shmem, now.private_clean, now.shared_dirty), (0, 0, 0, 0));
        let child = mm.fork().unwrap();
        for mm in [&mm, &child] {
            let now = at(mm, own);
            assert_eq!((pages(now.anon), pages(now.shared_dirty), pages(now.share())), (8, 8, 4));
            assert_eq!((pages(mm.resident()), pages(mm.peak_resident())), (8, 8));
        }
        child.write_val(own, &2u8).unwrap();
        let now = at(&mm, own);
        assert_eq!((pages(now.shared_dirty), pages(now.private_dirty)), (7, 1));
        assert_eq!((now.share(), pages(mm.resident())), (9 * PAGE_SIZE / 2, 8));
        drop(child);
        assert_eq!(pages(at(&mm, own).private_dirty), 8);
    }
}

/// Which pages a fault in a sequence deals with, and never others.
#[test]
fn sequences_take_neighbours_along() {
    let resident =
        |mm: &Mm, at| (0..64).map(|page| mm.space().lookup(at + page * PAGE_SIZE)).collect::<Vec<_>>();
    let count = |mm: &Mm, at| resident(mm, at).iter().flatten().count();
    for cheap in [true, false] {
        let most = if cheap { 16 } else { 32 };
        for down in [false, true] {
            let mm = space(cheap);
            let own = mm.mmap(MapRequest::anonymous(64 * PAGE_SIZE, RW)).unwrap();
            let touched = |page: u64| own + if down { 63 - page } else { page } * PAGE_SIZE;
            let mut faults = Vec::new();
            for page in 0..64 {
                let before = count(&mm, own);
                mm.write_val(touched(page), &(page as u8 + 1)).unwrap();
                let more = count(&mm, own) - before;
                faults.extend((more != 0).then_some(more));
            }
            let doubled = faults.windows(2).all(|two| two[1] == (two[0] * 2).min(most) || two[1] < most);
            assert!(doubled && faults.len() < 10 && faults.contains(&most), "{faults:?}");
            // Each side copies for itself, in the same manner, and sees what it saw.
            let child = mm.fork().unwrap();
            let private = || pages(at(&mm, own).private_dirty);
            let mut copied = Vec::new();
            for page in 0..64 {
                let before = private();
                mm.write_val(touched(page) + 8, &0xffu8).unwrap();
                let more = private() - before;
                copied.extend((more != 0).then_some(more));
            }
            assert!(copied.starts_with(&[1, 2, 4]) && copied.contains(&(most as u64)), "{copied:?}");
            for page in 0..64 {
                for (mm, mark) in [(&mm, 0xff), (&child, 0)] {
                    let at = touched(page);
                    let got: (u8, u8) = (mm.read_val(at).unwrap(), mm.read_val(at + 8).unwrap());
                    assert_eq!(got, (page as u8 + 1, mark));
                }
            }
        }
        let mm = space(cheap);
        // Here and there is no sequence, and neither is what others have in between.
        let own = mm.mmap(MapRequest::anonymous(64 * PAGE_SIZE, RW)).unwrap();
        for page in [40, 20, 50, 30] {
            mm.write_val(own + page * PAGE_SIZE, &1u8).unwrap();
        }
        let first = if cheap { 4 } else { 16 };
        assert_eq!(count(&mm, own), first);
        mm.write_val(own + 21 * PAGE_SIZE, &2u8).unwrap();
        assert_eq!(mm.read_val::<u8>(own + 20 * PAGE_SIZE), Ok(1));
    }
}

#[test]
fn shared_memory_is_nobodys_own() {
    for cheap in [true, false] {
        let mm = space(cheap);
        let shared = written(&mm, 4, VmFlags::SHARED);
        let now = at(&mm, shared);
        assert_eq!((pages(now.shmem), now.anon, pages(now.private_dirty)), (4, 0, 4));
        let child = mm.fork().unwrap();
        assert_eq!(child.resident(), 0, "faulted in when it is touched");
        assert_eq!(child.read_val(shared), Ok(1u8));
        let now = at(&child, shared);
        assert!(now.shmem >= PAGE_SIZE && now.shared_dirty == now.shmem, "{now:?}");
        assert_eq!(now.share(), now.shmem / 2);
    }
}

#[test]
fn zeroes_that_were_only_read_are_nothing() {
    let mm = space(true);
    let at = mm.mmap(MapRequest::anonymous(8 * PAGE_SIZE, RW)).unwrap();
    for page in 0..8 {
        mm.handle_fault(at + page * PAGE_SIZE, Access::Read).unwrap();
    }
    assert_eq!((mm.resident(), mm.resident_by_kind()), (0, Resident::default()));
    for page in 0..8 {
        mm.handle_fault(at + page * PAGE_SIZE, Access::Write).unwrap();
    }
    assert_eq!(pages(mm.resident()), 8);
}

#[test]
fn peaks_stay_when_memory_goes() {
    for cheap in [true, false] {
        let mm = space(cheap);
        let own = written(&mm, 32, VmFlags::empty());
        mm.mprotect(own, 8 * PAGE_SIZE, Prot::empty()).unwrap();
        assert_eq!(pages(mm.resident()), 32, "hidden, not gone");
        assert_eq!(pages(at(&mm, own).anon), 8);
        mm.munmap(own, 16 * PAGE_SIZE).unwrap();
        assert_eq!((pages(mm.resident()), pages(mm.peak_resident())), (16, 32));
        assert_eq!((pages(mm.total()), pages(mm.peak_total())), (16, 32));
        mm.madvise(own + 16 * PAGE_SIZE, 16 * PAGE_SIZE, Advice::DontNeed { locked: false }).unwrap();
        assert_eq!((mm.resident(), pages(mm.peak_resident())), (0, 32));
        let child = mm.fork().unwrap();
        assert_eq!((child.peak_resident(), pages(child.peak_total())), (0, 16), "a peak is one's own");
        // Replaced in place.
        let flags = MapFlags::FIXED;
        let over = MapRequest { addr: own + 16 * PAGE_SIZE, flags, ..MapRequest::anonymous(PAGE_SIZE, RW) };
        mm.mmap(over).unwrap();
        assert_eq!((pages(mm.total()), pages(mm.peak_total())), (16, 32));
    }
}
