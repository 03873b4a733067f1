//! Core dumps (core(5)): when there is one, what it is called, and what is in it.
//!
//! How they are called is a setting of the whole machine, which nobody changes here: where it is not Linux's own, or a
//! harness forbids core files, nothing but that is said.

mod elf;
mod hostile;
mod memory;
mod refused;

use crate::Case;
use crate::sys::{self, fork, wait};
use elf::{Core, Note};
use std::sync::Barrier;

pub(crate) const CASES: &[Case] = &[
    ("coredump_signals", signals),
    ("coredump_limits", limits),
    ("coredump_image", image),
    ("coredump_threads", threads),
    ("coredump_shared_memory", shared_memory),
    ("coredump_traced", traced),
    ("coredump_filter", memory::filter),
    ("coredump_memory", memory::areas),
    ("coredump_refused", refused::refused),
    ("coredump_names", refused::names),
    ("coredump_settings", refused::settings),
    ("coredump_full", refused::full),
    ("coredump_many", hostile::many),
    ("coredump_races", hostile::races),
    ("coredump_killed", hostile::killed),
];

/// Whether dumps are files `core` in the working directory.
fn is_plain() -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    read("core_pattern") == "core\n" && read("core_uses_pid") == "0\n"
}

/// Runs a case in a directory of its own, if dumps go there.
fn in_place(case: impl FnOnce()) {
    if is_plain() {
        sys::scratch("coredump");
        case();
        sys::unscratch();
    } else {
        println!("core files are called otherwise here");
    }
}

fn limit_to(resource: u32, bytes: u64) {
    let limit = [bytes, bytes];
    sys!(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), 0);
}

/// Lets core files be written.
fn allow() {
    limit_to(libc::RLIMIT_CORE, u64::MAX);
}

/// Sends itself a signal that is not blocked or handled, and waits for it.
fn die_by(signal: i32) -> i32 {
    sys::action(signal, libc::SIG_DFL, 0, &[]);
    sys::mask(libc::SIG_UNBLOCK, sys::set_of(&[signal]));
    sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), sys!(libc::SYS_gettid), signal);
    0
}

/// What of a dump there is: permissions, owner, links.
fn left() -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata("core") {
        Ok(meta) => {
            let size = if meta.len() == 0 { "empty" } else { "something" };
            format!("{:o} {}:{} {} {size}", meta.mode(), meta.uid(), meta.gid(), meta.nlink())
        }
        Err(error) => format!("{:?}", error.raw_os_error()),
    }
}

/// Has a child do something that ends it, with dumps allowed; how it ended, and what it left behind.
fn report_end(what: &str, body: impl FnOnce() -> i32) {
    let pid = fork(|| {
        allow();
        body()
    });
    println!("{what}: {}, left {}", wait(pid), left());
}

/// The same; the dump.
fn dump_of(what: &str, body: impl FnOnce() -> i32) -> Option<Core> {
    report_end(what, body);
    Core::take()
}

fn signals() {
    in_place(|| {
        for signal in 1..=31 {
            // Those that stop or do nothing are not what this is about.
            if ![
                libc::SIGCHLD,
                libc::SIGCONT,
                libc::SIGSTOP,
                libc::SIGTSTP,
                libc::SIGTTIN,
                libc::SIGTTOU,
                libc::SIGURG,
                libc::SIGWINCH,
            ]
            .contains(&signal)
            {
                report_end(&format!("signal {signal}"), || die_by(signal));
                let _gone = std::fs::remove_file("core");
            }
        }
        report_end("a bad pointer", || sys::peek(8).into());
        let _gone = std::fs::remove_file("core");
        report_end("signalled from outside", || {
            let (parent, pid) = (sys!(libc::SYS_getpid), fork(sys::forever));
            sys::until_asleep(pid, pid);
            sys!(libc::SYS_kill, pid, libc::SIGQUIT);
            println!("child of {}: {}", if parent > 0 { "one" } else { "none" }, wait(pid));
            0
        });
    });
}

