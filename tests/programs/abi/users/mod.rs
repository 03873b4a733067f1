//! User namespaces (user_namespaces(7)): maps, what ids are called, what capabilities are worth.

mod files;
mod ids;
mod maps;
mod mounted;
mod others;

use crate::Case;
use crate::sys::{self, c, in_child, put, report};

pub(crate) const CASES: &[Case] = &[
    ("users_made", maps::made),
    ("users_map", maps::own),
    ("users_map_text", maps::text),
    ("users_map_of_root", maps::of_root),
    ("users_map_by_parent", maps::by_parent),
    ("users_map_seen", maps::seen),
    ("users_map_once", maps::once),
    ("users_setgroups", maps::setgroups),
    ("users_refused", maps::refused),
    ("users_deep", maps::deep),
    ("users_map_races", maps::races),
    ("users_ids", ids::ids),
    ("users_ids_of_many", ids::of_many),
    ("users_capabilities", ids::capabilities),
    ("users_signals", ids::signals),
    ("users_messages", ids::messages),
    ("users_status", ids::status),
    ("users_ipc", ids::ipc),
    ("users_files", files::files),
    ("users_files_of_many", files::of_many),
    ("users_set_id_programs", files::programs),
    ("users_file_systems", mounted::file_systems),
    ("users_memory", mounted::memory),
    ("users_locked", mounted::locked),
    ("users_hidden", mounted::hidden),
    ("users_locked_flags", mounted::flags),
    ("users_another", mounted::another),
    ("users_propagation", mounted::propagation),
    ("users_root", mounted::root_of_all),
    ("users_owned", others::owned),
    ("users_entered", others::entered),
    ("users_entered_all", others::entered_all),
    ("users_seen_from_inside", others::upwards),
    ("users_traced", others::traced),
    ("users_system", others::system),
];

/// Becomes an ordinary user, who may still look at himself.
fn become_user(id: i32) {
    sys!(libc::SYS_setgroups, 0, 0);
    report("setresgid", sys!(libc::SYS_setresgid, id, id, id));
    report("setresuid", sys!(libc::SYS_setresuid, id, id, id));
    sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/// Runs `body` as an ordinary user.
fn user(what: &str, body: impl FnOnce() -> i32) {
    in_child(what, || {
        become_user(1000);
        body()
    });
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{:?}\n", error.raw_os_error()))
}

/// Enters a new user namespace, with others of `flags`, where `inside` is what `outside` is outside.
fn enter(flags: i32, inside: i32, outside: i32) {
    report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER | flags));
    sys::write(sys::open("/proc/self/setgroups", libc::O_WRONLY, 0), b"deny");
    let line = format!("{inside} {outside} 1\n");
    report("users", put("/proc/self/uid_map", &line));
    report("groups", put("/proc/self/gid_map", &line));
}

/// Runs `body` as root of a user namespace, who is an ordinary user outside.
fn root(what: &str, flags: i32, body: impl FnOnce() -> i32) {
    user(what, || {
        enter(flags, 0, 1000);
        body()
    });
}

/// Runs `body` in a new user namespace with other namespaces of `flags` whose maps root writes: `maps` in both.
fn mapped(what: &str, flags: i32, maps: &str, body: impl FnOnce() -> i32) {
    let (made, make) = sys::pipe(0);
    let (ready, go) = sys::pipe(0);
    let pid = sys::fork(|| {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER | flags));
        sys::flush();
        sys::write(make, b"m");
        sys::read(ready, 1);
        body()
    });
    sys::read(made, 1);
    report("users", put(&format!("/proc/{pid}/uid_map"), maps));
    report("groups", put(&format!("/proc/{pid}/gid_map"), maps));
    sys::flush();
    sys::write(go, b"g");
    println!("{what}: {}", sys::wait(pid));
    for fd in [made, make, ready, go] {
        sys::close(fd);
    }
}

/// Real, effective and saved ids.
fn ids() -> [[u32; 3]; 2] {
    let mut all = [[77_u32; 3]; 2];
    let [[a, b, x], [d, e, f]] = &mut all;
    sys!(libc::SYS_getresuid, &raw mut *a, &raw mut *b, &raw mut *x);
    sys!(libc::SYS_getresgid, &raw mut *d, &raw mut *e, &raw mut *f);
    all
}

/// Sets all three user ids.
fn set_all(uid: i64) -> i64 {
    sys!(libc::SYS_setresuid, uid, uid, uid)
}

fn groups() -> Vec<u32> {
    let mut all = [0_u32; 32];
    let count = sys!(libc::SYS_getgroups, all.len(), all.as_mut_ptr());
    all[..count.clamp(0, 32) as usize].to_vec()
}

/// A line of /proc/self/status.
fn line(name: &str) -> String {
    let status = text_of("/proc/self/status");
    let found = status.lines().find(|line| line.starts_with(&format!("{name}:")));
    found.unwrap_or("missing").replace('\t', " ")
}

fn owner(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) => format!("{}:{} {:o}", meta.uid(), meta.gid(), meta.mode()),
        Err(error) => format!("{:?}", error.raw_os_error()),
    }
}

fn chown(path: &str, uid: i64, gid: i64) -> i64 {
    sys!(libc::SYS_fchownat, libc::AT_FDCWD, c(path).as_ptr(), uid, gid, 0)
}

fn chmod(path: &str, mode: u32) -> i64 {
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(path).as_ptr(), mode)
}

/// Makes an empty file.
fn make(path: &str, mode: u32) -> i64 {
    let fd = sys::open(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, mode);
    if fd < 0 { fd } else { sys::close(fd) }
}
