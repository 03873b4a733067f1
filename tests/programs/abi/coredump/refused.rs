//! Who leaves no dump, and what it takes the place of.

use super::{Core, allow, die_by, in_place, is_plain, left, report_end};
use crate::mounts::mount;
use crate::process::{SELF, execute};
use crate::setid::become_user;
use crate::sys::{self, c, in_child, report, report_ok};
use std::fs;

const SEGV: i32 = libc::SIGSEGV;

fn clear() {
    let _file = fs::remove_file("core");
    let _directory = fs::remove_dir("core");
}

pub(super) fn refused() {
    in_place(|| {
        // Anybody may write here.
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o777);
        report_end("not dumpable", || {
            report("set", sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0));
            die_by(SEGV)
        });
        report_end("again", || {
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0);
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
            die_by(SEGV)
        });
        clear();
        report_end("another user now", || {
            become_user(&[]);
            die_by(SEGV)
        });
        report_end("another user, who executes", || {
            become_user(&[]);
            execute(SELF, &["abi", "--child", "kill", "3"], &[]) as i32
        });
        clear();
        let own = fs::read(SELF).unwrap_or_default();
        fs::write("raised", own).expect("a program");
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c("raised").as_ptr(), 0o4755);
        report_end("a set-user-id program", || {
            become_user(&[]);
            execute("raised", &["abi", "--child", "kill", "3"], &[]) as i32
        });
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c("raised").as_ptr(), 0o711);
        report_end("a program that is not to be read", || {
            become_user(&[]);
            execute("./raised", &["abi", "--child", "kill", "3"], &[]) as i32
        });
        fs::create_dir("closed").expect("a directory");
        report_end("a directory of somebody else's", || {
            become_user(&[]);
            sys!(libc::SYS_chdir, c("closed").as_ptr());
            execute(SELF, &["abi", "--child", "kill", "3"], &[]) as i32
        });
        println!("in there: {:?}", fs::read_dir("closed").map(Iterator::count).ok());
        report_end("a directory that has gone", || {
            let _made = fs::create_dir("gone");
            sys!(libc::SYS_chdir, c("gone").as_ptr());
            let _gone = fs::remove_dir("../gone");
            die_by(SEGV)
        });
        report_end("a filter", || {
            sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            // Kills the process for anything: one instruction that returns that.
            let (code, mut program) = ([0x8000_0000_0000_0006_u64], [1_u64, 0]);
            program[1] = code.as_ptr() as u64;
            sys!(libc::SYS_prctl, libc::PR_SET_SECCOMP, 2, program.as_ptr());
            sys!(libc::SYS_getppid);
            0
        });
    });
}

/// What has the name already.
pub(super) fn names() {
    in_place(|| {
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o777);
        fs::write("core", "x").expect("a file");
        report_end("a file", || die_by(SEGV));
        clear();
        fs::write("other", "kept").expect("a file");
        fs::hard_link("other", "core").expect("a link");
        report_end("a link", || die_by(SEGV));
        println!("the other: {:?}", fs::read_to_string("other").ok());
        clear();
        std::os::unix::fs::symlink("other", "core").expect("a link");
        report_end("a symbolic link", || die_by(SEGV));
        println!("the other: {:?}", fs::read_to_string("other").ok());
        clear();
        sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("core").as_ptr(), libc::S_IFIFO | 0o666, 0);
        report_end("a FIFO", || die_by(SEGV));
        clear();
        fs::create_dir("core").expect("a directory");
        report_end("a directory", || die_by(SEGV));
        clear();
        report_end("a mask", || {
            sys!(libc::SYS_umask, 0o777);
            die_by(SEGV)
        });
        clear();
        report_end("a smaller mask", || {
            sys!(libc::SYS_umask, 0o077);
            die_by(SEGV)
        });
        clear();
        fs::write("core", "x").expect("a file");
        report_end("a file of root's", || {
            become_user(&[]);
            execute(SELF, &["abi", "--child", "kill", "3"], &[]) as i32
        });
        clear();
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o1777);
        fs::write("core", "x").expect("a file");
        report_end("the same where names stay", || {
            become_user(&[]);
            execute(SELF, &["abi", "--child", "kill", "3"], &[]) as i32
        });
        clear();
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o2777);
        sys!(libc::SYS_fchownat, libc::AT_FDCWD, c(".").as_ptr(), 0, 42, 0);
        report_end("a directory with a group", || die_by(SEGV));
    });
}

/// Who may look at the settings, and who may not change them. Root may, which nobody tries here.
pub(super) fn settings() {
    for name in ["kernel/core_pattern", "kernel/core_uses_pid", "kernel/core_pipe_limit", "fs/suid_dumpable"]
    {
        use std::os::unix::fs::MetadataExt;
        let path = format!("/proc/sys/{name}");
        let meta = fs::metadata(&path)
            .map(|meta| format!("{:o} {}:{}", meta.mode() & !0o222, meta.uid(), meta.gid()));
        println!("{name}: {meta:?}");
        in_child("a user", || {
            become_user(&[]);
            report("opens it to write", sys::open(&path, libc::O_WRONLY, 0));
            report_ok("to read", sys::open(&path, libc::O_RDONLY, 0));
            0
        });
    }
    println!("{}", is_plain());
}

/// A file system that has no room for it.
pub(super) fn full() {
    in_place(|| {
        in_child("on a small tmpfs", || {
            report("own mounts", sys!(libc::SYS_unshare, libc::CLONE_NEWNS));
            report("private", mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
            fs::create_dir("small").expect("a directory");
            report("tmpfs", mount("small", "small", "tmpfs", 0, "size=64k,nr_inodes=2"));
            sys!(libc::SYS_chdir, c("small").as_ptr());
            allow();
            report_end("no room", || die_by(SEGV));
            println!("not more than there is: {:?}", Core::take().map(|core| core.len() > 0));
            fs::write("taken", "x").expect("a file");
            report_end("no inode", || die_by(SEGV));
            report("read-only", mount("", ".", "", libc::MS_REMOUNT | libc::MS_RDONLY, ""));
            report_end("read-only", || die_by(SEGV));
            println!("{}", left());
            0
        });
    });
}
