//! The namespaces that a task is in (namespaces(7)), but for its mounts, which come with its root and working directory
//! ([`FsContext`](crate::vfs::FsContext)).

pub mod time;

use super::cgroups::CgroupId;
use super::ipc::IpcNamespace;
use super::pids::PidNamespace;
use super::{CloneFlags, Current, Task, Uts};
use crate::abi::{Errno, Result};
use crate::cred::userns::{Count, Counted, UserNs};
use crate::cred::{Caps, Cred};
use crate::net::Namespace as Network;
use crate::sync::{Lock, Rank};
use crate::vfs::{FsContext, Namespace as Mounts};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use time::TimeNs;

/// The numbers of the first ones (linux/proc_ns.h); that of the first network is what it usually is.
const FIRST_UTS: u64 = 0xeffffffe;
const FIRST_IPC: u64 = 0xefffffff;
const FIRST_PID: u64 = 0xeffffffc;
const FIRST_NETWORK: u64 = 0xf0000000;
const FIRST_USER: u64 = 0xeffffffd;
const FIRST_TIME: u64 = 0xeffffffa;
const FIRST_CGROUP: u64 = 0xeffffffb;
/// Those of later ones begin here.
const LATER: u64 = 0xf0001000;
/// The most of each kind that has no other bound.
pub const MOST: usize = 2048;

/// A namespace, by its kind.
#[derive(Clone)]
#[expect(missing_docs, reason = "the kinds of namespaces(7)")]
pub enum Ns {
    Mounts(Arc<Mounts>),
    Uts(Numbered<Lock<Uts>>),
    Ipc(Numbered<IpcNamespace>),
    Network(Numbered<Network>),
    Pids(Arc<PidNamespace>),
    User(UserNs),
    Time(Numbered<TimeNs>),
    Cgroup(Numbered<CgroupId>),
}

/// The names in /proc/PID/ns, in the order of listings.
pub const NAMES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

impl Ns {
    /// The one of a task that has this name in /proc/PID/ns; none where it has none (any more, or yet).
    pub fn of(task: &Task, fs: Option<&FsContext>, name: &str) -> Option<Ns> {
        let own = task.namespaces();
        Some(match name {
            "cgroup" => Ns::Cgroup(own.cgroup.clone()),
            "ipc" => Ns::Ipc(own.ipc.clone()),
            "mnt" => Ns::Mounts(fs?.namespace().clone()),
            "net" => Ns::Network(own.network.clone()),
            "pid" => Ns::Pids(task.group.pids.clone()),
            "pid_for_children" => Ns::Pids(own.pids_for_children.clone().with_init()?),
            "time" => Ns::Time(own.time.clone()),
            "time_for_children" => Ns::Time(own.time_for_children.clone()),
            "user" => Ns::User(task.cred().user_ns.clone()),
            "uts" => Ns::Uts(own.uts.clone()),
            _ => return None,
        })
    }

    /// Its number.
    pub fn inode(&self) -> u64 {
        match self {
            Ns::Mounts(of) => of.number,
            Ns::Uts(of) => of.number,
            Ns::Ipc(of) => of.number,
            Ns::Network(of) => of.number,
            Ns::Pids(of) => of.inode,
            Ns::User(of) => of.number().unwrap_or(FIRST_USER),
            Ns::Time(of) => of.number,
            Ns::Cgroup(of) => of.number,
        }
    }

    /// The flag that asks clone(2) for one of its kind.
    pub fn kind(&self) -> CloneFlags {
        match self {
            Ns::Mounts(_) => CloneFlags::NEWNS,
            Ns::Uts(_) => CloneFlags::NEWUTS,
            Ns::Ipc(_) => CloneFlags::NEWIPC,
            Ns::Network(_) => CloneFlags::NEWNET,
            Ns::Pids(_) => CloneFlags::NEWPID,
            Ns::User(_) => CloneFlags::NEWUSER,
            Ns::Time(_) => CloneFlags::NEWTIME,
            Ns::Cgroup(_) => CloneFlags::NEWCGROUP,
        }
    }

    /// The user namespace that it belongs to; none for the first user namespace.
    pub fn owner(&self) -> Option<&UserNs> {
        match self {
            Ns::Mounts(of) => Some(&of.owner),
            Ns::Uts(of) => Some(&of.owner),
            Ns::Ipc(of) => Some(&of.owner),
            Ns::Network(of) => Some(&of.of.owner),
            Ns::Pids(of) => Some(&of.owner),
            Ns::User(of) => of.parent(),
            Ns::Time(of) => Some(&of.owner),
            Ns::Cgroup(of) => Some(&of.owner),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Ns::Mounts(_) => "mnt",
            Ns::Uts(_) => "uts",
            Ns::Ipc(_) => "ipc",
            Ns::Network(_) => "net",
            Ns::Pids(_) => "pid",
            Ns::User(_) => "user",
            Ns::Time(_) => "time",
            Ns::Cgroup(_) => "cgroup",
        }
    }

