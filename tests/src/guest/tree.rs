//! The file tree of a guest: collected from here and there, written as one initramfs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cpio::newc;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

#[derive(Clone, Debug)]
enum Node {
    Dir,
    /// A copy of a file of this machine, with the permissions to give it.
    Copy(PathBuf, u32),
    Bytes(Vec<u8>),
    Link(PathBuf),
    Char(u32, u32),
}

/// Files by their absolute path in the guest.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// Adds a directory and those above it.
    pub fn dir(&mut self, path: impl AsRef<Path>) {
        for above in path.as_ref().ancestors() {
            if above.parent().is_some() {
                self.nodes.entry(above.to_owned()).or_insert(Node::Dir);
            }
        }
    }

    fn insert(&mut self, path: &Path, node: Node) {
        if let Some(parent) = path.parent() {
            self.dir(parent);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Adds a file with these contents.
    pub fn bytes(&mut self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.insert(path.as_ref(), Node::Bytes(bytes.into()));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, to: impl Into<PathBuf>) {
        self.insert(path.as_ref(), Node::Link(to.into()));
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: impl AsRef<Path>, major: u32, minor: u32) {
        self.insert(path.as_ref(), Node::Char(major, minor));
    }

    /// Adds a file, link or directory (with what is in it) of this machine at `path`.
    pub fn copy(&mut self, from: &Path, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let metadata = fs::symlink_metadata(from)?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            self.link(path, fs::read_link(from)?);
        } else if kind.is_dir() {
            self.dir(path);
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                self.copy(&entry.path(), path.join(entry.file_name()))?;
            }
        } else if kind.is_file() {
            let mode = metadata.permissions().mode() & 0o7777;
            self.insert(path, Node::Copy(from.to_owned(), mode));
        }
        Ok(())
    }

    /// Moves the whole tree below the directory `below`.
    #[must_use]
    pub fn below(self, below: &Path) -> Self {
        let mut moved = Self::default();
        moved.dir(below);
        for (path, node) in self.nodes {
            let inner = path.strip_prefix("/").unwrap_or(&path);
            moved.nodes.insert(below.join(inner), node);
        }
        moved
    }

    /// Writes the tree as a cpio archive that the kernel unpacks at boot.
    pub fn write_initramfs(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for (inode, (name, node)) in (1u32..).zip(&self.nodes) {
            let name = name.strip_prefix("/").unwrap_or(name);
            let entry = newc::Builder::new(&name.to_string_lossy()).ino(inode);
            match node {
                Node::Dir => put(entry.mode(S_IFDIR | 0o755).nlink(2), &[], &mut out)?,
                Node::Bytes(bytes) => put(entry.mode(S_IFREG | 0o755), bytes, &mut out)?,
                Node::Link(to) => {
                    let to = to.to_string_lossy();
                    put(entry.mode(S_IFLNK | 0o777), to.as_bytes(), &mut out)?;
                }
                Node::Char(major, minor) => {
                    let entry = entry.mode(S_IFCHR | 0o600);
                    put(entry.rdev_major(*major).rdev_minor(*minor), &[], &mut out)?;
                }
                Node::Copy(from, mode) => {
                    let mut file = File::open(from)?;
                    let size =
                        u32::try_from(file.metadata()?.size()).map_err(|_| io::ErrorKind::FileTooLarge)?;
                    let mut writer = entry.mode(S_IFREG | mode).write(&mut out, size);
                    io::copy(&mut file, &mut writer)?;
                    writer.finish()?;
                }
            }
        }
        newc::trailer(&mut out)?.flush()
    }
}

fn put(entry: newc::Builder, data: &[u8], out: &mut impl Write) -> io::Result<()> {
    let size = u32::try_from(data.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = entry.nlink(1).write(out, size);
    writer.write_all(data)?;
    writer.finish().map(drop)
}
