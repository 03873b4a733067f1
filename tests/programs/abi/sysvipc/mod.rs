//! System V IPC: shared memory, semaphores, message queues. Cases show nothing that depends on other objects of the
//! machine: ids, indices and totals.

mod msg;
pub(crate) mod sem;
pub(crate) mod shm;

use crate::Case;
use crate::sys::{self, report};
use std::sync::OnceLock;

pub(crate) const CASES: &[Case] = &[
    ("shm_life", shm::life),
    ("shm_errors", shm::errors),
    ("shm_attach", shm::attach),
    ("shm_parts", shm::parts),
    ("shm_processes", shm::processes),
    ("shm_marked", shm::marked),
    ("shm_status", shm::status),
    ("shm_permissions", shm::permissions),
    ("shm_lock", shm::lock),
    ("shm_futex", shm::futex),
    ("shm_proc", shm::proc),
    ("sem_values", sem::values),
    ("sem_errors", sem::errors),
    ("sem_operations", sem::operations),
    ("sem_waiting", sem::waiting),
    ("sem_order", sem::order),
    ("sem_timeouts", sem::timeouts),
    ("sem_interrupted", sem::interrupted),
    ("sem_undo", sem::undo),
    ("sem_undo_threads", sem::undo_threads),
    ("sem_status", sem::status),
    ("sem_permissions", sem::permissions),
    ("msg_types", msg::types),
    ("msg_errors", msg::errors),
    ("msg_sizes", msg::sizes),
    ("msg_copy", msg::copy),
    ("msg_waiting", msg::waiting),
    ("msg_full", msg::full),
    ("msg_interrupted", msg::interrupted),
    ("msg_status", msg::status),
    ("msg_permissions", msg::permissions),
    ("sysv_limits", limits),
];

const PRIVATE: i64 = 0;
const CREAT: i64 = libc::IPC_CREAT as i64;
const EXCL: i64 = libc::IPC_EXCL as i64;
const NOWAIT: i64 = libc::IPC_NOWAIT as i64;
const RMID: i64 = libc::IPC_RMID as i64;
const SET: i64 = libc::IPC_SET as i64;
const STAT: i64 = libc::IPC_STAT as i64;
const INFO: i64 = libc::IPC_INFO as i64;
/// The `*_STAT` commands of segments and queues; see `sem` for its own.
const BY_INDEX: [(i64, i64); 2] = [(13, 15), (11, 13)];

/// A key that only this process and its children use.
fn key() -> i64 {
    static KEY: OnceLock<i64> = OnceLock::new();
    *KEY.get_or_init(|| 0x5042_0000 + sys!(libc::SYS_getpid) % 0xffff)
}

/// Words of a structure that the kernel fills in.
type Words = [u64; 16];

/// `struct ipc64_perm`: key (shown as whether it is ours), uid, gid, cuid, cgid, mode.
fn perm(words: &Words) -> String {
    let low = |word: u64| word as u32;
    let high = |word: u64| (word >> 32) as u32;
    let named = i64::from(low(words[0])) == key();
    format!(
        "named {named} owner {}:{} made by {}:{} mode {:o}",
        high(words[0]),
        low(words[1]),
        high(words[1]),
        low(words[2]),
        high(words[2])
    )
}

/// Becomes an ordinary user.
fn drop_root() {
    sys!(libc::SYS_setgroups, 0, 0);
    sys!(libc::SYS_setresgid, 1000, 1000, 1000);
    sys!(libc::SYS_setresuid, 1000, 1000, 1000);
}

/// A child that waits in a system call, and says in the end what came of it.
pub(crate) struct Helper {
    pid: i64,
    words: i64,
}

impl Helper {
    /// Starts one and waits until it sleeps.
    pub(crate) fn start(body: impl FnOnce() -> String) -> Helper {
        let (words, output) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys::write(output, body().as_bytes());
            0
        });
        sys::close(output);
        let helper = Helper { pid, words };
        helper.asleep();
        helper
    }

    /// Waits until it sleeps again.
    pub(crate) fn asleep(&self) {
        sys::until_asleep(self.pid, self.pid);
    }

    /// Sends it a signal.
    pub(crate) fn kill(&self, signal: i32) {
        sys!(libc::SYS_kill, self.pid, signal);
    }

    /// Waits for its end: what it said, and how it ended.
    pub(crate) fn end(self) -> String {
        let end = sys::wait(self.pid);
        let (_, said) = sys::read(self.words, 4096);
        sys::close(self.words);
        format!("{} ({end})", String::from_utf8_lossy(&said))
    }
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The defaults, as commands and files say them.
fn limits() {
    let mut words: Words = [0; 16];
    let place = words.as_mut_ptr();
    report("shm", i64::from(sys!(libc::SYS_shmctl, 0, INFO, place) < 0));
    println!("{:x?}", &words[..5]);
    report("sem", i64::from(sys!(libc::SYS_semctl, 0, 0, INFO, place) < 0));
    println!("{:x?}", &words[..5]);
    report("msg", i64::from(sys!(libc::SYS_msgctl, 0, INFO, place) < 0));
    println!("{:x?}", &words[..4]);
    for name in ["shmmax", "shmall", "shmmni", "sem", "msgmax", "msgmnb", "msgmni"] {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        println!("{name}: {:?}", text.map_err(|error| error.kind()));
    }
    for (number, name) in [(libc::SYS_shmctl, "shm"), (libc::SYS_msgctl, "msg")] {
        report(&format!("{name}: no command"), sys!(number, 0, 99, place));
        report(&format!("{name}: negative command"), sys!(number, 0, -1, place));
        report(&format!("{name}: negative id"), sys!(number, -1, STAT, place));
        report(&format!("{name}: nowhere"), sys!(number, 0, INFO, 0));
    }
    report("sem: no command", sys!(libc::SYS_semctl, 0, 0, 99, place));
    report("sem: negative id", sys!(libc::SYS_semctl, -1, 0, STAT, place));
}
