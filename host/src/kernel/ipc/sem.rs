//! System V semaphores: semop(2).
//!
//! A set's state changes under its lock only. Whoever changes it performs the operations that have become possible, in the
//! order in which they began to wait, and tells the waiters what came of them.

use super::ids::{Object, Wanted, get};
use super::limits::Charge;
pub use super::operation::{MAX_VALUE, MOST_OPERATIONS, SemOp};
use super::operation::{Semaphore, UNDO, changes, perform};
use super::perm::Perm;
use super::undo::UndoList;
use super::{IpcNamespace, now};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::kernel::Current;
use crate::sync::{Lock, Rank, WaitQueue};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of semaphores.
pub struct SemSet {
    count: usize,
    pub(super) state: Lock<State>,
}

pub(super) struct State {
    perm: Perm,
    sems: Vec<Semaphore>,
    otime: i64,
    ctime: i64,
    /// Oldest first.
    waiting: Vec<Arc<Blocked>>,
    /// What processes' ends add, by undo list.
    undo: BTreeMap<u64, (Vec<i16>, Charge)>,
    removed: bool,
    _charge: Charge,
}

/// Operations that wait.
struct Blocked {
    _charge: Charge,
    ops: Vec<SemOp>,
    pid: i32,
    undo: Option<u64>,
    /// The first operation that cannot be performed.
    at: Lock<usize>,
    outcome: Lock<Option<Result<()>>>,
    queue: WaitQueue,
}

impl Blocked {
    fn changes(&self) -> bool {
        changes(&self.ops)
    }

    fn end(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
        self.queue.notify(!0);
    }
}

/// What semctl(2) and `/proc/sysvipc/sem` say of a set.
pub struct Status {
    /// Owner and permissions.
    pub perm: Perm,
    /// When an operation last succeeded.
    pub otime: i64,
    /// When it was changed last.
    pub ctime: i64,
    /// Semaphores.
    pub count: usize,
}

/// What semctl(2) can ask of one semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Its value.
    Value,
    /// Who changed it last.
    Pid,
    /// How many wait for it to rise.
    WaitForRise,
    /// How many wait for it to be 0.
    WaitForZero,
}

impl Object for SemSet {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
    fn set_id(&self, id: i32) {
        self.state.lock().perm.id = id;
    }
}

impl State {
    /// Performs all operations or none. `Some` names the one that would have to wait.
    fn perform(&mut self, ops: &[SemOp], pid: i32, undo: Option<u64>) -> Result<Option<usize>> {
        let adjust = undo.and_then(|id| self.undo.get_mut(&id)).map(|(all, _)| &mut all[..]);
        perform(&mut self.sems, adjust, ops, pid)
    }

    /// Performs what has become possible.
    fn update(&mut self) {
        let mut at = 0;
        while let Some(blocked) = self.waiting.get(at).cloned() {
            match self.perform(&blocked.ops, blocked.pid, blocked.undo) {
                Ok(Some(stuck)) => {
                    *blocked.at.lock() = stuck;
                    at += 1;
                }
                outcome => {
                    self.waiting.remove(at);
                    if outcome.is_ok() {
                        self.otime = now();
                    }
                    // What it changed may be what an older one waits for.
                    if outcome.is_ok() && blocked.changes() {
                        at = 0;
                    }
                    blocked.end(outcome.map(drop));
                }
            }
        }
    }

    /// Adds a process's adjustments at its end.
    pub(super) fn undo(&mut self, list: u64, pid: i32) {
        let Some((all, charge)) = self.undo.remove(&list) else { return };
        drop(charge);
        for (sem, change) in self.sems.iter_mut().zip(all) {
            if change != 0 {
                *sem = Semaphore { value: (sem.value + i32::from(change)).clamp(0, MAX_VALUE), pid };
            }
        }
        self.otime = now();
        self.update();
    }

    fn waiting_at(&self, number: usize, is: impl Fn(i16) -> bool) -> usize {
        let waits = |blocked: &&Arc<Blocked>| {
            let op = blocked.ops[*blocked.at.lock()];
            usize::from(op.number) == number && is(op.change)
        };
        self.waiting.iter().filter(waits).count()
    }
}

