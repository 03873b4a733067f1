//! The kernel: two programs, taking turns.
//!
//! There is no scheduler, no interrupt and no kernel stack per program: the kernel is one loop around
//! [`Arch::switch_to_user`], which returns when the program traps. Add what your experiment needs.

mod arch;
#[expect(unsafe_code, reason = "hands out raw pages")]
mod memory;
mod program;
mod uart;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64::Hardware;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64::Hardware;

use arch::Arch;
use memory::NOWHERE;
use pagetables::Error;
use program::{Next, Program};
use ring0::{Access, Trap};
use uart::line;

/// Status of a run in which everything went as it should.
const SUCCESS: u8 = 0;
/// Status when a program failed.
const PROGRAM_FAILED: u8 = 1;
/// Status when the kernel did.
const KERNEL_FAILED: u8 = 2;

/// What runs when ring 0 is installed, on the kernel's stack.
fn main(hardware: &Hardware) -> ! {
    line!("bringup: kernel in {}, programs in {}", Hardware::KERNEL_MODE, Hardware::USER_MODE);
    match run_programs(hardware) {
        Ok(true) => {}
        Ok(false) => end(PROGRAM_FAILED),
        Err(error) => {
            line!("kernel: {error}");
            end(KERNEL_FAILED)
        }
    }
    // A kernel that cannot report its own faults is no fun to work on. `faulted` is where this goes.
    memory::read_nowhere();
    line!("kernel: reading {NOWHERE:#x} did not fault");
    end(KERNEL_FAILED)
}

/// Runs two copies of the program until both have ended; returns whether they are content.
fn run_programs(hardware: &Hardware) -> Result<bool, Error> {
    let mut programs = [Program::new(hardware, 1)?, Program::new(hardware, 2)?];
    while programs.iter().any(Program::is_running) {
        for program in programs.iter_mut().filter(|program| program.is_running()) {
            while program.step(hardware)? == Next::GoOn {}
        }
    }
    hardware.unload_spaces();
    Ok(programs.iter().all(|program| program.status() == Some(0)))
}

/// Where kernel code continues that faulted: on a stack of its own, with nothing to return to.
fn faulted(hardware: &Hardware) -> ! {
    let fault = hardware.kernel_fault();
    if let Trap::PageFault { addr: NOWHERE, access: Access::Read, .. } = fault.trap {
        line!("kernel: fault reading {NOWHERE:#x}, as intended");
        end(SUCCESS)
    }
    line!("kernel: {:x?} at {:#x}, stack pointer {:#x}", fault.trap, fault.pc, fault.sp);
    end(KERNEL_FAILED)
}

fn end(status: u8) -> ! {
    line!("bringup: powering off with status {status}");
    Hardware::power_off(status)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line!("kernel: {info}");
    end(KERNEL_FAILED)
}
