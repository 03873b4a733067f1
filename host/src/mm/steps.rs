//! Edits of much, a step at a time.
//!
//! What a call names can be a hundred gigabytes of pages and tens of thousands of areas. So the lock is taken for a part of
//! it after another, each with at most so many pages and areas *that exist*, and in between others get the CPU. What is long
//! has the space's *turn* meanwhile ([`State::turn`]): whoever else wants to change areas waits for its end, as Linux's callers
//! wait for `mmap_lock`, so that no area appears in the middle of a range that is being removed. Page faults go on, except
//! during a fork: of two writes by a program its child must not have the later one alone.
//!
//! Between two steps an area may be split where nobody asked for it. Nobody can tell but by the list of areas.

use super::vma::Vma;
use super::{Deferred, Mm, PAGE_SIZE, State};
use crate::abi::Result;
use crate::sync::LockGuard;

/// Pages of one step; and areas.
const PAGES: u64 = 2048;
const AREAS: usize = 256;
/// What cannot hold more pages than a step may have.
pub(super) const SHORT: u64 = PAGES * PAGE_SIZE;

/// What takes several steps and is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    #[default]
    Nobodys,
    /// A change of areas.
    Edit,
    /// A fork: page faults wait, too.
    Fork,
}

/// Has the turn until it is dropped.
pub(super) struct Taken<'a>(&'a Mm);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.state.lock().turn = Turn::Nobodys;
    }
}

impl Mm {
    /// As [`edit`](Mm::edit), by who changes areas for the space's own program: waits until nobody has the turn.
    pub(super) fn edit_areas<T>(
        &self,
        edit: impl FnOnce(&mut State, &mut Deferred) -> Result<T>,
    ) -> Result<T> {
        let mut deferred = Deferred::default();
        let result = edit(&mut self.lock_areas(), &mut deferred);
        self.finish(deferred);
        result
    }

