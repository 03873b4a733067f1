//! Requests from outside to a sandbox that is confined already.
//!
//! Whoever may open the container's socket sends a datagram whose only content are descriptors: a stream that the request is
//! on and the answer goes to, then those that the request is about. So the jail has to allow one call more, recvmsg(2), and
//! nobody who connects and says nothing keeps others waiting for longer than the stream's own time-out, which the sender sets.
//!
//! A request is its length in four bytes (little-endian) and JSON; so is each answer.

use super::container::User;
use super::pod::{Begin, Inside, Pod};
use super::{Error, copy};
use crate::abi::{Errno, Result as HostResult};
use crate::arena::{self, ledger};
use crate::hostfd::{self, HostFd};
use crate::hostsys::file;
use crate::kernel::WaitStatus;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Arc;

/// The longest request, bytes.
const LONGEST: usize = 4 << 20;
/// Descriptors of a request: the stream, and what a container is made of (SCM_MAX_FD).
pub const MOST: usize = 253;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The container that it is about; the sandbox's first where none is named.
    pub of: Option<String>,
    /// What is asked for.
    pub what: Request,
}

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a container beside the first. What it is made of comes along: its root directory, sources of mounts, standard streams.
    Create(Box<Create>),
    /// Run the first program; once.
    Start,
    /// Start a process.
    Exec(Box<Exec>),
    /// List the processes.
    Processes,
    /// Send a signal to the first process, as from outside its pid namespace.
    Signal(i32),
    /// Send a signal to the foreground group of its terminal (on the stream of a container that is not the first).
    TerminalSignal(i32),
    /// Send a signal to the foreground group of the terminal that this process was started with.
    ProcessTerminalSignal(i32, i32),
    /// Let all programs together have so much, where it is said.
    Limits {
        /// Memory, bytes.
        memory: Option<u64>,
        /// Tasks.
        tasks: Option<u64>,
    },
    /// Stop all programs of a container that is not the first, or let them go on.
    Freeze(bool),
    /// Tell what they use.
    Usage,
    /// List the host descriptors.
    Descriptors,
    /// Send what has this name, in an archive, behind the answer.
    CopyOut(Vec<u8>),
    /// Unpack an archive that follows the answer to this place, as this name in it; a second answer says what came of it.
    CopyIn(Vec<u8>, Vec<u8>),
}

/// Whose namespace of a kind a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// Its own.
    Own,
    /// The first container's.
    Sandbox,
    /// That of another one.
    Member(String),
}

/// The namespaces of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Process ids.
    pub pids: Whose,
    /// The host's names.
    pub uts: Whose,
    /// System V objects, message queues and /dev/shm.
    pub ipc: Whose,
    /// The network.
    pub network: Whose,
}

/// A container to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// Its name.
    pub id: String,
    /// Its specification, as a [`Translator`](super::pod::Translator) reads it.
    pub config: String,
    /// Where that is.
    pub bundle: PathBuf,
    /// The namespaces that are not its own.
    pub shares: Shares,
    /// Memory of its programs together, bytes.
    pub memory: Option<u64>,
    /// Their tasks.
    pub tasks: Option<u64>,
    /// Its standard streams are one terminal.
    pub terminal: bool,
}

/// What the programs of a container use.
#[derive(Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Memory, bytes.
    pub memory: u64,
    /// Tasks.
    pub tasks: u64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
}

/// A process to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The command.
    pub args: Vec<String>,
    /// Its environment, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Who it is.
    pub user: User,
    /// Its standard streams are one terminal.
    pub terminal: bool,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// A process has started, with this number inside.
    Running(i32),
    /// It has ended: its exit status, or 128 and the signal.
    Ended(i32),
    /// It cannot be done: an exit status like a shell's, and why.
    Failed(u8, String),
    /// All processes.
    Processes(Vec<Process>),
    /// All host descriptors, a line each: number, uses, what it is.
    Descriptors(Vec<String>),
    /// What programs use.
    Usage(Usage),
}

