//! personality(2) and arch_prctl(2).

use crate::abi::{Errno, Result};
use crate::arch::{MACHINE_32, Registers};
use crate::kernel::Current;
use crate::kernel::personality::{PER_LINUX32, PER_MASK};
use crate::syscalls::Args;
use core::sync::atomic::Ordering;

const ARCH_SET_GS: u32 = 0x1001;

const ARCH_SET_FS: u32 = 0x1002;

const ARCH_GET_FS: u32 = 0x1003;

const ARCH_GET_GS: u32 = 0x1004;

const ARCH_GET_CPUID: u32 = 0x1011;

const ARCH_SET_CPUID: u32 = 0x1012;

/// personality(2)
pub(crate) fn personality(cur: &mut Current, args: &Args) -> Result<u64> {
    let old = &cur.task.group.personality;
    if MACHINE_32.is_none() && args.uint(0) != u32::MAX && args.uint(0) & PER_MASK == PER_LINUX32 {
        return Err(Errno::EINVAL);
    }
    Ok(u64::from(match args.uint(0) {
        u32::MAX => old.load(Ordering::Relaxed),
        new => old.swap(new, Ordering::Relaxed),
    }))
}

/// arch_prctl(2), which only x86_64 has.
pub(crate) fn arch_prctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let value = args.addr(1);
    let task_size = cur.mm().task_size();
    match args.uint(0) {
        ARCH_SET_FS | ARCH_SET_GS if value >= task_size => Err(Errno::EPERM),
        ARCH_SET_FS => {
            cur.regs.set_tls(value);
            Ok(0)
        }
        ARCH_SET_GS => {
            cur.regs.set_second_tls(value);
            Ok(0)
        }
        ARCH_GET_FS => {
            let tls = cur.regs.tls();
            cur.mm().write_val(value, &tls)?;
            Ok(0)
        }
        ARCH_GET_GS => {
            let tls = cur.regs.second_tls();
            cur.mm().write_val(value, &tls)?;
            Ok(0)
        }
        // CPUID cannot be made to fault here, as on most hosts.
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno::ENODEV),
        _ => Err(Errno::EINVAL),
    }
}
