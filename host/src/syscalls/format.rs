//! How an argument is printed: the vocabulary of the table's last column.

/// A bit or value and its name.
pub type Name = (u64, &'static str);

/// How strace prints one argument. `Out*` formats are read after the call, the others before it.
#[derive(Clone, Copy, serde::Serialize)]
pub enum ArgFormat {
    /// Signed decimal.
    Int,
    /// Unsigned decimal (32 bits).
    Uint,
    /// Unsigned decimal (64 bits).
    Size,
    /// Hexadecimal.
    Hex,
    /// Octal file mode.
    Mode,
    /// An address.
    Ptr,
    /// A descriptor.
    Fd,
    /// A descriptor or `AT_FDCWD`.
    DirFd,
    /// A path.
    Path,
    /// Another string.
    Str,
    /// Bytes whose length is the argument named.
    InBuf(usize),
    /// Bytes that the call returns; its result is their number, the argument named their limit.
    OutBuf(usize),
    /// `iovec`s whose number is the argument named, holding what the call reads.
    InIov(usize),
    /// `iovec`s whose number is the argument named, for what the call returns.
    OutIov(usize),
    /// Names joined by `|`.
    Flags(&'static [Name]),
    /// An access mode and `open` flags.
    OpenFlags,
    /// The mode of a file that may be made: the argument before it says whether.
    OpenMode,
    /// A socket type and its flags.
    SocketType,
    /// One name.
    Enum(&'static [Name]),
    /// A signal number.
    Signal,
    /// A signal set.
    SigSet,
    /// A signal set that the call returns.
    OutSigSet,
    /// `struct sigaction`.
    SigAction,
    /// `struct sigaction` that the call returns.
    OutSigAction,
    /// A vector of strings.
    Argv,
    /// A vector of strings, of which only the number is printed.
    EnvCount,
    /// `struct timespec`.
    TimeSpec,
    /// `struct timespec` that the call returns.
    OutTimeSpec,
    /// `struct timeval`.
    TimeVal,
    /// `struct timeval` that the call returns.
    OutTimeVal,
    /// `struct stat` that the call returns.
    Stat,
    /// A wait status that the call returns.
    OutStatus,
    /// Two descriptors that the call returns.
    OutFdPair,
    /// An `int` that the call returns.
    OutInt,
    /// `struct pollfd`s whose number is the argument named.
    PollFds(usize),
    /// `struct epoll_event`.
    Epoll,
    /// `struct epoll_event`s that the call returns.
    OutEpoll,
    /// A socket address whose length is the argument named.
    SockAddr(usize),
    /// `struct rlimit`.
    Rlimit,
    /// `struct rlimit` that the call returns.
    OutRlimit,
    /// `struct clone_args` whose size is the argument named.
    CloneArgs(usize),
    /// A futex operation.
    Futex,
}
