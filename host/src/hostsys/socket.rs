//! Sockets of the host: every call that is made on one. None blocks, and none raises SIGPIPE.

use super::fd::{HostFd, What};
use super::file::IoVec;
use super::syscall;
use crate::abi::Result;

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

/// sendmsg(2) of some pieces of memory, to `name` if that is not empty.
///
/// # Errors
/// EAGAIN; the host's others.
///
/// # Safety
/// The pieces are readable.
pub unsafe fn send(fd: &HostFd, pieces: &[IoVec], name: &[u8], flags: u32) -> Result<usize> {
    let header = Header::new(name.as_ptr() as u64, name.len(), pieces);
    let flags = flags | (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
    let args = [fd.raw() as u64, &raw const header as u64, flags.into(), 0, 0, 0];
    // SAFETY: header, name and list of pieces live here; the pieces are the caller's word.
    unsafe { syscall(libc::SYS_sendmsg, args) }.map(|count| count as usize)
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
