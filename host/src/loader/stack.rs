//! The initial stack: strings, auxiliary vector, `envp`, `argv`, `argc` (fs/exec.c, fs/binfmt_elf.c), from high to
//! low addresses:
//!
//! ```text
//! 8 zero bytes | file name | environment strings | argument strings | (random offset) | platform name |
//! 16 random bytes | (alignment) | auxiliary vector | envp[] 0 | argv[] 0 | argc   <- sp, 16-byte aligned
//! ```

use super::elf::{Image, Places};
use super::hardware::hardware;
use super::{ExecError, ExecRequest};
use crate::abi::{Errno, Result};
use crate::arch::MACHINE;
use crate::mm::{MapFlags, MapRequest, Mm, PAGE_SIZE, VmFlags};
use crate::platform::Prot;
use std::sync::atomic::Ordering;

/// Auxiliary vector entries (include/uapi/linux/auxvec.h).
const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_RSEQ_FEATURE_SIZE: u64 = 27;
/// How `struct rseq` is aligned.
pub const RSEQ_ALIGN: u64 = 32;
/// How much of it is in use: up to `mm_cid`.
pub const RSEQ_FEATURES: u64 = 28;
const AT_RSEQ_ALIGN: u64 = 28;
pub(super) const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
pub(super) const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
pub(super) const AT_MINSIGSTKSZ: u64 = 51;

/// Bytes that the stack gets below its contents at once (setup_arg_pages).
const EXTRA: u64 = 131_072;
/// Size of a program header.
const HEADER_SIZE: u64 = 56;
/// USER_HZ.
const CLOCK_TICKS: u64 = 100;

/// Puts strings one behind the other, as they will lie in memory.
struct Strings {
    base: u64,
    bytes: Vec<u8>,
}

impl Strings {
    fn push(&mut self, string: &[u8]) -> u64 {
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        at
    }
}

/// Maps the stack, fills it and returns the initial stack pointer.
pub(super) fn build(
    mm: &Mm,
    request: &ExecRequest<'_>,
    execfn: &[u8],
    image: &Image,
    places: &Places,
    vdso: u64,
) -> Result<u64, ExecError> {
    let strings_len = |strings: &[Vec<u8>]| strings.iter().map(|string| string.len() as u64 + 1).sum::<u64>();
    // Linux gives a program without arguments an empty name, so that argv[0] exists (since 5.18).
    let nameless = [Vec::new()];
    let argv: &[Vec<u8>] = if request.argv.is_empty() { &nameless } else { &request.argv };
    let total = strings_len(argv) + strings_len(&request.envp) + execfn.len() as u64 + 1 + 8;
    let base = places.stack_top - total;
    let mut strings = Strings { base, bytes: Vec::with_capacity(total as usize) };
    let argv: Vec<u64> = argv.iter().map(|string| strings.push(string)).collect();
    let args_end = base + strings.bytes.len() as u64;
    let envp: Vec<u64> = request.envp.iter().map(|string| strings.push(string)).collect();
    let env_end = base + strings.bytes.len() as u64;
    let execfn = strings.push(execfn);
    strings.bytes.extend_from_slice(&[0; 8]);

    // Below the strings: names that the vector points to.
    let align = |addr: u64| addr & !15;
    let platform = align(align(base) - places.stack_jitter) - (MACHINE.len() as u64 + 1);
    let random = platform - 16;
    let mut auxv = vec![(AT_SYSINFO_EHDR, vdso)];
    auxv.extend(vector(request, image, execfn, platform, random));
    let words: Vec<u64> = [argv.len() as u64]
        .into_iter()
        .chain(argv)
        .chain([0])
        .chain(envp)
        .chain([0])
        .chain(auxv.iter().flat_map(|&(kind, value)| [kind, value]))
        .collect();
    let sp = align(align(random) - words.len() as u64 * 8);

    let limit = mm.limits().stack.load(Ordering::Relaxed);
    let used = places.stack_top - (sp & !(PAGE_SIZE - 1));
    let size = (used + EXTRA).min((limit & !(PAGE_SIZE - 1)).max(used));
    let prot = Prot::READ | Prot::WRITE | if image.executable_stack { Prot::EXEC } else { Prot::empty() };
    mm.mmap(MapRequest {
        addr: places.stack_top - size,
        len: size,
        prot,
        flags: MapFlags::FIXED_NOREPLACE,
        vm: VmFlags::GROWS_DOWN,
        object: None,
    })
    // A program that sits where its stack belongs cannot run.
    .map_err(|_| Errno::ENOMEM)?;
    write_all(mm, base, &strings.bytes)?;
    let mut names = places.random.to_vec();
    names.extend_from_slice(MACHINE.as_bytes());
    names.push(0);
    write_all(mm, random, &names)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    write_all(mm, sp, &bytes)?;

    let mut layout = image.layout.clone();
    layout.vdso = vdso;
    layout.stack_start = sp;
    layout.args = (base, args_end);
    layout.env = (args_end, env_end);
    layout.auxv = auxv.iter().flat_map(|&(kind, value)| [kind, value]).flat_map(u64::to_le_bytes).collect();
    mm.set_layout(layout);
    Ok(sp)
}

fn vector(
    request: &ExecRequest<'_>,
    image: &Image,
    execfn: u64,
    platform: u64,
    random: u64,
) -> Vec<(u64, u64)> {
    let hardware = hardware();
    let ids = request.ids;
    let mut auxv = vec![
        (AT_HWCAP, hardware.hwcap),
        (AT_PAGESZ, request.platform.capabilities().page_size),
        (AT_CLKTCK, CLOCK_TICKS),
        (AT_PHDR, image.headers),
        (AT_PHENT, HEADER_SIZE),
        (AT_PHNUM, image.header_count),
        (AT_BASE, image.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, ids.uid.into()),
        (AT_EUID, ids.euid.into()),
        (AT_GID, ids.gid.into()),
        (AT_EGID, ids.egid.into()),
        (AT_SECURE, request.secure.into()),
        (AT_RANDOM, random),
        (AT_HWCAP2, hardware.hwcap2),
        (AT_EXECFN, execfn),
        (AT_PLATFORM, platform),
        (AT_RSEQ_FEATURE_SIZE, RSEQ_FEATURES),
        (AT_RSEQ_ALIGN, RSEQ_ALIGN),
    ];
    if hardware.min_signal_stack != 0 {
        auxv.insert(0, (AT_MINSIGSTKSZ, hardware.min_signal_stack));
    }
    auxv.push((AT_NULL, 0));
    auxv
}

fn write_all(mm: &Mm, addr: u64, bytes: &[u8]) -> Result<()> {
    // Running out of memory here is ENOMEM, not a bad address: the addresses are ours.
    mm.write(addr, bytes).map_err(|_| Errno::ENOMEM)
}
