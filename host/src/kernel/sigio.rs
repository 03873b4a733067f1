//! Signal-driven I/O: a signal when a file becomes ready (fcntl(2), F_SETOWN and O_ASYNC).

use super::signal::{Fields, SIGIO, SIGURG, SigInfo};
use super::{Current, Kernel, Task, ThreadGroup};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::sync::{Waiter, Wake, event};
use crate::vfs::{File, Owner, Whom};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::{Arc, Weak};

/// `si_code`s (asm-generic/siginfo.h), and what `si_band` is with each (fs/fcntl.c, band_table).
const POLL_IN: (i32, u32) = (1, c::POLLIN | c::POLLRDNORM);
const POLL_OUT: (i32, u32) = (2, c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND);
const POLL_PRI: (i32, u32) = (5, c::POLLPRI | c::POLLRDBAND);
const POLL_HUP: (i32, u32) = (6, c::POLLHUP | c::POLLERR);
/// In place of those where the signal's own codes mean something else.
const SI_SIGIO: i32 = -5;
/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGCHLD, SIGSYS.
const OWN_CODES: [i32; 7] = [4, 5, 7, 8, 11, 17, 31];

/// What is registered on the file's queue while O_ASYNC is set.
struct Sender {
    kernel: Weak<Kernel>,
    file: Weak<File>,
    /// The descriptor by which it was set.
    fd: i32,
}

impl Wake for Sender {
    fn wake(&self) {
        self.wake_for(!0);
    }

    fn wake_for(&self, events: u32) {
        let (Some(kernel), Some(file)) = (self.kernel.upgrade(), self.file.upgrade()) else { return };
        // (It has SIGURG of its own: here it is told to those only who have chosen a signal.)
        if events & event::URGENT != 0 && events != !0 && file.signals.signal() != 0 {
            kernel.send_io(&file, self.fd, POLL_PRI);
        }
        if events & event::HANGUP != 0 && events != !0 {
            kernel.send_io(&file, self.fd, POLL_HUP);
        } else if events & c::POLLIN != 0 && file.readable() {
            kernel.send_io(&file, self.fd, POLL_IN);
        } else if events & event::SPACE != 0 && file.writable() {
            kernel.send_io(&file, self.fd, POLL_OUT);
        }
    }
}

/// What is registered on the queue of a socket whose file has an owner: it sends SIGURG, be O_ASYNC set or not.
struct Urgency {
    kernel: Weak<Kernel>,
    file: Weak<File>,
}

impl Wake for Urgency {
    fn wake(&self) {}

    fn wake_for(&self, events: u32) {
        if events == !0 {
            return;
        }
        if let (Some(kernel), Some(file)) = (self.kernel.upgrade(), self.file.upgrade()) {
            kernel.tell(&file.signals.owner(), None, SigInfo::kernel(SIGURG));
        }
    }
}

impl Kernel {
    fn send_io(&self, file: &File, fd: i32, (reason, band): (i32, u32)) {
        let signal = file.signals.signal();
        let code = if OWN_CODES.contains(&signal) { SI_SIGIO } else { reason };
        let info = SigInfo { signo: signal, errno: 0, code, fields: Fields::Poll { band: band.into(), fd } };
        // Where no more of them can be queued SIGIO says so.
        self.tell(&file.signals.owner(), (signal != 0).then_some(info), SigInfo::kernel(SIGIO));
    }

    /// Signals an owner, by the plain one where there is no other or it cannot be queued.
    fn tell(&self, owner: &Owner, info: Option<SigInfo>, plain: SigInfo) {
        let groups = match owner.whom {
            Whom::Thread => {
                if let Some(task) = owner.alive::<Task>().filter(|task| permits(owner, &task.cred()))
                    && info.is_none_or(|info| self.signal_task(&task, info).is_err())
                {
                    let _ = self.signal_task(&task, plain);
                }
                return;
            }
            Whom::Process => owner.alive::<ThreadGroup>().into_iter().collect(),
            Whom::Group => {
                let tree = self.tree.lock();
                tree.process_group(owner.id).map(|node| node.group.clone()).collect::<Vec<_>>()
            }
        };
        for group in groups {
            let Some(task) = group.threads().first().cloned() else { continue };
            if permits(owner, &task.cred())
                && info.is_none_or(|info| self.signal_group(&group, info).is_err())
            {
                let _ = self.signal_group(&group, plain);
            }
        }
    }
}

