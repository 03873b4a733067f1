//! The names of POSIX message queues, and the calls on them.

use super::mqueue::{self, Mail, MessageQueue, Notification, OpenQueue, PRIORITIES, Sleeper};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::kernel::signal::{Fields, SigInfo};
use crate::kernel::{Current, limits};
use crate::sync::{Lock, Rank};
use crate::vfs::{Dentry, File, Inode, Mount, MountFlags, Path, Superblock, Want, makedev, may, sticky};
use linux_raw_sys::general as c;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAGIC: u64 = 0x1980_0202;
const NAME_MAX: usize = 255;
/// `si_code` of a notification.
const SI_MESGQ: i32 = -3;
/// What even CAP_SYS_RESOURCE cannot exceed: messages, and bytes of one.
const HARD_MESSAGES: u64 = 65536;
const HARD_SIZE: u64 = 16 << 20;
/// What Linux counts for a message, and for each priority in use, beside the text.
const PER_MESSAGE: u64 = 48;
const PER_PRIORITY: u64 = 48;

/// `/proc/sys/fs/mqueue`.
#[derive(Clone, Copy, Debug)]
pub struct MqLimits {
    /// Queues.
    pub queues: u32,
    /// Messages of a queue.
    pub messages: u32,
    /// Bytes of a message.
    pub size: u32,
    /// Messages of a queue whose maker does not say.
    pub default_messages: u32,
    /// Bytes of its messages.
    pub default_size: u32,
}

impl Default for MqLimits {
    fn default() -> Self {
        MqLimits { queues: 256, messages: 10, size: 8192, default_messages: 10, default_size: 8192 }
    }
}

/// All queues of a namespace.
pub struct Names {
    queues: Lock<BTreeMap<Vec<u8>, Arc<Dentry>>>,
    /// Bytes that users' queues count as (RLIMIT_MSGQUEUE).
    counts: Arc<Lock<BTreeMap<u32, u64>>>,
    root: Arc<Dentry>,
    mount: Arc<Mount>,
    next_ino: Lock<u64>,
    /// What may be changed below `/proc/sys/fs/mqueue`.
    pub(super) limits: Lock<MqLimits>,
}

/// A queue's part of what its user's queues count as.
pub(super) struct Counted {
    counts: Arc<Lock<BTreeMap<u32, u64>>>,
    user: u32,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= self.bytes;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

/// How a queue is opened: mq_open(3).
pub struct Opening<'a> {
    /// Without the slash.
    pub name: &'a [u8],
    /// As open(2).
    pub flags: u32,
    /// Permissions of a new one, the umask applied.
    pub perm: u32,
    /// Messages and bytes of each, if given.
    pub size: Option<(i64, i64)>,
    /// RLIMIT_MSGQUEUE.
    pub limit: u64,
}

impl Names {
    pub(super) fn new() -> Arc<Self> {
        let sb = Superblock::new(makedev(0, 20), "mqueue", MAGIC);
        let root = Dentry::root(&sb, Arc::new(Directory(mqueue_root())), b"/");
        let mount = Mount::new(0, root.clone(), "mqueue", MountFlags::empty());
        Arc::new(Names {
            queues: Lock::new(Rank::MqNames, BTreeMap::new()),
            counts: Arc::new(Lock::new(Rank::MqCounts, BTreeMap::new())),
            root,
            mount,
            next_ino: Lock::new(Rank::MqInodes, 2),
            limits: Lock::new(Rank::MqLimits, MqLimits::default()),
        })
    }

    fn check(name: &[u8]) -> Result<()> {
        match name {
            [] => Err(Errno::ENOENT),
            b"." | b".." => Err(Errno::EACCES),
            _ if name.contains(&b'/') => Err(Errno::EACCES),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ => Ok(()),
        }
    }

    /// Counts a new queue against its user's limit.
    fn count(&self, user: u32, (messages, size): (u64, u64), limit: u64) -> Result<Counted> {
        let text = messages.checked_mul(size).ok_or(Errno::EOVERFLOW)?;
        let frame = messages * PER_MESSAGE + messages.min(PRIORITIES.into()) * PER_PRIORITY;
        let bytes = text.checked_add(frame).ok_or(Errno::EOVERFLOW)?;
        let mut counts = self.counts.lock();
        let count = counts.entry(user).or_default();
        match count.checked_add(bytes).filter(|sum| *sum <= limit) {
            Some(sum) => *count = sum,
            None => return Err(Errno::EMFILE),
        }
        drop(counts);
        Ok(Counted { counts: self.counts.clone(), user, bytes })
    }

