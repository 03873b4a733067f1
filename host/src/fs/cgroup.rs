//! cgroup2: control groups as directories (cgroups(7)).
//!
//! A directory is a group; mkdir(2) makes one, rmdir(2) removes it, and its files show and set what `kernel::cgroups` knows.
//! Those are made when somebody looks for them and stay as long as the group, so that they can be given to somebody else
//! (chown(2)). Which there are depends on the controllers that the group has.
//!
//! The root shows what binds the sandbox as a whole. It is the hierarchy's own root, whose processes may stay where they are while
//! its children get controllers; its limits are not to be changed from inside.

mod files;

use super::pseudo::{Opened, Text, entry, next_ino};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::kernel::Kernel;
use crate::kernel::cgroups::CgroupId;
use crate::kernel::pids::PidNamespace;
use crate::sync::{Lock, Rank};
use crate::vfs::{
    Caller, Dentry, DirFile, FileOps, Inode, Kind, ListEntry, Meta, NewNode, OpenHow, Path, Superblock, Want,
    makedev, may,
};
use files::{FILES, Row};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// The file that processes are moved by.
const PROCS: &str = "cgroup.procs";

/// The root directory.
pub fn root(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let dir = Dir::new(CgroupId::ROOT, Weak::new(), Arc::downgrade(kernel), (0, 0), 0o755);
    Dentry::root(&Superblock::volatile(makedev(0, 26), "cgroup2", CGROUP2_MAGIC), dir, b"/")
}

/// Makes a group in that of `dir`, for who is no program. One that has the name has a number behind it then.
///
/// # Errors
/// As [`Cgroups::make`](crate::kernel::cgroups::Cgroups::make).
pub fn make(dir: &Arc<Dentry>, name: &[u8]) -> Result<CgroupId> {
    let new = NewNode { kind: Kind::Dir, perm: 0o755, uid: 0, gid: 0, rdev: 0, target: b"" };
    let mut tried = name.to_vec();
    for number in 1.. {
        match dir.add(&tried, || dir.inode.create(&tried, &new)) {
            Err(Errno::EEXIST) => tried = [name, format!(".{number}").as_bytes()].concat(),
            made => {
                let made = made?;
                let group = made.inode.as_any().downcast_ref::<Dir>().ok_or(Errno::EIO)?;
                return Ok(group.id());
            }
        }
    }
    Err(Errno::EEXIST)
}

