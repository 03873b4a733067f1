//! Containers for people without an engine: `run [-d] --name N -- CMD`, `logs`, `ps`, `stop`, `rm`, `cp`.
//!
//! They are what `do` makes, with a name and a life: the same state directory as a bundle's container, so that the verbs of
//! engines (`state`, `kill`, `exec`, `pause`, `delete`, ...) work on them, too. What is kept beside that is how the program ended
//! and, of a detached one, what it printed.
//!
//! A detached one has a process of its own that keeps it ([`keep`]): the parent of the sandbox, which reads the program's output
//! whether or not anybody else does, writes it to a log of bounded size ([`log`]), and notes the exit status at the end. Should it
//! be killed, the sandbox goes on without a log (the program is told by EPIPE), and its exit status is not known.
//!
//! `run` is runc's verb, too. The rule by which they are told apart is in [`is_ours`].

mod copy;
mod keep;
mod log;
mod verbs;

use super::error::{Doing, Error, Result};
use super::state::{Locked, State};
use super::{Global, cgroup, client, create, pod};
use crate::hostsys::identity;
use crate::sandbox::Spec as Sandbox;
pub(super) use copy::main as copy;
pub(super) use keep::main as keep;
use oci_spec::runtime::{Process, Spec, User};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;
pub(super) use verbs::{list, logs, remove, stop};

/// What a command line of `do` asks for: as the command line knows it, and nobody here.
pub type Plan = fn(Vec<OsString>) -> std::result::Result<Sandbox, String>;

/// What is known of a container of ours beside what is known of all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Own {
    /// The command, as it is shown.
    pub(super) command: String,
    /// The process that keeps it, and when that was started; none in the foreground.
    pub(super) keeper: Option<(i32, u64)>,
    /// How it ended: an exit status, or 128 and the signal.
    pub(super) ended: Option<u8>,
    /// When, seconds since the epoch.
    pub(super) finished: u64,
}

/// What `run` is told of such a container.
#[derive(Debug, Default)]
pub struct Run {
    /// Its name; a random one where there is none.
    pub name: Option<String>,
    /// Do not wait for the end.
    pub detach: bool,
    /// Remove it at the end.
    pub remove: bool,
    /// The options of `do`, and the command.
    pub words: Vec<OsString>,
}

/// Whether what follows `run` on a command line is for a container of ours: it has a name, an image, or a command behind `--`.
/// runc's `run [-d] [-b BUNDLE] ... ID` has none of them.
pub fn is_ours(words: &[OsString]) -> bool {
    words.iter().any(|word| {
        let word = word.as_bytes();
        let is = |option: &[u8]| {
            word.strip_prefix(option).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'='))
        };
        word == b"--" || word == b"--help" || word == b"-h" || is(b"--name") || is(b"--image")
    })
}

/// `run` of a container of ours.
pub(super) fn run(global: &Global, run: &Run, plan: Plan) -> Result<u8> {
    let ours = |message: String| Error { message, status: 125 };
    let sandbox = plan(run.words.clone()).map_err(ours)?;
    let name = run.name.clone().unwrap_or_else(random_name);
    let locked = Locked::create(global, &name).map_err(|error| ours(error.message))?;
    let mut state = new_state(&name, &sandbox);
    let config =
        config(&sandbox).and_then(|config| serde_json::to_vec(&config).doing(|| "config.json".to_owned()));
    let begun = config.and_then(|text| locked.keep(&text)).and_then(|()| locked.save(&state));
    let begun = begun.and_then(|()| match run.detach {
        true => detached(global, run, &locked),
        false => {
            create::block_passed();
            start(global, &locked, &mut state, &run.words, Stdio::inherit).map(Some)
        }
    });
    let child = match begun {
        Ok(child) => child,
        Err(error) => {
            give_up(&locked);
            let _gone = locked.remove();
            return Err(Error { status: status_of(&error.message), ..error });
        }
    };
    // Others need not wait for its end.
    drop(locked);
    let Some(mut child) = child else {
        // Nobody is left to tell when stdout is gone.
        let _closed = writeln!(std::io::stdout(), "{name}");
        return Ok(0);
    };
    let status = create::wait(&mut child)?;
    ended(global, &name, (state.pid, state.started), status, run.remove)?;
    Ok(status)
}

/// The exit status that says why there is no program, by words that engines know it by.
fn status_of(message: &str) -> u8 {
    match message {
        text if text.contains("not found") || text.contains("no such file") => 127,
        text if text.contains("permission denied") => 126,
        _ => 125,
    }
}

