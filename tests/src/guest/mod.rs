//! A Linux guest with nested KVM: what is in it, what it is to do, and what it answers.
//!
//! A [`Guest`] is a file tree plus the steps to run there. [`Guest::run`] boots a stock Debian kernel
//! under QEMU's emulator or Bochs, where our `init` loads KVM, runs the steps one after the other and sends their
//! output back in [`frames`]; each step's native and sandboxed runs are comparable because they happen
//! in one boot. The guest's console is kept apart and shown only when the guest dies.

mod bochs;
pub mod frames;
pub mod job;
mod libs;
mod qemu;
mod tree;

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use job::Step;
pub use tree::Tree;

use crate::arch::{Arch, Board};
use crate::packages::{self, Bochs, Cache, Kernel, workspace_root};
use frames::{Frame, Frames};
use job::{JOB_PATH, Job, Module, PAYLOAD};

/// Where pillbox is in a guest that has it.
pub const PILLBOX: &str = "/bin/pillbox";

/// Our own test programs, which every guest has in /bin.
pub const PROGRAMS: &[&str] = &["abi", "fuzz", "hold", "mb", "probe"];

/// How long behind a step's own deadline its end is waited for: the boot is in it, and a busy machine. A guest that is
/// later than that hangs.
const SILENCE: Duration = Duration::from_secs(180);

/// How the guest's machine is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Count instructions instead of time: one nanosecond of the guest is one instruction, on one CPU.
    pub icount: bool,
    /// The machine to be.
    pub board: Board,
    /// CPUs, if not as many as the board has.
    pub smp: Option<u32>,
    /// The emulator's CPU model, if not the default one.
    pub cpu: Option<String>,
    /// Memory in MiB, if not as much as the board has.
    pub memory: Option<u32>,
    /// Parameters of the KVM module that is made for the CPU's maker (`ept=0`).
    pub kvm: Vec<String>,
    /// More of the kernel's command line.
    pub append: Vec<String>,
    /// Give up after this long without the end in sight (real time).
    pub timeout: Duration,
    /// Print the emulator's command line.
    pub verbose: bool,
}

impl Options {
    fn cpus(&self) -> u32 {
        if self.icount { 1 } else { self.smp.unwrap_or(self.board.size().0) }
    }

    fn memory(&self) -> u32 {
        self.memory.unwrap_or(self.board.size().1)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            icount: false,
            board: Board::Usual,
            smp: None,
            cpu: None,
            memory: None,
            kvm: Vec::new(),
            append: Vec::new(),
            timeout: Duration::from_secs(600),
            verbose: false,
        }
    }
}

/// Why a guest could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something the guest needs is missing.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// A file for the guest could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        source: io::Error,
    },
    /// cargo could not build what goes into the guest.
    #[error("`{0}` failed")]
    Build(String),
    /// The guest's init could not do its work.
    #[error("the guest could not go on: {0}")]
    Init(String),
    /// There is no such machine.
    #[error("{0}")]
    Board(String),
    /// The guest ended before its steps did.
    #[error("the guest died{when}; the end of its console:\n{console}")]
    Died {
        /// At which point.
        when: String,
        /// The last lines of its console.
        console: String,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Its exit status; 128 + n after a signal, [`job::TIMED_OUT`] after its deadline.
    pub status: i32,
}

/// What one boot did.
#[derive(Debug)]
pub struct Run {
    /// One per step that ended.
    pub outcomes: Vec<Outcome>,
    /// Why there are fewer than there were steps.
    pub ended: Result<(), Error>,
}

/// A guest: it can be booted more than once, and is the same each time.
#[derive(Debug)]
pub struct Guest {
    arch: Arch,
    options: Options,
    tree: Tree,
    disk: Option<PathBuf>,
    /// The emulator, if it is not QEMU.
    bochs: Option<Bochs>,
    cache: Cache,
}

impl Guest {
    /// Prepares a guest with busybox in it. Fetches emulator, kernel and busybox the first time.
    pub fn new(arch: Arch, options: Options) -> Result<Self, Error> {
        let cache = Cache::open()?;
        if !options.board.is_of(arch) {
            return Err(Error::Board(format!("there is no such board of {arch}")));
        }
        if arch == Arch::Aarch64 && !options.kvm.is_empty() {
            return Err(Error::Board("KVM is no module of this kernel: it takes no parameters".to_owned()));
        }
        let bochs = options.board.is_bochs().then(|| Bochs::get(&cache)).transpose()?;
        if bochs.is_none() {
            packages::qemu(&cache, arch)?;
        }
        let mut tree = Tree::default();
        for dir in ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc", "/bin", "/var"] {
            tree.dir(dir);
        }
        let busybox = packages::busybox(&cache, arch)?;
        tree.copy(&busybox, "/bin/busybox").map_err(io_error(&busybox))?;
        tree.bytes("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        tree.bytes("/etc/group", "root:x:0:\n");
        tree.bytes("/etc/hostname", "guest\n");
        Ok(Self { arch, options, tree, disk: None, bochs, cache })
    }

