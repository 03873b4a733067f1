//! exit, exit_group.

use crate::abi::Result;
use crate::kernel::{Current, WaitStatus};
use crate::syscalls::Args;

pub(crate) fn exit(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.end_thread(WaitStatus::exited(args.int(0)));
    Ok(0)
}

pub(crate) fn exit_group(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.exit_group(WaitStatus::exited(args.int(0)));
    Ok(0)
}
