//! What `pillbox do` keeps from programs unless it is told not to: the caller's keys and histories. A program that is tried
//! out needs none of them, and what it reads it could send away.

use crate::sandbox::container::{Mount, Source};
use crate::vfs::MountFlags;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Below the caller's home directory.
const SECRETS: [&str; 12] = [
    ".ssh",
    ".aws",
    ".gnupg",
    ".config/gcloud",
    ".kube",
    ".docker/config.json",
    ".netrc",
    ".bash_history",
    ".zsh_history",
    ".sh_history",
    ".python_history",
    ".local/share/fish/fish_history",
];

/// Hides them, where they are.
pub(super) fn hide(home: &Path) -> impl Iterator<Item = Mount> {
    let home = home.is_absolute().then(|| home.to_owned());
    home.into_iter().flat_map(|home| SECRETS.map(|name| home.join(name))).map(|path| Mount {
        place: path.into_os_string().into_vec(),
        source: Source::Mask,
        flags: MountFlags::RDONLY,
    })
}

#[cfg(test)]
mod tests {
    use super::{SECRETS, hide};
    use std::path::Path;

    #[test]
    fn secrets_are_below_the_home_directory_if_there_is_one() {
        let all: Vec<_> = hide(Path::new("/home/me")).map(|mount| mount.place).collect();
        assert_eq!((all.len(), &*all[0]), (SECRETS.len(), &b"/home/me/.ssh"[..]));
        assert_eq!(hide(Path::new("")).count() + hide(Path::new("me")).count(), 0);
    }
}
