//! Fetches what the harnesses need from the distribution, once.
//!
//! apt does the work, with a configuration and package lists of its own below the cache directory: the
//! machine's own lists and sources stay as they are, foreign architectures need no `dpkg
//! --add-architecture`, and only installing the emulator itself needs root. The archive's address is
//! taken from the machine's own sources, so nothing here names one.
//!
//! The cache is `target/nested/` of the workspace, or `$PILLBOX_NESTED_CACHE` where several checkouts
//! share one.

mod apt;
mod bochs;
mod cache;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use apt::Apt;
pub use bochs::Bochs;
pub use cache::{Cache, workspace_root};

use crate::arch::{Arch, Board};

/// Why something could not be had. Each prints as one line that names what is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no apt, or none with a Debian archive in its sources.
    #[error("no Debian package archive to fetch {0} from (this needs apt with a Debian source)")]
    NoArchive(&'static str),
    /// A package manager's command failed.
    #[error("`{command}` failed: {message}")]
    Apt {
        /// The command, as typed.
        command: String,
        /// The last line of what it said.
        message: String,
    },
    /// A program has to be installed, which only root may do.
    #[error("{program} is not installed and this is not root: install the package {package}")]
    NotRoot {
        /// The program that is missing.
        program: &'static str,
        /// The packages that hold it.
        package: String,
    },
    /// A package does not hold what it should.
    #[error("{package} holds no {what}")]
    NotInPackage {
        /// The package looked into.
        package: String,
        /// What it lacks.
        what: &'static str,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        source: std::io::Error,
    },
}

impl Error {
    /// Says which file an I/O error is about.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// A guest kernel and the modules it needs before /dev/kvm appears, in loading order.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The boot image.
    pub image: PathBuf,
    /// The board's description, where the emulator does not make one.
    pub device_tree: Option<PathBuf>,
    /// Files for `finit_module`; the last is KVM's own for the CPUs of one maker.
    pub modules: Vec<PathBuf>,
    /// The same for the drivers of its disk.
    pub disk_modules: Vec<PathBuf>,
}

/// What stands between Debian's cloud kernel and a disk on an IDE controller, in loading order.
const IDE_MODULES: &[&str] = &["scsi_common.ko", "scsi_mod.ko", "libata.ko", "ata_piix.ko", "sd_mod.ko"];

/// Returns the guest kernel for a board: Debian's current one.
pub fn kernel(cache: &Cache, arch: Arch, board: Board) -> Result<Kernel, Error> {
    let (meta, backports) = board.kernel(arch);
    let name = meta.split(':').next().unwrap_or(meta);
    let dir = cache.dir().join(format!("{arch}/{name}"));
    cache.once(&dir, name, |dir| {
        let apt = Apt::new(cache)?;
        let package = apt.dependency(meta, backports)?;
        apt.unpack(&[package], dir)?;
        // arm64 kernels have KVM built in; the rest is hundreds of megabytes.
        let modules = dir.join("lib/modules");
        if arch == Arch::Aarch64 {
            std::fs::remove_dir_all(&modules).map_err(Error::io(&modules))?;
        }
        Ok(())
    })?;
    let lacks = |what| Error::NotInPackage { package: name.to_owned(), what };
    let image = find(&dir.join("boot"), |name| name.starts_with("vmlinuz-"));
    let device_tree = match board {
        Board::Raspi4b => {
            let found = find(&dir.join("usr/lib"), |name| name == "bcm2711-rpi-4-b.dtb");
            Some(found.ok_or_else(|| lacks("bcm2711-rpi-4-b.dtb"))?)
        }
        _ => None,
    };
    let names: &[&str] = match (arch, board) {
        (Arch::X86_64, Board::Intel) => &["irqbypass.ko", "kvm.ko", "kvm-intel.ko"],
        (Arch::X86_64, _) => &["irqbypass.ko", "kvm.ko", "kvm-amd.ko"],
        (Arch::Aarch64, _) => &[],
    };
    let files = |names: &[&str], what| {
        let file = |name: &&str| find(&dir.join("lib/modules"), |n| n == *name).ok_or_else(|| lacks(what));
        names.iter().map(file).collect::<Result<_, _>>()
    };
    let modules = files(names, "KVM module")?;
    let disk_modules = if board.is_bochs() { files(IDE_MODULES, "driver of disks")? } else { Vec::new() };
    Ok(Kernel { image: image.ok_or_else(|| lacks("boot/vmlinuz"))?, device_tree, modules, disk_modules })
}

