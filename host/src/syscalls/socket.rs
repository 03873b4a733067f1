//! Sockets: making, naming, connecting, options. Messages are in [`super::message`].

use super::Args;
use super::message::{deadline, timed_out};
use super::names::{Names, only};
use super::pipe::install_pair;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::mm::Mm;
use crate::net::unix::{BUFFER, Creds, Kind, UnixSocket};
use crate::sync::Lock;
use crate::vfs::{Extra, File, Kind as FileKind, Resolve, Want, is_cloexec, may};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::any::Any;
use std::sync::{Arc, Weak};

/// `sun_path` starts here.
const PATH_AT: usize = 2;
/// sizeof(struct sockaddr_un).
const ADDR_MAX: usize = 110;
const AF_UNIX: u16 = 1;
const TYPE_MASK: u32 = 0xf;

/// What a socket's inode holds for those who connect by name.
struct Bound(Weak<UnixSocket>);

pub(super) fn creds(cur: &Current) -> Creds {
    let cred = cur.cred();
    Creds { pid: cur.task.tgid(), uid: cred.uid.effective, gid: cred.gid.effective }
}

fn kind_of(kind: u32) -> Result<Kind> {
    match kind & TYPE_MASK {
        1 => Ok(Kind::Stream),
        // SOCK_RAW is SOCK_DGRAM for Unix sockets (unix(7)).
        2 | 3 => Ok(Kind::Datagram),
        5 => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn checked_kind(domain: i32, kind: u32, protocol: i32) -> Result<Kind> {
    only(kind & !TYPE_MASK, c::O_CLOEXEC | c::O_NONBLOCK)?;
    if domain != i32::from(AF_UNIX) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != i32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    kind_of(kind)
}

/// socket(2)
pub(super) fn socket(cur: &mut Current, args: &Args) -> Result<u64> {
    let kind = checked_kind(args.int(0), args.uint(1), args.int(2))?;
    let flags = args.uint(1);
    let file = UnixSocket::new(kind).file(flags);
    Ok(cur.fds().install(file, is_cloexec(flags), cur.limit(c::RLIMIT_NOFILE))? as u64)
}

/// socketpair(2)
pub(super) fn socketpair(cur: &mut Current, args: &Args) -> Result<u64> {
    let kind = match checked_kind(args.int(0), args.uint(1), args.int(2)) {
        Err(Errno::EAFNOSUPPORT) if matches!(args.int(0), 2 | 10) => return Err(Errno::EOPNOTSUPP),
        kind => kind?,
    };
    let flags = args.uint(1);
    let (a, b) = UnixSocket::pair(kind, creds(cur));
    install_pair(cur, args.addr(3), a.file(flags), b.file(flags), is_cloexec(flags))
}

/// The file behind a descriptor, which must be a socket.
pub(super) fn socket_file(cur: &Current, fd: i32) -> Result<Arc<File>> {
    let file = cur.file(fd)?;
    if file.downcast::<UnixSocket>().is_some() { Ok(file) } else { Err(Errno::ENOTSOCK) }
}

/// The socket of a file that [`socket_file`] returned.
pub(super) fn of(file: &File) -> Result<&UnixSocket> {
    file.downcast().ok_or(Errno::ENOTSOCK)
}

/// `sun_path` of an address: a name without its final zero, or a zero byte and an abstract name. `None` is an address
/// without a name (autobind, or AF_UNSPEC with `unspec`).
pub(super) fn address(mm: &Mm, addr: u64, len: usize) -> Result<(u16, Vec<u8>)> {
    if !(PATH_AT..=ADDR_MAX).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; len];
    mm.read(addr, &mut raw)?;
    let family = u16::from_ne_bytes([raw[0], raw[1]]);
    let mut path = raw.split_off(PATH_AT);
    if path.first().is_some_and(|&b| b != 0)
        && let Some(end) = path.iter().position(|&b| b == 0)
    {
        path.truncate(end);
    }
    Ok((family, path))
}

/// Writes an address and its full length, cutting the address to the room given.
pub(super) fn put_address(mm: &Mm, name: Option<&[u8]>, addr: u64, len_addr: u64) -> Result<()> {
    if addr == 0 || len_addr == 0 {
        return Ok(());
    }
    let room: i32 = mm.read_val(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let raw = raw_address(name);
    mm.write(addr, &raw[..raw.len().min(room)])?;
    mm.write_val(len_addr, &(raw.len() as u32))
}

pub(super) fn raw_address(name: Option<&[u8]>) -> Vec<u8> {
    let mut raw = AF_UNIX.to_ne_bytes().to_vec();
    if let Some(name) = name {
        raw.extend_from_slice(name);
        if name.first().is_some_and(|&b| b != 0) {
            raw.push(0);
        }
    }
    raw
}

/// bind(2)
pub(super) fn bind(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let (family, name) = address(cur.mm(), args.addr(1), args.uint(2) as usize)?;
    if family != AF_UNIX {
        return Err(Errno::EINVAL);
    }
    let socket = of(&file)?;
    let me = socket.arc()?;
    if socket.name().is_some() {
        // To be named by the kernel is no objection.
        return if name.is_empty() { Ok(0) } else { Err(Errno::EINVAL) };
    }
    let any: Arc<dyn Any + Send + Sync> = me.clone();
    match name.first() {
        None => {
            let free = cur.fs().namespace().sockets.free_name();
            cur.fs().namespace().sockets.bind(&free, &any)?;
            socket.set_name(&free)?;
        }
        Some(0) => {
            cur.fs().namespace().sockets.bind(&name, &any)?;
            socket.set_name(&name)?;
        }
        Some(_) => {
            let names = Names::of(cur);
            let made = names.lookup().create(None, &name, FileKind::Socket, 0o777, Extra::None);
            let path =
                made.map_err(|errno| if errno == Errno::EEXIST { Errno::EADDRINUSE } else { errno })?;
            let slot: &Lock<Option<Arc<dyn Any + Send + Sync>>> =
                path.dentry.inode.shared().ok_or(Errno::EPERM)?;
            *slot.lock() = Some(Arc::new(Bound(Arc::downgrade(&me))));
            socket.set_name(&name)?;
        }
    }
    Ok(0)
}

/// The socket that an address names.
pub(super) fn find(cur: &Current, name: &[u8]) -> Result<Arc<UnixSocket>> {
    if name.first() == Some(&0) {
        let holder = cur.fs().namespace().sockets.find(name);
        return holder.and_then(|socket| socket.downcast().ok()).ok_or(Errno::ECONNREFUSED);
    }
    let names = Names::of(cur);
    let path = names.lookup().resolve(None, name, Resolve::FOLLOW)?;
    let meta = path.dentry.inode.meta();
    may(&names.cred, meta, Want::WRITE)?;
    if meta.kind != FileKind::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    let holder = path.dentry.inode.shared().and_then(|slot| slot.lock().clone());
    let bound = holder.and_then(|holder| holder.downcast::<Bound>().ok());
    bound.and_then(|bound| bound.0.upgrade()).ok_or(Errno::ECONNREFUSED)
}

/// listen(2)
pub(super) fn listen(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    of(&file)?.listen(args.int(1), creds(cur))?;
    Ok(0)
}

fn do_accept(cur: &mut Current, args: &Args, flags: u32) -> Result<u64> {
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    let file = socket_file(cur, args.fd(0))?;
    let socket = of(&file)?;
    let accepted = match socket.accept() {
        Err(Errno::EAGAIN) if !file.nonblocking() => {
            let mut ready = || match socket.accept() {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            };
            let until = deadline(socket.options.lock().receive_timeout);
            cur.wait_on(&[(socket.queue(), !0)], until, &mut ready).map_err(timed_out)??
        }
        result => result?,
    };
    let peer = accepted.peer_name().unwrap_or(None);
    put_address(cur.mm(), peer.as_deref(), args.addr(1), args.addr(2))?;
    let limit = cur.limit(c::RLIMIT_NOFILE);
    Ok(cur.fds().install(accepted.file(flags), is_cloexec(flags), limit)? as u64)
}

/// accept(2)
pub(super) fn accept(cur: &mut Current, args: &Args) -> Result<u64> {
    do_accept(cur, args, 0)
}

/// accept4(2)
pub(super) fn accept4(cur: &mut Current, args: &Args) -> Result<u64> {
    do_accept(cur, args, args.uint(3))
}

/// connect(2)
pub(super) fn connect(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let socket = of(&file)?;
    let (family, name) = address(cur.mm(), args.addr(1), args.uint(2) as usize)?;
    if family == 0 && socket.kind == Kind::Datagram {
        socket.disconnect();
        return Ok(0);
    }
    if family != AF_UNIX || name.is_empty() {
        return Err(Errno::EINVAL);
    }
    let target = find(cur, &name)?;
    let mine = creds(cur);
    match socket.connect(&target, mine) {
        Err(Errno::EAGAIN) if !file.nonblocking() => {
            let mut ready = || match socket.connect(&target, mine) {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            };
            let until = deadline(socket.options.lock().send_timeout);
            cur.wait_on(&[(target.queue(), !0)], until, &mut ready).map_err(timed_out)??;
        }
        result => result?,
    }
    Ok(0)
}

/// getsockname(2)
pub(super) fn getsockname(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    put_address(cur.mm(), of(&file)?.name().as_deref(), args.addr(1), args.addr(2))?;
    Ok(0)
}

/// getpeername(2)
pub(super) fn getpeername(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let name = of(&file)?.peer_name()?;
    put_address(cur.mm(), name.as_deref(), args.addr(1), args.addr(2))?;
    Ok(0)
}

/// shutdown(2)
pub(super) fn shutdown(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let (read, write) = match args.int(1) {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    of(&file)?.shutdown(read, write);
    Ok(0)
}

/// A `struct timeval` option in nanoseconds.
fn timeval(cur: &Current, addr: u64) -> Result<u64> {
    let [sec, usec]: [i64; 2] = cur.mm().read_val(addr)?;
    if !(0..1_000_000).contains(&usec) || sec < 0 {
        return Err(Errno::EDOM);
    }
    Ok((sec as u64).saturating_mul(1_000_000_000).saturating_add(usec as u64 * 1000))
}

/// setsockopt(2)
pub(super) fn setsockopt(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    if args.uint(1) != n::SOL_SOCKET {
        return Err(Errno::ENOPROTOOPT);
    }
    let socket = of(&file)?;
    let (name, addr, len) = (args.uint(2), args.addr(3), args.uint(4));
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    match name {
        n::SO_RCVTIMEO_OLD | n::SO_SNDTIMEO_OLD => {
            if len < 16 {
                return Err(Errno::EINVAL);
            }
            let timeout = timeval(cur, addr)?;
            let mut options = socket.options.lock();
            if name == n::SO_RCVTIMEO_OLD {
                options.receive_timeout = timeout;
            } else {
                options.send_timeout = timeout;
            }
            return Ok(0);
        }
        n::SO_LINGER => {
            if len < 8 {
                return Err(Errno::EINVAL);
            }
            let [on, seconds]: [i32; 2] = cur.mm().read_val(addr)?;
            let mut options = socket.options.lock();
            // Switched off it keeps the seconds of before.
            options.linger = (on != 0, if on != 0 { seconds } else { options.linger.1 });
            return Ok(0);
        }
        _ => {}
    }
    let value: i32 = cur.mm().read_val(addr)?;
    let may_force = cur.cred().has(Caps::NET_ADMIN);
    let mut options = socket.options.lock();
    match name {
        n::SO_PASSCRED => options.pass_creds = value != 0,
        n::SO_SNDBUF => socket.set_send_buffer((value as u32).min(BUFFER)),
        n::SO_RCVBUF => options.receive_buffer = receive_buffer((value as u32).min(BUFFER)),
        n::SO_SNDBUFFORCE | n::SO_RCVBUFFORCE if !may_force => return Err(Errno::EPERM),
        n::SO_SNDBUFFORCE => socket.set_send_buffer(value.max(0) as u32),
        n::SO_RCVBUFFORCE => options.receive_buffer = receive_buffer(value.max(0) as u32),
        n::SO_PRIORITY if (0..=6).contains(&value) || may_force => options.priority = value,
        n::SO_PRIORITY | n::SO_MARK if !may_force => return Err(Errno::EPERM),
        n::SO_MARK => options.mark = value,
        name if is_switch(name) && value != 0 => options.switches |= 1 << name,
        name if is_switch(name) => options.switches &= !(1 << name),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(0)
}

/// Options that are kept and shown, and change nothing about a Unix socket.
fn is_switch(name: u32) -> bool {
    matches!(
        name,
        n::SO_REUSEADDR
            | n::SO_KEEPALIVE
            | n::SO_REUSEPORT
            | n::SO_DONTROUTE
            | n::SO_OOBINLINE
            | n::SO_TIMESTAMP_OLD
            | n::SO_PASSSEC
            | n::SO_BROADCAST
    )
}

/// SO_RCVBUF: twice what is asked for, SOCK_MIN_RCVBUF at least.
fn receive_buffer(asked: u32) -> u32 {
    asked.min(i32::MAX as u32 / 2).saturating_mul(2).max(2304)
}

/// getsockopt(2)
pub(super) fn getsockopt(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    if args.uint(1) != n::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let socket = of(&file)?;
    let options = *socket.options.lock();
    let value: Vec<u8> = match args.uint(2) {
        n::SO_PEERCRED => {
            let peer = socket.peer_creds().unwrap_or(Creds { pid: 0, uid: u32::MAX, gid: u32::MAX });
            [peer.pid as u32, peer.uid, peer.gid].iter().flat_map(|word| word.to_ne_bytes()).collect()
        }
        n::SO_RCVTIMEO_OLD | n::SO_SNDTIMEO_OLD => {
            let ns = if args.uint(2) == n::SO_RCVTIMEO_OLD {
                options.receive_timeout
            } else {
                options.send_timeout
            };
            [ns / 1_000_000_000, ns % 1_000_000_000 / 1000]
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect()
        }
        n::SO_LINGER => {
            let (on, seconds) = options.linger;
            [i32::from(on), seconds].iter().flat_map(|word| word.to_ne_bytes()).collect()
        }
        name => {
            let value = match name {
                n::SO_TYPE => match socket.kind {
                    Kind::Stream => 1,
                    Kind::Datagram => 2,
                    Kind::SeqPacket => 5,
                },
                n::SO_DOMAIN => i32::from(AF_UNIX),
                n::SO_PROTOCOL => 0,
                n::SO_ERROR => socket.take_error().map_or(0, |errno| errno.0),
                n::SO_SNDBUF => socket.send_buffer() as i32,
                n::SO_RCVBUF => options.receive_buffer as i32,
                n::SO_PASSCRED => options.pass_creds.into(),
                n::SO_ACCEPTCONN => socket.is_listening().into(),
                n::SO_PRIORITY => options.priority,
                n::SO_MARK => options.mark,
                name if is_switch(name) => i32::from(options.switches & 1 << name != 0),
                _ => return Err(Errno::ENOPROTOOPT),
            };
            value.to_ne_bytes().to_vec()
        }
    };
    let room: i32 = cur.mm().read_val(args.addr(4))?;
    let len = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(value.len());
    cur.mm().write(args.addr(3), &value[..len])?;
    cur.mm().write_val(args.addr(4), &(len as u32))?;
    Ok(0)
}
