//! From a specification to a running kernel, and back to an exit status.

mod cgroup;
pub mod container;
pub mod control;
mod copy;
mod cpus;
pub mod devices;
pub(crate) mod diff;
pub(crate) mod entries;
mod error;
mod jail;
pub(crate) mod layer;
mod memory;
mod network;
pub mod pod;
mod program;
mod report;
mod reticence;
mod spec;
mod start;
mod sysctl;
mod tasks;
mod tell;
mod timeout;
mod warden;

pub use error::Error;
pub use jail::trial;
pub(crate) use memory::{bytes as parse_bytes, size as parse_size};
pub use network::Publish;
pub use spec::{Network, PlatformChoice, Spec};
pub use start::{Prepared, prepare, run};
use std::time::Duration;
pub(crate) use tell::{shown, tell};
pub use warden::run as be_warden;

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
    /// What there is to say of the changes that were to be saved.
    pub saved: Option<String>,
    /// The counters as text; empty unless asked for.
    pub stats: String,
}

impl Done {
    /// The exit status that says how it ended: the program's own, or 128 and the signal.
    pub fn status(&self) -> u8 {
        match self.ended {
            Ended::Exited(status) => status,
            Ended::Signaled(signal) => 128_u8.wrapping_add(signal),
        }
    }

    /// What there is to say beside that, in lines.
    pub fn notes(&self) -> String {
        let mut notes = String::new();
        if let Some(timeout) = self.timed_out {
            let timeout = humantime::format_duration(timeout);
            notes += &format!("pillbox: --timeout: the command had not ended after {timeout}\n");
        }
        if let Some(said) = &self.saved {
            notes += &format!("pillbox: --save-diff {said}\n");
        }
        notes + &self.stats
    }
}
