//! The host calls that the kernel makes once programs run: call, condition, who needs it. All others end the sandbox.

use crate::arch::MACHINE;
use crate::hostsys::cpu;
use crate::sandbox::Network;
use linux_raw_sys::general::{__NR_fchmodat2, AT_FDCWD};
use linux_raw_sys::ioctl as i;

/// What an argument (its number, and the low half of it, which is all that these calls look at) must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// This.
    Is(u8, u32),
    /// Not this.
    IsNot(u8, u32),
    /// This in these bits: argument, bits, value.
    Bits(u8, u32, u32),
    /// This process.
    Own(u8),
}

use When::{Bits, Is, IsNot, Own};

/// A host call, and what must hold of its arguments. A call may have several rows: one must hold.
pub(super) type Row = (i64, &'static [When]);

/// A call with any arguments.
const fn any(call: i64) -> Row {
    (call, &[])
}

const fn request(only: &'static [When]) -> Row {
    (libc::SYS_ioctl, only)
}

/// What host files are opened with: to be read, and not through a link. Directories that are held are the only way in.
const OPEN: When = Bits(
    2,
    WRITES | (libc::O_NOFOLLOW | libc::O_CLOEXEC) as u32,
    (libc::O_NOFOLLOW | libc::O_CLOEXEC) as u32,
);
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u32;
/// How pthread_create(3) makes threads.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;
const EXEC: u32 = libc::PROT_EXEC as u32;

/// On both platforms.
const EVERYWHERE: &[Row] = &[
    // Standard input, output and error, and files of the host: fs::{host, hostio, hostterm, layer}, mm::raw.
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_lseek),
    any(libc::SYS_ppoll),
    any(libc::SYS_fsync),
    any(libc::SYS_ftruncate),
    any(libc::SYS_close),
    (libc::SYS_fcntl, &[Is(1, libc::F_GETFL as u32)]),
    // std, of its own descriptors, in builds with debug assertions.
    (libc::SYS_fcntl, &[Is(1, libc::F_GETFD as u32)]),
    (libc::SYS_openat, &[OPEN, IsNot(0, AT_FDCWD as u32)]),
    any(libc::SYS_statx),
    any(libc::SYS_fstatfs),
    any(libc::SYS_readlinkat),
    any(libc::SYS_getdents64),
    // The caller's terminal: fs::hostterm, hostsys::tty.
    request(&[Is(1, i::TCGETS)]),
    request(&[Is(1, i::TCSETS)]),
    request(&[Is(1, i::TCSETSW)]),
    request(&[Is(1, i::TCSETSF)]),
    request(&[Is(1, i::TCGETS2)]),
    request(&[Is(1, i::TCSETS2)]),
    request(&[Is(1, i::TCSETSW2)]),
    request(&[Is(1, i::TCSETSF2)]),
    request(&[Is(1, i::TCGETA)]),
    request(&[Is(1, i::TCSETA)]),
    request(&[Is(1, i::TCSETAW)]),
    request(&[Is(1, i::TCSETAF)]),
    request(&[Is(1, i::TIOCGWINSZ)]),
    request(&[Is(1, i::TIOCSWINSZ)]),
    request(&[Is(1, i::TIOCGPGRP)]),
    request(&[Is(1, i::TIOCGETD)]),
    request(&[Is(1, i::TIOCOUTQ)]),
    request(&[Is(1, i::FIONREAD)]),
    request(&[Is(1, i::SIOCATMARK)]),
    request(&[Is(1, i::TCXONC)]),
    request(&[Is(1, i::TCFLSH)]),
    request(&[Is(1, i::TCSBRK)]),
    request(&[Is(1, i::TCSBRKP)]),
    any(libc::SYS_getpgid),
    // Waiting: sync, kernel::{poller, sched}; the last one goes on with a wait after a stop.
    any(libc::SYS_futex),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_sched_yield),
    any(libc::SYS_restart_syscall),
    // The kernel's clock and random numbers; a vDSO that has no clock makes a call of it.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_getrandom),
    any(libc::SYS_sysinfo),
    // Memory, none of which can be executed: arena, mm.
    (libc::SYS_mmap, &[Bits(2, EXEC, 0)]),
    (libc::SYS_mprotect, &[Bits(2, EXEC, 0)]),
    any(libc::SYS_munmap),
    any(libc::SYS_madvise),
    (libc::SYS_membarrier, &[Is(0, 1)]),
    (libc::SYS_membarrier, &[Is(0, 2)]),
    // Threads: workers, the ticker (arena::thread, libc).
    (libc::SYS_clone, &[Is(0, THREAD)]),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    (libc::SYS_prctl, &[Is(0, libc::PR_SET_NAME as u32)]),
    any(libc::SYS_gettid),
    any(libc::SYS_getpid),
    any(libc::SYS_exit),
    // Signals: kicks, faults, stopping with the caller's job, abort(3).
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_sigaltstack),
    (libc::SYS_rt_sigaction, &[Is(0, libc::SIGABRT as u32)]),
    (libc::SYS_tgkill, &[Own(0)]),
    any(libc::SYS_exit_group),
];

