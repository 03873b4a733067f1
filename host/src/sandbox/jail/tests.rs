//! A process in the jail, calls that it must not make, and files that it must not reach.

use super::{Jail, Opened, landlock};
use crate::abi::Errno;
use crate::hostfd::{HostFd, What};
use crate::hostsys::file::openat;
use crate::hostsys::file::statx;
use crate::hostsys::{self, change, confine};
use std::path::PathBuf;
use std::process::Command;

/// Which call a child of the test is to make.
const CALL: &str = "PILLBOX_TEST_CALL";

/// Other things that it can be asked for.
const ROOT: usize = 1000;
const LANDLOCK: usize = 1001;
const WRITING: usize = 1002;
const LATER: usize = 1003;
/// From here on: calls beside a warden.
const WALLED: usize = 2000;
/// Names a directory to it.
const DIRECTORY: &str = "PILLBOX_TEST_DIRECTORY";

/// Arguments that are harmless should the host make the call.
type Call = (&'static str, i64, [u64; 6]);

const RDONLY: u64 = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
const SAFE: u64 = RDONLY | libc::O_NOFOLLOW as u64;
const CWD: u64 = libc::AT_FDCWD as u64;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// Calls that end the process.
fn refused() -> Vec<Call> {
    let dot = c".".as_ptr() as u64;
    vec![
        ("execve", libc::SYS_execve, [0; 6]),
        ("clone", libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
        ("socket", libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0; 6]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as u64, 1, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0; 6]),
        ("memfd_create", libc::SYS_memfd_create, [dot, 0, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0; 6]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 6]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0; 6]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 6]),
        ("kill", libc::SYS_kill, [1, 0, 0, 0, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [1, 1, libc::SIGTERM as u64, 0, 0, 0]),
        ("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
        ("mmap", libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as u64, PRIVATE, u64::MAX, 0]),
        ("mprotect", libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as u64, 0, 0, 0]),
        ("openat", libc::SYS_openat, [0, dot, RDONLY, 0, 0, 0]),
        ("openat", libc::SYS_openat, [CWD, dot, SAFE, 0, 0, 0]),
        ("openat", libc::SYS_openat, [0, dot, SAFE | libc::O_WRONLY as u64, 0, 0, 0]),
        ("openat", libc::SYS_openat, [0, dot, SAFE | libc::O_CREAT as u64, 0, 0, 0]),
        ("openat2", libc::SYS_openat2, [0; 6]),
        ("ioctl", libc::SYS_ioctl, [0, libc::TIOCSTI, dot, 0, 0, 0]),
        ("fcntl", libc::SYS_fcntl, [0, libc::F_SETFL as u64, 0, 0, 0, 0]),
        ("membarrier", libc::SYS_membarrier, [0, 1, 0, 0, 0, 0]),
    ]
}

/// Calls by which a socket that is connected could reach somebody else.
fn refused_when_walled() -> Vec<Call> {
    let dot = c".".as_ptr() as u64;
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    let (stream, datagram) = (libc::SOCK_STREAM as u64 | flags, libc::SOCK_DGRAM as u64 | flags);
    let (v4, v6) = (libc::AF_INET as u64, libc::AF_INET6 as u64);
    let option = |level: i32, name: i32| [0, level as u64, name as u64, dot, 1, 0];
    vec![
        ("socket", libc::SYS_socket, [v4, stream, 0, 0, 0, 0]),
        ("socket", libc::SYS_socket, [v6, datagram, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0, dot, 16, 0, 0, 0]),
        ("bind", libc::SYS_bind, [0, dot, 16, 0, 0, 0]),
        ("listen", libc::SYS_listen, [0, 1, 0, 0, 0, 0]),
        ("sendmsg", libc::SYS_sendmsg, [0; 6]),
        ("sendmmsg", libc::SYS_sendmmsg, [0; 6]),
        ("sendto", libc::SYS_sendto, [0, dot, 1, 0, dot, 16]),
        ("sendto", libc::SYS_sendto, [0, dot, 1, libc::MSG_FASTOPEN as u64, 0, 0]),
        ("setsockopt", libc::SYS_setsockopt, option(libc::IPPROTO_IP, libc::IP_OPTIONS)),
        ("setsockopt", libc::SYS_setsockopt, option(libc::IPPROTO_IPV6, 57)),
        ("setsockopt", libc::SYS_setsockopt, option(libc::IPPROTO_TCP, libc::TCP_REPAIR)),
        ("setsockopt", libc::SYS_setsockopt, option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE)),
    ]
}

