//! fork, vfork, clone, clone3.

use super::cgroups::CgroupId;
use super::clone_flags::CloneFlags;
use super::group::{GroupState, Stop};
use super::pids::PidNamespace;
use super::signal::{Actions, NSIG};
use super::task::{Resources, SchedPolicy, work};
use super::trace::Event;
use super::tree::Node;
use super::{Current, Kernel, Task, ThreadGroup, limits};
use crate::abi::{Errno, Result};
use crate::arch::{Registers, UserRegs};
use crate::cred::Caps;
use crate::platform::Context;
use crate::sync::{LockGuard, WaitQueue};
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Flags that ask for namespaces.
pub const NAMESPACES: CloneFlags = CloneFlags::NEWNS
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWUTS)
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWUSER)
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWNET)
    .union(CloneFlags::NEWTIME);

/// One of so many tasks is left to root: enough to look at what all the others do, and to end it.
const ROOTS_PART: usize = 64;

/// What clone3(2) takes; the other calls are special cases.
#[derive(Clone, Copy, Debug)]
pub struct CloneArgs {
    /// What is shared.
    pub flags: CloneFlags,
    /// Where the child's tid goes in the child.
    pub child_tid: u64,
    /// Where the child's tid goes in the parent.
    pub parent_tid: u64,
    /// What the parent gets when the child ends.
    pub exit_signal: i32,
    /// The child's stack pointer; 0 keeps the parent's.
    pub stack: u64,
    /// The child's thread pointer, with SETTLS.
    pub tls: u64,
    /// The control group that the child begins in, if not its parent's.
    pub cgroup: Option<CgroupId>,
}

/// Lets a vfork parent wait for its child to exec or exit.
#[derive(Default)]
pub(super) struct VforkDone {
    done: AtomicBool,
    queue: WaitQueue,
}

impl VforkDone {
    pub(super) fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.queue.notify(!0);
    }
}

impl Current {
    /// Creates a process or a thread and returns its id, and what the caller calls it.
    ///
    /// # Errors
    /// EINVAL for combinations that make no sense, EAGAIN, ENOMEM.
    pub fn clone_task(&mut self, args: &CloneArgs) -> Result<(i32, i32)> {
        let flags = args.flags;
        self.may_clone(args)?;
        let group = self.task.group.clone();
        let resources = self.child_resources(flags)?;
        let context = self.kernel.platform.new_context()?;
        self.context.save_fp(&mut self.fp);
        let regs = self.child_regs(args);
        let kernel = self.kernel.clone();
        let mut tree = kernel.tree.lock();
        self.check_process_limit(&tree, args)?;
        let tid = tree.allocate()?;
        let pids = self.pids_of_child(flags, &resources);
        let parent_state = group.state.lock();
        // A signal that came first is handled first: a fork must not outrun the end of its process.
        // Who is traced may run while its process is stopped. Nobody gets away from a freezer.
        let stops = self.task.work.load(Ordering::SeqCst) & (work::STOP | work::FREEZE) != 0;
        if parent_state.exit.is_some() || parent_state.execing.is_some() || stops {
            self.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
            return Err(Errno::ERESTARTNOINTR);
        }
        let number = self.enter(tid, &pids, args)?;
        let child_group = self.child_group((tid, number), pids, &parent_state, args);
        let ages = !flags.contains(CloneFlags::VM);
        if ages && !Arc::ptr_eq(&resources.namespaces.time.of, &self.task.namespaces().time.of) {
            resources.namespaces.time.of.enter(&child_group.shifts);
        }
        let policy = inherited(&self.task.policy.lock());
        let child = Task::new(
            (tid, number),
            child_group.clone(),
            kernel.sched.clone(),
            resources,
            self.task.blocked(),
            policy,
            self.task.confinement(),
        );
        if flags.contains(CloneFlags::SYSVSEM) {
            *child.undo.lock() = self.task.share_undo_list(&self.kernel);
        }
        if !flags.contains(CloneFlags::VM)
            && let Some(mm) = child.mm()
        {
            mm.set_owner(tid);
            kernel.cgroups.watch(child_group.cgroup(), &mm);
        }
        let slack = self.task.timer_slack.load(Ordering::Relaxed);
        child.timer_slack.store(slack, Ordering::Relaxed);
        child.default_slack.store(slack, Ordering::Relaxed);
        let mut current = self.current_of(&child, regs, context, args);
        let vfork = flags.contains(CloneFlags::VFORK).then(Arc::<VforkDone>::default);
        current.vfork_done = vfork.clone();
        if let Some(done) = &vfork {
            let _first = child.vfork_done.set(done.clone());
        }
        if args.cgroup.is_some() && kernel.cgroups.is_frozen(child_group.cgroup()) {
            child.work.fetch_or(work::FREEZE, Ordering::SeqCst);
        }
        self.link(&mut tree, parent_state, &child, &child_group, args);
        let event = self.clone_event(flags, args.exit_signal);
        self.trace_child(&mut tree, &child, event.is_some() || flags.contains(CloneFlags::PTRACE));
        drop(tree);
        if !flags.contains(CloneFlags::THREAD) {
            kernel.watch_cpu_limit(&child_group);
        }

        // While it is there to be called anything.
        let (called, message) = (self.number_of(tid), self.number_for_tracer(tid));
        self.store_tids(args, &current, (called, number));
        if let Err(errno) = kernel.sched.start(current) {
            kernel.forget(&child);
            return Err(errno);
        }
        self.after_clone(message, event, vfork);
        Ok((tid, called))
    }

