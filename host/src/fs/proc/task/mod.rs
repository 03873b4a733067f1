//! /proc/PID and /proc/PID/task/TID: which entries there are and whose.
//!
//! | module | entries |
//! |---|---|
//! | `access` | who may look |
//! | `descriptors` | fd, fdinfo |
//! | `memory` | maps, smaps, statm, mem |
//! | `net` | net |
//! | `namespaces` | ns, uid_map, gid_map, projid_map, setgroups |
//! | `settings` | comm, coredump_filter, personality, oom_score_adj and its like |
//! | `status` | stat, status, limits |

mod access;
mod descriptors;
mod memory;
mod namespaces;
mod net;
mod settings;
mod status;

use super::system::lines;
use super::{TASK_INO, parse_id};
use crate::abi::{Errno, Result};
use crate::cred::Ids;
use crate::cred::userns::IdKind;
use crate::fs::pseudo::{DynDir, Opened, Symlink, Text};
use crate::kernel::pids::PidNamespace;
use crate::kernel::{Kernel, Task, ThreadGroup};
use crate::mm::Mm;
use crate::vfs::{FsContext, Inode, Kind, Link, ListEntry, Path};
use access::View;
use std::sync::Arc;

/// A process or thread, perhaps one that has ended and was not waited for.
#[derive(Clone)]
struct Subject {
    kernel: Arc<Kernel>,
    /// Whose /proc it is: everybody is called what he is called there.
    pids: Arc<PidNamespace>,
    id: i32,
    group: Arc<ThreadGroup>,
    /// None for zombies.
    task: Option<Arc<Task>>,
    /// It is an entry of a `task` directory.
    thread: bool,
}

/// Makes what a file says.
type Make = fn(&View) -> Result<Vec<u8>>;
/// Takes what is written to it.
type Write = fn(&View, &[u8]) -> Result<()>;

/// A file.
struct Row {
    name: &'static str,
    perm: u32,
    /// It tells of the process's memory, and of no other program's than that which ran when it was opened: opening it
    /// takes the right to look ([`Subject::memory_view`]).
    private: bool,
    /// What is written is written in one piece.
    whole: bool,
    /// Only processes have it, not each thread.
    of_process: bool,
    make: Make,
    write: Option<Write>,
}

/// A file that anybody may open whom its permissions let.
const fn row(name: &'static str, perm: u32, make: Make) -> Row {
    Row { name, perm, private: false, whole: false, of_process: false, make, write: None }
}

/// A file that tells of the process's memory.
const fn private(name: &'static str, perm: u32, make: Make) -> Row {
    Row { private: true, ..row(name, perm, make) }
}

/// A file that can be written.
const fn writable(name: &'static str, make: Make, write: Write) -> Row {
    Row { write: Some(write), ..row(name, 0o644, make) }
}

/// One that is written in one piece.
const fn whole(name: &'static str, make: Make, write: Write) -> Row {
    Row { whole: true, ..writable(name, make, write) }
}

/// One that only processes have.
const fn of_process(row: Row) -> Row {
    Row { of_process: true, ..row }
}

