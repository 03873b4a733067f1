//! Several containers in one kernel: a pod. The first is the sandbox's own ([`super::start`]); others come by requests
//! ([`super::control`]) when the jail is closed.
//!
//! What such a container takes of the host, its root directory and volumes, somebody outside opens ([`Waiting::open`]) and sends
//! along, in copies of the mounts. It gets mounts, namespaces and a control group of its own as its specification says, and a
//! first process, which waits for a request to start. The stream that it was asked for on stays: its end is told there, and
//! signals come from there. When the other side goes, so does the container, with all that is in it. Who made it lives as long
//! as it does, for engines to wait for: the process outside whose exit status is the container's.

use super::container::{self, Ground, Shared, User};
use super::control::{Create, Process, Reply, Request, Shares, Usage, Whose, answer, read};
use super::jail::Jail;
use super::program::Command;
use super::{Error, Spec, devices, start};
use crate::abi::Errno;
use crate::arena;
use crate::cred::Cred;
use crate::fs::world::{self, Streams};
use crate::hostfd::HostFd;
use crate::hostsys;
use crate::kernel::cgroups::CgroupId;
use crate::kernel::limits::Limits;
use crate::kernel::seccomp::{Confinement, Filter};
use crate::kernel::signal::{SigInfo, SigSet};
use crate::kernel::{Home, Init, Kernel, Sharing, WaitStatus};
use crate::sync::{Lock, Rank};
use crate::vfs::{Caller, FsContext, Kind, Lookup, Resolve};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of what is in a container is waited for at a time.
const PATIENCE: Duration = Duration::from_millis(5);
/// Said of a container that is not there.
const NOT_RUNNING: &str = "container not running";

/// What a specification's text asks for, in words where it cannot be had.
type Translate = dyn Fn(&str, &Path) -> Result<Spec, String> + Send + Sync;

/// Who understands specifications of containers. The bundle is where relative names begin.
#[derive(Clone)]
pub struct Translator(Arc<Translate>);

impl Translator {
    /// By that.
    pub fn new(translate: impl Fn(&str, &Path) -> Result<Spec, String> + Send + Sync + 'static) -> Self {
        Translator(Arc::new(translate))
    }
}

impl std::fmt::Debug for Translator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Translator")
    }
}

/// What of the host a container is going to be made of, in the process that will wait for it.
pub struct Waiting {
    jail: Jail,
    /// The root directory, then sources of mounts, in their order.
    pub fds: Vec<HostFd>,
}

impl Waiting {
    /// Opens it. Descriptors but those in `kept` are closed first.
    ///
    /// # Errors
    /// What cannot be opened, or not in a copy of the mounts.
    pub fn open(spec: &Spec, kept: &[i32]) -> Result<Waiting, Error> {
        let mut jail = Jail::begin(true, kept)?;
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let root = here.join(&spec.root);
        jail.admit_others();
        jail.begin_root(&root, spec.container.writes_root);
        jail.show(&root);
        let opened = jail.open_root_for_another(&root);
        let mut fds = vec![opened.map_err(|source| Error::Root { path: root, source })?];
        fds.extend(container::of_host(container::open(&spec.container.mounts, &mut jail)?));
        Ok(Waiting { jail, fds })
    }

    /// What it was opened for has it. What is left is to wait: without any right.
    ///
    /// # Errors
    /// The host's.
    pub fn give_up(self) -> Result<(), Error> {
        drop(self.fds);
        self.jail.give_up()
    }
}

/// What processes that begin in a container have.
#[derive(Clone)]
pub(super) struct Inside {
    pub(super) world: Shared,
    /// What its first process had before its own.
    pub(super) limits: Limits,
    /// What screens the calls of all its programs.
    pub(super) seccomp: Option<Arc<Filter>>,
    /// Where they are born; where process 1 is, if none.
    pub(super) home: Option<Home>,
}

/// What a process begins with.
pub(super) struct Begin<'a> {
    pub(super) argv: &'a [Vec<u8>],
    pub(super) env: &'a [Vec<u8>],
    pub(super) cwd: &'a str,
    pub(super) user: &'a User,
    /// Standard input, output and error, or one terminal.
    pub(super) streams: Vec<HostFd>,
    pub(super) terminal: bool,
}

