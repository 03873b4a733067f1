//! Events that nobody has read yet, and how they are laid out for who reads them.

use linux_raw_sys::general as c;
use std::collections::VecDeque;
use std::sync::Arc;

/// `struct inotify_event` without its name: wd, mask, cookie, length of the name. Names are padded to a multiple of it.
const HEADER: usize = 16;
/// What programs see of an event's mask.
const SHOWN: u32 = c::IN_ALL_EVENTS | c::IN_ISDIR | c::IN_UNMOUNT | c::IN_IGNORED | c::IN_Q_OVERFLOW;

/// Something that happened to a watched inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The watch.
    pub wd: i32,
    /// What (`IN_*`).
    pub mask: u32,
    /// What the two halves of a rename have in common; 0 elsewhere.
    pub cookie: u32,
    /// Which name in the watched directory; none for what happened to the watched inode itself.
    pub name: Option<Arc<[u8]>>,
}

impl Event {
    /// One without a name.
    pub fn plain(wd: i32, mask: u32) -> Event {
        Event { wd, mask, cookie: 0, name: None }
    }

    /// Bytes it takes in a buffer.
    pub fn size(&self) -> usize {
        HEADER + self.padded()
    }

    /// Bytes of the name, its final NUL and those that fill it up.
    fn padded(&self) -> usize {
        self.name.as_ref().map_or(0, |name| (name.len() + 1).next_multiple_of(HEADER))
    }

    /// As read(2) gives it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend_from_slice(&self.wd.to_ne_bytes());
        for word in [self.mask & SHOWN, self.cookie, self.padded() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(self.name.as_deref().unwrap_or_default());
        bytes.resize(self.size(), 0);
        bytes
    }

    /// Whether it says nothing that `last`, just before it, did not. Cookies do not count, as on Linux.
    fn repeats(&self, last: &Event) -> bool {
        last.mask & c::IN_IGNORED == 0 && (last.mask, last.wd, &last.name) == (self.mask, self.wd, &self.name)
    }
}

/// Unread events, oldest first.
pub(super) struct Queue {
    events: VecDeque<Event>,
    max: usize,
    /// Whether what says that events were lost is among them.
    overflowed: bool,
}

impl Queue {
    /// An empty queue that holds at most `max` events, and then the one that says that it was full.
    pub(super) fn new(max: usize) -> Queue {
        Queue { events: VecDeque::new(), max, overflowed: false }
    }

    /// Adds an event, unless it repeats the last one or there is no room. Whether there is more to read than before.
    pub(super) fn push(&mut self, event: Event) -> bool {
        if self.events.len() >= self.max {
            if self.overflowed {
                return false;
            }
            self.overflowed = true;
            self.events.push_back(Event::plain(-1, c::IN_Q_OVERFLOW));
            return true;
        }
        if self.events.back().is_some_and(|last| event.repeats(last)) {
            return false;
        }
        self.events.push_back(event);
        true
    }

    /// The oldest event.
    pub(super) fn first(&self) -> Option<&Event> {
        self.events.front()
    }

    /// Takes the oldest event out.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.overflowed &= event.mask & c::IN_Q_OVERFLOW == 0;
        Some(event)
    }

    /// Bytes that all of them take (FIONREAD).
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(Event::size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Queue};
    use linux_raw_sys::general as c;

    fn event(wd: i32, mask: u32, name: &[u8]) -> Event {
        let name = (!name.is_empty()).then(|| name.into());
        Event { wd, mask, cookie: 0, name }
    }

    #[test]
    fn neighbours_that_are_the_same_are_one() {
        let mut queue = Queue::new(100);
        assert!(queue.push(event(1, c::IN_MODIFY, b"a")));
        assert!(!queue.push(event(1, c::IN_MODIFY, b"a")));
        // Cookies are not compared.
        assert!(!queue.push(Event { cookie: 7, ..event(1, c::IN_MODIFY, b"a") }));
        for other in [
            event(2, c::IN_MODIFY, b"a"),
            event(2, c::IN_ACCESS, b"a"),
            event(2, c::IN_ACCESS, b"ab"),
            event(2, c::IN_ACCESS, b""),
            event(2, c::IN_ACCESS | c::IN_ISDIR, b""),
            event(1, c::IN_MODIFY, b"a"),
        ] {
            assert!(queue.push(other), "differs from the one before");
        }
        assert_eq!(queue.events.len(), 7);
        // The end of a watch is told each time: another watch may have had the number.
        assert!(queue.push(Event::plain(1, c::IN_IGNORED)));
        assert!(queue.push(Event::plain(1, c::IN_IGNORED)));
    }

    #[test]
    fn what_is_lost_is_told_once() {
        let mut queue = Queue::new(3);
        for wd in 1..=3 {
            assert!(queue.push(event(wd, c::IN_OPEN, b"")));
        }
        assert!(queue.push(event(4, c::IN_OPEN, b"")), "the overflow itself is something to read");
        assert!(!queue.push(event(5, c::IN_OPEN, b"")));
        assert_eq!(queue.pop().map(|e| e.wd), Some(1));
        assert!(!queue.push(event(6, c::IN_OPEN, b"")), "as many as there may be, with the overflow");
        assert_eq!(queue.pop().map(|e| e.wd), Some(2));
        assert!(queue.push(event(7, c::IN_OPEN, b"")));
        let rest: Vec<(i32, u32)> = std::iter::from_fn(|| queue.pop()).map(|e| (e.wd, e.mask)).collect();
        assert_eq!(rest, [(3, c::IN_OPEN), (-1, c::IN_Q_OVERFLOW), (7, c::IN_OPEN)]);
        for wd in 1..=4 {
            assert!(queue.push(event(wd, c::IN_OPEN, b"")), "there is room again, and one more overflow");
        }
    }

    #[test]
    fn names_end_and_are_filled_up() {
        for (len, padded) in [(1, 16), (14, 16), (15, 16), (16, 32), (31, 32), (255, 256)] {
            let name = vec![b'x'; len];
            let event = Event { cookie: 9, ..event(3, c::IN_CREATE, &name) };
            let bytes = event.to_bytes();
            assert_eq!((bytes.len(), event.size()), (16 + padded, 16 + padded));
            let words: Vec<u32> =
                bytes[..16].as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
            assert_eq!(words, [3, c::IN_CREATE, 9, padded as u32]);
            assert_eq!(&bytes[16..16 + len], &name[..]);
            assert!(bytes[16 + len..].iter().all(|&byte| byte == 0));
        }
        assert_eq!(event(3, c::IN_OPEN, b"").to_bytes().len(), 16);
    }

    #[test]
    fn bytes_are_counted() {
        let mut queue = Queue::new(10);
        assert_eq!(queue.bytes(), 0);
        queue.push(event(1, c::IN_OPEN, b""));
        queue.push(event(1, c::IN_OPEN, b"name"));
        assert_eq!(queue.bytes(), 16 + 32);
        queue.pop();
        assert_eq!(queue.bytes(), 32);
        assert_eq!(queue.first().map(Event::size), Some(32));
    }
}
