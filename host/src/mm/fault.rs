//! Page faults: demand paging, copy-on-write, growing stacks.
//!
//! A fault is resolved in steps under the lock ([`Mm::step`]). A step that needs a page which its object does not
//! have ready returns, fetches it without the lock (that may be a host read) and starts over: whatever changed in
//! between is seen, and a fetched page that no longer fits is dropped.

mod anonymous;

use super::layout::STACK_GUARD;
use super::mappable::put_unused;
use super::raw;
use super::steps::Turn;
use super::vma::{Backing, VmFlags};
use super::{Mappable, Mm, PAGE_SIZE, State, frames, hardware, page_down};
use crate::abi::Errno;
use crate::platform::{Access, Frame, Prot};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages mapped around a fault in a file, aligned to their number (Linux's `fault_around_bytes`).
const AROUND: usize = 16;
/// Most pages that one fault in anonymous memory deals with.
const MAX_RUN: usize = 32;

/// A fault that the program must hear about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSignal {
    /// SIGSEGV, SIGBUS, or SIGKILL when memory ran out.
    pub signo: i32,
    /// `si_code`.
    pub code: i32,
}

impl FaultSignal {
    /// Nothing is mapped there.
    pub const UNMAPPED: Self = FaultSignal { signo: libc::SIGSEGV, code: 1 };
    /// The mapping does not allow the access.
    pub const DENIED: Self = FaultSignal { signo: libc::SIGSEGV, code: 2 };
    /// Beyond the end of the file, or the file could not be read.
    pub const BEYOND_END: Self = FaultSignal { signo: libc::SIGBUS, code: 2 };
    /// Memory ran out: as Linux's OOM killer.
    pub const OUT_OF_MEMORY: Self = FaultSignal { signo: libc::SIGKILL, code: 0x80 };

    fn from_errno(errno: Errno) -> Self {
        if errno == Errno::ENOMEM { Self::OUT_OF_MEMORY } else { Self::BEYOND_END }
    }
}

/// Why an access is not possible at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It never is.
    Signal(FaultSignal),
    /// A page has to be had from a host file, or others of the space have to be waited for.
    Waits,
}

impl From<FaultSignal> for Refused {
    fn from(signal: FaultSignal) -> Self {
        Refused::Signal(signal)
    }
}

/// A page got from an object without the lock.
struct Fetched {
    object: Arc<dyn Mappable>,
    index: u64,
    write: bool,
    /// [`State::forgotten`] before.
    forgotten: u64,
    frame: Frame,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        frames::put_ref(self.frame);
    }
}

enum Step {
    Done,
    /// Replaced this frame, so many times: done once no worker uses its translations.
    Replaced(Frame, usize),
    /// The same of different frames.
    Copied(Vec<Frame>),
    Again,
    Fetch {
        object: Arc<dyn Mappable>,
        index: u64,
        write: bool,
    },
}

/// What a step needs of the area, copied out of the map.
#[derive(Clone, Copy)]
struct Area {
    start: u64,
    end: u64,
    prot: Prot,
    flags: VmFlags,
}

impl Mm {
    /// Makes an access possible, or says which signal the program gets for it. Called without a lock held: it may wait for
    /// the host, and for others of the space.
    ///
    /// # Errors
    /// The signal.
    pub fn handle_fault(&self, addr: u64, access: Access) -> Result<(), FaultSignal> {
        self.resolve(addr, access, true).map_err(|refused| match refused {
            Refused::Signal(signal) => signal,
            // It is not refused who may wait.
            Refused::Waits => FaultSignal::BEYOND_END,
        })
    }

    /// The same without waiting for anybody.
    ///
    /// # Errors
    /// The signal, or that it would have to wait.
    pub(super) fn handle_fault_at_once(&self, addr: u64, access: Access) -> Result<(), Refused> {
        self.resolve(addr, access, false)
    }

    fn resolve(&self, addr: u64, access: Access, may_wait: bool) -> Result<(), Refused> {
        let page = page_down(addr);
        if !self.is_user_page(page) {
            return Err(FaultSignal::UNMAPPED.into());
        }
        let mut fetched = None;
        loop {
            let (step, forgotten) = {
                let mut state = self.state.lock();
                if state.turn == Turn::Fork {
                    if !may_wait {
                        return Err(Refused::Waits);
                    }
                    state = self.await_turn(state, |turn| turn != Turn::Fork);
                }
                if fetched.as_ref().is_some_and(|f: &Fetched| f.forgotten != state.forgotten) {
                    fetched = None;
                }
                (self.step(&mut state, page, access, &mut fetched)?, state.forgotten)
            };
            match step {
                Step::Done => return Ok(()),
                Step::Replaced(old, times) => {
                    self.space.sync();
                    for _ in 0..times {
                        frames::put_ref(old);
                    }
                    return Ok(());
                }
                Step::Copied(old) => {
                    self.space.sync();
                    frames::put_many(&old);
                    return Ok(());
                }
                Step::Again => {}
                Step::Fetch { object, .. } if !may_wait && !object.is_memory() => {
                    return Err(Refused::Waits);
                }
                Step::Fetch { object, index, write } => {
                    let frame = object.page(index, write).map_err(FaultSignal::from_errno)?;
                    fetched = Some(Fetched { object, index, write, forgotten, frame });
                }
            }
        }
    }

