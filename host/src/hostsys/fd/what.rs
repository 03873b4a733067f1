//! What a descriptor is, and how it could be opened again.

use core::ffi::CStr;
use core::fmt;
use std::sync::Weak;

/// What a descriptor is, and how it could be opened again.
#[derive(Debug)]
pub enum What {
    /// A file of the host by its path, opened before the jail was closed.
    Path(Box<[u8]>, i32),
    /// A copy of the mounts at a path and below.
    Mounts(Box<[u8]>),
    /// A file of the host by its name in a directory that is open.
    Below(Weak<dyn Origin>, i32),
    /// What another descriptor names, opened once more.
    Again(i32, i32),
    /// Given by whoever is named here, who has to give it again.
    Given(&'static str),
    /// Made by the sandbox: a memory file, and its length. What is in it has to be kept.
    Memory(&'static CStr, u64),
    /// Made by the sandbox, and empty: eventfd(2), epoll(7), signalfd(2), io_uring(7), a virtual machine or one of its CPUs.
    Made(&'static str),
    /// A socket: its domain, kind and protocol. Its connections and names are lost.
    Socket(u16, u32, i32),
    /// A connection that was accepted: lost with the descriptor.
    Accepted,
}

/// Where a file was opened below.
pub trait Origin: Send + Sync {
    /// The number of the descriptor of the tree's root and the path from there, empty for the root itself. -1: it is closed.
    fn place(&self) -> (i32, Vec<u8>);
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Path(path, flags) => write!(f, "{}, flags {flags:#o}", path.escape_ascii()),
            What::Mounts(path) => write!(f, "the mounts of {}", path.escape_ascii()),
            What::Below(origin, flags) => match origin.upgrade() {
                Some(origin) => {
                    let (root, path) = origin.place();
                    write!(f, "{} below descriptor {root}, flags {flags:#o}", path.escape_ascii())
                }
                None => write!(f, "a file that is being closed"),
            },
            What::Again(of, flags) => write!(f, "descriptor {of} once more, flags {flags:#o}"),
            What::Given(by) => write!(f, "given by {by}"),
            What::Memory(name, len) => {
                write!(f, "memory file {}, {len} bytes", name.to_bytes().escape_ascii())
            }
            What::Made(kind) => f.write_str(kind),
            What::Socket(domain, kind, protocol) => {
                write!(f, "socket of domain {domain}, type {kind}, protocol {protocol}")
            }
            What::Accepted => f.write_str("accepted connection"),
        }
    }
}
