//! wait4, waitid.

use super::limits::rusage_bytes;
use crate::abi::{Errno, Result};
use crate::kernel::{Current, WaitFor, WaitOptions};
use crate::syscalls::Args;
use linux_raw_sys::general::O_NONBLOCK;

/// `idtype_t`.
const P_ALL: i32 = 0;
const P_PID: i32 = 1;
const P_PGID: i32 = 2;
const P_PIDFD: i32 = 3;

fn own_group(cur: &Current) -> Result<i32> {
    cur.group_and_session(0).map(|(pgid, _)| pgid)
}

/// Nobody's number is that of no child.
fn id_of(cur: &Current, number: i32) -> Result<i32> {
    cur.id_of(number).map_err(|_| Errno::ECHILD)
}

pub(crate) fn wait4(cur: &mut Current, args: &Args) -> Result<u64> {
    let options = WaitOptions::from_bits(args.uint(2)).ok_or(Errno::EINVAL)?;
    if options.intersects(WaitOptions::EXITED | WaitOptions::NOWAIT) {
        return Err(Errno::EINVAL);
    }
    let which = match args.int(0) {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => WaitFor::Any,
        0 => WaitFor::Group(own_group(cur)?),
        pid @ 1.. => WaitFor::Pid(id_of(cur, pid)?),
        pgid => WaitFor::Group(id_of(cur, -pgid)?),
    };
    let Some(waited) = cur.wait_child(which, options | WaitOptions::EXITED)? else { return Ok(0) };
    if args.addr(1) != 0 {
        cur.mm().write_val(args.addr(1), &waited.status.0)?;
    }
    if args.addr(3) != 0 {
        cur.mm().write(args.addr(3), &rusage_bytes(&waited.usage))?;
    }
    Ok(waited.pid as u64)
}

pub(crate) fn waitid(cur: &mut Current, args: &Args) -> Result<u64> {
    let options = WaitOptions::from_bits(args.uint(3)).ok_or(Errno::EINVAL)?;
    if !options.intersects(WaitOptions::EXITED | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
        return Err(Errno::EINVAL);
    }
    let (id, mut impatient) = (args.int(1), false);
    let which = match args.int(0) {
        P_ALL => WaitFor::Any,
        P_PID if id > 0 => WaitFor::Pid(id_of(cur, id)?),
        P_PIDFD if id >= 0 => {
            let pid = super::pidfd::process(cur, id)?.tgid;
            // A descriptor that does not wait makes a call that does not, and says so.
            impatient = cur.file(id)?.flags() & O_NONBLOCK != 0;
            WaitFor::Pid(pid)
        }
        P_PGID if id > 0 => WaitFor::Group(id_of(cur, id)?),
        P_PGID if id == 0 => WaitFor::Group(own_group(cur)?),
        _ => return Err(Errno::EINVAL),
    };
    impatient &= !options.contains(WaitOptions::NOHANG);
    let hang = if impatient { WaitOptions::NOHANG } else { WaitOptions::empty() };
    let waited = cur.wait_child(which, options | hang)?;
    if impatient && waited.is_none() {
        return Err(Errno::EAGAIN);
    }
    if args.addr(2) != 0 {
        let info = waited.map_or([0; 128], |waited| waited.info.told_in(&cur.cred().user_ns).to_bytes());
        cur.mm().write(args.addr(2), &info)?;
    }
    if let Some(waited) = waited
        && args.addr(4) != 0
    {
        cur.mm().write(args.addr(4), &rusage_bytes(&waited.usage))?;
    }
    Ok(0)
}