#[test]
fn beside_a_warden_no_call_leads_to_somebody_else() {
    for (index, (name, number, args)) in refused_when_walled().into_iter().enumerate() {
        let output = child(WALLED + index);
        let told = String::from_utf8_lossy(&output.stderr);
        let line = format!("pillbox: the jail refused host call {name} ({number}); the sandbox is over");
        assert!(told.lines().any(|told| told == line), "{name} {args:x?}: {}, {told}", output.status);
    }
    let output = child(WALLED + refused_when_walled().len());
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Calls that it makes, or that fail as ever.
fn made() -> Vec<(Call, Result<(), Errno>)> {
    let dot = c".".as_ptr() as u64;
    vec![
        (("getpid", libc::SYS_getpid, [0; 6]), Ok(())),
        (("openat", libc::SYS_openat, [u64::from(u32::MAX), dot, SAFE, 0, 0, 0]), Err(Errno::EBADF)),
        (("mmap", libc::SYS_mmap, [0, 4096, libc::PROT_READ as u64, PRIVATE, u64::MAX, 0]), Ok(())),
        (("clone3", libc::SYS_clone3, [0; 6]), Err(Errno::ENOSYS)),
        (("kill", libc::SYS_kill, [i32::MAX as u64, libc::SIGKILL as u64, 0, 0, 0, 0]), Err(Errno::ESRCH)),
        (("mprotect", libc::SYS_mprotect, [1, 0, 0, 0, 0, 0]), Err(Errno::EINVAL)),
    ]
}

/// This test program once more, in which [`role`] does what it is asked for.
fn command(index: usize) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "sandbox::jail::tests::role", "--nocapture"]).env(CALL, index.to_string());
    command
}

fn child(index: usize) -> std::process::Output {
    command(index).output().expect("this program again")
}

#[test]
fn calls_that_are_not_listed_end_the_process_and_are_named() {
    for (index, (name, number, args)) in refused().into_iter().enumerate() {
        let output = child(index);
        let told = String::from_utf8_lossy(&output.stderr);
        let line = format!("pillbox: the jail refused host call {name} ({number}); the sandbox is over");
        assert!(told.lines().any(|told| told == line), "{name} {args:x?}: {}, {told}", output.status);
        assert_eq!(output.status.code(), Some(125), "{name}");
    }
}

