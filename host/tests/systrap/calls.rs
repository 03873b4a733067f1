//! System calls that have been rewritten: programs must not be able to tell, whatever happens at whatever instruction.

use crate::programs;
use crate::world::{CODE, DATA, PAGE, Program, STACK, as_worker, fill, frames, platform, word};
use host::arch::{FpState, Registers, UserRegs};
use host::platform::systrap::STUB_WINDOW;
use host::platform::{Areas, Frame, Platform, Prot, Trap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RX: Prot = Prot::READ.union(Prot::EXEC);
/// Beyond the reach of a jump to the stub.
const FAR: u64 = 0x7f12_3456_7000;
/// Where the way from there leads through.
const ALIAS: u64 = 0x050f_0000;
/// What calls are while they are as they were assembled, the lowest byte.
const MOVE: u64 = 0xb8;

/// A program whose code lies at `at` in a frame that the test has.
fn program_at(at: u64, code: &[u8]) -> (Program, Frame) {
    let mut program = Program::new(programs::null_calls());
    let frame = frames(1)[0];
    fill(frame, 0, code);
    program.space.map(at, &[frame], RX).expect("code");
    program.regs = UserRegs::start(at, STACK - 64);
    (program, frame)
}

/// Runs through `rounds` calls; what the program saw of its call last.
fn calls(program: &mut Program, rounds: u64) -> u64 {
    for _ in 0..rounds {
        let before = program.regs.rbx;
        assert_eq!(program.run_on(), Trap::Syscall);
        assert_eq!(program.regs.rbx, before + 1);
        assert_eq!(program.regs.syscall_number(), 39);
        program.regs.set_result(-1);
    }
    program.regs.r9 & 0xff
}

#[test]
fn a_hot_call_is_rewritten_and_nobody_else_sees_it() {
    for (at, jump) in [(CODE, 0xe9), (FAR, 0xff)] {
        let (mut program, frame) = program_at(at, programs::hot());
        let before = word(frame, 0);
        assert_eq!(calls(&mut program, 20), MOVE);
        assert_eq!(calls(&mut program, 100), jump);
        assert_eq!(word(frame, 0), before);
        assert_eq!(program.space.lookup(at), Some((frame, RX)));
        assert_eq!((program.regs.gs_base, program.regs.sp()), (0, STACK - 64));
        assert_eq!((program.regs.rcx, program.regs.r11), (program.regs.rip, program.regs.eflags));
    }
}

#[test]
fn every_register_survives_rewritten_calls() {
    let (mut program, _) = program_at(CODE, programs::hot_registers());
    let guard = 0x5a5a_a5a5_1234_5678u64;
    let stack = frames(1);
    program.space.map(DATA, &stack, Prot::READ | Prot::WRITE).unwrap();
    program.regs.set_sp(DATA + 2048);
    (0..PAGE).step_by(8).for_each(|at| fill(stack[0], at, &guard.to_ne_bytes()));
    let one = 1f64.to_ne_bytes();
    let set = |fp: &mut FpState, at: usize, bytes: &[u8]| fp.0[at..at + bytes.len()].copy_from_slice(bytes);
    set(&mut program.fp, 160 + 16, &one);
    set(&mut program.fp, 576 + 16 * 3, &one);
    program.fp.0[512] = 7;
    let mut rbp = 0u64;
    for round in 1..=200u64 {
        assert_eq!(program.run_on(), Trap::Syscall);
        let r = &program.regs;
        let seen = [r.rbx, r.rdx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r12, r.r13, r.r14, r.r15];
        let want = [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13].map(|step| step * round);
        assert_eq!(seen, want);
        let (sum, carry) = rbp.overflowing_add(0x7fff_ffff_ffff_fff1);
        let overflow = (rbp as i64).overflowing_add(0x7fff_ffff_ffff_fff1).1;
        rbp = sum;
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let want = bit(carry, 1) | bit(sum == 0, 0x40) | bit(sum >> 63 != 0, 0x80) | bit(overflow, 0x800);
        assert_eq!((r.rbp, r.eflags & 0x8c1), (sum, want), "{round}");
        assert_eq!((r.rcx, r.r11, r.sp()), (r.rip, r.eflags, DATA + 2048));
        if round % 50 == 0 {
            program.context.save_fp(&mut program.fp);
            let get = |at: usize| f64::from_ne_bytes(program.fp.0[at..at + 8].try_into().unwrap());
            assert_eq!((get(160), get(576 + 32)), (round as f64, round as f64));
        }
        if round == 150 {
            // Another thread goes on.
            program.context = platform().new_context().unwrap();
        }
    }
    assert!((0..PAGE).step_by(8).all(|at| word(stack[0], at) == guard));
}

#[test]
fn the_kernel_can_change_everything_behind_a_rewritten_call() {
    let (mut program, _) = program_at(CODE, programs::hot_registers());
    let step = |program: &mut Program| assert_eq!(program.run_on(), Trap::Syscall);
    (0..100).for_each(|_| step(&mut program));
    // General registers, which the thread has not.
    program.regs.rbx = 1 << 40;
    step(&mut program);
    assert_eq!(program.regs.rbx, (1 << 40) + 2);
    step(&mut program);
    // FP registers.
    program.context.drop_fp();
    *program.fp = FpState::initial();
    program.fp.0[512] = 7;
    program.fp.0[160..168].copy_from_slice(&5f64.to_ne_bytes());
    program.fp.0[176..184].copy_from_slice(&1f64.to_ne_bytes());
    step(&mut program);
    program.context.save_fp(&mut program.fp);
    assert_eq!(f64::from_ne_bytes(program.fp.0[160..168].try_into().unwrap()), 6.0);
    // The call again, and where it goes on.
    program.regs.rewind_syscall();
    let rbx = program.regs.rbx;
    step(&mut program);
    assert_eq!((program.regs.rbx, program.regs.syscall_number()), (rbx, 39));
    program.regs = UserRegs::start(CODE, STACK - 64);
    step(&mut program);
    assert_eq!(program.regs.rbx, 2);
    program.regs.fs_base = 0x1234_5000;
    step(&mut program);
    assert_eq!((program.regs.fs_base, program.regs.rbx), (0x1234_5000, 4));
}

/// A thread that was left at a rewritten call serves another task.
#[test]
fn threads_are_used_again() {
    let (mut program, _) = program_at(CODE, programs::hot());
    for round in 0..50u64 {
        calls(&mut program, 50);
        program.context = platform().new_context().unwrap();
        program.regs = UserRegs::start(CODE, STACK - 64);
        program.regs.rbx = round;
        *program.fp = FpState::initial();
    }
}

#[test]
fn libcs_read_is_rewritten() {
    for at in [CODE, FAR] {
        let (mut program, _) = program_at(at, programs::hot_read());
        for round in 1..200 {
            assert_eq!(program.run_on(), Trap::Syscall);
            let regs = &mut program.regs;
            assert_eq!((regs.rbx, regs.syscall_number(), regs.sp()), (round, 0, STACK - 72));
            regs.set_result(1);
        }
        assert_eq!(program.regs.r9 & 0xff, 0xeb);
    }
}

#[test]
fn libcs_syscall_function_is_rewritten() {
    for at in [CODE, FAR] {
        let (mut program, _) = program_at(at, programs::hot_function());
        for round in 1..200 {
            assert_eq!(program.run_on(), Trap::Syscall);
            let regs = &mut program.regs;
            assert_eq!((regs.rbx, regs.syscall_number(), regs.sp()), (round, 39, STACK - 72));
            assert_eq!((regs.r9, regs.r13), (round, round - 1));
            regs.set_result(1);
        }
        assert_ne!(program.regs.r12 & 0xff, 0x4c);
    }
}

#[test]
fn what_the_kernel_does_to_the_page_holds() {
    let code = programs::hot();
    for at in [CODE, FAR] {
        let (mut program, frame) = program_at(at, code);
        for round in 0..5 {
            assert_ne!(calls(&mut program, 100), MOVE, "{round}");
            // Another page with the same bytes.
            let other = frames(1)[0];
            fill(other, 0, code);
            program.space.map(at, &[other], RX).unwrap();
            assert_eq!(calls(&mut program, 10), MOVE);
            program.space.map(at, &[frame], RX).unwrap();
            assert_ne!(calls(&mut program, 100), MOVE);
            // Writable: what is written must be in the page itself.
            program.space.protect(at, PAGE, Prot::all());
            assert_eq!(calls(&mut program, 100), MOVE);
            program.space.protect(at, PAGE, RX);
            program.space.sync();
            // Not executable, then not there.
            assert_eq!(calls(&mut program, 1), MOVE);
            calls(&mut program, 100);
            program.space.protect(at, PAGE, Prot::READ);
            assert!(matches!(program.run_on(), Trap::PageFault { .. }));
            program.space.protect(at, PAGE, RX);
            calls(&mut program, 100);
            let mut gone = 0;
            program.space.unmap(at, PAGE, &mut |_, page| gone += u32::from(page == frame));
            program.space.sync();
            assert_eq!(gone, 1);
            assert!(matches!(program.run_on(), Trap::PageFault { .. }));
            program.space.map(at, &[frame], RX).unwrap();
        }
    }
}

#[test]
fn the_alias_gives_way_to_the_program() {
    let (mut program, _) = program_at(FAR, programs::hot());
    let data = frames(1)[0];
    for page in [ALIAS, ALIAS + 15 * PAGE] {
        assert_eq!(calls(&mut program, 100), 0xff);
        program.space.map(page, &[data], Prot::READ | Prot::WRITE).unwrap();
        assert_eq!(calls(&mut program, 100), MOVE);
        program.space.unmap(page, PAGE, &mut |_, _| ());
        calls(&mut program, 100);
        // A program that starts anew counts anew.
        program.context = platform().new_context().unwrap();
        assert_eq!(calls(&mut program, 100), 0xff);
        // Nothing of the program's goes, but the whole range does.
        program.space.map(ALIAS - PAGE, &[data], Prot::READ).unwrap();
        program.space.map(ALIAS + 16 * PAGE, &[data], Prot::READ).unwrap();
        program.space.unmap(ALIAS - PAGE, 18 * PAGE, &mut |_, _| ());
        program.context = platform().new_context().unwrap();
        calls(&mut program, 20);
        assert_eq!(calls(&mut program, 100), 0xff);
    }
}

#[test]
fn shared_code_is_left_alone() {
    struct Shared;
    impl Areas for Shared {
        fn is_private_code(&self, _va: u64) -> bool {
            false
        }
    }
    let (mut program, _) = program_at(CODE, programs::hot());
    let areas: Arc<dyn Areas> = Arc::new(Shared);
    program.space.set_areas(Arc::downgrade(&areas));
    assert_eq!(calls(&mut program, 200), MOVE);
}

#[test]
fn a_gs_base_of_the_programs_own_is_kept() {
    let (mut program, _) = program_at(CODE, programs::hot_bases());
    for base in [0x7fff_1234_5678, 1, STUB_WINDOW.0, STUB_WINDOW.1 - 16, STUB_WINDOW.0 + 0x100_0000 + 8, 0] {
        program.regs.rdi = 0;
        calls(&mut program, 100);
        (program.regs.rdi, program.regs.rsi) = (1, base);
        for _ in 0..100 {
            calls(&mut program, 1);
            assert_eq!((program.regs.gs_base, program.regs.rcx), (base, program.regs.rip));
        }
        program.regs.gs_base = 0;
    }
}

/// Runs `body` while kicks come at odd times.
fn kicked(body: impl FnOnce()) {
    let done = AtomicBool::new(false);
    as_worker(|id| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut wait = 1u64;
                while !done.load(Ordering::Relaxed) {
                    wait = wait.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let until = std::time::Instant::now() + Duration::from_nanos(wait >> 48);
                    while std::time::Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    platform().kick(id);
                }
            });
            body();
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// However many kicks come and wherever they hit, every call is made once, and no kick shows anything of the stub.
#[test]
fn kicks_at_any_instruction_lose_and_show_nothing() {
    let all = [programs::hot(), programs::hot_read(), programs::hot_function()];
    for (at, code) in all.iter().flat_map(|code| [(CODE, *code), (FAR, *code)]) {
        let (mut program, _) = program_at(at, code);
        let (mut made, mut kicks) = (0, 0);
        kicked(|| {
            // Until one has come, however busy the machine is.
            while made < 20_000 || kicks == 0 {
                match program.run() {
                    Trap::Syscall => {
                        made += 1;
                        assert_eq!(program.regs.rbx, made);
                        program.regs.set_result(1);
                    }
                    Trap::Kick => kicks += 1,
                    other => panic!("{other:?}"),
                }
                let regs = &program.regs;
                assert!((at..at + PAGE).contains(&regs.rip), "{:#x}", regs.rip);
                assert!(regs.sp() == STACK - 64 || regs.sp() == STACK - 72, "{:#x}", regs.sp());
                assert_eq!(regs.gs_base, 0);
            }
        });
    }
}

/// A kick means that the worker comes back soon, not at the next call.
#[test]
fn a_kick_behind_a_rewritten_call_is_not_lost() {
    // After 1000 calls the program spins.
    let code =
        [&[0x90][..], &programs::hot()[1..programs::hot().len() - 2], &[0x48, 0x81, 0xfb, 0xe8, 3, 0, 0]]
            .concat();
    let back = (code.len() + 2 - 1) as u8;
    let code = [&code[..], &[0x75, 0u8.wrapping_sub(back)], &[0xeb, 0xfe]].concat();
    as_worker(|id| {
        for round in 0..20u64 {
            let (mut program, _) = program_at(CODE, &code);
            calls(&mut program, 1000);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(round * 20));
                    platform().kick(id);
                });
                assert_eq!(program.run(), Trap::Kick);
            });
        }
    });
}

