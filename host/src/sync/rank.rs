//! The order in which locks are taken.

/// What a [`Lock`](super::Lock) guards, and its place in the order: who holds a lock may take those that stand below it
/// here, and no other. Two of one kind are held together only where [`Lock::lock_nested`](super::Lock::lock_nested) takes
/// the second. Debug builds check it at every lock that is taken.
///
/// A new one goes where the code that takes it needs it, which a debug build says. Where two orders are needed one of them is
/// wrong: take out what is wanted, let go, and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// Which containers there are (`sandbox`).
    Pod,
    /// Which tasks, groups and sessions there are (`kernel`).
    Tree,
    /// Epolls that watch epolls.
    EpollNesting,
    /// Renames of directories of a file system (`vfs`).
    Rename,
    /// Changes of mounts.
    MountEdit,
    /// Which mount namespaces there are.
    MountNamespaces,
    /// A mount namespace's root.
    NamespaceRoot,
    /// A mount namespace's mounts.
    NamespaceMounts,
    /// What a mount is on.
    MountPlace,
    /// What is mounted on a mount.
    MountCovered,
    /// A mount's peers.
    MountSharing,
    /// A process (`kernel::group`).
    Group,
    /// Who traces a task, and its stop for that.
    Trace,
    /// How the first program ended.
    Ended,
    /// A process's resource limits.
    Limits,
    /// How a process is judged when memory is short.
    OomScore,
    /// What a process's ended tasks have used.
    DeadUsage,
    /// A task's scheduling policy.
    Policy,
    /// A task's filters.
    Confinement,
    /// A task's list of semaphore operations to undo.
    TaskUndo,
    /// Load averages.
    Load,
    /// Processes that do not end.
    Hopeless,
    /// A process's interval timers.
    ProcessTimers,
    /// A POSIX timer.
    PosixTimer,
    /// A task's signals.
    Pending,
    /// Futexes that hand on priorities.
    PiFutexes,
    /// What a task shares with others: memory, descriptors, names.
    TaskResources,
    /// A task's root and working directory.
    FsPlaces,
    /// Host and domain name.
    Uts,
    /// What core dumps are called.
    CorePattern,
    /// Changes of a user namespace's maps.
    IdMaps,
    /// Semaphore sets.
    SemIds,
    /// Message queues.
    MsgIds,
    /// Limits of System V objects.
    IpcLimits,
    /// Names of POSIX message queues.
    MqNames,
    /// The next inode of such a queue.
    MqInodes,
    /// Limits of such queues.
    MqLimits,
    /// What users' queues count as.
    MqCounts,
    /// A semaphore set.
    SemSet,
    /// The sets on such a list.
    UndoSets,
    /// Where a waiting semaphore operation stands.
    SemAt,
    /// What came of one.
    SemOutcome,
    /// A message queue.
    MsgQueue,
    /// What came of waiting for a message.
    MsgOutcome,
    /// A POSIX message queue.
    MqQueue,
    /// What a sleeper at one was given.
    MqMail,
    /// Whether it was served.
    MqServed,
    /// An open directory's names.
    DirListing,
    /// A table of descriptors.
    FdTable,
    /// Whom an open file signals.
    SignalDriven,
    /// Where the locks on a file are kept.
    FileLockSlot,
    /// Which files have locks.
    LockTables,
    /// Locks on a file.
    FileLocks,
    /// Who waits for file locks.
    LockWaits,
    /// File systems that are to be taken apart.
    Ruins,
    /// Names in a directory.
    DentryChildren,
    /// A name, and the directory that it is in.
    DentryPlace,
    /// Names that were looked for in vain.
    Missing,
    /// A file system's options as text.
    MountOptions,
    /// Inodes with several names.
    LayerLinks,
    /// Directories of the host that are written through.
    ThroughTrees,
    /// Who changes names on which of the host's file systems.
    ThroughNaming,
    /// Which objects of the host have a node.
    ThroughNodes,
    /// Names of an inode that is the host's.
    ThroughAliases,
    /// Descriptors of a file that is written through.
    ThroughOpen,
    /// A directory of the host's, listed.
    LayerListing,
    /// A symbolic link's target.
    SymlinkTarget,
    /// By how much the clocks of a time namespace are put forward.
    TimeNamespace,
    /// Access control lists of an inode.
    FileAcls,
    /// A file system that is to be mounted.
    FsContext,
    /// Extended attributes.
    Xattrs,
    /// What those who open an inode share.
    InodeShared,
    /// How much room a host file system has.
    LowerRoom,
    /// Which host file systems are far.
    LowerReaches,
    /// Which host files have a descriptor.
    LowerCache,
    /// Who watches an inode.
    InodeMarks,
    /// An inotify instance.
    NotifyGroup,
    /// Inotify instances by user.
    NotifyUsers,
    /// An inode's times.
    InodeTimes,
    /// Files to be let go of.
    FlightGrave,
    /// Files on their way between programs.
    Flight,
    /// Names of Unix sockets without a file.
    AbstractNames,
    /// A Unix socket.
    UnixSocket,
    /// Which Unix sockets there are.
    UnixSockets,
    /// A netlink socket.
    Netlink,
    /// Which netlink sockets there are.
    NetlinkPorts,
    /// A TCP socket.
    TcpSocket,
    /// A TCP connection inside the sandbox.
    TcpConnection,
    /// A UDP socket.
    UdpSocket,
    /// A socket of ICMP.
    IcmpSocket,
    /// Which raw sockets there are.
    RawSockets,
    /// Ports in use.
    Ports,
    /// Who has joined which groups.
    Groups,
    /// Ports published outside, of TCP.
    Gates,
    /// Ports published outside, of UDP.
    Windows,
    /// Interfaces of all networks.
    Links,
    /// Those of one, as they are seen.
    LinksShown,
    /// Who was heard from outside.
    WindowHeard,
    /// What the host's network is asked by.
    Outer,
    /// What is published outside.
    Published,
    /// Connections with the warden.
    GuardEnds,
    /// What it is to be told of.
    GuardAccounts,
    /// A socket's options.
    SocketOptions,
    /// Chunks of buffers that were used before.
    SmallBlocks,
    /// A pseudo-terminal.
    Pty,
    /// Which pseudo-terminals there are.
    PtyTable,
    /// Whose sessions they have.
    PtyKernel,
    /// A pipe.
    Pipe,
    /// A host file's descriptor.
    LowerFd,
    /// An eventfd.
    EventFd,
    /// A timerfd.
    TimerFd,
    /// The files of a control group.
    CgroupFiles,
    /// The text of a file of /proc.
    PseudoText,
    /// What an epoll watches.
    EpollItems,
    /// Which epolls watch a file.
    FileWatchers,
    /// Futexes by address.
    FutexBucket,
    /// An address space's share of memory.
    MmClaim,
    /// An address space.
    MmState,
    /// Shared memory segments.
    ShmIds,
    /// A shared memory segment.
    ShmSegment,
    /// A file's pages.
    Content,
    /// Pages of shared memory.
    SharedMemory,
    /// Who maps an object.
    Mappers,
    /// Pages of a host file.
    FileCache,
    /// Where host files are mapped.
    FileWindow,
    /// The vDSO's pages.
    VdsoPage,
    /// An address space's page tables.
    PlatformTables,
    /// Page tables to be taken apart.
    Graveyard,
    /// Free pages for tables.
    TablePages,
    /// VCPUs without a worker.
    VcpusReady,
    /// Workers of systrap.
    StubWorkers,
    /// A stub that was made before it is needed.
    StubSpare,
    /// Stub processes.
    StubRegistry,
    /// The process that makes stubs.
    Zygote,
    /// Orders to a stub.
    StubChannel,
    /// A stub's idle threads.
    StubThreads,
    /// A stub's shared slots.
    StubSlots,
    /// A stub's pages of code.
    StubCode,
    /// Free slots and pages.
    StubPools,
    /// How long a worker spins.
    WorkerPace,
    /// Free page frames.
    Frames,
    /// Who waits for host descriptors.
    PollerQueues,
    /// Who is called about them.
    PollerEdges,
    /// Control groups.
    Cgroups,
    /// The kernel's log.
    KernelLog,
    /// What a pid namespace calls whom.
    PidNumbers,
    /// Who pays for what there are only so many of.
    Shares,
    /// Who waits for one thing (`sync`).
    WaitQueue,
    /// Who waits for an epoll.
    EpollQueue,
    /// An epoll's ready list.
    EpollReady,
    /// A task's kernel stack.
    TaskStack,
    /// A worker's queue.
    RunQueue,
    /// Armed timers.
    TimerQueue,
    /// The generator of random numbers.
    Random,
    /// The log for debugging.
    DebugLog,
    /// Free kernel stacks.
    Stacks,
    /// No lock: a host call that may hang is being made (`HostLine`), which takes none but those below.
    HostCall,
    /// The position of a host directory.
    LowerListing,
    /// Numbers of host file systems.
    LowerDevices,
    /// The heap.
    Heap,
    /// The heap's memory.
    Granules,
}
