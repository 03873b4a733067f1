//! What comes from the keys: editing of lines, signals, flow control (n_tty_receive_char and what it calls).

use super::discipline::Discipline;
use super::termios::{
    ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOPRT, ICANON, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP,
    IUCLC, IXANY, IXON, NOFLSH, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VQUIT, VREPRINT, VSTART,
    VSTOP, VSUSP, VWERASE,
};
use crate::kernel::signal::{SIGINT, SIGQUIT, SIGTSTP};

/// Lower case as the kernel has it: of Latin 1.
fn to_lower(byte: u8) -> u8 {
    if byte.is_ascii_uppercase() || matches!(byte, 0xc0..=0xd6 | 0xd8..=0xde) { byte + 32 } else { byte }
}

/// Which key erases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Character,
    Word,
    Line,
}

impl Discipline {
    /// One byte that was typed.
    pub(super) fn key(&mut self, byte: u8) {
        let mut byte = if self.set.input(ISTRIP) { byte & 0x7f } else { byte };
        if self.set.input(IUCLC) && self.set.local(IEXTEN) {
            byte = to_lower(byte);
        }
        if std::mem::take(&mut self.literal) {
            self.restart_on_any_key();
            return self.accept(byte);
        }
        if self.is_flow_control(byte) || self.is_signal(byte) {
            return;
        }
        self.restart_on_any_key();
        match byte {
            b'\r' if self.set.input(IGNCR) => return,
            b'\r' if self.set.input(ICRNL) => byte = b'\n',
            b'\n' if self.set.input(INLCR) => byte = b'\r',
            _ => {}
        }
        if self.set.local(ICANON) && self.edits(byte) {
            return;
        }
        self.accept(byte);
    }

    fn restart_on_any_key(&mut self) {
        if self.out.is_stopped_by_key() && self.set.input(IXON) && self.set.input(IXANY) {
            self.start_output(false);
        }
    }

    fn is_flow_control(&mut self, byte: u8) -> bool {
        if !self.set.input(IXON) {
            return false;
        }
        if self.set.is(VSTART, byte) {
            self.start_output(false);
        } else if self.set.is(VSTOP, byte) {
            self.stop_output(false);
        } else {
            return false;
        }
        true
    }