fn random_name() -> String {
    let mut bytes = [0; 6];
    crate::hostsys::file::random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_state(name: &str, sandbox: &Sandbox) -> State {
    let words: Vec<_> = sandbox.argv.iter().map(|word| crate::sandbox::shown(word)).collect();
    State {
        oci_version: "1.2.0".to_owned(),
        id: name.to_owned(),
        pid: 0,
        started: 0,
        start_requested: false,
        bundle: PathBuf::new(),
        rootfs: sandbox.root.clone(),
        annotations: std::collections::BTreeMap::new(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        cgroup: cgroup::Group::default(),
        sandbox: None,
        own: Some(Own { command: words.join(" "), ..Own::default() }),
    }
}

/// What processes that join it are like: as a bundle's config.json says it.
fn config(sandbox: &Sandbox) -> Result<Spec> {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let mut user = User::default();
    match &sandbox.container.user {
        Some(own) => {
            user.set_uid(own.uid).set_gid(own.gid).set_additional_gids(Some(own.groups.clone()));
        }
        None => {
            let own = identity::own().doing(|| "reading the caller's groups".to_owned())?;
            user.set_uid(own.uid).set_gid(own.gid).set_additional_gids(Some(own.groups));
        }
    }
    let here = || match sandbox.root == Path::new("/") {
        true => std::env::current_dir().unwrap_or_else(|_| "/".into()),
        false => "/".into(),
    };
    let mut process = Process::default();
    process
        .set_args(Some(sandbox.argv.iter().map(text).collect()))
        .set_env(Some(sandbox.env.iter().map(text).collect()))
        .set_cwd(sandbox.cwd.clone().unwrap_or_else(here))
        .set_user(user)
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(Some(false))
        .set_terminal(Some(false));
    let mut spec = Spec::default();
    spec.set_process(Some(process)).set_hooks(None).set_linux(None);
    Ok(spec)
}

/// Starts the process that keeps it, and waits until the program runs.
fn detached(global: &Global, run: &Run, locked: &Locked) -> Result<Option<Child>> {
    let stage = || "starting the process that keeps it".to_owned();
    let (mut ours, theirs) = UnixStream::pair().doing(stage)?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).doing(stage)?;
    let mut command = create::this_program();
    create::forward(global, &mut command);
    command.arg("keep").arg("--state").arg(&locked.path);
    command.args(["--report", &theirs.as_raw_fd().to_string()]);
    if run.remove {
        command.arg("--rm");
    }
    command.arg("--").args(&run.words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().doing(stage)?;
    drop(theirs);
    let mut said = String::new();
    let _ended = ours.read_to_string(&mut said);
    match said.strip_prefix("error\n") {
        _ if said == "running\n" => Ok(None),
        Some(message) => Err(Error::new(message)),
        None => Err(Error::new("the process that keeps it has ended before the program ran")),
    }
}

/// Makes the sandbox and starts its program. The state is kept at every step, for whoever finds it half done.
fn start(
    global: &Global,
    locked: &Locked,
    state: &mut State,
    words: &[OsString],
    output: impl Fn() -> Stdio,
) -> Result<Child> {
    create::make_group(global, state, None)?;
    let control = client::listen(&locked.path)?;
    let (mut stream, theirs) = UnixStream::pair().doing(|| "a stream to the sandbox".to_owned())?;
    locked.save(state)?;
    let mut command: Command = create::boot_command(global, &locked.path, Some(&control), &theirs)?;
    command.arg("--").args(words).stdout(output()).stderr(output());
    let mut child = command.spawn().doing(|| "starting the sandbox's process".to_owned())?;
    drop((theirs, control));
    state.pid = child.id() as i32;
    state.started = super::state::start_of(state.pid).unwrap_or(0);
    // One who has removed it meanwhile has not found the process.
    let started =
        locked.save(state).and_then(|()| create::converse(&mut stream, None, state)).and_then(|()| {
            client::ask(&pod::address(&locked.path, state), crate::sandbox::control::Request::Start).map(drop)
        });
    if let Err(error) = started {
        let _killed = child.kill();
        let ended = child.wait();
        return Err(match (error.message.is_empty(), ended) {
            (true, Ok(status)) => {
                Error::new(format!("the sandbox's process ended while it was made ({status})"))
            }
            _ => error,
        });
    }
    state.start_requested = true;
    locked.save(state)?;
    Ok(child)
}

/// What there is of one whose creation has failed goes.
fn give_up(locked: &Locked) {
    if let Ok(state) = locked.load() {
        let _killed = state.kill();
        let _removed = state.cgroup.remove();
    }
}

/// What is to be done when a container has ended: it goes, or how it has ended is noted. `own` is its sandbox's process; if it
/// has been removed meanwhile, another may have its name.
fn ended(global: &Global, name: &str, own: (i32, u64), status: u8, remove: bool) -> Result<()> {
    let Ok(locked) = Locked::open(global, name) else { return Ok(()) };
    let Ok(mut state) = locked.load() else { return Ok(()) };
    if (state.pid, state.started) != own {
        return Ok(());
    }
    if remove {
        return super::verbs::remove_locked(global, locked, true).map(drop);
    }
    if let Some(own) = &mut state.own {
        own.ended = Some(status);
        own.finished =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let _kept = locked.save(&state);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_ours;
    use std::ffi::OsString;

    #[test]
    fn runcs_run_is_told_from_ours() {
        let of = |line: &str| is_ours(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for ours in
            ["-d --name a -- sleep 1", "--name=a sleep 1", "-- true", "--image x.tar", "-d --image=d sh"]
        {
            assert!(of(ours), "{ours}");
        }
        for other in
            ["one", "-d -b /bundle one", "--bundle=/name --pid-file f one", "--keep --console-socket s a"]
        {
            assert!(!of(other), "{other}");
        }
    }
}
