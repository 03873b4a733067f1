//! `abi --child drive SHELL...`: types at an interactive bash on a terminal of its own, and says what came of it.
//!
//! Each step is ordered by what the one before it showed: nothing is typed before who is to read it has said something, and
//! so has the terminal as it needs it. The shell's variable JOB is a command that says so and copies its input
//! ([`copy`]).

use crate::sys::{self, close, fork, wait};

/// What the shell shows when it reads.
const PROMPT: &str = "\r\n$ ";

/// What is typed, and what must be shown then, one after the other.
const STEPS: &[(&str, &[&str])] = &[
    ("", &["$ "]),
    ("tty\n", &["/dev/pts/", PROMPT]),
    ("stty size\n", &["24 80", PROMPT]),
    ("$JOB\n", &["copying\r\n"]),
    ("one\n", &["one\r\none\r\n"]),
    ("\x1a", &["Stopped", PROMPT]),
    ("echo st$?\n", &["st148", PROMPT]),
    ("fg\n", &["$JOB\r\n"]),
    ("two\n", &["two\r\ntwo\r\n"]),
    ("\x03", &["^C", "$ "]),
    ("echo st$?\n", &["st130", PROMPT]),
    ("$JOB\n", &["copying\r\n"]),
    ("three\n", &["three\r\nthree\r\n"]),
    ("\x04", &["$ "]),
    ("echo st$?\n", &["st0", PROMPT]),
    ("cat &\n", &["] ", PROMPT]),
    ("until jobs | grep -q Stopped; do :; done; echo by 'a read'\n", &["by a read", PROMPT]),
    ("kill -9 $!; wait; echo 'go'ne\n", &["gone", PROMPT]),
    ("stty tostop; echo late &\n", &["] ", PROMPT]),
    ("until jobs | grep -q Stopped; do :; done; echo by 'a write'\n", &["by a write", PROMPT]),
    ("stty -tostop; fg\n", &["echo late\r\nlate", PROMPT]),
    ("(trap 'echo chan''ged; exit' WINCH; echo rea''dy; while :; do read -t 1 x; done)\n", &["ready\r\n"]),
];
const LAST: &[(&str, &[&str])] =
    &[("", &["changed", PROMPT]), ("stty size\n", &["30 90", PROMPT]), ("exit 3\n", &["exit\r\n"])];

/// Seconds that a busy machine may take for a step.
const PATIENCE: i64 = 40;

/// Types at `shell` and tells of each step.
pub(crate) fn run(shell: &[&str]) {
    let mut terminal = Terminal::start(shell);
    for (keys, wanted) in STEPS {
        terminal.step(keys, wanted);
    }
    terminal.resize(30, 90);
    for (keys, wanted) in LAST {
        terminal.step(keys, wanted);
    }
    println!("{}", wait(terminal.shell));
}

/// Runs `command`, which changes the terminal, says that it has, and ends with a line: says whether the terminal is as
/// before in the end.
pub(crate) fn is_put_back(command: &[&str]) {
    let mut terminal = Terminal::start(command);
    let before = terminal.before;
    terminal.step("", &["set"]);
    println!("changed: {}", terminal.settings() != before);
    terminal.step("\n", &[]);
    println!("{}", wait(terminal.shell));
    println!("as before: {}", terminal.settings() == before);
}

/// Copies standard input to standard output.
pub(crate) fn copy() {
    sys::write(1, b"copying\n");
    loop {
        let (got, bytes) = sys::read(0, 100);
        if got <= 0 {
            return;
        }
        sys::write(1, &bytes);
    }
}

/// `struct termios` of the kernel and `struct winsize`.
type Settings = ([u32; 9], [u16; 4]);

struct Terminal {
    master: i64,
    slave: i64,
    shell: i64,
    before: Settings,
    /// What has been shown and not been waited for.
    shown: String,
}

impl Terminal {
    fn start(command: &[&str]) -> Terminal {
        let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0);
        let (mut index, unlocked) = (0_i32, 0_i32);
        sys!(libc::SYS_ioctl, master, libc::TIOCSPTLCK, &raw const unlocked);
        sys!(libc::SYS_ioctl, master, libc::TIOCGPTN, &raw mut index);
        let name = format!("/dev/pts/{index}");
        let slave = sys::open(&name, libc::O_RDWR | libc::O_NOCTTY, 0);
        let size = [24_u16, 80, 0, 0];
        sys!(libc::SYS_ioctl, master, libc::TIOCSWINSZ, size.as_ptr());
        let before = settings_of(slave);
        let shell = fork(|| {
            sys!(libc::SYS_setsid);
            let own = sys::open(&name, libc::O_RDWR, 0);
            for fd in 0..3 {
                sys!(libc::SYS_dup3, own, fd, 0);
            }
            for fd in [own, master, slave] {
                close(fd);
            }
            let inherited: Vec<String> = ["PATH", "JOB", "HOME"]
                .into_iter()
                .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
                .collect();
            let fixed = ["PS1=$ ", "TERM=dumb", "HISTFILE=/dev/null"];
            let all: Vec<&str> = fixed.into_iter().chain(inherited.iter().map(String::as_str)).collect();
            -crate::process::execute(command[0], command, &all) as i32
        });
        Terminal { master, slave, shell, before, shown: String::new() }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = [rows, columns, 0, 0];
        sys!(libc::SYS_ioctl, self.master, libc::TIOCSWINSZ, size.as_ptr());
    }

    fn settings(&self) -> Settings {
        settings_of(self.slave)
    }

    /// Types `keys`, and waits until all of `wanted` is shown.
    fn step(&mut self, keys: &str, wanted: &[&str]) {
        sys::write(self.master, keys.as_bytes());
        for text in wanted {
            while !self.shown.contains(text) {
                self.read_more(keys, text);
            }
            let end = self.shown.find(text).map_or(0, |at| at + text.len());
            self.shown.drain(..end);
        }
        println!("{keys:?}: {wanted:?}");
    }

    fn read_more(&mut self, keys: &str, wanted: &str) {
        let mut one = [self.master as u32, u32::from(libc::POLLIN as u16)];
        let time = [PATIENCE, 0];
        let ready = sys!(libc::SYS_ppoll, one.as_mut_ptr(), 1, time.as_ptr(), 0, 8);
        let (got, bytes) = sys::read(self.master, 4096 * usize::from(ready == 1));
        if got <= 0 {
            println!("{keys:?}: {:?} instead of {wanted:?}", self.shown);
            sys::flush();
            sys!(libc::SYS_kill, self.shell, libc::SIGKILL);
            sys::exit(1);
        }
        self.shown += &String::from_utf8_lossy(&bytes);
    }
}

fn settings_of(slave: i64) -> Settings {
    let (mut raw, mut size) = ([0; 9], [0; 4]);
    sys!(libc::SYS_ioctl, slave, libc::TCGETS, raw.as_mut_ptr());
    sys!(libc::SYS_ioctl, slave, libc::TIOCGWINSZ, size.as_mut_ptr());
    (raw, size)
}
