//! Sockets of the host: every call that is made on one. None blocks but [`receive_with`], which waits for a process of ours,
//! and none raises SIGPIPE.

use super::fd::{HostFd, What};
use super::file::IoVec;
use super::syscall;
use crate::abi::{Errno, Result};

/// The longest address (`struct sockaddr_storage`).
pub const NAME_MAX: usize = 128;

/// `struct msghdr`.
#[repr(C)]
struct Header {
    name: u64,
    name_len: u32,
    pad: u32,
    pieces: u64,
    count: u64,
    control: u64,
    control_len: u64,
    flags: u64,
}

impl Header {
    /// For these pieces and this name, which is none where it is empty; without control messages.
    fn new(name: u64, name_len: usize, pieces: &[IoVec]) -> Self {
        Header {
            name: if name_len == 0 { 0 } else { name },
            name_len: name_len as u32,
            pad: 0,
            pieces: pieces.as_ptr() as u64,
            count: pieces.len() as u64,
            control: 0,
            control_len: 0,
            flags: 0,
        }
    }
}

/// socket(2), non-blocking and closed at exec.
///
/// # Errors
/// EMFILE, EAFNOSUPPORT and others of the host.
pub fn socket(domain: u16, kind: u32, protocol: i32) -> Result<HostFd> {
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    // SAFETY: no pointers.
    let fd = unsafe {
        syscall(libc::SYS_socket, [domain.into(), u64::from(kind) | flags, protocol as u64, 0, 0, 0])
    }?;
    HostFd::new(fd, What::Socket(domain, kind, protocol))
}

/// connect(2).
///
/// # Errors
/// EINPROGRESS as a rule; the host's others.
pub fn connect(fd: &HostFd, name: &[u8]) -> Result<()> {
    let args = [fd.raw() as u64, name.as_ptr() as u64, name.len() as u64, 0, 0, 0];
    // SAFETY: the name is as long as said.
    unsafe { syscall(libc::SYS_connect, args) }.map(|_| ())
}

/// bind(2).
///
/// # Errors
/// The host's.
pub fn bind(fd: &HostFd, name: &[u8]) -> Result<()> {
    let args = [fd.raw() as u64, name.as_ptr() as u64, name.len() as u64, 0, 0, 0];
    // SAFETY: the name is as long as said.
    unsafe { syscall(libc::SYS_bind, args) }.map(|_| ())
}

/// listen(2).
///
/// # Errors
/// EADDRINUSE.
pub fn listen(fd: &HostFd, backlog: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_listen, [fd.raw() as u64, backlog as u64, 0, 0, 0, 0]) }.map(|_| ())
}

/// accept4(2), non-blocking and closed at exec: a connection, and whose it is.
///
/// # Errors
/// EAGAIN; EMFILE and others of the host.
pub fn accept(fd: &HostFd) -> Result<(HostFd, Vec<u8>)> {
    let (mut name, mut len) = (vec![0; NAME_MAX], NAME_MAX as u32);
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    let args = [fd.raw() as u64, name.as_mut_ptr() as u64, &raw mut len as u64, flags, 0, 0];
    // SAFETY: the buffer is as long as said.
    let new = unsafe { syscall(libc::SYS_accept4, args) }?;
    name.truncate(len as usize);
    Ok((HostFd::new(new, What::Accepted)?, name))
}

/// shutdown(2).
///
/// # Errors
/// ENOTCONN.
pub fn shutdown(fd: &HostFd, how: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_shutdown, [fd.raw() as u64, how as u64, 0, 0, 0, 0]) }.map(|_| ())
}

fn name_by(number: i64, fd: &HostFd) -> Result<Vec<u8>> {
    let (mut name, mut len) = (vec![0; NAME_MAX], NAME_MAX as u32);
    let args = [fd.raw() as u64, name.as_mut_ptr() as u64, &raw mut len as u64, 0, 0, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(number, args) }?;
    name.truncate(len as usize);
    Ok(name)
}

/// getsockname(2).
///
/// # Errors
/// The host's.
pub fn name(fd: &HostFd) -> Result<Vec<u8>> {
    name_by(libc::SYS_getsockname, fd)
}

/// getpeername(2).
///
/// # Errors
/// ENOTCONN.
pub fn peer_name(fd: &HostFd) -> Result<Vec<u8>> {
    name_by(libc::SYS_getpeername, fd)
}

/// setsockopt(2).
///
/// # Errors
/// The host's.
pub fn set_option(fd: &HostFd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    let value = [value.as_ptr() as u64, value.len() as u64];
    let args = [fd.raw() as u64, level.into(), name.into(), value[0], value[1], 0];
    // SAFETY: the value is as long as said.
    unsafe { syscall(libc::SYS_setsockopt, args) }.map(|_| ())
}

