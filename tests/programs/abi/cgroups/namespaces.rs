//! Cgroup namespaces: what groups are called in them, and which are mounted.

use super::{apart, sleeper};
use crate::mounts::{mkdir, mount, umount};
use crate::names::rmdir;
use crate::sys::{self, in_child, put, report, report_ok};
use std::fs;

/// The line of version 2 in /proc/PID/cgroup, without the group that this is in.
fn group_of(pid: &str) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let line = all.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    let words: Vec<String> = line
        .split('/')
        .map(|word| if word.starts_with("abi-") { "abi".to_owned() } else { word.to_owned() })
        .collect();
    words.join("/")
}

/// What is shown of the file system at `place`.
fn shown_root(place: &str) -> String {
    let at = std::env::current_dir().unwrap_or_default().join(place);
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (std::path::Path::new(words.get(4)?) == at).then(|| words[3].to_owned())
    };
    info.lines().rev().find_map(of).unwrap_or_default()
}

pub(super) fn namespaces() {
    const NEWCGROUP: i32 = 0x200_0000;
    let number = || fs::read_link("/proc/self/ns/cgroup").unwrap_or_default();
    apart(|| {
        for name in ["a", "a/b", "c"] {
            report("mkdir", mkdir(name));
        }
        let elsewhere = sleeper("c");
        let own = number();
        let file = sys::open("/proc/self/ns/cgroup", libc::O_RDONLY, 0);
        in_child("inside", || {
            report_ok("join", put("a/cgroup.procs", "0"));
            let before = group_of("self");
            report("unshare", sys!(libc::SYS_unshare, NEWCGROUP));
            println!("{} another {}", group_of("self"), number() != own);
            println!("{}", group_of(&elsewhere.to_string()));
            report_ok("further in", put("a/b/cgroup.procs", "0"));
            println!("{}", group_of("self"));
            let place = format!("/tmp/abi-cgroup-{}", std::process::id());
            mkdir(&place);
            report("mount", mount("none", &place, "cgroup2", 0, ""));
            println!("{:?} {}", fs::exists(format!("{place}/b/cgroup.procs")).ok(), shown_root(&place));
            in_child("inherited", || {
                println!("{}", group_of("self"));
                0
            });
            report_ok("out", put("c/cgroup.procs", "0"));
            println!("{}", group_of("self"));
            report("back", sys!(libc::SYS_setns, file, NEWCGROUP));
            println!("as before {} {}", number() == own, group_of("self") == before.replace("/a", "/c"));
            println!("from outside {}", shown_root(&place).ends_with("/a"));
            umount(&place, 0);
            rmdir(&place);
            0
        });
        in_child("a user's", || {
            crate::setid::become_user(&[]);
            report("alone", sys!(libc::SYS_unshare, NEWCGROUP));
            report(
                "with users",
                sys!(libc::SYS_unshare, NEWCGROUP | libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
            );
            println!("{}", group_of("self"));
            report("mount", mount("none", "/tmp", "cgroup2", 0, ""));
            println!("{:?}", fs::exists("/tmp/cgroup.procs").ok());
            report("back", sys!(libc::SYS_setns, file, NEWCGROUP));
            0
        });
        sys::end(elsewhere);
        for name in ["c", "a/b", "a"] {
            report("rmdir", rmdir(name));
        }
    });
}
