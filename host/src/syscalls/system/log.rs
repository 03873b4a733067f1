//! syslog(2): the kernel's own log.

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::kernel::log::SIZE;
use crate::syscalls::Args;
use linux_raw_sys::general as c;

const READ: i32 = 2;
const READ_ALL: i32 = 3;
const READ_CLEAR: i32 = 4;
const CLEAR: i32 = 5;
const CONSOLE_OFF: i32 = 6;
const CONSOLE_ON: i32 = 7;
const CONSOLE_LEVEL: i32 = 8;
const SIZE_UNREAD: i32 = 9;
const SIZE_BUFFER: i32 = 10;

/// syslog(2)
pub(crate) fn syslog(cur: &mut Current, args: &Args) -> Result<u64> {
    let (action, len) = (args.int(0), args.int(2));
    // Anybody may look (dmesg_restrict is 0).
    let open = matches!(action, READ_ALL | SIZE_BUFFER);
    if !open && !cur.cred().has(Caps::SYSLOG) && !cur.cred().has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let kernel = cur.kernel.clone();
    match action {
        // Opening and closing; and there is no console to print on.
        0 | 1 | CONSOLE_OFF | CONSOLE_ON => Ok(0),
        READ | READ_ALL | READ_CLEAR => {
            let room = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(SIZE);
            if args.addr(1) == 0 {
                return Err(Errno::EINVAL);
            }
            if room == 0 {
                return Ok(0);
            }
            let text = if action == READ {
                cur.wait_on(&[(&kernel.log.queue, c::POLLIN)], None, &mut || kernel.log.read(room))?
            } else {
                kernel.log.tail(room)
            };
            cur.mm().write(args.addr(1), &text)?;
            if action == READ_CLEAR {
                kernel.log.clear();
            }
            Ok(text.len() as u64)
        }
        CLEAR => {
            kernel.log.clear();
            Ok(0)
        }
        CONSOLE_LEVEL if (1..=8).contains(&len) => Ok(0),
        SIZE_UNREAD => Ok(kernel.log.unread() as u64),
        SIZE_BUFFER => Ok(SIZE as u64),
        _ => Err(Errno::EINVAL),
    }
}
