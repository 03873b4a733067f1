//! Tests of the loader as a whole.

use super::vdso::Vdso;
use super::{ExecError, ExecRequest, Ids, Program, load};
use crate::abi::{Errno, Result};
use crate::mm::testing::{Bytes, FakePlatform, alone};
use crate::mm::{MapRequest, Mappable, Mm, MmLimits, frames};
use crate::platform::{Access, Platform, Prot};
use ring0::layout;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const EXEC: u16 = 2;
const DYN: u16 = 3;

/// type, flags, offset, address, size in the file, size in memory, alignment.
type Segment = (u32, u32, u64, u64, u64, u64, u64);

fn elf(kind: u16, entry: u64, segments: &[Segment], len: usize) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(MACHINE.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [64, 56, segments.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for &(kind, flags, offset, addr, file_size, memory_size, align) in segments {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [offset, addr, addr, file_size, memory_size, align] {
            bytes.extend(word.to_le_bytes());
        }
    }
    let filled = bytes.len();
    bytes.resize(len.max(filled), 0xcc);
    bytes
}

/// Text, and data with a bss that begins in the middle of a page.
fn program(kind: u16, base: u64) -> Vec<u8> {
    let segments = [
        (PT_LOAD, 5, 0, base, 0x1000, 0x1000, 0x1000),
        (PT_LOAD, 6, 0x1000, base + 0x1000, 0x800, 0x2800, 0x1000),
    ];
    elf(kind, base + 0x100, &segments, 0x3000)
}

struct World {
    platform: Arc<dyn Platform>,
    limits: MmLimits,
    files: BTreeMap<Vec<u8>, Arc<dyn Mappable>>,
    /// Where chance begins.
    seed: u8,
}

impl World {
    fn new() -> Self {
        World {
            platform: FakePlatform::create(true),
            limits: MmLimits::default(),
            files: BTreeMap::new(),
            seed: 1,
        }
    }

    fn add(&mut self, path: &str, bytes: &[u8]) {
        self.files.insert(path.into(), Bytes::file(bytes));
    }

    fn run(&self, path: &str, argv: &[&str], randomize: bool) -> Result<Program, ExecError> {
        let strings = |strings: &[&str]| strings.iter().map(|string| string.as_bytes().to_vec()).collect();
        let mut seed = self.seed;
        load(ExecRequest {
            platform: &self.platform,
            vdso: &Vdso::new(),
            shifted: false,
            file: self.files[path.as_bytes()].clone(),
            path: path.into(),
            argv: strings(argv),
            envp: strings(&["A=1", "B="]),
            ids: Ids { uid: 1, euid: 2, gid: 3, egid: 4 },
            secure: false,
            limits: &self.limits,
            randomize,
            random: &mut |to| {
                to.fill_with(|| {
                    seed = seed.wrapping_mul(77).wrapping_add(13);
                    seed
                });
            },
            open: &mut |path| self.files.get(path).cloned().ok_or(Errno::ENOENT),
        })
    }
}

fn words(mm: &Mm, at: &mut u64) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let word: u64 = mm.read_val(*at).unwrap();
        *at += 8;
        if word == 0 {
            return all;
        }
        all.push(word);
    }
}

fn strings(mm: &Mm, at: &mut u64) -> Vec<String> {
    let string = |addr: &u64| String::from_utf8(mm.read_cstr(*addr, 4096).unwrap()).unwrap();
    words(mm, at).iter().map(string).collect()
}

/// `argv`, `envp` and the auxiliary vector as the program finds them.
fn stack(program: &Program) -> (Vec<String>, Vec<String>, BTreeMap<u64, u64>) {
    let mm = &program.mm;
    assert_eq!(program.sp % 16, 0);
    let argc: u64 = mm.read_val(program.sp).unwrap();
    let mut at = program.sp + 8;
    let argv = strings(mm, &mut at);
    assert_eq!(argv.len() as u64, argc);
    let envp = strings(mm, &mut at);
    let mut auxv = BTreeMap::new();
    loop {
        let [kind, value]: [u64; 2] = mm.read_val(at).unwrap();
        at += 16;
        if kind == 0 {
            return (argv, envp, auxv);
        }
        assert_eq!(auxv.insert(kind, value), None, "entry {kind} twice");
    }
}

