//! apt with a configuration of its own: bookworm, its backports, both architectures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cache, Error, quiet};
use crate::arch::Arch;

/// The release whose kernels and user land the guests use, whatever the machine itself runs.
const SUITE: &str = "bookworm";
/// The release whose backports hold sources of recent Rust toolchains, and which has a Bochs that hides nothing of its CPUs.
const NEXT_SUITE: &str = "trixie";
/// Servers are installed to be run by tests, not by the machine (systemctl(1), environment; invoke-rc.d(8)).
const NO_SERVICES: [(&str, &str); 2] = [("SYSTEMD_OFFLINE", "1"), ("RUNLEVEL", "1")];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A handle on apt whose package lists are up to date.
#[derive(Debug)]
pub struct Apt {
    config: PathBuf,
    archives: PathBuf,
}

impl Apt {
    /// The release of the guests, with backports. Its package lists are fetched the first time.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        let suites = [
            SUITE.to_owned(),
            format!("{SUITE}-updates"),
            format!("{SUITE}-backports"),
            format!("{NEXT_SUITE}-backports"),
        ];
        Self::with(&cache.dir().join("apt"), &suites)
    }

    /// The release behind it, for programs that are unpacked whole and installed nowhere.
    pub fn next(cache: &Cache) -> Result<Self, Error> {
        Self::with(&cache.dir().join("apt-next"), &[NEXT_SUITE.to_owned()])
    }

    /// Writes apt's configuration into `dir` and fetches the package lists, unless that has been done.
    fn with(dir: &Path, suites: &[String]) -> Result<Self, Error> {
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
        for suite in suites {
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
    pub fn dependency(&self, meta: &str, backports: bool) -> Result<String, Error> {
        let release = if backports { format!("{SUITE}-backports") } else { SUITE.to_owned() };
        let mut command = self.command("apt-cache");
        command.arg("-o").arg(format!("APT::Default-Release={release}"));
        let shown = quiet(command.args(["depends", "--important", meta]))?;
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
        let work = WorkDir::new(&self.archives)?;
        let mut download = self.command("apt-get");
        quiet(download.args(["-qq", "download"]).args(packages).current_dir(&work.0))?;
        work.unpack(dir)
    }

    /// The same with everything that the packages depend on, as if for an empty machine of `arch`.
    pub fn unpack_closure(&self, arch: Arch, packages: &[&str], dir: &Path) -> Result<(), Error> {
        let work = WorkDir::new(&self.archives)?;
        let empty = work.0.join("status");
        fs::write(&empty, "").map_err(Error::io(&empty))?;
        let partial = work.0.join("partial");
        fs::create_dir(&partial).map_err(Error::io(&partial))?;
        let mut download = self.command("apt-get");
        download.args(["-qq", "-y", "--no-install-recommends", "--download-only"]);
        for (name, value) in [
            ("APT::Architecture", arch.debian().to_owned()),
            ("Dir::State::status", empty.display().to_string()),
            ("Dir::Cache::archives", work.0.display().to_string()),
            ("Debug::NoLocking", "1".to_owned()),
        ] {
            download.arg("-o").arg(format!("{name}={value}"));
        }
        quiet(download.arg("install").args(packages))?;
        work.unpack(dir)
    }

    /// Installs packages with their dependencies on this machine, preferring backports.
    pub fn install(&self, packages: &[&str]) -> Result<(), Error> {
        let install = |target: &[&str]| {
            let mut command = self.command("apt-get");
            command.args(["-qq", "-y", "--no-install-recommends"]).envs(NO_SERVICES);
            quiet(command.args(target).arg("install").args(packages))
        };
        // Backports of another release would not fit; a machine that runs one has new packages anyway.
        let backports = format!("{SUITE}-backports");
        let result = match own_suite().as_deref() {
            Some(SUITE) => install(&["-t", &backports]),
            _ => quiet(
                Command::new("apt-get")
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    .envs(NO_SERVICES)
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

/// A directory for packages on their way; gone when dropped.
struct WorkDir(PathBuf);

impl WorkDir {
    fn new(archives: &Path) -> Result<Self, Error> {
        let dir = archives.join(format!("unpack-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Self(dir))
    }

    fn unpack(&self, into: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(&self.0).map_err(Error::io(&self.0))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                quiet(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
            }
        }
        Ok(())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
