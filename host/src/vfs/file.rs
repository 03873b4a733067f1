//! Open files.

mod close;
mod locks;
mod ops;
mod position;

pub use ops::{FileOps, Ioctl, Whence};

use super::anon::AnonInode;
use super::{Dentry, DirEntry, LockTable, Mount, MountFlags, Path, Stat, Superblock};
use super::{SignalDriven, Watchers};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc, Mappable};
use crate::sync::LongLock;
use linux_raw_sys::general as c;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// `st_dev` of files without a file system of their own.
pub const ANON_DEV: u64 = super::makedev(0, 14);
/// `st_ino` of those that share one inode, as on Linux: eventfd, epoll, ...
pub(super) const ANON_INO: u64 = 1031;

/// Status flags that fcntl(F_SETFL) changes.
pub const SETTABLE_FLAGS: u32 = c::O_APPEND | c::O_NONBLOCK | c::O_DIRECT | c::O_NOATIME | c::FASYNC;
/// Flags of open(2) that mean something only while opening.
const CREATION_FLAGS: u32 = c::O_CREAT | c::O_EXCL | c::O_NOCTTY | c::O_TRUNC | c::O_CLOEXEC;

/// An open file description.
pub struct File {
    ops: Arc<dyn FileOps>,
    flags: AtomicU32,
    positioned: bool,
    /// See [`waits`](Self::waits): what `ops` says, asked once.
    waits: bool,
    /// [`FileOps::reads_itself`].
    reads_itself: bool,
    /// [`FileOps::names_writer`].
    names_writer: bool,
    /// Reading is what `ops` does and no more: it may be read and has no position.
    reads_plainly: bool,
    /// Watchers were told that it was opened, and will be told when it is closed.
    pub(super) announced: AtomicBool,
    /// Changed by who has the turn.
    pos: AtomicU64,
    moving: LongLock,
    path: Option<Path>,
    /// The table in which somebody took a flock or an OFD lock through it.
    locked: OnceLock<Arc<LockTable>>,
    /// Who gets a signal when it becomes ready.
    pub signals: SignalDriven,
    /// Who is told when it is closed.
    pub watchers: Watchers,
}

impl File {
    /// An open file with a name.
    pub fn new(ops: Arc<dyn FileOps>, flags: u32, path: Path) -> Arc<File> {
        Self::make(ops, flags, Some(path))
    }

    /// An open file without a name: a pipe, a socket.
    pub fn anon(ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
        Self::make(ops, flags, None)
    }

    fn make(ops: Arc<dyn FileOps>, flags: u32, path: Option<Path>) -> Arc<File> {
        // Access mode 3, which some use for ioctl only, is neither.
        let readable = matches!(flags & c::O_ACCMODE, c::O_RDONLY | c::O_RDWR);
        Arc::new(File {
            reads_plainly: readable && !ops.positioned(),
            announced: AtomicBool::new(false),
            positioned: ops.positioned(),
            waits: ops.wait_queue().is_some() && !ops.positioned(),
            reads_itself: ops.reads_itself(),
            names_writer: ops.names_writer(),
            ops,
            flags: AtomicU32::new(flags & !CREATION_FLAGS),
            pos: AtomicU64::new(0),
            moving: LongLock::default(),
            path,
            locked: OnceLock::new(),
            signals: SignalDriven::default(),
            watchers: Watchers::default(),
        })
    }

