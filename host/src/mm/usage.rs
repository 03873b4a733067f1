//! How much of an address space is in memory, of what kind, and shared with how many others: smaps, RssAnon and the like.
//!
//! Nothing of this is counted while programs run; it is found by walking the tables when somebody asks. Only the sum
//! ([`Mm::resident`]) and its peak are kept (`tables`, `State::peak`), because the end of every process asks for them.
//!
//! # How it is known
//! * *Kind*: a page that its area's object would give again is the object's (a file's, or shared memory's); all others are
//!   the program's own. The page of zeroes that unwritten memory reads from counts as nothing, as in Linux.
//! * *Users*: a frame's reference count, less the object's own reference. Pages of the host's page cache have no count;
//!   who maps them is found by looking through all spaces ([`FileUsers`]).
//! * *Dirty*: the program's own pages always are, and those of shared memory, which have nowhere to be written back to. Pages
//!   of files are while they are writable in a shared mapping: they become so by the first write.

use super::vma::{Backing, Vma};
use super::{Mappable, Mm, PAGE_SIZE, State, frames};
use crate::platform::{Frame, Prot};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fraction bits of proportional shares, as in Linux.
const SHARE_SHIFT: u32 = 12;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Anon,
    File,
    Shmem,
}

/// Memory in use, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// The program's own: unnamed memory and private copies of files' pages.
    pub anon: u64,
    /// Pages of files.
    pub file: u64,
    /// Pages of memory that lives in no file: `MAP_SHARED | MAP_ANONYMOUS`, tmpfs, memfd.
    pub shmem: u64,
    /// With more than one user: as in the file it came from, or not.
    pub shared_clean: u64,
    /// With more than one user, changed.
    pub shared_dirty: u64,
    /// With this user alone, as in the file.
    pub private_clean: u64,
    /// With this user alone, changed.
    pub private_dirty: u64,
    /// Each page divided by its users, in units of 1/4096 byte; of these, pages that are dirty, and those of each kind.
    shares: [u64; 5],
}

/// Indices of [`Resident::shares`].
const ALL: usize = 0;
const DIRTY: usize = 1;
const ANON: usize = 2;
const FILE: usize = 3;
const SHMEM: usize = 4;

impl Resident {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.anon + self.file + self.shmem
    }

    /// The proportional share: each page divided by the number of its users.
    pub fn share(&self) -> u64 {
        self.shares[ALL] >> SHARE_SHIFT
    }

    /// The share in dirty pages.
    pub fn dirty_share(&self) -> u64 {
        self.shares[DIRTY] >> SHARE_SHIFT
    }

    /// The shares in `anon`, `file` and `shmem`.
    pub fn shares_by_kind(&self) -> [u64; 3] {
        [ANON, FILE, SHMEM].map(|kind| self.shares[kind] >> SHARE_SHIFT)
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Resident) -> Resident {
        let mut shares = self.shares;
        shares.iter_mut().zip(other.shares).for_each(|(share, more)| *share += more);
        Resident {
            anon: self.anon + other.anon,
            file: self.file + other.file,
            shmem: self.shmem + other.shmem,
            shared_clean: self.shared_clean + other.shared_clean,
            shared_dirty: self.shared_dirty + other.shared_dirty,
            private_clean: self.private_clean + other.private_clean,
            private_dirty: self.private_dirty + other.private_dirty,
            shares,
        }
    }

    /// Counts one page with so many users.
    fn add(&mut self, kind: Kind, dirty: bool, users: u32) {
        let (sum, share) = match kind {
            Kind::Anon => (&mut self.anon, ANON),
            Kind::File => (&mut self.file, FILE),
            Kind::Shmem => (&mut self.shmem, SHMEM),
        };
        *sum += PAGE_SIZE;
        *match (users > 1, dirty) {
            (false, false) => &mut self.private_clean,
            (false, true) => &mut self.private_dirty,
            (true, false) => &mut self.shared_clean,
            (true, true) => &mut self.shared_dirty,
        } += PAGE_SIZE;
        let part = (PAGE_SIZE << SHARE_SHIFT) / u64::from(users.max(1));
        self.shares[ALL] += part;
        self.shares[share] += part;
        if dirty {
            self.shares[DIRTY] += part;
        }
    }
}

/// How many mappings each page of the host's page cache has, over some address spaces.
#[derive(Default)]
pub struct FileUsers(BTreeMap<Frame, u32>);

impl FileUsers {
    /// Over these, each of which counts once however often it comes.
    pub fn of(spaces: impl IntoIterator<Item = Arc<Mm>>) -> Self {
        let distinct: BTreeMap<*const Mm, Arc<Mm>> =
            spaces.into_iter().map(|mm| (Arc::as_ptr(&mm), mm)).collect();
        let mut users = FileUsers::default();
        // Where the platform maps no such pages there are none to look for.
        for mm in distinct.values().filter(|mm| mm.caps.maps_host_files) {
            mm.each_resident(&mut |_, _, frame, _| {
                if frames::is_host_file(frame) {
                    *users.0.entry(frame).or_default() += 1;
                }
            });
        }
        users
    }

    /// How many users a page has. Its object, where it holds it too (`original`), is none of them.
    fn users(&self, frame: Frame, original: bool) -> u32 {
        match frames::references(frame) {
            Some(count) => count.saturating_sub(u32::from(original)).max(1),
            None => self.0.get(&frame).copied().unwrap_or(1),
        }
    }
}

