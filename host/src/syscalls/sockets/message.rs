//! Messages on sockets: send and receive, with what goes along.

use super::networks::Finder;
use super::socket::{address, creds, of, put_address, socket_file};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::kernel::signal::SIGPIPE;
use crate::mm::{IoDst, IoSrc, Iovec, Mm};
use crate::net::links::change::Networks;
use crate::net::message::{
    MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC,
    MSG_WAITALL,
};
use crate::net::{Control, Creds, Destination, How, Kind, Outgoing, Raw, Received, SocketFile};
use crate::syscalls::Args;
use crate::syscalls::args_time::{timespec, to_timespec};
use crate::syscalls::credentials::cred::{group, user};
use crate::syscalls::files::names::{Names, raise};
use crate::syscalls::files::rw::{READABLE, WRITABLE};
use crate::time::{Given, monotonic_ns};
use crate::vfs::{File, Parcel};
use linux_raw_sys::general as c;
use linux_raw_sys::net::AF_NETLINK;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// When a read that starts now gives up (SO_RCVTIMEO): never, from what is no socket.
pub(crate) fn receive_deadline(file: &File) -> Option<u64> {
    if !file.names_writer() {
        return None;
    }
    file.downcast::<SocketFile>().and_then(|file| file.socket().core().receive_deadline())
}

/// write(2) on a socket.
pub(crate) fn write(cur: &mut Current, file: &Arc<File>, src: &mut IoSrc<'_>, nowait: bool) -> Result<u64> {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let flags = if nowait { MSG_DONTWAIT } else { 0 };
    send(cur, file, src, Outgoing { creds: creds(cur), flags, ..Outgoing::default() })
}

