//! `create` and `run`.

use super::args::{self, Global};
use super::error::{Doing, Error, Result};
use super::pod::{self, Role};
use super::spec::translate;
use super::state::{self, Locked, State, Status};
use super::{boot, cgroup, client, hooks, log, spec, terminal, verbs};
use crate::hostsys::poll;
use oci_spec::runtime::Spec;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Signals that `run` passes on: SIGHUP, SIGTERM, SIGUSR1, SIGUSR2; and SIGCHLD, by which it learns of the end.
const PASSED: [i32; 4] = [1, 15, 10, 12];
const SIGCHLD: i32 = 17;
/// SIGINT, SIGQUIT, SIGTSTP: a terminal sends them to the sandbox, too.
const LEFT: [i32; 3] = [2, 3, 20];

/// `create`.
pub(super) fn create(global: &Global, args: &args::Create) -> Result<u8> {
    make(global, args).map(|_child| 0)
}

/// `run`.
pub(super) fn run(global: &Global, args: &args::Run) -> Result<u8> {
    if !args.detach {
        block_passed();
    }
    let mut child = make(global, &args.create)?;
    let id = &args.create.id;
    if let Err(error) = verbs::start(global, id) {
        let _removed = verbs::remove(global, id, true);
        return Err(error);
    }
    if args.detach {
        return Ok(0);
    }
    let status = wait(&mut child)?;
    if !args.keep {
        verbs::remove(global, id, true)?;
    }
    Ok(status)
}

/// Before there is somebody to send them.
pub(super) fn block_passed() {
    let all = PASSED.iter().chain(&LEFT).chain(&[SIGCHLD]).fold(0_u64, |mask, signo| mask | 1 << (signo - 1));
    poll::block_signals(all);
}

