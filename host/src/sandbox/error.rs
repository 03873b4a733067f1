//! Why a sandbox did not start: one line each, saying what failed, on what, and what to do about it.

use crate::abi::Errno;
use std::path::PathBuf;

/// A failed start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform cannot be had.
    #[error("platform {name}: {reason}")]
    Platform {
        /// Which.
        name: &'static str,
        /// What is missing and what to do.
        reason: String,
    },
    /// The root directory cannot be used.
    #[error("root {}: {source}; --root takes a directory that the caller can read", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What opening it said.
        source: Errno,
    },
    /// Something cannot be mounted.
    #[error("mounting {of} at {place}: {source}")]
    Mount {
        /// What.
        of: String,
        /// Where in the sandbox.
        place: String,
        /// What the host, or our own kernel, said.
        source: Errno,
    },
    /// A device node cannot be made.
    #[error("device {place}: {source}")]
    Device {
        /// Where.
        place: String,
        /// What our own kernel said.
        source: Errno,
    },
    /// A setting of the kernel cannot be changed.
    #[error("sysctl {name}: {source}; /proc/sys inside the sandbox shows what there is")]
    Sysctl {
        /// Which.
        name: String,
        /// What our own kernel said.
        source: Errno,
    },
    /// The working directory does not exist in the sandbox.
    #[error("working directory {}: {source} in the sandbox's root; --cwd takes a directory there", path.display())]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// What looking it up said.
        source: Errno,
    },
    /// The debug log cannot be written.
    #[error("debug log {}: {source}; --debug-log takes a file that the caller can create", path.display())]
    DebugLog {
        /// The file.
        path: PathBuf,
        /// What opening it said.
        source: std::io::Error,
    },
    /// The command is nowhere in PATH.
    #[error("{command}: not found in the sandbox's PATH ({path}); give a path, or set PATH with --env")]
    NotInPath {
        /// What was looked for.
        command: String,
        /// Where.
        path: String,
    },
    /// The command does not exist.
    #[error("{command}: not found in the sandbox's root")]
    NotFound {
        /// What was looked for.
        command: String,
    },
    /// The command exists but cannot be executed.
    #[error("{command}: cannot be executed: {reason}")]
    NotExecutable {
        /// Which.
        command: String,
        /// Why.
        reason: String,
    },
    /// The host refuses part of the jail.
    #[error("the jail: {step}: {reason}; --no-jail runs without it, for debugging")]
    Jail {
        /// Which step.
        step: &'static str,
        /// What the host said.
        reason: String,
    },
    /// The log of connections cannot be written.
    #[error("log of connections {}: {source}; --net-log takes a file that the caller can create", path.display())]
    NetLog {
        /// The file.
        path: PathBuf,
        /// What opening it said.
        source: Errno,
    },
    /// The archive of changes cannot be written.
    #[error("archive of changes {}: {source}; --save-diff takes a file that the caller can create", path.display())]
    SaveDiff {
        /// The file.
        path: PathBuf,
        /// What opening it said.
        source: Errno,
    },
    /// A port of the host cannot be had.
    #[error("--publish {what}: {reason}")]
    Publish {
        /// As it was asked for.
        what: String,
        /// What the host said.
        reason: String,
    },
    /// The kernel could not be set up.
    #[error("{what}: {source}")]
    Setup {
        /// Which step.
        what: &'static str,
        /// What it said.
        source: Errno,
    },
    /// The arena or a host resource that everything needs.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// Why a program could not be started, in words by which engines tell 126 and 127.
    pub fn as_engines_read_it(&self) -> String {
        match self {
            Error::NotInPath { command, path } => {
                format!("exec: \"{command}\": executable file not found in $PATH ({path})")
            }
            Error::NotFound { command } => format!("exec: \"{command}\": no such file or directory"),
            Error::NotExecutable { command, reason } => {
                format!("exec: \"{command}\": permission denied: {reason}")
            }
            other => other.to_string(),
        }
    }

    /// The exit status that tells a shell what happened: 127 not found, 126 not executable, else `ours`.
    pub fn status(&self, ours: u8) -> u8 {
        match self {
            Error::NotInPath { .. } | Error::NotFound { .. } => 127,
            Error::NotExecutable { .. } => 126,
            _ => ours,
        }
    }
}
