//! Pseudo-terminals: /dev/ptmx, /dev/pts and the line discipline between them (termios(3), pty(7)).
//!
//! What the master writes is edited, echoed and turned into signals on its way to the slave; what the slave writes is
//! post-processed on its way to the master. Both directions are bounded queues. The caller's own terminal has its place
//! in /dev/pts, too: see [`super::hostterm`].
//!
//! Lock order: a terminal's state → an address space's, where bytes are copied. Signals and wake-ups are sent after it is released.

mod discipline;
mod input;
mod ioctl;
mod output;
mod table;
mod termios;

pub use table::{PtyTable, root};
pub use termios::Pace;

use super::terminal::Terminal;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Kernel;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, Pause, WaitQueue};
use crate::vfs::{FileOps, Ioctl, OpenHow, Stat, makedev};
use discipline::Discipline;
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::{Arc, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;

/// Major number of slaves.
pub const SLAVE_MAJOR: u32 = 136;

/// The number of the slave with this index.
pub const fn slave_number(index: u32) -> u64 {
    makedev(SLAVE_MAJOR, index)
}

struct State {
    line: Discipline,
    masters: u32,
    slaves: u32,
    /// A slave was open once: the master sees a hang-up when the last one goes.
    used: bool,
    locked: bool,
    /// Nobody else may open it (TIOCEXCL): the slave, the master.
    exclusive: [bool; 2],
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

    fn number(&self) -> u64 {
        slave_number(self.index)
    }

    /// Sends signals to the foreground group.
    fn signal(&self, signals: &[i32]) {
        if let Some(kernel) = self.kernel().filter(|_| !signals.is_empty()) {
            for signo in signals {
                kernel.signal_foreground(self.number(), *signo);
            }
        }
    }

    /// Has the discipline look at all that it has room for, and returns the signals that came of it. Others go first in
    /// between: 64 KiB of keys can be a long work.
    fn catch_up(&self) -> Vec<i32> {
        loop {
            let mut state = self.state.lock();
            if !state.line.is_behind() {
                return state.line.take_signals();
            }
            state.line.work();
            drop(state);
            self.slave.notify(IN);
            if let Some(kernel) = self.kernel() {
                kernel.sched.give_way();
            }
        }
    }

    /// Changes the discipline, tells both sides, and sends the signals that came of it.
    fn change<T>(&self, change: impl FnOnce(&mut Discipline) -> T) -> T {
        let result = change(&mut self.state.lock().line);
        let signals = self.catch_up();
        self.slave.notify(IN | OUT);
        self.master.notify(IN | OUT | c::POLLPRI);
        self.signal(&signals);
        result
    }
}

/// The side of the terminal emulator.
pub struct Master(Arc<Pty>);

impl Master {
    /// The number of its slave in /dev/pts.
    pub fn index(&self) -> u32 {
        self.0.index
    }

    fn take(&self, dst: &mut IoDst<'_>) -> Result<usize> {
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
}

impl FileOps for Master {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        dst.held(|dst| self.take(dst))
    }

    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        let room = self.0.state.lock().line.room();
        if room == 0 && src.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; src.remaining().min(room)];
        let count = src.read_bytes(&mut bytes)?;
        self.0.change(|line| line.type_bytes(&bytes[..count]));
        Ok(count)
    }

    fn poll(&self) -> u32 {
        let state = self.0.state.lock();
        let mut events = 0;
        if state.line.has_status() {
            events |= IN | c::POLLPRI;
        }
        if state.line.out.len() > 0 {
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
        if let Some(kernel) = pty.kernel() {
            kernel.hang_up_terminal(pty.number());
        }
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
        let kernel = pty.kernel();
        let opener = kernel.as_ref().and_then(|kernel| kernel.task(how.caller.pid));
        let administrator = opener.is_some_and(|task| task.cred().has(Caps::SYS_ADMIN));
        {
            let mut state = pty.state.lock();
            if state.locked || state.masters == 0 {
                return Err(Errno::EIO);
            }
            if state.exclusive[0] && !administrator {
                return Err(Errno::EBUSY);
            }
            state.slaves += 1;
            state.used = true;
        }
        if let Some(kernel) = kernel
            && how.flags & c::O_NOCTTY == 0
            && how.flags & c::O_ACCMODE != c::O_WRONLY
        {
            // Only a session leader without a terminal gets one this way; others just open it.
            let _ = kernel.acquire_terminal(how.caller.pid, pty.number(), false);
        }
        Ok(Arc::new(Slave(pty.clone())))
    }
}

impl Slave {
    fn print(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        let pty = &self.0;
        let mut state = pty.state.lock();
        if state.masters == 0 {
            return Err(Errno::EIO);
        }
        let room = state.line.out.room();
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
}

impl FileOps for Slave {
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
        src.held(|src| self.print(src))
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
        if state.line.out.room() > 0 {
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

impl Terminal for Slave {
    fn number(&self) -> u64 {
        self.0.number()
    }

    fn take(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        let pty = &self.0;
        let (taken, gone) = dst.held(|dst| {
            let mut state = pty.state.lock();
            let taken = state.line.take(dst)?;
            Ok((taken, state.masters == 0))
        })?;
        let Some(count) = taken else { return if gone { Ok(0) } else { Err(Errno::EAGAIN) } };
        let signals = pty.catch_up();
        pty.master.notify(IN | OUT);
        pty.signal(&signals);
        Ok(count)
    }

    fn pace(&self) -> Pace {
        self.0.state.lock().line.pace()
    }

    fn stops_background_writes(&self) -> bool {
        self.0.state.lock().line.stops_background_writes()
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.slaves -= 1;
        state.exclusive[0] &= state.slaves > 0;
        drop(state);
        self.0.master.notify(!0);
    }
}
