//! Ids of processes, groups and sessions.

use crate::abi::Result;
use crate::kernel::Current;
use crate::syscalls::Args;

pub(crate) fn getpid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.tgid() as u64)
}

pub(crate) fn gettid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.task.tid() as u64)
}

pub(crate) fn getppid(cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(cur.parent_pid() as u64)
}

pub(crate) fn setpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.set_process_group(args.int(0), args.int(1)).map(|()| 0)
}

pub(crate) fn getpgid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.group_and_session(args.int(0)).map(|(pgid, _)| pgid as u64)
}

pub(crate) fn getpgrp(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.group_and_session(0).map(|(pgid, _)| pgid as u64)
}

pub(crate) fn getsid(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.group_and_session(args.int(0)).map(|(_, sid)| sid as u64)
}

pub(crate) fn setsid(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.new_session().map(|sid| sid as u64)
}

pub(crate) fn set_tid_address(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.clear_child_tid = args.addr(0);
    Ok(cur.task.tid() as u64)
}
