//! stat, status, limits: what a process is and does.
//!
//! CPU time is not told apart into the program's and the kernel's (that would cost every system call two readings of the
//! clock): all of it is the program's, as in getrusage(2).

use super::super::system::USER_HZ;
use super::Subject;
use super::access::View;
use super::memory::Sizes;
use crate::abi::Result;
use crate::cred::userns::UserNs;
use crate::cred::{Cred, Ids};
use crate::fs::numbers::{mask, ranges};
use crate::kernel::personality::ADDR_NO_RANDOMIZE;
use crate::kernel::signal::{SigSet, SignalSets};
use crate::kernel::{RunState, Task, Usage};
use crate::mm::Mm;
use core::sync::atomic::Ordering;
use std::fmt::Write;

/// Bits of the flags in stat (`PF_*`), of those that there is something like here.
const EXITING: u64 = 0x4;
const FORKED_NOT_EXECED: u64 = 0x40;
const RANDOMIZED: u64 = 0x40_0000;

fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / USER_HZ)
}

/// What the process tree knows.
#[derive(Default)]
struct Relations {
    parent: i32,
    pgid: i32,
    sid: i32,
    exit_signal: i32,
    execed: bool,
    exit_code: i32,
    children: Usage,
    tty: u64,
    foreground: i32,
}

fn relations(subject: &Subject) -> Relations {
    let tree = subject.kernel.tree.lock();
    let Some(node) = tree.node(subject.group.tgid) else { return Relations::default() };
    let number = |id: i32| subject.pids.number_of(id);
    Relations {
        parent: number(node.parent),
        pgid: node.pgid,
        sid: node.sid,
        exit_signal: node.exit_signal,
        execed: node.execed,
        exit_code: node.zombie.map_or(0, |zombie| zombie.status.0),
        children: node.children_usage,
        tty: node.tty.unwrap_or(0),
        foreground: node.tty.and_then(|tty| tree.tie(tty)).map_or(-1, |tie| number(tie.foreground)),
    }
}

/// Priority, nice value and policy as Linux counts them; nobody is scheduled in real time here.
fn priority(task: &Task) -> (i64, i64, u32) {
    let policy = *task.policy.lock();
    (20 + i64::from(policy.nice), policy.nice.into(), policy.policy)
}

/// When a task began, in ticks since boot, as who looks counts them.
fn began(task: &Task, view: &View) -> u64 {
    let since = task.started_ns.saturating_sub(view.subject.kernel.boot_ns);
    ticks(since.saturating_add_signed(view.shift))
}

pub(super) fn stat(view: &View) -> Result<String> {
    let subject = &view.subject;
    let relations = relations(subject);
    let comm = String::from_utf8_lossy(&subject.comm()).into_owned();
    let task = subject.task.as_deref();
    let usage = match task {
        Some(task) if subject.thread => task.usage(),
        _ => subject.group.usage(),
    };
    let mm = subject.mm();
    // Addresses are for those who may look at the memory.
    let peek = view.peek();
    let may_look = peek.is_ok();
    let shown = peek.ok().and_then(|peek| peek.mm).map(|mm| mm.layout());
    let at = |get: fn(&crate::mm::Layout) -> u64| shown.as_ref().map_or(0, get);
    let code = match (&mm, &shown) {
        (_, Some(layout)) => layout.code,
        (Some(_), None) => (1, 1),
        (None, None) => (0, 0),
    };
    let (priority, nice, policy) = task.map_or((20, 0, 0), priority);
    let start = task.map_or(0, |task| began(task, view));
    let signals = SignalSets::of(&subject.group, task);
    // Real-time signals do not fit these fields.
    let low = |set: SigSet| (set.0 & 0x7fff_ffff) as i64;
    let waits = may_look && task.is_some_and(|task| task.run_state() != RunState::Running);
    let fixed = subject.group.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0;
    let flags = if task.is_none() { EXITING } else { 0 }
        | if relations.execed { 0 } else { FORKED_NOT_EXECED }
        | if fixed { 0 } else { RANDOMIZED };
    let resident_limit = subject.group.limits.lock().soft(crate::kernel::limits::RSS);
    let fields: [i64; 49] = [
        relations.parent.into(),
        subject.pids.number_of(relations.pgid).into(),
        subject.pids.number_of(relations.sid).into(),
        relations.tty as i64,
        relations.foreground.into(),
        flags as i64,
        usage.faults[0] as i64,
        relations.children.faults[0] as i64,
        usage.faults[1] as i64,
        relations.children.faults[1] as i64,
        ticks(usage.cpu_ns) as i64,
        0,
        ticks(relations.children.cpu_ns) as i64,
        0,
        priority,
        nice,
        subject.group.threads().len().max(1) as i64,
        0,
        start as i64,
        mm.as_ref().map_or(0, |mm| mm.total()) as i64,
        (mm.as_ref().map_or(0, |mm| mm.resident()) / 4096) as i64,
        resident_limit as i64,
        code.0 as i64,
        code.1 as i64,
        at(|l| l.stack_start) as i64,
        // Stack and instruction pointer: of processes that dump core only.
        0,
        0,
        low(signals.pending),
        low(signals.blocked),
        low(signals.ignored),
        low(signals.caught),
        waits.into(),
        0,
        0,
        if subject.thread && subject.id != subject.group.tgid { -1 } else { relations.exit_signal.into() },
        task.map_or(0, Task::last_cpu) as i64,
        0,
        policy.into(),
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
        if may_look { relations.exit_code.into() } else { 0 },
    ];
    let mut out = format!("{} ({comm}) {}", subject.pids.number_of(subject.id), subject.letter());
    for (number, field) in fields.iter().enumerate() {
        // rsslim is unsigned.
        let _ = if number == 21 { write!(out, " {}", *field as u64) } else { write!(out, " {field}") };
    }
    out.push('\n');
    Ok(out)
}

