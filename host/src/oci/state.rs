//! What is known of a container between two commands: a directory of its own below `--root`, with a small file in it that is
//! replaced as a whole. Commands on one container at the same time wait for each other on a lock of the directory.

use super::error::{Doing, Error, Result};
use super::{Global, cgroup};
use crate::abi::Errno;
use oci_spec::runtime::Spec;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest name of a container.
const LONGEST: usize = 1024;
const STATE: &str = "state.json";
/// The specification, as it was when the container was created.
pub(super) const CONFIG: &str = "config.json";
/// The socket that requests go to.
pub(super) const CONTROL: &str = "control";

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// The state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) oci_version: String,
    pub(super) id: String,
    /// The sandbox's process, and when it was started, by which another of that number is told apart.
    pub(super) pid: i32,
    pub(super) started: u64,
    pub(super) start_requested: bool,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) created: String,
    pub(super) cgroup: cgroup::Group,
    /// The container of which it is in the kernel, if that is not its own.
    #[serde(default)]
    pub(super) sandbox: Option<String>,
    /// Of one without a bundle.
    #[serde(default)]
    pub(super) own: Option<super::named::Own>,
}

/// A container's directory, locked.
pub(super) struct Locked {
    pub(super) path: PathBuf,
    /// Dropped, and with it the lock, at the end.
    _dir: File,
}

/// Fails for names that are no file names of ours.
pub(super) fn check_id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > LONGEST || id.starts_with('.') || !id.chars().all(fine) {
        return Err(Error::new(format!("container name {id:?}: letters, digits and _+-. make one")));
    }
    Ok(())
}

impl Locked {
    /// A new container's.
    pub(super) fn create(global: &Global, id: &str) -> Result<Locked> {
        check_id(id)?;
        let root = std::path::absolute(&global.root).unwrap_or_else(|_| global.root.clone());
        let path = root.join(id);
        let mut builder = DirBuilder::new();
        builder.mode(0o711).recursive(true);
        builder.create(&root).doing(|| format!("state directory {}", root.display()))?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(format!("container with id exists: {id}")));
            }
            other => other.doing(|| format!("state directory {}", path.display()))?,
        }
        Locked::lock(path, id)
    }

    /// One that there is.
    pub(super) fn open(global: &Global, id: &str) -> Result<Locked> {
        check_id(id)?;
        Locked::lock(global.root.join(id), id)
    }

    /// One whose lock somebody holds who waits for the caller.
    pub(super) fn held_by_caller(path: &Path) -> Result<Locked> {
        let dir = File::open(path).doing(|| format!("state directory {}", path.display()))?;
        Ok(Locked { path: path.to_owned(), _dir: dir })
    }

    fn lock(path: PathBuf, id: &str) -> Result<Locked> {
        let dir = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::unknown(id)),
            other => other.doing(|| format!("state directory {}", path.display()))?,
        };
        flock(&dir, FlockOperation::LockExclusive)
            .doing(|| format!("locking state directory {}", path.display()))?;
        // It may have been removed, and made again, while we waited.
        if rustix::fs::fstat(&dir).ok().map(|own| own.st_ino)
            != rustix::fs::stat(&path).ok().map(|there| there.st_ino)
        {
            return Err(Error::unknown(id));
        }
        Ok(Locked { path, _dir: dir })
    }

    /// The state; one that was never written is that of a container whose creation did not end.
    pub(super) fn load(&self) -> Result<State> {
        load(&self.path)
    }

    /// Replaces the state.
    pub(super) fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).doing(|| "writing the state".to_owned())?;
        self.write(STATE, &text)
    }

    /// Keeps the specification.
    pub(super) fn keep(&self, spec: &[u8]) -> Result<()> {
        self.write(CONFIG, spec)
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        replace(&self.path.join(name), text)
    }

    /// Removes everything.
    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.path).doing(|| format!("removing {}", self.path.display()))
    }
}

