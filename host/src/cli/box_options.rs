//! What `pillbox do` puts into its sandbox besides the root, and who runs there: the options that containers have by their
//! specification.

use crate::sandbox::container::{Container, Mount, Source, User};
use crate::vfs::MountFlags;
use std::path::PathBuf;

/// Those options.
#[derive(clap::Args, Default)]
pub(super) struct BoxOptions {
    /// Show a directory or file of the host at another place, read-only
    #[arg(long, short, value_name = "HOST:INSIDE:ro", value_parser = volume)]
    volume: Vec<(PathBuf, String)>,
    /// An empty directory in memory, which may hold as much as there is memory or SIZE (bytes; K, M, G)
    #[arg(long, value_name = "DIR[:SIZE]", value_parser = tmpfs)]
    tmpfs: Vec<(String, String)>,
    /// Show nothing at PATH
    #[arg(long, value_name = "PATH", value_parser = place)]
    hide: Vec<String>,
    /// Run the command as another user: numbers
    #[arg(long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<(u32, u32)>,
    /// Host name inside [default: the host's]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
}

impl BoxOptions {
    /// As a sandbox is told.
    pub(super) fn container(self) -> Container {
        let mount = |place: String, source, flags| Mount { place: place.into_bytes(), source, flags };
        let volumes = self.volume.into_iter().map(|(host, place)| {
            // Relative names are the caller's, who may be elsewhere by the time it is opened.
            let host = std::path::absolute(&host).unwrap_or(host);
            mount(place, Source::Host(host), MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)
        });
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let tmpfs =
            self.tmpfs.into_iter().map(|(place, options)| mount(place, Source::Tmpfs(options), flags));
        let hidden = self.hide.into_iter().map(|place| mount(place, Source::Mask, MountFlags::RDONLY));
        Container {
            user: self.user.map(|(uid, gid)| User { uid, gid, ..User::default() }),
            hostname: self.hostname,
            mounts: volumes.chain(tmpfs).chain(hidden).collect(),
            ..Container::default()
        }
    }
}

fn place(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("expected an absolute path".to_owned()) }
}

/// A place, and the options of tmpfs(5).
fn tmpfs(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once(':') {
        Some((at, size)) => {
            let bytes = crate::sandbox::parse_bytes(size)?;
            Ok((place(at)?, format!("size={bytes}")))
        }
        None => Ok((place(text)?, String::new())),
    }
}

fn volume(text: &str) -> Result<(PathBuf, String), String> {
    let Some(rest) = text.strip_suffix(":ro") else {
        return Err("expected HOST:INSIDE:ro; what is written cannot reach the host yet".to_owned());
    };
    let (host, inside) = rest.split_once(':').ok_or("expected HOST:INSIDE:ro")?;
    if host.is_empty() {
        Err("expected HOST:INSIDE:ro".to_owned())
    } else {
        Ok((host.into(), place(inside)?))
    }
}

fn user(text: &str) -> Result<(u32, u32), String> {
    let number = |word: &str| word.parse().map_err(|_| "expected numbers, UID[:GID]".to_owned());
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, number(gid)?)),
        None => number(text).map(|uid| (uid, uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::{tmpfs, user, volume};

    #[test]
    fn volumes_are_read_only_and_absolute_inside() {
        assert_eq!(volume("a:/b:ro"), Ok(("a".into(), "/b".to_owned())));
        for wrong in ["a:/b", "a:/b:rw", "a:b:ro", ":/b:ro", "a:ro", ""] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn file_systems_in_memory_may_have_a_size() {
        assert_eq!(tmpfs("/t"), Ok(("/t".to_owned(), String::new())));
        assert_eq!(tmpfs("/t:4K"), Ok(("/t".to_owned(), "size=4096".to_owned())));
        for wrong in ["t", "t:4K", "/t:", "/t:x"] {
            assert!(tmpfs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!((user("5"), user("5:6")), (Ok((5, 5)), Ok((5, 6))));
        assert!(user("root").is_err() && user("5:").is_err());
    }
}
