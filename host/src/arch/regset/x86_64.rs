//! x86_64: `struct user_regs_struct`, `struct user_fpregs_struct`, the XSAVE image (sys/user.h; Intel SDM vol. 1, 13.4).

use super::RegisterSet;
use crate::abi::{Errno, Result};
use crate::arch::sigframe;
use crate::arch::{FpState, UserRegs};
use linux_raw_sys::elf_uapi::{NT_PRFPREG, NT_PRSTATUS, NT_X86_XSAVE_LAYOUT, NT_X86_XSTATE};
use linux_raw_sys::ptrace::{PTRACE_GETFPREGS, PTRACE_GETREGS, PTRACE_SETFPREGS, PTRACE_SETREGS};
use ring0_x86_64::tables::selector;
use x86_64::registers::rflags::RFlags;

pub(super) const SETS: &[(u32, RegisterSet, usize)] = &[
    (NT_PRSTATUS, RegisterSet::General, 8),
    (NT_PRFPREG, RegisterSet::FloatingPoint, 8),
    (NT_X86_XSTATE, RegisterSet::Extended, 8),
];

/// What core dumps have of them besides the general ones, in Linux's order.
pub const CORE_NOTES: &[(u32, RegisterSet)] =
    &[(NT_PRFPREG, RegisterSet::FloatingPoint), (NT_X86_XSTATE, RegisterSet::Extended)];

/// A note on where the XSAVE image has what: `struct x86_xfeat_component` of each component beyond x87 and SSE.
pub fn core_layout() -> Option<(u32, Vec<u8>)> {
    let words: Vec<u32> = sigframe::xstate_components().flatten().collect();
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    (!words.is_empty()).then_some((NT_X86_XSAVE_LAYOUT, bytes))
}

/// Words of `struct user_regs_struct`.
const WORDS: usize = size_of::<UserRegs>() / 8;
/// `sizeof(struct user)`, and where its debug registers are.
const USER_SIZE: u64 = 928;
const DEBUG_REGISTERS: core::ops::Range<u64> = 848..912;
const FXSAVE_SIZE: usize = 512;
/// Where an XSAVE image that ptrace gives says which components it has (`struct xstate_fx_sw_bytes`).
const XCR0_AT: usize = 464;
const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
/// What no program's segment base reaches.
const TASK_SIZE_MAX: u64 = (1 << 47) - 4096;
/// Requested privilege level of a selector.
const RPL: u64 = 3;
const TRAP_FLAG: u64 = RFlags::TRAP_FLAG.bits();
const ENOSYS_RESULT: u64 = -(Errno::ENOSYS.0 as i64) as u64;

/// The registers as a tracer finds them while a call is made: no result yet.
pub fn entered(regs: &mut UserRegs) {
    regs.rax = ENOSYS_RESULT;
}

/// Before a tracer looks at a stop at the beginning or end of a call: nothing to show on this architecture.
pub fn show_stop(_regs: &mut UserRegs, _exit: bool) -> u64 {
    0
}

/// After it has looked.
pub fn unshow_stop(_regs: &mut UserRegs, _exit: bool, _kept: u64) {}

/// Has the next instruction trap. False: the program has asked for that itself.
pub fn begin_step(regs: &mut UserRegs) -> Result<bool> {
    let own = regs.eflags & TRAP_FLAG != 0;
    regs.eflags |= TRAP_FLAG;
    Ok(!own)
}

/// Undoes [`begin_step`] that returned true.
pub fn end_step(regs: &mut UserRegs) {
    regs.eflags &= !TRAP_FLAG;
}

/// `si_code` of the SIGTRAP for a step over a system call (`user_single_step_report`).
pub fn step_code() -> i32 {
    libc::TRAP_BRKPT
}

fn words(regs: &UserRegs) -> [u64; WORDS] {
    let r = regs;
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
        r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ]
}