/// getsockopt(2): as many bytes as there are, `room` at most.
///
/// # Errors
/// The host's.
pub fn option(fd: &HostFd, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
    let (mut value, mut len) = (vec![0; room], room as u32);
    let value_at = value.as_mut_ptr() as u64;
    let args = [fd.raw() as u64, level.into(), name.into(), value_at, &raw mut len as u64, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(libc::SYS_getsockopt, args) }?;
    value.truncate(len as usize);
    Ok(value)
}

/// sendmsg(2) of bytes of the kernel's, as [`send`].
///
/// # Errors
/// As [`send`].
pub fn send_bytes(fd: &HostFd, bytes: &[u8], name: &[u8], flags: u32) -> Result<usize> {
    let piece = [IoVec { addr: bytes.as_ptr() as u64, len: bytes.len() as u64 }];
    // SAFETY: the one piece is the slice.
    unsafe { send(fd, &piece, name, flags) }
}

/// recvmsg(2) into a buffer of the kernel's, as [`receive`].
///
/// # Errors
/// As [`receive`].
pub fn receive_bytes(fd: &HostFd, bytes: &mut [u8], named: bool, flags: u32) -> Result<Got> {
    let piece = [IoVec { addr: bytes.as_mut_ptr() as u64, len: bytes.len() as u64 }];
    // SAFETY: the one piece is the slice, which nobody else refers to.
    unsafe { receive(fd, &piece, named, flags) }
}

