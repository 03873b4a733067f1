//! Bytes on their way from one end of a connection to the other.
//!
//! They lie in chunks: a small one for those who take turns, large ones for those who send much. Large ones come from a
//! store that the network keeps, so that a stream neither asks for memory nor clears it.

use crate::abi::Result;
use crate::mm::{IoDst, IoSrc};
use crate::net::namespace::{Chunk, Memory};
use std::collections::VecDeque;
use std::sync::Arc;

/// The least and the largest chunk.
const SMALLEST: usize = 512;
pub(super) const LARGEST: usize = 64 << 10;
/// What an empty buffer may keep.
const KEPT: usize = 2048;

/// A queue of bytes.
#[derive(Default)]
pub(super) struct Buffer {
    chunks: VecDeque<Chunk>,
    /// Bytes taken from the first chunk.
    head: usize,
    /// Bytes in the last.
    tail: usize,
    len: usize,
}

impl Buffer {
    /// Bytes in it.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes up to `room` bytes out of `src`, and returns how many.
    ///
    /// # Errors
    /// EFAULT if not even one could be read.
    pub(super) fn fill(&mut self, src: &mut IoSrc<'_>, room: usize, memory: &Arc<Memory>) -> Result<usize> {
        let want = src.remaining().min(room);
        let mut done = 0;
        while done < want {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == self.tail) {
                let size = (want - done).next_power_of_two().clamp(SMALLEST, LARGEST);
                self.chunks.push_back(memory.take(size));
                self.tail = 0;
            }
            let Some(chunk) = self.chunks.back_mut() else { break };
            let end = chunk.len().min(self.tail + want - done);
            let asked = end - self.tail;
            let result = src.read_bytes(&mut chunk[self.tail..end]);
            let count = *result.as_ref().unwrap_or(&0);
            self.tail += count;
            self.len += count;
            done += count;
            if count < asked {
                self.trim();
                return if done > 0 { Ok(done) } else { result };
            }
        }
        Ok(done)
    }

    /// The last byte.
    pub(super) fn last(&self) -> Option<u8> {
        let chunk = self.chunks.back().filter(|_| self.len > 0)?;
        chunk.get(self.tail.checked_sub(1)?).copied()
    }

    /// Hands the bytes from `from` on to `dst`, `most` at most, and returns how many. They stay.
    ///
    /// # Errors
    /// EFAULT if not even one could be written.
    #[inline]
    pub(super) fn copy_part(&self, dst: &mut IoDst<'_>, from: usize, most: usize) -> Result<usize> {
        let (mut done, mut before) = (0, from);
        let last = self.chunks.len().saturating_sub(1);
        for (index, chunk) in self.chunks.iter().enumerate() {
            let start = if index == 0 { self.head } else { 0 };
            let end = if index == last { self.tail } else { chunk.len() };
            let passed = before.min(end - start);
            before -= passed;
            let start = start + passed;
            if start == end {
                continue;
            }
            let want = (end - start).min(dst.remaining()).min(most - done);
            if want == 0 {
                break;
            }
            let result = dst.write_bytes(&chunk[start..start + want]);
            let count = *result.as_ref().unwrap_or(&0);
            done += count;
            if count < want {
                return if done > 0 { Ok(done) } else { result };
            }
        }
        Ok(done)
    }

    /// Forgets the first `count` bytes, of which there are as many.
    pub(super) fn skip(&mut self, count: usize) {
        self.len -= count;
        let mut left = count;
        while self.chunks.len() > 1
            && let Some(first) = self.chunks.front()
            && left >= first.len() - self.head
        {
            left -= first.len() - self.head;
            self.head = 0;
            self.chunks.pop_front();
        }
        self.head += left;
        if self.len == 0 {
            self.trim();
        }
    }

    /// Gives back what is not used.
    fn trim(&mut self) {
        if self.len == 0 {
            (self.head, self.tail) = (0, 0);
            if self.chunks.len() > 1 || self.chunks.front().is_some_and(|chunk| chunk.len() > KEPT) {
                self.clear();
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (self.head, self.tail, self.len) = (0, 0, 0);
        self.chunks = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, LARGEST};
    use crate::mm::{IoDst, IoSrc};
    use crate::net::namespace::Memory;
    use std::sync::Arc;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (memory, mut buffer) = (Arc::new(Memory::default()), Buffer::default());
        let all: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let mut src = IoSrc::kernel(&all);
        let (mut got, mut step) = (Vec::new(), 1);
        while got.len() < all.len() {
            let room = (step * 7919) % 90_000 + 1;
            buffer.fill(&mut src, room, &memory).unwrap();
            let mut bytes = vec![0; (step * 104_729) % 70_000 + 1];
            let count = buffer.copy_part(&mut IoDst::kernel(&mut bytes), 0, usize::MAX).unwrap();
            buffer.skip(count);
            got.extend_from_slice(&bytes[..count]);
            step += 1;
        }
        assert!(got == all && buffer.len() == 0);
        assert!(buffer.chunks.is_empty(), "an empty buffer keeps no more than a little");
        buffer.fill(&mut IoSrc::kernel(&all[..LARGEST]), usize::MAX, &memory).unwrap();
        assert_eq!(memory.used(), LARGEST);
        buffer.clear();
        assert_eq!(memory.used(), 0);
    }
}
