//! Several who change the same names and files at once, and names that end in a slash. Each case goes on for a while and counts
//! what must not happen.

use crate::Case;
use crate::setid::become_user;
use crate::sys::{self, c, close, fork, open, report, scratch, show, unscratch};
use libc::AT_FDCWD;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{fs, thread};

pub(crate) const CASES: &[Case] = &[
    ("race_rename_over", rename_over),
    ("race_create", create),
    ("race_directories", directories),
    ("race_out_of_root", out_of_root),
    ("race_sticky", sticky),
    ("race_made_and_exchanged", made_and_exchanged),
    ("race_written_and_mapped", written_and_mapped),
    ("name_final_slash", final_slash),
];

/// How long each goes on.
const WHILE: Duration = Duration::from_millis(300);

fn rename(old: &str, new: &str, flags: u32) -> i64 {
    let (old, new) = (c(old), c(new));
    sys!(libc::SYS_renameat2, AT_FDCWD, old.as_ptr(), AT_FDCWD, new.as_ptr(), flags)
}

fn at_path(call: i64, path: &str, last: u64) -> i64 {
    let path = c(path);
    sys!(call, AT_FDCWD, path.as_ptr(), last)
}

/// Runs all of `bodies` again and again until the time is over.
fn together(bodies: &[&(dyn Fn() + Sync)]) {
    let end = Instant::now() + WHILE;
    thread::scope(|scope| {
        for body in bodies {
            scope.spawn(move || {
                while Instant::now() < end {
                    body();
                }
            });
        }
    });
}

/// A name is replaced by several: it is always there, and each who replaces it can.
fn rename_over() {
    scratch("over");
    fs::write("target", "x").expect("a file");
    let failed = [const { AtomicU64::new(0) }; 3];
    let replace = |own: &str| {
        let _new = fs::write(own, "x");
        if rename(own, "target", 0) != 0 {
            failed[0].fetch_add(1, SeqCst);
        }
    };
    let refused = || {
        let _new = fs::write("third", "x");
        if rename("third", "target", libc::RENAME_NOREPLACE) != -i64::from(libc::EEXIST) {
            failed[1].fetch_add(1, SeqCst);
        }
    };
    let read = || {
        if fs::read("target").is_err() {
            failed[2].fetch_add(1, SeqCst);
        }
    };
    together(&[&|| replace("first"), &|| replace("second"), &refused, &read]);
    println!("failed {:?}", failed.map(|count| count.load(SeqCst)));
    unscratch();
}

/// A name is made if it is not there, and removed.
fn create() {
    scratch("create");
    let failed = AtomicU64::new(0);
    let make = || {
        let fd = open("lock", libc::O_CREAT | libc::O_RDWR, 0o600);
        if fd < 0 {
            failed.fetch_add(1, SeqCst);
        }
        close(fd);
    };
    together(&[&make, &make, &|| _ = fs::remove_file("lock")]);
    println!("failed {}", failed.load(SeqCst));
    unscratch();
}

/// Two directories are moved into each other: neither ends inside itself.
fn directories() {
    scratch("cycle");
    fs::create_dir("a").and(fs::create_dir("b")).expect("directories");
    let kept = fs::File::open("a").expect("a directory");
    let there = || {
        rename("a", "b/a", 0);
        rename("a/b", "b", 0);
    };
    let back = || {
        rename("b/a", "a", 0);
        rename("b", "a/b", 0);
    };
    let named = || _ = fs::read_link(format!("/proc/self/fd/{}", kept.as_raw_fd()));
    together(&[&there, &back, &named]);
    back();
    there();
    let path = fs::read_link(format!("/proc/self/fd/{}", kept.as_raw_fd())).expect("its name");
    let same = fs::metadata(path).map(|meta| meta.ino()).ok() == kept.metadata().map(|meta| meta.ino()).ok();
    println!("found by its name: {same}");
    unscratch();
}

