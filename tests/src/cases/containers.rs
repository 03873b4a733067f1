//! Containers: the command line that engines use, and podman above it. On this machine, for which it takes root and Python.

use super::{Case, Missing, Place, TIMEOUT, case, succeeds};
use crate::arch::Arch;
use crate::guest::Step;
use crate::packages::{self, Cache, workspace_root};
use std::process::{Command, Stdio};

/// By the command line: the name in `containers.py`, and what holds.
const BUNDLES: &[(&str, &str)] = &[
    ("life", "a container is created, started, paused, killed and deleted"),
    ("run", "a program has what its specification says"),
    ("settings", "a filter, settings, devices and sizes are what its specification says"),
    ("cgroups", "control groups show limits, and hold those of groups inside"),
    ("limits", "run-times know the limits of their container"),
    ("images", "images run without an engine, and what is hostile in them stays in the cache"),
    ("saved", "what a command has changed is saved as a layer, and can be applied"),
    ("named", "containers live without an engine: run -d, exec, logs, ps, stop, rm"),
    ("errors", "engines are told what is wrong"),
    ("exec", "processes join a container that runs"),
    ("descriptors", "the list of host descriptors is what the host says"),
    ("volumes", "what programs do to a volume happens on the host, and the other way round"),
    ("outside", "nothing outside a volume can be reached through it, whatever its names become meanwhile"),
    ("changes", "changes to the root are the bundle's, or stay in memory"),
    ("pods", "containers of a pod share a kernel, and have what is their own"),
    (
        "pods_together",
        "ten of them, with limits, in one pid namespace, stopped, and ended with their sandbox",
    ),
    ("pods_wrong", "what is wrong with one is said in a line, and none reaches what is another's"),
    ("together", "commands at the same time wait for each other"),
    ("kills", "kills at random moments leave nothing behind"),
];

/// By podman.
const PODMAN: &[(&str, &str)] = &[
    ("podman_run", "podman runs containers, and has their statuses and streams"),
    ("podman_life", "podman execs, pauses, stops and restarts"),
    ("podman_ten", "podman has ten of them at once"),
    ("podman_user", "podman runs them for an ordinary user"),
];

/// By docker and containerd.
const DOCKER: &[(&str, &str)] = &[
    ("docker_run", "docker runs containers, and has their statuses and streams"),
    ("docker_life", "docker execs, pauses, updates, stops and restarts"),
    ("containerd", "containerd's own client runs containers"),
];

/// The cases, and what is missing for others.
///
/// # Errors
/// What is missing for any.
pub fn containers(place: &Place) -> Result<(Vec<Case>, Missing), String> {
    let there = |program: &str| {
        let found = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        found.map(drop).map_err(|_| format!("there is no {program}"))
    };
    there("python3")?;
    let trial = Command::new("unshare").args(["-mn", "true"]).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return Err("containers with control groups take a privilege of root".to_owned());
    }
    let cache = Cache::open().map_err(|error| error.to_string())?;
    let busybox = packages::busybox(&cache, Arch::HOST).map_err(|error| error.to_string())?;
    let (busybox, script) =
        (busybox.to_string_lossy(), workspace_root().join("tests/src/cases/containers.py"));
    let script = script.to_string_lossy();
    let podman = there("podman").and_then(|()| there("conmon"));
    let docker = there("dockerd").and_then(|()| there("docker")).and_then(|()| there("ctr"));
    let (with_podman, with_docker) =
        (if podman.is_ok() { PODMAN } else { &[] }, if docker.is_ok() { DOCKER } else { &[] });
    let runtimes =
        there("java").or_else(|_| there("node")).map_err(|_| "there is no java and no node".to_owned());
    let bundles = BUNDLES.iter().filter(|(name, _)| *name != "limits" || runtimes.is_ok());
    let cases = bundles.chain(with_podman).chain(with_docker).map(|(name, what)| {
        let words = ["python3", &script, &place.pillbox, &place.platform, &busybox, name];
        case(&format!("containers: {what}"), Step::new(words).timeout(TIMEOUT), succeeds)
    });
    let cases = cases.collect();
    let missing = [("podman", podman.err()), ("docker", docker.err()), ("limits", runtimes.err())];
    let missing = missing.into_iter().filter_map(|(name, why)| Some((name, why?)));
    Ok((cases, missing.collect()))
}
