//! The per-CPU block: everything the entry code reaches through GS.
//!
//! It lies in the arena and is mapped twice in every table: at its own address for kernel code, and in the kernel half
//! for the entry code and the processor (GDT, TSS, IDT, exception stacks). GS, the descriptor-table registers and the
//! stack pointers in the TSS name the kernel-half addresses.

use crate::fp::FpState;
use crate::tables::{Gate, Gdt, Tss, tss};

/// The top bit pattern of the kernel half: `address | KERNEL_HALF` is where an image or arena page that the
/// entry code needs is mapped a second time.
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

/// Bytes of one exception stack. Its first word holds the kernel-half address of the block, so that an exception that
/// arrives with the program's GS still finds it.
pub const STACK_SIZE: usize = 4096;

/// One exception stack.
#[repr(C, align(4096))]
pub struct ExceptionStack {
    /// Kernel-half address of the [`Cpu`].
    pub cpu: u64,
    bytes: [u8; STACK_SIZE - 8],
}

/// How floating-point state is saved and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FpMode {
    /// FXSAVE, FXRSTOR: x87 and SSE only.
    Fxsave = 0,
    /// XSAVE, XRSTOR.
    Xsave = 1,
    /// XSAVEOPT, XRSTOR.
    Xsaveopt = 2,
}

/// Registers of kernel code that left the guest in the middle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "register names")]
pub struct KernelRegs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    /// An IRET frame from here on: rip, cs, rflags, rsp, ss.
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The block.
#[repr(C, align(4096))]
pub struct Cpu {
    /// The program's registers: a `UserRegs` in the arena. Valid while user code runs.
    pub regs: u64,
    /// The program's [`FpState`] in the arena. Valid while user code runs.
    pub fp: u64,
    /// Stack pointer of the suspended `switch_to_user`.
    pub kernel_sp: u64,
    /// The worker's FS base: loaded before any compiled code runs.
    pub kernel_fs_base: u64,
    /// Which state components XSAVE and XRSTOR move: XCR0 of the guest.
    pub fp_mask: u64,
    /// An [`FpMode`].
    pub fp_mode: u64,
    /// Whether the FSGSBASE instructions can be used (0 or 1); if not, the bases go through their MSRs.
    pub fsgsbase: u64,
    /// MXCSR for kernel code.
    pub kernel_mxcsr: u64,
    /// The program's stack pointer, between entry and the first free register.
    pub scratch: u64,
    /// The code that enters user mode on this processor: address of one of `entry.S`'s.
    pub switch: u64,
    /// Its error code.
    pub trap_error: u64,
    /// CR2 as read in the entry code.
    pub trap_cr2: u64,
    /// Stack pointer of kernel code suspended by `enter_guest` or `leave_guest`.
    pub context_sp: u64,
    /// Stack pointer of the host loop while the context runs natively.
    pub host_sp: u64,
    /// Whether exits stop the vCPU for a host (not 0). Without one, on bare metal, they go on at once with the context at
    /// `context_sp`: there, a kernel fault handler's.
    pub hosted: u64,
    /// An [`ring0::Exit`], set right before the exit instruction; the host clears it on reading.
    pub exit: u64,
    /// Vector of the exception that caused [`ring0::Exit::Fault`].
    pub exit_vector: u64,
    /// Its error code.
    pub exit_error: u64,
    /// CR2 then.
    pub exit_cr2: u64,
    /// Registers at a host call or fault.
    pub exit_regs: KernelRegs,
    /// FP state at a host call or fault.
    pub exit_fp: FpState,
    /// Task state: interrupt stacks.
    pub tss: Tss,
    /// Segments.
    pub gdt: Gdt,
    /// Interrupt gates.
    pub idt: [Gate; 256],
    /// For faults, traps and interrupts.
    pub trap_stack: ExceptionStack,
    /// For NMI: the host injects one when memory behind the guest is gone.
    pub nmi_stack: ExceptionStack,
    /// For #DF.
    pub double_fault_stack: ExceptionStack,
    /// For #DB and #MC, which can arrive anywhere.
    pub debug_stack: ExceptionStack,
}

/// Bytes of address space per block.
pub const CPU_STRIDE: u64 = (size_of::<Cpu>() as u64).next_multiple_of(4096);

impl Cpu {
    /// Fills a zeroed block that lies at `self` (its low address).
    pub fn init(&mut self, fp_mode: FpMode, fp_mask: u64, fsgsbase: bool) {
        let high = core::ptr::from_ref(self) as u64 | KERNEL_HALF;
        self.hosted = 1;
        self.fp_mask = fp_mask;
        self.fp_mode = fp_mode as u64;
        self.fsgsbase = fsgsbase.into();
        self.kernel_mxcsr = crate::fp::INITIAL_MXCSR.into();
        let offset = |field: usize| high + field as u64 + STACK_SIZE as u64;
        self.tss = tss([
            offset(core::mem::offset_of!(Cpu, trap_stack)),
            offset(core::mem::offset_of!(Cpu, nmi_stack)),
            offset(core::mem::offset_of!(Cpu, double_fault_stack)),
            offset(core::mem::offset_of!(Cpu, debug_stack)),
        ]);
        self.gdt = Gdt::new(high + core::mem::offset_of!(Cpu, tss) as u64);
        for stack in
            [&mut self.trap_stack, &mut self.nmi_stack, &mut self.double_fault_stack, &mut self.debug_stack]
        {
            stack.cpu = high;
        }
    }
}
