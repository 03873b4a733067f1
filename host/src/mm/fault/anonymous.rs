//! Faults in anonymous memory: each takes along what a sequence of them is going to need.

use super::{Area, FaultSignal, MAX_RUN, Step};
use crate::mm::sequences::Plan;
use crate::mm::vma::Backing;
use crate::mm::{Mm, PAGE_SIZE, State, frames, hardware, raw};
use crate::platform::{Access, Frame, Prot};

/// Pages beside a fault that are looked at, aligned to their number.
const WINDOW: u64 = 16 * PAGE_SIZE;
/// The same where a fault costs little.
const MAX_CHEAP_RUN: usize = 16;

impl Area {
    #[inline]
    fn range(self, plan: &Plan, page: u64) -> (u64, u64) {
        plan.range(self.start..self.end, page)
    }
}

impl Mm {
    /// How many pages a fault in anonymous memory deals with where nothing led there, and at most.
    fn run_lengths(&self) -> (usize, usize) {
        if self.caps.cheap_map { (1, MAX_CHEAP_RUN) } else { (4, MAX_RUN) }
    }

    /// A write to a shared page: it and, in a sequence, those like it beside it are copied.
    pub(super) fn copy(
        &self,
        state: &mut State,
        area: Area,
        page: u64,
        frame: Frame,
    ) -> Result<Step, FaultSignal> {
        let wanted = hardware(area.prot);
        // Another's pages may still change, which a program sees until it writes itself.
        let anonymous = state.vmas.find(page).is_some_and(|vma| matches!(vma.backing, Backing::Anon));
        let plan = if anonymous { state.sequences.plan(page, (1, self.run_lengths().1)) } else { Plan::ONE };
        let mut old = Vec::new();
        let shared = |frame, prot: Prot| {
            !prot.contains(Prot::WRITE)
                && !frames::is_zero(frame)
                && !frames::is_host_file(frame)
                && !frames::is_sole(frame)
        };
        let (mut start, mut len) =
            if plan.pages == 1 { (page, 1) } else { self.alike(area, page, &plan, shared) };
        let mut new = [Frame(0); MAX_RUN];
        let got = frames::alloc_many_dirty(&mut new[..len]).map_err(FaultSignal::from_errno)?;
        if got < len {
            (start, len) = (plan.start(page, got), got);
        }
        let new = &new[..len];
        if len == 1 {
            old.push(frame);
        } else {
            self.space.for_each(start, len as u64 * PAGE_SIZE, &mut |_, frame, _| old.push(frame));
        }
        for (to, from) in new.iter().zip(&old) {
            if raw::copy_page(to.0, from.0).is_err() {
                frames::put_many(new);
                return Err(FaultSignal::BEYOND_END);
            }
            if wanted.contains(Prot::EXEC) {
                raw::sync_code(to.0);
            }
        }
        self.space.replace(start, &old, new, wanted).map_err(FaultSignal::from_errno)?;
        state.sequences.note(&plan, start, len);
        Ok(Step::Copied(old))
    }

    /// The pages from `page` on, in the plan's direction and at most as many, that are there and `accept`ed, `page` itself
    /// in any case: where they begin and how many they are.
    fn alike(
        &self,
        area: Area,
        page: u64,
        plan: &Plan,
        accept: impl Fn(Frame, Prot) -> bool,
    ) -> (u64, usize) {
        let (low, high) = area.range(plan, page);
        // The run that ends (downwards: has ended up to now) here.
        let (mut start, mut end) = if plan.down { (low, low) } else { (page, page) };
        self.space.for_each(low, high - low, &mut |va, frame, prot| {
            if va != page && !accept(frame, prot) {
                return;
            }
            if va == end {
                end += PAGE_SIZE;
            } else if plan.down {
                (start, end) = (va, va + PAGE_SIZE);
            }
        });
        (start, (((end - start) / PAGE_SIZE) as usize).max(1))
    }

    /// A write to a page that had only been read: it and, in a sequence, those like it beside it get frames.
    pub(super) fn fill_zeroes(
        &self,
        state: &mut State,
        area: Area,
        page: u64,
        zero: Frame,
    ) -> Result<Step, FaultSignal> {
        let plan = state.sequences.plan(page, (1, self.run_lengths().1));
        let (_, len) = self.alike(area, page, &plan, |frame, _| frame == zero);
        let mut frames = [Frame(0); MAX_RUN];
        let len = frames::alloc_many(&mut frames[..len]).map_err(FaultSignal::from_errno)?;
        let start = plan.start(page, len);
        self.map(start, &frames[..len], hardware(area.prot))?;
        state.sequences.note(&plan, start, len);
        Ok(Step::Replaced(zero, len))
    }

    /// Bytes around `page`, and where they begin, whose pages all belong to this space alone and are not writable yet: they
    /// can become so together (the usual case after a forked child has gone).
    pub(super) fn sole_run(&self, area: Area, page: u64) -> (u64, u64) {
        let low = (page & !(WINDOW - 1)).max(area.start);
        let high = ((page & !(WINDOW - 1)) + WINDOW).min(area.end);
        let (mut start, mut end) = (low, low);
        self.space.for_each(low, high - low, &mut |va, frame, prot| {
            if end <= page && va != end {
                (start, end) = (va, va);
            }
            if va == end && !prot.contains(Prot::WRITE) && frames::is_sole(frame) {
                end += PAGE_SIZE;
            }
        });
        if (start..end).contains(&page) { (start, end - start) } else { (page, PAGE_SIZE) }
    }

    #[inline]
    pub(super) fn fault_anon(
        &self,
        state: &mut State,
        area: Area,
        page: u64,
        access: Access,
    ) -> Result<Step, FaultSignal> {
        let wanted = hardware(area.prot);
        let plan = state.sequences.plan(page, self.run_lengths());
        let mut len = if plan.pages == 1 { 1 } else { self.absent(state, area, page, &plan) };
        let mut frames = [Frame(0); MAX_RUN];
        // What is read first is usually written next: where faults are dear, that is one fault, not two.
        let write = access == Access::Write || (!self.caps.cheap_map && wanted.contains(Prot::WRITE));
        let prot = if write {
            len = frames::alloc_many(&mut frames[..len]).map_err(FaultSignal::from_errno)?;
            wanted
        } else {
            for frame in &mut frames[..len] {
                *frame = frames::zero().map_err(FaultSignal::from_errno)?;
            }
            wanted - Prot::WRITE
        };
        let start = plan.start(page, len);
        self.map(start, &frames[..len], prot)?;
        state.sequences.note(&plan, start, len);
        Ok(Step::Done)
    }

    /// How many pages of the plan, `page` (itself absent) being one, are absent from tables and stash without a gap.
    fn absent(&self, state: &State, area: Area, page: u64, plan: &Plan) -> usize {
        // The windows are never inside an accessible area, so the range is the user's.
        let (mut low, mut high) = area.range(plan, page);
        let stashed = |low, high| (!state.stash.is_empty()).then(|| state.stash.range(low..high));
        if plan.down {
            self.space.for_each(low, page - low, &mut |va, _, _| low = va + PAGE_SIZE);
            if let Some((&va, _)) = stashed(low, page).and_then(|mut range| range.next_back()) {
                low = va + PAGE_SIZE;
            }
        } else {
            let above = page + PAGE_SIZE;
            self.space.for_each(above, high - above, &mut |va, _, _| high = high.min(va));
            if let Some((&va, _)) = stashed(above, high).and_then(|mut range| range.next()) {
                high = va;
            }
        }
        ((high - low) / PAGE_SIZE) as usize
    }
}
