//! What is done in directories.
//!
//! A new object is the host's before it has the owner and the permissions that it is to have here; until then nobody but this
//! process's user can open it: files are made without any permissions, and get an owner, then those. What was made is looked at
//! by the descriptor that made it; where there is none (directories, links, FIFOs, sockets), what the name stands for
//! afterwards must belong to who makes things here, and be as new as that, or somebody has put something else into its place,
//! which stays as it is. Nobody in here can: names change under their directory's lock ([`super::naming`]).

use super::file::Data;
use super::place::node_of;
use super::{Id, Node, kind_of};
use crate::abi::{Errno, Result};
use crate::fs::records;
use crate::hostfd;
use crate::hostsys::{change, file as host};
use crate::time::{NSEC_PER_SEC, realtime_ns};
use crate::vfs::{Alone, Dentry, Inode, Kind, ListEntry, NewNode, Path, Through};
use linux_raw_sys::general as c;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// Bytes of directory entries that are read at a time.
const ROOM: usize = 32 * 1024;
/// How a new regular file is opened.
const NEW_FILE: i32 = libc::O_RDWR | libc::O_NOCTTY;

impl Node {
    /// What `name` in this directory stands for.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Arc<Node>>> {
        if self.meta.kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        match self.open_place(name) {
            Ok((place, raw)) => Ok(Some(self.tree.node(&raw, Some(place)))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All names in this directory, `.` and `..` excepted.
    pub(super) fn read_names(&self) -> Result<Vec<ListEntry>> {
        let dir = self.dir_fd()?;
        let (mut room, mut all) = (vec![0; ROOM], Vec::new());
        loop {
            let len = self.line().call(|| host::getdents(dir.raw(), &mut room))?;
            if len == 0 {
                return Ok(all);
            }
            let own = self.id.0 == self.tree.dev;
            let ino = |ino| if own { ino } else { self.tree.ino_on(self.id.0, ino) };
            records::parse(&room[..len], ino, &mut all);
        }
    }

    /// Makes something, under a name or (a regular file) under none.
    pub(super) fn make(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<Node>> {
        self.tree.writable()?;
        self.changed();
        if new.kind == Kind::File {
            return self.make_file(name, new);
        }
        let alone = self.alone()?;
        let dir = self.fd()?;
        let (dir, perm) = (dir.raw(), new.perm & 0o7777);
        let since = realtime_ns();
        match new.kind {
            Kind::Dir => self.line().call(|| change::mkdir(dir, name, perm))?,
            Kind::Symlink => self.line().call(|| change::symlink(new.target, dir, name))?,
            Kind::Fifo | Kind::Socket => {
                self.line().call(|| change::mknod(dir, name, new.kind.mode() | perm))?;
            }
            // They would be devices of the host's.
            _ => return Err(Errno::EPERM),
        }
        let (place, raw) = self.open_place(name)?;
        if kind_of(&raw) != new.kind || raw.stx_uid != self.tree.own.0 || !is_new(&raw, since) {
            return Err(Errno::EEXIST);
        }
        drop(alone);
        let node = self.tree.node(&raw, Some(place));
        self.give_away(&node, new)?;
        Ok(node)
    }

    fn make_file(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<Node>> {
        let dir = self.fd()?;
        let perm = if self.tree.own == (new.uid, new.gid) { new.perm & 0o777 } else { 0 };
        let from = self.from(name);
        let fd = self.line().call(|| {
            hostfd::files().create_below(&dir, name, NEW_FILE, perm, Arc::downgrade(&from) as Weak<_>)
        })?;
        let raw = self.line().call(|| host::statx(fd.raw(), b"", libc::AT_EMPTY_PATH))?;
        let node = self.tree.node(&raw, None);
        // Whoever makes it opens it next, whatever its permissions.
        let before = node.open.lock().keep(Data::made(fd, from));
        drop(before);
        self.give_away(&node, new)?;
        Ok(node)
    }

    /// Gives what was just made to whom it is to belong to, then its permissions.
    fn give_away(&self, node: &Node, new: &NewNode<'_>) -> Result<()> {
        let meta = &node.meta;
        if (meta.uid.load(Relaxed), meta.gid.load(Relaxed)) != (new.uid, new.gid) {
            match node.set_owner(new.uid, new.gid) {
                // The caller is not root: what is made is the caller's.
                Err(Errno::EPERM) => {}
                done => done?,
            }
        }
        let perm = new.perm & 0o7777;
        if new.kind != Kind::Symlink && meta.perm.load(Relaxed) != perm {
            match node.set_mode(perm) {
                // A FIFO, or a socket, of an old host.
                Err(Errno::EOPNOTSUPP) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Links what has no name, or has lost the one that it was opened by.
    fn link_open(&self, dir: i32, name: &[u8]) -> Result<()> {
        let fd = self.fd()?;
        self.line().call(|| change::link(fd.raw(), b"", dir, name))
    }
}

/// The host notes times that are this much behind, at most: a tick of a slow clock.
const TICK_NS: u64 = 10_000_000;

/// Whether it was made since `since`, and has no other name; where the host keeps no time of birth, whether it might be.
fn is_new(raw: &libc::statx, since: u64) -> bool {
    let birth = &raw.stx_btime;
    let born = (birth.tv_sec as u64).saturating_mul(NSEC_PER_SEC).saturating_add(birth.tv_nsec.into());
    let dated = raw.stx_mask & libc::STATX_BTIME != 0;
    let alone = raw.stx_nlink <= 1 || kind_of(raw) == Kind::Dir;
    alone && (!dated || born.saturating_add(TICK_NS) >= since)
}

impl Through for Node {
    fn alone(&self) -> Result<Alone<'_>> {
        self.naming.one(self.id.1, self.line())
    }

    fn alone_with<'a>(&'a self, to: &'a dyn Inode) -> Result<Alone<'a>> {
        let to = to.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
        if to.id.0 != self.id.0 {
            return Err(Errno::EXDEV);
        }
        match to.id == self.id {
            true => self.alone(),
            false => self.naming.two([self.id.1, to.id.1], self.line()),
        }
    }

    fn unmoved(&self) -> Result<Alone<'_>> {
        self.naming.still(self.line())
    }

    fn aliases(&self) -> &crate::sync::Lock<Vec<Weak<Dentry>>> {
        &self.aliases
    }

    fn is_still(&self, name: &[u8], inode: &dyn Inode) -> Result<bool> {
        let Some(node) = inode.as_any().downcast_ref::<Node>() else { return Ok(false) };
        let dir = self.fd()?;
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        let raw = match self.line().call(|| host::statx(dir.raw(), name, flags)) {
            Ok(raw) => raw,
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        let same = Id::of(&raw) == node.id && kind_of(&raw) == node.meta.kind;
        if same {
            node.take(&raw);
        }
        Ok(same)
    }

    fn remove(&self, name: &[u8], is_dir: bool) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        let dir = self.fd()?;
        self.line().call(|| change::unlink(dir.raw(), name, is_dir))
    }

    fn link(&self, name: &[u8], old: &Path) -> Result<()> {
        self.tree.writable()?;
        self.changed();
        let node = node_of(&old.dentry)?;
        node.changed();
        let dir = self.fd()?;
        // By a name that it has, which takes no privilege.
        let by_name = |dentry: Arc<Dentry>| {
            let (Some(parent), old_name) = dentry.place() else { return Err(Errno::ENOENT) };
            let old_dir = node_of(&parent)?.fd()?;
            self.line().call(|| change::link(old_dir.raw(), &old_name, dir.raw(), name))
        };
        match node.alias() {
            Ok(dentry) if node.meta.nlink.load(Relaxed) != 0 => by_name(dentry),
            _ => node.link_open(dir.raw(), name),
        }
    }

    fn rename(&self, name: &[u8], to: &dyn Inode, new_name: &[u8], flags: u32) -> Result<()> {
        let to = to.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
        self.tree.writable()?;
        self.changed();
        to.changed();
        let known = c::RENAME_NOREPLACE | c::RENAME_EXCHANGE;
        if flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let (from, dir) = (self.fd()?, to.fd()?);
        self.line().call(|| change::rename(from.raw(), name, dir.raw(), new_name, flags))
    }
}
