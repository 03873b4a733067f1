//! Pages of host files that are mapped.
//!
//! Where the platform can map them (kvm), a file's parts are mapped read-only and shared into the arena's file
//! window: its pages are the host's page cache, used as frames without a copy and without being counted; the
//! [`FileCache`] keeps the mapping as long as anything that may use one lives (areas hold their object). Elsewhere
//! (systrap) files are read into frames of their owner's.
//!
//! A host file is assumed not to shrink. If it does all the same, touching what is gone is SIGBUS for the program
//! and EFAULT for a copy by the kernel (see `raw::guarded`).
//!
//! Locks: a cache's → the window's. Neither is held while the host maps: [`FileCache::ready`] is asked with an address
//! space locked.

use super::PAGE_SIZE;
use crate::abi::{Errno, Result};
use crate::arena::region;
use crate::hostfd::HostFd;
use crate::platform::Frame;
use crate::sync::{Lock, Rank};
use ring0::layout;
use std::collections::BTreeMap;

/// Pages per mapped part of a file: large enough that a big program needs few host mappings.
const PART: u64 = 2048;

/// The pages of one host file. Embedded in an inode, which knows the descriptor and the size.
pub struct FileCache(Lock<Parts>);

#[derive(Default)]
struct Parts {
    /// By number.
    mapped: BTreeMap<u64, Region>,
    /// Mappings that became too short and may still be in use.
    outgrown: Vec<Region>,
}

impl Default for FileCache {
    fn default() -> Self {
        FileCache(Lock::new(Rank::FileCache, Parts::default()))
    }
}

impl FileCache {
    /// The page at `index` of `file`, which has `size` bytes: what [`Mappable::page`](super::Mappable::page)
    /// returns for reading. Writable shared mappings need a copy of the file first.
    ///
    /// # Errors
    /// EFAULT beyond the end; ENOMEM; what the host returned.
    pub fn page(&self, file: &HostFd, size: u64, index: u64) -> Result<Frame> {
        let pages = size.div_ceil(PAGE_SIZE);
        if index >= pages {
            return Err(Errno::EFAULT);
        }
        if let Some(frame) = self.0.lock().get(index) {
            return Ok(frame);
        }
        let part = index / PART;
        let region = Region::new((pages - part * PART).min(PART))?;
        region::map_file_chunk(region.addr, region.pages * PAGE_SIZE, file, part * PART * PAGE_SIZE)?;
        let mut parts = self.0.lock();
        if let Some(frame) = parts.get(index) {
            // Another thread was faster. Its region stays, and ours goes once the lock is free.
            drop(parts);
            return Ok(frame);
        }
        let frame = Frame(region.addr + index % PART * PAGE_SIZE);
        let old = parts.mapped.insert(part, region);
        parts.outgrown.extend(old);
        Ok(frame)
    }

    /// What [`Mappable::ready`](super::Mappable::ready) does.
    pub fn ready(&self, size: u64, first: u64, to: &mut [Option<Frame>]) {
        let end = size.div_ceil(PAGE_SIZE).min(first.saturating_add(to.len() as u64));
        let parts = self.0.lock();
        for index in first..end {
            to[(index - first) as usize] = parts.get(index);
        }
    }
}

impl Parts {
    fn get(&self, index: u64) -> Option<Frame> {
        let region = self.mapped.get(&(index / PART)).filter(|region| index % PART < region.pages)?;
        Some(Frame(region.addr + index % PART * PAGE_SIZE))
    }
}

/// A range of the file window, mapped over by a file. Dropping it unmaps it.
struct Region {
    addr: u64,
    pages: u64,
}

/// Free ranges of the file window by size in pages (powers of two), and where no range was ever taken. One per
/// process, like the window.
static WINDOW: Lock<Window> =
    Lock::new(Rank::FileWindow, Window { free: BTreeMap::new(), next: layout::FILES_BASE });

struct Window {
    free: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

impl Region {
    fn new(pages: u64) -> Result<Self> {
        let room = pages.next_power_of_two();
        let mut window = WINDOW.lock();
        if let Some(addr) = window.free.get_mut(&room).and_then(Vec::pop) {
            return Ok(Region { addr, pages });
        }
        let addr = window.next;
        let end = addr + room * PAGE_SIZE;
        if end > layout::FILES_END {
            return Err(Errno::ENOMEM);
        }
        window.next = end;
        Ok(Region { addr, pages })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // If the host refuses, the range is lost rather than given out with a file behind it.
        if region::unmap_file_chunk(self.addr, self.pages * PAGE_SIZE).is_ok() {
            WINDOW.lock().free.entry(self.pages.next_power_of_two()).or_default().push(self.addr);
        }
    }
}
