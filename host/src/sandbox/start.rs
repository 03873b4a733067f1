//! Start-up, in the order that lets it wait for nothing, and the end.

use super::cgroup::Groups;
use super::container::{self, Ground};
use super::control::Control;
use super::diff::Saving;
use super::jail::Jail;
use super::pod::{Inside, Pod};
use super::program::Command;
use super::timeout::Timeout;
use super::{
    Done, Ended, Error, PlatformChoice, Spec, cpus, devices, memory, network, report, reticence, sysctl,
    tasks, tell,
};
use crate::abi::Errno;
use crate::arena::{self, ledger};
use crate::cred::Cred;
use crate::fs::world::{self, World};
use crate::hostfd::{self, HostFd};
use crate::hostsys::{self, identity};
use crate::kernel::limits::{self, Limit, Limits};
use crate::kernel::sched::SPARES;
use crate::kernel::seccomp::Confinement;
use crate::kernel::signal::SigSet;
use crate::kernel::{Init, Kernel, Options, WaitStatus, poller};
use crate::metrics::{Log, Metrics};
use crate::mm::MmLimits;
use crate::platform::{Platform, choose};
use crate::vfs::{Caller, FsContext, Kind, Lookup, Resolve};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// SIGHUP, SIGINT, SIGTERM.
const ENDING: u64 = 1 | 1 << 1 | 1 << 14;

/// Runs a specification to its end. What it was made of is left as it is, for the end of the process to take along.
///
/// # Errors
/// Why it did not start, or what of the host failed under it.
pub fn run(spec: Spec) -> Result<Done, Error> {
    prepare(spec)?.run()
}

/// A sandbox that is confined and has its first program loaded.
pub struct Prepared {
    kernel: Arc<Kernel>,
    world: Arc<World>,
    init: Init,
    control: Option<Control>,
    stats: bool,
    timeout: Option<Duration>,
    saving: Option<Saving>,
}

/// Makes everything that a specification asks for, up to the first program's first instruction.
///
/// # Errors
/// Why it cannot be.
pub fn prepare(mut spec: Spec) -> Result<Prepared, Error> {
    crate::time::set_start();
    let mut jail = Jail::begin(spec.jail, &spec.container.kept)?;
    // Signals that the poller forwards must be blocked in every thread: before there is a second one.
    poller::block_forwarded_signals();
    crate::kernel::install_panic_hook();
    hostsys::fault::install(crate::mm::fixup);
    // As the caller has them: before they are raised for us.
    let inherited = inherited_limits();
    crate::hostsys::file::reserve_descriptors();
    let groups = Groups::own();
    // Programs can count CPUs anyway: only where somebody has chosen a quota for them it is worth reading.
    let has_quota = spec.cpus_from_quota || spec.container.control.is_some();
    let quota = if has_quota { cpus::quota(&groups) } else { None };
    let workers = cpus::granted(spec.cpus, quota.filter(|_| spec.cpus_from_quota));
    let max_tasks = max_tasks(&spec, &groups);
    limit_memory(&spec, &groups);
    let metrics = metrics(&spec)?;
    let mut saving = spec.save_diff.as_deref().map(open_archive).transpose()?;
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    (spec.root, spec.kvm_device) = (here.join(&spec.root), here.join(&spec.kvm_device));
    reticence::begin();
    if spec.container.pod.is_some() {
        jail.admit_others();
    }
    jail.begin_root(&spec.root, spec.container.writes_root);
    if spec.container.shows_root {
        jail.show(&spec.root);
    }
    let platform = platform(&spec, workers + SPARES, &metrics)?;
    let world = Arc::new(root(&spec, &platform, &mut jail)?);
    let opened = container::open(&spec.container.mounts, &mut jail)?;
    let options = options(&spec, workers, max_tasks, quota)?;
    let kernel = Kernel::new(platform.clone(), metrics, options);
    if let Some(name) = &spec.container.domainname {
        kernel.uts.lock().domainname = name.clone().into_bytes();
    }
    network::name_resolvers(&spec, &kernel, &world);
    world::mount_proc(&world, &kernel).map_err(|source| Error::Setup { what: "mounting /proc", source })?;
    let readonly = spec.container.readonly_root;
    devices::make(&spec.container.devices, &world)?;
    container::mount(opened, &Ground::of_first(&world, &kernel), readonly)?;
    sysctl::set(&spec.container.sysctls, &world)?;
    if let Some(saving) = &mut saving {
        saving.begin(&world.ns);
    }
    let init = first_process(&spec, here, &world, &kernel, inherited)?;
    kernel.set_outside(hostsys::process::has_job_control());
    // Signals to the sandbox are read by the poller: it must be there even if nothing of the host is waited for.
    kernel.poller();
    close(jail, &kernel, &spec)?;
    let control = control(&spec, &kernel, &world, inherited)?;
    Ok(Prepared { kernel, world, init, control, stats: spec.stats, timeout: spec.timeout, saving })
}

