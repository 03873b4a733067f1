//! The kernel's page tables: image, arena, kernel half.

use super::arch;
use super::tables::{KernelTables as Tables, Pool, Template};
use object::elf::{FileHeader64, PF_W, PF_X, PT_GNU_RELRO, PT_LOAD, ProgramHeader64};
use object::{LittleEndian as Le, U64};
use pagetables::{Attrs, Error, PAGE_SIZE, PageSize, VirtRange};
use ring0::layout::{ARENA_BASE, ARENA_END, IMAGE_BASE, IMAGE_END, PERCPU_BASE, PERCPU_END};

unsafe extern "C" {
    static __ehdr_start: u8;
    static __ring0_text_start: u8;
    static __ring0_text_end: u8;
}

/// A page-aligned piece of the image and its rights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attrs: Attrs,
}

/// The image's segments from its own program headers, in address order, with what RELRO made read-only.
pub(super) fn segments() -> Vec<Segment> {
    // SAFETY: the linker defines the symbol at the image's ELF header, and the first segment maps header and program
    // headers (they fit its first page) for the life of the process.
    let headers = unsafe { program_headers(&raw const __ehdr_start as u64) };
    let value = |field: U64<Le>| field.get(Le);
    let floor = |a: u64| a & !(PAGE_SIZE - 1);
    let ceil = |a: u64| a.next_multiple_of(PAGE_SIZE);
    let mut out: Vec<Segment> = Vec::new();
    for header in headers.iter().filter(|h| h.p_type.get(Le) == PT_LOAD) {
        let flags = header.p_flags.get(Le);
        let mut attrs = Attrs::READ;
        attrs.set(Attrs::WRITE, flags.0 & PF_W.0 != 0);
        attrs.set(Attrs::EXECUTE, flags.0 & PF_X.0 != 0);
        let start = floor(value(header.p_vaddr));
        out.push(Segment { start, end: ceil(value(header.p_vaddr) + value(header.p_memsz)), attrs });
    }
    out.sort_by_key(|s| s.start);
    // libc has protected RELRO by the time main runs; writing there would not work natively either.
    for header in headers.iter().filter(|h| h.p_type.get(Le) == PT_GNU_RELRO) {
        let start = floor(value(header.p_vaddr));
        let end = floor(value(header.p_vaddr) + value(header.p_memsz));
        if start < end {
            out.push(Segment { start, end, attrs: Attrs::READ });
        }
    }
    out
}

/// Program headers of the ELF file mapped at `base`.
///
/// # Safety
/// An ELF header is mapped there, and its program headers at their file offset behind it, for the life of the process.
unsafe fn program_headers(base: u64) -> &'static [ProgramHeader64<Le>] {
    // SAFETY: the caller's.
    unsafe {
        let ehdr = &*(base as *const FileHeader64<Le>);
        let first = (base + ehdr.e_phoff.get(Le)) as *const ProgramHeader64<Le>;
        core::slice::from_raw_parts(first, ehdr.e_phnum.get(Le).into())
    }
}

/// Bounds of the host's vDSO: libc reads clocks there, which the guest does not map, so contexts leave in the middle of
/// its code. Empty where there is none.
pub(super) fn vdso_bounds() -> (u64, u64) {
    // SAFETY: reads the auxiliary vector (getauxval(3)).
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if base == 0 {
        return (0, 0);
    }
    // SAFETY: the host kernel maps the whole vDSO there, headers first.
    let headers = unsafe { program_headers(base) };
    let loads = headers.iter().filter(|h| h.p_type.get(Le) == PT_LOAD);
    let end = loads.map(|h| base + h.p_offset.get(Le) + h.p_memsz.get(Le)).max().unwrap_or(base);
    (base, end)
}

/// Bounds of the ring-0 entry code.
pub(super) fn ring0_text() -> (u64, u64) {
    (&raw const __ring0_text_start as u64, &raw const __ring0_text_end as u64)
}

/// First and one-past-last address of the image's executable code: where a context may be resumed.
pub(super) fn text_bounds() -> (u64, u64) {
    let text = segments().into_iter().filter(|s| s.attrs.contains(Attrs::EXECUTE));
    text.fold((u64::MAX, 0), |(low, high), s| (low.min(s.start), high.max(s.end)))
}

/// The kernel's own tables.
pub(super) struct KernelTables {
    /// Image and arena; frozen, because where the halves share a root every application's table has a copy.
    pub(super) lower: Template,
    /// The kernel half, where it has a root of its own.
    upper: Option<Tables>,
}

/// Addresses of the kernel's roots; the same where one root serves both halves.
#[derive(Clone, Copy)]
pub(super) struct Roots {
    pub(super) lower: u64,
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "one root serves both halves"))]
    pub(super) upper: u64,
}

