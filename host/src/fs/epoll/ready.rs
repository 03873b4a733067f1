//! The ready list: what may have happened, and who waits for it.
//!
//! Items know the list weakly and the list holds nothing but items, so that a notification, which runs with the lock of a
//! file's queue held, can be the last to let go of it.

use crate::sync::{Lock, Rank, WaitQueue, Wake};
use crate::vfs::File;
use linux_raw_sys::general as c;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

pub(super) const EPOLLET: u32 = 1 << 31;
pub(super) const EPOLLONESHOT: u32 = 1 << 30;
pub(super) const EPOLLWAKEUP: u32 = 1 << 29;
pub(super) const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// What is no event.
pub(super) const FLAGS: u32 = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
const IN: u32 = c::POLLIN | c::POLLRDNORM;

/// One watched descriptor.
pub(super) struct Item {
    pub(super) ready: Weak<Ready>,
    pub(super) file: Weak<File>,
    pub(super) fd: i32,
    /// What is wanted, with flags; 0 after a one-shot fired, and when it is not watched any more.
    pub(super) events: AtomicU32,
    pub(super) data: AtomicU64,
    /// It is on the ready list.
    pub(super) listed: AtomicBool,
}

impl Item {
    /// What holds of what is wanted.
    pub(super) fn now(&self) -> u32 {
        let events = self.events.load(Ordering::Acquire);
        if events & !FLAGS == 0 {
            return 0;
        }
        self.file.upgrade().map_or(0, |file| file.ops().poll() & events & !FLAGS)
    }

    /// What holds, to be reported to one caller of epoll_wait(2), and what was wanted; takes what a one-shot item wants.
    fn report(&self) -> (u32, u32) {
        let wanted = self.events.load(Ordering::Acquire);
        let holds = self.now();
        if holds == 0 || wanted & EPOLLONESHOT == 0 {
            return (holds, wanted);
        }
        let disarmed = wanted & FLAGS;
        let fired = self.events.compare_exchange(wanted, disarmed, Ordering::AcqRel, Ordering::Relaxed);
        (if fired.is_ok() { holds } else { 0 }, wanted)
    }

