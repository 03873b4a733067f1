//! The bytes of a regular file: pages in memory, above a host file where there is one.
//!
//! A page that is in the map is the truth; one that is not is the host file's (up to `lower_end`) or zero. So writing
//! to a host file copies pages, not files, and mappings, reads and writes see the same frames. The state is
//! not locked while user memory is touched, since a fault there may need this very file, nor in a host call. Appends are in
//! turn: theirs is held over all of one, and who waits for it parks.

mod held;
mod holes;

use super::lower::Opened;
use crate::abi::{Errno, Result};
use crate::fs::hostio;
use crate::mm::filecache::FileCache;
use crate::mm::frames::Page;
use crate::mm::{Forget, IoDst, IoSrc, Mappers};
use crate::platform::{Capabilities, Frame};
use crate::sync::{HostLine, Lock, LongLock, Rank};
use crate::vfs::Quota;
use held::Held;
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 4096;
/// Pages read from the host at a time.
const WINDOW: u64 = 16;
/// Reads smaller than this fill the page cache; larger ones go from the host to the program directly.
const CACHED_READ: usize = 4096;
/// Files of the host up to this size are read into memory by small reads, not mapped.
const SMALL_FILE: u64 = 4 * PAGE;
/// Pages dropped at a time.
const DROPPED: usize = 1024;
/// Largest file (ext4's).
pub const MAX_SIZE: u64 = 16 << 40;

struct State {
    size: u64,
    /// Bytes of the host file that still show through.
    lower_end: u64,
    /// Size of the host file when it was found.
    lower_size: u64,
    pages: BTreeMap<u64, Held>,
    /// Pages of the host's were handed out to be mapped.
    handed_out: bool,
    /// Written to: from then on every page that is mapped is one of ours, so that all see the writes.
    written: bool,
}

/// What a regular file holds.
pub struct Content {
    state: Lock<State>,
    lower: Option<Arc<Opened>>,
    /// Pages of the host file that need no copy (kvm).
    shared: Option<FileCache>,
    /// Serialises appends.
    appending: LongLock,
    /// Who maps it.
    mappers: Mappers,
    /// What counts the pages, in a file system that may hold less than all; there is no host file then.
    quota: Option<Arc<Quota>>,
}

/// Where the next bytes of a read come from.
enum Next {
    Page(Page, usize, usize),
    Zeroes(usize),
    Lower(usize),
    End,
}

impl Content {
    /// Whether nothing of it is a host file's.
    pub fn is_memory(&self) -> bool {
        self.lower.is_none()
    }

    /// An empty file.
    pub fn empty(quota: Option<Arc<Quota>>) -> Self {
        Self::new(None, 0, quota)
    }

    /// What a host file of `size` bytes holds.
    pub fn of_lower(lower: Arc<Opened>, size: u64, caps: Option<Capabilities>) -> Self {
        // A page that is mapped is had by whoever touches it, with any lock held: only where that takes no other's answer.
        let maps = lower.is_near() && caps.is_some_and(|caps| caps.maps_host_files);
        let mut content = Self::new(Some(lower), size, None);
        content.shared = maps.then(FileCache::default);
        content
    }

