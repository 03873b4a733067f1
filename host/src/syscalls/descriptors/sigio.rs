//! Who gets the signals of an open file: fcntl's and ioctl's ways to say it.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::vfs::{File, Whom};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::sync::Arc;

pub(crate) use c::{F_GETOWN, F_GETOWN_EX, F_GETOWNER_UIDS, F_GETSIG, F_SETOWN, F_SETOWN_EX, F_SETSIG};

/// A signal's largest number.
const NSIG: u64 = 64;

/// The commands above.
pub(crate) fn fcntl(cur: &Current, file: &Arc<File>, command: u32, arg: u64) -> Result<u64> {
    match command {
        F_GETOWN => return Ok(get(cur, file) as u64),
        F_SETOWN => set(cur, file, arg as i32)?,
        F_GETSIG => return Ok(file.signals.signal() as u64),
        F_SETSIG if arg > NSIG => return Err(Errno::EINVAL),
        F_SETSIG => file.signals.set_signal(arg as i32),
        F_GETOWNER_UIDS => {
            let (real, effective) = file.signals.owner().by;
            let cred = cur.cred();
            cur.mm().write_val(arg, &[real, effective].map(|id| cred.user_ns.show_uid(id)))?;
        }
        F_GETOWN_EX => {
            let (whom, id) = cur.io_owner(file);
            let kind = match whom {
                Whom::Thread => c::F_OWNER_TID,
                Whom::Process => c::F_OWNER_PID,
                Whom::Group => c::F_OWNER_PGRP,
            };
            cur.mm().write_val(arg, &[kind as i32, id])?;
        }
        F_SETOWN_EX => {
            let [kind, id]: [i32; 2] = cur.mm().read_val(arg)?;
            let whom = match kind as u32 {
                c::F_OWNER_TID => Whom::Thread,
                c::F_OWNER_PID => Whom::Process,
                c::F_OWNER_PGRP => Whom::Group,
                _ => return Err(Errno::EINVAL),
            };
            cur.set_io_owner(file, whom, id)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// A process, or minus a process group.
fn set(cur: &Current, file: &Arc<File>, id: i32) -> Result<()> {
    match id {
        i32::MIN => Err(Errno::EINVAL),
        0.. => cur.set_io_owner(file, Whom::Process, id),
        _ => cur.set_io_owner(file, Whom::Group, -id),
    }
}

fn get(cur: &Current, file: &Arc<File>) -> i32 {
    match cur.io_owner(file) {
        (Whom::Group, id) => -id,
        (_, id) => id,
    }
}

/// FIOSETOWN, FIOGETOWN and their other names, which sockets know; `None` for other requests.
pub(crate) fn ioctl(cur: &Current, file: &Arc<File>, request: u32, arg: u64) -> Option<Result<()>> {
    let is_socket = || file.stat().mode & c::S_IFMT == c::S_IFSOCK;
    match request {
        i::FIOSETOWN | i::SIOCSPGRP if is_socket() => {
            Some(cur.mm().read_val(arg).and_then(|id| set(cur, file, id)))
        }
        i::FIOGETOWN | i::SIOCGPGRP if is_socket() => Some(cur.mm().write_val(arg, &get(cur, file))),
        _ => None,
    }
}
