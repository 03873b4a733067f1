//! inotify(7): the descriptor whose reads give events. What they are and who gets them is in [`crate::vfs::notify`].

use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::sync::WaitQueue;
use crate::vfs::notify::{Group, Users};
use crate::vfs::{File, FileOps, Ioctl, Whence, major, minor};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl::FIONREAD;
use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

/// An inotify instance that programs hold.
pub struct Inotify {
    group: Arc<Group>,
}

impl Inotify {
    /// An open one of `uid`'s; `flags` as inotify_init1(2).
    ///
    /// # Errors
    /// EMFILE if the user has too many.
    pub fn open(users: &Arc<Users>, uid: u32, flags: u32) -> Result<Arc<File>> {
        let inotify = Inotify { group: Group::new(users, uid)? };
        Ok(File::anon(Arc::new(inotify), c::O_RDONLY | flags & c::O_NONBLOCK))
    }

    /// Its watches and events.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        self.group.close();
    }
}

impl FileOps for Inotify {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        let mut done = 0;
        loop {
            let event = match self.group.take(dst.remaining()) {
                Ok(event) => event,
                // As many as fit.
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            };
            let bytes = event.to_bytes();
            // What could not be written is lost, and said to be, even after others that were.
            if dst.write_bytes(&bytes)? < bytes.len() {
                return Err(Errno::EFAULT);
            }
            done += bytes.len();
        }
    }

    fn poll(&self) -> u32 {
        if self.group.is_ready() { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.group.wait_queue())
    }

    fn seek(&self, pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        // It is allowed, and moves nothing.
        Ok(pos)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        match call.request {
            FIONREAD => {
                let unread = i32::try_from(self.group.unread()).unwrap_or(i32::MAX);
                call.mm.write_val(call.arg, &unread)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn describe(&self) -> String {
        "anon_inode:inotify".to_owned()
    }

    fn fdinfo(&self) -> String {
        let mut text = String::new();
        for (wd, ino, dev, mask) in self.group.watches() {
            // The device as the kernel itself packs it.
            let dev = u64::from(major(dev)) << 20 | u64::from(minor(dev));
            let _ =
                writeln!(text, "inotify wd:{wd:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 ");
        }
        text
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Inotify;
    use crate::abi::Errno;
    use crate::cred::Cred;
    use crate::fs::layer::Layer;
    use crate::mm::{IoDst, IoSrc};
    use crate::vfs::notify::Users;
    use crate::vfs::{
        Caller, Extra, File, FsContext, Kind, Lookup, Mount, MountFlags, Namespace, OpenHow, Path, Resolve,
    };
    use linux_raw_sys::general as c;
    use std::sync::Arc;

    struct Bench {
        fs: Arc<FsContext>,
        cred: Cred,
        users: Arc<Users>,
    }

    impl Bench {
        fn new() -> Bench {
            let root = Layer::tmpfs(1, "tmpfs", 0o755, &Arc::default());
            let ns = Namespace::new(Mount::new(1, root, "none", MountFlags::empty()));
            Bench { fs: FsContext::new(ns), cred: Cred::root(), users: Arc::default() }
        }

        fn lookup(&self) -> Lookup<'_> {
            Lookup { fs: &self.fs, cred: &self.cred, caller: Caller::default() }
        }

        fn path(&self, name: &[u8]) -> Path {
            self.lookup().resolve(None, name, Resolve::FOLLOW).unwrap()
        }

        fn open(&self, name: &[u8], flags: u32) -> Arc<File> {
            let how = OpenHow { flags, mode: 0o644, ..OpenHow::default() };
            let file = self.lookup().open(None, name, &how).unwrap();
            file.announce();
            file
        }

        fn watch(&self, name: &[u8]) -> Arc<File> {
            let file = Inotify::open(&self.users, 0, 0).unwrap();
            inotify(&file).group().watch(&self.path(name).dentry, c::IN_ALL_EVENTS).unwrap();
            file
        }
    }

    fn inotify(file: &Arc<File>) -> &Inotify {
        file.downcast().unwrap()
    }

    fn masks(file: &Arc<File>) -> Vec<u32> {
        std::iter::from_fn(|| inotify(file).group().take(4096).ok()).map(|event| event.mask).collect()
    }

    #[test]
    fn a_directory_is_not_told_what_goes_through_a_fifo() {
        let bench = Bench::new();
        bench.lookup().create(None, b"/fifo", Kind::Fifo, 0o600, Extra::None).unwrap();
        let (dir, own) = (bench.watch(b"/"), bench.watch(b"/fifo"));
        let fifo = bench.open(b"/fifo", c::O_RDWR | c::O_NONBLOCK);
        assert_eq!(fifo.write(&mut IoSrc::kernel(b"x")), Ok(1));
        assert_eq!(fifo.read(&mut IoDst::kernel(&mut [0])), Ok(1));
        assert_eq!(fifo.read(&mut IoDst::kernel(&mut [0])), Err(Errno::EAGAIN));
        drop(fifo);
        assert_eq!(masks(&dir), [c::IN_OPEN, c::IN_CLOSE_WRITE]);
        assert_eq!(masks(&own), [c::IN_OPEN, c::IN_MODIFY, c::IN_ACCESS, c::IN_CLOSE_WRITE]);
    }

    #[test]
    fn a_file_is_opened_before_it_is_truncated() {
        let bench = Bench::new();
        drop(bench.open(b"/file", c::O_WRONLY | c::O_CREAT));
        let own = bench.watch(b"/file");
        drop(bench.open(b"/file", c::O_WRONLY | c::O_TRUNC));
        assert_eq!(masks(&own), [c::IN_OPEN, c::IN_MODIFY, c::IN_CLOSE_WRITE]);
        drop(bench.open(b"/file", c::O_PATH));
        assert!(masks(&own).is_empty());
    }

    #[test]
    fn an_instance_takes_its_watches_along() {
        let bench = Bench::new();
        drop(bench.open(b"/file", c::O_WRONLY | c::O_CREAT));
        let path = bench.path(b"/file");
        let holders = Arc::strong_count(&path.dentry.inode);
        let (one, other) = (bench.watch(b"/file"), bench.watch(b"/file"));
        assert_eq!(Arc::strong_count(&path.dentry.inode), holders + 2);
        drop(one);
        drop(bench.open(b"/file", c::O_RDONLY));
        assert_eq!(masks(&other), [c::IN_OPEN, c::IN_CLOSE_NOWRITE]);
        inotify(&other).group().remove(1).unwrap();
        assert_eq!(Arc::strong_count(&path.dentry.inode), holders);
    }
}
