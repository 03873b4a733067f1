//! What is done to names and attributes.

use super::{ALL, Watcher, make, mkdir, unlink};
use crate::sys::{self, c, close, open, report};
use std::os::unix::fs::PermissionsExt;

pub(super) fn names() {
    sys::scratch("inotify-names");
    mkdir("dir");
    let mut watcher = Watcher::on(&["dir", "."]);
    close(open("dir/file", libc::O_WRONLY | libc::O_CREAT, 0o644));
    watcher.show("open");
    close(open("dir/file", libc::O_WRONLY | libc::O_CREAT, 0o644));
    watcher.show("open what is there");
    report("open what is there alone", open("dir/file", libc::O_CREAT | libc::O_EXCL, 0o644));
    mkdir("dir/below");
    watcher.show("mkdir");
    report("mkdir again", sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c("dir/below").as_ptr(), 0o755));
    report(
        "mknod",
        sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("dir/fifo").as_ptr(), libc::S_IFIFO | 0o600, 0),
    );
    report(
        "mknod",
        sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("dir/plain").as_ptr(), libc::S_IFREG | 0o600, 0),
    );
    watcher.show("mknod");
    std::os::unix::fs::symlink("nowhere", "dir/link").expect("a link");
    watcher.show("symlink");
    std::fs::hard_link("dir/file", "dir/other").expect("a link");
    watcher.show("link");
    let socket = std::os::unix::net::UnixListener::bind("dir/socket").expect("a socket");
    drop(socket);
    watcher.show("bind");
    report("unlink nothing", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("dir/none").as_ptr(), 0));
    for name in ["dir/file", "dir/other", "dir/fifo", "dir/link", "dir/socket"] {
        unlink(name);
    }
    watcher.show("unlink");
    std::fs::remove_dir("dir/below").expect("a directory less");
    watcher.show("rmdir");
    close(open("dir", libc::O_TMPFILE | libc::O_WRONLY, 0o600));
    println!(
        "a file without a name tells of no creation: {}",
        watcher.take().iter().all(|e| e.mask & libc::IN_CREATE == 0)
    );
    sys::unscratch();
}

fn move_name(old: &str, new: &str, flags: u32) -> i64 {
    sys!(libc::SYS_renameat2, libc::AT_FDCWD, c(old).as_ptr(), libc::AT_FDCWD, c(new).as_ptr(), flags)
}

pub(super) fn rename() {
    sys::scratch("inotify-rename");
    mkdir("a");
    mkdir("b");
    mkdir("a/dir");
    make("a/file");
    let mut watcher = Watcher::on(&["a", "b", "a/file", "a/dir"]);
    report("within", move_name("a/file", "a/renamed", 0));
    watcher.show("within a directory");
    report("across", move_name("a/renamed", "b/file", 0));
    watcher.show("from one to the other");
    report("a directory", move_name("a/dir", "b/dir", libc::RENAME_NOREPLACE));
    watcher.show("a directory");
    report("not there", move_name("a/none", "b/none", 0));
    report("there already", move_name("b/file", "b/dir", libc::RENAME_NOREPLACE));
    report("itself", move_name("b/file", "b/file", 0));
    std::fs::hard_link("b/file", "b/same").expect("a link");
    watcher.show("a link");
    report("two names of one", move_name("b/file", "b/same", 0));
    watcher.show("nothing happens");
    // What is opened by its new name, and before it had it.
    let fd = open("b/file", libc::O_RDONLY, 0);
    report("while open", move_name("b/file", "a/back", 0));
    sys::read(fd, 1);
    close(fd);
    watcher.show("it is where it is");
    // A directory that nobody watches, out of one that is and back.
    mkdir("c");
    report("out", move_name("b/dir", "c/dir", 0));
    report("in", move_name("c/dir", "a/dir", 0));
    watcher.show("out and in");
    sys::unscratch();
}

