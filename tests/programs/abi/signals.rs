//! Signals: what handlers are told, masks, queues, restarts, alternate stacks.

use crate::Case;
use crate::sys::{self, action, fork, handle, in_child, mask, members, report, set_of, show, wait};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering::SeqCst};

pub(crate) const CASES: &[Case] = &[
    ("signal_info", info),
    ("signal_child_info", child_info),
    ("signal_mask_pending", mask_pending),
    ("signal_handler_mask", handler_mask),
    ("signal_flags", flags),
    ("signal_queue_order", queue_order),
    ("signal_suspend", suspend),
    ("signal_timedwait", timedwait),
    ("signal_restart", restart),
    ("signal_altstack", altstack),
    ("signal_registers_survive", registers_survive),
    ("signal_ignore_child", ignore_child),
    ("signal_pipe", pipe),
    ("signal_alarm", alarm),
    ("signal_action_errors", action_errors),
    ("signal_thread_directed", thread_directed),
    ("signal_nested", nested),
    ("signal_fp_survives", fp_survives),
    ("signal_sets_in_proc", sets_in_proc),
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static SIGNO: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static SENDER: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicI64 = AtomicI64::new(0);
static STATUS: AtomicI64 = AtomicI64::new(0);
static MASK_SEEN: AtomicU64 = AtomicU64::new(0);
/// A byte in memory that children share, which the handler sets; 0 if there is none.
static SHARED: AtomicI64 = AtomicI64::new(0);

extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let (signo, code, pid, word, value) = sys::info_fields(info);
    SIGNO.store(signo, SeqCst);
    CODE.store(code, SeqCst);
    SENDER.store(pid, SeqCst);
    STATUS.store(i64::from(word), SeqCst);
    VALUE.store(value, SeqCst);
    MASK_SEEN.store(mask(libc::SIG_BLOCK, 0), SeqCst);
    COUNT.fetch_add(if signal == signo { 1 } else { 1000 }, SeqCst);
    match SHARED.load(SeqCst) {
        0 => {}
        at => sys::poke(at, 1),
    }
}

fn taken() -> i32 {
    COUNT.swap(0, SeqCst)
}

fn me() -> i64 {
    sys!(libc::SYS_getpid)
}

fn raise(signal: i32) -> i64 {
    sys!(libc::SYS_tgkill, me(), sys!(libc::SYS_gettid), signal)
}

fn info() {
    handle(libc::SIGUSR1, note, 0);
    let show_info = |how: &str| {
        let sender = i64::from(SENDER.load(SeqCst)) == me();
        let (signo, code) = (SIGNO.load(SeqCst), CODE.load(SeqCst));
        println!("{how}: {} times, signo {signo} code {code} from us {sender}", taken());
    };
    sys!(libc::SYS_kill, me(), libc::SIGUSR1);
    show_info("kill");
    sys!(libc::SYS_tkill, me(), libc::SIGUSR1);
    show_info("tkill");
    raise(libc::SIGUSR1);
    show_info("tgkill");
    let mut queued = [0_u32; 32];
    queued[0] = libc::SIGUSR1 as u32;
    queued[2] = -1_i32 as u32;
    queued[4] = me() as u32;
    queued[6] = 0xbeef;
    report("sigqueue", sys!(libc::SYS_rt_sigqueueinfo, me(), libc::SIGUSR1, queued.as_ptr()));
    println!("value {:#x}", VALUE.load(SeqCst) as u32);
    show_info("sigqueue");
    let own_uid = sys!(libc::SYS_getuid);
    sys!(libc::SYS_kill, me(), libc::SIGUSR1);
    println!("uid: {}", STATUS.load(SeqCst) == own_uid);
    taken();
}

