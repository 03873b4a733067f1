//! The bytes of page frames: the only unsafe code of `mm`.
//!
//! Frames are shared with running user code and with the host's page cache, so nothing here ever forms a
//! reference to them: bytes move by raw copies and atomics. What makes these functions safe to call is the
//! window check: [`layout::FILES_BASE`]..[`layout::FRAMES_END`] holds no Rust object, ever, so no copy can break
//! one. (Private fields elsewhere take no part in the proof.)
//!
//! Host-file pages can vanish when the host truncates the file. Copies *from* the file window go
//! through [`guarded`], whose one faulting instruction is listed for the host's SIGBUS/SIGSEGV handlers in
//! [`fixup`]; ordinary frames have no such failure and use plain copies.

use crate::hostfd::HostFd;
use crate::hostsys;
use crate::hostsys::file::{IoVec, MAX_PIECES};
use crate::hostsys::socket;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use ring0::layout;

/// Bytes per frame.
pub(super) const PAGE: u64 = 4096;
/// Frames per chunk: the unit in which memory is taken from the window and given back to the host (2 MiB).
pub(super) const CHUNK_FRAMES: usize = 512;
/// Chunks in the frame window.
pub(super) const CHUNKS: usize =
    ((layout::FRAMES_END - layout::FRAMES_BASE) / (PAGE * CHUNK_FRAMES as u64)) as usize;

const _: () = assert!(layout::FILES_END == layout::FRAMES_BASE, "one range check covers both windows");

/// Part of a host-file page that is gone (the file was truncated under the mapping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

#[inline]
#[track_caller]
fn check_read(addr: u64, len: usize) {
    assert!(addr >= layout::FILES_BASE && len as u64 <= layout::FRAMES_END.wrapping_sub(addr), "not a frame");
}

#[inline]
#[track_caller]
fn check_write(addr: u64, len: usize) {
    assert!(
        addr >= layout::FRAMES_BASE && len as u64 <= layout::FRAMES_END.wrapping_sub(addr),
        "not a frame"
    );
}

/// Copies frame bytes out.
#[inline]
pub(super) fn read(addr: u64, to: &mut [u8]) -> Result<(), Gone> {
    check_read(addr, to.len());
    // SAFETY: the source is frame memory (checked), the target a live exclusive slice; they cannot overlap.
    unsafe { copy(to.as_mut_ptr() as u64, addr, to.len()) }
}

/// Copies bytes into a frame.
#[inline]
pub(super) fn write(addr: u64, from: &[u8]) {
    check_write(addr, from.len());
    // SAFETY: the target is frame memory (checked), which holds no Rust object and is always backed.
    unsafe { move_bytes(addr, from.as_ptr() as u64, from.len()) }
}

/// Copies between frames, which may be the same one (the result is then as of memmove).
#[inline]
pub(super) fn copy_between(to: u64, from: u64, len: usize) -> Result<(), Gone> {
    check_read(from, len);
    check_write(to, len);
    if from < layout::FRAMES_BASE {
        // SAFETY: both sides are frame memory (checked), and a file page never overlaps an ordinary frame.
        return unsafe { guarded(to, from, len) };
    }
    // SAFETY: both sides are frame memory (checked).
    unsafe { core::ptr::copy(from as *const u8, to as *mut u8, len) };
    Ok(())
}

/// Zeroes part of a frame.
#[inline]
pub(super) fn zero(addr: u64, len: usize) {
    check_write(addr, len);
    if len as u64 == PAGE && addr.is_multiple_of(PAGE) {
        // SAFETY: a whole aligned frame (checked).
        unsafe { zero_page(addr) }
    } else if len == 1 {
        // SAFETY: frame memory (checked).
        unsafe { (addr as *mut u8).write(0) }
    } else {
        // SAFETY: frame memory (checked).
        unsafe { core::ptr::write_bytes(addr as *mut u8, 0, len) }
    }
}

/// Copies a whole page into an ordinary frame.
#[inline]
pub(super) fn copy_page(to: u64, from: u64) -> Result<(), Gone> {
    copy_between(to, from, PAGE as usize)
}

