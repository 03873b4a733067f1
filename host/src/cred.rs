//! Credentials: who a task is.
//!
//! A [`Cred`] is immutable and shared; changing credentials replaces it. Its ids are those of the first user namespace, numbers
//! that files and tasks compare; what programs call them is their namespace's ([`userns`]). So are its capabilities:
//!
//! | asked with | power over |
//! |---|---|
//! | [`Cred::has`] | the whole system, which only the first namespace's credentials have (`capable`) |
//! | [`Cred::has_own`] | what is of its own namespace: itself |
//! | [`Cred::has_in`] | what is of a given namespace (`ns_capable`) |
//! | [`Cred::has_over`] | a file, whose ids must have names (`capable_wrt_inode_uidgid`) |

pub mod userns;

use crate::abi::{Errno, Result};
use std::sync::Arc;
use userns::UserNs;

bitflags::bitflags! {
    /// Capabilities (capabilities(7)), bit = number in linux/capability.h.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Caps: u64 {
        /// Change file owners.
        const CHOWN = 1 << 0;
        /// Ignore file permissions.
        const DAC_OVERRIDE = 1 << 1;
        /// Ignore read and search permissions.
        const DAC_READ_SEARCH = 1 << 2;
        /// Act as any file's owner.
        const FOWNER = 1 << 3;
        /// Keep set-id bits on change.
        const FSETID = 1 << 4;
        /// Signal anybody.
        const KILL = 1 << 5;
        /// Set group ids.
        const SETGID = 1 << 6;
        /// Set user ids.
        const SETUID = 1 << 7;
        /// Grant capabilities.
        const SETPCAP = 1 << 8;
        /// Set what keeps files as they are.
        const LINUX_IMMUTABLE = 1 << 9;
        /// Bind low ports.
        const NET_BIND_SERVICE = 1 << 10;
        /// Administer the network.
        const NET_ADMIN = 1 << 12;
        /// Raw sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory.
        const IPC_LOCK = 1 << 14;
        /// Act as the owner of any System V object.
        const IPC_OWNER = 1 << 15;
        /// chroot(2).
        const SYS_CHROOT = 1 << 18;
        /// Trace anybody.
        const SYS_PTRACE = 1 << 19;
        /// Everything administrative.
        const SYS_ADMIN = 1 << 21;
        /// Read the kernel's log.
        const SYSLOG = 1 << 34;
        /// Reboot.
        const SYS_BOOT = 1 << 22;
        /// Scheduling of others.
        const SYS_NICE = 1 << 23;
        /// Beyond limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set clocks.
        const SYS_TIME = 1 << 25;
        /// mknod(2).
        const MKNOD = 1 << 27;
        /// File capabilities.
        const SETFCAP = 1 << 31;
        /// Those that are about files, as the file-system id says (CAP_FS_SET): CAP_LINUX_IMMUTABLE and CAP_MAC_OVERRIDE, too.
        const FILES = 0x1f | 1 << 9 | 1 << 27 | 1 << 32;
        /// All that Linux 6.1 knows (`CAP_LAST_CAP` is 40).
        const ALL = (1 << 41) - 1;
    }
}

/// Number of the highest capability.
pub const CAP_LAST: u32 = 40;

/// Most supplementary groups.
pub const NGROUPS_MAX: usize = 65536;

/// "Leave unchanged" in set*id(2), and the id that is none.
pub const NO_ID: u32 = u32::MAX;

/// Securebits (capabilities(7)).
pub mod securebits {
    /// Root is nobody special.
    pub const NOROOT: u32 = 1;
    /// Changing from uid 0 keeps capabilities.
    pub const NO_SETUID_FIXUP: u32 = 4;
    /// Keep permitted capabilities when all uids leave 0.
    pub const KEEP_CAPS: u32 = 16;
    /// Nothing may be added to the ambient set.
    pub const NO_CAP_AMBIENT_RAISE: u32 = 64;
    /// The locks: each is the bit above what it locks.
    pub const LOCKS: u32 = 0xaa;
    /// Everything that can be set.
    pub const ALL: u32 = 0xff;
}

