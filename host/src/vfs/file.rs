//! Open files.

use super::{Caller, Flock, anon::AnonInode};
use super::{Dentry, DirEntry, Inode, LockTable, Mount, MountFlags, OpenHow, Path, Stat, Superblock};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::mm::{IoDst, IoSrc, Mappable, Mm};
use crate::sync::{Lock, WaitQueue};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// `st_dev` of files without a file system of their own.
pub const ANON_DEV: u64 = super::makedev(0, 14);

/// How lseek(2) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// From the start.
    Set,
    /// From the position.
    Current,
    /// From the end.
    End,
    /// To the next data.
    Data,
    /// To the next hole.
    Hole,
}

/// Who makes an ioctl, and where its argument lies.
pub struct Ioctl<'a> {
    /// The request.
    pub request: u32,
    /// Its argument.
    pub arg: u64,
    /// The caller's memory.
    pub mm: &'a Mm,
    /// The caller.
    pub caller: Caller,
    /// Its credentials.
    pub cred: &'a Cred,
}

/// What an open file does. Nothing here parks: what would block returns `EAGAIN`. Default methods return what Linux
/// returns for files that cannot do it.
pub trait FileOps: Send + Sync {
    /// Reads at `offset`, or at the file's own position (streams, host files).
    ///
    /// # Errors
    /// EAGAIN when there is nothing yet; EINVAL where reading makes no sense; ESPIPE for an offset on a stream.
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        let _ = (dst, offset);
        Err(Errno::EINVAL)
    }

    /// Writes at `offset`, or at the file's own position.
    ///
    /// # Errors
    /// EAGAIN when there is no room; EPIPE when nobody will read (the caller raises SIGPIPE).
    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        let _ = (src, offset);
        Err(Errno::EINVAL)
    }

    /// Writes at the end, atomically, and returns the count and the end after it. For positioned files.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn append(&self, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let count = self.write(src, None)?;
        Ok((count, 0))
    }

    /// Whether reads and writes happen at the position that [`File`] keeps.
    fn positioned(&self) -> bool {
        false
    }

    /// Whether [`read`](Self::read) is all there is to reading. (A signalfd reads for the calling task.)
    fn reads_itself(&self) -> bool {
        true
    }

    /// Whether readers can ask who wrote: writes of programs then go through the socket calls, which say it.
    fn names_writer(&self) -> bool {
        false
    }

    /// Events that hold now, as poll(2) bits.
    fn poll(&self) -> u32 {
        c::POLLIN | c::POLLOUT | c::POLLRDNORM | c::POLLWRNORM
    }

    /// What is notified when [`poll`](Self::poll) may have changed. `None`: it never does.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Whether `open` is complete (a FIFO waits for the other side).
    fn opened(&self) -> bool {
        true
    }

    /// Attributes, where they do not come from an inode.
    fn stat(&self) -> Option<Stat> {
        None
    }

    /// New position for lseek(2), `pos` being the present one. Files that keep their own position move it.
    ///
    /// # Errors
    /// ESPIPE, or EINVAL for a position that cannot be.
    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let _ = (pos, offset, whence);
        Err(Errno::ESPIPE)
    }

    /// Hands directory entries from `pos` on to `sink` until it returns false; `pos` follows.
    ///
    /// # Errors
    /// ENOTDIR.
    fn readdir(&self, pos: &mut u64, sink: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let _ = (pos, sink);
        Err(Errno::ENOTDIR)
    }

    /// ioctl(2).
    ///
    /// # Errors
    /// ENOTTY.
    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let _ = call;
        Err(Errno::ENOTTY)
    }

    /// What mmap(2) maps, through the open file `file`, which is not closed as long as it is mapped. `None`: ENODEV.
    fn mappable(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        let _ = file;
        None
    }

    /// ftruncate(2).
    ///
    /// # Errors
    /// EINVAL.
    fn truncate(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(Errno::EINVAL)
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// ENODEV, EOPNOTSUPP.
    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let _ = (mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// fsync(2).
    ///
    /// # Errors
    /// EINVAL.
    fn sync(&self) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// Opens the same thing again through /proc/PID/fd.
    ///
    /// # Errors
    /// ENXIO.
    fn reopen(self: Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let _ = how;
        Err(Errno::ENXIO)
    }

    /// What /proc/PID/fd shows for files without a path: `pipe:[5]`.
    fn describe(&self) -> String {
        "anon_inode:[unknown]".to_owned()
    }

    /// Further lines of /proc/PID/fdinfo.
    fn fdinfo(&self) -> String {
        String::new()
    }

    /// The host descriptor it passes through, if it is one: copies can then stay in the host.
    fn host_fd(&self) -> Option<i32> {
        None
    }

    /// For finding out what it is.
    fn as_any(&self) -> &dyn Any;
}

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
    /// [`FileOps::names_writer`].
    names_writer: bool,
    /// Reading is what `ops` does and no more: it may be read and has no position.
    reads_plainly: bool,
    /// Watchers were told that it was opened, and will be told when it is closed.
    pub(super) announced: AtomicBool,
    pos: Lock<u64>,
    path: Option<Path>,
    /// Somebody took a flock or an OFD lock through it.
    locked: AtomicBool,
    /// F_SETOWN: a process, or minus a process group.
    pub owner: std::sync::atomic::AtomicI32,
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
        let readable = flags & c::O_ACCMODE != c::O_WRONLY;
        Arc::new(File {
            reads_plainly: readable && !ops.positioned(),
            announced: AtomicBool::new(false),
            positioned: ops.positioned(),
            waits: ops.wait_queue().is_some() && ops.reads_itself() && !ops.positioned(),
            names_writer: ops.names_writer(),
            ops,
            flags: AtomicU32::new(flags & !CREATION_FLAGS),
            pos: Lock::new(0),
            path,
            locked: AtomicBool::new(false),
            owner: 0.into(),
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

    /// Whether operations return EAGAIN rather than wait.
    #[inline]
    pub fn nonblocking(&self) -> bool {
        self.flags() & c::O_NONBLOCK != 0
    }

    /// Whether it was opened for reading.
    #[inline]
    pub fn readable(&self) -> bool {
        self.flags() & c::O_ACCMODE != c::O_WRONLY
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
        let sb = Superblock::new(ANON_DEV, "anon_inodefs", 0x0904_1934);
        let name = self.ops.describe();
        let dentry = Dentry::root(&sb, AnonInode::of(self), name.as_bytes());
        Path { mount: Mount::new(0, dentry.clone(), "none", MountFlags::empty()), dentry }
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
            (None, None) => Stat { dev: ANON_DEV, mode: 0o600, nlink: 1, blksize: 4096, ..Stat::default() },
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
        let mut pos = self.pos.lock();
        let count = self.ops.read(dst, Some(*pos))?;
        *pos += count as u64;
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
        let mut pos = self.pos.lock();
        if self.flags() & c::O_APPEND != 0 {
            let (count, end) = self.ops.append(src)?;
            *pos = end;
            return Ok(count);
        }
        let count = self.ops.write(src, Some(*pos))?;
        *pos += count as u64;
        Ok(count)
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

    /// Moves the position.
    ///
    /// # Errors
    /// ESPIPE, EINVAL, ENXIO.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        let mut pos = self.pos.lock();
        let new = self.ops.seek(*pos, offset, whence)?;
        *pos = new;
        Ok(new)
    }

    /// The position (for /proc/PID/fdinfo).
    pub fn position(&self) -> u64 {
        *self.pos.lock()
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
        let mut pos = self.pos.lock();
        let result = self.ops.readdir(&mut pos, sink);
        drop(pos);
        if result.is_ok() {
            self.tell(c::IN_ACCESS);
        }
        result
    }

    /// The inode behind it, if it has a name.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.path.as_ref().map(|path| &path.dentry.inode)
    }

    /// The locks on the inode.
    ///
    /// # Errors
    /// EBADF for files without an inode.
    pub fn locks(&self) -> Result<Arc<LockTable>> {
        Ok(self.inode().ok_or(Errno::EBADF)?.meta().lock_table())
    }

    /// The same, if anybody ever locked anything.
    pub fn existing_locks(&self) -> Option<Arc<LockTable>> {
        self.inode()?.meta().existing_locks()
    }

    /// Notes that locks must be dropped with this description.
    pub fn note_lock(&self) {
        self.locked.store(true, Ordering::Relaxed);
    }

    /// The identity that flock and OFD locks are owned by.
    pub fn lock_owner(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if *self.locked.get_mut()
            && let Some(locks) = self.existing_locks()
        {
            locks.drop_owner(self.lock_owner());
            let _ = locks.flock(self.lock_owner(), Flock::Unlock);
        }
        if *self.announced.get_mut() {
            self.tell(if self.writable() { c::IN_CLOSE_WRITE } else { c::IN_CLOSE_NOWRITE });
        }
    }
}
