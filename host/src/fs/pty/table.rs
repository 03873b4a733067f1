//! The terminals there are, and /dev/pts.

use super::discipline::Discipline;
use super::{Master, Pty, SLAVE_MAJOR, Slave, State, slave_number};
use crate::abi::{Errno, Result};
use crate::fs::hostterm::HostTerminal;
use crate::fs::pseudo::next_ino;
use crate::hostfd::HostFd;
use crate::kernel::Kernel;
use crate::sync::{Lock, Rank, WaitQueue};
use crate::vfs::{
    Dentry, DirFile, FileOps, Inode, Kind, ListEntry, Meta, OpenHow, Path, Superblock, makedev,
};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Most terminals (kernel.pty.max).
const MAX: u32 = 4096;

/// What a node in /dev/pts leads to.
#[derive(Clone)]
enum Kin {
    Pty(Arc<Pty>),
    Host(Arc<HostTerminal>),
}

/// A terminal, and its slave's node: there is one as long as the terminal, so that what chmod(2) does to it stays.
type Entry = (Kin, Arc<Node>);

/// All terminals of a sandbox.
pub struct PtyTable {
    all: Lock<BTreeMap<u32, Entry>>,
    kernel: Lock<Weak<Kernel>>,
}

impl Default for PtyTable {
    fn default() -> Self {
        PtyTable {
            all: Lock::new(Rank::PtyTable, BTreeMap::new()),
            kernel: Lock::new(Rank::PtyKernel, Weak::new()),
        }
    }
}

impl PtyTable {
    /// Tells it whose sessions there are.
    pub fn set_kernel(&self, kernel: &Arc<Kernel>) {
        *self.kernel.lock() = Arc::downgrade(kernel);
    }

    pub(super) fn kernel(&self) -> Option<Arc<Kernel>> {
        self.kernel.lock().upgrade()
    }

    /// Opens a new terminal's master side; the slave's node belongs to who opens.
    ///
    /// # Errors
    /// ENOSPC when there are too many.
    pub fn open_master(self: &Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let (uid, gid) = self.owner(how.caller.tid);
        let mut all = self.all.lock();
        let index = free(&all)?;
        let pty = Arc::new(Pty {
            index,
            state: Lock::new(
                Rank::Pty,
                State {
                    line: Discipline::new(),
                    masters: 1,
                    slaves: 0,
                    used: false,
                    locked: true,
                    exclusive: [false; 2],
                    window: [0; 8],
                },
            ),
            master: WaitQueue::new(),
            slave: WaitQueue::new(),
            table: Arc::downgrade(self),
        });
        let node = self.node(index, (uid, gid));
        all.insert(index, (Kin::Pty(pty.clone()), node));
        Ok(Arc::new(Master(pty)))
    }

    /// The node of a slave.
    fn node(self: &Arc<Self>, index: u32, (uid, gid): (u32, u32)) -> Arc<Node> {
        let mut meta = Meta::new(Kind::Char, SLAVE_INO + u64::from(index), 0o620).owned(uid, gid);
        meta.rdev = slave_number(index);
        Arc::new(Node { meta, table: Arc::downgrade(self), slave: Some(index) })
    }

