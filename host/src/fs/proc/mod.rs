//! /proc: what the kernel knows of itself and of processes.
//!
//! Entries are looked up every time (the superblock is volatile): processes come and go. Texts follow proc(5).

mod ipc_limits;
mod opener;
mod sysctl;
mod sysctl_net;
mod system;
mod sysvipc;
mod task;

use super::pseudo::{LateEntries, Symlink, entry, late, links, next_ino};
use crate::abi::{Errno, Result};
use crate::kernel::Kernel;
use crate::kernel::pids::PidNamespace;
use crate::vfs::{
    Caller, Dentry, DirFile, FileOps, Inode, Kind, Link, ListEntry, Meta, OpenHow, Path, Stat, Superblock,
    makedev,
};
use std::any::Any;
use std::sync::{Arc, Weak};

const PROC_MAGIC: u64 = 0x9fa0;
/// Inode numbers of process entries: this, the id and a number for the entry.
const TASK_INO: u64 = 1 << 32;

/// The root directory of a new /proc, which shows the processes of `pids` by the numbers that they have there; its files are
/// on device `minor`.
pub fn root(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>, minor: u32) -> Arc<Dentry> {
    let own = pids.clone();
    let root = Root {
        meta: Meta::new(Kind::Dir, next_ino(), 0o555),
        kernel: Arc::downgrade(kernel),
        pids: pids.clone(),
        fixed: late(kernel, move |kernel| fixed(kernel, &own)),
    };
    Dentry::root(&Superblock::volatile(makedev(0, minor), "proc", PROC_MAGIC), Arc::new(root), b"/")
}

/// A link that is a name made of what the caller is called; it leads nowhere for callers who are called nothing here.
fn own_link(pids: &Arc<PidNamespace>, name: fn(i32, i32) -> String) -> Arc<dyn Inode> {
    let pids = pids.clone();
    Symlink::new(next_ino(), move |caller| {
        let (pid, tid) = (pids.number_of(caller.pid), pids.number_of(caller.tid));
        if pid == 0 || tid == 0 {
            return Err(Errno::ENOENT);
        }
        let text = name(pid, tid).into_bytes();
        Ok((Link::Name(text.clone()), text))
    })
}

fn fixed(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let mut all = system::entries(kernel, pids);
    all.push(("self", own_link(pids, |pid, _| pid.to_string())));
    all.push(("thread-self", own_link(pids, |pid, tid| format!("{pid}/task/{tid}"))));
    all.push(("mounts", Symlink::named(next_ino(), |_| b"self/mounts".to_vec())));
    all.push(("net", Symlink::named(next_ino(), |_| b"self/net".to_vec())));
    all
}

struct Root {
    meta: Meta,
    kernel: Weak<Kernel>,
    pids: Arc<PidNamespace>,
    fixed: LateEntries,
}

/// A process or thread id, as a file name must spell it.
fn parse_id(name: &[u8]) -> Option<i32> {
    if name.is_empty() || name[0] == b'0' || name.len() > 9 || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl Inode for Root {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn stat(&self) -> Stat {
        let nlink = self.list().map_or(2, |entries| links(&entries));
        Stat { nlink, ..self.meta.stat() }
    }

    fn lookup(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        if let Some(id) = parse_id(name) {
            let kernel = self.kernel.upgrade().ok_or(Errno::ENOENT)?;
            let Ok(id) = self.pids.id_of(id) else { return Ok(None) };
            return Ok(task::process(&kernel, &self.pids, id));
        }
        Ok(self.fixed.get(name).cloned())
    }

    fn list(&self) -> Result<Arc<[ListEntry]>> {
        let mut all: Vec<ListEntry> = self.fixed.iter().map(|(name, inode)| entry(name, &**inode)).collect();
        if let Some(kernel) = self.kernel.upgrade() {
            let ids: Vec<i32> = kernel.tree.lock().nodes().map(|(id, _)| *id).collect();
            let mut known: Vec<(i32, i32)> = ids
                .into_iter()
                .map(|id| (self.pids.number_of(id), id))
                .filter(|(number, _)| *number != 0)
                .collect();
            known.sort_unstable();
            all.extend(known.into_iter().map(|(number, id)| ListEntry {
                name: number.to_string().into_bytes().into(),
                ino: TASK_INO + ((id as u64) << 8),
                kind: Kind::Dir,
            }));
        }
        Ok(all.into())
    }

    fn open(self: Arc<Self>, path: &Path, _how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(path))
    }

    fn readlink(&self, _caller: Caller) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
