//! From a specification to a running kernel, and back to an exit status.

mod cpus;
mod error;
mod program;
mod report;
mod spec;
mod start;

pub use error::Error;
pub use spec::{PlatformChoice, Spec};
pub use start::run;

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
    /// The counters as text; empty unless asked for.
    pub stats: String,
}
