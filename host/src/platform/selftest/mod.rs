//! The self-test of a platform: a handful of instructions of user code, and what must come of them.
//!
//! It is what `pillbox doctor` prints and what `--platform=auto` decides by. It runs on a worker thread, as kernel code
//! does; whoever calls it for an untrusted /dev/kvm does so in a child with a deadline.

use super::{Access, AddressSpace, Context, Platform, Prot, Trap};
use crate::arch::{FpState, Registers, UserRegs};
use crate::mm::frames::Page;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "assembles the test programs")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as code;

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "assembles the test programs")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as code;

pub mod stress;

/// Where the test program is mapped.
const CODE: u64 = 0x40_0000;
/// Nothing is mapped here.
const HOLE: u64 = 0x12_3000;
/// How many system calls are timed.
const CALLS: u32 = 1000;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Step {
    /// What.
    pub name: &'static str,
    /// How long it took.
    pub time: Duration,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

/// A thing that must not happen, made to happen in ring 0, to see that it ends as it would natively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Crash {
    /// A read through a null pointer.
    Null,
    /// Endless recursion.
    Overflow,
    /// A caught panic, after which everything goes on.
    Panic,
}

/// Gets into ring 0 by running a system call's worth of user code, then crashes there.
pub fn crash(platform: &Arc<dyn Platform>, how: Crash) -> bool {
    let mut ok = false;
    let mut worker = || platform.run_worker(0, &mut || ok = crash_in_ring0(platform, how));
    let joined = crate::arena::thread::scoped("crash", || {
        let _status = worker();
    });
    joined.is_ok() && ok
}

fn crash_in_ring0(platform: &Arc<dyn Platform>, how: Crash) -> bool {
    let Ok(mut rig) = Rig::new(platform) else { return false };
    rig.start(code::Program::Syscall);
    if rig.switch() != Trap::Syscall {
        return false;
    }
    match how {
        Crash::Null => code::read_null() == 0,
        Crash::Overflow => recurse(0) == 0,
        Crash::Panic => {
            let caught = std::panic::catch_unwind(|| panic!("a panic in ring 0")).is_err();
            rig.start(code::Program::Syscall);
            caught && rig.switch() == Trap::Syscall
        }
    }
}

/// Uses up the stack, a kilobyte a call.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let block = std::hint::black_box([depth; 128]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + block[depth as usize % 128] }
}

