//! Users, groups, capabilities, filters.

pub(super) mod caps;
pub(super) mod cred;
pub(super) mod seccomp;
