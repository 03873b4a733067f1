//! The entries of /proc that are not processes: what the kernel says of itself and of the machine.
//!
//! What is not known, or is not there (modules, disks, swap), is empty or missing, never made up. `/proc/sys` is in `sysctl`.

use super::{sysctl, sysvipc};
use crate::abi::{Errno, Result};
use crate::arch::{HIDDEN_FEATURES, MACHINE};
use crate::arena::ledger;
use crate::fs::FILESYSTEMS;
use crate::fs::pseudo::{Opened, Text, next_ino};
use crate::kernel::cgroups::{CgroupId, Controllers};
use crate::kernel::namespaces::time::Shifted;
use crate::kernel::pids::PidNamespace;
use crate::kernel::{Kernel, RELEASE, VERSION, memory};
use crate::vfs::Inode;
use std::fmt::Write;
use std::sync::{Arc, Weak};

/// Clock ticks per second of user-visible times.
pub(super) const USER_HZ: u64 = 100;
const NS_PER_TICK: u64 = 1_000_000_000 / USER_HZ;

pub(super) fn text(
    kernel: &Arc<Kernel>,
    make: impl Fn(&Arc<Kernel>) -> String + Send + Sync + 'static,
) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::new(next_ino(), move || {
        let kernel = kernel.upgrade().ok_or(Errno::EIO)?;
        Ok(make(&kernel).into_bytes())
    })
}

/// The same of what depends on by how much the clocks of who opens it are put forward, ns.
fn shifted(kernel: &Arc<Kernel>, make: fn(&Arc<Kernel>, i64) -> String) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::opened(next_ino(), move |caller| {
        let kernel = kernel.upgrade().ok_or(Errno::EIO)?;
        let shift = kernel.task(caller.tid).map_or(0, |task| task.group.shifts.of(Shifted::Boottime));
        let kernel = Arc::downgrade(&kernel);
        Ok(Opened::new(move || {
            let kernel = kernel.upgrade().ok_or(Errno::EIO)?;
            Ok(make(&kernel, shift).into_bytes())
        }))
    })
}

