//! Programs that run as somebody else: who may make them, what takes it from them, when it counts. The cases expect to
//! start as root, as the harness does, and run the interesting parts as user and group 1000.

use crate::Case;
use crate::process::{SELF, execute};
use crate::sys::{self, c, in_child, report};

pub(crate) const CASES: &[Case] = &[
    ("setid_new_files", new_files),
    ("setid_writes", writes),
    ("setid_owners", owners),
    ("setid_modes", modes),
    ("setid_moves", moves),
    ("setid_programs", programs),
    ("setid_unreadable", unreadable),
    ("setid_capabilities", capabilities),
    ("setid_nothing_new", nothing_new),
    ("setid_attributes", attributes),
];

const USER: i32 = 1000;
/// A group that the user is no member of, at first.
const GROUP: u32 = 42;

/// Becomes the user, for good.
pub(crate) fn become_user(groups: &[u32]) {
    sys!(libc::SYS_setgroups, groups.len(), groups.as_ptr());
    sys!(libc::SYS_setresgid, USER, USER, USER);
    sys!(libc::SYS_setresuid, USER, USER, USER);
    sys!(libc::SYS_umask, 0);
}

fn mode_of(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) => format!("{:06o} {}:{}", meta.mode(), meta.uid(), meta.gid()),
        Err(error) => error.to_string(),
    }
}

fn chmod(path: &str, mode: u32) -> i64 {
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(path).as_ptr(), mode)
}

fn chown(path: &str, uid: i32, gid: i32) -> i64 {
    sys!(libc::SYS_fchownat, libc::AT_FDCWD, c(path).as_ptr(), uid, gid, 0)
}

/// A directory that anybody may write to.
fn open_directory(name: &str, mode: u32, group: u32) {
    std::fs::create_dir(name).expect("a directory");
    chown(name, 0, group as i32);
    chmod(name, mode);
}

fn new_files() {
    sys::scratch("setid");
    open_directory("d", 0o2777, GROUP);
    let make = |who: &str| {
        let path = |what: &str| format!("d/{who}-{what}");
        for mode in [0o2755, 0o6755, 0o2745, 0o2644] {
            let name = path(&format!("{mode:o}"));
            sys::close(sys::open(&name, libc::O_CREAT | libc::O_WRONLY, mode));
            println!("{name} {}", mode_of(&name));
        }
        for (kind, mode) in [("file", libc::S_IFREG), ("fifo", libc::S_IFIFO), ("socket", libc::S_IFSOCK)] {
            let name = path(kind);
            sys!(libc::SYS_mknodat, libc::AT_FDCWD, c(&name).as_ptr(), mode | 0o2755, 0);
            println!("{name} {}", mode_of(&name));
        }
        let name = path("directory");
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c(&name).as_ptr(), 0o755);
        println!("{name} {}", mode_of(&name));
        sys!(libc::SYS_umask, 0o011);
        let name = path("masked");
        sys::close(sys::open(&name, libc::O_CREAT | libc::O_WRONLY, 0o2755));
        println!("{name} {}", mode_of(&name));
        0
    };
    in_child("a stranger", || {
        become_user(&[]);
        make("stranger")
    });
    in_child("a member", || {
        become_user(&[GROUP]);
        make("member")
    });
    in_child("root", || {
        sys!(libc::SYS_umask, 0);
        make("root")
    });
    sys::unscratch();
}

