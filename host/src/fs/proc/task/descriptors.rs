//! fd and fdinfo: what a process has open.

use super::super::parse_id;
use super::super::system::lines;
use super::{Subject, top};
use crate::abi::{Errno, Result};
use crate::fs::pidfd::PidFd;
use crate::fs::pseudo::{DynDir, Opened, Symlink, Text};
use crate::kernel::peek::As;
use crate::vfs::{Caller, File, Inode, Kind, Link, ListEntry};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// What readlink(2) says about an open file.
fn file_name(file: &Arc<File>) -> Vec<u8> {
    match file.named() {
        Some(path) => path.display(&top(path)),
        None => file.ops().describe().into_bytes(),
    }
}

fn files(subject: &Subject) -> Vec<(i32, Arc<File>, bool)> {
    subject.task.as_ref().and_then(|task| task.fds()).map(|fds| fds.all()).unwrap_or_default()
}

fn fd_entries(subject: &Subject, base: u64, kind: Kind) -> Vec<ListEntry> {
    files(subject)
        .iter()
        .map(|(fd, _, _)| ListEntry {
            name: fd.to_string().into_bytes().into(),
            ino: entry_ino(base, *fd),
            kind,
        })
        .collect()
}

/// The inode number of a descriptor's entry in the directory `base`.
fn entry_ino(base: u64, fd: i32) -> u64 {
    base + ((fd as u64 + 1) << 40)
}

/// The descriptor that an entry is named after.
fn find(subject: &Subject, name: &[u8]) -> Option<(i32, Arc<File>, bool)> {
    let fd = if name == b"0" { 0 } else { parse_id(name)? };
    files(subject).into_iter().find(|(known, _, _)| *known == fd)
}

/// What a descriptor stands for now, not when its entry was found: another program may run by now.
fn open_file(subject: &Subject, caller: Caller, fd: i32) -> Result<Arc<File>> {
    let task = subject.task.as_ref().ok_or(Errno::ENOENT)?;
    task.peek_file(&subject.observer(caller)?, As::FileSystem, fd).map_err(|errno| match errno {
        Errno::EBADF => Errno::ENOENT,
        _ => Errno::EACCES,
    })
}

pub(super) fn fd_dir(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let lister = subject.clone();
    DynDir::new(
        ino,
        0o500,
        uid,
        gid,
        move |name| {
            let Some((fd, file, _)) = find(&subject, name) else { return Ok(None) };
            let perm = 0o100
                | if file.readable() && !file.is_path() { 0o400 } else { 0 }
                | if file.writable() && !file.is_path() { 0o200 } else { 0 };
            let looked = subject.clone();
            let link = Symlink::new(entry_ino(ino, fd), move |caller| {
                let file = open_file(&looked, caller, fd)?;
                let name = file_name(&file);
                Ok((Link::File(file), name))
            });
            Ok(Some(link.with(perm, uid, gid)))
        },
        move || Ok(fd_entries(&lister, ino, Kind::Symlink)),
    )
}

pub(super) fn fdinfo_dir(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let lister = subject.clone();
    DynDir::new(
        ino,
        0o555,
        uid,
        gid,
        move |name| {
            let Some((fd, _, cloexec)) = find(&subject, name) else { return Ok(None) };
            let subject = subject.clone();
            let pids = subject.pids.clone();
            let (kernel, table) = (subject.kernel.clone(), subject.task.as_ref().and_then(|task| task.fds()));
            let owner = table.map_or(0, |fds| fds.lock_owner());
            let show = move |file: &Arc<File>| {
                let flags = file.flags() | if cloexec { c::O_CLOEXEC } else { 0 };
                let stat = file.stat();
                let mut text = format!(
                    "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}\n",
                    file.position(),
                    stat.mount_id.max(1),
                    stat.ino
                );
                if let Some(locks) = file.known_locks(&kernel.file_locks) {
                    text.push_str(&locks.fdinfo(owner, file.lock_owner()));
                }
                match file.downcast::<PidFd>() {
                    Some(pidfd) => text.push_str(&pidfd.shown_in(&pids)),
                    None => text.push_str(&file.ops().fdinfo()),
                }
                lines(text)
            };
            let text = Text::opened(entry_ino(ino, fd), move |caller| {
                let file = open_file(&subject, caller, fd)?;
                let show = show.clone();
                Ok(Opened::new(move || show(&file)))
            });
            Ok(Some(text.with(0o444, uid, gid)))
        },
        move || Ok(fd_entries(&lister, ino, Kind::File)),
    )
}
