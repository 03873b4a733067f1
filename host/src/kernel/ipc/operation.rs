//! What semop(2) does to the values of a set: all or nothing.
//!
//! It is done with the set locked, and again for everybody who waits whenever something changes: in place, and taken back where
//! it cannot all be done.

use super::flags;
use crate::abi::{Errno, Result};

/// Highest value of a semaphore (SEMVMX), and how far one can be undone (SEMAEM).
pub const MAX_VALUE: i32 = 32767;
/// Most operations of a call, whatever root has set SEMOPM to.
pub const MOST_OPERATIONS: u32 = 8192;
/// In an operation's flags: it is undone when the process ends.
pub(super) const UNDO: i16 = 0x1000;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct SemOp {
    /// Which semaphore.
    pub number: u16,
    /// What is added; 0 waits for the value 0.
    pub change: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: i16,
}

impl SemOp {
    pub(super) fn has(&self, flag: i16) -> bool {
        self.flags & flag != 0
    }

    /// Performs it, and notes how it is undone; false: it would have to wait.
    fn step(&self, sems: &mut [Semaphore], adjust: Option<&mut [i16]>) -> Result<bool> {
        let number = usize::from(self.number);
        let (value, change) = (&mut sems[number].value, i32::from(self.change));
        let sum = *value + change;
        if change == 0 && *value != 0 || sum < 0 {
            return Ok(false);
        }
        if sum > MAX_VALUE {
            return Err(Errno::ERANGE);
        }
        if self.has(UNDO)
            && let Some(all) = adjust
        {
            let undone = i32::from(all[number]) - change;
            all[number] = i16::try_from(undone).map_err(|_| Errno::ERANGE)?;
        }
        *value = sum;
        Ok(true)
    }

    /// Takes a [`step`](Self::step) back.
    fn step_back(&self, sems: &mut [Semaphore], adjust: Option<&mut [i16]>) {
        let number = usize::from(self.number);
        sems[number].value -= i32::from(self.change);
        if self.has(UNDO)
            && let Some(all) = adjust
        {
            // In any order these end where they began.
            all[number] = all[number].wrapping_add(self.change);
        }
    }
}

/// One semaphore.
#[derive(Clone, Copy, Default)]
pub(super) struct Semaphore {
    pub(super) value: i32,
    /// Who changed it last.
    pub(super) pid: i32,
}

pub(super) fn changes(ops: &[SemOp]) -> bool {
    ops.iter().any(|op| op.change != 0)
}

/// Performs all operations or none. `Some` names the one that would have to wait. `adjust` is what the process's end adds.
pub(super) fn perform(
    sems: &mut [Semaphore],
    mut adjust: Option<&mut [i16]>,
    ops: &[SemOp],
    pid: i32,
) -> Result<Option<usize>> {
    for (at, op) in ops.iter().enumerate() {
        let outcome = match op.step(sems, adjust.as_deref_mut()) {
            Ok(true) => continue,
            Ok(false) if op.has(flags::NOWAIT as i16) => Err(Errno::EAGAIN),
            Ok(false) => Ok(Some(at)),
            Err(errno) => Err(errno),
        };
        // None was performed, then.
        ops[..at].iter().for_each(|op| op.step_back(sems, adjust.as_deref_mut()));
        return outcome;
    }
    for op in ops {
        sems[usize::from(op.number)].pid = pid;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(number: u16, change: i16, flags: i16) -> SemOp {
        SemOp { number, change, flags }
    }

    #[test]
    fn what_cannot_all_be_done_changes_nothing() {
        let mut sems = [3, 0, MAX_VALUE].map(|value| Semaphore { value, pid: 1 });
        let mut undo = [0, -5, 0];
        let now = |sems: &[Semaphore]| sems.iter().map(|sem| (sem.value, sem.pid)).collect::<Vec<_>>();
        let before = (now(&sems), undo);
        let begin = [op(0, -2, UNDO), op(1, 4, UNDO), op(0, 1, 0), op(1, -4, 0)];
        let with = |last: SemOp| [&begin[..], &[last]].concat();
        for (last, outcome) in [
            (op(0, 0, UNDO), Ok(Some(4))),
            (op(0, -3, 0), Ok(Some(4))),
            (op(0, -3, flags::NOWAIT as i16), Err(Errno::EAGAIN)),
            (op(2, 1, UNDO), Err(Errno::ERANGE)),
            (op(1, i16::MAX, UNDO), Err(Errno::ERANGE)),
        ] {
            assert_eq!(perform(&mut sems, Some(&mut undo), &with(last), 2), outcome, "{last:?}");
            assert_eq!((now(&sems), undo), before, "{last:?}");
        }
        assert_eq!(perform(&mut sems, Some(&mut undo), &with(op(0, -2, UNDO)), 2), Ok(None));
        assert_eq!((now(&sems), undo), (vec![(0, 2), (0, 2), (MAX_VALUE, 1)], [4, -9, 0]));
    }
}
