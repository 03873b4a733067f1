//! What a sandbox is to be.

use super::container::Container;
use crate::warden::rules::Rules;
use std::path::PathBuf;
use std::time::Duration;

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

/// What the programs of a sandbox can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// Each other.
    None,
    /// Whatever this process reaches, but for the host itself.
    #[default]
    Host,
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
    /// The most memory of all programs together and of what the kernel keeps for them, bytes; a default when not given.
    pub memory: Option<u64>,
    /// What programs can reach.
    pub network: Network,
    /// Ports of the host that lead inside.
    pub publish: Vec<super::Publish>,
    /// Who may be talked to, and who may not.
    pub rules: Rules,
    /// Where a line goes for each connection.
    pub net_log: Option<PathBuf>,
    /// The most tasks of all programs together; a default when not given. No more than a quarter of what the host has left.
    pub pids: Option<u32>,
    /// After how long the first program is killed.
    pub timeout: Option<Duration>,
    /// Where what was changed in the root is written at the end, as a layer of an image.
    pub save_diff: Option<PathBuf>,
    /// Signals from inside that process 1 has no handler for do nothing to it.
    pub init_is_protected: bool,
    /// Confine the kernel's process (`super::jail`). Only for debugging it may be left out.
    pub jail: bool,
    /// Let programs provoke a bug of ours (`pillbox self-test` alone asks for it): see `kernel::Options`.
    pub provoke_bugs: bool,
    /// What makes it a container.
    pub container: Container,
}
