//! The heap: dlmalloc over the arena's heap region, behind Rust's global allocator and libc's `malloc` family.
//!
//! libc's allocator has to be ours because the guest maps the arena only: anything else (a panic message, a thread's
//! bookkeeping) would drop out of ring 0 at the first touch.

use super::{granules, ledger};
use crate::sync::{Lock, Rank};
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};
use dlmalloc::{Allocator, Dlmalloc};

/// What every `malloc` result is aligned to (`max_align_t`).
const MALLOC_ALIGN: usize = 16;
/// How much of the end of a segment is worth giving back.
const TAIL: usize = 4 << 20;
/// How much more of the heap than after the last time is in use by nobody when it is worth looking for segments that are
/// free.
const WORTH: u64 = 8 << 20;

/// Feeds dlmalloc from the heap region, bottom up.
struct Source;

/// What of the heap nobody used when it was trimmed last, or at least since.
static UNUSED: Mark = Mark(AtomicU64::new(0));

/// How much is to be compared with.
struct Mark(AtomicU64);

impl Mark {
    /// Whether so much that nobody uses is worth a look.
    fn is_passed(&self, unused: u64) -> bool {
        unused.saturating_sub(self.0.fetch_min(unused, Ordering::Relaxed)) >= WORTH
    }

    /// So much is left after one.
    fn set(&self, unused: u64) {
        self.0.store(unused, Ordering::Relaxed);
    }
}

// SAFETY: `alloc` hands out disjoint, mapped memory of the region; what is taken back nobody uses any more.
unsafe impl Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        match granules::take(size as u64) {
            Some((base, size)) => (base as *mut u8, size as usize, 0),
            None => (core::ptr::null_mut(), 0, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, segment: *mut u8, size: usize, keep: usize) -> bool {
        let worth = size - keep >= TAIL;
        if worth {
            granules::give(segment as u64, size as u64, keep as u64);
        }
        worth
    }

    fn free(&self, segment: *mut u8, size: usize) -> bool {
        granules::give(segment as u64, size as u64, 0);
        true
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        false
    }

    fn page_size(&self) -> usize {
        4096
    }
}

static HEAP: Lock<Heap> =
    Lock::new(Rank::Heap, Heap { chunks: Dlmalloc::new_with_allocator(Source), live: 0 });

/// Whether nobody holds the heap's lock right now: what a crash report asks before it allocates.
pub fn is_free() -> bool {
    HEAP.try_lock().is_some()
}

/// The allocator, and how much of what it has is somebody's.
struct Heap {
    chunks: Dlmalloc<Source>,
    live: u64,
}

impl Heap {
    /// What of it nobody uses, bytes: what separates its chunks included.
    fn unused(&self) -> u64 {
        ledger::heap().saturating_sub(self.live)
    }

    fn malloc(&mut self, size: usize, align: usize) -> *mut u8 {
        // SAFETY: any size and power-of-two alignment is allowed.
        let ptr = unsafe { self.chunks.malloc(size, align) };
        self.taken(ptr)
    }

    fn calloc(&mut self, size: usize, align: usize) -> *mut u8 {
        // SAFETY: as for `malloc`.
        let ptr = unsafe { self.chunks.calloc(size, align) };
        self.taken(ptr)
    }

    fn taken(&mut self, ptr: *mut u8) -> *mut u8 {
        if !ptr.is_null() {
            // SAFETY: just allocated.
            self.live += unsafe { usable(ptr) } as u64;
        }
        ptr
    }

    /// # Safety
    /// `ptr` is from this heap; nobody uses it any more.
    unsafe fn free(&mut self, ptr: *mut u8) {
        // SAFETY: by contract.
        unsafe {
            self.live -= usable(ptr) as u64;
            self.chunks.c_free(ptr);
        }
    }

    /// # Safety
    /// `ptr` is from this heap, with this alignment; if the result is not null, nobody uses it any more. `old` is at most what it was allocated with.
    unsafe fn realloc(&mut self, ptr: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
        // SAFETY: by contract.
        let (before, moved) = unsafe { (usable(ptr), self.chunks.realloc(ptr, old, align, new)) };
        if !moved.is_null() {
            self.live -= before as u64;
        }
        self.taken(moved)
    }
}

/// What can be used of an allocation.
///
/// # Safety
/// `ptr` is from the heap and not freed.
unsafe fn usable(ptr: *mut u8) -> usize {
    // SAFETY: by contract; dlmalloc keeps the chunk's size, flags in its low bits, in the word before what it hands out.
    let head = unsafe { ptr.cast::<usize>().sub(1).read() };
    (head & !7) - size_of::<usize>()
}

/// Gives segments back that hold nothing.
pub fn trim() {
    let mut heap = HEAP.lock();
    // SAFETY: what is in use is not touched.
    let _given = unsafe { heap.chunks.trim(0) };
    let unused = heap.unused();
    drop(heap);
    granules::flush();
    UNUSED.set(unused);
}