    fn make(&self, how: &Opening<'_>, cred: &Cred, budget: &Arc<super::Budget>) -> Result<MessageQueue> {
        let limits = *self.limits.lock();
        let (messages, size) = match how.size {
            Some((messages, size)) => (messages, size),
            None => (
                limits.default_messages.min(limits.messages).into(),
                limits.default_size.min(limits.size).into(),
            ),
        };
        let most = if cred.has(Caps::SYS_RESOURCE) {
            (HARD_MESSAGES, HARD_SIZE)
        } else {
            (limits.messages.into(), limits.size.into())
        };
        if messages <= 0 || size <= 0 || messages as u64 > most.0 || size as u64 > most.1 {
            return Err(Errno::EINVAL);
        }
        let counted = self.count(cred.uid.real, (messages as u64, size as u64), how.limit)?;
        let ino = {
            let mut next = self.next_ino.lock();
            *next += 1;
            *next
        };
        let meta = mqueue::meta(ino, how.perm & 0o7777, cred.uid.fs, cred.gid.fs);
        let charge = budget.charge(size_of::<MessageQueue>() + how.name.len())?;
        Ok(MessageQueue::new(meta, (messages as usize, size as usize), counted, charge))
    }
}

/// The directory that names are in, as far as permissions ask for it.
struct Directory(crate::vfs::Meta);

fn mqueue_root() -> crate::vfs::Meta {
    crate::vfs::Meta::new(crate::vfs::Kind::Dir, 1, 0o1777)
}

