//! The command line: runc's verbs and flags, and ours.

use crate::sandbox::{self, Network, PlatformChoice};
use std::ffi::OsString;
use std::path::PathBuf;

/// How `--log` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// key=value
    #[default]
    Text,
    /// One object a line
    Json,
}

/// Where changes to the container's files go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Overlay {
    /// Nowhere else: they are the bundle's, where engines look for them
    #[default]
    None,
    /// Into memory; they end with the container
    Memory,
}

/// Options of all container verbs, before the verb.
#[derive(clap::Args, Clone, Debug)]
pub struct Global {
    /// Directory for the state of containers [default: /run/pillbox/containers, another user's in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR", default_value_os_t = super::state::default_root(), hide_default_value = true)]
    pub(super) root: PathBuf,
    /// File to which errors and warnings are appended
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// Accepted for engines; --debug-log says more
    #[arg(long)]
    pub(super) debug: bool,
    /// File for debug lines; a directory (ending in /) gets one for each command
    #[arg(long, value_name = "PATTERN")]
    pub(super) debug_log: Option<PathBuf>,
    /// What runs the program's instructions
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) platform: PlatformChoice,
    /// What programs reach: what the container's network namespace reaches, or nothing
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) network: Network,
    /// Where changes to the container's root go; those to volumes are the host's
    #[arg(long, value_enum, default_value_t, value_name = "WHERE")]
    pub(super) overlay: Overlay,
    /// Memory of all programs together [default: what the container's control group has left]
    #[arg(long, value_name = "SIZE", value_parser = sandbox::parse_size)]
    pub(super) memory: Option<u64>,
    /// Grant no more CPUs than the control group's quota pays for
    #[arg(long)]
    pub(super) cpu_num_from_quota: bool,
    /// Print every system call, decoded, to the debug log
    #[arg(long)]
    pub(super) strace: bool,
    /// Accepted for engines: groups are made by path all the same
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Leave the sandbox's kernel all host calls and rights: for debugging pillbox itself
    #[arg(long)]
    pub(super) no_jail: bool,
}

/// The verbs of an OCI runtime.
#[derive(clap::Subcommand, Debug)]
#[command(defer = true)]
pub enum Verb {
    /// Create a container from a bundle; it waits for `start`
    Create(Create),
    /// Start a created container
    Start(Id),
    /// Print a container's state
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove what a stopped container has left
    Delete(Delete),
    /// Run a command in a container with a name (`run [-d] --name NAME [OPTIONS of do] -- CMD`), or a bundle (`run ID`)
    Run(Run),
    /// Print what a container of `run -d` has printed
    Logs(Logs),
    /// Stop containers: SIGTERM, and later SIGKILL
    Stop(Stop),
    /// Remove stopped containers
    Rm(Remove),
    /// Copy a file or directory out of a container that runs, or into it
    Cp(Copy),
    /// Start a process in a running container
    Exec(Exec),
    /// List containers that run, or the processes of one
    Ps(Ps),
    /// List the host descriptors that a container's sandbox holds
    #[command(hide = true)]
    Descriptors(Id),
    /// List containers
    List(List),
    /// Print what a container uses
    Events(Events),
    /// Stop all of a container until it is resumed
    Pause(Id),
    /// Let a paused container go on
    Resume(Id),
    /// Change a container's limits
    Update(Update),
    /// Write a config.json to begin with
    Spec(Spec),
    /// Print what is supported, as JSON
    Features,
    /// Not supported
    #[command(hide = true)]
    Checkpoint(Anything),
    /// A sandbox's own process
    #[command(hide = true)]
    Boot(Boot),
    /// Become the exit status of a process in a container
    #[command(hide = true)]
    ExecWait(ExecWait),
    /// Keep a detached container
    #[command(hide = true)]
    Keep(Keep),
}

// Arguments of `logs`.
#[derive(clap::Args, Debug)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(long, short)]
    pub(super) follow: bool,
    /// The container
    pub(super) id: String,
}

// Arguments of `cp`.
#[derive(clap::Args, Debug)]
pub struct Copy {
    /// What is copied
    #[arg(value_name = "[NAME:]PATH")]
    pub(super) from: String,
    /// Where to
    #[arg(value_name = "[NAME:]PATH")]
    pub(super) to: String,
}

// Arguments of `stop`.
#[derive(clap::Args, Debug)]
pub struct Stop {
    /// Seconds until it is killed
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10)]
    pub(super) time: u64,
    /// The containers
    #[arg(required = true, value_name = "NAME")]
    pub(super) ids: Vec<String>,
}

// Arguments of `rm`.
#[derive(clap::Args, Debug)]
pub struct Remove {
    /// Kill those that run
    #[arg(long, short)]
    pub(super) force: bool,
    /// The containers
    #[arg(required = true, value_name = "NAME")]
    pub(super) ids: Vec<String>,
}

