//! What a task is to the scheduler: policies, priorities, affinity.

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::sched::TIME_SLICE_NS;
use crate::kernel::task::SchedPolicy;
use crate::kernel::{Current, Task};
use crate::syscalls::Args;
use crate::syscalls::args_time::to_timespec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{RLIMIT_NICE, SCHED_FLAG_KEEP_PARAMS, SCHED_FLAG_KEEP_POLICY};
use std::sync::Arc;

const SCHED_OTHER: u32 = 0;

const SCHED_FIFO: u32 = 1;

const SCHED_RR: u32 = 2;

const SCHED_BATCH: u32 = 3;

const SCHED_IDLE: u32 = 5;

const SCHED_RESET_ON_FORK: u32 = 0x4000_0000;

pub(crate) fn sched_yield(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.yield_now();
    Ok(0)
}

pub(crate) fn getcpu(cur: &mut Current, args: &Args) -> Result<u64> {
    let cpu = cur.kernel.sched.current_cpu() as u32;
    if args.addr(0) != 0 {
        cur.mm().write_val(args.addr(0), &cpu)?;
    }
    if args.addr(1) != 0 {
        cur.mm().write_val(args.addr(1), &0u32)?;
    }
    Ok(0)
}

fn target(cur: &Current, pid: i32) -> Result<Arc<Task>> {
    match pid {
        ..0 => Err(Errno::EINVAL),
        0 => Ok(cur.task.clone()),
        _ => cur.task_called(pid),
    }
}

