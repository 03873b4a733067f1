//! Names and open files: what Linux calls the VFS.
//!
//! * [`Inode`] is a file system's object, [`Dentry`] a cached name of one, [`Path`] a dentry under a [`Mount`].
//! * [`walk`] resolves names as path_resolution(7) says.
//! * [`File`] is an open file description, [`FileOps`] what it does, [`FdTable`] the numbers programs hold.
//! * [`FsContext`] is a task's root, working directory and umask.
//!
//! File operations never park: they return `EAGAIN` and the system call handler waits on [`FileOps::wait_queue`].
//!
//! Lock order (outer first): `Superblock::rename` → `Dentry` children, parent before child → an inode's own locks →
//! wait queues. A dentry's place (parent and name) is a leaf lock. A file's position comes before all: it is held while the
//! file is read or written.
//!
//! Directory entries of file systems that keep them (everything but /proc) live in the dentry tree: a missing child is
//! looked up in the inode once (the host directory below, if there is one); `None` in the tree means "known not to
//! exist", which is at the same time how a deleted host file stays hidden. Where names are the host's own ([`through`]), the
//! tree is a memory of them and no more.

pub mod acl;
mod anon;
mod attributes;
mod busy;
mod caches;
mod context;
mod dentry;
mod dirfile;
mod fdtable;
mod file;
mod fileflags;
mod flight;
mod handle;
mod inode;
mod locks;
mod make;
mod mount;
mod mounts;
mod namespace;
pub mod notify;
mod ops;
mod perms;
pub mod privileges;
mod quota;
mod rename;
mod resize;
mod ruins;
mod sigio;
mod stat;
mod superblock;
mod through;
mod walk;
mod watchers;

pub use attributes::SetTime;
pub use busy::{Executing, Writing};
pub use caches::drop_caches;
pub use context::FsContext;
pub use dentry::Dentry;
pub use dirfile::{DirEntry, DirFile};
pub use fdtable::{Fd, FdTable, is_cloexec};
pub use file::{ANON_DEV, File, FileOps, Ioctl, SETTABLE_FLAGS, Whence};
pub use fileflags::{of_xflags, statx_attributes};
pub use flight::{Carrier, Flight, Parcel};
pub use handle::{open_detached, open_handle};
pub use inode::{Inode, Kind, Link, ListEntry, Meta, NewNode};
pub use locks::{FileLock, FileLocks, Flock, LockSlot, LockTable, Sort};
pub use make::Extra;
pub use mount::statfs_flags;
pub use mount::{Mount, MountFlags, Path, Sharing};
pub use mounts::FileSystems;
pub use namespace::{Namespace, Propagation, relative};
pub use ops::OpenHow;
pub use perms::{Want, may, may_as, owner, sticky};
pub use quota::{Count, Quota};
pub use ruins::Ruins;
pub use sigio::{Owner, SignalDriven, Whom};
pub use stat::{Stat, StatFs, Timestamp, major, makedev, minor};
pub use superblock::Superblock;
pub use through::{Alone, Through};
pub use walk::{Caller, Found, Lookup, NAME_MAX, PATH_MAX, Resolve};
pub use watchers::{Watcher, Watchers};
