//! The cache directory, and the rule that a thing in it is either whole or absent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Error;

/// The root of this workspace.
pub fn workspace_root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Where fetched and built things are kept between runs.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache, creating its directory.
    pub fn open() -> Result<Self, Error> {
        let dir = match std::env::var_os("PILLBOX_NESTED_CACHE") {
            Some(dir) => PathBuf::from(dir),
            None => workspace_root().join("target/nested"),
        };
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let dir = fs::canonicalize(&dir).map_err(Error::io(&dir))?;
        Ok(Self { dir })
    }

    /// The cache's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory `target` by `make` unless it exists. One process at a time makes things; a
    /// directory gets its name only when it is complete.
    pub fn once(
        &self,
        target: &Path,
        what: &str,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if target.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        if target.exists() {
            return Ok(());
        }
        eprintln!("setup: fetching {what} (once)");
        let unfinished = target.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io(&unfinished))?;
        }
        fs::create_dir_all(&unfinished).map_err(Error::io(&unfinished))?;
        make(&unfinished)?;
        fs::rename(&unfinished, target).map_err(Error::io(target))
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        file.lock().map_err(Error::io(&path))?;
        Ok(file)
    }
}
