//! What goes to the master: output processing, echo, and the stops of both.

use super::termios::ECHOCTL;
use super::termios::{OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, Termios, XTABS};
use std::collections::VecDeque;

/// Most bytes waiting for the master.
pub(super) const OUTPUT_MAX: usize = 16 * 1024;
/// Most bytes of echo beyond that, or held while output is stopped; what is more is lost.
pub(super) const ECHO_MAX: usize = 4096;

/// Upper case as the kernel has it: of Latin 1.
fn to_upper(byte: u8) -> u8 {
    if byte.is_ascii_lowercase() || matches!(byte, 0xdf..=0xf6 | 0xf8..=0xff) { byte - 32 } else { byte }
}

#[derive(Default)]
pub(super) struct Output {
    /// What the master can read.
    queue: VecDeque<u8>,
    /// Echoes that wait for output to go on.
    held: VecDeque<u8>,
    /// Stopped by ^S or tcflow(3).
    stopped: bool,
    /// Stopped by tcflow(3): only that starts it again.
    by_program: bool,
    column: usize,
    /// The column at which the line that is being typed begins.
    start: usize,
}

impl Output {
    /// Bytes for the master.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How much programs may write. A byte can become two, or eight where tabs are expanded: the queue is bounded by
    /// eight times its size.
    pub(super) fn room(&self) -> usize {
        if self.stopped { 0 } else { OUTPUT_MAX.saturating_sub(self.queue.len()) / 2 }
    }

    /// Whether no more than echo may come, be output stopped or not.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= OUTPUT_MAX
    }

    /// Whether what is echoed is lost.
    pub(super) fn loses_echo(&self) -> bool {
        if self.stopped { self.held.len() >= ECHO_MAX } else { self.queue.len() >= OUTPUT_MAX + ECHO_MAX }
    }

    /// Up to `count` bytes, which stay: see [`consume`](Self::consume).
    pub(super) fn front(&self, count: usize) -> Vec<u8> {
        self.queue.iter().take(count).copied().collect()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.queue.drain(..count);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.held.clear();
    }

    /// Stops output; true if it was going on.
    pub(super) fn stop(&mut self, by_program: bool) -> bool {
        self.by_program |= by_program;
        !std::mem::replace(&mut self.stopped, true)
    }

    /// Lets output go on; true if it had stopped. Only a program undoes what a program did.
    pub(super) fn start(&mut self, by_program: bool) -> bool {
        if by_program {
            self.by_program = false;
        }
        if !self.stopped || self.by_program {
            return false;
        }
        self.stopped = false;
        self.queue.append(&mut self.held);
        true
    }

    /// Whether ^S, or whatever else is no program, has stopped it.
    pub(super) fn is_stopped_by_key(&self) -> bool {
        self.stopped && !self.by_program
    }

    fn emit(&mut self, bytes: &[u8], echo: bool) {
        if !echo {
            self.queue.extend(bytes);
        } else if !self.loses_echo() {
            if self.stopped { &mut self.held } else { &mut self.queue }.extend(bytes);
        }
    }

    /// One byte that a program writes.
    pub(super) fn print(&mut self, set: &Termios, byte: u8) {
        self.put(set, byte, false);
    }

    /// One byte as it is echoed: as if it was written.
    pub(super) fn echo_raw(&mut self, set: &Termios, byte: u8) {
        self.put(set, byte, true);
    }

    /// One byte as it is echoed: control characters as `^X`.
    pub(super) fn echo(&mut self, set: &Termios, byte: u8) {
        if set.local(ECHOCTL) && byte.is_ascii_control() && byte != b'\t' {
            self.emit(&[b'^', byte ^ 0o100], true);
            self.column += 2;
        } else {
            self.put(set, byte, true);
        }
    }

    /// A line begins to be typed here.
    pub(super) fn begin_line(&mut self) {
        self.start = self.column;
    }

    /// Goes back over a tab that followed `columns` columns of the line, or of what follows the tab before it.
    pub(super) fn erase_tab(&mut self, columns: usize, after_tab: bool) {
        let at = if after_tab { columns } else { columns + self.start };
        let back = 8 - (at & 7);
        self.emit(&[8; 8][..back], true);
        self.column = self.column.saturating_sub(back);
    }

    fn put(&mut self, set: &Termios, byte: u8, echo: bool) {
        if !set.output(OPOST) {
            return self.emit(&[byte], echo);
        }
        let mut byte = byte;
        match byte {
            b'\n' => {
                if set.output(ONLRET) {
                    self.column = 0;
                }
                if set.output(ONLCR) {
                    (self.column, self.start) = (0, 0);
                    return self.emit(b"\r\n", echo);
                }
                self.start = self.column;
            }
            b'\r' => {
                if set.output(ONOCR) && self.column == 0 {
                    return;
                }
                if set.output(OCRNL) {
                    byte = b'\n';
                }
                if !set.output(OCRNL) || set.output(ONLRET) {
                    (self.column, self.start) = (0, 0);
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                self.column += spaces;
                if set.oflag & XTABS == XTABS {
                    return self.emit(&[b' '; 8][..spaces], echo);
                }
            }
            8 => self.column = self.column.saturating_sub(1),
            _ if byte.is_ascii_control() => {}
            _ => {
                if set.output(OLCUC) {
                    byte = to_upper(byte);
                }
                if !set.is_continuation(byte) {
                    self.column += 1;
                }
            }
        }
        self.emit(&[byte], echo);
    }
}
