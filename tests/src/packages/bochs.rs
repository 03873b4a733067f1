//! Bochs, its firmware, and what makes a CD that it boots: unpacked into a directory of the cache and run from there.
//!
//! They come from a newer release than the machine may have (bookworm's Bochs hides XSAVE and AVX from its guests), so
//! nothing of them is installed: every program runs by the dynamic linker and with the libraries of its own release.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Apt, Cache, Error};
use crate::arch::Arch;

/// The emulator with its only display that needs no window, the firmware, and the terminal description that it asks for.
const PACKAGES: &[&str] =
    &["bochs", "bochs-term", "bochsbios", "vgabios", "ncurses-base", "grub-common", "xorriso"];
/// Code of a PC, as data: GRUB's modules.
const FOREIGN: &str = "grub-pc-bin:amd64";
/// What of the packages' data is used.
const SHARED: &[&str] = &["bochs", "terminfo", "vgabios"];

/// An unpacked Bochs.
#[derive(Clone, Debug)]
pub struct Bochs {
    root: PathBuf,
}

impl Bochs {
    /// Fetches it the first time.
    pub fn get(cache: &Cache) -> Result<Self, Error> {
        let root = cache.dir().join("bochs");
        cache.once(&root, "Bochs, GRUB and xorriso", |root| {
            let apt = Apt::next(cache)?;
            apt.unpack_closure(Arch::HOST, PACKAGES, root)?;
            apt.unpack(&[FOREIGN.to_owned()], root)?;
            let shared = root.join("usr/share");
            for entry in std::fs::read_dir(&shared).map_err(Error::io(&shared))?.flatten() {
                let kept = entry.file_name().to_str().is_some_and(|name| SHARED.contains(&name));
                if !kept && entry.path().is_dir() {
                    std::fs::remove_dir_all(entry.path()).map_err(Error::io(&entry.path()))?;
                }
            }
            Ok(())
        })?;
        Ok(Self { root })
    }

    /// A file of the packages.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The command line that runs a program of the packages.
    pub fn words(&self, program: &str) -> Vec<PathBuf> {
        let libraries = self.root.join("usr/lib").join(Arch::HOST.multiarch());
        let program = self.root.join("usr/bin").join(program);
        vec![self.root.join(Arch::HOST.loader()), "--library-path".into(), libraries, program]
    }

    /// The same as a command.
    pub fn command(&self, program: &str) -> Command {
        let words = self.words(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Where the emulator finds its parts: its environment.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        let plugins = format!("usr/lib/{}/bochs/plugins", Arch::HOST.multiarch());
        [
            ("LTDL_LIBRARY_PATH", self.file(&plugins)),
            ("BXSHARE", self.file("usr/share/bochs")),
            ("TERMINFO", self.file("usr/share/terminfo")),
        ]
    }

    /// Makes a CD that boots `kernel` with `initramfs` and this command line; `work` is a directory for what is on it.
    pub fn make_cd(
        &self,
        work: &Path,
        kernel: &Path,
        initramfs: &Path,
        append: &str,
        cd: &Path,
    ) -> Result<(), Error> {
        let config = work.join("grub.cfg");
        let text = format!("linux /kernel {append}\ninitrd /initramfs\nboot\n");
        std::fs::write(&config, text).map_err(Error::io(&config))?;
        let core = work.join("core.img");
        let mut image = self.command("grub-mkimage");
        image.args(["-O", "i386-pc-eltorito", "-p", "/", "-d"]).arg(self.file("usr/lib/grub/i386-pc"));
        image.arg("-c").arg(&config).arg("-o").arg(&core).args(["biosdisk", "iso9660", "linux"]);
        super::quiet(&mut image)?;
        let mut iso = self.command("xorriso");
        iso.args(["-as", "mkisofs", "-quiet", "-graft-points", "-o"]).arg(cd);
        iso.args(["-b", "core.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
        for (name, file) in [("core.img", core.as_path()), ("kernel", kernel), ("initramfs", initramfs)] {
            iso.arg(format!("/{name}={}", file.display()));
        }
        super::quiet(&mut iso).map(drop)
    }
}
