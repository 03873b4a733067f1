//! /proc/PID and /proc/PID/task/TID.

use super::system::{USER_HZ, lines};
use super::{TASK_INO, parse_id};
use crate::abi::{Errno, Result};
use crate::fs::pseudo::{DynDir, Symlink, Text};
use crate::kernel::signal::{SigSet, SignalSets};
use crate::kernel::{Kernel, Task, ThreadGroup};
use crate::mm::{Backing, Mm, VmFlags, Vma};
use crate::platform::Prot;
use crate::vfs::{File, FsContext, Inode, Kind, Link, ListEntry, Path};
use linux_raw_sys::general as c;
use std::fmt::Write;
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
    ("limits", 0o444, limits),
    ("loginuid", 0o644, |_| Ok("4294967295".to_owned())),
    ("maps", 0o444, |s| maps(s, false)),
    ("mountinfo", 0o444, |s| mounts(s, true)),
    ("mounts", 0o444, |s| mounts(s, false)),
    ("oom_adj", 0o644, |_| Ok("0\n".to_owned())),
    ("oom_score", 0o444, |_| Ok("0\n".to_owned())),
    ("oom_score_adj", 0o644, |_| Ok("0\n".to_owned())),
    ("personality", 0o400, |_| Ok("00000000\n".to_owned())),
    ("sessionid", 0o444, |_| Ok("4294967295".to_owned())),
    ("setgroups", 0o644, |_| Ok("allow\n".to_owned())),
    ("gid_map", 0o644, |_| Ok("         0          0 4294967295\n".to_owned())),
    ("smaps", 0o444, |s| maps(s, true)),
    ("smaps_rollup", 0o444, smaps_rollup),
    ("stat", 0o444, stat),
    ("statm", 0o444, statm),
    ("status", 0o444, status),
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
        "fd" => Some(fd_dir(ino, own, uid, gid)),
        "fdinfo" => Some(fdinfo_dir(ino, own, uid, gid)),
        "ns" => Some(ns_dir(ino, uid, gid)),
        "net" => Some(net_dir(ino)),
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

/// What readlink(2) says about an open file.
fn file_name(file: &Arc<File>) -> Vec<u8> {
    match file.named() {
        Some(path) => path.display(&top(path)),
        None => file.ops().describe().into_bytes(),
    }
}

fn files(subject: &Subject) -> Vec<(i32, Arc<File>, bool)> {
    subject.task.as_ref().and_then(|task| task.fds()).map(|fds| fds.all()).unwrap_or_default()
}

fn fd_entries(subject: &Subject, base: u64, kind: Kind) -> Vec<ListEntry> {
    files(subject)
        .iter()
        .map(|(fd, _, _)| ListEntry {
            name: fd.to_string().into_bytes().into(),
            ino: base + ((*fd as u64 + 1) << 40),
            kind,
        })
        .collect()
}

fn parse_fd(name: &[u8]) -> Option<i32> {
    if name == b"0" { Some(0) } else { parse_id(name) }
}

fn fd_dir(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let lister = subject.clone();
    DynDir::new(
        ino,
        0o500,
        uid,
        gid,
        move |name| {
            let Some(fd) = parse_fd(name) else { return Ok(None) };
            let Some((_, file, _)) = files(&subject).into_iter().find(|(known, _, _)| *known == fd) else {
                return Ok(None);
            };
            let perm = 0o100
                | if file.readable() && !file.is_path() { 0o400 } else { 0 }
                | if file.writable() && !file.is_path() { 0o200 } else { 0 };
            let link = Symlink::new(ino + ((fd as u64 + 1) << 40), move |_| {
                Ok((Link::File(file.clone()), file_name(&file)))
            });
            Ok(Some(link.with(perm, uid, gid)))
        },
        move || Ok(fd_entries(&lister, ino, Kind::Symlink)),
    )
}

fn fdinfo_dir(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let lister = subject.clone();
    DynDir::new(
        ino,
        0o555,
        uid,
        gid,
        move |name| {
            let Some(fd) = parse_fd(name) else { return Ok(None) };
            let Some((_, file, cloexec)) = files(&subject).into_iter().find(|(known, _, _)| *known == fd)
            else {
                return Ok(None);
            };
            let text = Text::new(ino + ((fd as u64 + 1) << 40), move |_| {
                let flags = file.flags() | if cloexec { c::O_CLOEXEC } else { 0 };
                let stat = file.stat();
                let mut text = format!(
                    "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}\n",
                    file.position(),
                    stat.mount_id.max(1),
                    stat.ino
                );
                text.push_str(&file.ops().fdinfo());
                lines(text)
            });
            Ok(Some(text.with(0o400, uid, gid)))
        },
        move || Ok(fd_entries(&lister, ino, Kind::File)),
    )
}