    /// Nobody was told of what it reported: a one-shot item wants that again, unless it was changed meanwhile.
    fn rearm(&self, wanted: u32) {
        if wanted & EPOLLONESHOT != 0 {
            let disarmed = wanted & FLAGS;
            let _changed =
                self.events.compare_exchange(disarmed, wanted, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// One event as epoll_wait(2) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What holds.
    pub events: u32,
    /// What the program attached.
    pub data: u64,
}

/// An event that was taken, and can be given back.
pub struct Taken {
    /// What happened.
    pub event: Event,
    item: Arc<Item>,
    /// What the item wanted.
    wanted: u32,
}

/// The ready list.
pub(super) struct Ready {
    list: Lock<VecDeque<Arc<Item>>>,
    /// How many of these are not watched any more, at most. Changed under the list's lock.
    dead: AtomicUsize,
    /// Who is in epoll_wait(2).
    pub(super) sleepers: WaitQueue,
    /// Who polls the epoll itself: poll(2), and epolls that watch it.
    pub(super) pollers: WaitQueue,
}

impl Default for Ready {
    fn default() -> Self {
        Ready {
            list: Lock::new(Rank::EpollReady, VecDeque::new()),
            dead: AtomicUsize::new(0),
            sleepers: WaitQueue::ranked(Rank::EpollQueue),
            pollers: WaitQueue::ranked(Rank::EpollQueue),
        }
    }
}

impl Ready {
    /// Something happened to what `item` watches.
    pub(super) fn push(&self, item: &Arc<Item>) {
        if !item.listed.swap(true, Ordering::AcqRel) {
            self.list.lock().push_back(item.clone());
            self.sleepers.notify(IN);
            self.pollers.notify(IN);
        } else if !self.pollers.is_empty() {
            // To those who watch this epoll every event is one, looked at or not. (Who came since finds the item listed.)
            self.pollers.notify(IN);
        }
    }

    fn pop(&self) -> Option<Arc<Item>> {
        let item = self.list.lock().pop_front()?;
        // Before it is asked: a notification from now on lists it anew.
        item.listed.store(false, Ordering::Release);
        Some(item)
    }

    /// Takes up to `max` events. Level-triggered items that still hold go back to the end of the list.
    pub(super) fn take(&self, max: usize) -> Vec<Taken> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        let mut left = self.list.lock().len();
        while events.len() < max && left > 0 {
            left -= 1;
            let Some(item) = self.pop() else { break };
            let (holds, wanted) = item.report();
            if holds == 0 {
                continue;
            }
            if item.events.load(Ordering::Relaxed) & (EPOLLET | EPOLLONESHOT) == 0 {
                again.push(item.clone());
            }
            let event = Event { events: holds, data: item.data.load(Ordering::Relaxed) };
            events.push(Taken { event, item, wanted });
        }
        if !again.is_empty() {
            for item in again {
                self.put_back(item, VecDeque::push_back);
            }
            // Others may have found the list empty meanwhile.
            self.sleepers.notify(IN);
        }
        events
    }

    /// Nobody was told of these events: they are the first to be taken again, edges and one-shots, too.
    pub(super) fn give_back(&self, taken: impl DoubleEndedIterator<Item = Taken>) {
        for Taken { item, wanted, .. } in taken.rev() {
            item.rearm(wanted);
            if item.events.load(Ordering::Acquire) != 0 {
                self.put_back(item, VecDeque::push_front);
            }
        }
        self.sleepers.notify(IN);
        self.pollers.notify(IN);
    }

    fn put_back(&self, item: Arc<Item>, put: fn(&mut VecDeque<Arc<Item>>, Arc<Item>)) {
        if !item.listed.swap(true, Ordering::AcqRel) {
            put(&mut self.list.lock(), item);
        }
    }

    /// Whether anything holds. Items that do not leave the list on the way: who only polls would otherwise not hear of
    /// the next event, since they are listed already.
    pub(super) fn any(&self) -> bool {
        while let Some(item) = self.pop() {
            if item.now() != 0 {
                self.put_back(item, VecDeque::push_front);
                self.sleepers.notify(IN);
                return true;
            }
        }
        false
    }

    /// Takes one item off that is not watched any more; later, unless such items are half of the list: who closes thousands
    /// of files would otherwise look through all the others for each.
    pub(super) fn forget(&self, item: &Arc<Item>) {
        if !item.listed.load(Ordering::Acquire) {
            return;
        }
        let mut list = self.list.lock();
        let dead = self.dead.load(Ordering::Relaxed) + 1;
        if dead * 2 > list.len() {
            list.retain(|listed| listed.events.load(Ordering::Acquire) != 0);
            self.dead.store(0, Ordering::Relaxed);
        } else {
            self.dead.store(dead, Ordering::Relaxed);
        }
    }
}

/// What a file's queue holds.
pub(super) struct Handle(pub(super) Arc<Item>);

impl Wake for Handle {
    fn wake(&self) {
        if self.0.events.load(Ordering::Acquire) & !FLAGS != 0
            && let Some(ready) = self.0.ready.upgrade()
        {
            ready.push(&self.0);
        }
    }

    /// One sleeper is enough for an event; an epoll where nobody sleeps does not count (epoll_ctl(2), EPOLLEXCLUSIVE).
    fn wake_one(&self) -> bool {
        let slept = self.0.ready.upgrade().is_some_and(|ready| !ready.sleepers.is_empty());
        self.wake();
        slept
    }
}

#[cfg(test)]
mod tests {
    use super::{Item, Ready};
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    use std::sync::{Arc, Weak};

    #[test]
    fn what_is_not_watched_any_more_is_half_of_the_list_at_most() {
        let ready = Arc::new(Ready::default());
        let item = |fd| {
            let item = Arc::new(Item {
                ready: Arc::downgrade(&ready),
                file: Weak::new(),
                fd,
                events: AtomicU32::new(1),
                data: AtomicU64::new(0),
                listed: AtomicBool::new(false),
            });
            ready.push(&item);
            item
        };
        let items: Vec<_> = (0..1000).map(item).collect();
        for (at, item) in items.iter().enumerate() {
            item.events.store(0, Ordering::Release);
            ready.forget(item);
            assert!(ready.list.lock().len() <= 2 * (items.len() - at - 1), "after {at}");
        }
        assert_eq!(ready.list.lock().len(), 0);
    }
}
