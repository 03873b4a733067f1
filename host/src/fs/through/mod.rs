//! Directories and files of the host that are written through: what programs do to them the host does, at once, and what
//! others do to them there is seen here.
//!
//! A [`Node`] stands for an object of the host while something in here uses it: a name in the tree of dentries, an open file, a
//! mapping. Nothing of it is kept but attributes, for permission checks, which are looked at anew with every look-up of its
//! name. The host is asked by descriptors alone: one component below a directory's, and no link is followed
//! ([`crate::vfs::Through`], `walk` does that inside), so that nothing that others do to names leads out of the tree. What was
//! looked at is told from what somebody has put into its place by device, inode number and time of birth.
//!
//! | module | what |
//! |---|---|
//! | here | nodes, and their attributes |
//! | `tree` | trees of them, and who writes back for them |
//! | `place` | descriptors by which nodes are reached, and a bound for how many are open |
//! | `names` | what is done in directories: look-up, making, removing, renaming, listing |
//! | `naming` | that one at a time changes names there |
//! | `file` | open regular files |
//! | `pages` | pages of files that are mapped |
//!
//! Who may do what is decided in here, by the attributes: the kernel's process has root's rights to the tree where its caller is
//! root. The traffic of FIFOs and sockets stays in the sandbox; the host has their names. Device nodes are never opened on
//! the host: they lead to the sandbox's own devices, if to anything.

mod file;
mod names;
mod naming;
mod pages;
mod place;
#[cfg(test)]
mod tests;
mod tree;

pub use tree::{Trees, WriteBack};

use crate::abi::{Errno, Result};
use crate::fs::pipe::Pipe;
use crate::hostfd::HostFd;
use crate::hostsys::{change, file as host};
use crate::sync::{HostLine, Lock, LongLock};
use crate::time::monotonic_ns;
use crate::vfs::{
    Caller, Dentry, DirFile, FileOps, Inode, Kind, ListEntry, Meta, NewNode, OpenHow, Path, SetTime, Stat,
    StatFs, Through, Timestamp, Writing, makedev,
};
use file::{NodeFile, Open};
use linux_raw_sys::general as c;
use naming::Naming;
use pages::Pages;
use place::Place;
use std::any::Any;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tree::Tree;

/// What the host has just said of a file is not asked for again within this time, nanoseconds: a look-up and a stat(2) of what
/// it found are one question.
const JUST_NOW: u64 = 20_000;

/// Which object of the host it is: device, inode number, time of birth (inode numbers are used again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64, Timestamp);

impl Id {
    fn of(raw: &libc::statx) -> Id {
        let birth = if raw.stx_mask & libc::STATX_BTIME == 0 {
            Timestamp::default()
        } else {
            time_of(&raw.stx_btime)
        };
        Id(makedev(raw.stx_dev_major, raw.stx_dev_minor), raw.stx_ino, birth)
    }
}

fn kind_of(raw: &libc::statx) -> Kind {
    Kind::from_mode(raw.stx_mode.into()).unwrap_or(Kind::File)
}

fn time_of(raw: &libc::statx_timestamp) -> Timestamp {
    Timestamp { sec: raw.tv_sec, nsec: raw.tv_nsec }
}

/// An object of the host.
pub struct Node {
    meta: Meta,
    me: Weak<Node>,
    tree: Arc<Tree>,
    id: Id,
    size: AtomicU64,
    blocks: AtomicU64,
    blksize: u32,
    /// When the host was last asked for the attributes; 0: they have changed since.
    asked: AtomicU64,
    /// How it is reached, unless that has been let go of.
    place: Lock<Option<Place>>,
    open: Lock<Open>,
    /// Serialises appends, and where pages are mapped all that gives bytes to the host.
    writing: LongLock,
    naming: Arc<Naming>,
    pages: Pages,
    aliases: Lock<Vec<Weak<Dentry>>>,
    shared: Lock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Node {
    /// The way to the host calls that are made for it. What is mounted below the root may be anybody's.
    fn line(&self) -> &HostLine {
        let lines = &self.tree.devices.lines;
        if self.tree.near && self.id.0 == self.tree.dev { &lines.near } else { &lines.far }
    }

    fn me(&self) -> Result<Arc<Node>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    /// Notes what the host says of it now.
    fn take(&self, raw: &libc::statx) {
        let meta = &self.meta;
        meta.perm.store(u32::from(raw.stx_mode) & 0o7777, Relaxed);
        meta.uid.store(raw.stx_uid, Relaxed);
        meta.gid.store(raw.stx_gid, Relaxed);
        meta.nlink.store(raw.stx_nlink, Relaxed);
        {
            let mut times = meta.times.lock();
            times.access = time_of(&raw.stx_atime);
            times.modify = time_of(&raw.stx_mtime);
            times.change = time_of(&raw.stx_ctime);
            times.birth = time_of(&raw.stx_btime);
        }
        self.size.store(raw.stx_size, Relaxed);
        self.blocks.store(raw.stx_blocks, Relaxed);
        self.asked.store(monotonic_ns(), Relaxed);
        self.pages.compare(raw.stx_size, time_of(&raw.stx_mtime));
    }

    /// What was last said of it does not hold any more.
    fn changed(&self) {
        self.asked.store(0, Relaxed);
    }

    /// Asks the host for the attributes.
    fn ask(&self) -> Result<()> {
        let fd = self.fd()?;
        let raw = self.line().call(|| host::statx(fd.raw(), b"", libc::AT_EMPTY_PATH))?;
        self.take(&raw);
        Ok(())
    }

    /// What all who open this node share, made on first use.
    fn share<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        self.shared.lock().get_or_insert_with(|| make()).clone().downcast().ok()
    }

