//! Descriptors by which nodes are reached.
//!
//! Each node keeps the one that it was found by, and the oldest of too many are closed: the next who needs it goes the way
//! again, from the nearest directory above that has one, by names as they are in the tree of dentries. What is found then must
//! be the node's object, or it is ESTALE.

use super::{Id, Node};
use crate::abi::{Errno, Result};
use crate::hostfd::{self, HostFd, Origin};
use crate::hostsys::{change, file as host};
use crate::sync::{HostLine, Lock, Rank};
use crate::vfs::{Dentry, Kind, Through};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Most that are open, and the part of what the host allows that they may take.
const MOST: usize = 4096;
const SHARE: usize = 4;
/// What a place is opened with, be it a directory or anything else.
const PLACE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// A descriptor of O_PATH as a rule: a place, and no more.
pub(super) struct Place {
    fd: HostFd,
    _from: Option<Arc<From>>,
}

/// Where something was found.
pub(super) struct From {
    dir: Weak<Node>,
    name: Box<[u8]>,
}

impl Origin for From {
    fn place(&self) -> (i32, Vec<u8>) {
        let mut names: Vec<Arc<[u8]>> = vec![Arc::from(&*self.name)];
        let Some(mut at) = self.dir.upgrade().and_then(|dir| dir.living().into_iter().next()) else {
            return (-1, self.name.to_vec());
        };
        while let (Some(parent), name) = at.place() {
            names.push(name);
            at = parent;
        }
        names.reverse();
        let root = node_of(&at).ok().and_then(|root| root.place.lock().as_ref().map(|place| place.fd.raw()));
        (root.unwrap_or(-1), names.join(&b'/'))
    }
}

impl Place {
    /// That of the tree's root.
    pub(super) fn root(fd: HostFd) -> Place {
        Place { fd, _from: None }
    }
}

/// Which nodes have one.
pub(super) struct Places {
    limit: usize,
    open: Lock<VecDeque<Weak<Node>>>,
}

impl Places {
    pub(super) fn new() -> Self {
        let limit = (host::raise_nofile() as usize / SHARE).clamp(16, MOST);
        Places { limit, open: Lock::new(Rank::LowerCache, VecDeque::new()) }
    }

    /// Gives `node` a place, and takes the oldest one from another.
    pub(super) fn keep(&self, node: &Arc<Node>, place: Place) {
        let lasting = place._from.is_none();
        let before = node.place.lock().replace(place);
        let listed = before.is_some() || lasting;
        drop(before);
        if listed {
            return;
        }
        let oldest = {
            let mut open = self.open.lock();
            open.push_back(Arc::downgrade(node));
            if open.len() > self.limit { open.pop_front() } else { None }
        };
        let closed = oldest.and_then(|oldest| oldest.upgrade()).and_then(|oldest| oldest.place.lock().take());
        drop(closed);
    }
}

/// Opens the place `name` in the directory `dir` of the host.
fn open(
    line: &HostLine,
    dir: &HostFd,
    name: &[u8],
    flags: i32,
    from: Weak<From>,
) -> Result<(HostFd, libc::statx)> {
    let fd = line.call(|| hostfd::files().open_below(dir, name, flags, from))?;
    let raw = line.call(|| host::statx(fd.raw(), b"", libc::AT_EMPTY_PATH))?;
    Ok((fd, raw))
}

impl Node {
    /// A descriptor that stands for it: good for attributes, and for names below.
    pub(super) fn fd(&self) -> Result<HostFd> {
        if let Some(place) = &*self.place.lock() {
            return Ok(place.fd.clone());
        }
        let data = self.open.lock().any();
        match data {
            Some(data) => Ok(data.fd.clone()),
            None => self.find_again(),
        }
    }

    /// Where `name` was found in this directory.
    pub(super) fn from(&self, name: &[u8]) -> Arc<From> {
        Arc::new(From { dir: self.me.clone(), name: name.into() })
    }

    /// Looks for the place `name` in this directory.
    pub(super) fn open_place(&self, name: &[u8]) -> Result<(Place, libc::statx)> {
        let dir = self.fd()?;
        let from = self.from(name);
        let (fd, raw) = open(self.line(), &dir, name, PLACE, Arc::downgrade(&from))?;
        Ok((Place { fd, _from: Some(from) }, raw))
    }