/// Directories of the host that programs see as they are: fs::through.
const TREES: &[Row] =
    &[any(libc::SYS_fstatfs), any(libc::SYS_fgetxattr), any(libc::SYS_flistxattr), any(libc::SYS_syncfs)];

/// Those among them that programs write to: fs::through. Where a call takes a directory it is one that is held, and nothing
/// but the directories that are written can be changed by them: mounts and Landlock keep that.
const WRITTEN: &[Row] = &[
    (libc::SYS_openat, &[Bits(2, TRUNCATES | NO_LINK, NO_LINK), IsNot(0, AT_FDCWD as u32)]),
    (libc::SYS_mkdirat, &[IsNot(0, AT_FDCWD as u32)]),
    // No devices.
    (libc::SYS_mknodat, &[IsNot(0, AT_FDCWD as u32), Bits(2, libc::S_IFMT, libc::S_IFIFO)]),
    (libc::SYS_mknodat, &[IsNot(0, AT_FDCWD as u32), Bits(2, libc::S_IFMT, libc::S_IFSOCK)]),
    (libc::SYS_symlinkat, &[IsNot(1, AT_FDCWD as u32)]),
    // Of a name as it is, not of what a link leads to.
    (libc::SYS_linkat, &[IsNot(0, AT_FDCWD as u32), IsNot(2, AT_FDCWD as u32), Bits(4, FOLLOW, 0)]),
    (libc::SYS_unlinkat, &[IsNot(0, AT_FDCWD as u32)]),
    (libc::SYS_renameat2, &[IsNot(0, AT_FDCWD as u32), IsNot(2, AT_FDCWD as u32)]),
    any(libc::SYS_fchmod),
    // What the descriptor stands for, whatever the name says.
    (__NR_fchmodat2 as i64, &[IsNot(0, AT_FDCWD as u32), Is(3, libc::AT_EMPTY_PATH as u32)]),
    (libc::SYS_fchownat, &[IsNot(0, AT_FDCWD as u32), Is(4, libc::AT_EMPTY_PATH as u32)]),
    (libc::SYS_utimensat, &[IsNot(0, AT_FDCWD as u32), Is(3, libc::AT_EMPTY_PATH as u32)]),
    any(libc::SYS_fallocate),
    any(libc::SYS_fsetxattr),
    any(libc::SYS_fremovexattr),
];
const NO_LINK: u32 = (libc::O_NOFOLLOW | libc::O_CLOEXEC) as u32;
const TRUNCATES: u32 = (libc::O_TRUNC | libc::O_APPEND) as u32;
const FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;

/// Stubs: platform::systrap. Which processes they are the filter cannot know: signals that they get, and no others.
const SYSTRAP: &[Row] = &[
    any(libc::SYS_wait4),
    any(libc::SYS_sched_setaffinity),
    (libc::SYS_tgkill, &[Is(2, 0)]),
    (libc::SYS_tgkill, &[Is(2, libc::SIGURG as u32)]),
    (libc::SYS_kill, &[Is(1, libc::SIGKILL as u32)]),
    (libc::SYS_kill, &[Is(1, libc::SIGSTOP as u32)]),
    (libc::SYS_kill, &[Is(1, libc::SIGCONT as u32)]),
];

