//! Settings below /proc/sys that a specification asks for (sysctl(8)): those of the first process's namespaces.

use super::Error;
use crate::abi::{Errno, Result};
use crate::fs::world::World;
use crate::mm::IoSrc;
use crate::vfs::{Caller, OpenHow};
use linux_raw_sys::general::O_WRONLY;

/// Writes them: names with dots between their parts, and values.
///
/// # Errors
/// Which, and what our own kernel said: ENOENT for one that it has not, EACCES for one that cannot be changed, EINVAL for what
/// cannot be its value.
pub(super) fn set(all: &[(String, String)], world: &World) -> std::result::Result<(), Error> {
    let failed = |name: &str, source| Error::Sysctl { name: name.to_owned(), source };
    all.iter().try_for_each(|(name, value)| set_one(name, value, world).map_err(|errno| failed(name, errno)))
}

fn set_one(name: &str, value: &str, world: &World) -> Result<()> {
    if name.split('.').any(|part| part.is_empty() || part.contains('/')) {
        return Err(Errno::ENOENT);
    }
    let place = format!("/proc/sys/{}", name.replace('.', "/"));
    let how = OpenHow { flags: O_WRONLY, ..OpenHow::default() };
    let file = world.as_root(Caller::MAKER, |lookup| lookup.open(None, place.as_bytes(), &how))?;
    file.write(&mut IoSrc::kernel(value.as_bytes())).map(drop)
}
