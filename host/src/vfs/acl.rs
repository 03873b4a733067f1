//! Access control lists of files (acl(5)): who else than owner, group and all others may do what with one.
//!
//! An inode has up to two: the one that is asked, and, a directory, one that is given to what is made in it. One that says no
//! more than permission bits do is kept as permission bits. Programs see lists as extended attributes
//! (`system.posix_acl_access`, `system.posix_acl_default`).

use super::{Inode, Kind, Want};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::cred::userns::UserNs;
use crate::sync::{Lock, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The layout of the attributes (linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// The id of entries that name nobody.
const NOBODY: u32 = u32::MAX;
/// The most entries: every check may look at each. Linux's ext4 keeps about as many in a block.
const MOST: usize = 512;

/// Which of an inode's two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that is asked.
    Access,
    /// What new files get.
    Default,
}

impl Which {
    /// Both, in the order of listings.
    pub const ALL: [Which; 2] = [Which::Access, Which::Default];

    /// The name of the attribute.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Which::Access => b"system.posix_acl_access",
            Which::Default => b"system.posix_acl_default",
        }
    }

    /// The one that an attribute's name says.
    pub fn of(name: &[u8]) -> Option<Which> {
        Which::ALL.into_iter().find(|which| which.name() == name)
    }
}

/// Whom an entry is about (linux/posix_acl.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Tag {
    Owner = 1,
    User = 2,
    OwningGroup = 4,
    Group = 8,
    Mask = 0x10,
    Others = 0x20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    perm: u16,
    id: u32,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Box<[Entry]>);

/// Who asks, of a file with these owners.
pub(super) struct Asker<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// In order.
    pub(super) groups: &'a [u32],
    pub(super) owners: (u32, u32),
}

impl Acl {
    /// The list that an attribute says; none for an empty one. Ids are what they are called in `user_ns`. It need not make sense.
    ///
    /// # Errors
    /// EOPNOTSUPP for another layout; EINVAL for what is no list.
    pub fn parse(value: &[u8], user_ns: &UserNs) -> Result<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        let (header, rest) = value.split_first_chunk::<HEADER>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        if rest.len() % ENTRY != 0 {
            return Err(Errno::EINVAL);
        }
        let entry = |raw: &[u8]| {
            let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
            let id = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
            let (tag, id) = match half(0) {
                1 => (Tag::Owner, NOBODY),
                2 => (Tag::User, user_ns.uid(id).ok_or(Errno::EINVAL)?),
                4 => (Tag::OwningGroup, NOBODY),
                8 => (Tag::Group, user_ns.gid(id).ok_or(Errno::EINVAL)?),
                0x10 => (Tag::Mask, NOBODY),
                0x20 => (Tag::Others, NOBODY),
                _ => return Err(Errno::EINVAL),
            };
            Ok(Entry { tag, perm: half(2), id })
        };
        let entries: Vec<Entry> = rest.chunks(ENTRY).map(entry).collect::<Result<_>>()?;
        Ok((!entries.is_empty()).then(|| Acl(entries.into())))
    }

    /// The attribute's value, with the names that ids have in `user_ns`.
    pub fn show(&self, user_ns: &UserNs) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            let id = match entry.tag {
                Tag::User => user_ns.uid_of(entry.id),
                Tag::Group => user_ns.gid_of(entry.id),
                _ => None,
            };
            value.extend((entry.tag as u16).to_le_bytes());
            value.extend(entry.perm.to_le_bytes());
            value.extend(id.unwrap_or(NOBODY).to_le_bytes());
        }
        value
    }

    /// Whether it makes sense (posix_acl_valid): each of those whom permission bits are about once, in order, and a mask where
    /// it names anybody.
    ///
    /// # Errors
    /// EINVAL; ENOSPC for too long a one.
    fn check(&self) -> Result<()> {
        let (mut expected, mut needs_mask) = (Tag::Owner, false);
        for entry in &self.0 {
            if entry.perm & !7 != 0 {
                return Err(Errno::EINVAL);
            }
            expected = match (entry.tag, expected) {
                (Tag::Owner, Tag::Owner) => Tag::User,
                (Tag::User, Tag::User) => {
                    needs_mask = true;
                    Tag::User
                }
                (Tag::OwningGroup, Tag::User) => Tag::Group,
                (Tag::Group, Tag::Group) => {
                    needs_mask = true;
                    Tag::Group
                }
                (Tag::Mask, Tag::Group) => Tag::Others,
                (Tag::Others, Tag::Others) => Tag::Mask,
                (Tag::Others, Tag::Group) if !needs_mask => Tag::Mask,
                _ => return Err(Errno::EINVAL),
            };
        }
        match expected {
            Tag::Mask if self.0.len() > MOST => Err(Errno::ENOSPC),
            Tag::Mask => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn perm_of(&self, tag: Tag) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.perm)
    }

    /// What the group's permission bits are: the most that anybody but the owner and others may.
    fn group_class(&self) -> Tag {
        if self.perm_of(Tag::Mask).is_some() { Tag::Mask } else { Tag::OwningGroup }
    }

    /// The permission bits that it stands for, and whether they say all (posix_acl_equiv_mode).
    fn bits(&self) -> (u32, bool) {
        let of = |tag| u32::from(self.perm_of(tag).unwrap_or(0));
        let bits = of(Tag::Owner) << 6 | of(self.group_class()) << 3 | of(Tag::Others);
        (bits, self.0.iter().all(|entry| matches!(entry.tag, Tag::Owner | Tag::OwningGroup | Tag::Others)))
    }

    /// Whether it lets somebody who is not the owner do that (posix_acl_permission).
    pub(super) fn allows(&self, who: &Asker<'_>, want: Want) -> bool {
        let want = want.bits() as u16;
        let is_member = |gid: u32| gid == who.gid || who.groups.binary_search(&gid).is_ok();
        let mask = self.perm_of(Tag::Mask).unwrap_or(7);
        let mut named = false;
        for entry in &self.0 {
            let counts = match entry.tag {
                Tag::User if entry.id == who.uid => return want & !(entry.perm & mask) == 0,
                Tag::OwningGroup => is_member(who.owners.1),
                Tag::Group => is_member(entry.id),
                Tag::Others => return !named && want & !entry.perm == 0,
                Tag::User | Tag::Owner | Tag::Mask => false,
            };
            if counts && want & !entry.perm == 0 {
                return want & !(entry.perm & mask) == 0;
            }
            named |= counts;
        }
        false
    }

    /// What chmod(2) makes of it.
    fn with_bits(&self, bits: u32) -> Acl {
        let class = self.group_class();
        let mut new = self.clone();
        for entry in &mut new.0 {
            match entry.tag {
                Tag::Owner => entry.perm = (bits >> 6 & 7) as u16,
                Tag::Others => entry.perm = (bits & 7) as u16,
                tag if tag == class => entry.perm = (bits >> 3 & 7) as u16,
                _ => {}
            }
        }
        new
    }

    /// What a new file gets of it whose maker asked for these permission bits, and which bits it has then.
    fn inherited(&self, bits: u32) -> (u32, Option<Acl>) {
        let new = self.with_bits(bits & self.bits().0);
        let (own, all) = new.bits();
        (bits & !0o777 | own, (!all).then_some(new))
    }
}

