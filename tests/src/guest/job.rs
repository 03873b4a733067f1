//! The orders that the harness puts into a guest's file tree, and that the guest's init carries out.

use serde::{Deserialize, Serialize};

/// Where the orders lie in the initramfs.
pub const JOB_PATH: &str = "/job.json";
/// The directory of the initramfs that becomes the root directory of the steps.
pub const PAYLOAD: &str = "/payload";

/// Everything that one boot does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Kernel modules to load, in this order.
    pub modules: Vec<Module>,
    /// Where the steps' output goes: a serial port other than the console's.
    pub channel: String,
    /// The disk that holds the root file system, if it is not the payload itself.
    pub disk: Option<String>,
    /// What to run, one after the other.
    pub steps: Vec<Step>,
}

/// A kernel module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Module {
    /// Its file.
    pub path: String,
    /// Its parameters, as insmod(8) takes them.
    pub parameters: String,
}

/// One command line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables besides the few that every step gets.
    pub env: Vec<(String, String)>,
    /// A file in the guest to read as standard input; without one it is /dev/null.
    pub stdin: Option<String>,
    /// Seconds (of the guest's clock) after which the step is killed.
    pub timeout: Option<u64>,
}

impl Step {
    /// A step that runs `argv`.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The step with a deadline.
    #[must_use]
    pub fn timeout(mut self, seconds: u64) -> Self {
        self.timeout = Some(seconds);
        self
    }
}

/// The exit status that a killed step reports, as `timeout(1)` does.
pub const TIMED_OUT: i32 = 124;