/// KVM on both architectures: running, and a worker's set-up of its own vCPU.
const KVM: &[Row] = &[
    // KVM_RUN.
    request(&[Is(1, 0xae80)]),
    // KVM_CREATE_VCPU.
    request(&[Is(1, 0xae41)]),
];

const KVM_X86_64: &[Row] = &[
    // KVM_INTERRUPT, KVM_NMI.
    request(&[Is(1, 0x4004_ae86)]),
    request(&[Is(1, 0xae9a)]),
    // Set-up: KVM_SET_CPUID2, KVM_GET_SREGS, KVM_SET_SREGS, KVM_SET_XCRS, KVM_SET_MSRS, KVM_SET_DEVICE_ATTR, KVM_SET_REGS.
    request(&[Is(1, 0x4008_ae90)]),
    request(&[Is(1, 0x8138_ae83)]),
    request(&[Is(1, 0x4138_ae84)]),
    request(&[Is(1, 0x4188_aea7)]),
    request(&[Is(1, 0x4008_ae89)]),
    request(&[Is(1, 0x4018_aee1)]),
    request(&[Is(1, 0x4090_ae82)]),
];

const KVM_AARCH64: &[Row] = &[
    // KVM_IRQ_LINE, KVM_SET_VCPU_EVENTS.
    request(&[Is(1, 0x4008_ae61)]),
    request(&[Is(1, 0x4040_aea0)]),
    // Set-up: KVM_GET_ONE_REG, KVM_SET_ONE_REG.
    request(&[Is(1, 0x4010_aeab)]),
    request(&[Is(1, 0x4010_aeac)]),
];

/// Sockets, where there is an outside: hostsys::socket. TCP, UDP and pings, which do not wait.
const NETWORK: &[Row] = &[
    (libc::SYS_socket, &[Is(0, libc::AF_INET as u32), Is(1, STREAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET as u32), Is(1, DATAGRAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET6 as u32), Is(1, STREAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET6 as u32), Is(1, DATAGRAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET as u32), Is(1, DATAGRAM), Is(2, libc::IPPROTO_ICMP as u32)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET6 as u32), Is(1, DATAGRAM), Is(2, libc::IPPROTO_ICMPV6 as u32)]),
    any(libc::SYS_connect),
    any(libc::SYS_bind),
    any(libc::SYS_listen),
    (libc::SYS_accept4, &[Is(3, SOCKET_FLAGS as u32)]),
    any(libc::SYS_sendmsg),
    any(libc::SYS_sendto),
    any(libc::SYS_recvmsg),
    any(libc::SYS_shutdown),
    any(libc::SYS_getsockname),
    any(libc::SYS_getpeername),
    any(libc::SYS_setsockopt),
    any(libc::SYS_getsockopt),
];
/// The same where a warden connects them: what is left is connected already and reaches nobody else. So nothing is sent to an
/// address (in sendto(2) one of length 0 is none; messages lie in memory, where a filter cannot look), nor with MSG_FASTOPEN,
/// by which a socket whose connection is over makes another. And no option has a route in it (IP_OPTIONS, IPV6_RTHDR).
const WALLED: &[Row] = &[
    (libc::SYS_accept4, &[Is(3, SOCKET_FLAGS as u32)]),
    (libc::SYS_sendto, &[Is(5, 0), Bits(3, libc::MSG_FASTOPEN as u32, 0)]),
    any(libc::SYS_recvmsg),
    any(libc::SYS_shutdown),
    any(libc::SYS_getsockname),
    any(libc::SYS_getpeername),
    any(libc::SYS_getsockopt),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_KEEPALIVE as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_OOBINLINE as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_RCVLOWAT as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_SNDBUF as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_RCVBUF as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_REUSEADDR as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_REUSEPORT as u32)]),
    (libc::SYS_setsockopt, &[Is(1, SOCKET), Is(2, libc::SO_LINGER as u32)]),
    (libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_TCP as u32), IsNot(2, libc::TCP_REPAIR as u32)]),
    (libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_IP as u32), Is(2, libc::IP_TOS as u32)]),
    (libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_IP as u32), Is(2, libc::IP_TTL as u32)]),
];
const SOCKET: u32 = libc::SOL_SOCKET as u32;
/// What a warden calls: no file, no process, sockets of the internet and pairs.
pub(super) const WARDEN: &[Row] = &[
    (libc::SYS_socket, &[Is(0, libc::AF_INET as u32), Is(1, STREAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET as u32), Is(1, DATAGRAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET6 as u32), Is(1, STREAM), Is(2, 0)]),
    (libc::SYS_socket, &[Is(0, libc::AF_INET6 as u32), Is(1, DATAGRAM), Is(2, 0)]),
    (libc::SYS_socketpair, &[Is(0, libc::AF_UNIX as u32)]),
    (libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_IP as u32), Is(2, libc::IP_MULTICAST_LOOP as u32)]),
    (libc::SYS_setsockopt, &[Is(1, libc::IPPROTO_IPV6 as u32), Is(2, libc::IPV6_MULTICAST_LOOP as u32)]),
    any(libc::SYS_connect),
    any(libc::SYS_getsockname),
    any(libc::SYS_sendmsg),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendto),
    any(libc::SYS_recvfrom),
    any(libc::SYS_ppoll),
    // The log, and what std asks of a descriptor.
    any(libc::SYS_write),
    any(libc::SYS_writev),
    any(libc::SYS_close),
    (libc::SYS_fcntl, &[Is(1, libc::F_DUPFD_CLOEXEC as u32)]),
    (libc::SYS_fcntl, &[Is(1, libc::F_GETFD as u32)]),
    any(libc::SYS_prlimit64),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_clock_gettime),
    any(libc::SYS_getrandom),
    any(libc::SYS_futex),
    (libc::SYS_mmap, &[Bits(2, EXEC, 0)]),
    (libc::SYS_mprotect, &[Bits(2, EXEC, 0)]),
    any(libc::SYS_munmap),
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
    any(libc::SYS_brk),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_exit_group),
];
/// Requests from outside: sandbox::control. The one socket that there is, where there is no network.
const REQUESTS: &[Row] = &[any(libc::SYS_recvmsg)];
const SOCKET_FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
const STREAM: u32 = (libc::SOCK_STREAM | SOCKET_FLAGS) as u32;
const DATAGRAM: u32 = (libc::SOCK_DGRAM | SOCKET_FLAGS) as u32;

