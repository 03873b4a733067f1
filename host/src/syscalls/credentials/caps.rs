//! Capabilities: capget(2), capset(2).

use super::cred::change;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::syscalls::Args;

/// The versions of the capget(2) header, and how many structures follow.
fn capability_words(version: u32) -> Option<usize> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    }
}

/// Reads the header; an unknown version is answered with the newest.
fn read_cap_header(cur: &Current, args: &Args) -> Result<(usize, i32)> {
    let [version, pid] = cur.mm().read_val::<[u32; 2]>(args.addr(0))?;
    match capability_words(version) {
        Some(words) => Ok((words, pid as i32)),
        None => {
            cur.mm().write_val(args.addr(0), &0x2008_0522u32)?;
            Err(Errno::EINVAL)
        }
    }
}

pub(crate) fn capget(cur: &mut Current, args: &Args) -> Result<u64> {
    let (words, pid) = match read_cap_header(cur, args) {
        // Probing the version with a null pointer is not an error.
        Err(Errno::EINVAL) if args.addr(1) == 0 => return Ok(0),
        other => other?,
    };
    let cred = match pid {
        ..0 => return Err(Errno::EINVAL),
        0 => cur.cred(),
        _ => cur.task_called(pid)?.cred(),
    };
    for word in 0..words {
        let half = |caps: Caps| (caps.bits() >> (32 * word)) as u32;
        let data = [half(cred.effective), half(cred.permitted), half(cred.inheritable)];
        cur.mm().write_val(args.addr(1) + 12 * word as u64, &data)?;
    }
    Ok(0)
}

pub(crate) fn capset(cur: &mut Current, args: &Args) -> Result<u64> {
    let (words, pid) = read_cap_header(cur, args)?;
    if pid != 0 && pid != cur.task.number() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let data = cur.mm().read_val::<[u32; 3]>(args.addr(1) + 12 * word as u64)?;
        for (set, half) in sets.iter_mut().zip(data) {
            *set |= u64::from(half) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(Caps::from_bits_truncate);
    change(cur, |cred| {
        let raise = inheritable - cred.inheritable;
        let may_raise =
            if cred.has_own(Caps::SETPCAP) { cred.bounding | cred.permitted } else { cred.permitted };
        if !cred.permitted.contains(permitted) || !permitted.contains(effective) || !may_raise.contains(raise)
        {
            return Err(Errno::EPERM);
        }
        (cred.effective, cred.permitted, cred.inheritable) = (effective, permitted, inheritable);
        cred.ambient &= permitted & inheritable;
        Ok(0)
    })
}
