//! Pipes: order, blocking, ends, capacity.

use crate::Case;
use crate::sys::{self, close, fork, in_child, pipe, report, report_read, show, wait, write};

pub(crate) const CASES: &[Case] = &[
    ("pipe_bad_memory", bad_memory),
    ("pipe_basic", basic),
    ("pipe_nonblocking", nonblocking),
    ("pipe_blocking", blocking),
    ("pipe_capacity", capacity),
    ("pipe_ping_pong", ping_pong),
    ("pipe_many_writers", many_writers),
    ("pipe_bulk", bulk),
    ("pipe_closed_while_waiting", closed_while_waiting),
];

fn basic() {
    let (read_end, write_end) = pipe(libc::O_CLOEXEC);
    report("write", write(write_end, b"hello world"));
    report_read("some", read_end, 5);
    report_read("the rest", read_end, 50);
    report("read from the write end", sys::read(write_end, 1).0);
    report("write to the read end", write(read_end, b"x"));
    report("flag", sys!(libc::SYS_fcntl, read_end, libc::F_GETFD));
    close(write_end);
    report_read("end", read_end, 5);
    report("bad flags", {
        let mut fds = [0_i32; 2];
        sys!(libc::SYS_pipe2, fds.as_mut_ptr(), 1)
    });
}

fn nonblocking() {
    let (read_end, write_end) = pipe(libc::O_NONBLOCK);
    report_read("empty", read_end, 5);
    let page = vec![b'x'; 4096];
    let mut total = 0;
    loop {
        let result = write(write_end, &page);
        if result < 0 {
            report("full", result);
            break;
        }
        total += result;
    }
    println!("held {total}");
    sys::read(read_end, 4095);
    report("no room for an atomic write", write(write_end, &page));
    sys::read(read_end, 1);
    report("room", write(write_end, &page));
    let mut waiting = 0_i32;
    sys!(libc::SYS_ioctl, read_end, libc::FIONREAD, &raw mut waiting);
    println!("FIONREAD {waiting}");
}

fn blocking() {
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        write(write_end, b"late");
        0
    });
    report_read("waited", read_end, 10);
    println!("{}", wait(pid));
    let pid = fork(|| {
        let data = vec![b'z'; 200_000];
        report("a long write", write(write_end, &data));
        0
    });
    let mut total = 0;
    while total < 200_000 {
        let (count, bytes) = sys::read(read_end, 7000);
        if !bytes.iter().all(|b| *b == b'z') {
            println!("wrong bytes");
        }
        total += count;
    }
    println!("{total} {}", wait(pid));
}

fn capacity() {
    let (read_end, write_end) = pipe(0);
    report("F_GETPIPE_SZ", sys!(libc::SYS_fcntl, read_end, libc::F_GETPIPE_SZ));
    report("F_SETPIPE_SZ", sys!(libc::SYS_fcntl, write_end, libc::F_SETPIPE_SZ, 10_000));
    report("F_GETPIPE_SZ", sys!(libc::SYS_fcntl, read_end, libc::F_GETPIPE_SZ));
    report("of a file", sys!(libc::SYS_fcntl, sys::open("/dev/null", 0, 0), libc::F_GETPIPE_SZ));
}

fn ping_pong() {
    let (a_read, a_write) = pipe(0);
    let (b_read, b_write) = pipe(0);
    let pid = fork(|| {
        close(a_write);
        close(b_read);
        loop {
            let (count, bytes) = sys::read(a_read, 1);
            if count == 0 {
                return 0;
            }
            write(b_write, &[bytes[0].wrapping_add(1)]);
        }
    });
    close(a_read);
    close(b_write);
    let mut value = 0_u8;
    for _ in 0..2000 {
        write(a_write, &[value]);
        value = sys::read(b_read, 1).1[0].wrapping_add(1);
    }
    close(a_write);
    println!("{value} {}", wait(pid));
}