    /// The registers that a child begins with.
    fn child_regs(&self, args: &CloneArgs) -> UserRegs {
        let mut regs = self.regs;
        regs.set_result(0);
        regs.clear_syscall();
        if args.stack != 0 {
            regs.set_sp(args.stack);
        }
        if args.flags.contains(CloneFlags::SETTLS) {
            regs.set_tls(args.tls);
        }
        regs
    }

    /// Stores what a child is called where its maker and itself want to read it, each as it calls it.
    fn store_tids(&self, args: &CloneArgs, child: &Current, (called, number): (i32, i32)) {
        if args.flags.contains(CloneFlags::PARENT_SETTID) {
            let _ = self.mm().write_val(args.parent_tid, &called);
        }
        if args.flags.contains(CloneFlags::CHILD_SETTID) {
            let _ = child.mm().write_val(args.child_tid, &number);
        }
    }

    /// The pid namespace that a child is born in.
    fn pids_of_child(&self, flags: CloneFlags, resources: &Resources) -> Arc<PidNamespace> {
        if flags.contains(CloneFlags::THREAD) {
            self.pids().clone()
        } else {
            resources.namespaces.pids_for_children.clone()
        }
    }

    /// What a parent does once its child runs: its tracer hears of it, and vfork(2) waits.
    fn after_clone(&mut self, message: u64, event: Option<Event>, vfork: Option<Arc<VforkDone>>) {
        if let Some(event) = event {
            self.trace_event(event, message);
        }
        if let Some(vfork) = vfork {
            let mut done = || vfork.done.load(Ordering::SeqCst).then_some(());
            // Killed meanwhile: the parent just ends.
            let _ = self.wait_killable(&[(&vfork.queue, !0)], &mut done);
            self.trace_event(Event::VforkDone, message);
        }
    }

