//! Trees, and who writes back for them.

use super::file::{Data, Open};
use super::naming::{Naming, Namings};
use super::pages::Pages;
use super::place::{Place, Places};
use super::{Id, Node, kind_of};
use crate::abi::{Errno, Result};
use crate::fs::dev::Devices;
use crate::fs::layer::lower::reach_of;
use crate::hostfd::HostFd;
use crate::hostsys::{change, file as host, identity};
use crate::sync::{HostLine, Lock, LongLock, Rank, Reach};
use crate::vfs::{Dentry, Kind, Meta, Superblock, makedev};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

/// A directory or file of the host, and all that is below.
pub(super) struct Tree {
    /// Whether the root's file system is the host's own, and not one of somebody whom it asks.
    pub(super) near: bool,
    /// The same for those that no task makes.
    pub(super) direct: HostLine,
    /// What device nodes lead to.
    pub(super) devices: Arc<Devices>,
    pub(super) places: Arc<Places>,
    /// That of the root's device, and those of others below.
    pub(super) naming: Arc<Naming>,
    pub(super) namings: Arc<Namings>,
    /// Whether programs may change anything, whatever the mounts say: nobody in here can change that.
    pub(super) written: bool,
    pub(super) nodes: Lock<Nodes>,
    /// The device that the root is on, and numbers for others below.
    pub(super) dev: u64,
    pub(super) others: Lock<BTreeMap<u64, u64>>,
    /// Whose the files are that this process makes.
    pub(super) own: (u32, u32),
    /// Nodes with pages that nobody maps any more and that the host does not have yet.
    pub(super) late: Sender<Arc<Node>>,
}

#[derive(Default)]
pub(super) struct Nodes {
    pub(super) all: BTreeMap<Id, Weak<Node>>,
    /// Length at which those that are gone are swept out.
    sweep_at: usize,
}

/// What writes pages back that no task waits for: to be run by a thread.
pub struct WriteBack(Receiver<Arc<Node>>);

impl WriteBack {
    /// Writes until there are no trees any more.
    pub fn run(self) {
        while let Ok(node) = self.0.recv() {
            let _nobody_to_tell = node.pages.write_back(&node, 0..u64::MAX, &node.tree.direct);
            node.pages.settle();
        }
    }
}

/// Trees of one sandbox.
pub struct Trees {
    places: Arc<Places>,
    namings: Arc<Namings>,
    late: Sender<Arc<Node>>,
    /// Whose the files are that this process makes.
    own: (u32, u32),
    all: Lock<Vec<Arc<Tree>>>,
}

impl Trees {
    /// None yet, and who writes back for them.
    ///
    /// # Errors
    /// What the host says of the caller's ids: once the jail is closed it is not asked any more.
    pub fn new() -> Result<(Trees, WriteBack)> {
        let (late, list) = channel();
        let ids = identity::own()?;
        Ok((
            Trees {
                places: Arc::new(Places::new()),
                namings: Arc::new(Namings::new()),
                late,
                own: (ids.uid, ids.gid),
                all: Lock::new(Rank::ThroughTrees, Vec::new()),
            },
            WriteBack(list),
        ))
    }

    /// Adds the directory or regular file `root` of the host, on anonymous device `dev`, to be `written` to or not. A file is open as programs are to have
    /// it, a directory for looking things up.
    ///
    /// # Errors
    /// The host's; EINVAL for what is neither.
    pub fn add(
        &self,
        root: HostFd,
        (dev, written): (u32, bool),
        devices: &Arc<Devices>,
    ) -> Result<Arc<Dentry>> {
        let raw = host::statx(root.raw(), b"", libc::AT_EMPTY_PATH)?;
        let statfs = change::statfs(root.raw())?;
        let id = Id::of(&raw);
        let tree = Arc::new(Tree {
            near: reach_of(statfs.f_type as u64) == Reach::Near,
            direct: HostLine::new(Reach::Near),
            devices: devices.clone(),
            places: self.places.clone(),
            naming: self.namings.of(id.0),
            namings: self.namings.clone(),
            written,
            nodes: Lock::new(Rank::ThroughNodes, Nodes::default()),
            dev: id.0,
            others: Lock::new(Rank::LowerDevices, BTreeMap::new()),
            own: self.own,
            late: self.late.clone(),
        });
        let node = match kind_of(&raw) {
            Kind::Dir => tree.node(&raw, Some(Place::root(root))),
            Kind::File => {
                let node = tree.node(&raw, Some(Place::root(root.clone())));
                node.open.lock().keep(Data::given(root)?);
                node
            }
            _ => return Err(Errno::EINVAL),
        };
        self.all.lock().push(tree);
        let sb = Superblock::through(makedev(0, dev), name_of(statfs.f_type as u64), statfs.f_type as u64);
        let dentry = Dentry::root(&sb, node.clone(), b"/");
        node.aliases.lock().push(Arc::downgrade(&dentry));
        Ok(dentry)
    }

