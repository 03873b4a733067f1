//! Shared memory.

use super::{BY_INDEX, CREAT, EXCL, Helper, PRIVATE, RMID, SET, STAT, Words, drop_root, key, perm};
use crate::sys::{self, in_child, peek, poke, report, report_ok, show};

const PAGE: i64 = 4096;
const RDONLY: i64 = libc::SHM_RDONLY as i64;
const RND: i64 = libc::SHM_RND as i64;
const REMAP: i64 = libc::SHM_REMAP as i64;
const EXEC: i64 = libc::SHM_EXEC as i64;
const HUGETLB: i64 = libc::SHM_HUGETLB as i64;
const LOCK: i64 = 11;
const UNLOCK: i64 = 12;

fn get(key: i64, size: i64, flags: i64) -> i64 {
    sys!(libc::SYS_shmget, key, size, flags)
}

fn at(id: i64, address: i64, flags: i64) -> i64 {
    sys!(libc::SYS_shmat, id, address, flags)
}

fn detach(address: i64) -> i64 {
    sys!(libc::SYS_shmdt, address)
}

fn control(id: i64, command: i64, place: *mut u64) -> i64 {
    sys!(libc::SYS_shmctl, id, command, place)
}

fn remove(id: i64) -> i64 {
    sys!(libc::SYS_shmctl, id, RMID, 0)
}

/// A private segment of that many pages.
fn segment(pages: i64) -> i64 {
    get(PRIVATE, pages * PAGE, CREAT | 0o600)
}

/// What IPC_STAT says; zeroes where it fails.
fn stat(id: i64) -> Words {
    let mut words = [0; 16];
    control(id, STAT, words.as_mut_ptr());
    words
}

/// How many areas show it.
fn attached(id: i64) -> u64 {
    stat(id)[11]
}

pub(super) fn life() {
    let id = get(key(), 3 * PAGE, CREAT | EXCL | 0o640);
    report_ok("made", id);
    report("again, exclusively", get(key(), 3 * PAGE, CREAT | EXCL | 0o640));
    println!("found {}", get(key(), 0, 0) == id && get(key(), PAGE, CREAT) == id);
    report("found, but smaller", get(key(), 3 * PAGE + 1, 0));
    let (one, two) = (at(id, 0, 0), at(id, 0, 0));
    println!("aligned {} apart {} attached {}", one % PAGE == 0, one != two, attached(id));
    println!("zeroes {}", (0..3 * PAGE).all(|offset| peek(one + offset) == 0));
    poke(one + 5000, 7);
    println!("seen {}", peek(two + 5000));
    report("detached", detach(one));
    report("detached again", detach(one));
    println!("attached {}", attached(id));
    report("removed", remove(id));
    report("by its key", get(key(), 0, 0));
    println!("still there {}", peek(two + 5000));
    report("attached after removal", i64::from(at(id, 0, 0) > 0));
    report("detached", detach(two));
}

pub(super) fn errors() {
    report("no such key", get(key(), PAGE, 0o600));
    report("no size", get(PRIVATE, 0, CREAT | 0o600));
    report("beyond the limit", get(PRIVATE, -4096, CREAT | 0o600));
    report("no such id", at(0x7fff_ffff, 0, 0));
    report("negative id", at(-1, 0, 0));
    report("removing none", remove(0x7fff_ffff));
    report("detaching nothing", detach(PAGE * 77));
    report("detaching an odd address", detach(PAGE * 77 + 1));
    report("huge pages of no size", get(PRIVATE, 1 << 21, CREAT | HUGETLB | 5 << 26 | 0o600));
    report("huge pages, not there", get(key(), 1 << 21, HUGETLB | 0o600));
    let area = sys::memory(4096);
    report("detaching what is none", detach(area));
    let id = segment(1);
    report("status nowhere", control(id, STAT, std::ptr::null_mut()));
    report("set from nowhere", control(id, SET, std::ptr::null_mut()));
    report("removed", remove(id));
    report("status of a removed one", control(id, STAT, [0; 16].as_mut_ptr()));
    let again = segment(1);
    println!("another id {}", again != id);
    report("removed", remove(again));
}