    /// Lets no boot last longer than `limit`.
    pub fn end_within(&mut self, limit: Duration) {
        self.options.timeout = self.options.timeout.min(limit);
    }

    /// The guest's files, to add to.
    pub fn tree(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Adds a program of this machine at `path`, with the libraries it needs where this machine has them.
    pub fn program(&mut self, from: &Path, path: impl AsRef<Path>) -> Result<(), Error> {
        self.tree.copy(from, path).map_err(io_error(from))?;
        for library in libs::needed(from, self.arch).map_err(io_error(from))? {
            let real = fs::canonicalize(&library).map_err(io_error(&library))?;
            self.tree.copy(&real, &library).map_err(io_error(&real))?;
        }
        Ok(())
    }

    /// Adds a file or directory of this machine under the path it has here. A program's libraries come
    /// along.
    pub fn with(&mut self, path: &Path) -> Result<(), Error> {
        let path = std::path::absolute(path).map_err(io_error(path))?;
        let real = fs::canonicalize(&path).map_err(io_error(&path))?;
        if real.is_dir() {
            return self.tree.copy(&real, &path).map_err(io_error(&path));
        }
        self.program(&real, &path)
    }

    /// Gives the guest a Debian user land instead of busybox alone.
    pub fn with_debian(mut self) -> Result<Self, Error> {
        self.disk = Some(packages::debian_disk(&self.cache, self.arch)?);
        Ok(self)
    }

    /// Builds pillbox and adds it.
    pub fn with_pillbox(mut self) -> Result<Self, Error> {
        let built = build(self.arch, &["-p", "host", "--bin", "pillbox"])?.join("pillbox");
        // Line numbers are five sixths of it, which an emulated drive takes a minute to read.
        let program = if self.bochs.is_some() { bochs::stripped(&built)? } else { built };
        self.program(&program, PILLBOX)?;
        Ok(self)
    }

    /// Boots the guest and runs `steps`; `output` gets what they write as it comes, with the step's
    /// number. Returns one outcome per step, fewer if the guest died on the way.
    pub fn run(&self, steps: &[Step], mut output: impl FnMut(usize, &Frame)) -> Result<Run, Error> {
        let kernel = packages::kernel(&self.cache, self.arch, self.options.board)?;
        let run = RunDir::new(&self.cache)?;
        let initramfs = run.0.join("initramfs");
        let console = run.0.join("console");
        self.tree_with_orders(&kernel, steps)?.write_initramfs(&initramfs).map_err(io_error(&initramfs))?;

        let (machine, pipe) = self.start(&kernel, &initramfs, &console, &run)?;
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut frames = Frames::new(BufReader::new(pipe));
            while let Ok(frame) = frames.receive() {
                if sender.send(frame).is_err() {
                    break;
                }
            }
        });

