//! Entries and ranges against numbers taken from the manuals.
#![expect(unsafe_code, reason = "implements the unsafe allocator trait")]

mod common;

use common::{Manual, Pool, leaves};
use pagetables::{
    Aarch64, Attrs, Error, Format, KernelTables, PageSize, RangeError, UserRange, VirtAddr, VirtRange,
    Windows, X86_64,
};

const GIB: u64 = 1 << 30;
const WINDOWS: Windows = Windows::new([(0x7000_0000, 0x8000_0000), (320 * GIB, 480 * GIB)], 0x7fff_ffff_f000);

/// SDM 3A, table 4-20 (4 KiB pages) and 4-18 (2 MiB pages): P 0, R/W 1, U/S 2, PCD 4, A 5, D 6, PS 7, G 8, XD 63.
#[test]
fn x86_64_leaves() {
    let xd = 1 << 63;
    let cases = [
        (Attrs::READ | Attrs::USER, 0, 0x65 | xd),
        (Attrs::READ | Attrs::WRITE | Attrs::USER, 0, 0x67 | xd),
        (Attrs::READ | Attrs::EXECUTE | Attrs::USER, 0, 0x65),
        (Attrs::WRITE, 0, 0x63 | xd),
        (Attrs::READ | Attrs::WRITE | Attrs::GLOBAL, 1, 0x1e3 | xd),
        (Attrs::READ | Attrs::EXECUTE | Attrs::GLOBAL, 0, 0x161),
        (Attrs::READ | Attrs::WRITE | Attrs::DEVICE, 2, 0xfb | xd),
    ];
    for (attrs, level, expected) in cases {
        assert_eq!(X86_64::leaf(attrs, level), expected, "{attrs:?}");
        assert_eq!(X86_64::attrs(expected), attrs | Attrs::READ);
    }
}

/// ARM DDI 0487, D8.3.1 and D8.4: valid 0, page 1, AttrIndx 4:2, AP[1] 6, AP[2] 7, SH 9:8, AF 10, nG 11, PXN 53, UXN 54.
#[test]
fn aarch64_leaves() {
    let (pxn, uxn) = (1 << 53, 1 << 54);
    let cases = [
        (Attrs::READ | Attrs::USER, 0, 0xfc3 | pxn | uxn),
        (Attrs::READ | Attrs::WRITE | Attrs::USER, 0, 0xf43 | pxn | uxn),
        (Attrs::READ | Attrs::EXECUTE | Attrs::USER, 0, 0xfc3 | pxn),
        (Attrs::WRITE, 0, 0xf03 | pxn | uxn),
        (Attrs::READ | Attrs::WRITE | Attrs::GLOBAL, 1, 0x701 | pxn | uxn),
        (Attrs::READ | Attrs::EXECUTE | Attrs::GLOBAL, 0, 0x783 | uxn),
        (Attrs::READ | Attrs::WRITE | Attrs::DEVICE, 2, 0xf05 | pxn | uxn),
    ];
    for (attrs, level, expected) in cases {
        assert_eq!(Aarch64::leaf(attrs, level), expected, "{attrs:?}");
        assert_eq!(Aarch64::attrs(expected), attrs | Attrs::READ);
    }
}

#[test]
fn canonical_hole() {
    let x86 = VirtAddr::new::<X86_64>;
    assert!(x86(0x7fff_ffff_ffff).is_some() && x86(0xffff_8000_0000_0000).is_some());
    assert!(x86(0x8000_0000_0000).is_none() && x86(0xffff_7fff_ffff_ffff).is_none());
    let arm = VirtAddr::new::<Aarch64>;
    assert!(arm(0xffff_ffff_ffff).is_some() && arm(0xffff_0000_0000_0000).is_some());
    assert!(arm(0x1_0000_0000_0000).is_none() && arm(0xfffe_ffff_ffff_ffff).is_none());

    let last = x86(0x7fff_ffff_ffff).expect("canonical");
    assert_eq!(last.checked_add::<X86_64>(1), None);
    assert_eq!(last.checked_add::<X86_64>(0xffff_0000_0000_0001), None, "jumps over the hole");
    assert_eq!(x86(!0).expect("canonical").checked_add::<X86_64>(1), None);

    assert!(VirtRange::new::<X86_64>(0x7fff_ffff_f000, 0x1000).is_ok());
    assert_eq!(VirtRange::new::<X86_64>(0x7fff_ffff_f000, 0x2000), Err(RangeError::OutOfBounds));
    assert!(VirtRange::new::<X86_64>(!0xfff, 0x1000).is_ok(), "the last page");
}