impl Inside {
    /// Loads a process's program. `ended` is called when it has ended.
    pub(super) fn load(
        &self,
        kernel: &Arc<Kernel>,
        begin: Begin<'_>,
        ended: impl Fn(WaitStatus) + Send + Sync + 'static,
    ) -> Result<Init, Error> {
        let (cred, limits) = (begin.user.cred(), begin.user.limits(self.limits));
        let fs = self.place(begin.cwd, begin.user, &cred)?;
        let mm_limits = start::mm_limits(&limits);
        let command = Command { argv: begin.argv, env: begin.env, fs: &fs, cred: &cred, limits: &mm_limits };
        let (program, exe) = command.load(kernel)?;
        let streams = world::received_stdio(&self.world, kernel, &cred, begin.streams, begin.terminal)
            .map_err(|source| Error::Setup { what: "its standard streams", source })?;
        let Streams { fds, tty } = streams;
        let world = self.world.clone();
        let on_exit = move |status: WaitStatus| {
            if let Some((_, index)) = tty {
                world.devices.ptys.remove(index);
            }
            ended(status);
        };
        Ok(Init {
            mm: program.mm,
            ip: program.ip,
            sp: program.sp,
            fds,
            fs,
            cred,
            comm: program.comm,
            exe: Some(exe),
            limits,
            confinement: Confinement::of_container(begin.user.no_new_privileges, self.seccomp.as_ref()),
            ignored: SigSet::EMPTY,
            tty: tty.map(|(number, _)| number),
            told: None,
            on_exit: Some(Box::new(on_exit)),
            home: self.home.clone(),
        })
    }

    /// Its view of the files: the root, and its working directory.
    fn place(&self, cwd: &str, user: &User, cred: &Cred) -> Result<Arc<FsContext>, Error> {
        let fs = FsContext::new(self.world.ns.clone());
        fs.set_umask(user.umask.unwrap_or(0o022));
        let lookup = Lookup { fs: &fs, cred, caller: Caller { pid: 1, tid: 1 } };
        let found = match lookup.resolve(None, cwd.as_bytes(), Resolve::FOLLOW) {
            Ok(path) if path.dentry.kind() == Kind::Dir => path,
            other => {
                let source = other.err().unwrap_or(Errno::ENOTDIR);
                return Err(Error::WorkingDirectory { path: cwd.into(), source });
            }
        };
        fs.set_cwd(found);
        Ok(fs)
    }
}

/// A container beside the first.
struct Member {
    inside: Inside,
    home: Home,
    /// Which of all that have had its name.
    turn: u64,
    first: First,
}

/// A container's first process.
enum First {
    /// It waits for the request to start.
    Waits(Box<Init>),
    /// It has started, by this id.
    Runs(i32),
}

/// All containers of a kernel.
pub(super) struct Pod {
    pub(super) kernel: Arc<Kernel>,
    /// The first one.
    pub(super) first: Inside,
    translator: Option<Translator>,
    members: Lock<BTreeMap<String, Member>>,
    turns: AtomicU64,
}

impl Pod {
    /// One with the first container only, and no others ever without who understands their specifications.
    pub(super) fn new(kernel: &Arc<Kernel>, first: Inside, translator: Option<Translator>) -> Arc<Pod> {
        Arc::new(Pod {
            kernel: kernel.clone(),
            first,
            translator,
            members: Lock::new(Rank::Pod, BTreeMap::new()),
            turns: AtomicU64::new(0),
        })
    }

    /// What begins in a container that runs has; the first one where none is named.
    pub(super) fn inside(&self, of: Option<&str>) -> Result<Inside, String> {
        let Some(id) = of else { return Ok(self.first.clone()) };
        match self.members.lock().get(id) {
            Some(Member { first: First::Waits(_), .. }) => {
                Err("the container has not been started".to_owned())
            }
            Some(member) => Ok(member.inside.clone()),
            None => Err(NOT_RUNNING.to_owned()),
        }
    }

    /// Makes a container, up to its first process's first instruction, and has it looked after.
    pub(super) fn create(
        self: &Arc<Self>,
        asked: &Create,
        stream: &HostFd,
        fds: Vec<HostFd>,
    ) -> Result<(), Error> {
        let refused = |why: &str| Error::Host(why.to_owned());
        let translator = self.translator.as_ref().ok_or_else(|| refused("its sandbox is no pod's"))?;
        let spec = (translator.0)(&asked.config, &asked.bundle).map_err(Error::Host)?;
        if !spec.container.sysctls.is_empty() {
            return Err(refused("linux.sysctl: the sandbox's of a pod are all its containers'"));
        }
        let sharing = self.sharing(&asked.shares)?;
        let failed = |what| move |source| Error::Setup { what, source };
        let mountable = self.first.world.mountable().map_err(failed("what can be mounted"))?;
        let cgroup = mountable.make_cgroup(asked.id.as_bytes()).map_err(failed("its control group"))?;
        let home = self.kernel.make_home(cgroup, &sharing);
        let home = home.inspect_err(|_| self.bury(cgroup)).map_err(failed("its namespaces"))?;
        let made = self.build(asked, &spec, &home, (stream, fds));
        let made = made.and_then(|member| {
            let turn = member.turn;
            // One of that name that is still on its way out has somebody who sees to it.
            let former = self.members.lock().insert(asked.id.clone(), member);
            drop(former);
            self.look_after(&asked.id, turn, cgroup, stream)
        });
        made.inspect_err(|_| self.bury(cgroup))
    }

