//! Control groups, version 2: the hierarchy itself. Controllers are the machine's, which has most of them in version 1 perhaps:
//! what they do is shown in `containers`.

mod namespaces;

use crate::Case;
use crate::mounts::{mkdir, mount, umount};
use crate::names::rmdir;
use crate::sys::{self, c, in_child, put, report, report_ok};
use std::fs;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("cgroups_names", names),
    ("cgroups_members", members),
    ("cgroups_zombies", zombies),
    ("cgroups_freeze", freeze),
    ("cgroups_frozen_calls", frozen_calls),
    ("cgroups_frozen_forks", frozen_forks),
    ("cgroups_kill", kill),
    ("cgroups_values", values),
    ("cgroups_limits", limits),
    ("cgroups_owners", owners),
    ("cgroups_mounts", mounts),
    ("cgroups_into", into),
    ("cgroups_namespaces", namespaces::namespaces),
];

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .map_or_else(|error| format!("{:?}", error.raw_os_error()), |text| text.replace('\n', " "))
}

/// Whether a file comes to say something.
fn becomes(path: &str, wanted: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if text(path).contains(wanted) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Runs a body in a group of its own, the working directory.
fn apart(body: impl FnOnce()) {
    sys::scratch("cgroups");
    in_child("apart", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNS));
        let private = libc::MS_REC | libc::MS_PRIVATE;
        report("private", mount("", "/", "", private, ""));
        report("mount", mount("none", ".", "cgroup2", 0, ""));
        let here = std::env::current_dir().unwrap_or_default();
        let own = here.join(format!("abi-{}", std::process::id()));
        report("mkdir", mkdir(&own.to_string_lossy()));
        let _entered = std::env::set_current_dir(&own);
        body();
        let _left = std::env::set_current_dir("/");
        report("rmdir", rmdir(&own.to_string_lossy()));
        0
    });
    sys::unscratch();
}

/// A child that joins a group and sleeps.
fn sleeper(group: &str) -> i64 {
    let procs = format!("{group}/cgroup.procs");
    let child = sys::fork(|| {
        std::thread::sleep(Duration::from_secs(100));
        0
    });
    report_ok("join", put(&procs, &child.to_string()));
    child
}

fn names() {
    apart(|| {
        report("mkdir", mkdir("a"));
        report("again", mkdir("a"));
        report("as a file", mkdir("cgroup.procs"));
        report("line", mkdir("a\nb"));
        report_ok("in it", mkdir("a/b"));
        report("not empty", rmdir("a"));
        report("file", sys::open("x", libc::O_CREAT | libc::O_WRONLY, 0o644));
        report("tmpfile", sys::open(".", libc::O_TMPFILE | libc::O_WRONLY, 0o644));
        report("fifo", sys!(libc::SYS_mknodat, -100, c("f").as_ptr(), libc::S_IFIFO | 0o644, 0));
        report("symlink", sys!(libc::SYS_symlinkat, c("a").as_ptr(), -100, c("l").as_ptr()));
        report("link", sys!(libc::SYS_linkat, -100, c("cgroup.procs").as_ptr(), -100, c("p").as_ptr(), 0));
        report("unlink", sys!(libc::SYS_unlinkat, -100, c("cgroup.procs").as_ptr(), 0));
        report("rename", sys!(libc::SYS_renameat, -100, c("a").as_ptr(), -100, c("z").as_ptr()));
        report("rename", sys!(libc::SYS_renameat, -100, c("cgroup.procs").as_ptr(), -100, c("z").as_ptr()));
        let links =
            |path: &str| fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::nlink(&meta));
        println!("links {} {}", links("."), links("a"));
        println!("{} {}", text("cgroup.stat").contains("nr_descendants 2 "), text("a/cgroup.type"));
        for name in
            ["cgroup.procs", "cgroup.events", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control"]
        {
            let meta = fs::metadata(name).map(|meta| std::os::unix::fs::MetadataExt::mode(&meta));
            println!("{name} {:o}", meta.unwrap_or(0));
        }
        report("rmdir", rmdir("a/b"));
        let open = sys::open("a/cgroup.procs", libc::O_RDONLY, 0);
        report("rmdir", rmdir("a"));
        report("read of what is gone", sys::read(open, 10).0);
        report("gone", rmdir("a"));
    });
}

fn own_path(pid: i64) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let line = all.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    // Below the group that the case is in.
    line.split_once("/abi-")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or("", |(_, rest)| rest)
        .to_owned()
}

