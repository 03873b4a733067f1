//! System V shared memory: shm_overview is not it, shmget(2) is.
//!
//! A segment counts the areas that show it (`shm_nattch`): address spaces tell it of each that comes and goes. One that
//! is marked for removal goes with the last.

use super::ids::{Ids, Object, Wanted, get};
use super::perm::Perm;
use super::{IpcNamespace, now};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::mm::{MapInfo, Mappable, Mm, PAGE_SIZE, SharedMemory};
use crate::platform::Frame;
use crate::sync::{Lock, Rank};
use std::sync::{Arc, Weak};

/// In a segment's mode: it goes with its last attachment.
const DEST: u32 = 0o1000;
/// In a segment's mode: locked into memory.
const LOCKED: u32 = 0o2000;

/// All segments of a namespace.
pub struct Segments(Lock<Ids<Segment>>);

impl Default for Segments {
    fn default() -> Self {
        Segments(Lock::new(Rank::ShmIds, Ids::default()))
    }
}

/// A segment.
pub struct Segment {
    memory: SharedMemory,
    size: u64,
    creator: i32,
    home: Weak<Segments>,
    state: Lock<State>,
}

struct State {
    perm: Perm,
    attached: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    last_pid: i32,
    /// Whose locked memory it counts as.
    locked_by: Option<u32>,
}

/// What shmctl(2) and `/proc/sysvipc/shm` say of a segment.
pub struct Status {
    /// Owner and permissions.
    pub perm: Perm,
    /// Bytes.
    pub size: u64,
    /// When it was attached last.
    pub atime: i64,
    /// When it was detached last.
    pub dtime: i64,
    /// When it was changed last.
    pub ctime: i64,
    /// Who made it.
    pub creator: i32,
    /// Who attached or detached it last.
    pub last_pid: i32,
    /// Attachments.
    pub attached: u64,
    /// Bytes in memory.
    pub resident: u64,
}

/// What all segments take (SHM_INFO).
#[derive(Default)]
pub struct Totals {
    /// Segments.
    pub count: u64,
    /// Their pages.
    pub pages: u64,
    /// Of these in memory.
    pub resident: u64,
}

impl Object for Segment {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
    fn set_id(&self, id: i32) {
        self.state.lock().perm.id = id;
    }
}

impl Segment {
    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }

    /// Its figures.
    pub fn status(&self) -> Status {
        let state = self.state.lock();
        Status {
            perm: state.perm,
            size: self.size,
            atime: state.atime,
            dtime: state.dtime,
            ctime: state.ctime,
            creator: self.creator,
            last_pid: state.last_pid,
            attached: state.attached,
            resident: self.memory.resident(),
        }
    }

    /// Takes an attachment away, and with the last one the segment, if it is marked.
    fn detached(&self) {
        let perm = {
            let mut state = self.state.lock();
            state.attached -= 1;
            state.perm
        };
        if perm.mode & DEST != 0
            && let Some(home) = self.home.upgrade()
        {
            let mut segments = home.0.lock();
            if self.state.lock().attached == 0 {
                let gone = segments.remove(&perm);
                drop(segments);
                drop(gone);
            }
        }
    }
}

/// Counts as an attachment until the segment has been mapped.
pub struct Hold(Arc<Segment>);

impl Hold {
    /// What is to be mapped.
    pub fn object(&self) -> Arc<dyn Mappable> {
        self.0.clone()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.detached();
    }
}

impl Mappable for Segment {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        self.memory.page(index, write)
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        self.memory.ready(first, to);
    }
    fn identity(&self) -> usize {
        self.memory.identity()
    }
    fn mapped(&self, mm: &Weak<Mm>) {
        self.memory.mapped(mm);
    }
    fn unmapped(&self) {
        self.memory.unmapped();
    }
    fn area_opened(&self, pid: i32) {
        let mut state = self.state.lock();
        state.attached += 1;
        (state.atime, state.last_pid) = (now(), pid);
    }
    fn area_closed(&self, pid: i32) {
        {
            let mut state = self.state.lock();
            (state.dtime, state.last_pid) = (now(), pid);
        }
        self.detached();
    }
    fn is_segment(&self) -> bool {
        true
    }
    fn is_memory(&self) -> bool {
        true
    }
    fn describe(&self) -> MapInfo {
        let perm = self.perm();
        let path = format!("/SYSV{:08x} (deleted)", perm.key).into_bytes();
        MapInfo { ino: perm.id as u64, path, ..self.memory.describe() }
    }
    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.punch_hole(offset, len)
    }
}

