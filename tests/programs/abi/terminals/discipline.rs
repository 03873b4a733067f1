//! The line discipline: what it makes of keys and of what programs write.

use super::{IFLAG, LFLAG, Pty, ask, ioctl};
use crate::sys::{self, fork, report, wait};

// asm-generic/termbits.h, where libc has no name or another type.
const IUCLC: u32 = 0o1000;
const OLCUC: u32 = 0o2;
const XTABS: u32 = 0o14000;

const OFLAG: usize = 1;

pub(super) fn settings() {
    let pty = Pty::new();
    println!("{:x?}", pty.settings());
    let mut old = [0_u16; 9];
    report("TCGETA", ioctl(pty.master, 0x5405, old.as_mut_ptr() as i64));
    println!("{old:x?}");
    old[3] &= !(libc::ECHO as u16);
    report("TCSETA", ioctl(pty.slave, 0x5406, old.as_ptr() as i64));
    let mut raw = pty.settings();
    println!("{:o}", raw[LFLAG]);
    raw[2] = libc::CS5 | libc::PARENB | libc::B9600;
    pty.set(&raw);
    println!("{:o}", pty.settings()[2]);
    let mut locked = [1_u32; 9];
    report("TIOCGLCKTRMIOS", ioctl(pty.slave, libc::TIOCGLCKTRMIOS as u32, locked.as_mut_ptr() as i64));
    println!("{locked:?}");
}

pub(super) fn editing() {
    let pty = Pty::new();
    for keys in [
        "abc\x7f\x7fd\n",
        "one two_3 \x17X\n",
        "kill this\x15ok\n",
        "lit\x16\x03z\n",
        "re\x12\n",
        "a\tb\x7f\x7fc\n",
        "ab\x01\x7f\x7fc\n",
        "\x7f\n",
        "end\x04",
        "\x04",
        "cr\r",
    ] {
        pty.line(keys);
    }
    pty.flags(LFLAG, libc::ECHOPRT, 0);
    pty.line("abc\x7f\x7fd\x7f\n");
    pty.flags(LFLAG, 0, libc::ECHOPRT | libc::ECHOKE);
    pty.line("kill\x15ok\n");
    pty.flags(LFLAG, 0, libc::ECHOE);
    pty.line("abc\x7fd\n");
    pty.flags(LFLAG, libc::ECHONL, libc::ECHO);
    pty.line("silent\x7f\n");
    pty.keys("l1\nl2\nl3");
    pty.arrived(6);
    sys::report_read("a part of a line", pty.slave, 2);
    sys::report_read("the rest of it", pty.slave, 100);
    sys::report_read("another", pty.slave, 100);
    pty.keys("\x04");
    sys::report_read("without an end", pty.slave, 2);
    pty.keys("part");
    pty.flags(LFLAG, libc::ECHO, libc::ICANON);
    pty.arrived(4);
    sys::report_read("what was typed when lines end to be edited", pty.slave, 100);
}

