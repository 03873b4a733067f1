//! Layers, unpacked onto each other into a new directory.
//!
//! Whatever the names and links in them say, nothing is read or written outside: every directory is found by openat2(2) with the
//! new directory as the root (RESOLVE_IN_ROOT), as programs of the container would find it, and what is made in it is made by
//! one name, never through a link. Device nodes are left out, sandboxes have their own. Bytes, names and layers are bounded.
//!
//! As root files get the owners that the layers say; otherwise all are the caller's, and he can read and remove them.

use super::made::Made;
use super::manifest::Parts;
use super::store::{Store, plain};
use super::{At, Result, remove};
use crate::sandbox::entries::{Named, Names};
use crate::sandbox::layer::{OPAQUE, WHITEOUT};
use oci_spec::image::ImageConfiguration;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, fstatvfs, futimens, linkat, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most names: headers, and directories that are made for what is in them.
const MOST_NAMES: u64 = 1 << 20;
/// The longest name, with all directories.
const LONGEST: usize = 4096;
/// What an image may be unpacked to, beside so many times its size: more is a bomb.
const BASE: u64 = 256 << 20;
const TIMES: u64 = 100;

/// Bytes that may be written to a file system: three quarters of what it has left.
pub(super) fn room(on: &impl AsFd) -> Result<u64> {
    let stat = fstatvfs(on).at("room in the cache")?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize)) / 4 * 3)
}

/// Unpacks all layers into `to`, which is made.
pub(super) fn layers(to: &Path, store: &Store, parts: &Parts, config: &ImageConfiguration) -> Result<()> {
    let digests = config.rootfs().diff_ids();
    if digests.len() != parts.layers.len() {
        return Err(format!("{} layers, and digests of {}", parts.layers.len(), digests.len()));
    }
    std::fs::create_dir(to).at("the cache")?;
    let root =
        openat(CWD, to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("the cache")?;
    let packed = parts.layers.iter().map(|name| Ok(store.part(name)?.1)).sum::<Result<u64>>()?;
    let bytes = room(&root)?.min(BASE + packed.saturating_mul(TIMES));
    let mut tree =
        Tree { root, bytes, most: bytes, names: MOST_NAMES, owns: rustix::process::geteuid().is_root() };
    for (name, digest) in parts.layers.iter().zip(digests) {
        tree.layer(store, name, digest).map_err(|error| format!("layer {name}: {error}"))?;
    }
    let cwd = config.config().as_ref().and_then(|config| config.working_dir().as_deref()).unwrap_or("");
    tree.make(&components(cwd.as_bytes())?).map(drop)
}

/// What is unpacked so far.
struct Tree {
    root: OwnedFd,
    /// Left of the bytes and names that there may be.
    bytes: u64,
    most: u64,
    names: u64,
    /// Owners can be given.
    owns: bool,
}

/// A layer as it is read: counted, and its digest taken.
struct Counted<R> {
    inner: R,
    digest: Sha256,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| std::io::Error::other("too large"))?;
        self.digest.update(&buf[..count]);
        Ok(count)
    }
}

