//! The entries of /proc that are not processes.

use crate::abi::{Errno, Result};
use crate::arch::MACHINE;
use crate::fs::pseudo::{Dir, Text, next_ino};
use crate::hostsys::file::random;
use crate::kernel::{Kernel, RunState};
use crate::mm::frames;
use crate::vfs::Inode;
use std::fmt::Write;
use std::sync::{Arc, Weak};

/// Release and version that the sandbox shows (uname(2) says the same).
pub(super) const OSRELEASE: &str = "6.1.0";
const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Pillbox";
/// Clock ticks per second of user-visible times.
pub(super) const USER_HZ: u64 = 100;

fn text(
    kernel: &Arc<Kernel>,
    make: impl Fn(&Arc<Kernel>) -> String + Send + Sync + 'static,
) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::new(next_ino(), move |_| {
        let kernel = kernel.upgrade().ok_or(Errno::EIO)?;
        Ok(make(&kernel).into_bytes())
    })
}

fn fixed(value: &str) -> Arc<dyn Inode> {
    Text::fixed(format!("{value}\n"))
}

/// A setting that can be written and keeps what was written, without effect.
fn setting(value: &str) -> Arc<dyn Inode> {
    let kept = Arc::new(crate::sync::Lock::new(format!("{value}\n").into_bytes()));
    let read = kept.clone();
    Text::writable(
        next_ino(),
        move |_| Ok(read.lock().clone()),
        move |bytes| {
            *kept.lock() = bytes.to_vec();
            Ok(())
        },
    )
}

/// All of them.
pub(super) fn entries(kernel: &Arc<Kernel>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    vec![
        ("meminfo", text(kernel, |_| meminfo())),
        ("cpuinfo", text(kernel, cpuinfo)),
        ("stat", text(kernel, stat)),
        ("uptime", text(kernel, uptime)),
        ("loadavg", text(kernel, loadavg)),
        ("version", Text::fixed(format!("Linux version {OSRELEASE} (pillbox) {VERSION}\n"))),
        (
            "filesystems",
            Text::fixed("nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\toverlay\n"),
        ),
        ("cmdline", Text::fixed("\n")),
        ("devices", Text::fixed("Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
        ("swaps", Text::fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
        ("modules", Text::fixed("")),
        ("partitions", Text::fixed("major minor  #blocks  name\n\n")),
        ("diskstats", Text::fixed("")),
        ("vmstat", Text::fixed("nr_free_pages 0\n")),
        ("sys", sys(kernel)),
    ]
}

fn meminfo() -> String {
    // What can be had is the host's business; a sandbox without a limit shows a round figure below the window's.
    let total = frames::limit_bytes().min(host_memory()) / 1024;
    let free = total.saturating_sub(frames::used_bytes() / 1024);
    let mut out = String::new();
    for (name, value) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", total - free),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", total - free),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("CommitLimit", total),
        ("Committed_AS", total - free),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
    ] {
        let _ = writeln!(out, "{:<15} {value:>8} kB", format!("{name}:"));
    }
    out.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    out
}

/// The host's memory, read once.
fn host_memory() -> u64 {
    static BYTES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(4 << 20) * 1024
    })
}

