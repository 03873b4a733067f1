//! Signals.

use crate::abi::{Errno, Result};
use crate::arch::Registers;
use crate::kernel::Current;
use crate::kernel::signal::{Fields, NSIG, SIGINFO_SIZE, SigAction, SigInfo, SigSet, code};
use crate::mm::Mm;
use crate::syscalls::Args;
use crate::syscalls::args_time::{deadline, timespec};

/// Size of `sigset_t` in the kernel's ABI; every call says it.
const SIGSET_SIZE: usize = 8;

fn check_size(size: usize) -> Result<()> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(crate) fn check_signal(signo: i32) -> Result<()> {
    if (0..=NSIG).contains(&signo) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Reads a signal set; `None` for a null pointer. Shared with ppoll and its like.
pub(crate) fn read_set(mm: &Mm, addr: u64, size: usize) -> Result<Option<SigSet>> {
    if addr == 0 {
        return Ok(None);
    }
    check_size(size)?;
    mm.read_val::<u64>(addr).map(|bits| Some(SigSet(bits)))
}

pub(crate) fn rt_sigaction(cur: &mut Current, args: &Args) -> Result<u64> {
    check_size(args.size(3))?;
    let (new, old) = (args.addr(1), args.addr(2));
    let action = if new == 0 {
        None
    } else {
        let [handler, flags, restorer, mask] = cur.mm().read_val::<[u64; 4]>(new)?;
        Some(SigAction { handler, flags, restorer, mask: SigSet(mask) })
    };
    let before = cur.set_action(args.int(0), action)?;
    if old != 0 {
        let words = [before.handler, before.flags, before.restorer, before.mask.0];
        cur.mm().write_val(old, &words)?;
    }
    Ok(0)
}

pub(crate) fn rt_sigprocmask(cur: &mut Current, args: &Args) -> Result<u64> {
    const SIG_BLOCK: i32 = 0;
    const SIG_UNBLOCK: i32 = 1;
    const SIG_SETMASK: i32 = 2;
    check_size(args.size(3))?;
    let before = cur.task.blocked();
    if args.addr(1) != 0 {
        let set = SigSet(cur.mm().read_val(args.addr(1))?);
        let new = match args.int(0) {
            SIG_BLOCK => before.or(set),
            SIG_UNBLOCK => before.minus(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        cur.set_blocked(new);
    }
    if args.addr(2) != 0 {
        cur.mm().write_val(args.addr(2), &before.0)?;
    }
    Ok(0)
}

pub(crate) fn rt_sigreturn(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.sigreturn();
    Ok(0)
}

pub(crate) fn rt_sigpending(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.size(1) > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = cur.pending_signals().and(cur.task.blocked());
    cur.mm().write(args.addr(0), &set.0.to_ne_bytes()[..args.size(1)])?;
    Ok(0)
}

pub(crate) fn rt_sigsuspend(cur: &mut Current, args: &Args) -> Result<u64> {
    let set = read_set(&cur.mm().clone(), args.addr(0), args.size(1))?.ok_or(Errno::EFAULT)?;
    cur.set_temporary_mask(set);
    wait_for_signal(cur)
}

pub(crate) fn pause(cur: &mut Current, _args: &Args) -> Result<u64> {
    wait_for_signal(cur)
}

fn wait_for_signal(cur: &mut Current) -> Result<u64> {
    let never = cur.wait_on(&[], None, &mut || None::<u64>);
    Err(never.err().map_or(Errno::EINTR, |_| Errno::ERESTARTNOHAND))
}

pub(crate) fn rt_sigtimedwait(cur: &mut Current, args: &Args) -> Result<u64> {
    let mm = cur.mm().clone();
    let set = read_set(&mm, args.addr(0), args.size(3))?.ok_or(Errno::EFAULT)?.minus(SigSet::UNBLOCKABLE);
    let deadline = deadline(timespec(&mm, args.addr(2))?);
    let info = cur.await_signal(set, deadline)?;
    if args.addr(1) != 0 {
        mm.write(args.addr(1), &info.to_bytes())?;
    }
    Ok(info.signo as u64)
}

pub(crate) fn sigaltstack(cur: &mut Current, args: &Args) -> Result<u64> {
    let mm = cur.mm().clone();
    let before = cur.altstack;
    let flags = before.flags_at(cur.regs.sp());
    if args.addr(0) != 0 {
        let [sp, flags, size] = mm.read_val::<[u64; 3]>(args.addr(0))?;
        cur.set_altstack(sp, flags as i32, size)?;
    }
    if args.addr(1) != 0 {
        mm.write_val(args.addr(1), &[before.sp, u64::from(flags as u32), before.size])?;
    }
    Ok(0)
}

pub(crate) fn sender(cur: &Current, signo: i32, code: i32) -> SigInfo {
    SigInfo::user(signo, code, cur.task.tgid(), cur.cred().uid.real)
}

pub(crate) fn kill(cur: &mut Current, args: &Args) -> Result<u64> {
    let (pid, signo) = (args.int(0), args.int(1));
    check_signal(signo)?;
    let info = sender(cur, signo, code::SI_USER);
    let whom = cur.kill_target(pid)?;
    cur.kill(whom, signo, info).map(|()| 0)
}

pub(crate) fn tkill(cur: &mut Current, args: &Args) -> Result<u64> {
    thread_kill(cur, 0, args.int(0), args.int(1))
}

pub(crate) fn tgkill(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    thread_kill(cur, args.int(0), args.int(1), args.int(2))
}

fn thread_kill(cur: &mut Current, tgid: i32, tid: i32, signo: i32) -> Result<u64> {
    check_signal(signo)?;
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = sender(cur, signo, code::SI_TKILL);
    send_to_thread(cur, (tgid, tid), signo, info)
}

fn send_to_thread(cur: &mut Current, (tgid, tid): (i32, i32), signo: i32, info: SigInfo) -> Result<u64> {
    let tgid = if tgid == 0 { 0 } else { cur.id_of(tgid)? };
    let tid = if tid == cur.task.number() { cur.task.tid() } else { cur.id_of(tid)? };
    cur.kill_thread(tgid, tid, signo, info).map(|()| 0)
}

/// A siginfo that a program made: it may not claim to come from the kernel or from kill(2), except to itself.
pub(crate) fn read_info(cur: &Current, addr: u64, signo: i32, to_self: bool) -> Result<SigInfo> {
    check_signal(signo)?;
    let mut bytes = [0; SIGINFO_SIZE];
    cur.mm().read(addr, &mut bytes)?;
    let info = SigInfo::from_bytes(signo, &bytes).said_in(&cur.cred().user_ns);
    if (info.code >= 0 || info.code == code::SI_TKILL) && !to_self {
        return Err(Errno::EPERM);
    }
    debug_assert!(matches!(info.fields, Fields::Raw(_)));
    Ok(info)
}

pub(crate) fn rt_sigqueueinfo(cur: &mut Current, args: &Args) -> Result<u64> {
    let (pid, signo) = (args.int(0), args.int(1));
    let info = read_info(cur, args.addr(2), signo, pid == cur.task.group.number)?;
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    let whom = cur.kill_target(pid)?;
    cur.kill(whom, signo, info).map(|()| 0)
}

pub(crate) fn rt_tgsigqueueinfo(cur: &mut Current, args: &Args) -> Result<u64> {
    let (tgid, tid, signo) = (args.int(0), args.int(1), args.int(2));
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = read_info(cur, args.addr(3), signo, tid == cur.task.number())?;
    send_to_thread(cur, (tgid, tid), signo, info)
}

pub(crate) fn restart_syscall(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.restart()
}
