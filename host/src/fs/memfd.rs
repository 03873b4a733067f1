//! memfd_create(2): regular files without a name.

use super::layer::{Layer, Node};
use crate::abi::Result;
use crate::vfs::{File, Mount, MountFlags, OpenHow, Path};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// A new one, open for reading and writing. With `seals` more can be added; without, none.
///
/// # Errors
/// None in practice.
pub fn create(name: &[u8], perm: u32, seals: Option<u32>) -> Result<Arc<File>> {
    let dentry = Layer::nameless(&Arc::default(), &[b"/memfd:", name].concat(), perm);
    if let Some(seals) = seals
        && let Some(node) = dentry.inode.as_any().downcast_ref::<Node>()
    {
        node.allow_sealing(seals);
    }
    dentry.mark_dead();
    let path = Path { mount: Mount::new(0, dentry.clone(), "none", MountFlags::empty()), dentry };
    // Not opened for writing, as far as execve(2) is concerned: memfds are executed by those who have just written them.
    let ops = path.dentry.inode.clone().open(&path, &OpenHow::default())?;
    Ok(File::new(ops, c::O_RDWR | c::O_LARGEFILE, path))
}
