//! Who traces whom: attaching, detaching, and what the end of either means for the other.
//!
//! A link is in two places, the tracee's [`Trace`](super::Trace) and the tracer's node of the process tree. Both change under
//! the tree's lock.

use super::{Options, Tracee, Tracer, tracing};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::kernel::group::Stop;
use crate::kernel::peek::As;
use crate::kernel::signal::{SIGCHLD, SIGKILL, SIGSTOP, SigInfo, code};
use crate::kernel::task::work;
use crate::kernel::{Current, Kernel, Task, Tree, WaitStatus};
use crate::sync::Wake;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// What a new link is like.
struct Terms {
    options: Options,
    seized: bool,
    /// Whose rights count for what its tracer may do.
    cred: Arc<Cred>,
}

/// Links two tasks. Called with the tree locked.
fn link(tree: &mut Tree, tracer: &Arc<Task>, tracee: &Arc<Task>, terms: Terms) -> Result<()> {
    let own = tracer.tgid();
    let node = tree.node_mut(own).ok_or(Errno::ESRCH)?;
    {
        let mut trace = tracee.trace.lock();
        if trace.tracer.is_some() || trace.rising {
            return Err(Errno::EPERM);
        }
        trace.tracer = Some(Tracer {
            task: Arc::downgrade(tracer),
            group: tracer.group.clone(),
            options: terms.options,
            cred: terms.cred,
        });
        (trace.trap, trace.notify, trace.message) = (false, false, 0);
    }
    node.tracees.push(Tracee { task: tracee.clone(), dead: None });
    if tracee.tid() == tracee.tgid()
        && let Some(node) = tree.node_mut(tracee.tgid())
    {
        node.tracer = Some(own);
    }
    let seized = if terms.seized { tracing::SEIZED } else { 0 };
    tracee.tracing.store(tracing::TRACED | seized, Ordering::SeqCst);
    tracee.watched.store(true, Ordering::SeqCst);
    Ok(())
}

/// Undoes [`link`] on the tracee's side; it goes on with `signo`. Called with the tree locked.
fn unlink(tree: &mut Tree, tracee: &Arc<Task>, signo: Option<i32>) {
    if let Some(node) = tree.node_mut(tracee.tgid())
        && tracee.tid() == tracee.tgid()
    {
        node.tracer = None;
    }
    let state = tracee.group.state.lock();
    {
        let mut trace = tracee.trace.lock();
        trace.tracer = None;
        (trace.trap, trace.notify) = (false, false);
        tracee.tracing.fetch_and(tracing::STOPPED, Ordering::SeqCst);
        tracee.work.fetch_and(!work::STEP, Ordering::SeqCst);
        if let Some(stop) = &mut trace.stop {
            // What the tracer has not been told of happens as if it were not there.
            let untold = if stop.unreported && stop.reason == super::Reason::Signal { stop.code } else { 0 };
            stop.resumed = Some(signo.unwrap_or(untold));
        }
    }
    // It stops like the rest of its process, which its tracer had let it go on without.
    if state.stop != Stop::None && state.exit.is_none() {
        tracee.interrupt(work::STOP);
    }
    drop(state);
    tracee.wake();
}

impl Current {
    /// PTRACE_TRACEME: its parent traces it.
    ///
    /// # Errors
    /// EPERM if somebody does already, or if there is nobody.
    pub fn trace_me(&mut self) -> Result<()> {
        let kernel = self.kernel.clone();
        let mut tree = kernel.tree.lock();
        let node = tree.node(self.task.tgid()).ok_or(Errno::EPERM)?;
        let (parent, creator) = (node.parent, node.creator);
        let parent = tree.node(parent).ok_or(Errno::EPERM)?.group.clone();
        let threads = parent.threads();
        let tracer = threads.iter().find(|task| task.tid() == creator).or(threads.first()).cloned();
        let Some(tracer) = tracer else { return Ok(()) };
        // Nobody is given a tracee that can do more than he (cap_ptrace_traceme).
        let (cred, its) = (self.cred(), tracer.cred());
        let covers = its.user_ns == cred.user_ns && its.permitted.contains(cred.permitted);
        if !covers && !its.has_in(&cred.user_ns, Caps::SYS_PTRACE) {
            return Err(Errno::EPERM);
        }
        // Asked for by who is traced, it gives the tracer no power that he had not himself.
        link(&mut tree, &tracer, &self.task, Terms { options: Options::empty(), seized: false, cred })
    }

