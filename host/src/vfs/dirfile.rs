//! Open directories.

use super::{Dentry, FileOps, Kind, Path, Whence};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One entry as getdents(2) gives it.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub kind: Kind,
    /// Position behind it.
    pub next: u64,
}

struct Entry {
    name: Arc<[u8]>,
    ino: u64,
    kind: Kind,
}

/// An open directory. Its list of names is taken when reading starts: names made or removed later need not show up
/// (readdir(3)), and every name there all the while shows up once.
pub struct DirFile {
    path: Path,
    names: Lock<Option<Arc<Vec<Entry>>>>,
}

impl DirFile {
    /// Opens the directory `path`.
    pub fn new(path: &Path) -> Arc<Self> {
        Arc::new(DirFile { path: path.clone(), names: Lock::new(Rank::DirListing, None) })
    }

    fn list(&self) -> Result<Arc<Vec<Entry>>> {
        let dentry = &self.path.dentry;
        let parent = dentry.parent().unwrap_or_else(|| dentry.clone());
        let mut entries = vec![entry_of(b".", dentry), entry_of(b"..", &parent)];
        if dentry.is_dead() {
            return Ok(Arc::new(Vec::new()));
        }
        let below = dentry.inode.list()?;
        let known: BTreeMap<_, _> = dentry.known().into_iter().collect();
        entries.reserve(below.len());
        for entry in below.iter() {
            match known.get(&entry.name[..]) {
                Some(None) => {}
                Some(Some(child)) => entries.push(entry_of(&entry.name, child)),
                None => entries.push(Entry { name: entry.name[..].into(), ino: entry.ino, kind: entry.kind }),
            }
        }
        if known.values().any(Option::is_some) {
            let listed: BTreeSet<&[u8]> = below.iter().map(|entry| &entry.name[..]).collect();
            for (name, child) in &known {
                if let Some(child) = child
                    && !listed.contains(&name[..])
                {
                    entries.push(Entry { name: name.clone(), ..entry_of(b"", child) });
                }
            }
        }
        Ok(Arc::new(entries))
    }
}

fn entry_of(name: &[u8], dentry: &Dentry) -> Entry {
    let meta = dentry.inode.meta();
    Entry { name: name.into(), ino: meta.ino, kind: meta.kind }
}

impl FileOps for DirFile {
    fn read(&self, _dst: &mut crate::mm::IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => pos as i64,
            Whence::End | Whence::Data | Whence::Hole => return Err(Errno::EINVAL),
        };
        let new = base.checked_add(offset).and_then(|n| u64::try_from(n).ok()).ok_or(Errno::EINVAL)?;
        if new == 0 {
            *self.names.lock() = None;
        }
        Ok(new)
    }

    fn readdir(&self, pos: &mut u64, sink: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        if self.path.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        let known = self.names.lock().clone();
        let names = match known {
            Some(names) if *pos > 0 => names,
            _ => {
                let names = self.list()?;
                *self.names.lock() = Some(names.clone());
                names
            }
        };
        for entry in names.iter().skip(*pos as usize) {
            let next = *pos + 1;
            if !sink(&DirEntry { name: &entry.name, ino: entry.ino, kind: entry.kind, next }) {
                break;
            }
            *pos = next;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