/// The parts of a name, which lead downwards only.
fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
    if name.len() > LONGEST || name.contains(&0) {
        return Err(format!("{}...: no name", shown()));
    }
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) { Err(format!("{}: leads upwards", shown())) } else { Ok(parts) }
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl Tree {
    fn layer(&mut self, store: &Store, name: &str, digest: &str) -> Result<()> {
        let reader = plain(store.part(name)?.0)?;
        // Headers are not files: a little more than these may be.
        let counted = Counted { inner: reader, digest: Sha256::new(), left: self.most.saturating_mul(2) };
        let mut archive = tar::Archive::new(counted);
        let mut made = Made::default();
        let mut names = Names::default();
        for entry in archive.entries().at("no archive")?.raw(true) {
            let mut entry = entry.map_err(|error| self.too_large(&error))?;
            self.count(1)?;
            let Some(own) = names.take(&mut entry)? else { continue };
            let Named { path, link, .. } = own.without_holes()?;
            self.entry(&path, link, &mut entry, &mut made).map_err(|error| {
                format!("{}: {error}", String::from_utf8_lossy(&path[..path.len().min(200)]))
            })?;
        }
        let mut counted = archive.into_inner();
        std::io::copy(&mut counted, &mut std::io::sink()).map_err(|error| self.too_large(&error))?;
        let found = format!("{:x}", counted.digest.finalize());
        if digest == format!("sha256:{found}") {
            Ok(())
        } else {
            Err("is not what its digest says".to_owned())
        }
    }

    fn too_large(&self, error: &std::io::Error) -> String {
        match error.to_string().as_str() {
            "too large" => format!("unpacked it is larger than {} MiB", self.most >> 20),
            other => other.to_owned(),
        }
    }

    fn count(&mut self, names: u64) -> Result<()> {
        self.names = self.names.checked_sub(names).ok_or_else(|| format!("more than {MOST_NAMES} names"))?;
        Ok(())
    }

    fn open(&self, parts: &[&[u8]]) -> rustix::io::Result<OwnedFd> {
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, os(&path), flags, Mode::empty(), resolve)
    }

    /// A directory, found as programs in the image would find it.
    fn find(&self, parts: &[&[u8]]) -> Result<OwnedFd> {
        self.open(parts).at("its directory")
    }

    /// The same, made where it is missing.
    fn make(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        match self.open(parts) {
            Err(Errno::NOENT) => {}
            other => return other.at("its directory"),
        }
        // Where one is missing, so are all below: halving finds the first without a look at each from the root.
        let ends: Vec<usize> = (1..=parts.len()).collect();
        let there = ends.partition_point(|end| self.open(&parts[..*end]).is_ok());
        let mut dir = self.find(&parts[..there])?;
        for name in &parts[there..] {
            self.count(1)?;
            mkdirat(&dir, os(name), Mode::from_raw_mode(0o755)).at("its directory")?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = openat(&dir, os(name), flags, Mode::empty()).at("its directory")?;
        }
        Ok(dir)
    }

    fn entry<R: Read>(
        &mut self,
        path: &[u8],
        link: Option<Vec<u8>>,
        entry: &mut tar::Entry<'_, R>,
        made: &mut Made,
    ) -> Result<()> {
        let parts = components(path)?;
        let header = entry.header().clone();
        let kind = header.entry_type();
        let Some((name, above)) = parts.split_last() else {
            // The root itself.
            return if kind.is_dir() { self.finish(&self.find(&[])?, b".", &header) } else { Ok(()) };
        };
        if kind.is_pax_global_extensions() || kind.is_character_special() || kind.is_block_special() {
            return Ok(());
        }
        let dir = self.make(above)?;
        if *name == OPAQUE {
            return self.clear(&dir, above, made);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return if components(hidden)?.len() == 1 { discard(&dir, hidden) } else { Ok(()) };
        }
        self.count(made.add(&parts))?;
        if kind.is_dir() {
            return self.make_directory(&dir, name, &header);
        }
        if kind.is_hard_link() {
            let target = link.ok_or("a link to nothing")?;
            let target = components(&target)?;
            let (old, old_above) = target.split_last().ok_or("a link to the root")?;
            if target == parts {
                return Ok(());
            }
            let old_dir = self.find(old_above)?;
            discard(&dir, name)?;
            return linkat(&old_dir, os(old), &dir, os(name), AtFlags::empty()).at("link");
        }
        discard(&dir, name)?;
        if kind.is_symlink() {
            let target = link.ok_or("a link to nothing")?;
            symlinkat(os(&target), &dir, os(name)).at("symbolic link")?;
            return self.own(&dir, name, &header);
        }
        if kind.is_fifo() {
            mknodat(&dir, os(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0).at("FIFO")?;
            return self.own(&dir, name, &header);
        }
        self.make_file(&dir, name, &header, entry)
    }

    fn make_directory(&self, dir: &OwnedFd, name: &[u8], header: &tar::Header) -> Result<()> {
        match mkdirat(dir, os(name), Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) if !is_directory(dir, name) => {
                discard(dir, name)?;
                mkdirat(dir, os(name), Mode::from_raw_mode(0o700)).at("directory")?;
            }
            Err(Errno::EXIST) => {}
            other => other.at("directory")?,
        }
        self.finish(dir, name, header)
    }

    fn make_file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        header: &tar::Header,
        from: &mut impl Read,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(dir, os(name), flags, Mode::from_raw_mode(0o600)).at("file")?);
        let count = std::io::copy(&mut from.take(self.bytes + 1), &mut file)
            .map_err(|error| self.too_large(&error))?;
        self.bytes = self
            .bytes
            .checked_sub(count)
            .ok_or_else(|| format!("unpacked it is larger than {} MiB", self.most >> 20))?;
        self.set(&file, header, 0o400)
    }

    /// Gives a directory what its header says.
    fn finish(&self, dir: &OwnedFd, name: &[u8], header: &tar::Header) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.set(&openat(dir, os(name), flags, Mode::empty()).at("directory")?, header, 0o700)
    }

    /// Owner, permissions and time; the caller can do at least `least` with what is his.
    fn set(&self, file: &impl AsFd, header: &tar::Header, least: u32) -> Result<()> {
        let mut mode = header.mode().unwrap_or(0o755) & 0o7777;
        if self.owns {
            fchown(file, uid(header), gid(header)).at("owner")?;
        } else {
            mode |= least;
        }
        fchmod(file, Mode::from_raw_mode(mode)).at("permissions")?;
        let time = Timespec { tv_sec: header.mtime().unwrap_or(0).min(i64::MAX as u64) as i64, tv_nsec: 0 };
        // A time that the file system cannot keep harms nobody.
        let _kept = futimens(file, &Timestamps { last_access: time, last_modification: time });
        Ok(())
    }

    fn own(&self, dir: &OwnedFd, name: &[u8], header: &tar::Header) -> Result<()> {
        if !self.owns {
            return Ok(());
        }
        chownat(dir, os(name), uid(header), gid(header), AtFlags::SYMLINK_NOFOLLOW).at("owner")
    }

    /// Removes all that is in a directory, but for what this layer has made: that there is nothing else is so from then on.
    ///
    /// A directory that has the number of a removed one is of this layer itself, with all that is in it.
    fn clear(&self, dir: &OwnedFd, above: &[&[u8]], made: &mut Made) -> Result<()> {
        let stat = fstat(dir).at("directory")?;
        if !made.cleared.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let listed = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at("directory")?;
        let names = Dir::new(listed).at("directory")?;
        let names: Vec<Vec<u8>> =
            names.filter_map(|entry| Some(entry.ok()?.file_name().to_bytes().to_vec())).collect();
        for name in names.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
            if !made.below(above).is_some_and(|own| own.contains_key(&name[..])) {
                discard(dir, name)?;
            }
        }
        Ok(())
    }
}

