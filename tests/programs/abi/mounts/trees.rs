//! Mounts by descriptor: trees that are nowhere, file systems made in steps, attributes, numbers.

use super::{apart, mkdir, names, show, touch, umount};
use crate::recent::older_than;
use crate::setid::become_user;
use crate::sys::{self, c, close, in_child, open, read, report, report_ok};

const CLONE: u32 = 1;
const RECURSIVE: u32 = 0x8000;
const EMPTY: u32 = 0x1000;
const F_EMPTY: u32 = 4;
const T_EMPTY: u32 = 0x40;
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const CREATE: u32 = 6;
const RECONFIGURE: u32 = 7;
const HERE: i32 = libc::AT_FDCWD;

fn open_tree(fd: i64, path: &str, flags: u32) -> i64 {
    sys!(libc::SYS_open_tree, fd, c(path).as_ptr(), flags)
}

fn move_mount(from: i64, path: &str, to: &str, flags: u32) -> i64 {
    sys!(libc::SYS_move_mount, from, c(path).as_ptr(), HERE, c(to).as_ptr(), flags)
}

fn fsopen(name: &str) -> i64 {
    sys!(libc::SYS_fsopen, c(name).as_ptr(), 0)
}

fn config(fd: i64, command: u32, key: &str, value: &str) -> i64 {
    let (key, value) = (c(key), c(value));
    let given = |text: &std::ffi::CString| if text.is_empty() { std::ptr::null() } else { text.as_ptr() };
    sys!(libc::SYS_fsconfig, fd, command, given(&key), given(&value), 0)
}

fn fsmount(fd: i64, attributes: u32) -> i64 {
    sys!(libc::SYS_fsmount, fd, 0, attributes)
}

fn setattr(fd: i64, path: &str, flags: u32, [set, clear, kind]: [u64; 3]) -> i64 {
    let given = [set, clear, kind, 0];
    sys!(libc::SYS_mount_setattr, fd, c(path).as_ptr(), flags, given.as_ptr(), 32)
}

/// What a context has to say: one message.
fn said(fd: i64) {
    let (result, text) = read(fd, 200);
    let text = String::from_utf8_lossy(&text).into_owned();
    println!("  {}: {:?}", if result < 0 { sys::show(result) } else { "said".to_owned() }, text);
}

fn make(fd: i64, name: &str) -> i64 {
    close(sys!(libc::SYS_openat, fd, c(name).as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644)).min(0)
}

pub(super) fn detached() {
    apart(|| {
        for name in ["a", "a/sub", "b", "c"] {
            mkdir(name);
        }
        touch("a/file");
        touch("f");
        super::mount("x", "a/sub", "tmpfs", 0, "");
        touch("a/sub/inside");
        report("flags", open_tree(HERE.into(), "a", 0x10));
        report("not copied, recursive", open_tree(HERE.into(), "a", RECURSIVE));
        let handle = open_tree(HERE.into(), "a", 0);
        report_ok("a handle", handle);
        report("moved by it", move_mount(handle, "", "b", F_EMPTY));
        let one = open_tree(HERE.into(), "a", CLONE);
        let all = open_tree(HERE.into(), "a", CLONE | RECURSIVE);
        for (what, fd) in [("one", one), ("all", all)] {
            report_ok(what, fd);
            report("file", make(fd, "file"));
            report("inside", sys!(libc::SYS_faccessat, fd, c"sub/inside".as_ptr(), 0));
            report("sub", sys!(libc::SYS_faccessat, fd, c"sub".as_ptr(), 0));
        }
        show("nothing yet");
        report("a part", move_mount(all, "sub", "b", 0));
        report("on a file", move_mount(all, "", "f", F_EMPTY));
        report("nowhere", move_mount(all, "", "missing", F_EMPTY));
        report("moved", move_mount(all, "", "b", F_EMPTY));
        show("moved");
        println!("{:?}", names("b/sub"));
        report("moved on", move_mount(all, "", "c", F_EMPTY));
        report("busy", umount("c", 0));
        report("lazily", umount("c", 2));
        report("gone", move_mount(all, "", "c", F_EMPTY));
        report("still there", sys!(libc::SYS_faccessat, all, c"file".as_ptr(), 0));
        report("made", make(one, "made"));
        close(one);
        println!("{:?}", names("a"));
        let file = open_tree(HERE.into(), "f", CLONE);
        report("a file on a directory", move_mount(file, "", "b", F_EMPTY));
        report("a file", move_mount(file, "", "a/file", F_EMPTY));
        let to = open("b", libc::O_PATH, 0);
        let copy = open_tree(HERE.into(), "a", CLONE);
        let flags = F_EMPTY | T_EMPTY;
        report("by both", sys!(libc::SYS_move_mount, copy, c"".as_ptr(), to, c"".as_ptr(), flags));
        show("at the end");
        super::mount("", "b", "", libc::MS_UNBINDABLE, "");
        report("unbindable", open_tree(HERE.into(), "b", CLONE));
        in_child("without rights", || {
            become_user(&[]);
            report("copy", open_tree(HERE.into(), "a", CLONE));
            report_ok("handle", open_tree(HERE.into(), "a", 0));
            report("move", move_mount(handle, "", "b", F_EMPTY));
            report("open", fsopen("tmpfs"));
            0
        });
    });
}