/// A directory is moved out of what openat2(2) is confined to, while it goes up from there.
fn out_of_root() {
    scratch("confined");
    fs::create_dir_all("root/a/b/c").and(fs::create_dir("out")).expect("directories");
    fs::write("outside", "x").expect("a file");
    let root = fs::File::open("root").expect("a directory");
    let (escaped, tries) = (AtomicU64::new(0), AtomicU64::new(0));
    // struct open_how of openat2(2): flags, mode, resolve; RESOLVE_BENEATH and RESOLVE_IN_ROOT.
    let look = |resolve: u64, path: &str| {
        let (path, how) = (c(path), [libc::O_RDONLY as u64, 0, resolve]);
        let fd = sys!(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), how.as_ptr(), 24);
        tries.fetch_add(1, SeqCst);
        if fd >= 0 {
            escaped.fetch_add(1, SeqCst);
            close(fd);
        }
    };
    let own = std::env::current_dir().expect("a working directory");
    let long = format!("a/b/c/../../../../../../../..{}/outside", own.display());
    together(&[
        &|| {
            rename("root/a/b", "out/b", 0);
            rename("out/b", "root/a/b", 0);
        },
        &|| look(8, "a/b/c/../../../outside"),
        &|| look(16, &long),
    ]);
    println!("outside: {} (tried: {})", escaped.load(SeqCst), tries.load(SeqCst) > 10);
    unscratch();
}

/// In a directory with the sticky bit nobody takes what is another's away.
fn sticky() {
    scratch("sticky");
    fs::set_permissions(".", fs::Permissions::from_mode(0o1777)).expect("permissions");
    let thief = fork(|| {
        become_user(&[]);
        loop {
            let _own = fs::write("other", "");
            rename("other", "file", 0);
            let _own = fs::remove_file("file");
        }
    });
    let mut lost = 0;
    let end = Instant::now() + WHILE;
    while Instant::now() < end {
        let Ok(file) = fs::File::create_new("file") else { continue };
        thread::yield_now();
        lost += u64::from(file.metadata().map_or(0, |meta| meta.nlink()) != 1);
        let _own = fs::remove_file("file");
    }
    sys::end(thief);
    println!("lost {lost}");
    unscratch();
}

/// What a user makes becomes the user's, and nothing else does, whatever is exchanged meanwhile.
fn made_and_exchanged() {
    scratch("made");
    const USER: u32 = 1000;
    fs::create_dir("dir").and(fs::create_dir("dir/roots")).expect("directories");
    let made = sys!(libc::SYS_mknodat, AT_FDCWD, c("fifo").as_ptr(), libc::S_IFIFO | 0o600, 0);
    report("a FIFO of root's", made);
    fs::hard_link("fifo", "dir/roots-fifo").expect("a link");
    fs::set_permissions("dir/roots", fs::Permissions::from_mode(0o700)).expect("permissions");
    chown("dir", Some(USER), Some(USER)).expect("an owner");
    let (kept, fifo) =
        (fs::File::open("dir/roots").expect("a directory"), fs::metadata("fifo").expect("a FIFO"));
    let user = fork(|| {
        become_user(&[]);
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(SeqCst) {
                    rename("dir/new", "dir/roots", libc::RENAME_EXCHANGE);
                    rename("dir/pipe", "dir/roots-fifo", libc::RENAME_EXCHANGE);
                }
            });
            let until = Instant::now() + WHILE;
            while Instant::now() < until {
                at_path(libc::SYS_mkdirat, "dir/new", 0o777);
                at_path(libc::SYS_unlinkat, "dir/new", libc::AT_REMOVEDIR as u64);
                at_path(libc::SYS_mknodat, "dir/pipe", u64::from(libc::S_IFIFO | 0o666));
                at_path(libc::SYS_unlinkat, "dir/pipe", 0);
            }
            end.store(true, SeqCst);
        });
        0
    });
    println!("user {}", sys::wait(user));
    let now = fs::metadata("fifo").map_or((1, 1), |meta| (meta.uid(), meta.mode() & 0o777));
    println!("root's directory is {}'s", kept.metadata().map_or(1, |meta| meta.uid()));
    println!("root's FIFO is {}'s, {:o}, before {:o}", now.0, now.1, fifo.mode() & 0o777);
    unscratch();
}