#[test]
fn single_steps_are_those_of_the_code_as_written() {
    const TRAP_FLAG: u64 = 0x100;
    let all = [programs::hot(), programs::hot_read(), programs::hot_function()];
    for (at, code) in all.iter().flat_map(|code| [(CODE, *code), (FAR, *code)]) {
        let mut seen = Vec::new();
        for warm in [0, 100] {
            let (mut program, _) = program_at(at, code);
            for _ in 0..warm {
                assert_eq!(program.run_on(), Trap::Syscall);
                program.regs.set_result(1);
            }
            program.context.save_fp(&mut program.fp);
            program.regs = UserRegs::start(at, STACK - 64);
            program.regs.eflags |= TRAP_FLAG;
            let mut steps = Vec::new();
            for _ in 0..30 {
                let trap = program.run_on();
                let call = trap == Trap::Syscall;
                assert!(
                    call || matches!(trap, Trap::Signal(info) if info.signo == libc::SIGTRAP),
                    "{trap:?}"
                );
                steps.push((call, program.regs.rip, program.regs.rax, program.regs.eflags & 0x8d5));
                if call {
                    program.regs.set_result(1);
                }
            }
            seen.push(steps);
        }
        assert_eq!(seen[0], seen[1]);
    }
}

/// Threads share the rewritten code and do not disturb each other.
#[test]
fn threads_call_at_once() {
    let (first, _) = program_at(CODE, programs::hot());
    let programs: Vec<Program> = (1..4).map(|i| first.thread(CODE, STACK - 512 * i)).collect();
    std::thread::scope(|scope| {
        for mut program in programs {
            scope.spawn(move || {
                as_worker(|_| {
                    assert_ne!(calls(&mut program, 5000), MOVE);
                });
            });
        }
    });
}