/// A way to change the file `f`.
type Change = (&'static str, fn() -> i64);

/// Has `f` open for writing meanwhile.
fn opened(flags: i32, change: impl FnOnce(i64) -> i64) -> i64 {
    let fd = sys::open("f", libc::O_WRONLY | flags, 0);
    let result = if fd < 0 { fd } else { change(fd) };
    sys::close(fd);
    result
}

const CHANGES: &[Change] = &[
    ("open", || opened(0, |_| 0)),
    ("write", || opened(0, |fd| sys::write(fd, b"x"))),
    ("write nothing", || opened(0, |fd| sys::write(fd, b""))),
    ("append", || opened(libc::O_APPEND, |fd| sys::write(fd, b"x"))),
    ("pwrite", || opened(0, |fd| sys!(libc::SYS_pwrite64, fd, b"x".as_ptr(), 1, 3))),
    ("writev", || opened(0, |fd| sys!(libc::SYS_writev, fd, [b"x".as_ptr() as u64, 1].as_ptr(), 1))),
    ("ftruncate", || opened(0, |fd| sys!(libc::SYS_ftruncate, fd, 2))),
    ("ftruncate to the same", || opened(0, |fd| sys!(libc::SYS_ftruncate, fd, 4))),
    ("truncate", || sys!(libc::SYS_truncate, c("f").as_ptr(), 2)),
    ("O_TRUNC", || opened(libc::O_TRUNC, |_| 0)),
    ("sendfile", || {
        let from = sys::open("g", libc::O_RDONLY, 0);
        opened(0, |fd| sys!(libc::SYS_sendfile, fd, from, 0, 1))
    }),
    ("copy_file_range", || {
        let from = sys::open("g", libc::O_RDONLY, 0);
        opened(0, |fd| sys!(libc::SYS_copy_file_range, from, 0, fd, 0, 1, 0))
    }),
    ("splice", || {
        let (read_end, write_end) = sys::pipe(0);
        sys::write(write_end, b"x");
        opened(0, |fd| sys!(libc::SYS_splice, read_end, 0, fd, 0, 1, 0))
    }),
];

/// Prints what becomes of a set-id file's mode.
fn try_changes(who: &str, becomes: fn()) {
    for mode in [0o6777, 0o2767] {
        for (name, change) in CHANGES {
            std::fs::write("f", "four").expect("a file");
            std::fs::write("g", "from").expect("a file");
            chown("f", 0, GROUP as i32);
            chmod("f", mode);
            let pid = sys::fork(|| {
                becomes();
                (change() < 0).into()
            });
            println!("{who} {name}: {}, {}", sys::wait(pid), mode_of("f"));
        }
    }
}

fn writes() {
    sys::scratch("setid");
    chmod(".", 0o755);
    try_changes("a stranger", || become_user(&[]));
    try_changes("a member", || become_user(&[GROUP]));
    try_changes("root", || {});
    sys::unscratch();
}

fn owners() {
    sys::scratch("setid");
    chmod(".", 0o777);
    let fresh = |mode: u32, uid: i32, gid: i32| {
        std::fs::write("f", "").expect("a file");
        chown("f", uid, gid);
        chmod("f", mode);
    };
    for mode in [0o6755, 0o2745, 0o6644, 0o4711] {
        fresh(mode, 0, 0);
        report("root, to another", chown("f", 1, 1));
        println!("{}", mode_of("f"));
        fresh(mode, USER, USER);
        report("root, to nobody new", chown("f", -1, -1));
        println!("{}", mode_of("f"));
        fresh(mode, USER, USER);
        in_child("its owner", || {
            become_user(&[GROUP]);
            report("to a group of his", chown("f", -1, GROUP as i32));
            0
        });
        println!("{}", mode_of("f"));
        fresh(mode, USER, GROUP as i32);
        in_child("its owner", || {
            become_user(&[]);
            report("away from a foreign group", chown("f", -1, USER));
            0
        });
        println!("{}", mode_of("f"));
    }
    std::fs::create_dir("d").expect("a directory");
    chmod("d", 0o6755);
    report("a directory", chown("d", 1, 1));
    println!("{}", mode_of("d"));
    sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("p").as_ptr(), libc::S_IFIFO | 0o755, 0);
    chmod("p", 0o6755);
    report("a FIFO", chown("p", 1, 1));
    println!("{}", mode_of("p"));
    sys::unscratch();
}

