//! The file systems that programs can mount (mount(2)).
//!
//! There is one /proc, one /sys, one /dev and one set of terminals, whoever mounts them and how often; each tmpfs and ramfs is
//! new.

use super::dev::Devices;
use super::layer::{Layer, TMPFS_MAGIC};
use crate::abi::{Errno, Result};
use crate::kernel::Kernel;
use crate::vfs::{Dentry, FileSystems};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// Minor numbers of the devices that mounted file systems are on begin here.
const FIRST_DEV: u32 = 64;

/// What there is to mount.
pub struct Mountable {
    devices: Arc<Devices>,
    /// Those that there are one of each of.
    single: [(&'static str, Arc<Dentry>); 4],
    next_dev: AtomicU32,
}

impl Mountable {
    /// All of them; `dev` is the root of /dev.
    pub fn new(devices: &Arc<Devices>, dev: Arc<Dentry>, kernel: &Arc<Kernel>) -> Arc<Mountable> {
        Arc::new(Mountable {
            devices: devices.clone(),
            single: [
                ("proc", super::proc::root(kernel)),
                ("sysfs", super::sysfs::root(kernel)),
                ("devpts", super::pty::root(&devices.ptys)),
                ("devtmpfs", dev),
            ],
            next_dev: AtomicU32::new(FIRST_DEV),
        })
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

impl FileSystems for Mountable {
    fn make(&self, fstype: &[u8], options: &[u8]) -> Result<Arc<Dentry>> {
        let (name, magic) = match fstype {
            b"tmpfs" => ("tmpfs", TMPFS_MAGIC),
            b"ramfs" => ("ramfs", RAMFS_MAGIC),
            _ => return self.root(fstype),
        };
        let given = Given::parse(options, name == "tmpfs")?;
        let dev = self.next_dev.fetch_add(1, Ordering::Relaxed);
        let perm = given.mode.unwrap_or(if name == "tmpfs" { 0o1777 } else { 0o755 });
        let owner = (given.uid.unwrap_or(0), given.gid.unwrap_or(0));
        let root = Layer::mounted(dev, (name, magic), perm, owner, &self.devices);
        given.limit(&root)?;
        *root.sb.options.lock() = given.shown();
        Ok(root)
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
            let number = |base| u32::from_str_radix(value, base).map_err(|_| Errno::EINVAL);
            match key {
                "mode" => given.mode = Some(number(8)? & 0o7777),
                "uid" => given.uid = Some(number(10)?),
                "gid" => given.gid = Some(number(10)?),
                "size" => given.size = Some(bytes(value)?.div_ceil(4096) * 4),
                "nr_blocks" => given.size = Some(bytes(value)?.saturating_mul(4)),
                "nr_inodes" => given.inodes = Some(bytes(value)?),
                // Pages are never huge, nothing is swapped, inode numbers have 64 bits.
                "huge" | "mpol" | "noswap" | "inode32" | "inode64" => {}
                _ if strict => return Err(Errno::EINVAL),
                _ => {}
            }
        }
        Ok(given)
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
