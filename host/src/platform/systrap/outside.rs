//! What the host keeps for a stub process, and whoever looks at the sandbox's own memory does not see.
//!
//! Above all page tables: a program that touches one page in each 2 MiB has as much of them as of pages, and their
//! directories beside. They are counted by regions in which anything was ever mapped, until all of a region is unmapped.

use super::runs::Run;
use crate::arena::ledger;
use std::collections::BTreeSet;

/// What one page of page tables maps.
const REGION: u64 = 2 << 20;
/// Counted for a region: its page table, and its share of what is above.
const TABLES: u64 = 2 * 4096;
/// Counted for a process: tasks, stacks, mappings.
const PROCESS: u64 = 128 << 10;

/// Of one process.
pub(super) struct Outside {
    regions: BTreeSet<u64>,
}

impl Default for Outside {
    fn default() -> Self {
        ledger::charge(PROCESS);
        Outside { regions: BTreeSet::new() }
    }
}

impl Outside {
    /// Bytes counted.
    pub(super) fn bytes(&self) -> u64 {
        PROCESS + self.regions.len() as u64 * TABLES
    }

    /// A run is mapped.
    pub(super) fn map(&mut self, run: &Run) {
        let before = self.regions.len();
        self.regions.extend(run.start / REGION..=(run.end - 1) / REGION);
        match self.regions.len() - before {
            0 => {}
            new => ledger::charge(new as u64 * TABLES),
        }
    }

    /// Everything in `[start, end)` is unmapped.
    pub(super) fn unmap(&mut self, start: u64, end: u64) {
        let (first, last) = (start.div_ceil(REGION), end / REGION);
        if first >= last {
            return;
        }
        let mut gone = self.regions.split_off(&first);
        self.regions.append(&mut gone.split_off(&last));
        ledger::uncharge(gone.len() as u64 * TABLES);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        ledger::uncharge(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{Outside, PROCESS, REGION, TABLES};
    use crate::platform::Prot;
    use crate::platform::systrap::runs::Run;

    #[test]
    fn regions_count_once_and_go_as_a_whole() {
        let mut outside = Outside::default();
        let map = |outside: &mut Outside, start, end| {
            outside.map(&Run { start, end, frame: 0, prot: Prot::READ });
            (outside.bytes() - PROCESS) / TABLES
        };
        assert_eq!(map(&mut outside, REGION - 4096, REGION + 4096), 2);
        assert_eq!(map(&mut outside, REGION, 2 * REGION), 2);
        assert_eq!(map(&mut outside, 5 * REGION, 5 * REGION + 4096), 3);
        outside.unmap(REGION + 4096, 3 * REGION);
        assert_eq!(outside.bytes() - PROCESS, 3 * TABLES);
        outside.unmap(REGION, 3 * REGION);
        assert_eq!(outside.bytes() - PROCESS, 2 * TABLES);
        outside.unmap(0, u64::MAX);
        assert_eq!(outside.bytes(), PROCESS);
    }
}