        let slower = self.options.board.slower();
        let deadline = Instant::now() + self.options.timeout;
        // The clock of a guest that counts instructions says nothing about ours.
        let patience = |step: usize| {
            let seconds = steps.get(step)?.timeout.filter(|_| !self.options.icount)?;
            Some(Instant::now() + Duration::from_secs(seconds) * slower + SILENCE)
        };
        let mut silent = patience(0);
        let mut outcomes = Vec::new();
        let mut current = Outcome::default();
        let ended = loop {
            let until = silent.map_or(deadline, |silent| silent.min(deadline));
            let left = until.saturating_duration_since(Instant::now());
            let step = outcomes.len();
            let frame = match receiver.recv_timeout(left) {
                Ok(frame) => frame,
                Err(error) => {
                    let timeout = error == mpsc::RecvTimeoutError::Timeout;
                    let why = if timeout { " (out of time)" } else { "" };
                    let when = format!(" in step {step}{why}");
                    let console = tail(&console) + "\n" + &tail(&run.0.join(LOG));
                    break Err(Error::Died { when, console });
                }
            };
            output(step, &frame);
            match frame {
                Frame::Stdout(bytes) => current.stdout.extend(bytes),
                Frame::Stderr(bytes) => current.stderr.extend(bytes),
                Frame::Done(status) => {
                    current.status = status;
                    outcomes.push(std::mem::take(&mut current));
                    silent = patience(outcomes.len());
                }
                Frame::Failed(text) => break Err(Error::Init(text)),
                Frame::End => break Ok(()),
            }
        };
        drop(machine);
        // The pipe is closed now, so the reader ends.
        let _ = reader.join();
        Ok(Run { outcomes, ended })
    }

    /// Starts the emulator; what its guest writes to the port for frames comes out of the pipe.
    fn start(
        &self,
        kernel: &Kernel,
        initramfs: &Path,
        console: &Path,
        run: &RunDir,
    ) -> Result<(Machine, io::PipeReader), Error> {
        // What an emulator has to say of itself is kept for when it dies (QEMU warns about CPU features at every start).
        let log = fs::File::create(run.0.join(LOG)).map_err(io_error(&run.0))?;
        let (pipe, port) = io::pipe().map_err(io_error(&run.0))?;
        let disk = self.disk.as_deref();
        let mut command = match &self.bochs {
            None => {
                let mut command = qemu::command(self.arch, &self.options, kernel, initramfs, disk, console);
                command.stdin(Stdio::null()).stdout(port).stderr(log);
                command
            }
            Some(bochs) => {
                let mut command =
                    bochs::command(bochs, &self.options, kernel, initramfs, disk, console, &run.0)?;
                // Its words are nobody's; the port is opened again by the name of standard input.
                command.stdin(port).stdout(Stdio::null()).stderr(log);
                command
            }
        };
        if self.options.verbose {
            eprintln!("nested: {}", format!("{command:?}").replace('"', ""));
        }
        let program = Path::new(command.get_program()).to_owned();
        let machine = Machine(command.spawn().map_err(io_error(&program))?);
        if self.bochs.is_some() {
            bochs::watch_screen(run.0.join(LOG));
        }
        // The emulator's own copy of the port is the last one when the command is gone.
        Ok((machine, pipe))
    }

    /// The initramfs: init, its orders and modules, and what becomes the root directory.
    fn tree_with_orders(&self, kernel: &Kernel, steps: &[Step]) -> Result<Tree, Error> {
        let built = build_programs(self.arch)?;
        let mut payload = self.tree.clone();
        for program in PROGRAMS {
            let from = built.join(program);
            payload.copy(&from, Path::new("/bin").join(program)).map_err(io_error(&from))?;
        }
        let mut tree = payload.below(Path::new(PAYLOAD));
        let init = built.join("init");
        tree.copy(&init, "/init").map_err(io_error(&init))?;
        let disk = if self.bochs.is_some() { "/dev/sda" } else { "/dev/nvme0n1" };
        let mut job = Job {
            modules: Vec::new(),
            channel: qemu::channel(self.arch, self.options.board).to_owned(),
            disk: self.disk.is_some().then(|| disk.to_owned()),
            steps: steps.to_vec(),
        };
        let disk_modules = if self.disk.is_some() { kernel.disk_modules.as_slice() } else { &[] };
        for (n, module) in disk_modules.iter().chain(&kernel.modules).enumerate() {
            let path = format!("/modules/{n}.ko");
            tree.copy(module, &path).map_err(io_error(module))?;
            job.modules.push(Module { path, parameters: String::new() });
        }
        if let Some(kvm) = job.modules.last_mut() {
            kvm.parameters = self.options.kvm.join(" ");
        }
        tree.bytes(JOB_PATH, serde_json::to_vec(&job).unwrap_or_default());
        // Init writes here before it has mounted anything.
        tree.dir("/dev");
        tree.char_device("/dev/console", 5, 1);
        tree.char_device("/dev/null", 1, 3);
        Ok(tree)
    }
}

/// The file of a run with what the emulator has to say of itself.
const LOG: &str = "emulator";

/// A running emulator; gone when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files of one run; gone when dropped.
struct RunDir(PathBuf);

impl RunDir {
    fn new(cache: &Cache) -> Result<Self, Error> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("run-{}-{serial}", std::process::id());
        let dir = cache.dir().join(name);
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        Ok(Self(dir))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds binaries of this workspace for `arch` in release mode; returns the directory they are in.
pub fn build(arch: Arch, what: &[&str]) -> Result<PathBuf, Error> {
    build_as(arch, "release", what).map(|target| target.join("release"))
}

/// Builds `pillbox` for `arch` with debug assertions, as `cargo test` does too; returns the directory it is in.
pub fn build_debug(arch: Arch) -> Result<PathBuf, Error> {
    build_as(arch, "dev", &["-p", "host", "--bin", "pillbox"]).map(|target| target.join("debug"))
}

fn build_as(arch: Arch, profile: &str, what: &[&str]) -> Result<PathBuf, Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "-q", "--profile", profile, "--target", arch.target()])
        .args(what)
        .current_dir(workspace_root())
        // This runs below `cargo run`, whose settings for the program it runs are not meant for a build.
        .env_remove("CARGO_MANIFEST_DIR")
        .stdin(Stdio::null());
    let shown = format!("cargo build --profile {profile} --target {} {}", arch.target(), what.join(" "));
    // Warnings are the lint layer's business; here they would drown what the guest says.
    let output = cargo.output().map_err(io_error(Path::new("cargo")))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::Build(shown));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace_root().join("target"));
    Ok(target.join(arch.target()))
}

/// Builds init and our own test programs.
pub fn build_programs(arch: Arch) -> Result<PathBuf, Error> {
    let mut what = vec!["-p", "tests", "--bin", "init"];
    for program in PROGRAMS {
        what.extend(["--bin", program]);
    }
    build(arch, &what)
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
