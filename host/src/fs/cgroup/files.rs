//! The files of a group, by controller.

use super::{PROCS, View};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::fs::numbers::ranges;
use crate::kernel::cgroups::{CgroupId, Controllers, Limit, Setting};
use std::fmt::Write;

/// Says what a file says.
type Read = fn(&View) -> Result<String>;
/// Takes what is written to it, without space around it.
type Store = fn(&View, &str) -> Result<()>;

/// A file.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The controller that it is of, or none.
    pub(super) of: Controllers,
    /// The root has none.
    pub(super) below_root: bool,
    pub(super) read: Option<Read>,
    pub(super) write: Option<Store>,
}

const fn shown(name: &'static str, of: Controllers, read: Read) -> Row {
    Row { name, of, below_root: false, read: Some(read), write: None }
}

const fn set(name: &'static str, of: Controllers, read: Read, write: Store) -> Row {
    Row { write: Some(write), ..shown(name, of, read) }
}

const fn below_root(row: Row) -> Row {
    Row { below_root: true, ..row }
}

const CORE: Controllers = Controllers::empty();
const CPU: Controllers = Controllers::CPU;
const CPUSET: Controllers = Controllers::CPUSET;
const IO: Controllers = Controllers::IO;
const MEMORY: Controllers = Controllers::MEMORY;
const PIDS: Controllers = Controllers::PIDS;

/// All of them, in the order of listings. What would say something that is not so (pressure, protection of memory, weights of
/// disks) is missing.
pub(super) const FILES: &[Row] = &[
    shown("cgroup.controllers", CORE, |v| line(v.kernel.cgroups.controllers(v.dir.id).list())),
    shown("cgroup.events", CORE, events),
    below_root(set("cgroup.freeze", CORE, |v| flag(v.kernel.cgroups.freezes(v.dir.id)?), freeze)),
    below_root(Row { read: None, ..set("cgroup.kill", CORE, events, kill) }),
    set("cgroup.max.depth", CORE, |v| limit(v, Setting::Depth), |v, text| set_count(v, text, Setting::Depth)),
    set(
        "cgroup.max.descendants",
        CORE,
        |v| limit(v, Setting::Descendants),
        |v, text| set_count(v, text, Setting::Descendants),
    ),
    set(PROCS, CORE, |v| ids(v, false), join),
    shown("cgroup.stat", CORE, stat),
    set(
        "cgroup.subtree_control",
        CORE,
        |v| line(v.kernel.cgroups.enabled(v.dir.id).list()),
        |v, text| v.kernel.cgroups.enable(v.dir.id, text),
    ),
    set("cgroup.threads", CORE, |v| ids(v, true), join_thread),
    set(
        "cgroup.type",
        CORE,
        |_| line("domain".to_owned()),
        |_, text| Err(if text == "threaded" { Errno::EOPNOTSUPP } else { Errno::EINVAL }),
    ),
    set("cpu.max", CPU, cpu_max, |v, text| only(v, text, &["max", "max 100000"])),
    shown("cpu.stat", CORE, cpu_stat),
    below_root(set(
        "cpu.weight",
        CPU,
        |_| line("100".to_owned()),
        |v, text| only(v, text, &["100", "default"]),
    )),
    shown("cpuset.cpus.effective", CPUSET, |v| {
        line(ranges(u64::MAX >> (64 - v.kernel.sched.worker_count())))
    }),
    shown("cpuset.mems.effective", CPUSET, |_| line("0".to_owned())),
    shown("io.stat", IO, |_| Ok(String::new())),
    shown("memory.current", MEMORY, |v| line(used(v)?.to_string())),
    shown("memory.events", MEMORY, memory_events),
    set("memory.high", MEMORY, |_| line("max".to_owned()), |v, text| only(v, text, &["max"])),
    set("memory.low", MEMORY, |_| line("0".to_owned()), |v, text| only(v, text, &["0"])),
    set("memory.max", MEMORY, memory_max, set_memory_max),
    set("memory.min", MEMORY, |_| line("0".to_owned()), |v, text| only(v, text, &["0"])),
    below_root(set(
        "memory.oom.group",
        MEMORY,
        |v| flag(v.kernel.cgroups.dies_together(v.dir.id)?),
        oom_group,
    )),
    // Nobody keeps the most that all together have had.
    below_root(shown("memory.peak", MEMORY, peak)),
    shown("memory.stat", MEMORY, memory_stat),
    shown("memory.swap.current", MEMORY, |_| line("0".to_owned())),
    set(
        "memory.swap.max",
        MEMORY,
        |v| limit(v, Setting::Swap),
        |v, text| v.change(Setting::Swap, Limit::parse_bytes(text)?),
    ),
    shown("pids.current", PIDS, |v| line(tasks(v)?.0.to_string())),
    shown("pids.events", PIDS, |v| line(format!("max {}", v.kernel.cgroups.events(v.dir.id)?.pids_max))),
    set("pids.max", PIDS, pids_max, |v, text| v.change(Setting::Tasks, Limit::parse(text)?)),
    below_root(shown("pids.peak", PIDS, |v| line(tasks(v)?.1.to_string()))),
];

