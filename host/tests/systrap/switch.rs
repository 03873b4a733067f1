//! Traps and resumes: what goes in comes out.

use crate::programs;
use crate::world::{CODE, DATA, PAGE, Program, STACK, as_worker, fill, frames, platform, word};
use host::arch::Registers;
use host::platform::{Access, Platform, Prot, Trap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_system_call_comes_out_and_its_result_goes_in() {
    let mut program = Program::new(programs::null_calls());
    for i in 0..1000 {
        assert_eq!(program.run(), Trap::Syscall);
        assert_eq!(program.regs.syscall_number(), 39);
        assert_eq!(program.regs.ip(), CODE + 7);
        assert_eq!(program.regs.sp(), STACK - 64);
        program.regs.set_result(i);
    }
}

#[test]
fn all_registers_arrive_and_leave() {
    let mut program = Program::new(programs::registers());
    let regs = &mut program.regs;
    let all = |r: &mut host::arch::UserRegs, f: &mut dyn FnMut(&mut u64, u64)| {
        let list = [
            &mut r.rax, &mut r.rbx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.r8, &mut r.r9,
            &mut r.r10, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ];
        list.into_iter().zip(1..).for_each(|(reg, i)| f(reg, i));
    };
    all(regs, &mut |reg, i| *reg = i << 40);
    for round in 1..=3 {
        assert_eq!(program.run(), Trap::Syscall);
        all(&mut program.regs, &mut |reg, i| assert_eq!(*reg, (i << 40) + i * round));
    }
}

#[test]
fn vector_state_survives_a_round_trip_and_a_move() {
    let mut program = Program::new(programs::floats());
    let one = 1f64.to_ne_bytes();
    for xmm in [0, 1] {
        program.fp.0[160 + 16 * xmm..168 + 16 * xmm].copy_from_slice(&one);
    }
    let high = 576 + 16 * 3;
    program.fp.0[high..high + 8].copy_from_slice(&2.5f64.to_ne_bytes());
    // x87, SSE and AVX are in use.
    program.fp.0[512] = 7;
    for round in 2..10u32 {
        assert_eq!(program.run(), Trap::Syscall);
        let get = |at: usize| f64::from_ne_bytes(program.fp.0[at..at + 8].try_into().unwrap());
        assert_eq!(get(160), f64::from(round));
        assert_eq!(get(576 + 16 * 2), 5.0);
        if round == 5 {
            // Another thread, another slot: the state is the kernel's.
            program.context = platform().new_context().unwrap();
        }
    }
}

#[test]
fn segment_bases_are_the_programs() {
    let mut program = Program::new(programs::bases());
    (program.regs.fs_base, program.regs.gs_base) = (0x1234_5000, 0x7fff_1234_5678);
    (program.regs.rdi, program.regs.rsi) = (0x1111, 0x2222);
    assert_eq!(program.run(), Trap::Syscall);
    assert_eq!((program.regs.rbx, program.regs.rbp), (0x1234_5000, 0x7fff_1234_5678));
    assert_eq!((program.regs.fs_base, program.regs.gs_base), (0x1111, 0x2222));
}

#[test]
fn faults_say_where_and_what() {
    let mut program = Program::new(programs::touch());
    program.regs.rdi = DATA;
    program.regs.rsi = 77;
    let fault = |trap: Trap| match trap {
        Trap::PageFault { addr, access, info } => (addr, access, info.trapno),
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(program.run()), (DATA, Access::Read, 14));
    assert_eq!(program.regs.ip(), CODE);
    let page = frames(1);
    fill(page[0], 0, &55u64.to_ne_bytes());
    program.space.map(DATA, &page, Prot::READ).unwrap();
    assert_eq!(fault(program.run()), (DATA, Access::Write, 14));
    assert_eq!(program.regs.rbx, 55);
    // Copy on write: another frame, writable.
    let copy = frames(1);
    program.space.map(DATA, &copy, Prot::READ | Prot::WRITE).unwrap();
    assert_eq!(program.run(), Trap::Syscall);
    assert_eq!((word(page[0], 0), word(copy[0], 0)), (55, 77));
    // Lowered rights and removal hold at once.
    program.space.protect(DATA, PAGE, Prot::READ);
    program.space.sync();
    assert_eq!(fault(program.run()), (DATA, Access::Write, 14));
    program.space.unmap(DATA, PAGE, &mut |va, frame| assert_eq!((va, frame), (DATA, copy[0])));
    program.space.sync();
    assert_eq!(fault(program.run()), (DATA, Access::Write, 14));
    program.regs.set_ip(DATA + 8);
    assert_eq!(fault(program.run()), (DATA + 8, Access::Execute, 14));
}

#[test]
fn exceptions_are_the_signals_linux_sends() {
    for (code, signo, si_code, ip) in [
        (programs::illegal(), libc::SIGILL, 2, 0),
        (programs::divide(), libc::SIGFPE, 1, 9),
        (programs::breakpoint(), libc::SIGTRAP, 0x80, 1),
        (programs::int80(), libc::SIGSEGV, 0x80, 5),
        (programs::noncanonical(), libc::SIGSEGV, 0x80, 10),
    ] {
        let mut program = Program::new(code);
        match program.run() {
            Trap::Signal(info) => assert_eq!((info.signo, info.code), (signo, si_code)),
            other => panic!("{other:?}"),
        }
        assert_eq!(program.regs.ip(), CODE + ip);
    }
}

#[test]
fn single_step_stops_after_each_instruction() {
    let mut program = Program::new(programs::nops());
    program.regs.eflags |= 0x100;
    for step in 1..4 {
        match program.run() {
            Trap::Signal(info) => assert_eq!((info.signo, info.code), (libc::SIGTRAP, 2)),
            other => panic!("{other:?}"),
        }
        assert_eq!(program.regs.ip(), CODE + step);
    }
}

/// Whatever the host's kernel makes of it: ours answers it.
#[test]
fn a_call_of_the_vsyscall_page_is_a_fetch_from_there() {
    let page = 0xffff_ffff_ff60_0000;
    let mut program = Program::new(programs::call_rax());
    program.regs.rax = page;
    match program.run() {
        Trap::PageFault { addr, access: Access::Execute, .. } => assert_eq!(addr, page),
        other => panic!("{other:?}"),
    }
    assert_eq!((program.regs.ip(), program.regs.sp()), (page, STACK - 72));
}

#[test]
fn kicks_are_never_lost() {
    as_worker(|id| {
        let mut program = Program::new(programs::spin());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    platform().kick(id);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            for _ in 0..500 {
                assert_eq!(program.run(), Trap::Kick);
            }
            stop.store(true, Ordering::Relaxed);
        });
        // One sent to a worker in kernel code makes the next switch return.
        platform().kick(id);
        assert_eq!(program.run(), Trap::Kick);
        // And a single one in the middle is enough.
        for _ in 0..20 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(1));
                    platform().kick(id);
                });
                assert_eq!(program.run(), Trap::Kick);
            });
        }
    });
}

