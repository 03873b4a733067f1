//! User namespaces (user_namespaces(7)): what ids are called in them, and who has power over them.
//!
//! Inside the kernel an id is what the first namespace calls it, so that files and tasks of all namespaces compare as numbers.
//! It is translated where a program says or hears it. The first namespace, where every id is itself, is `None`: whoever lives
//! there pays one compare. Capabilities count in the namespace of their credentials and below
//! ([`Cred::has_in`](super::Cred::has_in)).

mod count;
mod map;

use super::{Caps, Cred};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
pub use count::{Count, Counted, Tally, share};
pub use map::IdMap;
use std::sync::{Arc, OnceLock};

/// What an id that has no name is called (/proc/sys/kernel/overflowuid, overflowgid).
pub const OVERFLOW_ID: u32 = 65534;
/// How deep they may nest below the first.
const MAX_LEVEL: u32 = 33;
/// The most of a kernel.
pub const MOST: usize = 1024;

/// Which ids a map is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// Users' (uid_map).
    User,
    /// Groups' (gid_map).
    Group,
    /// Projects' (projid_map). Nothing has any.
    Project,
}

/// A user namespace. Two are equal if they are the same one.
#[derive(Clone, Default)]
pub struct UserNs(Option<Arc<Below>>);

impl core::fmt::Debug for UserNs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UserNs({:?})", self.number())
    }
}

/// One that is not the first.
struct Below {
    number: u64,
    level: u32,
    parent: UserNs,
    /// The effective ids of who made it.
    owner: (u32, u32),
    /// Who pays for what is made in it.
    payer: u32,
    /// Who made it could have given root's ids to files, so that mapping root is no gain (CAP_SETFCAP).
    may_map_root: bool,
    users: OnceLock<IdMap>,
    groups: OnceLock<IdMap>,
    projects: OnceLock<IdMap>,
    /// Taken by who changes it. Whether setgroups(2) may ever be called.
    setgroups: Lock<bool>,
    _one: Counted,
}

impl PartialEq for UserNs {
    #[inline]
    fn eq(&self, other: &UserNs) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl Eq for UserNs {}

impl UserNs {
    /// The first one.
    pub const FIRST: UserNs = UserNs(None);

    /// Whether it is the first one.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.0.is_none()
    }

    /// The number that /proc/PID/ns tells it by, if it is not the first.
    pub fn number(&self) -> Option<u64> {
        self.0.as_ref().map(|own| own.number)
    }

    fn level(&self) -> u32 {
        self.0.as_ref().map_or(0, |own| own.level)
    }

    /// The one that it is in.
    pub fn parent(&self) -> Option<&UserNs> {
        self.0.as_ref().map(|own| &own.parent)
    }

    /// Whose it is.
    pub fn owner(&self) -> u32 {
        self.0.as_ref().map_or(0, |own| own.owner.0)
    }

    /// Who pays for what user `uid` makes in it, of what there are only so many: he, or whose the outermost is.
    pub fn payer(&self, uid: u32) -> u32 {
        self.0.as_ref().map_or(uid, |own| own.payer)
    }

    /// It, and those above it from the inside out.
    pub(super) fn upwards(&self) -> impl Iterator<Item = &UserNs> {
        core::iter::successors(Some(self), |it| it.parent())
    }

    /// Whether it is `other`, or below it.
    pub fn is_in(&self, other: &UserNs) -> bool {
        other.is_first() || self.upwards().any(|it| it == other)
    }

    /// A new one below that of `by`, whose it is.
    ///
    /// # Errors
    /// ENOSPC where they would nest too deep or be too many; EPERM for one whose ids have no names where he is.
    fn below(by: &Cred, number: u64, count: &Count) -> Result<UserNs> {
        let parent = by.user_ns.clone();
        if parent.level() >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        let one = count.one_of(MOST, by.payer())?;
        let owner = (by.uid.effective, by.gid.effective);
        if parent.uid_of(owner.0).is_none() || parent.gid_of(owner.1).is_none() {
            return Err(Errno::EPERM);
        }
        Ok(UserNs(Some(Arc::new(Below {
            number,
            level: parent.level() + 1,
            owner,
            payer: by.payer(),
            may_map_root: by.effective.contains(Caps::SETFCAP),
            users: OnceLock::new(),
            groups: OnceLock::new(),
            projects: OnceLock::new(),
            setgroups: Lock::new(Rank::IdMaps, parent.allows_setgroups()),
            _one: one,
            parent,
        }))))
    }

