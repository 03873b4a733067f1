//! The signal frame of aarch64 (arch/arm64/kernel/signal.c `struct rt_sigframe`, uapi asm/sigcontext.h).
//!
//! As on x86_64, where the frame lies in a slot is learned once, and everything in it is hostile. Records behind the
//! registers: the host puts `fpsimd_context` first and `esr_context`, where a fault has one, second; what follows (SVE
//! and later extensions) programs are not given. The kernel's frames hold `fpsimd_context` alone, and the host then
//! resets the rest.

use super::super::layout::{CONTROL, Control, SLOTS};
use super::super::shared::Shared;
use crate::arch::{AUDIT_ARCH, FpState, UserRegs};
use crate::platform::{Access, FaultInfo, SignalInfo, Trap};
use aarch64_cpu::registers::ESR_EL1::EC;
use core::mem::offset_of;
use ring0_aarch64::frame::NZCV;
use ring0_aarch64::trap::{CM, WNR};

const SIGNO: usize = 0;
const CODE: usize = 8;
const ADDR: usize = 16;
const ARCH: usize = 28;
const UC_STACK: usize = 144;
const SIGMASK: usize = 168;
const FAULT_ADDRESS: usize = 304;
const REGS: usize = 312;
const SP: usize = 560;
const PC: usize = 568;
const PSTATE: usize = 576;
const RECORDS: usize = 592;
const FPSIMD_LEN: usize = 528;
const ESR: usize = RECORDS + FPSIMD_LEN;
/// What is copied: registers, `fpsimd_context`, `esr_context` (or the terminator).
const FRAME_LEN: usize = ESR + 16;
const FPSIMD_MAGIC: u32 = 0x4650_8001;
const ESR_MAGIC: u32 = 0x4553_5201;
/// NZCV, TCO, DIT, SSBS, BTYPE: what a program can set.
const PSTATE_USER: u64 = NZCV | 1 << 25 | 1 << 24 | 1 << 12 | 3 << 10;
const SI_KERNEL: i32 = 0x80;

/// Where the frame is in a slot.
#[derive(Clone)]
pub(in super::super) struct Frames {
    frame: u64,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

impl Frames {
    /// Learns from the frame in slot `slot` (its offset in the slot file), which no program has had a chance to touch.
    pub(in super::super) fn learn(slots: &Shared, slot: u64, slot_address: u64) -> Option<Self> {
        let frame =
            slots.read(slot + CONTROL + offset_of!(Control, frame_sp) as u64).checked_sub(slot_address)?;
        let magic = slots.read(slot + frame + RECORDS as u64) as u32;
        let fits = frame % 16 == 0 && frame + FRAME_LEN as u64 <= CONTROL;
        (fits && magic == FPSIMD_MAGIC).then_some(Frames { frame })
    }

    /// Writes the frame from which the stub thread will return into the program.
    pub(in super::super) fn write(
        &self,
        slots: &Shared,
        slot: u64,
        mask: u64,
        _lend: bool,
        regs: &UserRegs,
        fp: &FpState,
    ) {
        let slot_address = SLOTS + slot;
        let mut bytes = [0u8; FRAME_LEN];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        put(UC_STACK, slot_address);
        put(UC_STACK + 16, CONTROL);
        put(SIGMASK, mask);
        for (i, value) in regs.x.into_iter().enumerate() {
            put(REGS + 8 * i, value);
        }
        put(SP, regs.sp);
        put(PC, regs.pc);
        put(PSTATE, regs.pstate & PSTATE_USER);
        put(RECORDS, u64::from(FPSIMD_MAGIC) | (FPSIMD_LEN as u64) << 32);
        put(RECORDS + 8, u64::from(fp.fpsr) | u64::from(fp.fpcr) << 32);
        for (i, v) in fp.v.into_iter().enumerate() {
            put(RECORDS + 16 + 16 * i, v as u64);
            put(RECORDS + 24 + 16 * i, (v >> 64) as u64);
        }
        // The terminator is there already: zeroes.
        slots.copy_in(slot + self.frame, &bytes);
        slots.write(slot + CONTROL + offset_of!(Control, tls) as u64, regs.tpidr);
    }

