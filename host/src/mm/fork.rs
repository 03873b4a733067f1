//! Copying an address space for fork: frames are shared, both sides lose write permission to private ones.
//!
//! Pages that their object can give again (host files, shared memory) are left for the child to fault in, as Linux
//! does. On a platform where mapping is dear the child gets all others through the stash, in runs, as it touches
//! them: most children exec soon.

use super::steps::Turn;
use super::tables::Tables;
use super::vma::{VmFlags, Vma};
use super::{Backing, Deferred, Mm, PAGE_SIZE, State, frames, hardware};
use crate::abi::Result;
use crate::platform::{Frame, Prot};
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::Arc;

/// Pages mapped into the child per call.
const BATCH: usize = 64;

impl Mm {
    /// A copy of this address space.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn fork(&self) -> Result<Arc<Mm>> {
        let space = self.platform.new_space()?;
        let child = Arc::new_cyclic(|this| Mm {
            this: this.clone(),
            platform: self.platform.clone(),
            space: Tables::new(space),
            caps: self.caps,
            limits: super::MmLimits::default(),
            state: Lock::new(Rank::MmState, State::default()),
            pause: self.pause.clone(),
            claim: Lock::new(Rank::MmClaim, self.claim.lock().clone()),
            dumpable: AtomicBool::new(self.is_dumpable()),
            dump_filter: AtomicU32::new(self.dump_filter()),
            user_ns: self.user_ns.clone(),
            users: AtomicUsize::new(0),
        });
        child.space.space().set_areas(child.this.clone());
        child.limits.copy_from(&self.limits);
        // Lowered rights must hold everywhere before anybody sees the child. If it fails half-way, what the child has
        // got goes with it.
        let begin = |state: &mut State| {
            // Nobody holds a child's lock and waits for its parent's.
            let copy = &mut *child.state.lock_nested();
            // The parent is who makes the areas.
            copy.vmas.owner = state.vmas.owner;
            copy.layout = state.layout.clone();
            copy.brk = state.brk;
            Ok(())
        };
        let copied = self.in_steps((0, self.caps.task_size), Turn::Fork, begin, |state, deferred, at, to| {
            self.share(state, &child, (at, to), deferred)
        });
        if copied.is_err() {
            child.empty();
        }
        copied.map(|()| child)
    }

    /// Gives the child the areas that begin in a range, and the pages there.
    fn share(
        &self,
        state: &State,
        child: &Arc<Mm>,
        (at, to): (u64, u64),
        deferred: &mut Deferred,
    ) -> Result<()> {
        let copy = &mut *child.state.lock_nested();
        let inherited = |vma: &&Vma| !vma.flags.contains(VmFlags::DONT_FORK);
        for vma in state.vmas.overlapping(at, to).filter(inherited) {
            if vma.start >= at {
                let inherited = Vma { flags: vma.flags - VmFlags::LOCKED, ..vma.clone() };
                super::map::account(copy, &inherited, true);
                if let Backing::Object { object, .. } = &inherited.backing {
                    object.mapped(&child.this);
                }
                copy.vmas.insert(inherited);
            }
            if vma.is_private() && !vma.flags.contains(VmFlags::WIPE_ON_FORK) {
                let piece = (vma.start.max(at), vma.end.min(to));
                deferred.sync |= self.share_pages(&child.space, copy, vma, piece)?;
            }
        }
        for (&va, &frame) in state.stash.range(at..to) {
            let shares = |vma: &Vma| {
                vma.is_private() && !vma.flags.intersects(VmFlags::DONT_FORK | VmFlags::WIPE_ON_FORK)
            };
            if state.vmas.find(va).is_some_and(shares) {
                frames::get_ref(frame);
                copy.stash.insert(va, frame);
            }
        }
        Ok(())
    }

    /// Gives the child the pages of a private area; true if this space lost rights by it.
    fn share_pages(
        &self,
        space: &Tables,
        child: &mut State,
        vma: &Vma,
        (start, end): (u64, u64),
    ) -> Result<bool> {
        if vma.prot.is_empty() {
            return Ok(false);
        }
        let refault = matches!(vma.backing, Backing::Object { .. });
        let prot = hardware(vma.prot) - Prot::WRITE;
        let mut lowered = false;
        if !self.caps.cheap_map {
            self.space.for_each(start, end - start, &mut |va, frame, now| {
                let again = frames::is_zero(frame) || refault && frames::is_host_file(frame);
                if !again {
                    frames::get_ref(frame);
                    child.stash.insert(va, frame);
                    lowered |= now.contains(Prot::WRITE);
                }
            });
        } else {
            let mut run = [Frame(0); BATCH];
            let (mut first, mut len) = (0, 0);
            let mut result = Ok(());
            let mut flush = |start: u64, frames: &[Frame]| {
                if !frames.is_empty() {
                    if result.is_ok() {
                        result = space.map(start, frames, prot);
                    }
                    if result.is_err() {
                        frames::put_many(frames);
                    }
                }
            };
            self.space.for_each(start, end - start, &mut |va, frame, now| {
                if refault && frames::is_host_file(frame) {
                    return;
                }
                if len == BATCH || va != first + len as u64 * PAGE_SIZE {
                    flush(first, &run[..len]);
                    (first, len) = (va, 0);
                }
                frames::get_ref(frame);
                run[len] = frame;
                len += 1;
                lowered |= now.contains(Prot::WRITE);
            });
            flush(first, &run[..len]);
            result?;
        }
        if lowered {
            self.space.protect(start, end - start, prot);
        }
        Ok(lowered)
    }
}
