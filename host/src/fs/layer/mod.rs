//! The writable file system: tmpfs, and the layer above the host's files.
//!
//! Both are the same thing: nodes in memory whose directories and files may have a host directory or file below.
//! Directory entries live in the dentry tree (see [`crate::vfs`]); a node knows only its attributes and content. A
//! host object becomes a node when it is first looked up, and a change touches the node alone:
//!
//! * a removed host name stays in the tree as "missing" (a whiteout),
//! * a directory made in its place has nothing below (it is opaque),
//! * a renamed directory takes its host directory along,
//! * a written file copies pages ([`content`]).
//!
//! All nodes of one layer have one `st_dev`; host inode numbers are kept.

pub mod changes;
pub mod content;
mod file;
pub mod lower;
mod seals;
#[cfg(test)]
mod tests;

use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::fs::dev::Devices;
use crate::fs::pipe::Pipe;
use crate::hostfd::HostFd;
use crate::platform::Capabilities;
use crate::sync::{HostLine, HostLines, Lock, Rank};
use crate::vfs::privileges::CAPABILITIES;
use crate::vfs::{
    Caller, Dentry, DirFile, FileOps, Inode, Kind, ListEntry, Meta, NewNode, OpenHow, Path, Quota, Stat,
    Superblock, Timestamp, Writing, makedev,
};
use content::Content;
use file::NodeFile;
use linux_raw_sys::general as c;
use lower::{HostStat, LowerDir};
use seals::Seals;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Inode numbers of what the sandbox makes start here, above those of hosts.
const FIRST_INO: u64 = 1 << 40;
/// Names of a listed host directory that are searched for one that is not there; in more of them the host is asked.
const SHORT_LIST: usize = 64;
/// statfs(2)
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// One file system instance.
pub struct Layer {
    next_ino: AtomicU64,
    /// Host files with several names: they become one node.
    linked: Lock<BTreeMap<(u64, u64), Weak<Node>>>,
    /// What opening device nodes leads to.
    devices: Arc<Devices>,
    /// The platform's, where host files lie below.
    caps: Option<Capabilities>,
    /// What it may hold, where that is less than all.
    quota: Option<Arc<Quota>>,
}

enum Body {
    Dir {
        lower: Option<Arc<LowerDir>>,
        list: Lock<Option<Arc<[ListEntry]>>>,
        size: u64,
    },
    File(Content),
    Symlink(Lock<Target>),
    /// Devices, FIFOs and sockets.
    Special,
}

enum Target {
    Text(Vec<u8>),
    /// Not read yet.
    Lower(Arc<LowerDir>, Box<[u8]>, u64),
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// An object of a layer.
pub struct Node {
    meta: Meta,
    layer: Arc<Layer>,
    body: Body,
    /// Blocks the host file takes, until it is changed.
    lower_blocks: u64,
    /// When what is below was last changed, as it was found ([`changes`]).
    found: i64,
    xattrs: Lock<Option<Box<Xattrs>>>,
    shared: Lock<Option<Arc<dyn Any + Send + Sync>>>,
    /// `F_SEAL_*` (fcntl(2)).
    seals: Seals,
}

impl Layer {
    fn new(devices: &Arc<Devices>, caps: Option<Capabilities>, quota: Option<Arc<Quota>>) -> Arc<Layer> {
        Arc::new(Layer {
            next_ino: AtomicU64::new(FIRST_INO),
            linked: Lock::new(Rank::LayerLinks, BTreeMap::new()),
            devices: devices.clone(),
            caps,
            quota,
        })
    }

    /// A file system in memory; its root directory has `perm`.
    pub fn tmpfs(dev: u32, fstype: &'static str, perm: u32, devices: &Arc<Devices>) -> Arc<Dentry> {
        Layer::mounted(dev, (fstype, TMPFS_MAGIC), perm, (0, 0), devices)
    }

