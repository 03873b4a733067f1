//! The same call a thousand times: a platform may do something about calls that are made often, and nobody may notice,
//! whatever happens around them.

use crate::Case;
use crate::sys::{self, fork, handle, memory, mmap, wait};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("calls_often", often),
    ("calls_and_signals", signals),
    ("calls_and_forks", forks),
    ("calls_and_programs", programs),
    ("calls_of_threads", threads),
    ("calls_with_bad_pointers", bad_pointers),
    ("calls_in_code_that_changes", code_that_changes),
    ("calls_in_code_of_a_file", code_of_a_file),
    ("calls_restarted", restarted),
];

const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
/// Memory that code anywhere in the program can jump to, where there is such a thing.
#[cfg(target_arch = "x86_64")]
const LOW: i32 = libc::MAP_32BIT;
#[cfg(target_arch = "aarch64")]
const LOW: i32 = 0;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn parent() -> i32 {
    std::os::unix::process::parent_id().cast_signed()
}

/// How many of `times` calls are answered with `want`.
fn right(times: u32, want: i32) -> u32 {
    (0..times).map(|_| u32::from(own_pid() == want)).sum()
}

fn often() {
    let (pid, above) = (own_pid(), parent());
    println!("{} of 3000", right(3000, pid));
    // Floating point across the calls.
    let (mut sum, mut good) = (0.0, 0);
    for n in 0..3000 {
        sum += f64::from(n) * 0.5;
        good += u32::from(parent() == above);
        sum -= f64::from(n) * 0.25;
    }
    println!("{good} of 3000, {sum}");
    println!("{} keep registers", (0..500).filter(|seed| sys::keeps_registers(*seed)).count());
    let zero = File::open("/dev/zero").expect("zeroes");
    let good = (0..2000).filter(|_| {
        let mut byte = [1];
        std::io::Read::read(&mut &zero, &mut byte).is_ok_and(|n| n == 1 && byte == [0])
    });
    println!("{} of 2000 reads", good.count());
}

static CAME: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);
static PID: AtomicU64 = AtomicU64::new(0);
/// How many signals of a timer are still wanted: on a slow machine a program would do nothing but handle them.
static WANTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn calls_too(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAME.fetch_add(1, Ordering::Relaxed);
    let want = PID.load(Ordering::Relaxed) as i32;
    if right(3, want) != 3 {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn calls_by_timer(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    calls_too(signal, info, context);
    if WANTED.fetch_sub(1, Ordering::Relaxed) <= 1 {
        timer(0, 0);
    }
}

/// Every so many microseconds a signal, so many of them.
fn timer(micros: i64, wanted: i32) {
    WANTED.store(wanted, Ordering::Relaxed);
    let times = [0, micros, 0, micros];
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, times.as_ptr(), 0);
}

/// Calls and computes for `time`, and until the timer's signals have come; false if something was wrong.
fn calls_for(time: Duration) -> bool {
    let (pid, above) = (own_pid(), parent());
    let start = Instant::now();
    let (mut good, mut n) = (true, 0_u32);
    while start.elapsed() < time || WANTED.load(Ordering::Relaxed) > 0 {
        let x = f64::from(n).sqrt();
        good &= right(50, pid) == 50 && parent() == above;
        good &= f64::from(n).sqrt().to_bits() == x.to_bits();
        n += 1;
    }
    good
}

fn signals() {
    PID.store(own_pid() as u64, Ordering::Relaxed);
    // Not so often where one handler may interrupt another.
    for (flags, micros, wanted) in [(libc::SA_RESTART, 1000, 300), (libc::SA_NODEFER, 3000, 100)] {
        handle(libc::SIGALRM, calls_by_timer, flags);
        CAME.store(0, Ordering::Relaxed);
        timer(micros, wanted);
        let good = calls_for(Duration::from_millis(400));
        let came = CAME.load(Ordering::Relaxed);
        println!("good: {good}, signals came: {}, {} wrong", came >= 100, WRONG.load(Ordering::Relaxed));
    }
    // To itself.
    handle(libc::SIGUSR1, calls_too, 0);
    CAME.store(0, Ordering::Relaxed);
    let pid = own_pid();
    for _ in 0..1000 {
        sys!(libc::SYS_kill, pid, libc::SIGUSR1);
    }
    println!("{} of 1000 came, {} wrong", CAME.load(Ordering::Relaxed), WRONG.load(Ordering::Relaxed));
}

fn forks() {
    let pid = own_pid();
    let mut good = 0;
    for _ in 0..60 {
        let before = right(50, pid);
        let child = fork(|| {
            let own = own_pid();
            i32::from(own != pid && parent() == pid && right(200, own) == 200) + 1
        });
        good += u32::from(before == 50 && right(50, pid) == 50 && wait(child) == "exited 2");
    }
    println!("{good} of 60 rounds");
}

fn programs() {
    let mut good = 0;
    for _ in 0..10 {
        right(200, own_pid());
        let child = fork(|| {
            right(200, own_pid());
            -crate::process::execute(crate::process::SELF, &["abi", "calls_often"], &[]) as i32
        });
        good += u32::from(wait(child) == "exited 0");
    }
    println!("{good} of 10 ran");
}

fn threads() {
    let pid = own_pid();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            std::thread::spawn(move || {
                let mut sum = f64::from(n);
                let good = (0..40)
                    .filter(|_| {
                        sum += 0.125;
                        // Others come and go.
                        std::thread::spawn(move || right(20, pid)).join().is_ok_and(|good| good == 20)
                            && right(200, pid) == 200
                    })
                    .count();
                (good, sum)
            })
        })
        .collect();
    for thread in threads {
        println!("{:?}", thread.join().ok());
    }
}

