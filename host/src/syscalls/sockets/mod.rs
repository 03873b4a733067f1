//! Sockets and their messages.

pub(super) mod message;
pub(super) mod socket;
