//! Where a core dump goes: a new file, and no more of it than the limits allow.

use super::super::Current;
use super::super::sched::Scheduler;
use crate::abi::{Errno, Result};
use crate::mm::IoSrc;
use crate::sync::Pause;
use crate::vfs::{Caller, File, Kind, Lookup, OpenHow, Resolve};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// How much is written at a time.
const PIECE: usize = 256 << 10;
/// Permissions of the file.
const PRIVATE: u32 = 0o600;

/// The file, written from its start on. What is one behind the other is written together.
pub(super) struct Sink<'a> {
    file: &'a File,
    sched: &'a Scheduler,
    /// What may be written yet (RLIMIT_CORE); what is skipped does not count.
    left: u64,
    /// Where the file has to end (RLIMIT_FSIZE).
    end: u64,
    /// Where the bytes that are not written yet belong.
    at: u64,
    pending: Vec<u8>,
    /// Bytes behind these have been skipped.
    skipped: u64,
}

impl<'a> Sink<'a> {
    /// One that takes `most` bytes, in a file of another number of bytes at most.
    pub(super) fn new(file: &'a File, sched: &'a Scheduler, (most, end): (u64, u64)) -> Self {
        Sink { file, sched, left: most, end, at: 0, pending: Vec::with_capacity(PIECE), skipped: 0 }
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.at + self.pending.len() as u64 + self.skipped
    }

    /// Leaves bytes out: they read as zero.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.skipped += position.saturating_sub(self.position());
    }

    /// Adds bytes, all or none.
    ///
    /// # Errors
    /// EFBIG beyond a limit; what the file returns; EINTR when the program is killed.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.skipped > 0 {
            self.flush()?;
            self.at += core::mem::take(&mut self.skipped);
        }
        let len = bytes.len() as u64;
        if len > self.left || self.position().saturating_add(len) > self.end {
            self.flush()?;
            return Err(Errno::EFBIG);
        }
        self.left -= len;
        for piece in bytes.chunks(PIECE) {
            if self.pending.len() + piece.len() > PIECE {
                self.flush()?;
            }
            self.pending.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Writes what is left. What was skipped at the end belongs to the file, too.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(super) fn finish(mut self) -> Result<()> {
        if self.skipped > 0 {
            self.skipped -= 1;
            self.put(&[0])?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let mut rest = &self.pending[..];
        while !rest.is_empty() {
            self.sched.pause()?;
            let count = self.file.pwrite(&mut IoSrc::kernel(rest), self.at)?;
            if count == 0 {
                return Err(Errno::ENOSPC);
            }
            self.at += count as u64;
            rest = &rest[count..];
        }
        self.pending.clear();
        Ok(())
    }
}

impl Current {
    /// Makes the file, as who the process is: in place of one of that name, and where nobody else has it.
    ///
    /// # Errors
    /// As open(2); EPERM for what is not the process's own alone.
    pub(super) fn make_core_file(&self, name: &[u8]) -> Result<Arc<File>> {
        let (fs, cred) = (self.fs(), self.cred());
        let caller = Caller { pid: self.task.tgid(), tid: self.task.tid() };
        let lookup = Lookup { fs: &fs, cred: &cred, caller };
        // What stays there fails the next step.
        let _gone = lookup.remove(None, name, false);
        let flags = c::O_CREAT | c::O_EXCL | c::O_WRONLY | c::O_NOFOLLOW | c::O_LARGEFILE;
        let how = OpenHow { flags, mode: PRIVATE, resolve: Resolve::empty(), caller };
        let file = lookup.open(None, name, &how)?;
        file.announce();
        let stat = file.stat();
        let is_file = Kind::from_mode(stat.mode) == Some(Kind::File);
        // The file system may have given it to somebody else, or to all (do_coredump); its group may look.
        let own = stat.uid == cred.uid.fs && stat.mode & 0o677 == PRIVATE;
        if is_file && stat.nlink == 1 && own { Ok(file) } else { Err(Errno::EPERM) }
    }
}
