//! The jail: what the process that is the sandbox's kernel can do to its host, should a program take it over. As little as
//! it needs: files below the root directory can be read, and [`table`] has the host calls that are left.
//!
//! | step | when | why then |
//! |---|---|---|
//! | inherited descriptors are closed | first | nothing of ours is open yet |
//! | no new privileges | before the first thread | threads and stubs inherit it; filters and Landlock need it |
//! | mount, ipc and uts namespaces | before the first thread | as above |
//! | a copy of the mounts, read-only as a rule, is the root ([`root`]) | begun before the platform is started, waited for when the root is opened | it is made meanwhile |
//! | the environment is emptied | when it has been read: the program's, and where caches lie | nothing else has to know it |
//! | the working directory, in which nothing is or can be made, becomes the root directory | when what is below the old one has been opened | /dev/kvm, /proc |
//! | capabilities are dropped, bounding set included | when all that needs them is done | stubs' roots, the one before this |
//! | Landlock, where the host has it | then | all files that are still to be opened are below the root |
//! | host calls are filtered, in all threads | last, before the first instruction of a program | what came before needs more of them |
//!
//! Stubs of the systrap platform are made by a process that is older than the filter and has one of its own
//! (`platform/systrap/zygote.rs`). What waits for their end is an older thread, too: without capabilities and under the
//! filter, but not under Landlock, which is a thread's.
//!
//! Callers without CAP_SYS_ADMIN and CAP_SYS_CHROOT have neither namespaces nor another root: there `..` of a held
//! directory leads to what the caller can read. What is missing is told by `pillbox doctor` and the debug log.
//!
//! A sandbox that other containers may come into ([`super::pod`]) gets directories when it is closed already. Somebody outside
//! opens them, always in copies of the mounts, which `..` does not lead out of and through which no device is opened. So the
//! copies alone keep what is opened below a directory that was given, and Landlock keeps the rest: ports, other processes.
//!
//! What is kept: one capability where the caller is root, to read what root could read; the caller's ids, by which stubs can
//! be signalled, and with which nothing can be opened for writing. Where programs write directories of the host through
//! ([`crate::fs::through`]) more is kept for that: the calls in `WRITTEN` of [`table`], four capabilities of root's, and a
//! copy of the mounts of those directories that is not read-only. Nothing else can be reached by name, so that these
//! rights end there. The filter sees no names: that files which are opened are
//! below the root is kept by the copy and by Landlock.
//!
//! What is left out:
//! * a user namespace: owners that are not mapped in it read as 65534, and programs must see the true ones;
//! * a cgroup namespace: what it hides is names in /proc, which is out of reach, and the caller's limits are found by them;
//! * a pid namespace: the kernel's process would have to be forked into it (stubs ask who their parent is, and process 1 of
//!   one has rules of its own), which costs a process and a millisecond, and protects from signals only, which the
//!   filter limits to a few;
//! * a network namespace: making and ending one costs milliseconds, and there is no socket without socket(2), which is in
//!   the table only if programs are to reach what the caller reaches, and then for that.

mod filter;
mod landlock;
mod root;
mod table;

use super::{Error, Network};
use crate::abi::{Errno, Result as HostResult};
use crate::fs::world;
use crate::hostfd::{self, HostFd};
use crate::hostsys::file;
use crate::hostsys::{change, confine, process};
use crate::syscalls;
use crate::vfs::Kind;
use root::Root;
use std::path::{Path, PathBuf};
use table::{Needs, Trees};

/// CAP_DAC_READ_SEARCH: a root caller's sandbox shows all files of the host.
const KEPT: u64 = 1 << 2;
/// Where programs write files of the host through: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER and CAP_FSETID, to give what is made
/// to its owner, and to do what the sandbox's own checks of permissions have allowed.
const KEPT_TO_WRITE: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4;
/// What is nobody else's.
const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// What came of a step.
pub struct Step {
    /// What it is for.
    pub name: &'static str,
    /// Why it does not hold here.
    pub missing: Option<String>,
}

/// A directory of the host that files come from.
struct Opened {
    dir: HostFd,
    /// Programs write to it.
    written: bool,
}

