//! What a moment cannot show: kicks at random times, thousands of changes of engine, clocks read in turn.
//!
//! `pillbox self-test --stress` runs it; `doctor` does not.

use super::{Rig, code};
use crate::arch::counter;
use crate::hostsys::file;
use crate::platform::{Access, Platform, Trap, in_guest};
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many kicks are sent.
const KICKS: u64 = 100_000;
/// How long the worker may take to acknowledge one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often each engine must be hit, at least. An emulator that runs all CPUs on one thread hits a worker nearly always
/// where it was when its CPU's turn ended: more kicks are sent until there are so many, for some time.
const HITS: u64 = 1000;
const STORM_TIME: Duration = Duration::from_secs(600);
/// How often a storm says how far it is: a machine may need minutes for it.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How often the clocks are read in turn, for how long at most, and how far apart bare counters may be where the host
/// cannot make them one. The kernel's clock never runs backwards.
const READINGS: u64 = 1_000_000;
const READING_TIME: Duration = Duration::from_secs(20);
const APART_NS: i64 = 2000;

type Test = fn(&mut Rig<'_>) -> Result<String, String>;

const STEPS: [(&str, Test); 6] = [
    ("ring 0 after a trap, host mode after a host call", engines),
    ("host calls execute once", host_calls),
    ("registers", registers),
    ("floating point of kernel and program", floating_point),
    ("kick storm", kick_storm),
    ("clocks", clocks),
];

/// Runs every step whose name begins with `only` on a worker of `platform`; `report` hears of each when it has ended, with what was measured or went wrong.
pub fn run(
    platform: &Arc<dyn Platform>,
    only: &str,
    report: &mut (dyn FnMut(&'static str, Result<String, String>) + Send),
) -> bool {
    let mut ok = true;
    let mut result = Ok(());
    let mut body = || match Rig::new(platform) {
        Ok(mut rig) => {
            for (name, test) in STEPS.into_iter().filter(|(name, _)| name.starts_with(only)) {
                let outcome = test(&mut rig);
                ok &= outcome.is_ok();
                report(name, outcome);
            }
        }
        Err(errno) => {
            ok = false;
            report("address space", Err(errno.to_string()));
        }
    };
    let worker = || result = platform.run_worker(0, &mut body);
    let joined = crate::arena::thread::scoped("stress", worker);
    match joined.and(result) {
        Ok(()) => ok,
        Err(errno) => {
            report("worker", Err(errno.to_string()));
            false
        }
    }
}

/// A generator of random numbers that are random enough (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Computes for a moment: at most about 2 to the power of `bits` steps.
fn work(random: &mut Random, bits: u64) {
    let longest = 1 << random.below(bits);
    for step in 0..random.below(longest) {
        black_box(step);
    }
}

/// Lets the worker run if there is one CPU for both: it is in user code that nothing but a kick ends, so who only turned round
/// would do so to the end of its time slice, and the worker then to the end of its own. A sleeper is woken in between.
fn give_way(random: &mut Random) {
    std::thread::sleep(Duration::from_micros(random.below(64)));
}

/// Waits for a moment. A few times only: an emulator that runs all CPUs on one thread gives each `pause` to the others,
/// for as long as those have something to do.
fn pause(random: &mut Random) {
    for _ in 0..random.below(4) {
        core::hint::spin_loop();
    }
}

impl Rig<'_> {
    /// One system call of the program: afterwards kernel code runs where it runs right after a trap.
    fn trap(&mut self) -> Result<(), String> {
        self.start(code::Program::Syscall);
        match self.switch() {
            Trap::Syscall => Ok(()),
            other => Err(format!("expected a system call, got {other:?}")),
        }
    }

    fn is_kvm(&self) -> bool {
        self.platform.name() == "kvm"
    }
}

fn engines(rig: &mut Rig<'_>) -> Result<String, String> {
    let kvm = rig.is_kvm();
    for round in 0..1000 {
        rig.trap()?;
        if in_guest() != kvm {
            return Err(format!("round {round}: in the guest: {}", in_guest()));
        }
        black_box(vec![round; 100]);
        if in_guest() != kvm {
            return Err(format!("round {round}: an allocation left the guest"));
        }
        crate::hostsys::process::id();
        if in_guest() {
            return Err(format!("round {round}: still in the guest after a host call"));
        }
    }
    Ok("1000 changes each way".to_owned())
}

/// Adds one to a host counter from ring 0, many times; the host's sum tells if any call was lost or made twice.
fn host_calls(rig: &mut Rig<'_>) -> Result<String, String> {
    const CALLS: u64 = 2000;
    let counter = file::event_counter().map_err(|e| e.to_string())?;
    let one = 1_u64.to_ne_bytes();
    let (thread, process) = (crate::hostsys::process::thread_id(), crate::hostsys::process::id());
    for call in 0..CALLS {
        rig.trap()?;
        let added = file::write(counter.raw(), &one);
        if added != Ok(8) {
            return Err(format!("call {call}: write said {added:?}"));
        }
        rig.trap()?;
        let ids = (crate::hostsys::process::thread_id(), crate::hostsys::process::id());
        if ids != (thread, process) {
            return Err(format!("call {call}: gettid and getpid said {ids:?}"));
        }
    }
    rig.trap()?;
    let mut sum = [0; 8];
    let read = file::read(counter.raw(), &mut sum);
    match (read, u64::from_ne_bytes(sum)) {
        (Ok(8), CALLS) => Ok(format!("{CALLS} calls")),
        other => Err(format!("{CALLS} calls counted as {other:?}")),
    }
}

fn registers(rig: &mut Rig<'_>) -> Result<String, String> {
    for round in 0..2000 {
        rig.start(code::Program::Syscall);
        let before = rig.regs;
        rig.expect(Trap::Syscall, |a, b| a == b)?;
        code::compare_after_syscall(&before, &rig.regs)?;
        rig.start(code::Program::Load);
        code::set_argument(&mut rig.regs, super::HOLE + round * 8 % 4096);
        let before = rig.regs;
        match rig.switch() {
            Trap::PageFault { addr, access: Access::Read, .. } if addr == super::HOLE + round * 8 % 4096 => {}
            other => return Err(format!("round {round}: got {other:?}")),
        }
        code::compare_after_fault(&before, &rig.regs)?;
        if round % 16 == 0 {
            // From the other engine, too.
            crate::hostsys::process::id();
        }
    }
    Ok("2000 system calls, 2000 faults".to_owned())
}

/// A program's rounding mode is not the kernel's, and the kernel's computing is not the program's.
fn floating_point(rig: &mut Rig<'_>) -> Result<String, String> {
    let third = black_box(1.0_f64) / black_box(3.0);
    for round in 0..1000 {
        rig.start(code::Program::Vector);
        code::set_vector(&mut rig.fp);
        code::round_up(&mut rig.fp);
        rig.expect(Trap::Syscall, |a, b| a == b)?;
        let ours = black_box(1.0_f64) / black_box(3.0);
        if ours.to_bits() != third.to_bits() {
            return Err(format!("round {round}: a third is {ours:?} in the kernel"));
        }
        let sum: f64 = (0..64).map(|n| black_box(f64::from(n)) * third).sum();
        if round % 8 == 0 {
            crate::hostsys::process::id();
        }
        let again: f64 = (0..64).map(|n| black_box(f64::from(n)) * third).sum();
        if sum.to_bits() != again.to_bits() {
            return Err(format!("round {round}: {sum:?} became {again:?} natively"));
        }
        code::check_vector(&rig.fp)?;
        if !code::rounds_up(&rig.fp) {
            return Err(format!("round {round}: the program's rounding mode is gone"));
        }
    }
    *rig.fp = crate::arch::FpState::initial();
    Ok("1000 rounds".to_owned())
}

/// What kicker and worker share.
#[derive(Default)]
struct Storm {
    /// Number of the last kick sent.
    sent: AtomicU64,
    /// The worker has noticed a kick when this was the last one sent.
    acknowledged: AtomicU64,
    /// Which engine the worker believes to run on (1: the guest), and how often it was hit there.
    engine: AtomicUsize,
    hits: [AtomicU64; 2],
    over: AtomicBool,
}

impl Storm {
    /// Sends kicks, alone and in bursts, at random times; every burst must be noticed.
    fn send(&self, platform: &Arc<dyn Platform>) -> Result<Duration, String> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        let alone = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
        let (mut sent, mut told) = (0, begun);
        let result = loop {
            for _ in 0..=random.below(24) {
                work(&mut random, 13);
                pause(&mut random);
                sent += 1;
                self.sent.store(sent, SeqCst);
                self.hits[self.engine.load(SeqCst)].fetch_add(1, SeqCst);
                platform.kick(0);
            }
            let start = Instant::now();
            while self.acknowledged.load(SeqCst) < sent && start.elapsed() < PATIENCE {
                if alone {
                    give_way(&mut random);
                } else {
                    core::hint::spin_loop();
                }
            }
            longest = longest.max(start.elapsed());
            if self.acknowledged.load(SeqCst) < sent {
                // Late, or never?
                while self.acknowledged.load(SeqCst) < sent && start.elapsed() < 5 * PATIENCE {
                    std::thread::yield_now();
                }
                let noticed = self.acknowledged.load(SeqCst);
                let time = start.elapsed().as_millis();
                let counters = platform.stats();
                break Err(format!(
                    "kick {sent}: {noticed} is the last one noticed after {time} ms; {counters:?}"
                ));
            }
            let hits = self.hits.each_ref().map(|hits| hits.load(SeqCst));
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                let [native, guest] = hits;
                eprintln!("kick storm: {sent} kicks so far, {native} while native, {guest} in the guest");
            }
            if sent >= KICKS && (hits[0].min(hits[1]) >= HITS || begun.elapsed() > STORM_TIME) {
                break Ok(longest);
            }
        };
        self.over.store(true, SeqCst);
        // The worker may be in user code again, or still: a lost kick is to be told of, not waited for.
        while self.engine.load(SeqCst) < 2 {
            platform.kick(0);
            std::thread::yield_now();
        }
        result
    }

    /// Runs user code that nothing but a kick ends, with kernel work in either engine in between.
    fn receive(&self, rig: &mut Rig<'_>) -> Result<(), String> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        while !self.over.load(SeqCst) {
            match random.below(3) {
                0 => {
                    self.engine.store(0, SeqCst);
                    for _ in 0..random.below(100) {
                        crate::hostsys::process::id();
                        pause(&mut random);
                    }
                    work(&mut random, 12);
                }
                1 => {
                    work(&mut random, 12);
                    pause(&mut random);
                }
                _ => {}
            }
            rig.start(code::Program::Spin);
            // On the way; from here on it can only be the guest.
            self.engine.store(1, SeqCst);
            match rig.switch() {
                Trap::Kick => self.acknowledged.store(self.sent.load(SeqCst), SeqCst),
                other => return Err(format!("expected a kick, got {other:?}")),
            }
        }
        Ok(())
    }
}

