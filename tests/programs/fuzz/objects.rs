//! What has a state of its own, by calls in an order that makes sense now and then: namespaces and who is what in them, mounts,
//! control groups, tracers and tracees, interfaces, names in directories of the sandbox's and the host's.
//!
//! `calls` hardly ever gets there: of a hundred mounts made of chance none is one. Here each step is nearly right.

use crate::links::Links;
use crate::sys;
use crate::table::Kind;
use crate::values::Values;
use std::ffi::{CString, c_char};

/// Steps of one process.
const STEPS: usize = 250;
/// Children that it has at a time.
const CHILDREN: usize = 4;
/// Who half of the processes are.
const USER: u32 = 1000;
/// Where the harness has mounted something of the host's, if it has.
const VOLUME: &str = "/vol";
/// Control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// One process, and what it knows of.
struct Chance {
    values: Values,
    children: Vec<i64>,
    /// Descriptors of directories, namespaces and files that it has opened.
    opened: Vec<i64>,
}

/// A kind of step.
type Step = fn(&mut Chance);

/// Each as often as it is here.
const ALL: [Step; 23] = [
    Chance::name,
    Chance::name,
    Chance::name,
    Chance::name,
    Chance::content,
    Chance::content,
    Chance::open,
    Chance::mount,
    Chance::mount,
    Chance::mount,
    Chance::unmount,
    Chance::enter,
    Chance::enter,
    Chance::map,
    Chance::group,
    Chance::group,
    Chance::child,
    Chance::trace,
    Chance::trace,
    Chance::trace,
    Chance::link,
    Chance::link,
    Chance::talk,
];

/// Makes steps until it is over or dead.
pub(crate) fn victim(seed: u64) -> i32 {
    let mut chance = Chance { values: Values::new(seed), children: Vec::new(), opened: Vec::new() };
    for (what, limit) in [(libc::RLIMIT_NOFILE, 256_u64), (libc::RLIMIT_FSIZE, 16 << 20)] {
        sys!(libc::SYS_prlimit64, 0, what, [limit; 2].as_ptr(), 0);
    }
    sys!(libc::SYS_chdir, c"/tmp/fuzz".as_ptr());
    // What it mounts nobody else hears of: whoever runs this has its files there.
    let own = if seed % 4 < 2 {
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresgid, USER, USER, USER);
        sys!(libc::SYS_setresuid, USER, USER, USER);
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let entered = sys!(libc::SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
        for (name, text) in [("setgroups", "deny"), ("uid_map", "0 1000 1"), ("gid_map", "0 1000 1")] {
            write(&format!("/proc/self/{name}"), text);
        }
        entered
    } else {
        sys!(libc::SYS_unshare, libc::CLONE_NEWNS)
    };
    if own != 0 {
        return 1;
    }
    sys!(libc::SYS_mount, c"none".as_ptr(), c"/".as_ptr(), 0, libc::MS_REC | libc::MS_SLAVE, 0);
    chance.steps(STEPS);
    0
}

fn write(path: &str, text: &str) {
    let path = CString::new(path).unwrap_or_default();
    let fd = sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK);
    if fd >= 0 {
        sys!(libc::SYS_write, fd, text.as_ptr(), text.len());
        sys!(libc::SYS_close, fd);
    }
}

