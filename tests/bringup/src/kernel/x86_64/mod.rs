//! x86_64: a PC, started by PVH.

#[expect(unsafe_code, reason = "starts from nothing")]
mod boot;
#[expect(unsafe_code, reason = "privileged instructions")]
mod load;
#[expect(unsafe_code, reason = "port I/O")]
mod port;
#[expect(unsafe_code, reason = "the program is assembly")]
mod program;
#[expect(unsafe_code, reason = "enters user mode")]
mod switch;

use super::arch::{Arch, Call, KernelFault, Space};
use super::memory::Pages;
use super::uart::Uart;
use pagetables::{Error, Flush, Template, X86_64};
use ring0::{Exception, Trap};
use ring0_x86_64::cpu::Cpu;
use ring0_x86_64::entry;
use ring0_x86_64::fp::FpState;
use ring0_x86_64::regs::UserRegs;
use ring0_x86_64::trap::vector;

/// Bytes of UD2.
const UD2: u64 = 2;

/// The machine with ring 0 installed.
pub(crate) struct Hardware {
    cpu: *mut Cpu,
    template: Template<X86_64, &'static Pages>,
    /// End of the stack on which kernel faults are reported.
    fault_stack: u64,
}

impl Hardware {
    /// The first thing on a new machine: something to print with, and no surprises.
    fn init_devices() {
        Self::uart().init();
        port::mask_interrupts();
    }
}

impl Arch for Hardware {
    type Format = X86_64;
    type Regs = UserRegs;
    type Fp = FpState;
    type Uart = port::Com1;

    const KERNEL_MODE: &str = "ring 0";
    const USER_MODE: &str = "ring 3";

    fn uart() -> port::Com1 {
        port::Com1
    }

    fn power_off(status: u8) -> ! {
        port::power_off(status)
    }

    fn program() -> &'static [u8] {
        program::bytes()
    }

    fn start(entry: u64, stack: u64, arg: u64) -> (UserRegs, FpState) {
        (UserRegs { rip: entry, rsp: stack, rdi: arg, ..UserRegs::default() }, FpState::initial())
    }

    fn call(regs: &UserRegs) -> Call {
        Call { number: regs.rax, args: [regs.rdi, regs.rsi] }
    }

    fn set_result(regs: &mut UserRegs, value: u64) {
        regs.rax = value;
    }

    fn skip_illegal(regs: &mut UserRegs, exception: &Exception) -> Option<u64> {
        let at = regs.rip;
        (exception.class == vector::INVALID_OPCODE).then(|| regs.rip += UD2)?;
        Some(at)
    }

    fn new_space(&self) -> Result<Space<Self>, Error> {
        self.template.instantiate(&super::memory::PAGES)
    }

    fn switch_to_user(&self, _: u64, space: &Space<Self>, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
        switch::to_user(self.cpu, space.root(), regs, fp)
    }

    fn unload_spaces(&self) {
        // The last program's table is still loaded.
        load::root(&self.template);
    }

    fn flush(&self, space: &Space<Self>, flush: Flush) {
        // Whatever is not loaded is flushed by the load: these address spaces have no identifiers (PCIDs).
        let pages = (flush.start()..flush.end()).step_by(4096);
        pages.for_each(|page| _ = entry::flush_page(space.root(), page));
    }

    /// Instruction fetches see stores (SDM vol. 3A, 12.6).
    fn publish_code(_: u64, _: u64) {}

    fn kernel_fault(&self) -> KernelFault {
        switch::kernel_fault(self.cpu)
    }
}