/// Real, effective, saved and file-system id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved set-id.
    pub saved: u32,
    /// For file access.
    pub fs: u32,
}

impl Ids {
    /// All four equal.
    pub fn all(id: u32) -> Self {
        Ids { real: id, effective: id, saved: id, fs: id }
    }

    fn has(&self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }

    /// setuid(2), setgid(2).
    fn set(&mut self, id: u32, privileged: bool) -> Result<()> {
        if id == NO_ID {
            return Err(Errno::EINVAL);
        }
        if privileged {
            *self = Ids::all(id);
        } else if id == self.real || id == self.saved {
            (self.effective, self.fs) = (id, id);
        } else {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// setreuid(2), setregid(2).
    fn set_re(&mut self, real: u32, effective: u32, privileged: bool) -> Result<()> {
        let old = *self;
        if real != NO_ID {
            if !privileged && real != old.real && real != old.effective {
                return Err(Errno::EPERM);
            }
            self.real = real;
        }
        if effective != NO_ID {
            if !privileged && !old.has(effective) {
                *self = old;
                return Err(Errno::EPERM);
            }
            self.effective = effective;
        }
        if real != NO_ID || (effective != NO_ID && effective != old.real) {
            self.saved = self.effective;
        }
        self.fs = self.effective;
        Ok(())
    }

    /// setresuid(2), setresgid(2).
    fn set_res(&mut self, real: u32, effective: u32, saved: u32, privileged: bool) -> Result<()> {
        let old = *self;
        if !privileged && [real, effective, saved].iter().any(|id| *id != NO_ID && !old.has(*id)) {
            return Err(Errno::EPERM);
        }
        for (slot, id) in [(&mut self.real, real), (&mut self.effective, effective), (&mut self.saved, saved)]
        {
            if id != NO_ID {
                *slot = id;
            }
        }
        self.fs = self.effective;
        Ok(())
    }

    /// setfsuid(2), setfsgid(2): returns the old one, never fails.
    fn set_fs(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.fs;
        if id != NO_ID && (privileged || self.has(id) || id == self.fs) {
            self.fs = id;
        }
        old
    }
}

/// Credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cred {
    /// User ids.
    pub uid: Ids,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Capabilities that can be had.
    pub permitted: Caps,
    /// Capabilities that count.
    pub effective: Caps,
    /// Capabilities kept across execve by a file that inherits them.
    pub inheritable: Caps,
    /// Limit on what execve grants.
    pub bounding: Caps,
    /// Capabilities kept across execve of an ordinary file.
    pub ambient: Caps,
    /// `securebits`.
    pub securebits: u32,
    /// Where its capabilities count, and what its ids are called.
    pub user_ns: UserNs,
}

/// Why a program gets nothing that its caller did not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Somebody else can steer it.
    Steered,
    /// Its caller has said so (PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
}

impl Cred {
    /// Root with every capability.
    pub fn root() -> Self {
        Cred {
            uid: Ids::all(0),
            gid: Ids::all(0),
            groups: Arc::from([]),
            permitted: Caps::ALL,
            effective: Caps::ALL,
            inheritable: Caps::empty(),
            bounding: Caps::ALL,
            ambient: Caps::empty(),
            securebits: 0,
            user_ns: UserNs::FIRST,
        }
    }

    /// A user: no capabilities unless it is root.
    pub fn user(uid: u32, gid: u32, groups: &[u32]) -> Self {
        let caps = if uid == 0 { Caps::ALL } else { Caps::empty() };
        let groups = Arc::from(groups);
        Cred {
            uid: Ids::all(uid),
            gid: Ids::all(gid),
            groups,
            permitted: caps,
            effective: caps,
            ..Cred::root()
        }
    }

    /// Whether it has a capability over the whole system.
    #[inline]
    pub fn has(&self, cap: Caps) -> bool {
        self.user_ns.is_first() && self.effective.contains(cap)
    }

    /// Whether it has a capability in its own user namespace.
    #[inline]
    pub fn has_own(&self, cap: Caps) -> bool {
        self.effective.contains(cap)
    }