    fn map(&self, kind: IdKind) -> Option<&OnceLock<IdMap>> {
        let own = self.0.as_ref()?;
        Some(match kind {
            IdKind::User => &own.users,
            IdKind::Group => &own.groups,
            IdKind::Project => &own.projects,
        })
    }

    /// The id that is called `name` here.
    #[inline]
    fn id(&self, kind: IdKind, name: u32) -> Option<u32> {
        match self.map(kind) {
            None => (name != u32::MAX).then_some(name),
            Some(map) => map.get()?.inward(name),
        }
    }

    /// What an id is called here.
    #[inline]
    fn name(&self, kind: IdKind, id: u32) -> Option<u32> {
        match self.map(kind) {
            None => (id != u32::MAX).then_some(id),
            Some(map) => map.get()?.outward(id),
        }
    }

    /// The user that is called `name` here.
    pub fn uid(&self, name: u32) -> Option<u32> {
        self.id(IdKind::User, name)
    }

    /// The group that is called `name` here.
    pub fn gid(&self, name: u32) -> Option<u32> {
        self.id(IdKind::Group, name)
    }

    /// What a user is called here.
    pub fn uid_of(&self, id: u32) -> Option<u32> {
        self.name(IdKind::User, id)
    }

    /// What a group is called here.
    pub fn gid_of(&self, id: u32) -> Option<u32> {
        self.name(IdKind::Group, id)
    }

    /// A user as he is shown here, even one who has no name.
    #[inline]
    pub fn show_uid(&self, id: u32) -> u32 {
        if self.is_first() { id } else { self.uid_of(id).unwrap_or(OVERFLOW_ID) }
    }

    /// A group as it is shown here.
    #[inline]
    pub fn show_gid(&self, id: u32) -> u32 {
        if self.is_first() { id } else { self.gid_of(id).unwrap_or(OVERFLOW_ID) }
    }

    /// Both.
    pub fn show(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        (self.show_uid(uid), self.show_gid(gid))
    }

    /// Whether both ids have names here.
    #[inline]
    pub fn knows(&self, uid: u32, gid: u32) -> bool {
        self.is_first() || (self.uid_of(uid).is_some() && self.gid_of(gid).is_some())
    }

    /// Whether setgroups(2) may ever be called in it (/proc/PID/setgroups).
    pub fn allows_setgroups(&self) -> bool {
        self.0.as_ref().is_none_or(|own| *own.setgroups.lock())
    }

    /// Whether setgroups(2) may be called in it now: only once groups have names.
    pub fn has_groups(&self) -> bool {
        self.0.as_ref().is_none_or(|own| own.groups.get().is_some() && *own.setgroups.lock())
    }

    /// Says whether setgroups(2) may be called.
    ///
    /// # Errors
    /// EPERM for allowing it again, and for forbidding it where groups have names.
    pub fn set_setgroups(&self, allow: bool) -> Result<()> {
        let Some(own) = &self.0 else { return if allow { Ok(()) } else { Err(Errno::EPERM) } };
        let mut setgroups = own.setgroups.lock();
        let refused = if allow { !*setgroups } else { own.groups.get().is_some() };
        if refused {
            return Err(Errno::EPERM);
        }
        *setgroups = allow;
        Ok(())
    }

    /// A map as `reader` sees it.
    pub fn show_map(&self, kind: IdKind, reader: &UserNs) -> String {
        // Who is inside is told what is above, as that calls it.
        let above = if self == reader { self.parent() } else { Some(reader) };
        let shown = |id| above.map_or(Some(id), |above| above.name(kind, id));
        let all = match self.map(kind) {
            None => return map::line(0, shown(0).unwrap_or(u32::MAX), u32::MAX),
            Some(map) => map.get(),
        };
        let lines = all.into_iter().flat_map(IdMap::extents);
        lines
            .map(|extent| map::line(extent.inside, shown(extent.outside).unwrap_or(u32::MAX), extent.count))
            .collect()
    }

