//! /proc/PID/mounts and mountinfo.

use super::{Mount, MountFlags, Namespace, Path};
use crate::vfs::mount::absolute;
use crate::vfs::stat;
use std::sync::Arc;

impl Namespace {
    /// The text of /proc/mounts or /proc/PID/mountinfo as seen from `root`.
    pub fn show(&self, root: &Path, info: bool) -> Vec<u8> {
        let mut text = Vec::new();
        for mount in self.mounts() {
            let here = Path { mount: mount.clone(), dentry: mount.root.clone() };
            let (reached, at) = here.display_from(root);
            if !reached {
                continue;
            }
            let (at, sb) = (escape(&at), &mount.root.sb);
            let own = options(mount.flags());
            let (fstype, source) = (sb.fstype, escape(mount.source.as_bytes()));
            let (read_only, extra) = (sb.is_read_only(), sb.options.lock().clone());
            let shared = format!("{}{extra}", if read_only { "ro" } else { "rw" });
            let line = if info {
                let parent = mount.place().map_or(mount.id, |place| place.mount.id);
                let (major, minor) = (stat::major(sb.dev), stat::minor(sb.dev));
                let (id, peers, top) = (mount.id, peers(&mount), escape(&top(&mount)));
                format!(
                    "{id} {parent} {major}:{minor} {top} {at} {own}{peers} - {fstype} {source} {shared}\n"
                )
            } else {
                // A mount may be more restricted than the file system, not less.
                let own = if read_only { own.replacen("rw", "ro", 1) } else { own };
                format!("{source} {at} {fstype} {own}{extra} 0 0\n")
            };
            text.extend_from_slice(line.as_bytes());
        }
        text
    }
}

/// What a mount forbids, in words.
fn options(flags: MountFlags) -> String {
    let mut options = String::from(if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
    ] {
        if flags.contains(flag) {
            options.push_str(name);
        }
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        options.push_str(",relatime");
    }
    if flags.contains(MountFlags::NOSYMFOLLOW) {
        options.push_str(",nosymfollow");
    }
    options
}

/// The optional fields of mountinfo.
fn peers(mount: &Mount) -> String {
    let sharing = mount.sharing();
    let mut text = String::new();
    if sharing.group != 0 {
        text.push_str(&format!(" shared:{}", sharing.group));
    }
    if sharing.master != 0 {
        text.push_str(&format!(" master:{}", sharing.master));
    }
    if sharing.unbindable {
        text.push_str(" unbindable");
    }
    text
}

/// Which directory of its file system a mount shows.
fn top(mount: &Arc<Mount>) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut at = mount.root.clone();
    while let (Some(parent), name) = at.place() {
        parts.push(name);
        at = parent;
    }
    let mut text = absolute(&parts);
    if mount.root.is_dead() {
        text.extend_from_slice(b"//deleted");
    }
    text
}

/// Spaces and the like in octal, as in /proc/mounts.
fn escape(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push(byte as char),
        }
    }
    text
}