    /// PTRACE_ATTACH, and with options PTRACE_SEIZE.
    ///
    /// # Errors
    /// ESRCH; EPERM for its own threads, for whom it may not look into, and for whom somebody traces already.
    pub fn attach(&mut self, pid: i32, seize: Option<Options>) -> Result<()> {
        let Some(tracee) = self.kernel.task(pid) else {
            // One that has ended cannot be.
            let ended = self.kernel.tree.lock().node(pid).is_some();
            return Err(if ended { Errno::EPERM } else { Errno::ESRCH });
        };
        if Arc::ptr_eq(&tracee.group, &self.task.group) {
            return Err(Errno::EPERM);
        }
        let seen = tracee.peek(&self.task.observer(), As::Real)?;
        if seen.mm.is_none() {
            return Err(Errno::EPERM);
        }
        let options = seize.unwrap_or_default();
        let kernel = self.kernel.clone();
        {
            let mut tree = kernel.tree.lock();
            if !tree.task(pid).is_some_and(|found| Arc::ptr_eq(found, &tracee)) {
                return Err(Errno::EPERM);
            }
            // It may have become another program meanwhile.
            tracee.peek(&self.task.observer(), As::Real)?;
            let cred = self.cred();
            link(&mut tree, &self.task, &tracee, Terms { options, seized: seize.is_some(), cred })?;
        }
        if seize.is_none() {
            let _ = kernel.signal_task(&tracee, SigInfo::kernel(SIGSTOP));
        }
        // A task that has stopped with its process stops anew, for its tracer, which need not wait for that.
        let stopped = || tracee.work.load(Ordering::SeqCst) & work::STOP != 0 && tracee.group.is_stopped();
        if stopped() {
            tracee.wake();
            let own = self.task.group.clone();
            let mut done = || (tracee.is_trace_stopped() || !stopped() || !tracee.is_traced()).then_some(());
            let _ = self.wait_killable(&[(&own.child_wait, !0)], &mut done);
        }
        Ok(())
    }

    /// Lets go of a tracer who may not steer a program with more rights than its caller has: he attached since it was given
    /// them. Nobody attaches until [`has_risen`](Self::has_risen); who does then sees what it is.
    pub(in crate::kernel) fn rises(&self) {
        let user_ns = self.cred().user_ns.clone();
        let mut tree = self.kernel.tree.lock();
        let former = {
            let mut trace = self.task.trace.lock();
            trace.rising = true;
            let weak = trace.tracer.as_ref().filter(|tracer| !tracer.is_capable(&user_ns));
            weak.map(|tracer| tracer.group.clone())
        };
        let Some(former) = former else { return };
        self.kernel.forget_tracee(&mut tree, &self.task);
        drop(tree);
        former.child_wait.notify(!0);
    }

    /// Others see it as what it is now.
    pub(in crate::kernel) fn has_risen(&self) {
        self.task.trace.lock().rising = false;
    }

    /// A new task of a tracee's is traced like it, if `traced`. Called with the tree locked, before it runs.
    pub(in crate::kernel) fn trace_child(&self, tree: &mut Tree, child: &Arc<Task>, traced: bool) {
        if !traced || !self.task.is_traced() {
            return;
        }
        let seized = self.task.is_seized();
        let (tracer, terms) = {
            let trace = self.task.trace.lock();
            let Some(own) = trace.tracer.as_ref() else { return };
            let Some(tracer) = own.task.upgrade() else { return };
            (tracer, Terms { options: own.options, seized, cred: own.cred.clone() })
        };
        if link(tree, &tracer, child, terms).is_err() {
            return;
        }
        // It begins with a stop.
        if seized {
            child.trace.lock().trap = true;
            child.work.fetch_or(work::TRAP, Ordering::SeqCst);
        } else {
            let _ = child.pending.lock().push(SigInfo::user(SIGSTOP, code::SI_USER, 0, 0), u64::MAX);
            child.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        }
    }

    /// PTRACE_DETACH: the tracee goes on with `signo`.
    pub(super) fn detach_from(&self, tracee: &Arc<Task>, signo: i32) {
        let mut tree = self.kernel.tree.lock();
        if let Some(node) = tree.node_mut(self.task.tgid()) {
            node.tracees.retain(|entry| !Arc::ptr_eq(&entry.task, tracee));
        }
        unlink(&mut tree, tracee, Some(signo));
    }
}

