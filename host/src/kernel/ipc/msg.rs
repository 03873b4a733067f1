//! System V message queues: msgop(2).

use super::ids::{Object, Wanted, get};
use super::limits::Charge;
use super::perm::Perm;
use super::{IpcNamespace, now};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::kernel::Current;
use crate::sync::{Lock, Rank, WaitQueue};
use std::collections::VecDeque;
use std::sync::Arc;

/// A queue.
pub struct Queue {
    state: Lock<State>,
    /// Notified when a message may fit that did not.
    room: WaitQueue,
}

struct State {
    perm: Perm,
    stime: i64,
    rtime: i64,
    ctime: i64,
    bytes: u64,
    max_bytes: u64,
    sender: i32,
    receiver: i32,
    messages: VecDeque<Message>,
    /// Oldest first.
    receivers: Vec<Arc<Receiver>>,
    removed: bool,
    _charge: Charge,
}

/// A message.
pub struct Message {
    /// Its type, positive.
    pub kind: i64,
    /// What it says.
    pub text: Box<[u8]>,
    _charge: Charge,
}

/// Which message is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first.
    Any,
    /// The first of this type.
    Of(i64),
    /// The first of any other type.
    Except(i64),
    /// The first of the lowest type up to this one.
    UpTo(i64),
    /// The one at this place, which stays where it is (MSG_COPY).
    Copy(i64),
}

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Which message.
    pub which: Which,
    /// Room for its text.
    pub room: usize,
    /// What does not fit is cut off.
    pub cut: bool,
    /// Whether to wait for one.
    pub wait: bool,
}

struct Receiver {
    how: How,
    pid: i32,
    outcome: Lock<Option<Result<Message>>>,
    queue: WaitQueue,
}

impl Receiver {
    fn end(&self, outcome: Result<Message>) {
        *self.outcome.lock() = Some(outcome);
        self.queue.notify(!0);
    }
}

/// What msgctl(2) and `/proc/sysvipc/msg` say of a queue.
pub struct Status {
    /// Owner and permissions.
    pub perm: Perm,
    /// When a message was sent last.
    pub stime: i64,
    /// When one was received last.
    pub rtime: i64,
    /// When it was changed last.
    pub ctime: i64,
    /// Bytes of its messages.
    pub bytes: u64,
    /// Most of these.
    pub max_bytes: u64,
    /// Messages.
    pub messages: u64,
    /// Who sent last.
    pub sender: i32,
    /// Who received last.
    pub receiver: i32,
}

impl Object for Queue {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
    fn set_id(&self, id: i32) {
        self.state.lock().perm.id = id;
    }
}

impl Which {
    fn takes(self, kind: i64) -> bool {
        match self {
            Which::Any => true,
            Which::Of(wanted) => kind == wanted,
            Which::Except(wanted) => kind != wanted,
            Which::UpTo(most) => kind <= most,
            Which::Copy(_) => false,
        }
    }
}

impl State {
    fn fits(&self, len: usize) -> bool {
        self.bytes + len as u64 <= self.max_bytes && (self.messages.len() as u64) < self.max_bytes
    }

    fn find(&self, which: Which) -> Option<usize> {
        let kinds = || self.messages.iter().map(|message| message.kind).enumerate();
        match which {
            Which::Copy(place) => usize::try_from(place).ok().filter(|at| *at < self.messages.len()),
            // The first of those that are lowest.
            Which::UpTo(_) => {
                kinds().filter(|(_, kind)| which.takes(*kind)).min_by_key(|(_, kind)| *kind).map(|(at, _)| at)
            }
            _ => kinds().find(|(_, kind)| which.takes(*kind)).map(|(at, _)| at),
        }
    }

