//! Every exception to a rule, and what it is for.

/// Longest file without an entry in [`LONG`], in lines.
pub(crate) const MAX_LINES: usize = 500;

/// Files that are longer, and how long they may be.
pub(crate) const LONG: &[(&str, usize)] =
    &[("host/src/platform/systrap/process.rs", 660), ("tests/programs/abi/signals.rs", 590)];

/// Longest function without an entry in [`SPRAWLING`], in lines.
pub(crate) const MAX_FUNCTION: usize = 60;

/// Functions that are longer, and how long they may be: (file, name, lines).
pub(crate) const SPRAWLING: &[(&str, &str, usize)] = &[
    ("host/src/arch/sigframe/x86_64.rs", "push", 63),
    ("host/src/fs/proc/task/status.rs", "stat", 91),
    ("host/src/fs/proc/task/status.rs", "status", 67),
    ("host/src/kernel/clone.rs", "clone_task", 76),
    ("host/src/loader/stack.rs", "build", 69),
    ("host/src/mm/tests/model.rs", "step", 115),
    ("host/src/platform/kvm/x86_64.rs", "init_vcpu", 66),
    ("host/src/platform/systrap/context.rs", "switch", 116),
    ("host/src/platform/systrap/filter.rs", "of_mappers", 67),
    ("host/src/platform/systrap/x86_64/frame.rs", "read", 102),
    ("host/src/platform/systrap/x86_64/frame.rs", "write", 61),
    ("host/src/syscalls/processes/exec.rs", "exec", 84),
    ("host/src/syscalls/processes/prctl.rs", "prctl", 120),
    ("host/src/vfs/dentry.rs", "rename", 76),
    ("host/src/vfs/walk.rs", "walk", 140),
    ("pagetables/tests/model.rs", "step", 64),
    ("ring0-x86_64/src/entry.rs", "resume_native", 68),
];

/// Dependencies against the order of the table in host/src/lib.rs: (from, to, where).
pub(crate) const UPWARD: &[(&str, &str, &str)] = &[
    ("hostsys", "arena", "hostsys/fault.rs"),
    ("hostsys", "arena", "hostsys/overflow.rs"),
    ("kernel", "syscalls", "kernel/run.rs"),
    ("platform", "mm", "platform/selftest/mod.rs"),
];

/// Files outside `hostsys` that call libc functions: threads and signal handlers, which libc itself must set up.
pub(crate) const LIBC_CALLERS: &[&str] = &[
    "arena/thread.rs",
    "platform/kvm/aarch64/emulate.rs",
    "platform/kvm/image.rs",
    "platform/kvm/kick.rs",
    "platform/systrap/aarch64/mod.rs",
    "platform/systrap/x86_64/mod.rs",
];

/// Directories and files of `host` that may ask for the architecture.
pub(crate) const ARCH_AWARE: &[&str] = &["arch/", "abi/", "hostsys/", "platform/", "loader/", "mm/raw.rs"];
/// Others that do.
pub(crate) const ARCH_EXCEPTIONS: &[&str] = &["syscalls/waiting/epoll.rs", "syscalls/memory/mmap.rs"];

/// Modules in which unsafe code is allowed, by the file that declares them.
pub(crate) const UNSAFE_MODULES: &[&str] = &[
    "host/src/arch/mod.rs counter",
    "host/src/arch/sigframe/mod.rs x86_64",
    "host/src/arch/mod.rs tests",
    "host/src/fs/mod.rs hostio",
    "host/src/kernel/mod.rs sched",
    "host/src/lib.rs arena",
    "host/src/lib.rs hostsys",
    "host/src/lib.rs sync",
    "host/src/loader/vdso/mod.rs image",
    "host/src/mm/mod.rs raw",
    "host/src/platform/kvm/mod.rs aarch64",
    "host/src/platform/kvm/mod.rs image",
    "host/src/platform/kvm/mod.rs kick",
    "host/src/platform/kvm/mod.rs machine",
    "host/src/platform/kvm/mod.rs tables",
    "host/src/platform/kvm/mod.rs vcpu",
    "host/src/platform/kvm/mod.rs x86_64",
    "host/src/platform/mod.rs local",
    "host/src/platform/selftest/mod.rs aarch64",
    "host/src/platform/selftest/mod.rs x86_64",
    "host/src/platform/systrap/mod.rs aarch64",
    "host/src/platform/systrap/mod.rs shared",
    "host/src/platform/systrap/mod.rs worker",
    "host/src/platform/systrap/mod.rs x86_64",
    "pagetables/src/lib.rs node",
    "ring0-aarch64/src/lib.rs entry",
    "ring0-aarch64/src/lib.rs stack",
    "ring0-aarch64/src/lib.rs timer",
    "ring0-aarch64/src/lib.rs tlb",
    "ring0-x86_64/src/lib.rs entry",
    "ring0-x86_64/src/lib.rs stack",
];

/// Directories and files of `host` outside `hostsys` and `hostfd` that name descriptors or open files by other means, and why.
pub(crate) const DESCRIPTOR_OWNERS: &[(&str, &str)] = &[
    ("cli/", "the front door, up to where a sandbox is made"),
    ("oci/", "the front door of engines, up to where a sandbox is made"),
    ("platform/choose.rs", "remembers self-tests in a file, before a sandbox is made"),
    ("platform/kvm/aarch64/counter.rs", "kvm-ioctls owns KVM's"),
    ("platform/kvm/aarch64/deliver.rs", "kvm-ioctls owns KVM's"),
    ("platform/kvm/machine.rs", "kvm-ioctls owns KVM's; lists them"),
    ("platform/kvm/x86_64.rs", "kvm-ioctls owns KVM's"),
    ("warden/", "a process of its own, which is no sandbox, and its start"),
    ("sandbox/reticence.rs", "makes the directory that it removes at once"),
];
