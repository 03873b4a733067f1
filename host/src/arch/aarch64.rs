//! aarch64: registers by Linux's system-call convention (syscall(2), "Architecture calling conventions").

pub use ring0_aarch64::stack::{prepare as prepare_stack, switch as switch_stacks};
pub use ring0_aarch64::{fp::FpState, regs::UserRegs};

/// `uname -m`.
pub const MACHINE: &str = "aarch64";
/// What programs that ask for a 32-bit machine (PER_LINUX32) are told; none where there is no such machine in it.
pub const MACHINE_32: Option<&str> = None;
/// Whether clone(2) takes the thread pointer before the child's tid address.
pub const CLONE_BACKWARDS: bool = true;
/// `AUDIT_ARCH_*`: which architecture's numbers system calls have, for filters over them.
pub const AUDIT_ARCH: u32 = 0xc000_00b7;
/// Number of restart_syscall(2).
pub const RESTART_SYSCALL: u64 = 128;
/// Which number column of the system call table is ours.
pub const SYSCALL_COLUMN: usize = 1;

/// The address that memory calls (munmap, mprotect, madvise and their like) take `addr` for: without the tag in its
/// top byte, which bit 55 extends over (Linux, Documentation/arm64/tagged-address-abi.rst).
#[inline]
pub const fn untagged(addr: u64) -> u64 {
    addr & ((addr << 8) as i64 >> 8) as u64
}

/// What the host's /proc/cpuinfo calls features whose registers we do not save (by how the names begin).
pub const HIDDEN_FEATURES: &[&str] = &["sve", "sme", "pac", "mte"];

/// What /proc/PID/maps ends with: nothing.
pub const OLD_CALLS: &str = "";

/// Nothing is called at a fixed address on this architecture.
#[inline]
pub const fn old_call(_: u64) -> Option<u64> {
    None
}

impl super::Registers for UserRegs {
    fn start(ip: u64, sp: u64) -> Self {
        UserRegs { pc: ip, sp, syscall: !0, ..UserRegs::default() }
    }
    fn ip(&self) -> u64 {
        self.pc
    }
    fn set_ip(&mut self, ip: u64) {
        self.pc = ip;
    }
    fn sp(&self) -> u64 {
        self.sp
    }
    fn set_sp(&mut self, sp: u64) {
        self.sp = sp;
    }
    fn tls(&self) -> u64 {
        self.tpidr
    }
    fn set_tls(&mut self, tls: u64) {
        self.tpidr = tls;
    }
    fn syscall_number(&self) -> u64 {
        self.syscall
    }
    fn syscall_args(&self) -> [u64; 6] {
        [self.orig_x0, self.x[1], self.x[2], self.x[3], self.x[4], self.x[5]]
    }
    fn set_result(&mut self, value: i64) {
        self.x[0] = value as u64;
    }
    fn result(&self) -> i64 {
        self.x[0] as i64
    }
    fn rewind_syscall(&mut self) {
        self.pc = self.pc.wrapping_sub(4);
        self.x[0] = self.orig_x0;
    }
    fn set_syscall_number(&mut self, number: u64) {
        self.x[8] = number;
    }
    fn begin_syscall(&mut self, number: u64) {
        (self.syscall, self.orig_x0) = (number, self.x[0]);
    }
    fn clear_syscall(&mut self) {
        self.syscall = !0;
    }
}
