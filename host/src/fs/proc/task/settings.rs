//! What can be set, and read back: the name, what core dumps take, the adjustment of the OOM score; and personality(2).

use super::access::View;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::numbers::{decimal, integer, unsigned};
use crate::kernel::{OomScore, Task, coredump};
use std::sync::atomic::Ordering;

pub(super) fn comm(view: &View) -> Result<Vec<u8>> {
    let mut comm = view.subject.comm();
    comm.push(b'\n');
    Ok(comm)
}

/// Threads name each other; other processes do not, not even root's.
pub(super) fn set_comm(view: &View, text: &[u8]) -> Result<()> {
    if !view.is_own() {
        return Err(Errno::EINVAL);
    }
    let name = text.strip_suffix(b"\n").unwrap_or(text);
    view.subject.task.as_ref().ok_or(Errno::ESRCH)?.set_comm(name);
    Ok(())
}

/// Who has no memory any more has nothing to say.
pub(super) fn coredump_filter(view: &View) -> Result<Vec<u8>> {
    let mm = view.subject.mm();
    Ok(mm.map(|mm| format!("{:08x}\n", mm.dump_filter()).into_bytes()).unwrap_or_default())
}

pub(super) fn set_coredump_filter(view: &View, text: &[u8]) -> Result<()> {
    let kinds = unsigned(text)?;
    view.subject.mm().ok_or(Errno::ESRCH)?.set_dump_filter(kinds & coredump::FILTERS);
    Ok(())
}

/// The task, for who may know or change how late its timers may be: its own process, or the privileged.
fn timed(view: &View) -> Result<&Task> {
    let task = view.subject.task.as_ref().ok_or(Errno::ESRCH)?;
    let may = view.is_own() || view.opener().has_in(&task.cred().user_ns, Caps::SYS_NICE);
    if may { Ok(task) } else { Err(Errno::EPERM) }
}

pub(super) fn timer_slack(view: &View) -> Result<Vec<u8>> {
    Ok(format!("{}\n", timed(view)?.timer_slack.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn set_timer_slack(view: &View, text: &[u8]) -> Result<()> {
    let ns = decimal(text)?;
    timed(view)?.set_timer_slack(ns);
    Ok(())
}

pub(super) fn personality(view: &View) -> Result<Vec<u8>> {
    view.peek().map_err(|_| Errno::EPERM)?;
    Ok(format!("{:08x}\n", view.subject.group.personality.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn oom_score(view: &View) -> Result<Vec<u8>> {
    let subject = &view.subject;
    let resident = subject.mm().map_or(0, |mm| mm.resident() + mm.space().overhead());
    let total = crate::kernel::memory().0;
    // The first process can be chosen like any other.
    let score = subject.group.oom_score.lock().score(resident / 4096, total / 4096);
    Ok(format!("{score}\n").into_bytes())
}

pub(super) fn oom_score_adj(view: &View) -> Result<Vec<u8>> {
    Ok(format!("{}\n", view.subject.group.oom_score.lock().adjustment()).into_bytes())
}

pub(super) fn set_oom_score_adj(view: &View, text: &[u8]) -> Result<()> {
    adjust(view, text, OomScore::set)
}

pub(super) fn oom_adj(view: &View) -> Result<Vec<u8>> {
    Ok(format!("{}\n", view.subject.group.oom_score.lock().old_adjustment()).into_bytes())
}

pub(super) fn set_oom_adj(view: &View, text: &[u8]) -> Result<()> {
    adjust(view, text, OomScore::set_old)
}

/// # Errors
/// ESRCH once the process has been waited for.
fn adjust(view: &View, text: &[u8], set: fn(&mut OomScore, i32, bool) -> Result<()>) -> Result<()> {
    let (subject, privileged) = (&view.subject, view.has(Caps::SYS_RESOURCE));
    if subject.kernel.tree.lock().node(subject.group.tgid).is_none() {
        return Err(Errno::ESRCH);
    }
    set(&mut subject.group.oom_score.lock(), integer(text)?, privileged)
}
