//! What threads of stubs may call: classic BPF programs over `struct seccomp_data` (seccomp(2)).
//!
//! **Program threads**: only four system call sites of the stub let anything through: futex(2), restricted to WAIT and
//! WAKE, rt_sigreturn(2) and rt_sigprocmask(2). Decided by the instruction's address, so that the same calls made by the
//! program itself trap like all others. A program that jumps to a site gains nothing: waiting and waking on its own
//! memory, loading its own registers and blocking its own signals is what it can do anyway. Other architectures' entries
//! (i386's, x32's numbers) trap too.
//!
//! **Mappers** (and with them everything that they clone, so it costs once): what orders are made of, from the stub's text
//! page only: memory of the three files, shared and where it is said to be; clones of the two kinds; writing to the order
//! file. No program's word reaches a mapper; if one did, it could still open nothing, send nothing and run nothing.
//!
//! (`seccompiler` cannot express conditions on the instruction pointer, hence the small assembler.)

use super::layout::{FD_FRAMES, FD_ORDERS, FD_SLOTS, TEXT, TEXT_LEN};

const LD_W_ABS: u16 = 0x20;
const AND_K: u16 = 0x54;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_IP_LOW: u32 = 8;
const OFFSET_IP_HIGH: u32 = 12;
/// The low half of an argument.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Where in the program a jump goes.
type To = &'static str;
/// The next line.
const NEXT: To = "";
const ALLOW: To = "allow";
const TRAP: To = "trap";

enum Line {
    Label(To),
    Load(u32),
    And(u32),
    /// If equal, the first; else the second.
    Equal(u32, To, To),
    Return(u32),
}

use Line::{And, Equal, Label, Load, Return};

/// What differs between architectures and builds.
pub(super) struct Sites {
    /// AUDIT_ARCH_*.
    pub(super) arch: u32,
    /// Addresses behind the stub's system call instructions (all below 4 GiB).
    pub(super) after_wake: u32,
    pub(super) after_wait: u32,
    pub(super) after_mask: u32,
    pub(super) after_return: u32,
    /// The flags with which threads are made.
    pub(super) thread_flags: u32,
}

/// The filter of program threads: `struct sock_filter`s, eight bytes each.
pub(super) fn of_programs(sites: &Sites) -> Vec<u8> {
    assemble(&[
        Load(OFFSET_ARCH),
        Equal(sites.arch, NEXT, TRAP),
        Load(OFFSET_NR),
        Equal(libc::SYS_futex as u32, "futex", NEXT),
        Equal(libc::SYS_rt_sigreturn as u32, "return", NEXT),
        Equal(libc::SYS_rt_sigprocmask as u32, "mask", TRAP),
        Label("futex"),
        Load(OFFSET_IP_HIGH),
        Equal(0, NEXT, TRAP),
        Load(OFFSET_IP_LOW),
        Equal(sites.after_wake, "op", NEXT),
        Equal(sites.after_wait, "op", TRAP),
        Label("op"),
        Load(argument(1)),
        Equal(libc::FUTEX_WAIT as u32, ALLOW, NEXT),
        Equal(libc::FUTEX_WAKE as u32, ALLOW, TRAP),
        Label("return"),
        Load(OFFSET_IP_HIGH),
        Equal(0, NEXT, TRAP),
        Load(OFFSET_IP_LOW),
        Equal(sites.after_return, ALLOW, TRAP),
        Label("mask"),
        Load(OFFSET_IP_HIGH),
        Equal(0, NEXT, TRAP),
        Load(OFFSET_IP_LOW),
        Equal(sites.after_mask, ALLOW, TRAP),
        Label(TRAP),
        Return(libc::SECCOMP_RET_TRAP),
        Label(ALLOW),
        Return(libc::SECCOMP_RET_ALLOW),
    ])
}

