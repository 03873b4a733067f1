//! x86_64: registers by Linux's system-call convention (syscall(2), "Architecture calling conventions").

pub use ring0_x86_64::stack::{prepare as prepare_stack, switch as switch_stacks};
use ring0_x86_64::tables::selector;
pub use ring0_x86_64::{fp::FpState, regs::UserRegs};
use x86_64::registers::rflags::RFlags;

/// `uname -m`.
pub const MACHINE: &str = "x86_64";
/// What programs that ask for a 32-bit machine (PER_LINUX32) are told; none where there is no such machine in it.
pub const MACHINE_32: Option<&str> = Some("i686");
/// Whether clone(2) takes the thread pointer before the child's tid address.
pub const CLONE_BACKWARDS: bool = false;
/// `AUDIT_ARCH_*`: which architecture's numbers system calls have, for filters over them.
pub const AUDIT_ARCH: u32 = 0xc000_003e;
/// Number of restart_syscall(2).
pub const RESTART_SYSCALL: u64 = 219;
/// Which number column of the system call table is ours.
pub const SYSCALL_COLUMN: usize = 0;

/// The address that memory calls (munmap, mprotect, madvise and their like) take `addr` for: itself, addresses carry no tags.
#[inline]
pub const fn untagged(addr: u64) -> u64 {
    addr
}

/// What the host's /proc/cpuinfo calls features that programs in a VM of ours do not have (by how the names begin): see
/// [`ring0_x86_64::features::mask`].
pub const HIDDEN_FEATURES: &[&str] =
    &["vmx", "svm", "monitor", "mpx", "pku", "ospke", "la57", "user_shstk", "ibt", "amx_", "xsaves"];

/// What /proc/PID/maps ends with: the page of [`old_call`].
pub const OLD_CALLS: &str =
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

/// The system call that a program makes by calling `addr`: gettimeofday, time and getcpu had fixed addresses before there
/// was a vDSO. Nothing is mapped there.
#[inline]
pub const fn old_call(addr: u64) -> Option<u64> {
    match addr {
        0xffff_ffff_ff60_0000 => Some(96),
        0xffff_ffff_ff60_0400 => Some(201),
        0xffff_ffff_ff60_0800 => Some(309),
        _ => None,
    }
}

const USER_CS: u64 = selector::USER_CODE as u64;
const USER_SS: u64 = selector::USER_DATA as u64;
/// IF and the always-one bit.
const INITIAL_FLAGS: u64 = RFlags::INTERRUPT_FLAG.bits() | ring0_x86_64::init::RFLAGS;

impl super::Registers for UserRegs {
    fn start(ip: u64, sp: u64) -> Self {
        UserRegs {
            rip: ip,
            rsp: sp,
            cs: USER_CS,
            ss: USER_SS,
            eflags: INITIAL_FLAGS,
            orig_rax: !0,
            ..UserRegs::default()
        }
    }
    fn ip(&self) -> u64 {
        self.rip
    }
    fn set_ip(&mut self, ip: u64) {
        self.rip = ip;
    }
    fn sp(&self) -> u64 {
        self.rsp
    }
    fn set_sp(&mut self, sp: u64) {
        self.rsp = sp;
    }
    fn tls(&self) -> u64 {
        self.fs_base
    }
    fn set_tls(&mut self, tls: u64) {
        self.fs_base = tls;
    }
    fn second_tls(&self) -> u64 {
        self.gs_base
    }
    fn set_second_tls(&mut self, tls: u64) {
        self.gs_base = tls;
    }
    fn syscall_number(&self) -> u64 {
        self.orig_rax
    }
    fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
    fn set_result(&mut self, value: i64) {
        self.rax = value as u64;
    }
    fn result(&self) -> i64 {
        self.rax as i64
    }
    fn rewind_syscall(&mut self) {
        self.rip = self.rip.wrapping_sub(2);
        self.rax = self.orig_rax;
    }
    fn set_syscall_number(&mut self, number: u64) {
        self.rax = number;
    }
    fn begin_syscall(&mut self, number: u64) {
        self.orig_rax = number;
    }
    fn clear_syscall(&mut self) {
        self.orig_rax = !0;
    }
}
