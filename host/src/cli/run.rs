//! `pillbox do`: run one command in a new sandbox and become its exit status.

use super::box_options::BoxOptions;
use super::image::Image;
use super::net_options::NetOptions;
use super::{EXIT_OURS, fail, secrets};
use crate::oci;
use crate::sandbox::container::Container;
use crate::sandbox::{self, Network, PlatformChoice, Spec};
use crate::warden::rules::Rules;
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
  pillbox do --allow-net example.com:443 --net-log /dev/null -- cat /etc/resolv.conf
  pillbox do --memory 256M --pids 50 --cpus 1 -- nproc
  pillbox do --timeout 5s -- sleep 1
  pillbox do --clear-env --env TERM --env GREETING=hello -- env
  pillbox do --user 65534 --hostname box -- sh -c 'id; uname -n'
  pillbox do -v /etc:/mnt/etc:ro --tmpfs /work:64M -- df -h /mnt/etc /work
  pillbox do --hide /etc/passwd -- cat /etc/passwd
  pillbox do --save-diff /dev/null -- sh -c 'echo what is kept > /tmp/x'
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
    /// Run in an image: an unpacked root directory, an OCI image layout or what `docker save` writes (tar, gzip, zstd). It is
    /// unpacked once, below ~/.cache/pillbox/images. Its environment, working directory, user and command hold unless others
    /// are given
    #[arg(long, value_name = "DIR|TAR", conflicts_with = "root")]
    image: Option<PathBuf>,
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
    #[command(flatten)]
    net: NetOptions,
    /// Tasks (processes and threads) that all programs together may have [default: 4096, or a quarter of what the host has
    /// left]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Option<u32>,
    /// Kill the command if it has not ended by then (5s, 2min, 1h), and exit with 137
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// When the command has ended, write what it has changed in its root to TAR, as a layer of an image: what was added and
    /// changed, and marks (.wh.NAME) for what was removed. `pillbox diff TAR` lists it
    #[arg(long, value_name = "TAR")]
    save_diff: Option<PathBuf>,
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
    #[arg(trailing_var_arg = true, required_unless_present = "image", value_name = "CMD")]
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
    match specify(args) {
        Ok(spec) => start(spec),
        Err(error) => fail(&error, EXIT_OURS),
    }
}

fn specify(args: Args) -> Result<Spec, String> {
    let image = args.image.clone();
    let spec = spec_of(args, image.is_some());
    match image {
        Some(path) => with_image(spec, &path),
        None => Ok(spec),
    }
}

// Arguments of `run` for a container with a name.
#[derive(clap::Args)]
#[command(after_help = NAMED)]
pub(super) struct Named {
    /// What the container is called [default: a random name]
    #[arg(long)]
    name: Option<String>,
    /// Do not wait for the end: print the name, and keep what the command prints for `logs`
    #[arg(long, short)]
    detach: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    args: Args,
}

const NAMED: &str = "\
Examples:
  pillbox run -d --name box -- sh -c 'echo up; sleep 600'
  pillbox exec box ps
  pillbox logs box
  pillbox ps
  pillbox stop -t 1 box
  pillbox ps -a
  pillbox rm box

With a name, an image or a command behind `--` it is such a container. `pillbox run [-d] [-b BUNDLE] ID` runs a bundle with a
config.json, as engines do.";

/// The same words, read again by the process that becomes the sandbox.
#[derive(clap::Parser)]
#[command(name = "run", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    named: Named,
}

/// What the words behind a `run` ask for.
pub(super) fn plan(words: Vec<OsString>) -> Result<Spec, String> {
    let words = <Words as clap::Parser>::try_parse_from(words).map_err(|error| super::mistake(&error))?;
    specify(words.named.args)
}

/// `run` of a container with a name: `words` is what follows the verb.
pub(super) fn named(global: &oci::Global, args: Named, words: Vec<OsString>) -> ExitCode {
    let run = oci::named::Run { name: args.name, detach: args.detach, remove: args.rm, words };
    oci::run_named(global, &run, plan)
}

/// The same in an image, for what was not said otherwise.
fn with_image(mut spec: Spec, path: &Path) -> Result<Spec, String> {
    let image = Image::open(path)?;
    let words = |words: Vec<Vec<u8>>| words.into_iter().map(OsString::from_vec).collect::<Vec<_>>();
    let program = image.program(words(std::mem::take(&mut spec.argv)))?;
    spec.root = image.root;
    spec.argv = program.argv.into_iter().map(OsString::into_vec).collect();
    let given = words(std::mem::take(&mut spec.env));
    let own = program.env.into_iter().filter_map(|word| {
        let at = word.as_bytes().iter().position(|byte| *byte == b'=')?;
        let (name, value) = word.as_bytes().split_at(at);
        Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
    });
    spec.env = environment(own, &given);
    spec.cwd.get_or_insert(program.cwd);
    if spec.container.user.is_none() {
        spec.container.user = program.user;
    }
    Ok(spec)
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
        rules: Rules::default(),
        net_log: None,
        pids: None,
        timeout: None,
        save_diff: None,
        init_is_protected: false,
        kvm_device: crate::platform::choose::DEVICE.into(),
        jail: true,
        provoke_bugs: true,
        container: Container::default(),
    })
}

fn start(spec: Spec) -> ExitCode {
    if !spec.jail {
        let line = "pillbox: --no-jail: whoever breaks out of this sandbox has all the caller's rights\n";
        let _closed = std::io::stderr().write_all(line.as_bytes());
    }
    match sandbox::run(spec) {
        Ok(done) => {
            let _closed = std::io::stderr().write_all(done.notes().as_bytes());
            // What the sandbox was made of ends with the process.
            crate::hostsys::process::end(done.status())
        }
        Err(error) => fail(&error.to_string(), error.status(EXIT_OURS)),
    }
}

fn spec_of(args: Args, in_image: bool) -> Spec {
    let mut container = args.inside.container();
    // Another root is not the caller's.
    if !args.no_hide && !in_image && args.root == Path::new("/") {
        container.mounts.extend(secrets::hide(Path::new(&std::env::var_os("HOME").unwrap_or_default())));
    }
    Spec {
        platform: args.platform,
        kvm_device: args.kvm_device,
        root: args.root,
        argv: args.command.into_iter().map(OsString::into_vec).collect(),
        env: environment(
            // An image has one of its own; the terminal is the caller's.
            std::env::vars_os().filter(|(name, _)| match in_image {
                true => name == "TERM",
                false => !args.clear_env || name == "PATH",
            }),
            &given(args.env, |name| std::env::var_os(name)),
        ),
        cwd: args.cwd,
        strace: args.strace,
        stats: args.stats,
        debug_log: args.debug_log,
        cpus: args.cpus.map(usize::from),
        cpus_from_quota: args.cpu_num_from_quota,
        memory: args.memory,
        network: args.net.network,
        rules: args.net.rules(),
        publish: args.net.publish,
        net_log: args.net.net_log,
        pids: args.pids,
        timeout: args.timeout,
        save_diff: args.save_diff,
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
