//! Which file systems can be mounted: what the layers above tell this one.

use super::Dentry;
use crate::abi::Result;
use std::sync::Arc;

/// Makes file systems.
pub trait FileSystems: Send + Sync {
    /// The root of a new one of a type, or of the only one; `options` is what mount(2) has as data.
    ///
    /// # Errors
    /// ENODEV for an unknown type; EINVAL for bad options.
    fn make(&self, fstype: &[u8], options: &[u8]) -> Result<Arc<Dentry>>;

    /// Changes the options of one that is mounted.
    ///
    /// # Errors
    /// EINVAL for bad options.
    fn reconfigure(&self, root: &Arc<Dentry>, options: &[u8]) -> Result<()>;
}
