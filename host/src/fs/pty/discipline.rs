//! The N_TTY line discipline, as termios(3) describes it: editing, echo, signals, output processing.

use crate::abi::Result;
use crate::mm::IoDst;
use std::collections::VecDeque;

/// Most bytes waiting for the slave.
const INPUT_MAX: usize = 4096;
/// Most bytes waiting for the master.
const OUTPUT_MAX: usize = 16 * 1024;

// asm-generic/termbits.h
const BRKINT_IGNCR: u32 = 0o200;
const ICRNL: u32 = 0o400;
const INLCR: u32 = 0o100;
const ISTRIP: u32 = 0o40;
const IUTF8: u32 = 0o40000;
const OPOST: u32 = 0o1;
const ONLCR: u32 = 0o4;
const OCRNL: u32 = 0o10;
const ISIG: u32 = 0o1;
const ICANON: u32 = 0o2;
const ECHO: u32 = 0o10;
const ECHOE: u32 = 0o20;
const ECHOK: u32 = 0o40;
const ECHONL: u32 = 0o100;
const NOFLSH: u32 = 0o200;
const ECHOCTL: u32 = 0o1000;
const ECHOKE: u32 = 0o4000;
const IEXTEN: u32 = 0o100000;

/// Indices of `c_cc`.
const VINTR: usize = 0;
const VQUIT: usize = 1;
const VERASE: usize = 2;
const VKILL: usize = 3;
const VEOF: usize = 4;
const VMIN: usize = 6;
const VSUSP: usize = 10;
const VEOL: usize = 11;
const VWERASE: usize = 14;
const VLNEXT: usize = 15;
const VEOL2: usize = 16;

use crate::kernel::signal::{SIGINT, SIGQUIT, SIGTSTP};

pub(super) struct Discipline {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    cc: [u8; 19],
    speeds: [u32; 2],
    /// The line being edited.
    edit: Vec<u8>,
    /// What the slave can read; in canonical mode whole lines, whose ends are in `ends`.
    input: VecDeque<u8>,
    /// Lengths of the lines in `input`; an empty one is an end of file.
    lines: VecDeque<usize>,
    /// What the master can read.
    output: VecDeque<u8>,
    column: usize,
    literal: bool,
}

impl Discipline {
    pub(super) fn new() -> Self {
        let mut cc = [0; 19];
        for (index, value) in [
            (VINTR, 3),
            (VQUIT, 28),
            (VERASE, 127),
            (VKILL, 21),
            (VEOF, 4),
            (VMIN, 1),
            (8, 17),
            (9, 19),
            (VSUSP, 26),
            (12, 18),
            (13, 15),
            (VWERASE, 23),
            (VLNEXT, 22),
        ] {
            cc[index] = value;
        }
        Discipline {
            iflag: ICRNL | 0o2000,
            oflag: OPOST | ONLCR,
            cflag: 0o277,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
            speeds: [38400; 2],
            edit: Vec::new(),
            input: VecDeque::new(),
            lines: VecDeque::new(),
            output: VecDeque::new(),
            column: 0,
            literal: false,
        }
    }