fn members() {
    apart(|| {
        mkdir("a");
        mkdir("b");
        println!("{}", text("a/cgroup.events"));
        let child = sleeper("a");
        println!("{} {}", text("a/cgroup.procs") == format!("{child} "), own_path(child));
        println!("{}, {}, {}", text("a/cgroup.events"), text("cgroup.events"), text("b/cgroup.events"));
        println!("{}", text("a/cgroup.threads") == format!("{child} "));
        report("busy", rmdir("a"));
        report_ok("thread", put("a/cgroup.threads", &child.to_string()));
        report("thread elsewhere", put("b/cgroup.threads", &child.to_string()));
        report_ok("move", put("b/cgroup.procs", &format!("{child}\n")));
        println!("{} {} {}", own_path(child), text("a/cgroup.procs").is_empty(), text("a/cgroup.events"));
        report("rmdir", rmdir("a"));
        in_child("children are where their parents are", || {
            report_ok("self", put("b/cgroup.procs", "0"));
            in_child("child", || {
                println!("{}", own_path(i64::from(std::process::id())));
                0
            });
            println!("{}", text("b/cgroup.procs").split_whitespace().count());
            0
        });
        sys::end(child);
        println!("{}", becomes("b/cgroup.events", "populated 0"));
        report("rmdir", rmdir("b"));
    });
}

fn zombies() {
    apart(|| {
        mkdir("a");
        let child = sleeper("a");
        sys!(libc::SYS_kill, child, libc::SIGKILL);
        println!("{} {}", becomes("a/cgroup.events", "populated 0"), text("a/cgroup.procs").is_empty());
        report("rmdir", rmdir("a"));
        println!("{}", own_path(child));
        println!("{}", sys::wait(child));
    });
}

/// A child that counts in shared memory.
fn counter(group: &str, at: i64) -> i64 {
    let child = sys::fork(|| {
        loop {
            sys::store::<u64>(at, sys::load::<u64>(at).wrapping_add(1));
        }
    });
    report_ok("join", put(&format!("{group}/cgroup.procs"), &child.to_string()));
    child
}

