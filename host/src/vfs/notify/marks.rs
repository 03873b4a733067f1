//! Who watches an inode: a mark for each instance that does.

use super::queue::{Event, Queue};
use super::users::{MAX_QUEUED_EVENTS, User, Users};
use super::{EXCL_UNLINK, ON_CHILD, ONESHOT};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank, WaitQueue};
use crate::vfs::{Dentry, Inode, Kind, Superblock};
use linux_raw_sys::general as c;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// The events that can be waited for and the flags that stay with a watch.
const KEPT: u32 = c::IN_ALL_EVENTS | EXCL_UNLINK | ONESHOT;
/// Events that end a wait for something to read.
const READABLE: u32 = c::POLLIN | c::POLLRDNORM;

/// The marks of one inode, part of its `Meta`.
pub struct Marks {
    /// What any of them waits for.
    mask: AtomicU32,
    list: Lock<Vec<Arc<Mark>>>,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { mask: AtomicU32::new(0), list: Lock::new(Rank::InodeMarks, Vec::new()) }
    }
}

/// One watch: an instance's interest in an inode.
pub(super) struct Mark {
    wd: i32,
    group: Weak<Group>,
    /// Kept alive by being watched.
    inode: Arc<dyn Inode>,
    sb: Arc<Superblock>,
    /// [`KEPT`] bits.
    mask: AtomicU32,
}

/// Something that happened to an inode or to a name in it.
pub(super) struct Happening<'a> {
    pub(super) mask: u32,
    pub(super) cookie: u32,
    pub(super) name: Option<&'a Arc<[u8]>>,
    /// It was done through an open file whose name has gone.
    pub(super) unlinked: bool,
}

impl Marks {
    /// Whether somebody waits for what can happen to the children of this directory.
    pub(in crate::vfs) fn for_children(&self) -> bool {
        self.mask.load(Ordering::Acquire) & ON_CHILD != 0
    }

    /// Whether somebody waits for any of these events.
    pub(super) fn want(&self, mask: u32) -> bool {
        self.mask.load(Ordering::Acquire) & mask & c::IN_ALL_EVENTS != 0
    }

    /// Tells those who wait for it.
    pub(super) fn tell(&self, what: &Happening<'_>) {
        if !self.want(what.mask) {
            return;
        }
        let marks = self.list.lock().clone();
        for mark in marks {
            mark.tell(what);
        }
    }

    /// Ends all watches: the inode has gone.
    pub(super) fn end_all(&self) {
        let marks = self.list.lock().clone();
        for mark in marks {
            if let Some(group) = mark.group.upgrade() {
                let _ended = group.remove(mark.wd);
            }
        }
    }

    /// To be called with every change of the list or of a mark in it.
    fn recount(&self, list: &[Arc<Mark>]) {
        let all = list.iter().fold(0, |all, mark| all | mark.mask.load(Ordering::Relaxed));
        self.mask.store(all & c::IN_ALL_EVENTS, Ordering::Release);
    }
}

impl Mark {
    fn tell(&self, what: &Happening<'_>) {
        let wanted = self.mask.load(Ordering::Relaxed);
        if wanted & what.mask & c::IN_ALL_EVENTS == 0 || (what.unlinked && wanted & EXCL_UNLINK != 0) {
            return;
        }
        let Some(group) = self.group.upgrade() else { return };
        let event = Event { wd: self.wd, mask: what.mask, cookie: what.cookie, name: what.name.cloned() };
        if group.post(event, wanted & ONESHOT != 0) {
            self.detach();
        }
    }

    /// Takes the mark, whose watch has ended, off its inode.
    fn detach(&self) {
        let marks = &self.inode.meta().marks;
        let mut list = marks.list.lock();
        let at = list.iter().position(|mark| std::ptr::eq(&raw const **mark, self));
        let gone = at.map(|at| list.remove(at));
        marks.recount(&list);
        drop(list);
        if gone.is_some() {
            self.sb.unwatch();
        }
    }
}

/// What an instance has: its watches and what they have seen.
struct State {
    queue: Queue,
    watches: BTreeMap<i32, Arc<Mark>>,
    /// The last watch descriptor given: they are not used again soon.
    last: i32,
}

/// An inotify instance.
pub struct Group {
    state: Lock<State>,
    wait: WaitQueue,
    user: User,
}

impl Group {
    /// One of `uid`'s.
    ///
    /// # Errors
    /// EMFILE if the user has too many.
    pub fn new(users: &Arc<Users>, uid: u32) -> Result<Arc<Group>> {
        let user = User::with_instance(users, uid)?;
        let state = State { queue: Queue::new(MAX_QUEUED_EVENTS), watches: BTreeMap::new(), last: 0 };
        Ok(Arc::new(Group { state: Lock::new(Rank::NotifyGroup, state), wait: WaitQueue::new(), user }))
    }