    /// Whether it has a capability over what belongs to a user namespace: its own, one below that, or one that its user made
    /// there and those below that (user_namespaces(7), "Capabilities").
    #[inline]
    pub fn has_in(&self, user_ns: &UserNs, cap: Caps) -> bool {
        if *user_ns == self.user_ns {
            self.effective.contains(cap)
        } else {
            self.reaches(user_ns, self.effective, cap)
        }
    }

    /// The same for given capabilities of its.
    pub fn reaches(&self, user_ns: &UserNs, caps: Caps, cap: Caps) -> bool {
        for at in user_ns.upwards() {
            if *at == self.user_ns {
                return caps.contains(cap);
            }
            if at.parent() == Some(&self.user_ns) && at.owner() == self.uid.effective {
                return true;
            }
        }
        false
    }

    /// Whether it has a capability over a file with these owners: both must have names where it is.
    #[inline]
    pub fn has_over(&self, (uid, gid): (u32, u32), cap: Caps) -> bool {
        self.effective.contains(cap) && self.user_ns.knows(uid, gid)
    }

    /// Who is root where it is.
    #[inline]
    fn root_uid(&self) -> Option<u32> {
        if self.user_ns.is_first() { Some(0) } else { self.user_ns.uid(0) }
    }

    /// Whether it really is root of its namespace.
    pub fn is_really_root(&self) -> bool {
        self.root_uid() == Some(self.uid.real)
    }

