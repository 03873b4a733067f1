//! epoll(7): waiting for many files at once.
//!
//! An item registers on its file's queue once; when notified it enters the ready list (`ready`). Waiting takes items off
//! that list and asks their files what holds; level-triggered ones that still hold go back to its end. Epolls that watch
//! epolls are `nesting`'s.
//!
//! Lock order: an epoll's `items` → a file's watchers, or its wait queue → the ready list, or queues of this epoll. Those
//! who watch an epoll are told without its queue's lock: theirs are of the same kind. Files are asked (`poll`), upgraded and dropped without any of these held.

mod nesting;
mod ready;

pub use ready::{Event, Taken};

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank, WaitQueue, Waiter};
use crate::vfs::{File, FileOps, Watcher, Whence};
use linux_raw_sys::general as c;
use ready::{EPOLLET, EPOLLEXCLUSIVE, EPOLLWAKEUP, FLAGS, Handle, Item, Ready};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Reported whether asked for or not.
const ALWAYS: u32 = c::POLLERR | c::POLLHUP;
/// What may go with EPOLLEXCLUSIVE.
const EXCLUSIVE: u32 = c::POLLIN | c::POLLOUT | ALWAYS | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

struct Watched {
    item: Arc<Item>,
    waiter: Arc<Waiter>,
    /// Of the file, which is gone itself by the time that it says so.
    ops: Weak<dyn FileOps>,
    /// It is an epoll, too.
    nested: bool,
}

impl Watched {
    /// Lets nothing come of it any more.
    fn end(&self) {
        self.item.events.store(0, Ordering::Release);
        if let Some(ops) = self.ops.upgrade()
            && let Some(queue) = ops.wait_queue()
        {
            queue.unregister(&self.waiter);
        }
    }
}

/// Descriptor and file: closing a descriptor and opening another file under its number makes another key.
type Key = (i32, usize);

fn key(fd: i32, file: &Arc<File>) -> Key {
    (fd, Arc::as_ptr(file) as usize)
}

#[derive(Default)]
struct Items {
    all: BTreeMap<Key, Watched>,
    /// Those of them that are epolls.
    nested: usize,
}

impl Items {
    fn remove(&mut self, key: Key) -> Option<Watched> {
        let watched = self.all.remove(&key)?;
        self.nested -= usize::from(watched.nested);
        Some(watched)
    }
}

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    /// Two that start to watch each other at once would not see it.
    changing: Arc<Lock<()>>,
    /// The open file that this is.
    file: OnceLock<Weak<File>>,
    items: Lock<Items>,
    ready: Arc<Ready>,
}

impl Epoll {
    /// A new instance, open. `changing` is held while one of the sandbox's starts to watch another.
    pub fn open(changing: &Arc<Lock<()>>) -> Arc<File> {
        let epoll = Arc::new_cyclic(|me| Epoll {
            me: me.clone(),
            changing: changing.clone(),
            file: OnceLock::new(),
            items: Lock::new(Rank::EpollItems, Items::default()),
            ready: Arc::default(),
        });
        let file = File::anon(epoll.clone(), c::O_RDWR);
        let _ = epoll.file.set(Arc::downgrade(&file));
        file
    }

    fn own_file(&self) -> Option<Arc<File>> {
        self.file.get().and_then(Weak::upgrade)
    }

    /// Notified when an item may have become ready: for epoll_wait(2).
    pub fn sleepers(&self) -> &WaitQueue {
        &self.ready.sleepers
    }

    /// Takes up to `max` events.
    pub fn take(&self, max: usize) -> Vec<Taken> {
        self.ready.take(max)
    }

    /// Gives those back that nobody could be told of.
    pub fn give_back(&self, taken: impl DoubleEndedIterator<Item = Taken>) {
        self.ready.give_back(taken);
    }

