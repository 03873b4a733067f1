//! Users, groups and their sets.

use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred, NGROUPS_MAX, NO_ID};
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
    let cred = cur.cred();
    Ok(u64::from(cred.user_ns.show_uid(cred.uid.real)))
}

pub(crate) fn geteuid(cur: &mut Current, _args: &Args) -> Result<u64> {
    let cred = cur.cred();
    Ok(u64::from(cred.user_ns.show_uid(cred.uid.effective)))
}

pub(crate) fn getgid(cur: &mut Current, _args: &Args) -> Result<u64> {
    let cred = cur.cred();
    Ok(u64::from(cred.user_ns.show_gid(cred.gid.real)))
}

pub(crate) fn getegid(cur: &mut Current, _args: &Args) -> Result<u64> {
    let cred = cur.cred();
    Ok(u64::from(cred.user_ns.show_gid(cred.gid.effective)))
}

/// The user that an argument names.
///
/// # Errors
/// EINVAL for a name that is nobody's where the caller is.
pub(crate) fn user(cred: &Cred, name: u32) -> Result<u32> {
    cred.user_ns.uid(name).ok_or(Errno::EINVAL)
}

/// The group that an argument names.
///
/// # Errors
/// EINVAL for a name that is no group's where the caller is.
pub(crate) fn group(cred: &Cred, name: u32) -> Result<u32> {
    cred.user_ns.gid(name).ok_or(Errno::EINVAL)
}

/// The same for an argument that may leave one as it is.
pub(crate) fn user_or_none(cred: &Cred, name: u32) -> Result<u32> {
    if name == NO_ID { Ok(NO_ID) } else { user(cred, name) }
}

/// Likewise.
pub(crate) fn group_or_none(cred: &Cred, name: u32) -> Result<u32> {
    if name == NO_ID { Ok(NO_ID) } else { group(cred, name) }
}

pub(crate) fn setuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_uid(user(cred, args.uint(0))?))?;
    Ok(0)
}

pub(crate) fn setgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| cred.set_gid(group(cred, args.uint(0))?))?;
    Ok(0)
}

pub(crate) fn setreuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| {
        let [real, effective] = [0, 1].map(|index| user_or_none(cred, args.uint(index)));
        cred.set_reuid(real?, effective?)
    })?;
    Ok(0)
}

pub(crate) fn setregid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| {
        let [real, effective] = [0, 1].map(|index| group_or_none(cred, args.uint(index)));
        cred.set_regid(real?, effective?)
    })?;
    Ok(0)
}

pub(crate) fn setresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| {
        let [real, effective, saved] = [0, 1, 2].map(|index| user_or_none(cred, args.uint(index)));
        cred.set_resuid(real?, effective?, saved?)
    })?;
    Ok(0)
}

pub(crate) fn setresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    change(cur, |cred| {
        let [real, effective, saved] = [0, 1, 2].map(|index| group_or_none(cred, args.uint(index)));
        cred.set_resgid(real?, effective?, saved?)
    })?;
    Ok(0)
}

pub(crate) fn setfsuid(cur: &mut Current, args: &Args) -> Result<u64> {
    let old = change(cur, |cred| Ok(cred.set_fsuid(user(cred, args.uint(0)).unwrap_or(NO_ID))))?;
    Ok(u64::from(cur.cred().user_ns.show_uid(old)))
}

pub(crate) fn setfsgid(cur: &mut Current, args: &Args) -> Result<u64> {
    let old = change(cur, |cred| Ok(cred.set_fsgid(group(cred, args.uint(0)).unwrap_or(NO_ID))))?;
    Ok(u64::from(cur.cred().user_ns.show_gid(old)))
}

fn write_three(cur: &Current, args: &Args, ids: crate::cred::Ids, show: impl Fn(u32) -> u32) -> Result<u64> {
    for (index, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        cur.mm().write_val(args.addr(index), &show(*id))?;
    }
    Ok(0)
}

pub(crate) fn getresuid(cur: &mut Current, args: &Args) -> Result<u64> {
    let cred = cur.cred();
    write_three(cur, args, cred.uid, |id| cred.user_ns.show_uid(id))
}

pub(crate) fn getresgid(cur: &mut Current, args: &Args) -> Result<u64> {
    let cred = cur.cred();
    write_three(cur, args, cred.gid, |id| cred.user_ns.show_gid(id))
}

pub(crate) fn getgroups(cur: &mut Current, args: &Args) -> Result<u64> {
    let cred = cur.cred();
    let size = args.int(0);
    if size != 0 {
        if size < cred.groups.len() as i32 {
            return Err(Errno::EINVAL);
        }
        let shown: Vec<u32> = cred.groups.iter().map(|group| cred.user_ns.show_gid(*group)).collect();
        cur.mm().write_val(args.addr(1), &*shown)?;
    }
    Ok(cred.groups.len() as u64)
}

pub(crate) fn setgroups(cur: &mut Current, args: &Args) -> Result<u64> {
    let cred = cur.cred();
    if !cred.has_own(Caps::SETGID) || !cred.user_ns.has_groups() {
        return Err(Errno::EPERM);
    }
    let count = args.uint(0) as usize;
    if count > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let names: Vec<u32> = cur.mm().read_vec(args.addr(1), count)?;
    let mut groups: Vec<u32> = names.into_iter().map(|name| group(&cred, name)).collect::<Result<_>>()?;
    // As they are shown, too.
    groups.sort_unstable();
    change(cur, |cred| {
        cred.groups = Arc::from(groups);
        Ok(0)
    })
}
