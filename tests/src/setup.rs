//! Everything that a fresh machine lacks, done once; each step says what it does in one line and costs
//! nothing when it is done already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arch::{Arch, Board};
use crate::packages::{self, Apt, Cache, Error};

/// The targets other than the machine's own that the workspace is built for.
const TARGETS: &[&str] =
    &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-unknown-none", "aarch64-unknown-none"];

/// Names an archive with std's sources, for when neither rustup nor the distribution has them.
const LIBRARY_VARIABLE: &str = "PILLBOX_RUST_LIBRARY";

/// Does whatever is left to do for building and testing for both architectures.
pub fn everything(cache: &Cache) -> Result<(), Error> {
    linker(cache)?;
    optional(cache);
    cross_std(cache)?;
    for arch in Arch::ALL {
        packages::qemu(cache, arch)?;
        packages::kernel(cache, arch, Board::Usual)?;
        packages::busybox(cache, arch)?;
    }
    // Only the Intel PC needs it, and says so.
    if let Err(error) = packages::Bochs::get(cache) {
        eprintln!("setup: no Bochs: {error}");
    }
    Ok(())
}

/// Installs the C toolchain that links programs for the other architecture.
pub fn linker(cache: &Cache) -> Result<(), Error> {
    // The compiler alone lacks libc's objects: install both, whichever is missing.
    let (program, package, libc) = match Arch::HOST {
        Arch::X86_64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
        Arch::Aarch64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
    };
    packages::install(cache, program, &[package, libc])
}

/// What the suite runs if it is there: programs, and the packages that each comes with.
const OPTIONAL: &[(&str, &[&str])] = &[
    // A compiler with sanitizers besides gcc's; debuggers; container engines.
    ("clang", &["clang", "libclang-rt-14-dev"]),
    ("strace", &["strace"]),
    ("gdb", &["gdb"]),
    ("podman", &["podman", "crun", "conmon"]),
    ("dockerd", &["docker.io", "containerd", "runc"]),
    // Real programs.
    ("pgbench", &["postgresql"]),
    ("nginx", &["nginx-light"]),
    ("curl", &["curl"]),
    ("redis-cli", &["redis-tools"]),
    ("memcached", &["memcached"]),
    ("mariadbd", &["mariadb-server-core", "mariadb-client-core"]),
    ("sqlite3", &["sqlite3"]),
    ("node", &["nodejs"]),
    ("go", &["golang-go"]),
    ("javac", &["openjdk-17-jdk-headless"]),
    ("tmux", &["tmux"]),
    ("screen", &["screen"]),
    ("bwrap", &["bubblewrap"]),
    ("socat", &["socat"]),
    ("nc", &["netcat-openbsd"]),
    ("iperf3", &["iperf3"]),
    ("sshd", &["openssh-server", "openssh-client"]),
    ("rsync", &["rsync"]),
    ("Xvfb", &["xvfb"]),
    ("xev", &["x11-utils"]),
];

/// Installs it. What there is none of the suite leaves out, and says so.
fn optional(cache: &Cache) {
    for (name, all) in OPTIONAL {
        if let Err(error) = packages::install(cache, name, all) {
            eprintln!("setup: no {name}: {error}");
        }
    }
}

/// Makes `cargo build --target` work for every target of the workspace.
pub fn cross_std(cache: &Cache) -> Result<(), Error> {
    let sysroot = Sysroot::find()?;
    let missing = sysroot.missing();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("setup: adding Rust's standard library for {}", missing.join(", "));
    let rustup = Command::new("rustup").args(["target", "add"]).args(&missing).stdin(Stdio::null()).output();
    if rustup.is_ok_and(|output| output.status.success()) && sysroot.missing().is_empty() {
        return Ok(());
    }
    build_std(cache, &sysroot)
}

