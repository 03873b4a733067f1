//! Requests of ptrace(2).

use super::Name;
use linux_raw_sys::ptrace;

/// `ptrace` requests that every architecture has.
pub(in crate::syscalls) const PTRACE: &[Name] = &[
    (ptrace::PTRACE_TRACEME as u64, "PTRACE_TRACEME"),
    (ptrace::PTRACE_PEEKTEXT as u64, "PTRACE_PEEKTEXT"),
    (ptrace::PTRACE_PEEKDATA as u64, "PTRACE_PEEKDATA"),
    (ptrace::PTRACE_PEEKUSR as u64, "PTRACE_PEEKUSR"),
    (ptrace::PTRACE_POKETEXT as u64, "PTRACE_POKETEXT"),
    (ptrace::PTRACE_POKEDATA as u64, "PTRACE_POKEDATA"),
    (ptrace::PTRACE_POKEUSR as u64, "PTRACE_POKEUSR"),
    (ptrace::PTRACE_CONT as u64, "PTRACE_CONT"),
    (ptrace::PTRACE_KILL as u64, "PTRACE_KILL"),
    (ptrace::PTRACE_SINGLESTEP as u64, "PTRACE_SINGLESTEP"),
    (ptrace::PTRACE_ATTACH as u64, "PTRACE_ATTACH"),
    (ptrace::PTRACE_DETACH as u64, "PTRACE_DETACH"),
    (ptrace::PTRACE_SYSCALL as u64, "PTRACE_SYSCALL"),
    (ptrace::PTRACE_SETOPTIONS as u64, "PTRACE_SETOPTIONS"),
    (ptrace::PTRACE_GETEVENTMSG as u64, "PTRACE_GETEVENTMSG"),
    (ptrace::PTRACE_GETSIGINFO as u64, "PTRACE_GETSIGINFO"),
    (ptrace::PTRACE_SETSIGINFO as u64, "PTRACE_SETSIGINFO"),
    (ptrace::PTRACE_GETREGSET as u64, "PTRACE_GETREGSET"),
    (ptrace::PTRACE_SETREGSET as u64, "PTRACE_SETREGSET"),
    (ptrace::PTRACE_SEIZE as u64, "PTRACE_SEIZE"),
    (ptrace::PTRACE_INTERRUPT as u64, "PTRACE_INTERRUPT"),
    (ptrace::PTRACE_LISTEN as u64, "PTRACE_LISTEN"),
    (ptrace::PTRACE_PEEKSIGINFO as u64, "PTRACE_PEEKSIGINFO"),
    (ptrace::PTRACE_GETSIGMASK as u64, "PTRACE_GETSIGMASK"),
    (ptrace::PTRACE_SETSIGMASK as u64, "PTRACE_SETSIGMASK"),
    (ptrace::PTRACE_GET_SYSCALL_INFO as u64, "PTRACE_GET_SYSCALL_INFO"),
];
