//! Filters that programs put over their own system calls.

use crate::Case;
use crate::process::{SELF, execute};
use crate::sys::{self, handle, in_child, report, show};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::SeqCst};

mod programs;
mod threads;

pub(crate) const CASES: &[Case] = &[
    ("seccomp_errno", errno),
    ("seccomp_data", data),
    ("seccomp_trap", trap),
    ("seccomp_kill", kill),
    ("seccomp_kill_in_threads", threads::kill),
    ("seccomp_strict", strict),
    ("seccomp_precedence", precedence),
    ("seccomp_errors", errors),
    ("seccomp_rights", rights),
    ("seccomp_inherited", inherited),
    ("seccomp_threads_apart", threads::apart),
    ("seccomp_tsync", threads::synchronized),
    ("seccomp_chain_limit", programs::chain_limit),
    ("seccomp_bad_programs", programs::bad),
    ("seccomp_arithmetic", programs::arithmetic),
    ("seccomp_random_programs", programs::random),
];

const SET_MODE_STRICT: i64 = 0;
const SET_MODE_FILTER: i64 = 1;
const GET_ACTION_AVAIL: i64 = 2;
const GET_NOTIF_SIZES: i64 = 3;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// `struct sock_filter`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Fprog {
    len: u16,
    filter: *const Insn,
}

const fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

/// A = the word at this offset of `struct seccomp_data`.
const fn load(offset: u32) -> Insn {
    insn(0x20, 0, 0, offset)
}

/// Goes on if A is `value`, else leaves out `jf` instructions.
const fn expect(value: u32, jf: u8) -> Insn {
    insn(0x15, 0, jf, value)
}

const fn ret(value: u32) -> Insn {
    insn(0x06, 0, 0, value)
}

/// One call gives `result`, all others are allowed.
fn only(call: i64, result: u32) -> [Insn; 4] {
    [load(0), expect(call as u32, 1), ret(result), ret(ALLOW)]
}

fn install_with(flags: i64, program: &[Insn]) -> i64 {
    let program = Fprog { len: program.len() as u16, filter: program.as_ptr() };
    sys!(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program)
}

fn install(program: &[Insn]) {
    let result = install_with(0, program);
    if result != 0 {
        report("seccomp", result);
    }
}

/// A child with this filter; `body`'s value is its status.
fn filtered(what: &str, program: &[Insn], body: impl FnOnce() -> i32) {
    in_child(what, || {
        install(program);
        body()
    });
}

fn errno() {
    for value in [0, 1, 38, 512, 4095, 4096, 0xffff] {
        in_child(&format!("errno {value}"), || {
            install(&only(libc::SYS_getppid, ERRNO | value));
            report("getppid", sys!(libc::SYS_getppid));
            report_mode();
            0
        });
    }
    filtered("TRACE without a tracer", &only(libc::SYS_getppid, TRACE | 7), || {
        report("getppid", sys!(libc::SYS_getppid));
        0
    });
    filtered("LOG", &only(libc::SYS_getppid, LOG), || i32::from(sys!(libc::SYS_getppid) > 0));
    // By prctl, and for a call that nobody has.
    in_child("prctl", || {
        let program = only(100_000, ERRNO | 5);
        let program = Fprog { len: 4, filter: program.as_ptr() };
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_SECCOMP, 2, &raw const program));
        report("none", sys!(100_000));
        report("another", sys!(100_001));
        report("negative", sys!(-1));
        report_mode();
        0
    });
    filtered("a call of number -1", &only(-1, ERRNO | 9), || {
        report("negative", sys!(-1));
        0
    });
    in_child("upper half of the number", || {
        report_ok_if("without a filter", sys!(libc::SYS_getppid | 1 << 32) == sys!(libc::SYS_getppid));
        install(&only(libc::SYS_getppid, ERRNO | 3));
        report("with one", sys!(libc::SYS_getppid | 1 << 32));
        0
    });
}

fn report_mode() {
    report("mode", sys!(libc::SYS_prctl, libc::PR_GET_SECCOMP));
}

fn report_ok_if(what: &str, holds: bool) {
    println!("{what}: {holds}");
}