    /// What the link to it says.
    pub fn text(&self) -> String {
        format!("{}:[{}]", self.name(), self.inode())
    }
}

/// One namespace, and the number that /proc/PID/ns tells it by.
pub struct Numbered<T: ?Sized> {
    /// The number.
    pub number: u64,
    /// The user namespace that it belongs to.
    pub owner: UserNs,
    /// What is in it.
    pub of: Arc<T>,
    /// What it counts as, where it is not the first.
    one: Option<Arc<Counted>>,
}

impl<T: ?Sized> Clone for Numbered<T> {
    fn clone(&self) -> Self {
        let (owner, one) = (self.owner.clone(), self.one.clone());
        Numbered { number: self.number, owner, of: self.of.clone(), one }
    }
}

impl<T: ?Sized> Numbered<T> {
    fn first(number: u64, of: Arc<T>) -> Self {
        Numbered { number, owner: UserNs::FIRST, of, one: None }
    }
}

/// How many namespaces there are, and where their numbers come from.
struct Counts {
    next: AtomicU64,
    users: Count,
    uts: Count,
    ipc: Count,
    networks: Count,
    times: Count,
    cgroups: Count,
}

/// A task's namespaces.
#[derive(Clone)]
pub struct Namespaces {
    /// The host's names.
    pub uts: Numbered<Lock<Uts>>,
    /// System V objects and message queues.
    pub ipc: Numbered<IpcNamespace>,
    /// The network that its new sockets are in.
    pub network: Numbered<Network>,
    /// Where its children are born. Where it is itself its process says ([`ThreadGroup::pids`](super::ThreadGroup)).
    pub pids_for_children: Arc<PidNamespace>,
    /// By how much its clocks are put forward, and those of its children.
    pub time: Numbered<TimeNs>,
    /// See `time`.
    pub time_for_children: Numbered<TimeNs>,
    /// The control group that it sees as the root of all.
    pub cgroup: Numbered<CgroupId>,
    /// One for all of a kernel.
    counts: Arc<Counts>,
}

/// The first pid namespace.
pub(super) fn first_pids() -> Arc<PidNamespace> {
    PidNamespace::first(FIRST_PID)
}

impl Namespaces {
    /// Those of the first task.
    pub(super) fn new(
        uts: &Arc<Lock<Uts>>,
        pids: &Arc<PidNamespace>,
        network: Arc<Network>,
    ) -> Arc<Namespaces> {
        let time = Numbered::first(FIRST_TIME, TimeNs::like(None));
        Arc::new(Namespaces {
            uts: Numbered::first(FIRST_UTS, uts.clone()),
            ipc: Numbered::first(FIRST_IPC, IpcNamespace::new()),
            network: Numbered::first(FIRST_NETWORK, network),
            pids_for_children: pids.clone(),
            time: time.clone(),
            time_for_children: time,
            cgroup: Numbered::first(FIRST_CGROUP, Arc::new(CgroupId::ROOT)),
            counts: Arc::new(Counts {
                next: AtomicU64::new(LATER),
                users: Count::default(),
                uts: Count::default(),
                ipc: Count::default(),
                networks: Count::default(),
                times: Count::default(),
                cgroups: Count::default(),
            }),
        })
    }

    fn next(&self) -> u64 {
        self.counts.next.fetch_add(1, Ordering::Relaxed)
    }

    fn new_one<T: ?Sized>(
        &self,
        count: &Count,
        maker: &Cred,
        make: impl FnOnce() -> Arc<T>,
    ) -> Result<Numbered<T>> {
        let one = Some(Arc::new(count.one_of(MOST, maker.payer())?));
        Ok(Numbered { number: self.next(), owner: maker.user_ns.clone(), of: make(), one })
    }

    /// `cred` in a new user namespace.
    ///
    /// # Errors
    /// ENOSPC where they are too many or nest too deep; EPERM for one whose ids have no names where he is.
    pub(super) fn new_user(&self, cred: &Cred) -> Result<Cred> {
        cred.in_new_namespace(self.next(), &self.counts.users)
    }