fn uid(header: &tar::Header) -> Option<Uid> {
    header.uid().ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX).map(Uid::from_raw)
}

fn gid(header: &tar::Header) -> Option<Gid> {
    header.gid().ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX).map(Gid::from_raw)
}

fn is_directory(dir: &OwnedFd, name: &[u8]) -> bool {
    rustix::fs::statat(dir, os(name), AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes a name, with all that is below; nothing happens where there is none.
fn discard(dir: &OwnedFd, name: &[u8]) -> Result<()> {
    match unlinkat(dir, os(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(_) if is_directory(dir, name) => remove::tree(dir, os(name)).at("removing it"),
        Err(errno) => Err(format!("removing it: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Made, Tree, components};
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::path::PathBuf;

    /// A tree in a directory of its own.
    fn tree(called: &str, names: u64) -> (PathBuf, Tree) {
        let path = std::env::temp_dir().join(format!("unpack-{called}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let root = openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (path, Tree { root, bytes: 1 << 20, most: 1 << 20, names, owns: false })
    }

    #[test]
    fn directories_above_a_name_are_names() {
        let (path, mut tree) = tree("above", 100);
        let parts = |count| vec![&b"a"[..]; count];
        assert!(tree.make(&parts(60)).is_ok());
        assert!(tree.make(&parts(100)).is_ok());
        assert!(tree.make(&parts(100)).is_ok());
        assert_eq!(tree.names, 0);
        assert!(tree.make(&parts(101)).is_err_and(|error| error.contains("names")));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_is_cleared_once_in_a_layer() {
        let (path, tree) = tree("clear", 100);
        std::fs::create_dir(path.join("d")).unwrap();
        std::os::unix::fs::symlink("d", path.join("l")).unwrap();
        std::fs::write(path.join("d/below"), "").unwrap();
        let mut made = Made::default();
        let dir = |name| tree.find(&[name]).unwrap();
        tree.clear(&dir(b"d"), &[b"d"], &mut made).unwrap();
        assert!(!path.join("d/below").exists());
        // Whatever is in it now is of this layer, and is not looked at again, under no name.
        std::fs::write(path.join("d/own"), "").unwrap();
        tree.clear(&dir(b"d"), &[b"d"], &mut made).unwrap();
        tree.clear(&dir(b"l"), &[b"l"], &mut made).unwrap();
        assert!(path.join("d/own").exists());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn names_lead_downwards() {
        assert_eq!(components(b"./a//b/").unwrap(), [b"a", b"b"]);
        assert_eq!((components(b"/").unwrap().len(), components(b"/etc").unwrap()), (0, vec![&b"etc"[..]]));
        assert!(
            components(b"a/../b").is_err()
                && components(b"..").is_err()
                && components(&[b'x'; 5000]).is_err()
        );
    }
}
