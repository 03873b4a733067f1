//! Sockets: making, naming, connecting, options. Messages are in [`super::message`].

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::mm::Mm;
use crate::net::{
    Address, Answer, Connect, Creds, Making, Pair, Peer, Raw, Socket, SocketFile, TYPES, Value,
};
use crate::syscalls::Args;
use crate::syscalls::descriptors::pipe::install_pair;
use crate::syscalls::files::names::{Names, only};
use crate::vfs::{File, is_cloexec};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::sync::Arc;

const TYPE_MASK: u32 = 0xf;

/// Who a message is from that the caller sends.
pub(crate) fn creds(cur: &Current) -> Creds {
    let cred = cur.cred();
    Creds { pid: cur.task.tgid(), uid: cred.uid.real, gid: cred.gid.real }
}

/// What the caller is to the other end of a connection.
fn peer(cur: &Current) -> Peer {
    let cred = cur.cred();
    let creds = Creds { pid: cur.task.tgid(), uid: cred.uid.effective, gid: cred.gid.effective };
    Peer { creds, groups: cred.groups.clone() }
}

/// Calls `make` with what the first three arguments say.
fn made<T>(cur: &Current, args: &Args, make: impl FnOnce(&Making<'_>) -> Result<T>) -> Result<T> {
    let kind = args.uint(1) & TYPE_MASK;
    only(args.uint(1) & !TYPE_MASK, c::O_CLOEXEC | c::O_NONBLOCK)?;
    if kind >= TYPES {
        return Err(Errno::EINVAL);
    }
    let names = Names::of(cur);
    let network = cur.network();
    make(&Making {
        kind,
        protocol: args.int(2),
        by: &names.lookup(),
        flight: &cur.kernel.flight,
        network: &network,
    })
}

/// socket(2)
pub(crate) fn socket(cur: &mut Current, args: &Args) -> Result<u64> {
    let socket = made(cur, args, |making| (crate::net::family(args.int(0))?.make)(making))?;
    let flags = args.uint(1);
    let limit = cur.limit(c::RLIMIT_NOFILE);
    Ok(cur.fds().install(SocketFile::open(socket, flags), is_cloexec(flags), limit)? as u64)
}

/// socketpair(2)
pub(crate) fn socketpair(cur: &mut Current, args: &Args) -> Result<u64> {
    let peer = peer(cur);
    let (a, b): Pair = made(cur, args, |making| (crate::net::family(args.int(0))?.pair)(making, peer))?;
    let flags = args.uint(1);
    let (a, b) = (SocketFile::open(a, flags), SocketFile::open(b, flags));
    install_pair(cur, args.addr(3), a, b, is_cloexec(flags))
}

/// The file behind a descriptor, which must be a socket.
pub(crate) fn socket_file(cur: &Current, fd: i32) -> Result<Arc<File>> {
    let file = cur.file(fd)?;
    of(&file)?;
    Ok(file)
}

/// The socket of a file.
///
/// # Errors
/// ENOTSOCK.
pub(crate) fn of(file: &File) -> Result<&Arc<dyn Socket>> {
    file.downcast::<SocketFile>().map(SocketFile::socket).ok_or(Errno::ENOTSOCK)
}

/// An address that a program gives.
pub(crate) fn address(mm: &Mm, addr: u64, len: usize) -> Result<Raw> {
    let mut raw = Raw::with_len(len).ok_or(Errno::EINVAL)?;
    mm.read(addr, raw.bytes_mut())?;
    Ok(raw)
}

/// Writes an address and its full length, cutting the address to the room given.
pub(crate) fn put_address(mm: &Mm, address: &Address, addr: u64, len_addr: u64) -> Result<()> {
    let room: i32 = mm.read_val(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let raw = address.raw();
    let bytes = raw.bytes();
    mm.write(addr, &bytes[..bytes.len().min(room)])?;
    mm.write_val(len_addr, &(bytes.len() as u32))
}

/// bind(2)
pub(crate) fn bind(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let address = address(cur.mm(), args.addr(1), args.uint(2) as usize)?;
    of(&file)?.bind(&Names::of(cur).lookup(), address.bytes())?;
    Ok(0)
}

/// listen(2)
pub(crate) fn listen(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    of(&file)?.listen(args.int(1), peer(cur))?;
    Ok(0)
}

fn do_accept(cur: &mut Current, args: &Args, flags: u32) -> Result<u64> {
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    let file = socket_file(cur, args.fd(0))?;
    let socket = of(&file)?;
    let accepted = if file.nonblocking() {
        socket.accept()?
    } else {
        let core = socket.core();
        cur.retry((&core.wait, !0), core.receive_deadline(), &mut || socket.accept())?
    };
    let accepted_from = (args.addr(1) != 0).then(|| accepted.accepted_from());
    let opened = SocketFile::open(accepted, flags);
    if let Some(from) = accepted_from {
        put_address(cur.mm(), &from, args.addr(1), args.addr(2))?;
    }
    Ok(cur.fds().install(opened, is_cloexec(flags), cur.limit(c::RLIMIT_NOFILE))? as u64)
}

/// accept(2)
pub(crate) fn accept(cur: &mut Current, args: &Args) -> Result<u64> {
    do_accept(cur, args, 0)
}

/// accept4(2)
pub(crate) fn accept4(cur: &mut Current, args: &Args) -> Result<u64> {
    do_accept(cur, args, args.uint(3))
}

/// connect(2)
pub(crate) fn connect(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let socket = of(&file)?;
    let address = address(cur.mm(), args.addr(1), args.uint(2) as usize)?;
    let (names, peer) = (Names::of(cur), peer(cur));
    let (by, nowait) = (names.lookup(), file.nonblocking());
    let until = socket.core().send_deadline();
    loop {
        match socket.connect(&by, address.bytes(), &peer, nowait)? {
            Connect::Done => return Ok(0),
            Connect::Underway if nowait => return Err(Errno::EINPROGRESS),
            Connect::Underway => {
                let mut attempt = || socket.connected().unwrap_or(Err(Errno::EAGAIN));
                return match cur.retry((&socket.core().wait, !0), until, &mut attempt) {
                    // It goes on.
                    Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
                    result => result.map(|()| 0),
                };
            }
            Connect::Full(_) if nowait => return Err(Errno::EAGAIN),
            Connect::Full(target) => {
                let mut attempt = || match socket.connect(&by, address.bytes(), &peer, nowait)? {
                    Connect::Full(_) => Err(Errno::EAGAIN),
                    other => Ok(other),
                };
                match cur.retry((&target.core().wait, !0), until, &mut attempt)? {
                    Connect::Done => return Ok(0),
                    _ => continue,
                }
            }
        }
    }
}

/// getsockname(2)
pub(crate) fn getsockname(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    put_address(cur.mm(), &of(&file)?.name(), args.addr(1), args.addr(2))?;
    Ok(0)
}

/// getpeername(2)
pub(crate) fn getpeername(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    put_address(cur.mm(), &of(&file)?.peer_name()?, args.addr(1), args.addr(2))?;
    Ok(0)
}

/// shutdown(2)
pub(crate) fn shutdown(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let (read, write) = match args.int(1) {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    of(&file)?.shutdown(read, write)?;
    Ok(0)
}

/// setsockopt(2)
pub(crate) fn setsockopt(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let len = usize::try_from(args.int(4)).map_err(|_| Errno::EINVAL)?;
    let value = Value { mm: cur.mm(), addr: args.addr(3), len };
    of(&file)?.set_option(&Names::of(cur).lookup(), args.uint(1), args.uint(2), &value)?;
    Ok(0)
}

/// SO_PEERPIDFD: a new descriptor for whoever is at the other end.
fn peer_pidfd(cur: &mut Current, socket: &dyn Socket) -> Result<Answer> {
    let peer = socket.peer().ok_or(Errno::ENODATA)?;
    let node = cur.kernel.tree.lock().node(peer.creds.pid).map(|node| node.group.clone());
    let group = node.ok_or(Errno::EINVAL)?;
    let fd = crate::syscalls::processes::pidfd::install(cur, group, 0)?;
    Ok(Answer::Value(fd.to_ne_bytes().to_vec()))
}

/// SO_PEERGROUPS, as they are called where the caller is.
fn peer_groups(cur: &Current, socket: &dyn Socket, room: usize) -> Result<Answer> {
    let answer = socket.option(n::SOL_SOCKET, n::SO_PEERGROUPS, room)?;
    let Answer::Value(mut bytes) = answer else { return Ok(answer) };
    let cred = cur.cred();
    for word in bytes.as_chunks_mut::<4>().0 {
        *word = cred.user_ns.show_gid(u32::from_ne_bytes(*word)).to_ne_bytes();
    }
    Ok(Answer::Value(bytes))
}

/// SO_PEERCRED. Where nobody is known: process 0, and no user.
fn peer_credentials(cur: &Current, socket: &dyn Socket) -> Result<Answer> {
    let answer = socket.option(n::SOL_SOCKET, n::SO_PEERCRED, 0)?;
    let Answer::Value(mut bytes) = answer else { return Ok(answer) };
    if let Some(peer) = socket.peer()
        && let Some([pid, uid, gid]) = bytes.as_chunks_mut::<4>().0.first_chunk_mut()
    {
        *pid = cur.number_of(peer.creds.pid).to_ne_bytes();
        let shown = cur.show((peer.creds.uid, peer.creds.gid));
        (*uid, *gid) = (shown.0.to_ne_bytes(), shown.1.to_ne_bytes());
    }
    Ok(Answer::Value(bytes))
}

/// getsockopt(2)
pub(crate) fn getsockopt(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let socket = of(&file)?;
    let (level, name) = (args.uint(1), args.uint(2));
    let room: i32 = cur.mm().read_val(args.addr(4))?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let answer = match (level, name) {
        (n::SOL_SOCKET, n::SO_PEERPIDFD) => peer_pidfd(cur, &**socket)?,
        (n::SOL_SOCKET, n::SO_PEERCRED) => peer_credentials(cur, &**socket)?,
        (n::SOL_SOCKET, n::SO_PEERGROUPS) => peer_groups(cur, &**socket, room)?,
        _ => socket.option(level, name, room)?,
    };
    let value = match answer {
        Answer::Value(value) => value,
        Answer::TooLong(len) => {
            cur.mm().write_val(args.addr(4), &(len as u32))?;
            return Err(Errno::ERANGE);
        }
    };
    let len = room.min(value.len());
    cur.mm().write(args.addr(3), &value[..len])?;
    cur.mm().write_val(args.addr(4), &(len as u32))?;
    Ok(0)
}