impl Prepared {
    /// Waits for the request to start. False: it will not come.
    #[must_use]
    pub fn wait_for_start(&self) -> bool {
        self.control.as_ref().is_none_or(Control::wait_for_start)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What of the host failed under it.
    pub fn run(self) -> Result<Done, Error> {
        let kernel = self.kernel;
        // Starts threads, which have then what this one has.
        kernel
            .spawn_init(self.init)
            .map_err(|source| Error::Setup { what: "starting the first program", source })?;
        if let Some(control) = self.control {
            arena::thread::spawn("control", move || control.serve())
                .map_err(|source| Error::Setup { what: "a thread for requests", source })?;
        }
        begin_write_back(&self.world)?;
        let timeout = self.timeout.map(|after| Timeout::begin(&kernel, after));
        let status = kernel.run();
        kernel.end_network();
        hostsys::tty::restore();
        self.world.trees.finish();
        let status = status.map_err(|source| Error::Setup { what: "running a worker", source })?;
        let saved = self.saving.and_then(|saving| {
            // It may take long, and there is nobody left to whom they could be passed on.
            hostsys::poll::unblock_signals(ENDING);
            saving.save()
        });
        let stats = if self.stats { stats(&kernel) } else { String::new() };
        core::mem::forget((kernel, self.world));
        let timed_out = timeout.and_then(|timeout| timeout.passed());
        Ok(Done { ended: ended(status), timed_out, saved, stats })
    }
}

/// Begins to write pages back, once there is something to be written to.
pub(super) fn begin_write_back(world: &World) -> Result<(), Error> {
    let Some(write_back) = world.write_back() else { return Ok(()) };
    arena::thread::spawn("write-back", move || write_back.run())
        .map(drop)
        .map_err(|source| Error::Setup { what: "a thread that writes back", source })
}

fn open_archive(path: &Path) -> Result<Saving, Error> {
    Saving::open(path).map_err(|source| Error::SaveDiff { path: path.to_owned(), source })
}

/// What serves requests, where they are to come.
fn control(
    spec: &Spec,
    kernel: &Arc<Kernel>,
    world: &Arc<World>,
    limits: Limits,
) -> Result<Option<Control>, Error> {
    let Some(fd) = spec.container.control else { return Ok(None) };
    let socket = HostFd::inherited(fd, "who makes the container")
        .map_err(|source| Error::Setup { what: "the socket for requests", source })?;
    let seccomp = spec.container.seccomp.clone();
    let first = Inside { world: world.clone(), limits, seccomp, home: None };
    Ok(Some(Control { socket, pod: Pod::new(kernel, first, spec.container.pod.clone()) }))
}

fn options(
    spec: &Spec,
    workers: usize,
    max_tasks: usize,
    cpu_quota: Option<(u64, u64)>,
) -> Result<Options, Error> {
    Ok(Options {
        workers,
        cpu_quota,
        init_is_protected: spec.init_is_protected,
        hostname: spec.container.hostname.as_ref().map_or_else(hostname, |name| name.clone().into_bytes()),
        outer: network::outer(spec, workers + SPARES)?,
        max_tasks,
        cpuinfo: cpuinfo(),
        provoke_bugs: spec.provoke_bugs,
    })
}

/// Loads the first program.
fn first_process(
    spec: &Spec,
    here: PathBuf,
    world: &Arc<World>,
    kernel: &Arc<Kernel>,
    inherited: Limits,
) -> Result<Init, Error> {
    let user = spec.container.user.as_ref();
    let (fs, cred) = (FsContext::new(world.ns.clone()), user.map_or_else(cred, |user| Ok(user.cred()))?);
    if let Some(umask) = user.and_then(|user| user.umask) {
        fs.set_umask(umask);
    }
    enter_directory(spec, here, &fs, &cred)?;
    let limits = user.map_or(inherited, |user| user.limits(inherited));
    let mm_limits = mm_limits(&limits);
    let command = Command { argv: &spec.argv, env: &spec.env, fs: &fs, cred: &cred, limits: &mm_limits };
    let (program, exe) = command.load(kernel)?;
    Ok(Init {
        mm: program.mm,
        ip: program.ip,
        sp: program.sp,
        fds: world::stdio(world, kernel, &cred),
        fs,
        cred,
        comm: program.comm,
        exe: Some(exe),
        limits,
        confinement: Confinement::of_container(
            user.is_some_and(|user| user.no_new_privileges),
            spec.container.seccomp.as_ref(),
        ),
        // An engine's are not its containers'.
        ignored: SigSet(if spec.container.control.is_some() { 0 } else { hostsys::process::ignored() }),
        tty: None,
        told: None,
        on_exit: None,
        home: None,
    })
}

fn root(spec: &Spec, platform: &Arc<dyn Platform>, jail: &mut Jail) -> Result<World, Error> {
    let failed = |source| Error::Root { path: spec.root.clone(), source };
    let dir = jail.open_root(&spec.root).map_err(failed)?;
    world::build(dir, &platform.capabilities(), spec.container.writes_root).map_err(failed)
}

/// Tasks that all programs together may have; says so where they are fewer than asked for.
fn max_tasks(spec: &Spec, groups: &Groups) -> usize {
    let (most, cut) = tasks::granted(spec.pids, groups);
    if cut {
        tell(&format!(
            "--pids: {most} is the most here, a quarter of what the host and its control groups have left"
        ));
    }
    most
}

/// Sets the limit on memory; says so where it is less than what was asked for.
fn limit_memory(spec: &Spec, groups: &Groups) {
    let granted = memory::granted(spec.memory, groups);
    ledger::set_limit(granted.bytes);
    ledger::set_beside(granted.group.map_or(0, |limit| limit.saturating_sub(granted.bytes)));
    if granted.cut {
        let mib = granted.bytes >> 20;
        tell(&format!("--memory: {mib}M is the most here, what the host and its control groups have left"));
    }
}

/// Closes the jail, and says in the debug log what it has not.
fn close(jail: Jail, kernel: &Kernel, spec: &Spec) -> Result<(), Error> {
    let asked = spec.container.control.is_some();
    for step in jail.close(kernel.platform.name(), spec.network, spec.rules.are_some(), asked)? {
        if let Some(missing) = &step.missing {
            kernel.metrics.debug(&format!("jail: without {}: {missing}", step.name));
        }
    }
    Ok(())
}

fn metrics(spec: &Spec) -> Result<Metrics, Error> {
    let log = match &spec.debug_log {
        Some(path) => {
            let file = hostfd::files().open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND);
            let file = file.map_err(|errno| {
                let source = std::io::Error::from_raw_os_error(errno.0);
                Error::DebugLog { path: path.clone(), source }
            })?;
            Some(Log::new(Box::new(file)))
        }
        None if spec.strace => Some(Log::new(Box::new(std::io::stderr()))),
        None => None,
    };
    Ok(Metrics::new(spec.stats, spec.strace, log))
}