/// A jail that is not closed yet.
pub(super) struct Jail {
    /// It is to be closed.
    wanted: bool,
    root: Option<Root>,
    /// The directories that Landlock leaves.
    opened: Vec<Opened>,
    /// What of the host programs see as it is.
    trees: Trees,
    /// More directories of the host will come when it is closed.
    admits: bool,
    /// What the mount namespace is to have as its root, for others who enter it.
    shown: Option<PathBuf>,
    steps: Vec<Step>,
}

impl Jail {
    /// At the very start; descriptors that are `kept` stay.
    ///
    /// # Errors
    /// A host that has none of this.
    pub(super) fn begin(wanted: bool, kept: &[i32]) -> Result<Self, Error> {
        let jail = Jail {
            wanted,
            root: None,
            opened: Vec::new(),
            trees: Trees::None,
            admits: false,
            shown: None,
            steps: Vec::new(),
        };
        if wanted {
            confine::close_inherited(kept);
            confine::no_new_privileges().map_err(failed("giving up new privileges"))?;
        }
        Ok(jail)
    }

    /// Before the first thread: `root` is the directory that [`open_root`](Self::open_root) is going to open, for programs to
    /// write to, or only for reading.
    pub(super) fn begin_root(&mut self, root: &Path, written: bool) {
        self.see(written, written);
        if self.wanted {
            self.note("mount, ipc and uts namespaces", confine::own_namespaces(NAMESPACES));
            self.root = Some(Root::begin(root, written));
        }
    }

    fn note(&mut self, name: &'static str, result: HostResult<()>) {
        let missing = result.err().map(|errno| match errno {
            Errno::EPERM => "it takes a privilege of root".to_owned(),
            errno => errno.to_string(),
        });
        self.steps.push(Step { name, missing });
    }

