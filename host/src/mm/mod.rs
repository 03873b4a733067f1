//! Address spaces: areas, frames, faults, and the kernel's access to user memory.
//!
//! | module | what |
//! |---|---|
//! | [`frames`] | page frames of the arena: allocation, reference counts, bytes |
//! | [`vma`] | the interval map of areas |
//! | [`mappable`] | what files offer to be mapped |
//! | [`filecache`] | pages of host files that are mapped |
//! | `mappers` | taking pages out again that are no longer an object's |
//! | `fault` | demand paging, copy-on-write, stack growth |
//! | `sequences` | how many pages a fault takes along |
//! | `map`, `protect`, `remap`, `brk`, `advise` | the system calls' work |
//! | `fork`, `dump` | copying an address space; what a core dump takes of it |
//! | `steps` | edits of much, a step at a time |
//! | `tables` | the platform's tables, and what was found there last |
//! | [`usage`] | what is in memory, and whose |
//! | `usermem`, [`io`] | copies between the kernel and programs |
//! | `page` | frames that are held one by one |
//! | `raw` | the only unsafe code: bytes of frames |
//!
//! # Where a page is
//! What is mapped at an address is recorded once, in the platform's tables ([`AddressSpace::lookup`]). A page that
//! is not accessible at present but must not be forgotten (private pages under `PROT_NONE`, which the tables cannot
//! express; pages of a forked child on a platform where mapping is dear) is in the *stash*. Everything else can be
//! had again from the area's backing. Tables and stash own one reference per page.
//!
//! # Copy-on-write
//! A private page is writable in the tables only while its frame has no other user. Fork takes write permission
//! from both sides; a write fault on a frame with one user left gives it back, otherwise copies.
//!
//! # Locks
//! `Mm::state` > locks inside a [`Mappable`] (`ready` only; `page` is called without) > the frame pool. No lock of
//! this module is held while parking or in a host call.
//!
//! # Order for reuse
//! Edit tables and areas under `state` -> unlock -> [`AddressSpace::sync`] -> drop frames and objects. [`Deferred`]
//! carries what has to wait. Kernel copies run under `state`, so that no page can leave the tables during one.

mod advise;
mod brk;
mod dump;
mod fault;
pub mod filecache;
mod fork;
pub mod frames;
mod futexkey;
pub mod io;
mod layout;
mod map;
pub mod mappable;
mod mappers;
mod page;
mod poke;
mod protect;
#[expect(unsafe_code, reason = "bytes of page frames, which are shared with running programs")]
mod raw;
mod remap;
mod sequences;
mod steps;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod usage;
mod usermem;
pub mod vma;

pub use advise::{Advice, Locking};
pub use dump::DumpArea;
pub use fault::FaultSignal;
pub use frames::put_ref;
pub use futexkey::FutexKey;
pub use io::{IoDst, IoSrc, Iovec, Pinned};
pub use layout::{Layout, MIN_ADDRESS, MmLimits};
pub use map::{MAX_AREAS, MapFlags, MapRequest};
pub use mappable::{MapInfo, Mappable, SharedMemory};
pub use mappers::{Forget, Mappers};
pub use raw::fixup;
pub use tables::Alarm;
pub use usermem::{Pod, Words};
pub use vma::{Backing, VmFlags, Vma};

use crate::abi::Result;
use crate::cred::userns::UserNs;
use crate::platform::{AddressSpace, Areas, Capabilities, Frame, Platform, Prot};
use crate::sync::{Lock, Pause, Rank};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use tables::Tables;
use vma::VmaMap;

/// What core dumps take unless they are told otherwise: private and shared memory that is no file's, and the first pages of
/// programs' files (`MMF_DUMP_FILTER_DEFAULT`).
const DUMP_FILTER: u32 = 0x33;
/// Bytes per page.
pub const PAGE_SIZE: u64 = 4096;

/// The address space of a program.
pub struct Mm {
    /// What objects keep of it ([`Mappable::mapped`]).
    this: Weak<Mm>,
    platform: Arc<dyn Platform>,
    space: Tables,
    caps: Capabilities,
    limits: MmLimits,
    state: Lock<State>,
    claim: Lock<Option<Claim>>,
    /// Whether the program's own user may look at it (prctl(2), PR_SET_DUMPABLE).
    dumpable: AtomicBool,
    /// See [`dump_filter`](Self::dump_filter).
    dump_filter: AtomicU32,
    /// The user namespace that its program began in, if not the first.
    user_ns: OnceLock<UserNs>,
    /// Tasks that run here.
    users: AtomicUsize,
    /// What long work here asks.
    pause: OnceLock<Arc<dyn Pause>>,
}

/// What an address space keeps alive without knowing what it is; a fork has it, too.
pub type Claim = Arc<dyn Any + Send + Sync>;