fn modes() {
    sys::scratch("setid");
    chmod(".", 0o777);
    std::fs::write("f", "").expect("a file");
    open_directory("d", 0o777, GROUP);
    for name in ["f", "d"] {
        chown(name, USER, GROUP as i32);
        for groups in [&[][..], &[GROUP]] {
            in_child(name, || {
                become_user(groups);
                report("chmod", chmod(name, 0o6755));
                0
            });
            println!("{}", mode_of(name));
        }
    }
    sys::unscratch();
}

fn moves() {
    sys::scratch("setid");
    chmod(".", 0o777);
    open_directory("one", 0o777, 0);
    open_directory("two", 0o777, 0);
    for (name, uid) in [("root", 0), ("own", USER), ("other", 0)] {
        std::fs::create_dir(format!("one/{name}")).expect("a directory");
        chown(&format!("one/{name}"), uid, uid);
    }
    std::fs::create_dir("two/own").expect("a directory");
    chown("two/own", USER, USER);
    std::fs::write("one/file", "").expect("a file");
    in_child("the user", || {
        become_user(&[]);
        let rename = |from: &str, to: &str, flags: u32| {
            let (old, new) = (c(from), c(to));
            let cwd = libc::AT_FDCWD;
            let result = sys!(libc::SYS_renameat2, cwd, old.as_ptr(), cwd, new.as_ptr(), flags);
            report(&format!("{from} to {to}"), result);
        };
        rename("one/root", "two/root", 0);
        rename("one/root", "one/renamed", 0);
        rename("one/own", "two/mine", 0);
        rename("one/file", "two/file", 0);
        rename("one/other", "two/own", libc::RENAME_EXCHANGE);
        rename("two/own", "one/other", libc::RENAME_EXCHANGE);
        rename("two/file", "one/other", libc::RENAME_EXCHANGE);
        0
    });
    sys::unscratch();
}

/// A copy of this program as `name`, with these permissions.
pub(crate) fn copy_of_self(name: &str, mode: u32) {
    std::fs::copy(SELF, name).expect("a copy of this program");
    chown(name, 0, 0);
    chmod(name, mode);
}

fn programs() {
    sys::scratch("setid");
    chmod(".", 0o755);
    copy_of_self("plain", 0o755);
    copy_of_self("setuid", 0o4755);
    copy_of_self("setgid", 0o2755);
    let run = |program: &str| -execute(program, &["abi", "--child", "rights"], &[]) as i32;
    for program in ["plain", "setuid", "setgid"] {
        in_child(&format!("root, {program}"), || run(program));
        in_child(program, || {
            become_user(&[]);
            run(program)
        });
        in_child(&format!("no_new_privs, {program}"), || {
            become_user(&[]);
            sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            run(program)
        });
        in_child(&format!("steered, {program}"), || {
            become_user(&[]);
            let pid = sharing_fs(|| run(program));
            println!("{}", sys::wait(pid));
            0
        });
        in_child(&format!("steered by root, {program}"), || {
            let pid = sharing_fs(|| run(program));
            println!("{}", sys::wait(pid));
            0
        });
        in_child(&format!("with a thread, {program}"), || {
            become_user(&[]);
            let _waits = std::thread::spawn(|| sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0));
            run(program)
        });
        in_child(&format!("set-uid already, {program}"), || {
            sys!(libc::SYS_setresuid, -1, USER, -1);
            run(program)
        });
    }
    sys::unscratch();
}

/// Forks a child that shares working directory and umask with its parent.
fn sharing_fs(body: impl FnOnce() -> i32) -> i64 {
    sys::flush();
    let pid = sys!(libc::SYS_clone, libc::CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0);
    if pid == 0 {
        sys::exit(body());
    }
    pid
}

