//! The caller's own descriptors, passed through: standard input, output and error, unless they are terminals
//! ([`super::hostterm`]).
//!
//! They are shared with whoever started the sandbox: nothing about them is changed (no O_NONBLOCK), and regular files
//! are read at their own offset. What could block is asked first with poll(2); if it would, the poller is told to
//! watch the descriptor and the call waits on [`HostFile`]'s queue like on any other. Whoever else uses the pipe may be
//! faster than we are after that question, and no worker may wait for him: pipes are opened once more, with O_NONBLOCK for
//! us alone, and where that cannot be, the host is asked for one call at a time not to block (RWF_NOWAIT).
//!
//! What was opened for appending is for appending only, as a file with the attribute `a` (chattr(1)): it is a log, as a rule,
//! and what is in it is not the sandbox's. Not even to be cut off, which the host would allow.

use super::hostio;
use crate::abi::{Errno, Result};
use crate::hostfd::{self, HostFd, What};
use crate::hostsys::file;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{HostLines, Rank, WaitQueue};
use crate::vfs::{File, FileOps, Ioctl, Kind, LockSlot, OpenHow, Stat, Timestamp, Whence, makedev};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Asks the poller to notify a queue once when one of the events holds on a host descriptor.
pub type Watch = Box<dyn Fn(i32, u32, &Arc<WaitQueue>) + Send + Sync>;

/// Bytes written to a pipe that poll(2) calls writable without a risk of blocking (PIPE_BUF).
const SAFE_WRITE: usize = 4096;

/// Opens a pipe once more so that it does not block; None where its owner or the host does not allow that, or nobody has
/// the other end any more.
fn twin(fd: &HostFd) -> Option<HostFd> {
    let flags = file::fcntl(fd.raw(), libc::F_GETFL, 0).ok()? as i32 & libc::O_ACCMODE;
    hostfd::files().open_again(fd, flags | libc::O_NONBLOCK).ok()
}

