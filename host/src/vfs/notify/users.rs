//! How much each user may have, as /proc/sys/fs/inotify says.

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Unread events of an instance.
pub const MAX_QUEUED_EVENTS: usize = 16384;
/// Instances of a user.
pub const MAX_USER_INSTANCES: u32 = 128;
/// Watches of a user, in all instances. Linux makes it 1 % of the memory that they keep in use, which here is less.
pub const MAX_USER_WATCHES: u32 = 1 << 19;

/// What one user has.
#[derive(Clone, Copy, Default)]
struct Has {
    instances: u32,
    watches: u32,
}

/// What all users have.
pub struct Users(Lock<BTreeMap<u32, Has>>);

impl Default for Users {
    fn default() -> Self {
        Users(Lock::new(Rank::NotifyUsers, BTreeMap::new()))
    }
}

/// The user that an instance, and its watches, are counted for: whoever made it.
pub(super) struct User {
    all: Arc<Users>,
    uid: u32,
}

impl User {
    /// Counts one more instance.
    ///
    /// # Errors
    /// EMFILE if that is too many.
    pub(super) fn with_instance(all: &Arc<Users>, uid: u32) -> Result<User> {
        let mut users = all.0.lock();
        let has = users.entry(uid).or_default();
        if has.instances >= MAX_USER_INSTANCES {
            return Err(Errno::EMFILE);
        }
        has.instances += 1;
        Ok(User { all: all.clone(), uid })
    }

    /// Counts one more watch.
    ///
    /// # Errors
    /// ENOSPC if that is too many.
    pub(super) fn add_watch(&self) -> Result<()> {
        let mut users = self.all.0.lock();
        let has = users.entry(self.uid).or_default();
        if has.watches >= MAX_USER_WATCHES {
            return Err(Errno::ENOSPC);
        }
        has.watches += 1;
        Ok(())
    }

    /// Counts some watches less.
    pub(super) fn remove_watches(&self, count: usize) {
        if let Some(has) = self.all.0.lock().get_mut(&self.uid) {
            has.watches = has.watches.saturating_sub(count as u32);
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = self.all.0.lock();
        if let Some(has) = users.get_mut(&self.uid) {
            has.instances -= 1;
            if has.instances == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_USER_INSTANCES, MAX_USER_WATCHES, User, Users};
    use crate::abi::Errno;
    use std::sync::Arc;

    #[test]
    fn users_have_limits_of_their_own() {
        let all: Arc<Users> = Arc::default();
        let mut mine: Vec<User> =
            (0..MAX_USER_INSTANCES).map(|_| User::with_instance(&all, 7).unwrap()).collect();
        assert_eq!(User::with_instance(&all, 7).err(), Some(Errno::EMFILE));
        let other = User::with_instance(&all, 8).unwrap();
        mine.pop();
        mine.push(User::with_instance(&all, 7).unwrap());
        for _ in 0..MAX_USER_WATCHES {
            mine[0].add_watch().unwrap();
        }
        // Whichever instance it is in.
        assert_eq!(mine[1].add_watch(), Err(Errno::ENOSPC));
        assert_eq!(other.add_watch(), Ok(()));
        mine[0].remove_watches(1);
        assert_eq!(mine[1].add_watch(), Ok(()));
        drop(mine);
        drop(other);
        assert!(all.0.lock().is_empty());
    }
}
