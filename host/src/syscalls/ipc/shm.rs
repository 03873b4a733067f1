//! shmget, shmat, shmdt, shmctl.

use super::{Args, IPC_INFO, IPC_RMID, IPC_SET, StatusOf, owner, raw_perm};
use crate::abi::ipc::RawPerm;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::mm::{MapFlags, MapRequest, PAGE_SIZE, VmFlags};
use crate::platform::Prot;
use linux_raw_sys::general::RLIMIT_MEMLOCK;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// shmget(2): with the sizes of huge pages that a pool could be made of.
const SHM_HUGETLB: u32 = 0o4000;
const HUGE_SHIFT: u32 = 26;
const HUGE_MASK: u32 = 0x3f;

/// shmat(2).
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100_000;

/// `struct shmid64_ds`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawStatus {
    perm: RawPerm,
    size: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    creator: i32,
    last_pid: i32,
    attached: u64,
    unused: [u64; 2],
}

/// `struct shminfo64`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawLimits {
    max: u64,
    min: u64,
    mni: u64,
    seg: u64,
    all: u64,
    unused: [u64; 4],
}

/// `struct shm_info`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawTotals {
    used: u64,
    pages: u64,
    resident: u64,
    swapped: u64,
    swap: [u64; 2],
}

/// shmget(2)
pub(in crate::syscalls) fn shmget(cur: &mut Current, args: &Args) -> Result<u64> {
    let (key, size, flags) = (args.int(0), args.addr(1), args.uint(2));
    let cred = cur.cred();
    let pid = cur.task.tgid();
    let ipc = cur.task.ipc();
    let found = if flags & SHM_HUGETLB == 0 {
        ipc.segment(key, size, flags, &cred, pid)
    } else if key == crate::kernel::ipc::ids::PRIVATE {
        Err(no_huge_pages(cur, flags | crate::kernel::ipc::flags::CREAT, Errno::ENOENT))
    } else {
        // The pool of huge pages is empty: one that is there already can be had, a new one cannot.
        ipc.segment(key, size, flags & !crate::kernel::ipc::flags::CREAT, &cred, pid)
            .map_err(|errno| no_huge_pages(cur, flags, errno))
    };
    found.map(|id| id as u64)
}

/// Why there is no segment of huge pages.
fn no_huge_pages(cur: &Current, flags: u32, errno: Errno) -> Errno {
    let asked = flags & crate::kernel::ipc::flags::CREAT != 0;
    let cred = cur.cred();
    match errno {
        Errno::ENOENT if !asked => Errno::ENOENT,
        Errno::ENOENT => match flags >> HUGE_SHIFT & HUGE_MASK {
            0 | 21 | 30 if cred.has(Caps::IPC_LOCK) || cred.in_group(0) => Errno::ENOMEM,
            0 | 21 | 30 => Errno::EPERM,
            _ => Errno::EINVAL,
        },
        other => other,
    }
}

/// shmat(2)
pub(in crate::syscalls) fn shmat(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, mut addr, flags) = (args.int(0), args.range_start(1), args.uint(2));
    let has = |flag: u32| flags & flag != 0;
    let mut how = MapFlags::empty();
    if addr != 0 {
        if !addr.is_multiple_of(PAGE_SIZE) {
            if !has(SHM_RND) {
                return Err(Errno::EINVAL);
            }
            addr -= addr % PAGE_SIZE;
            if addr == 0 && has(SHM_REMAP) {
                return Err(Errno::EINVAL);
            }
        }
        how |= if has(SHM_REMAP) { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    } else if has(SHM_REMAP) {
        return Err(Errno::EINVAL);
    }
    let (mut prot, mut want) = (Prot::READ | Prot::WRITE, 0o666);
    let mut vm = VmFlags::SHARED;
    if has(SHM_RDONLY) {
        (prot, want) = (Prot::READ, 0o444);
        vm |= VmFlags::NEVER_WRITE;
    }
    if has(SHM_EXEC) {
        prot |= Prot::EXEC;
        want |= 0o111;
    }
    let cred = cur.cred();
    let hold = cur.task.ipc().attach_segment(id, want, &cred)?;
    let object = hold.object();
    let len = object.size();
    if !cred.has(Caps::IPC_LOCK) {
        cur.mm().may_map_locked(len, false)?;
    }
    let request = MapRequest { addr, len, prot, flags: how, vm, object: Some((object, 0)) };
    let mapped = cur.mm().mmap(request);
    // Something is there already.
    mapped.map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })
}

/// shmdt(2)
pub(in crate::syscalls) fn shmdt(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.mm().detach(args.range_start(0)).map(|()| 0)
}

/// shmctl(2)
pub(in crate::syscalls) fn shmctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, command, addr) = (args.int(0), args.int(1), args.addr(2));
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, cred) = (cur.task.ipc(), cur.cred());
    if let Some(of) = StatusOf::command(command, SHM_STAT, SHM_STAT_ANY) {
        let status = ipc.segment_status(id, of.by_index, of.who(&cred))?;
        let raw = RawStatus {
            perm: raw_perm(&status.perm, &cred),
            size: status.size,
            atime: status.atime,
            dtime: status.dtime,
            ctime: status.ctime,
            creator: cur.number_of(status.creator),
            last_pid: cur.number_of(status.last_pid),
            attached: status.attached,
            unused: [0; 2],
        };
        cur.mm().write_val(addr, &raw)?;
        return Ok(of.result(&status.perm));
    }
    match command {
        IPC_INFO => {
            let limits = *ipc.limits.lock();
            let mni = limits.shmmni.into();
            let raw =
                RawLimits { max: limits.shmmax, min: 1, mni, seg: mni, all: limits.shmall, unused: [0; 4] };
            cur.mm().write_val(addr, &raw)?;
            Ok(ipc.segment_totals().1)
        }
        SHM_INFO => {
            let (totals, highest) = ipc.segment_totals();
            let (used, pages, resident) = (totals.count, totals.pages, totals.resident);
            let raw = RawTotals { used, pages, resident, swapped: 0, swap: [0; 2] };
            cur.mm().write_val(addr, &raw)?;
            Ok(highest)
        }
        IPC_SET => {
            let raw: RawStatus = cur.mm().read_val(addr)?;
            ipc.set_segment(id, owner(&raw.perm, &cred), raw.perm.mode, &cred).map(|()| 0)
        }
        IPC_RMID => ipc.remove_segment(id, &cred).map(|()| 0),
        SHM_LOCK | SHM_UNLOCK => {
            ipc.lock_segment(id, command == SHM_LOCK, cur.limit(RLIMIT_MEMLOCK), &cred).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}
