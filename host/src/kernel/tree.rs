//! Who exists and who is whose child: one table, one lock.
//!
//! Processes are named by id here, not by reference: ids cannot dangle, and nothing forms a cycle. The lock comes before
//! every other lock of the kernel layer.

use super::Task;
use super::group::{ThreadGroup, Usage, WaitStatus};
use crate::abi::{Errno, Result};
use crate::cred::Ids;
use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ids wrap here (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: i32 = 32768;
/// First id used after a wrap, as in Linux.
const RESERVED_PIDS: i32 = 300;
/// The sandbox's first process.
pub const INIT: i32 = 1;

/// One process, alive or waiting to be waited for.
pub struct Node {
    /// The process.
    pub group: Arc<ThreadGroup>,
    /// Parent's id; 0 for init.
    pub parent: i32,
    /// Children, oldest first.
    pub children: Vec<i32>,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// What the parent gets when it ends; 0 for nothing.
    pub exit_signal: i32,
    /// Set when it has ended.
    pub zombie: Option<Zombie>,
    /// A stop that the parent has not been told about.
    pub stop_report: Option<WaitStatus>,
    /// A continue that the parent has not been told about.
    pub continue_report: bool,
    /// prctl(PR_SET_CHILD_SUBREAPER).
    pub subreaper: bool,
    /// It has called execve: its parent may not move it to another group any more.
    pub execed: bool,
    /// Used by children that were waited for.
    pub children_usage: Usage,
}

/// What is left of an ended process.
#[derive(Clone, Copy, Debug)]
pub struct Zombie {
    /// How it ended.
    pub status: WaitStatus,
    /// What it and its waited-for children used.
    pub usage: Usage,
    /// Its user.
    pub uid: Ids,
    /// Its group.
    pub gid: Ids,
    /// Its name.
    pub comm: [u8; super::task::COMM_LEN],
}

/// A session's terminal. Which terminal, `fs` knows.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Foreground process group; 0 for none.
    pub foreground: i32,
    /// The controlling terminal's number, if any.
    pub tty: Option<u64>,
}

/// All tasks and processes.
#[derive(Default)]
pub struct Tree {
    /// Live threads by id.
    tasks: BTreeMap<i32, Arc<Task>>,
    nodes: BTreeMap<i32, Node>,
    sessions: BTreeMap<i32, Session>,
    last_id: i32,
    /// Ids given out so far.
    allocated: u64,
    wrapped: bool,
}

impl Tree {
    /// Chooses an unused id.
    ///
    /// # Errors
    /// EAGAIN when all are used.
    pub(super) fn allocate(&mut self) -> Result<i32> {
        for _ in 0..PID_MAX {
            self.last_id += 1;
            if self.last_id >= PID_MAX {
                self.last_id = RESERVED_PIDS;
                self.wrapped = true;
            }
            let id = self.last_id;
            if !self.wrapped || !self.is_used(id) {
                self.allocated += 1;
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    fn is_used(&self, id: i32) -> bool {
        self.tasks.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.nodes.values().any(|node| node.pgid == id || node.sid == id)
    }

    pub(super) fn add_task(&mut self, task: Arc<Task>) {
        self.tasks.insert(task.tid(), task);
    }

    pub(super) fn remove_task(&mut self, tid: i32) {
        self.tasks.remove(&tid);
    }

    pub(super) fn add_node(&mut self, node: Node) {
        let (id, parent) = (node.group.tgid, node.parent);
        node.group.parent.store(parent, Ordering::Relaxed);
        self.nodes.insert(id, node);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.push(id);
        }
    }

    /// Takes an ended process out of the table.
    pub(super) fn remove_node(&mut self, id: i32) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|child| *child != id);
        }
        if node.sid == id || !self.nodes.values().any(|other| other.sid == node.sid) {
            self.drop_empty_session(node.sid);
        }
        Some(node)
    }

    fn drop_empty_session(&mut self, sid: i32) {
        if !self.nodes.values().any(|node| node.sid == sid) {
            self.sessions.remove(&sid);
        }
    }

    /// The live thread with this id.
    pub fn task(&self, tid: i32) -> Option<&Arc<Task>> {
        self.tasks.get(&tid)
    }

    /// The process with this id, ended or not.
    pub fn node(&self, tgid: i32) -> Option<&Node> {
        self.nodes.get(&tgid)
    }

    /// To change it.
    pub fn node_mut(&mut self, tgid: i32) -> Option<&mut Node> {
        self.nodes.get_mut(&tgid)
    }

    /// All processes by id.
    pub fn nodes(&self) -> impl Iterator<Item = (&i32, &Node)> {
        self.nodes.iter()
    }

    /// The processes of a process group.
    pub fn process_group(&self, pgid: i32) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.pgid == pgid)
    }

    /// A session's terminal state, made on demand.
    pub fn session_mut(&mut self, sid: i32) -> &mut Session {
        self.sessions.entry(sid).or_default()
    }

    /// A session's terminal state, if it was ever set.
    pub fn session(&self, sid: i32) -> Option<&Session> {
        self.sessions.get(&sid)
    }

    /// How many tasks there have been (`processes` in `/proc/stat`).
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Live threads.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// The live threads themselves.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// The last id given out (`/proc/loadavg`).
    pub fn last_id(&self) -> i32 {
        self.last_id
    }

    /// Whether nobody outside a process group, but in its session, could continue its members once stopped: no member
    /// has a parent in another group of the same session. `except` is counted as gone.
    pub(super) fn is_orphaned(&self, pgid: i32, except: Option<i32>) -> bool {
        !self.process_group(pgid).any(|node| {
            Some(node.group.tgid) != except
                && node.zombie.is_none()
                && self.nodes.get(&node.parent).is_some_and(|parent| {
                    parent.pgid != pgid && parent.sid == node.sid && parent.group.tgid != INIT
                })
        })
    }

    /// Gives the children of `from` to the nearest living subreaper above it, or to init. Returns the new parent.
    pub(super) fn reparent_children(&mut self, from: i32) -> Option<i32> {
        let mut heir = self.nodes.get(&from)?.parent;
        while let Some(node) = self.nodes.get(&heir) {
            if heir == INIT || (node.subreaper && node.zombie.is_none()) {
                break;
            }
            heir = node.parent;
        }
        let children = core::mem::take(&mut self.nodes.get_mut(&from)?.children);
        for child in &children {
            if let Some(child) = self.nodes.get_mut(child) {
                child.parent = heir;
                child.group.parent.store(heir, Ordering::Relaxed);
            }
        }
        let had_any = !children.is_empty();
        if let Some(heir) = self.nodes.get_mut(&heir) {
            heir.children.extend(children);
        }
        had_any.then_some(heir)
    }
}
