//! The filter of program threads: a classic BPF program over `struct seccomp_data` (seccomp(2)).
//!
//! Only three system call sites of the stub let anything through: futex(2), restricted to WAIT and WAKE, and
//! rt_sigreturn(2). Decided by the instruction's address, so that the same calls made by the program itself trap like
//! all others. A program that jumps to a site gains nothing: waiting and waking on its own memory and loading its own
//! registers is what it can do anyway. Other architectures' entries (i386's, x32's numbers) trap too.
//!
//! (`seccompiler` cannot express conditions on the instruction pointer, hence the small assembler.)

const LD_W_ABS: u16 = 0x20;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_IP_LOW: u32 = 8;
const OFFSET_IP_HIGH: u32 = 12;
const OFFSET_ARG1_LOW: u32 = 24;

/// Where in the program a jump goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Next,
    Futex,
    Op,
    Return,
    Allow,
    Trap,
}

enum Line {
    Label(To),
    Load(u32),
    /// If equal, the first; else the second.
    Equal(u32, To, To),
    Return(u32),
}

/// What differs between architectures and builds.
pub(super) struct Sites {
    /// AUDIT_ARCH_*.
    pub(super) arch: u32,
    pub(super) futex: u32,
    pub(super) rt_sigreturn: u32,
    /// Addresses behind the stub's system call instructions (all below 4 GiB).
    pub(super) after_wake: u32,
    pub(super) after_wait: u32,
    pub(super) after_return: u32,
}

/// Assembles the filter: `struct sock_filter`s, eight bytes each.
pub(super) fn assemble(sites: &Sites) -> Vec<u8> {
    use To::{Allow, Futex, Next, Op, Return, Trap};
    let lines = [
        Line::Load(OFFSET_ARCH),
        Line::Equal(sites.arch, Next, Trap),
        Line::Load(OFFSET_NR),
        Line::Equal(sites.futex, Futex, Next),
        Line::Equal(sites.rt_sigreturn, Return, Trap),
        Line::Label(Futex),
        Line::Load(OFFSET_IP_HIGH),
        Line::Equal(0, Next, Trap),
        Line::Load(OFFSET_IP_LOW),
        Line::Equal(sites.after_wake, Op, Next),
        Line::Equal(sites.after_wait, Op, Trap),
        Line::Label(Op),
        Line::Load(OFFSET_ARG1_LOW),
        Line::Equal(libc::FUTEX_WAIT as u32, Allow, Next),
        Line::Equal(libc::FUTEX_WAKE as u32, Allow, Trap),
        Line::Label(Return),
        Line::Load(OFFSET_IP_HIGH),
        Line::Equal(0, Next, Trap),
        Line::Load(OFFSET_IP_LOW),
        Line::Equal(sites.after_return, Allow, Trap),
        Line::Label(Trap),
        Line::Return(libc::SECCOMP_RET_TRAP),
        Line::Label(Allow),
        Line::Return(libc::SECCOMP_RET_ALLOW),
    ];
    let position = |label: To| {
        let mut at = 0u8;
        for line in &lines {
            match line {
                Line::Label(here) if *here == label => return at,
                Line::Label(_) => (),
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
    for line in &lines {
        let jump = |label: To| if label == Next { 0 } else { position(label) - at - 1 };
        match line {
            Line::Label(_) => continue,
            Line::Load(offset) => emit(LD_W_ABS, 0, 0, *offset),
            Line::Equal(value, yes, no) => emit(JEQ_K, jump(*yes), jump(*no), *value),
            Line::Return(action) => emit(RET_K, 0, 0, *action),
        }
        at += 1;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::{Sites, assemble};

    const SITES: Sites = Sites {
        arch: 0xc000_003e,
        futex: 202,
        rt_sigreturn: 15,
        after_wake: 0x100,
        after_wait: 0x200,
        after_return: 0x300,
    };

    /// Interprets the program.
    fn run(code: &[u8], nr: u32, arch: u32, ip: u64, arg1: u64) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&nr.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[8..16].copy_from_slice(&ip.to_ne_bytes());
        data[24..32].copy_from_slice(&arg1.to_ne_bytes());
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = &code[pc * 8..pc * 8 + 8];
            let k = u32::from_ne_bytes(i[4..8].try_into().unwrap());
            pc += 1;
            match u16::from_ne_bytes([i[0], i[1]]) {
                super::LD_W_ABS => {
                    acc = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap())
                }
                super::JEQ_K => pc += usize::from(if acc == k { i[2] } else { i[3] }),
                super::RET_K => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn only_the_stubs_own_sites_are_allowed() {
        let code = assemble(&SITES);
        let allowed = |nr, arch, ip, arg1| match run(&code, nr, arch, ip, arg1) {
            libc::SECCOMP_RET_ALLOW => true,
            libc::SECCOMP_RET_TRAP => false,
            other => panic!("{other:#x}"),
        };
        assert!(allowed(202, SITES.arch, 0x100, 1));
        assert!(allowed(202, SITES.arch, 0x200, 0));
        assert!(allowed(15, SITES.arch, 0x300, 99));
        for (nr, arch, ip, arg1) in [
            (202, SITES.arch, 0x300, 0),
            (202, SITES.arch, 0x1_0000_0100, 0),
            (202, SITES.arch, 0x100, 6),
            (202, SITES.arch, 0x100, 0x80),
            (15, SITES.arch, 0x100, 0),
            (15, SITES.arch, 0x1_0000_0300, 0),
            (202 | 0x4000_0000, SITES.arch, 0x100, 0),
            (202, 0x4000_0003, 0x100, 0),
            (9, SITES.arch, 0x100, 0),
            (u32::MAX, SITES.arch, 0x300, 0),
        ] {
            assert!(!allowed(nr, arch, ip, arg1), "{nr} {arch:#x} {ip:#x} {arg1}");
        }
    }
}
