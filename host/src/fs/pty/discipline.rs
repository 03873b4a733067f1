//! The N_TTY line discipline (termios(3), n_tty.c): what was written and not read yet, on both sides.
//!
//! The master's bytes wait in `raw` until there is room for what they become; keys then fill a line (`edit`), and lines,
//! or single bytes where lines are not edited, wait in `input` for the slave.

use super::output::Output;
use super::termios::{ICANON, IXON, Pace, TOSTOP, Termios};
use crate::abi::Result;
use crate::mm::IoDst;
use std::collections::VecDeque;

/// Most bytes that are read or edited (N_TTY_BUF_SIZE).
const INPUT_MAX: usize = 4096;
/// Most bytes that wait to be looked at, as a tty port's buffer.
const RAW_MAX: usize = 64 * 1024;

/// Most keys that are looked at in one go: each can mean a look at the whole line.
const KEYS: usize = 64;

/// What packet mode tells the master (TIOCPKT, ioctl_tty(2)).
pub(super) mod packet {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const FLUSHREAD: u8 = 1;
    pub(crate) const FLUSHWRITE: u8 = 2;
    pub(crate) const STOP: u8 = 4;
    pub(crate) const START: u8 = 8;
    pub(crate) const NOSTOP: u8 = 16;
    pub(crate) const DOSTOP: u8 = 32;
}

/// A line in the input.
struct Line {
    /// Bytes of it that were not read.
    len: usize,
    /// A key without a byte of its own has ended it (VEOF): it takes one's room.
    by_key: bool,
}

pub(super) struct Discipline {
    pub(super) set: Termios,
    /// What the master wrote and nobody has looked at.
    raw: VecDeque<u8>,
    /// The line being edited.
    pub(super) edit: Vec<u8>,
    /// What the slave can read; in canonical mode whole lines, whose ends are in `lines`.
    pub(super) input: VecDeque<u8>,
    /// The lines in `input`; an empty one is an end of file.
    lines: VecDeque<Line>,
    /// Those of them that a key has ended.
    by_key: usize,
    pub(super) out: Output,
    /// The next key is no command.
    pub(super) literal: bool,
    /// What is erased is being shown between `\` and `/` (ECHOPRT).
    pub(super) erasing: bool,
    /// Signals that keys meant, for [`take_signals`](Self::take_signals).
    pub(super) signals: Vec<i32>,
    /// The master reads packets.
    packets: bool,
    /// What it has not been told in packet mode.
    status: u8,
}

impl Discipline {
    pub(super) fn new() -> Self {
        Discipline {
            set: Termios::new(),
            raw: VecDeque::new(),
            edit: Vec::new(),
            input: VecDeque::new(),
            lines: VecDeque::new(),
            by_key: 0,
            out: Output::default(),
            literal: false,
            erasing: false,
            signals: Vec::new(),
            packets: false,
            status: 0,
        }
    }

    fn is_canonical(&self) -> bool {
        self.set.local(ICANON)
    }

    pub(super) fn pace(&self) -> Pace {
        self.set.pace()
    }

    /// Whether writes of background processes stop them.
    pub(super) fn stops_background_writes(&self) -> bool {
        self.set.local(TOSTOP)
    }

    /// Changes the settings to what one of the termios structures says.
    pub(super) fn set_termios(&mut self, raw: &[u8], flush: bool) {
        if flush {
            self.flush_lines();
        }
        let new = self.set.with(raw);
        let old = std::mem::replace(&mut self.set, new);
        let (was, is) = (old.local(ICANON), self.is_canonical());
        if was && !is {
            // What was typed so far can be read at once.
            self.input.extend(self.edit.drain(..));
            self.forget_lines();
        } else if is && !was && !self.input.is_empty() {
            self.lines.push_back(Line { len: self.input.len(), by_key: false });
        }
        if was != is {
            (self.literal, self.erasing) = (false, false);
        }
        if old.input(IXON) && !self.set.input(IXON) {
            self.start_output(false);
        }
        let (had, has) = (old.has_plain_flow_control(), self.set.has_plain_flow_control());
        if had != has {
            self.tell(packet::DOSTOP | packet::NOSTOP, if has { packet::DOSTOP } else { packet::NOSTOP });
        }
    }