pub(super) fn attach() {
    let id = segment(2);
    let room = sys::mmap(0, 8 * PAGE as usize, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    sys!(libc::SYS_munmap, room, 8 * PAGE);
    let near = |result: i64| match result {
        fault if (-4095..0).contains(&fault) => show(fault),
        place => format!("at {}", place - room),
    };
    println!("fixed: {}", near(at(id, room + PAGE, 0)));
    println!("taken: {}", near(at(id, room + PAGE, 0)));
    println!("partly taken: {}", near(at(id, room, 0)));
    println!("over it: {}", near(at(id, room, REMAP)));
    println!("attached {}", attached(id));
    println!("odd: {}", near(at(id, room + 4 * PAGE + 5, 0)));
    println!("rounded: {}", near(at(id, room + 4 * PAGE + 5, RND)));
    println!("remap nowhere: {}", near(at(id, 0, REMAP)));
    println!("remap rounded to nothing: {}", near(at(id, 5, RND | REMAP)));
    println!("beyond: {}", near(at(id, (1 << 48) - PAGE, 0)));
    let reader = at(id, 0, RDONLY);
    poke(room + 4 * PAGE, 3);
    println!("read {}", peek(reader));
    let rights = |address: i64, bits: i32| sys!(libc::SYS_mprotect, address, PAGE, bits);
    report("made writable", rights(reader, libc::PROT_READ | libc::PROT_WRITE));
    report("made executable", rights(reader, libc::PROT_READ | libc::PROT_EXEC));
    in_child("written", || {
        poke(reader + PAGE, 1);
        0
    });
    let code = at(id, 0, EXEC);
    #[cfg(target_arch = "x86_64")]
    let returns: [u8; 4] = [0xc3; 4];
    #[cfg(target_arch = "aarch64")]
    let returns: [u8; 4] = [0xc0, 0x03, 0x5f, 0xd6];
    returns.iter().zip(code..).for_each(|(byte, place)| poke(place, *byte));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let ours = maps.lines().filter(|line| line.contains("/SYSV"));
    for line in ours {
        let words: Vec<&str> = line.split_whitespace().collect();
        println!("{} {} {}", words[1], words[2], words[5..].join(" "));
    }
    report("removed", remove(id));
}

/// Pieces of an attachment count, and shmdt finds all that is left of it.
pub(super) fn parts() {
    let id = segment(6);
    let base = at(id, 0, 0);
    report("a hole", sys!(libc::SYS_munmap, base + 2 * PAGE, PAGE));
    println!("attached {}", attached(id));
    report("a right", sys!(libc::SYS_mprotect, base + 4 * PAGE, PAGE, libc::PROT_READ));
    println!("attached {}", attached(id));
    report("and back", sys!(libc::SYS_mprotect, base + 4 * PAGE, PAGE, libc::PROT_READ | libc::PROT_WRITE));
    println!("attached {}", attached(id));
    report("detached", detach(base));
    println!("attached {}", attached(id));
    let base = at(id, 0, 0);
    report("the beginning goes", sys!(libc::SYS_munmap, base, PAGE));
    report("detached by the old address", detach(base));
    println!("attached {}", attached(id));
    let base = at(id, 0, 0);
    poke(base + 5 * PAGE, 9);
    let moved = sys!(libc::SYS_mremap, base, 6 * PAGE, 6 * PAGE, 3, base + (64 << 20));
    println!("moved {} {} attached {}", moved == base + (64 << 20), peek(moved + 5 * PAGE), attached(id));
    report("detached where it was", detach(base));
    report("detached where it is", detach(moved));
    let base = at(id, 0, 0);
    let shrunk = sys!(libc::SYS_mremap, base, 6 * PAGE, 2 * PAGE, 0);
    println!("shrunk {} attached {}", shrunk == base, attached(id));
    let grown = sys!(libc::SYS_mremap, base, 2 * PAGE, 6 * PAGE, 0);
    println!("grown {} {} attached {}", grown == base, peek(base + 5 * PAGE), attached(id));
    in_child("beyond the end", || {
        let grown = sys!(libc::SYS_mremap, base, 6 * PAGE, 8 * PAGE, 1);
        i32::from(peek(grown + 7 * PAGE))
    });
    let twin = sys!(libc::SYS_mremap, base, 0, 6 * PAGE, 1);
    println!("twin {} attached {}", peek(twin + 5 * PAGE), attached(id));
    let removed = sys!(libc::SYS_madvise, base, PAGE * 6, 9);
    println!("MADV_REMOVE {} leaves {}", show(removed), peek(twin + 5 * PAGE));
    report("detached", detach(base));
    report("detached", detach(twin));
    println!("attached {}", attached(id));
    report("removed", remove(id));
}

pub(super) fn processes() {
    let id = segment(1);
    let base = at(id, 0, 0);
    let mine = sys!(libc::SYS_getpid);
    let last = || (stat(id)[10] >> 32) as i64;
    println!("made by me {} last me {}", stat(id)[10] as u32 as i64 == mine, last() == mine);
    let pid = sys::fork(|| {
        println!("inherited: {} attached", attached(id));
        poke(base, 5);
        report("detached", detach(base));
        println!("attached {}", attached(id));
        at(id, 0, 0);
        println!("last the child {}", last() == sys!(libc::SYS_getpid));
        0
    });
    println!("{}; attached {} last the child {}", sys::wait(pid), attached(id), last() == pid);
    println!("written {}", peek(base));
    sys!(libc::SYS_madvise, base, PAGE, libc::MADV_DONTFORK);
    in_child("not for children", || {
        println!("attached {}", attached(id));
        0
    });
    sys!(libc::SYS_madvise, base, PAGE, libc::MADV_DOFORK);
    in_child("across execve", || {
        -crate::process::execute(
            crate::process::SELF,
            &["abi", "--child", "shm-attached", &id.to_string()],
            &[],
        ) as i32
    });
    println!("attached {}", attached(id));
    report("removed", remove(id));
}

/// What a program sees that was executed by one that had it attached.
pub(crate) fn attached_elsewhere(id: &str) {
    println!("attached {}", attached(id.parse().unwrap_or(-1)));
}

pub(super) fn marked() {
    let id = get(key(), PAGE, CREAT | 0o600);
    let base = at(id, 0, 0);
    report("removed", remove(id));
    println!("{}", perm(&stat(id)));
    report("removed again", remove(id));
    report("a new one by that key", i64::from(get(key(), PAGE, CREAT | 0o600) != id));
    let new = get(key(), 0, 0);
    poke(base, 4);
    in_child("a child has it", || {
        let again = at(id, 0, 0);
        println!("{} attached {}", peek(again), attached(id));
        0
    });
    report("detached", detach(base));
    report("gone", control(id, STAT, [0; 16].as_mut_ptr()));
    report("attached", at(id, 0, 0));
    println!("the new one stays {}", get(key(), 0, 0) == new);
    report("removed", remove(new));
    // The end of a process is the last detaching, too.
    let id = segment(1);
    in_child("marked by the only one", || {
        at(id, 0, 0);
        report("removed", remove(id));
        0
    });
    report("gone", control(id, STAT, [0; 16].as_mut_ptr()));
}

pub(super) fn status() {
    let id = get(key(), 5000, CREAT | 0o2640);
    let words = stat(id);
    println!("{}", perm(&words));
    println!("size {} attached {} last {}", words[6], words[11], words[10] >> 32);
    println!("times: {} {} {}", words[7] != 0, words[8] != 0, words[9] != 0);
    let base = at(id, 0, 0);
    let words = stat(id);
    println!("attached: {} {} {}", words[7] != 0, words[8] != 0, words[9] != 0);
    detach(base);
    println!("detached: {}", stat(id)[8] != 0);
    let mut change = words;
    change[0] = change[0] & 0xffff_ffff | 1000 << 32;
    change[1] = change[1] & !0xffff_ffff | 1001;
    change[2] = 0o7_1234 << 32;
    change[6] = 1;
    report("set", control(id, SET, change.as_mut_ptr()));
    println!("{} size {}", perm(&stat(id)), stat(id)[6]);
    change[0] |= 0xffff_ffff << 32;
    report("set to nobody", control(id, SET, change.as_mut_ptr()));
    let (by_index, any) = BY_INDEX[0];
    let mut words: Words = [0; 16];
    println!("by index {}", control(id & 0x7fff, by_index, words.as_mut_ptr()) == id);
    println!("{}", perm(&words));
    println!("any {}", control(id & 0x7fff, any, words.as_mut_ptr()) == id);
    println!("the id is an index, too {}", control(id, by_index, words.as_mut_ptr()) == id);
    report("no such index", control(0x7abc, any, words.as_mut_ptr()));
    report("removed", remove(id));
}

pub(super) fn permissions() {
    let id = get(key(), PAGE, CREAT | 0o640);
    let (by_index, any) = BY_INDEX[0];
    let mut place: Words = [0; 16];
    let words = place.as_mut_ptr();
    in_child("a stranger", || {
        drop_root();
        report("found without rights", i64::from(get(key(), 0, 0) == id));
        report("found to read", get(key(), 0, 0o400));
        report("attached", at(id, 0, 0));
        report("attached to read", at(id, 0, RDONLY));
        report("status", control(id, STAT, words));
        report("status by index", control(id & 0x7fff, by_index, words));
        report("any status", i64::from(control(id & 0x7fff, any, words) == id));
        report("set", control(id, SET, words));
        report("removed", remove(id));
        report("locked", control(id, LOCK, std::ptr::null_mut()));
        0
    });
    in_child("one of the group", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("attached", at(id, 0, 0));
        report("attached to read", i64::from(at(id, 0, RDONLY) > 0));
        report("to execute", at(id, 0, RDONLY | EXEC));
        0
    });
    let mut change = stat(id);
    change[0] = change[0] & 0xffff_ffff | 1000 << 32;
    report("given away", control(id, SET, change.as_mut_ptr()));
    in_child("the owner", || {
        drop_root();
        report("attached", i64::from(at(id, 0, 0) > 0));
        report("removed", remove(id));
        0
    });
    report("gone", get(key(), 0, 0));
}