pub(super) fn exchange() {
    sys::scratch("inotify-exchange");
    mkdir("a");
    mkdir("b");
    mkdir("b/dir");
    make("a/file");
    make("a/other");
    let mut watcher = Watcher::on(&["a", "b", "a/file", "a/other", "b/dir"]);
    report("two files", move_name("a/file", "a/other", libc::RENAME_EXCHANGE));
    watcher.show("two files");
    report("a file and a directory", move_name("a/file", "b/dir", libc::RENAME_EXCHANGE));
    watcher.show("a file and a directory");
    report("with nothing", move_name("a/file", "a/none", libc::RENAME_EXCHANGE));
    watcher.show("nothing");
    drop(std::fs::read("b/dir"));
    watcher.show("read where it is now");
    sys::unscratch();
}

pub(super) fn replaced() {
    sys::scratch("inotify-replaced");
    for name in ["one", "two", "three", "four"] {
        make(name);
    }
    mkdir("old");
    mkdir("new");
    let mut watcher = Watcher::on(&["one", "two", "three", "four", "old", "new", "."]);
    report("over another", move_name("one", "two", 0));
    watcher.show("over another");
    let fd = open("four", libc::O_RDONLY, 0);
    std::fs::hard_link("four", "five").expect("a link");
    watcher.show("a link");
    report("over an open one", move_name("three", "four", 0));
    watcher.show("over one of two names");
    report("over the other", move_name("two", "five", 0));
    watcher.show("over the last name");
    close(fd);
    watcher.show("closed");
    report("over a directory", move_name("old", "new", 0));
    watcher.show("over a directory");
    sys::unscratch();
}

pub(super) fn attributes() {
    sys::scratch("inotify-attributes");
    mkdir("dir");
    make("dir/file");
    mkdir("dir/below");
    std::os::unix::fs::symlink("file", "dir/link").expect("a link");
    let mut watcher = Watcher::on(&["dir", "dir/file", "dir/below"]);
    let fd = open("dir/file", libc::O_RDWR, 0);
    watcher.show("open");
    let chmod = |name: &str, mode| {
        std::fs::set_permissions(name, PermissionsExt::from_mode(mode)).expect("its permissions");
    };
    chmod("dir/file", 0o600);
    watcher.show("chmod");
    chmod("dir/file", 0o600);
    watcher.show("to what it is");
    report("fchmod", sys!(libc::SYS_fchmod, fd, 0o644));
    chmod("dir/below", 0o700);
    chmod("dir", 0o700);
    watcher.show("directories");
    let file = c("dir/file");
    let chown = |name: &str, uid: i32, gid: i32| {
        sys!(libc::SYS_fchownat, libc::AT_FDCWD, c(name).as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)
    };
    report("chown", chown("dir/file", 5, -1));
    watcher.show("owner");
    report("chown", chown("dir/file", -1, -1));
    watcher.show("nobody");
    chmod("dir/file", 0o4755);
    watcher.take();
    report("chown", chown("dir/file", -1, -1));
    watcher.show("nobody, but for the set-user-ID bit");
    report("chown", chown("dir/link", 0, 0));
    watcher.show("a link's");
    let now = libc::UTIME_NOW;
    let omit = libc::UTIME_OMIT;
    for (what, times) in [
        ("both times", [1, 0, 2, 0]),
        ("both now", [0, now, 0, now]),
        ("last access", [3, 0, 0, omit]),
        ("last change", [0, omit, 4, 0]),
        ("neither", [0, omit, 0, omit]),
    ] {
        report(what, sys!(libc::SYS_utimensat, libc::AT_FDCWD, file.as_ptr(), times.as_ptr(), 0));
        watcher.show(what);
    }
    // Not every file system has these; where they can be set, it is told.
    let name = c("trusted.key");
    let set = sys!(libc::SYS_setxattr, file.as_ptr(), name.as_ptr(), b"x".as_ptr(), 1, 0);
    let told = watcher.take().iter().filter(|e| e.mask == libc::IN_ATTRIB).count();
    println!("an extended attribute set is told {}", told == if set == 0 { 2 } else { 0 });
    let removed = sys!(libc::SYS_removexattr, file.as_ptr(), name.as_ptr());
    let told = watcher.take().iter().filter(|e| e.mask == libc::IN_ATTRIB).count();
    println!("and removed {}", told == if removed == 0 { 2 } else { 0 });
    report("removed again fails", sys!(libc::SYS_removexattr, file.as_ptr(), name.as_ptr()).signum());
    watcher.show("nothing");
    close(fd);
    sys::unscratch();
}