/// What `Mm::state` protects, beside the platform's tables themselves.
#[derive(Default)]
struct State {
    vmas: VmaMap,
    /// Pages that are not in the tables but must not be forgotten. One reference each.
    stash: BTreeMap<u64, Frame>,
    layout: Layout,
    /// Current program break.
    brk: u64,
    /// Bytes mapped (RLIMIT_AS), of these private writable (RLIMIT_DATA), and locked.
    total: u64,
    data: u64,
    locked: u64,
    /// The most of `total` so far, and of pages in memory, as of the last time that either fell.
    peak_total: u64,
    peak_pages: u64,
    /// mlockall(MCL_FUTURE).
    lock_future: bool,
    /// Counts calls of `forget_object`: pages fetched before one may be out of date.
    forgotten: u64,
    hole: map::HoleHint,
    turn: steps::Turn,
    sequences: sequences::Sequences,
}

/// What must wait for [`AddressSpace::sync`] before it is dropped.
#[derive(Default)]
struct Deferred {
    frames: Vec<Frame>,
    areas: Vec<Vma>,
    /// Whether translations were removed or lowered.
    sync: bool,
}

impl Areas for Mm {
    fn is_private_code(&self, va: u64) -> bool {
        let state = self.state.lock();
        state.vmas.find(va).is_some_and(|vma| {
            vma.is_private() && vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE)
        })
    }
}