    fn step(
        &self,
        state: &mut State,
        page: u64,
        access: Access,
        fetched: &mut Option<Fetched>,
    ) -> Result<Step, FaultSignal> {
        let Some(vma) = state.vmas.find(page) else {
            self.grow_stack(state, page)?;
            return Ok(Step::Again);
        };
        let allowed = match access {
            Access::Read => !vma.prot.is_empty(),
            Access::Write => vma.prot.contains(Prot::WRITE),
            Access::Execute => vma.prot.contains(Prot::EXEC),
        };
        if !allowed {
            return Err(FaultSignal::DENIED);
        }
        let area = Area { start: vma.start, end: vma.end, prot: vma.prot, flags: vma.flags };
        if let Some((frame, prot)) = self.space.lookup(page) {
            return self.fault_present(state, area, page, frame, prot, access, fetched);
        }
        if !state.stash.is_empty() && state.stash.contains_key(&page) {
            return self.unstash(state, area, page);
        }
        match &vma.backing {
            Backing::Anon => self.fault_anon(state, area, page, access),
            Backing::Object { object, .. } => {
                let (object, index) = (object.clone(), vma.object_offset(page) / PAGE_SIZE);
                if access == Access::Write {
                    self.fault_object_write(area, page, object, index, fetched)
                } else {
                    self.fault_object_read(state, area, page, object, index, fetched)
                }
            }
        }
    }

    /// The page is there but does not allow the access: copy-on-write, or a change by somebody else that this
    /// worker had not seen yet.
    #[expect(clippy::too_many_arguments, reason = "one step's whole context; a struct would be used once")]
    fn fault_present(
        &self,
        state: &mut State,
        area: Area,
        page: u64,
        frame: Frame,
        prot: Prot,
        access: Access,
        fetched: &mut Option<Fetched>,
    ) -> Result<Step, FaultSignal> {
        if access != Access::Write {
            if !prot.contains(hardware(area.prot) - Prot::WRITE) {
                self.space.protect(
                    page,
                    PAGE_SIZE,
                    (hardware(area.prot) - Prot::WRITE) | (prot & Prot::WRITE),
                );
            }
            return Ok(Step::Done);
        }
        if prot.contains(Prot::WRITE) {
            return Ok(Step::Done);
        }
        let wanted = hardware(area.prot);
        if area.flags.contains(VmFlags::SHARED) {
            let Some(vma) = state.vmas.find(page) else { return Ok(Step::Again) };
            let Backing::Object { object, .. } = &vma.backing else { return Ok(Step::Again) };
            let index = vma.object_offset(page) / PAGE_SIZE;
            let Some(new) = take_fetched(fetched, object, index, true) else {
                return Ok(Step::Fetch { object: object.clone(), index, write: true });
            };
            self.space.replace(page, &[frame], &[new], wanted).map_err(FaultSignal::from_errno)?;
            return Ok(Step::Replaced(frame, 1));
        }
        if frames::is_sole(frame) {
            let (start, len) = self.sole_run(area, page);
            self.space.protect(start, len, wanted);
            return Ok(Step::Done);
        }
        if frames::is_zero(frame) {
            return self.fill_zeroes(state, area, page, frame);
        }
        self.copy(state, area, page, frame)
    }

    /// Brings pages back from the stash.
    fn unstash(&self, state: &mut State, area: Area, page: u64) -> Result<Step, FaultSignal> {
        let wanted = hardware(area.prot);
        let max = if self.caps.cheap_map { 1 } else { MAX_RUN };
        let mut run = [Frame(0); MAX_RUN];
        let (mut len, mut writable) = (0, false);
        let mut next = page;
        for (&va, &frame) in state.stash.range(page..area.end).take(max) {
            let sole = wanted.contains(Prot::WRITE) && frames::is_sole(frame);
            if va != next || (len != 0 && sole != writable) {
                break;
            }
            writable = sole;
            run[len] = frame;
            len += 1;
            next += PAGE_SIZE;
        }
        // The references move from the stash to the tables; on failure they stay.
        let prot = if writable { wanted } else { wanted - Prot::WRITE };
        self.space.map(page, &run[..len], prot).map_err(FaultSignal::from_errno)?;
        for i in 0..len as u64 {
            state.stash.remove(&(page + i * PAGE_SIZE));
        }
        // A write to a shared frame has its copy made by the next step.
        Ok(Step::Again)
    }

