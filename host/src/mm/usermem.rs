//! The kernel's access to user memory.
//!
//! Every copy walks the program's tables page by page under [`Mm::state`], checks the rights that the program
//! itself has on each page (the arena's alias would let anything through) and faults pages in, exactly
//! as the program's own access would have. What cannot be had is EFAULT; nothing here panics on what a program
//! passes. Running programs change their memory while it is copied: read once, then validate what was read.
//!
//! A page that has to be had from a host file may take for ever. So who copies with a lock held does it *quickly* ([`Missed`]):
//! a copy ends at such a page, the lock is let go of, the page is brought, and all is done again. [`Mm::with_words`] does so
//! for words, [`IoDst::held`](super::IoDst::held) and its kin for files.

use super::fault::Refused;
use super::raw;
use super::{Mm, PAGE_SIZE, frames};
use crate::abi::{Errno, Result};
use crate::platform::{Access, Frame, Prot};
use core::cell::Cell;
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Plain data: every bit pattern is a value and there is no padding (which would leak kernel memory). Derive
/// `zerocopy`'s `FromBytes, IntoBytes, Immutable` on a `repr(C)` struct to get it.
pub trait Pod: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Pod for T {}

/// Names like PATH_MAX do not apply here; this bounds one chunk of a string copy.
const STRING_CHUNK: usize = 256;
/// How often something is done again because a page was missing. Each page takes one time, unless another thread of the
/// program takes it out again.
pub(super) const TRIES: u32 = 4096;

/// Where a quick copy ended because the page may have to be waited for.
#[derive(Default)]
pub(super) struct Missed(Cell<Option<Missing>>);

/// An access that has to wait.
pub(super) type Missing = (u64, Access);

impl Missed {
    /// The access, if there was one, which is forgotten.
    pub(super) fn take(&self) -> Option<Missing> {
        self.0.take()
    }
}

/// Words of a program's memory that can be had without waiting for the host, for who holds a lock.
pub struct Words<'a> {
    mm: &'a Mm,
    missed: Missed,
}