fn kick_storm(rig: &mut Rig<'_>) -> Result<String, String> {
    let storm = Arc::new(Storm::default());
    let (shared, platform) = (storm.clone(), rig.platform.clone());
    let start = Instant::now();
    let kicker = std::thread::spawn(move || shared.send(&platform));
    let received = storm.receive(rig);
    // Ends the kicker's last loop, and its waiting if the worker gave up.
    storm.engine.store(2, SeqCst);
    storm.acknowledged.store(u64::MAX, SeqCst);
    let sent = kicker.join().map_err(|_| "the kicker panicked".to_owned())?;
    received?;
    let longest = sent?;
    let [native, guest] = [&storm.hits[0], &storm.hits[1]].map(|hits| hits.load(SeqCst));
    let text = format!(
        "{} kicks in {} s, {native} while native, {guest} in the guest, the slowest noticed after {} us",
        storm.sent.load(SeqCst),
        start.elapsed().as_secs(),
        longest.as_micros()
    );
    // One may still be on its way: it must not be taken for the next step's.
    rig.start(code::Program::Syscall);
    while rig.switch() == Trap::Kick {
        rig.start(code::Program::Syscall);
    }
    if native.min(guest) < HITS { Err(text) } else { Ok(text) }
}

/// A host thread and kernel code in the guest read the time in turn: nobody is behind the other.
fn clocks(rig: &mut Rig<'_>) -> Result<String, String> {
    crate::time::calibrate();
    rig.trap()?;
    let kernel = alternate(rig, crate::time::monotonic_ns, 1, 0)?;
    let Some(hertz) = counter::frequency() else { return Ok(kernel) };
    rig.trap()?;
    let bare = alternate(rig, counter::read, (1_000_000_000 / hertz.max(1)).max(1) as i64, APART_NS)?;
    Ok(format!("{kernel}; the counter: {bare}"))
}

