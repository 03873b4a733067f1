//! epoll(7): waiting for many files at once.
//!
//! An item registers on its file's queue once; when notified it enters the ready list. Waiting takes items off that
//! list and asks their files what holds; level-triggered ones that still hold go back to its end.
//!
//! Lock order: `items` → a file's wait queue → `ready` → this epoll's own queue. Files are asked (`poll`) without any
//! of these held but `items`.

use crate::abi::{Errno, Result};
use crate::sync::{Lock, WaitQueue, Waiter, Wake};
use crate::vfs::{File, FileOps};
use linux_raw_sys::general as c;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const EPOLLET: u32 = 1 << 31;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLWAKEUP: u32 = 1 << 29;
const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// What is no event.
const FLAGS: u32 = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
/// Reported whether asked for or not.
const ALWAYS: u32 = c::POLLERR | c::POLLHUP;
/// How deep epolls can watch epolls.
const MAX_DEPTH: usize = 5;

struct Item {
    epoll: Weak<Epoll>,
    file: Weak<File>,
    fd: i32,
    /// What is wanted, with flags; 0 after a one-shot fired.
    events: AtomicU32,
    data: AtomicU64,
    /// It is on the ready list.
    listed: AtomicBool,
}

impl Item {
    /// What holds of what is wanted.
    fn now(&self) -> u32 {
        let events = self.events.load(Ordering::Acquire);
        if events & !FLAGS == 0 {
            return 0;
        }
        self.file.upgrade().map_or(0, |file| file.ops().poll() & events & !FLAGS)
    }
}

struct Watched {
    item: Arc<Item>,
    waiter: Arc<Waiter>,
}

/// Descriptor and file: closing a descriptor and opening another file under its number makes another key.
type Key = (i32, usize);

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    items: Lock<BTreeMap<Key, Watched>>,
    ready: Lock<VecDeque<Arc<Item>>>,
    queue: WaitQueue,
}

/// One event as epoll_wait(2) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What holds.
    pub events: u32,
    /// What the program attached.
    pub data: u64,
}

impl Epoll {
    /// A new instance, open.
    pub fn open() -> Arc<File> {
        let epoll = Arc::new_cyclic(|me| Epoll {
            me: me.clone(),
            items: Lock::default(),
            ready: Lock::default(),
            queue: WaitQueue::new(),
        });
        File::anon(epoll, c::O_RDWR)
    }

    /// Notified when an item may have become ready.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Starts watching `file`.
    ///
    /// # Errors
    /// EEXIST, EPERM for files that never block, ELOOP, EINVAL for itself.
    pub fn add(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        // As Linux keeps them; an item disarmed by EPOLLONESHOT has lost these, too.
        let events = events | ALWAYS;
        let Some(queue) = file.ops().wait_queue() else { return Err(Errno::EPERM) };
        if let Some(other) = file.downcast::<Epoll>() {
            if std::ptr::eq(other, self) {
                return Err(Errno::EINVAL);
            }
            other.must_not_watch(self, 0)?;
        }
        let mut items = self.items.lock();
        items.retain(|_, watched| watched.item.file.strong_count() > 0);
        let key = (fd, Arc::as_ptr(file) as usize);
        if items.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let item = Arc::new(Item {
            epoll: self.me.clone(),
            file: Arc::downgrade(file),
            fd,
            events: AtomicU32::new(events),
            data: AtomicU64::new(data),
            listed: AtomicBool::new(false),
        });
        let waiter = Waiter::new(Arc::new(Handle(item.clone())), !0);
        queue.register_for(&waiter, events & !FLAGS | ALWAYS);
        items.insert(key, Watched { item: item.clone(), waiter });
        drop(items);
        if item.now() != 0 {
            self.push(item);
        }
        Ok(())
    }

    fn push(&self, item: Arc<Item>) {
        if !item.listed.swap(true, Ordering::AcqRel) {
            self.ready.lock().push_back(item);
            self.queue.notify(c::POLLIN | c::POLLRDNORM);
        }
    }

