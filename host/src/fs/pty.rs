//! Pseudo-terminals: /dev/ptmx, /dev/pts and the line discipline between them (termios(3), pty(7)).
//!
//! What the master writes is edited, echoed and turned into signals on its way to the slave; what the slave writes is
//! post-processed on its way to the master. Both directions are bounded queues.
//!
//! Lock order: a terminal's state → nothing. Signals and wake-ups are sent after it is released.

mod discipline;
mod table;

pub use table::{PtyTable, root};

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Kernel;
use crate::kernel::signal::{SIGWINCH, SigInfo};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, WaitQueue};
use crate::vfs::{FileOps, Ioctl, OpenHow, Stat, makedev};
use discipline::Discipline;
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;
use std::sync::{Arc, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;

/// tcflow(3): output goes on.
const TCOON: u64 = 1;
/// Major number of slaves.
pub const SLAVE_MAJOR: u32 = 136;

struct State {
    line: Discipline,
    masters: u32,
    slaves: u32,
    /// A slave was open once: the master sees a hang-up when the last one goes.
    used: bool,
    locked: bool,
    /// Nobody else may open it (TIOCEXCL).
    exclusive: bool,
    window: [u8; 8],
}

/// One terminal.
pub struct Pty {
    /// Its number.
    pub index: u32,
    state: Lock<State>,
    master: WaitQueue,
    slave: WaitQueue,
    table: Weak<PtyTable>,
}

impl Pty {
    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.table.upgrade()?.kernel()
    }

    /// The session it controls and that session's foreground group.
    fn session(&self) -> Option<(i32, i32)> {
        let kernel = self.kernel()?;
        let tree = kernel.tree.lock();
        let own = Some(self.number());
        tree.nodes()
            .map(|(_, node)| node.sid)
            .find_map(|sid| tree.session(sid).filter(|s| s.tty == own).map(|s| (sid, s.foreground)))
    }

    fn number(&self) -> u64 {
        makedev(SLAVE_MAJOR, self.index)
    }

    /// Sends a signal to the foreground group.
    fn signal(&self, signo: i32) {
        if let (Some(kernel), Some((_, group))) = (self.kernel(), self.session())
            && group > 0
        {
            let _ = kernel.signal_process_group(group, SigInfo::kernel(signo));
        }
    }

    /// Makes it the controlling terminal of the caller's session, if that has none and leads it.
    fn acquire(&self, pid: i32) -> Result<()> {
        let kernel = self.kernel().ok_or(Errno::EIO)?;
        let mut tree = kernel.tree.lock();
        let (sid, pgid) = tree.node(pid).map(|node| (node.sid, node.pgid)).ok_or(Errno::ESRCH)?;
        if sid != pid {
            return Err(Errno::EPERM);
        }
        let own = Some(self.number());
        let taken = tree.nodes().any(|(_, node)| {
            node.sid != sid && tree.session(node.sid).is_some_and(|session| session.tty == own)
        });
        let session = tree.session_mut(sid);
        if session.tty == own {
            return Ok(());
        }
        if session.tty.is_some() || taken {
            return Err(Errno::EPERM);
        }
        session.tty = own;
        session.foreground = pgid;
        Ok(())
    }

    /// ioctls that both sides answer.
    fn ioctl(&self, call: &Ioctl<'_>, master: bool) -> Result<u64> {
        let (mm, arg) = (call.mm, call.arg);
        match call.request {
            i::TCGETS => mm.write(arg, &self.state.lock().line.termios()[..36])?,
            i::TCGETS2 => mm.write(arg, &self.state.lock().line.termios())?,
            i::TCSETS | i::TCSETSW | i::TCSETSF | i::TCSETS2 | i::TCSETSW2 | i::TCSETSF2 => {
                let size = if call.request >= i::TCSETS2 { 44 } else { 36 };
                let mut raw = [0; 44];
                mm.read(arg, &mut raw[..size])?;
                let flush = matches!(call.request, i::TCSETSF | i::TCSETSF2);
                self.state.lock().line.set_termios(&raw[..size], flush);
                self.slave.notify(IN);
                self.master.notify(OUT);
            }
            i::TIOCGWINSZ => mm.write(arg, &self.state.lock().window)?,
            i::TIOCSWINSZ => {
                let mut window = [0; 8];
                mm.read(arg, &mut window)?;
                let changed = std::mem::replace(&mut self.state.lock().window, window) != window;
                if changed {
                    self.signal(SIGWINCH);
                }
            }
            i::TIOCGPGRP => {
                let (_, group) = self.session().ok_or(Errno::ENOTTY)?;
                mm.write_val(arg, &group)?;
            }
            i::TIOCSPGRP => {
                let group: i32 = mm.read_val(arg)?;
                let (sid, _) = self.session().ok_or(Errno::ENOTTY)?;
                let kernel = self.kernel().ok_or(Errno::EIO)?;
                let mut tree = kernel.tree.lock();
                let mut members = tree.process_group(group);
                if !members.any(|node| node.sid == sid) {
                    return Err(Errno::EPERM);
                }
                drop(members);
                tree.session_mut(sid).foreground = group;
            }
            i::TIOCGSID => mm.write_val(arg, &self.session().ok_or(Errno::ENOTTY)?.0)?,
            i::TIOCSCTTY if !master => self.acquire(call.caller.pid)?,
            i::TIOCNOTTY if !master => {
                let kernel = self.kernel().ok_or(Errno::EIO)?;
                let mut tree = kernel.tree.lock();
                let sid = tree.node(call.caller.pid).map(|node| node.sid).ok_or(Errno::ENOTTY)?;
                tree.session_mut(sid).tty = None;
            }
            i::TIOCGPTN if master => mm.write_val(arg, &self.index)?,
            i::TIOCSPTLCK if master => {
                let lock: i32 = mm.read_val(arg)?;
                self.state.lock().locked = lock != 0;
            }
            i::TIOCGPTLCK if master => mm.write_val(arg, &i32::from(self.state.lock().locked))?,
            i::FIONREAD => {
                let state = self.state.lock();
                let count = if master { state.line.output() } else { state.line.readable() };
                mm.write_val(arg, &(count as i32))?;
            }
            i::TIOCOUTQ => mm.write_val(arg, &(self.state.lock().line.output() as i32))?,
            i::TCFLSH => self.state.lock().line.flush(arg != 1, arg != 0),
            // There is no line to break, and what was written is the other side's at once.
            i::TCSBRK | i::TCSBRKP => {}
            // The master's own is never opened again.
            i::TIOCEXCL | i::TIOCNXCL if master => {}
            i::TIOCEXCL => self.state.lock().exclusive = true,
            i::TIOCNXCL => self.state.lock().exclusive = false,
            i::TIOCGEXCL => mm.write_val(arg, &i32::from(self.state.lock().exclusive))?,
            // Output is never stopped, so that it can only be told to go on.
            i::TCXONC if arg == TCOON => {}
            // The master reads without packets, and stays with that.
            i::TIOCPKT if master && mm.read_val::<i32>(arg)? == 0 => {}
            i::TIOCGPKT if master => mm.write_val(arg, &0i32)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

/// The side of the terminal emulator.
pub struct Master(Arc<Pty>);

impl FileOps for Master {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        let pty = &self.0;
        let mut state = pty.state.lock();
        let count = state.line.take_output(dst)?;
        if count == 0 && dst.remaining() > 0 {
            return Err(if state.used && state.slaves == 0 { Errno::EIO } else { Errno::EAGAIN });
        }
        drop(state);
        pty.slave.notify(OUT);
        Ok(count)
    }

    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        let pty = &self.0;
        let mut state = pty.state.lock();
        let room = state.line.room();
        if room == 0 && src.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; src.remaining().min(room)];
        let count = src.read_bytes(&mut bytes)?;
        let signals = state.line.input(&bytes[..count]);
        drop(state);
        pty.slave.notify(IN);
        pty.master.notify(IN);
        for signo in signals {
            pty.signal(signo);
        }
        Ok(count)
    }

    fn poll(&self) -> u32 {
        let state = self.0.state.lock();
        let mut events = 0;
        if state.line.output() > 0 {
            events |= IN;
        }
        if state.line.room() > 0 {
            events |= OUT;
        }
        if state.used && state.slaves == 0 {
            events |= c::POLLHUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.master)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        self.0.ioctl(call, true)
    }

    fn stat(&self) -> Option<Stat> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let pty = &self.0;
        pty.state.lock().masters -= 1;
        if let Some(table) = pty.table.upgrade() {
            table.remove(pty.index);
        }
        pty.slave.notify(!0);
        pty.signal(crate::kernel::signal::SIGHUP);
    }
}