    /// Notes what packet mode says next, in place of the `cleared` bits.
    fn tell(&mut self, cleared: u8, status: u8) {
        if self.packets {
            self.status = self.status & !cleared | status;
        }
    }

    /// Switches packet mode.
    pub(super) fn set_packets(&mut self, on: bool) {
        if on && !self.packets {
            self.status = 0;
        }
        self.packets = on;
    }

    pub(super) fn has_packets(&self) -> bool {
        self.packets
    }

    /// Whether packet mode has something to tell.
    pub(super) fn has_status(&self) -> bool {
        self.packets && self.status != 0
    }

    pub(super) fn stop_output(&mut self, by_program: bool) {
        if self.out.stop(by_program) {
            self.tell(packet::START, packet::STOP);
        }
    }

    pub(super) fn start_output(&mut self, by_program: bool) {
        if self.out.start(by_program) {
            self.tell(packet::STOP, packet::START);
        }
    }

    /// Throws away what was typed and not looked at, and what was not read.
    pub(super) fn flush_input(&mut self) {
        self.raw.clear();
        self.flush_lines();
    }

    /// Throws away what was not read.
    pub(super) fn flush_lines(&mut self) {
        self.input.clear();
        self.forget_lines();
        self.edit.clear();
        self.erasing = false;
        self.tell(0, packet::FLUSHREAD);
    }

    fn forget_lines(&mut self) {
        self.lines.clear();
        self.by_key = 0;
    }

    /// Throws away what the master has not read.
    pub(super) fn flush_output(&mut self) {
        self.out.clear();
        self.tell(0, packet::FLUSHWRITE);
    }

    /// How much the master may write.
    pub(super) fn room(&self) -> usize {
        RAW_MAX.saturating_sub(self.raw.len())
    }

    /// Bytes that the slave could read, line by line (FIONREAD).
    pub(super) fn readable(&self) -> usize {
        self.input.len()
    }

    /// Whether poll(2) calls the slave readable.
    pub(super) fn is_ready(&self) -> bool {
        let pace = self.pace();
        if pace.canonical {
            return !self.lines.is_empty();
        }
        let wanted = if pace.time == 0 { pace.min.max(1) } else { 1 };
        self.input.len() >= wanted
    }

    /// What the slave can read at once: a line or a part of it, or bytes; `None` if there is nothing.
    pub(super) fn take(&mut self, dst: &mut IoDst<'_>) -> Result<Option<usize>> {
        let canonical = self.is_canonical();
        let limit = if canonical { self.lines.front().map(|line| line.len) } else { Some(self.input.len()) };
        let Some(limit) = limit.filter(|limit| canonical || *limit > 0) else { return Ok(None) };
        let want = limit.min(dst.remaining());
        let bytes: Vec<u8> = self.input.iter().take(want).copied().collect();
        let got = if want == 0 { 0 } else { dst.write_bytes(&bytes)? };
        self.input.drain(..got);
        if canonical {
            if got < limit {
                self.lines.iter_mut().take(1).for_each(|line| line.len -= got);
            } else if let Some(line) = self.lines.pop_front() {
                self.by_key -= usize::from(line.by_key);
            }
        }
        Ok(Some(got))
    }

    /// Hands output to the master; in packet mode behind a byte that says what it is.
    pub(super) fn take_output(&mut self, dst: &mut IoDst<'_>) -> Result<usize> {
        let head = usize::from(self.packets);
        if dst.remaining() == 0 || (self.out.len() == 0 && !self.has_status()) {
            return Ok(0);
        }
        if self.has_status() {
            let got = dst.write_bytes(&[self.status])?;
            self.status = 0;
            return Ok(got);
        }
        let mut bytes = vec![packet::DATA; head];
        bytes.extend(self.out.front(dst.remaining() - head));
        let got = dst.write_bytes(&bytes)?;
        self.out.consume(got.saturating_sub(head));
        Ok(got)
    }

