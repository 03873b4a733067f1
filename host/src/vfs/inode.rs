//! A file system's objects.

use super::acl::Acls;
use super::busy::Users;
use super::notify::Marks;
use super::{Caller, File, FileOps, LockSlot, OpenHow, Path, SetTime, Stat, StatFs, Through, Timestamp};
use crate::abi::{Errno, Result};
use crate::sync::{HostLine, Lock, Rank};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// FIFO.
    Fifo,
    /// Unix socket.
    Socket,
    /// None of these (epoll, eventfd...: `stat` shows no type).
    Anon,
}

impl Kind {
    /// `S_IFMT` bits.
    pub const fn mode(self) -> u32 {
        match self {
            Kind::File => c::S_IFREG,
            Kind::Dir => c::S_IFDIR,
            Kind::Symlink => c::S_IFLNK,
            Kind::Char => c::S_IFCHR,
            Kind::Block => c::S_IFBLK,
            Kind::Fifo => c::S_IFIFO,
            Kind::Socket => c::S_IFSOCK,
            Kind::Anon => 0,
        }
    }

    /// From `S_IFMT` bits; 0 is a regular file, as for mknod(2).
    pub const fn from_mode(mode: u32) -> Option<Kind> {
        Some(match mode & c::S_IFMT {
            c::S_IFREG | 0 => Kind::File,
            c::S_IFDIR => Kind::Dir,
            c::S_IFLNK => Kind::Symlink,
            c::S_IFCHR => Kind::Char,
            c::S_IFBLK => Kind::Block,
            c::S_IFIFO => Kind::Fifo,
            c::S_IFSOCK => Kind::Socket,
            _ => return None,
        })
    }

    /// `d_type` of getdents(2).
    pub const fn dirent_type(self) -> u8 {
        (self.mode() >> 12) as u8
    }

    /// From `d_type`.
    pub const fn from_dirent_type(kind: u8) -> Option<Kind> {
        if kind == 0 { None } else { Kind::from_mode((kind as u32) << 12) }
    }
}

/// Attributes every inode keeps. Permission checks read them without locks.
pub struct Meta {
    /// Type.
    pub kind: Kind,
    /// Inode number, unique on its superblock.
    pub ino: u64,
    /// Device that a device node stands for.
    pub rdev: u64,
    /// Permission bits (07777).
    pub perm: AtomicU32,
    /// Owner.
    pub uid: AtomicU32,
    /// Group.
    pub gid: AtomicU32,
    /// Whether it has capabilities for those who execute it (see [`super::privileges`]).
    pub capable: AtomicBool,
    /// Access control lists.
    pub acls: Acls,
    /// `FS_*_FL` of ioctl_iflags(2), where programs can set them ([`Inode::has_flags`]).
    pub flags: AtomicU32,
    /// Hard links.
    pub nlink: AtomicU32,
    /// Never had a name, and may get one (O_TMPFILE without O_EXCL).
    pub(super) linkable: AtomicBool,
    /// Times.
    pub times: Lock<Times>,
    /// Who writes or executes it.
    pub(super) users: Users,
    /// Who watches it.
    pub(super) marks: Marks,
    /// Advisory locks, once somebody takes one.
    pub(super) locks: LockSlot,
}

/// The times of an inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Last read.
    pub access: Timestamp,
    /// Last write.
    pub modify: Timestamp,
    /// Last change of attributes.
    pub change: Timestamp,
    /// Creation.
    pub birth: Timestamp,
}

impl Meta {
    /// Attributes of something made now, owned by root.
    pub fn new(kind: Kind, ino: u64, perm: u32) -> Self {
        let now = Timestamp::now();
        Meta {
            kind,
            ino,
            rdev: 0,
            perm: AtomicU32::new(perm),
            uid: AtomicU32::new(0),
            gid: AtomicU32::new(0),
            capable: AtomicBool::new(false),
            acls: Acls::none(),
            flags: AtomicU32::new(0),
            linkable: AtomicBool::new(false),
            nlink: AtomicU32::new(if kind == Kind::Dir { 2 } else { 1 }),
            times: Lock::new(Rank::InodeTimes, Times { access: now, modify: now, change: now, birth: now }),
            users: Users::default(),
            marks: Marks::default(),
            locks: LockSlot::new(Rank::FileLockSlot, None),
        }
    }