impl SemSet {
    fn status(&self) -> Status {
        let state = self.state.lock();
        Status { perm: state.perm, otime: state.otime, ctime: state.ctime, count: self.count }
    }

    fn number(&self, number: i32) -> Result<usize> {
        usize::try_from(number).ok().filter(|number| *number < self.count).ok_or(Errno::EINVAL)
    }
}

impl IpcNamespace {
    /// semget(2): an id.
    ///
    /// # Errors
    /// Its own.
    pub fn semaphores(&self, key: i32, count: i32, flags: u32, cred: &Cred) -> Result<i32> {
        let limits = *self.limits.lock();
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        if count > limits.semmsl as usize {
            return Err(Errno::EINVAL);
        }
        let want = Wanted { key, flags, cred, limit: limits.semmni };
        let fits = |old: &SemSet| if old.count < count { Err(Errno::EINVAL) } else { Ok(()) };
        get(&self.sem, &want, fits, |others, perm| {
            let used: usize = others.iter().map(|other| other.count).sum();
            if count == 0 {
                return Err(Errno::EINVAL);
            }
            if used + count > limits.semmns as usize {
                return Err(Errno::ENOSPC);
            }
            let charge = self.budget.charge(size_of::<SemSet>() + count * size_of::<Semaphore>())?;
            let state = State {
                perm,
                sems: vec![Semaphore::default(); count],
                otime: 0,
                ctime: now(),
                waiting: Vec::new(),
                undo: BTreeMap::new(),
                removed: false,
                _charge: charge,
            };
            Ok(SemSet { count, state: Lock::new(Rank::SemSet, state) })
        })
    }

    /// The set with that id, or at that index.
    fn set(&self, id: i32, by_index: bool) -> Result<Arc<SemSet>> {
        let sets = self.sem.lock();
        if by_index { sets.at(id) } else { sets.get(id) }
    }

