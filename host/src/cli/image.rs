//! `do --image`: an image of a container as the root, without an engine.
//!
//! An image is an unpacked root directory, an OCI image layout (a directory, or a tar of one), or what `docker save` writes.
//! The latter are unpacked once, into a cache of the caller's own, by the digest of their configuration: that names the digests of
//! the layers, each of which is checked. So what an archive says cannot change what another one's name stands for. Which file has
//! been unpacked where is noted there, too: an archive that has not changed is not read again.
//!
//! | module | what |
//! |---|---|
//! | [`store`] | where the parts are: members of a tar, or files below a directory |
//! | [`manifest`] | which of them make the image |
//! | [`unpack`] | layers onto each other; nothing is written outside |
//! | [`made`] | what one layer has made |
//! | [`remove`] | trees, however deep |
//! | [`user`] | names of users and groups, by the image's own files |

mod made;
mod manifest;
mod remove;
mod store;
mod unpack;
mod user;

use crate::sandbox::container::User;
use crate::sandbox::entries::Names;
use oci_spec::image::ImageConfiguration;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use store::Store;

/// What went wrong, in words.
pub(super) type Result<T> = std::result::Result<T, String>;

/// Says at what something failed.
pub(super) trait At<T> {
    /// The same, with words of what was being done.
    fn at(self, what: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> At<T> for std::result::Result<T, E> {
    fn at(self, what: &str) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Calls `each` for all names in an archive, a layer as a rule, and whether something of the name was there; until it is false.
pub(super) fn names(path: &Path, each: &mut dyn FnMut(&[u8], bool) -> bool) -> Result<()> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = tar::Archive::new(store::plain(file)?);
    let mut names = Names::default();
    for entry in archive.entries().at("no archive")?.raw(true) {
        let mut entry = entry.at("no archive")?;
        let Some(own) = names.take(&mut entry)? else { continue };
        if !each(&own.path, own.changed) {
            break;
        }
    }
    Ok(())
}

/// Where programs are looked for if an image does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image that can be run.
pub(super) struct Image {
    /// Its root directory.
    pub(super) root: PathBuf,
    config: Option<oci_spec::image::Config>,
}

/// What is run of it.
pub(super) struct Program {
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<OsString>,
    pub(super) cwd: PathBuf,
    pub(super) user: Option<User>,
}

impl Image {
    /// Opens what `path` is, unpacking it if that has not been done yet.
    pub(super) fn open(path: &Path) -> Result<Image> {
        Self::found(path).map_err(|error| format!("image {}: {error}", path.display()))
    }

    fn found(path: &Path) -> Result<Image> {
        let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if meta.is_dir() && !path.join("index.json").exists() {
            return Ok(Image { root: path.to_owned(), config: None });
        }
        if !meta.is_dir() && !meta.is_file() {
            return Err("neither a directory nor a file".to_owned());
        }
        let cache = Cache::open()?;
        if meta.is_dir() {
            let place = cache.place(&Store::Dir(path.to_owned()))?;
            return Image::unpacked(&place);
        }
        let file = File::open(path).map_err(|error| error.to_string())?;
        let note = cache.note(&file.metadata().map_err(|error| error.to_string())?);
        if note.join(ROOT).is_dir() {
            return Image::unpacked(&note);
        }
        let place = cache.place(&Store::archive(file, &cache.dir)?)?;
        // Without one it is read again the next time, that is all.
        let _there = place.file_name().map(|name| std::os::unix::fs::symlink(name, &note));
        Image::unpacked(&place)
    }

    /// What has been unpacked to a place in the cache.
    fn unpacked(place: &Path) -> Result<Image> {
        let text = std::fs::read(place.join(CONFIG)).at(&format!("cache {}", place.display()))?;
        let config: ImageConfiguration = serde_json::from_slice(&text).at("its configuration")?;
        let root = place.canonicalize().at(&format!("cache {}", place.display()))?.join(ROOT);
        Ok(Image { root, config: config.config().clone() })
    }

    /// What `command` means in it, as docker has it: it takes the place of Cmd, behind Entrypoint.
    pub(super) fn program(&self, command: Vec<OsString>) -> Result<Program> {
        let empty = oci_spec::image::Config::default();
        let config = self.config.as_ref().unwrap_or(&empty);
        let words = |of: &Option<Vec<String>>| of.iter().flatten().map(OsString::from).collect::<Vec<_>>();
        let mut argv = words(config.entrypoint());
        argv.extend(if command.is_empty() { words(config.cmd()) } else { command });
        if argv.is_empty() {
            return Err("the image names no command: give one".to_owned());
        }
        let mut env = words(config.env());
        let has = |env: &[OsString], name: &str| {
            env.iter().any(|word| word.as_encoded_bytes().strip_prefix(name.as_bytes()).is_some())
        };
        if !has(&env, "PATH=") {
            env.insert(0, PATH.into());
        }
        let asked = config.user().as_deref().filter(|user| !user.is_empty());
        let (user, home) = user::find(&self.root, asked)?;
        if let Some(home) = home.filter(|_| !has(&env, "HOME=")) {
            env.push(format!("HOME={home}").into());
        }
        let cwd = config.working_dir().as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
        Ok(Program { argv, env, cwd: cwd.into(), user })
    }
}

/// What there is of an image in the cache.
const ROOT: &str = "rootfs";
const CONFIG: &str = "config.json";

/// Where images are unpacked.
struct Cache {
    dir: PathBuf,
}

impl Cache {
    fn open() -> Result<Cache> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let dir =
            base.ok_or("neither HOME nor XDG_CACHE_HOME says where to unpack it")?.join("pillbox/images");
        let at = || format!("cache {}", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).at(&at())?;
        let meta = std::fs::symlink_metadata(&dir).at(&at())?;
        // Who else could write to it could put other programs there.
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(format!("{}: not a directory of the caller's own", at()));
        }
        Ok(Cache { dir })
    }

