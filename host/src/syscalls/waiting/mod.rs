//! Waiting for descriptors and for memory words.

pub(super) mod epoll;
pub(super) mod futex;
pub(super) mod futex2;
pub(super) mod poll;
