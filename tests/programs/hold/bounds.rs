//! Attacks on what there is of something: they take it until there is no more, and are told so.

use crate::sys;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// What a program cannot reach although nothing stops it: then there is no limit.
const ENDLESS: usize = 100_000;

/// Forks until that fails, ends what it has made, and can fork again. Says how many there were beside it, and why no more;
/// where `least` is given, only that there were so many.
///
/// # Errors
/// There is no limit, or it never goes away.
pub(crate) fn forks(least: Option<&str>) -> Result<(), String> {
    let mut children = Vec::new();
    let refused = loop {
        match sys::fork(|| {
            loop {
                std::thread::sleep(Duration::MAX)
            }
        }) {
            Ok(child) => children.push(child),
            Err(why) => break why,
        }
        if children.len() > ENDLESS {
            return Err("there is no limit".to_owned());
        }
    };
    let count = children.len();
    children.iter().for_each(|child| sys::kill(*child));
    // Those that nobody has waited for count: until the first is gone there is no place.
    let full = sys::fork(|| 0).is_err();
    children.iter().for_each(|child| _ = sys!(libc::SYS_wait4, *child, 0, 0, 0));
    let again = sys::fork(|| 0).map(|child| sys!(libc::SYS_wait4, child, 0, 0, 0));
    match least.map(|least| least.parse::<usize>().map_err(|e| e.to_string())).transpose()? {
        Some(least) if count >= least => println!("many processes, then {refused}"),
        _ => println!("{count} processes, then {refused}"),
    }
    println!("zombies count: {full}; another one afterwards: {}", again.is_ok());
    Ok(())
}

/// Touched at a time.
pub(crate) const PIECE: usize = 16 << 20;
const PAGE: usize = 4096;

/// A child touches memory without end and is killed; another one then has some, for there is room again. Says so.
///
/// # Errors
/// It was not killed: there is no limit, or it ended in another way.
pub(crate) fn memory() -> Result<(), String> {
    let bomb = sys::fork(|| {
        for _ in 0..ENDLESS {
            touch(PIECE);
        }
        0
    })?;
    println!("the bomb: {}", ended(bomb));
    let modest = sys::fork(|| {
        touch(4 * PIECE);
        0
    })?;
    println!("another one: {}", ended(modest));
    Ok(())
}

/// A child takes memory of the kernel's without end, by what it makes and fills, and is killed; another one then has some, for
/// there is room again. Says so.
///
/// # Errors
/// It was not killed, or nobody knows what that is.
pub(crate) fn hoard(what: &str) -> Result<(), String> {
    let fill: fn() -> bool = match what {
        "pipes" => full_pipe,
        "streams" => full_stream,
        "datagrams" => full_socket,
        "messages" => full_queue,
        _ => return Err("nobody knows what that is".to_owned()),
    };
    let hoarder = sys::fork(move || {
        let most = libc::rlimit { rlim_cur: 1 << 16, rlim_max: 1 << 16 };
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const most, 0);
        i32::from((0..ENDLESS).take_while(|_| fill()).count() < ENDLESS)
    })?;
    println!("{what}: {}", ended(hoarder));
    let modest = sys::fork(|| {
        touch(2 * PIECE);
        0
    })?;
    println!("another one: {}", ended(modest));
    Ok(())
}

const FULL_PIECE: &[u8] = &[7; 32 << 10];

/// Writes to `fd` until that would have to wait.
fn fill_up(fd: i32) {
    while sys!(libc::SYS_sendto, fd, FULL_PIECE.as_ptr(), FULL_PIECE.len(), libc::MSG_DONTWAIT) > 0 {}
}

fn full_pipe() -> bool {
    let mut ends = [0_i32; 2];
    let made = sys!(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_NONBLOCK);
    sys!(libc::SYS_fcntl, ends[1], libc::F_SETPIPE_SZ, 1 << 20);
    while sys!(libc::SYS_write, ends[1], FULL_PIECE.as_ptr(), FULL_PIECE.len()) > 0 {}
    made == 0
}

fn full_stream() -> bool {
    let mut ends = [0_i32; 2];
    let made = sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr());
    fill_up(ends[1]);
    made == 0
}

/// One that has sent to itself.
fn full_socket() -> bool {
    use std::os::fd::IntoRawFd;
    let made = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
        socket.connect(socket.local_addr()?)?;
        Ok(socket.into_raw_fd())
    });
    let Ok(socket) = made else { return false };
    // What there is no room for is lost, and nobody is told.
    for _ in 0..8 {
        sys!(libc::SYS_sendto, socket, FULL_PIECE.as_ptr(), FULL_PIECE.len(), libc::MSG_DONTWAIT);
    }
    true
}

