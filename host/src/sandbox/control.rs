//! Requests from outside to a sandbox that is confined already.
//!
//! Whoever may open the container's socket sends a datagram whose only content are descriptors: a stream that the request is
//! on and the answer goes to, then those that the request is about. So the jail has to allow one call more, recvmsg(2), and
//! nobody who connects and says nothing keeps others waiting for longer than the stream's own time-out, which the sender sets.
//!
//! A request is its length in four bytes (little-endian) and JSON; so is each answer.

use super::container::{Shared, User};
use super::program::Command;
use super::{Error, copy, start};
use crate::abi::Errno;
use crate::arena::{self, ledger};
use crate::cred::Cred;
use crate::fs::world;
use crate::hostfd::{self, HostFd};
use crate::hostsys::file;
use crate::kernel::limits::Limits;
use crate::kernel::seccomp::{Confinement, Filter};
use crate::kernel::signal::{SigInfo, SigSet};
use crate::kernel::{Init, Kernel, WaitStatus};
use crate::vfs::{Caller, FsContext, Kind, Lookup, Resolve};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// The longest request, bytes.
const LONGEST: usize = 4 << 20;
/// Descriptors of a request: the stream and three standard ones.
const MOST: usize = 4;

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run the first program; once.
    Start,
    /// Start a process.
    Exec(Box<Exec>),
    /// List the processes.
    Processes,
    /// Send a signal to process 1, as from outside its pid namespace.
    Signal(i32),
    /// Send a signal to the foreground group of the terminal that this process was started with.
    TerminalSignal(i32, i32),
    /// Let all programs together have this much memory, bytes.
    Memory(u64),
    /// List the host descriptors.
    Descriptors,
    /// Send what has this name, in an archive, behind the answer.
    CopyOut(Vec<u8>),
    /// Unpack an archive that follows the answer to this place, as this name in it; a second answer says what came of it.
    CopyIn(Vec<u8>, Vec<u8>),
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
    pub(super) kernel: Arc<Kernel>,
    pub(super) world: Shared,
    /// What the first process had before its own.
    pub(super) limits: Limits,
    /// What screens the calls of all programs.
    pub(super) seccomp: Option<Arc<Filter>>,
}

impl Control {
    /// Waits for the request to start. False: nobody can send it any more.
    pub(super) fn wait_for_start(&self) -> bool {
        loop {
            let Some((stream, rest)) = self.receive() else { return false };
            match read(&stream) {
                Some(Request::Start) => {
                    answer(&stream, &Reply::Done);
                    return true;
                }
                Some(_) => {
                    answer(&stream, &Reply::Failed(125, "the container has not been started".to_owned()))
                }
                None => {}
            }
            drop(rest);
        }
    }

    /// Serves until the end of the process.
    pub(super) fn serve(&self) {
        while let Some((stream, rest)) = self.receive() {
            if let Some(request) = read(&stream) {
                self.serve_one(request, stream, rest);
            }
        }
    }

    fn serve_one(&self, request: Request, stream: HostFd, rest: Vec<HostFd>) {
        let reply = match request {
            Request::Start => Reply::Failed(125, "the container has been started already".to_owned()),
            Request::Exec(exec) => return self.exec(&exec, stream, rest),
            Request::CopyOut(place) => return self.copy_out(&place, stream),
            Request::CopyIn(place, name) => return self.copy_in(place, name, stream),
            Request::Processes => Reply::Processes(self.processes()),
            Request::Descriptors => Reply::Descriptors(descriptors()),
            Request::Signal(signo) => self.signal(signo),
            Request::TerminalSignal(pid, signo) => {
                if let Some(tty) = self.kernel.controlling_terminal(pid) {
                    self.kernel.signal_foreground(tty, signo);
                }
                Reply::Done
            }
            Request::Memory(bytes) => {
                ledger::set_limit(bytes);
                Reply::Done
            }
        };
        answer(&stream, &reply);
    }

