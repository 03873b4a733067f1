//! Who opens a setting below /proc/sys.

use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::kernel::Kernel;
use crate::kernel::namespaces::Namespaces;
use crate::vfs::Caller;
use std::sync::{Arc, Weak};

/// A setting is one of the opener's namespaces, and whether it may be changed is asked of his credentials when it is opened
/// (proc_sys(5)).
pub(super) struct Opener {
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) cred: Arc<Cred>,
}

impl Opener {
    /// Who `caller` is.
    ///
    /// # Errors
    /// ESRCH for one who is no more; EIO when the kernel is no more.
    pub(super) fn find(kernel: &Weak<Kernel>, caller: Caller) -> Result<Opener> {
        let kernel = kernel.upgrade().ok_or(Errno::EIO)?;
        if caller == Caller::MAKER {
            return Ok(Opener { namespaces: kernel.first_namespaces(), cred: Arc::new(Cred::root()) });
        }
        let task = kernel.task(caller.tid).ok_or(Errno::ESRCH)?;
        Ok(Opener { namespaces: task.namespaces(), cred: task.cred() })
    }

    /// Whether he has a capability.
    pub(super) fn has(&self, cap: Caps) -> bool {
        self.cred.has(cap)
    }
}