/// The value of an aligned word of an ordinary or file frame, as one access.
#[inline]
pub(super) fn load_u32(addr: u64) -> Result<u32, Gone> {
    check_read(addr, 4);
    if addr < layout::FRAMES_BASE {
        let mut bytes = [0; 4];
        read(addr, &mut bytes)?;
        return Ok(u32::from_ne_bytes(bytes));
    }
    Ok(atomic_u32(addr).load(Ordering::SeqCst))
}

/// An aligned word of an ordinary frame as an atomic.
#[inline]
pub(super) fn atomic_u32(addr: u64) -> &'static AtomicU32 {
    check_write(addr, 4);
    assert!(addr.is_multiple_of(4), "unaligned");
    // SAFETY: frame memory is mapped for the life of the process and accessed by others only through their own
    // instructions, for which an atomic is the right type; aligned (checked).
    unsafe { AtomicU32::from_ptr(addr as *mut u32) }
}

/// The same of eight bytes.
pub(super) fn atomic_u64(addr: u64) -> &'static AtomicU64 {
    check_write(addr, 8);
    assert!(addr.is_multiple_of(8), "unaligned");
    // SAFETY: as above.
    unsafe { AtomicU64::from_ptr(addr as *mut u64) }
}

/// # Safety
/// `from..from+len` and `to..to+len` are mapped, do not overlap, and writing the target breaks no Rust object;
/// a source below `FRAMES_BASE` is a host-file page.
#[inline]
unsafe fn copy(to: u64, from: u64, len: usize) -> Result<(), Gone> {
    if from < layout::FRAMES_BASE {
        // SAFETY: passed on.
        return unsafe { guarded(to, from, len) };
    }
    // SAFETY: passed on.
    unsafe { move_bytes(to, from, len) };
    Ok(())
}

/// Copies; the sizes that most system calls have without a call.
///
/// # Safety
/// As [`copy`], from an ordinary frame or Rust memory.
#[inline(always)]
unsafe fn move_bytes(to: u64, from: u64, len: usize) {
    // SAFETY: passed on; unaligned accesses need no more.
    unsafe {
        match len {
            1 => (to as *mut u8).write(*(from as *const u8)),
            4 => (to as *mut u32).write_unaligned((from as *const u32).read_unaligned()),
            8 => (to as *mut u64).write_unaligned((from as *const u64).read_unaligned()),
            16 => (to as *mut [u64; 2]).write_unaligned((from as *const [u64; 2]).read_unaligned()),
            _ => core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, len),
        }
    }
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pillbox_guarded,\"ax\",@progbits",
    "pillbox_guarded:",
    "mov rcx, rdx",
    "pillbox_guarded_access:",
    "rep movsb",
    "pillbox_guarded_out:",
    "mov rax, rcx",
    "ret",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pillbox_guarded,\"ax\",@progbits",
    "pillbox_guarded:",
    "cmp x2, #8",
    "b.lo 2f",
    "pillbox_guarded_access:",
    "1: ldr x3, [x1]",
    "str x3, [x0], #8",
    "add x1, x1, #8",
    "sub x2, x2, #8",
    "cmp x2, #8",
    "b.hs 1b",
    "2: cbz x2, pillbox_guarded_out",
    "3: ldrb w3, [x1]",
    "strb w3, [x0], #1",
    "add x1, x1, #1",
    "subs x2, x2, #1",
    "b.ne 3b",
    "pillbox_guarded_out:",
    "mov x0, x2",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    /// Copies `len` bytes and returns how many it could not.
    fn pillbox_guarded(to: u64, from: u64, len: usize) -> usize;
    fn pillbox_guarded_access();
    fn pillbox_guarded_out();
}

/// # Safety
/// As [`copy`], but the source may fault.
unsafe fn guarded(to: u64, from: u64, len: usize) -> Result<(), Gone> {
    // SAFETY: passed on; a fault in there is fixed up by the host's signal handlers.
    if unsafe { pillbox_guarded(to, from, len) } == 0 { Ok(()) } else { Err(Gone) }
}

/// Where to continue when the instruction at `ip` took a SIGBUS or SIGSEGV: an entry of the exception table.
/// Signal handlers of the host call this first; they change nothing but the instruction pointer.
pub fn fixup(ip: u64) -> Option<u64> {
    let access = pillbox_guarded_access as *const () as u64;
    let out = pillbox_guarded_out as *const () as u64;
    (access..out).contains(&ip).then_some(out)
}

