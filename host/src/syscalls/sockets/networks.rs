//! Networks that messages to the kernel name (rtnetlink(7): IFLA_NET_NS_PID, IFLA_NET_NS_FD).

use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::fs::nsfs::NsFile;
use crate::kernel::namespaces::Ns;
use crate::kernel::{Current, Kernel};
use crate::net::Namespace;
use crate::net::links::change::Networks;
use crate::vfs::FdTable;
use std::sync::Arc;

/// What finds them for a program: among its descriptors, and processes that it knows.
pub(super) struct Finder {
    kernel: Arc<Kernel>,
    fds: Arc<FdTable>,
    cred: Arc<Cred>,
    pids: Arc<crate::kernel::pids::PidNamespace>,
}

impl Finder {
    pub(super) fn of(cur: &Current) -> Finder {
        Finder { kernel: cur.kernel.clone(), fds: cur.fds(), cred: cur.cred(), pids: cur.pids().clone() }
    }

    /// Whoever puts something there administers it.
    fn may_change(&self, found: Arc<Namespace>) -> Result<Arc<Namespace>> {
        if self.cred.has_in(&found.owner, Caps::NET_ADMIN) { Ok(found) } else { Err(Errno::EPERM) }
    }
}

impl Networks for Finder {
    fn of_process(&self, pid: u32) -> Result<Arc<Namespace>> {
        let number = i32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let task = self.kernel.task(self.pids.id_of(number)?).ok_or(Errno::ESRCH)?;
        self.may_change(task.network())
    }

    fn of_file(&self, fd: i32) -> Result<Arc<Namespace>> {
        let file = self.fds.get(fd)?;
        match file.downcast::<NsFile>().map(NsFile::namespace) {
            Some(Ns::Network(network)) => self.may_change(network.of.clone()),
            _ => Err(Errno::EINVAL),
        }
    }
}
