//! What programs have changed in the root, written as a layer of an image when they have ended, or told by name.
//!
//! The archive is opened before the jail is closed and written by write(2), which the jail allows anyway; a program that fills
//! its files with whatever it likes fills at most three quarters of what the archive's disk has left. What an archive cannot
//! hold, or what had better not be in one, is left out and counted: device nodes (who unpacks as root would make those of the
//! host), names that are marks for removed ones themselves, sockets, what cannot be read, and names longer than PATH_MAX.

use super::layer::{Entry, File, Layer, OPAQUE, WHITEOUT, What};
use super::shown;
use crate::abi::Errno;
use crate::fs::layer::Node;
use crate::fs::layer::changes::{Change, Changed, Changes, Record};
use crate::fs::layer::content::Content;
use crate::hostfd::{self, HostFd};
use crate::hostsys::{change, file};
use crate::mm::IoDst;
use crate::vfs::{Caller, Inode, Kind, Namespace, Timestamp, Whence};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes written at a time.
const PIECE: usize = 256 << 10;

/// An archive that is to be written.
pub(super) struct Saving {
    path: PathBuf,
    to: Bounded,
    /// None of a root that is written through.
    changes: Option<Changes>,
}

/// What came of it, in words for the caller; nothing where there is nothing to say.
pub(super) type Said = Option<String>;

impl Saving {
    /// Makes the file.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn open(path: &Path) -> Result<Saving, Errno> {
        let to = hostfd::files().open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
        let left = room(&to);
        Ok(Saving { path: path.to_owned(), to: Bounded { to, left }, changes: None })
    }

    /// What is changed from now on counts, in the root and not in what is hidden there.
    pub(super) fn begin(&mut self, ns: &Namespace) {
        let places = ns.mounts().into_iter().filter_map(|mount| mount.place());
        let covered = places.map(|place| place.dentry).collect();
        self.changes = Changes::begin(ns.root().dentry.clone(), covered);
    }

    /// Writes it.
    pub(super) fn save(self) -> Said {
        let path = self.path.display();
        let Some(changes) = self.changes.as_ref() else {
            return Some(format!("{path}: the root is written through"));
        };
        match save(changes, self.to) {
            Ok(left_out) if left_out.is_empty() => None,
            Ok(left_out) => Some(format!("{path}: left out: {left_out}")),
            Err(error) => Some(format!("{path}: {error}: the archive is not complete")),
        }
    }
}

fn save(changes: &Changes, to: Bounded) -> io::Result<String> {
    let layer = Layer::new(BufWriter::with_capacity(PIECE, to));
    let mut writer = Writer { layer, linked: BTreeMap::new(), left_out: LeftOut::default() };
    changes.tell(&mut writer)?;
    writer.layer.finish()?;
    Ok(writer.left_out.to_string())
}

/// Bytes that may be written: a disk is not to be filled by whoever is in a sandbox. Asked before the jail is closed.
fn room(to: &HostFd) -> u64 {
    let is_file = file::statx(to.raw(), b"", libc::AT_EMPTY_PATH)
        .is_ok_and(|stat| Kind::from_mode(stat.stx_mode.into()) == Some(Kind::File));
    match change::statfs(to.raw()) {
        Ok(stat) if is_file => stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs()) / 4 * 3,
        _ => u64::MAX,
    }
}

struct Bounded {
    to: HostFd,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::StorageFull, "more than three quarters of what the disk has left")
        })?;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What could not be written.
#[derive(Default)]
struct LeftOut {
    devices: u64,
    marks: u64,
    unreadable: u64,
    /// The first of these.
    example: Option<(Vec<u8>, Errno)>,
}

impl LeftOut {
    fn is_empty(&self) -> bool {
        self.devices + self.marks + self.unreadable == 0
    }

    fn unreadable(&mut self, path: &[u8], why: Errno) {
        self.unreadable += 1;
        self.example.get_or_insert_with(|| (path[..path.len().min(200)].to_vec(), why));
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let mut all = Vec::new();
        for (count, what) in [
            (self.devices, "device nodes"),
            (self.marks, "names that begin with .wh."),
            (self.unreadable, "what cannot be read"),
        ] {
            if count > 0 {
                all.push(format!("{what} ({count})"));
            }
        }
        f.write_str(&all.join(", "))?;
        match &self.example {
            Some((path, why)) => write!(f, ": /{}: {why}", shown(path)),
            None => Ok(()),
        }
    }
}

struct Writer<W: Write> {
    layer: Layer<W>,
    /// Names under which files with several were written; the files are kept, so that they stay the same.
    linked: BTreeMap<usize, (Vec<u8>, Arc<dyn Inode>)>,
    left_out: LeftOut,
}

