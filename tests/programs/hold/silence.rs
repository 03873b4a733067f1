//! Attacks with a file that the host does not come back with ([`crate::fuse`]): programs wait for its pages in every way
//! there is, in the middle of something that others want, too.
//!
//! What they share is made before they are forked: the same pipe, sockets, terminal, counter, position in the file. While they
//! wait others use these, look at the attackers in /proc, and end them.

use crate::{fuse, memory, storm};
use std::ffi::CString;
use std::sync::OnceLock;

/// Tells where the file is.
pub(crate) const PATH: &str = "HOLD_SILENT";

/// What all of them have.
struct Shared {
    file: i64,
    /// Mapped, to be read, and privately; mapped to be written.
    mapped: [i64; 2],
    pipe: [i32; 2],
    stream: [i32; 2],
    datagram: [i32; 2],
    tcp: [i32; 2],
    udp: i32,
    event: i64,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// What it is called, and how it is done.
type Way = (&'static str, fn(&Shared));

/// The ways to wait. Each attacker takes the next.
const WAYS: &[Way] = &[
    ("touches a page", |shared| memory::look(shared.mapped[0] as u64)),
    ("writes to a page", |shared| memory::touch(shared.mapped[1] as u64)),
    ("reads", |shared| _ = sys!(libc::SYS_read, shared.file, buffer(), 100)),
    ("reads much", |shared| _ = sys!(libc::SYS_read, shared.file, buffer(), BUFFER)),
    ("writes to a pipe", |shared| _ = sys!(libc::SYS_write, shared.pipe[1], shared.mapped[0], 100)),
    ("reads from a pipe", |shared| _ = sys!(libc::SYS_read, shared.pipe[0], shared.mapped[1], 10)),
    ("sends to a stream", |shared| _ = sys!(libc::SYS_write, shared.stream[1], shared.mapped[0], 100)),
    ("receives from a stream", |shared| _ = sys!(libc::SYS_read, shared.stream[0], shared.mapped[1], 10)),
    ("receives a message", |shared| _ = sys!(libc::SYS_read, shared.datagram[0], shared.mapped[1], 10)),
    ("sends over TCP", |shared| _ = sys!(libc::SYS_write, shared.tcp[1], shared.mapped[0], 100)),
    ("receives over TCP", |shared| _ = sys!(libc::SYS_read, shared.tcp[0], shared.mapped[1], 10)),
    ("sends over UDP", |shared| _ = sys!(libc::SYS_write, shared.udp, shared.mapped[0], 100)),
    ("receives over UDP", |shared| _ = sys!(libc::SYS_read, shared.udp, shared.mapped[1], 10)),
    ("adds to a counter", |shared| _ = sys!(libc::SYS_write, shared.event, shared.mapped[0], 8)),
    ("waits on a word", |shared| _ = sys!(libc::SYS_futex, shared.mapped[0], libc::FUTEX_WAIT, 0, 0)),
    ("waits for a lock", |shared| _ = sys!(libc::SYS_futex, shared.mapped[1], libc::FUTEX_LOCK_PI, 0, 0)),
    ("changes a word", |shared| {
        _ = sys!(libc::SYS_futex, buffer(), libc::FUTEX_WAKE_OP, 1, 1, shared.mapped[1], 0);
    }),
    ("appends", |shared| {
        let flags = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY;
        let log = sys!(libc::SYS_openat, libc::AT_FDCWD, c"/tmp/silent-log".as_ptr(), flags, 0o600);
        sys!(libc::SYS_write, log, shared.mapped[0], 100);
    }),
    ("populates", |shared| {
        let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
        sys!(libc::SYS_mmap, 0, fuse::SIZE, libc::PROT_READ, flags, shared.file, 0);
    }),
    ("locks", |shared| _ = sys!(libc::SYS_mlock, shared.mapped[0], fuse::SIZE)),
];

const BUFFER: usize = 1 << 20;

fn buffer() -> *mut u8 {
    Box::leak(vec![0; BUFFER].into_boxed_slice()).as_mut_ptr()
}

/// Makes what they share; before they are forked.
pub(crate) fn prepare() {
    let path = std::env::var(PATH).unwrap_or_default();
    let path = CString::new(path).unwrap_or_default();
    let file = sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY);
    let map = |prot| sys!(libc::SYS_mmap, 0, fuse::SIZE, prot, libc::MAP_PRIVATE, file, 0);
    let mapped = [map(libc::PROT_READ), map(libc::PROT_READ | libc::PROT_WRITE)];
    let two = |call: i64, args: [i32; 3]| {
        let mut ends = [0; 2];
        match call {
            libc::SYS_pipe2 => sys!(call, ends.as_mut_ptr(), 0),
            _ => sys!(call, args[0], args[1], args[2], ends.as_mut_ptr()),
        };
        sys!(libc::SYS_write, ends[1], b"from the start".as_ptr(), 14);
        ends
    };
    let _second = SHARED.set(Shared {
        file,
        mapped,
        pipe: two(libc::SYS_pipe2, [0; 3]),
        stream: two(libc::SYS_socketpair, [libc::AF_UNIX, libc::SOCK_STREAM, 0]),
        datagram: two(libc::SYS_socketpair, [libc::AF_UNIX, libc::SOCK_DGRAM, 0]),
        tcp: tcp().unwrap_or([-1; 2]),
        udp: udp().unwrap_or(-1),
        event: sys!(libc::SYS_eventfd2, 0, 0),
    });
}

/// Two ends of a connection, one of which has something to read.
fn tcp() -> std::io::Result<[i32; 2]> {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut one = TcpStream::connect(listener.local_addr()?)?;
    one.write_all(b"from the start")?;
    Ok([listener.accept()?.0.into_raw_fd(), one.into_raw_fd()])
}

/// A socket that sends to itself, and has something to read.
fn udp() -> std::io::Result<i32> {
    use std::net::UdpSocket;
    use std::os::fd::IntoRawFd;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    socket.send(b"from the start")?;
    Ok(socket.into_raw_fd())
}

/// Waits in the way that is this one's.
pub(crate) fn wait() -> i32 {
    let Some(shared) = SHARED.get() else { return 1 };
    if shared.file < 0 || shared.mapped.iter().any(|at| *at < 0) {
        return 2;
    }
    let (name, way) = WAYS[storm::index() % WAYS.len()];
    way(shared);
    // Nobody gets this far.
    eprintln!("hold: who {name} went on");
    3
}

/// Looks at those who wait, and uses what they share.
pub(crate) fn look_on(waiting: &[i32]) {
    for pid in waiting {
        for file in ["maps", "smaps", "status", "stat", "statm", "cmdline", "wchan", "fdinfo/0"] {
            let _gone = std::fs::read(format!("/proc/{pid}/{file}"));
        }
    }
    let Some(shared) = SHARED.get() else { return };
    for fd in [shared.pipe[0], shared.stream[0], shared.datagram[0], shared.tcp[0], shared.udp] {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        sys!(libc::SYS_ppoll, &raw mut poll, 1, [0_u64; 2].as_ptr(), 0);
    }
    for fd in [shared.pipe[1], shared.stream[1], shared.datagram[1], shared.tcp[1], shared.udp] {
        sys!(libc::SYS_write, fd, b"more".as_ptr(), 4);
    }
    let one = 1_u64;
    sys!(libc::SYS_write, shared.event, &raw const one, 8);
    // Others that are in the same buckets as their words.
    let words = vec![0_u32; 4096];
    for word in words.iter().step_by(7) {
        sys!(libc::SYS_futex, std::ptr::from_ref(word), libc::FUTEX_WAKE, 1);
    }
}