    /// Others need not wait for a copy.
    fn copy_out(&self, place: &[u8], stream: HostFd) {
        let found = match copy::find(&self.world, place) {
            Ok(found) => found,
            Err(errno) => {
                let place = super::shown(place);
                return answer(&stream, &Reply::Failed(1, format!("{place}: {errno}")));
            }
        };
        let world = self.world.clone();
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
        let world = self.world.clone();
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

    fn signal(&self, signo: i32) -> Reply {
        match self.kernel.process(crate::kernel::tree::INIT) {
            Some(init) => match self.kernel.signal_group(&init, SigInfo::kernel(signo)) {
                Ok(()) => Reply::Done,
                Err(errno) => Reply::Failed(125, errno.to_string()),
            },
            None => Reply::Failed(125, "the container is not running".to_owned()),
        }
    }

    fn processes(&self) -> Vec<Process> {
        let tree = self.kernel.tree.lock();
        let ids: Vec<(i32, i32)> = tree.nodes().map(|(id, node)| (*id, node.parent)).collect();
        drop(tree);
        let of = |(pid, parent): (i32, i32)| {
            let task = self.kernel.process(pid)?.threads().first()?.clone();
            let name = String::from_utf8_lossy(&task.comm()).into_owned();
            Some(Process { pid, parent, uid: task.cred().uid.effective, name })
        };
        ids.into_iter().filter_map(of).collect()
    }

    /// Starts a process, answers, and has the stream told of its end.
    fn exec(&self, exec: &Exec, stream: HostFd, streams: Vec<HostFd>) {
        if let Err(error) = self.try_exec(exec, &stream, streams) {
            answer(&stream, &Reply::Failed(error.status(255), error.to_string()));
        }
    }

    fn try_exec(&self, exec: &Exec, stream: &HostFd, streams: Vec<HostFd>) -> Result<(), Error> {
        let failed = |what| move |source| Error::Setup { what, source };
        let (cred, limits) = (exec.user.cred(), exec.user.limits(self.limits));
        let fs = self.place(exec, &cred)?;
        let (argv, env) = (bytes(&exec.args), bytes(&exec.env));
        let mm_limits = start::mm_limits(&limits);
        let command = Command { argv: &argv, env: &env, fs: &fs, cred: &cred, limits: &mm_limits };
        let (program, exe) = command.load(&self.kernel)?;
        let streams = world::received_stdio(&self.world, &self.kernel, &cred, streams, exec.terminal)
            .map_err(failed("its standard streams"))?;
        let (to, world, index) = (stream.clone(), self.world.clone(), streams.tty.map(|(_, index)| index));
        let on_exit = move |status: WaitStatus| {
            if let Some(index) = index {
                world.devices.ptys.remove(index);
            }
            answer(&to, &Reply::Ended(status.shell_code()));
        };
        let init = Init {
            mm: program.mm,
            ip: program.ip,
            sp: program.sp,
            fds: streams.fds,
            fs,
            cred,
            comm: program.comm,
            exe: Some(exe),
            limits,
            confinement: Confinement::of_container(exec.user.no_new_privileges, self.seccomp.as_ref()),
            ignored: SigSet::EMPTY,
            tty: streams.tty.map(|(number, _)| number),
            on_exit: Some(Box::new(on_exit)),
            told: Some(Box::new({
                let to = stream.clone();
                move |pid| answer(&to, &Reply::Running(pid))
            })),
        };
        self.kernel.spawn_init(init).map_err(failed("starting the process"))?;
        Ok(())
    }

    /// Its view of the files: the root, and its working directory.
    fn place(&self, exec: &Exec, cred: &Cred) -> Result<Arc<FsContext>, Error> {
        let fs = FsContext::new(self.world.ns.clone());
        fs.set_umask(exec.user.umask.unwrap_or(0o022));
        let lookup = Lookup { fs: &fs, cred, caller: Caller { pid: 1, tid: 1 } };
        let cwd = match lookup.resolve(None, exec.cwd.as_bytes(), Resolve::FOLLOW) {
            Ok(path) if path.dentry.kind() == Kind::Dir => path,
            other => {
                let source = other.err().unwrap_or(Errno::ENOTDIR);
                return Err(Error::WorkingDirectory { path: exec.cwd.clone().into(), source });
            }
        };
        fs.set_cwd(cwd);
        Ok(fs)
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

/// Reads a request; none where there is not a whole one.
fn read(stream: &HostFd) -> Option<Request> {
    let mut length = [0; 4];
    fill(stream, &mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return None;
    }
    let mut text = vec![0; length];
    fill(stream, &mut text)?;
    serde_json::from_slice(&text).ok()
}

fn fill(stream: &HostFd, mut to: &mut [u8]) -> Option<()> {
    while !to.is_empty() {
        match file::read(stream.raw(), to) {
            Ok(0) => return None,
            Ok(count) => to = &mut to[count..],
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// Answers; nobody is left to tell where that fails.
fn answer(stream: &HostFd, reply: &Reply) {
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
