//! Who maps an object, so that pages which stop being the object's can be taken out of address spaces: when a file
//! is truncated, a hole is punched, or a page of the host's is replaced by a written copy.
//!
//! The object first changes what [`Mappable::page`](super::Mappable::page) and `ready` say, then calls
//! [`Mappers::forget`], without any lock held: it goes in steps. A fault that fetched an old page meanwhile drops
//! it: forgetting counts up [`State::forgotten`](super::State).

use super::steps::{SHORT, Turn};
use super::vma::{Backing, Vma};
use super::{Deferred, Mm, PAGE_SIZE, State, frames};
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
    /// Length at which it is swept.
    sweep_at: u32,
    /// How many have ended since it was.
    ended: u32,
}

impl Spaces {
    /// Keeps each that lives, once.
    fn sweep(&mut self) {
        self.all.retain(|mm| mm.strong_count() != 0);
        self.all.sort_unstable_by_key(Weak::as_ptr);
        self.all.dedup_by(|one, other| Weak::ptr_eq(one, other));
        let room = (self.all.len() * 2).max(16);
        self.all.shrink_to(room);
        self.sweep_at = u32::try_from(room).unwrap_or(u32::MAX);
        self.ended = 0;
    }
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
        if spaces.all.len() >= spaces.sweep_at as usize {
            spaces.sweep();
        }
        spaces.all.push(mm.clone());
    }

    /// One of the address spaces has ended: what [`Mappable::unmapped`](super::Mappable::unmapped) calls. What is noted of
    /// one is as large as it was, so no more than half of the notes are about such.
    pub fn ended(&self) {
        let mut spaces = self.0.lock();
        spaces.ended = spaces.ended.saturating_add(1);
        if spaces.ended as usize > spaces.all.len() / 2 {
            spaces.sweep();
        }
    }

    /// Takes pages `first..end` of the object with this identity out of every address space.
    pub fn forget(&self, identity: usize, first: u64, end: u64, what: Forget) {
        let spaces: Vec<Arc<Mm>> = self.0.lock().all.iter().filter_map(Weak::upgrade).collect();
        for mm in spaces {
            mm.forget_object(identity, first, end, what);
        }
    }
}

/// A part of an area of an object, of which something is to be forgotten.
#[derive(Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
    private: bool,
    hidden: bool,
}

impl Mm {
    /// In steps where it can be much; the areas stay as they are meanwhile.
    fn forget_object(&self, identity: usize, first: u64, end: u64, what: Forget) {
        let mut deferred = Deferred::default();
        let mut state = self.lock_areas();
        state.forgotten += 1;
        self.note_peak(&mut state);
        let parts = parts_of(&state, identity, (first, end));
        let is_short = parts.iter().map(|part| part.end - part.start).sum::<u64>() <= SHORT;
        if is_short {
            parts.iter().for_each(|part| self.forget_part(&mut state, *part, what, &mut deferred));
        } else {
            state.turn = Turn::Edit;
        }
        drop(state);
        self.finish(deferred);
        if !is_short {
            let _turn = self.take_over_turn();
            parts.iter().for_each(|part| self.forget_in_steps(*part, what));
        }
    }

    fn forget_in_steps(&self, part: Part, what: Forget) {
        let mut at = part.start;
        while at < part.end {
            let mut deferred = Deferred::default();
            let mut state = self.state.lock();
            let end = self.step_end(&state, at, part.end);
            self.forget_part(&mut state, Part { start: at, end, ..part }, what, &mut deferred);
            drop(state);
            self.finish(deferred);
            at = end;
            self.give_way();
        }
    }

    fn forget_part(&self, state: &mut State, part: Part, what: Forget, deferred: &mut Deferred) {
        let Part { start, end, private, hidden } = part;
        if what == Forget::Everything || !private {
            if hidden {
                self.drop_stashed(state, start, end, deferred);
            } else {
                self.unmap_pages(state, start, end, deferred);
            }
        } else if !hidden {
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
}

/// Where pages of the object may be.
fn parts_of(state: &State, identity: usize, (first, end): (u64, u64)) -> Vec<Part> {
    let part = |vma: &Vma| {
        let Backing::Object { object, offset } = &vma.backing else { return None };
        let (base, pages) = (offset / PAGE_SIZE, vma.len() / PAGE_SIZE);
        let [from, to] = [first, end].map(|page| page.saturating_sub(base).min(pages));
        (object.identity() == identity && from < to).then(|| Part {
            start: vma.start + from * PAGE_SIZE,
            end: vma.start + to * PAGE_SIZE,
            private: vma.is_private(),
            hidden: vma.prot.is_empty(),
        })
    };
    state.vmas.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use crate::mm::testing::FakePlatform;
    use crate::mm::{Layout, MapRequest, Mappable, Mm, SharedMemory, VmFlags};
    use crate::platform::{Platform, Prot};
    use std::sync::Arc;

    fn space(platform: &Arc<dyn Platform>) -> Arc<Mm> {
        let mm = Mm::new(platform).unwrap();
        mm.set_layout(Layout { mmap_base: 0x7f00_0000_0000, ..Layout::default() });
        mm
    }

    fn map(mm: &Mm, memory: &Arc<SharedMemory>) -> u64 {
        let object = Some((memory.clone() as Arc<dyn Mappable>, 0));
        mm.mmap(MapRequest { object, vm: VmFlags::SHARED, ..MapRequest::anonymous(4096, Prot::READ) })
            .unwrap()
    }

    fn noted(memory: &SharedMemory) -> usize {
        memory.mappers.0.lock().all.len()
    }

    #[test]
    fn who_has_ended_is_not_kept() {
        let platform = FakePlatform::create(true);
        let memory = Arc::new(SharedMemory::new(4096, b"memory"));
        let lives = space(&platform);
        map(&lives, &memory);
        let others: Vec<_> = (0..100).map(|_| space(&platform)).collect();
        others.iter().for_each(|mm| _ = map(mm, &memory));
        assert_eq!(noted(&memory), 101);
        drop(others);
        assert!(noted(&memory) <= 2, "{} are noted", noted(&memory));
    }

    #[test]
    fn two_who_map_in_turns_are_noted_once() {
        let platform = FakePlatform::create(true);
        let memory = Arc::new(SharedMemory::new(4096, b"memory"));
        let spaces = [space(&platform), space(&platform)];
        for round in 0..1000_usize {
            let mm = &spaces[round % 2];
            let at = map(mm, &memory);
            mm.munmap(at, 4096).unwrap();
        }
        assert!(noted(&memory) <= 16, "{} are noted", noted(&memory));
    }
}
