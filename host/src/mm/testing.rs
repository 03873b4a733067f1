//! A platform without CPUs, for tests: address spaces are maps, and rules of the contract are asserted.

use super::raw;
use crate::abi::{Errno, Result};
use crate::platform::{AddressSpace, Capabilities, Context, Frame, Platform, Prot};
use crate::sync::{Lock, Rank};
use ring0::layout;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As on kvm.
pub(crate) const WINDOWS: [(u64, u64); 2] =
    [(layout::IMAGE_BASE, layout::IMAGE_END), (layout::ARENA_BASE, layout::ARENA_END)];

/// A platform that only keeps books.
pub(crate) struct FakePlatform {
    caps: Capabilities,
    /// `map` calls that still succeed.
    maps_left: Arc<AtomicUsize>,
}

impl FakePlatform {
    pub(crate) fn create(cheap: bool) -> Arc<dyn Platform> {
        Arc::new(Self::with_budget(cheap, usize::MAX / 2))
    }

    /// Programs' addresses end at `task_size`, and no window of the arena's lies there: systrap on a host with short
    /// addresses.
    pub(crate) fn with_task_size(task_size: u64) -> Self {
        let mut platform = Self::with_budget(true, usize::MAX / 2);
        platform.caps.task_size = task_size;
        platform.caps.reserved = [WINDOWS[0], (WINDOWS[0].1, WINDOWS[0].1)];
        platform
    }

    pub(crate) fn with_budget(cheap: bool, maps: usize) -> Self {
        let caps = Capabilities {
            page_size: 4096,
            task_size: 0x7fff_ffff_f000,
            reserved: WINDOWS,
            maps_host_files: cheap,
            cheap_map: cheap,
        };
        FakePlatform { caps, maps_left: Arc::new(AtomicUsize::new(maps)) }
    }
}

impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn capabilities(&self) -> Capabilities {
        self.caps
    }
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>> {
        let maps_left = self.maps_left.clone();
        Ok(Arc::new(FakeSpace {
            tables: Lock::new(Rank::PlatformTables, Tables::default()),
            caps: self.caps,
            maps_left,
        }))
    }
    fn new_context(&self) -> Result<Box<dyn Context>> {
        Err(Errno::ENOSYS)
    }
    fn run_worker(&self, _: usize, _: &mut dyn FnMut()) -> Result<()> {
        Err(Errno::ENOSYS)
    }
    fn kick(&self, _: usize) {}
    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

#[derive(Default)]
struct Tables {
    pages: BTreeMap<u64, (Frame, Prot)>,
    /// Frames that other workers could still reach: they must have a reference until `sync`.
    stale: Vec<Frame>,
}

struct FakeSpace {
    tables: Lock<Tables>,
    caps: Capabilities,
    maps_left: Arc<AtomicUsize>,
}

impl FakeSpace {
    fn check(&self, va: u64, len: u64) {
        assert!(va.is_multiple_of(4096) && len.is_multiple_of(4096), "unaligned range");
        let end = va.checked_add(len).expect("range wraps");
        assert!(end <= self.caps.task_size, "beyond user addresses");
        for (from, to) in self.caps.reserved {
            assert!(end <= from || to <= va, "range {va:#x}+{len:#x} meets a window");
        }
    }
}

impl AddressSpace for FakeSpace {
    fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<()> {
        self.check(va, frames.len() as u64 * 4096);
        assert!(prot.contains(Prot::READ), "present but unreadable");
        let left = self.maps_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(Errno::ENOMEM);
        }
        self.maps_left.store(left - 1, Ordering::Relaxed);
        let mut tables = self.tables.lock();
        for (i, &frame) in frames.iter().enumerate() {
            if let Some(count) = raw::count(frame.0) {
                assert_ne!(count.load(Ordering::Relaxed), 0, "maps a free frame");
            }
            if let Some((old, _)) = tables.pages.insert(va + i as u64 * 4096, (frame, prot)) {
                tables.stale.push(old);
            }
        }
        Ok(())
    }

    fn unmap(&self, va: u64, len: u64, gone: &mut dyn FnMut(u64, Frame)) {
        self.check(va, len);
        let mut tables = self.tables.lock();
        while let Some((&at, &(frame, _))) = tables.pages.range(va..va + len).next() {
            tables.pages.remove(&at);
            tables.stale.push(frame);
            gone(at, frame);
        }
    }

    fn protect(&self, va: u64, len: u64, prot: Prot) {
        self.check(va, len);
        assert!(prot.contains(Prot::READ), "mm unmaps by unmap");
        for (_, page) in self.tables.lock().pages.range_mut(va..va + len) {
            page.1 = prot;
        }
    }

    fn lookup(&self, va: u64) -> Option<(Frame, Prot)> {
        self.check(va, 4096);
        self.tables.lock().pages.get(&va).copied()
    }

    fn for_each(&self, va: u64, len: u64, each: &mut dyn FnMut(u64, Frame, Prot)) {
        self.check(va, len);
        let pages: Vec<_> =
            self.tables.lock().pages.range(va..va + len).map(|(&at, &page)| (at, page)).collect();
        pages.into_iter().for_each(|(at, (frame, prot))| each(at, frame, prot));
    }

    fn reach(&self, va: u64, len: u64, pages: u64) -> u64 {
        self.check(va, len);
        let tables = self.tables.lock();
        tables.pages.range(va..va + len).nth(pages as usize).map_or(va + len, |(&at, _)| at)
    }

    fn sync(&self) {
        for frame in std::mem::take(&mut self.tables.lock().stale) {
            if let Some(count) = raw::count(frame.0) {
                assert_ne!(count.load(Ordering::Relaxed), 0, "freed before it was unreachable");
            }
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Frames are one pool per process: tests that count or limit them need one of their own. True in that process; the
/// caller returns if it is false (the test ran in the other one).
pub(crate) fn alone(test: &str) -> bool {
    const MARK: &str = "PILLBOX_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a test binary has a path");
    let child = std::process::Command::new(this)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .expect("the test binary runs");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && output.contains("1 passed"),
        "{test}: {output}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    false
}

/// A file in memory.
pub(crate) struct Bytes {
    size: u64,
    pages: Vec<super::frames::Page>,
}

impl Bytes {
    pub(crate) fn file(bytes: &[u8]) -> Arc<dyn super::Mappable> {
        let page = |part: &[u8]| {
            let page = super::frames::Page::new().expect("frames are plenty");
            page.write(0, part);
            page
        };
        Arc::new(Bytes { size: bytes.len() as u64, pages: bytes.chunks(4096).map(page).collect() })
    }
}

impl super::Mappable for Bytes {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        Ok(self.pages.get(index as usize).ok_or(Errno::EFAULT)?.share())
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        for (slot, page) in to.iter_mut().zip(self.pages.iter().skip(first as usize)) {
            *slot = Some(page.share());
        }
    }
}
