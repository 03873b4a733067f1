//! Threads and futexes.

use crate::Case;
use crate::sys::{self, in_child, report};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("thread_basic", basic),
    ("thread_many", many),
    ("thread_mutex", mutex),
    ("thread_condvar", condvar),
    ("thread_channel", channel),
    ("thread_locals", locals),
    ("thread_identity", identity),
    ("futex_errors", futex_errors),
    ("futex_wait_wake", wait_wake),
    ("futex_timeouts", timeouts),
    ("futex_requeue", requeue),
    ("futex_bitset", bitset),
    ("futex_shared", shared),
    ("futex_exit_clears", exit_clears),
    ("futex_robust", robust),
    ("thread_parallel_faults", parallel_faults),
    ("thread_fork_in_thread", fork_in_thread),
];

fn basic() {
    let thread = std::thread::spawn(|| 6 * 7);
    println!("{:?}", thread.join().ok());
    let mut data = vec![1, 2, 3];
    std::thread::scope(|scope| {
        scope.spawn(|| data.push(4));
    });
    println!("{data:?}");
}

fn many() {
    let total = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..50_u64)
        .map(|n| {
            let total = total.clone();
            std::thread::spawn(move || (0..100).for_each(|k| _ = total.fetch_add(n * k, SeqCst)))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().expect("a thread"));
    println!("{}", total.load(SeqCst));
    // One after another: stacks are reused.
    (0..100).for_each(|_| std::thread::spawn(|| ()).join().expect("a thread"));
    println!("done");
}

fn mutex() {
    let value = Mutex::new(0_u64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20_000).for_each(|_| *value.lock().expect("a lock") += 1));
        }
    });
    println!("{}", value.lock().expect("a lock"));
}

fn condvar() {
    let pair = (Mutex::new(0_u32), Condvar::new());
    std::thread::scope(|scope| {
        for own in 0..2_u32 {
            let pair = &pair;
            scope.spawn(move || {
                for _ in 0..500 {
                    let mut turn = pair.0.lock().expect("a lock");
                    while *turn % 2 != own {
                        turn = pair.1.wait(turn).expect("a lock");
                    }
                    *turn += 1;
                    pair.1.notify_one();
                }
            });
        }
    });
    println!("{}", pair.0.lock().expect("a lock"));
    let barrier = Barrier::new(8);
    let leaders = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    println!("{}", leaders.load(SeqCst));
}

fn channel() {
    let (sender, receiver) = mpsc::sync_channel::<u64>(4);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..1000).for_each(|n| sender.send(n).expect("a receiver")))
        })
        .collect();
    drop(sender);
    println!("{}", receiver.iter().sum::<u64>());
    threads.into_iter().for_each(|t| t.join().expect("a thread"));
}

fn locals() {
    use std::cell::Cell;
    thread_local! {
        static VALUE: Cell<u32> = const { Cell::new(7) };
    }
    VALUE.set(1);
    let other = std::thread::spawn(|| {
        let before = VALUE.get();
        VALUE.set(2);
        (before, VALUE.get())
    });
    println!("{:?} {}", other.join().ok(), VALUE.get());
    in_child("forked", || VALUE.get() as i32);
}

fn identity() {
    let pid = sys!(libc::SYS_getpid);
    let tids: Vec<(i64, i64)> = (0..3)
        .map(|_| {
            std::thread::spawn(|| (sys!(libc::SYS_getpid), sys!(libc::SYS_gettid))).join().expect("a thread")
        })
        .collect();
    println!("{} {}", tids.iter().all(|t| t.0 == pid), tids.iter().all(|t| t.1 != pid));
    let count = std::thread::scope(|scope| {
        let (stop_sender, stop) = mpsc::channel::<()>();
        let (ready_sender, ready) = mpsc::channel();
        scope.spawn(move || {
            ready_sender.send(()).expect("a receiver");
            let _ended = stop.recv();
        });
        ready.recv().expect("a thread");
        // Threads that were joined before leave the list a moment later.
        let mut count = 0;
        for _try in 0..30_000 {
            count = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0);
            if count <= 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(stop_sender);
        count
    });
    println!("{count}");
}

fn futex(word: &AtomicU32, operation: i32, value: u32, time: i64, word2: i64, value3: u32) -> i64 {
    sys!(libc::SYS_futex, word.as_ptr(), operation, value, time, word2, value3)
}

const WAIT: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