pub(super) fn deleted() {
    sys::scratch("inotify-deleted");
    make("file");
    std::fs::hard_link("file", "other").expect("a link");
    let mut watcher = Watcher::on(&["file", "."]);
    unlink("file");
    watcher.show("one of two names");
    make("file");
    watcher.show("another file of the name");
    unlink("other");
    watcher.show("the last name");
    report("it has ended", watcher.remove(1));
    // With nothing asked for but the end.
    make("quiet");
    let mut quiet = Watcher::new();
    quiet.add("quiet", libc::IN_DELETE_SELF);
    let mut ended = Watcher::new();
    ended.add("quiet", libc::IN_ACCESS);
    unlink("quiet");
    quiet.show("its end");
    ended.show("the watch's");
    sys::unscratch();
}

pub(super) fn deleted_open() {
    sys::scratch("inotify-deleted-open");
    make("file");
    let mut watcher = Watcher::on(&["file", "."]);
    let fd = open("file", libc::O_RDWR, 0);
    let second = sys!(libc::SYS_dup, fd);
    unlink("file");
    watcher.show("still open");
    sys::write(fd, b"x");
    report("fchmod", sys!(libc::SYS_fchmod, fd, 0o600));
    watcher.show("used");
    close(fd);
    watcher.show("one descriptor less");
    close(second);
    watcher.show("closed");
    // Open by two names: what counts is the last name, then each of them as it goes.
    make("one");
    std::fs::hard_link("one", "two").expect("a link");
    let mut watcher = Watcher::on(&["one"]);
    let (one, two) = (open("one", libc::O_RDONLY, 0), open("two", libc::O_RDONLY, 0));
    unlink("one");
    unlink("two");
    watcher.show("both names");
    close(two);
    watcher.show("the one");
    close(one);
    watcher.show("the other");
    sys::unscratch();
}

pub(super) fn deleted_dir() {
    sys::scratch("inotify-deleted-dir");
    mkdir("dir");
    mkdir("used");
    let mut watcher = Watcher::on(&["dir", "used", "."]);
    std::fs::remove_dir("dir").expect("a directory less");
    watcher.show("a directory");
    let fd = open("used", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    std::fs::remove_dir("used").expect("a directory less");
    watcher.show("an open one");
    close(fd);
    watcher.show("closed");
    // Someone's working directory.
    mkdir("home");
    watcher.add("home", ALL);
    let back = open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    report("chdir", sys!(libc::SYS_chdir, c("home").as_ptr()));
    std::fs::remove_dir("../home").expect("a directory less");
    watcher.show("lived in");
    report("fchdir", sys!(libc::SYS_fchdir, back));
    watcher.show("left");
    close(back);
    sys::unscratch();
}

pub(super) fn made_again() {
    sys::scratch("inotify-made-again");
    mkdir("dir");
    make("dir/file");
    let mut watcher = Watcher::new();
    let wd = watcher.add("dir", ALL);
    report("remove", watcher.remove(wd));
    drop(std::fs::read("dir/file"));
    watcher.show("nobody watches");
    watcher.add("dir", libc::IN_CREATE);
    drop(std::fs::read("dir/file"));
    watcher.show("not what happens to children");
    watcher.add("dir", ALL);
    drop(std::fs::read("dir/file"));
    watcher.show("everything");
    mkdir("dir/below");
    make("dir/below/deep");
    watcher.take();
    drop(std::fs::read("dir/below/deep"));
    watcher.show("not what is further below");
    // Children that come after the watch, by a new name and from elsewhere.
    make("outside");
    std::fs::rename("outside", "dir/inside").expect("a new place");
    watcher.take();
    drop(std::fs::read("dir/inside"));
    watcher.show("moved in");
    std::fs::rename("dir/inside", "outside").expect("a new place");
    watcher.take();
    drop(std::fs::read("outside"));
    watcher.show("moved out");
    sys::unscratch();
}