    /// The same with an owner.
    pub fn owned(self, uid: u32, gid: u32) -> Self {
        self.uid.store(uid, Relaxed);
        self.gid.store(gid, Relaxed);
        self
    }

    /// Type and permission bits.
    pub fn mode(&self) -> u32 {
        self.kind.mode() | self.perm.load(Relaxed)
    }

    /// Notes a change of content: mtime and ctime.
    pub fn touch(&self) {
        let now = Timestamp::now();
        let mut times = self.times.lock();
        times.modify = now;
        times.change = now;
    }

    /// Notes a change of attributes: ctime.
    pub fn changed(&self) {
        self.times.lock().change = Timestamp::now();
    }

    /// What stat(2) shows, without size and device.
    pub fn stat(&self) -> Stat {
        let times = *self.times.lock();
        Stat {
            ino: self.ino,
            mode: self.mode(),
            nlink: self.nlink.load(Relaxed),
            uid: self.uid.load(Relaxed),
            gid: self.gid.load(Relaxed),
            rdev: self.rdev,
            blksize: 4096,
            atime: times.access,
            mtime: times.modify,
            ctime: times.change,
            btime: times.birth,
            ..Stat::default()
        }
    }
}

/// What is to be made by [`Inode::create`].
#[derive(Clone, Debug)]
pub struct NewNode<'a> {
    /// Type.
    pub kind: Kind,
    /// Permission bits, umask already applied.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for device nodes.
    pub rdev: u64,
    /// Target, for symbolic links.
    pub target: &'a [u8],
}

/// Where a symbolic link leads.
pub enum Link {
    /// A name to be resolved from the link's directory.
    Name(Vec<u8>),
    /// A place, reached without a name (/proc/PID/cwd).
    Jump(Path),
    /// An open file (/proc/PID/fd/N).
    File(Arc<File>),
}

/// One name in a directory that an inode lists.
#[derive(Clone, Debug)]
pub struct ListEntry {
    /// The name.
    pub name: Box<[u8]>,
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub kind: Kind,
}

/// A file system object. Default methods return what Linux returns where the operation makes no sense.
pub trait Inode: Send + Sync {
    /// Common attributes.
    fn meta(&self) -> &Meta;

    /// Whether it is a directory that never has anything in it: a place to mount something at.
    fn is_always_empty(&self) -> bool {
        false
    }

    /// The way to the host calls that its open files make, if they make any: they are read and written in turn then, and
    /// who waits for that may have to wait long.
    fn host_line(&self) -> Option<&HostLine> {
        None
    }

    /// What stat(2) shows (device and mount are filled in by the caller).
    fn stat(&self) -> Stat {
        self.meta().stat()
    }

    /// Finds `name` in this directory, where the dentry tree does not know it yet. `Ok(None)`: no such entry.
    ///
    /// # Errors
    /// What reading the directory returned.
    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Whether [`lookup`](Self::lookup) may find something that the dentry tree does not hold: then a removed name
    /// must be remembered as missing.
    fn has_lower(&self) -> bool {
        false
    }

    /// Names in this directory that may be missing in the dentry tree. Order is what programs see.
    ///
    /// # Errors
    /// What reading the directory returned.
    fn list(&self) -> Result<Arc<[ListEntry]>> {
        Ok(Arc::new([]))
    }

