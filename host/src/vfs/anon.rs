//! The inode of a file that has none: made when somebody asks for its path.

use super::{Caller, Dentry, File, FileOps, Inode, Kind, Link, Meta, OpenHow, Path, Stat};
use crate::abi::{Errno, Result};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

/// Stands for one open file.
pub(super) struct AnonInode {
    meta: Meta,
    file: Arc<File>,
}

impl AnonInode {
    /// One for `file`.
    pub(super) fn of(file: &Arc<File>) -> Arc<AnonInode> {
        let stat = file.ops().stat().unwrap_or_default();
        let kind = match stat.mode & c::S_IFMT {
            0 => Kind::Anon,
            _ => Kind::from_mode(stat.mode).unwrap_or(Kind::Anon),
        };
        let meta = Meta::new(kind, stat.ino, stat.mode & 0o7777).owned(stat.uid, stat.gid);
        Arc::new(AnonInode { meta, file: file.clone() })
    }

    /// Whether a name is of an open file that may be mounted where there are names.
    pub(super) fn is_bindable(dentry: &Dentry) -> bool {
        let inode = dentry.inode.as_any().downcast_ref::<Self>();
        inode.is_some_and(|inode| inode.file.ops().mounts_as().is_some())
    }
}

impl Inode for AnonInode {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn stat(&self) -> Stat {
        self.file.stat()
    }
    fn open(self: Arc<Self>, _path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        self.file.ops().clone().reopen(how)
    }
    fn follow(&self, _caller: Caller) -> Result<Link> {
        Err(Errno::EINVAL)
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.file.ops().truncate(len)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