    /// Starts watching `file`.
    ///
    /// # Errors
    /// EEXIST, EPERM for files that never block, ELOOP and EINVAL for epolls that may not be watched.
    pub fn add(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        if file.ops().wait_queue().is_none() {
            return Err(Errno::EPERM);
        }
        let nested = file.downcast::<Epoll>();
        if nested.is_some_and(|other| std::ptr::eq(other, self)) {
            return Err(Errno::EINVAL);
        }
        if events & EPOLLEXCLUSIVE != 0 && (nested.is_some() || events & !EXCLUSIVE != 0) {
            return Err(Errno::EINVAL);
        }
        let mut added = None;
        nesting::checked(self, fd, file, || {
            added = Some(self.insert(fd, file, events, data)?);
            Ok(())
        })?;
        if let Some(item) = added
            && item.now() != 0
        {
            self.ready.push(&item);
        }
        Ok(())
    }

    fn insert(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<Arc<Item>> {
        let nested = file.downcast::<Epoll>().is_some();
        let (Some(me), Some(queue)) = (self.me.upgrade(), file.ops().wait_queue()) else {
            return Err(Errno::EBADF);
        };
        let mut items = self.items.lock();
        if items.all.contains_key(&key(fd, file)) {
            return Err(Errno::EEXIST);
        }
        // As Linux keeps them; an item disarmed by EPOLLONESHOT has lost these, too.
        let events = events | ALWAYS;
        let item = Arc::new(Item {
            ready: Arc::downgrade(&self.ready),
            file: Arc::downgrade(file),
            fd,
            events: AtomicU32::new(events),
            data: AtomicU64::new(data),
            listed: AtomicBool::new(false),
        });
        let waiter = Waiter::new(Arc::new(Handle(item.clone())), !0);
        register(queue, &waiter, events, nested);
        let watcher: Arc<dyn Watcher> = me;
        file.watchers.add(&watcher, fd);
        items.nested += usize::from(nested);
        let ops = Arc::downgrade(file.ops());
        items.all.insert(key(fd, file), Watched { item: item.clone(), waiter, ops, nested });
        drop(items);
        Ok(item)
    }

    /// Changes what is wanted.
    ///
    /// # Errors
    /// ENOENT, EINVAL for EPOLLEXCLUSIVE, now or before.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        if events & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let events = events | ALWAYS;
        let items = self.items.lock();
        let watched = items.all.get(&key(fd, file)).ok_or(Errno::ENOENT)?;
        if watched.item.events.load(Ordering::Relaxed) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        watched.item.data.store(data, Ordering::Relaxed);
        watched.item.events.store(events, Ordering::Release);
        if let Some(queue) = file.ops().wait_queue() {
            queue.unregister(&watched.waiter);
            register(queue, &watched.waiter, events, watched.nested);
        }
        let item = watched.item.clone();
        drop(items);
        if item.now() != 0 {
            self.ready.push(&item);
        }
        Ok(())
    }

    /// Stops watching.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32, file: &Arc<File>) -> Result<()> {
        let removed = self.items.lock().remove(key(fd, file));
        let watched = removed.ok_or(Errno::ENOENT)?;
        file.watchers.remove(self.me.as_ptr().cast(), fd);
        watched.end();
        self.ready.forget(&watched.item);
        Ok(())
    }

    /// The epolls among what it watches.
    fn watched_epolls(&self) -> Vec<Arc<File>> {
        let items = self.items.lock();
        if items.nested == 0 {
            return Vec::new();
        }
        items.all.values().filter(|watched| watched.nested).filter_map(|w| w.item.file.upgrade()).collect()
    }
}

/// Has `waiter` told of the wanted ones of `events`.
fn register(queue: &WaitQueue, waiter: &Arc<Waiter>, events: u32, nested: bool) {
    if nested {
        // Its wake goes on to another epoll's queue, which is one of the same kind.
        queue.register_outside_for(waiter, events & !FLAGS);
    } else if events & EPOLLEXCLUSIVE != 0 {
        queue.register_exclusive(waiter, events & !FLAGS);
    } else {
        queue.register_for(waiter, events & !FLAGS);
    }
}

