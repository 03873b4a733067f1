//! The image itself, as it was assembled into this program.

use crate::mm::PAGE_SIZE;
use crate::time::published;

// What the assembly takes for granted: pairs that it loads at once, the sequence in front, the shift.
const _: () = assert!(
    published::SEQUENCE == 0
        && published::VALID_TICKS == published::BASE_TICKS + 1
        && published::RATE == published::BASE_NS + 1
        && published::REALTIME_OFFSET == published::LATEST + 1
        && published::SHIFT == 32
);

/// Clocks that are computed from the data page: REALTIME, MONOTONIC, MONOTONIC_RAW, both coarse ones, BOOTTIME, TAI.
const CLOCKS: u32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11;
/// Those of them that show the time of day.
const REALTIME_CLOCKS: u32 = 1 << 0 | 1 << 5 | 1 << 11;

core::arch::global_asm!(
    ".set VDSO_DATA_SIZE, {data_size}",
    ".set VDSO_SEQUENCE, {sequence}",
    ".set VDSO_VALID_TICKS, {valid_ticks}",
    ".set VDSO_BASE_TICKS, {base_ticks}",
    ".set VDSO_BASE_NS, {base_ns}",
    ".set VDSO_RATE, {rate}",
    ".set VDSO_REALTIME_OFFSET, {realtime_offset}",
    ".set VDSO_LATEST, {latest}",
    ".set VDSO_CLOCKS, {clocks}",
    ".set VDSO_REALTIME_CLOCKS, {realtime_clocks}",
    #[cfg(target_arch = "x86_64")]
    include_str!("x86_64.S"),
    #[cfg(target_arch = "aarch64")]
    include_str!("aarch64.S"),
    include_str!("elf.S"),
    data_size = const PAGE_SIZE,
    sequence = const published::SEQUENCE * 8,
    valid_ticks = const published::VALID_TICKS * 8,
    base_ticks = const published::BASE_TICKS * 8,
    base_ns = const published::BASE_NS * 8,
    rate = const published::RATE * 8,
    realtime_offset = const published::REALTIME_OFFSET * 8,
    latest = const published::LATEST * 8,
    clocks = const CLOCKS,
    realtime_clocks = const REALTIME_CLOCKS,
);

unsafe extern "C" {
    safe static vdso_image: u8;
    safe static vdso_image_end: u8;
    #[cfg(target_arch = "aarch64")]
    safe static vdso_rt_sigreturn: u8;
}

/// All bytes of it.
pub(super) fn bytes() -> &'static [u8] {
    // SAFETY: both labels are elf.S's, around bytes that are never written.
    unsafe {
        core::slice::from_raw_parts(&raw const vdso_image, offset_of(&raw const vdso_image_end) as usize)
    }
}

/// Where in it signal handlers return to, if that is its business.
pub(super) fn rt_sigreturn() -> Option<u64> {
    #[cfg(target_arch = "aarch64")]
    return Some(offset_of(&raw const vdso_rt_sigreturn));
    #[cfg(target_arch = "x86_64")]
    None
}

fn offset_of(label: *const u8) -> u64 {
    label as u64 - &raw const vdso_image as u64
}