/// All files but `mem`. Order is that of listings. What there is nothing true to say of is missing, as in a Linux without
/// that part: task accounting (io), audit (loginuid, sessionid), scheduler statistics (schedstat), symbols (wchan).
const FILES: &[Row] = &[
    private("auxv", 0o400, |v| Ok(v.auxv.clone())),
    row("cgroup", 0o444, |v| {
        let path = v.subject.kernel.cgroups.path_from(v.subject.group.cgroup(), v.cgroup_root);
        Ok([b"0::", &path[..], b"\n"].concat())
    }),
    row("cmdline", 0o444, |v| memory::command_line(v.subject.mm())),
    writable("comm", settings::comm, settings::set_comm),
    of_process(writable("coredump_filter", settings::coredump_filter, settings::set_coredump_filter)),
    private("environ", 0o400, |v| memory::environment(v.space())),
    whole(
        "gid_map",
        |v| Ok(namespaces::map(v, IdKind::Group)),
        |v, text| namespaces::set_map(v, IdKind::Group, text),
    ),
    row("limits", 0o444, |v| lines(status::limits(&v.subject)?)),
    private("maps", 0o444, |v| lines(memory::maps(v))),
    row("mountinfo", 0o444, |v| mounts(v, true)),
    row("mounts", 0o444, |v| mounts(v, false)),
    writable("oom_adj", settings::oom_adj, settings::set_oom_adj),
    row("oom_score", 0o444, settings::oom_score),
    writable("oom_score_adj", settings::oom_score_adj, settings::set_oom_score_adj),
    row("personality", 0o400, settings::personality),
    whole(
        "projid_map",
        |v| Ok(namespaces::map(v, IdKind::Project)),
        |v, text| namespaces::set_map(v, IdKind::Project, text),
    ),
    whole("setgroups", |v| Ok(namespaces::setgroups(v)), namespaces::set_setgroups),
    private("smaps", 0o444, |v| lines(memory::smaps(v))),
    private("smaps_rollup", 0o444, |v| lines(memory::smaps_rollup(v)?)),
    row("stat", 0o444, |v| lines(status::stat(v)?)),
    row("statm", 0o444, |v| lines(memory::statm(&v.subject)?)),
    writable("timens_offsets", namespaces::time, namespaces::set_time),
    row("status", 0o444, |v| lines(status::status(&v.subject, v.user_ns())?)),
    of_process(Row {
        perm: 0o666,
        ..writable("timerslack_ns", settings::timer_slack, settings::set_timer_slack)
    }),
    whole(
        "uid_map",
        |v| Ok(namespaces::map(v, IdKind::User)),
        |v, text| namespaces::set_map(v, IdKind::User, text),
    ),
];
const LINKS: [&str; 3] = ["cwd", "exe", "root"];
const DIRS: [&str; 4] = ["fd", "fdinfo", "ns", "net"];

/// The directory of process `id`.
pub(super) fn process(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>, id: i32) -> Option<Arc<dyn Inode>> {
    let tree = kernel.tree.lock();
    let (group, task) = match (tree.node(id), tree.task(id)) {
        (Some(node), task) => (node.group.clone(), task.cloned()),
        // Threads can be looked up by id although listings leave them out.
        (None, Some(task)) => (task.group.clone(), Some(task.clone())),
        (None, None) => return None,
    };
    drop(tree);
    let task = task.or_else(|| group.threads().first().cloned());
    let (kernel, pids) = (kernel.clone(), pids.clone());
    Some(directory(Subject { kernel, pids, id, group, task, thread: false }))
}

fn directory(subject: Subject) -> Arc<dyn Inode> {
    let (uid, gid) = subject.owner();
    let ino = subject.ino(0);
    let (lister, group) = (subject.clone(), subject.group.clone());
    // The directory of a process can stand for it (pidfd_send_signal(2)), that of a thread cannot.
    let whole = !subject.thread;
    let dir =
        DynDir::new(ino, 0o555, uid, gid, move |name| Ok(find(&subject, name)), move || Ok(list(&lister)));
    if whole { dir.of(group) } else { dir }
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
    add("mem", Kind::File);
    for row in FILES.iter().filter(|row| !(subject.thread && row.of_process)) {
        add(row.name, Kind::File);
    }
    all
}

