//! Page frames with an owner.

use super::frames::{alloc, alloc_dirty, get_ref, put_ref};
use super::raw::{self, PAGE};
use crate::abi::{Errno, Result};
use crate::platform::Frame;
use core::sync::atomic::AtomicU64;

/// An owned reference to a frame: how page caches (tmpfs, memfd) hold their pages and reach their bytes.
#[derive(Debug)]
pub struct Page(Frame);

impl Page {
    /// A new zeroed page.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> Result<Self> {
        Ok(Page(alloc()?))
    }

    /// Takes over a reference.
    pub fn from_frame(frame: Frame) -> Self {
        Page(frame)
    }

    /// Hands the reference over.
    pub fn into_frame(self) -> Frame {
        let frame = self.0;
        core::mem::forget(self);
        frame
    }

    /// Another reference, as `Mappable::page` returns it.
    pub fn share(&self) -> Frame {
        get_ref(self.0);
        self.0
    }

    /// The frame, borrowed.
    pub fn frame(&self) -> Frame {
        self.0
    }

    /// Copies out of the page.
    ///
    /// # Errors
    /// EFAULT if it is a page of a host file that is gone.
    ///
    /// # Panics
    /// If the range is not inside the page.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        check(offset, to.len());
        raw::read(self.0.0 + offset as u64, to).map_err(|_| Errno::EFAULT)
    }

    /// Copies into the page.
    ///
    /// # Panics
    /// If the range is not inside the page, or the page is one of a host file.
    pub fn write(&self, offset: usize, from: &[u8]) {
        check(offset, from.len());
        raw::write(self.0.0 + offset as u64, from);
    }

    /// Zeroes a part of the page.
    ///
    /// # Panics
    /// If the range is not inside the page, or the page is one of a host file.
    pub fn zero(&self, offset: usize, len: usize) {
        check(offset, len);
        raw::zero(self.0.0 + offset as u64, len);
    }

    /// A new page with the same bytes.
    ///
    /// # Errors
    /// ENOMEM; EFAULT as for [`Self::read`].
    pub fn duplicate(&self) -> Result<Self> {
        let copy = Page(alloc_dirty()?);
        raw::copy_page(copy.0.0, self.0.0).map_err(|_| Errno::EFAULT)?;
        Ok(copy)
    }

    /// The page's first words, which programs that have it mapped read meanwhile. Only for a page that is never given
    /// back: what is written here later goes to whoever has the frame then.
    ///
    /// # Panics
    /// If it is one of a host file.
    pub fn words<const N: usize>(&self) -> [&'static AtomicU64; N] {
        core::array::from_fn(|index| {
            check(index * 8, 8);
            raw::atomic_u64(self.0.0 + index as u64 * 8)
        })
    }

    /// Makes instruction fetches see what was written (arm64).
    pub fn sync_code(&self) {
        raw::sync_code(self.0.0);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        put_ref(self.0);
    }
}

#[track_caller]
fn check(offset: usize, len: usize) {
    assert!(offset <= PAGE as usize && len <= PAGE as usize - offset, "range leaves the page");
}
