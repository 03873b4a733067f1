//! The host directory below: read-only, and assumed not to change.
//!
//! Every look-up is one component relative to a directory descriptor, never following a link: names in the host
//! cannot lead out of it, and what is a link there is followed in the sandbox's own tree.

use crate::abi::{Errno, Result};
use crate::fs::records;
use crate::hostfd::{self, HostFd, Origin};
use crate::hostsys::file;
use crate::sync::{HostLine, HostLines, Lock, Rank, Reach};
use crate::vfs::{Kind, ListEntry};
use linux_raw_sys::general as c;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Bytes of directory entries that are read at a time.
const ROOM: usize = 32 * 1024;

/// Keeps the number of host descriptors in bounds: the oldest are closed, and opened again when needed.
pub struct FdCache {
    limit: usize,
    /// The ways to make host calls that may hang.
    lines: Arc<HostLines>,
    open: Lock<VecDeque<Weak<Opened>>>,
    /// By device, as far as it is known: whose file system is far.
    reaches: Lock<BTreeMap<u64, Reach>>,
}

impl FdCache {
    /// A cache of at most `limit` descriptors, which are opened by way of `lines`.
    pub fn new(limit: usize, lines: Arc<HostLines>) -> Arc<Self> {
        let (open, reaches) = (VecDeque::new(), BTreeMap::new());
        Arc::new(FdCache {
            limit: limit.max(16),
            lines,
            open: Lock::new(Rank::LowerCache, open),
            reaches: Lock::new(Rank::LowerReaches, reaches),
        })
    }

    /// Finds out where device `dev` is, of something that is open there.
    fn learn(&self, dev: u64, fd: &HostFd) -> Result<()> {
        let known = self.reaches.lock().contains_key(&dev);
        if !known {
            let reach = self.lines.far.call(|| file::statfs_type(fd.raw())).map(reach_of)?;
            self.reaches.lock().insert(dev, reach);
        }
        Ok(())
    }

    /// Whether device `dev` is known to be near.
    fn is_near(&self, dev: u64) -> bool {
        self.reaches.lock().get(&dev) == Some(&Reach::Near)
    }

    fn add(&self, opened: &Arc<Opened>) {
        let mut closed = None;
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(opened));
        if open.len() > self.limit {
            closed = open.pop_front().and_then(|oldest| oldest.upgrade());
        }
        drop(open);
        if let Some(oldest) = closed {
            let gone = oldest.fd.lock().take();
            drop(gone);
        }
    }
}

/// Where a file system of this type is (`f_type` of statfs(2)). Of those that a process serves one cannot tell whether it is
/// on this machine.
pub fn reach_of(kind: u64) -> Reach {
    const FAR: [u32; 10] = [
        c::FUSE_SUPER_MAGIC,
        c::NFS_SUPER_MAGIC,
        c::SMB_SUPER_MAGIC,
        c::SMB2_SUPER_MAGIC,
        c::CIFS_SUPER_MAGIC,
        c::V9FS_MAGIC,
        c::CEPH_SUPER_MAGIC,
        c::AFS_SUPER_MAGIC,
        c::AFS_FS_MAGIC,
        c::CODA_SUPER_MAGIC,
    ];
    if FAR.contains(&(kind as u32)) { Reach::Far } else { Reach::Near }
}

/// Something in the host that is opened when first used.
pub struct Opened {
    fd: Lock<Option<HostFd>>,
    parent: Option<Arc<Opened>>,
    name: Box<[u8]>,
    flags: i32,
    /// The host device it is on.
    dev: u64,
    /// That is known to be near.
    near: AtomicBool,
    cache: Arc<FdCache>,
}

/// Numbers the host's devices, so that inode numbers of different ones do not collide.
struct Devices {
    root: u64,
    others: Lock<BTreeMap<u64, u64>>,
    /// Room for what the host says of a directory, kept for the next one while nobody uses it.
    room: Lock<Option<Vec<u8>>>,
}

/// Attributes of something in the host.
#[derive(Clone, Copy)]
pub struct HostStat {
    /// As the host tells it.
    pub raw: libc::statx,
    /// The inode number the sandbox shows.
    pub ino: u64,
    /// Which host file it is: device and inode number there.
    pub id: (u64, u64),
}