pub(super) fn steps() {
    apart(|| {
        mkdir("m");
        mkdir("n");
        report("unknown", fsopen("no-such-type"));
        report("flags", sys!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 2));
        let fs = fsopen("tmpfs");
        report_ok("tmpfs", fs);
        report("size", config(fs, SET_STRING, "size", "1m"));
        report("without a value", config(fs, SET_STRING, "size", ""));
        report("bad key", config(fs, SET_STRING, "nonsense", "1"));
        said(fs);
        said(fs);
        report("bad flag", config(fs, SET_FLAG, "nonsense", ""));
        report("two words", sys!(libc::SYS_fsconfig, fs, SET_FLAG, c"ro".as_ptr(), c"x".as_ptr(), 0));
        report("command", config(fs, 99, "ro", ""));
        report("mode", config(fs, SET_STRING, "mode", "700"));
        report("source", config(fs, SET_STRING, "source", "from"));
        report("source again", config(fs, SET_STRING, "source", "other"));
        said(fs);
        said(fs);
        report("too early", fsmount(fs, 0));
        report("changed before it is", config(fs, RECONFIGURE, "", ""));
        report("create", config(fs, CREATE, "", ""));
        report("again", config(fs, CREATE, "", ""));
        report("too late", config(fs, SET_STRING, "size", "2m"));
        report("unknown attributes", fsmount(fs, 0x100));
        report("two times", fsmount(fs, 0x30));
        let mount = fsmount(fs, 0xe);
        report_ok("mount", mount);
        report("again", fsmount(fs, 0));
        report("made", make(mount, "inside"));
        report("moved", move_mount(mount, "", "m", F_EMPTY));
        show("mounted");
        let line = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = line.lines().find(|line| line.starts_with("from ")).unwrap_or_default();
        println!("{}", own.split(' ').nth(3).unwrap_or_default().contains("size=1024k,mode=700"));
        println!("{:?}", names("m"));
        close(mount);
        close(fs);
        let other = fsopen("tmpfs");
        config(other, CREATE, "", "");
        let mount = fsmount(other, 0);
        report("made", make(mount, "inside"));
        report("entered", sys!(libc::SYS_fchdir, mount));
        println!("{:?}", names("."));
        close(mount);
        report("gone", sys!(libc::SYS_faccessat, HERE, c"inside".as_ptr(), 0).min(0));
    });
}

