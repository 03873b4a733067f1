//! Page mappings as runs: consecutive pages, consecutive frames, the same rights.
//!
//! Pure bookkeeping. A space has two: what the kernel wants, and what the stub process has.

use crate::platform::{Frame, Prot};
use std::collections::BTreeMap;

/// A run: `[start, end)` is mapped to the frames from `frame` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) frame: u64,
    pub(super) prot: Prot,
}

impl Run {
    /// The frame at `va`, which lies in the run.
    pub(super) fn frame_at(&self, va: u64) -> u64 {
        self.frame + (va - self.start)
    }

    /// The part inside `[start, end)`; the two overlap.
    pub(super) fn clip(&self, start: u64, end: u64) -> Run {
        let from = self.start.max(start);
        Run { start: from, end: self.end.min(end), frame: self.frame_at(from), prot: self.prot }
    }

    fn continues(&self, next: &Run) -> bool {
        self.end == next.start && self.frame_at(self.end) == next.frame && self.prot == next.prot
    }
}

/// Disjoint runs by start address.
#[derive(Default)]
pub(super) struct Runs(BTreeMap<u64, Run>);

impl Runs {
    /// The run around `va`.
    pub(super) fn get(&self, va: u64) -> Option<Run> {
        self.0.range(..=va).next_back().map(|(_, run)| *run).filter(|run| va < run.end)
    }

    /// End of the last run that ends at or below `va`.
    pub(super) fn end_below(&self, va: u64) -> Option<u64> {
        self.0.range(..=va).next_back().map(|(_, run)| run.end).filter(|end| *end <= va)
    }

    /// Start of the first run above `va`.
    pub(super) fn start_above(&self, va: u64) -> Option<u64> {
        self.0.range(va + 1..).next().map(|(start, _)| *start)
    }

    /// The parts of runs inside `[start, end)`, ascending.
    pub(super) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Run> + '_ {
        let first = self.get(start).map_or(start, |run| run.start);
        let range = if start < end { first..end } else { start..start };
        self.0.range(range).map(move |(_, run)| run.clip(start, end))
    }

    /// Maps a run, replacing what is there; merges with its neighbours.
    pub(super) fn insert(&mut self, run: Run) {
        self.remove(run.start, run.end, |_| ());
        let mut run = run;
        if let Some(before) =
            run.start.checked_sub(1).and_then(|va| self.get(va)).filter(|b| b.continues(&run))
        {
            self.0.remove(&before.start);
            run = Run { start: before.start, frame: before.frame, ..run };
        }
        if let Some(after) = self.0.get(&run.end).copied().filter(|a| run.continues(a)) {
            self.0.remove(&after.start);
            run.end = after.end;
        }
        self.0.insert(run.start, run);
    }

    /// Unmaps `[start, end)`, telling `gone` of every piece.
    pub(super) fn remove(&mut self, start: u64, end: u64, mut gone: impl FnMut(Run)) {
        if start >= end {
            return;
        }
        if let Some(first) = self.get(start).filter(|run| run.start < start) {
            self.0.insert(first.start, Run { end: start, ..first });
            self.0.insert(start, first.clip(start, first.end));
        }
        while let Some(run) = self.0.range(start..end).next().map(|(_, run)| *run) {
            self.0.remove(&run.start);
            if run.end > end {
                self.0.insert(end, run.clip(end, run.end));
            }
            gone(run.clip(start, end));
        }
    }

    /// Changes rights inside `[start, end)`.
    pub(super) fn protect(&mut self, start: u64, end: u64, prot: Prot) {
        let pieces: Vec<Run> = self.overlapping(start, end).filter(|run| run.prot != prot).collect();
        for piece in pieces {
            self.insert(Run { prot, ..piece });
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Calls `each` for every run that `frames` mapped from `va` on make.
pub(super) fn coalesce(va: u64, frames: &[Frame], prot: Prot, page: u64, mut each: impl FnMut(Run)) {
    let mut frames = frames.iter().peekable();
    let mut start = va;
    while let Some(first) = frames.next() {
        let mut run = Run { start, end: start + page, frame: first.0, prot };
        while frames.next_if(|next| next.0 == run.frame_at(run.end)).is_some() {
            run.end += page;
        }
        start = run.end;
        each(run);
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Prot, Run, Runs, coalesce};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use std::collections::BTreeMap;

    const PAGE: u64 = 4096;

    #[derive(Clone, Debug)]
    enum Op {
        Map(u64, Vec<u64>, Prot),
        Unmap(u64, u64),
        Protect(u64, u64, Prot),
    }

    fn prot() -> impl Strategy<Value = Prot> {
        prop_oneof![Just(Prot::READ), Just(Prot::READ | Prot::WRITE), Just(Prot::READ | Prot::EXEC)]
    }

    fn op() -> impl Strategy<Value = Op> {
        let consecutive = (0..40u64, 1..8u64).prop_map(|(from, n)| (from..from + n).collect::<Vec<_>>());
        let frames = prop_oneof![consecutive, proptest::collection::vec(0..40u64, 1..8)];
        prop_oneof![
            (0..32u64, frames, prot()).prop_map(|(va, frames, prot)| Op::Map(va, frames, prot)),
            (0..32u64, 0..12u64).prop_map(|(va, n)| Op::Unmap(va, n)),
            (0..32u64, 0..12u64, prot()).prop_map(|(va, n, prot)| Op::Protect(va, n, prot)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_pages(ops in proptest::collection::vec(op(), 1..60), probe in any::<u8>()) {
            let mut runs = Runs::default();
            let mut model: BTreeMap<u64, (u64, Prot)> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Map(va, frames, prot) => {
                        let list: Vec<Frame> = frames.iter().map(|f| Frame(f * PAGE)).collect();
                        coalesce(va * PAGE, &list, prot, PAGE, |run| runs.insert(run));
                        for (i, frame) in frames.iter().enumerate() {
                            model.insert(va + i as u64, (*frame, prot));
                        }
                    }
                    Op::Unmap(va, n) => {
                        let mut gone = BTreeMap::new();
                        runs.remove(va * PAGE, (va + n) * PAGE, |run: Run| {
                            for page in run.start / PAGE..run.end / PAGE {
                                gone.insert(page, run.frame_at(page * PAGE) / PAGE);
                            }
                        });
                        let expected: BTreeMap<_, _> = model.range(va..va + n).map(|(p, (f, _))| (*p, *f)).collect();
                        assert_eq!(gone, expected);
                        model.retain(|page, _| !(va..va + n).contains(page));
                    }
                    Op::Protect(va, n, prot) => {
                        runs.protect(va * PAGE, (va + n) * PAGE, prot);
                        model.range_mut(va..va + n).for_each(|(_, entry)| entry.1 = prot);
                    }
                }
            }
            for page in 0..48u64 {
                let found = runs.get(page * PAGE).map(|run| (run.frame_at(page * PAGE) / PAGE, run.prot));
                assert_eq!(found, model.get(&page).copied());
            }
            let from = u64::from(probe) % 40;
            let mut pages = Vec::new();
            for run in runs.overlapping(from * PAGE, (from + 10) * PAGE) {
                pages.extend(run.start / PAGE..run.end / PAGE);
            }
            let expected: Vec<u64> = model.range(from..from + 10).map(|(page, _)| *page).collect();
            assert_eq!(pages, expected);
        }
    }
}
