//! Locks whose owner the kernel knows: futexes with priority inheritance, and robust ones of both kinds.

use crate::Case;
use crate::sys::{self, in_child, report};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("lock_pi_word", word),
    ("lock_pi_errors", errors),
    ("lock_pi_handed_over", handed_over),
    ("lock_pi_timeouts", timeouts),
    ("lock_pi_circle", circle),
    ("lock_pi_owner_dies", owner_dies),
    ("lock_pi_owner_executes", owner_executes),
    ("lock_pi_signals", signals),
    ("lock_pi_shared", shared),
    ("lock_mutex_inherits", mutex),
    ("lock_mutex_robust", robust_mutex),
    ("lock_mutex_condvar", condvar),
];

const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;
const LOCK: i32 = libc::FUTEX_LOCK_PI | PRIVATE;
const TRY: i32 = libc::FUTEX_TRYLOCK_PI | PRIVATE;
const UNLOCK: i32 = libc::FUTEX_UNLOCK_PI | PRIVATE;
/// Not in libc yet.
const FUTEX_LOCK_PI2: i32 = 13;

fn futex(word: &AtomicU32, operation: i32, time: i64) -> i64 {
    sys!(libc::SYS_futex, word.as_ptr(), operation, 0, time, 0, 0)
}

fn tid() -> u32 {
    sys!(libc::SYS_gettid) as u32
}

/// What a word holds, without the numbers that differ from run to run.
fn shown(word: &AtomicU32) -> String {
    let value = word.load(SeqCst);
    let owner = match value & !(WAITERS | OWNER_DIED) {
        0 => "nobody",
        id if id == tid() => "me",
        _ => "another",
    };
    let waiters = if value & WAITERS != 0 { ", waiters" } else { "" };
    let died = if value & OWNER_DIED != 0 { ", owner died" } else { "" };
    format!("{owner}{waiters}{died}")
}

/// Waits until the word says that somebody waits.
fn contended(word: &AtomicU32) {
    while word.load(SeqCst) & WAITERS == 0 {
        std::thread::yield_now();
    }
}

/// Waits until the thread of this process whose id `place` is going to hold waits.
fn asleep(place: &AtomicU32) {
    while place.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    sys::until_asleep(sys!(libc::SYS_getpid), place.load(SeqCst).into());
}

fn word() {
    let lock = AtomicU32::new(0);
    report("lock", futex(&lock, LOCK, 0));
    println!("{}", shown(&lock));
    report("again", futex(&lock, LOCK, 0));
    report("try again", futex(&lock, TRY, 0));
    report("unlock", futex(&lock, UNLOCK, 0));
    println!("{}", shown(&lock));
    report("unlock again", futex(&lock, UNLOCK, 0));
    report("try", futex(&lock, TRY, 0));
    println!("{}", shown(&lock));
    // As a C library does it when nobody waits.
    lock.store(0, SeqCst);
    report("lock after that", futex(&lock, LOCK, 0));
    // Left over from waiters that gave up.
    lock.store(WAITERS | tid(), SeqCst);
    report("unlock with the bit", futex(&lock, UNLOCK, 0));
    println!("{}", shown(&lock));
    for value in [WAITERS, OWNER_DIED, WAITERS | OWNER_DIED] {
        lock.store(value, SeqCst);
        report("lock nobody's", futex(&lock, LOCK, 0));
        println!("{}", shown(&lock));
        report("unlock", futex(&lock, UNLOCK, 0));
        println!("{}", shown(&lock));
    }
}

fn errors() {
    let lock = AtomicU32::new(0);
    report("odd address", sys!(libc::SYS_futex, lock.as_ptr() as i64 + 1, LOCK, 0, 0, 0, 0));
    report("bad address", sys!(libc::SYS_futex, 8, LOCK, 0, 0, 0, 0));
    report("unlock at a bad address", sys!(libc::SYS_futex, 8, UNLOCK, 0, 0, 0, 0));
    let constant = sys::mmap(0, 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    report("read-only", sys!(libc::SYS_futex, constant, LOCK, 0, 0, 0, 0));
    let bad = [0_i64, 1_000_000_000];
    report("bad time", futex(&lock, LOCK, bad.as_ptr() as i64));
    // Nobody has such an id.
    lock.store(4_000_000, SeqCst);
    report("no such owner", futex(&lock, LOCK, 0));
    report("try", futex(&lock, TRY, 0));
    report("not mine", futex(&lock, UNLOCK, 0));
    // A thread that ended without unlocking.
    lock.store(std::thread::spawn(tid).join().expect("a thread"), SeqCst);
    // It may leave a moment after it was joined.
    while sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), lock.load(SeqCst), 0) == 0 {
        std::thread::yield_now();
    }
    report("ended", futex(&lock, LOCK, 0));
    let clocks = libc::FUTEX_CLOCK_REALTIME;
    for operation in [libc::FUTEX_WAIT, libc::FUTEX_WAKE, LOCK, TRY, UNLOCK, libc::FUTEX_REQUEUE] {
        report(&format!("operation {operation} by the other clock"), futex(&lock, operation | clocks, 0));
    }
}

