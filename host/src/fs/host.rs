//! The caller's own descriptors, passed through: standard input, output and error.
//!
//! They are shared with whoever started the sandbox: nothing about them is changed (no O_NONBLOCK), and regular files
//! are read at their own offset. What could block is asked first with poll(2); if it would, the poller is told to
//! watch the descriptor and the call waits on [`HostFile`]'s queue like on any other.

use super::hostio;
use crate::abi::{Errno, Result};
use crate::hostsys::file;
use crate::mm::{IoDst, IoSrc};
use crate::sync::WaitQueue;
use crate::vfs::{File, FileOps, Ioctl, Kind, OpenHow, Stat, Timestamp, Whence, makedev};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

/// Asks the poller to notify a queue once when one of the events holds on a host descriptor.
pub type Watch = Box<dyn Fn(i32, u32, &Arc<WaitQueue>) + Send + Sync>;

/// Bytes written to a pipe that poll(2) calls writable without a risk of blocking (PIPE_BUF).
const SAFE_WRITE: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Never blocks.
    Regular,
    Terminal,
    /// Pipes, sockets, other devices.
    Stream,
}

/// A host descriptor that programs read and write.
pub struct HostFile {
    fd: i32,
    sort: Sort,
    queue: Arc<WaitQueue>,
    watch: Watch,
    /// The host can refuse to block by itself (RWF_NOWAIT).
    nowait: AtomicBool,
    /// The foreground process group of the terminal, as the sandbox numbers them.
    foreground: AtomicI32,
}

impl HostFile {
    /// Passes `fd` through.
    ///
    /// # Errors
    /// EBADF if it is not open.
    pub fn new(fd: i32, watch: Watch) -> Result<Arc<HostFile>> {
        let stat = file::statx(fd, b"", libc::AT_EMPTY_PATH)?;
        let mut termios = [0; 256];
        let sort = match Kind::from_mode(stat.stx_mode.into()) {
            Some(Kind::File | Kind::Dir | Kind::Block) => Sort::Regular,
            Some(Kind::Char) if file::ioctl(fd, i::TCGETS, &mut termios).is_ok() => Sort::Terminal,
            _ => Sort::Stream,
        };
        Ok(Arc::new(HostFile {
            fd,
            sort,
            queue: Arc::default(),
            watch,
            nowait: AtomicBool::new(true),
            foreground: AtomicI32::new(1),
        }))
    }

    /// An open file description for it, with the access mode it has in the host.
    pub fn open(self: &Arc<Self>) -> Arc<File> {
        let flags = file::fcntl(self.fd, libc::F_GETFL, 0).unwrap_or(u64::from(c::O_RDWR)) as u32;
        // O_NONBLOCK of the host's description is not the program's: without it, it waits.
        File::anon(self.clone(), flags & (c::O_ACCMODE | c::O_APPEND))
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.sort == Sort::Terminal
    }

    /// The process group in the foreground of this terminal, in the sandbox's numbers.
    pub fn foreground(&self) -> i32 {
        self.foreground.load(Relaxed)
    }