fn futex_errors() {
    let word = AtomicU32::new(5);
    report("another value", futex(&word, WAIT, 4, 0, 0, 0));
    report("nobody", futex(&word, WAKE, 10, 0, 0, 0));
    report("odd address", sys!(libc::SYS_futex, word.as_ptr() as i64 + 1, WAIT, 5, 0, 0, 0));
    report("bad address", sys!(libc::SYS_futex, 8, WAIT, 5, 0, 0, 0));
    report("bad operation", futex(&word, 99, 5, 0, 0, 0));
    report("no bits", futex(&word, libc::FUTEX_WAIT_BITSET, 5, 0, 0, 0));
    let bad = [0_i64, 1_000_000_000];
    report("bad time", futex(&word, WAIT, 5, bad.as_ptr() as i64, 0, 0));
    report("robust list", sys!(libc::SYS_set_robust_list, 8, 7));
}

/// Threads that are about to wait, by their ids.
#[derive(Default)]
struct Sleepers(Mutex<Vec<i64>>);

impl Sleepers {
    /// The calling thread is going to wait.
    fn enter(&self) {
        self.0.lock().expect("a lock").push(sys!(libc::SYS_gettid));
    }

    /// Waits until so many threads wait.
    fn until_asleep(&self, count: usize) {
        while self.0.lock().expect("a lock").len() < count {
            std::thread::yield_now();
        }
        let pid = sys!(libc::SYS_getpid);
        self.0.lock().expect("a lock").iter().for_each(|tid| sys::until_asleep(pid, *tid));
    }
}

fn wait_wake() {
    let word = AtomicU32::new(0);
    let asleep = Sleepers::default();
    std::thread::scope(|scope| {
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    asleep.enter();
                    futex(&word, WAIT, 0, 0, 0, 0)
                })
            })
            .collect();
        asleep.until_asleep(4);
        report("one", futex(&word, WAKE, 1, 0, 0, 0));
        report("the others", futex(&word, WAKE, 100, 0, 0, 0));
        report("nobody", futex(&word, WAKE, 100, 0, 0, 0));
        for sleeper in sleepers {
            report("woken", sleeper.join().expect("a thread"));
        }
    });
}

fn timeouts() {
    let word = AtomicU32::new(0);
    let start = Instant::now();
    let time = [0_i64, 20_000_000];
    report("relative", futex(&word, WAIT, 0, time.as_ptr() as i64, 0, 0));
    println!("slept {}", start.elapsed() >= Duration::from_millis(20));
    let mut now = [0_i64; 2];
    sys!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, now.as_mut_ptr());
    let until = [now[0], now[1] + 5_000_000];
    let until = [until[0] + until[1] / 1_000_000_000, until[1] % 1_000_000_000];
    let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    report("absolute", futex(&word, operation, 0, until.as_ptr() as i64, 0, !0));
    report("past", futex(&word, operation, 0, now.as_ptr() as i64, 0, !0));
    let zero = [0_i64; 2];
    report("zero", futex(&word, WAIT, 0, zero.as_ptr() as i64, 0, 0));
}

fn requeue() {
    let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
    let asleep = Sleepers::default();
    std::thread::scope(|scope| {
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    asleep.enter();
                    futex(&first, WAIT, 0, 0, 0, 0)
                })
            })
            .collect();
        asleep.until_asleep(4);
        let operation = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
        report("another value", futex(&first, operation, 1, 10, second.as_ptr() as i64, 9));
        report("one woken, the rest moved", futex(&first, operation, 1, 10, second.as_ptr() as i64, 0));
        report("none here", futex(&first, WAKE, 100, 0, 0, 0));
        report("three there", futex(&second, WAKE, 100, 0, 0, 0));
        sleepers.into_iter().for_each(|s| report("woken", s.join().expect("a thread")));
    });
}

fn bitset() {
    let word = AtomicU32::new(0);
    let asleep = Sleepers::default();
    std::thread::scope(|scope| {
        let sleepers: Vec<_> = [1_u32, 2]
            .map(|bits| {
                let (word, asleep) = (&word, &asleep);
                scope.spawn(move || {
                    asleep.enter();
                    futex(word, libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG, 0, 0, 0, bits)
                })
            })
            .into_iter()
            .collect();
        asleep.until_asleep(2);
        let wake = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
        report("other bits", futex(&word, wake, 10, 0, 0, 4));
        report("the second", futex(&word, wake, 10, 0, 0, 2));
        report("the first", futex(&word, wake, 10, 0, 0, 1));
        sleepers.into_iter().for_each(|s| report("woken", s.join().expect("a thread")));
    });
}

