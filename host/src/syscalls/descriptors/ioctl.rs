//! ioctl: what holds for every descriptor, then what the file does.

use super::fileflags::{self, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS};
use super::sigio;
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::fs::nsfs::NsFile;
use crate::fs::pty::Master;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::caller;
use crate::syscalls::processes::ns;
use crate::vfs::{FsContext, Ioctl, Lookup, OpenHow};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;

/// ioctl(2)
pub(crate) fn ioctl(cur: &mut Current, args: &Args) -> Result<u64> {
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
        i::FIOASYNC => {
            let on = cur.mm().read_val::<i32>(arg)? != 0;
            cur.drive_by_signals(&file, fd, on)?;
        }
        i::TIOCGPTPEER if let Some(master) = file.downcast::<Master>() => {
            return open_peer(cur, master.index(), arg as u32);
        }
        i::FIGETBSZ if file.named().is_some() => cur.mm().write_val(arg, &4096_i32)?,
        i::FIOQSIZE => {
            let stat = file.stat();
            match stat.mode & c::S_IFMT {
                c::S_IFREG | c::S_IFDIR | c::S_IFLNK => cur.mm().write_val(arg, &stat.size)?,
                _ => return Err(Errno::ENOTTY),
            }
        }
        FS_IOC_GETFLAGS | FS_IOC_SETFLAGS | FS_IOC_FSGETXATTR | FS_IOC_FSSETXATTR => {
            return fileflags::ioctl(cur, &file, request, arg);
        }
        _ => {
            if let Some(done) = sigio::ioctl(cur, &file, request, arg) {
                return done.map(|()| 0);
            }
            if let Some(namespace) = file.downcast::<NsFile>() {
                let owner = ns::owner(cur, namespace, request, arg);
                return owner.unwrap_or_else(|| ns::ioctl(cur, namespace, request));
            }
            let cred = cur.cred();
            let call = Ioctl { request, arg, mm: cur.mm(), caller: caller(cur), cred: &cred };
            return file.ops().ioctl(&call);
        }
    }
    Ok(0)
}

/// TIOCGPTPEER: a descriptor for the other side of a terminal, whatever the caller sees in /dev/pts.
fn open_peer(cur: &Current, index: u32, flags: u32) -> Result<u64> {
    let (fs, root) = (FsContext::new(cur.fs().namespace().clone()), Cred::root());
    let lookup = Lookup { fs: &fs, cred: &root, caller: caller(cur) };
    let how = OpenHow { flags, caller: caller(cur), ..OpenHow::default() };
    let file = lookup.open(None, format!("/dev/pts/{index}").as_bytes(), &how)?;
    let limit = cur.limit(c::RLIMIT_NOFILE);
    let fd = cur.fds().install(file, flags & c::O_CLOEXEC != 0, limit)?;
    Ok(fd as u64)
}
