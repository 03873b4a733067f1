use super::NSEC_PER_SEC;
use super::published::{self, SHIFT};
use crate::arch::counter;
use crate::hostsys::clock::now as host_now;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// The least time between the two readings that a rate is computed from: each is good to some 100 ns, so this makes
/// the first rate good to about 0.1 %.
const SHORTEST_BASELINE_NS: u64 = 200_000;
/// How long the clock is good for without being compared with the host's: as long as the first reading is ago, which
/// says how good the rate is, within these bounds. Corrections closer together are skipped.
const VALID_NS: core::ops::RangeInclusive<u64> = NSEC_PER_SEC / 100..=NSEC_PER_SEC;
/// A correction that would set the clock back is spread over this time.
const SLEW_NS: u64 = *VALID_NS.end();

struct Clock {
    /// Odd while being written.
    sequence: AtomicU64,
    base_ticks: AtomicU64,
    base_ns: AtomicU64,
    rate: AtomicU64,
    /// How far the counter may be from the base.
    valid_ticks: AtomicU64,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`.
    realtime_offset: AtomicU64,
    /// The counter is a clock: otherwise every reading asks the host.
    usable: AtomicBool,
    /// First reading ever: the longest baseline for the rate.
    start_ticks: AtomicU64,
    start_ns: AtomicU64,
    writer: AtomicBool,
    /// Counters that are read here may be a few ticks apart.
    apart: AtomicBool,
    /// By how many ticks at most the one that programs read is ahead of one that is read here, while they may.
    lead: AtomicU64,
    /// The latest reading, while they may be apart.
    latest: AtomicU64,
}

static CLOCK: Clock = Clock {
    sequence: AtomicU64::new(0),
    base_ticks: AtomicU64::new(0),
    base_ns: AtomicU64::new(0),
    rate: AtomicU64::new(0),
    valid_ticks: AtomicU64::new(0),
    realtime_offset: AtomicU64::new(0),
    usable: AtomicBool::new(false),
    start_ticks: AtomicU64::new(0),
    start_ns: AtomicU64::new(0),
    writer: AtomicBool::new(false),
    apart: AtomicBool::new(false),
    lead: AtomicU64::new(0),
    latest: AtomicU64::new(0),
};

/// Nanoseconds of the host's `CLOCK_MONOTONIC`. No host call once calibrated.
#[inline]
pub fn monotonic_ns() -> u64 {
    if CLOCK.usable.load(Ordering::Acquire) { CLOCK.read() } else { host_now(libc::CLOCK_MONOTONIC) }
}

/// Nanoseconds of the host's `CLOCK_REALTIME`. No host call once calibrated.
#[inline]
pub fn realtime_ns() -> u64 {
    if CLOCK.usable.load(Ordering::Acquire) {
        CLOCK.read().wrapping_add(CLOCK.realtime_offset.load(Ordering::Relaxed))
    } else {
        host_now(libc::CLOCK_REALTIME)
    }
}

/// What to add to [`monotonic_ns`] to get [`realtime_ns`].
pub fn realtime_offset_ns() -> u64 {
    if !CLOCK.usable.load(Ordering::Acquire) {
        return host_now(libc::CLOCK_REALTIME).wrapping_sub(host_now(libc::CLOCK_MONOTONIC));
    }
    CLOCK.realtime_offset.load(Ordering::Relaxed)
}

/// How long so many counter ticks take.
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(CLOCK.rate.load(Ordering::Relaxed))) >> SHIFT) as u64
}

/// Says that the counter's readings may come from counters a few ticks apart, the one that programs read being up to `lead`
/// ticks ahead. The clock still never runs backwards: it is as far ahead of whatever counter is read here, so that nobody
/// has read a later time in a program; and what it has shown is the least that programs read from then on.
pub fn counters_may_be_apart(lead: u64) {
    CLOCK.lead.store(lead, Ordering::SeqCst);
    CLOCK.apart.store(true, Ordering::SeqCst);
}

/// Takes the first reading. Call as early as possible: what happens until [`calibrate`] lengthens the baseline.
pub fn set_start() {
    if CLOCK.start_ns.load(Ordering::Relaxed) == 0 {
        let (ticks, ns) = reading();
        CLOCK.start_ticks.store(ticks, Ordering::Relaxed);
        CLOCK.start_ns.store(ns, Ordering::Release);
    }
}

/// Seeds the clock. Calls after the first do nothing. Call before the first task runs.
pub fn calibrate() {
    set_start();
    if CLOCK.rate.load(Ordering::Acquire) != 0 {
        return;
    }
    let (start_ticks, start_ns) =
        (CLOCK.start_ticks.load(Ordering::Relaxed), CLOCK.start_ns.load(Ordering::Acquire));
    let (mut ticks, mut ns) = reading();
    while counter::frequency().is_none() && ns - start_ns < SHORTEST_BASELINE_NS {
        core::hint::spin_loop();
        (ticks, ns) = reading();
    }
    let rate = match counter::frequency() {
        Some(hertz) => ((u128::from(NSEC_PER_SEC) << SHIFT) / u128::from(hertz)) as u64,
        None => rate_between((start_ticks, start_ns), (ticks, ns)),
    };
    if rate == 0 {
        return;
    }
    CLOCK.write(ticks, ns, rate);
    // The rate is good enough for CPU times in any case.
    CLOCK.usable.store(counter_is_a_clock(), Ordering::Release);
}

/// Compares the clock with the host's and corrects it, if it is time to. Makes host calls then: for host threads that are
/// awake anyway, and where a program asks for the time.
pub fn resync() {
    let passed = || counter::read().saturating_sub(CLOCK.base_ticks.load(Ordering::Relaxed));
    if !CLOCK.usable.load(Ordering::Acquire)
        || passed() <= CLOCK.valid_ticks.load(Ordering::Relaxed)
        || CLOCK.writer.swap(true, Ordering::Acquire)
    {
        return;
    }
    let (ticks, host) = reading();
    let ours = CLOCK.at(ticks);
    let start = (CLOCK.start_ticks.load(Ordering::Relaxed), CLOCK.start_ns.load(Ordering::Relaxed));
    let true_rate = rate_between(start, (ticks, host));
    if true_rate != 0 {
        if host >= ours {
            CLOCK.write(ticks, host, true_rate);
        } else {
            // Ahead of the host: run slower until it has caught up, never back.
            let ahead = (ours - host).min(SLEW_NS / 2);
            let slower = (u128::from(true_rate) * u128::from(SLEW_NS - ahead) / u128::from(SLEW_NS)) as u64;
            CLOCK.write(ticks, ours, slower);
        }
    }
    CLOCK.writer.store(false, Ordering::Release);
}

/// Writes the clock to the page that programs read.
pub(super) fn publish() {
    while CLOCK.writer.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    if CLOCK.apart.load(Ordering::Relaxed) {
        published::seen(CLOCK.latest.load(Ordering::Acquire));
    }
    CLOCK.publish();
    CLOCK.writer.store(false, Ordering::Release);
}

impl Clock {
    #[inline]
    fn read(&self) -> u64 {
        let ticks = counter::read();
        if self.apart.load(Ordering::Relaxed) {
            let now = self.at(ticks.saturating_add(self.lead.load(Ordering::Relaxed)));
            let now = self.latest.fetch_max(now, Ordering::AcqRel).max(now);
            published::seen(now);
            now
        } else {
            self.at(ticks)
        }
    }

    #[inline]
    fn at(&self, ticks: u64) -> u64 {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let base_ticks = self.base_ticks.load(Ordering::Relaxed);
            let base_ns = self.base_ns.load(Ordering::Relaxed);
            let rate = self.rate.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                // A counter read on another CPU may be a few ticks behind the base's.
                let passed = ticks.saturating_sub(base_ticks);
                return base_ns + ((u128::from(passed) * u128::from(rate)) >> SHIFT) as u64;
            }
            core::hint::spin_loop();
        }
    }

    /// One writer at a time: `calibrate` before there are others, `resync` behind its flag.
    fn write(&self, ticks: u64, ns: u64, rate: u64) {
        let offset = host_now(libc::CLOCK_REALTIME).wrapping_sub(host_now(libc::CLOCK_MONOTONIC));
        self.sequence.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::Release);
        self.base_ticks.store(ticks, Ordering::Relaxed);
        self.base_ns.store(ns, Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
        self.valid_ticks.store(self.valid_ticks(ns, rate), Ordering::Relaxed);
        self.realtime_offset.store(offset, Ordering::Relaxed);
        self.sequence.fetch_add(1, Ordering::Release);
        self.publish();
    }

    fn valid_ticks(&self, ns: u64, rate: u64) -> u64 {
        let age = ns.saturating_sub(self.start_ns.load(Ordering::Relaxed));
        let valid = age.clamp(*VALID_NS.start(), *VALID_NS.end());
        ((u128::from(valid) << SHIFT) / u128::from(rate.max(1))) as u64
    }

    /// As [`Self::write`]: one at a time.
    fn publish(&self) {
        if self.usable.load(Ordering::Acquire) {
            let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
            published::write(
                word(&self.valid_ticks),
                word(&self.base_ticks),
                word(&self.base_ns),
                word(&self.rate),
                word(&self.realtime_offset),
            );
        }
    }
}

/// The counter and the host's monotonic clock at (nearly) the same moment: the tightest of a few tries.
fn reading() -> (u64, u64) {
    let tries = core::array::from_fn::<_, 3, _>(|_| {
        let before = counter::read();
        let ns = host_now(libc::CLOCK_MONOTONIC);
        let after = counter::read();
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), ns)
    });
    let [mut best, second, third] = tries;
    for other in [second, third] {
        if other.0 < best.0 {
            best = other;
        }
    }
    (best.1, best.2)
}

fn rate_between(from: (u64, u64), to: (u64, u64)) -> u64 {
    let ticks = to.0.wrapping_sub(from.0);
    let ns = to.1.saturating_sub(from.1);
    if ticks == 0 { 0 } else { ((u128::from(ns) << SHIFT) / u128::from(ticks)) as u64 }
}

/// Whether the host keeps time by the counter itself.
fn counter_is_a_clock() -> bool {
    if counter::frequency().is_some() {
        return true;
    }
    crate::hostsys::told::text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .is_some_and(|name| name.trim() == "tsc")
}

#[cfg(test)]
mod tests {
    use super::published::{self, BASE_NS, BASE_TICKS, RATE, SEQUENCE, SHIFT, VALID_TICKS};
    use super::{CLOCK, calibrate, counter, host_now, monotonic_ns, realtime_ns, resync};
    use core::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn programs_read_the_same_clock() {
        calibrate();
        let words = core::array::from_fn(|_| &*Box::leak(Box::new(AtomicU64::new(0))));
        published::to(words);
        let word = |index: usize| words[index].load(Ordering::SeqCst);
        if !CLOCK.usable.load(Ordering::SeqCst) {
            assert_eq!(word(VALID_TICKS), 0);
            return;
        }
        let mut compared = 0;
        while compared < 1000 {
            resync();
            let sequence = word(SEQUENCE);
            let before = monotonic_ns();
            let passed = counter::read().saturating_sub(word(BASE_TICKS));
            let reading = word(BASE_NS) + ((u128::from(passed) * u128::from(word(RATE))) >> SHIFT) as u64;
            let (after, valid) = (monotonic_ns(), word(VALID_TICKS));
            if sequence.is_multiple_of(2) && word(SEQUENCE) == sequence && passed <= valid {
                assert!((before..=after).contains(&reading), "{before} {reading} {after}");
                compared += 1;
            }
        }
    }

    #[test]
    fn follows_the_host_and_never_runs_back() {
        calibrate();
        let mut last = 0;
        for round in 0..20_000 {
            let now = monotonic_ns();
            assert!(now >= last, "{now} after {last}");
            last = now;
            if round % 1000 == 0 {
                resync();
            }
        }
        // Between two readings of the host's, whatever happens to this thread meanwhile.
        let clocks =
            [(libc::CLOCK_MONOTONIC, monotonic_ns as fn() -> u64), (libc::CLOCK_REALTIME, realtime_ns)];
        for (clock, ours) in clocks {
            let (before, now, after) = (host_now(clock), ours(), host_now(clock));
            assert!((before - 50_000_000..=after + 50_000_000).contains(&now), "{before} {now} {after}");
        }
    }
}