impl Watcher for Epoll {
    fn closed(&self, fd: i32, file: usize) {
        let gone = self.items.lock().remove((fd, file));
        if let Some(watched) = gone {
            watched.end();
            self.ready.forget(&watched.item);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FileOps for Epoll {
    fn poll(&self) -> u32 {
        if self.ready.any() { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.ready.pollers)
    }

    fn describe(&self) -> String {
        "anon_inode:[eventpoll]".to_owned()
    }

    fn fdinfo(&self) -> String {
        let mut text = String::new();
        for watched in self.items.lock().all.values() {
            let item = &watched.item;
            let (events, data) = (item.events.load(Ordering::Relaxed), item.data.load(Ordering::Relaxed));
            let _ = writeln!(text, "tfd: {:8} events: {events:8x} data: {data:16x}", item.fd);
        }
        text
    }

    fn seek(&self, pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(pos)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        let me: *const Epoll = self;
        for watched in self.items.get_mut().all.values() {
            watched.end();
            if let Some(file) = watched.item.file.upgrade() {
                file.watchers.remove(me.cast(), watched.item.fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ready::EPOLLONESHOT;
    use super::*;
    use crate::fs::pipe::Pipe;
    use crate::mm::{IoDst, IoSrc};

    fn put(file: &File) {
        file.write(&mut IoSrc::kernel(b"x")).unwrap();
    }

    fn get(file: &File) {
        file.read(&mut IoDst::kernel(&mut [0])).unwrap();
    }

    fn all(file: &File) -> Vec<(u32, u64)> {
        file.downcast::<Epoll>()
            .unwrap()
            .take(10)
            .iter()
            .map(|t| (t.event.events & c::POLLIN, t.event.data))
            .collect()
    }

    #[test]
    fn level_edge_and_oneshot() {
        let file = Epoll::open(&Arc::new(Lock::new(Rank::EpollNesting, ())));
        let epoll = file.downcast::<Epoll>().unwrap();
        let (r, w) = Pipe::pair(0);
        epoll.add(3, &r, c::POLLIN, 7).unwrap();
        assert_eq!(epoll.add(3, &r, c::POLLIN, 7), Err(Errno::EEXIST));
        assert!(all(&file).is_empty());
        put(&w);
        assert_eq!(all(&file), [(1, 7)]);
        assert_eq!(all(&file), [(1, 7)]);
        get(&r);
        assert!(all(&file).is_empty());

        epoll.modify(3, &r, c::POLLIN | EPOLLET, 8).unwrap();
        put(&w);
        assert_eq!(all(&file), [(1, 8)]);
        assert!(all(&file).is_empty());
        put(&w);
        assert_eq!(all(&file), [(1, 8)]);

        epoll.modify(3, &r, c::POLLIN | EPOLLONESHOT, 9).unwrap();
        assert_eq!(all(&file), [(1, 9)]);
        put(&w);
        assert!(all(&file).is_empty());
        epoll.modify(3, &r, c::POLLIN | EPOLLONESHOT, 9).unwrap();
        assert_eq!(all(&file), [(1, 9)]);
        epoll.remove(3, &r).unwrap();
        assert_eq!(epoll.remove(3, &r), Err(Errno::ENOENT));
    }

    #[test]
    fn closed_files_leave() {
        let file = Epoll::open(&Arc::new(Lock::new(Rank::EpollNesting, ())));
        let epoll = file.downcast::<Epoll>().unwrap();
        let (r, w) = Pipe::pair(0);
        epoll.add(3, &r, c::POLLIN, 1).unwrap();
        put(&w);
        drop(r);
        assert!(all(&file).is_empty());
    }

    #[test]
    fn epolls_nest_without_loops() {
        let changing = Arc::new(Lock::new(Rank::EpollNesting, ()));
        let (outer, inner) = (Epoll::open(&changing), Epoll::open(&changing));
        let (r, w) = Pipe::pair(0);
        outer.downcast::<Epoll>().unwrap().add(1, &inner, c::POLLIN, 1).unwrap();
        inner.downcast::<Epoll>().unwrap().add(2, &r, c::POLLIN, 2).unwrap();
        assert!(all(&outer).is_empty());
        put(&w);
        assert_eq!(all(&outer), [(1, 1)]);
        assert_eq!(inner.downcast::<Epoll>().unwrap().add(3, &outer, c::POLLIN, 3), Err(Errno::ELOOP));
        assert_eq!(outer.downcast::<Epoll>().unwrap().add(3, &outer, c::POLLIN, 3), Err(Errno::EINVAL));
    }
}
