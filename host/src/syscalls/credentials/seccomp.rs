//! seccomp(2) and its older form, prctl(PR_SET_SECCOMP).

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::seccomp::{MAX_INSNS, Program, RawInsn, action};
use crate::syscalls::Args;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

const FLAG_TSYNC: u32 = 1;
/// Logging is the host's business: accepted, nothing is logged.
const FLAG_LOG: u32 = 2;
/// Leaves a mitigation off that is not on here.
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_TSYNC_ESRCH: u32 = 16;

/// Modes of prctl(PR_SET_SECCOMP).
const MODE_STRICT: u64 = 1;
const MODE_FILTER: u64 = 2;

/// Sizes of `struct seccomp_notif`, `seccomp_notif_resp`, `seccomp_data`.
const NOTIF_SIZES: [u16; 3] = [80, 24, 64];

/// `struct sock_fprog`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Fprog {
    len: u16,
    padding: [u16; 3],
    filter: u64,
}

pub(crate) fn seccomp(cur: &mut Current, args: &Args) -> Result<u64> {
    operate(cur, args.uint(0), args.uint(1), args.addr(2))
}

/// prctl(PR_SET_SECCOMP). Strict mode takes no argument there, whatever was passed.
pub(crate) fn set_mode(cur: &mut Current, mode: u64, filter: u64) -> Result<u64> {
    match mode {
        MODE_STRICT => operate(cur, SET_MODE_STRICT, 0, 0),
        MODE_FILTER => operate(cur, SET_MODE_FILTER, 0, filter),
        _ => Err(Errno::EINVAL),
    }
}

fn operate(cur: &mut Current, operation: u32, flags: u32, address: u64) -> Result<u64> {
    match operation {
        SET_MODE_STRICT if flags == 0 && address == 0 => cur.confine_strictly().map(|()| 0),
        SET_MODE_FILTER => add_filter(cur, flags, address),
        GET_ACTION_AVAIL if flags == 0 => {
            let asked = cur.mm().read_val::<u32>(address)?;
            if action::AVAILABLE.contains(&asked) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        GET_NOTIF_SIZES if flags == 0 => {
            cur.mm().write_val(address, &NOTIF_SIZES)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn add_filter(cur: &mut Current, flags: u32, address: u64) -> Result<u64> {
    if flags & !(FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_TSYNC_ESRCH) != 0 {
        return Err(Errno::EINVAL);
    }
    let given = cur.mm().read_val::<Fprog>(address)?;
    let len = usize::from(given.len);
    if len == 0 || len > MAX_INSNS {
        return Err(Errno::EINVAL);
    }
    cur.may_add_filter()?;
    if given.filter == 0 {
        return Err(Errno::EINVAL);
    }
    let insns: Vec<RawInsn> = cur.mm().read_vec(given.filter, len)?;
    let unsynchronized = cur.add_filter(Program::check(&insns)?, flags & FLAG_TSYNC != 0)?;
    match unsynchronized {
        0 => Ok(0),
        _ if flags & FLAG_TSYNC_ESRCH != 0 => Err(Errno::ESRCH),
        tid => Ok(tid as u64),
    }
}