/// The lists of an inode.
pub struct Acls {
    /// Which there are, for those who need not wait then.
    present: [AtomicBool; 2],
    lists: Lock<[Option<Arc<Acl>>; 2]>,
}

impl Acls {
    /// None.
    pub(super) fn none() -> Acls {
        Acls {
            present: [const { AtomicBool::new(false) }; 2],
            lists: Lock::new(Rank::FileAcls, [None, None]),
        }
    }

    /// One of them.
    #[inline]
    pub fn get(&self, which: Which) -> Option<Arc<Acl>> {
        if !self.present[which as usize].load(Ordering::Acquire) {
            return None;
        }
        self.lists.lock()[which as usize].clone()
    }

    fn put(&self, which: Which, acl: Option<Arc<Acl>>) {
        let mut lists = self.lists.lock();
        self.present[which as usize].store(acl.is_some(), Ordering::Release);
        let old = std::mem::replace(&mut lists[which as usize], acl);
        drop(lists);
        drop(old);
    }

    /// Follows a change of the permission bits.
    pub(super) fn follow(&self, bits: u32) {
        if let Some(acl) = self.get(Which::Access) {
            self.put(Which::Access, Some(Arc::new(acl.with_bits(bits))));
        }
    }
}

/// Whether an inode can have one.
///
/// # Errors
/// EOPNOTSUPP.
pub fn can_have(inode: &dyn Inode) -> Result<()> {
    if inode.has_acls() && inode.meta().kind != Kind::Symlink { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// Gives an inode a list, or takes it away; the permission bits that this makes of the old ones.
///
/// # Errors
/// EINVAL for a list that makes no sense; ENOSPC.
pub(super) fn set(inode: &dyn Inode, which: Which, acl: Option<Acl>) -> Result<u32> {
    let meta = inode.meta();
    let mut perm = meta.perm.load(Ordering::Relaxed);
    let mut kept = None;
    if let Some(acl) = acl {
        acl.check()?;
        ledger::admit((acl.0.len() * size_of::<Entry>()) as u64)?;
        let (bits, all) = acl.bits();
        if which == Which::Access {
            perm = perm & !0o777 | bits;
        }
        kept = (which == Which::Default || !all).then(|| Arc::new(acl));
    }
    meta.acls.put(which, kept);
    Ok(perm)
}

/// What a new node gets of the directory that it is made in.
pub(super) struct Given {
    access: Option<Acl>,
    default: Option<Arc<Acl>>,
}

/// What a new node of a kind with these permission bits gets of `dir`, and the bits that are left of them; none where the umask
/// counts instead.
pub(super) fn given(dir: &dyn Inode, kind: Kind, perm: u32) -> Option<(u32, Given)> {
    if kind == Kind::Symlink || !dir.has_acls() {
        return None;
    }
    let default = dir.meta().acls.get(Which::Default)?;
    let (perm, access) = default.inherited(perm);
    Some((perm, Given { access, default: (kind == Kind::Dir).then_some(default) }))
}

impl Given {
    /// Gives it to the new node.
    ///
    /// # Errors
    /// ENOSPC.
    pub(super) fn to(self, inode: &dyn Inode) -> Result<()> {
        let acls = &inode.meta().acls;
        if let Some(acl) = self.access {
            ledger::admit((acl.0.len() * size_of::<Entry>()) as u64)?;
            acls.put(Which::Access, Some(Arc::new(acl)));
        }
        if self.default.is_some() {
            acls.put(Which::Default, self.default);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
