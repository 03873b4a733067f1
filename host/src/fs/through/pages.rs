//! Pages of a file that is written through, as far as they are mapped.
//!
//! A page that is mapped is a copy in a frame of the sandbox's, which all mappings of the file share, and what is read and
//! written by other means goes through it: before the host is asked for bytes of a page that may have been written to, it is
//! given them, and after it was given others the page has them, too. A page that a program can write to has a second copy beside
//! it, of what the host was last known to have: what differs is written back, and nothing else, so that others can write to
//! the rest of the page meanwhile. That happens with msync(2), fsync(2), reads and writes, when nobody maps the file any
//! more, and at the end of the sandbox. Room on the host is reserved before a page can be written to: a full disk is
//! SIGBUS, as it is on Linux, and not an error that nobody hears of.
//!
//! What others do to the file is seen when its attributes are next looked at (when it is opened, at the latest): pages that
//! differ then, and have not been written to, are read anew. A file that was cut off meanwhile is SIGBUS from then on. No page of
//! the host's is touched by the kernel or a program, so that nothing that is done to the file can hurt either.

use super::file::Data;
use super::{Id, Node};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::fs::hostio::{self, At};
use crate::hostsys::{change, file as host};
use crate::mm::frames::Page;
use crate::mm::{Forget, IoDst, IoSrc, Mappers};
use crate::platform::Frame;
use crate::sync::{HostLine, Lock, LongGuard, Rank};
use crate::vfs::Timestamp;
use linux_raw_sys::general as c;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const PAGE: u64 = 4096;
const LEN: usize = PAGE as usize;
/// Pages read from the host at a time.
const WINDOW: u64 = 16;
/// Pages compared at a time.
const BATCH: usize = 32;
/// Bytes that are the same, of which so many are written along with what is around them.
const GAP: usize = 64;

/// What the host has of a page, as far as is known.
type Base = Box<[u8; LEN]>;

struct Held {
    page: Page,
    /// Programs can write to the page.
    base: Option<Base>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Held>,
    /// By which pages are written back, once one can be written to.
    writer: Option<Arc<Data>>,
    /// Size and time of the last write when the host was last asked.
    seen: Option<(u64, Timestamp)>,
}

/// The pages of a node.
pub(super) struct Pages {
    state: Lock<State>,
    pub(super) mappers: Mappers,
    /// There may be pages.
    used: AtomicBool,
    /// Shared mappings that can write.
    writable: AtomicU32,
    /// Counts what is done to the file by other means: what was read before is not entered after.
    version: AtomicU64,
}

impl Default for Pages {
    fn default() -> Self {
        Pages {
            state: Lock::new(Rank::Content, State::default()),
            mappers: Mappers::default(),
            used: AtomicBool::new(false),
            writable: AtomicU32::new(0),
            version: AtomicU64::new(0),
        }
    }
}

impl Held {
    fn new(page: Page) -> Held {
        ledger::cache(PAGE);
        Held { page, base: None }
    }

    /// Before a program can write to it.
    ///
    /// # Errors
    /// ENOSPC beyond the sandbox's limit.
    fn soil(&mut self) -> Result<()> {
        if self.base.is_none() {
            ledger::store(2 * PAGE)?;
            ledger::uncache(PAGE);
            let mut base: Base = Box::new([0; LEN]);
            let read = self.page.read(0, &mut base[..]);
            self.base = Some(base);
            read?;
        }
        Ok(())
    }

    /// Nobody can write to it any more, and the host has what was written.
    fn clean(&mut self) {
        if self.base.take().is_some() {
            ledger::unstore(2 * PAGE);
            ledger::cache(PAGE);
        }
    }

    /// What the host has not; it is as if it had then.
    fn changes(&mut self) -> Vec<Range<usize>> {
        let Some(base) = &mut self.base else { return Vec::new() };
        let mut now = [0; LEN];
        if self.page.read(0, &mut now).is_err() || now == **base {
            return Vec::new();
        }
        let mut found: Vec<Range<usize>> = Vec::new();
        for at in (0..LEN).filter(|at| now[*at] != base[*at]) {
            match found.last_mut() {
                Some(last) if at - last.end < GAP => last.end = at + 1,
                _ => found.push(at..at + 1),
            }
        }
        **base = now;
        found
    }

