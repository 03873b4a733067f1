//! File systems and the files that have none.
//!
//! [`layer`] is what can be written to (tmpfs, and the layer above the host's files), [`dev`], [`proc`] and [`cgroup`] are what
//! their names say, [`pipe`], [`eventfd`] and the like are made by system calls, [`host`] passes the caller's own
//! descriptors through.

pub mod cgroup;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod fscontext;
pub mod host;
#[expect(unsafe_code, reason = "host calls on pinned user pages and page caches")]
pub mod hostio;
pub mod hostterm;
pub mod inotify;
pub mod layer;
pub mod memfd;
pub mod mountable;
pub mod nsfs;
mod numbers;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod pseudo;
pub mod pty;
mod records;
pub mod signalfd;
pub mod sysfs;
pub mod terminal;
pub mod through;
pub mod timerfd;
pub mod world;

/// The types of file systems, as /proc/filesystems lists them: none is on a device.
pub const FILESYSTEMS: &[&str] = &["sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "ramfs", "cgroup2"];
