//! Names of sockets: files, and abstract ones, which the network has.

use super::{DOMAIN, UnixSocket};
use crate::abi::{Errno, Result};
use crate::net::address::family_of;
use crate::sync::Lock;
use crate::vfs::{Extra, Kind as FileKind, Lookup, Resolve, Want, may};
use std::any::Any;
use std::sync::{Arc, Weak};

/// `sun_path` starts here.
const PATH_AT: usize = 2;
/// sizeof(struct sockaddr_un).
const ADDR_MAX: usize = 110;

/// What a socket's inode holds for those who connect by name.
struct Bound(Weak<UnixSocket>);

/// `sun_path` of an address: a name without its final zero, or a zero byte and an abstract name. It is empty in an address
/// without a name (autobind).
///
/// # Errors
/// EINVAL for other lengths and families.
pub(super) fn path_of(raw: &[u8]) -> Result<&[u8]> {
    if !(PATH_AT..=ADDR_MAX).contains(&raw.len()) || family_of(raw) != Some(DOMAIN) {
        return Err(Errno::EINVAL);
    }
    let path = &raw[PATH_AT..];
    Ok(match path.first() {
        Some(0) | None => path,
        Some(_) => path.split(|&b| b == 0).next().unwrap_or(path),
    })
}

impl UnixSocket {
    /// bind(2).
    pub(super) fn bind_to(&self, by: &Lookup<'_>, name: &[u8]) -> Result<()> {
        if self.known_name().is_some() {
            // To be named by the kernel is no objection.
            return if name.is_empty() { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let me = self.arc()?;
        let any: Arc<dyn Any + Send + Sync> = me.clone();
        let (names, kind) = (&self.network.names, self.core.kind.number());
        match name.first() {
            None => {
                let free = names.free_name();
                names.bind(kind, &free, &any)?;
                self.set_name(&free)
            }
            Some(0) => {
                names.bind(kind, name, &any)?;
                self.set_name(name)
            }
            Some(_) => {
                let made = by.create(None, name, FileKind::Socket, 0o777, Extra::None);
                let path =
                    made.map_err(|errno| if errno == Errno::EEXIST { Errno::EADDRINUSE } else { errno })?;
                let slot: &Lock<Option<Arc<dyn Any + Send + Sync>>> =
                    path.dentry.inode.shared().ok_or(Errno::EPERM)?;
                *slot.lock() = Some(Arc::new(Bound(Arc::downgrade(&me))));
                // The inode is where it is found: a file system that forgets those that nobody uses must not.
                let _first = self.place.set(path.dentry.inode.clone());
                self.set_name(name)
            }
        }
    }

    /// The socket of this one's type that has a name.
    pub(super) fn find(&self, by: &Lookup<'_>, name: &[u8]) -> Result<Arc<UnixSocket>> {
        if name.first() == Some(&0) {
            let holder = self.network.names.find(self.core.kind.number(), name);
            return holder.and_then(|socket| socket.downcast().ok()).ok_or(Errno::ECONNREFUSED);
        }
        let path = by.resolve(None, name, Resolve::FOLLOW)?;
        let meta = path.dentry.inode.meta();
        may(by.cred, meta, Want::WRITE)?;
        if meta.kind != FileKind::Socket {
            return Err(Errno::ECONNREFUSED);
        }
        let holder = path.dentry.inode.shared().and_then(|slot| slot.lock().clone());
        let bound = holder.and_then(|holder| holder.downcast::<Bound>().ok());
        bound.and_then(|bound| bound.0.upgrade()).ok_or(Errno::ECONNREFUSED)
    }
}