fn send(cur: &mut Current, file: &Arc<File>, src: &mut IoSrc<'_>, message: Outgoing<'_>) -> Result<u64> {
    let socket = of(file)?;
    let (core, flags) = (socket.core(), message.flags);
    let finder = (u32::from(core.domain) == AF_NETLINK).then(|| Finder::of(cur));
    let networks = finder.as_ref().map(|finder| finder as &dyn Networks);
    let mut message = Outgoing { networks, ..message };
    let nowait = flags & MSG_DONTWAIT != 0 || file.nonblocking();
    let mut until = None;
    let mut done = 0;
    loop {
        let result = match socket.send(src, &mut message) {
            Err(Errno::EAGAIN) if !nowait => {
                until = until.or_else(|| core.send_deadline());
                cur.retry((&core.wait, WRITABLE), until, &mut || socket.send(src, &mut message))
            }
            result => result,
        };
        match result {
            Ok(count) => {
                done += count as u64;
                if src.remaining() == 0 || core.kind != Kind::Stream || nowait {
                    return Ok(done);
                }
            }
            Err(_) if done > 0 => return Ok(done),
            Err(Errno::EPIPE) => {
                // Streams only; messages have no signal, those of connections neither.
                if flags & MSG_NOSIGNAL == 0 && core.kind == Kind::Stream {
                    raise(cur, SIGPIPE);
                }
                return Err(Errno::EPIPE);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The address that a message is to go to; none if the program gives none.
fn destination(mm: &Mm, addr: u64, len: usize) -> Result<Option<Raw>> {
    if addr == 0 || len == 0 {
        return Ok(None);
    }
    address(mm, addr, len).map(Some)
}

/// sendto(2)
pub(crate) fn sendto(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let mm = cur.mm().clone();
    let src = &mut IoSrc::user(&mm, args.addr(1), args.addr(2));
    let message = Outgoing { creds: creds(cur), flags: args.uint(3), ..Outgoing::default() };
    if args.addr(4) == 0 {
        return send(cur, &file, src, message);
    }
    // An address of no length is one that is too short, to those who have a use for one.
    let to = address(&mm, args.addr(4), args.uint(5) as usize)?;
    let names = Names::of(cur);
    let by = names.lookup();
    send(cur, &file, src, Outgoing { to: Some(Destination { address: &to, by: &by }), ..message })
}

fn read_word(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

/// Who a sender says it is, if it may.
fn claimed(cur: &Current, data: &[u8]) -> Result<Creds> {
    if data.len() != 12 {
        return Err(Errno::EINVAL);
    }
    let cred = cur.cred();
    let (uid, gid) = (user(&cred, read_word(data, 4) as u32)?, group(&cred, read_word(data, 8) as u32)?);
    let given = Creds { pid: read_word(data, 0), uid, gid };
    let ids = |ids: crate::cred::Ids, id| [ids.real, ids.effective, ids.saved].contains(&id);
    let own = given.pid == cur.task.group.number || cred.has_in(&cur.pids().owner, Caps::SYS_ADMIN);
    let uid = ids(cred.uid, given.uid) || cred.has_own(Caps::SETUID);
    let gid = ids(cred.gid, given.gid) || cred.has_own(Caps::SETGID);
    if !own || !uid || !gid {
        return Err(Errno::EPERM);
    }
    let pid = if given.pid == cur.task.group.number { cur.task.tgid() } else { cur.id_of(given.pid)? };
    if pid != cur.task.tgid() && cur.kernel.task(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(Creds { pid, ..given })
}

/// Takes control messages apart.
fn control<'a>(cur: &Current, header: &Header, flags: u32) -> Result<Outgoing<'a>> {
    let mut extra = Outgoing { creds: creds(cur), flags, ..Outgoing::default() };
    if header.control == 0 || header.control_len == 0 {
        return Ok(extra);
    }
    if header.control_len > 1 << 16 {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; header.control_len as usize];
    cur.mm().read(header.control, &mut bytes)?;
    let mut files = Vec::new();
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
                    if files.len() == MAX_FILES {
                        return Err(Errno::EINVAL);
                    }
                    files.push(cur.fds().get_path(read_word(fd, 0))?);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => extra.named = Some(claimed(cur, data)?),
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => extra.control.push(Control { level, kind, data: data.to_vec() }),
        }
        at += len.next_multiple_of(8);
    }
    if !files.is_empty() {
        let cred = cur.cred();
        let privileged = cred.has(Caps::SYS_RESOURCE) || cred.has(Caps::SYS_ADMIN);
        let limit = if privileged { u64::MAX } else { cur.limit(c::RLIMIT_NOFILE) };
        extra.files = Some(Parcel::new(&cur.kernel.flight, files, cred.uid.real, limit)?);
    }
    Ok(extra)
}

fn send_header(cur: &mut Current, file: &Arc<File>, addr: u64, flags: u32) -> Result<u64> {
    let mm = cur.mm().clone();
    let header: Header = mm.read_val(addr)?;
    let iovecs = mm.read_iovecs(header.iov, header.iov_len).map_err(too_long)?;
    // A name that is longer than any is cut (copy_msghdr_from_user).
    let name_len = i32::try_from(header.name_len).map_err(|_| Errno::EINVAL)? as usize;
    let to = destination(&mm, header.name, name_len.min(crate::net::address::MAX))?;
    let message = control(cur, &header, flags)?;
    let src = &mut IoSrc::user_iovecs(&mm, &iovecs);
    let Some(to) = to else { return send(cur, file, src, message) };
    let names = Names::of(cur);
    let by = names.lookup();
    send(cur, file, src, Outgoing { to: Some(Destination { address: &to, by: &by }), ..message })
}

fn too_long(errno: Errno) -> Errno {
    if errno == Errno::EINVAL { Errno::EMSGSIZE } else { errno }
}

/// sendmsg(2)
pub(crate) fn sendmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    send_header(cur, &file, args.addr(1), args.uint(2))
}

/// `struct mmsghdr`: a header and the count of what was moved.
const MMSG: u64 = 64;
const MMSG_LEN: u64 = 56;

/// sendmmsg(2)
pub(crate) fn sendmmsg(cur: &mut Current, args: &Args) -> Result<u64> {
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

fn receive(cur: &mut Current, file: &Arc<File>, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
    let socket = of(file)?;
    let (core, flags) = (socket.core(), how.flags);
    // What was queued with an error is never waited for, nor is urgent data.
    let nowait = flags & (MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB) != 0 || file.nonblocking();
    // How much a stream waits for; what else there is comes with it.
    let least = match flags & MSG_WAITALL {
        0 => dst.remaining().min(core.options.lock().receive_low as usize),
        _ => dst.remaining(),
    };
    let all = core.kind == Kind::Stream && flags & (MSG_PEEK | MSG_OOB) == 0;
    let mut until = None;
    let mut total: Option<Received> = None;
    loop {
        let result = match socket.receive(dst, how) {
            Err(Errno::EAGAIN) if !nowait => {
                until = until.or_else(|| core.receive_deadline());
                cur.retry((&core.wait, READABLE), until, &mut || socket.receive(dst, how))
            }
            result => result,
        };
        let got = match (result, total.take()) {
            (Ok(got), None) => got,
            (Ok(got), Some(mut before)) => {
                let ended = got.count == 0 || got.stop;
                before.count += got.count;
                if ended {
                    return Ok(before);
                }
                before
            }
            (Err(_), Some(before)) => return Ok(before),
            (Err(errno), None) => return Err(errno),
        };
        let ended = got.count == 0 || got.stop || !got.files.is_empty();
        if !all || ended || got.count >= least || dst.remaining() == 0 {
            return Ok(got);
        }
        total = Some(got);
    }
}

/// What a receive that was given these flags returns.
fn returned(file: &File, got: &Received, flags: u32) -> Result<u64> {
    let whole = flags & MSG_TRUNC != 0 && of(file)?.core().kind != Kind::Stream;
    Ok(if whole { got.full } else { got.count } as u64)
}

/// recvfrom(2)
pub(crate) fn recvfrom(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    let mm = cur.mm().clone();
    let how = How { flags: args.uint(3), details: args.addr(4) != 0 };
    let got = receive(cur, &file, &mut IoDst::user(&mm, args.addr(1), args.addr(2)), how)?;
    if how.details {
        put_address(&mm, &got.from, args.addr(4), args.addr(5))?;
    }
    returned(&file, &got, how.flags)
}

/// Appends a control message, or what of it fits behind a whole header; says whether all did.
fn put_control(out: &mut Vec<u8>, room: usize, level: i32, kind: i32, data: &[u8]) -> bool {
    let whole = HEADER + data.len();
    let len = whole.min(room.saturating_sub(out.len()));
    if len < HEADER {
        return false;
    }
    out.extend_from_slice(&(len as u64).to_ne_bytes());
    out.extend_from_slice(&level.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&data[..len - HEADER]);
    out.resize(out.len().next_multiple_of(8).min(room), 0);
    len == whole
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
        put_control(out, room, SOL_SOCKET, SCM_RIGHTS, &data);
    }
    Ok(cut)
}

fn receive_header(cur: &mut Current, file: &Arc<File>, addr: u64, flags: u32) -> Result<u64> {
    let mm: Arc<Mm> = cur.mm().clone();
    let header: Header = mm.read_val(addr)?;
    let iovecs: Vec<Iovec> = mm.read_iovecs(header.iov, header.iov_len).map_err(too_long)?;
    let how = How { flags, details: true };
    let mut got = receive(cur, file, &mut IoDst::user_iovecs(&mm, &iovecs), how)?;
    let mut out_flags = flags & MSG_CMSG_CLOEXEC | got.flags;
    let mut out = Vec::new();
    let room = if header.control == 0 { 0 } else { header.control_len.min(1 << 16) as usize };
    if let Some(sender) = got.creds {
        let (uid, gid) = cur.show((sender.uid, sender.gid));
        let data: Vec<u8> =
            [cur.number_of(sender.pid) as u32, uid, gid].iter().flat_map(|word| word.to_ne_bytes()).collect();
        if !put_control(&mut out, room, SOL_SOCKET, SCM_CREDENTIALS, &data) {
            out_flags |= MSG_CTRUNC;
        }
    }
    if !got.files.is_empty() && put_files(cur, &mut out, room, &mut got, flags & MSG_CMSG_CLOEXEC != 0)? {
        out_flags |= MSG_CTRUNC;
    }
    for control in &got.control {
        if !put_control(&mut out, room, control.level, control.kind, &control.data) {
            out_flags |= MSG_CTRUNC;
        }
    }
    if of(file)?.core().kind != Kind::Stream && got.count < got.full {
        out_flags |= MSG_TRUNC;
    }
    if !out.is_empty() {
        mm.write(header.control, &out)?;
    }
    let name = got.from.raw();
    let name = name.bytes();
    if header.name != 0 {
        mm.write(header.name, &name[..name.len().min(header.name_len as usize)])?;
    }
    // msg_namelen, msg_controllen and msg_flags are results.
    mm.write_val(addr + 8, &(name.len() as u32))?;
    mm.write_val(addr + 40, &(out.len() as u64))?;
    mm.write_val(addr + 48, &out_flags)?;
    returned(file, &got, flags)
}

/// recvmsg(2)
pub(crate) fn recvmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = socket_file(cur, args.fd(0))?;
    receive_header(cur, &file, args.addr(1), args.uint(2))
}

/// recvmmsg(2); its timeout is looked at between messages only, as on Linux, and what is left of it is told.
pub(crate) fn recvmmsg(cur: &mut Current, args: &Args) -> Result<u64> {
    const MSG_WAITFORONE: u32 = 0x10000;
    let file = socket_file(cur, args.fd(0))?;
    let timeout = timespec(cur.mm(), args.addr(4))?;
    let until = timeout.map(|ns| Given::from_ns(ns).after(monotonic_ns()));
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