pub(super) fn picked() {
    apart(|| {
        mkdir("m");
        mkdir("m-not");
        super::mount("x", "m", "tmpfs", 0, "size=1m");
        let pick = |name: &str, flags: u32| sys!(libc::SYS_fspick, HERE, c(name).as_ptr(), flags);
        report("no mount", pick("m-not", 0));
        report("flags", pick("m", 0x10));
        let fs = pick("m", 0);
        report_ok("picked", fs);
        report("create", config(fs, CREATE, "", ""));
        report("mount", fsmount(fs, 0).min(0));
        report("size", config(fs, SET_STRING, "size", "2m"));
        report("change", config(fs, RECONFIGURE, "", ""));
        let mut stat = [0_u64; 15];
        sys!(libc::SYS_statfs, c"m".as_ptr(), stat.as_mut_ptr());
        println!("{} blocks", stat[2]);
        report("read-only", config(fs, SET_FLAG, "ro", ""));
        report("still", super::touch("m/f"));
        report("change", config(fs, RECONFIGURE, "", ""));
        report("now", super::touch("m/g"));
        report("read-write", config(fs, SET_FLAG, "rw", ""));
        report("change", config(fs, RECONFIGURE, "", ""));
        report("again", super::touch("m/g"));
        report("unknown", config(fs, SET_STRING, "nonsense", "1"));
        said(fs);
        for name in ["proc", "sysfs", "devpts", "ramfs", "cgroup2"] {
            let expected = if name == "ramfs" { 0 } else { -i64::from(libc::EINVAL) };
            let fs = fsopen(name);
            report_ok(name, fs);
            // (In Linux 6.1 some of them take every word.)
            let unknown = if older_than(2) { expected } else { config(fs, SET_STRING, "nonsense", "1") };
            report("unknown", unknown);
            if name != "cgroup2" {
                report("create", config(fs, CREATE, "", ""));
                report_ok("mount", fsmount(fs, 0));
            }
        }
    });
}

pub(super) fn attributes() {
    apart(|| {
        mkdir("m");
        super::mount("x", "m", "tmpfs", 0, "");
        mkdir("m/n");
        super::mount("x", "m/n", "tmpfs", libc::MS_NOATIME, "");
        let here = i64::from(HERE);
        report("nothing", setattr(here, "no-such", 0, [0, 0, 0]));
        report("one", setattr(here, "m", 0, [3, 0, 0]));
        show("one");
        report("write", super::touch("m/f"));
        report("below", super::touch("m/n/f"));
        report("all", setattr(here, "m", RECURSIVE, [0xc, 1, 0]));
        show("all");
        report("times", setattr(here, "m", RECURSIVE, [0x10, 0x70, 0]));
        show("times");
        report("times not cleared", setattr(here, "m", 0, [0x10, 0, 0]));
        report("half cleared", setattr(here, "m", 0, [0, 0x10, 0]));
        report("two times", setattr(here, "m", 0, [0x30, 0x70, 0]));
        report("unknown", setattr(here, "m", 0, [0x100, 0, 0]));
        report("flags", setattr(here, "m", 1, [1, 0, 0]));
        report("two kinds", setattr(here, "m", 0, [0, 0, libc::MS_SHARED | libc::MS_PRIVATE]));
        report("unknown kind", setattr(here, "m", 0, [0, 0, 1]));
        report("shared", setattr(here, "m", RECURSIVE, [0, 0, libc::MS_SHARED]));
        show("shared");
        report("no mount", setattr(here, "m/n/f", 0, [1, 0, 0]));
        let given = [1_u64, 0, 0, 0, 0];
        let raw = |size: usize| sys!(libc::SYS_mount_setattr, HERE, c"m".as_ptr(), 0, given.as_ptr(), size);
        report("short", raw(24));
        report("long", raw(40));
        report("huge", raw(5000));
        let tree = open_tree(here, "m", CLONE | RECURSIVE);
        report("nowhere", setattr(tree, "", EMPTY | RECURSIVE, [1, 0, libc::MS_PRIVATE]));
        report("write", make(tree, "x"));
        mkdir("t");
        report("moved", move_mount(tree, "", "t", F_EMPTY));
        show("moved");
    });
}

