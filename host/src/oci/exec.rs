//! `exec`: a process in a running container, and the process outside that becomes its exit status.

use super::args::{self, Global};
use super::client::{self, Address};
use super::create::this_program;
use super::error::{Doing, Error, Result};
use super::state::{self, Locked, Status};
use super::{pod, spec, terminal};
use crate::hostsys::poll;
use crate::sandbox::control::{self, Reply, Request};
use oci_spec::runtime::Process;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

/// SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH: what a terminal sends to the one outside is for those inside.
const FROM_TERMINAL: [i32; 6] = [1, 2, 3, 15, 20, 28];
/// The status of a process whose sandbox has ended before it: as if killed.
pub(super) const KILLED: u8 = 137;

/// Starts the process.
pub(super) fn main(global: &Global, args: &args::Exec) -> Result<u8> {
    let locked = Locked::open(global, &args.id)?;
    let known = locked.load()?;
    match known.status() {
        Status::Running => {}
        Status::Paused => return Err(failed("container is paused")),
        _ => return Err(failed("container not running")),
    }
    let process = process(args, &locked.path)?;
    let terminal = process.terminal().unwrap_or(false) || args.tty;
    let slave = match (&args.console_socket, terminal) {
        (Some(socket), true) => Some(terminal::make(socket, process.console_size().as_ref())?),
        _ => None,
    };
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let request = Request::Exec(Box::new(control::Exec {
        args: words(process.args()),
        env: words(process.env()),
        cwd: process.cwd().to_string_lossy().into_owned(),
        user: spec::user(&process, &mut Vec::new()),
        terminal,
    }));
    let address = pod::address(&locked.path, &known);
    let (stream, pid) = start(&address, request, terminal, slave.as_ref())?;
    let state = locked.path.clone();
    // Others need not wait for this process's end.
    drop(locked);
    if args.detach || args.pid_file.is_some() {
        let mut child = waiter(&stream, &state, pid, slave)?;
        if let Some(path) = &args.pid_file {
            state::replace(path, child.id().to_string().as_bytes())?;
        }
        if args.detach {
            return Ok(0);
        }
        let status = child.wait().doing(|| "waiting for the process".to_owned())?;
        return Ok(status.code().unwrap_or(255) as u8);
    }
    Ok(until_end(&stream, &address, pid, terminal))
}

fn failed(message: impl Into<String>) -> Error {
    Error { message: message.into(), status: 255 }
}

/// Sends the request; the stream on which the end is told, and the process's number inside.
fn start(
    address: &Address,
    request: Request,
    terminal: bool,
    slave: Option<&OwnedFd>,
) -> Result<(UnixStream, i32)> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stream = if terminal {
        let of = slave.map_or(stdin.as_fd(), |slave| slave.as_fd());
        let own = terminal::description(of)?;
        client::send(address, request, &[own.as_fd()])?
    } else {
        let own: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        client::send(address, request, &own)?
    };
    match client::receive(&stream) {
        Some(Reply::Running(pid)) => Ok((stream, pid)),
        Some(Reply::Failed(status, message)) => Err(Error {
            message: match status {
                127 => format!("exec: {message}: no such file or directory"),
                126 => format!("exec: {message}: permission denied"),
                _ => format!("exec: {message}"),
            },
            status,
        }),
        _ => Err(failed("container not running: its sandbox did not answer")),
    }
}

/// The description of the process: a file's, or the container's with what the command line says.
fn process(args: &args::Exec, state: &Path) -> Result<Process> {
    if let Some(path) = &args.process {
        let stage = || format!("reading {}", path.display());
        let text = std::fs::read(path).doing(stage)?;
        return serde_json::from_slice(&text).doing(stage);
    }
    if args.command.is_empty() {
        return Err(failed("exec: no command"));
    }
    let config = state::config(state)?;
    let mut process = config.process().clone().ok_or_else(|| failed("config.json: no process"))?;
    process.set_args(Some(args.command.clone())).set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.into());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(args.env.iter().cloned());
        process.set_env(Some(env));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(user) = &args.user {
        set_user(&mut process, user)?;
    }
    if !args.additional_gids.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(args.additional_gids.clone()));
        process.set_user(user);
    }
    if let Some(unknown) = args.cap.iter().find(|cap| spec::bit(cap) == 0) {
        return Err(failed(format!("--cap {unknown}: there is no such capability")));
    }
    if !args.cap.is_empty() {
        add_capabilities(&mut process, &args.cap)?;
    }
    Ok(process)
}