impl Kernel {
    /// A task that may trace others ends: they go on without, or end with it.
    pub(in crate::kernel) fn release_tracees(&self, tree: &mut Tree, tracer: &Arc<Task>) {
        let Some(node) = tree.node_mut(tracer.tgid()) else { return };
        if node.tracees.is_empty() {
            return;
        }
        let all = core::mem::take(&mut node.tracees);
        let is_its =
            |entry: &Tracee| entry.task.trace.lock().tracer.as_ref().is_none_or(|link| link.is(tracer));
        let (released, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(is_its);
        node.tracees = kept;
        for entry in released {
            let tracee = entry.task;
            let dies = {
                let trace = tracee.trace.lock();
                trace.tracer.as_ref().is_some_and(|link| link.options.contains(Options::EXITKILL))
            };
            if dies {
                let _ = self.signal_group_locked(&tracee.group, SigInfo::kernel(SIGKILL));
            }
            unlink(tree, &tracee, None);
            self.hand_back_zombie(tree, &tracee, tracer.tgid());
        }
    }

    /// A process that has ended is its parent's to wait for once `former` does not trace it any more.
    fn hand_back_zombie(&self, tree: &mut Tree, tracee: &Arc<Task>, former: i32) {
        let id = tracee.tgid();
        if tracee.tid() != id {
            return;
        }
        if let Some(node) = tree.node(id)
            && let Some(zombie) = node.zombie
            && node.parent != former
        {
            self.tell_parent(tree, id, zombie.status);
        }
    }

    /// The tracer has waited for process `id`, which has ended: its parent is to, if that is another one. True: it was
    /// the parent itself.
    pub(in crate::kernel) fn reaped_by_tracer(
        &self,
        tree: &mut Tree,
        tracee: &Arc<Task>,
        tracer: i32,
    ) -> bool {
        unlink(tree, tracee, None);
        let own = tree.node(tracee.tgid()).is_some_and(|node| node.parent == tracer);
        if !own {
            self.hand_back_zombie(tree, tracee, tracer);
        }
        own
    }

    /// A tracee has left its process, which goes on or ends with it: its tracer is told, and waits for it. Called with the
    /// tree locked.
    pub(in crate::kernel) fn tracee_ended(&self, tree: &mut Tree, task: &Arc<Task>, status: WaitStatus) {
        let Some(tracer) = task.trace.lock().tracer.as_ref().map(|tracer| tracer.group.clone()) else {
            return;
        };
        let leads = task.tid() == task.tgid();
        if let Some(node) = tree.node_mut(tracer.tgid)
            && let Some(entry) = node.tracees.iter_mut().find(|entry| Arc::ptr_eq(&entry.task, task))
            && !leads
        {
            entry.dead = Some(status);
        }
        let mut info = crate::kernel::exit::child_info(status, task.tid(), task.cred().uid.real);
        info.signo = SIGCHLD;
        let _ = self.signal_group_locked(&tracer, info);
        tracer.child_wait.notify(!0);
    }

    /// A task that never ran is nobody's tracee.
    pub(in crate::kernel) fn forget_tracee(&self, tree: &mut Tree, task: &Arc<Task>) {
        let own = task.trace.lock().tracer.as_ref().map(|tracer| tracer.group.tgid);
        if let Some(node) = own.and_then(|own| tree.node_mut(own)) {
            node.tracees.retain(|entry| !Arc::ptr_eq(&entry.task, task));
            unlink(tree, task, None);
        }
    }

    /// `task` takes the place of its process's first thread, in execve(2): that is nobody's tracee any more.
    pub(in crate::kernel) fn take_leaders_trace(&self, tree: &mut Tree, task: &Arc<Task>) {
        let tgid = task.tgid();
        let former = tree.node(tgid).and_then(|node| node.tracer);
        if let Some(node) = former.and_then(|former| tree.node_mut(former)) {
            node.tracees.retain(|entry| entry.task.tid() != tgid || entry.task.tgid() != tgid);
        }
        let own = task.trace.lock().tracer.as_ref().map(|tracer| tracer.group.tgid);
        if let Some(node) = tree.node_mut(tgid) {
            node.tracer = own;
        }
    }
}