    /// Forgets those that nobody has anything of any more, and lets go of their descriptors.
    pub fn sweep(&self) {
        let unused: Vec<Arc<Tree>> = {
            let mut all = self.all.lock();
            all.extract_if(.., |tree| Arc::strong_count(tree) == 1).collect()
        };
        // Descriptors are closed without a lock held.
        drop(unused);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.lock().is_empty()
    }

    /// Writes everything back: no program runs any more.
    pub fn finish(&self) {
        let trees = self.all.lock().clone();
        for tree in &trees {
            let all: Vec<Arc<Node>> = tree.nodes.lock().all.values().filter_map(Weak::upgrade).collect();
            for node in all {
                let _nobody_to_tell = node.pages.write_back(&node, 0..u64::MAX, &tree.direct);
            }
        }
    }
}

/// What /proc/mounts calls a file system of the host's, by its magic number.
fn name_of(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        _ => "host",
    }
}

impl Tree {
    /// The node for what the host describes by `raw`, with attributes of now; `place` is how it was reached.
    pub(super) fn node(self: &Arc<Self>, raw: &libc::statx, place: Option<Place>) -> Arc<Node> {
        let id = Id::of(raw);
        let known = self.nodes.lock().all.get(&id).and_then(Weak::upgrade);
        let node = match known {
            Some(known) if known.meta.kind == kind_of(raw) => {
                known.take(raw);
                known
            }
            _ => {
                let made = self.new_node(id, raw);
                // Somebody may have been faster; he goes when the lock is free.
                let other = self.nodes.lock().enter(id, &made);
                other.filter(|other| other.meta.kind == made.meta.kind).unwrap_or(made)
            }
        };
        if let Some(place) = place {
            self.places.keep(&node, place);
        }
        node
    }

    fn new_node(self: &Arc<Self>, id: Id, raw: &libc::statx) -> Arc<Node> {
        let mut meta = Meta::new(kind_of(raw), self.ino(raw), u32::from(raw.stx_mode) & 0o7777);
        meta.rdev = makedev(raw.stx_rdev_major, raw.stx_rdev_minor);
        let node = Arc::new_cyclic(|me| Node {
            meta,
            me: me.clone(),
            tree: self.clone(),
            id,
            size: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            blksize: raw.stx_blksize,
            asked: AtomicU64::new(0),
            place: Lock::new(Rank::LowerFd, None),
            open: Lock::new(Rank::ThroughOpen, Open::default()),
            writing: LongLock::default(),
            naming: if id.0 == self.dev { self.naming.clone() } else { self.namings.of(id.0) },
            pages: Pages::default(),
            aliases: Lock::new(Rank::ThroughAliases, Vec::new()),
            shared: Lock::new(Rank::InodeShared, None),
        });
        node.take(raw);
        node
    }

    /// The inode number shown: the host's on the root's device, else with a number for the device on top.
    fn ino(&self, raw: &libc::statx) -> u64 {
        let dev = makedev(raw.stx_dev_major, raw.stx_dev_minor);
        if dev == self.dev { raw.stx_ino } else { self.ino_on(dev, raw.stx_ino) }
    }

    /// Fails where nothing is to be changed.
    pub(super) fn writable(&self) -> Result<()> {
        if self.written { Ok(()) } else { Err(Errno::EROFS) }
    }

    pub(super) fn ino_on(&self, dev: u64, ino: u64) -> u64 {
        let mut others = self.others.lock();
        let next = others.len() as u64 + 1;
        ino ^ *others.entry(dev).or_insert(next) << 48
    }
}

impl Nodes {
    /// Enters `made`, unless there is one already, which is returned.
    fn enter(&mut self, id: Id, made: &Arc<Node>) -> Option<Arc<Node>> {
        if let Some(other) = self.all.get(&id).and_then(Weak::upgrade)
            && other.meta.kind == made.meta.kind
        {
            return Some(other);
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|_, node| node.strong_count() != 0);
            self.sweep_at = (self.all.len() * 2).max(64);
        }
        self.all.insert(id, Arc::downgrade(made));
        None
    }
}
