//! User and group ids, groups, capabilities. The cases expect to start as root, as the harness does.

use crate::Case;
use crate::sys::{self, in_child, report};

pub(crate) const CASES: &[Case] = &[
    ("credentials_ids", ids),
    ("credentials_drop", drop_privileges),
    ("credentials_groups", groups),
    ("credentials_signals", signals),
    ("credentials_capabilities", capabilities),
    ("credentials_setuid_program", setuid_program),
];

fn three(call: i64) -> [i32; 3] {
    let mut ids = [-1_i32; 3];
    let [r, e, s] = &mut ids;
    sys!(call, &raw mut *r, &raw mut *e, &raw mut *s);
    ids
}

fn ids() {
    println!("{:?} {:?}", three(libc::SYS_getresuid), three(libc::SYS_getresgid));
    println!("{} {}", sys!(libc::SYS_getuid), sys!(libc::SYS_geteuid));
    in_child("setresuid", || {
        report("set", sys!(libc::SYS_setresuid, 1, 2, 3));
        println!("{:?}", three(libc::SYS_getresuid));
        report("among them", sys!(libc::SYS_setresuid, -1, 3, -1));
        report("another", sys!(libc::SYS_setresuid, -1, 4, -1));
        println!("{:?}", three(libc::SYS_getresuid));
        0
    });
    in_child("setreuid", || {
        report("set", sys!(libc::SYS_setreuid, 5, 6));
        println!("{:?}", three(libc::SYS_getresuid));
        0
    });
    in_child("setuid", || {
        report("set", sys!(libc::SYS_setuid, 7));
        println!("{:?}", three(libc::SYS_getresuid));
        report("back", sys!(libc::SYS_setuid, 0));
        0
    });
    in_child("setgid", || {
        report("set", sys!(libc::SYS_setgid, 8));
        println!("{:?}", three(libc::SYS_getresgid));
        report("setfsuid", sys!(libc::SYS_setfsuid, -1));
        0
    });
}

fn drop_privileges() {
    in_child("child", || {
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresgid, 1000, 1000, 1000);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("shadow", sys::open("/etc/shadow", 0, 0));
        report("create in /", sys::open("/new-file", libc::O_CREAT, 0o600));
        report("chroot", sys!(libc::SYS_chroot, sys::c("/").as_ptr()));
        report("sethostname", sys!(libc::SYS_sethostname, sys::c("x").as_ptr(), 1));
        report("setgroups", sys!(libc::SYS_setgroups, 0, 0));
        report("nice", sys!(libc::SYS_setpriority, 0, 0, -5));
        report("kill init", sys!(libc::SYS_kill, 1, 0));
        0
    });
}

fn groups() {
    in_child("child", || {
        let list = [10_u32, 20, 30];
        report("set", sys!(libc::SYS_setgroups, 3, list.as_ptr()));
        report("count", sys!(libc::SYS_getgroups, 0, 0));
        let mut got = [0_u32; 8];
        report("get", sys!(libc::SYS_getgroups, 8, got.as_mut_ptr()));
        println!("{got:?}");
        report("no room", sys!(libc::SYS_getgroups, 2, got.as_mut_ptr()));
        report("negative", sys!(libc::SYS_getgroups, -1, got.as_mut_ptr()));
        0
    });
}

fn signals() {
    let (read_end, write_end) = sys::pipe(0);
    let victim = sys::fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1).0 as i32
    });
    in_child("somebody else", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("kill", sys!(libc::SYS_kill, victim, 0));
        report("setpgid", sys!(libc::SYS_setpgid, victim, 0));
        0
    });
    sys::close(write_end);
    println!("{}", sys::wait(victim));
}

fn capabilities() {
    let show = || {
        let header = [0x2008_0522_u32, 0];
        let mut data = [0_u32; 6];
        let result = sys!(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
        format!("{} {}", sys::show(result), if data[0] == 0 { "none" } else { "some" })
    };
    println!("{}", show());
    in_child("dropped with the user id", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        println!("{}", show());
        0
    });
    in_child("kept", || {
        report("KEEPCAPS", sys!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1));
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        let header = [0x2008_0522_u32, 0];
        let mut data = [0_u32; 6];
        sys!(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
        println!("effective {} permitted {}", data[0] == 0, data[1] != 0);
        0
    });
    let header = [0x1234_u32, 0];
    report("bad version", sys!(libc::SYS_capget, header.as_ptr(), [0_u32; 6].as_mut_ptr()));
    report("no_new_privs", sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

fn setuid_program() {
    in_child("secure execution is off", || {
        println!("{}", sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE));
        0
    });
}