/// Sets one word of `struct user_regs_struct` as far as a program may have it (`putreg`).
fn set_word(regs: &mut UserRegs, index: usize, value: u64) -> Result<()> {
    let selector = |null: bool| {
        let valid = if value & 0xffff == 0 { null } else { value & RPL == RPL };
        if valid { Ok(()) } else { Err(Errno::EIO) }
    };
    let slot = match index {
        0 => &mut regs.r15,
        1 => &mut regs.r14,
        2 => &mut regs.r13,
        3 => &mut regs.r12,
        4 => &mut regs.rbp,
        5 => &mut regs.rbx,
        6 => &mut regs.r11,
        7 => &mut regs.r10,
        8 => &mut regs.r9,
        9 => &mut regs.r8,
        10 => &mut regs.rax,
        11 => &mut regs.rcx,
        12 => &mut regs.rdx,
        13 => &mut regs.rsi,
        14 => &mut regs.rdi,
        15 => &mut regs.orig_rax,
        16 => &mut regs.rip,
        // There is one code segment and one data segment: what else a tracer asks for is not to be had.
        17 | 20 => return selector(false),
        18 => {
            let settable = sigframe::RESTORED_FLAGS;
            regs.eflags = regs.eflags & !settable | value & settable;
            return Ok(());
        }
        19 => &mut regs.rsp,
        21 | 22 if value >= TASK_SIZE_MAX => return Err(Errno::EIO),
        21 => &mut regs.fs_base,
        22 => &mut regs.gs_base,
        23..=26 => return selector(true),
        _ => return Err(Errno::EIO),
    };
    *slot = value;
    Ok(())
}

/// A register set's bytes; none where this machine lacks it.
pub fn read(set: RegisterSet, regs: &UserRegs, fp: &mut FpState) -> Option<Vec<u8>> {
    match set {
        RegisterSet::General => {
            let mut shown = *regs;
            (shown.cs, shown.ss) = (selector::USER_CODE.into(), selector::USER_DATA.into());
            Some(words(&shown).iter().flat_map(|word| word.to_ne_bytes()).collect())
        }
        RegisterSet::FloatingPoint => {
            sigframe::complete(fp);
            let mut bytes = fp.0[..FXSAVE_SIZE].to_vec();
            bytes[XCR0_AT..].fill(0);
            Some(bytes)
        }
        RegisterSet::Extended => {
            let (features, size) = sigframe::xstate_layout();
            if size == FXSAVE_SIZE {
                return None;
            }
            sigframe::complete(fp);
            let mut bytes = fp.0[..size].to_vec();
            bytes[XCR0_AT..FXSAVE_SIZE].fill(0);
            bytes[XCR0_AT..XCR0_AT + 8].copy_from_slice(&features.to_ne_bytes());
            Some(bytes)
        }
        _ => None,
    }
}

/// Takes a register set, or its beginning.
///
/// # Errors
/// What Linux says of values that no program may have: EIO for general registers, EINVAL and EFAULT for others.
pub fn write(set: RegisterSet, regs: &mut UserRegs, fp: &mut FpState, bytes: &[u8]) -> Result<()> {
    match set {
        RegisterSet::General => {
            let (words, _) = bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                set_word(regs, index, u64::from_ne_bytes(*word))?;
            }
            Ok(())
        }
        RegisterSet::FloatingPoint => {
            if bytes.len() != FXSAVE_SIZE {
                return Err(Errno::EINVAL);
            }
            check_mxcsr(bytes)?;
            // Components beyond these two stay as they are.
            sigframe::complete(fp);
            fp.0[..XCR0_AT].copy_from_slice(&bytes[..XCR0_AT]);
            Ok(())
        }
        RegisterSet::Extended => write_image(fp, bytes),
        _ => Err(Errno::EINVAL),
    }
}

