//! From the first Rust instruction, at EL1 with the MMU off, to ring 0.

use super::{Hardware, board, load};
use crate::kernel;
use crate::kernel::arch::Arch;
use crate::kernel::memory::{self, PAGES, Pages};
use crate::kernel::uart::Uart;
use aarch64_cpu::registers as arm;
use core::arch::global_asm;
use pagetables::{Aarch64, Attrs, Error, KernelTables, PAGE_SIZE};
use ring0_aarch64::cpu::{CPU_STRIDE, Cpu, KERNEL_HALF};
use ring0_aarch64::{entry, init, stack};

global_asm!(
    include_str!("boot.S"),
    PSTATE = const init::PSTATE,
    // EL1 is AArch64. No traps, no stage 2, no VHE.
    HCR = const arm::HCR_EL2::RW::EL1IsAarch64.value,
    // EL1 may use the physical counter and timer.
    CNTHCTL = const arm::CNTHCTL_EL2::EL1PCTEN::SET.value | arm::CNTHCTL_EL2::EL1PCEN::SET.value,
    // Compiled code may use floating point.
    CPACR = const arm::CPACR_EL1::FPEN::TrapNothing.value,
    boot = sym boot,
);

/// Called by boot.S on the boot stack.
extern "C" fn boot() -> ! {
    Hardware::uart().init();
    // This function never returns: what lies on its stack stays.
    let (hardware, kernel_stack) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => panic!("building the kernel's tables: {error}"),
    };
    let arg = core::ptr::from_ref(&hardware) as usize;
    // SAFETY: a stack that is mapped and that nobody uses; the block is initialised, and mapped in the kernel's tables
    // like the image, the pool and the boot stack.
    unsafe {
        (*hardware.cpu).context_sp = stack::prepare(kernel_stack, enter, arg);
        load::ring0(hardware.cpu, hardware.lower.root(), hardware.upper.root())
    }
}

/// Builds the kernel's tables and the per-CPU block; returns them with the end of the kernel's stack.
fn prepare() -> Result<(Hardware, u64), Error> {
    let mut lower: KernelTables<Aarch64, &'static Pages> = KernelTables::new(&PAGES)?;
    // Not global: programs' translations could not be told from these.
    memory::map_image(&mut lower, Attrs::READ)?;
    let uart = board::this().uart;
    memory::map(&mut lower, uart, uart, PAGE_SIZE, Attrs::WRITE | Attrs::DEVICE)?;
    let kernel_stack = memory::new_stack(&mut lower)?;
    let fault_stack = memory::new_stack(&mut lower)?;

    let mut upper: KernelTables<Aarch64, &'static Pages> = KernelTables::new(&PAGES)?;
    let cpu_page = PAGES.take(CPU_STRIDE / PAGE_SIZE)?;
    let exit_page = PAGES.take(1)?;
    let (text, text_end) = entry::text();
    let global = Attrs::GLOBAL;
    memory::map(&mut upper, text | KERNEL_HALF, text, text_end - text, Attrs::EXECUTE | global)?;
    memory::map(&mut upper, cpu_page | KERNEL_HALF, cpu_page, CPU_STRIDE, Attrs::WRITE | global)?;
    // Under KVM nothing backs this page, and a store to it exits. Nobody runs this ring 0 from outside: the store does
    // nothing, and the code behind it goes on with the context in `context_sp`.
    memory::map(&mut upper, exit_page | KERNEL_HALF, exit_page, PAGE_SIZE, Attrs::WRITE | global)?;

    let cpu = cpu_page as *mut Cpu;
    // SAFETY: zeroed pages of the pool, taken for this.
    unsafe { (*cpu).init(lower.root(), exit_page) };
    Ok((Hardware { cpu, lower, upper, fault_stack }, kernel_stack))
}

/// First on the kernel's stack.
extern "C" fn enter(hardware: usize) -> ! {
    // SAFETY: `boot` passes what lies on its stack for ever. The block is this CPU's, and from here on `context_sp` is
    // what continues when kernel code faults.
    unsafe {
        let hardware = &*(hardware as *const Hardware);
        let arg = core::ptr::from_ref(hardware) as usize;
        (*hardware.cpu).context_sp = stack::prepare(hardware.fault_stack, fault, arg);
        kernel::main(hardware)
    }
}

/// First on the fault stack.
extern "C" fn fault(hardware: usize) -> ! {
    // SAFETY: as for `enter`.
    kernel::faulted(unsafe { &*(hardware as *const Hardware) })
}