/// All of them.
pub(super) fn entries(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let (own, owners) = (pids.clone(), pids.clone());
    vec![
        ("meminfo", text(kernel, |_| meminfo())),
        ("cpuinfo", text(kernel, cpuinfo)),
        ("stat", shifted(kernel, stat)),
        ("uptime", shifted(kernel, uptime)),
        ("loadavg", text(kernel, move |kernel| loadavg(kernel, &own))),
        ("version", Text::fixed(format!("Linux version {RELEASE} (pillbox) {VERSION}\n"))),
        (
            "filesystems",
            text(kernel, |_| FILESYSTEMS.iter().map(|name| format!("nodev\t{name}\n")).collect()),
        ),
        ("cgroups", text(kernel, cgroups)),
        // Nobody passed the kernel any options.
        ("cmdline", Text::fixed("\n")),
        ("devices", Text::fixed("Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
        ("locks", text(kernel, move |kernel| kernel.file_locks.list(&|id| owners.number_of(id)))),
        ("swaps", Text::fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
        ("modules", Text::fixed("")),
        ("partitions", Text::fixed("")),
        ("diskstats", Text::fixed("")),
        ("vmstat", text(kernel, vmstat)),
        ("sys", sysctl::directory(kernel)),
        ("sysvipc", sysvipc::directory(kernel, pids)),
    ]
}

/// Controllers, all of which are version 2's.
fn cgroups(kernel: &Arc<Kernel>) -> String {
    let groups = 1 + kernel.cgroups.descendants(CgroupId::ROOT).unwrap_or(0);
    let mut out = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_owned();
    for (name, _) in Controllers::NAMES {
        // Linux's name for what version 2 calls io.
        let name = if name == "io" { "blkio" } else { name };
        let _ = writeln!(out, "{name}\t0\t{groups}\t1");
    }
    out
}

fn meminfo() -> String {
    let (total, free) = memory();
    let mut out = String::new();
    for (name, bytes) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free + ledger::cached()),
        // There are no disks to keep blocks of, and no swap.
        ("Buffers", 0),
        ("Cached", ledger::files() + ledger::cached()),
        ("SwapCached", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Shmem", ledger::files()),
        ("Slab", ledger::heap()),
        ("SReclaimable", 0),
        ("SUnreclaim", ledger::heap()),
    ] {
        let _ = writeln!(out, "{:<15} {:>8} kB", format!("{name}:"), bytes / 1024);
    }
    out
}

fn vmstat(kernel: &Arc<Kernel>) -> String {
    let free = memory().1 / crate::mm::PAGE_SIZE;
    format!("nr_free_pages {free}\npswpin 0\npswpout 0\npgfault {}\n", kernel.metrics.page_faults.value())
}

fn cpuinfo(kernel: &Arc<Kernel>) -> String {
    // The host's own description of its first CPUs: programs look for features here.
    let host = kernel.host_cpuinfo();
    let blocks: Vec<&str> = host.split("\n\n").filter(|block| block.contains("processor")).collect();
    let in_vm = kernel.platform.name() == "kvm";
    let mut out = String::new();
    for cpu in 0..kernel.sched.worker_count() {
        match blocks.get(cpu).or(blocks.first()) {
            Some(block) => {
                for line in block.lines() {
                    let _ = match line.split_once(':') {
                        Some(("processor\t", _)) => writeln!(out, "processor\t: {cpu}"),
                        Some((name @ ("flags\t\t" | "Features\t"), words)) if in_vm => {
                            writeln!(out, "{name}:{}", offered(words))
                        }
                        _ => writeln!(out, "{line}"),
                    };
                }
            }
            None => {
                let _ = writeln!(out, "processor\t: {cpu}\nmodel name\t: {MACHINE}");
            }
        }
        out.push('\n');
    }
    out
}

/// Features that programs in a VM have, too.
fn offered(words: &str) -> String {
    let hidden = |word: &&str| HIDDEN_FEATURES.iter().any(|start| word.starts_with(start));
    words.split_whitespace().filter(|word| !hidden(word)).fold(String::new(), |all, word| all + " " + word)
}

/// CPU times: what tasks have used is all `user` (see `task::status`). Tasks go from worker to worker and nobody counts
/// where they were, so each CPU shows its share of the whole.
fn stat(kernel: &Arc<Kernel>, shift: i64) -> String {
    let workers = kernel.sched.worker_count() as u64;
    let (used, up) = (kernel.cpu_ns() / NS_PER_TICK, kernel.uptime_ns() / NS_PER_TICK);
    let idle = (up * workers).saturating_sub(used);
    let mut out = format!("cpu  {used} 0 0 {idle} 0 0 0 0 0 0\n");
    for cpu in 0..workers {
        let _ = writeln!(out, "cpu{cpu} {} 0 0 {} 0 0 0 0 0 0", used / workers, idle / workers);
    }
    let passed = kernel.uptime_ns().saturating_add_signed(shift);
    let boot = crate::time::realtime_ns().saturating_sub(passed) / 1_000_000_000;
    let forks = kernel.tree.lock().allocated();
    // Kicks are what comes closest to interrupts. Nobody waits for a disk: that is a sleep like any other.
    let _ = write!(
        out,
        "intr {}\nctxt {}\nbtime {boot}\nprocesses {forks}\nprocs_running {}\nprocs_blocked 0\n",
        kernel.metrics.kicks.value(),
        kernel.sched.switches(),
        kernel.running(),
    );
    out
}

/// A time in seconds with two digits behind the point.
fn seconds(ns: u64) -> String {
    let hundredths = ns / 10_000_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn uptime(kernel: &Arc<Kernel>, shift: i64) -> String {
    let up = kernel.uptime_ns();
    let idle = (up * kernel.sched.worker_count() as u64).saturating_sub(kernel.cpu_ns());
    format!("{} {}\n", seconds(up.saturating_add_signed(shift)), seconds(idle))
}

fn loadavg(kernel: &Arc<Kernel>, pids: &PidNamespace) -> String {
    let ([one, five, fifteen], running) = (kernel.load(), kernel.running());
    let tree = kernel.tree.lock();
    format!("{one:.2} {five:.2} {fifteen:.2} {running}/{} {}\n", tree.task_count(), pids.last(&tree))
}

/// For callers that want an error type of their own.
pub(super) fn lines(text: String) -> Result<Vec<u8>> {
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{HIDDEN_FEATURES, offered, seconds};

    #[test]
    fn features_that_are_not_saved_are_not_shown() {
        let all = format!(" one {} two", HIDDEN_FEATURES.join(" "));
        assert_eq!(offered(&all), " one two");
    }

    #[test]
    fn times_have_two_digits() {
        assert_eq!((seconds(0), seconds(1_019_999_999)), ("0.00".to_owned(), "1.01".to_owned()));
        assert_eq!(seconds(61_990_000_000), "61.99");
    }
}