    /// Makes a new object to be entered as `name` here.
    ///
    /// # Errors
    /// EROFS/EPERM where the file system cannot.
    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let _ = (name, new);
        Err(Errno::EPERM)
    }

    /// Whether names can be added, removed and renamed here.
    ///
    /// # Errors
    /// EPERM or EROFS where not.
    fn can_edit(&self) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Whether the files in this directory are the file system's own, so that only directories can be made and removed here, and
    /// nothing is renamed (cgroups(7)).
    fn has_fixed_files(&self) -> bool {
        false
    }

    /// rmdir(2) of a directory whose own files do not count: it is no more, or cannot go. None: of any other.
    fn vanish(&self) -> Option<Result<()>> {
        None
    }

    /// Where this symbolic link leads.
    ///
    /// # Errors
    /// EINVAL if it is none.
    fn follow(&self, caller: Caller) -> Result<Link> {
        Ok(Link::Name(self.readlink(caller)?))
    }

    /// The text of this symbolic link.
    ///
    /// # Errors
    /// EINVAL if it is none.
    fn readlink(&self, caller: Caller) -> Result<Vec<u8>> {
        let _ = caller;
        Err(Errno::EINVAL)
    }

    /// Opens it. `path` is the name used, `how` what for. Permissions have been checked.
    ///
    /// # Errors
    /// ENXIO where it cannot be opened.
    fn open(self: Arc<Self>, path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let _ = (path, how);
        Err(Errno::ENXIO)
    }

    /// Changes the length of a regular file.
    ///
    /// # Errors
    /// EINVAL where it has none.
    fn truncate(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(Errno::EINVAL)
    }

    /// Whether attributes can be changed.
    ///
    /// # Errors
    /// EPERM where not.
    fn can_setattr(&self) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Whether its permission bits can become these.
    ///
    /// # Errors
    /// EPERM where not.
    fn can_set_mode(&self, perm: u32) -> Result<()> {
        let _ = perm;
        Ok(())
    }

    /// Gives it these permission bits. The caller may.
    ///
    /// # Errors
    /// What keeping them elsewhere returned.
    fn set_mode(&self, perm: u32) -> Result<()> {
        self.meta().perm.store(perm, Relaxed);
        Ok(())
    }

    /// Gives it to these; `u32::MAX` leaves an id. The caller may.
    ///
    /// # Errors
    /// What keeping them elsewhere returned.
    fn set_owner(&self, uid: u32, gid: u32) -> Result<()> {
        let meta = self.meta();
        for (slot, id) in [(&meta.uid, uid), (&meta.gid, gid)] {
            if id != u32::MAX {
                slot.store(id, Relaxed);
            }
        }
        Ok(())
    }

    /// Sets the times of the last read and write. The caller may.
    ///
    /// # Errors
    /// What keeping them elsewhere returned.
    fn set_times(&self, access: SetTime, modify: SetTime) -> Result<()> {
        let now = Timestamp::now();
        let mut times = self.meta().times.lock();
        if let Some(time) = access.at(now) {
            times.access = time;
        }
        if let Some(time) = modify.at(now) {
            times.modify = time;
        }
        times.change = now;
        Ok(())
    }

    /// Brings [`meta`](Self::meta) up to date, where others change it, too.
    fn refresh(&self) {}

    /// What statfs(2) shows, where it is not what all of the sandbox's own file systems share.
    fn statfs(&self) -> Option<StatFs> {
        None
    }

    /// syncfs(2): everything on its file system.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT.
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    /// What it does beside, where names are the host's.
    fn through(&self) -> Option<&dyn Through> {
        None
    }

    /// Called when the last name went away.
    fn unlinked(&self) {}

    /// An extended attribute.
    ///
    /// # Errors
    /// ENODATA or EOPNOTSUPP.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all extended attributes.
    ///
    /// # Errors
    /// EOPNOTSUPP.
    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether it can have access control lists (acl(5)).
    fn has_acls(&self) -> bool {
        false
    }

    /// Whether it keeps the flags of ioctl_iflags(2).
    fn has_flags(&self) -> bool {
        false
    }

    /// Drops what can be had again: memory is short.
    fn drop_cache(&self) {}

    /// Sets (`Some`) or removes an extended attribute; `flags` as setxattr(2).
    ///
    /// # Errors
    /// EOPNOTSUPP, EEXIST, ENODATA.
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<()> {
        let _ = (name, value, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// The slot that holds what is shared by all who open this inode (a FIFO's pipe, a socket's address).
    fn shared(&self) -> Option<&Lock<Option<Arc<dyn Any + Send + Sync>>>> {
        None
    }

    /// What it is all about, where that is one thing: /proc/PID's process.
    fn about(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    /// For downcasting by the file system itself.
    fn as_any(&self) -> &dyn Any;
}
