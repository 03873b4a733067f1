//! What is known about a signal: `siginfo_t`.

use super::set::SIGCHLD;
use crate::cred::userns::UserNs;

/// `si_code` values (asm-generic/siginfo.h).
pub mod code {
    /// Sent by kill(2).
    pub const SI_USER: i32 = 0;
    /// Sent by the kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// Sent by sigqueue(3).
    pub const SI_QUEUE: i32 = -1;
    /// A POSIX timer.
    pub const SI_TIMER: i32 = -2;
    /// Sent by tkill(2).
    pub const SI_TKILL: i32 = -6;
    /// A child exited.
    pub const CLD_EXITED: i32 = 1;
    /// A child was killed.
    pub const CLD_KILLED: i32 = 2;
    /// A child was killed and dumped core.
    pub const CLD_DUMPED: i32 = 3;
    /// A tracee stopped.
    pub const CLD_TRAPPED: i32 = 4;
    /// A child stopped.
    pub const CLD_STOPPED: i32 = 5;
    /// A child continued.
    pub const CLD_CONTINUED: i32 = 6;
    /// Address not mapped.
    pub const SEGV_MAPERR: i32 = 1;
    /// Address mapped without the right.
    pub const SEGV_ACCERR: i32 = 2;
    /// Beyond the end of a mapped file.
    pub const BUS_ADRERR: i32 = 2;
}

/// Size of `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// One signal and what is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// Its number.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The rest, by kind.
    pub fields: Fields,
}

/// The union in `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the siginfo_t fields")]
pub enum Fields {
    None,
    Kill { pid: i32, uid: u32 },
    Queue { pid: i32, uid: u32, value: u64 },
    Timer { id: i32, overrun: i32, value: u64 },
    Child { pid: i32, uid: u32, status: i32, utime: i64, stime: i64 },
    Fault { addr: u64 },
    Poll { band: i64, fd: i32 },
    Syscall { addr: u64, number: i32, arch: u32 },
    Raw([u64; 14]),
}

impl SigInfo {
    /// Sent by the kernel, nothing else known.
    pub fn kernel(signo: i32) -> Self {
        SigInfo { signo, errno: 0, code: code::SI_KERNEL, fields: Fields::None }
    }

    /// The same with its user as a user namespace calls him.
    #[must_use]
    pub fn told_in(mut self, user_ns: &UserNs) -> Self {
        if let Fields::Kill { uid, .. } | Fields::Queue { uid, .. } | Fields::Child { uid, .. } =
            &mut self.fields
        {
            *uid = user_ns.show_uid(*uid);
        }
        self
    }

    /// The same as written by a program of a user namespace: by the kernel's number of the user whom it names.
    #[must_use]
    pub fn said_in(mut self, user_ns: &UserNs) -> Self {
        if let Fields::Kill { uid, .. } | Fields::Queue { uid, .. } | Fields::Child { uid, .. } =
            &mut self.fields
            && !user_ns.is_first()
        {
            *uid = user_ns.uid(*uid).unwrap_or(u32::MAX);
        }
        self
    }

    /// Sent by kill(2) or, with `SI_TKILL`, tkill(2).
    pub fn user(signo: i32, code: i32, pid: i32, uid: u32) -> Self {
        SigInfo { signo, errno: 0, code, fields: Fields::Kill { pid, uid } }
    }

    /// Caused by an access or an instruction.
    pub fn fault(signo: i32, code: i32, addr: u64) -> Self {
        SigInfo { signo, errno: 0, code, fields: Fields::Fault { addr } }
    }

    /// About a child.
    pub fn child(code: i32, pid: i32, uid: u32, status: i32) -> Self {
        let fields = Fields::Child { pid, uid, status, utime: 0, stime: 0 };
        SigInfo { signo: SIGCHLD, errno: 0, code, fields }
    }

    /// Whether the kernel made it (as opposed to a program's claim).
    pub fn from_kernel(&self) -> bool {
        self.code > 0
    }

    /// As the program sees it.
    pub fn to_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut out = Writer { bytes: [0; SIGINFO_SIZE], at: 0 };
        out.i32(self.signo).i32(self.errno).i32(self.code).i32(0);
        match self.fields {
            Fields::None => &mut out,
            Fields::Kill { pid, uid } => out.i32(pid).u32(uid),
            Fields::Queue { pid, uid, value } => out.i32(pid).u32(uid).u64(value),
            Fields::Timer { id, overrun, value } => out.i32(id).i32(overrun).u64(value),
            Fields::Child { pid, uid, status, utime, stime } => {
                out.i32(pid).u32(uid).i32(status).i32(0).u64(utime as u64).u64(stime as u64)
            }
            Fields::Fault { addr } => out.u64(addr),
            Fields::Poll { band, fd } => out.u64(band as u64).i32(fd),
            Fields::Syscall { addr, number, arch } => out.u64(addr).i32(number).u32(arch),
            Fields::Raw(words) => {
                for word in words {
                    out.u64(word);
                }
                &mut out
            }
        };
        out.bytes
    }

    /// As a program wrote it (rt_sigqueueinfo).
    pub fn from_bytes(signo: i32, bytes: &[u8; SIGINFO_SIZE]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(core::array::from_fn(|i| bytes[at + i]));
        let fields = Fields::Raw(core::array::from_fn(|i| word(16 + i * 8)));
        SigInfo { signo, errno: (word(0) >> 32) as i32, code: word(8) as i32, fields }
    }
}

struct Writer {
    bytes: [u8; SIGINFO_SIZE],
    at: usize,
}

impl Writer {
    fn put(&mut self, value: &[u8]) -> &mut Self {
        self.bytes[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, SigInfo, code};

    #[test]
    fn layout_is_linux() {
        let child = SigInfo::child(code::CLD_EXITED, 7, 8, 9).to_bytes();
        let int = |at: usize| i32::from_ne_bytes([child[at], child[at + 1], child[at + 2], child[at + 3]]);
        assert_eq!((int(0), int(4), int(8), int(16), int(20), int(24)), (17, 0, 1, 7, 8, 9));
        let fault = SigInfo::fault(11, code::SEGV_MAPERR, 0x1234_5678_9abc);
        assert_eq!(fault.to_bytes()[16..24], 0x1234_5678_9abcu64.to_ne_bytes());
    }

    #[test]
    fn queued_by_a_program_survives() {
        let fields = Fields::Queue { pid: 3, uid: 4, value: 5 };
        let sent = SigInfo { signo: 34, errno: 6, code: code::SI_QUEUE, fields };
        let back = SigInfo::from_bytes(34, &sent.to_bytes());
        assert_eq!(back.to_bytes(), sent.to_bytes());
    }
}
