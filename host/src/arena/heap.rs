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
/// How much the heap has grown when it is worth looking for segments that are free.
const GROWN: u64 = 8 << 20;

/// Feeds dlmalloc from the heap region, bottom up.
struct Source;

/// How large the heap was when it was trimmed last.
static TRIMMED: AtomicU64 = AtomicU64::new(0);

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

static HEAP: Lock<Dlmalloc<Source>> = Lock::new(Rank::Heap, Dlmalloc::new_with_allocator(Source));

/// Whether nobody holds the heap's lock right now: what a crash report asks before it allocates.
pub fn is_free() -> bool {
    HEAP.try_lock().is_some()
}

/// Gives segments back that hold nothing.
pub fn trim() {
    // SAFETY: what is in use is not touched.
    let _given = unsafe { HEAP.lock().trim(0) };
    granules::flush();
    TRIMMED.store(ledger::heap(), Ordering::Relaxed);
}

/// The same if the heap has grown a good deal: to be called where much was freed.
pub fn trim_if_grown() {
    let (now, before) = (ledger::heap(), TRIMMED.load(Ordering::Relaxed));
    if now < before {
        TRIMMED.store(now, Ordering::Relaxed);
    } else if now - before >= GROWN {
        trim();
    }
}

struct ArenaAlloc;

#[global_allocator]
static GLOBAL: ArenaAlloc = ArenaAlloc;

// SAFETY: dlmalloc upholds the contract; the lock serialises it.
unsafe impl GlobalAlloc for ArenaAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: forwarded.
        unsafe { HEAP.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: forwarded.
        unsafe { HEAP.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: forwarded.
        unsafe { HEAP.lock().free(ptr, layout.size(), layout.align()) }
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
    // SAFETY: any size is allowed.
    checked(unsafe { HEAP.lock().malloc(size, MALLOC_ALIGN) })
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: any size is allowed.
        Some(total) => checked(unsafe { HEAP.lock().calloc(total, MALLOC_ALIGN) }),
        None => out_of_memory(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(ptr: *mut c_void) {
    if !ptr.is_null() {
        // SAFETY: the caller got `ptr` from this family (free(3)).
        unsafe { HEAP.lock().c_free(ptr.cast()) }
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
    // SAFETY: the caller got `ptr` from this family.
    checked(unsafe { HEAP.lock().c_realloc(ptr.cast(), size) })
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        // SAFETY: libc's own thread-local.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return core::ptr::null_mut();
    }
    // SAFETY: any size and power-of-two alignment is allowed.
    checked(unsafe { HEAP.lock().malloc(size, align.max(MALLOC_ALIGN)) })
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
    // SAFETY: any size and power-of-two alignment is allowed.
    let ptr = unsafe { HEAP.lock().malloc(size, align.max(MALLOC_ALIGN)) };
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
    // SAFETY: the caller got `ptr` from this family; dlmalloc keeps the chunk size, flags in its low bits, in the word
    // before the payload.
    let head = unsafe { ptr.cast::<usize>().sub(1).read() };
    (head & !7) - size_of::<usize>()
}

#[cfg(test)]
mod tests {
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
