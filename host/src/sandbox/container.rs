//! What makes a sandbox a container: a first process as a specification describes it, mounts, and somebody outside who asks
//! for more later ([`super::control`]).

use super::Error;
use super::devices::Device;
use super::jail::Jail;
use super::pod::Translator;
use crate::abi::Errno;
use crate::cred::{Caps, Cred, Ids};
use crate::fs::world::World;
use crate::hostfd::HostFd;
use crate::kernel::cgroups::CgroupId;
use crate::kernel::limits::{Limit, Limits};
use crate::kernel::seccomp::Filter;
use crate::kernel::{Home, Kernel};
use crate::vfs::{Caller, Kind, MountFlags};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Numbers of the anonymous devices that a container's mounts are on, from here on.
const FIRST_DEV: u32 = 40;
/// Where every sandbox has a file system in memory.
const SHM: &[u8] = b"/dev/shm";

/// Who a process is, and what it may do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Bounding, effective, inheritable, permitted and ambient capabilities, bit n for number n; as the user has them where
    /// not given.
    pub capabilities: Option<[u64; 5]>,
    /// Permission bits that new files do not get.
    pub umask: Option<u32>,
    /// It, and what it executes, gains no privileges.
    pub no_new_privileges: bool,
    /// Resource limits other than the caller's: number, soft, hard.
    pub limits: Vec<(u32, u64, u64)>,
}

/// What is mounted somewhere.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file system in memory, made with these options (tmpfs(5)).
    Tmpfs(String),
    /// A directory or a regular file of the host, as it is there, and written through unless the mount is read-only.
    Host(PathBuf),
    /// What is there already, with other flags.
    Again,
    /// The same; an empty directory where there is nothing.
    Copy,
    /// Nothing, hiding what is there.
    Mask,
    /// Control groups.
    Cgroups,
}

/// A mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where, from the root.
    pub place: Vec<u8>,
    /// What.
    pub source: Source,
    /// What it forbids.
    pub flags: MountFlags,
}

/// What a specification adds to [`super::Spec`].
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// Who the first process is; the caller, where not given.
    pub user: Option<User>,
    /// Host name; the host's, where not given.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// In this order, above what every sandbox has.
    pub mounts: Vec<Mount>,
    /// Device nodes beside those that every sandbox has.
    pub devices: Vec<Device>,
    /// Settings below /proc/sys: names with dots, and values.
    pub sysctls: Vec<(String, String)>,
    /// What screens the calls of its programs.
    pub seccomp: Option<Arc<Filter>>,
    /// Nothing on the root's own mount is changed.
    pub readonly_root: bool,
    /// The root directory is written through, instead of being below a layer in memory.
    pub writes_root: bool,
    /// Descriptors that stay open when all others are closed at the start.
    pub kept: Vec<i32>,
    /// The one among them that requests come from.
    pub control: Option<i32>,
    /// Who enters the process's namespace of mounts finds the root directory there.
    pub shows_root: bool,
    /// It is the first of a pod: other containers may come into its kernel, and this says what their specifications ask for.
    pub pod: Option<Translator>,
}

impl User {
    /// Its credentials, as after an execve(2).
    pub(super) fn cred(&self) -> Cred {
        let mut cred = Cred::user(self.uid, self.gid, &self.groups);
        (cred.uid, cred.gid) = (Ids::all(self.uid), Ids::all(self.gid));
        if let Some(sets) = self.capabilities {
            let [bounding, effective, inheritable, permitted, ambient] = sets.map(Caps::from_bits_truncate);
            cred.bounding = bounding;
            (cred.effective, cred.inheritable, cred.permitted) =
                (effective & permitted, inheritable, permitted);
            cred.ambient = ambient & permitted & inheritable;
            cred = cred.after_exec(None, None, || None);
        }
        cred
    }

    /// Its limits: `limits` but for those it has of its own.
    pub(super) fn limits(&self, mut limits: Limits) -> Limits {
        for (resource, soft, hard) in &self.limits {
            let limit = Limit { soft: *soft.min(hard), hard: *hard };
            // More than there can be is as much as there can be.
            if limits.set(*resource, limit, true) == Err(Errno::EPERM) {
                let most = crate::kernel::limits::NR_OPEN;
                let _known = limits.set(*resource, Limit { soft: limit.soft.min(most), hard: most }, true);
            }
        }
        limits
    }
}

/// A mount whose source is open.
pub(super) struct Opened {
    mount: Mount,
    host: Option<HostFd>,
}

/// Opens what mounts need of the host, before the jail is closed.
pub(super) fn open(mounts: &[Mount], jail: &mut Jail) -> Result<Vec<Opened>, Error> {
    let open = |mount: &Mount| {
        let host = match &mount.source {
            Source::Host(path) => {
                let written = !mount.flags.contains(MountFlags::RDONLY);
                Some(jail.open_volume(path, written).map_err(|source| failed(mount, source))?)
            }
            _ => None,
        };
        Ok(Opened { mount: mount.clone(), host })
    };
    mounts.iter().map(open).collect()
}