impl IpcNamespace {
    /// shmget(2): an id.
    ///
    /// # Errors
    /// Its own.
    pub fn segment(&self, key: i32, size: u64, flags: u32, cred: &Cred, pid: i32) -> Result<i32> {
        let limits = *self.limits.lock();
        let want = Wanted { key, flags, cred, limit: limits.shmmni };
        let fits = |old: &Segment| if old.size < size { Err(Errno::EINVAL) } else { Ok(()) };
        get(&self.shm.0, &want, fits, |others, perm| {
            if size == 0 || size > limits.shmmax {
                return Err(Errno::EINVAL);
            }
            let pages = size.checked_add(PAGE_SIZE - 1).ok_or(Errno::ENOSPC)? / PAGE_SIZE;
            let used: u64 = others.iter().map(|other| other.pages()).sum();
            if used.checked_add(pages).is_none_or(|sum| sum > limits.shmall) {
                return Err(Errno::ENOSPC);
            }
            // What memory could never hold is refused, as Linux's accounting does.
            if size > crate::mm::frames::limit_bytes() {
                return Err(Errno::ENOMEM);
            }
            let state =
                State { perm, attached: 0, atime: 0, dtime: 0, ctime: now(), last_pid: 0, locked_by: None };
            Ok(Segment {
                memory: SharedMemory::lasting(size),
                size,
                creator: pid,
                home: Arc::downgrade(&self.shm),
                state: Lock::new(Rank::ShmSegment, state),
            })
        })
    }

    /// A segment to attach; `want` says how, as permission bits.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn attach_segment(&self, id: i32, want: u32, cred: &Cred) -> Result<Hold> {
        let segments = self.shm.0.lock();
        let segment = segments.get(id)?;
        let mut state = segment.state.lock();
        state.perm.allow(cred, want)?;
        state.attached += 1;
        drop(state);
        drop(segments);
        Ok(Hold(segment))
    }

    /// IPC_STAT, SHM_STAT, SHM_STAT_ANY.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn segment_status(&self, id: i32, by_index: bool, cred: Option<&Cred>) -> Result<Status> {
        let segments = self.shm.0.lock();
        let segment = if by_index { segments.at(id)? } else { segments.get(id)? };
        drop(segments);
        if let Some(cred) = cred {
            segment.perm().allow(cred, 0o444)?;
        }
        Ok(segment.status())
    }

    /// All segments, by index.
    pub fn segments(&self) -> Vec<Status> {
        self.shm.0.lock().iter().map(|segment| segment.status()).collect()
    }

    /// Sums for SHM_INFO, and the highest index in use.
    pub fn segment_totals(&self) -> (Totals, u64) {
        let segments = self.shm.0.lock();
        let mut totals = Totals::default();
        for segment in segments.iter() {
            totals.count += 1;
            totals.pages += segment.pages();
            totals.resident += segment.memory.resident() / PAGE_SIZE;
        }
        (totals, segments.highest())
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set_segment(&self, id: i32, owner: (u32, u32), mode: u32, cred: &Cred) -> Result<()> {
        let segment = self.shm.0.lock().get(id)?;
        let mut state = segment.state.lock();
        state.perm.may_control(cred)?;
        state.perm.update(owner.0, owner.1, mode)?;
        state.ctime = now();
        Ok(())
    }

    /// IPC_RMID: at once, or with the last attachment.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove_segment(&self, id: i32, cred: &Cred) -> Result<()> {
        let mut segments = self.shm.0.lock();
        let segment = segments.get(id)?;
        let mut state = segment.state.lock();
        state.perm.may_control(cred)?;
        let mut gone = None;
        if state.attached == 0 {
            gone = segments.remove(&state.perm);
        } else {
            segments.forget_key(state.perm.key);
            state.perm.key = super::ids::PRIVATE;
            state.perm.mode |= DEST;
        }
        drop(state);
        drop(segments);
        drop(gone);
        Ok(())
    }

    /// SHM_LOCK and SHM_UNLOCK. Memory here is never swapped out, so that all there is to it is the count against
    /// `limit` (RLIMIT_MEMLOCK).
    ///
    /// # Errors
    /// EINVAL, EPERM, ENOMEM.
    pub fn lock_segment(&self, id: i32, lock: bool, limit: u64, cred: &Cred) -> Result<()> {
        let segments = self.shm.0.lock();
        let segment = segments.get(id)?;
        let privileged = cred.has(Caps::IPC_LOCK);
        if !privileged && (!segment.perm().is_owner(cred) || lock && limit == 0) {
            return Err(Errno::EPERM);
        }
        let user = cred.uid.real;
        if lock && segment.perm().mode & LOCKED == 0 {
            let theirs = |other: &&Arc<Segment>| other.state.lock().locked_by == Some(user);
            let locked: u64 = segments.iter().filter(theirs).map(|other| other.pages()).sum();
            if !privileged && locked + segment.pages() > limit / PAGE_SIZE {
                return Err(Errno::ENOMEM);
            }
        }
        let mut state = segment.state.lock();
        if lock {
            state.perm.mode |= LOCKED;
            state.locked_by.get_or_insert(user);
        } else {
            state.perm.mode &= !LOCKED;
            state.locked_by = None;
        }
        Ok(())
    }
}