#[test]
fn a_static_program_is_where_it_says() {
    let mut world = World::new();
    world.add("/bin/p", &program(EXEC, 0x40_0000));
    let program = world.run("/bin/p", &["p", "x y", ""], false).unwrap();
    let mm = &program.mm;
    assert_eq!((program.ip, program.comm.as_slice()), (0x40_0100, b"p".as_slice()));
    assert_eq!(mm.read_val(0x40_1000 + 0x7fc), Ok(0xcccc_ccccu32));
    assert_eq!(mm.read_val(0x40_1800), Ok(0u64), "the rest of the page is zero, not the file's");
    assert_eq!(mm.read_val(0x40_3ff8), Ok(0u64));
    assert_eq!(mm.write_val(0x40_2000, &1u8), Ok(()));
    assert_eq!(mm.write_val(0x40_0000, &1u8), Err(Errno::EFAULT));
    assert_eq!(mm.handle_fault(0x40_0100, Access::Execute), Ok(()));
    assert!(mm.handle_fault(0x40_1000, Access::Execute).is_err());
    assert_eq!(mm.program_break(), 0x40_4000);
    let (argv, envp, auxv) = stack(&program);
    assert_eq!(
        (argv, envp),
        (vec!["p".into(), "x y".into(), String::new()], vec!["A=1".into(), "B=".into()])
    );
    let ids: Vec<u64> = (11..15).map(|kind| auxv[&kind]).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!((auxv[&3], auxv[&4], auxv[&5], auxv[&6]), (0x40_0040, 56, 2, 4096));
    assert_eq!((auxv[&7], auxv[&9], auxv[&17], auxv[&23]), (0, 0x40_0100, 100, 0));
    assert_eq!(mm.read_cstr(auxv[&31], 100), Ok(b"/bin/p".to_vec()));
    assert_eq!(mm.read_cstr(auxv[&15], 100), Ok(crate::arch::MACHINE.into()));
    assert!(mm.read_val::<[u8; 16]>(auxv[&25]).is_ok());
    let layout = mm.layout();
    let mut args = vec![0; (layout.args.1 - layout.args.0) as usize];
    mm.read(layout.args.0, &mut args).unwrap();
    assert_eq!(args, b"p\0x y\0\0");
    assert_eq!(layout.env.1 - layout.env.0, 7);
    // Linux keeps the last eight bytes free.
    assert_eq!(mm.read_val(0x7fff_ffff_f000 - 8), Ok(0u64));
}

/// A program with a dynamic linker.
fn dynamic() -> Vec<u8> {
    let mut bytes = elf(
        DYN,
        0x100,
        &[
            (PT_INTERP, 4, 0x200, 0x200, 7, 7, 1),
            (PT_LOAD, 5, 0, 0, 0x1000, 0x1000, 0x20_0000),
            (PT_LOAD, 6, 0x1000, 0x1000, 0x1000, 0x1000, 0x1000),
        ],
        0x2000,
    );
    bytes[0x200..0x207].copy_from_slice(b"/lib/l\0");
    bytes
}

/// Host kernels for arm64 come with 39, 42, 47 and 48 bits of address space: whatever chance says, everything fits.
#[test]
fn programs_fit_short_address_spaces() {
    for bits in [39, 42, 47, 48] {
        let mut world = World::new();
        world.platform = Arc::new(FakePlatform::with_task_size(1 << bits));
        world.add("/bin/p", &dynamic());
        world.add("/lib/l", &program(DYN, 0));
        world.add("/bin/static-pie", &program(DYN, 0));
        for first in 0..=255 {
            world.seed = first;
            for path in ["/bin/p", "/bin/static-pie"] {
                let program = world.run(path, &["p"], true).unwrap();
                assert!(program.sp < 1 << bits, "{bits} bits, {first}");
                let at = program.mm.mmap(MapRequest::anonymous(1 << 30, Prot::READ)).unwrap();
                assert!(at + (1 << 30) <= 1 << bits, "{bits} bits, {first}: {at:#x}");
            }
        }
    }
}

#[test]
fn a_dynamic_program_starts_in_its_linker() {
    let mut world = World::new();
    world.add("/bin/p", &dynamic());
    assert_eq!(world.run("/bin/p", &["p"], true).err(), Some(ExecError::Errno(Errno::ENOENT)));
    world.add("/lib/l", b"#!not a linker");
    assert_eq!(world.run("/bin/p", &["p"], true).err(), Some(ExecError::Errno(Errno(80))));
    world.add("/lib/l", &program(DYN, 0));
    let program = world.run("/bin/p", &["p"], true).unwrap();
    let (_, _, auxv) = stack(&program);
    assert_eq!(auxv[&7] + 0x100, program.ip);
    assert_eq!(auxv[&9] % 0x20_0000, 0x100, "the alignment asked for");
    assert_eq!(auxv[&3], auxv[&9] - 0x100 + 64);
    let plain = world.run("/bin/p", &["p"], false).unwrap();
    let (_, _, plain) = stack(&plain);
    assert_ne!(plain[&9], auxv[&9], "randomised");
    assert_ne!(plain[&7], auxv[&7], "randomised");
}

