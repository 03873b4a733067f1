//! Access control lists: on a file system of their own, which has them natively, too.

use crate::mounts::{apart, mount};
use crate::recent::{older_than, since};
use crate::setid::become_user;
use crate::sys::{c, close, in_child, open, report, report_ok, show};
use std::os::unix::fs::{MetadataExt, symlink};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const OWNER: u16 = 1;
const USER: u16 = 2;
const OWNING_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
const NONE: u32 = u32::MAX;

fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn set_raw(path: &str, name: &str, value: &[u8]) -> i64 {
    sys!(libc::SYS_lsetxattr, c(path).as_ptr(), c(name).as_ptr(), value.as_ptr(), value.len(), 0)
}

fn set(path: &str, name: &str, entries: &[(u16, u16, u32)]) -> i64 {
    set_raw(path, name, &value(entries))
}

/// A list as it is read, and the permission bits.
fn tell(what: &str, path: &str) {
    let mode = std::fs::symlink_metadata(path).map_or(0, |meta| meta.mode());
    println!("{what}: {mode:06o}");
    for name in [ACCESS, DEFAULT] {
        let mut room = [0_u8; 256];
        let len =
            sys!(libc::SYS_lgetxattr, c(path).as_ptr(), c(name).as_ptr(), room.as_mut_ptr(), room.len());
        let Ok(len) = usize::try_from(len) else {
            println!("  {}", show(len));
            continue;
        };
        let word = |at: usize| u32::from_le_bytes([room[at], room[at + 1], room[at + 2], room[at + 3]]);
        let entries: Vec<String> = (4..len)
            .step_by(8)
            .map(|at| format!("{:x}:{:x}:{}", word(at) & 0xffff, word(at) >> 16, word(at + 4) as i32))
            .collect();
        println!("  {} {}", word(0), entries.join(" "));
    }
}

/// What users may do: the owner's group and number, of the file `f`.
fn tried(what: &str) {
    for (uid, gid, groups) in
        [(1000, 1000, &[][..]), (1001, 1001, &[50_u32, 60]), (1001, 60, &[]), (1002, 1002, &[])]
    {
        in_child(&format!("{what} as {uid} of {gid} {groups:?}"), || {
            sys!(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            sys!(libc::SYS_setresgid, gid, gid, gid);
            sys!(libc::SYS_setresuid, uid, uid, uid);
            for (flags, word) in [(libc::O_RDONLY, "read"), (libc::O_WRONLY, "write"), (libc::O_RDWR, "both")]
            {
                report_ok(word, open("f", flags, 0));
            }
            report("access", sys!(libc::SYS_faccessat, libc::AT_FDCWD, c"f".as_ptr(), libc::W_OK));
            0
        });
    }
}

pub(super) fn checked() {
    apart(|| {
        close(open("f", libc::O_CREAT, 0o640));
        let mut list = [
            (OWNER, 6, NONE),
            (USER, 6, 1000),
            (OWNING_GROUP, 4, NONE),
            (GROUP, 2, 50),
            (GROUP, 4, 60),
            (MASK, 6, NONE),
            (OTHERS, 0, NONE),
        ];
        report("set", set("f", ACCESS, &list));
        tell("list", "f");
        tried("all");
        report("chmod", sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c"f".as_ptr(), 0o644));
        tell("less", "f");
        tried("masked");
        report("chmod", sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c"f".as_ptr(), 0o604));
        tried("nobody of the group");
        list[5].1 = 7;
        report("set", set("f", ACCESS, &list));
        tell("more", "f");
        let mut names = [0_u8; 64];
        let len = sys!(libc::SYS_listxattr, c"f".as_ptr(), names.as_mut_ptr(), names.len());
        println!("{} {:?}", show(len), String::from_utf8_lossy(&names[..usize::try_from(len).unwrap_or(0)]));
        report("length", sys!(libc::SYS_getxattr, c"f".as_ptr(), c(ACCESS).as_ptr(), 0, 0));
        report("no room", sys!(libc::SYS_getxattr, c"f".as_ptr(), c(ACCESS).as_ptr(), names.as_ptr(), 9));
        report(
            "bits alone",
            set("f", ACCESS, &[(OWNER, 7, NONE), (OWNING_GROUP, 5, NONE), (OTHERS, 1, NONE)]),
        );
        tell("bits", "f");
        report("set", set("f", ACCESS, &list));
        report("remove", sys!(libc::SYS_removexattr, c"f".as_ptr(), c(ACCESS).as_ptr()));
        report("again", sys!(libc::SYS_removexattr, c"f".as_ptr(), c(ACCESS).as_ptr()));
        tell("gone", "f");
        report("set", set("f", ACCESS, &list));
        // (Before Linux 6.2 that was EINVAL.)
        let empty = set_raw("f", ACCESS, &[]);
        report("empty", if older_than(2) { 0 } else { empty });
        report("set", set("f", ACCESS, &list));
        report("no entries", set("f", ACCESS, &[]));
        tell("gone", "f");
        // A group that root acts as a member of keeps the bit, one of others does not.
        sys!(libc::SYS_fchownat, libc::AT_FDCWD, c"f".as_ptr(), 1000, 77, 0);
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c"f".as_ptr(), 0o2755);
        in_child("as the owner", || {
            become_user(&[]);
            report("set", set("f", ACCESS, &list));
            tell("no set-group-id", "f");
            0
        });
    });
}

