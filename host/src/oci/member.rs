//! A container in another's kernel, outside: the process that has it made there, and is what engines wait for.
//!
//! It opens what the container takes of the host, sends that to the kernel of its pod, and waits for the end that it is told,
//! in the container's control group, and with the container's root in its namespace of mounts. With its own end, whatever the
//! reason, the container's comes.

use super::boot::{enter, join, wait_for_hooks};
use super::error::{Doing, Error, Result};
use super::spec::{Plan, resources};
use super::state::{self, State};
use super::{Global, args, client, exec, pod, terminal};
use crate::hostsys::poll;
use crate::sandbox::control::{self, Asked, Reply, Request, Shares};
use crate::sandbox::pod::Waiting;
use oci_spec::runtime::Spec;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGTSTP, SIGWINCH: what comes here is for those inside.
const PASSED: [i32; 8] = [1, 2, 3, 10, 12, 15, 20, 28];
/// Those among them that a terminal sends to its foreground group.
const OF_TERMINAL: [i32; 5] = [1, 2, 3, 20, 28];

/// A container that has been made.
pub(super) struct Made {
    stream: UnixStream,
    terminal: bool,
}

/// Makes it.
pub(super) fn prepare(
    global: &Global,
    args: &args::Boot,
    (known, config, plan): (&State, &Spec, Plan),
    creator: &mut UnixStream,
) -> Result<Made> {
    let sandbox = known.sandbox.as_deref().ok_or_else(|| Error::new("no control socket, and no pod"))?;
    let shares = pod::shares(global, sandbox, config)?;
    join(known, args.terminal)?;
    enter(&plan.network)?;
    wait_for_hooks(creator)?;
    let text = std::fs::read_to_string(args.state.join(state::CONFIG)).doing(|| "config.json".to_owned())?;
    let address = pod::address(&args.state, known);
    let waiting = Waiting::open(&plan.sandbox, &[args.creator]).map_err(|error| Error::of_program(&error))?;
    let stream = ask(&address, request(known, config, shares, text), &waiting, args.terminal)?;
    if !args.terminal {
        let null =
            File::options().read(true).write(true).open("/dev/null").doing(|| "/dev/null".to_owned())?;
        let doing = || "giving the standard streams away".to_owned();
        rustix::stdio::dup2_stdin(&null).doing(doing)?;
        rustix::stdio::dup2_stdout(&null).doing(doing)?;
        rustix::stdio::dup2_stderr(&null).doing(doing)?;
    }
    waiting.give_up().map_err(|error| Error::new(error.to_string()))?;
    Ok(Made { stream, terminal: args.terminal })
}

fn request(known: &State, config: &Spec, shares: Shares, text: String) -> control::Create {
    let resources = resources(config);
    let memory = resources.and_then(|all| all.memory().as_ref()?.limit());
    let tasks = resources.and_then(|all| all.pids().map(|pids| pids.limit()));
    let limit = |of: Option<i64>| of.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok());
    control::Create {
        id: known.id.clone(),
        config: text,
        bundle: known.bundle.clone(),
        shares,
        memory: limit(memory),
        tasks: limit(tasks),
        terminal: config.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false)),
    }
}

/// Has it made by the kernel of its pod.
fn ask(
    address: &client::Address,
    create: control::Create,
    waiting: &Waiting,
    terminal: bool,
) -> Result<UnixStream> {
    let request = Request::Create(Box::new(create));
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let tty = if terminal { Some(terminal::description(stdin.as_fd())?) } else { None };
    let streams: Vec<BorrowedFd<'_>> = match &tty {
        Some(tty) => vec![tty.as_fd()],
        None => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
    };
    let all: Vec<_> = waiting.fds.iter().map(|fd| fd.borrow()).chain(streams).collect();
    let stream = client::send(address, request, &all)?;
    match client::receive(&stream) {
        Some(Reply::Done) => Ok(stream),
        Some(Reply::Failed(_, message)) => Err(Error::new(message)),
        _ => Err(Error::new("the sandbox of the pod did not answer")),
    }
}

impl Made {
    /// Waits for its end, and passes signals on. Its exit status.
    pub(super) fn wait(self) -> u8 {
        let _waited = self.pass_signals();
        match client::receive(&self.stream) {
            Some(Reply::Ended(status)) => status as u8,
            _ => exec::KILLED,
        }
    }

    /// Until there is something on the stream.
    fn pass_signals(&self) -> Result<()> {
        let stage = || "waiting for the container".to_owned();
        let mask = PASSED.iter().fold(0_u64, |mask, signo| mask | 1 << (signo - 1));
        poll::block_signals(mask);
        let signals = poll::signal_fd(mask).doing(stage)?;
        let epoll = poll::Epoll::new().doing(stage)?;
        epoll.watch(signals.raw(), 1, 0).doing(stage)?;
        epoll.watch(self.stream.as_raw_fd(), 1, 1).doing(stage)?;
        let mut events = Vec::new();
        loop {
            epoll.wait(&mut events);
            while let Some(signo) = poll::next_signal(&signals) {
                let of_terminal = self.terminal && OF_TERMINAL.contains(&signo);
                let what = if of_terminal { Request::TerminalSignal(signo) } else { Request::Signal(signo) };
                client::write(&self.stream, &Asked { of: None, what })?;
            }
            if events.iter().any(|event| event.token == 1) {
                return Ok(());
            }
        }
    }
}
