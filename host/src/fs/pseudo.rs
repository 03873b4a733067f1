//! Building blocks of /proc and /sys: files whose text is made when they are read, fixed directories, links.

use crate::abi::{Errno, Result};
use crate::kernel::Kernel;
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, Rank};
use crate::vfs::{Caller, DirFile, FileOps, Inode, Kind, Link, ListEntry, Meta, OpenHow, Path, Stat, Whence};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// Inode numbers of fixed entries; those of processes are made from their ids, far above.
static NEXT_INO: AtomicU64 = AtomicU64::new(1);

/// A number for a fixed entry.
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Makes the text of an open file.
type Make = Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;
/// Takes what is written to one.
type Store = Box<dyn Fn(&[u8]) -> Result<()> + Send + Sync>;
/// Opens one, or not.
type Opener = Box<dyn Fn(Caller) -> Result<Opened> + Send + Sync>;

/// What an open file says and takes. It knows who opened it: those that it is handed on to get nothing that they could
/// not have been told, and may do nothing that its opener might not.
pub struct Opened {
    make: Make,
    store: Option<Store>,
    /// What is written is written in one piece, from the start.
    whole: bool,
}

impl Opened {
    /// One that is read.
    pub fn new(make: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Opened { make: Box::new(make), store: None, whole: false }
    }

    /// The same, written too.
    pub fn writable(self, store: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static) -> Self {
        Opened { store: Some(Box::new(store)), ..self }
    }

    /// The same, where writing anywhere but at the start is EINVAL.
    pub fn whole(self) -> Self {
        Opened { whole: true, ..self }
    }
}

/// A file whose text is made when it is first read.
pub struct Text {
    meta: Meta,
    opener: Opener,
    writable: bool,
    /// It can be given to others.
    settable: bool,
}

impl Text {
    /// A read-only one that says the same to everybody.
    pub fn new(ino: u64, make: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Arc<Self> {
        let make = Arc::new(make);
        Self::opened(ino, move |_| {
            let make = make.clone();
            Ok(Opened::new(move || make()))
        })
    }

    /// One with a text that never changes.
    pub fn fixed(text: impl Into<Vec<u8>>) -> Arc<Self> {
        let text = text.into();
        Self::new(next_ino(), move || Ok(text.clone()))
    }

    /// A read-only one that `opener` opens, for those that it lets.
    pub fn opened(ino: u64, opener: impl Fn(Caller) -> Result<Opened> + Send + Sync + 'static) -> Arc<Self> {
        let meta = Meta::new(Kind::File, ino, 0o444);
        Arc::new(Text { meta, opener: Box::new(opener), writable: false, settable: false })
    }

    /// The same for what can be written.
    pub fn writable(
        ino: u64,
        opener: impl Fn(Caller) -> Result<Opened> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let meta = Meta::new(Kind::File, ino, 0o644);
        Arc::new(Text { meta, opener: Box::new(opener), writable: true, settable: false })
    }

    /// The same, whose owner and permissions can be changed; to be said before anybody has it.
    pub fn settable(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.settable = true;
        }
        self
    }

    /// The same with an owner and permissions.
    pub fn with(self: Arc<Self>, perm: u32, uid: u32, gid: u32) -> Arc<Self> {
        self.meta.perm.store(perm, Ordering::Relaxed);
        self.meta.uid.store(uid, Ordering::Relaxed);
        self.meta.gid.store(gid, Ordering::Relaxed);
        self
    }
}