    /// What says to which place a file was unpacked: another file, or a changed one, has another name.
    fn note(&self, of: &Metadata) -> PathBuf {
        let words = [of.dev(), of.ino(), of.len(), of.ctime() as u64, of.ctime_nsec() as u64];
        self.dir.join(words.iter().fold("of".to_owned(), |name, word| format!("{name}-{word}")))
    }

    /// The place of an image, unpacked if it is not there yet. One who was killed at that leaves nothing that counts.
    fn place(&self, store: &Store) -> Result<PathBuf> {
        let parts = manifest::find(store)?;
        let config: ImageConfiguration = serde_json::from_slice(&parts.config).at("its configuration")?;
        let place = self.dir.join(format!("sha256-{}", store::digest(&parts.config)));
        if place.join(ROOT).is_dir() {
            return Ok(place);
        }
        let at = || format!("cache {}", self.dir.display());
        let lock = File::create(self.dir.join(".lock")).at(&at())?;
        flock(&lock, FlockOperation::LockExclusive).at(&at())?;
        if place.join(ROOT).is_dir() {
            return Ok(place);
        }
        let new = self.dir.join("new");
        remove(&new).at(&at())?;
        std::fs::create_dir(&new).at(&at())?;
        let unpacked = unpack::layers(&new.join(ROOT), store, &parts, &config);
        if let Err(error) = unpacked {
            let _left = remove(&new);
            return Err(error);
        }
        std::fs::write(new.join(CONFIG), &parts.config).at(&at())?;
        std::fs::rename(&new, &place).at(&at())?;
        Ok(place)
    }
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match remove::tree(rustix::fs::CWD, dir.as_os_str()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    use rustix::process::{Resource, Rlimit, setrlimit};

    #[test]
    fn deep_trees_are_removed_with_few_descriptors() {
        if !crate::mm::testing::alone("cli::image::tests::deep_trees_are_removed_with_few_descriptors") {
            return;
        }
        let few = Rlimit { current: Some(32), maximum: Some(32) };
        setrlimit(Resource::Nofile, few).unwrap();
        let top = std::env::temp_dir().join(format!("image-deep-{}", std::process::id()));
        std::fs::create_dir(&top).unwrap();
        std::fs::create_dir(top.join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", top.join("outside/link")).unwrap();
        std::fs::create_dir(top.join("new")).unwrap();
        let open = |at: &dyn std::os::fd::AsFd, name: &std::path::Path| {
            openat(at.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .unwrap()
        };
        let mut dir = open(&CWD, &top.join("new"));
        // Longer than any path.
        for _ in 0..5000 {
            for name in ["a", "b", "c"] {
                mkdirat(&dir, name, Mode::RWXU).unwrap();
            }
            rustix::fs::symlinkat(top.join("outside"), &dir, "link").unwrap();
            dir = open(&dir, "b".as_ref());
        }
        super::remove(&top.join("new")).unwrap();
        assert!(!top.join("new").exists() && top.join("outside/link").is_symlink());
        super::remove(&top.join("new")).unwrap();
        std::fs::remove_dir_all(top).unwrap();
    }
}
