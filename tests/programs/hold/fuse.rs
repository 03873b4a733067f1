//! A file system of the host that does not answer: FUSE (fuse(4)), served by a thread that never replies to a read.
//!
//! One file, [`NAME`], of some pages. It is found and opened like any other; who reads it waits until a signal comes: Linux
//! lets nobody go whose request is not answered at all, be it killed. The messages are those
//! of `linux/fuse.h`, version 7.31, put together by hand: there are few of them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// The file.
pub(crate) const NAME: &str = "file";
/// Its size.
pub(crate) const SIZE: u64 = 64 << 12;

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// How long what it says holds, in seconds.
const HOLDS: u64 = 3600;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Requests have a header of this size.
const HEADER: usize = 40;

/// Where it is mounted, until it is dropped.
pub(crate) struct Silent(PathBuf);

impl Silent {
    /// Mounts it in a mount namespace of this process's own, and serves it until the process ends.
    ///
    /// # Errors
    /// It may not be mounted here.
    pub(crate) fn mount() -> Result<Silent, String> {
        let failed = |what: &str, result: i64| {
            format!("{what}: {}", std::io::Error::from_raw_os_error(-result as i32))
        };
        let unshared = sys!(libc::SYS_unshare, libc::CLONE_NEWNS);
        if unshared < 0 {
            return Err(failed("unshare", unshared));
        }
        sys!(libc::SYS_mount, c"none".as_ptr(), c"/".as_ptr(), 0, libc::MS_REC | libc::MS_PRIVATE, 0);
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|e| format!("/dev/fuse: {e}"))?;
        let place = std::env::temp_dir().join(format!("silent-{}", std::process::id()));
        std::fs::create_dir_all(&place).map_err(|e| e.to_string())?;
        let silent = Silent(place);
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other\0");
        let target = format!("{}\0", silent.0.display());
        let (source, kind) = (c"silent".as_ptr(), c"fuse".as_ptr());
        let mounted = sys!(libc::SYS_mount, source, target.as_ptr(), kind, 0, options.as_ptr());
        if mounted < 0 {
            return Err(failed("mount", mounted));
        }
        std::thread::spawn(move || serve(device));
        Ok(silent)
    }

    /// The file's path.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join(NAME)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let target = format!("{}\0", self.0.display());
        sys!(libc::SYS_umount2, target.as_ptr(), libc::MNT_DETACH);
        let _gone = std::fs::remove_dir(&self.0);
    }
}

fn serve(mut device: File) {
    let mut request = vec![0; 1 << 17];
    // An error is the end of the mount.
    while let Ok(len) = device.read(&mut request) {
        let request = &request[..len];
        let (opcode, unique, node) = (word(request, 4), long(request, 8), long(request, 16));
        let reply = match opcode {
            FORGET | BATCH_FORGET | READ => continue,
            INTERRUPT => {
                answer(&mut device, long(request, HEADER), Err(libc::EINTR));
                continue;
            }
            INIT => Ok(init(request)),
            LOOKUP => lookup(&request[HEADER..]),
            GETATTR => Ok([&HOLDS.to_ne_bytes()[..], &[0; 8], &attributes(node)].concat()),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            STATFS => Ok(vec![0; 80]),
            FLUSH | RELEASE | RELEASEDIR => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        answer(&mut device, unique, reply);
    }
}

fn answer(device: &mut File, unique: u64, reply: Result<Vec<u8>, i32>) {
    let (error, body) = reply.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
    let len = (16 + body.len()) as u32;
    let head = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
    let _gone_meanwhile = device.write(&[head, body].concat());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// `struct fuse_init_out`: no more than what the kernel has offered, and no flags.
fn init(request: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7, 31, word(request, HEADER + 8), 0, 0, 1 << 16, 1, 0] {
        out.extend_from_slice(&u32::to_ne_bytes(word));
    }
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out`.
fn lookup(name: &[u8]) -> Result<Vec<u8>, i32> {
    if name.strip_suffix(b"\0") != Some(NAME.as_bytes()) {
        return Err(libc::ENOENT);
    }
    let mut out = Vec::new();
    for long in [FILE, 0, HOLDS, HOLDS, 0] {
        out.extend_from_slice(&long.to_ne_bytes());
    }
    out.extend(attributes(FILE));
    Ok(out)
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (libc::S_IFDIR | 0o755, 0) } else { (libc::S_IFREG | 0o644, SIZE) };
    let mut out = Vec::new();
    for long in [node, size, size / 512, 0, 0, 0] {
        out.extend_from_slice(&long.to_ne_bytes());
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend_from_slice(&u32::to_ne_bytes(word));
    }
    out
}