/// Reads a clock in the guest and on the host in turn; `unit` is what one step of it is in nanoseconds, `apart` how many of
/// those it may run backwards.
fn alternate(rig: &mut Rig<'_>, clock: fn() -> u64, unit: i64, apart: i64) -> Result<String, String> {
    struct Turn {
        /// How many readings there are; even: the host's turn.
        count: AtomicU64,
        last: AtomicU64,
        over: AtomicBool,
    }
    let turn =
        Arc::new(Turn { count: AtomicU64::new(0), last: AtomicU64::new(0), over: AtomicBool::new(false) });
    let wait = |turn: &Turn, parity: u64| {
        let mut spins = 0_u32;
        while turn.count.load(SeqCst) % 2 != parity && !turn.over.load(SeqCst) {
            spins += 1;
            core::hint::spin_loop();
            if parity == 0 && spins.is_multiple_of(100_000) {
                std::thread::yield_now();
            }
        }
    };
    let host = turn.clone();
    let reader = std::thread::spawn(move || {
        let mut behind = 0;
        loop {
            wait(&host, 0);
            if host.over.load(SeqCst) {
                return behind;
            }
            let now = clock();
            behind = behind.max(host.last.load(SeqCst).wrapping_sub(now) as i64);
            host.last.store(now, SeqCst);
            host.count.fetch_add(1, SeqCst);
        }
    });
    let start = Instant::now();
    let (mut behind, mut readings) = (0_i64, 0);
    while readings < READINGS {
        wait(&turn, 1);
        let now = clock();
        behind = behind.max(turn.last.load(SeqCst).wrapping_sub(now) as i64);
        turn.last.store(now, SeqCst);
        readings = turn.count.fetch_add(1, SeqCst) + 1;
        // The limit is looked at rarely: it may be a host call.
        if readings % 1024 == 0 {
            if start.elapsed() > READING_TIME {
                break;
            }
            rig.trap()?;
        }
    }
    turn.over.store(true, SeqCst);
    let host_behind = reader.join().map_err(|_| "the reader panicked".to_owned())?;
    let (behind, host_behind) = (behind * unit, host_behind * unit);
    let text =
        format!("{readings} readings, the guest at most {behind} ns behind, the host {host_behind} ns");
    if behind.max(host_behind) > apart { Err(text) } else { Ok(text) }
}