impl KernelTables {
    pub(super) fn roots(&self) -> Roots {
        let lower = self.lower.root();
        Roots { lower, upper: self.upper.as_ref().map_or(lower, Tables::root) }
    }
}

fn range(start: u64, end: u64) -> Result<VirtRange, Error> {
    VirtRange::new::<arch::Format>(start, end - start).map_err(|_| Error::Frozen)
}

/// A piece of the image as 4 KiB pages, 2 MiB pages and 4 KiB pages, some of which there may be none of.
fn by_size(start: u64, end: u64) -> [(u64, u64, PageSize); 3] {
    let large = PageSize::Size2M.bytes();
    let first = start.next_multiple_of(large).min(end);
    let last = (end & !(large - 1)).max(first);
    [(start, first, PageSize::Size4K), (first, last, PageSize::Size2M), (last, end, PageSize::Size4K)]
}

/// Builds the kernel's tables.
///
/// # Errors
/// When page-table pages run out or the image lies outside its window.
pub(super) fn build(pool: &Pool) -> Result<KernelTables, Error> {
    let mut tables = Tables::new(pool.clone())?;
    for segment in segments() {
        if segment.start < IMAGE_BASE || segment.end > IMAGE_END {
            return Err(Error::Frozen);
        }
        let attrs = segment.attrs | arch::LOWER_HALF;
        // What can be written is small, and parts of it lose that right below.
        let pieces = match attrs.contains(Attrs::WRITE) {
            true => vec![(segment.start, segment.end, PageSize::Size4K)],
            false => by_size(segment.start, segment.end).to_vec(),
        };
        for (start, end, size) in pieces {
            if start < end {
                tables.map(range(start, end)?, start, attrs, size)?.ignore();
            }
        }
    }
    let arena = range(ARENA_BASE, ARENA_END)?;
    tables.map(arena, ARENA_BASE, Attrs::WRITE | arch::LOWER_HALF, arch::largest_page())?.ignore();
    let mut shared = vec![range(IMAGE_BASE, IMAGE_END)?, arena];
    let upper = if arch::SPLIT_HALVES {
        let mut upper = Tables::new(pool.clone())?;
        map_kernel_half(&mut upper)?;
        Some(upper)
    } else {
        map_kernel_half(&mut tables)?;
        shared.push(range(arch::KERNEL_HALF, arch::KERNEL_HALF + (1 << 39))?);
        None
    };
    // Nothing walks these tables yet, so none of the edits left anything in a TLB.
    Ok(KernelTables { lower: tables.freeze(&shared)?, upper })
}

/// The entry code, the per-CPU blocks, and the devices of the entry code.
fn map_kernel_half(tables: &mut Tables) -> Result<(), Error> {
    let high = arch::KERNEL_HALF;
    let data = Attrs::READ | Attrs::WRITE | Attrs::GLOBAL;
    let (start, end) = arch::ring0_text();
    let text = Attrs::READ | Attrs::EXECUTE | Attrs::GLOBAL;
    tables.map(range(start | high, end | high)?, start, text, PageSize::Size4K)?.ignore();
    let blocks = range(PERCPU_BASE | high, PERCPU_END | high)?;
    tables.map(blocks, PERCPU_BASE, data, arch::largest_page())?.ignore();
    for &page in arch::DEVICE_PAGES {
        let page_range = range(page | high, (page | high) + PAGE_SIZE)?;
        tables.map(page_range, page, data | Attrs::DEVICE, PageSize::Size4K)?.ignore();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PageSize, by_size};

    #[test]
    fn pieces_are_cut_where_large_pages_begin_and_end() {
        let large = PageSize::Size2M.bytes();
        let sizes = [PageSize::Size4K, PageSize::Size2M, PageSize::Size4K];
        let bounds = [0, 4096, large - 4096, large, large + 4096, 2 * large, 3 * large - 4096, 5 * large];
        for start in bounds {
            for end in bounds.into_iter().filter(|end| start < *end) {
                let pieces = by_size(start, end);
                assert_eq!(pieces.map(|(.., size)| size), sizes);
                assert_eq!((pieces[0].0, pieces[2].1), (start, end));
                assert!(pieces.windows(2).all(|two| two[0].1 == two[1].0 && two[0].0 <= two[0].1));
                assert!(
                    pieces[1].0.is_multiple_of(large) && pieces[1].1.is_multiple_of(large)
                        || pieces[1].0 == pieces[1].1
                );
                assert!(pieces.iter().all(|(from, to, size)| size.bytes() == large || to - from < large));
            }
        }
    }
}
