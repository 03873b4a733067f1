//! mmap, munmap, mprotect, mremap, brk.

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::kernel::personality::READ_IMPLIES_EXEC;
use crate::mm::{MapFlags, MapRequest, Mappable, PAGE_SIZE, VmFlags};
use crate::platform::Prot;
use crate::syscalls::Args;
use crate::vfs::File;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as c;
use std::sync::Arc;

/// MAP_32BIT exists on x86 only; its bit is nothing elsewhere.
const HAS_32BIT: bool = cfg!(target_arch = "x86_64");

const MAP_32BIT: u32 = 0x40;

/// Flags that MAP_SHARED_VALIDATE accepts (LEGACY_MAP_MASK; MAP_SYNC needs a DAX file).
const KNOWN: u32 = c::MAP_SHARED_VALIDATE
    | c::MAP_FIXED
    | c::MAP_ANONYMOUS
    | c::MAP_DENYWRITE
    | c::MAP_EXECUTABLE
    | c::MAP_UNINITIALIZED
    | c::MAP_GROWSDOWN
    | c::MAP_LOCKED
    | c::MAP_NORESERVE
    | c::MAP_POPULATE
    | c::MAP_NONBLOCK
    | c::MAP_STACK
    | c::MAP_HUGETLB
    | c::MAP_FIXED_NOREPLACE
    | if HAS_32BIT { MAP_32BIT } else { 0 };

const MAP_TYPE: u32 = 0xf;

fn prot(cur: &Current, bits: u32) -> Prot {
    let personality = cur.task.group.personality.load(Ordering::Relaxed);
    let bits = match personality & READ_IMPLIES_EXEC {
        0 => bits,
        _ if bits & c::PROT_READ != 0 => bits | c::PROT_EXEC,
        _ => bits,
    };
    let mut prot = Prot::empty();
    prot.set(Prot::READ, bits & c::PROT_READ != 0);
    prot.set(Prot::WRITE, bits & c::PROT_WRITE != 0);
    prot.set(Prot::EXEC, bits & c::PROT_EXEC != 0);
    prot
}

