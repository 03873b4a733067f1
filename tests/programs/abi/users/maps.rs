//! How user namespaces are made and what is written to their maps.

use super::{become_user, enter, groups, ids, line, mapped, root, text_of, user};
use crate::sys::{self, c, in_child, put, report, show};

const NEWUSER: i32 = libc::CLONE_NEWUSER;

pub(super) fn made() {
    user("an ordinary user", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        println!("{:?} {:?}", ids(), groups());
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let full = line(name).ends_with("ffffffffff");
            println!("{name} {}", if full { "all" } else { "none" });
        }
        println!("{:#x}", sys!(libc::SYS_prctl, libc::PR_GET_SECUREBITS));
        print!("{}{}", text_of("/proc/self/uid_map"), text_of("/proc/self/gid_map"));
        print!("{}", text_of("/proc/self/setgroups"));
        0
    });
    in_child("root, with bits set", || {
        report("bits", sys!(libc::SYS_prctl, libc::PR_SET_SECUREBITS, 0x2f));
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        println!("{:#x}", sys!(libc::SYS_prctl, libc::PR_GET_SECUREBITS));
        0
    });
    user("cloned", || {
        let flags = i64::from(NEWUSER | libc::CLONE_NEWUTS | libc::SIGCHLD);
        let pid = sys!(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            println!("{:?}", ids());
            report("sethostname", sys!(libc::SYS_sethostname, c("inside").as_ptr(), 6));
            sys::flush();
            sys::exit(3);
        }
        println!("{}", sys::wait(pid));
        report("sethostname", sys!(libc::SYS_sethostname, c("outside").as_ptr(), 7));
        0
    });
}

pub(super) fn own() {
    user("one's own", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        for line in ["0 0 1", "0 1001 1", "0 1000 2", "1 1000 1\n2 1001 1"] {
            report(&format!("{line:?}"), put("/proc/self/uid_map", line));
        }
        report("oneself", put("/proc/self/uid_map", "5 1000 1"));
        println!("{:?}", ids());
        report("groups", put("/proc/self/gid_map", "6 1000 1"));
        report("deny", put("/proc/self/setgroups", "deny"));
        report("allow", put("/proc/self/setgroups", "allow"));
        report("groups", put("/proc/self/gid_map", "6 1000 1"));
        println!("{:?}", ids());
        print!("{}{}", text_of("/proc/self/uid_map"), text_of("/proc/self/gid_map"));
        print!("{}", text_of("/proc/self/setgroups"));
        report("projects", put("/proc/self/projid_map", "0 0 10"));
        print!("{}", text_of("/proc/self/projid_map"));
        0
    });
    user("another of the same user", || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys!(libc::SYS_unshare, NEWUSER);
            sys::write(write_end, b"r");
            sys::forever()
        });
        sys::read(read_end, 1);
        let path = |name: &str| format!("/proc/{pid}/{name}");
        report("deny", put(&path("setgroups"), "deny"));
        report("users", put(&path("uid_map"), "0 1000 1"));
        report("groups", put(&path("gid_map"), "0 1000 1"));
        sys::end(pid);
        0
    });
    // It is who opens the file that counts, not whom it is given to.
    in_child("opened by another", || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            become_user(1000);
            sys!(libc::SYS_unshare, NEWUSER);
            sys::write(write_end, b"r");
            sys::forever()
        });
        sys::read(read_end, 1);
        in_child("a sister", || {
            become_user(1000);
            report("unshare", sys!(libc::SYS_unshare, NEWUSER));
            report("users", put(&format!("/proc/{pid}/uid_map"), "0 1000 1"));
            0
        });
        in_child("another user", || {
            become_user(1001);
            report("users", put(&format!("/proc/{pid}/uid_map"), "0 1001 1"));
            0
        });
        sys::end(pid);
        0
    });
    report("of the first", put("/proc/self/uid_map", "0 0 1"));
    report("deny", put("/proc/self/setgroups", "deny"));
    report("allow", put("/proc/self/setgroups", "allow"));
}

