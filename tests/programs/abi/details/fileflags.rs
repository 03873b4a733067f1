//! What keeps a file as it is (ioctl_iflags(2)), on tmpfs, which has known it since Linux 6.6.

use crate::mounts::apart;
use crate::recent::older_than;
use crate::setid::become_user;
use crate::sys::{c, close, in_child, open, show, write};

const GET: u32 = 0x8008_6601;
const SET: u32 = 0x4008_6602;
const FSGET: u32 = 0x801c_581f;
const FSSET: u32 = 0x401c_5820;
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NODUMP: u32 = 0x40;

fn get(fd: i64) -> i64 {
    let mut flags = -1_i32;
    let result = sys!(libc::SYS_ioctl, fd, GET, &raw mut flags);
    if result < 0 { result } else { flags.into() }
}

fn set(fd: i64, flags: u32) -> i64 {
    sys!(libc::SYS_ioctl, fd, SET, &raw const flags)
}

fn statx_attributes(path: &str) -> (u64, u64) {
    let mut room = [0_u64; 32];
    sys!(libc::SYS_statx, libc::AT_FDCWD, c(path).as_ptr(), 0, 0x7ff, room.as_mut_ptr());
    (room[1], room[7])
}

/// What should come of what is tried; a kernel that knows no flags cannot say.
struct Expected {
    known: bool,
}

impl Expected {
    fn of(fd: i64) -> Expected {
        Expected { known: get(fd) >= 0 || !older_than(6) }
    }

    fn is(&self, what: &str, result: i64, expected: i64) {
        let well = !self.known || result == expected;
        println!("{what}: {}", if well { "as it should be".to_owned() } else { show(result) });
    }

    fn fails(&self, what: &str, result: i64, errno: i32) {
        self.is(what, result, -i64::from(errno));
    }

    fn works(&self, what: &str, result: i64) {
        self.is(what, result.min(0), 0);
    }
}

/// All that changes a file `name`, of which each is refused; but for what `grows` says.
fn refused(expected: &Expected, name: &str, grows: bool) {
    let (at, path, eperm) = (libc::AT_FDCWD, c(name), libc::EPERM);
    let name = path.as_ptr();
    let path = path.to_str().unwrap_or_default();
    expected.fails("write", open(path, libc::O_WRONLY, 0), eperm);
    expected.fails("cut", open(path, libc::O_WRONLY | libc::O_TRUNC, 0), eperm);
    expected.fails("read and cut", open(path, libc::O_RDONLY | libc::O_TRUNC, 0), eperm);
    let append = open(path, libc::O_WRONLY | libc::O_APPEND, 0);
    if grows {
        expected.works("append", append);
        expected.is("write", write(append, b"more"), 4);
        expected.fails("write anywhere", sys!(libc::SYS_fcntl, append, libc::F_SETFL, 0), eperm);
        expected.fails("ftruncate", sys!(libc::SYS_ftruncate, append, 0), eperm);
        expected.works("fallocate", sys!(libc::SYS_fallocate, append, libc::FALLOC_FL_KEEP_SIZE, 0, 9));
        let hole = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        expected.fails("punch", sys!(libc::SYS_fallocate, append, hole, 0, 1), eperm);
        close(append);
        expected.works("touch", sys!(libc::SYS_utimensat, at, name, 0, 0));
    } else {
        expected.fails("append", append, eperm);
        expected.fails("touch", sys!(libc::SYS_utimensat, at, name, 0, 0), eperm);
        expected.fails("access", sys!(libc::SYS_faccessat, at, name, libc::W_OK), eperm);
    }
    expected.fails("truncate", sys!(libc::SYS_truncate, name, 0), eperm);
    expected.fails("chmod", sys!(libc::SYS_fchmodat, at, name, 0o600), eperm);
    expected.fails("chown", sys!(libc::SYS_fchownat, at, name, 1, 1, 0), eperm);
    let times = [1_i64, 0, 1, 0];
    expected.fails("utimes", sys!(libc::SYS_utimensat, at, name, times.as_ptr(), 0), eperm);
    expected.fails("unlink", sys!(libc::SYS_unlinkat, at, name, 0), eperm);
    expected.fails("rename", sys!(libc::SYS_renameat2, at, name, at, c"other".as_ptr(), 0), eperm);
    expected.fails("over it", sys!(libc::SYS_renameat2, at, c"plain".as_ptr(), at, name, 0), eperm);
    expected.fails("link", sys!(libc::SYS_linkat, at, name, at, c"other".as_ptr(), 0), eperm);
    let attribute = c"user.a".as_ptr();
    expected.fails("attribute", sys!(libc::SYS_setxattr, name, attribute, name, 1, 0), eperm);
    expected.works("read", open(path, libc::O_RDONLY, 0));
}

