//! ptrace(2). Tracer and tracee are processes of the same program; what the tracer finds is printed.

mod ends;
mod events;
mod groups;
mod state;

use crate::Case;
use crate::sys::{self, fork, report, show};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

pub(crate) const CASES: &[Case] = &[
    ("ptrace_errors", errors),
    ("ptrace_not_stopped", not_stopped),
    ("ptrace_waits", waits),
    ("ptrace_signals", signals),
    ("ptrace_signals_changed", signals_changed),
    ("ptrace_ignored_signals", ignored_signals),
    ("ptrace_calls", calls),
    ("ptrace_calls_changed", calls_changed),
    ("ptrace_restarted_calls", restarted_calls),
    ("ptrace_told", told),
    ("ptrace_memory", state::memory),
    ("ptrace_memory_of_others", state::memory_of_others),
    ("ptrace_proc_mem", state::proc_mem),
    ("ptrace_breakpoint", state::breakpoint),
    ("ptrace_register_sets", state::register_sets),
    ("ptrace_registers_changed", state::registers_changed),
    ("ptrace_hostile_registers", state::hostile_registers),
    ("ptrace_floating_point", state::floating_point),
    ("ptrace_steps", state::steps),
    ("ptrace_mask", state::mask),
    ("ptrace_fork", events::fork_event),
    ("ptrace_vfork", events::vfork_event),
    ("ptrace_clone", events::clone_event),
    ("ptrace_exec", events::exec_event),
    ("ptrace_exec_by_thread", events::exec_by_thread),
    ("ptrace_exit", events::exit_event),
    ("ptrace_seized_child", events::seized_child),
    ("ptrace_seize", groups::seize),
    ("ptrace_group_stop", groups::group_stop),
    ("ptrace_listen", groups::listen),
    ("ptrace_attach", groups::attach),
    ("ptrace_attach_stopped", groups::attach_stopped),
    ("ptrace_threads", groups::threads),
    ("ptrace_killed", ends::killed),
    ("ptrace_tracer_ends", ends::tracer_ends),
    ("ptrace_exitkill", ends::exitkill),
    ("ptrace_parent_and_tracer", ends::parent_and_tracer),
    ("ptrace_many", ends::many),
    ("ptrace_each_other", ends::each_other),
    ("ptrace_access", ends::access),
    ("ptrace_set_id", ends::set_id),
    ("ptrace_proc", ends::proc),
];

pub(super) const SYSGOOD: i64 = libc::PTRACE_O_TRACESYSGOOD as i64;

/// ptrace(2) as the kernel has it.
pub(super) fn pt(request: u32, pid: i64, addr: i64, data: i64) -> i64 {
    sys!(libc::SYS_ptrace, request, pid, addr, data)
}

pub(super) fn me() -> i64 {
    sys!(libc::SYS_getpid)
}

pub(super) fn kill(pid: i64, signal: i32) -> i64 {
    sys!(libc::SYS_kill, pid, signal)
}

pub(super) fn stop_self() {
    kill(me(), libc::SIGSTOP);
}

/// Waits for a stop or the end of a tracee, and says what it was.
pub(super) fn stop(pid: i64) -> String {
    let (result, status) = sys::wait4(pid, libc::__WALL);
    if result == pid { describe(status) } else { format!("wait4 {}", show(result)) }
}

/// As the kernel's wait statuses, with events.
pub(super) fn describe(status: i32) -> String {
    if !libc::WIFSTOPPED(status) {
        return sys::describe(status);
    }
    let event = match status >> 16 {
        0 => String::new(),
        1 => ", fork".to_owned(),
        2 => ", vfork".to_owned(),
        3 => ", clone".to_owned(),
        4 => ", exec".to_owned(),
        5 => ", vfork done".to_owned(),
        6 => ", exit".to_owned(),
        128 => ", stop".to_owned(),
        other => format!(", event {other}"),
    };
    match status >> 8 & 0xff {
        0x85 => format!("at a call{event}"),
        signal => format!("stopped by {signal}{event}"),
    }
}

/// A child that its parent traces, stopped before `body`.
pub(super) fn tracee(body: impl FnOnce() -> i32) -> i64 {
    let pid = fork(|| {
        pt(libc::PTRACE_TRACEME, 0, 0, 0);
        stop_self();
        body()
    });
    assert_eq!(stop(pid), "stopped by 19");
    pid
}

pub(super) fn options(pid: i64, options: i64) {
    report("options", pt(libc::PTRACE_SETOPTIONS, pid, 0, options));
}

pub(super) fn go(pid: i64) {
    go_with(pid, 0);
}

pub(super) fn go_with(pid: i64, signal: i32) {
    let result = pt(libc::PTRACE_CONT, pid, 0, i64::from(signal));
    if result != 0 {
        report("go on", result);
    }
}

