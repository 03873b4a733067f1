//! `pillbox do`: run one command in a new sandbox and become its exit status.

use super::box_options::BoxOptions;
use super::{EXIT_OURS, fail, secrets};
use crate::sandbox::container::Container;
use crate::sandbox::{self, Ended, Network, PlatformChoice, Publish, Spec};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// They work as printed, on any machine with a shell: a test runs them.
const EXAMPLES: &str = "\
Examples:
  pillbox do -- ls -l /
  pillbox do -- sh -c 'rm -rf /etc /usr/share; ls /'
  pillbox do --network none -- cat /proc/net/dev
  pillbox do --memory 256M --pids 50 --cpus 1 -- nproc
  pillbox do --timeout 5s -- sleep 1
  pillbox do --clear-env --env TERM --env GREETING=hello -- env
  pillbox do --user 65534 --hostname box -- sh -c 'id; uname -n'
  pillbox do -v /etc:/mnt/etc:ro --tmpfs /work:64M -- df -h /mnt/etc /work
  pillbox do --hide /etc/passwd -- cat /etc/passwd
  pillbox do --strace -- cat /etc/passwd
  pillbox do --stats -- sh -c 'for i in 1 2 3; do date; done'";

// Arguments of `pillbox do`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
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
    /// Set an environment variable, besides those inherited from the caller, or have the caller's where --clear-env takes it
    /// away
    #[arg(long = "env", short = 'e', value_name = "NAME[=VALUE]", value_parser = assignment)]
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
    /// Leave the sandbox's kernel all host calls and rights of the caller: for debugging pillbox itself, never for programs
    /// that are not trusted
    #[arg(long)]
    no_jail: bool,
    /// Grant no more CPUs than the cgroup's CPU quota pays for
    #[arg(long)]
    cpu_num_from_quota: bool,
    /// Memory that all programs together may have, with what the kernel keeps for them; K, M, G [default: what the caller's
    /// control groups have left, at most three quarters of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = sandbox::parse_size)]
    memory: Option<u64>,
    /// What the program can reach: what this machine reaches (but not the machine itself), or nothing
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    network: Network,
    /// Have a port of this machine lead to one inside, also to one that listens on 127.0.0.1 there only
    #[arg(long, short = 'p', value_name = "[ADDR:]HOSTPORT:PORT[/udp]")]
    publish: Vec<Publish>,
    /// Tasks (processes and threads) that all programs together may have [default: 4096, or a quarter of what the host has
    /// left]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Kill the command if it has not ended by then (5s, 2min, 1h), and exit with 137
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Show the command the caller's keys and histories: .ssh, .aws, .gnupg, .kube, .netrc, .docker/config.json, .config/gcloud
    /// and what shells remember are hidden in the home directory otherwise
    #[arg(long)]
    no_hide: bool,
    /// Protect the command as a container's process 1: signals from inside that it has no handler for do nothing to it
    #[arg(long)]
    protect_init: bool,
    #[command(flatten)]
    inside: BoxOptions,
    /// Give the command the variables of --env alone, and PATH
    #[arg(long)]
    clear_env: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

fn assignment(text: &str) -> Result<OsString, String> {
    if text.is_empty() || text.starts_with('=') {
        Err("expected NAME=VALUE or NAME".to_owned())
    } else {
        Ok(text.into())
    }
}

/// Runs the command.
pub(super) fn main(args: Args) -> ExitCode {
    start(spec(args))
}

/// Runs a command where a bug of ours can be provoked, and memory runs out at `memory` MiB.
pub(super) fn broken(platform: &str, command: &[OsString], memory: Option<u64>) -> ExitCode {
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
        memory: memory.map(|mib| mib << 20),
        network: Network::None,
        publish: Vec::new(),
        pids: None,
        timeout: None,
        init_is_protected: false,
        kvm_device: crate::platform::choose::DEVICE.into(),
        jail: true,
        provoke_bugs: true,
        container: Container::default(),
    })
}

fn start(spec: Spec) -> ExitCode {
    let stats = spec.stats;
    if !spec.jail {
        let line = "pillbox: --no-jail: whoever breaks out of this sandbox has all the caller's rights\n";
        let _closed = std::io::stderr().write_all(line.as_bytes());
    }
    match sandbox::run(spec) {
        Ok(done) => {
            if let Some(timeout) = done.timed_out {
                let timeout = humantime::format_duration(timeout);
                let line = format!("pillbox: --timeout: the command had not ended after {timeout}\n");
                let _closed = std::io::stderr().write_all(line.as_bytes());
            }
            if stats {
                let _closed = std::io::stderr().write_all(done.stats.as_bytes());
            }
            // What the sandbox was made of ends with the process.
            crate::hostsys::process::end(match done.ended {
                Ended::Exited(status) => status,
                Ended::Signaled(signal) => 128_u8.wrapping_add(signal),
            })
        }
        Err(error) => fail(&error.to_string(), error.status(EXIT_OURS)),
    }
}

fn spec(args: Args) -> Spec {
    let mut container = args.inside.container();
    // Another root is not the caller's.
    if !args.no_hide && args.root == Path::new("/") {
        container.mounts.extend(secrets::hide(Path::new(&std::env::var_os("HOME").unwrap_or_default())));
    }
    Spec {
        platform: args.platform,
        kvm_device: args.kvm_device,
        root: args.root,
        argv: args.command.into_iter().map(OsString::into_vec).collect(),
        env: environment(
            std::env::vars_os().filter(|(name, _)| !args.clear_env || name == "PATH"),
            &given(args.env, |name| std::env::var_os(name)),
        ),
        cwd: args.cwd,
        strace: args.strace,
        stats: args.stats,
        debug_log: args.debug_log,
        cpus: args.cpus.map(usize::from),
        cpus_from_quota: args.cpu_num_from_quota,
        memory: args.memory,
        network: args.network,
        publish: args.publish,
        pids: args.pids,
        timeout: args.timeout,
        init_is_protected: args.protect_init,
        jail: !args.no_jail,
        provoke_bugs: false,
        container,
    }
}

/// Assignments: names alone have the caller's value, if he has one.
fn given(all: Vec<OsString>, of_caller: impl Fn(&OsStr) -> Option<OsString>) -> Vec<OsString> {
    let assigned = |word: OsString| match word.as_bytes().contains(&b'=') {
        true => Some(word),
        false => of_caller(&word).map(|value| [word, value].join(OsStr::new("="))),
    };
    all.into_iter().filter_map(assigned).collect()
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
    use super::{environment, given};

    #[test]
    fn names_alone_have_the_callers_value() {
        let caller = |name: &std::ffi::OsStr| (name == "A").then(|| "1=1".into());
        assert_eq!(given(vec!["A".into(), "B".into(), "C=2".into()], caller), ["A=1=1", "C=2"]);
    }

    #[test]
    fn assignments_replace_and_the_last_wins() {
        let inherited = [("A".into(), "1".into()), ("B".into(), "2".into())];
        let extra = ["B=3".into(), "C=4".into(), "B=5".into()];
        let all = environment(inherited.into_iter(), &extra);
        assert_eq!(all, [&b"A=1"[..], b"C=4", b"B=5"]);
    }
}