/// Builds std from the distribution's sources of exactly this compiler, and installs it in the sysroot.
///
/// Cargo can build std with every project (`-Zbuild-std`), but reads the wish for it from its own
/// environment only: a plain `cargo run --target` would not. Installed libraries work for all commands.
pub fn build_std(cache: &Cache, sysroot: &Sysroot) -> Result<(), Error> {
    let version = &sysroot.version;
    let work = cache.dir().join("std");
    let library = sysroot.dir.join("src/rust/library");
    if !library.join("Cargo.toml").exists() {
        eprintln!("setup: fetching the sources of std {version}");
        fetch_library(cache, version, &work, &library)?;
    }
    eprintln!("setup: building std (a few minutes, once)");
    let project = work.join("project");
    let source = project.join("src");
    fs::create_dir_all(&source).map_err(Error::io(&source))?;
    // A project of its own, so that no setting of this workspace applies.
    let manifest = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
                    [profile.release]\ndebug = \"line-tables-only\"\n";
    for (name, text) in [("Cargo.toml", manifest), ("src/lib.rs", "#![no_std]\n")] {
        let path = project.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    for target in sysroot.missing() {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&project)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", project.join("target"))
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "x86_64-linux-gnu-gcc")
            .env_remove("RUSTFLAGS")
            .args(["build", "-q", "--release", "--target", target]);
        if target.ends_with("-none") {
            cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"]);
        } else {
            cargo.arg("-Zbuild-std=std,panic_abort,panic_unwind,test");
        }
        packages::quiet(&mut cargo)?;
        let built = project.join("target").join(target).join("release/deps");
        sysroot.install(target, &built)?;
    }
    fs::remove_dir_all(&project).map_err(Error::io(&project))
}

fn fetch_library(cache: &Cache, version: &str, work: &Path, to: &Path) -> Result<(), Error> {
    let unpacked = work.join("source");
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked).map_err(Error::io(&unpacked))?;
    let from = match from_distribution(cache, version, &unpacked) {
        Ok(path) => path,
        Err(error) => {
            let archive = std::env::var_os(LIBRARY_VARIABLE).ok_or(error)?;
            let mut tar = Command::new("tar");
            packages::quiet(tar.arg("-C").arg(&unpacked).arg("-xf").arg(&archive))?;
            unpacked.join("library")
        }
    };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    packages::quiet(Command::new("cp").arg("-a").arg(&from).arg(to))?;
    fs::remove_dir_all(&unpacked).map_err(Error::io(&unpacked))
}

fn from_distribution(cache: &Cache, version: &str, to: &Path) -> Result<PathBuf, Error> {
    let apt = Apt::new(cache)?;
    let exact = |offered: &str| {
        let upstream = offered.split(['+', '-', '~']).next();
        upstream == Some(version)
    };
    let offered = apt.version("rust-src", exact)?;
    let offered = offered.ok_or_else(|| Error::NotInPackage {
        package: "rust-src".to_owned(),
        what: "sources of this compiler's version",
    })?;
    apt.unpack(&[format!("rust-src={offered}")], to)?;
    Ok(to.join(format!("usr/src/rustc-{version}/library")))
}

/// Where the compiler keeps the libraries of its targets.
#[derive(Debug)]
pub struct Sysroot {
    dir: PathBuf,
    version: String,
}

impl Sysroot {
    /// Asks the compiler.
    pub fn find() -> Result<Self, Error> {
        let ask = |arguments: &[&str]| {
            let said = packages::quiet(Command::new("rustc").args(arguments))?;
            Ok::<_, Error>(said.trim().to_owned())
        };
        let dir = PathBuf::from(ask(&["--print", "sysroot"])?).join("lib/rustlib");
        let version = ask(&["--version"])?;
        let version = version.split(' ').nth(1).unwrap_or("unknown").to_owned();
        Ok(Self { dir, version })
    }

    fn missing(&self) -> Vec<&'static str> {
        let has = |target: &str| {
            let entries = fs::read_dir(self.dir.join(target).join("lib"));
            entries.is_ok_and(|entries| {
                let names = entries.flatten().map(|entry| entry.file_name());
                let mut names = names.filter_map(|name| name.into_string().ok());
                names.any(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
            })
        };
        TARGETS.iter().copied().filter(|target| !has(target)).collect()
    }

    fn install(&self, target: &str, built: &Path) -> Result<(), Error> {
        let lib = self.dir.join(target).join("lib");
        // libcore comes last: its presence says that the rest is there.
        fs::create_dir_all(&lib).map_err(Error::io(&lib))?;
        let entries = fs::read_dir(built).map_err(Error::io(built))?;
        let mut libraries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        libraries.retain(|path| path.extension().is_some_and(|extension| extension == "rlib"));
        libraries.sort_by_key(|path| path.to_string_lossy().contains("/libcore-"));
        for library in libraries {
            let name = library.file_name().unwrap_or_default();
            if !name.to_string_lossy().starts_with("libempty-") {
                fs::copy(&library, lib.join(name)).map_err(Error::io(&library))?;
            }
        }
        Ok(())
    }
}