    /// A descriptor by which extended attributes can be had: a file or directory, opened if it is not.
    fn attributes_fd(&self) -> Result<HostFd> {
        match self.meta.kind {
            Kind::Dir => self.dir_fd(),
            Kind::File => self.data(false, None).map(|data| data.fd.clone()),
            _ => Err(Errno::EPERM),
        }
    }
}

impl Inode for Node {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn host_line(&self) -> Option<&HostLine> {
        Some(self.line())
    }

    fn stat(&self) -> Stat {
        if monotonic_ns().saturating_sub(self.asked.load(Relaxed)) > JUST_NOW {
            self.refresh();
        }
        let mut stat = self.meta.stat();
        stat.size = self.size.load(Relaxed);
        stat.blocks = self.blocks.load(Relaxed);
        stat.blksize = self.blksize;
        stat
    }

    fn refresh(&self) {
        // What cannot be asked any more is as it was.
        let _gone = self.ask();
    }

    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        Ok(self.find(name)?.map(|node| node as Arc<dyn Inode>))
    }

    fn list(&self) -> Result<Arc<[ListEntry]>> {
        self.read_names().map(Into::into)
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        Ok(self.make(name, new)?)
    }

    fn can_edit(&self) -> Result<()> {
        self.tree.writable()
    }

    fn can_setattr(&self) -> Result<()> {
        self.tree.writable()
    }

    fn readlink(&self, _caller: Caller) -> Result<Vec<u8>> {
        if self.meta.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        let fd = self.fd()?;
        self.line().call(|| host::readlinkat(fd.raw(), b""))
    }

    fn open(self: Arc<Self>, path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        match self.meta.kind {
            Kind::Dir => Ok(DirFile::new(path)),
            Kind::File => {
                let writes = matches!(how.flags & c::O_ACCMODE, c::O_WRONLY | c::O_RDWR);
                let writing = if writes { Some(Writing::claim(&path.dentry.inode)?) } else { None };
                let data = self.data(writes || how.flags & c::O_TRUNC != 0, Some(&path.dentry))?;
                Ok(Arc::new(NodeFile::new(self, path, data, writing)))
            }
            Kind::Fifo => self.share(Pipe::new).ok_or(Errno::ENXIO)?.open_fifo(how),
            Kind::Char => self.tree.devices.open(self.meta.rdev, path, how),
            _ => Err(Errno::ENXIO),
        }
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let data = self.data(true, None)?;
        self.cut(&data, len)
    }

    fn set_mode(&self, perm: u32) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        self.change_mode(perm)?;
        self.meta.perm.store(perm, Relaxed);
        Ok(())
    }

    fn set_owner(&self, uid: u32, gid: u32) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        let fd = self.fd()?;
        self.line().call(|| change::chown(fd.raw(), uid, gid))?;
        self.ask()
    }

    fn set_times(&self, access: SetTime, modify: SetTime) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        let raw = |time| match time {
            SetTime::Omit => change::OMIT,
            SetTime::Now => change::NOW,
            SetTime::To(time) => libc::timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() },
        };
        let times = [raw(access), raw(modify)];
        let fd = self.fd()?;
        self.line().call(|| change::set_times(fd.raw(), &times))
    }

    fn statfs(&self) -> Option<StatFs> {
        let fd = self.fd().ok()?;
        let raw = self.line().call(|| change::statfs(fd.raw())).ok()?;
        Some(StatFs {
            magic: raw.f_type as u64,
            bsize: raw.f_bsize as u64,
            blocks: raw.f_blocks,
            bfree: raw.f_bavail,
            files: raw.f_files,
            ffree: raw.f_ffree,
            flags: 0,
        })
    }

    fn sync_all(&self) -> Result<()> {
        let all: Vec<Arc<Node>> = self.tree.nodes.lock().all.values().filter_map(Weak::upgrade).collect();
        for node in all {
            node.pages.write_back(&node, 0..u64::MAX, self.line())?;
        }
        let fd = self.attributes_fd()?;
        self.line().call(|| change::sync_all(fd.raw()))
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        // What is not shown is not there.
        let hidden = [&b"trusted."[..], b"security."].iter().any(|space| name.starts_with(space));
        if hidden || !matches!(self.meta.kind, Kind::File | Kind::Dir) {
            return Err(Errno::ENODATA);
        }
        let name = xattr_name(name)?;
        let fd = self.attributes_fd()?;
        self.line().call(|| change::xattr(fd.raw(), &name))
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        let Ok(fd) = self.attributes_fd() else { return Ok(Vec::new()) };
        let all = self.line().call(|| change::xattr_names(fd.raw()))?;
        let names = all.split(|&b| b == 0).filter(|name| xattr_name(name).is_ok());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        let name = xattr_name(name)?;
        let fd = self.attributes_fd()?;
        self.line().call(|| change::set_xattr(fd.raw(), &name, value, flags))
    }

    fn through(&self) -> Option<&dyn Through> {
        Some(self)
    }

    fn drop_cache(&self) {
        self.pages.drop_clean();
    }

    fn shared(&self) -> Option<&Lock<Option<Arc<dyn Any + Send + Sync>>>> {
        Some(&self.shared)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The one name space of xattr(7) that is the host's: others mean something to its kernel.
fn xattr_name(name: &[u8]) -> Result<CString> {
    if name.starts_with(b"user.") && name.len() > 5 {
        CString::new(name).map_err(|_| Errno::EINVAL)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}