fn line(text: String) -> Result<String> {
    Ok(text + "\n")
}

fn flag(on: bool) -> Result<String> {
    line(u8::from(on).to_string())
}

fn switch(text: &str) -> Result<bool> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(if text.parse::<i64>().is_ok() { Errno::ERANGE } else { Errno::EINVAL }),
    }
}

/// What cannot be had otherwise: whoever asks for that is told so.
fn only(view: &View, text: &str, holds: &[&str]) -> Result<()> {
    view.kernel.cgroups.events(view.dir.id)?;
    if holds.contains(&text) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

impl View {
    fn is_root(&self) -> bool {
        self.dir.id == CgroupId::ROOT
    }

    /// Changes a limit; not those of the sandbox as a whole, which are set from outside.
    fn change(&self, setting: Setting, limit: Limit) -> Result<()> {
        if self.is_root() {
            return Err(Errno::EPERM);
        }
        self.kernel.cgroups.set_limit(self.dir.id, setting, limit)
    }
}

fn limit(view: &View, setting: Setting) -> Result<String> {
    line(view.kernel.cgroups.limit(view.dir.id, setting)?.to_string())
}

fn set_count(view: &View, text: &str, setting: Setting) -> Result<()> {
    if text.parse::<i64>().is_ok_and(|count| !(0..=i32::MAX.into()).contains(&count)) {
        return Err(Errno::ERANGE);
    }
    let limit = Limit::parse(text)?;
    view.change(setting, limit)
}

fn events(view: &View) -> Result<String> {
    let (kernel, id) = (&view.kernel, view.dir.id);
    let (populated, frozen) = (kernel.cgroups.is_populated(id)?, kernel.is_cgroup_frozen(id)?);
    Ok(format!("populated {}\nfrozen {}\n", u8::from(populated), u8::from(frozen)))
}

fn stat(view: &View) -> Result<String> {
    Ok(format!("nr_descendants {}\nnr_dying_descendants 0\n", view.kernel.cgroups.descendants(view.dir.id)?))
}

fn freeze(view: &View, text: &str) -> Result<()> {
    view.kernel.freeze_cgroup(view.dir.id, switch(text)?)
}

fn kill(view: &View, text: &str) -> Result<()> {
    if switch(text)? { view.kernel.kill_cgroup(view.dir.id) } else { Err(Errno::ERANGE) }
}

fn ids(view: &View, threads: bool) -> Result<String> {
    let all = view.kernel.cgroup_members(view.dir.id, threads)?;
    let mut all: Vec<i32> = all.into_iter().map(|id| view.pids.number_of(id)).collect();
    all.sort_unstable();
    Ok(all.into_iter().fold(String::new(), |mut text, id| {
        let _ = writeln!(text, "{id}");
        text
    }))
}

/// Whom a program writes of; 0 is who opened the file.
fn meant(view: &View, text: &str) -> Result<i32> {
    match text.parse::<i32>() {
        Ok(0) => Ok(view.pid),
        Ok(number) if number > 0 => view.pids.id_of(number),
        _ => Err(Errno::EINVAL),
    }
}

/// Moves a process.
fn join(view: &View, text: &str) -> Result<()> {
    let pid = meant(view, text)?;
    let may = |from| view.dir.may_come_from(&view.cred, from);
    view.kernel.move_to_cgroup(pid, view.dir.id, may)
}

/// Threads are where their process is.
fn join_thread(view: &View, text: &str) -> Result<()> {
    if view.kernel.cgroup_of(meant(view, text)?)? == view.dir.id { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

fn cpu_max(view: &View) -> Result<String> {
    let given = view.kernel.cpu_quota().filter(|_| view.is_root());
    line(given.map_or("max 100000".to_owned(), |(quota, period)| format!("{quota} {period}")))
}

/// Time is all `user` here (see /proc/stat).
fn cpu_stat(view: &View) -> Result<String> {
    let us = view.kernel.cgroup_cpu_ns(view.dir.id)? / 1000;
    let mut text = format!("usage_usec {us}\nuser_usec {us}\nsystem_usec 0\n");
    if view.kernel.cgroups.controllers(view.dir.id).contains(CPU) {
        text.push_str("nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
    }
    Ok(text)
}

fn used(view: &View) -> Result<u64> {
    if view.is_root() {
        Ok(ledger::used() + ledger::beside())
    } else {
        Ok(view.kernel.cgroup_memory(view.dir.id)?.current())
    }
}

fn peak(view: &View) -> Result<String> {
    let used = used(view)?;
    line(used.max(view.kernel.cgroups.memory_peak(view.dir.id)?).to_string())
}

fn memory_max(view: &View) -> Result<String> {
    if !view.is_root() {
        return limit(view, Setting::Memory);
    }
    let most = Some(ledger::limit()).filter(|most| *most != u64::MAX);
    line(Limit(most.map(|most| most + ledger::beside())).to_string())
}

fn set_memory_max(view: &View, text: &str) -> Result<()> {
    view.change(Setting::Memory, Limit::parse_bytes(text)?)
}

fn oom_group(view: &View, text: &str) -> Result<()> {
    view.kernel.cgroups.set_dies_together(view.dir.id, switch(text)?)
}

fn memory_events(view: &View) -> Result<String> {
    let events = view.kernel.cgroups.events(view.dir.id)?;
    Ok(format!(
        "low 0\nhigh 0\nmax {}\noom {}\noom_kill {}\noom_group_kill {}\n",
        events.memory_max, events.oom, events.oom_kill, events.oom_group_kill
    ))
}

fn memory_stat(view: &View) -> Result<String> {
    let (anon, file, kernel, shmem, mapped, tables, inactive);
    if view.is_root() {
        (file, kernel, shmem, inactive) =
            (ledger::files() + ledger::cached(), ledger::heap(), ledger::files(), ledger::cached());
        anon = ledger::used().saturating_sub(ledger::files() + ledger::heap());
        (mapped, tables) = (0, 0);
    } else {
        let memory = view.kernel.cgroup_memory(view.dir.id)?;
        (anon, file, kernel, shmem) = (memory.anon, memory.shmem, memory.tables, memory.shmem);
        (mapped, tables, inactive) = (memory.shmem + memory.file, memory.tables, 0);
    }
    let mut text = String::new();
    for (name, bytes) in [
        ("anon", anon),
        ("file", file),
        ("kernel", kernel),
        ("pagetables", tables),
        ("shmem", shmem),
        ("file_mapped", mapped),
        ("inactive_anon", 0),
        ("active_anon", anon),
        ("inactive_file", inactive),
        ("active_file", 0),
        ("unevictable", 0),
    ] {
        let _ = writeln!(text, "{name} {bytes}");
    }
    Ok(text)
}

/// Tasks, and the most that there have been.
fn tasks(view: &View) -> Result<(u64, u64)> {
    if !view.is_root() {
        return view.kernel.cgroups.tasks(view.dir.id);
    }
    let now = view.kernel.tree.lock().count_with_zombies() as u64;
    Ok((now, now))
}

fn pids_max(view: &View) -> Result<String> {
    if view.is_root() {
        return line(view.kernel.max_tasks().to_string());
    }
    limit(view, Setting::Tasks)
}
