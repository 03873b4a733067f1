//! Pid namespaces (pid_namespaces(7)): what tasks are called by whoever asks.
//!
//! In here everything goes by one number, which is the task's in the first namespace: its *id*. Whoever is in another
//! namespace calls it by the *number* that it has there, and numbers become ids and ids numbers where they go in and out:
//! arguments and results of calls, what signals and messages say of their senders, /proc. In the first namespace the two are
//! the same, and nothing is looked up.
//!
//! A process has a number in its own namespace and in each one above it; below its own nobody knows it. What a namespace
//! knows lasts as long as the id is used, if only for a process group or a session.

use super::tree::{INIT, PID_MAX, RESERVED_PIDS};
use super::{Current, Task, Tree};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::cred::userns::{Count, Counted, UserNs};
use crate::kernel::signal::{Fields, SigInfo};
use crate::sync::{Lock, Rank, WaitQueue};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How deep they nest (MAX_PID_NS_LEVEL).
const MAX_LEVEL: u32 = 32;
/// How many there may be.
pub const MOST: usize = 16384;

/// One namespace.
pub struct PidNamespace {
    /// What /proc/PID/ns tells it by.
    pub inode: u64,
    /// The user namespace that it belongs to.
    pub owner: UserNs,
    /// How many are above it.
    level: u32,
    parent: Option<Arc<PidNamespace>>,
    /// Nothing in the first one.
    numbers: Lock<Numbers>,
    /// Notified when a number of one without an init becomes free.
    emptied: WaitQueue,
    /// How many there are beside the first one.
    count: Count,
    /// What it counts as, where it is not the first.
    _one: Option<Counted>,
}

#[derive(Default)]
struct Numbers {
    ids: BTreeMap<i32, i32>,
    numbers: BTreeMap<i32, i32>,
    last: i32,
    /// The id of its first process.
    init: Option<i32>,
    /// Its init has ended: nobody is born here any more.
    closed: bool,
}

impl Numbers {
    fn allocate(&mut self, id: i32) -> Result<i32> {
        for _ in 0..PID_MAX {
            self.last = if self.last + 1 >= PID_MAX { RESERVED_PIDS } else { self.last + 1 };
            if !self.ids.contains_key(&self.last) {
                self.ids.insert(self.last, id);
                self.numbers.insert(id, self.last);
                return Ok(self.last);
            }
        }
        Err(Errno::EAGAIN)
    }

    fn free(&mut self, id: i32) {
        if let Some(number) = self.numbers.remove(&id) {
            self.ids.remove(&number);
            if number == INIT && self.numbers.is_empty() && !self.closed {
                // Its first process never ran: the next one is it.
                (self.last, self.init) = (0, None);
            }
        }
    }
}

impl PidNamespace {
    /// The first one.
    pub(super) fn first(inode: u64) -> Arc<PidNamespace> {
        Self::make(inode, UserNs::FIRST, None, (Count::default(), None))
    }

    fn make(
        inode: u64,
        owner: UserNs,
        parent: Option<Arc<PidNamespace>>,
        (count, one): (Count, Option<Counted>),
    ) -> Arc<PidNamespace> {
        Arc::new(PidNamespace {
            inode,
            owner,
            level: parent.as_ref().map_or(0, |parent| parent.level + 1),
            parent,
            numbers: Lock::new(Rank::PidNumbers, Numbers::default()),
            emptied: WaitQueue::new(),
            count,
            _one: one,
        })
    }

    /// A new one below it, which is `maker`'s and belongs to his user namespace.
    ///
    /// # Errors
    /// EINVAL where that is not below its own; ENOSPC where they would nest too deep or be too many.
    pub(super) fn below(self: &Arc<Self>, inode: u64, maker: &Cred) -> Result<Arc<PidNamespace>> {
        if !maker.user_ns.is_in(&self.owner) {
            return Err(Errno::EINVAL);
        }
        if self.level >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        let one = self.count.one_of(MOST, maker.payer())?;
        let counted = (self.count.clone(), Some(one));
        Ok(Self::make(inode, maker.user_ns.clone(), Some(self.clone()), counted))
    }