impl Mm {
    /// Calls `each` for every page in memory, with its area, its address, and its rights (none for hidden ones).
    fn each_resident(&self, each: &mut dyn FnMut(&Vma, u64, Frame, Prot)) {
        self.each_step(&mut |state, vma, start, end| self.each_resident_of(state, vma, (start, end), each));
    }

    /// The same for what lies in a range of one area.
    pub(super) fn each_resident_of(
        &self,
        state: &State,
        vma: &Vma,
        (from, to): (u64, u64),
        each: &mut dyn FnMut(&Vma, u64, Frame, Prot),
    ) {
        // What nobody may touch is in the stash only, and can be huge.
        if !vma.prot.is_empty() {
            for (start, end) in self.user_pieces(from, to) {
                self.space.for_each(start, end - start, &mut |va, frame, prot| {
                    if !frames::is_zero(frame) {
                        each(vma, va, frame, prot);
                    }
                });
            }
        }
        for (&va, &frame) in state.stash.range(from..to) {
            each(vma, va, frame, Prot::empty());
        }
    }

    /// The areas, each with what of it is in memory.
    pub fn resident_areas(&self, files: &FileUsers) -> Vec<(Vma, Resident)> {
        let mut areas: Vec<(Vma, Resident)> = Vec::new();
        self.each_step(&mut |state, vma, start, end| {
            let mut sum = Resident::default();
            self.each_resident_of(state, vma, (start, end), &mut |vma, va, frame, prot| {
                let (kind, original) = kind_of(vma, va, frame);
                let dirty = kind != Kind::File || !vma.is_private() && prot.contains(Prot::WRITE);
                sum.add(kind, dirty, files.users(frame, original));
            });
            match areas.last_mut() {
                // The rest of one that took several steps.
                Some((last, all)) if last.start == vma.start => (*last, *all) = (vma.clone(), all.plus(sum)),
                _ => areas.push((vma.clone(), sum)),
            }
        });
        areas
    }

    /// What is in memory, each page divided by its users: the program's own, files', shared.
    pub fn resident_shares(&self) -> [u64; 3] {
        // Of files nobody asks here who else has them.
        let (mut sum, files) = (Resident::default(), FileUsers::default());
        self.each_resident(&mut |vma, va, frame, _| {
            let (kind, original) = kind_of(vma, va, frame);
            sum.add(kind, true, files.users(frame, original));
        });
        sum.shares_by_kind()
    }

    /// What is in memory, by kind: shares and users are not worked out.
    pub fn resident_by_kind(&self) -> Resident {
        let mut sum = Resident::default();
        self.each_resident(&mut |vma, va, frame, _| match kind_of(vma, va, frame).0 {
            Kind::Anon => sum.anon += PAGE_SIZE,
            Kind::File => sum.file += PAGE_SIZE,
            Kind::Shmem => sum.shmem += PAGE_SIZE,
        });
        sum
    }
}

/// What the page at `va` holds, and whether its object holds a reference to it, too.
pub(super) fn kind_of(vma: &Vma, va: u64, frame: Frame) -> (Kind, bool) {
    let Backing::Object { object, .. } = &vma.backing else { return (Kind::Anon, false) };
    let kind = if object.is_memory() { Kind::Shmem } else { Kind::File };
    if frames::is_host_file(frame) {
        return (kind, false);
    }
    if gives(&**object, vma.object_offset(va) / PAGE_SIZE, frame) {
        (kind, true)
    } else if vma.is_private() {
        (Kind::Anon, false)
    } else {
        // The object has let go of it a moment ago and is about to take it out of here.
        (kind, false)
    }
}

/// Whether the object has this frame as its page.
fn gives(object: &dyn Mappable, index: u64, frame: Frame) -> bool {
    let mut one = [None];
    object.ready(index, &mut one);
    one[0].is_some_and(|own: Frame| {
        frames::put_ref(own);
        own == frame
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, PAGE_SIZE, Resident};

    #[test]
    fn pages_are_divided_by_their_users() {
        let mut sum = Resident::default();
        sum.add(Kind::Anon, true, 1);
        sum.add(Kind::Anon, true, 3);
        sum.add(Kind::File, false, 2);
        sum.add(Kind::Shmem, true, 0);
        assert_eq!((sum.anon, sum.file, sum.shmem), (2 * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE));
        assert_eq!((sum.private_dirty, sum.shared_dirty), (2 * PAGE_SIZE, PAGE_SIZE));
        assert_eq!((sum.private_clean, sum.shared_clean), (0, PAGE_SIZE));
        assert_eq!(sum.share(), 2 * PAGE_SIZE + PAGE_SIZE / 3 + PAGE_SIZE / 2);
        assert_eq!(sum.shares_by_kind(), [PAGE_SIZE + PAGE_SIZE / 3, PAGE_SIZE / 2, PAGE_SIZE]);
        assert_eq!(sum.dirty_share(), 2 * PAGE_SIZE + PAGE_SIZE / 3);
        let twice = sum.plus(sum);
        assert_eq!((twice.total(), twice.shared_clean), (2 * sum.total(), 2 * sum.shared_clean));
    }

    #[test]
    fn thirds_do_not_get_lost() {
        let mut sum = Resident::default();
        (0..3).for_each(|_| sum.add(Kind::Anon, true, 3));
        // Rounded down once, not three times.
        assert_eq!(sum.share(), PAGE_SIZE - 1);
        assert_eq!(sum.total(), 3 * PAGE_SIZE);
    }
}