    /// Copies registers and FP state out of the frame and says why it was made.
    pub(in super::super) fn read(
        &self,
        slots: &Shared,
        slot: u64,
        kick: i32,
        regs: &mut UserRegs,
        fp: &mut FpState,
    ) -> Trap {
        let mut bytes = [0u8; FRAME_LEN];
        slots.copy_out(slot + self.frame, &mut bytes);
        let get = |at: usize| u64_at(&bytes, at);
        *regs = UserRegs {
            x: core::array::from_fn(|i| get(REGS + 8 * i)),
            sp: get(SP),
            pc: get(PC),
            pstate: get(PSTATE) & PSTATE_USER,
            tpidr: slots.read(slot + CONTROL + offset_of!(Control, tls) as u64),
            orig_x0: get(REGS),
            syscall: !0,
        };
        Self::fp_of(&bytes, fp);

        let signo = u32_at(&bytes, SIGNO) as i32;
        let code = u32_at(&bytes, CODE) as i32;
        let addr = get(ADDR);
        let esr = if u32_at(&bytes, ESR) == ESR_MAGIC { get(ESR + 8) } else { 0 };
        let info = FaultInfo { trapno: 0, err: esr };
        if signo == kick || code <= 0 {
            // A signal that somebody sent: nothing happened in the program.
            return Trap::Kick;
        }
        match signo {
            libc::SIGSYS if u32_at(&bytes, ARCH) != AUDIT_ARCH => {
                Trap::Signal(SignalInfo { signo: libc::SIGSEGV, code: SI_KERNEL, addr: 0, info })
            }
            libc::SIGSYS => {
                regs.syscall = regs.x[8];
                Trap::Syscall
            }
            libc::SIGSEGV => {
                let addr = get(FAULT_ADDRESS);
                match EC.read_as_enum(esr) {
                    Some(EC::Value::InstrAbortLowerEL) => {
                        Trap::PageFault { addr, access: Access::Execute, info }
                    }
                    Some(EC::Value::DataAbortLowerEL) if esr & WNR != 0 && esr & CM == 0 => {
                        Trap::PageFault { addr, access: Access::Write, info }
                    }
                    Some(EC::Value::DataAbortLowerEL) => Trap::PageFault { addr, access: Access::Read, info },
                    _ => Trap::Signal(SignalInfo { signo, code, addr, info }),
                }
            }
            libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                Trap::Signal(SignalInfo { signo, code, addr, info })
            }
            _ => Trap::Kick,
        }
    }

    fn fp_of(bytes: &[u8], fp: &mut FpState) {
        (fp.fpsr, fp.fpcr) = (u32_at(bytes, RECORDS + 8), u32_at(bytes, RECORDS + 12));
        for (i, v) in fp.v.iter_mut().enumerate() {
            let at = RECORDS + 16 + 16 * i;
            *v = u128::from(u64_at(bytes, at)) | u128::from(u64_at(bytes, at + 8)) << 64;
        }
    }

    /// Copies the FP state out of the frame.
    pub(in super::super) fn read_fp(&self, slots: &Shared, slot: u64, fp: &mut FpState) {
        let mut bytes = [0u8; FRAME_LEN];
        slots.copy_out(slot + self.frame, &mut bytes);
        Self::fp_of(&bytes, fp);
    }

    /// No call is rewritten, so no thread stops at one.
    pub(in super::super) fn read_call(_slots: &Shared, _slot: u64, _regs: &mut UserRegs) {}

    /// See [`read_call`](Self::read_call).
    pub(in super::super) fn answer_call(
        _slots: &Shared,
        _slot: u64,
        _stopped: &UserRegs,
        _regs: &UserRegs,
    ) -> bool {
        false
    }
}
