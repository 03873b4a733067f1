//! Programs that attack the stub. They may break themselves (a dead stub is `Trap::Dead`); they must not reach
//! anything else, make a call of their choice, or stop the kernel.

use crate::programs;
use crate::world::{CODE, DATA, PAGE, Program, STACK, as_worker, fill, frames, platform, word};
use host::arch::{Registers, UserRegs};
use host::platform::{AddressSpace, Platform, Prot, Trap};
use ring0::layout::{ARENA_BASE, IMAGE_BASE, IMAGE_END};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Every `syscall` instruction of the stub's text page.
fn sites() -> Vec<u64> {
    let mut program = Program::new(programs::read_text());
    let page = frames(1);
    program.space.map(DATA, &page, Prot::READ | Prot::WRITE).expect("data");
    (program.regs.rsi, program.regs.rdi) = (IMAGE_BASE, DATA);
    assert_eq!(program.run_on(), Trap::Syscall);
    let mut text = Vec::new();
    (0..PAGE).step_by(8).for_each(|at| text.extend_from_slice(&word(page[0], at).to_ne_bytes()));
    let at = |i: usize| IMAGE_BASE + i as u64;
    let found: Vec<u64> =
        text.windows(2).enumerate().filter(|(_, w)| *w == [0x0f, 0x05]).map(|(i, _)| at(i)).collect();
    assert!(found.len() >= 10, "{found:?}");
    found
}

#[test]
fn no_site_of_the_stub_makes_a_call_for_the_program() {
    let canary = std::env::temp_dir().join(format!("pillbox-canary-{}", std::process::id()));
    let calls = [
        // mmap over the order page, mprotect of it, munmap of the stub, a fork, a file, the end.
        (libc::SYS_mmap, [IMAGE_BASE + 0x1_0000, PAGE, 3, 0x31, u64::MAX, 0]),
        (libc::SYS_mprotect, [IMAGE_BASE + 0x1_0000, PAGE, 3, 0, 0, 0]),
        (libc::SYS_munmap, [IMAGE_BASE, PAGE, 0, 0, 0, 0]),
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
    let site = *sites().last().expect("sites");
    for stack in [DATA, DATA + PAGE - 8, IMAGE_BASE, 0x10, u64::MAX - 7] {
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
        let calls = Arc::new(AtomicU64::new(0));
        let handle = std::thread::spawn({
            let (stop, calls) = (stop.clone(), calls.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    victim.regs = UserRegs::start(CODE, STACK - 64);
                    if victim.run() == Trap::Dead {
                        break;
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        as_worker(|id| {
            let kicker = std::thread::spawn({
                let stop = stop.clone();
                move || {
                    for _ in 0..20 {
                        std::thread::sleep(Duration::from_millis(5));
                        platform().kick(id);
                    }
                    stop.store(true, Ordering::Relaxed);
                    platform().kick(id);
                }
            });
            while !stop.load(Ordering::Relaxed) {
                attacker.regs = UserRegs::start(CODE + 0x10_0000, STACK - 4096);
                (attacker.regs.rdi, attacker.regs.rsi, attacker.regs.rdx) = (slots.0, pattern, slots.1 / 8);
                if attacker.run() == Trap::Dead {
                    break;
                }
            }
            kicker.join().expect("the kicker");
        });
        stop.store(true, Ordering::Relaxed);
        // If the victim waits for a thread that its sibling confused for good, only SIGKILL helps: the last one goes.
        drop(attacker);
        end_waiting(&handle);
        handle.join().expect("the victim's kernel side");
    }
    // And others never noticed.
    let mut other = Program::new(programs::null_calls());
    assert_eq!(other.run_on(), Trap::Syscall);
}

/// Kills all stubs but the zygote until the thread has ended.
fn end_waiting(handle: &std::thread::JoinHandle<()>) {
    for round in 0..100 {
        if handle.is_finished() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
        if round > 20 {
            VICTIMS.with(|pids| {
                for pid in pids.borrow().iter() {
                    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                }
            });
        }
    }
}

thread_local! {
    static VICTIMS: std::cell::RefCell<Vec<i32>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn map_second_code(space: &Arc<dyn AddressSpace>, code: &[u8]) {
    let frame = frames(1);
    fill(frame[0], 0, code);
    space.map(CODE + 0x10_0000, &frame, Prot::READ | Prot::EXEC).expect("code");
}

/// Address and length of the slots of a program, found in /proc by a page that only it has.
fn slots_of(program: &mut Program, mark: u64) -> (u64, u64) {
    program.space.map(mark, &frames(1), Prot::READ).expect("a mark");
    program.regs.set_sp(mark + 64);
    assert_eq!(program.run_on(), Trap::Syscall);
    let name = format!("{mark:x}-");
    let ours = |maps: &(i32, String)| maps.1.lines().any(|line| line.starts_with(&name));
    let (pid, maps) = maps_of_children().into_iter().find(ours).expect("the stub");
    VICTIMS.with(|pids| *pids.borrow_mut() = vec![pid]);
    let line = maps.lines().find(|line| line.contains("pillbox-slots")).expect("a slot").to_owned();
    let (start, rest) = line.split_once('-').expect("a range");
    let start = u64::from_str_radix(start, 16).expect("hex");
    let end = u64::from_str_radix(rest.split(' ').next().expect("an end"), 16).expect("hex");
    (start, end - start)
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
fn the_windows_cannot_be_mapped() {
    let program = Program::new(programs::null_calls());
    for va in [IMAGE_BASE, IMAGE_END - PAGE, ARENA_BASE, IMAGE_BASE - PAGE, !0xfff] {
        assert!(program.space.map(va, &frames(2), Prot::READ).is_err(), "{va:#x}");
    }
    assert!(program.space.map(DATA, &[host::platform::Frame(ARENA_BASE)], Prot::READ).is_err());
}
