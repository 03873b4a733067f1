//! What the kernel asks of an architecture.

use super::memory::Pages;
use super::uart::Uart;
use pagetables::{Error, Flush, Format, PageTables};
use ring0::{Exception, Trap};

/// The page table of one program.
pub(crate) type Space<A> = PageTables<<A as Arch>::Format, &'static Pages>;

/// A system call: number and first two arguments.
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) args: [u64; 2],
}

/// A fault in kernel code.
pub(crate) struct KernelFault {
    /// What it would be if a program had it.
    pub(crate) trap: Trap,
    /// The instruction.
    pub(crate) pc: u64,
    /// The kernel's stack pointer.
    pub(crate) sp: u64,
}

/// One processor with ring 0 installed, and the board around it.
pub(crate) trait Arch: Sized {
    /// What the page tables look like.
    type Format: Format;
    /// A program's registers.
    type Regs;
    /// A program's floating-point state.
    type Fp;
    /// The board's serial port.
    type Uart: Uart;

    /// Where kernel code runs, for the first line.
    const KERNEL_MODE: &str;
    /// Where programs run.
    const USER_MODE: &str;

    /// The board's serial port. Callable at any time, from a panic too.
    fn uart() -> Self::Uart;

    /// Ends the run. `status` reaches whoever started the machine, where the board can do that.
    fn power_off(status: u8) -> !;

    /// The user program: position-independent code, entered at its first byte.
    fn program() -> &'static [u8];

    /// Registers and floating-point state of a program that starts at `entry` with `arg` as its only argument.
    fn start(entry: u64, stack: u64, arg: u64) -> (Self::Regs, Self::Fp);

    /// The registers as a system call.
    fn call(regs: &Self::Regs) -> Call;

    /// Gives a system call its result.
    fn set_result(regs: &mut Self::Regs, value: u64);

    /// If the exception is the program's illegal instruction, steps over it and returns where it was.
    fn skip_illegal(regs: &mut Self::Regs, exception: &Exception) -> Option<u64>;

    /// An empty address space: the kernel and nothing else.
    ///
    /// # Errors
    /// When table pages run out.
    fn new_space(&self) -> Result<Space<Self>, Error>;

    /// Runs the program `number` in its space until it traps.
    fn switch_to_user(
        &self,
        number: u64,
        space: &Space<Self>,
        regs: &mut Self::Regs,
        fp: &mut Self::Fp,
    ) -> Trap;

    /// Makes sure that no program's table is in use: they are about to be dropped.
    fn unload_spaces(&self);

    /// Makes an edit of a page table effective.
    fn flush(&self, space: &Space<Self>, flush: Flush);

    /// Makes bytes that were stored at a kernel address fetchable as instructions.
    fn publish_code(start: u64, bytes: u64);

    /// The fault that kernel code had.
    fn kernel_fault(&self) -> KernelFault;
}