    /// Whether it is the first one, where ids are numbers.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.level == 0
    }

    /// How many are above it.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The one that it is in.
    pub fn parent(&self) -> Option<&Arc<PidNamespace>> {
        self.parent.as_ref()
    }

    /// It, and those above it from the inside out.
    fn upwards(&self) -> impl Iterator<Item = &PidNamespace> {
        core::iter::successors(Some(self), |it| it.parent.as_deref())
    }

    /// Whether it is `other`, or below it.
    pub fn is_in(&self, other: &PidNamespace) -> bool {
        self.upwards().any(|it| core::ptr::eq(it, other))
    }

    /// Gives a task that is born here its numbers, here and above, and returns the one that it has here.
    ///
    /// # Errors
    /// ENOMEM where init has ended; EAGAIN where all are used.
    pub(super) fn enter(&self, id: i32) -> Result<i32> {
        let mut own = id;
        for namespace in self.upwards().filter(|it| !it.is_first()) {
            let mut numbers = namespace.numbers.lock();
            let given = if numbers.closed { Err(Errno::ENOMEM) } else { numbers.allocate(id) };
            let Ok(number) = given else {
                drop(numbers);
                self.leave(id);
                return given;
            };
            if number == INIT {
                numbers.init = Some(id);
            }
            if core::ptr::eq(namespace, self) {
                own = number;
            }
        }
        Ok(own)
    }

    /// An id is nobody's any more.
    pub(super) fn leave(&self, id: i32) {
        for namespace in self.upwards().filter(|it| !it.is_first()) {
            let mut numbers = namespace.numbers.lock();
            numbers.free(id);
            let closed = numbers.closed;
            drop(numbers);
            if closed {
                namespace.emptied.notify(!0);
            }
        }
    }

    /// What `id` is called here; 0 where nobody knows it.
    #[inline]
    pub fn number_of(&self, id: i32) -> i32 {
        if self.is_first() { id } else { self.numbers.lock().numbers.get(&id).copied().unwrap_or(0) }
    }

    /// Whose number it is.
    ///
    /// # Errors
    /// ESRCH where it is nobody's.
    #[inline]
    pub fn id_of(&self, number: i32) -> Result<i32> {
        if self.is_first() {
            return Ok(number);
        }
        self.numbers.lock().ids.get(&number).copied().ok_or(Errno::ESRCH)
    }

    /// The numbers of `id`, which was born in `own`, from this namespace down to that one.
    pub fn numbers_below(&self, own: &PidNamespace, id: i32) -> Vec<i32> {
        let below = own.upwards().take_while(|it| it.level >= self.level);
        let mut all: Vec<i32> = below.map(|it| it.number_of(id)).collect();
        all.reverse();
        all
    }

    /// The last number that was given out.
    pub fn last(&self, tree: &Tree) -> i32 {
        if self.is_first() { tree.last_id() } else { self.numbers.lock().last }
    }

    /// It, once somebody was born in it.
    pub fn with_init(self: Arc<Self>) -> Option<Arc<PidNamespace>> {
        self.init().map(|_| self)
    }

    /// The id of its init, once there was one.
    pub(super) fn init(&self) -> Option<i32> {
        if self.is_first() { Some(INIT) } else { self.numbers.lock().init }
    }

    /// From here on nobody is born here. Returns the ids of those who are here, and below.
    pub(super) fn close(&self) -> Vec<i32> {
        let mut numbers = self.numbers.lock();
        numbers.closed = true;
        numbers.numbers.keys().copied().collect()
    }

    /// Whether nobody is here but these.
    fn holds_only(&self, ids: [i32; 2]) -> bool {
        self.numbers.lock().numbers.keys().all(|id| ids.contains(id))
    }

    /// `info` as it is told to somebody in here, and whether it comes from somebody whom nobody knows here.
    pub(super) fn told(&self, mut info: SigInfo) -> (SigInfo, bool) {
        if let Fields::Kill { pid, .. } | Fields::Queue { pid, .. } | Fields::Child { pid, .. } =
            &mut info.fields
            && *pid != 0
        {
            *pid = self.number_of(*pid);
            let unknown = *pid == 0;
            return (info, unknown);
        }
        (info, false)
    }
}

