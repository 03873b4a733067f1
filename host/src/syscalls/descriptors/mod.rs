//! Descriptors themselves: duplicating, controlling, and those that name no file (pipes, event descriptors).

pub(super) mod close;
pub(super) mod eventfd;
pub(super) mod fd;
mod fileflags;
pub(super) mod ioctl;
pub(super) mod locks;
pub(super) mod memfd;
pub(super) mod pipe;
mod sigio;
pub(super) mod signalfd;
pub(super) mod splice;
pub(super) mod timerfd;
