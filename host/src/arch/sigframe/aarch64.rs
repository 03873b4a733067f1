//! Signal frames as Linux lays them out on arm64: `struct rt_sigframe` (arch/arm64/kernel/signal.c), `struct
//! sigcontext` and the records in its reserved area (uapi/asm/sigcontext.h).

use super::{Frame, Restored};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};

/// AAPCS64 has none.
pub const RED_ZONE: u64 = 0;

const UC: usize = 128;
const UC_STACK: usize = UC + 16;
const UC_SIGMASK: usize = UC + 40;
const MCONTEXT: usize = UC + 176;
const REGS: usize = MCONTEXT + 8;
const RESERVED: usize = MCONTEXT + 288;
const RESERVED_SIZE: usize = 4096;
const FRAME_SIZE: usize = RESERVED + RESERVED_SIZE;
const FPSIMD_MAGIC: u32 = 0x4650_8001;
const FPSIMD_SIZE: usize = 528;
const ESR_MAGIC: u32 = 0x4553_5201;
const ESR_SIZE: usize = 16;
/// What is written: the fixed part, two records and the terminator.
const WRITTEN: usize = RESERVED + FPSIMD_SIZE + ESR_SIZE + 8;
/// Another exception level, AArch32, masked interrupts: a frame with one of these is none (Linux's `valid_user_regs`).
const FOREIGN_PSTATE: u64 = 0x3df;
/// NZCV, and DIT and SSBS where they exist: what a program may set in PSTATE.
const RESTORED_PSTATE: u64 = ring0_aarch64::frame::NZCV;
const PSR_BTYPE: u64 = 0xc00;

/// Nothing to find out on this architecture.
pub fn prepare() {}

/// What frames say of faults once this signal has come (Linux's `thread.fault_code` and `fault_address`): 0, ESR, address.
/// Breakpoints, steps and floating point leave what the last one wrote, undefined instructions clear it.
pub fn fault(last: [u64; 3], signo: i32, [_, esr]: [u64; 2], addr: u64) -> [u64; 3] {
    const PC_ALIGNMENT: u64 = 0x22;
    const SP_ALIGNMENT: u64 = 0x26;
    match signo {
        libc::SIGTRAP | libc::SIGFPE => last,
        libc::SIGILL => [0; 3],
        _ if matches!(esr >> 26 & 0x3f, PC_ALIGNMENT | SP_ALIGNMENT) => [0, esr, 0],
        _ => [0, esr, crate::arch::untagged(addr)],
    }
}

/// For a frame that is none: what frames then say of faults, `si_code` and `si_addr` of the SIGSEGV. `above`: something is
/// mapped at `sp` or above (Linux's `arm64_notify_segfault` does not look whether it begins above).
pub fn bad_frame(_last: [u64; 3], sp: u64, above: bool) -> ([u64; 3], i32, u64) {
    const SEGV_MAPERR: i32 = 1;
    const SEGV_ACCERR: i32 = 2;
    ([0; 3], if above { SEGV_ACCERR } else { SEGV_MAPERR }, sp)
}

/// Pushes a frame and points the registers at the handler.
///
/// # Errors
/// EFAULT if the stack cannot be written.
pub fn push(
    regs: &mut UserRegs,
    fp: &mut FpState,
    frame: &Frame,
    write: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    // A frame record above the signal frame lets unwinders continue through it.
    let record = (frame.top & !15).wrapping_sub(16);
    let at = record.wrapping_sub(FRAME_SIZE as u64) & !15;
    let mut link = [0u8; 16];
    link[..8].copy_from_slice(&regs.x[29].to_ne_bytes());
    link[8..].copy_from_slice(&regs.x[30].to_ne_bytes());
    write(record, &link)?;

    let mut bytes = [0u8; WRITTEN];
    bytes[..128].copy_from_slice(&frame.info);
    let (words, _) = bytes.as_chunks_mut::<8>();
    let mut put = |offset: usize, value: u64| words[offset / 8] = value.to_ne_bytes();
    for (index, word) in frame.altstack.iter().enumerate() {
        put(UC_STACK + index * 8, *word);
    }
    put(UC_SIGMASK, frame.mask);
    let [_, esr, addr] = frame.fault;
    put(MCONTEXT, addr);
    for (index, value) in regs.x.iter().chain([&regs.sp, &regs.pc, &regs.pstate]).enumerate() {
        put(REGS + index * 8, *value);
    }
    put(RESERVED, u64::from(FPSIMD_MAGIC) | (FPSIMD_SIZE as u64) << 32);
    put(RESERVED + 8, u64::from(fp.fpsr) | u64::from(fp.fpcr) << 32);
    if esr != 0 {
        put(RESERVED + FPSIMD_SIZE, u64::from(ESR_MAGIC) | (ESR_SIZE as u64) << 32);
        put(RESERVED + FPSIMD_SIZE + 8, esr);
    }
    for (bytes, value) in bytes[RESERVED + 16..].as_chunks_mut::<16>().0.iter_mut().zip(&fp.v) {
        *bytes = value.to_ne_bytes();
    }
    write(at, &bytes)?;

    regs.x[0] = frame.signo as u64;
    regs.x[1] = at;
    regs.x[2] = at + UC as u64;
    regs.x[29] = record;
    regs.x[30] = frame.restorer;
    regs.sp = at;
    regs.pc = frame.handler;
    regs.pstate &= !PSR_BTYPE;
    regs.syscall = !0;
    Ok(())
}