pub(super) fn lock() {
    let id = segment(4);
    let lock = |command: i64| control(id, command, std::ptr::null_mut());
    report("locked", lock(LOCK));
    println!("{}", perm(&stat(id)));
    report("locked again", lock(LOCK));
    report("unlocked", lock(UNLOCK));
    report("unlocked again", lock(UNLOCK));
    println!("{}", perm(&stat(id)));
    in_child("a user's", || {
        drop_root();
        let limit = |bytes: u64| sys!(libc::SYS_setrlimit, libc::RLIMIT_MEMLOCK, [bytes, bytes].as_ptr());
        let own = segment(4);
        report("limit", limit(5 * 4096));
        report("locked", control(own, LOCK, std::ptr::null_mut()));
        let more = segment(2);
        report("more than the limit", control(more, LOCK, std::ptr::null_mut()));
        report("limit", limit(0));
        report("locked without a limit", control(more, LOCK, std::ptr::null_mut()));
        report("unlocked", control(own, UNLOCK, std::ptr::null_mut()));
        report("somebody else's", lock(LOCK));
        report("removed", remove(own));
        report("removed", remove(more));
        0
    });
    report("removed", remove(id));
}

/// A word in a segment is one word, wherever it is attached.
pub(super) fn futex() {
    let id = segment(1);
    let (one, two) = (at(id, 0, 0), at(id, 0, 0));
    let waits = Helper::start(|| show(sys!(libc::SYS_futex, one, libc::FUTEX_WAIT, 0, 0, 0, 0)));
    report("woken", sys!(libc::SYS_futex, two, libc::FUTEX_WAKE, 9, 0, 0, 0));
    println!("{}", waits.end());
    report("removed", remove(id));
}

/// The segment's line in /proc/sysvipc/shm, and where nothing shows of it.
pub(super) fn proc() {
    let id = get(key(), 2 * PAGE + 1, CREAT | 0o604);
    let base = at(id, 0, 0);
    poke(base, 1);
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    println!("{}", text.lines().next().unwrap_or_default());
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    let line = line.unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    println!("{} words, length {}", words.len(), line.len());
    println!("{} {} attached {} {:?} rss {}", words[2], words[3], words[6], &words[7..11], words[14]);
    report("removed", remove(id));
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    println!("{} {}", words[0], words[2]);
}
