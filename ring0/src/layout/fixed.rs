//! Addresses that the run-times of compilers and languages fix.
//!
//! A program linked with AddressSanitizer maps its shadow at an address that is a constant in its instructions; Wine loads
//! a Windows program where it was linked. Neither can go elsewhere, so no window of ours may cover such a place: the
//! windows are checked against this table where they are defined, at compile time.
//!
//! What is *not* here needs nothing: run-times that ask by a hint and take what they get (V8's cages and pages, LuaJIT's
//! and Mono's low memory by MAP_32BIT or probing, HWASan's shadow, HotSpot's disjoint heap bases, GHC's 0x4200000000,
//! .NET), and reservations with PROT_NONE, which succeed anywhere (the shadow gaps of sanitizers).
//!
//! Both architectures' places are kept free on both: one layout, and an emulator runs the other's programs.

/// A range that some run-time needs at this very address.
pub struct Fixed {
    /// Whose it is, and where that is written down.
    pub what: &'static str,
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn fixed(what: &'static str, start: u64, end: u64) -> Fixed {
    Fixed { what, start, end }
}

/// All of them, by address.
pub const FIXED: &[Fixed] = &[
    // GNU ld 0x400000, LLD 0x200000 (`--verbose`), Go 0x400000 and 0x10000 (cmd/link/internal/{amd64,arm64}/obj.go), with
    // room for a gigabyte of data and heap.
    fixed("programs that are not position-independent", 0x1_0000, GIB),
    // loader/preloader.c, `preload_info`: the low memory area, shared user data, the 4 GiB area; and `WINEPRELOADER_LDFLAGS`
    // and `--image-base` of kernelbase, kernel32 and ntdll in configure.ac and dlls/*/Makefile.in.
    fixed("Wine: low memory", 0x1_0000, 0x6800_0000),
    // src/compiler/{x86-64,arm64}/parms.lisp: static and immobile space; the dynamic space.
    fixed("SBCL: static space", 0x5000_0000, 0x5800_0000),
    // configure.ac: `valt_load_address_pri_norml` of amd64 and arm64; its image has 26 MiB of bss.
    fixed("Valgrind: its tools", 0x5800_0000, 0x5c00_0000),
    fixed("Wine: its own libraries and loader", 0x7a00_0000, 0x7f00_0000),
    fixed("Wine: top-down allocations and shared user data", 0x7f00_0000, 0x8000_0000),
    // compiler-rt/lib/asan/asan_mapping.h, libsanitizer of GCC: the low shadow, from a page before its start.
    fixed("AddressSanitizer, x86_64: low shadow", 0x7fff_7000, 0x8fff_7000),
    // HeapBaseMinAddress up to 32 GiB (zero-based compressed oops), SharedBaseAddress with the class space behind it
    // (hotspot/share/runtime/globals.hpp, gc_globals.hpp, memory/metaspace.cpp).
    fixed("HotSpot: compressed oops, shared archive, class space", 2 * GIB, 48 * GIB),
    // The linkers' defaults, 0x140000000 and 0x180000000, and Wine's 4 GiB area and ntdll at 0x170000000.
    fixed("Windows programs and libraries", 4 * GIB, 8 * GIB),
    // coregrind/m_aspacemgr/aspacemgr-linux.c: `aspacem_vStart`.
    fixed("Valgrind: its own memory", 64 * GIB, 128 * GIB),
    fixed("SBCL: dynamic space", 64 * GIB, 96 * GIB),
    // asan_mapping.h, `kAArch64_ShadowOffset64` = 1 << 36.
    fixed("AddressSanitizer, aarch64: low shadow", 64 * GIB, 72 * GIB),
    // tsan_platform.h, `MappingAarch64_48` of LLVM up to 16 and GCC up to 13; 128 to 256 GiB before LLVM 14.
    fixed("ThreadSanitizer, aarch64 before LLVM 17: shadow", 64 * GIB, 256 * GIB),
    fixed("ThreadSanitizer, aarch64 before LLVM 17: metainfo", 320 * GIB, 384 * GIB),
    // msan.h, `kMemoryLayout` of LLVM up to 15: shadows and origins of what lies low.
    fixed("MemorySanitizer, aarch64 before LLVM 16", 64 * GIB, 320 * GIB),
    // runtime/malloc.go, `mallocinit`: hints, and every Go program's heap is there if they are free.
    fixed("Go, aarch64: the heap", 256 * GIB, 320 * GIB),
    fixed("Go, x86_64: the heap", 768 * GIB, 896 * GIB),
    // msan.h and tsan_platform.h: all that these have above 1 TiB, with AddressSanitizer's high shadow and its and
    // LeakSanitizer's allocators (asan_allocator.h, lsan_allocator.h: 0x500000000000, 0x600000000000), ZGC's heap
    // (zAddress: 4 TiB and up), position-independent programs (two thirds up) and the stack.
    fixed("everything high", TIB, 1 << 48),
];

/// Whether nobody needs anything in `start..end`.
pub const fn leaves_free(start: u64, end: u64) -> bool {
    let mut i = 0;
    while i < FIXED.len() {
        if start < FIXED[i].end && FIXED[i].start < end {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{FIXED, leaves_free};

    #[test]
    fn ranges_are_ranges_and_edges_are_sharp() {
        for fixed in FIXED {
            assert!(
                fixed.start < fixed.end && fixed.start % 4096 == 0 && fixed.end % 4096 == 0,
                "{}",
                fixed.what
            );
            assert!(!leaves_free(fixed.start, fixed.start + 4096), "{}", fixed.what);
            assert!(!leaves_free(fixed.end - 4096, fixed.end), "{}", fixed.what);
            assert!(!leaves_free(0, 1 << 48));
        }
        assert!(leaves_free(0x6800_0000, 0x7a00_0000) && !leaves_free(0x6800_0000, 0x7a00_0001));
        // Where the windows were once, and what that broke.
        assert!(!leaves_free(0x7000_0000, 0x8000_0000), "AddressSanitizer");
        assert!(!leaves_free(320 << 30, 480 << 30), "ThreadSanitizer on aarch64");
    }
}
