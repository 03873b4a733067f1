//! What a sandbox is to be.

use std::path::PathBuf;

/// Which platform runs the program's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlatformChoice {
    /// kvm where its self-test passes, else systrap
    Auto,
    /// A KVM virtual machine
    Kvm,
    /// Stub processes whose system calls are trapped by seccomp
    Systrap,
}

/// Everything a sandbox is made from.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What runs it.
    pub platform: PlatformChoice,
    /// The KVM device.
    pub kvm_device: PathBuf,
    /// The host directory that becomes `/`.
    pub root: PathBuf,
    /// The command.
    pub argv: Vec<Vec<u8>>,
    /// Its environment, `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// Its working directory; the caller's, or `/`, when not given.
    pub cwd: Option<PathBuf>,
    /// Print decoded calls.
    pub strace: bool,
    /// Count calls and report at the end.
    pub stats: bool,
    /// Where debug lines go.
    pub debug_log: Option<PathBuf>,
    /// CPUs to grant; those the caller may use, when not given.
    pub cpus: Option<usize>,
    /// Grant no more CPUs than the cgroup's quota pays for.
    pub cpus_from_quota: bool,
    /// Let programs provoke a bug of ours (`pillbox self-test` alone asks for it): see `kernel::Options`.
    pub provoke_bugs: bool,
}
