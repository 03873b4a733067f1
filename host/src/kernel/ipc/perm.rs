//! Owner and permissions of a System V object: `struct ipc_perm`.

use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred, NO_ID};

/// The permission bits.
const BITS: u32 = 0o777;

/// Who made an object, whose it is and what others may do.
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    /// Its key, [`super::ids::PRIVATE`] for none.
    pub key: i32,
    /// Its id.
    pub id: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// Whose group made it.
    pub cgid: u32,
    /// Permission bits, and what a kind adds to them.
    pub mode: u32,
}

impl Perm {
    /// Those of an object that `cred` makes.
    pub fn new(key: i32, flags: u32, cred: &Cred) -> Self {
        let (uid, gid) = (cred.uid.effective, cred.gid.effective);
        Perm { key, id: 0, uid, gid, cuid: uid, cgid: gid, mode: flags & BITS }
    }

    /// Whether `cred` may do what the bits of `want` say: those of any of the three classes count alike.
    ///
    /// # Errors
    /// EACCES.
    pub fn allow(&self, cred: &Cred, want: u32) -> Result<()> {
        let wanted = want >> 6 | want >> 3 | want;
        let granted = if self.is_owner(cred) {
            self.mode >> 6
        } else if cred.in_group(self.cgid) || cred.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 == 0 || cred.has(Caps::IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether it is `cred`'s, by having made or by having been given it.
    pub fn is_owner(&self, cred: &Cred) -> bool {
        [self.cuid, self.uid].contains(&cred.uid.effective)
    }

    /// Whether `cred` may change or remove the object.
    ///
    /// # Errors
    /// EPERM.
    pub fn may_control(&self, cred: &Cred) -> Result<()> {
        if self.is_owner(cred) || cred.has(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL for the id that is none.
    pub fn update(&mut self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        if uid == NO_ID || gid == NO_ID {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !BITS | mode & BITS;
        Ok(())
    }
}
