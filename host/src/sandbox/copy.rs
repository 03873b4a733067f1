//! Files copied out of a sandbox that runs, and into it, as tar archives on the stream of a request.
//!
//! Names are looked up as its programs look them up, from its root and as root: a link that points "outside" points to where
//! it points inside. What comes in is root's, as with `docker cp`; nothing is made but directories, regular files and symbolic
//! links, and by one name in a directory that was found, not through a link that the archive has brought.

use super::container::Shared;
use super::entries::{Named, Names};
use super::layer::{Entry, File, Layer, What};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::file;
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{Caller, Extra, Kind, Lookup, OpenHow, Path, Resolve};
use linux_raw_sys::general as c;
use std::io::{self, BufWriter, Read};

/// Bytes at a time.
const PIECE: usize = 64 << 10;
/// The longest name that is copied.
const LONGEST: usize = 4095;

/// What a request reads from.
struct Stream<'a>(&'a HostFd);

impl Read for Stream<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        file::read(self.0.raw(), to).map_err(host_error)
    }
}

fn host_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// What is to be copied out: found before the answer, so that it can say that it is not there.
pub(super) struct Out {
    path: Path,
    name: Vec<u8>,
}

/// Finds what `place` names; a link itself, unless a slash follows it.
///
/// # Errors
/// As open(2).
pub(super) fn find(world: &Shared, place: &[u8]) -> Result<Out> {
    let path = world.as_root(Caller::MAKER, |lookup| lookup.resolve(None, place, Resolve::empty()))?;
    let last = place.split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
    Ok(Out { path, name: last.to_vec() })
}

/// Writes it, and all that is in it.
///
/// # Errors
/// The stream's.
pub(super) fn out(world: &Shared, out: Out, stream: &HostFd) -> io::Result<()> {
    let mut layer = Layer::new(BufWriter::with_capacity(PIECE, stream.clone()));
    let mut left = vec![(out.path, out.name)];
    world.as_root(Caller::MAKER, |lookup| {
        while let Some((path, name)) = left.pop() {
            if name.len() > LONGEST {
                continue;
            }
            add(lookup, &mut layer, &path, &name)?;
            // Files that are answers (/proc, /sys) are no files.
            if path.dentry.kind() == Kind::Dir && !path.dentry.sb.volatile {
                left.extend(below(lookup, &path, &name));
            }
        }
        io::Result::Ok(())
    })?;
    layer.finish()
}

/// What a directory has. What goes meanwhile is not there.
fn below(lookup: &Lookup<'_>, dir: &Path, name: &[u8]) -> Vec<(Path, Vec<u8>)> {
    let mut names = Vec::new();
    let _partly = lookup.open_dir(dir).readdir(&mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            names.push(entry.name.to_vec());
        }
        true
    });
    let found = names.into_iter().filter_map(|own| {
        let path = lookup.resolve(Some(dir), &own, Resolve::empty()).ok()?;
        Some((path, [name, b"/", &own].concat()))
    });
    found.collect()
}

fn add<W: io::Write>(lookup: &Lookup<'_>, layer: &mut Layer<W>, path: &Path, name: &[u8]) -> io::Result<()> {
    let stat = path.stat();
    let mut entry = Entry {
        path: name,
        what: What::Dir,
        mode: stat.mode,
        owner: (stat.uid, stat.gid),
        modified: stat.mtime,
        attributes: Vec::new(),
        changed: false,
    };
    match path.dentry.kind() {
        Kind::Dir => layer.add(entry),
        Kind::Symlink => match path.dentry.inode.readlink(Caller::MAKER) {
            Ok(target) => {
                entry.what = What::Symlink(&target);
                layer.add(entry)
            }
            Err(_) => Ok(()),
        },
        Kind::File if !path.dentry.sb.volatile => {
            let how = OpenHow { flags: c::O_RDONLY | c::O_NOFOLLOW, ..OpenHow::default() };
            let opened = lookup.open_found(path, &how).map_err(host_error)?;
            // As much as was said must follow: zeroes do where it has become shorter.
            let mut read = |to: &mut [u8], at| opened.pread(&mut IoDst::kernel(to), at).map_err(host_error);
            entry.what = What::File(File { size: stat.size, data: vec![(0, stat.size)], read: &mut read });
            layer.add(entry)
        }
        _ => Ok(()),
    }
}