    /// Changes what is wanted.
    ///
    /// # Errors
    /// ENOENT.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        let events = events | ALWAYS;
        let items = self.items.lock();
        let watched = items.get(&(fd, Arc::as_ptr(file) as usize)).ok_or(Errno::ENOENT)?;
        if watched.item.events.load(Ordering::Relaxed) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        watched.item.data.store(data, Ordering::Relaxed);
        watched.item.events.store(events, Ordering::Release);
        if let Some(queue) = file.ops().wait_queue() {
            queue.unregister(&watched.waiter);
            queue.register_for(&watched.waiter, events & !FLAGS | ALWAYS);
        }
        let item = watched.item.clone();
        drop(items);
        if item.now() != 0 {
            self.push(item);
        }
        Ok(())
    }

    /// Stops watching.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: i32, file: &Arc<File>) -> Result<()> {
        let key = (fd, Arc::as_ptr(file) as usize);
        let watched = self.items.lock().remove(&key).ok_or(Errno::ENOENT)?;
        if let Some(queue) = file.ops().wait_queue() {
            queue.unregister(&watched.waiter);
        }
        watched.item.events.store(0, Ordering::Release);
        self.ready.lock().retain(|item| !Arc::ptr_eq(item, &watched.item));
        Ok(())
    }

    /// Fails if this epoll watches `target`, however indirectly.
    fn must_not_watch(&self, target: &Epoll, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let files: Vec<Arc<File>> =
            self.items.lock().values().filter_map(|watched| watched.item.file.upgrade()).collect();
        for file in files {
            if let Some(other) = file.downcast::<Epoll>() {
                if std::ptr::eq(other, target) {
                    return Err(Errno::ELOOP);
                }
                other.must_not_watch(target, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Takes up to `max` events.
    pub fn take(&self, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        let mut left = self.ready.lock().len();
        while events.len() < max && left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            // Before asking: a notification from now on lists it anew.
            item.listed.store(false, Ordering::Release);
            let holds = item.now();
            if holds == 0 {
                continue;
            }
            events.push(Event { events: holds, data: item.data.load(Ordering::Relaxed) });
            let wanted = item.events.load(Ordering::Relaxed);
            if wanted & EPOLLONESHOT != 0 {
                item.events.store(wanted & FLAGS, Ordering::Release);
            } else if wanted & EPOLLET == 0 {
                again.push(item);
            }
        }
        for item in again {
            if !item.listed.swap(true, Ordering::AcqRel) {
                self.ready.lock().push_back(item);
            }
        }
        events
    }
}

/// What a file's queue holds: the item, by a reference that the ready list can share.
struct Handle(Arc<Item>);

impl Wake for Handle {
    fn wake(&self) {
        if let Some(epoll) = self.0.epoll.upgrade() {
            epoll.push(self.0.clone());
        }
    }
}

impl FileOps for Epoll {
    fn poll(&self) -> u32 {
        let listed: Vec<Arc<Item>> = self.ready.lock().iter().cloned().collect();
        if listed.iter().any(|item| item.now() != 0) { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn describe(&self) -> String {
        "anon_inode:[eventpoll]".to_owned()
    }

    fn fdinfo(&self) -> String {
        let mut text = String::new();
        for watched in self.items.lock().values() {
            let item = &watched.item;
            let (events, data) = (item.events.load(Ordering::Relaxed), item.data.load(Ordering::Relaxed));
            let _ = writeln!(text, "tfd: {:8} events: {events:8x} data: {data:16x}", item.fd);
        }
        text
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for watched in self.items.get_mut().values() {
            if let Some(file) = watched.item.file.upgrade()
                && let Some(queue) = file.ops().wait_queue()
            {
                queue.unregister(&watched.waiter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        file.downcast::<Epoll>().unwrap().take(10).iter().map(|e| (e.events & c::POLLIN, e.data)).collect()
    }

    #[test]
    fn level_edge_and_oneshot() {
        let file = Epoll::open();
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
        let file = Epoll::open();
        let epoll = file.downcast::<Epoll>().unwrap();
        let (r, w) = Pipe::pair(0);
        epoll.add(3, &r, c::POLLIN, 1).unwrap();
        put(&w);
        drop(r);
        assert!(all(&file).is_empty());
    }

    #[test]
    fn epolls_nest_without_loops() {
        let (outer, inner) = (Epoll::open(), Epoll::open());
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