fn find(subject: &Subject, name: &[u8]) -> Option<Arc<dyn Inode>> {
    let name = std::str::from_utf8(name).ok()?;
    let ino = list(subject).iter().find(|entry| &*entry.name == name.as_bytes()).map(|entry| entry.ino)?;
    let own = subject.clone();
    let owner = subject.owner();
    // What one's own user may not look at is root's of where its program began; directories stay as they are.
    let root = || {
        let mm = subject.mm()?;
        Some((mm.user_ns().uid(0).unwrap_or(0), mm.user_ns().gid(0).unwrap_or(0)))
    };
    let (uid, gid) = if subject.is_dumpable() { owner } else { root().unwrap_or((0, 0)) };
    if let Some(row) = FILES.iter().find(|row| row.name == name) {
        return Some(file(row, ino, own, uid, gid));
    }
    match name {
        "mem" => Some(memory::mem(ino, own, uid, gid)),
        "cwd" => Some(link(ino, &own, |fs| fs.cwd(), uid, gid)),
        "root" => Some(link(ino, &own, |fs| fs.root(), uid, gid)),
        "exe" => Some(
            Symlink::new(ino, move |caller| {
                let path = own.peek(&own.observer(caller)?)?.exe.ok_or(Errno::ENOENT)?;
                let text = path.display(&top(&path));
                Ok((Link::Jump(path), text))
            })
            .with(0o777, uid, gid),
        ),
        // Linux gives this one to root, too, but lets the process itself in (/dev/stdin). Here the links say no to others.
        "fd" => Some(descriptors::fd_dir(ino, own, owner.0, owner.1)),
        "fdinfo" => Some(descriptors::fdinfo_dir(ino, own, owner.0, owner.1)),
        "ns" => Some(namespaces::ns_dir(subject, ino, uid, gid)),
        "net" => Some(net::directory(ino, own)),
        "task" => Some(task_dir(ino, own, owner.0, owner.1)),
        _ => None,
    }
}

fn file(row: &'static Row, ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let open = move |caller| {
        let view = if row.private { subject.memory_view(caller) } else { subject.view(caller) }?;
        let reading = view.clone();
        let opened = Opened::new(move || (row.make)(&reading));
        Ok(match row.write {
            Some(write) => {
                let written = opened.writable(move |text| write(&view, text));
                if row.whole { written.whole() } else { written }
            }
            None => opened,
        })
    };
    let text = if row.write.is_some() { Text::writable(ino, open) } else { Text::opened(ino, open) };
    text.with(row.perm, uid, gid)
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
    Symlink::new(ino, move |caller| {
        let fs = subject.peek(&subject.observer(caller)?)?.fs.ok_or(Errno::ENOENT)?;
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
            let id = parse_id(name).and_then(|number| subject.pids.id_of(number).ok());
            let Some(id) = id else { return Ok(None) };
            let task = subject.group.threads().into_iter().find(|task| task.tid() == id);
            Ok(task.map(|task| directory(Subject { id, task: Some(task), thread: true, ..subject.clone() })))
        },
        move || {
            let entry = |task: &Arc<Task>| ListEntry {
                name: lister.pids.number_of(task.tid()).to_string().into_bytes().into(),
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

    /// Its user and group ids.
    fn ids(&self) -> (Ids, Ids) {
        if let Some(task) = &self.task {
            let cred = task.cred();
            return (cred.uid, cred.gid);
        }
        let tree = self.kernel.tree.lock();
        let zombie = tree.node(self.group.tgid).and_then(|node| node.zombie.as_ref());
        zombie.map(|zombie| (zombie.uid, zombie.gid)).unwrap_or_default()
    }

    fn owner(&self) -> (u32, u32) {
        let (uid, gid) = self.ids();
        (uid.effective, gid.effective)
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

    fn letter(&self) -> char {
        match &self.task {
            Some(task) if !self.group.is_dead() => task.run_state().letter(),
            _ => 'Z',
        }
    }
}

fn mounts(view: &View, info: bool) -> Result<Vec<u8>> {
    let subject = &view.subject;
    let groups = subject.kernel.cgroups.path(view.cgroup_root);
    let fs = subject.task.as_ref().and_then(|task| task.fs()).ok_or(Errno::EINVAL)?;
    Ok(fs.namespace().show(&fs.root(), info, &groups))
}