/// sendmsg(2) of some pieces of memory, to `name` if that is not empty. Without a name it is sendto(2) or writev(2), which a
/// filter can tell from those that name an address.
///
/// # Errors
/// EAGAIN; the host's others.
///
/// # Safety
/// The pieces are readable.
pub unsafe fn send(fd: &HostFd, pieces: &[IoVec], name: &[u8], flags: u32) -> Result<usize> {
    let flags = flags | (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
    if !name.is_empty() {
        let header = Header::new(name.as_ptr() as u64, name.len(), pieces);
        let args = [fd.raw() as u64, &raw const header as u64, flags.into(), 0, 0, 0];
        // SAFETY: header, name and list of pieces live here; the pieces are the caller's word.
        return unsafe { syscall(libc::SYS_sendmsg, args) }.map(|count| count as usize);
    }
    if let [] | [_] = pieces {
        let piece = pieces.first().map_or((0, 0), |piece| (piece.addr, piece.len));
        let args = [fd.raw() as u64, piece.0, piece.1, flags.into(), 0, 0];
        // SAFETY: the piece is the caller's word; there is no address.
        return unsafe { syscall(libc::SYS_sendto, args) }.map(|count| count as usize);
    }
    if flags & (MORE | OOB) == 0 {
        let args = [fd.raw() as u64, pieces.as_ptr() as u64, pieces.len() as u64, 0, 0, 0];
        // (No socket of ours blocks, and nothing of the process heeds SIGPIPE.)
        // SAFETY: the list lives here; the pieces are the caller's word.
        return unsafe { syscall(libc::SYS_writev, args) }.map(|count| count as usize);
    }
    let mut sent = 0;
    for (index, piece) in pieces.iter().enumerate() {
        // Of all that is urgent the last byte is.
        let flags = if index + 1 < pieces.len() { flags & !OOB } else { flags };
        let args = [fd.raw() as u64, piece.addr, piece.len, flags.into(), 0, 0];
        // SAFETY: as above.
        match unsafe { syscall(libc::SYS_sendto, args) } {
            Ok(count) if count < piece.len => return Ok(sent + count as usize),
            Ok(count) => sent += count as usize,
            Err(errno) if sent == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// MSG_MORE: what is sent is to go with what follows.
const MORE: u32 = libc::MSG_MORE as u32;
/// MSG_OOB: the last byte is urgent.
const OOB: u32 = libc::MSG_OOB as u32;

/// `struct cmsghdr` and one number, which is all that comes along here.
#[repr(C, align(8))]
#[derive(Default)]
struct Along {
    len: u64,
    level: i32,
    kind: i32,
    number: i32,
    pad: i32,
}

impl Along {
    /// `cmsg_len` of one that is there.
    const FILLED: u64 = 20;

    /// The number, if it is one of these: level and type.
    fn is(&self, kinds: &[(i32, i32)]) -> Option<i32> {
        (self.len == Self::FILLED && kinds.contains(&(self.level, self.kind))).then_some(self.number)
    }
}

/// recvmsg(2) into a buffer of the kernel's, with a name if that is wanted, and with what comes along.
fn receive_along(fd: &HostFd, bytes: &mut [u8], named: bool, flags: i32) -> Result<(Got, Along)> {
    let piece = [IoVec { addr: bytes.as_mut_ptr() as u64, len: bytes.len() as u64 }];
    let mut name = vec![0_u8; if named { NAME_MAX } else { 0 }];
    let mut along = Along::default();
    let mut header = Header::new(name.as_mut_ptr() as u64, name.len(), &piece);
    header.control = &raw mut along as u64;
    header.control_len = size_of::<Along>() as u64;
    let args = [fd.raw() as u64, &raw mut header as u64, flags as u64, 0, 0, 0];
    // SAFETY: header, list, buffer, name and room for the control message live here.
    let count = unsafe { syscall(libc::SYS_recvmsg, args) }?;
    name.truncate(header.name_len as usize);
    Ok((Got { count: count as usize, name, flags: header.flags as u32 }, along))
}

/// recvmsg(2) that waits as long as the socket is told to (SO_RCVTIMEO), into a buffer of the kernel's: how many bytes came,
/// and the descriptor that came along; EMFILE where one did for which there is no place.
///
/// # Errors
/// EAGAIN when the time is over; the host's others.
pub fn receive_with(fd: &HostFd, bytes: &mut [u8]) -> Result<(usize, Result<Option<HostFd>>)> {
    let (got, along) = receive_along(fd, bytes, false, libc::MSG_CMSG_CLOEXEC)?;
    let came = along.is(&[(libc::SOL_SOCKET, libc::SCM_RIGHTS)]);
    let with = came.map(|number| HostFd::new(number as u64, What::Given("the warden"))).transpose();
    // The host says no more of a descriptor that does not fit into the table.
    let lost = got.flags & libc::MSG_CTRUNC as u32 != 0;
    Ok((got.count, with.and_then(|with| if lost { Err(Errno::EMFILE) } else { Ok(with) })))
}

/// A datagram, with the hops that it has left where the socket has been told to say (IP_RECVTTL, IPV6_RECVHOPLIMIT); else 0.
///
/// # Errors
/// EAGAIN; the host's others.
pub fn receive_hops(fd: &HostFd, bytes: &mut [u8]) -> Result<(Got, u8)> {
    let (got, along) = receive_along(fd, bytes, true, libc::MSG_DONTWAIT)?;
    let told = along.is(&[(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)]);
    Ok((got, told.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0)))
}

/// What a [`receive`] returned.
pub struct Got {
    /// Bytes, or with MSG_TRUNC the length of the whole message.
    pub count: usize,
    /// Who sent it; empty where nobody says.
    pub name: Vec<u8>,
    /// `MSG_*` bits.
    pub flags: u32,
}

/// recvmsg(2) into some pieces of memory.
///
/// # Errors
/// EAGAIN; the host's others.
///
/// # Safety
/// The pieces may be overwritten: no Rust object lives there, or the caller owns them exclusively.
pub unsafe fn receive(fd: &HostFd, pieces: &[IoVec], named: bool, flags: u32) -> Result<Got> {
    let mut name = vec![0_u8; if named { NAME_MAX } else { 0 }];
    let mut header = Header::new(name.as_mut_ptr() as u64, name.len(), pieces);
    let flags = flags | libc::MSG_DONTWAIT as u32;
    let args = [fd.raw() as u64, &raw mut header as u64, flags.into(), 0, 0, 0];
    // SAFETY: as for `send`.
    let count = unsafe { syscall(libc::SYS_recvmsg, args) }?;
    name.truncate(header.name_len as usize);
    Ok(Got { count: count as usize, name, flags: header.flags as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_found_no_place_is_told_apart_from_nothing() {
        let (a, b) = UnixDatagram::pair().unwrap();
        let end = HostFd::new(b.into_raw_fd() as u64, What::Given("a test")).unwrap();
        let mut bytes = [0; 8];
        a.send(b"none").unwrap();
        assert!(matches!(receive_with(&end, &mut bytes), Ok((4, Ok(None)))));
        // Credentials take more room than there is: as where the table is full, the host says that something is missing.
        set_option(&end, libc::SOL_SOCKET as u32, libc::SO_PASSCRED as u32, &1_i32.to_ne_bytes()).unwrap();
        a.send(b"lost").unwrap();
        assert!(matches!(receive_with(&end, &mut bytes), Ok((4, Err(Errno::EMFILE)))));
        assert_eq!(&bytes[..4], b"lost");
    }
}