    /// What the child has or shares of its parent's.
    fn child_resources(&self, flags: CloneFlags) -> Result<Resources> {
        let vm = if flags.contains(CloneFlags::VM) { self.mm().clone() } else { self.mm().fork()? };
        let fds = if flags.contains(CloneFlags::FILES) { self.fds() } else { self.fds().fork() };
        let namespaces = self.task.namespaces();
        let cred = match flags.contains(CloneFlags::NEWUSER) {
            true => Arc::new(namespaces.new_user(&self.cred())?),
            false => self.cred(),
        };
        let fs = match flags {
            _ if flags.contains(CloneFlags::FS) => self.fs(),
            _ if flags.contains(CloneFlags::NEWNS) => self.fs().in_own_namespace(&cred)?,
            _ => self.fs().fork(),
        };
        let mut namespaces = namespaces.with_new(flags, &cred, self.task.group.cgroup())?;
        // Who shares memory reads the same clocks, up to its next program.
        if !flags.contains(CloneFlags::VM) && namespaces.ages_children() {
            namespaces = namespaces.in_time();
            self.kernel.vdso.choose(&vm, namespaces.shifts_children())?;
        }
        let own = self.task.resources.lock();
        Ok(Resources { mm: Some(vm), fds: Some(fds), fs: Some(fs), namespaces, cred, ..own.clone() })
    }

    /// The child as it starts: with what it has of its parent beside its resources.
    fn current_of(
        &self,
        child: &Arc<Task>,
        regs: UserRegs,
        context: Box<dyn Context>,
        args: &CloneArgs,
    ) -> Box<Current> {
        let flags = args.flags;
        let mut current = Current::new(child.clone(), self.kernel.clone(), regs, self.fp.clone(), context);
        if flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK) {
            // A thread has no alternate stack until it sets one.
        } else {
            current.altstack = self.altstack;
        }
        current.restorer = self.restorer;
        if !flags.contains(CloneFlags::VM) {
            current.rseq = self.rseq;
            current.note_rseq();
        }
        if flags.contains(CloneFlags::CHILD_CLEARTID) {
            current.clear_child_tid = args.child_tid;
        }
        current
    }

    /// What can be told before anything is copied.
    fn may_clone(&self, args: &CloneArgs) -> Result<()> {
        check(args)?;
        self.may_have(args.flags)?;
        // Threads are where their process is; what its children are to be born in is another's.
        if args.flags.contains(CloneFlags::THREAD)
            && (args.flags.intersects(CloneFlags::NEWPID | CloneFlags::NEWUSER) || !self.bears_where_it_is())
        {
            return Err(Errno::EINVAL);
        }
        // An init has no siblings that would be waited for where it is not seen.
        if args.flags.contains(CloneFlags::PARENT) && self.task.group.is_protected() {
            return Err(Errno::EINVAL);
        }
        self.check_process_limit(&self.kernel.tree.lock(), args)
    }

    /// How many tasks there may be altogether, and RLIMIT_NPROC: how many a user may have. That does not count for root, to
    /// whom others leave a few.
    fn check_process_limit(&self, tree: &super::Tree, args: &CloneArgs) -> Result<()> {
        let cred = self.cred();
        let unbound = cred.uid.real == 0 || cred.has(Caps::SYS_RESOURCE) || cred.has(Caps::SYS_ADMIN);
        let most = self.kernel.options.max_tasks;
        if tree.is_full(if unbound { most } else { most - most / ROOTS_PART }) {
            return Err(Errno::EAGAIN);
        }
        self.kernel.cgroups.admit_task(args.cgroup.unwrap_or(self.task.group.cgroup()))?;
        if unbound {
            return Ok(());
        }
        let limit = self.limit(limits::NPROC);
        // Counted only where there could be so many: most have no use for it.
        if (tree.task_count() as u64) < limit {
            return Ok(());
        }
        let own = tree.tasks().filter(|task| task.cred().uid.real == cred.uid.real).count();
        if own as u64 >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// The process that the child is in.
    fn child_group(
        &self,
        ids: (i32, i32),
        pids: Arc<PidNamespace>,
        parent_state: &GroupState,
        args: &CloneArgs,
    ) -> Arc<ThreadGroup> {
        let group = &self.task.group;
        if args.flags.contains(CloneFlags::THREAD) {
            return group.clone();
        }
        let limits = *group.limits.lock();
        let new = ThreadGroup::new(ids, pids, self.actions_for(parent_state, args.flags), limits);
        new.inherit(group);
        new.cgroup.store(args.cgroup.unwrap_or(group.cgroup()).number(), Ordering::Relaxed);
        new
    }

    fn actions_for(&self, state: &GroupState, flags: CloneFlags) -> Actions {
        let mut actions = state.actions.clone();
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            actions.reset_handlers();
        }
        actions
    }

    /// Counts the child in its control group, which may be another than its parent's, and returns what it is called where it is
    /// born. The tree's lock is held.
    fn enter(&self, id: i32, pids: &PidNamespace, args: &CloneArgs) -> Result<i32> {
        let cgroup = args.cgroup.unwrap_or(self.task.group.cgroup());
        let (cgroups, process) = (&self.kernel.cgroups, !args.flags.contains(CloneFlags::THREAD));
        cgroups.born(cgroup, process)?;
        if pids.is_first() {
            return Ok(id);
        }
        pids.enter(id).inspect_err(|_| cgroups.unborn(cgroup, process))
    }

    /// Enters the child in the tables: from here on signals find it.
    fn link(
        &self,
        tree: &mut super::Tree,
        mut parent_state: LockGuard<'_, GroupState>,
        child: &Arc<Task>,
        child_group: &Arc<ThreadGroup>,
        args: &CloneArgs,
    ) {
        tree.add_task(child.clone());
        child_group.note_user_ns(&child.cred());
        if args.flags.contains(CloneFlags::THREAD) {
            parent_state.threads.push(child.clone());
            if parent_state.stop != Stop::None {
                child.work.fetch_or(work::STOP, Ordering::SeqCst);
            }
            return;
        }
        drop(parent_state);
        child_group.state.lock().threads.push(child.clone());
        let own = self.task.tgid();
        let Some(node) = tree.node(own) else { return };
        let new = if args.flags.contains(CloneFlags::PARENT) {
            // A sibling: what holds between this process and its parent holds for the child.
            let (parent, creator) = (node.parent, node.creator);
            let (exit_signal, parent_execs) = (node.exit_signal, node.parent_execs);
            let new = Node::new(child_group.clone(), Some(node), creator);
            Node { parent, exit_signal, parent_execs, adopted: node.adopted, ..new }
        } else {
            let new = Node::new(child_group.clone(), Some(node), self.task.tid());
            Node { exit_signal: args.exit_signal, ..new }
        };
        tree.add_node(new);
    }
}