    /// Hands a message to whoever waits for it, or keeps it.
    fn send(&mut self, message: Message, pid: i32) {
        (self.sender, self.stime) = (pid, now());
        while let Some(at) = self.receivers.iter().position(|other| other.how.which.takes(message.kind)) {
            let receiver = self.receivers.remove(at);
            if message.text.len() <= receiver.how.room || receiver.how.cut {
                (self.receiver, self.rtime) = (receiver.pid, now());
                return receiver.end(Ok(message));
            }
            receiver.end(Err(Errno::E2BIG));
        }
        self.bytes += message.text.len() as u64;
        self.messages.push_back(message);
    }

    /// Takes a message out, if there is one.
    fn receive(&mut self, how: &How, pid: i32, ipc: &IpcNamespace) -> Result<Message> {
        let at = self.find(how.which).ok_or(Errno::ENOMSG)?;
        let found = &self.messages[at];
        if how.room < found.text.len() && !how.cut {
            return Err(Errno::E2BIG);
        }
        if let Which::Copy(_) = how.which {
            if how.room < found.text.len() {
                return Err(Errno::EINVAL);
            }
            let (kind, text) = (found.kind, found.text.clone());
            return ipc.message(kind, text);
        }
        let message = self.messages.remove(at).ok_or(Errno::ENOMSG)?;
        self.bytes -= message.text.len() as u64;
        (self.receiver, self.rtime) = (pid, now());
        Ok(message)
    }

    /// Has all receivers look again, or hear that there is nothing to look at.
    fn dismiss(&mut self, errno: Errno) {
        for receiver in std::mem::take(&mut self.receivers) {
            receiver.end(Err(errno));
        }
    }
}

impl Queue {
    fn status(&self) -> Status {
        let state = self.state.lock();
        Status {
            perm: state.perm,
            stime: state.stime,
            rtime: state.rtime,
            ctime: state.ctime,
            bytes: state.bytes,
            max_bytes: state.max_bytes,
            messages: state.messages.len() as u64,
            sender: state.sender,
            receiver: state.receiver,
        }
    }

    /// Sends, if there is room: the message comes back where there is none.
    fn try_send(&self, message: Message, cred: &Cred, pid: i32) -> Result<Option<Message>> {
        let mut state = self.state.lock();
        state.perm.allow(cred, 0o222)?;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        if !state.fits(message.text.len()) {
            return Ok(Some(message));
        }
        state.send(message, pid);
        Ok(None)
    }
}

impl IpcNamespace {
    /// msgget(2): an id.
    ///
    /// # Errors
    /// Its own.
    pub fn queue(&self, key: i32, flags: u32, cred: &Cred) -> Result<i32> {
        let limits = *self.limits.lock();
        let want = Wanted { key, flags, cred, limit: limits.msgmni };
        get(
            &self.msg,
            &want,
            |_| Ok(()),
            |_, perm| {
                let state = State {
                    perm,
                    stime: 0,
                    rtime: 0,
                    ctime: now(),
                    bytes: 0,
                    max_bytes: limits.msgmnb.into(),
                    sender: 0,
                    receiver: 0,
                    messages: VecDeque::new(),
                    receivers: Vec::new(),
                    removed: false,
                    _charge: self.budget.charge(size_of::<Queue>())?,
                };
                Ok(Queue { state: Lock::new(Rank::MsgQueue, state), room: WaitQueue::new() })
            },
        )
    }

