//! Credentials and prctl.

use super::Args;
use crate::abi::{Errno, Result};
use crate::cred::{CAP_LAST, Caps, Cred, NGROUPS_MAX, securebits};
use crate::kernel::task::COMM_LEN;
use crate::kernel::{Current, PROVOKE_BUG, READ_HOST};
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// Changes the caller's credentials if `change` succeeds.
fn change<T>(cur: &mut Current, change: impl FnOnce(&mut Cred) -> Result<T>) -> Result<T> {
    let mut new = Cred::clone(&cur.cred());
    let value = change(&mut new)?;
    let old = cur.cred();
    if new != *old {
        // What the old user's rights have brought into the process is not for the new one; its parent's signal was for the
        // old one, too.
        let ids = |ids: crate::cred::Ids| (ids.effective, ids.fs);
        if ids(old.uid) != ids(new.uid)
            || ids(old.gid) != ids(new.gid)
            || !old.permitted.contains(new.permitted)
        {
            cur.task.group.dumpable.store(0, Ordering::Relaxed);
            cur.task.set_parent_death_signal(0);
        }
        cur.set_cred(new);
    }
    Ok(value)
}

pub(super) fn getuid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().uid.real))
}

pub(super) fn geteuid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().uid.effective))
}

pub(super) fn getgid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().gid.real))
}

pub(super) fn getegid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().gid.effective))
}

pub(super) fn setuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_uid(args.uint(0)))?;
    Ok(0)
}

pub(super) fn setgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_gid(args.uint(0)))?;
    Ok(0)
}

pub(super) fn setreuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_reuid(args.uint(0), args.uint(1)))?;
    Ok(0)
}

pub(super) fn setregid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_regid(args.uint(0), args.uint(1)))?;
    Ok(0)
}

pub(super) fn setresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_resuid(args.uint(0), args.uint(1), args.uint(2)))?;
    Ok(0)
}

pub(super) fn setresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_resgid(args.uint(0), args.uint(1), args.uint(2)))?;
    Ok(0)
}

pub(super) fn setfsuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| Ok(cred.set_fsuid(args.uint(0)))).map(u64::from)
}

pub(super) fn setfsgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| Ok(cred.set_fsgid(args.uint(0)))).map(u64::from)
}

fn write_three(cur: &Current, args: &Args, ids: crate::cred::Ids) -> Result<u64> {
    for (index, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        cur.mm().write_val(args.addr(index), id)?;
    }
    Ok(0)
}

pub(super) fn getresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    write_three(cur, args, cur.cred().uid)
}

pub(super) fn getresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    write_three(cur, args, cur.cred().gid)
}

pub(super) fn getgroups(cur: &mut Current, args: &Args) -> Result<u64> {
    let groups = cur.cred().groups.clone();
    let size = args.int(0);
    if size != 0 {
        if size < groups.len() as i32 {
            return Err(Errno::EINVAL);
        }
        cur.mm().write_val(args.addr(1), &*groups)?;
    }
    Ok(groups.len() as u64)
}

pub(super) fn setgroups(cur: &mut Current, args: &Args) -> Result<u64> {
    if !cur.cred().has(Caps::SETGID) {
        return Err(Errno::EPERM);
    }
    let count = args.uint(0) as usize;
    if count > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let groups: Vec<u32> = cur.mm().read_vec(args.addr(1), count)?;
    change(cur, |cred| {
        cred.groups = Arc::from(groups);
        Ok(0)
    })
}

/// The versions of the capget(2) header, and how many structures follow.
fn capability_words(version: u32) -> Option<usize> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    }
}

/// Reads the header; an unknown version is answered with the newest.
fn read_cap_header(cur: &Current, args: &Args) -> Result<(usize, i32)> {
    let [version, pid] = cur.mm().read_val::<[u32; 2]>(args.addr(0))?;
    match capability_words(version) {
        Some(words) => Ok((words, pid as i32)),
        None => {
            cur.mm().write_val(args.addr(0), &0x2008_0522u32)?;
            Err(Errno::EINVAL)
        }
    }
}