/// Removes the group of `dir` and those below it.
///
/// # Errors
/// EBUSY as long as there are processes in any.
pub fn remove(dir: &Arc<Dentry>) -> Result<()> {
    // Parents first: they go from the end. (Nesting is bounded, and so is how many there are.)
    let mut all = vec![dir.clone()];
    let mut at = 0;
    while let Some(next) = all.get(at).cloned() {
        all.extend(
            next.known().into_iter().filter_map(|(_, child)| child).filter(|child| child.kind() == Kind::Dir),
        );
        at += 1;
    }
    for dir in all.iter().rev() {
        let (parent, name) = dir.place();
        match parent.map_or(Ok(()), |parent| parent.remove(&name, dir)) {
            // Somebody inside was faster.
            Err(Errno::ESTALE | Errno::ENODEV | Errno::ENOENT) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Whether it can be mounted with these options: they change nothing here.
///
/// # Errors
/// EINVAL for those that Linux does not know either.
pub fn options(text: &[u8]) -> Result<()> {
    const KNOWN: [&[u8]; 6] = [
        b"",
        b"nsdelegate",
        b"favordynmods",
        b"memory_localevents",
        b"memory_recursiveprot",
        b"pids_localevents",
    ];
    if text.split(|byte| *byte == b',').all(|option| KNOWN.contains(&option)) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// A group.
pub struct Dir {
    meta: Meta,
    id: CgroupId,
    /// None: the root.
    parent: Weak<Dir>,
    me: Weak<Dir>,
    kernel: Weak<Kernel>,
    /// Whose its files are as long as nobody gives them to somebody else.
    owner: (u32, u32),
    files: Lock<BTreeMap<&'static str, Arc<Text>>>,
}

/// Who opened a file of which group.
#[derive(Clone)]
struct View {
    kernel: Arc<Kernel>,
    dir: Arc<Dir>,
    pid: i32,
    /// What processes are called by who opened it.
    pids: Arc<PidNamespace>,
    cred: Arc<Cred>,
}

impl Dir {
    fn new(id: CgroupId, parent: Weak<Dir>, kernel: Weak<Kernel>, owner: (u32, u32), perm: u32) -> Arc<Dir> {
        Arc::new_cyclic(|me| Dir {
            meta: Meta::new(Kind::Dir, next_ino(), perm).owned(owner.0, owner.1),
            id,
            parent,
            me: me.clone(),
            kernel,
            owner,
            files: Lock::new(Rank::CgroupFiles, BTreeMap::new()),
        })
    }

    /// The group.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    fn kernel(&self) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or(Errno::EIO)
    }

    /// The files that it has at present.
    fn rows(&self) -> Result<impl Iterator<Item = &'static Row>> {
        let (has, root) = (self.kernel()?.cgroups.controllers(self.id), self.id == CgroupId::ROOT);
        Ok(FILES.iter().filter(move |row| has.contains(row.of) && !(root && row.below_root)))
    }

    fn file(&self, row: &'static Row) -> Result<Arc<Text>> {
        let me = self.me.clone();
        let owner = self.owner;
        let made = move || {
            let perm = if row.write.is_none() {
                0o444
            } else if row.read.is_none() {
                0o200
            } else {
                0o644
            };
            let open = move |caller: Caller| open(row, &me.upgrade().ok_or(Errno::ENODEV)?, caller);
            let text = if row.write.is_some() {
                Text::writable(next_ino(), open)
            } else {
                Text::opened(next_ino(), open)
            };
            text.with(perm, owner.0, owner.1).settable()
        };
        let known = self.files.lock().get(row.name).cloned();
        // Made without the lock: who was first wins.
        Ok(known.unwrap_or_else(|| {
            let made = made();
            self.files.lock().entry(row.name).or_insert(made).clone()
        }))
    }

    /// Whether somebody with these credentials may move a process from one group here: who may write to the file by which that is
    /// done in the innermost group that holds both.
    ///
    /// # Errors
    /// EACCES.
    pub fn may_come_from(&self, cred: &Cred, from: CgroupId) -> Result<()> {
        let kernel = self.kernel()?;
        let mut at = self.me.upgrade().ok_or(Errno::ENODEV)?;
        while !kernel.cgroups.is_within(from, at.id) {
            at = at.parent.upgrade().ok_or(Errno::ENODEV)?;
        }
        let row = FILES.iter().find(|row| row.name == PROCS).ok_or(Errno::ENODEV)?;
        may(cred, at.file(row)?.meta(), Want::WRITE)
    }
}

fn open(row: &'static Row, dir: &Arc<Dir>, caller: Caller) -> Result<Opened> {
    let kernel = dir.kernel()?;
    let task = kernel.task(caller.tid).ok_or(Errno::ESRCH)?;
    let (pids, cred) = (task.group.pids.clone(), task.cred());
    let view = View { kernel, dir: dir.clone(), pid: caller.pid, pids, cred };
    let reading = view.clone();
    let opened = Opened::new(move || {
        reading.kernel.cgroups.check(reading.dir.id)?;
        row.read.ok_or(Errno::EINVAL)?(&reading).map(String::into_bytes)
    });
    Ok(match row.write {
        Some(write) => opened.writable(move |bytes| {
            view.kernel.cgroups.check(view.dir.id)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
            write(&view, text.trim())
        }),
        None => opened,
    })
}

impl Inode for Dir {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        let found = self.rows()?.find(|row| row.name.as_bytes() == name);
        found.map(|row| self.file(row).map(|file| file as Arc<dyn Inode>)).transpose()
    }

    fn list(&self) -> Result<Arc<[ListEntry]>> {
        self.rows()?.map(|row| Ok(entry(row.name.as_bytes(), &*self.file(row)?))).collect()
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        match new.kind {
            Kind::Dir => {}
            // O_TMPFILE.
            Kind::File if name.is_empty() => return Err(Errno::EOPNOTSUPP),
            Kind::File => return Err(Errno::EACCES),
            _ => return Err(Errno::EPERM),
        }
        let id = self.kernel()?.cgroups.make(self.id, name)?;
        Ok(Dir::new(id, self.me.clone(), self.kernel.clone(), (new.uid, new.gid), new.perm))
    }

    fn can_edit(&self) -> Result<()> {
        Ok(())
    }

    fn has_fixed_files(&self) -> bool {
        true
    }

    fn vanish(&self) -> Option<Result<()>> {
        Some(self.kernel().and_then(|kernel| kernel.cgroups.remove(self.id)))
    }

    fn can_setattr(&self) -> Result<()> {
        Ok(())
    }

    fn open(self: Arc<Self>, path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(path))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
