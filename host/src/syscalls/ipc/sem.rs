//! semget, semop, semtimedop, semctl.

use super::{Args, IPC_INFO, IPC_RMID, IPC_SET, StatusOf, owner, raw_perm};
use crate::abi::ipc::RawSemaphores;
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::kernel::Current;
use crate::kernel::ipc::sem::{Ask, MAX_VALUE, MOST_OPERATIONS, SemOp, Status};
use crate::syscalls::args_time::{deadline, timespec};
use zerocopy::FromZeros;

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// What `struct seminfo` says of things that are not limited (SEMUSZ, SEMUME).
const UNDO_SIZE: i32 = 20;
const UNDO_ENTRIES: i32 = 500;

fn raw(status: &Status, cred: &Cred) -> RawSemaphores {
    RawSemaphores {
        perm: raw_perm(&status.perm, cred),
        otime: status.otime,
        ctime: status.ctime,
        count: status.count as u64,
        ..RawSemaphores::new_zeroed()
    }
}

/// semget(2)
pub(in crate::syscalls) fn semget(cur: &mut Current, args: &Args) -> Result<u64> {
    let found = cur.task.ipc().semaphores(args.int(0), args.int(1), args.uint(2), &cur.cred());
    found.map(|id| id as u64)
}

/// semop(2)
pub(in crate::syscalls) fn semop(cur: &mut Current, args: &Args) -> Result<u64> {
    operate(cur, args, 0)
}

/// semtimedop(2)
pub(in crate::syscalls) fn semtimedop(cur: &mut Current, args: &Args) -> Result<u64> {
    operate(cur, args, args.addr(3))
}

fn operate(cur: &mut Current, args: &Args, timeout: u64) -> Result<u64> {
    let (id, addr, count) = (args.int(0), args.addr(1), args.uint(2) as usize);
    if timeout != 0 {
        // An address is looked at before the other arguments, the time behind them.
        cur.mm().read_val::<[i64; 2]>(timeout)?;
    }
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > cur.task.ipc().limits.lock().semopm.min(MOST_OPERATIONS) as usize {
        return Err(Errno::E2BIG);
    }
    let ops = cur.mm().read_vec::<SemOp>(addr, count)?;
    let until = deadline(timespec(cur.mm(), timeout)?);
    cur.operate_semaphores(id, ops, until).map(|()| 0)
}

/// semctl(2)
pub(in crate::syscalls) fn semctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, number, command, addr) = (args.int(0), args.int(1), args.int(2), args.addr(3));
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, cred, pid) = (cur.task.ipc(), cur.cred(), cur.task.tgid());
    if let Some(of) = StatusOf::command(command, SEM_STAT, SEM_STAT_ANY) {
        let status = ipc.semaphores_status(id, of.by_index, of.who(&cred))?;
        cur.mm().write_val(addr, &raw(&status, &cred))?;
        return Ok(of.result(&status.perm));
    }
    let ask = |ask: Ask| ipc.semaphore(id, number, ask, &cred);
    match command {
        IPC_INFO | SEM_INFO => info(cur, command == SEM_INFO, addr),
        GETVAL => ask(Ask::Value),
        GETPID => ask(Ask::Pid).map(|id| cur.number_of(id as i32) as u64),
        GETNCNT => ask(Ask::WaitForRise),
        GETZCNT => ask(Ask::WaitForZero),
        GETALL => {
            let values = ipc.semaphore_values(id, &cred)?;
            cur.mm().write_val(addr, values.as_slice()).map(|()| 0)
        }
        SETVAL => {
            let value = in_range(i64::from(args.int(3)))?;
            ipc.set_semaphores(id, number, &[value], &cred, pid).map(|()| 0)
        }
        SETALL => {
            let count = ipc.settable_semaphores(id, &cred)?;
            let values = cur.mm().read_vec::<u16>(addr, count)?;
            for value in &values {
                in_range(i64::from(*value))?;
            }
            ipc.set_semaphores(id, 0, &values, &cred, pid).map(|()| 0)
        }
        IPC_SET => {
            let raw: RawSemaphores = cur.mm().read_val(addr)?;
            ipc.set_semaphores_owner(id, owner(&raw.perm, &cred), raw.perm.mode, &cred).map(|()| 0)
        }
        IPC_RMID => ipc.remove_semaphores(id, &cred).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

fn in_range(value: i64) -> Result<u16> {
    if (0..=i64::from(MAX_VALUE)).contains(&value) { Ok(value as u16) } else { Err(Errno::ERANGE) }
}

/// `struct seminfo`: map, mni, mns, mnu, msl, opm, ume, usz, vmx, aem.
fn info(cur: &Current, used: bool, addr: u64) -> Result<u64> {
    let ipc = cur.task.ipc();
    let limits = *ipc.limits.lock();
    let (sets, sems, highest) = ipc.semaphore_totals();
    let mns = limits.semmns as i32;
    let (usz, aem) = if used { (sets as i32, sems as i32) } else { (UNDO_SIZE, MAX_VALUE) };
    let raw = [
        mns,
        limits.semmni as i32,
        mns,
        mns,
        limits.semmsl as i32,
        limits.semopm as i32,
        UNDO_ENTRIES,
        usz,
        MAX_VALUE,
        aem,
    ];
    cur.mm().write_val(addr, &raw)?;
    Ok(highest)
}
