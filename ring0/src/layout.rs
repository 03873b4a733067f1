//! Where things live. Guest-physical address = host-virtual address for image and arena.

pub mod fixed;

/// Lowest address of the `pillbox` executable as linked (static, non-PIE, so within the reach of 32-bit relocations).
pub const IMAGE_BASE: u64 = 0x7000_0000;
/// End of the window kept for the image: programs cannot map below it once at or above [`IMAGE_BASE`]. What is above
/// belongs to Wine and AddressSanitizer.
pub const IMAGE_END: u64 = 0x7800_0000;

const GIB: u64 = 1 << 30;

/// The arena: fits a 39-bit host address space, with room above for the host process's own stack and mappings, and a
/// 39-bit guest-physical space. What is below belongs to sanitizers on aarch64, to Go and to compressed heaps.
pub const ARENA_BASE: u64 = 384 * GIB;
/// One past the arena's last byte.
pub const ARENA_END: u64 = 496 * GIB;

/// Per-CPU blocks and whatever else the entry code needs; also mapped in the kernel half.
pub const PERCPU_BASE: u64 = ARENA_BASE;
/// One past the per-CPU blocks.
pub const PERCPU_END: u64 = PERCPU_BASE + GIB;
/// Page-table pages.
pub const TABLES_BASE: u64 = PERCPU_END;
/// One past the page-table pages.
pub const TABLES_END: u64 = TABLES_BASE + 5 * GIB;
/// Kernel stacks of tasks and workers (guard page below each).
pub const STACKS_BASE: u64 = TABLES_END;
/// One past the kernel stacks.
pub const STACKS_END: u64 = STACKS_BASE + 8 * GIB;
/// The heap (Rust's global allocator and libc's malloc family).
pub const HEAP_BASE: u64 = STACKS_END;
/// One past the heap.
pub const HEAP_END: u64 = HEAP_BASE + 10 * GIB;
/// Host files mapped read-only in chunks.
pub const FILES_BASE: u64 = HEAP_END;
/// One past the file window.
pub const FILES_END: u64 = FILES_BASE + 24 * GIB;
/// Application memory: page frames handed out by `mm`.
pub const FRAMES_BASE: u64 = FILES_END;
/// One past the last page frame.
pub const FRAMES_END: u64 = ARENA_END;

const _: () = assert!(FRAMES_BASE < FRAMES_END && ARENA_END <= 1 << 39);
const _: () = assert!(fixed::leaves_free(IMAGE_BASE, IMAGE_END) && fixed::leaves_free(ARENA_BASE, ARENA_END));