    /// The same, but for new ones of the kinds in `flags`, which are `maker`'s and belong to his user namespace. A new network
    /// reaches nothing but itself; a new one of control groups begins at `cgroup`.
    ///
    /// # Errors
    /// ENOSPC where there are enough of a kind, or they nest too deep.
    pub(super) fn with_new(
        self: &Arc<Self>,
        flags: CloneFlags,
        maker: &Cred,
        cgroup: CgroupId,
    ) -> Result<Arc<Namespaces>> {
        if !flags.intersects(super::NAMESPACES.difference(CloneFlags::NEWNS | CloneFlags::NEWUSER)) {
            return Ok(self.clone());
        }
        let mut new = Namespaces::clone(self);
        if flags.contains(CloneFlags::NEWPID) {
            new.pids_for_children = self.pids_for_children.below(self.next(), maker)?;
        }
        if flags.contains(CloneFlags::NEWUTS) {
            let names = self.uts.of.lock().clone();
            let make = || Arc::new(Lock::new(Rank::Uts, names));
            new.uts = self.new_one(&self.counts.uts, maker, make)?;
        }
        if flags.contains(CloneFlags::NEWIPC) {
            new.ipc = self.new_one(&self.counts.ipc, maker, || self.ipc.of.beside(&maker.user_ns))?;
        }
        if flags.contains(CloneFlags::NEWNET) {
            let make = || self.network.of.beside(maker.user_ns.clone());
            new.network = self.new_one(&self.counts.networks, maker, make)?;
        }
        if flags.contains(CloneFlags::NEWCGROUP) {
            new.cgroup = self.new_one(&self.counts.cgroups, maker, || Arc::new(cgroup))?;
        }
        if flags.contains(CloneFlags::NEWTIME) {
            let make = || TimeNs::like(Some(&self.time_for_children.of));
            new.time_for_children = self.new_one(&self.counts.times, maker, make)?;
        }
        Ok(Arc::new(new))
    }

    /// Whether its children's clocks are put forward otherwise than its own.
    pub(super) fn ages_children(&self) -> bool {
        !Arc::ptr_eq(&self.time.of, &self.time_for_children.of)
    }

    /// Whether its children's clocks are put forward at all.
    pub fn shifts_children(&self) -> bool {
        self.time_for_children.number != FIRST_TIME
    }

    /// The same, in the time namespace of others.
    pub(super) fn in_first_time(self: &Arc<Self>, first: &Namespaces) -> Arc<Namespaces> {
        let (time, time_for_children) = (first.time.clone(), first.time_for_children.clone());
        Arc::new(Namespaces { time, time_for_children, ..Namespaces::clone(self) })
    }

    /// The same, in the time namespace that its children are to be in.
    pub(super) fn in_time(&self) -> Arc<Namespaces> {
        Arc::new(Namespaces { time: self.time_for_children.clone(), ..Namespaces::clone(self) })
    }
}

