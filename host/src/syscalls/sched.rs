//! Who a task is to the scheduler and to others: ids, process groups, policies, affinity.

use super::Args;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::task::SchedPolicy;
use crate::kernel::{Current, Task};
use std::sync::Arc;

const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_RESET_ON_FORK: u32 = 0x4000_0000;

pub(super) fn getpid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.tgid() as u64)
}

pub(super) fn gettid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.tid() as u64)
}

pub(super) fn getppid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.parent_pid() as u64)
}

pub(super) fn setpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.set_process_group(args.int(0), args.int(1)).map(|()| 0)
}

pub(super) fn getpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.group_and_session(args.int(0)).map(|(pgid, _)| pgid as u64)
}

pub(super) fn getpgrp(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.group_and_session(0).map(|(pgid, _)| pgid as u64)
}

pub(super) fn getsid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.group_and_session(args.int(0)).map(|(_, sid)| sid as u64)
}

pub(super) fn setsid(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.new_session().map(|sid| sid as u64)
}

pub(super) fn set_tid_address(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.clear_child_tid = args.addr(0);
    Ok(cur.task.tid() as u64)
}

pub(super) fn sched_yield(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.yield_now();
    Ok(0)
}

pub(super) fn getcpu(cur: &mut Current, args: &Args) -> Result<u64> {
    let cpu = cur.kernel.sched.current_worker() as u32;
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
        _ => cur.kernel.task(pid).ok_or(Errno::ESRCH),
    }
}