/// Every byte of the stub's code, entered with registers and bases of all kinds: nobody else notices.
#[test]
fn the_stub_can_be_entered_anywhere() {
    let (mut other, _) = program_at(CODE, programs::hot());
    calls(&mut other, 100);
    as_worker(|id| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(300));
                    platform().kick(id);
                }
            });
            for round in 0..3u64 {
                let mut program = None;
                for entry in (0..0x600).chain(0x2_0000..0x2_0050) {
                    let (program, _) = program.get_or_insert_with(|| {
                        let (mut program, frame) = program_at(CODE, programs::hot());
                        calls(&mut program, 100);
                        (program, frame)
                    });
                    let regs = &mut program.regs;
                    (regs.rip, regs.rax, regs.r15) = (STUB_WINDOW.0 + entry, 0, 7);
                    (regs.rdi, regs.rsi, regs.rdx, regs.r10) = (STACK - 512, round, 0, 0);
                    // Control words, a cell's data, a frame: on the stack.
                    let stack = STACK - 1024;
                    (regs.rbx, regs.r11, regs.r12) = (stack, stack, round);
                    regs.rcx = if round == 1 { STUB_WINDOW.0 + 0x2_0020 } else { stack };
                    regs.gs_base = [0, STUB_WINDOW.0 + 0x100_0000, 0x1234][round as usize];
                    // Calls and signals it comes to; a kick ends what waits. A broken stub is another's turn.
                    for _ in 0..2 {
                        if program.run() == Trap::Dead {
                            break;
                        }
                    }
                    if program.space.is_lost() {
                        *program = Program::new(programs::hot());
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    calls(&mut other, 100);
}
