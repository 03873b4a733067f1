//! Hooks: programs of the host's that are run at certain moments of a container's life, with its state on standard input.

use super::error::{Error, Result};
use oci_spec::runtime::Hook;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs hooks one after the other; the first that fails is the last.
pub(super) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &serde_json::Value) -> Result<()> {
    for hook in hooks.into_iter().flatten() {
        run_one(hook, state)
            .map_err(|error| Error::new(format!("{kind} hook {}: {error}", hook.path().display())))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> std::result::Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for assignment in hook.env().iter().flatten() {
        if let Some((name, value)) = assignment.split_once('=') {
            command.env(name, value);
        }
    }
    // The container's own streams may be ours.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read it does not want it.
        let _closed = stdin.write_all(state.to_string().as_bytes());
    }
    let end =
        hook.timeout().and_then(|s| u64::try_from(s).ok()).map(|s| Instant::now() + Duration::from_secs(s));
    let status = loop {
        let Some(end) = end else { break child.wait().map_err(|error| error.to_string())? };
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if Instant::now() > end {
            let _gone = child.kill();
            let _reaped = child.wait();
            return Err("it did not end in its time".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
