//! Programs that attack the stub. They may break themselves (a dead stub is `Trap::Dead`); they must not reach
//! anything else, make a call of their choice, or stop the kernel.

use crate::programs;
use crate::world::{CODE, DATA, PAGE, Program, STACK, as_worker, fill, frames, platform, word};
use host::arch::{Registers, UserRegs};
use host::platform::systrap::STUB_WINDOW;
use host::platform::{AddressSpace, Platform, Prot, Trap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What /proc says of the stubs' mappings, to see that an attack changed nothing.
fn maps_of_children() -> Vec<(i32, String)> {
    children()
        .into_iter()
        .filter_map(|pid| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?)))
        .collect()
}

/// Children of any thread of this process.
pub(crate) fn children() -> Vec<i32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("proc").flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    pids
}

/// Where the code ends in the stub's text page, and the filters begin.
const CODE_END: u64 = STUB_WINDOW.0 + 2048;

/// Every `syscall` instruction of the stub's text page, among them what only looks like one.
fn sites() -> Vec<u64> {
    let mut program = Program::new(programs::read_text());
    let page = frames(1);
    program.space.map(DATA, &page, Prot::READ | Prot::WRITE).expect("data");
    (program.regs.rsi, program.regs.rdi) = (STUB_WINDOW.0, DATA);
    assert_eq!(program.run_on(), Trap::Syscall);
    let mut text = Vec::new();
    (0..PAGE).step_by(8).for_each(|at| text.extend_from_slice(&word(page[0], at).to_ne_bytes()));
    let at = |i: usize| STUB_WINDOW.0 + i as u64;
    let found: Vec<u64> =
        text.windows(2).enumerate().filter(|(_, w)| *w == [0x0f, 0x05]).map(|(i, _)| at(i)).collect();
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// The one that makes rt_sigreturn(2).
fn sigreturn() -> u64 {
    sites().into_iter().rfind(|site| *site < CODE_END).expect("a site")
}

#[test]
fn no_site_of_the_stub_makes_a_call_for_the_program() {
    let canary = std::env::temp_dir().join(format!("pillbox-canary-{}", std::process::id()));
    let calls = [
        // mmap over the order page, mprotect of it, munmap of the stub, a fork, a file, the end.
        (libc::SYS_mmap, [STUB_WINDOW.0 + 0x1_0000, PAGE, 3, 0x31, u64::MAX, 0]),
        (libc::SYS_mprotect, [STUB_WINDOW.0 + 0x1_0000, PAGE, 3, 0, 0, 0]),
        (libc::SYS_munmap, [STUB_WINDOW.0, PAGE, 0, 0, 0, 0]),
        (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
        (libc::SYS_open, [DATA, (libc::O_CREAT | libc::O_WRONLY) as u64, 0o600, 0, 0, 0]),
        (libc::SYS_pwrite64, [2, DATA, 8, 0, 0, 0]),
        (libc::SYS_kill, [u64::from(std::process::id()), 9, 0, 0, 0, 0]),
        (libc::SYS_exit_group, [3, 0, 0, 0, 0, 0]),
    ];
    for site in sites() {
        for (number, args) in calls {
            let mut program = Program::new(programs::jump_r15());
            let page = frames(1);
            fill(page[0], 0, canary.to_str().expect("a name").as_bytes());
            program.space.map(DATA, &page, Prot::READ | Prot::WRITE).expect("data");
            assert_eq!(program.run_on(), Trap::Syscall);
            let regs = &mut program.regs;
            regs.rax = number as u64;
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
            regs.r15 = site;
            // The call comes to the kernel, as if the program had made it itself.
            assert_eq!(program.run_on(), Trap::Syscall, "{site:#x} {number}");
            assert_eq!(program.regs.syscall_number(), number as u64);
            assert_eq!(program.regs.syscall_args(), args);
        }
    }
    assert!(!canary.exists());
}

#[test]
fn sites_that_may_wait_can_be_left_by_a_kick() {
    as_worker(|id| {
        for site in sites() {
            let mut program = Program::new(programs::jump_r15());
            assert_eq!(program.run_on(), Trap::Syscall);
            let regs = &mut program.regs;
            // FUTEX_WAIT for what the stack holds: for ever.
            (regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r10) = (libc::SYS_futex as u64, STACK - 8, 0, 0, 0);
            (regs.r15, regs.rbx) = (site, STACK - 8);
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                        platform().kick(id);
                    }
                });
                let _any = program.run();
                done.store(true, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn a_forged_frame_only_changes_the_forger() {
    let site = sigreturn();
    for stack in [DATA, DATA + PAGE - 8, STUB_WINDOW.0, 0x10, u64::MAX - 7] {
        let mut program = Program::new(programs::jump_r15());
        let pages = frames(2);
        for page in &pages {
            for at in (0..PAGE).step_by(8) {
                fill(*page, at, &(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_ne_bytes());
            }
        }
        program.space.map(DATA, &pages, Prot::READ | Prot::WRITE).expect("data");
        assert_eq!(program.run_on(), Trap::Syscall);
        (program.regs.rax, program.regs.r15) = (libc::SYS_rt_sigreturn as u64, site);
        program.regs.set_sp(stack);
        let mut last = program.run_on();
        for _ in 0..3 {
            if last == Trap::Dead {
                break;
            }
            last = program.run_on();
        }
    }
}

#[test]
fn every_call_number_comes_to_the_kernel() {
    let mut program = Program::new(programs::all_numbers());
    program.regs.rbx = 0;
    (program.regs.rdi, program.regs.rsi, program.regs.rdx) = (u64::MAX, 1, 1);
    for number in (0..600u64).chain([0x4000_0000, 0x4000_0001, 0x4000_0200, u64::from(u32::MAX), 1 << 32]) {
        program.regs.rbx = number;
        assert_eq!(program.run_on(), Trap::Syscall, "{number}");
        // Linux 6.14 lets uprobe(2) past every filter, as far as a SIGILL; its number does not come through.
        assert!(program.regs.syscall_number() == number || number == 336, "{number}");
        program.regs.rip = CODE;
    }
}

#[test]
fn i386_entries_are_refused() {
    let mut program = Program::new(programs::int80());
    assert!(matches!(program.run_on(), Trap::Signal(info) if info.signo == libc::SIGSEGV));
    // A far jump to the 32-bit code segment, then `syscall` and `int 0x80` there.
    let mut program = Program::new(programs::compat());
    match program.run_on() {
        Trap::Signal(info) => assert_eq!(info.signo, libc::SIGSEGV),
        Trap::Dead | Trap::PageFault { .. } => (),
        other => panic!("{other:?}"),
    }
}

/// A sibling writes nonsense over the slot of a thread that makes calls. The kernel goes on; the program may not.
#[test]
fn rewriting_frames_from_a_sibling_harms_nobody_else() {
    for (mark, pattern) in (1..).zip([0, u64::MAX, 0x7100_0000_7100_0000, 0x4141_4141_4141_4141, 1]) {
        let mut victim = Program::new(programs::null_calls());
        let slots = slots_of(&mut victim, 0x6000_0000_0000 + mark * 16 * PAGE);
        let mut attacker = victim.thread(CODE, STACK - 4096);
        map_second_code(&attacker.space, programs::scribble());
        let stop = Arc::new(AtomicBool::new(false));
        let handle = std::thread::spawn({
            let stop = stop.clone();
            move || {
                kicked_until(&stop, || {
                    victim.regs = UserRegs::start(CODE, STACK - 64);
                    victim.run() != Trap::Dead
                });
            }
        });
        let end = std::time::Instant::now() + Duration::from_millis(100);
        kicked_until(&stop, || {
            attacker.regs = UserRegs::start(CODE + 0x10_0000, STACK - 4096);
            (attacker.regs.rdi, attacker.regs.rsi, attacker.regs.rdx) = (slots.0, pattern, slots.1 / 8);
            attacker.run() != Trap::Dead && std::time::Instant::now() < end
        });
        stop.store(true, Ordering::Relaxed);
        // Whatever it was confused to, somebody wants its worker back: it ends by itself.
        handle.join().expect("the victim's kernel side");
    }
    // And others never noticed.
    let mut other = Program::new(programs::null_calls());
    assert_eq!(other.run_on(), Trap::Syscall);
}

/// As a worker that is kicked every few milliseconds: `turn`, until it says false or is told to stop.
fn kicked_until(stop: &AtomicBool, mut turn: impl FnMut() -> bool) {
    as_worker(|id| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                    platform().kick(id);
                }
            });
            while !stop.load(Ordering::Relaxed) && turn() {}
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// A program loads a frame that blocks all signals, the kick among them, and never comes back.
#[test]
fn a_program_that_does_not_answer_a_kick_is_killed() {
    let mut program = Program::new(programs::jump_r15());
    let page = frames(1);
    // struct rt_sigframe (arch/x86/include/asm/sigframe.h), of which rt_sigreturn(2) has popped the first word.
    let frame = [
        (8, 7),
        (48 + 8 * 15, DATA + 0x700),
        (176, DATA + 0x800),
        (184, 0x202),
        (192, 0x33 | 0x2b << 48),
        (304, u64::MAX),
    ];
    for (at, value) in frame {
        fill(page[0], at, &u64::to_ne_bytes(value));
    }
    // A jump to itself.
    fill(page[0], 0x800, &[0xeb, 0xfe]);
    program.space.map(DATA, &page, Prot::READ | Prot::WRITE | Prot::EXEC).expect("data");
    // There from the start: nobody hears of a fault when all signals are blocked.
    program.regs.set_sp(DATA + 64);
    assert_eq!(program.run_on(), Trap::Syscall);
    (program.regs.rax, program.regs.r15) = (libc::SYS_rt_sigreturn as u64, sigreturn());
    program.regs.set_sp(DATA + 8);
    let start = std::time::Instant::now();
    as_worker(|id| {
        std::thread::scope(|scope| {
            // One kick, once it spins.
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                platform().kick(id);
            });
            assert_eq!(program.run(), Trap::Dead);
        });
    });
    assert!(start.elapsed() >= Duration::from_millis(1200), "{:?}", start.elapsed());
    let mut other = Program::new(programs::null_calls());
    assert_eq!(other.run_on(), Trap::Syscall);
}

/// Nothing but a program's own threads takes signals, and nothing of a stub may do more than it must.
#[test]
fn mappers_take_no_signals_and_have_no_rights() {
    let mut program = Program::new(programs::null_calls());
    let (pid, _) = stub_of(&mut program, 0x6100_0000_0000);
    let status = |tid: &str, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).expect("a thread");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").to_owned();
        line.trim_start_matches(':').trim().to_owned()
    };
    let tasks: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a stub")
        .flatten()
        .map(|task| task.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(tasks.len() >= 2);
    for tid in &tasks {
        assert_eq!((status(tid, "Seccomp"), status(tid, "NoNewPrivs")), ("2".into(), "1".into()));
        assert_eq!(status(tid, "CapEff"), "0000000000000000");
        assert_eq!(status(tid, "CapPrm"), "0000000000000000");
    }
    let mapper = pid.to_string();
    assert_eq!(status(&mapper, "Seccomp_filters"), "1");
    // All but SIGKILL and SIGSTOP.
    assert_eq!(status(&mapper, "SigBlk"), "fffffffffffbfeff");
    // They are shown of one that waits: it may be on its way there.
    let shown = |_| {
        std::thread::yield_now();
        let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).expect("the mapper's registers");
        (text.trim() != "running").then_some(text)
    };
    let registers = (0..100_000).find_map(shown).expect("a mapper that waits");
    let stack = registers.split_whitespace().nth_back(1).expect("a stack pointer").to_owned();
    assert_eq!(stack, "0x0", "{registers}");
    // The signal that would have run a frame in the mapper: the program hears of it, or ends; the mapper does not.
    assert!(std::process::Command::new("kill").args(["-SEGV", &mapper]).status().expect("kill").success());
    program.regs = UserRegs::start(CODE, STACK - 64);
    assert!(matches!(
        program.run_on(),
        Trap::Syscall | Trap::Signal(_) | Trap::PageFault { .. } | Trap::Dead
    ));
    let page = frames(1);
    program.space.map(DATA, &page, Prot::READ).expect("its mapper still maps");
    let mut other = Program::new(programs::null_calls());
    assert_eq!(other.run_on(), Trap::Syscall);
}

