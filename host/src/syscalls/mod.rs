//! System calls: one table, one dispatcher, one file of handlers per family.
//!
//! [`dispatch`] is an array index and a call; [`table::ROWS`] is turned into that array at compile time. Handlers
//! decode arguments, make one call into the kernel, and encode the result; they return restart errors
//! (`ERESTARTSYS` and friends) as they are: signal delivery, which runs before the program does, resolves them.
//!
//! When a sandbox is observed (`--strace`, `--stats`) or the task has filters of its own (seccomp(2)), dispatch takes a
//! longer path that screens, counts and prints.

use crate::abi::{Errno, Result};
use crate::arch::{Registers, SYSCALL_COLUMN};
use crate::kernel::Current;
use crate::kernel::seccomp::Verdict;
use crate::metrics::{Metrics, NUMBERS};
use core::sync::atomic::Ordering;

mod args;
mod args_time;
mod clocks;
mod credentials;
mod descriptors;
mod files;
mod flags;
pub mod format;
mod ipc;
mod memory;
mod processes;
mod scheduling;
mod signals;
mod sockets;
mod strace;
mod system;
pub mod table;
mod waiting;

pub use args::Args;
pub use table::{ROWS, Row, Support};

/// What answers a system call.
pub type Handler = fn(&mut Current, &Args) -> Result<u64>;

/// Handlers by number on this architecture.
static HANDLERS: [Handler; NUMBERS] = handlers();
/// Rows by number on this architecture; `NO_ROW` where there is none.
static ROW_OF: [u16; NUMBERS] = row_indices();
const NO_ROW: u16 = u16::MAX;

impl Row {
    /// Its number on this architecture.
    pub const fn number(&self) -> Option<u16> {
        match SYSCALL_COLUMN {
            0 => self.nr_x86_64,
            _ => self.nr_aarch64,
        }
    }
}

const fn handlers() -> [Handler; NUMBERS] {
    let mut all = [missing as Handler; NUMBERS];
    let mut index = 0;
    while index < ROWS.len() {
        if let (Some(number), Some(handler)) = (ROWS[index].number(), ROWS[index].handler) {
            all[number as usize] = handler;
        }
        index += 1;
    }
    all
}

const fn row_indices() -> [u16; NUMBERS] {
    let mut all = [NO_ROW; NUMBERS];
    let mut index = 0;
    while index < ROWS.len() {
        if let Some(number) = ROWS[index].number() {
            all[number as usize] = index as u16;
        }
        index += 1;
    }
    all
}

/// The row of a number, where Linux has one.
pub fn row(number: u64) -> Option<&'static Row> {
    let index = *ROW_OF.get(usize::try_from(number).ok()?)?;
    ROWS.get(usize::from(index))
}

/// Answers the system call that `cur` has just trapped with and stores the result in its registers.
#[inline(always)]
pub fn dispatch(cur: &mut Current) {
    let args = Args(cur.regs.syscall_args());
    // As Linux, which takes the number for an `int`.
    let number = cur.regs.syscall_number() as u32;
    let handler = HANDLERS.get(number as usize).copied().unwrap_or(missing);
    if cur.task.watched.load(Ordering::Relaxed) {
        return watched(cur, number, handler, &args);
    }
    let result = handler(cur, &args);
    store(cur, result);
}

/// Puts a result where the program finds it. A handler that replaced the registers (sigreturn, execve) has marked
/// them as being in no system call: those are left alone.
#[inline]
fn store(cur: &mut Current, result: Result<u64>) {
    match result {
        Ok(value) if cur.regs.syscall_number() != !0 => cur.regs.set_result(value as i64),
        Ok(_) => {}
        Err(errno) => cur.regs.set_result(-i64::from(errno.0)),
    }
}

