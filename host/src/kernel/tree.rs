//! Who exists and who is whose child: one table, one lock.
//!
//! Processes are named by id here, not by reference: ids cannot dangle, and nothing forms a cycle. The lock comes before
//! every other lock of the kernel layer.

use super::Task;
use super::cgroups::Cgroups;
use super::group::{ThreadGroup, Usage, WaitStatus};
use super::pids::PidNamespace;
use super::signal::SIGCHLD;
use super::trace::Tracee;
use crate::abi::{Errno, Result};
use crate::cred::Ids;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ids wrap here (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: i32 = 32768;
/// First id used after a wrap, as in Linux.
pub(super) const RESERVED_PIDS: i32 = 300;
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
    /// Init has it because its own parent ended.
    pub adopted: bool,
    /// How often it has called execve, and how often its parent had when it made this process.
    pub execs: u32,
    /// See [`execs`](Self::execs): a parent that has become another program is told of the end by SIGCHLD only.
    pub parent_execs: u32,
    /// The number of its controlling terminal.
    pub tty: Option<u64>,
    /// The foreground group of the terminal that its session had when that was hung up, if it leads the session.
    pub(super) hung_up_foreground: Option<i32>,
    /// The parent's thread that made it, or took it over from one that ended.
    pub creator: i32,
    /// Used by children that were waited for.
    pub children_usage: Usage,
    /// The process that traces its first thread.
    pub(super) tracer: Option<i32>,
    /// Those whom its threads trace, oldest first.
    pub(super) tracees: Vec<Tracee>,
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

/// What a terminal controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The session.
    pub sid: i32,
    /// Its foreground process group.
    pub foreground: i32,
}

/// All tasks and processes.
#[derive(Default)]
pub struct Tree {
    /// Live threads by id.
    tasks: BTreeMap<i32, Arc<Task>>,
    nodes: BTreeMap<i32, Node>,
    /// By the number of the terminal.
    ties: BTreeMap<u64, Tie>,
    last_id: i32,
    /// Init's parent outside is a shell with job control: its process group is not orphaned.
    pub(super) controlled_from_outside: bool,
    /// Ids given out so far.
    allocated: u64,
    wrapped: bool,
    /// Who counts what leaves its group.
    pub(super) cgroups: Arc<Cgroups>,
}

impl Node {
    /// A process that `parent` makes, in its process group and session; without one, a first process, which leads both.
    pub(super) fn new(group: Arc<ThreadGroup>, parent: Option<&Node>, creator: i32) -> Node {
        let tgid = group.tgid;
        Node {
            group,
            parent: parent.map_or(0, |parent| parent.group.tgid),
            children: Vec::new(),
            pgid: parent.map_or(tgid, |parent| parent.pgid),
            sid: parent.map_or(tgid, |parent| parent.sid),
            exit_signal: SIGCHLD,
            zombie: None,
            stop_report: None,
            continue_report: false,
            subreaper: false,
            execed: parent.is_none(),
            adopted: false,
            execs: 0,
            parent_execs: parent.map_or(0, |parent| parent.execs),
            tty: parent.and_then(|parent| parent.tty),
            hung_up_foreground: None,
            creator,
            children_usage: Usage::default(),
            tracer: None,
            tracees: Vec::new(),
        }
    }
}

impl Tree {
    /// Nobody; `cgroups` counts who leaves its groups.
    pub(super) fn new(cgroups: &Arc<Cgroups>) -> Tree {
        Tree { cgroups: cgroups.clone(), ..Tree::default() }
    }

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

    pub(super) fn is_used(&self, id: i32) -> bool {
        self.tasks.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.nodes.values().any(|node| node.pgid == id || node.sid == id)
    }

    pub(super) fn add_task(&mut self, task: Arc<Task>) {
        self.tasks.insert(task.tid(), task);
    }

    pub(super) fn remove_task(&mut self, tid: i32) {
        if let Some(task) = self.tasks.remove(&tid) {
            self.release(&task.group.pids, &[tid]);
        }
    }

    /// Has namespaces forget those of `ids` that nobody uses any more. They are those of processes in `pids` or above it.
    pub(super) fn release(&self, pids: &PidNamespace, ids: &[i32]) {
        if pids.is_first() {
            return;
        }
        for id in ids {
            if !self.is_used(*id) {
                pids.leave(*id);
            }
        }
    }

