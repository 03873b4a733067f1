//! A file system in user space (linux/fuse.h) with one file, whose open is never answered.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
const IN_HEADER: usize = 40;
const NAME: &str = "kvm";
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// The mounted file system; unmounted when dropped, which fails what hangs in it.
pub(crate) struct Hanging {
    directory: PathBuf,
    opened: Arc<AtomicU64>,
}

impl Hanging {
    pub(crate) fn new() -> Result<Self, String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let directory = std::env::temp_dir().join(format!("pillbox-hang-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|e| failed("a directory", &e))?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|e| failed("/dev/fuse", &e))?;
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).map_err(|e| failed("options", &e))?;
        rustix::mount::mount(
            "pillbox-hang",
            &directory,
            "fuse",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .map_err(|e| failed("mounting it", &e))?;
        let opened = Arc::new(AtomicU64::new(0));
        let counter = opened.clone();
        std::thread::spawn(move || serve(device, &counter));
        Ok(Hanging { directory, opened })
    }

    pub(crate) fn path(&self) -> String {
        self.directory.join(NAME).display().to_string()
    }

    /// How often it was opened, or tried to.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Forced: the connection is aborted, and who hangs gets an error.
        let flags = rustix::mount::UnmountFlags::FORCE | rustix::mount::UnmountFlags::DETACH;
        let _gone = rustix::mount::unmount(&self.directory, flags);
        let _gone = fs::remove_dir(&self.directory);
    }
}

/// Answers until the file system is unmounted.
fn serve(mut device: File, opened: &AtomicU64) {
    let mut request = vec![0; 1 << 17];
    while let Ok(len @ IN_HEADER..) = device.read(&mut request) {
        let u32_at = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap_or_default());
        let u64_at = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap_or_default());
        let (operation, unique, node) = (u32_at(4), u64_at(8), u64_at(16));
        let answer = match operation {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            OPEN => {
                opened.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            INIT => Ok(init()),
            LOOKUP if request[IN_HEADER..len].strip_suffix(&[0]) == Some(NAME.as_bytes()) => Ok(entry()),
            LOOKUP => Err(ENOENT),
            GETATTR => Ok([words(&[1, 0]), attributes(node)].concat()),
            _ => Err(ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend_from_slice(&error.to_ne_bytes());
        reply.extend_from_slice(&unique.to_ne_bytes());
        reply.extend_from_slice(&body);
        // An interrupted request needs no answer.
        let _late = device.write(&reply);
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn halves(halves: &[u32]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

/// `struct fuse_init_out`: version 7.31, 4 KiB writes.
fn init() -> Vec<u8> {
    let mut out = halves(&[7, 31, 0, 0, 0, 4096, 1]);
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out` of the file.
fn entry() -> Vec<u8> {
    [words(&[FILE, 0, 60, 60, 0]), attributes(FILE)].concat()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == ROOT { 0o40_755 } else { 0o100_666 };
    [words(&[node, 0, 0, 0, 0, 0]), halves(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}
