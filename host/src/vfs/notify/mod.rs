//! inotify(7): who is told of what happens to files.
//!
//! A watch is a mark on an inode, kept in its `Meta` beside the union of what all marks wait for. Whatever changes or
//! uses a file says so here, once it is done:
//!
//! | function | what happened | who is told |
//! |---|---|---|
//! | [`File::tell`] | an open file was read, written, opened, closed | watchers of its directory, with the name, then its own |
//! | [`dentry`] | attributes or the size changed by name | the same |
//! | [`inode`] | the number of its names changed, it was moved | its own watchers |
//! | [`name`] | a name came, went or moved | watchers of the directory |
//! | [`gone`] | the last name and the last user of a file went | its own watchers, for the last time |
//!
//! Order and contents are Linux's (include/linux/fsnotify.h). What nobody watches costs a look at its superblock, which
//! counts the marks on it; where there are some, one at the inode's mask and at the dentry, which knows whether its
//! directory is watched, without a lock.
//!
//! What others do to the host's files below a layer is not seen, as on overlayfs: nothing of the host's is watched, and
//! there are no host calls here. Nor is anybody told of what comes and goes by itself in /proc and /dev/pts, of pipes and
//! sockets without a name (through /proc/PID/fd), or of the end of mounts, which last as long as the sandbox.
//!
//! Lock order: a dentry's children → an inode's marks → an instance's state → users; none is held when waiters are woken.

mod marks;
mod queue;
mod users;

pub use marks::{Group, Marks};
pub use queue::Event;
pub use users::{MAX_QUEUED_EVENTS, MAX_USER_INSTANCES, MAX_USER_WATCHES, Users};

use super::{Dentry, File, Kind};
use crate::abi::Result;
use linux_raw_sys::general as c;
use marks::Happening;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Flags that stay with a watch.
const EXCL_UNLINK: u32 = c::IN_EXCL_UNLINK;
const ONESHOT: u32 = c::IN_ONESHOT;

/// What a directory's watchers are told of what is in it.
const ON_CHILD: u32 =
    c::IN_ACCESS | c::IN_MODIFY | c::IN_ATTRIB | c::IN_CLOSE_WRITE | c::IN_CLOSE_NOWRITE | c::IN_OPEN;

impl File {
    /// Tells those who watch the file that something was done through this description.
    #[inline]
    pub fn tell(&self, event: u32) {
        if let Some(path) = self.named() {
            file(&path.dentry, event);
        }
    }

    /// The same after an attempt to move bytes, unless none were moved.
    #[inline]
    pub fn told(&self, event: u32, result: Result<usize>) -> Result<usize> {
        if let Some(path) = self.named()
            && path.dentry.sb.is_watched()
        {
            tell_moved(&path.dentry, event, result);
        }
        result
    }

    /// Tells watchers, once, that a program has opened it; later they are told that it was closed. Not for handles on
    /// names.
    pub fn announce(&self) {
        if !self.is_path() && !self.announced.swap(true, Relaxed) {
            self.tell(c::IN_OPEN);
        }
    }
}

/// Something was done through an open file.
#[inline]
fn file(at: &Dentry, mask: u32) {
    if at.sb.is_watched() {
        tell(at, mask, true);
    }
}

/// Attributes of what a name stands for changed.
#[inline]
pub fn dentry(at: &Dentry, mask: u32) {
    if at.sb.is_watched() {
        tell(at, mask, false);
    }
}

/// Something happened to an inode, whatever its names.
#[inline]
pub(super) fn inode(at: &Dentry, mask: u32) {
    if at.sb.is_watched() {
        tell_inode(at, mask, false);
    }
}

/// The name `what` in the directory `dir` came, went or moved.
#[inline]
pub(super) fn name(dir: &Dentry, mask: u32, what: &[u8], kind: Kind, cookie: u32) {
    if dir.sb.is_watched() {
        tell_name(dir, mask | of_kind(kind), what, cookie);
    }
}

/// A name without a place is no longer used by anybody.
#[inline]
pub(super) fn gone(at: &Dentry) {
    if at.sb.is_watched() {
        tell_gone(at);
    }
}

fn of_kind(kind: Kind) -> u32 {
    if kind == Kind::Dir { c::IN_ISDIR } else { 0 }
}

#[cold]
fn tell_moved(at: &Dentry, mask: u32, result: Result<usize>) {
    if result.is_ok_and(|count| count > 0) {
        tell(at, mask, true);
    }
}

/// `opened`: it was done through an open file.
#[cold]
fn tell(at: &Dentry, mask: u32, opened: bool) {
    let unlinked = opened && at.is_dead();
    // Bytes that go through a device or a FIFO are nothing that its directory would show: who may not read the file
    // itself must not learn of them (a side channel that Linux closed in 6.17).
    let elsewhere = opened
        && mask & (c::IN_ACCESS | c::IN_MODIFY) != 0
        && !matches!(at.kind(), Kind::File | Kind::Dir | Kind::Symlink);
    if at.is_parent_watched() && !elsewhere {
        let (parent, name) = at.place();
        let happening = Happening { mask: mask | of_kind(at.kind()), cookie: 0, name: Some(&name), unlinked };
        match parent {
            Some(dir) if dir.inode.meta().marks.for_children() => dir.inode.meta().marks.tell(&happening),
            // The watch has ended.
            Some(dir) => at.forget_watch(&dir),
            None => {}
        }
    }
    tell_inode(at, mask, unlinked);
}

#[cold]
fn tell_inode(at: &Dentry, mask: u32, unlinked: bool) {
    let marks = &at.inode.meta().marks;
    if marks.want(mask) {
        // What has always been told without it stays so (fs/notify/inotify).
        let bare = mask & (c::IN_MOVE_SELF | c::IN_DELETE_SELF) != 0;
        let kind = if bare { 0 } else { of_kind(at.kind()) };
        marks.tell(&Happening { mask: mask | kind, cookie: 0, name: None, unlinked });
    }
}

#[cold]
fn tell_name(dir: &Dentry, mask: u32, what: &[u8], cookie: u32) {
    let marks = &dir.inode.meta().marks;
    if marks.want(mask) {
        let name: Arc<[u8]> = what.into();
        marks.tell(&Happening { mask, cookie, name: Some(&name), unlinked: false });
    }
}

#[cold]
fn tell_gone(at: &Dentry) {
    if at.inode.meta().nlink.load(Relaxed) == 0 {
        tell_inode(at, c::IN_DELETE_SELF, false);
        at.inode.meta().marks.end_all();
    }
}