impl Owner {
    fn alive<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.itself.as_ref()?.upgrade()?.downcast().ok()
    }
}

/// Whether who made it the owner may signal it (fs/fcntl.c, sigio_perm).
fn permits(owner: &Owner, target: &Cred) -> bool {
    let (real, effective) = owner.by;
    let of_target = |id| id == target.uid.real || id == target.uid.saved;
    effective == 0 || of_target(effective) || of_target(real)
}

impl Current {
    /// Makes a thread, process or process group, which the caller calls `id`, the owner of a file's signals; 0 is nobody.
    ///
    /// # Errors
    /// ESRCH.
    pub fn set_io_owner(&self, file: &Arc<File>, whom: Whom, id: i32) -> Result<()> {
        let cred = self.cred();
        let by = (cred.uid.real, cred.uid.effective);
        let id = if id == 0 { 0 } else { self.id_of(id)? };
        let itself: Option<Arc<dyn Any + Send + Sync>> = {
            let tree = self.kernel.tree.lock();
            let task = tree.task(id).cloned();
            match whom {
                _ if id == 0 => None,
                Whom::Group if tree.process_group(id).next().is_some() => None,
                Whom::Group => return Err(Errno::ESRCH),
                Whom::Thread => Some(task.ok_or(Errno::ESRCH)?),
                Whom::Process => match (tree.node(id), task) {
                    (Some(node), _) => Some(node.group.clone()),
                    // A thread that leads no process is found, and gets nothing.
                    (None, Some(_)) => None,
                    (None, None) => return Err(Errno::ESRCH),
                },
            }
        };
        file.signals.set_owner(Owner { whom, id, itself: itself.as_ref().map(Arc::downgrade), by });
        if let Some(queue) = file.ops().wait_queue().filter(|_| file.names_writer()) {
            let urgency = Urgency { kernel: Arc::downgrade(&self.kernel), file: Arc::downgrade(file) };
            file.signals.heed(queue, Waiter::new(Arc::new(urgency), event::URGENT));
        }
        Ok(())
    }

    /// The owner of a file's signals; 0 where it has gone.
    pub fn io_owner(&self, file: &File) -> (Whom, i32) {
        let owner = file.signals.owner();
        let there = match owner.whom {
            Whom::Thread => owner.alive::<Task>().is_some(),
            Whom::Process => owner.alive::<ThreadGroup>().is_some_and(|group| !group.is_dead()),
            Whom::Group => self.kernel.tree.lock().process_group(owner.id).next().is_some(),
        };
        (owner.whom, if there { self.number_of(owner.id) } else { 0 })
    }

    /// Switches the signals of a file on, for `fd`, or off (O_ASYNC).
    ///
    /// # Errors
    /// ENOTTY where they cannot be switched on.
    pub fn drive_by_signals(&self, file: &Arc<File>, fd: i32, on: bool) -> Result<()> {
        if on == (file.flags() & c::FASYNC != 0) {
            return Ok(());
        }
        let queue = file.ops().wait_queue().filter(|_| file.ops().sends_signals()).ok_or(Errno::ENOTTY)?;
        if on {
            let sender = Sender { kernel: Arc::downgrade(&self.kernel), file: Arc::downgrade(file), fd };
            let events = c::POLLIN | event::SPACE | event::HANGUP;
            file.signals.start(queue, Waiter::new(Arc::new(sender), events));
        } else {
            file.signals.stop(queue);
        }
        file.set_flags(file.flags() & !c::FASYNC | if on { c::FASYNC } else { 0 });
        Ok(())
    }
}
