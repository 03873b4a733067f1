//! The kernel's own log, which syslog(2) reads: the last lines, with levels and times.

use super::{RELEASE, VERSION};
use crate::sync::{Lock, Rank, WaitQueue};
use crate::time::{NSEC_PER_SEC, monotonic_ns};
use std::collections::VecDeque;

/// Size of the log, bytes: what is older goes.
pub const SIZE: usize = 16 << 10;

/// The log. Order of its lock: innermost.
pub struct Log {
    began_ns: u64,
    lines: Lock<Lines>,
    /// Somebody may wait for the next line.
    pub queue: WaitQueue,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    bytes: usize,
    /// How many lines have gone.
    gone: u64,
    /// The number of the first line that has not been read, and of its bytes that have.
    next: (u64, usize),
    /// The number of the first line after the last clearing.
    cleared: u64,
}

impl Lines {
    fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = &String> {
        self.kept.iter().skip(number.saturating_sub(self.gone) as usize)
    }

    fn end(&self) -> u64 {
        self.gone + self.kept.len() as u64
    }
}

impl Log {
    /// With the line that every kernel begins with.
    pub(super) fn new() -> Log {
        let log = Log {
            began_ns: monotonic_ns(),
            lines: Lock::new(Rank::KernelLog, Lines::default()),
            queue: WaitQueue::new(),
        };
        log.add(5, &format!("Linux version {RELEASE} (pillbox) {VERSION}"));
        log
    }

    /// Adds a line of a level (0 is an emergency, 7 for debugging).
    pub fn add(&self, level: u8, text: &str) {
        let ns = monotonic_ns().saturating_sub(self.began_ns);
        let (secs, micros) = (ns / NSEC_PER_SEC, ns % NSEC_PER_SEC / 1000);
        let line = format!("<{level}>[{secs:5}.{micros:06}] {text}\n");
        let mut lines = self.lines.lock();
        lines.bytes += line.len();
        lines.kept.push_back(line);
        while lines.bytes > SIZE {
            let Some(oldest) = lines.kept.pop_front() else { break };
            lines.bytes -= oldest.len();
            lines.gone += 1;
        }
        drop(lines);
        self.queue.notify(!0);
    }

    /// Takes up to `room` bytes that have not been read; none if there are none.
    pub fn read(&self, room: usize) -> Option<Vec<u8>> {
        let mut lines = self.lines.lock();
        if lines.next.0 < lines.gone {
            lines.next = (lines.gone, 0);
        }
        let mut text = Vec::new();
        while text.len() < room {
            let (number, read) = lines.next;
            let Some(line) = lines.from(number).next() else { break };
            let rest = line.as_bytes().get(read..).unwrap_or_default();
            let part = rest.len().min(room - text.len());
            text.extend_from_slice(&rest[..part]);
            lines.next = if part == rest.len() { (number + 1, 0) } else { (number, read + part) };
        }
        (!text.is_empty()).then_some(text)
    }

    /// How many bytes have not been read.
    pub fn unread(&self) -> usize {
        let lines = self.lines.lock();
        let (number, read) = lines.next;
        let all: usize = lines.from(number).map(String::len).sum();
        if number < lines.gone { all } else { all.saturating_sub(read) }
    }

    /// The last whole lines since the last clearing that fit into `room` bytes.
    pub fn tail(&self, room: usize) -> Vec<u8> {
        let lines = self.lines.lock();
        let mut left = room;
        let fits = |line: &&String| {
            let enough = line.len() <= left;
            left = left.saturating_sub(line.len());
            enough
        };
        let chosen: Vec<&String> = lines.from(lines.cleared).rev().take_while(fits).collect();
        chosen.into_iter().rev().flat_map(|line| line.bytes()).collect()
    }

    /// Leaves what is there out of later [`tail`](Self::tail)s.
    pub fn clear(&self) {
        let mut lines = self.lines.lock();
        lines.cleared = lines.end();
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, SIZE};

    #[test]
    fn keeps_the_last_lines_and_reads_each_byte_once() {
        let log = Log::new();
        let first = log.unread();
        assert_eq!(log.read(3).unwrap(), b"<5>");
        assert_eq!(log.unread(), first - 3);
        assert_eq!(log.read(10_000).unwrap().len(), first - 3);
        assert_eq!(log.read(1), None);
        log.clear();
        assert!(log.tail(SIZE).is_empty());
        for n in 0..2000 {
            log.add(6, &format!("line {n}"));
        }
        let tail = log.tail(SIZE);
        assert!(tail.len() <= SIZE && tail.ends_with(b"line 1999\n") && tail.starts_with(b"<6>"));
        assert!(log.tail(5).is_empty());
        assert!(log.unread() <= SIZE);
    }
}
