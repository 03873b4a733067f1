//! What can be set, and read back: the name, the adjustment of the OOM score; and personality(2).

use super::Subject;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::numbers::integer;
use crate::kernel::OomScore;
use crate::vfs::Caller;
use std::sync::atomic::Ordering;

pub(super) fn comm(subject: &Subject, _: Caller) -> Result<Vec<u8>> {
    let mut comm = subject.comm();
    comm.push(b'\n');
    Ok(comm)
}

/// Threads name each other; other processes do not, not even root's.
pub(super) fn set_comm(subject: &Subject, caller: Caller, text: &[u8]) -> Result<()> {
    if caller.pid != subject.group.tgid {
        return Err(Errno::EINVAL);
    }
    let name = text.strip_suffix(b"\n").unwrap_or(text);
    subject.task.as_ref().ok_or(Errno::ESRCH)?.set_comm(name);
    Ok(())
}

pub(super) fn personality(subject: &Subject, _: Caller) -> Result<Vec<u8>> {
    Ok(format!("{:08x}\n", subject.group.personality.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn oom_score(subject: &Subject, _: Caller) -> Result<Vec<u8>> {
    // Init is never chosen.
    let resident = subject.mm().map_or(0, |mm| mm.resident());
    let total = crate::kernel::memory().0;
    let score = if subject.group.tgid == crate::kernel::tree::INIT {
        0
    } else {
        subject.group.oom_score.lock().score(resident / 4096, total / 4096)
    };
    Ok(format!("{score}\n").into_bytes())
}

pub(super) fn oom_score_adj(subject: &Subject, _: Caller) -> Result<Vec<u8>> {
    Ok(format!("{}\n", subject.group.oom_score.lock().adjustment()).into_bytes())
}

pub(super) fn set_oom_score_adj(subject: &Subject, caller: Caller, text: &[u8]) -> Result<()> {
    adjust(subject, caller, text, OomScore::set)
}

pub(super) fn oom_adj(subject: &Subject, _: Caller) -> Result<Vec<u8>> {
    Ok(format!("{}\n", subject.group.oom_score.lock().old_adjustment()).into_bytes())
}

pub(super) fn set_oom_adj(subject: &Subject, caller: Caller, text: &[u8]) -> Result<()> {
    adjust(subject, caller, text, OomScore::set_old)
}

/// # Errors
/// ESRCH once the process has been waited for.
fn adjust(
    subject: &Subject,
    caller: Caller,
    text: &[u8],
    set: fn(&mut OomScore, i32, bool) -> Result<()>,
) -> Result<()> {
    let privileged = subject.caller_has(caller, Caps::SYS_RESOURCE);
    if subject.kernel.tree.lock().node(subject.group.tgid).is_none() {
        return Err(Errno::ESRCH);
    }
    set(&mut subject.group.oom_score.lock(), integer(text)?, privileged)
}
