//! Where errors and warnings go: standard error, and the file that an engine reads the last error from.

use super::Global;
use super::args::LogFormat;
use crate::sandbox::tell;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Says why a command has failed.
pub(super) fn error(global: &Global, message: &str) {
    tell(message);
    to_log(global, "error", message);
}

/// Says what was not done. Standard error may be the container's own: only where somebody looks at it.
pub(super) fn warning(global: &Global, message: &str) {
    if global.log.is_none() && std::io::stderr().is_terminal() {
        tell(&format!("warning: {message}"));
    }
    to_log(global, "warning", message);
}

fn to_log(global: &Global, level: &str, message: &str) {
    debug(global, message);
    let Some(path) = &global.log else { return };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let line = match global.log_format {
        LogFormat::Json => serde_json::json!({ "level": level, "msg": message, "time": time }).to_string(),
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
    };
    append(path, &line);
}

/// Notes the command line in the debug log.
pub(super) fn command(global: &Global) {
    if global.debug_log.is_some() {
        let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        debug(global, &format!("{words:?}"));
    }
}

fn debug(global: &Global, message: &str) {
    if let Some(path) = debug_log(global) {
        append(&path, message);
    }
}

fn append(path: &Path, line: &str) {
    if let Ok(mut file) = File::options().create(true).append(true).open(path) {
        // Nobody is left to tell.
        let _full = writeln!(file, "{line}");
    }
}

/// The file for debug lines of this command: what the pattern says, where a directory has one file for each command, and
/// `%COMMAND%`, `%TIMESTAMP%` and `%PID%` stand for what they say.
pub(super) fn debug_log(global: &Global) -> Option<PathBuf> {
    let pattern = global.debug_log.as_ref()?.to_string_lossy().into_owned();
    let pattern = match pattern.strip_suffix('/') {
        Some(dir) => format!("{dir}/pillbox.log.%TIMESTAMP%.%PID%.%COMMAND%.txt"),
        None => pattern,
    };
    let now = started();
    let stamp = humantime::format_rfc3339_seconds(now).to_string();
    let path = pattern
        .replace("%COMMAND%", &verb())
        .replace("%TIMESTAMP%", &stamp.replace(['-', ':'], "").replace('T', "-"))
        .replace("%PID%", &std::process::id().to_string());
    let path = PathBuf::from(path);
    if let Some(dir) = path.parent() {
        // Opening the file tells.
        let _there = std::fs::create_dir_all(dir);
    }
    Some(path)
}

/// One name for all lines of a process: its own time, not the line's.
fn started() -> SystemTime {
    let started = std::fs::metadata("/proc/self").and_then(|own| own.modified());
    started.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The verb of this command line: the first word that is one.
fn verb() -> String {
    const VERBS: [&str; 16] = [
        "create", "start", "state", "kill", "delete", "run", "exec", "ps", "list", "events", "pause",
        "resume", "update", "spec", "features", "boot",
    ];
    let words = std::env::args().skip(1);
    words.into_iter().find(|word| VERBS.contains(&word.as_str())).unwrap_or_else(|| "other".to_owned())
}