    /// IPC_STAT, SEM_STAT, SEM_STAT_ANY.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn semaphores_status(&self, id: i32, by_index: bool, cred: Option<&Cred>) -> Result<Status> {
        let set = self.set(id, by_index)?;
        if let Some(cred) = cred {
            set.perm().allow(cred, 0o444)?;
        }
        Ok(set.status())
    }

    /// All sets, by index.
    pub fn semaphore_sets(&self) -> Vec<Status> {
        self.sem.lock().iter().map(|set| set.status()).collect()
    }

    /// Sets, their semaphores, and the highest index in use.
    pub fn semaphore_totals(&self) -> (usize, usize, u64) {
        let sets = self.sem.lock();
        (sets.len(), sets.iter().map(|set| set.count).sum(), sets.highest())
    }

    /// GETVAL, GETPID, GETNCNT, GETZCNT.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn semaphore(&self, id: i32, number: i32, ask: Ask, cred: &Cred) -> Result<u64> {
        let set = self.set(id, false)?;
        let state = set.state.lock();
        state.perm.allow(cred, 0o444)?;
        let number = set.number(number)?;
        Ok(match ask {
            Ask::Value => state.sems[number].value as u64,
            Ask::Pid => state.sems[number].pid as u64,
            Ask::WaitForRise => state.waiting_at(number, |change| change < 0) as u64,
            Ask::WaitForZero => state.waiting_at(number, |change| change == 0) as u64,
        })
    }

    /// GETALL.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn semaphore_values(&self, id: i32, cred: &Cred) -> Result<Vec<u16>> {
        let set = self.set(id, false)?;
        let state = set.state.lock();
        state.perm.allow(cred, 0o444)?;
        Ok(state.sems.iter().map(|sem| sem.value as u16).collect())
    }

    /// How many semaphores a set has whose values `cred` may set, for SETALL.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn settable_semaphores(&self, id: i32, cred: &Cred) -> Result<usize> {
        let set = self.set(id, false)?;
        set.perm().allow(cred, 0o222)?;
        Ok(set.count)
    }

    /// SETVAL of one semaphore, or SETALL from the first one on: `values` are in range.
    ///
    /// # Errors
    /// EINVAL, EACCES, EIDRM.
    pub fn set_semaphores(&self, id: i32, first: i32, values: &[u16], cred: &Cred, pid: i32) -> Result<()> {
        let set = self.set(id, false)?;
        let first = set.number(first)?;
        let mut state = set.state.lock();
        state.perm.allow(cred, 0o222)?;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let state = &mut *state;
        for (number, value) in (first..set.count).zip(values) {
            state.sems[number] = Semaphore { value: i32::from(*value), pid };
            for (all, _) in state.undo.values_mut() {
                all[number] = 0;
            }
        }
        state.ctime = now();
        state.update();
        Ok(())
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set_semaphores_owner(&self, id: i32, owner: (u32, u32), mode: u32, cred: &Cred) -> Result<()> {
        let set = self.set(id, false)?;
        let mut state = set.state.lock();
        state.perm.may_control(cred)?;
        state.perm.update(owner.0, owner.1, mode)?;
        state.ctime = now();
        Ok(())
    }

    /// IPC_RMID.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove_semaphores(&self, id: i32, cred: &Cred) -> Result<()> {
        let mut sets = self.sem.lock();
        let set = sets.get(id)?;
        let mut state = set.state.lock();
        state.perm.may_control(cred)?;
        sets.remove(&state.perm);
        drop(sets);
        state.removed = true;
        state.undo.clear();
        for blocked in std::mem::take(&mut state.waiting) {
            blocked.end(Err(Errno::EIDRM));
        }
        Ok(())
    }

    /// A set that `cred` may operate on, with its adjustments for `undo`.
    fn operand(&self, id: i32, ops: &[SemOp], undo: Option<&UndoList>, cred: &Cred) -> Result<Arc<SemSet>> {
        let set = self.set(id, false)?;
        if ops.iter().any(|op| usize::from(op.number) >= set.count) {
            return Err(Errno::EFBIG);
        }
        let mut state = set.state.lock();
        state.perm.allow(cred, if changes(ops) { 0o222 } else { 0o444 })?;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        if let Some(list) = undo
            && !state.undo.contains_key(&list.id())
        {
            let charge = self.budget.charge(set.count * size_of::<i16>() + size_of::<SemSet>())?;
            state.undo.insert(list.id(), (vec![0; set.count], charge));
            list.note(&set);
        }
        drop(state);
        Ok(set)
    }
}

impl Current {
    /// semtimedop(2), with a deadline on the monotonic clock.
    ///
    /// # Errors
    /// Its own; EINTR, which is never restarted.
    pub fn operate_semaphores(&mut self, id: i32, ops: Vec<SemOp>, deadline: Option<u64>) -> Result<()> {
        let undo = ops.iter().any(|op| op.has(UNDO)).then(|| self.task.undo_list(&self.kernel));
        let pid = self.task.tgid();
        let ipc = self.task.ipc();
        let set = ipc.operand(id, &ops, undo.as_deref(), &self.cred())?;
        let undo = undo.map(|list| list.id());
        let mut state = set.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let Some(stuck) = state.perform(&ops, pid, undo)? else {
            state.otime = now();
            if changes(&ops) {
                state.update();
            }
            return Ok(());
        };
        let charge = ipc.budget.charge(size_of::<Blocked>() + size_of_val(&ops[..]))?;
        let blocked = Arc::new(Blocked {
            _charge: charge,
            ops,
            pid,
            undo,
            at: Lock::new(Rank::SemAt, stuck),
            outcome: Lock::new(Rank::SemOutcome, None),
            queue: WaitQueue::new(),
        });
        state.waiting.push(blocked.clone());
        drop(state);
        let queues = [(&blocked.queue, !0)];
        let ended = self.wait_on(&queues, deadline, &mut || blocked.outcome.lock().take());
        let reason = match ended {
            Ok(outcome) => return outcome,
            Err(Errno::ETIMEDOUT) => Errno::EAGAIN,
            Err(_) => Errno::EINTR,
        };
        let mut state = set.state.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, &blocked));
        drop(state);
        // It may have been performed at the last moment.
        let outcome = blocked.outcome.lock().take();
        outcome.unwrap_or(Err(reason))
    }
}
