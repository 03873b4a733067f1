//! prctl(2).

use crate::abi::{Errno, Result};
use crate::cred::{CAP_LAST, Caps, securebits};
use crate::kernel::task::COMM_LEN;
use crate::kernel::{Current, OVERFLOW, PROVOKE_BUG, READ_HOST, REFUSED_CALL};
use crate::syscalls::Args;
use crate::syscalls::credentials::cred::change;
use core::sync::atomic::Ordering;

fn capability(number: u64) -> Result<Caps> {
    if number > u64::from(CAP_LAST) { Err(Errno::EINVAL) } else { Ok(Caps::from_bits_retain(1 << number)) }
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

pub(crate) fn prctl(cur: &mut Current, args: &Args) -> Result<u64> {
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
            cur.mm().set_dumpable(arg2 != 0);
            Ok(0)
        }
        p::PR_GET_DUMPABLE => Ok(u64::from(cur.mm().is_dumpable())),
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
        p::PR_SET_SECCOMP => crate::syscalls::credentials::seccomp::set_mode(cur, arg2, arg3),
        p::PR_GET_SECCOMP => Ok(cur.task.confinement().mode as u64),
        p::PR_CAPBSET_READ => Ok(u64::from(cur.cred().bounding.contains(capability(arg2)?))),
        p::PR_CAPBSET_DROP => {
            if !cur.cred().has_own(Caps::SETPCAP) {
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
            if !cred.has_own(Caps::SETPCAP) || !kept || new & !u64::from(securebits::ALL) != 0 {
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
            cur.task.set_timer_slack(arg2);
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
        PROVOKE_BUG => Err(cur.kernel.provoke_bug(&cur.task)),
        OVERFLOW => Err(cur.kernel.overflow(&cur.task, arg2)),
        READ_HOST => cur.kernel.read_host().map(|sum| u64::from(sum >> 1)).ok_or(Errno::EINVAL),
        REFUSED_CALL => cur.kernel.make_refused_call(),
        // Among them names for anonymous memory (CONFIG_ANON_VMA_NAME) and who may trace (Yama).
        _ => Err(Errno::EINVAL),
    }
}