/// A directory of the host.
pub struct LowerDir {
    opened: Arc<Opened>,
    devices: Arc<Devices>,
    /// The host device it is on.
    dev: u64,
    /// Held while the descriptor's position is that of a listing; whether it has left the start.
    listing: Lock<bool>,
}

impl Opened {
    /// The way to make host calls about it.
    pub fn line(&self) -> &HostLine {
        if self.is_near() { &self.cache.lines.near } else { &self.cache.lines.far }
    }

    /// Whether it is known that nobody but the host's kernel is asked for it.
    pub fn is_near(&self) -> bool {
        if self.near.load(Ordering::Relaxed) {
            return true;
        }
        let near = self.cache.is_near(self.dev);
        self.near.store(near, Ordering::Relaxed);
        near
    }

    /// The descriptor, opened now if it is not.
    ///
    /// # Errors
    /// The host's.
    pub fn fd(self: &Arc<Self>) -> Result<HostFd> {
        if let Some(fd) = self.open_already() {
            return Ok(fd);
        }
        // From the first directory above that is open downwards.
        let mut closed = vec![self];
        let mut dir = loop {
            let Some(parent) = closed.last().and_then(|last| last.parent.as_ref()) else {
                return Err(Errno::EBADF);
            };
            match parent.open_already() {
                Some(fd) => break fd,
                None => closed.push(parent),
            }
        };
        while let Some(next) = closed.pop() {
            dir = next.open_now(&dir)?;
        }
        Ok(dir)
    }

    fn open_already(&self) -> Option<HostFd> {
        self.fd.lock().clone()
    }

    fn open_now(self: &Arc<Self>, parent: &HostFd) -> Result<HostFd> {
        let open = |flags| self.open_in(parent, &self.name, flags);
        let fd = match open(self.flags) {
            // What may not be listed may still be passed through.
            Err(Errno::EACCES) if self.flags & libc::O_DIRECTORY != 0 => {
                open(libc::O_PATH | libc::O_DIRECTORY)?
            }
            other => other?,
        };
        self.cache.learn(self.dev, &fd)?;
        *self.fd.lock() = Some(fd.clone());
        self.cache.add(self);
        Ok(fd)
    }

    fn open_in(self: &Arc<Self>, dir: &HostFd, name: &[u8], flags: i32) -> Result<HostFd> {
        let origin: Weak<Self> = Arc::downgrade(self);
        self.line().call(|| hostfd::files().open_below(dir, name, flags, origin))
    }
}

impl Drop for Opened {
    /// One after another: the host's directories may be nested deeply.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(parent) = above {
            above = Arc::into_inner(parent).and_then(|mut last| last.parent.take());
        }
    }
}

impl Origin for Opened {
    fn place(&self) -> (i32, Vec<u8>) {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some(parent) = &at.parent {
            names.push(&*at.name);
            at = parent;
        }
        names.reverse();
        (at.fd.lock().as_ref().map_or(-1, HostFd::raw), names.join(&b'/'))
    }
}

impl Devices {
    /// The inode number shown for a host inode: its own on the root's device, else with a device index on top.
    fn ino(&self, dev: u64, ino: u64) -> u64 {
        if dev == self.root {
            return ino;
        }
        let mut others = self.others.lock();
        let next = others.len() as u64 + 1;
        let index = *others.entry(dev).or_insert(next);
        ino ^ index << 48
    }
}

fn device(raw: &libc::statx) -> u64 {
    crate::vfs::makedev(raw.stx_dev_major, raw.stx_dev_minor)
}

impl LowerDir {
    /// The directory behind an open descriptor. Host calls about it, and about what is below, are made by way of `lines`.
    ///
    /// # Errors
    /// The host's, or ENOTDIR.
    pub fn root(fd: HostFd, lines: Arc<HostLines>, kept: usize) -> Result<(Arc<Self>, HostStat)> {
        let raw = file::statx(fd.raw(), b"", libc::AT_EMPTY_PATH)?;
        if Kind::from_mode(raw.stx_mode.into()) != Some(Kind::Dir) {
            return Err(Errno::ENOTDIR);
        }
        let dev = device(&raw);
        let cache = FdCache::new(kept, lines);
        cache.learn(dev, &fd)?;
        let opened = Arc::new(Opened {
            fd: Lock::new(Rank::LowerFd, Some(fd)),
            parent: None,
            name: Box::default(),
            flags: 0,
            dev,
            near: AtomicBool::new(false),
            cache,
        });
        let devices = Arc::new(Devices {
            root: dev,
            others: Lock::new(Rank::LowerDevices, BTreeMap::new()),
            room: Lock::new(Rank::LowerRoom, None),
        });
        let stat = HostStat { raw, ino: raw.stx_ino, id: (dev, raw.stx_ino) };
        Ok((Arc::new(LowerDir { opened, devices, dev, listing: Lock::new(Rank::LowerListing, false) }), stat))
    }