#[test]
fn threads_share_their_space() {
    let mut first = Program::new(programs::touch());
    let page = frames(1);
    first.space.map(DATA, &page, Prot::READ | Prot::WRITE).unwrap();
    let mut threads: Vec<Program> = (0..5).map(|i| first.thread(CODE, STACK - 512 * (i + 2))).collect();
    (first.regs.rdi, first.regs.rsi) = (DATA, 1);
    assert_eq!(first.run(), Trap::Syscall);
    for (i, thread) in threads.iter_mut().enumerate() {
        (thread.regs.rdi, thread.regs.rsi) = (DATA, i as u64 + 2);
        assert_eq!(thread.run(), Trap::Syscall);
        assert_eq!(thread.regs.rbx, i as u64 + 1);
    }
}

/// The mapper gives a thread the turn when a batch of orders is done. By then another worker may have written the next
/// batch, for another thread.
#[test]
fn two_workers_order_in_one_space_at_once() {
    let first = Program::new(programs::touch());
    let programs: Vec<Program> = (2..4).map(|i| first.thread(CODE, STACK - 512 * i)).collect();
    let (done, wait) = std::sync::mpsc::channel();
    for (i, mut program) in (0u64..).zip(programs) {
        let done = done.clone();
        std::thread::spawn(move || {
            as_worker(|_| {
                let at = DATA + 0x1000_0000 * i;
                let page = frames(1);
                for round in 0..10_000 {
                    program.space.map(at, &page, Prot::READ | Prot::WRITE).unwrap();
                    program.regs = host::arch::UserRegs::start(CODE, STACK - 512 * (i + 2));
                    (program.regs.rdi, program.regs.rsi) = (at, round);
                    assert_eq!(program.run_on(), Trap::Syscall);
                    assert_eq!(word(page[0], 0), round);
                    program.space.unmap(at, PAGE, &mut |_, _| ());
                }
            });
            done.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        wait.recv_timeout(Duration::from_secs(600)).expect("a thread sleeps for ever");
    }
}

#[test]
fn a_context_moves_between_spaces() {
    let mut program = Program::new(programs::null_calls());
    assert_eq!(program.run(), Trap::Syscall);
    let other = Program::new(programs::touch());
    let page = frames(1);
    other.space.map(DATA, &page, Prot::READ | Prot::WRITE).unwrap();
    program.space = other.space.clone();
    program.regs = host::arch::UserRegs::start(CODE, STACK - 64);
    (program.regs.rdi, program.regs.rsi) = (DATA, 9);
    assert_eq!(program.run(), Trap::Syscall);
    assert_eq!(word(page[0], 0), 9);
}

/// Not a test of time: prints what things cost (`--nocapture`), and holds that they end.
#[test]
fn costs() {
    as_worker(|_| {
        let mut program = Program::new(programs::null_calls());
        program.run();
        let start = Instant::now();
        let rounds = 20_000;
        for _ in 0..rounds {
            assert_eq!(program.run_on(), Trap::Syscall);
        }
        println!("null switch: {} ns", start.elapsed().as_nanos() / rounds);
        let start = Instant::now();
        let rounds = 100;
        for _ in 0..rounds {
            let space = platform().new_space().unwrap();
            drop(space);
        }
        println!("new space: {} us", start.elapsed().as_micros() / rounds);
        let mut program = Program::new(programs::touch());
        let start = Instant::now();
        let rounds = 2000;
        for i in 0..rounds {
            program.regs = host::arch::UserRegs::start(CODE, STACK - 64);
            (program.regs.rdi, program.regs.rsi) = (DATA, 9);
            assert!(matches!(program.run_on(), Trap::PageFault { .. }));
            program.space.map(DATA, &frames(1), Prot::READ | Prot::WRITE).unwrap();
            assert_eq!(program.run_on(), Trap::Syscall, "{i}");
            program.space.unmap(DATA, PAGE, &mut |_, _| ());
            program.space.sync();
        }
        println!("fault, map, unmap, sync: {} ns", start.elapsed().as_nanos() / rounds);
    });
}
