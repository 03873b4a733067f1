//! The sandbox's own process: a re-execution of this program that `create` has started and talks to over a stream until
//! everything is ready. From the request to start on it is the kernel of the container's programs.
//!
//! On the stream: `namespaces` when the process is in its control groups and network namespace, so that hooks find it there;
//! `go` back; then `ready`, or `error` and the message, by write(2), which the jail allows.

use super::client;
use super::error::{Doing, Error, Result};
use super::spec::{Net, Plan, translate};
use super::{Global, args, named, state};
use crate::hostsys::file;
use crate::hostsys::{confine, process};
use crate::sandbox;
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
    match prepare(global, args, &mut creator, plan) {
        Ok(prepared) => {
            // Who creates it has gone: there is nobody to start it.
            if file::write(args.creator, b"ready\n").is_err() {
                process::end(125);
            }
            drop(creator);
            run(prepared)
        }
        Err(error) => {
            let _gone = file::write(args.creator, format!("error\n{}", error.message).as_bytes());
            process::end(125)
        }
    }
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

fn prepare(
    global: &Global,
    args: &args::Boot,
    creator: &mut UnixStream,
    plan: named::Plan,
) -> Result<sandbox::Prepared> {
    let known = state::load(&args.state)?;
    let (mut sandbox, network) = if args.words.is_empty() {
        let config = state::config(&args.state)?;
        let Plan { sandbox, network, .. } = translate(global, &config, &known.bundle)?;
        (sandbox, network)
    } else {
        (plan(args.words.clone()).map_err(Error::new)?, Net::Same)
    };
    known.cgroup.join()?;
    if args.terminal {
        rustix::process::setsid().doing(|| "making a session".to_owned())?;
        rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())
            .doing(|| "making the terminal the controlling one".to_owned())?;
    }
    enter(&network)?;
    tell(creator, "namespaces\n")?;
    let mut go = [0; GO.len()];
    creator.read_exact(&mut go).doing(|| "waiting for hooks".to_owned())?;
    sandbox.container.control = Some(args.control);
    sandbox.container.kept = vec![args.control, args.creator];
    sandbox::prepare(sandbox).map_err(|error| Error::of_program(&error))
}

fn tell(creator: &mut UnixStream, word: &str) -> Result<()> {
    creator.write_all(word.as_bytes()).doing(|| "telling who creates the container".to_owned())
}

/// Enters the network namespace.
fn enter(network: &Net) -> Result<()> {
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