fn check_mxcsr(bytes: &[u8]) -> Result<()> {
    let mxcsr = u32::from_ne_bytes(core::array::from_fn(|i| bytes[MXCSR + i]));
    // Reserved bits (SDM vol. 1, 10.2.3).
    if mxcsr & !0xffff == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// An XSAVE image: one that XRSTOR would load, or none at all (SDM vol. 1, 13.8.1).
fn write_image(fp: &mut FpState, bytes: &[u8]) -> Result<()> {
    let (features, size) = sigframe::xstate_layout();
    if size == FXSAVE_SIZE || bytes.len() != size {
        return Err(Errno::EFAULT);
    }
    let word = |at: usize| u64::from_ne_bytes(core::array::from_fn(|i| bytes[at + i]));
    let header = XSTATE_BV + 8..XSTATE_BV + 64;
    if word(XSTATE_BV) & !features != 0 || bytes[header].iter().any(|byte| *byte != 0) {
        return Err(Errno::EINVAL);
    }
    check_mxcsr(bytes)?;
    fp.0[..size].copy_from_slice(bytes);
    fp.0[XCR0_AT..FXSAVE_SIZE].fill(0);
    Ok(())
}

/// The set that a request of this architecture alone is about, and whether it is to be changed.
pub fn whole(request: u32) -> Option<(RegisterSet, bool)> {
    match request {
        PTRACE_GETREGS => Some((RegisterSet::General, false)),
        PTRACE_SETREGS => Some((RegisterSet::General, true)),
        PTRACE_GETFPREGS => Some((RegisterSet::FloatingPoint, false)),
        PTRACE_SETFPREGS => Some((RegisterSet::FloatingPoint, true)),
        _ => None,
    }
}

/// A word of `struct user`.
///
/// # Errors
/// EIO if there is none at `offset`.
pub fn peek_user(regs: &UserRegs, offset: u64) -> Result<u64> {
    if !offset.is_multiple_of(8) || offset >= USER_SIZE {
        return Err(Errno::EIO);
    }
    let mut shown = *regs;
    (shown.cs, shown.ss) = (selector::USER_CODE.into(), selector::USER_DATA.into());
    // Debug registers, of which none is ever set, and what only core files have, are 0.
    Ok(words(&shown).get((offset / 8) as usize).copied().unwrap_or(0))
}

/// Sets a word of `struct user`.
///
/// # Errors
/// EIO for what no program may have, and for debug registers other than to clear them.
pub fn poke_user(regs: &mut UserRegs, offset: u64, value: u64) -> Result<()> {
    if !offset.is_multiple_of(8) || offset >= USER_SIZE {
        return Err(Errno::EIO);
    }
    if DEBUG_REGISTERS.contains(&offset) && value == 0 {
        return Ok(());
    }
    set_word(regs, (offset / 8) as usize, value)
}

#[cfg(test)]
mod tests {
    use super::{FXSAVE_SIZE, FpState, RegisterSet, UserRegs, peek_user, poke_user, read, write};
    use crate::abi::Errno;
    use crate::arch::Registers;

    #[test]
    fn general_registers_come_back_and_hostile_ones_do_not_go_in() {
        let mut regs = UserRegs::start(0x1000, 0x2000);
        let mut fp = FpState::initial();
        let before = read(RegisterSet::General, &regs, &mut fp).unwrap();
        assert_eq!(before.len(), 27 * 8);
        write(RegisterSet::General, &mut regs, &mut fp, &before).unwrap();
        assert_eq!(read(RegisterSet::General, &regs, &mut fp).unwrap(), before);
        let kept = regs;
        for (index, value) in [(17, 0x10), (17, 0), (20, 8), (21, 1 << 47), (22, !0), (23, 8), (99, 1)] {
            assert_eq!(poke_user(&mut regs, index * 8, value), Err(Errno::EIO), "{index}");
        }
        assert_eq!(regs, kept);
        // IOPL, NT, VM, IF: not a tracer's.
        poke_user(&mut regs, 18 * 8, !0).unwrap();
        assert_eq!(regs.eflags & 0xffff_ffff_fffa_f22a & !0x202, 0);
        assert!(regs.eflags & 0x200 != 0);
        poke_user(&mut regs, 16 * 8, 1 << 63).unwrap();
        assert_eq!(peek_user(&regs, 16 * 8), Ok(1 << 63));
        assert_eq!((peek_user(&regs, 848), poke_user(&mut regs, 848, 0)), (Ok(0), Ok(())));
        assert_eq!((peek_user(&regs, 928), peek_user(&regs, 4)), (Err(Errno::EIO), Err(Errno::EIO)));
    }

    #[test]
    fn images_that_would_fault_are_refused() {
        let mut regs = UserRegs::start(0, 0);
        let mut fp = FpState::initial();
        if let Some(image) = read(RegisterSet::Extended, &regs, &mut fp) {
            for at in [27, 512 + 7, 512 + 8, 512 + 16, 512 + 63] {
                let mut bad = image.clone();
                bad[at] |= 0x80;
                assert_eq!(
                    write(RegisterSet::Extended, &mut regs, &mut fp, &bad),
                    Err(Errno::EINVAL),
                    "{at}"
                );
            }
            assert_eq!(write(RegisterSet::Extended, &mut regs, &mut fp, &image[8..]), Err(Errno::EFAULT));
            write(RegisterSet::Extended, &mut regs, &mut fp, &image).unwrap();
        }
        let mut bad = read(RegisterSet::FloatingPoint, &regs, &mut fp).unwrap();
        assert_eq!(bad.len(), FXSAVE_SIZE);
        bad[26] = 1;
        assert_eq!(write(RegisterSet::FloatingPoint, &mut regs, &mut fp, &bad), Err(Errno::EINVAL));
    }
}
