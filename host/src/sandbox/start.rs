//! Start-up, in the order that lets it wait for nothing, and the end.

use super::program::Command;
use super::{Done, Ended, Error, PlatformChoice, Spec, cpus, report};
use crate::abi::Errno;
use crate::cred::Cred;
use crate::fs::world::{self, World};
use crate::hostsys::identity;
use crate::kernel::limits::{self, Limit, Limits};
use crate::kernel::{Init, Kernel, Options, WaitStatus, poller};
use crate::metrics::{Log, Metrics};
use crate::mm::MmLimits;
use crate::platform::{Platform, choose};
use crate::vfs::{Caller, FsContext, Kind, Lookup, Resolve};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs a specification to its end.
///
/// # Errors
/// Why it did not start, or what of the host failed under it.
pub fn run(spec: Spec) -> Result<Done, Error> {
    // Signals that the poller forwards must be blocked in every thread: before there is a second one.
    poller::block_forwarded_signals();
    crate::kernel::install_panic_hook();
    let workers = cpus::granted(spec.cpus, spec.cpus_from_quota);
    let metrics = metrics(&spec)?;
    let platform = platform(&spec, workers)?;
    let world = root(&spec, &platform)?;
    let fs = FsContext::new(world.ns.clone());
    let cred = cred()?;
    enter_directory(&spec, &fs, &cred)?;
    let options =
        Options { workers, hostname: hostname(), provoke_bugs: spec.provoke_bugs, ..Options::default() };
    let kernel = Kernel::new(platform, metrics, options);
    world::mount_proc(&world, &kernel).map_err(|source| Error::Setup { what: "mounting /proc", source })?;
    let limits = inherited_limits();
    let mm_limits = mm_limits(&limits);
    let command = Command { argv: &spec.argv, env: &spec.env, fs: &fs, cred: &cred, limits: &mm_limits };
    let (program, exe) = command.load(&kernel)?;
    let init = Init {
        mm: program.mm,
        ip: program.ip,
        sp: program.sp,
        fds: world::stdio(&world, &kernel),
        fs: fs.clone(),
        cred,
        comm: program.comm,
        exe: Some(exe),
        limits,
    };
    kernel.spawn_init(init).map_err(|source| Error::Setup { what: "starting the first program", source })?;
    // Signals to the sandbox are read by the poller: it must be there even if nothing of the host is waited for.
    kernel.poller();
    let status = kernel.run().map_err(|source| Error::Setup { what: "running a worker", source })?;
    let stats = if spec.stats { stats(&kernel) } else { String::new() };
    Ok(Done { ended: ended(status), stats })
}

fn root(spec: &Spec, platform: &Arc<dyn Platform>) -> Result<World, Error> {
    let failed = |source| Error::Root { path: spec.root.clone(), source };
    let dir = world::open_root(&spec.root).map_err(failed)?;
    world::build(dir, &platform.capabilities()).map_err(failed)
}

fn metrics(spec: &Spec) -> Result<Metrics, Error> {
    let log = match &spec.debug_log {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.map_err(|source| Error::DebugLog { path: path.clone(), source })?;
            Some(Log::new(Box::new(file)))
        }
        None if spec.strace => Some(Log::new(Box::new(std::io::stderr()))),
        None => None,
    };
    Ok(Metrics::new(spec.stats, spec.strace, log))
}

fn platform(spec: &Spec, workers: usize) -> Result<Arc<dyn Platform>, Error> {
    let device = spec.kvm_device.as_path();
    let failed = |name| move |reason| Error::Platform { name, reason };
    match spec.platform {
        PlatformChoice::Kvm => choose::kvm(device, workers).map_err(failed("kvm")),
        PlatformChoice::Systrap => choose::systrap().map_err(failed("systrap")),
        PlatformChoice::Auto => {
            let (platform, line) = choose::auto(device, workers).map_err(failed("auto"))?;
            if let Some(line) = line {
                // Nobody is left to tell when stderr is gone.
                let _closed = writeln!(std::io::stderr(), "pillbox: {line}");
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
fn enter_directory(spec: &Spec, fs: &FsContext, cred: &Cred) -> Result<(), Error> {
    let wanted = match &spec.cwd {
        Some(path) => path.clone(),
        None => std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
    };
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
    let mut name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    name.truncate(name.iter().position(|b| *b == b'\n').unwrap_or(name.len()));
    if name.is_empty() { Options::default().hostname } else { name }
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

fn mm_limits(limits: &Limits) -> MmLimits {
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
