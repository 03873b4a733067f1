//! The tree that a sandbox's programs see, put together.
//!
//! The host's directory below a writable layer at `/`, or written through; our own /dev, /dev/shm, /dev/pts, /proc and /sys above it.
//! Mount points that the host's directory lacks are made in the layer.

use super::dev::{self, Devices};
use super::host::{HostFile, Watch};
use super::hostterm::access_mode;
use super::layer::Layer;
use super::mountable::Mountable;
use super::through::{Trees, WriteBack};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::hostfd::{self, HostFd};
use crate::hostsys::file;
use crate::kernel::Kernel;
use crate::kernel::pids::PidNamespace;
use crate::mm::IoSrc;
use crate::platform::Capabilities;
use crate::sync::{HostCalls, HostLines, Lock, Rank};
use crate::vfs::{
    Caller, Dentry, Extra, FdTable, File, FsContext, Kind, Lookup, Mount, MountFlags, Namespace, OpenHow,
    Path, Resolve, makedev,
};
use linux_raw_sys::general as c;
use std::sync::{Arc, OnceLock};

/// Minor numbers of the anonymous devices our file systems are on.
const ROOT_DEV: u32 = 21;
const DEV_DEV: u32 = 6;
const SHM_DEV: u32 = 22;
/// The root directories of other containers keep one in so many of the descriptors that the first one's does.
const MEMBERS_PART: usize = 16;

/// Mounts and devices of a sandbox.
pub struct World {
    /// The mounts.
    pub ns: Arc<Namespace>,
    /// What device nodes lead to.
    pub devices: Arc<Devices>,
    /// The ways to make host calls that may hang.
    pub lines: Arc<HostLines>,
    /// Directories of the host that are seen as they are.
    pub trees: Arc<Trees>,
    /// Who writes pages of theirs back, until it runs.
    write_back: Arc<Lock<Option<WriteBack>>>,
    /// What is in memory at /dev/shm.
    shm: Arc<Dentry>,
    /// What can be mounted, once there is a kernel.
    mountable: Arc<OnceLock<Arc<Mountable>>>,
    /// Descriptors that the layer above the root directory may keep.
    kept: usize,
}

/// Opens the host directory that is to be the root.
///
/// # Errors
/// The host's.
pub fn open_root(path: &std::path::Path) -> Result<HostFd> {
    hostfd::files().open(path, libc::O_PATH | libc::O_DIRECTORY)
}

/// Everything but /proc and /sys, which need a kernel: see [`mount_proc`]. `written`: `root` is written through, instead of being
/// below a layer.
///
/// # Errors
/// The host's for reading `root`, ENOTDIR.
pub fn build(root: HostFd, caps: &Capabilities, written: bool) -> Result<World> {
    let lines: Arc<HostLines> = Arc::default();
    let devices = Arc::new(Devices { lines: lines.clone(), ..Devices::default() });
    let (trees, write_back) = Trees::new()?;
    let trees = Arc::new(trees);
    // Half of what the host allows: the rest is for what programs open.
    let kept = (file::raise_nofile() / 2).min(20_000) as usize;
    let root = match written {
        true => trees.add(root, (ROOT_DEV, true), &devices)?,
        false => Layer::above(root, ROOT_DEV, caps, &devices, (&lines, kept))?,
    };
    let ns = Namespace::new(Mount::new(1, root, "none", MountFlags::empty()));
    let write_back = Arc::new(Lock::new(Rank::ThroughTrees, Some(write_back)));
    let shm = Layer::tmpfs(SHM_DEV, "tmpfs", 0o1777, &devices);
    let world = World { ns, devices, lines, trees, write_back, shm, mountable: Arc::default(), kept };
    world.mount_dev(dev::tree(DEV_DEV, &world.devices)?)?;
    Ok(world)
}

/// Mounts /proc and /sys, which show `kernel`.
///
/// # Errors
/// ENOMEM.
pub fn mount_proc(world: &World, kernel: &Arc<Kernel>) -> Result<()> {
    world.devices.ptys.set_kernel(kernel);
    let calls: Arc<dyn HostCalls> = kernel.sched.clone();
    world.lines.connect(&calls);
    let dev = world.directory(b"/dev")?.dentry;
    let all = Mountable::new(&world.devices, dev, kernel);
    let _once = world.mountable.set(all.clone());
    kernel.set_filesystems(all);
    world.mount_special(&kernel.pids)
}

/// The caller's standard input, output and error as descriptors 0 to 2 (those that are open). A terminal among them
/// becomes one of the sandbox's, whose owner is `cred`; the first is what the kernel is told of.
pub fn stdio(world: &World, kernel: &Arc<Kernel>, cred: &Cred) -> Arc<FdTable> {
    let fds = FdTable::new();
    let mut terminals: Vec<(u64, u32)> = Vec::new();
    for fd in 0..3 {
        let file = match terminal_number(fd) {
            Some(number) => terminal(world, cred, fd, number, &mut terminals),
            None => passed_through(world, kernel, fd),
        };
        if let Ok(file) = file {
            let _ = fds.install_at(fd, file, false, 3);
        }
    }
    if let Some((_, index)) = terminals.first() {
        kernel.set_host_terminal(super::pty::slave_number(*index));
    }
    fds
}