fn handed_over() {
    let lock = AtomicU32::new(0);
    futex(&lock, LOCK, 0);
    let order = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 1..=3 {
            let (lock, order, id) = (&lock, &order, std::sync::Arc::new(AtomicU32::new(0)));
            let own = id.clone();
            scope.spawn(move || {
                own.store(tid(), SeqCst);
                let result = futex(lock, LOCK, 0);
                order.lock().expect("a lock").push((n, result, shown(lock)));
                futex(lock, UNLOCK, 0)
            });
            // One after the other, so that the order is known.
            asleep(&id);
        }
        println!("{}", shown(&lock));
        let other = scope.spawn(|| (futex(&lock, TRY, 0), shown(&lock)));
        let (result, seen) = other.join().expect("a thread");
        println!("try: {} {seen}", sys::show(result));
        report("plain wake", futex(&lock, libc::FUTEX_WAKE | PRIVATE, 0));
        report("unlock", futex(&lock, UNLOCK, 0));
    });
    for (n, result, seen) in order.lock().expect("a lock").iter() {
        println!("{n}: {} {seen}", sys::show(*result));
    }
    println!("{}", shown(&lock));
}

fn timeouts() {
    let lock = AtomicU32::new(0);
    futex(&lock, LOCK, 0);
    let after = |clock: i32, ms: i64| {
        let mut now = [0_i64; 2];
        sys!(libc::SYS_clock_gettime, clock, now.as_mut_ptr());
        let ns = now[1] + ms * 1_000_000;
        [now[0] + ns / 1_000_000_000, ns % 1_000_000_000]
    };
    let cases = [
        ("real time", LOCK, libc::CLOCK_REALTIME),
        ("monotonic time", FUTEX_LOCK_PI2 | PRIVATE, libc::CLOCK_MONOTONIC),
        ("real time, asked for", FUTEX_LOCK_PI2 | PRIVATE | libc::FUTEX_CLOCK_REALTIME, libc::CLOCK_REALTIME),
    ];
    for (name, operation, clock) in cases {
        let (result, long_enough, not_long) = std::thread::scope(|scope| {
            let wait = || {
                let start = Instant::now();
                let until = after(clock, 30);
                let result = futex(&lock, operation, until.as_ptr() as i64);
                (
                    result,
                    start.elapsed() >= Duration::from_millis(29),
                    start.elapsed() < Duration::from_secs(60),
                )
            };
            scope.spawn(wait).join().expect("a thread")
        });
        println!("{name}: {} {long_enough} {not_long}", sys::show(result));
    }
    let past = [1_i64, 0];
    let late = || futex(&lock, LOCK, past.as_ptr() as i64);
    report("past", std::thread::scope(|scope| scope.spawn(late).join().expect("a thread")));
    println!("{}", shown(&lock));
    report("unlock", futex(&lock, UNLOCK, 0));
    println!("{}", shown(&lock));
}

fn circle() {
    let locks = [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)];
    let (locked, go) = (AtomicU32::new(0), AtomicBool::new(false));
    let ids = [AtomicU32::new(0), AtomicU32::new(0)];
    futex(&locks[0], LOCK, 0);
    std::thread::scope(|scope| {
        for n in 1..3 {
            let (locks, locked, go, id) = (&locks, &locked, &go, &ids[n - 1]);
            scope.spawn(move || {
                id.store(tid(), SeqCst);
                futex(&locks[n], LOCK, 0);
                locked.fetch_add(1, SeqCst);
                while !go.load(SeqCst) {
                    std::thread::yield_now();
                }
                // The second waits for the first's, the third for the second's.
                futex(&locks[n - 1], LOCK, 0);
                futex(&locks[n - 1], UNLOCK, 0);
                futex(&locks[n], UNLOCK, 0);
            });
        }
        while locked.load(SeqCst) != 2 {
            std::thread::yield_now();
        }
        go.store(true, SeqCst);
        contended(&locks[0]);
        contended(&locks[1]);
        ids.iter().for_each(asleep);
        report("the third's", futex(&locks[2], LOCK, 0));
        report("unlock", futex(&locks[0], UNLOCK, 0));
    });
    for lock in &locks {
        println!("{}", shown(lock));
    }
}