fn map_second_code(space: &Arc<dyn AddressSpace>, code: &[u8]) {
    let frame = frames(1);
    fill(frame[0], 0, code);
    space.map(CODE + 0x10_0000, &frame, Prot::READ | Prot::EXEC).expect("code");
}

/// Address and length of the slots of a program.
fn slots_of(program: &mut Program, mark: u64) -> (u64, u64) {
    let (_, maps) = stub_of(program, mark);
    let line = maps.lines().find(|line| line.contains("pillbox-slots")).expect("a slot").to_owned();
    let (start, rest) = line.split_once('-').expect("a range");
    let start = u64::from_str_radix(start, 16).expect("hex");
    let end = u64::from_str_radix(rest.split(' ').next().expect("an end"), 16).expect("hex");
    (start, end - start)
}

/// A program's process and its mappings, found in /proc by a page that only it has.
fn stub_of(program: &mut Program, mark: u64) -> (i32, String) {
    program.space.map(mark, &frames(1), Prot::READ).expect("a mark");
    program.regs.set_sp(mark + 64);
    assert_eq!(program.run_on(), Trap::Syscall);
    let name = format!("{mark:x}-");
    let ours = |maps: &(i32, String)| maps.1.lines().any(|line| line.starts_with(&name));
    maps_of_children().into_iter().find(ours).expect("the stub")
}

#[test]
fn a_stub_maps_nothing_of_the_kernel() {
    let mut program = Program::new(programs::null_calls());
    assert_eq!(program.run_on(), Trap::Syscall);
    for (pid, maps) in maps_of_children() {
        for line in maps.lines() {
            let known = ["pillbox-stub", "pillbox-orders", "pillbox-slots", "pillbox-frames", "[vsyscall]"];
            assert!(known.iter().any(|name| line.contains(name)), "{pid}: {line}");
            assert!(!line.contains("pillbox-orders") || line.contains(" r--s "), "{line}");
            assert!(!line.contains("pillbox-stub") || line.contains(" r-xp "), "{line}");
        }
    }
}

#[test]
fn the_window_cannot_be_mapped() {
    let program = Program::new(programs::null_calls());
    for va in [STUB_WINDOW.0, STUB_WINDOW.1 - PAGE, STUB_WINDOW.0 - PAGE, !0xfff] {
        assert!(program.space.map(va, &frames(2), Prot::READ).is_err(), "{va:#x}");
    }
    assert!(
        program.space.map(DATA, &[host::platform::Frame(ring0::layout::ARENA_BASE)], Prot::READ).is_err()
    );
}