/// Undoes [`push`]. The registers are loaded even from a frame that is then refused.
///
/// # Errors
/// EFAULT if the frame cannot be read, EINVAL if it makes no sense.
pub fn pop(
    regs: &mut UserRegs,
    fp: &mut FpState,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<Restored> {
    if regs.sp & 15 != 0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0u8; RESERVED];
    read(regs.sp, &mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    let word = |offset: usize| u64::from_ne_bytes(words[offset / 8]);
    // As in Linux, a frame that turns out to be bad has loaded its registers all the same.
    for (value, word) in regs.x.iter_mut().zip(&words[REGS / 8..]) {
        *value = u64::from_ne_bytes(*word);
    }
    let pstate = word(REGS + 33 * 8);
    let at = core::mem::replace(&mut regs.sp, word(REGS + 31 * 8));
    regs.pc = word(REGS + 32 * 8);
    regs.pstate = regs.pstate & !(RESTORED_PSTATE | PSR_BTYPE) | pstate & RESTORED_PSTATE;
    regs.syscall = !0;
    if pstate & FOREIGN_PSTATE != 0 {
        return Err(Errno::EINVAL);
    }
    let mut found = false;
    let mut offset = RESERVED;
    while offset + 8 <= FRAME_SIZE {
        let mut head = [0; 8];
        read(at + offset as u64, &mut head)?;
        let head = u64::from_ne_bytes(head);
        let (magic, size) = (head as u32, (head >> 32) as usize);
        match magic {
            0 if size == 0 => break,
            FPSIMD_MAGIC if size == FPSIMD_SIZE && !found && offset + size <= FRAME_SIZE => {
                let mut record = [0u8; FPSIMD_SIZE];
                read(at + offset as u64, &mut record)?;
                let (halves, _) = record.as_chunks::<4>();
                (fp.fpsr, fp.fpcr) = (u32::from_ne_bytes(halves[2]), u32::from_ne_bytes(halves[3]));
                for (value, bytes) in fp.v.iter_mut().zip(record[16..].as_chunks::<16>().0) {
                    *value = u128::from_ne_bytes(*bytes);
                }
                found = true;
            }
            _ if size < 8 || size & 15 != 0 => return Err(Errno::EINVAL),
            _ => {}
        }
        offset += size;
    }
    if !found {
        return Err(Errno::EINVAL);
    }
    Ok(Restored {
        mask: word(UC_SIGMASK),
        altstack: [word(UC_STACK), word(UC_STACK + 8), word(UC_STACK + 16)],
    })
}

#[cfg(test)]
mod tests {
    use super::{FpState, Frame, UserRegs, pop, push};

    #[test]
    fn what_is_pushed_is_popped() {
        let base = 0x10000u64;
        let mut memory = vec![0u8; 0x10000];
        let mut before = UserRegs { sp: base + 0xff00, pc: 0x4000, ..UserRegs::default() };
        for (index, x) in before.x.iter_mut().enumerate() {
            *x = index as u64 * 3;
        }
        let mut fp = FpState::initial();
        fp.v[7] = 0x1234_5678 << 70;
        let mut regs = before;
        let frame = Frame {
            signo: 11,
            info: [7; 128],
            handler: 0x5000,
            restorer: 0x6000,
            top: before.sp,
            mask: 0x55,
            altstack: [1, 2, 3],
            fault: [0, 0x9200_0046, 0xdead],
        };
        push(&mut regs, &mut fp, &frame, &mut |at, bytes| {
            let at = (at - base) as usize;
            memory[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!((regs.x[0], regs.pc, regs.x[30]), (11, 0x5000, 0x6000));
        let mut loaded = FpState::initial();
        let restored = pop(&mut regs, &mut loaded, &mut |at, bytes| {
            let at = (at - base) as usize;
            bytes.copy_from_slice(&memory[at..at + bytes.len()]);
            Ok(())
        })
        .unwrap();
        assert_eq!((restored.mask, restored.altstack), (0x55, [1, 2, 3]));
        assert_eq!(UserRegs { syscall: before.syscall, ..regs }, before);
        assert!(loaded.v == fp.v);
    }
}
