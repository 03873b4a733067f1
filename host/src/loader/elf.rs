//! ELF files: which bytes go where.
//!
//! Everything in a file is hostile: sizes are checked before they are used, sums cannot wrap, and what makes no
//! sense is ENOEXEC. Addresses are the address space's business, which refuses what is out of bounds or in the
//! kernel's windows (ENOMEM).

use super::{ExecError, Opener};
use crate::abi::{Errno, Result};
use crate::mm::{Layout, MapFlags, MapRequest, Mappable, Mm, MmLimits, PAGE_SIZE, VmFlags};
use crate::platform::Prot;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::{LittleEndian as LE, pod};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Linux reads at most this much of program headers (ELF_MIN_ALIGN * 16 / sizeof is 1170).
const MAX_HEADERS: usize = 65536 / size_of::<ProgramHeader64<LE>>();
/// PATH_MAX.
const MAX_PATH: u64 = 4096;
/// What `load_elf_binary` returns for a bad dynamic linker.
const ELIBBAD: Errno = Errno(80);
/// Room kept below the stack's top for it to grow (mmap_base's MIN_GAP and MAX_GAP).
const GAP: (u64, u64) = (128 << 20, 16 << 40);

/// Where things go in a new address space: decided once, before anything is mapped.
pub(super) struct Places {
    /// One past the stack's highest byte.
    pub(super) stack_top: u64,
    /// Mappings without a wish go below.
    mmap_base: u64,
    /// Position-independent programs with a dynamic linker go here.
    pie_base: u64,
    /// Distance between the end of bss and the heap.
    brk_gap: u64,
    /// Bytes to lower the stack pointer by, beside the page-wise offset of its top.
    pub(super) stack_jitter: u64,
    /// AT_RANDOM.
    pub(super) random: [u8; 16],
}