/// Who may change another task's scheduling.
fn may_change(cur: &Current, task: &Task) -> Result<()> {
    let (own, theirs) = (cur.cred(), task.cred());
    let same = own.uid.effective == theirs.uid.effective || own.uid.effective == theirs.uid.real;
    if same || own.has_in(&theirs.user_ns, Caps::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

pub(crate) fn sched_getaffinity(cur: &mut Current, args: &Args) -> Result<u64> {
    let (len, addr) = (args.uint(1) as usize, args.addr(2));
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    // Nobody has a negative id here, while the other calls of the family call it a bad argument.
    let pid = args.int(0);
    if pid < 0 {
        return Err(Errno::ESRCH);
    }
    let mask = target(cur, pid)?.policy.lock().affinity;
    cur.mm().write_val(addr, &mask)?;
    Ok(8)
}

/// Remembered and reported; every worker runs every task.
pub(crate) fn sched_setaffinity(cur: &mut Current, args: &Args) -> Result<u64> {
    let task = target(cur, args.int(0))?;
    may_change(cur, &task)?;
    let mut bytes = [0; 8];
    let len = (args.uint(1) as usize).min(8);
    cur.mm().read(args.addr(2), &mut bytes[..len])?;
    let cpus = cur.kernel.sched.worker_count() as u32;
    let possible = 1u64.checked_shl(cpus).map_or(u64::MAX, |bit| bit - 1);
    let mask = u64::from_ne_bytes(bytes) & possible;
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    task.policy.lock().affinity = mask;
    Ok(0)
}

/// Policies that can be had. Real-time ones are given to nobody, as in a control group without real-time bandwidth
/// (CONFIG_RT_GROUP_SCHED): nothing here could keep what they promise.
fn valid(policy: u32, priority: i32) -> Result<()> {
    match policy {
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE if priority == 0 => Ok(()),
        SCHED_FIFO | SCHED_RR if (1..=99).contains(&priority) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether the caller may make `task` as nice as that: nicer always, less nice down to RLIMIT_NICE.
fn may_be_nice(cur: &Current, task: &Task, nice: i32) -> bool {
    let limit = task.group.limits.lock().soft(RLIMIT_NICE);
    nice >= task.policy.lock().nice || (20 - nice) as u64 <= limit || cur.cred().has(Caps::SYS_NICE)
}

fn set_policy(
    cur: &Current,
    pid: i32,
    priority: i32,
    change: impl FnOnce(SchedPolicy) -> SchedPolicy,
) -> Result<u64> {
    let task = target(cur, pid)?;
    let old = *task.policy.lock();
    let new = change(old);
    let verdict = valid(new.policy, priority);
    if verdict == Err(Errno::EINVAL) {
        return Err(Errno::EINVAL);
    }
    may_change(cur, &task)?;
    let nicer = may_be_nice(cur, &task, new.nice)
        && (old.policy != SCHED_IDLE || new.policy == SCHED_IDLE || may_be_nice(cur, &task, old.nice));
    let privileged = cur.cred().has(Caps::SYS_NICE);
    if !nicer || (old.reset_on_fork && !new.reset_on_fork && !privileged) {
        return Err(Errno::EPERM);
    }
    verdict?;
    *task.policy.lock() = new;
    Ok(0)
}

/// `struct sched_param`.
fn priority(cur: &Current, addr: u64) -> Result<i32> {
    if addr == 0 { Err(Errno::EINVAL) } else { cur.mm().read_val(addr) }
}

pub(crate) fn sched_setparam(cur: &mut Current, args: &Args) -> Result<u64> {
    let priority = priority(cur, args.addr(1))?;
    set_policy(cur, args.int(0), priority, |old| old)
}

/// Always 0: what policies other than the real-time ones have.
pub(crate) fn sched_getparam(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.addr(1) == 0 {
        return Err(Errno::EINVAL);
    }
    target(cur, args.int(0))?;
    cur.mm().write_val(args.addr(1), &0i32)?;
    Ok(0)
}

pub(crate) fn sched_setscheduler(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.int(1) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = priority(cur, args.addr(2))?;
    let (policy, reset) = (args.uint(1) & !SCHED_RESET_ON_FORK, args.uint(1) & SCHED_RESET_ON_FORK != 0);
    set_policy(cur, args.int(0), priority, |old| SchedPolicy { policy, reset_on_fork: reset, ..old })
}

pub(crate) fn sched_getscheduler(cur: &mut Current, args: &Args) -> Result<u64> {
    let policy = *target(cur, args.int(0))?.policy.lock();
    Ok(u64::from(policy.policy | if policy.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 }))
}

/// `struct sched_attr`, first version.
const SCHED_ATTR_SIZE: u32 = 48;

/// Largest structure looked at.
const SCHED_ATTR_MAX: u32 = 4096;

pub(crate) fn sched_getattr(cur: &mut Current, args: &Args) -> Result<u64> {
    let size = args.uint(2);
    if args.addr(1) == 0 || !(SCHED_ATTR_SIZE..=SCHED_ATTR_MAX).contains(&size) || args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let policy = *target(cur, args.int(0))?.policy.lock();
    let mut words = [0u64; 6];
    words[0] = u64::from(SCHED_ATTR_SIZE) | u64::from(policy.policy) << 32;
    words[1] = u64::from(policy.reset_on_fork);
    words[2] = u64::from(policy.nice as u32);
    cur.mm().write_val(args.addr(1), &words)?;
    Ok(0)
}

pub(crate) fn sched_setattr(cur: &mut Current, args: &Args) -> Result<u64> {
    const RESET_ON_FORK: u64 = 1;
    const KEEP_POLICY: u64 = SCHED_FLAG_KEEP_POLICY as u64;
    const KEEP_PARAMS: u64 = SCHED_FLAG_KEEP_PARAMS as u64;
    if args.addr(1) == 0 || args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match cur.mm().read_val::<u32>(args.addr(1))? {
        0 => SCHED_ATTR_SIZE,
        size => size,
    };
    let known = (SCHED_ATTR_SIZE..=SCHED_ATTR_MAX).contains(&size);
    let rest = if known { (size - SCHED_ATTR_SIZE) as usize } else { 0 };
    let more: Vec<u8> = cur.mm().read_vec(args.addr(1) + u64::from(SCHED_ATTR_SIZE), rest)?;
    if !known || more.iter().any(|byte| *byte != 0) {
        // So that a program learns what is known here.
        cur.mm().write_val(args.addr(1), &SCHED_ATTR_SIZE)?;
        return Err(Errno::E2BIG);
    }
    let words = cur.mm().read_val::<[u64; 6]>(args.addr(1))?;
    let (policy, flags) = ((words[0] >> 32) as u32, words[1]);
    let (nice, priority) = ((words[2] as i32).clamp(-20, 19), (words[2] >> 32) as i32);
    if (policy as i32) < 0 || flags & !(RESET_ON_FORK | KEEP_POLICY | KEEP_PARAMS) != 0 {
        return Err(Errno::EINVAL);
    }
    let (keep_policy, keep_params) = (flags & KEEP_POLICY != 0, flags & KEEP_PARAMS != 0);
    set_policy(cur, args.int(0), if keep_params { 0 } else { priority }, |old| SchedPolicy {
        policy: if keep_policy { old.policy } else { policy },
        nice: if keep_params { old.nice } else { nice },
        reset_on_fork: flags & RESET_ON_FORK != 0,
        ..old
    })
}

pub(crate) fn sched_get_priority_max(_cur: &mut Current, args: &Args) -> Result<u64> {
    priority_limit(args.uint(0), 99)
}

pub(crate) fn sched_get_priority_min(_cur: &mut Current, args: &Args) -> Result<u64> {
    priority_limit(args.uint(0), 1)
}

fn priority_limit(policy: u32, real_time: u64) -> Result<u64> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(real_time),
        0 | SCHED_BATCH | SCHED_IDLE | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn sched_rr_get_interval(cur: &mut Current, args: &Args) -> Result<u64> {
    target(cur, args.int(0))?;
    cur.mm().write_val(args.addr(1), &to_timespec(TIME_SLICE_NS))?;
    Ok(0)
}

const PRIO_PROCESS: i32 = 0;

const PRIO_PGRP: i32 = 1;

const PRIO_USER: i32 = 2;

fn by_priority_target(cur: &Current, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let tree = cur.kernel.tree.lock();
    let tasks: Vec<Arc<Task>> = match which {
        PRIO_PROCESS if who == 0 => vec![cur.task.clone()],
        PRIO_PROCESS => tree.task(cur.id_of(who)?).cloned().into_iter().collect(),
        PRIO_PGRP => {
            let own = tree.node(cur.task.tgid()).map_or(0, |node| node.pgid);
            let pgid = if who == 0 { own } else { cur.id_of(who)? };
            tree.process_group(pgid).flat_map(|node| node.group.threads()).collect()
        }
        PRIO_USER => {
            let cred = cur.cred();
            let named = || cred.user_ns.uid(who as u32).ok_or(Errno::ESRCH);
            let uid = if who == 0 { cred.uid.real } else { named()? };
            let all = tree.nodes().flat_map(|(_, node)| node.group.threads());
            all.filter(|task| task.cred().uid.real == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if tasks.is_empty() { Err(Errno::ESRCH) } else { Ok(tasks) }
}

pub(crate) fn getpriority(cur: &mut Current, args: &Args) -> Result<u64> {
    let tasks = by_priority_target(cur, args.int(0), args.int(1))?;
    let nice = tasks.iter().map(|task| task.policy.lock().nice).min().unwrap_or(0);
    Ok((20 - nice) as u64)
}

pub(crate) fn setpriority(cur: &mut Current, args: &Args) -> Result<u64> {
    let nice = args.int(2).clamp(-20, 19);
    let mut result = Ok(0);
    for task in by_priority_target(cur, args.int(0), args.int(1))? {
        if may_change(cur, &task).is_err() {
            result = Err(Errno::EPERM);
        } else if !may_be_nice(cur, &task, nice) {
            result = Err(Errno::EACCES);
        } else {
            task.policy.lock().nice = nice;
        }
    }
    result
}

/// Classes of I/O priorities are above 13 bits of level (linux/ioprio.h).
const IOPRIO_SHIFT: u32 = 13;

const IOPRIO_REAL_TIME: u32 = 1;

const IOPRIO_BEST_EFFORT: u32 = 2;

const IOPRIO_IDLE: u32 = 3;

/// Levels in a class.
const IOPRIO_LEVELS: u32 = 8;

/// The tasks that an I/O priority is about: `IOPRIO_WHO_*` are one more than `PRIO_*`.
fn by_io_target(cur: &Current, args: &Args) -> Result<Vec<Arc<Task>>> {
    by_priority_target(cur, args.int(0).wrapping_sub(1), args.int(1))
}

/// A thread's own answer is what was set; among several, the best of what counts for them.
pub(crate) fn ioprio_get(cur: &mut Current, args: &Args) -> Result<u64> {
    let tasks = by_io_target(cur, args)?;
    let raw = |task: &Arc<Task>| u64::from(task.policy.lock().io_priority);
    if args.int(0) - 1 == PRIO_PROCESS {
        return tasks.first().map(raw).ok_or(Errno::ESRCH);
    }
    let effective = |task: &Arc<Task>| match raw(task) {
        0 => {
            let nice = task.policy.lock().nice;
            u64::from(IOPRIO_BEST_EFFORT << IOPRIO_SHIFT | ((nice + 20) / 5) as u32)
        }
        set => set,
    };
    tasks.iter().map(effective).min().ok_or(Errno::ESRCH)
}

/// Kept, inherited and shown. There is no I/O scheduler that would look at it, as on most fast disks.
pub(crate) fn ioprio_set(cur: &mut Current, args: &Args) -> Result<u64> {
    let (class, level) = (args.uint(2) >> IOPRIO_SHIFT, args.uint(2) & ((1 << IOPRIO_SHIFT) - 1));
    match class {
        IOPRIO_REAL_TIME if !cur.cred().has(Caps::SYS_NICE) && !cur.cred().has(Caps::SYS_ADMIN) => {
            return Err(Errno::EPERM);
        }
        IOPRIO_REAL_TIME | IOPRIO_BEST_EFFORT if level < IOPRIO_LEVELS => {}
        IOPRIO_IDLE => {}
        0 if level == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    let own = cur.cred();
    for task in by_io_target(cur, args)? {
        let cred = task.cred();
        let theirs = cred.uid.real;
        let same = theirs == own.uid.effective || theirs == own.uid.real;
        if !same && !own.has_in(&cred.user_ns, Caps::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        task.policy.lock().io_priority = args.uint(2) as u16;
    }
    Ok(0)
}

/// Every return to user code orders memory, and no worker stays in user code past a kick: the expedited kinds kick the
/// workers that run this process.
pub(crate) fn membarrier(cur: &mut Current, args: &Args) -> Result<u64> {
    const QUERY: i32 = 0;
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;
    const PRIVATE_EXPEDITED: i32 = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
    const ALL: i32 = GLOBAL
        | GLOBAL_EXPEDITED
        | REGISTER_GLOBAL_EXPEDITED
        | PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED;
    if args.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = &cur.task.group.membarriers;
    match args.int(0) {
        QUERY => Ok(ALL as u64),
        kind @ (REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED) => {
            registered.fetch_or(kind as u32, Ordering::Relaxed);
            Ok(0)
        }
        PRIVATE_EXPEDITED if registered.load(Ordering::Relaxed) & REGISTER_PRIVATE_EXPEDITED as u32 == 0 => {
            Err(Errno::EPERM)
        }
        // Every CPU, whoever has registered for barriers of all processes.
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED => {
            cur.kernel.sched.barrier();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
