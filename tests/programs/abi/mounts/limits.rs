//! What a file system in memory may hold.

use super::{apart, mkdir, mount};
use crate::sys::{self, c, report, report_ok};

pub(super) fn limits() {
    let space = |what: &str| {
        let mut stat = [0_u64; 15];
        sys!(libc::SYS_statfs, c("m").as_ptr(), stat.as_mut_ptr());
        println!("{what}: {:?}", &stat[2..7]);
    };
    apart(|| {
        mkdir("m");
        report("mount", mount("x", "m", "tmpfs", 0, "size=64k,nr_inodes=5"));
        space("empty");
        let file = sys::open("m/a", libc::O_CREAT | libc::O_RDWR, 0o600);
        report("too much", sys::write(file, &[7; 100 << 10]));
        report("more", sys::write(file, b"x"));
        space("full");
        report("reserve", sys!(libc::SYS_fallocate, file, 0, 64 << 10, 4096));
        report(
            "a hole",
            sys!(
                libc::SYS_fallocate,
                file,
                libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
                4096,
                8192
            ),
        );
        space("punched");
        report("cut", sys!(libc::SYS_ftruncate, file, 12 << 10));
        space("cut");
        report("long", sys!(libc::SYS_ftruncate, file, 1 << 30));
        space("sparse");
        for name in ["m/b", "m/c", "m/d", "m/e"] {
            report_ok(name, sys::open(name, libc::O_CREAT, 0o600));
        }
        report("mkdir", mkdir("m/f"));
        report("link", sys!(libc::SYS_symlinkat, c("a").as_ptr(), libc::AT_FDCWD, c("m/l").as_ptr()));
        report("remove", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("m/b").as_ptr(), 0));
        report("mkdir", mkdir("m/f"));
        space("names");
        report("less than it holds", mount("", "m", "", libc::MS_REMOUNT, "size=4k"));
        report("as much as it holds", mount("", "m", "", libc::MS_REMOUNT, "size=8k"));
        report("at its end", sys!(libc::SYS_pwrite64, file, b"x".as_ptr(), 1, 20 << 10));
        report("fewer than it has", mount("", "m", "", libc::MS_REMOUNT, "nr_inodes=2"));
        report("more", mount("", "m", "", libc::MS_REMOUNT, "size=1m,nr_inodes=9"));
        report("again", sys!(libc::SYS_pwrite64, file, b"x".as_ptr(), 1, 20 << 10));
        space("more");
        report("unlink", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("m/a").as_ptr(), 0));
        space("open");
        sys::close(file);
        space("gone");
    });
}
