//! Devices: what opening a device node leads to, by number; and the tree of /dev.

use crate::abi::{Errno, Result};
use crate::hostsys;
use crate::mm::{IoDst, IoSrc, Mappable, SharedMemory};
use crate::sync::HostLines;
use crate::vfs::{Dentry, File, FileOps, Kind, NewNode, OpenHow, Path, Whence, major, makedev, minor};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

use super::layer::Layer;
use super::pty::{PtyTable, SLAVE_MAJOR};

/// What opening a character device gives.
#[derive(Default)]
pub struct Devices {
    /// Pseudo-terminals.
    pub ptys: Arc<PtyTable>,
    /// The ways to make host calls that may hang.
    pub lines: Arc<HostLines>,
}

impl Devices {
    /// Opens the character device `rdev`.
    ///
    /// # Errors
    /// ENXIO if there is none.
    pub fn open(&self, rdev: u64, _path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        const NULL: u64 = makedev(1, 3);
        const ZERO: u64 = makedev(1, 5);
        const FULL: u64 = makedev(1, 7);
        const RANDOM: u64 = makedev(1, 8);
        const URANDOM: u64 = makedev(1, 9);
        const TTY: u64 = makedev(5, 0);
        const CONSOLE: u64 = makedev(5, 1);
        const PTMX: u64 = makedev(5, 2);
        match rdev {
            NULL => Ok(Arc::new(Null)),
            ZERO => Ok(Arc::new(Zero { full: false })),
            FULL => Ok(Arc::new(Zero { full: true })),
            RANDOM | URANDOM => Ok(Arc::new(Random)),
            PTMX => self.ptys.open_master(how),
            _ if major(rdev) == SLAVE_MAJOR => self.ptys.open_slave(minor(rdev), how),
            TTY => self.ptys.open_controlling(how),
            CONSOLE => self.ptys.open_console(how),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// Every position is fine, none matters.
fn seek_anywhere(pos: u64, offset: i64, whence: Whence) -> Result<u64> {
    let base = if whence == Whence::Current { pos as i64 } else { 0 };
    u64::try_from(base.wrapping_add(offset)).map_err(|_| Errno::EINVAL)
}

struct Null;

impl FileOps for Null {
    fn read(&self, _dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        Ok(0)
    }
    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        Ok(src.remaining())
    }
    fn seek(&self, _pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(0)
    }
    fn reopen(self: Arc<Self>, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(Null))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Zero {
    /// Writing fails: /dev/full.
    full: bool,
}

impl FileOps for Zero {
    #[inline]
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        dst.write_zeroes(dst.remaining())
    }
    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        if self.full { Err(Errno::ENOSPC) } else { Ok(src.remaining()) }
    }
    fn seek(&self, _pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(0)
    }
    fn mappable(&self, _file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        // Shared mappings of /dev/zero are shared memory (mem(4)); any size will do.
        (!self.full)
            .then(|| Arc::new(SharedMemory::new(1 << 46, b"/dev/zero (deleted)")) as Arc<dyn Mappable>)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Random;

impl FileOps for Random {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        let mut done = 0;
        let mut bytes = [0; 4096];
        while dst.remaining() > 0 {
            let part = dst.remaining().min(bytes.len());
            hostsys::file::random(&mut bytes[..part]);
            match dst.write_bytes(&bytes[..part]) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        Ok(src.remaining())
    }
    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        seek_anywhere(pos, offset, whence)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The tree of /dev.
///
/// # Errors
/// None in practice.
pub fn tree(dev: u32, devices: &Arc<Devices>) -> Result<Arc<Dentry>> {
    let root = Layer::tmpfs(dev, "devtmpfs", 0o755, devices);
    let add = |name: &str, kind, perm, rdev, target: &str| {
        let new = NewNode { kind, perm, uid: 0, gid: 0, rdev, target: target.as_bytes() };
        root.add(name.as_bytes(), || root.inode.create(name.as_bytes(), &new)).map(drop)
    };
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("console", 5, 1),
    ] {
        let perm = if name == "console" { 0o600 } else { 0o666 };
        add(name, Kind::Char, perm, makedev(major, minor), "")?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ] {
        add(name, Kind::Symlink, 0o777, 0, target)?;
    }
    for (name, perm) in [("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)] {
        add(name, Kind::Dir, perm & c::S_IRWXU | perm, 0, "")?;
    }
    Ok(root)
}