/// The same if much was freed: to be called where that may be so.
///
/// What several have made at a time lies mixed, and is free as a whole when the last of them has let go of it. So it is
/// looked again whenever there is more that nobody uses, not only after the heap has grown.
pub fn trim_if_worth() {
    let unused = HEAP.lock().unused();
    if UNUSED.is_passed(unused) {
        trim();
    }
}

struct ArenaAlloc;

#[global_allocator]
static GLOBAL: ArenaAlloc = ArenaAlloc;

// SAFETY: dlmalloc upholds the contract; the lock serialises it.
unsafe impl GlobalAlloc for ArenaAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.lock().malloc(layout.size(), layout.align())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HEAP.lock().calloc(layout.size(), layout.align())
    }

    unsafe fn dealloc(&self, ptr: *mut u8, _: Layout) {
        // SAFETY: forwarded.
        unsafe { HEAP.lock().free(ptr) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: forwarded.
        unsafe { HEAP.lock().realloc(ptr, layout.size(), layout.align(), new_size) }
    }
}

/// Sets libc's `errno`, as the malloc family must on failure.
fn out_of_memory() -> *mut c_void {
    // SAFETY: libc's own thread-local.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    core::ptr::null_mut()
}

fn checked(ptr: *mut u8) -> *mut c_void {
    if ptr.is_null() { out_of_memory() } else { ptr.cast() }
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    checked(HEAP.lock().malloc(size, MALLOC_ALIGN))
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(total) => checked(HEAP.lock().calloc(total, MALLOC_ALIGN)),
        None => out_of_memory(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(ptr: *mut c_void) {
    if !ptr.is_null() {
        // SAFETY: the caller got `ptr` from this family (free(3)).
        unsafe { HEAP.lock().free(ptr.cast()) }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void {
    if ptr.is_null() {
        return malloc(size);
    }
    if size == 0 {
        // SAFETY: as for `free`.
        unsafe { free(ptr) };
        return core::ptr::null_mut();
    }
    // SAFETY: the caller got `ptr` from this family; at most what it has is kept.
    checked(unsafe { HEAP.lock().realloc(ptr.cast(), usable(ptr.cast()), MALLOC_ALIGN, size) })
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        // SAFETY: libc's own thread-local.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return core::ptr::null_mut();
    }
    checked(HEAP.lock().malloc(size, align.max(MALLOC_ALIGN)))
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    memalign(align, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> i32 {
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return libc::EINVAL;
    }
    let ptr = HEAP.lock().malloc(size, align.max(MALLOC_ALIGN));
    if ptr.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's out-pointer is valid for a write (posix_memalign(3)).
    unsafe { *out = ptr.cast() };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(ptr: *mut c_void) -> usize {
    if ptr.is_null() {
        return 0;
    }
    // SAFETY: the caller got `ptr` from this family.
    unsafe { usable(ptr.cast()) }
}

#[cfg(test)]
mod tests {
    use super::{AtomicU64, Mark, WORTH};
    use ring0::layout::{HEAP_BASE, HEAP_END};

    #[test]
    fn memory_that_is_freed_goes_back() {
        let before = crate::arena::ledger::heap();
        let large: Vec<Vec<u8>> = (0..16).map(|_| vec![1; 16 << 20]).collect();
        assert!(crate::arena::ledger::heap() >= before + (256 << 20));
        drop(large);
        super::trim();
        let after = crate::arena::ledger::heap();
        assert!(after < before + (64 << 20), "{before} bytes before, {after} after");
        assert!(vec![0_u8; 64 << 20].iter().all(|byte| *byte == 0));
    }

    /// Of several that fill the same segments, none can be given back when the first lets go, and all when the last does.
    #[test]
    fn what_several_made_is_looked_for_until_the_last_lets_go() {
        let mark = Mark(AtomicU64::new(0));
        assert!(!mark.is_passed(WORTH - 1));
        for gone in 1..=4 {
            assert!(mark.is_passed(gone * WORTH + WORTH / 2), "{gone} of them are gone");
            mark.set(gone * WORTH + WORTH / 2);
            assert!(!mark.is_passed(gone * WORTH + WORTH / 2));
        }
        mark.set(0);
        assert!(mark.is_passed(WORTH));
        mark.set(WORTH * 5);
        assert!(!mark.is_passed(WORTH), "it was used meanwhile");
        assert!(mark.is_passed(WORTH * 2), "and is not any more");
    }

    #[test]
    fn libc_and_rust_share_the_arena_heap() {
        // SAFETY: plain C allocation calls, each result freed once.
        unsafe {
            let p = libc::malloc(100);
            let rust = Box::new([0u8; 100]);
            for address in [p as u64, rust.as_ptr() as u64] {
                assert!((HEAP_BASE..HEAP_END).contains(&address), "{address:#x}");
            }
            assert!(super::malloc_usable_size(p) >= 100 && super::malloc_usable_size(p) < 200);
            let q = libc::realloc(p, 10_000);
            libc::memset(q, 1, 10_000);
            libc::free(q);
            let mut aligned = core::ptr::null_mut();
            assert_eq!(libc::posix_memalign(&mut aligned, 4096, 10), 0);
            assert_eq!(aligned as usize % 4096, 0);
            libc::free(aligned);
        }
    }
}
