//! Messages on sockets: send and receive, with what goes along.

use super::Args;
use super::args_time::{timespec, to_timespec};
use super::names::raise;
use super::rw::{READABLE, WRITABLE};
use super::socket::{address, creds, find, of, put_address, raw_address, socket_file};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::kernel::signal::SIGPIPE;
use crate::mm::{IoDst, IoSrc, Iovec, Mm};
use crate::net::unix::{Creds, Extra, Kind, Received, UnixSocket};
use crate::time::monotonic_ns;
use crate::vfs::File;
use linux_raw_sys::general as c;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MSG_PEEK: u32 = 2;
const MSG_CTRUNC: u32 = 8;
const MSG_TRUNC: u32 = 0x20;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_WAITALL: u32 = 0x100;
const MSG_NOSIGNAL: u32 = 0x4000;
const MSG_OOB: u32 = 1;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
/// Most files in one message (SCM_MAX_FD).
const MAX_FILES: usize = 253;
/// struct cmsghdr.
const HEADER: usize = 16;

/// `struct msghdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    name: u64,
    name_len: u32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}

pub(super) fn deadline(ns: u64) -> Option<u64> {
    (ns > 0).then(|| crate::time::monotonic_ns().saturating_add(ns))
}

/// When a read that starts now gives up (SO_RCVTIMEO): never, from what is no socket.
pub(super) fn receive_deadline(file: &File) -> Option<u64> {
    if !file.names_writer() {
        return None;
    }
    of(file).ok().and_then(|socket| deadline(socket.options.lock().receive_timeout))
}

/// A timeout set by an option looks like a non-blocking socket (socket(7)).
pub(super) fn timed_out(errno: Errno) -> Errno {
    if errno == Errno::ETIMEDOUT { Errno::EAGAIN } else { errno }
}

/// write(2) on a socket.
pub(super) fn write(cur: &mut Current, file: &Arc<File>, src: &mut IoSrc<'_>, nowait: bool) -> Result<u64> {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let extra = Extra { creds: creds(cur), ..Extra::default() };
    send(cur, file, src, None, extra, if nowait { MSG_DONTWAIT } else { 0 })
}

