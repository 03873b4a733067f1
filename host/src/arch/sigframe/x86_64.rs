//! Signal frames as Linux lays them out on x86_64: `struct rt_sigframe` (arch/x86/include/asm/sigframe.h),
//! `struct ucontext`, `struct sigcontext_64`, and the FP area with its magic words (uapi/asm/sigcontext.h).

use super::{Frame, Restored};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use ring0_x86_64::fp::{Components, FP_SIZE};
use ring0_x86_64::tables::selector;
use std::sync::OnceLock;
use x86_64::registers::rflags::RFlags;

/// Bytes below the stack pointer that a function may use without moving it.
pub const RED_ZONE: u64 = 128;

const FRAME_SIZE: usize = 440;
const UC: usize = 8;
const MCONTEXT: usize = UC + 40;
const SIGMASK: usize = MCONTEXT + 256;
const INFO: usize = SIGMASK + 8;
const _: () = assert!(INFO + 128 == FRAME_SIZE);

/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;
const FXSAVE_SIZE: usize = 512;
const SW_RESERVED: usize = 464;
const XSTATE_HEADER: usize = 512;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Flags that sigreturn restores (FIX_EFLAGS).
pub(crate) const RESTORED_FLAGS: u64 = RFlags::ALIGNMENT_CHECK
    .union(RFlags::RESUME_FLAG)
    .union(RFlags::OVERFLOW_FLAG)
    .union(RFlags::DIRECTION_FLAG)
    .union(RFlags::TRAP_FLAG)
    .union(RFlags::SIGN_FLAG)
    .union(RFlags::ZERO_FLAG)
    .union(RFlags::AUXILIARY_CARRY_FLAG)
    .union(RFlags::PARITY_FLAG)
    .union(RFlags::CARRY_FLAG)
    .bits();
const _: () = assert!(RESTORED_FLAGS == 0x50dd5);
/// Flags that are clear in a handler.
const CLEARED_FLAGS: u64 = RFlags::TRAP_FLAG.union(RFlags::DIRECTION_FLAG).union(RFlags::RESUME_FLAG).bits();
const USER_CS: u64 = selector::USER_CODE as u64;
const USER_SS: u64 = selector::USER_DATA as u64;
/// The bit of XCOMP_BV that says that an image is compacted (SDM vol. 1, 13.4.2).
const COMPACTED: u64 = 1 << 63;
/// What `FpState` has room for.
const KNOWN_FEATURES: u64 = ring0_x86_64::features::XCR0_OFFERED;

/// The FP state of this machine.
struct Xstate {
    /// Components in use.
    features: u64,
    /// Bytes of the standard-format area; [`FXSAVE_SIZE`] where there is no XSAVE.
    size: usize,
    components: Components,
    /// Components that begin at multiples of 64 in compacted images.
    aligned: u64,
    /// XRSTOR takes compacted images.
    compacts: bool,
}

/// A fact about the machine, found once.
static XSTATE: OnceLock<Xstate> = OnceLock::new();

fn xstate() -> &'static Xstate {
    XSTATE.get_or_init(probe_xstate)
}

/// Finds the FP features. Executes CPUID, which leaves a VM: call it once before the first task.
pub fn prepare() {
    let _ = xstate();
}

/// The components that this machine has, and the size of its standard-format area.
pub(crate) fn xstate_layout() -> (u64, usize) {
    let &Xstate { features, size, .. } = xstate();
    (features, size)
}

/// The components beyond x87 and SSE: number, size, place, and what CPUID says of how they are aligned. Executes CPUID.
pub(crate) fn xstate_components() -> impl Iterator<Item = [u32; 4]> {
    let components = xstate().components.iter().enumerate().filter(|(_, (_, len))| *len != 0);
    components.map(|(number, (at, len))| {
        [number as u32, *len as u32, *at as u32, __cpuid_count(0xd, number as u32).ecx]
    })
}

/// Makes every byte of an image mean something; see [`FpState::complete`].
pub(crate) fn complete(fp: &mut FpState) {
    let &Xstate { size, ref components, .. } = xstate();
    if size > FXSAVE_SIZE {
        fp.complete(components);
    }
}

