//! The file systems that programs can mount (mount(2)).
//!
//! There is one /sys, one /dev, one set of terminals and one hierarchy of control groups, whoever mounts them and how often, and
//! one /proc in the first pid namespace; in others each is new, as each tmpfs and ramfs is. Who mounts one needs power over what
//! it shows: a /proc belongs to its pid namespace's user namespace, /sys to the network's, files in memory to whoever makes them.

use super::FILESYSTEMS;
use super::dev::Devices;
use super::layer::{Layer, TMPFS_MAGIC};
use crate::abi::{Errno, Result};
use crate::cred::userns::UserNs;
use crate::cred::{Caps, Cred};
use crate::kernel::Kernel;
use crate::kernel::cgroups::CgroupId;
use crate::kernel::pids::PidNamespace;
use crate::vfs::{Caller, Dentry, FileSystems};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// Minor numbers of the devices that mounted file systems are on begin here.
const FIRST_DEV: u32 = 64;
/// That of the first /proc.
const PROC_MINOR: u32 = 23;

/// What there is to mount.
pub struct Mountable {
    devices: Arc<Devices>,
    /// Those that there are one of each of.
    single: [(&'static str, Arc<Dentry>); 5],
    next_dev: AtomicU32,
    kernel: Weak<Kernel>,
}

impl Mountable {
    /// All of them; `dev` is the root of /dev.
    pub fn new(devices: &Arc<Devices>, dev: Arc<Dentry>, kernel: &Arc<Kernel>) -> Arc<Mountable> {
        Arc::new(Mountable {
            devices: devices.clone(),
            single: [
                ("proc", super::proc::root(kernel, &kernel.pids, PROC_MINOR)),
                ("sysfs", super::sysfs::root(kernel)),
                ("devpts", super::pty::root(&devices.ptys)),
                ("devtmpfs", dev),
                ("cgroup2", super::cgroup::root(kernel)),
            ],
            next_dev: AtomicU32::new(FIRST_DEV),
            kernel: Arc::downgrade(kernel),
        })
    }

    /// A minor number for a device that nothing else is on.
    pub fn next_dev(&self) -> u32 {
        self.next_dev.fetch_add(1, Ordering::Relaxed)
    }

    /// The root of what /proc is in a pid namespace.
    ///
    /// # Errors
    /// ENODEV when the kernel is no more.
    pub fn proc(&self, pids: &Arc<PidNamespace>) -> Result<Arc<Dentry>> {
        if pids.is_first() {
            return self.root(b"proc");
        }
        let kernel = self.kernel.upgrade().ok_or(Errno::ENODEV)?;
        let root = super::proc::root(&kernel, pids, self.next_dev());
        root.sb.set_owner(&pids.owner);
        Ok(root)
    }

    /// A new file system in memory, which `cred` makes.
    fn memory(&self, (name, magic): (&'static str, u64), options: &[u8], cred: &Cred) -> Result<Arc<Dentry>> {
        let given = Given::parse(options, name == "tmpfs")?;
        let dev = self.next_dev();
        let perm = given.mode.unwrap_or(if name == "tmpfs" { 0o1777 } else { 0o755 });
        let uid = given.uid.map_or(Some(cred.uid.fs), |name| cred.user_ns.uid(name)).ok_or(Errno::EINVAL)?;
        let gid = given.gid.map_or(Some(cred.gid.fs), |name| cred.user_ns.gid(name)).ok_or(Errno::EINVAL)?;
        let root = Layer::mounted(dev, (name, magic), perm, (uid, gid), &self.devices);
        given.limit(&root)?;
        *root.sb.options.lock() = given.shown();
        root.sb.set_owner(&cred.user_ns);
        root.sb.end_with_mounts(&self.kernel.upgrade().ok_or(Errno::ENODEV)?.ruins);
        Ok(root)
    }

    /// The directory of a control group, as the root of what is mounted.
    ///
    /// # Errors
    /// ENOENT for one that there is not; ENODEV when the kernel is no more.
    pub fn cgroup(&self, id: CgroupId) -> Result<Arc<Dentry>> {
        let kernel = self.kernel.upgrade().ok_or(Errno::ENODEV)?;
        below(&self.root(b"cgroup2")?, &kernel.cgroups.path(id))
    }

    /// Makes a control group that is called `name`, or nearly so, in the root of all.
    ///
    /// # Errors
    /// EAGAIN where there are too many.
    pub fn make_cgroup(&self, name: &[u8]) -> Result<CgroupId> {
        super::cgroup::make(&self.root(b"cgroup2")?, name)
    }

    /// Removes a control group and those below it.
    ///
    /// # Errors
    /// EBUSY as long as there are processes in any; ENOENT for one that there is not.
    pub fn remove_cgroup(&self, id: CgroupId) -> Result<()> {
        super::cgroup::remove(&self.cgroup(id)?)
    }

    /// The root of the one of its kind.
    ///
    /// # Errors
    /// ENODEV.
    pub fn root(&self, fstype: &[u8]) -> Result<Arc<Dentry>> {
        let found = self.single.iter().find(|(name, _)| name.as_bytes() == fstype);
        found.map(|(_, root)| root.clone()).ok_or(Errno::ENODEV)
    }
}

/// The directory of a control group that is called `path` from the root of all.
fn below(root: &Arc<Dentry>, path: &[u8]) -> Result<Arc<Dentry>> {
    let mut at = root.clone();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        at = at.child(part)?.ok_or(Errno::ENOENT)?;
    }
    Ok(at)
}

/// Options of file systems that are shown alike to whoever mounts them: known, and without effect.
const WITHOUT_EFFECT: [(&str, &[&str]); 2] = [
    ("proc", &["gid", "hidepid", "subset"]),
    ("devpts", &["uid", "gid", "mode", "ptmxmode", "newinstance", "max"]),
];

impl FileSystems for Mountable {
    fn find(&self, fstype: &[u8]) -> Option<(&'static str, bool)> {
        let name = FILESYSTEMS.iter().find(|name| name.as_bytes() == fstype)?;
        Some((name, matches!(*name, "tmpfs" | "ramfs")))
    }

    fn check(&self, fstype: &str, key: &str, value: Option<&str>) -> Result<()> {
        if let Some((_, known)) = WITHOUT_EFFECT.iter().find(|(of, _)| *of == fstype) {
            return if known.contains(&key) { Ok(()) } else { Err(Errno::ENOENT) };
        }
        match fstype {
            // As ever, it is not told what it does not know.
            "ramfs" if key != "mode" => {
                if key == "source" {
                    Err(Errno::ENOENT)
                } else {
                    Ok(())
                }
            }
            "tmpfs" | "devtmpfs" | "ramfs" => {
                Given::default().take(key, value.unwrap_or(""))?;
                if value.is_some_and(|value| value.contains(',')) { Err(Errno::EINVAL) } else { Ok(()) }
            }
            "cgroup2" if value.is_none() => super::cgroup::options(key.as_bytes()).map_err(|_| Errno::ENOENT),
            _ => Err(Errno::ENOENT),
        }
    }

    fn make(&self, fstype: &[u8], options: &[u8], caller: Caller) -> Result<Arc<Dentry>> {
        let kernel = self.kernel.upgrade().ok_or(Errno::ENODEV)?;
        let task = kernel.task(caller.tid);
        let cred = task.as_ref().map_or_else(|| Arc::new(Cred::root()), |task| task.cred());
        let over =
            |owner: &UserNs| if cred.has_in(owner, Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) };
        match fstype {
            b"tmpfs" => self.memory(("tmpfs", TMPFS_MAGIC), options, &cred),
            b"ramfs" => self.memory(("ramfs", RAMFS_MAGIC), options, &cred),
            b"proc" => {
                let pids = task.as_ref().map_or(&kernel.pids, |task| &task.group.pids);
                over(&pids.owner)?;
                self.proc(pids)
            }
            b"sysfs" => {
                task.as_ref().map_or(Ok(()), |task| over(&task.network().owner))?;
                self.root(fstype)
            }
            b"cgroup2" => {
                let own = task.as_ref().map(|task| task.namespaces().cgroup.clone());
                over(own.as_ref().map_or(&UserNs::FIRST, |own| &own.owner))?;
                super::cgroup::options(options)?;
                let root = self.root(fstype)?;
                own.map_or(Ok(root), |own| self.cgroup(*own.of))
            }
            b"devtmpfs" => over(&UserNs::FIRST).and_then(|()| self.root(fstype)),
            _ => self.root(fstype),
        }
    }

    fn reconfigure(&self, root: &Arc<Dentry>, options: &[u8]) -> Result<()> {
        if root.sb.fstype == "tmpfs" {
            let given = Given::parse(options, true)?;
            given.limit(root)?;
            if !options.is_empty() {
                *root.sb.options.lock() = given.shown();
            }
        }
        Ok(())
    }
}

/// What tmpfs(5) lets one choose.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// KiB.
    size: Option<u64>,
    inodes: Option<u64>,
}

