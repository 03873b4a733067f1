//! Processes and threads: making, executing, ending, waiting for, limiting.

pub(super) mod clone;
pub(super) mod exec;
pub(super) mod exit;
pub(super) mod ids;
pub(super) mod limits;
pub(super) mod ns;
pub(super) mod peek;
pub(super) mod personality;
pub(super) mod pidfd;
pub(super) mod prctl;
pub(super) mod ptrace;
pub(super) mod wait;