impl Chance {
    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let step = self.one(&ALL);
            step(self);
            if self.opened.len() > 100 {
                let fd = self.opened.swap_remove(self.values.rng.usize(0..100));
                sys!(libc::SYS_close, fd);
            }
            // Whoever has ended makes room for others, if no tracer wants to hear of it.
            while let Some((pid, _)) = sys::reap() {
                self.children.retain(|child| *child != i64::from(pid));
            }
        }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.values.rng.usize(0..of.len())]
    }

    fn some(&mut self, of: &[u64]) -> u64 {
        (0..self.values.rng.u8(0..3)).fold(0, |all, _| all | self.one(of))
    }

    /// A few names, so that they meet.
    fn path(&mut self) -> CString {
        let place = self.one(&["", "", "", VOLUME, "/tmp/fuzz", "m", "n"]);
        let parts: Vec<&str> =
            (0..self.values.rng.usize(1..4)).map(|_| self.one(&["a", "b", "c", "m", ".."])).collect();
        let path = if place.is_empty() { parts.join("/") } else { format!("{place}/{}", parts.join("/")) };
        CString::new(path).unwrap_or_default()
    }

    /// Where names begin: here, or at something opened.
    fn base(&mut self) -> i64 {
        match self.values.rng.u8(0..4) {
            0 if !self.opened.is_empty() => {
                let at = self.values.rng.usize(0..self.opened.len());
                self.opened[at]
            }
            _ => i64::from(libc::AT_FDCWD),
        }
    }

    /// Makes, moves or removes a name.
    fn name(&mut self) {
        let (old, new) = (self.path(), self.path());
        let (from, to) = (self.base(), self.base());
        let (old, new) = (old.as_ptr(), new.as_ptr());
        match self.values.rng.u8(0..12) {
            0..3 => sys!(libc::SYS_mkdirat, from, old, 0o777),
            3..6 => {
                let flags = self.one(&[0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]);
                sys!(libc::SYS_renameat2, from, old, to, new, flags)
            }
            6 => sys!(libc::SYS_linkat, from, old, to, new, 0),
            7 => sys!(libc::SYS_symlinkat, old, to, new),
            8 => sys!(
                libc::SYS_mknodat,
                from,
                old,
                self.one(&[libc::S_IFIFO, libc::S_IFREG, libc::S_IFSOCK]) | 0o666
            ),
            9 => sys!(libc::SYS_unlinkat, from, old, 0),
            10 => sys!(libc::SYS_unlinkat, from, old, libc::AT_REMOVEDIR),
            _ => sys!(libc::SYS_fchmodat, from, old, self.one(&[0, 0o700, 0o4777, 0o2777, 0o1777])),
        };
    }

    fn open(&mut self) {
        let (base, path) = (self.base(), self.path());
        let flags =
            [libc::O_CREAT, libc::O_DIRECTORY, libc::O_PATH, libc::O_TRUNC, libc::O_APPEND, libc::O_TMPFILE];
        let flags =
            self.some(&flags.map(|flag| flag as u64)) | self.values.rng.u64(0..3) | libc::O_NONBLOCK as u64;
        let fd = sys!(libc::SYS_openat, base, path.as_ptr(), flags, 0o666);
        if fd >= 0 {
            self.opened.push(fd);
        }
    }

    /// Does something with what a file holds.
    fn content(&mut self) {
        let fd = self.base();
        let (at, len) = (self.values.rng.u64(0..1 << 16), self.values.rng.u64(0..1 << 14));
        let bytes = self.values.argument(&Kind::Memory);
        match self.values.rng.u8(0..9) {
            0 => sys!(libc::SYS_pwrite64, fd, bytes, len, at),
            1 => sys!(libc::SYS_pread64, fd, bytes, len, at),
            2 => sys!(libc::SYS_ftruncate, fd, at),
            3 => sys!(libc::SYS_fallocate, fd, self.values.rng.u8(0..8), at, len),
            4 => sys!(libc::SYS_getdents64, fd, bytes, 512),
            5 => sys!(libc::SYS_flock, fd, self.one(&[1, 2, 8]) | 4),
            6 => sys!(libc::SYS_fsync, fd),
            7 => sys!(libc::SYS_fsetxattr, fd, c"user.a".as_ptr(), bytes, len & 127, 0),
            _ => {
                let mapped = sys!(
                    libc::SYS_mmap,
                    0,
                    len + 1,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    fd,
                    at & !4095
                );
                if mapped > 0 {
                    sys!(libc::SYS_madvise, mapped, len, self.one(&[4, 9, 22, 23]));
                    sys!(libc::SYS_munmap, mapped, len + 1);
                }
                0
            }
        };
    }

    fn mount(&mut self) {
        let (from, to) = (self.path(), self.path());
        let kind =
            self.one(&[c"tmpfs", c"tmpfs", c"ramfs", c"proc", c"sysfs", c"devpts", c"cgroup2", c"devtmpfs"]);
        let data = self.one(&[c"", c"size=64k", c"nr_inodes=5", c"mode=700", c"size=9e9", c"uid=7"]);
        let (bind, rec, change) = (libc::MS_BIND, libc::MS_REC, libc::MS_REMOUNT);
        let flags = [libc::MS_RDONLY, libc::MS_NOSUID, libc::MS_NOEXEC, libc::MS_NODEV, libc::MS_NOATIME];
        let flags = self.some(&flags);
        let (from, to, kind) = (from.as_ptr(), to.as_ptr(), kind.as_ptr());
        let none = std::ptr::null::<c_char>();
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, to, 0o777);
        match self.values.rng.u8(0..14) {
            0..4 => sys!(libc::SYS_mount, kind, to, kind, flags, data.as_ptr()),
            4 | 5 => sys!(libc::SYS_mount, from, to, none, bind, 0),
            6 => sys!(libc::SYS_mount, from, to, none, bind | rec, 0),
            7 => sys!(libc::SYS_mount, c"/".as_ptr(), to, none, bind | rec, 0),
            8 => sys!(libc::SYS_mount, from, to, none, libc::MS_MOVE, 0),
            9 => sys!(libc::SYS_mount, none, to, none, change | bind | flags, 0),
            10 => sys!(libc::SYS_mount, none, to, none, change | flags, data.as_ptr()),
            11 => sys!(libc::SYS_pivot_root, from, to),
            12 => sys!(libc::SYS_chroot, to),
            _ => {
                let kinds = [libc::MS_SHARED, libc::MS_PRIVATE, libc::MS_SLAVE, libc::MS_UNBINDABLE];
                let place = if self.values.rng.bool() { to } else { c"/".as_ptr() };
                sys!(libc::SYS_mount, none, place, none, self.one(&kinds) | self.one(&[0, rec]), 0)
            }
        };
    }

    fn unmount(&mut self) {
        let path = self.path();
        sys!(libc::SYS_umount2, path.as_ptr(), self.one(&[0, 1, 2, 2, 4, 8]));
    }

    /// Gets namespaces of its own, or goes where somebody else is.
    fn enter(&mut self) {
        let kinds = [
            (libc::CLONE_NEWUSER, "user"),
            (libc::CLONE_NEWNS, "mnt"),
            (libc::CLONE_NEWPID, "pid_for_children"),
            (libc::CLONE_NEWNET, "net"),
            (libc::CLONE_NEWUTS, "uts"),
            (libc::CLONE_NEWIPC, "ipc"),
        ];
        let (flag, name) = self.one(&kinds);
        if self.values.rng.u8(0..3) == 0 {
            let more = self.some(&kinds.map(|(flag, _)| flag as u64));
            sys!(libc::SYS_unshare, flag as u64 | more);
            return;
        }
        let who = self.somebody();
        let path = CString::new(format!("/proc/{who}/ns/{name}")).unwrap_or_default();
        let fd = sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY);
        if fd >= 0 {
            sys!(libc::SYS_setns, fd, self.one(&[0, flag]));
            self.opened.push(fd);
        }
        let fd = sys!(libc::SYS_pidfd_open, who, 0);
        if fd >= 0 {
            sys!(libc::SYS_setns, fd, self.some(&kinds.map(|(flag, _)| flag as u64)));
            sys!(libc::SYS_close, fd);
        }
    }

    /// Makes and changes interfaces, and what leads by them.
    fn link(&mut self) {
        let (children, opened) = (&self.children, &self.opened);
        Links { values: &mut self.values, children, opened }.ask();
    }

    /// Sends something by them.
    fn talk(&mut self) {
        let (children, opened) = (&self.children, &self.opened);
        Links { values: &mut self.values, children, opened }.talk();
    }

    /// Says what ids are called, where it can.
    fn map(&mut self) {
        let who = self.somebody();
        let name = self.one(&["uid_map", "gid_map", "projid_map", "setgroups"]);
        let text = self.one(&["0 1000 1", "0 0 1", "0 0 65536", "deny", "5 0 1\n0 5 1", "0 0 4294967295"]);
        write(&format!("/proc/{who}/{name}"), text);
        let id = self.one(&[0, 5, 1000]);
        match self.values.rng.u8(0..8) {
            0 => sys!(libc::SYS_setresuid, id, id, id),
            1 => sys!(libc::SYS_setresgid, id, id, id),
            _ => 0,
        };
    }

    /// Makes, fills, limits and empties control groups.
    fn group(&mut self) {
        let name = self.one(&["a", "b", "a/b", "a/b/c"]);
        let path = format!("{GROUPS}/{name}");
        let dir = CString::new(path.clone()).unwrap_or_default();
        match self.values.rng.u8(0..8) {
            0 | 1 => _ = sys!(libc::SYS_mkdirat, libc::AT_FDCWD, dir.as_ptr(), 0o777),
            2 => _ = sys!(libc::SYS_unlinkat, libc::AT_FDCWD, dir.as_ptr(), libc::AT_REMOVEDIR),
            3 | 4 => write(&format!("{path}/cgroup.procs"), &self.somebody().to_string()),
            5 => write(
                &format!("{GROUPS}/cgroup.subtree_control"),
                self.one(&["+memory", "+pids", "-pids", "+cpu"]),
            ),
            _ => {
                let file = self.one(&[
                    "memory.max",
                    "pids.max",
                    "cgroup.freeze",
                    "cgroup.kill",
                    "cpu.max",
                    "cgroup.type",
                ]);
                write(
                    &format!("{path}/{file}"),
                    self.one(&["0", "1", "max", "100", "1000000", "threaded", "10 1000"]),
                );
            }
        }
    }

    /// Itself, one of its own, or somebody beside it; never who runs all this.
    fn somebody(&mut self) -> i64 {
        match self.values.rng.u8(0..4) {
            0 => self.values.rng.i64(2..40),
            1 => std::process::id().into(),
            _ if self.children.is_empty() => std::process::id().into(),
            _ => {
                let at = self.values.rng.usize(0..self.children.len());
                self.children[at]
            }
        }
    }

    /// Has one more child, in namespaces of its own perhaps, that goes on by itself.
    fn child(&mut self) {
        if self.children.len() >= CHILDREN {
            let which = self.values.rng.usize(0..CHILDREN);
            let signal = self.one(&[libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT]);
            sys!(libc::SYS_kill, self.children[which], signal);
            return;
        }
        let kinds = [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWUTS,
        ];
        let flags = self.some(&kinds.map(|flag| flag as u64)) | libc::SIGCHLD as u64;
        let made = sys!(libc::SYS_clone, flags, 0, 0, 0, 0);
        if made == 0 {
            self.children.clear();
            if self.values.rng.bool() {
                sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0);
            }
            sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let count = self.values.rng.usize(0..STEPS / 4);
            self.steps(count);
            let exe = c"/proc/self/exe".as_ptr();
            sys!(libc::SYS_execve, exe, [exe, c"none".as_ptr(), std::ptr::null()].as_ptr(), 0);
            sys!(libc::SYS_exit_group, 0);
        }
        if made > 0 {
            self.children.push(made);
        }
    }

    /// Asks something of a tracee.
    fn trace(&mut self) {
        const REQUESTS: [u32; 27] = [
            1, 2, 4, 5, 7, 7, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 24, 0x4200, 0x4202, 0x4203, 0x4204,
            0x4205, 0x4206, 0x4206, 0x4207, 0x4208, 0x420e,
        ];
        let who = self.somebody();
        let request = self.one(&REQUESTS);
        let (own, any) = (self.values.argument(&Kind::Memory), self.values.argument(&Kind::Number));
        let (addr, data) = match request {
            // Registers as they are, but for one of them.
            13 => {
                sys!(libc::SYS_ptrace, 12, who, 0, own);
                (0, own)
            }
            0x4204 | 0x4205 => (self.one(&[1, 2, 0x202, 0x404, any]), own),
            0x4200 | 0x4206 => (0, self.values.rng.u64(0..256) | self.one(&[0, 0, 1 << 20])),
            7 | 17 | 24 | 9 => (0, self.one(&[0, 0, 5, 9, 19, 18, 11, any])),
            _ => (own, any),
        };
        sys!(libc::SYS_ptrace, request, who, addr, data);
        if self.values.rng.bool() {
            let mut status = 0_i32;
            sys!(libc::SYS_wait4, who, &raw mut status, libc::WNOHANG | libc::__WALL, 0);
        }
    }
}

/// Takes away what control groups are left, for the next round.
pub(crate) fn clear() {
    for name in ["a/b/c", "a/b", "a", "b"] {
        write(&format!("{GROUPS}/{name}/cgroup.freeze"), "0");
        let _left = std::fs::remove_dir(format!("{GROUPS}/{name}"));
    }
    for name in ["a", "b", "c", "m"] {
        let path = format!("{VOLUME}/{name}");
        let _left = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
}
