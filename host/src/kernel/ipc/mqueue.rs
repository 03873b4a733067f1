//! POSIX message queues: mq_overview(7). A queue is an inode with a name of its own kind; what is open is a file.
//!
//! Who waits is served by whoever comes: a message goes straight to the receiver that has waited longest, room to the
//! longest waiting sender.

use super::limits::Charge;
use super::mqnames::Names;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, Mm};
use crate::sync::{Lock, Rank, WaitQueue};
use crate::vfs::{FileOps, Inode, Kind, Meta, OpenHow, Path, Stat};
use linux_raw_sys::general as c;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

/// Priorities are below this (MQ_PRIO_MAX).
pub const PRIORITIES: u32 = 32768;
/// What fstat(2) says of any queue.
const FILE_SIZE: u64 = 80;

/// A message.
pub struct Mail {
    /// Higher ones come first.
    pub priority: u32,
    /// What it says.
    pub text: Box<[u8]>,
    pub(super) _charge: Charge,
}

/// Who is told that an empty queue has got a message.
pub(super) struct Notification {
    /// The descriptors of who asked: closing one of them takes it back.
    pub(super) table: u64,
    pub(super) pid: i32,
    /// The program that asked. Another one does not expect a signal.
    pub(super) program: Weak<Mm>,
    /// The signal and its value; `None` tells nobody.
    pub(super) signal: Option<(i32, u64)>,
}

/// Somebody who waits: a receiver for a message to be put here, a sender for it to be taken.
pub(super) struct Sleeper {
    pub(super) mail: Lock<Option<Mail>>,
    pub(super) served: Lock<bool>,
    pub(super) queue: WaitQueue,
}

impl Sleeper {
    pub(super) fn new(mail: Option<Mail>) -> Arc<Self> {
        Arc::new(Sleeper {
            mail: Lock::new(Rank::MqMail, mail),
            served: Lock::new(Rank::MqServed, false),
            queue: WaitQueue::new(),
        })
    }

    fn serve(&self) {
        *self.served.lock() = true;
        self.queue.notify(!0);
    }
}

#[derive(Default)]
pub(super) struct State {
    mail: BTreeMap<u32, VecDeque<Mail>>,
    count: usize,
    bytes: usize,
    pub(super) receivers: VecDeque<Arc<Sleeper>>,
    pub(super) senders: VecDeque<Arc<Sleeper>>,
    pub(super) notify: Option<Notification>,
}

/// A queue.
pub struct MessageQueue {
    meta: Meta,
    /// Most messages.
    pub max_messages: usize,
    /// Most bytes of one.
    pub max_size: usize,
    pub(super) state: Lock<State>,
    ready: WaitQueue,
    /// Gives back what it counts against its user's RLIMIT_MSGQUEUE.
    _counted: super::mqnames::Counted,
    _charge: Charge,
}

impl State {
    fn put(&mut self, mail: Mail) {
        self.count += 1;
        self.bytes += mail.text.len();
        self.mail.entry(mail.priority).or_default().push_back(mail);
    }

    fn take(&mut self) -> Option<Mail> {
        let mut last = self.mail.last_entry()?;
        let mail = last.get_mut().pop_front();
        if last.get().is_empty() {
            last.remove();
        }
        let mail = mail?;
        self.count -= 1;
        self.bytes -= mail.text.len();
        Some(mail)
    }

    /// The one that has waited longest.
    fn next(sleepers: &mut VecDeque<Arc<Sleeper>>) -> Option<Arc<Sleeper>> {
        sleepers.pop_front()
    }
}

