//! The running task, as handlers get it.

use super::clone::VforkDone;
use super::futex::Waiting;
use super::group::Usage;
use super::sched::Action;
use super::signal::{AltStack, SigInfo, SigSet};
use super::task::{Resources, work};
use super::{Kernel, Task, WaitStatus};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use crate::cred::Cred;
use crate::mm::Mm;
use crate::platform::{Context, UserSpace};
use crate::sync::{Pause, WaitQueue, Waiter};
use crate::vfs::{FdTable, FsContext};
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// What restart_syscall(2) calls: the rest of an interrupted call.
pub type Restart = Box<dyn FnOnce(&mut Current) -> Result<u64> + Send>;

/// The running task, owned by its kernel stack.
pub struct Current {
    /// What others see of it.
    pub task: Arc<Task>,
    /// The kernel it belongs to.
    pub kernel: Arc<Kernel>,
    /// Its user registers.
    pub regs: UserRegs,
    /// Its floating-point registers.
    pub fp: Box<FpState>,
    pub(super) context: Box<dyn Context>,
    /// The worker that `task.worker` names, and its requests for attention.
    pub(super) worker: usize,
    pub(super) attention: Arc<AtomicU32>,
    mm: Option<Arc<Mm>>,
    pub(super) space: Option<UserSpace>,
    fds: Option<Arc<FdTable>>,
    fs: Option<Arc<FsContext>>,
    cred: Arc<Cred>,
    /// Where to write 0 and wake a futex at exit (set_tid_address).
    pub clear_child_tid: u64,
    /// sigaltstack.
    pub altstack: AltStack,
    /// Blocked signals to go back to once a signal has been delivered (sigsuspend, ppoll).
    pub(super) saved_mask: Option<SigSet>,
    pub(super) restart: Option<Restart>,
    /// Who waits for this task to exec or exit.
    pub(super) vfork_done: Option<Arc<VforkDone>>,
    /// What signal frames say of faults: see `sigframe::fault`.
    pub(super) fault: [u64; 3],
    /// Where handlers without a restorer return to, if they may be without.
    pub(super) restorer: Option<u64>,
    /// For `wait_on`: made once.
    waiter: Option<Arc<Waiter>>,
    /// For futex waits: made once.
    pub(super) futex_waiter: Option<Arc<Waiting>>,
    pub(super) rseq: Option<super::rseq::Rseq>,
    /// This thread ends: exit(2), a filter.
    pub(super) exit: Option<WaitStatus>,
    /// The registers have been armed for a tracer's single step.
    pub(super) stepping: bool,
}

impl Current {
    /// A task about to start, with the resources its [`Task`] names.
    pub(super) fn new(
        task: Arc<Task>,
        kernel: Arc<Kernel>,
        regs: UserRegs,
        fp: Box<FpState>,
        context: Box<dyn Context>,
    ) -> Box<Current> {
        let resources = task.resources.lock().clone();
        if let Some(mm) = &resources.mm {
            mm.pause_by(kernel.sched.clone());
            mm.enter();
        }
        if kernel.metrics.observed {
            task.watched.store(true, Ordering::SeqCst);
        }
        Box::new(Current {
            task,
            kernel,
            regs,
            fp,
            context,
            worker: 0,
            attention: Arc::default(),
            space: resources.mm.as_ref().map(|mm| UserSpace::new(mm.space().clone())),
            mm: resources.mm,
            fds: resources.fds,
            fs: resources.fs,
            cred: resources.cred,
            clear_child_tid: 0,
            altstack: AltStack::NONE,
            saved_mask: None,
            restart: None,
            vfork_done: None,
            fault: [0; 3],
            restorer: None,
            waiter: None,
            futex_waiter: None,
            rseq: None,
            exit: None,
            stepping: false,
        })
    }

    /// Its address space.
    ///
    /// # Panics
    /// After exit, when nothing may ask any more.
    #[inline]
    pub fn mm(&self) -> &Arc<Mm> {
        self.mm.as_ref().expect("a task without memory makes no calls")
    }

    /// Its descriptors.
    ///
    /// # Panics
    /// As [`mm`](Self::mm).
    #[inline]
    pub fn fds(&self) -> Arc<FdTable> {
        self.fds.clone().expect("a task without files makes no calls")
    }

