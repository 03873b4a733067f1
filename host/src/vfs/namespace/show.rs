//! /proc/PID/mounts and mountinfo.

use super::{Mount, MountFlags, Namespace, Path};
use crate::vfs::anon::AnonInode;
use crate::vfs::mount::absolute;
use crate::vfs::stat;

impl Namespace {
    /// The text of /proc/mounts or /proc/PID/mountinfo as seen from `root`, and with the control group of that name as the root of
    /// all.
    pub fn show(&self, root: &Path, info: bool, groups: &[u8]) -> Vec<u8> {
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
                let mut top = mount.shown_root();
                if fstype == "cgroup2" {
                    top = relative(&top, groups);
                }
                let (id, peers, top) = (mount.id, peers(&mount), escape(&top));
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

/// The name of a control group, seen from another (cgroup_namespaces(7)).
pub fn relative(group: &[u8], root: &[u8]) -> Vec<u8> {
    fn parts(path: &[u8]) -> Vec<&[u8]> {
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect()
    }
    let (group, root) = (parts(group), parts(root));
    let common = group.iter().zip(&root).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n(&b".."[..], root.len() - common);
    let shown: Vec<u8> =
        up.chain(group[common..].iter().copied()).flat_map(|part| [b"/", part].concat()).collect();
    if shown.is_empty() { b"/".to_vec() } else { shown }
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

impl Mount {
    /// Which directory of its file system it shows.
    pub fn shown_root(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = self.root.clone();
        while let (Some(parent), name) = at.place() {
            parts.push(name);
            at = parent;
        }
        let mut text = absolute(&parts);
        if AnonInode::is_bindable(&self.root) {
            // Such a file system has no directories: its files say what they are.
            text = self.root.name().to_vec();
        }
        if self.root.is_dead() {
            text.extend_from_slice(b"//deleted");
        }
        text
    }
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

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn groups_are_seen_from_others() {
        for (group, root, shown) in [
            ("/", "/", "/"),
            ("/a/b", "/", "/a/b"),
            ("/a/b", "/a", "/b"),
            ("/a", "/a", "/"),
            ("/", "/a/b", "/../.."),
            ("/c/d", "/a/b", "/../../c/d"),
            ("/ab", "/a", "/../ab"),
        ] {
            assert_eq!(relative(group.as_bytes(), root.as_bytes()), shown.as_bytes(), "{group} from {root}");
        }
    }
}
