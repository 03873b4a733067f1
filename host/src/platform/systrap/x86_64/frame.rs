//! The signal frame of x86_64 (arch/x86/include/asm/sigframe.h `struct rt_sigframe`, uapi asm/sigcontext.h).
//!
//! Where the frame and its FP image lie in a slot is learned once, from a frame made before any program ran: the host
//! computes it from the alternate stack's top and the size of the FP image, so it never changes. Everything in a frame
//! is hostile: copied once, and pointers and lengths in it are never used.

use super::super::layout::{CONTROL, Control, SLOT_LEN, SLOTS};
use super::super::shared::Shared;
use super::stub::{REG_FLAGS, REG_RIP, REG_RSP};
use crate::arch::{AUDIT_ARCH, FpState, UserRegs};
use crate::platform::{Access, FaultInfo, SignalInfo, Trap};
use core::mem::offset_of;
use ring0_x86_64::tables::selector;
use ring0_x86_64::trap::vector;
use x86_64::registers::rflags::RFlags;
use x86_64::registers::xcontrol::XCr0Flags;
use x86_64::structures::idt::PageFaultErrorCode as PageFault;

/// `struct rt_sigframe` without FP.
const FRAME_LEN: usize = 440;
const UC_FLAGS: usize = 8;
const UC_STACK: usize = 24;
const GREGS: usize = 48;
pub(super) const RIP: usize = 176;
const EFLAGS: usize = 184;
const SEGMENTS: usize = 192;
const ERR: usize = 200;
const TRAPNO: usize = 208;
const CR2: usize = 224;
const FPSTATE: usize = 232;
const SIGMASK: usize = 304;
const SIGINFO: usize = 312;

/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS_VALUE: u64 = 7;
const USER_CS: u64 = selector::USER_CODE as u64;
const USER_SS: u64 = selector::USER_DATA as u64;
/// Software-reserved bytes of the FXSAVE area, where the kernel keeps `struct _fpx_sw_bytes`.
const SW_BYTES: core::ops::Range<usize> = 464..512;
const XSTATE_BV: usize = 512;
/// `FP_XSTATE_MAGIC1`: more than an FXSAVE image follows.
const FP_XSTATE_MAGIC1: u64 = 0x4650_5853;
/// What FXSAVE stores: all there is where host or CPU lack XSAVE.
const FXSAVE_LEN: usize = 512;
/// That and the XSAVE header.
const FP_BASE_LEN: usize = 576;
const AVX_END: usize = 832;
/// x87, SSE, AVX and AVX-512: what programs are given.
const COMPONENTS: u64 = ring0_x86_64::features::XCR0_OFFERED;
/// x87 and SSE.
const FXSAVE_COMPONENTS: u64 = XCr0Flags::X87.union(XCr0Flags::SSE).bits();
const TRAP_PAGE_FAULT: u64 = vector::PAGE_FAULT as u64;
const TRAP_FLAG: u64 = RFlags::TRAP_FLAG.bits();
/// What a fetch from a page that is there and not executable says.
const FETCH_BY_USER: u64 =
    PageFault::PROTECTION_VIOLATION.union(PageFault::USER_MODE).union(PageFault::INSTRUCTION_FETCH).bits();
const TASK_SIZE: u64 = 1 << 47;
const SI_KERNEL: i32 = 0x80;
const URETPROBE: u64 = 335;

/// Where things are in a slot.
#[derive(Clone)]
pub(in super::super) struct Frames {
    frame: u64,
    fp: u64,
    fp_len: usize,
    components: u64,
    sw_bytes: [u8; 48],
    mxcsr_mask: u32,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

impl Frames {
    /// Learns from the frame in slot `slot` (its offset in the slot file), which no program has had a chance to touch.
    pub(in super::super) fn learn(slots: &Shared, slot: u64, slot_address: u64) -> Option<Self> {
        let frame =
            slots.read(slot + CONTROL + offset_of!(Control, frame_sp) as u64).checked_sub(slot_address)?;
        let fp = slots.read(slot + frame + FPSTATE as u64).checked_sub(slot_address)?;
        let mut image = [0; FXSAVE_LEN];
        if fp % 64 != 0 || fp + FXSAVE_LEN as u64 > CONTROL || frame + FRAME_LEN as u64 > fp {
            return None;
        }
        slots.copy_out(slot + fp, &mut image);
        let mut sw_bytes = [0; 48];
        sw_bytes.copy_from_slice(&image[SW_BYTES]);
        // struct _fpx_sw_bytes: magic1, extended_size, xfeatures, xstate_size.
        let extended = u64_at(&sw_bytes, 0) & 0xffff_ffff == FP_XSTATE_MAGIC1;
        let components = u64_at(&sw_bytes, 8);
        let fp_len = (u64_at(&sw_bytes, 16) & 0xffff_ffff) as usize;
        let mxcsr_mask = u64_at(&image, 24) >> 32;
        let mxcsr_mask = if mxcsr_mask == 0 { 0xffbf } else { mxcsr_mask as u32 };
        if !extended {
            let (fp_len, components) = (FXSAVE_LEN, FXSAVE_COMPONENTS);
            return Some(Frames { frame, fp, fp_len, components, sw_bytes: [0; 48], mxcsr_mask });
        }
        let fits = (FP_BASE_LEN..=size_of::<FpState>()).contains(&fp_len) && fp + fp_len as u64 <= SLOT_LEN;
        fits.then_some(Frames {
            frame,
            fp,
            fp_len: fp_len & !7,
            components: components & COMPONENTS,
            sw_bytes,
            mxcsr_mask,
        })
    }