    /// `struct termios2`; its first 36 bytes are `struct termios`.
    pub(super) fn termios(&self) -> [u8; 44] {
        let mut raw = [0; 44];
        for (at, word) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            raw[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        raw[16] = self.line;
        raw[17..36].copy_from_slice(&self.cc);
        raw[36..40].copy_from_slice(&self.speeds[0].to_ne_bytes());
        raw[40..44].copy_from_slice(&self.speeds[1].to_ne_bytes());
        raw
    }

    pub(super) fn set_termios(&mut self, raw: &[u8], flush: bool) {
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let was_canonical = self.lflag & ICANON != 0;
        (self.iflag, self.oflag, self.cflag, self.lflag) = (word(0), word(4), word(8), word(12));
        self.line = raw[16];
        self.cc.copy_from_slice(&raw[17..36]);
        if raw.len() >= 44 {
            self.speeds = [word(36), word(40)];
        }
        if flush {
            self.flush(true, false);
        }
        let canonical = self.lflag & ICANON != 0;
        if was_canonical && !canonical {
            // What was typed so far can be read at once.
            self.input.extend(self.edit.drain(..));
            self.lines.clear();
        } else if canonical && !was_canonical && !self.input.is_empty() {
            self.lines.push_back(self.input.len());
        }
    }

    /// Throws away what was not read.
    pub(super) fn flush(&mut self, input: bool, output: bool) {
        if input {
            self.input.clear();
            self.lines.clear();
            self.edit.clear();
        }
        if output {
            self.output.clear();
        }
    }

    /// How much the master may write.
    pub(super) fn room(&self) -> usize {
        // In canonical mode an overlong line must not block its own end.
        let held = self.input.len() + if self.lflag & ICANON != 0 { 0 } else { self.edit.len() };
        INPUT_MAX.saturating_sub(held)
    }

    /// Bytes for the master.
    pub(super) fn output(&self) -> usize {
        self.output.len()
    }

    /// How much the slave may write (each byte may become two).
    pub(super) fn output_room(&self) -> usize {
        OUTPUT_MAX.saturating_sub(self.output.len()) / 2
    }

    /// Bytes that a read would give.
    pub(super) fn readable(&self) -> usize {
        if self.lflag & ICANON != 0 { self.lines.front().copied().unwrap_or(0) } else { self.input.len() }
    }

    /// Whether a read would not wait.
    pub(super) fn is_ready(&self) -> bool {
        if self.lflag & ICANON != 0 {
            !self.lines.is_empty()
        } else {
            self.input.len() >= usize::from(self.cc[VMIN].max(1))
        }
    }

    /// Reads for the slave; `None` if there is nothing yet.
    pub(super) fn read(&mut self, dst: &mut IoDst<'_>) -> Result<Option<usize>> {
        let canonical = self.lflag & ICANON != 0;
        let limit = if canonical {
            match self.lines.front() {
                None => return Ok(None),
                Some(len) => *len,
            }
        } else {
            if self.input.len() < usize::from(self.cc[VMIN]) {
                return Ok(None);
            }
            if self.input.is_empty() {
                return Ok(Some(0));
            }
            self.input.len()
        };
        let want = limit.min(dst.remaining());
        let bytes: Vec<u8> = self.input.iter().take(want).copied().collect();
        let got = if want == 0 { 0 } else { dst.write_bytes(&bytes)? };
        self.input.drain(..got);
        if canonical {
            if got == limit {
                self.lines.pop_front();
            } else if let Some(line) = self.lines.front_mut() {
                *line -= got;
            }
        }
        Ok(Some(got))
    }

    /// Hands output to the master.
    pub(super) fn take_output(&mut self, dst: &mut IoDst<'_>) -> Result<usize> {
        let bytes: Vec<u8> = self.output.iter().take(dst.remaining()).copied().collect();
        let got = if bytes.is_empty() { 0 } else { dst.write_bytes(&bytes)? };
        self.output.drain(..got);
        Ok(got)
    }

    /// What the slave writes.
    pub(super) fn print(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.put(byte);
        }
    }

    fn put(&mut self, byte: u8) {
        if self.oflag & OPOST != 0 {
            match byte {
                b'\n' if self.oflag & ONLCR != 0 => {
                    self.output.push_back(b'\r');
                    self.column = 0;
                }
                b'\r' if self.oflag & OCRNL != 0 => {
                    self.output.push_back(b'\n');
                    return;
                }
                b'\r' => self.column = 0,
                8 => self.column = self.column.saturating_sub(1),
                b' '.. => self.column += 1,
                _ => {}
            }
        }
        self.output.push_back(byte);
    }

