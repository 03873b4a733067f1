//! wait4, waitid.

use super::Task;
use super::exit::child_info;
use super::group::{Usage, WaitStatus};
use super::pids::PidNamespace;
use super::signal::{SIGCHLD, SigInfo, code};
use super::tree::Node;
use super::{Current, Kernel, Tree};
use crate::abi::{Errno, Result};
use std::sync::Arc;

bitflags::bitflags! {
    /// What to wait for, and how.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WaitOptions: u32 {
        /// Return at once.
        const NOHANG = 1;
        /// Stopped children (also WSTOPPED).
        const UNTRACED = 2;
        /// Ended children; wait4 implies it.
        const EXITED = 4;
        /// Continued children.
        const CONTINUED = 8;
        /// Leave the child waitable.
        const NOWAIT = 0x0100_0000;
        /// Children of this thread only.
        const NOTHREAD = 0x2000_0000;
        /// Clone children and others.
        const ALL = 0x4000_0000;
        /// Clone children only: those whose exit signal is not SIGCHLD.
        const CLONE = 0x8000_0000;
    }
}

/// Which children, by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Any.
    Any,
    /// This one.
    Pid(i32),
    /// Those of this process group.
    Group(i32),
}

/// A child's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// What the child is called by who has waited.
    pub pid: i32,
    /// What happened, as wait4(2) encodes it.
    pub status: WaitStatus,
    /// What happened, as waitid(2) says it.
    pub info: SigInfo,
    /// What the child used.
    pub usage: Usage,
}

impl Current {
    /// Waits for a child to change. None: WNOHANG and nothing has.
    ///
    /// # Errors
    /// ECHILD, ERESTARTSYS.
    pub fn wait_child(&mut self, which: WaitFor, options: WaitOptions) -> Result<Option<Waited>> {
        let (kernel, group) = (self.kernel.clone(), self.task.group.clone());
        let thread = options.contains(WaitOptions::NOTHREAD).then(|| self.task.tid());
        let mut look = || {
            let mut tree = kernel.tree.lock();
            let by = By { id: group.tgid, thread, pids: &group.pids };
            match find(&kernel, &mut tree, by, which, options) {
                Ok(None) if options.contains(WaitOptions::NOHANG) => Some(Ok(None)),
                Ok(None) => None,
                other => Some(other),
            }
        };
        self.wait_on(&[(&group.child_wait, !0)], None, &mut look)?
    }
}

/// Who waits.
#[derive(Clone, Copy)]
struct By<'a> {
    id: i32,
    /// What this thread made only.
    thread: Option<i32>,
    /// Where it is told what its children are called: before they are forgotten.
    pids: &'a PidNamespace,
}

/// A matching child of who waits, or of one thread of it, that has something to report. Ok(None): there are matching
/// children, none has.
fn find(
    kernel: &Kernel,
    tree: &mut Tree,
    by: By<'_>,
    which: WaitFor,
    options: WaitOptions,
) -> Result<Option<Waited>> {
    let own = find_child(tree, by, which, options);
    if matches!(own, Ok(Some(_))) || tree.node(by.id).is_none_or(|node| node.tracees.is_empty()) {
        return own;
    }
    match find_tracee(kernel, tree, by, which, options) {
        Ok(None) | Err(_) if own.is_ok() => Ok(None),
        found => found,
    }
}

