//! /proc/PID and /proc/PID/task/TID: which entries there are and whose.
//!
//! | module | entries |
//! |---|---|
//! | `descriptors` | fd, fdinfo |
//! | `memory` | maps, smaps, statm |
//! | `namespaces` | ns, net |
//! | `status` | stat, status, limits |

mod descriptors;
mod memory;
mod namespaces;
mod status;

use super::system::lines;
use super::{TASK_INO, parse_id};
use crate::abi::{Errno, Result};
use crate::fs::pseudo::{DynDir, Symlink, Text};
use crate::kernel::{Kernel, Task, ThreadGroup};
use crate::mm::{Backing, Mm};
use crate::vfs::{FsContext, Inode, Kind, Link, ListEntry, Path};
use std::sync::Arc;

/// A process or thread, perhaps one that has ended and was not waited for.
#[derive(Clone)]
struct Subject {
    kernel: Arc<Kernel>,
    id: i32,
    group: Arc<ThreadGroup>,
    /// None for zombies.
    task: Option<Arc<Task>>,
    /// It is an entry of a `task` directory.
    thread: bool,
}

type Make = fn(&Subject) -> Result<String>;

/// Files with a text. Order is that of listings.
const TEXTS: &[(&str, u32, Make)] = &[
    ("cgroup", 0o444, |_| Ok("0::/\n".to_owned())),
    ("limits", 0o444, status::limits),
    ("loginuid", 0o644, |_| Ok("4294967295".to_owned())),
    ("maps", 0o444, |s| memory::maps(s, false)),
    ("mountinfo", 0o444, |s| mounts(s, true)),
    ("mounts", 0o444, |s| mounts(s, false)),
    ("oom_adj", 0o644, |_| Ok("0\n".to_owned())),
    ("oom_score", 0o444, |_| Ok("0\n".to_owned())),
    ("oom_score_adj", 0o644, |_| Ok("0\n".to_owned())),
    ("personality", 0o400, |_| Ok("00000000\n".to_owned())),
    ("sessionid", 0o444, |_| Ok("4294967295".to_owned())),
    ("setgroups", 0o644, |_| Ok("allow\n".to_owned())),
    ("gid_map", 0o644, |_| Ok("         0          0 4294967295\n".to_owned())),
    ("smaps", 0o444, |s| memory::maps(s, true)),
    ("smaps_rollup", 0o444, memory::smaps_rollup),
    ("stat", 0o444, status::stat),
    ("statm", 0o444, memory::statm),
    ("status", 0o444, status::status),
    ("uid_map", 0o644, |_| Ok("         0          0 4294967295\n".to_owned())),
    ("wchan", 0o444, |_| Ok("0".to_owned())),
    ("io", 0o400, |_| {
        Ok("rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_owned())
    }),
    ("schedstat", 0o444, |_| Ok("0 0 0\n".to_owned())),
];
/// A file: name, mode and what makes its contents.
type ByteFile = (&'static str, u32, fn(&Subject) -> Result<Vec<u8>>);

const BYTES: &[ByteFile] = &[
    ("auxv", 0o400, |s| Ok(s.mm().map(|mm| mm.layout().auxv).unwrap_or_default())),
    ("cmdline", 0o444, |s| s.memory(|layout| layout.args)),
    ("environ", 0o400, |s| s.memory(|layout| layout.env)),
];
const LINKS: [&str; 3] = ["cwd", "exe", "root"];
const DIRS: [&str; 4] = ["fd", "fdinfo", "ns", "net"];

/// The directory of process `id`.
pub(super) fn process(kernel: &Arc<Kernel>, id: i32) -> Option<Arc<dyn Inode>> {
    let tree = kernel.tree.lock();
    let (group, task) = match (tree.node(id), tree.task(id)) {
        (Some(node), task) => (node.group.clone(), task.cloned()),
        // Threads can be looked up by id although listings leave them out.
        (None, Some(task)) => (task.group.clone(), Some(task.clone())),
        (None, None) => return None,
    };
    drop(tree);
    let task = task.or_else(|| group.threads().first().cloned());
    Some(directory(Subject { kernel: kernel.clone(), id, group, task, thread: false }))
}

fn directory(subject: Subject) -> Arc<dyn Inode> {
    let (uid, gid) = subject.owner();
    let ino = subject.ino(0);
    let lister = subject.clone();
    DynDir::new(ino, 0o555, uid, gid, move |name| Ok(find(&subject, name)), move || Ok(list(&lister)))
}

fn list(subject: &Subject) -> Vec<ListEntry> {
    let mut number = 1;
    let mut all = Vec::new();
    let mut add = |name: &str, kind| {
        all.push(ListEntry { name: name.as_bytes().into(), ino: subject.ino(number), kind });
        number += 1;
    };
    for name in DIRS {
        add(name, Kind::Dir);
    }
    if !subject.thread {
        add("task", Kind::Dir);
    }
    for name in LINKS {
        add(name, Kind::Symlink);
    }
    add("comm", Kind::File);
    add("mem", Kind::File);
    for (name, _, _) in TEXTS {
        add(name, Kind::File);
    }
    for (name, _, _) in BYTES {
        add(name, Kind::File);
    }
    all
}

fn find(subject: &Subject, name: &[u8]) -> Option<Arc<dyn Inode>> {
    let name = std::str::from_utf8(name).ok()?;
    let ino = list(subject).iter().find(|entry| &*entry.name == name.as_bytes()).map(|entry| entry.ino)?;
    let (uid, gid) = subject.owner();
    let own = subject.clone();
    if let Some((_, perm, make)) = TEXTS.iter().find(|(known, _, _)| *known == name) {
        let text = if perm & 0o200 != 0 {
            Text::writable(ino, move |_| lines(make(&own)?), |_| Ok(()))
        } else {
            Text::new(ino, move |_| lines(make(&own)?))
        };
        return Some(text.with(*perm, uid, gid));
    }
    if let Some((_, perm, make)) = BYTES.iter().find(|(known, _, _)| *known == name) {
        return Some(Text::new(ino, move |_| make(&own)).with(*perm, uid, gid));
    }
    match name {
        "comm" => {
            let writer = subject.clone();
            let text = Text::writable(
                ino,
                move |_| {
                    let mut comm = own.comm();
                    comm.push(b'\n');
                    Ok(comm)
                },
                move |bytes| {
                    let name = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                    writer.task.as_ref().ok_or(Errno::ESRCH)?.set_comm(name);
                    Ok(())
                },
            );
            Some(text.with(0o644, uid, gid))
        }
        "mem" => Some(Text::new(ino, |_| Err(Errno::EIO)).with(0o600, uid, gid)),
        "cwd" => Some(link(ino, &own, |fs| fs.cwd(), uid, gid)),
        "root" => Some(link(ino, &own, |fs| fs.root(), uid, gid)),
        "exe" => Some(
            Symlink::new(ino, move |_| {
                let path = own.exe().ok_or(Errno::ENOENT)?;
                let text = path.display(&top(&path));
                Ok((Link::Jump(path), text))
            })
            .with(0o777, uid, gid),
        ),
        "fd" => Some(descriptors::fd_dir(ino, own, uid, gid)),
        "fdinfo" => Some(descriptors::fdinfo_dir(ino, own, uid, gid)),
        "ns" => Some(namespaces::ns_dir(ino, uid, gid)),
        "net" => Some(namespaces::net_dir(ino)),
        "task" => Some(task_dir(ino, own, uid, gid)),
        _ => None,
    }
}

/// The root of all mounts that `path` is under.
fn top(path: &Path) -> Path {
    let mut mount = path.mount.clone();
    while let Some(place) = mount.place() {
        mount = place.mount;
    }
    Path { dentry: mount.root.clone(), mount }
}

fn link(ino: u64, subject: &Subject, place: fn(&FsContext) -> Path, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let subject = subject.clone();
    Symlink::new(ino, move |_| {
        let fs = subject.task.as_ref().and_then(|task| task.fs()).ok_or(Errno::ENOENT)?;
        let path = place(&fs);
        let text = path.display(&top(&path));
        Ok((Link::Jump(path), text))
    })
    .with(0o777, uid, gid)
}

fn task_dir(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let lister = subject.clone();
    DynDir::new(
        ino,
        0o555,
        uid,
        gid,
        move |name| {
            let Some(id) = parse_id(name) else { return Ok(None) };
            let task = subject.group.threads().into_iter().find(|task| task.tid() == id);
            Ok(task.map(|task| {
                let (kernel, group) = (subject.kernel.clone(), subject.group.clone());
                directory(Subject { kernel, id, group, task: Some(task), thread: true })
            }))
        },
        move || {
            let entry = |task: &Arc<Task>| ListEntry {
                name: task.tid().to_string().into_bytes().into(),
                ino: TASK_INO * 2 + ((task.tid() as u64) << 8),
                kind: Kind::Dir,
            };
            Ok(lister.group.threads().iter().map(entry).collect())
        },
    )
}

impl Subject {
    fn ino(&self, number: u64) -> u64 {
        TASK_INO * if self.thread { 2 } else { 1 } + ((self.id as u64) << 8) + number
    }

    fn owner(&self) -> (u32, u32) {
        self.task.as_ref().map_or((0, 0), |task| {
            let cred = task.cred();
            (cred.uid.effective, cred.gid.effective)
        })
    }

    fn mm(&self) -> Option<Arc<Mm>> {
        self.task.as_ref()?.mm()
    }

    fn comm(&self) -> Vec<u8> {
        match &self.task {
            Some(task) => task.comm(),
            None => {
                let tree = self.kernel.tree.lock();
                let zombie = tree.node(self.id).and_then(|node| node.zombie.as_ref());
                let comm = zombie.map(|zombie| zombie.comm).unwrap_or_default();
                comm.into_iter().take_while(|byte| *byte != 0).collect()
            }
        }
    }

    /// Part of its memory: arguments, environment.
    fn memory(&self, range: fn(&crate::mm::Layout) -> (u64, u64)) -> Result<Vec<u8>> {
        let Some(mm) = self.mm() else { return Ok(Vec::new()) };
        let (start, end) = range(&mm.layout());
        let mut bytes = vec![0; end.saturating_sub(start).min(1 << 21) as usize];
        let count = if bytes.is_empty() { 0 } else { mm.read_some(start, &mut bytes)? };
        bytes.truncate(count);
        Ok(bytes)
    }

    /// The file that its code is mapped from.
    fn exe(&self) -> Option<Path> {
        let mm = self.mm()?;
        let code = mm.layout().code.0;
        let maps = mm.maps();
        let vma = maps.iter().find(|vma| vma.start <= code && code < vma.end)?;
        let name = match &vma.backing {
            Backing::Object { object, .. } => object.describe().path,
            _ => return None,
        };
        let fs = self.task.as_ref()?.fs()?;
        let cred = crate::cred::Cred::root();
        let lookup = crate::vfs::Lookup { fs: &fs, cred: &cred, caller: crate::vfs::Caller::default() };
        lookup.resolve(None, &name, crate::vfs::Resolve::empty()).ok()
    }

    fn node(&self) -> (i32, i32, i32) {
        let tree = self.kernel.tree.lock();
        tree.node(self.group.tgid).map_or((0, 0, 0), |node| (node.parent, node.pgid, node.sid))
    }

    fn letter(&self) -> char {
        match &self.task {
            Some(task) if !self.group.is_dead() => task.run_state().letter(),
            _ => 'Z',
        }
    }
}

fn mounts(subject: &Subject, info: bool) -> Result<String> {
    let fs = subject.task.as_ref().and_then(|task| task.fs()).ok_or(Errno::EINVAL)?;
    Ok(String::from_utf8_lossy(&fs.namespace().show(&fs.root(), info)).into_owned())
}