/// Who may change another task's scheduling.
fn may_change(cur: &Current, task: &Task) -> Result<()> {
    let (own, theirs) = (cur.cred(), task.cred());
    let same = own.uid.effective == theirs.uid.effective || own.uid.effective == theirs.uid.real;
    if same || own.has(Caps::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

pub(super) fn sched_getaffinity(cur: &mut Current, args: &Args) -> Result<u64> {
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
pub(super) fn sched_setaffinity(cur: &mut Current, args: &Args) -> Result<u64> {
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

fn valid(policy: u32, priority: i32) -> Result<()> {
    let real_time = matches!(policy, SCHED_FIFO | SCHED_RR);
    let ok = match policy {
        0 | SCHED_BATCH | SCHED_IDLE => priority == 0,
        _ => real_time && (1..=99).contains(&priority),
    };
    if ok { Ok(()) } else { Err(Errno::EINVAL) }
}

fn set_policy(cur: &Current, pid: i32, change: impl FnOnce(SchedPolicy) -> SchedPolicy) -> Result<u64> {
    let task = target(cur, pid)?;
    let new = change(*task.policy.lock());
    valid(new.policy, new.priority)?;
    may_change(cur, &task)?;
    if matches!(new.policy, SCHED_FIFO | SCHED_RR) && !cur.cred().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    *task.policy.lock() = new;
    Ok(0)
}

pub(super) fn sched_setparam(cur: &mut Current, args: &Args) -> Result<u64> {
    let priority = cur.mm().read_val::<i32>(args.addr(1))?;
    set_policy(cur, args.int(0), |old| SchedPolicy { priority, ..old })
}

pub(super) fn sched_getparam(cur: &mut Current, args: &Args) -> Result<u64> {
    let priority = target(cur, args.int(0))?.policy.lock().priority;
    cur.mm().write_val(args.addr(1), &priority)?;
    Ok(0)
}

pub(super) fn sched_setscheduler(cur: &mut Current, args: &Args) -> Result<u64> {
    let priority = cur.mm().read_val::<i32>(args.addr(2))?;
    let (policy, reset) = (args.uint(1) & !SCHED_RESET_ON_FORK, args.uint(1) & SCHED_RESET_ON_FORK != 0);
    set_policy(cur, args.int(0), |old| SchedPolicy { policy, priority, reset_on_fork: reset, ..old })
}

pub(super) fn sched_getscheduler(cur: &mut Current, args: &Args) -> Result<u64> {
    let policy = *target(cur, args.int(0))?.policy.lock();
    Ok(u64::from(policy.policy | if policy.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 }))
}

/// `struct sched_attr`, first version.
const SCHED_ATTR_SIZE: u32 = 48;

pub(super) fn sched_getattr(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(2) < SCHED_ATTR_SIZE || args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let policy = *target(cur, args.int(0))?.policy.lock();
    let mut words = [0u64; 6];
    words[0] = u64::from(SCHED_ATTR_SIZE) | u64::from(policy.policy) << 32;
    words[1] = u64::from(policy.reset_on_fork);
    words[2] = u64::from(policy.nice as u32) | (policy.priority as u64) << 32;
    cur.mm().write_val(args.addr(1), &words)?;
    Ok(0)
}

pub(super) fn sched_setattr(cur: &mut Current, args: &Args) -> Result<u64> {
    let words = cur.mm().read_val::<[u64; 6]>(args.addr(1))?;
    let size = words[0] as u32;
    if size != 0 && size < SCHED_ATTR_SIZE || args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let (policy, nice) = ((words[0] >> 32) as u32, words[2] as i32);
    let new = SchedPolicy {
        policy,
        priority: (words[2] >> 32) as i32,
        nice,
        reset_on_fork: words[1] & 1 != 0,
        affinity: 0,
    };
    set_policy(cur, args.int(0), |old| SchedPolicy { affinity: old.affinity, ..new })
}

pub(super) fn sched_get_priority_max(_cur: &mut Current, args: &Args) -> Result<u64> {
    priority_limit(args.uint(0), 99)
}

pub(super) fn sched_get_priority_min(_cur: &mut Current, args: &Args) -> Result<u64> {
    priority_limit(args.uint(0), 1)
}

fn priority_limit(policy: u32, real_time: u64) -> Result<u64> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(real_time),
        0 | SCHED_BATCH | SCHED_IDLE | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn sched_rr_get_interval(cur: &mut Current, args: &Args) -> Result<u64> {
    let policy = target(cur, args.int(0))?.policy.lock().policy;
    let interval = if policy == SCHED_FIFO { 0 } else { 4_000_000i64 };
    cur.mm().write_val(args.addr(1), &[0, interval])?;
    Ok(0)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

fn by_priority_target(cur: &Current, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let tree = cur.kernel.tree.lock();
    let tasks: Vec<Arc<Task>> = match which {
        PRIO_PROCESS if who == 0 => vec![cur.task.clone()],
        PRIO_PROCESS => tree.task(who).cloned().into_iter().collect(),
        PRIO_PGRP => {
            let own = tree.node(cur.task.tgid()).map_or(0, |node| node.pgid);
            let pgid = if who == 0 { own } else { who };
            tree.process_group(pgid).flat_map(|node| node.group.threads()).collect()
        }
        PRIO_USER => {
            let uid = if who == 0 { cur.cred().uid.real } else { who as u32 };
            let all = tree.nodes().flat_map(|(_, node)| node.group.threads());
            all.filter(|task| task.cred().uid.real == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if tasks.is_empty() { Err(Errno::ESRCH) } else { Ok(tasks) }
}

pub(super) fn getpriority(cur: &mut Current, args: &Args) -> Result<u64> {
    let tasks = by_priority_target(cur, args.int(0), args.int(1))?;
    let nice = tasks.iter().map(|task| task.policy.lock().nice).min().unwrap_or(0);
    Ok((20 - nice) as u64)
}

pub(super) fn setpriority(cur: &mut Current, args: &Args) -> Result<u64> {
    let nice = args.int(2).clamp(-20, 19);
    for task in by_priority_target(cur, args.int(0), args.int(1))? {
        may_change(cur, &task)?;
        if nice < task.policy.lock().nice && !cur.cred().has(Caps::SYS_NICE) {
            return Err(Errno::EACCES);
        }
        task.policy.lock().nice = nice;
    }
    Ok(0)
}

/// Best effort, level 4: what everybody has.
pub(super) fn ioprio_get(_cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(2 << 13 | 4)
}

pub(super) fn ioprio_set(_cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(0)
}

/// Every return to user code orders memory, and no worker stays in user code past a kick: the expedited kinds kick the
/// workers that run this process.
pub(super) fn membarrier(cur: &mut Current, args: &Args) -> Result<u64> {
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
    match args.int(0) {
        QUERY => Ok(ALL as u64),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED => Ok(0),
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED => {
            cur.kernel.sched.barrier();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
