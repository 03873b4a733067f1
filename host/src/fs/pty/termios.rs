//! `struct termios` of a terminal: flags, control characters, and the three layouts that programs pass (termios(3),
//! ioctl_tty(2)).

// asm-generic/termbits.h and termbits-common.h; what the discipline does not look at is kept and reported only.
pub(super) const ISTRIP: u32 = 0o40;
pub(super) const INLCR: u32 = 0o100;
pub(super) const IGNCR: u32 = 0o200;
pub(super) const ICRNL: u32 = 0o400;
pub(super) const IUCLC: u32 = 0o1000;
pub(super) const IXON: u32 = 0o2000;
pub(super) const IXANY: u32 = 0o4000;
pub(super) const IUTF8: u32 = 0o40000;
pub(super) const OPOST: u32 = 0o1;
pub(super) const OLCUC: u32 = 0o2;
pub(super) const ONLCR: u32 = 0o4;
pub(super) const OCRNL: u32 = 0o10;
pub(super) const ONOCR: u32 = 0o20;
pub(super) const ONLRET: u32 = 0o40;
/// TABDLY, all of it: tabs become spaces.
pub(super) const XTABS: u32 = 0o14000;
const CSIZE: u32 = 0o60;
const CS8: u32 = 0o60;
const CREAD: u32 = 0o200;
const PARENB: u32 = 0o400;
pub(super) const ISIG: u32 = 0o1;
pub(super) const ICANON: u32 = 0o2;
pub(super) const ECHO: u32 = 0o10;
pub(super) const ECHOE: u32 = 0o20;
pub(super) const ECHOK: u32 = 0o40;
pub(super) const ECHONL: u32 = 0o100;
pub(super) const NOFLSH: u32 = 0o200;
pub(super) const TOSTOP: u32 = 0o400;
pub(super) const ECHOCTL: u32 = 0o1000;
pub(super) const ECHOPRT: u32 = 0o2000;
pub(super) const ECHOKE: u32 = 0o4000;
pub(super) const IEXTEN: u32 = 0o100000;

/// Indices of `c_cc`.
pub(super) const VINTR: usize = 0;
pub(super) const VQUIT: usize = 1;
pub(super) const VERASE: usize = 2;
pub(super) const VKILL: usize = 3;
pub(super) const VEOF: usize = 4;
const VTIME: usize = 5;
const VMIN: usize = 6;
pub(super) const VSTART: usize = 8;
pub(super) const VSTOP: usize = 9;
pub(super) const VSUSP: usize = 10;
pub(super) const VEOL: usize = 11;
pub(super) const VREPRINT: usize = 12;
const VDISCARD: usize = 13;
pub(super) const VWERASE: usize = 14;
pub(super) const VLNEXT: usize = 15;
pub(super) const VEOL2: usize = 16;

/// Bytes of `struct termios`, of `struct termios2`, which adds the speeds, and of `struct termio`.
pub(super) const TERMIOS: usize = 36;
pub(super) const TERMIOS2: usize = 44;
pub(super) const TERMIO: usize = 18;

/// How long a read waits for how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Lines, whatever the rest says.
    pub canonical: bool,
    /// Bytes that end a read (VMIN).
    pub min: usize,
    /// Tenths of a second (VTIME).
    pub time: u64,
}

impl Pace {
    /// What a `struct termios` says.
    pub fn of(raw: &[u8; TERMIOS]) -> Pace {
        let local = u32::from_ne_bytes([raw[12], raw[13], raw[14], raw[15]]);
        let cc = &raw[17..];
        Pace { canonical: local & ICANON != 0, min: cc[VMIN].into(), time: cc[VTIME].into() }
    }
}

#[derive(Clone)]
pub(super) struct Termios {
    pub(super) iflag: u32,
    pub(super) oflag: u32,
    cflag: u32,
    pub(super) lflag: u32,
    line: u8,
    cc: [u8; 19],
    speeds: [u32; 2],
}