fn child_info() {
    handle(libc::SIGCHLD, note, 0);
    let pid = fork(|| 9);
    println!("{}", wait(pid));
    println!("{} code {} status {}", taken(), CODE.load(SeqCst), VALUE.load(SeqCst) as i32);
    println!("from the child: {}", i64::from(SENDER.load(SeqCst)) == pid);
    let pid = fork(|| {
        raise(libc::SIGKILL);
        0
    });
    println!("{}", wait(pid));
    println!("{} code {} status {}", taken(), CODE.load(SeqCst), VALUE.load(SeqCst) as i32);
    let pid = fork(|| {
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    });
    for signal in [libc::SIGSTOP, libc::SIGCONT] {
        sys!(libc::SYS_kill, pid, signal);
        // Before the status is taken: Linux reads the signal's from where wait4 clears it.
        while COUNT.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        sys::wait4(pid, libc::WUNTRACED | libc::WCONTINUED);
        println!("{} code {} status {}", taken(), CODE.load(SeqCst), VALUE.load(SeqCst) as i32);
    }
    action(libc::SIGCHLD, note as *const () as usize, libc::SA_NOCLDSTOP, &[]);
    sys!(libc::SYS_kill, pid, libc::SIGSTOP);
    sys::wait4(pid, libc::WUNTRACED);
    println!("NOCLDSTOP: {}", taken());
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("{} {}", wait(pid), taken());
}

fn pending() -> Vec<u32> {
    let mut set = 0_u64;
    sys!(libc::SYS_rt_sigpending, &raw mut set, 8);
    members(set)
}

fn mask_pending() {
    handle(libc::SIGUSR1, note, 0);
    handle(libc::SIGUSR2, note, 0);
    mask(libc::SIG_BLOCK, set_of(&[libc::SIGUSR1, libc::SIGUSR2]));
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR2);
    println!("pending {:?}, taken {}", pending(), taken());
    mask(libc::SIG_UNBLOCK, set_of(&[libc::SIGUSR1]));
    println!("pending {:?}, taken {}", pending(), taken());
    println!("blocked {:?}", members(mask(libc::SIG_SETMASK, 0)));
    println!("pending {:?}, taken {}", pending(), taken());
    mask(libc::SIG_SETMASK, !0);
    println!("cannot be blocked: {:?}", members(!mask(libc::SIG_SETMASK, 0)));
    mask(libc::SIG_BLOCK, set_of(&[libc::SIGUSR1]));
    raise(libc::SIGUSR1);
    in_child("not inherited", || pending().len() as i32);
    action(libc::SIGUSR1, libc::SIG_IGN, 0, &[]);
    println!("ignoring drops it: {:?}", pending());
    mask(libc::SIG_SETMASK, 0);
}

fn handler_mask() {
    action(libc::SIGUSR1, note as *const () as usize, 0, &[libc::SIGINT, libc::SIGTERM]);
    raise(libc::SIGUSR1);
    println!("in the handler: {:?}", members(MASK_SEEN.load(SeqCst)));
    println!("after it: {:?}", members(mask(libc::SIG_BLOCK, 0)));
    handle(libc::SIGUSR1, note, libc::SA_NODEFER);
    raise(libc::SIGUSR1);
    println!("NODEFER: {:?}", members(MASK_SEEN.load(SeqCst)));
    taken();
}

fn flags() {
    handle(libc::SIGUSR1, note, libc::SA_RESETHAND);
    raise(libc::SIGUSR1);
    println!("{} then {}", taken(), crate::child::disposition(libc::SIGUSR1));
    in_child("again", || {
        raise(libc::SIGUSR1);
        0
    });
    handle(libc::SIGUSR1, note, 0);
    println!("{}", crate::child::disposition(libc::SIGUSR1));
    in_child("inherited", || {
        raise(libc::SIGUSR1);
        taken()
    });
}

fn queue_order() {
    static ORDER: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];
    extern "C" fn order(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let at = COUNT.fetch_add(1, SeqCst) as usize;
        ORDER[at].store(signal * 1000 + sys::info_fields(info).4 as i32, SeqCst);
    }
    let all = [34, 35, 40, libc::SIGUSR1, libc::SIGTERM];
    for signal in all {
        action(signal, order as *const () as usize, 0, &all);
    }
    mask(libc::SIG_BLOCK, set_of(&all));
    let queue = |signal: i32, value: u32| {
        let mut queued = [0_u32; 32];
        queued[0] = signal as u32;
        queued[2] = -1_i32 as u32;
        queued[6] = value;
        sys!(libc::SYS_rt_sigqueueinfo, me(), signal, queued.as_ptr());
    };
    for (signal, value) in
        [(40, 1), (34, 2), (35, 3), (34, 4), (libc::SIGTERM, 5), (libc::SIGUSR1, 6), (34, 7)]
    {
        queue(signal, value);
    }
    mask(libc::SIG_SETMASK, 0);
    let count = taken() as usize;
    let seen: Vec<i32> = ORDER[..count].iter().map(|o| o.load(SeqCst)).collect();
    // With every one of them blocked in the handlers they nest nowhere: delivery order is queue order by number.
    println!("{seen:?}");
}