    /// The same of one that a program has mounted, whose root is a user's.
    pub fn mounted(
        dev: u32,
        (fstype, magic): (&'static str, u64),
        perm: u32,
        (uid, gid): (u32, u32),
        devices: &Arc<Devices>,
    ) -> Arc<Dentry> {
        let quota: Arc<Quota> = Arc::default();
        let layer = Layer::new(devices, None, Some(quota.clone()));
        let meta = Meta::new(Kind::Dir, layer.new_ino(), perm).owned(uid, gid);
        // No limit yet.
        let _counted = quota.inodes.take();
        let root = layer.node(meta, layer.dir(None, 0));
        Dentry::root(&Superblock::limited(makedev(0, dev), fstype, magic, quota), root, b"/")
    }

    /// A layer above the host directory `root`, of which it asks by way of `lines`, with so many descriptors kept.
    ///
    /// # Errors
    /// The host's, or ENOTDIR.
    pub fn above(
        root: HostFd,
        dev: u32,
        caps: &Capabilities,
        devices: &Arc<Devices>,
        (lines, kept): (&Arc<HostLines>, usize),
    ) -> Result<Arc<Dentry>> {
        let layer = Layer::new(devices, Some(*caps), None);
        let (dir, stat) = LowerDir::root(root, lines.clone(), kept)?;
        let root = layer.of_host(&stat, layer.dir(Some(dir), stat.raw.stx_size));
        let sb = Superblock::new(makedev(0, dev), "overlay", OVERLAY_MAGIC);
        Ok(Dentry::root(&sb, root, b"/"))
    }

    /// A regular file without a name, in a file system of its own (memfd, shared memory).
    pub fn nameless(devices: &Arc<Devices>, name: &[u8], perm: u32) -> Arc<Dentry> {
        let layer = Layer::new(devices, None, None);
        let meta = Meta::new(Kind::File, layer.new_ino(), perm);
        meta.nlink.store(0, Ordering::Relaxed);
        let node = layer.node(meta, Body::File(Content::empty(None)));
        Dentry::root(&Superblock::new(makedev(0, 1), "tmpfs", TMPFS_MAGIC), node, name)
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    fn dir(&self, lower: Option<Arc<LowerDir>>, size: u64) -> Body {
        Body::Dir { lower, list: Lock::new(Rank::LayerListing, None), size }
    }

    fn node(self: &Arc<Self>, meta: Meta, body: Body) -> Arc<Node> {
        Arc::new(Node {
            meta,
            layer: self.clone(),
            body,
            lower_blocks: 0,
            found: changes::NOT_FOUND,
            xattrs: Lock::new(Rank::Xattrs, None),
            shared: Lock::new(Rank::InodeShared, None),
            seals: Seals::closed(),
        })
    }

    fn of_host(self: &Arc<Self>, stat: &HostStat, body: Body) -> Arc<Node> {
        let raw = &stat.raw;
        let kind = Kind::from_mode(raw.stx_mode.into()).unwrap_or(Kind::File);
        let mut meta =
            Meta::new(kind, stat.ino, u32::from(raw.stx_mode) & 0o7777).owned(raw.stx_uid, raw.stx_gid);
        meta.rdev = makedev(raw.stx_rdev_major, raw.stx_rdev_minor);
        meta.nlink.store(raw.stx_nlink, Ordering::Relaxed);
        let times = meta.times.get_mut();
        times.access = time_of(&raw.stx_atime);
        times.modify = time_of(&raw.stx_mtime);
        times.change = time_of(&raw.stx_ctime);
        times.birth = time_of(&raw.stx_btime);
        let found = changes::stamp(times.change);
        Arc::new(Node {
            meta,
            layer: self.clone(),
            body,
            lower_blocks: raw.stx_blocks,
            found,
            xattrs: Lock::new(Rank::Xattrs, None),
            shared: Lock::new(Rank::InodeShared, None),
            seals: Seals::closed(),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(quota) = &self.layer.quota {
            quota.inodes.give(1);
        }
    }
}

fn time_of(raw: &libc::statx_timestamp) -> Timestamp {
    Timestamp { sec: raw.tv_sec, nsec: raw.tv_nsec }
}

impl Node {
    /// The content of a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.body {
            Body::File(content) => Some(content),
            _ => None,
        }
    }

    /// Whether it lives in memory alone, as on tmpfs, with nothing of the host's below.
    pub fn is_tmpfs(&self) -> bool {
        self.layer.caps.is_none()
    }

    /// The way to the host calls that may be made for it.
    fn line(&self) -> &HostLine {
        &self.layer.devices.lines.near
    }

    /// What all who open this node share, made on first use.
    fn share<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        self.shared.lock().get_or_insert_with(|| make()).clone().downcast().ok()
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
        let mut stat = self.meta.stat();
        match &self.body {
            Body::Dir { size, lower, .. } => {
                stat.size = if lower.is_some() { *size } else { 4096 };
                stat.blocks = self.lower_blocks;
            }
            Body::File(content) => {
                stat.size = content.size();
                stat.blocks = content.blocks(self.lower_blocks);
            }
            Body::Symlink(target) => {
                stat.size = match &*target.lock() {
                    Target::Text(text) => text.len() as u64,
                    Target::Lower(_, _, len) => *len,
                }
            }
            Body::Special => {}
        }
        stat
    }

    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        let Body::Dir { lower, list, .. } = &self.body else { return Err(Errno::ENOTDIR) };
        let Some(lower) = lower else { return Ok(None) };
        if let Some(list) = &*list.lock()
            && list.len() <= SHORT_LIST
            && !list.iter().any(|entry| &*entry.name == name)
        {
            return Ok(None);
        }
        let Some(stat) = lower.stat(name)? else { return Ok(None) };
        let kind = Kind::from_mode(stat.raw.stx_mode.into()).unwrap_or(Kind::File);
        let several = kind != Kind::Dir && stat.raw.stx_nlink > 1;
        if several && let Some(known) = self.layer.linked.lock().get(&stat.id).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        let body = match kind {
            Kind::Dir => self.layer.dir(Some(lower.dir(name, &stat)), stat.raw.stx_size),
            Kind::File => {
                Body::File(Content::of_lower(lower.file(name, &stat), stat.raw.stx_size, self.layer.caps))
            }
            Kind::Symlink => Body::Symlink(Lock::new(
                Rank::SymlinkTarget,
                Target::Lower(lower.clone(), name.into(), stat.raw.stx_size),
            )),
            _ => Body::Special,
        };
        let node = self.layer.of_host(&stat, body);
        if several {
            self.layer.linked.lock().insert(stat.id, Arc::downgrade(&node));
        }
        Ok(Some(node))
    }