/// # Safety
/// `addr` is a whole aligned ordinary frame.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn zero_page(addr: u64) {
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: passed on; the CPU has AVX2.
        unsafe { zero_page_avx2(addr) }
    } else {
        // SAFETY: passed on.
        unsafe { zero_page_sse2(addr) }
    }
}

/// # Safety
/// As [`zero_page`], on a CPU with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn zero_page_avx2(addr: u64) {
    use core::arch::x86_64::{__m256i, _mm256_setzero_si256, _mm256_store_si256};
    let zero = _mm256_setzero_si256();
    let mut at = addr as *mut __m256i;
    // SAFETY: 16 rounds of 8 stores of 32 bytes cover exactly the page, which is aligned.
    unsafe {
        for _ in 0..16 {
            for i in 0..8 {
                _mm256_store_si256(at.add(i), zero);
            }
            at = at.add(8);
        }
    }
}

/// # Safety
/// As [`zero_page`]; every x86-64 CPU has SSE2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
unsafe fn zero_page_sse2(addr: u64) {
    use core::arch::x86_64::{__m128i, _mm_setzero_si128, _mm_store_si128};
    let zero = _mm_setzero_si128();
    let mut at = addr as *mut __m128i;
    // SAFETY: 32 rounds of 8 stores of 16 bytes cover exactly the page, which is aligned.
    unsafe {
        for _ in 0..32 {
            for i in 0..8 {
                _mm_store_si128(at.add(i), zero);
            }
            at = at.add(8);
        }
    }
}

/// # Safety
/// `addr` is a whole aligned ordinary frame.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn zero_page(addr: u64) {
    // SAFETY: passed on. (memset uses `dc zva` for blocks of this size.)
    unsafe { core::ptr::write_bytes(addr as *mut u8, 0, PAGE as usize) }
}

/// Makes instruction fetches see what was written to a frame. Nothing to do on x86.
pub(super) fn sync_code(_addr: u64) {
    #[cfg(target_arch = "aarch64")]
    {
        const LINE: u64 = 64;
        check_read(_addr, PAGE as usize);
        // SAFETY: cache maintenance by address on mapped memory has no architectural effect on data.
        unsafe {
            for line in (_addr.._addr + PAGE).step_by(LINE as usize) {
                core::arch::asm!("dc cvau, {0}", in(reg) line, options(nostack));
            }
            core::arch::asm!("dsb ish", options(nostack));
            for line in (_addr.._addr + PAGE).step_by(LINE as usize) {
                core::arch::asm!("ic ivau, {0}", in(reg) line, options(nostack));
            }
            core::arch::asm!("dsb ish", "isb", options(nostack));
        }
    }
}

/// Gives a range of the frame window back to the host: it reads as zero afterwards. False if the host refused
/// (the contents are then unchanged).
pub(super) fn release(addr: u64, len: u64) -> bool {
    check_write(addr, len as usize);
    // SAFETY: the range is free frames: nobody's memory. MADV_REMOVE punches the hole where the window is a memfd
    // and is refused for anonymous memory, where MADV_DONTNEED does the same.
    unsafe {
        hostsys::syscall(libc::SYS_madvise, [addr, len, libc::MADV_REMOVE as u64, 0, 0, 0])
            .or_else(|_| {
                hostsys::syscall(libc::SYS_madvise, [addr, len, libc::MADV_DONTNEED as u64, 0, 0, 0])
            })
            .is_ok()
    }
}

/// Reference counts of a chunk's frames.
type Counts = [AtomicU32; CHUNK_FRAMES];

/// The counts of all chunks: a table filled as chunks come into use, read without a lock. A static because the
/// window itself is one per process, as the heap is.
static COUNTS: [AtomicPtr<Counts>; CHUNKS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS];

