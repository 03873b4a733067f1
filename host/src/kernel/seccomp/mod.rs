//! Filters that programs put over their own system calls: seccomp(2).
//!
//! Every task has a [`Confinement`], which its children inherit and execve(2) keeps. A task that is confined is
//! `watched`: the dispatcher tests that one flag, and asks [`Current::screen`] only then. Whether calls are counted or
//! printed is in the same flag, so that filters cost the others nothing.
//!
//! A chain of filters is a list that is copied to be extended: threads share it until one of them adds to it, and
//! whether one chain is the start of another (which TSYNC wants to know) is a comparison of pointers.
//!
//! Not here: user notification (`SECCOMP_FILTER_FLAG_NEW_LISTENER` is refused as by a kernel that lacks it), and turning
//! the time stamp counter off in strict mode.

mod bpf;
pub mod profile;

pub use bpf::{MAX_INSNS, Program, RawInsn};

use super::signal::{Fields, SIGKILL, SIGSYS, SigInfo};
use super::{Current, Task, WaitStatus};
use crate::abi::{Errno, Result};
use crate::arch::{AUDIT_ARCH, Registers};
use crate::cred::Caps;
use bpf::DATA_WORDS;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{__NR_exit, __NR_read, __NR_rt_sigreturn, __NR_write};
use profile::Profile;
use std::sync::Arc;

/// Most instructions in a chain, as Linux counts them.
const MAX_CHAIN: usize = (1 << 18) / size_of::<RawInsn>();
/// What each filter but the newest costs besides.
const CHAIN_PENALTY: usize = 4;
/// Highest errno a filter can have returned.
const MAX_ERRNO: u32 = 4095;
/// `SYS_SECCOMP`, the `si_code`.
const SYS_SECCOMP: i32 = 1;
/// All that a task in strict mode may call.
const STRICT_CALLS: [u32; 4] = [__NR_read, __NR_write, __NR_exit, __NR_rt_sigreturn];

/// What filters return, in the upper half of the word (linux/seccomp.h).
pub mod action {
    /// End the process.
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    /// End the thread.
    pub const KILL_THREAD: u32 = 0;
    /// SIGSYS.
    pub const TRAP: u32 = 0x0003_0000;
    /// An errno.
    pub const ERRNO: u32 = 0x0005_0000;
    /// Ask a listener. There is none.
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    /// Ask the tracer. There is none.
    pub const TRACE: u32 = 0x7ff0_0000;
    /// Log it and go on.
    pub const LOG: u32 = 0x7ffc_0000;
    /// Go on.
    pub const ALLOW: u32 = 0x7fff_0000;
    /// Those that filters may use here.
    pub const AVAILABLE: [u32; 7] = [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, LOG, ALLOW];
}

/// prctl(PR_GET_SECCOMP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not confined.
    #[default]
    Off,
    /// read, write, exit and sigreturn.
    Strict,
    /// What the filters say.
    Filter,
}

/// What a task may call and become. Inherited; never given up.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// How its calls are screened.
    pub mode: Mode,
    /// Oldest first.
    filters: Option<Arc<[Arc<Filter>]>>,
}

/// One filter.
#[derive(Debug)]
pub enum Filter {
    /// A program's.
    Program(Program),
    /// A container's.
    Profile(Profile),
}

impl Filter {
    /// What it returns.
    fn run(&self, call: &Call<'_>) -> u32 {
        match self {
            Filter::Program(program) => program.run(&call.data),
            Filter::Profile(profile) => profile.result(call.data[0], call.args),
        }
    }

    /// How long it counts as in a chain.
    fn len(&self) -> usize {
        match self {
            Filter::Program(program) => program.translated_len(),
            Filter::Profile(profile) => profile.len(),
        }
    }
}

impl Confinement {
    /// Of a program that somebody outside has asked for.
    pub fn of_container(no_new_privs: bool, filter: Option<&Arc<Filter>>) -> Self {
        let mode = if filter.is_some() { Mode::Filter } else { Mode::Off };
        Confinement { no_new_privs, mode, filters: filter.map(|filter| Arc::new([filter.clone()]) as _) }
    }

    /// Its filters, oldest first.
    pub fn filters(&self) -> &[Arc<Filter>] {
        self.filters.as_deref().unwrap_or_default()
    }