fn shared() -> i64 {
    sys::mmap(0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
}

fn counts(at: i64) -> bool {
    let before = sys::load::<u64>(at);
    std::thread::sleep(Duration::from_millis(100));
    sys::load::<u64>(at) != before
}

fn freeze() {
    apart(|| {
        mkdir("a");
        mkdir("a/b");
        let at = shared();
        let child = counter("a/b", at);
        println!("{} {}", text("a/cgroup.freeze"), counts(at));
        report_ok("freeze", put("a/cgroup.freeze", "1"));
        println!("{} {}", becomes("a/cgroup.events", "frozen 1"), becomes("a/b/cgroup.events", "frozen 1"));
        println!("{} {} {}", text("a/cgroup.freeze"), text("a/b/cgroup.freeze"), counts(at));
        report_ok("inner", put("a/b/cgroup.freeze", "1"));
        report_ok("thaw outer", put("a/cgroup.freeze", "0"));
        println!("{} {}", becomes("a/b/cgroup.events", "frozen 1"), counts(at));
        report_ok("thaw", put("a/b/cgroup.freeze", "0\n"));
        println!("{} {}", becomes("a/b/cgroup.events", "frozen 0"), counts(at));
        report_ok("freeze", put("a/b/cgroup.freeze", "1"));
        println!("{}", becomes("a/b/cgroup.events", "frozen 1"));
        report_ok("out", put("a/cgroup.procs", &child.to_string()));
        println!("{}", counts(at));
        report_ok("in", put("a/b/cgroup.procs", &child.to_string()));
        println!("{}", becomes("a/b/cgroup.events", "frozen 1"));
        sys::end(child);
        report("rmdir", rmdir("a/b"));
        report("rmdir", rmdir("a"));
    });
}

/// Calls that wait go on afterwards.
fn frozen_calls() {
    apart(|| {
        mkdir("a");
        let (reader, writer) = sys::pipe(0);
        let child = sys::fork(|| {
            let (count, bytes) = sys::read(reader, 10);
            i32::from(count == 2 && bytes.starts_with(b"hi"))
        });
        let sleeper = sys::fork(|| {
            let before = Instant::now();
            let half = [0_i64, 500_000_000];
            let slept = sys!(libc::SYS_nanosleep, half.as_ptr(), 0);
            i32::from(slept == 0 && before.elapsed() >= Duration::from_millis(500))
        });
        for one in [child, sleeper] {
            sys::until_asleep(one, one);
            report_ok("join", put("a/cgroup.procs", &one.to_string()));
        }
        report_ok("freeze", put("a/cgroup.freeze", "1"));
        println!("{}", becomes("a/cgroup.events", "frozen 1"));
        report("write", sys::write(writer, b"hi"));
        sys!(libc::SYS_kill, child, libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(700));
        println!("{} {}", sys::wait4(child, libc::WNOHANG).0, sys::wait4(sleeper, libc::WNOHANG).0);
        report_ok("thaw", put("a/cgroup.freeze", "0"));
        println!("{} {}", sys::wait(child), sys::wait(sleeper));
        report("rmdir", rmdir("a"));
    });
}

/// Nobody gets away by making children.
fn frozen_forks() {
    apart(|| {
        mkdir("a");
        let at = shared();
        let child = sys::fork(|| {
            report_ok("self", put("a/cgroup.procs", "0"));
            loop {
                let one = sys::fork(|| 0);
                sys::wait4(one, 0);
                sys::store::<u64>(at, sys::load::<u64>(at).wrapping_add(1));
            }
        });
        while !counts(at) {}
        for _ in 0..5 {
            report_ok("freeze", put("a/cgroup.freeze", "1"));
            println!("{} {}", becomes("a/cgroup.events", "frozen 1"), counts(at));
            report_ok("thaw", put("a/cgroup.freeze", "0"));
            println!("{}", counts(at));
        }
        report_ok("freeze", put("a/cgroup.freeze", "1"));
        println!("{}", becomes("a/cgroup.events", "frozen 1"));
        report_ok("kill", put("a/cgroup.kill", "1"));
        println!("{} {}", sys::wait(child), becomes("a/cgroup.events", "populated 0"));
        report("rmdir", rmdir("a"));
    });
}

fn kill() {
    apart(|| {
        mkdir("a");
        mkdir("a/b");
        let (one, two, stopped) = (sleeper("a"), sleeper("a/b"), sleeper("a"));
        sys!(libc::SYS_kill, stopped, libc::SIGSTOP);
        println!("{}", sys::describe(sys::wait4(stopped, libc::WUNTRACED).1));
        let busy = sys::fork(|| {
            report_ok("self", put("a/cgroup.procs", "0"));
            for signal in 1..32 {
                sys::action(signal, libc::SIG_IGN, 0, &[]);
            }
            loop {
                let one = sys::fork(|| 0);
                sys::wait4(one, 0);
            }
        });
        println!("{}", becomes("a/cgroup.procs", &busy.to_string()));
        report("read", {
            let fd = sys::open("a/cgroup.kill", libc::O_RDONLY, 0);
            sys::read(fd, 10).0
        });
        report_ok("kill", put("a/cgroup.kill", "1"));
        for child in [one, two, stopped, busy] {
            println!("{}", sys::wait(child));
        }
        println!("{}", becomes("a/cgroup.events", "populated 0"));
        report_ok("nobody", put("a/cgroup.kill", "1"));
        report("rmdir", rmdir("a/b"));
        report("rmdir", rmdir("a"));
    });
}

fn values() {
    apart(|| {
        mkdir("a");
        for (file, texts) in [
            ("cgroup.freeze", &["2", "-1", "x", "", "1 1"][..]),
            ("cgroup.kill", &["0", "2", "x"]),
            ("cgroup.procs", &["x", "-1", "999999", "1x"]),
            ("cgroup.threads", &["x", "999999"]),
            ("cgroup.max.depth", &["-1", "x", "99999999999"]),
            ("cgroup.max.descendants", &["-1", "x", "99999999999"]),
            ("cgroup.subtree_control", &["+nothing", "pids", "+"]),
            ("cgroup.type", &["domain", "x"]),
            ("cgroup.events", &["1"]),
            ("cgroup.controllers", &["1"]),
        ] {
            for text in texts {
                report(&format!("{file} {text}"), put(&format!("a/{file}"), text));
            }
        }
        println!("{} {}", text("a/cgroup.max.depth"), text("a/cgroup.freeze"));
        report("rmdir", rmdir("a"));
    });
}

fn limits() {
    apart(|| {
        mkdir("a");
        report_ok("depth", put("a/cgroup.max.depth", "1"));
        println!("{}", text("a/cgroup.max.depth"));
        report("mkdir", mkdir("a/b"));
        report("too deep", mkdir("a/b/c"));
        report_ok("descendants", put("a/cgroup.max.descendants", "2\n"));
        report("mkdir", mkdir("a/c"));
        report("too many", mkdir("a/d"));
        report_ok("no limit", put("a/cgroup.max.descendants", "max"));
        report("mkdir", mkdir("a/d"));
        report("none", put("a/cgroup.max.depth", "0") - 1);
        report("none", mkdir("a/e"));
        for name in ["a/b", "a/c", "a/d", "a"] {
            report("rmdir", rmdir(name));
        }
    });
}

fn owners() {
    apart(|| {
        mkdir("a");
        mkdir("a/b");
        mkdir("a/c");
        report("chmod", sys!(libc::SYS_fchmodat, -100, c("a").as_ptr(), 0o750));
        for name in ["a/b", "a/c", "a/b/cgroup.procs", "a/c/cgroup.procs"] {
            report(name, sys!(libc::SYS_fchownat, -100, c(name).as_ptr(), 65534, 65534, 0));
        }
        report("chmod", sys!(libc::SYS_fchmodat, -100, c("a").as_ptr(), 0o755));
        let owner =
            |path: &str| fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::uid(&meta));
        println!("{} {} {}", owner("a/b"), owner("a/b/cgroup.procs"), owner("a/b/cgroup.events"));
        let child = sys::fork(|| {
            sys!(libc::SYS_setresuid, 65534, 65534, 65534);
            std::thread::sleep(Duration::from_secs(100));
            0
        });
        let as_user = |what: &str, body: &dyn Fn()| {
            in_child(what, || {
                sys!(libc::SYS_setresgid, 65534, 65534, 65534);
                sys!(libc::SYS_setresuid, 65534, 65534, 65534);
                body();
                0
            });
        };
        let id = child.to_string();
        as_user("from outside", &|| report("move", put("a/b/cgroup.procs", &id)));
        report_ok("in", put("a/b/cgroup.procs", &id));
        as_user("over what is not his", &|| report("move", put("a/c/cgroup.procs", &id)));
        report("chown", sys!(libc::SYS_fchownat, -100, c("a/cgroup.procs").as_ptr(), 65534, 65534, 0));
        as_user("within what is his", &|| {
            report_ok("move", put("a/c/cgroup.procs", &id));
            report("make", mkdir("a/c/d"));
            println!("{}", owner("a/c/d"));
            report_ok("down", put("a/c/d/cgroup.procs", &id));
            report_ok("kill", put("a/c/d/cgroup.kill", "1"));
            report("elsewhere", mkdir("a/e"));
        });
        println!("{}", sys::wait(child));
        for name in ["a/c/d", "a/c", "a/b", "a"] {
            report("rmdir", rmdir(name));
        }
    });
}