/// Lets it go on and says where it stops next.
pub(super) fn next(pid: i64) -> String {
    go(pid);
    stop(pid)
}

/// To the next beginning or end of a call.
pub(super) fn next_call(pid: i64) -> String {
    report_not_ok("to the call", pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    stop(pid)
}

pub(super) fn report_not_ok(what: &str, result: i64) {
    if result != 0 {
        report(what, result);
    }
}

/// PTRACE_GETSIGINFO: signal, code, and whether its sender is `pid`.
pub(super) fn info(tracee: i64, pid: i64) -> String {
    let mut words = [0_i32; 32];
    let result = pt(libc::PTRACE_GETSIGINFO, tracee, 0, words.as_mut_ptr() as i64);
    if result < 0 {
        return format!("info {}", show(result));
    }
    format!("signal {} code {:#x} own {}", words[0], words[2], i64::from(words[4]) == pid)
}

pub(super) fn message(pid: i64) -> i64 {
    let mut word = -1_i64;
    report_not_ok("message", pt(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut word as i64));
    word
}

fn errors() {
    report("me", pt(libc::PTRACE_ATTACH, me(), 0, 0));
    report("nobody", pt(libc::PTRACE_ATTACH, 99_999, 0, 0));
    report("seize nobody", pt(libc::PTRACE_SEIZE, 99_999, 1, 0));
    report("a stranger", pt(libc::PTRACE_CONT, me(), 0, 0));
    report("none of mine", pt(libc::PTRACE_DETACH, 1, 0, 0));
    let pid = tracee(|| {
        report("twice", pt(libc::PTRACE_TRACEME, 0, 0, 0));
        3
    });
    report("attach again", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    report("seize again", pt(libc::PTRACE_SEIZE, pid, 0, 0));
    report("seize with an address", pt(libc::PTRACE_SEIZE, pid, 1, 0));
    report("seize with unknown options", pt(libc::PTRACE_SEIZE, pid, 0, 1 << 30));
    report("no request", pt(99, pid, 0, 0));
    report("no signal", pt(libc::PTRACE_CONT, pid, 0, 65));
    report("less than none", pt(libc::PTRACE_CONT, pid, 0, -1));
    report("detach with none", pt(libc::PTRACE_DETACH, pid, 0, 1000));
    report("unknown options", pt(libc::PTRACE_SETOPTIONS, pid, 0, 1 << 30));
    report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    report("listen", pt(libc::PTRACE_LISTEN, pid, 0, 0));
    report("message to nowhere", pt(libc::PTRACE_GETEVENTMSG, pid, 0, 0));
    report("info to nowhere", pt(libc::PTRACE_GETSIGINFO, pid, 0, 8));
    report("info from nowhere", pt(libc::PTRACE_SETSIGINFO, pid, 0, 8));
    println!("{}", next(pid));
    report("afterwards", pt(libc::PTRACE_CONT, pid, 0, 0));
}

/// What a tracee that runs, or has ended, is asked.
fn not_stopped() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = tracee(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        0
    });
    go(pid);
    for request in
        [libc::PTRACE_CONT, libc::PTRACE_DETACH, libc::PTRACE_PEEKDATA, libc::PTRACE_SETOPTIONS, 77]
    {
        report("while it runs", pt(request, pid, 0, 0));
    }
    report("another's", pt(libc::PTRACE_CONT, 1, 0, 0));
    sys::close(write_end);
    println!("{}", stop(pid));
    let pid = fork(|| 4);
    let mut words = [0_i32; 32];
    sys!(libc::SYS_waitid, libc::P_PID, pid, words.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT, 0);
    report("a zombie", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    println!("{}", sys::wait(pid));
}

fn waits() {
    let pid = fork(|| {
        pt(libc::PTRACE_TRACEME, 0, 0, 0);
        stop_self();
        kill(me(), libc::SIGUSR1);
        7
    });
    let mut words = [0_i32; 32];
    let flags = libc::WSTOPPED | libc::WEXITED;
    let waitid = |words: &mut [i32; 32], flags: i32| {
        words.fill(0);
        sys!(libc::SYS_waitid, libc::P_PID, pid, words.as_mut_ptr(), flags, 0)
    };
    report("stays", waitid(&mut words, flags | libc::WNOWAIT));
    println!(
        "signal {} code {} status {:#x} own {}",
        words[0],
        words[2],
        words[6],
        i64::from(words[4]) == pid
    );
    report("goes", waitid(&mut words, flags));
    println!("code {} status {:#x}", words[2], words[6]);
    report("nothing more", waitid(&mut words, flags | libc::WNOHANG));
    println!("{}", words[0]);
    report("wait4", sys::wait4(pid, libc::WNOHANG).0);
    go(pid);
    report("exits only", waitid(&mut words, libc::WEXITED | libc::WNOWAIT));
    println!("code {} status {:#x}", words[2], words[6]);
    report("as it was", waitid(&mut words, flags));
    println!("code {} status {:#x}", words[2], words[6]);
    println!("{}", next(pid));
}

/// Delivered, suppressed, replaced, added.
fn signals() {
    let pid = tracee(|| {
        sys::handle(libc::SIGUSR1, count, 0);
        sys::handle(libc::SIGUSR2, count, 0);
        for _ in 0..3 {
            kill(me(), libc::SIGUSR1);
        }
        let seen = SEEN.load(SeqCst);
        kill(me(), libc::SIGTERM);
        println!("seen {seen}");
        5
    });
    println!("{}; {}", next(pid), info(pid, pid));
    go_with(pid, libc::SIGUSR1);
    println!("delivered, then {}", stop(pid));
    go_with(pid, 0);
    println!("suppressed, then {}", stop(pid));
    go_with(pid, libc::SIGUSR2);
    println!("replaced, then {}", stop(pid));
    go_with(pid, 0);
    println!("{}", stop(pid));
    let pid = tracee(|| 5);
    go_with(pid, libc::SIGTERM);
    println!("added: {}", stop(pid));
    let pid = tracee(|| {
        kill(me(), libc::SIGUSR1);
        5
    });
    println!("{}", next(pid));
    go_with(pid, libc::SIGKILL);
    println!("replaced by SIGKILL: {}", stop(pid));
}

/// Signals that were handled, as decimal digits in pairs, the first one leftmost.
static SEEN: AtomicI32 = AtomicI32::new(0);
/// What the last one said.
static SAID: AtomicI32 = AtomicI32::new(0);

pub(super) extern "C" fn count(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.store(SEEN.load(SeqCst) * 100 + signal, SeqCst);
    let (_, code, _, _, value) = sys::info_fields(info);
    SAID.store(code * 1000 + value as i32, SeqCst);
}

/// PTRACE_SETSIGINFO, and what a replaced signal says.
fn signals_changed() {
    let pid = tracee(|| {
        sys::handle(libc::SIGUSR1, count, 0);
        sys::handle(libc::SIGUSR2, count, 0);
        kill(me(), libc::SIGUSR1);
        println!("handler saw {}", SAID.load(SeqCst));
        kill(me(), libc::SIGUSR1);
        println!("handler saw {} of {}", SAID.load(SeqCst) / 1000, SEEN.load(SeqCst));
        5
    });
    println!("{}", next(pid));
    let mut words = [0_i32; 32];
    pt(libc::PTRACE_GETSIGINFO, pid, 0, words.as_mut_ptr() as i64);
    (words[2], words[6]) = (-1, 77);
    report("changed", pt(libc::PTRACE_SETSIGINFO, pid, 0, words.as_ptr() as i64));
    go_with(pid, libc::SIGUSR1);
    println!("{}", stop(pid));
    go_with(pid, libc::SIGUSR2);
    println!("{}", stop(pid));
}

fn ignored_signals() {
    let pid = tracee(|| {
        sys::action(libc::SIGUSR1, libc::SIG_IGN, 0, &[]);
        for signal in [libc::SIGUSR1, libc::SIGCHLD, libc::SIGCONT, libc::SIGWINCH] {
            kill(me(), signal);
        }
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR2]));
        kill(me(), libc::SIGUSR2);
        kill(me(), libc::SIGURG);
        6
    });
    go(pid);
    loop {
        let at = stop(pid);
        println!("{at}");
        let Some(signal) = at.strip_prefix("stopped by ").and_then(|word| word.parse().ok()) else { break };
        go_with(pid, signal);
    }
}