/// The handler of numbers that have none. Counted always: this is how a user finds out what a program lacks.
fn missing(cur: &mut Current, _args: &Args) -> Result<u64> {
    let number = u64::from(cur.regs.syscall_number() as u32);
    let metrics = &cur.kernel.metrics;
    match usize::try_from(number).ok().and_then(|n| metrics.calls.get(n)) {
        Some(calls) => {
            calls.missing.add();
            if calls.missing.value() == 1 {
                let name = row(number).map_or("?", |r| r.name);
                metrics.debug(&format!("unimplemented system call {number} ({name}): ENOSYS"));
            }
        }
        None => metrics.unknown_calls.add(),
    }
    Err(Errno::ENOSYS)
}

/// [`dispatch`] for a task whose calls are screened, traced or observed.
#[cold]
fn watched(cur: &mut Current, number: u32, handler: Handler, args: &Args) {
    let (mut number, mut handler, mut args) = (number, handler, Args(args.0));
    if cur.task.is_traced() {
        if !cur.trace_entry() {
            return cur.trace_exit(number);
        }
        // The tracer may have made another call of it.
        number = cur.regs.syscall_number() as u32;
        handler = HANDLERS.get(number as usize).copied().unwrap_or(missing);
        args = Args(cur.regs.syscall_args());
    }
    answer(cur, number, handler, &args);
    cur.trace_exit(number);
}

/// Screens a call, answers and observes it.
fn answer(cur: &mut Current, number: u32, handler: Handler, args: &Args) {
    let verdict = cur.screen(number, &args.0);
    let answer = move |cur: &mut Current| match verdict {
        Verdict::Pass => handler(cur, args),
        Verdict::Denied(result) => result,
    };
    if cur.kernel.metrics.observed {
        return observed(cur, number.into(), answer, args);
    }
    let result = answer(cur);
    store(cur, result);
}

/// Counts and prints a call around its `answer`.
fn observed(cur: &mut Current, number: u64, answer: impl FnOnce(&mut Current) -> Result<u64>, args: &Args) {
    let kernel = cur.kernel.clone();
    let log = if kernel.metrics.strace { kernel.metrics.log.as_ref() } else { None };
    let Some(log) = log else {
        let result = answer(cur);
        store(cur, result);
        return count(&kernel.metrics, number);
    };
    let tid = cur.task.tid();
    let Some(row) = row(number) else {
        log.line(&strace::unknown(tid, number, args));
        let result = answer(cur);
        return store(cur, result);
    };
    let given = strace::before(row, args, &|address, out| cur.mm().read(address, out));
    let result = if matches!(row.name, "exit" | "exit_group") {
        log.line(&strace::without_return(tid, row, given));
        count(&kernel.metrics, number);
        answer(cur)
    } else {
        let result = answer(cur);
        log.line(&strace::after(tid, row, args, given, result, &|address, out| cur.mm().read(address, out)));
        count(&kernel.metrics, number);
        result
    };
    store(cur, result);
}

fn count(metrics: &Metrics, number: u64) {
    if let Some(calls) = usize::try_from(number).ok().and_then(|n| metrics.calls.get(n)) {
        let place = if crate::platform::in_guest() { &calls.in_guest } else { &calls.in_host };
        place.add();
    }
}

#[cfg(test)]
mod tests {
    use super::{NUMBERS, ROWS, row};

    #[test]
    fn numbers_are_unique_and_in_range() {
        let columns: [fn(&super::Row) -> Option<u16>; 2] = [|r| r.nr_x86_64, |r| r.nr_aarch64];
        for column in columns {
            let mut numbers: Vec<u16> = ROWS.iter().filter_map(column).collect();
            let before = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), before, "two rows share a number");
            assert!(numbers.iter().all(|n| usize::from(*n) < NUMBERS));
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }

    #[test]
    fn numbers_agree_with_the_kernel_headers() {
        use linux_raw_sys::general as sys;
        for (number, name) in [
            (sys::__NR_read, "read"),
            (sys::__NR_execve, "execve"),
            (sys::__NR_openat, "openat"),
            (sys::__NR_futex, "futex"),
            (sys::__NR_clone3, "clone3"),
            (sys::__NR_statx, "statx"),
        ] {
            assert_eq!(row(u64::from(number)).map(|r| r.name), Some(name));
        }
    }
}