impl<W: Write> Writer<W> {
    /// An empty file that stands for something.
    fn mark(&mut self, path: &[u8]) -> io::Result<()> {
        let mut nothing = |_: &mut [u8], _: u64| Ok(0);
        let what = What::File(File { size: 0, data: Vec::new(), read: &mut nothing });
        let modified = Timestamp::default();
        self.layer.add(Entry {
            path,
            what,
            mode: 0o644,
            owner: (0, 0),
            modified,
            attributes: Vec::new(),
            changed: false,
        })
    }

    fn add<'a>(&mut self, changed: &Changed<'a>, what: What<'a>) -> io::Result<()> {
        let stat = changed.node.stat();
        self.layer.add(Entry {
            path: if changed.path.is_empty() { b"." } else { changed.path },
            what,
            mode: stat.mode,
            owner: (stat.uid, stat.gid),
            modified: stat.mtime,
            attributes: changed.node.attributes(),
            changed: changed.change != Change::Added,
        })
    }

    /// A file with several names, or with one.
    fn file(&mut self, changed: &Changed<'_>, content: &Content) -> io::Result<()> {
        let size = content.size();
        let mut first = [0];
        // What cannot be read is left out before it is begun.
        if let Err(why) = content.open().and_then(|()| content.read(&mut IoDst::kernel(&mut first), 0)) {
            self.left_out.unreadable(changed.path, why);
            return Ok(());
        }
        let mut failed = None;
        let mut read = |to: &mut [u8], at| {
            let got = content.read(&mut IoDst::kernel(to), at);
            got.or_else(|why| {
                // As much as was said must follow: zeroes do.
                failed.get_or_insert(why);
                Ok(0)
            })
        };
        let file = File { size, data: data_of(content, size), read: &mut read };
        self.add(changed, What::File(file))?;
        if let Some(why) = failed {
            self.left_out.unreadable(changed.path, why);
        }
        Ok(())
    }

    fn is_mark(path: &[u8]) -> bool {
        path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT))
    }
}

/// Where a file holds data.
fn data_of(content: &Content, size: u64) -> Vec<(u64, u64)> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < size {
        let Ok(start) = content.seek(at, Whence::Data) else { break };
        let end = content.seek(start, Whence::Hole).unwrap_or(size).min(size);
        if end <= start {
            break;
        }
        all.push((start, end - start));
        at = end;
    }
    all
}

impl<W: Write> Record for Writer<W> {
    fn changed(&mut self, changed: &Changed<'_>) -> io::Result<()> {
        // Nor is what is in such a directory to be found without it.
        if changed.path.split(|byte| *byte == b'/').any(Self::is_mark) {
            self.left_out.marks += 1;
            return Ok(());
        }
        let (node, kind) = (changed.node, Kind::from_mode(changed.node.stat().mode));
        let has_names = kind != Some(Kind::Dir) && node.stat().nlink > 1;
        let address = std::ptr::from_ref::<Node>(node) as usize;
        if let Some((first, _)) = self.linked.get(&address).filter(|_| has_names) {
            let first = first.clone();
            return self.add(changed, What::Link(&first));
        }
        match kind {
            Some(Kind::Dir) => {
                self.add(changed, What::Dir)?;
                if changed.opaque {
                    self.mark(&[changed.path, b"/", OPAQUE].concat())?;
                }
            }
            Some(Kind::File) => match node.content() {
                Some(content) => self.file(changed, content)?,
                None => return Ok(()),
            },
            Some(Kind::Symlink) => match node.readlink(Caller::MAKER) {
                Ok(target) => self.add(changed, What::Symlink(&target))?,
                Err(why) => self.left_out.unreadable(changed.path, why),
            },
            Some(Kind::Fifo) => self.add(changed, What::Fifo)?,
            Some(Kind::Char | Kind::Block) => self.left_out.devices += 1,
            // Like tar(1): without who listens at it, it is nothing.
            _ => return Ok(()),
        }
        if has_names {
            self.linked.insert(address, (changed.path.to_vec(), changed.dentry.inode.clone()));
        }
        Ok(())
    }

    fn removed(&mut self, path: &[u8]) -> io::Result<()> {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        if path.split(|byte| *byte == b'/').any(Self::is_mark) {
            self.left_out.marks += 1;
            return Ok(());
        }
        self.mark(&[&path[..at], WHITEOUT, &path[at..]].concat())
    }

    fn unknown(&mut self, path: &[u8], why: Errno) {
        self.left_out.unreadable(path, why);
    }
}