    /// What it does.
    #[inline]
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }

    /// Its operations as type `T`.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// Access mode and status flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Changes the status flags that F_SETFL may change.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags() & !SETTABLE_FLAGS;
        self.flags.store(kept | flags & SETTABLE_FLAGS, Ordering::Relaxed);
    }

    /// See [`FileOps::reads_itself`].
    pub fn reads_itself(&self) -> bool {
        self.reads_itself
    }

    /// Whether operations return EAGAIN rather than wait.
    #[inline]
    pub fn nonblocking(&self) -> bool {
        self.flags() & c::O_NONBLOCK != 0
    }

    /// Whether it was opened for reading.
    #[inline]
    pub fn readable(&self) -> bool {
        matches!(self.flags() & c::O_ACCMODE, c::O_RDONLY | c::O_RDWR)
    }

    /// Whether it was opened for writing.
    #[inline]
    pub fn writable(&self) -> bool {
        matches!(self.flags() & c::O_ACCMODE, c::O_WRONLY | c::O_RDWR)
    }

    /// Whether it is only a handle on a name (O_PATH).
    #[inline]
    pub fn is_path(&self) -> bool {
        self.flags() & c::O_PATH != 0
    }

    /// The name it was opened by; files without one get one made up.
    pub fn path(self: &Arc<Self>) -> Path {
        if let Some(path) = &self.path {
            return path.clone();
        }
        let fstype = self.ops.mounts_as().unwrap_or("anon_inodefs");
        let sb = Superblock::new(self.stat().dev, fstype, self.ops.magic());
        let name = self.ops.describe();
        let dentry = Dentry::root(&sb, AnonInode::of(self), name.as_bytes());
        Path {
            mount: Mount::new(0, dentry.clone(), self.ops.mounts_as().unwrap_or("none"), MountFlags::empty()),
            dentry,
        }
    }

    /// The name, if it has one of its own.
    pub fn named(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// Attributes.
    pub fn stat(&self) -> Stat {
        match (self.ops.stat(), &self.path) {
            (Some(stat), _) => stat,
            (None, Some(path)) => path.stat(),
            (None, None) => {
                let (dev, ino) = (ANON_DEV, ANON_INO);
                Stat { dev, ino, mode: 0o600, nlink: 1, blksize: 4096, ..Stat::default() }
            }
        }
    }

    /// Reads from the position on.
    ///
    /// # Errors
    /// EBADF if not open for reading, or what the file returned.
    #[inline]
    pub fn read(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        let result = self.read_untold(dst);
        self.told(c::IN_ACCESS, result)
    }

    /// The same without a word to watchers, who are told once when all is done.
    #[inline]
    pub fn read_untold(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        if self.reads_plainly { self.ops.read(dst, None) } else { self.read_other(dst) }
    }

    #[inline(never)]
    fn read_other(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        if !self.readable() {
            return Err(Errno::EBADF);
        }
        let _turn = self.turn()?;
        let pos = self.position();
        let count = self.ops.read(dst, Some(pos))?;
        self.put_position(pos + count as u64);
        Ok(count)
    }

    /// Writes from the position on, or at the end.
    ///
    /// # Errors
    /// EBADF if not open for writing, or what the file returned.
    #[inline]
    pub fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        let result = if self.positioned { self.write_positioned(src) } else { self.ops.write(src, None) };
        self.told(c::IN_MODIFY, result)
    }

    #[inline(never)]
    fn write_positioned(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        let _turn = self.turn()?;
        if self.flags() & c::O_APPEND != 0 {
            let (count, end) = self.ops.append(src)?;
            self.put_position(end);
            return Ok(count);
        }
        let pos = self.position();
        let count = self.ops.write(src, Some(pos))?;
        self.put_position(pos + count as u64);
        Ok(count)
    }

    /// Whether there are no offsets in it, be it open for reading and writing or not.
    fn is_stream(&self) -> bool {
        self.path.is_none() && !self.positioned && self.ops.host_fd().is_none()
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// EBADF, ESPIPE, or what the file returned.
    pub fn pread(&self, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        let result = self.pread_untold(dst, offset);
        self.told(c::IN_ACCESS, result)
    }

    /// The same without a word to watchers.
    ///
    /// # Errors
    /// As [`pread`](Self::pread).
    pub fn pread_untold(&self, dst: &mut IoDst<'_>, offset: u64) -> Result<usize> {
        if self.is_stream() {
            return Err(Errno::ESPIPE);
        }
        if !self.readable() {
            return Err(Errno::EBADF);
        }
        self.ops.read(dst, Some(offset))
    }

    /// Writes at an offset (at the end of an O_APPEND file, as Linux does).
    ///
    /// # Errors
    /// EBADF, ESPIPE, or what the file returned.
    pub fn pwrite(&self, src: &mut IoSrc<'_>, offset: u64) -> Result<usize> {
        if self.is_stream() {
            return Err(Errno::ESPIPE);
        }
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        let result = if self.positioned && self.flags() & c::O_APPEND != 0 {
            self.ops.append(src).map(|(count, _)| count)
        } else {
            self.ops.write(src, Some(offset))
        };
        self.told(c::IN_MODIFY, result)
    }

    /// What mmap(2) maps. `None`: ENODEV.
    pub fn mappable(self: &Arc<Self>) -> Option<Arc<dyn Mappable>> {
        self.ops.mappable(self)
    }

    /// Fills `buf` from `offset` on; short only at the end of the file. For the kernel's own use (loading programs).
    ///
    /// # Errors
    /// What the file returned.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let mut dst = IoDst::kernel(&mut buf[done..]);
            let count = self.ops.read(&mut dst, Some(offset + done as u64))?;
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }

    /// Whether a read, which has no position then, may have to wait.
    #[inline]
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether a write has to say who writes.
    #[inline]
    pub fn names_writer(&self) -> bool {
        self.names_writer
    }

    /// Whether it keeps a position here.
    pub fn positioned(&self) -> bool {
        self.positioned
    }

    /// Lists a directory from the position on.
    ///
    /// # Errors
    /// ENOTDIR.
    pub fn readdir(&self, sink: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let turn = self.turn()?;
        let mut pos = self.position();
        let result = self.ops.readdir(&mut pos, sink);
        self.put_position(pos);
        drop(turn);
        if result.is_ok() {
            self.tell(c::IN_ACCESS);
        }
        result
    }
}