/// Where state is, unless somebody says otherwise. Who is root in a user namespace only is another user as far as /run goes.
pub(super) fn default_root() -> PathBuf {
    if is_root() {
        return "/run/pillbox/containers".into();
    }
    let of = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    // Nothing below a directory that others can write to, as /tmp: they could be there first.
    let user = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let places = [of("XDG_RUNTIME_DIR"), Some(user), of("HOME").map(|home| home.join(".cache"))];
    let place = places.into_iter().flatten().find(|dir| dir.is_dir());
    place.unwrap_or_else(|| "/run".into()).join("pillbox/containers")
}

/// Whether the caller is root, and not only in a user namespace.
pub(super) fn is_root() -> bool {
    let all_users = || {
        std::fs::read_to_string("/proc/self/uid_map")
            .map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]))
    };
    rustix::process::geteuid().is_root() && all_users()
}

/// All containers, by name.
pub(super) fn all(global: &Global) -> Vec<State> {
    let mut all: Vec<State> = Vec::new();
    for entry in std::fs::read_dir(&global.root).into_iter().flatten().flatten() {
        // One that goes meanwhile is none.
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(state) = load(&entry.path())
        {
            all.push(state);
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// Replaces a file as a whole.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = File::create(&new).and_then(|mut file| file.write_all(text));
    written.and_then(|()| std::fs::rename(&new, path)).doing(|| format!("writing {}", path.display()))
}

/// Reads the state below a directory.
pub(super) fn load(dir: &Path) -> Result<State> {
    let path = dir.join(STATE);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(State::unfinished(id));
        }
        other => other.doing(|| format!("reading {}", path.display()))?,
    };
    serde_json::from_slice(&text).doing(|| format!("reading {}", path.display()))
}

/// The specification that a container was created from.
pub(super) fn config(dir: &Path) -> Result<Spec> {
    Spec::load(dir.join(CONFIG)).doing(|| format!("reading {}", dir.join(CONFIG).display()))
}

impl State {
    /// Of a container whose creation has not got so far, and never will where nobody is at it.
    pub(super) fn unfinished(id: String) -> State {
        State {
            oci_version: String::new(),
            id,
            pid: 0,
            started: 0,
            start_requested: false,
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            annotations: BTreeMap::new(),
            created: String::new(),
            cgroup: cgroup::Group::default(),
            sandbox: None,
            own: None,
        }
    }

    /// What it is doing, by its process.
    pub(super) fn status(&self) -> Status {
        if !self.is_alive() {
            Status::Stopped
        } else if !self.start_requested {
            Status::Created
        } else if self.cgroup.is_frozen() {
            Status::Paused
        } else {
            Status::Running
        }
    }

    /// Whether its process is there.
    pub(super) fn is_alive(&self) -> bool {
        self.pid > 0 && start_of(self.pid) == Some(self.started)
    }

    /// Sends a host signal to its process. Nothing happens where it has ended.
    pub(super) fn signal(&self, signo: i32) -> Result<()> {
        let pid = Pid::from_raw(self.pid).filter(|_| self.is_alive());
        let signal = Signal::from_named_raw(signo);
        if let (Some(pid), Some(signal)) = (pid, signal) {
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => {
                    let errno = Errno(errno.raw_os_error());
                    return Err(Error::new(format!("signal {signo} to process {}: {errno}", self.pid)));
                }
            }
        }
        Ok(())
    }

    /// Kills it and waits for its end.
    pub(super) fn kill(&self) -> Result<()> {
        // What is frozen does not end.
        self.cgroup.freeze(false).ok();
        self.signal(9)?;
        let end = Instant::now() + Duration::from_secs(10);
        while self.is_alive() {
            if Instant::now() > end {
                return Err(Error::new(format!(
                    "process {} of container {} does not end",
                    self.pid, self.id
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// As hooks and `state` show it.
    pub(super) fn shown(&self, status: Status) -> serde_json::Value {
        let mut shown = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
        });
        if !self.annotations.is_empty() {
            shown["annotations"] = serde_json::json!(self.annotations);
        }
        shown
    }
}

/// When a process was started, in ticks since the host's; none for one that there is not, or that has ended.
pub(super) fn start_of(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (comm) state ppid ... starttime is the 22nd; the name may hold anything.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    if matches!(words.next()?, "Z" | "X") {
        return None;
    }
    words.nth(18)?.parse().ok()
}
