//! Sockets and their messages.

pub(super) mod message;
mod networks;
pub(super) mod socket;
