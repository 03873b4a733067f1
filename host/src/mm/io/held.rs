//! Copies by who holds a lock: they wait for nothing, least of all for the host.
//!
//! Where one would have to it ends there, who has the lock lets go of it, what is missing is brought, and all is done again.

use super::super::usermem::{Missing, TRIES};
use super::{IoDst, IoSrc, Sink, Source, UserIo};
use crate::abi::{Errno, Result};

/// Either of the two, where it is a program's.
trait Side<'a> {
    fn io(&mut self) -> Option<&mut UserIo<'a>>;
}

impl<'a> Side<'a> for IoDst<'a> {
    #[inline]
    fn io(&mut self) -> Option<&mut UserIo<'a>> {
        match &mut self.0 {
            Sink::User(io) => Some(io),
            Sink::Kernel { .. } => None,
        }
    }
}

impl<'a> Side<'a> for IoSrc<'a> {
    #[inline]
    fn io(&mut self) -> Option<&mut UserIo<'a>> {
        match &mut self.0 {
            Source::User(io) => Some(io),
            Source::Kernel(_) => None,
        }
    }
}

/// Calls `body`, in which nothing waits for the host; returns where it began and what was missing, if something was.
#[inline]
fn quickly<'a, S: Side<'a>, R>(
    side: &mut S,
    body: &mut impl FnMut(&mut S) -> R,
) -> (R, Option<(UserIo<'a>, Missing)>) {
    let Some(io) = side.io() else { return (body(side), None) };
    let start = *io;
    io.quick = true;
    let result = body(side);
    let Some(io) = side.io() else { return (result, None) };
    io.quick = start.quick;
    (result, io.missing.take().map(|missing| (start, missing)))
}

#[inline]
fn held<'a, S: Side<'a>, R>(side: &mut S, mut body: impl FnMut(&mut S) -> Result<R>) -> Result<R> {
    for _ in 0..TRIES {
        match quickly(side, &mut body) {
            (Err(Errno::EFAULT), Some((start, missing))) => again(side, start, 0, missing)?,
            (result, _) => return result,
        }
    }
    Err(Errno::EFAULT)
}

#[inline]
fn streamed<'a, S: Side<'a>>(side: &mut S, mut body: impl FnMut(&mut S) -> Result<usize>) -> Result<usize> {
    match quickly(side, &mut body) {
        (result, None) => result,
        (result, Some(missed)) => streamed_on(side, result, missed, &mut body),
    }
}

/// The rest of [`streamed`], where something was missing.
#[cold]
fn streamed_on<'a, S: Side<'a>>(
    side: &mut S,
    mut result: Result<usize>,
    (mut start, mut missing): (UserIo<'a>, Missing),
    body: &mut impl FnMut(&mut S) -> Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    for _ in 0..TRIES {
        let count = match result {
            Ok(count) => count,
            Err(Errno::EFAULT) => 0,
            Err(_) => break,
        };
        done += count;
        result = again(side, start, count, missing).map(|()| 0);
        if result.is_err() {
            break;
        }
        let missed;
        (result, missed) = quickly(side, body);
        match missed {
            Some(missed) => (start, missing) = missed,
            None => return result.map(|count| done + count).or_else(|errno| some(done).ok_or(errno)),
        }
    }
    some(done).ok_or(result.err().unwrap_or(Errno::EFAULT))
}

/// As many, if any.
fn some(count: usize) -> Option<usize> {
    (count != 0).then_some(count)
}

/// Goes back to `count` bytes behind `start`, and waits for what was missing.
#[cold]
fn again<'a, S: Side<'a>>(side: &mut S, start: UserIo<'a>, count: usize, missing: Missing) -> Result<()> {
    let Some(io) = side.io() else { return Err(Errno::EFAULT) };
    *io = start;
    io.advance(count as u64);
    // Where this is part of something with a lock of its own, that is to be let go of first.
    if io.quick {
        io.missing = Some(missing);
        return Err(Errno::EFAULT);
    }
    io.mm.bring(missing)
}

impl IoDst<'_> {
    /// Calls `body`, which copies with a lock held that it takes itself. Where a page is missing that may have to be waited
    /// for, a copy ends there as at one that cannot be had; if `body` passes EFAULT on, everything must be as it was: it is
    /// called again with the page there. What it has written otherwise stays so.
    ///
    /// # Errors
    /// Those of `body`.
    #[inline]
    pub fn held<R>(&mut self, body: impl FnMut(&mut Self) -> Result<R>) -> Result<R> {
        held(self, body)
    }

    /// The same for bytes of a stream: after a part of them it is called for the rest, until nothing is missing.
    ///
    /// # Errors
    /// Those of `body`, where nothing has been moved before.
    #[inline]
    pub fn streamed(&mut self, body: impl FnMut(&mut Self) -> Result<usize>) -> Result<usize> {
        streamed(self, body)
    }

    /// Whether a copy has ended early for a page that may have to be waited for.
    pub fn has_missed(&mut self) -> bool {
        self.io().is_some_and(|io| io.missing.is_some())
    }
}

impl IoSrc<'_> {
    /// Calls `body`, which copies with a lock held that it takes itself. Where a page is missing that may have to be waited
    /// for, a copy ends there as at one that cannot be had; if `body` passes EFAULT on, everything must be as it was: it is
    /// called again with the page there. What it has read otherwise stays so.
    ///
    /// # Errors
    /// Those of `body`.
    #[inline]
    pub fn held<R>(&mut self, body: impl FnMut(&mut Self) -> Result<R>) -> Result<R> {
        held(self, body)
    }

    /// The same for bytes of a stream: after a part of them it is called for the rest, until nothing is missing.
    ///
    /// # Errors
    /// Those of `body`, where nothing has been moved before.
    #[inline]
    pub fn streamed(&mut self, body: impl FnMut(&mut Self) -> Result<usize>) -> Result<usize> {
        streamed(self, body)
    }
}
