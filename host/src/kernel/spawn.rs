//! Processes without a parent: who asks for them waits for them outside. And where they are born: a kernel can hold several
//! containers, each with namespaces, a control group and a first process of its own beside those of process 1.

use super::cgroups::{CgroupId, Limit, Setting};
use super::namespaces::Namespaces;
use super::pids::PidNamespace;
use super::signal::{Actions, SigSet};
use super::task::{Resources, SchedPolicy, comm_of};
use super::tree::{INIT, Node, Tie, Tree};
use super::{CloneFlags, Current, Init, Kernel, Task, ThreadGroup, Uts};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, Registers, UserRegs};
use crate::cred::Cred;
use crate::sync::Lock;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// Where a container's processes are born: its namespaces, but for its mounts, and its control group.
#[derive(Clone)]
pub struct Home {
    namespaces: Arc<Namespaces>,
    /// Its control group. What process 1 is in is the root of all.
    pub cgroup: CgroupId,
}

/// Whose namespaces a new container has, by kind; none for one of its own.
pub struct Sharing {
    /// Process ids.
    pub pids: Option<Home>,
    /// The host's names.
    pub uts: Option<Home>,
    /// System V objects and message queues.
    pub ipc: Option<Home>,
    /// The network.
    pub network: Option<Home>,
}

impl Home {
    /// Its pid namespace.
    pub fn pids(&self) -> &Arc<PidNamespace> {
        &self.namespaces.pids_for_children
    }

    /// Its names.
    pub fn uts(&self) -> &Lock<Uts> {
        &self.namespaces.uts.of
    }
}

impl Kernel {
    /// That of process 1, as it was in the beginning.
    pub fn first_home(&self) -> Home {
        Home { namespaces: self.first_namespaces(), cgroup: CgroupId::ROOT }
    }

    /// A container's in `cgroup`, the root of what it sees of control groups. Its network, if it is its own, reaches nothing but
    /// itself.
    ///
    /// # Errors
    /// ENOSPC where there are too many namespaces.
    pub fn make_home(&self, cgroup: CgroupId, sharing: &Sharing) -> Result<Home> {
        let kinds = [
            (CloneFlags::NEWPID, &sharing.pids),
            (CloneFlags::NEWUTS, &sharing.uts),
            (CloneFlags::NEWIPC, &sharing.ipc),
            (CloneFlags::NEWNET, &sharing.network),
        ];
        let own = kinds.iter().filter(|(_, of)| of.is_none()).map(|(kind, _)| *kind);
        let flags = own.fold(CloneFlags::NEWCGROUP, CloneFlags::union);
        self.cgroups.enable(CgroupId::ROOT, "+cpuset +cpu +io +memory +pids")?;
        let new = self.first_namespaces().with_new(flags, &Cred::root(), cgroup)?;
        let mut namespaces = Namespaces::clone(&new);
        if let Some(of) = &sharing.pids {
            namespaces.pids_for_children = of.namespaces.pids_for_children.clone();
        }
        if let Some(of) = &sharing.uts {
            namespaces.uts = of.namespaces.uts.clone();
        }
        if let Some(of) = &sharing.ipc {
            namespaces.ipc = of.namespaces.ipc.clone();
        }
        if let Some(of) = &sharing.network {
            namespaces.network = of.namespaces.network.clone();
        }
        Ok(Home { namespaces: Arc::new(namespaces), cgroup })
    }

    /// Limits what a container's processes have together: memory, bytes, and tasks.
    ///
    /// # Errors
    /// ENODEV for one that has been taken away.
    pub fn limit_home(&self, home: &Home, memory: Option<u64>, tasks: Option<u64>) -> Result<()> {
        for (setting, limit) in [(Setting::Memory, memory), (Setting::Tasks, tasks)] {
            if limit.is_some() {
                self.cgroups.set_limit(home.cgroup, setting, Limit(limit))?;
            }
        }
        Ok(())
    }

    /// The processes that are in a container; of process 1's what is in no other.
    pub fn residents(&self, home: &Home, others: &[Home]) -> Vec<Arc<ThreadGroup>> {
        let is_in = |id, home: &Home| self.cgroups.is_within(id, home.cgroup);
        let tree = self.tree.lock();
        self.processes_in(&tree, |id| match home.cgroup {
            CgroupId::ROOT => !others.iter().any(|other| is_in(id, other)),
            _ => is_in(id, home),
        })
    }