fn owner_dies() {
    let lock = AtomicU32::new(0);
    let locked = AtomicBool::new(false);
    let ids = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            futex(&lock, LOCK, 0);
            locked.store(true, SeqCst);
            contended(&lock);
            ids.iter().for_each(asleep);
        });
        while !locked.load(SeqCst) {
            std::thread::yield_now();
        }
        let waiters: Vec<_> = ids
            .iter()
            .map(|id| {
                let lock = &lock;
                scope.spawn(move || {
                    id.store(tid(), SeqCst);
                    let result = futex(lock, LOCK, 0);
                    let seen = shown(lock);
                    // Two of them may be the first.
                    futex(lock, UNLOCK, 0);
                    (result, seen)
                })
            })
            .collect();
        let mut ends: Vec<_> = waiters.into_iter().map(|w| w.join().expect("a thread")).collect();
        ends.sort();
        for (result, seen) in ends {
            println!("{} {seen}", sys::show(result));
        }
    });
    println!("{}", shown(&lock));
}

fn owner_executes() {
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let lock = move |operation: i32| sys!(libc::SYS_futex, area, operation, 0, 0, 0, 0);
    let parent = sys!(libc::SYS_getpid);
    let owner = sys::fork(|| {
        lock(libc::FUTEX_LOCK_PI);
        while sys::load::<u32>(area) & WAITERS == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        sys::until_asleep(parent, parent);
        // What it prints is nobody's business.
        sys::close(1);
        -crate::process::execute(crate::process::SELF, &["abi", "--list"], &[]) as i32
    });
    while sys::load::<u32>(area) == 0 {
        std::thread::yield_now();
    }
    let result = lock(libc::FUTEX_LOCK_PI);
    let value = sys::load::<u32>(area);
    report("lock", result);
    println!("mine {} died {}", value & !(WAITERS | OWNER_DIED) == tid(), value & OWNER_DIED != 0);
    println!("{}", sys::wait(owner).starts_with("exited"));
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HANDLED.fetch_add(1, SeqCst);
}

fn signals() {
    sys::handle(libc::SIGUSR1, count, 0);
    let lock = AtomicU32::new(0);
    futex(&lock, LOCK, 0);
    let id = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            id.store(tid(), SeqCst);
            let result = futex(&lock, LOCK, 0);
            (result, shown(&lock), futex(&lock, UNLOCK, 0))
        });
        contended(&lock);
        // The call goes on behind the handler, whatever the handler's flags.
        for n in 1..=3 {
            asleep(&id);
            sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), id.load(SeqCst), libc::SIGUSR1);
            while HANDLED.load(SeqCst) < n {
                std::thread::yield_now();
            }
        }
        asleep(&id);
        println!("waits {}", !waiter.is_finished());
        report("unlock", futex(&lock, UNLOCK, 0));
        let (result, seen, unlocked) = waiter.join().expect("a thread");
        println!("{} {seen} {}", sys::show(result), sys::show(unlocked));
    });
}

fn shared() {
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let lock = move |operation: i32| sys!(libc::SYS_futex, area, operation, 0, 0, 0, 0);
    let counter = area + 64;
    let children: Vec<i64> = (0..4)
        .map(|_| {
            sys::fork(|| {
                let mut good = 0;
                for _ in 0..200 {
                    good += i32::from(lock(libc::FUTEX_LOCK_PI) == 0);
                    let value: u64 = sys::load(counter);
                    std::thread::yield_now();
                    sys::store(counter, value + 1);
                    good += i32::from(lock(libc::FUTEX_UNLOCK_PI) == 0);
                }
                i32::from(good == 400)
            })
        })
        .collect();
    for child in children {
        println!("{}", sys::wait(child));
    }
    println!("{} {}", sys::load::<u64>(counter), sys::load::<u32>(area));
    in_child("killed", || {
        lock(libc::FUTEX_LOCK_PI);
        0
    });
    report("lock of the dead", lock(libc::FUTEX_LOCK_PI));
}

