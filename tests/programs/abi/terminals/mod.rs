//! Pseudo-terminals: the line discipline, packet mode, and which session a terminal controls.

use crate::Case;
use crate::sys;

mod discipline;
mod requests;
mod sessions;

pub(crate) const CASES: &[Case] = &[
    ("terminal_settings", discipline::settings),
    ("terminal_editing", discipline::editing),
    ("terminal_input_flags", discipline::input_flags),
    ("terminal_output_flags", discipline::output_flags),
    ("terminal_flow", discipline::flow),
    ("terminal_timed_reads", discipline::timed_reads),
    ("terminal_packets", requests::packets),
    ("terminal_long_writes", discipline::long_writes),
    ("terminal_requests", requests::requests),
    ("terminal_background", sessions::background),
    ("terminal_orphaned", sessions::orphaned),
    ("terminal_foreground_errors", sessions::foreground_errors),
    ("terminal_given_up", sessions::given_up),
    ("terminal_leader_ends", sessions::leader_ends),
    ("terminal_hung_up", sessions::hung_up),
    ("terminal_stolen", sessions::stolen),
];

/// `struct termios` of the kernel.
type Settings = [u32; 9];
const IFLAG: usize = 0;
const LFLAG: usize = 3;
/// What ends what is read off a master.
const END: &str = "#END";

struct Pty {
    master: i64,
    slave: i64,
}

fn ioctl(fd: i64, request: u32, arg: i64) -> i64 {
    sys!(libc::SYS_ioctl, fd, request, arg)
}

/// What a request says in an int.
fn ask(fd: i64, request: u32) -> (i64, i32) {
    let mut value = -1_i32;
    let result = ioctl(fd, request, &raw mut value as i64);
    (result, value)
}

fn tell(fd: i64, request: u32, value: i32) -> i64 {
    ioctl(fd, request, &raw const value as i64)
}

fn open_slave(master: i64, flags: i32) -> i64 {
    let (_, index) = ask(master, libc::TIOCGPTN as u32);
    sys::open(&format!("/dev/pts/{index}"), libc::O_RDWR | flags, 0)
}

impl Pty {
    fn new() -> Pty {
        let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0);
        tell(master, libc::TIOCSPTLCK as u32, 0);
        Pty { master, slave: open_slave(master, libc::O_NOCTTY) }
    }

    fn settings(&self) -> Settings {
        let mut raw = Settings::default();
        ioctl(self.slave, libc::TCGETS as u32, raw.as_mut_ptr() as i64);
        raw
    }

    fn set(&self, raw: &Settings) -> i64 {
        ioctl(self.slave, libc::TCSETS as u32, raw.as_ptr() as i64)
    }

    /// With flags of one word set and others cleared.
    fn flags(&self, word: usize, set: u32, cleared: u32) -> i64 {
        let mut raw = self.settings();
        raw[word] = raw[word] & !cleared | set;
        self.set(&raw)
    }

    /// Without lines and echo, reads being timed so.
    fn timed(&self, min: u8, time: u8) {
        let mut raw = self.settings();
        raw[LFLAG] &= !(libc::ICANON | libc::ECHO);
        let mut bytes: Vec<u8> = raw.iter().flat_map(|word| word.to_ne_bytes()).collect();
        (bytes[17 + libc::VMIN], bytes[17 + libc::VTIME]) = (min, time);
        ioctl(self.slave, libc::TCSETS as u32, bytes.as_ptr() as i64);
    }

    fn keys(&self, keys: &str) {
        sys::write(self.master, keys.as_bytes());
    }

    /// Waits until keys have arrived where programs read them.
    fn arrived(&self, count: i32) {
        while ask(self.slave, libc::FIONREAD as u32).1 != count {
            sys!(libc::SYS_sched_yield);
        }
    }

    /// Whether the slave may be written to now.
    fn is_writable(&self) -> bool {
        let mut one = [self.slave as u32, u32::from(libc::POLLOUT as u16)];
        let time = [0_i64; 2];
        sys!(libc::SYS_ppoll, one.as_mut_ptr(), 1, time.as_ptr(), 0, 8) == 1
    }

    /// What the master shows up to now.
    fn shown(&self) -> String {
        sys::write(self.slave, END.as_bytes());
        let mut all = Vec::new();
        while !all.ends_with(END.as_bytes()) {
            all.extend(sys::read(self.master, 100).1);
        }
        String::from_utf8_lossy(&all[..all.len() - END.len()]).into_owned()
    }

    /// Types keys, of which a program makes a line: says both.
    fn line(&self, keys: &str) {
        self.keys(keys);
        let (_, line) = sys::read(self.slave, 5000);
        println!("{keys:?}: {:?}, shown {:?}", String::from_utf8_lossy(&line), self.shown());
    }
}
