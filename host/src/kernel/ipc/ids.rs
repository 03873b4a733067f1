//! Identifiers of System V objects: an index and a sequence number that makes old ones invalid (ipc/util.c).

use super::flags::{CREAT, EXCL};
use super::perm::Perm;
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::sync::Lock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most objects of a kind, whatever its limit says.
pub const MAX_OBJECTS: u32 = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 15;
const SEQUENCES: u32 = i32::MAX as u32 >> INDEX_BITS;
/// Indices are used in turn at least up to here, so that an old id stays invalid for a while.
const MIN_CYCLE: u32 = 64;
/// The key of objects that are found by id only.
pub const PRIVATE: i32 = 0;

/// What has an id.
pub trait Object {
    /// Its owner and permissions.
    fn perm(&self) -> Perm;

    /// Tells it its id.
    fn set_id(&self, id: i32);
}

struct Slot<T> {
    id: i32,
    object: Arc<T>,
}

/// The objects of one kind.
pub struct Ids<T> {
    slots: BTreeMap<u32, Slot<T>>,
    keys: BTreeMap<i32, u32>,
    next: u32,
    last: Option<u32>,
    sequence: u32,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Ids { slots: BTreeMap::new(), keys: BTreeMap::new(), next: 0, last: None, sequence: 0 }
    }
}

fn index(id: i32) -> u32 {
    id as u32 & (MAX_OBJECTS - 1)
}

impl<T> Ids<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The highest index in use, 0 if none is.
    pub fn highest(&self) -> u64 {
        self.slots.last_key_value().map_or(0, |(index, _)| (*index).into())
    }

    /// All of them, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.slots.values().map(|slot| &slot.object)
    }

    /// The object with that id.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get(&self, id: i32) -> Result<Arc<T>> {
        let slot = self.slots.get(&index(id)).filter(|slot| slot.id == id);
        slot.map(|slot| slot.object.clone()).ok_or(Errno::EINVAL)
    }

    /// The object at an index (the `*_STAT` commands).
    ///
    /// # Errors
    /// EINVAL.
    pub fn at(&self, number: i32) -> Result<Arc<T>> {
        self.slots.get(&index(number)).map(|slot| slot.object.clone()).ok_or(Errno::EINVAL)
    }

    fn by_key(&self, key: i32) -> Option<(i32, &Arc<T>)> {
        let slot = self.slots.get(self.keys.get(&key)?)?;
        Some((slot.id, &slot.object))
    }

    /// Gives an object an id and a place.
    fn add(&mut self, key: i32, limit: u32, object: T) -> Result<i32>
    where
        T: Object,
    {
        let (used, limit) = (self.slots.len() as u32, limit.min(MAX_OBJECTS));
        if used >= limit {
            return Err(Errno::ENOSPC);
        }
        let end = (used * 3 / 2).clamp(MIN_CYCLE, MAX_OBJECTS);
        let free = |at: &u32| !self.slots.contains_key(at);
        let at = (self.next..end).chain(0..self.next.min(end)).find(free).ok_or(Errno::ENOSPC)?;
        if self.last.is_some_and(|last| at <= last) {
            self.sequence = (self.sequence + 1) % SEQUENCES;
        }
        let id = (self.sequence << INDEX_BITS | at) as i32;
        object.set_id(id);
        (self.next, self.last) = (at + 1, Some(at));
        self.slots.insert(at, Slot { id, object: Arc::new(object) });
        if key != PRIVATE {
            self.keys.insert(key, at);
        }
        Ok(id)
    }

    /// Takes an object out; `None` if it is not there any more.
    pub fn remove(&mut self, perm: &Perm) -> Option<Arc<T>> {
        let at = index(perm.id);
        if self.slots.get(&at)?.id != perm.id {
            return None;
        }
        self.forget_key(perm.key);
        self.slots.remove(&at).map(|slot| slot.object)
    }

    /// An object is found by its id only from now on.
    pub fn forget_key(&mut self, key: i32) {
        self.keys.remove(&key);
    }
}

/// A new object's or an old one's: what is common to the `*get` calls.
pub struct Wanted<'a> {
    /// The key.
    pub key: i32,
    /// Permissions and [`super::flags`].
    pub flags: u32,
    /// Who asks.
    pub cred: &'a Cred,
    /// How many objects there may be.
    pub limit: u32,
}

/// Finds an object by its key, or makes one.
///
/// # Errors
/// ENOENT, EEXIST, EACCES, ENOSPC; what `fits` says of an old one and `make` of a new one.
pub fn get<T: Object>(
    ids: &Lock<Ids<T>>,
    want: &Wanted<'_>,
    fits: impl FnOnce(&T) -> Result<()>,
    make: impl FnOnce(&Ids<T>, Perm) -> Result<T>,
) -> Result<i32> {
    let mut ids = ids.lock();
    let found = if want.key == PRIVATE { None } else { ids.by_key(want.key) };
    if let Some((id, object)) = found {
        if want.flags & CREAT != 0 && want.flags & EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        fits(object)?;
        object.perm().allow(want.cred, want.flags)?;
        return Ok(id);
    }
    if want.key != PRIVATE && want.flags & CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    // Made before it has an id: arguments are looked at before the table is found to be full.
    let object = make(&ids, Perm::new(want.key, want.flags, want.cred))?;
    ids.add(want.key, want.limit, object)
}

#[cfg(test)]
mod tests {
    use super::{Ids, Object, Perm, Wanted, get};
    use crate::abi::Errno;
    use crate::cred::Cred;
    use crate::sync::{Lock, Rank};

    struct Thing(Lock<Perm>);

    impl Object for Thing {
        fn perm(&self) -> Perm {
            *self.0.lock()
        }
        fn set_id(&self, id: i32) {
            self.0.lock().id = id;
        }
    }

    fn make(ids: &Lock<Ids<Thing>>, key: i32, limit: u32) -> Result<i32, Errno> {
        let want = Wanted { key, flags: 0o1600, cred: &Cred::root(), limit };
        get(ids, &want, |_| Ok(()), |_, perm| Ok(Thing(Lock::new(Rank::MsgQueue, perm))))
    }

    #[test]
    fn an_id_is_not_soon_used_again() {
        let ids = Lock::new(Rank::MsgIds, Ids::default());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let id = make(&ids, 0, 10).unwrap();
            assert!(seen.insert(id), "{id} again");
            let perm = ids.lock().get(id).unwrap().perm();
            assert!(ids.lock().remove(&perm).is_some());
            assert!(ids.lock().remove(&perm).is_none());
            assert!(ids.lock().get(id).is_err());
        }
    }

    #[test]
    fn a_key_finds_one_object_until_it_goes() {
        let ids = Lock::new(Rank::MsgIds, Ids::default());
        let id = make(&ids, 7, 2).unwrap();
        assert_eq!(make(&ids, 7, 2), Ok(id));
        assert_ne!(make(&ids, 0, 2), Ok(id));
        assert_eq!(make(&ids, 8, 2), Err(Errno::ENOSPC));
        ids.lock().forget_key(7);
        assert_eq!(make(&ids, 7, 3).map(|new| new != id), Ok(true));
    }
}