    /// Makes the host's terminal, descriptor `fd` of this process, one of these, owned by `owner`; returns its index.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn add_host(self: &Arc<Self>, fd: i32, owner: (u32, u32)) -> Result<u32> {
        let kernel = self.kernel().ok_or(Errno::EIO)?;
        let mut all = self.all.lock();
        let index = free(&all)?;
        let host = HostTerminal::new(index, fd, &kernel)?;
        let node = self.node(index, owner);
        all.insert(index, (Kin::Host(host), node));
        Ok(index)
    }

    /// Adds a terminal of the host that somebody has sent (see [`HostTerminal::received`]), and returns its number. Whoever
    /// adds it takes it [away](Self::remove).
    ///
    /// # Errors
    /// ENOSPC when there are too many, EIO without a kernel.
    pub fn add_received(self: &Arc<Self>, fd: HostFd, owner: (u32, u32)) -> Result<u32> {
        let kernel = self.kernel().ok_or(Errno::EIO)?;
        let mut all = self.all.lock();
        let index = free(&all)?;
        let host = HostTerminal::received(index, fd, &kernel);
        let node = self.node(index, owner);
        all.insert(index, (Kin::Host(host), node));
        Ok(index)
    }

    fn owner(&self, tid: i32) -> (u32, u32) {
        let cred = self.kernel().and_then(|kernel| kernel.task(tid)).map(|task| task.cred());
        cred.map_or((0, 0), |cred| (cred.uid.fs, cred.gid.fs))
    }

    /// Takes a terminal away; who has it open keeps it.
    pub fn remove(&self, index: u32) {
        let removed = self.all.lock().remove(&index);
        drop(removed);
    }

    /// Opens slave number `index`.
    ///
    /// # Errors
    /// ENXIO if there is none, EIO while it is locked.
    pub fn open_slave(&self, index: u32, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let kin = self.all.lock().get(&index).map(|(kin, _)| kin.clone()).ok_or(Errno::ENXIO)?;
        match kin {
            Kin::Pty(pty) => Slave::open(&pty, how),
            Kin::Host(host) => Ok(host),
        }
    }

    /// Opens the controlling terminal of the caller (/dev/tty).
    ///
    /// # Errors
    /// ENXIO if it has none.
    pub fn open_controlling(&self, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let tty = self.kernel().and_then(|kernel| kernel.controlling_terminal(how.caller.pid));
        let tty = tty.filter(|tty| crate::vfs::major(*tty) == SLAVE_MAJOR).ok_or(Errno::ENXIO)?;
        self.open_slave(crate::vfs::minor(tty), how)
    }

    /// Opens the terminal that the sandbox was started on.
    ///
    /// # Errors
    /// ENXIO if there is none.
    pub fn open_console(&self, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let host = self.kernel().and_then(|kernel| kernel.host_terminal()).ok_or(Errno::ENXIO)?;
        self.open_slave(crate::vfs::minor(host), how)
    }
}

/// The lowest index that no terminal has.
fn free(all: &BTreeMap<u32, Entry>) -> Result<u32> {
    (0..MAX).find(|index| !all.contains_key(index)).ok_or(Errno::ENOSPC)
}

/// The root directory of /dev/pts.
pub fn root(table: &Arc<PtyTable>) -> Arc<Dentry> {
    let mut ptmx = Meta::new(Kind::Char, next_ino(), 0o666);
    ptmx.rdev = makedev(5, 2);
    let root = Root {
        meta: Meta::new(Kind::Dir, next_ino(), 0o755),
        table: table.clone(),
        ptmx: Arc::new(Node { meta: ptmx, table: Arc::downgrade(table), slave: None }),
    };
    Dentry::root(&Superblock::volatile(makedev(0, 25), "devpts", DEVPTS_MAGIC), Arc::new(root), b"/")
}

struct Root {
    meta: Meta,
    table: Arc<PtyTable>,
    ptmx: Arc<Node>,
}

/// A device node in /dev/pts: ptmx, or a slave.
struct Node {
    meta: Meta,
    table: Weak<PtyTable>,
    slave: Option<u32>,
}

/// Inode numbers of slaves.
const SLAVE_INO: u64 = 1 << 24;

impl Inode for Root {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        if name == b"ptmx" {
            return Ok(Some(self.ptmx.clone()));
        }
        let index = std::str::from_utf8(name).ok().and_then(|name| name.parse::<u32>().ok());
        let Some(index) = index.filter(|index| index.to_string().as_bytes() == name) else { return Ok(None) };
        let found = self.table.all.lock().get(&index).map(|(_, node)| node.clone());
        Ok(found.map(|node| node as Arc<dyn Inode>))
    }
    fn list(&self) -> Result<Arc<[ListEntry]>> {
        let mut all = vec![ListEntry { name: (*b"ptmx").into(), ino: self.ptmx.meta.ino, kind: Kind::Char }];
        for index in self.table.all.lock().keys() {
            all.push(ListEntry {
                name: index.to_string().into_bytes().into(),
                ino: SLAVE_INO + u64::from(*index),
                kind: Kind::Char,
            });
        }
        Ok(all.into())
    }
    fn open(self: Arc<Self>, path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(path))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Inode for Node {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn open(self: Arc<Self>, _path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let table = self.table.upgrade().ok_or(Errno::EIO)?;
        match self.slave {
            Some(index) => table.open_slave(index, how),
            None => table.open_master(how),
        }
    }
    fn can_setattr(&self) -> Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
