//! Times of files.

use super::names::{CWD, path_of};
use super::names::{Names, only, resolve_at};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::{SetTime, Timestamp};
use linux_raw_sys::general as c;

/// utimensat(2); a null name is the descriptor itself.
pub(crate) fn utimensat(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(3);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    let times = if args.addr(2) == 0 {
        [SetTime::Now; 2]
    } else {
        let raw: [i64; 4] = cur.mm().read_val(args.addr(2))?;
        [spec(raw[0], raw[1])?, spec(raw[2], raw[3])?]
    };
    let path = if args.addr(1) == 0 {
        if args.fd(0) == CWD {
            return Err(Errno::EFAULT);
        }
        path_of(cur, args.fd(0))?
    } else {
        resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?
    };
    Names::of(cur).lookup().set_times(&path, times[0], times[1])?;
    Ok(0)
}

/// UTIME_NOW and UTIME_OMIT, which linux-raw-sys lacks with this type (linux/stat.h).
const UTIME_NOW: i64 = (1 << 30) - 1;

const UTIME_OMIT: i64 = (1 << 30) - 2;

fn spec(sec: i64, nsec: i64) -> Result<SetTime> {
    match nsec {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Omit),
        0..=999_999_999 => Ok(SetTime::To(Timestamp { sec, nsec: nsec as u32 })),
        _ => Err(Errno::EINVAL),
    }
}

fn set_micro(cur: &Current, dirfd: i32, name: u64, times: u64) -> Result<u64> {
    let set = if times == 0 {
        [SetTime::Now; 2]
    } else {
        let raw: [i64; 4] = cur.mm().read_val(times)?;
        let micro = |sec, usec| match usec {
            0..=999_999 => Ok(SetTime::To(Timestamp { sec, nsec: usec as u32 * 1000 })),
            _ => Err(Errno::EINVAL),
        };
        [micro(raw[0], raw[1])?, micro(raw[2], raw[3])?]
    };
    let path = resolve_at(cur, dirfd, name, 0, true)?;
    Names::of(cur).lookup().set_times(&path, set[0], set[1])?;
    Ok(0)
}

/// utimes(2)
pub(crate) fn utimes(cur: &mut Current, args: &Args) -> Result<u64> {
    set_micro(cur, CWD, args.addr(0), args.addr(1))
}

/// futimesat(2)
pub(crate) fn futimesat(cur: &mut Current, args: &Args) -> Result<u64> {
    set_micro(cur, args.fd(0), args.addr(1), args.addr(2))
}

/// utime(2)
pub(crate) fn utime(cur: &mut Current, args: &Args) -> Result<u64> {
    let set = if args.addr(1) == 0 {
        [SetTime::Now; 2]
    } else {
        let raw: [i64; 2] = cur.mm().read_val(args.addr(1))?;
        raw.map(|sec| SetTime::To(Timestamp { sec, nsec: 0 }))
    };
    let path = resolve_at(cur, CWD, args.addr(0), 0, true)?;
    Names::of(cur).lookup().set_times(&path, set[0], set[1])?;
    Ok(0)
}