    /// A message, to be sent.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn message(&self, kind: i64, text: Box<[u8]>) -> Result<Message> {
        let charge = self.budget.charge(size_of::<Message>() + text.len())?;
        Ok(Message { kind, text, _charge: charge })
    }

    /// IPC_STAT, MSG_STAT, MSG_STAT_ANY.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn queue_status(&self, id: i32, by_index: bool, cred: Option<&Cred>) -> Result<Status> {
        let queues = self.msg.lock();
        let queue = if by_index { queues.at(id)? } else { queues.get(id)? };
        drop(queues);
        if let Some(cred) = cred {
            queue.perm().allow(cred, 0o444)?;
        }
        Ok(queue.status())
    }

    /// All queues, by index.
    pub fn queues(&self) -> Vec<Status> {
        self.msg.lock().iter().map(|queue| queue.status()).collect()
    }

    /// The highest index in use.
    pub fn highest_queue(&self) -> u64 {
        self.msg.lock().highest()
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set_queue(&self, id: i32, owner: (u32, u32), mode: u32, max: u64, cred: &Cred) -> Result<()> {
        let queue = self.msg.lock().get(id)?;
        let limit: u64 = self.limits.lock().msgmnb.into();
        let mut state = queue.state.lock();
        state.perm.may_control(cred)?;
        if max > limit && !cred.has(Caps::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        state.perm.update(owner.0, owner.1, mode)?;
        state.max_bytes = max;
        state.ctime = now();
        // Who waits may have lost the permission to; who had no room may have it.
        state.dismiss(Errno::EAGAIN);
        drop(state);
        queue.room.notify(!0);
        Ok(())
    }

    /// IPC_RMID.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove_queue(&self, id: i32, cred: &Cred) -> Result<()> {
        let mut queues = self.msg.lock();
        let queue = queues.get(id)?;
        let mut state = queue.state.lock();
        state.perm.may_control(cred)?;
        queues.remove(&state.perm);
        drop(queues);
        state.removed = true;
        state.dismiss(Errno::EIDRM);
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        drop(messages);
        queue.room.notify(!0);
        Ok(())
    }
}

impl Current {
    /// msgsnd(2).
    ///
    /// # Errors
    /// Its own; ERESTARTNOHAND on a signal.
    pub fn send_message(&mut self, id: i32, message: Message, wait: bool) -> Result<()> {
        let queue = self.task.ipc().msg.lock().get(id)?;
        let (cred, pid) = (self.cred(), self.task.tgid());
        let Some(message) = queue.try_send(message, &cred, pid)? else { return Ok(()) };
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let mut unsent = Some(message);
        let mut ready = || {
            unsent = match queue.try_send(unsent.take()?, &cred, pid) {
                Ok(message) => message,
                Err(errno) => return Some(Err(errno)),
            };
            unsent.is_none().then_some(Ok(()))
        };
        self.wait_on(&[(&queue.room, !0)], None, &mut ready).map_err(|_| Errno::ERESTARTNOHAND)?
    }

    /// msgrcv(2).
    ///
    /// # Errors
    /// Its own; ERESTARTNOHAND on a signal.
    pub fn receive_message(&mut self, id: i32, how: How) -> Result<Message> {
        let ipc = self.task.ipc();
        let queue = ipc.msg.lock().get(id)?;
        let (cred, pid) = (self.cred(), self.task.tgid());
        loop {
            let mut state = queue.state.lock();
            state.perm.allow(&cred, 0o444)?;
            if state.removed {
                return Err(Errno::EIDRM);
            }
            match state.receive(&how, pid, &ipc) {
                Err(Errno::ENOMSG) if how.wait => {}
                outcome => {
                    drop(state);
                    queue.room.notify(!0);
                    return outcome;
                }
            }
            let (outcome, waiting) = (Lock::new(Rank::MsgOutcome, None), WaitQueue::new());
            let receiver = Arc::new(Receiver { how, pid, outcome, queue: waiting });
            state.receivers.push(receiver.clone());
            drop(state);
            let queues = [(&receiver.queue, !0)];
            let ended = self.wait_on(&queues, None, &mut || receiver.outcome.lock().take());
            match ended {
                // The queue was changed.
                Ok(Err(Errno::EAGAIN)) => {}
                Ok(outcome) => return outcome,
                Err(_) => {
                    let mut state = queue.state.lock();
                    state.receivers.retain(|other| !Arc::ptr_eq(other, &receiver));
                    drop(state);
                    // It may have come at the last moment.
                    let outcome = receiver.outcome.lock().take();
                    return outcome.unwrap_or(Err(Errno::ERESTARTNOHAND));
                }
            }
        }
    }
}