    fn build(
        &self,
        asked: &Create,
        spec: &Spec,
        home: &Home,
        (stream, fds): (&HostFd, Vec<HostFd>),
    ) -> Result<Member, Error> {
        let failed = |what| move |source| Error::Setup { what, source };
        let mut fds = fds.into_iter();
        let (container, shares_shm) = (&spec.container, asked.shares.ipc != Whose::Own);
        let root = fds.next().ok_or(Errno::EBADF).map_err(failed("its root directory"))?;
        let world =
            self.first.world.beside((root, container.writes_root), &self.kernel, (home.pids(), shares_shm));
        let world = Arc::new(world.map_err(failed("its mounts"))?);
        let opened = container::opened(&container.mounts, &mut fds)?;
        devices::make(&container.devices, &world)?;
        let ground = Ground { world: &world, kernel: &self.kernel, home: Some(home), shares_shm };
        container::mount(opened, &ground, container.readonly_root)?;
        start::begin_write_back(&world)?;
        self.name(asked, spec, home);
        let limited = self.kernel.limit_home(home, asked.memory, asked.tasks);
        limited.map_err(failed("its limits"))?;
        let inside = Inside {
            world,
            limits: self.first.limits,
            seccomp: container.seccomp.clone(),
            home: Some(home.clone()),
        };
        let user = container.user.clone().unwrap_or_default();
        let cwd = spec.cwd.clone().unwrap_or_else(|| "/".into());
        let begin = Begin {
            argv: &spec.argv,
            env: &spec.env,
            cwd: &cwd.to_string_lossy(),
            user: &user,
            streams: fds.collect(),
            terminal: asked.terminal,
        };
        let (to, kernel, cgroup) = (stream.clone(), Arc::downgrade(&self.kernel), home.cgroup);
        let ended = move |status: WaitStatus| {
            if let Some(kernel) = kernel.upgrade() {
                // In a pid namespace of others' they would outlive it.
                let _gone = kernel.kill_cgroup(cgroup);
            }
            answer(&to, &Reply::Ended(status.shell_code()));
        };
        let init = inside.load(&self.kernel, begin, ended)?;
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        Ok(Member { inside, home: home.clone(), turn, first: First::Waits(Box::new(init)) })
    }

    /// Names the host, where that is not others' too.
    fn name(&self, asked: &Create, spec: &Spec, home: &Home) {
        if asked.shares.uts != Whose::Own {
            return;
        }
        let mut uts = home.uts().lock();
        if let Some(name) = &spec.container.hostname {
            uts.hostname = name.clone().into_bytes();
        }
        if let Some(name) = &spec.container.domainname {
            uts.domainname = name.clone().into_bytes();
        }
    }

    fn sharing(&self, asked: &Shares) -> Result<Sharing, Error> {
        let of = |whose: &Whose| {
            Ok(match whose {
                Whose::Own => None,
                Whose::Sandbox => Some(self.kernel.first_home()),
                Whose::Member(id) => Some(self.home_of(id).map_err(Error::Host)?),
            })
        };
        Ok(Sharing {
            pids: of(&asked.pids)?,
            uts: of(&asked.uts)?,
            ipc: of(&asked.ipc)?,
            network: of(&asked.network)?,
        })
    }

    fn home_of(&self, id: &str) -> Result<Home, String> {
        let members = self.members.lock();
        members
            .get(id)
            .map(|member| member.home.clone())
            .ok_or_else(|| format!("container {id} is not in the pod"))
    }

    /// Has a thread do what is asked for on a container's stream, and take the container away when that ends.
    fn look_after(
        self: &Arc<Self>,
        id: &str,
        turn: u64,
        cgroup: CgroupId,
        stream: &HostFd,
    ) -> Result<(), Error> {
        let (pod, id, stream) = (self.clone(), id.to_owned(), stream.clone());
        let body = move || {
            loop {
                // Who asks does not wait for an answer.
                let _done = match read(&stream).map(|asked| asked.what) {
                    Ok(Request::Signal(signo)) => pod.signal(Some(&id), signo),
                    Ok(Request::TerminalSignal(signo)) => pod.terminal_signal(&id, signo),
                    // Nothing but time has passed.
                    Ok(_) | Err(Errno::EAGAIN) => Ok(()),
                    Err(_) => break,
                };
            }
            pod.remove(&id, turn);
            drop(stream);
            pod.bury(cgroup);
        };
        let thread = arena::thread::spawn("container", body);
        thread.map(drop).map_err(|source| Error::Setup { what: "a thread for the container", source })
    }