/// The side of the programs.
pub struct Slave(Arc<Pty>);

impl Slave {
    /// Opens the slave side.
    ///
    /// # Errors
    /// EIO while the master keeps it locked or is gone; EBUSY while somebody has it for itself.
    pub fn open(pty: &Arc<Pty>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let opener = pty.kernel().and_then(|kernel| kernel.task(how.caller.pid));
        let administrator = opener.is_some_and(|task| task.cred().has(Caps::SYS_ADMIN));
        {
            let mut state = pty.state.lock();
            if state.locked || state.masters == 0 {
                return Err(Errno::EIO);
            }
            if state.exclusive && !administrator {
                return Err(Errno::EBUSY);
            }
            state.slaves += 1;
            state.used = true;
        }
        if how.flags & c::O_NOCTTY == 0 {
            // Only a session leader without a terminal gets one this way; others just open it.
            let _ = pty.acquire(how.caller.pid);
        }
        Ok(Arc::new(Slave(pty.clone())))
    }
}

impl FileOps for Slave {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let pty = &self.0;
        let mut state = pty.state.lock();
        let taken = state.line.read(dst)?;
        let gone = state.masters == 0;
        drop(state);
        match taken {
            Some(count) => {
                pty.master.notify(OUT);
                Ok(count)
            }
            None if gone => Ok(0),
            None => Err(Errno::EAGAIN),
        }
    }

    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        let pty = &self.0;
        let mut state = pty.state.lock();
        if state.masters == 0 {
            return Err(Errno::EIO);
        }
        let room = state.line.output_room();
        if room == 0 && src.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; src.remaining().min(room)];
        let count = src.read_bytes(&mut bytes)?;
        state.line.print(&bytes[..count]);
        drop(state);
        pty.master.notify(IN);
        Ok(count)
    }

    fn poll(&self) -> u32 {
        let state = self.0.state.lock();
        if state.masters == 0 {
            return IN | OUT | c::POLLHUP | c::POLLERR;
        }
        let mut events = 0;
        if state.line.is_ready() {
            events |= IN;
        }
        if state.line.output_room() > 0 {
            events |= OUT;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.slave)
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        self.0.ioctl(call, false)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.slaves -= 1;
        state.exclusive &= state.slaves > 0;
        drop(state);
        self.0.master.notify(!0);
    }
}