fn limits() {
    in_place(|| {
        for bytes in [0, 1, 4095, 4096, 16384, 65536, 1 << 20] {
            let pid = fork(|| {
                limit_to(libc::RLIMIT_CORE, bytes);
                die_by(libc::SIGSEGV)
            });
            let end = wait(pid);
            let fits = Core::take().map(|core| core.len() <= bytes.next_multiple_of(4096) + (64 << 20));
            println!("{bytes} bytes: {end}, {fits:?}");
        }
        report_end("no file at all", || {
            limit_to(libc::RLIMIT_FSIZE, 0);
            die_by(libc::SIGSEGV)
        });
        let _gone = std::fs::remove_file("core");
        report_end("a short file", || {
            limit_to(libc::RLIMIT_FSIZE, 8192);
            die_by(libc::SIGSEGV)
        });
        println!("that short: {:?}", Core::take().map(|core| core.len() <= 8192));
    });
}

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;
const NT_X86_XSTATE: u32 = 0x202;
const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
/// Registers that every machine has: PRFPREG; TLS, hardware breakpoints and watchpoints, the system call of arm64.
const REGISTERS: [u32; 5] = [2, 0x401, 0x402, 0x403, 0x404];

/// The types, and the sizes of those whose size is the same on every machine.
fn outline(notes: &[Note]) -> Vec<String> {
    let sized = [NT_PRSTATUS, NT_PRPSINFO, NT_SIGINFO, 2, 0x401, 0x404];
    let known = |note: &&Note| {
        let others = [NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_SIGINFO, NT_FILE, NT_X86_XSTATE];
        others.contains(&note.kind) || REGISTERS.contains(&note.kind)
    };
    let line = |note: &Note| {
        let size = if sized.contains(&note.kind) { note.bytes.len().to_string() } else { "-".to_owned() };
        format!("{} {:#x} {size}", note.name, note.kind)
    };
    notes.iter().filter(known).map(line).collect()
}

fn find(notes: &[Note], kind: u32) -> &Note {
    static NONE: Note = Note { name: String::new(), kind: 0, bytes: Vec::new() };
    notes.iter().find(|note| note.kind == kind).unwrap_or(&NONE)
}

fn image() {
    in_place(|| {
        let (said, told) = (sys::pipe(0), sys!(libc::SYS_getpid) as i32);
        let core = dump_of("a program", || {
            sys::write(said.1, &(sys!(libc::SYS_getpid) as i32).to_ne_bytes());
            sys!(libc::SYS_prctl, libc::PR_SET_NAME, sys::c("a name").as_ptr());
            sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR1, libc::SIGUSR2]));
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGUSR1);
            sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), sys!(libc::SYS_gettid), libc::SIGUSR2);
            sys::peek(0x1234).into()
        });
        let Some(core) = core else { return };
        let pid = sys::read(said.0, 4).1;
        let pid = i32::from_ne_bytes(pid.try_into().unwrap_or_default());
        println!("{}", core.header());
        let segments = core.segments();
        println!("first {} of {}", segments[0].kind, if segments.len() > 3 { "many" } else { "few" });
        println!(
            "all others loaded: {}",
            segments[1..].iter().all(|segment| segment.kind == 1 && segment.offset % 4096 == 0)
        );
        let end = segments.iter().map(|segment| segment.offset + segment.in_file).max();
        println!("as long as it says: {}", end == Some(core.len()));
        let notes = core.notes();
        println!("{:#?}", outline(&notes));
        let layout = notes.iter().any(|note| note.kind == NT_X86_XSAVE_LAYOUT);
        let expected = cfg!(target_arch = "x86_64") && !crate::recent::older_than(12);
        println!(
            "a layout where there is to be one: {}",
            layout == expected || find(&notes, NT_X86_XSTATE).bytes.is_empty()
        );
        let status = find(&notes, NT_PRSTATUS);
        println!("signal {} {} {} {}", status.int(0), status.int(4), status.int(8), status.int(12));
        println!("pending {:#x} blocked {:#x}", status.int(16), status.int(24));
        println!("own id {} parent {}", status.int(32) == pid, status.int(36) == told);
        let group = sys!(libc::SYS_getpgid, 0) as i32;
        println!(
            "group {} session {}",
            status.int(40) == group,
            status.int(44) == sys!(libc::SYS_getsid, 0) as i32
        );
        println!("floating point {}", status.int(status.bytes.len() - 8));
        let who = find(&notes, NT_PRPSINFO);
        println!("state {:?} {}:{}", &who.bytes[..4], who.int(16), who.int(20));
        println!("ids {} {}", who.int(24) == pid, who.int(28) == told);
        println!("called {:?}, program {}", who.text(40, 16), who.text(56, 80).contains("abi"));
        let info = find(&notes, NT_SIGINFO);
        println!("siginfo {} {} {} {:#x}", info.int(0), info.int(4), info.int(8), info.int(16));
        let vector = find(&notes, NT_AUXV);
        let words: Vec<u64> =
            vector.bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        println!("vector ends {}", words.len().is_multiple_of(2) && words.iter().rev().nth(1) == Some(&0));
        let files = find(&notes, NT_FILE);
        println!("pages of {} bytes, files {}", files.int(8), files.int(0) > 0);
        let text = String::from_utf8_lossy(&files.bytes).into_owned();
        let own = std::fs::read_link(crate::process::SELF).unwrap_or_default();
        println!("its own file is one of them: {}", text.split('\0').any(|name| own.as_os_str() == name));
    });
}

