//! The front door of container engines: the command line of an OCI runtime, and what lies behind it.
//!
//! A container is a sandbox of its own, or one of several in a pod's ([`pod`]). `create` starts one process, a re-execution of
//! this program ([`boot`]), which is the sandbox's kernel and, for engines, the container's first process: it is in the
//! container's control group, its namespace of mounts has the container's root, and it exits with the container's status. It
//! prepares everything, says so, and waits for the request to start ([`crate::sandbox::control`]). Later commands find it by
//! the state directory ([`state`]).
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the command line, with the flags that runc has |
//! | [`spec`] | config.json -> [`crate::sandbox::Spec`], and what of it is not done |
//! | [`seccomp`] | the part of it that is a filter |
//! | [`create`], [`boot`] | both ends of a start |
//! | [`pod`], [`member`] | containers that share a sandbox |
//! | [`exec`], [`verbs`] | the other commands |
//! | [`state`], [`cgroup`], [`hooks`], [`terminal`] | what a container has outside |
//! | [`named`] | containers for people without an engine |
//! | [`client`] | requests to a sandbox |
//! | [`log`] | errors as engines read them |

mod args;
mod boot;
mod cgroup;
mod client;
mod create;
mod error;
mod exec;
mod hooks;
mod log;
mod member;
pub mod named;
mod pod;
mod seccomp;
mod spec;
mod state;
mod terminal;
mod verbs;

pub use args::{Global, Verb};
use error::Error;
use std::process::ExitCode;

/// Does what a command line says.
pub fn main(global: &Global, verb: Verb, plan: named::Plan) -> ExitCode {
    log::command(global);
    let result = match verb {
        Verb::Create(args) => create::create(global, &args),
        Verb::Run(args) => create::run(global, &args),
        Verb::Exec(args) => exec::main(global, &args),
        Verb::Boot(args) => return boot::main(global, &args, plan),
        Verb::Keep(args) => named::keep(global, &args),
        Verb::Logs(args) => named::logs(global, &args),
        Verb::Stop(args) => named::stop(global, &args),
        Verb::Cp(args) => named::copy(global, &args),
        Verb::Rm(args) => named::remove(global, &args),
        Verb::ExecWait(args) => exec::wait(&args),
        Verb::Start(args) => verbs::start(global, &args.id),
        Verb::State(args) => verbs::state(global, &args.id),
        Verb::Kill(args) => verbs::kill(global, &args),
        Verb::Delete(args) => verbs::delete(global, &args),
        Verb::Ps(args) => verbs::ps(global, &args),
        Verb::Descriptors(args) => verbs::descriptors(global, &args.id),
        Verb::List(args) => verbs::list(global, &args),
        Verb::Events(args) => verbs::events(global, &args),
        Verb::Pause(args) => verbs::pause(global, &args.id, true),
        Verb::Resume(args) => verbs::pause(global, &args.id, false),
        Verb::Update(args) => verbs::update(global, &args),
        Verb::Spec(args) => verbs::spec(&args),
        Verb::Features => verbs::features(),
        Verb::Checkpoint(_) => Err(Error::new("checkpoint: a sandbox cannot be saved yet")),
    };
    told(global, result)
}

/// `run` of a container of ours.
pub fn run_named(global: &Global, run: &named::Run, plan: named::Plan) -> ExitCode {
    log::command(global);
    told(global, named::run(global, run, plan))
}

fn told(global: &Global, result: error::Result<u8>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            log::error(global, &error.message);
            ExitCode::from(error.status)
        }
    }
}
