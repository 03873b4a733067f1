//! From a specification to a running kernel, and back to an exit status.

mod cgroup;
pub mod container;
pub mod control;
mod cpus;
pub mod devices;
mod error;
mod jail;
mod memory;
mod network;
mod program;
mod report;
mod reticence;
mod spec;
mod start;
mod sysctl;
mod tasks;
mod timeout;

pub use error::Error;
pub use jail::trial;
pub(crate) use memory::{bytes as parse_bytes, size as parse_size};
pub use network::Publish;
pub use spec::{Network, PlatformChoice, Spec};
pub use start::{Prepared, prepare, run};
use std::time::Duration;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
}

/// A finished sandbox.
pub struct Done {
    /// How its first program ended.
    pub ended: Ended,
    /// The time after which it was killed for not having ended.
    pub timed_out: Option<Duration>,
    /// The counters as text; empty unless asked for.
    pub stats: String,
}