#[test]
fn calls_that_are_listed_are_made() {
    let output = child(refused().len());
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_above_the_root_and_changes_are_out_of_reach() {
    let path = std::env::temp_dir().join(format!("pillbox-jail-{}", std::process::id()));
    std::fs::create_dir(&path).expect("a new directory");
    std::fs::write(path.join("file"), "text").expect("a new file");
    let outputs = [ROOT, LANDLOCK, WRITING, LATER].map(|index| command(index).env(DIRECTORY, &path).output());
    std::fs::remove_dir_all(&path).expect("the directory");
    for output in outputs {
        let output = output.expect("this program again");
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

/// In a child: the directory, with a file in it, that its parent has made.
fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).expect("a directory").into()
}

fn open(dir: &HostFd, name: &[u8], flags: i32) -> Result<HostFd, Errno> {
    openat(dir.raw(), name, flags, 0o600, || What::Given("a test"))
}

/// In a child: the copy of the mounts at a directory, and at `/`, for callers who may make one.
fn root_is_a_copy() {
    let path = directory();
    for (path, is_root) in [(path.as_path(), false), ("/".as_ref(), true)] {
        let mut jail = Jail::begin(true, &[]).expect("no new privileges");
        jail.begin_root(path, false);
        let root = jail.open_root(path).expect("a directory");
        if jail.steps.iter().any(|step| step.missing.is_some()) {
            continue;
        }
        let inode = |dir: &HostFd| statx(dir.raw(), b"", libc::AT_EMPTY_PATH).expect("a directory").stx_ino;
        let above = open(&root, b"../..", libc::O_PATH).expect("itself");
        assert_eq!(inode(&above), inode(&root));
        let made = open(&root, b"another", libc::O_CREAT | libc::O_WRONLY);
        assert_eq!(made.err(), Some(Errno::EROFS));
        if is_root {
            let places = [&b"proc/self"[..], b"dev/null", b"sys/kernel"];
            assert!(places.iter().all(|place| open(&root, place, libc::O_PATH).err() == Some(Errno::ENOENT)));
            assert!(open(&root, b"etc/passwd", libc::O_RDONLY).is_ok());
        } else {
            assert!(open(&root, b"file", libc::O_RDONLY).is_ok());
        }
    }
}

/// In a child: what Landlock leaves, where the host has it.
fn landlock_leaves_reading_below() {
    let path = directory();
    let root = crate::fs::world::open_root(&path).expect("a directory");
    confine::no_new_privileges().expect("no new privileges");
    let read = [Opened { dir: root.clone(), written: false }];
    if landlock::restrict(&read, false, crate::sandbox::Network::None).expect("a ruleset") {
        let denied = |result: Result<HostFd, Errno>| assert_eq!(result.err(), Some(Errno::EACCES));
        assert!(open(&root, b"file", libc::O_RDONLY).is_ok());
        denied(open(&root, b"file", libc::O_WRONLY));
        denied(open(&root, b"another", libc::O_CREAT | libc::O_WRONLY));
        denied(open(&root, b"/etc/passwd", libc::O_RDONLY));
        denied(open(&root, b"..", libc::O_RDONLY));
    }
}

/// In a child: what it leaves where programs write.
fn landlock_leaves_writing_below() {
    let path = directory();
    let root = crate::fs::world::open_root(&path).expect("a directory");
    confine::no_new_privileges().expect("no new privileges");
    let written = [Opened { dir: root.clone(), written: true }];
    if landlock::restrict(&written, false, crate::sandbox::Network::None).expect("a ruleset") {
        let denied = |result: Result<(), Errno>| assert_eq!(result, Err(Errno::EACCES));
        let make = libc::O_CREAT | libc::O_WRONLY;
        assert!(open(&root, b"file", libc::O_RDWR | libc::O_TRUNC).is_ok());
        assert!(open(&root, b"another", make).is_ok());
        assert_eq!(change::mkdir(root.raw(), b"d", 0o700), Ok(()));
        assert_eq!(change::rename(root.raw(), b"another", root.raw(), b"d/f", 0), Ok(()));
        denied(change::mkdir(root.raw(), b"../pillbox-out", 0o700));
        denied(change::rename(root.raw(), b"d/f", root.raw(), b"../pillbox-out", 0));
        denied(open(&root, b"../pillbox-out", make).map(drop));
        denied(open(&root, b"..", libc::O_RDONLY).map(drop));
    }
}

/// In a child: what it leaves where directories come later, renames between two of them included.
fn landlock_leaves_files_that_come_later() {
    let path = directory();
    confine::no_new_privileges().expect("no new privileges");
    landlock::restrict(&[], true, crate::sandbox::Network::None).expect("a ruleset");
    let root = crate::fs::world::open_root(&path).expect("a directory");
    assert!(open(&root, b"later", libc::O_CREAT | libc::O_WRONLY).is_ok());
    assert_eq!(change::mkdir(root.raw(), b"e", 0o700), Ok(()));
    assert_eq!(change::rename(root.raw(), b"later", root.raw(), b"e/f", 0), Ok(()));
}

/// In a child: a call, or all that are left.
fn walled(index: usize) {
    super::trial_of(true).expect("a host that has filters");
    if let Some((name, number, args)) = refused_when_walled().get(index) {
        panic!("{name} gives {:?}", hostsys::harmless(*number, *args));
    }
    let sent = hostsys::harmless(libc::SYS_sendto, [u64::from(u32::MAX), 0, 0, 0, 0, 0]);
    assert_eq!(sent.map(drop), Err(Errno::EBADF));
}

#[test]
fn role() {
    let Some(index) = std::env::var_os(CALL) else { return };
    let index: usize = index.to_str().and_then(|text| text.parse().ok()).expect("a number");
    match index {
        ROOT => return root_is_a_copy(),
        LANDLOCK => return landlock_leaves_reading_below(),
        WRITING => return landlock_leaves_writing_below(),
        LATER => return landlock_leaves_files_that_come_later(),
        WALLED.. => return walled(index - WALLED),
        _ => {}
    }
    super::trial().expect("a host that has filters");
    assert!(confine::is_confined());
    assert!(std::env::vars_os().next().is_none(), "an environment");
    let make = |(_, number, args): Call| hostsys::harmless(number, args);
    match refused().get(index) {
        Some(call) => panic!("{} gives {:?}", call.0, make(*call)),
        None => {
            for (call, expected) in made() {
                assert_eq!(make(call).map(drop), expected, "{}", call.0);
            }
        }
    }
}