impl Inode for Text {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn open(self: Arc<Self>, _path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(TextFile { opened: (self.opener)(how.caller)?, text: Lock::new(Rank::PseudoText, None) }))
    }
    fn can_setattr(&self) -> Result<()> {
        if self.settable { Ok(()) } else { Err(Errno::EPERM) }
    }
    fn truncate(&self, _len: u64) -> Result<()> {
        // `echo 1 > /proc/...` opens with O_TRUNC.
        if self.writable { Ok(()) } else { Err(Errno::EACCES) }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct TextFile {
    opened: Opened,
    text: Lock<Option<Arc<Vec<u8>>>>,
}

impl TextFile {
    fn text(&self, offset: u64) -> Result<Arc<Vec<u8>>> {
        let known = self.text.lock().clone();
        match known {
            Some(text) if offset > 0 => Ok(text),
            _ => {
                let text = Arc::new((self.opened.make)()?);
                *self.text.lock() = Some(text.clone());
                Ok(text)
            }
        }
    }
}

impl FileOps for TextFile {
    fn positioned(&self) -> bool {
        true
    }
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        let offset = offset.unwrap_or(0);
        let text = self.text(offset)?;
        match text.get(offset as usize..) {
            Some(rest) if !rest.is_empty() => dst.write_bytes(rest),
            _ => Ok(0),
        }
    }
    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        // Root may open what has no permission to be written.
        let store = self.opened.store.as_ref().ok_or(Errno::EINVAL)?;
        if self.opened.whole && offset.is_some_and(|offset| offset != 0) {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; src.remaining().min(4096)];
        let count = src.read_bytes(&mut bytes)?;
        store(&bytes[..count])?;
        Ok(count)
    }
    fn append(&self, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        Ok((self.write(src, None)?, 0))
    }
    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => pos as i64,
            Whence::End | Whence::Data | Whence::Hole => return Err(Errno::EINVAL),
        };
        base.checked_add(offset).and_then(|n| u64::try_from(n).ok()).ok_or(Errno::EINVAL)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Fixed entries of a directory.
pub type Entries = BTreeMap<Vec<u8>, Arc<dyn Inode>>;

/// Entries that are made when somebody looks for the first time. Most programs look at few directories of /proc and /sys, and
/// a sandbox that starts should not have to make them all.
pub type LateEntries = LazyLock<Entries, Box<dyn FnOnce() -> Entries + Send>>;

/// What `make` will make of `kernel`; nothing once that is no more.
pub fn late<N: Into<Vec<u8>> + 'static>(
    kernel: &Arc<Kernel>,
    make: impl FnOnce(&Arc<Kernel>) -> Vec<(N, Arc<dyn Inode>)> + Send + 'static,
) -> LateEntries {
    let kernel = Arc::downgrade(kernel);
    LazyLock::new(Box::new(move || kernel.upgrade().map_or_else(Entries::new, |kernel| named(make(&kernel)))))
}

fn named<N: Into<Vec<u8>>>(entries: Vec<(N, Arc<dyn Inode>)>) -> Entries {
    entries.into_iter().map(|(name, inode)| (name.into(), inode)).collect()
}

/// A directory with the same entries always.
pub struct Dir {
    meta: Meta,
    entries: LateEntries,
}

impl Dir {
    /// One with these entries.
    pub fn new(entries: Vec<(&str, Arc<dyn Inode>)>) -> Arc<Self> {
        let entries = named(entries);
        Self::with(LazyLock::new(Box::new(move || entries)))
    }

    /// One with entries that are made later: see [`late`].
    pub fn late<N: Into<Vec<u8>> + 'static>(
        kernel: &Arc<Kernel>,
        make: impl FnOnce(&Arc<Kernel>) -> Vec<(N, Arc<dyn Inode>)> + Send + 'static,
    ) -> Arc<Self> {
        Self::with(late(kernel, make))
    }

    fn with(entries: LateEntries) -> Arc<Self> {
        Arc::new(Dir { meta: Meta::new(Kind::Dir, next_ino(), 0o555), entries })
    }
}

impl Inode for Dir {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn is_always_empty(&self) -> bool {
        self.entries.is_empty()
    }
    fn stat(&self) -> Stat {
        let dirs = self.entries.values().filter(|inode| inode.meta().kind == Kind::Dir).count();
        Stat { nlink: 2 + dirs as u32, ..self.meta.stat() }
    }
    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        Ok(self.entries.get(name).cloned())
    }
    fn list(&self) -> Result<Arc<[ListEntry]>> {
        Ok(self.entries.iter().map(|(name, inode)| entry(name, &**inode)).collect())
    }
    fn open(self: Arc<Self>, path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(path))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A directory entry for `inode`.
