//! Packet mode, and requests about a pair.

use super::{IFLAG, Pty, ask, ioctl, open_slave, tell};
use crate::sys::{self, in_child, report, report_ok};

// asm-generic/ioctls.h, where libc has no name or another type.
const TIOCSIG: u32 = 0x4004_5436;
const TIOCGPTPEER: u32 = 0x5441;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGEXCL: u32 = 0x8004_5440;

pub(super) fn packets() {
    let pty = Pty::new();
    println!("TIOCGPKT {:?}", ask(pty.master, TIOCGPKT));
    report("on", tell(pty.master, libc::TIOCPKT as u32, 1));
    println!("TIOCGPKT {:?}", ask(pty.master, TIOCGPKT));
    report("on a slave", tell(pty.slave, libc::TIOCPKT as u32, 1));
    sys::write(pty.slave, b"data");
    let mut one = [pty.master as u32, u32::from((libc::POLLIN | libc::POLLPRI) as u16)];
    let mut show = |what: &str| {
        // What is told comes as it comes.
        sys!(libc::SYS_ppoll, one.as_mut_ptr(), 1, 0, 0, 8);
        let (_, bytes) = sys::read(pty.master, 10);
        println!("{what}: events {:x}, {bytes:?}", one[1] >> 16);
    };
    show("data");
    ioctl(pty.slave, libc::TCFLSH as u32, 0);
    show("input flushed");
    ioctl(pty.slave, libc::TCFLSH as u32, 2);
    show("both flushed");
    pty.keys("\x13");
    show("stopped");
    pty.keys("\x11");
    show("started");
    pty.flags(IFLAG, 0, libc::IXON);
    show("no flow control");
    pty.flags(IFLAG, libc::IXON, 0);
    show("flow control");
    report("off", tell(pty.master, libc::TIOCPKT as u32, 0));
    sys::write(pty.slave, b"plain");
    sys::report_read("off", pty.master, 10);
}

pub(super) fn requests() {
    let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0);
    println!("locked {:?}", ask(master, TIOCGPTLCK));
    report("a locked one", open_slave(master, libc::O_NOCTTY));
    report("the peer of a locked one", ioctl(master, TIOCGPTPEER, (libc::O_RDWR | libc::O_NOCTTY).into()));
    tell(master, libc::TIOCSPTLCK as u32, 0);
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let slave = ioctl(master, TIOCGPTPEER, flags.into());
    report_ok("the peer", slave);
    report("its flags", sys!(libc::SYS_fcntl, slave, libc::F_GETFD));
    report("the peer of a slave", ioctl(slave, TIOCGPTPEER, flags.into()));
    for (name, request) in [
        ("TIOCGETD", libc::TIOCGETD as u32),
        ("TIOCOUTQ", libc::TIOCOUTQ as u32),
        ("TIOCMGET", libc::TIOCMGET as u32),
        ("TIOCGEXCL", TIOCGEXCL),
        ("TIOCGPTN of a slave", libc::TIOCGPTN as u32),
    ] {
        println!("{name}: {:?}", ask(slave, request));
    }
    report("TIOCSETD 0", tell(slave, libc::TIOCSETD as u32, 0));
    ioctl(slave, libc::TIOCEXCL as u32, 0);
    println!("of a slave {:?}, of the master {:?}", ask(slave, TIOCGEXCL), ask(master, TIOCGEXCL));
    report("TIOCSIG SIGHUP", ioctl(master, TIOCSIG, libc::SIGHUP.into()));
    report("TIOCSIG SIGINT", ioctl(master, TIOCSIG, libc::SIGINT.into()));
    in_child("an ordinary user", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("exclusive", open_slave(master, libc::O_NOCTTY));
        0
    });
}