/// What PTRACE_GET_SYSCALL_INFO says: its length, the operation, and what comes with it.
pub(super) fn call_info(pid: i64) -> String {
    let mut words = [0_u64; 11];
    let result = pt(0x420e, pid, 88, words.as_mut_ptr() as i64);
    let rest = match words[0] & 0xff {
        1 => format!("number {} args {:?}", words[3], &words[4..7]),
        2 => format!("result {} error {}", show(words[3] as i64), words[4] & 0xff),
        _ => String::new(),
    };
    format!("{} operation {} {rest}", show(result), words[0] & 0xff)
}

/// Numbers differ between architectures: what is compared is the same one.
fn calls() {
    let pid = tracee(|| {
        sys!(libc::SYS_getppid + 10_000, 1, 2, 3);
        sys!(libc::SYS_close, 12_345, 6, 7);
        sys!(libc::SYS_exit_group, 9);
        0
    });
    println!("not at a call: {}", call_info(pid));
    options(pid, SYSGOOD);
    for _ in 0..5 {
        println!("{}: {} message {}", next_call(pid), call_info(pid), message(pid));
    }
    println!("{}", info(pid, pid));
    let mut byte = [0xaa_u8; 8];
    report("into little room", pt(0x420e, pid, 3, byte.as_mut_ptr() as i64));
    println!("{:?}", &byte[..5]);
    report("nowhere", pt(0x420e, pid, 24, 8));
    println!("{}", next_call(pid));
    let pid = tracee(|| {
        sys!(libc::SYS_getppid);
        0
    });
    println!("without the option: {}, {}", next_call(pid), info(pid, pid));
    println!("{}", next_call(pid));
    kill(pid, libc::SIGKILL);
    println!("{}", stop(pid));
}