    /// Fails with EAGAIN if one of `events` does not hold, having asked to be told when one does.
    fn wait_for(&self, events: u32) -> Result<()> {
        if self.sort == Sort::Regular {
            return Ok(());
        }
        let errors = c::POLLHUP | c::POLLERR | c::POLLNVAL;
        let holds = file::poll_now(self.fd, (c::POLLIN | c::POLLOUT) as i16) as u32;
        if holds & (events | errors) != 0 {
            return Ok(());
        }
        // All that is missing: a watch replaces the one before, which somebody else may be waiting for.
        (self.watch)(self.fd, (c::POLLIN | c::POLLOUT) & !holds, &self.queue);
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
        hostio::read(self.fd, dst, usize::MAX, offset, 0)
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
            return hostio::write(self.fd, src, usize::MAX, offset, 0);
        }
        if src.remaining() > SAFE_WRITE && self.nowait.load(Relaxed) {
            match hostio::write(self.fd, src, usize::MAX, offset, libc::RWF_NOWAIT) {
                Err(Errno::EOPNOTSUPP) => self.nowait.store(false, Relaxed),
                Err(Errno::EAGAIN) => {
                    (self.watch)(self.fd, c::POLLOUT, &self.queue);
                    return Err(Errno::EAGAIN);
                }
                result => return result,
            }
        }
        hostio::write(self.fd, src, SAFE_WRITE, offset, 0)
    }

    fn poll(&self) -> u32 {
        if self.sort == Sort::Regular {
            return c::POLLIN | c::POLLOUT | c::POLLRDNORM | c::POLLWRNORM;
        }
        let events = c::POLLIN | c::POLLOUT | c::POLLPRI | c::POLLRDNORM | c::POLLWRNORM | c::POLLRDHUP;
        let holds = file::poll_now(self.fd, events as i16) as u32;
        let missing = (c::POLLIN | c::POLLOUT) & !holds;
        if missing != 0 && holds & (c::POLLHUP | c::POLLERR) == 0 {
            (self.watch)(self.fd, missing, &self.queue);
        }
        holds
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        (self.sort != Sort::Regular).then_some(&*self.queue)
    }

    fn stat(&self) -> Option<Stat> {
        let raw = file::statx(self.fd, b"", libc::AT_EMPTY_PATH).ok()?;
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
        file::lseek(self.fd, offset, whence)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let mut arg = [0; 256];
        if call.request == i::FIONREAD {
            file::ioctl(self.fd, i::FIONREAD, &mut arg)?;
            call.mm.write(call.arg, &arg[..4])?;
            return Ok(0);
        }
        if self.sort != Sort::Terminal {
            return Err(Errno::ENOTTY);
        }
        // Sizes: struct termios of the kernel, struct termios2, struct winsize.
        let (size, writes) = match call.request {
            i::TCGETS => (36, true),
            i::TCSETS | i::TCSETSW | i::TCSETSF => (36, false),
            i::TCGETS2 => (44, true),
            i::TCSETS2 | i::TCSETSW2 | i::TCSETSF2 => (44, false),
            i::TIOCGWINSZ => (8, true),
            i::TIOCSWINSZ => (8, false),
            i::TIOCOUTQ => (4, true),
            i::TCSBRK | i::TCXONC | i::TCFLSH | i::TCSBRKP => {
                return file::ioctl_int(self.fd, call.request, call.arg);
            }
            i::TIOCGPGRP => {
                call.mm.write_val(call.arg, &self.foreground())?;
                return Ok(0);
            }
            i::TIOCSPGRP => {
                self.foreground.store(call.mm.read_val(call.arg)?, Relaxed);
                return Ok(0);
            }
            i::TIOCGSID => {
                call.mm.write_val(call.arg, &1i32)?;
                return Ok(0);
            }
            i::TIOCSCTTY | i::TIOCNOTTY => return Ok(0),
            _ => return Err(Errno::ENOTTY),
        };
        if !writes {
            call.mm.read(call.arg, &mut arg[..size])?;
        }
        file::ioctl(self.fd, call.request, &mut arg)?;
        if writes {
            call.mm.write(call.arg, &arg[..size])?;
        }
        Ok(0)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        file::ftruncate(self.fd, len)
    }

    fn sync(&self) -> Result<()> {
        file::fsync(self.fd)
    }

    fn reopen(self: Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        // /dev/stdout: the same description again, as far as its own access mode goes.
        let own = file::fcntl(self.fd, libc::F_GETFL, 0)? as u32 & c::O_ACCMODE;
        let wanted = how.flags & c::O_ACCMODE;
        if own != c::O_RDWR && own != wanted {
            return Err(Errno::EACCES);
        }
        if how.flags & c::O_TRUNC != 0 && self.sort == Sort::Regular {
            file::ftruncate(self.fd, 0)?;
        }
        Ok(self)
    }

    fn describe(&self) -> String {
        // What the host says: `pipe:[5]`, `/dev/pts/1`, the name of a file.
        let link = format!("/proc/self/fd/{}", self.fd);
        match file::readlinkat(libc::AT_FDCWD, link.as_bytes()) {
            Ok(name) => String::from_utf8_lossy(&name).into_owned(),
            Err(_) => format!("host:[{}]", self.fd),
        }
    }

    fn host_fd(&self) -> Option<i32> {
        Some(self.fd)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