    fn may_become(&self, mode: Mode) -> Result<()> {
        if self.mode == Mode::Off || self.mode == mode { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Whether its filters are the oldest ones of `other`.
    fn is_ancestor_of(&self, other: &Confinement) -> bool {
        let (own, others) = (self.filters(), other.filters());
        own.len() <= others.len() && own.iter().zip(others).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Pass,
    /// It is not; this is what it returns.
    Denied(Result<u64>),
}

impl Task {
    /// A copy of what confines it.
    pub fn confinement(&self) -> Confinement {
        self.confinement.lock().clone()
    }

    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub fn set_no_new_privs(&self) {
        self.confinement.lock().no_new_privs = true;
    }

    fn confine(&self, change: impl FnOnce(&mut Confinement)) {
        change(&mut self.confinement.lock());
        self.watched.store(true, Ordering::SeqCst);
    }
}

impl Current {
    /// SECCOMP_SET_MODE_STRICT.
    ///
    /// # Errors
    /// EINVAL if it has filters.
    pub fn confine_strictly(&mut self) -> Result<()> {
        self.task.confinement.lock().may_become(Mode::Strict)?;
        self.task.confine(|own| own.mode = Mode::Strict);
        Ok(())
    }

    /// Whether it may confine itself by a filter.
    ///
    /// # Errors
    /// EACCES: programs that it starts could be tricked into using rights that it does not have.
    pub fn may_add_filter(&self) -> Result<()> {
        let trusted = self.task.confinement.lock().no_new_privs || self.cred().has_own(Caps::SYS_ADMIN);
        if trusted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// SECCOMP_SET_MODE_FILTER: confines the calling thread by one more filter, with `all` the other threads of the
    /// process by the same chain. Returns 0, or the id of a thread that has filters of its own.
    ///
    /// # Errors
    /// EINVAL in strict mode, ENOMEM for too long a chain.
    pub fn add_filter(&mut self, program: Program, all: bool) -> Result<i32> {
        // New threads start under this lock: none is missed.
        let state = self.task.group.state.lock();
        let mut own = self.task.confinement();
        own.may_become(Mode::Filter)?;
        let chain: usize = own.filters().iter().map(|filter| filter.len() + CHAIN_PENALTY).sum();
        if chain + program.translated_len() > MAX_CHAIN {
            return Err(Errno::ENOMEM);
        }
        let others = || state.threads.iter().filter(|task| all && !Arc::ptr_eq(task, &self.task));
        for other in others() {
            let theirs = other.confinement();
            if theirs.mode == Mode::Strict || !theirs.is_ancestor_of(&own) {
                return Ok(other.number());
            }
        }
        let filters: Arc<[_]> =
            own.filters().iter().cloned().chain([Arc::new(Filter::Program(program))]).collect();
        own.mode = Mode::Filter;
        own.filters = Some(filters);
        for other in others() {
            other.confine(|theirs| {
                *theirs = Confinement { no_new_privs: theirs.no_new_privs | own.no_new_privs, ..own.clone() };
            });
        }
        self.task.confine(|confinement| *confinement = own);
        Ok(0)
    }

    /// What becomes of the system call that it has just trapped with.
    pub fn screen(&mut self, number: u32, args: &[u64; 6]) -> Verdict {
        let Confinement { mode, filters, .. } = self.task.confinement();
        match (mode, filters) {
            (Mode::Off, _) => Verdict::Pass,
            (Mode::Strict, _) if STRICT_CALLS.contains(&number) => Verdict::Pass,
            (Mode::Strict, _) => self.end_by(SIGKILL),
            (Mode::Filter, filters) => {
                let call = Call { data: words(number, self.regs.ip(), args), args };
                let result = verdict(filters.as_deref().unwrap_or_default(), &call);
                self.obey(result, number)
            }
        }
    }

    fn obey(&mut self, result: u32, number: u32) -> Verdict {
        let value = result & 0xffff;
        match result & !0xffff {
            action::ALLOW | action::LOG => Verdict::Pass,
            // An errno of 0 is a success.
            action::ERRNO if value == 0 => Verdict::Denied(Ok(0)),
            action::ERRNO => Verdict::Denied(Err(Errno(value.min(MAX_ERRNO) as i32))),
            action::TRACE | action::USER_NOTIF => Verdict::Denied(Err(Errno::ENOSYS)),
            action::TRAP => {
                let info = self.rolled_back(number, value as i32);
                self.force_signal(info);
                self.left()
            }
            action::KILL_THREAD if self.task.group.state.lock().threads.len() > 1 => self.end_by(SIGSYS),
            // What filters must not return ends the process, too.
            _ => {
                let info = self.rolled_back(number, 0);
                self.die(&info);
                self.left()
            }
        }
    }

    /// The registers become what they were before the call, behind its instruction: so handlers and core dumps find them.
    /// Returns the signal about it.
    fn rolled_back(&mut self, number: u32, errno: i32) -> SigInfo {
        let ip = self.regs.ip();
        self.regs.rewind_syscall();
        self.regs.set_ip(ip);
        let fields = Fields::Syscall { addr: ip, number: number as i32, arch: AUDIT_ARCH };
        SigInfo { signo: SIGSYS, errno, code: SYS_SECCOMP, fields }
    }

    /// The thread ends as if by this signal; others of its process go on.
    fn end_by(&mut self, signo: i32) -> Verdict {
        self.end_thread(WaitStatus::killed(signo, false));
        self.left()
    }

    /// The call is over and has no result.
    fn left(&mut self) -> Verdict {
        self.regs.clear_syscall();
        Verdict::Denied(Ok(0))
    }
}

/// A call that filters look at.
struct Call<'a> {
    data: [u32; DATA_WORDS],
    args: &'a [u64; 6],
}

/// `struct seccomp_data`: number, architecture, address behind the call, arguments.
fn words(number: u32, ip: u64, args: &[u64; 6]) -> [u32; DATA_WORDS] {
    let mut words = [0; DATA_WORDS];
    (words[0], words[1]) = (number, AUDIT_ARCH);
    for (pair, value) in words[2..].chunks_exact_mut(2).zip([ip].iter().chain(args)) {
        (pair[0], pair[1]) = (*value as u32, (*value >> 32) as u32);
    }
    words
}

/// What a chain returns: all run, the newest first, and the first of those with the strictest action counts.
fn verdict(filters: &[Arc<Filter>], call: &Call<'_>) -> u32 {
    // As signed numbers actions are in the order of precedence.
    let action = |result: u32| (result & !0xffff) as i32;
    filters.iter().rev().map(|filter| filter.run(call)).fold(action::ALLOW, |strictest, result| {
        if action(result) < action(strictest) { result } else { strictest }
    })
}

#[cfg(test)]
mod tests {
    use super::{Call, Confinement, Filter, Mode, Program, RawInsn, action, verdict, words};
    use std::sync::Arc;

    fn returning(value: u32) -> Arc<Filter> {
        Arc::new(Filter::Program(Program::check(&[RawInsn { code: 6, jt: 0, jf: 0, k: value }]).unwrap()))
    }

    #[test]
    fn the_strictest_action_counts_and_of_equals_the_newest() {
        let of = |values: &[u32]| {
            let call = Call { data: [0; 16], args: &[0; 6] };
            verdict(&values.iter().map(|value| returning(*value)).collect::<Vec<_>>(), &call)
        };
        assert_eq!(of(&[action::ERRNO | 1, action::ALLOW]), action::ERRNO | 1);
        assert_eq!(of(&[action::ERRNO | 1, action::ERRNO | 2]), action::ERRNO | 2);
        assert_eq!(of(&[action::KILL_PROCESS, action::KILL_THREAD]), action::KILL_PROCESS);
        assert_eq!(of(&[action::TRAP, action::KILL_THREAD, action::ERRNO]), action::KILL_THREAD);
        // Above ALLOW nothing counts.
        assert_eq!(of(&[0x7fff_ffff]), action::ALLOW);
    }

    #[test]
    fn data_is_laid_out_as_linux_lays_it_out() {
        let words = words(39, 0x1_0000_0002, &[3, 4, 5, 6, 7, 0x9_0000_0008]);
        assert_eq!((words[0], words[2], words[3]), (39, 2, 1));
        assert_eq!((words[4], words[5], words[14], words[15]), (3, 0, 8, 9));
    }

    #[test]
    fn ancestors_share_filters() {
        let (a, b) = (returning(action::ALLOW), returning(action::ALLOW));
        let chain = |filters: &[&Arc<Filter>]| Confinement {
            mode: Mode::Filter,
            filters: Some(filters.iter().map(|filter| Arc::clone(filter)).collect()),
            no_new_privs: false,
        };
        assert!(Confinement::default().is_ancestor_of(&chain(&[&a])));
        assert!(chain(&[&a]).is_ancestor_of(&chain(&[&a, &b])));
        assert!(!chain(&[&b]).is_ancestor_of(&chain(&[&a, &b])));
        assert!(!chain(&[&a, &b]).is_ancestor_of(&chain(&[&a])));
    }
}