    /// The host has other bytes there.
    fn put(&mut self, start: usize, bytes: &[u8]) {
        self.page.write(start, bytes);
        if let Some(base) = &mut self.base {
            base[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.base.is_some() {
            ledger::unstore(2 * PAGE);
        } else {
            ledger::uncache(PAGE);
        }
    }
}

/// Somebody has a shared mapping that can write.
pub(super) struct Writable(Arc<Node>);

impl Writable {
    pub(super) fn new(node: &Arc<Node>, data: &Arc<Data>) -> Writable {
        node.pages.writable.fetch_add(1, Ordering::AcqRel);
        node.pages.state.lock().writer = Some(data.clone());
        Writable(node.clone())
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // Locks may be held here: the host is told by somebody else.
        if self.0.pages.writable.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _at_the_end = self.0.tree.late.send(self.0.clone());
        }
    }
}

impl Pages {
    /// See [`Mappable::identity`](crate::mm::Mappable::identity).
    pub(super) fn identity(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    /// Whether there may be any: what is read and written has to look.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }

    /// The page at `index` for a mapping through `data`.
    ///
    /// # Errors
    /// EFAULT beyond the end, and where the host has no room for what would be written; the host's.
    pub(super) fn page(&self, node: &Node, data: &Arc<Data>, index: u64, write: bool) -> Result<Frame> {
        self.used.store(true, Ordering::SeqCst);
        let mut reserved = !write;
        loop {
            let raw = node.line().call(|| host::statx(data.fd.raw(), b"", libc::AT_EMPTY_PATH))?;
            node.take(&raw);
            let size = raw.stx_size;
            if index >= size.div_ceil(PAGE) {
                return Err(Errno::EFAULT);
            }
            let version = self.version.load(Ordering::SeqCst);
            {
                let mut state = self.state.lock();
                if let Some(held) = state.pages.get_mut(&index)
                    && (reserved || held.base.is_some())
                {
                    if write {
                        held.soil().map_err(|_| Errno::ENOMEM)?;
                        state.writer.get_or_insert_with(|| data.clone());
                    }
                    return Ok(state.pages[&index].page.share());
                }
            }
            if !reserved {
                reserve(node, data, index, size)?;
                reserved = true;
                continue;
            }
            self.load(node, data, index, size, version)?;
        }
    }

    /// Brings the window of pages around `index` in.
    fn load(&self, node: &Node, data: &Data, index: u64, size: u64, version: u64) -> Result<()> {
        let first = index - index % WINDOW;
        let end = (first + WINDOW).min(size.div_ceil(PAGE));
        let missing = {
            let state = self.state.lock();
            let before = state.pages.range(first..index).next_back().map_or(first, |(&at, _)| at + 1);
            let after = state.pages.range(index..end).next().map_or(end, |(&at, _)| at);
            before..after
        };
        let pages = missing.clone().map(|_| Page::new()).collect::<Result<Vec<_>>>()?;
        hostio::read_pages(At { fd: data.fd.raw(), line: node.line() }, &pages, missing.start * PAGE)?;
        let mut unused = Vec::new();
        let mut state = self.state.lock();
        let current = self.version.load(Ordering::SeqCst) == version;
        for (index, page) in missing.zip(pages) {
            if current && !state.pages.contains_key(&index) {
                state.pages.insert(index, Held::new(page));
            } else {
                unused.push(page);
            }
        }
        drop(state);
        Ok(())
    }

    /// Pages that are there already.
    pub(super) fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        let state = self.state.lock();
        let size = state.seen.map_or(0, |(size, _)| size);
        let end = first.saturating_add(to.len() as u64).min(size.div_ceil(PAGE)).max(first);
        for (&index, held) in state.pages.range(first..end) {
            to[(index - first) as usize] = Some(held.page.share());
        }
    }

    /// Gives the host what programs have written to pages in these bytes, by way of `line`.
    ///
    /// # Errors
    /// The host's: what it did not take is tried again the next time.
    pub(super) fn write_back(&self, node: &Node, bytes: Range<u64>, line: &HostLine) -> Result<()> {
        if !self.is_used() {
            return Ok(());
        }
        self.give_back(node, bytes, line).map(drop)
    }