/// Waits for the sandbox, and passes signals on.
pub(super) fn wait(child: &mut Child) -> Result<u8> {
    let stage = || "waiting for the sandbox".to_owned();
    let mask = PASSED.iter().chain(&[SIGCHLD]).fold(0_u64, |mask, signo| mask | 1 << (signo - 1));
    let signals = poll::signal_fd(mask).doing(stage)?;
    let epoll = poll::Epoll::new().doing(stage)?;
    epoll.watch(signals.raw(), 1, 0).doing(stage)?;
    let mut events = Vec::new();
    loop {
        if let Some(status) = child.try_wait().doing(stage)? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            return Ok(code as u8);
        }
        epoll.wait(&mut events);
        while let Some(signo) = poll::next_signal(&signals) {
            if let (Some(pid), Some(signal)) = (
                rustix::process::Pid::from_raw(child.id() as i32),
                rustix::process::Signal::from_named_raw(signo).filter(|_| signo != SIGCHLD),
            ) {
                let _gone = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// Reads a specification: of a file only, as anything else may have no end.
fn read_config(path: &Path) -> std::io::Result<Vec<u8>> {
    const MOST: u64 = 16 << 20;
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() || meta.len() > MOST {
        let why = format!("not a regular file of at most {} MiB", MOST >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    std::fs::read(path)
}

/// Creates a container; what was made of it is gone again where that fails.
fn make(global: &Global, args: &args::Create) -> Result<Child> {
    let stage = || format!("bundle {}", args.bundle.display());
    let bundle = args.bundle.canonicalize().doing(stage)?;
    let text = read_config(&bundle.join("config.json"))
        .doing(|| format!("reading {}", bundle.join("config.json").display()))?;
    let config: Spec = serde_json::from_slice(&text)
        .doing(|| format!("reading {}", bundle.join("config.json").display()))?;
    let plan = translate(global, &config, &bundle)?;
    let sandbox = match pod::role(&config)? {
        Role::Member(sandbox) => Some(sandbox),
        _ => None,
    };
    if args.preserve_fds > 0 {
        log::warning(global, "--preserve-fds: not supported");
    }
    for warning in &plan.warnings {
        log::warning(global, warning);
    }
    let locked = Locked::create(global, &args.id)?;
    let mut state = State {
        oci_version: config.version().clone(),
        id: args.id.clone(),
        pid: 0,
        started: 0,
        start_requested: false,
        rootfs: plan.sandbox.root.clone(),
        annotations: config.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
        cgroup: cgroup::Group::default(),
        sandbox,
        own: None,
        bundle,
    };
    let made = locked.keep(&text).and_then(|()| begin(global, args, &config, &mut state, &locked));
    match made {
        Ok(child) => Ok(child),
        Err(error) => {
            let _killed = state.kill();
            let _removed = state.cgroup.remove();
            let _gone = locked.remove();
            Err(error)
        }
    }
}

/// Makes what the container has outside, starts the sandbox's process, and waits until it is ready.
fn begin(
    global: &Global,
    args: &args::Create,
    config: &Spec,
    state: &mut State,
    locked: &Locked,
) -> Result<Child> {
    let linux = config.linux().as_ref();
    make_group(global, state, linux.and_then(|linux| linux.cgroups_path().as_deref()))?;
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        let mut resources = resources.clone();
        if pod::role(config)? == Role::Sandbox {
            // It gets the least there is, as one that sleeps; here it is the kernel of all. The pod's group has its own.
            resources.cpu_mut().iter_mut().for_each(|cpu| {
                let _set = cpu.set_shares(None);
            });
        }
        state.cgroup.apply(&resources)?;
    }
    let slave = slave(args, config)?;
    // Of one in another's kernel it is that one's.
    let control = match state.sandbox {
        None => Some(client::listen(&locked.path)?),
        Some(_) => None,
    };
    // The sandbox reads it, too.
    locked.save(state)?;
    let (mut stream, theirs) = UnixStream::pair().doing(|| "a stream to the sandbox".to_owned())?;
    let mut child = spawn(global, locked, control.as_ref(), &theirs, slave)?;
    drop((theirs, control));
    state.pid = child.id() as i32;
    state.started = state::start_of(state.pid).unwrap_or(0);
    // Whatever becomes of us: who deletes it finds the process.
    locked.save(state)?;
    let result = converse(&mut stream, Some(config), state);
    if let Err(error) = result {
        let _killed = child.kill();
        let status = child.wait();
        return Err(match status {
            Ok(status) if error.message.is_empty() => Error::new(format!(
                "the sandbox's process ended while it was made ({status}); --debug-log says more"
            )),
            _ => error,
        });
    }
    if let Some(path) = &args.pid_file {
        state::replace(path, state.pid.to_string().as_bytes())?;
    }
    Ok(child)
}

/// Control groups; where the caller may make none, a container goes without, and that is said.
pub(super) fn make_group(global: &Global, state: &mut State, asked: Option<&Path>) -> Result<()> {
    match cgroup::Group::create(asked, &state.id) {
        Ok(group) => state.cgroup = group,
        Err(error) if state::is_root() => return Err(error),
        Err(error) => log::warning(global, &format!("no limits: {}", error.message)),
    }
    if state.cgroup.is_empty() {
        log::warning(global, "the host has no control groups: no limits");
    }
    Ok(())
}

/// The terminal's slave side, where one is asked for and does not come from the caller.
fn slave(args: &args::Create, config: &Spec) -> Result<Option<OwnedFd>> {
    let process = config.process().as_ref();
    let terminal = process.is_some_and(|process| process.terminal().unwrap_or(false));
    match (&args.console_socket, terminal) {
        (Some(socket), true) => {
            let size = process.and_then(|process| process.console_size());
            terminal::make(socket, size.as_ref()).map(Some)
        }
        (Some(_), false) => Err(Error::new("--console-socket: process.terminal is not set")),
        (None, _) => Ok(None),
    }
}

fn spawn(
    global: &Global,
    locked: &Locked,
    control: Option<&UnixDatagram>,
    creator: &UnixStream,
    slave: Option<OwnedFd>,
) -> Result<Child> {
    let stage = || "starting the sandbox's process".to_owned();
    let mut command = boot_command(global, &locked.path, control, creator)?;
    if let Some(slave) = slave {
        command.arg("--terminal");
        let stream = || slave.try_clone().map(Stdio::from).doing(stage);
        command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
    }
    command.env_clear().spawn().doing(stage)
}

/// How the sandbox's process is started.
pub(super) fn boot_command(
    global: &Global,
    state: &Path,
    control: Option<&UnixDatagram>,
    creator: &UnixStream,
) -> Result<Command> {
    let stage = || "starting the sandbox's process".to_owned();
    for fd in control.iter().map(|fd| fd.as_fd()).chain([creator.as_fd()]) {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).doing(stage)?;
    }
    let mut command = this_program();
    forward(global, &mut command);
    command.arg("boot").arg("--state").arg(state);
    if let Some(control) = control {
        command.args(["--control", &control.as_raw_fd().to_string()]);
    }
    command.args(["--creator", &creator.as_raw_fd().to_string()]);
    Ok(command)
}

/// This program again, also where /proc does not say which it is.
pub(super) fn this_program() -> Command {
    let own = Path::new("/proc/self/exe");
    match own.exists() {
        true => Command::new(own),
        false => Command::new(std::env::args_os().next().unwrap_or_else(|| "pillbox".into())),
    }
}

/// Options that the sandbox's process has to know.
pub(super) fn forward(global: &Global, command: &mut Command) {
    command.arg("--root").arg(&global.root);
    command.args(["--platform", value(&global.platform).as_str()]);
    command.args(["--network", value(&global.network).as_str()]);
    command.args(["--overlay", value(&global.overlay).as_str()]);
    if let Some(path) = &global.debug_log {
        command.arg("--debug-log").arg(path);
    }
    if let Some(bytes) = global.memory {
        command.args(["--memory", &bytes.to_string()]);
    }
    for (set, flag) in [
        (global.cpu_num_from_quota, "--cpu-num-from-quota"),
        (global.strace, "--strace"),
        (global.no_jail, "--no-jail"),
    ] {
        if set {
            command.arg(flag);
        }
    }
}

fn value<T: clap::ValueEnum>(of: &T) -> String {
    of.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The creator's side of [`boot`]'s conversation. An error without words: the other side has ended without any.
pub(super) fn converse(stream: &mut UnixStream, config: Option<&Spec>, state: &State) -> Result<()> {
    let silence = || Error { message: String::new(), status: 1 };
    let mut reader = BufReader::new(stream.try_clone().map_err(|_| silence())?);
    let line = |reader: &mut BufReader<UnixStream>| {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(count) if count > 0 => Ok(line.trim_end().to_owned()),
            _ => Err(silence()),
        }
    };
    loop {
        let word = line(&mut reader)?;
        match word.split(' ').next().unwrap_or_default() {
            "namespaces" => {
                let shown = state.shown(Status::Creating);
                if let Some(all) = config.and_then(|config| config.hooks().as_ref()) {
                    hooks::run("prestart", spec::prestart(all), &shown)?;
                    hooks::run("createRuntime", all.create_runtime().as_ref(), &shown)?;
                    hooks::run("createContainer", all.create_container().as_ref(), &shown)?;
                }
                stream.write_all(boot::GO).map_err(|_| silence())?;
            }
            "ready" => return Ok(()),
            _ => {
                let mut message = String::new();
                let _ended = reader.read_to_string(&mut message);
                return Err(Error::new(message));
            }
        }
    }
}