/// Unpacks an archive, whose names begin with one that stands for what is copied: it becomes `name` in the directory `place`, or
/// `place` itself where there is no such directory.
///
/// # Errors
/// In words, for whoever asked.
pub(super) fn into(
    world: &Shared,
    place: &[u8],
    name: &[u8],
    stream: &HostFd,
) -> std::result::Result<(), String> {
    let shown = super::shown(place);
    let (dir, name) = world
        .as_root(Caller::MAKER, |lookup| target(lookup, place, name))
        .map_err(|errno| format!("{shown}: {errno}"))?;
    let mut archive = tar::Archive::new(Stream(stream));
    let mut names = Names::default();
    for entry in archive.entries().map_err(|error| error.to_string())?.raw(true) {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let Some(own) = names.take(&mut entry)? else { continue };
        let own = own.without_holes()?;
        world
            .as_root(Caller::MAKER, |lookup| put(lookup, &dir, &name, &own, &mut entry))
            .map_err(|error| format!("{shown}: {}: {error}", super::shown(&own.path)))?;
    }
    Ok(())
}

/// The directory that something is put into, and as what.
fn target(lookup: &Lookup<'_>, place: &[u8], name: &[u8]) -> Result<(Path, Vec<u8>)> {
    match lookup.resolve(None, place, Resolve::FOLLOW) {
        Ok(path) if path.dentry.kind() == Kind::Dir => return Ok((path, name.to_vec())),
        Ok(_) | Err(Errno::ENOENT) if !place.ends_with(b"/") => {}
        Ok(_) => return Err(Errno::ENOTDIR),
        Err(errno) => return Err(errno),
    }
    let found = lookup.resolve_parent(None, place, Resolve::FOLLOW)?;
    Ok((found.dir, found.name.to_vec()))
}

fn put<R: Read>(
    lookup: &Lookup<'_>,
    dir: &Path,
    name: &[u8],
    own: &Named,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<()> {
    let mut parts: Vec<&[u8]> =
        own.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| *part == b".." || *part == b".") || parts.is_empty() {
        return Err(host_error(Errno::EINVAL));
    }
    parts[0] = name;
    let mut dir = dir.clone();
    let Some((last, above)) = parts.split_last() else { return Ok(()) };
    for part in above {
        // One name at a time, and no link: the archive may have brought it.
        dir = lookup.resolve(Some(&dir), part, Resolve::empty()).map_err(host_error)?;
    }
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        return match lookup.create(Some(&dir), last, Kind::Dir, mode, Extra::None) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(host_error(errno)),
        };
    }
    if kind.is_symlink() {
        let target = own.link.as_deref().unwrap_or_default();
        let _there = lookup.remove(Some(&dir), last, false);
        let made = lookup.create(Some(&dir), last, Kind::Symlink, 0o777, Extra::Target(target));
        return made.map(drop).map_err(host_error);
    }
    if !kind.is_file() {
        return Ok(());
    }
    let flags = c::O_WRONLY | c::O_CREAT | c::O_TRUNC | c::O_NOFOLLOW | c::O_NONBLOCK;
    let how = OpenHow { flags, mode, ..OpenHow::default() };
    let opened = lookup.open(Some(&dir), last, &how).map_err(host_error)?;
    let mut room = vec![0; PIECE];
    loop {
        let count = entry.read(&mut room)?;
        if count == 0 {
            break;
        }
        let mut src = IoSrc::kernel(&room[..count]);
        while src.remaining() > 0 {
            opened.write(&mut src).map_err(host_error)?;
        }
    }
    let made = lookup.resolve(Some(&dir), last, Resolve::empty()).map_err(host_error)?;
    lookup.set_mode(&made, mode).map_err(host_error)
}