    /// Writes a map, which is done once. `opener` opened the file, `writer` writes to it.
    ///
    /// # Errors
    /// EPERM where there is one, for who may not give these names, and for ids that the namespace above does not know; EINVAL
    /// for what is no map.
    pub fn set_map(&self, kind: IdKind, text: &[u8], opener: &Cred, writer: &Cred) -> Result<()> {
        let (Some(own), Some(slot)) = (&self.0, self.map(kind)) else { return Err(Errno::EPERM) };
        if opener.user_ns != *self && opener.user_ns != own.parent {
            return Err(Errno::EPERM);
        }
        let allows_setgroups = own.setgroups.lock();
        if slot.get().is_some() || (kind != IdKind::Project && !opener.has_in(self, Caps::SYS_ADMIN)) {
            return Err(Errno::EPERM);
        }
        let wanted = map::parse(text)?;
        if !own.may_name(kind, &wanted, *allows_setgroups, (opener, writer)) {
            return Err(Errno::EPERM);
        }
        let mut extents = Vec::with_capacity(wanted.len());
        for extent in wanted {
            let outside = match own.parent.map(kind) {
                None => extent.outside,
                Some(above) => {
                    let above = above.get().ok_or(Errno::EPERM)?;
                    above.all_inward(extent.outside, extent.count).ok_or(Errno::EPERM)?
                }
            };
            extents.push(map::Extent { outside, ..extent });
        }
        slot.set(IdMap::new(extents)).map_err(|_| Errno::EPERM)
    }
}

impl Below {
    /// new_idmap_permitted: one's own id, or what one has the capability for, over the namespace above, as who opened the file
    /// and as who writes to it.
    fn may_name(
        &self,
        kind: IdKind,
        wanted: &[map::Extent],
        allows_setgroups: bool,
        (opener, writer): (&Cred, &Cred),
    ) -> bool {
        let roots = wanted.iter().any(|extent| extent.outside == 0);
        if kind == IdKind::User && roots {
            // A file's capabilities count for who is root of the namespace that it was given them in: whoever is the same
            // root could give them to himself from inside.
            let inside = opener.user_ns.0.as_ref().is_some_and(|own| core::ptr::eq(&**own, self));
            let may = if inside { self.may_map_root } else { opener.has_in(&self.parent, Caps::SETFCAP) };
            if !may {
                return false;
            }
        }
        if let [one] = wanted
            && one.count == 1
            && self.owner.0 == opener.uid.effective
        {
            let id = self.parent.id(kind, one.outside);
            let own = match kind {
                IdKind::User => id == Some(opener.uid.effective),
                // Nobody may leave the groups that keep him from a file by what he did not ask for.
                IdKind::Group => !allows_setgroups && id == Some(opener.gid.effective),
                IdKind::Project => false,
            };
            if own {
                return true;
            }
        }
        let needed = match kind {
            IdKind::User => Caps::SETUID,
            IdKind::Group => Caps::SETGID,
            IdKind::Project => return true,
        };
        writer.has_in(&self.parent, needed) && opener.has_in(&self.parent, needed)
    }
}

impl Cred {
    /// Who pays for what it makes, of what there are only so many.
    pub fn payer(&self) -> u32 {
        self.user_ns.payer(self.uid.effective)
    }

    /// The same in a new user namespace of its own, where it may do everything.
    ///
    /// # Errors
    /// ENOSPC where they would nest too deep or be too many; EPERM for one whose ids have no names where he is.
    pub fn in_new_namespace(&self, number: u64, count: &Count) -> Result<Cred> {
        Ok(self.in_namespace(UserNs::below(self, number, count)?))
    }

    /// The same as it arrives in a user namespace (set_cred_user_ns).
    #[must_use]
    pub fn in_namespace(&self, user_ns: UserNs) -> Cred {
        Cred {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            user_ns,
            // All that the first root has.
            ..Cred::root()
        }
    }
}

#[cfg(test)]
mod tests;