impl Current {
    /// Whether the caller may have namespaces of its own of the kinds in `flags`.
    ///
    /// # Errors
    /// EINVAL for a pid namespace by one whose children are not born where it is; EPERM for a user namespace by one who does not
    /// see all of his mounts, and for others without CAP_SYS_ADMIN, which one has in a new user namespace.
    pub(super) fn may_have(&self, flags: CloneFlags) -> Result<()> {
        let wanted = flags.intersection(super::NAMESPACES);
        if wanted.contains(CloneFlags::NEWUSER) {
            // Who is root inside could leave a root directory that was to hold him (user_namespaces(7)).
            let fs = self.fs();
            if !fs.root().same(&fs.namespace().root().cross()) {
                return Err(Errno::EPERM);
            }
        } else if !wanted.is_empty() && !self.cred().has_own(Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        if wanted.contains(CloneFlags::NEWPID) && !self.bears_where_it_is() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Whether its children are born in its own pid namespace: not any more after unshare(2) or setns(2).
    pub(super) fn bears_where_it_is(&self) -> bool {
        Arc::ptr_eq(self.pids(), &self.task.namespaces().pids_for_children)
    }

    /// Enters namespaces that there are, all of them or none (setns(2)). A user namespace comes first.
    ///
    /// # Errors
    /// EPERM without the rights; EINVAL for the user namespace that it is in, for one by a thread of several, for a pid namespace
    /// that is not below its own, and for mounts and users where its root and working directory are others', too.
    pub fn enter_namespaces(&mut self, wanted: &[Ns]) -> Result<()> {
        let cred = self.cred();
        let mut new = Namespaces::clone(&self.task.namespaces());
        let (mut mounts, mut leaves_ipc, mut user) = (None, false, &cred.user_ns);
        for namespace in wanted {
            // What counts is what it may do before it enters any, in those, and where it will be itself.
            let may = |cap| {
                namespace.owner().is_some_and(|owner| cred.has_in(owner, cap)) && cred.has_in(user, cap)
            };
            match namespace {
                Ns::User(to) => {
                    self.may_enter_user(to)?;
                    user = to;
                    continue;
                }
                _ if !may(Caps::SYS_ADMIN) => return Err(Errno::EPERM),
                Ns::Mounts(_) if !cred.has_in(user, Caps::SYS_CHROOT) => return Err(Errno::EPERM),
                Ns::Mounts(_) if self.shares_fs() => return Err(Errno::EINVAL),
                Ns::Mounts(to) => mounts = Some(to),
                Ns::Uts(to) => new.uts = to.clone(),
                Ns::Ipc(to) => (new.ipc, leaves_ipc) = (to.clone(), true),
                Ns::Network(to) => new.network = to.clone(),
                Ns::Pids(to) if !to.is_in(self.pids()) => return Err(Errno::EINVAL),
                Ns::Pids(to) => new.pids_for_children = to.clone(),
                Ns::Time(_) if self.task.group.threads().len() > 1 => return Err(Errno::EUSERS),
                Ns::Time(to) => (new.time, new.time_for_children) = (to.clone(), to.clone()),
                Ns::Cgroup(to) => new.cgroup = to.clone(),
            }
        }
        if *user != cred.user_ns {
            self.set_cred(cred.in_namespace(user.clone()));
        }
        if leaves_ipc {
            self.task.leave_undo_list();
        }
        if let Some(to) = mounts {
            let root = to.root().cross();
            let fs = self.fs().at(to.clone(), root.clone(), root);
            self.set_fs(fs);
        }
        let new = Arc::new(new);
        let old = core::mem::replace(&mut self.task.resources.lock().namespaces, new.clone());
        if !Arc::ptr_eq(&old.time.of, &new.time.of) {
            new.time.of.enter(&self.task.group.shifts);
            self.kernel.vdso.choose(self.mm(), new.shifts_children())?;
        }
        drop(old);
        Ok(())
    }

    /// Whether it may enter a user namespace (userns_install).
    ///
    /// # Errors
    /// EINVAL for its own, and for who shares what he sees; EPERM without power there: nobody gets one back that he left.
    fn may_enter_user(&self, to: &UserNs) -> Result<()> {
        let cred = self.cred();
        if *to == cred.user_ns || self.task.group.threads().len() > 1 || self.shares_fs() {
            return Err(Errno::EINVAL);
        }
        if cred.has_in(to, Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Whether another thread has the same root and working directory.
    fn shares_fs(&self) -> bool {
        let fs = self.fs();
        let tree = self.kernel.tree.lock();
        let shares = |task: &Arc<Task>| {
            let held = task.resources.lock();
            !Arc::ptr_eq(task, &self.task) && held.fs.as_ref().is_some_and(|other| Arc::ptr_eq(other, &fs))
        };
        tree.tasks().any(shares)
    }

    /// Enters new namespaces of the kinds in `flags` (unshare(2)): a user namespace first, to which the others belong.
    ///
    /// # Errors
    /// As [`may_have`](Self::may_have); ENOSPC where there would be too many.
    pub fn unshare_namespaces(&mut self, flags: CloneFlags) -> Result<()> {
        self.may_have(flags)?;
        let old = self.task.namespaces();
        let cred = if flags.contains(CloneFlags::NEWUSER) { Some(old.new_user(&self.cred())?) } else { None };
        let own = self.cred();
        let maker = cred.as_ref().unwrap_or(&own);
        let new = old.with_new(flags, maker, self.task.group.cgroup())?;
        if flags.contains(CloneFlags::NEWNS) {
            let fs = self.fs().in_own_namespace(maker)?;
            self.set_fs(fs);
        } else if flags.intersects(CloneFlags::FS | CloneFlags::NEWUSER) {
            // Who has power over his root directory has it to himself.
            let fs = self.fs().fork();
            self.set_fs(fs);
        }
        if let Some(cred) = cred {
            self.set_cred(cred);
        }
        if flags.contains(CloneFlags::NEWIPC) {
            // What the task undoes at its end is of the namespace that it leaves.
            self.task.leave_undo_list();
        }
        let old = core::mem::replace(&mut self.task.resources.lock().namespaces, new);
        // What goes with them may take long.
        drop(old);
        Ok(())
    }
}