pub fn entry(name: &[u8], inode: &dyn Inode) -> ListEntry {
    ListEntry { name: name.into(), ino: inode.meta().ino, kind: inode.meta().kind }
}

/// The links that a directory with these entries has: its name, its own `.`, and the `..` of each directory in it.
pub fn links(entries: &[ListEntry]) -> u32 {
    2 + entries.iter().filter(|entry| entry.kind == Kind::Dir).count() as u32
}

/// A directory whose entries are found by functions.
pub struct DynDir<F, L> {
    meta: Meta,
    find: F,
    names: L,
    about: Option<Arc<dyn Any + Send + Sync>>,
}

impl<F, L> DynDir<F, L>
where
    F: Fn(&[u8]) -> Result<Option<Arc<dyn Inode>>> + Send + Sync + 'static,
    L: Fn() -> Result<Vec<ListEntry>> + Send + Sync + 'static,
{
    /// One with that inode number, owned by `uid` and `gid`.
    pub fn new(ino: u64, perm: u32, uid: u32, gid: u32, find: F, names: L) -> Arc<Self> {
        Arc::new(DynDir { meta: Meta::new(Kind::Dir, ino, perm).owned(uid, gid), find, names, about: None })
    }

    /// The same as the directory of one thing ([`Inode::about`]).
    pub fn of(mut self: Arc<Self>, about: Arc<dyn Any + Send + Sync>) -> Arc<Self> {
        if let Some(dir) = Arc::get_mut(&mut self) {
            dir.about = Some(about);
        }
        self
    }
}

impl<F, L> Inode for DynDir<F, L>
where
    F: Fn(&[u8]) -> Result<Option<Arc<dyn Inode>>> + Send + Sync + 'static,
    L: Fn() -> Result<Vec<ListEntry>> + Send + Sync + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn stat(&self) -> Stat {
        // What is in it comes and goes (threads): nobody counts meanwhile.
        let nlink = (self.names)().map_or(2, |entries| links(&entries));
        Stat { nlink, ..self.meta.stat() }
    }
    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        (self.find)(name)
    }
    fn list(&self) -> Result<Arc<[ListEntry]>> {
        Ok((self.names)()?.into())
    }
    fn open(self: Arc<Self>, path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(path))
    }
    fn about(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.about.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Finds out where a link leads, and what readlink(2) says.
type Target = Box<dyn Fn(Caller) -> Result<(Link, Vec<u8>)> + Send + Sync>;

/// A symbolic link whose target is found when it is followed.
pub struct Symlink {
    meta: Meta,
    target: Target,
}

impl Symlink {
    /// One that leads wherever `target` says.
    pub fn new(
        ino: u64,
        target: impl Fn(Caller) -> Result<(Link, Vec<u8>)> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Symlink { meta: Meta::new(Kind::Symlink, ino, 0o777), target: Box::new(target) })
    }

    /// One that is a name.
    pub fn named(ino: u64, text: impl Fn(Caller) -> Vec<u8> + Send + Sync + 'static) -> Arc<Self> {
        Self::new(ino, move |caller| {
            let text = text(caller);
            Ok((Link::Name(text.clone()), text))
        })
    }

    /// The same with an owner and permissions.
    pub fn with(self: Arc<Self>, perm: u32, uid: u32, gid: u32) -> Arc<Self> {
        self.meta.perm.store(perm, Ordering::Relaxed);
        self.meta.uid.store(uid, Ordering::Relaxed);
        self.meta.gid.store(gid, Ordering::Relaxed);
        self
    }
}

impl Inode for Symlink {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn follow(&self, caller: Caller) -> Result<Link> {
        Ok((self.target)(caller)?.0)
    }
    fn readlink(&self, caller: Caller) -> Result<Vec<u8>> {
        Ok((self.target)(caller)?.1)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
