//! The caller's terminal: standard input, output or error of the sandbox, as a terminal of the programs in it.
//!
//! It stays the host's: its line discipline edits, echoes and makes signals of keys (which the poller hands to the
//! foreground group in here), and settings that programs make are made there, so that everybody on the host who shares it,
//! a shell, the rest of a pipeline, goes on as beside a native program. What is kept here is who of the sandbox may use
//! it: sessions, foreground group, stops. Its settings come back at the end ([`hostsys::tty`]).
//!
//! It is read and written through a description of our own that does not block; where the host refuses one, through the
//! caller's, which is asked first with poll(2).

use super::hostio;
use super::pty::{Pace, slave_number};
use super::terminal::{self, Terminal};
use crate::abi::{Errno, Result};
use crate::hostfd::{self, HostFd, What};
use crate::hostsys::file;
use crate::hostsys::tty;
use crate::kernel::Kernel;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{HostLine, WaitQueue};
use crate::vfs::{FileOps, Ioctl};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;
use std::sync::{Arc, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;
/// Bytes written at once to a terminal that may block, after poll(2) has called it writable.
const CAUTIOUS_WRITE: usize = 256;

/// A terminal of the host.
pub struct HostTerminal {
    index: u32,
    fd: HostFd,
    /// The description is our own, not the caller's.
    own: bool,
    queue: Arc<WaitQueue>,
    line: HostLine,
    kernel: Weak<Kernel>,
}

impl HostTerminal {
    /// The terminal that descriptor `fd` is, as number `index` of the sandbox.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new(index: u32, fd: i32, kernel: &Arc<Kernel>) -> Result<Arc<HostTerminal>> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let lent = HostFd::lent(fd, What::Given("the caller"))?;
        let (fd, own) = match hostfd::files().open_again(&lent, flags) {
            Ok(again) => (again, true),
            Err(_) => (lent, false),
        };
        tty::remember(fd.raw());
        let line = HostLine::to(kernel.sched.clone());
        let kernel = Arc::downgrade(kernel);
        Ok(Arc::new(HostTerminal { index, fd, own, queue: Arc::default(), line, kernel }))
    }

    fn at(&self) -> hostio::At<'_> {
        hostio::At { fd: self.fd.raw(), line: &self.line }
    }

    /// A terminal that somebody has sent, who has made a description of it that does not block, for us alone.
    pub fn received(index: u32, own: HostFd, kernel: &Arc<Kernel>) -> Arc<HostTerminal> {
        let (fd, own) = (own, true);
        let line = HostLine::to(kernel.sched.clone());
        Arc::new(HostTerminal { index, fd, own, queue: Arc::default(), line, kernel: Arc::downgrade(kernel) })
    }

    fn watch(&self, events: u32) {
        if let Some(kernel) = self.kernel.upgrade() {
            let _ = kernel.poller().watch(self.fd.raw(), events, &self.queue);
        }
    }

    /// EAGAIN unless one of `events` holds, where trying could block.
    fn check(&self, events: u32) -> Result<()> {
        if self.own || self.holds() & (events | c::POLLHUP | c::POLLERR | c::POLLNVAL) != 0 {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn holds(&self) -> u32 {
        file::poll_now(self.fd.raw(), (IN | OUT) as i16) as u32
    }

    /// Asks to be told when what is missing holds: all of it, because a watch replaces the one before, which somebody
    /// else may be waiting for.
    fn or_watch<T>(&self, result: Result<T>) -> Result<T> {
        if matches!(result, Err(Errno::EAGAIN)) {
            let missing = (c::POLLIN | c::POLLOUT) & !self.holds();
            // What holds by now has to be tried again at once.
            self.watch(if missing == 0 { c::POLLIN } else { missing });
        }
        result
    }

    fn get(&self, request: u32) -> Result<[u8; 256]> {
        let mut raw = [0; 256];
        self.line.call(|| file::ioctl(self.fd.raw(), request, &mut raw))?;
        Ok(raw)
    }

    /// The number of bytes of what a request passes, and whether it is passed to the program.
    fn shape(request: u32) -> Option<(usize, bool)> {
        match request {
            i::TCGETS => Some((36, true)),
            i::TCSETS | i::TCSETSW | i::TCSETSF => Some((36, false)),
            i::TCGETS2 => Some((44, true)),
            i::TCSETS2 | i::TCSETSW2 | i::TCSETSF2 => Some((44, false)),
            i::TCGETA => Some((18, true)),
            i::TCSETA | i::TCSETAW | i::TCSETAF => Some((18, false)),
            i::TIOCGWINSZ => Some((8, true)),
            i::TIOCSWINSZ => Some((8, false)),
            i::TIOCOUTQ | i::FIONREAD | i::TIOCGETD => Some((4, true)),
            _ => None,
        }
    }
}

impl FileOps for HostTerminal {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        if dst.remaining() == 0 { Ok(0) } else { self.take(dst) }
    }

    fn reads_itself(&self) -> bool {
        false
    }

    fn names_writer(&self) -> bool {
        true
    }

    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let most = if self.own { usize::MAX } else { CAUTIOUS_WRITE };
        self.or_watch(self.check(OUT).and_then(|()| hostio::write(self.at(), src, most, None, 0)))
    }

    fn poll(&self) -> u32 {
        let holds = self.holds();
        let missing = (c::POLLIN | c::POLLOUT) & !holds;
        if missing != 0 && holds & (c::POLLHUP | c::POLLERR) == 0 {
            self.watch(missing);
        }
        holds
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EIO)?;
        if let Some(result) = terminal::job_control(&kernel, self.number(), call, false) {
            return result;
        }
        let changes = || kernel.may_change_terminal(call.caller, self.number());
        match call.request {
            // Nobody in here types for those who share the terminal.
            i::TIOCSTI => return Err(Errno::EIO),
            i::TCXONC | i::TCFLSH | i::TCSBRK | i::TCSBRKP => {
                changes()?;
                if call.request == i::TCXONC {
                    tty::changed();
                }
                // To wait until all is sent may take for ever.
                return self.line.call(|| file::ioctl_int(self.fd.raw(), call.request, call.arg));
            }
            _ => {}
        }
        let (size, passed) = Self::shape(call.request).ok_or(Errno::ENOTTY)?;
        if passed {
            return call.mm.write(call.arg, &self.get(call.request)?[..size]).map(|()| 0);
        }
        if call.request != i::TIOCSWINSZ {
            changes()?;
        }
        let mut raw = [0; 256];
        call.mm.read(call.arg, &mut raw[..size])?;
        if call.request == i::TIOCSWINSZ {
            let size = core::array::from_fn(|at| raw[at]);
            return tty::resize(self.fd.raw(), u64::from_ne_bytes(size)).map(|()| 0);
        }
        tty::changed();
        self.line.call(|| file::ioctl(self.fd.raw(), call.request, &mut raw))
    }

    fn host_fd(&self) -> Option<i32> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Terminal for HostTerminal {
    fn number(&self) -> u64 {
        slave_number(self.index)
    }

    fn take(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        self.or_watch(self.check(IN).and_then(|()| hostio::read(self.at(), dst, usize::MAX, None, 0)))
    }

    fn pace(&self) -> Pace {
        let settings = self.get(i::TCGETS).unwrap_or([0; 256]);
        Pace::of(&core::array::from_fn(|at| settings[at]))
    }

    fn stops_background_writes(&self) -> bool {
        const TOSTOP: u32 = 0o400;
        let local = |raw: &[u8; 256]| u32::from_ne_bytes([raw[12], raw[13], raw[14], raw[15]]);
        self.get(i::TCGETS).is_ok_and(|raw| local(&raw) & TOSTOP != 0)
    }
}

/// The access mode that the caller's descriptor `fd` has.
pub fn access_mode(fd: i32) -> u32 {
    let flags = file::fcntl(fd, libc::F_GETFL, 0).unwrap_or(u64::from(c::O_RDWR)) as u32;
    flags & (c::O_ACCMODE | c::O_APPEND)
}