/// Lines of status, one call each.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}:\t{value}");
    }

    fn kib(&mut self, name: &str, bytes: u64) {
        let _ = writeln!(self.0, "{name}:\t{:>8} kB", bytes / 1024);
    }
}

/// A state's letter in a word.
fn state(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'T' => "stopped",
        't' => "tracing stop",
        _ => "zombie",
    }
}

pub(super) fn status(subject: &Subject, user_ns: &UserNs) -> Result<String> {
    let relations = relations(subject);
    let letter = subject.letter();
    let state = state(letter);
    let task = subject.task.as_deref();
    let mut out = Lines(String::new());
    out.add("Name", String::from_utf8_lossy(&subject.comm()));
    if let Some(fs) = task.and_then(Task::fs) {
        out.add("Umask", format_args!("{:04o}", fs.umask()));
    }
    out.add("State", format_args!("{letter} ({state})"));
    let (tgid, pids) = (subject.group.tgid, &subject.pids);
    let (process, thread) = (pids.number_of(tgid), pids.number_of(subject.id));
    for (name, id) in [("Tgid", process), ("Ngid", 0), ("Pid", thread), ("PPid", relations.parent)] {
        out.add(name, id);
    }
    out.add("TracerPid", pids.number_of(task.map_or(0, Task::tracer_pid)));
    ids(&mut out, subject.ids(), user_ns);
    out.add("FDSize", task.and_then(Task::fds).map_or(0, |fds| fds.size()));
    if let Some(task) = task {
        let groups: String =
            task.cred().groups.iter().map(|group| format!("{} ", user_ns.show_gid(*group))).collect();
        out.add("Groups", groups);
    }
    let (pgid, sid) = (relations.pgid, relations.sid);
    for (name, id) in [("NStgid", tgid), ("NSpid", subject.id), ("NSpgid", pgid), ("NSsid", sid)] {
        let numbers = pids.numbers_below(&subject.group.pids, id);
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        out.add(name, numbers.join("\t"));
    }
    if let Some(mm) = subject.mm() {
        memory(&mut out, &mm);
    }
    let signals = SignalSets::of(&subject.group, task);
    out.add("Threads", subject.group.threads().len().max(1));
    for (name, set) in [
        ("SigPnd", signals.pending),
        ("ShdPnd", signals.shared),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ] {
        out.add(name, format_args!("{:016x}", set.0));
    }
    if let Some(task) = task {
        capabilities(&mut out, &task.cred());
        let confinement = task.confinement();
        out.add("NoNewPrivs", u8::from(confinement.no_new_privs));
        out.add("Seccomp", confinement.mode as u8);
        out.add("Seccomp_filters", confinement.filters().len());
        let workers = subject.kernel.sched.worker_count();
        let allowed = task.policy.lock().affinity;
        out.add("Cpus_allowed", mask(allowed, workers));
        out.add("Cpus_allowed_list", ranges(allowed));
        // One node has all memory.
        out.add("Mems_allowed", mask(1, 1));
        out.add("Mems_allowed_list", ranges(1));
        let usage = task.usage();
        out.add("voluntary_ctxt_switches", usage.switches[0]);
        out.add("nonvoluntary_ctxt_switches", usage.switches[1]);
    }
    Ok(out.0)
}

/// Whose it is, as that is called in a user namespace.
fn ids(out: &mut Lines, (uid, gid): (Ids, Ids), user_ns: &UserNs) {
    let four = |ids: Ids, show: &dyn Fn(u32) -> u32| {
        let [real, effective, saved, fs] = [ids.real, ids.effective, ids.saved, ids.fs].map(show);
        format!("{real}\t{effective}\t{saved}\t{fs}")
    };
    out.add("Uid", four(uid, &|id| user_ns.show_uid(id)));
    out.add("Gid", four(gid, &|id| user_ns.show_gid(id)));
}

fn memory(out: &mut Lines, mm: &Mm) {
    let (sizes, resident) = (Sizes::of(mm), mm.resident_by_kind());
    for (name, bytes) in [
        ("VmPeak", mm.peak_total()),
        ("VmSize", mm.total()),
        ("VmLck", mm.locked()),
        ("VmPin", 0),
        ("VmHWM", mm.peak_resident().max(resident.total())),
        ("VmRSS", resident.total()),
        ("RssAnon", resident.anon),
        ("RssFile", resident.file),
        ("RssShmem", resident.shmem),
        ("VmData", sizes.data),
        ("VmStk", sizes.stack),
        ("VmExe", sizes.text),
        ("VmLib", sizes.libraries),
        ("VmSwap", 0),
    ] {
        out.kib(name, bytes);
    }
}

fn capabilities(out: &mut Lines, cred: &Cred) {
    for (name, caps) in [
        ("CapInh", cred.inheritable),
        ("CapPrm", cred.permitted),
        ("CapEff", cred.effective),
        ("CapBnd", cred.bounding),
        ("CapAmb", cred.ambient),
    ] {
        out.add(name, format_args!("{:016x}", caps.bits()));
    }
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