    #[inline]
    pub(super) fn lock_areas(&self) -> LockGuard<'_, State> {
        let state = self.state.lock();
        if state.turn == Turn::Nobodys { state } else { self.await_turn(state, |turn| turn == Turn::Nobodys) }
    }

    /// Waits, `state` unlocked, until the turn is as `is` says. Who has it is never waiting for anything but a CPU.
    #[cold]
    pub(super) fn await_turn<'a>(
        &'a self,
        mut state: LockGuard<'a, State>,
        is: impl Fn(Turn) -> bool,
    ) -> LockGuard<'a, State> {
        while !is(state.turn) {
            drop(state);
            if let Some(pause) = self.pause.get() {
                pause.step_aside();
            }
            state = self.state.lock();
        }
        state
    }

    /// Calls `step` for one part of the range after another, ascending, the first one under the same lock as `first`. What is
    /// begun is not undone by an error.
    ///
    /// # Errors
    /// Those of `first` and `step`; EINTR once the program is to end.
    pub(super) fn in_steps(
        &self,
        (start, end): (u64, u64),
        turn: Turn,
        first: impl FnOnce(&mut State) -> Result<()>,
        mut step: impl FnMut(&mut State, &mut Deferred, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut first = Some(first);
        let (mut at, mut taken) = (start, None);
        loop {
            let mut deferred = Deferred::default();
            let mut state = if taken.is_none() { self.lock_areas() } else { self.state.lock() };
            let mut to = end;
            let result = first.take().map_or(Ok(()), |first| first(&mut state)).and_then(|()| {
                to = self.step_end(&state, at, end);
                step(&mut state, &mut deferred, at, to)
            });
            let more = result.is_ok() && to < end;
            if more && taken.is_none() {
                state.turn = turn;
            }
            drop(state);
            if more && taken.is_none() {
                taken = Some(Taken(self));
            }
            self.finish(deferred);
            result?;
            if !more {
                return Ok(());
            }
            at = to;
            self.pause()?;
        }
    }

    /// The turn, which has been taken under the lock.
    pub(super) fn take_over_turn(&self) -> Taken<'_> {
        Taken(self)
    }

    /// Where a step that begins at `at` ends.
    #[inline]
    pub(super) fn step_end(&self, state: &State, at: u64, end: u64) -> u64 {
        if end - at <= SHORT { end } else { self.long_step_end(state, at, end) }
    }

    /// Whether all that the space has is no more than one step.
    fn is_one_step(&self, state: &State) -> bool {
        self.resident_pages(state) <= PAGES && state.vmas.len() <= AREAS
    }

    fn long_step_end(&self, state: &State, at: u64, end: u64) -> u64 {
        // Most spaces are small, however long the range is.
        if self.is_one_step(state) {
            return end;
        }
        let mut to = state.vmas.nth_from(at, AREAS).map_or(end, |vma| vma.start.min(end));
        if let Some((&va, _)) = state.stash.range(at..to).nth(PAGES as usize) {
            to = va;
        }
        for (start, end) in self.user_pieces(at, to) {
            let reached = self.space.space().reach(start, end - start, PAGES);
            if reached < end {
                return reached;
            }
        }
        to
    }

    /// Drops the pages of a range in steps; the areas stay. For who is about to replace them at once.
    pub(super) fn thin(&self, start: u64, end: u64) -> Result<()> {
        self.in_steps(
            (start, end),
            Turn::Edit,
            |_| Ok(()),
            |state, deferred, at, to| {
                self.drop_pages(state, at, to, deferred);
                Ok(())
            },
        )
    }

    /// Drops the pages of a range, whether they are hidden or not; the areas stay.
    pub(super) fn drop_pages(&self, state: &mut State, start: u64, end: u64, deferred: &mut Deferred) {
        let piece = |vma: &Vma| (vma.start.max(start), vma.end.min(end), vma.prot.is_empty());
        let pieces: Vec<_> = state.vmas.overlapping(start, end).map(piece).collect();
        for (start, end, hidden) in pieces {
            if hidden {
                self.drop_stashed(state, start, end, deferred);
            } else {
                self.unmap_pages(state, start, end, deferred);
            }
        }
    }

    /// A task begins to run here.
    pub fn enter(&self) {
        self.users.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
    }

    /// A task that has begun to run here does so no more. The last one takes out what there is, others going first when it
    /// takes long, as dropping the space could not. Called without a lock held.
    pub fn leave(&self) {
        if self.users.fetch_sub(1, core::sync::atomic::Ordering::SeqCst) == 1 {
            self.empty();
        }
    }

    /// Takes everything out that would keep others waiting if it were dropped at once.
    pub(super) fn empty(&self) {
        let (mut at, end) = (0, self.caps.task_size);
        loop {
            let mut deferred = Deferred::default();
            let mut state = self.state.lock();
            if self.is_one_step(&state) {
                return;
            }
            let to = self.step_end(&state, at, end);
            self.remove_range(&mut state, at, to, &mut deferred);
            drop(state);
            self.finish(deferred);
            if to == end {
                return;
            }
            at = to;
            self.give_way();
        }
    }

    /// Lets others go first between two steps of what has to be done in any case.
    pub(super) fn give_way(&self) {
        if let Some(pause) = self.pause.get() {
            pause.give_way();
        }
    }

    /// Calls `each` with the areas, as far as they lie in one step after another, and what of them that is; others go first in
    /// between, and may change what has not been seen yet.
    pub(super) fn each_step(&self, each: &mut dyn FnMut(&State, &Vma, u64, u64)) {
        let (mut at, end) = (0, self.caps.task_size);
        while at < end {
            let state = self.state.lock();
            let to = self.step_end(&state, at, end);
            for vma in state.vmas.overlapping(at, to) {
                each(&state, vma, vma.start.max(at), vma.end.min(to));
            }
            drop(state);
            at = to;
            if at < end {
                self.give_way();
            }
        }
    }
}