pub(super) fn text() {
    let lines = |count: u32| (0..count).map(|at| format!("{at} {at} 1\n")).collect::<String>();
    let long = format!("0 0 1{}", " ".repeat(4091));
    let most = lines(340);
    let more = lines(341);
    let all = [
        "",
        "\n",
        "0",
        "0 0",
        "0 0 0",
        "0 0 1 1",
        "a 0 1",
        "0 -1 1",
        "0 0 1 ",
        "4294967295 0 1",
        "0 4294967295 1",
        "1 0 4294967295",
        "0 1 4294967295",
        "0 0 2\n1 5 1",
        "0 0 2\n5 1 1",
        "0 0 1\n\n1 1 1",
        "  7\t8  9  \n",
        "0 0 4294967295",
        "0 100 10\n10 0 100\n",
        "0 0 1\n1 1 1\n\n",
        &long,
        &most,
        &more,
    ];
    for line in all {
        in_child(&line.chars().take(40).collect::<String>().escape_default().to_string(), || {
            report("unshare", sys!(libc::SYS_unshare, NEWUSER));
            println!("{}", show(put("/proc/self/uid_map", line).min(1)));
            print!(
                "{}",
                text_of("/proc/self/uid_map").lines().take(3).map(|l| format!("{l}\n")).collect::<String>()
            );
            0
        });
    }
    in_child("not from the start", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        let fd = sys::open("/proc/self/uid_map", libc::O_WRONLY, 0);
        report("seek", sys!(libc::SYS_lseek, fd, 3, libc::SEEK_SET));
        report("there", sys::write(fd, b"0 0 1"));
        report("back", sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET));
        report("bad", sys::write(fd, b"0 0 x"));
        report("good", sys::write(fd, b"0 0 1"));
        report("again", sys::write(fd, b"0 0 1"));
        0
    });
    for text in ["deny", "allow", "deny\n", " deny", "denyx", "", "deny    ", "deny      ", "no"] {
        in_child(&format!("{text:?}"), || {
            report("unshare", sys!(libc::SYS_unshare, NEWUSER));
            report("write", put("/proc/self/setgroups", text));
            print!("{}", text_of("/proc/self/setgroups"));
            0
        });
    }
}

pub(super) fn of_root() {
    in_child("by root", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        report("users", put("/proc/self/uid_map", "0 0 1"));
        report("groups", put("/proc/self/gid_map", "0 0 1"));
        println!("{:?}", ids());
        0
    });
    in_child("by one who may not give files capabilities", || {
        // CAP_SETFCAP is not kept.
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        report("capget", sys!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()));
        sets[0] &= !(1 << 31);
        sets[1] &= !(1 << 31);
        report("capset", sys!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()));
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        report("users", put("/proc/self/uid_map", "0 0 1"));
        report("others", put("/proc/self/uid_map", "0 1 10"));
        0
    });
}

pub(super) fn by_parent() {
    mapped("a range", 0, "0 100000 65536", || {
        println!("{:?}", ids());
        report("a user", sys!(libc::SYS_setresuid, 5, 5, 5));
        println!("{:?}", ids());
        print!("{}", text_of("/proc/self/setgroups"));
        0
    });
    mapped("several", 0, "0 1000 1\n1 100000 65536\n100000 0 1\n", || {
        println!("{:?}", ids());
        report("groups", sys!(libc::SYS_setgroups, 2, [7_u32, 100_000].as_ptr()));
        report("unknown", sys!(libc::SYS_setgroups, 2, [7_u32, 65_537].as_ptr()));
        println!("{:?}", groups());
        print!("{}", text_of("/proc/self/uid_map"));
        0
    });
}

pub(super) fn seen() {
    mapped("outer", 0, "0 100000 1000\n5000 7 1\n", || {
        report("root", sys!(libc::SYS_setresgid, 0, 0, 0));
        report("root", sys!(libc::SYS_setresuid, 0, 0, 0));
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let (read_end, write_end) = sys::pipe(0);
        let (ready, go) = sys::pipe(0);
        let pid = sys::fork(|| {
            report("unshare", sys!(libc::SYS_unshare, NEWUSER));
            sys::flush();
            sys::write(write_end, b"r");
            sys::read(ready, 1);
            print!("from inside\n{}", text_of("/proc/self/uid_map"));
            print!("the one above\n{}", text_of(&format!("/proc/{}/uid_map", sys!(libc::SYS_getppid))));
            print!("the first\n{}", text_of("/proc/1/uid_map"));
            0
        });
        sys::read(read_end, 1);
        let path = format!("/proc/{pid}/uid_map");
        report("unknown", put(&path, "0 1000 1"));
        report("over the end", put(&path, "0 999 2"));
        report("over a gap", put(&path, "0 0 6000"));
        report("known", put(&path, "10 1 3\n20 5000 1"));
        print!("from above\n{}", text_of(&path));
        sys::flush();
        sys::write(go, b"g");
        println!("{}", sys::wait(pid));
        0
    });
    mapped("sisters", 0, "0 100000 1000", || {
        print!("the first, from here\n{}", text_of("/proc/1/uid_map"));
        0
    });
}

pub(super) fn once() {
    in_child("once", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        let fd = sys::open("/proc/self/uid_map", libc::O_WRONLY, 0);
        report("first", sys::write(fd, b"0 0 1"));
        report("at once again", sys::write(fd, b"0 0 1"));
        report("again", put("/proc/self/uid_map", "0 0 1"));
        report("nonsense", put("/proc/self/uid_map", "x"));
        0
    });
}