fn suspend() {
    handle(libc::SIGUSR1, note, 0);
    handle(libc::SIGUSR2, note, 0);
    mask(libc::SIG_BLOCK, set_of(&[libc::SIGUSR1, libc::SIGUSR2]));
    let parent = me();
    let pid = fork(|| {
        sys!(libc::SYS_kill, parent, libc::SIGUSR2);
        sys!(libc::SYS_kill, parent, libc::SIGUSR1);
        0
    });
    let only = !set_of(&[libc::SIGUSR1]);
    report("sigsuspend", sys!(libc::SYS_rt_sigsuspend, &raw const only, 8));
    println!("signo {} times {}", SIGNO.load(SeqCst), taken());
    println!("blocked {:?} pending {:?}", members(mask(libc::SIG_BLOCK, 0)), pending());
    println!("{}", wait(pid));
    mask(libc::SIG_SETMASK, 0);
    println!("then {}", taken());
}

fn timedwait() {
    let set = set_of(&[libc::SIGUSR1, 40]);
    mask(libc::SIG_BLOCK, set);
    let wait_for = |nanoseconds: i64| {
        let time = [0_i64, nanoseconds];
        let mut info = [0_i32; 32];
        let result = sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), time.as_ptr(), 8);
        format!("{} signo {} code {}", show(result), info[0], info[2])
    };
    println!("none: {}", wait_for(0));
    println!("none in time: {}", wait_for(2_000_000));
    raise(40);
    sys!(libc::SYS_kill, me(), libc::SIGUSR1);
    println!("{}", wait_for(0));
    println!("{}", wait_for(0));
    println!("{}", wait_for(0));
    let bad = [0_i64, 2_000_000_000];
    report("bad time", sys!(libc::SYS_rt_sigtimedwait, &raw const set, 0, bad.as_ptr(), 8));
    report("bad size", sys!(libc::SYS_rt_sigtimedwait, &raw const set, 0, 0, 4));
    mask(libc::SIG_SETMASK, 0);
}

/// Interrupts a call that blocks: a child sends SIGUSR1, and lets it go on if it blocks again.
fn interrupted(what: &str, flag: i32, call: impl FnOnce(i64) -> i64) {
    handle(libc::SIGUSR1, note, flag);
    let (read_end, write_end) = sys::pipe(0);
    let handled = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    SHARED.store(handled, SeqCst);
    let parent = me();
    let pid = fork(|| {
        sys::until_asleep(parent, parent);
        sys!(libc::SYS_kill, parent, libc::SIGUSR1);
        while sys::peek(handled) == 0 {
            std::thread::yield_now();
        }
        // In the call again, or waiting for this child.
        sys::until_asleep(parent, parent);
        sys::write(write_end, b"x");
        0
    });
    let result = call(read_end);
    SHARED.store(0, SeqCst);
    println!("{what}: {} taken {}", show(result), taken());
    wait(pid);
    sys::close(read_end);
    sys::close(write_end);
}

