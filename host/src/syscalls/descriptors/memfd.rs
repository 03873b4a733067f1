//! Files without a name: memfd_create(2).

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;
use linux_raw_sys::general as c;

/// Whether it can be executed stays as it is (linux/fcntl.h).
const F_SEAL_EXEC: u32 = 0x20;

/// memfd_create(2)
pub(crate) fn memfd_create(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(1);
    only(flags, c::MFD_CLOEXEC | c::MFD_ALLOW_SEALING | c::MFD_NOEXEC_SEAL | c::MFD_EXEC)?;
    let both = c::MFD_EXEC | c::MFD_NOEXEC_SEAL;
    if flags & both == both {
        return Err(Errno::EINVAL);
    }
    let name = cur.mm().read_cstr(args.addr(0), 250).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    // Never to be executed: that is sealed, too (F_SEAL_EXEC).
    let (perm, seals) = match flags & (c::MFD_NOEXEC_SEAL | c::MFD_ALLOW_SEALING) {
        0 => (0o777, None),
        c::MFD_ALLOW_SEALING => (0o777, Some(0)),
        _ => (0o666, Some(F_SEAL_EXEC)),
    };
    let file = crate::fs::memfd::create(&name, perm, seals)?;
    let limit = cur.limit(c::RLIMIT_NOFILE);
    Ok(cur.fds().install(file, flags & c::MFD_CLOEXEC != 0, limit)? as u64)
}
