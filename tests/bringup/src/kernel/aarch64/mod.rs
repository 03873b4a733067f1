//! aarch64: QEMU's virt and the Raspberry Pi 4, started like Linux.

mod board;
#[expect(unsafe_code, reason = "starts from nothing")]
mod boot;
#[expect(unsafe_code, reason = "privileged instructions")]
mod load;
#[expect(unsafe_code, reason = "device registers")]
mod pl011;
#[expect(unsafe_code, reason = "talks to the debugger")]
mod power;
#[expect(unsafe_code, reason = "the program is assembly")]
mod program;
#[expect(unsafe_code, reason = "enters user mode")]
mod switch;

use super::arch::{Arch, Call, KernelFault, Space};
use super::memory::{PAGES, Pages};
use pagetables::{Aarch64, Error, Flush, KernelTables, PageTables};
use ring0::{Exception, Trap};
use ring0_aarch64::cpu::Cpu;
use ring0_aarch64::fp::FpState;
use ring0_aarch64::regs::UserRegs;
use ring0_aarch64::trap::class;

/// Bytes of an instruction.
const INSTRUCTION: u64 = 4;
/// Where TTBR0_EL1 has the ASID. The kernel's is 0.
const ASID_SHIFT: u64 = 48;

/// The machine with ring 0 installed.
pub(crate) struct Hardware {
    cpu: *mut Cpu,
    /// The image, the pool and the serial port: TTBR0_EL1 while kernel code runs.
    lower: KernelTables<Aarch64, &'static Pages>,
    /// What the entry code needs: TTBR1_EL1.
    upper: KernelTables<Aarch64, &'static Pages>,
    /// End of the stack on which kernel faults are reported.
    fault_stack: u64,
}

impl Arch for Hardware {
    type Format = Aarch64;
    type Regs = UserRegs;
    type Fp = FpState;
    type Uart = pl011::Pl011;

    const KERNEL_MODE: &str = "EL1";
    const USER_MODE: &str = "EL0";

    fn uart() -> pl011::Pl011 {
        board::uart()
    }

    fn power_off(status: u8) -> ! {
        power::power_off(status)
    }

    fn program() -> &'static [u8] {
        program::bytes()
    }

    fn start(entry: u64, stack: u64, arg: u64) -> (UserRegs, FpState) {
        let mut regs = UserRegs { pc: entry, sp: stack, ..UserRegs::default() };
        regs.x[0] = arg;
        (regs, FpState::initial())
    }

    fn call(regs: &UserRegs) -> Call {
        Call { number: regs.x[8], args: [regs.x[0], regs.x[1]] }
    }

    fn set_result(regs: &mut UserRegs, value: u64) {
        regs.x[0] = value;
    }

    fn skip_illegal(regs: &mut UserRegs, exception: &Exception) -> Option<u64> {
        let at = regs.pc;
        (exception.class == class::UNKNOWN).then(|| regs.pc += INSTRUCTION)?;
        Some(at)
    }

    fn new_space(&self) -> Result<Space<Self>, Error> {
        PageTables::new(&PAGES)
    }

    fn switch_to_user(
        &self,
        number: u64,
        space: &Space<Self>,
        regs: &mut UserRegs,
        fp: &mut FpState,
    ) -> Trap {
        switch::to_user(self.cpu, space.root() | number << ASID_SHIFT, regs, fp)
    }

    /// The entry code loads the kernel's root on the way in.
    fn unload_spaces(&self) {}

    fn flush(&self, _: &Space<Self>, flush: Flush) {
        switch::flush(flush);
    }

    fn publish_code(start: u64, bytes: u64) {
        load::publish_code(start, bytes);
    }

    fn kernel_fault(&self) -> KernelFault {
        switch::kernel_fault(self.cpu)
    }
}