/// A file is written to by a mapping, then by a call, while others ask for what the mapping has to be written.
fn written_and_mapped() {
    scratch("mapped");
    let file =
        fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open("f").expect("a file");
    file.set_len(8192).expect("a length");
    let mapped = sys!(
        libc::SYS_mmap,
        0,
        8192,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
        file.as_raw_fd(),
        0
    );
    // SAFETY: a mapping of two pages, which stays; what is in it is an integer for whoever looks.
    let word = unsafe { &*(mapped as *const AtomicU64) };
    let lost = AtomicU64::new(0);
    let number = AtomicU64::new(0);
    let write = || {
        let next = number.fetch_add(2, SeqCst) + 2;
        word.store(next, SeqCst);
        let _all = file.write_all_at(&(next + 1).to_ne_bytes(), 0);
        let mut found = [0; 8];
        let _all = file.read_exact_at(&mut found, 0);
        let kept = u64::from_ne_bytes(found) == next + 1 && word.load(SeqCst) == next + 1;
        lost.fetch_add(u64::from(!kept), SeqCst);
    };
    let ask = || {
        sys!(libc::SYS_msync, mapped, 4096, libc::MS_SYNC);
        let _all = file.read_at(&mut [0; 8], 0);
    };
    together(&[&write, &ask, &|| _ = file.sync_all()]);
    println!("lost {}", lost.load(SeqCst));
    unscratch();
}

/// A name that is made, removed or moved is the last one of the path, slash or not, and a link there is not followed.
fn final_slash() {
    scratch("slash");
    let all = || {
        for name in ["dir", "other"] {
            let _there = fs::create_dir(name);
        }
        let _file = fs::write("file", "x");
        for (target, link) in [("dir", "link"), ("none", "dangling"), ("file", "to-file")] {
            let _there = std::os::unix::fs::symlink(target, link);
        }
    };
    for name in ["file/", "dangling/", "link/", "new/"] {
        all();
        let target = c(name);
        let link = sys!(libc::SYS_symlinkat, c("x").as_ptr(), AT_FDCWD, target.as_ptr());
        let hard = sys!(libc::SYS_linkat, AT_FDCWD, c("file").as_ptr(), AT_FDCWD, target.as_ptr(), 0);
        let fifo = at_path(libc::SYS_mknodat, name, u64::from(libc::S_IFIFO | 0o600));
        println!("{name}: symlink {} link {} mknod {}", show(link), show(hard), show(fifo));
        report("mkdir", at_path(libc::SYS_mkdirat, name, 0o700));
        let _new = fs::remove_dir("new");
    }
    for name in ["link/", "dangling/", "file/", "dir/", "none/"] {
        all();
        println!("{name}: unlink {}", show(at_path(libc::SYS_unlinkat, name, 0)));
        report("rmdir", at_path(libc::SYS_unlinkat, name, libc::AT_REMOVEDIR as u64));
    }
    for (old, new) in [
        ("link/", "x"),
        ("file/", "x"),
        ("file", "link/"),
        ("other", "link/"),
        ("other", "dangling/"),
        ("other", "file/"),
        ("file", "new/"),
        ("file/", "other"),
        ("dir/", "new/"),
    ] {
        for flags in [0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE] {
            all();
            println!("{old} to {new}, {flags}: {}", show(rename(old, new, flags)));
            let _new = fs::remove_dir("new");
        }
    }
    for flags in [libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_CREAT | libc::O_NOFOLLOW] {
        for name in
            ["dir/", "link/", "dangling/", "file/", "to-file/", "new/", "link", "dangling", "/", "dir/.", "."]
        {
            all();
            let fd = open(name, flags, 0o600);
            println!("open {name} {flags:#o}: {}", if fd >= 0 { "opened".to_owned() } else { show(fd) });
            close(fd);
            let _none = fs::remove_file("none");
        }
    }
    unscratch();
}