/// A mutex of the C library, in memory that children share.
struct Mutex(i64);

impl Mutex {
    fn new(robust: bool) -> Self {
        let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
        let mut attributes = [0_u64; 8];
        let at = attributes.as_mut_ptr().cast();
        // SAFETY: the attributes are large enough and ours, as is the mutex.
        let results = unsafe {
            [
                libc::pthread_mutexattr_init(at),
                libc::pthread_mutexattr_setprotocol(at, libc::PTHREAD_PRIO_INHERIT),
                libc::pthread_mutexattr_setpshared(at, libc::PTHREAD_PROCESS_SHARED),
                if robust { libc::pthread_mutexattr_setrobust(at, libc::PTHREAD_MUTEX_ROBUST) } else { 0 },
                libc::pthread_mutex_init(area as *mut _, at),
            ]
        };
        println!("made {results:?}");
        Mutex(area)
    }

    fn lock(&self) -> i32 {
        // SAFETY: a mutex that was initialised.
        unsafe { libc::pthread_mutex_lock(self.0 as *mut _) }
    }

    fn unlock(&self) -> i32 {
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_unlock(self.0 as *mut _) }
    }

    fn try_lock(&self) -> i32 {
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_trylock(self.0 as *mut _) }
    }

    fn consistent(&self) -> i32 {
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_consistent(self.0 as *mut _) }
    }
}

fn mutex() {
    let mutex = Mutex::new(false);
    let total = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    let locked = mutex.lock();
                    let before = total.load(SeqCst);
                    if n % 50 == 0 {
                        std::thread::yield_now();
                    }
                    total.store(before + 1 + u32::from(locked != 0) * 1_000_000, SeqCst);
                    mutex.unlock();
                }
            });
        }
    });
    println!("{}", total.load(SeqCst));
    println!("lock {} try {} unlock {}", mutex.lock(), mutex.try_lock(), mutex.unlock());
}

fn robust_mutex() {
    let mutex = Mutex::new(true);
    in_child("dies with it", || mutex.lock());
    println!("lock {}", mutex.lock() == libc::EOWNERDEAD);
    println!("consistent {} unlock {}", mutex.consistent(), mutex.unlock());
    println!("lock {} unlock {}", mutex.lock(), mutex.unlock());
    // While others wait for it.
    let (locks, says) = sys::pipe(0);
    let (told, tells) = sys::pipe(0);
    let owner = sys::fork(|| {
        let locked = mutex.lock();
        sys::write(says, b"x");
        sys::read(told, 1);
        locked
    });
    sys::read(locks, 1);
    let waiters: Vec<i64> = (0..2)
        .map(|_| {
            sys::fork(|| {
                let locked = mutex.lock();
                if locked == libc::EOWNERDEAD {
                    mutex.consistent();
                }
                i32::from(locked == libc::EOWNERDEAD) * 2 + mutex.unlock()
            })
        })
        .collect();
    waiters.iter().for_each(|pid| sys::until_asleep(*pid, *pid));
    sys::write(tells, b"x");
    println!("{}", sys::wait(owner));
    let mut ends: Vec<String> = waiters.into_iter().map(sys::wait).collect();
    ends.sort();
    println!("{ends:?}");
    // Given up by an owner that does not make it whole again.
    in_child("dies with it", || mutex.lock());
    println!("lock {} unlock {}", mutex.lock() == libc::EOWNERDEAD, mutex.unlock());
    println!("lock {}", mutex.lock() == libc::ENOTRECOVERABLE);
}

fn condvar() {
    let mutex = Mutex::new(false);
    let area = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let turns = AtomicU32::new(0);
    // SAFETY: zeroed memory is a condition variable of the default kind.
    let (wait, wake) = (
        || unsafe { libc::pthread_cond_wait(area as *mut _, mutex.0 as *mut _) },
        || unsafe { libc::pthread_cond_broadcast(area as *mut _) },
    );
    std::thread::scope(|scope| {
        for own in 0..2 {
            let (mutex, turns, wait, wake) = (&mutex, &turns, &wait, &wake);
            scope.spawn(move || {
                for _ in 0..200 {
                    mutex.lock();
                    while turns.load(SeqCst) % 2 != own {
                        wait();
                    }
                    turns.fetch_add(1, SeqCst);
                    wake();
                    mutex.unlock();
                }
            });
        }
    });
    println!("{}", turns.load(SeqCst));
}