/// The same where somebody else has opened it: `fds` are what it takes of the host, in the order of the mounts.
pub(super) fn opened(mounts: &[Mount], fds: &mut impl Iterator<Item = HostFd>) -> Result<Vec<Opened>, Error> {
    let open = |mount: &Mount| {
        let host = match &mount.source {
            Source::Host(_) => Some(fds.next().ok_or_else(|| failed(mount, Errno::EBADF))?),
            _ => None,
        };
        Ok(Opened { mount: mount.clone(), host })
    };
    mounts.iter().map(open).collect()
}

/// The descriptors of the host that have been opened, in the order of the mounts.
pub(super) fn of_host(all: Vec<Opened>) -> Vec<HostFd> {
    all.into_iter().filter_map(|opened| opened.host).collect()
}

/// Where things are mounted.
pub(super) struct Ground<'a> {
    pub(super) world: &'a World,
    pub(super) kernel: &'a Kernel,
    /// The container that it is for, if not the first.
    pub(super) home: Option<&'a Home>,
    /// What is at /dev/shm is another container's, too.
    pub(super) shares_shm: bool,
}

impl<'a> Ground<'a> {
    /// The sandbox's own.
    pub(super) fn of_first(world: &'a World, kernel: &'a Kernel) -> Self {
        Ground { world, kernel, home: None, shares_shm: false }
    }
}

/// Mounts all of it.
pub(super) fn mount(all: Vec<Opened>, on: &Ground<'_>, readonly_root: bool) -> Result<(), Error> {
    for (dev, opened) in (FIRST_DEV..).zip(all) {
        let mount = opened.mount;
        attach(&mount, opened.host, dev, on).map_err(|source| failed(&mount, source))?;
    }
    if readonly_root {
        on.world.ns.root().mount.set_flags(MountFlags::RDONLY);
    }
    Ok(())
}

fn attach(mount: &Mount, host: Option<HostFd>, dev: u32, on: &Ground<'_>) -> Result<(), Errno> {
    let Ground { world, kernel, home, .. } = on;
    // Those of the first are what they ever were; there are not so many that they would be others'.
    let dev = if home.is_some() { world.mountable()?.next_dev() } else { dev };
    let (place, flags) = (&*mount.place, mount.flags);
    match (&mount.source, host) {
        (Source::Tmpfs(_), _) if place == SHM && on.shares_shm => Ok(()),
        (Source::Tmpfs(options), _) if place == SHM => {
            kernel.filesystems()?.reconfigure(&world.directory(SHM)?.dentry, options.as_bytes())
        }
        (Source::Tmpfs(options), _) => world.mount(
            place,
            kernel.filesystems()?.make(b"tmpfs", options.as_bytes(), Caller::MAKER)?,
            "tmpfs",
            flags,
        ),
        (Source::Cgroups, _) => {
            let cgroup = home.map_or(CgroupId::ROOT, |home| home.cgroup);
            world.mount(place, world.mountable()?.cgroup(cgroup)?, "cgroup2", flags)
        }
        // What is not there needs no protection.
        (Source::Again, _) => match world.mount_again(place, flags) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            other => other,
        },
        (Source::Copy, _) => world.directory(place).and_then(|_| world.mount_again(place, flags)),
        // What is not there needs no hiding, nor what the host keeps from ourselves.
        (Source::Mask, _) => match world.mask(place, dev) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(()),
            other => other,
        },
        (Source::Host(path), Some(fd)) => {
            let source = path.to_string_lossy();
            let written = !flags.contains(MountFlags::RDONLY);
            let root = world.trees.add(fd, (dev, written), &world.devices)?;
            if home.is_some() {
                root.sb.end_with_mounts(&kernel.ruins);
            }
            match root.kind() {
                Kind::Dir => world.mount(place, root, &source, flags),
                _ => world.mount_file(place, root, &source, flags),
            }
        }
        (Source::Host(_), None) => Err(Errno::EBADF),
    }
}

fn failed(mount: &Mount, source: Errno) -> Error {
    let place = String::from_utf8_lossy(&mount.place).into_owned();
    let of = match &mount.source {
        Source::Host(path) => path.display().to_string(),
        Source::Tmpfs(_) => "tmpfs".to_owned(),
        Source::Cgroups => "cgroup2".to_owned(),
        Source::Again | Source::Copy | Source::Mask => place.clone(),
    };
    Error::Mount { of, place, source }
}

/// Shared by all that starts in a sandbox.
pub(super) type Shared = Arc<World>;
