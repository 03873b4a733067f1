//! The one place that chooses the architecture.
//!
//! Both submodules define the same names; the rest of `host` has no `cfg(target_arch)` outside
//! `platform/*/` set-up files and `abi` numbers.

#[expect(unsafe_code, reason = "reads counter registers")]
pub mod counter;
pub mod regset;
pub mod sigframe;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    AUDIT_ARCH, CLONE_BACKWARDS, FpState, HIDDEN_FEATURES, MACHINE, MACHINE_32, OLD_CALLS, RESTART_SYSCALL,
    SYSCALL_COLUMN, UserRegs, old_call, prepare_stack, switch_stacks, untagged,
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::{
    AUDIT_ARCH, CLONE_BACKWARDS, FpState, HIDDEN_FEATURES, MACHINE, MACHINE_32, OLD_CALLS, RESTART_SYSCALL,
    SYSCALL_COLUMN, UserRegs, old_call, prepare_stack, switch_stacks, untagged,
};

/// What kernel code needs of user registers, the same on every architecture.
pub trait Registers: Copy + Default {
    /// Registers of a new program: `ip`, `sp`, everything else as Linux's `start_thread` leaves it.
    fn start(ip: u64, sp: u64) -> Self;
    /// Instruction pointer.
    fn ip(&self) -> u64;
    /// Sets the instruction pointer.
    fn set_ip(&mut self, ip: u64);
    /// Stack pointer.
    fn sp(&self) -> u64;
    /// Sets the stack pointer.
    fn set_sp(&mut self, sp: u64);
    /// Thread pointer (fs base, TPIDR_EL0).
    fn tls(&self) -> u64;
    /// Sets the thread pointer.
    fn set_tls(&mut self, tls: u64);
    /// The second thread pointer that x86_64 has (gs base); 0 elsewhere.
    fn second_tls(&self) -> u64 {
        0
    }
    /// Sets the second thread pointer.
    fn set_second_tls(&mut self, _tls: u64) {}
    /// Number of the system call being made; meaningful after `Trap::Syscall`.
    fn syscall_number(&self) -> u64;
    /// The six arguments, as they were on entry.
    fn syscall_args(&self) -> [u64; 6];
    /// The value the program sees: a result, or a negative errno.
    fn set_result(&mut self, value: i64);
    /// The result register.
    fn result(&self) -> i64;
    /// Backs ip up over the system call instruction and restores number and first argument, so that the call is made
    /// again.
    fn rewind_syscall(&mut self);
    /// Replaces the number of the call that the (rewound) instruction makes.
    fn set_syscall_number(&mut self, number: u64);
    /// Marks that a system call is in progress, made without its instruction.
    fn begin_syscall(&mut self, number: u64);
    /// Marks that no system call is in progress (sigreturn, exec): no restart logic applies.
    fn clear_syscall(&mut self);
}

#[cfg(test)]
#[expect(unsafe_code, reason = "switches stacks")]
mod tests {
    use crate::arena::stack::KernelStack;

    struct Both {
        main: u64,
        other: u64,
        log: Vec<u32>,
    }

    extern "C" fn other(arg: usize) -> ! {
        let both = arg as *mut Both;
        for i in 0.. {
            // SAFETY: only one of the two stacks runs at a time, and the test owns `Both`.
            unsafe {
                (*both).log.push(i);
                super::switch_stacks(&raw mut (*both).other, (*both).main);
            }
        }
        unreachable!()
    }

    #[test]
    fn stacks_alternate_and_keep_their_locals() {
        let stack = KernelStack::new().unwrap();
        let mut both = Both { main: 0, other: 0, log: Vec::new() };
        let arg = &raw mut both;
        // SAFETY: a fresh stack; `both` outlives its use; see `other`.
        unsafe {
            (*arg).other = super::prepare_stack(stack.top(), other, arg as usize);
            for _ in 0..3 {
                super::switch_stacks(&raw mut (*arg).main, (*arg).other);
            }
            assert_eq!((*arg).log, [0, 1, 2]);
        }
    }
}