fn full_queue() -> bool {
    let queue = sys!(libc::SYS_msgget, libc::IPC_PRIVATE, 0o600);
    let message: Vec<u64> = vec![1; 1 + 8192 / 8];
    while sys!(libc::SYS_msgsnd, queue, message.as_ptr(), 8192, libc::IPC_NOWAIT) == 0 {}
    queue >= 0
}

/// Makes memory and never gives it back.
pub(crate) fn touch(len: usize) {
    let mut piece = vec![0_u8; len];
    piece.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::mem::forget(std::hint::black_box(piece));
}

fn ended(pid: i32) -> String {
    let mut status = 0_i32;
    sys!(libc::SYS_wait4, pid, &raw mut status, 0, 0);
    if libc::WIFSIGNALED(status) {
        return format!("killed by {}", libc::WTERMSIG(status));
    }
    format!("exited {}", libc::WEXITSTATUS(status))
}

/// Outside: holds `mib` of memory while a command runs beside it, and says whether it is still there.
///
/// # Errors
/// The command could not be started, or failed.
pub(crate) fn decoy(mib: &str, command: &[&str]) -> Result<(), String> {
    let mib: usize = mib.parse().map_err(|e| format!("{mib}: {e}"))?;
    let held = std::hint::black_box(vec![7_u8; mib << 20]);
    let status = std::process::Command::new(command[0]).args(&command[1..]).status();
    let status = status.map_err(|e| format!("{}: {e}", command[0]))?;
    let whole = held.iter().step_by(PAGE).all(|byte| *byte == 7);
    println!("the decoy lives: {whole}");
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Makes more and more of something that stays when its maker ends, until it is told that there is no place; then removes
/// it, and can make some again. Says so.
///
/// # Errors
/// There is no limit, or nobody knows what that is.
pub(crate) fn fill(what: &str) -> Result<(), String> {
    std::fs::create_dir(FULL).map_err(|e| e.to_string())?;
    let mut count = 0;
    let refused = loop {
        match one_more(what, count) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        if count > ENDLESS {
            return Err("there is no limit".to_owned());
        }
    };
    println!("{what}: many {}, then {refused}", count > FEW);
    std::fs::remove_dir_all(FULL).map_err(|e| e.to_string())?;
    std::fs::create_dir(FULL).map_err(|e| e.to_string())?;
    let again = (0..FEW).all(|count| one_more(what, count).is_ok());
    println!("again afterwards: {again}");
    Ok(())
}

const FULL: &str = "/tmp/full";
/// Not many.
const FEW: usize = 200;

fn one_more(what: &str, count: usize) -> std::io::Result<()> {
    let file = |name: &str| std::fs::File::options().create(true).append(true).open(format!("{FULL}/{name}"));
    match what {
        "files" => file("file")?.write_all(&[7; 32 << 10]),
        "names" => std::fs::create_dir(format!("{FULL}/{count:0240}")),
        "links" => std::os::unix::fs::symlink("x".repeat(4000), format!("{FULL}/{count}")),
        "attributes" => {
            let (file, name, value) = (file("file")?, format!("user.{count}\0"), [7_u8; 32 << 10]);
            let fd = file.as_raw_fd();
            match sys!(libc::SYS_fsetxattr, fd, name.as_ptr(), value.as_ptr(), value.len(), 0) {
                0 => Ok(()),
                error => Err(std::io::Error::from_raw_os_error(-error as i32)),
            }
        }
        _ => Err(std::io::Error::other("nobody knows what that is")),
    }
}

/// Looks for many names that are not there, and says whether memory was left alone.
///
/// # Errors
/// The kernel does not say how much memory there is.
pub(crate) fn misses() -> Result<(), String> {
    let before = free()?;
    for count in 0..MANY_MISSES {
        let _missing = std::fs::metadata(format!("/etc/{count:0240}"));
    }
    let taken = before.saturating_sub(free()?);
    println!("little was taken: {}", taken < MISSES_TAKE);
    if taken < MISSES_TAKE { Ok(()) } else { Err(format!("{} MiB were taken", taken >> 20)) }
}

const MANY_MISSES: usize = 60_000;
/// Bytes: remembering all of them takes several times this.
const MISSES_TAKE: u64 = 8 << 20;

/// Bytes of free memory (sysinfo(2)).
pub(crate) fn free() -> Result<u64, String> {
    let mut info = [0_u64; 14];
    match sys!(libc::SYS_sysinfo, info.as_mut_ptr()) {
        0 => Ok(info[5]),
        error => Err(format!("sysinfo: {error}")),
    }
}