pub(super) fn inherited() {
    apart(|| {
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c"d".as_ptr(), 0o755);
        let list =
            [(OWNER, 7, NONE), (USER, 6, 1000), (OWNING_GROUP, 7, NONE), (MASK, 7, NONE), (OTHERS, 5, NONE)];
        report("set", set("d", DEFAULT, &list));
        tell("directory", "d");
        sys!(libc::SYS_umask, 0o077);
        close(open("d/f", libc::O_CREAT, 0o664));
        tell("file", "d/f");
        close(open("d/x", libc::O_CREAT, 0o700));
        tell("private", "d/x");
        report("mkdir", sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c"d/e".as_ptr(), 0o777));
        tell("below", "d/e");
        report("fifo", sys!(libc::SYS_mknodat, libc::AT_FDCWD, c"d/p".as_ptr(), libc::S_IFIFO | 0o666, 0));
        tell("fifo", "d/p");
        symlink("f", "d/l").expect("a link");
        tell("link", "d/l");
        let nameless = open("d", libc::O_TMPFILE | libc::O_RDWR, 0o666);
        tell("nameless", &format!("/proc/self/fd/{nameless}/"));
        let old = c(&format!("/proc/self/fd/{nameless}"));
        let to = c"d/n".as_ptr();
        report("link", sys!(libc::SYS_linkat, -100, old.as_ptr(), -100, to, libc::AT_SYMLINK_FOLLOW));
        tell("named", "d/n");
        let plain = [(OWNER, 6, NONE), (OWNING_GROUP, 4, NONE), (OTHERS, 4, NONE)];
        report("bits alone", set("d", DEFAULT, &plain));
        tell("directory", "d");
        close(open("d/g", libc::O_CREAT, 0o666));
        tell("file", "d/g");
        report("mkdir", sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c"d/h".as_ptr(), 0o777));
        tell("below", "d/h");
        report("remove", sys!(libc::SYS_removexattr, c"d".as_ptr(), c(DEFAULT).as_ptr()));
        close(open("d/o", libc::O_CREAT, 0o666));
        tell("file", "d/o");
    });
}

