//! stat, status, limits: what a process is and does.

use super::super::system::USER_HZ;
use super::Subject;
use super::memory::sizes;
use crate::abi::Result;
use crate::kernel::signal::{SigSet, SignalSets};
use std::fmt::Write;
use std::sync::Arc;

fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / USER_HZ)
}

pub(super) fn stat(subject: &Subject) -> Result<String> {
    let (parent, pgid, sid) = subject.node();
    let comm = String::from_utf8_lossy(&subject.comm()).into_owned();
    let threads = subject.group.threads();
    let usage = match &subject.task {
        Some(task) if subject.thread => task.usage(),
        _ => subject.group.usage(),
    };
    let mm = subject.mm();
    let layout = mm.as_ref().map(|mm| mm.layout());
    let at = |get: fn(&crate::mm::Layout) -> u64| layout.as_ref().map_or(0, get);
    let boot = subject.kernel.boot_ns;
    let start = subject.task.as_ref().map_or(0, |task| ticks(task.started_ns.saturating_sub(boot)));
    let nice = subject.task.as_ref().map_or(0, |task| task.policy.lock().nice);
    let session_tty = {
        let tree = subject.kernel.tree.lock();
        tree.session(sid)
            .map_or((0, -1), |s| (s.tty.unwrap_or(0), if s.foreground == 0 { -1 } else { s.foreground }))
    };
    let signals = SignalSets::of(&subject.group, subject.task.as_deref());
    // Real-time signals do not fit these fields.
    let low = |set: SigSet| (set.0 & 0x7fff_ffff) as i64;
    let fields: [i64; 50] = [
        parent.into(),
        pgid.into(),
        sid.into(),
        session_tty.0 as i64,
        session_tty.1.into(),
        0x0040_0000,
        usage.faults[0] as i64,
        0,
        usage.faults[1] as i64,
        0,
        ticks(usage.cpu_ns) as i64,
        0,
        0,
        0,
        20 + i64::from(nice),
        nice.into(),
        threads.len() as i64,
        0,
        start as i64,
        mm.as_ref().map_or(0, |mm| mm.total()) as i64,
        (mm.as_ref().map_or(0, |mm| mm.resident()) / 4096) as i64,
        -1,
        at(|l| l.code.0) as i64,
        at(|l| l.code.1) as i64,
        at(|l| l.stack_start) as i64,
        0,
        0,
        low(signals.pending),
        low(signals.blocked),
        low(signals.ignored),
        low(signals.caught),
        0,
        0,
        0,
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        at(|l| l.data.0) as i64,
        at(|l| l.data.1) as i64,
        at(|l| l.brk_start) as i64,
        at(|l| l.args.0) as i64,
        at(|l| l.args.1) as i64,
        at(|l| l.env.0) as i64,
        at(|l| l.env.1) as i64,
        0,
        0,
    ];
    let mut out = format!("{} ({comm}) {}", subject.id, subject.letter());
    for (number, field) in fields.iter().enumerate().take(49) {
        // rsslim and addresses are unsigned.
        let _ = if number == 21 { write!(out, " {}", *field as u64) } else { write!(out, " {field}") };
    }
    out.push('\n');
    Ok(out)
}