    fn fault_object_write(
        &self,
        area: Area,
        page: u64,
        object: Arc<dyn Mappable>,
        index: u64,
        fetched: &mut Option<Fetched>,
    ) -> Result<Step, FaultSignal> {
        let wanted = hardware(area.prot);
        let shared = area.flags.contains(VmFlags::SHARED);
        if shared {
            let Some(frame) = take_fetched(fetched, &object, index, true) else {
                return Ok(Step::Fetch { object, index, write: true });
            };
            self.map(page, &[frame], wanted)?;
            return Ok(Step::Done);
        }
        let source = take_fetched(fetched, &object, index, false).or_else(|| {
            let mut one = [None];
            object.ready(index, &mut one);
            one[0]
        });
        let Some(source) = source else { return Ok(Step::Fetch { object, index, write: false }) };
        let copied = frames::alloc_dirty().map_err(FaultSignal::from_errno).and_then(|new| {
            if raw::copy_page(new.0, source.0).is_err() {
                frames::put_ref(new);
                return Err(FaultSignal::BEYOND_END);
            }
            Ok(new)
        });
        frames::put_ref(source);
        let new = copied?;
        if wanted.contains(Prot::EXEC) {
            raw::sync_code(new.0);
        }
        self.map(page, &[new], wanted)?;
        Ok(Step::Done)
    }

    /// Maps the page and those around it that the object has ready.
    fn fault_object_read(
        &self,
        state: &State,
        area: Area,
        page: u64,
        object: Arc<dyn Mappable>,
        index: u64,
        fetched: &mut Option<Fetched>,
    ) -> Result<Step, FaultSignal> {
        let prot = hardware(area.prot) - Prot::WRITE;
        let window = AROUND as u64 * PAGE_SIZE;
        let first = (page & !(window - 1)).max(area.start).max(page - (index * PAGE_SIZE).min(page));
        let end = ((page & !(window - 1)) + window).min(area.end);
        let mut run = [None; AROUND];
        let count = ((end - first) / PAGE_SIZE) as usize;
        let here = ((page - first) / PAGE_SIZE) as usize;
        object.ready(index - here as u64, &mut run[..count]);
        if run[here].is_none() {
            run[here] = take_fetched(fetched, &object, index, false);
            if run[here].is_none() {
                put_unused(&run);
                return Ok(Step::Fetch { object, index, write: false });
            }
        }
        // Leave alone what is there already (it may be a private copy).
        self.space.for_each(first, end - first, &mut |va, _, _| {
            if let Some(frame) = run[((va - first) / PAGE_SIZE) as usize].take() {
                frames::put_ref(frame);
            }
        });
        for (&va, _) in state.stash.range(first..end) {
            if let Some(frame) = run[((va - first) / PAGE_SIZE) as usize].take() {
                frames::put_ref(frame);
            }
        }
        let mut at = 0;
        while at < count {
            let mut frames = [Frame(0); AROUND];
            let mut len = 0;
            while let Some(frame) = run[..count].get_mut(at + len).and_then(Option::take) {
                if prot.contains(Prot::EXEC) {
                    raw::sync_code(frame.0);
                }
                frames[len] = frame;
                len += 1;
            }
            if len != 0
                && let Err(signal) = self.map(first + at as u64 * PAGE_SIZE, &frames[..len], prot)
            {
                put_unused(&run);
                return Err(signal);
            }
            at += len + 1;
        }
        Ok(Step::Done)
    }

    /// Maps frames whose references the tables take over; on failure they are dropped.
    fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<(), FaultSignal> {
        self.space.map(va, frames, prot).map_err(|errno| {
            frames::put_many(frames);
            FaultSignal::from_errno(errno)
        })
    }

    /// Extends a growing area down to `page`, if one is right above and may.
    fn grow_stack(&self, state: &mut State, page: u64) -> Result<(), FaultSignal> {
        let refuse = FaultSignal::UNMAPPED;
        let above = state.vmas.find_from(page).ok_or(refuse)?;
        if !above.flags.contains(VmFlags::GROWS_DOWN) {
            return Err(refuse);
        }
        let (start, grown) = (above.start, above.start - page);
        if above.end - page > self.limits.stack.load(Ordering::Relaxed) {
            return Err(refuse);
        }
        let below = state.vmas.last_below(page);
        let accessible = |vma: &&super::Vma| !vma.prot.is_empty() && !vma.flags.contains(VmFlags::GROWS_DOWN);
        if below.filter(accessible).is_some_and(|vma| vma.end + STACK_GUARD > page)
            || self.reserved_in(page, start).is_some()
            || page < super::layout::MIN_ADDRESS
        {
            return Err(refuse);
        }
        if state.total + grown > self.limits.address_space.load(Ordering::Relaxed) {
            return Err(refuse);
        }
        if above.prot.contains(Prot::WRITE) {
            state.data += grown;
        }
        if above.flags.contains(VmFlags::LOCKED) {
            state.locked += grown;
        }
        state.total += grown;
        state.vmas.grow_down(start, page);
        Ok(())
    }
}

/// The fetched page, if it is the one wanted: its reference is the caller's then.
fn take_fetched(
    fetched: &mut Option<Fetched>,
    object: &Arc<dyn Mappable>,
    index: u64,
    write: bool,
) -> Option<Frame> {
    let page = fetched.take_if(|f| Arc::ptr_eq(&f.object, object) && f.index == index && f.write == write)?;
    frames::get_ref(page.frame);
    Some(page.frame)
}