/// The filter of mappers. A call that it does not allow ends the process: mappers have the signal blocked.
pub(super) fn of_mappers(sites: &Sites) -> Vec<u8> {
    let allowed = [
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_sigaltstack,
        libc::SYS_getppid,
        libc::SYS_exit_group,
    ];
    let (shared, may_be) =
        ((libc::MAP_SHARED | libc::MAP_FIXED) as u32, (libc::MAP_POPULATE | libc::MAP_NORESERVE) as u32);
    let prot = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u32;
    let mut lines = vec![
        Load(OFFSET_ARCH),
        Equal(sites.arch, NEXT, TRAP),
        Load(OFFSET_IP_HIGH),
        Equal(0, NEXT, TRAP),
        Load(OFFSET_IP_LOW),
        And(!(TEXT_LEN as u32 - 1)),
        Equal(TEXT as u32, NEXT, TRAP),
        Load(OFFSET_NR),
        Equal(libc::SYS_futex as u32, "futex", NEXT),
        Equal(libc::SYS_mmap as u32, "map", NEXT),
        Equal(libc::SYS_pwrite64 as u32, "write", NEXT),
        Equal(libc::SYS_clone as u32, "clone", NEXT),
        Equal(libc::SYS_prctl as u32, "process", NEXT),
        Equal(libc::SYS_seccomp as u32, "filter", NEXT),
    ];
    lines.extend(allowed.map(|number| Equal(number as u32, ALLOW, NEXT)));
    lines.extend([
        Return(libc::SECCOMP_RET_TRAP),
        Label("futex"),
        Load(argument(1)),
        Equal(libc::FUTEX_WAIT as u32, ALLOW, NEXT),
        Equal(libc::FUTEX_WAKE as u32, ALLOW, TRAP),
        Label("map"),
        Load(argument(2)),
        And(!prot),
        Equal(0, NEXT, TRAP),
        Load(argument(3)),
        And(!may_be),
        Equal(shared, NEXT, TRAP),
        Load(argument(4)),
        Equal(FD_FRAMES as u32, ALLOW, NEXT),
        Equal(FD_SLOTS as u32, ALLOW, NEXT),
        Equal(FD_ORDERS as u32, ALLOW, TRAP),
        Label("write"),
        Load(argument(0)),
        Equal(FD_ORDERS as u32, ALLOW, TRAP),
        Label("clone"),
        Load(argument(0)),
        Equal((libc::CLONE_PARENT | libc::SIGCHLD) as u32, ALLOW, NEXT),
        Equal(sites.thread_flags, ALLOW, TRAP),
        Label("process"),
        Load(argument(0)),
        Equal(libc::PR_SET_PDEATHSIG as u32, ALLOW, TRAP),
        Label("filter"),
        Load(argument(0)),
        Equal(libc::SECCOMP_SET_MODE_FILTER, ALLOW, TRAP),
        Label(TRAP),
        Return(libc::SECCOMP_RET_TRAP),
        Label(ALLOW),
        Return(libc::SECCOMP_RET_ALLOW),
    ]);
    assemble(&lines)
}