fn shared() {
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let pid = sys::fork(|| {
        let time = [1000_i64, 0];
        sys!(libc::SYS_futex, area, libc::FUTEX_WAIT, 0, time.as_ptr(), 0, 0) as i32
    });
    let mut woken = 0;
    while woken == 0 {
        std::thread::yield_now();
        woken = sys!(libc::SYS_futex, area, libc::FUTEX_WAKE, 1, 0, 0, 0);
    }
    println!("woken {woken} {}", sys::wait(pid));
    let private = sys::memory(4096);
    let pid = sys::fork(|| sys!(libc::SYS_futex, private, libc::FUTEX_WAIT, 0, 0, 0, 0) as i32);
    sys::until_asleep(pid, pid);
    report("private memory is not shared", sys!(libc::SYS_futex, private, libc::FUTEX_WAKE, 1, 0, 0, 0));
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("{}", sys::wait(pid));
}

fn exit_clears() {
    // What pthread_join relies on: the kernel clears the word that set_tid_address named, and wakes it.
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    sys::poke(area, 1);
    let pid = sys::fork(|| {
        let tid = sys!(libc::SYS_set_tid_address, area);
        i32::from(tid == sys!(libc::SYS_gettid))
    });
    println!("{}", sys::wait(pid));
    // A process of its own, with memory that nobody else has mapped, clears nothing; only shared address spaces do.
    println!("{}", sys::peek(area));
}

fn robust() {
    // The list head: next, offset of the futex word, pending. One entry whose word holds our tid.
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let put = |at: i64, value: u64| {
        value.to_ne_bytes().iter().enumerate().for_each(|(n, b)| sys::poke(at + n as i64, *b))
    };
    let (head, entry) = (area, area + 64);
    let pid = sys::fork(|| {
        put(head, entry as u64);
        put(head + 8, 16);
        put(head + 16, 0);
        put(entry, head as u64);
        put(entry + 16, sys!(libc::SYS_gettid) as u64);
        report("set_robust_list", sys!(libc::SYS_set_robust_list, head, 24));
        3
    });
    println!("{}", sys::wait(pid));
    println!("owner died {}", sys::load::<u32>(entry + 16) & 0x4000_0000 != 0);
    println!("owner {}", sys::load::<u32>(entry + 16) & 0x3fff_ffff == pid as u32);
    // Lists that end beyond the end of all addresses: nobody else notices.
    for head in [-1_i64, -8, -16, i64::MAX - 8, i64::MIN] {
        sys::in_child("a list nowhere", || {
            report("set_robust_list", sys!(libc::SYS_set_robust_list, head, 24));
            7
        });
    }
}

fn parallel_faults() {
    let area = sys::memory(1024 * 4096);
    let barrier = Barrier::new(4);
    let good = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for own in 0..4_i64 {
            let (barrier, good) = (&barrier, &good);
            scope.spawn(move || {
                barrier.wait();
                for page in 0..1024 {
                    sys::poke(area + page * 4096 + own, own as u8 + 1);
                }
                barrier.wait();
                let fine = (0..1024).all(|p| (0..4).all(|n| sys::peek(area + p * 4096 + n) == n as u8 + 1));
                good.fetch_add(u32::from(fine), SeqCst);
            });
        }
    });
    println!("{}", good.load(SeqCst));
    // One maps and unmaps while others do the same elsewhere.
    std::thread::scope(|scope| {
        for own in 0..4_u8 {
            scope.spawn(move || {
                for _ in 0..100 {
                    let area = sys::memory(8 * 4096);
                    (0..8).for_each(|p| sys::poke(area + p * 4096, own));
                    assert!((0..8).all(|p| sys::peek(area + p * 4096) == own));
                    sys!(libc::SYS_munmap, area, 8 * 4096);
                }
            });
        }
    });
    println!("done");
}

fn fork_in_thread() {
    let result = std::thread::spawn(|| {
        let pid = sys::fork(|| {
            let only = sys!(libc::SYS_gettid) == sys!(libc::SYS_getpid);
            i32::from(only)
        });
        sys::wait(pid)
    });
    println!("{:?}", result.join().ok());
}
