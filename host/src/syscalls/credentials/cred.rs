//! Users, groups and their sets.

use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred, NGROUPS_MAX};
use crate::kernel::Current;
use crate::syscalls::Args;
use std::sync::Arc;

/// Changes the caller's credentials if `change` succeeds.
pub(crate) fn change<T>(cur: &mut Current, change: impl FnOnce(&mut Cred) -> Result<T>) -> Result<T> {
    let mut new = Cred::clone(&cur.cred());
    let value = change(&mut new)?;
    if new != *cur.cred() {
        cur.set_cred(new);
    }
    Ok(value)
}

pub(crate) fn getuid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().uid.real))
}

pub(crate) fn geteuid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().uid.effective))
}

pub(crate) fn getgid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().gid.real))
}

pub(crate) fn getegid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(u64::from(cur.cred().gid.effective))
}

pub(crate) fn setuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_uid(args.uint(0)))?;
    Ok(0)
}

pub(crate) fn setgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_gid(args.uint(0)))?;
    Ok(0)
}

pub(crate) fn setreuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_reuid(args.uint(0), args.uint(1)))?;
    Ok(0)
}

pub(crate) fn setregid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_regid(args.uint(0), args.uint(1)))?;
    Ok(0)
}

pub(crate) fn setresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_resuid(args.uint(0), args.uint(1), args.uint(2)))?;
    Ok(0)
}

pub(crate) fn setresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_resgid(args.uint(0), args.uint(1), args.uint(2)))?;
    Ok(0)
}

pub(crate) fn setfsuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| Ok(cred.set_fsuid(args.uint(0)))).map(u64::from)
}

pub(crate) fn setfsgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| Ok(cred.set_fsgid(args.uint(0)))).map(u64::from)
}

fn write_three(cur: &Current, args: &Args, ids: crate::cred::Ids) -> Result<u64> {
    for (index, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        cur.mm().write_val(args.addr(index), id)?;
    }
    Ok(0)
}

pub(crate) fn getresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    write_three(cur, args, cur.cred().uid)
}

pub(crate) fn getresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    write_three(cur, args, cur.cred().gid)
}

pub(crate) fn getgroups(cur: &mut Current, args: &Args) -> Result<u64> {
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

pub(crate) fn setgroups(cur: &mut Current, args: &Args) -> Result<u64> {
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