fn send(
    cur: &mut Current,
    file: &Arc<File>,
    src: &mut IoSrc<'_>,
    to: Option<Arc<UnixSocket>>,
    mut extra: Extra,
    flags: u32,
) -> Result<u64> {
    if flags & MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let socket = of(file)?;
    let nowait = flags & MSG_DONTWAIT != 0 || file.nonblocking();
    let until = deadline(socket.options.lock().send_timeout);
    let mut done = 0;
    loop {
        let result = match socket.send(src, to.as_ref(), &mut extra) {
            Err(Errno::EAGAIN) if !nowait => {
                let mut ready = || match socket.send(src, to.as_ref(), &mut extra) {
                    Err(Errno::EAGAIN) => None,
                    result => Some(result),
                };
                cur.wait_on(&[(socket.queue(), WRITABLE)], until, &mut ready)
                    .map_err(timed_out)
                    .and_then(|result| result)
            }
            result => result,
        };
        match result {
            Ok(count) => {
                done += count as u64;
                if src.remaining() == 0 || socket.kind != Kind::Stream || nowait {
                    return Ok(done);
                }
            }
            Err(_) if done > 0 => return Ok(done),
            Err(Errno::EPIPE) => {
                // Streams only (unix_stream_sendmsg); messages have no signal, those of connections neither.
                if flags & MSG_NOSIGNAL == 0 && socket.kind == Kind::Stream {
                    raise(cur, SIGPIPE);
                }
                return Err(Errno::EPIPE);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn destination(cur: &Current, socket: &UnixSocket, addr: u64, len: u32) -> Result<Option<Arc<UnixSocket>>> {
    if addr == 0 || len == 0 {
        return Ok(None);
    }
    if socket.kind == Kind::Stream {
        return Err(if socket.is_connected() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
    }
    if socket.kind == Kind::SeqPacket {
        return Ok(None);
    }
    let (family, name) = address(cur.mm(), addr, len as usize)?;
    if family != 1 || name.is_empty() {
        return Err(Errno::EINVAL);
    }
    find(cur, &name).map(Some)
}

/// sendto(2)
pub(super) fn sendto(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let to = destination(cur, of(&file)?, args.addr(4), args.uint(5))?;
    let mm = cur.mm().clone();
    let extra = Extra { creds: creds(cur), ..Extra::default() };
    send(cur, &file, &mut IoSrc::user(&mm, args.addr(1), args.addr(2)), to, extra, args.uint(3))
}

fn read_word(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

/// Takes control messages apart.
fn control(cur: &Current, header: &Header) -> Result<Extra> {
    let mut extra = Extra { creds: creds(cur), ..Extra::default() };
    if header.control == 0 || header.control_len == 0 {
        return Ok(extra);
    }
    if header.control_len > 1 << 16 {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; header.control_len as usize];
    cur.mm().read(header.control, &mut bytes)?;
    let mut at = 0;
    while at + HEADER <= bytes.len() {
        let len = u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default()) as usize;
        if len < HEADER || len > bytes.len() - at {
            return Err(Errno::EINVAL);
        }
        let (level, kind) = (read_word(&bytes, at + 8), read_word(&bytes, at + 12));
        let data = &bytes[at + HEADER..at + len];
        match (level, kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                for fd in data.chunks_exact(4) {
                    if extra.files.len() == MAX_FILES {
                        return Err(Errno::EINVAL);
                    }
                    extra.files.push(cur.fds().get_path(read_word(fd, 0))?);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => {
                if data.len() != 12 {
                    return Err(Errno::EINVAL);
                }
                let given = Creds {
                    pid: read_word(data, 0),
                    uid: read_word(data, 4) as u32,
                    gid: read_word(data, 8) as u32,
                };
                let cred = cur.cred();
                let ids = |ids: crate::cred::Ids, id| [ids.real, ids.effective, ids.saved].contains(&id);
                let own = given.pid == cur.task.tgid() || cred.has(Caps::SYS_ADMIN);
                let uid = ids(cred.uid, given.uid) || cred.has(Caps::SETUID);
                let gid = ids(cred.gid, given.gid) || cred.has(Caps::SETGID);
                if !own || !uid || !gid {
                    return Err(Errno::EPERM);
                }
                extra.creds = given;
            }
            _ => return Err(Errno::EINVAL),
        }
        at += len.next_multiple_of(8);
    }
    Ok(extra)
}

fn send_header(cur: &mut Current, file: &Arc<File>, addr: u64, flags: u32) -> Result<u64> {
    let mm = cur.mm().clone();
    let header: Header = mm.read_val(addr)?;
    let iovecs = mm.read_iovecs(header.iov, header.iov_len).map_err(too_long)?;
    let to = destination(cur, of(file)?, header.name, header.name_len)?;
    let extra = control(cur, &header)?;
    send(cur, file, &mut IoSrc::user_iovecs(&mm, &iovecs), to, extra, flags)
}

fn too_long(errno: Errno) -> Errno {
    if errno == Errno::EINVAL { Errno::EMSGSIZE } else { errno }
}

/// sendmsg(2)
pub(super) fn sendmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    send_header(cur, &file, args.addr(1), args.uint(2))
}

/// `struct mmsghdr`: a header and the count of what was moved.
const MMSG: u64 = 64;
const MMSG_LEN: u64 = 56;

/// sendmmsg(2)
pub(super) fn sendmmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let mut done = 0;
    for index in 0..u64::from(args.uint(2).min(1024)) {
        let at = args.addr(1) + index * MMSG;
        match send_header(cur, &file, at, args.uint(3)) {
            Ok(count) => cur.mm().write_val(at + MMSG_LEN, &(count as u32))?,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        done += 1;
    }
    Ok(done)
}

fn receive(cur: &mut Current, file: &Arc<File>, dst: &mut IoDst<'_>, flags: u32) -> Result<Received> {
    if flags & MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    let socket = of(file)?;
    let (peek, nowait) = (flags & MSG_PEEK != 0, flags & MSG_DONTWAIT != 0 || file.nonblocking());
    let until = deadline(socket.options.lock().receive_timeout);
    let all = flags & MSG_WAITALL != 0 && socket.kind == Kind::Stream && !peek;
    let mut total: Option<Received> = None;
    loop {
        let result = match socket.receive(dst, peek) {
            Err(Errno::EAGAIN) if !nowait => {
                let mut ready = || match socket.receive(dst, peek) {
                    Err(Errno::EAGAIN) => None,
                    result => Some(result),
                };
                cur.wait_on(&[(socket.queue(), READABLE)], until, &mut ready)
                    .map_err(timed_out)
                    .and_then(|result| result)
            }
            result => result,
        };
        let got = match (result, total.take()) {
            (Ok(got), None) => got,
            (Ok(got), Some(mut before)) => {
                let ended = got.count == 0;
                before.count += got.count;
                if ended {
                    return Ok(before);
                }
                before
            }
            (Err(_), Some(before)) => return Ok(before),
            (Err(errno), None) => return Err(errno),
        };
        if !all || got.count == 0 || dst.remaining() == 0 || !got.files.is_empty() {
            return Ok(got);
        }
        total = Some(got);
    }
}

/// recvfrom(2)
pub(super) fn recvfrom(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let mm = cur.mm().clone();
    let flags = args.uint(3);
    let got = receive(cur, &file, &mut IoDst::user(&mm, args.addr(1), args.addr(2)), flags)?;
    let socket = of(&file)?;
    match &got.from {
        Some(from) => put_address(&mm, Some(from), args.addr(4), args.addr(5))?,
        // A sender without a name has no address, not even a family.
        None if args.addr(4) != 0 => mm.write_val(args.addr(5), &0u32)?,
        None => {}
    }
    let whole = flags & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
    Ok(if whole { got.full } else { got.count } as u64)
}

/// Appends a control message if it fits; says whether it did, wholly.
fn put_control(out: &mut Vec<u8>, room: usize, kind: i32, data: &[u8]) -> bool {
    let len = HEADER + data.len();
    if out.len() + len > room {
        return false;
    }
    out.extend_from_slice(&(len as u64).to_ne_bytes());
    out.extend_from_slice(&SOL_SOCKET.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8).min(room.max(out.len())), 0);
    true
}

/// Installs received files and describes them, as many as there is room for.
fn put_files(
    cur: &Current,
    out: &mut Vec<u8>,
    room: usize,
    got: &mut Received,
    cloexec: bool,
) -> Result<bool> {
    let fits = (room.saturating_sub(out.len() + HEADER)) / 4;
    let count = got.files.len().min(fits);
    let cut = count < got.files.len();
    let mut data = Vec::new();
    for file in got.files.drain(..).take(count) {
        let fd = match cur.fds().install(file, cloexec, cur.limit(c::RLIMIT_NOFILE)) {
            Ok(fd) => fd,
            Err(_) => return Ok(true),
        };
        data.extend_from_slice(&fd.to_ne_bytes());
    }
    if !data.is_empty() {
        put_control(out, room, SCM_RIGHTS, &data);
    }
    Ok(cut)
}

fn receive_header(cur: &mut Current, file: &Arc<File>, addr: u64, flags: u32) -> Result<u64> {
    let mm: Arc<Mm> = cur.mm().clone();
    let header: Header = mm.read_val(addr)?;
    let iovecs: Vec<Iovec> = mm.read_iovecs(header.iov, header.iov_len).map_err(too_long)?;
    let mut got = receive(cur, file, &mut IoDst::user_iovecs(&mm, &iovecs), flags)?;
    let socket = of(file)?;
    let mut out_flags = flags & MSG_CMSG_CLOEXEC;
    let mut out = Vec::new();
    let room = if header.control == 0 { 0 } else { header.control_len.min(1 << 16) as usize };
    if socket.options.lock().pass_creds {
        let data: Vec<u8> = [got.creds.pid as u32, got.creds.uid, got.creds.gid]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        if !put_control(&mut out, room, SCM_CREDENTIALS, &data) {
            out_flags |= MSG_CTRUNC;
        }
    }
    if !got.files.is_empty() && put_files(cur, &mut out, room, &mut got, flags & MSG_CMSG_CLOEXEC != 0)? {
        out_flags |= MSG_CTRUNC;
    }
    if socket.kind != Kind::Stream && got.count < got.full {
        out_flags |= MSG_TRUNC;
    }
    if !out.is_empty() {
        mm.write(header.control, &out)?;
    }
    let name = got.from.as_deref().map_or_else(Vec::new, |name| raw_address(Some(name)));
    if header.name != 0 {
        mm.write(header.name, &name[..name.len().min(header.name_len as usize)])?;
    }
    // msg_namelen, msg_controllen and msg_flags are results.
    mm.write_val(addr + 8, &(name.len() as u32))?;
    mm.write_val(addr + 40, &(out.len() as u64))?;
    mm.write_val(addr + 48, &out_flags)?;
    let whole = flags & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
    Ok(if whole { got.full } else { got.count } as u64)
}

/// recvmsg(2)
pub(super) fn recvmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    receive_header(cur, &file, args.addr(1), args.uint(2))
}

/// recvmmsg(2); its timeout is looked at between messages only, as on Linux, and what is left of it is told.
pub(super) fn recvmmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    const MSG_WAITFORONE: u32 = 0x10000;
    let file = socket_file(cur, args.fd(0))?;
    let timeout = timespec(cur.mm(), args.addr(4))?;
    let until = timeout.map(|ns| monotonic_ns().saturating_add(ns));
    let mut flags = args.uint(3);
    let mut done = 0;
    for index in 0..u64::from(args.uint(2).min(1024)) {
        let at = args.addr(1) + index * MMSG;
        match receive_header(cur, &file, at, flags & !MSG_WAITFORONE) {
            Ok(count) => cur.mm().write_val(at + MMSG_LEN, &(count as u32))?,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        done += 1;
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        if until.is_some_and(|until| monotonic_ns() >= until) {
            break;
        }
    }
    if let Some(until) = until {
        let left = until.saturating_sub(monotonic_ns());
        cur.mm().write_val(args.addr(4), &to_timespec(left))?;
    }
    Ok(done)
}
