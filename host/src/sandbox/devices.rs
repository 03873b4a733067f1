//! Device nodes that a specification asks for.
//!
//! A node is a name for a number; what opening it leads to is the kernel's own device with this number
//! ([`Devices`](crate::fs::dev::Devices)), never one of the host's. Numbers that it has nothing for are ENXIO, as on a Linux
//! without the driver.

use super::Error;
use crate::abi::{Errno, Result};
use crate::fs::world::World;
use crate::vfs::{Caller, Extra, Kind};

/// A node to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where, from the root.
    pub place: Vec<u8>,
    /// Character or block device, or FIFO.
    pub kind: Kind,
    /// The device's number (makedev(3)).
    pub number: u64,
    /// Permission bits.
    pub perm: u32,
    /// User and group.
    pub owner: (u32, u32),
}

/// Makes them; what has one of the names already gives way, but a directory.
///
/// # Errors
/// Which, and what our own kernel said.
pub(super) fn make(all: &[Device], world: &World) -> std::result::Result<(), Error> {
    all.iter().try_for_each(|device| {
        make_one(device, world).map_err(|source| Error::Device {
            place: String::from_utf8_lossy(&device.place).into_owned(),
            source,
        })
    })
}

fn make_one(device: &Device, world: &World) -> Result<()> {
    let place = &*device.place;
    let parent = place.iter().rposition(|&byte| byte == b'/').ok_or(Errno::EINVAL)?;
    world.directory(&place[..parent.max(1)])?;
    world.as_root(Caller::default(), |lookup| {
        match lookup.remove(None, place, false) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let path = lookup.create(None, place, device.kind, device.perm, Extra::Device(device.number))?;
        let (uid, gid) = device.owner;
        if (uid, gid) == (0, 0) { Ok(()) } else { lookup.set_owner(&path, uid, gid) }
    })
}
