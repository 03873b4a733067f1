//! ioctl: what holds for every descriptor, then what the file does.

use super::Args;
use super::names::caller;
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::vfs::Ioctl;
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;

/// ioctl(2)
pub(super) fn ioctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (fd, request, arg) = (args.fd(0), args.uint(1), args.addr(2));
    let fds = cur.fds();
    let file = fds.get(fd)?;
    match request {
        i::FIOCLEX => fds.set_cloexec(fd, true)?,
        i::FIONCLEX => fds.set_cloexec(fd, false)?,
        i::FIONBIO => {
            let on: i32 = cur.mm().read_val(arg)?;
            file.set_flags(file.flags() & !c::O_NONBLOCK | if on != 0 { c::O_NONBLOCK } else { 0 });
        }
        // As of files that cannot send SIGIO: none can.
        i::FIOASYNC => {
            if cur.mm().read_val::<i32>(arg)? != 0 {
                return Err(Errno::ENOTTY);
            }
        }
        i::FIOQSIZE => {
            let stat = file.stat();
            match stat.mode & c::S_IFMT {
                c::S_IFREG | c::S_IFDIR | c::S_IFLNK => cur.mm().write_val(arg, &stat.size)?,
                _ => return Err(Errno::ENOTTY),
            }
        }
        _ => {
            let cred = cur.cred();
            let call = Ioctl { request, arg, mm: cur.mm(), caller: caller(cur), cred: &cred };
            return file.ops().ioctl(&call);
        }
    }
    Ok(0)
}
