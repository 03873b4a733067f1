//! Naming a futex word: the same key from every address space that shares it.

use super::vma::Backing;
use super::{Mm, VmFlags};
use crate::abi::{Errno, Result};

/// What a futex word is, whoever names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FutexKey {
    /// A word of one address space.
    Private {
        /// Identity of the [`Mm`] (its address: waiters keep it alive).
        mm: usize,
        /// Address of the word.
        addr: u64,
    },
    /// A word of something shared.
    Shared {
        /// [`Mappable::identity`](super::Mappable::identity) (waiters' mappings keep the object alive).
        object: usize,
        /// Offset of the word in it.
        offset: u64,
    },
}

impl Mm {
    /// The key of the word at `addr`; `shared` is the absence of FUTEX_PRIVATE_FLAG.
    ///
    /// # Errors
    /// EINVAL if unaligned; EFAULT if out of bounds, or shared and not mapped.
    #[inline]
    pub fn futex_key(&self, addr: u64, shared: bool) -> Result<FutexKey> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if !self.in_bounds(addr, 4) {
            return Err(Errno::EFAULT);
        }
        let private = FutexKey::Private { mm: std::ptr::from_ref(self) as usize, addr };
        if shared { self.shared_key(addr, private) } else { Ok(private) }
    }

    /// The key of a word of something that may be shared; `private` if it is not.
    fn shared_key(&self, addr: u64, private: FutexKey) -> Result<FutexKey> {
        let state = self.state.lock();
        let vma = state.vmas.find(addr).ok_or(Errno::EFAULT)?;
        Ok(match &vma.backing {
            Backing::Object { object, .. } if vma.flags.contains(VmFlags::SHARED) => {
                FutexKey::Shared { object: object.identity(), offset: vma.object_offset(addr) }
            }
            _ => private,
        })
    }
}