impl Current {
    /// The pid namespace that it is in.
    #[inline]
    pub fn pids(&self) -> &Arc<PidNamespace> {
        &self.task.group.pids
    }

    /// The id of whom the caller calls by a number.
    ///
    /// # Errors
    /// ESRCH.
    #[inline]
    pub fn id_of(&self, number: i32) -> Result<i32> {
        self.pids().id_of(number)
    }

    /// What the caller calls `id`; 0 for whom it does not know.
    #[inline]
    pub fn number_of(&self, id: i32) -> i32 {
        self.pids().number_of(id)
    }

    /// The live thread that the caller calls by a number.
    ///
    /// # Errors
    /// ESRCH.
    pub fn task_called(&self, number: i32) -> Result<Arc<Task>> {
        self.kernel.task(self.id_of(number)?).ok_or(Errno::ESRCH)
    }

    /// An init's end is that of its namespace: all others in it are killed, and have gone before it has. To be called by
    /// the last thread, which nobody needs any more.
    pub(super) fn end_namespace(&mut self) {
        let group = self.task.group.clone();
        let pids = group.pids.clone();
        self.kernel.kill_namespace(&group);
        let kernel = self.kernel.clone();
        let own = [self.task.tgid(), self.task.tid()];
        let task = self.task.clone();
        let mut empty = || {
            // Nobody will wait for those that it traces, be it their parent.
            kernel.release_tracees(&mut kernel.tree.lock(), &task);
            kernel.reap_all(own[0]);
            pids.holds_only(own).then_some(())
        };
        // Killed it has been; it waits all the same.
        let _ = self.wait_whatever(&[(&group.child_wait, !0), (&pids.emptied, !0)], &mut empty);
    }
}

#[cfg(test)]
mod tests {
    use super::{Cred, Errno, MAX_LEVEL, PidNamespace};

    #[test]
    fn numbers_are_each_namespaces_own() {
        let first = PidNamespace::first(1);
        let outer = first.below(2, &Cred::root()).unwrap();
        let inner = outer.below(3, &Cred::root()).unwrap();
        assert_eq!(first.enter(70), Ok(70));
        assert_eq!(outer.enter(71), Ok(1));
        assert_eq!(inner.enter(72), Ok(1));
        assert_eq!((outer.number_of(72), outer.number_of(70), inner.number_of(71)), (2, 0, 0));
        assert_eq!((outer.id_of(2), inner.id_of(1), inner.id_of(2)), (Ok(72), Ok(72), Err(Errno::ESRCH)));
        assert_eq!((outer.init(), inner.init()), (Some(71), Some(72)));
        assert_eq!(first.numbers_below(&inner, 72), [72, 2, 1]);
        assert_eq!(outer.numbers_below(&outer, 71), [1]);
        assert!(inner.is_in(&outer) && !outer.is_in(&inner));
    }

    #[test]
    fn a_closed_one_takes_nobody_in_and_leaves_nothing_above() {
        let first = PidNamespace::first(1);
        let outer = first.below(2, &Cred::root()).unwrap();
        let inner = outer.below(3, &Cred::root()).unwrap();
        outer.enter(70).unwrap();
        inner.enter(71).unwrap();
        assert_eq!(inner.close(), [71]);
        assert_eq!(inner.enter(72), Err(Errno::ENOMEM));
        assert_eq!(outer.close(), [70, 71]);
        inner.leave(71);
        assert!(outer.holds_only([70, 70]) && inner.holds_only([0, 0]));
    }

    #[test]
    fn an_init_that_never_ran_is_followed_by_another() {
        let pids = PidNamespace::first(1).below(2, &Cred::root()).unwrap();
        pids.enter(70).unwrap();
        pids.leave(70);
        assert_eq!((pids.enter(71), pids.init()), (Ok(1), Some(71)));
    }

    #[test]
    fn they_nest_as_deep_as_linux_lets_them() {
        let mut at = PidNamespace::first(1);
        for level in 0..MAX_LEVEL {
            at = at.below(u64::from(level), &Cred::root()).unwrap();
        }
        assert_eq!(at.below(99, &Cred::root()).err(), Some(Errno::ENOSPC));
        assert_eq!(at.enter(70), Ok(1));
    }
}
