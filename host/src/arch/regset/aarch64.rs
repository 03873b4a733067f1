//! aarch64: `struct user_pt_regs`, `struct user_fpsimd_state` (uapi/asm/ptrace.h), and what else has a note type.

use super::RegisterSet;
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use linux_raw_sys::elf_uapi::{
    NT_ARM_HW_BREAK, NT_ARM_HW_WATCH, NT_ARM_SYSTEM_CALL, NT_ARM_TLS, NT_PRFPREG, NT_PRSTATUS,
};
use ring0_aarch64::frame::NZCV;

pub(super) const SETS: &[(u32, RegisterSet, usize)] = &[
    (NT_PRSTATUS, RegisterSet::General, 8),
    (NT_PRFPREG, RegisterSet::FloatingPoint, 4),
    (NT_ARM_TLS, RegisterSet::ThreadPointer, 8),
    (NT_ARM_SYSTEM_CALL, RegisterSet::SystemCall, 4),
    (NT_ARM_HW_BREAK, RegisterSet::Debug, 4),
    (NT_ARM_HW_WATCH, RegisterSet::Debug, 4),
];

/// What core dumps have of them besides the general ones, in Linux's order.
pub const CORE_NOTES: &[(u32, RegisterSet)] = &[
    (NT_PRFPREG, RegisterSet::FloatingPoint),
    (NT_ARM_TLS, RegisterSet::ThreadPointer),
    (NT_ARM_HW_BREAK, RegisterSet::Debug),
    (NT_ARM_HW_WATCH, RegisterSet::Debug),
    (NT_ARM_SYSTEM_CALL, RegisterSet::SystemCall),
];

/// A note on the layout of registers: there is nothing to tell on this architecture.
pub fn core_layout() -> Option<(u32, Vec<u8>)> {
    None
}

/// Another exception level, AArch32, masked interrupts (Linux's `valid_user_regs`).
const FOREIGN_PSTATE: u64 = 0x3df;
/// `struct user_fpsimd_state`: V0 to V31, FPSR, FPCR, padding.
const FP_SIZE: usize = 528;
/// `dbg_info`: the debug architecture (ARMv8), and no slot.
const NO_SLOTS: u64 = 6 << 8;

/// The registers as a tracer finds them while a call is made: as the program left them.
pub fn entered(_regs: &mut UserRegs) {}

/// Before a tracer looks at a stop at the beginning or end of a call: x7 says which of them it is. Returns what it was.
pub fn show_stop(regs: &mut UserRegs, exit: bool) -> u64 {
    core::mem::replace(&mut regs.x[7], exit.into())
}

/// After it has looked. The first argument of a call is what x0 says now.
pub fn unshow_stop(regs: &mut UserRegs, exit: bool, kept: u64) {
    regs.x[7] = kept;
    if !exit {
        regs.orig_x0 = regs.x[0];
    }
}

/// Has the next instruction trap.
///
/// # Errors
/// EIO: neither platform does that on this architecture.
pub fn begin_step(_regs: &mut UserRegs) -> Result<bool> {
    Err(Errno::EIO)
}

/// Undoes [`begin_step`] that returned true.
pub fn end_step(_regs: &mut UserRegs) {}

/// `si_code` of the SIGTRAP for a step over a system call (`user_single_step_report`).
pub fn step_code() -> i32 {
    libc::SI_USER
}

fn bytes_of(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_ne_bytes).collect()
}

/// A register set's bytes; none where this machine lacks it.
pub fn read(set: RegisterSet, regs: &UserRegs, fp: &mut FpState) -> Option<Vec<u8>> {
    Some(match set {
        RegisterSet::General => bytes_of(regs.x.into_iter().chain([regs.sp, regs.pc, regs.pstate])),
        RegisterSet::FloatingPoint => {
            let mut bytes: Vec<u8> = fp.v.iter().flat_map(|value| value.to_ne_bytes()).collect();
            bytes.extend(fp.fpsr.to_ne_bytes());
            bytes.extend(fp.fpcr.to_ne_bytes());
            bytes.resize(FP_SIZE, 0);
            bytes
        }
        // TPIDR2_EL0 follows, which is SME's: zero where there is none (`tls_get`).
        RegisterSet::ThreadPointer => bytes_of([regs.tpidr, 0]),
        RegisterSet::SystemCall => (regs.syscall as u32).to_ne_bytes().to_vec(),
        RegisterSet::Debug => bytes_of([NO_SLOTS]),
        RegisterSet::Extended => return None,
    })
}