fn restart() {
    let read_one = |fd| sys::read(fd, 1).0;
    interrupted("read", 0, read_one);
    interrupted("read, SA_RESTART", libc::SA_RESTART, read_one);
    let wait_in = |fd: i64| {
        let fds = [fd as u32, u32::from(libc::POLLIN as u16)];
        sys!(libc::SYS_ppoll, fds.as_ptr(), 1, 0, 0, 8)
    };
    interrupted("poll", 0, wait_in);
    interrupted("poll, SA_RESTART", libc::SA_RESTART, wait_in);
    let sleep = |_| {
        let time = [1000_i64, 0];
        let mut left = [0_i64; 2];
        let result = sys!(libc::SYS_nanosleep, time.as_ptr(), left.as_mut_ptr());
        println!("left: {}", (800..1000).contains(&left[0]));
        result
    };
    interrupted("nanosleep", 0, sleep);
    interrupted("nanosleep, SA_RESTART", libc::SA_RESTART, sleep);
    let futex = |_| {
        let word = 0_u32;
        let time = [1000_i64, 0];
        sys!(libc::SYS_futex, &raw const word, libc::FUTEX_WAIT, 0, time.as_ptr(), 0, 0)
    };
    interrupted("futex with a timeout", 0, futex);
    interrupted("futex with a timeout, SA_RESTART", libc::SA_RESTART, futex);
    let wait_child = |fd| {
        let pid = fork(|| i32::from(sys::read(fd, 1).0 != 1));
        let (result, _) = sys::wait4(pid, 0);
        if result == pid { 1 } else { sys::wait4(pid, 0).0.min(0) + result }
    };
    interrupted("wait4, SA_RESTART", libc::SA_RESTART, wait_child);
    // A signal that is ignored, or whose default is to do nothing, interrupts nothing.
    action(libc::SIGUSR1, libc::SIG_IGN, 0, &[]);
    let (read_end, write_end) = sys::pipe(0);
    let parent = me();
    let pid = fork(|| {
        sys!(libc::SYS_kill, parent, libc::SIGUSR1);
        sys!(libc::SYS_kill, parent, libc::SIGWINCH);
        sys::write(write_end, b"y");
        0
    });
    sys::report_read("ignored", read_end, 1);
    wait(pid);
}

fn altstack() {
    static ON: AtomicI64 = AtomicI64::new(0);
    extern "C" fn where_am_i(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let here = 0_u8;
        ON.store(&raw const here as i64, SeqCst);
        let mut current = [0_u64; 3];
        sys!(libc::SYS_sigaltstack, 0, current.as_mut_ptr());
        STATUS.store(current[1] as i32 as i64, SeqCst);
        let other = [0_u64, 2, 0];
        VALUE.store(sys!(libc::SYS_sigaltstack, other.as_ptr(), 0), SeqCst);
    }
    let size = 64 << 10;
    let stack = sys::memory(size);
    let within = || (stack..stack + size as i64).contains(&ON.load(SeqCst));
    let new = [stack as u64, 0, size as u64];
    report("sigaltstack", sys!(libc::SYS_sigaltstack, new.as_ptr(), 0));
    handle(libc::SIGUSR1, where_am_i, 0);
    raise(libc::SIGUSR1);
    println!("without ONSTACK: {} flags {}", within(), STATUS.load(SeqCst));
    report("change off it", VALUE.load(SeqCst));
    report("sigaltstack", sys!(libc::SYS_sigaltstack, new.as_ptr(), 0));
    handle(libc::SIGUSR1, where_am_i, libc::SA_ONSTACK);
    raise(libc::SIGUSR1);
    println!("with ONSTACK: {} flags {}", within(), STATUS.load(SeqCst));
    report("change on it", VALUE.load(SeqCst));
    let tiny = [stack as u64, 0, 100];
    report("too small", sys!(libc::SYS_sigaltstack, tiny.as_ptr(), 0));
    let mut old = [0_u64; 3];
    sys!(libc::SYS_sigaltstack, 0, old.as_mut_ptr());
    println!("still ours: {}", old[0] as i64 == stack && old[2] as usize == size);
    in_child("stack overflow is handled", || {
        extern "C" fn leave(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            sys::exit(44);
        }
        #[expect(unconditional_recursion, reason = "the stack is to overflow")]
        fn overflow(depth: u64) -> u64 {
            let room = std::hint::black_box([depth; 512]);
            overflow(depth + 1) + room[0]
        }
        handle(libc::SIGSEGV, leave, libc::SA_ONSTACK);
        overflow(0) as i32
    });
}