impl Given {
    fn parse(options: &[u8], strict: bool) -> Result<Given> {
        let text = std::str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
        let mut given = Given::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match given.take(key, value) {
                Err(Errno::ENOENT) if strict => return Err(Errno::EINVAL),
                Err(Errno::ENOENT) => {}
                done => done?,
            }
        }
        Ok(given)
    }

    /// One option.
    ///
    /// # Errors
    /// ENOENT for one that is not known; EINVAL for a value that is none.
    fn take(&mut self, key: &str, value: &str) -> Result<()> {
        let number = |base| u32::from_str_radix(value, base).map_err(|_| Errno::EINVAL);
        match key {
            "mode" => self.mode = Some(number(8)? & 0o7777),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "size" => self.size = Some(bytes(value)?.div_ceil(4096) * 4),
            "nr_blocks" => self.size = Some(bytes(value)?.saturating_mul(4)),
            "nr_inodes" => self.inodes = Some(bytes(value)?),
            // Pages are never huge, nothing is swapped, inode numbers have 64 bits.
            "huge" | "mpol" | "noswap" | "inode32" | "inode64" => {}
            _ => return Err(Errno::ENOENT),
        }
        Ok(())
    }

    /// Sets the limits of a file system.
    ///
    /// # Errors
    /// EINVAL where it holds more already.
    fn limit(&self, root: &Arc<Dentry>) -> Result<()> {
        let Some(quota) = &root.sb.quota else { return Ok(()) };
        if let Some(size) = self.size {
            quota.blocks.set_limit(size / 4)?;
        }
        self.inodes.map_or(Ok(()), |inodes| quota.inodes.set_limit(inodes))
    }

    /// As /proc/mounts says it.
    fn shown(&self) -> String {
        let mut text = String::new();
        let mut add = |option: std::fmt::Arguments<'_>| text.push_str(&option.to_string());
        if let Some(size) = self.size {
            add(format_args!(",size={size}k"));
        }
        if let Some(inodes) = self.inodes {
            add(format_args!(",nr_inodes={inodes}"));
        }
        if let Some(mode) = self.mode.filter(|mode| *mode != 0o1777) {
            add(format_args!(",mode={mode:03o}"));
        }
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id.filter(|id| *id != 0) {
                add(format_args!(",{name}={id}"));
            }
        }
        text
    }
}

/// A number with a unit; a share is one of what all files may take.
fn bytes(text: &str) -> Result<u64> {
    if let Some(share) = text.strip_suffix('%') {
        let share: u64 = share.parse().map_err(|_| Errno::EINVAL)?;
        return Ok((crate::arena::ledger::files_limit() / 100).saturating_mul(share));
    }
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    Ok(number.saturating_mul(1 << shift))
}

#[cfg(test)]
mod tests {
    use super::{Errno, Given};

    #[test]
    fn options_are_read_as_tmpfs_reads_them() {
        let given = Given::parse(b"size=1m,mode=700,uid=5,nr_inodes=10", true).unwrap();
        assert_eq!(given.shown(), ",size=1024k,nr_inodes=10,mode=700,uid=5");
        assert_eq!(Given::parse(b"", true), Ok(Given::default()));
        assert_eq!(Given::parse(b"size=5000", true).unwrap().shown(), ",size=8k");
        for bad in ["size=", "size=x", "mode=9", "uid=-1", "what", "size=1q"] {
            assert_eq!(Given::parse(bad.as_bytes(), true), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(Given::parse(b"what", false), Ok(Given::default()));
    }
}
