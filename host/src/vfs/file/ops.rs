//! What an open file does: the contract between files and what is behind them.

use super::File;
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::mm::{IoDst, IoSrc, Mappable, Mm};
use crate::sync::WaitQueue;
use crate::vfs::{Caller, Carrier, DirEntry, LockSlot, OpenHow, Stat};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

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

    /// Whether [`read`](Self::read) is all there is to reading. (A signalfd reads for the calling task; a
    /// terminal may stop it.)
    fn reads_itself(&self) -> bool {
        true
    }

    /// Whether it matters who writes: because readers can ask, or because not everybody may at any time.
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

    /// The same for a shared mapping that can write, or be made to. `None` also where seals forbid that.
    fn mappable_for_writing(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        self.mappable(file)
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

    /// Where its locks are kept, if it has an inode of its own but no path.
    fn lock_slot(&self) -> Option<&LockSlot> {
        None
    }

    /// A descriptor of it was closed in a table that [`FdTable::note_lock`](crate::vfs::FdTable::note_lock) was called on.
    fn closed_by(&self, table: u64) {
        let _ = table;
    }

    /// What /proc/PID/fd shows for files without a path: `pipe:[5]`.
    fn describe(&self) -> String {
        "anon_inode:[unknown]".to_owned()
    }

    /// The file system that files without a path are on, for statfs(2).
    fn magic(&self) -> u64 {
        0x0904_1934
    }

    /// The file system that its name is on, if that can be mounted elsewhere (MS_BIND) though nothing else of it is mounted.
    fn mounts_as(&self) -> Option<&'static str> {
        None
    }

    /// Further lines of /proc/PID/fdinfo.
    fn fdinfo(&self) -> String {
        String::new()
    }

    /// The host descriptor it passes through, if it is one: copies can then stay in the host.
    fn host_fd(&self) -> Option<i32> {
        None
    }

    /// Whether it can send signals when it becomes ready (O_ASYNC).
    fn sends_signals(&self) -> bool {
        false
    }

    /// Itself, if files can be on their way to it.
    fn carrier(&self) -> Option<&dyn Carrier> {
        None
    }

    /// For finding out what it is.
    fn as_any(&self) -> &dyn Any;
}
