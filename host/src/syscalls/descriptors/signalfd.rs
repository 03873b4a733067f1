//! Signals behind descriptors: signalfd(2).

use super::fd::install;
use crate::abi::{Errno, Result};
use crate::fs::signalfd::SignalFd;
use crate::kernel::Current;
use crate::kernel::signal::{Fields, SigInfo, SigSet};
use crate::mm::IoDst;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;
use crate::vfs::File;
use linux_raw_sys::general as c;
use std::sync::Arc;

fn make_signalfd(cur: &mut Current, args: &Args, flags: u32) -> Result<u64> {
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    if args.size(2) != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(cur.mm().read_val(args.addr(1))?).minus(SigSet::UNBLOCKABLE);
    if args.fd(0) == -1 {
        return install(cur, SignalFd::open(&cur.task, mask, flags), flags);
    }
    let file = cur.file(args.fd(0))?;
    file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(args.fd(0) as u64)
}

/// Size of `struct signalfd_siginfo`.
const SIGINFO: usize = 128;

/// `struct signalfd_siginfo` out of `siginfo_t`: signo, errno, code, then pid, uid, fd, tid, band, overrun, trapno,
/// status, int, ptr...
fn encode(info: &SigInfo) -> [u8; SIGINFO] {
    let raw = info.to_bytes();
    let mut out = [0; SIGINFO];
    out[..12].copy_from_slice(&raw[..12]);
    if let Fields::Poll { band, fd } = info.fields {
        out[20..24].copy_from_slice(&fd.to_ne_bytes());
        out[28..32].copy_from_slice(&(band as u32).to_ne_bytes());
        return out;
    }
    // si_pid and si_uid, where the signal has them.
    out[12..20].copy_from_slice(&raw[16..24]);
    // si_status for SIGCHLD, si_value for queued signals.
    if info.signo == crate::kernel::signal::SIGCHLD {
        out[40..44].copy_from_slice(&raw[24..28]);
    } else {
        out[44..48].copy_from_slice(&raw[24..28]);
        out[48..56].copy_from_slice(&raw[24..32]);
    }
    out
}

/// signalfd(2)
pub(crate) fn signalfd(cur: &mut Current, args: &Args) -> Result<u64> {
    make_signalfd(cur, args, 0)
}

/// signalfd4(2)
pub(crate) fn signalfd4(cur: &mut Current, args: &Args) -> Result<u64> {
    make_signalfd(cur, args, args.uint(3))
}

/// What read(2) does on a signalfd: takes pending signals of the calling task.
pub(crate) fn read_signals(
    cur: &mut Current,
    file: &Arc<File>,
    signals: &SignalFd,
    dst: &mut IoDst<'_>,
) -> Result<u64> {
    let room = dst.remaining() / SIGINFO;
    if room == 0 {
        return Err(Errno::EINVAL);
    }
    let mask = signals.mask();
    let group = cur.task.group.clone();
    let mut total = 0;
    for _ in 0..room {
        let info = match cur.take_signal(mask) {
            Some(info) => info,
            None if total > 0 => break,
            None if file.nonblocking() => return Err(Errno::EAGAIN),
            None => {
                let task = cur.task.clone();
                loop {
                    let mut ready = || (task.pending_signals().0 & mask.0 != 0).then_some(());
                    cur.wait_on(&[(&group.signal_wait, !0)], None, &mut ready)?;
                    if let Some(info) = cur.take_signal(mask) {
                        break info;
                    }
                }
            }
        };
        total += dst.write_bytes(&encode(&info))?;
    }
    Ok(total as u64)
}