/// The string that a field of `struct statmount` leads to.
fn string(all: &[u64], at: usize) -> String {
    let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let at = 512 + u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
    let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[at..at + end]).into_owned()
}

/// statmount(2) and listmount(2), which came with Linux 6.8.
pub(super) fn numbers() {
    const STATMOUNT: i64 = 457;
    const LISTMOUNT: i64 = 458;
    apart(|| {
        mkdir("m");
        super::mount("source", "m", "tmpfs", libc::MS_NODEV, "size=1m");
        mkdir("m/n");
        super::mount("x", "m/n", "ramfs", 0, "");
        let known = sys!(LISTMOUNT, 0, 0, 0, 0) != -i64::from(libc::ENOSYS) || !older_than(8);
        let expect = |what: &str, well: bool| println!("{what}: {}", well || !known);
        let is = |result: i64, errno: i32| result == -i64::from(errno);
        let mut room = [0_u64; 32];
        let mut unique = |path: &str| {
            sys!(libc::SYS_statx, HERE, c(path).as_ptr(), 0, 0x4000, room.as_mut_ptr());
            room[18]
        };
        let (base, m, n) = (unique("."), unique("m"), unique("m/n"));
        expect("unique", base > 1 << 31 && m > base && n > m);
        let mut list = [0_u64; 8];
        let mut listed = |id: u64, last: u64, room: u64| {
            let request = [24_u64, id, last];
            let count = sys!(LISTMOUNT, request.as_ptr(), list.as_mut_ptr(), room, 0);
            (count, list)
        };
        let (count, all) = listed(base, 0, 8);
        expect("two below", count == 2 && all[..2] == [m, n]);
        let (count, all) = listed(base, m, 8);
        expect("behind the first", count == 1 && all[0] == n);
        expect("room for one", listed(base, 0, 1).0 == 1);
        expect("none below", listed(n, 0, 8).0 == 0);
        expect("old number", is(listed(5, 0, 8).0, libc::EINVAL));
        expect("unknown", is(listed(u64::MAX / 2, 0, 8).0, libc::ENOENT));
        expect("too many", is(listed(base, 0, 2_000_000).0, libc::EOVERFLOW));
        let mut told = [0_u64; 128];
        let mut ask = |id: u64, mask: u64, room: usize| {
            let request = [24_u64, id, mask];
            (sys!(STATMOUNT, request.as_ptr(), told.as_mut_ptr(), room, 0), told)
        };
        let (result, all) = ask(m, 0x3b, 1024);
        expect("told", result == 0 && all[1] == 0x3b);
        let text = |at: usize| string(&all, at);
        expect("magic", all[3] == 0x0102_1994);
        expect("type", text(36) == "tmpfs");
        expect("numbers", all[5] == m && all[6] == base);
        expect("attributes", all[8] == 4);
        expect("private", all[9] == libc::MS_PRIVATE);
        expect("root", text(104) == "/");
        let place = std::env::current_dir().unwrap_or_default().join("m");
        expect("place", std::path::Path::new(&text(108)) == place);
        expect("no room for strings", is(ask(m, 0x20, 514).0, libc::EOVERFLOW));
        expect("no strings, little room", ask(m, 2, 48).0 == 0);
        expect("no such", is(ask(1 << 40, 1, 1024).0, libc::ENOENT));
        let request = [16_u64, m, 0];
        expect("short", is(sys!(STATMOUNT, request.as_ptr(), told.as_mut_ptr(), 512, 0), libc::EINVAL));
        let request = [24_u64, m, 1];
        expect("flags", is(sys!(STATMOUNT, request.as_ptr(), told.as_mut_ptr(), 512, 4), libc::EINVAL));
    });
}
