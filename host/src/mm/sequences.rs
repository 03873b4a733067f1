//! Faults that follow each other: how many pages each takes along.

use super::PAGE_SIZE;
use core::ops::Range;

/// Where recent faults mapped or copied pages of anonymous memory: one that goes on there, upwards or downwards, takes more
/// pages than the last did. A few, because threads take turns.
#[derive(Default)]
pub(super) struct Sequences {
    recent: [Span; 4],
    oldest: usize,
}

/// Pages that one fault dealt with.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u64,
    end: u64,
    /// How many were meant to be: `end - start` can be less.
    pages: usize,
}

/// What a fault is to deal with beside its own page: `pages` with it at most, all above it or all below it.
pub(super) struct Plan {
    slot: usize,
    pub(super) pages: usize,
    pub(super) down: bool,
}

impl Plan {
    /// The page alone.
    pub(super) const ONE: Plan = Plan { slot: usize::MAX, pages: 1, down: false };

    /// The plan's range around `page`, within `area`.
    #[inline]
    pub(super) fn range(&self, area: Range<u64>, page: u64) -> (u64, u64) {
        let more = (self.pages as u64 - 1) * PAGE_SIZE;
        if self.down {
            (page.saturating_sub(more).max(area.start), page + PAGE_SIZE)
        } else {
            (page, (page + PAGE_SIZE + more).min(area.end))
        }
    }

    /// Where `len` pages of the plan begin.
    #[inline]
    pub(super) fn start(&self, page: u64, len: usize) -> u64 {
        if self.down { page - (len as u64 - 1) * PAGE_SIZE } else { page }
    }
}

impl Sequences {
    /// What to do for `page`: at most `max` pages, `first` of them where nothing led there. `Self::note` must follow.
    #[inline]
    pub(super) fn plan(&mut self, page: u64, (first, max): (usize, usize)) -> Plan {
        for (slot, span) in self.recent.iter().enumerate() {
            let down = span.start == page + PAGE_SIZE;
            if down || span.end == page {
                return Plan { slot, pages: (span.pages * 2).min(max), down };
            }
        }
        let slot = self.oldest;
        self.oldest = (slot + 1) % self.recent.len();
        Plan { slot, pages: first, down: false }
    }

    #[inline]
    pub(super) fn note(&mut self, plan: &Plan, start: u64, len: usize) {
        if let Some(span) = self.recent.get_mut(plan.slot) {
            *span = Span { start, end: start + len as u64 * PAGE_SIZE, pages: plan.pages };
        }
    }
}
