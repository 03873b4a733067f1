//! Attacks on everybody's time: some processes do what takes long, or is never over, while another one's heart beats.
//!
//! On a busy machine any beat may be late. So a storm is tried a few times, and what matters is that one of them did no harm:
//! an attack that works does so each time.

use crate::{churn, forge, host, length, memory, nested, silence, spaces, sys, times};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What some processes do to the others.
pub(crate) struct Attack {
    /// In a word.
    pub(crate) name: &'static str,
    /// Returns only if it has failed to start.
    pub(crate) run: fn() -> i32,
    /// How late a beat may be.
    late: Duration,
    /// How long after SIGKILL it may live.
    lives: Duration,
    /// Makes what they share, before there are any.
    prepare: fn(),
    /// What others do to them between two beats.
    look_on: fn(&[i32]),
    /// How many [`round`]s the attackers make at least before they are ended, if there is time for them.
    rounds: u64,
}

const fn attack(name: &'static str, run: fn() -> i32) -> Attack {
    Attack { name, run, late: LATE, lives: LATE, prepare: || (), look_on: |_| (), rounds: 0 }
}

/// An attack by processes that have much memory, and take a while to give it back.
const fn much(name: &'static str, rounds: u64, run: fn() -> i32) -> Attack {
    Attack { rounds, lives: GIVES_BACK, ..attack(name, run) }
}

/// The attacks.
pub(crate) const ATTACKS: &[Attack] = &[
    attack("spin", || {
        loop {
            std::hint::spin_loop();
        }
    }),
    Attack { late: ANSWERED, ..attack("masked", forge::masked) },
    attack("timers", times::timers),
    attack("timerfds", times::timer_descriptors),
    attack("intervals", times::intervals),
    attack("eternal", times::eternal),
    Attack { lives: GIVES_BACK, ..attack("populate", length::populate) },
    Attack { lives: GIVES_BACK, ..attack("advise", length::advise) },
    attack("punch", length::punch),
    attack("send", length::send),
    attack("random", length::random),
    attack("zero", length::zero),
    attack("sparse", length::sparse),
    attack("peek", length::peek),
    attack("areas", length::areas),
    much("unmap", 4, spaces::unmap),
    much("hide", 8, spaces::hide),
    much("lower", 8, spaces::lower),
    much("relocate", 8, spaces::relocate),
    much("discard", 4, spaces::discard),
    much("end", 4, spaces::end),
    much("inherit", 4, spaces::inherit),
    Attack { rounds: 4, ..attack("nested", nested::pids) },
    attack("watches", churn::watches),
    attack("flood", length::flood),
    attack("kept", host::kept),
    Attack { prepare: silence::prepare, look_on: silence::look_on, ..attack("silence", silence::wait) },
];

/// Those that need nobody outside, and that the platform does not have to wait for: what all of them do at once.
pub(crate) fn usual() -> impl Iterator<Item = &'static Attack> {
    let special = ["masked", "flood", "kept", "silence"];
    ATTACKS.iter().filter(move |attack| !special.contains(&attack.name))
}

/// How late a beat may be, and how long after SIGKILL the attackers may live, unless there is a reason.
const LATE: Duration = Duration::from_millis(100);
/// How long one may live that has a second's worth of pages to give back.
const GIVES_BACK: Duration = Duration::from_secs(1);
/// How late it may be where somebody has a second to answer.
const ANSWERED: Duration = Duration::from_millis(1800);
/// Between two beats, and how many there are in a storm.
const BEAT: Duration = Duration::from_millis(50);
const BEATS: u32 = 20;
/// How long they are waited for.
const AT_LAST: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;

/// Runs an attack by `count` processes on a machine that is `slower` times slower than a usual one, and fails if it
/// harms anybody.
///
/// # Errors
/// What it did.
pub(crate) fn run(name: &str, count: &str, slower: &str) -> Result<(), String> {
    let count: usize = count.parse().map_err(|e| format!("{count}: {e}"))?;
    let slower: u32 = slower.parse().map_err(|e| format!("{slower}: {e}"))?;
    let attack = ATTACKS.iter().find(|attack| attack.name == name);
    let attack = attack.ok_or_else(|| format!("no such attack: {name}"))?;
    let mut harm = String::new();
    for _ in 0..TRIES {
        let (late, lived) = storm(attack, count)?;
        if late <= attack.late * slower && lived <= attack.lives * slower {
            println!("{name} did no harm: beats {late:?} late at most, alive {lived:?} after SIGKILL");
            return Ok(());
        }
        harm = format!("{name}: a beat {late:?} late; alive {lived:?} after SIGKILL");
        eprintln!("hold: {harm}");
    }
    Err(harm)
}

/// Where attackers count their rounds: memory that all processes share.
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Which attacker this is.
static INDEX: AtomicU64 = AtomicU64::new(0);

/// Which attacker this is, of all there are.
pub(crate) fn index() -> usize {
    INDEX.load(Ordering::Relaxed) as usize
}

fn rounds() -> &'static AtomicU64 {
    memory::shared_word(&ROUNDS)
}

/// An attacker that has to prepare has done what it has prepared.
pub(crate) fn round() {
    rounds().fetch_add(1, Ordering::Relaxed);
}

/// The latest beat, and how long it took to end the attackers.
fn storm(attack: &Attack, count: usize) -> Result<(Duration, Duration), String> {
    let mut attackers = Vec::new();
    rounds().store(0, Ordering::Relaxed);
    (attack.prepare)();
    for index in 0..count {
        INDEX.store(index as u64, Ordering::Relaxed);
        attackers.push(sys::fork(attack.run)?);
    }
    let mut late = Duration::ZERO;
    let (begun, mut beats) = (Instant::now(), 0);
    while beats < BEATS || rounds().load(Ordering::Relaxed) < attack.rounds && begun.elapsed() < AT_LAST {
        let start = Instant::now();
        (attack.look_on)(&attackers);
        std::thread::sleep(BEAT);
        late = late.max(start.elapsed() - BEAT);
        beats += 1;
    }
    let start = Instant::now();
    attackers.iter().for_each(|pid| sys::kill(*pid));
    while !attackers.is_empty() {
        if let Some((pid, status)) = sys::reap() {
            attackers.retain(|attacker| *attacker != pid);
            if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 {
                return Err(format!("the attack did not start: {}", libc::WEXITSTATUS(status)));
            }
        } else if start.elapsed() > AT_LAST {
            return Err(format!("{} live on {AT_LAST:?} after SIGKILL", attackers.len()));
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok((late, start.elapsed()))
}
