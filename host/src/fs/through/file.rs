//! Open regular files that are written through. All who have a file open share one descriptor of the host, two where it cannot
//! be had for reading and writing at once: reads and writes name their offset.

use super::Node;
use super::pages::Writable;
use super::place::{From, node_of};
use crate::abi::{Errno, Result};
use crate::fs::hostio::{self, At};
use crate::hostfd::HostFd;
use crate::hostsys::{change, file as host};
use crate::mm::{IoDst, IoSrc, MapInfo, Mappable, Mm};
use crate::platform::Frame;
use crate::vfs::{Dentry, File, FileOps, Ioctl, Path, Whence, Writing};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl::{FIBMAP, FICLONE, FICLONERANGE, FIONREAD, FS_IOC_FIEMAP as FIEMAP};
use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// pwritev2(2)
const RWF_APPEND: i32 = 0x10;
/// What files are opened with, besides what for: should one have become a FIFO or a device, opening it must neither hang nor do
/// anything.
const OPEN: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// A descriptor of a regular file's content.
pub(super) struct Data {
    pub(super) fd: HostFd,
    reads: bool,
    writes: bool,
    _from: Option<Arc<From>>,
}

impl Data {
    /// The one of a file that was open from the start.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn given(fd: HostFd) -> Result<Arc<Data>> {
        let mode = host::fcntl(fd.raw(), libc::F_GETFL, 0)? as i32 & libc::O_ACCMODE;
        let (reads, writes) = (mode != libc::O_WRONLY, mode != libc::O_RDONLY);
        Ok(Arc::new(Data { fd, reads, writes, _from: None }))
    }

    /// That of a file that was made: open for both.
    pub(super) fn made(fd: HostFd, from: Arc<From>) -> Arc<Data> {
        Arc::new(Data { fd, reads: true, writes: true, _from: Some(from) })
    }
}

/// A node's descriptors, as long as somebody has them.
#[derive(Default)]
pub(super) struct Open {
    reader: Weak<Data>,
    writer: Weak<Data>,
    /// Kept for who comes next, or for good.
    kept: Option<Arc<Data>>,
}

impl Open {
    /// Keeps one for whoever opens next; one that was open from the start, for good. Returns what was kept before.
    pub(super) fn keep(&mut self, data: Arc<Data>) -> Option<Arc<Data>> {
        self.note(&data);
        self.kept.replace(data)
    }

    fn note(&mut self, data: &Arc<Data>) {
        if data.reads {
            self.reader = Arc::downgrade(data);
        }
        if data.writes {
            self.writer = Arc::downgrade(data);
        }
    }

    /// Any there is.
    pub(super) fn any(&self) -> Option<Arc<Data>> {
        self.writer.upgrade().or_else(|| self.reader.upgrade())
    }

    /// One for reading, or for writing too; and one that is not kept any more.
    fn get(&mut self, write: bool) -> (Option<Arc<Data>>, Option<Arc<Data>>) {
        let found = if write { self.writer.upgrade() } else { self.reader.upgrade() };
        let lasting = self.kept.as_ref().is_some_and(|kept| kept._from.is_none());
        (found, if lasting { None } else { self.kept.take() })
    }
}

impl Node {
    /// A descriptor of its content, for reading, or for writing (and reading, where that can be had). `name` is what it is
    /// opened by.
    pub(super) fn data(&self, write: bool, name: Option<&Arc<Dentry>>) -> Result<Arc<Data>> {
        if write {
            self.tree.writable()?;
        }
        let (found, kept) = self.open.lock().get(write);
        if let Some(found) = found {
            return Ok(found);
        }
        drop(kept);
        let dentry = match name {
            Some(name) if !name.is_dead() => name.clone(),
            _ => self.alias()?,
        };
        let (Some(parent), name) = dentry.place() else {
            // A single file, which is open as it could be.
            return Err(Errno::EACCES);
        };
        let dir = node_of(&parent)?;
        let from = dir.from(&name);
        let open = |mode| dir.open_object(&from, mode | OPEN, self.id);
        let (fd, reads, writes) = if write {
            match open(libc::O_RDWR) {
                Err(Errno::EACCES) => (open(libc::O_WRONLY)?, false, true),
                other => (other?, true, true),
            }
        } else {
            (open(libc::O_RDONLY)?, true, false)
        };
        let data = Arc::new(Data { fd, reads, writes, _from: Some(from) });
        self.open.lock().note(&data);
        Ok(data)
    }

    fn at<'a>(&'a self, data: &'a Data) -> At<'a> {
        At { fd: data.fd.raw(), line: self.line() }
    }

    /// ftruncate(2).
    pub(super) fn cut(&self, data: &Data, len: u64) -> Result<()> {
        self.changed();
        // What is cut off is not to come back with a later write.
        let _alone = self.pages.give_back(self, 0..len, self.line())?;
        self.line().call(|| host::ftruncate(data.fd.raw(), len))?;
        self.pages.cut(len);
        Ok(())
    }
}

/// An open regular file.
pub(super) struct NodeFile {
    node: Arc<Node>,
    path: Path,
    data: Arc<Data>,
    _writing: Option<Writing>,
}

impl NodeFile {
    pub(super) fn new(node: Arc<Node>, path: &Path, data: Arc<Data>, writing: Option<Writing>) -> Self {
        NodeFile { node, path: path.clone(), data, _writing: writing }
    }

    fn mapping(&self, file: &Arc<File>, writable: bool) -> Arc<dyn Mappable> {
        let (node, path, data) = (self.node.clone(), self.path.clone(), self.data.clone());
        let writable = writable.then(|| Writable::new(&node, &data));
        Arc::new(Mapping { node, path, data, _writable: writable, _open: file.clone() })
    }