    fn new(lower: Option<Arc<Opened>>, size: u64, quota: Option<Arc<Quota>>) -> Self {
        let state = State {
            size,
            lower_end: size,
            lower_size: size,
            pages: BTreeMap::new(),
            handed_out: false,
            written: false,
        };
        Content {
            state: Lock::new(Rank::Content, state),
            lower,
            shared: None,
            appending: LongLock::default(),
            mappers: Mappers::default(),
            quota,
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    /// 512-byte units in use: what the host file takes, of which `lower` is known, and pages in memory that are not its.
    pub fn blocks(&self, lower: u64) -> u64 {
        let state = self.state.lock();
        let shown = lower.min(state.lower_end.div_ceil(PAGE) * (PAGE / 512));
        // As long as nothing is written, pages below are copies of what the host has.
        let (first, most) = match state.written {
            true => (0, state.size.div_ceil(PAGE)),
            false => (state.lower_end.div_ceil(PAGE), u64::MAX),
        };
        let own =
            if first == 0 { state.pages.len() as u64 } else { state.pages.range(first..).count() as u64 };
        if shown == 0 { own * (PAGE / 512) } else { (shown + own * (PAGE / 512)).min(most.saturating_mul(8)) }
    }

    /// Makes sure that the host file can be read.
    ///
    /// # Errors
    /// The host's (EACCES).
    pub fn open(&self) -> Result<()> {
        let reachable = self.state.lock().lower_end > 0;
        match &self.lower {
            Some(lower) if reachable => lower.fd().map(drop),
            _ => Ok(()),
        }
    }

    /// Reads at `offset`.
    ///
    /// # Errors
    /// EFAULT, or the host's.
    pub fn read(&self, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let mut at = offset;
        let mut done = 0;
        let small = dst.remaining() < CACHED_READ;
        while dst.remaining() > 0 {
            let result = match self.next(at, dst.remaining()) {
                Next::End => break,
                Next::Page(page, start, len) => dst.write_frame(page.frame(), start, len),
                Next::Zeroes(len) => dst.write_zeroes(len),
                Next::Lower(len) if small && self.is_worth_mapping() => match self.host_page(at / PAGE) {
                    Ok(Some(frame)) => {
                        let page = Page::from_frame(frame);
                        let start = (at % PAGE) as usize;
                        dst.write_frame(page.frame(), start, len.min(PAGE as usize - start))
                    }
                    Ok(None) => match self.load(at / PAGE) {
                        Ok(()) => continue,
                        Err(errno) => Err(errno),
                    },
                    Err(errno) => Err(errno),
                },
                Next::Lower(_) if small => match self.load(at / PAGE) {
                    Ok(()) => continue,
                    Err(errno) => Err(errno),
                },
                Next::Lower(len) => {
                    self.read_lower(dst, len, at).and_then(|got| {
                        // The host file shrank under us: what is missing reads as zero.
                        if got == 0 { dst.write_zeroes(len) } else { Ok(got) }
                    })
                }
            };
            match result {
                Ok(0) => break,
                Ok(got) => (done, at) = (done + got, at + got as u64),
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Whether small reads take the host's own pages, mapped: that costs more than reading a few once.
    fn is_worth_mapping(&self) -> bool {
        self.shared.is_some() && self.state.lock().lower_size > SMALL_FILE
    }

    fn read_lower(&self, dst: &mut IoDst<'_>, len: usize, at: u64) -> Result<usize> {
        let lower = self.lower()?;
        let fd = lower.fd()?;
        hostio::read(hostio::At { fd: fd.raw(), line: lower.line() }, dst, len, Some(at), 0)
    }

    fn lower(&self) -> Result<&Arc<Opened>> {
        self.lower.as_ref().ok_or(Errno::EIO)
    }

    fn next(&self, at: u64, want: usize) -> Next {
        let state = self.state.lock();
        if at >= state.size {
            return Next::End;
        }
        let want = (state.size - at).min(want as u64);
        let start = (at % PAGE) as usize;
        let mut cached = state.pages.range(at / PAGE..);
        match cached.next() {
            Some((&index, held)) if index == at / PAGE => {
                let len = want.min(PAGE - at % PAGE) as usize;
                Next::Page(Page::from_frame(held.page().share()), start, len)
            }
            next => {
                let gap = next.map_or(u64::MAX, |(&index, _)| index * PAGE - at);
                let want = want.min(gap);
                if at < state.lower_end {
                    Next::Lower(want.min(state.lower_end - at) as usize)
                } else {
                    Next::Zeroes(want as usize)
                }
            }
        }
    }

    /// Brings the window of host pages around `index` into the map.
    fn load(&self, index: u64) -> Result<()> {
        let lower = self.lower()?;
        let fd = lower.fd()?;
        let (first, wanted, lower_end) = {
            let state = self.state.lock();
            let first = index - index % WINDOW;
            let end = (first + WINDOW).min(state.lower_end.div_ceil(PAGE));
            // The longest run without a page in the map around `index`.
            let before = state.pages.range(first..index).next_back().map_or(first, |(&at, _)| at + 1);
            let after = state.pages.range(index..end).next().map_or(end, |(&at, _)| at);
            (before, after.saturating_sub(before), state.lower_end)
        };
        if wanted == 0 {
            return Ok(());
        }
        let pages = (0..wanted).map(|_| Page::new()).collect::<Result<Vec<_>>>()?;
        hostio::read_pages(hostio::At { fd: fd.raw(), line: lower.line() }, &pages, first * PAGE)?;
        if (first + wanted) * PAGE > lower_end {
            let tail = (lower_end % PAGE) as usize;
            if let Some(last) = pages.last()
                && tail > 0
            {
                last.zero(tail, PAGE as usize - tail);
            }
        }
        let mut state = self.state.lock();
        if state.lower_end != lower_end {
            // Truncated meanwhile: what was read may lie beyond. The caller looks again.
            return Ok(());
        }
        for (number, page) in pages.into_iter().enumerate() {
            state.pages.entry(first + number as u64).or_insert_with(|| Held::copy(page));
        }
        Ok(())
    }

    /// The page at `index`, made if there is none, with a reference; `write`: it is about to be written to.
    fn page_for(&self, index: u64, write: bool) -> Result<Page> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(held) = state.pages.get_mut(&index) {
                    if write {
                        held.soil()?;
                    }
                    return Ok(Page::from_frame(held.page().share()));
                }
                if index * PAGE >= state.lower_end {
                    let held = self.new_page()?;
                    let shared = Page::from_frame(held.page().share());
                    state.pages.insert(index, held);
                    return Ok(shared);
                }
            }
            self.load(index)?;
        }
    }

    /// The page at `index` for a mapping.
    ///
    /// # Errors
    /// EFAULT beyond the end.
    pub fn map_page(&self, index: u64, write: bool) -> Result<Frame> {
        if index >= self.size().div_ceil(PAGE) {
            return Err(Errno::EFAULT);
        }
        if !write && let Some(frame) = self.host_page(index)? {
            return Ok(frame);
        }
        if write {
            self.stop_sharing();
        }
        Ok(self.page_for(index, write)?.into_frame())
    }

    /// What mappings of it have in common: see [`Mappable::identity`](crate::mm::Mappable::identity).
    pub fn identity(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    /// Who maps it.
    pub fn mappers(&self) -> &Mappers {
        &self.mappers
    }

    /// Before the first write: takes the host's pages out of every mapping, where they would hide it.
    fn stop_sharing(&self) {
        let handed_out = {
            let mut state = self.state.lock();
            if state.written {
                return;
            }
            state.written = true;
            state.handed_out
        };
        if handed_out {
            self.mappers.forget(self.identity(), 0, u64::MAX, Forget::Originals);
        }
    }

    /// The host's own page at `index`, where it can be used and nothing was written there.
    fn host_page(&self, index: u64) -> Result<Option<Frame>> {
        let Some(shared) = &self.shared else { return Ok(None) };
        {
            let mut state = self.state.lock();
            // A page cut short by truncation would show the host's bytes behind the end.
            let cut = state.lower_end < state.size.max(state.lower_size) && index >= state.lower_end / PAGE;
            if cut || state.written || index * PAGE >= state.lower_end || state.pages.contains_key(&index) {
                return Ok(None);
            }
            state.handed_out = true;
        }
        let fd = self.lower()?.fd()?;
        let size = self.state.lock().lower_size;
        shared.page(&fd, size, index).map(Some)
    }

    /// Pages that are there already.
    pub fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        let mut state = self.state.lock();
        let end = first.saturating_add(to.len() as u64).min(state.size.div_ceil(PAGE)).max(first);
        for (&index, held) in state.pages.range(first..end) {
            to[(index - first) as usize] = Some(held.page().share());
        }
        if let Some(shared) = &self.shared
            && state.lower_end == state.lower_size
            && state.pages.is_empty()
            && !state.written
        {
            state.handed_out = true;
            shared.ready(state.lower_size, first, to);
        }
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// EFAULT, EFBIG, ENOMEM, or the host's.
    pub fn write(&self, src: &mut IoSrc<'_>, offset: u64) -> Result<usize> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        if offset >= MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        self.stop_sharing();
        let mut at = offset;
        let mut done = 0;
        while src.remaining() > 0 && at < MAX_SIZE {
            let start = (at % PAGE) as usize;
            let len = src.remaining().min(PAGE as usize - start);
            let result = self.page_for(at / PAGE, true).map_err(|errno| match errno {
                Errno::ENOMEM => Errno::ENOSPC,
                other => other,
            });
            match result.and_then(|page| src.read_frame(page.frame(), start, len)) {
                Ok(0) => break,
                Ok(got) => {
                    at += got as u64;
                    done += got;
                    let mut state = self.state.lock();
                    state.size = state.size.max(at);
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Writes at the end; returns the count and the end after it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn append(&self, src: &mut IoSrc<'_>, line: &HostLine) -> Result<(usize, u64)> {
        let _alone = self.appending.lock(line)?;
        let end = self.size();
        let count = self.write(src, end)?;
        Ok((count, end + count as u64))
    }

    /// Changes the size.
    ///
    /// # Errors
    /// EFBIG.
    pub fn truncate(&self, len: u64) -> Result<()> {
        if len > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let gone;
        let shrunk;
        self.stop_sharing();
        {
            let mut state = self.state.lock();
            shrunk = len < state.size;
            if shrunk {
                gone = state.pages.split_off(&len.div_ceil(PAGE));
                let tail = (len % PAGE) as usize;
                if tail > 0
                    && let Some(held) = state.pages.get(&(len / PAGE))
                {
                    held.page().zero(tail, PAGE as usize - tail);
                }
            } else {
                gone = BTreeMap::new();
            }
            state.lower_end = state.lower_end.min(len);
            state.size = len;
        }
        self.gone(gone.len());
        drop(gone);
        if shrunk {
            self.mappers.forget(self.identity(), len.div_ceil(PAGE), u64::MAX, Forget::Everything);
        }
        Ok(())
    }

    /// fallocate(2): zeroes or reserves a range.
    ///
    /// # Errors
    /// ENOMEM, EFBIG.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len).min(self.size());
        self.stop_sharing();
        let mut at = offset;
        while at < end {
            let index = at / PAGE;
            let part = (end - at).min(PAGE - at % PAGE);
            let lower_end = self.state.lock().lower_end;
            if part < PAGE || index * PAGE < lower_end {
                self.zero(index, at % PAGE, part)?;
                at += part;
            } else {
                // Whole pages, of which only those that are there matter.
                at = self.drop_pages(index, end / PAGE) * PAGE;
            }
        }
        if offset < end {
            let (first, end) = (offset.div_ceil(PAGE), end / PAGE);
            self.mappers.forget(self.identity(), first, end.max(first), Forget::Originals);
        }
        Ok(())
    }

    /// Zeroes a part of a page, which may be none yet.
    fn zero(&self, index: u64, start: u64, len: u64) -> Result<()> {
        let state = self.state.lock();
        if index * PAGE >= state.lower_end && !state.pages.contains_key(&index) {
            return Ok(());
        }
        drop(state);
        self.page_for(index, true)?.zero(start as usize, len as usize);
        Ok(())
    }

    /// Drops some of the pages from `first` to `end`; returns where it stopped: at `end`, as a rule.
    fn drop_pages(&self, first: u64, end: u64) -> u64 {
        let mut state = self.state.lock();
        let found: Vec<u64> = state.pages.range(first..end).map(|(index, _)| *index).take(DROPPED).collect();
        let gone: Vec<_> = found.iter().filter_map(|index| state.pages.remove(index)).collect();
        drop(state);
        self.gone(gone.len());
        drop(gone);
        match found.last() {
            Some(last) if found.len() == DROPPED => last + 1,
            _ => end,
        }
    }
}