impl MessageQueue {
    pub(super) fn new(
        meta: Meta,
        limits: (usize, usize),
        counted: super::mqnames::Counted,
        charge: Charge,
    ) -> Self {
        MessageQueue {
            meta,
            max_messages: limits.0,
            max_size: limits.1,
            state: Lock::new(Rank::MqQueue, State::default()),
            ready: WaitQueue::new(),
            _counted: counted,
            _charge: charge,
        }
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.state.lock().count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends, or gives the message back if there is no room: then with whom to wait, if `wait` says so. `Ok(Some)` is
    /// who has to be told of it.
    pub(super) fn send(
        &self,
        mail: Mail,
        wait: bool,
    ) -> std::result::Result<Option<Notification>, Option<Arc<Sleeper>>> {
        let mut state = self.state.lock();
        if state.count == self.max_messages {
            let sleeper = wait.then(|| Sleeper::new(Some(mail)));
            state.senders.extend(sleeper.clone());
            return Err(sleeper);
        }
        let mut told = None;
        if let Some(receiver) = State::next(&mut state.receivers) {
            *receiver.mail.lock() = Some(mail);
            receiver.serve();
        } else {
            state.put(mail);
            if state.count == 1 {
                told = state.notify.take();
            }
        }
        drop(state);
        self.meta.touch();
        self.ready.notify(c::POLLIN | c::POLLRDNORM);
        Ok(told)
    }

    /// Receives, or says with whom to wait, if `wait` says so.
    pub(super) fn receive(&self, wait: bool) -> std::result::Result<Mail, Option<Arc<Sleeper>>> {
        let mut state = self.state.lock();
        let Some(mail) = state.take() else {
            let sleeper = wait.then(|| Sleeper::new(None));
            state.receivers.extend(sleeper.clone());
            return Err(sleeper);
        };
        if let Some(sender) = State::next(&mut state.senders) {
            if let Some(next) = sender.mail.lock().take() {
                state.put(next);
            }
            sender.serve();
        }
        drop(state);
        self.meta.touch();
        self.ready.notify(c::POLLOUT | c::POLLWRNORM);
        Ok(mail)
    }

    /// Somebody gives up waiting.
    pub(super) fn leave(&self, sleeper: &Arc<Sleeper>) {
        let mut state = self.state.lock();
        state.receivers.retain(|other| !Arc::ptr_eq(other, sleeper));
        state.senders.retain(|other| !Arc::ptr_eq(other, sleeper));
    }

    /// Notes a change of what it notifies, or of its flags.
    pub(super) fn touched(&self) {
        self.meta.changed();
    }
}

impl Inode for MessageQueue {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn stat(&self) -> Stat {
        Stat { size: FILE_SIZE, ..self.meta.stat() }
    }
    fn open(self: Arc<Self>, _path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(OpenQueue(self)))
    }
    fn can_setattr(&self) -> Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open queue.
pub struct OpenQueue(pub Arc<MessageQueue>);

impl FileOps for OpenQueue {
    fn positioned(&self) -> bool {
        true
    }
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        let state = self.0.state.lock();
        let (pid, signal) = match &state.notify {
            Some(notify) => (notify.pid, notify.signal),
            None => (0, None),
        };
        // SIGEV_NONE is 1.
        let kind = i32::from(state.notify.is_some() && signal.is_none());
        let text = format!(
            "QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{:<5} NOTIFY_PID:{pid:<6}\n",
            state.bytes,
            signal.map_or(0, |(signo, _)| signo)
        );
        drop(state);
        let from = usize::try_from(offset.unwrap_or(0)).unwrap_or(usize::MAX);
        dst.write_bytes(text.as_bytes().get(from..).unwrap_or_default())
    }
    fn seek(&self, pos: u64, offset: i64, whence: crate::vfs::Whence) -> Result<u64> {
        use crate::vfs::Whence;
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => pos as i64,
            Whence::End => FILE_SIZE as i64,
            Whence::Data | Whence::Hole => return Err(Errno::EINVAL),
        };
        base.checked_add(offset).and_then(|n| u64::try_from(n).ok()).ok_or(Errno::EINVAL)
    }
    fn poll(&self) -> u32 {
        let count = self.0.len();
        let mut events = 0;
        if count > 0 {
            events |= c::POLLIN | c::POLLRDNORM;
        }
        if count < self.0.max_messages {
            events |= c::POLLOUT | c::POLLWRNORM;
        }
        events
    }
    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.ready)
    }
    fn closed_by(&self, table: u64) {
        let mut state = self.0.state.lock();
        state.notify.take_if(|notify| notify.table == table);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl super::IpcNamespace {
    /// The names of its POSIX queues.
    pub(super) fn mq(&self) -> &Arc<Names> {
        &self.mqueues
    }
}

/// A regular file's attributes for a new queue.
pub(super) fn meta(ino: u64, perm: u32, uid: u32, gid: u32) -> Meta {
    Meta::new(Kind::File, ino, perm).owned(uid, gid)
}