/// Every word of the data, as a filter sees it: each is compared with what it should be.
fn data() {
    let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let args: [u64; 6] = std::array::from_fn(|n| 0x1111_1111_0000_0000 * (n as u64 + 1) + 7 + n as u64);
    let call = libc::SYS_getppid;
    let mut words = vec![(0, call as u32), (4, arch)];
    for (n, arg) in args.iter().enumerate() {
        words.push((16 + 8 * n as u32, *arg as u32));
        words.push((20 + 8 * n as u32, (*arg >> 32) as u32));
    }
    for (offset, value) in words {
        let program =
            [load(0), expect(call as u32, 3), load(offset), expect(value, 1), ret(ERRNO | 1), ret(ALLOW)];
        filtered(&format!("word {offset}"), &program, || {
            let result = sys!(call, args[0], args[1], args[2], args[3], args[4], args[5]);
            i32::from(result == -1)
        });
    }
    // The length of the data is what BPF_LEN gives.
    let program =
        [load(0), expect(call as u32, 3), insn(0x80, 0, 0, 0), expect(64, 1), ret(ERRNO | 2), ret(ALLOW)];
    filtered("length", &program, || i32::from(sys!(call) == -2));
    // The address is the one behind the instruction: SIGSYS says the same, see `trap`.
    let program = [load(0), expect(call as u32, 3), load(8), expect(0, 1), ret(ERRNO | 2), ret(ALLOW)];
    filtered("an address", &program, || i32::from(sys!(call) == -2));
}

static SEEN: AtomicI32 = AtomicI32::new(0);
static ANSWER: AtomicI64 = AtomicI64::new(0);

/// Tells what SIGSYS brought, and answers the call.
extern "C" fn emulate(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (signo, code, ..) = sys::info_fields(info);
    let errno: i32 = sys::load(info as i64 + 4);
    let number: i32 = sys::load(info as i64 + 24);
    let arch: u32 = sys::load(info as i64 + 28);
    let (ip, result) = registers(context);
    let here = sys::info_address(info) == sys::load::<i64>(ip);
    println!(
        "  {signal} {signo} code {code} errno {errno} number {number} arch {arch:#x} behind it {here} result {}",
        sys::load::<i64>(result)
    );
    SEEN.fetch_add(1, SeqCst);
    sys::store(result, ANSWER.load(SeqCst));
}

/// Where a context keeps the instruction pointer and a call's result.
fn registers(context: *mut libc::c_void) -> (i64, i64) {
    let context = context as i64;
    if cfg!(target_arch = "x86_64") {
        // uc_mcontext.gregs: RAX is 13, RIP 16.
        (context + 40 + 16 * 8, context + 40 + 13 * 8)
    } else {
        // uc_mcontext: the fault address, x0 to x30, sp, pc.
        (context + 176 + 8 + 32 * 8, context + 176 + 8)
    }
}

fn trap() {
    let program = only(libc::SYS_getppid, TRAP | 0x1234);
    filtered("with a handler", &program, || {
        handle(libc::SIGSYS, emulate, 0);
        for answer in [-7, 0, 123_456] {
            ANSWER.store(answer, SeqCst);
            // The first argument is where arm64 has the result.
            report("getppid", sys!(libc::SYS_getppid, 77));
        }
        SEEN.load(SeqCst)
    });
    filtered("in the middle of others", &program, || {
        handle(libc::SIGSYS, emulate, 0);
        ANSWER.store(9, SeqCst);
        let sum: i64 =
            (0..5).map(|_| sys!(libc::SYS_getppid, 1) + i64::from(sys!(libc::SYS_getpid) > 0)).sum();
        sum as i32
    });
    filtered("without a handler", &program, || {
        sys!(libc::SYS_getppid);
        1
    });
    filtered("ignored", &program, || {
        sys::action(libc::SIGSYS, libc::SIG_IGN, 0, &[]);
        sys!(libc::SYS_getppid);
        1
    });
    filtered("blocked", &program, || {
        handle(libc::SIGSYS, emulate, 0);
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGSYS]));
        sys!(libc::SYS_getppid);
        1
    });
    // The handler's way back is a call, too.
    filtered("no way back", &only(libc::SYS_rt_sigreturn, ERRNO | 1), || {
        extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        handle(libc::SIGUSR1, nothing, 0);
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP] {
            handle(signal, leave, 0);
        }
        sys!(libc::SYS_tkill, sys!(libc::SYS_gettid), libc::SIGUSR1);
        1
    });
}

