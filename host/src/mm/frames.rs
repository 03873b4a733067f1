//! Page frames: who owns which 4 KiB of the arena's frame window, and how many use it.
//!
//! The window is used in chunks of 2 MiB. Inside a chunk free frames are bits, lowest first, so that neighbours
//! are handed out together (few host mappings on systrap, large pages behind them on kvm). A frame that was never
//! used since the host gave its chunk is known to be zero; others are zeroed when they are handed out. Chunks that
//! become wholly free go back to the host once more than [`KEEP_FREE`] bytes (or an eighth of what is in use) are
//! free: in batches of a chunk, never one page at a time, so that the steady state makes no host call. Chunks that the host
//! may have given memory for are what the ledger counts.
//!
//! Counts live beside the window, not in it: programs can be given any byte of the window, the kernel's own
//! bookkeeping never. A count is the number of places that name the frame: page tables, page caches, pins.
//! Pages in the file window are named like frames but not counted; their file cache keeps them mapped.
//!
//! Locks: the pool's lock is a leaf, below every other lock of `mm`.

use super::raw::{self, CHUNK_FRAMES, CHUNKS, PAGE};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::platform::Frame;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU64, Ordering};
use ring0::layout;

pub use super::page::Page;
pub use super::raw::fixup;

/// Free memory kept for reuse before chunks go back to the host.
const KEEP_FREE: u64 = 16 << 20;
const WORDS: usize = CHUNK_FRAMES / 64;
const CHUNK_LEN: u64 = CHUNK_FRAMES as u64 * PAGE;

/// The pool of this process's frame window.
static POOL: Lock<Pool> = Lock::new(Rank::Frames, Pool::new());
/// Frames in use, for `/proc/meminfo` and limits. Updated under the pool's lock.
static USED: AtomicU64 = AtomicU64::new(0);
/// Chunks that are charged. Updated under the pool's lock.
static CHARGED: AtomicU64 = AtomicU64::new(0);
/// The frame that unwritten anonymous memory reads from (0: not made yet).
static ZERO: AtomicU64 = AtomicU64::new(0);

struct Chunk {
    /// Bit set: free.
    free: [u64; WORDS],
    /// Bit set: free and known to be zero.
    clean: [u64; WORDS],
    count: u16,
    /// On the pool's list of chunks with free frames.
    listed: bool,
    /// The ledger knows of it: it is not as the host first gave it.
    charged: bool,
}

struct Pool {
    chunks: Vec<Chunk>,
    /// Chunks that may have free frames (checked when popped).
    available: Vec<u32>,
    /// Where single frames come from.
    current: usize,
    /// Free frames that are not known to be zero: what the host could have back.
    dirty: u64,
    used: u64,
    limit: u64,
    counts: raw::SpareCounts,
}

impl Pool {
    const fn new() -> Self {
        Pool {
            chunks: Vec::new(),
            available: Vec::new(),
            current: 0,
            dirty: 0,
            used: 0,
            limit: (CHUNKS * CHUNK_FRAMES) as u64,
            counts: raw::SpareCounts::new(),
        }
    }

    /// Takes up to `want` (1..=64) neighbouring frames: first address, how many, which of them are zero (bits).
    fn take(&mut self, want: u32) -> Result<(u64, u32, u64)> {
        let want = u64::from(want).min(self.limit.saturating_sub(self.used)) as u32;
        if want == 0 {
            return Err(Errno::ENOMEM);
        }
        loop {
            if let Some(chunk) = self.chunks.get_mut(self.current)
                && chunk.count != 0
                && let Some(word) = chunk.free.iter().position(|&bits| bits != 0)
            {
                let shift = chunk.free[word].trailing_zeros();
                let count = (chunk.free[word] >> shift).trailing_ones().min(want);
                let mask = (u64::MAX >> (64 - count)) << shift;
                let clean = (chunk.clean[word] & mask) >> shift;
                chunk.free[word] &= !mask;
                chunk.clean[word] &= !mask;
                chunk.count -= count as u16;
                self.dirty -= u64::from(count - clean.count_ones());
                self.used += u64::from(count);
                USED.store(self.used, Ordering::Relaxed);
                let index = (self.current * CHUNK_FRAMES + word * 64) as u64 + u64::from(shift);
                return Ok((layout::FRAMES_BASE + index * PAGE, count, clean));
            }
            self.next_chunk()?;
        }
    }

    #[cold]
    fn next_chunk(&mut self) -> Result<()> {
        while let Some(index) = self.available.pop() {
            let chunk = &mut self.chunks[index as usize];
            chunk.listed = false;
            if chunk.count != 0 {
                if !chunk.charged && !charge() {
                    chunk.listed = true;
                    self.available.push(index);
                    return Err(Errno::ENOMEM);
                }
                chunk.charged = true;
                self.current = index as usize;
                return Ok(());
            }
        }
        let index = self.chunks.len();
        if index == CHUNKS || !charge() {
            return Err(Errno::ENOMEM);
        }
        self.counts.install(index);
        self.chunks.push(Chunk {
            free: [u64::MAX; WORDS],
            clean: [u64::MAX; WORDS],
            count: CHUNK_FRAMES as u16,
            listed: false,
            charged: true,
        });
        self.current = index;
        Ok(())
    }

