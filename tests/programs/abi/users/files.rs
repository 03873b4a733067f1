//! Files of those who have names, and of those who have none.

use super::{chmod, chown, make, mapped, owner, root, set_all};
use crate::process::execute;
use crate::setid::copy_of_self;
use crate::sys::{self, c, report};

fn mkdir(path: &str, mode: u32) -> i64 {
    sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c(path).as_ptr(), mode)
}

pub(super) fn files() {
    sys::scratch("users-files");
    chmod(".", 0o777);
    report("root's", make("roots", 0o600));
    report("the user's", make("own", 0o644));
    report("own", chown("own", 1000, 1000));
    report("another's", make("others", 0o600));
    report("another's", chown("others", 1001, 1001));
    report("of root's group", make("group", 0o060));
    report("of root's group", chown("group", 1000, 0));
    root("inside", 0, || {
        for name in ["roots", "own", "others", "group"] {
            println!("{name} {}", owner(name));
            report("read", sys::open(name, libc::O_RDONLY, 0).min(0));
            report("write", sys::open(name, libc::O_WRONLY, 0).min(0));
            report("chmod", chmod(name, 0o640));
            report("to root", chown(name, 0, 0));
            report("to an unknown", chown(name, 1, -1));
            report("to its group", chown(name, -1, 0));
            report("times", sys!(libc::SYS_utimensat, libc::AT_FDCWD, c(name).as_ptr(), 0, 0));
            let attribute = c("security.capability");
            let set = sys!(libc::SYS_setxattr, c(name).as_ptr(), attribute.as_ptr(), c("x").as_ptr(), 1, 0);
            println!("attribute {}", set < 0);
        }
        report("made", make("made", 0o666));
        println!("{}", owner("made"));
        report("a directory", mkdir("dir", 0o755));
        println!("{}", owner("dir"));
        report(
            "a device",
            sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("null").as_ptr(), libc::S_IFCHR | 0o666, 0x103),
        );
        report(
            "a fifo",
            sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("fifo").as_ptr(), libc::S_IFIFO | 0o666, 0),
        );
        report("root's goes", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("roots").as_ptr(), 0));
        0
    });
    println!("{} {}", owner("made"), owner("own"));
    sys::unscratch();
    sticky();
}

fn sticky() {
    sys::scratch("users-sticky");
    chmod(".", 0o1777);
    report("root's", make("roots", 0o600));
    report("another's", make("others", 0o600));
    report("another's", chown("others", 100_005, 100_005));
    mapped("inside", 0, "0 100000 10", || {
        report("groups", sys!(libc::SYS_setresgid, 0, 0, 0));
        report("root", set_all(0));
        report("root's goes", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("roots").as_ptr(), 0));
        report("known goes", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("others").as_ptr(), 0));
        0
    });
    sys::unscratch();
}

pub(super) fn of_many() {
    sys::scratch("users-many");
    chmod(".", 0o777);
    for (name, uid, gid) in [("known", 100_005, 100_006), ("half", 100_005, 5), ("unknown", 5, 100_005)] {
        report(name, make(name, 0o600));
        report(name, chown(name, uid, gid));
    }
    mapped("inside", 0, "0 100000 10", || {
        report("groups", sys!(libc::SYS_setresgid, 0, 0, 0));
        report("root", set_all(0));
        for name in ["known", "half", "unknown"] {
            println!("{name} {}", owner(name));
            report("read", sys::open(name, libc::O_RDONLY, 0).min(0));
            report("chmod", chmod(name, 0o2710));
            println!("{}", owner(name));
            report("chown", chown(name, 7, 8));
            report("unknown", chown(name, 10, 8));
            println!("{}", owner(name));
        }
        report("user", set_all(4));
        report("made", make("made", 0o666));
        println!("{}", owner("made"));
        0
    });
    for name in ["known", "half", "unknown", "made"] {
        println!("{name} {}", owner(name));
    }
    sys::unscratch();
}

pub(super) fn programs() {
    sys::scratch("users-programs");
    chmod(".", 0o777);
    copy_of_self("of-root", 0o4755);
    copy_of_self("of-known", 0o4755);
    copy_of_self("of-group", 0o2755);
    // Changing an owner takes the bits.
    report("known", chown("of-known", 100_003, 100_003));
    report("bits", chmod("of-known", 0o6755));
    let run = |name: &str| {
        sys::in_child(name, || -execute(name, &["abi", "--child", "ids"], &[]) as i32);
    };
    root("of one", 0, || {
        ["of-root", "of-known", "of-group"].into_iter().for_each(run);
        0
    });
    mapped("of many", 0, "0 100000 10", || {
        report("user", set_all(7));
        ["of-root", "of-known", "of-group"].into_iter().for_each(run);
        0
    });
    mapped("with root", 0, "0 100000 10\n20 0 1", || {
        report("user", set_all(7));
        ["of-root", "of-known", "of-group"].into_iter().for_each(run);
        0
    });
    sys::unscratch();
}