pub(super) fn status(subject: &Subject) -> Result<String> {
    let (parent, _, _) = subject.node();
    let letter = subject.letter();
    let state = match letter {
        'R' => "running",
        'S' => "sleeping",
        'T' => "stopped",
        _ => "zombie",
    };
    let comm = String::from_utf8_lossy(&subject.comm()).into_owned();
    let mut out = String::new();
    let cred = subject.task.as_ref().map_or_else(|| Arc::new(crate::cred::Cred::root()), |task| task.cred());
    let umask = subject.task.as_ref().and_then(|task| task.fs()).map_or(0o022, |fs| fs.umask());
    let fd_size = subject.task.as_ref().and_then(|task| task.fds()).map_or(0, |fds| fds.size());
    let ids = |ids: crate::cred::Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs);
    let groups: String = cred.groups.iter().fold(String::new(), |mut all, group| {
        let _ = write!(all, "{group} ");
        all
    });
    let tgid = subject.group.tgid;
    let _ = writeln!(
        out,
        "Name:\t{comm}\nUmask:\t{umask:04o}\nState:\t{letter} ({state})\nTgid:\t{tgid}\nNgid:\t0"
    );
    let _ = writeln!(out, "Pid:\t{}\nPPid:\t{parent}\nTracerPid:\t0", subject.id);
    let _ = writeln!(out, "Uid:\t{}\nGid:\t{}", ids(cred.uid), ids(cred.gid));
    let _ = writeln!(out, "FDSize:\t{fd_size}\nGroups:\t{groups}");
    if let Some(mm) = subject.mm() {
        let (executable, data, stack) = sizes(&mm);
        let code = mm.layout().code;
        let text = (code.1.next_multiple_of(4096) - (code.0 & !4095)).min(executable);
        let (total, resident) = (mm.total() / 1024, mm.resident() / 1024);
        let _ = writeln!(
            out,
            "VmPeak:\t{total:>8} kB\nVmSize:\t{total:>8} kB\nVmLck:\t{:>8} kB\nVmPin:\t       0 kB",
            mm.locked() / 1024
        );
        let _ = writeln!(
            out,
            "VmHWM:\t{resident:>8} kB\nVmRSS:\t{resident:>8} kB\nRssAnon:\t{resident:>8} kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB"
        );
        let _ = writeln!(
            out,
            "VmData:\t{:>8} kB\nVmStk:\t{:>8} kB\nVmExe:\t{:>8} kB\nVmLib:\t{:>8} kB\nVmSwap:\t       0 kB",
            (data - stack.min(data)) / 1024,
            stack / 1024,
            text / 1024,
            (executable - text) / 1024
        );
    }
    let signals = SignalSets::of(&subject.group, subject.task.as_deref());
    let _ = writeln!(out, "Threads:\t{}", subject.group.threads().len().max(1));
    let _ = writeln!(
        out,
        "SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}",
        signals.pending.0, signals.shared.0, signals.blocked.0, signals.ignored.0, signals.caught.0
    );
    for (name, caps) in [
        ("Inh", cred.inheritable),
        ("Prm", cred.permitted),
        ("Eff", cred.effective),
        ("Bnd", cred.bounding),
        ("Amb", cred.ambient),
    ] {
        let _ = writeln!(out, "Cap{name}:\t{:016x}", caps.bits());
    }
    let confinement = subject.task.as_ref().map(|task| task.confinement()).unwrap_or_default();
    let workers = subject.kernel.sched.worker_count();
    let mask = if workers >= 64 { u64::MAX } else { (1 << workers) - 1 };
    let _ = writeln!(
        out,
        "NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\nSpeculation_Store_Bypass:\tvulnerable",
        u8::from(confinement.no_new_privs),
        confinement.mode as u8,
        confinement.filters().len()
    );
    let _ = writeln!(
        out,
        "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t0-{}\nMems_allowed:\t1\nMems_allowed_list:\t0",
        workers - 1
    );
    let usage = subject.task.as_ref().map(|task| task.usage()).unwrap_or_default();
    let _ = writeln!(
        out,
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}",
        usage.switches[0], usage.switches[1]
    );
    Ok(out)
}

/// Resources of /proc/PID/limits in the kernel's order, with their units.
const LIMITS: [(&str, u32, &str); 16] = [
    ("Max cpu time", 0, "seconds"),
    ("Max file size", 1, "bytes"),
    ("Max data size", 2, "bytes"),
    ("Max stack size", 3, "bytes"),
    ("Max core file size", 4, "bytes"),
    ("Max resident set", 5, "bytes"),
    ("Max processes", 6, "processes"),
    ("Max open files", 7, "files"),
    ("Max locked memory", 8, "bytes"),
    ("Max address space", 9, "bytes"),
    ("Max file locks", 10, "locks"),
    ("Max pending signals", 11, "signals"),
    ("Max msgqueue size", 12, "bytes"),
    ("Max nice priority", 13, ""),
    ("Max realtime priority", 14, ""),
    ("Max realtime timeout", 15, "us"),
];

pub(super) fn limits(subject: &Subject) -> Result<String> {
    let limits = *subject.group.limits.lock();
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |value| if value == u64::MAX { "unlimited".to_owned() } else { format!("{value}") };
    for (name, resource, unit) in LIMITS {
        let limit = limits.of(resource)?;
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", show(limit.soft), show(limit.hard));
    }
    Ok(out)
}
