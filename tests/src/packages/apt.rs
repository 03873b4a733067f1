//! apt with a configuration of its own: bookworm, its backports, both architectures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cache, Error, quiet};

/// The release whose kernels and user land the guests use, whatever the machine itself runs.
const SUITE: &str = "bookworm";
/// The release whose backports hold sources of recent Rust toolchains.
const NEXT_SUITE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A handle on apt whose package lists are up to date.
#[derive(Debug)]
pub struct Apt {
    config: PathBuf,
    archives: PathBuf,
}

impl Apt {
    /// Writes apt's configuration below the cache and fetches the package lists the first time.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        let dir = cache.dir().join("apt");
        let apt = Self { config: dir.join("apt.conf"), archives: dir.join("archives") };
        if apt.config.exists() {
            return Ok(apt);
        }
        for sub in ["lists/partial", "archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(Error::io(&sub))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(Error::io(&path))
        };
        let uri = archive()?;
        let mut sources = String::new();
        for suite in [
            SUITE.to_owned(),
            format!("{SUITE}-updates"),
            format!("{SUITE}-backports"),
            format!("{NEXT_SUITE}-backports"),
        ] {
            sources += &format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
        }
        write("sources.list", sources)?;
        let at = dir.display();
        let config = format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Dir::Etc::preferencesparts \"-\";\nDir::State::lists \"{at}/lists\";\n\
             Dir::Cache::archives \"{at}/archives\";\nDir::Cache::pkgcache \"{at}/pkgcache.bin\";\n\
             Dir::Cache::srcpkgcache \"\";\nAPT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        );
        write("apt.conf.new", config)?;
        eprintln!("setup: fetching package lists (once)");
        let new = dir.join("apt.conf.new");
        quiet(Command::new("apt-get").env("APT_CONFIG", &new).args(["-qq", "update"]))?;
        fs::rename(&new, &apt.config).map_err(Error::io(&new))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Returns the package that the meta package `meta` stands for at the moment: its first dependency.
    pub fn dependency(&self, meta: &str) -> Result<String, Error> {
        let shown = quiet(self.command("apt-cache").args(["depends", "--important", meta]))?;
        let first = shown.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let name =
            first.ok_or_else(|| Error::NotInPackage { package: meta.to_owned(), what: "dependency" })?;
        let arch = meta.split_once(':').map_or("", |(_, arch)| arch);
        Ok(match name.contains(':') {
            true => name.to_owned(),
            false => format!("{name}:{arch}"),
        })
    }

    /// Downloads packages (`name`, `name:arch`, `name=version`) and unpacks them into `dir`, without
    /// their dependencies and without installing them.
    pub fn unpack(&self, packages: &[String], dir: &Path) -> Result<(), Error> {
        let work = self.archives.join(format!("unpack-{}", std::process::id()));
        fs::create_dir_all(&work).map_err(Error::io(&work))?;
        let download = self
            .command("apt-get")
            .args(["-qq", "download"])
            .args(packages)
            .current_dir(&work)
            .output()
            .map_err(Error::io(Path::new("apt-get")));
        let result = download.and_then(|output| {
            if !output.status.success() {
                return Err(Error::Apt {
                    command: format!("apt-get download {}", packages.join(" ")),
                    message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                });
            }
            for entry in fs::read_dir(&work).map_err(Error::io(&work))?.flatten() {
                quiet(Command::new("dpkg").arg("-x").arg(entry.path()).arg(dir))?;
            }
            Ok(())
        });
        fs::remove_dir_all(&work).map_err(Error::io(&work))?;
        result
    }

    /// Installs packages with their dependencies on this machine, preferring backports.
    pub fn install(&self, packages: &[&str]) -> Result<(), Error> {
        let install = |target: &[&str]| {
            let mut command = self.command("apt-get");
            command.args(["-qq", "-y", "--no-install-recommends"]);
            quiet(command.args(target).arg("install").args(packages))
        };
        // Backports of another release would not fit; a machine that runs one has new packages anyway.
        let backports = format!("{SUITE}-backports");
        let result = match own_suite().as_deref() {
            Some(SUITE) => install(&["-t", &backports]),
            _ => quiet(
                Command::new("apt-get")
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    .args(["-qq", "-y", "--no-install-recommends", "install"])
                    .args(packages),
            ),
        };
        result.map(drop)
    }

    /// Returns the first version of `package` on offer for which `fits` holds.
    pub fn version(&self, package: &str, fits: impl Fn(&str) -> bool) -> Result<Option<String>, Error> {
        let shown = quiet(self.command("apt-cache").args(["madison", package]))?;
        let versions = shown.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|v| v.trim().to_owned()).find(|v| fits(v)))
    }
}

/// The machine's own Debian release, if it is one.
fn own_suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix("VERSION_CODENAME=")?.to_owned()))
}

/// The address of the Debian archive that the machine itself uses.
fn archive() -> Result<String, Error> {
    let own = own_suite().ok_or(Error::NoArchive("packages"))?;
    let listed = quiet(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Identifier: Packages",
    ]))
    .map_err(|_| Error::NoArchive("packages"))?;
    let mut lines = listed.lines();
    lines
        .find_map(|line| {
            let (uri, release) = line.split_once(' ')?;
            (release == own).then(|| uri.to_owned())
        })
        .ok_or(Error::NoArchive("packages"))
}