/// The device number in the host of the terminal that `fd` is.
fn terminal_number(fd: i32) -> Option<u64> {
    let mut termios = [0; 256];
    file::ioctl(fd, linux_raw_sys::ioctl::TCGETS, &mut termios).ok()?;
    let stat = file::statx(fd, b"", libc::AT_EMPTY_PATH).ok()?;
    Some(makedev(stat.stx_rdev_major, stat.stx_rdev_minor))
}

/// Opens the terminal `number` of the host, descriptor `fd` of this process; `known` are those that have a name.
fn terminal(
    world: &World,
    cred: &Cred,
    fd: i32,
    number: u64,
    known: &mut Vec<(u64, u32)>,
) -> Result<Arc<File>> {
    let index = match known.iter().find(|(other, _)| *other == number) {
        Some((_, index)) => *index,
        None => {
            let index = world.devices.ptys.add_host(fd, (cred.uid.real, cred.gid.real))?;
            known.push((number, index));
            index
        }
    };
    world.open_terminal(index, access_mode(fd))
}

fn passed_through(world: &World, kernel: &Arc<Kernel>, fd: i32) -> Result<Arc<File>> {
    HostFile::new(fd, watch_by(kernel), world.lines.clone()).map(|host| host.open())
}

fn watch_by(kernel: &Arc<Kernel>) -> Watch {
    let kernel = Arc::downgrade(kernel);
    Box::new(move |fd, events, queue| {
        if let Some(kernel) = kernel.upgrade() {
            let _ = kernel.poller().watch(fd, events, queue);
        }
    })
}

/// Who waits to hear that a process has ended, where its terminal goes with it.
pub struct Streams {
    /// Its standard input, output and error.
    pub fds: Arc<FdTable>,
    /// The number of the terminal among them, and its index in /dev/pts.
    pub tty: Option<(u64, u32)>,
}

/// Standard input, output and error of a process that starts later, as somebody has sent them. A terminal among them is one of
/// the process's own; the three are the same then.
///
/// # Errors
/// What has no file behind it; ENOSPC when there are too many terminals.
pub fn received_stdio(
    world: &World,
    kernel: &Arc<Kernel>,
    cred: &Cred,
    received: Vec<HostFd>,
    terminal: bool,
) -> Result<Streams> {
    let fds = FdTable::new();
    if !terminal {
        for (number, fd) in received.into_iter().enumerate() {
            let file = HostFile::received(fd, watch_by(kernel), world.lines.clone())?.open();
            fds.install_at(number as i32, file, false, 3)?;
        }
        return Ok(Streams { fds, tty: None });
    }
    let first = received.into_iter().next().ok_or(Errno::EBADF)?;
    let index = world.devices.ptys.add_received(first, (cred.uid.real, cred.gid.real))?;
    let file = world.open_terminal(index, c::O_RDWR)?;
    for number in 0..3 {
        fds.install_at(number, file.clone(), false, 3)?;
    }
    Ok(Streams { fds, tty: Some((super::pty::slave_number(index), index)) })
}

impl World {
    /// The tree of another container of the same kernel, whose root directory is `root`, which is `written` through or below a layer
    /// in memory. Its programs are in `pids`. /dev/shm is this one's where it is `shared`. What it has goes with it.
    ///
    /// # Errors
    /// As [`build`] and [`mount_proc`]; ENOSPC where there are too many mounts.
    pub fn beside(
        &self,
        (root, written): (HostFd, bool),
        kernel: &Arc<Kernel>,
        (pids, shared): (&Arc<PidNamespace>, bool),
    ) -> Result<World> {
        let all = self.mountable()?;
        let (dev, caps) = (all.next_dev(), kernel.platform.capabilities());
        let root = match written {
            true => self.trees.add(root, (dev, true), &self.devices)?,
            false => Layer::above(root, dev, &caps, &self.devices, (&self.lines, self.kept / MEMBERS_PART))?,
        };
        let nodes = dev::tree(all.next_dev(), &self.devices)?;
        let shm = match shared {
            true => self.shm.clone(),
            false => Layer::tmpfs(all.next_dev(), "tmpfs", 0o1777, &self.devices),
        };
        let own = [Some(&root), Some(&nodes), (!shared).then_some(&shm)];
        own.into_iter().flatten().for_each(|root| root.sb.end_with_mounts(&kernel.ruins));
        let world = World {
            ns: self.ns.beside(root)?,
            devices: self.devices.clone(),
            lines: self.lines.clone(),
            trees: self.trees.clone(),
            write_back: self.write_back.clone(),
            shm,
            mountable: self.mountable.clone(),
            kept: self.kept,
        };
        world.mount_dev(nodes)?;
        world.mount_special(pids)?;
        Ok(world)
    }