    /// Opens the directory that files come from.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn open_root(&mut self, path: &Path) -> HostResult<HostFd> {
        let Some(root) = self.root.take() else { return world::open_root(path) };
        let (root, missing) = root.open(path)?;
        self.note("a copy of the mounts", missing.map_or(Ok(()), Err));
        self.opened.push(Opened { dir: root.clone(), written: self.trees == Trees::Written });
        Ok(root)
    }

    /// Other containers may come, with root directories and volumes of their own, which somebody outside opens: programs may
    /// be to write to them.
    pub(super) fn admit_others(&mut self) {
        self.admits = true;
        self.see(true, true);
    }

    /// Programs see files of the host as they are, and write to them.
    fn see(&mut self, as_is: bool, written: bool) {
        self.trees = self.trees.max(match (as_is, written) {
            (_, true) => Trees::Written,
            (true, false) => Trees::Read,
            (false, false) => Trees::None,
        });
        if written {
            change::clear_umask();
        }
    }

    /// Who enters the namespace of mounts later (an engine, to copy files) is to find `root` there.
    pub(super) fn show(&mut self, root: &Path) {
        self.shown = Some(root.to_owned());
    }

    /// Opens a directory or a regular file that programs are to see somewhere, and perhaps to write to: as the root directory,
    /// in a copy of the mounts where the caller may make one.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn open_volume(&mut self, path: &Path, written: bool) -> HostResult<HostFd> {
        self.see(true, written);
        let files = hostfd::files();
        let open = || files.open(path, libc::O_PATH);
        let volume = match (self.admits, self.wanted) {
            (true, _) => files.open_copy(path, written)?,
            (false, true) => files.open_copy(path, written).or_else(|_| open())?,
            (false, false) => open()?,
        };
        if Kind::from_mode(file::statx(volume.raw(), b"", libc::AT_EMPTY_PATH)?.stx_mode.into())
            == Some(Kind::File)
        {
            return match written {
                // As it may be written by the caller, whatever programs are told.
                true => files
                    .open_again(&volume, libc::O_RDWR)
                    .or_else(|_| files.open_again(&volume, libc::O_RDONLY)),
                false => files.open_again(&volume, libc::O_RDONLY),
            };
        }
        self.opened.push(Opened { dir: volume.clone(), written });
        Ok(volume)
    }

    /// Opens the root directory and nothing else of a process that opens them for somebody else: always copies.
    ///
    /// # Errors
    /// The host's: EPERM for who may not make any.
    pub(super) fn open_root_for_another(&mut self, path: &Path) -> HostResult<HostFd> {
        match self.root.take() {
            Some(root) => match root.open(path)? {
                (root, None) => Ok(root),
                (_, Some(errno)) => Err(errno),
            },
            None => hostfd::files().open_copy(path, true),
        }
    }

    /// Instead of closing it, where no program will run here: shows the root, and gives up all rights.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn give_up(mut self) -> Result<(), Error> {
        confine::forget_environment();
        if let Some(root) = self.shown.take() {
            // Only for who enters the namespace to copy files.
            let _other = confine::show_root(&root);
        }
        confine::drop_capabilities(0).map_err(failed("giving up capabilities"))
    }

    /// When everything is open and made, and no program runs yet. Says what holds and what does not. `asked`: requests will
    /// come from outside. `walled`: a warden connects the programs' sockets.
    ///
    /// # Errors
    /// Which step the host refused that every host has.
    pub(super) fn close(
        mut self,
        platform: &str,
        network: Network,
        walled: bool,
        asked: bool,
    ) -> Result<Vec<Step>, Error> {
        if !self.wanted {
            return Ok(Vec::new());
        }
        confine::forget_environment();
        if let Some(root) = self.shown.take() {
            self.note("the container's root for who enters", confine::show_root(&root));
        }
        self.note("an empty root directory", confine::enclose());
        let kept = if self.trees == Trees::Written { KEPT | KEPT_TO_WRITE } else { KEPT };
        confine::drop_capabilities(kept).map_err(failed("giving up capabilities"))?;
        let restricted = landlock::restrict(&self.opened, self.admits, network);
        self.opened.clear();
        let missing = match restricted {
            Ok(true) => None,
            Ok(false) => Some("the host has none".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        self.steps.push(Step { name: "Landlock", missing });
        let needs = Needs { network, walled, asked, trees: self.trees };
        let program = filter::program(platform, process::id(), needs)
            .map_err(|reason| Error::Jail { step: "making a filter of host calls", reason })?;
        let name = |number| syscalls::row(number).map(|row| row.name);
        confine::filter_host_calls(&program, name).map_err(failed("filtering host calls"))?;
        for name in ["no new privileges", "no capabilities but for files", "a filter of host calls"] {
            self.note(name, Ok(()));
        }
        Ok(self.steps)
    }
}

/// Takes from this process, a warden, all but descriptors that it has and sockets of the internet.
///
/// # Errors
/// The host's.
pub(super) fn confine_warden() -> Result<(), Error> {
    confine::no_new_privileges().map_err(failed("giving up new privileges"))?;
    // Not for who has not the right to.
    let _its_root_stays = confine::enclose();
    confine::drop_capabilities(0).map_err(failed("giving up capabilities"))?;
    let _without = landlock::restrict(&[], false, Network::Host);
    let program = filter::of_warden(process::id());
    let program = program.map_err(|reason| Error::Jail { step: "making a filter of host calls", reason })?;
    let name = |number| syscalls::row(number).map(|row| row.name);
    confine::filter_host_calls(&program, name).map_err(failed("filtering host calls"))
}

/// Puts this process into a jail as a sandbox's would be, to tell what holds here. Nothing else can be done with it afterwards.
///
/// # Errors
/// As for a sandbox.
pub fn trial() -> Result<Vec<Step>, Error> {
    trial_of(false)
}

/// The same; `walled`: of a sandbox whose sockets a warden connects.
fn trial_of(walled: bool) -> Result<Vec<Step>, Error> {
    let root = Path::new("/");
    let mut jail = Jail::begin(true, &[])?;
    super::reticence::begin();
    jail.begin_root(root, false);
    jail.open_root(root).map_err(|source| Error::Root { path: root.to_owned(), source })?;
    jail.close("systrap", Network::Host, walled, true)
}

fn failed(step: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Jail { step, reason: errno.to_string() }
}

#[cfg(test)]
mod tests;