/// Counts of chunks that are not in use yet.
pub(super) struct SpareCounts(&'static [Counts]);

impl SpareCounts {
    pub(super) const fn new() -> Self {
        SpareCounts(&[])
    }

    /// Installs the counts of `chunk`, all zero. They live as long as the process, chunks are never retired: so they are
    /// made as many at a time as there are, up to [`MOST_AT_ONCE`], and not strewn among what comes and goes, of which
    /// nothing could be given back where one of them lies.
    pub(super) fn install(&mut self, chunk: usize) {
        if self.0.is_empty() {
            let zero = || [const { AtomicU32::new(0) }; CHUNK_FRAMES];
            self.0 = Vec::leak(std::iter::repeat_with(zero).take(chunk.clamp(1, MOST_AT_ONCE)).collect());
        }
        let (counts, rest) = self.0.split_first().expect("just made");
        self.0 = rest;
        let old = COUNTS[chunk].swap(std::ptr::from_ref(counts).cast_mut(), Ordering::Release);
        assert!(old.is_null(), "chunk installed twice");
    }
}

/// Chunks whose counts are made at once, at most: 128 KiB of counts.
const MOST_AT_ONCE: usize = 64;

/// The count of an ordinary frame, `None` for a page in the file window (not counted: its file keeps it).
#[inline]
pub(super) fn count(addr: u64) -> Option<&'static AtomicU32> {
    let index = (addr.checked_sub(layout::FRAMES_BASE)? / PAGE) as usize;
    let counts = COUNTS[index / CHUNK_FRAMES].load(Ordering::Acquire);
    assert!(!counts.is_null(), "frame of an unused chunk");
    // SAFETY: set once, from atomics that are never freed (`SpareCounts`).
    Some(unsafe { &(*counts)[index % CHUNK_FRAMES] })
}

/// recvmsg(2) of the host straight into frames.
pub(super) fn receive(fd: &HostFd, pieces: &[(u64, usize)], flags: u32) -> crate::abi::Result<usize> {
    pieces.iter().for_each(|&(addr, len)| check_write(addr, len));
    // SAFETY: every piece is frame memory, which the host may write at any time: no Rust object lives there.
    unsafe { socket::receive(fd, &iovecs(pieces), false, flags) }.map(|got| got.count)
}

/// sendmsg(2) of the host straight out of frames.
pub(super) fn send(
    fd: &HostFd,
    pieces: &[(u64, usize)],
    name: &[u8],
    flags: u32,
) -> crate::abi::Result<usize> {
    pieces.iter().for_each(|&(addr, len)| check_read(addr, len));
    // SAFETY: as for `receive`.
    unsafe { socket::send(fd, &iovecs(pieces), name, flags) }
}

fn iovecs(pieces: &[(u64, usize)]) -> Vec<IoVec> {
    pieces.iter().take(MAX_PIECES).map(|&(addr, len)| IoVec { addr, len: len as u64 }).collect()
}

/// preadv(2) of the host straight into frames; at the file's own position without an offset.
pub(super) fn preadv(fd: i32, pieces: &[(u64, usize)], offset: Option<u64>) -> crate::abi::Result<usize> {
    pieces.iter().for_each(|&(addr, len)| check_write(addr, len));
    vectored(if offset.is_some() { libc::SYS_preadv } else { libc::SYS_readv }, fd, pieces, offset)
}

/// pwritev(2) of the host straight out of frames; at the file's own position without an offset.
pub(super) fn pwritev(fd: i32, pieces: &[(u64, usize)], offset: Option<u64>) -> crate::abi::Result<usize> {
    pieces.iter().for_each(|&(addr, len)| check_read(addr, len));
    vectored(if offset.is_some() { libc::SYS_pwritev } else { libc::SYS_writev }, fd, pieces, offset)
}

fn vectored(call: i64, fd: i32, pieces: &[(u64, usize)], offset: Option<u64>) -> crate::abi::Result<usize> {
    let iovecs: Vec<libc::iovec> =
        pieces.iter().map(|&(addr, len)| libc::iovec { iov_base: addr as *mut _, iov_len: len }).collect();
    // (The calls take the offset in two halves for the sake of 32-bit machines; the low one holds all of it.)
    let args = [fd as u64, iovecs.as_ptr() as u64, iovecs.len() as u64, offset.unwrap_or(0), 0, 0];
    // SAFETY: every piece is frame memory (the callers checked), which the host may read and write at any time, and
    // the vector lives across the call.
    unsafe { hostsys::syscall(call, args) }.map(|bytes| bytes as usize)
}