fn registers_survive() {
    // A handler runs between two instructions of this loop, many times; no more often than is asked for, or a slow machine
    // would do nothing else.
    extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        if COUNT.fetch_add(1, SeqCst) == 20 {
            let off = [0_i64; 4];
            sys!(libc::SYS_setitimer, libc::ITIMER_REAL, off.as_ptr(), 0);
        }
    }
    handle(libc::SIGALRM, count, libc::SA_RESTART);
    let interval = [0_i64, 500, 0, 500];
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, interval.as_ptr(), 0);
    let mut good = true;
    loop {
        let mut sum = 0_u64;
        let mut real = 0.0_f64;
        for step in 0..10_000_u64 {
            sum = sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            real += step as f64;
        }
        good &= sum == 0 || real == 49_995_000.0;
        if COUNT.load(SeqCst) >= 20 {
            break;
        }
    }
    let off = [0_i64; 4];
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, off.as_ptr(), 0);
    println!("computed right: {}", good);
    taken();
}

fn ignore_child() {
    action(libc::SIGCHLD, libc::SIG_IGN, 0, &[]);
    let pid = fork(|| 3);
    report("wait for an ignored child", sys::wait4(pid, 0).0);
    action(libc::SIGCHLD, libc::SIG_DFL, 0, &[]);
    let pid = fork(|| 3);
    println!("{}", wait(pid));
    handle(libc::SIGCHLD, note, libc::SA_NOCLDWAIT);
    let pid = fork(|| 3);
    report("NOCLDWAIT", sys::wait4(pid, 0).0);
    taken();
}

fn pipe() {
    in_child("default", || {
        action(libc::SIGPIPE, libc::SIG_DFL, 0, &[]);
        let (read_end, write_end) = sys::pipe(0);
        sys::close(read_end);
        sys::write(write_end, b"x");
        0
    });
    handle(libc::SIGPIPE, note, 0);
    let (read_end, write_end) = sys::pipe(0);
    sys::close(read_end);
    report("write", sys::write(write_end, b"x"));
    println!("taken {} code {}", taken(), CODE.load(SeqCst));
}

fn alarm() {
    handle(libc::SIGALRM, note, 0);
    let time = [0_i64, 0, 0, 10_000];
    report("setitimer", sys!(libc::SYS_setitimer, libc::ITIMER_REAL, time.as_ptr(), 0));
    while COUNT.load(SeqCst) == 0 {
        sys!(libc::SYS_sched_yield);
    }
    println!("taken {} code {}", taken(), CODE.load(SeqCst));
    let long = [0_i64, 0, 1000, 0];
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, long.as_ptr(), 0);
    let mut old = [0_i64; 4];
    sys!(libc::SYS_getitimer, libc::ITIMER_REAL, old.as_mut_ptr());
    println!("left: {}", (900..=1000).contains(&old[2]));
    in_child("not inherited", || {
        let mut own = [0_i64; 4];
        sys!(libc::SYS_getitimer, libc::ITIMER_REAL, own.as_mut_ptr());
        own[2] as i32
    });
    in_child("kills", || {
        action(libc::SIGALRM, libc::SIG_DFL, 0, &[]);
        sys!(libc::SYS_setitimer, libc::ITIMER_REAL, time.as_ptr(), 0);
        loop {
            std::hint::spin_loop();
        }
    });
    report("bad timer", sys!(libc::SYS_setitimer, 9, time.as_ptr(), 0));
}

fn action_errors() {
    let none = [0_u64; 4];
    for signal in [0, 65, libc::SIGKILL, libc::SIGSTOP, -1] {
        report(&format!("sigaction {signal}"), sys!(libc::SYS_rt_sigaction, signal, none.as_ptr(), 0, 8));
    }
    report("bad size", sys!(libc::SYS_rt_sigaction, 10, none.as_ptr(), 0, 16));
    report("bad pointer", sys!(libc::SYS_rt_sigaction, 10, 8, 0, 8));
    report("bad how", sys!(libc::SYS_rt_sigprocmask, 9, none.as_ptr(), 0, 8));
    let child = fork(|| {
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    });
    report("tgkill of another group", sys!(libc::SYS_tgkill, child, sys!(libc::SYS_gettid), 0));
    sys!(libc::SYS_kill, child, libc::SIGKILL);
    println!("{}", wait(child));
    report("tgkill of nobody", sys!(libc::SYS_tgkill, me(), 4_000_000, 0));
    report("tgkill 0", sys!(libc::SYS_tgkill, 0, 0, 0));
    report("forged code", {
        let mut forged = [0_u32; 32];
        forged[2] = 0;
        let parent = sys!(libc::SYS_getppid);
        sys!(libc::SYS_rt_sigqueueinfo, parent, 0, forged.as_ptr())
    });
}