    fn is_signal(&mut self, byte: u8) -> bool {
        if !self.set.local(ISIG) {
            return false;
        }
        let keys = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)];
        let Some((_, signo)) = keys.into_iter().find(|(index, _)| self.set.is(*index, byte)) else {
            return false;
        };
        if !self.set.local(NOFLSH) {
            self.flush_output();
            self.flush_lines();
        }
        if !self.signals.contains(&signo) {
            self.signals.push(signo);
        }
        if self.set.input(IXON) {
            self.start_output(false);
        }
        if self.set.local(ECHO) {
            self.out.echo(&self.set, byte);
        }
        true
    }

    /// What keys mean while lines are edited; false if `byte` is a part of the line.
    fn edits(&mut self, byte: u8) -> bool {
        let extended = self.set.local(IEXTEN);
        if self.set.is(VERASE, byte) {
            self.erase(Erase::Character);
        } else if self.set.is(VKILL, byte) {
            self.erase(Erase::Line);
        } else if extended && self.set.is(VWERASE, byte) {
            self.erase(Erase::Word);
        } else if extended && self.set.is(VLNEXT, byte) {
            self.literal = true;
            if self.set.local(ECHO) {
                self.finish_erasing();
                if self.set.local(ECHOCTL) {
                    self.out.echo_raw(&self.set, b'^');
                    self.out.echo_raw(&self.set, 8);
                }
            }
        } else if extended && self.set.local(ECHO) && self.set.is(VREPRINT, byte) {
            self.finish_erasing();
            self.out.echo(&self.set, byte);
            self.out.echo_raw(&self.set, b'\n');
            for at in 0..self.edit.len() {
                if self.out.loses_echo() {
                    break;
                }
                self.out.echo(&self.set, self.edit[at]);
            }
        } else if self.set.is(VEOF, byte) {
            self.end_line(true);
        } else if byte == b'\n' {
            if self.set.local(ECHO | ECHONL) {
                self.out.echo_raw(&self.set, byte);
            }
            self.edit.push(byte);
            self.end_line(false);
        } else if self.set.is(VEOL, byte) || extended && self.set.is(VEOL2, byte) {
            if self.set.local(ECHO) {
                self.mark_start();
                self.out.echo(&self.set, byte);
            }
            self.edit.push(byte);
            self.end_line(false);
        } else {
            return false;
        }
        true
    }

    fn mark_start(&mut self) {
        if self.edit.is_empty() {
            self.out.begin_line();
        }
    }

    /// A byte for the program.
    fn accept(&mut self, byte: u8) {
        if self.set.local(ECHO) {
            self.finish_erasing();
            if byte == b'\n' {
                self.out.echo_raw(&self.set, byte);
            } else {
                self.mark_start();
                self.out.echo(&self.set, byte);
            }
        }
        if self.set.local(ICANON) {
            self.edit.push(byte);
        } else {
            self.input.push_back(byte);
        }
    }

    fn finish_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.out.echo_raw(&self.set, b'/');
        }
    }

    fn erase(&mut self, what: Erase) {
        let echo = self.set.local(ECHO);
        if what == Erase::Line
            && !(echo && self.set.lflag & (ECHOK | ECHOKE | ECHOE) == ECHOK | ECHOKE | ECHOE)
        {
            if !self.edit.is_empty() && echo {
                self.finish_erasing();
                self.out.echo(&self.set, self.set.control(VKILL));
                if self.set.local(ECHOK) {
                    self.out.echo_raw(&self.set, b'\n');
                }
            }
            self.edit.clear();
            return;
        }
        let mut in_word = false;
        while let Some(start) = self.last_character() {
            let first = self.edit[start];
            if what == Erase::Word {
                if first.is_ascii_alphanumeric() || first == b'_' {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            let erased = self.edit.split_off(start);
            if echo {
                self.show_erased(what, &erased);
            }
            if what == Erase::Character {
                break;
            }
        }
        if self.edit.is_empty() && echo {
            self.finish_erasing();
        }
    }

    /// Where the last character of the line begins, with all its bytes; none is erased partly.
    fn last_character(&self) -> Option<usize> {
        self.edit.iter().rposition(|byte| !self.set.is_continuation(*byte))
    }

    fn show_erased(&mut self, what: Erase, erased: &[u8]) {
        let first = erased[0];
        if self.set.local(ECHOPRT) {
            if !std::mem::replace(&mut self.erasing, true) {
                self.out.echo_raw(&self.set, b'\\');
            }
            self.out.echo(&self.set, first);
            for byte in &erased[1..] {
                self.out.echo_raw(&self.set, *byte);
            }
        } else if what == Erase::Character && !self.set.local(ECHOE) {
            self.out.echo(&self.set, self.set.control(VERASE));
        } else if first == b'\t' {
            let (columns, after_tab) = self.columns_of_line();
            self.out.erase_tab(columns, after_tab);
        } else {
            let control = first.is_ascii_control();
            let width = match (control, self.set.local(ECHOCTL)) {
                (false, _) => 1,
                (true, true) => 2,
                (true, false) => 0,
            };
            for _ in 0..width {
                for byte in [8, b' ', 8] {
                    self.out.echo_raw(&self.set, byte);
                }
            }
        }
    }

    /// Columns that the line takes, or what follows its last tab; and whether there is such a tab.
    fn columns_of_line(&self) -> (usize, bool) {
        let tab = self.edit.iter().rposition(|byte| *byte == b'\t');
        let rest = &self.edit[tab.map_or(0, |at| at + 1)..];
        let width = |byte: &u8| match byte {
            _ if byte.is_ascii_control() => 2 * usize::from(self.set.local(ECHOCTL)),
            _ => usize::from(!self.set.is_continuation(*byte)),
        };
        (rest.iter().map(width).sum(), tab.is_some())
    }
}
