//! Which file systems can be mounted: what the layers above tell this one.

use super::{Caller, Dentry};
use crate::abi::Result;
use std::sync::Arc;

/// Makes file systems.
pub trait FileSystems: Send + Sync {
    /// The root of a new one of a type, or of the only one; `options` is what mount(2) has as data. What it shows is
    /// `caller`'s.
    ///
    /// # Errors
    /// ENODEV for an unknown type; EINVAL for bad options.
    fn make(&self, fstype: &[u8], options: &[u8], caller: Caller) -> Result<Arc<Dentry>>;

    /// Whether there is such a type: how it is called, and whether each that is mounted is one of its own.
    fn find(&self, fstype: &[u8]) -> Option<(&'static str, bool)>;

    /// Whether a type takes an option, with that value if it has one.
    ///
    /// # Errors
    /// ENOENT where it does not know it; EINVAL for a value that is none.
    fn check(&self, fstype: &str, key: &str, value: Option<&str>) -> Result<()>;

    /// Changes the options of one that is mounted.
    ///
    /// # Errors
    /// EINVAL for bad options.
    fn reconfigure(&self, root: &Arc<Dentry>, options: &[u8]) -> Result<()>;
}