/// The namespaces of proc(5): there is one of each.
const NAMESPACES: [(&str, u64); 8] = [
    ("cgroup", 4_026_531_835),
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("time", 4_026_531_834),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

fn ns_dir(ino: u64, uid: u32, gid: u32) -> Arc<dyn Inode> {
    DynDir::new(
        ino,
        0o511,
        uid,
        gid,
        |name| {
            let Some((name, id)) = NAMESPACES.iter().find(|(known, _)| known.as_bytes() == name) else {
                return Ok(None);
            };
            Ok(Some(Symlink::named(*id, move |_| format!("{name}:[{id}]").into_bytes())))
        },
        || {
            let entry = |(name, id): &(&str, u64)| ListEntry {
                name: name.as_bytes().into(),
                ino: *id,
                kind: Kind::Symlink,
            };
            Ok(NAMESPACES.iter().map(entry).collect())
        },
    )
}

/// Tables of /proc/net that programs read to find no sockets.
const NET: [(&str, &str); 6] = [
    (
        "dev",
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    ),
    (
        "tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "tcp6",
        "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "udp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
    ),
    ("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
    ("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"),
];

fn net_dir(ino: u64) -> Arc<dyn Inode> {
    DynDir::new(
        ino,
        0o555,
        0,
        0,
        move |name| {
            let found = NET.iter().enumerate().find(|(_, (known, _))| known.as_bytes() == name);
            Ok(found.map(|(at, (_, text))| {
                let text = text.as_bytes().to_vec();
                Text::new(ino + ((at as u64 + 1) << 40), move |_| Ok(text.clone())) as Arc<dyn Inode>
            }))
        },
        move || {
            let entry = |(at, (name, _)): (usize, &(&str, &str))| ListEntry {
                name: name.as_bytes().into(),
                ino: ino + ((at as u64 + 1) << 40),
                kind: Kind::File,
            };
            Ok(NET.iter().enumerate().map(entry).collect())
        },
    )
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

fn describe(vma: &Vma, mm: &Mm, brk: u64) -> (u64, u64, Vec<u8>) {
    match &vma.backing {
        Backing::Object { object, .. } => {
            let info = object.describe();
            (info.dev, info.ino, info.path)
        }
        _ => {
            let layout = mm.layout();
            let name: &[u8] = if vma.start <= layout.stack_start && layout.stack_start <= vma.end {
                b"[stack]"
            } else if vma.start < brk && vma.end > layout.brk_start {
                b"[heap]"
            } else {
                b""
            };
            (0, 0, name.to_vec())
        }
    }
}

fn maps(subject: &Subject, details: bool) -> Result<String> {
    let Some(mm) = subject.mm() else { return Ok(String::new()) };
    let brk = mm.program_break();
    let mut out = String::new();
    for vma in mm.maps() {
        let flag = |prot, letter| if vma.prot.contains(prot) { letter } else { '-' };
        let (dev, ino, path) = describe(&vma, &mm, brk);
        let offset = if ino != 0 { vma.object_offset(vma.start) } else { 0 };
        let line = format!(
            "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {ino} ",
            vma.start,
            vma.end,
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
            if vma.is_private() { 'p' } else { 's' },
            crate::vfs::major(dev),
            crate::vfs::minor(dev),
        );
        if path.is_empty() {
            let _ = writeln!(out, "{line}");
        } else {
            let _ = writeln!(out, "{line:<73}{}", String::from_utf8_lossy(&path));
        }
        if details {
            let kib = vma.len() / 1024;
            let _ = writeln!(
                out,
                "Size:           {kib:>8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\nRss:                   0 kB\nPss:                   0 kB\nShared_Clean:          0 kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\nPrivate_Dirty:         0 kB\nReferenced:            0 kB\nAnonymous:             0 kB\nSwap:                  0 kB\nLocked:                0 kB\nVmFlags:{}",
                if vma.flags.contains(VmFlags::GROWS_DOWN) { " gd" } else { "" }
            );
        }
    }
    out.push_str(if details { "" } else { crate::arch::OLD_CALLS });
    Ok(out)
}

fn smaps_rollup(subject: &Subject) -> Result<String> {
    let resident = subject.mm().map_or(0, |mm| mm.resident()) / 1024;
    Ok(format!(
        "00000000-7fffffffffff ---p 00000000 00:00 0                              [rollup]\nRss:            {resident:>8} kB\nPss:            {resident:>8} kB\n"
    ))
}

fn statm(subject: &Subject) -> Result<String> {
    let Some(mm) = subject.mm() else { return Ok("0 0 0 0 0 0 0\n".to_owned()) };
    let (total, resident) = (mm.total() / 4096, mm.resident() / 4096);
    let (text, data, _) = sizes(&mm);
    Ok(format!("{total} {resident} 0 {} 0 {} 0\n", text / 4096, data / 4096))
}

/// Bytes of executable, of private writable, and of stack areas.
fn sizes(mm: &Mm) -> (u64, u64, u64) {
    let maps = mm.maps();
    let sum = |want: fn(&Vma) -> bool| maps.iter().filter(|vma| want(vma)).map(Vma::len).sum();
    (
        sum(|vma| vma.prot.contains(Prot::EXEC)),
        sum(|vma| vma.prot.contains(Prot::WRITE) && vma.is_private()),
        sum(|vma| vma.flags.contains(VmFlags::GROWS_DOWN)),
    )
}

fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / USER_HZ)
}

fn stat(subject: &Subject) -> Result<String> {
    let (parent, pgid, sid) = subject.node();
    let comm = String::from_utf8_lossy(&subject.comm()).into_owned();
    let threads = subject.group.threads();
    let usage = match &subject.task {
        Some(task) if subject.thread => task.usage(),
        _ => subject.group.usage(),
    };
    let mm = subject.mm();
    let layout = mm.as_ref().map(|mm| mm.layout());
    let at = |get: fn(&crate::mm::Layout) -> u64| layout.as_ref().map_or(0, get);
    let boot = subject.kernel.boot_ns;
    let start = subject.task.as_ref().map_or(0, |task| ticks(task.started_ns.saturating_sub(boot)));
    let nice = subject.task.as_ref().map_or(0, |task| task.policy.lock().nice);
    let session_tty = {
        let tree = subject.kernel.tree.lock();
        tree.session(sid)
            .map_or((0, -1), |s| (s.tty.unwrap_or(0), if s.foreground == 0 { -1 } else { s.foreground }))
    };
    let signals = SignalSets::of(&subject.group, subject.task.as_deref());
    // Real-time signals do not fit these fields.
    let low = |set: SigSet| (set.0 & 0x7fff_ffff) as i64;
    let fields: [i64; 50] = [
        parent.into(),
        pgid.into(),
        sid.into(),
        session_tty.0 as i64,
        session_tty.1.into(),
        0x0040_0000,
        usage.faults[0] as i64,
        0,
        usage.faults[1] as i64,
        0,
        ticks(usage.cpu_ns) as i64,
        0,
        0,
        0,
        20 + i64::from(nice),
        nice.into(),
        threads.len() as i64,
        0,
        start as i64,
        mm.as_ref().map_or(0, |mm| mm.total()) as i64,
        (mm.as_ref().map_or(0, |mm| mm.resident()) / 4096) as i64,
        -1,
        at(|l| l.code.0) as i64,
        at(|l| l.code.1) as i64,
        at(|l| l.stack_start) as i64,
        0,
        0,
        low(signals.pending),
        low(signals.blocked),
        low(signals.ignored),
        low(signals.caught),
        0,
        0,
        0,
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        at(|l| l.data.0) as i64,
        at(|l| l.data.1) as i64,
        at(|l| l.brk_start) as i64,
        at(|l| l.args.0) as i64,
        at(|l| l.args.1) as i64,
        at(|l| l.env.0) as i64,
        at(|l| l.env.1) as i64,
        0,
        0,
    ];
    let mut out = format!("{} ({comm}) {}", subject.id, subject.letter());
    for (number, field) in fields.iter().enumerate().take(49) {
        // rsslim and addresses are unsigned.
        let _ = if number == 21 { write!(out, " {}", *field as u64) } else { write!(out, " {field}") };
    }
    out.push('\n');
    Ok(out)
}

fn status(subject: &Subject) -> Result<String> {
    let (parent, _, _) = subject.node();
    let letter = subject.letter();
    let state = match letter {
        'R' => "running",
        'S' => "sleeping",
        'T' => "stopped",
        _ => "zombie",
    };
    let comm = String::from_utf8_lossy(&subject.comm()).into_owned();
    let mut out = String::new();
    let cred = subject.task.as_ref().map_or_else(|| Arc::new(crate::cred::Cred::root()), |task| task.cred());
    let umask = subject.task.as_ref().and_then(|task| task.fs()).map_or(0o022, |fs| fs.umask());
    let fd_size = subject.task.as_ref().and_then(|task| task.fds()).map_or(0, |fds| fds.size());
    let ids = |ids: crate::cred::Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs);
    let groups: String = cred.groups.iter().fold(String::new(), |mut all, group| {
        let _ = write!(all, "{group} ");
        all
    });
    let tgid = subject.group.tgid;
    let _ = writeln!(
        out,
        "Name:\t{comm}\nUmask:\t{umask:04o}\nState:\t{letter} ({state})\nTgid:\t{tgid}\nNgid:\t0"
    );
    let _ = writeln!(out, "Pid:\t{}\nPPid:\t{parent}\nTracerPid:\t0", subject.id);
    let _ = writeln!(out, "Uid:\t{}\nGid:\t{}", ids(cred.uid), ids(cred.gid));
    let _ = writeln!(out, "FDSize:\t{fd_size}\nGroups:\t{groups}");
    if let Some(mm) = subject.mm() {
        let (executable, data, stack) = sizes(&mm);
        let code = mm.layout().code;
        let text = (code.1.next_multiple_of(4096) - (code.0 & !4095)).min(executable);
        let (total, resident) = (mm.total() / 1024, mm.resident() / 1024);
        let _ = writeln!(
            out,
            "VmPeak:\t{total:>8} kB\nVmSize:\t{total:>8} kB\nVmLck:\t{:>8} kB\nVmPin:\t       0 kB",
            mm.locked() / 1024
        );
        let _ = writeln!(
            out,
            "VmHWM:\t{resident:>8} kB\nVmRSS:\t{resident:>8} kB\nRssAnon:\t{resident:>8} kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB"
        );
        let _ = writeln!(
            out,
            "VmData:\t{:>8} kB\nVmStk:\t{:>8} kB\nVmExe:\t{:>8} kB\nVmLib:\t{:>8} kB\nVmSwap:\t       0 kB",
            (data - stack.min(data)) / 1024,
            stack / 1024,
            text / 1024,
            (executable - text) / 1024
        );
    }
    let signals = SignalSets::of(&subject.group, subject.task.as_deref());
    let _ = writeln!(out, "Threads:\t{}", subject.group.threads().len().max(1));
    let _ = writeln!(
        out,
        "SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}",
        signals.pending.0, signals.shared.0, signals.blocked.0, signals.ignored.0, signals.caught.0
    );
    for (name, caps) in [
        ("Inh", cred.inheritable),
        ("Prm", cred.permitted),
        ("Eff", cred.effective),
        ("Bnd", cred.bounding),
        ("Amb", cred.ambient),
    ] {
        let _ = writeln!(out, "Cap{name}:\t{:016x}", caps.bits());
    }
    let confinement = subject.task.as_ref().map(|task| task.confinement()).unwrap_or_default();
    let workers = subject.kernel.sched.worker_count();
    let mask = if workers >= 64 { u64::MAX } else { (1 << workers) - 1 };
    let _ = writeln!(
        out,
        "NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\nSpeculation_Store_Bypass:\tvulnerable",
        u8::from(confinement.no_new_privs),
        confinement.mode as u8,
        confinement.filters().len()
    );
    let _ = writeln!(
        out,
        "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t0-{}\nMems_allowed:\t1\nMems_allowed_list:\t0",
        workers - 1
    );
    let usage = subject.task.as_ref().map(|task| task.usage()).unwrap_or_default();
    let _ = writeln!(
        out,
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}",
        usage.switches[0], usage.switches[1]
    );
    Ok(out)
}

/// Resources of /proc/PID/limits in the kernel's order, with their units.
const LIMITS: [(&str, u32, &str); 16] = [
    ("Max cpu time", 0, "seconds"),
    ("Max file size", 1, "bytes"),
    ("Max data size", 2, "bytes"),
    ("Max stack size", 3, "bytes"),
    ("Max core file size", 4, "bytes"),
    ("Max resident set", 5, "bytes"),
    ("Max processes", 6, "processes"),
    ("Max open files", 7, "files"),
    ("Max locked memory", 8, "bytes"),
    ("Max address space", 9, "bytes"),
    ("Max file locks", 10, "locks"),
    ("Max pending signals", 11, "signals"),
    ("Max msgqueue size", 12, "bytes"),
    ("Max nice priority", 13, ""),
    ("Max realtime priority", 14, ""),
    ("Max realtime timeout", 15, "us"),
];

fn limits(subject: &Subject) -> Result<String> {
    let limits = *subject.group.limits.lock();
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |value| if value == u64::MAX { "unlimited".to_owned() } else { format!("{value}") };
    for (name, resource, unit) in LIMITS {
        let limit = limits.of(resource)?;
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", show(limit.soft), show(limit.hard));
    }
    Ok(out)
}
