//! What this process keeps to itself, and with it everything that it starts: no core files, whatever the caller's limits
//! are; no look into it by others of its user; no signal for a file that gets too long; and a working directory in which
//! there is nothing, and nothing can be made, so that no relative name ever leads to a file of the host. And when the host is
//! out of memory it is to end us before anybody else: it is our programs that have it.

use crate::abi::Result;
use crate::hostsys::{identity, process, told};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// From now on. Before anything is started; relative names of the caller's mean nothing afterwards.
pub(super) fn begin() {
    let _core = identity::set_limit(libc::RLIMIT_CORE, (0, 0));
    if let Some((_, hard)) = identity::limit(libc::RLIMIT_FSIZE) {
        // Programs have a limit of their own; this one would be about our memory files.
        let _length = identity::set_limit(libc::RLIMIT_FSIZE, (hard, hard));
    }
    process::ignore(libc::SIGXFSZ);
    // Without /proc nobody can be asked to.
    let _asked = told::set("/proc/self/oom_score_adj", "1000");
    let places = [std::env::temp_dir(), "/dev/shm".into(), "/var/tmp".into()];
    if !places.iter().any(|place| enter_nowhere(place).is_ok()) {
        let _root = std::env::set_current_dir("/");
    }
    process::hide();
}

/// Makes a directory, enters it and removes it.
fn enter_nowhere(place: &Path) -> Result<()> {
    let name: PathBuf = place.join(format!("pillbox-{}-{:x}", process::id(), crate::time::monotonic_ns()));
    std::fs::DirBuilder::new().mode(0o700).create(&name)?;
    let entered = std::env::set_current_dir(&name);
    std::fs::remove_dir(&name)?;
    Ok(entered?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_can_be_made_nowhere() {
        // In a child: the working directory is the whole process's.
        let child = std::process::Command::new("/proc/self/exe")
            .args(["--exact", "sandbox::reticence::tests::role", "--nocapture"])
            .env("PILLBOX_TEST_ROLE", "1")
            .output()
            .expect("this program again");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }

    #[test]
    fn role() {
        if std::env::var_os("PILLBOX_TEST_ROLE").is_none() {
            return;
        }
        super::begin();
        assert!(std::fs::write("core", "no").is_err());
        assert!(std::fs::read_dir(".").expect("a directory").next().is_none());
        let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core")).expect("the limit");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        let dumpable = std::fs::metadata("/proc/self/environ").expect("proc");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&dumpable), 0);
    }
}
