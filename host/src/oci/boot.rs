//! The sandbox's own process: a re-execution of this program that `create` has started and talks to over a stream until
//! everything is ready. From the request to start on it is the kernel of the container's programs. Or, of a container in
//! another's kernel, the one that waits for its end ([`member`]).
//!
//! On the stream: `namespaces` when the process is in its control groups and network namespace, so that hooks find it there;
//! `go` back; then `ready`, or `error` and the message, by write(2), which the jail allows.

use super::client;
use super::error::{Doing, Error, Result};
use super::pod::{self, Role};
use super::spec::{Net, Plan, translate};
use super::{Global, args, member, named, state};
use crate::hostsys::file;
use crate::hostsys::{confine, process};
use crate::sandbox;
use crate::sandbox::pod::Translator;
use oci_spec::runtime::Spec;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// What the creator answers when hooks have run.
pub(super) const GO: &[u8; 3] = b"go\n";

/// Runs the sandbox to its end.
pub(super) fn main(global: &Global, args: &args::Boot, plan: named::Plan) -> ExitCode {
    let Ok(mut creator) = client::inherited(args.creator) else { process::end(125) };
    let known = match load(global, args, plan) {
        Ok(known) => known,
        Err(error) => fail(args, &error),
    };
    let Some(control) = args.control else { return wait(global, args, creator, known) };
    match prepare(args, control, &mut creator, known) {
        Ok(prepared) => {
            // Who creates it has gone: there is nobody to start it.
            if file::write(args.creator, b"ready\n").is_err() {
                process::end(125);
            }
            drop(creator);
            run(prepared)
        }
        Err(error) => fail(args, &error),
    }
}

/// Waits for a container in another's kernel.
fn wait(global: &Global, args: &args::Boot, mut creator: UnixStream, known: Known) -> ExitCode {
    let Known { state, config: Some(config), plan } = known else { process::end(125) };
    match member::prepare(global, args, (&state, &config, plan), &mut creator) {
        Ok(made) => {
            if file::write(args.creator, b"ready\n").is_err() {
                process::end(125);
            }
            drop(creator);
            process::end(made.wait())
        }
        Err(error) => fail(args, &error),
    }
}

fn fail(args: &args::Boot, error: &Error) -> ! {
    let _gone = file::write(args.creator, format!("error\n{}", error.message).as_bytes());
    process::end(125)
}

fn run(prepared: sandbox::Prepared) -> ExitCode {
    if !prepared.wait_for_start() {
        process::end(125);
    }
    let status = match prepared.run() {
        Ok(done) => {
            let _closed = std::io::stderr().write_all(done.notes().as_bytes());
            done.status()
        }
        Err(error) => {
            sandbox::tell(&error.to_string());
            125
        }
    };
    // What the sandbox was made of ends with the process.
    process::end(status)
}

/// What is to be made.
struct Known {
    state: state::State,
    /// Of one with a bundle.
    config: Option<Spec>,
    plan: Plan,
}

fn load(global: &Global, args: &args::Boot, plan: named::Plan) -> Result<Known> {
    let state = state::load(&args.state)?;
    if !args.words.is_empty() {
        let sandbox = plan(args.words.clone()).map_err(Error::new)?;
        let plan = Plan { sandbox, network: Net::Same, warnings: Vec::new() };
        return Ok(Known { state, config: None, plan });
    }
    let config = state::config(&args.state)?;
    let mut plan = translate(global, &config, &state.bundle)?;
    if pod::role(&config)? == Role::Sandbox {
        // Nobody makes a directory for a log there.
        let global = Global { debug_log: None, ..global.clone() };
        let translator = Translator::new(move |text, bundle| {
            let config: Spec = serde_json::from_str(text).map_err(|error| format!("config.json: {error}"))?;
            translate(&global, &config, bundle).map(|plan| plan.sandbox).map_err(|error| error.message)
        });
        plan.sandbox.container.pod = Some(translator);
    }
    Ok(Known { state, config: Some(config), plan })
}

fn prepare(
    args: &args::Boot,
    control: i32,
    creator: &mut UnixStream,
    known: Known,
) -> Result<sandbox::Prepared> {
    let Known { state, plan: Plan { mut sandbox, network, .. }, .. } = known;
    join(&state, args.terminal)?;
    enter(&network)?;
    wait_for_hooks(creator)?;
    sandbox.container.control = Some(control);
    sandbox.container.kept = vec![control, args.creator];
    sandbox::prepare(sandbox).map_err(|error| Error::of_program(&error))
}

/// Goes to the container's control groups, and has its terminal be the controlling one.
pub(super) fn join(state: &state::State, terminal: bool) -> Result<()> {
    state.cgroup.join()?;
    if terminal {
        rustix::process::setsid().doing(|| "making a session".to_owned())?;
        rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())
            .doing(|| "making the terminal the controlling one".to_owned())?;
    }
    Ok(())
}

/// Tells who creates the container that the process is where hooks are to find it, and waits until they have run.
pub(super) fn wait_for_hooks(creator: &mut UnixStream) -> Result<()> {
    creator.write_all(b"namespaces\n").doing(|| "telling who creates the container".to_owned())?;
    let mut go = [0; GO.len()];
    creator.read_exact(&mut go).doing(|| "waiting for hooks".to_owned())
}

/// Enters the network namespace.
pub(super) fn enter(network: &Net) -> Result<()> {
    match network {
        Net::Same => Ok(()),
        Net::New => confine::own_namespaces(libc::CLONE_NEWNET)
            .map_err(|errno| Error::new(format!("making a network namespace: {errno}"))),
        Net::Path(path) => {
            let stage = || format!("network namespace {}", path.display());
            let file = File::open(path).doing(stage)?;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(file.as_fd(), kind).doing(stage)
        }
    }
}