    /// Whether file access counts it as a member of `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid.fs == gid || self.groups.contains(&gid)
    }

    /// setuid(2).
    ///
    /// # Errors
    /// EPERM, EINVAL.
    pub fn set_uid(&mut self, id: u32) -> Result<()> {
        self.change_uids(|uid, privileged| uid.set(id, privileged))
    }

    /// setreuid(2).
    ///
    /// # Errors
    /// EPERM.
    pub fn set_reuid(&mut self, real: u32, effective: u32) -> Result<()> {
        self.change_uids(|uid, privileged| uid.set_re(real, effective, privileged))
    }

    /// setresuid(2).
    ///
    /// # Errors
    /// EPERM.
    pub fn set_resuid(&mut self, real: u32, effective: u32, saved: u32) -> Result<()> {
        self.change_uids(|uid, privileged| uid.set_res(real, effective, saved, privileged))
    }

    /// setfsuid(2): the old id.
    pub fn set_fsuid(&mut self, id: u32) -> u32 {
        let privileged = self.has_own(Caps::SETUID);
        let old = self.uid.set_fs(id, privileged);
        if self.securebits & securebits::NO_SETUID_FIXUP == 0 {
            let (was, is) = (self.root_uid() == Some(old), self.root_uid() == Some(self.uid.fs));
            if was && !is {
                self.effective -= Caps::FILES;
            } else if !was && is {
                self.effective |= self.permitted & Caps::FILES;
            }
        }
        old
    }

    /// setgid(2).
    ///
    /// # Errors
    /// EPERM, EINVAL.
    pub fn set_gid(&mut self, id: u32) -> Result<()> {
        let privileged = self.has_own(Caps::SETGID);
        self.gid.set(id, privileged)
    }

    /// setregid(2).
    ///
    /// # Errors
    /// EPERM.
    pub fn set_regid(&mut self, real: u32, effective: u32) -> Result<()> {
        let privileged = self.has_own(Caps::SETGID);
        self.gid.set_re(real, effective, privileged)
    }

    /// setresgid(2).
    ///
    /// # Errors
    /// EPERM.
    pub fn set_resgid(&mut self, real: u32, effective: u32, saved: u32) -> Result<()> {
        let privileged = self.has_own(Caps::SETGID);
        self.gid.set_res(real, effective, saved, privileged)
    }

    /// setfsgid(2): the old id.
    pub fn set_fsgid(&mut self, id: u32) -> u32 {
        let privileged = self.has_own(Caps::SETGID);
        self.gid.set_fs(id, privileged)
    }

    /// What execve(2) makes of it for a file that is set-uid (`setuid`) and set-gid (`setgid`) to those ids. A program that is
    /// `held` gets nothing that its caller did not have, not even what root's programs get (cap_bprm_creds_from_file).
    #[must_use]
    pub fn after_exec(
        &self,
        setuid: Option<u32>,
        setgid: Option<u32>,
        held: impl FnOnce() -> Option<Withheld>,
    ) -> Self {
        let mut new = self.clone();
        new.uid.effective = setuid.unwrap_or(self.uid.effective);
        new.gid.effective = setgid.unwrap_or(self.gid.effective);
        let privileged = self.securebits & securebits::NOROOT == 0;
        let is_root = |id| self.root_uid() == Some(id);
        let root = privileged && (is_root(new.uid.effective) || is_root(new.uid.real));
        let all_count = privileged && is_root(new.uid.effective);
        new.permitted = if root { new.inheritable | new.bounding } else { Caps::empty() };
        let raised = new.is_raised();
        // Who acts as another already gets no more by it (Linux 6.16; before, such ids were taken away, too).
        let counts = |cred: &Cred| (cred.uid.effective, cred.gid.effective);
        let more = counts(self) != counts(&new) || !self.permitted.contains(new.permitted);
        if let Some(held) = more.then(held).flatten() {
            if held == Withheld::NoNewPrivileges || !self.has_own(Caps::SETUID) {
                new.uid.effective = new.uid.real;
                new.gid.effective = new.gid.real;
            }
            new.permitted &= self.permitted;
        }
        if raised {
            new.ambient = Caps::empty();
        }
        new.permitted |= new.ambient;
        new.effective = if all_count { new.permitted } else { new.ambient };
        (new.uid.saved, new.uid.fs) = (new.uid.effective, new.uid.effective);
        (new.gid.saved, new.gid.fs) = (new.gid.effective, new.gid.effective);
        new.securebits &= !securebits::KEEP_CAPS;
        new
    }

    /// Whether it acts as somebody else than who it is.
    pub fn is_raised(&self) -> bool {
        self.uid.effective != self.uid.real || self.gid.effective != self.gid.real
    }

    /// Whether a task that takes `new` in place of these is somebody else to those who look at it (commit_creds).
    pub fn becomes_another(&self, new: &Cred) -> bool {
        let counts = |ids: &Ids| (ids.effective, ids.fs);
        counts(&self.uid) != counts(&new.uid)
            || counts(&self.gid) != counts(&new.gid)
            || !self.could_have(new)
    }

    /// Whether `new` can do nothing that it could not: what its user made is his own (cred_cap_issubset).
    fn could_have(&self, new: &Cred) -> bool {
        if self.user_ns == new.user_ns {
            return self.permitted.contains(new.permitted);
        }
        let own = |at: &UserNs| at.parent() == Some(&self.user_ns) && at.owner() == self.uid.effective;
        new.user_ns.upwards().any(own)
    }

    /// Changes user ids and adjusts capabilities as capabilities(7), "Effect of user ID changes".
    fn change_uids(&mut self, change: impl FnOnce(&mut Ids, bool) -> Result<()>) -> Result<()> {
        let old = self.uid;
        let privileged = self.has_own(Caps::SETUID);
        change(&mut self.uid, privileged)?;
        if self.securebits & securebits::NO_SETUID_FIXUP != 0 {
            return Ok(());
        }
        let new = self.uid;
        let root = self.root_uid();
        let has_root = |ids: &Ids| root.is_some_and(|root| ids.has(root));
        if has_root(&old) && !has_root(&new) {
            if self.securebits & securebits::KEEP_CAPS == 0 {
                self.permitted = Caps::empty();
                self.effective = Caps::empty();
            }
            // Programs that know nothing of them expect the next execve(2) to drop what is kept.
            self.ambient = Caps::empty();
        }
        let (was, is) = (root == Some(old.effective), root == Some(new.effective));
        if was && !is {
            self.effective = Caps::empty();
        } else if !was && is {
            self.effective = self.permitted;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
