//! Open regular files of a layer.

use super::Node;
use super::seals::WritableMapping;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc, MapInfo, Mappable, Mm};
use crate::platform::Frame;
use crate::vfs::{File, FileOps, Inode, Ioctl, Path, Whence, Writing};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl::{FIBMAP, FICLONE, FICLONERANGE, FIONREAD, FS_IOC_FIEMAP as FIEMAP};
use std::any::Any;
use std::sync::{Arc, Weak};

/// An open regular file; also what is mapped.
pub(super) struct NodeFile {
    node: Arc<Node>,
    path: Path,
    _writing: Option<Writing>,
    /// Of a mapping: what it was made through.
    _open: Option<Arc<File>>,
    /// Of a shared mapping that can write.
    _mapping: Option<WritableMapping>,
}

impl NodeFile {
    pub(super) fn new(node: Arc<Node>, path: &Path, writing: Option<Writing>) -> Self {
        NodeFile { node, path: path.clone(), _writing: writing, _open: None, _mapping: None }
    }

    /// What a mapping holds.
    fn mapping(&self, file: &Arc<File>, mapping: Option<WritableMapping>) -> NodeFile {
        let (node, path) = (self.node.clone(), self.path.clone());
        NodeFile { node, path, _writing: None, _open: Some(file.clone()), _mapping: mapping }
    }

    fn content(&self) -> Result<&super::Content> {
        self.node.content().ok_or(Errno::EINVAL)
    }
}

impl FileOps for NodeFile {
    fn positioned(&self) -> bool {
        true
    }

    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        self.content()?.read(dst, offset.unwrap_or(0))
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        let offset = offset.unwrap_or(0);
        src.limit(self.node.may_write(offset, src.remaining())?);
        let count = self.content()?.write(src, offset)?;
        self.node.meta().touch();
        Ok(count)
    }

    fn append(&self, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        src.limit(self.node.may_write(self.content()?.size(), src.remaining())?);
        let done = self.content()?.append(src, self.node.line())?;
        self.node.meta().touch();
        Ok(done)
    }

    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => pos,
            Whence::End => self.content()?.size(),
            Whence::Data | Whence::Hole => {
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                return self.content()?.seek(from, whence);
            }
        };
        let new = (base as i64).checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        u64::try_from(new).map_err(|_| Errno::EINVAL)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        match call.request {
            FIONREAD => {
                call.mm.write_val(call.arg, &(self.content()?.size().min(i32::MAX as u64) as i32))?;
                Ok(0)
            }
            FIBMAP | FIEMAP => Err(if call.request == FIBMAP { Errno::EINVAL } else { Errno::EOPNOTSUPP }),
            // Nothing can be shared between files here, as on most file systems.
            FICLONE | FICLONERANGE => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn mappable(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        Some(Arc::new(self.mapping(file, None)))
    }

    fn mappable_for_writing(&self, file: &Arc<File>) -> Option<Arc<dyn Mappable>> {
        let mapping = self.node.map_for_writing()?;
        Some(Arc::new(self.mapping(file, Some(mapping))))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.node.truncate(len)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let content = self.content()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let keep = mode & c::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !c::FALLOC_FL_KEEP_SIZE {
            0 => {
                self.node.may_resize(end.max(content.size()))?;
                content.reserve(offset, len)?;
            }
            c::FALLOC_FL_PUNCH_HOLE if keep => {
                self.node.may_punch()?;
                content.punch(offset, len)?;
            }
            // Not on tmpfs (shmem_fallocate).
            c::FALLOC_FL_ZERO_RANGE if !self.node.is_tmpfs() => content.punch(offset, len)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keep && end > content.size() {
            content.truncate(end)?;
        }
        self.node.meta().touch();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Mappable for NodeFile {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        self.content()?.map_page(index, write)
    }

    fn size(&self) -> u64 {
        self.node.content().map_or(0, super::Content::size)
    }

    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        if let Some(content) = self.node.content() {
            content.ready(first, to);
        }
    }

    fn identity(&self) -> usize {
        self.node.content().map_or(0, super::Content::identity)
    }

    fn mapped(&self, mm: &Weak<Mm>) {
        if let Some(content) = self.node.content() {
            content.mappers().add(mm);
        }
    }

    fn unmapped(&self) {
        if let Some(content) = self.node.content() {
            content.mappers().ended();
        }
    }

    fn is_memory(&self) -> bool {
        self.node.content().is_none_or(super::Content::is_memory)
    }

    fn describe(&self) -> MapInfo {
        let stat = self.path.stat();
        // Seen from the top of the mounts: /proc/PID/maps of a chrooted task is the exception nobody reads.
        let mut root = self.path.mount.clone();
        while let Some(place) = root.place() {
            root = place.mount;
        }
        let root = Path { dentry: root.root.clone(), mount: root };
        MapInfo { dev: stat.dev, ino: stat.ino, mode: stat.mode, path: self.path.display(&root) }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.content()?.punch(offset, len)
    }
}