    /// The open file that its descriptor `fd` stands for; see [`FdTable::get`].
    ///
    /// # Errors
    /// EBADF.
    // Left to itself the compiler makes a call of it as handlers grow, which costs a read(2) 25 instructions.
    #[inline(always)]
    pub fn file(&self, fd: i32) -> Result<Arc<crate::vfs::File>> {
        self.fds.as_ref().expect("a task without files makes no calls").get(fd)
    }

    /// Its root and working directory.
    ///
    /// # Panics
    /// As [`mm`](Self::mm).
    #[inline]
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.clone().expect("a task without a root makes no calls")
    }

    /// The network that its new sockets are in.
    pub fn network(&self) -> Arc<crate::net::Namespace> {
        self.task.network()
    }

    /// Its credentials.
    #[inline]
    pub fn cred(&self) -> Arc<Cred> {
        self.cred.clone()
    }

    /// What a user and a group are called where it is.
    #[inline]
    pub fn show(&self, ids: (u32, u32)) -> (u32, u32) {
        if self.cred.user_ns.is_first() { ids } else { self.cred.user_ns.show(ids) }
    }

    /// Replaces its credentials. Who it is to others changes with them: nobody may look into it any more, and no parent
    /// signals it from its grave (commit_creds).
    pub fn set_cred(&mut self, cred: Cred) {
        let becomes_another = self.cred.becomes_another(&cred);
        self.task.group.note_user_ns(&cred);
        let cred = Arc::new(cred);
        let mut resources = self.task.resources.lock();
        if becomes_another {
            self.mm().set_dumpable(false);
            self.task.set_parent_death_signal(0);
        }
        resources.cred = cred.clone();
        drop(resources);
        self.cred = cred;
    }

    /// Replaces its descriptors (unshare).
    pub fn set_fds(&mut self, fds: Arc<FdTable>) {
        self.task.resources.lock().fds = Some(fds.clone());
        self.fds = Some(fds);
    }

    /// Replaces root and working directory (unshare).
    pub fn set_fs(&mut self, fs: Arc<FsContext>) {
        let old = self.task.resources.lock().fs.replace(fs.clone());
        self.fs = Some(fs);
        drop(old);
    }

    /// Takes what a new program has in place of what the old one had, in one step for all who look (execve). Returns what
    /// is to be dropped once it no longer matters how long that takes.
    pub(super) fn replace(&mut self, new: Resources) -> Resources {
        if let Some(mm) = &new.mm {
            mm.set_owner(self.task.tgid());
        }
        self.space = new.mm.as_ref().map(|mm| UserSpace::new(mm.space().clone()));
        if let Some(mm) = &new.mm {
            mm.pause_by(self.kernel.sched.clone());
            mm.enter();
        }
        (self.mm, self.fds, self.fs) = (new.mm.clone(), new.fds.clone(), new.fs.clone());
        self.cred = new.cred.clone();
        core::mem::replace(&mut *self.task.resources.lock(), new)
    }

    /// Lets go of what an ended task has no use for.
    pub(super) fn release(&mut self) {
        if let Some(mm) = &self.mm {
            // Before nobody sees any more how much it still has.
            mm.leave();
        }
        let mut resources = self.task.resources.lock();
        let taken = (resources.mm.take(), resources.fds.take(), resources.fs.take(), resources.exe.take());
        drop(resources);
        drop(taken);
        self.fds = None;
        self.fs = None;
        self.space = None;
        self.mm = None;
        self.kernel.flight.closed();
        self.kernel.ruins.clear(&*self.kernel.sched);
    }

    /// A soft resource limit (`RLIMIT_*`).
    pub fn limit(&self, resource: u32) -> u64 {
        self.task.group.limits.lock().soft(resource)
    }

    /// Whether an interruptible wait would end at once.
    #[inline]
    pub fn interrupted(&self) -> bool {
        self.task.interrupted()
    }

    /// Leaves `restart` to be called by restart_syscall(2) and returns what makes that happen. For calls whose
    /// timeout must not start anew.
    pub fn restart_with(&mut self, restart: Restart) -> Errno {
        self.restart = Some(restart);
        Errno::ERESTART_RESTARTBLOCK
    }

    /// The blocked signals to go back to at the end of this call; see sigsuspend(2), ppoll(2).
    pub fn set_temporary_mask(&mut self, mask: SigSet) {
        self.saved_mask = Some(self.task.blocked());
        self.set_blocked(mask);
        self.task.work.fetch_or(work::RESTORE_MASK, Ordering::SeqCst);
    }

    /// restart_syscall(2): goes on with an interrupted call.
    ///
    /// # Errors
    /// What the call returns; EINTR if there is none.
    pub fn restart(&mut self) -> Result<u64> {
        match self.restart.take() {
            Some(restart) => restart(self),
            None => Err(Errno::EINTR),
        }
    }

    /// Lets other runnable tasks go first.
    pub fn yield_now(&mut self) {
        self.note_rseq();
        self.kernel.sched.yield_now(&self.task);
    }

    /// What long work asks now and then: see [`Pause`].
    ///
    /// # Errors
    /// EINTR when the task is to end.
    pub fn pause(&self) -> Result<()> {
        self.kernel.sched.pause()
    }

    /// Waits for a signal in `set`, blocked or not, and takes it.
    ///
    /// # Errors
    /// EAGAIN when `deadline` passes, EINTR on another signal.
    pub fn await_signal(&mut self, set: SigSet, deadline: Option<u64>) -> Result<SigInfo> {
        if let Some(info) = self.take_signal(set) {
            return Ok(info);
        }
        self.task.awaited.store(set.0, Ordering::SeqCst);
        let result = loop {
            if let Some(info) = self.take_signal(set) {
                break Ok(info);
            }
            // A sender sets the bit for an awaited signal too: it means something only if one is deliverable.
            self.recheck_signals();
            if self.interrupted() {
                break Err(Errno::EINTR);
            }
            if deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline) {
                break Err(Errno::EAGAIN);
            }
            self.park(deadline);
        };
        self.task.awaited.store(0, Ordering::SeqCst);
        result
    }

    /// What children that were waited for have used.
    pub fn children_usage(&self) -> Usage {
        self.kernel.tree.lock().node(self.task.tgid()).map_or_else(Usage::default, |node| node.children_usage)
    }

    /// prctl(PR_SET_CHILD_SUBREAPER).
    pub fn set_subreaper(&mut self, on: bool) {
        if let Some(node) = self.kernel.tree.lock().node_mut(self.task.tgid()) {
            node.subreaper = on;
        }
    }

    /// prctl(PR_GET_CHILD_SUBREAPER).
    pub fn is_subreaper(&self) -> bool {
        self.kernel.tree.lock().node(self.task.tgid()).is_some_and(|node| node.subreaper)
    }

    /// Waits for a wake, at most until `deadline` (CLOCK_MONOTONIC ns). May return early: callers loop.
    pub fn park(&self, deadline: Option<u64>) {
        let Some(deadline) = deadline else {
            return self.kernel.sched.park(&self.task);
        };
        let timer = self.kernel.sched.add_timer(deadline, Action::Wake(self.task.clone()));
        self.kernel.sched.park(&self.task);
        self.kernel.sched.cancel_timer(timer);
    }

    /// Parks until `ready` gives a value, which is returned; until a signal is pending; or until `deadline`
    /// (CLOCK_MONOTONIC ns). `ready` is tried after registering on the queues and after each event on one.
    ///
    /// # Errors
    /// ERESTARTSYS on a signal, ETIMEDOUT.
    pub fn wait_on<T>(
        &mut self,
        queues: &[(&WaitQueue, u32)],
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        self.wait(queues, deadline, work::INTERRUPT, ready)
    }

    /// As [`wait_on`](Self::wait_on), but only the end of the program interrupts.
    ///
    /// # Errors
    /// ERESTARTSYS when killed.
    pub fn wait_killable<T>(
        &mut self,
        queues: &[(&WaitQueue, u32)],
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        self.wait(queues, None, work::KILL, ready)
    }

    /// As [`wait_on`](Self::wait_on), but nothing interrupts.
    pub(super) fn wait_whatever<T>(
        &mut self,
        queues: &[(&WaitQueue, u32)],
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        self.wait(queues, None, 0, ready)
    }

    /// As [`wait_on`](Self::wait_on) for one queue, by a caller that has tried in vain after it read the queue's
    /// `version`: not tried again before parking unless the queue was notified since.
    ///
    /// # Errors
    /// ERESTARTSYS on a signal.
    pub fn wait_since<T>(
        &mut self,
        queue: (&WaitQueue, u32),
        version: u32,
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        self.wait_one(queue, Some(version), None, work::INTERRUPT, ready)
    }

    /// Makes `attempt` until it returns anything but EAGAIN, waiting in between for events on a queue, until `deadline`
    /// (CLOCK_MONOTONIC ns) at most. A limit on the time that a socket waits looks like a socket that does not wait
    /// (socket(7)), and a wait that has one is not restarted after a signal (signal(7)).
    ///
    /// # Errors
    /// What `attempt` returned; EAGAIN when time is up; ERESTARTSYS, or EINTR with a deadline, on a signal.
    pub fn retry<T>(
        &mut self,
        queue: (&WaitQueue, u32),
        deadline: Option<u64>,
        attempt: &mut dyn FnMut() -> Result<T>,
    ) -> Result<T> {
        // Before the attempt: what changes after it changes the version too.
        let version = queue.0.version();
        match attempt() {
            Err(Errno::EAGAIN) => {}
            result => return result,
        }
        let mut ready = || match attempt() {
            Err(Errno::EAGAIN) => None,
            result => Some(result),
        };
        match self.wait_one(queue, Some(version), deadline, work::INTERRUPT, &mut ready) {
            Ok(result) => result,
            Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
            Err(Errno::ERESTARTSYS) if deadline.is_some() => Err(Errno::EINTR),
            Err(errno) => Err(errno),
        }
    }

    fn wait<T>(
        &mut self,
        queues: &[(&WaitQueue, u32)],
        deadline: Option<u64>,
        interrupts: u32,
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        if let [queue] = queues {
            return self.wait_one(*queue, None, deadline, interrupts, ready);
        }
        self.waiter.get_or_insert_with(|| Waiter::new(self.task.clone(), !0));
        let Some(waiter) = &self.waiter else { unreachable!("it was made above") };
        for (queue, mask) in queues {
            queue.register_for(waiter, *mask);
        }
        let _registered = Registered { queues, waiter };
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.check_wait(interrupts, deadline)?;
            self.park(deadline);
        }
    }

    /// Waits on one queue, registered for one wake at a time: a wait that ends by its wake has nothing to take back.
    fn wait_one<T>(
        &mut self,
        (queue, mask): (&WaitQueue, u32),
        mut version: Option<u32>,
        deadline: Option<u64>,
        interrupts: u32,
        ready: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T> {
        self.waiter.get_or_insert_with(|| Waiter::new(self.task.clone(), !0));
        let Some(waiter) = &self.waiter else { unreachable!("it was made above") };
        let _registered = Registered { queues: &[(queue, mask)], waiter };
        loop {
            queue.register_once(waiter, mask);
            if version.take() != Some(queue.version())
                && let Some(value) = ready()
            {
                return Ok(value);
            }
            self.check_wait(interrupts, deadline)?;
            self.park(deadline);
            if let Some(value) = ready() {
                return Ok(value);
            }
            // Something else may have woken the task.
            queue.unregister(waiter);
        }
    }

    /// Whether a wait may go on.
    #[inline]
    fn check_wait(&self, interrupts: u32, deadline: Option<u64>) -> Result<()> {
        if self.task.work.load(Ordering::SeqCst) & interrupts != 0 {
            return Err(Errno::ERESTARTSYS);
        }
        match deadline {
            Some(deadline) if crate::time::monotonic_ns() >= deadline => Err(Errno::ETIMEDOUT),
            _ => Ok(()),
        }
    }
}

/// Unregisters also when `ready` panics.
struct Registered<'a> {
    queues: &'a [(&'a WaitQueue, u32)],
    waiter: &'a Arc<Waiter>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for (queue, _) in self.queues {
            queue.unregister(self.waiter);
        }
    }
}