/// A process as a list shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number inside.
    pub pid: i32,
    /// Its parent's; 0 for none.
    pub parent: i32,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub name: String,
}

/// Serves a sandbox's requests.
pub(super) struct Control {
    pub(super) socket: HostFd,
    pub(super) pod: Arc<Pod>,
}

impl Control {
    /// Waits for the request to start. False: nobody can send it any more.
    pub(super) fn wait_for_start(&self) -> bool {
        loop {
            let Some((stream, rest)) = self.receive() else { return false };
            match read(&stream) {
                Ok(Asked { of: None, what: Request::Start }) => {
                    answer(&stream, &Reply::Done);
                    return true;
                }
                Ok(_) => {
                    answer(&stream, &Reply::Failed(125, "the container has not been started".to_owned()))
                }
                Err(_) => {}
            }
            drop(rest);
        }
    }

    /// Serves until the end of the process.
    pub(super) fn serve(&self) {
        while let Some((stream, rest)) = self.receive() {
            if let Ok(asked) = read(&stream) {
                self.serve_one(asked, stream, rest);
            }
        }
    }

    fn serve_one(&self, asked: Asked, stream: HostFd, rest: Vec<HostFd>) {
        let of = asked.of.as_deref();
        let reply = match (asked.what, of) {
            (Request::Start, None) => Reply::Failed(125, "the container has been started already".to_owned()),
            (Request::Start, Some(id)) => done(self.pod.start(id)),
            (Request::Create(create), _) => match self.pod.create(&create, &stream, rest) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(1, error.as_engines_read_it()),
            },
            (Request::Exec(exec), _) => return self.exec(of, &exec, stream, rest),
            (Request::CopyOut(place), _) => return self.copy_out(&place, stream),
            (Request::CopyIn(place, name), _) => return self.copy_in(place, name, stream),
            (Request::Processes, _) => match self.pod.processes(of) {
                Ok(all) => Reply::Processes(all),
                Err(message) => Reply::Failed(125, message),
            },
            (Request::Descriptors, _) => Reply::Descriptors(descriptors()),
            (Request::Signal(signo), _) => done(self.pod.signal(of, signo)),
            (Request::ProcessTerminalSignal(pid, signo), _) => {
                if let Some(tty) = self.pod.kernel.controlling_terminal(pid) {
                    self.pod.kernel.signal_foreground(tty, signo);
                }
                Reply::Done
            }
            (Request::Limits { memory, tasks }, Some(id)) => done(self.pod.limit(id, memory, tasks)),
            (Request::Limits { memory, .. }, None) => {
                memory.into_iter().for_each(ledger::set_limit);
                Reply::Done
            }
            (Request::Freeze(frozen), Some(id)) => done(self.pod.freeze(id, frozen)),
            (Request::Usage, Some(id)) => match self.pod.usage(id) {
                Ok(usage) => Reply::Usage(usage),
                Err(message) => Reply::Failed(125, message),
            },
            (Request::Freeze(_) | Request::Usage | Request::TerminalSignal(_), _) => {
                Reply::Failed(125, "not of this container".to_owned())
            }
        };
        answer(&stream, &reply);
    }

    /// Others need not wait for a copy.
    fn copy_out(&self, place: &[u8], stream: HostFd) {
        let found = match copy::find(&self.pod.first.world, place) {
            Ok(found) => found,
            Err(errno) => {
                let place = super::shown(place);
                return answer(&stream, &Reply::Failed(1, format!("{place}: {errno}")));
            }
        };
        let world = self.pod.first.world.clone();
        let to = stream.clone();
        let copying = arena::thread::spawn("copy", move || {
            answer(&to, &Reply::Done);
            // Who asked has gone, or finds the archive cut off.
            let _gone = copy::out(&world, found, &to);
        });
        if let Err(errno) = copying {
            answer(&stream, &Reply::Failed(1, errno.to_string()));
        }
    }

    fn copy_in(&self, place: Vec<u8>, name: Vec<u8>, stream: HostFd) {
        let world = self.pod.first.world.clone();
        let from = stream.clone();
        let copying = arena::thread::spawn("copy", move || {
            answer(&from, &Reply::Done);
            let reply = match copy::into(&world, &place, &name, &from) {
                Ok(()) => Reply::Done,
                Err(message) => Reply::Failed(1, message),
            };
            answer(&from, &reply);
        });
        if let Err(errno) = copying {
            answer(&stream, &Reply::Failed(1, errno.to_string()));
        }
    }

    /// None where the socket fails: there is no use in going on.
    fn receive(&self) -> Option<(HostFd, Vec<HostFd>)> {
        loop {
            let mut byte = [0; 1];
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let mut pieces = [IoSliceMut::new(&mut byte)];
            match recvmsg(self.socket.borrow(), &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            }
            let mut received = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    received.extend(fds.filter_map(|fd| HostFd::given(fd, "a request").ok()));
                }
            }
            if !received.is_empty() {
                let rest = received.split_off(1);
                return received.pop().map(|stream| (stream, rest));
            }
        }
    }

    /// Starts a process, answers, and has the stream told of its end.
    fn exec(&self, of: Option<&str>, exec: &Exec, stream: HostFd, streams: Vec<HostFd>) {
        let inside = match self.pod.inside(of) {
            Ok(inside) => inside,
            Err(message) => return answer(&stream, &Reply::Failed(255, message)),
        };
        if let Err(error) = self.try_exec(&inside, exec, &stream, streams) {
            answer(&stream, &Reply::Failed(error.status(255), error.to_string()));
        }
    }

    fn try_exec(
        &self,
        inside: &Inside,
        exec: &Exec,
        stream: &HostFd,
        streams: Vec<HostFd>,
    ) -> Result<(), Error> {
        let (argv, env) = (bytes(&exec.args), bytes(&exec.env));
        let begin = Begin {
            argv: &argv,
            env: &env,
            cwd: &exec.cwd,
            user: &exec.user,
            streams,
            terminal: exec.terminal,
        };
        let (to, kernel) = (stream.clone(), &self.pod.kernel);
        let ended = move |status: WaitStatus| answer(&to, &Reply::Ended(status.shell_code()));
        let mut init = inside.load(kernel, begin, ended)?;
        let to = stream.clone();
        init.told = Some(Box::new(move |pid| answer(&to, &Reply::Running(pid))));
        kernel.spawn_init(init).map_err(|source| Error::Setup { what: "starting the process", source })?;
        Ok(())
    }
}