/// What a program says of its rights (`abi --child rights`).
pub(crate) fn rights() {
    let three = |call: i64| {
        let mut ids = [-1_i32; 3];
        let [real, effective, saved] = &mut ids;
        sys!(call, &raw mut *real, &raw mut *effective, &raw mut *saved);
        ids
    };
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    sys!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
    let some = |set: u32| if set == 0 { "none" } else { "some" };
    println!(
        "{:?} {:?}, capabilities {} {}, its user's {}",
        three(libc::SYS_getresuid),
        three(libc::SYS_getresgid),
        some(sets[0]),
        some(sets[1]),
        sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE) == 1,
    );
}

/// Who may run a program but not read it does not get to read its memory.
fn unreadable() {
    sys::scratch("setid");
    chmod(".", 0o755);
    copy_of_self("unreadable", 0o711);
    in_child("the user", || {
        become_user(&[]);
        -execute("unreadable", &["abi", "--child", "rights"], &[]) as i32
    });
    in_child("root", || -execute("unreadable", &["abi", "--child", "rights"], &[]) as i32);
    sys::unscratch();
}

fn capabilities() {
    const CHOWN: i64 = 0;
    let raise_ambient = || {
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        sys!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        sets[2] |= 1;
        report("inheritable", sys!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()));
        let (option, raise) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE);
        report("ambient", sys!(libc::SYS_prctl, option, raise, CHOWN, 0, 0));
    };
    let show = || {
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        sys!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        let (option, is_set) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET);
        let ambient = sys!(libc::SYS_prctl, option, is_set, CHOWN, 0, 0);
        let keep = sys!(libc::SYS_prctl, libc::PR_GET_KEEPCAPS);
        println!("effective {} permitted {} ambient {ambient} keep {keep}", sets[0] & 1, sets[1] & 1);
    };
    for keep in [0, 1] {
        in_child("all ids leave root", || {
            raise_ambient();
            sys!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, keep);
            sys!(libc::SYS_setresuid, USER, USER, USER);
            show();
            -execute(SELF, &["abi", "--child", "rights"], &[]) as i32
        });
        in_child("the effective id leaves root", || {
            raise_ambient();
            sys!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, keep);
            sys!(libc::SYS_setresuid, -1, USER, -1);
            show();
            sys!(libc::SYS_setresuid, -1, 0, -1);
            show();
            -execute(SELF, &["abi", "--child", "rights"], &[]) as i32
        });
    }
}

/// Root's programs get all capabilities again, unless there are no new privileges.
fn nothing_new() {
    for locked in [0, 1] {
        in_child("a capability dropped", || {
            let header = [0x2008_0522_u32, 0];
            let mut sets = [0_u32; 6];
            sys!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
            (sets[0], sets[1]) = (sets[0] & !1, sets[1] & !1);
            report("drop", sys!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()));
            sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, locked, 0, 0, 0);
            -execute(SELF, &["abi", "--child", "rights"], &[]) as i32
        });
    }
}

/// Capabilities of files are for those to set who may, and gone once somebody has written.
fn attributes() {
    sys::scratch("setid");
    chmod(".", 0o777);
    // Version 2, cap_chown permitted and effective.
    let value: [u8; 20] = std::array::from_fn(|at| match at {
        0 | 4 => 1,
        3 => 2,
        _ => 0,
    });
    let name = c("security.capability");
    let set = || sys!(libc::SYS_setxattr, c("f").as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), 0);
    let kept = || sys!(libc::SYS_getxattr, c("f").as_ptr(), name.as_ptr(), 0, 0) > 0;
    std::fs::write("f", "four").expect("a file");
    chown("f", USER, USER);
    in_child("its owner", || {
        become_user(&[]);
        report("set", set());
        0
    });
    report("root", set());
    for (what, change) in CHANGES {
        std::fs::write("g", "from").expect("a file");
        set();
        let changed = change() >= 0;
        println!("{what}: {changed}, kept {}", kept());
    }
    set();
    chown("f", -1, -1);
    println!("chown: kept {}", kept());
    sys::unscratch();
}