impl Mm {
    /// An empty address space.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(platform: &Arc<dyn Platform>) -> Result<Arc<Mm>> {
        let space = platform.new_space()?;
        let mm = Arc::new_cyclic(|this| Mm {
            this: this.clone(),
            platform: platform.clone(),
            space: Tables::new(space),
            caps: platform.capabilities(),
            limits: MmLimits::default(),
            state: Lock::new(Rank::MmState, State::default()),
            claim: Lock::new(Rank::MmClaim, None),
            dumpable: AtomicBool::new(true),
            dump_filter: AtomicU32::new(DUMP_FILTER),
            user_ns: OnceLock::new(),
            users: AtomicUsize::new(0),
            pause: OnceLock::new(),
        });
        mm.space.space().set_areas(mm.this.clone());
        Ok(mm)
    }

    /// Whether more than one task runs in it. Who only looks at it does not count.
    pub fn is_shared(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 1
    }

    /// Has long work for the programs that run here give way; only the first word counts.
    pub fn pause_by(&self, pause: Arc<dyn Pause>) {
        let _already = self.pause.set(pause);
    }

    /// # Errors
    /// EINTR when the program is to end.
    fn pause(&self) -> Result<()> {
        self.pause.get().map_or(Ok(()), |pause| pause.pause())
    }

    /// Keeps `claim` as long as it lives: that on the program's file (ETXTBSY).
    pub fn keep(&self, claim: Claim) {
        *self.claim.lock() = Some(claim);
    }

    /// The user namespace that its program began in.
    pub fn user_ns(&self) -> &UserNs {
        self.user_ns.get().unwrap_or(&UserNs::FIRST)
    }

    /// Says that; to be said once, before the program runs.
    pub fn began_in(&self, user_ns: &UserNs) {
        if !user_ns.is_first() {
            let _first = self.user_ns.set(user_ns.clone());
        }
    }

    /// Whether the program's own user may look at it.
    pub fn is_dumpable(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// Says whether the program's own user may look at it.
    pub fn set_dumpable(&self, dumpable: bool) {
        self.dumpable.store(dumpable, Ordering::Relaxed);
    }

    /// What the platform runs.
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        self.space.space()
    }

    /// Names the process that uses it.
    pub fn set_owner(&self, pid: i32) {
        self.state.lock().vmas.owner = pid;
    }

    /// Resource limits that concern memory; the kernel sets them on exec and prlimit.
    pub fn limits(&self) -> &MmLimits {
        &self.limits
    }

    /// One past the highest address a program can map.
    pub fn task_size(&self) -> u64 {
        self.caps.task_size
    }

    /// Runs `edit` under the lock, then lets go of what it took out, in the order that makes reuse safe.
    fn edit<T>(&self, edit: impl FnOnce(&mut State, &mut Deferred) -> Result<T>) -> Result<T> {
        let mut deferred = Deferred::default();
        let result = edit(&mut self.state.lock(), &mut deferred);
        self.finish(deferred);
        result
    }

    fn finish(&self, deferred: Deferred) {
        if deferred.sync {
            self.space.sync();
        }
        frames::put_many(&deferred.frames);
    }

    /// Takes all pages in the range out of tables and stash.
    fn unmap_pages(&self, state: &mut State, start: u64, end: u64, deferred: &mut Deferred) {
        self.note_peak(state);
        for (start, end) in self.user_pieces(start, end) {
            let frames = &mut deferred.frames;
            let before = frames.len();
            self.space.unmap(start, end - start, &mut |_, frame| frames.push(frame));
            deferred.sync |= frames.len() != before;
        }
        if !state.stash.is_empty() {
            while let Some((&at, &frame)) = state.stash.range(start..end).next() {
                state.stash.remove(&at);
                deferred.frames.push(frame);
            }
        }
    }

    /// Pages in memory.
    fn resident_pages(&self, state: &State) -> u64 {
        self.space.pages() + state.stash.len() as u64
    }

    /// To be called before pages go.
    fn note_peak(&self, state: &mut State) {
        state.peak_pages = state.peak_pages.max(self.resident_pages(state));
    }

    /// Bytes that are in memory (`VmRSS`).
    pub fn resident(&self) -> u64 {
        self.resident_pages(&self.state.lock()) * PAGE_SIZE
    }

    /// Has `alarm`, the same whoever says it, called once when more than `at` pages are in memory; with locks held.
    pub fn watch_pages(&self, at: u64, alarm: &Alarm) {
        let state = self.state.lock();
        self.space.watch(at.saturating_sub(state.stash.len() as u64), alarm);
    }

    /// The most that has been in memory (`VmHWM`).
    pub fn peak_resident(&self) -> u64 {
        let state = self.state.lock();
        self.resident_pages(&state).max(state.peak_pages) * PAGE_SIZE
    }

    /// Bytes mapped (`VmSize`).
    pub fn total(&self) -> u64 {
        self.state.lock().total
    }

    /// The most that has been mapped (`VmPeak`).
    pub fn peak_total(&self) -> u64 {
        let state = self.state.lock();
        state.total.max(state.peak_total)
    }

    /// Bytes locked (`VmLck`).
    pub fn locked(&self) -> u64 {
        self.state.lock().locked
    }

    /// The areas, for `/proc/PID/maps`.
    pub fn maps(&self) -> Vec<Vma> {
        self.state.lock().vmas.iter().cloned().collect()
    }

    /// Whether anything is mapped at `addr` or above.
    pub fn is_mapped_above(&self, addr: u64) -> bool {
        self.state.lock().vmas.find_from(crate::arch::untagged(addr)).is_some()
    }

    /// Where the loader put things, for `/proc/PID/{stat,maps,cmdline,environ}`.
    pub fn layout(&self) -> Layout {
        self.state.lock().layout.clone()
    }

    /// Whether an object, told by its address, is what is mapped at `addr`.
    pub fn maps_object_at(&self, addr: u64, object: *const ()) -> bool {
        let state = self.state.lock();
        let area = state.vmas.find(addr);
        area.is_some_and(|area| match &area.backing {
            Backing::Object { object: own, .. } => std::ptr::addr_eq(Arc::as_ptr(own), object),
            Backing::Anon => false,
        })
    }

    /// Where the vDSO's image starts.
    pub fn vdso(&self) -> u64 {
        self.state.lock().layout.vdso
    }

    /// Sets where things are. The loader's, once; and prctl(PR_SET_MM).
    pub fn set_layout(&self, layout: Layout) {
        let mut state = self.state.lock();
        state.brk = layout.brk_start;
        state.layout = layout;
    }

    /// The current program break.
    pub fn program_break(&self) -> u64 {
        self.state.lock().brk
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        let mut deferred = Deferred::default();
        let mut state = std::mem::take(self.state.get_mut());
        for vma in state.vmas.iter() {
            // What nobody could touch has no pages; such areas can be huge.
            if !vma.prot.is_empty() {
                for (start, end) in self.user_pieces(vma.start, vma.end) {
                    let frames = &mut deferred.frames;
                    // Nobody asks any more how many there are.
                    self.space.space().unmap(start, end - start, &mut |_, frame| frames.push(frame));
                }
            }
        }
        deferred.frames.extend(std::mem::take(&mut state.stash).into_values());
        deferred.sync = true;
        self.finish(deferred);
        let objects = state.vmas.iter().filter_map(|vma| match &vma.backing {
            Backing::Object { object, .. } => Some(object),
            Backing::Anon => None,
        });
        // Segments of a file lie side by side.
        let mut last = None;
        for object in objects {
            let identity = object.identity();
            if last.replace(identity) != Some(identity) {
                object.unmapped();
            }
        }
    }
}

/// The rights that the hardware gets: it cannot withhold reading from what may be written or executed.
fn hardware(prot: Prot) -> Prot {
    if prot.is_empty() { prot } else { prot | Prot::READ }
}

/// Rounds up to whole pages; `None` past the end of the address space.
fn page_up(value: u64) -> Option<u64> {
    Some(value.checked_add(PAGE_SIZE - 1)? & !(PAGE_SIZE - 1))
}

fn page_down(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}
