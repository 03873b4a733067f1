//! Ids of processes, groups and sessions.

use crate::abi::Result;
use crate::kernel::Current;
use crate::syscalls::Args;

pub(crate) fn getpid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.group.number as u64)
}

pub(crate) fn gettid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.number() as u64)
}

pub(crate) fn getppid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.parent_pid() as u64)
}

pub(crate) fn setpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.set_process_group(args.int(0), args.int(1)).map(|()| 0)
}

/// What the caller calls the process group and the session of a process.
fn group_and_session(cur: &Current, pid: i32) -> Result<(u64, u64)> {
    let id = if pid == 0 { 0 } else { cur.id_of(pid)? };
    let number = |id| cur.number_of(id) as u64;
    cur.group_and_session(id).map(|(pgid, sid)| (number(pgid), number(sid)))
}

pub(crate) fn getpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    group_and_session(cur, args.int(0)).map(|(pgid, _)| pgid)
}

pub(crate) fn getpgrp(cur: &mut Current, _args: &Args) -> Result<u64> {
    group_and_session(cur, 0).map(|(pgid, _)| pgid)
}

pub(crate) fn getsid(cur: &mut Current, args: &Args) -> Result<u64> {
    group_and_session(cur, args.int(0)).map(|(_, sid)| sid)
}

pub(crate) fn setsid(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.new_session().map(|sid| sid as u64)
}

pub(crate) fn set_tid_address(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.clear_child_tid = args.addr(0);
    Ok(cur.task.number() as u64)
}
