//! Where a file holds data, and where nothing (lseek(2)).

use super::{Content, PAGE};
use crate::abi::{Errno, Result};
use crate::vfs::Whence;

/// What a file holds from a place on, up to another.
enum Run {
    /// What the host file has there.
    Lower(u64),
    /// Pages of its own.
    Data(u64),
    /// Nothing.
    Hole(u64),
}

impl Content {
    /// SEEK_DATA and SEEK_HOLE: the host's holes where nothing was written, else at page granularity.
    ///
    /// # Errors
    /// ENXIO beyond the end, or where no data follows.
    pub fn seek(&self, from: u64, whence: Whence) -> Result<u64> {
        let mut at = from;
        loop {
            let (size, end) = self.own_run(at, whence)?;
            let found = match end {
                // Bytes of the host file from here to there.
                Run::Lower(end) => match self.lower_seek(at, whence)? {
                    Some(found) if found < end => return Ok(found.min(size)),
                    _ => end,
                },
                Run::Data(_) if whence == Whence::Data => return Ok(at),
                Run::Hole(_) if whence == Whence::Hole => return Ok(at),
                Run::Data(end) | Run::Hole(end) => end,
            };
            at = found;
            if at >= size {
                return if whence == Whence::Hole { Ok(size) } else { Err(Errno::ENXIO) };
            }
        }
    }

    /// What begins at `at`, and the size.
    fn own_run(&self, at: u64, whence: Whence) -> Result<(u64, Run)> {
        let state = self.state.lock();
        if at >= state.size {
            return Err(Errno::ENXIO);
        }
        let lower = state.lower_end.div_ceil(PAGE);
        let first = if state.written { at / PAGE } else { (at / PAGE).max(lower) };
        let next = state.pages.range(first..).next().map(|(&index, _)| index);
        let run = match next {
            Some(index) if index == at / PAGE => {
                let pages = state.pages.range(index..).zip(index..);
                let run = pages.take_while(|((have, _), want)| **have == *want);
                // Who looks for data need not know where it ends.
                let len = if whence == Whence::Hole { run.count() as u64 } else { 1 };
                Run::Data((index + len) * PAGE)
            }
            next => {
                let end = next.map_or(state.size, |index| index * PAGE);
                match at < state.lower_end {
                    true => Run::Lower(end.min(state.lower_end)),
                    false => Run::Hole(end),
                }
            }
        };
        Ok((state.size, run))
    }

    /// Where the host file has its next data or hole; none if no data follows.
    fn lower_seek(&self, at: u64, whence: Whence) -> Result<Option<u64>> {
        let whence = if whence == Whence::Data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
        let lower = self.lower()?;
        let fd = lower.fd()?;
        match lower.line().call(|| crate::hostsys::file::lseek(fd.raw(), at as i64, whence)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENXIO) => Ok(None),
            // All of it is data, as far as its file system knows.
            Err(Errno::EINVAL) => Ok((whence == libc::SEEK_DATA).then_some(at)),
            Err(errno) => Err(errno),
        }
    }
}