/// mmap(2).
pub(crate) fn mmap(cur: &mut Current, args: &Args) -> Result<u64> {
    let (addr, len, bits, flags, offset) =
        (args.addr(0), args.addr(1), args.uint(2), args.uint(3), args.addr(5));
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    // Huge pages are a pool that is empty here.
    let anonymous = flags & c::MAP_ANONYMOUS != 0;
    let file = if anonymous { None } else { Some(cur.file(args.fd(4))?) };
    if anonymous && flags & c::MAP_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let mut vm = VmFlags::empty();
    match flags & MAP_TYPE {
        c::MAP_PRIVATE => {}
        c::MAP_SHARED => vm |= VmFlags::SHARED,
        c::MAP_SHARED_VALIDATE if flags & !KNOWN != 0 => return Err(Errno::EOPNOTSUPP),
        c::MAP_SHARED_VALIDATE if !anonymous => vm |= VmFlags::SHARED,
        _ => return Err(Errno::EINVAL),
    }
    vm.set(VmFlags::NO_RESERVE, flags & c::MAP_NORESERVE != 0);
    vm.set(VmFlags::LOCKED, flags & c::MAP_LOCKED != 0);
    if flags & c::MAP_GROWSDOWN != 0 {
        if file.is_some() || vm.contains(VmFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        vm |= VmFlags::GROWS_DOWN;
    }
    let mut how = MapFlags::empty();
    how.set(MapFlags::FIXED, flags & c::MAP_FIXED != 0);
    how.set(MapFlags::FIXED_NOREPLACE, flags & c::MAP_FIXED_NOREPLACE != 0);
    how.set(MapFlags::POPULATE, flags & c::MAP_POPULATE != 0 && flags & c::MAP_NONBLOCK == 0);
    how.set(MapFlags::LOW, HAS_32BIT && flags & MAP_32BIT != 0);
    let prot = prot(cur, bits);
    let object = match file {
        None => None,
        Some(file) => {
            let object = object_of(&file, prot, &mut vm)?;
            Some((object, offset))
        }
    };
    if !cur.cred().has(Caps::IPC_LOCK) {
        cur.mm().may_map_locked(len, vm.contains(VmFlags::LOCKED))?;
    }
    cur.mm().mmap(MapRequest { addr, len, prot, flags: how, vm, object })
}

/// What a mapping of a file is made of. Where it must never become writable, `vm` says so afterwards.
fn object_of(file: &Arc<File>, prot: Prot, vm: &mut VmFlags) -> Result<Arc<dyn Mappable>> {
    if !file.readable() {
        return Err(Errno::EACCES);
    }
    if vm.contains(VmFlags::SHARED) {
        if file.writable() {
            if let Some(object) = file.ops().mappable_for_writing(file) {
                return Ok(object);
            }
            // It is sealed, if it can be mapped at all.
            if prot.contains(Prot::WRITE) && file.mappable().is_some() {
                return Err(Errno::EPERM);
            }
        } else if prot.contains(Prot::WRITE) {
            return Err(Errno::EACCES);
        }
        *vm |= VmFlags::NEVER_WRITE;
    }
    file.mappable().ok_or(Errno::ENODEV)
}

/// munmap(2).
pub(crate) fn munmap(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.mm().munmap(args.range_start(0), args.addr(1)).map(|()| 0)
}

/// mprotect(2).
pub(crate) fn mprotect(cur: &mut Current, args: &Args) -> Result<u64> {
    protect(cur, args.range_start(0), args.addr(1), args.uint(2))
}

/// pkey_mprotect(2): without keys, as where the CPU has none.
pub(crate) fn pkey_mprotect(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.int(3) != -1 {
        return Err(Errno::EINVAL);
    }
    protect(cur, args.range_start(0), args.addr(1), args.uint(2))
}

/// pkey_alloc(2): there are no protection keys.
pub(crate) fn pkey_alloc(_: &mut Current, args: &Args) -> Result<u64> {
    /// PKEY_DISABLE_ACCESS and PKEY_DISABLE_WRITE.
    const RIGHTS: u64 = 3;
    let wrong = args.addr(0) != 0 || args.addr(1) & !RIGHTS != 0;
    Err(if wrong { Errno::EINVAL } else { Errno::ENOSPC })
}

/// pkey_free(2): there are no protection keys.
pub(crate) fn pkey_free(_: &mut Current, _: &Args) -> Result<u64> {
    Err(Errno::EINVAL)
}

fn protect(cur: &Current, addr: u64, len: u64, bits: u32) -> Result<u64> {
    /// PROT_SEM is accepted and means nothing.
    const PROT_SEM: u32 = 8;
    let grows = c::PROT_GROWSDOWN | c::PROT_GROWSUP;
    if bits & grows == grows
        || bits & c::PROT_GROWSUP != 0
        || bits & !(c::PROT_READ | c::PROT_WRITE | c::PROT_EXEC | PROT_SEM | grows) != 0
    {
        return Err(Errno::EINVAL);
    }
    if bits & c::PROT_GROWSDOWN != 0 {
        return cur.mm().mprotect_growing(addr, len, prot(cur, bits)).map(|()| 0);
    }
    cur.mm().mprotect(addr, len, prot(cur, bits)).map(|()| 0)
}

/// mremap(2).
pub(crate) fn mremap(cur: &mut Current, args: &Args) -> Result<u64> {
    let [_, old_len, new_len, flags, new_addr, _] = args.0;
    let addr = args.range_start(0);
    cur.mm().mremap(addr, old_len, new_len, flags, new_addr)
}

/// brk(2): never fails, returns where the break is.
pub(crate) fn brk(cur: &mut Current, args: &Args) -> Result<u64> {
    Ok(cur.mm().brk(args.addr(0)))
}