fn check(args: &CloneArgs) -> Result<()> {
    let flags = args.flags;
    let needs = |flag, other| flags.contains(flag) && !flags.contains(other);
    if needs(CloneFlags::THREAD, CloneFlags::SIGHAND)
        || needs(CloneFlags::SIGHAND, CloneFlags::VM)
        // Handlers belong to a process here; processes that share them went out with LinuxThreads.
        || needs(CloneFlags::SIGHAND, CloneFlags::THREAD)
        || flags.contains(CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND)
        || flags.contains(CloneFlags::NEWNS | CloneFlags::FS)
        || flags.contains(CloneFlags::NEWUSER | CloneFlags::FS)
        || flags.contains(CloneFlags::NEWIPC | CloneFlags::SYSVSEM)
        || !(0..=NSIG).contains(&args.exit_signal)
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn inherited(policy: &SchedPolicy) -> SchedPolicy {
    if policy.reset_on_fork {
        // A real-time policy would go, too; there are none.
        SchedPolicy { nice: policy.nice.max(0), reset_on_fork: false, ..*policy }
    } else {
        *policy
    }
}

impl Kernel {
    /// Takes a child that could not be started out of the tables again.
    fn forget(&self, child: &Arc<Task>) {
        let mut tree = self.tree.lock();
        tree.remove_task(child.tid());
        self.forget_tracee(&mut tree, child);
        child.group.state.lock().threads.retain(|task| !Arc::ptr_eq(task, child));
        if child.tid() == child.tgid() {
            self.cgroups.process_ended(&child.group);
            tree.remove_node(child.tgid());
        } else {
            self.cgroups.task_gone(child.group.cgroup());
        }
    }
}