fn platform(spec: &Spec, workers: usize, metrics: &Metrics) -> Result<Arc<dyn Platform>, Error> {
    // While there is one thread.
    hostsys::process::join_barriers();
    let device = spec.kvm_device.as_path();
    let failed = |name| move |reason| Error::Platform { name, reason };
    match spec.platform {
        PlatformChoice::Kvm => choose::kvm(device, workers).map_err(failed("kvm")),
        PlatformChoice::Systrap => choose::systrap().map_err(failed("systrap")),
        PlatformChoice::Auto => {
            let (platform, rejected) = choose::auto(device, workers).map_err(failed("auto"))?;
            if let Some(choose::Rejected { line, new }) = rejected {
                metrics.debug(&line);
                // A container's standard error is its program's.
                if new && spec.container.control.is_none() {
                    tell(&line);
                }
            }
            Ok(platform)
        }
    }
}

/// The first program is who the caller is. It is confined by the sandbox, not by its ids: where the caller is root, the
/// program is root in here.
fn cred() -> Result<Cred, Error> {
    let ids =
        identity::own().map_err(|source| Error::Setup { what: "reading the caller's groups", source })?;
    Ok(Cred::user(ids.uid, ids.gid, &ids.groups))
}

/// Goes to the directory asked for; the caller's own, where the root has it, if none was.
fn enter_directory(spec: &Spec, here: PathBuf, fs: &FsContext, cred: &Cred) -> Result<(), Error> {
    let wanted = spec.cwd.clone().unwrap_or(here);
    let lookup = Lookup { fs, cred, caller: Caller { pid: 1, tid: 1 } };
    let name = wanted.as_os_str().as_encoded_bytes();
    let found = match lookup.resolve(None, name, Resolve::FOLLOW) {
        Ok(path) if path.dentry.kind() == Kind::Dir => Ok(path),
        Ok(_) => Err(Errno::ENOTDIR),
        Err(errno) => Err(errno),
    };
    match found {
        Ok(path) => fs.set_cwd(path),
        Err(source) if spec.cwd.is_some() => return Err(Error::WorkingDirectory { path: wanted, source }),
        Err(_) => {}
    }
    Ok(())
}

