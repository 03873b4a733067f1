//! The name of the system, its load, random numbers.

use crate::abi::{Errno, Result};
use crate::arch::{MACHINE, MACHINE_32};
use crate::arena::ledger;
use crate::cred::Caps;
use crate::kernel::namespaces::time::Shifted;
use crate::kernel::personality::{PER_LINUX32, PER_MASK, UNAME26};
use crate::kernel::{Current, RELEASE, Uts, VERSION, memory};
use crate::syscalls::Args;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as c;
use zerocopy::{Immutable, IntoBytes};

/// Length of a name in `struct new_utsname`, its NUL included.
const UTS_FIELD: usize = 65;

/// The release for programs that cannot believe it (UNAME26): 60 more than the minor number.
const RELEASE_26: &str = "2.6.72";

/// Longest host name.
const HOST_NAME_MAX: usize = 64;

/// Bytes of random numbers made at a time.
const RANDOM_CHUNK: usize = 4096;

const NANOSECONDS: u64 = 1_000_000_000;

/// uname(2)
pub(crate) fn uname(cur: &mut Current, args: &Args) -> Result<u64> {
    let uts = cur.task.uts().lock().clone();
    let personality = cur.task.group.personality.load(Ordering::Relaxed);
    let release = if personality & UNAME26 != 0 { RELEASE_26 } else { RELEASE };
    let machine = match MACHINE_32 {
        Some(machine) if personality & PER_MASK == PER_LINUX32 => machine,
        _ => MACHINE,
    };
    let fields: [&[u8]; 6] = [
        b"Linux",
        &uts.hostname,
        release.as_bytes(),
        VERSION.as_bytes(),
        machine.as_bytes(),
        &uts.domainname,
    ];
    let mut text = [0; 6 * UTS_FIELD];
    for (field, value) in text.chunks_mut(UTS_FIELD).zip(fields) {
        let len = value.len().min(UTS_FIELD - 1);
        field[..len].copy_from_slice(&value[..len]);
    }
    cur.mm().write(args.addr(0), &text)?;
    Ok(0)
}

/// Sets one of the names.
fn set_name(cur: &mut Current, args: &Args, set: fn(&mut Uts, Vec<u8>)) -> Result<u64> {
    if !cur.cred().has_in(&cur.task.namespaces().uts.owner, Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = args.int(1);
    let len = usize::try_from(len).ok().filter(|len| *len <= HOST_NAME_MAX).ok_or(Errno::EINVAL)?;
    let mut name = vec![0; len];
    cur.mm().read(args.addr(0), &mut name)?;
    set(&mut cur.task.uts().lock(), name);
    Ok(0)
}

/// sethostname(2)
pub(crate) fn sethostname(cur: &mut Current, args: &Args) -> Result<u64> {
    set_name(cur, args, |uts, name| uts.hostname = name)
}

/// setdomainname(2)
pub(crate) fn setdomainname(cur: &mut Current, args: &Args) -> Result<u64> {
    set_name(cur, args, |uts, name| uts.domainname = name)
}

/// `struct sysinfo` on 64-bit machines.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SysInfo {
    uptime: u64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    procs: u16,
    pad: [u16; 3],
    total_high: u64,
    free_high: u64,
    unit: u32,
    tail: u32,
}

const _: () = assert!(size_of::<SysInfo>() == 112);

/// sysinfo(2)
pub(crate) fn sysinfo(cur: &mut Current, args: &Args) -> Result<u64> {
    let (total, free) = memory();
    // Fixed-point numbers with 16 fraction bits.
    let loads = cur.kernel.load().map(|load| (load * 65536.0) as u64);
    let info = SysInfo {
        // Rounded up, as Linux does: never 0.
        uptime: cur.task.group.shifts.inside(Shifted::Boottime, cur.kernel.uptime_ns()) / NANOSECONDS + 1,
        loads,
        total_ram: total,
        free_ram: free,
        shared_ram: ledger::files(),
        buffer_ram: 0,
        total_swap: 0,
        free_swap: 0,
        procs: u16::try_from(cur.kernel.tree.lock().task_count()).unwrap_or(u16::MAX),
        pad: [0; 3],
        total_high: 0,
        free_high: 0,
        unit: 1,
        tail: 0,
    };
    cur.mm().write_val(args.addr(0), &info)?;
    Ok(0)
}

/// getrandom(2)
pub(crate) fn getrandom(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(2);
    let known = c::GRND_NONBLOCK | c::GRND_RANDOM | c::GRND_INSECURE;
    let both = c::GRND_RANDOM | c::GRND_INSECURE;
    if flags & !known != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    // MAX_RW_COUNT: no call moves more.
    let len = args.size(1).min(0x7fff_f000);
    let mut chunk = [0; RANDOM_CHUNK];
    let mut done = 0;
    while done < len {
        let part = &mut chunk[..RANDOM_CHUNK.min(len - done)];
        cur.kernel.random(part);
        match cur.mm().write(args.addr(0).wrapping_add(done as u64), part) {
            Ok(()) => done += part.len(),
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        if cur.pause().is_err() {
            break;
        }
    }
    Ok(done as u64)
}