fn thread_directed() {
    static WHO: AtomicI64 = AtomicI64::new(0);
    extern "C" fn who(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        WHO.store(sys!(libc::SYS_gettid), SeqCst);
    }
    handle(libc::SIGUSR1, who, 0);
    let (ready_read, ready_write) = sys::pipe(0);
    let thread = std::thread::spawn(move || {
        let tid = sys!(libc::SYS_gettid);
        sys::write(ready_write, &tid.to_ne_bytes());
        while WHO.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        WHO.load(SeqCst) == tid
    });
    let (_, bytes) = sys::read(ready_read, 8);
    let tid = i64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    sys!(libc::SYS_tgkill, me(), tid, libc::SIGUSR1);
    println!("ran in the thread: {}", thread.join().unwrap_or(false));
    // A process-directed signal goes to a thread that does not block it.
    WHO.store(0, SeqCst);
    mask(libc::SIG_BLOCK, set_of(&[libc::SIGUSR1]));
    let thread = std::thread::spawn(move || {
        mask(libc::SIG_UNBLOCK, set_of(&[libc::SIGUSR1]));
        sys::write(ready_write, b"12345678");
        while WHO.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        WHO.load(SeqCst) == sys!(libc::SYS_gettid)
    });
    sys::read(ready_read, 8);
    sys!(libc::SYS_kill, me(), libc::SIGUSR1);
    println!("ran where it is not blocked: {}", thread.join().unwrap_or(false));
}

fn nested() {
    extern "C" fn outer(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let before = COUNT.load(SeqCst);
        raise(libc::SIGUSR2);
        println!("inner ran inside: {}", COUNT.load(SeqCst) == before + 1);
    }
    handle(libc::SIGUSR1, outer, 0);
    handle(libc::SIGUSR2, note, 0);
    raise(libc::SIGUSR1);
    println!("{}", taken());
    in_child("a fault in a handler", || {
        extern "C" fn fault(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            sys::peek(8);
        }
        handle(libc::SIGSEGV, fault, 0);
        sys::peek(8);
        0
    });
}

fn fp_survives() {
    extern "C" fn clobber(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let mut values = [1.5_f64; 64];
        for (index, value) in values.iter_mut().enumerate() {
            *value = std::hint::black_box(*value * index as f64);
        }
        std::hint::black_box(values);
    }
    handle(libc::SIGUSR1, clobber, 0);
    let start: Vec<f64> = (0..16).map(f64::from).collect();
    let mut kept: [f64; 16] = start.clone().try_into().expect("sixteen");
    for _ in 0..10 {
        raise(libc::SIGUSR1);
        for value in &mut kept {
            *value += 0.5;
        }
    }
    println!("kept: {}", kept.iter().zip(&start).all(|(a, b)| *a == b + 5.0));
}

fn sets_in_proc() {
    action(libc::SIGUSR2, libc::SIG_IGN, 0, &[]);
    handle(libc::SIGUSR1, note, 0);
    let old = mask(libc::SIG_BLOCK, set_of(&[libc::SIGUSR1, libc::SIGRTMIN()]));
    raise(libc::SIGUSR1);
    sys!(libc::SYS_kill, me(), libc::SIGRTMIN());
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    for line in status.lines().filter(|line| line.starts_with("Sig") || line.starts_with("ShdPnd")) {
        // How many may be queued is the machine's business, and whoever started us may ignore 32 and 33 (the C
        // library's own), which is inherited.
        let (name, value) = line.split_once(":\t").expect("a name");
        if let Ok(value) = u64::from_str_radix(value, 16)
            && name != "SigQ"
        {
            println!("{name} {:016x}", value & !(3 << 31));
        }
    }
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    println!("{:?}", &fields[28..32]);
    let queued = sys!(libc::SYS_rt_sigtimedwait, [set_of(&[libc::SIGRTMIN()])].as_ptr(), 0, 0, 8);
    println!("took {}", queued == i64::from(libc::SIGRTMIN()));
    mask(libc::SIG_SETMASK, old);
    println!("{}", taken());
    action(libc::SIGUSR2, libc::SIG_DFL, 0, &[]);
}
