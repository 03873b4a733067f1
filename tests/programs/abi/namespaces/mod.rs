//! Namespaces but those of mounts, which have a family of their own.

mod entered;
mod others;
mod pids;
mod pids_seen;
mod time;

use crate::Case;
use crate::sys;
use std::fs;
use std::path::PathBuf;

pub(crate) const CASES: &[Case] = &[
    ("namespaces_uts", others::uts),
    ("namespaces_ipc", others::ipc),
    ("namespaces_net", others::net),
    ("namespaces_loopback", others::loopback),
    ("namespaces_clone", others::cloned),
    ("namespaces_pids", pids::numbers),
    ("namespaces_pids_nested", pids::nested),
    ("namespaces_pids_cloned", pids::cloned),
    ("namespaces_pids_refused", pids::refused),
    ("namespaces_pids_signals", pids::signals),
    ("namespaces_pids_signals_from_above", pids::signals_from_above),
    ("namespaces_pids_init_faults", pids::faults),
    ("namespaces_pids_end", pids::end),
    ("namespaces_pids_end_by_threads", pids::end_by_threads),
    ("namespaces_pids_end_of_nested", pids::end_of_nested),
    ("namespaces_pids_end_of_tracer", pids::end_of_tracer),
    ("namespaces_pids_orphans", pids::orphans),
    ("namespaces_pids_groups", pids::groups),
    ("namespaces_pids_deep", pids::deep),
    ("namespaces_pids_credentials", pids_seen::credentials),
    ("namespaces_pids_owners", pids_seen::owners),
    ("namespaces_pids_descriptors", pids_seen::descriptors),
    ("namespaces_pids_futexes", pids_seen::futexes),
    ("namespaces_pids_traced", pids_seen::traced),
    ("namespaces_pids_proc", pids_seen::proc),
    ("namespaces_pids_proc_above", pids_seen::proc_above),
    ("namespaces_pids_calls", pids_seen::calls),
    ("namespaces_files", entered::files),
    ("namespaces_entered_by_file", entered::by_file),
    ("namespaces_entered_mounts", entered::mounts),
    ("namespaces_entered_pids", entered::pids),
    ("namespaces_entered_by_pidfd", entered::by_pidfd),
    ("namespaces_entered_races", entered::races),
    ("namespaces_time", time::shifted),
    ("namespaces_time_entered", time::entered),
];

/// Runs a body as the init of a new pid namespace, which has all other namespaces of `flags` too, and says how it ended.
fn inside(what: &str, flags: i32, body: impl FnOnce() -> i32) {
    sys::in_child(what, || {
        let made = sys!(libc::SYS_unshare, flags | libc::CLONE_NEWPID);
        if made != 0 {
            sys::report("unshare", made);
            return 99;
        }
        let pid = sys::fork(body);
        println!("{what}, init: {}", sys::wait(pid));
        0
    });
}

fn getpid() -> i64 {
    sys!(libc::SYS_getpid)
}

fn getppid() -> i64 {
    sys!(libc::SYS_getppid)
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// The host's name as uname(2) has it.
fn hostname() -> String {
    let mut names = [0_u8; 390];
    sys!(libc::SYS_uname, names.as_mut_ptr());
    String::from_utf8_lossy(&names[65..130]).trim_end_matches('\0').to_owned()
}

/// What a namespace is called by /proc/PID/ns.
fn link(pid: &str, name: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()
}
