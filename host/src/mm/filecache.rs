//! Pages of host files.
//!
//! Where the platform can map them (kvm), a file's parts are mapped read-only and shared into the arena's file
//! window: its pages are the host's page cache, used as frames without a copy and without being counted; the
//! [`FileCache`] keeps the mapping as long as anything that may use one lives (areas hold their object). Elsewhere
//! (systrap) pages are read into ordinary frames, sixteen neighbours at a time.
//!
//! A host file is assumed not to shrink. If it does all the same, touching what is gone is SIGBUS for the program
//! and EFAULT for a copy by the kernel (see `raw::guarded`).

use super::frames::Page;
use super::{PAGE_SIZE, raw};
use crate::abi::{Errno, Result};
use crate::arena::region;
use crate::hostfd::HostFd;
use crate::platform::{Capabilities, Frame};
use crate::sync::Lock;
use ring0::layout;
use std::collections::BTreeMap;

/// Pages per mapped part of a file: large enough that a big program needs few host mappings.
const PART: u64 = 2048;
/// Pages read at a time.
const CLUSTER: u64 = 16;

/// The pages of one host file. Embedded in an inode, which knows the descriptor and the size.
pub struct FileCache(Lock<Pages>);

enum Pages {
    /// By part number; `outgrown` are mappings that became too short and may still be in use.
    Mapped { parts: BTreeMap<u64, Region>, outgrown: Vec<Region> },
    /// By page number.
    Copied(BTreeMap<u64, Page>),
}

impl FileCache {
    /// An empty cache for a file on this platform.
    pub fn new(caps: Capabilities) -> Self {
        let mapped = Pages::Mapped { parts: BTreeMap::new(), outgrown: Vec::new() };
        FileCache(Lock::new(if caps.maps_host_files { mapped } else { Pages::Copied(BTreeMap::new()) }))
    }

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
        match &mut *self.0.lock() {
            Pages::Mapped { parts, outgrown } => {
                let (part, within) = (index / PART, index % PART);
                if parts.get(&part).is_none_or(|region| within >= region.pages) {
                    let region = Region::new((pages - part * PART).min(PART))?;
                    let len = region.pages * PAGE_SIZE;
                    region::map_file_chunk(region.addr, len, file, part * PART * PAGE_SIZE)?;
                    outgrown.extend(parts.insert(part, region));
                }
                Ok(Frame(parts[&part].addr + within * PAGE_SIZE))
            }
            Pages::Copied(cache) => {
                if let Some(page) = cache.get(&index) {
                    return Ok(page.share());
                }
                read_cluster(cache, file, pages, index)?;
                cache.get(&index).map(Page::share).ok_or(Errno::EFAULT)
            }
        }
    }

    /// What [`Mappable::ready`](super::Mappable::ready) does.
    pub fn ready(&self, size: u64, first: u64, to: &mut [Option<Frame>]) {
        let end = size.div_ceil(PAGE_SIZE).min(first.saturating_add(to.len() as u64));
        match &*self.0.lock() {
            Pages::Mapped { parts, .. } => {
                for index in first..end {
                    let region = parts.get(&(index / PART)).filter(|region| index % PART < region.pages);
                    to[(index - first) as usize] =
                        region.map(|region| Frame(region.addr + index % PART * PAGE_SIZE));
                }
            }
            Pages::Copied(cache) => {
                for (&index, page) in cache.range(first..end.max(first)) {
                    to[(index - first) as usize] = Some(page.share());
                }
            }
        }
    }

    /// Forgets copied pages (memory pressure, or the file was replaced). Mapped ones follow the host by themselves.
    pub fn forget(&self) {
        if let Pages::Copied(cache) = &mut *self.0.lock() {
            cache.clear();
        }
    }
}

/// Reads the aligned cluster around `index`, except what is there already.
fn read_cluster(cache: &mut BTreeMap<u64, Page>, file: &HostFd, pages: u64, index: u64) -> Result<()> {
    let first = index / CLUSTER * CLUSTER;
    let end = (first + CLUSTER).min(pages);
    let wanted: Vec<u64> = (first..end).filter(|index| !cache.contains_key(index)).collect();
    let mut frames = vec![Frame(0); wanted.len()];
    let got = super::frames::alloc_many(&mut frames)?;
    let fresh: Vec<Page> = frames[..got].iter().map(|&frame| Page::from_frame(frame)).collect();
    let mut slots = wanted.into_iter().zip(fresh).peekable();
    // One host call per run of missing pages: nearly always one in all.
    while let Some((start, page)) = slots.next() {
        let mut run = vec![page];
        while let Some((_, page)) = slots.next_if(|(next, _)| *next == start + run.len() as u64) {
            run.push(page);
        }
        let pieces: Vec<(u64, usize)> = run.iter().map(|page| (page.frame().0, PAGE_SIZE as usize)).collect();
        let read = raw::preadv(file.raw(), &pieces, Some(start * PAGE_SIZE))? as u64;
        // Only what the file has; the tail of its last page is zero as allocated.
        let whole = read.div_ceil(PAGE_SIZE) as usize;
        for (i, page) in run.into_iter().take(whole).enumerate() {
            cache.insert(start + i as u64, page);
        }
    }
    Ok(())
}

/// A range of the file window, mapped over by a file. Dropping it unmaps it.
struct Region {
    addr: u64,
    pages: u64,
}

/// Free ranges of the file window by size in pages (powers of two), and where no range was ever taken. One per
/// process, like the window.
static WINDOW: Lock<Window> = Lock::new(Window { free: BTreeMap::new(), next: layout::FILES_BASE });

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