    /// Creates process 1, ready to run; then processes without a parent that lead sessions of their own, in process 1's
    /// namespaces or another container's: who asks for one waits for it outside.
    ///
    /// # Errors
    /// ENOMEM; EAGAIN with as many tasks as there may be; ESRCH, ENODEV where process 1, or the container, has ended.
    pub fn spawn_init(self: &Arc<Self>, init: Init) -> Result<Arc<Task>> {
        spawn_init(self, init)
    }
}

/// Creates process 1, or another without a parent.
fn spawn_init(kernel: &Arc<Kernel>, init: Init) -> Result<Arc<Task>> {
    crate::arch::sigframe::prepare();
    let context = kernel.platform.new_context()?;
    let first = kernel.process(INIT).and_then(|init| init.threads().first().cloned());
    let mut tree = kernel.tree.lock();
    if first.is_some() && tree.is_full(kernel.options.max_tasks) {
        return Err(Errno::EAGAIN);
    }
    let tid = tree.allocate()?;
    if (tid == INIT) != first.is_none() {
        return Err(Errno::ESRCH);
    }
    let home = match init.home {
        Some(home) => home,
        None => Home { namespaces: namespaces(kernel, first.as_ref()), cgroup: CgroupId::ROOT },
    };
    let number = enter(kernel, tid, &home)?;
    let actions = Actions::ignoring(init.ignored);
    let group = ThreadGroup::new((tid, number), home.pids().clone(), actions, init.limits);
    group.set_cgroup(home.cgroup);
    if tid == INIT && kernel.options.init_is_protected {
        group.unkillable.store(true, Ordering::Relaxed);
    }
    if let Some(on_exit) = init.on_exit {
        let _ = group.on_exit.set(on_exit);
    }
    let comm = comm_of(&init.comm);
    init.mm.set_owner(tid);
    kernel.cgroups.watch(home.cgroup, &init.mm);
    let resources = Resources {
        mm: Some(init.mm),
        fds: Some(init.fds),
        fs: Some(init.fs),
        cred: Arc::new(init.cred),
        comm,
        exe: init.exe,
        namespaces: home.namespaces,
    };
    let (ids, sched) = ((tid, number), kernel.sched.clone());
    let policy = policy(kernel);
    let task = Task::new(ids, group.clone(), sched, resources, SigSet::EMPTY, policy, init.confinement);
    let regs = UserRegs::start(init.ip, init.sp);
    let mut current = Current::new(task.clone(), kernel.clone(), regs, Box::new(FpState::initial()), context);
    current.find_restorer();
    group.state.lock().threads.push(task.clone());
    tree.add_task(task.clone());
    tree.add_node(Node::new(group, None, 0));
    if let Some(tty) = if tid == INIT { kernel.host_terminal() } else { init.tty } {
        give_terminal(&mut tree, tid, tty);
    }
    drop(tree);
    if let Some(told) = init.told {
        told(tid);
    }
    kernel.sched.start(current)?;
    Ok(task)
}

/// Counts a new process in its control group, and returns what it is called in its pid namespace. The tree's lock is held.
fn enter(kernel: &Kernel, id: i32, home: &Home) -> Result<i32> {
    kernel.cgroups.admit_task(home.cgroup)?;
    kernel.cgroups.born(home.cgroup, true)?;
    if home.pids().is_first() {
        return Ok(id);
    }
    home.pids().enter(id).inspect_err(|_| kernel.cgroups.unborn(home.cgroup, true))
}

/// On all CPUs that there are.
fn policy(kernel: &Kernel) -> SchedPolicy {
    let cpus = kernel.sched.worker_count() as u32;
    let affinity = if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 };
    SchedPolicy { policy: 0, nice: 0, reset_on_fork: false, affinity, io_priority: 0 }
}

/// The namespaces of a process without a parent: the first process's, once there is one.
fn namespaces(kernel: &Kernel, first: Option<&Arc<Task>>) -> Arc<Namespaces> {
    match first {
        // Whatever it has done since: nobody has put their clocks forward.
        Some(first) => first.namespaces().in_first_time(&kernel.first_namespaces()),
        None => kernel.first_namespaces(),
    }
}

/// Makes `tty` the controlling terminal of `tid`, which leads a session without one.
fn give_terminal(tree: &mut Tree, tid: i32, tty: u64) {
    tree.set_tie(tty, Some(Tie { sid: tid, foreground: tid }));
    if let Some(node) = tree.node_mut(tid) {
        node.tty = Some(tty);
    }
}