impl Mm {
    /// Copies from the program.
    ///
    /// # Errors
    /// EFAULT if any byte is not readable; `to` is then partly written.
    #[inline]
    pub fn read(&self, addr: u64, to: &mut [u8]) -> Result<()> {
        if self.read_some(addr, to)? == to.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies to the program.
    ///
    /// # Errors
    /// EFAULT if any byte is not writable; those before it are written.
    #[inline]
    pub fn write(&self, addr: u64, from: &[u8]) -> Result<()> {
        if self.write_some(addr, from)? == from.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies from the program as far as it is readable.
    ///
    /// # Errors
    /// EFAULT if not even the first byte is.
    #[inline]
    pub fn read_some(&self, addr: u64, to: &mut [u8]) -> Result<usize> {
        self.read_by(addr, to, None)
    }

    /// The same, quickly if `missed` is given.
    #[inline]
    pub(super) fn read_by(&self, addr: u64, to: &mut [u8], missed: Option<&Missed>) -> Result<usize> {
        self.pages(addr, to.len(), Access::Read, missed, |at, done, len| {
            raw::read(at, &mut to[done..done + len]).is_ok()
        })
    }

    /// Copies to the program as far as it is writable.
    ///
    /// # Errors
    /// EFAULT if not even the first byte is.
    #[inline]
    pub fn write_some(&self, addr: u64, from: &[u8]) -> Result<usize> {
        self.write_by(addr, from, None)
    }

    /// The same, quickly if `missed` is given.
    #[inline]
    pub(super) fn write_by(&self, addr: u64, from: &[u8], missed: Option<&Missed>) -> Result<usize> {
        self.pages(addr, from.len(), Access::Write, missed, |at, done, len| {
            raw::write(at, &from[done..done + len]);
            true
        })
    }

    /// Zeroes the program's memory as far as it is writable (clear_user).
    ///
    /// # Errors
    /// EFAULT if not even the first byte is.
    #[inline]
    pub fn zero_some(&self, addr: u64, len: usize) -> Result<usize> {
        self.zero_by(addr, len, None)
    }

    /// The same, quickly if `missed` is given.
    #[inline]
    pub(super) fn zero_by(&self, addr: u64, len: usize, missed: Option<&Missed>) -> Result<usize> {
        self.pages(addr, len, Access::Write, missed, |at, _, len| {
            raw::zero(at, len);
            true
        })
    }

    /// Copies a value from the program.
    ///
    /// # Errors
    /// EFAULT.
    #[inline]
    pub fn read_val<T: Pod>(&self, addr: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value to the program.
    ///
    /// # Errors
    /// EFAULT.
    #[inline]
    pub fn write_val<T: IntoBytes + Immutable + ?Sized>(&self, addr: u64, value: &T) -> Result<()> {
        self.write(addr, value.as_bytes())
    }

    /// Copies `count` values from the program.
    ///
    /// # Errors
    /// EFAULT; ENOMEM if the size overflows.
    pub fn read_vec<T: Pod>(&self, addr: u64, count: usize) -> Result<Vec<T>> {
        let mut values = T::new_vec_zeroed(count).map_err(|_| Errno::ENOMEM)?;
        self.read(addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Copies a string that ends with a zero byte, without that byte.
    ///
    /// # Errors
    /// EFAULT; ENAMETOOLONG if there is none among the first `max` bytes.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>> {
        let mut string = Vec::new();
        let mut chunk = [0; STRING_CHUNK];
        while string.len() < max {
            let at = addr.wrapping_add(string.len() as u64);
            // Not past a page's end: what lies behind the string need not be readable.
            let len = STRING_CHUNK.min(max - string.len()).min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            self.read(at, &mut chunk[..len])?;
            if let Some(end) = chunk[..len].iter().position(|&byte| byte == 0) {
                string.extend_from_slice(&chunk[..end]);
                return Ok(string);
            }
            string.extend_from_slice(&chunk[..len]);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// One atomic load of an aligned word.
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn load_u32(&self, addr: u64) -> Result<u32> {
        let mut value = 0;
        self.word(addr, Access::Read, None, |at| raw::load_u32(at).map(|loaded| value = loaded).is_ok())?;
        Ok(value)
    }

    /// One atomic store of an aligned word.
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn store_u32(&self, addr: u64, value: u32) -> Result<()> {
        self.word(addr, Access::Write, None, |at| {
            raw::atomic_u32(at).store(value, Ordering::SeqCst);
            true
        })
    }

    /// Atomic compare and exchange of an aligned word: the value found (equal to `old` iff exchanged).
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn cmpxchg_u32(&self, addr: u64, old: u32, new: u32) -> Result<u32> {
        self.exchange(addr, None, |found| (found == old).then_some(new))
    }

    /// Changes an aligned word to what `change` makes of it, if anything: the value found.
    fn exchange(
        &self,
        addr: u64,
        missed: Option<&Missed>,
        change: impl Fn(u32) -> Option<u32>,
    ) -> Result<u32> {
        let mut found = 0;
        self.word(addr, Access::Write, missed, |at| {
            let word = raw::atomic_u32(at);
            found = word.load(Ordering::SeqCst);
            while let Some(new) = change(found)
                && let Err(now) = word.compare_exchange_weak(found, new, Ordering::SeqCst, Ordering::SeqCst)
            {
                found = now;
            }
            true
        })?;
        Ok(found)
    }

    /// Calls `body`, which may hold a lock while it looks at words. Where one is missing, `body` is called again once it is
    /// there: EFAULT, which it passes on, has to leave everything as it was.
    ///
    /// # Errors
    /// Those of `body`.
    #[inline]
    pub fn with_words<R>(&self, mut body: impl FnMut(&Words<'_>) -> Result<R>) -> Result<R> {
        let words = Words { mm: self, missed: Missed::default() };
        for _ in 0..TRIES {
            let result = body(&words);
            let Some(missed) = words.missed.take() else { return result };
            if !matches!(result, Err(Errno::EFAULT)) {
                return result;
            }
            self.bring(missed)?;
        }
        Err(Errno::EFAULT)
    }

    /// Calls `body` with words that can be had at once: a missing one is EFAULT.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn at_once<R>(&self, body: impl FnOnce(&Words<'_>) -> Result<R>) -> Result<R> {
        body(&Words { mm: self, missed: Missed::default() })
    }

    /// Waits for what was missing. Called without a lock held.
    pub(super) fn bring(&self, (addr, access): Missing) -> Result<()> {
        self.handle_fault(addr, access).map_err(|_| Errno::EFAULT)
    }

    fn word(
        &self,
        addr: u64,
        access: Access,
        missed: Option<&Missed>,
        mut operate: impl FnMut(u64) -> bool,
    ) -> Result<()> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        self.pages(addr, 4, access, missed, |at, _, _| operate(at)).map(drop)
    }

    /// Calls `operate(arena address, bytes done, length)` for each page's part of the range, with `state` locked
    /// and the page accessible; stops where the program itself would fault or where `operate` says false (a host
    /// file's page is gone).
    #[inline(always)]
    fn pages(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        missed: Option<&Missed>,
        mut operate: impl FnMut(u64, usize, usize) -> bool,
    ) -> Result<usize> {
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        // Most are small and in a page that was used a moment ago.
        if len as u64 <= PAGE_SIZE - addr % PAGE_SIZE && len != 0 {
            let _state = self.state.lock();
            if let Some(arena) = self.space.recent(addr, need)
                && operate(arena, 0, len)
            {
                return Ok(len);
            }
        }
        self.pages_slow(addr, len, access, missed, &mut operate)
    }

    #[inline(never)]
    fn pages_slow(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        missed: Option<&Missed>,
        operate: &mut dyn FnMut(u64, usize, usize) -> bool,
    ) -> Result<usize> {
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        if !self.in_bounds(addr, len as u64) {
            return Err(Errno::EFAULT);
        }
        let mut done = 0;
        while done < len {
            let at = addr + done as u64;
            let part = (len - done).min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            let copied = {
                let _state = self.state.lock();
                self.resident_at(at, need).map(|arena| operate(arena, done, part))
            };
            match copied {
                Some(true) => done += part,
                None if self.reach(at, access, missed) => {}
                Some(false) | None => break,
            }
        }
        if done == 0 && len != 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Makes an access possible, if it can be; quickly if `missed` is given, which then says where it was not.
    fn reach(&self, addr: u64, access: Access, missed: Option<&Missed>) -> bool {
        let Some(missed) = missed else { return self.handle_fault(addr, access).is_ok() };
        let result = self.handle_fault_at_once(addr, access);
        if let Err(Refused::Waits) = result {
            missed.0.set(Some((addr, access)));
        }
        result.is_ok()
    }

    /// The arena address of a user address whose page is there with these rights. Call with `state` locked; valid
    /// until it is unlocked.
    #[inline]
    fn resident_at(&self, addr: u64, need: Prot) -> Option<u64> {
        self.space
            .recent(addr, need)
            .or_else(|| if self.is_user_page(addr) { self.space.resident(addr, need) } else { None })
    }

    /// Takes a reference to the frame behind `addr`, faulting it in. For a page of a host file, which cannot be
    /// held, `None`.
    pub(super) fn pin_page(
        &self,
        addr: u64,
        access: Access,
        missed: Option<&Missed>,
    ) -> Result<Option<Frame>> {
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        if !self.is_user_page(addr) {
            return Err(Errno::EFAULT);
        }
        loop {
            {
                let _state = self.state.lock();
                if let Some((frame, prot)) = self.space.lookup(addr & !(PAGE_SIZE - 1))
                    && prot.contains(need)
                {
                    if frames::is_host_file(frame) {
                        return Ok(None);
                    }
                    frames::get_ref(frame);
                    return Ok(Some(frame));
                }
            }
            if !self.reach(addr, access, missed) {
                return Err(Errno::EFAULT);
            }
        }
    }

    /// Copies between user memory and a frame that the caller holds: `to_user` says which way.
    pub(super) fn copy_frame(
        &self,
        addr: u64,
        frame: Frame,
        offset: usize,
        len: usize,
        to_user: bool,
        missed: Option<&Missed>,
    ) -> Result<usize> {
        let other = frame.0 + offset as u64;
        let access = if to_user { Access::Write } else { Access::Read };
        self.pages(addr, len, access, missed, |at, done, len| {
            let other = other + done as u64;
            if to_user { raw::copy_between(at, other, len) } else { raw::copy_between(other, at, len) }
                .is_ok()
        })
    }
}

impl Words<'_> {
    /// As [`Mm::load_u32`].
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn load(&self, addr: u64) -> Result<u32> {
        let mut value = 0;
        self.mm.word(addr, Access::Read, Some(&self.missed), |at| {
            raw::load_u32(at).map(|loaded| value = loaded).is_ok()
        })?;
        Ok(value)
    }

    /// As [`Mm::store_u32`].
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn store(&self, addr: u64, value: u32) -> Result<()> {
        self.update(addr, |_| value).map(drop)
    }

    /// As [`Mm::cmpxchg_u32`].
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn compare_exchange(&self, addr: u64, old: u32, new: u32) -> Result<u32> {
        self.mm.exchange(addr, Some(&self.missed), |found| (found == old).then_some(new))
    }

    /// Atomically replaces an aligned word by `update` of it: the value found. For FUTEX_WAKE_OP.
    ///
    /// # Errors
    /// EFAULT; EINVAL if unaligned.
    pub fn update(&self, addr: u64, update: impl Fn(u32) -> u32) -> Result<u32> {
        self.mm.exchange(addr, Some(&self.missed), |found| Some(update(found)))
    }
}
