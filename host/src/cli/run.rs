//! `pillbox do`: run one command in a new sandbox and become its exit status.

use super::{EXIT_OURS, fail};
use crate::sandbox::{self, Ended, PlatformChoice, Spec};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `pillbox do`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What runs the program's instructions
    #[arg(long, value_enum, default_value = "auto")]
    platform: PlatformChoice,
    /// Another KVM device, for tests
    #[arg(long, value_name = "PATH", default_value = crate::platform::choose::DEVICE, hide = true)]
    kvm_device: PathBuf,
    /// Directory that becomes the sandbox's /, read-only below a writable layer in memory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Set an environment variable, besides those inherited from the caller
    #[arg(long = "env", short = 'e', value_name = "K=V", value_parser = assignment)]
    env: Vec<OsString>,
    /// Working directory in the sandbox [default: the caller's, where it exists there]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Print every system call, decoded, to stderr or the debug log
    #[arg(long)]
    strace: bool,
    /// Write debug lines to FILE
    #[arg(long, value_name = "FILE")]
    debug_log: Option<PathBuf>,
    /// Print counters at the end
    #[arg(long)]
    stats: bool,
    /// CPUs that the program sees and uses [default: those the caller may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    cpus: Option<u16>,
    /// Grant no more CPUs than the cgroup's CPU quota pays for
    #[arg(long)]
    cpu_num_from_quota: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

fn assignment(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command.
pub(super) fn main(args: Args) -> ExitCode {
    start(spec(args))
}

/// Runs a command where a bug of ours can be provoked, and memory runs out at `memory` MiB.
pub(super) fn broken(platform: &str, command: &[OsString], memory: Option<u64>) -> ExitCode {
    if let Some(mib) = memory {
        crate::mm::frames::set_limit_bytes(mib << 20);
    }
    start(Spec {
        platform: if platform == "kvm" { PlatformChoice::Kvm } else { PlatformChoice::Systrap },
        root: "/".into(),
        argv: command.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: environment(std::env::vars_os(), &[]),
        cwd: None,
        strace: false,
        stats: false,
        debug_log: None,
        cpus: None,
        cpus_from_quota: false,
        kvm_device: crate::platform::choose::DEVICE.into(),
        provoke_bugs: true,
    })
}

fn start(spec: Spec) -> ExitCode {
    let stats = spec.stats;
    match sandbox::run(spec) {
        Ok(done) => {
            if stats {
                let _closed = std::io::stderr().write_all(done.stats.as_bytes());
            }
            match done.ended {
                Ended::Exited(status) => ExitCode::from(status),
                Ended::Signaled(signal) => ExitCode::from(128_u8.wrapping_add(signal)),
            }
        }
        Err(error) => fail(&error.to_string(), error.status(EXIT_OURS)),
    }
}

fn spec(args: Args) -> Spec {
    Spec {
        platform: args.platform,
        kvm_device: args.kvm_device,
        root: args.root,
        argv: args.command.into_iter().map(OsString::into_vec).collect(),
        env: environment(std::env::vars_os(), &args.env),
        cwd: args.cwd,
        strace: args.strace,
        stats: args.stats,
        debug_log: args.debug_log,
        cpus: args.cpus.map(usize::from),
        cpus_from_quota: args.cpu_num_from_quota,
        provoke_bugs: false,
    }
}

/// The caller's environment with `extra` assignments replacing or following it.
fn environment(inherited: impl Iterator<Item = (OsString, OsString)>, extra: &[OsString]) -> Vec<Vec<u8>> {
    let name_of = |assignment: &OsStr| assignment.as_bytes().split(|b| *b == b'=').next().map(<[u8]>::to_vec);
    let replaced: Vec<_> = extra.iter().filter_map(|a| name_of(a)).collect();
    let mut all: Vec<Vec<u8>> = inherited
        .filter(|(name, _)| !replaced.iter().any(|r| r == name.as_bytes()))
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    for (index, assignment) in extra.iter().enumerate() {
        let name = name_of(assignment);
        // The last assignment of a name wins.
        if !extra[index + 1..].iter().any(|later| name_of(later) == name) {
            all.push(assignment.as_bytes().to_vec());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::environment;

    #[test]
    fn assignments_replace_and_the_last_wins() {
        let inherited = [("A".into(), "1".into()), ("B".into(), "2".into())];
        let extra = ["B=3".into(), "C=4".into(), "B=5".into()];
        let all = environment(inherited.into_iter(), &extra);
        assert_eq!(all, [&b"A=1"[..], b"C=4", b"B=5"]);
    }
}
