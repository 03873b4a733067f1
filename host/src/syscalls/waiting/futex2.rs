//! The calls that follow futex(2), one per operation: futex_wait, futex_wake, futex_requeue, futex_waitv.

use super::futex::absolute;
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::futexes::{MAX_WORDS, Word};
use crate::syscalls::Args;
use linux_raw_sys::general as c;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// FUTEX2_SIZE_U32: the only size there is.
const SIZE_U32: u32 = 2;
/// FUTEX2_SIZE_MASK.
const SIZE_MASK: u32 = 3;
/// FUTEX2_PRIVATE.
const PRIVATE: u32 = 128;

/// `struct futex_waitv`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct WaitV {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<WaitV>() == 24);

impl WaitV {
    fn word(self) -> Result<Word> {
        if self.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        let shared = is_shared(self.flags)?;
        let expected = u32::try_from(self.value).map_err(|_| Errno::EINVAL)?;
        Ok(Word { addr: self.addr, shared, expected })
    }
}

/// Whether a word is other processes' too.
fn is_shared(flags: u32) -> Result<bool> {
    if flags & !(SIZE_MASK | PRIVATE) != 0 || flags & SIZE_MASK != SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & PRIVATE == 0)
}

/// A moment of `clock` in the first namespace's CLOCK_MONOTONIC ns; none without a timeout, whatever the clock.
fn moment(cur: &Current, addr: u64, clock: u32) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    if clock != c::CLOCK_MONOTONIC && clock != c::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    absolute(cur, addr, clock == c::CLOCK_REALTIME)
}

/// futex_wake
pub(crate) fn futex_wake(cur: &mut Current, args: &Args) -> Result<u64> {
    let shared = is_shared(args.uint(3))?;
    let mask = u32::try_from(args.addr(1)).map_err(|_| Errno::EINVAL)?;
    match args.int(2) {
        // Unlike futex(2), which wakes one then.
        0 if mask != 0 => cur.mm().futex_key(args.addr(0), shared).map(|_| 0),
        count => {
            let count = usize::try_from(count).unwrap_or(1);
            cur.kernel.futexes.wake(cur.mm(), args.addr(0), shared, count, mask)
        }
    }
}

/// futex_wait
pub(crate) fn futex_wait(cur: &mut Current, args: &Args) -> Result<u64> {
    let shared = is_shared(args.uint(3))?;
    let value = u32::try_from(args.addr(1)).map_err(|_| Errno::EINVAL)?;
    let mask = u32::try_from(args.addr(2)).map_err(|_| Errno::EINVAL)?;
    let deadline = moment(cur, args.addr(4), args.uint(5))?;
    cur.futex_wait(args.addr(0), shared, value, deadline, mask)
}

/// futex_requeue
pub(crate) fn futex_requeue(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(1) != 0 || args.addr(0) == 0 {
        return Err(Errno::EINVAL);
    }
    let [from, to] = cur.mm().read_val::<[WaitV; 2]>(args.addr(0))?.map(WaitV::word);
    let (from, to) = (from?, to?);
    let count = |value: i32| usize::try_from(value).map_err(|_| Errno::EINVAL);
    let counts = [count(args.int(2))?, count(args.int(3))?];
    let words = [(from.addr, from.shared), (to.addr, to.shared)];
    cur.kernel.futexes.requeue(cur.mm(), words, counts, Some(from.expected))
}

/// futex_waitv(2)
pub(crate) fn futex_waitv(cur: &mut Current, args: &Args) -> Result<u64> {
    let count = args.uint(1) as usize;
    if args.uint(2) != 0 || !(1..=MAX_WORDS).contains(&count) || args.addr(0) == 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = moment(cur, args.addr(3), args.uint(4))?;
    let given: Vec<WaitV> = cur.mm().read_vec(args.addr(0), count)?;
    let words = given.into_iter().map(WaitV::word).collect::<Result<Vec<_>>>()?;
    cur.futex_wait_any(&words, deadline)
}