    /// What the master writes. Returns the signals that the keys meant.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Vec<i32> {
        let mut signals = Vec::new();
        for &byte in bytes {
            signals.extend(self.key(byte));
        }
        signals
    }

    fn is(&self, index: usize, byte: u8) -> bool {
        self.cc[index] != 0 && self.cc[index] == byte
    }

    fn key(&mut self, byte: u8) -> Option<i32> {
        let mut byte = if self.iflag & ISTRIP != 0 { byte & 0x7f } else { byte };
        if std::mem::take(&mut self.literal) {
            self.accept(byte);
            return None;
        }
        match byte {
            b'\r' if self.iflag & BRKINT_IGNCR != 0 => return None,
            b'\r' if self.iflag & ICRNL != 0 => byte = b'\n',
            b'\n' if self.iflag & INLCR != 0 => byte = b'\r',
            _ => {}
        }
        if self.lflag & ISIG != 0 {
            let signal = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)]
                .into_iter()
                .find(|(index, _)| self.is(*index, byte));
            if let Some((_, signo)) = signal {
                if self.lflag & NOFLSH == 0 {
                    self.flush(true, true);
                }
                self.echo(byte);
                return Some(signo);
            }
        }
        if self.lflag & ICANON == 0 {
            self.echo(byte);
            self.input.push_back(byte);
            return None;
        }
        if self.lflag & IEXTEN != 0 && self.is(VLNEXT, byte) {
            self.literal = true;
            return None;
        }
        if self.is(VERASE, byte) {
            self.erase();
        } else if self.lflag & IEXTEN != 0 && self.is(VWERASE, byte) {
            while self.edit.last().is_some_and(|b| b.is_ascii_whitespace()) {
                self.erase();
            }
            while self.edit.last().is_some_and(|b| !b.is_ascii_whitespace()) {
                self.erase();
            }
        } else if self.is(VKILL, byte) {
            while !self.edit.is_empty() {
                self.erase();
            }
        } else if self.is(VEOF, byte) {
            self.end_line();
        } else if byte == b'\n' || self.is(VEOL, byte) || self.is(VEOL2, byte) {
            if self.lflag & ECHO != 0 || (byte == b'\n' && self.lflag & ECHONL != 0) {
                self.put(byte);
            }
            self.edit.push(byte);
            self.end_line();
        } else {
            self.accept(byte);
        }
        None
    }

    fn accept(&mut self, byte: u8) {
        if self.lflag & ICANON == 0 {
            self.input.push_back(byte);
        } else if self.edit.len() < INPUT_MAX - 1 {
            self.edit.push(byte);
        }
        self.echo(byte);
    }

    fn end_line(&mut self) {
        self.lines.push_back(self.edit.len());
        self.input.extend(self.edit.drain(..));
    }

    fn echo(&mut self, byte: u8) {
        if self.lflag & ECHO == 0 {
            return;
        }
        let control = byte < 32 && byte != b'\n' && byte != b'\t';
        if (control || byte == 127) && self.lflag & ECHOCTL != 0 {
            self.put(b'^');
            self.put(byte ^ 0x40);
        } else {
            self.put(byte);
        }
    }

    fn erase(&mut self) {
        let Some(mut byte) = self.edit.pop() else { return };
        if self.iflag & IUTF8 != 0 {
            // The rest of a multi-byte character goes with its last byte.
            while byte & 0xc0 == 0x80 {
                let Some(before) = self.edit.pop() else { break };
                byte = before;
            }
        }
        if self.lflag & (ECHO | ECHOE) == ECHO | ECHOE {
            let width = if (byte < 32 || byte == 127) && self.lflag & ECHOCTL != 0 { 2 } else { 1 };
            for _ in 0..width {
                for out in [8, b' ', 8] {
                    self.put(out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &mut Discipline) -> Option<String> {
        let mut bytes = [0; 100];
        let got = line.read(&mut IoDst::kernel(&mut bytes)).unwrap()?;
        Some(String::from_utf8(bytes[..got].to_vec()).unwrap())
    }

    fn output(line: &mut Discipline) -> String {
        let mut bytes = [0; 100];
        let got = line.take_output(&mut IoDst::kernel(&mut bytes)).unwrap();
        String::from_utf8(bytes[..got].to_vec()).unwrap()
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        let mut line = Discipline::new();
        assert!(line.input(b"helo\x7flo\r").is_empty());
        assert_eq!(read(&mut line).as_deref(), Some("hello\n"));
        assert_eq!(output(&mut line), "helo\x08 \x08lo\r\n");
        assert_eq!(read(&mut line), None);
        line.input(b"a b c\x17\x17x\x04");
        assert_eq!(read(&mut line).as_deref(), Some("a x"));
        line.input(b"\x04");
        assert_eq!(read(&mut line).as_deref(), Some(""));
    }

    #[test]
    fn keys_signal() {
        let mut line = Discipline::new();
        assert_eq!(line.input(b"abc\x03"), [SIGINT]);
        assert_eq!(read(&mut line), None);
        assert_eq!(output(&mut line), "^C");
        assert_eq!(line.input(b"\x1a"), [SIGTSTP]);
    }

    #[test]
    fn raw_mode_passes_bytes() {
        let mut line = Discipline::new();
        let mut raw = line.termios();
        raw[0..16].fill(0);
        line.set_termios(&raw, false);
        line.input(b"\x03x\r");
        assert_eq!(read(&mut line).as_deref(), Some("\x03x\r"));
        line.print(b"a\n");
        assert_eq!(output(&mut line), "a\n");
    }
}