// Arguments of `keep`.
#[derive(clap::Args, Debug)]
pub struct Keep {
    /// The container's state directory
    #[arg(long)]
    pub(super) state: PathBuf,
    /// Descriptor of a stream to whoever asked for it
    #[arg(long)]
    pub(super) report: i32,
    /// Remove it at the end
    #[arg(long = "rm")]
    pub(super) remove: bool,
    /// What `do` would be told
    #[arg(last = true)]
    pub(super) words: Vec<OsString>,
}

// A container.
#[derive(clap::Args, Debug)]
pub struct Id {
    /// The container
    pub(super) id: String,
}

// Whatever is said.
#[derive(clap::Args, Debug)]
pub struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<String>,
}

// Arguments of `create`.
#[derive(clap::Args, Debug)]
pub struct Create {
    /// Directory with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// Socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that the process id is written to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Descriptors to pass on, from 3 (not supported)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Accepted for engines
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Accepted for engines
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// The container's name
    pub(super) id: String,
}

// Arguments of `run`.
#[derive(clap::Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub(super) create: Create,
    /// Do not wait for the end
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Leave the container's state behind
    #[arg(long)]
    pub(super) keep: bool,
}

// Arguments of `kill`.
#[derive(clap::Args, Debug)]
pub struct Kill {
    /// To all processes of the container
    #[arg(long, short)]
    pub(super) all: bool,
    /// The container
    pub(super) id: String,
    /// A number or a name
    #[arg(default_value = "TERM")]
    pub(super) signal: String,
}

// Arguments of `delete`.
#[derive(clap::Args, Debug)]
pub struct Delete {
    /// Kill it first where it runs; nothing is wrong where there is none
    #[arg(long, short)]
    pub(super) force: bool,
    /// The container
    pub(super) id: String,
}

// Arguments of `exec`.
#[derive(clap::Args, Debug)]
pub struct Exec {
    /// Socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that the process id is written to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// File that describes the process, as in config.json
    #[arg(long, short, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Do not wait for the end
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub(super) tty: bool,
    /// Accepted as docker's: standard input is always passed on
    #[arg(long, short)]
    pub(super) interactive: bool,
    /// UID[:GID]
    #[arg(long, short, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Another supplementary group
    #[arg(long, short = 'g', value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Working directory
    #[arg(long, short = 'w', alias = "workdir", value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// Another capability
    #[arg(long, short, value_name = "CAP")]
    pub(super) cap: Vec<String>,
    /// It gains no privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Descriptors to pass on, from 3 (not supported)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// The container
    pub(super) id: String,
    /// The command and its arguments, where there is no --process
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

// Arguments of `ps`.
#[derive(clap::Args, Debug)]
pub struct Ps {
    /// `table` shows the processes inside; `json` lists the host's
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    pub(super) format: String,
    /// Also containers that have stopped
    #[arg(long, short)]
    pub(super) all: bool,
    /// Names only
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// The container whose processes are listed
    pub(super) id: Option<String>,
    /// Accepted for engines
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) options: Vec<String>,
}

// Arguments of `list`.
#[derive(clap::Args, Debug)]
pub struct List {
    /// `table` or `json`
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    pub(super) format: String,
    /// Names only
    #[arg(long, short)]
    pub(super) quiet: bool,
}

// Arguments of `events`.
#[derive(clap::Args, Debug)]
pub struct Events {
    /// Once
    #[arg(long)]
    pub(super) stats: bool,
    /// Time between two lines
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) interval: std::time::Duration,
    /// The container
    pub(super) id: String,
}

// Arguments of `update`.
#[derive(clap::Args, Debug)]
pub struct Update {
    /// File with linux.resources; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    /// Memory, bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory: Option<i64>,
    /// CPU time in a period, microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// The period, microseconds
    #[arg(long)]
    pub(super) cpu_period: Option<u64>,
    /// Share of CPU time beside others
    #[arg(long)]
    pub(super) cpu_share: Option<u64>,
    /// Tasks
    #[arg(long, allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// The container
    pub(super) id: String,
}

// Arguments of `spec`.
#[derive(clap::Args, Debug)]
pub struct Spec {
    /// Directory to write it to
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
}

// Arguments of `boot`.
#[derive(clap::Args, Debug)]
pub struct Boot {
    /// The container's state directory
    #[arg(long)]
    pub(super) state: PathBuf,
    /// Descriptor that requests come from; without one, the process waits for a container in another's kernel
    #[arg(long)]
    pub(super) control: Option<i32>,
    /// Descriptor of a stream to whoever creates the container
    #[arg(long)]
    pub(super) creator: i32,
    /// Standard input is to be the controlling terminal
    #[arg(long)]
    pub(super) terminal: bool,
    /// What `do` would be told, where there is no bundle
    #[arg(last = true)]
    pub(super) words: Vec<OsString>,
}

// Arguments of `exec-wait`.
#[derive(clap::Args, Debug)]
pub struct ExecWait {
    /// Descriptor that the end is told on
    #[arg(long)]
    pub(super) stream: i32,
    /// The container's state directory
    #[arg(long)]
    pub(super) state: PathBuf,
    /// The process's number inside
    #[arg(long)]
    pub(super) pid: i32,
    /// Standard input is its terminal
    #[arg(long)]
    pub(super) terminal: bool,
}