    /// Bytes of an image with these components.
    fn used(&self, components: u64) -> usize {
        let len = match components {
            c if c & 0xe0 != 0 => self.fp_len,
            c if c & 4 != 0 => AVX_END,
            _ => FP_BASE_LEN,
        };
        len.min(self.fp_len)
    }

    /// Writes the frame from which the stub thread will return into the program. `lend_gs` says that GS base, if the
    /// program has none, is to name the slot meanwhile.
    pub(in super::super) fn write(
        &self,
        slots: &Shared,
        slot: u64,
        mask: u64,
        lend_gs: bool,
        regs: &UserRegs,
        fp: &FpState,
    ) {
        let slot_address = SLOTS + slot;
        let mut bytes = [0u8; FRAME_LEN];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        put(UC_FLAGS, UC_FLAGS_VALUE);
        put(UC_STACK, slot_address);
        put(UC_STACK + 16, CONTROL);
        let general = [
            regs.r8,
            regs.r9,
            regs.r10,
            regs.r11,
            regs.r12,
            regs.r13,
            regs.r14,
            regs.r15,
            regs.rdi,
            regs.rsi,
            regs.rbp,
            regs.rbx,
            regs.rdx,
            regs.rax,
            regs.rcx,
            regs.rsp,
            regs.rip,
            regs.eflags,
        ];
        for (i, value) in general.into_iter().enumerate() {
            put(GREGS + 8 * i, value);
        }
        put(SEGMENTS, USER_CS | USER_SS << 48);
        put(FPSTATE, slot_address + self.fp);
        put(SIGMASK, mask);
        slots.copy_in(slot + self.frame, &bytes);

        let components = u64_at(&fp.0, XSTATE_BV) & self.components;
        let mut head = [0u8; FP_BASE_LEN];
        head[..SW_BYTES.start].copy_from_slice(&fp.0[..SW_BYTES.start]);
        let mxcsr = u64_at(&fp.0, 24) as u32 & self.mxcsr_mask;
        head[24..28].copy_from_slice(&mxcsr.to_ne_bytes());
        head[SW_BYTES].copy_from_slice(&self.sw_bytes);
        head[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_ne_bytes());
        slots.copy_in(slot + self.fp, &head[..FP_BASE_LEN.min(self.fp_len)]);
        if let Some(rest) = fp.0.get(FP_BASE_LEN..self.used(components)) {
            slots.copy_in(slot + self.fp + FP_BASE_LEN as u64, rest);
        }

        let control = slot + CONTROL;
        let base = |base: u64| if base < TASK_SIZE { base } else { 0 };
        slots.write(control + offset_of!(Control, tls) as u64, base(regs.fs_base));
        let gs_base = if lend_gs && regs.gs_base == 0 { slot_address } else { base(regs.gs_base) };
        slots.write(control + offset_of!(Control, gs_base) as u64, gs_base);
    }

    /// The registers of a thread that has stopped at a rewritten call.
    pub(in super::super) fn read_call(slots: &Shared, slot: u64, regs: &mut UserRegs) {
        let control = slot + CONTROL;
        let saved = |i: usize| slots.read(control + (offset_of!(Control, regs) + 8 * i) as u64);
        let number = slots.read(control + offset_of!(Control, value) as u64);
        let (rip, eflags) = (saved(REG_RIP), saved(REG_FLAGS));
        *regs = UserRegs {
            r15: saved(0),
            r14: saved(1),
            r13: saved(2),
            r12: saved(3),
            rbp: saved(4),
            rbx: saved(5),
            r11: eflags,
            r10: saved(6),
            r9: saved(7),
            r8: saved(8),
            rax: number,
            rcx: rip,
            rdx: saved(9),
            rsi: saved(10),
            rdi: saved(11),
            orig_rax: number,
            rip,
            cs: USER_CS,
            eflags,
            rsp: saved(REG_RSP),
            ss: USER_SS,
            fs_base: slots.read(control + offset_of!(Control, tls) as u64),
            ..UserRegs::default()
        };
    }