pub(super) fn refused() {
    apart(|| {
        close(open("f", libc::O_CREAT, 0o640));
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c"d".as_ptr(), 0o755);
        symlink("f", "l").expect("a link");
        let (owner, user, group) = ((OWNER, 6, NONE), (USER, 6, 1000), (OWNING_GROUP, 4, NONE));
        let (mask, others) = ((MASK, 6, NONE), (OTHERS, 0, NONE));
        for (what, list) in [
            ("no owner", &[user, group, mask, others][..]),
            ("no mask", &[owner, user, group, others]),
            ("out of order", &[owner, group, user, mask, others]),
            ("twice", &[owner, owner, group, others]),
            ("no others", &[owner, group]),
            ("too much", &[(OWNER, 8, NONE), group, others]),
            ("unknown", &[owner, (3, 0, 0), group, others]),
            ("nobody", &[owner, (USER, 6, NONE), group, mask, others]),
            ("the same user twice", &[owner, user, user, group, mask, others]),
            ("a mask for nobody", &[owner, group, mask, others]),
        ] {
            report(what, set("f", ACCESS, list));
        }
        let good = value(&[owner, user, group, mask, others]);
        report("short", set_raw("f", ACCESS, &good[..3]));
        report("in the middle", set_raw("f", ACCESS, &good[..9]));
        let mut old = good.clone();
        old[0] = 1;
        report("other version", set_raw("f", ACCESS, &old));
        report("link", set_raw("l", ACCESS, &good));
        report("of a link", sys!(libc::SYS_lgetxattr, c"l".as_ptr(), c(ACCESS).as_ptr(), 0, 0));
        report("default of a file", set_raw("f", DEFAULT, &good));
        report("none of a file", sys!(libc::SYS_removexattr, c"f".as_ptr(), c(DEFAULT).as_ptr()));
        report("unknown name", set_raw("f", "system.posix_acl_other", &good));
        report("in proc", set_raw("/proc/version", ACCESS, &good));
        in_child("another", || {
            become_user(&[]);
            report("set", set_raw("f", ACCESS, &good));
            report("remove", sys!(libc::SYS_removexattr, c"f".as_ptr(), c(ACCESS).as_ptr()));
            0
        });
        report("read-only", mount("", ".", "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, ""));
        report("set", set_raw("f", ACCESS, &good));
        report("nonsense", set_raw("f", ACCESS, &good[..9]));
    });
}

/// setxattrat(2) and its siblings, which came with Linux 6.13.
pub(super) fn at() {
    const FIRST: i64 = 463;
    apart(|| {
        close(open("f", libc::O_CREAT, 0o640));
        symlink("f", "l").expect("a link");
        let expect = |what: &str, result: i64, expected: i64| since(13, what, result, expected);
        let mut text = *b"text";
        let own = |len: u32, flags: u32| [text.as_ptr() as u64, u64::from(len) | u64::from(flags) << 32];
        let (name, f, dir) = (c"user.a".as_ptr(), c"f".as_ptr(), libc::AT_FDCWD);
        let einval = -i64::from(libc::EINVAL);
        expect("set", sys!(FIRST, dir, f, 0, name, own(4, 0).as_ptr(), 16), 0);
        expect("again", sys!(FIRST, dir, f, 0, name, own(4, 1).as_ptr(), 16), -i64::from(libc::EEXIST));
        expect("short", sys!(FIRST, dir, f, 0, name, own(4, 0).as_ptr(), 15), einval);
        let mut long = own(3, 0).to_vec();
        long.push(0);
        expect("long", sys!(FIRST, dir, f, 0, name, long.as_ptr(), 24), 0);
        long[2] = 1;
        expect("longer", sys!(FIRST, dir, f, 0, name, long.as_ptr(), 24), -i64::from(libc::E2BIG));
        expect("huge", sys!(FIRST, dir, f, 0, name, long.as_ptr(), 4097), -i64::from(libc::E2BIG));
        expect("flags", sys!(FIRST, dir, f, 1, name, own(4, 0).as_ptr(), 16), einval);
        let into = [text.as_mut_ptr() as u64, 4];
        expect("get", sys!(FIRST + 1, dir, f, 0, name, into.as_ptr(), 16), 3);
        let flagged = [into[0], 4 | 1 << 32];
        expect("get with flags", sys!(FIRST + 1, dir, f, 0, name, flagged.as_ptr(), 16), einval);
        let l = c"l".as_ptr();
        expect("by a link", sys!(FIRST + 1, dir, l, 0, name, into.as_ptr(), 16), 3);
        let nofollow = libc::AT_SYMLINK_NOFOLLOW;
        let nodata = -i64::from(libc::ENODATA);
        expect("of a link", sys!(FIRST + 1, dir, l, nofollow, name, into.as_ptr(), 16), nodata);
        let mut names = [0_u8; 16];
        expect("list", sys!(FIRST + 2, dir, f, 0, names.as_mut_ptr(), names.len()), 7);
        let fd = open("f", libc::O_RDONLY, 0);
        let empty = libc::AT_EMPTY_PATH;
        expect("by descriptor", sys!(FIRST + 2, fd, c"".as_ptr(), empty, names.as_mut_ptr(), 16), 7);
        expect("remove", sys!(FIRST + 3, dir, f, 0, name), 0);
        expect("gone", sys!(FIRST + 3, dir, f, 0, name), nodata);
    });
}
