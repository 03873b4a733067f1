//! fork, vfork, clone, clone3.

use super::clone_flags::CloneFlags;
use super::group::{GroupState, Stop, Usage};
use super::seccomp::Confinement;
use super::signal::{Actions, NSIG, SIGCHLD, SigSet};
use super::task::{Resources, SchedPolicy, comm_of, work};
use super::tree::Node;
use super::{Current, Init, Kernel, Task, ThreadGroup, limits};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, Registers, UserRegs};
use crate::cred::Caps;
use crate::sync::{LockGuard, WaitQueue};
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Flags that ask for namespaces: there is one of each.
pub const NAMESPACES: CloneFlags = CloneFlags::NEWNS
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWUTS)
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWUSER)
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWNET)
    .union(CloneFlags::NEWTIME);
/// Those, and a cgroup of the child's own.
const UNSUPPORTED: CloneFlags = NAMESPACES.union(CloneFlags::INTO_CGROUP);

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
    /// Creates a process or a thread and returns its id.
    ///
    /// # Errors
    /// EINVAL for combinations that make no sense, EAGAIN, ENOMEM.
    pub fn clone_task(&mut self, args: &CloneArgs) -> Result<i32> {
        let flags = args.flags;
        check(args)?;
        let group = self.task.group.clone();
        let vm = if flags.contains(CloneFlags::VM) { self.mm().clone() } else { self.mm().fork()? };
        let fds = if flags.contains(CloneFlags::FILES) { self.fds() } else { self.fds().fork() };
        let fs = if flags.contains(CloneFlags::FS) { self.fs() } else { self.fs().fork() };
        let comm = self.task.resources.lock().comm;
        let resources = Resources { mm: Some(vm), fds: Some(fds), fs: Some(fs), cred: self.cred(), comm };
        let context = self.kernel.platform.new_context()?;
        self.context.save_fp(&mut self.fp);
        let mut regs = self.regs;
        regs.set_result(0);
        regs.clear_syscall();
        if args.stack != 0 {
            regs.set_sp(args.stack);
        }
        if flags.contains(CloneFlags::SETTLS) {
            regs.set_tls(args.tls);
        }

        let kernel = self.kernel.clone();
        let mut tree = kernel.tree.lock();
        self.check_process_limit(&tree)?;
        let tid = tree.allocate()?;
        let parent_state = group.state.lock();
        // A signal that came first is handled first: a fork must not outrun the end of its process.
        if parent_state.exit.is_some() || parent_state.execing.is_some() || parent_state.stop != Stop::None {
            self.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
            return Err(Errno::ERESTARTNOINTR);
        }
        let child_group = if flags.contains(CloneFlags::THREAD) {
            group.clone()
        } else {
            let limits = *group.limits.lock();
            let new = ThreadGroup::new(tid, self.actions_for(&parent_state, flags), limits);
            new.inherit(&group);
            kernel.watch_cpu_limit(&new);
            new
        };
        let policy = inherited(&self.task.policy.lock());
        let child = Task::new(
            tid,
            child_group.clone(),
            kernel.sched.clone(),
            resources,
            self.task.blocked(),
            policy,
            self.task.confinement(),
        );
        let slack = self.task.timer_slack.load(Ordering::Relaxed);
        child.timer_slack.store(slack, Ordering::Relaxed);
        child.default_slack.store(slack, Ordering::Relaxed);
        let mut current = Current::new(child.clone(), kernel.clone(), regs, self.fp.clone(), context);
        if flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK) {
            // A thread has no alternate stack until it sets one.
        } else {
            current.altstack = self.altstack;
        }
        current.restorer = self.restorer;
        if flags.contains(CloneFlags::CHILD_CLEARTID) {
            current.clear_child_tid = args.child_tid;
        }
        let vfork = flags.contains(CloneFlags::VFORK).then(Arc::<VforkDone>::default);
        current.vfork_done = vfork.clone();
        self.link(&mut tree, parent_state, &child, &child_group, args);
        drop(tree);

        if flags.contains(CloneFlags::PARENT_SETTID) {
            let _ = self.mm().write_val(args.parent_tid, &tid);
        }
        if flags.contains(CloneFlags::CHILD_SETTID) {
            let _ = current.mm().write_val(args.child_tid, &tid);
        }
        if let Err(errno) = kernel.sched.start(current) {
            kernel.forget(&child);
            return Err(errno);
        }
        if let Some(vfork) = vfork {
            let mut done = || vfork.done.load(Ordering::SeqCst).then_some(());
            // Killed meanwhile: the parent just ends.
            let _ = self.wait_killable(&[(&vfork.queue, !0)], &mut done);
        }
        Ok(tid)
    }

    /// RLIMIT_NPROC: how many tasks a user may have. It does not count for root.
    fn check_process_limit(&self, tree: &super::Tree) -> Result<()> {
        let cred = self.cred();
        if cred.uid.real == 0 || cred.has(Caps::SYS_RESOURCE) || cred.has(Caps::SYS_ADMIN) {
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

    fn actions_for(&self, state: &GroupState, flags: CloneFlags) -> Actions {
        let mut actions = state.actions.clone();
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            actions.reset_handlers();
        }
        actions
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
        if args.flags.contains(CloneFlags::THREAD) {
            parent_state.threads.push(child.clone());
            return;
        }
        drop(parent_state);
        child_group.state.lock().threads.push(child.clone());
        let tgid = self.task.tgid();
        let Some(node) = tree.node(tgid) else { return };
        let (pgid, sid) = (node.pgid, node.sid);
        let (parent, exit_signal) = if args.flags.contains(CloneFlags::PARENT) {
            (node.parent, node.exit_signal)
        } else {
            (tgid, args.exit_signal)
        };
        tree.add_node(Node {
            group: child_group.clone(),
            parent,
            children: Vec::new(),
            pgid,
            sid,
            exit_signal,
            zombie: None,
            stop_report: None,
            continue_report: false,
            subreaper: false,
            execed: false,
            children_usage: Usage::default(),
        });
    }
}