/// To the beginning of a call.
pub(super) fn to_call(pid: i64, number: i64) {
    let wanted = format!("operation 1 number {number} ");
    let found = (0..100).any(|_| next_call(pid) == "at a call" && call_info(pid).contains(&wanted));
    assert!(found, "the call is made");
}

/// Another call, other arguments, no call, another result.
fn calls_changed() {
    let pid = tracee(|| {
        sys!(libc::SYS_setpgid, 0, 0);
        report("close, made getpgid", i64::from(sys!(libc::SYS_close, 0) == sys!(libc::SYS_getpgid, 0)));
        report("close of another", sys!(libc::SYS_close, 12_345));
        report("a call that was not made", sys!(libc::SYS_close, 1));
        report("the same with a result", sys!(libc::SYS_close, 1));
        report("a result that was changed", sys!(libc::SYS_close, 12_345));
        report("and to the least, with a signal", sys!(libc::SYS_close, 12_345));
        0
    });
    options(pid, SYSGOOD);
    // The first call of each line is close.
    let to_close = |what: &str| {
        to_call(pid, libc::SYS_close);
        println!("{what}");
    };
    to_close("another call");
    state::set_number(pid, libc::SYS_getpgid);
    to_close("another argument");
    state::set_argument(pid, 1_000_000);
    to_close("none");
    state::set_number(pid, -1);
    to_close("none, and a result");
    state::set_number(pid, -1);
    state::set_result(pid, 42);
    to_close("a result");
    println!("{}", next_call(pid));
    state::set_result(pid, 17);
    to_close("the least, with a signal");
    println!("{}", next_call(pid));
    state::set_result(pid, i64::MIN as u64);
    kill(pid, libc::SIGCHLD);
    println!("{}", next(pid));
    println!("{}", next(pid));
}

/// A signal that its tracer keeps leaves a call as it was.
fn restarted_calls() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = tracee(|| {
        sys::handle(libc::SIGUSR1, count, libc::SA_RESTART);
        sys::handle(libc::SIGUSR2, count, 0);
        sys::close(write_end);
        report("read", sys::read(read_end, 1).0);
        report("read", sys::read(read_end, 1).0);
        let nap = [0_i64, 30_000_000];
        report("sleep", sys!(libc::SYS_nanosleep, nap.as_ptr(), 0));
        println!("handled {}", SEEN.load(SeqCst));
        0
    });
    go(pid);
    let signal = |signal, given| {
        sys::until_asleep(pid, pid);
        kill(pid, signal);
        println!("{}", stop(pid));
        go_with(pid, given);
    };
    signal(libc::SIGUSR1, 0);
    signal(libc::SIGUSR2, 0);
    signal(libc::SIGUSR1, libc::SIGUSR1);
    sys::until_asleep(pid, pid);
    sys::write(write_end, b"xy");
    signal(libc::SIGUSR1, 0);
    println!("{}", stop(pid));
}

/// SIGCHLD to the tracer.
fn told() {
    sys::handle(libc::SIGCHLD, tell, libc::SA_RESTART);
    let pid = tracee(|| {
        kill(me(), libc::SIGUSR1);
        0
    });
    println!("{:x}", TOLD.swap(0, SeqCst));
    println!("{}: {:x}", next(pid), TOLD.swap(0, SeqCst));
    println!("{}: {:x}", next(pid), TOLD.swap(0, SeqCst));
    sys::handle(libc::SIGCHLD, tell, libc::SA_RESTART | libc::SA_NOCLDSTOP);
    let pid = tracee(|| 0);
    println!("no stops: {:x}", TOLD.swap(0, SeqCst));
    println!("{}: {:x}", next(pid), TOLD.swap(0, SeqCst));
    sys::action(libc::SIGCHLD, libc::SIG_IGN, 0, &[]);
    let pid = tracee(|| 0);
    println!("ignored: {}", next(pid));
}

/// Codes and statuses of signals about children, two digits each.
static TOLD: AtomicI32 = AtomicI32::new(0);

extern "C" fn tell(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let (_, code, _, _, status) = sys::info_fields(info);
    TOLD.store(TOLD.load(SeqCst) << 16 | code << 8 | (status as i32 & 0xff), SeqCst);
}