/// What the host calls a descriptor.
fn name(fd: i32) -> String {
    match file::readlinkat(libc::AT_FDCWD, format!("/proc/self/fd/{fd}").as_bytes()) {
        Ok(name) => String::from_utf8_lossy(&name).into_owned(),
        Err(_) => format!("host:[{fd}]"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Never blocks.
    Regular,
    /// Pipes, sockets, other devices.
    Stream,
}

fn sort_of(stat: &libc::statx) -> Sort {
    match Kind::from_mode(stat.stx_mode.into()) {
        Some(Kind::File | Kind::Dir | Kind::Block) => Sort::Regular,
        _ => Sort::Stream,
    }
}

/// A host descriptor that programs read and write.
pub struct HostFile {
    fd: HostFd,
    sort: Sort,
    queue: Arc<WaitQueue>,
    watch: Watch,
    /// The ways to make host calls that may hang all the same.
    lines: Arc<HostLines>,
    /// A pipe once more, which does not block.
    twin: Option<HostFd>,
    /// The host can refuse to block by itself (RWF_NOWAIT).
    nowait: AtomicBool,
    /// Those of the sandbox. The host's own are of no concern in here.
    locks: LockSlot,
    /// What the host calls it: `pipe:[5]`, the name of a file.
    name: String,
}

impl HostFile {
    /// Passes `fd` through; `lines` are told of host calls.
    ///
    /// # Errors
    /// EBADF if it is not open.
    pub fn new(fd: i32, watch: Watch, lines: Arc<HostLines>) -> Result<Arc<HostFile>> {
        let stat = file::statx(fd, b"", libc::AT_EMPTY_PATH)?;
        let fd = HostFd::lent(fd, What::Given("the caller"))?;
        Ok(Arc::new(HostFile {
            sort: sort_of(&stat),
            queue: Arc::default(),
            watch,
            lines,
            twin: (Kind::from_mode(stat.stx_mode.into()) == Some(Kind::Fifo)).then(|| twin(&fd)).flatten(),
            nowait: AtomicBool::new(true),
            locks: LockSlot::new(Rank::FileLockSlot, None),
            name: name(fd.raw()),
            fd,
        }))
    }

    /// Passes a descriptor through that somebody has sent: it is closed with the last of what is open for it. The host is
    /// not asked for its name any more.
    ///
    /// # Errors
    /// EBADF if it is not open.
    pub fn received(own: HostFd, watch: Watch, lines: Arc<HostLines>) -> Result<Arc<HostFile>> {
        let stat = file::statx(own.raw(), b"", libc::AT_EMPTY_PATH)?;
        let name = match Kind::from_mode(stat.stx_mode.into()) {
            Some(Kind::Fifo) => format!("pipe:[{}]", stat.stx_ino),
            Some(Kind::Socket) => format!("socket:[{}]", stat.stx_ino),
            _ => format!("host:[{}]", stat.stx_ino),
        };
        Ok(Arc::new(HostFile {
            fd: own,
            sort: sort_of(&stat),
            queue: Arc::default(),
            watch,
            lines,
            twin: None,
            nowait: AtomicBool::new(true),
            locks: LockSlot::new(Rank::FileLockSlot, None),
            name,
        }))
    }

    /// An open file description for it, with the access mode it has in the host.
    pub fn open(self: &Arc<Self>) -> Arc<File> {
        let flags = file::fcntl(self.fd.raw(), libc::F_GETFL, 0).unwrap_or(u64::from(c::O_RDWR)) as u32;
        // O_NONBLOCK of the host's description is not the program's: without it, it waits.
        File::anon(self.clone(), flags & (c::O_ACCMODE | c::O_APPEND))
    }

    fn at(&self, fd: i32) -> hostio::At<'_> {
        hostio::At { fd, line: &self.lines.given }
    }

    /// Whether it was opened for appending.
    fn appends(&self) -> bool {
        self.sort == Sort::Regular
            && file::fcntl(self.fd.raw(), libc::F_GETFL, 0).is_ok_and(|flags| flags as u32 & c::O_APPEND != 0)
    }

    /// Has `call` made with a descriptor and flags that keep it from blocking; None where there are none.
    fn without_blocking(
        &self,
        events: u32,
        call: impl FnOnce(i32, i32) -> Result<usize>,
    ) -> Option<Result<usize>> {
        let result = match &self.twin {
            Some(twin) => call(twin.raw(), 0),
            None if self.nowait.load(Relaxed) => call(self.fd.raw(), libc::RWF_NOWAIT),
            None => return None,
        };
        match result {
            Err(Errno::EOPNOTSUPP) if self.twin.is_none() => {
                self.nowait.store(false, Relaxed);
                return None;
            }
            Err(Errno::EAGAIN) => (self.watch)(self.fd.raw(), events, &self.queue),
            _ => {}
        }
        Some(result)
    }

    /// Fails with EAGAIN if one of `events` does not hold, having asked to be told when one does.
    fn wait_for(&self, events: u32) -> Result<()> {
        if self.sort == Sort::Regular {
            return Ok(());
        }
        let errors = c::POLLHUP | c::POLLERR | c::POLLNVAL;
        let holds = file::poll_now(self.fd.raw(), (c::POLLIN | c::POLLOUT) as i16) as u32;
        if holds & (events | errors) != 0 {
            return Ok(());
        }
        // All that is missing: a watch replaces the one before, which somebody else may be waiting for.
        (self.watch)(self.fd.raw(), (c::POLLIN | c::POLLOUT) & !holds, &self.queue);
        Err(Errno::EAGAIN)
    }
}

impl FileOps for HostFile {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() && self.sort != Sort::Regular {
            return Err(Errno::ESPIPE);
        }
        if dst.remaining() == 0 {
            return Ok(0);
        }
        self.wait_for(c::POLLIN)?;
        let quick = |fd, flags| hostio::read(self.at(fd), dst, usize::MAX, None, flags);
        if self.sort == Sort::Stream
            && let Some(result) = self.without_blocking(c::POLLIN, quick)
        {
            return result;
        }
        hostio::read(self.at(self.fd.raw()), dst, usize::MAX, offset, 0)
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() && self.sort != Sort::Regular {
            return Err(Errno::ESPIPE);
        }
        if src.remaining() == 0 {
            return Ok(0);
        }
        self.wait_for(c::POLLOUT)?;
        if self.sort != Sort::Stream {
            return hostio::write(self.at(self.fd.raw()), src, usize::MAX, offset, 0);
        }
        let quick = |fd, flags| hostio::write(self.at(fd), src, usize::MAX, None, flags);
        if let Some(result) = self.without_blocking(c::POLLOUT, quick) {
            return result;
        }
        hostio::write(self.at(self.fd.raw()), src, SAFE_WRITE, offset, 0)
    }

    fn poll(&self) -> u32 {
        if self.sort == Sort::Regular {
            return c::POLLIN | c::POLLOUT | c::POLLRDNORM | c::POLLWRNORM;
        }
        let events = c::POLLIN | c::POLLOUT | c::POLLPRI | c::POLLRDNORM | c::POLLWRNORM | c::POLLRDHUP;
        let holds = file::poll_now(self.fd.raw(), events as i16) as u32;
        let missing = (c::POLLIN | c::POLLOUT) & !holds;
        if missing != 0 && holds & (c::POLLHUP | c::POLLERR) == 0 {
            (self.watch)(self.fd.raw(), missing, &self.queue);
        }
        holds
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        (self.sort != Sort::Regular).then_some(&*self.queue)
    }

    fn stat(&self) -> Option<Stat> {
        let raw = self.lines.given.call(|| file::statx(self.fd.raw(), b"", libc::AT_EMPTY_PATH)).ok()?;
        let time = |t: libc::statx_timestamp| Timestamp { sec: t.tv_sec, nsec: t.tv_nsec };
        Some(Stat {
            dev: makedev(raw.stx_dev_major, raw.stx_dev_minor),
            ino: raw.stx_ino,
            mode: raw.stx_mode.into(),
            nlink: raw.stx_nlink,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            rdev: makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
            size: raw.stx_size,
            blksize: raw.stx_blksize,
            blocks: raw.stx_blocks,
            atime: time(raw.stx_atime),
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
            btime: time(raw.stx_btime),
            mount_id: 0,
        })
    }

    fn seek(&self, _pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let whence = match whence {
            Whence::Set => libc::SEEK_SET,
            Whence::Current => libc::SEEK_CUR,
            Whence::End => libc::SEEK_END,
            Whence::Data => libc::SEEK_DATA,
            Whence::Hole => libc::SEEK_HOLE,
        };
        self.lines.given.call(|| file::lseek(self.fd.raw(), offset, whence))
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let mut arg = [0; 256];
        if call.request == i::FIONREAD {
            file::ioctl(self.fd.raw(), i::FIONREAD, &mut arg)?;
            call.mm.write(call.arg, &arg[..4])?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        if self.appends() {
            return Err(Errno::EPERM);
        }
        self.lines.given.call(|| file::ftruncate(self.fd.raw(), len))
    }

    fn sync(&self) -> Result<()> {
        self.lines.given.call(|| file::fsync(self.fd.raw()))
    }

    fn reopen(self: Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        // /dev/stdout: the same description again, as far as its own access mode goes.
        let own = file::fcntl(self.fd.raw(), libc::F_GETFL, 0)? as u32 & c::O_ACCMODE;
        let wanted = how.flags & c::O_ACCMODE;
        if own != c::O_RDWR && own != wanted {
            return Err(Errno::EACCES);
        }
        if self.appends()
            && (wanted != c::O_RDONLY && how.flags & c::O_APPEND == 0 || how.flags & c::O_TRUNC != 0)
        {
            return Err(Errno::EPERM);
        }
        if how.flags & c::O_TRUNC != 0 && self.sort == Sort::Regular {
            self.lines.given.call(|| file::ftruncate(self.fd.raw(), 0))?;
        }
        Ok(self)
    }

    fn lock_slot(&self) -> Option<&LockSlot> {
        Some(&self.locks)
    }

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn host_fd(&self) -> Option<i32> {
        Some(self.fd.raw())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