fn check(args: &CloneArgs) -> Result<()> {
    let flags = args.flags;
    let needs = |flag, other| flags.contains(flag) && !flags.contains(other);
    if flags.intersects(UNSUPPORTED)
        || needs(CloneFlags::THREAD, CloneFlags::SIGHAND)
        || needs(CloneFlags::SIGHAND, CloneFlags::VM)
        // Handlers belong to a process here; processes that share them went out with LinuxThreads.
        || needs(CloneFlags::SIGHAND, CloneFlags::THREAD)
        || flags.contains(CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND)
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
        child.group.state.lock().threads.retain(|task| !Arc::ptr_eq(task, child));
        if child.tid() == child.tgid() {
            tree.remove_node(child.tgid());
        }
    }
}

/// Creates process 1.
pub(super) fn spawn_init(kernel: &Arc<Kernel>, init: Init) -> Result<Arc<Task>> {
    crate::arch::sigframe::prepare();
    let context = kernel.platform.new_context()?;
    let mut tree = kernel.tree.lock();
    let tid = tree.allocate()?;
    let group = ThreadGroup::new(tid, Actions::new(), init.limits);
    *group.exe.lock() = init.exe;
    let comm = comm_of(&init.comm);
    let resources = Resources {
        mm: Some(init.mm),
        fds: Some(init.fds),
        fs: Some(init.fs),
        cred: Arc::new(init.cred),
        comm,
    };
    let cpus = kernel.sched.worker_count() as u32;
    let affinity = if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 };
    let policy = SchedPolicy { policy: 0, nice: 0, reset_on_fork: false, affinity, io_priority: 0 };
    let task = Task::new(
        tid,
        group.clone(),
        kernel.sched.clone(),
        resources,
        SigSet::EMPTY,
        policy,
        Confinement::default(),
    );
    let regs = UserRegs::start(init.ip, init.sp);
    let mut current = Current::new(task.clone(), kernel.clone(), regs, Box::new(FpState::initial()), context);
    current.find_restorer();
    group.state.lock().threads.push(task.clone());
    tree.add_task(task.clone());
    tree.add_node(Node {
        group,
        parent: 0,
        children: Vec::new(),
        pgid: tid,
        sid: tid,
        exit_signal: SIGCHLD,
        zombie: None,
        stop_report: None,
        continue_report: false,
        subreaper: false,
        execed: true,
        children_usage: Usage::default(),
    });
    drop(tree);
    kernel.sched.start(current)?;
    Ok(task)
}
