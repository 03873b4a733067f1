//! Who maps an object, so that pages which stop being the object's can be taken out of address spaces: when a file
//! is truncated, a hole is punched, or a page of the host's is replaced by a written copy.
//!
//! The object first changes what [`Mappable::page`](super::Mappable::page) and `ready` say, then calls
//! [`Mappers::forget`], without locks of its own that those take. A fault that fetched an old page meanwhile drops
//! it: forgetting counts up [`State::forgotten`](super::State).

use super::vma::Backing;
use super::{Mm, PAGE_SIZE, frames};
use crate::abi::Errno;
use crate::sync::{Lock, Rank};
use std::sync::{Arc, Weak};

/// The address spaces that map an object. Embedded in it; its lock is a leaf.
pub struct Mappers(Lock<Spaces>);

impl Default for Mappers {
    fn default() -> Self {
        Mappers(Lock::new(Rank::Mappers, Spaces::default()))
    }
}

#[derive(Default)]
struct Spaces {
    all: Vec<Weak<Mm>>,
    /// Length at which those that are gone are swept out.
    sweep_at: usize,
}

/// Which pages of private mappings go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// All, the program's own copies too (truncation).
    Everything,
    /// Those that are the object's, as far as that shows: pages of host files; of shared mappings all.
    Originals,
}

impl Mappers {
    /// Notes an address space: what [`Mappable::mapped`](super::Mappable::mapped) calls.
    pub fn add(&self, mm: &Weak<Mm>) {
        let mut spaces = self.0.lock();
        // Segments of a file are mapped one after the other.
        if spaces.all.last().is_some_and(|last| Weak::ptr_eq(last, mm)) {
            return;
        }
        if spaces.all.len() >= spaces.sweep_at {
            spaces.all.retain(|mm| mm.strong_count() != 0);
            spaces.sweep_at = (spaces.all.len() * 2).max(16);
        }
        spaces.all.push(mm.clone());
    }

    /// Takes pages `first..end` of the object with this identity out of every address space.
    pub fn forget(&self, identity: usize, first: u64, end: u64, what: Forget) {
        let spaces: Vec<Arc<Mm>> = self.0.lock().all.iter().filter_map(Weak::upgrade).collect();
        for mm in spaces {
            mm.forget_object(identity, first, end, what);
        }
    }
}

impl Mm {
    fn forget_object(&self, identity: usize, first: u64, end: u64, what: Forget) {
        let _ = self.edit(|state, deferred| {
            state.forgotten += 1;
            self.note_peak(state);
            let mut ranges = Vec::new();
            for vma in state.vmas.iter() {
                let Backing::Object { object, offset } = &vma.backing else { continue };
                if object.identity() != identity {
                    continue;
                }
                let base = offset / PAGE_SIZE;
                let pages = vma.len() / PAGE_SIZE;
                let (from, to) = (first.saturating_sub(base).min(pages), end.saturating_sub(base).min(pages));
                if from < to {
                    let private = vma.is_private();
                    ranges.push((
                        vma.start + from * PAGE_SIZE,
                        vma.start + to * PAGE_SIZE,
                        private,
                        vma.prot,
                    ));
                }
            }
            for (start, end, private, prot) in ranges {
                if what == Forget::Everything || !private {
                    if prot.is_empty() {
                        self.drop_stashed(state, start, end, deferred);
                    } else {
                        self.unmap_pages(state, start, end, deferred);
                    }
                } else if !prot.is_empty() {
                    let mut originals = Vec::new();
                    self.space.for_each(start, end - start, &mut |va, frame, _| {
                        if frames::is_host_file(frame) {
                            originals.push(va);
                        }
                    });
                    deferred.sync |= !originals.is_empty();
                    for va in originals {
                        self.space.unmap(va, PAGE_SIZE, &mut |_, _| {});
                    }
                }
            }
            Ok::<(), Errno>(())
        });
    }
}
