//! ioctl_tty(2) on both sides of a pseudo-terminal.

use super::Pty;
use super::termios::{TERMIO, TERMIOS, TERMIOS2, Termios, VSTART, VSTOP};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::terminal;
use crate::kernel::Kernel;
use crate::kernel::signal::{SIGINT, SIGQUIT, SIGTSTP, SIGWINCH};
use crate::vfs::Ioctl;
use linux_raw_sys::ioctl as i;

// linux_raw_sys has no names for these (asm-generic/ioctls.h).
const TIOCSIG: u32 = 0x4004_5436;
const TIOCGDEV: u32 = 0x8004_5432;

/// tcflush(3)
const TCIFLUSH: u64 = 0;
const TCOFLUSH: u64 = 1;
const TCIOFLUSH: u64 = 2;
/// tcflow(3)
const TCOOFF: u64 = 0;
const TCOON: u64 = 1;
const TCIOFF: u64 = 2;
const TCION: u64 = 3;

impl Pty {
    /// What both sides answer.
    pub(super) fn ioctl(&self, call: &Ioctl<'_>, master: bool) -> Result<u64> {
        let kernel = self.kernel().ok_or(Errno::EIO)?;
        if !master && self.state.lock().masters == 0 {
            return Err(if call.request == i::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        if let Some(result) = terminal::job_control(&kernel, self.number(), call, master) {
            return result;
        }
        match call.request {
            i::TCGETS..=i::TCSETAF
            | i::TCGETS2
            | i::TCSETS2
            | i::TCSETSW2
            | i::TCSETSF2
            | i::TIOCGLCKTRMIOS => self.settings(&kernel, call),
            i::TCSBRK | i::TCSBRKP | i::TCXONC | i::TCFLSH => {
                if !master {
                    kernel.may_change_terminal(call.caller, self.number())?;
                }
                self.flow(call, master)
            }
            i::TIOCGWINSZ | i::TIOCSWINSZ => self.window(call),
            i::TIOCGPTN | i::TIOCSPTLCK | i::TIOCGPTLCK | i::TIOCPKT | i::TIOCGPKT | TIOCSIG if master => {
                self.master_only(call)
            }
            _ => self.other(call, master),
        }
    }

    /// Getting and setting the termios structures.
    /// The settings as they are now.
    fn termios(&self) -> Termios {
        self.state.lock().line.set.clone()
    }

    fn settings(&self, kernel: &Kernel, call: &Ioctl<'_>) -> Result<u64> {
        let (mm, arg) = (call.mm, call.arg);
        let (size, flush) = match call.request {
            i::TCGETS => return mm.write(arg, &self.termios().to_bytes()[..TERMIOS]).map(|()| 0),
            i::TCGETS2 => return mm.write(arg, &self.termios().to_bytes()).map(|()| 0),
            i::TCGETA => return mm.write(arg, &self.termios().to_old_bytes()).map(|()| 0),
            // Nothing is ever locked.
            i::TIOCGLCKTRMIOS => return mm.write(arg, &[0; TERMIOS]).map(|()| 0),
            i::TCSETS | i::TCSETSW => (TERMIOS, false),
            i::TCSETSF => (TERMIOS, true),
            i::TCSETS2 | i::TCSETSW2 => (TERMIOS2, false),
            i::TCSETSF2 => (TERMIOS2, true),
            i::TCSETA | i::TCSETAW => (TERMIO, false),
            i::TCSETAF => (TERMIO, true),
            _ => return Err(Errno::ENOTTY),
        };
        kernel.may_change_terminal(call.caller, self.number())?;
        let mut raw = [0; TERMIOS2];
        mm.read(arg, &mut raw[..size])?;
        // What was written is the other side's at once: there is nothing to wait for.
        self.change(|line| line.set_termios(&raw[..size], flush));
        Ok(0)
    }

    /// tcsendbreak(3), tcdrain(3), tcflow(3), tcflush(3). There is no line to break, and what was written is the other
    /// side's at once.
    fn flow(&self, call: &Ioctl<'_>, master: bool) -> Result<u64> {
        match (call.request, call.arg) {
            (i::TCSBRK | i::TCSBRKP, _) => {}
            // The master's own queues are the slave's, the other way round; its settings nobody sees.
            (i::TCFLSH, TCIFLUSH..=TCIOFLUSH) => self.change(|line| {
                if (call.arg != TCOFLUSH) != (master && call.arg != TCIOFLUSH) {
                    line.flush_input();
                }
                if (call.arg != TCIFLUSH) != (master && call.arg != TCIOFLUSH) {
                    line.flush_output();
                }
            }),
            (i::TCXONC, TCOOFF..=TCION) if master => {}
            (i::TCXONC, TCOOFF) => self.change(|line| line.stop_output(true)),
            (i::TCXONC, TCOON) => self.change(|line| line.start_output(true)),
            (i::TCXONC, TCIOFF | TCION) => self.change(|line| {
                let key = line.set.control(if call.arg == TCIOFF { VSTOP } else { VSTART });
                if key != 0 && !line.out.is_full() {
                    line.print(&[key]);
                }
            }),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    fn window(&self, call: &Ioctl<'_>) -> Result<u64> {
        if call.request == i::TIOCGWINSZ {
            let window = self.state.lock().window;
            return call.mm.write(call.arg, &window).map(|()| 0);
        }
        let mut window = [0; 8];
        call.mm.read(call.arg, &mut window)?;
        let changed = std::mem::replace(&mut self.state.lock().window, window) != window;
        if changed {
            self.signal(&[SIGWINCH]);
        }
        Ok(0)
    }

    fn master_only(&self, call: &Ioctl<'_>) -> Result<u64> {
        let (mm, arg) = (call.mm, call.arg);
        match call.request {
            i::TIOCGPTN => mm.write_val(arg, &self.index)?,
            i::TIOCSPTLCK => {
                let lock: i32 = mm.read_val(arg)?;
                self.state.lock().locked = lock != 0;
            }
            i::TIOCGPTLCK => {
                let locked = self.state.lock().locked;
                mm.write_val(arg, &i32::from(locked))?;
            }
            i::TIOCPKT => {
                let on: i32 = mm.read_val(arg)?;
                self.change(|line| line.set_packets(on != 0));
            }
            i::TIOCGPKT => {
                let on = self.state.lock().line.has_packets();
                mm.write_val(arg, &i32::from(on))?;
            }
            _ => match arg as i32 {
                signo @ (SIGINT | SIGQUIT | SIGTSTP) => self.signal(&[signo]),
                _ => return Err(Errno::EINVAL),
            },
        }
        Ok(0)
    }

    fn other(&self, call: &Ioctl<'_>, master: bool) -> Result<u64> {
        let (mm, arg, side) = (call.mm, call.arg, usize::from(master));
        match call.request {
            i::FIONREAD => {
                let state = self.state.lock();
                let count = if master { state.line.out.len() } else { state.line.readable() };
                drop(state);
                mm.write_val(arg, &(count as i32))?;
            }
            // What was written is the other side's at once.
            i::TIOCOUTQ => mm.write_val(arg, &0i32)?,
            // N_TTY is the only discipline.
            i::TIOCGETD => mm.write_val(arg, &0i32)?,
            i::TIOCSETD if mm.read_val::<i32>(arg)? != 0 => return Err(Errno::EINVAL),
            i::TIOCSETD => {}
            // Typing for others is the administrator's (dev.tty.legacy_tiocsti is 0).
            i::TIOCSTI if !call.cred.has(Caps::SYS_ADMIN) => return Err(Errno::EIO),
            i::TIOCSTI => {
                let key: u8 = mm.read_val(arg)?;
                // What there is no room for is lost.
                self.change(|line| match master {
                    true if !line.out.is_full() => line.print(&[key]),
                    false if line.room() > 0 => line.type_bytes(&[key]),
                    _ => {}
                });
            }
            i::TIOCEXCL => self.state.lock().exclusive[side] = true,
            i::TIOCNXCL => self.state.lock().exclusive[side] = false,
            i::TIOCGEXCL => {
                let on = self.state.lock().exclusive[side];
                mm.write_val(arg, &i32::from(on))?;
            }
            // Of a master it opens the slave, which is not this layer's to do.
            i::TIOCGPTPEER => return Err(Errno::EIO),
            TIOCGDEV => mm.write_val(arg, &(self.number() as u32))?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}