    /// Whether `opened` is what this directory has as `name`.
    pub fn has(&self, name: &[u8], opened: &Opened) -> bool {
        *opened.name == *name
            && opened.parent.as_ref().is_some_and(|parent| Arc::ptr_eq(parent, &self.opened))
    }

    /// Whether `self` is the directory that `above` has as `name`.
    pub fn is_below(&self, above: &LowerDir, name: &[u8]) -> bool {
        above.has(name, &self.opened)
    }

    /// Attributes of `name` in it.
    ///
    /// # Errors
    /// The host's.
    pub fn stat(&self, name: &[u8]) -> Result<Option<HostStat>> {
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        let dir = self.opened.fd()?;
        match self.opened.line().call(|| file::statx(dir.raw(), name, flags)) {
            Ok(raw) => {
                let dev = device(&raw);
                let ino = self.devices.ino(dev, raw.stx_ino);
                Ok(Some(HostStat { raw, ino, id: (dev, raw.stx_ino) }))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn below(&self, name: &[u8], stat: &HostStat, flags: i32) -> Arc<Opened> {
        Arc::new(Opened {
            fd: Lock::new(Rank::LowerFd, None),
            parent: Some(self.opened.clone()),
            name: name.into(),
            flags,
            dev: stat.id.0,
            near: AtomicBool::new(false),
            cache: self.opened.cache.clone(),
        })
    }

    /// The directory `name` in it. Opened for reading at once, as most directories that are looked into are listed.
    pub fn dir(&self, name: &[u8], stat: &HostStat) -> Arc<LowerDir> {
        let opened = self.below(name, stat, libc::O_RDONLY | libc::O_DIRECTORY);
        let (devices, dev) = (self.devices.clone(), stat.id.0);
        Arc::new(LowerDir { opened, devices, dev, listing: Lock::new(Rank::LowerListing, false) })
    }

    /// The regular file `name` in it. O_NONBLOCK: should it have become a FIFO, opening it must not hang.
    pub fn file(&self, name: &[u8], stat: &HostStat) -> Arc<Opened> {
        self.below(name, stat, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    /// The target of the symbolic link `name` in it.
    ///
    /// # Errors
    /// The host's.
    pub fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        let dir = self.opened.fd()?;
        self.opened.line().call(|| file::readlinkat(dir.raw(), name))
    }

    /// All names in it, `.` and `..` excepted.
    ///
    /// # Errors
    /// The host's.
    pub fn list(&self) -> Result<Vec<ListEntry>> {
        let mut room = self.devices.room.lock().take().unwrap_or_else(|| vec![0; ROOM]);
        let mut entries = Vec::new();
        let result = match self.opened.fd().and_then(|fd| self.read(&fd, &mut room, &mut entries)) {
            // Open for passing through only: the root, or a directory that may not be read, which is said here.
            Err(Errno::EBADF) => {
                let dir =
                    self.opened.open_in(&self.opened.fd()?, b".", libc::O_RDONLY | libc::O_DIRECTORY)?;
                self.read(&dir, &mut room, &mut entries)
            }
            other => other,
        };
        *self.devices.room.lock() = Some(room);
        result.map(|()| entries)
    }

    fn read(&self, dir: &HostFd, room: &mut [u8], entries: &mut Vec<ListEntry>) -> Result<()> {
        // Before the lock, for whoever waits in line.
        let _making = self.opened.line().enter()?;
        let mut moved = self.listing.lock();
        if *moved {
            file::rewind(dir.raw())?;
        }
        loop {
            let len = file::getdents(dir.raw(), room)?;
            if len == 0 {
                return Ok(());
            }
            *moved = true;
            records::parse(&room[..len], |ino| self.devices.ino(self.dev, ino), entries);
        }
    }
}
