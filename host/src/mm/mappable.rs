//! What can be mapped: the contract between `mm` and whatever has pages (files, shared anonymous memory).

use super::frames::{self, Page};
use super::{Forget, Mappers, Mm};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::platform::Frame;
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something with pages that address spaces can map.
///
/// A mapping holds an `Arc` of its object, so what the object hands out stays valid while mapped. An object keeps
/// a reference (or a host mapping) for every page that other holders must keep seeing the same.
pub trait Mappable: Send + Sync {
    /// The page at `index` (offset / 4096), with a reference for the caller. `write` says that it is wanted for a
    /// shared writable mapping: the frame's bytes are then the file's. May make host calls; called without `mm`
    /// locks. The tail of the last page beyond the size reads as zero.
    ///
    /// # Errors
    /// EFAULT beyond the last page (the program gets SIGBUS); ENOMEM; EIO; EACCES if `write` cannot be had.
    fn page(&self, index: u64, write: bool) -> Result<Frame>;

    /// Current size in bytes.
    fn size(&self) -> u64;

    /// Fills `to` with those of the pages from `first` on that are there already, with a reference each, for
    /// reading. Must be quick, must not block or make host calls: called under the address space's lock.
    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        let _ = (first, to);
    }

    /// Identity of what is mapped: the same from every open file of one inode (futex keys are made of it).
    fn identity(&self) -> usize {
        std::ptr::from_ref(self).cast::<()>() as usize
    }

    /// An address space maps it from now on. Objects whose pages can change their meaning (truncation, host pages
    /// that are written) embed a [`Mappers`](super::Mappers) and call its `add` here. Called with `mm` locks held.
    fn mapped(&self, mm: &Weak<Mm>) {
        let _ = mm;
    }

    /// An address space has ended that mapped it to its end. Called without locks.
    fn unmapped(&self) {}

    /// An area of it has come into being in an address space of process `pid` (`vm_operations_struct::open`): mapped,
    /// inherited, moved or split off. Called with `mm` locks held.
    fn area_opened(&self, pid: i32) {
        let _ = pid;
    }

    /// An area of it is no more (`close`). Called with `mm` locks held.
    fn area_closed(&self, pid: i32) {
        let _ = pid;
    }

    /// Whether it is a System V segment: what shmdt(2) looks for. Its areas are counted, so that none is ever joined
    /// with its neighbour.
    fn is_segment(&self) -> bool {
        false
    }

    /// Whether there is nothing behind its pages: no file of the host's, only memory.
    fn is_memory(&self) -> bool {
        false
    }

    /// What `/proc/PID/maps` says about it.
    fn describe(&self) -> MapInfo {
        MapInfo::default()
    }

    /// Drops the pages that lie wholly in the range (MADV_REMOVE). They read as zero afterwards.
    ///
    /// # Errors
    /// EOPNOTSUPP where that makes no sense.
    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// Writes modified pages back (msync). Nothing to do for what lives in memory.
    ///
    /// # Errors
    /// EIO.
    fn sync(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Reads bytes through the pages: what exec uses for headers. Short only at the end.
    ///
    /// # Errors
    /// Those of [`Self::page`].
    fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<usize> {
        let end = self.size().min(offset.saturating_add(to.len() as u64));
        let mut at = offset;
        let mut done = 0;
        while at < end {
            let within = (at % 4096) as usize;
            let len = (4096 - within).min((end - at) as usize);
            let page = Page::from_frame(self.page(at / 4096, false)?);
            page.read(within, &mut to[done..done + len])?;
            done += len;
            at += len as u64;
        }
        Ok(done)
    }
}

/// The last columns of a line of `/proc/PID/maps`, and what core dumps ask besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// Device number (major << 8 | minor, as in `st_dev` of small numbers).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Permissions of the file.
    pub mode: u32,
    /// Path or other name; empty for none.
    pub path: Vec<u8>,
}

/// Memory shared between processes without a file: `MAP_SHARED | MAP_ANONYMOUS`, System V segments.
pub struct SharedMemory {
    size: u64,
    name: &'static [u8],
    /// It is there until it is removed, like a file, and not only while it is mapped.
    lasting: bool,
    ino: u64,
    pub(super) mappers: Mappers,
    pages: Lock<BTreeMap<u64, Page>>,
}

/// Inode numbers of shared memory, as `/proc/PID/maps` shows them.
static NEXT_INO: AtomicU64 = AtomicU64::new(1024);

impl SharedMemory {
    /// `size` bytes of zeroes, named `name` in `/proc/PID/maps`.
    pub fn new(size: u64, name: &'static [u8]) -> Self {
        Self::make(size, name, false)
    }

    /// The same for a System V segment, which names itself.
    pub fn lasting(size: u64) -> Self {
        Self::make(size, b"", true)
    }

    fn make(size: u64, name: &'static [u8], lasting: bool) -> Self {
        let ino = NEXT_INO.fetch_add(1, Ordering::Relaxed);
        SharedMemory {
            size,
            name,
            lasting,
            ino,
            mappers: Mappers::default(),
            pages: Lock::new(Rank::SharedMemory, BTreeMap::new()),
        }
    }

    fn unstore(&self, pages: usize) {
        if self.lasting {
            ledger::unstore(pages as u64 * 4096);
        }
    }

    /// Bytes of it that are in memory.
    pub fn resident(&self) -> u64 {
        self.pages.lock().len() as u64 * 4096
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let pages = self.pages.get_mut().len();
        self.unstore(pages);
    }
}

impl Mappable for SharedMemory {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        if index >= self.size.div_ceil(4096) {
            return Err(Errno::EFAULT);
        }
        let mut pages = self.pages.lock();
        if let Some(page) = pages.get(&index) {
            return Ok(page.share());
        }
        if self.lasting {
            ledger::store(4096)?;
        }
        let page = Page::new().inspect_err(|_| self.unstore(1))?;
        let frame = page.share();
        pages.insert(index, page);
        Ok(frame)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        let pages = self.pages.lock();
        for (&index, page) in pages.range(first..first + to.len() as u64) {
            to[(index - first) as usize] = Some(page.share());
        }
    }

    fn is_memory(&self) -> bool {
        true
    }

    fn describe(&self) -> MapInfo {
        MapInfo { dev: 1, ino: self.ino, mode: 0o666, path: self.name.to_vec() }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let (first, end) = (offset.div_ceil(4096), (offset + len) / 4096);
        let mut pages = self.pages.lock();
        let gone: Vec<u64> = pages.range(first..end.max(first)).map(|(&index, _)| index).collect();
        let count = gone.iter().filter(|index| pages.remove(index).is_some()).count();
        self.unstore(count);
        drop(pages);
        self.mappers.forget(self.identity(), first, end, Forget::Originals);
        Ok(())
    }

    fn mapped(&self, mm: &Weak<Mm>) {
        self.mappers.add(mm);
    }

    fn unmapped(&self) {
        self.mappers.ended();
    }
}

/// Drops references that `ready` handed out and nobody used.
pub(super) fn put_unused(frames: &[Option<Frame>]) {
    for frame in frames.iter().flatten() {
        frames::put_ref(*frame);
    }
}
