//! execve: the part after the program has been loaded.

use super::futex::ANY;
use super::signal::AltStack;
use super::task::{Resources, comm_of, work};
use super::{Current, WaitStatus, personality};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, Registers, UserRegs};
use crate::cred::Cred;
use crate::loader::vdso;
use crate::mm::Mm;
use crate::sync::Wake;
use crate::vfs::{FdTable, Path};
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// A loaded program, ready to replace the running one.
pub struct Program {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// First instruction.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Its name (`comm`).
    pub comm: Vec<u8>,
    /// Who it runs as.
    pub cred: Cred,
    /// Its file, for `/proc/PID/exe`.
    pub exe: Option<Path>,
    /// Whether its caller may read all the files that it is made of.
    pub readable: bool,
}

impl Current {
    /// Replaces the running program. All other threads of the process end first; on success the registers are those of
    /// the new program.
    ///
    /// # Errors
    /// EAGAIN if the process ends, or another thread calls execve, meanwhile.
    pub fn exec(&mut self, program: Program) -> Result<()> {
        self.end_other_threads()?;
        let former = self.number_for_tracer(self.task.tid());
        self.take_leaders_place();
        // The last moment at which the old memory can be written.
        self.release_robust_list();
        self.release_pi();
        self.task.pi_dead.store(false, Ordering::SeqCst);
        self.clear_tid();
        self.task.group.note_max_rss(self.mm());
        {
            let mut tree = self.kernel.tree.lock();
            if let Some(node) = tree.node_mut(self.task.tgid()) {
                node.execed = true;
                node.execs = node.execs.wrapping_add(1);
                node.exit_signal = super::signal::SIGCHLD;
            }
        }
        let group = self.task.group.clone();
        group.state.lock().actions.reset_handlers();
        self.delete_posix_timers();
        let raised = program.cred.is_raised();
        group.membarriers.store(0, Ordering::Relaxed);
        group.personality.fetch_and(!personality::kept_off(raised), Ordering::Relaxed);
        self.altstack = AltStack::NONE;
        self.restart = None;
        self.forget_rseq();
        (self.regs, *self.fp) = (UserRegs::start(program.ip, program.sp), FpState::initial());
        self.context.drop_fp();
        let old = self.become_program(program);
        self.kernel.cgroups.watch(group.cgroup(), self.mm());
        if let Some(done) = self.vfork_done.take() {
            done.complete();
        }
        self.find_restorer();
        if let Some(mm) = &old.mm {
            mm.leave();
        }
        drop(old);
        self.trace_exec(former);
        Ok(())
    }

    /// What others see of the task becomes that of the new program, at once. Returns the old one's.
    fn become_program(&mut self, program: Program) -> Resources {
        let fds = self.own_fds();
        fds.close_on_exec();
        let Program { mm, cred, .. } = program;
        // It is its user's to look at only if that user could have had all of it anyway (begin_new_exec, commit_creds).
        let becomes_another = self.cred().becomes_another(&cred);
        // What its user may not read is for those alone who may read all.
        if program.readable {
            mm.began_in(&cred.user_ns);
        }
        mm.set_dumpable(program.readable && !self.cred().is_raised() && !becomes_another);
        mm.set_dump_filter(self.mm().dump_filter());
        if becomes_another || cred.is_raised() {
            self.task.set_parent_death_signal(0);
        }
        // Who began to share it since the program was given these credentials keeps it to himself.
        let fs = if cred.is_raised() && self.is_fs_shared() { self.fs().fork() } else { self.fs() };
        let rises = cred.is_raised() || becomes_another;
        if rises {
            self.rises();
        }
        let mut namespaces = self.task.namespaces();
        if namespaces.ages_children() {
            namespaces = namespaces.in_time();
            namespaces.time.of.enter(&self.task.group.shifts);
        }
        let old = self.replace(Resources {
            mm: Some(mm),
            fds: Some(fds),
            fs: Some(fs),
            cred: Arc::new(cred),
            comm: comm_of(&program.comm),
            exe: program.exe,
            namespaces,
        });
        if rises {
            self.has_risen();
        }
        old
    }

    /// Its descriptors, which no other process has any more.
    fn own_fds(&self) -> Arc<FdTable> {
        let fds = self.fds();
        let shares = |held: &Resources| held.fds.as_ref().is_some_and(|other| Arc::ptr_eq(other, &fds));
        if self.is_shared(&shares) { fds.fork() } else { fds }
    }

    /// Whether another process shares its root, working directory and umask.
    pub fn is_fs_shared(&self) -> bool {
        let fs = self.fs();
        self.is_shared(&|held| held.fs.as_ref().is_some_and(|other| Arc::ptr_eq(other, &fs)))
    }

    /// Whether a task of another process holds what `shares` knows.
    fn is_shared(&self, shares: &dyn Fn(&Resources) -> bool) -> bool {
        let tree = self.kernel.tree.lock();
        tree.tasks().any(|task| task.tgid() != self.task.tgid() && shares(&task.resources.lock()))
    }

    /// Where handlers of this program return to that bring no restorer of their own.
    pub(super) fn find_restorer(&mut self) {
        self.restorer = vdso::restorer(self.mm().vdso());
    }

    fn end_other_threads(&mut self) -> Result<()> {
        let group = self.task.group.clone();
        {
            let mut state = group.state.lock();
            if state.exit.is_some() || state.execing.is_some() {
                return Err(Errno::EAGAIN);
            }
            if state.threads.len() == 1 {
                return Ok(());
            }
            state.execing = Some(self.task.clone());
            for task in state.threads.iter().filter(|task| !Arc::ptr_eq(task, &self.task)) {
                task.interrupt(work::KILL);
            }
        }
        let result = loop {
            if group.state.lock().threads.len() == 1 {
                break Ok(());
            }
            if self.task.killed() {
                break Err(Errno::EAGAIN);
            }
            self.park(None);
        };
        group.state.lock().execing = None;
        result
    }

    /// The calling thread becomes the process's first one, whose id its new program has.
    fn take_leaders_place(&mut self) {
        let (old, new) = (self.task.tid(), self.task.tgid());
        if old != new {
            let mut tree = self.kernel.tree.lock();
            tree.remove_task(old);
            self.kernel.take_leaders_trace(&mut tree, &self.task);
            self.task.lead();
            tree.hand_over_children(new, None, new);
            tree.add_task(self.task.clone());
        }
    }

    /// CLONE_CHILD_CLEARTID: tells a joiner that this thread's stack is free.
    pub(super) fn clear_tid(&mut self) {
        let addr = core::mem::take(&mut self.clear_child_tid);
        // Memory that nobody else uses has no joiner; like Linux, it is left as it is (a shared page in it, too).
        if !self.mm().is_shared() {
            return;
        }
        if addr != 0 && self.mm().store_u32(addr, 0).is_ok() {
            let _ = self.kernel.futexes.wake(self.mm(), addr, true, 1, ANY);
        }
    }

    /// Ends the whole process.
    pub fn exit_group(&mut self, status: WaitStatus) {
        let mut state = self.task.group.state.lock();
        super::signal::begin_exit(&mut state, status);
        self.task.work.fetch_or(work::KILL, Ordering::SeqCst);
    }

    /// Ends the calling thread.
    pub fn end_thread(&mut self, status: WaitStatus) {
        self.exit = Some(status);
        self.task.work.fetch_or(work::KILL, Ordering::SeqCst);
        self.task.wake();
    }
}