    /// Marks a frame free. Returns its chunk if that should go back to the host.
    fn give(&mut self, frame: Frame) -> Option<usize> {
        let index = ((frame.0 - layout::FRAMES_BASE) / PAGE) as usize;
        let (at, bit) = (index / CHUNK_FRAMES, 1u64 << (index % 64));
        let chunk = &mut self.chunks[at];
        let word = &mut chunk.free[index % CHUNK_FRAMES / 64];
        assert!(*word & bit == 0, "frame freed twice");
        *word |= bit;
        chunk.count += 1;
        self.dirty += 1;
        self.used -= 1;
        USED.store(self.used, Ordering::Relaxed);
        if !chunk.listed && at != self.current {
            chunk.listed = true;
            self.available.push(at as u32);
        }
        let full = usize::from(chunk.count) == CHUNK_FRAMES && at != self.current;
        (full && self.dirty * PAGE > KEEP_FREE.max(self.used * PAGE / 8)).then_some(at)
    }

    /// Takes a wholly free chunk out, so that it can be released without the lock.
    fn withdraw(&mut self, at: usize) -> bool {
        let chunk = &mut self.chunks[at];
        if usize::from(chunk.count) != CHUNK_FRAMES {
            return false;
        }
        self.dirty -=
            (0..WORDS).map(|w| u64::from((chunk.free[w] & !chunk.clean[w]).count_ones())).sum::<u64>();
        chunk.free = [0; WORDS];
        chunk.clean = [0; WORDS];
        chunk.count = 0;
        true
    }

    fn put_back(&mut self, at: usize, clean: bool) {
        let chunk = &mut self.chunks[at];
        chunk.free = [u64::MAX; WORDS];
        chunk.clean = [if clean { u64::MAX } else { 0 }; WORDS];
        chunk.count = CHUNK_FRAMES as u16;
        if clean {
            chunk.charged = false;
            CHARGED.fetch_sub(1, Ordering::Relaxed);
            ledger::uncharge(CHUNK_LEN);
        } else {
            self.dirty += CHUNK_FRAMES as u64;
        }
        if !chunk.listed && at != self.current {
            chunk.listed = true;
            // Below the others: chunks in use are preferred to ones that cost memory again.
            self.available.insert(0, at as u32);
        }
    }
}

/// Has the ledger count one more chunk; false: there is no room for it.
fn charge() -> bool {
    let charged = ledger::try_charge(CHUNK_LEN);
    CHARGED.fetch_add(u64::from(charged), Ordering::Relaxed);
    charged
}

/// A zeroed frame with one reference.
///
/// # Errors
/// ENOMEM when the window (or the limit) is used up.
#[inline]
pub fn alloc() -> Result<Frame> {
    let (addr, _, clean) = POOL.lock().take(1)?;
    if clean == 0 {
        raw::zero(addr, PAGE as usize);
    }
    set_count(addr, 1);
    Ok(Frame(addr))
}

/// A frame with one reference whose bytes are anything: the caller overwrites all of them before anybody sees it.
///
/// # Errors
/// ENOMEM when the window (or the limit) is used up.
#[inline]
pub fn alloc_dirty() -> Result<Frame> {
    let (addr, ..) = POOL.lock().take(1)?;
    set_count(addr, 1);
    Ok(Frame(addr))
}

/// Fills `to` with zeroed frames, neighbours where possible, one reference each; returns how many it got (short
/// only when memory is short).
///
/// # Errors
/// ENOMEM if not even one.
pub fn alloc_many(to: &mut [Frame]) -> Result<usize> {
    take_many(to, |addr| raw::zero(addr, PAGE as usize))
}

/// The same of frames whose bytes are anything: see [`alloc_dirty`].
///
/// # Errors
/// ENOMEM if not even one.
pub fn alloc_many_dirty(to: &mut [Frame]) -> Result<usize> {
    take_many(to, |_| {})
}

#[inline(always)]
fn take_many(to: &mut [Frame], clear: impl Fn(u64)) -> Result<usize> {
    let mut done = 0;
    while done < to.len() {
        let want = (to.len() - done).min(64) as u32;
        let (addr, count, clean) = match POOL.lock().take(want) {
            Ok(taken) => taken,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        };
        for i in 0..u64::from(count) {
            let addr = addr + i * PAGE;
            if clean >> i & 1 == 0 {
                clear(addr);
            }
            set_count(addr, 1);
            to[done] = Frame(addr);
            done += 1;
        }
    }
    Ok(done)
}