    fn size(&self) -> Result<u64> {
        let raw = self.node.line().call(|| host::statx(self.data.fd.raw(), b"", libc::AT_EMPTY_PATH))?;
        self.node.take(&raw);
        Ok(raw.stx_size)
    }

    fn put(&self, src: &mut IoSrc<'_>, offset: u64, flags: i32) -> Result<usize> {
        let (node, mut done) = (&self.node, 0);
        node.changed();
        while src.remaining() > 0 {
            let left = src.remaining();
            let at = offset + done as u64;
            let used = node.pages.is_used();
            let give_back = || node.pages.give_back(node, at..at + left as u64, node.line());
            let _alone = used.then(give_back).transpose()?;
            match hostio::write(node.at(&self.data), src, usize::MAX, Some(at), flags) {
                Ok(0) => break,
                Ok(put) => {
                    node.pages.reload(node, &self.data, at..at + put as u64)?;
                    done += put;
                    // A buffer that had to be copied may have been taken in part: the caller goes on behind that.
                    if put != left - src.remaining() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

impl FileOps for NodeFile {
    fn positioned(&self) -> bool {
        true
    }

    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        let (node, offset) = (&self.node, offset.unwrap_or(0));
        let mut done = 0;
        while dst.remaining() > 0 {
            let at = offset + done as u64;
            if node.pages.is_used() {
                node.pages.write_back(node, at..at.saturating_add(dst.remaining() as u64), node.line())?;
            }
            match hostio::read(node.at(&self.data), dst, usize::MAX, Some(at), 0) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        self.put(src, offset.unwrap_or(0), 0)
    }

    fn append(&self, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let _alone = self.node.writing.lock(self.node.line())?;
        let before = self.size()?;
        let mut done = 0;
        // The host finds the end of the file for each piece. Where that is afterwards others may have moved.
        while src.remaining() > 0 {
            let left = src.remaining();
            match hostio::write(self.node.at(&self.data), src, usize::MAX, Some(0), RWF_APPEND) {
                Ok(put) => {
                    done += put;
                    if put == 0 || put != left - src.remaining() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        self.node.changed();
        let end = self.size()?;
        self.node.pages.reload(&self.node, &self.data, before..end)?;
        Ok((done, end))
    }

    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => pos,
            Whence::End => self.size()?,
            Whence::Data | Whence::Hole => {
                let node = &self.node;
                node.pages.write_back(node, 0..u64::MAX, node.line())?;
                let how = if whence == Whence::Data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
                return node.line().call(|| host::lseek(self.data.fd.raw(), offset, how));
            }
        };
        let new = (base as i64).checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        u64::try_from(new).map_err(|_| Errno::EINVAL)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        match call.request {
            FIONREAD => {
                call.mm.write_val(call.arg, &(self.size()?.min(i32::MAX as u64) as i32))?;
                Ok(0)
            }
            FIBMAP | FIEMAP => Err(if call.request == FIBMAP { Errno::EINVAL } else { Errno::EOPNOTSUPP }),
            FICLONE | FICLONERANGE => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn mappable(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        Some(self.mapping(file, false))
    }

    fn mappable_for_writing(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        self.data.writes.then(|| self.mapping(file, true))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.node.cut(&self.data, len)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let node = &self.node;
        node.changed();
        if mode & !c::FALLOC_FL_KEEP_SIZE == 0 {
            return node.line().call(|| change::allocate(self.data.fd.raw(), mode, offset, len));
        }
        let _alone = node.pages.give_back(node, 0..u64::MAX, node.line())?;
        node.line().call(|| change::allocate(self.data.fd.raw(), mode, offset, len))?;
        node.pages.renew(offset);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.node.pages.write_back(&self.node, 0..u64::MAX, self.node.line())?;
        self.node.line().call(|| host::fsync(self.data.fd.raw()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a program has mapped.
struct Mapping {
    node: Arc<Node>,
    path: Path,
    data: Arc<Data>,
    /// Of a shared mapping that can write.
    _writable: Option<Writable>,
    /// What it was made through.
    _open: Arc<File>,
}

impl Mappable for Mapping {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        self.node.pages.page(&self.node, &self.data, index, write)
    }

    fn size(&self) -> u64 {
        self.node.size.load(Ordering::Relaxed)
    }

    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        self.node.pages.ready(first, to);
    }

    fn identity(&self) -> usize {
        self.node.pages.identity()
    }

    fn mapped(&self, mm: &Weak<Mm>) {
        self.node.pages.mappers.add(mm);
    }

    fn unmapped(&self) {
        self.node.pages.mappers.ended();
    }

    fn describe(&self) -> MapInfo {
        let mut root = self.path.mount.clone();
        while let Some(place) = root.place() {
            root = place.mount;
        }
        let root = Path { dentry: root.root.clone(), mount: root };
        let (dev, ino) = (self.path.dentry.sb.dev, self.node.meta.ino);
        let mode = self.node.meta.perm.load(Ordering::Relaxed);
        MapInfo { dev, ino, mode, path: self.path.display(&root) }
    }

    fn sync(&self, offset: u64, len: u64) -> Result<()> {
        let node = &self.node;
        node.pages.write_back(node, offset..offset.saturating_add(len), node.line())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let mode = c::FALLOC_FL_PUNCH_HOLE | c::FALLOC_FL_KEEP_SIZE;
        let node = &self.node;
        let _alone = node.pages.give_back(node, 0..u64::MAX, node.line())?;
        node.line().call(|| change::allocate(self.data.fd.raw(), mode, offset, len))?;
        node.pages.renew(offset);
        Ok(())
    }
}