    pub(super) fn add_node(&mut self, node: Node) {
        let (id, parent) = (node.group.tgid, node.parent);
        node.group.set_parent(parent);
        self.nodes.insert(id, node);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.push(id);
        }
    }

    /// Takes an ended process out of the table.
    pub(super) fn remove_node(&mut self, id: i32) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            // The oldest is usually the first to go.
            if let Some(at) = parent.children.iter().position(|child| *child == id) {
                parent.children.remove(at);
            }
        }
        self.cgroups.task_gone(node.group.cgroup());
        node.group.set_reaped();
        self.release(&node.group.pids, &[id, node.pgid, node.sid]);
        Some(node)
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

    /// What the terminal with this number controls.
    pub fn tie(&self, tty: u64) -> Option<Tie> {
        self.ties.get(&tty).copied()
    }

    /// Ties a terminal to a session, or to none.
    pub(super) fn set_tie(&mut self, tty: u64, tie: Option<Tie>) {
        match tie {
            Some(tie) => self.ties.insert(tty, tie),
            None => self.ties.remove(&tty),
        };
    }

    /// No process of a session has a controlling terminal any more.
    pub(super) fn leave_terminal(&mut self, sid: i32) {
        for node in self.nodes.values_mut().filter(|node| node.sid == sid) {
            node.tty = None;
        }
    }

    /// How many tasks there have been (`processes` in `/proc/stat`).
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Live threads.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are `most` tasks, zombies included.
    pub(super) fn is_full(&self, most: usize) -> bool {
        // Each zombie is a node: counted only where there could be so many.
        self.tasks.len() + self.nodes.len() >= most && self.count_with_zombies() >= most
    }

    /// Live threads, and processes that have ended and were not waited for.
    pub fn count_with_zombies(&self) -> usize {
        self.tasks.len() + self.nodes.values().filter(|node| node.zombie.is_some()).count()
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
            Some(node.group.tgid) != except && node.zombie.is_none() && self.parent_controls(node)
        })
    }

    /// Whether a process's parent is one that could continue its group. Init is, of what it made itself: it may be a
    /// shell. What it only took over has lost its own parent.
    fn parent_controls(&self, node: &Node) -> bool {
        if node.adopted {
            return false;
        }
        match self.nodes.get(&node.parent) {
            Some(parent) => parent.pgid != node.pgid && parent.sid == node.sid,
            None => self.controlled_from_outside,
        }
    }

    /// The living init of a namespace, or of the next above it that has one.
    fn reaper(&self, pids: &PidNamespace) -> i32 {
        let mut at = Some(pids);
        while let Some(namespace) = at {
            let init = namespace.init().filter(|_| !namespace.is_first());
            if let Some(init) = init
                && self.nodes.get(&init).is_some_and(|node| node.zombie.is_none())
            {
                return init;
            }
            at = namespace.parent().map(|parent| &**parent);
        }
        INIT
    }

    /// The nearest living subreaper above `from` in its pid namespace, or the init of that.
    fn heir(&self, from: &Node) -> i32 {
        let pids = &from.group.pids;
        let reaper = self.reaper(pids);
        let mut heir = from.parent;
        while let Some(node) = self.nodes.get(&heir) {
            if heir == reaper || (node.subreaper && node.zombie.is_none()) {
                return heir;
            }
            if node.group.pids.level() != pids.level() {
                return reaper;
            }
            heir = node.parent;
        }
        // Who has no parent in here leaves none to its children.
        if pids.is_first() { heir } else { reaper }
    }

    /// Gives the children of `from` to whom they are due. Returns the new parent.
    pub(super) fn reparent_children(&mut self, from: i32) -> Option<i32> {
        let heir = self.heir(self.nodes.get(&from)?);
        let children = core::mem::take(&mut self.nodes.get_mut(&from)?.children);
        for child in &children {
            if let Some(child) = self.nodes.get_mut(child) {
                child.parent = heir;
                child.creator = heir;
                child.adopted = heir == INIT;
                // Whoever chose another signal chose it for itself.
                child.exit_signal = SIGCHLD;
                child.group.set_parent(heir);
            }
        }
        let had_any = !children.is_empty();
        if let Some(heir) = self.nodes.get_mut(&heir) {
            heir.children.extend(children);
        }
        had_any.then_some(heir)
    }

    /// The children that thread `from` made are `to`'s, another thread of the same process.
    pub(super) fn hand_over_children(&mut self, tgid: i32, from: Option<i32>, to: i32) {
        let Some(node) = self.nodes.get(&tgid) else { return };
        for child in node.children.clone() {
            if let Some(child) = self.nodes.get_mut(&child)
                && from.is_none_or(|from| from == child.creator)
            {
                child.creator = to;
            }
        }
    }
}