fn threads() {
    in_place(|| {
        let (said, ids) = (sys::pipe(0), sys::pipe(0));
        let core = dump_of("one thread of five", || {
            let barrier = Barrier::new(5);
            std::thread::scope(|scope| {
                for number in 0..4_i32 {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let id = sys!(libc::SYS_gettid) as i32;
                        sys::write(ids.1, &id.to_ne_bytes());
                        if number == 2 {
                            sys::write(said.1, &id.to_ne_bytes());
                        }
                        barrier.wait();
                        if number == 2 { sys::peek(16).into() } else { sys::forever() }
                    });
                }
                let id = sys!(libc::SYS_gettid) as i32;
                sys::write(ids.1, &id.to_ne_bytes());
                barrier.wait();
                sys::forever()
            })
        });
        let Some(core) = core else { return };
        let mut expected: Vec<i32> =
            sys::read(ids.0, 20).1.as_chunks::<4>().0.iter().map(|id| i32::from_ne_bytes(*id)).collect();
        let notes = core.notes();
        let mut found: Vec<i32> =
            notes.iter().filter(|note| note.kind == NT_PRSTATUS).map(|note| note.int(32)).collect();
        let first = i32::from_ne_bytes(sys::read(said.0, 4).1.try_into().unwrap_or_default());
        println!("{} threads, first the one that fell: {}", found.len(), found.first() == Some(&first));
        expected.sort_unstable();
        found.sort_unstable();
        println!("all of them: {}", expected == found);
        let signals: Vec<i32> =
            notes.iter().filter(|note| note.kind == NT_PRSTATUS).map(|note| note.int(12)).collect();
        println!("signals {signals:?}");
        println!("{} lines", outline(&notes).len() / 5);
    });
}

/// Others that share its memory go on.
fn shared_memory() {
    in_place(|| {
        report_end("with a child of vfork", || {
            // What it touches first is its stack, and there is none.
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let end = wait(sys!(libc::SYS_clone, flags, 64, 0, 0, 0));
            println!("the child: {end}, left {}", left());
            0
        });
        let _gone = std::fs::remove_file("core");
    });
}

/// A tracer hears of the signal, and at the end of how it ended.
fn traced() {
    in_place(|| {
        let pid = fork(|| {
            allow();
            sys::action(libc::SIGSEGV, libc::SIG_DFL, 0, &[]);
            sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME);
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGSTOP);
            sys::peek(32).into()
        });
        println!("{}", sys::describe(sys::wait4(pid, 0).1));
        sys!(libc::SYS_ptrace, libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACEEXIT);
        sys!(libc::SYS_ptrace, libc::PTRACE_CONT, pid, 0, 0);
        println!("{}, left {}", sys::describe(sys::wait4(pid, 0).1), left());
        sys!(libc::SYS_ptrace, libc::PTRACE_CONT, pid, 0, libc::SIGSEGV);
        println!("stopped with {:#x}, left {}", sys::wait4(pid, 0).1, left());
        let mut message = 0_u64;
        sys!(libc::SYS_ptrace, libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message);
        println!("is to end with {message:#x}");
        sys!(libc::SYS_ptrace, libc::PTRACE_CONT, pid, 0, 0);
        println!("{}", wait(pid));
    });
}