/// Returns a static busybox for `arch`.
pub fn busybox(cache: &Cache, arch: Arch) -> Result<PathBuf, Error> {
    let dir = cache.dir().join(format!("{arch}/busybox"));
    cache.once(&dir, "busybox", |dir| {
        Apt::new(cache)?.unpack(&[format!("busybox-static:{}", arch.debian())], dir)
    })?;
    Ok(dir.join("bin/busybox"))
}

/// What the big user land of a guest holds beside its dependencies.
const USER_LAND: &[&str] = &[
    "bash",
    "coreutils",
    "curl",
    "dash",
    "diffutils",
    "findutils",
    "git",
    "grep",
    "gzip",
    "iproute2",
    "libpython3-stdlib",
    "luajit",
    "make",
    "mawk",
    "memcached",
    "netcat-openbsd",
    "nginx-light",
    "perl-base",
    "procps",
    "python3-minimal",
    "redis-tools",
    "sed",
    "socat",
    "sqlite3",
    "tar",
    "util-linux",
];

/// Returns a disk image with a Debian user land for `arch`: shells, coreutils, interpreters.
pub fn debian_disk(cache: &Cache, arch: Arch) -> Result<PathBuf, Error> {
    install(cache, "mkfs.ext4", &["e2fsprogs"])?;
    let dir = cache.dir().join(format!("{arch}/debian-with-servers"));
    let image = dir.join("disk");
    cache.once(&dir, "a Debian user land", |dir| {
        let root = dir.join("root");
        std::fs::create_dir_all(&root).map_err(Error::io(&root))?;
        Apt::new(cache)?.unpack_closure(arch, USER_LAND, &root)?;
        // Links that maintainer scripts would have made.
        for (name, target) in [("usr/bin/awk", "mawk"), ("bin/nc", "nc.openbsd")] {
            let link = root.join(name);
            std::os::unix::fs::symlink(target, &link).map_err(Error::io(&link))?;
        }
        // No journal: nothing of it outlives the guest, whose writes go to a snapshot.
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-O", "^has_journal", "-d"]).arg(&root).arg(dir.join("disk")).arg("512M");
        quiet(&mut mkfs)?;
        std::fs::remove_dir_all(&root).map_err(Error::io(&root))
    })?;
    Ok(image)
}

/// Returns gVisor's runsc in the newest version on offer.
pub fn runsc(cache: &Cache) -> Result<PathBuf, Error> {
    let dir = cache.dir().join("runsc");
    cache.once(&dir, "runsc", |dir| {
        let apt = Apt::new(cache)?;
        let newest = apt.version("runsc", |_| true)?;
        let package = newest.map_or_else(|| "runsc".to_owned(), |version| format!("runsc={version}"));
        apt.unpack(&[package], dir)
    })?;
    Ok(dir.join("usr/bin/runsc"))
}

/// Makes sure that the emulator for `arch` is installed.
pub fn qemu(cache: &Cache, arch: Arch) -> Result<(), Error> {
    install(cache, arch.qemu(), &[arch.qemu_package()])
}

/// Installs `packages` unless `program` is already to be found. Newer versions (backports) are preferred.
pub fn install(cache: &Cache, program: &'static str, packages: &[&str]) -> Result<(), Error> {
    if in_path(program) {
        return Ok(());
    }
    let package = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot { program, package });
    }
    eprintln!("setup: installing {package}");
    Apt::new(cache)?.install(packages)
}

/// Whether a program is to be found, with those that only root uses.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    own.into_iter().any(|dir| dir.join(program).is_file())
}

/// Finds a file by name anywhere below `dir`.
fn find(dir: &Path, matches: impl Fn(&str) -> bool + Copy) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    entries.into_iter().find_map(|entry| {
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            find(&path, matches)
        } else {
            matches(entry.file_name().to_str()?).then_some(path)
        }
    })
}

/// Runs a command whose output matters only if it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<String, Error> {
    let shown = format!("{command:?}").replace('"', "");
    let failed = |message: String| Error::Apt { command: shown.clone(), message };
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        return Err(failed(last.unwrap_or("it said nothing").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