fn done(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(message) => Reply::Failed(125, message),
    }
}

fn descriptors() -> Vec<String> {
    hostfd::list()
        .into_iter()
        .map(|listed| format!("{} x{} {}", listed.fd, listed.uses, listed.what))
        .collect()
}

fn bytes(words: &[String]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.clone().into_bytes()).collect()
}

/// Reads a request.
///
/// # Errors
/// EAGAIN where none has come in the time that the sender has set; others where none will come any more.
pub(super) fn read(stream: &HostFd) -> HostResult<Asked> {
    let mut length = [0; 4];
    fill(stream, &mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(Errno::EMSGSIZE);
    }
    let mut text = vec![0; length];
    fill(stream, &mut text)?;
    serde_json::from_slice(&text).map_err(|_| Errno::EINVAL)
}

fn fill(stream: &HostFd, mut to: &mut [u8]) -> HostResult<()> {
    while !to.is_empty() {
        match file::read(stream.raw(), to) {
            Ok(0) => return Err(Errno::EPIPE),
            Ok(count) => to = &mut to[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Answers; nobody is left to tell where that fails.
pub(super) fn answer(stream: &HostFd, reply: &Reply) {
    let Ok(text) = serde_json::to_vec(reply) else { return };
    let mut message = (text.len() as u32).to_le_bytes().to_vec();
    message.extend(text);
    let mut rest = &message[..];
    while !rest.is_empty() {
        match file::write(stream.raw(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