    /// What the slave writes.
    pub(super) fn print(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.out.print(&self.set, byte);
        }
    }

    /// What the master writes.
    pub(super) fn type_bytes(&mut self, bytes: &[u8]) {
        self.raw.extend(bytes);
    }

    /// The signals that keys have meant since it was asked last.
    pub(super) fn take_signals(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.signals)
    }

    /// Looks at some of what the master wrote: [`is_behind`](Self::is_behind) says whether there is more to do. A line that
    /// is longer than the buffer keeps its last byte's place for what comes, so that it can still be ended and erased.
    pub(super) fn work(&mut self) {
        for _ in 0..KEYS {
            if !self.is_behind() {
                return;
            }
            let Some(byte) = self.raw.pop_front() else { return };
            if self.held() >= INPUT_MAX {
                self.edit.pop();
            }
            self.key(byte);
        }
    }

    /// Places that are taken in the buffer.
    fn held(&self) -> usize {
        self.input.len() + self.edit.len() + self.by_key
    }

    /// Whether there is something to look at, and room for it.
    pub(super) fn is_behind(&self) -> bool {
        let room = self.held() < INPUT_MAX - 1 || self.is_canonical() && self.lines.is_empty();
        room && !self.raw.is_empty()
    }

    pub(super) fn end_line(&mut self, by_key: bool) {
        self.lines.push_back(Line { len: self.edit.len(), by_key });
        self.by_key += usize::from(by_key);
        self.input.extend(self.edit.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::{ECHO_MAX, OUTPUT_MAX};
    use super::super::termios::{ECHO, IUTF8, TERMIOS2};
    use super::*;
    use crate::kernel::signal::{SIGINT, SIGTSTP};

    /// As those who change something do.
    fn catch_up(line: &mut Discipline) {
        while line.is_behind() {
            line.work();
        }
    }

    fn typed(line: &mut Discipline, bytes: &[u8]) {
        line.type_bytes(bytes);
        catch_up(line);
    }

    fn read(line: &mut Discipline) -> Option<String> {
        let mut bytes = [0; 5000];
        let got = line.take(&mut IoDst::kernel(&mut bytes)).unwrap()?;
        catch_up(line);
        Some(String::from_utf8(bytes[..got].to_vec()).unwrap())
    }

    fn output(line: &mut Discipline) -> String {
        let mut bytes = [0; 100];
        let got = line.take_output(&mut IoDst::kernel(&mut bytes)).unwrap();
        String::from_utf8(bytes[..got].to_vec()).unwrap()
    }

    /// With flags of `c_iflag`, `c_oflag`, `c_lflag` set and others cleared.
    fn change(line: &mut Discipline, set: [u32; 3], cleared: [u32; 3]) {
        let mut new = line.set.clone();
        for (flag, (on, off)) in
            [&mut new.iflag, &mut new.oflag, &mut new.lflag].into_iter().zip(set.into_iter().zip(cleared))
        {
            *flag = *flag & !off | on;
        }
        let raw: [u8; TERMIOS2] = new.to_bytes();
        line.set_termios(&raw, false);
        catch_up(line);
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        let mut line = Discipline::new();
        typed(&mut line, b"helo\x7flo\r");
        assert_eq!(read(&mut line).as_deref(), Some("hello\n"));
        assert_eq!(output(&mut line), "helo\x08 \x08lo\r\n");
        assert_eq!(read(&mut line), None);
        typed(&mut line, b"a b c\x17\x17x\x04");
        assert_eq!(read(&mut line).as_deref(), Some("a x"));
        typed(&mut line, b"\x04");
        assert_eq!(read(&mut line).as_deref(), Some(""));
    }

    #[test]
    fn keys_signal() {
        let mut line = Discipline::new();
        typed(&mut line, b"abc\x03");
        assert_eq!(line.take_signals(), [SIGINT]);
        assert_eq!(read(&mut line), None);
        assert_eq!(output(&mut line), "^C");
        typed(&mut line, b"\x1a");
        assert_eq!(line.take_signals(), [SIGTSTP]);
    }

    #[test]
    fn raw_mode_passes_bytes() {
        let mut line = Discipline::new();
        change(&mut line, [0; 3], [!0; 3]);
        typed(&mut line, b"\x03x\r");
        assert_eq!(read(&mut line).as_deref(), Some("\x03x\r"));
        line.print(b"a\n");
        assert_eq!(output(&mut line), "a\n");
    }

    #[test]
    fn a_character_is_erased_whole_and_a_tab_to_its_column() {
        let mut line = Discipline::new();
        change(&mut line, [IUTF8, 0, 0], [0; 3]);
        typed(&mut line, "é\u{7f}a\t\u{7f}\n".as_bytes());
        assert_eq!(read(&mut line).as_deref(), Some("a\n"));
        let back = "\x08".repeat(7);
        assert_eq!(output(&mut line), format!("é\x08 \x08a\t{back}\r\n"));
    }

    #[test]
    fn output_stops_and_goes_on_with_what_was_echoed() {
        let mut line = Discipline::new();
        line.set_packets(true);
        typed(&mut line, b"a\x13b");
        assert_eq!(line.out.room(), 0);
        assert_eq!(output(&mut line), "\x04");
        assert_eq!(output(&mut line), "\0a");
        assert_eq!(output(&mut line), "");
        typed(&mut line, b"\x11");
        assert_eq!(output(&mut line), "\x08");
        assert_eq!(output(&mut line), "\0b");
    }

    #[test]
    fn a_line_that_is_too_long_can_still_be_ended() {
        let mut line = Discipline::new();
        change(&mut line, [0; 3], [0, 0, ECHO]);
        typed(&mut line, &[b'L'; 5000]);
        typed(&mut line, b"\nnext\n");
        let long = read(&mut line).unwrap();
        assert_eq!((long.len(), long.ends_with("L\n")), (4096, true));
        assert_eq!(read(&mut line).as_deref(), Some("next\n"));
        change(&mut line, [0; 3], [0, 0, ICANON]);
        let room = line.room();
        typed(&mut line, &[b'r'; 70_000][..room]);
        assert_eq!(line.room(), INPUT_MAX - 1);
        let mut total = 0;
        while let Some(part) = read(&mut line) {
            total += part.len();
        }
        assert_eq!(total, RAW_MAX);
    }

    #[test]
    fn ends_of_file_take_room() {
        let mut line = Discipline::new();
        typed(&mut line, &[4; RAW_MAX]);
        assert_eq!(line.lines.len(), INPUT_MAX - 1);
        assert_eq!(line.room(), INPUT_MAX - 1);
        typed(&mut line, &[4; INPUT_MAX - 1]);
        assert_eq!(line.room(), 0);
        assert_eq!(read(&mut line).as_deref(), Some(""));
        assert_eq!((line.lines.len(), line.room()), (INPUT_MAX - 1, 1));
        line.flush_input();
        typed(&mut line, b"a\x04\x04");
        assert_eq!((line.held(), line.lines.len()), (3, 2));
        assert_eq!(read(&mut line).as_deref(), Some("a"));
        assert_eq!(read(&mut line).as_deref(), Some(""));
        assert_eq!(line.held(), 0);
    }

    #[test]
    fn a_line_is_not_shown_again_where_nobody_will_see_it() {
        let mut line = Discipline::new();
        typed(&mut line, &[b'a'; 4000]);
        typed(&mut line, &[0x12; 60_000]);
        let full = line.out.len();
        assert!(line.out.loses_echo() && full < OUTPUT_MAX + ECHO_MAX + 10, "{full}");
        // What is typed goes on a few keys at a time.
        line.type_bytes(&[0x12; 1000]);
        line.work();
        assert_eq!(line.raw.len(), 1000 - KEYS);
    }
}