    /// The same for who changes the file next: until the guard goes, nobody else gives the host bytes, which would be older.
    ///
    /// # Errors
    /// As above; EINTR once the calling program is to end.
    pub(super) fn give_back<'a>(
        &self,
        node: &'a Node,
        bytes: Range<u64>,
        line: &HostLine,
    ) -> Result<LongGuard<'a>> {
        // Whoever is about to do so has what was collected, which the host is to have when this returns.
        let alone = node.writing.lock(line)?;
        self.give_changes(node, bytes, line)?;
        Ok(alone)
    }

    fn give_changes(&self, node: &Node, bytes: Range<u64>, line: &HostLine) -> Result<()> {
        let mut next = bytes.start / PAGE;
        let end = bytes.end.div_ceil(PAGE);
        let mut result = Ok(());
        while next < end {
            let (changes, writer) = {
                let mut state = self.state.lock();
                let Some(writer) = state.writer.clone() else { return Ok(()) };
                let mut changes = Vec::new();
                let mut last = None;
                let soiled = state.pages.range_mut(next..end).filter(|(_, held)| held.base.is_some());
                for (&index, held) in soiled.take(BATCH) {
                    last = Some(index);
                    for range in held.changes() {
                        let mut bytes = vec![0; range.len()];
                        held.page.read(range.start, &mut bytes)?;
                        changes.push((index * PAGE + range.start as u64, bytes));
                    }
                }
                let Some(last) = last else { return result };
                next = last + 1;
                (changes, writer)
            };
            for (offset, bytes) in changes {
                if let Err(errno) = give(node, &writer, offset, &bytes, line) {
                    self.not_taken(offset, bytes.len());
                    result = Err(errno);
                }
            }
        }
        result
    }

    /// The host did not take these bytes.
    fn not_taken(&self, offset: u64, len: usize) {
        let start = (offset % PAGE) as usize;
        if let Some(held) = self.state.lock().pages.get_mut(&(offset / PAGE))
            && let Some(base) = &mut held.base
        {
            base[start..start + len].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    /// Nobody waits: pages that no mapping can write to any more, and that the host has, are copies from now on.
    pub(super) fn settle(&self) {
        let writer = {
            let mut state = self.state.lock();
            if self.writable.load(Ordering::Acquire) != 0 {
                return;
            }
            let mut left = false;
            for held in state.pages.values_mut() {
                let base = held.base.as_ref().map(|base| **base);
                let mut now = [0; LEN];
                if base.is_some_and(|base| held.page.read(0, &mut now).is_ok() && now == base) {
                    held.clean();
                }
                left |= held.base.is_some();
            }
            if left { None } else { state.writer.take() }
        };
        drop(writer);
    }

    /// These bytes of the file were written through `data`.
    ///
    /// # Errors
    /// The host's, for reading them.
    pub(super) fn reload(&self, node: &Node, data: &Data, bytes: Range<u64>) -> Result<()> {
        self.version.fetch_add(1, Ordering::SeqCst);
        if !self.is_used() || bytes.is_empty() {
            return Ok(());
        }
        let mut next = bytes.start / PAGE;
        loop {
            let found = {
                let state = self.state.lock();
                state.pages.range(next..bytes.end.div_ceil(PAGE)).next().map(|(&index, _)| index)
            };
            let Some(index) = found else { return Ok(()) };
            next = index + 1;
            let start = bytes.start.max(index * PAGE);
            let end = bytes.end.min((index + 1) * PAGE);
            let mut room = [0; LEN];
            let room = &mut room[..(end - start) as usize];
            let at = At { fd: data.fd.raw(), line: node.line() };
            let got = hostio::read(at, &mut IoDst::kernel(room), usize::MAX, Some(start), 0);
            let mut state = self.state.lock();
            match (got, state.pages.get_mut(&index)) {
                (Ok(got), Some(held)) => held.put((start % PAGE) as usize, &room[..got]),
                (Ok(_), None) => {}
                // Open for writing only: whoever needs it reads it anew.
                (Err(_), _) => {
                    let gone = state.pages.remove(&index);
                    drop(state);
                    drop(gone);
                    self.mappers.forget(self.identity(), index, index + 1, Forget::Originals);
                }
            }
        }
    }

    /// The file ends at `len` now.
    pub(super) fn cut(&self, len: u64) {
        self.version.fetch_add(1, Ordering::SeqCst);
        if !self.is_used() {
            return;
        }
        let gone = {
            let mut state = self.state.lock();
            let tail = (len % PAGE) as usize;
            if tail > 0
                && let Some(held) = state.pages.get_mut(&(len / PAGE))
            {
                held.put(tail, &[0; LEN][tail..]);
            }
            state.seen = None;
            state.pages.split_off(&len.div_ceil(PAGE))
        };
        drop(gone);
        self.mappers.forget(self.identity(), len.div_ceil(PAGE), u64::MAX, Forget::Everything);
    }

    /// The file has something else from `offset` on.
    pub(super) fn renew(&self, offset: u64) {
        self.version.fetch_add(1, Ordering::SeqCst);
        if !self.is_used() {
            return;
        }
        let gone = self.state.lock().pages.split_off(&(offset / PAGE));
        drop(gone);
        self.mappers.forget(self.identity(), offset / PAGE, u64::MAX, Forget::Originals);
    }

    /// The host says that the file has `size` bytes and was last written at `time`: pages that are no longer what it has go.
    pub(super) fn compare(&self, size: u64, time: Timestamp) {
        if !self.is_used() {
            return;
        }
        let (gone, cut) = {
            let mut state = self.state.lock();
            let before = state.seen.replace((size, time));
            if before == Some((size, time)) {
                return;
            }
            let mut gone: Vec<Held> = Vec::new();
            let end = size.div_ceil(PAGE);
            gone.extend(state.pages.split_off(&end).into_values());
            let clean: Vec<u64> =
                state.pages.iter().filter(|(_, held)| held.base.is_none()).map(|(&at, _)| at).collect();
            gone.extend(clean.iter().filter_map(|at| state.pages.remove(at)));
            (gone, before.is_some_and(|(before, _)| before > size))
        };
        self.version.fetch_add(1, Ordering::SeqCst);
        if gone.is_empty() && !cut {
            return;
        }
        drop(gone);
        self.mappers.forget(self.identity(), 0, u64::MAX, Forget::Originals);
        if cut {
            self.mappers.forget(self.identity(), size.div_ceil(PAGE), u64::MAX, Forget::Everything);
        }
    }

    /// Drops pages that are only copies.
    pub(super) fn drop_clean(&self) {
        if !self.is_used() {
            return;
        }
        let gone: Vec<Held> = {
            let mut state = self.state.lock();
            let clean: Vec<u64> =
                state.pages.iter().filter(|(_, held)| held.base.is_none()).map(|(&at, _)| at).collect();
            clean.iter().filter_map(|at| state.pages.remove(at)).collect()
        };
        drop(gone);
        self.mappers.forget(self.identity(), 0, u64::MAX, Forget::Originals);
    }
}

/// Has the host keep room for the page at `index`.
fn reserve(node: &Node, data: &Data, index: u64, size: u64) -> Result<()> {
    let offset = index * PAGE;
    let len = (size - offset).min(PAGE);
    let mode = c::FALLOC_FL_KEEP_SIZE;
    match node.line().call(|| change::allocate(data.fd.raw(), mode, offset, len)) {
        Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO) => Err(Errno::EFAULT),
        Err(Errno::EINTR) => Err(Errno::EINTR),
        // A file system that cannot says so when it is written to.
        _ => Ok(()),
    }
}

/// Writes `bytes` at `offset`, as far as the file goes.
fn give(node: &Node, writer: &Data, offset: u64, bytes: &[u8], line: &HostLine) -> Result<()> {
    let raw = line.call(|| host::statx(writer.fd.raw(), b"", libc::AT_EMPTY_PATH))?;
    debug_assert!(Id::of(&raw) == node.id, "a descriptor of another file");
    let len = (raw.stx_size.saturating_sub(offset)).min(bytes.len() as u64) as usize;
    let mut done = 0;
    node.changed();
    while done < len {
        let at = At { fd: writer.fd.raw(), line };
        let mut src = IoSrc::kernel(&bytes[done..len]);
        match hostio::write(at, &mut src, usize::MAX, Some(offset + done as u64), 0)? {
            0 => return Err(Errno::EIO),
            put => done += put,
        }
    }
    Ok(())
}