fn bad_pointers() {
    let zero = sys::open("/dev/zero", libc::O_RDONLY, 0);
    // SAFETY: nothing else has it.
    let zero = unsafe { File::from_raw_fd(zero as i32) };
    let page = memory(8192);
    sys!(libc::SYS_munmap, page + 4096, 4096);
    let good = (0..600).filter(|n| {
        let at = [page, page + 4096, page + 4090][n % 3] as *mut libc::c_void;
        // SAFETY: what is not there the kernel notices.
        let got = unsafe { libc::read(zero.as_raw_fd(), at, 6) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        match n % 3 {
            1 => got == -1 && errno == Some(libc::EFAULT),
            _ => got == 6,
        }
    });
    println!("{} of 600", good.count());
}

/// A function that makes the call `number`, aligned as compilers do.
#[cfg(target_arch = "x86_64")]
fn calling(number: i64) -> Vec<u8> {
    let mut code = vec![0x90; 16];
    code.push(0xb8);
    code.extend((number as u32).to_le_bytes());
    code.extend([0x0f, 0x05, 0xc3]);
    code
}

/// A function that makes the call `number`.
#[cfg(target_arch = "aarch64")]
fn calling(number: i64) -> Vec<u8> {
    let words = [0xd280_0008 | (number as u32) << 5, 0xd400_0001, 0xd65f_03c0];
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

fn put(at: i64, code: &[u8]) {
    code.iter().enumerate().for_each(|(n, byte)| sys::poke(at + n as i64, *byte));
    sys::synchronize(at);
}

/// How often code at `at` returns `want`, of `times`.
fn jumps(at: i64, times: u32, want: i32) -> u32 {
    (0..times).map(|_| u32::from(sys::jump(at) == want)).sum()
}

fn code_that_changes() {
    let (pid, above) = (own_pid(), parent());
    let (gets_pid, gets_parent) = (calling(libc::SYS_getpid), calling(libc::SYS_getppid));
    for low in [0, LOW] {
        let area = mmap(0, 8192, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | low, -1, 0);
        put(area, &gets_pid);
        sys!(libc::SYS_mprotect, area, 4096, RX);
        println!("{} of 300", jumps(area, 300, pid));
        // What others see of it.
        let (output, input) = sys::pipe(0);
        println!("written: {}", sys!(libc::SYS_write, input, area, gets_pid.len()) == gets_pid.len() as i64);
        println!("as it is: {}", sys::read(output, 64).1 == gets_pid);
        let child = fork(|| i32::from(jumps(area, 300, own_pid()) == 300));
        println!("a child: {}", wait(child));
        sys!(libc::SYS_mprotect, area, 4096, RX | RW);
        put(area, &gets_parent);
        println!("changed: {} of 300", jumps(area, 300, above));
        sys!(libc::SYS_mprotect, area, 4096, RX);
        println!("protected: {} of 300", jumps(area, 300, above));
        // Every few calls.
        let good = (0..30).map(|n| {
            sys!(libc::SYS_mprotect, area, 4096, RW);
            put(area, if n % 2 == 0 { &gets_pid } else { &gets_parent });
            sys!(libc::SYS_mprotect, area, 4096, RX);
            jumps(area, 100, if n % 2 == 0 { pid } else { above })
        });
        println!("by turns: {} of 3000", good.sum::<u32>());
        let moved = memory(4096);
        sys!(libc::SYS_mremap, area, 4096, 4096, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, moved);
        println!("moved: {} of 300", jumps(moved, 300, above));
        let child = fork(|| sys::jump(area));
        println!("where it was: {}", wait(child));
        sys!(libc::SYS_madvise, moved, 4096, libc::MADV_DONTNEED);
        let child = fork(|| sys::jump(moved));
        println!("dropped: {}", wait(child).starts_with("killed"));
        sys!(libc::SYS_munmap, moved, 4096);
        sys::close(output);
        sys::close(input);
    }
}

fn code_of_a_file() {
    sys::scratch("calls");
    let (pid, above) = (own_pid(), parent());
    std::fs::write("text", calling(libc::SYS_getpid)).expect("a file");
    let fd = sys::open("text", libc::O_RDWR, 0);
    let private = mmap(0, 4096, RX, libc::MAP_PRIVATE, fd, 0);
    println!("private: {} of 300", jumps(private, 300, pid));
    let (run, write) =
        (mmap(0, 4096, RX, libc::MAP_SHARED, fd, 0), mmap(0, 4096, RW, libc::MAP_SHARED, fd, 0));
    println!("shared: {} of 300", jumps(run, 300, pid));
    println!("in the file: {}", std::fs::read("text").is_ok_and(|bytes| bytes == calling(libc::SYS_getpid)));
    put(write, &calling(libc::SYS_getppid));
    sys::synchronize(run);
    println!("changed: {} of 300", jumps(run, 300, above));
    sys::unscratch();
}

/// Blocking calls that signals interrupt are made again where they were.
fn restarted() {
    PID.store(own_pid() as u64, Ordering::Relaxed);
    handle(libc::SIGALRM, calls_by_timer, libc::SA_RESTART);
    let (mut output, mut input) = std::io::pipe().expect("a pipe");
    let child = fork(|| {
        let mut good = 0;
        for n in 0..100_u8 {
            std::thread::sleep(Duration::from_millis(2));
            good += i32::from(std::io::Write::write(&mut input, &[n]).is_ok());
        }
        good
    });
    let good = (0..100_u8).filter(|n| {
        let mut byte = [0];
        timer(300, 10);
        std::io::Read::read(&mut output, &mut byte).is_ok_and(|got| got == 1 && byte == [*n])
    });
    println!("{} of 100", good.count());
    timer(0, 0);
    println!("{}, {} wrong", wait(child), WRONG.load(Ordering::Relaxed));
}
