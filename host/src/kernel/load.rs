//! What the sandbox as a whole has done: CPU time, processes, load.
//!
//! An idle sandbox makes no wakeups, so nobody samples run queues every few seconds as Linux does. The load is made of the
//! CPU time used between two questions, each of which decays it by the time in between: a program that asks regularly
//! (top, a supervisor) sees what Linux would show of tasks that run; those that only wait for a CPU are not in it.

use super::{Kernel, RunState};
use crate::arena::ledger;
use crate::hostsys::process::memory_bytes;
use crate::mm::{PAGE_SIZE, frames};
use crate::sync::{Lock, Rank};
use crate::time::{NSEC_PER_SEC, monotonic_ns};
use core::sync::atomic::{AtomicU64, Ordering};

/// Over these times, in seconds.
const PERIODS: [f64; 3] = [60.0, 300.0, 900.0];

/// Totals that outlive the tasks they came from.
pub(super) struct Totals {
    /// CPU time of tasks that have ended, ns.
    ended_cpu_ns: AtomicU64,
    load: Lock<Load>,
}

impl Default for Totals {
    fn default() -> Self {
        Totals { ended_cpu_ns: AtomicU64::new(0), load: Lock::new(Rank::Load, Load::default()) }
    }
}

impl Totals {
    /// Counts a task that ends.
    pub(super) fn ended(&self, cpu_ns: u64) {
        self.ended_cpu_ns.fetch_add(cpu_ns, Ordering::Relaxed);
    }
}

/// Exponentially decaying averages, as of when somebody last asked.
#[derive(Clone, Copy, Default)]
struct Load {
    asked_ns: u64,
    cpu_ns: u64,
    averages: [f64; 3],
}

impl Load {
    /// Brings the averages up to `now`, `cpu_ns` having been used altogether.
    fn update(&mut self, now: u64, cpu_ns: u64) -> [f64; 3] {
        let elapsed = now.saturating_sub(self.asked_ns);
        if elapsed != 0 {
            let active = cpu_ns.saturating_sub(self.cpu_ns) as f64 / elapsed as f64;
            let seconds = elapsed as f64 / NSEC_PER_SEC as f64;
            for (average, period) in self.averages.iter_mut().zip(PERIODS) {
                let kept = (-seconds / period).exp();
                *average = *average * kept + active * (1.0 - kept);
            }
            (self.asked_ns, self.cpu_ns) = (now, cpu_ns);
        }
        self.averages
    }
}

/// Memory of the sandbox as a whole, in bytes: what there may be, as whoever chose it says it, and what of it is free.
pub fn memory() -> (u64, u64) {
    let total = frames::limit_bytes().min(memory_bytes());
    // A limit that is no less than the machine's memory is none to some (the JDK's CgroupMetrics.getMemoryLimit).
    let beside = if ledger::beside() == 0 { 0 } else { ledger::beside() + PAGE_SIZE };
    (total + beside, total.saturating_sub(ledger::used().saturating_sub(frames::spare_bytes())))
}

impl Kernel {
    /// Time since the start, ns.
    pub fn uptime_ns(&self) -> u64 {
        monotonic_ns() - self.boot_ns
    }

    /// CPU time used by all tasks there have been, ns.
    pub fn cpu_ns(&self) -> u64 {
        // One that ends between the two is in the first sum by the time it leaves the second.
        let tree = self.tree.lock();
        let live: u64 = tree.tasks().map(|task| task.cpu_ns()).sum();
        live + self.totals.ended_cpu_ns.load(Ordering::Relaxed)
    }

    /// Tasks that run or wait for a CPU.
    pub fn running(&self) -> usize {
        self.tree.lock().tasks().filter(|task| task.run_state() == RunState::Running).count()
    }

    /// Load averages over 1, 5 and 15 minutes.
    pub fn load(&self) -> [f64; 3] {
        let cpu_ns = self.cpu_ns();
        self.totals.load.lock().update(self.uptime_ns(), cpu_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, NSEC_PER_SEC};

    #[test]
    fn averages_approach_what_is_used_and_decay() {
        let mut load = Load::default();
        // Two tasks for a minute, asked in unequal steps.
        for at in [1, 2, 10, 30, 60] {
            load.update(at * NSEC_PER_SEC, 2 * at * NSEC_PER_SEC);
        }
        let [one, five, fifteen] = load.averages;
        assert!((one - 2.0 * (1.0 - (-1.0_f64).exp())).abs() < 1e-9, "{one}");
        assert!(one > five && five > fifteen && fifteen > 0.0);
        assert_eq!(load.update(60 * NSEC_PER_SEC, 120 * NSEC_PER_SEC), [one, five, fifteen]);
        let [later, ..] = load.update(120 * NSEC_PER_SEC, 120 * NSEC_PER_SEC);
        assert!((later - one * (-1.0_f64).exp()).abs() < 1e-9, "{later}");
    }
}
