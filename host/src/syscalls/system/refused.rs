//! Calls that change or look into the machine itself. There is none below a sandbox: they are refused as a kernel that is
//! locked down (kernel_lockdown(7)) refuses them, to root as well.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;

/// Ports that ioperm(2) knows.
const PORTS: u64 = 65536;

fn refused(_: &mut Current, _: &Args) -> Result<u64> {
    Err(Errno::EPERM)
}

/// acct(2)
pub(crate) fn acct(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// swapon(2)
pub(crate) fn swapon(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// swapoff(2)
pub(crate) fn swapoff(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// reboot(2)
pub(crate) fn reboot(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// init_module(2)
pub(crate) fn init_module(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// finit_module(2)
pub(crate) fn finit_module(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// delete_module(2)
pub(crate) fn delete_module(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// kexec_load(2)
pub(crate) fn kexec_load(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// kexec_file_load(2)
pub(crate) fn kexec_file_load(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// bpf(2)
pub(crate) fn bpf(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// quotactl(2)
pub(crate) fn quotactl(cur: &mut Current, args: &Args) -> Result<u64> {
    refused(cur, args)
}

/// quotactl_fd(2)
pub(crate) fn quotactl_fd(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.file(args.fd(0))?;
    refused(cur, args)
}

/// perf_event_open(2), as with perf_event_paranoid at its highest.
pub(crate) fn perf_event_open(_: &mut Current, _: &Args) -> Result<u64> {
    Err(Errno::EACCES)
}

/// iopl(2): nobody's level is above 0, and giving that up is no change.
pub(crate) fn iopl(_: &mut Current, args: &Args) -> Result<u64> {
    match args.uint(0) {
        0 => Ok(0),
        1..=3 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// ioperm(2): as iopl(2), port by port.
pub(crate) fn ioperm(_: &mut Current, args: &Args) -> Result<u64> {
    let (from, count) = (args.addr(0), args.addr(1));
    if from.checked_add(count).is_none_or(|end| end <= from || end > PORTS) {
        return Err(Errno::EINVAL);
    }
    if args.int(2) == 0 { Ok(0) } else { Err(Errno::EPERM) }
}