/// Runs every step on a worker of `platform`, in order, up to the first that fails. `report` hears of each step before it
/// starts (`None`) and when it has ended.
pub fn run(
    platform: &Arc<dyn Platform>,
    report: &mut (dyn FnMut(&'static str, Option<&Step>) + Send),
) -> bool {
    let mut ok = false;
    let mut result = Ok(());
    let worker = || result = platform.run_worker(0, &mut || ok = steps(platform, report));
    let joined = crate::arena::thread::scoped("selftest", worker);
    if let Err(errno) = joined.and(result) {
        let error = Some(errno.to_string());
        report("worker", Some(&Step { name: "worker", time: Duration::ZERO, error }));
        return false;
    }
    ok
}

struct Rig<'a> {
    platform: &'a Arc<dyn Platform>,
    space: Arc<dyn AddressSpace>,
    context: Box<dyn Context>,
    regs: UserRegs,
    fp: Box<FpState>,
}

impl<'a> Rig<'a> {
    fn new(platform: &'a Arc<dyn Platform>) -> crate::abi::Result<Self> {
        let space = platform.new_space()?;
        let page = Page::new()?;
        page.write(0, code::bytes());
        page.sync_code();
        space.map(CODE, &[page.into_frame()], Prot::READ | Prot::EXEC)?;
        let context = platform.new_context()?;
        let fp = Box::new(FpState::initial());
        Ok(Rig { platform, space, context, regs: UserRegs::default(), fp })
    }

    fn switch(&mut self) -> Trap {
        self.context.switch(&self.space, &mut self.regs, &mut self.fp)
    }

    fn start(&mut self, program: code::Program) {
        self.regs = UserRegs::start(CODE + program as u64 * code::STRIDE, 0);
        code::fill(&mut self.regs);
    }

    fn expect(&mut self, wanted: Trap, same: fn(&Trap, &Trap) -> bool) -> Result<(), String> {
        let got = self.switch();
        if same(&got, &wanted) { Ok(()) } else { Err(format!("expected {wanted:?}, got {got:?}")) }
    }
}

type Test = fn(&mut Rig<'_>) -> Result<(), String>;

const STEPS: [(&str, Test); 8] = [
    ("user code reached", |rig| {
        rig.start(code::Program::Syscall);
        rig.expect(Trap::Syscall, |a, b| a == b)
    }),
    ("syscall reached ring 0", |rig| {
        rig.start(code::Program::Syscall);
        let before = rig.regs;
        rig.expect(Trap::Syscall, |a, b| a == b)?;
        code::compare_after_syscall(&before, &rig.regs)
    }),
    ("page fault", |rig| {
        rig.start(code::Program::Load);
        code::set_argument(&mut rig.regs, HOLE);
        let before = rig.regs;
        let wanted = Trap::PageFault { addr: HOLE, access: Access::Read, info: Default::default() };
        rig.expect(wanted, |a, b| match (a, b) {
            (
                Trap::PageFault { addr, access, .. },
                Trap::PageFault { addr: wanted_addr, access: wanted_access, .. },
            ) => addr == wanted_addr && access == wanted_access,
            _ => false,
        })?;
        code::compare_after_fault(&before, &rig.regs)
    }),
    ("fault resolved and retried", |rig| {
        let page = Page::new().map_err(|e| e.to_string())?;
        page.write(0, &7u64.to_le_bytes());
        rig.space.map(HOLE, &[page.frame()], Prot::READ).map_err(|e| e.to_string())?;
        let result = rig.expect(Trap::Syscall, |a, b| a == b);
        rig.space.unmap(HOLE, 4096, &mut |_, _| ());
        rig.space.sync();
        result?;
        match code::loaded(&rig.regs) {
            7 => Ok(()),
            other => Err(format!("loaded {other} instead of 7")),
        }
    }),
    ("floating point", |rig| {
        rig.start(code::Program::Vector);
        code::set_vector(&mut rig.fp);
        rig.expect(Trap::Syscall, |a, b| a == b)?;
        code::check_vector(&rig.fp)
    }),
    ("host call", |_| {
        let id = crate::hostsys::process::id();
        if id as u32 == std::process::id() { Ok(()) } else { Err(format!("getpid() = {id}")) }
    }),
    ("kick", |rig| {
        rig.start(code::Program::Spin);
        let done = Arc::new(AtomicBool::new(false));
        let (platform, flag) = (rig.platform.clone(), done.clone());
        let kicker = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
                platform.kick(0);
            }
        });
        let result = rig.expect(Trap::Kick, |a, b| a == b);
        done.store(true, Ordering::Relaxed);
        let _ = kicker.join();
        result
    }),
    ("1000 system calls", |rig| {
        for _ in 0..CALLS {
            rig.start(code::Program::Syscall);
            loop {
                match rig.switch() {
                    Trap::Syscall => break,
                    // A kick of the step before may arrive late.
                    Trap::Kick => {}
                    other => return Err(format!("expected {:?}, got {other:?}", Trap::Syscall)),
                }
            }
        }
        Ok(())
    }),
];

fn steps(platform: &Arc<dyn Platform>, report: &mut (dyn FnMut(&'static str, Option<&Step>) + Send)) -> bool {
    let start = Instant::now();
    let mut rig = match Rig::new(platform) {
        Ok(rig) => rig,
        Err(errno) => {
            let error = Some(errno.to_string());
            report("address space", Some(&Step { name: "address space", time: start.elapsed(), error }));
            return false;
        }
    };
    for (name, test) in STEPS {
        report(name, None);
        let start = Instant::now();
        let error = test(&mut rig).err();
        let step = Step { name, time: start.elapsed(), error };
        report(name, Some(&step));
        if step.error.is_some() {
            return false;
        }
    }
    true
}