/// What comes of a return that is none depends on what lies behind it: it ends here.
extern "C" fn leave(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    sys::exit(43);
}

fn kill() {
    for (what, action) in [
        ("KILL_PROCESS", KILL_PROCESS),
        ("KILL_THREAD", KILL_THREAD),
        ("an action that is none", 0x0010_0000),
        ("another", 0xffff_0000),
    ] {
        filtered(what, &only(libc::SYS_getppid, action | 5), || {
            sys!(libc::SYS_getppid);
            1
        });
        filtered("the same with a handler", &only(libc::SYS_getppid, action), || {
            handle(libc::SIGSYS, emulate, 0);
            sys!(libc::SYS_getppid);
            1
        });
    }
    filtered("at exit", &only(libc::SYS_exit_group, ERRNO | 1), || {
        report("exit_group", sys!(libc::SYS_exit_group, 3));
        sys::flush();
        sys!(libc::SYS_exit, 4);
        1
    });
}

fn strict() {
    in_child("what is allowed", || {
        let (reading, writing) = sys::pipe(0);
        report("seccomp", sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0));
        sys::write(writing, b"abc");
        let (count, _) = sys::read(reading, 3);
        sys!(libc::SYS_exit, count);
        1
    });
    in_child("what is not", || {
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_SECCOMP, 1, 99));
        sys::flush();
        sys!(libc::SYS_getppid);
        1
    });
    in_child("the end of a process is not", || {
        sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0);
        sys!(libc::SYS_exit_group, 0);
        1
    });
    in_child("in a thread", || {
        threads::beside(|| {
            sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0);
            sys!(libc::SYS_getppid);
        });
        report_mode();
        6
    });
    in_child("after a filter", || {
        install(&[ret(ALLOW)]);
        report("strict", sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0));
        report_mode();
        0
    });
    in_child("a handler returns", || {
        handle(libc::SIGALRM, emulate_nothing, 0);
        sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64, 0, 0, 20_000].as_ptr(), 0);
        sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0);
        while SEEN.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        sys!(libc::SYS_exit, 5);
        1
    });
}

extern "C" fn emulate_nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.fetch_add(1, SeqCst);
}

fn precedence() {
    let results =
        [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO | 1, ERRNO | 2, TRACE, LOG, ALLOW, 0x7fff_0001, 0x7fff_ffff];
    for first in results {
        for second in results {
            in_child(&format!("{first:#x} then {second:#x}"), || {
                install(&only(libc::SYS_getppid, first));
                install(&only(libc::SYS_getppid, second));
                match sys!(libc::SYS_getppid) {
                    pid if pid > 0 => 100,
                    errno => -errno as i32,
                }
            });
        }
    }
    in_child("of three the oldest", || {
        install(&only(libc::SYS_getppid, ERRNO | 11));
        install(&only(libc::SYS_getpgid, ERRNO | 12));
        install(&[ret(ALLOW)]);
        report("getppid", sys!(libc::SYS_getppid));
        report("getpgid", sys!(libc::SYS_getpgid, 0));
        0
    });
}

