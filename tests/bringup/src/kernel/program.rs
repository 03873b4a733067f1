//! A user program: registers, an address space, and what becomes of its traps.

use super::Hardware;
use super::arch::{Arch, Call, Space};
use super::memory::{PAGES, windows};
use super::uart::line;
use pagetables::{Error, PAGE_SIZE, Rights, UserRange};
use ring0::{Access, Trap};

/// Where a program finds its one page of code.
const CODE: u64 = 64 << 30;
/// Its page of stack.
const STACK: u64 = CODE + 0x10_0000;
/// Its page of data, which is not there until it is touched.
pub(super) const DATA: u64 = CODE + 0x20_0000;

/// Numbers of the system calls.
pub(super) mod call {
    /// exit(status)
    pub(in super::super) const EXIT: u64 = 0;
    /// write(address, length): a line of text.
    pub(in super::super) const WRITE: u64 = 1;
    /// yield()
    pub(in super::super) const YIELD: u64 = 2;
}

/// Results of system calls that fail, as Linux encodes them.
const ENOSYS: u64 = -38i64 as u64;
const EFAULT: u64 = -14i64 as u64;

/// Longest text that a program can write.
const LINE: usize = 80;

/// What to do after a trap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Run the program on.
    GoOn,
    /// Run another one.
    Other,
}

/// A program.
pub(super) struct Program {
    number: u64,
    regs: <Hardware as Arch>::Regs,
    fp: <Hardware as Arch>::Fp,
    space: Space<Hardware>,
    status: Option<u64>,
}

impl Program {
    /// Loads copy `number`, which finds that number in its first argument register.
    ///
    /// # Errors
    /// When pages run out.
    pub(super) fn new(hardware: &Hardware, number: u64) -> Result<Self, Error> {
        let (regs, fp) = Hardware::start(CODE, STACK + PAGE_SIZE, number);
        let mut this = Program { number, regs, fp, space: hardware.new_space()?, status: None };
        let code = this.add_page(hardware, CODE, Rights::READ | Rights::EXECUTE)?;
        PAGES.fill(code, Hardware::program());
        Hardware::publish_code(code, PAGE_SIZE);
        this.add_page(hardware, STACK, Rights::READ | Rights::WRITE)?;
        Ok(this)
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.status.is_none()
    }

    /// Its exit status, if it has ended.
    pub(super) fn status(&self) -> Option<u64> {
        self.status
    }

    /// Runs it up to its next trap, and serves that.
    ///
    /// # Errors
    /// When pages run out.
    pub(super) fn step(&mut self, hardware: &Hardware) -> Result<Next, Error> {
        let number = self.number;
        match hardware.switch_to_user(number, &self.space, &mut self.regs, &mut self.fp) {
            Trap::Syscall => return Ok(self.serve()),
            Trap::PageFault { addr, access, .. } if (DATA..DATA + PAGE_SIZE).contains(&addr) => {
                let what = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::Execute => "execute",
                };
                line!("program {number}: page fault, {what} at {addr:#x}: gets a page");
                self.add_page(hardware, DATA, Rights::READ | Rights::WRITE)?;
                return Ok(Next::GoOn);
            }
            Trap::Exception(exception) => {
                if let Some(at) = Hardware::skip_illegal(&mut self.regs, &exception) {
                    line!("program {number}: illegal instruction at {at:#x}: skipped");
                    return Ok(Next::GoOn);
                }
                line!("program {number}: killed by {exception:#x?}");
            }
            other => line!("program {number}: killed by {other:#x?}"),
        }
        self.status = Some(1);
        Ok(Next::Other)
    }

    fn serve(&mut self) -> Next {
        let number = self.number;
        let Call { number: call, args } = Hardware::call(&self.regs);
        let (result, next) = match call {
            call::EXIT => {
                let [status, _] = args;
                line!("program {number}: exit, status {status}");
                self.status = Some(status);
                return Next::Other;
            }
            call::WRITE => (self.write(args), Next::GoOn),
            call::YIELD => {
                line!("program {number}: yield");
                (0, Next::Other)
            }
            _ => (ENOSYS, Next::GoOn),
        };
        Hardware::set_result(&mut self.regs, result);
        next
    }

    /// Prints a line of the program's.
    fn write(&self, [address, length]: [u64; 2]) -> u64 {
        let mut text = [0; LINE];
        let length = length.min(LINE as u64);
        for (byte, at) in text.iter_mut().zip(address..address.saturating_add(length)) {
            match self.byte(at) {
                Some(value) => *byte = value,
                None => return EFAULT,
            }
        }
        let text = text.get(..length as usize).unwrap_or_default();
        line!("program {}: write, {}", self.number, text.escape_ascii());
        length
    }

    /// A byte of the program's memory. Kernel code never follows a program's address (SMAP and the separate TTBR0 see to
    /// that): this walks the program's table and reads the page where the kernel has it.
    fn byte(&self, address: u64) -> Option<u8> {
        let page = self.space.lookup(address)?;
        PAGES.bytes(page.phys).get((address - page.va) as usize).map(core::cell::Cell::get)
    }

    /// Adds a zeroed page and returns where the kernel has it.
    fn add_page(&mut self, hardware: &Hardware, at: u64, rights: Rights) -> Result<u64, Error> {
        let windows = windows::<<Hardware as Arch>::Format>();
        let range = UserRange::new(&windows, at, PAGE_SIZE).map_err(|_| Error::Frozen)?;
        let page = PAGES.take(1)?;
        let flush = self.space.map_page(range, page, rights)?;
        hardware.flush(&self.space, flush);
        Ok(page)
    }
}
