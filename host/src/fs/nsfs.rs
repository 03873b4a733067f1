//! nsfs: namespaces as files (namespaces(7), "The /proc/pid/ns/ directory").
//!
//! An open one keeps its namespace, whoever else has left it. What can be asked of it is ioctl_ns(2)'s, what is done with it
//! setns(2)'s (`syscalls::processes::ns`). One that is mounted (ip-netns(8)) is kept as long as it is; those of mounts are not.

use crate::abi::Result;
use crate::kernel::namespaces::Ns;
use crate::vfs::{File, FileOps, OpenHow, Stat, makedev};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The device that Linux usually has them on.
const DEV: u64 = makedev(0, 4);

/// An open one.
pub struct NsFile(Ns);

impl NsFile {
    /// Opens a namespace.
    pub fn open(of: Ns) -> Arc<File> {
        File::anon(Arc::new(NsFile(of)), c::O_RDONLY)
    }

    /// The namespace.
    pub fn namespace(&self) -> &Ns {
        &self.0
    }
}

impl FileOps for NsFile {
    fn stat(&self) -> Option<Stat> {
        let (dev, ino) = (DEV, self.0.inode());
        Some(Stat { dev, ino, mode: c::S_IFREG | 0o444, nlink: 1, blksize: 4096, ..Stat::default() })
    }

    fn reopen(self: Arc<Self>, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(self)
    }

    fn describe(&self) -> String {
        self.0.text()
    }

    fn magic(&self) -> u64 {
        NSFS_MAGIC
    }

    fn mounts_as(&self) -> Option<&'static str> {
        // (A mount that keeps the mounts that keep it would never end.)
        if matches!(self.0, Ns::Mounts(_)) { None } else { Some("nsfs") }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