impl Inode for Directory {
    fn meta(&self) -> &crate::vfs::Meta {
        &self.0
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl super::IpcNamespace {
    /// mq_open(3): an open queue.
    ///
    /// # Errors
    /// Its own.
    pub fn open_mqueue(&self, how: &Opening<'_>, cred: &Cred) -> Result<Arc<File>> {
        Names::check(how.name)?;
        let names = self.mq();
        let mut queues = names.queues.lock();
        let access = how.flags & c::O_ACCMODE;
        let dentry = match queues.get(how.name) {
            Some(dentry) => {
                if how.flags & c::O_CREAT != 0 && how.flags & c::O_EXCL != 0 {
                    return Err(Errno::EEXIST);
                }
                let want = match access {
                    c::O_RDONLY => Want::READ,
                    c::O_WRONLY => Want::WRITE,
                    c::O_RDWR => Want::READ | Want::WRITE,
                    _ => return Err(Errno::EINVAL),
                };
                may(cred, dentry.inode.meta(), want)?;
                dentry.clone()
            }
            None if how.flags & c::O_CREAT == 0 => return Err(Errno::ENOENT),
            None => {
                let most = names.limits.lock().queues as usize;
                if queues.len() >= most && !cred.has(Caps::SYS_RESOURCE) {
                    return Err(Errno::ENOSPC);
                }
                let queue = Arc::new(names.make(how, cred, &self.budget)?);
                let dentry = Dentry::below(&names.root, how.name, queue);
                queues.insert(how.name.to_vec(), dentry.clone());
                dentry
            }
        };
        drop(queues);
        let path = Path { mount: names.mount.clone(), dentry };
        let ops = path.dentry.inode.clone().open(&path, &crate::vfs::OpenHow::default())?;
        Ok(File::new(ops, how.flags & (c::O_ACCMODE | c::O_NONBLOCK), path))
    }

    /// mq_unlink(3).
    ///
    /// # Errors
    /// ENOENT, EPERM.
    pub fn unlink_mqueue(&self, name: &[u8], cred: &Cred) -> Result<()> {
        Names::check(name)?;
        let names = self.mq();
        let mut queues = names.queues.lock();
        let dentry = queues.get(name).ok_or(Errno::ENOENT)?;
        sticky(cred, names.root.inode.meta(), dentry.inode.meta())?;
        let gone = queues.remove(name);
        drop(queues);
        if let Some(dentry) = &gone {
            dentry.inode.meta().nlink.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            dentry.mark_dead();
        }
        Ok(())
    }

    /// What may be changed below `/proc/sys/fs/mqueue`.
    pub fn mqueue_limits(&self) -> &Lock<MqLimits> {
        &self.mq().limits
    }
}

impl Current {
    /// The queue that a descriptor stands for, if it is open for `want`.
    ///
    /// # Errors
    /// EBADF.
    fn mqueue(&self, fd: i32, want: fn(&File) -> bool) -> Result<(Arc<MessageQueue>, Arc<File>)> {
        let file = self.file(fd)?;
        let queue = file.downcast::<OpenQueue>().ok_or(Errno::EBADF)?.0.clone();
        if want(&file) { Ok((queue, file)) } else { Err(Errno::EBADF) }
    }

    /// mq_timedsend(3): the text is read by `text`, given the queue's largest.
    ///
    /// # Errors
    /// Its own.
    pub fn send_mail(
        &mut self,
        fd: i32,
        priority: u32,
        addr: (u64, usize),
        deadline: Option<u64>,
    ) -> Result<()> {
        let (queue, file) = self.mqueue(fd, File::writable)?;
        if addr.1 > queue.max_size {
            return Err(Errno::EMSGSIZE);
        }
        let text: Vec<u8> = self.mm().read_vec(addr.0, addr.1)?;
        let charge = self.task.ipc().budget.charge(size_of::<Mail>() + text.len())?;
        let mail = Mail { priority, text: text.into(), _charge: charge };
        match queue.send(mail, !file.nonblocking()) {
            Ok(told) => {
                if let Some(told) = told {
                    self.notify_of_mail(&told);
                }
                Ok(())
            }
            Err(None) => Err(Errno::EAGAIN),
            Err(Some(sleeper)) => self.await_service(&queue, &sleeper, deadline),
        }
    }

    /// mq_timedreceive(3), with a buffer of `room` bytes.
    ///
    /// # Errors
    /// Its own.
    pub fn receive_mail(&mut self, fd: i32, room: usize, deadline: Option<u64>) -> Result<Mail> {
        let (queue, file) = self.mqueue(fd, File::readable)?;
        if room < queue.max_size {
            return Err(Errno::EMSGSIZE);
        }
        match queue.receive(!file.nonblocking()) {
            Ok(mail) => Ok(mail),
            Err(None) => Err(Errno::EAGAIN),
            Err(Some(sleeper)) => {
                self.await_service(&queue, &sleeper, deadline)?;
                let mail = sleeper.mail.lock().take();
                mail.ok_or(Errno::EAGAIN)
            }
        }
    }

    fn await_service(
        &mut self,
        queue: &MessageQueue,
        sleeper: &Arc<Sleeper>,
        until: Option<u64>,
    ) -> Result<()> {
        let served = &mut || sleeper.served.lock().then_some(());
        let ended = self.wait_on(&[(&sleeper.queue, !0)], until, served);
        if ended.is_err() {
            queue.leave(sleeper);
            // It may have come at the last moment.
            if *sleeper.served.lock() {
                return Ok(());
            }
        }
        ended
    }

    fn notify_of_mail(&self, told: &Notification) {
        let Some((signo, value)) = told.signal.filter(|(signo, _)| *signo != 0) else { return };
        let group = self.kernel.tree.lock().node(told.pid).map(|node| node.group.clone());
        let Some(group) = group else { return };
        let same = |task: &Arc<crate::kernel::Task>| {
            task.mm().is_some_and(|mm| told.program.as_ptr() == Arc::as_ptr(&mm))
        };
        if !group.threads().first().is_some_and(same) {
            return;
        }
        let fields = Fields::Queue { pid: self.task.tgid(), uid: self.cred().uid.real, value };
        let _ = self.kernel.signal_group(&group, SigInfo { signo, errno: 0, code: SI_MESGQ, fields });
    }

    /// mq_notify(3): a signal and its value, nothing at all (`Some(None)`), or no notification any more.
    ///
    /// # Errors
    /// EBADF, EBUSY.
    pub fn notify_on_mail(&mut self, fd: i32, signal: Option<Option<(i32, u64)>>) -> Result<()> {
        let (queue, _) = self.mqueue(fd, |_| true)?;
        let pid = self.task.tgid();
        let mut state = queue.state.lock();
        match signal {
            None => {
                state.notify.take_if(|notify| notify.pid == pid);
            }
            Some(_) if state.notify.is_some() => return Err(Errno::EBUSY),
            Some(signal) => {
                let fds = self.fds();
                fds.note_lock();
                let program = Arc::downgrade(self.mm());
                state.notify = Some(Notification { table: fds.lock_owner(), pid, program, signal });
            }
        }
        drop(state);
        queue.touched();
        Ok(())
    }

    /// mq_getattr(3) and mq_setattr(3): flags, most messages, most bytes of one and messages, as they were.
    ///
    /// # Errors
    /// EBADF.
    pub fn mqueue_attributes(&self, fd: i32, nonblocking: Option<bool>) -> Result<[i64; 4]> {
        let (queue, file) = self.mqueue(fd, |_| true)?;
        let flags = file.flags();
        let shown = i64::from(flags & c::O_NONBLOCK);
        let old = [shown, queue.max_messages as i64, queue.max_size as i64, queue.len() as i64];
        if let Some(on) = nonblocking {
            file.set_flags(if on { flags | c::O_NONBLOCK } else { flags & !c::O_NONBLOCK });
            queue.touched();
        }
        Ok(old)
    }

    /// RLIMIT_MSGQUEUE.
    pub fn mqueue_limit(&self) -> u64 {
        self.limit(limits::MSGQUEUE)
    }
}
