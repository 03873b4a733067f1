//! `cp`: between a container that runs and the host.
//!
//! The sandbox sends an archive, or unpacks one. What it sends is not trusted: here it is unpacked below the place that was asked
//! for and nowhere else, whatever names and links it holds (openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), as files of
//! the caller's own without set-id bits.

use crate::oci::client::Address;
use crate::oci::error::{Doing, Error, Result};
use crate::oci::state::{Locked, Status};
use crate::oci::{Global, args, client, pod};
use crate::sandbox::control::{Reply, Request};
use crate::sandbox::entries::{Named, Names};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, symlinkat, unlinkat,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A container's file, or one of the host.
enum Place<'a> {
    Inside(&'a str, &'a str),
    Host(&'a Path),
}

/// `NAME:PATH`; a path with a slash before any colon is the host's, as docker has it.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
            Place::Inside(name, path)
        }
        _ => Place::Host(Path::new(text)),
    }
}

/// `cp`.
pub(in crate::oci) fn main(global: &Global, args: &args::Copy) -> Result<u8> {
    match (place(&args.from), place(&args.to)) {
        (Place::Inside(id, from), Place::Host(to)) => out(global, id, from, to),
        (Place::Host(from), Place::Inside(id, to)) => into(global, id, from, to),
        _ => Err(Error::new("cp: one of both is NAME:PATH, the other is a path of the host")),
    }
    .map(|()| 0)
}

fn running(global: &Global, id: &str) -> Result<Address> {
    let locked = Locked::open(global, id)?;
    let state = locked.load()?;
    match state.status() {
        Status::Running => Ok(pod::address(&locked.path, &state)),
        Status::Paused => Err(Error::new(format!("container {id} is paused"))),
        _ => Err(Error::new(format!("container {id} is not running: what it had in memory is gone"))),
    }
}

fn absolute(path: &str) -> Vec<u8> {
    [b"/", path.trim_start_matches('/').as_bytes()].concat()
}

fn answer(stream: &UnixStream, of: &str) -> Result<()> {
    match client::receive(stream) {
        Some(Reply::Done) => Ok(()),
        Some(Reply::Failed(_, message)) => Err(Error::new(format!("cp: {message}"))),
        _ => Err(Error::new(format!("cp: {of}: the sandbox did not answer"))),
    }
}

/// From the container.
fn out(global: &Global, id: &str, from: &str, to: &Path) -> Result<()> {
    let stage = || format!("cp: {}", to.display());
    let stream = client::send(&running(global, id)?, Request::CopyOut(absolute(from)), &[])?;
    answer(&stream, id)?;
    // Into a directory, or as what is said; the contents alone where the name ends in `/.`.
    let last = Path::new(from).components().next_back();
    let name = match last {
        Some(std::path::Component::Normal(name)) if !from.ends_with("/.") => Some(name.to_owned()),
        _ => None,
    };
    let (dir, name) = match (to.is_dir(), name) {
        (true, name) => (to.to_owned(), name),
        (false, _) => {
            let name = to.file_name().ok_or_else(|| Error::new(format!("{}: no name", stage())))?;
            let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (dir.to_owned(), Some(name.to_owned()))
        }
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &dir, flags, Mode::empty()).doing(stage)?;
    let mut archive = tar::Archive::new(Whole { from: &stream, zeroes: 0 });
    let mut names = Names::default();
    for entry in archive.entries().doing(stage)?.raw(true) {
        let mut entry = entry.doing(stage)?;
        let failed = |error| Error::new(format!("{}: {error}", stage()));
        let Some(own) = names.take(&mut entry).map_err(failed)? else { continue };
        let own = own.without_holes().map_err(failed)?;
        put(&root, name.as_deref(), &own, &mut entry).doing(stage)?;
    }
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).doing(stage)?;
    if rest.zeroes < END {
        return Err(Error::new(format!(
            "{}: not all of it has come: the container has ended, or cannot read it",
            stage()
        )));
    }
    Ok(())
}

/// An archive ends with so many zeroes; else it has been cut off.
const END: u64 = 1024;

/// What counts the zeroes that came last.
struct Whole<R> {
    from: R,
    zeroes: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(to)?;
        let zeroes = to[..count].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeroes = zeroes as u64 + if zeroes == count { self.zeroes } else { 0 };
        Ok(count)
    }
}

/// Writes what comes, and leaves out what is zero for a while.
fn write_sparse(from: &mut impl Read, to: &File) -> std::io::Result<()> {
    let (mut room, mut at) = (vec![0; 64 << 10], 0_u64);
    loop {
        let mut filled = 0;
        while filled < room.len() {
            match from.read(&mut room[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return to.set_len(at);
        }
        if room[..filled].iter().any(|byte| *byte != 0) {
            to.write_all_at(&room[..filled], at)?;
        }
        at += filled as u64;
    }
}

/// An entry of an archive of a sandbox's.
fn put<R: Read>(
    root: &OwnedFd,
    name: Option<&OsStr>,
    own: &Named,
    entry: &mut tar::Entry<'_, R>,
) -> std::io::Result<()> {
    let mut parts: Vec<&[u8]> =
        own.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    match name {
        Some(name) if !parts.is_empty() => parts[0] = name.as_bytes(),
        _ => drop(parts.drain(..parts.len().min(1))),
    }
    if parts.iter().any(|part| *part == b".." || *part == b"." || part.contains(&0)) {
        return Err(std::io::Error::other("a name that leads elsewhere"));
    }
    let Some((last, above)) = parts.split_last() else { return Ok(()) };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let above = if above.is_empty() { b".".to_vec() } else { above.join(&b'/') };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat2(root, OsStr::from_bytes(&above), flags, Mode::empty(), resolve)?;
    let last = OsStr::from_bytes(last);
    let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o777);
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        // To be filled, also where its permissions are for others.
        return match mkdirat(&dir, last, mode | Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        };
    }
    match unlinkat(&dir, last, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    if kind.is_symlink() {
        let target = own.link.as_deref().unwrap_or_default();
        return Ok(symlinkat(OsStr::from_bytes(target), &dir, last)?);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(&dir, last, flags, Mode::RUSR | Mode::WUSR)?);
    write_sparse(entry, &file)?;
    Ok(fchmod(&file, mode)?)
}

/// Into the container.
fn into(global: &Global, id: &str, from: &Path, to: &str) -> Result<()> {
    let stage = || format!("cp: {}", from.display());
    let meta = std::fs::symlink_metadata(from).doing(stage)?;
    let whole = std::path::absolute(from).doing(stage)?;
    let name = whole.file_name().map_or_else(Vec::new, |name| name.as_bytes().to_vec());
    let request = Request::CopyIn(absolute(to), name);
    let stream = client::send(&running(global, id)?, request, &[])?;
    answer(&stream, id)?;
    let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(64 << 10, &stream));
    tar.follow_symlinks(false);
    let sent = match meta.is_dir() {
        true => tar.append_dir_all("it", from),
        false => tar.append_path_with_name(from, "it"),
    };
    let sent = sent.and_then(|()| tar.into_inner()?.flush());
    let _told = stream.shutdown(Shutdown::Write);
    // It knows better why it takes no more.
    match (answer(&stream, id), sent) {
        (Err(error), _) => Err(error),
        (Ok(()), sent) => sent.doing(stage),
    }
}
