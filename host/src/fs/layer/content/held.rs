//! Pages of a file, and whether they are more than a copy of what the host has.

use super::{Content, DROPPED, Opened};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::mm::Forget;
use crate::mm::frames::{self, Page};

const PAGE: u64 = 4096;

/// A page in the map of a file. The ledger knows of it.
pub(super) struct Held {
    page: Page,
    /// Written to, or made here: it is nowhere else.
    dirty: bool,
}

impl Held {
    /// A copy of the host's.
    pub(super) fn copy(page: Page) -> Self {
        ledger::cache(PAGE);
        Held { page, dirty: false }
    }

    /// A new page of zeroes.
    ///
    /// # Errors
    /// ENOSPC; ENOMEM.
    pub(super) fn new() -> Result<Self> {
        ledger::store(PAGE)?;
        let page = Page::new().inspect_err(|_| ledger::unstore(PAGE))?;
        Ok(Held { page, dirty: true })
    }

    /// Before it is written to.
    ///
    /// # Errors
    /// ENOSPC.
    pub(super) fn soil(&mut self) -> Result<()> {
        if !self.dirty {
            ledger::store(PAGE)?;
            ledger::uncache(PAGE);
            self.dirty = true;
        }
        Ok(())
    }

    /// The page.
    pub(super) fn page(&self) -> &Page {
        &self.page
    }

    /// Whether it can be dropped: a copy that nobody else has.
    pub(super) fn is_spare(&self) -> bool {
        !self.dirty && frames::is_sole(self.page.frame())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.dirty {
            ledger::unstore(PAGE);
        } else {
            ledger::uncache(PAGE);
        }
    }
}

impl Content {
    /// The host file below, if there is one.
    pub fn lower_file(&self) -> Option<&Opened> {
        self.lower.as_deref()
    }

    /// A page that is nowhere else.
    pub(super) fn new_page(&self) -> Result<Held> {
        let Some(quota) = &self.quota else { return Held::new() };
        quota.blocks.take()?;
        Held::new().inspect_err(|_| quota.blocks.give(1))
    }

    /// Makes the pages of a range, of which some may be there, in a file system that has a limit of its own: without one
    /// nobody but the sandbox's limit is in the way of a later write.
    ///
    /// # Errors
    /// ENOSPC; ENOMEM.
    pub fn reserve(&self, offset: u64, len: u64) -> Result<()> {
        let Some((_, left)) = self.quota.as_ref().and_then(|quota| quota.blocks.left()) else {
            return Ok(());
        };
        let (first, end) = (offset / PAGE, offset.saturating_add(len).div_ceil(PAGE));
        let there = self.state.lock().pages.range(first..end).count() as u64;
        if end - first - there > left {
            return Err(Errno::ENOSPC);
        }
        (first..end).try_for_each(|index| self.page_for(index, true).map(drop))
    }

    /// Pages are no more.
    pub(super) fn gone(&self, count: usize) {
        if let Some(quota) = &self.quota {
            quota.blocks.give(count as u64);
        }
    }

    /// Drops pages that are only copies of the host's. Shared mappings get them again when they are touched; what private
    /// ones have stays.
    pub fn drop_cache(&self) {
        if self.state.lock().pages.values().any(|held| !held.dirty) {
            self.mappers.forget(self.identity(), 0, u64::MAX, Forget::Originals);
            self.drop_spare();
        }
    }

    fn drop_spare(&self) {
        let mut more = true;
        while more {
            let mut state = self.state.lock();
            let spare = state.pages.iter().filter(|(_, held)| held.is_spare()).map(|(index, _)| *index);
            let spare: Vec<u64> = spare.take(DROPPED).collect();
            let gone: Vec<Held> = spare.iter().filter_map(|index| state.pages.remove(index)).collect();
            drop(state);
            more = gone.len() == DROPPED;
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let count = self.state.lock().pages.len();
        self.gone(count);
    }
}