pub(super) fn flags() {
    apart(|| {
        close(open("plain", libc::O_CREAT, 0o666));
        let f = open("f", libc::O_CREAT | libc::O_RDWR, 0o666);
        let expected = Expected::of(f);
        let (at, eperm) = (libc::AT_FDCWD, libc::EPERM);
        expected.is("none", get(f), 0);
        expected.works("fixed", set(f, IMMUTABLE));
        expected.is("fixed", get(f), IMMUTABLE.into());
        refused(&expected, "f", false);
        expected.is("open before", write(f, b"x"), 1);
        let (hold, known) = statx_attributes("f");
        expected.is("statx", (hold & 0x70) as i64, 0x10);
        expected.is("statx knows", (known & 0x70) as i64, 0x70);
        println!("those of mounts: {:#x}", known & 0x20_3000);
        println!("a mount's root: {}", statx_attributes(".").0 & 0x2000 != 0);
        let mut xattr = [0_u32; 7];
        expected.works("as XFS", sys!(libc::SYS_ioctl, f, FSGET, xattr.as_mut_ptr()));
        expected.is("as XFS", xattr[0].into(), 8);
        xattr[0] = 0x10;
        expected.works("other", sys!(libc::SYS_ioctl, f, FSSET, xattr.as_ptr()));
        expected.is("grows", get(f), APPEND.into());
        refused(&expected, "f", true);
        xattr = [0, 0, 0, 5, 0, 0, 0];
        expected.fails("project", sys!(libc::SYS_ioctl, f, FSSET, xattr.as_ptr()), libc::EOPNOTSUPP);
        expected.fails("unknown", set(f, 0x8_0000), libc::EOPNOTSUPP);
        expected.works("none", set(f, 0));
        expected.works("write", open("f", libc::O_WRONLY, 0));
        sys!(libc::SYS_mkdirat, at, c"d".as_ptr(), 0o777);
        close(open("d/there", libc::O_CREAT, 0o666));
        let d = open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0);
        expected.works("directory", set(d, IMMUTABLE | NODUMP));
        expected.fails("make", open("d/x", libc::O_CREAT, 0o666), eperm);
        expected.fails("mkdir", sys!(libc::SYS_mkdirat, at, c"d/x".as_ptr(), 0o777), eperm);
        expected.fails("unlink", sys!(libc::SYS_unlinkat, at, c"d/there".as_ptr(), 0), eperm);
        expected.works("grows", set(d, APPEND | NODUMP));
        expected.works("make", open("d/x", libc::O_CREAT, 0o666));
        expected.fails("unlink", sys!(libc::SYS_unlinkat, at, c"d/x".as_ptr(), 0), eperm);
        expected.fails("rename", sys!(libc::SYS_renameat2, at, c"d/x".as_ptr(), at, c"y".as_ptr(), 0), eperm);
        expected.is("inherited", get(open("d/x", libc::O_RDONLY, 0)), NODUMP.into());
        expected.works("none", set(d, 0));
        sys!(libc::SYS_fchownat, at, c"f".as_ptr(), 1000, 1000, 0);
        in_child("its owner", || {
            become_user(&[]);
            let own = open("f", libc::O_RDONLY, 0);
            expected.fails("fixed", set(own, IMMUTABLE), eperm);
            expected.works("not dumped", set(own, NODUMP));
            let other = open("plain", libc::O_RDONLY, 0);
            expected.fails("another's", set(other, NODUMP), eperm);
            0
        });
        sys!(libc::SYS_mknodat, at, c"p".as_ptr(), libc::S_IFIFO | 0o666, 0);
        println!("fifo: {}", show(get(open("p", libc::O_RDWR, 0))));
        println!("proc: {}", show(get(open("/proc/version", libc::O_RDONLY, 0))));
        println!("pipe: {}", show(get(crate::sys::pipe(0).0)));
    });
}