    fn has_lower(&self) -> bool {
        matches!(&self.body, Body::Dir { lower: Some(_), .. })
    }

    fn list(&self) -> Result<Arc<[ListEntry]>> {
        let Body::Dir { lower, list, .. } = &self.body else { return Err(Errno::ENOTDIR) };
        let Some(lower) = lower else { return Ok(Arc::new([])) };
        if let Some(list) = &*list.lock() {
            return Ok(list.clone());
        }
        let read: Arc<[ListEntry]> = lower.list()?.into();
        *list.lock() = Some(read.clone());
        Ok(read)
    }

    fn create(&self, _name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        if let Some(quota) = &self.layer.quota {
            quota.inodes.take()?;
        }
        let mut meta = Meta::new(new.kind, self.layer.new_ino(), new.perm).owned(new.uid, new.gid);
        meta.rdev = new.rdev;
        let body = match new.kind {
            Kind::Dir => self.layer.dir(None, 0),
            Kind::File => Body::File(Content::empty(self.layer.quota.clone())),
            Kind::Symlink => Body::Symlink(Lock::new(Rank::SymlinkTarget, Target::Text(new.target.to_vec()))),
            _ => Body::Special,
        };
        Ok(self.layer.node(meta, body))
    }

    fn can_edit(&self) -> Result<()> {
        Ok(())
    }

    fn can_setattr(&self) -> Result<()> {
        Ok(())
    }

    fn can_set_mode(&self, perm: u32) -> Result<()> {
        self.may_change_mode(perm)
    }

    fn readlink(&self, _caller: Caller) -> Result<Vec<u8>> {
        let Body::Symlink(target) = &self.body else { return Err(Errno::EINVAL) };
        let (dir, name) = match &*target.lock() {
            Target::Text(text) => return Ok(text.clone()),
            Target::Lower(dir, name, _) => (dir.clone(), name.clone()),
        };
        let text = dir.readlink(&name)?;
        *target.lock() = Target::Text(text.clone());
        Ok(text)
    }

    fn open(self: Arc<Self>, path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        match (&self.body, self.meta.kind) {
            (Body::Dir { .. }, _) => Ok(DirFile::new(path)),
            (Body::File(content), _) => {
                content.open()?;
                let writes = matches!(how.flags & c::O_ACCMODE, c::O_WRONLY | c::O_RDWR);
                let writing = if writes { Some(Writing::claim(&path.dentry.inode)?) } else { None };
                Ok(Arc::new(NodeFile::new(self, path, writing)))
            }
            (_, Kind::Fifo) => self.share(Pipe::new).ok_or(Errno::ENXIO)?.open_fifo(how),
            (_, Kind::Char) => self.layer.devices.open(self.meta.rdev, path, how),
            _ => Err(Errno::ENXIO),
        }
    }

    fn truncate(&self, len: u64) -> Result<()> {
        let content = self.content().ok_or(Errno::EINVAL)?;
        self.may_resize(len)?;
        content.truncate(len)?;
        self.meta.touch();
        Ok(())
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        check_xattr(name)?;
        let xattrs = self.xattrs.lock();
        xattrs.as_ref().and_then(|all| all.get(name)).cloned().ok_or(Errno::ENODATA)
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattrs.lock().as_ref().map_or_else(Vec::new, |all| all.keys().cloned().collect()))
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<()> {
        check_xattr(name)?;
        let mut xattrs = self.xattrs.lock();
        let all = xattrs.get_or_insert_default();
        let there = all.contains_key(name);
        match value {
            None if !there => return Err(Errno::ENODATA),
            None => drop(all.remove(name)),
            Some(_) if there && flags & c::XATTR_CREATE != 0 => return Err(Errno::EEXIST),
            Some(_) if !there && flags & c::XATTR_REPLACE != 0 => return Err(Errno::ENODATA),
            Some(value) => {
                ledger::admit(value.len() as u64)?;
                drop(all.insert(name.to_vec(), value.to_vec()));
            }
        }
        let capable = all.contains_key(CAPABILITIES);
        self.meta.capable.store(capable, Ordering::Relaxed);
        drop(xattrs);
        self.meta.changed();
        Ok(())
    }

    fn has_acls(&self) -> bool {
        true
    }

    fn has_flags(&self) -> bool {
        matches!(self.meta.kind, Kind::File | Kind::Dir)
    }

    fn drop_cache(&self) {
        if let Some(content) = self.content() {
            content.drop_cache();
        }
    }

    fn shared(&self) -> Option<&Lock<Option<Arc<dyn Any + Send + Sync>>>> {
        Some(&self.shared)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The name spaces of xattr(7) that are kept as they are given.
fn check_xattr(name: &[u8]) -> Result<()> {
    let known: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if known.iter().any(|space| name.starts_with(space) && name.len() > space.len()) {
        Ok(())
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}