/// Takes a register set, or its beginning.
///
/// # Errors
/// EINVAL for values that no program may have, ENOSPC for debug registers.
pub fn write(set: RegisterSet, regs: &mut UserRegs, fp: &mut FpState, bytes: &[u8]) -> Result<()> {
    let (words, _) = bytes.as_chunks::<8>();
    match set {
        RegisterSet::General => write_general(regs, words),
        RegisterSet::FloatingPoint => {
            let mut image = read(set, regs, fp).unwrap_or_default();
            let len = bytes.len().min(image.len());
            image[..len].copy_from_slice(&bytes[..len]);
            for (value, bytes) in fp.v.iter_mut().zip(image.as_chunks::<16>().0) {
                *value = u128::from_ne_bytes(*bytes);
            }
            let half = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| image[at + i]));
            (fp.fpsr, fp.fpcr) = (half(512), half(516));
            Ok(())
        }
        RegisterSet::ThreadPointer => {
            regs.tpidr = words.first().map_or(regs.tpidr, |word| u64::from_ne_bytes(*word));
            Ok(())
        }
        RegisterSet::SystemCall => {
            if let Some(number) = bytes.first_chunk::<4>() {
                let number = i32::from_ne_bytes(*number);
                regs.syscall = if number == -1 { !0 } else { u64::from(number as u32) };
            }
            Ok(())
        }
        RegisterSet::Debug if bytes.len() <= 8 => Ok(()),
        RegisterSet::Debug => Err(Errno::ENOSPC),
        RegisterSet::Extended => Err(Errno::EINVAL),
    }
}

fn write_general(regs: &mut UserRegs, words: &[[u8; 8]]) -> Result<()> {
    let mut new = *regs;
    for (index, word) in words.iter().enumerate() {
        let value = u64::from_ne_bytes(*word);
        match index {
            0..=30 => new.x[index] = value,
            31 => new.sp = value,
            32 => new.pc = value,
            _ if value & FOREIGN_PSTATE != 0 => return Err(Errno::EINVAL),
            _ => new.pstate = new.pstate & !NZCV | value & NZCV,
        }
    }
    *regs = new;
    Ok(())
}

/// Requests of this architecture alone: none.
pub fn whole(_request: u32) -> Option<(RegisterSet, bool)> {
    None
}

/// A word of `struct user`: there is none on this architecture.
///
/// # Errors
/// EIO.
pub fn peek_user(_regs: &UserRegs, _offset: u64) -> Result<u64> {
    Err(Errno::EIO)
}

/// Sets a word of `struct user`: there is none on this architecture.
///
/// # Errors
/// EIO.
pub fn poke_user(_regs: &mut UserRegs, _offset: u64, _value: u64) -> Result<()> {
    Err(Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::{FpState, RegisterSet, UserRegs, read, write};
    use crate::abi::Errno;

    #[test]
    fn sets_come_back_and_foreign_modes_do_not_go_in() {
        let mut regs = UserRegs { pc: 0x1000, sp: 0x2000, tpidr: 7, syscall: 64, ..UserRegs::default() };
        let mut fp = FpState::initial();
        fp.v[31] = 5 << 100;
        let sizes = [
            (RegisterSet::General, 272),
            (RegisterSet::FloatingPoint, 528),
            (RegisterSet::ThreadPointer, 8),
            (RegisterSet::SystemCall, 4),
        ];
        for (set, size) in sizes {
            let bytes = read(set, &regs, &mut fp).unwrap();
            assert_eq!(bytes.len(), size);
            let before = (regs, fp.v);
            write(set, &mut regs, &mut fp, &bytes).unwrap();
            assert!(before == (regs, fp.v));
        }
        let mut bytes = read(RegisterSet::General, &regs, &mut fp).unwrap();
        bytes[33 * 8] = 4;
        assert_eq!(write(RegisterSet::General, &mut regs, &mut fp, &bytes), Err(Errno::EINVAL));
        bytes[33 * 8] = 0;
        bytes[33 * 8 + 2] = 0x20;
        write(RegisterSet::General, &mut regs, &mut fp, &bytes).unwrap();
        assert_eq!(regs.pstate, 0);
    }
}