pub(super) fn setgroups() {
    root("denied", 0, || {
        report("setgroups", sys!(libc::SYS_setgroups, 0, 0));
        report("one", sys!(libc::SYS_setgroups, 1, [0_u32].as_ptr()));
        in_child("below", || {
            report("unshare", sys!(libc::SYS_unshare, NEWUSER));
            print!("{}", text_of("/proc/self/setgroups"));
            0
        });
        0
    });
    in_child("without names", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        report("setgroups", sys!(libc::SYS_setgroups, 0, 0));
        report("users", put("/proc/self/uid_map", "0 0 1"));
        report("setgroups", sys!(libc::SYS_setgroups, 0, 0));
        report("groups", put("/proc/self/gid_map", "0 0 1"));
        report("setgroups", sys!(libc::SYS_setgroups, 1, [0_u32].as_ptr()));
        report("too late", put("/proc/self/setgroups", "deny"));
        println!("{:?}", groups());
        0
    });
    in_child("groups that it had", || {
        report("setgroups", sys!(libc::SYS_setgroups, 3, [1_u32, 2, 1000].as_ptr()));
        become_user(1000);
        0
    });
    in_child("kept", || {
        report("setgroups", sys!(libc::SYS_setgroups, 3, [1_u32, 2, 1000].as_ptr()));
        report("gid", sys!(libc::SYS_setresgid, 1000, 1000, 1000));
        report("uid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        enter(0, 0, 1000);
        println!("{:?} {}", groups(), line("Groups"));
        0
    });
}

pub(super) fn refused() {
    user("with threads", || {
        let thread = std::thread::spawn(sys::forever);
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        let flags = libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM | NEWUSER;
        report("a thread", sys!(libc::SYS_clone, flags, 0, 0, 0, 0));
        report("shared root", sys!(libc::SYS_clone, libc::CLONE_FS | NEWUSER | libc::SIGCHLD, 0, 0, 0, 0));
        i32::from(thread.is_finished())
    });
    sys::scratch("users");
    in_child("chrooted", || {
        let here = std::env::current_dir().unwrap_or_default();
        report("chroot", sys!(libc::SYS_chroot, c(&here.to_string_lossy()).as_ptr()));
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        report("clone", sys!(libc::SYS_clone, NEWUSER | libc::SIGCHLD, 0, 0, 0, 0));
        0
    });
    sys::unscratch();
    in_child("nobody inside", || {
        report("unshare", sys!(libc::SYS_unshare, NEWUSER));
        report("once more", sys!(libc::SYS_unshare, NEWUSER));
        report("users", put("/proc/self/uid_map", "0 0 1"));
        report("once more", sys!(libc::SYS_unshare, NEWUSER));
        report("deny", put("/proc/self/setgroups", "deny"));
        report("groups", put("/proc/self/gid_map", "0 0 1"));
        report("once more", sys!(libc::SYS_unshare, NEWUSER));
        0
    });
    user("without it", || {
        for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWUTS, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
            report(&format!("{flag:#x}"), sys!(libc::SYS_unshare, flag));
        }
        report("both", sys!(libc::SYS_unshare, NEWUSER | libc::CLONE_NEWUTS | libc::CLONE_NEWNS));
        report("afterwards", sys!(libc::SYS_unshare, libc::CLONE_NEWPID | libc::CLONE_NEWNET));
        0
    });
}

pub(super) fn deep() {
    in_child("deep", || {
        let mut made = 0;
        let last = loop {
            let result = sys!(libc::SYS_unshare, NEWUSER);
            if result != 0 || made > 40 {
                break result;
            }
            made += 1;
            put("/proc/self/setgroups", "deny");
            for name in ["uid_map", "gid_map"] {
                let written = put(&format!("/proc/self/{name}"), "0 0 1");
                if written < 0 {
                    report(name, written);
                }
            }
        };
        println!("{made}, then {}", show(last));
        println!("{:?}", ids());
        0
    });
}

pub(super) fn races() {
    in_child("written while it is read", || {
        let mut whole = true;
        for _ in 0..50 {
            let (read_end, write_end) = sys::pipe(0);
            let (ready, go) = sys::pipe(0);
            let pid = sys::fork(|| {
                sys!(libc::SYS_unshare, NEWUSER);
                sys::write(write_end, b"r");
                sys::read(ready, 1);
                0
            });
            sys::read(read_end, 1);
            let path = format!("/proc/{pid}/uid_map");
            let reader = {
                let path = path.clone();
                std::thread::spawn(move || {
                    let mut seen = Vec::new();
                    while seen.last().is_none_or(String::is_empty) && seen.len() < 10_000 {
                        seen.push(text_of(&path));
                    }
                    seen.pop().unwrap_or_default()
                })
            };
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    let path = path.clone();
                    std::thread::spawn(move || put(&path, "0 0 5\n5 10 5\n"))
                })
                .collect();
            let written: Vec<i64> = writers.into_iter().map(|thread| thread.join().unwrap_or(-999)).collect();
            whole &= written.iter().filter(|result| **result == 13).count() == 1;
            whole &= written.iter().filter(|result| **result == -i64::from(libc::EPERM)).count() == 2;
            let text = reader.join().unwrap_or_default();
            whole &= text.lines().count() == 2;
            sys::write(go, b"g");
            whole &= sys::wait(pid) == sys::describe(0);
            for fd in [read_end, write_end, ready, go] {
                sys::close(fd);
            }
        }
        println!("one at a time: {whole}");
        0
    });
}