#[test]
fn user_ranges() {
    let new = |start, len| UserRange::new(&WINDOWS, start, len);
    assert!(new(0, 0x7000_0000).is_ok());
    assert_eq!(new(0, 0x7000_1000), Err(RangeError::Window));
    assert_eq!(new(0x7fff_f000, 0x1000), Err(RangeError::Window));
    assert!(new(0x8000_0000, 320 * GIB - 0x8000_0000).is_ok());
    assert_eq!(new(0x8000_0000, 320 * GIB - 0x7fff_f000), Err(RangeError::Window));
    assert_eq!(new(479 * GIB, GIB), Err(RangeError::Window));
    assert!(new(480 * GIB, GIB).is_ok());
    assert_eq!(new(0x1000, 0x7fff_ffff_f000), Err(RangeError::OutOfBounds));
    assert_eq!(new(!0xfff, 0x1000), Err(RangeError::OutOfBounds));
    assert_eq!(new(0x1000, !0xfff), Err(RangeError::OutOfBounds));
    assert_eq!(new(0x1000, 0), Err(RangeError::Unaligned));
    assert_eq!(new(0x1001, 0x1000), Err(RangeError::Unaligned));

    let all: Vec<_> = WINDOWS.pieces(0x1000, u64::MAX).map(|r| (r.start(), r.end())).collect();
    let expected = [(0x1000, 0x7000_0000), (0x8000_0000, 320 * GIB), (480 * GIB, 0x7fff_ffff_f000)];
    assert_eq!(all, expected);
    assert_eq!(WINDOWS.pieces(0x7000_0000, GIB / 4).count(), 0);
    assert_eq!(WINDOWS.pieces(0x1000, 0).count(), 0);
}

fn large_pages<F: Manual>() {
    let pool = Pool::default();
    {
        let mut tables = KernelTables::<F, _>::new(&pool).expect("memory");
        let range = |start, len| VirtRange::new::<F>(start, len).expect("aligned");
        let rw = Attrs::READ | Attrs::WRITE;
        // 2 MiB short of 1 GiB, one 1 GiB page, then 4 KiB.
        let start = 2 * GIB - 0x20_0000;
        let run = range(start, 0x20_0000 + GIB + 0x1000);
        tables.map(run, start, rw, PageSize::Size1G).expect("memory").ignore();
        let sizes: Vec<_> = leaves::<F>(&pool, tables.root()).iter().map(|l| l.3).collect();
        assert_eq!(sizes, [PageSize::Size2M, PageSize::Size1G, PageSize::Size4K]);
        // A hole of one page in the middle: 511 + 511 smaller leaves, everything else as before.
        tables.unmap(range(2 * GIB + GIB / 2, 0x1000)).expect("memory").ignore();
        assert_eq!(leaves::<F>(&pool, tables.root()).len(), 1 + 511 + 511 + 1);
        assert_eq!(tables.lookup(3 * GIB - 1).expect("mapped").size, PageSize::Size2M);
        assert!(tables.lookup(2 * GIB + GIB / 2).is_none());
        assert_eq!(pool.invalidated.borrow().is_empty(), !F::BREAK_BEFORE_MAKE);
        // Large again, over the pieces.
        tables.map(range(2 * GIB, GIB), 5 * GIB, rw, PageSize::Size1G).expect("memory").ignore();
        assert_eq!(leaves::<F>(&pool, tables.root()).len(), 3);
        // The other half.
        let top = range(F::UPPER_START, 0x1000);
        tables.map(top, 0x9000, Attrs::READ | Attrs::EXECUTE, PageSize::Size4K).expect("memory").ignore();
        let last = range(!0xfff, 0x1000);
        tables.map(last, 0xa000, rw, PageSize::Size4K).expect("memory").ignore();
        assert_eq!(tables.lookup(!0).expect("mapped").phys, 0xa000);
        tables.unmap(last).expect("memory").ignore();
        // A frozen range must end between leaves, and nothing may lie outside.
        assert_eq!(tables.freeze(&[range(2 * GIB, GIB / 2)]).err(), Some(Error::Frozen));
    }
    assert_eq!(pool.live(), 0);
}

#[test]
fn large_pages_split_and_merge() {
    large_pages::<X86_64>();
    large_pages::<Aarch64>();
}