fn many_writers() {
    let (read_end, write_end) = pipe(0);
    let pids: Vec<i64> = (0..8_u8)
        .map(|n| {
            fork(|| {
                // Writes up to PIPE_BUF are atomic: lines never mix.
                let line = [[b'a' + n; 99].as_slice(), b"\n"].concat();
                (0..50).for_each(|_| _ = write(write_end, &line));
                0
            })
        })
        .collect();
    close(write_end);
    let mut text = Vec::new();
    loop {
        let (count, bytes) = sys::read(read_end, 777);
        if count == 0 {
            break;
        }
        text.extend(bytes);
    }
    let whole = text.split(|b| *b == b'\n').filter(|l| l.len() == 99 && l.iter().all(|b| *b == l[0])).count();
    println!("{} bytes {whole} whole lines", text.len());
    pids.iter().for_each(|pid| print!("{} ", wait(*pid)));
    println!();
}

fn bulk() {
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        close(read_end);
        let data: Vec<u8> = (0..65_536_u32).map(|n| (n % 253) as u8).collect();
        (0..40).for_each(|_| {
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                rest = &rest[write(write_end, rest).max(0) as usize..];
            }
        });
        0
    });
    close(write_end);
    let (mut total, mut good) = (0_usize, true);
    loop {
        let (count, bytes) = sys::read(read_end, 10_000);
        if count <= 0 {
            break;
        }
        good &= bytes.iter().enumerate().all(|(at, b)| *b == ((total + at) % 65_536 % 253) as u8);
        total += count as usize;
    }
    println!("{total} {good} {}", wait(pid));
}

fn closed_while_waiting() {
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        close(read_end);
        std::thread::sleep(std::time::Duration::from_millis(10));
        0
    });
    close(write_end);
    // The only writer left is the child, which goes away without writing.
    report_read("end", read_end, 1);
    println!("{}", wait(pid));
    in_child("writer", || {
        sys::action(libc::SIGPIPE, libc::SIG_IGN, 0, &[]);
        let (read_end, write_end) = pipe(0);
        let writer = sys!(libc::SYS_getpid);
        let reader = fork(|| {
            let mut waiting = 0_i32;
            while waiting < 65_536 {
                std::thread::yield_now();
                sys!(libc::SYS_ioctl, read_end, libc::FIONREAD, &raw mut waiting);
            }
            sys::until_asleep(writer, writer);
            0
        });
        close(read_end);
        let data = vec![0_u8; 1 << 20];
        // Blocks for want of room until the last reader goes.
        let result = write(write_end, &data);
        println!("partial {} {}", result == 65_536, wait(reader));
        report("then", write(write_end, b"x"));
        0
    });
}

/// Memory that ends in the middle of what is to be read or written: what counts of it.
fn bad_memory() {
    let area = sys::memory(3 * 4096);
    sys!(libc::SYS_munmap, area + 2 * 4096, 4096);
    let end = area + 2 * 4096;
    for (before, len) in
        [(0, 1), (8, 16), (8, 8), (1000, 5000), (4096, 4097), (4100, 4200), (5000, 9000), (8192, 8193)]
    {
        let (reading, writing) = sys::pipe(libc::O_NONBLOCK);
        println!("{before} of {len}: pipe {}", show(sys!(libc::SYS_write, writing, end - before, len)));
        let mut waiting = 0_i32;
        sys!(libc::SYS_ioctl, reading, libc::FIONREAD, &raw mut waiting);
        println!("  {waiting} in it");
        let (reading, writing) = sys::pipe(libc::O_NONBLOCK);
        sys::write(writing, &vec![7; len as usize]);
        println!("  read {}", show(sys!(libc::SYS_read, reading, end - before, len)));
        sys!(libc::SYS_ioctl, reading, libc::FIONREAD, &raw mut waiting);
        println!("  {waiting} left");
        let file = sys!(libc::SYS_memfd_create, c"file".as_ptr(), 0);
        println!("  file {}", show(sys!(libc::SYS_write, file, end - before, len)));
        println!("  at {}", show(sys!(libc::SYS_lseek, file, 0, libc::SEEK_CUR)));
    }
}