/// What frames say of faults once this signal has come (Linux's `thread.trap_nr`, `error_code` and `cr2`): vector, error
/// code, and the address of the last page fault.
pub fn fault([.., cr2]: [u64; 3], _signo: i32, [vector, error]: [u64; 2], addr: u64) -> [u64; 3] {
    const PAGE_FAULT: u64 = 14;
    [vector, error, if vector == PAGE_FAULT { addr } else { cr2 }]
}

/// For a frame that is none: what frames then say of faults, `si_code` and `si_addr` of the SIGSEGV.
pub fn bad_frame(last: [u64; 3], _sp: u64, _above: bool) -> ([u64; 3], i32, u64) {
    const SI_KERNEL: i32 = 0x80;
    (last, SI_KERNEL, 0)
}

fn probe_xstate() -> Xstate {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
        let (components, aligned, compacts) = ([(0, 0); 8], 0, false);
        return Xstate { features: 3, size: FXSAVE_SIZE, components, aligned, compacts };
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction exists; it reads a register.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    let features = (u64::from(high) << 32 | u64::from(low)) & KNOWN_FEATURES;
    let (mut components, mut aligned) = ([(0, 0); 8], 0);
    for (number, place) in components.iter_mut().enumerate().skip(2).filter(|(n, _)| features & 1 << n != 0) {
        let leaf = __cpuid_count(0xd, number as u32);
        *place = (leaf.ebx as usize, leaf.eax as usize);
        aligned |= u64::from(leaf.ecx >> 1 & 1) << number;
    }
    let end = components.iter().map(|(at, len)| at + len).max().unwrap_or(0);
    let compacts = __cpuid_count(0xd, 1).eax & 2 != 0;
    Xstate { features, size: end.max(XSTATE_HEADER + 64), components, aligned, compacts }
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
    let &Xstate { features, size, .. } = xstate();
    let extended = size > FXSAVE_SIZE;
    complete(fp);
    let fp_size = if extended { size + 4 } else { size };
    let fp_at = frame.top.wrapping_sub(fp_size as u64) & !63;
    let at = ((fp_at.wrapping_sub(FRAME_SIZE as u64)) & !15).wrapping_sub(8);

    // XSAVE and XRSTOR leave these bytes alone, and those behind the area (SDM vol. 1, 13.4.1): the image goes out
    // in one piece.
    let software = &mut fp.0[SW_RESERVED..FXSAVE_SIZE];
    software.fill(0);
    if extended {
        software[0..4].copy_from_slice(&FP_XSTATE_MAGIC1.to_ne_bytes());
        software[4..8].copy_from_slice(&(fp_size as u32).to_ne_bytes());
        software[8..16].copy_from_slice(&features.to_ne_bytes());
        software[16..20].copy_from_slice(&(size as u32).to_ne_bytes());
        fp.0[size..size + 4].copy_from_slice(&FP_XSTATE_MAGIC2.to_ne_bytes());
    }
    write(fp_at, &fp.0[..fp_size])?;

    let mut bytes = [0u8; FRAME_SIZE];
    let mut put = |offset: usize, value: u64| bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    put(0, frame.restorer);
    put(UC, if extended { UC_FLAGS } else { UC_FLAGS & !1 });
    for (index, word) in frame.altstack.iter().enumerate() {
        put(UC + 16 + index * 8, *word);
    }
    let r = &*regs;
    let selectors = r.cs & 0xffff | (r.ss & 0xffff) << 48;
    let [trapno, err, cr2] = frame.fault;
    let words = [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
        r.rcx, r.rsp, r.rip, r.eflags, selectors, err, trapno, frame.mask, cr2, fp_at,
    ];
    for (index, word) in words.iter().enumerate() {
        put(MCONTEXT + index * 8, *word);
    }
    put(SIGMASK, frame.mask);
    bytes[INFO..].copy_from_slice(&frame.info);
    write(at, &bytes)?;

    regs.rdi = frame.signo as u64;
    regs.rsi = at + INFO as u64;
    regs.rdx = at + UC as u64;
    regs.rax = 0;
    regs.rip = frame.handler;
    regs.rsp = at;
    regs.cs = USER_CS;
    regs.ss = USER_SS;
    regs.eflags &= !CLEARED_FLAGS;
    regs.orig_rax = !0;
    // Handlers start with fresh state (`fpu__clear_user_states`).
    fp.reset();
    Ok(())
}