    /// A descriptor of what was found in this directory, `from`, and must be there still, opened with `flags`.
    pub(super) fn open_object(&self, from: &Arc<From>, flags: i32, id: Id) -> Result<HostFd> {
        let dir = self.fd()?;
        let (fd, raw) = open(self.line(), &dir, &from.name, flags, Arc::downgrade(from))?;
        if Id::of(&raw) == id { Ok(fd) } else { Err(Errno::ESTALE) }
    }

    /// Its dentries that are in use and have not been removed in here.
    fn living(&self) -> Vec<Arc<Dentry>> {
        let all: Vec<Arc<Dentry>> = self.aliases.lock().iter().filter_map(Weak::upgrade).collect();
        all.into_iter().filter(|dentry| !dentry.is_dead()).collect()
    }

    /// One of its dentries that is in use. Of several, one by whose name it is still found: others may have moved it.
    pub(super) fn alias(&self) -> Result<Arc<Dentry>> {
        let living = self.living();
        let is_there = |dentry: &&Arc<Dentry>| {
            let (Some(parent), name) = dentry.place() else { return true };
            node_of(&parent).and_then(|dir| dir.is_still(&name, self)).unwrap_or(false)
        };
        let found = if living.len() > 1 { living.iter().find(is_there) } else { None };
        found.or(living.first()).cloned().ok_or(Errno::ENOENT)
    }

    /// Looks for it by the names that it has here.
    fn find_again(&self) -> Result<HostFd> {
        let mut result = Err(Errno::ENOENT);
        for dentry in self.living() {
            result = self.find_by(dentry);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Goes the way from the nearest directory above that has a descriptor.
    fn find_by(&self, dentry: Arc<Dentry>) -> Result<HostFd> {
        let mut way = vec![dentry];
        let mut at = loop {
            let parent = way.last().and_then(|dentry| dentry.parent()).ok_or(Errno::ESTALE)?;
            let known = node_of(&parent)?.place.lock().as_ref().map(|place| place.fd.clone());
            if let Some(fd) = known {
                break fd;
            }
            way.push(parent);
        };
        let mut above = way.last().and_then(|dentry| dentry.parent()).ok_or(Errno::ESTALE)?;
        while let Some(dentry) = way.pop() {
            let node = node_of(&dentry)?.me()?;
            let name = dentry.name();
            let from = node_of(&above)?.from(&name);
            let (fd, raw) = open(self.line(), &at, &name, PLACE, Arc::downgrade(&from))?;
            if Id::of(&raw) != node.id {
                return Err(Errno::ESTALE);
            }
            at = fd.clone();
            self.tree.places.keep(&node, Place { fd, _from: Some(from) });
            above = dentry;
        }
        Ok(at)
    }

    /// A descriptor of a directory that can be listed.
    pub(super) fn dir_fd(&self) -> Result<HostFd> {
        let dir = self.fd()?;
        let from = self.from(b".");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        self.line().call(|| {
            let from: Weak<From> = Arc::downgrade(&from);
            hostfd::files().open_below(&dir, b".", flags, from)
        })
    }

    /// chmod(2). What is a mere place needs a call that hosts before Linux 6.6 do not have, or one that opens it.
    pub(super) fn change_mode(&self, perm: u32) -> Result<()> {
        let data = self.open.lock().any();
        if let Some(data) = data {
            return self.line().call(|| change::fchmod(data.fd.raw(), perm));
        }
        let fd = self.fd()?;
        match self.line().call(|| change::chmod(fd.raw(), perm)) {
            Err(errno) if change::is_unknown(errno) => {}
            done => return done,
        }
        let opened = match self.meta.kind {
            Kind::Dir => self.dir_fd()?,
            Kind::File => self.data(false, None)?.fd.clone(),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        self.line().call(|| change::fchmod(opened.raw(), perm))
    }
}

/// The node that a dentry of a tree names.
pub(super) fn node_of(dentry: &Arc<Dentry>) -> Result<&Node> {
    dentry.inode.as_any().downcast_ref().ok_or(Errno::ESTALE)
}