    fn remove(&self, id: &str, turn: u64) {
        let mut members = self.members.lock();
        let gone = match members.get(id) {
            Some(member) if member.turn == turn => members.remove(id),
            _ => None,
        };
        drop(members);
        drop(gone);
    }

    /// Ends what is in a container that nobody can name any more, and lets go of what it had of the host.
    fn bury(&self, cgroup: CgroupId) {
        let never = AtomicU32::new(0);
        let busy = || {
            let _gone = self.kernel.kill_cgroup(cgroup);
            self.first.world.mountable().and_then(|all| all.remove_cgroup(cgroup)) == Err(Errno::EBUSY)
        };
        while busy() {
            hostsys::futex::wait(&never, 0, Some(PATIENCE));
        }
        self.first.world.trees.sweep();
    }

    /// Starts a container's first process.
    pub(super) fn start(&self, id: &str) -> Result<(), String> {
        let init = {
            let mut members = self.members.lock();
            let member = members.get_mut(id).ok_or(NOT_RUNNING)?;
            match std::mem::replace(&mut member.first, First::Runs(0)) {
                First::Waits(init) => init,
                runs => {
                    member.first = runs;
                    return Err("the container has been started already".to_owned());
                }
            }
        };
        let task = self.kernel.spawn_init(*init).map_err(|errno| format!("starting the process: {errno}"))?;
        if let Some(member) = self.members.lock().get_mut(id) {
            member.first = First::Runs(task.tgid());
        }
        Ok(())
    }

    /// The first process of a container that runs, by id.
    fn first_of(&self, of: Option<&str>) -> Result<i32, String> {
        let Some(id) = of else { return Ok(crate::kernel::tree::INIT) };
        match self.members.lock().get(id) {
            Some(Member { first: First::Runs(id), .. }) => Ok(*id),
            _ => Err(NOT_RUNNING.to_owned()),
        }
    }

    /// Sends a signal to a container's first process, as from outside its pid namespace.
    pub(super) fn signal(&self, of: Option<&str>, signo: i32) -> Result<(), String> {
        let first = self.kernel.process(self.first_of(of)?).ok_or(NOT_RUNNING)?;
        self.kernel.signal_group(&first, SigInfo::kernel(signo)).map_err(|errno| errno.to_string())
    }

    fn terminal_signal(&self, id: &str, signo: i32) -> Result<(), String> {
        if let Some(tty) = self.kernel.controlling_terminal(self.first_of(Some(id))?) {
            self.kernel.signal_foreground(tty, signo);
        }
        Ok(())
    }

    /// Stops all that is in a container, or lets it go on.
    pub(super) fn freeze(&self, id: &str, frozen: bool) -> Result<(), String> {
        let home = self.home_of(id)?;
        self.kernel.freeze_cgroup(home.cgroup, frozen).map_err(|errno| errno.to_string())
    }

    /// Changes what a container's processes may have together.
    pub(super) fn limit(&self, id: &str, memory: Option<u64>, tasks: Option<u64>) -> Result<(), String> {
        let home = self.home_of(id)?;
        self.kernel.limit_home(&home, memory, tasks).map_err(|errno| errno.to_string())
    }

    /// What they have.
    pub(super) fn usage(&self, id: &str) -> Result<Usage, String> {
        let (home, kernel) = (self.home_of(id)?, &self.kernel);
        let used = || {
            let memory = kernel.cgroup_memory(home.cgroup)?.current();
            let tasks = kernel.cgroups.tasks(home.cgroup)?.0;
            Ok(Usage { memory, tasks, cpu_ns: kernel.cgroup_cpu_ns(home.cgroup)? })
        };
        used().map_err(|errno: Errno| errno.to_string())
    }

    /// The processes of a container.
    pub(super) fn processes(&self, of: Option<&str>) -> Result<Vec<Process>, String> {
        let home = of.map_or_else(|| Ok(self.kernel.first_home()), |id| self.home_of(id))?;
        let others: Vec<Home> = self.members.lock().values().map(|member| member.home.clone()).collect();
        let residents = self.kernel.residents(&home, &others);
        let number = |id: i32| home.pids().number_of(id);
        let parent = |id: i32| self.kernel.tree.lock().node(id).map_or(0, |node| node.parent);
        let listed = residents.into_iter().filter_map(|group| {
            let task = group.threads().first()?.clone();
            let name = String::from_utf8_lossy(&task.comm()).into_owned();
            let (pid, parent) = (number(group.tgid), number(parent(group.tgid)));
            Some(Process { pid, parent, uid: task.cred().uid.effective, name })
        });
        Ok(listed.collect())
    }
}