/// What [`find`] looks for among children. Those that the process itself traces are looked for among its tracees.
fn find_child(tree: &mut Tree, by: By<'_>, which: WaitFor, options: WaitOptions) -> Result<Option<Waited>> {
    let parent = by.id;
    let matches = |child: &Node| {
        let named = match which {
            WaitFor::Any => true,
            WaitFor::Pid(pid) => pid == child.group.tgid,
            WaitFor::Group(pgid) => pgid == child.pgid,
        };
        let owned = by.thread.is_none_or(|thread| thread == child.creator);
        // From a child that has ended nothing but its end can come.
        let can_report = child.zombie.is_none() || options.contains(WaitOptions::EXITED);
        let is_clone = child.exit_signal != SIGCHLD;
        named
            && child.tracer != Some(parent)
            && owned
            && can_report
            && (options.contains(WaitOptions::ALL) || options.contains(WaitOptions::CLONE) == is_clone)
    };
    // A named one is not looked for among its siblings.
    if let WaitFor::Pid(pid) = which {
        let found = tree.node(pid).is_some_and(|child| child.parent == parent && matches(child));
        return if found { Ok(report(tree, by, pid, options)) } else { Err(Errno::ECHILD) };
    }
    let (mut any, mut next) = (false, 0);
    while let Some(&id) = tree.node(parent).and_then(|node| node.children.get(next)) {
        if tree.node(id).is_some_and(matches) {
            any = true;
            if let Some(waited) = report(tree, by, id, options) {
                return Ok(Some(waited));
            }
        }
        next += 1;
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// A matching tracee of `tracer`, or of one thread of it, that has something to report. Ok(None): there are matching
/// ones, none has.
fn find_tracee(
    kernel: &Kernel,
    tree: &mut Tree,
    by: By<'_>,
    which: WaitFor,
    options: WaitOptions,
) -> Result<Option<Waited>> {
    let (mut any, mut next) = (false, 0);
    while let Some(entry) = tree.node(by.id).and_then(|node| node.tracees.get(next)) {
        let (task, dead) = (entry.task.clone(), entry.dead);
        let node = tree.node(task.tgid());
        let named = match which {
            WaitFor::Any => true,
            WaitFor::Pid(pid) => pid == task.tid(),
            WaitFor::Group(pgid) => node.is_some_and(|node| node.pgid == pgid),
        };
        if named && by.thread.is_none_or(|thread| task.is_traced_by_thread(thread)) {
            let ended = dead.is_some() || node.is_some_and(|node| node.zombie.is_some());
            any |= !ended || options.intersects(WaitOptions::EXITED | WaitOptions::CONTINUED);
            if let Some(waited) = report_tracee(kernel, tree, by, (&task, dead), options) {
                return Ok(Some(waited));
            }
        }
        next += 1;
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

fn report_tracee(
    kernel: &Kernel,
    tree: &mut Tree,
    by: By<'_>,
    (task, dead): (&Arc<Task>, Option<WaitStatus>),
    options: WaitOptions,
) -> Option<Waited> {
    let (keep, tid, tgid) = (options.contains(WaitOptions::NOWAIT), task.tid(), task.tgid());
    let uid = task.cred().uid.real;
    let (leads, number) = (tid == tgid, by.pids.number_of(tid));
    let zombie = tree.node(tgid).and_then(|node| node.zombie).filter(|_| leads);
    // A thread of a process that ends as a whole ends like it.
    let thread = || dead.map(|own| task.group.exit_status().unwrap_or(own));
    if let Some(status) = zombie.map(|zombie| zombie.status).or_else(thread) {
        if !options.contains(WaitOptions::EXITED) {
            return None;
        }
        let usage = zombie.map_or_else(|| task.usage(), |zombie| zombie.usage);
        if !keep {
            reap_tracee(kernel, tree, by.id, task, usage);
        }
        return Some(Waited { pid: number, status, info: child_info(status, number, uid), usage });
    }
    if let Some(code) = task.take_stop_report(keep) {
        let info = SigInfo::child(code::CLD_TRAPPED, number, uid, code);
        return Some(Waited { pid: number, status: WaitStatus::stopped(code), info, usage: task.usage() });
    }
    let node = tree.node_mut(tgid)?;
    if options.contains(WaitOptions::CONTINUED) && node.continue_report && leads {
        node.continue_report = keep;
        let info = SigInfo::child(code::CLD_CONTINUED, number, uid, super::signal::SIGCONT);
        return Some(Waited { pid: number, status: WaitStatus::CONTINUED, info, usage: task.usage() });
    }
    None
}

/// A tracer has waited for the end of its tracee: the last that is heard of it, unless it has a parent who did not trace
/// it.
fn reap_tracee(kernel: &Kernel, tree: &mut Tree, tracer: i32, task: &Arc<Task>, usage: Usage) {
    if let Some(node) = tree.node_mut(tracer) {
        node.tracees.retain(|entry| !Arc::ptr_eq(&entry.task, task));
    }
    let own = kernel.reaped_by_tracer(tree, task, tracer);
    if own && task.tid() == task.tgid() {
        tree.remove_node(task.tgid());
        if let Some(node) = tree.node_mut(tracer) {
            node.children_usage = node.children_usage.plus(usage);
        }
    }
}

fn report(tree: &mut Tree, by: By<'_>, id: i32, options: WaitOptions) -> Option<Waited> {
    let child = tree.node_mut(id)?;
    let keep = options.contains(WaitOptions::NOWAIT);
    if let Some(zombie) = child.zombie {
        // Who traces it waits for it first.
        if !options.contains(WaitOptions::EXITED) || child.tracer.is_some() {
            return None;
        }
        let pid = by.pids.number_of(id);
        if !keep {
            tree.remove_node(id);
            if let Some(parent) = tree.node_mut(by.id) {
                parent.children_usage = parent.children_usage.plus(zombie.usage);
            }
        }
        let info = child_info(zombie.status, pid, zombie.uid.real);
        return Some(Waited { pid, status: zombie.status, info, usage: zombie.usage });
    }
    let (usage, pid) = (Usage::default(), by.pids.number_of(id));
    if options.contains(WaitOptions::UNTRACED)
        && let Some(status) = child.stop_report
    {
        if !keep {
            child.stop_report = None;
        }
        let info = SigInfo::child(code::CLD_STOPPED, pid, child.group.real_uid(), status.0 >> 8);
        return Some(Waited { pid, status, info, usage });
    }
    if options.contains(WaitOptions::CONTINUED) && child.continue_report {
        if !keep {
            child.continue_report = false;
        }
        let uid = child.group.real_uid();
        let info = SigInfo::child(code::CLD_CONTINUED, pid, uid, super::signal::SIGCONT);
        return Some(Waited { pid, status: WaitStatus::CONTINUED, info, usage });
    }
    None
}
