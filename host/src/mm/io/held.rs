//! Copies by who holds a lock: they wait for nothing, least of all for the host.
//!
//! Where one would have to it ends there, who has the lock lets go of it, what is missing is brought, and all is done again.

use super::super::usermem::{Missing, TRIES};
use super::{IoDst, IoSrc, Iovec, Sink, Source, UserIo};
use crate::abi::{Errno, Result};

/// Where a copy begins.
#[derive(Clone, Copy)]
struct Mark<'a> {
    first: Iovec,
    rest: &'a [Iovec],
    remaining: u64,
}

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

/// Calls `body`, in which nothing waits for the host. Whether something was missing is left in the side's `missing`.
#[inline]
fn quickly<'a, S: Side<'a>, R>(side: &mut S, body: &mut impl FnMut(&mut S) -> R) -> R {
    let Some(io) = side.io() else { return body(side) };
    let before = core::mem::replace(&mut io.quick, true);
    let result = body(side);
    if let Some(io) = side.io() {
        io.quick = before;
    }
    result
}

/// What was missing, which is forgotten.
#[inline]
fn missing<'a, S: Side<'a>>(side: &mut S) -> Option<Missing> {
    side.io().and_then(|io| io.missing.take())
}

/// Where a side is before a copy.
#[inline]
fn mark<'a, S: Side<'a>>(side: &mut S) -> Option<Mark<'a>> {
    side.io().map(|io| Mark { first: io.first, rest: io.rest, remaining: io.remaining })
}

#[inline]
fn held<'a, S: Side<'a>, R>(side: &mut S, mut body: impl FnMut(&mut S) -> Result<R>) -> Result<R> {
    let start = mark(side);
    for _ in 0..TRIES {
        let result = quickly(side, &mut body);
        match (missing(side), &result, start) {
            (Some(missing), Err(Errno::EFAULT), Some(start)) => again(side, start, 0, missing)?,
            _ => return result,
        }
    }
    Err(Errno::EFAULT)
}

#[inline]
fn streamed<'a, S: Side<'a>>(side: &mut S, mut body: impl FnMut(&mut S) -> Result<usize>) -> Result<usize> {
    let start = mark(side);
    let result = quickly(side, &mut body);
    match (missing(side), start) {
        (Some(missing), Some(start)) => streamed_on(side, result, start, missing, &mut body),
        _ => result,
    }
}

/// The rest of [`streamed`], where something was missing.
#[cold]
fn streamed_on<'a, S: Side<'a>>(
    side: &mut S,
    mut result: Result<usize>,
    mut start: Mark<'a>,
    mut missed: Missing,
    body: &mut dyn FnMut(&mut S) -> Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    for _ in 0..TRIES {
        let count = match result {
            Ok(count) => count,
            Err(Errno::EFAULT) => 0,
            Err(_) => break,
        };
        done += count;
        result = again(side, start, count, missed).map(|()| 0);
        if result.is_err() {
            break;
        }
        let here = mark(side);
        result = quickly(side, &mut |side| body(side));
        match (missing(side), here) {
            (Some(missing), Some(here)) => (start, missed) = (here, missing),
            _ => return result.map(|count| done + count).or_else(|errno| some(done).ok_or(errno)),
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
fn again<'a, S: Side<'a>>(side: &mut S, start: Mark<'a>, count: usize, missing: Missing) -> Result<()> {
    let Some(io) = side.io() else { return Err(Errno::EFAULT) };
    (io.first, io.rest, io.remaining) = (start.first, start.rest, start.remaining);
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