    /// What can be mounted.
    ///
    /// # Errors
    /// ENODEV before there is a kernel.
    pub fn mountable(&self) -> Result<&Arc<Mountable>> {
        self.mountable.get().ok_or(Errno::ENODEV)
    }

    fn mount_dev(&self, nodes: Arc<Dentry>) -> Result<()> {
        self.mount(b"/dev", nodes, "devtmpfs", MountFlags::NOSUID)?;
        self.mount(b"/dev/shm", self.shm.clone(), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV)
    }

    fn mount_special(&self, pids: &Arc<PidNamespace>) -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let all = self.mountable()?;
        self.mount(b"/dev/pts", all.root(b"devpts")?, "devpts", MountFlags::NOSUID | MountFlags::NOEXEC)?;
        self.mount(b"/proc", all.proc(pids)?, "proc", flags)?;
        self.mount(b"/sys", all.root(b"sysfs")?, "sysfs", flags | MountFlags::RDONLY)
    }

    /// Who writes pages back for its trees, if there are any: to be run by a thread.
    pub fn write_back(&self) -> Option<WriteBack> {
        let some = !self.trees.is_empty();
        self.write_back.lock().take().filter(|_| some)
    }

    /// Has `body` look names up as root, in the first namespace of mounts and for `caller`; what it makes has the permission bits
    /// that it says.
    pub fn as_root<R>(&self, caller: Caller, body: impl FnOnce(&Lookup<'_>) -> R) -> R {
        let (fs, cred) = (FsContext::new(self.ns.clone()), Cred::root());
        fs.set_umask(0);
        body(&Lookup { fs: &fs, cred: &cred, caller })
    }

    fn open_terminal(&self, index: u32, mode: u32) -> Result<Arc<File>> {
        let how = OpenHow { flags: mode | c::O_NOCTTY, ..OpenHow::default() };
        self.as_root(Caller::default(), |lookup| {
            lookup.open(None, format!("/dev/pts/{index}").as_bytes(), &how)
        })
    }

    /// What `place` names.
    fn find(&self, place: &[u8]) -> Result<Path> {
        self.as_root(Caller::default(), |lookup| lookup.resolve(None, place, Resolve::FOLLOW))
    }

    /// Mounts `root` at `place`, which is made if it is missing.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn mount(&self, place: &[u8], root: Arc<Dentry>, source: &str, flags: MountFlags) -> Result<()> {
        let place = self.directory(place)?;
        self.ns.mount(&place, root, source, flags).map(drop)
    }

    /// Mounts the file `root` at `place`, an empty file that is made, with its parents, if it is missing.
    ///
    /// # Errors
    /// As mkdir(2) and open(2); ENOTDIR where there is a directory.
    pub fn mount_file(&self, place: &[u8], root: Arc<Dentry>, source: &str, flags: MountFlags) -> Result<()> {
        let parent = place.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.directory(&place[..parent.max(1)])?;
        let make = |lookup: &Lookup<'_>| lookup.create(None, place, Kind::File, 0o644, Extra::None);
        match self.as_root(Caller::default(), make) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let place = self.find(place)?;
        self.ns.mount(&place, root, source, flags).map(drop)
    }

    /// Makes the file `place` anew, with that text. What has the name already gives way; there must be a directory for it.
    ///
    /// # Errors
    /// ENOENT, and as open(2).
    pub fn write_file(&self, place: &[u8], text: &[u8]) -> Result<()> {
        self.as_root(Caller::default(), |lookup| {
            match lookup.remove(None, place, false) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            let how =
                OpenHow { flags: c::O_WRONLY | c::O_CREAT | c::O_EXCL, mode: 0o644, ..OpenHow::default() };
            let file = lookup.open(None, place, &how)?;
            file.write(&mut IoSrc::kernel(text)).map(drop)
        })
    }

    /// What `place` names, mounted on itself, to forbid more or less than what it is on.
    ///
    /// # Errors
    /// ENOENT.
    pub fn mount_again(&self, place: &[u8], flags: MountFlags) -> Result<()> {
        let path = self.find(place)?;
        let source = path.mount.source.clone();
        self.ns.mount(&path, path.dentry.clone(), &source, flags).map(drop)
    }

    /// Hides what `place` names behind nothing, an empty directory or /dev/null, for good: root inside cannot take that away.
    ///
    /// # Errors
    /// ENOENT.
    pub fn mask(&self, place: &[u8], dev: u32) -> Result<()> {
        let path = self.find(place)?;
        let nothing = match path.dentry.kind() {
            Kind::Dir => Layer::tmpfs(dev, "tmpfs", 0o555, &self.devices),
            _ => self.find(b"/dev/null")?.dentry,
        };
        let mount = self.ns.mount(&path, nothing, "tmpfs", MountFlags::RDONLY)?;
        mount.set_locked(true);
        Ok(())
    }

    /// The directory `name`, made with its parents if it is missing.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn directory(&self, name: &[u8]) -> Result<Path> {
        self.as_root(Caller::default(), |lookup| {
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
        })
    }
}