fn assemble(lines: &[Line]) -> Vec<u8> {
    let position = |label: To| {
        let mut at = 0u8;
        for line in lines {
            match line {
                Label(here) if *here == label => return at,
                Label(_) => (),
                _ => at += 1,
            }
        }
        at
    };
    let mut code = Vec::new();
    let mut emit = |op: u16, jt: u8, jf: u8, k: u32| {
        code.extend_from_slice(&op.to_ne_bytes());
        code.extend_from_slice(&[jt, jf]);
        code.extend_from_slice(&k.to_ne_bytes());
    };
    let mut at = 0u8;
    for line in lines {
        let jump = |label: To| if label == NEXT { 0 } else { position(label) - at - 1 };
        match line {
            Label(_) => continue,
            Load(offset) => emit(LD_W_ABS, 0, 0, *offset),
            And(mask) => emit(AND_K, 0, 0, *mask),
            Equal(value, yes, no) => emit(JEQ_K, jump(yes), jump(no), *value),
            Return(action) => emit(RET_K, 0, 0, *action),
        }
        at += 1;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::{AND_K, JEQ_K, LD_W_ABS, RET_K, Sites, of_mappers, of_programs};
    use crate::platform::systrap::layout::TEXT;

    const ARCH: u32 = 0xc000_003e;
    const SITES: Sites = Sites {
        arch: ARCH,
        after_wake: 0x100,
        after_wait: 0x200,
        after_return: 0x300,
        after_mask: 0x400,
        thread_flags: 0x50f00,
    };

    /// Interprets a program: whether it allows the call, or else traps.
    fn allows(code: &[u8], nr: i64, arch: u32, ip: u64, args: [u64; 6]) -> bool {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&(nr as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[8..16].copy_from_slice(&ip.to_ne_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = &code[pc * 8..pc * 8 + 8];
            let k = u32::from_ne_bytes(i[4..8].try_into().unwrap());
            pc += 1;
            match u16::from_ne_bytes([i[0], i[1]]) {
                LD_W_ABS => acc = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                AND_K => acc &= k,
                JEQ_K => pc += usize::from(if acc == k { i[2] } else { i[3] }),
                RET_K if k == libc::SECCOMP_RET_ALLOW => return true,
                RET_K if k == libc::SECCOMP_RET_TRAP => return false,
                other => panic!("{other:#x} {k:#x}"),
            }
        }
    }

    #[test]
    fn only_the_stubs_own_sites_are_allowed() {
        let code = of_programs(&SITES);
        let allowed = |nr, arch, ip, arg1| allows(&code, nr, arch, ip, [0, arg1, 0, 0, 0, 0]);
        let (futex, back, mask) = (libc::SYS_futex, libc::SYS_rt_sigreturn, libc::SYS_rt_sigprocmask);
        assert!(allowed(futex, ARCH, 0x100, 1));
        assert!(allowed(futex, ARCH, 0x200, 0));
        assert!(allowed(back, ARCH, 0x300, 99));
        assert!(allowed(mask, ARCH, 0x400, 99));
        for (nr, arch, ip, arg1) in [
            (futex, ARCH, 0x300, 0),
            (futex, ARCH, 0x400, 0),
            (futex, ARCH, 0x1_0000_0100, 0),
            (futex, ARCH, 0x100, 6),
            (futex, ARCH, 0x100, 0x80),
            (back, ARCH, 0x100, 0),
            (back, ARCH, 0x1_0000_0300, 0),
            (mask, ARCH, 0x300, 0),
            (mask, ARCH, 0x1_0000_0400, 0),
            (futex | 0x4000_0000, ARCH, 0x100, 0),
            (futex, 0x4000_0003, 0x100, 0),
            (libc::SYS_mmap, ARCH, 0x100, 0),
            (i64::from(u32::MAX), ARCH, 0x300, 0),
        ] {
            assert!(!allowed(nr, arch, ip, arg1), "{nr} {arch:#x} {ip:#x} {arg1}");
        }
    }

    #[test]
    fn mappers_do_what_orders_are_made_of_and_nothing_else() {
        let code = of_mappers(&SITES);
        let allowed = |nr, args| allows(&code, nr, ARCH, TEXT + 0x123, args);
        let map = |prot: i32, flags: i32, fd: u64| {
            (libc::SYS_mmap, [0x1000, 4096, prot as u64, flags as u64, fd, 0])
        };
        let shared = libc::MAP_SHARED | libc::MAP_FIXED;
        for (nr, args) in [
            map(7, shared, 0),
            map(1, shared | libc::MAP_POPULATE | libc::MAP_NORESERVE, 2),
            (libc::SYS_pwrite64, [2, 0, 4, 0, 0, 0]),
            (libc::SYS_clone, [SITES.thread_flags.into(), 0, 0, 0, 0, 0]),
            (libc::SYS_munmap, [0; 6]),
            (libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, 9, 0, 0, 0, 0]),
        ] {
            assert!(allowed(nr, args), "{nr} {args:?}");
            for ip in [TEXT - 1, TEXT + 4096, TEXT | 1 << 32, 0x40_0000] {
                assert!(!allows(&code, nr, ARCH, ip, args), "{nr} {ip:#x}");
            }
            assert!(!allows(&code, nr, 0x4000_0003, TEXT, args), "{nr}");
        }
        for (nr, args) in [
            map(7, shared, 3),
            map(7, libc::MAP_PRIVATE | libc::MAP_FIXED, 0),
            map(7, shared | libc::MAP_ANONYMOUS, 0),
            map(7, libc::MAP_SHARED, 0),
            map(1 << 24, shared, 0),
            (libc::SYS_pwrite64, [0, 0, 4, 0, 0, 0]),
            (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
            (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
            (libc::SYS_openat, [0; 6]),
            (libc::SYS_execve, [0; 6]),
            (libc::SYS_kill, [0; 6]),
            (libc::SYS_write, [2, 0, 4, 0, 0, 0]),
            (libc::SYS_close, [0; 6]),
            (libc::SYS_ptrace, [0; 6]),
        ] {
            assert!(!allowed(nr, args), "{nr} {args:?}");
        }
    }
}
