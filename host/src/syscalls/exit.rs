//! exit, exit_group.

use super::Args;
use crate::abi::Result;
use crate::kernel::{Current, WaitStatus};

pub(super) fn exit(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.end_thread(WaitStatus::exited(args.int(0)));
    Ok(0)
}

pub(super) fn exit_group(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.exit_group(WaitStatus::exited(args.int(0)));
    Ok(0)
}