/// Undoes [`push`]: the stack pointer is behind the return address, which the handler's `ret` has popped. The registers
/// are loaded even from a frame that is then refused.
///
/// # Errors
/// EFAULT if the frame cannot be read, EINVAL if it makes no sense.
pub fn pop(
    regs: &mut UserRegs,
    fp: &mut FpState,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<Restored> {
    let mut bytes = [0u8; INFO];
    read(regs.rsp.wrapping_sub(8), &mut bytes)?;
    let word = |offset: usize| u64::from_ne_bytes(core::array::from_fn(|i| bytes[offset + i]));
    let m = |index: usize| word(MCONTEXT + index * 8);
    let flags = regs.eflags & !RESTORED_FLAGS | m(17) & RESTORED_FLAGS;
    *regs = UserRegs {
        r8: m(0),
        r9: m(1),
        r10: m(2),
        r11: m(3),
        r12: m(4),
        r13: m(5),
        r14: m(6),
        r15: m(7),
        rdi: m(8),
        rsi: m(9),
        rbp: m(10),
        rbx: m(11),
        rdx: m(12),
        rax: m(13),
        rcx: m(14),
        rsp: m(15),
        rip: m(16),
        eflags: flags,
        cs: USER_CS,
        ss: USER_SS,
        orig_rax: !0,
        ..*regs
    };
    // As in Linux, a frame that turns out to be bad has loaded its registers all the same.
    match m(23) {
        0 => *fp = FpState::initial(),
        at => pop_fp(fp, at, read)?,
    }
    Ok(Restored { mask: word(SIGMASK), altstack: [word(UC + 16), word(UC + 24), word(UC + 32)] })
}

/// Reads an FP area, and refuses what XRSTOR would fault on, as Linux does (which tries): no instruction of ours may
/// fault, whatever a program writes there.
fn pop_fp(fp: &mut FpState, at: u64, read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let &Xstate { features, size, ref components, aligned, compacts } = xstate();
    let half = |bytes: &[u8; FP_SIZE], offset: usize| {
        u32::from_ne_bytes(core::array::from_fn(|i| bytes[offset + i]))
    };
    let word = |bytes: &[u8; FP_SIZE], offset: usize| {
        u64::from_ne_bytes(core::array::from_fn(|i| bytes[offset + i]))
    };
    let mut present = 3;
    // In one piece as a rule; a program may also have left a bare FXSAVE image.
    let whole = size > FXSAVE_SIZE && read(at, &mut fp.0[..size + 4]).is_ok();
    if !whole {
        read(at, &mut fp.0[..FXSAVE_SIZE])?;
    }
    // Reserved MXCSR bits (SDM vol. 1, 10.2.3).
    let mut loadable = half(&fp.0, 24) & !0xffff == 0;
    if whole
        && half(&fp.0, SW_RESERVED) == FP_XSTATE_MAGIC1
        && half(&fp.0, SW_RESERVED + 16) as usize == size
        && half(&fp.0, size) == FP_XSTATE_MAGIC2
    {
        present = word(&fp.0, XSTATE_HEADER);
        let format = word(&fp.0, XSTATE_HEADER + 8);
        let reserved = |words: usize| (2..words).all(|at| word(&fp.0, XSTATE_HEADER + 8 * at) == 0);
        loadable &= if format & COMPACTED != 0 && compacts {
            // Compacted: what is present is in the format, which has what exists here (13.8.2).
            let format = format & !COMPACTED;
            format & !features == 0 && present & !format == 0 && reserved(8)
        } else {
            // Features that exist here, standard format (13.8.1: bytes 8 to 23 of the header are zero).
            present & !features == 0 && format == 0 && reserved(3)
        };
        if loadable && format != 0 {
            fp.expand(format & !COMPACTED, components, aligned);
        }
    }
    if !loadable {
        *fp = FpState::initial();
        return Err(Errno::EFAULT);
    }
    fp.0[XSTATE_HEADER..XSTATE_HEADER + 64].fill(0);
    fp.0[XSTATE_HEADER..XSTATE_HEADER + 8].copy_from_slice(&present.to_ne_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FpState, Frame, UserRegs, pop, push};
    use crate::abi::{Errno, Result};

    type Trip = (UserRegs, UserRegs, FpState, FpState);

    fn round_trip(change: impl FnOnce(&mut [u8], u64)) -> Trip {
        attempt(change).unwrap()
    }

    fn attempt(change: impl FnOnce(&mut [u8], u64)) -> Result<Trip> {
        let base = 0x10000u64;
        let mut memory = vec![0u8; 0x10000];
        let before = UserRegs {
            rax: 1,
            rbx: 2,
            r15: 3,
            rip: 0x1234,
            rsp: base + 0xff00,
            eflags: 0x246,
            cs: 0x33,
            ss: 0x2b,
            fs_base: 99,
            ..UserRegs::default()
        };
        let mut fp = FpState::initial();
        fp.0[160..176].fill(0xab);
        fp.0[512] = 3;
        let saved = fp.clone();
        let mut regs = before;
        let frame = Frame {
            signo: 10,
            info: [7; 128],
            handler: 0x5000,
            restorer: 0x6000,
            top: before.rsp - super::RED_ZONE,
            mask: 0x55,
            altstack: [1, 2, 3],
            fault: [14, 6, 0xdead],
        };
        push(&mut regs, &mut fp, &frame, &mut |at, bytes| {
            let at = (at - base) as usize;
            memory[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!((regs.rdi, regs.rip, regs.rsp % 16), (10, 0x5000, 8));
        assert!(
            fp.0[..24] == FpState::initial().0[..24] && fp.0[160..176] == [0; 16],
            "a handler starts afresh"
        );
        let ret = u64::from_ne_bytes(memory[(regs.rsp - base) as usize..][..8].try_into().unwrap());
        assert_eq!(ret, 0x6000);
        change(&mut memory, regs.rsp - base);
        regs.rsp += 8;
        let mut loaded = FpState::initial();
        let mut read = |at: u64, bytes: &mut [u8]| -> Result<()> {
            let at = at.checked_sub(base).ok_or(Errno::EFAULT)? as usize;
            bytes.copy_from_slice(memory.get(at..at + bytes.len()).ok_or(Errno::EFAULT)?);
            Ok(())
        };
        let restored = pop(&mut regs, &mut loaded, &mut read)?;
        assert_eq!((restored.mask, restored.altstack), (0x55, [1, 2, 3]));
        Ok((before, regs, saved, loaded))
    }

    #[test]
    fn what_is_pushed_is_popped() {
        let (before, after, fp, loaded) = round_trip(|_, _| {});
        assert_eq!(UserRegs { orig_rax: before.orig_rax, ..after }, before);
        assert!(fp.0[..464] == loaded.0[..464]);
        assert_eq!(loaded.0[512], 3);
    }

    #[test]
    fn what_would_fault_is_refused() {
        for (at, bytes) in
            [(27, [0x80]), (512 + 7, [0x40]), (512 + 8, [1]), (512 + 15, [0x80]), (512 + 16, [1])]
        {
            let popped = attempt(|memory, frame| {
                let fp_at = fp_at(memory, frame);
                memory[fp_at + at..][..1].copy_from_slice(&bytes);
            });
            // A machine without XSAVE has no header.
            if at < 512 || super::xstate().size > super::FXSAVE_SIZE {
                assert_eq!(popped.map(|_| ()), Err(Errno::EFAULT), "byte {at}");
            }
        }
    }

    #[test]
    fn what_nobody_reads_does_not_matter() {
        let (_, _, _, loaded) = round_trip(|memory, frame| {
            let fp_at = fp_at(memory, frame);
            memory[fp_at + 512 + 24..fp_at + 512 + 64].fill(0xff);
        });
        assert!(loaded.0[520..576].iter().all(|byte| *byte == 0));
    }

    fn fp_at(memory: &[u8], frame: u64) -> usize {
        let at =
            u64::from_ne_bytes(memory[frame as usize + super::MCONTEXT + 23 * 8..][..8].try_into().unwrap());
        (at - 0x10000) as usize
    }
}
