//! fd and fdinfo: what a process has open.

use super::super::parse_id;
use super::super::system::lines;
use super::{Subject, top};
use crate::fs::pseudo::{DynDir, Symlink, Text};
use crate::vfs::{File, Inode, Kind, Link, ListEntry};
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
                looked.look(caller)?;
                Ok((Link::File(file.clone()), file_name(&file)))
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
            let Some((fd, file, cloexec)) = find(&subject, name) else { return Ok(None) };
            let text = Text::guarded(entry_ino(ino, fd), subject.clone().gate(), move |_| {
                let flags = file.flags() | if cloexec { c::O_CLOEXEC } else { 0 };
                let stat = file.stat();
                let mut text = format!(
                    "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}\n",
                    file.position(),
                    stat.mount_id.max(1),
                    stat.ino
                );
                text.push_str(&file.ops().fdinfo());
                lines(text)
            });
            Ok(Some(text.with(0o444, uid, gid)))
        },
        move || Ok(fd_entries(&lister, ino, Kind::File)),
    )
}