pub(super) fn input_flags() {
    for (name, flag) in [
        ("ISTRIP", libc::ISTRIP),
        ("IUCLC", IUCLC),
        ("INLCR", libc::INLCR),
        ("IGNCR", libc::IGNCR),
        ("none", 0),
    ] {
        let pty = Pty::new();
        pty.flags(LFLAG, 0, libc::ECHO);
        pty.flags(IFLAG, flag, libc::ICRNL);
        pty.keys("AÄb\rC\n\x04\x04");
        let mut lines = Vec::new();
        loop {
            let (_, line) = sys::read(pty.slave, 100);
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        println!("{name}: {lines:?}");
    }
    let pty = Pty::new();
    pty.flags(IFLAG, libc::IUTF8, 0);
    pty.line("aé\u{7f}ü漢\u{7f}\n");
    pty.flags(LFLAG, 0, libc::ISIG);
    pty.line("no signal \x03\n");
}

pub(super) fn output_flags() {
    for (name, flag) in [
        ("OLCUC", OLCUC),
        ("OCRNL", libc::OCRNL),
        ("ONOCR", libc::ONOCR),
        ("ONLRET", libc::ONLRET),
        ("XTABS", XTABS),
    ] {
        let pty = Pty::new();
        pty.flags(OFLAG, flag, 0);
        sys::write(pty.slave, b"\ra\tb\rc\x08\n\rd\te");
        println!("{name}: {:?}", pty.shown());
    }
    let pty = Pty::new();
    pty.flags(OFLAG, 0, libc::ONLCR);
    sys::write(pty.slave, b"a\nb\rc");
    println!("no ONLCR: {:?}", pty.shown());
    pty.flags(OFLAG, 0, libc::OPOST);
    sys::write(pty.slave, b"a\tb\n");
    println!("no OPOST: {:?}", pty.shown());
}

pub(super) fn flow() {
    let pty = Pty::new();
    pty.keys("a\x13b");
    // The key works when it arrives.
    while pty.is_writable() {}
    nonblocking(pty.slave);
    report("write while stopped", sys::write(pty.slave, b"held"));
    pty.keys("\x11");
    while !pty.is_writable() {}
    report("write once it goes on", sys::write(pty.slave, b"y"));
    println!("{:?}", pty.shown());
    report("TCOOFF", ioctl(pty.slave, libc::TCXONC as u32, 0));
    report("write", sys::write(pty.slave, b"x"));
    report("TCOON", ioctl(pty.slave, libc::TCXONC as u32, 1));
    report("write", sys::write(pty.slave, b"x"));
    report("TCIOFF", ioctl(pty.slave, libc::TCXONC as u32, 2));
    report("TCXONC 4", ioctl(pty.slave, libc::TCXONC as u32, 4));
    println!("{:?}", pty.shown());
}

pub(super) fn timed_reads() {
    for (min, time, keys) in [
        (0, 0, ""),
        (0, 0, "x"),
        (0, 1, ""),
        (0, 1, "xy"),
        (1, 0, "x"),
        (1, 1, "xy"),
        (3, 1, "x"),
        (3, 1, "xyz"),
        (3, 0, "xyzt"),
    ] {
        let pty = Pty::new();
        pty.timed(min, time);
        pty.keys(keys);
        pty.arrived(keys.len() as i32);
        sys::report_read(&format!("min {min} time {time} {keys:?}"), pty.slave, 10);
    }
    let pty = Pty::new();
    pty.timed(3, 0);
    pty.keys("xy");
    pty.arrived(2);
    let poll = || {
        let mut one = [pty.slave as u32, u32::from(libc::POLLIN as u16)];
        let now = [0_i64; 2];
        sys!(libc::SYS_ppoll, one.as_mut_ptr(), 1, now.as_ptr(), 0, 8)
    };
    report("two of three, ready", poll());
    let child = fork(|| {
        sys::report_read("three, one late", pty.slave, 10);
        0
    });
    sys::until_asleep(child, child);
    pty.keys("z");
    println!("{}", wait(child));
    nonblocking(pty.slave);
    sys::report_read("nothing, not waiting", pty.slave, 10);
    pty.keys("xy");
    pty.arrived(2);
    sys::report_read("two of three, not waiting", pty.slave, 10);
    pty.timed(0, 0);
    sys::report_read("nothing wanted, not waiting", pty.slave, 10);
    pty.timed(0, 1);
    sys::report_read("timed, not waiting", pty.slave, 10);
}

pub(super) fn long_writes() {
    let pty = Pty::new();
    pty.flags(LFLAG, 0, libc::ECHO);
    nonblocking(pty.master);
    report("a long line", sys::write(pty.master, &[b'L'; 5000]));
    report("its end", sys::write(pty.master, b"\n"));
    let (result, line) = sys::read(pty.slave, 6000);
    println!("{result} {:?}", line.last());
    let full = loop {
        let result = sys::write(pty.master, &[b'x'; 1000]);
        if result < 0 {
            break result;
        }
        if result < 1000 {
            continue;
        }
        pty.flags(LFLAG, 0, libc::ICANON);
    };
    report("in the end", full);
    for (what, arg) in [("input", 0), ("output", 1), ("both", 2), ("neither", 3)] {
        report(what, ioctl(pty.slave, libc::TCFLSH as u32, arg));
    }
    // Ends of files are no bytes, and take room nevertheless; so do those of flow control.
    pty.flags(LFLAG, libc::ICANON, 0);
    let typed = (0..1000).take_while(|_| sys::write(pty.master, &[4; 1000]) > 0).count();
    println!("full of ends {}", typed < 1000);
    let stopped = (0..30_000).filter(|_| ioctl(pty.slave, libc::TCXONC as u32, 2) == 0).count();
    println!("full of {stopped} stops {}", ask(pty.master, libc::FIONREAD as u32).1 < 20_000);
    ioctl(pty.slave, libc::TCFLSH as u32, 2);
    // What was on its way to the line discipline comes to it now.
    while ask(pty.slave, libc::FIONREAD as u32).1 != 0 {
        ioctl(pty.slave, libc::TCFLSH as u32, 0);
    }
}

fn nonblocking(fd: i64) {
    sys!(libc::SYS_fcntl, fd, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK);
}