fn set_user(process: &mut Process, text: &str) -> Result<()> {
    let number = |word: &str| word.parse().map_err(|_| failed(format!("--user {text}: numbers, UID[:GID]")));
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, Some(number(gid)?)),
        None => (number(text)?, None),
    };
    let mut user = process.user().clone();
    user.set_uid(uid);
    if let Some(gid) = gid {
        user.set_gid(gid);
    }
    process.set_user(user);
    Ok(())
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let cap = bare.parse().map_err(|_| failed(format!("--cap {name}: there is no such capability")))?;
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(cap);
            Some(set)
        };
        let (bounding, effective) = (with(sets.bounding()), with(sets.effective()));
        let (permitted, inheritable) = (with(sets.permitted()), with(sets.inheritable()));
        sets.set_bounding(bounding).set_effective(effective);
        sets.set_permitted(permitted).set_inheritable(inheritable);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Starts the process that engines wait for.
fn waiter(
    stream: &UnixStream,
    state: &Path,
    pid: i32,
    slave: Option<OwnedFd>,
) -> Result<std::process::Child> {
    let stage = || "starting the process that waits".to_owned();
    rustix::io::fcntl_setfd(stream, rustix::io::FdFlags::empty()).doing(stage)?;
    let mut command = this_program();
    command.args(["exec-wait", "--stream", &stream.as_raw_fd().to_string(), "--pid", &pid.to_string()]);
    command.arg("--state").arg(state).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(slave) = slave {
        command.arg("--terminal").stdin(Stdio::from(slave));
    }
    command.spawn().doing(stage)
}

/// The process that engines wait for.
pub(super) fn wait(args: &args::ExecWait) -> Result<u8> {
    let stream = client::inherited(args.stream)?;
    let mut address = Address { dir: args.state.clone(), of: None };
    if let Ok(known) = state::load(&args.state) {
        // Counted where the container is; it waits wherever it is.
        let _joined = known.cgroup.join();
        address = pod::address(&args.state, &known);
    }
    if args.terminal {
        // Its keys are signals for us then, which go on to those inside.
        let _session = rustix::process::setsid();
        let _controlling = rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd());
    }
    Ok(until_end(&stream, &address, args.pid, args.terminal))
}

/// Waits for the end that is told on the stream; passes a terminal's signals on meanwhile.
fn until_end(stream: &UnixStream, address: &Address, pid: i32, terminal: bool) -> u8 {
    if terminal {
        let _waited = pass_signals(stream, address, pid);
    }
    match client::receive(stream) {
        Some(Reply::Ended(status)) => status as u8,
        _ => KILLED,
    }
}

/// Until there is something on the stream.
fn pass_signals(stream: &UnixStream, address: &Address, pid: i32) -> Result<()> {
    let stage = || "waiting for the process".to_owned();
    let mask = FROM_TERMINAL.iter().fold(0_u64, |mask, signo| mask | 1 << (signo - 1));
    poll::block_signals(mask);
    let signals = poll::signal_fd(mask).doing(stage)?;
    let epoll = poll::Epoll::new().doing(stage)?;
    epoll.watch(signals.raw(), 1, 0).doing(stage)?;
    epoll.watch(stream.as_raw_fd(), 1, 1).doing(stage)?;
    let mut events = Vec::new();
    loop {
        epoll.wait(&mut events);
        while let Some(signo) = poll::next_signal(&signals) {
            let _gone = client::ask(address, Request::ProcessTerminalSignal(pid, signo));
        }
        if events.iter().any(|event| event.token == 1) {
            return Ok(());
        }
    }
}