#[inline]
fn set_count(addr: u64, value: u32) {
    if let Some(count) = raw::count(addr) {
        count.store(value, Ordering::Relaxed);
    }
}

/// Adds a reference. The caller knows of one that cannot go away meanwhile.
#[inline]
pub fn get_ref(frame: Frame) {
    if let Some(count) = raw::count(frame.0) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Drops a reference; the last one frees the frame. Translations to it must be gone from every worker by then
/// (`AddressSpace::sync`).
#[inline]
pub fn put_ref(frame: Frame) {
    if unref(frame) {
        give_all(&[frame]);
    }
}

/// Drops a reference of each frame.
pub fn put_many(frames: &[Frame]) {
    // Counts first, then the pool's lock once per batch.
    let mut batch = [Frame(0); 64];
    let mut len = 0;
    for &frame in frames {
        if unref(frame) {
            batch[len] = frame;
            len += 1;
            if len == batch.len() {
                give_all(&batch);
                len = 0;
            }
        }
    }
    if len != 0 {
        give_all(&batch[..len]);
    }
}

#[inline]
fn unref(frame: Frame) -> bool {
    let Some(count) = raw::count(frame.0) else { return false };
    // Sole owner: nobody can add a reference, so no need for a locked instruction.
    if count.load(Ordering::Acquire) == 1 {
        count.store(0, Ordering::Relaxed);
        return true;
    }
    let before = count.fetch_sub(1, Ordering::AcqRel);
    assert!(before != 0, "frame released twice");
    before == 1
}

fn give_all(frames: &[Frame]) {
    let mut release = None;
    let mut pool = POOL.lock();
    for &frame in frames {
        release = pool.give(frame).or(release);
    }
    if let Some(at) = release
        && pool.withdraw(at)
    {
        drop(pool);
        release_chunk(at);
    }
}

/// Gives a chunk that was withdrawn back to the host.
fn release_chunk(at: usize) {
    let clean = raw::release(layout::FRAMES_BASE + at as u64 * CHUNK_LEN, CHUNK_LEN);
    POOL.lock().put_back(at, clean);
}

/// Gives all chunks back that are wholly free, however little that is.
pub fn trim() {
    let mut at = 0;
    loop {
        let mut pool = POOL.lock();
        let free = |index: &usize| {
            let chunk = &pool.chunks[*index];
            usize::from(chunk.count) == CHUNK_FRAMES && chunk.charged && *index != pool.current
        };
        let Some(found) = (at..pool.chunks.len()).find(free) else { return };
        let withdrawn = pool.withdraw(found);
        drop(pool);
        if withdrawn {
            release_chunk(found);
        }
        at = found + 1;
    }
}

/// Whether the caller's reference is the only one (never true for pages of the file window).
#[inline]
pub fn is_sole(frame: Frame) -> bool {
    raw::count(frame.0).is_some_and(|count| count.load(Ordering::Acquire) == 1)
}

/// How many references there are to a frame; none for pages of the file window, which nobody counts.
pub(super) fn references(frame: Frame) -> Option<u32> {
    raw::count(frame.0).map(|count| count.load(Ordering::Acquire))
}

/// The frame that unwritten anonymous memory reads from, with a reference for the caller.
///
/// # Errors
/// ENOMEM.
#[inline]
pub fn zero() -> Result<Frame> {
    let mut addr = ZERO.load(Ordering::Acquire);
    if addr == 0 {
        let made = alloc()?;
        match ZERO.compare_exchange(0, made.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => addr = made.0,
            Err(other) => {
                put_ref(made);
                addr = other;
            }
        }
    }
    get_ref(Frame(addr));
    Ok(Frame(addr))
}

/// Whether this is the shared zero frame.
#[inline]
pub fn is_zero(frame: Frame) -> bool {
    frame.0 == ZERO.load(Ordering::Relaxed)
}

/// Whether the frame is a page of a host file (in the file window).
#[inline]
pub fn is_host_file(frame: Frame) -> bool {
    frame.0 < layout::FRAMES_BASE
}

/// Bytes of frames in use.
pub fn used_bytes() -> u64 {
    USED.load(Ordering::Relaxed) * PAGE
}

/// Bytes of frames that are free but counted by the ledger: the next to come gets them.
pub fn spare_bytes() -> u64 {
    (CHARGED.load(Ordering::Relaxed) * CHUNK_LEN).saturating_sub(used_bytes())
}

/// Most bytes of frames that can be in use: the sandbox's limit, or the whole window.
pub fn limit_bytes() -> u64 {
    (POOL.lock().limit * PAGE).min(ledger::limit())
}

/// Sets the limit (what is in use already stays).
#[cfg(test)]
pub(crate) fn set_limit_bytes(bytes: u64) {
    POOL.lock().limit = (bytes / PAGE).min((CHUNKS * CHUNK_FRAMES) as u64);
}