fn errors() {
    let call =
        |operation: i64, flags: i64, address: i64| show(sys!(libc::SYS_seccomp, operation, flags, address));
    let allow = [ret(ALLOW)];
    let program = |len: u16| Fprog { len, filter: allow.as_ptr() };
    let at = |program: &Fprog| std::ptr::from_ref(program) as i64;
    println!("no such operation {} {}", call(4, 0, 0), call(-1, 0, 0));
    println!(
        "strict with flags {} with an address {}",
        call(SET_MODE_STRICT, 1, 0),
        call(SET_MODE_STRICT, 0, 8)
    );
    println!("no program {} at a bad address {}", call(SET_MODE_FILTER, 0, 0), call(SET_MODE_FILTER, 0, 8));
    println!("no instructions {}", call(SET_MODE_FILTER, 0, at(&program(0))));
    println!("too many {}", call(SET_MODE_FILTER, 0, at(&program(4097))));
    let null = Fprog { len: 1, filter: std::ptr::null() };
    let bad = Fprog { len: 1, filter: 8 as *const Insn };
    println!(
        "at null {} at a bad address {}",
        call(SET_MODE_FILTER, 0, at(&null)),
        call(SET_MODE_FILTER, 0, at(&bad))
    );
    for flag in [6, 7, 31] {
        println!("flag {flag} {}", call(SET_MODE_FILTER, 1 << flag, at(&program(1))));
    }
    for action in [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, LOG, ALLOW, 0x1_0000, ERRNO | 1, u32::MAX] {
        println!("{action:#x} {}", call(GET_ACTION_AVAIL, 0, &raw const action as i64));
    }
    println!(
        "flags {} null {}",
        call(GET_ACTION_AVAIL, 1, &raw const allow as i64),
        call(GET_ACTION_AVAIL, 0, 0)
    );
    let mut sizes = [0_u16; 3];
    println!("sizes {} {sizes:?}", call(GET_NOTIF_SIZES, 0, sizes.as_mut_ptr() as i64));
    println!("{sizes:?} null {} flags {}", call(GET_NOTIF_SIZES, 0, 0), call(GET_NOTIF_SIZES, 1, 8));
    let prctl = |mode: i64, address: i64| show(sys!(libc::SYS_prctl, libc::PR_SET_SECCOMP, mode, address));
    println!("prctl {} {} {}", prctl(0, 0), prctl(3, 0), prctl(2, 0));
    for flags in [2, 4, 6, 1, 17, 16] {
        in_child(&format!("flags {flags}"), || {
            report("seccomp", install_with(flags, &allow));
            report_mode();
            0
        });
    }
}

fn rights() {
    in_child("without privileges", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("filter", install_with(0, &[ret(ALLOW)]));
        report("a bad filter", install_with(0, &[]));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 1));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        report("filter", install_with(0, &[ret(ALLOW)]));
        report("filter", install_with(0, &[ret(ALLOW)]));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        0
    });
    in_child("strict mode needs none", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("strict", sys!(libc::SYS_seccomp, SET_MODE_STRICT, 0, 0));
        sys::flush();
        sys!(libc::SYS_exit, 0);
        1
    });
    sys::scratch("seccomp");
    let own = sys::c("program");
    std::fs::copy(SELF, "program").expect("a copy");
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, own.as_ptr(), 0o4755);
    for locked in [0, 1] {
        in_child("a program of root's", || {
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, locked, 0, 0, 0);
            execute("./program", &["x", "--child", "ids"], &[]) as i32
        });
    }
    sys::unscratch();
}

fn inherited() {
    let show_both = || {
        report("getppid", sys!(libc::SYS_getppid));
        print!("{}", confinement());
    };
    print!("{}", confinement());
    in_child("filters", || {
        install(&only(libc::SYS_getppid, ERRNO | 21));
        install(&only(libc::SYS_getpgid, ERRNO | 22));
        show_both();
        in_child("fork", || {
            show_both();
            install(&only(libc::SYS_getsid, ERRNO | 23));
            show_both();
            0
        });
        show_both();
        std::thread::spawn(show_both).join().expect("a thread");
        in_child("exec", || execute(SELF, &["x", "--child", "confinement"], &[]) as i32);
        0
    });
    in_child("no_new_privs", || {
        sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        std::thread::spawn(|| print!("{}", confinement())).join().expect("a thread");
        in_child("exec", || execute(SELF, &["x", "--child", "confinement"], &[]) as i32);
        0
    });
    in_child("exec is a call", || {
        install(&only(libc::SYS_execve, ERRNO | 13));
        report("execve", execute(SELF, &["x", "--child", "exit", "3"], &[]));
        0
    });
}

/// The lines of /proc/self/status about it.
pub(crate) fn confinement() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let ours = |line: &&str| line.starts_with("Seccomp") || line.starts_with("NoNewPrivs");
    status.lines().filter(ours).map(|line| format!("  {line}\n")).collect()
}