fn cpuinfo(kernel: &Arc<Kernel>) -> String {
    // The host's own description of its first CPUs: programs look for features here.
    let host = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let blocks: Vec<&str> = host.split("\n\n").filter(|block| block.contains("processor")).collect();
    let mut out = String::new();
    for cpu in 0..kernel.sched.worker_count() {
        match blocks.get(cpu).or(blocks.first()) {
            Some(block) => {
                for line in block.lines() {
                    if line.starts_with("processor") {
                        let _ = writeln!(out, "processor\t: {cpu}");
                    } else {
                        let _ = writeln!(out, "{line}");
                    }
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

fn stat(kernel: &Arc<Kernel>) -> String {
    let workers = kernel.sched.worker_count();
    let up = (crate::time::monotonic_ns() - kernel.boot_ns) / (1_000_000_000 / USER_HZ);
    let (mut used, mut running) = (0, 0);
    let tree = kernel.tree.lock();
    for (_, node) in tree.nodes() {
        for task in node.group.threads() {
            used += task.cpu_ns() / (1_000_000_000 / USER_HZ);
            running += u64::from(task.run_state() == RunState::Running);
        }
    }
    let forks = tree.last_id();
    drop(tree);
    let idle = (up * workers as u64).saturating_sub(used);
    let mut out = format!("cpu  {used} 0 0 {idle} 0 0 0 0 0 0\n");
    for cpu in 0..workers {
        let n = workers as u64;
        let _ = writeln!(out, "cpu{cpu} {} 0 0 {} 0 0 0 0 0 0", used / n, idle / n);
    }
    let boot = crate::time::realtime_ns().saturating_sub(crate::time::monotonic_ns() - kernel.boot_ns);
    let _ = write!(
        out,
        "intr 0\nctxt 0\nbtime {}\nprocesses {forks}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0\n",
        boot / 1_000_000_000
    );
    out
}

fn uptime(kernel: &Arc<Kernel>) -> String {
    let up = (crate::time::monotonic_ns() - kernel.boot_ns) / 10_000_000;
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, up / 100, up % 100)
}

fn loadavg(kernel: &Arc<Kernel>) -> String {
    let tree = kernel.tree.lock();
    format!("0.00 0.00 0.00 1/{} {}\n", tree.task_count(), tree.last_id())
}

/// A random UUID (version 4).
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn hostname(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    text(kernel, |kernel| format!("{}\n", String::from_utf8_lossy(&kernel.uts.lock().hostname)))
}

fn sys(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let boot = uuid();
    let random = Dir::new(vec![
        ("boot_id", Text::fixed(boot)),
        ("uuid", Text::new(next_ino(), |_| Ok(uuid().into_bytes()))),
        ("entropy_avail", fixed("256")),
        ("poolsize", fixed("256")),
    ]);
    let kernel_dir = Dir::new(vec![
        ("ostype", fixed("Linux")),
        ("osrelease", fixed(OSRELEASE)),
        ("version", fixed(VERSION)),
        ("hostname", hostname(kernel)),
        ("domainname", fixed("(none)")),
        ("pid_max", setting("32768")),
        ("threads-max", setting("31000")),
        ("ngroups_max", fixed("65536")),
        ("cap_last_cap", fixed("40")),
        ("overflowuid", fixed("65534")),
        ("overflowgid", fixed("65534")),
        ("randomize_va_space", setting("2")),
        ("core_pattern", setting("core")),
        ("printk", setting("4\t4\t1\t7")),
        ("shmmax", setting("18446744073692774399")),
        ("shmall", setting("18446744073692774399")),
        ("shmmni", setting("4096")),
        ("sem", setting("32000\t1024000000\t500\t32000")),
        ("msgmax", setting("8192")),
        ("msgmnb", setting("16384")),
        ("msgmni", setting("32000")),
        ("perf_event_paranoid", fixed("4")),
        ("unprivileged_userns_clone", fixed("0")),
        ("yama", Dir::new(vec![("ptrace_scope", fixed("1"))])),
        ("random", random),
    ]);
    let vm = Dir::new(vec![
        ("overcommit_memory", setting("1")),
        ("overcommit_ratio", setting("50")),
        ("max_map_count", setting("65530")),
        ("mmap_min_addr", setting("65536")),
        ("swappiness", setting("60")),
        ("drop_caches", setting("0")),
    ]);
    let fs = Dir::new(vec![
        ("file-max", setting("9223372036854775807")),
        ("file-nr", fixed("0\t0\t9223372036854775807")),
        ("nr_open", setting("1048576")),
        ("pipe-max-size", setting("1048576")),
        ("aio-max-nr", setting("65536")),
        ("protected_symlinks", fixed("0")),
        ("protected_hardlinks", fixed("0")),
        (
            "inotify",
            Dir::new(vec![
                ("max_user_watches", setting("65536")),
                ("max_user_instances", setting("128")),
                ("max_queued_events", setting("16384")),
            ]),
        ),
        ("epoll", Dir::new(vec![("max_user_watches", setting("1000000"))])),
    ]);
    let core = Dir::new(vec![("somaxconn", setting("4096"))]);
    let ipv4 =
        Dir::new(vec![("ip_local_port_range", setting("32768\t60999")), ("tcp_fin_timeout", setting("60"))]);
    let net = Dir::new(vec![("core", core), ("ipv4", ipv4)]);
    Dir::new(vec![("kernel", kernel_dir), ("vm", vm), ("fs", fs), ("net", net)])
}

/// For callers that want an error type of their own.
pub(super) fn lines(text: String) -> Result<Vec<u8>> {
    Ok(text.into_bytes())
}
