//! What of the host's memory this process has, and how much it may have.
//!
//! Counted where memory enters and leaves, not where it is used: the heap in granules, page frames in chunks, page tables,
//! kernel stacks and what the platform has outside by their own blocks. So nothing that a program can make escapes the
//! count, and what allocates from a block that is counted already pays nothing.
//!
//! Two limits. Above the *soft* one memory is short: whoever finds that says so (the alarm), and the kernel makes room
//! before any task runs on ([`crate::kernel`], `shortage`). Between the two is what tasks may take until they get to the
//! place where that is done. Above the *hard* one there are no more pages for programs. The kernel's own heap cannot fail:
//! it goes on, into what is left to the host beside us.
//!
//! What outlives every process is bounded for itself, for no end of a process gives it back: the contents of files, and
//! names, attributes and whatever else the heap holds, have three quarters of the hard limit (ENOSPC). Of these the heap
//! is not known by kinds: what programs make of it and take along counts, too.
//!
//! One of each per process, like the arena whose memory it counts.

use crate::abi::{Errno, Result};
use core::sync::atomic::{AtomicU64, Ordering};
use ring0::layout::{HEAP_BASE, HEAP_END};
use std::sync::OnceLock;

/// Of the hard limit, the part above the soft one: one of so many, and no more bytes than that.
const SLACK_PART: u64 = 16;
const SLACK_MOST: u64 = 128 << 20;
/// The heap's addresses are limited, too: memory is short long before they are used up.
const HEAP_SHORT: u64 = (HEAP_END - HEAP_BASE) / 4 * 3;

static USED: AtomicU64 = AtomicU64::new(0);
static HEAP: AtomicU64 = AtomicU64::new(0);
static HARD: AtomicU64 = AtomicU64::new(u64::MAX);
static SOFT: AtomicU64 = AtomicU64::new(u64::MAX);
/// What of a limit outside is not programs': the image and whatever else nobody counts.
static BESIDE: AtomicU64 = AtomicU64::new(0);
/// What files hold, and what of the caller's files is only cached.
static FILES: AtomicU64 = AtomicU64::new(0);
static CACHED: AtomicU64 = AtomicU64::new(0);
static WATCH: OnceLock<Watch> = OnceLock::new();

/// What is called when something happens here: at once, with locks held, so they only take a note.
pub struct Watch {
    /// Memory was found to be short.
    pub alarm: Box<dyn Fn() + Send + Sync>,
    /// The heap has grown by so many bytes, for whoever runs at the moment.
    pub grown: Box<dyn Fn(u64) + Send + Sync>,
}

/// Sets the hard limit, bytes. What is in use already stays.
pub fn set_limit(bytes: u64) {
    HARD.store(bytes, Ordering::Relaxed);
    SOFT.store(bytes - (bytes / SLACK_PART).min(SLACK_MOST), Ordering::Relaxed);
}

/// The hard limit, bytes; `u64::MAX` as long as there is none.
pub fn limit() -> u64 {
    HARD.load(Ordering::Relaxed)
}

/// Says that the hard limit leaves so many bytes of one outside to what is not counted here.
pub fn set_beside(bytes: u64) {
    BESIDE.store(bytes, Ordering::Relaxed);
}

/// Bytes that the hard limit leaves to what is not counted here: programs are shown that they are used.
pub fn beside() -> u64 {
    BESIDE.load(Ordering::Relaxed)
}

/// Bytes in use, counted in blocks.
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed)
}

/// Bytes of these that are the heap's.
pub fn heap() -> u64 {
    HEAP.load(Ordering::Relaxed)
}

/// Says who watches; the first counts.
pub fn watch(watch: Watch) {
    let _second = WATCH.set(watch);
}

/// Bytes that files can hold altogether.
pub fn files_limit() -> u64 {
    limit() / 4 * 3
}

/// Bytes that they can still take.
pub fn files_left() -> u64 {
    files_limit().saturating_sub(files() + heap())
}

/// Bytes that files hold.
pub fn files() -> u64 {
    FILES.load(Ordering::Relaxed)
}

/// Bytes of the caller's files that are in memory and can be had again.
pub fn cached() -> u64 {
    CACHED.load(Ordering::Relaxed)
}

/// Whether there is room for `bytes` more of what outlives its maker. The heap, where it will be, counts them.
///
/// # Errors
/// ENOSPC.
pub fn admit(bytes: u64) -> Result<()> {
    if bytes <= files_left() {
        return Ok(());
    }
    // What the heap has got back counts until somebody looks.
    super::trim();
    if bytes <= files_left() { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Counts what a file is about to hold.
///
/// # Errors
/// ENOSPC.
pub fn store(bytes: u64) -> Result<()> {
    admit(bytes)?;
    FILES.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// Takes back what was counted by [`store`].
pub fn unstore(bytes: u64) {
    FILES.fetch_sub(bytes, Ordering::Relaxed);
}

/// Counts what is cached.
pub fn cache(bytes: u64) {
    CACHED.fetch_add(bytes, Ordering::Relaxed);
}

/// See [`cache`].
pub fn uncache(bytes: u64) {
    CACHED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Whether room has to be made.
pub fn is_short() -> bool {
    excess() != 0
}

/// Bytes that are in use beyond what may be before memory is short.
pub fn excess() -> u64 {
    let memory = used().saturating_sub(SOFT.load(Ordering::Relaxed));
    memory.max(heap().saturating_sub(HEAP_SHORT))
}

/// Counts memory that somebody is about to have, whatever the limit.
pub(crate) fn charge(bytes: u64) {
    USED.fetch_add(bytes, Ordering::Relaxed);
    if is_short() {
        alarm();
    }
}

/// Counts memory that is to be had only within the limit. False: it is not.
#[must_use]
pub(crate) fn try_charge(bytes: u64) -> bool {
    let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit());
    let charged = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
    if !charged || is_short() {
        alarm();
    }
    charged
}

/// Takes back what was counted.
pub(crate) fn uncharge(bytes: u64) {
    USED.fetch_sub(bytes, Ordering::Relaxed);
}

/// The same for the heap.
pub(super) fn charge_heap(bytes: u64) {
    HEAP.fetch_add(bytes, Ordering::Relaxed);
    if let Some(watch) = WATCH.get() {
        (watch.grown)(bytes);
    }
    charge(bytes);
}

/// See [`charge_heap`].
pub(super) fn uncharge_heap(bytes: u64) {
    HEAP.fetch_sub(bytes, Ordering::Relaxed);
    uncharge(bytes);
}

#[cold]
fn alarm() {
    if let Some(watch) = WATCH.get() {
        (watch.alarm)();
    }
}