fn mounts() {
    apart(|| {
        let place = std::env::temp_dir().join(format!("abi-cgroups-{}", std::process::id()));
        let _made = fs::create_dir(&place);
        let place = place.to_string_lossy().into_owned();
        report("option", mount("none", &place, "cgroup2", 0, "what"));
        report("again", mount("none", &place, "cgroup2", 0, ""));
        let shown = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = shown.lines().find(|line| line.contains(&place)).unwrap_or_default().to_owned();
        println!("{}", line.contains(" - cgroup2 "));
        // One hierarchy, wherever it is mounted.
        mkdir("a");
        let own = std::env::current_dir().unwrap_or_default();
        let name = own.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{}", fs::metadata(format!("{place}/{name}/a")).is_ok());
        report("rmdir", rmdir(&format!("{place}/{name}/a")));
        println!("{}", fs::metadata("a").is_ok());
        let mut statfs = [0u64; 16];
        report("statfs", sys!(libc::SYS_statfs, c(&place).as_ptr(), statfs.as_mut_ptr()));
        println!(
            "{:x} {}",
            statfs[0],
            fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("nodev\tcgroup2\n")
        );
        report("umount", umount(&place, 0));
        let _gone = fs::remove_dir(&place);
    });
}

/// clone3(2) with CLONE_INTO_CGROUP.
fn into() {
    apart(|| {
        mkdir("a");
        let child_in = |fd: i64| {
            let args: [u64; 11] = [0x2_0000_0000, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, fd as u64];
            sys::flush();
            let pid = sys!(libc::SYS_clone3, args.as_ptr(), 88);
            if pid == 0 {
                println!("{}", own_path(i64::from(std::process::id())));
                sys::flush();
                sys::exit(0);
            }
            pid
        };
        let dir = sys::open("a", libc::O_RDONLY | libc::O_DIRECTORY, 0);
        let child = child_in(dir);
        println!("{}", sys::wait(child));
        let handle = sys::open("a", libc::O_PATH, 0);
        let child = child_in(handle);
        println!("{}", sys::wait(child));
        report("no descriptor", child_in(999));
        let file = sys::open("a/cgroup.procs", libc::O_RDONLY, 0);
        report("a file", child_in(file));
        let other = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0);
        report("another directory", child_in(other));
        report("rmdir", rmdir("a"));
        report("what is gone", child_in(dir));
    });
}