impl Termios {
    /// As a new pseudo-terminal has it (tty_std_termios).
    pub(super) fn new() -> Self {
        let mut cc = [0; 19];
        for (index, value) in [
            (VINTR, 3),
            (VQUIT, 28),
            (VERASE, 127),
            (VKILL, 21),
            (VEOF, 4),
            (VMIN, 1),
            (VSTART, 17),
            (VSTOP, 19),
            (VSUSP, 26),
            (VREPRINT, 18),
            (VDISCARD, 15),
            (VWERASE, 23),
            (VLNEXT, 22),
        ] {
            cc[index] = value;
        }
        Termios {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: 0o277,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
            speeds: [38400; 2],
        }
    }

    /// `struct termios2`; its first 36 bytes are `struct termios`.
    pub(super) fn to_bytes(&self) -> [u8; TERMIOS2] {
        let mut raw = [0; TERMIOS2];
        let words = [self.iflag, self.oflag, self.cflag, self.lflag];
        for (bytes, word) in raw.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        raw[16] = self.line;
        raw[17..36].copy_from_slice(&self.cc);
        raw[36..40].copy_from_slice(&self.speeds[0].to_ne_bytes());
        raw[40..].copy_from_slice(&self.speeds[1].to_ne_bytes());
        raw
    }

    /// `struct termio`: the lower halves of the flags and the first eight characters.
    pub(super) fn to_old_bytes(&self) -> [u8; TERMIO] {
        let mut raw = [0; TERMIO];
        let words = [self.iflag, self.oflag, self.cflag, self.lflag];
        for (bytes, word) in raw.chunks_exact_mut(2).zip(words) {
            bytes.copy_from_slice(&(word as u16).to_ne_bytes());
        }
        raw[8] = self.line;
        raw[9..17].copy_from_slice(&self.cc[..8]);
        raw
    }

    /// With what one of the three structures says, told apart by their length. A pseudo-terminal has eight bits and no
    /// parity, whatever is asked for.
    pub(super) fn with(&self, raw: &[u8]) -> Termios {
        let mut new = self.clone();
        let flags = [&mut new.iflag, &mut new.oflag, &mut new.cflag, &mut new.lflag];
        if raw.len() == TERMIO {
            for (flag, half) in flags.into_iter().zip(raw.chunks_exact(2)) {
                *flag = *flag & 0xffff_0000 | u32::from(u16::from_ne_bytes([half[0], half[1]]));
            }
            new.line = raw[8];
            new.cc[..8].copy_from_slice(&raw[9..17]);
        } else {
            let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            for (index, flag) in flags.into_iter().enumerate() {
                *flag = word(index * 4);
            }
            new.line = raw[16];
            new.cc.copy_from_slice(&raw[17..36]);
            if raw.len() >= TERMIOS2 {
                new.speeds = [word(36), word(40)];
            }
        }
        new.cflag = new.cflag & !(CSIZE | PARENB) | CS8 | CREAD;
        new
    }

    pub(super) fn input(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }

    pub(super) fn output(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }

    pub(super) fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    /// Whether `byte` is the control character with this index. Zero disables one.
    pub(super) fn is(&self, index: usize, byte: u8) -> bool {
        byte != 0 && self.cc[index] == byte
    }

    pub(super) fn control(&self, index: usize) -> u8 {
        self.cc[index]
    }

    pub(super) fn pace(&self) -> Pace {
        Pace { canonical: self.local(ICANON), min: self.cc[VMIN].into(), time: self.cc[VTIME].into() }
    }

    /// ^S and ^Q stop and start output: what packet mode tells a terminal emulator that could do it locally.
    pub(super) fn has_plain_flow_control(&self) -> bool {
        self.input(IXON) && self.cc[VSTOP] == 0o23 && self.cc[VSTART] == 0o21
    }

    /// Whether a byte is the continuation of a character.
    pub(super) fn is_continuation(&self, byte: u8) -> bool {
        self.input(IUTF8) && byte & 0xc0 == 0x80
    }
}