pub(super) fn capget(cur: &mut Current, args: &Args) -> Result<u64> {
    let (words, pid) = match read_cap_header(cur, args) {
        // Probing the version with a null pointer is not an error.
        Err(Errno::EINVAL) if args.addr(1) == 0 => return Ok(0),
        other => other?,
    };
    let cred = match pid {
        ..0 => return Err(Errno::EINVAL),
        0 => cur.cred(),
        _ => cur.kernel.task(pid).ok_or(Errno::ESRCH)?.cred(),
    };
    for word in 0..words {
        let half = |caps: Caps| (caps.bits() >> (32 * word)) as u32;
        let data = [half(cred.effective), half(cred.permitted), half(cred.inheritable)];
        cur.mm().write_val(args.addr(1) + 12 * word as u64, &data)?;
    }
    Ok(0)
}

pub(super) fn capset(cur: &mut Current, args: &Args) -> Result<u64> {
    let (words, pid) = read_cap_header(cur, args)?;
    if pid != 0 && pid != cur.task.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let data = cur.mm().read_val::<[u32; 3]>(args.addr(1) + 12 * word as u64)?;
        for (set, half) in sets.iter_mut().zip(data) {
            *set |= u64::from(half) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(Caps::from_bits_truncate);
    change(cur, |cred| {
        let raise = inheritable - cred.inheritable;
        let may_raise = if cred.has(Caps::SETPCAP) { cred.bounding | cred.permitted } else { cred.permitted };
        if !cred.permitted.contains(permitted) || !permitted.contains(effective) || !may_raise.contains(raise)
        {
            return Err(Errno::EPERM);
        }
        (cred.effective, cred.permitted, cred.inheritable) = (effective, permitted, inheritable);
        cred.ambient &= permitted & inheritable;
        Ok(0)
    })
}

fn capability(number: u64) -> Result<Caps> {
    if number > u64::from(CAP_LAST) { Err(Errno::EINVAL) } else { Ok(Caps::from_bits_retain(1 << number)) }
}

pub(super) fn prctl(cur: &mut Current, args: &Args) -> Result<u64> {
    use linux_raw_sys::prctl as p;
    let [_, arg2, arg3, arg4, arg5, _] = args.0;
    match args.uint(0) {
        p::PR_SET_NAME => {
            let mut name = [0; COMM_LEN];
            let mm = cur.mm().clone();
            for (index, byte) in name.iter_mut().enumerate().take(COMM_LEN - 1) {
                let [read] = mm.read_val::<[u8; 1]>(arg2 + index as u64)?;
                if read == 0 {
                    break;
                }
                *byte = read;
            }
            let len = name.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
            cur.task.set_comm(&name[..len]);
            Ok(0)
        }
        p::PR_GET_NAME => {
            let mut name = [0; COMM_LEN];
            let comm = cur.task.comm();
            name[..comm.len()].copy_from_slice(&comm);
            cur.mm().write(arg2, &name)?;
            Ok(0)
        }
        p::PR_SET_PDEATHSIG => {
            if arg2 > 64 {
                return Err(Errno::EINVAL);
            }
            cur.task.set_parent_death_signal(arg2 as i32);
            Ok(0)
        }
        p::PR_GET_PDEATHSIG => {
            cur.mm().write_val(arg2, &cur.task.parent_death_signal())?;
            Ok(0)
        }
        p::PR_SET_DUMPABLE if arg2 <= 1 => {
            cur.task.group.dumpable.store(arg2, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_DUMPABLE => Ok(cur.task.group.dumpable.load(Ordering::Relaxed)),
        p::PR_SET_KEEPCAPS if arg2 <= 1 => change(cur, |cred| {
            if cred.securebits & securebits::KEEP_CAPS << 1 != 0 {
                return Err(Errno::EPERM);
            }
            cred.securebits =
                cred.securebits & !securebits::KEEP_CAPS | (arg2 as u32 * securebits::KEEP_CAPS);
            Ok(0)
        }),
        p::PR_GET_KEEPCAPS => Ok(u64::from(cur.cred().securebits & securebits::KEEP_CAPS != 0)),
        p::PR_SET_NO_NEW_PRIVS if arg2 == 1 && arg3 == 0 && arg4 == 0 && arg5 == 0 => {
            cur.task.set_no_new_privs();
            Ok(0)
        }
        p::PR_GET_NO_NEW_PRIVS if arg2 == 0 && arg3 == 0 && arg4 == 0 && arg5 == 0 => {
            Ok(u64::from(cur.task.confinement().no_new_privs))
        }
        p::PR_SET_SECCOMP => super::seccomp::set_mode(cur, arg2, arg3),
        p::PR_GET_SECCOMP => Ok(cur.task.confinement().mode as u64),
        p::PR_CAPBSET_READ => Ok(u64::from(cur.cred().bounding.contains(capability(arg2)?))),
        p::PR_CAPBSET_DROP => {
            if !cur.cred().has(Caps::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let cap = capability(arg2)?;
            change(cur, |cred| {
                cred.bounding -= cap;
                Ok(0)
            })
        }
        p::PR_CAP_AMBIENT if arg4 != 0 || arg5 != 0 => Err(Errno::EINVAL),
        p::PR_CAP_AMBIENT => ambient(cur, arg2, arg3),
        p::PR_SET_SECUREBITS => change(cur, |cred| {
            // Each bit has a lock behind it. What is locked stays, and so does the lock.
            let (old, new) = (u64::from(cred.securebits), arg2);
            let locks = old & u64::from(securebits::LOCKS);
            let kept = locks & !new == 0 && locks >> 1 & (old ^ new) == 0;
            if !cred.has(Caps::SETPCAP) || !kept || new & !u64::from(securebits::ALL) != 0 {
                return Err(Errno::EPERM);
            }
            cred.securebits = arg2 as u32;
            Ok(0)
        }),
        p::PR_GET_SECUREBITS => Ok(u64::from(cur.cred().securebits)),
        p::PR_SET_CHILD_SUBREAPER => {
            cur.set_subreaper(arg2 != 0);
            Ok(0)
        }
        p::PR_GET_CHILD_SUBREAPER => {
            let value = i32::from(cur.is_subreaper());
            cur.mm().write_val(arg2, &value)?;
            Ok(0)
        }
        p::PR_SET_TIMERSLACK => {
            let default = cur.task.default_slack.load(Ordering::Relaxed);
            let slack = if arg2 == 0 { default } else { arg2 };
            cur.task.timer_slack.store(slack, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_TIMERSLACK => Ok(cur.task.timer_slack.load(Ordering::Relaxed)),
        p::PR_SET_THP_DISABLE if arg3 == 0 && arg4 == 0 && arg5 == 0 => {
            cur.task.group.no_huge_pages.store(arg2 != 0, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_THP_DISABLE if arg2 == 0 && arg3 == 0 && arg4 == 0 && arg5 == 0 => {
            Ok(cur.task.group.no_huge_pages.load(Ordering::Relaxed).into())
        }
        p::PR_GET_TID_ADDRESS => {
            cur.mm().write_val(arg2, &cur.clear_child_tid)?;
            Ok(0)
        }
        PROVOKE_BUG => {
            cur.kernel.provoke_bug(&cur.task);
            Err(Errno::EINVAL)
        }
        READ_HOST => cur.kernel.read_host().map(|sum| u64::from(sum >> 1)).ok_or(Errno::EINVAL),
        // Among them names for anonymous memory (CONFIG_ANON_VMA_NAME) and who may trace (Yama).
        _ => Err(Errno::EINVAL),
    }
}

fn ambient(cur: &mut Current, operation: u64, number: u64) -> Result<u64> {
    use linux_raw_sys::prctl as p;
    let operation = u32::try_from(operation).map_err(|_| Errno::EINVAL)?;
    if operation == p::PR_CAP_AMBIENT_CLEAR_ALL {
        if number != 0 {
            return Err(Errno::EINVAL);
        }
        return change(cur, |cred| {
            cred.ambient = Caps::empty();
            Ok(0)
        });
    }
    let cap = capability(number)?;
    match operation {
        p::PR_CAP_AMBIENT_IS_SET => Ok(u64::from(cur.cred().ambient.contains(cap))),
        p::PR_CAP_AMBIENT_RAISE => change(cur, |cred| {
            let forbidden = cred.securebits & securebits::NO_CAP_AMBIENT_RAISE != 0;
            if forbidden || !(cred.permitted & cred.inheritable).contains(cap) {
                return Err(Errno::EPERM);
            }
            cred.ambient |= cap;
            Ok(0)
        }),
        p::PR_CAP_AMBIENT_LOWER => change(cur, |cred| {
            cred.ambient -= cap;
            Ok(0)
        }),
        _ => Err(Errno::EINVAL),
    }
}
