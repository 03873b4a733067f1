//! What `pillbox do` puts into its sandbox besides the root, and who runs there: the options that containers have by their
//! specification.

use crate::sandbox::container::{Container, Mount, Source, User};
use crate::vfs::MountFlags;
use std::path::PathBuf;

/// A directory or file of the host, where it is shown, and what is forbidden there.
type Volume = (PathBuf, String, MountFlags);

// Those options.
#[derive(clap::Args, Default)]
pub(super) struct BoxOptions {
    /// Show a directory or file of the host at another place; changes reach the host unless it is read-only
    #[arg(long, short, value_name = "HOST:INSIDE[:ro]", value_parser = volume)]
    volume: Vec<Volume>,
    /// Let changes below DIR reach the host
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
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
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        // Relative names are the caller's, who may be elsewhere by the time they are opened.
        let absolute = |host: PathBuf| std::path::absolute(&host).unwrap_or(host);
        let volumes = self
            .volume
            .into_iter()
            .map(|(host, place, how)| mount(place, Source::Host(absolute(host)), flags | how));
        let written = self.rw.into_iter().map(absolute).map(|host| Mount {
            place: host.as_os_str().as_encoded_bytes().to_vec(),
            source: Source::Host(host),
            flags,
        });
        let tmpfs =
            self.tmpfs.into_iter().map(|(place, options)| mount(place, Source::Tmpfs(options), flags));
        let hidden = self.hide.into_iter().map(|place| mount(place, Source::Mask, MountFlags::RDONLY));
        Container {
            user: self.user.map(|(uid, gid)| User { uid, gid, ..User::default() }),
            hostname: self.hostname,
            mounts: written.chain(volumes).chain(tmpfs).chain(hidden).collect(),
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

fn volume(text: &str) -> Result<Volume, String> {
    let (rest, how) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, MountFlags::RDONLY),
        None => (text.strip_suffix(":rw").unwrap_or(text), MountFlags::empty()),
    };
    match rest.split_once(':') {
        Some((host, inside)) if !host.is_empty() && !inside.contains(':') => {
            Ok((host.into(), place(inside)?, how))
        }
        _ => Err("expected HOST:INSIDE or HOST:INSIDE:ro".to_owned()),
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
    use super::{MountFlags, tmpfs, user, volume};

    #[test]
    fn volumes_are_absolute_inside() {
        let none = MountFlags::empty();
        assert_eq!(volume("a:/b:ro"), Ok(("a".into(), "/b".to_owned(), MountFlags::RDONLY)));
        assert_eq!(volume("a:/b"), Ok(("a".into(), "/b".to_owned(), none)));
        assert_eq!(volume("a:/b:rw"), Ok(("a".into(), "/b".to_owned(), none)));
        for wrong in ["a:b", "a:/b:z", "a:b:ro", ":/b:ro", "a:ro", "a", ""] {
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