impl Places {
    pub(super) fn new(
        mm: &Mm,
        limits: &MmLimits,
        randomize: bool,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Self {
        // Randomness as on Linux: 28 bits of pages for mmap and PIE, 22 for the stack, 32 MiB for the heap; scaled
        // down where addresses are shorter.
        let mut seed = [0u8; 48];
        random(&mut seed);
        let mut words = seed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut pick = |range: u64| {
            let word = words.next().unwrap_or_default();
            if randomize { word % range.max(1) } else { 0 }
        };
        let top = mm.task_size();
        let mmap_random = pick(1 << 28) * PAGE_SIZE % (top >> 3);
        let stack_room = (1 << 22) * PAGE_SIZE;
        let stack_top = top - pick(1 << 22) * PAGE_SIZE % (top >> 5).min(stack_room);
        let gap = limits.stack.load(Ordering::Relaxed).clamp(GAP.0, GAP.1.min(top / 6 * 5));
        let mmap_base = top - (top >> 5).min(stack_room) - gap.min(top / 2) - PAGE_SIZE * 256 - mmap_random;
        let pie_base = (top / 3 * 2 + pick(1 << 28) * PAGE_SIZE % (top >> 3)) & !(PAGE_SIZE - 1);
        let brk_gap = pick(32 << 20) & !(PAGE_SIZE - 1);
        let mut key = [0; 16];
        random(&mut key);
        let mut jitter = [0; 2];
        random(&mut jitter);
        let stack_jitter = if randomize { u64::from(u16::from_le_bytes(jitter)) % 8192 } else { 0 };
        let mmap_base = mmap_base & !(PAGE_SIZE - 1);
        Places {
            stack_top: stack_top & !(PAGE_SIZE - 1),
            mmap_base,
            pie_base,
            brk_gap,
            stack_jitter,
            random: key,
        }
    }
}

/// A loaded program.
pub(super) struct Image {
    /// Where execution begins.
    pub(super) start: u64,
    /// AT_ENTRY: where the program itself begins.
    pub(super) entry: u64,
    /// AT_PHDR.
    pub(super) headers: u64,
    /// AT_PHNUM.
    pub(super) header_count: u64,
    /// AT_BASE: where the dynamic linker is; 0 without one.
    pub(super) base: u64,
    /// Whether PT_GNU_STACK asks for an executable stack.
    pub(super) executable_stack: bool,
    /// Areas for `/proc` and the heap.
    pub(super) layout: Layout,
}

struct Parsed {
    header: FileHeader64<LE>,
    segments: Vec<ProgramHeader64<LE>>,
}

/// A mapped file.
struct Mapped {
    /// Difference between addresses in memory and in the file.
    bias: u64,
    /// One past the last byte of bss.
    end: u64,
    code: (u64, u64),
    data: (u64, u64),
    headers: u64,
}

/// Maps the program and its dynamic linker into an empty address space.
pub(super) fn load(
    mm: &Mm,
    file: &Arc<dyn Mappable>,
    places: &mut Places,
    open: &mut Opener<'_>,
) -> Result<Image, ExecError> {
    let program = parse(&**file)?;
    let linker = match interpreter(&**file, &program)? {
        Some(path) => {
            let file = open(&path)?;
            let parsed = parse(&*file).map_err(|_| ELIBBAD)?;
            Some((file, parsed))
        }
        None => None,
    };
    mm.set_layout(Layout { mmap_base: places.mmap_base, ..Layout::default() });
    // A position-independent file without a linker is one itself, or a static PIE: among the mappings, so that the
    // programs it starts have the usual room.
    let wish = linker.is_some().then_some(places.pie_base);
    let mapped = map(mm, file, &program, wish)?;
    let entry = mapped.bias.wrapping_add(program.header.e_entry.get(LE));
    let mut image = Image {
        start: entry,
        entry,
        headers: mapped.headers,
        header_count: program.segments.len() as u64,
        base: 0,
        executable_stack: program
            .segments
            .iter()
            .any(|segment| kind(segment) == elf::PT_GNU_STACK.0 && flags(segment).contains(Prot::EXEC)),
        layout: Layout {
            mmap_base: places.mmap_base,
            code: mapped.code,
            data: mapped.data,
            ..Layout::default()
        },
    };
    let pie = program.header.e_type.get(LE) == elf::ET_DYN;
    let heap = if pie && linker.is_none() { places.pie_base } else { mapped.end };
    image.layout.brk_start = (heap + places.brk_gap + PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    if let Some((file, parsed)) = linker {
        let mapped = map(mm, &file, &parsed, None)?;
        image.base = mapped.bias;
        image.start = mapped.bias.wrapping_add(parsed.header.e_entry.get(LE));
    }
    Ok(image)
}

fn kind(segment: &ProgramHeader64<LE>) -> u32 {
    segment.p_type.get(LE).0
}

fn flags(segment: &ProgramHeader64<LE>) -> Prot {
    let bits = segment.p_flags.get(LE).0;
    let mut prot = Prot::empty();
    prot.set(Prot::READ, bits & elf::PF_R.0 != 0);
    prot.set(Prot::WRITE, bits & elf::PF_W.0 != 0);
    prot.set(Prot::EXEC, bits & elf::PF_X.0 != 0);
    prot
}

fn is_load(segment: &&ProgramHeader64<LE>) -> bool {
    kind(segment) == elf::PT_LOAD.0
}

/// Reads and checks the headers.
fn parse(file: &dyn Mappable) -> Result<Parsed, ExecError> {
    let mut bytes = [0; size_of::<FileHeader64<LE>>()];
    let enough = file.read_at(0, &mut bytes)? == bytes.len();
    if bytes[..4] != elf::ELFMAG || !enough {
        return Err(Errno::ENOEXEC.into());
    }
    let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| Errno::ENOEXEC)?;
    let little = header.e_ident.data == elf::ELFDATA2LSB;
    let machine = header.e_machine.get(LE);
    let machine = machine.0;
    let machine = if little { machine } else { machine.swap_bytes() };
    if machine != MACHINE || !little || header.e_ident.class != elf::ELFCLASS64 {
        return Err(ExecError::OtherMachine(machine));
    }
    let kind = header.e_type.get(LE);
    let count = usize::from(header.e_phnum.get(LE));
    if (kind != elf::ET_EXEC && kind != elf::ET_DYN)
        || usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>()
        || count == 0
        || count > MAX_HEADERS
    {
        return Err(Errno::ENOEXEC.into());
    }
    let mut table = vec![0; count * size_of::<ProgramHeader64<LE>>()];
    let offset = header.e_phoff.get(LE);
    if offset.checked_add(table.len() as u64).is_none() || file.read_at(offset, &mut table)? != table.len() {
        return Err(Errno::ENOEXEC.into());
    }
    let (segments, _) =
        pod::slice_from_bytes::<ProgramHeader64<LE>>(&table, count).map_err(|()| Errno::ENOEXEC)?;
    Ok(Parsed { header: *header, segments: segments.to_vec() })
}

/// The path in PT_INTERP.
fn interpreter(file: &dyn Mappable, program: &Parsed) -> Result<Option<Vec<u8>>> {
    let Some(segment) = program.segments.iter().find(|segment| kind(segment) == elf::PT_INTERP.0) else {
        return Ok(None);
    };
    let len = segment.p_filesz.get(LE);
    if !(2..=MAX_PATH).contains(&len) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = vec![0; len as usize];
    if file.read_at(segment.p_offset.get(LE), &mut path)? != path.len() || path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    if let Some(end) = path.iter().position(|&byte| byte == 0) {
        path.truncate(end);
    }
    Ok(Some(path))
}

/// First and one past the last address of all segments, in whole pages, and the largest alignment asked for.
fn extent(program: &Parsed, limit: u64) -> Result<(u64, u64, u64)> {
    let (mut first, mut end, mut align) = (u64::MAX, 0, PAGE_SIZE);
    for segment in program.segments.iter().filter(is_load) {
        let (addr, size) = (segment.p_vaddr.get(LE), segment.p_memsz.get(LE));
        let last = addr.checked_add(size).filter(|&last| last <= limit).ok_or(Errno::ENOEXEC)?;
        let misplaced = addr % PAGE_SIZE != segment.p_offset.get(LE) % PAGE_SIZE;
        if segment.p_filesz.get(LE) > size
            || misplaced
            || segment.p_offset.get(LE).checked_add(segment.p_filesz.get(LE)).is_none()
        {
            return Err(Errno::ENOEXEC);
        }
        first = first.min(addr & !(PAGE_SIZE - 1));
        end = end.max(last);
        let wants = segment.p_align.get(LE);
        if wants.is_power_of_two() && wants <= 1 << 30 {
            align = align.max(wants);
        }
    }
    let end = end.div_ceil(PAGE_SIZE) * PAGE_SIZE;
    if first >= end { Err(Errno::ENOEXEC) } else { Ok((first, end, align)) }
}

/// Maps the segments of a file: where they say, or (position-independent) at `wish` or wherever there is room.
fn map(mm: &Mm, file: &Arc<dyn Mappable>, program: &Parsed, wish: Option<u64>) -> Result<Mapped> {
    let (first, end, align) = extent(program, mm.task_size())?;
    let bias = if program.header.e_type.get(LE) == elf::ET_EXEC {
        0
    } else {
        let at = match wish {
            Some(at) => at & !(align - 1),
            None => {
                // The space is nobody else's yet, so the room cannot go away.
                let len = (end - first).checked_add(align - PAGE_SIZE).ok_or(Errno::ENOMEM)?;
                let at = mm.free_range(len).ok_or(Errno::ENOMEM)?;
                (at + align - 1) & !(align - 1)
            }
        };
        at.wrapping_sub(first)
    };
    let mut mapped = Mapped { bias, end: 0, code: (u64::MAX, 0), data: (0, 0), headers: 0 };
    let table = program.header.e_phoff.get(LE);
    for segment in program.segments.iter().filter(is_load) {
        map_segment(mm, file, segment, bias)?;
        let start = segment.p_vaddr.get(LE).wrapping_add(bias);
        let (file_size, offset) = (segment.p_filesz.get(LE), segment.p_offset.get(LE));
        if table >= offset && table - offset < file_size {
            mapped.headers = start + (table - offset);
        }
        mapped.end = mapped.end.max(start + segment.p_memsz.get(LE));
        if flags(segment).contains(Prot::EXEC) {
            mapped.code = (mapped.code.0.min(start), mapped.code.1.max(start + file_size));
        }
        if start >= mapped.data.0 {
            mapped.data = (start, start + file_size);
        }
    }
    mapped.code.0 = mapped.code.0.min(mapped.code.1);
    Ok(mapped)
}

fn map_segment(mm: &Mm, file: &Arc<dyn Mappable>, segment: &ProgramHeader64<LE>, bias: u64) -> Result<()> {
    let prot = flags(segment);
    let within = segment.p_vaddr.get(LE) % PAGE_SIZE;
    let start = segment.p_vaddr.get(LE).wrapping_add(bias);
    let (file_size, memory_size) = (segment.p_filesz.get(LE), segment.p_memsz.get(LE));
    let (file_end, end) = (start + file_size, start + memory_size);
    let whole = |addr: u64| addr.div_ceil(PAGE_SIZE) * PAGE_SIZE;
    if file_size != 0 {
        mm.mmap(MapRequest {
            addr: start - within,
            len: file_size + within,
            prot,
            flags: MapFlags::FIXED,
            vm: VmFlags::empty(),
            object: Some((file.clone(), segment.p_offset.get(LE) - within)),
        })?;
    }
    let bss = if file_size == 0 { start - within } else { whole(file_end) };
    if memory_size > file_size {
        if file_size != 0 && prot.contains(Prot::WRITE) && bss > file_end {
            // The rest of the last page holds whatever follows in the file.
            let len = (bss - file_end) as usize;
            if mm.zero_some(file_end, len)? != len {
                return Err(Errno::EFAULT);
            }
        }
        if whole(end) > bss {
            mm.mmap(MapRequest {
                addr: bss,
                flags: MapFlags::FIXED,
                ..MapRequest::anonymous(whole(end) - bss, prot)
            })?;
        }
    }
    Ok(())
}