/// The sandbox's host name is the host's: programs print it, and a copy of it is harmless.
fn hostname() -> Vec<u8> {
    let mut name = hostsys::told::text("/proc/sys/kernel/hostname").unwrap_or_default().into_bytes();
    name.truncate(name.iter().position(|b| *b == b'\n').unwrap_or(name.len()));
    if name.is_empty() { Options::default().hostname } else { name }
}

/// What the host says of its CPUs, to be read when a program asks.
fn cpuinfo() -> Option<HostFd> {
    hostfd::files().open(Path::new("/proc/cpuinfo"), libc::O_RDONLY).ok()
}

/// The limits that programs ask for before they do something, as the caller has them.
fn inherited_limits() -> Limits {
    let mut all = Limits::default();
    for resource in 0..limits::COUNT as u32 {
        if let Some((soft, hard)) = identity::limit(resource) {
            // Ours are the defaults of a fresh system: raising them needs the privilege that start-up has.
            let _unchanged = all.set(resource, Limit { soft, hard }, true);
        }
    }
    all
}

pub(super) fn mm_limits(limits: &Limits) -> MmLimits {
    MmLimits {
        address_space: limits.soft(limits::AS).into(),
        data: limits.soft(limits::DATA).into(),
        stack: limits.soft(limits::STACK).into(),
        memlock: limits.soft(limits::MEMLOCK).into(),
    }
}

fn stats(kernel: &Kernel) -> String {
    let platform = &kernel.platform;
    report::text(platform.name(), &platform.stats(), kernel.sched.switches(), &kernel.metrics)
}

fn ended(status: WaitStatus) -> Ended {
    match status.shell_code() {
        code if status.0 & 0x7f == 0 => Ended::Exited(code as u8),
        code => Ended::Signaled((code - 128) as u8),
    }
}