    /// Whether a thread that stopped at a rewritten call with `stopped` can go on behind it with `regs`: then only the
    /// result is new, which is stored.
    pub(in super::super) fn answer_call(
        slots: &Shared,
        slot: u64,
        stopped: &UserRegs,
        regs: &UserRegs,
    ) -> bool {
        let result = UserRegs { rax: stopped.rax, orig_rax: stopped.orig_rax, ..*regs };
        let same = result == *stopped && stopped.eflags & TRAP_FLAG == 0;
        if same {
            slots.write(slot + CONTROL + offset_of!(Control, value) as u64, regs.rax);
        }
        same
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
        let [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp]: [u64; 16] =
            core::array::from_fn(|i| get(GREGS + 8 * i));
        let control = slot + CONTROL;
        *regs = UserRegs {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax: !0,
            rip: get(RIP),
            cs: USER_CS,
            eflags: get(EFLAGS),
            rsp,
            ss: USER_SS,
            fs_base: slots.read(control + offset_of!(Control, tls) as u64),
            gs_base: slots.read(control + offset_of!(Control, gs_base) as u64),
            ..UserRegs::default()
        };
        if regs.gs_base == SLOTS + slot {
            // It was lent.
            regs.gs_base = 0;
        }
        self.read_fp(slots, slot, fp);

        let signo = (get(SIGINFO) & 0xffff_ffff) as i32;
        let code = (get(SIGINFO + 8) & 0xffff_ffff) as i32;
        let addr = get(SIGINFO + 16);
        let info = FaultInfo { trapno: get(TRAPNO), err: get(ERR) };
        let forbidden = Trap::Signal(SignalInfo {
            signo: libc::SIGSEGV,
            code: SI_KERNEL,
            addr: 0,
            info: FaultInfo { trapno: vector::GENERAL_PROTECTION.into(), err: 0 },
        });
        if signo == kick || code <= 0 {
            // A signal that somebody sent: nothing happened in the program.
            return Trap::Kick;
        }
        if get(SEGMENTS) & 0xffff != USER_CS {
            // 32-bit code: there is none in a sandbox.
            return forbidden;
        }
        match signo {
            libc::SIGSYS => {
                // siginfo: call address, number, architecture.
                if (get(SIGINFO + 24) >> 32) as u32 != AUDIT_ARCH {
                    regs.rip = regs.rip.wrapping_sub(2);
                    return forbidden;
                }
                if crate::arch::old_call(addr).is_some() {
                    // A call of an address, which the host's kernel had made one and has returned from: back to where
                    // it was called.
                    (regs.rip, regs.rsp) = (addr, regs.rsp.wrapping_sub(8));
                    let info = FaultInfo { trapno: TRAP_PAGE_FAULT, err: FETCH_BY_USER };
                    return Trap::PageFault { addr, access: Access::Execute, info };
                }
                regs.orig_rax = regs.rax;
                Trap::Syscall
            }
            libc::SIGILL if code == SI_KERNEL => {
                // uretprobe(2) and uprobe(2), which Linux 6.14 lets past every filter, called from where there is no
                // probe. The number is lost, the CPU's own SIGILL has another code.
                regs.orig_rax = URETPROBE;
                Trap::Syscall
            }
            // Where the host's kernel sends it for a reason of its own, the rest is of an older fault.
            libc::SIGSEGV if info.trapno == TRAP_PAGE_FAULT && code != SI_KERNEL => {
                let access = match PageFault::from_bits_truncate(info.err) {
                    e if e.contains(PageFault::INSTRUCTION_FETCH) => Access::Execute,
                    e if e.contains(PageFault::CAUSED_BY_WRITE) => Access::Write,
                    _ => Access::Read,
                };
                Trap::PageFault { addr: get(CR2), access, info }
            }
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                Trap::Signal(SignalInfo { signo, code, addr, info })
            }
            _ => Trap::Kick,
        }
    }

    /// Copies the FP state out of the frame.
    pub(in super::super) fn read_fp(&self, slots: &Shared, slot: u64, fp: &mut FpState) {
        let base = FP_BASE_LEN.min(self.fp_len);
        slots.copy_out(slot + self.fp, &mut fp.0[..base]);
        let components = match base {
            FXSAVE_LEN => FXSAVE_COMPONENTS,
            _ => u64_at(&fp.0, XSTATE_BV) & self.components,
        };
        fp.0[SW_BYTES].fill(0);
        fp.0[XSTATE_BV..FP_BASE_LEN].fill(0);
        fp.0[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_ne_bytes());
        if let Some(rest) = fp.0.get_mut(FP_BASE_LEN..self.used(components)) {
            slots.copy_out(slot + self.fp + FP_BASE_LEN as u64, rest);
        }
    }
}