/// Calls that fail as where there is none: the arguments lie in memory, where a filter cannot look, and libc then makes another.
pub(super) const ABSENT: &[i64] = &[libc::SYS_clone3];

/// What a worker calls on one architecture only.
const OWN: &[Row] = match cpu::OWN_CALLS {
    [] => &[],
    [(call, first)] => &[(*call, &[Is(0, *first)])],
    _ => panic!("one call at most"),
};

/// What sandboxes differ in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// What programs reach.
    pub(super) network: Network,
    /// A warden connects them.
    pub(super) walled: bool,
    /// Requests come from outside.
    pub(super) asked: bool,
    /// Directories of the host that programs see as they are.
    pub(super) trees: Trees,
}

/// Directories of the host that programs see as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trees {
    /// None.
    #[default]
    None,
    /// None that they write to.
    Read,
    /// Some that they write to.
    Written,
}

/// The rows for a platform on this machine.
pub(super) fn rows(platform: &str, needs: Needs) -> impl Iterator<Item = Row> {
    let platform: &[&[Row]] = match (platform, MACHINE) {
        ("kvm", "x86_64") => &[KVM, KVM_X86_64],
        ("kvm", _) => &[KVM, KVM_AARCH64],
        _ => &[SYSTRAP],
    };
    let sockets = match (needs.network, needs.walled) {
        (Network::None, _) => &[],
        (Network::Host, false) => NETWORK,
        (Network::Host, true) => WALLED,
    };
    let requests = if needs.asked { REQUESTS } else { &[] };
    let seen = if needs.trees >= Trees::Read { TREES } else { &[] };
    let written = if needs.trees >= Trees::Written { WRITTEN } else { &[] };
    // KVM_RUN first: what a call's argument may be is compared in this order.
    platform.iter().copied().chain([EVERYWHERE, seen, written, sockets, requests, OWN]).flatten().copied()
}