    /// Watches what `dentry` names, with a mask as inotify_add_watch(2) takes it, and returns the watch descriptor.
    ///
    /// # Errors
    /// EEXIST if it is watched, with IN_MASK_CREATE; ENOSPC if the user has too many watches.
    pub fn watch(self: &Arc<Self>, dentry: &Arc<Dentry>, mask: u32) -> Result<i32> {
        let marks = &dentry.inode.meta().marks;
        let mut list = marks.list.lock();
        let known = list.iter().find(|mark| std::ptr::eq(mark.group.as_ptr(), Arc::as_ptr(self)));
        let wd = match known {
            // One whose watch has just been removed is on its way out of the list.
            Some(mark) if self.state.lock().watches.contains_key(&mark.wd) => {
                if mask & c::IN_MASK_CREATE != 0 {
                    return Err(Errno::EEXIST);
                }
                let kept = if mask & c::IN_MASK_ADD != 0 { mark.mask.load(Ordering::Relaxed) } else { 0 };
                mark.mask.store(kept | mask & KEPT, Ordering::Relaxed);
                mark.wd
            }
            _ => {
                let mark = self.add(dentry, mask & KEPT)?;
                let wd = mark.wd;
                list.push(mark);
                dentry.sb.watch();
                wd
            }
        };
        marks.recount(&list);
        drop(list);
        if dentry.kind() == Kind::Dir {
            dentry.tell_children();
        }
        Ok(wd)
    }

    fn add(self: &Arc<Self>, dentry: &Arc<Dentry>, mask: u32) -> Result<Arc<Mark>> {
        let mut state = self.state.lock();
        loop {
            state.last = state.last.checked_add(1).unwrap_or(1);
            if !state.watches.contains_key(&state.last) {
                break;
            }
        }
        self.user.add_watch()?;
        let mark = Arc::new(Mark {
            wd: state.last,
            group: Arc::downgrade(self),
            inode: dentry.inode.clone(),
            sb: dentry.sb.clone(),
            mask: AtomicU32::new(mask),
        });
        state.watches.insert(mark.wd, mark.clone());
        Ok(mark)
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// EINVAL if there is none.
    pub fn remove(&self, wd: i32) -> Result<()> {
        let mut state = self.state.lock();
        let mark = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
        let more = state.queue.push(Event::plain(wd, c::IN_IGNORED));
        drop(state);
        self.user.remove_watches(1);
        mark.detach();
        if more {
            self.wait.notify(READABLE);
        }
        Ok(())
    }

    /// Adds an event, unless its watch has ended. With `once` that ends it; returns whether it did.
    fn post(&self, event: Event, once: bool) -> bool {
        let mut state = self.state.lock();
        let wd = event.wd;
        if !state.watches.contains_key(&wd) {
            return false;
        }
        let mut more = state.queue.push(event);
        if once {
            state.watches.remove(&wd);
            more |= state.queue.push(Event::plain(wd, c::IN_IGNORED));
        }
        drop(state);
        if once {
            self.user.remove_watches(1);
        }
        if more {
            self.wait.notify(READABLE);
        }
        once
    }

    /// Takes the oldest event out if it takes at most `room` bytes.
    ///
    /// # Errors
    /// EAGAIN if there is none, EINVAL if it is larger.
    pub fn take(&self, room: usize) -> Result<Event> {
        let mut state = self.state.lock();
        match state.queue.first() {
            None => Err(Errno::EAGAIN),
            Some(event) if event.size() > room => Err(Errno::EINVAL),
            Some(_) => state.queue.pop().ok_or(Errno::EAGAIN),
        }
    }

    /// Bytes that all unread events take.
    pub fn unread(&self) -> usize {
        self.state.lock().queue.bytes()
    }

    /// Whether there is something to read.
    pub fn is_ready(&self) -> bool {
        self.state.lock().queue.first().is_some()
    }

    /// What is notified when there is.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// Its watches, newest first, as (wd, inode number, device, mask).
    pub fn watches(&self) -> Vec<(i32, u64, u64, u32)> {
        let state = self.state.lock();
        let all = state.watches.iter().rev();
        all.map(|(wd, mark)| (*wd, mark.inode.meta().ino, mark.sb.dev, mark.mask.load(Ordering::Relaxed)))
            .collect()
    }

    /// Ends all watches: nobody will read any more.
    pub fn close(&self) {
        let watches = std::mem::take(&mut self.state.lock().watches);
        for mark in watches.values() {
            mark.detach();
        }
        self.user.remove_watches(watches.len());
    }
}
