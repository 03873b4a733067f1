//! Copies by who holds a lock: nothing is waited for meanwhile.

use crate::abi::{Errno, Result};
use crate::mm::frames::Page;
use crate::mm::testing::FakePlatform;
use crate::mm::{IoDst, IoSrc, Iovec, Layout, MapRequest, Mappable, Mm};
use crate::platform::{Frame, Prot};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const RW: Prot = Prot::READ.union(Prot::WRITE);
const PAGES: u64 = 4;

/// A file whose pages have to be waited for, which nobody may do who holds the lock.
struct Far {
    pages: Vec<Page>,
    locked: AtomicBool,
    waited: AtomicUsize,
}

impl Mappable for Far {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        assert!(!self.locked.load(Ordering::Relaxed), "waited for with the lock held");
        self.waited.fetch_add(1, Ordering::Relaxed);
        self.pages.get(index as usize).map(Page::share).ok_or(Errno::EFAULT)
    }
    fn size(&self) -> u64 {
        PAGES * 4096
    }
}

impl Far {
    fn locked<T>(&self, body: impl FnOnce() -> T) -> T {
        self.locked.store(true, Ordering::Relaxed);
        let result = body();
        self.locked.store(false, Ordering::Relaxed);
        result
    }
}

/// Such a file, each page of it filled with its number, mapped; and where.
fn far() -> (Arc<Far>, Arc<Mm>, u64) {
    let page = |number| Page::new().inspect(|page: &Page| page.write(0, &[number; 4096])).expect("memory");
    let pages = (1..=PAGES as u8).map(page).collect();
    let far = Arc::new(Far { pages, locked: AtomicBool::new(false), waited: AtomicUsize::new(0) });
    let mm = Mm::new(&FakePlatform::create(true)).expect("a space");
    mm.set_layout(Layout { mmap_base: 0x7f00_0000_0000, ..Layout::default() });
    let object = Some((far.clone() as Arc<dyn Mappable>, 0));
    let at = mm.mmap(MapRequest { object, ..MapRequest::anonymous(PAGES * 4096, RW) }).expect("an area");
    (far, mm, at)
}

#[test]
fn a_copy_that_would_wait_lets_go_first() {
    let (far, mm, at) = far();
    let (mut tries, mut bytes) = (0, [0; 20]);
    let mut src = IoSrc::user(&mm, at + 4086, 20);
    let got = src.held(|src| {
        tries += 1;
        far.locked(|| match src.read_bytes(&mut bytes)? {
            20 => Ok(20),
            _ => Err(Errno::EFAULT),
        })
    });
    assert_eq!((got, tries, src.remaining()), (Ok(20), 3, 0));
    assert_eq!((&bytes[..10], &bytes[10..]), (&[1; 10][..], &[2; 10][..]));
    assert_eq!(far.waited.load(Ordering::Relaxed), 2);
}

#[test]
fn a_stream_goes_on_behind_what_was_moved() {
    let (far, mm, at) = far();
    let iovecs = [
        Iovec { base: at + 100, len: 5000 },
        Iovec { base: at, len: 50 },
        Iovec { base: at + 12288, len: 9 },
    ];
    let (mut src, mut all) = (IoSrc::user_iovecs(&mm, &iovecs), Vec::new());
    let got = src.streamed(|src| {
        let mut part = [0; 3000];
        let want = src.remaining().min(part.len());
        let count = far.locked(|| if want == 0 { Ok(0) } else { src.read_bytes(&mut part[..want]) })?;
        all.extend_from_slice(&part[..count]);
        Ok(count)
    });
    // A part that is not cut short by a page is all that is asked for.
    assert_eq!(got, Ok(all.len()));
    assert_eq!(src.remaining(), 5059 - all.len());
    assert!(all.len() >= 3000 && all[..3000].iter().all(|byte| *byte == 1));
    // To be written, each page is one of the program's own.
    let mut dst = IoDst::user(&mm, at, 8192);
    let put = dst.streamed(|dst| far.locked(|| dst.write_bytes(&[9; 8192][..dst.remaining()])));
    assert_eq!((put, mm.read_val(at + 8191), mm.read_val(at + 8192)), (Ok(8192), Ok(9u8), Ok(3u8)));
}

#[test]
fn locks_within_locks_are_all_let_go_of() {
    let (far, mm, at) = far();
    let (mut outer, mut inner) = (0, 0);
    let got = IoSrc::user(&mm, at, 10).held(|src| {
        outer += 1;
        far.locked(|| {
            src.held(|src| {
                inner += 1;
                src.read_bytes(&mut [0; 10])
            })
        })
    });
    assert_eq!((got, outer, inner), (Ok(10), 2, 2));
}

#[test]
fn what_cannot_be_had_is_an_error_at_once() {
    let (far, mm, at) = far();
    let mut tries = 0;
    let mut try_at = |at| {
        IoDst::user(&mm, at, 8).held(|dst| {
            tries += 1;
            far.locked(|| dst.write_bytes(&[0; 8]))
        })
    };
    assert_eq!(try_at(0x1000), Err(Errno::EFAULT));
    assert_eq!(IoSrc::kernel(b"four").held(|src| src.read_bytes(&mut [0; 4])), Ok(4));
    assert_eq!(tries, 1);
    mm.munmap(at, PAGES * 4096).expect("its own");
    assert_eq!(IoSrc::user(&mm, at, 1).streamed(|src| src.read_bytes(&mut [0])), Err(Errno::EFAULT));
}

#[test]
fn words_are_waited_for_without_the_lock() {
    let (far, mm, at) = far();
    let loaded = mm.with_words(|words| far.locked(|| words.load(at)));
    assert_eq!(loaded, Ok(0x0101_0101));
    let old = mm.with_words(|words| far.locked(|| words.update(at + 4096, |word| word + 1)));
    assert_eq!((old, mm.load_u32(at + 4096)), (Ok(0x0202_0202), Ok(0x0202_0203)));
    let other = mm.with_words(|words| far.locked(|| words.compare_exchange(at + 8192, 1, 2)));
    assert_eq!(other, Ok(0x0303_0303));
    assert_eq!(mm.at_once(|words| words.load(at + 12288)), Err(Errno::EFAULT));
    assert_eq!(mm.with_words(|words| words.load(0x1000)), Err(Errno::EFAULT));
    assert_eq!(mm.with_words(|words| words.load(at + 1)), Err(Errno::EINVAL));
}
