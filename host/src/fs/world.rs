//! The tree that a sandbox's programs see, put together.
//!
//! The host's directory below a writable layer at `/`; our own /dev, /dev/shm, /dev/pts, /proc and /sys above it.
//! Mount points that the host's directory lacks are made in the layer.

use super::dev::{self, Devices};
use super::host::{HostFile, Watch};
use super::layer::Layer;
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::hostsys::file::{self, HostFd};
use crate::kernel::Kernel;
use crate::platform::Capabilities;
use crate::vfs::{
    Caller, Dentry, Extra, FdTable, FsContext, Kind, Lookup, Mount, MountFlags, Namespace, Path, Resolve,
};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Minor numbers of the anonymous devices our file systems are on.
const ROOT_DEV: u32 = 21;
const DEV_DEV: u32 = 6;
const SHM_DEV: u32 = 22;

/// Mounts and devices of a sandbox.
pub struct World {
    /// The mounts.
    pub ns: Arc<Namespace>,
    /// What device nodes lead to.
    pub devices: Arc<Devices>,
}

/// Opens the host directory that is to be the root.
///
/// # Errors
/// The host's.
pub fn open_root(path: &std::path::Path) -> Result<HostFd> {
    file::openat(libc::AT_FDCWD, path.as_os_str().as_bytes(), libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// Everything but /proc and /sys, which need a kernel: see [`mount_proc`].
///
/// # Errors
/// The host's for reading `root`, ENOTDIR.
pub fn build(root: HostFd, caps: &Capabilities) -> Result<World> {
    let devices: Arc<Devices> = Arc::default();
    let root = Layer::above(root, ROOT_DEV, caps, &devices)?;
    let ns = Namespace::new(Mount::new(1, root, "none", MountFlags::empty()));
    let world = World { ns, devices };
    world.mount(b"/dev", dev::tree(DEV_DEV, &world.devices)?, "devtmpfs", MountFlags::NOSUID)?;
    let shm = Layer::tmpfs(SHM_DEV, "tmpfs", 0o1777, &world.devices);
    world.mount(b"/dev/shm", shm, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV)?;
    Ok(world)
}

/// Mounts /proc and /sys, which show `kernel`.
///
/// # Errors
/// ENOMEM.
pub fn mount_proc(world: &World, kernel: &Arc<Kernel>) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    world.devices.ptys.set_kernel(kernel);
    let pts = super::pty::root(&world.devices.ptys);
    world.mount(b"/dev/pts", pts, "devpts", MountFlags::NOSUID | MountFlags::NOEXEC)?;
    world.mount(b"/proc", super::proc::root(kernel), "proc", flags)?;
    world.mount(b"/sys", super::sysfs::root(kernel), "sysfs", flags | MountFlags::RDONLY)
}

/// The caller's standard input, output and error as descriptors 0 to 2 (those that are open).
pub fn stdio(world: &World, kernel: &Arc<Kernel>) -> Arc<FdTable> {
    let fds = FdTable::new();
    for fd in 0..3 {
        let kernel = Arc::downgrade(kernel);
        let watch: Watch = Box::new(move |fd, events, queue| {
            if let Some(kernel) = kernel.upgrade() {
                let _ = kernel.poller().watch(fd, events, queue);
            }
        });
        if let Ok(host) = HostFile::new(fd, watch) {
            if host.is_terminal() {
                world.devices.set_tty(host.clone());
            }
            let _ = fds.install_at(fd, host.open(), false, 3);
        }
    }
    fds
}

impl World {
    /// Mounts `root` at `place`, which is made if it is missing.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn mount(&self, place: &[u8], root: Arc<Dentry>, source: &str, flags: MountFlags) -> Result<()> {
        let place = self.directory(place)?;
        self.ns.mount(&place, root, source, flags).map(drop)
    }

    /// The directory `name`, made with its parents if it is missing.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn directory(&self, name: &[u8]) -> Result<Path> {
        let (fs, cred) = (FsContext::new(self.ns.clone()), Cred::root());
        fs.set_umask(0);
        let lookup = Lookup { fs: &fs, cred: &cred, caller: Caller::default() };
        let mut at = 1;
        while at <= name.len() {
            let end = name[at..].iter().position(|&b| b == b'/').map_or(name.len(), |n| at + n);
            match lookup.create(None, &name[..end], Kind::Dir, 0o755, Extra::None) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            at = end + 1;
        }
        lookup.resolve(None, name, Resolve::FOLLOW)
    }
}