#[test]
fn scripts_name_their_interpreter() {
    let mut world = World::new();
    world.add("/bin/p", &program(DYN, 0));
    world.add("/s", b"#! /bin/p -a b\n");
    let program = world.run("/s", &["name", "arg"], true).unwrap();
    let (argv, _, auxv) = stack(&program);
    assert_eq!(argv, ["/bin/p", "-a b", "/s", "arg"]);
    assert_eq!(program.mm.read_cstr(auxv[&31], 100), Ok(b"/s".to_vec()));
    assert_eq!(program.comm, b"s");
    for (name, next) in
        [("/1", "/bin/p"), ("/2", "/1"), ("/3", "/2"), ("/4", "/3"), ("/5", "/4"), ("/6", "/5")]
    {
        world.add(name, format!("#!{next}\n").as_bytes());
    }
    assert!(world.run("/5", &["x"], true).is_ok());
    assert_eq!(world.run("/6", &["x"], true).err(), Some(ExecError::Errno(Errno::ELOOP)));
}

#[test]
fn what_is_no_program_is_refused() {
    let mut world = World::new();
    let no_exec = Some(ExecError::Errno(Errno::ENOEXEC));
    let long = vec![b'a'; 5000];
    for bytes in [b"".as_slice(), b"\x7fEL", b"\x7fELF", b"echo hello\n", &long] {
        world.add("/p", bytes);
        assert_eq!(world.run("/p", &["p"], true).err(), no_exec);
    }
    let mut other = program(EXEC, 0x40_0000);
    other[18..20].copy_from_slice(&8u16.to_le_bytes());
    world.add("/p", &other);
    let error = world.run("/p", &["p"], true).err().unwrap();
    assert_eq!((error, error.errno()), (ExecError::OtherMachine(8), Errno::ENOEXEC));
    assert!(error.to_string().contains("mips"), "{error}");
    // In the kernel's windows, or out of bounds.
    for base in [layout::IMAGE_BASE, layout::ARENA_BASE + 0x10000, layout::IMAGE_BASE - 0x1000] {
        world.add("/p", &program(EXEC, base));
        assert_eq!(world.run("/p", &["p"], true).err(), Some(ExecError::Errno(Errno::ENOMEM)));
    }
    world.add("/p", &program(EXEC, 0x7fff_ffff_f000));
    assert_eq!(world.run("/p", &["p"], true).err(), no_exec);
    world.add("/p", &program(EXEC, u64::MAX - 0x2fff));
    assert_eq!(world.run("/p", &["p"], true).err(), no_exec);
}

#[test]
fn arguments_have_limits() {
    let mut world = World::new();
    world.add("/p", &program(EXEC, 0x40_0000));
    let long = "x".repeat(131_071);
    assert!(world.run("/p", &["p", &long], true).is_ok());
    let too_big = Some(ExecError::Errno(Errno::E2BIG));
    assert_eq!(world.run("/p", &["p", &"x".repeat(131_072)], true).err(), too_big);
    assert!(world.run("/p", &[long.as_str(); 15], true).is_ok());
    assert_eq!(world.run("/p", &[long.as_str(); 16], true).err(), too_big, "a quarter of the stack");
    world.limits.stack.store(64 << 10, Ordering::Relaxed);
    assert_eq!(world.run("/p", &["p", &long[..131_060]], true).err(), too_big);
    assert!(world.run("/p", &["p"; 1000], true).is_ok());
}

#[test]
fn hostile_headers_are_errors() {
    if !alone("loader::tests::hostile_headers_are_errors") {
        return;
    }
    let mut world = World::new();
    world.add("/bin/p", &program(DYN, 0));
    frames::put_ref(frames::zero().unwrap());
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let before = frames::used_bytes();
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..4000 {
        let base = if round % 2 == 0 { 0x40_0000 } else { 0 };
        let mut bytes = program(if round % 2 == 0 { EXEC } else { DYN }, base);
        for _ in 0..=below(4) {
            // Somewhere in the headers, behind the magic; often a value on some edge.
            let at = 4 + below(64 + 2 * 56 - 12) as usize;
            let edges =
                [0, 1, u64::MAX, 1 << 63, 0x1000, 0x7fff_ffff_f000, layout::IMAGE_BASE, below(u64::MAX / 2)];
            let value = edges[below(8) as usize].to_le_bytes();
            let width = [1, 2, 4, 8][below(4) as usize];
            bytes[at..at + width].copy_from_slice(&value[..width]);
        }
        let mut file = World::new();
        file.add("/p", &bytes);
        match file.run("/p", &["p"], below(2) == 0) {
            Ok(program) => {
                loaded += 1;
                let _ = program.mm.handle_fault(program.ip, Access::Execute);
                let _ = program.mm.brk(program.mm.program_break().wrapping_add(0x10000));
                drop(program.mm.fork().unwrap());
            }
            Err(_) => refused += 1,
        }
        drop(file);
        assert_eq!(frames::used_bytes(), before, "round {round}");
    }
    assert!(loaded > 100 && refused > 1000, "{loaded} loaded, {refused} refused");
}
